/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breakpoints and steps of one vCPU: KVM_SET_GUEST_DEBUG (api.rst 4.87), and what it takes on a
 * host that hands traps of user mode to the guest. src/vm/debug.c says how they are used.
 */
#include <string.h>

#include "kvm/kvm.h"

#define DR6_FIXED 0xffff0ff0ull
#define DR6_BS    (1ull << 14) /* a step's trap */
#define DR7_FIXED (1ull << 10)
#define DR7_G(i)  (2ull << 2 * (i)) /* DR i is on; its type bits are 0: execution */

#define LAPIC_PPR 0x0a0u /* SDM vol. 3, table 11-1 */
#define LAPIC_IRR 0x200u /* 8 registers, 16 bytes apart */

#define RFLAGS_IF (1ull << 9)
#define EFER_LMA  (1ull << 10)
#define CR0_PE    1ull

int kvm_vcpu_debug(const struct kvm_host *host, const struct kvm_vcpu *vcpu,
                   const uint64_t *addresses, unsigned n, bool step, bool quiet)
{
        struct kvm_guest_debug d = {0};

        if (n > 0 || step)
                d.control = KVM_GUESTDBG_ENABLE;
        if (step)
                d.control |= KVM_GUESTDBG_SINGLESTEP;
        if (step && quiet && host->debug_blockirq)
                d.control |= KVM_GUESTDBG_BLOCKIRQ;
        if (n > 0) {
                d.control |= KVM_GUESTDBG_USE_HW_BP;
                d.arch.debugreg[7] = DR7_FIXED;
        }
        for (unsigned i = 0; i < n && i < KVM_BREAKPOINTS_MAX; i++) {
                d.arch.debugreg[i] = addresses[i];
                d.arch.debugreg[7] |= DR7_G(i);
        }
        return kvm_ioctl(vcpu->fd, KVM_SET_GUEST_DEBUG, &d);
}

int kvm_vcpu_place(const struct kvm_vcpu *vcpu, struct kvm_place *place)
{
        struct kvm_sregs s;
        struct kvm_regs g;
        int r = kvm_ioctl(vcpu->fd, KVM_GET_REGS, &g);

        if (r == 0)
                r = kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &s);
        if (r < 0)
                return r;
        *place = (struct kvm_place){.rip = g.rip,
                                    .rcx = g.rcx,
                                    .user = s.cr0 & CR0_PE && s.ss.dpl == 3,
                                    .interrupts = g.rflags & RFLAGS_IF};
        if (!(s.efer & EFER_LMA) || !s.cs.l)
                place->rip = (uint32_t)(g.rip + s.cs.base);
        return 0;
}

bool kvm_vcpu_interrupt_waits(const struct kvm_vcpu *vcpu)
{
        struct kvm_vcpu_events events;
        struct kvm_lapic_state lapic;
        uint32_t bits, ppr;

        if (kvm_ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) == 0 && events.nmi.pending &&
            !events.nmi.masked)
                return true;
        if (kvm_ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic) < 0)
                return false;
        memcpy(&ppr, lapic.regs + LAPIC_PPR, sizeof ppr);
        for (unsigned i = 8; i-- > 0;) {
                memcpy(&bits, lapic.regs + LAPIC_IRR + 16 * i, sizeof bits);
                if (bits) /* the highest vector's class has to be above the processor's */
                        return (32 * i + 31 - (unsigned)__builtin_clz(bits)) >> 4 > (ppr & 255) >>
                               4;
        }
        return false;
}

static int set_dr6(const struct kvm_vcpu *vcpu, uint64_t dr6, uint64_t *old)
{
        struct kvm_debugregs regs;
        int r = kvm_ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &regs);

        if (r < 0)
                return r;
        *old = regs.dr6;
        regs.dr6 = dr6;
        return kvm_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &regs);
}

int kvm_vcpu_take_idt(const struct kvm_vcpu *vcpu, struct kvm_no_idt *kept)
{
        struct kvm_sregs s;
        int r = kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &s);

        if (r == 0)
                r = set_dr6(vcpu, DR6_FIXED, &kept->dr6);
        if (r < 0)
                return r;
        kept->base = s.idt.base;
        kept->limit = s.idt.limit;
        s.idt.limit = 0;
        return kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &s);
}

int kvm_vcpu_give_idt(const struct kvm_vcpu *vcpu, const struct kvm_no_idt *kept, bool *trapped)
{
        struct kvm_sregs s;
        uint64_t dr6 = 0;
        int r = set_dr6(vcpu, kept->dr6, &dr6);

        *trapped = dr6 & DR6_BS;
        if (r == 0)
                r = kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &s);
        if (r < 0)
                return r;
        s.idt.base = kept->base;
        s.idt.limit = kept->limit;
        return kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &s);
}
