/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests, participants, kick, generation barrier: the one place where a thread waits for vCPUs.
 *
 * A participant uses translations of guest memory: a vCPU thread, an I/O worker, an I/O in flight.
 * It brackets that use with a read section, and a vCPU, inside it, KVM_RUN with a guest section:
 *
 *            sync_enter            sync_guest_begin
 *      OUTSIDE ------> INSIDE ----------------------> IN_GUEST --- kick ---> EXITING
 *         ^  <------      ^ <---------------------------'   sync_guest_end      |
 *            sync_exit    '-----------------------------------------------------'
 *
 * Two operations change what participants may use:
 *   sync_flush()           returns when every participant has left or entered anew since the call;
 *   sync_stop()/resume()   everyone is out, and stays out until resume.
 * Both kick those that are in guest mode, each once. Neither makes the participants wait for one
 * another. The thread that calls them must be outside all read sections of the domain: a vCPU that
 * initiates leaves its own first, and afterwards takes what was posted (sync_take), like everybody.
 *
 * What a participant must forget is told by invalidations, which are posted before the generation
 * changes: whoever has entered with the new generation finds them by sync_take().
 *
 * Threads: join and leave by the participant's own thread, or while that does not run; the rest as
 * said.
 */
#ifndef RAMET_SYNC_SYNC_H
#define RAMET_SYNC_SYNC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sync_mode {
        SYNC_OUTSIDE_GUEST,
        SYNC_IN_GUEST,
        SYNC_EXITING,
};

/* What is no longer true. Translations are linear (GVA to GPA), guest-physical (GPA to HVA) or
 * combined (GVA to HVA); the kinds are those of KVM's TLB flushes. */
enum sync_invalidation_kind {
        SYNC_CURRENT = 1, /* memory changed: guest-physical and combined ones; linear ones stay */
        SYNC_GUEST = 2,   /* the guest's page tables changed: linear and combined ones */
};

struct sync_range {
        uint64_t gpa;
        uint64_t len; /* bytes; guest-physical and combined ones of this range */
};

struct sync_invalidation {
        uint32_t kinds; /* of enum sync_invalidation_kind, or 0 */
        unsigned nranges;
        const struct sync_range *ranges; /* borrowed for the call */
};

#define SYNC_FIFO 16 /* ranges that wait per participant; one more turns all into SYNC_CURRENT */

/* What sync_take() found. With SYNC_CURRENT among the kinds there are no ranges: they are covered.
 */
struct sync_taken {
        uint32_t kinds;
        unsigned nranges;
        struct sync_range ranges[SYNC_FIFO];
};

struct sync_participant;

struct sync_domain {
        uint64_t id;                    /* [I] of no other domain of this process, ever */
        pthread_mutex_t list_lock;      /* taken after owner_lock */
        struct sync_participant *first; /* [list_lock] */
        pthread_mutex_t owner_lock;     /* held by an initiator: from stop to resume */
        _Atomic uint64_t generation;    /* [a] starts at 1; 0 means "outside" in a participant */
        _Atomic uint32_t stopped;       /* [a] 0 or 1; futex: participants wait here to enter */
        _Atomic uint32_t left;          /* [a] futex: changes when somebody leaves or re-enters */
        _Atomic uint32_t waiting;       /* [a] initiators that wait on `left` */
        _Atomic uint64_t lent;          /* [a] sync_lend() calls so far */
        _Atomic uint64_t kicks;         /* [a] statistics: kicks sent */
        _Atomic uint64_t overflows;     /* [a] statistics: FIFOs that became SYNC_CURRENT */
};

struct sync_participant {
        struct sync_domain *domain;           /* [I] */
        struct sync_participant *next, *prev; /* [list_lock] */
        void (*kick)(
                void *data); /* [I] make it leave guest mode soon; any thread; NULL: never in it */
        void *kick_data;     /* [I] */
        _Atomic uint64_t entered;  /* [a] generation of its read section, 0 when outside */
        _Atomic uint32_t mode;     /* [a] enum sync_mode */
        _Atomic uint64_t requests; /* [a] bitmap; bits are the user's */
        _Atomic uint32_t posted;   /* [a] there is something to take */
        pthread_mutex_t fifo_lock; /* taken after list_lock; innermost */
        uint32_t kinds;            /* [fifo_lock] posted, not taken */
        unsigned nranges;          /* [fifo_lock] */
        bool overflowed; /* [fifo_lock] ranges are not recorded: SYNC_CURRENT covers them */
        struct sync_range fifo[SYNC_FIFO]; /* [fifo_lock] */
};

void sync_domain_init(struct sync_domain *domain);
void sync_domain_fini(struct sync_domain *domain); /* nobody is joined any more */

void sync_join(struct sync_domain *domain, struct sync_participant *p, void (*kick)(void *data),
               void *kick_data);
/* Outside, and never to enter again; nobody waits for it any more. A thread that ended without
 * this, wherever it was, is left by whoever joined the thread. A zeroed participant is fine. */
void sync_leave(struct sync_participant *p);

/* Begin a read section; waits while the domain is stopped. Own thread. */
void sync_enter(struct sync_participant *p);
/* The same, but false instead of waiting. */
bool sync_try_enter(struct sync_participant *p);
/* End it. Own thread. */
void sync_exit(struct sync_participant *p);

/* An I/O in flight is a participant, too. @from is inside; @io, which is outside, enters with the
 * same generation, and is inside until sync_exit(@io), which may come from any thread (it happens
 * after this call). Own thread of @from. */
void sync_lend(const struct sync_participant *from, struct sync_participant *io);

/* After each sync_enter, and before any cached translation is used: what was posted since the last
 * time, false when nothing was. Own thread. */
bool sync_take(struct sync_participant *p, struct sync_taken *taken);

/* The last-VM-ran rule. A worker that serves several domains in turn with one private cache keeps
 * one of these, zeroed, beside the cache. */
struct sync_served {
        uint64_t domain_id; /* [t] whose translations the cache holds; 0: nobody's */
};

/* After sync_enter into @domain, before the cache is used: true when it may hold translations of
 * another domain, and must be dropped. Own thread of the worker; nobody else is told. */
bool sync_serve(struct sync_served *served, const struct sync_domain *domain);

/* Inside a read section, right before KVM_RUN and after clearing immediate_exit: true when guest
 * mode may be entered; false when there is something to honour first. Own thread. */
bool sync_guest_begin(struct sync_participant *p);
void sync_guest_end(struct sync_participant *p);
/* True when a request, a stop or a flush waits to be honoured. Own thread. */
bool sync_pending(const struct sync_participant *p);

/* Ask @p for something (a bit number below 64) and kick it out of guest mode. Any thread. */
void sync_request(struct sync_participant *p, unsigned request);
/* True, once, when @request had been asked for. Own thread. */
bool sync_test_clear(struct sync_participant *p, unsigned request);

/* Post @inv (NULL: nothing, only the barrier) to all and wait: see above. Any thread that is
 * outside. */
void sync_flush(struct sync_domain *domain, const struct sync_invalidation *inv);
/* Several initiators take turns: from stop to resume the domain is its initiator's. */
void sync_stop(struct sync_domain *domain);
/* Between stop and resume, by the initiator: everyone will find it when entering. */
void sync_post(struct sync_domain *domain, const struct sync_invalidation *inv);
void sync_resume(struct sync_domain *domain);

#endif
