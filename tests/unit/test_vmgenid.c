/* SPDX-License-Identifier: Apache-2.0 */
/* The VM generation id: in guest memory, new when it is renewed, and told by one pulse. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device_fake.h"

static struct fake fx;

static int setup(void **state)
{
        fake_init(&fx, &vmgenid_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static const uint8_t *guid(const struct fake *f)
{
        return f->mem.regions[0].hva + LAYOUT_VMGENID;
}

static void each_machine_has_its_own(void **state)
{
        static const uint8_t zero[16];
        struct fake other;

        assert_int_equal(fx.nwindows, 0);
        assert_memory_not_equal(guid(&fx), zero, 16);
        assert_memory_equal(guid(&fx) + 16, zero, 16);
        fake_init(&other, &vmgenid_ops);
        assert_memory_not_equal(guid(&fx), guid(&other), 16);
        fake_fini(&other);
        assert_int_equal(fx.irqs, 0); /* nobody is told of the first one */
}

static void renewed_it_is_new_and_told(void **state)
{
        uint8_t before[16];

        memcpy(before, guid(&fx), 16);
        assert_int_equal(vmgenid_renew(fx.dev), 0);
        assert_memory_not_equal(guid(&fx), before, 16);
        assert_int_equal(fx.rises[LAYOUT_GSI_VMGENID], 1);
        assert_int_equal(fx.irqs, 2);
        assert_false(fx.line[LAYOUT_GSI_VMGENID]);
}

static void a_machine_without_that_memory_is_refused(void **state)
{
        struct device_window windows[DEVICE_WINDOWS];
        struct fake small;
        struct err err;
        unsigned n;

        fake_machine(&small);
        small.mem.regions[0].size = LAYOUT_VMGENID;
        assert_int_equal(
                vmgenid_ops.create(&small.env, &small.params, 0, &small.dev, windows, &n, &err),
                -EINVAL);
        assert_string_equal(err.text, "vmgenid: the machine has no memory at 0xff000");
        assert_null(small.dev);
        fake_fini(&small);
}

/* What is saved is what the machine said, whatever the guest has done to its memory. */
static void state_is_saved_and_restored(void **state)
{
        uint8_t record[16], known[16];
        struct err err;

        for (int i = 0; i < 16; i++)
                known[i] = (uint8_t)(0xf0 - i);
        assert_int_equal(vmgenid_ops.restore(fx.dev, known, 1, &err), 0);
        assert_memory_equal(guid(&fx), known, 16);
        memset(fx.mem.regions[0].hva + LAYOUT_VMGENID, 0, 16);
        vmgenid_ops.save(fx.dev, record);
        assert_memory_equal(record, known, 16);
        fake_check_record(&fx);
        fx.mem.regions[0].size = LAYOUT_VMGENID + 15;
        fake_expect_refused(&fx, 0, 0, "vmgenid: the machine has no memory at 0xff000");
        assert_int_equal(vmgenid_renew(fx.dev), -EFAULT);
        assert_int_equal(fx.irqs, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(each_machine_has_its_own),
                CASE(renewed_it_is_new_and_told),
                CASE(a_machine_without_that_memory_is_refused),
                CASE(state_is_saved_and_restored),
        };

        return cmocka_run_group_tests_name("vmgenid", tests, NULL, NULL);
}
