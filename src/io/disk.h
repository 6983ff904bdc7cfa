/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk as a machine sees it: a stack of layers, read from the top down, sector by sector.
 *
 *      overlay     what this machine wrote since the last fork; written
 *      overlay     what an ancestor wrote between two forks; never written any more
 *      image       the file or block device that the user gave
 *
 * A root machine writes its image until its first fork. A fork makes the top of the stack a layer
 * for everybody and puts an empty overlay on it, in the parent as in each clone; so the image is
 * never written from then on, and no machine's writes can be in another's disk.
 *
 * overlay.h has the format of an overlay, which is a sparse file or a memfd. In memory it dies with
 * the last machine that has it. In a file it has, after a crash of the host or the death of the
 * process, all that was flushed, and of each other sector what is old or what is new.
 *
 * Threads: the loop's.
 */
#ifndef RAMET_IO_DISK_H
#define RAMET_IO_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "io/loop.h"

#define DISK_SECTOR 512u
#define DISK_LAYERS_MAX                                                                            \
        16 /* with image and top; a freeze merges overlays when there would be more */

#define DISK_NAME_MAX 1024 /* with the NUL; what is longer is cut */

struct disk;

struct disk_options {
        int image_fd, image_ro_fd;     /* see struct device_disk; the disk's from now on */
        int overlay_fd, overlay_ro_fd; /* the same; best a file of overlay_create_file() */
        bool readonly;
        /* Of the image, for messages and for the overlays' headers: its path. Copied. NULL: a
         * clone's comes with the record. */
        const char *name;
};

/* Open a disk whose image is at its bottom, or (image_fd -1) an empty one that disk_restore() makes
 * something of. The descriptors are taken also on failure. 0; -EINVAL (err: not a file or a block
 * device, not a multiple of 512 bytes, an overlay file that is not empty, ...), -errno. */
int disk_open(struct loop *loop, const struct disk_options *options, struct disk **disk,
              struct err *err);
void disk_close(struct disk *disk); /* NULL is fine; nothing is in flight */

uint64_t disk_bytes(const struct disk *disk);
bool disk_readonly(const struct disk *disk);

/* --- requests --- */

enum disk_op {
        DISK_READ,
        DISK_WRITE,
        DISK_FLUSH,        /* what was written before is on the medium, if it has one */
        DISK_DISCARD,      /* contents are given up: zeros afterwards where the files can, else as
                            * they were */
        DISK_WRITE_ZEROES, /* read as zeros; their space may be given up */
};

#define DISK_PARTS 8 /* I/Os of one request that are in flight at a time */

struct disk_request {
        enum disk_op op;
        uint64_t offset, len;    /* bytes, multiples of DISK_SECTOR, inside the disk */
        const struct iovec *iov; /* READ, WRITE: len bytes in all; good until landed() */
        unsigned niov;
        /* Both as in struct loop_io: landed() when nothing of it is in flight any more and the
         * buffers are not used again, done() later. Each once. */
        void (*landed)(struct disk_request *r);
        void (*done)(struct disk_request *r);
        int result;  /* 0 or -errno */
        void *inner; /* the disk's own, for the time of the request */
};

#define DISK_REQUESTS_MAX 1024

/* Start it. Checked again here: what leaves the disk, or writes a read-only one, ends with -EINVAL
 * or -EROFS. Neither landed() nor done() is called from within. Beyond DISK_REQUESTS_MAX, requests
 * wait for done() of an earlier one, so who lends memory to requests must not have more. */
void disk_submit(struct disk *disk, struct disk_request *request);

/* --- forks; nothing is in flight --- */

/* What is saved of a disk besides its files; fixed length, part of the device's record. */
struct disk_record {
        uint64_t bytes;
        uint32_t layers;          /* files: the image, then overlays from the bottom up */
        uint32_t readonly;        /* 0 or 1 */
        char name[DISK_NAME_MAX]; /* the image's, NUL-terminated, then zeros */
};

/* The file for the overlay that the next freeze makes; taken. Without one it is in memory. One that
 * was given before and not used is closed. A file of overlay_create_file(), or an empty one. */
void disk_give_overlay(struct disk *disk, int fd, int ro_fd);

/* As in struct device_ops. prepare makes the next overlay, and merges layers when there would be
 * too many; freeze puts it on top; publish seals what was below it. A disk that wrote nothing since
 * its last freeze gets no new layer. A read-only one never does. save, which comes before freeze,
 * says what clones will be given: what disk_files() has after the publish. */
int disk_freeze_prepare(struct disk *disk, struct err *err);
void disk_save(const struct disk *disk, struct disk_record *record);
void disk_freeze(struct disk *disk);
int disk_freeze_publish(struct disk *disk, struct err *err);
void disk_freeze_cancel(struct disk *disk);
/* The files of the layers of the last freeze, borrowed, open for reading only (or sealed). Returns
 * their number, at most DISK_LAYERS_MAX. */
unsigned disk_files(const struct disk *disk, int fds[DISK_LAYERS_MAX]);

/* Become the disk of @record: these layers (duplicated), and nothing on top. The overlay that it
 * has is emptied and used again, else it is the one given with the options, else in memory. What is
 * given is checked, it may come from anywhere. 0, -EINVAL, or -errno. */
int disk_restore(struct disk *disk, const struct disk_record *record, const int *fds, unsigned n,
                 struct err *err);

/* Bytes that this machine alone has: in the overlay on top. */
uint64_t disk_own_bytes(const struct disk *disk);

/* System calls made after disk_open(), besides those of the loop. NULL-terminated. */
extern const char *const disk_syscalls[];

#endif
