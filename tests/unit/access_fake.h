/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines of memory alone, for tests of mem/access.h: pages that can be moved between two places
 * as the engine `rom` does it, and page tables of one level. Include after cmocka.h.
 *
 *      GVA page n of a vCPU --> entry n of its table --> GPA page
 *
 * An entry is an address, bit 0: present, bit 1: writable.
 */
#ifndef RAMET_TESTS_ACCESS_FAKE_H
#define RAMET_TESTS_ACCESS_FAKE_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mem/access.h"

#define PAGE       ((uint64_t)TLB_PAGE)
#define FAKE_PAGES 128
#define FAKE_GPA   0x100000 /* where memory begins */
#define FAKE_HIGH  0x100000000ull
#define FAKE_STALE 0x57a1e57a1e57a1e5ull /* what is left behind where a page was */

enum { FAKE_READ, FAKE_WRITE };

struct fake {
        struct sync_domain domain;
        struct guest_mem mem;
        uint64_t moved[FAKE_PAGES / 64], dirty[FAKE_PAGES / 64];
        uint8_t *base; /* FAKE_PAGES pages, and as many where they are moved to */
};

/* Half of the pages lie low, half high. */
static inline void fake_init(struct fake *f)
{
        memset(f, 0, sizeof *f);
        sync_domain_init(&f->domain);
        f->base = aligned_alloc(PAGE, 2 * FAKE_PAGES * PAGE);
        assert_non_null(f->base);
        memset(f->base, 0, 2 * FAKE_PAGES * PAGE);
        f->mem = (struct guest_mem){
                .nregions = 2,
                .regions = {{.gpa = FAKE_GPA, .size = FAKE_PAGES / 2 * PAGE, .hva = f->base},
                            {.gpa = FAKE_HIGH,
                             .size = FAKE_PAGES / 2 * PAGE,
                             .offset = FAKE_PAGES / 2 * PAGE,
                             .hva = f->base + FAKE_PAGES / 2 * PAGE}},
                .moved = f->moved,
                .moved_by = FAKE_PAGES * PAGE,
                .dirty = f->dirty,
        };
}

static inline void fake_fini(struct fake *f)
{
        free(f->base);
        sync_domain_fini(&f->domain);
}

static inline uint64_t fake_gpa(unsigned page)
{
        return page < FAKE_PAGES / 2 ? FAKE_GPA + page * PAGE
                                     : FAKE_HIGH + (page - FAKE_PAGES / 2) * PAGE;
}

/* Where a page is, as the guest would see it. */
static inline uint8_t *fake_at(struct fake *f, unsigned page)
{
        return f->base + page * PAGE +
               (f->moved[page / 64] >> page % 64 & 1 ? FAKE_PAGES * PAGE : 0);
}

static inline uint64_t *fake_word(struct fake *f, unsigned page, unsigned word)
{
        return (uint64_t *)fake_at(f, page) + word;
}

/* Move a page to its other place, and leave what nobody may read behind. While all are stopped. */
static inline void fake_move(struct fake *f, unsigned page)
{
        uint8_t *old = fake_at(f, page);

        f->moved[page / 64] ^= 1ull << page % 64;
        memcpy(fake_at(f, page), old, PAGE);
        for (unsigned i = 0; i < PAGE / 8; i++)
                ((uint64_t *)old)[i] = FAKE_STALE;
}

/* Stop, move pages [first, first + n), say so by one range for each, go on. */
static inline void fake_remap(struct fake *f, unsigned first, unsigned n, uint32_t kinds)
{
        struct sync_range ranges[FAKE_PAGES];

        sync_stop(&f->domain);
        for (unsigned i = 0; i < n; i++) {
                fake_move(f, first + i);
                ranges[i] = (struct sync_range){.gpa = fake_gpa(first + i), .len = PAGE};
        }
        sync_post(&f->domain, &(struct sync_invalidation){
                                      .kinds = kinds,
                                      .nranges = kinds & SYNC_CURRENT ? 0 : n,
                                      .ranges = ranges,
                              });
        sync_resume(&f->domain);
}

/* --- linear addresses; space.tables is the table --- */

static inline int fake_walk(const struct guest_view *view, struct guest_access *a, uint64_t gva,
                            unsigned kind, uint64_t *gpa)
{
        uint64_t entry;

        if (gva >= PAGE / 8 * PAGE)
                return -EINVAL;
        if (guest_access_read(a, view->space.tables + gva / PAGE * 8, &entry, 8) < 0)
                return -EIO;
        if (!(entry & 1) || (kind == FAKE_WRITE && !(entry & 2)))
                return -EFAULT;
        *gpa = (entry & ~(PAGE - 1)) | gva % PAGE;
        return 0;
}

static inline struct guest_view fake_view(uint64_t vcpu, unsigned table_page)
{
        return (struct guest_view){
                .space = {.vcpu = vcpu, .run = 1, .tables = fake_gpa(table_page)},
                .walk = fake_walk,
        };
}

/* One thread's access to one machine. */
struct fake_user {
        struct sync_participant part;
        struct guest_access a;
};

static inline void fake_join(struct fake *f, struct fake_user *u, struct tlb *tlb)
{
        sync_join(&f->domain, &u->part, NULL, NULL);
        guest_access_init(&u->a, &f->mem, &u->part, tlb);
}

#endif
