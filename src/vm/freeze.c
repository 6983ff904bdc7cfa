/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeze: a running machine becomes an immutable template, and runs on.
 *
 *      before   scan memory for its data; devices prepare; nothing is stopped
 *      pause    I/O ends; stop all vCPUs at the barrier; save vCPUs, interrupt controllers,
 * devices; freeze memory and the devices' files after    seal what was frozen; write the records;
 * only then does a template exist
 *
 * State is saved before memory changes hands, so that every failure up to there leaves the machine
 * as it was. Devices freeze after memory, since they cannot fail. What fails later costs the
 * template, and the machine a layer more of memory and of each disk; the guest notices nothing. The
 * write access that the VMM itself has through its host addresses ends with the pause, too: the
 * addresses stay, what is behind them is private from then on.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "vm/machine.h"

/* More than a state usually is: see record_writer_reserve(). */
#define STATE_BYTES      (64u << 10)
#define VCPU_STATE_BYTES (16u << 10)

/* Memory has changed hands by now: a machine whose engine cannot go on with it has to end. */
static int prepare(struct vm *vm, struct err *err)
{
        int r = cow_prepare(vm, err);

        if (r < 0)
                vm_exit_with(vm, RAMET_EXIT_HOST, 0, "%s", err->text);
        return r;
}

/* The stopped part. The vCPUs are parked when it begins and still are when it ends. */
static int freeze_stopped(struct vm *vm, struct backing_freeze *f, struct record_writer *w,
                          struct vm_freeze_stats *stats, struct err *err)
{
        uint64_t t0;
        int r;

        /* Its vCPUs left without finishing what their last exits asked for. None is running, so
         * that it cannot end from here on. */
        cow_finish_msrs(vm);
        if (vm_has_ended(vm))
                return err_host(err, ESRCH, "the machine has ended");
        r = machine_save(vm, w, err);
        if (r < 0)
                return r;
        t0 = vm_now_ns();
        r = backing_freeze(&vm->backing, f, err);
        if (r == 0 && f->first)
                r = prepare(vm, err);
        if (r == 0)
                machine_devices_freeze(vm);
        stats->freeze_ns = vm_now_ns() - t0;
        return r;
}

static int freeze_in_pause(struct vm *vm, struct backing_freeze *f, struct record_writer *w,
                           struct vm_freeze_stats *stats, struct err *err)
{
        bool was_paused = vm->paused;
        uint64_t t0 = vm_now_ns();
        int r;

        vm_pause(vm);
        stats->quiesce_ns = vm->quiesce_ns;
        if (!was_paused)
                t0 = vm->paused_ns; /* when it began to stop the vCPUs */
        stats->fork_point_ns = t0;
        stats->stop_ns = vm_now_ns() - t0;
        r = freeze_stopped(vm, f, w, stats, err);
        if (r < 0)
                machine_devices_cancel(vm);
        if (!was_paused)
                vm_run(vm);
        stats->pause_ns = vm->meter.last_pause = vm_now_ns() - t0;
        return r;
}

static void close_fds(const int *fds, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                close(fds[i]);
}

/* The template's own descriptors of @n files; none after a failure. */
static int duplicate(int *fds, unsigned n, const char *what, struct err *err)
{
        for (unsigned i = 0; i < n; i++) {
                int e;

                fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
                if (fds[i] >= 0)
                        continue;
                e = errno;
                close_fds(fds, i);
                return err_host(err, e, "%s %u: %s", what, i, strerror(e));
        }
        return 0;
}

static int make_template(struct vm *vm, struct backing_freeze *f, struct record_writer *w,
                         struct vm_record *rec, struct template **tmpl, struct err *err)
{
        struct device_files files = {0};
        int layers[BACKING_LAYERS_MAX];
        struct extent_list extents;
        struct err devices_err;
        int state_fd, r, devices_r;

        r = backing_freeze_publish(&vm->backing, f, layers, &rec->layers, &extents, err);
        /* They have been frozen, too, whether there is a use for it or not. */
        devices_r = machine_devices_publish(vm, w, &files, &devices_err);
        if (r < 0)
                return r;
        if (devices_r < 0) {
                extent_list_fini(&extents);
                *err = devices_err;
                return devices_r;
        }
        record_add(w, RECORD_VM, 0, 1, rec, sizeof *rec);
        record_add(w, RECORD_LAYOUT, 0, 1, extents.items, extents.count * sizeof *extents.items);
        extent_list_fini(&extents);
        r = record_finish(w, &state_fd, err);
        if (r < 0)
                return r;
        r = duplicate(layers, rec->layers, "memory layer", err);
        if (r < 0) {
                close(state_fd);
                return r;
        }
        r = duplicate(files.fds, files.n, "file of a device", err);
        if (r < 0) {
                close_fds(layers, rec->layers);
                close(state_fd);
                return r;
        }
        return template_import(state_fd, layers, rec->layers, files.fds, files.n, tmpl, err);
}

int vm_freeze(struct vm *vm, uint64_t cause_ns, bool by_doorbell, struct template **tmpl,
              struct vm_freeze_stats *stats, struct err *err)
{
        struct vm_record rec = {.shape = vm->shape, .by_doorbell = by_doorbell};
        struct backing_freeze f;
        struct record_writer w;
        uint64_t t0;
        int r;

        *stats = (struct vm_freeze_stats){0};
        r = backing_freeze_prepare(&vm->backing, &f, err);
        if (r == 0)
                r = machine_devices_prepare(vm, err);
        if (r < 0) {
                backing_freeze_end(&f);
                return r;
        }
        record_writer_init(&w);
        record_writer_reserve(&w, STATE_BYTES + vm->shape.vcpus * VCPU_STATE_BYTES);
        r = freeze_in_pause(vm, &f, &w, stats, err);
        t0 = vm_now_ns();
        if (r == 0) {
                stats->generation = ++vm->generation;
                stats->copied_bytes = f.copied_bytes;
                rec.fork_point_ns = cause_ns ? cause_ns : stats->fork_point_ns;
                r = make_template(vm, &f, &w, &rec, tmpl, err);
                /* Its memory is that template and its own pages from now on, as a clone's is. */
                if (r == 0 && f.first)
                        vm->tmpl = template_ref(*tmpl);
        }
        backing_freeze_end(&f);
        record_writer_fini(&w);
        stats->publish_ns = vm_now_ns() - t0;
        return r;
}
