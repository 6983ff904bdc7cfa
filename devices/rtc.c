/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real-time clock and its 128 bytes of CMOS memory (Motorola MC146818A data sheet, 1984; the
 * century byte is the PC's convention). Port 0x70 takes an index, whose bit 7 masks the NMI on a PC
 * and is ignored, port 0x71 the byte of that index.
 *
 * The time is the host's realtime clock (UTC) and an offset that the guest makes by setting the
 * clock. So saved state holds no time: a machine that continues later sees the right one, as after
 * a sleep. Only while the guest holds the clock with the SET bit do the time bytes count for
 * themselves; when it lets go, they become the new offset.
 *
 * Register A shows UIP for the last 244 microseconds of each second, as the chip does, so that a
 * guest that saw it clear has the time to read all bytes of one second. Register C shows the update
 * flag once a second. The interrupt enables are kept, but raise nothing: this machine has other
 * timers.
 *
 * gmtime_r() and mktime() read the host's time zone files at a moment of their choosing, which a
 * process in a jail cannot; so the calendar is computed here (proleptic Gregorian, from March, by
 * cycles of 400 years).
 */
#include "devices/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "x86/layout.h"

#define PORTS 2
#define CMOS  128

/* Bytes of the CMOS */
enum {
        SECONDS = 0x00,
        MINUTES = 0x02,
        HOURS = 0x04,
        WEEKDAY = 0x06, /* 1: Sunday */
        DAY = 0x07,
        MONTH = 0x08,
        YEAR = 0x09,
        REG_A = 0x0a,
        REG_B = 0x0b,
        REG_C = 0x0c,
        REG_D = 0x0d,
        CENTURY = 0x32,
};

#define A_UIP     0x80u
#define A_RESET   0x26u /* 32768 Hz, 1024 Hz periodic rate */
#define B_SET     0x80u
#define B_BINARY  0x04u
#define B_24H     0x02u
#define C_UPDATE  0x10u
#define D_VALID   0x80u
#define HOURS_PM  0x80u
#define UIP_NS    244000 /* the data sheet's t_BUC, from UIP to the update */
#define SECOND_NS 1000000000

/* A guest's time is kept within these, so that no sum overflows: the years 0 to 9999. */
#define TIME_MIN (-62167219200)
#define TIME_MAX 253402300799

struct rtc {
        const struct device_env *env; /* [I] */
        pthread_mutex_t lock;
        uint8_t index;      /* [m] 0 - 127 */
        int64_t offset;     /* [m] seconds: the guest's time less the host's */
        int64_t last_flag;  /* [m] the host's second in which register C was last read */
        uint8_t cmos[CMOS]; /* [m] time bytes are only valid while B_SET */
};

struct rtc_record {
        int64_t offset;
        uint8_t index;
        uint8_t reserved[7];
        uint8_t cmos[CMOS]; /* REG_C is 0, REG_D is D_VALID, time bytes are 0 unless B_SET */
};

/* ---- the calendar ---- */

struct calendar {
        int64_t year;
        int month, day, hour, minute, second; /* month and day from 1 */
        int weekday;                          /* 1: Sunday */
};

#define DAYS_400Y    146097 /* days in 400 years */
#define DAYS_TO_1970 719468 /* from 1 March of the year 0 */

static int64_t floor_div(int64_t a, int64_t b)
{
        return a / b - (a % b < 0);
}

/* Days since 1970. Months count from March, so that the leap day is a year's last and the months
 * before a given one have (153 * m + 2) / 5 days. */
static int64_t days_of(int64_t year, int month, int day)
{
        int64_t y = month <= 2 ? year - 1 : year;
        int64_t era = floor_div(y, 400);
        int64_t of_era = y - era * 400;
        int64_t m = (month + 9) % 12;
        int64_t of_year = (153 * m + 2) / 5 + day - 1;

        return era * DAYS_400Y + of_era * 365 + of_era / 4 - of_era / 100 + of_year - DAYS_TO_1970;
}

static struct calendar calendar_of(int64_t time)
{
        int64_t days = floor_div(time, 86400), rest = time - days * 86400;
        int64_t shifted = days + DAYS_TO_1970, era = floor_div(shifted, DAYS_400Y);
        int64_t d = shifted - era * DAYS_400Y; /* 0 - 146096 */
        int64_t y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
        int64_t of_year = d - (365 * y + y / 4 - y / 100);
        int64_t m = (5 * of_year + 2) / 153;

        return (struct calendar){
                .year = y + era * 400 + (m >= 10),
                .month = (int)(m < 10 ? m + 3 : m - 9),
                .day = (int)(of_year - (153 * m + 2) / 5 + 1),
                .hour = (int)(rest / 3600),
                .minute = (int)(rest / 60 % 60),
                .second = (int)(rest % 60),
                .weekday = (int)(days + 4 - floor_div(days + 4, 7) * 7 + 1), /* a Thursday */
        };
}

/* ---- bytes and numbers, as register B says ---- */

static uint8_t encode(const struct rtc *r, int64_t value)
{
        if (r->cmos[REG_B] & B_BINARY)
                return (uint8_t)value;
        return (uint8_t)(value / 10 << 4 | value % 10);
}

static int decode(const struct rtc *r, uint8_t byte)
{
        if (r->cmos[REG_B] & B_BINARY)
                return byte;
        return (byte >> 4) * 10 + (byte & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
        if (r->cmos[REG_B] & B_24H)
                return encode(r, hour);
        return encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOURS_PM : 0);
}

static int decode_hour(const struct rtc *r, uint8_t byte)
{
        if (r->cmos[REG_B] & B_24H)
                return decode(r, byte);
        return decode(r, byte & 0x7f) % 12 + (byte & HOURS_PM ? 12 : 0);
}

static bool is_time(unsigned index)
{
        return index == SECONDS || index == MINUTES || index == HOURS ||
               (index >= WEEKDAY && index <= YEAR) || index == CENTURY;
}

/* ---- time, under the lock ---- */

static int64_t host_time(long *ns)
{
        struct timespec ts;

        clock_gettime(CLOCK_REALTIME, &ts);
        *ns = ts.tv_nsec;
        return ts.tv_sec;
}

static int64_t clamp(int64_t time)
{
        return time < TIME_MIN ? TIME_MIN : time > TIME_MAX ? TIME_MAX : time;
}

/* The time bytes take the time of now. */
static void latch(struct rtc *r)
{
        long ns;
        struct calendar c = calendar_of(clamp(host_time(&ns) + r->offset));

        r->cmos[SECONDS] = encode(r, c.second);
        r->cmos[MINUTES] = encode(r, c.minute);
        r->cmos[HOURS] = encode_hour(r, c.hour);
        r->cmos[WEEKDAY] = encode(r, c.weekday);
        r->cmos[DAY] = encode(r, c.day);
        r->cmos[MONTH] = encode(r, c.month);
        r->cmos[YEAR] = encode(r, c.year % 100);
        r->cmos[CENTURY] = encode(r, c.year / 100);
}

/* The time becomes what the time bytes say. They may say anything: a month that is none counts as
 * January, the rest adds up as it stands. */
static void unlatch(struct rtc *r)
{
        int month = decode(r, r->cmos[MONTH]);
        int64_t year = decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR]);
        int64_t days =
                days_of(year, month >= 1 && month <= 12 ? month : 1, decode(r, r->cmos[DAY]));
        int64_t time = days * 86400 + decode_hour(r, r->cmos[HOURS]) * 3600 +
                       decode(r, r->cmos[MINUTES]) * 60 + decode(r, r->cmos[SECONDS]);
        long ns;

        r->offset = clamp(time) - host_time(&ns);
}

/* ---- accesses ---- */

static uint8_t read_c(struct rtc *r)
{
        long ns;
        int64_t now = host_time(&ns);
        bool updated = now != r->last_flag && !(r->cmos[REG_B] & B_SET);

        r->last_flag = now;
        return updated ? C_UPDATE : 0;
}

static uint8_t read_a(struct rtc *r)
{
        long ns;
        bool uip;

        host_time(&ns);
        uip = ns >= SECOND_NS - UIP_NS && !(r->cmos[REG_B] & B_SET);
        return r->cmos[REG_A] | (uip ? A_UIP : 0);
}

static uint8_t read_byte(struct rtc *r)
{
        if (r->index == REG_A)
                return read_a(r);
        if (r->index == REG_C)
                return read_c(r);
        if (is_time(r->index) && !(r->cmos[REG_B] & B_SET))
                latch(r);
        return r->cmos[r->index];
}

static void write_b(struct rtc *r, uint8_t value)
{
        bool was = r->cmos[REG_B] & B_SET, set = value & B_SET;

        if (!was && set)
                latch(r);
        /* With the format that comes with it: a driver may set both at once. */
        r->cmos[REG_B] = value;
        if (was && !set)
                unlatch(r);
}

static void write_byte(struct rtc *r, uint8_t value)
{
        bool held = r->cmos[REG_B] & B_SET;

        switch (r->index) {
        case REG_A:
                r->cmos[REG_A] = value & (uint8_t)~A_UIP;
                break;
        case REG_B:
                write_b(r, value);
                break;
        case REG_C:
        case REG_D:
                break; /* read-only */
        default:
                if (is_time(r->index) && !held)
                        latch(r);
                r->cmos[r->index] = value;
                if (is_time(r->index) && !held)
                        unlatch(r);
                break;
        }
}

static void rtc_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        struct rtc *r = dev;

        memset(data, 0xff, len); /* the index cannot be read back */
        pthread_mutex_lock(&r->lock);
        for (unsigned i = 0; i < len; i++)
                if (offset + i == 1)
                        data[i] = read_byte(r);
        pthread_mutex_unlock(&r->lock);
}

static void rtc_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                      unsigned len)
{
        struct rtc *r = dev;

        pthread_mutex_lock(&r->lock);
        for (unsigned i = 0; i < len; i++) {
                if (offset + i == 0)
                        r->index = data[i] & (CMOS - 1);
                else if (offset + i == 1)
                        write_byte(r, data[i]);
        }
        pthread_mutex_unlock(&r->lock);
}

/* ---- life, and saved state ---- */

static int rtc_create(const struct device_env *env, const struct device_params *params,
                      unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                      unsigned *nwindows, struct err *err)
{
        struct rtc *r = calloc(1, sizeof *r);

        if (!r)
                return err_host(err, ENOMEM, "rtc: out of memory");
        r->env = env;
        r->cmos[REG_A] = A_RESET;
        r->cmos[REG_B] = B_24H;
        r->cmos[REG_D] = D_VALID;
        pthread_mutex_init(&r->lock, NULL);
        windows[0] = (struct device_window){DEVICE_PIO, LAYOUT_PORT_RTC, PORTS};
        *nwindows = 1;
        *dev = r;
        return 0;
}

static void rtc_destroy(void *dev)
{
        struct rtc *r = dev;

        if (!r)
                return;
        pthread_mutex_destroy(&r->lock);
        free(r);
}

static void rtc_save(void *dev, void *record)
{
        struct rtc *r = dev;
        struct rtc_record out = {0};

        pthread_mutex_lock(&r->lock);
        out.offset = r->offset;
        out.index = r->index;
        memcpy(out.cmos, r->cmos, sizeof out.cmos);
        pthread_mutex_unlock(&r->lock);
        for (unsigned i = 0; i < CMOS; i++)
                if (is_time(i) && !(out.cmos[REG_B] & B_SET))
                        out.cmos[i] = 0;
        memcpy(record, &out, sizeof out);
}

static int check_record(const struct rtc_record *r, struct err *err)
{
        static const uint8_t zero[sizeof r->reserved];

        /* the widest that two times in range can be apart */
        if (r->offset < TIME_MIN - TIME_MAX || r->offset > TIME_MAX - TIME_MIN)
                return err_input(err, "rtc: offset %lld is out of range", (long long)r->offset);
        if (r->index >= CMOS)
                return err_input(err, "rtc: index %u is out of range", r->index);
        if (r->cmos[REG_A] & A_UIP)
                return err_input(err, "rtc: UIP is set in register A 0x%x", r->cmos[REG_A]);
        if (r->cmos[REG_C])
                return err_input(err, "rtc: register C is 0x%x, not 0", r->cmos[REG_C]);
        if (r->cmos[REG_D] != D_VALID)
                return err_input(err, "rtc: register D is 0x%x, not 0x%x", r->cmos[REG_D], D_VALID);
        for (unsigned i = 0; i < CMOS; i++)
                if (is_time(i) && !(r->cmos[REG_B] & B_SET) && r->cmos[i])
                        return err_input(err, "rtc: time byte 0x%x is set, but not held", i);
        if (memcmp(r->reserved, zero, sizeof zero))
                return err_input(err, "rtc: reserved bytes are not zero");
        return 0;
}

static int rtc_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        struct rtc *r = dev;
        struct rtc_record in;
        int ret;

        memcpy(&in, record, sizeof in);
        ret = check_record(&in, err);
        if (ret)
                return ret;
        pthread_mutex_lock(&r->lock);
        r->offset = in.offset;
        r->index = in.index;
        r->last_flag = 0;
        memcpy(r->cmos, in.cmos, sizeof r->cmos);
        pthread_mutex_unlock(&r->lock);
        return 0;
}

const struct device_ops rtc_ops = {
        .name = "rtc",
        .record_kind = RECORD_DEV_RTC,
        .record_version = 1,
        .record_length = sizeof(struct rtc_record),
        .create = rtc_create,
        .destroy = rtc_destroy,
        .read = rtc_read,
        .write = rtc_write,
        .save = rtc_save,
        .restore = rtc_restore,
};
