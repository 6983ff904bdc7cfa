/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of a disk: disk.c (the stack, forks), disk_io.c (requests), disk_flush.c
 * (flushes), disk_merge.c (several layers become one).
 */
#ifndef RAMET_IO_DISK_INTERNAL_H
#define RAMET_IO_DISK_INTERNAL_H

#include "io/disk.h"
#include "io/overlay.h"

_Static_assert(DISK_NAME_MAX == OVERLAY_PATH_MAX, "headers of overlays have it");

struct job;

/* One round of flushes: all that were asked for when it began end with it. */
struct flush {
        struct loop_io io;
        struct disk *disk;
        struct job *now, *next; /* served by this round, by the next one */
        bool image;             /* what is to be synced still */
        unsigned overlay;       /* index of the one at work */
        unsigned step;          /* of that one: enum in disk_flush.c */
        struct overlay_pages pages;
        size_t page; /* the next of them to write */
        struct iovec iov;
        int result;
};

struct disk {
        struct loop *loop;
        uint64_t bytes; /* 0: not known yet */
        bool readonly;
        char name[DISK_NAME_MAX];

        /* The stack. */
        int image_fd;    /* written; -1 once something is above it, and in clones */
        int image_ro_fd; /* read, and passed on */
        struct disk_image {
                dev_t dev; /* which file it is */
                ino_t ino;
                struct overlay_info info; /* what an overlay right above it says */
        } image;
        bool image_unsynced; /* something was, or may have been, written to it */
        unsigned noverlays;
        struct overlay *overlays[DISK_LAYERS_MAX]; /* bottom first */
        bool own;                                  /* the last of them is live, and written */

        /* For the next freeze. */
        int given_fd, given_ro_fd;
        struct overlay *next;   /* goes on top */
        struct overlay *merged; /* takes the place of all frozen ones */
        unsigned nretired;
        struct overlay *retired[DISK_LAYERS_MAX]; /* whose place it took; closed after the pause */

        /* What the files cannot do; found by trying. */
        bool no_zero_range;          /* the image's */
        bool no_punch, no_punch_top; /* the image's, overlays' */

        struct job *jobs;                            /* DISK_REQUESTS_MAX of them */
        struct job *jobs_free;                       /* used before */
        unsigned jobs_used;                          /* those beyond it were never touched */
        struct disk_request *waiting, *waiting_last; /* for a job; linked by inner */
        struct flush flush;
};

/* disk_io.c */
int disk_io_init(struct disk *disk); /* 0 or -ENOMEM */
void disk_io_fini(struct disk *disk);

/* disk_flush.c: ends with job_end(). */
void disk_flush_start(struct disk *disk, struct job *job);

/* disk_io.c, for flushes: a link, and the end. */
struct job **job_next(struct job *job);
void job_end(struct job *job, int result);

/* disk_merge.c: an overlay in memory with all that @n overlays show, topmost first, and the name
 * and id of the topmost; frozen. 0 or -errno. */
int disk_merge(struct overlay *const *overlays, unsigned n, struct overlay **merged,
               struct err *err);

#endif
