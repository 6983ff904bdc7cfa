/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A translation cache: what one thread remembers of where guest memory is. Its thread is an I/O
 * worker, the owner of a machine, or a vCPU's; nobody else touches it. It is used through access.h,
 * which also says when an entry may be trusted; this file only stores, finds and forgets.
 *
 *      category         from          to                     tagged by
 *      linear           GVA page      GPA page               space
 *      guest-physical   GPA page      HVA                    root
 *      combined         GVA page      GPA page and HVA       space, root
 *
 * A page is 4 KiB whatever the guest uses. Linear and combined entries also hold for which kinds of
 * access the walk was made and allowed; what is refused is never cached.
 */
#ifndef RAMET_MEM_TLB_H
#define RAMET_MEM_TLB_H

#include <stdbool.h>
#include <stdint.h>

#include "sync/sync.h"

#define TLB_PAGE   4096u
#define TLB_WAYS   4
#define TLB_SETS   64 /* of each category; a power of two */
#define TLB_SPACES 4  /* address spaces whose entries are kept at a time */
#define TLB_KINDS  16 /* kinds of access: numbers below this */

enum tlb_category {
        TLB_LINEAR,
        TLB_PHYSICAL,
        TLB_COMBINED,
        TLB_CATEGORIES,
};

/* An address space: all that the meaning of a linear address depends on. */
struct tlb_space {
        uint64_t vcpu;
        uint64_t run;    /* changes whenever the guest's page tables may have: see access.h */
        uint64_t tables; /* where the page tables begin: CR3 */
        uint64_t mode;   /* the bits of other registers that matter to a walk */
};

struct tlb_stats {
        uint64_t hits[TLB_CATEGORIES], misses[TLB_CATEGORIES];
        uint64_t current, guest; /* flushes of these kinds, SYNC_CURRENT and SYNC_GUEST */
        uint64_t ranges;         /* ranges dropped */
        uint64_t drops;          /* times that everything was dropped */
};

struct tlb_linear {
        uint64_t space, gva, gpa;
        uint32_t kinds;
};

struct tlb_physical {
        uint64_t root, gpa;
        uint8_t *hva;
};

struct tlb_combined {
        uint64_t space, root, gva, gpa;
        uint8_t *hva;
        uint32_t kinds;
};

/* All of it is the thread's own. Zeroed memory, then tlb_init(). */
struct tlb {
        struct sync_served served; /* whose guest-physical memory it is about */
        uint64_t number; /* the last tag given out: none is ever used again, 0 is never one */
        uint64_t root;   /* tag of guest-physical and combined entries that still hold */
        struct {
                struct tlb_space is;
                uint64_t number; /* 0: free */
        } spaces[TLB_SPACES];
        unsigned last_space; /* the one used last */
        unsigned next_space; /* the one to be given up next */
        unsigned next_way;   /* the same, in any set */
        uint64_t walked[8];  /* pages that walks have read, hashed: 512 bits */
        bool walked_any;
        bool combined_any; /* some may hold */
        struct tlb_stats stats;
        struct tlb_linear linear[TLB_SETS][TLB_WAYS];
        struct tlb_physical physical[TLB_SETS][TLB_WAYS];
        struct tlb_combined combined[TLB_SETS][TLB_WAYS];
};

void tlb_init(struct tlb *tlb);

/* --- forgetting --- */

/* Drop everything: for another machine, say. */
void tlb_drop(struct tlb *tlb);
/* Drop what sync_take() says is no longer true. */
void tlb_apply(struct tlb *tlb, const struct sync_taken *taken);
/* Drop by kind, of enum sync_invalidation_kind. Takes the same short time however full it is. */
void tlb_flush(struct tlb *tlb, uint32_t kinds);
/* Drop guest-physical and combined entries of [gpa, gpa + len); a range that wraps ends at the top.
 */
void tlb_flush_range(struct tlb *tlb, uint64_t gpa, uint64_t len);

/* A walk read the page table entry at @gpa. */
void tlb_walked(struct tlb *tlb, uint64_t gpa);
/* This thread is about to write [gpa, gpa + len): when walks may have read there, linear and
 * combined entries are dropped. */
void tlb_writing(struct tlb *tlb, uint64_t gpa, uint64_t len);

/* --- storing and finding; addresses are rounded down to their page, results are pages --- */

/* The tag of @space, to be used until the next flush. */
uint64_t tlb_space(struct tlb *tlb, const struct tlb_space *space);

bool tlb_find_linear(struct tlb *tlb, uint64_t space, uint64_t gva, unsigned kind, uint64_t *gpa);
void tlb_add_linear(struct tlb *tlb, uint64_t space, uint64_t gva, unsigned kind, uint64_t gpa);

/* NULL when there is none. */
uint8_t *tlb_find_physical(struct tlb *tlb, uint64_t gpa);
void tlb_add_physical(struct tlb *tlb, uint64_t gpa, uint8_t *hva);

bool tlb_find_combined(struct tlb *tlb, uint64_t space, uint64_t gva, unsigned kind, uint64_t *gpa,
                       uint8_t **hva);
void tlb_add_combined(struct tlb *tlb, uint64_t space, uint64_t gva, unsigned kind, uint64_t gpa,
                      uint8_t *hva);

#endif
