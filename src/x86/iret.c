/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IRETQ, by the SDM's operation of IRET (vol. 2) in 64-bit mode, to the same or to the outermost
 * privilege level. Whatever is not the ordinary case is left to KVM.
 */
#include "x86/iret.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "x86/operands.h"

#define RFLAGS_TAKEN 0x3c7fd7ull /* all but VM and what is reserved ... */
#define RFLAGS_ONE   0x2ull      /* ... of which this bit is 1 */
#define EFER_LMA     (1ull << 10)
#define SELECTOR_LDT 4u
#define PAGE         4096u

static int read_linear(const struct x86_paging *paging, const struct x86_mem_reader *reader,
                       uint64_t gva, void *buf, size_t len)
{
        for (size_t done = 0, n; done < len; done += n) {
                struct x86_walk walk;

                n = PAGE - (gva + done) % PAGE;
                if (n > len - done)
                        n = len - done;
                if (x86_walk(paging, reader, gva + done, X86_DEBUG, &walk) < 0 ||
                    reader->read(reader->data, walk.gpa, (uint8_t *)buf + done, n) < 0)
                        return -EFAULT;
        }
        return 0;
}

/* Of a descriptor in the GDT, whose privilege level is the selector's. */
static bool load_segment(const struct x86_paging *paging, const struct x86_mem_reader *reader,
                         const struct kvm_sregs *s, uint64_t selector, struct kvm_segment *seg)
{
        uint64_t at = selector & 0xfff8, d;

        if (selector & SELECTOR_LDT || selector > UINT16_MAX || !(selector & 0xfff8) ||
            at + 7 > s->gdt.limit || read_linear(paging, reader, s->gdt.base + at, &d, 8) < 0)
                return false;
        *seg = (struct kvm_segment){
                .base = (d >> 16 & 0xffffff) | (d >> 56 & 0xff) << 24,
                .limit = (uint32_t)((d & 0xffff) | (d >> 48 & 15) << 16),
                .selector = (uint16_t)selector,
                .type = (d >> 40 & 15) | 1, /* accessed */
                .s = d >> 44 & 1,
                .dpl = d >> 45 & 3,
                .present = d >> 47 & 1,
                .avl = d >> 52 & 1,
                .l = d >> 53 & 1,
                .db = d >> 54 & 1,
                .g = d >> 55 & 1,
        };
        if (seg->g)
                seg->limit = seg->limit << 12 | 0xfff;
        return seg->s && seg->present && seg->dpl == (selector & 3);
}

/* Data segments of the kernel are not the user's. */
static void drop_inner(struct kvm_segment *seg)
{
        if (seg->unusable || !seg->present || seg->dpl == 3)
                return;
        seg->selector = 0;
        seg->present = 0;
        seg->unusable = 1;
}

/* In 64-bit code of CPL 0 there may be none. */
static bool load_stack(const struct x86_paging *paging, const struct x86_mem_reader *reader,
                       struct kvm_sregs *s, unsigned cpl, uint64_t selector)
{
        struct kvm_segment ss;

        if (cpl == 0 && selector == 0) {
                s->ss.selector = 0;
                return true;
        }
        if (!load_segment(paging, reader, s, selector, &ss) || ss.type & 8 || !(ss.type & 2) ||
            ss.dpl != cpl)
                return false;
        s->ss = ss;
        return true;
}

static bool is_canonical(uint64_t address)
{
        const int64_t top = (int64_t)address >> 47;

        return top == 0 || top == -1;
}

static int unmask_nmi(int fd)
{
        struct kvm_vcpu_events events;

        if (ioctl(fd, KVM_GET_VCPU_EVENTS, &events) < 0)
                return -errno;
        if (!events.nmi.masked)
                return 0;
        events.nmi.masked = 0;
        return ioctl(fd, KVM_SET_VCPU_EVENTS, &events) < 0 ? -errno : 0;
}

int x86_iretq(int fd, uint8_t maxphyaddr, const struct x86_mem_reader *reader, bool *sti)
{
        struct {
                uint64_t rip, cs, rflags, rsp, ss;
        } frame;
        struct kvm_segment cs;
        struct x86_paging paging;
        struct kvm_sregs s;
        struct kvm_regs g;
        uint8_t bytes[2] = {0};

        *sti = false;
        if (ioctl(fd, KVM_GET_REGS, &g) < 0 || ioctl(fd, KVM_GET_SREGS, &s) < 0)
                return -errno;
        paging = x86_paging_of(&g, &s, maxphyaddr);
        if (!(s.efer & EFER_LMA) || !s.cs.l || s.ss.dpl != 0 ||
            read_linear(&paging, reader, g.rip, bytes, sizeof bytes) < 0)
                return 0;
        *sti = bytes[0] == 0xfb;
        if (bytes[0] != 0x48 || bytes[1] != 0xcf ||
            read_linear(&paging, reader, g.rsp, &frame, sizeof frame) < 0 ||
            !load_stack(&paging, reader, &s, frame.cs & 3, frame.ss) ||
            !load_segment(&paging, reader, &s, frame.cs, &cs) || !(cs.type & 8) || !cs.l ||
            !is_canonical(frame.rip))
                return 0;
        g.rip = frame.rip;
        g.rsp = frame.rsp;
        g.rflags = (frame.rflags & RFLAGS_TAKEN) | RFLAGS_ONE;
        s.cs = cs;
        if (cs.dpl == 3) {
                drop_inner(&s.ds);
                drop_inner(&s.es);
                drop_inner(&s.fs);
                drop_inner(&s.gs);
        }
        if (ioctl(fd, KVM_SET_SREGS, &s) < 0 || ioctl(fd, KVM_SET_REGS, &g) < 0)
                return -errno;
        return unmask_nmi(fd) ?: 1;
}
