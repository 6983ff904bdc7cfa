/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is behind guest memory: one range of host addresses, fixed for the machine's life, whose
 * backing changes under it.
 *
 *      root, until its first freeze:      MAP_SHARED of a memfd
 *      afterwards, and every clone:       MAP_PRIVATE of sealed layers, anonymous where they have
 * holes; the host kernel breaks copy-on-write (engine "private")
 *
 * A freeze takes three steps, so that the middle one, with all vCPUs stopped, is as short as can
 * be:
 *
 *      backing_freeze_prepare    vCPUs run     find which parts of the memfd hold data
 *      backing_freeze            stopped       root: move the shared mapping aside (no page is
 * touched), map the memfd privately in its place, allow no new writer clone: copy its own pages
 * into a new memfd backing_freeze_publish    vCPUs run     drop what was moved aside, seal for good
 *
 * Nobody ever writes a sealed layer. Threads: the machine's owner; backing_freeze with every
 * participant stopped.
 */
#ifndef RAMET_MEM_BACKING_H
#define RAMET_MEM_BACKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "mem/cow.h"
#include "mem/extent.h"

#define BACKING_LAYERS_MAX  200u
#define BACKING_LAYERS_DEEP 16u /* no template of ours has more: flatten.c */
#define BACKING_HUGE_PAGE   (2ull << 20)
#define BACKING_GAP         (64u << 10) /* copying this much costs no more than a range more */
#define BACKING_COPY_MAX    512         /* ranges of a copied layer */

struct backing {
        uint8_t *hva;     /* [I] 2 MiB aligned */
        uint64_t size;    /* [I] bytes, a multiple of 4 KiB */
        int pagemap_fd;   /* [I] /proc/self/pagemap, opened while that was still allowed */
        int shared_fd;    /* root before its first freeze: the writable memfd; else -1 */
        int shared_ro_fd; /* the same memfd, opened read-only: the layer-to-be */
        uint8_t *parked;  /* the shared mapping between freeze and publish; else NULL */
        bool unsealed;    /* the top layer's F_SEAL_WRITE failed; tried again at the next freeze */
        unsigned nlayers;
        int layers[BACKING_LAYERS_MAX]; /* owned; bottom first */
        struct extent_list extents;     /* which layer backs what; the rest is anonymous */
        const struct cow_engine *cow;   /* [I] never NULL; cow_private unless chosen otherwise */
        struct cow_env cow_env;         /* [I] */
        void *cow_state;                /* the engine's own */
        uint64_t keep_bytes; /* if it has no more of its own at a reset, it may keep them,
                              * with the template's bytes in them */
        uint64_t kept_bytes; /* so many, by the last one */
};

/* Empty memory of @size bytes for a root machine. @huge: put it on huge pages now where the host
 * can; *got_huge says whether. 0 or -errno. */
int backing_create(struct backing *b, uint64_t size, bool huge, bool *got_huge, struct err *err);

/* Addresses for a clone's memory, with nothing behind them yet: KVM slots can be set over them. */
int backing_reserve(struct backing *b, uint64_t size, struct err *err);
/* Put a template's memory there: @layers (duplicated) under @extents (copied). They are checked:
 * order, bounds, layer numbers, each layer sealed and long enough. On failure the memory is only
 * good for backing_destroy(). */
int backing_fill(struct backing *b, const int *layers, unsigned nlayers,
                 const struct extent *extents, size_t nextents, struct err *err);
/* Both in one; destroyed on failure. */
int backing_clone(struct backing *b, uint64_t size, const int *layers, unsigned nlayers,
                  const struct extent *extents, size_t nextents, struct err *err);

/* Choose the engine, once, after create or reserve, and before memory is private. 0, or what the
 * engine's create() returns, and then memory is only good for backing_destroy(). */
int backing_set_cow(struct backing *b, const struct cow_engine *engine, const struct cow_env *env,
                    struct err *err);

/* Give all of the machine's own pages back to its template; vCPUs stopped. 0 or -errno. */
int backing_reset(struct backing *b, struct err *err);

void backing_destroy(struct backing *b); /* zeroed, or after a failure, is fine */

/* What a freeze needs between its steps. */
struct backing_freeze {
        bool first;              /* of a root machine: nothing is copied */
        struct extent_list data; /* first: data of the memfd */
        uint8_t *park;           /* first: reserved addresses for the shared mapping, or NULL */
        uint64_t park_size;
        struct extent_list copied; /* not first: pages in the new layer */
        int layer_fd;              /* not first: the new layer, not sealed yet */
        uint64_t copied_bytes;     /* while the vCPUs were stopped */
        uint64_t flattened_bytes;  /* and of lower layers, while they ran */
        uint64_t filled_bytes;     /* gaps between them, likewise */
};

/* 0 or -errno. After success backing_freeze_end() must follow at some time. */
int backing_freeze_prepare(struct backing *b, struct backing_freeze *f, struct err *err);
/* 0 or -errno, and then memory is as it was. */
int backing_freeze(struct backing *b, struct backing_freeze *f, struct err *err);
/* 0 and the template's memory: @extents (owned by the caller from now on) over @layers (borrowed
 * descriptors, room for BACKING_LAYERS_MAX). -EBUSY: somebody else could still write the layer, so
 * there is no template; the machine runs on, and a later freeze tries again. -E2BIG: a clone of
 * clones whose memory is in more pieces than one of its own could map. */
int backing_freeze_publish(struct backing *b, struct backing_freeze *f, int *layers,
                           unsigned *nlayers, struct extent_list *extents, struct err *err);
void backing_freeze_end(struct backing_freeze *f);

/* For backing_freeze_publish(). @copied, the pages that are in the new layer @layer_fd, number
 * @top, become few ranges: gaps are filled with what @extents, of @copied over @below, show there,
 * and
 * @extents becomes the same with these. 0 or -errno. */
int backing_close_gaps(const int *layers, uint32_t top, int layer_fd,
                       const struct extent_list *below, struct extent_list *copied,
                       struct extent_list *extents, uint64_t *copied_bytes);
/* Likewise. @extents, over @layers and the new layer @layer_fd, which is number
 * @top, become extents over the lowest layer and the new one. 0 or -errno. */
int backing_flatten(const int *layers, uint32_t top, int layer_fd, struct extent_list *extents,
                    uint64_t *copied_bytes);

/* How much is the machine's own, in bytes; the rest of what the extents cover is shared. */
int backing_usage(const struct backing *b, uint64_t *shared_bytes, uint64_t *private_bytes);

#endif
