/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fairness to participants. Initiators that follow one another closely can keep one out for ever:
 * of a stop it hears when the next one is in force, of a flush when it is about to enter guest mode
 * and must go back. So one that was refused SYNC_PATIENCE times in a row is owed an entry, and an
 * initiator waits for it before it closes the door.
 *
 * That wait is short and bounded. What the participant is doing meanwhile is unknown here: it may
 * never come back, or wait for this very initiator. After SYNC_GRACE_NS all debts are forgiven.
 * Nothing else depends on this file: the barrier is right without it.
 */
#include "sync/internal.h"

#include "base/clock.h"

void sync_refused(struct sync_participant *p, unsigned times)
{
        if (times < SYNC_PATIENCE || atomic_load(&p->owed))
                return;
        atomic_fetch_add(&p->domain->owed, 1); /* first, so that it never falls below 0 */
        atomic_store(&p->owed, 1);
}

static void forgive(struct sync_participant *p)
{
        if (!atomic_load(&p->owed) || !atomic_exchange(&p->owed, 0))
                return;
        if (atomic_fetch_sub(&p->domain->owed, 1) == 1)
                sync_futex_wake_all(&p->domain->owed);
}

void sync_admitted(struct sync_participant *p)
{
        forgive(p);
}

void sync_grace(struct sync_domain *d)
{
        uint64_t end, now;
        uint32_t owed;

        if (atomic_load(&d->owed) == 0 || atomic_load(&d->stopped))
                return; /* nobody gets in now */
        sync_count(&d->counters.graces);
        now = clock_now_ns();
        for (end = now + SYNC_GRACE_NS; now < end; now = clock_now_ns()) {
                struct timespec rest = {.tv_nsec = (long)(end - now)};

                owed = atomic_load(&d->owed);
                if (owed == 0)
                        return;
                sync_futex_wait(&d->owed, owed, &rest);
        }
        pthread_mutex_lock(&d->list_lock);
        for (struct sync_participant *p = d->first; p; p = p->next)
                forgive(p);
        pthread_mutex_unlock(&d->list_lock);
}
