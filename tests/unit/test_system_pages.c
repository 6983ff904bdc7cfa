/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that the processor writes by itself, wherever the guest says that they are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fake_ram.h"
#include "kvm/kvm.h"
#include "x86/operands.h"
#include "x86/system_pages.h"

#define ALL 7ull
#define TOP 0x1000ull

static struct kvm_regs regs;
static struct kvm_sregs sregs;

/* Long mode; the last page of all addresses is at physical page 20, the first at 21. */
static void ends_mapped(void)
{
        memset(&regs, 0, sizeof regs);
        memset(&sregs, 0, sizeof sregs);
        fake_ram_clear();
        sregs.cr0 = 0x80010001;
        sregs.cr3 = TOP;
        sregs.cr4 = 1 << 5;
        sregs.efer = 0xd00;
        sregs.cs.l = 1;
        sregs.gdt.base = 0x800000; /* not mapped */
        sregs.ldt.unusable = sregs.tr.unusable = 1;
        put64(TOP, 0, 0x2000 | ALL);
        put64(0x2000, 0, 0x3000 | ALL);
        put64(0x3000, 0, 0x4000 | ALL);
        put64(0x4000, 0, 21 * 4096 | ALL);
        put64(TOP, 511, 0x5000 | ALL);
        put64(0x5000, 511, 0x6000 | ALL);
        put64(0x6000, 511, 0x7000 | ALL);
        put64(0x7000, 511, 20 * 4096 | ALL);
}

static bool found(unsigned page)
{
        const struct x86_paging paging = x86_paging_of(&regs, &sregs, 40);
        uint64_t gpas[X86_SYSTEM_PAGES_MAX];
        unsigned n = x86_system_pages(&regs, &sregs, &paging, &fake_reader, gpas);

        for (unsigned i = 0; i < n; i++) {
                if (gpas[i] / 4096 == page)
                        return true;
        }
        return false;
}

static void a_stack_in_the_last_page(void **state)
{
        ends_mapped();
        regs.rsp = UINT64_MAX;
        assert_true(found(20));
        assert_false(found(21));
        regs.rsp = 64;
        assert_true(found(21));
}

static void a_descriptor_table_in_the_last_page(void **state)
{
        ends_mapped();
        regs.rsp = 0x800000; /* not mapped */
        sregs.gdt.base = -4096ull;
        sregs.gdt.limit = 0xffe;
        assert_true(found(20));
        sregs.gdt.limit = 0xfff;
        assert_true(found(20));
        assert_false(found(21));
        sregs.gdt.limit = 0xffff; /* goes on at 0 */
        assert_true(found(20));
        assert_true(found(21));
}

/* A clock may be at address 0; there is no wall clock there, as KVM has it. */
static void pages_that_msrs_name(void **state)
{
        uint64_t gpa, len;

        assert_true(kvm_pv_msr(0x4b564d01, 0x5001, &gpa, &len));
        assert_int_equal(gpa, 0x5000);
        assert_false(kvm_pv_msr(0x4b564d01, 0x5000, &gpa, &len));
        assert_true(kvm_pv_msr(0x4b564d01, 1, &gpa, &len));
        assert_int_equal(gpa, 0);
        assert_true(kvm_pv_msr(0x4b564d00, 0x5000, &gpa, &len));
        assert_false(kvm_pv_msr(0x4b564d00, 0, &gpa, &len));
        assert_false(kvm_pv_msr(0x10, 0x5001, &gpa, &len));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_stack_in_the_last_page),
                cmocka_unit_test(a_descriptor_table_in_the_last_page),
                cmocka_unit_test(pages_that_msrs_name),
        };

        return cmocka_run_group_tests_name("system_pages", tests, NULL, NULL);
}
