/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spawn: a new machine in the state of a template. Its memory is the template's layers, mapped
 * privately, so that it shares every page until it writes it.
 *
 * Two steps, since what makes a cold spawn long is KVM waiting for grace periods while the empty
 * machine is made (several milliseconds, most of it asleep): a shell does that ahead of time, and
 * adopting a template afterwards is setting state, some tens of calls of a few microseconds each.
 *
 * The order is that of vm.c, then that of state.c; what must differ between clones comes last
 * (generation id, number in the fork), since restoring would undo it.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "vm/machine.h"

static int read_header(const struct record_reader *reader, const struct template *tmpl,
                       struct vm_record *rec, struct err *err)
{
        int r = record_get(reader, RECORD_VM, 0, rec, sizeof *rec, err);

        if (r < 0)
                return r;
        if (rec->layers != tmpl->nlayers)
                return err_input(err, "template: %u memory layers came with a state of %u",
                                 tmpl->nlayers, rec->layers);
        return 0;
}

static int restore_memory(struct vm *vm, const struct template *tmpl,
                          const struct record_reader *reader, struct err *err)
{
        const struct record *layout = record_find(reader, RECORD_LAYOUT, 0);

        if (!layout)
                return err_input(err, "saved state: no record of the memory layout");
        return backing_fill(&vm->backing, tmpl->layer_fds, tmpl->nlayers, layout->data,
                            layout->length / sizeof(struct extent), err);
}

/* The processor is the template's. On one host it is the one that the shell has already. */
static int restore_cpuid(struct vm *vm, const struct record_reader *reader, struct err *err)
{
        const struct record *cpuid = record_find(reader, RECORD_CPUID, 0);
        const size_t entry_bytes = sizeof vm->cpuid->entries[0];

        if (!cpuid || cpuid->length / entry_bytes > KVM_HOST_CPUID_MAX)
                return err_input(err, "saved state: no usable record of CPUID");
        if (vm->cpuid->nent * entry_bytes == cpuid->length &&
            !memcmp(vm->cpuid->entries, cpuid->data, cpuid->length))
                return 0;
        vm->cpuid->nent = (uint32_t)(cpuid->length / entry_bytes);
        memcpy(vm->cpuid->entries, cpuid->data, cpuid->length);
        return vm_set_cpuid(vm, err);
}

/* So is the list of MSRs to save: asking this host again costs time and could only differ. */
static int restore_msr_list(struct vm *vm, const struct record_reader *reader, struct err *err)
{
        const struct record *msrs = record_find(reader, RECORD_MSRS, 0);
        const struct kvm_msr_entry *entry;

        if (!msrs || msrs->length / sizeof *entry > KVM_HOST_MSRS_MAX)
                return err_input(err, "saved state: no usable record of MSRs");
        entry = msrs->data;
        vm->msrs.count = (unsigned)(msrs->length / sizeof *entry);
        for (unsigned i = 0; i < vm->msrs.count; i++)
                vm->msrs.index[i] = entry[i].index;
        return 0;
}

static void result_read(void *data)
{
        vm_first_exit(data, VM_FIRST_EXIT_DOORBELL);
}

int machine_set_identity(struct vm *vm, struct err *err)
{
        int r = vmgenid_renew(vm->vmgenid);

        if (r < 0)
                return err_host(err, -r, "a new generation id: %s", strerror(-r));
        for (unsigned i = 0; i < vm->ndevices; i++) {
                const struct vm_device *d = &vm->devices[i];

                if (d->ops->renew)
                        d->ops->renew(d->dev);
        }
        doorbell_set_result(vm->doorbell, vm->index, vm->count);
        return 0;
}

static int become_clone(struct vm *vm, struct template *tmpl, const struct vm_record *rec,
                        uint32_t index, uint32_t count, struct err *err)
{
        vm->tmpl = template_ref(tmpl);
        vm->index = index;
        vm->count = count;
        vm->doorbell_fork = rec->by_doorbell != 0;
        if (!vm->options.every_event)
                atomic_store(&vm->first_exit, FIRST_EXIT_AWAITED);
        if (vm->doorbell_fork)
                doorbell_on_result_read(vm->doorbell, result_read, vm);
        return machine_set_identity(vm, err);
}

int vm_shell(const struct vm_options *options, struct vm **out, struct err *err)
{
        struct vm *vm = NULL;
        int r = vm_new(options, &options->shape, &vm, err);

        if (r == 0)
                r = kvm_host_cpuid(&vm->host, vm->cpuid, err);
        if (r == 0)
                r = backing_reserve(&vm->backing, vm->shape.memory_bytes, err);
        if (r == 0)
                r = vm_make_machine(vm, err);
        if (r < 0) {
                vm_destroy(vm, 0);
                return r;
        }
        *out = vm;
        return 0;
}

static int check_shell(const struct vm *vm, const struct vm_record *rec, struct err *err)
{
        const struct vm_shape *a = &vm->shape, *b = &rec->shape;

        if (vm->booted || memcmp(a, b, sizeof *a))
                return err_input(err,
                                 "a shell of %u vCPUs, %llu bytes of memory, %u disks and %u "
                                 "other virtio devices cannot adopt a template of %u, %llu, %u "
                                 "and %u",
                                 a->vcpus, (unsigned long long)a->memory_bytes, a->ndisks,
                                 a->rng + a->virtio_console, b->vcpus,
                                 (unsigned long long)b->memory_bytes, b->ndisks,
                                 b->rng + b->virtio_console);
        return 0;
}

/* The template has its disks' layers, the clone brings what it writes to. Takes those that the
 * machine has disks for. */
static void take_overlays(const struct vm *vm, struct vm_clone_files *files,
                          struct device_disk disks[DEVICE_DISKS_MAX])
{
        for (unsigned i = 0; i < vm->shape.ndisks; i++) {
                struct vm_overlay *o = &files->overlays[i];

                disks[i] = (struct device_disk){
                        .image_fd = -1,
                        .image_ro_fd = -1,
                        .overlay_fd = o->given ? o->fd : -1,
                        .overlay_ro_fd = o->given ? o->ro_fd : -1,
                };
                o->given = false;
        }
}

/* Console and devices come last but for the state, since devices look at memory when they are made.
 */
static int adopt(struct vm *vm, const struct template *tmpl, const struct record_reader *reader,
                 struct vm_record *rec, struct vm_clone_files *files, struct err *err)
{
        struct device_disk disks[DEVICE_DISKS_MAX];
        int r = read_header(reader, tmpl, rec, err);

        if (r == 0)
                r = check_shell(vm, rec, err);
        if (r == 0)
                r = restore_memory(vm, tmpl, reader, err);
        if (r == 0)
                r = restore_cpuid(vm, reader, err);
        if (r == 0)
                r = restore_msr_list(vm, reader, err);
        if (r < 0)
                return r;
        take_overlays(vm, files, disks);
        r = vm_furnish(vm, files->console_in_fd, files->console_out_fd, disks, err);
        files->console_in_fd = files->console_out_fd = -1;
        if (r == 0)
                r = machine_restore(vm, tmpl, reader, false, err);
        vm->booted = r == 0;
        return r;
}

static void close_files(const struct vm_clone_files *files)
{
        if (files->console_in_fd >= 0)
                close(files->console_in_fd);
        if (files->console_out_fd >= 0)
                close(files->console_out_fd);
        vm_overlays_close(files->overlays);
}

int vm_adopt(struct vm *vm, struct template *tmpl, const struct vm_clone_files *given,
             uint32_t index, uint32_t count, struct err *err)
{
        struct vm_clone_files files = *given; /* what is left of them */
        struct record_reader reader;
        struct vm_record rec;
        int r = record_reader_init_fd(&reader, tmpl->state_fd, record_rules, err);

        if (r == 0) {
                r = adopt(vm, tmpl, &reader, &rec, &files, err);
                record_reader_fini(&reader);
        }
        if (r == 0)
                r = become_clone(vm, tmpl, &rec, index, count, err);
        close_files(&files);
        return r;
}

/* What the template is of, before there is a machine to adopt it. */
static int template_shape(const struct template *tmpl, struct vm_shape *shape, struct err *err)
{
        struct record_reader reader;
        struct vm_record rec;
        int r = record_reader_init_fd(&reader, tmpl->state_fd, record_rules, err);

        if (r < 0)
                return r;
        r = read_header(&reader, tmpl, &rec, err);
        record_reader_fini(&reader);
        if (r == 0)
                *shape = rec.shape;
        return r;
}

int vm_spawn(struct template *tmpl, const struct vm_options *options, uint32_t index,
             uint32_t count, struct vm **out, struct err *err)
{
        struct vm_clone_files files = {.console_in_fd = options->console_in_fd,
                                       .console_out_fd = options->console_out_fd};
        struct vm_options o = *options;
        struct vm *vm = NULL;
        int r = template_shape(tmpl, &o.shape, err);

        memcpy(files.overlays, options->overlays, sizeof files.overlays);
        if (r == 0)
                r = vm_shell(&o, &vm, err);
        if (r < 0) {
                close_files(&files);
                return r;
        }
        r = vm_adopt(vm, tmpl, &files, index, count, err);
        if (r < 0) {
                vm_destroy(vm, 0);
                return r;
        }
        *out = vm;
        return 0;
}
