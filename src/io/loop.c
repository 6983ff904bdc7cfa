/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop, as far as it does not depend on how one waits: watches, timers, wake-ups,
 * dispatch.
 *
 * A step asks the backend to wait, which queues the watches with events; then each callback is
 * called once, and due timers after them. Since a callback may remove any watch, the queue is
 * unlinked from as well as popped from, and `current` says whether the watch whose callback is
 * running still exists when it returns.
 *
 * An I/O is in flight, then it has landed and is in the queue `landed` until its done() is called.
 * Settling and draining may happen inside any callback, so the ready watches that a backend sees
 * meanwhile are queued, and called by whoever dispatches next; a step that finds something queued
 * does not wait. A step calls as many as were queued when it began to: what callbacks cause by
 * settling does not keep it from timers.
 *
 * Timers are a sorted list and the time-out of the wait, so that they cost no system call and are
 * the same in both backends; there are a handful in a process.
 *
 * loop_wake() and loop_stop() are the only calls from outside. A wake-up is a flag; an eventfd
 * brings the loop's thread out of its wait if it is in one:
 *
 *      waker                                   loop's thread
 *      -----                                   -------------
 *      change what the callback looks at       asleep = true
 *      if exchange(wake_pending, true)         if exchange(wake_pending, false): do not wait
 *              return                          wait
 *      if asleep: write(eventfd)               asleep = false
 *                                              what descriptors are ready for; then the callback,
 *                                              if the flag was set, or the eventfd written and
 *                                              exchange(wake_pending, false)
 *
 * Each side writes before it reads, all of it sequentially consistent, so at least one of them sees
 * the other (Dekker): a wake-up that finds nobody asleep is seen before the wait, and costs no
 * system call. A waker that finds the flag set leaves all to the one that set it: the exchange that
 * clears it comes later, and what was changed before is visible to the callback after it. A write
 * that comes late, when the thread has come out for something else, makes one wait short. While a
 * program polls the loop's descriptor (loop_poll_begin) it is asleep in the same sense, until the
 * next step.
 *
 * Before it sleeps the thread looks at the flag for a while, where that has been of use
 * (base/spin.h).
 *
 * What a thread has made a descriptor ready for before it woke us is done before the callback (a
 * console's last words before its machine's end): the flag is taken before the descriptors are
 * looked at, or on account of the eventfd, which was written after them.
 */
#include "io/loop.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/spin.h"
#include "io/loop_internal.h"

struct loop {
        const struct loop_backend *backend; /* [I] */
        void *state;                        /* [I] the backend's */
        struct loop_watch *watches;         /* [t] descriptors, and timers that are not armed */
        struct loop_watch *timers;          /* [t] armed timers, soonest first */
        struct loop_watch *zombies;         /* [t] removed, still held by the backend */
        struct loop_watch *ready;           /* [t] queue of watches to dispatch */
        struct loop_watch **ready_tail;     /* [t] */
        unsigned nready;                    /* [t] watches in it */
        unsigned in_flight;                 /* [t] I/Os that were started and have not landed */
        unsigned nlanded;                   /* [t] I/Os in the queue */
        struct loop_ios landed;             /* [t] I/Os that wait for done() */
        struct loop_watch *current;    /* [t] its callback is running; NULL when it was removed */
        loop_timer_fn *wake_fn;        /* [t] */
        void *wake_data;               /* [t] */
        struct loop_watch *wake_watch; /* [I] */
        int wake_fd;                   /* [I] eventfd */
        struct loop_watch *poll_timer; /* [t] a timerfd, for who polls; NULL: nobody does */
        uint64_t poll_deadline_ns;     /* [t] what it is set to; UINT64_MAX: nothing */
        struct spin spin;              /* [t] */
        bool rung;                     /* [t] the eventfd was written */
        atomic_bool asleep;            /* [a] see above */
        atomic_bool wake_pending;      /* [a] */
        atomic_bool stop;              /* [a] set by loop_stop(), taken by loop_run() */
};

const char *const loop_syscalls[] = {
        "io_uring_enter",
        "epoll_ctl",
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
        "timerfd_settime",
        "read",
        "write",
        "fstat",
        "newfstatat",
        "clock_gettime",
        /* the threads that do I/O */
        "preadv",
        "pwritev",
        "fdatasync",
        "fallocate",
        "futex",
        NULL,
};

/* ---- lists ---- */

static void list_push(struct loop_watch **list, struct loop_watch *w)
{
        w->prev = NULL;
        w->next = *list;
        if (w->next)
                w->next->prev = w;
        *list = w;
}

static void list_remove(struct loop_watch **list, struct loop_watch *w)
{
        if (w->next)
                w->next->prev = w->prev;
        if (w->prev)
                w->prev->next = w->next;
        else
                *list = w->next;
        w->prev = w->next = NULL;
}

static void timer_insert(struct loop *loop, struct loop_watch *w)
{
        struct loop_watch *after = NULL;

        for (struct loop_watch *t = loop->timers; t && t->deadline_ns <= w->deadline_ns;
             t = t->next)
                after = t;
        if (!after) {
                list_push(&loop->timers, w);
        } else {
                w->prev = after;
                w->next = after->next;
                if (w->next)
                        w->next->prev = w;
                after->next = w;
        }
        w->timer_armed = true;
}

static void ready_unlink(struct loop *loop, struct loop_watch *w)
{
        struct loop_watch **at = &loop->ready;

        if (!w->is_ready)
                return;
        while (*at != w)
                at = &(*at)->ready_next;
        *at = w->ready_next;
        if (loop->ready_tail == &w->ready_next)
                loop->ready_tail = at;
        w->is_ready = false;
        loop->nready--;
}

/* ---- called by the backends ---- */

void loop_watch_ready(struct loop_watch *w, unsigned revents)
{
        struct loop *loop = w->loop;

        if (w->is_ready) {
                w->revents |= revents;
                return;
        }
        w->is_ready = true;
        w->revents = revents;
        w->ready_next = NULL;
        *loop->ready_tail = w;
        loop->ready_tail = &w->ready_next;
        loop->nready++;
}

void loop_watch_released(struct loop_watch *w)
{
        list_remove(&w->loop->zombies, w);
        free(w);
}

void loop_io_landed(struct loop *loop, struct loop_io *io, int result)
{
        io->result = result;
        loop->in_flight--;
        if (io->done) {
                loop_ios_push(&loop->landed, io);
                loop->nlanded++;
        }
        if (io->landed)
                io->landed(io);
}

/* ---- create, destroy ---- */

/* The flag says what it was for: see loop_step(). */
static void rung(void *data, int fd, unsigned events)
{
        struct loop *loop = data;
        uint64_t count;

        loop->rung = true;
        if (loop->backend->edge)
                return; /* told once for each write, read or not */
        if (read(fd, &count, sizeof count) < 0) {
                /* EAGAIN: cannot be, and would not matter */
        }
}

int loop_create(bool allow_uring, struct loop **out)
{
        struct loop *loop = calloc(1, sizeof *loop);
        int ret;

        if (!loop)
                return -ENOMEM;
        loop->ready_tail = &loop->ready;
        loop->spin.may = spin_has_processors(1);
        loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (loop->wake_fd < 0) {
                ret = -errno;
                goto free_loop;
        }
        /* Whatever the reason why there is no io_uring (EPERM, ENOSYS, ENOMEM), epoll will do. */
        loop->backend = &loop_backend_uring;
        ret = allow_uring ? loop->backend->create(loop, &loop->state) : -ENOSYS;
        if (ret) {
                loop->backend = &loop_backend_epoll;
                ret = loop->backend->create(loop, &loop->state);
        }
        if (ret)
                goto close_fd;
        ret = loop_add_fd(loop, loop->wake_fd, POLLIN | loop->backend->edge, rung, loop,
                          &loop->wake_watch);
        if (ret)
                goto destroy_backend;
        *out = loop;
        return 0;

destroy_backend:
        loop->backend->destroy(loop->state);
close_fd:
        close(loop->wake_fd);
free_loop:
        free(loop);
        return ret;
}

static void free_list(struct loop_watch *w)
{
        while (w) {
                struct loop_watch *next = w->next;

                free(w);
                w = next;
        }
}

void loop_destroy(struct loop *loop)
{
        if (!loop)
                return;
        loop_io_drain(loop);
        if (loop->poll_timer)
                close(loop->poll_timer->fd);
        loop->backend->destroy(loop->state);
        free_list(loop->watches);
        free_list(loop->timers);
        free_list(loop->zombies);
        close(loop->wake_fd);
        free(loop);
}

const char *loop_backend(const struct loop *loop)
{
        return loop->backend->name;
}

/* ---- watches ---- */

int loop_add_fd(struct loop *loop, int fd, unsigned events, loop_fd_fn *fn, void *data,
                struct loop_watch **watch)
{
        struct loop_watch *w;
        struct stat st;
        int ret;

        /* epoll refuses files as it is; io_uring would call them ready for ever */
        if (fstat(fd, &st))
                return -errno;
        if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
                return -EPERM;
        w = calloc(1, sizeof *w);
        if (!w)
                return -ENOMEM;
        w->loop = loop;
        w->fd = fd;
        w->events = events;
        w->fd_fn = fn;
        w->data = data;
        ret = loop->backend->add(loop->state, w);
        if (ret) {
                free(w);
                return ret;
        }
        list_push(&loop->watches, w);
        *watch = w;
        return 0;
}

int loop_modify_fd(struct loop_watch *watch, unsigned events)
{
        if (watch->fd < 0)
                return -EINVAL;
        if (watch->events == events)
                return 0;
        watch->events = events;
        return watch->loop->backend->modify(watch->loop->state, watch);
}

int loop_add_timer(struct loop *loop, uint64_t delay_ns, loop_timer_fn *fn, void *data,
                   struct loop_watch **watch)
{
        struct loop_watch *w = calloc(1, sizeof *w);

        if (!w)
                return -ENOMEM;
        w->loop = loop;
        w->fd = -1;
        w->timer_fn = fn;
        w->data = data;
        list_push(&loop->watches, w);
        *watch = w;
        return loop_rearm_timer(w, delay_ns);
}

int loop_rearm_timer(struct loop_watch *w, uint64_t delay_ns)
{
        if (w->fd >= 0)
                return -EINVAL;
        list_remove(w->timer_armed ? &w->loop->timers : &w->loop->watches, w);
        w->timer_armed = false;
        if (delay_ns == UINT64_MAX) {
                list_push(&w->loop->watches, w);
                return 0;
        }
        w->deadline_ns = clock_after_ns(delay_ns);
        timer_insert(w->loop, w);
        return 0;
}

void loop_remove(struct loop_watch *w)
{
        struct loop *loop;

        if (!w)
                return;
        loop = w->loop;
        if (loop->current == w)
                loop->current = NULL;
        ready_unlink(loop, w);
        list_remove(w->timer_armed ? &loop->timers : &loop->watches, w);
        if (w->fd < 0 || loop->backend->remove(loop->state, w)) {
                free(w);
                return;
        }
        w->dead = true;
        list_push(&loop->zombies, w);
}

/* ---- reading and writing files ---- */

int loop_io_prepare(struct loop *loop)
{
        return loop->backend->io_prepare ? loop->backend->io_prepare(loop->state) : 0;
}

void loop_io_start(struct loop *loop, struct loop_io *io)
{
        io->tries = 0;
        loop->in_flight++;
        loop->backend->io_start(loop->state, io);
}

void loop_io_settle(struct loop *loop)
{
        /* Only the kernel's want of memory can make a wait fail, and there is nothing else to do:
         * what is in flight uses its buffers until it lands. */
        while (loop->in_flight)
                if (loop->backend->io_wait(loop->state))
                        sched_yield();
}

static void finish_one(struct loop *loop)
{
        struct loop_io *io = loop_ios_pop(&loop->landed);

        loop->nlanded--;
        io->done(io);
}

void loop_io_drain(struct loop *loop)
{
        while (loop->in_flight || loop->nlanded) {
                loop_io_settle(loop);
                while (loop->nlanded)
                        finish_one(loop);
        }
}

/* ---- other threads ---- */

void loop_set_wake(struct loop *loop, loop_timer_fn *fn, void *data)
{
        loop->wake_fn = fn;
        loop->wake_data = data;
}

static void ring(struct loop *loop)
{
        const uint64_t one = 1;

        /* It can only fail when 2^64 - 2 of them wait to be read: then it is readable as it is. */
        if (write(loop->wake_fd, &one, sizeof one) < 0)
                return;
}

void loop_wake(struct loop *loop)
{
        if (!atomic_exchange(&loop->wake_pending, true) && atomic_load(&loop->asleep))
                ring(loop);
}

void loop_stop(struct loop *loop)
{
        atomic_store(&loop->stop, true);
        ring(loop);
}

/* ---- running ---- */

static int dispatch_fds(struct loop *loop)
{
        int ret = 0;

        for (unsigned n = loop->nready; n && loop->ready; n--) {
                struct loop_watch *w = loop->ready;
                unsigned revents;
                int err;

                ready_unlink(loop, w);
                /* an earlier callback of this step may have changed what is waited for */
                revents = w->revents & (w->events | POLLHUP | POLLERR | POLLNVAL);
                if (revents) {
                        loop->current = w;
                        w->fd_fn(w->data, w->fd, revents);
                        if (!loop->current)
                                continue;
                        loop->current = NULL;
                }
                err = loop->backend->rearm(loop->state, w);
                if (err)
                        ret = err;
        }
        return ret;
}

static void dispatch_timers(struct loop *loop)
{
        uint64_t now;

        if (!loop->timers)
                return;
        /* Once for all of them: one that re-arms itself with 0 waits for the next step. */
        now = clock_now_ns();
        while (loop->timers && loop->timers->deadline_ns <= now) {
                struct loop_watch *w = loop->timers;

                list_remove(&loop->timers, w);
                w->timer_armed = false;
                list_push(&loop->watches, w);
                w->timer_fn(w->data);
        }
}

static void dispatch_landed(struct loop *loop)
{
        for (unsigned n = loop->nlanded; n && loop->nlanded; n--)
                finish_one(loop);
}

static uint64_t until_timer(const struct loop *loop, uint64_t timeout_ns)
{
        uint64_t until;

        if (!loop->timers)
                return timeout_ns;
        until = clock_until_ns(loop->timers->deadline_ns);
        return until < timeout_ns ? until : timeout_ns;
}

static void spin(struct loop *loop, uint64_t timeout_ns)
{
        uint64_t end;
        bool seen = false;

        if (timeout_ns < SPIN_NS || !spin_worth(&loop->spin))
                return;
        end = clock_now_ns() + SPIN_NS;
        do {
                for (int i = 0; i < 16 && !seen; i++) {
                        spin_pause();
                        seen = atomic_load_explicit(&loop->wake_pending, memory_order_relaxed);
                }
        } while (!seen && clock_now_ns() < end);
        spin_done(&loop->spin, seen);
}

/* Wait for something; *woken: the flag was set before. */
static int await(struct loop *loop, uint64_t timeout_ns, bool *woken)
{
        int ret;

        if (timeout_ns > 0) {
                spin(loop, timeout_ns);
                atomic_store(&loop->asleep, true); /* pairs with loop_wake() */
        }
        *woken = atomic_exchange(&loop->wake_pending, false);
        ret = loop->backend->wait(loop->state, *woken ? 0 : timeout_ns);
        atomic_store(&loop->asleep, false);
        return ret;
}

int loop_step(struct loop *loop, uint64_t timeout_ns)
{
        bool woken;
        int ret;

        if (loop->nready || loop->nlanded)
                timeout_ns = 0;
        else
                timeout_ns = until_timer(loop, timeout_ns);
        ret = await(loop, timeout_ns, &woken);
        if (ret) {
                if (woken)
                        atomic_store(&loop->wake_pending, true);
                return ret;
        }
        dispatch_landed(loop);
        ret = dispatch_fds(loop);
        if (loop->rung) {
                loop->rung = false;
                woken |= atomic_exchange(&loop->wake_pending, false);
        }
        if (woken && loop->wake_fn)
                loop->wake_fn(loop->wake_data);
        dispatch_timers(loop);
        return ret;
}

/* ---- for who waits by other means ---- */

static void poll_timer_expired(void *data, int fd, unsigned events)
{
        struct loop *loop = data;
        uint64_t count;

        loop->poll_deadline_ns = UINT64_MAX;
        if (read(fd, &count, sizeof count) < 0) {
                /* EAGAIN: it has been set anew */
        }
}

int loop_fd(struct loop *loop)
{
        int fd, ret;

        if (loop->poll_timer)
                return loop->backend->fd(loop->state);
        fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0)
                return -errno;
        ret = loop_add_fd(loop, fd, POLLIN, poll_timer_expired, loop, &loop->poll_timer);
        if (ret) {
                close(fd);
                return ret;
        }
        loop->poll_deadline_ns = UINT64_MAX;
        return loop->backend->fd(loop->state);
}

static int set_poll_timer(struct loop *loop)
{
        const uint64_t deadline = loop->timers ? loop->timers->deadline_ns : UINT64_MAX;
        struct itimerspec its = {0}; /* all zero: none */

        if (deadline == loop->poll_deadline_ns)
                return 0;
        if (deadline != UINT64_MAX)
                its.it_value = clock_timespec(deadline);
        if (timerfd_settime(loop->poll_timer->fd, TFD_TIMER_ABSTIME, &its, NULL))
                return -errno;
        loop->poll_deadline_ns = deadline;
        return 0;
}

int loop_poll_begin(struct loop *loop)
{
        int ret;

        if (!loop->poll_timer)
                return -EINVAL;
        ret = set_poll_timer(loop);
        if (ret == 0 && loop->backend->submit)
                ret = loop->backend->submit(loop->state);
        atomic_store(&loop->asleep, true); /* pairs with loop_wake() */
        if (atomic_load(&loop->wake_pending) || loop->nready || loop->nlanded)
                ring(loop);
        return ret;
}

int loop_run(struct loop *loop)
{
        while (!atomic_exchange(&loop->stop, false)) {
                int ret = loop_step(loop, UINT64_MAX);

                if (ret)
                        return ret;
        }
        return 0;
}
