/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests, participants, kick, generation barrier: the one place where a thread waits for vCPUs.
 *
 * A participant is a thread that uses translations of guest memory. It brackets that use with a
 * read section, and inside it, around KVM_RUN, with a guest section:
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
 * another. The thread that calls them must be outside all read sections of the domain.
 *
 * Threads: join and leave by the participant's own thread or before it runs; the rest as said.
 */
#ifndef RAMET_SYNC_SYNC_H
#define RAMET_SYNC_SYNC_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum sync_mode {
        SYNC_OUTSIDE_GUEST,
        SYNC_IN_GUEST,
        SYNC_EXITING,
};

struct sync_participant;

struct sync_domain {
        pthread_mutex_t list_lock;      /* taken after owner_lock */
        struct sync_participant *first; /* [list_lock] */
        pthread_mutex_t owner_lock;     /* held by an initiator: from stop to resume */
        _Atomic uint64_t generation;    /* [a] starts at 1; 0 means "outside" in a participant */
        _Atomic uint32_t stopped;       /* [a] 0 or 1; futex: participants wait here to enter */
        _Atomic uint32_t left;          /* [a] futex: changes when somebody leaves or re-enters */
        _Atomic uint32_t waiting;       /* [a] initiators that wait on `left` */
};

struct sync_participant {
        struct sync_domain *domain;    /* [I] */
        struct sync_participant *next; /* [list_lock] */
        void (*kick)(void *data);      /* [I] make it leave guest mode soon; any thread */
        void *kick_data;               /* [I] */
        _Atomic uint64_t entered;      /* [a] generation of its read section, 0 when outside */
        _Atomic uint32_t mode;         /* [a] enum sync_mode */
        _Atomic uint64_t requests;     /* [a] bitmap; bits are the user's */
};

void sync_domain_init(struct sync_domain *domain);
void sync_domain_fini(struct sync_domain *domain);

void sync_join(struct sync_domain *domain, struct sync_participant *p, void (*kick)(void *data),
               void *kick_data);
/* Outside, and never to enter again. A thread that dies calls this; nobody waits for it any more.
 */
void sync_leave(struct sync_participant *p);

/* Begin a read section; waits while the domain is stopped. Own thread. */
void sync_enter(struct sync_participant *p);
/* End it. Own thread. */
void sync_exit(struct sync_participant *p);

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

/* See above. Any thread that is outside. */
void sync_flush(struct sync_domain *domain);
void sync_stop(struct sync_domain *domain);
void sync_resume(struct sync_domain *domain);

#endif
