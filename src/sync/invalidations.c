/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What participants must forget: posted by initiators, taken by each participant when it enters.
 *
 * Kinds add up. Ranges wait in a FIFO, until there are too many of them to be worth it: then they
 * become a SYNC_CURRENT, which forgets everything that a range could. While a SYNC_CURRENT waits to
 * be taken, whether from an overflow or posted as such, it covers every range, those in the FIFO
 * and those to come: the FIFO is purged and nothing is recorded. Taking it ends that.
 *
 *     recording --- SYNC_CURRENT posted, or the FIFO is full ---> covered
 *         ^                                                           |
 *         '--------------------------- taken -------------------------'
 *
 * `posted` is looked at without the lock. It is set before the generation changes, and a
 * participant reads the generation when it enters (pair (A) in sync.c): so it sees what it must.
 * That it may see, and take, something of a flush that goes on does no harm: the change was made
 * before the post, and what it reads afterwards is new already.
 */
#include <string.h>

#include "sync/internal.h"

static void cover(struct sync_participant *p)
{
        p->kinds |= SYNC_CURRENT;
        p->nranges = 0;
        p->covered = true;
}

static void post_to(struct sync_participant *p, const struct sync_invalidation *inv)
{
        pthread_mutex_lock(&p->fifo_lock);
        p->kinds |= inv->kinds;
        if (inv->kinds & SYNC_CURRENT)
                cover(p);
        for (unsigned i = 0; i < inv->nranges && !p->covered; i++) {
                if (p->nranges < SYNC_FIFO) {
                        p->fifo[p->nranges++] = inv->ranges[i];
                } else {
                        sync_count(&p->domain->counters.overflows);
                        cover(p);
                }
        }
        TRACED_DO(EV_POST, TRACE_ME(), TRACE_ID(p), inv->kinds != 0,
                  atomic_store(&p->posted, p->kinds || p->nranges));
        pthread_mutex_unlock(&p->fifo_lock);
}

void sync_post_locked(struct sync_domain *d, const struct sync_invalidation *inv)
{
        for (struct sync_participant *p = d->first; p; p = p->next)
                post_to(p, inv);
}

bool sync_take(struct sync_participant *p, struct sync_taken *taken)
{
        if (!TRACED(EV_TAKE_POSTED, p, atomic_load(&p->posted)))
                return false;
        pthread_mutex_lock(&p->fifo_lock);
        taken->kinds = p->kinds;
        taken->nranges = p->nranges;
        memcpy(taken->ranges, p->fifo, p->nranges * sizeof p->fifo[0]);
        p->kinds = 0;
        p->nranges = 0;
        if (!RAMET_TOOTH_NO_FIFO_PURGE)
                p->covered = false;
        TRACED_STORE(EV_TAKE, p, taken->nranges + (taken->kinds ? 100u : 0u),
                     atomic_store(&p->posted, 0));
        pthread_mutex_unlock(&p->fifo_lock);
        return true;
}

bool sync_serve(struct sync_served *served, const struct sync_domain *d)
{
        if (RAMET_TOOTH_NO_LAST_RAN || served->domain_id == d->id)
                return false;
        served->domain_id = d->id;
        return true;
}
