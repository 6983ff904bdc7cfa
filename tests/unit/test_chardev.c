/* SPDX-License-Identifier: Apache-2.0 */
/* The character backend: nothing lost, nothing blocks, nobody is forgotten. Runs with
 * ThreadSanitizer, too. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/chardev.h"

#define SIZE 65536 /* of the output buffer */

static struct loop *loop;

static int setup(void **state)
{
        return loop_create(true, &loop);
}

static int setup_epoll(void **state)
{
        return loop_create(false, &loop);
}

static int teardown(void **state)
{
        loop_destroy(loop);
        return 0;
}

static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

static void settle(void)
{
        for (int i = 0; i < 40; i++)
                assert_int_equal(loop_step(loop, 1000000), 0);
}

/* Nothing happens, so that a step takes its time: no watch is left that is always ready. (It may
 * end early now and then: the kernel tears down the rings of earlier tests with something like a
 * signal.)
 */
static void expect_quiet(void)
{
        uint64_t start = now_ms();
        int steps = 0;

        while (now_ms() - start < 50) {
                assert_int_equal(loop_step(loop, 50000000), 0);
                assert_true(++steps < 10);
        }
}

/* ---- a device ---- */

struct device {
        pthread_mutex_t lock;
        size_t room; /* bytes it would take */
        size_t len;  /* bytes it has */
        char got[70000];
        atomic_int ready; /* calls of output_ready */
};

static size_t input_room(void *dev)
{
        struct device *d = dev;
        size_t room;

        pthread_mutex_lock(&d->lock);
        room = d->room;
        pthread_mutex_unlock(&d->lock);
        return room;
}

static void input(void *dev, const void *data, size_t len)
{
        struct device *d = dev;

        pthread_mutex_lock(&d->lock);
        assert_in_range(len, 1, d->room);
        assert_in_range(d->len + len, 1, sizeof d->got);
        memcpy(d->got + d->len, data, len);
        d->len += len;
        d->room -= len;
        pthread_mutex_unlock(&d->lock);
}

static void output_ready(void *dev)
{
        struct device *d = dev;

        atomic_fetch_add(&d->ready, 1);
}

static const struct chardev_ops ops = {
        .input_room = input_room,
        .input = input,
        .output_ready = output_ready,
};

static struct device *device_new(size_t room)
{
        struct device *d = calloc(1, sizeof *d);

        assert_non_null(d);
        pthread_mutex_init(&d->lock, NULL);
        d->room = room;
        return d;
}

static void make_room(struct device *d, size_t room)
{
        pthread_mutex_lock(&d->lock);
        d->room += room;
        pthread_mutex_unlock(&d->lock);
}

/* ---- output ---- */

static struct chardev *to_pipe(int *end, int flags)
{
        struct chardev *cd;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(fcntl(p[0], F_SETFL, flags), 0);
        assert_int_equal(chardev_create(loop, -1, p[1], &cd), 0);
        *end = p[0];
        return cd;
}

static void output_goes_out_without_further_calls(void **state)
{
        char buf[16] = {0};
        int end;
        struct chardev *cd = to_pipe(&end, 0);

        assert_true(chardev_drained(cd));
        assert_int_equal(chardev_write(cd, "hello", 5), 5);
        assert_false(chardev_drained(cd));
        assert_int_equal(loop_step(loop, 1000000000), 0);
        assert_int_equal(read(end, buf, sizeof buf), 5);
        assert_string_equal(buf, "hello");
        assert_true(chardev_drained(cd));
        chardev_destroy(cd, 0);
        close(end);
}

static void a_full_buffer_is_told_and_so_is_its_end(void **state)
{
        static char buf[SIZE];
        size_t total = 0, got = 0, n;
        struct device *d = device_new(0);
        uint64_t start = now_ms();
        int end;
        struct chardev *cd = to_pipe(&end, O_NONBLOCK);

        chardev_attach(cd, &ops, d);
        for (size_t i = 0; i < sizeof buf; i++)
                buf[i] = (char)i;
        do { /* the pipe and the buffer, without the loop and with it */
                n = chardev_write(cd, buf + total % 256, 256);
                total += n;
                if (n < 256)
                        settle();
        } while (n > 0 || chardev_space(cd) > 0);
        assert_in_range(total, 2 * SIZE, 4 * SIZE);
        assert_true(now_ms() - start < 10000); /* nothing waited for a reader */
        assert_int_equal(chardev_write(cd, "x", 1), 0);
        d->ready = 0;
        settle();
        assert_int_equal(d->ready, 0);
        while (got < total) {
                ssize_t r = read(end, buf, sizeof buf);

                for (ssize_t i = 0; i < r; i++, got++)
                        assert_int_equal((uint8_t)buf[i], (uint8_t)got);
                settle();
        }
        assert_int_equal(d->ready, 1);
        assert_int_equal(chardev_space(cd), SIZE);
        assert_true(chardev_drained(cd));
        expect_quiet();
        chardev_destroy(cd, 0);
        close(end);
        free(d);
}

static void without_a_descriptor_output_is_swallowed(void **state)
{
        static char big[3 * SIZE];
        struct chardev *cd;

        assert_int_equal(chardev_create(loop, -1, -1, &cd), 0);
        assert_int_equal(chardev_write(cd, big, sizeof big), sizeof big);
        assert_int_equal(chardev_space(cd), SIZE);
        assert_true(chardev_drained(cd));
        chardev_destroy(cd, 1000);
}

static void a_file_is_written_at_its_end(void **state)
{
        char buf[64] = {0};
        int fd = memfd_create("out", MFD_CLOEXEC), keep = dup(fd);
        struct chardev *cd;

        assert_int_equal(write(fd, "before ", 7), 7);
        assert_int_equal(chardev_create(loop, -1, fd, &cd), 0);
        chardev_write(cd, "and ", 4);
        settle();
        chardev_write(cd, "after", 5);
        chardev_destroy(cd, 0);
        assert_int_equal(pread(keep, buf, sizeof buf, 0), 16);
        assert_string_equal(buf, "before and after");
        close(keep);
}

/* SIGPIPE has its default action here: it would end the test. */
static void a_reader_that_goes_away_is_survived(void **state)
{
        static char buf[SIZE];
        struct device *d = device_new(0);
        sigset_t pending;
        int end;
        struct chardev *cd = to_pipe(&end, O_NONBLOCK);

        signal(SIGPIPE, SIG_DFL);
        chardev_attach(cd, &ops, d);
        while (chardev_write(cd, buf, sizeof buf) > 0)
                settle();
        assert_int_equal(chardev_space(cd), 0);
        d->ready = 0;
        close(end);
        settle();
        assert_int_equal(d->ready, 1);
        assert_int_equal(chardev_write(cd, buf, sizeof buf), sizeof buf);
        assert_true(chardev_drained(cd));
        settle();
        sigpending(&pending);
        assert_false(sigismember(&pending, SIGPIPE));
        expect_quiet();
        chardev_destroy(cd, 1000);
        free(d);
}

static void destroy_lingers_as_long_as_it_may(void **state)
{
        static char buf[4 * SIZE];
        uint64_t start;
        int end;
        struct chardev *cd = to_pipe(&end, O_NONBLOCK);

        chardev_write(cd, "last words", 10);
        chardev_destroy(cd, 0); /* what can be written at once is */
        assert_int_equal(read(end, buf, sizeof buf), 10);
        assert_int_equal(read(end, buf, sizeof buf), 0);
        close(end);

        cd = to_pipe(&end, O_NONBLOCK);
        while (chardev_write(cd, buf, SIZE) > 0)
                settle();
        start = now_ms();
        chardev_destroy(cd, 50);
        assert_in_range(now_ms() - start, 49, 5000);
        close(end);
}

/* ---- input ---- */

static void input_comes_as_the_device_takes_it(void **state)
{
        struct device *d = device_new(3);
        struct chardev *cd;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(chardev_create(loop, p[0], -1, &cd), 0);
        assert_int_equal(write(p[1], "0123456789", 10), 10);
        settle();
        assert_int_equal(d->len, 0); /* nobody there yet */
        chardev_attach(cd, &ops, d);
        settle();
        assert_int_equal(d->len, 3);
        make_room(d, 4);
        chardev_input_ready(cd);
        settle();
        assert_int_equal(d->len, 7);
        chardev_input_ready(cd); /* without having room: fine */
        settle();
        chardev_detach(cd, d);
        make_room(d, 4);
        chardev_input_ready(cd);
        settle();
        assert_int_equal(d->len, 7);
        chardev_attach(cd, &ops, d);
        settle();
        assert_memory_equal(d->got, "0123456789", 10);
        assert_int_equal(write(p[1], "ab", 2), 2);
        close(p[1]); /* the end, while there is no room for all */
        settle();
        assert_int_equal(d->len, 11);
        make_room(d, 4);
        chardev_input_ready(cd);
        settle();
        assert_memory_equal(d->got, "0123456789ab", 12);
        assert_int_equal(d->len, 12);
        chardev_destroy(cd, 0);
        free(d);
}

/* A driver that makes room and says so just after the loop's thread has seen none, and just before
 * that has been noted. */
static struct chardev *racing;

static size_t racing_room(void *dev)
{
        size_t room = input_room(dev);

        if (room == 0 && racing) {
                make_room(dev, 5);
                chardev_input_ready(racing);
        }
        return room;
}

static void room_that_comes_meanwhile_is_not_missed(void **state)
{
        static const struct chardev_ops racing_ops = {
                .input_room = racing_room,
                .input = input,
        };
        struct device *d = device_new(0);
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(chardev_create(loop, p[0], -1, &racing), 0);
        assert_int_equal(write(p[1], "0123456789", 10), 10);
        chardev_attach(racing, &racing_ops, d);
        settle();
        assert_int_equal(d->len, 10);
        chardev_destroy(racing, 0);
        racing = NULL;
        close(p[1]);
        free(d);
}

static void an_ended_input_does_not_spin(void **state)
{
        struct device *d = device_new(0);
        struct chardev *cd;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(chardev_create(loop, p[0], -1, &cd), 0);
        chardev_attach(cd, &ops, d);
        close(p[1]); /* a hang-up that is there all the time, and no room */
        settle();
        expect_quiet();
        make_room(d, 1);
        chardev_input_ready(cd);
        settle();
        expect_quiet();
        chardev_destroy(cd, 0);
        free(d);
}

static void input_from_a_file_is_read_to_its_end(void **state)
{
        struct device *d = device_new(10);
        int fd = memfd_create("in", MFD_CLOEXEC);
        struct chardev *cd;

        assert_int_equal(ftruncate(fd, 50000), 0);
        assert_int_equal(pwrite(fd, "begin", 5, 0), 5);
        assert_int_equal(pwrite(fd, "end", 3, 49997), 3);
        assert_int_equal(chardev_create(loop, fd, -1, &cd), 0);
        chardev_attach(cd, &ops, d);
        assert_int_equal(d->len, 0); /* from the loop, not at once */
        settle();
        assert_int_equal(d->len, 10);
        make_room(d, 60000);
        chardev_input_ready(cd);
        settle();
        assert_int_equal(d->len, 50000);
        assert_memory_equal(d->got, "begin", 5);
        assert_memory_equal(d->got + 49997, "end", 3);
        chardev_destroy(cd, 0);
        free(d);
}

/* ---- two devices ---- */

static const struct chardev_ops output_ops = {
        .output_ready = output_ready,
};

static void two_devices_share_output_and_one_gets_the_input(void **state)
{
        static char buf[SIZE];
        struct device *serial = device_new(10), *console = device_new(10);
        int in[2], out[2];
        struct chardev *cd;
        char got[16] = {0};

        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(chardev_create(loop, in[0], out[1], &cd), 0);
        chardev_attach(cd, &output_ops, serial);
        assert_int_equal(write(in[1], "abc", 3), 3);
        settle(); /* nobody takes input: nothing is read, nothing spins */
        expect_quiet();
        chardev_attach(cd, &ops, console);
        settle();
        assert_int_equal(console->len, 3);
        assert_memory_equal(console->got, "abc", 3);
        assert_int_equal(serial->len, 0);

        while (chardev_write(cd, buf, SIZE) > 0) /* full: both hear when it is not any more */
                settle();
        serial->ready = console->ready = 0;
        while (read(out[0], buf, sizeof buf) > 0)
                settle();
        assert_int_equal(serial->ready, 1);
        assert_int_equal(console->ready, 1);

        chardev_detach(cd, serial); /* the other one goes on */
        chardev_detach(cd, serial);
        assert_int_equal(write(in[1], "def", 3), 3);
        settle();
        assert_int_equal(console->len, 6);
        chardev_attach(cd, &output_ops, serial); /* the place is free again */
        chardev_detach(cd, console);
        assert_int_equal(write(in[1], "ghi", 3), 3);
        settle();
        assert_int_equal(console->len, 6);
        assert_int_equal(chardev_write(cd, "end", 3), 3);
        settle();
        assert_int_equal(read(out[0], got, sizeof got), 3);
        chardev_destroy(cd, 0);
        close(in[1]);
        close(out[0]);
        free(serial);
        free(console);
}

/* ---- other kinds of descriptor ---- */

static void one_socket_serves_both_ways(void **state)
{
        struct device *d = device_new(100);
        struct chardev *cd;
        char buf[16] = {0};
        int sv[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
        assert_int_equal(chardev_create(loop, sv[0], sv[0], &cd), 0);
        chardev_attach(cd, &ops, d);
        chardev_write(cd, "out", 3);
        assert_int_equal(write(sv[1], "in", 2), 2);
        settle();
        assert_int_equal(d->len, 2);
        assert_int_equal(read(sv[1], buf, sizeof buf), 3);
        assert_string_equal(buf, "out");
        chardev_destroy(cd, 0);
        assert_int_equal(fcntl(sv[0], F_GETFD), -1);
        assert_int_equal(read(sv[1], buf, sizeof buf), 0); /* no copy of it was left open */
        close(sv[1]);
        free(d);
}

/* Nobody reads: neither the loop nor the writer waits, and the shell's terminal stays as it was. */
static void terminal(int slave_or_master)
{
        static char buf[SIZE];
        struct device *d = device_new(100);
        uint64_t start = now_ms();
        struct termios raw;
        struct chardev *cd;
        int fd[2], keep;

        assert_int_equal(openpty(&fd[0], &fd[1], NULL, NULL, NULL), 0);
        assert_int_equal(tcgetattr(fd[1], &raw), 0);
        cfmakeraw(&raw);
        assert_int_equal(tcsetattr(fd[1], TCSANOW, &raw), 0);
        memset(buf, 'x', sizeof buf);
        keep = dup(fd[slave_or_master]);
        assert_int_equal(chardev_create(loop, fd[slave_or_master], fd[slave_or_master], &cd), 0);
        chardev_attach(cd, &ops, d);
        assert_int_equal(write(fd[!slave_or_master], "typed\n", 6), 6);
        settle();
        assert_true(d->len >= 6);
        assert_memory_equal(d->got, "typed", 5);
        while (chardev_write(cd, buf, sizeof buf) > 0)
                settle();
        assert_int_equal(chardev_space(cd), 0);
        assert_true(now_ms() - start < 10000);
        assert_int_equal(fcntl(keep, F_GETFL) & O_NONBLOCK, 0);
        chardev_destroy(cd, 10);
        close(fd[!slave_or_master]);
        close(keep);
        free(d);
}

static void a_terminal_is_not_waited_for_nor_changed(void **state)
{
        terminal(1);
}

/* A master cannot be opened anew: this is the way of those that poll before each call. */
static void nor_is_a_terminals_master(void **state)
{
        terminal(0);
}

static void descriptors_that_do_not_exist_are_refused(void **state)
{
        struct chardev *cd = NULL;
        int fd = memfd_create("out", MFD_CLOEXEC);

        assert_int_equal(chardev_create(loop, 9999, fd, &cd), -EBADF);
        assert_int_equal(chardev_create(loop, fd, 9999, &cd), -EBADF);
        assert_null(cd);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC); /* still the caller's */
        close(fd);
        chardev_destroy(NULL, 0);
}

/* ---- threads ---- */

#define STREAM 300000

struct shared {
        struct chardev *cd;
        struct device *d;
        int out, in;
        atomic_int hits;
};

static void *run_loop(void *data)
{
        assert_int_equal(loop_run(loop), 0);
        return NULL;
}

static void *writer(void *data)
{
        struct shared *s = data;
        uint8_t buf[100];

        for (unsigned at = 0; at < STREAM;) {
                size_t n = 0;

                for (; n < 1 + at % 97 && at + n < STREAM; n++)
                        buf[n] = (uint8_t)((at + n) % 251);
                n = chardev_write(s->cd, buf, n);
                at += (unsigned)n;
                if (n == 0)
                        sched_yield();
                chardev_space(s->cd);
        }
        return NULL;
}

static void *reader(void *data)
{
        struct shared *s = data;
        static uint8_t buf[4096];

        for (unsigned at = 0; at < STREAM;) {
                ssize_t n = read(s->out, buf, 1 + at % sizeof buf);

                assert_true(n > 0);
                for (ssize_t i = 0; i < n; i++, at++)
                        assert_int_equal(buf[i], at % 251);
        }
        return NULL;
}

static void *typist(void *data)
{
        struct shared *s = data;
        char buf[64];

        memset(buf, 't', sizeof buf);
        for (unsigned at = 0; at < 60000; at += 60)
                assert_int_equal(write(s->in, buf, 60), 60);
        return NULL;
}

/* Makes room for a few bytes when there is none, and says so once, as a driver does: should that be
 * missed, no more input comes. */
static void *taker(void *data)
{
        struct shared *s = data;
        size_t len = 0;

        while (len < 60000) {
                bool made = false;

                pthread_mutex_lock(&s->d->lock);
                len = s->d->len;
                if (s->d->room == 0) {
                        s->d->room = 1 + len % 3;
                        made = true;
                }
                pthread_mutex_unlock(&s->d->lock);
                if (made)
                        chardev_input_ready(s->cd);
                for (volatile size_t spin = 0; spin < len % 101; spin++)
                        ;
        }
        return NULL;
}

static void on_hit_thread(void *data)
{
        struct shared *s = data;

        atomic_fetch_add(&s->hits, 1);
}

static void nothing_is_lost_between_threads(void **state)
{
        struct shared s = {.d = device_new(0)};
        void *(*fns[])(void *) = {run_loop, writer, reader, typist, taker};
        pthread_t t[5];
        int in[2], out[2];

        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        assert_int_equal(chardev_create(loop, in[0], out[1], &s.cd), 0);
        assert_int_equal(
                chardev_watch_output(s.cd, "\xf8\xf9\xfa", CHARDEV_ONCE, on_hit_thread, &s), 0);
        s.in = in[1];
        s.out = out[0];
        chardev_attach(s.cd, &ops, s.d);
        for (int i = 0; i < 5; i++)
                assert_int_equal(pthread_create(&t[i], NULL, fns[i], &s), 0);
        for (int i = 1; i < 5; i++)
                pthread_join(t[i], NULL);
        loop_stop(loop);
        pthread_join(t[0], NULL);
        assert_true(chardev_drained(s.cd));
        assert_int_equal(s.hits, 1);
        assert_int_equal(s.d->len, 60000);
        chardev_destroy(s.cd, 0);
        close(in[1]);
        close(out[0]);
        free(s.d);
}

/* One byte, then silence until it has come out: a kick that is lost hangs here. */
static void *echo(void *data)
{
        struct shared *s = data;
        char c;

        for (int i = 0; i < 5000; i++) {
                assert_int_equal(chardev_write(s->cd, "x", 1), 1);
                assert_int_equal(read(s->out, &c, 1), 1);
        }
        loop_stop(loop);
        return NULL;
}

static void each_byte_is_pushed_out(void **state)
{
        struct shared s = {0};
        pthread_t t;

        s.cd = to_pipe(&s.out, 0);
        assert_int_equal(pthread_create(&t, NULL, echo, &s), 0);
        assert_int_equal(loop_run(loop), 0);
        pthread_join(t, NULL);
        chardev_destroy(s.cd, 0);
        close(s.out);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define EPOLL(f)                                                                                   \
        {                                                                                          \
#f " (epoll)", f, setup_epoll, teardown, NULL                                      \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(output_goes_out_without_further_calls),
                CASE(a_full_buffer_is_told_and_so_is_its_end),
                EPOLL(a_full_buffer_is_told_and_so_is_its_end),
                CASE(without_a_descriptor_output_is_swallowed),
                CASE(a_file_is_written_at_its_end),
                CASE(a_reader_that_goes_away_is_survived),
                EPOLL(a_reader_that_goes_away_is_survived),
                CASE(destroy_lingers_as_long_as_it_may),
                CASE(input_comes_as_the_device_takes_it),
                EPOLL(input_comes_as_the_device_takes_it),
                CASE(room_that_comes_meanwhile_is_not_missed),
                CASE(an_ended_input_does_not_spin),
                EPOLL(an_ended_input_does_not_spin),
                CASE(input_from_a_file_is_read_to_its_end),
                CASE(two_devices_share_output_and_one_gets_the_input),
                EPOLL(two_devices_share_output_and_one_gets_the_input),
                CASE(one_socket_serves_both_ways),
                EPOLL(one_socket_serves_both_ways),
                CASE(a_terminal_is_not_waited_for_nor_changed),
                CASE(nor_is_a_terminals_master),
                CASE(descriptors_that_do_not_exist_are_refused),
                CASE(nothing_is_lost_between_threads),
                EPOLL(nothing_is_lost_between_threads),
                CASE(each_byte_is_pushed_out),
                EPOLL(each_byte_is_pushed_out),
        };

        return cmocka_run_group_tests_name("chardev", tests, NULL, NULL);
}
