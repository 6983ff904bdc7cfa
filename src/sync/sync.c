/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation barrier. What must hold: when sync_flush() or sync_stop() returns, no participant
 * uses a translation that it read before the call.
 *
 * Every argument below is of one shape, Dekker's: each side publishes its own word with a
 * sequentially consistent store and then reads the other side's word, so that at least one of the
 * two sees the other. The pairs:
 *
 *   (A) enter vs. stop        participant: entered = gen;      then reads stopped, generation
 *                             initiator:   stopped = 1 / generation++;  then reads entered
 *       Either the participant sees the change and goes back out, or the initiator sees it inside
 *       and waits for it.
 *   (B) guest_begin vs. kick  participant: mode = IN_GUEST;    then reads requests, stopped,
 * generation requester:   the request;         then reads mode Either the participant sees the
 * request and does not enter, or the requester sees IN_GUEST and kicks. A kick between the check
 * and KVM_RUN is not lost either: its signal handler sets immediate_exit, which was cleared before
 * (B). (C) exit vs. wait         participant: entered = 0;         then reads waiting initiator:
 * waiting++;           then reads entered Either the participant wakes the initiator, or the
 * initiator sees it outside. The futex word `left` is read before `entered`, so that a wake-up
 * between the two is not slept through.
 *
 * IN_GUEST -> EXITING is a compare-and-swap, so that of many requesters one sends the signal.
 * The 64-bit generation never wraps: at one flush a nanosecond it lasts 580 years.
 */
#include "sync/sync.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPINS 200 /* a participant that is about to leave does so within a microsecond */

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void cpu_relax(void)
{
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
}

void sync_domain_init(struct sync_domain *d)
{
        static _Atomic uint64_t last_id;

        *d = (struct sync_domain){.id = atomic_fetch_add(&last_id, 1) + 1};
        pthread_mutex_init(&d->list_lock, NULL);
        pthread_mutex_init(&d->owner_lock, NULL);
        atomic_store(&d->generation, 1);
}

void sync_domain_fini(struct sync_domain *d)
{
        pthread_mutex_destroy(&d->list_lock);
        pthread_mutex_destroy(&d->owner_lock);
}

void sync_join(struct sync_domain *d, struct sync_participant *p, void (*kick)(void *data),
               void *kick_data)
{
        *p = (struct sync_participant){.domain = d, .kick = kick, .kick_data = kick_data};
        pthread_mutex_init(&p->fifo_lock, NULL);
        pthread_mutex_lock(&d->list_lock);
        p->next = d->first;
        if (d->first)
                d->first->prev = p;
        d->first = p;
        pthread_mutex_unlock(&d->list_lock);
}

/* (C): whoever waits for somebody to leave looks again. */
static void announce_left(struct sync_domain *d)
{
        if (atomic_load(&d->waiting) == 0)
                return;
        atomic_fetch_add(&d->left, 1);
        futex_wake_all(&d->left);
}

void sync_leave(struct sync_participant *p)
{
        struct sync_domain *d = p->domain;

        if (!d)
                return;
        atomic_store(&p->entered, 0);
        announce_left(d);
        pthread_mutex_lock(&d->list_lock);
        if (p->prev)
                p->prev->next = p->next;
        else
                d->first = p->next;
        if (p->next)
                p->next->prev = p->prev;
        pthread_mutex_unlock(&d->list_lock);
        pthread_mutex_destroy(&p->fifo_lock);
        p->domain = NULL;
}

void sync_enter(struct sync_participant *p)
{
        struct sync_domain *d = p->domain;

        for (;;) {
                uint64_t gen = atomic_load(&d->generation);

                while (atomic_load(&d->stopped))
                        futex_wait(&d->stopped, 1);
                atomic_store(&p->entered, gen); /* (A) */
                if (!atomic_load(&d->stopped) && atomic_load(&d->generation) == gen)
                        break;
                atomic_store(&p->entered, 0);
                announce_left(d);
        }
        announce_left(d); /* a flush is content with a new generation, too */
}

bool sync_try_enter(struct sync_participant *p)
{
        struct sync_domain *d = p->domain;
        uint64_t gen = atomic_load(&d->generation);

        if (atomic_load(&d->stopped))
                return false;
        atomic_store(&p->entered, gen); /* (A) */
        if (!atomic_load(&d->stopped) && atomic_load(&d->generation) == gen)
                return true;
        sync_exit(p);
        return false;
}

/* (D): a scan that saw @io outside, just before this, and @from outside, just after, looks again.
 */
void sync_lend(const struct sync_participant *from, struct sync_participant *io)
{
        atomic_store(&io->entered, atomic_load(&from->entered));
        atomic_fetch_add(&from->domain->lent, 1);
}

void sync_exit(struct sync_participant *p)
{
        atomic_store(&p->entered, 0); /* (C) */
        announce_left(p->domain);
}

/* --- invalidations --- */

/* A FIFO that is full is worth less than forgetting everything: from then on, until that has been
 * taken, ranges are not recorded. */
static void post_to(struct sync_participant *p, const struct sync_invalidation *inv)
{
        pthread_mutex_lock(&p->fifo_lock);
        p->kinds |= inv->kinds;
        if (inv->kinds & SYNC_CURRENT)
                p->nranges = 0;
        for (unsigned i = 0; i < inv->nranges && !(p->kinds & SYNC_CURRENT) && !p->overflowed;
             i++) {
                if (p->nranges == SYNC_FIFO) {
                        p->overflowed = true;
                        p->kinds |= SYNC_CURRENT;
                        p->nranges = 0;
                        atomic_fetch_add(&p->domain->overflows, 1);
                        break;
                }
                p->fifo[p->nranges++] = inv->ranges[i];
        }
        atomic_store(&p->posted, p->kinds || p->nranges);
        pthread_mutex_unlock(&p->fifo_lock);
}

bool sync_take(struct sync_participant *p, struct sync_taken *taken)
{
        if (!atomic_load(&p->posted))
                return false;
        pthread_mutex_lock(&p->fifo_lock);
        taken->kinds = p->kinds;
        taken->nranges = p->nranges;
        memcpy(taken->ranges, p->fifo, p->nranges * sizeof p->fifo[0]);
        p->kinds = 0;
        p->nranges = 0;
        p->overflowed = false;
        atomic_store(&p->posted, 0);
        pthread_mutex_unlock(&p->fifo_lock);
        return true;
}

bool sync_serve(struct sync_served *served, const struct sync_domain *d)
{
        if (served->domain_id == d->id)
                return false;
        served->domain_id = d->id;
        return true;
}

bool sync_pending(const struct sync_participant *p)
{
        const struct sync_domain *d = p->domain;

        return atomic_load(&p->requests) || atomic_load(&d->stopped) ||
               atomic_load(&d->generation) != atomic_load(&p->entered);
}

bool sync_guest_begin(struct sync_participant *p)
{
        atomic_store(&p->mode, SYNC_IN_GUEST); /* (B) */
        if (!sync_pending(p))
                return true;
        atomic_store(&p->mode, SYNC_OUTSIDE_GUEST);
        return false;
}

void sync_guest_end(struct sync_participant *p)
{
        atomic_store(&p->mode, SYNC_OUTSIDE_GUEST);
}

static void kick(struct sync_participant *p)
{
        uint32_t in_guest = SYNC_IN_GUEST;

        if (!atomic_compare_exchange_strong(&p->mode, &in_guest, SYNC_EXITING)) /* (B) */
                return;
        atomic_fetch_add(&p->domain->kicks, 1);
        p->kick(p->kick_data);
}

void sync_request(struct sync_participant *p, unsigned request)
{
        atomic_fetch_or(&p->requests, 1ull << request);
        kick(p);
}

bool sync_test_clear(struct sync_participant *p, unsigned request)
{
        uint64_t bit = 1ull << request;

        if (!(atomic_load(&p->requests) & bit))
                return false;
        return atomic_fetch_and(&p->requests, ~bit) & bit;
}

/* True when somebody may still use what was before @gen (0: when somebody is inside at all). */
static bool somebody_inside(struct sync_domain *d, uint64_t gen)
{
        bool inside = false;
        uint64_t lent;

        pthread_mutex_lock(&d->list_lock);
        do {
                lent = atomic_load(&d->lent); /* (D) */
                for (struct sync_participant *p = d->first; p && !inside; p = p->next) {
                        uint64_t entered = atomic_load(&p->entered);

                        inside = entered != 0 && (gen == 0 || entered < gen);
                }
        } while (!inside && atomic_load(&d->lent) != lent);
        pthread_mutex_unlock(&d->list_lock);
        return inside;
}

static void kick_all(struct sync_domain *d)
{
        pthread_mutex_lock(&d->list_lock);
        for (struct sync_participant *p = d->first; p; p = p->next)
                kick(p);
        pthread_mutex_unlock(&d->list_lock);
}

static void wait_until_left(struct sync_domain *d, uint64_t gen)
{
        for (unsigned i = 0; i < SPINS; i++) {
                if (!somebody_inside(d, gen))
                        return;
                cpu_relax();
        }
        atomic_fetch_add(&d->waiting, 1); /* (C) */
        for (;;) {
                uint32_t left = atomic_load(&d->left);

                if (!somebody_inside(d, gen))
                        break;
                futex_wait(&d->left, left);
        }
        atomic_fetch_sub(&d->waiting, 1);
}

void sync_post(struct sync_domain *d, const struct sync_invalidation *inv)
{
        pthread_mutex_lock(&d->list_lock);
        for (struct sync_participant *p = d->first; p; p = p->next)
                post_to(p, inv);
        pthread_mutex_unlock(&d->list_lock);
}

void sync_flush(struct sync_domain *d, const struct sync_invalidation *inv)
{
        uint64_t gen;

        if (inv)
                sync_post(d, inv);
        gen = atomic_fetch_add(&d->generation, 1) + 1; /* (A), (B) */

        kick_all(d);
        wait_until_left(d, gen);
}

void sync_stop(struct sync_domain *d)
{
        pthread_mutex_lock(&d->owner_lock);
        atomic_store(&d->stopped, 1); /* (A), (B) */
        atomic_fetch_add(&d->generation, 1);
        kick_all(d);
        wait_until_left(d, 0);
}

void sync_resume(struct sync_domain *d)
{
        atomic_store(&d->stopped, 0);
        futex_wake_all(&d->stopped);
        pthread_mutex_unlock(&d->owner_lock);
}
