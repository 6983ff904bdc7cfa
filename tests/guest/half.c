// SPDX-License-Identifier: Apache-2.0
/*
 * Forks, and then is busy with one processor while the others are halted for ever with interrupts
 * on. It counts in CPL 3 for half a second or so, and prints how far it came
 *
 *      half: counted 12345678
 */
#include "rt/rt.h"

#define TICKS 1200000000ull /* of the TSC */

static uint64_t tsc(void)
{
        uint32_t low, high;

        asm volatile("rdtsc" : "=a"(low), "=d"(high));
        return (uint64_t)high << 32 | low;
}

static uint64_t work(void *unused)
{
        uint64_t end, n = 0;

        doorbell_ring();
        end = tsc() + TICKS;
        while (tsc() < end)
                n++;
        printf("half: counted %lu\n", n);
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
