/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fork that is awaited: a ring of the doorbell, or a text on the console. It holds the vCPU
 * that did it and tells the owner, who says when it is over.
 *
 *      vm_arm_fork ---> ring, or text ---> event, vCPU held ---> vm_fork_done
 *
 * With every_event there is no fork that others could be part of: each ring, and each text, is told
 * and holds its own vCPU.
 *
 *      vm_watch ---> ring, or text ---> event, vCPU held ---> vm_answer, vm_continue
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm/machine.h"

/* What the owner hears of now it need not be told again in another life of the machine. */
void vm_fork_heard(struct vm *vm, enum vm_event event)
{
        if (event == VM_EVENT_FORK_DOORBELL)
                vm->armed.doorbell = false;
        if (event == VM_EVENT_FORK_CONSOLE && !vm->armed.always) {
                free(vm->armed.text);
                vm->armed.text = NULL;
        }
}

static bool is_queued(struct vm *vm, enum vm_event event)
{
        bool found = false;

        pthread_mutex_lock(&vm->event_lock);
        for (unsigned i = 0; i < vm->nevents; i++)
                found |= vm->events[i].event == event;
        pthread_mutex_unlock(&vm->event_lock);
        return found;
}

/* With every_event. One that holds no vCPU comes by the owner's thread, and is not twice in the
 * queue, which a guest could fill. */
static void tell_each(struct vm *vm, enum vm_event event, uint64_t arg)
{
        struct vm_event_args args = {.ring = (uint32_t)arg};

        if (vcpu_hold_for_event(vm, &args.vcpu) &&
            (args.vcpu != VM_NO_VCPU || !is_queued(vm, event)))
                vm_raise(vm, event, &args);
}

/* A ring, or the awaited text. The vCPU is held under the lock under which vm_fork_done() releases:
 * a ring is part of a fork as long as that is not over, and afterwards stands for itself. False:
 * nobody waits for it. */
bool vm_fork_rung(struct vm *vm, enum vm_event event, uint64_t arg)
{
        bool first = false, awaited;

        if (vm->options.every_event) {
                tell_each(vm, event, arg);
                return true;
        }
        pthread_mutex_lock(&vm->event_lock);
        awaited = vm->fork_pending || vm->doorbell_armed || event == VM_EVENT_FORK_CONSOLE;
        if (awaited) {
                first = !vm->fork_pending;
                vm->fork_pending = true;
                if (event == VM_EVENT_FORK_DOORBELL)
                        vm->doorbell_armed = false;
                vcpu_hold_current(vm, VCPU_HELD_FORK);
        }
        pthread_mutex_unlock(&vm->event_lock);
        if (first)
                vm_raise(vm, event, NULL);
        return awaited;
}

static void console_matched(void *data)
{
        vm_fork_rung(data, VM_EVENT_FORK_CONSOLE, 0);
}

static int watch_console(struct vm *vm, const char *text, bool always)
{
        return chardev_watch_output(vm->console, text, always ? CHARDEV_ALWAYS : CHARDEV_ONCE,
                                    console_matched, vm);
}

int vm_watch_armed(struct vm *vm)
{
        return watch_console(vm, vm->armed.text, vm->armed.always);
}

static int arm_console(struct vm *vm, const char *text, bool always)
{
        char *copy = text ? strdup(text) : NULL;
        int r = text && !copy ? -ENOMEM : watch_console(vm, copy, always);

        if (r < 0) {
                free(copy);
                return r;
        }
        free(vm->armed.text);
        vm->armed.text = copy;
        vm->armed.always = always;
        return 0;
}

int vm_watch(struct vm *vm, const char *text)
{
        return arm_console(vm, text, true);
}

int vm_arm_fork(struct vm *vm, bool doorbell, const char *console_text)
{
        int r = console_text || !vm->armed.always ? arm_console(vm, console_text, false) : 0;

        if (r < 0)
                return r;
        vm->armed.doorbell = doorbell;
        pthread_mutex_lock(&vm->event_lock);
        vm->doorbell_armed = doorbell;
        pthread_mutex_unlock(&vm->event_lock);
        return 0;
}

void vm_console_feed(struct vm *vm)
{
        chardev_feed(vm->console);
}

/* A root's first fork is the one that a reset goes back to. */
static void note_count(struct vm *vm, uint32_t count)
{
        if (vm->index == 0 && vm->count == 0)
                vm->count = count;
}

void vm_fork_done(struct vm *vm, uint32_t result, uint32_t count)
{
        pthread_mutex_lock(&vm->event_lock);
        doorbell_set_result(vm->doorbell, result, count);
        note_count(vm, count);
        vm->fork_pending = false;
        vcpu_release_all(vm, VCPU_HELD_FORK);
        pthread_mutex_unlock(&vm->event_lock);
}

void vm_fork_told(struct vm *vm, uint32_t count)
{
        doorbell_set_result(vm->doorbell, 0, count);
        note_count(vm, count);
}

void vm_answer(struct vm *vm, uint32_t result, uint32_t count)
{
        doorbell_set_result(vm->doorbell, result, count);
}

void vm_continue(struct vm *vm, uint64_t vcpus)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                if (vcpus >> i & 1)
                        vcpu_release(&vm->vcpus[i], VCPU_HELD_EVENT);
}
