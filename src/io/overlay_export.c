/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a chain of overlays to a plain image. It is made in a file without a name (O_TMPFILE), which
 * goes with us whatever ends us, and gets its name when all of it is on the medium. Where there are
 * no such files, and to take the place of a file that exists, a temporary name beside the image is
 * used for as long as needed.
 *
 * Source holes are not read, and blocks of zeros not written, so the image is as sparse as it can
 * be.
 */
#include "io/overlay_chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

#define CHUNK (1u << 20)
#define BLOCK 4096u /* what is left out when it is zero */

struct export
{
        const struct overlay_chain *chain;
        int fd;
        uint8_t *buf; /* CHUNK */
        overlay_progress_fn *progress;
        void *data;
        const char *from; /* what is read, for messages */
        bool reading;     /* that is what failed */
};

/* --- contents --- */

static bool is_zero(const uint8_t *p, size_t len)
{
        return !*p && !memcmp(p, p + 1, len - 1);
}

/* The file is zeros already. */
static int write_data(int fd, const uint8_t *p, size_t len, uint64_t at)
{
        size_t from = 0, to = 0; /* to be written */

        while (to < len) {
                size_t block = BLOCK - (at + to) % BLOCK;
                int ret;

                block = block < len - to ? block : len - to;
                if (!is_zero(p + to, block)) {
                        to += block;
                        continue;
                }
                ret = file_write_at(fd, p + from, to - from, at + from);
                if (ret)
                        return ret;
                to += block;
                from = to;
        }
        return file_write_at(fd, p + from, to - from, at + from);
}

/* How much from @at on is a hole of @fd, at most @len. */
static uint64_t hole(int fd, uint64_t at, uint64_t len)
{
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);

        if (data < 0)
                return errno == ENXIO ? len : 0;
        return (uint64_t)data - at < len ? (uint64_t)data - at : len;
}

/* [at, at + len) of the disk, which is at @offset of @fd. */
static int copy(struct export *e, int fd, uint64_t offset, uint64_t at, uint64_t len)
{
        while (len) {
                uint64_t n = hole(fd, offset, len);

                if (!n) {
                        ssize_t got = pread(fd, e->buf, len < CHUNK ? len : CHUNK, (off_t)offset);
                        int ret;

                        e->reading = got <= 0;
                        if (got < 0 && errno == EINTR)
                                continue;
                        if (got <= 0)
                                return got < 0 ? -errno : -EIO;
                        n = (uint64_t)got;
                        ret = write_data(e->fd, e->buf, n, at);
                        if (ret)
                                return ret;
                }
                offset += n;
                at += n;
                len -= n;
                if (e->progress && e->progress(e->data, at, e->chain->overlays[0]->info.disk_bytes))
                        return -EINTR;
        }
        return 0;
}

static int copy_run(struct export *e, int layer, uint64_t at, uint64_t len)
{
        const struct overlay_chain *c = e->chain;
        const struct overlay *o;

        if (layer < 0) {
                e->from = c->overlays[0]->info.image;
                /* a changed one may be shorter */
                if (at >= c->image_bytes)
                        return 0;
                len = len < c->image_bytes - at ? len : c->image_bytes - at;
                return copy(e, c->image_fd, at, at, len);
        }
        o = c->overlays[layer];
        e->from = c->files[layer];
        return copy(e, o->fd, o->data_offset + at, at, len);
}

static int copy_all(struct export *e)
{
        const struct overlay_chain *c = e->chain;
        uint64_t sectors = c->overlays[0]->info.disk_bytes / OVERLAY_SECTOR, run;
        int ret = 0;

        if (ftruncate(e->fd, (off_t)(sectors * OVERLAY_SECTOR)))
                return -errno;
        for (uint64_t s = 0; !ret && s < sectors; s += run) {
                int layer = overlay_find(c->overlays, c->n, s, sectors - s, &run);

                ret = copy_run(e, layer, s * OVERLAY_SECTOR, run * OVERLAY_SECTOR);
        }
        if (!ret && fsync(e->fd))
                ret = -errno;
        return ret;
}

/* --- the name --- */

struct names {
        char *path;
        char *dir;
        char *temporary; /* beside it; exists while used is true */
        bool used;
};

static int names_init(struct names *n, const char *path)
{
        const char *slash = strrchr(path, '/');

        *n = (struct names){.path = strdup(path)};
        n->dir = slash ? strndup(path, (size_t)(slash - path + 1)) : strdup("./");
        if (!n->path || !n->dir ||
            asprintf(&n->temporary, "%s.%s.%d.part", slash ? n->dir : "", slash ? slash + 1 : path,
                     (int)getpid()) < 0)
                return -ENOMEM;
        return 0;
}

static void names_fini(struct names *n)
{
        if (n->used)
                unlink(n->temporary);
        free(n->path);
        free(n->dir);
        free(n->temporary);
}

static int create(struct names *n)
{
        int fd = open(n->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);

        if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
                return fd >= 0 ? fd : -errno;
        fd = open(n->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        n->used = fd >= 0;
        return fd >= 0 ? fd : -errno;
}

static int give_name(int fd, const char *path)
{
        char proc[64];

        snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
        return linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

/* The last step: a name that nobody had, or, forced, in place of what has it. */
static int publish(struct names *n, int fd, bool force)
{
        int dir, ret = 0;

        if (!force && n->used)
                ret = link(n->temporary, n->path) ? -errno : 0;
        else if (!force)
                ret = give_name(fd, n->path);
        else {
                if (!n->used)
                        ret = give_name(fd, n->temporary);
                if (!ret) {
                        n->used = true;
                        ret = rename(n->temporary, n->path) ? -errno : 0;
                        n->used = ret;
                }
        }
        if (ret)
                return ret;
        dir = open(n->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir >= 0) {
                (void)fsync(dir); /* the name; the contents are there already */
                close(dir);
        }
        return 0;
}

/* --- all of it --- */

static int check(const struct overlay_chain *c, const char *path, bool force, struct err *err)
{
        const struct overlay_info *info = &c->overlays[0]->info;
        const char *own = c->files[c->n - 1];
        struct stat st, other;

        if (c->in_use)
                return err_input(err, "%s: a machine that runs writes to it", own);
        if (c->image == OVERLAY_IMAGE_MISSING)
                return err_input(err, "%s: the image %s: %s", own, info->image,
                                 strerror(c->image_error));
        if (c->image == OVERLAY_IMAGE_CHANGED && !force)
                return err_input(err,
                                 "%s: the image %s has changed since; --force takes it as it is",
                                 own, info->image);
        if (stat(path, &st))
                return 0;
        if (!force)
                return err_input(err, "%s exists; --force replaces it", path);
        if (!S_ISREG(st.st_mode))
                return err_input(err, "%s is not a file", path);
        for (unsigned i = 0; i <= c->n; i++) {
                int fd = i < c->n ? c->overlays[i]->fd : c->image_fd;

                if (!fstat(fd, &other) && other.st_dev == st.st_dev && other.st_ino == st.st_ino)
                        return err_input(err, "%s is part of what is exported", path);
        }
        return 0;
}

static int explain(const struct export *e, int ret, const char *path, struct err *err)
{
        if (ret == -EINTR)
                return ret;
        if (e->reading)
                return err_host(err, -ret, "%s: %s", e->from, strerror(-ret));
        if (ret == -ENOSPC || ret == -EDQUOT || ret == -EFBIG || ret == -EEXIST || ret == -ENOENT ||
            ret == -ENOTDIR || ret == -EACCES || ret == -EROFS)
                return err_input(err, "%s: %s", path, strerror(-ret));
        return err_host(err, -ret, "%s: %s", path, strerror(-ret));
}

int overlay_export(const struct overlay_chain *chain, const char *path, bool force,
                   overlay_progress_fn *progress, void *data, struct err *err)
{
        struct export e = {.chain = chain, .fd = -1, .progress = progress, .data = data};
        struct names names;
        int ret = check(chain, path, force, err);

        if (ret)
                return ret;
        e.buf = malloc(CHUNK);
        ret = names_init(&names, path);
        if (!e.buf)
                ret = -ENOMEM;
        if (!ret) {
                e.fd = create(&names);
                ret = e.fd < 0 ? e.fd : copy_all(&e);
        }
        if (!ret)
                ret = publish(&names, e.fd, force);
        if (ret)
                ret = explain(&e, ret, path, err);
        if (e.fd >= 0)
                close(e.fd);
        names_fini(&names);
        free(e.buf);
        return ret;
}
