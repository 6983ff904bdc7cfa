/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events: src/vm's become the program's here, wait until they are taken, and what they hold goes
 * on.
 *
 *      vCPU thread               owner (inside)                     the program
 *      held, vm_raise() -------> lib_on_event() --- waits ------->  takes it: in `held`
 *                                                                   continue: vm_continue()
 *
 * A vCPU that an event holds is let go when that event has been taken and the program says so, or
 * when it is dropped: never before somebody has had the chance to look. So an event that waits
 * keeps its vCPU over a ramet_vm_continue() that is meant for another one.
 */
#include <errno.h>
#include <string.h>

#include <ramet/fork_abi.h>

#include "base/clock.h"
#include "lib/lib.h"

static bool there_is(const struct ramet_vm *vm, enum ramet_vm_event_type type)
{
        for (unsigned i = 0; i < vm->nevents; i++)
                if (vm->events[(vm->first + i) % LIB_EVENTS_MAX].event.type == type)
                        return true;
        return false;
}

void lib_event(struct ramet_vm *vm, const struct ramet_vm_event *event, bool holds)
{
        if (vm->nevents == LIB_EVENTS_MAX || (!holds && there_is(vm, event->type)))
                return;
        vm->events[(vm->first + vm->nevents++) % LIB_EVENTS_MAX] =
                (struct lib_event){.event = *event, .holds = holds};
}

static void ended(struct ramet_vm *vm, uint64_t t_ns)
{
        struct ramet_vm_event e = {.type = RAMET_VM_EXIT, .t_ns = t_ns};
        struct vm_exit_info info;

        _Static_assert(sizeof e.exit.text == sizeof info.text, "the whole text fits");
        vm_exit_info(vm->vm, &info);
        e.vcpu = info.vcpu == VM_NO_VCPU ? 0 : info.vcpu;
        e.exit.reason = info.reason;
        e.exit.status = info.status;
        strcpy(e.exit.text, info.text);
        lib_event(vm, &e, false);
}

void lib_on_event(void *data, enum vm_event event, const struct vm_event_args *args)
{
        const bool holds = args->vcpu != VM_NO_VCPU;
        struct ramet_vm_event e = {.vcpu = holds ? args->vcpu : 0, .t_ns = args->t_ns};
        struct ramet_vm *vm = data;

        if (event != VM_EVENT_FIRST_EXIT)
                lib_console_tell(vm, true); /* what was printed before it */
        switch (event) {
        case VM_EVENT_FORK_DOORBELL:
                e.type = RAMET_VM_DOORBELL;
                e.doorbell.value = args->ring;
                lib_event(vm, &e, holds);
                break;
        case VM_EVENT_FORK_CONSOLE:
                e.type = RAMET_VM_MATCH;
                lib_event(vm, &e, holds);
                break;
        case VM_EVENT_EXIT:
                ended(vm, args->t_ns);
                break;
        case VM_EVENT_BREAKPOINT:
                e.type = RAMET_VM_BREAKPOINT;
                e.breakpoint.address = args->breakpoint.address;
                e.breakpoint.step = args->breakpoint.step;
                lib_event(vm, &e, holds);
                break;
        case VM_EVENT_UNHANDLED:
                e.type = RAMET_VM_UNHANDLED;
                e.unhandled.space = (enum ramet_space)args->unhandled.space;
                e.unhandled.write = args->unhandled.write;
                e.unhandled.length = args->unhandled.length;
                e.unhandled.address = args->unhandled.address;
                e.unhandled.value = args->unhandled.value;
                lib_event(vm, &e, holds);
                break;
        case VM_EVENT_FIRST_EXIT: /* for those who measure forks */
                break;
        }
}

static void pop(struct ramet_vm *vm)
{
        vm->first = (vm->first + 1) % LIB_EVENTS_MAX;
        vm->nevents--;
}

/* One that tells of output which has been read since is none any more. */
bool lib_has_event(struct ramet_vm *vm)
{
        while (vm->nevents > 0 && vm->events[vm->first].event.type == RAMET_VM_CONSOLE &&
               !lib_console_has_output(vm))
                pop(vm);
        return vm->nevents > 0;
}

/* The first one becomes the program's. */
static bool take(struct ramet_vm *vm, struct ramet_vm_event *event)
{
        const struct lib_event *e;

        if (!lib_has_event(vm))
                return false;
        e = &vm->events[vm->first];
        *event = e->event;
        if (e->holds)
                vm->held |= 1ull << event->vcpu;
        if (event->type == RAMET_VM_DOORBELL)
                vm->rings |= 1ull << event->vcpu;
        if (event->type == RAMET_VM_EXIT)
                vm->end_told = true;
        pop(vm);
        return true;
}

/* What these of the held vCPUs read at the doorbell, if one of them rang; and they go on. */
static void go_on(struct ramet_vm *vm, uint64_t vcpus, uint32_t result, uint32_t count)
{
        if (vm->rings & vcpus)
                vm_answer(vm->vm, result, count);
        vm_continue(vm->vm, vcpus);
        vm->held &= ~vcpus;
        vm->rings &= ~vcpus;
}

void lib_rings_answered(struct ramet_vm *vm)
{
        vm_continue(vm->vm, vm->rings);
        vm->held &= ~vm->rings;
        vm->rings = 0;
}

void lib_events_forget(struct ramet_vm *vm)
{
        vm->nevents = 0;
        vm->held = vm->rings = 0;
        vm->end_told = false;
}

/* Until there is an event of @types, which is taken; others are dropped, and let go what they hold,
 * which is not what another thread's event may hold. 1, 0 after @timeout_ns, or -errno. What is
 * there when the time is over is found all the same. */
static int await(struct ramet_vm *vm, unsigned types, uint64_t timeout_ns,
                 struct ramet_vm_event *event, struct err *err)
{
        const uint64_t deadline_ns = clock_after_ns(timeout_ns);
        bool last = false;

        lib_console_tell(vm, false);
        for (;;) {
                uint64_t held = vm->held;
                int r;

                while (take(vm, event)) {
                        if (event->type & types)
                                return 1;
                        if (event->type == RAMET_VM_CONSOLE)
                                lib_console_dropped(vm);
                        go_on(vm, vm->held & ~held, 0, 0);
                }
                if (last)
                        return 0;
                last = clock_until_ns(deadline_ns) == 0;
                r = lib_serve(vm, deadline_ns, err);
                if (r < 0)
                        return r;
        }
}

int ramet_vm_next(struct ramet_vm *vm, uint64_t timeout_ns, struct ramet_vm_event *event)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = event ? await(vm, RAMET_VM_ANY, timeout_ns, event, &err)
                            : err_input(&err, "event: NULL given, where to put one was expected");
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int run_until(struct ramet_vm *vm, unsigned types, uint64_t timeout_ns,
                     struct ramet_vm_event *event, struct err *err)
{
        struct ramet_vm_event e;
        int r;

        if (types & ~RAMET_VM_ANY)
                return err_input(err, "types: %#x given, bits of %#x expected", types,
                                 RAMET_VM_ANY);
        if (!event)
                return err_input(err, "event: NULL given, where to put one was expected");
        if (vm->end_told)
                return err_host(err, ESRCH, "the machine has ended");
        go_on(vm, vm->held, 0, 0);
        lib_run(vm, true);
        r = await(vm, types | RAMET_VM_EXIT, timeout_ns, &e, err);
        if (r == 1)
                *event = e;
        return r;
}

int ramet_vm_run_until(struct ramet_vm *vm, unsigned types, uint64_t timeout_ns,
                       struct ramet_vm_event *event)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = run_until(vm, types, timeout_ns, event, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int let_go(struct ramet_vm *vm, struct err *err)
{
        go_on(vm, vm->held, 0, 0);
        return 0;
}

int ramet_vm_continue(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, let_go);
}

static int answer(struct ramet_vm *vm, uint32_t result, uint32_t count, struct err *err)
{
        if (!vm->rings)
                return err_input(err, "answer: no ring of the doorbell waits for one");
        if (count >= RAMET_DOORBELL_ERROR)
                return err_input(err, "answer: count is %#x, less than %#x was expected", count,
                                 RAMET_DOORBELL_ERROR);
        if (result > count && result != RAMET_DOORBELL_FAILED && result != RAMET_DOORBELL_NOT_ARMED)
                return err_input(err,
                                 "answer: result is %#x, at most count, which is %#x, or "
                                 "RAMET_DOORBELL_FAILED or _NOT_ARMED was expected",
                                 result, count);
        go_on(vm, vm->held, result, count);
        return 0;
}

int ramet_vm_answer(struct ramet_vm *vm, uint32_t result, uint32_t count)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = answer(vm, result, count, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
