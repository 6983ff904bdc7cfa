/* SPDX-License-Identifier: Apache-2.0 */
/* Machines in the program: made, run, stopped, their events. */
#include "api.h"

#include <malloc.h>
#include <pthread.h>
#include <unistd.h>

static uint64_t spins(struct ramet_vm *vm)
{
        struct servant_mail mail;

        api_get_mail(vm, 0, &mail);
        return mail.spins;
}

/* The next event that is not of its greeting: what ramet_vm_next() returned. */
static int next_ring(struct ramet_vm *vm, struct ramet_vm_event *e)
{
        int r = ramet_vm_next(vm, ENDLESS, e);

        return r == 1 && e->type == RAMET_VM_CONSOLE ? ramet_vm_next(vm, ENDLESS, e) : r;
}

/* A machine that counts in user mode. */
static struct ramet_vm *spinning(void)
{
        struct ramet_vm *vm = api_ready(1);
        uint64_t before;

        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        before = spins(vm);
        for (unsigned i = 0; i < 5000 && spins(vm) == before; i++)
                api_nap(1);
        assert_true(spins(vm) > before);
        return vm;
}

static void ctx_create(void **state)
{
        struct ramet_ctx *ctx = NULL;

        assert_int_equal(ramet_ctx_create(&ctx), 0);
        assert_non_null(ctx);
        ramet_ctx_destroy(ctx);
        ramet_ctx_destroy(NULL);
        api_fails(ramet_ctx_create(NULL), -EINVAL, "ctx");
}

static void ctx_destroy(void **state)
{
        const size_t before = mallinfo2().uordblks;
        struct ramet_ctx *ctx;

        for (unsigned i = 0; i < 1000; i++) {
                assert_int_equal(ramet_ctx_create(&ctx), 0);
                ramet_ctx_destroy(ctx);
        }
        assert_true(mallinfo2().uordblks < before + 1000); /* not a byte of each is left */
        ramet_ctx_destroy(NULL);
}

static void vm_create(void **state)
{
        struct ramet_vm_config config = api_config();
        struct ramet_vm *vm = NULL;

        api_ok(ramet_vm_create(api_ctx, &config, &vm));
        assert_non_null(vm);
        api_until(vm, RAMET_VM_DOORBELL);
        ramet_vm_destroy(vm);
}

static void a_kernel_in_memory(void **state)
{
        struct ramet_vm_config config = api_config();
        FILE *f = fopen(config.kernel, "re");
        static char data[1 << 20];
        struct ramet_vm *vm;

        assert_non_null(f);
        config.kernel_bytes = fread(data, 1, sizeof data, f);
        fclose(f);
        config.kernel_data = data;
        config.kernel = NULL;
        vm = api_vm_of(&config);
        api_until(vm, RAMET_VM_DOORBELL);
        ramet_vm_destroy(vm);
}

static void what_cannot_be_created(void **state)
{
        struct ramet_vm_config config = api_config();
        struct ramet_vm *vm = (struct ramet_vm *)&config;
        const unsigned before = api_descriptors();

        api_fails(ramet_vm_create(NULL, &config, &vm), -EINVAL, "ctx");
        api_fails(ramet_vm_create(api_ctx, NULL, &vm), -EINVAL, "config");
        api_fails(ramet_vm_create(api_ctx, &config, NULL), -EINVAL, "vm");
        config.kernel = "/nowhere/kernel";
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -ENOENT, "/nowhere/kernel");
        config.kernel = NULL;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "kernel");
        config.kernel_data = "no kernel at all";
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "kernel_data: 0");
        config.kernel_bytes = 16;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "not a kernel");
        config = api_config();
        config.initramfs = "/nowhere/initramfs";
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -ENOENT, "/nowhere/initramfs");
        config = api_config();
        config.vcpus = 1000;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "1000 vCPUs");
        config = api_config();
        config.memory_bytes = 12345;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "12345 bytes");
        config = api_config();
        config.size = 8;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "size is 8");
        config.size = SIZE_MAX;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "size is");
        config = api_config();
        config.cow = 77;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "77");
        assert_ptr_equal(vm, &config); /* written only on success */
        assert_int_equal(api_descriptors(), before);
}

/* Of a program that is newer than the library: what that does not know must be zero. */
static void a_config_that_has_grown(void **state)
{
        struct {
                struct ramet_vm_config config;
                uint64_t more;
        } longer = {.config = api_config()};
        struct ramet_vm *vm = NULL;

        longer.config.size = sizeof longer;
        vm = api_vm_of(&longer.config);
        api_until(vm, RAMET_VM_DOORBELL);
        ramet_vm_destroy(vm);
        longer.more = 1;
        api_fails(ramet_vm_create(api_ctx, &longer.config, &vm), -EINVAL, "does not know");
}

static void vm_destroy(void **state)
{
        const unsigned before = api_threads();
        struct ramet_vm *vm = spinning();

        assert_true(api_threads() > before);
        ramet_vm_destroy(vm);
        assert_int_equal(api_threads(), before);
        ramet_vm_destroy(NULL);
}

static void vm_start(void **state)
{
        struct ramet_vm *vm = api_vm();
        struct ramet_vm_event e;

        assert_int_equal(api_ok(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e)), 0);
        assert_int_equal(ramet_vm_start(vm), 0);
        assert_int_equal(ramet_vm_start(vm), 0);
        assert_int_equal(api_ok(next_ring(vm, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        api_order(vm, 0, SERVANT_POWEROFF, 0, 0, 0);
        api_until(vm, RAMET_VM_EXIT);
        api_fails(ramet_vm_start(vm), -ESRCH, "ended");
        api_fails(ramet_vm_start(NULL), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_pause(void **state)
{
        struct ramet_vm *vm = spinning();
        uint64_t before;

        assert_int_equal(ramet_vm_pause(vm), 0);
        assert_int_equal(ramet_vm_pause(vm), 0);
        before = spins(vm);
        api_nap(20);
        assert_int_equal(spins(vm), before);
        api_ok(ramet_vm_start(vm));
        for (unsigned i = 0; i < 5000 && spins(vm) == before; i++)
                api_nap(1);
        assert_true(spins(vm) > before);
        api_fails(ramet_vm_pause(NULL), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_set_data(void **state)
{
        struct ramet_vm *vm = api_vm();
        int mine;

        assert_null(ramet_vm_data(vm));
        assert_int_equal(ramet_vm_set_data(vm, &mine), 0);
        assert_ptr_equal(ramet_vm_data(vm), &mine);
        assert_null(ramet_vm_data(NULL));
        api_fails(ramet_vm_set_data(NULL, &mine), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_next(void **state)
{
        struct ramet_vm *vm = api_vm();
        struct ramet_vm_event e = {0};

        assert_int_equal(ramet_vm_next(vm, 0, &e), 0);
        api_fails(ramet_vm_next(vm, 0, NULL), -EINVAL, "event");
        api_fails(ramet_vm_next(NULL, 0, &e), -EINVAL, "machine");
        api_ok(ramet_vm_start(vm));
        assert_int_equal(next_ring(vm, &e), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        assert_int_equal(e.vcpu, 0);
        assert_int_equal(e.doorbell.value, 1);
        assert_true(e.t_ns > 0);
        /* that vCPU is held, and rings no second time */
        assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0);
        ramet_vm_destroy(vm);
}

static void vm_run_until(void **state)
{
        struct ramet_vm *vm = api_vm();
        struct ramet_vm_event e = {0};

        assert_int_equal(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, ENDLESS, &e), 1);
        assert_int_equal(e.doorbell.value, 1);
        assert_int_equal(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, ENDLESS, &e), 1);
        assert_int_equal(e.doorbell.value, 2);
        api_fails(ramet_vm_run_until(vm, 0x100, 0, &e), -EINVAL, "0x100");
        api_fails(ramet_vm_run_until(vm, RAMET_VM_ANY, 0, NULL), -EINVAL, "event");
        api_fails(ramet_vm_run_until(NULL, RAMET_VM_ANY, 0, &e), -EINVAL, "machine");
        /* events of other types are dropped, and it goes on: ring after ring */
        assert_int_equal(ramet_vm_run_until(vm, RAMET_VM_MATCH, 300 * RAMET_MILLISECOND, &e), 0);
        assert_true(api_until(vm, RAMET_VM_DOORBELL).doorbell.value > 4);
        api_order(vm, 0, SERVANT_EXIT, 21, 0, 0);
        assert_int_equal(ramet_vm_run_until(vm, 0, ENDLESS, &e), 1);
        assert_int_equal(e.type, RAMET_VM_EXIT);
        assert_int_equal(e.exit.reason, RAMET_EXIT_DEBUG);
        assert_int_equal(e.exit.status, 21 << 1 | 1);
        assert_true(e.exit.text[0]);
        api_fails(ramet_vm_run_until(vm, RAMET_VM_ANY, 0, &e), -ESRCH, "ended");
        ramet_vm_destroy(vm);
}

static void ends_of_machines(void **state)
{
        static const struct {
                enum servant_order order;
                unsigned vcpu;
                enum ramet_exit reason;
                const char *says;
        } ends[] = {
                {SERVANT_POWEROFF, 0, RAMET_EXIT_POWEROFF, "powered off"},
                {SERVANT_TRIPLE, 0, RAMET_EXIT_CRASH, "triple fault, vCPU 0 at 0x"},
                {SERVANT_TRIPLE, 1, RAMET_EXIT_CRASH, "triple fault, vCPU 1 at 0x"},
                {SERVANT_EXIT, 1, RAMET_EXIT_DEBUG, "debug exit"},
        };

        for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
                struct ramet_vm *vm = api_ready(ends[i].vcpu + 1);
                struct ramet_vm_event e;

                api_order(vm, ends[i].vcpu, ends[i].order, 0, 0, 0);
                e = api_until(vm, RAMET_VM_EXIT);
                assert_int_equal(e.vcpu, ends[i].vcpu);
                assert_int_equal(e.exit.reason, ends[i].reason);
                assert_non_null(strstr(e.exit.text, ends[i].says));
                ramet_vm_destroy(vm);
        }
}

static void vm_continue(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        struct servant_mail mail;
        struct ramet_vm_event e;

        assert_int_equal(ramet_vm_continue(vm), 0);
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.doorbell.value, 2);
        api_get_mail(vm, 0, &mail);
        assert_int_equal(mail.result, 0);
        assert_int_equal(mail.count, 0);
        api_fails(ramet_vm_continue(NULL), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_answer(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        struct servant_mail mail;
        struct ramet_vm_event e;

        api_fails(ramet_vm_answer(vm, 8, 7), -EINVAL, "result");
        api_fails(ramet_vm_answer(vm, 0, UINT32_MAX), -EINVAL, "count");
        assert_int_equal(ramet_vm_answer(vm, 5, 7), 0);
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.doorbell.value, 2);
        api_get_mail(vm, 0, &mail);
        assert_int_equal(mail.result, 5);
        assert_int_equal(mail.count, 7);
        assert_int_equal(ramet_vm_answer(vm, RAMET_DOORBELL_FAILED, 0), 0);
        api_fails(ramet_vm_answer(vm, 0, 0), -EINVAL, "no ring");
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        api_get_mail(vm, 0, &mail);
        assert_int_equal(mail.result, RAMET_DOORBELL_FAILED);
        api_fails(ramet_vm_answer(NULL, 0, 0), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static unsigned rounds(struct ramet_vm *vm, unsigned vcpu)
{
        struct servant_mail mail;

        api_get_mail(vm, vcpu, &mail);
        return mail.rounds;
}

/* Each vCPU's ring is an event, and is let go only when that one has been taken. */
static void each_ring_is_an_event(void **state)
{
        struct ramet_vm_config config = api_config();
        struct ramet_vm_event e[2];
        struct ramet_vm *vm;

        config.vcpus = 2;
        vm = api_vm_of(&config);
        api_ok(ramet_vm_start(vm));
        for (unsigned i = 0, rung = 0; i < 5000 && rung < 2; i++) {
                api_nap(1);
                rung = rounds(vm, 0) + rounds(vm, 1);
        }
        assert_int_equal(api_ok(next_ring(vm, &e[0])), 1);
        api_ok(ramet_vm_continue(vm));
        api_nap(20);
        assert_int_equal(rounds(vm, !e[0].vcpu), 1);
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e[1])), 1);
        assert_int_equal(e[1].vcpu, !e[0].vcpu);
        assert_int_equal(e[0].doorbell.value, 1);
        assert_int_equal(e[1].doorbell.value, 1);
        ramet_vm_destroy(vm);
}

static void *ask_is_input(void *data)
{
        *(bool *)data = ramet_last_error_is_input(NULL);
        return NULL;
}

static void last_error(void **state)
{
        bool another_says = true;
        pthread_t thread;
        char before[512];

        api_fails(ramet_vm_start(NULL), -EINVAL, "machine");
        assert_true(ramet_last_error_is_input(api_ctx));
        assert_non_null(strstr(ramet_last_error(NULL), "machine"));
        snprintf(before, sizeof before, "%s", ramet_last_error(NULL));
        assert_null(strchr(before, '\n'));
        assert_int_equal(pthread_create(&thread, NULL, ask_is_input, &another_says), 0);
        pthread_join(thread, NULL);
        assert_false(another_says); /* it had no failure at all */
}

static void *other_thread(void *data)
{
        static char text[512];

        snprintf(text, sizeof text, "%s", ramet_last_error(NULL));
        ramet_vm_pause(NULL);
        return text;
}

static void errors_are_a_threads_own(void **state)
{
        pthread_t t;
        void *text;
        char mine[512];

        api_fails(ramet_ctx_create(NULL), -EINVAL, "ctx");
        snprintf(mine, sizeof mine, "%s", ramet_last_error(api_ctx));
        assert_int_equal(pthread_create(&t, NULL, other_thread, NULL), 0);
        pthread_join(t, &text);
        assert_string_equal(text, "");
        assert_string_equal(ramet_last_error(api_ctx), mine);
}

static void abi(void **state)
{
        assert_int_equal(ramet_abi(), RAMET_ABI);
        assert_true(ramet_version()[0] >= '0' && ramet_version()[0] <= '9');
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_ctx_create", ctx_create},
                {"ramet_ctx_destroy", ctx_destroy},
                {"ramet_last_error", last_error},
                {"ramet_last_error_is_input", last_error},
                {"ramet_abi", abi},
                {"ramet_version", abi},
                {"ramet_vm_create", vm_create},
                {"ramet_vm_destroy", vm_destroy},
                {"ramet_vm_start", vm_start},
                {"ramet_vm_pause", vm_pause},
                {"ramet_vm_set_data", vm_set_data},
                {"ramet_vm_data", vm_set_data},
                {"ramet_vm_next", vm_next},
                {"ramet_vm_run_until", vm_run_until},
                {"ramet_vm_continue", vm_continue},
                {"ramet_vm_answer", vm_answer},
                cmocka_unit_test(a_kernel_in_memory),
                cmocka_unit_test(what_cannot_be_created),
                cmocka_unit_test(a_config_that_has_grown),
                cmocka_unit_test(ends_of_machines),
                cmocka_unit_test(each_ring_is_an_event),
                cmocka_unit_test(errors_are_a_threads_own),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_vm", tests, NULL, NULL);
}
