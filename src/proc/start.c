/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine is told first: BOOT, or for a clone CLONE. Everything that can be wrong with it is
 * found before a process is asked for. The descriptors that are opened here are closed here, too:
 * one that has to wait in line duplicates them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proc/launcher.h"

static void add_fd(struct start *start, uint32_t *has, uint32_t bit, int fd)
{
        if (fd < 0)
                return;
        *has |= bit;
        start->fds[start->nfds++] = fd;
}

/* Image, image for reading only, and the pair of overlays, disk by disk. @overlays: the pairs. */
static void add_disks(struct start *start, const struct disk_set *set, uint32_t which,
                      const int *overlays)
{
        for (unsigned i = 0; set && i < set->n; i++) {
                start->fds[start->nfds++] = set->image[i].fd;
                start->fds[start->nfds++] = set->image[i].ro_fd;
                if (!(which >> i & 1))
                        continue;
                start->fds[start->nfds++] = *overlays++;
                start->fds[start->nfds++] = *overlays++;
        }
}

static void close_all(const int *fds, unsigned n)
{
        while (n)
                close(fds[--n]);
}

static void describe(struct message_boot *m, struct ramet_process *p,
                     const struct ramet_vm_options *o)
{
        m->head.type = MESSAGE_BOOT;
        m->shape = (struct message_shape){
                .memory_bytes = o->memory_bytes,
                .vcpus = o->vcpus,
                .debug_exit_port = o->debug_exit_port,
                .cow = o->cow,
                .ndisks = o->ndisks,
                .rng = o->rng,
                .virtio_console = o->virtio_console,
                .virtio_cmdline = o->virtio_cmdline,
        };
        m->seccomp = o->seccomp;
        m->hugepages = o->hugepages;
        m->flat_address = o->flat_address;
        m->flat_bits = o->flat ? o->flat_bits : 0;
        m->fork_count = o->fork_count;
        m->fork_at_doorbell = o->fork_at_doorbell;
        stpcpy(m->fork_text, o->fork_at_console ?: "");
        stpcpy(m->kernel_name, o->kernel_name ?: "kernel");
        stpcpy(m->initramfs_name, o->initramfs_name ?: "");
        disks_tell(p->disks, o, m);
        p->shape = m->shape;
        p->seccomp = o->seccomp;
        p->hugepages = o->hugepages;
        p->armed = o->fork_count;
}

/* @p has its disks. */
static int boot(struct ramet_process *p, const struct ramet_vm_options *o, struct message_boot *m)
{
        struct start start = {.msg = m, .nfds = 1, .fds = {o->kernel_fd}};
        bool armed = o->fork_count && (o->fork_at_doorbell || o->fork_at_console);
        int overlays[OVERLAY_FDS_MAX], ret;
        unsigned noverlays;
        struct err err;

        describe(m, p, o);
        ret = overlays_make(armed ? p->overlays : NULL,
                            armed && p->overlays ? &p->overlays->armed : NULL, overlays, &noverlays,
                            &m->overlays, &err);
        if (ret) {
                ctx_fail(p->spawner->ctx, ret, &err);
                process_free(p);
                return ret;
        }
        start.length = (size_t)(stpcpy(m->cmdline, o->cmdline ?: "") + 1 - (char *)m);
        add_fd(&start, &m->has, MESSAGE_HAS_INITRAMFS, o->initramfs_fd);
        add_fd(&start, &m->has, MESSAGE_HAS_CONSOLE_IN, o->console_in_fd);
        add_fd(&start, &m->has, MESSAGE_HAS_CONSOLE_OUT, o->console_out_fd);
        add_disks(&start, p->disks, m->overlays, overlays);
        ret = process_submit(p, &start);
        close_all(overlays, noverlays);
        return ret;
}

int ramet_process_start(struct ramet_spawner *s, const struct ramet_vm_options *options,
                        struct ramet_process **process)
{
        struct overlay_files *overlays = NULL;
        struct disk_set *disks = NULL;
        struct ramet_vm_options o;
        struct message_boot *m;
        struct ramet_process *p;
        struct err err;
        int ret;

        if (!s || !process)
                return ctx_null(s ? "process" : "spawner");
        ret = options_check(options, &o, &err);
        ret = ret ?: disks_open(&o, &disks, &err);
        ret = ret ?: overlays_create(disks, o.name, &overlays, &err);
        if (ret) {
                disks_unref(disks);
                return ctx_fail(s->ctx, ret, &err);
        }
        m = calloc(1, sizeof *m);
        p = m ? process_new(s) : NULL;
        if (!p) {
                free(m);
                overlays_destroy(overlays, false);
                disks_unref(disks);
                return ctx_fail(s->ctx, err_host(&err, ENOMEM, "no memory for a machine"), &err);
        }
        p->disks = disks;
        p->overlays = overlays;
        ret = boot(p, &o, m);
        free(m);
        if (!ret)
                *process = p;
        return ret;
}

/* A shell becomes the clone: its process is there, or soon will be, and waits to be told. */
static int adopt(struct ramet_process *p, const struct start *start)
{
        int fds[MESSAGE_FDS_MAX + START_FDS];
        struct ramet_event *e;
        unsigned n = 0;
        int ret;

        for (unsigned i = 0; i < start->frozen->nfds; i++)
                fds[n++] = start->frozen->fds[i];
        for (unsigned i = 0; i < start->nfds; i++)
                fds[n++] = start->fds[i];
        ret = message_send(p->channel, start->msg, start->length, fds, n, MSG_DONTWAIT);
        if (ret) {
                ramet_process_release(p);
                return ret;
        }
        if (!p->starting)
                p->spawner->starting++;
        p->starting = true;
        e = p->state == PROCESS_LAUNCHED ? spawner_queue(p, RAMET_EVENT_LAUNCHED, clock_now_ns())
                                         : NULL; /* it will come */
        if (e)
                e->launched.pid = p->pid;
        return 0;
}

static void inherit(struct ramet_process *p, const struct ramet_frozen *frozen)
{
        p->clone = true;
        p->requested_ns = clock_now_ns();
        p->fork_point_ns = frozen->fork_point_ns;
        p->shape = frozen->shape;
        p->seccomp = frozen->seccomp;
        p->hugepages = frozen->hugepages;
}

/* In a warm shell if one is ready and can be reached, else in a process of its own from the start.
 */
static int start_clone(struct ramet_spawner *s, const struct start *start,
                       struct ramet_process **process)
{
        struct ramet_process *p = shell_take(s, start->frozen);
        struct err err;
        int ret;

        if (p) {
                inherit(p, start->frozen);
                ret = adopt(p, start);
                if (!ret)
                        *process = p;
                if (!ret)
                        return 0;
        }
        p = process_new(s);
        if (!p)
                return ctx_fail(s->ctx, err_host(&err, ENOMEM, "no memory for a clone"), &err);
        inherit(p, start->frozen);
        ret = process_submit(p, start);
        if (!ret)
                *process = p;
        return ret;
}

int ramet_process_clone(struct ramet_spawner *s, struct ramet_frozen *frozen,
                        const struct ramet_clone_options *options, struct ramet_process **process)
{
        struct ramet_clone_options o;
        struct message_clone m = {.head.type = MESSAGE_CLONE};
        struct start start = {.msg = &m, .length = sizeof m, .frozen = frozen};
        struct overlay_files *overlays = NULL;
        unsigned noverlays = 0, number;
        struct err err;
        int ret;

        if (!s || !frozen || !process)
                return ctx_null(!s ? "spawner" : !frozen ? "frozen" : "process");
        ret = options_check_clone(options, &o, &err);
        ret = ret ?: overlays_create(frozen->disks, o.name, &overlays, &err);
        ret = ret ?: overlays_make(overlays, &number, start.fds, &noverlays, &m.overlays, &err);
        if (ret) {
                overlays_destroy(overlays, false);
                return ctx_fail(s->ctx, ret, &err);
        }
        m.nlayers = frozen->nfds - 1 - frozen->nfiles;
        m.nfiles = frozen->nfiles;
        m.seccomp = frozen->seccomp;
        m.hugepages = frozen->hugepages;
        m.cow = frozen->shape.cow;
        m.index = o.index;
        m.count = o.count;
        m.paused = o.paused;
        start.nfds = noverlays;
        add_fd(&start, &m.has, MESSAGE_HAS_CONSOLE_IN, o.console_in_fd);
        add_fd(&start, &m.has, MESSAGE_HAS_CONSOLE_OUT, o.console_out_fd);
        ret = start_clone(s, &start, process);
        close_all(start.fds, noverlays);
        if (ret) {
                overlays_destroy(overlays, false);
                return ret;
        }
        (*process)->overlays = overlays;
        (*process)->disks = disks_ref(frozen->disks);
        return 0;
}
