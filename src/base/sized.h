/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structs of the public interface that begin with their own size, so that they can grow. One of an
 * older caller is shorter than ours, and what it lacks counts as zero; one of a newer caller is
 * longer, and what we do not know of it must be zero.
 */
#ifndef RAMET_BASE_SIZED_H
#define RAMET_BASE_SIZED_H

#include <stddef.h>

#include "base/err.h"

/* The size of a struct whose last member is @member: that of the first version. */
#define SIZED_TO(type, member) (offsetof(type, member) + sizeof((type){0}.member))

/* Copy a caller's struct into ours, of @to_size bytes. @what names it in messages; @min: the first
 * version's size. 0, or -EINVAL (@from is NULL, too short, or has what we do not know). */
int sized_copy_in(const char *what, const void *from, void *to, size_t to_size, size_t min,
                  struct err *err);
/* The other way round: as much of ours as the caller's struct, whose size is set, has room for; its
 * size stays, what it has beyond ours becomes zero. 0 or -EINVAL. */
int sized_copy_out(const char *what, const void *from, size_t from_size, void *to, size_t min,
                   struct err *err);

#endif
