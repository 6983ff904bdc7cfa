/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loans: I/O in flight uses translations of the section that started it. Whoever changes memory
 * waits for it, and its own thread never waits for whoever does.
 *
 * The storm has a thread that plays the kernel: it writes and reads through host addresses while
 * their owner is outside all sections, and other threads move the pages away meanwhile.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "access_fake.h"

static struct fake f;
static struct tlb tlb;
static struct fake_user u;
static unsigned settled;
static unsigned out[64], nout; /* loans that settle() takes back */

static void take_back(void *data)
{
        (void)data;
        settled++;
        while (nout > 0)
                guest_access_return(&u.a, out[--nout]);
}

static int set_up(void **state)
{
        (void)state;
        alarm(50); /* what should not wait for ever ends here */
        fake_init(&f);
        memset(&tlb, 0, sizeof tlb);
        tlb_init(&tlb);
        fake_join(&f, &u, &tlb);
        guest_access_lending(&u.a, take_back, NULL);
        settled = nout = 0;
        return 0;
}

static int tear_down(void **state)
{
        (void)state;
        guest_access_lending_end(&u.a);
        sync_leave(&u.part);
        fake_fini(&f);
        alarm(0);
        return 0;
}

/* A loan of a section of now. */
static unsigned lend(void)
{
        unsigned loan;

        guest_access_begin(&u.a);
        loan = guest_access_lend(&u.a);
        guest_access_end(&u.a);
        return loan;
}

/* --- another thread that changes memory --- */

static _Atomic int phase; /* 0: has not begun; 1: waits; 2: through */

static void *stops(void *data)
{
        (void)data;
        phase = 1;
        sync_stop(&f.domain);
        phase = 2;
        fake_move(&f, 0);
        sync_resume(&f.domain);
        return NULL;
}

static void *flushes(void *data)
{
        (void)data;
        phase = 1;
        sync_flush(&f.domain, NULL);
        phase = 2;
        return NULL;
}

static pthread_t begin_other(void *(*fn)(void *data))
{
        pthread_t thread;

        phase = 0;
        assert_int_equal(pthread_create(&thread, NULL, fn, NULL), 0);
        while (phase == 0)
                usleep(100);
        return thread;
}

static void expect_waiting(const char *what)
{
        usleep(20000);
        if (phase != 1)
                fail_msg("%s: nobody waited for the I/O in flight", what);
}

static void stop_waits_for_a_loan(void **state)
{
        unsigned loan = lend();
        pthread_t other;

        (void)state;
        other = begin_other(stops);
        expect_waiting("a stop");
        guest_access_return(&u.a, loan);
        pthread_join(other, NULL);
        assert_int_equal(settled, 0);
}

static void flush_waits_for_a_loan(void **state)
{
        unsigned loan = lend();
        pthread_t other;

        (void)state;
        other = begin_other(flushes);
        expect_waiting("a flush");
        guest_access_return(&u.a, loan);
        pthread_join(other, NULL);
}

static void one_loan_is_shared(void **state)
{
        unsigned first = lend(), second = lend();
        pthread_t other;

        (void)state;
        assert_int_equal(first, second);
        other = begin_other(stops);
        expect_waiting("two in flight");
        guest_access_return(&u.a, first);
        expect_waiting("one of two in flight");
        guest_access_return(&u.a, second);
        pthread_join(other, NULL);
}

/* What is lent after a flush has begun is nothing that the flush waits for. */
static void each_generation_has_its_own(void **state)
{
        unsigned old = lend(), new;
        pthread_t other;

        (void)state;
        other = begin_other(flushes);
        expect_waiting("a flush");
        new = lend();
        assert_int_not_equal(old, new);
        guest_access_return(&u.a, old);
        pthread_join(other, NULL);
        assert_int_equal(lend(), new);
        guest_access_return(&u.a, new);
        guest_access_return(&u.a, new);
        assert_int_equal(settled, 0);
}

/* A stop that begins between section and loan waits for it, too. */
static void lent_to_while_a_stop_waits(void **state)
{
        unsigned loan;
        pthread_t other;

        (void)state;
        guest_access_begin(&u.a);
        other = begin_other(stops);
        expect_waiting("a section");
        loan = guest_access_lend(&u.a);
        guest_access_end(&u.a);
        expect_waiting("a loan of a section that a stop waited for");
        guest_access_return(&u.a, loan);
        pthread_join(other, NULL);
}

static void begin_settles_first(void **state)
{
        unsigned loan = lend();
        uint64_t value = 0;
        pthread_t other;

        (void)state;
        *fake_word(&f, 0, 0) = 7;
        other = begin_other(stops);
        expect_waiting("a stop");
        out[nout++] = loan;
        assert_int_equal(guest_access_read(&u.a, fake_gpa(0), &value, 8), 0);
        assert_int_equal(value, 7);
        assert_int_equal(settled, 1);
        pthread_join(other, NULL);
}

static void begin_does_not_settle_for_nothing(void **state)
{
        unsigned loan = lend();

        (void)state;
        for (unsigned i = 0; i < 100; i++) {
                guest_access_begin(&u.a);
                guest_access_end(&u.a);
        }
        assert_int_equal(settled, 0);
        guest_access_return(&u.a, loan);
}

static void more_generations_than_loans(void **state)
{
        pthread_t others[GUEST_ACCESS_LOANS];

        (void)state;
        for (unsigned i = 0; i < GUEST_ACCESS_LOANS; i++) {
                out[nout++] = lend();
                for (unsigned k = 0; k < i; k++)
                        assert_int_not_equal(out[i], out[k]);
                others[i] = begin_other(flushes);
                expect_waiting("a flush");
        }
        assert_int_equal(settled, 0);
        assert_in_range(lend(), 0, GUEST_ACCESS_LOANS - 1);
        assert_int_equal(settled, 1);
        for (unsigned i = 0; i < GUEST_ACCESS_LOANS; i++)
                pthread_join(others[i], NULL);
        assert_int_equal(u.a.lent, 1);
        for (unsigned i = 0; i < GUEST_ACCESS_LOANS; i++)
                if (u.a.loans[i].count)
                        guest_access_return(&u.a, i);
}

static void nothing_to_lend_while_stopped(void **state)
{
        unsigned loan;

        (void)state;
        sync_stop(&f.domain);
        guest_access_exclusive(&u.a, true);
        loan = guest_access_lend(&u.a);
        assert_int_equal(loan, GUEST_ACCESS_NO_LOAN);
        assert_int_equal(u.a.lent, 0);
        guest_access_return(&u.a, loan);
        guest_access_exclusive(&u.a, false);
        sync_resume(&f.domain);
}

static void nothing_to_lend_alone(void **state)
{
        struct guest_access a;
        struct tlb own;
        unsigned loan;

        (void)state;
        memset(&own, 0, sizeof own);
        tlb_init(&own);
        guest_access_init(&a, &f.mem, NULL, &own);
        guest_access_lending(&a, take_back, NULL);
        loan = guest_access_lend(&a);
        assert_int_equal(loan, GUEST_ACCESS_NO_LOAN);
        guest_access_return(&a, loan);
        guest_access_lending_end(&a);
}

/* --- the storm --- */

#define REQUESTS 8
#define STORM_MS 3000

struct request {
        unsigned page, loan;
        uint8_t *p;
        uint64_t value;
        struct request *next;
};

static struct {
        pthread_mutex_t lock;
        pthread_cond_t submitted, landed;
        struct request *in, *done; /* [lock] */
        unsigned flying;           /* [lock] */
        bool over;                 /* [lock] */
} kernel = {.lock = PTHREAD_MUTEX_INITIALIZER,
            .submitted = PTHREAD_COND_INITIALIZER,
            .landed = PTHREAD_COND_INITIALIZER};

static _Atomic bool storm_over;
static _Atomic uint64_t stale, generations;
static struct request *idle; /* the worker's own */

/* Reads what the worker wrote before, writes the next value: by host addresses alone. */
static void transfer(struct request *r)
{
        volatile uint64_t *word = (uint64_t *)r->p;
        uint64_t was = *word;

        if (was == FAKE_STALE)
                atomic_store(&stale, was);
        for (unsigned i = 0; i < 8; i++)
                word[i] = r->value;
}

static void *kernel_main(void *data)
{
        struct request *r;
        unsigned n = 0;

        (void)data;
        pthread_mutex_lock(&kernel.lock);
        for (;;) {
                while (!kernel.in && !kernel.over)
                        pthread_cond_wait(&kernel.submitted, &kernel.lock);
                r = kernel.in;
                if (!r)
                        break;
                kernel.in = r->next;
                pthread_mutex_unlock(&kernel.lock);
                if (n++ % 3 == 0)
                        usleep(n % 50);
                transfer(r);
                pthread_mutex_lock(&kernel.lock);
                r->next = kernel.done;
                kernel.done = r;
                kernel.flying--;
                pthread_cond_signal(&kernel.landed);
        }
        pthread_mutex_unlock(&kernel.lock);
        return NULL;
}

/* Worker: what has landed is given back. @all: wait until nothing flies. */
static void reap(bool all)
{
        struct request *r, *next;

        pthread_mutex_lock(&kernel.lock);
        while (all && kernel.flying > 0)
                pthread_cond_wait(&kernel.landed, &kernel.lock);
        r = kernel.done;
        kernel.done = NULL;
        pthread_mutex_unlock(&kernel.lock);
        for (; r; r = next) {
                next = r->next;
                guest_access_wrote(&u.a, fake_gpa(r->page), 64);
                guest_access_return(&u.a, r->loan);
                r->next = idle;
                idle = r;
        }
}

static void settle_storm(void *data)
{
        (void)data;
        settled++;
        reap(true);
}

static void submit(struct request *r)
{
        pthread_mutex_lock(&kernel.lock);
        r->next = kernel.in;
        kernel.in = r;
        kernel.flying++;
        pthread_cond_signal(&kernel.submitted);
        pthread_mutex_unlock(&kernel.lock);
}

static void *mover_main(void *data)
{
        unsigned seed = (unsigned)(uintptr_t)data;

        while (!atomic_load(&storm_over)) {
                seed = seed * 1664525 + 1013904223;
                if (seed >> 30 == 0)
                        sync_flush(&f.domain, NULL);
                else
                        fake_remap(&f, (seed >> 8) % (FAKE_PAGES - 4), 4, 0);
                atomic_fetch_add(&generations, 1);
                usleep((seed >> 20) % 200);
        }
        return NULL;
}

static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void storm(void **state)
{
        static struct request requests[REQUESTS];
        uint64_t values[FAKE_PAGES] = {0}, end = now_ms() + STORM_MS, begun = 0, piece, value;
        pthread_t movers[2], kernel_thread;
        unsigned seed = 1;

        (void)state;
        guest_access_lending_end(&u.a);
        guest_access_lending(&u.a, settle_storm, NULL);
        for (unsigned i = 0; i < REQUESTS; i++) {
                requests[i].next = idle;
                idle = &requests[i];
        }
        assert_int_equal(pthread_create(&kernel_thread, NULL, kernel_main, NULL), 0);
        for (uintptr_t i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&movers[i], NULL, mover_main, (void *)(i + 1)), 0);
        while (now_ms() < end) {
                struct request *r;

                reap(!idle);
                guest_access_begin(&u.a);
                while ((r = idle)) {
                        idle = r->next;
                        seed = seed * 1664525 + 1013904223;
                        /* one request a page at a time: each has its own pages */
                        r->page = (seed >> 8) % (FAKE_PAGES / REQUESTS) * REQUESTS +
                                  (unsigned)(r - requests);
                        r->value = ++values[r->page];
                        r->p = guest_access_span(&u.a, fake_gpa(r->page), 64, true, &piece);
                        assert_non_null(r->p);
                        r->loan = guest_access_lend(&u.a);
                        submit(r);
                        begun++;
                        if (seed >> 31)
                                break;
                }
                guest_access_end(&u.a);
        }
        reap(true);
        atomic_store(&storm_over, true);
        for (unsigned i = 0; i < 2; i++)
                pthread_join(movers[i], NULL);
        pthread_mutex_lock(&kernel.lock);
        kernel.over = true;
        pthread_cond_signal(&kernel.submitted);
        pthread_mutex_unlock(&kernel.lock);
        pthread_join(kernel_thread, NULL);
        if (atomic_load(&stale))
                fail_msg("stale value %#llx under an I/O in flight", FAKE_STALE);
        for (unsigned page = 0; page < FAKE_PAGES; page++) {
                assert_int_equal(guest_access_read(&u.a, fake_gpa(page), &value, 8), 0);
                if (value != values[page])
                        fail_msg("stale value %#llx of page %u, expected %#llx: a write was lost",
                                 (unsigned long long)value, page, (unsigned long long)values[page]);
        }
        printf("# %llu I/Os, %llu changes, settled %u times\n", (unsigned long long)begun,
               (unsigned long long)atomic_load(&generations), settled);
        assert_true(settled > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(stop_waits_for_a_loan, set_up, tear_down),
                cmocka_unit_test_setup_teardown(flush_waits_for_a_loan, set_up, tear_down),
                cmocka_unit_test_setup_teardown(one_loan_is_shared, set_up, tear_down),
                cmocka_unit_test_setup_teardown(each_generation_has_its_own, set_up, tear_down),
                cmocka_unit_test_setup_teardown(lent_to_while_a_stop_waits, set_up, tear_down),
                cmocka_unit_test_setup_teardown(begin_settles_first, set_up, tear_down),
                cmocka_unit_test_setup_teardown(begin_does_not_settle_for_nothing, set_up,
                                                tear_down),
                cmocka_unit_test_setup_teardown(more_generations_than_loans, set_up, tear_down),
                cmocka_unit_test_setup_teardown(nothing_to_lend_while_stopped, set_up, tear_down),
                cmocka_unit_test_setup_teardown(nothing_to_lend_alone, set_up, tear_down),
                cmocka_unit_test_setup_teardown(storm, set_up, tear_down),
        };

        return cmocka_run_group_tests_name("access_loans", tests, NULL, NULL);
}
