/* SPDX-License-Identifier: Apache-2.0 */
/* Processors: registers, breakpoints, steps, interrupts. The guest is tests/guest/cpu.c. */
#include "api.h"
#include "cpu_guest.h"

#define RFLAGS_TF 0x100u

static struct ramet_vm *ready(unsigned vcpus)
{
        return cpu_ready(vcpus, NULL);
}

static struct ramet_regs regs_of(struct ramet_vm *vm, unsigned vcpu)
{
        struct ramet_regs regs = {.size = sizeof regs};

        api_ok(ramet_vm_get_regs(vm, vcpu, &regs));
        return regs;
}

static void expect_break(const struct ramet_vm_event *e, unsigned vcpu, uint64_t address, bool step)
{
        assert_int_equal(e->type, RAMET_VM_BREAKPOINT);
        assert_int_equal(e->breakpoint.address, address);
        assert_int_equal(e->breakpoint.step, step);
        assert_int_equal(e->vcpu, vcpu);
        assert_true(e->t_ns > 0);
}

/* --- registers --- */

static void vm_get_regs(void **state)
{
        struct ramet_vm *vm = ready(2);
        struct cpu_control c = cpu_control(vm);
        struct ramet_regs regs = {.size = 8};

        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel, true));
        cpu_do(vm, CPU_KERNEL);
        api_until(vm, RAMET_VM_BREAKPOINT);
        api_fails(ramet_vm_get_regs(vm, 0, &regs), -EINVAL, "size is 8");
        regs.size = sizeof regs;
        assert_int_equal(ramet_vm_get_regs(vm, 0, &regs), 0);
        assert_int_equal(regs.size, sizeof regs);
        assert_int_equal(regs.rip, c.spot_kernel);
        assert_true(regs.cr0 & 1ull << 31);
        assert_true(regs.cr4 & 1u << 5);
        assert_true(regs.efer & 1u << 10);
        assert_true(regs.cr3 != 0 && regs.idt_limit == 64 * 16 - 1 && regs.gdt_base != 0);
        assert_int_equal(regs.cs.selector, 0x10);
        assert_int_equal(regs.cs.attributes & 0x290, 0x290); /* L, P, S */
        assert_int_equal(regs.rflags & RFLAGS_TF, 0);
        assert_true(regs_of(vm, 1).rsp != regs.rsp);
        api_fails(ramet_vm_get_regs(vm, 2, &regs), -EINVAL, "vcpu: 2 given");
        api_fails(ramet_vm_get_regs(vm, 0, NULL), -EINVAL, "regs");
        api_fails(ramet_vm_get_regs(NULL, 0, &regs), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

/* The spot's first bytes are nops; RBX is the caller's, which the guest would miss. */
static void vm_set_regs(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_regs regs, back;

        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel, true));
        cpu_do(vm, CPU_KERNEL);
        api_until(vm, RAMET_VM_BREAKPOINT);
        regs = regs_of(vm, 0);
        regs.rax = 0x123456789abcdef0;
        regs.r10 = 77;
        regs.rip = c.spot_kernel + 3;
        regs.fs.base = 0x7000;
        assert_int_equal(ramet_vm_set_regs(vm, 0, &regs), 0);
        back = regs_of(vm, 0);
        assert_memory_equal(&back, &regs, sizeof regs);
        api_ok(ramet_vm_step(vm, 0));
        api_ok(ramet_vm_continue(vm));
        {
                struct ramet_vm_event e = api_next(vm);

                expect_break(&e, 0, c.spot_kernel + 4, true);
        }
        back = regs_of(vm, 0);
        assert_true(back.rax == 0x123456789abcdef0 && back.r10 == 77);
        cpu_until_done(vm, CPU_KERNEL);
        ramet_vm_destroy(vm);
}

static void registers_that_are_refused(void **state)
{
        struct ramet_vm *vm = ready(1);
        const struct ramet_regs regs = regs_of(vm, 0);
        struct ramet_regs bad = regs, back;

        bad.size = 16;
        api_fails(ramet_vm_set_regs(vm, 0, &bad), -EINVAL, "size is 16");
        bad = regs;
        bad.rflags |= 1ull << 40;
        api_fails(ramet_vm_set_regs(vm, 0, &bad), -EINVAL, "rflags");
        bad = regs;
        bad.rip = 1ull << 62;
        api_fails(ramet_vm_set_regs(vm, 0, &bad), -EINVAL, "rip");
        bad = regs;
        bad.ss.attributes |= 0x1000;
        api_fails(ramet_vm_set_regs(vm, 0, &bad), -EINVAL, "ss: attributes");
        bad = regs;
        bad.cr4 = ~0ull;
        api_fails(ramet_vm_set_regs(vm, 0, &bad), -EINVAL, "KVM refuses");
        back = regs_of(vm, 0);
        assert_memory_equal(&back, &regs, sizeof regs);
        api_fails(ramet_vm_set_regs(vm, 1, &regs), -EINVAL, "vcpu: 1 given");
        api_fails(ramet_vm_set_regs(vm, 0, NULL), -EINVAL, "regs");
        api_fails(ramet_vm_set_regs(NULL, 0, &regs), -EINVAL, "machine");
        cpu_do(vm, CPU_KERNEL); /* and it runs on as if nothing had been */
        cpu_until_done(vm, CPU_KERNEL);
        ramet_vm_destroy(vm);
}

static void registers_of_a_machine_that_runs(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct ramet_vm_event e;
        uint64_t before, after;

        cpu_do(vm, CPU_SPIN);
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(api_ok(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e)), 0);
        assert_int_equal(regs_of(vm, 0).cs.selector & 3, 3);
        before = cpu_control(vm).counter;
        for (unsigned i = 0; i < 5000 && cpu_control(vm).counter == before; i++)
                api_ok(ramet_vm_next(vm, RAMET_MILLISECOND, &e));
        after = cpu_control(vm).counter;
        assert_true(after > before);
        ramet_vm_destroy(vm);
}

/* --- breakpoints --- */

static void vm_breakpoint(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        assert_int_equal(ramet_vm_breakpoint(vm, c.spot_kernel, true), 0);
        assert_int_equal(ramet_vm_breakpoint(vm, c.spot_kernel, true), 0);
        assert_int_equal(ramet_vm_breakpoint(vm, c.spot_kernel + 2, true), 0);
        assert_int_equal(ramet_vm_breakpoint(vm, c.spot_kernel + 9999, false), 0);
        for (unsigned round = 0; round < 2; round++) {
                cpu_do(vm, CPU_KERNEL);
                e = api_until(vm, RAMET_VM_BREAKPOINT);
                expect_break(&e, 0, c.spot_kernel, false);
                assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0);
                assert_int_equal(regs_of(vm, 0).rip, c.spot_kernel);
                e = api_until(vm, RAMET_VM_BREAKPOINT);
                expect_break(&e, 0, c.spot_kernel + 2, false);
                cpu_until_done(vm, CPU_KERNEL);
        }
        assert_int_equal(ramet_vm_breakpoint(vm, c.spot_kernel, false), 0);
        cpu_do(vm, CPU_KERNEL);
        e = api_until(vm, RAMET_VM_BREAKPOINT);
        expect_break(&e, 0, c.spot_kernel + 2, false);
        assert_int_equal(ramet_vm_breakpoint(vm, c.spot_kernel + 2, false), 0); /* while there */
        cpu_until_done(vm, CPU_KERNEL);
        cpu_do(vm, CPU_KERNEL);
        cpu_until_done(vm, CPU_KERNEL);
        for (unsigned i = 0; i < RAMET_BREAKPOINTS_MAX; i++)
                api_ok(ramet_vm_breakpoint(vm, i, true));
        api_fails(ramet_vm_breakpoint(vm, 99, true), -ENOSPC, "4 breakpoints");
        api_fails(ramet_vm_breakpoint(NULL, 0, true), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void a_breakpoint_in_user_mode(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_user + 1, true));
        for (unsigned round = 0; round < 3; round++) {
                cpu_do(vm, CPU_USER);
                e = api_until(vm, RAMET_VM_BREAKPOINT);
                expect_break(&e, 0, c.spot_user + 1, false);
                assert_int_equal(regs_of(vm, 0).cs.selector & 3, 3);
                assert_int_equal(regs_of(vm, 0).rflags & RFLAGS_TF, 0);
                cpu_until_done(vm, CPU_USER);
        }
        assert_int_equal(cpu_control(vm).traps, 0); /* the guest has seen none of it */
        ramet_vm_destroy(vm);
}

/* In what goes instruction by instruction where user mode has no breakpoints, interrupts come in:
 * the guest's other commands sleep by them. */
static void interrupts_come_in_between(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_user, true));
        cpu_do(vm, CPU_SPIN);
        api_ok(ramet_vm_continue(vm));
        for (unsigned i = 1; i <= 5; i++) {
                unsigned tries = 0;

                api_ok(ramet_vm_irq(vm, CPU_LINE, true));
                api_ok(ramet_vm_irq(vm, CPU_LINE, false));
                while (cpu_control(vm).irqs < i && tries++ < 5000)
                        api_ok(ramet_vm_next(vm, RAMET_MILLISECOND, &e));
                assert_int_equal(cpu_control(vm).irqs, i);
        }
        assert_int_equal(cpu_control(vm).traps, 0);
        ramet_vm_destroy(vm);
}

static void a_breakpoint_on_another_vcpu(void **state)
{
        struct ramet_vm *vm = ready(2);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_other + 1, true));
        for (unsigned round = 0; round < 2; round++) {
                cpu_do(vm, CPU_OTHER);
                e = api_until(vm, RAMET_VM_BREAKPOINT);
                expect_break(&e, 1, c.spot_other + 1, false);
                cpu_until_done(vm, CPU_OTHER);
        }
        ramet_vm_destroy(vm);
}

/* Going on from a breakpoint at an instruction that repeats is all of it. */
static void a_breakpoint_at_an_instruction_that_repeats(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_rep + 5, true)); /* rep stosb */
        cpu_do(vm, CPU_REP);
        e = api_until(vm, RAMET_VM_BREAKPOINT);
        expect_break(&e, 0, c.spot_rep + 5, false);
        assert_int_equal(regs_of(vm, 0).rcx, 8);
        cpu_until_done(vm, CPU_REP);
        ramet_vm_destroy(vm);
}

static void a_clone_of_a_machine_at_a_breakpoint(void **state)
{
        struct ramet_vm *vm = ready(1), *clone;
        struct cpu_control c = cpu_control(vm);
        struct ramet_template *tmpl;
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel + 1, true));
        cpu_do(vm, CPU_KERNEL);
        api_until(vm, RAMET_VM_BREAKPOINT);
        api_ok(ramet_vm_freeze(vm, "at a breakpoint", &tmpl));
        assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0); /* held still */
        clone = api_spawn(tmpl);
        assert_int_equal(regs_of(clone, 0).rip, c.spot_kernel + 1);
        cpu_until_done(clone, CPU_KERNEL); /* it has none */
        api_ok(ramet_vm_breakpoint(clone, c.spot_kernel + 3, true));
        api_ok(ramet_vm_reset(clone));
        e = api_until(clone, RAMET_VM_BREAKPOINT); /* they stay over a reset */
        expect_break(&e, 0, c.spot_kernel + 3, false);
        api_ok(ramet_vm_reset(clone)); /* which lets go what is held */
        e = api_until(clone, RAMET_VM_BREAKPOINT);
        expect_break(&e, 0, c.spot_kernel + 3, false);
        ramet_vm_destroy(clone); /* held */
        cpu_until_done(vm, CPU_KERNEL);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* --- steps --- */

static void step_through(struct ramet_vm *vm, unsigned vcpu, uint64_t from, unsigned n)
{
        for (unsigned i = 1; i <= n; i++) {
                struct ramet_vm_event e;

                assert_int_equal(ramet_vm_step(vm, vcpu), 0);
                e = api_until(vm, RAMET_VM_BREAKPOINT);
                expect_break(&e, vcpu, from + i, true);
                assert_int_equal(regs_of(vm, vcpu).rip, from + i);
                assert_int_equal(regs_of(vm, vcpu).rflags & RFLAGS_TF, 0);
        }
}

static void vm_step(void **state)
{
        struct ramet_vm *vm = ready(2);
        struct cpu_control c = cpu_control(vm);

        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel, true));
        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel + 3, true)); /* a step over it is a step */
        cpu_do(vm, CPU_KERNEL);
        api_until(vm, RAMET_VM_BREAKPOINT);
        step_through(vm, 0, c.spot_kernel, 5);
        cpu_until_done(vm, CPU_KERNEL);
        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel, false));
        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel + 3, false));
        api_ok(ramet_vm_breakpoint(vm, c.spot_other, true));
        cpu_do(vm, CPU_OTHER);
        api_until(vm, RAMET_VM_BREAKPOINT);
        step_through(vm, 1, c.spot_other, 5);
        cpu_until_done(vm, CPU_OTHER);
        api_fails(ramet_vm_step(vm, 2), -EINVAL, "vcpu: 2 given");
        api_fails(ramet_vm_step(NULL, 0), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void steps_in_user_mode(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_regs regs;

        api_ok(ramet_vm_breakpoint(vm, c.spot_user, true));
        cpu_do(vm, CPU_USER);
        api_until(vm, RAMET_VM_BREAKPOINT);
        api_ok(ramet_vm_breakpoint(vm, c.spot_user, false));
        regs = regs_of(vm, 0);
        step_through(vm, 0, c.spot_user, 5);
        assert_int_equal(regs_of(vm, 0).idt_limit, regs.idt_limit);
        cpu_until_done(vm, CPU_USER);
        assert_int_equal(cpu_control(vm).traps, 0);
        ramet_vm_destroy(vm);
}

/* An instruction that exits is stepped, too: it is over when its I/O is. */
static void a_step_over_an_access(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct ramet_vm_event e;
        unsigned steps = 0;
        uint64_t rip = 0;

        cpu_access(vm, true, 0x80, 1, true, 7);
        do {
                api_ok(ramet_vm_step(vm, 0));
                api_ok(ramet_vm_continue(vm));
                e = api_next(vm);
                if (e.type == RAMET_VM_BREAKPOINT) {
                        assert_true(e.breakpoint.step);
                        assert_true(e.breakpoint.address != rip);
                        rip = e.breakpoint.address;
                }
        } while (e.type == RAMET_VM_BREAKPOINT && ++steps < 2000);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        assert_int_equal(e.doorbell.value, CPU_ACCESS);
        assert_in_range(steps, 10, 1999);
        ramet_vm_destroy(vm);
}

static void a_step_ends_behind_the_access(void **state)
{
        struct ramet_vm *vm = ready(1);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_port + 5, true));
        cpu_do(vm, CPU_PORT);
        e = api_until(vm, RAMET_VM_BREAKPOINT);
        expect_break(&e, 0, c.spot_port + 5, false);
        api_ok(ramet_vm_step(vm, 0));
        e = api_until(vm, RAMET_VM_BREAKPOINT);
        expect_break(&e, 0, c.spot_port + 6, true);
        cpu_until_done(vm, CPU_PORT);
        ramet_vm_destroy(vm);
}

/* --- interrupts --- */

static void wait_for(struct ramet_vm *vm, size_t counter, uint64_t n)
{
        uint64_t seen = 0;
        struct ramet_vm_event e;

        for (unsigned i = 0; i < 5000 && seen < n; i++) {
                api_ok(ramet_vm_next(vm, RAMET_MILLISECOND, &e));
                api_ok(ramet_vm_read(vm, CPU_CONTROL + counter, &seen, sizeof seen));
        }
        assert_int_equal(seen, n);
}
#define COUNTER(name) offsetof(struct cpu_control, name)

static struct ramet_vm *waiting(void)
{
        struct ramet_vm *vm = ready(1);

        cpu_do(vm, CPU_WAIT);
        api_ok(ramet_vm_continue(vm));
        return vm;
}

static void vm_irq(void **state)
{
        struct ramet_vm *vm = waiting();

        for (unsigned i = 1; i <= 3; i++) {
                assert_int_equal(ramet_vm_irq(vm, CPU_LINE, true), 0);
                assert_int_equal(ramet_vm_irq(vm, CPU_LINE, false), 0);
                wait_for(vm, COUNTER(irqs), i);
        }
        assert_int_equal(ramet_vm_irq(vm, 23, false), 0);
        api_fails(ramet_vm_irq(vm, 24, true), -EINVAL, "line: 24");
        api_fails(ramet_vm_irq(NULL, 0, true), -EINVAL, "machine");
        assert_int_equal(cpu_control(vm).nmis, 0);
        ramet_vm_destroy(vm);
}

/* Also to one that never leaves its guest by itself, and has interrupts off. */
static void vm_nmi(void **state)
{
        struct ramet_vm *vm = waiting();
        struct ramet_vm_event e;

        assert_int_equal(ramet_vm_nmi(vm, 0), 0);
        wait_for(vm, COUNTER(nmis), 1);
        assert_int_equal(ramet_vm_nmi(vm, 0), 0);
        wait_for(vm, COUNTER(nmis), 2);
        api_fails(ramet_vm_nmi(vm, 1), -EINVAL, "vcpu: 1 given");
        api_fails(ramet_vm_nmi(NULL, 0), -EINVAL, "machine");
        ramet_vm_destroy(vm);
        vm = ready(1);
        cpu_do(vm, CPU_SPIN);
        api_ok(ramet_vm_continue(vm));
        for (unsigned i = 0; i < 5000 && !cpu_control(vm).counter; i++)
                api_ok(ramet_vm_next(vm, RAMET_MILLISECOND, &e));
        assert_int_equal(ramet_vm_nmi(vm, 0), 0);
        wait_for(vm, COUNTER(nmis), 1);
        ramet_vm_destroy(vm);
}

static void vm_msi(void **state)
{
        struct ramet_vm *vm = waiting();

        assert_int_equal(ramet_vm_msi(vm, 0xfee00000, CPU_MSI), 0);
        wait_for(vm, COUNTER(msis), 1);
        assert_int_equal(ramet_vm_msi(vm, 0xfee00000, CPU_MSI), 0);
        wait_for(vm, COUNTER(msis), 2);
        api_fails(ramet_vm_msi(vm, 0xfed00000, CPU_MSI), -EINVAL, "0xfed00000");
        api_fails(ramet_vm_msi(vm, 0x1fee00000, CPU_MSI), -EINVAL, "0x1fee00000");
        api_fails(ramet_vm_msi(NULL, 0xfee00000, 0), -EINVAL, "machine");
        assert_int_equal(cpu_control(vm).irqs, 0);
        ramet_vm_destroy(vm);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_get_regs", vm_get_regs},
                {"ramet_vm_set_regs", vm_set_regs},
                {"ramet_vm_breakpoint", vm_breakpoint},
                {"ramet_vm_step", vm_step},
                {"ramet_vm_irq", vm_irq},
                {"ramet_vm_nmi", vm_nmi},
                {"ramet_vm_msi", vm_msi},
                cmocka_unit_test(registers_that_are_refused),
                cmocka_unit_test(registers_of_a_machine_that_runs),
                cmocka_unit_test(a_breakpoint_in_user_mode),
                cmocka_unit_test(interrupts_come_in_between),
                cmocka_unit_test(a_breakpoint_on_another_vcpu),
                cmocka_unit_test(a_breakpoint_at_an_instruction_that_repeats),
                cmocka_unit_test(a_clone_of_a_machine_at_a_breakpoint),
                cmocka_unit_test(steps_in_user_mode),
                cmocka_unit_test(a_step_over_an_access),
                cmocka_unit_test(a_step_ends_behind_the_access),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_cpu", tests, NULL, NULL);
}
