/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What sync.h promises, one promise a test. Most of them drive the participants by hand, from one
 * thread, while an initiator waits in another: so each step is where it was meant to be. What
 * participants are told to forget is in test_sync_invalidations.c, what many threads do to each
 * other in test_sync_stress.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "sync/sync.h"

#define PATIENT_MS 20000 /* what ought to happen does so within this */
#define MOMENT_MS  30    /* what ought not to happen would have done so within this */

static struct sync_domain domain;
static _Atomic unsigned kicked;

static void count_kick(void *data)
{
        atomic_fetch_add(&kicked, 1);
        if (data)
                sem_post(data);
}

static int setup(void **state)
{
        atomic_store(&kicked, 0);
        sync_domain_init(&domain);
        return 0;
}

static int teardown(void **state)
{
        while (domain.first) /* participants are static: they outlive their test */
                sync_leave(domain.first);
        sync_domain_fini(&domain);
        return 0;
}

/* --- something that runs in a thread and may have to wait --- */

struct task {
        void (*run)(void *data);
        void *data;
        pthread_t thread;
        _Atomic int done;
};

static void *task_main(void *data)
{
        struct task *t = data;

        t->run(t->data);
        atomic_store(&t->done, 1);
        return NULL;
}

static void task_start(struct task *t, void (*run)(void *data), void *data)
{
        t->run = run;
        t->data = data;
        atomic_store(&t->done, 0);
        assert_int_equal(pthread_create(&t->thread, NULL, task_main, t), 0);
}

static bool task_done(struct task *t, unsigned ms)
{
        for (unsigned i = 0; i < ms && !atomic_load(&t->done); i++)
                usleep(1000);
        return atomic_load(&t->done);
}

/* It comes to an end. One that does not is beyond help: its thread holds what the next test needs.
 */
static void task_join(struct task *t, const char *what)
{
        if (!task_done(t, PATIENT_MS)) {
                print_error("%s: it waits for ever\n", what);
                abort();
        }
        pthread_join(t->thread, NULL);
}

static void run_flush(void *inv)
{
        sync_flush(&domain, inv);
}

static void run_stop(void *data)
{
        sync_stop(&domain);
}

static void wait_for_generation(uint64_t gen)
{
        for (unsigned i = 0; i < PATIENT_MS && atomic_load(&domain.generation) < gen; i++)
                usleep(1000);
        assert_true(atomic_load(&domain.generation) >= gen);
}

/* --- requests and kick --- */

static void kick_once_and_only_in_guest_mode(void **state)
{
        static struct sync_participant p;

        sync_join(&domain, &p, count_kick, NULL);
        sync_request(&p, 1); /* outside */
        sync_enter(&p);
        sync_request(&p, 2); /* inside, not in guest mode */
        assert_int_equal(atomic_load(&kicked), 0);

        assert_false(sync_guest_begin(&p));
        assert_int_equal(atomic_load(&p.mode), SYNC_OUTSIDE_GUEST);
        assert_true(sync_test_clear(&p, 1));
        assert_false(sync_test_clear(&p, 1));
        assert_false(sync_guest_begin(&p)); /* the other one is still there */
        assert_true(sync_test_clear(&p, 2));

        for (unsigned round = 1; round <= 3; round++) {
                assert_true(sync_guest_begin(&p));
                for (unsigned i = 0; i < 10; i++)
                        sync_request(&p, i);
                assert_int_equal(atomic_load(&kicked), round);
                assert_false(sync_kicked(&p));
                sync_guest_end(&p);
                assert_true(sync_kicked(&p));
                assert_false(sync_kicked(&p));
                sync_request(&p, 10);
                assert_int_equal(atomic_load(&kicked), round);
                for (unsigned i = 0; i <= 10; i++)
                        assert_true(sync_test_clear(&p, i));
        }
        assert_int_equal(atomic_load(&domain.counters.kicks), 3);
        sync_exit(&p);
}

static void guest_entry_sees_stop_and_flush(void **state)
{
        static struct sync_participant p, q;
        struct task flush, stop;

        sync_join(&domain, &p, count_kick, NULL);
        sync_enter(&p);
        assert_false(sync_pending(&p));
        task_start(&flush, run_flush, NULL);
        wait_for_generation(2);
        assert_true(sync_pending(&p));
        assert_false(sync_guest_begin(&p));
        sync_exit(&p);
        task_join(&flush, "flush");

        sync_join(&domain, &q, count_kick, NULL);
        sync_enter(&q);
        task_start(&stop, run_stop, NULL);
        wait_for_generation(3);
        assert_true(sync_pending(&q));
        assert_false(sync_guest_begin(&q));
        sync_exit(&q);
        task_join(&stop, "stop");
        sync_resume(&domain);
        sync_enter(&q);
        assert_true(sync_guest_begin(&q));
        assert_int_equal(atomic_load(&kicked), 0);
}

static void nobody_kicks_the_departed(void **state)
{
        static struct sync_participant p, zero;

        sync_join(&domain, &p, count_kick, NULL);
        sync_enter(&p);
        assert_true(sync_guest_begin(&p));
        sync_leave(&p); /* on behalf of a thread that ended there */
        sync_request(&p, 1);
        sync_flush(&domain, NULL);
        assert_int_equal(atomic_load(&kicked), 0);
        sync_leave(&p);
        sync_leave(&zero);

        sync_join(&domain, &p, count_kick, NULL); /* and it starts anew */
        sync_enter(&p);
        assert_true(sync_guest_begin(&p));
        sync_request(&p, 1);
        assert_int_equal(atomic_load(&kicked), 1);
}

static sem_t kick_begun, kick_may_end;

static void slow_kick(void *data)
{
        sem_post(&kick_begun);
        sem_wait(&kick_may_end);
}

/* A flush that is held up in its first kick meets others that have entered anew meanwhile. */
static void flush_kicks_nobody_who_entered_anew(void **state)
{
        static struct sync_participant fresh, slow;
        struct task flush;

        sem_init(&kick_begun, 0, 0);
        sem_init(&kick_may_end, 0, 0);
        sync_join(&domain, &fresh, count_kick, NULL);
        sync_join(&domain, &slow, slow_kick, NULL); /* the last to join is the first in the list */
        sync_enter(&slow);
        assert_true(sync_guest_begin(&slow));
        task_start(&flush, run_flush, NULL);
        sem_wait(&kick_begun);
        sync_enter(&fresh);
        assert_true(sync_guest_begin(&fresh));
        sem_post(&kick_may_end);
        sync_guest_end(&slow);
        sync_exit(&slow);
        task_join(&flush, "flush");
        assert_int_equal(atomic_load(&kicked), 0);
}

static void run_request(void *p)
{
        sync_request(p, 1);
}

static void run_leave(void *p)
{
        sync_leave(p);
}

static void leave_waits_for_a_kick_under_way(void **state)
{
        static struct sync_participant p;
        struct task request, leave;

        sem_init(&kick_begun, 0, 0);
        sem_init(&kick_may_end, 0, 0);
        sync_join(&domain, &p, slow_kick, NULL);
        sync_enter(&p);
        assert_true(sync_guest_begin(&p));
        task_start(&request, run_request, &p);
        sem_wait(&kick_begun);
        task_start(&leave, run_leave, &p);
        assert_false(task_done(&leave, MOMENT_MS));
        sem_post(&kick_may_end);
        task_join(&leave, "leave");
        task_join(&request, "request");
}

/* A vCPU whose guest exits again and again, so that requests meet it at each step of an entry. If
 * one has come when it is in guest mode already, then so has a kick, or it will. */
struct guest {
        struct sync_participant part;
        sem_t kick;
        _Atomic uint64_t served;
};

#define BIT_WORK 3
#define BIT_QUIT 4

static void run_guest(void *data)
{
        struct guest *g = data;
        unsigned round = 0;

        sync_enter(&g->part);
        while (!sync_test_clear(&g->part, BIT_QUIT)) {
                bool taken = false;
                int left;

                if (sync_guest_begin(&g->part)) {
                        if (atomic_load(&g->part.requests) || ++round % 256 == 0) {
                                sem_wait(&g->kick); /* it has come or will come */
                                taken = true;
                        }
                        sync_guest_end(&g->part);
                }
                if (sync_kicked(&g->part) && !taken)
                        sem_wait(&g->kick); /* the same */
                sem_getvalue(&g->kick, &left);
                if (left) {
                        print_error("a kick that sync_kicked() did not tell of\n");
                        abort();
                }
                if (sync_test_clear(&g->part, BIT_WORK))
                        atomic_fetch_add(&g->served, 1);
        }
        sync_leave(&g->part);
}

static void no_kick_is_lost(void **state)
{
        struct guest g = {0};
        struct task task;
        struct timespec start, now;

        sem_init(&g.kick, 0, 0);
        sync_join(&domain, &g.part, count_kick, &g.kick);
        task_start(&task, run_guest, &g);
        for (uint64_t i = 0; i < 100000; i++) {
                sync_request(&g.part, BIT_WORK);
                clock_gettime(CLOCK_MONOTONIC, &start);
                for (unsigned spins = 0; atomic_load(&g.served) == i; spins++) {
                        if (spins < 100)
                                continue;
                        sched_yield();
                        clock_gettime(CLOCK_MONOTONIC, &now);
                        if (now.tv_sec - start.tv_sec > PATIENT_MS / 1000) {
                                print_error("request %lu was never served\n", (unsigned long)i);
                                abort();
                        }
                }
        }
        sync_request(&g.part, BIT_QUIT);
        task_join(&task, "guest");
        assert_true(atomic_load(&kicked) <= 100001);
}

/* --- flush and stop --- */

static void flush_is_content_with_a_new_entry(void **state)
{
        static struct sync_participant old, fresh, again;
        struct task flush;

        sync_join(&domain, &old, count_kick, NULL);
        sync_join(&domain, &fresh, count_kick, NULL);
        sync_join(&domain, &again, count_kick, NULL);
        sync_enter(&old);
        sync_enter(&again);
        task_start(&flush, run_flush, NULL);
        wait_for_generation(2);
        sync_enter(&fresh); /* a flush does not keep anybody out */
        assert_true(sync_guest_begin(&fresh));
        sync_exit(&again);
        sync_enter(&again);
        assert_false(task_done(&flush, MOMENT_MS)); /* `old` may use old translations */
        sync_exit(&old);
        task_join(&flush, "flush");
        assert_int_equal(atomic_load(&kicked), 0); /* `fresh` has nothing to honour */
        assert_true(atomic_load(&fresh.entered) && atomic_load(&again.entered));
}

static void expect_kick(sem_t *kick)
{
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENT_MS / 1000;
        if (sem_timedwait(kick, &until) < 0) {
                print_error("the kick does not come\n");
                abort();
        }
}

static void flush_kicks_the_old_ones_and_waits(void **state)
{
        static struct sync_participant p;
        struct task flush;
        sem_t kick;

        sem_init(&kick, 0, 0);
        sync_join(&domain, &p, count_kick, &kick);
        sync_enter(&p);
        assert_true(sync_guest_begin(&p));
        task_start(&flush, run_flush, NULL);
        expect_kick(&kick);
        sync_guest_end(&p);
        assert_false(task_done(&flush, MOMENT_MS)); /* out of the guest is not out */
        sync_exit(&p);
        task_join(&flush, "flush");
        assert_int_equal(atomic_load(&kicked), 1);
        assert_int_equal(atomic_load(&domain.counters.flushes), 1);
        assert_true(atomic_load(&domain.counters.sleeps) > 0);
}

static void run_enter(void *p)
{
        sync_enter(p);
}

static void stop_lets_all_out_and_nobody_in(void **state)
{
        static struct sync_participant p, q;
        struct task stop, enter;

        sync_join(&domain, &p, NULL, NULL);
        sync_join(&domain, &q, NULL, NULL);
        sync_enter(&p);
        task_start(&stop, run_stop, NULL);
        wait_for_generation(2);
        assert_false(sync_try_enter(&q));
        assert_false(task_done(&stop, MOMENT_MS));
        sync_exit(&p);
        task_join(&stop, "stop");

        assert_false(sync_try_enter(&p));
        task_start(&enter, run_enter, &q);
        assert_false(task_done(&enter, MOMENT_MS));
        sync_flush(&domain, NULL); /* has nobody to wait for */
        sync_resume(&domain);      /* by another thread than the one that stopped */
        task_join(&enter, "enter");
        assert_true(sync_try_enter(&p));
}

static void stop_kicks_all_and_waits(void **state)
{
        static struct sync_participant p, q;
        struct task stop;
        sem_t kick;

        sem_init(&kick, 0, 0);
        sync_join(&domain, &p, count_kick, &kick);
        sync_join(&domain, &q, count_kick, &kick);
        sync_enter(&p);
        sync_enter(&q);
        assert_true(sync_guest_begin(&p));
        assert_true(sync_guest_begin(&q));
        task_start(&stop, run_stop, NULL);
        expect_kick(&kick);
        expect_kick(&kick);
        sync_guest_end(&p);
        sync_exit(&p);
        sync_guest_end(&q);
        assert_false(task_done(&stop, MOMENT_MS));
        sync_exit(&q);
        task_join(&stop, "stop");
        assert_int_equal(atomic_load(&kicked), 2);
}

struct stopper {
        unsigned number;
        struct task task;
};

static _Atomic unsigned granted;

static void run_stopper(void *data)
{
        struct stopper *s = data;

        sync_stop(&domain);
        s->number = atomic_fetch_add(&granted, 1);
        sync_resume(&domain);
}

static void stops_take_turns_in_order(void **state)
{
        struct stopper s[8];

        atomic_store(&granted, 0);
        sync_stop(&domain);
        for (unsigned i = 0; i < 8; i++) {
                task_start(&s[i].task, run_stopper, &s[i]);
                while (atomic_load(&domain.next_turn) != i + 2)
                        usleep(100);
        }
        assert_int_equal(atomic_load(&granted), 0);
        sync_resume(&domain);
        for (unsigned i = 0; i < 8; i++) {
                task_join(&s[i].task, "stop");
                assert_int_equal(s[i].number, i);
        }
}

static void run_initiating_participant(void *data)
{
        struct sync_participant *p = data;
        struct sync_taken taken;

        for (unsigned i = 0; i < 2000; i++) {
                sync_enter(p);
                sync_take(p, &taken);
                sync_exit(p);
                if (i % 2) {
                        sync_flush(&domain, &(struct sync_invalidation){.kinds = SYNC_CURRENT});
                } else {
                        sync_stop(&domain);
                        sync_post(&domain, &(struct sync_invalidation){.kinds = SYNC_GUEST});
                        sync_resume(&domain);
                }
        }
}

static void initiating_participants_do_not_deadlock(void **state)
{
        static struct sync_participant p[3];
        struct task tasks[3];

        for (unsigned i = 0; i < 3; i++) {
                sync_join(&domain, &p[i], NULL, NULL);
                task_start(&tasks[i], run_initiating_participant, &p[i]);
        }
        for (unsigned i = 0; i < 3; i++)
                task_join(&tasks[i], "initiator");
}

static void *die_inside(void *data)
{
        struct sync_participant *p = data;

        sync_enter(p);
        assert_true(sync_guest_begin(p));
        return NULL;
}

static void who_joins_the_dead_leaves_for_it(void **state)
{
        static struct sync_participant p;
        struct task flush;
        pthread_t thread;

        sync_join(&domain, &p, count_kick, NULL);
        pthread_create(&thread, NULL, die_inside, &p);
        while (atomic_load(&p.mode) != SYNC_IN_GUEST)
                usleep(100);
        task_start(&flush, run_flush, NULL);
        assert_false(task_done(&flush, MOMENT_MS));
        pthread_join(thread, NULL);
        sync_leave(&p);
        task_join(&flush, "flush");
}

/* --- I/O in flight --- */

static void stop_drains_io_in_flight(void **state)
{
        static struct sync_participant vcpu, io, more;
        struct task stop, flush;

        sync_join(&domain, &vcpu, NULL, NULL);
        sync_join(&domain, &io, NULL, NULL);
        sync_join(&domain, &more, NULL, NULL);
        sync_enter(&vcpu);
        sync_lend(&vcpu, &io);
        sync_exit(&vcpu);
        task_start(&stop, run_stop, NULL);
        wait_for_generation(2);
        assert_false(task_done(&stop, MOMENT_MS));
        sync_lend(&io, &more); /* it needs one more step, although the stop has begun */
        sync_exit(&io);
        assert_false(task_done(&stop, MOMENT_MS));
        sync_exit(&more);
        task_join(&stop, "stop");
        sync_resume(&domain);

        sync_enter(&vcpu);
        task_start(&flush, run_flush, NULL);
        wait_for_generation(3);
        sync_lend(&vcpu, &io); /* with the generation of the vCPU, which is old */
        sync_exit(&vcpu);
        sync_enter(&vcpu);
        assert_false(task_done(&flush, MOMENT_MS));
        sync_exit(&io);
        task_join(&flush, "flush");
}

/* Found by the model: a stop begins between the two looks of one that enters, which is then inside
 * with the stop's own generation. What it lends must be counted, or the stop, which has looked at
 * the I/O already, misses it. */
static void io_lent_with_the_generation_of_a_stop_is_counted(void **state)
{
        static struct sync_participant vcpu, io;
        struct task stop;

        sync_join(&domain, &vcpu, NULL, NULL);
        sync_join(&domain, &io, NULL, NULL);
        sync_enter(&vcpu);
        task_start(&stop, run_stop, NULL);
        wait_for_generation(2);
        atomic_store(&vcpu.entered, 2 | (atomic_load(&vcpu.entered) & SYNC_AWAITED));
        sync_lend(&vcpu, &io);
        assert_int_equal(atomic_load(&domain.lent), 1);
        sync_exit(&vcpu);
        assert_false(task_done(&stop, MOMENT_MS));
        sync_exit(&io);
        task_join(&stop, "stop");
        sync_resume(&domain);
}

/* A chain of I/O that hands itself on, older than any flush that comes: no look may miss it. */
static struct sync_participant links[2];
static _Atomic int link_quit;
static int link_busy; /* plain: the barrier protects it */

static void run_links(void *data)
{
        struct sync_participant *vcpu = data;

        while (!atomic_load(&link_quit)) {
                unsigned at = 0;

                sync_enter(vcpu);
                link_busy = 1;
                sync_lend(vcpu, &links[0]);
                sync_exit(vcpu);
                for (unsigned i = 0; i < 8; i++, at ^= 1) {
                        sync_lend(&links[at], &links[at ^ 1]);
                        sync_exit(&links[at]);
                }
                link_busy = 0;
                sync_exit(&links[at]);
        }
}

static void no_look_misses_what_is_handed_on(void **state)
{
        static struct sync_participant vcpu;
        struct task task;

        atomic_store(&link_quit, 0);
        sync_join(&domain, &links[0], NULL, NULL);
        sync_join(&domain, &vcpu, NULL, NULL);
        sync_join(&domain, &links[1], NULL, NULL);
        task_start(&task, run_links, &vcpu);
        for (unsigned i = 0; i < 20000; i++) {
                sync_stop(&domain);
                assert_int_equal(link_busy, 0);
                sync_resume(&domain);
                if (i % 8 == 0)
                        sched_yield();
        }
        atomic_store(&link_quit, 1);
        task_join(&task, "links");
}

static void run_exit(void *p)
{
        sync_exit(p);
}

static void nobody_looks_at_one_that_is_out(void **state)
{
        for (unsigned i = 0; i < 500; i++) { /* AddressSanitizer and TSan look at this one */
                struct sync_participant vcpu = {0}, *io = calloc(1, sizeof *io);
                struct task task;

                sync_join(&domain, &vcpu, NULL, NULL);
                sync_join(&domain, io, NULL, NULL);
                sync_enter(&vcpu);
                sync_lend(&vcpu, io);
                sync_exit(&vcpu);
                task_start(&task, run_exit, io);
                sync_stop(&domain);
                sync_leave(io);
                memset(io, 0xff, sizeof *io);
                free(io);
                sync_resume(&domain);
                task_join(&task, "exit");
                sync_leave(&vcpu);
        }
}

/* --- fairness --- */

static _Atomic int storm_quit;

static void run_flush_storm(void *data)
{
        while (!atomic_load(&storm_quit))
                sync_flush(&domain, NULL);
}

static void run_stop_storm(void *data)
{
        while (!atomic_load(&storm_quit)) {
                sync_stop(&domain);
                usleep(20);
                sync_resume(&domain);
        }
}

/* Between its entry and guest mode this vCPU needs longer than a flush takes: without somebody's
 * patience it would never get there. */
static void a_storm_of_flushes_lets_vcpus_run(void **state)
{
        static struct sync_participant p;
        struct task storm;
        unsigned refused = 0, entries = 0;

        atomic_store(&storm_quit, 0);
        sync_join(&domain, &p, count_kick, NULL);
        task_start(&storm, run_flush_storm, NULL);
        while (refused < 2000 && (refused < 100 || entries < 20)) {
                sync_enter(&p);
                usleep(100);
                if (sync_guest_begin(&p)) {
                        sync_guest_end(&p);
                        entries++;
                } else {
                        refused++;
                }
                sync_exit(&p);
        }
        atomic_store(&storm_quit, 1);
        task_join(&storm, "storm");
        assert_true(refused < 2000);
        assert_true(atomic_load(&domain.counters.graces) > 0);
        print_message("# %u refusals for %u entries\n", refused, entries);
}

static void alternating_stops_let_others_in(void **state)
{
        static struct sync_participant p;
        struct task storm[2];
        struct timespec start, now;
        uint64_t stops;

        atomic_store(&storm_quit, 0);
        sync_join(&domain, &p, NULL, NULL);
        for (unsigned i = 0; i < 2; i++)
                task_start(&storm[i], run_stop_storm, NULL);
        while (atomic_load(&domain.counters.stops) < 100)
                usleep(100);
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (unsigned i = 0; i < 200; i++) {
                while (!atomic_load(&domain.stopped))
                        ;
                sync_enter(&p);
                sync_exit(&p);
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
        stops = atomic_load(&domain.counters.stops);
        atomic_store(&storm_quit, 1);
        for (unsigned i = 0; i < 2; i++)
                task_join(&storm[i], "storm");
        print_message("# %lu stops for 200 entries, %ld ms\n", (unsigned long)stops,
                      (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000);
        assert_true(stops < 200 * 1000);
        assert_int_equal(atomic_load(&domain.owed), 0);
}

/* What is owed to one that does not come is forgiven, also when it has left. */
static void grace_ends(void **state)
{
        static struct sync_participant p, q;
        struct task flush;

        sync_join(&domain, &p, count_kick, NULL);
        sync_join(&domain, &q, count_kick, NULL);
        sync_enter(&p);
        for (unsigned i = 0; i < SYNC_PATIENCE; i++) {
                assert_int_equal(atomic_load(&domain.owed), 0);
                task_start(&flush, run_flush, NULL);
                wait_for_generation(i + 2);
                assert_false(sync_guest_begin(&p));
                sync_exit(&p);
                task_join(&flush, "flush");
                sync_enter(&p);
        }
        sync_exit(&p);
        assert_int_equal(atomic_load(&domain.owed), 1);
        sync_flush(&domain, NULL);
        assert_int_equal(atomic_load(&domain.counters.graces), 1);
        assert_int_equal(atomic_load(&domain.owed), 0);
        sync_flush(&domain, NULL);
        assert_int_equal(atomic_load(&domain.counters.graces), 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(kick_once_and_only_in_guest_mode),
                CASE(guest_entry_sees_stop_and_flush),
                CASE(nobody_kicks_the_departed),
                CASE(leave_waits_for_a_kick_under_way),
                CASE(no_kick_is_lost),
                CASE(flush_is_content_with_a_new_entry),
                CASE(flush_kicks_the_old_ones_and_waits),
                CASE(flush_kicks_nobody_who_entered_anew),
                CASE(stop_lets_all_out_and_nobody_in),
                CASE(stop_kicks_all_and_waits),
                CASE(stops_take_turns_in_order),
                CASE(initiating_participants_do_not_deadlock),
                CASE(who_joins_the_dead_leaves_for_it),
                CASE(stop_drains_io_in_flight),
                CASE(io_lent_with_the_generation_of_a_stop_is_counted),
                CASE(no_look_misses_what_is_handed_on),
                CASE(nobody_looks_at_one_that_is_out),
                CASE(a_storm_of_flushes_lets_vcpus_run),
                CASE(alternating_stops_let_others_in),
                CASE(grace_ends),
        };

        return cmocka_run_group_tests_name("sync", tests, NULL, NULL);
}
