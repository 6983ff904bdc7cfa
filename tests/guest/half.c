// SPDX-License-Identifier: Apache-2.0
/*
 * Proves how much of a machine one busy processor gets while the others are halted for ever with
 * interrupts on. It counts in CPL 3 for a fixed time, over and over, before and after the fork, and
 * prints the most that it got
 *
 *      half: before=1234567 after=1200000
 */
#include "rt/rt.h"

#define SLICE  100000000ull /* TSC ticks: some 30 to 50 ms */
#define SLICES 12

static uint64_t tsc(void)
{
        uint32_t low, high;

        asm volatile("rdtsc" : "=a"(low), "=d"(high));
        return (uint64_t)high << 32 | low;
}

static uint64_t most(void)
{
        uint64_t best = 0;

        for (unsigned i = 0; i < SLICES; i++) {
                uint64_t end = tsc() + SLICE, n = 0;

                while (tsc() < end)
                        n++;
                if (n > best)
                        best = n;
        }
        return best;
}

static uint64_t work(void *unused)
{
        uint64_t before = most(), after;

        doorbell_ring();
        after = most();
        printf("half: before=%lu after=%lu\n", before, after);
        return 0;
}

static void cpu_work(unsigned cpu)
{
        if (cpu > 0)
                for (;;)
                        asm volatile("sti; hlt");
        run_user(work, 0);
}

void guest_main(void)
{
        smp_run(cpu_work);
}
