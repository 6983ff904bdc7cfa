/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spawn: a new machine in the state of a template. Its memory is the template's layers, mapped
 * privately, so that it shares every page until it writes it.
 *
 * The order is that of vm.c, then: interrupt controllers before vCPUs, since a local APIC's state
 * can refer to them; the clock after the vCPUs, whose MSRs say where the guest wants it; what must
 * differ between clones last (generation id, number in the fork), since restoring would undo it.
 */
#include <errno.h>
#include <string.h>
#include <time.h>
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
        return backing_clone(&vm->backing, vm->shape.memory_bytes, tmpl->layer_fds, tmpl->nlayers,
                             layout->data, layout->length / sizeof(struct extent), err);
}

/* The processor and the list of MSRs are the template's: asking this host again costs time and
 * could only give something else. */
static int restore_lists(struct vm *vm, const struct record_reader *reader, struct err *err)
{
        const struct record *cpuid = record_find(reader, RECORD_CPUID, 0);
        const struct record *msrs = record_find(reader, RECORD_MSRS, 0);
        const struct kvm_msr_entry *entry;

        if (!cpuid || cpuid->length / sizeof vm->cpuid->entries[0] > KVM_HOST_CPUID_MAX)
                return err_input(err, "saved state: no usable record of CPUID");
        if (!msrs || msrs->length / sizeof *entry > KVM_HOST_MSRS_MAX)
                return err_input(err, "saved state: no usable record of MSRs");
        vm->cpuid->nent = (uint32_t)(cpuid->length / sizeof vm->cpuid->entries[0]);
        memcpy(vm->cpuid->entries, cpuid->data, cpuid->length);
        entry = msrs->data;
        vm->msrs.count = (unsigned)(msrs->length / sizeof *entry);
        for (unsigned i = 0; i < vm->msrs.count; i++)
                vm->msrs.index[i] = entry[i].index;
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

static int restore_state(struct vm *vm, const struct record_reader *reader, struct err *err)
{
        uint64_t elapsed_ns = elapsed_since_save(reader);
        int r = kvm_vm_restore_irqchip(&vm->kvm, reader, err);

        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++)
                r = kvm_vcpu_restore(&vm->host, &vm->kvm, &vm->vcpus[i].kvm, reader, elapsed_ns,
                                     err);
        if (r == 0)
                r = kvm_vm_restore_clock(&vm->host, &vm->kvm, reader, err);
        if (r == 0)
                r = machine_restore_devices(vm, reader, err);
        return r;
}

static void result_read(void *data)
{
        vm_first_exit(data, VM_FIRST_EXIT_DOORBELL);
}

/* What a clone must not share with its parent and its siblings. */
static int set_identity(struct vm *vm, const struct vm_record *rec, uint32_t index, uint32_t count,
                        struct err *err)
{
        int r = vmgenid_renew(vm->vmgenid);

        if (r < 0)
                return err_host(err, -r, "a new generation id: %s", strerror(-r));
        vm->doorbell_fork = rec->by_doorbell != 0;
        atomic_store(&vm->first_exit, FIRST_EXIT_AWAITED);
        doorbell_set_result(vm->doorbell, index, count);
        if (vm->doorbell_fork)
                doorbell_on_result_read(vm->doorbell, result_read, vm);
        return 0;
}

static int build(struct vm *vm, const struct template *tmpl, const struct record_reader *reader,
                 struct err *err)
{
        int r = restore_memory(vm, tmpl, reader, err);

        if (r == 0)
                r = restore_lists(vm, reader, err);
        if (r == 0)
                r = vm_make_machine(vm, err);
        if (r == 0)
                r = restore_state(vm, reader, err);
        vm->booted = r == 0;
        return r;
}

int vm_spawn(struct template *tmpl, const struct vm_options *options, uint32_t index,
             uint32_t count, struct vm **out, struct err *err)
{
        struct record_reader reader;
        struct vm_record rec;
        struct vm *vm = NULL;
        int r = record_reader_init_fd(&reader, tmpl->state_fd, record_rules, err);

        if (r == 0) {
                r = read_header(&reader, tmpl, &rec, err);
                if (r < 0)
                        record_reader_fini(&reader);
        }
        if (r < 0) {
                close(options->console_in_fd);
                close(options->console_out_fd);
                return r;
        }
        r = vm_new(options, &rec.shape, &vm, err);
        if (r == 0)
                r = build(vm, tmpl, &reader, err);
        if (r == 0)
                r = set_identity(vm, &rec, index, count, err);
        record_reader_fini(&reader);
        if (r < 0) {
                vm_destroy(vm, 0);
                return r;
        }
        *out = vm;
        return 0;
}
