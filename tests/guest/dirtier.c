// SPDX-License-Identifier: Apache-2.0
/*
 * Writes to pages that the host can foretell, to compare what the host hears of it. Every
 * processor, in CPL 3, has AREA_PAGES pages at AREA + its number * AREA_PAGES pages, and in each
 * round writes one byte to `writes` of them, chosen by a generator (dirtier.h) that starts from
 * seed + its number and goes on from round to round.
 *
 *      seed=N writes=N rounds=N
 *
 * After each round, but the last, the first processor rings the fork doorbell, the others waiting;
 * with ring=no nobody rings or waits, once there was a byte on the serial port. Prints "dirtier:
 * done" and powers off.
 */
#include "rt/rt.h"

#include "dirtier.h"

static struct barrier barrier;

struct job {
        uint64_t state, writes;
        unsigned cpu;
};

static uint64_t one_round(void *arg)
{
        struct job *job = arg;
        uint64_t area = DIRTIER_AREA + job->cpu * DIRTIER_AREA_PAGES * 4096;

        for (uint64_t i = 0; i < job->writes; i++) {
                uint64_t page = dirtier_next(&job->state) % DIRTIER_AREA_PAGES;

                *(volatile uint8_t *)(area + page * 4096 + i % 4096) += 1;
        }
        return 0;
}

static void work(unsigned cpu)
{
        struct job job = {cmd_u64("seed", 1) + cpu, cmd_u64("writes", 64), cpu};
        uint64_t rounds = cmd_u64("rounds", 1);
        int ring = !cmd_is("ring", "no");

        for (uint64_t round = 1; round <= rounds; round++) {
                run_user(one_round, &job);
                if (!ring)
                        continue;
                barrier_wait(&barrier, cpu_count());
                if (cpu == 0 && round < rounds)
                        doorbell_ring();
                barrier_wait(&barrier, cpu_count());
        }
        barrier_wait(&barrier, cpu_count()); /* the first one ends the machine */
}

void guest_main(void)
{
        while (cmd_is("ring", "no") && getc_nowait() < 0)
                cpu_relax();
        smp_run(work);
        printf("dirtier: done\n");
}
