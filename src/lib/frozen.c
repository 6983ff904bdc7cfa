/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A template in the program and a template for processes are the same descriptors: state, layers,
 * files of disks. One becomes the other by duplicating them; the locks of images are on these, too.
 * What else a launcher wants to know, the shape of the machine, stands in the state.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/record.h"
#include "lib/lib.h"
#include "proc/launcher.h"

/* All or none of them. */
static int duplicate(const int *from, unsigned n, int *to, struct err *err)
{
        for (unsigned i = 0; i < n; i++) {
                to[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 0);
                if (to[i] >= 0)
                        continue;

                int error = errno;

                while (i > 0)
                        close(to[--i]);
                return err_host(err, error, "template: its descriptors: %s", strerror(error));
        }
        return 0;
}

static int read_header(int state_fd, struct vm_record *header, struct err *err)
{
        struct record_reader reader;
        int r = record_reader_init_fd(&reader, state_fd, record_rules, err);

        if (r < 0)
                return r;
        r = record_get(&reader, RECORD_VM, 0, header, sizeof *header, err);
        record_reader_fini(&reader);
        return r;
}

static int export(const struct ramet_template *tmpl, struct ramet_frozen **out, struct err *err)
{
        int fds[1 + TEMPLATE_LAYERS_MAX + TEMPLATE_FILES_MAX];
        const struct template *t = tmpl->tmpl;
        struct vm_record header;
        struct ramet_frozen *f;
        unsigned n = 0;
        int r = read_header(t->state_fd, &header, err);

        if (r < 0)
                return r;
        fds[n++] = t->state_fd;
        for (unsigned i = 0; i < t->nlayers; i++)
                fds[n++] = t->layer_fds[i];
        for (unsigned i = 0; i < t->nfiles; i++)
                fds[n++] = t->file_fds[i];
        f = malloc(sizeof *f + n * sizeof *f->fds);
        if (!f)
                return err_host(err, ENOMEM, "no memory for a template");
        *f = (struct ramet_frozen){
                .refs = 1,
                .fork_point_ns = header.fork_point_ns,
                .shape = {.memory_bytes = header.shape.memory_bytes,
                          .vcpus = header.shape.vcpus,
                          .debug_exit_port = header.shape.debug_exit_port,
                          .cow = tmpl->kind.cow,
                          .ndisks = header.shape.ndisks,
                          .rng = header.shape.rng,
                          .virtio_console = header.shape.virtio_console,
                          .virtio_cmdline = header.shape.virtio_cmdline},
                .seccomp = RAMET_SECCOMP_ON,
                .hugepages = tmpl->kind.hugepages,
                .generation = tmpl->info.generation,
                .pause_ns = tmpl->info.pause_ns,
                .copied_bytes = tmpl->info.copied_bytes,
                .nfiles = t->nfiles,
                .nfds = n,
        };
        r = duplicate(fds, n, f->fds, err);
        if (r < 0)
                free(f);
        else
                *out = f;
        return r;
}

int ramet_template_export(struct ramet_template *tmpl, struct ramet_frozen **frozen)
{
        struct err err = {0};
        int ret;

        if (!tmpl)
                ret = err_input(&err, "template: NULL given");
        else if (!frozen)
                ret = err_input(&err, "frozen: NULL given, where to put one was expected");
        else
                ret = export(tmpl, frozen, &err);
        return lib_result(ret, &err);
}

static int import(struct ramet_ctx *ctx, const struct ramet_frozen *f, const char *name,
                  struct ramet_template **out, struct err *err)
{
        const unsigned nlayers = f->nfds - 1 - f->nfiles;
        const struct lib_kind kind = {.cow = f->shape.cow, .hugepages = f->hugepages};
        struct template *t;
        int r, *fds = malloc(f->nfds * sizeof *fds);

        if (!fds)
                return err_host(err, ENOMEM, "no memory for a template");
        r = duplicate(f->fds, f->nfds, fds, err);
        if (r == 0)
                r = template_import(fds[0], fds + 1, nlayers, fds + 1 + nlayers, f->nfiles, &t,
                                    err);
        free(fds);
        if (r == 0)
                r = lib_template_new(ctx, t, &kind, name, out, err);
        if (r < 0)
                return r;
        (*out)->info.memory_bytes = f->shape.memory_bytes;
        (*out)->info.vcpus = f->shape.vcpus;
        (*out)->info.generation = f->generation;
        (*out)->info.pause_ns = f->pause_ns;
        (*out)->info.copied_bytes = f->copied_bytes;
        return 0;
}

int ramet_template_import(struct ramet_ctx *ctx, struct ramet_frozen *frozen, const char *name,
                          struct ramet_template **tmpl)
{
        struct err err = {0};
        int ret;

        if (!ctx || !frozen)
                ret = err_input(&err, "%s: NULL given", ctx ? "frozen" : "ctx");
        else if (!tmpl)
                ret = err_input(&err, "tmpl: NULL given, where to put one was expected");
        else
                ret = lib_check_name(name, &err);
        if (ret == 0)
                ret = import(ctx, frozen, name, tmpl, &err);
        return lib_result(ret, &err);
}
