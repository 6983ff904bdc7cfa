// SPDX-License-Identifier: Apache-2.0
/*
 * The guest of `ramet demo`: several processors fill memory in user mode from a seed, ask for a
 * fork while they are busy, and every machine that comes out of it proves three things by hashes
 * that the host computes for itself (demo_pattern.h): it sees the parent's memory, its own writes
 * stay its own, and nobody else's writes reach it.
 *
 *      seed=HEX        where the contents come from (0)
 *      fill=MIB        how much memory to fill (64)
 *      every=K         after the fork write one page in K (64)
 *      wait=MS         keep writing them for so long, while the others write theirs (200)
 *      cpus=N          processors, if there is no MADT to say it
 *
 * Other words (name=...) mean nothing to it. It prints these lines, and powers off:
 *
 *      demo: filled 64 MiB with 2 vCPUs hash=<16 hex digits>
 *      demo: number=3 of=4 sees=<16> own=<16> rest=<16> self=ok
 *
 * number=none of=0 when no fork came (the machine then behaves as number 0); self=bad when what it
 * sees is not what was filled. "demo: error: ..." when it was given something impossible.
 */
#include "rt/rt.h"
#include "demo/demo_pattern.h"

#define AREA    0x400000ull /* above the guest's own image */
#define PAGE    4096ull
#define ROUNDS  4
#define MAP_END 0x100000000ull
#define BUSY_PAGES                                                                                 \
        16 /* of its slice that a processor reads over and over while the fork happens             \
            */

static struct {
        uint64_t seed, fill_mib, every, pages;
        unsigned wait_ms, cpus;
} job;

static struct barrier barrier;
static uint32_t number, number_raw, count; /* written by CPU 0 between two barriers */
static unsigned rung;
static uint64_t filled, sees, own, rest; /* sums over all processors */
static uint64_t busy_sink;

static uint64_t *page_words(uint64_t page)
{
        return (uint64_t *)(AREA + page * PAGE);
}

static void add(uint64_t *sum, uint64_t part)
{
        __atomic_fetch_add(sum, part, __ATOMIC_RELAXED);
}

static void fill_page(uint64_t seed, uint64_t page)
{
        uint64_t *words = page_words(page);

        for (unsigned i = 0; i < DEMO_PAGE_WORDS; i++)
                words[i] = demo_word(seed, page * DEMO_PAGE_WORDS + i);
}

static uint64_t fill(uint64_t first, uint64_t end)
{
        uint64_t sum = 0;

        for (uint64_t page = first; page < end; page++) {
                fill_page(job.seed, page);
                sum += demo_hash_page(page_words(page), page);
        }
        return sum;
}

/* CPU 0 rings; the others read and write memory meanwhile, so that they are stopped at work. */
static void ask_for_fork(unsigned cpu, uint64_t first, uint64_t end)
{
        uint64_t sum = 0;

        if (cpu == 0) {
                number_raw = RAMET_DOORBELL_NOT_ARMED;
                if (doorbell_present())
                        number_raw = doorbell_ring();
                count = doorbell_count();
                number = number_raw >= RAMET_DOORBELL_ERROR ? 0 : number_raw;
                __atomic_store_n(&rung, 1, __ATOMIC_RELEASE);
                return;
        }
        for (uint64_t page = first; !__atomic_load_n(&rung, __ATOMIC_ACQUIRE); page++)
                sum += demo_hash_page(page_words(first + page % BUSY_PAGES % (end - first)), page);
        add(&busy_sink, sum);
}

static void write_own(uint64_t first, uint64_t end)
{
        uint64_t seed = demo_own_seed(job.seed, number);

        for (unsigned round = 0; round < ROUNDS; round++) {
                for (uint64_t page = first; page < end; page++)
                        if (demo_page_is_own(page, number, job.every))
                                fill_page(seed, page);
                sleep_ms(job.wait_ms / ROUNDS);
        }
}

static uint64_t work(void *arg)
{
        unsigned cpu = (unsigned)(uint64_t)arg;
        uint64_t first = job.pages * cpu / job.cpus, end = job.pages * (cpu + 1) / job.cpus;
        uint64_t sum[2] = {0, 0};

        add(&filled, fill(first, end));
        barrier_wait(&barrier, job.cpus);
        if (cpu == 0)
                printf("demo: filled %lu MiB with %u vCPUs hash=%016lx\n", job.fill_mib, job.cpus,
                       filled);
        barrier_wait(&barrier, job.cpus);

        ask_for_fork(cpu, first, end);
        barrier_wait(&barrier, job.cpus);

        for (uint64_t page = first; page < end; page++)
                sum[0] += demo_hash_page(page_words(page), page);
        add(&sees, sum[0]);
        barrier_wait(&barrier, job.cpus);

        write_own(first, end);
        sum[0] = 0;
        for (uint64_t page = first; page < end; page++)
                sum[demo_page_is_own(page, number, job.every)] +=
                        demo_hash_page(page_words(page), page);
        add(&rest, sum[0]);
        add(&own, sum[1]);
        barrier_wait(&barrier, job.cpus);
        return 0;
}

static void report(void)
{
        const char *self = sees == filled ? "ok" : "bad";

        if (number_raw >= RAMET_DOORBELL_ERROR)
                printf("demo: number=none of=%u sees=%016lx own=%016lx rest=%016lx self=%s\n",
                       count, sees, own, rest, self);
        else
                printf("demo: number=%u of=%u sees=%016lx own=%016lx rest=%016lx self=%s\n", number,
                       count, sees, own, rest, self);
}

static void cpu_work(unsigned cpu)
{
        run_user(work, (void *)(uint64_t)cpu);
}

void guest_main(void)
{
        uint64_t ram_end = boot.ram_end && boot.ram_end < MAP_END ? boot.ram_end : MAP_END;

        job.seed = cmd_hex("seed", 0);
        job.fill_mib = cmd_u64("fill", DEMO_FILL_DEFAULT);
        job.every = cmd_u64("every", DEMO_EVERY);
        job.wait_ms = (unsigned)cmd_u64("wait", DEMO_WAIT_MS);
        job.cpus = cpu_count();
        job.pages = job.fill_mib * DEMO_PAGES_MIB;
        if (!job.fill_mib || job.fill_mib > DEMO_FILL_MAX || AREA + job.pages * PAGE > ram_end) {
                printf("demo: error: fill=%lu MiB does not fit (RAM ends at %lx)\n", job.fill_mib,
                       ram_end);
                return;
        }
        if (!job.every) {
                printf("demo: error: every=0\n");
                return;
        }
        smp_run(cpu_work);
        report();
}
