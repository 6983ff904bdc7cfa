/* SPDX-License-Identifier: Apache-2.0 */
/* The loop's descriptor: a program that waits by poll(2) or epoll misses nothing, whenever it
 * comes, and is not kept busy by nothing. The same cases on both backends. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "io/loop.h"

#define MS     1000000ull
#define SOON   2000 /* ms; what does not come by then does not come */
#define ROUNDS 8000

static struct {
        bool uring;
        struct loop *loop;
        int fd, pipe[2];
        int foreign; /* an epoll set of the program's own */
        int calls;
} fx;

static void count(void *data)
{
        fx.calls++;
}

static void drain(void *data, int fd, unsigned events)
{
        char c[64];

        fx.calls++;
        assert_true(read(fd, c, sizeof c) > 0);
}

static int setup(bool uring)
{
        struct epoll_event e = {.events = EPOLLIN};
        struct loop_watch *w;

        fx.uring = uring;
        fx.calls = 0;
        if (loop_create(uring, &fx.loop) || pipe2(fx.pipe, O_CLOEXEC | O_NONBLOCK) ||
            loop_add_fd(fx.loop, fx.pipe[0], POLLIN, drain, NULL, &w))
                return -1;
        loop_set_wake(fx.loop, count, NULL);
        fx.fd = loop_fd(fx.loop);
        fx.foreign = epoll_create1(EPOLL_CLOEXEC);
        return fx.fd < 0 || fx.foreign < 0 || epoll_ctl(fx.foreign, EPOLL_CTL_ADD, fx.fd, &e);
}

static int setup_uring(void **state)
{
        return setup(true);
}

static int setup_epoll(void **state)
{
        return setup(false);
}

static int teardown(void **state)
{
        close(fx.foreign);
        loop_destroy(fx.loop);
        close(fx.pipe[0]);
        close(fx.pipe[1]);
        return 0;
}

static void need_backend(void)
{
        if (fx.uring && strcmp(loop_backend(fx.loop), "io_uring") != 0)
                skip();
        assert_string_equal(loop_backend(fx.loop), fx.uring ? "io_uring" : "epoll");
}

/* Both ways to wait say the same. */
static bool readable(int timeout_ms)
{
        struct pollfd p = {.fd = fx.fd, .events = POLLIN};
        struct epoll_event e;
        int n, m;

        n = poll(&p, 1, timeout_ms);
        m = epoll_wait(fx.foreign, &e, 1, n > 0 ? SOON : 0);
        assert_int_equal(n, m);
        return n > 0;
}

static void serve(void)
{
        assert_int_equal(loop_step(fx.loop, 0), 0);
        assert_int_equal(loop_poll_begin(fx.loop), 0);
}

/* As a program does it, until nothing is left; that is soon. */
static void serve_all(void)
{
        int rounds = 0;

        while (readable(0)) {
                serve();
                assert_true(++rounds < 10);
        }
}

static void send_byte(void)
{
        assert_int_equal(write(fx.pipe[1], "x", 1), 1);
}

static void quiet_without_events(void **state)
{
        need_backend();
        serve();
        serve_all();
        assert_false(readable(20));
        assert_int_equal(fx.calls, 0);
}

static void same_descriptor_each_time(void **state)
{
        need_backend();
        assert_int_equal(loop_fd(fx.loop), fx.fd);
}

static void begin_needs_a_descriptor(void **state)
{
        struct loop *other;

        assert_int_equal(loop_create(fx.uring, &other), 0);
        assert_int_equal(loop_poll_begin(other), -EINVAL);
        loop_destroy(other);
}

static void event_before_the_first_poll(void **state)
{
        need_backend();
        send_byte();
        assert_int_equal(loop_poll_begin(fx.loop), 0);
        assert_true(readable(SOON));
        serve_all();
        assert_int_equal(fx.calls, 1);
}

static void event_between_serve_and_poll(void **state)
{
        need_backend();
        for (int i = 1; i <= 5; i++) {
                serve();
                send_byte();
                assert_true(readable(SOON));
                serve_all();
                assert_int_equal(fx.calls, i);
        }
}

static void wake_between_serve_and_poll(void **state)
{
        need_backend();
        for (int i = 1; i <= 5; i++) {
                serve();
                loop_wake(fx.loop);
                assert_true(readable(SOON));
                serve_all();
                assert_int_equal(fx.calls, i);
        }
}

/* The flag is set, and nobody was asleep then. */
static void wake_before_begin(void **state)
{
        need_backend();
        assert_int_equal(loop_step(fx.loop, 0), 0);
        loop_wake(fx.loop);
        assert_int_equal(loop_poll_begin(fx.loop), 0);
        assert_true(readable(SOON));
        serve_all();
        assert_int_equal(fx.calls, 1);
}

static void many_while_nobody_polls(void **state)
{
        need_backend();
        serve();
        for (int i = 0; i < 100; i++) {
                loop_wake(fx.loop);
                send_byte();
        }
        assert_true(readable(SOON));
        serve_all();
        assert_in_range(fx.calls, 2, 3); /* the wake-up, and 100 bytes in one or two reads */
        assert_false(readable(20));
}

static void timer_is_seen(void **state)
{
        struct loop_watch *t;
        uint64_t begin = clock_now_ns();

        need_backend();
        assert_int_equal(loop_add_timer(fx.loop, 30 * MS, count, NULL, &t), 0);
        serve();
        while (fx.calls == 0) {
                assert_true(readable(SOON));
                serve();
        }
        assert_true(clock_now_ns() - begin >= 30 * MS);
        serve_all();
        assert_false(readable(20));
        assert_int_equal(loop_rearm_timer(t, 0), 0); /* a second time, due at once */
        serve_all();
        serve();
        serve_all();
        assert_int_equal(fx.calls, 2);
        assert_int_equal(loop_rearm_timer(t, 10 * MS), 0);
        serve();
        assert_int_equal(loop_rearm_timer(t, UINT64_MAX), 0);
        serve();
        assert_false(readable(30));
        assert_int_equal(fx.calls, 2);
}

struct io_seen {
        struct loop_io io;
        struct iovec iov;
        int done;
};

static void io_done(struct loop_io *io)
{
        ((struct io_seen *)io)->done++;
}

/* An I/O is in flight only when it has been submitted. */
static void io_is_seen(void **state)
{
        char c;
        struct io_seen s = {.io = {.op = LOOP_IO_READ, .niov = 1, .done = io_done}};

        need_backend();
        s.iov = (struct iovec){&c, 1};
        s.io.iov = &s.iov;
        s.io.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        assert_true(s.io.fd >= 0);
        loop_io_start(fx.loop, &s.io);
        assert_int_equal(loop_poll_begin(fx.loop), 0);
        while (!s.done) {
                assert_true(readable(SOON));
                serve();
        }
        assert_int_equal(s.io.result, 1);
        serve_all();
        close(s.io.fd);
}

/* Another thread wakes when the last wake-up has been seen, and up to 25 us later: none is lost,
 * whatever the loop's thread is just doing, spinning or about to sleep. */
static atomic_int asked, seen;

static void answer(void *data)
{
        atomic_store(&seen, atomic_load(&asked));
}

static void *ask(void *data)
{
        for (int i = 1; i <= ROUNDS; i++) {
                uint64_t begin = clock_now_ns(), delay = (uint64_t)i * 7919 % 25000;

                while (clock_now_ns() - begin < delay) {
                }
                atomic_store(&asked, i);
                loop_wake(fx.loop);
                for (uint64_t spins = 0; atomic_load(&seen) != i; spins++)
                        if (spins % 64 == 63)
                                sched_yield();
        }
        return NULL;
}

static void no_wake_is_lost(bool polled)
{
        pthread_t thread;

        need_backend();
        atomic_store(&asked, 0);
        atomic_store(&seen, 0);
        loop_set_wake(fx.loop, answer, NULL);
        if (polled)
                serve();
        assert_int_equal(pthread_create(&thread, NULL, ask, NULL), 0);
        while (atomic_load(&seen) != ROUNDS) {
                uint64_t begin = clock_now_ns();

                if (polled) {
                        assert_true(readable(SOON));
                        serve();
                } else {
                        assert_int_equal(loop_step(fx.loop, SOON * MS), 0);
                        assert_true(clock_now_ns() - begin < SOON * MS);
                }
        }
        pthread_join(thread, NULL);
}

static void no_wake_is_lost_polling(void **state)
{
        no_wake_is_lost(true);
}

static void no_wake_is_lost_in_steps(void **state)
{
        no_wake_is_lost(false);
}

/* Steps of both kinds in turn: what the one leaves behind does not make the other deaf. */
static void steps_and_polls_mix(void **state)
{
        need_backend();
        for (int i = 0; i < 50; i++) {
                loop_wake(fx.loop);
                assert_int_equal(loop_step(fx.loop, SOON * MS), 0);
                assert_int_equal(loop_step(fx.loop, 0), 0);
                assert_int_equal(fx.calls, 2 * i + 1);
                serve();
                loop_wake(fx.loop);
                assert_true(readable(SOON));
                serve_all();
                assert_int_equal(fx.calls, 2 * i + 2);
        }
}

static void expect_one_call(void *data)
{
        assert_int_equal(fx.calls, 1);
        fx.calls = 0;
}

/* A console's last words come before its machine's end. */
static void descriptors_before_a_later_wake(void **state)
{
        need_backend();
        loop_set_wake(fx.loop, expect_one_call, NULL);
        for (int i = 0; i < 50; i++) {
                send_byte();
                loop_wake(fx.loop);
                assert_int_equal(loop_step(fx.loop, i % 2 ? SOON * MS : 0), 0);
                assert_int_equal(loop_step(fx.loop, 0), 0);
                assert_int_equal(fx.calls, 0);
                serve();
                send_byte();
                loop_wake(fx.loop);
                assert_true(readable(SOON));
                serve_all();
                assert_int_equal(fx.calls, 0);
        }
}

#define BOTH(name)                                                                                 \
        {#name "_uring", name, setup_uring, teardown, NULL},                                       \
        {                                                                                          \
#name "_epoll", name, setup_epoll, teardown, NULL                                  \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                BOTH(quiet_without_events),
                BOTH(same_descriptor_each_time),
                BOTH(begin_needs_a_descriptor),
                BOTH(event_before_the_first_poll),
                BOTH(event_between_serve_and_poll),
                BOTH(wake_between_serve_and_poll),
                BOTH(wake_before_begin),
                BOTH(many_while_nobody_polls),
                BOTH(timer_is_seen),
                BOTH(io_is_seen),
                BOTH(no_wake_is_lost_polling),
                BOTH(no_wake_is_lost_in_steps),
                BOTH(steps_and_polls_mix),
                BOTH(descriptors_before_a_later_wake),
        };

        return cmocka_run_group_tests_name("loop_fd", tests, NULL, NULL);
}
