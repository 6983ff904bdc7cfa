/* SPDX-License-Identifier: Apache-2.0 */
/* The entry states: registers, the GDT's bytes, the identity map, and memory that is too small. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "x86/entry.h"
#include "x86/layout.h"

static uint8_t ram[0x10000];

static struct guest_mem memory(uint64_t size)
{
        memset(ram, 0xcc, sizeof ram);
        return (struct guest_mem){.nregions = 1, .regions = {{.size = size, .hva = ram}}};
}

static uint64_t ram64(uint64_t gpa)
{
        uint64_t v;

        memcpy(&v, ram + gpa, sizeof v);
        return v;
}

/* As a vCPU has them after a reset, with rubbish in what must not survive. */
static struct kvm_sregs reset_sregs(void)
{
        struct kvm_sregs s;

        memset(&s, 0xa5, sizeof s);
        s.apic_base = 0xfee00900;
        s.cr0 = 0x60000010;
        return s;
}

static void long_mode(void **state)
{
        struct guest_mem m = memory(sizeof ram);
        struct x86_entry e = {X86_LONG64, 0x1000200, 1, 2, LAYOUT_BOOT_INFO, LAYOUT_BOOT_STACK};
        struct kvm_sregs s = reset_sregs();
        struct kvm_regs r;

        memset(&r, 0xa5, sizeof r);
        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), 0);
        assert_int_equal(r.rip, 0x1000200);
        assert_int_equal(r.rax, 1);
        assert_int_equal(r.rbx, 2);
        assert_int_equal(r.rsi, LAYOUT_BOOT_INFO);
        assert_int_equal(r.rsp, LAYOUT_BOOT_STACK);
        assert_int_equal(r.rdi, 0);
        assert_int_equal(r.rflags, 2);
        assert_int_equal(s.cr0, 0x80000011);
        assert_int_equal(s.cr3, LAYOUT_BOOT_PAGETABLES);
        assert_int_equal(s.cr4, 1 << 5);
        assert_int_equal(s.efer, 0x500);
        assert_int_equal(s.apic_base, 0xfee00900);
        assert_int_equal(s.cs.selector, 0x10);
        assert_int_equal(s.ds.selector, 0x18);
        assert_int_equal(s.ss.selector, 0x18);
        assert_int_equal(s.cs.l, 1);
        assert_int_equal(s.cs.db, 0);
        assert_int_equal(s.tr.type, 11);
        assert_int_equal(s.tr.limit, 0x67);
        assert_int_equal(s.ldt.unusable, 1);
        assert_int_equal(s.interrupt_bitmap[3], 0);
        assert_int_equal(s.gdt.base, LAYOUT_BOOT_GDT);
        assert_int_equal(s.gdt.limit, 47);
        assert_int_equal(ram64(LAYOUT_BOOT_GDT), 0);
        assert_int_equal(ram64(LAYOUT_BOOT_GDT + 0x10), 0x00af9b000000ffff);
        assert_int_equal(ram64(LAYOUT_BOOT_GDT + 0x18), 0x00cf93000000ffff);
        assert_int_equal(ram64(LAYOUT_BOOT_GDT + 0x20), 0x00008b0000000067);
        assert_int_equal(ram64(LAYOUT_BOOT_GDT + 0x28), 0);
}

/* Walk the tables as the processor does, for an address in every 2 MiB. */
static void identity_map_covers_4_gib(void **state)
{
        struct guest_mem m = memory(sizeof ram);
        struct x86_entry e = {.mode = X86_LONG64};
        struct kvm_sregs s = reset_sregs();
        struct kvm_regs r;

        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), 0);
        for (uint64_t a = 0; a < 4ull << 30; a += 2ull << 20) {
                uint64_t pml4e = ram64(s.cr3);
                uint64_t pdpte = ram64((pml4e & ~0xfffull) + (a >> 30) * 8);
                uint64_t pde = ram64((pdpte & ~0xfffull) + (a >> 21 & 511) * 8);

                assert_int_equal(pml4e & 0xfff, 3);
                assert_int_equal(pdpte & 0xfff, 3);
                assert_int_equal(pde, a | 0x83);
        }
        assert_int_equal(ram64(s.cr3 + 8), 0);
        assert_int_equal(ram64(s.cr3 + 4096 + 4 * 8), 0);
        assert_int_equal(ram[LAYOUT_BOOT_PAGETABLES - 1], 0xcc);
        assert_int_equal(ram[LAYOUT_BOOT_PAGETABLES + 6 * 4096], 0xcc);
}

static void protected_mode(void **state)
{
        struct guest_mem m = memory(sizeof ram);
        struct x86_entry e = {.mode = X86_PROT32, .rip = 0x100000, .rbx = LAYOUT_BOOT_INFO};
        struct kvm_sregs s = reset_sregs();
        struct kvm_regs r;

        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), 0);
        assert_int_equal(r.rflags, 2);
        assert_int_equal(r.rbx, LAYOUT_BOOT_INFO);
        assert_int_equal(s.cr0, 0x11);
        assert_int_equal(s.cr4, 0);
        assert_int_equal(s.efer, 0);
        assert_int_equal(s.cs.db, 1);
        assert_int_equal(s.cs.l, 0);
        assert_int_equal(s.cs.limit, 0xffffffff);
        assert_int_equal(s.tr.base, 0);
        assert_int_equal(s.tr.limit, 0x67);
        assert_int_equal(ram64(LAYOUT_BOOT_GDT + 0x10), 0x00cf9b000000ffff);
        assert_int_equal(ram[LAYOUT_BOOT_PAGETABLES], 0xcc); /* not needed, not written */
}

static void real_mode(void **state)
{
        struct guest_mem m = memory(sizeof ram);
        struct x86_entry e = {.mode = X86_REAL16, .rip = 0x7c05, .rsp = LAYOUT_BOOT_STACK};
        struct kvm_sregs s = reset_sregs();
        struct kvm_regs r;

        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), 0);
        assert_int_equal(s.cs.selector, 0x7c0);
        assert_int_equal(s.cs.base, 0x7c00);
        assert_int_equal(s.cs.limit, 0xffff);
        assert_int_equal(r.rip, 5);
        assert_int_equal(s.ds.base, 0);
        assert_int_equal(s.cr0, 0x10);
        assert_int_equal(s.idt.limit, 0x3ff);
        assert_int_equal(ram[LAYOUT_BOOT_GDT], 0xcc);
        e.rip = 0x100000;
        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), -EINVAL);
}

static void too_little_memory(void **state)
{
        struct guest_mem m = memory(LAYOUT_BOOT_PAGETABLES + 6 * 4096 - 1);
        struct x86_entry e = {.mode = X86_LONG64};
        struct kvm_sregs s = reset_sregs();
        struct kvm_regs r;

        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), -EFAULT);
        m = memory(LAYOUT_BOOT_GDT + 47);
        e.mode = X86_PROT32;
        assert_int_equal(x86_entry_setup(&e, &m, &r, &s), -EFAULT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(long_mode),         cmocka_unit_test(identity_map_covers_4_gib),
                cmocka_unit_test(protected_mode),    cmocka_unit_test(real_mode),
                cmocka_unit_test(too_little_memory),
        };

        return cmocka_run_group_tests_name("entry", tests, NULL, NULL);
}
