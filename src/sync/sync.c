/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation barrier. What must hold: when sync_flush() or sync_stop() returns, no participant
 * uses a translation that it read before the call; and who enters later sees what was changed and
 * posted before it.
 *
 * All atomics are sequentially consistent, but the counters. The argument is C11's: the operations
 * named below are in one total order S, which agrees with each thread's program order. Pairs (A),
 * (B) and (D) have Dekker's shape: each side writes its own word, then reads the other's, so that
 * at least one of the two sees the other.
 *
 *   (A) enter / change
 *         participant   entered = gen       then reads   stopped, generation
 *         initiator     stopped = 1,        then reads   entered
 *                       generation++
 *       If the initiator reads `entered` as it was before, then that read comes first in S, so the
 *       participant reads the new `stopped` and goes back, or the new `generation`. Reading the
 *       latter is what makes the initiator's change and posts visible to it (the increment
 *       releases, the read acquires); therefore it reads it even if it has one already.
 *
 *   (B) guest entry / kick                                                        (kick.c)
 *         participant   mode = IN_GUEST     then reads   requests, stopped, generation
 *         requester     requests |= bit,    then reads   mode
 *                       or as in (A)
 *       Either the participant does not enter guest mode, or the requester kicks it.
 *
 *   (C) exit / wait
 *         participant   xchg(entered, 0), and if AWAITED was in it:   left++, wake
 *         initiator     reads left; cas(entered, e, e | AWAITED); sleeps if left is the same
 *       Both change one word. If the exchange comes first, the initiator sees it outside. If the
 *       compare-and-swap does, the participant increments `left` after the initiator has read it.
 *       What the participant did inside happens before what the initiator does after its wait
 *       (the exchange releases, the initiator's read acquires). No exit has a system call unless
 *       somebody sleeps for that participant.
 *
 *   (D) lend / look
 *         lender        io.entered = gen    then reads   stopped, generation; lent++ if it is
 *                                                        stopped, or if gen is not the newest
 *         initiator     stopped = 1,        then reads   io.entered
 *                       generation++
 *       An initiator that has looked at @io before it was lent to, and at the lender after it left,
 *       would miss both. If the lender reads the words as they were before the initiator's change,
 *       each look comes after io.entered in S. If not, it increments `lent` before it can leave:
 *       who sees it outside finds `lent` changed since before its look at @io, and looks at
 *       everyone again. The generation alone does not tell of a stop: a lender that was about to
 *       enter when the stop began may be inside with the stop's own generation.
 *
 *   (E) stop / stop
 *         waiter        next_turn++         then reads   turn
 *         owner         turn++              then reads   next_turn
 *       Either the waiter sees its turn, or the owner sees the waiter and wakes it.
 *
 * `entered` may lag behind `generation`, if that changes while a participant enters: it is then
 * like one that had been inside already. That costs a look or a kick, never safety, and an entry
 * has no loop that a storm of flushes could keep going.
 *
 * 63 bits of a generation last 290 years at a flush a nanosecond.
 *
 * The Promela model of this file and kick.c is tests/model.
 */
#include "base/spin.h"
#include "sync/internal.h"

#define SPINS 20 /* looks, about a microsecond: an I/O worker uses memory for less than that */

/* --- participants --- */

void sync_domain_init(struct sync_domain *d)
{
        static _Atomic uint64_t last_id;

        *d = (struct sync_domain){.id = atomic_fetch_add(&last_id, 1) + 1, .generation = 1};
        pthread_mutex_init(&d->list_lock, NULL);
}

void sync_domain_fini(struct sync_domain *d)
{
        pthread_mutex_destroy(&d->list_lock);
}

void sync_join(struct sync_domain *d, struct sync_participant *p, void (*kick)(void *data),
               void *kick_data)
{
        *p = (struct sync_participant){
                .domain = d, .kick = kick, .kick_data = kick_data, .joined = 1};
        pthread_mutex_init(&p->fifo_lock, NULL);
        pthread_mutex_lock(&d->list_lock);
        p->next = d->first;
        if (d->first)
                d->first->prev = p;
        TRACED_STORE(EV_JOIN, p, 0, d->first = p);
        pthread_mutex_unlock(&d->list_lock);
}

/* (C). @p may be gone as soon as it is seen to be outside. */
static void set_entered(struct sync_participant *p, uint64_t gen)
{
        struct sync_domain *d = p->domain;

        if (TRACED_AS(EV_SET_ENTERED, TRACE_ID(p), TRACE_ID(p), 2 * gen + (v_ >> 63),
                      atomic_exchange(&p->entered, gen)) &
            SYNC_AWAITED) {
                TRACED_AS(EV_LEFT_BUMP, 0, 0, 0, atomic_fetch_add(&d->left, 1));
                sync_futex_wake_all(&d->left);
        }
}

void sync_leave(struct sync_participant *p)
{
        struct sync_domain *d = p->domain;

        if (!TRACED(EV_LEAVE, p, atomic_exchange(&p->joined, 0)))
                return;
        pthread_mutex_lock(&d->list_lock); /* a kick that has begun ends first */
        if (p->prev)
                p->prev->next = p->next;
        else
                d->first = p->next;
        if (p->next)
                p->next->prev = p->prev;
        TRACED_STORE(EV_UNLIST, p, 0, atomic_store(&p->mode, SYNC_OUTSIDE_GUEST));
        pthread_mutex_unlock(&d->list_lock);
        sync_admitted(p);
        set_entered(p, 0);
        pthread_mutex_destroy(&p->fifo_lock);
}

bool sync_try_enter(struct sync_participant *p)
{
        struct sync_domain *d = p->domain;
        uint64_t gen = TRACED(EV_ENTER_GEN, p, atomic_load(&d->generation)), now;

        TRACED_STORE(EV_ENTER_STORE, p, gen, atomic_store(&p->entered, gen)); /* (A) */
        if (TRACED(EV_ENTER_CHECK_STOPPED, p, atomic_load(&d->stopped))) {
                set_entered(p, 0);
                return false;
        }
        now = TRACED(EV_ENTER_CHECK_GEN, p, atomic_load(&d->generation));
        if (now != gen)
                set_entered(p, now); /* it has used nothing yet */
        return true;
}

void sync_enter(struct sync_participant *p)
{
        struct sync_domain *d = p->domain;
        unsigned refused = 0;

        while (TRACED(EV_ENTER_STOPPED, p, atomic_load(&d->stopped)) || !sync_try_enter(p)) {
                uint32_t one = 1;

                sync_refused(p, ++refused);
                TRACED(EV_MARK_STOPPED, p, atomic_compare_exchange_strong(&d->stopped, &one, 2));
                sync_futex_wait(&d->stopped, 2, NULL);
        }
        if (refused >= SYNC_PATIENCE)
                sync_admitted(p);
}

void sync_exit(struct sync_participant *p)
{
        set_entered(p, 0);
}

void sync_lend(const struct sync_participant *from, struct sync_participant *io)
{
        struct sync_domain *d = from->domain;
        uint64_t gen = sync_entered(from);

        TRACED_DO(EV_LEND_STORE, TRACE_ID(from), TRACE_ID(io), gen,
                  atomic_store(&io->entered, gen)); /* (D) */
        if (TRACED(EV_LEND_STOPPED, from, atomic_load(&d->stopped)) ||
            TRACED(EV_LEND_GEN, from, atomic_load(&d->generation)) != gen)
                TRACED_AS(EV_LEND_COUNT, TRACE_ID(from), TRACE_ID(from), 0,
                          atomic_fetch_add(&d->lent, 1));
}

bool sync_same_generation(const struct sync_participant *io, const struct sync_participant *p)
{
        return sync_entered(io) == sync_entered(p);
}

/* --- initiators --- */

/* Is @p inside with a generation below @upto? If so, and @sleep, have it wake us. */
static bool awaited(struct sync_participant *p, uint64_t upto, bool sleep)
{
        uint64_t e = TRACED_ON(EV_SCAN, p, 2 * v_ + (v_ >> 63), atomic_load(&p->entered));

        while ((e & ~SYNC_AWAITED) != 0 && (e & ~SYNC_AWAITED) < upto) {
                if (!sleep || (e & SYNC_AWAITED) ||
                    TRACED_ON(v_ ? EV_AWAIT : EV_AWAIT_FAILED, p, 2 * e + (e >> 63),
                              atomic_compare_exchange_weak(&p->entered, &e,
                                                           e | SYNC_AWAITED))) /* (C) */
                        return true;
        }
        return false;
}

static bool somebody_inside(struct sync_domain *d, uint64_t upto, bool sleep)
{
        bool inside = false;
        uint64_t lent;

        pthread_mutex_lock(&d->list_lock);
        do {
                lent = TRACED_BY_ME(EV_SCAN_LENT, 0, atomic_load(&d->lent)); /* (D) */
                for (struct sync_participant *p = d->first; p && !inside; p = p->next)
                        inside = awaited(p, upto, sleep);
        } while (!inside &&
                 TRACED_BY_ME(EV_SCAN_LENT_AGAIN, v_ != lent, atomic_load(&d->lent)) != lent);
        pthread_mutex_unlock(&d->list_lock);
        return inside;
}

/* A vCPU that has been kicked needs several microseconds, and often the very processor that we are
 * on: spinning would cost more than it saves (twice the time, measured with as many vCPUs as there
 * are processors to spare). So it is for those that are about to leave by themselves. */
static void wait_until_left(struct sync_domain *d, uint64_t upto, bool kicked)
{
        if (RAMET_TOOTH_NO_WAIT)
                return;
        for (unsigned i = 0; i < SPINS && !kicked; i++) {
                if (!somebody_inside(d, upto, false))
                        return;
                sync_count(&d->counters.spins);
                spin_pause();
        }
        for (;;) {
                uint32_t left = TRACED_BY_ME(EV_READ_LEFT, 0, atomic_load(&d->left)); /* (C) */

                if (!somebody_inside(d, upto, true))
                        return;
                sync_count(&d->counters.sleeps);
                sync_futex_wait(&d->left, left, NULL);
        }
}

void sync_flush(struct sync_domain *d, const struct sync_invalidation *inv)
{
        bool kicked;
        uint64_t gen;

        sync_count(&d->counters.flushes);
        sync_grace(d);
        pthread_mutex_lock(&d->list_lock);
        if (inv)
                sync_post_locked(d, inv);
        gen = TRACED_BY_ME(EV_BUMP, v_ + 1, atomic_fetch_add(&d->generation, 1)) + 1; /* (A) */
        kicked = sync_kick_all_locked(d, gen);
        pthread_mutex_unlock(&d->list_lock);
        wait_until_left(d, gen, kicked);
}

static void take_turn(struct sync_domain *d)
{
        uint32_t mine = TRACED_BY_ME(EV_DRAW_TURN, v_, atomic_fetch_add(&d->next_turn, 1)),
                 turn; /* (E) */

        while ((turn = TRACED_BY_ME(EV_READ_TURN, v_, atomic_load(&d->turn))) != mine)
                sync_futex_wait(&d->turn, turn, NULL);
}

static void end_turn(struct sync_domain *d)
{
        uint32_t next =
                TRACED_BY_ME(EV_END_TURN, v_ + 1, atomic_fetch_add(&d->turn, 1)) + 1; /* (E) */

        if (atomic_load(&d->next_turn) != next)
                sync_futex_wake_all(&d->turn);
}

void sync_stop(struct sync_domain *d)
{
        bool kicked;

        sync_count(&d->counters.stops);
        take_turn(d);
        sync_grace(d);
        TRACED_DO(EV_STOP, TRACE_ME(), 0, 1, atomic_store(&d->stopped, 1)); /* (A) */
        pthread_mutex_lock(&d->list_lock);
        TRACED_BY_ME(EV_BUMP, v_ + 1,
                     atomic_fetch_add(&d->generation, 1)); /* (D), and a stop is a flush, too */
        kicked = sync_kick_all_locked(d, UINT64_MAX);
        pthread_mutex_unlock(&d->list_lock);
        wait_until_left(d, UINT64_MAX, kicked);
}

void sync_post(struct sync_domain *d, const struct sync_invalidation *inv)
{
        pthread_mutex_lock(&d->list_lock);
        sync_post_locked(d, inv);
        pthread_mutex_unlock(&d->list_lock);
}

void sync_resume(struct sync_domain *d)
{
        if (TRACED_BY_ME(EV_RESUME, v_, atomic_exchange(&d->stopped, 0)) == 2)
                sync_futex_wake_all(&d->stopped);
        end_turn(d);
}
