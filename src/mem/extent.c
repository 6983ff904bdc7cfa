/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranges of pages: see extent.h. All of it is arithmetic on sorted lists, but for the two scans
 * that ask the kernel.
 */
#include "mem/extent.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#define PAGE 4096ull

void extent_list_fini(struct extent_list *list)
{
        free(list->items);
        *list = (struct extent_list){0};
}

int extent_add(struct extent_list *list, uint64_t offset, uint64_t length, uint32_t layer)
{
        struct extent *last = list->count ? &list->items[list->count - 1] : NULL;

        if (length == 0)
                return 0;
        if (last && last->layer == layer && last->offset + last->length == offset) {
                last->length += length;
                return 0;
        }
        if (list->count == list->cap) {
                size_t cap = list->cap ? list->cap * 2 : 32;
                struct extent *items = realloc(list->items, cap * sizeof *items);

                if (!items)
                        return -ENOMEM;
                list->items = items;
                list->cap = cap;
        }
        list->items[list->count++] =
                (struct extent){.offset = offset, .length = length, .layer = layer};
        return 0;
}

int extent_check(const struct extent *items, size_t count, uint64_t size, unsigned nlayers,
                 struct err *err)
{
        uint64_t end = 0;

        for (size_t i = 0; i < count; i++) {
                const struct extent *e = &items[i];

                if (e->offset % PAGE || e->length % PAGE || e->length == 0 || e->offset < end ||
                    e->offset > size || e->length > size - e->offset)
                        return err_input(err, "memory layout: extent %zu is out of order or bounds",
                                         i);
                if (e->layer >= nlayers)
                        return err_input(err, "memory layout: extent %zu is of layer %u, of %u", i,
                                         e->layer, nlayers);
                end = e->offset + e->length;
        }
        return 0;
}

static uint64_t gap_before(const struct extent_list *list, size_t i)
{
        const struct extent *prev = &list->items[i - 1];

        return list->items[i].offset - (prev->offset + prev->length);
}

static void close_gaps(struct extent_list *list, uint64_t gap)
{
        size_t kept = 0;

        for (size_t i = 1; i < list->count; i++) {
                struct extent *last = &list->items[kept];
                const struct extent e = list->items[i];

                if (e.offset - (last->offset + last->length) <= gap)
                        last->length = e.offset + e.length - last->offset;
                else
                        list->items[++kept] = e;
        }
        if (list->count)
                list->count = kept + 1;
}

static int by_size(const void *a, const void *b)
{
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

void extent_coarsen(struct extent_list *list, uint64_t gap, size_t max)
{
        uint64_t *gaps;

        close_gaps(list, gap);
        if (list->count <= max)
                return;
        gaps = malloc((list->count - 1) * sizeof *gaps);
        if (!gaps)
                return; /* more ranges are slower, not wrong */
        for (size_t i = 1; i < list->count; i++)
                gaps[i - 1] = gap_before(list, i);
        qsort(gaps, list->count - 1, sizeof *gaps, by_size);
        close_gaps(list, gaps[list->count - 1 - max]);
        free(gaps);
}

int extent_overlay(const struct extent_list *below, const struct extent_list *above,
                   struct extent_list *out)
{
        uint64_t at = 0; /* everything before it is in @out */
        size_t b = 0;
        int r = 0;

        for (size_t a = 0; a <= above->count && r == 0; a++) {
                uint64_t upto = a < above->count ? above->items[a].offset : UINT64_MAX;

                /* What lies below, from @at up to the next range above. */
                while (b < below->count && r == 0) {
                        const struct extent *e = &below->items[b];
                        uint64_t end = e->offset + e->length;
                        uint64_t from = e->offset > at ? e->offset : at;
                        uint64_t to = end < upto ? end : upto;

                        if (from < to)
                                r = extent_add(out, from, to - from, e->layer);
                        if (end > upto)
                                break;
                        b++;
                }
                if (a < above->count && r == 0) {
                        const struct extent *e = &above->items[a];

                        r = extent_add(out, e->offset, e->length, e->layer);
                        at = e->offset + e->length;
                }
        }
        return r;
}

uint64_t extent_bytes(const struct extent_list *list)
{
        uint64_t n = 0;

        for (size_t i = 0; i < list->count; i++)
                n += list->items[i].length;
        return n;
}

int extent_scan_fd(int fd, uint64_t size, uint32_t layer, struct extent_list *list)
{
        off_t at = 0;

        while ((uint64_t)at < size) {
                off_t data = lseek(fd, at, SEEK_DATA);
                off_t hole;
                int r;

                if (data < 0)
                        return errno == ENXIO ? 0 : -errno; /* ENXIO: no data from here on */
                hole = lseek(fd, data, SEEK_HOLE);
                if (hole < 0)
                        return -errno;
                r = extent_add(list, (uint64_t)data, (uint64_t)(hole - data), layer);
                if (r < 0)
                        return r;
                at = hole;
        }
        return 0;
}
