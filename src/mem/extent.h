/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists of page ranges, ascending and apart: where a layer has data, which pages are private, and
 * which layer backs which part of guest memory.
 */
#ifndef RAMET_MEM_EXTENT_H
#define RAMET_MEM_EXTENT_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Payload of RECORD_LAYOUT is an array of these. */
struct extent {
        uint64_t offset;      /* bytes into guest memory, and into the layer, too */
        uint64_t length;      /* bytes, not 0 */
        uint32_t layer;       /* index into the layers, 0 at the bottom */
        uint32_t reserved[3]; /* 0 */
};

struct extent_list {
        struct extent *items;
        size_t count, cap;
};

void extent_list_fini(struct extent_list *list);
/* Append; a range that continues the last one with the same layer is merged into it. 0 or -ENOMEM.
 */
int extent_add(struct extent_list *list, uint64_t offset, uint64_t length, uint32_t layer);
/* 0, or -EINVAL when @items is not ascending, apart, page-aligned, inside @size and below @nlayers.
 */
int extent_check(const struct extent *items, size_t count, uint64_t size, unsigned nlayers,
                 struct err *err);
/* Close gaps of at most @gap bytes, then the smallest ones until at most @max ranges are left. */
void extent_coarsen(struct extent_list *list, uint64_t gap, size_t max);
/* @out (empty) becomes @below with @above laid over it. 0 or -ENOMEM. */
int extent_overlay(const struct extent_list *below, const struct extent_list *above,
                   struct extent_list *out);
uint64_t extent_bytes(const struct extent_list *list);

/* The parts of @fd (a memfd of @size bytes) that hold data, as ranges of @layer. 0 or -errno. */
int extent_scan_fd(int fd, uint64_t size, uint32_t layer, struct extent_list *list);

/* The pages of [hva, hva + size) that belong to this process alone (anonymous: written since a
 * private mapping was made, or never backed by a file), as ranges of @layer. @pagemap_fd:
 * /proc/self/pagemap. Uses PAGEMAP_SCAN where there is one (Linux 6.7). 0 or -errno. */
int extent_scan_private(int pagemap_fd, const uint8_t *hva, uint64_t size, uint32_t layer,
                        struct extent_list *list);

#endif
