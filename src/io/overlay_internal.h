/* SPDX-License-Identifier: Apache-2.0 */
/* Between overlay.c and overlay_header.c. */
#ifndef RAMET_IO_OVERLAY_INTERNAL_H
#define RAMET_IO_OVERLAY_INTERNAL_H

#include "io/overlay.h"

/* Make the empty file @fd (or one that has a name only) the overlay of @info, with an id of its own
 * if that has none; *made is what its header then says. 0, -EINVAL or -errno. */
int overlay_begin(int fd, bool memory, const struct overlay_info *info, struct overlay_info *made,
                  struct err *err);

/* The opposite: it has a name only. 0 or -errno. */
int overlay_unbegin(int fd, const char *name);

#endif
