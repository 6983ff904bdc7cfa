/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reset: a machine goes back to its template, in place. Descriptors, threads, memory slots and
 * addresses stay; everything that the guest can see becomes what it was.
 *
 * What must not be is that anything of the old life reaches the new one. Where it could hide, and
 * what is done about it:
 *
 *  - An instruction that waits for its I/O: every vCPU finishes it on the way to the barrier.
 *    If the machine has ended, no device hears of it.
 *  - A vCPU held by a fork, or by the end: its thread never ended, and goes on when all is done.
 *  - A step that a debugger asked for: it is over. Breakpoints, handlers and limits stay.
 *  - Events that wait for the owner: dropped, but for the one that tells that a clone runs.
 *  - Typed input: read and thrown away; a file's is read on. A sink forgets output, too, that
 *    nobody has taken.
 *  - Output half matched: its text is watched for from the beginning.
 *  - Ticks, requests and modes in KVM: kvm_vm_forget() and kvm_vcpu_forget(). The timers of the
 *    local APICs and the clock go with their state.
 *  - Interrupt lines: each device sets its own when it is restored. Those that the owner raised are
 *    lowered: KVM keeps who holds a line up in no state that is restored, and the PIT's ticks on
 *    such a line are lost.
 *  - I/O in flight, and what devices have taken and not answered: they are quiesced before the
 *    vCPUs stop, and forget the rest when they are restored. An interrupt that KVM has still in a
 *    work queue may come in the new life; it finds nothing to do, as on a line that is shared.
 *  - Memory, and translations of it: the engine's reset; both kinds are invalidated, and KVM's
 *    shadow page tables, where it has any, dropped.
 *
 * All of it happens between stop and resume, by the owner's thread. What cannot be read is found
 * out before anything is changed; a failure after that ends the machine, since it is neither what
 * it was nor what it should be.
 *
 * The order is spawn's, for the reasons given there and in state.c, after memory: setting the state
 * makes KVM and devices write some of it.
 */
#include <errno.h>
#include <string.h>

#include "vm/fixed_tables.h"
#include "vm/machine.h"

#define KEEP_BYTES (64 * 4096u) /* copied back in 40 microseconds */

/* Events of the old life that nobody has heard of. FIRST_EXIT stays: it tells that the clone came
 * to run, which is true, and comes once. */
static void forget_events(struct vm *vm)
{
        unsigned kept = 0;

        pthread_mutex_lock(&vm->event_lock);
        for (unsigned i = 0; i < vm->nevents; i++)
                if (vm->events[i].event == VM_EVENT_FIRST_EXIT)
                        vm->events[kept++] = vm->events[i];
        vm->nevents = kept;
        vm->fork_pending = false;
        vm->device_holds = 0;
        vm->exited = false;
        vm->exit = (struct vm_exit_info){0};
        pthread_mutex_unlock(&vm->event_lock);
}

static int forget_kvm(struct vm *vm, struct err *err)
{
        int r = kvm_vm_forget(&vm->kvm, err);

        vm_lower_lines(vm);
        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++)
                r = kvm_vcpu_forget(&vm->vcpus[i].kvm, vm->options.kick_signal, err);
        return r;
}

static int forget_steps(struct vm *vm, struct err *err)
{
        int r = 0;

        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++)
                r = vcpu_debug_forget(&vm->vcpus[i]);
        return r < 0 ? err_host(err, -r, "KVM_SET_GUEST_DEBUG: %s", strerror(-r)) : 0;
}

/* With EPT or NPT the processor reads the guest's page tables itself. What it has cached of them
 * goes when KVM's MMU notifier takes away the pages that are replaced; for pages that are kept, by
 * the INIT of kvm_vcpu_forget(), after which KVM flushes before the next entry. Without, KVM keeps
 * shadows of page tables, which it updates when the guest writes those: a page table that comes to
 * have another content by a new page behind it keeps its old shadow (seen: a guest's CPL 3 used a
 * mapping of its former life). Taking away a memory slot drops all shadows, or at least those of
 * its pages where the engine asked for no more than that, and that engine has taken all slots away.
 * So one is set, where nobody looks, and taken away. @fixed: see fixed_tables.c. */
static int forget_shadows(struct vm *vm, bool fixed, struct err *err)
{
        static uint8_t page[4096] __attribute__((aligned(4096)));
        const uint64_t nowhere = KVM_X86_TSS_ADDR - 2 * sizeof page;
        int r;

        if (vm->host.tdp)
                return 0;
        if (fixed)
                vm->resets.kept++;
        else
                vm->resets.dropped++;
        if (fixed)
                return 0;
        r = slots_map(&vm->slots, nowhere, sizeof page, page, KVM_MEM_READONLY, err);
        return r < 0 ? r : slots_unmap(&vm->slots, nowhere, sizeof page, err);
}

static int reset_memory(struct vm *vm, bool fixed, struct err *err)
{
        static const struct sync_invalidation all = {.kinds = SYNC_CURRENT | SYNC_GUEST};
        int r;

        vm->backing.keep_bytes = vm->meter.limits.own_pages ? 0 : KEEP_BYTES; /* it counts them */
        r = backing_reset(&vm->backing, err);

        sync_post(&vm->sync, &all);
        if (r == 0)
                r = forget_shadows(vm, fixed, err);
        return r < 0 ? r : dirty_discard(&vm->dirty, err);
}

/* Everything is stopped. */
static int go_back(struct vm *vm, struct err *err)
{
        const bool fixed = fixed_tables_hold(vm); /* first, since it looks at registers */
        int r = dirty_discard(&vm->dirty, err);   /* with a full ring KVM_RUN says only that */

        if (r == 0)
                r = forget_steps(vm, err);
        if (r == 0)
                r = forget_kvm(vm, err);
        if (r == 0)
                r = reset_memory(vm, fixed, err);
        if (r < 0)
                return r;
        chardev_discard(vm->console);
        r = machine_restore(vm, vm->tmpl, &vm->saved, true, err);
        if (r == 0)
                r = machine_set_identity(vm, err);
        if (r == 0)
                fixed_tables_note(vm);
        return r;
}

void vm_reset_stats(const struct vm *vm, struct vm_reset_stats *stats)
{
        *stats = vm->resets;
}

/* The same wishes of the owner, for the new life. */
static int arm_again(struct vm *vm)
{
        pthread_mutex_lock(&vm->event_lock);
        vm->doorbell_armed = vm->armed.doorbell;
        pthread_mutex_unlock(&vm->event_lock);
        return vm_watch_armed(vm);
}

int vm_reset(struct vm *vm, struct err *err)
{
        const uint64_t t0 = vm_now_ns();
        bool was_paused = vm->paused;
        int r = 0;

        if (!vm->tmpl)
                return err_input(err, "this machine has no template to be reset to");
        if (!vm->saved.buf) /* once: it is sealed */
                r = record_reader_init_fd(&vm->saved, vm->tmpl->state_fd, record_rules, err);
        if (r < 0)
                return r;
        vm_pause(vm);
        r = go_back(vm, err);
        if (r == 0)
                r = arm_again(vm);
        forget_events(vm);
        meter_reset(vm);
        if (r == 0)
                vcpu_release_quietly(vm, UINT32_MAX);
        else
                vm_exit_with(vm, RAMET_EXIT_HOST, 0, "reset: %s", err->text);
        if (!was_paused)
                vm_run(vm);
        vm->meter.last_reset = vm_now_ns() - t0;
        return r;
}
