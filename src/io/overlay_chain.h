/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An overlay file with all that is below it, found by what headers say: the file of each parent in
 * the same directory, by its name, else by its id, so that files may be renamed; the image by its
 * path. For programs at a terminal: everything is opened and read at once, and waited for.
 */
#ifndef RAMET_IO_OVERLAY_CHAIN_H
#define RAMET_IO_OVERLAY_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "io/overlay.h"

#define OVERLAY_CHAIN_MAX 4096 /* generations of forks */

enum overlay_image {
        OVERLAY_IMAGE_SAME,
        OVERLAY_IMAGE_CHANGED, /* another size, or written since */
        OVERLAY_IMAGE_MISSING, /* cannot be opened */
};

struct overlay_chain {
        unsigned n;
        struct overlay **overlays; /* bottom first; the last is the one that was asked for */
        char **files;              /* their names */
        int image_fd;              /* -1: missing */
        enum overlay_image image;
        uint64_t image_bytes; /* now */
        int image_error;      /* why it is missing */
        bool in_use;          /* a machine writes the topmost now */
};

/* Open the overlay at @path and what is below. A changed or missing image is told in the result.
 * 0; -EINVAL: @path or one below it cannot be used, or is missing; -errno. */
int overlay_chain_open(const char *path, struct overlay_chain *chain, struct err *err);
void overlay_chain_close(struct overlay_chain *chain);

uint64_t overlay_count_bytes(const struct overlay *o); /* of the sectors that are here */

/* Called now and then; @done of @total bytes of the disk. True: give up. */
typedef bool overlay_progress_fn(void *data, uint64_t done, uint64_t total);

/* Write what the chain shows to a new file at @path, which appears there when it is complete and on
 * the medium, and not at all otherwise. @force: it may exist, and the image may have changed. Holes
 * and zeros take no space. 0; -EINTR: given up; -EINVAL: refused, or no space; -errno. */
int overlay_export(const struct overlay_chain *chain, const char *path, bool force,
                   overlay_progress_fn *progress, void *data, struct err *err);

#endif
