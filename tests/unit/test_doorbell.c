/* SPDX-License-Identifier: Apache-2.0 */
/* The fork doorbell: its registers as docs/fork-abi.md has them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device_fake.h"

enum {
        PIO = 0,
        MMIO = 1,
};

static struct fake fx;

static int setup(void **state)
{
        fake_init(&fx, &doorbell_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static void answers_in_ports_and_in_a_page(void **state)
{
        assert_int_equal(fx.nwindows, 2);
        assert_int_equal(fx.windows[PIO].space, DEVICE_PIO);
        assert_int_equal(fx.windows[PIO].base, RAMET_DOORBELL_PORT);
        assert_int_equal(fx.windows[PIO].len, 0x14);
        assert_int_equal(fx.windows[MMIO].space, DEVICE_MMIO);
        assert_int_equal(fx.windows[MMIO].base, RAMET_DOORBELL_MMIO);
        assert_int_equal(fx.windows[MMIO].len, 4096);
        for (unsigned w = PIO; w <= MMIO; w++) {
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_MAGIC, 4), 0x54454d52);
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_VERSION, 4), 1);
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_RING, 4), UINT32_MAX);
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_RESULT, 4), 0);
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_COUNT, 4), 0);
        }
}

static void other_accesses_read_ones_and_write_nothing(void **state)
{
        static const unsigned widths[] = {1, 2, 8};

        for (unsigned i = 0; i < 3; i++) {
                uint64_t ones = UINT64_MAX >> (64 - 8 * widths[i]);

                assert_true(fake_read(&fx, MMIO, RAMET_DOORBELL_MAGIC, widths[i]) == ones);
                fake_write(&fx, MMIO, RAMET_DOORBELL_RING, widths[i], 1);
        }
        for (uint64_t offset = 0; offset < 4096; offset++) {
                if (offset != RAMET_DOORBELL_RING)
                        fake_write(&fx, MMIO, offset, 4, 1);
                if (offset % 4 || offset >= 0x14)
                        assert_int_equal(fake_read(&fx, MMIO, offset, 4), UINT32_MAX);
        }
        assert_int_equal(fx.notified, 0);
}

/* The machine answers while the write is under way, and may save the device then. */
static void machine(struct fake *f, enum device_event event)
{
        uint8_t record[8];

        assert_int_equal(event, DEVICE_FORK_RING);
        doorbell_ops.save(f->dev, record);
        doorbell_set_result(f->dev, 2, 4);
}

static void a_ring_is_answered_before_it_returns(void **state)
{
        fx.on_notify = machine;
        for (unsigned w = PIO; w <= MMIO; w++) {
                fx.notified = 0;
                fake_write(&fx, w, RAMET_DOORBELL_RING, 4, w ? 0 : 77);
                assert_int_equal(fx.notified, 1);
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_RESULT, 4), 2);
                assert_int_equal(fake_read(&fx, w, RAMET_DOORBELL_COUNT, 4), 4);
        }
}

static void count_call(void *data)
{
        ++*(int *)data;
}

static void the_first_read_of_a_result_is_told_once(void **state)
{
        int calls = 0;

        doorbell_on_result_read(fx.dev, count_call, &calls);
        fake_read(&fx, PIO, RAMET_DOORBELL_RESULT, 4);
        assert_int_equal(calls, 0); /* no fork yet */
        for (int i = 1; i <= 3; i++) {
                doorbell_set_result(fx.dev, 0, 4);
                fake_read(&fx, PIO, RAMET_DOORBELL_COUNT, 4);
                fake_read(&fx, PIO, RAMET_DOORBELL_RESULT, 2);
                assert_int_equal(calls, i - 1);
                fake_read(&fx, PIO, RAMET_DOORBELL_RESULT, 4);
                fake_read(&fx, MMIO, RAMET_DOORBELL_RESULT, 4);
                assert_int_equal(calls, i);
        }
        doorbell_on_result_read(fx.dev, NULL, NULL);
        doorbell_set_result(fx.dev, RAMET_DOORBELL_NOT_ARMED, 0);
        assert_int_equal(fake_read(&fx, PIO, RAMET_DOORBELL_RESULT, 4), 0xffffffff);
        assert_int_equal(calls, 3);
}

static void state_is_saved_and_restored(void **state)
{
        doorbell_set_result(fx.dev, 3, 4);
        fake_check_record(&fx);
}

static void bad_state_is_refused_by_field(void **state)
{
        doorbell_set_result(fx.dev, 3, 4);
        fake_expect_refused(&fx, 0, 5, "doorbell: result 5 of 4 clones is out of range");
        fake_expect_refused(&fx, 3, 0xff,
                            "doorbell: result 4278190083 of 4 clones is out of range");
        doorbell_set_result(fx.dev, RAMET_DOORBELL_FAILED, 0xffffff);
        fake_expect_refused(&fx, 7, 0xff, "doorbell: count 4294967295 is out of range");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(answers_in_ports_and_in_a_page),
                CASE(other_accesses_read_ones_and_write_nothing),
                CASE(a_ring_is_answered_before_it_returns),
                CASE(the_first_read_of_a_result_is_told_once),
                CASE(state_is_saved_and_restored),
                CASE(bad_state_is_refused_by_field),
        };

        return cmocka_run_group_tests_name("doorbell", tests, NULL, NULL);
}
