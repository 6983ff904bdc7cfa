/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processors: registers, breakpoints, steps, interrupts.
 *
 * The former are a matter of a machine that is stopped, which it is made for the time of the call.
 * Interrupts go straight to the kernel, past the gate: they must not wait for whoever is inside,
 * and handlers, which are called while somebody may be, send them. Nothing that they need changes
 * between create and destroy.
 */
#include "lib/lib.h"

#define REGS_MIN SIZED_TO(struct ramet_regs, idt_limit)

/* --- registers --- */

static int get_regs(struct ramet_vm *vm, unsigned vcpu, struct ramet_regs *out, struct err *err)
{
        struct ramet_regs regs = {0};
        const bool ran = lib_run(vm, false);
        int r = vm_get_regs(vm->vm, vcpu, &regs, err);

        lib_run(vm, ran);
        return r < 0 ? r : sized_copy_out("regs", &regs, sizeof regs, out, REGS_MIN, err);
}

int ramet_vm_get_regs(struct ramet_vm *vm, unsigned vcpu, struct ramet_regs *regs)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = get_regs(vm, vcpu, regs, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int set_regs(struct ramet_vm *vm, unsigned vcpu, const struct ramet_regs *in,
                    struct err *err)
{
        struct ramet_regs regs;
        int r = sized_copy_in("regs", in, &regs, sizeof regs, REGS_MIN, err);
        bool ran;

        if (r < 0)
                return r;
        ran = lib_run(vm, false);
        r = vm_set_regs(vm->vm, vcpu, &regs, err);
        lib_run(vm, ran);
        return r;
}

int ramet_vm_set_regs(struct ramet_vm *vm, unsigned vcpu, const struct ramet_regs *regs)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = set_regs(vm, vcpu, regs, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

/* --- debugging --- */

int ramet_vm_breakpoint(struct ramet_vm *vm, uint64_t address, bool set)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                const bool ran = lib_run(vm, false);

                ret = vm_breakpoint(vm->vm, address, set, &err);
                lib_run(vm, ran);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

int ramet_vm_step(struct ramet_vm *vm, unsigned vcpu)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                const bool ran = lib_run(vm, false);

                ret = vm_step(vm->vm, vcpu, &err);
                lib_run(vm, ran);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

/* --- interrupts --- */

int ramet_vm_irq(struct ramet_vm *vm, unsigned line, bool level)
{
        struct err err = {0};
        int ret = lib_check_machine(vm, &err);

        if (ret == 0)
                ret = vm_irq(vm->vm, line, level, &err);
        return lib_result(ret, &err);
}

int ramet_vm_nmi(struct ramet_vm *vm, unsigned vcpu)
{
        struct err err = {0};
        int ret = lib_check_machine(vm, &err);

        if (ret == 0)
                ret = vm_nmi(vm->vm, vcpu, &err);
        return lib_result(ret, &err);
}

int ramet_vm_msi(struct ramet_vm *vm, uint64_t address, uint32_t data)
{
        struct err err = {0};
        int ret = lib_check_machine(vm, &err);

        if (ret == 0)
                ret = vm_msi(vm->vm, address, data, &err);
        return lib_result(ret, &err);
}
