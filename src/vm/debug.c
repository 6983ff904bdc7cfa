/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoints and steps. KVM ends an entry with KVM_EXIT_DEBUG at an address in a debug register,
 * or after one instruction; what follows is a matter of the vCPU's own thread:
 *
 *      KVM_EXIT_DEBUG ---> top: at a breakpoint? hold, BREAKPOINT ... continue
 *                                                                        |
 *      breakpoints again <--- one instruction without them (`over`) <----'
 *
 * Going on by a step, and not by RFLAGS.RF, since KVM's emulator looks at no RF for breakpoints of
 * the host, and since RF would be in a state that is saved meanwhile. Interrupts wait during a
 * step: one that came in would take it to its handler, and the trap flag onto the guest's stack. An
 * instruction that exits for I/O is over when that is completed, also where KVM forgets to say so;
 * one that repeats (rep movs) is stepped over whole, and is stepped once an element if asked to.
 *
 * Where user mode runs natively and its traps go to the guest (kvm_host.debug_user is false) two
 * things are missing there. A step is had by taking the guest's IDT away: the trap cannot be
 * delivered, which is a triple fault, of which nothing has happened but that KVM says so. If it was
 * no trap but an exception of the instruction's own, the same again with an IDT; the step then ends
 * after the first instruction of the guest's handler. The way back from a handler (x86/iret.h) is
 * not left to KVM, which does it, says nothing and goes on. Breakpoints are had by steps, one for
 * each instruction in either mode, since nothing says when kernel mode is left. That is some 50
 * times slower than KVM's emulator, so it is done only while there is a breakpoint in the lower
 * half of the addresses, where user programs are. An interrupt is then let in when it is certain
 * that KVM will deliver one before anything else happens; and not between STI and HLT, as on a
 * processor.
 */
#include "vm/debug.h"

#include <errno.h>
#include <string.h>

#include "vm/machine.h"
#include "x86/cpuid.h"
#include "x86/iret.h"

#define LOOK_FOR_INTERRUPTS 16 /* steps; 10 us against 100 for each of them */

static bool is_breakpoint(const struct vm *vm, uint64_t rip)
{
        for (unsigned i = 0; i < vm->debug.n; i++)
                if (vm->debug.address[i] == rip)
                        return true;
        return false;
}

static void report(struct vcpu *vcpu, uint64_t address, bool step)
{
        struct vm_event_args args = {.breakpoint = {.address = address, .step = step}};
        struct vcpu_debug *d = &vcpu->debug;

        d->over = is_breakpoint(vcpu->vm, address);
        d->over_rip = address;
        if (vcpu_hold_for_event(vcpu->vm, &args.vcpu)) {
                vm_raise(vcpu->vm, VM_EVENT_BREAKPOINT, &args);
                return;
        }
        d->due = true;
        d->due_step = step;
        d->due_address = address;
}

static void failed(struct vcpu *vcpu, int r)
{
        vm_exit_with(vcpu->vm, RAMET_EXIT_HOST, 0, "debugging vCPU %u: %s", vcpu->kvm.id,
                     strerror(-r));
}

/* --- before an entry --- */

static bool let_interrupt_in(struct vcpu *vcpu, const struct kvm_place *at)
{
        struct vcpu_debug *d = &vcpu->debug;

        return at->user && at->interrupts && !d->step && !d->over &&
               ++d->entries % LOOK_FOR_INTERRUPTS == 0 && kvm_vcpu_interrupt_waits(&vcpu->kvm);
}

static int read_memory(void *data, uint64_t gpa, void *buf, size_t len)
{
        return guest_access_read(data, gpa, buf, len);
}

/* Kernel mode where user mode is native. 1: that was the step. */
static int step_in_kernel(struct vcpu *vcpu, bool *after_sti)
{
        const struct x86_mem_reader reader = {.read = read_memory, .data = &vcpu->access};

        *after_sti = vcpu->debug.sti;
        return x86_iretq(vcpu->kvm.fd, x86_cpuid_maxphyaddr(vcpu->vm->cpuid), &reader,
                         &vcpu->debug.sti);
}

/* 1: it is over already. */
static int begin_step(struct vcpu *vcpu, const struct kvm_place *at)
{
        struct vm *vm = vcpu->vm;
        struct vcpu_debug *d = &vcpu->debug;
        const bool one = d->step || d->over;
        const bool native = at->user && !vm->host.debug_user;
        const bool interrupt = native && let_interrupt_in(vcpu, at);
        bool after_sti = false;
        int r = 0;

        d->stepping = true;
        d->told = false;
        d->from = at->rip;
        d->rcx = at->rcx;
        if (!at->user && !vm->host.debug_user && (one || !is_breakpoint(vm, at->rip)))
                r = step_in_kernel(vcpu, &after_sti);
        if (r != 0)
                return r;
        r = kvm_vcpu_debug(&vm->host, &vcpu->kvm, vm->debug.address, one ? 0 : vm->debug.n, true,
                           one || after_sti || (native && !interrupt));
        if (r < 0 || !native || interrupt || d->fault)
                return r;
        r = kvm_vcpu_take_idt(&vcpu->kvm, &d->kept);
        d->no_idt = r == 0;
        return r;
}

static int prepare(struct vcpu *vcpu, const struct kvm_place *at)
{
        struct vm *vm = vcpu->vm;
        struct vcpu_debug *d = &vcpu->debug;
        int r = 0;

        if (d->step || d->over || vm->debug.one_by_one)
                return begin_step(vcpu, at);
        if (!d->told)
                r = kvm_vcpu_debug(&vm->host, &vcpu->kvm, vm->debug.address, vm->debug.n, false,
                                   false);
        d->told = true;
        d->stepping = false;
        d->active = vm->debug.n > 0;
        return r;
}

bool vcpu_debug_enter(struct vcpu *vcpu)
{
        struct vcpu_debug *d = &vcpu->debug;
        struct kvm_place at;
        bool look;
        int r;

        if (atomic_load(&vcpu->held))
                return false;
        if (d->due) {
                d->due = false;
                report(vcpu, d->due_address, d->due_step);
                return false;
        }
        r = kvm_vcpu_place(&vcpu->kvm, &at);
        if (r < 0) {
                failed(vcpu, r);
                return false;
        }
        look = d->look || (vcpu->vm->debug.one_by_one && at.user);
        d->look = false;
        d->over = d->over && at.rip == d->over_rip;
        if (look && !d->over && !d->step && is_breakpoint(vcpu->vm, at.rip)) {
                report(vcpu, at.rip, false);
                return false;
        }
        r = prepare(vcpu, &at);
        if (r < 0)
                failed(vcpu, r);
        if (r > 0)
                vcpu_debug_after(vcpu);
        return r == 0;
}

/* --- after it --- */

void vcpu_debug_left(struct vcpu *vcpu, bool error)
{
        struct vcpu_debug *d = &vcpu->debug;
        struct kvm_run *run = vcpu->kvm.run;
        bool trapped;
        int r;

        if (!d->no_idt)
                return;
        d->no_idt = false;
        r = kvm_vcpu_give_idt(&vcpu->kvm, &d->kept, &trapped);
        if (r < 0)
                failed(vcpu, r);
        if (error || run->exit_reason != KVM_EXIT_SHUTDOWN)
                return;
        d->fault = !trapped;
        run->exit_reason = trapped ? KVM_EXIT_DEBUG : KVM_EXIT_INTR;
}

static void step_done(struct vcpu *vcpu, const struct kvm_place *at)
{
        struct vcpu_debug *d = &vcpu->debug;
        const bool report_it = d->step;

        if (d->over && !d->step && at->rip == d->from && at->rcx != d->rcx)
                return; /* it repeats */
        d->stepping = d->step = d->over = d->fault = false;
        d->look = true;
        if (report_it)
                report(vcpu, at->rip, true);
}

void vcpu_debug_after(struct vcpu *vcpu)
{
        const bool debug_exit = vcpu->kvm.run->exit_reason == KVM_EXIT_DEBUG;
        struct vcpu_debug *d = &vcpu->debug;
        struct kvm_place at;
        int r;

        d->look |= debug_exit;
        if (!d->stepping)
                return;
        r = kvm_vcpu_place(&vcpu->kvm, &at);
        if (r < 0)
                failed(vcpu, r);
        else if (debug_exit || at.rip != d->from)
                step_done(vcpu, &at);
}

/* --- the owner, while the machine is stopped --- */

int vcpu_debug_forget(struct vcpu *vcpu)
{
        const struct vm *vm = vcpu->vm;
        int r = 0;

        if (vcpu->debug.active)
                r = kvm_vcpu_debug(&vm->host, &vcpu->kvm, NULL, 0, false, false);
        vcpu->debug = (struct vcpu_debug){.active = vm->debug.n > 0};
        return r;
}

static int check(const struct vm *vm, struct err *err)
{
        if (!vm->host.guest_debug)
                return err_host(err, ENOTSUP,
                                "this host's KVM has no KVM_SET_GUEST_DEBUG, which breakpoints and "
                                "steps need");
        if (vm->started && !vm->paused)
                return err_host(err, EBUSY, "the machine runs");
        return 0;
}

static bool in_lower_half(uint64_t address)
{
        return !(address >> 63);
}

int vm_breakpoint(struct vm *vm, uint64_t address, bool set, struct err *err)
{
        struct vm_debug *b = &vm->debug;
        unsigned i = 0;
        int r = check(vm, err);

        if (r < 0)
                return r;
        while (i < b->n && b->address[i] != address)
                i++;
        if (set == (i < b->n))
                return 0;
        if (set && b->n == KVM_BREAKPOINTS_MAX)
                return err_host(err, ENOSPC, "%u breakpoints are set, as many as there can be",
                                b->n);
        if (set)
                b->address[b->n++] = address;
        else
                b->address[i] = b->address[--b->n];
        b->one_by_one = false;
        for (i = 0; i < b->n; i++)
                b->one_by_one |= !vm->host.debug_user && in_lower_half(b->address[i]);
        for (i = 0; i < vm->shape.vcpus; i++) {
                vm->vcpus[i].debug.active = true;
                vm->vcpus[i].debug.told = false;
        }
        return 0;
}

int vm_step(struct vm *vm, unsigned vcpu, struct err *err)
{
        int r = check(vm, err);

        if (r == 0)
                r = vm_check_vcpu(vm, vcpu, err);
        if (r < 0)
                return r;
        vm->vcpus[vcpu].debug.step = true;
        vm->vcpus[vcpu].debug.active = true;
        return 0;
}
