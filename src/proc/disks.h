/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks, as the launcher's process has them. The images of a family of machines are opened and
 * locked once, for the first machine; overlay files are made for each machine. What comes of both
 * is descriptors, which the machines get with their messages: a machine opens nothing.
 */
#ifndef RAMET_PROC_DISKS_H
#define RAMET_PROC_DISKS_H

#include <limits.h>
#include <stdbool.h>

#include <ramet/ramet.h>

#include "base/err.h"
#include "proc/message.h"

#define OVERLAY_FDS_MAX (2 * RAMET_DISKS_MAX)

/* The images of a family. Counted by its processes and templates: the locks go with the last. */
struct disk_set {
        unsigned refs;
        unsigned n;
        struct {
                int fd;    /* open for writing, too, unless it is read-only */
                int ro_fd; /* the same file for reading; holds the lock. Read-only: the same number
                            */
        } image[RAMET_DISKS_MAX];
        uint32_t writable; /* bit i: disk i */
        char *overlay_dir; /* absolute; NULL: overlays are in memory */
};

/* Check and open what @options asks for. *set is NULL when that is nothing. 0, -EINVAL with a line
 * that names the disk, or -ENOMEM. */
int disks_open(const struct ramet_vm_options *options, struct disk_set **set, struct err *err);
struct disk_set *disks_ref(struct disk_set *set); /* NULL is fine, for both */
void disks_unref(struct disk_set *set);
/* Setting @i of the caller's, which are as long as its struct says: an older one is shorter. 0 or
 * -EINVAL. */
int disks_nth(const struct ramet_vm_options *options, unsigned i, struct ramet_disk *disk,
              struct err *err);
/* What its overlays call it, which are looked at from anywhere: to be freed; NULL: no memory. */
char *disks_name(const struct ramet_disk *disk);
/* The part of BOOT that is about them, and their descriptors, borrowed, image by image. */
void disks_tell(const struct disk_set *set, const struct ramet_vm_options *options,
                struct message_boot *m);

/* One machine's overlay files. */
struct overlay_files {
        struct disk_set *set;           /* a reference */
        char *name;                     /* of the machine */
        unsigned made;                  /* the number of its last files */
        unsigned armed;                 /* of those for the fork that is armed, 0: none */
        unsigned requested;             /* of those for the fork that it was asked for */
        unsigned used[RAMET_DISKS_MAX]; /* of those that are written to */
        char path[PATH_MAX];            /* of overlays_path() */
};

/* Files for @name's disks in @set. *files is NULL when there will be none. 0, -EINVAL (the name),
 * or -ENOMEM. */
int overlays_create(struct disk_set *set, const char *name, struct overlay_files **files,
                    struct err *err);
/* The machine is gone: remove what it has not used; all of it, if it never @started. NULL is fine.
 */
void overlays_destroy(struct overlay_files *files, bool started);
/* Make one for each disk that can be written, and open each for both and for reading only: fds[],
 * in pairs, the caller's to close. *which: bit i: disk i has a pair. *number: of these files. 0, or
 * -EINVAL or -errno with a line that names the file; then none was made. NULL makes none. */
int overlays_make(struct overlay_files *files, unsigned *number, int fds[OVERLAY_FDS_MAX],
                  unsigned *nfds, uint32_t *which, struct err *err);
/* A fork is over: which of the files @number are written to is known, the others are removed. */
void overlays_settle(struct overlay_files *files, unsigned number);
/* A clone has begun: its first files are written to. */
void overlays_started(struct overlay_files *files);
/* Where disk number @disk is written to, NULL: not to a file. Valid until the next call. */
const char *overlays_path(struct overlay_files *files, unsigned disk);

#endif
