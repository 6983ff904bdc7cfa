/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a vCPU that waits for the baton asks its holder to yield. The clock is the test's own, and
 * stands still but while the waiter sleeps; whatever else is to happen then happens at its time.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "vm/machine.h"

static uint64_t clock_ns;
static int sleep_until(pthread_cond_t *cond, pthread_mutex_t *lock, clockid_t clock,
                       const struct timespec *until);

#define vm_now_ns()            clock_ns
#define pthread_cond_clockwait sleep_until
#include "vm/baton.c"

#define US       1000ull
#define LATENESS (2 * US) /* of whoever sleeps */

static struct sync_domain domain;
static struct vcpu holder, waiter;
static struct baton baton;
static uint64_t wakes_ns, woke_ns, asked_ns;
static bool asked_in_vain;

static bool asked(void)
{
        return atomic_load(&holder.part.requests) & 1ull << VCPU_REQUEST_YIELD;
}

static bool always(struct vcpu *vcpu)
{
        return true;
}

/* The holder wakes up, is in the guest until it is asked to yield, and then drops the baton. */
static int sleep_until(pthread_cond_t *cond, pthread_mutex_t *lock, clockid_t clock,
                       const struct timespec *until)
{
        uint64_t until_ns = (uint64_t)until->tv_sec * 1000000000 + (uint64_t)until->tv_nsec;

        pthread_mutex_unlock(lock);
        if (!woke_ns && wakes_ns <= until_ns) {
                clock_ns = woke_ns = wakes_ns;
                baton_take(&baton, &holder, false, always);
                asked_in_vain = asked();
        }
        if (woke_ns && asked()) {
                asked_ns = clock_ns;
                baton_drop(&baton, &holder);
        } else {
                clock_ns = until_ns + LATENESS;
        }
        pthread_mutex_lock(lock);
        return 0;
}

/* How long the holder was left alone, if it woke up @latency after it had been given the baton. */
static uint64_t turn(bool holder_idle, bool waiter_idle, uint64_t latency)
{
        holder = (struct vcpu){.idle = holder_idle};
        waiter = (struct vcpu){.idle = waiter_idle};
        sync_domain_init(&domain);
        sync_join(&domain, &holder.part, NULL, NULL);
        sync_join(&domain, &waiter.part, NULL, NULL);
        baton_init(&baton);
        clock_ns += 1000 * US;
        wakes_ns = clock_ns + latency;
        woke_ns = asked_ns = 0;

        baton_take(&baton, &waiter, false, always);
        pthread_mutex_lock(&baton.lock);
        enqueue(&baton, &holder);
        pthread_mutex_unlock(&baton.lock);
        sync_request(&holder.part, VCPU_REQUEST_YIELD); /* as the watch asks everyone */
        baton_take(&baton, &waiter, true, always);
        assert_true(baton_held(&baton, &waiter));
        assert_true(woke_ns && asked_ns);
        assert_false(asked_in_vain);
        assert_int_equal(atomic_load(&baton.handovers), 2);

        baton_fini(&baton);
        sync_leave(&holder.part);
        sync_leave(&waiter.part);
        sync_domain_fini(&domain);
        return asked_ns - woke_ns;
}

/* The same for whatever time it takes to wake up: the shortest and the longest. */
static void turns(bool holder_idle, bool waiter_idle, uint64_t *least, uint64_t *most)
{
        static const uint64_t latencies[] = {0,        10 * US,   49 * US,  51 * US,
                                             200 * US, 1100 * US, 9000 * US};

        *least = UINT64_MAX;
        *most = 0;
        for (size_t i = 0; i < sizeof latencies / sizeof latencies[0]; i++) {
                uint64_t ns = turn(holder_idle, waiter_idle, latencies[i]);

                *least = ns < *least ? ns : *least;
                *most = ns > *most ? ns : *most;
        }
}

/* Long enough for KVM to notice an interrupt, and no longer. */
static void a_halted_holder_has_a_short_turn(void **state)
{
        uint64_t least, most;

        turns(true, false, &least, &most);
        assert_in_range(least, 50 * US, 100 * US);
        assert_in_range(most, 50 * US, 100 * US);
        assert_int_equal(atomic_load(&baton.short_turns), 1);
}

static void a_busy_holder_has_a_full_turn(void **state)
{
        uint64_t least, most;

        for (int waiter_idle = 0; waiter_idle < 2; waiter_idle++) {
                turns(false, waiter_idle, &least, &most);
                assert_in_range(least, 1000 * US, 1010 * US);
                assert_in_range(most, 1000 * US, 1010 * US);
                assert_int_equal(atomic_load(&baton.short_turns), 0);
        }
}

static void among_halted_ones_turns_are_full(void **state)
{
        uint64_t least, most;

        turns(true, true, &least, &most);
        assert_in_range(least, 1000 * US, 1010 * US);
        assert_in_range(most, 1000 * US, 1010 * US);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_halted_holder_has_a_short_turn),
                cmocka_unit_test(a_busy_holder_has_a_full_turn),
                cmocka_unit_test(among_halted_ones_turns_are_full),
        };

        return cmocka_run_group_tests_name("baton", tests, NULL, NULL);
}
