/* SPDX-License-Identifier: Apache-2.0 */
/* Driving the guest tests/guest/cpu.c: see cpu.h there. For the tests that need it, one file each.
 */
#ifndef RAMET_TESTS_CPU_GUEST_H
#define RAMET_TESTS_CPU_GUEST_H

#include "api.h"
#include "tests/guest/cpu.h"

/* The next event, of whatever type, without letting anything go. */
static inline struct ramet_vm_event api_next(struct ramet_vm *vm)
{
        struct ramet_vm_event e;

        if (api_ok(ramet_vm_next(vm, ENDLESS, &e)) == 0)
                fail_msg("no event came");
        return e;
}

static inline struct ramet_vm_config cpu_config(void)
{
        struct ramet_vm_config config = api_config();

        config.kernel = api_guest("cpu.elf");
        return config;
}

/* At its first ring. @tune (may be NULL) changes what it is before. */
static inline struct ramet_vm *cpu_ready(unsigned vcpus, void (*tune)(struct ramet_vm_config *c))
{
        struct ramet_vm_config config = cpu_config();
        struct ramet_vm *vm;

        config.vcpus = vcpus;
        if (tune)
                tune(&config);
        vm = api_vm_of(&config);
        assert_int_equal(api_until(vm, RAMET_VM_DOORBELL).doorbell.value, CPU_READY);
        return vm;
}

static inline struct cpu_control cpu_control(struct ramet_vm *vm)
{
        struct cpu_control c;

        api_ok(ramet_vm_read(vm, CPU_CONTROL, &c, sizeof c));
        return c;
}

static inline void cpu_put(struct ramet_vm *vm, size_t field, uint64_t value)
{
        api_ok(ramet_vm_write(vm, CPU_CONTROL + field, &value, sizeof value));
}
#define CPU_PUT(vm, field, value) cpu_put((vm), offsetof(struct cpu_control, field), (value))

/* What it does when it goes on. */
static inline void cpu_do(struct ramet_vm *vm, enum cpu_command command)
{
        CPU_PUT(vm, command, command);
}

static inline void cpu_access(struct ramet_vm *vm, bool port, uint64_t address, unsigned length,
                              bool write, uint64_t value)
{
        CPU_PUT(vm, port, port);
        CPU_PUT(vm, address, address);
        CPU_PUT(vm, length, length);
        CPU_PUT(vm, write, write);
        CPU_PUT(vm, value, value);
        cpu_do(vm, CPU_ACCESS);
}

/* No other event comes before it rings again. */
static inline void cpu_until_done(struct ramet_vm *vm, enum cpu_command command)
{
        struct ramet_vm_event e = {0};

        assert_int_equal(api_ok(ramet_vm_run_until(vm, RAMET_VM_ANY, ENDLESS, &e)), 1);
        if (e.type == RAMET_VM_EXIT)
                fail_msg("ended early: %s", e.exit.text);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        assert_int_equal(e.doorbell.value, command);
}

#endif
