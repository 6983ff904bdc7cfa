/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that can be frozen without being copied: see backing.h for the three steps.
 *
 * Why the shared mapping is moved aside and not just replaced: replacing it tears down its page
 * tables, which takes as long as there are pages (42 ms for 1 GiB of small ones), and all of that
 * with the vCPUs stopped. mremap() moves whole page-table pages, and the tear-down happens later.
 * MREMAP_DONTUNMAP leaves an empty mapping behind, so that at no time can another thread of the
 * process get the address; the place that it moves to is reserved before the pause.
 *
 * Why sealing takes two steps: F_SEAL_WRITE is refused while any mapping could write, and the
 * parked one could. F_SEAL_FUTURE_WRITE is not, and closes the door for new ones at once. A
 * template is only published once F_SEAL_WRITE is there.
 *
 * A read through a private mapping of a hole would allocate the page in the layer, for all to pay,
 * so that holes are not mapped from the layer at all: what lies under every mapping is anonymous.
 */
#include "mem/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

#define EXTENTS_MAX 32    /* of a root's layer: each costs a clone 3 to 4 microseconds */
#define LAYOUT_MAX  16384 /* ranges of a template: a process may have 65,530 mappings */
#define SEAL_TRIES  4     /* seal_first() */

static struct backing empty(uint64_t size)
{
        return (struct backing){
                .size = size,
                .shared_fd = -1,
                .shared_ro_fd = -1,
                .pagemap_fd = -1,
                .cow = &cow_private,
        };
}

/* Take @size bytes of address space, 2 MiB aligned, anonymous and unaccounted. */
static int reserve(uint64_t size, uint8_t **hva, struct err *err)
{
        uint64_t span = size + BACKING_HUGE_PAGE;
        uint8_t *p = mmap(NULL, span, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        uint64_t head;

        if (p == MAP_FAILED)
                return err_host(err, errno, "mapping %llu MiB of guest memory: %s",
                                (unsigned long long)size >> 20, strerror(errno));
        head = (BACKING_HUGE_PAGE - (uintptr_t)p % BACKING_HUGE_PAGE) % BACKING_HUGE_PAGE;
        if (head)
                munmap(p, head);
        munmap(p + head + size, span - head - size);
        *hva = p + head;
        return 0;
}

static int open_pagemap(struct backing *b, struct err *err)
{
        b->pagemap_fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        if (b->pagemap_fd < 0)
                return err_host(err, errno, "/proc/self/pagemap: %s", strerror(errno));
        return 0;
}

/* --- the memory of a root machine --- */

static int open_memfd(struct backing *b, uint64_t size, struct err *err)
{
        char path[64];

        b->shared_fd = memfd_create("ramet-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (b->shared_fd < 0)
                return err_host(err, errno, "memfd_create: %s", strerror(errno));
        if (ftruncate(b->shared_fd, (off_t)size) < 0)
                return err_host(err, errno, "guest memory of %llu MiB: %s",
                                (unsigned long long)size >> 20, strerror(errno));
        snprintf(path, sizeof path, "/proc/self/fd/%d", b->shared_fd);
        b->shared_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
        if (b->shared_ro_fd < 0)
                return err_host(err, errno, "reopening guest memory read-only: %s",
                                strerror(errno));
        return 0;
}

/* Huge pages make a freeze 20 to 50 times shorter. MADV_COLLAPSE makes them even where the host
 * does not hand them out by itself, but only of ranges with something in them. */
static bool make_huge(struct backing *b)
{
        uint64_t size = b->size - b->size % BACKING_HUGE_PAGE;

        if (size == 0)
                return false;
        /* All of it, or the rest becomes a mapping of its own, and mremap() moves only one. */
        madvise(b->hva, b->size, MADV_HUGEPAGE);
        for (uint64_t at = 0; at < size; at += BACKING_HUGE_PAGE)
                *(volatile uint8_t *)(b->hva + at) = 0;
        return madvise(b->hva, size, MADV_COLLAPSE) == 0;
}

int backing_create(struct backing *b, uint64_t size, bool huge, bool *got_huge, struct err *err)
{
        int r;

        *b = empty(size);
        r = open_memfd(b, size, err);
        if (r == 0)
                r = open_pagemap(b, err);
        if (r == 0)
                r = reserve(size, &b->hva, err);
        if (r == 0 && mmap(b->hva, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                           b->shared_fd, 0) == MAP_FAILED)
                r = err_host(err, errno, "mapping guest memory: %s", strerror(errno));
        if (r < 0) {
                backing_destroy(b);
                return r;
        }
        *got_huge = huge && make_huge(b);
        return 0;
}

/* --- layers, mapped privately --- */

static int map_extents(const struct backing *b, const int *layers,
                       const struct extent_list *extents, struct err *err)
{
        for (size_t i = 0; i < extents->count; i++) {
                const struct extent *e = &extents->items[i];

                if (mmap(b->hva + e->offset, e->length, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, layers[e->layer],
                         (off_t)e->offset) == MAP_FAILED)
                        return err_host(err, errno, "mapping extent %zu of %zu: %s", i,
                                        extents->count, strerror(errno));
        }
        return 0;
}

static int check_layer(int fd, unsigned n, const struct extent_list *extents, struct err *err)
{
        int seals = fcntl(fd, F_GET_SEALS);
        struct stat st;

        if (seals < 0 || (seals & (F_SEAL_WRITE | F_SEAL_SHRINK)) != (F_SEAL_WRITE | F_SEAL_SHRINK))
                return err_input(err, "memory layer %u is not sealed", n);
        if (fstat(fd, &st) < 0)
                return err_host(err, errno, "memory layer %u: %s", n, strerror(errno));
        for (size_t i = 0; i < extents->count; i++) {
                const struct extent *e = &extents->items[i];

                if (e->layer == n && e->offset + e->length > (uint64_t)st.st_size)
                        return err_input(err, "memory layer %u is shorter than its extents", n);
        }
        return 0;
}

static int take_layers(struct backing *b, const int *layers, unsigned nlayers, struct err *err)
{
        int r;

        for (unsigned i = 0; i < nlayers; i++) {
                r = check_layer(layers[i], i, &b->extents, err);
                if (r < 0)
                        return r;
                b->layers[i] = fcntl(layers[i], F_DUPFD_CLOEXEC, 0);
                if (b->layers[i] < 0)
                        return err_host(err, errno, "memory layer %u: %s", i, strerror(errno));
                b->nlayers++;
        }
        return 0;
}

int backing_reserve(struct backing *b, uint64_t size, struct err *err)
{
        int r;

        *b = empty(size);
        r = open_pagemap(b, err);
        return r < 0 ? r : reserve(size, &b->hva, err);
}

int backing_fill(struct backing *b, const int *layers, unsigned nlayers,
                 const struct extent *extents, size_t nextents, struct err *err)
{
        int r;

        if (nlayers > BACKING_LAYERS_MAX)
                return err_input(err, "%u memory layers, expected at most %u", nlayers,
                                 BACKING_LAYERS_MAX);
        r = extent_check(extents, nextents, b->size, nlayers, err);
        for (size_t i = 0; i < nextents && r == 0; i++)
                r = extent_add(&b->extents, extents[i].offset, extents[i].length, extents[i].layer);
        if (r == 0)
                r = take_layers(b, layers, nlayers, err);
        if (r == 0)
                r = map_extents(b, b->layers, &b->extents, err);
        return r < 0 ? r : b->cow->arm(b, err);
}

int backing_set_cow(struct backing *b, const struct cow_engine *engine, const struct cow_env *env,
                    struct err *err)
{
        b->cow = engine;
        b->cow_env = *env;
        return engine->create(b, err);
}

int backing_reset(struct backing *b, struct err *err)
{
        if (b->nlayers == 0)
                return err_input(err, "reset: this machine has no template");
        return b->cow->reset(b, err);
}

int backing_clone(struct backing *b, uint64_t size, const int *layers, unsigned nlayers,
                  const struct extent *extents, size_t nextents, struct err *err)
{
        int r = backing_reserve(b, size, err);

        if (r == 0)
                r = backing_fill(b, layers, nlayers, extents, nextents, err);
        if (r < 0)
                backing_destroy(b);
        return r;
}

static void close_fd(int *fd)
{
        if (*fd > 0)
                close(*fd);
        *fd = -1;
}

void backing_destroy(struct backing *b)
{
        if (b->cow)
                b->cow->destroy(b);
        if (b->hva)
                munmap(b->hva, b->size);
        if (b->parked)
                munmap(b->parked, b->size);
        for (unsigned i = 0; i < b->nlayers; i++)
                close_fd(&b->layers[i]);
        close_fd(&b->shared_fd);
        close_fd(&b->shared_ro_fd);
        close_fd(&b->pagemap_fd);
        extent_list_fini(&b->extents);
        *b = empty(0);
}

/* --- freeze --- */

/* Where the shared mapping will go. Without an address glibc before 2.38 hands mremap() a random
 * hint. */
static int reserve_park(struct backing *b, struct backing_freeze *f, struct err *err)
{
        void *p =
                mmap(NULL, b->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (p == MAP_FAILED)
                return err_host(err, errno, "moving guest memory aside: %s", strerror(errno));
        f->park = p;
        f->park_size = b->size;
        return 0;
}

int backing_freeze_prepare(struct backing *b, struct backing_freeze *f, struct err *err)
{
        int r;

        *f = (struct backing_freeze){.first = b->nlayers == 0, .layer_fd = -1};
        if (f->first) {
                r = extent_scan_fd(b->shared_fd, b->size, 0, &f->data);
                if (r < 0)
                        return err_host(err, -r, "scanning guest memory: %s", strerror(-r));
                return reserve_park(b, f, err);
        }
        f->layer_fd = memfd_create("ramet-layer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (f->layer_fd < 0 || ftruncate(f->layer_fd, (off_t)b->size) < 0)
                return err_host(err, errno, "a new memory layer: %s", strerror(errno));
        return 0;
}

/* Has a hole got data since the scan? Asking that is cheap, scanning anew is not. */
static bool holes_are_empty(const struct backing *b, const struct extent_list *data)
{
        uint64_t at = 0;

        for (size_t i = 0; i <= data->count; i++) {
                uint64_t end = i < data->count ? data->items[i].offset : b->size;

                if (at < end) {
                        off_t next = lseek(b->shared_fd, (off_t)at, SEEK_DATA);

                        if (next >= 0 && (uint64_t)next < end)
                                return false;
                }
                if (i < data->count)
                        at = end + data->items[i].length;
        }
        return true;
}

/* Move the shared mapping to the reserved place. The range stays mapped, shared and empty, so that
 * nobody else gets the addresses before map_anew() has replaced all of it. */
static int park(struct backing *b, struct backing_freeze *f, struct err *err)
{
        if (mremap(b->hva, b->size, b->size, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
                   f->park) == MAP_FAILED)
                return err_host(err, errno, "moving guest memory aside: %s", strerror(errno));
        b->parked = f->park;
        f->park = NULL;
        return 0;
}

/* Each part is mapped once, privately or, where there is no data, anonymously: replacing a mapping
 * makes KVM look for what it knows of each of its pages, even when there is nothing. */
static int map_anew(const struct backing *b, const struct extent_list *data, struct err *err)
{
        uint64_t at = 0;

        for (size_t i = 0; i <= data->count; i++) {
                uint64_t end = i < data->count ? data->items[i].offset : b->size;

                if (at < end && mmap(b->hva + at, end - at, PROT_READ | PROT_WRITE,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                                     0) == MAP_FAILED)
                        return err_host(err, errno, "mapping guest memory anew: %s",
                                        strerror(errno));
                if (i < data->count)
                        at = end + data->items[i].length;
        }
        return map_extents(b, &b->shared_ro_fd, data, err);
}

static bool move_back(const struct backing *b)
{
        return mremap(b->parked, b->size, b->size, MREMAP_MAYMOVE | MREMAP_FIXED, b->hva) !=
               MAP_FAILED;
}

/* The likely reason to be here is that the process has as many mappings as it may have, and then
 * mremap() wants some to go first, although it replaces them. Only in that case is the range free
 * for a moment. */
static void unpark(struct backing *b)
{
        if (!b->parked)
                return;
        if (move_back(b) || (munmap(b->hva, b->size) == 0 && move_back(b)))
                b->parked = NULL;
}

/* From shared memory to a machine on one layer ... */
static void take_hands(struct backing *b, struct backing_freeze *f)
{
        b->layers[0] = b->shared_ro_fd;
        b->shared_ro_fd = -1;
        b->nlayers = 1;
        b->unsealed = true;
        b->extents = f->data;
        f->data = (struct extent_list){0};
}

/* ... and back, since its engine will not have it. That no new writer is let in does not matter. */
static void give_back(struct backing *b, struct backing_freeze *f)
{
        f->data = b->extents;
        b->extents = (struct extent_list){0};
        b->unsealed = false;
        b->nlayers = 0;
        b->shared_ro_fd = b->layers[0];
        b->layers[0] = -1;
}

static int freeze_first(struct backing *b, struct backing_freeze *f, struct err *err)
{
        int r;

        if (!holes_are_empty(b, &f->data)) {
                f->data.count = 0;
                r = extent_scan_fd(b->shared_fd, b->size, 0, &f->data);
                if (r < 0)
                        return err_host(err, -r, "scanning guest memory: %s", strerror(-r));
        }
        extent_coarsen(&f->data, BACKING_GAP, EXTENTS_MAX);
        r = park(b, f, err);
        if (r == 0)
                r = map_anew(b, &f->data, err);
        if (r == 0 &&
            fcntl(b->shared_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) < 0)
                r = err_host(err, errno, "sealing guest memory: %s", strerror(errno));
        if (r == 0) {
                take_hands(b, f);
                r = b->cow->arm(b, err);
                if (r < 0)
                        give_back(b, f);
        }
        if (r < 0)
                unpark(b);
        return r;
}

static int copy_range(const struct backing *b, int fd, uint64_t offset, uint64_t length)
{
        while (length > 0) {
                uint64_t piece = length;
                const uint8_t *from =
                        b->cow->find ? b->cow->find(b, offset, length, &piece) : b->hva + offset;
                ssize_t n = pwrite(fd, from, piece, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                offset += (uint64_t)n;
                length -= (uint64_t)n;
        }
        return 0;
}

static int freeze_again(struct backing *b, struct backing_freeze *f, struct err *err)
{
        int r = b->cow->list_own(b, b->nlayers, &f->copied);

        for (size_t i = 0; i < f->copied.count && r == 0; i++)
                r = copy_range(b, f->layer_fd, f->copied.items[i].offset,
                               f->copied.items[i].length);
        if (r < 0)
                return err_host(err, -r, "copying a clone's own pages: %s", strerror(-r));
        f->copied_bytes = extent_bytes(&f->copied);
        return 0;
}

int backing_freeze(struct backing *b, struct backing_freeze *f, struct err *err)
{
        return f->first ? freeze_first(b, f, err) : freeze_again(b, f, err);
}

/* The last seal of the root's memfd, once nothing maps it writably any more. The kernel itself
 * holds pages for a moment, for instance to move them between its lists, and refuses if it meets
 * one all the 160 ms that it looks; with vCPUs that run on, that can be by chance. */
static int seal_first(struct backing *b, struct err *err)
{
        int r = -1;

        if (!b->unsealed)
                return 0;
        if (b->parked) {
                munmap(b->parked, b->size);
                b->parked = NULL;
        }
        for (unsigned i = 0; r < 0 && i < SEAL_TRIES; i++)
                r = fcntl(b->shared_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL);
        if (r < 0)
                return err_host(err, errno, "sealing guest memory: %s%s", strerror(errno),
                                errno == EBUSY ? ": something else maps or pins it" : "");
        b->unsealed = false;
        close_fd(&b->shared_fd);
        return 0;
}

/* What the template is made of, before its layer is sealed. */
static int lay_out(const struct backing *b, struct backing_freeze *f, unsigned *nlayers,
                   struct extent_list *extents, struct err *err)
{
        unsigned n = b->nlayers + (f->copied.count != 0);
        int r = extent_overlay(&b->extents, &f->copied, extents);

        if (r == 0 && n > BACKING_LAYERS_DEEP) {
                r = backing_flatten(b->layers, b->nlayers, f->layer_fd, extents,
                                    &f->flattened_bytes);
                n = 2;
        } else if (r == 0 && f->copied.count) {
                r = backing_close_gaps(b->layers, b->nlayers, f->layer_fd, &b->extents, &f->copied,
                                       extents, &f->filled_bytes);
        }
        if (r < 0)
                return err_host(err, -r, "laying out the memory of a template: %s", strerror(-r));
        if (extents->count > LAYOUT_MAX)
                return err_host(err, E2BIG, "memory of this machine is in %zu pieces, more than %u",
                                extents->count, LAYOUT_MAX);
        *nlayers = n;
        return 0;
}

int backing_freeze_publish(struct backing *b, struct backing_freeze *f, int *layers,
                           unsigned *nlayers, struct extent_list *extents, struct err *err)
{
        int r = seal_first(b, err);

        if (r < 0)
                return r;
        *extents = (struct extent_list){0};
        r = lay_out(b, f, nlayers, extents, err);
        if (r == 0 && !f->first &&
            fcntl(f->layer_fd, F_ADD_SEALS,
                  F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                r = err_host(err, errno, "sealing a memory layer: %s", strerror(errno));
        if (r < 0) {
                extent_list_fini(extents);
                return r;
        }
        for (unsigned i = 0; i < *nlayers; i++)
                layers[i] = i < b->nlayers ? b->layers[i] : f->layer_fd;
        if (f->copied.count || f->flattened_bytes)
                layers[*nlayers - 1] = f->layer_fd;
        return 0;
}

void backing_freeze_end(struct backing_freeze *f)
{
        extent_list_fini(&f->data);
        extent_list_fini(&f->copied);
        close_fd(&f->layer_fd);
        if (f->park)
                munmap(f->park, f->park_size);
        *f = (struct backing_freeze){.layer_fd = -1};
}

int backing_usage(const struct backing *b, uint64_t *shared_bytes, uint64_t *private_bytes)
{
        struct extent_list own = {0}, covered = {0};
        uint64_t under = extent_bytes(&b->extents);
        int r = b->cow->list_own(b, UINT32_MAX, &own);

        if (r == 0)
                r = extent_overlay(&b->extents, &own, &covered);
        if (r == 0) {
                *private_bytes = extent_bytes(&own);
                /* What the overlay did not hide of the layers. */
                *shared_bytes = extent_bytes(&covered) - *private_bytes;
                if (*shared_bytes > under)
                        *shared_bytes = under;
        }
        if (r == 0 && b->nlayers == 0) {
                r = extent_scan_fd(b->shared_fd, b->size, 0, &covered);
                *private_bytes = r == 0 ? extent_bytes(&covered) : 0;
                *shared_bytes = 0;
        }
        extent_list_fini(&own);
        extent_list_fini(&covered);
        return r;
}
