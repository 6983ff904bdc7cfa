/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests, participants, kick, generation barrier: the one place where a thread waits for vCPUs.
 *
 * A participant uses translations of guest memory: a vCPU thread, an I/O worker, an I/O in flight.
 * It brackets that use with a read section, and a vCPU, inside it, KVM_RUN with a guest section:
 *
 *           sync_enter           sync_guest_begin
 *     OUTSIDE ------> INSIDE ----------------------> IN_GUEST --- kick ---> EXITING
 *        ^              | ^                             |                      |
 *        '--------------' '-----------------------------+----------------------'
 *           sync_exit                           sync_guest_end
 *
 * Two operations change what participants may use:
 *
 *     sync_flush()             after the change: returns when every participant has left its read
 *                              section or entered a new one since the call
 *     sync_stop() / resume()   around the change: everyone is out, and stays out until resume
 *
 * Both kick those that are in guest mode, each once. Neither makes the participants wait for one
 * another. What a participant must forget is told by invalidations: they are posted before the
 * generation changes, so whoever enters with the new generation finds them with sync_take().
 *
 * The thread that initiates is outside all read sections, its own and those of other domains (two
 * threads, each inside the domain that the other one flushes, would wait for ever). So nobody ever
 * waits for an initiator, and any number of them may run at once. A vCPU that initiates leaves its
 * section first, which lets somebody else's stop go through: it does that only where its state may
 * be saved, and looks again, when its turn has come, at all that it knew before. Afterwards it
 * enters and takes what was posted, like everybody.
 *
 * Nobody is starved. Stops are granted in the order of the calls. A participant that was refused
 * SYNC_PATIENCE times in a row is owed an entry: initiators let it in first, or wait for
 * SYNC_GRACE_NS, whichever is shorter.
 *
 * Threads: join and leave by the participant's own thread, or while that does not run; the rest as
 * said. Nothing here may be called by a signal handler.
 */
#ifndef RAMET_SYNC_SYNC_H
#define RAMET_SYNC_SYNC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SYNC_FIFO     16      /* ranges that wait per participant; one more: SYNC_CURRENT */
#define SYNC_PATIENCE 4       /* refusals in a row */
#define SYNC_GRACE_NS 2000000 /* what an initiator waits at most for one that it owes an entry */

enum sync_mode {
        SYNC_OUTSIDE_GUEST,
        SYNC_IN_GUEST,
        SYNC_EXITING, /* somebody has kicked it, or is about to; nobody else will */
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

/* What sync_take() found. With SYNC_CURRENT there are no ranges: it covers them. */
struct sync_taken {
        uint32_t kinds;
        unsigned nranges;
        struct sync_range ranges[SYNC_FIFO]; /* in the order of their posts */
};

struct sync_participant;

/* How often what happened so far; relaxed counters, exact when nothing runs. */
struct sync_counters {
        _Atomic uint64_t flushes, stops;
        _Atomic uint64_t kicks;  /* sent; never more than one for an entry into guest mode */
        _Atomic uint64_t spins;  /* looks of initiators, after the first, at who is still inside */
        _Atomic uint64_t sleeps; /* and their waits on a futex */
        _Atomic uint64_t overflows; /* FIFOs that became SYNC_CURRENT */
        _Atomic uint64_t graces;    /* waits for a participant that was owed an entry */
};

struct sync_domain {
        uint64_t id;                    /* [I] of no other domain of this process, ever */
        _Atomic uint64_t generation;    /* [a] starts at 1 */
        _Atomic uint32_t stopped;       /* [a] 0; 1; 2: and somebody sleeps on it. Futex */
        _Atomic uint32_t owed;          /* [a] participants that are owed an entry. Futex */
        pthread_mutex_t list_lock;      /* held while participants are looked at or kicked */
        struct sync_participant *first; /* [list_lock] */
        _Atomic uint32_t next_turn;     /* [a] tickets drawn by sync_stop() */
        _Atomic uint32_t turn;          /* [a] the ticket that owns the domain. Futex */
        _Atomic uint32_t left;          /* [a] changes when an awaited one has left. Futex */
        _Atomic uint64_t lent;          /* [a] sync_lend() calls with an old generation */
        struct sync_counters counters;
};

struct sync_participant {
        struct sync_domain *domain;           /* [I] from the first join on */
        struct sync_participant *next, *prev; /* [list_lock] */
        void (*kick)(void *data);             /* [I] NULL: never in guest mode */
        void *kick_data;                      /* [I] */
        _Atomic uint32_t joined;              /* [a] in the list */
        _Atomic uint32_t mode;                /* [a] enum sync_mode */
        _Atomic uint64_t entered;             /* [a] generation of its read section, 0: outside */
        _Atomic uint64_t requests;            /* [a] bitmap; bits are the user's */
        unsigned refused;                     /* [t] guest entries, in a row */
        bool kicked;                          /* [t] and has not been told so */
        _Atomic uint32_t owed;                /* [a] it is counted in the domain's `owed` */
        _Atomic uint32_t posted;              /* [a] there is something to take */
        pthread_mutex_t fifo_lock;            /* taken after list_lock; innermost */
        uint32_t kinds;                       /* [fifo_lock] posted, not taken */
        unsigned nranges;                     /* [fifo_lock] */
        bool covered; /* [fifo_lock] no range is recorded: a SYNC_CURRENT waits to be taken */
        struct sync_range fifo[SYNC_FIFO]; /* [fifo_lock] */
};

#define SYNC_AWAITED (1ull << 63) /* in `entered`: an initiator sleeps until this one leaves */

void sync_domain_init(struct sync_domain *domain);
void sync_domain_fini(struct sync_domain *domain); /* nobody is joined any more */

/* @kick makes the participant leave guest mode soon. It is called by any thread, holding a lock of
 * this module: it calls nothing here. On a thread that has ended it must do nothing. */
void sync_join(struct sync_domain *domain, struct sync_participant *p, void (*kick)(void *data),
               void *kick_data);
/* Outside, and never to enter again; nobody waits for it any more, and after the return nobody
 * kicks it. A thread that ended without this, wherever it was, is left by whoever joined the
 * thread. A participant that is zeroed or has left is fine. */
void sync_leave(struct sync_participant *p);

/* Begin a read section; waits while the domain is stopped. Sections do not nest. Own thread. */
void sync_enter(struct sync_participant *p);
/* The same, but false instead of waiting; nothing is owed for that. */
bool sync_try_enter(struct sync_participant *p);
/* End it. Own thread. @p is not looked at any more once others can see that it is outside: an
 * initiator whose stop has returned may leave it and free it. The domain must still be there. */
void sync_exit(struct sync_participant *p);

/* An I/O in flight is a participant, too: joined, without a kick. @from is inside; @io, which is
 * outside, enters with the same generation, even when a stop or a flush already waits for @from.
 * @io is inside until sync_exit(@io), which may come from any thread (it happens after this call).
 * Own thread of @from, or, when @from is an I/O in flight, the one that would end it. */
void sync_lend(const struct sync_participant *from, struct sync_participant *io);
/* Did both, which are inside, enter with the same generation? Then whoever waits for one waits for
 * the other, and what @io stands for may use what @p looked up, until both are outside. By a thread
 * that keeps both from leaving. */
bool sync_same_generation(const struct sync_participant *io, const struct sync_participant *p);

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

/* Inside a read section, right before KVM_RUN: true when guest mode may be entered; false when
 * there is something to honour first. Own thread. */
bool sync_guest_begin(struct sync_participant *p);
void sync_guest_end(struct sync_participant *p);
/* After guest_end, or a guest_begin that was false: true, once, when kick() has been called since
 * guest_begin or is about to be. Whatever a kick leaves behind is to be taken away now, before the
 * next guest_begin: one that is left costs an exit, one taken later loses the next. Own thread. */
bool sync_kicked(struct sync_participant *p);
/* Inside: true when a request, a stop or a flush waits to be honoured. Own thread. */
bool sync_pending(const struct sync_participant *p);

/* Ask @p for something (a bit number below 64) and kick it out of guest mode. Any thread, while @p
 * and its domain are there; one that has left is not kicked. */
void sync_request(struct sync_participant *p, unsigned request);
/* True, once, when @request had been asked for. Own thread. */
bool sync_test_clear(struct sync_participant *p, unsigned request);

/* Post @inv (NULL: nothing, only the barrier) to all and wait: see above. The change was made
 * before. Any thread that is outside. */
void sync_flush(struct sync_domain *domain, const struct sync_invalidation *inv);
/* From stop to resume the domain belongs to its initiator, who may let another thread resume;
 * other stops wait for their turn, flushes go on. Any thread that is outside. */
void sync_stop(struct sync_domain *domain);
/* Between stop and resume, by the initiator: everyone will find it when entering. */
void sync_post(struct sync_domain *domain, const struct sync_invalidation *inv);
void sync_resume(struct sync_domain *domain);

#endif
