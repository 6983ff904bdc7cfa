/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's backend for hosts where io_uring is missing or forbidden. epoll is level-triggered as
 * it comes, so a watch needs nothing after its callback. epoll_wait() counts in milliseconds; a
 * time-out that is not infinite or zero is given to epoll_pwait2() (Linux 5.11), which is often
 * unknown to the very filters that forbid io_uring. Then it goes through a timerfd, which every
 * kernel has, and which is armed for each such wait and disarmed after it.
 *
 * Files and block devices are always ready as far as epoll can tell, so their I/O is done by
 * threads (loop_threads.c), which say through an eventfd in the set that some has ended.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/loop_internal.h"

_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
                       EPOLLHUP == POLLHUP && EPOLLPRI == POLLPRI,
               "epoll and poll name events alike");

#define BATCH 32

struct epoll_backend {
        struct loop *loop;            /* [I] */
        int fd;                       /* [I] */
        int timer_fd;                 /* [I] in the set with a NULL pointer */
        struct loop_threads *threads; /* [t] NULL: none yet; its fd with this struct's pointer */
        bool no_pwait2;               /* [t] */
        struct loop_ios ended;        /* [t] I/Os for which there was no thread */
};

static int epoll_backend_create(struct loop *loop, void **out)
{
        struct epoll_event ev = {.events = EPOLLIN};
        struct epoll_backend *b = calloc(1, sizeof *b);
        int ret;

        if (!b)
                return -ENOMEM;
        b->loop = loop;
        b->fd = epoll_create1(EPOLL_CLOEXEC);
        if (b->fd < 0) {
                ret = -errno;
                goto free_b;
        }
        b->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (b->timer_fd < 0) {
                ret = -errno;
                goto close_fd;
        }
        if (epoll_ctl(b->fd, EPOLL_CTL_ADD, b->timer_fd, &ev)) {
                ret = -errno;
                goto close_timer;
        }
        *out = b;
        return 0;

close_timer:
        close(b->timer_fd);
close_fd:
        close(b->fd);
free_b:
        free(b);
        return ret;
}

static void epoll_backend_destroy(void *backend)
{
        struct epoll_backend *b = backend;

        loop_threads_destroy(b->threads);
        close(b->timer_fd);
        close(b->fd);
        free(b);
}

static int control(struct epoll_backend *b, int op, struct loop_watch *w)
{
        struct epoll_event ev = {.events = w->events, .data.ptr = w};

        return epoll_ctl(b->fd, op, w->fd, &ev) ? -errno : 0;
}

static int epoll_backend_add(void *backend, struct loop_watch *w)
{
        return control(backend, EPOLL_CTL_ADD, w);
}

static int epoll_backend_modify(void *backend, struct loop_watch *w)
{
        return control(backend, EPOLL_CTL_MOD, w);
}

static bool epoll_backend_remove(void *backend, struct loop_watch *w)
{
        /* Fails only when the descriptor has been closed against the rules, and is gone then. */
        (void)control(backend, EPOLL_CTL_DEL, w);
        return true;
}

static int epoll_backend_rearm(void *backend, struct loop_watch *w)
{
        return 0;
}

static int set_timer(struct epoll_backend *b, uint64_t timeout_ns)
{
        const struct itimerspec its = {.it_value = clock_timespec(timeout_ns)};

        return timerfd_settime(b->timer_fd, 0, &its, NULL) ? -errno : 0;
}

static int epoll_backend_io_prepare(void *backend)
{
        struct epoll_backend *b = backend;
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = b};
        struct loop_threads *threads;
        int ret;

        if (b->threads)
                return 0;
        ret = loop_threads_create(&threads);
        if (ret)
                return ret;
        if (epoll_ctl(b->fd, EPOLL_CTL_ADD, loop_threads_fd(threads), &ev)) {
                ret = -errno;
                loop_threads_destroy(threads);
                return ret;
        }
        b->threads = threads;
        return 0;
}

static void epoll_backend_io_start(void *backend, struct loop_io *io)
{
        struct epoll_backend *b = backend;

        if (epoll_backend_io_prepare(b) == 0) {
                loop_threads_start(b->threads, io);
        } else { /* slow, and still right */
                io->result = loop_io_perform(io);
                loop_ios_push(&b->ended, io);
        }
}

static void land(struct epoll_backend *b, struct loop_ios ended)
{
        struct loop_io *io;

        while ((io = loop_ios_pop(&ended)))
                loop_io_landed(b->loop, io, io->result);
}

static void land_without_threads(struct epoll_backend *b)
{
        struct loop_ios ended = b->ended;

        b->ended = (struct loop_ios){0};
        land(b, ended);
}

static int epoll_backend_io_wait(void *backend)
{
        struct epoll_backend *b = backend;

        if (b->ended.first)
                land_without_threads(b);
        else
                land(b, loop_threads_take(b->threads, true));
        return 0;
}

/* Events, or -errno. */
static int wait_by_timer(struct epoll_backend *b, struct epoll_event *events, uint64_t timeout_ns)
{
        int n, ret = set_timer(b, timeout_ns);

        if (ret)
                return ret;
        n = epoll_wait(b->fd, events, BATCH, -1);
        if (n < 0)
                n = -errno;
        /* Disarming also forgets an expiry that has not been read. */
        ret = set_timer(b, 0);
        return ret && n >= 0 ? ret : n;
}

static int wait_for_events(struct epoll_backend *b, struct epoll_event *events, uint64_t timeout_ns)
{
        const struct timespec ts = clock_timespec(timeout_ns);
        int n;

        if (timeout_ns == 0 || timeout_ns == UINT64_MAX) {
                n = epoll_wait(b->fd, events, BATCH, timeout_ns == 0 ? 0 : -1);
                return n < 0 ? -errno : n;
        }
        if (!b->no_pwait2) {
                n = epoll_pwait2(b->fd, events, BATCH, &ts, NULL);
                if (n >= 0 || errno == EINTR)
                        return n < 0 ? -errno : n;
                b->no_pwait2 = true;
        }
        return wait_by_timer(b, events, timeout_ns);
}

static int epoll_backend_wait(void *backend, uint64_t timeout_ns)
{
        struct epoll_backend *b = backend;
        struct epoll_event events[BATCH];
        bool landed = false;
        int n = wait_for_events(b, events, b->ended.first ? 0 : timeout_ns);

        for (int i = 0; i < n; i++) {
                if (events[i].data.ptr == b)
                        landed = true;
                else if (events[i].data.ptr)
                        loop_watch_ready(events[i].data.ptr, events[i].events);
        }
        if (b->ended.first)
                land_without_threads(b);
        if (landed)
                land(b, loop_threads_take(b->threads, false));
        return n < 0 && n != -EINTR ? n : 0;
}

static int epoll_backend_submit(void *backend)
{
        land_without_threads(backend);
        return 0;
}

static int epoll_backend_fd(void *backend)
{
        const struct epoll_backend *b = backend;

        return b->fd;
}

const struct loop_backend loop_backend_epoll = {
        .name = "epoll",
        .edge = EPOLLET,
        .create = epoll_backend_create,
        .destroy = epoll_backend_destroy,
        .add = epoll_backend_add,
        .modify = epoll_backend_modify,
        .remove = epoll_backend_remove,
        .rearm = epoll_backend_rearm,
        .wait = epoll_backend_wait,
        .fd = epoll_backend_fd,
        .submit = epoll_backend_submit,
        .io_prepare = epoll_backend_io_prepare,
        .io_start = epoll_backend_io_start,
        .io_wait = epoll_backend_io_wait,
};
