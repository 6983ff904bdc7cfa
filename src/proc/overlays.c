/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlay files of a machine: DIR/NAME.vda.1.overlay, then .2 after its next fork, and so on. Each
 * fork gets files of its own, made before it is asked for: those of an armed fork with BOOT, those
 * of one that is asked for with FORK. So a full directory, or a file that is in the way, is an
 * error of the call that asks, and no machine waits for a file.
 *
 * Whether a fork used its file is not for the machine to say: one that has been begun is longer
 * than its header, and a disk that wrote nothing since the fork before begins none. What was not
 * begun is nobody's and is removed; what was begun is what the user asked for and stays.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/overlay.h"
#include "proc/disks.h"

int overlays_create(struct disk_set *set, const char *name, struct overlay_files **out,
                    struct err *err)
{
        struct overlay_files *f;

        *out = NULL;
        if (!set || !set->overlay_dir || !set->writable)
                return 0;
        if (!name || !*name || *name == '.' || strchr(name, '/'))
                return err_input(err,
                                 "overlay files need the name of the machine, and '%s' is none",
                                 name ?: "");
        f = calloc(1, sizeof *f);
        if (f)
                f->name = strdup(name);
        if (!f || !f->name) {
                free(f);
                return err_host(err, ENOMEM, "no memory for overlays");
        }
        f->set = disks_ref(set);
        *out = f;
        return 0;
}

/* The path of a file in f->path, which it returns; NULL: it is too long. */
static const char *path_of(struct overlay_files *f, unsigned disk, unsigned number)
{
        int n = snprintf(f->path, sizeof f->path, "%s/%s.vd%c.%u.overlay", f->set->overlay_dir,
                         f->name, 'a' + (int)disk, number);

        return n > 0 && (size_t)n < sizeof f->path ? f->path : NULL;
}

static bool begun(struct overlay_files *f, unsigned disk, unsigned number)
{
        struct stat st;
        const char *path = path_of(f, disk, number);

        return path && !stat(path, &st) && st.st_size > (off_t)OVERLAY_HEADER_BYTES;
}

static void remove_files(struct overlay_files *f, unsigned number, bool all)
{
        for (unsigned i = 0; number && i < f->set->n; i++)
                if (f->set->writable >> i & 1 && (all || !begun(f, i, number)))
                        (void)unlink(path_of(f, i, number) ?: "");
}

void overlays_destroy(struct overlay_files *f, bool started)
{
        if (!f)
                return;
        if (!started) {
                remove_files(f, f->made, true);
        } else {
                remove_files(f, f->armed, false);
                remove_files(f, f->requested, false);
        }
        disks_unref(f->set);
        free(f->name);
        free(f);
}

static int make_file(struct overlay_files *f, unsigned disk, int fds[2], struct err *err)
{
        const char *path = path_of(f, disk, f->made);
        int ret;

        if (!path)
                return err_input(err, "overlay in %s: %s", f->set->overlay_dir,
                                 strerror(ENAMETOOLONG));
        ret = overlay_create_file(path, &fds[0], &fds[1], err);
        if (ret == -EEXIST || ret == -ENAMETOOLONG || ret == -EACCES || ret == -EROFS)
                err->class = ERR_INPUT;
        return ret ? err_prefix(err, ret, "overlay") : 0;
}

int overlays_make(struct overlay_files *f, unsigned *number, int fds[OVERLAY_FDS_MAX],
                  unsigned *nfds, uint32_t *which, struct err *err)
{
        unsigned i;
        int ret = 0;

        *nfds = 0;
        *which = 0;
        if (!f)
                return 0;
        f->made++;
        for (i = 0; i < f->set->n && !ret; i++) {
                if (!(f->set->writable >> i & 1))
                        continue;
                ret = make_file(f, i, fds + *nfds, err);
                if (ret)
                        break;
                *nfds += 2;
                *which |= 1u << i;
        }
        if (!ret) {
                *number = f->made;
                return 0;
        }
        while (*nfds)
                close(fds[--*nfds]);
        while (i-- > 0)
                if (*which >> i & 1)
                        (void)unlink(path_of(f, i, f->made) ?: "");
        *which = 0;
        f->made--;
        return ret;
}

void overlays_settle(struct overlay_files *f, unsigned number)
{
        for (unsigned i = 0; f && number && i < f->set->n; i++) {
                if (!(f->set->writable >> i & 1))
                        continue;
                if (begun(f, i, number))
                        f->used[i] = number;
                else
                        (void)unlink(path_of(f, i, number) ?: "");
        }
}

void overlays_started(struct overlay_files *f)
{
        for (unsigned i = 0; f && i < f->set->n; i++)
                if (f->set->writable >> i & 1)
                        f->used[i] = 1;
}

const char *overlays_path(struct overlay_files *f, unsigned disk)
{
        return f && disk < RAMET_DISKS_MAX && f->used[disk] ? path_of(f, disk, f->used[disk])
                                                            : NULL;
}
