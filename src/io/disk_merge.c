/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several overlays become one, which shows what they show together: run by run, from the topmost
 * that has it. Runs that are holes stay holes. The result is in memory and frozen.
 */
#include "io/disk_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define CHUNK (256u << 10)

/* Copy [at, at + len) of the disk; *at ends where something failed. */
static int copy(const struct overlay *from, const struct overlay *to, uint64_t at, uint64_t len,
                void *buf)
{
        while (len) {
                off_t in = (off_t)(from->data_offset + at);
                off_t data = lseek(from->fd, in, SEEK_DATA);
                uint64_t skip = len;
                ssize_t n;
                int ret;

                if (data < 0 && errno != ENXIO)
                        data = in; /* it cannot say */
                if (data >= 0 && (uint64_t)(data - in) < len)
                        skip = (uint64_t)(data - in);
                at += skip;
                len -= skip;
                if (!len)
                        return 0;
                n = pread(from->fd, buf, len < CHUNK ? len : CHUNK,
                          (off_t)(from->data_offset + at));
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                ret = file_write_at(to->fd, buf, (size_t)n, to->data_offset + at);
                if (ret < 0)
                        return ret;
                at += (uint64_t)n;
                len -= (uint64_t)n;
        }
        return 0;
}

/* The first sector from @s on that any of them may have. */
static uint64_t next(struct overlay *const *overlays, unsigned n, uint64_t s)
{
        uint64_t first = UINT64_MAX;

        for (unsigned i = 0; i < n; i++) {
                uint64_t here = overlay_next_page(overlays[i], s);

                first = here < first ? here : first;
        }
        return first;
}

/* Page by page of their bitmaps: most of a large disk is in none of them. */
static int copy_all(struct overlay *const *overlays, unsigned n, struct overlay *to, void *buf)
{
        const uint64_t page = OVERLAY_PAGE * 8;
        uint64_t sectors = to->info.disk_bytes / OVERLAY_SECTOR, run;
        int ret = 0;

        for (uint64_t s = 0; !ret && s < sectors; s += run) {
                uint64_t max = page - s % page;
                int layer;

                if (max == page) {
                        s = next(overlays, n, s);
                        if (s >= sectors)
                                break;
                }
                max = max < sectors - s ? max : sectors - s;
                layer = overlay_find(overlays, n, s, max, &run);
                if (layer < 0)
                        continue;
                ret = copy(overlays[layer], to, s * OVERLAY_SECTOR, run * OVERLAY_SECTOR, buf);
                overlay_set(to, s, run);
        }
        return ret;
}

int disk_merge(struct overlay *const *overlays, unsigned n, struct overlay **merged,
               struct err *err)
{
        struct overlay *to;
        void *buf = malloc(CHUNK);
        int ret = buf ? 0 : err_host(err, ENOMEM, "no memory to merge layers of a disk");

        if (!ret)
                ret = overlay_make(&overlays[n - 1]->info, -1, -1, &to, err);
        if (ret) {
                free(buf);
                return ret;
        }
        ret = copy_all(overlays, n, to, buf);
        if (ret)
                err_host(err, -ret, "merge layers of a disk: %s", strerror(-ret));
        free(buf);
        if (!ret)
                ret = overlay_seal(to, err);
        if (ret)
                overlay_close(to);
        else
                *merged = to;
        return ret;
}
