/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images: checked, opened and locked in the caller's process, before anything is started, so that a
 * wrong one is one line.
 *
 * A caller's descriptor may have flags that would spoil it (with O_APPEND, pwrite(2) writes at the
 * end), and sharing it would share its lock. So each is opened anew, through /proc, which needs the
 * file's permissions but not its path. The lock is flock(2)'s: it belongs to what was opened, so it
 * outlives every process that dies and is only gone when the launcher and every machine have closed
 * it. It is on the descriptor for reading, which templates pass on.
 */
#include "proc/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512u

static int file_bytes(int fd, const char *path, struct stat *st, uint64_t *bytes, struct err *err)
{
        if (fstat(fd, st))
                return err_input(err, "%s: %s", path, strerror(errno));
        if (S_ISREG(st->st_mode))
                *bytes = (uint64_t)st->st_size;
        else if (!S_ISBLK(st->st_mode))
                return err_input(err, "%s: %s", path,
                                 S_ISDIR(st->st_mode) ? "is a directory"
                                                      : "is neither a file nor a block device");
        else if (ioctl(fd, BLKGETSIZE64, bytes))
                return err_input(err, "%s: its size: %s", path, strerror(errno));
        return 0;
}

static int check_image(const struct ramet_disk *d, const char *path, struct stat *st,
                       struct err *err)
{
        int flags = fcntl(d->fd, F_GETFL), ret;
        uint64_t bytes;

        if (flags < 0)
                return err_input(err, "%s: is not open: %s", path, strerror(errno));
        ret = file_bytes(d->fd, path, st, &bytes, err);
        if (ret)
                return ret;
        if (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY)
                return err_input(err, "%s: is not open for reading", path);
        if (!d->readonly && (flags & O_ACCMODE) != O_RDWR)
                return err_input(err, "%s: is open for reading only, which needs readonly=on",
                                 path);
        if (!bytes || bytes % SECTOR)
                return err_input(err,
                                 "%s: is %" PRIu64 " bytes long, a multiple of %u is expected "
                                 "(truncate -s %%%u makes it one)",
                                 path, bytes, SECTOR, SECTOR);
        return 0;
}

static int check_settings(const struct ramet_disk *d, const char *path, struct err *err)
{
        size_t serial = d->serial ? strlen(d->serial) : 0;

        if (strlen(path) >= PATH_MAX)
                return err_input(err, "disk: a path of %zu bytes, at most %d fit", strlen(path),
                                 PATH_MAX - 1);
        if (serial > RAMET_SERIAL_MAX)
                return err_input(err, "%s: its serial is %zu bytes long, at most %u fit", path,
                                 serial, RAMET_SERIAL_MAX);
        return 0;
}

static int reopen(int fd, int flags, const char *path, int *out, struct err *err)
{
        char name[32];

        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        *out = open(name, flags | O_CLOEXEC | O_NOCTTY);
        return *out >= 0 ? 0 : err_input(err, "%s: %s", path, strerror(errno));
}

/* A file system that has no locks, or not for this descriptor, is not a reason to refuse. */
static int lock(int fd, bool readonly, const char *path, struct err *err)
{
        if (!flock(fd, (readonly ? LOCK_SH : LOCK_EX) | LOCK_NB))
                return 0;
        if (errno == EWOULDBLOCK)
                return err_input(err, "%s: another machine is using it", path);
        if (errno == EOPNOTSUPP || errno == EBADF || errno == ENOLCK)
                return 0;
        return err_input(err, "%s: cannot be locked: %s", path, strerror(errno));
}

/* Opens disk number set->n. What it has opened is in the set also on failure. */
static int open_image(struct disk_set *set, const struct ramet_disk *d, const char *path,
                      struct err *err)
{
        unsigned i = set->n;
        int ret;

        set->image[i].fd = set->image[i].ro_fd = -1;
        set->n++;
        ret = reopen(d->fd, O_RDONLY, path, &set->image[i].ro_fd, err);
        ret = ret ?: lock(set->image[i].ro_fd, d->readonly, path, err);
        if (ret || d->readonly) {
                set->image[i].fd = set->image[i].ro_fd;
                return ret;
        }
        set->writable |= 1u << i;
        return reopen(d->fd, O_RDWR, path, &set->image[i].fd, err);
}

static bool same(const struct stat *a, const struct stat *b)
{
        if (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode))
                return a->st_rdev == b->st_rdev;
        return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

int disks_nth(const struct ramet_vm_options *o, unsigned i, struct ramet_disk *d, struct err *err)
{
        const size_t min = offsetof(struct ramet_disk, bandwidth_max) + sizeof d->bandwidth_max;
        size_t size = o->disks->size;
        const unsigned char *bytes = (const unsigned char *)o->disks + i * size;

        if (size < min)
                return err_input(err, "disk options: size is %zu, at least %zu was expected", size,
                                 min);
        memcpy(d, bytes, size < sizeof *d ? size : sizeof *d);
        if (d->size != size)
                return err_input(err, "disk options: their sizes differ");
        for (size_t at = sizeof *d; at < size; at++)
                if (bytes[at])
                        return err_input(
                                err,
                                "disk options: have a setting that this library does not know");
        return 0;
}

static int open_images(struct disk_set *set, const struct ramet_vm_options *o, struct err *err)
{
        struct stat st[RAMET_DISKS_MAX];

        for (unsigned i = 0; i < o->ndisks; i++) {
                struct ramet_disk d;
                const char *path;
                int ret = disks_nth(o, i, &d, err);

                if (ret)
                        return ret;
                path = d.path ?: "disk";
                ret = check_settings(&d, path, err);
                ret = ret ?: check_image(&d, path, &st[i], err);
                if (ret)
                        return ret;
                for (unsigned k = 0; k < i; k++)
                        if (same(&st[k], &st[i]) && (!d.readonly || set->writable >> k & 1))
                                return err_input(
                                        err,
                                        "%s: the machine has this image twice, which needs "
                                        "readonly=on for both",
                                        path);
                ret = open_image(set, &d, path, err);
                if (ret)
                        return ret;
        }
        return 0;
}

static int find_overlay_dir(struct disk_set *set, const char *dir, struct err *err)
{
        struct stat st;

        set->overlay_dir = realpath(dir, NULL);
        if (!set->overlay_dir || stat(set->overlay_dir, &st))
                return err_input(err, "%s: %s", dir, strerror(errno));
        if (!S_ISDIR(st.st_mode))
                return err_input(err, "%s: is not a directory", dir);
        return 0;
}

int disks_open(const struct ramet_vm_options *o, struct disk_set **out, struct err *err)
{
        struct disk_set *set;
        int ret;

        *out = NULL;
        if (!o->ndisks)
                return 0;
        if (o->ndisks > RAMET_DISKS_MAX)
                return err_input(err, "disks: %u given, at most %u expected", o->ndisks,
                                 RAMET_DISKS_MAX);
        set = calloc(1, sizeof *set);
        if (!set)
                return err_host(err, ENOMEM, "no memory for disks");
        set->refs = 1;
        ret = open_images(set, o, err);
        if (!ret && o->overlay_dir)
                ret = find_overlay_dir(set, o->overlay_dir, err);
        if (ret) {
                disks_unref(set);
                return ret;
        }
        *out = set;
        return 0;
}

struct disk_set *disks_ref(struct disk_set *set)
{
        if (set)
                set->refs++;
        return set;
}

void disks_unref(struct disk_set *set)
{
        if (!set || --set->refs)
                return;
        for (unsigned i = 0; i < set->n; i++) {
                if (set->image[i].fd >= 0 && set->image[i].fd != set->image[i].ro_fd)
                        close(set->image[i].fd);
                if (set->image[i].ro_fd >= 0)
                        close(set->image[i].ro_fd);
        }
        free(set->overlay_dir);
        free(set);
}

char *disks_name(const struct ramet_disk *disk)
{
        char *path = disk->path ? realpath(disk->path, NULL) : NULL;

        return path ?: strdup(disk->path ?: "disk");
}

void disks_tell(const struct disk_set *set, const struct ramet_vm_options *o,
                struct message_boot *m)
{
        struct err ignored;

        for (unsigned i = 0; set && i < set->n; i++) {
                struct message_disk *to = &m->disks[i];
                struct ramet_disk d;
                char *name;

                if (disks_nth(o, i, &d, &ignored)) /* it was read before */
                        return;
                to->iops_max = d.iops_max;
                to->bandwidth_max = d.bandwidth_max;
                to->readonly = d.readonly;
                stpcpy(to->serial, d.serial ?: "");
                name = disks_name(&d);
                stpcpy(to->name, name ?: "disk");
                free(name);
        }
}
