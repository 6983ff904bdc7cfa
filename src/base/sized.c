/* SPDX-License-Identifier: Apache-2.0 */
/* Structs that grow: see sized.h. */
#include "base/sized.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* More than any struct of ours will ever have: a size that was not set is rarely a small number. */
#define SIZE_LIMIT 65536

static int check(const char *what, const void *given, size_t min, size_t *size, struct err *err)
{
        if (!given)
                return err_input(err, "%s: NULL given", what);
        memcpy(size, given, sizeof *size);
        if (*size < min)
                return err_input(err, "%s: size is %zu, at least %zu was expected", what, *size,
                                 min);
        if (*size > SIZE_LIMIT)
                return err_input(err, "%s: size is %zu, at most %d was expected", what, *size,
                                 SIZE_LIMIT);
        return 0;
}

int sized_copy_in(const char *what, const void *from, void *to, size_t to_size, size_t min,
                  struct err *err)
{
        const unsigned char *bytes = from;
        size_t size = 0;
        int r = check(what, from, min, &size, err);

        if (r < 0)
                return r;
        for (size_t i = to_size; i < size; i++)
                if (bytes[i])
                        return err_input(err, "%s: has a setting that this library does not know",
                                         what);
        memset(to, 0, to_size);
        memcpy(to, from, size < to_size ? size : to_size);
        return 0;
}

int sized_copy_out(const char *what, const void *from, size_t from_size, void *to, size_t min,
                   struct err *err)
{
        unsigned char *bytes = to;
        const size_t head = sizeof(size_t);
        size_t size = 0, n;
        int r = check(what, to, min, &size, err);

        if (r < 0)
                return r;
        n = size < from_size ? size : from_size;
        memcpy(bytes + head, (const unsigned char *)from + head, n - head);
        memset(bytes + n, 0, size - n);
        return 0;
}
