/* SPDX-License-Identifier: Apache-2.0 */
/* The serial port as a driver sees it: what Linux's 8250 driver probes, interrupts, FIFO, flow
 * control, and what a clone inherits. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "device_fake.h"

enum {
        THR = 0,
        RBR = 0,
        IER = 1,
        IIR = 2,
        FCR = 2,
        LCR = 3,
        MCR = 4,
        LSR = 5,
        MSR = 6,
        SCR = 7,
};

static struct fake fx;

static int setup(void **state)
{
        fake_init(&fx, &serial_ops);
        return 0;
}

static int teardown(void **state)
{
        fake_fini(&fx);
        return 0;
}

static uint8_t in(unsigned reg)
{
        return (uint8_t)fake_read(&fx, 0, reg, 1);
}

static void out(unsigned reg, uint8_t value)
{
        fake_write(&fx, 0, reg, 1, value);
}

static bool line(void)
{
        return fx.line[LAYOUT_GSI_SERIAL];
}

static unsigned rises(void)
{
        return fx.rises[LAYOUT_GSI_SERIAL];
}

static void answers_at_com1(void **state)
{
        assert_int_equal(fx.nwindows, 1);
        assert_int_equal(fx.windows[0].space, DEVICE_PIO);
        assert_int_equal(fx.windows[0].base, 0x3f8);
        assert_int_equal(fx.windows[0].len, 8);
}

/* The order of autoconfig() in Linux's drivers/tty/serial/8250/8250_port.c. */
static void linux_finds_a_16550a(void **state)
{
        out(IER, 0);
        assert_int_equal(in(IER)&0x0f, 0);
        out(IER, 0x0f);
        assert_int_equal(in(IER)&0x0f, 0x0f);
        out(IER, 0);
        out(MCR, 0x1a); /* loop, OUT2, RTS: DCD and CTS come back */
        assert_int_equal(in(MSR)&0xf0, 0x90);
        out(MCR, 0);
        out(LCR, 0xbf);
        assert_true(in(2) != 0); /* no EFR there */
        out(LCR, 0);
        out(FCR, 1);
        assert_int_equal(in(IIR) >> 6, 3);
        out(FCR, 0);
        assert_int_equal(in(IIR) >> 6, 0);
        out(SCR, 0xa5);
        assert_int_equal(in(SCR), 0xa5);
        out(LCR, 0x80);
        out(0, 0x34);
        out(1, 0x12);
        assert_int_equal(in(0), 0x34);
        assert_int_equal(in(1), 0x12);
        out(LCR, 0x03);
        assert_int_equal(in(LCR), 0x03);
        assert_int_equal(in(IER), 0);
        assert_int_equal(in(LSR), 0x60);
        assert_int_equal(in(MSR)&0xf0, 0xb0);
        assert_string_equal(fake_output(&fx), "");
}

static void bytes_come_out_in_order(void **state)
{
        for (const char *p = "hello, world\n"; *p; p++) {
                assert_int_equal(in(LSR)&0x60, 0x60);
                out(THR, (uint8_t)*p);
        }
        assert_string_equal(fake_output(&fx), "hello, world\n");
}

static void thre_interrupts_as_drivers_expect(void **state)
{
        /* enabling it with an empty transmitter raises it; identifying it clears it */
        out(IER, 0x02);
        assert_true(line());
        assert_int_equal(in(IIR), 0x02);
        assert_false(line());
        assert_int_equal(in(IIR), 0x01);
        /* a byte sent: again */
        out(THR, 'x');
        assert_true(line());
        assert_int_equal(rises(), 2);
        /* written without having been identified: an edge-triggered controller needs a new edge */
        out(THR, 'y');
        assert_true(line());
        assert_int_equal(rises(), 3);
        out(IER, 0);
        assert_false(line());
        assert_int_equal(in(IIR), 0x01);
        out(IER, 0x02);
        assert_true(line());
        assert_string_equal(fake_output(&fx), "xy");
}

static void input_without_fifo_comes_byte_by_byte(void **state)
{
        out(IER, 0x01);
        fake_type(&fx, "abc");
        for (const char *p = "abc"; *p; p++) {
                assert_true(line());
                assert_int_equal(in(IIR), 0x04);
                assert_int_equal(in(LSR)&1, 1);
                assert_int_equal(in(RBR), *p);
                fake_settle(&fx);
        }
        assert_false(line());
        assert_int_equal(in(LSR)&1, 0);
        assert_int_equal(rises(), 3);
}

static void fifo_tells_trigger_from_timeout(void **state)
{
        out(FCR, 0x81); /* on, trigger at 8 */
        out(IER, 0x01);
        fake_type(&fx, "0123456");
        assert_true(line());
        assert_int_equal(in(IIR), 0xcc); /* below the trigger: character time-out */
        fake_type(&fx, "789");
        assert_int_equal(in(IIR), 0xc4);
        for (int i = 0; i < 10; i++) {
                assert_int_equal(in(IIR), i < 3 ? 0xc4 : 0xcc);
                assert_int_equal(in(RBR), '0' + i);
        }
        assert_int_equal(in(IIR), 0xc1);
        assert_false(line());
}

static void input_waits_until_there_is_room(void **state)
{
        char text[101] = {0};

        for (int i = 0; i < 100; i++)
                text[i] = (char)('A' + i % 26);
        out(FCR, 0x01);
        fake_type(&fx, text);
        for (int i = 0; i < 100; i++) {
                for (int wait = 0; wait < 50 && !(in(LSR)&1); wait++)
                        fake_settle(&fx);
                assert_int_equal(in(LSR), 0x61); /* no overrun, ever */
                assert_int_equal(in(RBR), text[i]);
        }
        assert_int_equal(in(LSR), 0x60);
}

/* With a virtio console the port still prints, and hears nothing. */
static void with_a_virtio_console_it_only_prints(void **state)
{
        struct fake f;
        struct err err;

        fake_machine(&f);
        f.params.virtio_console = true;
        f.ops = &serial_ops;
        assert_int_equal(f.ops->create(&f.env, &f.params, 0, &f.dev, f.windows, &f.nwindows, &err),
                         0);
        fake_write(&f, 0, THR, 1, 'x');
        assert_string_equal(fake_output(&f), "x");
        fake_type(&f, "abc");
        assert_int_equal(fake_read(&f, 0, LSR, 1), 0x60);
        fake_fini(&f);
}

static void clearing_the_fifo_makes_room(void **state)
{
        out(FCR, 0x01);
        fake_type(&fx, "0123456789abcdefGHI");
        out(FCR, 0x03); /* clear receiver */
        fake_settle(&fx);
        assert_int_equal(in(RBR), 'G');
        out(FCR, 0x00); /* turning FIFOs off empties them, too */
        assert_int_equal(in(LSR)&1, 0);
}

static void loopback_brings_bytes_and_lines_back(void **state)
{
        out(IER, 0x0d);
        out(MCR, 0x10);
        in(MSR);
        out(THR, 'x');
        assert_int_equal(in(IIR), 0x04);
        out(THR, 'y'); /* overruns the only byte */
        assert_int_equal(in(IIR), 0x06);
        assert_int_equal(in(LSR), 0x63);
        assert_int_equal(in(LSR), 0x61);
        assert_int_equal(in(RBR), 'y');
        assert_int_equal(in(IIR), 0x01);
        out(MCR, 0x1f);
        assert_int_equal(in(IIR), 0x00);
        assert_true(line());
        assert_int_equal(in(MSR), 0xfb); /* all lines; RI's delta is its trailing edge */
        assert_false(line());
        assert_int_equal(in(MSR), 0xf0);
        out(MCR, 0x1b);
        assert_int_equal(in(MSR), 0xb4);
        /* 16 bytes into the FIFO; the 17th is lost, the others stay */
        out(FCR, 0x01);
        for (int i = 0; i < 17; i++)
                out(THR, (uint8_t)('a' + i));
        assert_int_equal(in(LSR), 0x63);
        for (int i = 0; i < 16; i++)
                assert_int_equal(in(RBR), 'a' + i);
        assert_string_equal(fake_output(&fx), "");
        /* no input from outside meanwhile, and all of it afterwards */
        fake_type(&fx, "in");
        assert_int_equal(in(LSR)&1, 0);
        out(MCR, 0);
        fake_settle(&fx);
        assert_int_equal(in(RBR), 'i');
        assert_int_equal(in(RBR), 'n');
}

/* Nobody reads the console: first the pipe fills, then the buffer, then THRE stays clear. */
static unsigned fill(void)
{
        unsigned n = 0;

        while (n < 1000000 && (in(LSR)&0x20)) {
                out(THR, (uint8_t)(n++ % 251));
                if (n % 4096 == 0)
                        fake_settle(&fx);
        }
        return n;
}

static void a_full_console_is_a_busy_transmitter(void **state)
{
        static uint8_t buf[65536];
        unsigned n, total = 0;
        unsigned before;

        out(IER, 0x02);
        n = fill();
        assert_in_range(n, 65536, 999999);
        assert_int_equal(in(LSR), 0);
        assert_false(line());
        assert_int_equal(in(IIR), 0x01);
        out(THR, 0xff); /* a driver that does not look loses it */
        before = rises();
        while (total < n) {
                ssize_t got = read(fx.out, buf, sizeof buf);

                for (ssize_t i = 0; i < got; i++, total++)
                        assert_int_equal(buf[i], total % 251);
                fake_settle(&fx);
        }
        assert_true(line()); /* the interrupt that the driver waits for */
        assert_int_equal(rises(), before + 1);
        assert_int_equal(in(LSR), 0x60);
}

static void wide_accesses_are_bytes_in_a_row(void **state)
{
        fake_write(&fx, 0, LCR, 2, 0x0b03); /* LCR and MCR */
        assert_int_equal(in(LCR), 0x03);
        assert_int_equal(in(MCR), 0x0b);
        assert_int_equal(fake_read(&fx, 0, LCR, 4), 0xb0600b03);
        assert_int_equal(fake_read(&fx, 0, SCR, 4), 0xffffff00);
        fake_write(&fx, 0, SCR, 8, 0x1122334455667788);
        assert_int_equal(in(SCR), 0x88);
}

/* ---- saved state ---- */

static void drive_to_known_state(void)
{
        out(LCR, 0x80);
        out(0, 0x01);
        out(1, 0x00);
        out(LCR, 0x03);
        out(FCR, 0x81);
        out(SCR, 0x42);
        out(MCR, 0x0b);
        fake_type(&fx, "typed");
        assert_int_equal(in(RBR), 't');
        out(IER, 0x07);
        out(THR, 'x');
}

static void state_is_saved_and_restored(void **state)
{
        drive_to_known_state();
        fake_check_record(&fx);
}

/* The clone reads the rest of what was typed, sees its interrupt, and prints nothing again. */
static void a_clone_goes_on_where_the_parent_was(void **state)
{
        struct fake parent, clone;
        struct err err;
        uint8_t record[32];

        drive_to_known_state();
        parent = fx;
        serial_ops.save(parent.dev, record);
        fake_init(&clone, &serial_ops);
        assert_int_equal(serial_ops.restore(clone.dev, record, 1, &err), 0);
        assert_true(clone.line[LAYOUT_GSI_SERIAL]);
        assert_int_equal(fake_read(&clone, 0, IIR, 1), 0xcc);
        for (const char *p = "yped"; *p; p++)
                assert_int_equal(fake_read(&clone, 0, RBR, 1), *p);
        assert_int_equal(fake_read(&clone, 0, IIR, 1), 0xc2);
        assert_int_equal(fake_read(&clone, 0, IIR, 1), 0xc1);
        assert_false(clone.line[LAYOUT_GSI_SERIAL]);
        assert_string_equal(fake_output(&clone), "");
        fake_type(&clone, "mine");
        assert_int_equal(fake_read(&clone, 0, RBR, 1), 'm');
        assert_string_equal(fake_output(&parent), "x");
        fake_fini(&clone);
}

/* A parent that waited for its full console: the clone's is empty, so its driver is told. */
static void a_clone_of_a_blocked_parent_can_send(void **state)
{
        struct fake clone;
        struct err err;
        uint8_t record[32];

        out(IER, 0x02);
        fill();
        assert_false(line());
        serial_ops.save(fx.dev, record);
        fake_init(&clone, &serial_ops);
        assert_int_equal(serial_ops.restore(clone.dev, record, 1, &err), 0);
        assert_true(clone.line[LAYOUT_GSI_SERIAL]);
        assert_int_equal(fake_read(&clone, 0, LSR, 1), 0x60);
        fake_fini(&clone);
}

/* The fork point is a text on the console: the device is saved while its write is under way. */
static void save_inside(void *record)
{
        serial_ops.save(fx.dev, record);
}

static void can_be_saved_while_output_matches(void **state)
{
        uint8_t record[32] = {0};
        struct fake clone;
        struct err err;

        out(IER, 0x02);
        assert_int_equal(in(IIR), 0x02);
        assert_int_equal(
                chardev_watch_output(fx.env.console, "ok", CHARDEV_ONCE, save_inside, record), 0);
        out(THR, 'o');
        assert_int_equal(in(IIR), 0x02);
        out(THR, 'k');
        assert_int_equal(in(IIR), 0x02);
        fake_init(&clone, &serial_ops);
        assert_int_equal(serial_ops.restore(clone.dev, record, 1, &err), 0);
        assert_true(clone.line[LAYOUT_GSI_SERIAL]); /* or its driver would wait for ever */
        assert_int_equal(fake_read(&clone, 0, IIR, 1), 0x02);
        fake_fini(&clone);
}

static void bad_state_is_refused_by_field(void **state)
{
        drive_to_known_state();
        fake_expect_refused(&fx, 0, 0x17, "serial: reserved bits in ier 0x17");
        fake_expect_refused(&fx, 1, 0x03, "serial: impossible bits in fcr 0x3");
        fake_expect_refused(&fx, 1, 0x80, "serial: impossible bits in fcr 0x80");
        fake_expect_refused(&fx, 3, 0x20, "serial: reserved bits in mcr 0x20");
        fake_expect_refused(&fx, 4, 0x10, "serial: reserved bits in deltas 0x10");
        fake_expect_refused(&fx, 8, 2, "serial: overrun is 2, not 0 or 1");
        fake_expect_refused(&fx, 9, 0xff, "serial: thre_owed is 255, not 0 or 1");
        fake_expect_refused(&fx, 10, 17, "serial: count of received bytes 17 is too large");
        fake_expect_refused(&fx, 10, 3, "serial: received bytes beyond their count");
        fake_expect_refused(&fx, 11, 1, "serial: reserved bytes are not zero");
        fake_expect_refused(&fx, 15, 1, "serial: reserved bytes are not zero");
        out(FCR, 0);
        fake_expect_refused(&fx, 10, 2, "serial: count of received bytes 2 is too large");
}

/* ---- threads: two vCPUs and the loop ---- */

#define STREAM 20000

static atomic_bool done;

static void *run_loop(void *data)
{
        struct fake *f = data;

        assert_int_equal(loop_run(f->env.loop), 0);
        return NULL;
}

/* A driver that sends by polling and receives by what the interrupt line says. */
static void *driver(void *data)
{
        unsigned sent = 0, received = 0;

        while (sent < STREAM || received < STREAM) {
                if (sent < STREAM && (in(LSR)&0x20))
                        out(THR, (uint8_t)(sent++ % 251));
                while (line() && (in(IIR)&0x06) == 0x04) {
                        assert_int_equal(in(RBR), received % 241);
                        received++;
                }
        }
        atomic_store(&done, true);
        return NULL;
}

static void *bystander(void *data)
{
        while (!atomic_load(&done)) {
                out(SCR, in(SCR) + 1);
                in(LSR);
                in(MSR);
                sched_yield();
        }
        return NULL;
}

static void *outside(void *data)
{
        unsigned got = 0, put = 0;
        uint8_t buf[512];

        fcntl(fx.in, F_SETFL, O_NONBLOCK);
        while (got < STREAM || put < STREAM) {
                ssize_t n = read(fx.out, buf, sizeof buf);

                for (ssize_t i = 0; i < n; i++, got++)
                        assert_int_equal(buf[i], got % 251);
                n = 0;
                while (n < 100 && put + (unsigned)n < STREAM) {
                        buf[n] = (uint8_t)((put + (unsigned)n) % 241);
                        n++;
                }
                n = n ? write(fx.in, buf, (size_t)n) : 0;
                if (n > 0)
                        put += (unsigned)n;
                else
                        sched_yield();
        }
        return NULL;
}

static void no_byte_is_lost_between_threads(void **state)
{
        pthread_t t[4];

        atomic_store(&done, false);
        out(FCR, 0x81);
        out(IER, 0x01);
        assert_int_equal(pthread_create(&t[0], NULL, run_loop, &fx), 0);
        assert_int_equal(pthread_create(&t[1], NULL, driver, NULL), 0);
        assert_int_equal(pthread_create(&t[2], NULL, bystander, NULL), 0);
        assert_int_equal(pthread_create(&t[3], NULL, outside, NULL), 0);
        for (int i = 1; i < 4; i++)
                pthread_join(t[i], NULL);
        loop_stop(fx.env.loop);
        pthread_join(t[0], NULL);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(answers_at_com1),
                CASE(linux_finds_a_16550a),
                CASE(bytes_come_out_in_order),
                CASE(thre_interrupts_as_drivers_expect),
                CASE(input_without_fifo_comes_byte_by_byte),
                CASE(fifo_tells_trigger_from_timeout),
                CASE(input_waits_until_there_is_room),
                cmocka_unit_test(with_a_virtio_console_it_only_prints),
                CASE(clearing_the_fifo_makes_room),
                CASE(loopback_brings_bytes_and_lines_back),
                CASE(a_full_console_is_a_busy_transmitter),
                CASE(wide_accesses_are_bytes_in_a_row),
                CASE(state_is_saved_and_restored),
                CASE(a_clone_goes_on_where_the_parent_was),
                CASE(a_clone_of_a_blocked_parent_can_send),
                CASE(can_be_saved_while_output_matches),
                CASE(bad_state_is_refused_by_field),
                CASE(no_byte_is_lost_between_threads),
        };

        return cmocka_run_group_tests_name("serial", tests, NULL, NULL);
}
