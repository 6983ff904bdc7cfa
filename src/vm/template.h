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
#include "devices/device.h"

/* All of it goes into one SCM_RIGHTS message (253 at most), beside a clone's own descriptors. */
#define TEMPLATE_LAYERS_MAX 80
#define TEMPLATE_FILES_MAX  DEVICE_FILES_MAX

struct template
{
        unsigned refs;                      /* [a] */
        int state_fd;                       /* [I] */
        unsigned nlayers;                   /* [I] */
        int layer_fds[TEMPLATE_LAYERS_MAX]; /* [I] */
        unsigned nfiles;                    /* [I] layers of disks; the state says whose they are */
        int file_fds[TEMPLATE_FILES_MAX];   /* [I] */
};

/* Takes ownership of the descriptors (also on failure). They may come from anywhere: what they hold
 * is checked (a layer must be sealed against writing and shrinking; devices look at their files
 * themselves). 0, -EINVAL or -ENOMEM. */
int template_import(int state_fd, const int *layer_fds, unsigned nlayers, const int *file_fds,
                    unsigned nfiles, struct template **tmpl, struct err *err);
struct template *template_ref(struct template *tmpl);
void template_unref(struct template *tmpl); /* NULL is fine */

#endif
