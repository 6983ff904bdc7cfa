/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of this module share, and nobody else sees.
 */
#ifndef RAMET_SYNC_INTERNAL_H
#define RAMET_SYNC_INTERNAL_H

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/tooth.h"
#include "sync/sync.h"
#include "sync/trace.h"

/* Sleep while *@word is @value, at most for @timeout (relative; NULL: for ever). */
static inline void sync_futex_wait(_Atomic uint32_t *word, uint32_t value,
                                   const struct timespec *timeout)
{
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, timeout, NULL, 0);
}

static inline void sync_futex_wake_all(_Atomic uint32_t *word)
{
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static inline void sync_count(_Atomic uint64_t *counter)
{
        atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* The generation of the read section that @p is in, 0 outside. */
static inline uint64_t sync_entered(const struct sync_participant *p)
{
        return atomic_load(&p->entered) & ~SYNC_AWAITED;
}

/* kick.c; both with the list lock held */
void sync_kick_locked(struct sync_participant *p);
/* Everyone inside with a generation below @upto. True when one of them is on its way out of guest
 * mode, whoever kicked it. */
bool sync_kick_all_locked(struct sync_domain *domain, uint64_t upto);

/* invalidations.c; with the list lock held */
void sync_post_locked(struct sync_domain *domain, const struct sync_invalidation *inv);

/* grace.c. @p was refused for the @times-th time in a row; it got in, or gave up. Own thread. */
void sync_refused(struct sync_participant *p, unsigned times);
void sync_admitted(struct sync_participant *p);
/* An initiator, before it closes the door: let in those that are owed it. */
void sync_grace(struct sync_domain *domain);

#endif
