// SPDX-License-Identifier: Apache-2.0
/*
 * Proves that memory and processors are frozen at one and the same moment, however often that
 * happens during a storm of writes. Every processor, in CPL 3, goes round and round over pages of
 * its own and writes the number of the round into their first and last word, after checking that
 * both hold the number of the round before, which it has in a register; and all add to one counter
 * with `lock`, while each counts its own share.
 *
 *      mib=N     memory of each processor (4)
 *      rounds=N  end after so many rounds of CPU 0
 *      ms=N      end after so many milliseconds of the local APIC's timer
 *
 * A byte on the serial port ends it too. Prints
 *
 *      writer: running on 2 vCPUs
 *      writer: rounds=1234 errors=0            rounds of all processors together
 *
 * and powers off, or ends by the debug-exit port with 1 when there were errors.
 */
#include "rt/rt.h"

#define AREA    0x400000ull
#define PAGE    4096ull
#define TICK_MS 10

struct worker {
        uint64_t *first, *end;
        uint64_t rounds, writes, errors;
};

static struct worker workers[RT_MAX_CPUS];
static uint64_t all_writes;
static unsigned stop;
static struct barrier barrier;
static uint64_t rounds_max, ticks_max;

static int page_is(const uint64_t *page, uint64_t round)
{
        return page[0] == round && page[PAGE / 8 - 1] == round;
}

static void page_set(uint64_t *page, uint64_t round)
{
        *(volatile uint64_t *)&page[0] = round;
        *(volatile uint64_t *)&page[PAGE / 8 - 1] = round;
}

/* Is it time to end? For CPU 0, each round; looks at the serial port once a tick. */
static int over(const struct cpu *cpu, const struct worker *w, uint64_t *seen)
{
        uint64_t ticks = cpu->timer;

        if ((rounds_max && w->rounds >= rounds_max) || (ticks_max && ticks >= ticks_max))
                return 1;
        if (ticks == *seen)
                return 0;
        *seen = ticks;
        return getc_nowait() >= 0;
}

static uint64_t work(void *arg)
{
        const struct cpu *cpu = arg;
        struct worker *w = &workers[cpu->id];
        uint64_t seen = 0;

        for (uint64_t *page = w->first; page < w->end; page += PAGE / 8)
                page_set(page, 0);
        barrier_wait(&barrier, cpu_count());
        if (cpu->id == 0)
                printf("writer: running on %u vCPUs\n", cpu_count());

        while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
                uint64_t round = w->rounds + 1;

                for (uint64_t *page = w->first; page < w->end; page += PAGE / 8) {
                        w->errors += !page_is(page, round - 1);
                        page_set(page, round);
                        w->writes++;
                        __atomic_fetch_add(&all_writes, 1, __ATOMIC_RELAXED);
                }
                w->rounds = round;
                if (cpu->id == 0 && over(cpu, w, &seen))
                        __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
        }
        for (uint64_t *page = w->first; page < w->end; page += PAGE / 8)
                w->errors += !page_is(page, w->rounds);
        barrier_wait(&barrier, cpu_count());
        return 0;
}

static void cpu_work(unsigned cpu)
{
        if (cpu == 0)
                timer_periodic(TICK_MS);
        run_user(work, this_cpu());
}

void guest_main(void)
{
        uint64_t size = cmd_u64("mib", 4) << 20, rounds = 0, errors = 0, writes = 0;

        rounds_max = cmd_u64("rounds", 0);
        ticks_max = (cmd_u64("ms", 0) + TICK_MS - 1) / TICK_MS;
        for (unsigned i = 0; i < cpu_count(); i++) {
                workers[i].first = (uint64_t *)(AREA + i * size);
                workers[i].end = (uint64_t *)(AREA + (i + 1) * size);
        }
        smp_run(cpu_work);
        for (unsigned i = 0; i < cpu_count(); i++) {
                rounds += workers[i].rounds;
                errors += workers[i].errors;
                writes += workers[i].writes;
        }
        errors += writes != all_writes;
        printf("writer: rounds=%lu errors=%lu\n", rounds, errors);
        if (errors)
                guest_exit(1);
}
