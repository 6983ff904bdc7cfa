/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template: an immutable frozen machine. Layers of memory, bottom first, each a sealed memfd, and
 * the saved state (base/record.h) in another. It is nothing but descriptors, so it passes to other
 * processes as such. What keeps everybody from writing are the seals; a root machine's layer is
 * opened read-only besides.
 *
 * Threads: the reference count is atomic, everything else is immutable.
 */
#ifndef RAMET_VM_TEMPLATE_H
#define RAMET_VM_TEMPLATE_H

#include "base/err.h"

#define TEMPLATE_LAYERS_MAX 200 /* they go into one SCM_RIGHTS message (253 at most) */

struct template
{
        unsigned refs;                      /* [a] */
        int state_fd;                       /* [I] */
        unsigned nlayers;                   /* [I] */
        int layer_fds[TEMPLATE_LAYERS_MAX]; /* [I] */
};

/* Takes ownership of the descriptors (also on failure). They may come from anywhere: what they hold
 * is checked (a layer must be sealed against writing and shrinking). 0, -EINVAL or -ENOMEM. */
int template_import(int state_fd, const int *layer_fds, unsigned nlayers, struct template **tmpl,
                    struct err *err);
struct template *template_ref(struct template *tmpl);
void template_unref(struct template *tmpl); /* NULL is fine */

#endif
