/* SPDX-License-Identifier: Apache-2.0 */
/*
 * /dev/kvm: the capability probe and thin wrappers, one ioctl each, with an error in words.
 *
 * Order contract of a machine's birth (the waits of KVM are why; see kvm_vm_create_irqchip):
 *      kvm_host_open, kvm_vm_open, kvm_vm_set_slot ..., kvm_vm_create_irqchip, kvm_vcpu_open ...
 *
 * Threads: kvm_host is immutable after open. VM ioctls may come from any thread of the process that
 * opened the descriptors; another process gets EIO.
 */
#ifndef RAMET_KVM_KVM_H
#define RAMET_KVM_KVM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/record.h"

#define KVM_HOST_MSRS_MAX  1024u
#define KVM_HOST_CPUID_MAX 256u
#define KVM_X86_TSS_ADDR   0xfffbd000ul /* three pages that no guest uses; x86/layout.h agrees */

struct kvm_host {
        int fd;                /* [I] /dev/kvm */
        size_t vcpu_map_bytes; /* [I] of struct kvm_run's mapping */
        unsigned max_vcpus;    /* [I] */
        /* What may be missing on a host; what it means stands at the place that asks. */
        bool sregs2;         /* [I] KVM_CAP_SREGS2 */
        bool xsave2;         /* [I] KVM_CAP_XSAVE2 */
        bool xcrs;           /* [I] KVM_CAP_XCRS */
        bool debugregs;      /* [I] KVM_CAP_DEBUGREGS */
        bool adjust_clock;   /* [I] KVM_CAP_ADJUST_CLOCK */
        bool emulation_exit; /* [I] KVM_CAP_EXIT_ON_EMULATION_FAILURE */
        bool pit2;           /* [I] KVM_CAP_PIT2 and KVM_CAP_PIT_STATE2 */
        bool ioeventfd;      /* [I] KVM_CAP_IOEVENTFD */
        bool irqfd;          /* [I] KVM_CAP_IRQFD */
        bool signal_msi;     /* [I] KVM_CAP_SIGNAL_MSI */
        bool guest_debug;    /* [I] KVM_CAP_SET_GUEST_DEBUG */
        bool debug_blockirq; /* [I] KVM_GUESTDBG_BLOCKIRQ */
        bool debug_user;     /* [I] traps of the guest's user mode are KVM_EXIT_DEBUG, too */
        bool tdp;            /* [I] EPT or NPT is in use, for certain */
};

/* 0, or -errno (err: what to do about a missing or forbidden /dev/kvm, or which capability that
 * cannot be done without is missing). */
int kvm_host_open(struct kvm_host *host, struct err *err);
void kvm_host_close(struct kvm_host *host);
/* The optional features that this host lacks, one a call: its name, what is done instead, and both
 * in a line. *at is 0 before the first call. False: there are no more. */
struct kvm_missing {
        const char *name, *instead, *line;
        bool for_programs; /* only those that debug machines, or send interrupts, will miss it */
};
bool kvm_host_missing(const struct kvm_host *host, unsigned *at, struct kvm_missing *missing);

/* ioctl(), restarted after EINTR. Returns its value or -errno. */
int kvm_ioctl(int fd, unsigned long request, void *arg);

struct kvm_vm {
        int fd;
        size_t xsave_bytes; /* [I] what KVM_GET_XSAVE2 fills */
        bool irqchip;
        bool pit;
        bool manual_log;       /* [I] the dirty log is cleared only by KVM_CLEAR_DIRTY_LOG */
        uint32_t ring_entries; /* [I] of each vCPU's dirty ring; 0: there are none */
};

int kvm_vm_open(const struct kvm_host *host, struct kvm_vm *vm, struct err *err);
void kvm_vm_close(struct kvm_vm *vm);
/* What KVM_CHECK_EXTENSION says of this VM: 0 for what it lacks. */
int kvm_vm_has(const struct kvm_vm *vm, long cap);
/* Back [gpa, gpa + size) with memory at @hva. size 0 deletes the slot. */
int kvm_vm_set_slot(const struct kvm_vm *vm, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
                    uint32_t flags, struct err *err);
/* PICs, IOAPIC, local APICs, and the PIT, in the kernel. After the slots are set: a slot change
 * after it waits for a grace period, 7 ms on some hosts, while one before it does not. */
int kvm_vm_create_irqchip(const struct kvm_host *host, struct kvm_vm *vm, struct err *err);
void kvm_x86_vm_init(const struct kvm_vm *vm); /* kvm_vm_open() calls it */
bool kvm_x86_has_tdp(void);                    /* kvm_host_open() does */
bool kvm_x86_debugs_user(void);                /* kvm_host_open() does */
int kvm_vm_irq_line(const struct kvm_vm *vm, unsigned gsi, bool level);
/* A message to the local APICs, by address and data as in MSI. 0, also when none takes it, or
 * -errno. */
int kvm_vm_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data);
/* A non-maskable interrupt, whatever that vCPU does now: KVM_NMI would wait until it has left
 * KVM_RUN. */
int kvm_vm_nmi(const struct kvm_vm *vm, unsigned vcpu);
/* A guest's write of @len bytes to @gpa, whatever it writes, is a write of 1 to eventfd @fd and no
 * exit. After the slots (a slot set after it waits, as after the interrupt controllers). 0 or
 * -errno. */
int kvm_vm_ioeventfd(const struct kvm_vm *vm, uint64_t gpa, unsigned len, int fd);
/* A write to eventfd @fd is a rise and a fall of line @gsi. After the interrupt controllers. KVM
 * looks at the eventfd in a work queue: an interrupt may come later than the write returns. */
int kvm_vm_irqfd(const struct kvm_vm *vm, unsigned gsi, int fd);

struct kvm_vcpu {
        int fd;
        unsigned id;
        struct kvm_run *run; /* mapped, vcpu_map_bytes long */
        size_t map_bytes;
        struct kvm_dirty_gfn *ring; /* [I] NULL: none; see dirty.h */
        uint32_t ring_entries;      /* [I] */
        uint32_t ring_next;         /* who reads the ring */
        uint32_t tsc_khz;           /* [I] of the guest's TSC; 0: KVM does not say */
        bool knows_events;          /* kvm_vcpu_forget(): event_flags is known */
        uint32_t event_flags;       /* of KVM_GET_VCPU_EVENTS */
};

int kvm_vcpu_open(const struct kvm_host *host, const struct kvm_vm *vm, unsigned id,
                  struct kvm_vcpu *vcpu, struct err *err);
void kvm_vcpu_close(struct kvm_vcpu *vcpu);
/* From now on KVM_RUN blocks all signals but @signal, whatever its thread blocks otherwise: one
 * that is pending, or comes, ends it with EINTR and stays pending. (Two of the C library's own are
 * let in, too: with them it changes user ids and cancels threads.) 0 or -errno with err set. */
int kvm_vcpu_open_signal(const struct kvm_vcpu *vcpu, int signal, struct err *err);

/* The processor as this host's KVM offers it. @cpuid has room for KVM_HOST_CPUID_MAX entries. */
int kvm_host_cpuid(const struct kvm_host *host, struct kvm_cpuid2 *cpuid, struct err *err);

/* --- saved state of x86 machines: x86_vcpu_state.c, x86_vm_state.c --- */

/* MSRs that can be read here, found by reading them once with @vcpu. */
struct kvm_msr_set {
        uint32_t index[KVM_HOST_MSRS_MAX];
        unsigned count;
};
int kvm_msr_set_probe(const struct kvm_host *host, const struct kvm_vcpu *vcpu,
                      struct kvm_msr_set *list, struct err *err);

/* Payload of RECORD_TSC. */
struct vcpu_tsc {
        uint64_t offset; /* what KVM adds to the host's TSC; only if has_offset */
        uint32_t khz;
        uint32_t has_offset; /* 0 or 1 */
};

/* Save a parked vCPU, pending I/O completed, as records of instance vcpu->id. */
int kvm_vcpu_save(const struct kvm_host *host, const struct kvm_vm *vm, const struct kvm_vcpu *vcpu,
                  const struct kvm_msr_set *msrs, struct record_writer *w, struct err *err);
/* Set a new vCPU (CPUID already set, irqchip restored) from such records. @elapsed_ns: since they
 * were saved; only used where KVM has no TSC offset to carry over. @again: it is not new, and comes
 * from kvm_vcpu_forget(); machine check banks, which are in no record, are emptied. */
int kvm_vcpu_restore(const struct kvm_host *host, const struct kvm_vm *vm,
                     const struct kvm_vcpu *vcpu, const struct record_reader *r,
                     uint64_t elapsed_ns, bool again, struct err *err);

/* Settle what a vCPU that has run holds besides its records, so that a kvm_vcpu_restore() that
 * follows leaves nothing of it: requests in the kernel that wait for the next entry, SMM, page
 * faults under way. It is stopped, with no I/O pending, and its registers are
 * no more what they were. @signal is that of kvm_vcpu_open_signal(): the calling thread sends it to
 * itself, and takes it. 0 or -errno. */
int kvm_vcpu_forget(struct kvm_vcpu *vcpu, int signal, struct err *err);

/* Tell the guest's watchdog that the host has kept this vCPU from running. It is stopped. */
void kvm_vcpu_was_paused(const struct kvm_vcpu *vcpu);

/* Payload of RECORD_CLOCK. */
struct vm_clock {
        struct kvm_clock_data data;
        uint64_t host_ns; /* CLOCK_BOOTTIME when it was read */
};

/* Interrupt controllers, PIT and clock. */
int kvm_vm_save(const struct kvm_host *host, const struct kvm_vm *vm, struct record_writer *w,
                struct err *err);
int kvm_vm_restore_irqchip(const struct kvm_vm *vm, const struct record_reader *r, struct err *err);
/* After the vCPUs: it ticks from here on, and gives no further tick before the last one has been
 * acknowledged. A tick that a local APIC forgot because it was restored later would be the last. */
int kvm_vm_restore_pit(const struct kvm_vm *vm, const struct record_reader *r, struct err *err);
/* End the ticks of a PIT that is to be restored: one that came between would reach the interrupt
 * controllers after they have been. 0 or -errno. */
int kvm_vm_forget(const struct kvm_vm *vm, struct err *err);
/* The guest's clock goes on: what it was, plus the time that has gone by since. */
int kvm_vm_restore_clock(const struct kvm_host *host, const struct kvm_vm *vm,
                         const struct record_reader *r, struct err *err);

/* --- registers for people, and debugging: x86_regs.c, x86_debug.c; of a vCPU that is not in
 * KVM_RUN --- */

struct ramet_regs; /* <ramet/vm.h>, whose .size is not looked at */

int kvm_vcpu_get_regs(const struct kvm_vcpu *vcpu, struct ramet_regs *regs, struct err *err);
/* -EINVAL with err set when a reserved bit is set, or KVM refuses them; then none has changed. */
int kvm_vcpu_set_regs(const struct kvm_vcpu *vcpu, const struct ramet_regs *regs, struct err *err);

#define KVM_BREAKPOINTS_MAX 4u /* the debug registers DR0 to DR3 */

/* What ends the next entries with KVM_EXIT_DEBUG: the instruction at one of @n addresses, and if
 * @step, each instruction. @quiet: no interrupt comes in before it. 0 or -errno. */
int kvm_vcpu_debug(const struct kvm_host *host, const struct kvm_vcpu *vcpu,
                   const uint64_t *addresses, unsigned n, bool step, bool quiet);

/* Where a vCPU is. */
struct kvm_place {
        uint64_t rip; /* linear */
        uint64_t rcx;
        bool user;       /* CPL 3 */
        bool interrupts; /* RFLAGS.IF */
};
int kvm_vcpu_place(const struct kvm_vcpu *vcpu, struct kvm_place *place);
/* True when a local APIC's interrupt, or an NMI, comes in as soon as this vCPU is entered, given
 * that RFLAGS.IF is set and no instruction keeps it off. */
bool kvm_vcpu_interrupt_waits(const struct kvm_vcpu *vcpu);

/* For hosts that lack debug_user, where the trap of a step in user mode goes to the guest: without
 * an IDT it cannot, and what comes is KVM_EXIT_SHUTDOWN, with the registers as they were. take
 * keeps the guest's IDT and DR6 in @kept; give puts them back, and says if there was a trap, as
 * opposed to another exception, or none. */
struct kvm_no_idt {
        uint64_t base;
        uint16_t limit;
        uint64_t dr6;
};
int kvm_vcpu_take_idt(const struct kvm_vcpu *vcpu, struct kvm_no_idt *kept);
int kvm_vcpu_give_idt(const struct kvm_vcpu *vcpu, const struct kvm_no_idt *kept, bool *trapped);

/* --- memory that KVM writes for a guest: x86_pv.c --- */

#define KVM_PV_MSRS_MAX 12u

/* True when @value of MSR @index tells KVM to write memory: [*gpa, *gpa + *len). The guest chose
 * it: it need not be RAM. */
bool kvm_pv_msr(uint32_t index, uint64_t value, uint64_t *gpa, uint64_t *len);
/* The values of those MSRs that are in @list. Returns how many. */
unsigned kvm_pv_msrs_get(const struct kvm_vcpu *vcpu, const struct kvm_msr_set *list,
                         struct kvm_msr_entry entries[KVM_PV_MSRS_MAX]);
/* Make the guest's writes of those MSRs exits: KVM_EXIT_X86_WRMSR. 0, -ENOTSUP or -errno. */
int kvm_pv_msrs_exit(const struct kvm_vm *vm);
/* 0; -EINVAL when KVM does not take the value; -errno. */
int kvm_msr_set_one(const struct kvm_vcpu *vcpu, uint32_t index, uint64_t value);
/* Ask that the deletion of a slot costs the VM that slot's translations and no others. False: this
 * KVM throws away all of them. */
bool kvm_vm_zap_slots_only(const struct kvm_vm *vm);

#endif
