/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest memory were written since the last time somebody asked: one answer, merged
 * from all who write.
 *
 *      vCPUs and KVM itself   KVM's dirty log of each slot, or, if the machine was made with them,
 *                             the dirty rings of its vCPUs
 *      Ramet and its devices  guest_mem.dirty, marked by the accessor
 *
 * A slot that is deleted takes its log along, so it is harvested just before (slots.deleting).
 *
 * "Dirty" is what was written, not what has changed. A page is in the answer of the first collect()
 * that begins after the write has ended, or of an earlier one; never of none, and not of two unless
 * it was written again. Contents are to be read after collect() has returned.
 *
 * Threads: start, stop and discard with every vCPU stopped; collect and harvest by any participant
 * inside its read section (the map of slots stays as it is meanwhile), or by who stopped the
 * machine. Nobody waits for a vCPU with the lock.
 */
#ifndef RAMET_MEM_DIRTY_H
#define RAMET_MEM_DIRTY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/guest_mem.h"
#include "mem/slots.h"

/* KVM's side, all 0 or -errno; a fake in tests. */
struct dirty_kvm {
        /* Fill @bitmap, a bit per page of the slot, rounded up to 64. */
        int (*get)(void *data, unsigned slot, uint64_t *bitmap);
        /* Clear these bits in KVM and write-protect the pages again. NULL: get does it. */
        int (*clear)(void *data, unsigned slot, uint64_t pages, const uint64_t *bitmap);
        /* Instead of both: pass on what is in the rings, and give the entries back. */
        int (*reap)(void *data, void (*page)(void *dirty, unsigned slot, uint64_t page),
                    void *dirty);
        void *data;
};

struct dirty {
        pthread_mutex_t lock;
        struct dirty_kvm kvm;  /* [I] */
        struct guest_mem *mem; /* [I] */
        struct slots *slots;   /* [I]; changes only while every vCPU is stopped */
        uint64_t npages;       /* [I] of all regions, by their offsets */
        uint64_t *pages;       /* [lock] harvested, not collected */
        uint64_t *scratch;     /* [lock] one slot's */
        uint64_t *vmm;         /* guest_mem.dirty; bits [a] */
        bool on;               /* [lock] */
        int failed;            /* [lock] -errno of a harvest in a place that cannot tell */
        uint64_t harvests;     /* [lock] statistics */
};

/* Zeroed is "nobody asks"; fini of that is fine. 0 or -ENOMEM. */
int dirty_init(struct dirty *d, struct guest_mem *mem, struct slots *slots,
               const struct dirty_kvm *kvm);
void dirty_fini(struct dirty *d);

/* Begin with nothing dirty / end. With a log, the slots get KVM_MEM_LOG_DIRTY_PAGES, also those
 * that are made later. Idempotent. 0 or -errno. */
int dirty_start(struct dirty *d, struct err *err);
int dirty_stop(struct dirty *d, struct err *err);

/* Words that a bitmap of all pages has. */
size_t dirty_words(const struct dirty *d);
/* Add to @bitmap (dirty_words() long, page n of the layers' offsets is bit n % 64 of word n / 64)
 * what was written since the last time; *count, if not NULL, is how many pages that were. 0,
 * -EINVAL when not started, or -errno, and then what was harvested so far is in a later answer. */
int dirty_collect(struct dirty *d, uint64_t *bitmap, uint64_t *count, struct err *err);
/* Forget what was written so far: memory has just become its template's again. 0 or -errno. */
int dirty_discard(struct dirty *d, struct err *err);

/* A ring is full (KVM_EXIT_DIRTY_RING_FULL): empty all. 0 or -errno. */
int dirty_harvest(struct dirty *d);

#endif
