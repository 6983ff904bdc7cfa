/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The written pages of an instruction: decoded ranges, cut into pages, each page walked.
 *
 * Walks ignore permissions. If the guest may not write a page, the instruction will fault there,
 * and a page has been counted for nothing; the other way round, a rule read differently from the
 * processor would lose one. The tables on the way count as written, for reads as well and for the
 * instruction's own page: the processor sets accessed and dirty bits there.
 *
 * Pages are few, so the set is an array that is searched from the end, where the tables of the page
 * before are.
 */
#include "x86/operands.h"

#include <errno.h>
#include <string.h>

#define CR0_PE   (1ull << 0)
#define CR3_LAM  (3ull << 61) /* linear-address masking, for user pointers; CR4.LAM_SUP: others */
#define CR4_CET  (1ull << 23)
#define CR4_LAM  (1ull << 28)
#define EFER_LMA (1ull << 10)

/* Reserved bits are ignored, so that this says only which bits are an address. */
#define MAXPHYADDR 52

struct x86_paging x86_paging_of(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                                uint8_t maxphyaddr)
{
        return (struct x86_paging){
                .cr0 = sregs->cr0,
                .cr3 = sregs->cr3,
                .cr4 = sregs->cr4,
                .efer = sregs->efer,
                .rflags = regs->rflags,
                .cpl = sregs->ss.dpl, /* SDM volume 3A, 5.5: SS.DPL is the CPL in every mode */
                .maxphyaddr = maxphyaddr,
        };
}

static uint8_t width(bool long64, bool db)
{
        return long64 ? 64 : db ? 32 : 16;
}

/* No more than a selector reaches. */
static uint32_t ldt_bytes(const struct kvm_segment *ldt)
{
        if (ldt->unusable || !ldt->present)
                return 0;
        return ldt->limit > 0xffff ? 0x10000 : ldt->limit + 1;
}

struct x86_state x86_state_of(const struct kvm_regs *r, const struct kvm_sregs *s,
                              size_t xsave_bytes)
{
        bool lma = s->efer & EFER_LMA, long64 = lma && s->cs.l;

        return (struct x86_state){
                .bits = width(long64, s->cs.db),
                .stack_bits = width(long64, s->ss.db),
                .cpl = s->ss.dpl & 3,
                .real_mode = !(s->cr0 & CR0_PE),
                .long_mode = lma,
                .shadow_stack = s->cr4 & CR4_CET,
                .gpr = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi, r->r8,
                        r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15},
                .rip = r->rip,
                .rflags = r->rflags,
                .base = {s->es.base, s->cs.base, s->ss.base, s->ds.base, s->fs.base, s->gs.base},
                .gdt = s->gdt.base,
                .gdt_bytes = s->gdt.limit + 1u,
                .ldt = s->ldt.base,
                .ldt_bytes = ldt_bytes(&s->ldt),
                .xsave_bytes = xsave_bytes,
        };
}

struct pages {
        uint64_t *gpa;
        unsigned n, room;
};

static int add(struct pages *p, uint64_t gpa)
{
        gpa &= ~(uint64_t)(X86_PAGE_BYTES - 1);
        for (unsigned i = p->n; i > 0; i--)
                if (p->gpa[i - 1] == gpa)
                        return 0;
        if (p->n == p->room)
                return -E2BIG;
        p->gpa[p->n++] = gpa;
        return 0;
}

static int add_linear(struct pages *p, const struct x86_paging *paging,
                      const struct x86_mem_reader *reader, uint64_t linear, bool write)
{
        struct x86_walk walk;
        int r = x86_walk(paging, reader, linear, X86_DEBUG, &walk), added;

        for (unsigned i = 0; i < walk.ntables; i++) {
                added = add(p, walk.tables[i]);
                if (added < 0)
                        return added;
        }
        if (r == -EINVAL && ((paging->cr3 & CR3_LAM) || (paging->cr4 & CR4_LAM)))
                return -ENOTSUP; /* a pointer with a tag, which the walk does not take off */
        if (r == -EFAULT || r == -EINVAL) /* not mapped, not canonical: the instruction faults */
                return 0;
        if (r == 0 && write)
                return add(p, walk.gpa);
        return r;
}

static int add_range(struct pages *p, const struct x86_paging *paging,
                     const struct x86_mem_reader *reader, const struct x86_range *range)
{
        uint64_t page = range->linear & ~(uint64_t)(X86_PAGE_BYTES - 1);
        uint64_t last = range->linear + (range->bytes - 1);
        int r;

        for (;; page += X86_PAGE_BYTES) {
                r = add_linear(p, paging, reader, page, range->write);
                if (r < 0 || last - page < X86_PAGE_BYTES)
                        return r;
        }
}

int x86_written_pages(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                      const uint8_t *bytes, size_t n, size_t xsave_bytes,
                      const struct x86_mem_reader *reader, uint64_t *gpas, unsigned *ngpas)
{
        struct x86_paging paging = x86_paging_of(regs, sregs, MAXPHYADDR);
        struct x86_state state = x86_state_of(regs, sregs, xsave_bytes);
        uint64_t found[X86_WRITTEN_PAGES_MAX];
        struct pages p = {found, 0,
                          *ngpas < X86_WRITTEN_PAGES_MAX ? *ngpas : X86_WRITTEN_PAGES_MAX};
        struct x86_ranges ranges;
        uint64_t code = state.bits == 64 ? state.rip : (uint32_t)(state.base[X86_CS] + state.rip);
        int r = x86_decode(&state, bytes, n, &ranges);

        for (unsigned i = 0; r == 0 && i < ranges.n; i++)
                r = add_range(&p, &paging, reader, &ranges.range[i]);
        if (r == 0)
                r = add_range(&p, &paging, reader,
                              &(struct x86_range){code, ranges.insn_bytes, false});
        if (r < 0)
                return r;
        memcpy(gpas, found, p.n * sizeof *gpas);
        *ngpas = p.n;
        return 0;
}
