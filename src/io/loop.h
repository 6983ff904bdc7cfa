/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: one thread waits for descriptors, timers and wake-ups through io_uring (through
 * epoll where io_uring is forbidden; loop_backend() says which).
 *
 * A loop belongs to the thread that runs it: all calls are made there, but for loop_wake() and
 * loop_stop(), which any thread may make at any time. A callback may remove any watch, its own too.
 */
#ifndef RAMET_IO_LOOP_H
#define RAMET_IO_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct loop;
struct loop_watch; /* a descriptor or a timer under watch; owned by the loop until removed */

/* @events: POLLIN, POLLOUT, POLLHUP, POLLERR bits as poll(2) reports them. */
typedef void loop_fd_fn(void *data, int fd, unsigned events);
typedef void loop_timer_fn(void *data);

/* 0 or -errno. @allow_uring false: epoll at once. */
int loop_create(bool allow_uring, struct loop **loop);
/* Drains I/O first; then removes all watches. Closes none of their descriptors. */
void loop_destroy(struct loop *loop);
const char *loop_backend(const struct loop *loop); /* "io_uring" or "epoll" */

/* Watch @fd (borrowed) for @events, level-triggered, until removed; one watch a descriptor (a dup
 * is another one), to be removed before it is closed. A failure of the watch itself comes as
 * POLLNVAL, once. 0, -EBADF, -EPERM (a regular file, which is always ready), or -errno. */
int loop_add_fd(struct loop *loop, int fd, unsigned events, loop_fd_fn *fn, void *data,
                struct loop_watch **watch);
/* Change what is waited for; 0 means only hang-up and error. */
int loop_modify_fd(struct loop_watch *watch, unsigned events);
/* Call @fn once after @delay_ns (UINT64_MAX: not at all); the watch stays until removed and can be
 * re-armed. */
int loop_add_timer(struct loop *loop, uint64_t delay_ns, loop_timer_fn *fn, void *data,
                   struct loop_watch **watch);
int loop_rearm_timer(struct loop_watch *watch, uint64_t delay_ns);
void loop_remove(struct loop_watch *watch); /* NULL is fine */

/* Set the function that loop_wake() makes the loop call, in the loop's thread. */
void loop_set_wake(struct loop *loop, loop_timer_fn *fn, void *data);
void loop_wake(struct loop *loop); /* any thread; calls may be merged into one */
/* Any thread; loop_run() returns soon, or the next one at once when none is running. */
void loop_stop(struct loop *loop);

/* --- reading and writing files and block devices ---
 *
 * With io_uring on the loop's own ring, else by a few threads. Two callbacks, both by the loop's
 * thread: landed() as soon as the end is seen, which may be within loop_io_settle(), called from
 * anywhere, but never within loop_io_start(); done() later, from the loop itself, in the order in
 * which they landed. What was lent for the time of the I/O is given back in landed(); what takes
 * locks, guest memory or time is for done(). landed() may start others, and may not settle or
 * drain; done() may do all three. */

enum loop_io_op {
        LOOP_IO_READ,      /* preadv */
        LOOP_IO_WRITE,     /* pwritev */
        LOOP_IO_SYNC,      /* fdatasync */
        LOOP_IO_FALLOCATE, /* fallocate: mode, offset, len */
        LOOP_IO_NOP,       /* nothing, with result 0: landed() and done() come as with the others */
};

struct loop_io {
        enum loop_io_op op;
        int fd;
        int mode;
        uint64_t offset, len;
        const struct iovec *iov; /* READ, WRITE: good until landed() */
        unsigned niov;           /* 1 to 1024 */
        /* NULL: nothing to do. landed() may start others; where done is NULL the struct is the
         * caller's again in landed(), which may start the same one anew, or free it. */
        void (*landed)(struct loop_io *io);
        void (*done)(struct loop_io *io);
        int result;           /* bytes, or 0; -errno. It may be less than was asked for */
        struct loop_io *next; /* the loop's own, as is what follows */
        unsigned tries;
};

/* Make what I/O needs besides the loop: nothing with io_uring, else the threads. They cannot be
 * made any more in a process that is confined, so whoever is going to start I/O says so before, for
 * example when it opens its file. 0 (also the second time) or -errno. Without it threads are made
 * at the first I/O. */
int loop_io_prepare(struct loop *loop);
/* Start it. The struct and all that it points to are the loop's until done() is called (landed(),
 * when there is no done()), which is never from within this call; a failure to start comes as the
 * result. Submitted at the latest when the loop waits or settles. Any number may be in flight. */
void loop_io_start(struct loop *loop, struct loop_io *io);
/* Wait until nothing is in flight: everything has landed, also what landed() started. No done() and
 * no other callback is called. */
void loop_io_settle(struct loop *loop);
/* The same, and done() as well, until nothing is left of any I/O. No callback of a watch or timer:
 * what is seen of them meanwhile is for the next step. */
void loop_io_drain(struct loop *loop);

/* System calls made after loop_create() by either backend, by name, NULL-terminated. Memory comes
 * from malloc, whose calls are not listed. */
extern const char *const loop_syscalls[];

/* Serve events until loop_stop(). 0 or -errno. Can be called again afterwards. */
int loop_run(struct loop *loop);
/* Serve what is there, waiting at most @timeout_ns (UINT64_MAX: no limit) for the first. 0 or
 * -errno. */
int loop_step(struct loop *loop, uint64_t timeout_ns);

/* For a program that waits by itself: a descriptor, the loop's own, to be polled for POLLIN. It is
 * readable while the loop has something to do, timers and wake-ups included, provided that
 * loop_poll_begin() was the last call of this loop before the program waits: that submits what is
 * queued and asks wakers for a sign. Then loop_step(loop, 0), as often as there is something, and
 * loop_poll_begin() again; a poll that finds it readable may find nothing to do. With io_uring the
 * loop's thread must be the one that polls, or be in the kernel as often as not: its completions
 * are made there. -errno. */
int loop_fd(struct loop *loop);
/* 0, -EINVAL (no loop_fd() before), or -errno. */
int loop_poll_begin(struct loop *loop);

#endif
