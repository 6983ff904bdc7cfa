/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation barrier under stress, with 64 threads on fake guests: no participant uses a page
 * after the flush that replaced it, nobody is inside while the domain is stopped, no kick is lost,
 * and nobody waits for one that has left for good. Meant to be run under ThreadSanitizer, too: the
 * plain (non-atomic) data here is protected by nothing but the barrier.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sched.h>
#include <cmocka.h>

#include "sync/sync.h"

#define THREADS 64
#define ROUNDS  2000

struct page {
        int poisoned; /* plain on purpose: written after a flush, read inside */
};

static struct sync_domain domain;
static struct page *_Atomic current_page;
static _Atomic int quit, stale, kicks;
static _Atomic uint64_t looks;
static uint64_t plain_a, plain_b; /* changed only while stopped */

struct guest {
        struct sync_participant part;
        _Atomic int kicked;
        pthread_t thread;
        uint64_t served;     /* own thread */
        unsigned dies_after; /* looks, 0: never */
};

static void fake_kick(void *data)
{
        struct guest *g = data;

        atomic_fetch_add(&kicks, 1);
        atomic_store(&g->kicked, 1);
}

/* "Guest mode" lasts until a kick, like KVM_RUN of a guest that never exits by itself; a lost kick
 * therefore hangs the test. */
static void fake_run(struct guest *g, const struct page *page)
{
        do {
                if (page->poisoned)
                        atomic_fetch_add(&stale, 1);
                atomic_fetch_add(&looks, 1);
                sched_yield();
        } while (!atomic_load(&g->kicked));
}

static void *guest_main(void *data)
{
        struct guest *g = data;
        unsigned entries = 0;

        sync_enter(&g->part);
        while (!atomic_load(&quit)) {
                const struct page *page = atomic_load(&current_page);

                if (plain_a != plain_b)
                        atomic_fetch_add(&stale, 1);
                atomic_store(&g->kicked, 0);
                if (sync_guest_begin(&g->part)) {
                        fake_run(g, page);
                        sync_guest_end(&g->part);
                }
                if (sync_test_clear(&g->part, 3))
                        g->served++;
                if (g->dies_after && ++entries > g->dies_after)
                        break;
                sync_exit(&g->part);
                sync_enter(&g->part);
        }
        sync_leave(&g->part);
        return NULL;
}

static struct guest guests[THREADS];

static void start(unsigned mortal)
{
        sync_domain_init(&domain);
        atomic_store(&quit, 0);
        atomic_store(&stale, 0);
        atomic_store(&current_page, calloc(1, sizeof(struct page)));
        plain_a = plain_b = 0;
        for (unsigned i = 0; i < THREADS; i++) {
                guests[i] = (struct guest){.dies_after = i < mortal ? 20 + i : 0};
                sync_join(&domain, &guests[i].part, fake_kick, &guests[i]);
                assert_int_equal(pthread_create(&guests[i].thread, NULL, guest_main, &guests[i]),
                                 0);
        }
}

static void finish(void)
{
        atomic_store(&quit, 1);
        sync_flush(&domain, NULL);
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(guests[i].thread, NULL);
        assert_null(domain.first);
        sync_domain_fini(&domain);
        free(atomic_load(&current_page));
        assert_int_equal(atomic_load(&stale), 0);
}

static void replace_page(void)
{
        struct page *fresh = calloc(1, sizeof *fresh);
        struct page *old = atomic_exchange(&current_page, fresh);

        sync_flush(&domain, NULL);
        old->poisoned = 1; /* nobody may look at it any more */
        free(old);
}

static void flush_leaves_no_stale_use(void **state)
{
        start(0);
        for (unsigned i = 0; i < ROUNDS; i++)
                replace_page();
        finish();
        assert_true(atomic_load(&looks) > 0);
}

static void stop_keeps_everyone_out(void **state)
{
        start(0);
        for (unsigned i = 0; i < ROUNDS; i++) {
                sync_stop(&domain);
                plain_a++;
                sched_yield();
                for (unsigned k = 0; k < THREADS; k++)
                        assert_int_equal(atomic_load(&guests[k].part.entered), 0);
                plain_b++;
                sync_resume(&domain);
        }
        finish();
}

static void *second_initiator(void *data)
{
        for (unsigned i = 0; i < ROUNDS; i++) {
                if (i % 2) {
                        replace_page();
                        continue;
                }
                sync_stop(&domain);
                plain_a++;
                plain_b++;
                sync_resume(&domain);
        }
        return NULL;
}

static void two_initiators_do_not_deadlock(void **state)
{
        pthread_t other;

        start(0);
        pthread_create(&other, NULL, second_initiator, NULL);
        second_initiator(NULL);
        pthread_join(other, NULL);
        finish();
}

static void nobody_waits_for_the_dead(void **state)
{
        start(THREADS / 2);
        for (unsigned i = 0; i < ROUNDS; i++)
                replace_page();
        finish();
}

static void requests_are_kicked_and_served(void **state)
{
        uint64_t served = 0;

        start(0);
        for (unsigned i = 0; i < ROUNDS; i++)
                sync_request(&guests[i % THREADS].part, 3);
        for (unsigned i = 0; i < THREADS; i++) {
                while (atomic_load(&guests[i].part.requests)) /* a lost kick hangs here */
                        sched_yield();
        }
        finish();
        for (unsigned i = 0; i < THREADS; i++)
                served += guests[i].served;
        assert_true(served >= THREADS);
        assert_true(atomic_load(&kicks) > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(flush_leaves_no_stale_use),
                cmocka_unit_test(stop_keeps_everyone_out),
                cmocka_unit_test(two_initiators_do_not_deadlock),
                cmocka_unit_test(nobody_waits_for_the_dead),
                cmocka_unit_test(requests_are_kicked_and_served),
        };

        return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
