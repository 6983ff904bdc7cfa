/* SPDX-License-Identifier: Apache-2.0 */
/* The real-time clock, against the C library's calendar. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <cmocka.h>

#include "device_fake.h"

enum {
        A = 0x0a,
        B = 0x0b,
        C = 0x0c,
        D = 0x0d,
        B_SET = 0x80,
        B_BINARY = 0x04,
        B_24H = 0x02,
};

static struct fake fx;

static int setup(void **state)
{
        fake_init(&fx, &rtc_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static uint8_t get(uint8_t index)
{
        fake_write(&fx, 0, 0, 1, index);
        return (uint8_t)fake_read(&fx, 0, 1, 1);
}

static void set(uint8_t index, uint8_t value)
{
        fake_write(&fx, 0, 0, 1, index);
        fake_write(&fx, 0, 1, 1, value);
}

static int num(uint8_t byte, bool binary)
{
        return binary ? byte : (byte >> 4) * 10 + (byte & 15);
}

/* The time as a driver reads it, held by SET so that it is one moment. */
static time_t read_time(uint8_t mode)
{
        bool bin = mode & B_BINARY;
        struct tm tm = {0};
        uint8_t hour;
        time_t t;

        set(B, mode);
        set(B, mode | B_SET);
        hour = get(4);
        tm.tm_sec = num(get(0), bin);
        tm.tm_min = num(get(2), bin);
        tm.tm_hour =
                mode & B_24H ? num(hour, bin) : num(hour & 0x7f, bin) % 12 + (hour & 0x80 ? 12 : 0);
        tm.tm_mday = num(get(7), bin);
        tm.tm_mon = num(get(8), bin) - 1;
        tm.tm_year = num(get(0x32), bin) * 100 + num(get(9), bin) - 1900;
        t = timegm(&tm);
        assert_int_equal(num(get(6), bin), tm.tm_wday + 1);
        set(B, mode);
        return t;
}

static void set_time(uint8_t mode, time_t t)
{
        bool bin = mode & B_BINARY;
        struct tm tm;
        int hour;

#define NUM(n) (uint8_t)(bin ? (n) : ((n) / 10 << 4 | (n) % 10))
        assert_non_null(gmtime_r(&t, &tm));
        set(B, mode | B_SET);
        hour = mode & B_24H ? tm.tm_hour : (tm.tm_hour % 12 ? tm.tm_hour % 12 : 12);
        set(0, NUM(tm.tm_sec));
        set(2, NUM(tm.tm_min));
        set(4, (uint8_t)(NUM(hour) | (!(mode & B_24H) && tm.tm_hour >= 12 ? 0x80 : 0)));
        set(6, NUM(tm.tm_wday + 1));
        set(7, NUM(tm.tm_mday));
        set(8, NUM(tm.tm_mon + 1));
        set(9, NUM(tm.tm_year % 100));
        set(0x32, NUM((tm.tm_year + 1900) / 100));
        set(B, mode);
}

static const uint8_t modes[] = {0, B_24H, B_BINARY, B_BINARY | B_24H};

static void shows_the_hosts_time_in_every_format(void **state)
{
        assert_int_equal(fx.windows[0].base, 0x70);
        assert_int_equal(fx.windows[0].len, 2);
        for (unsigned i = 0; i < 4; i++) {
                time_t before = time(NULL), t = read_time(modes[i]);

                assert_in_range(t, before, time(NULL));
        }
}

static void takes_a_time_and_goes_on_from_it(void **state)
{
        static const time_t times[] = {
                0,          /* 1970-01-01 */
                951782399,  /* 2000-02-28 23:59:59 */
                951825600,  /* 2000-02-29 12:00 */
                1078099199, /* 2004-02-29 23:59:59 */
                1709251200, /* 2024-03-01 */
                4107542400, /* 2100-03-01, no leap year */
                -1,         /* 1969-12-31 23:59:59 */
        };

        for (unsigned i = 0; i < 4; i++) {
                for (unsigned j = 0; j < sizeof times / sizeof times[0]; j++) {
                        time_t start = time(NULL), t;

                        set_time(modes[i], times[j]);
                        t = read_time(modes[3 - i]);
                        assert_in_range(t - times[j] + 1000, 1000, 1000 + time(NULL) - start);
                }
        }
}

static void every_day_of_400_years_is_right(void **state)
{
        for (time_t day = -25567; day < -25567 + 146097 + 366; day++) {
                set_time(B_BINARY | B_24H, day * 86400 + 43200);
                assert_in_range(read_time(B_BINARY | B_24H) - day * 86400 + 1000, 44200, 44210);
        }
}

static void registers_behave(void **state)
{
        assert_int_equal(get(D), 0x80);
        set(D, 0);
        assert_int_equal(get(D), 0x80);
        assert_int_equal(get(A) & 0x7f, 0x26);
        set(A, 0xff);
        set(B, B_SET | B_24H); /* no UIP while the clock is held */
        assert_int_equal(get(A), 0x7f);
        assert_int_equal(get(C), 0);
        set(B, B_24H);
        get(C);
        assert_true(get(C) == 0 || get(C) == 0); /* at most one of two is at a new second */
        set(C, 0xff);
        /* the index: bit 7 is the NMI mask, and it cannot be read back */
        set(0x8e, 0x77);
        assert_int_equal(get(0x0e), 0x77);
        assert_int_equal(fake_read(&fx, 0, 0, 1), 0xff);
        assert_int_equal(fake_read(&fx, 0, 0, 2), 0x77ff);
        for (unsigned i = 0x0e; i < 128; i++)
                if (i != 0x32)
                        set((uint8_t)i, (uint8_t)(i * 3));
        for (unsigned i = 0x0e; i < 128; i++)
                if (i != 0x32)
                        assert_int_equal(get((uint8_t)(i | 0x80)), (uint8_t)(i * 3));
}

/* What Linux's mc146818_get_time() relies on: UIP comes before a second changes, and only then. */
static void uip_announces_the_update(void **state)
{
        struct timespec before, after;

        for (int tries = 0; tries < 8; tries++) {
                bool uip;

                clock_gettime(CLOCK_REALTIME, &before);
                before.tv_nsec = 999770000;
                clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &before, NULL);
                uip = get(A) & 0x80;
                clock_gettime(CLOCK_REALTIME, &after);
                if (after.tv_sec != before.tv_sec)
                        continue; /* woken too late */
                assert_true(uip);
                break;
        }
        for (int i = 0; i < 10000; i++) {
                bool uip;

                clock_gettime(CLOCK_REALTIME, &before);
                uip = get(A) & 0x80;
                clock_gettime(CLOCK_REALTIME, &after);
                if (before.tv_sec == after.tv_sec && after.tv_nsec < 999756000)
                        assert_false(uip);
        }
}

static void nonsense_does_not_hurt(void **state)
{
        for (unsigned i = 0; i < 4; i++) {
                set(B, modes[i] | B_SET);
                for (uint8_t r = 0; r < 10; r++)
                        set(r, 0xff);
                set(0x32, 0xff);
                set(B, modes[i]);
                for (uint8_t r = 0; r < 10; r++)
                        get(r);
        }
        get(0x32);
        fake_write(&fx, 0, 1, 8, UINT64_MAX);
}

static void state_is_saved_and_restored(void **state)
{
        set_time(B_BINARY | B_24H, 951825600);
        set(B, B_BINARY | B_24H | B_SET);
        set(0x40, 0x99);
        set(0, 7);
        set(2, 0);
        set(4, 12);
        fake_write(&fx, 0, 0, 1, 0x15);
        /* the offset depends on when the test runs: put the record together with one that is known
         */
        {
                uint8_t record[144];
                const int64_t offset = -123456789;
                struct err err;

                rtc_ops.save(fx.dev, record);
                memcpy(record, &offset, sizeof offset);
                assert_int_equal(rtc_ops.restore(fx.dev, record, 1, &err), 0);
        }
        fake_check_record(&fx);
}

/* A clone that starts a second later shows the time that it is then. */
static void restored_it_keeps_the_time_and_the_offset(void **state)
{
        uint8_t record[144];
        struct err err;
        time_t t, start = time(NULL);

        set_time(B_24H, 1000000000);
        rtc_ops.save(fx.dev, record);
        fake_fini(&fx);
        fake_init(&fx, &rtc_ops);
        assert_int_equal(rtc_ops.restore(fx.dev, record, 1, &err), 0);
        t = read_time(B_24H);
        assert_in_range(t, 1000000000, 1000000000 + time(NULL) - start);
}

static void bad_state_is_refused_by_field(void **state)
{
        fake_expect_refused(&fx, 7, 0x80, "rtc: offset -9223372036854775808 is out of range");
        fake_expect_refused(&fx, 6, 0x80, "rtc: offset 36028797018963968 is out of range");
        fake_expect_refused(&fx, 8, 128, "rtc: index 128 is out of range");
        fake_expect_refused(&fx, 9, 1, "rtc: reserved bytes are not zero");
        fake_expect_refused(&fx, 16 + A, 0x80, "rtc: UIP is set in register A 0x80");
        fake_expect_refused(&fx, 16 + C, 1, "rtc: register C is 0x1, not 0");
        fake_expect_refused(&fx, 16 + D, 0, "rtc: register D is 0x0, not 0x80");
        fake_expect_refused(&fx, 16 + 4, 1, "rtc: time byte 0x4 is set, but not held");
        fake_expect_refused(&fx, 16 + 0x32, 1, "rtc: time byte 0x32 is set, but not held");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(shows_the_hosts_time_in_every_format),
                CASE(takes_a_time_and_goes_on_from_it),
                CASE(every_day_of_400_years_is_right),
                CASE(registers_behave),
                CASE(uip_announces_the_update),
                CASE(nonsense_does_not_hurt),
                CASE(state_is_saved_and_restored),
                CASE(restored_it_keeps_the_time_and_the_offset),
                CASE(bad_state_is_refused_by_field),
        };

        return cmocka_run_group_tests_name("rtc", tests, NULL, NULL);
}
