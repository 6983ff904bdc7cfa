/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A caller's settings, and the calling thread's last error. Errors belong to threads, as errno
 * does: two threads that use one context, or one machine, each read what went wrong for them.
 */
#ifndef RAMET_PROC_CTX_H
#define RAMET_PROC_CTX_H

#include <ramet/ramet.h>

#include "base/err.h"

struct ramet_ctx {
        _Atomic int kick_signal; /* of machines made from now on */
};

/* Note an error for ramet_last_error(); returns @ret. @ctx may be NULL. */
int ctx_fail(const struct ramet_ctx *ctx, int ret, const struct err *err);
/* The argument @name is NULL and must not be: -EINVAL. */
int ctx_null(const char *name);
/* This thread's; never NULL. */
const struct err *ctx_last(void);

#endif
