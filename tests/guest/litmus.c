// SPDX-License-Identifier: Apache-2.0
/*
 * Litmus tests of memory that is copy-on-write, in CPL 3 on real memory: what no processor may ever
 * see, tried at the moment at which a page is broken, and all over that page right after it, when
 * somebody could still be using the old one. Each round uses 8 bytes that nobody has written since
 * the fork; a page has 512 of them, and the first to be written breaks it.
 *
 * With an even number of processors, 0 and 1 are a pair, 2 and 3 another, each with pages of its
 * own; alone, one processor does the work of both. Tests in which all take part use one and the
 * same pages. Memory that is in use (`progress`) is where they wait for one another.
 *
 *      pages=N        how many are prepared (1024)
 *
 *      litmus: ready
 *      litmus: message: stale: page 12 word 3: saw 0x1f want 0x20 was 0x1f
 *      litmus: message: rounds=51200 bad=0
 *
 * Debug-exit with 1 when anything was bad.
 */
#include "litmus_guest.h"

#define WORDS     512
#define SPINS     5000
#define LOCKS     32
#define SEQUENCE  200
#define TOGETHER  16 /* rounds that two begin at the same time */
#define BAD_SHOWN 3

struct progress {
        uint64_t value;
        uint64_t pad[7];
} __attribute__((aligned(64)));

static struct progress progress[LITMUS_CPUS];
static uint64_t results[LITMUS_CPUS][WORDS];
static struct barrier barrier;
static uint64_t rounds, bad;
uint32_t number;

static const char *const test_name[LITMUS_TESTS] = {
        [LITMUS_MESSAGE] = "message", [LITMUS_WRITERS] = "writers", [LITMUS_LOCKERS] = "lockers",
        [LITMUS_POLL] = "poll",       [LITMUS_STORES] = "stores",   [LITMUS_STORM] = "storm",
        [LITMUS_DEVICE] = "device",   [LITMUS_CLOCK] = "clock"};

/* --- common --- */

volatile uint64_t *word_at(uint64_t page, unsigned word)
{
        return (volatile uint64_t *)(LITMUS_AREA + page * LITMUS_PAGE) + word;
}

uint64_t old_of(volatile const uint64_t *p)
{
        return LITMUS_OLD((uint64_t)p);
}

uint64_t new_of(volatile const uint64_t *p)
{
        return LITMUS_NEW((uint64_t)p);
}

void report(volatile const uint64_t *p, uint64_t saw, uint64_t want)
{
        unsigned long at = (unsigned long)p - LITMUS_AREA, size = LITMUS_PAGE;

        if (__atomic_fetch_add(&bad, 1, __ATOMIC_RELAXED) < BAD_SHOWN)
                printf("litmus: %s: stale: page %lu word %lu: saw 0x%lx want 0x%lx was 0x%lx\n",
                       test_name[number % 16], at / size, at % size / 8, saw, want, old_of(p));
}

void must_be(volatile const uint64_t *p, uint64_t want)
{
        uint64_t saw = *p;

        if (saw != want)
                report(p, saw, want);
}

void count_rounds(uint64_t n)
{
        __atomic_fetch_add(&rounds, n, __ATOMIC_RELAXED);
}

void relax(unsigned *spins)
{
        if (++*spins < SPINS)
                cpu_relax();
        else
                sleep_ms(1);
}

static void go(unsigned cpu, uint64_t value)
{
        __atomic_store_n(&progress[cpu].value, value, __ATOMIC_SEQ_CST);
}

static void await(unsigned cpu, uint64_t value)
{
        unsigned spins = 0;

        while (__atomic_load_n(&progress[cpu].value, __ATOMIC_SEQ_CST) < value)
                relax(&spins);
}

/* All n processors come here before any goes on. */
static void meet(unsigned cpu, unsigned n, uint64_t value)
{
        go(cpu, value);
        for (unsigned i = 0; i < n; i++)
                await(i, value);
}

/* The pages of a pair: first, and one past the last. */
static void share(unsigned cpu, unsigned pages, uint64_t *first, uint64_t *end)
{
        unsigned pairs = cpu_count() < 2 ? 1 : cpu_count() / 2;

        *first = pages / pairs * (cpu / 2);
        *end = *first + pages / pairs;
}

/* --- message passing --- */

/* Who has broken which page before the first round on it. */
static void message_prelude(uint64_t page, unsigned role)
{
        volatile uint64_t *data = word_at(page, WORDS - 1), *flag = word_at(page + 1, WORDS - 1);

        if (page / 2 % 4 == 1 && role == 0)
                *flag = new_of(flag);
        if (page / 2 % 4 == 2 && role == 0)
                *data = new_of(data);
        if (page / 2 % 4 == 3 && role == 1)
                *data = new_of(data);
}

static void message_send(uint64_t page, unsigned s)
{
        volatile uint64_t *data = word_at(page, s), *flag = word_at(page + 1, s);

        *data = new_of(data);
        *flag = new_of(flag);
}

static void message_receive(uint64_t page, unsigned s)
{
        volatile uint64_t *data = word_at(page, s), *flag = word_at(page + 1, s);
        uint64_t early, told;
        unsigned spins = 0;

        for (;;) {
                early = *data;
                told = *flag;
                if (told != old_of(flag))
                        break;
                if (early != old_of(data) && early != new_of(data))
                        report(data, early, new_of(data));
                relax(&spins);
        }
        if (told != new_of(flag))
                report(flag, told, new_of(flag));
        must_be(data, new_of(data));
}

static void message(unsigned cpu, unsigned pages)
{
        unsigned alone = cpu_count() < 2, role = cpu & 1;
        uint64_t first, end;

        share(cpu, pages, &first, &end);
        for (uint64_t page = first; page + 2 <= end; page += 2) {
                message_prelude(page, role);
                if (!alone) {
                        go(cpu, page + 1);
                        await(cpu ^ 1, page + 1);
                }
                for (unsigned s = 0; s < WORDS - 1; s++) {
                        if (alone || role == 0)
                                message_send(page, s);
                        if (alone || role == 1)
                                message_receive(page, s);
                }
                if (alone || role == 1)
                        count_rounds(WORDS - 1);
        }
}

/* --- several write one page --- */

static void writers(unsigned cpu, unsigned pages)
{
        unsigned n = cpu_count();

        for (uint64_t page = 0; page < pages; page++) {
                meet(cpu, n, 2 * page + 1);
                for (unsigned s = cpu; s < WORDS; s += n)
                        *word_at(page, s) = new_of(word_at(page, s));
                meet(cpu, n, 2 * page + 2);
                for (unsigned s = 0; s < WORDS; s++)
                        must_be(word_at(page, s), new_of(word_at(page, s)));
                if (cpu == 0)
                        count_rounds(WORDS);
        }
}

/* --- several count in one page --- */

static void count_under_lock(uint64_t page)
{
        volatile uint64_t *lock = word_at(page, 0), *counter = word_at(page, 1);
        uint64_t open = old_of(lock);
        unsigned spins = 0;

        while (!__atomic_compare_exchange_n((uint64_t *)lock, &open, ~open, 0, __ATOMIC_ACQUIRE,
                                            __ATOMIC_RELAXED)) {
                open = old_of(lock);
                relax(&spins);
        }
        *counter = *counter + 1;
        __atomic_store_n((uint64_t *)lock, open, __ATOMIC_RELEASE);
}

static void lockers(unsigned cpu, unsigned pages)
{
        unsigned n = cpu_count();

        for (uint64_t page = 0; page + 2 <= pages; page += 2) {
                volatile uint64_t *counter = word_at(page, page % WORDS);
                volatile uint64_t *locked = word_at(page + 1, 1);

                meet(cpu, n, page + 1);
                for (unsigned i = 0; i < LOCKS; i++)
                        asm volatile("lock incq %0" : "+m"(*counter) : : "memory");
                for (unsigned i = 0; i < LOCKS; i++)
                        count_under_lock(page + 1);
                meet(cpu, n, page + 2);
                must_be(counter, old_of(counter) + n * LOCKS);
                must_be(locked, old_of(locked) + n * LOCKS);
                if (cpu == 0)
                        count_rounds(2 * n * LOCKS);
        }
}

/* --- one writes, one polls --- */

static void poll_write(uint64_t page, unsigned s)
{
        volatile uint64_t *p = word_at(page, s);

        for (uint64_t i = 1; i <= SEQUENCE; i++)
                *p = old_of(p) + i;
}

static void poll_read(uint64_t page, unsigned s)
{
        volatile uint64_t *p = word_at(page, s);
        uint64_t last = 0;
        unsigned spins = 0, other = s;

        while (last < SEQUENCE) {
                uint64_t now = *p - old_of(p);

                if (now < last || now > SEQUENCE) {
                        report(p, old_of(p) + now, old_of(p) + last);
                        return;
                }
                if (now == last)
                        relax(&spins);
                last = now;
                other = (other + 1) % WORDS; /* nobody writes these */
                if (other != s)
                        must_be(word_at(page, other), old_of(word_at(page, other)));
        }
        for (unsigned i = 0; i < WORDS; i++)
                must_be(word_at(page, i), old_of(word_at(page, i)) + (i == s ? SEQUENCE : 0));
}

static void poll(unsigned cpu, unsigned pages)
{
        unsigned alone = cpu_count() < 2, role = cpu & 1;
        uint64_t first, end;

        share(cpu, pages, &first, &end);
        for (uint64_t page = first; page < end; page++) {
                unsigned s = (unsigned)(page * 37 % WORDS);

                if (!alone) {
                        go(cpu, page + 1);
                        await(cpu ^ 1, page + 1);
                }
                if (alone || role == 0)
                        poll_write(page, s);
                if (alone || role == 1) {
                        poll_read(page, s);
                        count_rounds(SEQUENCE);
                }
        }
}

/* --- store buffering: after the fence at least one sees the other's store --- */

static uint64_t store_then_load(volatile uint64_t *mine, volatile uint64_t *other)
{
        uint64_t saw;

        *mine = new_of(mine);
        asm volatile("mfence" : : : "memory");
        saw = *other;
        return saw;
}

static void stores_check(uint64_t page, unsigned s, unsigned cpu)
{
        volatile uint64_t *x = word_at(page, s), *y = word_at(page + 1, s);
        uint64_t saw_y = results[cpu & ~1u][s], saw_x = results[cpu | 1][s];

        if (saw_y != old_of(y) && saw_y != new_of(y))
                report(y, saw_y, new_of(y));
        if (saw_x != old_of(x) && saw_x != new_of(x))
                report(x, saw_x, new_of(x));
        if (saw_x == old_of(x) && saw_y == old_of(y))
                report(x, saw_x, new_of(x));
        must_be(x, new_of(x));
        must_be(y, new_of(y));
}

static void stores(unsigned cpu, unsigned pages)
{
        unsigned alone = cpu_count() < 2, role = cpu & 1;
        uint64_t first, end, step = 0;

        share(cpu, pages, &first, &end);
        for (uint64_t page = first; page + 2 <= end; page += 2) {
                for (unsigned s = 0; s < WORDS; s++) {
                        volatile uint64_t *mine = word_at(page + role, s);
                        volatile uint64_t *other = word_at(page + 1 - role, s);

                        if (alone) {
                                results[0][s] = store_then_load(mine, other);
                                results[1][s] = store_then_load(other, mine);
                                continue;
                        }
                        must_be(mine, old_of(mine)); /* so that both translations are in use */
                        if (s % TOGETHER == 0) {
                                go(cpu, ++step);
                                await(cpu ^ 1, step);
                        }
                        results[cpu][s] = store_then_load(mine, other);
                }
                go(cpu, ++step);
                if (!alone)
                        await(cpu ^ 1, step);
                for (unsigned s = 0; role == 0 && s < WORDS; s++)
                        stores_check(page, s, cpu);
                go(cpu, ++step);
                if (!alone)
                        await(cpu ^ 1, step);
                if (role == 0)
                        count_rounds(WORDS);
        }
}

/* --- all --- */

static void (*const tests[LITMUS_TESTS])(unsigned cpu, unsigned amount) = {
        [LITMUS_MESSAGE] = message, [LITMUS_WRITERS] = writers, [LITMUS_LOCKERS] = lockers,
        [LITMUS_POLL] = poll,       [LITMUS_STORES] = stores,   [LITMUS_STORM] = storm,
        [LITMUS_DEVICE] = device,   [LITMUS_CLOCK] = clock};

static void fill(void)
{
        uint64_t end = LITMUS_AREA + cmd_u64("pages", 1024) * LITMUS_PAGE;

        for (uint64_t at = LITMUS_AREA; at < end; at += 8)
                *(volatile uint64_t *)at = LITMUS_OLD(at);
}

static uint64_t work(void *arg)
{
        unsigned cpu = ((const struct cpu *)arg)->id;

        if (cpu == 0) {
                fill();
                printf("litmus: ready\n");
        }
        barrier_wait(&barrier, cpu_count());
        if (cpu == 0)
                number = doorbell_ring();
        barrier_wait(&barrier, cpu_count());
        if (number % 16 < LITMUS_TESTS)
                tests[number % 16](cpu, number >> 4);
        barrier_wait(&barrier, cpu_count());
        if (cpu == 0) {
                printf("litmus: %s: rounds=%lu bad=%lu\n", test_name[number % 16], rounds, bad);
                guest_exit(bad != 0);
        }
        return 0;
}

static void cpu_work(unsigned cpu)
{
        prepare_clock(cpu);
        run_user(work, this_cpu());
}

void guest_main(void)
{
        timer_periodic(LITMUS_TICK_MS);
        smp_run(cpu_work);
}
