// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that rings, and then writes where the host's random numbers lead it: to its data, to
 * pages that nobody has touched, to its page tables; then through the windows that those show, in
 * user mode; and ends as it is told (scribble.h). Before all that it says what it sees there.
 */
#include "rt/rt.h"
#include "scribble.h"

#define PAGE   4096ull
#define RIGHTS 7 /* present, writable, user */

static volatile struct scribble_box *const box = (void *)SCRIBBLE_BOX;
static uint64_t *const root = (uint64_t *)SCRIBBLE_TABLES;
static uint64_t *const pdpt = (uint64_t *)(SCRIBBLE_TABLES + PAGE);
static uint64_t *const pd = (uint64_t *)(SCRIBBLE_TABLES + 2 * PAGE);
static uint64_t *const table = (uint64_t *)(SCRIBBLE_TABLES + 3 * PAGE);

/* Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003. */
static uint64_t roll(uint64_t *x)
{
        *x ^= *x << 13;
        *x ^= *x >> 7;
        return *x ^= *x << 17;
}

static volatile uint64_t *word(uint64_t base, unsigned pages, uint64_t r)
{
        return (uint64_t *)(base + r % pages * PAGE + (r >> 32) % (PAGE / 8) * 8);
}

static void make_tables(void)
{
        uint64_t *old, *old_pdpt;

        asm volatile("mov %%cr3, %0" : "=r"(old));
        old_pdpt = (uint64_t *)(old[0] & ~(PAGE - 1));
        for (unsigned i = 0; i < 4; i++)
                pdpt[i] = old_pdpt[i];
        root[0] = (uint64_t)pdpt | RIGHTS;
        pdpt[SCRIBBLE_WINDOW >> 30] = (uint64_t)pd | RIGHTS;
        pd[0] = (uint64_t)table | RIGHTS;
        for (unsigned i = 0; i < SCRIBBLE_WINDOWS; i++)
                table[i] = (SCRIBBLE_DATA + i * PAGE) | RIGHTS;
        asm volatile("mov %0, %%cr3" : : "r"(root) : "memory");
}

static uint64_t fill(void *arg)
{
        for (uint64_t at = 0; at < SCRIBBLE_FILLED * PAGE; at += 8)
                *(uint64_t *)(SCRIBBLE_DATA + at) = (at + 8) * 0x9e3779b97f4a7c15ull;
        *(uint64_t *)(SCRIBBLE_DATA + SCRIBBLE_ALONE * PAGE) = 1;
        return 0;
}

static uint64_t look(void *arg)
{
        uint64_t sum = 0;

        for (unsigned i = 0; i < SCRIBBLE_WINDOWS; i++)
                sum = sum * 31 + *(volatile uint64_t *)(SCRIBBLE_WINDOW + i * PAGE);
        return sum;
}

static uint64_t write_windows(void *arg)
{
        uint64_t x = box->seed ^ 0x5555;

        for (uint64_t i = 0; i < box->window_writes || box->end == SCRIBBLE_STORM; i++) {
                uint64_t r = roll(&x);

                *word(SCRIBBLE_WINDOW, SCRIBBLE_WINDOWS, r) = r;
        }
        return 0;
}

static void scribble(void)
{
        uint64_t x = box->seed, r;

        for (uint64_t i = 0; i < box->entries; i++) {
                r = roll(&x);
                table[r % SCRIBBLE_WINDOWS] =
                        (SCRIBBLE_DATA + (r >> 32) % SCRIBBLE_PAGES * PAGE) | RIGHTS;
                asm volatile("invlpg (%0)"
                             :
                             : "r"(SCRIBBLE_WINDOW + r % SCRIBBLE_WINDOWS * PAGE)
                             : "memory");
        }
        for (uint64_t i = 0; i < box->writes; i++) {
                r = roll(&x);
                *word(SCRIBBLE_DATA, SCRIBBLE_PAGES, r) = r;
        }
        run_user(write_windows, NULL);
}

static void end(uint64_t how)
{
        static const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) no_idt;

        switch (how) {
        case SCRIBBLE_HALT:
                halt();
        case SCRIBBLE_FAULT:
                asm volatile("lidt %0; ud2" : : "m"(no_idt));
                break;
        case SCRIBBLE_ROOT:
                for (unsigned i = 0; i < PAGE / 8; i++)
                        root[i] = box->seed;
                asm volatile("mov %0, %%cr3" : : "r"(root) : "memory");
                break;
        }
}

void guest_main(void)
{
        make_tables();
        run_user(fill, NULL);
        for (;;) {
                doorbell_ring();
                box->seen = run_user(look, NULL);
                scribble();
                end(box->end);
        }
}
