/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of KVM's memory slots: which range of guest-physical addresses is which slot, over which
 * host addresses. KVM can neither tell that nor split a slot, so whoever changes the backing of a
 * part says so here, and the slots that are in the way are cut: deleted, and what is left of them
 * made again.
 *
 * Between the deletion and the new slot a guest address has no backing, and a vCPU would take its
 * access for MMIO. So a change of slots that a guest may use is made with every vCPU stopped.
 *
 * Threads: before the vCPUs run, or the initiator of a stop.
 */
#ifndef RAMET_MEM_SLOTS_H
#define RAMET_MEM_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct slot {
        uint64_t gpa;
        uint64_t size; /* bytes, a multiple of 4 KiB, not 0 */
        uint8_t *hva;
        unsigned id;    /* KVM's number of it */
        uint32_t flags; /* KVM_MEM_READONLY, KVM_MEM_LOG_DIRTY_PAGES */
};

struct slots {
        /* [I] Make slot @id (size 0: delete it). Tests put a fake here. 0 or -errno. */
        int (*set)(void *data, unsigned id, uint64_t gpa, uint64_t size, void *hva, uint32_t flags,
                   struct err *err);
        void *set_data;
        /* A slot is about to be deleted, with every vCPU stopped: the last moment to read its dirty
         * log. NULL: nobody asks. */
        void (*deleting)(void *data, const struct slot *slot);
        void *deleting_data;
        bool log;           /* writable slots are made with KVM_MEM_LOG_DIRTY_PAGES */
        unsigned max;       /* as many as KVM takes */
        struct slot *items; /* ascending by gpa, apart */
        size_t count, cap;
        unsigned *free_ids; /* a stack of numbers that were used before; room for cap */
        size_t nfree;
        unsigned next_id;
        uint64_t calls; /* statistics: of set */
};

/* @max: KVM_CAP_NR_MEMSLOTS, at least 1. */
void slots_init(struct slots *slots, unsigned max,
                int (*set)(void *data, unsigned id, uint64_t gpa, uint64_t size, void *hva,
                           uint32_t flags, struct err *err),
                void *set_data);
/* Frees the map; KVM keeps the slots. Zeroed is fine. */
void slots_fini(struct slots *slots);

/* Back [gpa, gpa + size) with @hva: one new slot in place of all that was there, two at most for
 * what is left of the slots that were cut. 0; -ENOSPC when these could be more than @max, and then
 * nothing has changed; -ENOMEM, likewise; or what KVM says, and then part of the range may have no
 * backing: the guest cannot go on. */
int slots_map(struct slots *slots, uint64_t gpa, uint64_t size, uint8_t *hva, uint32_t flags,
              struct err *err);
/* Leave [gpa, gpa + size) without backing. Errors as slots_map. */
int slots_unmap(struct slots *slots, uint64_t gpa, uint64_t size, struct err *err);

/* Turn KVM's dirty logging on or off, for all writable slots that there are and those to come. 0,
 * or what KVM says. */
int slots_log(struct slots *slots, bool on, struct err *err);

/* The slot with @gpa in it; NULL: none. Good until the next change. */
const struct slot *slots_find(const struct slots *slots, uint64_t gpa);
/* How many slots there are in [gpa, gpa + size). */
size_t slots_count(const struct slots *slots, uint64_t gpa, uint64_t size);

#endif
