/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and kick: how a vCPU gets out of guest mode, once, and only if it is there.
 *
 *     OUTSIDE_GUEST --- guest_begin ---> IN_GUEST --- the first to kick ---> EXITING
 *           ^                               |                                   |
 *           '----------- guest_end ---------+-----------------------------------'
 *
 * Pair (B), see sync.c: the participant writes mode = IN_GUEST and then reads requests, stopped and
 * generation; a requester writes one of those and then reads mode. IN_GUEST to EXITING is a
 * compare-and-swap: of many requesters one sends the signal. Who finds EXITING instead need not:
 * EXITING comes before the participant's next IN_GUEST, so also before its next look.
 *
 * What happens between that look and KVM_RUN is up to the kick itself: it must stay, so that
 * KVM_RUN returns at once, until the participant takes it away. Whoever leaves guest mode finds
 * there whether it was kicked, and sync_kicked() says so once: each kick is taken once, before the
 * next guest_begin, so none is left that would end a later KVM_RUN, and none is taken that should
 * have ended this one. It may not have been sent yet: that follows EXITING, and the participant
 * waits for it.
 *
 * Kicks are sent holding the list lock, and a participant leaves under that lock: no signal goes to
 * a thread that has left and ended.
 */
#include "sync/internal.h"

static bool door_closed(const struct sync_participant *p)
{
        const struct sync_domain *d = p->domain;

        return atomic_load(&d->stopped) || atomic_load(&d->generation) != sync_entered(p);
}

bool sync_pending(const struct sync_participant *p)
{
        const struct sync_domain *d = p->domain;

        return TRACED_AS(EV_PENDING_REQUESTS, TRACE_ID(p), TRACE_ID(p), v_ != 0,
                         atomic_load(&p->requests)) ||
               TRACED(EV_PENDING_STOPPED, p, atomic_load(&d->stopped)) ||
               TRACED(EV_PENDING_GEN, p, atomic_load(&d->generation)) != sync_entered(p);
}

static void left_guest(struct sync_participant *p, uint32_t mode)
{
        if (mode == SYNC_EXITING)
                p->kicked = true;
}

bool sync_guest_begin(struct sync_participant *p)
{
        TRACED_STORE(EV_GUEST_BEGIN, p, 0, atomic_store(&p->mode, SYNC_IN_GUEST)); /* (B) */
        if (!sync_pending(p)) {
                if (p->refused) {
                        p->refused = 0;
                        sync_admitted(p);
                }
                return true;
        }
        left_guest(p, TRACED(EV_GUEST_BACK, p, atomic_exchange(&p->mode, SYNC_OUTSIDE_GUEST)));
        if (door_closed(p))
                sync_refused(p, ++p->refused);
        return false;
}

void sync_guest_end(struct sync_participant *p)
{
        left_guest(p, TRACED(EV_GUEST_END, p, atomic_exchange(&p->mode, SYNC_OUTSIDE_GUEST)));
}

bool sync_kicked(struct sync_participant *p)
{
        bool kicked = p->kicked;

        p->kicked = false;
        return kicked;
}

void sync_kick_locked(struct sync_participant *p)
{
        uint32_t in_guest = SYNC_IN_GUEST;

        if (!TRACED_ON(EV_KICK, p, v_,
                       atomic_compare_exchange_strong(&p->mode, &in_guest, SYNC_EXITING))) /* (B) */
                return;
        sync_count(&p->domain->counters.kicks);
        p->kick(p->kick_data);
}

/* Who is seen outside here, or inside with a newer generation, has yet to look at `generation` if
 * it means to enter guest mode, and will see what the caller has written there. */
bool sync_kick_all_locked(struct sync_domain *d, uint64_t upto)
{
        bool exiting = false;

        for (struct sync_participant *p = d->first; p; p = p->next) {
                uint64_t entered = TRACED_ON(EV_KICK_LOOK, p, v_, sync_entered(p));

                if (!p->kick || entered == 0 || entered >= upto)
                        continue;
                sync_kick_locked(p);
                exiting = exiting || atomic_load(&p->mode) == SYNC_EXITING;
        }
        return exiting;
}

void sync_request(struct sync_participant *p, unsigned request)
{
        TRACED_ON(EV_REQUEST, p, v_ != 0, atomic_fetch_or(&p->requests, 1ull << request));
        if (TRACED_ON(EV_REQUEST_MODE, p, v_, atomic_load(&p->mode)) != SYNC_IN_GUEST) /* (B) */
                return;
        pthread_mutex_lock(&p->domain->list_lock);
        sync_kick_locked(p);
        pthread_mutex_unlock(&p->domain->list_lock);
}

bool sync_test_clear(struct sync_participant *p, unsigned request)
{
        uint64_t bit = 1ull << request;

        if (!(TRACED_AS(EV_TEST_REQUEST, TRACE_ID(p), TRACE_ID(p), v_ != 0,
                        atomic_load(&p->requests)) &
              bit))
                return false;
        return TRACED_AS(EV_CLEAR_REQUEST, TRACE_ID(p), TRACE_ID(p), v_ != 0,
                         atomic_fetch_and(&p->requests, ~bit)) &
               bit;
}
