/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's registers as <ramet/vm.h> has them, from and to KVM_GET_REGS and KVM_GET_SREGS (api.rst
 * 4.11, 4.13). Of the latter only what people set is taken: the APIC base and interrupts that wait
 * stay as they are.
 *
 * KVM checks control registers and EFER when they are set, and the rest not before the vCPU is
 * entered, where a bad value ends the machine. What can be told beforehand is refused here.
 */
#include <errno.h>
#include <string.h>

#include <ramet/vm.h>

#include "kvm/kvm.h"

#define RFLAGS_ONE      0x2ull      /* always 1 */
#define RFLAGS_KNOWN    0x3f7fd7ull /* SDM vol. 1, 3.4.3 */
#define ATTRIBUTES      0x0fffu
#define ATTRIBUTE_P     (1u << 7)
#define RIP_HIGH_BITS   16 /* of 64, to be all alike: 48-bit addresses ... */
#define RIP_HIGH_BITS_5 7  /* ... or 57 */
#define CR4_LA57        (1ull << 12)

static struct ramet_segment segment_of(const struct kvm_segment *s)
{
        unsigned attributes = s->type | s->s << 4 | s->dpl << 5 | s->present << 7 | s->avl << 8 |
                              s->l << 9 | s->db << 10 | s->g << 11;

        if (s->unusable)
                attributes &= ~ATTRIBUTE_P;
        return (struct ramet_segment){.base = s->base,
                                      .limit = s->limit,
                                      .selector = s->selector,
                                      .attributes = (uint16_t)attributes};
}

static struct kvm_segment to_segment(const struct ramet_segment *s)
{
        const unsigned a = s->attributes;

        return (struct kvm_segment){.base = s->base,
                                    .limit = s->limit,
                                    .selector = s->selector,
                                    .type = a & 15,
                                    .s = a >> 4 & 1,
                                    .dpl = a >> 5 & 3,
                                    .present = a >> 7 & 1,
                                    .avl = a >> 8 & 1,
                                    .l = a >> 9 & 1,
                                    .db = a >> 10 & 1,
                                    .g = a >> 11 & 1,
                                    .unusable = !(a & ATTRIBUTE_P)};
}

static int get(const struct kvm_vcpu *vcpu, struct kvm_regs *regs, struct kvm_sregs *sregs,
               struct err *err)
{
        int r = kvm_ioctl(vcpu->fd, KVM_GET_REGS, regs);

        if (r == 0)
                r = kvm_ioctl(vcpu->fd, KVM_GET_SREGS, sregs);
        return r < 0 ? err_host(err, -r, "reading the registers of vCPU %u: %s", vcpu->id,
                                strerror(-r))
                     : 0;
}

int kvm_vcpu_get_regs(const struct kvm_vcpu *vcpu, struct ramet_regs *out, struct err *err)
{
        struct kvm_sregs s;
        struct kvm_regs g;
        int r = get(vcpu, &g, &s, err);

        if (r < 0)
                return r;
        *out = (struct ramet_regs){
                .size = sizeof *out,
                .rax = g.rax,
                .rbx = g.rbx,
                .rcx = g.rcx,
                .rdx = g.rdx,
                .rsi = g.rsi,
                .rdi = g.rdi,
                .rsp = g.rsp,
                .rbp = g.rbp,
                .r8 = g.r8,
                .r9 = g.r9,
                .r10 = g.r10,
                .r11 = g.r11,
                .r12 = g.r12,
                .r13 = g.r13,
                .r14 = g.r14,
                .r15 = g.r15,
                .rip = g.rip,
                .rflags = g.rflags,
                .cr0 = s.cr0,
                .cr2 = s.cr2,
                .cr3 = s.cr3,
                .cr4 = s.cr4,
                .cr8 = s.cr8,
                .efer = s.efer,
                .cs = segment_of(&s.cs),
                .ds = segment_of(&s.ds),
                .es = segment_of(&s.es),
                .fs = segment_of(&s.fs),
                .gs = segment_of(&s.gs),
                .ss = segment_of(&s.ss),
                .tr = segment_of(&s.tr),
                .ldt = segment_of(&s.ldt),
                .gdt_base = s.gdt.base,
                .idt_base = s.idt.base,
                .gdt_limit = s.gdt.limit,
                .idt_limit = s.idt.limit,
        };
        return 0;
}

static int check(const struct ramet_regs *regs, struct err *err)
{
        const unsigned high = regs->cr4 & CR4_LA57 ? RIP_HIGH_BITS_5 : RIP_HIGH_BITS;
        const int64_t top = (int64_t)regs->rip >> (63 - high);
        const struct {
                const char *name;
                const struct ramet_segment *segment;
        } segments[] = {
                {"cs", &regs->cs}, {"ds", &regs->ds}, {"es", &regs->es}, {"fs", &regs->fs},
                {"gs", &regs->gs}, {"ss", &regs->ss}, {"tr", &regs->tr}, {"ldt", &regs->ldt},
        };

        if (regs->rflags & ~RFLAGS_KNOWN)
                return err_input(err, "rflags: %#llx given, only bits of %#llx expected",
                                 (unsigned long long)regs->rflags,
                                 (unsigned long long)RFLAGS_KNOWN);
        if (top != 0 && top != -1)
                return err_input(err, "rip: %#llx given, a canonical address expected",
                                 (unsigned long long)regs->rip);
        for (size_t i = 0; i < sizeof segments / sizeof segments[0]; i++) {
                if (segments[i].segment->attributes & ~ATTRIBUTES)
                        return err_input(err, "%s: attributes %#x given, only bits of %#x expected",
                                         segments[i].name, segments[i].segment->attributes,
                                         ATTRIBUTES);
        }
        return 0;
}

static void put_system(const struct ramet_regs *in, struct kvm_sregs *s)
{
        s->cr0 = in->cr0;
        s->cr2 = in->cr2;
        s->cr3 = in->cr3;
        s->cr4 = in->cr4;
        s->cr8 = in->cr8;
        s->efer = in->efer;
        s->cs = to_segment(&in->cs);
        s->ds = to_segment(&in->ds);
        s->es = to_segment(&in->es);
        s->fs = to_segment(&in->fs);
        s->gs = to_segment(&in->gs);
        s->ss = to_segment(&in->ss);
        s->tr = to_segment(&in->tr);
        s->ldt = to_segment(&in->ldt);
        s->gdt.base = in->gdt_base;
        s->gdt.limit = in->gdt_limit;
        s->idt.base = in->idt_base;
        s->idt.limit = in->idt_limit;
}

int kvm_vcpu_set_regs(const struct kvm_vcpu *vcpu, const struct ramet_regs *in, struct err *err)
{
        struct kvm_regs g = {
                .rax = in->rax,
                .rbx = in->rbx,
                .rcx = in->rcx,
                .rdx = in->rdx,
                .rsi = in->rsi,
                .rdi = in->rdi,
                .rsp = in->rsp,
                .rbp = in->rbp,
                .r8 = in->r8,
                .r9 = in->r9,
                .r10 = in->r10,
                .r11 = in->r11,
                .r12 = in->r12,
                .r13 = in->r13,
                .r14 = in->r14,
                .r15 = in->r15,
                .rip = in->rip,
                .rflags = in->rflags | RFLAGS_ONE,
        };
        struct kvm_sregs s;
        struct kvm_regs old;
        int r = check(in, err);

        if (r == 0)
                r = get(vcpu, &old, &s, err);
        if (r < 0)
                return r;
        put_system(in, &s);
        r = kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &s);
        if (r == -EINVAL)
                return err_input(err,
                                 "KVM refuses these registers of vCPU %u: cr0 %#llx, cr3 %#llx, "
                                 "cr4 %#llx, efer %#llx",
                                 vcpu->id, (unsigned long long)in->cr0, (unsigned long long)in->cr3,
                                 (unsigned long long)in->cr4, (unsigned long long)in->efer);
        if (r == 0)
                r = kvm_ioctl(vcpu->fd, KVM_SET_REGS, &g);
        return r < 0 ? err_host(err, -r, "setting the registers of vCPU %u: %s", vcpu->id,
                                strerror(-r))
                     : 0;
}
