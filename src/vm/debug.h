/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoints and steps, for vcpu.c and reset.c; what the owner calls is in vm.h. A vCPU with
 * `active` calls vcpu_debug_enter() right before KVM_RUN, vcpu_debug_left() right after, and
 * vcpu_debug_after() when the exit has been dealt with. Own thread, inside its read section.
 */
#ifndef RAMET_VM_DEBUG_H
#define RAMET_VM_DEBUG_H

#include <stdbool.h>
#include <stdint.h>

#include "kvm/kvm.h"

struct vcpu;
struct vm;

/* [v], and the owner's while the machine is stopped */
struct vcpu_debug {
        bool active;   /* there is something to do at all */
        bool told;     /* KVM has the machine's breakpoints as they are, and no step */
        bool step;     /* vm_step(): one instruction, and its event */
        bool over;     /* the owner has heard that it is at the breakpoint over_rip */
        bool look;     /* it may have come to a breakpoint */
        bool stepping; /* this entry is for one instruction */
        bool no_idt;   /* and the guest has no IDT meanwhile */
        bool sti;      /* the last one was STI: interrupts wait for one more */
        bool fault;    /* that instruction raises an exception, which the guest is to have */
        bool due;      /* an event, when the one that holds the vCPU is over: */
        bool due_step;
        uint64_t due_address;
        uint64_t over_rip, from, rcx; /* where the entry began */
        unsigned entries;
        struct kvm_no_idt kept;
};

struct vm_debug {
        unsigned n;
        uint64_t address[KVM_BREAKPOINTS_MAX];
        bool one_by_one; /* every instruction is a step: see debug.c */
};

/* I/O is completed. False: it is held, and must not enter. */
bool vcpu_debug_enter(struct vcpu *vcpu);
/* May make another exit reason of what KVM gave. @error: KVM_RUN failed. */
void vcpu_debug_left(struct vcpu *vcpu, bool error);
void vcpu_debug_after(struct vcpu *vcpu);
/* A reset, before registers are set: steps are over, breakpoints stay. 0 or -errno. */
int vcpu_debug_forget(struct vcpu *vcpu);

#endif
