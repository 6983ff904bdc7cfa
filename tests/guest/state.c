/* SPDX-License-Identifier: Apache-2.0 */
/* The whole state of a machine against its template's: see state.h. */
#include "state.h"

#include <string.h>
#include <unistd.h>

#include "rig.h"
#include "vm/machine.h"

static bool may_differ(uint32_t kind)
{
        switch (kind) {
        case RECORD_CLOCK: /* goes on */
        case RECORD_VM:    /* not written by machine_save() */
        case RECORD_LAYOUT:
        case RECORD_IRQCHIP: /* the generation id's interrupt; compared but for that */
        case RECORD_PIT:     /* when its counters were loaded; compared but for that */
        case RECORD_LAPIC:   /* the timer's current count; compared but for that */
        case RECORD_MSRS:    /* the clocks among them; compared but for those */
        case RECORD_DEV_VMGENID:
        case RECORD_DEV_DOORBELL:
                return true;
        default:
                return false;
        }
}

static bool is_clock_msr(uint32_t index)
{
        return index == 0x10 ||                              /* TSC */
               index == 0x6e0 ||                             /* TSC deadline */
               index == 0x40000020 || index == 0x40000021 || /* Hyper-V reference counters */
               (index >= 0xe7 && index <= 0xe8);             /* MPERF, APERF */
}

static void compare_msrs(const struct record *a, const struct record *b)
{
        const struct kvm_msr_entry *x = a->data, *y = b->data;

        assert_int_equal(a->length, b->length);
        for (size_t i = 0; i < a->length / sizeof *x; i++) {
                assert_int_equal(x[i].index, y[i].index);
                if (!is_clock_msr(x[i].index) && x[i].data != y[i].data)
                        fail_msg("vCPU %u: MSR %#x: %#llx in the template, %#llx now", a->instance,
                                 x[i].index, (unsigned long long)x[i].data,
                                 (unsigned long long)y[i].data);
        }
}

/* Everything but interrupt request bits (0x200-0x270: the announced generation id) and the timer's
 * current count (0x390). */
static void compare_lapics(const struct record *a, const struct record *b)
{
        const uint8_t *x = a->data, *y = b->data;

        for (unsigned reg = 0; reg < a->length; reg += 16) {
                if ((reg >= 0x200 && reg <= 0x270) || reg == 0x390)
                        continue;
                if (memcmp(x + reg, y + reg, 4))
                        fail_msg("vCPU %u: local APIC register %#x differs", a->instance, reg);
        }
}

/* The generation id is announced on GSI 10: pin 10 of the IOAPIC, pin 2 of the second PIC, and by
 * the cascade pin 2 of the first. */
static void compare_irqchips(const struct record *a, const struct record *b)
{
        struct kvm_irqchip x, y;

        memcpy(&x, a->data, sizeof x);
        memcpy(&y, b->data, sizeof y);
        if (x.chip_id == KVM_IRQCHIP_IOAPIC) {
                x.chip.ioapic.irr &= ~(1u << 10);
                y.chip.ioapic.irr &= ~(1u << 10);
        } else {
                x.chip.pic.irr = y.chip.pic.irr = 0;
                x.chip.pic.last_irr = y.chip.pic.last_irr = 0;
        }
        assert_memory_equal(&x, &y, sizeof x);
}

static void compare_pits(const struct record *a, const struct record *b)
{
        struct kvm_pit_state2 x, y;

        memcpy(&x, a->data, sizeof x);
        memcpy(&y, b->data, sizeof y);
        for (unsigned i = 0; i < 3; i++)
                x.channels[i].count_load_time = y.channels[i].count_load_time = 0;
        assert_memory_equal(&x, &y, sizeof x);
}

static void compare_all(const struct record_reader *want, const struct record_reader *got)
{
        unsigned compared = 0;

        for (size_t i = 0; i < want->nrecords; i++) {
                const struct record *a = &want->records[i];
                const struct record *b = record_find(got, a->kind, a->instance);

                if (a->kind == RECORD_VM || a->kind == RECORD_LAYOUT)
                        continue;
                if (!b)
                        fail_msg("record %#x of %u is missing", a->kind, a->instance);
                if (a->kind == RECORD_MSRS)
                        compare_msrs(a, b);
                else if (a->kind == RECORD_LAPIC)
                        compare_lapics(a, b);
                else if (a->kind == RECORD_IRQCHIP)
                        compare_irqchips(a, b);
                else if (a->kind == RECORD_PIT)
                        compare_pits(a, b);
                else if (!may_differ(a->kind) &&
                         (a->length != b->length || memcmp(a->data, b->data, a->length)))
                        fail_msg("record %#x of %u differs", a->kind, a->instance);
                else
                        compared++;
        }
        assert_true(compared > 15);
}

void state_expect_template(struct vm *vm, const struct template *tmpl)
{
        struct record_reader want, got;
        struct record_writer w;
        struct err err;
        int fd;

        record_writer_init(&w);
        assert_int_equal(machine_save(vm, &w, &err), 0);
        assert_int_equal(record_finish(&w, &fd, &err), 0);
        record_writer_fini(&w);
        assert_int_equal(record_reader_init_fd(&want, tmpl->state_fd, record_rules, &err), 0);
        assert_int_equal(record_reader_init_fd(&got, fd, record_rules, &err), 0);
        compare_all(&want, &got);
        record_reader_fini(&want);
        record_reader_fini(&got);
        close(fd);
}
