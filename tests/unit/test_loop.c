/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop: the same cases on both backends. A case that needs io_uring is skipped where the
 * host forbids it. */
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>
#include <signal.h>
#include <cmocka.h>

#include "io/loop.h"

#define MS 1000000ull

static uint64_t now_ns(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

struct fixture {
        bool uring;
        struct loop *loop;
        int a[2], b[2]; /* pipes */
};

struct seen {
        int calls;
        unsigned events;
        struct loop_watch *watch;  /* to remove when called */
        struct loop_watch *watch2; /* and this */
        bool drain;
        struct loop *stop;
};

static struct fixture fx;

static int setup(bool uring)
{
        fx.uring = uring;
        if (loop_create(uring, &fx.loop))
                return -1;
        if (pipe2(fx.a, O_CLOEXEC | O_NONBLOCK) || pipe2(fx.b, O_CLOEXEC | O_NONBLOCK))
                return -1;
        return 0;
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
        loop_destroy(fx.loop);
        for (int i = 0; i < 2; i++) {
                close(fx.a[i]);
                close(fx.b[i]);
        }
        return 0;
}

static void need_backend(void)
{
        if (fx.uring && strcmp(loop_backend(fx.loop), "io_uring") != 0)
                skip();
        assert_string_equal(loop_backend(fx.loop), fx.uring ? "io_uring" : "epoll");
}

static void on_fd(void *data, int fd, unsigned events)
{
        struct seen *s = data;
        char c[64];

        s->calls++;
        s->events = events;
        if (s->drain)
                (void)!read(fd, c, sizeof c);
        loop_remove(s->watch);
        loop_remove(s->watch2);
        s->watch = s->watch2 = NULL;
        if (s->stop)
                loop_stop(s->stop);
}

static void on_timer(void *data)
{
        struct seen *s = data;

        s->calls++;
        if (s->stop)
                loop_stop(s->stop);
}

static void send_byte(int fd)
{
        assert_int_equal(write(fd, "x", 1), 1);
}

/* Steps until nothing has happened for 20 ms. */
static void settle(void)
{
        for (int i = 0; i < 4; i++)
                assert_int_equal(loop_step(fx.loop, 5 * MS), 0);
}

static void level_triggered_until_read(void **state)
{
        struct seen s = {0};
        struct loop_watch *w;

        need_backend();
        assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &w), 0);
        assert_int_equal(loop_step(fx.loop, 0), 0);
        assert_int_equal(s.calls, 0);
        send_byte(fx.a[1]);
        for (int i = 0; i < 5; i++)
                assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_int_equal(s.calls, 5); /* nobody read it */
        assert_int_equal(s.events, POLLIN);
        s.drain = true;
        assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_int_equal(s.calls, 6);
        settle();
        assert_int_equal(s.calls, 6);
        loop_remove(w);
}

static void a_callback_removes_itself(void **state)
{
        struct seen s = {0};

        need_backend();
        assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &s.watch), 0);
        send_byte(fx.a[1]);
        settle();
        assert_int_equal(s.calls, 1);
}

static void a_callback_removes_another_that_is_ready(void **state)
{
        struct seen s = {0}, t = {0};

        need_backend();
        /* whichever is called first removes both */
        assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &s.watch), 0);
        assert_int_equal(loop_add_fd(fx.loop, fx.b[0], POLLIN, on_fd, &t, &t.watch), 0);
        s.watch2 = t.watch;
        t.watch2 = s.watch;
        send_byte(fx.a[1]);
        send_byte(fx.b[1]);
        settle();
        assert_int_equal(s.calls + t.calls, 1);
}

static void modify_changes_what_is_waited_for(void **state)
{
        struct seen s = {0};
        struct loop_watch *w;
        int sv[2];

        need_backend();
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
        assert_int_equal(loop_add_fd(fx.loop, sv[0], POLLIN, on_fd, &s, &w), 0);
        settle();
        assert_int_equal(s.calls, 0);
        assert_int_equal(loop_modify_fd(w, POLLIN | POLLOUT), 0);
        assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_true(s.calls >= 1);
        assert_int_equal(s.events, POLLOUT);
        assert_int_equal(loop_modify_fd(w, 0), 0);
        s.calls = 0;
        send_byte(sv[1]);
        settle();
        assert_int_equal(s.calls, 0);
        assert_int_equal(loop_modify_fd(w, POLLIN), 0);
        assert_int_equal(loop_modify_fd(w, 0), 0);
        assert_int_equal(loop_modify_fd(w, POLLIN), 0);
        s.drain = true;
        settle();
        assert_int_equal(s.calls, 1);
        loop_modify_fd(w, 0);
        close(sv[1]);
        assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_true(s.events & POLLHUP);
        loop_remove(w);
        close(sv[0]);
}

/* The loop keeps no reference to the file: the other end of the pipe sees the close at once. */
static void remove_lets_go_of_the_file(void **state)
{
        struct seen s = {0};
        struct loop_watch *w;

        need_backend();
        signal(SIGPIPE, SIG_IGN);
        assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &w), 0);
        settle();
        loop_remove(w);
        close(fx.a[0]);
        assert_int_equal(write(fx.a[1], "x", 1), -1);
        assert_int_equal(errno, EPIPE);
        settle();
        fx.a[0] = -1;
}

/* Some kernels end a poll of a terminal with an error when somebody sets its mode. */
static void a_terminal_whose_mode_is_set_stays_watched(void **state)
{
        struct seen s = {.drain = true};
        struct loop_watch *w;
        struct termios raw;
        int master, slave;

        need_backend();
        assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
        assert_int_equal(fcntl(slave, F_SETFL, O_RDWR | O_NONBLOCK), 0);
        assert_int_equal(loop_add_fd(fx.loop, slave, POLLIN, on_fd, &s, &w), 0);
        assert_int_equal(tcgetattr(slave, &raw), 0);
        for (int i = 1; i <= 20; i++) {
                settle();
                raw.c_lflag ^= ICANON;
                assert_int_equal(tcsetattr(slave, TCSADRAIN, &raw), 0);
                settle();
                assert_int_equal(write(master, "x\n", 2), 2);
                for (int tries = 0; tries < 100 && s.calls < i; tries++)
                        assert_int_equal(loop_step(fx.loop, 10 * MS), 0);
                assert_int_equal(s.calls, i);
                assert_int_equal(s.events, POLLIN);
        }
        loop_remove(w);
        close(slave);
        close(master);
}

static void add_and_remove_in_turn(void **state)
{
        struct seen s = {.drain = true};
        struct loop_watch *w[3];

        need_backend();
        /* more than the submission queue holds, with and without a step in between */
        for (int i = 0; i < 1000; i++) {
                assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &w[0]), 0);
                loop_remove(w[0]);
                assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &w[1]), 0);
                if (i % 3 == 0)
                        assert_int_equal(loop_step(fx.loop, 0), 0);
                if (i % 5 == 0)
                        assert_int_equal(loop_modify_fd(w[1], POLLIN | POLLPRI), 0);
                loop_remove(w[1]);
        }
        assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &w[2]), 0);
        send_byte(fx.a[1]);
        settle();
        assert_int_equal(s.calls, 1);
        loop_remove(w[2]);
}

static void refuses_what_cannot_be_watched(void **state)
{
        struct seen s = {0};
        struct loop_watch *w;
        int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

        need_backend();
        assert_int_equal(loop_add_fd(fx.loop, 9999, POLLIN, on_fd, &s, &w), -EBADF);
        assert_int_equal(loop_add_fd(fx.loop, fd, POLLIN, on_fd, &s, &w), -EPERM);
        close(fd);
}

static void timers_fire_once_and_in_order(void **state)
{
        struct seen s[3] = {0};
        struct loop_watch *w[3];
        uint64_t start = now_ns();

        need_backend();
        assert_int_equal(loop_add_timer(fx.loop, 30 * MS, on_timer, &s[0], &w[0]), 0);
        assert_int_equal(loop_add_timer(fx.loop, 10 * MS, on_timer, &s[1], &w[1]), 0);
        assert_int_equal(loop_add_timer(fx.loop, UINT64_MAX, on_timer, &s[2], &w[2]), 0);
        while (!s[1].calls)
                assert_int_equal(loop_step(fx.loop, UINT64_MAX), 0);
        assert_true(now_ns() - start >= 10 * MS);
        assert_true(s[0].calls == 0 || now_ns() - start >= 30 * MS); /* a busy host, then */
        while (!s[0].calls)
                assert_int_equal(loop_step(fx.loop, UINT64_MAX), 0);
        assert_true(now_ns() - start >= 30 * MS);
        settle();
        assert_int_equal(s[0].calls, 1);
        assert_int_equal(s[1].calls, 1);
        assert_int_equal(s[2].calls, 0);
        /* re-armed: earlier, later, after it has fired */
        assert_int_equal(loop_rearm_timer(w[1], 0), 0);
        assert_int_equal(loop_rearm_timer(w[2], 500 * MS), 0);
        assert_int_equal(loop_rearm_timer(w[2], 1 * MS), 0);
        settle();
        assert_int_equal(s[1].calls, 2);
        assert_int_equal(s[2].calls, 1);
        for (int i = 0; i < 3; i++)
                loop_remove(w[i]);
        settle();
}

static void step_waits_no_longer_than_asked(void **state)
{
        struct seen s = {0};
        struct loop_watch *w;
        uint64_t start;

        need_backend();
        assert_int_equal(loop_add_timer(fx.loop, 5000 * MS, on_timer, &s, &w), 0);
        start = now_ns();
        /* It may end early now and then: the kernel tears down the rings of earlier tests with
         * something like a signal. */
        for (int steps = 0; now_ns() - start < 20 * MS; steps++) {
                assert_true(steps < 10);
                assert_int_equal(loop_step(fx.loop, 20 * MS), 0);
        }
        assert_true(now_ns() - start < 2000 * MS);
        assert_int_equal(s.calls, 0);
        loop_remove(w);
}

static void stop_is_not_lost(void **state)
{
        need_backend();
        loop_stop(fx.loop);
        assert_int_equal(loop_run(fx.loop), 0);
        loop_stop(fx.loop);
        assert_int_equal(loop_run(fx.loop), 0);
}

static void run_serves_until_stopped(void **state)
{
        struct seen s = {.drain = true, .stop = fx.loop};
        struct loop_watch *w;

        need_backend();
        assert_int_equal(loop_add_fd(fx.loop, fx.a[0], POLLIN, on_fd, &s, &w), 0);
        send_byte(fx.a[1]);
        assert_int_equal(loop_run(fx.loop), 0);
        send_byte(fx.a[1]);
        assert_int_equal(loop_run(fx.loop), 0);
        assert_int_equal(s.calls, 2);
}

/* ---- wake-ups from other threads ---- */

#define WAKES 300000

struct wakes {
        struct loop *loop;
        atomic_int asked; /* written by the waker before each wake */
        int served;       /* the last value seen by the callback */
        int calls;
};

static void on_wake(void *data)
{
        struct wakes *w = data;

        w->served = atomic_load(&w->asked);
        w->calls++;
        if (w->served == WAKES)
                loop_stop(w->loop);
}

static void *waker(void *data)
{
        struct wakes *w = data;

        for (int i = 1; i <= WAKES; i++) {
                atomic_store(&w->asked, i);
                loop_wake(w->loop);
                for (volatile int spin = 0; spin < i % 257; spin++)
                        ; /* so that wakes meet the loop's thread everywhere */
        }
        return NULL;
}

/* Merged they may be, but the last change is always seen: a lost wake-up hangs here. */
static void no_wake_is_lost(void **state)
{
        struct wakes w = {.loop = fx.loop};
        pthread_t t;

        need_backend();
        loop_set_wake(fx.loop, on_wake, &w);
        assert_int_equal(pthread_create(&t, NULL, waker, &w), 0);
        assert_int_equal(loop_run(fx.loop), 0);
        pthread_join(t, NULL);
        assert_int_equal(w.served, WAKES);
        assert_true(w.calls >= 1);
}

static void *pinger(void *data)
{
        struct fixture *f = data;
        char c;

        for (int i = 0; i < 2000; i++) {
                loop_wake(f->loop);
                while (read(f->b[0], &c, 1) != 1)
                        sched_yield();
        }
        loop_stop(f->loop);
        return NULL;
}

static void pong(void *data)
{
        send_byte(fx.b[1]);
}

/* Each wake gets its own answer, from an idle loop. */
static void wakes_one_at_a_time(void **state)
{
        pthread_t t;

        need_backend();
        loop_set_wake(fx.loop, pong, NULL);
        assert_int_equal(pthread_create(&t, NULL, pinger, &fx), 0);
        assert_int_equal(loop_run(fx.loop), 0);
        pthread_join(t, NULL);
}

#define BOTH(f)                                                                                    \
        {#f " (io_uring)", f, setup_uring, teardown, NULL},                                        \
        {                                                                                          \
#f " (epoll)", f, setup_epoll, teardown, NULL                                      \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                BOTH(level_triggered_until_read),
                BOTH(a_callback_removes_itself),
                BOTH(a_callback_removes_another_that_is_ready),
                BOTH(modify_changes_what_is_waited_for),
                BOTH(remove_lets_go_of_the_file),
                BOTH(a_terminal_whose_mode_is_set_stays_watched),
                BOTH(add_and_remove_in_turn),
                BOTH(refuses_what_cannot_be_watched),
                BOTH(timers_fire_once_and_in_order),
                BOTH(step_waits_no_longer_than_asked),
                BOTH(stop_is_not_lost),
                BOTH(run_serves_until_stopped),
                BOTH(no_wake_is_lost),
                BOTH(wakes_one_at_a_time),
        };

        return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
