/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stopped machine to records, but for its memory, and back. What belongs to vCPUs and interrupt
 * controllers is in src/kvm, each device knows its own record.
 *
 * The order of restoring: interrupt controllers before vCPUs, since a local APIC's state can refer
 * to them; the PIT and the clock after the vCPUs, whose local APICs take the PIT's ticks and whose
 * MSRs say where the guest wants it; devices then, which raise their interrupt lines.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vm/machine.h"

static int save_devices(struct vm *vm, struct record_writer *w, struct err *err)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];
                void *record = calloc(1, d->ops->record_length + 1);

                if (!record)
                        return err_host(err, ENOMEM, "no memory for the state of %s", d->ops->name);
                d->ops->save(d->dev, record);
                record_add(w, d->ops->record_kind, machine_device_instance(vm, i),
                           d->ops->record_version, record, d->ops->record_length);
                free(record);
        }
        return 0;
}

int machine_save(struct vm *vm, struct record_writer *w, struct err *err)
{
        int r;

        record_add(w, RECORD_CPUID, 0, 1, vm->cpuid->entries,
                   vm->cpuid->nent * sizeof vm->cpuid->entries[0]);
        r = kvm_vm_save(&vm->host, &vm->kvm, w, err);
        if (r == 0)
                r = save_devices(vm, w, err);
        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++)
                r = kvm_vcpu_save(&vm->host, &vm->kvm, &vm->vcpus[i].kvm, &vm->msrs, w, err);
        return r;
}

/* A template's files stand in the order of the entries of RECORD_FILES. */
static int restore_files(struct vm *vm, unsigned device, const struct template *tmpl,
                         const struct record_reader *reader, struct err *err)
{
        const struct device_ops *ops = vm->devices[device].ops;
        const struct record *rec = record_find(reader, RECORD_FILES, 0);
        const struct vm_files *entry = rec ? rec->data : NULL, *own = NULL;
        uint64_t at = 0, first = 0;

        for (size_t i = 0; rec && i < rec->length / sizeof *entry; i++) {
                if (entry[i].kind == ops->record_kind &&
                    entry[i].instance == machine_device_instance(vm, device)) {
                        own = &entry[i];
                        first = at;
                }
                at += entry[i].files;
        }
        if (!own || at != tmpl->nfiles)
                return err_input(err,
                                 "saved state: %u files came with it, none or others are said "
                                 "to be those of device %s",
                                 tmpl->nfiles, ops->name);
        return ops->restore_files(vm->devices[device].dev, tmpl->file_fds + first, own->files, err);
}

static int restore_devices(struct vm *vm, const struct template *tmpl,
                           const struct record_reader *reader, struct err *err)
{
        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];
                const struct record *rec =
                        record_find(reader, d->ops->record_kind, machine_device_instance(vm, i));
                int r = 0;

                if (!rec)
                        return err_input(err, "saved state: no record of device %s", d->ops->name);
                if (rec->length != d->ops->record_length)
                        return err_input(err, "saved state: device %s: %u bytes, expected %u",
                                         d->ops->name, rec->length, d->ops->record_length);
                if (d->ops->restore_files)
                        r = restore_files(vm, i, tmpl, reader, err);
                if (r == 0)
                        r = d->ops->restore(d->dev, rec->data, rec->version, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

static uint64_t elapsed_since_save(const struct record_reader *reader)
{
        struct vm_clock clock;
        struct timespec ts;
        uint64_t now;

        if (record_get(reader, RECORD_CLOCK, 0, &clock, sizeof clock, NULL) < 0)
                return 0;
        clock_gettime(CLOCK_BOOTTIME, &ts);
        now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
        return now > clock.host_ns ? now - clock.host_ns : 0;
}

int machine_restore(struct vm *vm, const struct template *tmpl, const struct record_reader *reader,
                    bool again, struct err *err)
{
        uint64_t elapsed_ns = elapsed_since_save(reader);
        int r = cow_prepare_msrs(vm, reader, err);

        if (r == 0)
                r = kvm_vm_restore_irqchip(&vm->kvm, reader, err);
        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++)
                r = kvm_vcpu_restore(&vm->host, &vm->kvm, &vm->vcpus[i].kvm, reader, elapsed_ns,
                                     again, err);
        if (r == 0)
                r = kvm_vm_restore_pit(&vm->kvm, reader, err);
        if (r == 0)
                r = kvm_vm_restore_clock(&vm->host, &vm->kvm, reader, err);
        if (r == 0)
                r = restore_devices(vm, tmpl, reader, err);
        if (r == 0)
                r = cow_prepare(vm, err);
        vm_memory_changed(vm);
        return r;
}
