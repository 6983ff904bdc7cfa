// SPDX-License-Identifier: Apache-2.0
/*
 * Litmus tests in which the host takes part: it freezes the machine at moments of its own choice,
 * or has a thread that reads and writes the same memory. See litmus.c and litmus.h.
 *
 * Storm. Each processor counts, and writes number n to its page n % STORM_PAGES, only after n - 1
 * has gone to the page before; then it publishes n. Beside n it writes what the next processor had
 * published. So at any one moment memory says how far each is, without a gap, and nobody knows of a
 * number that has not been published. The host looks for that in each clone. The guest itself
 * checks that each page still has what it wrote there one turn earlier.
 *
 * Clock. Each processor reads its kvmclock page and computes the time, which must never go back,
 * and nor must the version. The pages are set up before the fork.
 */
#include "litmus_guest.h"

#define MSR_CLOCK  0x4b564d01u
#define CHECK_OVER 64   /* turns between two looks at the timer */
#define PATIENCE   9000 /* turns of relax(), of which some thousands take a millisecond or more */

struct clock_page { /* Documentation/virt/kvm/x86/msr.rst */
        uint32_t version, pad;
        uint64_t timestamp, time;
        uint32_t mul;
        int8_t shift;
        uint8_t flags, pad2[2];
};

static volatile struct clock_page clocks[LITMUS_CPUS][LITMUS_PAGE / sizeof(struct clock_page)]
        __attribute__((aligned(LITMUS_PAGE)));
static struct barrier begin;
static unsigned stop;

/* Processor 0 looks at its timer, the others at what it says. */
static int over(unsigned cpu, unsigned ticks)
{
        const volatile struct cpu *self = (const volatile struct cpu *)cpu_stacks[0];

        if (cpu == 0 && self->timer >= ticks)
                __atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
        return (int)__atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

/* --- storm --- */

static volatile uint64_t *at(uint64_t gpa)
{
        return (volatile uint64_t *)gpa;
}

void storm(unsigned cpu, unsigned ticks)
{
        unsigned next = (cpu + 1) % cpu_count();
        uint64_t n = 0;

        /* From a known state; the first turn breaks all of them. */
        for (unsigned i = 0; i < STORM_PAGES; i++) {
                at(STORM_PAGE(cpu, i))[STORM_WORD_NEIGHBOUR] = 0;
                at(STORM_PAGE(cpu, i))[STORM_WORD_SEQUENCE] = 0;
        }
        *at(STORM_PUBLISHED(cpu)) = 0;
        barrier_wait(&begin, cpu_count());
        ticks += (unsigned)((const volatile struct cpu *)cpu_stacks[0])->timer;
        while (n % CHECK_OVER || !over(cpu, ticks)) {
                volatile uint64_t *page = at(STORM_PAGE(cpu, ++n % STORM_PAGES));

                must_be(&page[STORM_WORD_SEQUENCE], n > STORM_PAGES ? n - STORM_PAGES : 0);
                page[STORM_WORD_NEIGHBOUR] = *at(STORM_PUBLISHED(next));
                page[STORM_WORD_SEQUENCE] = n;
                *at(STORM_PUBLISHED(cpu)) = n;
        }
        for (uint64_t i = n > STORM_PAGES ? n - STORM_PAGES + 1 : 1; i <= n; i++)
                must_be(&at(STORM_PAGE(cpu, i % STORM_PAGES))[STORM_WORD_SEQUENCE], i);
        must_be(at(STORM_PUBLISHED(cpu)), n);
        count_rounds(n);
}

/* --- device --- */

static volatile uint64_t *control(unsigned offset)
{
        return at(DEVICE_CONTROL + offset);
}

/* 0, or 1 when the host's word does not come: what it wrote is not what is seen here. */
static int await_host(unsigned offset, uint64_t round)
{
        uint64_t saw;
        unsigned spins = 0;

        while ((saw = __atomic_load_n((uint64_t *)control(offset), __ATOMIC_ACQUIRE)) < round) {
                relax(&spins);
                if (spins > PATIENCE) {
                        report(control(offset), saw, round);
                        return 1;
                }
        }
        return 0;
}

static int device_round(uint64_t n)
{
        volatile uint64_t *mine = at(DEVICE_PAGE(n) + DEVICE_WORD_GUEST);
        volatile uint64_t *host = at(DEVICE_PAGE(n) + DEVICE_WORD_HOST);

        must_be(mine, old_of(mine)); /* the translation is in use here, too */
        must_be(host, old_of(host));
        *control(DEVICE_GUEST_LOOKED) = n;
        if (await_host(DEVICE_LOOKED, n))
                return 1;
        if (!DEVICE_HOST_FIRST(n)) {
                *mine = n;
                *control(DEVICE_GUEST_WROTE) = n;
        }
        if (await_host(DEVICE_HOST_WROTE, n))
                return 1;
        must_be(host, n);
        if (DEVICE_HOST_FIRST(n)) {
                *mine = n;
                *control(DEVICE_GUEST_WROTE) = n;
        }
        must_be(mine, n);
        for (unsigned i = 0; i < LITMUS_PAGE / 8; i += 7) {
                volatile uint64_t *p = at(DEVICE_PAGE(n)) + i;

                if (p != mine && p != host)
                        must_be(p, old_of(p));
        }
        return 0;
}

/* Processor 0 talks to the device; the others break pages of their own meanwhile. */
void device(unsigned cpu, unsigned pages)
{
        uint64_t first = 1 + pages / cpu_count() * cpu, end = first + pages / cpu_count() - 1;

        if (cpu == 0) {
                for (unsigned offset = 0; offset <= DEVICE_OVER; offset += 64)
                        *control(offset) = 0;
                *control(DEVICE_OVER) = end - first;
        }
        for (uint64_t n = first; n < end; n++) {
                volatile uint64_t *p = at(DEVICE_PAGE(n));

                if (cpu == 0) {
                        if (device_round(n))
                                return;
                        continue;
                }
                *p = new_of(p);
                must_be(p, new_of(p));
                for (unsigned i = 0; i < 200; i++)
                        cpu_relax();
        }
        for (uint64_t n = first; n < end; n++)
                must_be(cpu == 0 ? at(DEVICE_PAGE(n) + DEVICE_WORD_HOST) : at(DEVICE_PAGE(n)),
                        cpu == 0 ? n : new_of(at(DEVICE_PAGE(n))));
        count_rounds(end - first);
}

/* --- clock --- */

void prepare_clock(unsigned cpu)
{
        wrmsr(MSR_CLOCK, (uint64_t)&clocks[cpu][0] | 1);
}

static uint64_t tsc(void)
{
        uint32_t lo, hi;

        asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
        return (uint64_t)hi << 32 | lo;
}

/* The time in nanoseconds, and the version it is from. */
static uint64_t read_clock(volatile const struct clock_page *c, uint32_t *version)
{
        uint64_t delta, time;

        do {
                *version = __atomic_load_n(&c->version, __ATOMIC_ACQUIRE) & ~1u;
                delta = tsc() - c->timestamp;
                delta = c->shift < 0 ? delta >> -c->shift : delta << c->shift;
                time = c->time + (uint64_t)((unsigned __int128)delta * c->mul >> 32);
                __atomic_thread_fence(__ATOMIC_ACQUIRE);
        } while (c->version != *version);
        return time;
}

void clock(unsigned cpu, unsigned ticks)
{
        volatile struct clock_page *c = &clocks[cpu][0];
        uint32_t version, last_version = 0;
        uint64_t time, last = 0, n = 0;

        ticks += (unsigned)((const volatile struct cpu *)cpu_stacks[0])->timer;
        while (n++ % CHECK_OVER || !over(cpu, ticks)) {
                time = read_clock(c, &version);
                if (version < last_version)
                        report((volatile uint64_t *)&c->version, version, last_version);
                if (time < last)
                        report((volatile uint64_t *)&c->time, time, last);
                last = time;
                last_version = version;
        }
        count_rounds(n);
}
