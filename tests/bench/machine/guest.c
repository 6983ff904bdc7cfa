// SPDX-License-Identifier: Apache-2.0
/*
 * The guest of the benchmarks; what it does is mode=NAME of its command line:
 *
 * break, pages=N, step=N: touches N * step pages, rings the doorbell; then, at CPL 3, stores once
 *     into each step'th (1) and leaves the TSC cycles of each store at RESULTS; rings again.
 *
 * fill, mib=N: writes N MiB, rings, then keeps all processors busy at CPL 3.
 *
 * scatter, pages=N: touches N * 64 KiB, rings; then for ever writes the first page of each 64 KiB
 *     and rings.
 *
 * spin: keeps all processors busy at CPL 3.
 */
#include "rt/rt.h"

#define RESULTS 0x400000ull
#define HUGE    0x200000ull
#define PAGE    4096ull
#define STRIDE  0x10000ull

static uint64_t pages, step;

static uint64_t spin(void *arg)
{
        for (;;)
                cpu_relax();
        return 0;
}

static void spin_cpu(unsigned cpu)
{
        if (cpu == 0)
                printf("spin\n");
        run_user(spin, NULL);
}

static inline uint64_t cycles(void)
{
        uint32_t lo, hi;

        asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
        return (uint64_t)hi << 32 | lo;
}

static uint64_t touch(void *arg)
{
        volatile uint8_t *p = arg;

        for (uint64_t i = 0; i < pages; i++)
                p[i * PAGE] = 0x5a;
        return 0;
}

static uint64_t store(void *arg)
{
        volatile uint64_t *results = (uint64_t *)RESULTS;
        volatile uint8_t *p = arg;

        for (uint64_t i = 0; i < pages; i++)
                results[i] = 1; /* these pages are the clone's own before the clock runs */
        for (uint64_t i = 0; i < pages; i++) {
                uint64_t t0 = cycles();

                *(volatile uint64_t *)(p + i * step * PAGE) = 1;
                results[i] = cycles() - t0;
        }
        return 0;
}

static uint64_t scatter(void *arg)
{
        volatile uint8_t *p = arg;

        for (uint64_t i = 0; i < pages; i++)
                p[i * STRIDE]++;
        return 0;
}

static void mode_break(void)
{
        uint64_t first = RESULTS + (pages * 8 + HUGE - 1) / HUGE * HUGE;

        pages *= step;
        run_user(touch, (void *)first);
        pages /= step;
        doorbell_ring();
        run_user(store, (void *)first);
        doorbell_ring();
}

static void mode_scatter(void)
{
        uint64_t n = pages;

        pages = n * (STRIDE / PAGE);
        run_user(touch, (void *)RESULTS);
        pages = n;
        for (;;) {
                doorbell_ring();
                run_user(scatter, (void *)RESULTS);
        }
}

/* The runtime maps 4 GiB; here are the next four, one to one. */
static void map_high(void)
{
        static uint64_t pd[4 * 512] __attribute__((aligned(4096)));
        uint64_t cr3, *pdpt;

        asm volatile("mov %%cr3, %0" : "=r"(cr3));
        pdpt = (uint64_t *)(*(uint64_t *)(cr3 & ~0xfffull) & ~0xfffull);
        for (uint64_t i = 0; i < 4 * 512; i++)
                pd[i] = LAYOUT_HIGH_RAM + i * HUGE + 0x87; /* present, writable, user, 2 MiB */
        for (unsigned i = 0; i < 4; i++)
                pdpt[4 + i] = (uint64_t)(pd + 512 * i) + 7;
}

static void mode_fill(uint64_t bytes)
{
        uint64_t low = LAYOUT_LOW_RAM_END - RESULTS;

        pages = (bytes < low ? bytes : low) / PAGE;
        run_user(touch, (void *)RESULTS);
        if (bytes > low) {
                map_high();
                pages = (bytes - low) / PAGE;
                run_user(touch, (void *)LAYOUT_HIGH_RAM);
        }
        doorbell_ring();
}

void guest_main(void)
{
        pages = cmd_u64("pages", 0);
        step = cmd_u64("step", 1);
        if (cmd_is("mode", "break")) {
                mode_break();
        } else if (cmd_is("mode", "scatter")) {
                mode_scatter();
        } else if (cmd_is("mode", "fill")) {
                mode_fill(cmd_u64("mib", 0) << 20);
        }
        smp_run(spin_cpu);
}
