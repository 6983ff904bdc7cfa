/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate of a machine: one thread inside at a time, in the order in which they came.
 *
 *      lib_enter: draw a ticket ---> wait until it is served ---> inside
 *      lib_leave:                                   serve the next ticket
 *
 * Whoever waits for events inside (lib_serve) would keep the others out for ever. So one who draws
 * a ticket wakes it through its loop, and it goes to the end of the line: all who came meanwhile
 * have their turn before it waits again, and it has its own before any of them comes a second time.
 *
 * Of several who wait for events one does so in the loop. The others rest in the line until one who
 * has taken an event leaves, or their time is over: they are no reason to let anybody in, or they
 * would make way for one another without end.
 *
 * Between ramet_vm_begin() and ramet_vm_end() the thread stays inside from call to call. `section`
 * and `inside` say so; a thread only ever needs to know whether it is itself the one.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "lib/lib.h"

int lib_gate_init(struct ramet_vm *vm, struct err *err)
{
        int r = loop_create(false, &vm->loop);

        if (r < 0)
                return err_host(err, -r, "event loop: %s", strerror(-r));
        pthread_mutex_init(&vm->lock, NULL);
        pthread_cond_init(&vm->turn, NULL);
        return 0;
}

void lib_gate_fini(struct ramet_vm *vm)
{
        loop_destroy(vm->loop);
        pthread_cond_destroy(&vm->turn);
        pthread_mutex_destroy(&vm->lock);
}

/* The number of threads that wait for their turn to do something. By who is inside: those that rest
 * are behind it. */
static unsigned wanting(const struct ramet_vm *vm)
{
        return vm->next_ticket - vm->serving - 1 - vm->resting;
}

static void take_turn(struct ramet_vm *vm)
{
        const unsigned ticket = vm->next_ticket++;

        if (ticket != vm->serving && vm->waiting)
                loop_wake(vm->loop);
        while (ticket != vm->serving)
                pthread_cond_wait(&vm->turn, &vm->lock);
        vm->inside = pthread_self();
}

/* The same, for one that only wants to wait on, until @deadline_ns. */
static void rest(struct ramet_vm *vm, uint64_t deadline_ns)
{
        const struct timespec deadline = clock_timespec(deadline_ns);
        const unsigned ticket = vm->next_ticket++;

        vm->resting++;
        while (ticket != vm->serving &&
               pthread_cond_clockwait(&vm->turn, &vm->lock, CLOCK_MONOTONIC, &deadline) == 0)
                ;
        vm->resting--;
        if (ticket != vm->serving && vm->waiting)
                loop_wake(vm->loop);
        while (ticket != vm->serving)
                pthread_cond_wait(&vm->turn, &vm->lock);
        vm->inside = pthread_self();
}

static void pass_on(struct ramet_vm *vm)
{
        vm->serving++;
        if (vm->next_ticket != vm->serving)
                pthread_cond_broadcast(&vm->turn);
}

int lib_check_machine(const struct ramet_vm *vm, struct err *err)
{
        return vm ? 0 : err_input(err, "machine: NULL given");
}

int lib_check_thread(struct err *err)
{
        return vm_in_vcpu_thread()
                       ? err_host(err, EDEADLK,
                                  "called from a handler, where only ramet_vm_irq, ramet_vm_nmi "
                                  "and ramet_vm_msi may be")
                       : 0;
}

int lib_enter(struct ramet_vm *vm, enum lib_where where, struct err *err)
{
        bool own_section;
        int r = lib_check_machine(vm, err);

        if (r == 0)
                r = lib_check_thread(err);
        if (r < 0)
                return r;
        pthread_mutex_lock(&vm->lock);
        own_section = vm->section && pthread_equal(vm->inside, pthread_self());
        if (!own_section)
                take_turn(vm);
        pthread_mutex_unlock(&vm->lock);
        if (own_section && where != LIB_SECTION)
                return err_host(err, EBUSY,
                                "called between ramet_vm_begin and ramet_vm_end, where it must "
                                "not be");
        return 0;
}

void lib_leave(struct ramet_vm *vm)
{
        if (vm->section)
                return;
        lib_poll_begin(vm);
        pthread_mutex_lock(&vm->lock);
        pass_on(vm);
        pthread_mutex_unlock(&vm->lock);
}

int lib_serve(struct ramet_vm *vm, uint64_t deadline_ns, struct err *err)
{
        uint64_t timeout_ns = clock_until_ns(deadline_ns);
        int r;

        pthread_mutex_lock(&vm->lock);
        if (wanting(vm) > 0) {
                pass_on(vm);
                rest(vm, deadline_ns);
                timeout_ns = 0;
        }
        vm->waiting = timeout_ns > 0;
        pthread_mutex_unlock(&vm->lock);
        r = loop_step(vm->loop, timeout_ns);
        lib_console_serve(vm);
        if (timeout_ns > 0) {
                pthread_mutex_lock(&vm->lock);
                vm->waiting = false;
                pthread_mutex_unlock(&vm->lock);
        }
        return r < 0 ? err_host(err, -r, "event loop: %s", strerror(-r)) : 0;
}

int lib_result(int ret, const struct err *err)
{
        struct err e;

        if (ret >= 0)
                return ret;
        if (err->text[0])
                return ctx_fail(NULL, ret, err);
        e.class = ret == -EINVAL ? ERR_INPUT : ERR_HOST;
        strcpy(e.text, strerrordesc_np(-ret) ?: "unknown error");
        return ctx_fail(NULL, ret, &e);
}

int lib_call(struct ramet_vm *vm, enum lib_where where,
             int (*call)(struct ramet_vm *vm, struct err *err))
{
        struct err err = {0};
        int ret = lib_enter(vm, where, &err);

        if (ret == 0) {
                ret = call(vm, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
