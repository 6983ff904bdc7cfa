/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine does with all of its devices: their birth, in the order of the registry, and
 * what each has to do when the machine stops and goes on.
 *
 *      vm_pause   quiesce (their I/O ends, none begins), then the vCPUs are stopped
 *      vm_run     the vCPUs are let go, then resume
 *
 * In that order, since I/O in flight may wait for a medium: the guest runs on meanwhile. A device
 * is born quiesced, and works from the first vm_run() on. freeze.c says when they are frozen.
 */
#include <errno.h>
#include <unistd.h>

#include "vm/machine.h"

static struct device_params params_of(const struct vm *vm, struct device_disk *disks)
{
        return (struct device_params){
                .debug_exit_port = (uint16_t)vm->shape.debug_exit_port,
                .rng = vm->shape.rng,
                .virtio_console = vm->shape.virtio_console,
                .ndisks = vm->shape.ndisks,
                .disks = disks,
        };
}

static unsigned count_of(const struct device_ops *ops, const struct device_params *params)
{
        return ops->count ? ops->count(params) : 1;
}

unsigned machine_slots_needed(const struct vm *vm)
{
        const struct device_params params = params_of(vm, NULL);
        unsigned n = 0;

        for (const struct device_ops *const *ops = device_registry; *ops; ops++)
                n += (*ops)->slot ? count_of(*ops, &params) : 0;
        return n;
}

static void close_overlay(const struct vm_overlay *overlay)
{
        if (!overlay->given)
                return;
        close(overlay->fd);
        close(overlay->ro_fd);
}

void vm_overlays_close(const struct vm_overlay overlays[DEVICE_DISKS_MAX])
{
        for (unsigned i = 0; i < DEVICE_DISKS_MAX; i++)
                close_overlay(&overlays[i]);
}

static int create(struct vm *vm, const struct device_ops *ops, const struct device_params *params,
                  unsigned index, struct err *err)
{
        struct vm_device *d = &vm->devices[vm->ndevices];
        int r;

        if (vm->ndevices == VM_DEVICES_MAX)
                return err_host(err, ENOSPC, "more than %d devices", VM_DEVICES_MAX);
        *d = (struct vm_device){.ops = ops};
        r = ops->create(&vm->env, params, index, &d->dev, d->windows, &d->nwindows, err);
        if (r < 0)
                return err_prefix(err, r, "device %s", ops->name);
        if (!d->dev)
                return 0;
        if (ops == &doorbell_ops)
                vm->doorbell = d->dev;
        if (ops == &vmgenid_ops)
                vm->vmgenid = d->dev;
        r = bus_check_windows(vm, d, err);
        vm->ndevices++; /* it is to be destroyed, whatever comes */
        if (ops->quiesce)
                ops->quiesce(d->dev);
        return r;
}

int machine_devices_create(struct vm *vm, struct device_disk *disks, struct err *err)
{
        const struct device_params params = params_of(vm, disks);
        int r = 0;

        for (const struct device_ops *const *ops = device_registry; *ops; ops++) {
                unsigned n = count_of(*ops, &params);

                for (unsigned i = 0; i < n && r == 0; i++)
                        r = create(vm, *ops, &params, i, err);
        }
        return r;
}

void machine_devices_destroy(struct vm *vm)
{
        while (vm->ndevices > 0) {
                struct vm_device *d = &vm->devices[--vm->ndevices];

                d->ops->destroy(d->dev);
        }
}

uint32_t machine_device_instance(const struct vm *vm, unsigned index)
{
        uint32_t n = 0;

        for (unsigned i = 0; i < index; i++)
                n += vm->devices[i].ops->record_kind == vm->devices[index].ops->record_kind;
        return n;
}

void vm_give_overlays(struct vm *vm, const struct vm_overlay overlays[DEVICE_DISKS_MAX])
{
        unsigned disk = 0;

        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];
                const struct vm_overlay *o = &overlays[disk];

                if (!d->ops->give_overlay || disk == DEVICE_DISKS_MAX)
                        continue;
                d->ops->give_overlay(d->dev, o->given ? o->fd : -1, o->given ? o->ro_fd : -1);
                disk++;
        }
        for (; disk < DEVICE_DISKS_MAX; disk++)
                close_overlay(&overlays[disk]);
}

/* --- stop and go --- */

void machine_devices_quiesce(struct vm *vm)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                if (vm->devices[i].ops->quiesce)
                        vm->devices[i].ops->quiesce(vm->devices[i].dev);
        }
}

void machine_devices_resume(struct vm *vm)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                if (vm->devices[i].ops->resume)
                        vm->devices[i].ops->resume(vm->devices[i].dev);
        }
}

/* --- freeze --- */

/* Those before @end. */
static void cancel(struct vm *vm, unsigned end)
{
        for (unsigned i = 0; i < end; i++) {
                if (vm->devices[i].ops->freeze_cancel)
                        vm->devices[i].ops->freeze_cancel(vm->devices[i].dev);
        }
}

int machine_devices_prepare(struct vm *vm, struct err *err)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];
                int r = d->ops->freeze_prepare ? d->ops->freeze_prepare(d->dev, err) : 0;

                if (r < 0) {
                        cancel(vm, i);
                        return err_prefix(err, r, "device %s", d->ops->name);
                }
        }
        return 0;
}

void machine_devices_cancel(struct vm *vm)
{
        cancel(vm, vm->ndevices);
}

void machine_devices_freeze(struct vm *vm)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                if (vm->devices[i].ops->freeze)
                        vm->devices[i].ops->freeze(vm->devices[i].dev);
        }
}

int machine_devices_publish(struct vm *vm, struct record_writer *w, struct device_files *files,
                            struct err *err)
{
        struct vm_files entries[VM_DEVICES_MAX];
        unsigned n = 0;
        int failed = 0;

        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];
                unsigned before = files->n;
                struct err why;
                int r;

                if (!d->ops->freeze_publish)
                        continue;
                r = d->ops->freeze_publish(d->dev, files, &why);
                if (r < 0 && failed == 0) {
                        *err = why;
                        failed = err_prefix(err, r, "device %s", d->ops->name);
                }
                entries[n++] = (struct vm_files){
                        .kind = d->ops->record_kind,
                        .instance = machine_device_instance(vm, i),
                        .files = files->n - before,
                };
        }
        if (n > 0)
                record_add(w, RECORD_FILES, 0, 1, entries, n * sizeof entries[0]);
        return failed;
}
