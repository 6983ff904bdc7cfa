/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeze: a running machine becomes an immutable template, and runs on.
 *
 *      before   scan memory for its data; nothing is stopped
 *      pause    stop all vCPUs at the barrier; save vCPUs, interrupt controllers, devices; freeze
 * memory after    seal what was frozen; write the records; only then does a template exist
 *
 * State is saved before memory changes hands, so that every failure up to there leaves the machine
 * as it was. The write access that the VMM itself has through its host addresses ends with the
 * pause, too: the addresses stay, what is behind them is private from then on.
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
        stats->freeze_ns = vm_now_ns() - t0;
        return r;
}

static int freeze_in_pause(struct vm *vm, struct backing_freeze *f, struct record_writer *w,
                           struct vm_freeze_stats *stats, struct err *err)
{
        bool was_paused = vm->paused;
        uint64_t t0 = vm_now_ns();
        int r;

        stats->fork_point_ns = t0;
        vm_pause(vm);
        stats->stop_ns = vm_now_ns() - t0;
        r = freeze_stopped(vm, f, w, stats, err);
        if (!was_paused)
                vm_run(vm);
        stats->pause_ns = vm_now_ns() - t0;
        return r;
}

static int make_template(struct vm *vm, struct backing_freeze *f, struct record_writer *w,
                         struct vm_record *rec, struct template **tmpl, struct err *err)
{
        int layers[BACKING_LAYERS_MAX];
        struct extent_list extents;
        int state_fd, r;

        r = backing_freeze_publish(&vm->backing, f, layers, &rec->layers, &extents, err);
        if (r < 0)
                return r;
        record_add(w, RECORD_VM, 0, 1, rec, sizeof *rec);
        record_add(w, RECORD_LAYOUT, 0, 1, extents.items, extents.count * sizeof *extents.items);
        extent_list_fini(&extents);
        r = record_finish(w, &state_fd, err);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < rec->layers; i++) {
                layers[i] = fcntl(layers[i], F_DUPFD_CLOEXEC, 0);
                if (layers[i] >= 0)
                        continue;
                r = err_host(err, errno, "memory layer %u: %s", i, strerror(errno));
                while (i-- > 0)
                        close(layers[i]);
                close(state_fd);
                return r;
        }
        return template_import(state_fd, layers, rec->layers, NULL, 0, tmpl, err);
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
