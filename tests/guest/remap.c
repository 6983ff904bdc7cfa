// SPDX-License-Identifier: Apache-2.0
/*
 * Proves that the host sees linear addresses as the guest does, however the guest changes its page
 * tables. Each round it changes an entry of a window of 64 pages (another page, or none), now and
 * then the table itself or CR3, looks at two neighbouring words through the window, says in a
 * mailbox (remap.h) what it saw, and rings. The host puts there what it read, and writes both words
 * through the window. A second processor changes entries at the host's command.
 *
 *      rounds=N   end after so many (1000)
 *
 *      remap: rounds=1000 errors=0
 *
 * Powers off, or ends by the debug-exit port with 1 when there were errors.
 */
#include "remap.h"
#include "rt/rt.h"

#define PAGE    4096ull
#define PRESENT 1
#define RIGHTS  7 /* present, writable, user */
#define ROOTS   2
#define TABLES  8 /* last-level tables in turn */

static volatile struct remap_mailbox *const box = (void *)REMAP_MAILBOX;
static uint64_t *pml4[ROOTS], *pdpt[ROOTS], *pd[ROOTS];
static uint64_t *tables[TABLES];
static unsigned table_of[ROOTS], root;
static uint64_t random_state = 88172645463325252ull;

static uint64_t draw(uint64_t n)
{
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state % n;
}

static void set_cr3(unsigned r)
{
        root = r;
        box->root = r;
        asm volatile("mov %0, %%cr3" : : "r"(pml4[r]) : "memory");
}

static uint64_t *entry_of(unsigned r, uint64_t n)
{
        return &tables[table_of[r]][n];
}

/* The root's window gets another table with the same entries. */
static void change_table(unsigned r)
{
        unsigned to = (unsigned)draw(TABLES);

        if (to == table_of[0] || to == table_of[1])
                return;
        for (unsigned i = 0; i < REMAP_PAGES; i++)
                tables[to][i] = *entry_of(r, i);
        table_of[r] = to;
        pd[r][0] = (uint64_t)tables[to] | RIGHTS;
        set_cr3(root);
}

static void make_tables(void)
{
        uint8_t *next = (uint8_t *)REMAP_TABLES;
        uint64_t *old_pml4, *old_pdpt;

        asm volatile("mov %%cr3, %0" : "=r"(old_pml4));
        old_pdpt = (uint64_t *)(old_pml4[0] & ~(PAGE - 1));
        for (unsigned i = 0; i < TABLES; i++, next += PAGE)
                tables[i] = (uint64_t *)next;
        for (unsigned r = 0; r < ROOTS; r++) {
                pml4[r] = (uint64_t *)next;
                pdpt[r] = (uint64_t *)(next + PAGE);
                pd[r] = (uint64_t *)(next + 2 * PAGE);
                next += 3 * PAGE;
                pml4[r][0] = (uint64_t)pdpt[r] | RIGHTS;
                for (unsigned i = 0; i < 4; i++)
                        pdpt[r][i] = old_pdpt[i];
                pdpt[r][REMAP_WINDOW >> 30] = (uint64_t)pd[r] | RIGHTS;
                table_of[r] = r;
                pd[r][0] = (uint64_t)tables[r] | RIGHTS;
                for (unsigned i = 0; i < REMAP_PAGES; i++)
                        tables[r][i] = (REMAP_DATA + i * PAGE) | RIGHTS;
        }
        for (unsigned i = 0; i < REMAP_PAGES; i++)
                *(uint64_t *)(REMAP_DATA + i * PAGE) = i;
        set_cr3(0);
}

static void change_entry(unsigned r, uint64_t n)
{
        uint64_t entry = draw(8) ? (REMAP_DATA + draw(REMAP_PAGES) * PAGE) | RIGHTS : 0;

        if (entry && draw(4) == 0)
                entry &= ~2ull; /* read-only for the guest; debuggers do not care */
        *entry_of(r, n) = entry;
        asm volatile("invlpg (%0)" : : "r"(REMAP_WINDOW + n * PAGE) : "memory");
}

/* What the guest itself sees at a word of the window. */
static void look(volatile struct remap_word *w, uint64_t gva)
{
        uint64_t n = (gva - REMAP_WINDOW) / PAGE;

        w->gva = gva;
        w->mapped = n < REMAP_PAGES && (*entry_of(root, n) & PRESENT);
        w->mine = w->mapped ? *(volatile uint64_t *)gva : 0;
}

static void check(volatile struct remap_word *w)
{
        if (!w->mapped)
                return;
        if (w->host != w->mine || *(volatile uint64_t *)w->gva != w->reply) {
                if (box->errors++ < 5)
                        printf("remap: round %lu, %lx: guest %lx, host stale %lx; %lx, wrote %lx\n",
                               box->round, w->gva, w->mine, w->host, *(uint64_t *)w->gva, w->reply);
        }
}

static void one_round(void)
{
        uint64_t n = draw(REMAP_PAGES), offset = draw(3) ? draw(PAGE / 8) * 8 : PAGE - 8;

        if (draw(8) == 0)
                change_table((unsigned)draw(ROOTS));
        if (draw(4) == 0)
                set_cr3(!root);
        change_entry(root, n);
        look(&box->words[0], REMAP_WINDOW + n * PAGE + offset);
        look(&box->words[1], REMAP_WINDOW + n * PAGE + offset + 8);
        doorbell_ring();
        check(&box->words[0]);
        check(&box->words[1]);
}

static void obey(void)
{
        for (;;) {
                if (box->done != box->command) {
                        *entry_of(root, box->entry) = (REMAP_DATA + box->page * PAGE) | RIGHTS;
                        box->done = box->command;
                }
                cpu_relax();
        }
}

static void work(unsigned cpu)
{
        uint64_t rounds = cmd_u64("rounds", 1000);

        if (cpu > 0)
                obey();
        for (box->round = 1; box->round <= rounds; box->round++)
                one_round();
        printf("remap: rounds=%lu errors=%lu\n", rounds, box->errors);
        if (box->errors)
                guest_exit(1);
        guest_poweroff();
}

void guest_main(void)
{
        make_tables();
        smp_run(work);
}
