/* SPDX-License-Identifier: Apache-2.0 */
/* A template's descriptors and their reference count: see template.h. */
#include "vm/template.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static int check_sealed(int fd, const char *what, struct err *err)
{
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0 || (seals & (F_SEAL_WRITE | F_SEAL_SHRINK)) != (F_SEAL_WRITE | F_SEAL_SHRINK))
                return err_input(err, "template: its %s is not sealed against changes", what);
        return 0;
}

static void close_all(int state_fd, const int *layer_fds, unsigned nlayers, const int *file_fds,
                      unsigned nfiles)
{
        if (state_fd >= 0)
                close(state_fd);
        for (unsigned i = 0; i < nlayers; i++)
                close(layer_fds[i]);
        for (unsigned i = 0; i < nfiles; i++)
                close(file_fds[i]);
}

int template_import(int state_fd, const int *layer_fds, unsigned nlayers, const int *file_fds,
                    unsigned nfiles, struct template **out, struct err *err)
{
        struct template *t;
        int r = 0;

        if (nlayers == 0 || nlayers > TEMPLATE_LAYERS_MAX)
                r = err_input(err, "template: %u memory layers, expected 1 to %d", nlayers,
                              TEMPLATE_LAYERS_MAX);
        if (r == 0 && nfiles > TEMPLATE_FILES_MAX)
                r = err_input(err, "template: %u files of devices, expected at most %d", nfiles,
                              TEMPLATE_FILES_MAX);
        if (r == 0)
                r = check_sealed(state_fd, "saved state", err);
        for (unsigned i = 0; i < nlayers && r == 0; i++)
                r = check_sealed(layer_fds[i], "memory layer", err);
        t = r == 0 ? calloc(1, sizeof *t) : NULL;
        if (r == 0 && !t)
                r = err_host(err, ENOMEM, "no memory for a template");
        if (r < 0) {
                close_all(state_fd, layer_fds, nlayers, file_fds, nfiles);
                return r;
        }
        t->refs = 1;
        t->state_fd = state_fd;
        t->nlayers = nlayers;
        for (unsigned i = 0; i < nlayers; i++)
                t->layer_fds[i] = layer_fds[i];
        t->nfiles = nfiles;
        for (unsigned i = 0; i < nfiles; i++)
                t->file_fds[i] = file_fds[i];
        *out = t;
        return 0;
}

struct template *template_ref(struct template *t)
{
        __atomic_fetch_add(&t->refs, 1, __ATOMIC_RELAXED);
        return t;
}

void template_unref(struct template *t)
{
        if (!t || __atomic_sub_fetch(&t->refs, 1, __ATOMIC_ACQ_REL) > 0)
                return;
        close_all(t->state_fd, t->layer_fds, t->nlayers, t->file_fds, t->nfiles);
        free(t);
}
