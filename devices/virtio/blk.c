// SPDX-License-Identifier: Apache-2.0
/*
 * A virtio block device (virtio 1.2, section 5.2) on a disk (io/disk.h): its configuration, its
 * limits, its forks. blk_request.c does what the guest asks for.
 *
 * A fork. Requests are finished before state is saved (the transport's quiesce), so what the guest
 * knows to be written is in the layers that all clones get, and what is still in the queue is taken
 * from there once in each of them. The disk's files travel beside the record; the record says how
 * many they are. Limits go along with what is used up of them: a clone is no way around them.
 */
#include "devices/virtio/blk.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "devices/registry.h"

/* Of a disk; what the transport saves comes before it. */
struct blk_record {
        char serial[24]; /* VIRTIO_BLK_ID_BYTES, then zeros */
        struct blk_level {
                uint64_t rate;    /* a second; 0: no limit */
                uint64_t full_ns; /* from now until the bucket is full again */
                uint64_t rest;
        } requests, bytes;
        struct disk_record disk;
};

/* A debt that large is none that requests have made: the largest, at one byte a second, and again
 * as much for the second that a bucket holds. */
#define LEVEL_NS_MAX (2 * BLK_DATA_MAX * 1000000000)

static struct blk *blk_of(void *dev)
{
        return dev;
}

/* --- configuration --- */

static uint64_t features_if(bool ro)
{
        uint64_t f = 1ull << VIRTIO_BLK_F_SIZE_MAX | 1ull << VIRTIO_BLK_F_SEG_MAX |
                     1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_TOPOLOGY |
                     1ull << VIRTIO_BLK_F_FLUSH;

        if (ro)
                return f | 1ull << VIRTIO_BLK_F_RO;
        return f | 1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
}

static uint64_t features(struct virtio_device *v)
{
        return features_if(disk_readonly(blk_of(v)->disk));
}

/* A clone's disk is not known before. */
static uint64_t features_of(struct virtio_device *v, const void *record)
{
        struct blk_record in;

        memcpy(&in, record, sizeof in);
        return features_if(in.disk.readonly);
}

#define CONFIG_BYTES offsetof(struct virtio_blk_config, max_secure_erase_sectors)

static void read_config(struct virtio_device *v, uint32_t offset, uint8_t *data, unsigned len)
{
        const struct virtio_blk_config config = {
                .capacity = htole64(disk_bytes(blk_of(v)->disk) / DISK_SECTOR),
                .size_max = htole32(BLK_SIZE_MAX),
                .seg_max = htole32(BLK_SEG_MAX),
                .blk_size = htole32(DISK_SECTOR),
                .physical_block_exp = 3, /* BLK_ALIGN */
                .min_io_size = htole16(BLK_ALIGN),
                .max_discard_sectors = htole32(BLK_DISCARD_MAX),
                .max_discard_seg = htole32(BLK_RANGES_MAX),
                .discard_sector_alignment = htole32(BLK_ALIGN),
                .max_write_zeroes_sectors = htole32(BLK_ZEROES_MAX),
                .max_write_zeroes_seg = htole32(BLK_RANGES_MAX),
                .write_zeroes_may_unmap = 1,
        };

        memset(data, 0, len);
        if (offset < CONFIG_BYTES)
                memcpy(data, (const uint8_t *)&config + offset,
                       len < CONFIG_BYTES - offset ? len : CONFIG_BYTES - offset);
}

static void reset(struct virtio_device *v)
{
        struct blk *b = blk_of(v);

        blk_unthrottle(b);
        b->starved = false;
}

/* --- saved state --- */

static struct blk_level level_of(const struct throttle_bucket *bucket, uint64_t now)
{
        struct blk_level l = {.rate = bucket->rate};

        if (bucket->full_ns >= now) {
                l.full_ns = bucket->full_ns - now;
                l.rest = bucket->rest;
        }
        return l;
}

static struct throttle_bucket bucket_of(const struct blk_level *l, uint64_t now)
{
        return (struct throttle_bucket){
                .rate = l->rate, .full_ns = now + l->full_ns, .rest = l->rest};
}

static void save(struct virtio_device *v, void *record)
{
        struct blk *b = blk_of(v);
        struct blk_record out = {0};
        uint64_t now = clock_now_ns();

        memcpy(out.serial, b->serial, sizeof b->serial);
        out.requests = level_of(&b->throttle.requests, now);
        out.bytes = level_of(&b->throttle.bytes, now);
        disk_save(b->disk, &out.disk);
        memcpy(record, &out, sizeof out);
}

static int check_level(const struct blk_level *l, const char *what, struct err *err)
{
        if (l->full_ns > LEVEL_NS_MAX || (l->rate == 0 && l->full_ns > 0) ||
            (l->rest > 0 && l->rest >= l->rate))
                return err_input(err, "virtio-blk: the level of the limit of %s is out of range",
                                 what);
        return 0;
}

static int check_record(const struct blk_record *in, struct err *err)
{
        static const char zero[sizeof in->serial - VIRTIO_BLK_ID_BYTES];
        int r;

        if (memcmp(in->serial + VIRTIO_BLK_ID_BYTES, zero, sizeof zero))
                return err_input(err, "virtio-blk: the serial number is too long");
        r = check_level(&in->requests, "requests", err);
        return r < 0 ? r : check_level(&in->bytes, "bytes", err);
}

static int restore(struct virtio_device *v, const void *record, struct err *err)
{
        struct blk *b = blk_of(v);
        struct blk_record in;
        uint64_t now = clock_now_ns();
        int r;

        memcpy(&in, record, sizeof in);
        r = check_record(&in, err);
        if (r == 0) {
                r = disk_restore(b->disk, &in.disk, b->files, b->nfiles, err);
                err_prefix(err, r, "virtio-blk");
        }
        b->nfiles = 0;
        if (r < 0)
                return r;
        reset(v);
        memcpy(b->serial, in.serial, sizeof b->serial);
        b->throttle.requests = bucket_of(&in.requests, now);
        b->throttle.bytes = bucket_of(&in.bytes, now);
        b->limited = in.requests.rate || in.bytes.rate;
        return 0;
}

static const struct virtio_ops blk_virtio_ops = {
        .name = "virtio-blk",
        .device_id = VIRTIO_ID_BLOCK,
        .nqueues = 1,
        .queue_size_max = VIRTQ_SIZE_MAX,
        .features = features,
        .features_of = features_of,
        .config_bytes = CONFIG_BYTES,
        .read_config = read_config,
        .process = blk_process,
        .reset = reset,
        .record_bytes = sizeof(struct blk_record),
        .save = save,
        .restore = restore,
};

/* --- life --- */

static unsigned blk_count(const struct device_params *params)
{
        return params->ndisks;
}

/* The descriptors are the disk's, whatever comes of it. */
static int open_disk(struct blk *b, struct device_disk *d, struct err *err)
{
        const struct disk_options options = {
                .image_fd = d->image_fd,
                .image_ro_fd = d->image_ro_fd,
                .overlay_fd = d->overlay_fd,
                .overlay_ro_fd = d->overlay_ro_fd,
                .readonly = d->readonly,
                .name = d->name,
        };

        d->image_fd = d->image_ro_fd = d->overlay_fd = d->overlay_ro_fd = -1;
        return disk_open(b->v.env->loop, &options, &b->disk, err);
}

static void blk_destroy(void *dev)
{
        struct blk *b = dev;

        if (!b)
                return;
        b->dying = true;
        loop_io_drain(b->v.env->loop);
        loop_remove(b->timer);
        virtio_fini(&b->v);
        disk_close(b->disk);
        munmap(b->pool, BLK_REQUESTS * sizeof *b->pool);
        free(b);
}

static int blk_create(const struct device_env *env, const struct device_params *params,
                      unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                      unsigned *nwindows, struct err *err)
{
        struct device_disk *d = &params->disks[index];
        struct blk *b = calloc(1, sizeof *b);
        int r;

        if (!b)
                return err_host(err, ENOMEM, "virtio-blk: out of memory");
        b->v.env = env;
        r = open_disk(b, d, err);
        if (r < 0)
                goto fail;
        /* Zeroed, and none of it there before it is used. */
        b->pool = mmap(NULL, BLK_REQUESTS * sizeof *b->pool, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (b->pool == MAP_FAILED) {
                r = err_host(err, errno, "virtio-blk: no memory for requests");
                goto fail_disk;
        }
        memcpy(b->serial, d->serial, strnlen(d->serial, sizeof b->serial));
        throttle_init(&b->throttle, d->iops_max, d->bandwidth_max);
        b->limited = d->iops_max || d->bandwidth_max;
        r = virtio_init(&b->v, &blk_virtio_ops, env, windows, err);
        if (r < 0)
                goto fail_pool;
        *nwindows = 1;
        *dev = b;
        return 0;
fail_pool:
        munmap(b->pool, BLK_REQUESTS * sizeof *b->pool);
fail_disk:
        disk_close(b->disk);
fail:
        free(b);
        return r;
}

/* --- forks --- */

static int blk_freeze_prepare(void *dev, struct err *err)
{
        return disk_freeze_prepare(blk_of(dev)->disk, err);
}

static void blk_freeze(void *dev)
{
        disk_freeze(blk_of(dev)->disk);
}

static int blk_freeze_publish(void *dev, struct device_files *files, struct err *err)
{
        struct blk *b = blk_of(dev);
        int fds[DISK_LAYERS_MAX], r = disk_freeze_publish(b->disk, err);
        unsigned n;

        if (r < 0)
                return r;
        n = disk_files(b->disk, fds);
        if (n > DEVICE_FILES_MAX - files->n)
                return err_host(err, ENFILE, "virtio-blk: the disks have too many layers");
        memcpy(&files->fds[files->n], fds, n * sizeof fds[0]);
        files->n += n;
        return 0;
}

static void blk_freeze_cancel(void *dev)
{
        disk_freeze_cancel(blk_of(dev)->disk);
}

static int blk_restore_files(void *dev, const int *fds, unsigned n, struct err *err)
{
        struct blk *b = blk_of(dev);

        if (n > DISK_LAYERS_MAX)
                return err_input(err, "virtio-blk: %u files are more than a disk has", n);
        memcpy(b->files, fds, n * sizeof fds[0]);
        b->nfiles = n;
        return 0;
}

static void blk_give_overlay(void *dev, int fd, int ro_fd)
{
        disk_give_overlay(blk_of(dev)->disk, fd, ro_fd);
}

const struct device_ops virtio_blk_ops = {
        .name = "virtio-blk",
        .record_kind = RECORD_DEV_VIRTIO_BLK,
        .record_version = 1,
        .record_length = sizeof(struct virtio_record) + sizeof(struct blk_record),
        VIRTIO_DEVICE_OPS,
        .count = blk_count,
        .create = blk_create,
        .destroy = blk_destroy,
        .freeze_prepare = blk_freeze_prepare,
        .freeze = blk_freeze,
        .freeze_publish = blk_freeze_publish,
        .freeze_cancel = blk_freeze_cancel,
        .restore_files = blk_restore_files,
        .give_overlay = blk_give_overlay,
        .syscalls = disk_syscalls,
};
