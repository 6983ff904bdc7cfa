/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An overlay: what was written to a disk above what lies below, sector by sector. One sparse file,
 * or a memfd of the same contents:
 *
 *      0                header: struct overlay_header, little-endian
 *      4096             bitmap: bit i of byte i / 8 is sector i of 512 bytes; set: it is here
 *      data_offset      data: the disk's byte n is at data_offset + n
 *
 * A set bit over a hole means zeros. The granule is a sector, so that no write ever has to read
 * what it does not replace. The size of the file is always data_offset + disk_bytes.
 *
 * On top of a stack an overlay is *live*: its bitmap is in private memory, and goes to the file
 * when it is flushed or frozen, always after the data that it speaks of (and, in a file, after that
 * data is on the medium). So a host that crashes leaves no bit without its data, a file system that
 * is full cannot kill us through a mapping, and nothing has the file mapped writable when a memfd
 * is to be sealed. Frozen, the bitmap is mapped from the file, read-only: a clone that is given the
 * overlay copies nothing.
 *
 * What is read may come from anywhere and is checked before it is used: every field, the file's
 * size, and for a memfd its seals. A regular file has none: somebody who may write it can still cut
 * it short under us, and the next look at the bitmap is then a SIGBUS. So overlay files belong to
 * the user who runs the machine, and descriptors that are passed on are open for reading only.
 *
 * A live overlay's file is locked (flock), so that nobody takes it for what a machine left.
 *
 * Threads: one at a time.
 */
#ifndef RAMET_IO_OVERLAY_H
#define RAMET_IO_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/err.h"

#define OVERLAY_SECTOR       512u
#define OVERLAY_PAGE         4096u /* of the bitmap; what its writing goes by */
#define OVERLAY_HEADER_BYTES 4096u
#define OVERLAY_DISK_MAX     (1ull << 56) /* bytes of a disk */
#define OVERLAY_MAGIC        "RAMETOVL"
#define OVERLAY_VERSION      1u
#define OVERLAY_NAME_MAX     256  /* with the NUL */
#define OVERLAY_PATH_MAX     1024 /* with the NUL */

struct overlay_id {
        uint8_t bytes[16]; /* random; all zero: the image */
};

/* What an overlay says of itself and of what is below it. */
struct overlay_info {
        struct overlay_id id, parent;
        uint64_t disk_bytes;
        uint64_t image_bytes; /* of the image, when the overlay was begun ... */
        int64_t image_mtime_sec;
        uint32_t image_mtime_nsec;          /* ... so that a changed one is noticed */
        char name[OVERLAY_NAME_MAX];        /* its file's, without directory; "": not known */
        char parent_name[OVERLAY_NAME_MAX]; /* likewise; "" with the image below */
        char image[OVERLAY_PATH_MAX];       /* the image's path */
};

struct overlay_header {
        char magic[8];
        uint32_t version, header_bytes;
        uint64_t checksum; /* of the other 4088 bytes: overlay.c */
        uint8_t id[16], parent[16];
        uint64_t disk_bytes, bitmap_offset, bitmap_bytes, data_offset;
        uint64_t image_bytes;
        int64_t image_mtime_sec;
        uint32_t image_mtime_nsec;
        uint32_t begun; /* 0: has a name only, see overlay_create_file() */
        char name[OVERLAY_NAME_MAX];
        char parent_name[OVERLAY_NAME_MAX];
        char image[OVERLAY_PATH_MAX];
        uint8_t zero[OVERLAY_HEADER_BYTES - 112 - 2 * OVERLAY_NAME_MAX - OVERLAY_PATH_MAX];
};
_Static_assert(sizeof(struct overlay_header) == OVERLAY_HEADER_BYTES, "as the format says");

struct overlay {
        struct overlay_info info;
        int fd;        /* what is written; frozen: for reading only, or a sealed memfd */
        int ro_fd;     /* a live file, for reading only: what is read. Else -1 */
        bool live;     /* its bitmap is in private memory */
        bool memory;   /* a memfd */
        bool touched;  /* something has been, or is being, written since it was empty */
        bool unsynced; /* a file: something was written since data and bitmap were on the medium */
        uint64_t data_offset;
        uint64_t *bits; /* overlay_bitmap_bytes(); a mapping */
        uint64_t *news; /* live: bit i, page i of the bitmap is not in the file yet */
        dev_t dev;      /* which file it is */
        ino_t ino;
};

/* Make the file at @path, which must not exist, for a later overlay_make(): it holds a header that
 * knows its name. *fd is open for both, *ro_fd for reading only, both with close-on-exec. 0;
 * -EEXIST or -errno with err. */
int overlay_create_file(const char *path, int *fd, int *ro_fd, struct err *err);

/* A live, empty overlay of info->disk_bytes in the file @fd (@ro_fd: the same for reading only),
 * empty or of overlay_create_file(); or in memory with -1. They are taken, also on failure. @info:
 * an id is made if it has none, a file knows its name, the rest is as given. 0, -EINVAL or -errno,
 * with err. */
int overlay_make(const struct overlay_info *info, int fd, int ro_fd, struct overlay **overlay,
                 struct err *err);
/* Open a frozen overlay of a disk of @disk_bytes (0: any). @fd is taken, also on failure; it must
 * be open for reading only, or sealed. 0; -EINVAL (err says what is wrong with it), -errno. */
int overlay_open(int fd, uint64_t disk_bytes, struct overlay **overlay, struct err *err);
/* NULL is fine. What a live one in a file still has to write is written. */
void overlay_close(struct overlay *o);

/* Only read and check the header of a file of @size bytes. As overlay_open(). */
int overlay_read_info(int fd, struct overlay_info *info, struct err *err);

/* What is read, and passed on of a frozen one: for reading only, or (to be) sealed. Borrowed. */
int overlay_pass_fd(const struct overlay *o);

bool overlay_is_image(const struct overlay_id *id); /* all zero */
uint64_t overlay_bitmap_bytes(uint64_t disk_bytes); /* a multiple of OVERLAY_PAGE */

/* A live one that nothing was written to is not needed: its file has nothing but a name again, and
 * is given back in *fd and *ro_fd. It is gone after this; -1 for one in memory, or when this fails.
 */
void overlay_withdraw(struct overlay *o, int *fd, int *ro_fd);

/* Whether @sector is here; and *n, from 1 to @max, for how many sectors from there on that is the
 * same. All of [sector, sector + max) is inside the disk, @max is not 0. */
bool overlay_has(const struct overlay *o, uint64_t sector, uint64_t max, uint64_t *n);
/* The topmost of @n overlays (bottom first) that has @sector, -1: none, so it is in the image. *run
 * as with overlay_has(). */
int overlay_find(struct overlay *const *overlays, unsigned n, uint64_t sector, uint64_t max,
                 uint64_t *run);

/* The first sector from @sector on whose page of the bitmap may have a bit, or the disk's number of
 * sectors. Looking at a page that a memfd does not have would make it have one. */
uint64_t overlay_next_page(const struct overlay *o, uint64_t sector);

/* --- live overlays --- */

/* Data of these sectors has landed. */
void overlay_set(struct overlay *o, uint64_t sector, uint64_t n);
/* Another layer is below it: writes the header again, if it says something else. 0 or -errno. */
int overlay_set_parent(struct overlay *o, const struct overlay_info *info, struct err *err);
/* Forget all that was written. Fast: nothing when nothing was. 0 or -errno. */
int overlay_empty(struct overlay *o, struct err *err);
/* Write the pages of the bitmap that the file does not have; a file's data is synced before, and
 * the bitmap after it, if @sync. Waits. 0 or -errno (what was not written stays to be written). */
int overlay_write_bits(struct overlay *o, bool sync, struct err *err);
/* Freeze it for good: bitmap written (and synced), memfd sealed, nothing live any more. Can be
 * called again after it has failed; nothing when it is frozen. Waits. 0; -EBUSY: somebody may still
 * write it; -errno. */
int overlay_seal(struct overlay *o, struct err *err);

/* Pages of the bitmap as they were at one moment, for writing them while more bits are set. */
struct overlay_pages {
        size_t n;
        uint64_t *page; /* their numbers, ascending */
        uint8_t *bytes; /* n * OVERLAY_PAGE */
};

/* Take those that the file does not have; n may be 0. 0 or -ENOMEM. */
int overlay_take_pages(struct overlay *o, struct overlay_pages *pages);
/* They have been written; or (@again) they have not. Frees them. */
void overlay_pages_done(struct overlay *o, struct overlay_pages *pages, bool again);

#endif
