/* SPDX-License-Identifier: Apache-2.0 */
/* Devices of the program's own, and accesses that nobody answers. */
#include "api.h"
#include "cpu_guest.h"

#define BASE  0xd0200000ull /* where nothing is */
#define PORTS 0x5000u

struct seen {
        struct ramet_vm *vm;
        unsigned reads, writes, length;
        uint64_t offset, value;
        int inside;         /* what a call that must not be made from a handler returned */
        uint64_t interrupt; /* it sends one at each write */
};

static uint64_t on_read(void *data, uint64_t offset, unsigned length)
{
        struct seen *s = data;

        s->reads++;
        s->offset = offset;
        s->length = length;
        return 0x8877665544332211 + offset;
}

static void on_write(void *data, uint64_t offset, unsigned length, uint64_t value)
{
        struct seen *s = data;

        s->writes++;
        s->offset = offset;
        s->length = length;
        s->value = value;
        s->inside = ramet_vm_pause(s->vm);
        if (s->interrupt)
                ramet_vm_nmi(s->vm, 0);
}

static const struct ramet_handler handler = {
        .size = sizeof handler, .read = on_read, .write = on_write};

static uint64_t mask(unsigned length)
{
        return length == 8 ? UINT64_MAX : (1ull << 8 * length) - 1;
}

static void expect_access(struct ramet_vm *vm, struct seen *s, bool port, uint64_t base,
                          uint64_t offset, unsigned length)
{
        const uint64_t value = 0xfedcba9876543210;
        const unsigned reads = s->reads, writes = s->writes;

        cpu_access(vm, port, base + offset, length, false, 0);
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(s->reads, reads + 1);
        assert_int_equal(s->offset, offset);
        assert_int_equal(s->length, length);
        assert_true(cpu_control(vm).value == ((0x8877665544332211 + offset) & mask(length)));
        cpu_access(vm, port, base + offset, length, true, value);
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(s->writes, writes + 1);
        assert_int_equal(s->offset, offset);
        assert_int_equal(s->length, length);
        assert_true(s->value == (value & mask(length)));
        assert_int_equal(s->inside, -EDEADLK);
}

static struct ramet_vm *with_handlers(struct seen *s)
{
        struct ramet_vm *vm = cpu_ready(1, NULL);

        s->vm = vm;
        api_ok(ramet_vm_pause(vm));
        assert_int_equal(ramet_vm_handle(vm, RAMET_MMIO, BASE, 0x100, &handler, s), 0);
        assert_int_equal(ramet_vm_handle(vm, RAMET_PIO, PORTS, 0x10, &handler, s), 0);
        return vm;
}

static void vm_handle(void **state)
{
        struct seen s = {0};
        struct ramet_vm *vm = with_handlers(&s);
        static const unsigned lengths[] = {1, 2, 4, 8};

        for (unsigned i = 0; i < 4; i++) {
                expect_access(vm, &s, false, BASE, 0, lengths[i]);
                expect_access(vm, &s, false, BASE, 0x40 + lengths[i], lengths[i]);
                expect_access(vm, &s, false, BASE, 0x100 - lengths[i], lengths[i]);
                if (lengths[i] < 8)
                        expect_access(vm, &s, true, PORTS, 0x10 - lengths[i], lengths[i]);
        }
        s.reads = s.writes = 0;
        cpu_access(vm, false, BASE + 0xfe, 4, false, 0); /* does not fit in whole */
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(cpu_control(vm).value, UINT32_MAX);
        assert_int_equal(s.reads + s.writes, 0);
        ramet_vm_destroy(vm);
}

static void handlers_that_are_refused(void **state)
{
        struct seen s = {0};
        struct ramet_vm *vm = with_handlers(&s);
        struct ramet_handler bad = handler;

        api_fails(ramet_vm_handle(NULL, RAMET_MMIO, BASE, 1, &handler, &s), -EINVAL, "machine");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, BASE, 1, NULL, &s), -EINVAL, "handler");
        bad.size = 8;
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, BASE, 1, &bad, &s), -EINVAL, "size is 8");
        api_fails(ramet_vm_handle(vm, 7, BASE, 1, &handler, &s), -EINVAL, "space");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, BASE, 0, &handler, &s), -EINVAL, "0 bytes");
        api_fails(ramet_vm_handle(vm, RAMET_PIO, 0xffff, 2, &handler, &s), -EINVAL, "0x10000");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, UINT64_MAX, 2, &handler, &s), -EINVAL, "below");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, BASE + 0xff, 9, &handler, &s), -EEXIST,
                  "handler");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, 0x100000, 9, &handler, &s), -EEXIST, "RAM");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, 0xfee00000, 9, &handler, &s), -EEXIST, "KVM");
        api_fails(ramet_vm_handle(vm, RAMET_MMIO, 0xd0000000, 9, &handler, &s), -EEXIST,
                  "doorbell");
        api_fails(ramet_vm_handle(vm, RAMET_PIO, 0x3fa, 1, &handler, &s), -EEXIST, "serial");
        api_fails(ramet_vm_handle(vm, RAMET_PIO, 0x21, 1, &handler, &s), -EEXIST, "KVM");
        for (unsigned i = 2; i < RAMET_HANDLERS_MAX; i++)
                api_ok(ramet_vm_handle(vm, RAMET_PIO, 0x6000 + i, 1, &handler, &s));
        api_fails(ramet_vm_handle(vm, RAMET_PIO, 0x7000, 1, &handler, &s), -ENOSPC, "16");
        api_ok(ramet_vm_start(vm));
        api_fails(ramet_vm_handle(vm, RAMET_PIO, 0x7000, 1, &handler, &s), -EBUSY, "runs");
        ramet_vm_destroy(vm);
}

static void one_of_two_functions(void **state)
{
        struct ramet_handler none = {.size = sizeof none};
        struct ramet_vm *vm = cpu_ready(1, NULL);

        api_ok(ramet_vm_pause(vm));
        api_ok(ramet_vm_handle(vm, RAMET_MMIO, BASE, 8, &none, NULL));
        cpu_access(vm, false, BASE, 4, true, 5);
        cpu_until_done(vm, CPU_ACCESS);
        cpu_access(vm, false, BASE, 4, false, 0);
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(cpu_control(vm).value, UINT32_MAX);
        ramet_vm_destroy(vm);
}

static void a_handler_sends_an_interrupt(void **state)
{
        struct seen s = {.interrupt = 1};
        struct ramet_vm *vm = with_handlers(&s);

        cpu_access(vm, false, BASE, 4, true, 5);
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(cpu_control(vm).nmis, 1);
        ramet_vm_destroy(vm);
}

static void they_stay_over_a_reset_and_are_in_no_clone(void **state)
{
        struct seen s = {0};
        struct ramet_vm *vm = with_handlers(&s), *clone;
        struct ramet_template *tmpl;

        cpu_access(vm, false, BASE, 4, false, 0);
        api_ok(ramet_vm_freeze(vm, "t", &tmpl));
        clone = api_spawn(tmpl);
        cpu_until_done(clone, CPU_ACCESS);
        assert_int_equal(cpu_control(clone).value, UINT32_MAX);
        assert_int_equal(s.reads, 0);
        ramet_vm_destroy(clone);
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(s.reads, 1);
        api_ok(ramet_vm_reset(vm));
        cpu_until_done(vm, CPU_ACCESS);
        assert_int_equal(s.reads, 2);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* --- nobody answers --- */

static void report(struct ramet_vm_config *config)
{
        config->report_unhandled = true;
}

static void expect_unhandled(const struct ramet_vm_event *e, enum ramet_space space,
                             uint64_t address, unsigned length, bool write, uint64_t value)
{
        assert_int_equal(e->type, RAMET_VM_UNHANDLED);
        assert_int_equal(e->unhandled.space, space);
        assert_int_equal(e->unhandled.address, address);
        assert_int_equal(e->unhandled.length, length);
        assert_int_equal(e->unhandled.write, write);
        assert_true(e->unhandled.value == value);
        assert_int_equal(e->vcpu, 0);
}

static void unhandled_accesses(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, report);
        struct ramet_vm_event e;

        cpu_access(vm, true, PORTS, 2, true, 0xabcd);
        e = api_until(vm, RAMET_VM_UNHANDLED);
        expect_unhandled(&e, RAMET_PIO, PORTS, 2, true, 0xabcd);
        assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0); /* held */
        cpu_until_done(vm, CPU_ACCESS);
        cpu_access(vm, false, BASE + 8, 8, false, 1);
        e = api_until(vm, RAMET_VM_UNHANDLED);
        expect_unhandled(&e, RAMET_MMIO, BASE + 8, 8, false, 0);
        cpu_until_done(vm, CPU_ACCESS);
        assert_true(cpu_control(vm).value == UINT64_MAX);
        cpu_access(vm, false, 0xd0000000, 4, false, 1); /* the doorbell answers */
        cpu_until_done(vm, CPU_ACCESS);
        ramet_vm_destroy(vm);
}

/* It goes on from there in a clone, whose parent is held; a step over it is reported after it. */
static void held_by_an_access(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, report), *clone;
        struct ramet_template *tmpl;
        struct ramet_vm_event e;

        cpu_access(vm, true, PORTS, 1, true, 1);
        api_until(vm, RAMET_VM_UNHANDLED);
        api_ok(ramet_vm_freeze(vm, "held", &tmpl));
        clone = api_spawn(tmpl);
        cpu_until_done(clone, CPU_ACCESS); /* and does not report: that was not asked for */
        ramet_vm_destroy(clone);
        api_ok(ramet_vm_step(vm, 0));
        api_ok(ramet_vm_continue(vm));
        e = api_next(vm);
        assert_int_equal(e.type, RAMET_VM_BREAKPOINT);
        assert_true(e.breakpoint.step);
        cpu_until_done(vm, CPU_ACCESS);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* One instruction, two events: one after the other. */
static void a_step_over_what_nobody_answers(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, report);
        struct cpu_control c = cpu_control(vm);
        struct ramet_vm_event e;

        api_ok(ramet_vm_breakpoint(vm, c.spot_port + 5, true));
        cpu_do(vm, CPU_PORT);
        api_until(vm, RAMET_VM_BREAKPOINT);
        api_ok(ramet_vm_step(vm, 0));
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(api_next(vm).type, RAMET_VM_UNHANDLED);
        assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0);
        api_ok(ramet_vm_continue(vm));
        e = api_next(vm);
        assert_int_equal(e.type, RAMET_VM_BREAKPOINT);
        assert_int_equal(e.breakpoint.address, c.spot_port + 6);
        assert_true(e.breakpoint.step);
        cpu_until_done(vm, CPU_PORT);
        ramet_vm_destroy(vm);
}

static void not_reported_unless_asked_for(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, NULL);

        cpu_access(vm, true, PORTS, 4, false, 1);
        cpu_until_done(vm, CPU_ACCESS);
        assert_true(cpu_control(vm).value == UINT32_MAX);
        ramet_vm_destroy(vm);
}

static void report_rom(struct ramet_vm_config *config)
{
        config->report_unhandled = true;
        config->cow = RAMET_COW_ROM;
}

static void writes_to_read_only_memory_are_answered(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, report_rom);
        struct ramet_template *tmpl;

        api_ok(ramet_vm_freeze(vm, "t", &tmpl));
        CPU_PUT(vm, value, 20);
        cpu_do(vm, CPU_DIRTY);
        cpu_until_done(vm, CPU_DIRTY);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_handle", vm_handle},
                cmocka_unit_test(handlers_that_are_refused),
                cmocka_unit_test(one_of_two_functions),
                cmocka_unit_test(a_handler_sends_an_interrupt),
                cmocka_unit_test(they_stay_over_a_reset_and_are_in_no_clone),
                cmocka_unit_test(unhandled_accesses),
                cmocka_unit_test(held_by_an_access),
                cmocka_unit_test(a_step_over_what_nobody_answers),
                cmocka_unit_test(not_reported_unless_asked_for),
                cmocka_unit_test(writes_to_read_only_memory_are_answered),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_handler", tests, NULL, NULL);
}
