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
#include <unistd.h>

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

/* The template's bytes of [offset, offset + length), into pages that are there. */
static int copy_back(struct backing *b, uint64_t offset, uint64_t length)
{
        const struct extent *e = b->extents.items, *end = e + b->extents.count;

        for (; length > 0 && e < end; e++) {
                uint64_t to = e->offset + e->length, n;

                if (to <= offset)
                        continue;
                if (e->offset > offset) { /* a hole before it */
                        n = e->offset - offset < length ? e->offset - offset : length;
                        memset(b->hva + offset, 0, n);
                        offset += n;
                        length -= n;
                }
                n = to - offset < length ? to - offset : length;
                if (n > 0 &&
                    pread(b->layers[e->layer], b->hva + offset, n, (off_t)offset) != (ssize_t)n)
                        return -EIO;
                offset += n;
                length -= n;
        }
        memset(b->hva + offset, 0, length);
        return 0;
}

static int drop(struct backing *b, uint64_t offset, uint64_t length)
{
        return madvise(b->hva + offset, length, MADV_DONTNEED) < 0 ? -errno : 0;
}

/* What is dropped of a private mapping is the layer's again, or zero where there is none; the next
 * write breaks it anew, which costs some 20 microseconds, 50 with shadow page tables. Copying a
 * page back costs less than one: a machine that writes to few pages, and is likely to write to the
 * same ones again, keeps them. */
static int reset(struct backing *b, struct err *err)
{
        struct extent_list own = {0};
        int r = list_own(b, 0, &own);
        const bool keep = extent_bytes(&own) <= b->keep_bytes;

        for (size_t i = 0; i < own.count && r == 0; i++)
                r = (keep ? copy_back : drop)(b, own.items[i].offset, own.items[i].length);
        b->kept_bytes = keep ? extent_bytes(&own) : 0;
        extent_list_fini(&own);
        return r < 0 ? err_host(err, -r, "taking back a clone's own pages: %s", strerror(-r)) : 0;
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
