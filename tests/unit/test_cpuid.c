/* SPDX-License-Identifier: Apache-2.0 */
/* The processor that a guest is shown, made of made-up answers of KVM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kvm/kvm.h"
#include "x86/cpuid.h"

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

static struct kvm_cpuid2 *cpuid_of(const struct kvm_cpuid_entry2 *entries, uint32_t n)
{
        struct kvm_cpuid2 *c = calloc(1, sizeof *c + KVM_HOST_CPUID_MAX * sizeof c->entries[0]);

        assert_non_null(c);
        c->nent = n;
        memcpy(c->entries, entries, n * sizeof *entries);
        return c;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t function,
                                           uint32_t index)
{
        const struct kvm_cpuid_entry2 *found = NULL;

        for (uint32_t i = 0; i < c->nent; i++) {
                if (c->entries[i].function != function || c->entries[i].index != index)
                        continue;
                assert_null(found); /* there once */
                found = &c->entries[i];
        }
        return found;
}

static void no_nested_virtualization(void **state)
{
        static const struct kvm_cpuid_entry2 entries[] = {
                {.function = 1, .ecx = 1u << 5 | 1u << 0},
                {.function = 0x80000001, .ecx = 1u << 2 | 1u << 0},
        };
        struct kvm_cpuid2 *c = cpuid_of(entries, 2);

        x86_cpuid_for_vcpu(c, 0, 1);
        assert_int_equal(leaf(c, 1, 0)->ecx & (1u << 5 | 1u << 0), 1);
        assert_int_equal(leaf(c, 0x80000001, 0)->ecx, 1);
        free(c);
}

/* KVM since Linux 6.2 says nothing of the topology: one entry of zeros a leaf. */
static void the_core_level_is_there(void **state)
{
        static const struct kvm_cpuid_entry2 entries[] = {
                {.function = 0xb, .flags = INDEXED},
                {.function = 0x1f, .flags = INDEXED},
                {.function = 0x80000000},
        };
        struct kvm_cpuid2 *c = cpuid_of(entries, 3);

        for (unsigned id = 0; id < 6; id++) { /* again and again on its own result */
                x86_cpuid_for_vcpu(c, id, 6);
                for (uint32_t function = 0xb; function <= 0x1f; function += 0x14) {
                        const struct kvm_cpuid_entry2 *smt = leaf(c, function, 0);
                        const struct kvm_cpuid_entry2 *core = leaf(c, function, 1);

                        assert_non_null(core);
                        assert_int_equal(core->flags, INDEXED);
                        assert_int_equal(core->eax, 3); /* 6 numbers take 3 bits */
                        assert_int_equal(core->ebx, 6);
                        assert_int_equal(core->ecx, 2 << 8 | 1);
                        assert_int_equal(core->edx, id);
                        assert_int_equal(smt->eax, 0);
                        assert_int_equal(smt->ebx, 1);
                        assert_int_equal(smt->ecx, 1 << 8);
                        assert_int_equal(smt->edx, id);
                }
        }
        assert_int_equal(c->nent, 5);
        free(c);
}

static void a_full_table_stays_as_long_as_it_is(void **state)
{
        struct kvm_cpuid_entry2 *entries = calloc(KVM_HOST_CPUID_MAX, sizeof *entries);
        struct kvm_cpuid2 *c;

        entries[0] = (struct kvm_cpuid_entry2){.function = 0xb, .flags = INDEXED};
        c = cpuid_of(entries, KVM_HOST_CPUID_MAX);
        x86_cpuid_for_vcpu(c, 1, 2);
        assert_int_equal(c->nent, KVM_HOST_CPUID_MAX);
        assert_int_equal(leaf(c, 0xb, 0)->edx, 1);
        free(c);
        free(entries);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(no_nested_virtualization),
                cmocka_unit_test(the_core_level_is_there),
                cmocka_unit_test(a_full_table_stays_as_long_as_it_is),
        };

        return cmocka_run_group_tests_name("cpuid", tests, NULL, NULL);
}
