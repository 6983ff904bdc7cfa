// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that keeps the promise of fixed page tables, or breaks it, as the host says (ptes.h). It
 * rings, obeys, looks into its window in user mode, where a processor goes by KVM's shadows, and
 * rings again.
 */
#include "ptes.h"
#include "rt/rt.h"

#define PAGE   4096ull
#define RIGHTS 7 /* present, writable, user */
#define ROOTS  2

static volatile struct ptes_mailbox *const box = (void *)PTES_MAILBOX;
static uint64_t *pml4[ROOTS], *pd[ROOTS], *tables[3];

static uint64_t *new_table(void)
{
        static uint64_t next = PTES_TABLES;
        uint64_t *table = (uint64_t *)next;

        next += PAGE;
        return table;
}

static void set_cr3(unsigned r)
{
        asm volatile("mov %0, %%cr3" : : "r"(pml4[r]) : "memory");
}

/* Both roots map what the first one did, and the window: tables[0] in one, [1] in the other. */
static void make_tables(void)
{
        static const unsigned page[3] = {0, 3, 2};
        uint64_t *old_pml4, *old_pdpt;

        asm volatile("mov %%cr3, %0" : "=r"(old_pml4));
        old_pdpt = (uint64_t *)(old_pml4[0] & ~(PAGE - 1));
        for (unsigned i = 0; i < 3; i++) {
                tables[i] = new_table();
                tables[i][0] = (PTES_DATA + page[i] * PAGE) | RIGHTS;
        }
        for (unsigned r = 0; r < ROOTS; r++) {
                uint64_t *pdpt = new_table();

                pml4[r] = new_table();
                pd[r] = new_table();
                pml4[r][0] = (uint64_t)pdpt | RIGHTS;
                for (unsigned i = 0; i < 4; i++)
                        pdpt[i] = old_pdpt[i];
                pdpt[PTES_WINDOW >> 30] = (uint64_t)pd[r] | RIGHTS;
                pd[r][0] = (uint64_t)tables[r] | RIGHTS;
        }
        for (unsigned i = 0; i < 4; i++)
                *(uint64_t *)(PTES_DATA + i * PAGE) = PTES_VALUE(i);
        set_cr3(0);
}

static uint64_t look(void *arg)
{
        return *(volatile uint64_t *)PTES_WINDOW;
}

static uint64_t write_window(void *arg)
{
        *(volatile uint64_t *)PTES_WINDOW = 99;
        return 0;
}

static void flip_efer(void)
{
        uint32_t low, high;

        asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(0xc0000080));
        asm volatile("wrmsr" : : "a"(low ^ 1u << 11), "d"(high), "c"(0xc0000080));
}

static void obey(uint64_t order)
{
        uint64_t reg;

        switch (order) {
        case PTES_WRITE:
                run_user(write_window, NULL);
                break;
        case PTES_ENTRY:
                tables[0][0] = (PTES_DATA + PAGE) | RIGHTS;
                break;
        case PTES_TABLE:
                pd[0][0] = (uint64_t)tables[2] | RIGHTS;
                break;
        case PTES_ROOT:
        case PTES_ROOT_TWICE:
                set_cr3(1);
                run_user(look, NULL);
                if (order == PTES_ROOT_TWICE)
                        set_cr3(0);
                return;
        case PTES_CR0:
                asm volatile("mov %%cr0, %0" : "=r"(reg));
                asm volatile("mov %0, %%cr0" : : "r"(reg ^ 1ul << 16));
                break;
        case PTES_CR4:
                asm volatile("mov %%cr4, %0" : "=r"(reg));
                asm volatile("mov %0, %%cr4" : : "r"(reg ^ 1ul << 7));
                break;
        case PTES_EFER:
                flip_efer();
                break;
        case PTES_HIGH:
                tables[0][300] = (PTES_DATA + PAGE) | RIGHTS;
                break;
        }
        asm volatile("invlpg (%0)" : : "r"(PTES_WINDOW) : "memory");
}

void guest_main(void)
{
        make_tables();
        for (;;) {
                box->seen = run_user(look, NULL);
                doorbell_ring();
                obey(box->order);
                box->order = PTES_NOTHING;
        }
}
