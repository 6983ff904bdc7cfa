/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the loop and its two backends. A backend waits for descriptors and for I/O, and nothing
 * else: timers, wake-ups, dispatch and life times are loop.c's. All calls are made by the loop's
 * thread.
 */
#ifndef RAMET_IO_LOOP_INTERNAL_H
#define RAMET_IO_LOOP_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "io/loop.h"

struct loop_watch {
        struct loop *loop;              /* [I] */
        struct loop_watch *prev, *next; /* [t] in one of the loop's lists of watches */
        struct loop_watch *ready_next;  /* [t] valid while is_ready */
        int fd;                         /* [I] -1: a timer */
        unsigned events;                /* [t] what is waited for */
        unsigned revents;               /* [t] what happened, while is_ready */
        loop_fd_fn *fd_fn;              /* [I] */
        loop_timer_fn *timer_fn;        /* [I] */
        void *data;                     /* [I] */
        uint64_t deadline_ns;           /* [t] a timer's, CLOCK_MONOTONIC */
        bool is_ready;                  /* [t] in the loop's queue of ready watches */
        bool timer_armed;               /* [t] a timer, and in the list of armed ones */
        bool dead;                      /* [t] removed, kept for the backend's sake */
        bool in_flight;                 /* [t] io_uring: a poll request is under way */
        bool cancelling;                /* [t] io_uring: and is to come back */
        bool failed;                    /* [t] io_uring: could not be polled, has been told */
        uint8_t again;                  /* [t] io_uring: failures in a row that were not believed */
};

struct loop_backend {
        const char *name;
        unsigned edge; /* with this bit a watch is told of each write once; 0: cannot */
        /* 0 or -errno: this host does not have it */
        int (*create)(struct loop *loop, void **backend);
        void (*destroy)(void *backend);
        int (*add)(void *backend, struct loop_watch *w);
        int (*modify)(void *backend, struct loop_watch *w); /* w->events has changed */
        /* True: may be freed now. False: the backend calls loop_watch_released() when it may be. */
        bool (*remove)(void *backend, struct loop_watch *w);
        /* The callback for what happened has returned: watch on. */
        int (*rearm)(void *backend, struct loop_watch *w);
        /* Wait at most @timeout_ns (UINT64_MAX: no limit) and call loop_watch_ready() for each
         * watch with events, loop_io_landed() for each I/O that has ended. 0 or -errno; a time-out
         * and a signal are 0. */
        int (*wait)(void *backend, uint64_t timeout_ns);
        int (*fd)(void *backend);         /* readable when a wait would not wait */
        int (*submit)(void *backend);     /* what the next wait would; NULL: nothing to do */
        int (*io_prepare)(void *backend); /* loop_io_prepare(); NULL: nothing to do */
        void (*io_start)(void *backend, struct loop_io *io); /* its end comes from a wait */
        /* Some I/O is in flight: wait for it, as wait() does; may return without any. */
        int (*io_wait)(void *backend);
};

extern const struct loop_backend loop_backend_uring;
extern const struct loop_backend loop_backend_epoll;

void loop_watch_ready(struct loop_watch *w, unsigned revents);
void loop_watch_released(struct loop_watch *w);
void loop_io_landed(struct loop *loop, struct loop_io *io, int result);

/* A queue of I/Os, linked by their `next`. */
struct loop_ios {
        struct loop_io *first, *last;
};

static inline void loop_ios_push(struct loop_ios *q, struct loop_io *io)
{
        io->next = NULL;
        if (q->first)
                q->last->next = io;
        else
                q->first = io;
        q->last = io;
}

static inline struct loop_io *loop_ios_pop(struct loop_ios *q)
{
        struct loop_io *io = q->first;

        if (io)
                q->first = io->next;
        return io;
}

/* loop_threads.c: the threads that do I/O where there is no io_uring. */
struct loop_threads;
/* 0 or -errno, -EAGAIN for example when there may be no more threads. */
int loop_threads_create(struct loop_threads **threads);
/* Nothing is in flight. NULL is fine. */
void loop_threads_destroy(struct loop_threads *t);
/* Readable when some I/O has ended since loop_threads_take() was last called. */
int loop_threads_fd(const struct loop_threads *t);
void loop_threads_start(struct loop_threads *t, struct loop_io *io);
/* All that has ended, with results, in order; @wait: when nothing has, wait until something does
 * (something is in flight). */
struct loop_ios loop_threads_take(struct loop_threads *t, bool wait);
/* Do it here and now; returns the result. Any thread. */
int loop_io_perform(const struct loop_io *io);

#endif
