/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done to a new layer after the pause and before its seal: gaps are closed, and many layers
 * become two.
 *
 * Gaps: only a clone's own pages are copied while it is stopped. Scattered ones would make many
 * ranges, each of which costs a mapping in every clone to come, so that small gaps between them are
 * filled from the layers below afterwards.
 *
 * Layers: a clone of a clone of a clone stands on one layer more each time, and each
 * costs a descriptor, mappings, and memory that nothing shows any more. So when a freeze would pass
 * BACKING_LAYERS_DEEP, everything above the root's layer that the new template shows is copied into
 * the template's own layer, which is not sealed yet:
 *
 *      3  [new]          [new]                         1  [new###][new##]
 *      2        [c][c]                        -->
 *      1  [bbbbb]   [b]
 *      0  [root.......................]                0  [root.......................]
 *
 * The layers that are read are sealed, so that this is done while the vCPUs run; nobody who stands
 * on them is concerned, and they go away with their last user. The root's layer is never copied but
 * for small gaps, which cost less as bytes than as mappings.
 *
 * What it costs: as many bytes as the template shows above the root, at most the size of memory,
 * once in BACKING_LAYERS_DEEP - 2 generations; and again at each freeze of a machine that stands on
 * BACKING_LAYERS_DEEP layers itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "mem/backing.h"

#define BUFFER (256u << 10)

static int copy(int from, int to, uint64_t offset, uint64_t length, uint8_t *buffer)
{
        int r = 0;

        while (length > 0 && r == 0) {
                ssize_t n = pread(from, buffer, length < BUFFER ? length : BUFFER, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                r = file_write_at(to, buffer, (size_t)n, offset);
                offset += (uint64_t)n;
                length -= (uint64_t)n;
        }
        return r;
}

/* Of all that @shown says, the parts within @merged, but for what is in the new layer already. */
static int copy_all(const int *layers, uint32_t top, int layer_fd, const struct extent_list *shown,
                    const struct extent_list *merged, uint64_t *copied_bytes)
{
        uint8_t *buffer = malloc(BUFFER);
        size_t m = 0;
        int r = buffer ? 0 : -ENOMEM;

        for (size_t i = 0; i < shown->count && r == 0; i++) {
                const struct extent *e = &shown->items[i];
                uint64_t end = e->offset + e->length;

                while (m < merged->count &&
                       merged->items[m].offset + merged->items[m].length <= e->offset)
                        m++;
                for (size_t k = m; k < merged->count && r == 0 && e->layer != top; k++) {
                        const struct extent *in = &merged->items[k];
                        uint64_t from = in->offset > e->offset ? in->offset : e->offset;
                        uint64_t to = in->offset + in->length < end ? in->offset + in->length : end;

                        if (from >= to)
                                break;
                        r = copy(layers[e->layer], layer_fd, from, to - from, buffer);
                        *copied_bytes += to - from;
                }
        }
        free(buffer);
        return r;
}

int backing_close_gaps(const int *layers, uint32_t top, int layer_fd,
                       const struct extent_list *below, struct extent_list *copied,
                       struct extent_list *extents, uint64_t *copied_bytes)
{
        struct extent_list out = {0};
        int r;

        extent_coarsen(copied, BACKING_GAP, BACKING_COPY_MAX);
        r = copy_all(layers, top, layer_fd, extents, copied, copied_bytes);
        if (r == 0)
                r = extent_overlay(below, copied, &out);
        if (r < 0) {
                extent_list_fini(&out);
                return r;
        }
        extent_list_fini(extents);
        *extents = out;
        return 0;
}

int backing_flatten(const int *layers, uint32_t top, int layer_fd, struct extent_list *extents,
                    uint64_t *copied_bytes)
{
        struct extent_list root = {0}, merged = {0}, out = {0};
        int r = 0;

        for (size_t i = 0; i < extents->count && r == 0; i++) {
                const struct extent *e = &extents->items[i];

                r = extent_add(e->layer ? &merged : &root, e->offset, e->length, e->layer ? 1 : 0);
        }
        if (r == 0) {
                extent_coarsen(&merged, BACKING_GAP, BACKING_COPY_MAX);
                r = copy_all(layers, top, layer_fd, extents, &merged, copied_bytes);
        }
        if (r == 0)
                r = extent_overlay(&root, &merged, &out);
        extent_list_fini(&root);
        extent_list_fini(&merged);
        if (r < 0) {
                extent_list_fini(&out);
                return r;
        }
        extent_list_fini(extents);
        *extents = out;
        return 0;
}
