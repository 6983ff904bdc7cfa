/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack of a disk, and what a fork does to it. Requests are in disk_io.c and disk_flush.c.
 *
 *                     own          next               own (was next)
 *      image written  overlay      .----->            overlay            frozen: bits written,
 * sealed, overlays     |  freeze          overlays           never written any more image        |
 * image
 *
 * In the pause only pointers move. Before it (prepare) the next overlay is made, and frozen layers
 * become one when there would be too many; after it (publish) what is below the top is finished and
 * sealed. A disk whose overlay was not touched goes on with it: what is below is what the last
 * freeze gave away, so nothing is new.
 *
 * Layers are merged in memory, also those of files: the files stay what they are, for other
 * machines and for `ramet overlay export`, and the merged layer has the id and the name of the
 * topmost of them, so that the chain of files does not show it.
 *
 * Reads never use a descriptor that a publish closes, since they may be under way then.
 */
#include "io/disk_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Besides those of every machine. */
const char *const disk_syscalls[] = {"fdatasync", "flock", NULL};

static void close_fd(int *fd)
{
        if (*fd >= 0)
                close(*fd);
        *fd = -1;
}

static unsigned frozen(const struct disk *disk)
{
        return disk->noverlays - disk->own;
}

static struct overlay *top(const struct disk *disk)
{
        return disk->overlays[disk->noverlays - 1];
}

/* --- the image --- */

/* Look at the image @fd: its size, which file it is, and what an overlay notes of it. */
static int look_at_image(const struct disk *disk, int fd, struct disk_image *image, struct err *err)
{
        struct stat st;
        off_t end;

        if (fstat(fd, &st))
                return err_host(err, errno, "%s: %s", disk->name, strerror(errno));
        if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
                return err_input(err, "%s: neither a file nor a block device", disk->name);
        end = lseek(fd, 0, SEEK_END);
        if (end < 0)
                return err_host(err, errno, "%s: %s", disk->name, strerror(errno));
        *image = (struct disk_image){.dev = st.st_dev, .ino = st.st_ino};
        image->info = (struct overlay_info){
                .disk_bytes = (uint64_t)end,
                .image_bytes = (uint64_t)end,
                .image_mtime_sec = S_ISREG(st.st_mode) ? st.st_mtim.tv_sec : 0,
                .image_mtime_nsec = S_ISREG(st.st_mode) ? (uint32_t)st.st_mtim.tv_nsec : 0,
        };
        memcpy(image->info.image, disk->name, sizeof image->info.image);
        return 0;
}

static int check_bytes(const struct disk *disk, uint64_t bytes, struct err *err)
{
        uint64_t whole = (bytes + DISK_SECTOR - 1) / DISK_SECTOR * DISK_SECTOR;

        if (!bytes)
                return err_input(err, "%s: the image is empty", disk->name);
        if (bytes > OVERLAY_DISK_MAX)
                return err_input(err, "%s: the image is too large", disk->name);
        if (bytes != whole)
                return err_input(err,
                                 "%s: an image of %llu bytes, which is not a multiple of 512; "
                                 "'truncate -s %llu' makes it one",
                                 disk->name, (unsigned long long)bytes, (unsigned long long)whole);
        return 0;
}

/* For a root machine: the user's image. */
static int open_image(struct disk *disk, struct err *err)
{
        struct stat rw, ro;
        int ret, flags = fcntl(disk->image_fd, F_GETFL);

        if (disk->readonly && disk->image_ro_fd < 0) {
                disk->image_ro_fd = disk->image_fd;
                disk->image_fd = -1;
        }
        if (disk->readonly)
                close_fd(&disk->image_fd);
        if (disk->image_ro_fd < 0)
                return err_input(err, "%s: the image is not open for reading only", disk->name);
        ret = look_at_image(disk, disk->image_ro_fd, &disk->image, err);
        if (!ret)
                ret = check_bytes(disk, disk->image.info.disk_bytes, err);
        if (ret)
                return ret;
        if (disk->image_fd >= 0) {
                if (flags < 0 || (flags & O_ACCMODE) != O_RDWR)
                        return err_input(err, "%s: the image is not open for writing", disk->name);
                if (fstat(disk->image_fd, &rw) || fstat(disk->image_ro_fd, &ro))
                        return err_host(err, errno, "%s: %s", disk->name, strerror(errno));
                if (rw.st_dev != ro.st_dev || rw.st_ino != ro.st_ino)
                        return err_input(err, "%s: two descriptors of different files", disk->name);
        }
        disk->bytes = disk->image.info.disk_bytes;
        disk->image_unsynced = true; /* by whom it had before */
        return 0;
}

/* --- open, close --- */

int disk_open(struct loop *loop, const struct disk_options *options, struct disk **out,
              struct err *err)
{
        struct disk *disk = calloc(1, sizeof *disk);
        int ret = disk ? 0 : err_host(err, ENOMEM, "no memory for a disk");

        if (ret) {
                const int fds[] = {options->image_fd, options->image_ro_fd, options->overlay_fd,
                                   options->overlay_ro_fd};

                for (unsigned i = 0; i < sizeof fds / sizeof *fds; i++)
                        if (fds[i] >= 0)
                                close(fds[i]);
                return ret;
        }
        disk->loop = loop;
        disk->readonly = options->readonly;
        disk->image_fd = options->image_fd;
        disk->image_ro_fd = options->image_ro_fd;
        disk->given_fd = options->overlay_fd;
        disk->given_ro_fd = options->overlay_ro_fd;
        strncpy(disk->name, options->name ? options->name : "disk", sizeof disk->name - 1);
        ret = disk_io_init(disk) ? err_host(err, ENOMEM, "no memory for a disk") : 0;
        if (!ret) { /* now, since a confined process can make no threads */
                ret = loop_io_prepare(loop);
                if (ret)
                        ret = err_host(err, -ret, "threads for disks: %s", strerror(-ret));
        }
        if (!ret && disk->image_fd >= 0)
                ret = open_image(disk, err);
        if (ret) {
                disk_close(disk);
                return ret;
        }
        *out = disk;
        return 0;
}

static void close_retired(struct disk *disk)
{
        while (disk->nretired)
                overlay_close(disk->retired[--disk->nretired]);
}

void disk_close(struct disk *disk)
{
        if (!disk)
                return;
        disk_io_fini(disk);
        while (disk->noverlays)
                overlay_close(disk->overlays[--disk->noverlays]);
        close_retired(disk);
        overlay_close(disk->next);
        overlay_close(disk->merged);
        close_fd(&disk->image_fd);
        close_fd(&disk->image_ro_fd);
        close_fd(&disk->given_fd);
        close_fd(&disk->given_ro_fd);
        free(disk);
}

uint64_t disk_bytes(const struct disk *disk)
{
        return disk->bytes;
}

bool disk_readonly(const struct disk *disk)
{
        return disk->readonly;
}

uint64_t disk_own_bytes(const struct disk *disk)
{
        struct stat st;

        if (!disk->own || fstat(top(disk)->fd, &st))
                return 0;
        return (uint64_t)st.st_blocks * 512;
}

/* --- forks --- */

/* What an overlay says of what is below it: @image, and @n overlays. */
static struct overlay_info above(const struct disk_image *image, struct overlay *const *overlays,
                                 unsigned n)
{
        struct overlay_info info = image->info;

        if (n) {
                info = overlays[n - 1]->info;
                info.parent = info.id;
                memcpy(info.parent_name, info.name, sizeof info.parent_name);
        }
        info.id = (struct overlay_id){0};
        memset(info.name, 0, sizeof info.name);
        return info;
}

void disk_give_overlay(struct disk *disk, int fd, int ro_fd)
{
        overlay_close(disk->next);
        disk->next = NULL;
        close_fd(&disk->given_fd);
        close_fd(&disk->given_ro_fd);
        disk->given_fd = fd;
        disk->given_ro_fd = ro_fd;
}

/* An overlay above those, in the file that was given. */
static int make_overlay(struct disk *disk, const struct disk_image *image,
                        struct overlay *const *overlays, unsigned n, struct overlay **out,
                        struct err *err)
{
        struct overlay_info info = above(image, overlays, n);
        int fd = disk->given_fd, ro_fd = disk->given_ro_fd, ret;

        disk->given_fd = disk->given_ro_fd = -1;
        ret = overlay_make(&info, fd, ro_fd, out, err);
        return ret ? err_prefix(err, ret, "%s", disk->name) : 0;
}

/* The next one was not needed: its file is as it was given, for the next freeze. */
static void withdraw_next(struct disk *disk)
{
        if (disk->next && !disk->next->memory) {
                overlay_withdraw(disk->next, &disk->given_fd, &disk->given_ro_fd);
                disk->next = NULL;
        }
}

int disk_freeze_prepare(struct disk *disk, struct err *err)
{
        unsigned total = 1 + disk->noverlays + 1; /* with image and next */
        int ret = 0;

        close_retired(disk);
        if (disk->readonly || !disk->bytes)
                return 0;
        if (!disk->next)
                ret = make_overlay(disk, &disk->image, disk->overlays, disk->noverlays, &disk->next,
                                   err);
        if (!ret && total > DISK_LAYERS_MAX && !disk->merged)
                ret = disk_merge(disk->overlays, frozen(disk), &disk->merged, err);
        if (ret)
                disk_freeze_cancel(disk);
        return ret;
}

/* Whether a freeze puts a new overlay on top. */
static bool stacks(const struct disk *disk)
{
        return disk->next && (!disk->own || top(disk)->touched);
}

void disk_save(const struct disk *disk, struct disk_record *record)
{
        unsigned below = disk->merged ? 1 : frozen(disk);

        *record = (struct disk_record){
                .bytes = disk->bytes,
                .layers = 1 + below + (disk->own && stacks(disk)),
                .readonly = disk->readonly,
        };
        memcpy(record->name, disk->name, sizeof record->name);
}

static void use_merged(struct disk *disk)
{
        struct overlay *own = disk->own ? top(disk) : NULL;

        disk->nretired = frozen(disk);
        memcpy(disk->retired, disk->overlays, disk->nretired * sizeof *disk->retired);
        disk->overlays[0] = disk->merged;
        disk->overlays[1] = own;
        disk->noverlays = own ? 2 : 1;
        disk->merged = NULL;
}

void disk_freeze(struct disk *disk)
{
        bool stack = stacks(disk);

        if (disk->merged)
                use_merged(disk);
        if (!stack)
                return;
        disk->overlays[disk->noverlays++] = disk->next;
        disk->next = NULL;
        disk->own = true;
}

int disk_freeze_publish(struct disk *disk, struct err *err)
{
        struct overlay_info info;
        int ret = 0;

        if (disk->flush.now) /* it works with live overlays, which are to be frozen */
                loop_io_settle(disk->loop);
        close_retired(disk);
        withdraw_next(disk);
        for (unsigned i = 0; !ret && i < frozen(disk); i++)
                ret = overlay_seal(disk->overlays[i], err);
        if (ret || !disk->own)
                return ret ? err_prefix(err, ret, "%s", disk->name) : 0;
        if (disk->image_fd >= 0) { /* it was written until now; its time stamp is final */
                close_fd(&disk->image_fd);
                ret = look_at_image(disk, disk->image_ro_fd, &disk->image, err);
        }
        info = above(&disk->image, disk->overlays, frozen(disk));
        return ret ? ret : overlay_set_parent(top(disk), &info, err);
}

void disk_freeze_cancel(struct disk *disk)
{
        withdraw_next(disk);
        overlay_close(disk->merged);
        disk->merged = NULL;
}

unsigned disk_files(const struct disk *disk, int fds[DISK_LAYERS_MAX])
{
        unsigned n = 0;

        fds[n++] = disk->image_ro_fd;
        for (unsigned i = 0; i < frozen(disk); i++)
                fds[n++] = overlay_pass_fd(disk->overlays[i]);
        return n;
}

/* --- restore --- */

/* Becoming the disk of a record: nothing is changed before everything that can fail is made. */
struct restoring {
        unsigned keep; /* layers that are the same, the image counts */
        int image_fd;  /* -1: kept */
        struct disk_image image;
        unsigned n; /* frozen overlays afterwards */
        struct overlay *overlays[DISK_LAYERS_MAX];
        struct overlay *own; /* made here; NULL: the disk has one, or needs none */
};

static int check_record(const struct disk *disk, const struct disk_record *record, unsigned n,
                        struct err *err)
{
        size_t len = strnlen(record->name, sizeof record->name);

        for (size_t i = len; i < sizeof record->name; i++)
                if (record->name[i])
                        len = sizeof record->name;
        if (len == sizeof record->name || !n || n >= DISK_LAYERS_MAX || record->layers != n ||
            record->readonly > 1 || !record->bytes || record->bytes % DISK_SECTOR ||
            record->bytes > OVERLAY_DISK_MAX)
                return err_input(err, "%s: a saved disk that makes no sense", disk->name);
        if (disk->bytes && record->bytes != disk->bytes)
                return err_input(err, "%s: a saved disk of another size", disk->name);
        return 0;
}

static unsigned count_same(const struct disk *disk, const int *fds, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                dev_t dev = disk->image.dev;
                ino_t ino = disk->image.ino;
                struct stat st;

                if (i > frozen(disk) || (!i && disk->image_ro_fd < 0))
                        return i;
                if (i) {
                        dev = disk->overlays[i - 1]->dev;
                        ino = disk->overlays[i - 1]->ino;
                }
                if (fstat(fds[i], &st) || st.st_dev != dev || st.st_ino != ino)
                        return i;
        }
        return n;
}

static int duplicate(const struct disk *disk, int fd, int *out, struct err *err)
{
        *out = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        return *out < 0 ? err_host(err, errno, "%s: %s", disk->name, strerror(errno)) : 0;
}

static int restore_image(struct disk *disk, struct restoring *r, int fd,
                         const struct disk_record *record, struct err *err)
{
        int flags = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS), ret;

        if (flags < 0 ||
            ((flags & O_ACCMODE) != O_RDONLY && (seals < 0 || !(seals & F_SEAL_WRITE))))
                return err_input(err, "%s: the image of a saved disk is open for writing",
                                 disk->name);
        ret = look_at_image(disk, fd, &r->image, err);
        memcpy(r->image.info.image, record->name, sizeof r->image.info.image);
        if (!ret && r->image.info.disk_bytes != record->bytes)
                ret = err_input(err, "%s: the image has %llu bytes now, and had %llu", disk->name,
                                (unsigned long long)r->image.info.disk_bytes,
                                (unsigned long long)record->bytes);
        return ret ? ret : duplicate(disk, fd, &r->image_fd, err);
}

static int restore_layers(struct disk *disk, struct restoring *r, const struct disk_record *record,
                          const int *fds, struct err *err)
{
        int ret = r->keep ? 0 : restore_image(disk, r, fds[0], record, err);

        for (; !ret && r->n + 1 < record->layers; r->n++) {
                int fd;

                if (r->n + 1 < r->keep) {
                        r->overlays[r->n] = disk->overlays[r->n];
                        continue;
                }
                ret = duplicate(disk, fds[r->n + 1], &fd, err);
                if (!ret)
                        ret = overlay_open(fd, record->bytes, &r->overlays[r->n], err);
                if (ret)
                        return err_prefix(err, ret, "%s: layer %u", disk->name, r->n + 1);
        }
        if (!ret && !disk->own && !disk->readonly && !record->readonly)
                ret = make_overlay(disk, &r->image, r->overlays, r->n, &r->own, err);
        return ret;
}

static void restore_undo(struct restoring *r)
{
        if (r->image_fd >= 0)
                close(r->image_fd);
        while (r->n && r->n >= (r->keep ? r->keep : 1))
                overlay_close(r->overlays[--r->n]);
}

/* The layers of @r, and the overlay that the disk wrote, if any, on top of them. */
static void restore_commit(struct disk *disk, struct restoring *r)
{
        struct overlay *own = disk->own ? top(disk) : r->own;
        unsigned kept = r->keep ? r->keep - 1 : 0;

        for (unsigned i = kept; i < frozen(disk); i++)
                overlay_close(disk->overlays[i]);
        memcpy(disk->overlays, r->overlays, r->n * sizeof *disk->overlays);
        disk->noverlays = r->n;
        disk->own = own;
        if (own)
                disk->overlays[disk->noverlays++] = own;
        close_fd(&disk->image_fd);
        if (r->image_fd >= 0) {
                close_fd(&disk->image_ro_fd);
                disk->image_ro_fd = r->image_fd;
                disk->image = r->image;
        }
        disk->image_unsynced = true; /* the parent may not have flushed what it wrote */
}

int disk_restore(struct disk *disk, const struct disk_record *record, const int *fds, unsigned n,
                 struct err *err)
{
        struct restoring r = {.image_fd = -1, .image = disk->image};
        struct overlay_info info;
        int ret = check_record(disk, record, n, err);

        if (ret)
                return ret;
        disk_freeze_cancel(disk);
        close_retired(disk);
        r.keep = count_same(disk, fds, n);
        ret = restore_layers(disk, &r, record, fds, err);
        if (ret) {
                restore_undo(&r);
                return ret;
        }
        restore_commit(disk, &r);
        memcpy(disk->name, record->name, sizeof disk->name);
        disk->bytes = record->bytes;
        disk->readonly |= record->readonly;
        if (!disk->own)
                return 0;
        ret = overlay_empty(top(disk), err);
        info = above(&disk->image, disk->overlays, frozen(disk));
        if (!ret)
                ret = overlay_set_parent(top(disk), &info, err);
        return ret ? err_prefix(err, ret, "%s", disk->name) : 0;
}
