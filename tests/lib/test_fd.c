/* SPDX-License-Identifier: Apache-2.0 */
/* A machine in a program that waits by itself. */
#include "api.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

static bool readable(int fd, int timeout_ms)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, timeout_ms) > 0;
}

/* As a program does it: poll, serve, take. The case fails if nothing comes. */
static struct ramet_vm_event wait_for_event(struct ramet_vm *vm)
{
        const int fd = api_ok(ramet_vm_fd(vm));
        struct ramet_vm_event e = {0};

        do
                assert_true(readable(fd, 10000));
        while (api_ok(ramet_vm_serve(vm)) == 0);
        assert_int_equal(api_ok(ramet_vm_next(vm, 0, &e)), 1);
        return e;
}

static void fd(void **state)
{
        struct ramet_vm *vm = api_vm();
        struct ramet_vm_event e;
        char text[64];

        assert_int_equal(api_ok(ramet_vm_fd(vm)), ramet_vm_fd(vm));
        api_ok(ramet_vm_start(vm));
        do { /* its greeting, and then it rings */
                e = wait_for_event(vm);
                if (e.type == RAMET_VM_CONSOLE)
                        ramet_vm_console_read(vm, text, sizeof text);
        } while (e.type != RAMET_VM_DOORBELL);
        for (int i = 0; i < 50; i++) {
                api_ok(ramet_vm_continue(vm));
                assert_int_equal(wait_for_event(vm).type, RAMET_VM_DOORBELL);
        }
        api_order(vm, 0, SERVANT_EXIT, 3, 0, 0);
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(wait_for_event(vm).type, RAMET_VM_EXIT);
        ramet_vm_destroy(vm);
}

static void quiet(struct ramet_vm *vm)
{
        int rounds = 0;

        while (readable(api_ok(ramet_vm_fd(vm)), 0)) {
                assert_int_equal(api_ok(ramet_vm_serve(vm)), 0);
                assert_true(++rounds < 10);
        }
        assert_false(readable(api_ok(ramet_vm_fd(vm)), 20));
}

static void serve(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        struct ramet_vm_event e;
        char text[64];

        assert_int_equal(api_ok(ramet_vm_serve(vm)), 0);
        api_ok(ramet_vm_console_read(vm, text, sizeof text));
        assert_int_equal(api_ok(ramet_vm_serve(vm)), 0);
        quiet(vm);
        api_ok(ramet_vm_continue(vm));
        assert_true(readable(ramet_vm_fd(vm), 10000));
        while (api_ok(ramet_vm_serve(vm)) == 0)
                assert_true(readable(ramet_vm_fd(vm), 10000));
        /* nobody has taken it: it is still there, and the descriptor says so */
        assert_int_equal(api_ok(ramet_vm_serve(vm)), 1);
        assert_true(readable(ramet_vm_fd(vm), 0));
        assert_int_equal(api_ok(ramet_vm_next(vm, 0, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        quiet(vm);
        ramet_vm_destroy(vm);
}

/* All of two vCPUs' events are seen, though a program takes one at a time. */
static void each_event_is_polled(void **state)
{
        struct ramet_vm_config config = api_config();
        unsigned seen = 0;
        struct ramet_vm *vm;
        char text[64];

        config.vcpus = 2;
        vm = api_vm_of(&config);
        api_ok(ramet_vm_fd(vm));
        api_ok(ramet_vm_start(vm));
        while (seen != 3) {
                struct ramet_vm_event e = wait_for_event(vm);

                if (e.type == RAMET_VM_DOORBELL)
                        seen |= 1u << e.vcpu;
                else
                        ramet_vm_console_read(vm, text, sizeof text);
        }
        quiet(vm);
        ramet_vm_destroy(vm);
}

/* Machines in an epoll set of the program's. */
static void foreign_epoll(void **state)
{
        struct ramet_template *tmpl = api_template(1);
        int set = epoll_create1(EPOLL_CLOEXEC);
        struct ramet_vm *vm[3];
        unsigned rings = 0;

        assert_true(set >= 0);
        for (unsigned i = 0; i < 3; i++) {
                struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};

                vm[i] = api_spawn(tmpl);
                assert_int_equal(epoll_ctl(set, EPOLL_CTL_ADD, api_ok(ramet_vm_fd(vm[i])), &e), 0);
                api_ok(ramet_vm_start(vm[i]));
        }
        while (rings < 60) {
                struct ramet_vm_event event;
                struct epoll_event e;

                assert_int_equal(epoll_wait(set, &e, 1, 10000), 1);
                api_ok(ramet_vm_serve(vm[e.data.u32]));
                while (api_ok(ramet_vm_next(vm[e.data.u32], 0, &event)) == 1) {
                        assert_int_equal(event.type, RAMET_VM_DOORBELL);
                        rings++;
                        api_ok(ramet_vm_continue(vm[e.data.u32]));
                }
        }
        for (unsigned i = 0; i < 3; i++)
                ramet_vm_destroy(vm[i]);
        close(set);
        ramet_template_release(tmpl);
}

/* The machine's own time counts, too: output without a newline is told after a while. */
static void timers_are_polled(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        char text[64];

        api_ok(ramet_vm_console_read(vm, text, sizeof text));
        api_ok(ramet_vm_console_write(vm, "x", 1));
        api_order(vm, 0, SERVANT_ECHO, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(wait_for_event(vm).type, RAMET_VM_CONSOLE);
        ramet_vm_destroy(vm);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_fd", fd},
                {"ramet_vm_serve", serve},
                cmocka_unit_test(each_event_is_polled),
                cmocka_unit_test(foreign_epoll),
                cmocka_unit_test(timers_are_polled),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_fd", tests, NULL, NULL);
}
