/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differential test: with the translation cache and without, accesses give the same results while
 * memory and page tables are being remapped by other threads.
 *
 * Two machines. Workers serve both in turn, each with one cache, and make every access twice, one
 * of them bypassing the cache. Each machine has a thread that stops it and moves pages, leaving the
 * value STALE behind, and changes page tables; and one that changes a page table entry while
 * everybody runs, flushes, and then spoils the page that the old entry led to.
 *
 *      page        what
 *      0 to 79     data: word 0 says which page it is, word 1 + n is worker n's own; they move
 *      80, 81      twins: the same words, one is spoilt while no entry leads to it
 *      96 to 98    each worker's own page table, changed by itself; they move
 *      100         a page table that is changed while the machine is stopped; it moves
 *      101         one whose entry 0 leads to a twin, changed at any time
 *
 * A worker knows what its own words and tables must say. Whatever else it reads must be equal both
 * ways, or not have gone back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <cmocka.h>

#include "access_fake.h"

#define WORKERS   3
#define DATA      80
#define TWIN      80
#define OWN_TABLE 96
#define TABLE     100
#define TWINTABLE 101
#define ENTRIES   64
#define IDENTITY  0x1de0000000000000ull
#define SECTION   32 /* accesses of a read section */

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#define ACCESSES 1000000
#else
#define ACCESSES 20000000
#endif
#define SECONDS_MAX 25

struct machine {
        struct fake f;
        unsigned id;
        _Atomic uint64_t run; /* of TABLE; changes while stopped */
        _Atomic uint64_t moves, table_changes, flips;
        pthread_t mover, flipper;
};

struct worker {
        unsigned id;
        unsigned seed;
        struct tlb tlb;
        struct fake_user user[2];
        struct guest_view own[2], shared[2], twin[2];
        uint64_t value[2][DATA];         /* of its own words */
        unsigned entry[2][ENTRIES];      /* of its own tables: data pages */
        uint64_t seen[2][DATA][WORKERS]; /* of the others' words */
        uint64_t accesses;
        pthread_t thread;
};

static struct machine machines[2];
static struct worker workers[WORKERS];
static _Atomic bool over, failed;
static _Atomic uint64_t all_accesses;
static char failure[256];

static unsigned draw(unsigned *seed, unsigned n)
{
        *seed = *seed * 1664525 + 1013904223;
        return (*seed >> 8) % n;
}

static void fails(const struct worker *w, const char *what, uint64_t got, uint64_t want)
{
        if (!atomic_exchange(&failed, true))
                snprintf(failure, sizeof failure,
                         "stale value %#llx: %s, worker %u after %llu accesses; expected %#llx",
                         (unsigned long long)got, what, w->id, (unsigned long long)w->accesses,
                         (unsigned long long)want);
        atomic_store(&over, true);
}

static void expect(const struct worker *w, const char *what, uint64_t got, uint64_t want)
{
        if (got != want)
                fails(w, what, got, want);
}

/* --- a worker's accesses; m says which machine, page and v are drawn --- */

static uint64_t read_gpa(struct worker *w, unsigned m, bool bypass, unsigned page, unsigned word)
{
        struct guest_access *a = &w->user[m].a;
        uint64_t value = 0;

        a->bypass = bypass;
        if (guest_access_read(a, fake_gpa(page) + word * 8, &value, 8) < 0)
                fails(w, "a read was refused", 0, 0);
        w->accesses++;
        return value;
}

static void write_gpa(struct worker *w, unsigned m, bool bypass, uint64_t gpa, uint64_t value)
{
        struct guest_access *a = &w->user[m].a;

        a->bypass = bypass;
        if (guest_access_write(a, gpa, &value, 8) < 0)
                fails(w, "a write was refused", 0, 0);
        w->accesses++;
}

static uint64_t read_gva(struct worker *w, unsigned m, bool bypass, const struct guest_view *view,
                         unsigned v, unsigned word)
{
        struct guest_access *a = &w->user[m].a;
        uint64_t value = 0;

        a->bypass = bypass;
        if (guest_access_read_gva(a, view, FAKE_READ, v * PAGE + word * 8, &value, 8, NULL) < 0)
                fails(w, "a read by GVA was refused", 0, 0);
        w->accesses++;
        return value;
}

static void own_words(struct worker *w, unsigned m, bool bypass, unsigned page)
{
        unsigned word = 1 + w->id;

        expect(w, "own word, read by GPA", read_gpa(w, m, bypass, page, word), w->value[m][page]);
        if (draw(&w->seed, 2))
                write_gpa(w, m, bypass, fake_gpa(page) + word * 8, ++w->value[m][page]);
        expect(w, "own word, read the other way", read_gpa(w, m, !bypass, page, word),
               w->value[m][page]);
}

static void own_table(struct worker *w, unsigned m, bool bypass, unsigned page)
{
        unsigned word = 1 + w->id, v = draw(&w->seed, ENTRIES), *entry = &w->entry[m][v];
        struct guest_access *a = &w->user[m].a;
        uint64_t *value;

        if (draw(&w->seed, 32) == 0) {
                *entry = page;
                write_gpa(w, m, bypass, w->own[m].space.tables + v * 8, fake_gpa(page) | 3);
        }
        value = &w->value[m][*entry];
        if (draw(&w->seed, 2)) {
                ++*value;
                a->bypass = !bypass;
                if (guest_access_write_gva(a, &w->own[m], FAKE_WRITE, v * PAGE + word * 8, value, 8,
                                           NULL) < 0)
                        fails(w, "a write by GVA was refused", 0, 0);
                w->accesses++;
        }
        expect(w, "own word, by own table", read_gva(w, m, bypass, &w->own[m], v, word), *value);
        expect(w, "the same, the other way", read_gva(w, m, !bypass, &w->own[m], v, word), *value);
}

static void others_words(struct worker *w, unsigned m, bool bypass, unsigned page)
{
        unsigned other = draw(&w->seed, WORKERS);
        uint64_t *seen = &w->seen[m][page][other];

        for (unsigned i = 0; i < 2; i++, bypass = !bypass) {
                uint64_t value = read_gpa(w, m, bypass, page, 1 + other);

                if (value < *seen || value == FAKE_STALE)
                        fails(w, "another worker's word went back", value, *seen);
                *seen = value;
        }
        expect(w, "which page it is", read_gpa(w, m, bypass, page, 0),
               IDENTITY | (uint64_t)m << 32 | page);
}

static void shared_table(struct worker *w, unsigned m, bool bypass)
{
        struct guest_view *view = &w->shared[m];
        struct guest_access *a = &w->user[m].a;
        unsigned v = draw(&w->seed, ENTRIES);
        uint64_t x, y, gpa[2];

        view->space.run = atomic_load(&machines[m].run);
        x = read_gva(w, m, bypass, view, v, 0);
        y = read_gva(w, m, !bypass, view, v, 0);
        expect(w, "by the shared table, both ways", x, y);
        expect(w, "a page of this machine", y >> 32, (IDENTITY | (uint64_t)m << 32) >> 32);
        for (unsigned i = 0; i < 2; i++) {
                a->bypass = i;
                if (guest_access_translate(a, view, FAKE_WRITE, v * PAGE, &gpa[i]) < 0)
                        fails(w, "a translation was refused", 0, 0);
        }
        expect(w, "translation, both ways", gpa[0], gpa[1]);
        expect(w, "translation and what is there", gpa[0], fake_gpa((unsigned)y));
        w->accesses += 2;
}

static void twin(struct worker *w, unsigned m, bool bypass)
{
        for (unsigned i = 0; i < 2; i++, bypass = !bypass)
                expect(w, "a spoilt page, by an entry that was flushed",
                       read_gva(w, m, bypass, &w->twin[m], 0, 0), IDENTITY);
}

static void spans(struct worker *w, unsigned m, unsigned page)
{
        struct guest_access *a = &w->user[m].a;
        uint8_t *p[2];
        uint64_t n;

        for (unsigned i = 0; i < 2; i++) {
                a->bypass = i;
                p[i] = guest_access_span(a, fake_gpa(page) + 8, 64, i, &n);
        }
        expect(w, "a pointer, both ways", (uintptr_t)p[0], (uintptr_t)p[1]);
        w->accesses += 2;
}

static void section(struct worker *w, unsigned m)
{
        guest_access_begin(&w->user[m].a);
        for (unsigned i = 0; i < SECTION && !atomic_load(&over); i++) {
                unsigned page = draw(&w->seed, draw(&w->seed, 2) ? 8 : DATA);
                bool bypass = draw(&w->seed, 2);

                switch (draw(&w->seed, 6)) {
                case 0:
                        own_words(w, m, bypass, page);
                        break;
                case 1:
                        own_table(w, m, bypass, page);
                        break;
                case 2:
                        others_words(w, m, bypass, page);
                        break;
                case 3:
                        shared_table(w, m, bypass);
                        break;
                case 4:
                        twin(w, m, bypass);
                        break;
                default:
                        spans(w, m, page);
                }
        }
        guest_access_end(&w->user[m].a);
}

static void *work(void *data)
{
        struct worker *w = data;
        unsigned m = w->id % 2;

        while (!atomic_load(&over)) {
                uint64_t before = w->accesses;

                if (draw(&w->seed, 16) == 0)
                        m = !m;
                section(w, m);
                atomic_fetch_add(&all_accesses, w->accesses - before);
        }
        return NULL;
}

/* --- the remapping threads --- */

static void nap(unsigned *seed, unsigned us)
{
        struct timespec ts = {.tv_nsec = draw(seed, us) * 1000};

        nanosleep(&ts, NULL);
}

/* One stop: pages move, or the shared table changes, or both. */
static void stop_and_move(struct machine *m, unsigned *seed)
{
        unsigned n = draw(seed, 3) ? 1 + draw(seed, 4) : draw(seed, 24), first = draw(seed, DATA);
        struct sync_invalidation inv = {.kinds = draw(seed, 8) ? 0 : SYNC_CURRENT};
        struct sync_range ranges[24 + 3];

        sync_stop(&m->f.domain);
        for (unsigned i = 0; i < n; i++) {
                unsigned page = draw(seed, 16) ? (first + i) % DATA : OWN_TABLE + draw(seed, 5);

                if (page == OWN_TABLE + WORKERS)
                        page = TABLE;
                fake_move(&m->f, page);
                ranges[i] = (struct sync_range){.gpa = fake_gpa(page), .len = PAGE};
                m->moves++;
        }
        if (draw(seed, 2)) {
                for (unsigned v = draw(seed, 4); v < ENTRIES; v += 4)
                        *fake_word(&m->f, TABLE, v) = fake_gpa(draw(seed, DATA)) | 3;
                if (draw(seed, 2))
                        inv.kinds |= SYNC_GUEST; /* the same, told in one of two ways */
                else
                        atomic_fetch_add(&m->run, 1);
                m->table_changes++;
        }
        if (!(inv.kinds & SYNC_CURRENT)) {
                inv.nranges = n;
                inv.ranges = ranges;
        }
        sync_post(&m->f.domain, &inv);
        sync_resume(&m->f.domain);
}

static void *move(void *data)
{
        struct machine *m = data;
        unsigned seed = 100 + m->id;

        while (!atomic_load(&over)) {
                stop_and_move(m, &seed);
                nap(&seed, 300);
        }
        return NULL;
}

/* Word 0 of a page that is never moved, without a look at which are. */
static uint64_t *unmoved(struct machine *m, unsigned page)
{
        return (uint64_t *)(m->f.base + page * PAGE);
}

static void *flip(void *data)
{
        const struct sync_invalidation inv = {.kinds = SYNC_GUEST};
        struct machine *m = data;
        unsigned seed = 200 + m->id;

        while (!atomic_load(&over)) {
                unsigned to = TWIN + !(m->flips++ % 2);
                uint64_t *old = unmoved(m, TWIN + TWIN + 1 - to);

                __atomic_store_n(unmoved(m, TWINTABLE), fake_gpa(to) | 3, __ATOMIC_RELAXED);
                sync_flush(&m->f.domain, &inv);
                __atomic_store_n(old, FAKE_STALE, __ATOMIC_RELAXED);
                nap(&seed, 200);
                __atomic_store_n(old, IDENTITY, __ATOMIC_RELAXED);
        }
        return NULL;
}

/* --- */

static void make_machine(struct machine *m, unsigned id)
{
        fake_init(&m->f);
        m->id = id;
        for (unsigned page = 0; page < DATA; page++)
                *fake_word(&m->f, page, 0) = IDENTITY | (uint64_t)id << 32 | page;
        *fake_word(&m->f, TWIN, 0) = *fake_word(&m->f, TWIN + 1, 0) = IDENTITY;
        *fake_word(&m->f, TWINTABLE, 0) = fake_gpa(TWIN) | 3;
        for (unsigned v = 0; v < ENTRIES; v++) {
                *fake_word(&m->f, TABLE, v) = fake_gpa(v) | 3;
                for (unsigned w = 0; w < WORKERS; w++)
                        *fake_word(&m->f, OWN_TABLE + w, v) = fake_gpa(v) | 3;
        }
}

static void make_worker(struct worker *w, unsigned id)
{
        w->id = w->seed = id;
        tlb_init(&w->tlb);
        for (unsigned m = 0; m < 2; m++) {
                fake_join(&machines[m].f, &w->user[m], &w->tlb);
                w->own[m] = fake_view(0, OWN_TABLE + id);
                w->shared[m] = fake_view(1, TABLE);
                w->twin[m] = fake_view(2, TWINTABLE);
                for (unsigned v = 0; v < ENTRIES; v++)
                        w->entry[m][v] = v;
        }
}

static void start(pthread_t *t, void *(*fn)(void *), void *data)
{
        assert_int_equal(pthread_create(t, NULL, fn, data), 0);
}

static void check_end(void)
{
        struct tlb_stats sum = {0};

        for (unsigned i = 0; i < WORKERS; i++) {
                const struct worker *w = &workers[i];

                for (unsigned m = 0; m < 2; m++) {
                        for (unsigned page = 0; page < DATA; page++)
                                assert_int_equal(*fake_word(&machines[m].f, page, 1 + i),
                                                 w->value[m][page]);
                }
                for (unsigned c = 0; c < TLB_CATEGORIES; c++) {
                        sum.hits[c] += w->tlb.stats.hits[c];
                        sum.misses[c] += w->tlb.stats.misses[c];
                }
                sum.ranges += w->tlb.stats.ranges;
                sum.current += w->tlb.stats.current;
                sum.guest += w->tlb.stats.guest;
                sum.drops += w->tlb.stats.drops;
        }
        for (unsigned c = 0; c < TLB_CATEGORIES; c++) {
                static const char *const names[] = {"linear", "guest-physical", "combined"};

                printf("# %s: %llu hits, %llu misses\n", names[c], (unsigned long long)sum.hits[c],
                       (unsigned long long)sum.misses[c]);
                assert_true(sum.hits[c] > 1000 && sum.misses[c] > 1000);
        }
        printf("# dropped: %llu ranges, %llu current, %llu guest, %llu for another machine\n",
               (unsigned long long)sum.ranges, (unsigned long long)sum.current,
               (unsigned long long)sum.guest, (unsigned long long)sum.drops);
        assert_true(sum.ranges > 20 && sum.current > 20 && sum.guest > 20 && sum.drops > 20);
        for (unsigned m = 0; m < 2; m++) {
                printf("# machine %u: %llu pages moved, %llu table changes, %llu flips\n", m,
                       (unsigned long long)machines[m].moves,
                       (unsigned long long)machines[m].table_changes,
                       (unsigned long long)machines[m].flips);
                assert_true(machines[m].moves > 100 && machines[m].table_changes > 20 &&
                            machines[m].flips > 20);
        }
}

static bool enough(void)
{
        bool all = atomic_load(&all_accesses) >= ACCESSES;

        for (unsigned m = 0; m < 2; m++)
                all = all && machines[m].moves > 500 && machines[m].table_changes > 100 &&
                      machines[m].flips > 100;
        return all;
}

static void same_with_and_without_the_cache(void **state)
{
        time_t end = time(NULL) + SECONDS_MAX;

        for (unsigned m = 0; m < 2; m++)
                make_machine(&machines[m], m);
        for (unsigned i = 0; i < WORKERS; i++)
                make_worker(&workers[i], i);
        for (unsigned i = 0; i < WORKERS; i++)
                start(&workers[i].thread, work, &workers[i]);
        for (unsigned m = 0; m < 2; m++) {
                start(&machines[m].mover, move, &machines[m]);
                start(&machines[m].flipper, flip, &machines[m]);
        }
        while (!atomic_load(&over)) {
                nap(&(unsigned){1}, 1000);
                if (time(NULL) > end || enough())
                        atomic_store(&over, true);
        }
        for (unsigned i = 0; i < WORKERS; i++)
                pthread_join(workers[i].thread, NULL);
        for (unsigned m = 0; m < 2; m++) {
                pthread_join(machines[m].mover, NULL);
                pthread_join(machines[m].flipper, NULL);
        }
        if (atomic_load(&failed)) {
                printf("# %s\n", failure);
                fflush(stdout);
                fail();
        }
        printf("# %llu accesses\n", (unsigned long long)atomic_load(&all_accesses));
        assert_true(atomic_load(&all_accesses) >= ACCESSES / 20);
        check_end();
        for (unsigned i = 0; i < WORKERS; i++) {
                sync_leave(&workers[i].user[0].part);
                sync_leave(&workers[i].user[1].part);
        }
        fake_fini(&machines[0].f);
        fake_fini(&machines[1].f);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(same_with_and_without_the_cache),
        };

        return cmocka_run_group_tests_name("access_remap", tests, NULL, NULL);
}
