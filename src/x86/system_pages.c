/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages that the processor writes by itself: see system_pages.h. Sources: SDM vol. 3, 3.4.5.1
 * (accessed bit of a segment descriptor), 8.2.2 (busy bit of a TSS descriptor), 6.14.2 and figure
 * 8-11 (64-bit stack frame and TSS).
 */
#include "x86/system_pages.h"

#define TSS_RSP0 4u  /* RSP0 to RSP2 */
#define TSS_IST1 36u /* IST1 to IST7 */
#define FRAME    64u /* SS, RSP, RFLAGS, CS, RIP, error code; and 15 bytes of alignment above */

struct pages {
        const struct x86_paging *paging;
        const struct x86_mem_reader *reader;
        uint64_t *gpas;
        unsigned n;
};

/* The guest chooses both ends: a range may go on at 0. */
static void add(struct pages *p, uint64_t linear, uint64_t len)
{
        uint64_t at = linear & ~(uint64_t)(X86_PAGE_BYTES - 1);
        uint64_t count = (linear - at + len + X86_PAGE_BYTES - 1) / X86_PAGE_BYTES;
        struct x86_walk walk;

        for (; count > 0 && p->n < X86_SYSTEM_PAGES_MAX; count--, at += X86_PAGE_BYTES) {
                if (x86_walk(p->paging, p->reader, at, X86_DEBUG, &walk) == 0)
                        p->gpas[p->n++] = walk.gpa;
        }
}

static void add_stack(struct pages *p, uint64_t top)
{
        if (top >= FRAME)
                add(p, top - FRAME, FRAME);
}

/* Read what may cross a page. */
static int read_linear(const struct pages *p, uint64_t linear, void *buf, size_t len)
{
        for (size_t done = 0, n; done < len; done += n) {
                uint64_t at = linear + done;
                struct x86_walk walk;

                n = X86_PAGE_BYTES - at % X86_PAGE_BYTES;
                if (n > len - done)
                        n = len - done;
                if (x86_walk(p->paging, p->reader, at, X86_DEBUG, &walk) < 0 ||
                    p->reader->read(p->reader->data, walk.gpa, (uint8_t *)buf + done, n) < 0)
                        return -1;
        }
        return 0;
}

static void add_tss_stacks(struct pages *p, const struct kvm_segment *tr)
{
        uint64_t stacks[7];

        if (tr->unusable || read_linear(p, tr->base + TSS_RSP0, stacks, 3 * sizeof *stacks) < 0)
                return;
        for (unsigned i = 0; i < 3; i++)
                add_stack(p, stacks[i]);
        if (read_linear(p, tr->base + TSS_IST1, stacks, sizeof stacks) < 0)
                return;
        for (unsigned i = 0; i < 7; i++)
                add_stack(p, stacks[i]);
}

unsigned x86_system_pages(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                          const struct x86_paging *paging, const struct x86_mem_reader *reader,
                          uint64_t gpas[X86_SYSTEM_PAGES_MAX])
{
        struct pages p = {.paging = paging, .reader = reader, .gpas = gpas};

        add(&p, sregs->gdt.base, sregs->gdt.limit + 1ull);
        if (!sregs->ldt.unusable && sregs->ldt.limit <= 0xffff)
                add(&p, sregs->ldt.base, sregs->ldt.limit + 1ull);
        add_stack(&p, regs->rsp);
        add_tss_stacks(&p, &sregs->tr);
        return p.n;
}
