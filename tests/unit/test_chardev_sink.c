/* SPDX-License-Identifier: Apache-2.0 */
/* A character backend with a sink instead of descriptors: output goes there at once and never
 * stops, input comes as the device takes it, and a text can be watched for again and again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "io/chardev.h"

static struct loop *loop;
static struct chardev *cd;

static struct sink {
        char out[256];
        size_t nout, total;
        const char *in;
        unsigned discards;
} sink;

static struct device {
        size_t room;
        char got[64];
        size_t len;
        unsigned output_ready;
} device;

static void output(void *data, const void *bytes, size_t len)
{
        struct sink *s = data;

        s->total += len;
        for (size_t i = 0; i < len; i++)
                s->out[s->nout++ % sizeof s->out] = ((const char *)bytes)[i];
}

static size_t input(void *data, void *buf, size_t len)
{
        struct sink *s = data;
        size_t n = strlen(s->in);

        n = n < len ? n : len;
        memcpy(buf, s->in, n);
        s->in += n;
        return n;
}

static void discard(void *data)
{
        struct sink *s = data;

        s->discards++;
        s->in = "";
        s->nout = 0;
}

static size_t room(void *dev)
{
        return ((struct device *)dev)->room;
}

static void take(void *dev, const void *data, size_t len)
{
        struct device *d = dev;

        assert_true(len <= d->room);
        memcpy(d->got + d->len, data, len);
        d->len += len;
        d->room -= len;
}

static void output_ready(void *dev)
{
        ((struct device *)dev)->output_ready++;
}

static const struct chardev_ops ops = {room, take, output_ready};

static int setup(void **state)
{
        const struct chardev_sink functions = {output, input, discard, &sink};

        sink = (struct sink){.in = ""};
        device = (struct device){0};
        return loop_create(true, &loop) || chardev_create_sink(loop, &functions, &cd);
}

static int teardown(void **state)
{
        chardev_destroy(cd, 0);
        loop_destroy(loop);
        return 0;
}

static void step(void)
{
        for (int i = 0; i < 3; i++)
                assert_int_equal(loop_step(loop, 0), 0);
}

static void output_is_there_at_once(void **state)
{
        assert_int_equal(chardev_write(cd, "hello", 5), 5);
        assert_int_equal(sink.nout, 5);
        assert_memory_equal(sink.out, "hello", 5);
        assert_true(chardev_drained(cd));
}

/* Nobody runs the loop, and a descriptor's ring would have been full for long. */
static void output_never_stops(void **state)
{
        char block[4096];

        memset(block, 'x', sizeof block);
        for (int i = 0; i < 1000; i++) {
                assert_int_equal(chardev_write(cd, block, sizeof block), sizeof block);
                assert_true(chardev_space(cd) > 0);
        }
        assert_int_equal(sink.total, 1000 * sizeof block);
}

static void input_comes_as_the_device_takes_it(void **state)
{
        chardev_attach(cd, &ops, &device);
        step();
        assert_int_equal(device.len, 0);
        device.room = 3;
        sink.in = "abcdefgh";
        chardev_feed(cd);
        assert_int_equal(device.len, 3);
        step();
        assert_int_equal(device.len, 3);
        device.room = 2;
        chardev_input_ready(cd); /* as its guest has made room */
        step();
        assert_int_equal(device.len, 5);
        device.room = 20;
        chardev_input_ready(cd);
        step();
        assert_int_equal(device.len, 8);
        assert_memory_equal(device.got, "abcdefgh", 8);
}

/* A sink without input is not at its end. */
static void input_may_pause(void **state)
{
        device.room = 20;
        chardev_attach(cd, &ops, &device);
        step();
        sink.in = "a";
        chardev_feed(cd);
        sink.in = "b";
        chardev_feed(cd);
        assert_int_equal(device.len, 2);
        assert_memory_equal(device.got, "ab", 2);
}

static void input_waits_for_a_device(void **state)
{
        sink.in = "early";
        chardev_feed(cd);
        device.room = 20;
        chardev_attach(cd, &ops, &device);
        assert_int_equal(device.len, 0); /* it may still be restored */
        step();
        assert_int_equal(device.len, 5);
}

static void discard_is_the_sinks(void **state)
{
        chardev_write(cd, "old", 3);
        sink.in = "typed";
        chardev_discard(cd);
        assert_int_equal(sink.discards, 1);
        device.room = 20;
        chardev_attach(cd, &ops, &device);
        step();
        assert_int_equal(device.len, 0);
}

static void count(void *data)
{
        unsigned *hits = data;

        (*hits)++;
}

/* "aba" is three times in "abababa"; once, it is once. */
static void text_is_seen_each_time(void **state)
{
        unsigned hits = 0;

        assert_int_equal(chardev_watch_output(cd, "aba", CHARDEV_ALWAYS, count, &hits), 0);
        assert_int_equal(chardev_write(cd, "abababa", 7), 7);
        assert_int_equal(hits, 3);
        for (const char *p = "..aba"; *p; p++)
                chardev_write(cd, p, 1);
        assert_int_equal(hits, 4);
        assert_int_equal(chardev_watch_output(cd, "aba", CHARDEV_ONCE, count, &hits), 0);
        chardev_write(cd, "abababa", 7);
        assert_int_equal(hits, 5);
        assert_int_equal(chardev_watch_output(cd, NULL, CHARDEV_ALWAYS, count, &hits), 0);
        chardev_write(cd, "aba", 3);
        assert_int_equal(hits, 5);
        assert_int_equal(sink.total, 7 + 5 + 7 + 3); /* nothing of it was held back */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(output_is_there_at_once, setup, teardown),
                cmocka_unit_test_setup_teardown(output_never_stops, setup, teardown),
                cmocka_unit_test_setup_teardown(input_comes_as_the_device_takes_it, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(input_may_pause, setup, teardown),
                cmocka_unit_test_setup_teardown(input_waits_for_a_device, setup, teardown),
                cmocka_unit_test_setup_teardown(discard_is_the_sinks, setup, teardown),
                cmocka_unit_test_setup_teardown(text_is_seen_each_time, setup, teardown),
        };

        return cmocka_run_group_tests_name("chardev_sink", tests, NULL, NULL);
}
