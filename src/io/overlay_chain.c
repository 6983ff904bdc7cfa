/* SPDX-License-Identifier: Apache-2.0 */
/* Finding what is below an overlay file: see overlay_chain.h. */
#include "io/overlay_chain.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

/* Where headers lead: nothing there is waited for, and no link is followed. */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)

/* --- the directory --- */

static int open_directory(const char *path, struct err *err)
{
        const char *slash = strrchr(path, '/');
        char *dir = slash ? strndup(path, (size_t)(slash - path + 1)) : strdup(".");
        int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

        if (fd < 0)
                err_input(err, "%s: %s", path, strerror(errno));
        free(dir);
        return fd;
}

static bool has_id(int dir, const char *name, const struct overlay_id *id)
{
        int fd = openat(dir, name, OPEN_FLAGS | O_NOFOLLOW);
        struct overlay_info info;
        bool same;

        if (fd < 0)
                return false;
        same = !overlay_read_info(fd, &info, NULL) && !memcmp(&info.id, id, sizeof *id);
        close(fd);
        return same;
}

/* The file with that id. 0 or -ENOENT. */
static int find_by_id(int dir, const struct overlay_id *id, char name[OVERLAY_NAME_MAX])
{
        int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = -ENOENT;
        DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
        const struct dirent *e;

        if (!d) {
                if (fd >= 0)
                        close(fd);
                return -ENOENT;
        }
        while (ret && (e = readdir(d)))
                if (strlen(e->d_name) < OVERLAY_NAME_MAX && has_id(dir, e->d_name, id)) {
                        strcpy(name, e->d_name);
                        ret = 0;
                }
        closedir(d);
        return ret;
}

/* --- the chain; topmost first until it is complete --- */

static int push(struct overlay_chain *c, const char *file, struct overlay *o)
{
        struct overlay **overlays = realloc(c->overlays, (c->n + 1) * sizeof *overlays);
        char **files;

        if (overlays)
                c->overlays = overlays;
        files = realloc(c->files, (c->n + 1) * sizeof *files);
        if (files)
                c->files = files;
        if (!overlays || !files || !(files[c->n] = strdup(file)))
                return -ENOMEM;
        overlays[c->n++] = o;
        return 0;
}

/* @called: what the user calls it. */
static int add(struct overlay_chain *c, int dir, const char *file, const char *called,
               struct err *err)
{
        int fd = openat(dir, file, OPEN_FLAGS), ret;
        struct overlay *o;

        if (fd < 0)
                return err_input(err, "%s: %s", called, strerror(errno));
        if (!c->n)
                c->in_use = flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
        ret = overlay_open(fd, c->n ? c->overlays[0]->info.disk_bytes : 0, &o, err);
        if (ret)
                return err_prefix(err, ret, "%s", called);
        ret = push(c, file, o);
        if (ret) {
                overlay_close(o);
                return err_host(err, -ret, "%s: %s", file, strerror(-ret));
        }
        return 0;
}

static int add_parent(struct overlay_chain *c, int dir, struct err *err)
{
        const struct overlay_info *info = &c->overlays[c->n - 1]->info;
        const char *child = c->files[c->n - 1];
        char name[OVERLAY_NAME_MAX];

        memcpy(name, info->parent_name, sizeof name);
        if (c->n == OVERLAY_CHAIN_MAX)
                return err_input(err, "%s: more than %d overlays below it", c->files[0],
                                 OVERLAY_CHAIN_MAX);
        if (*name && has_id(dir, name, &info->parent))
                return add(c, dir, name, name, err);
        if (!find_by_id(dir, &info->parent, name))
                return add(c, dir, name, name, err);
        if (*name && !faccessat(dir, name, F_OK, 0))
                return err_input(err,
                                 "%s: %s, which should be below it, is not the overlay that was",
                                 child, name);
        return err_input(err, "%s: the overlay below it, %s, is missing", child,
                         *name ? name : "whose name is not known");
}

static void reverse(struct overlay_chain *c)
{
        for (unsigned i = 0, j = c->n; j && i < --j; i++) {
                struct overlay *o = c->overlays[i];
                char *file = c->files[i];

                c->overlays[i] = c->overlays[j];
                c->files[i] = c->files[j];
                c->overlays[j] = o;
                c->files[j] = file;
        }
}

/* --- the image --- */

static void find_image(struct overlay_chain *c)
{
        const struct overlay_info *info = &c->overlays[0]->info;
        struct stat st;
        off_t end = -1;

        c->image = OVERLAY_IMAGE_MISSING;
        c->image_fd = open(info->image, OPEN_FLAGS);
        if (c->image_fd >= 0 && !fstat(c->image_fd, &st)) {
                if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
                        end = lseek(c->image_fd, 0, SEEK_END);
                else
                        errno = EINVAL;
        }
        if (end < 0) {
                c->image_error = errno;
                if (c->image_fd >= 0)
                        close(c->image_fd);
                c->image_fd = -1;
                return;
        }
        c->image_bytes = (uint64_t)end;
        c->image = OVERLAY_IMAGE_SAME;
        if (c->image_bytes != info->image_bytes ||
            (S_ISREG(st.st_mode) && (st.st_mtim.tv_sec != info->image_mtime_sec ||
                                     st.st_mtim.tv_nsec != (long)info->image_mtime_nsec)))
                c->image = OVERLAY_IMAGE_CHANGED;
}

int overlay_chain_open(const char *path, struct overlay_chain *chain, struct err *err)
{
        const char *slash = strrchr(path, '/');
        struct overlay_chain c = {.image_fd = -1};
        int dir = open_directory(path, err), ret;

        if (dir < 0)
                return -EINVAL;
        ret = add(&c, dir, slash ? slash + 1 : path, path, err);
        while (!ret && !overlay_is_image(&c.overlays[c.n - 1]->info.parent))
                ret = add_parent(&c, dir, err);
        close(dir);
        if (ret) {
                overlay_chain_close(&c);
                return ret;
        }
        reverse(&c);
        find_image(&c);
        *chain = c;
        return 0;
}

void overlay_chain_close(struct overlay_chain *c)
{
        for (unsigned i = 0; i < c->n; i++) {
                overlay_close(c->overlays[i]);
                free(c->files[i]);
        }
        free(c->overlays);
        free(c->files);
        if (c->image_fd >= 0)
                close(c->image_fd);
        *c = (struct overlay_chain){.image_fd = -1};
}

uint64_t overlay_count_bytes(const struct overlay *o)
{
        uint64_t sectors = o->info.disk_bytes / OVERLAY_SECTOR, count = 0, run;

        for (uint64_t s = 0; s < sectors; s += run)
                if (overlay_has(o, s, sectors - s, &run))
                        count += run;
        return count * OVERLAY_SECTOR;
}
