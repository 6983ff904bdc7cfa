/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine `private`: memory is a private mapping of the layers, and the host kernel makes a page
 * of its own the first time anybody writes it: a vCPU (KVM faults it in for writing through the
 * host address), KVM itself, or Ramet. The host address of a page never changes, the new page has
 * the old one's bytes, and the kernel tells KVM (its MMU notifier) before the old one is gone, so
 * that there is nothing to shoot down.
 */
#include "mem/cow.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/backing.h"

static int create(struct backing *b, struct err *err)
{
        return 0;
}

static void destroy(struct backing *b)
{
}

static int arm(struct backing *b, struct err *err)
{
        return 0;
}

static int list_own(const struct backing *b, uint32_t layer, struct extent_list *list)
{
        return extent_scan_private(b->pagemap_fd, b->hva, b->size, layer, list);
}

/* What is dropped of a private mapping is the layer's again, or zero where there is none. */
static int reset(struct backing *b, struct err *err)
{
        struct extent_list own = {0};
        int r = list_own(b, 0, &own);

        for (size_t i = 0; i < own.count && r == 0; i++) {
                const struct extent *e = &own.items[i];

                if (madvise(b->hva + e->offset, e->length, MADV_DONTNEED) < 0)
                        r = -errno;
        }
        extent_list_fini(&own);
        return r < 0 ? err_host(err, -r, "dropping a clone's own pages: %s", strerror(-r)) : 0;
}

const struct cow_engine cow_private = {
        .name = "private",
        .create = create,
        .destroy = destroy,
        .arm = arm,
        .list_own = list_own,
        .reset = reset,
};

const struct cow_engine *cow_engine_get(enum ramet_cow cow)
{
        switch (cow) {
        case RAMET_COW_PRIVATE:
                return &cow_private;
        case RAMET_COW_TRAP:
                return &cow_trap;
        case RAMET_COW_ROM:
                return &cow_rom;
        }
        return NULL;
}
