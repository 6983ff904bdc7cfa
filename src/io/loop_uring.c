/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop's backend on io_uring. Each watch has at most one IORING_OP_POLL_ADD under way,
 * one-shot, which is queued again after its callback: a poll request looks at the descriptor when
 * it starts, so this is level-triggered (multishot polls report edges, unless the kernel is 6.0 or
 * later). Queued requests are submitted by the call that waits, so an event costs one system call.
 *
 *            add, rearm                       completion
 *      idle ------------> in flight ---------------------------> idle, callback, rearm
 *                          |     \
 *                   modify |      \ remove: dead
 *                          v       v
 *                  cancelling     kept until its completion has come, then released
 *
 * A request names its watch by address, so a watch is freed only when none is in flight. What a
 * cancel request itself returns is of no interest: user_data 0. Between a modify and the completion
 * of the cancelled poll an event of the old mask may come; loop.c drops what is not wanted any
 * more.
 *
 * A removal is submitted at once, so that the poll's reference to the file is gone when
 * loop_remove() returns and a close() that follows is seen by the other end.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "io/loop_internal.h"

#define ENTRIES   128
#define AGAIN_MAX 16

struct uring_backend {
        struct io_uring ring; /* [t] */
};

/* Operations of a ring are no system calls, so that no seccomp filter sees them: a process that is
 * confined could open files through a ring that lets it. This one can poll, for good. Linux 5.10.
 */
static int restrict_ring(struct io_uring *ring)
{
        struct io_uring_restriction allowed[] = {
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_REMOVE},
        };

        /* liburing 2.3 declares functions for both, and lacks them */
        if (syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed,
                    sizeof allowed / sizeof *allowed) ||
            syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
                return -errno;
        return 0;
}

static int uring_create(void **out)
{
        struct uring_backend *b = calloc(1, sizeof *b);
        int ret;

        if (!b)
                return -ENOMEM;
        /* COOP_TASKRUN: completions wait until this thread enters the kernel, no interrupt */
        ret = io_uring_queue_init(ENTRIES, &b->ring,
                                  IORING_SETUP_COOP_TASKRUN | IORING_SETUP_R_DISABLED);
        if (ret == -EINVAL) /* before Linux 5.19 */
                ret = io_uring_queue_init(ENTRIES, &b->ring, IORING_SETUP_R_DISABLED);
        if (ret) {
                free(b);
                return ret;
        }
        /* A wait with a time-out in one call, and no completion lost: Linux 5.11 */
        if (!(b->ring.features & IORING_FEAT_EXT_ARG) || !(b->ring.features & IORING_FEAT_NODROP))
                ret = -ENOSYS;
        if (!ret)
                ret = restrict_ring(&b->ring);
        if (ret) {
                io_uring_queue_exit(&b->ring);
                free(b);
                return ret;
        }
        *out = b;
        return 0;
}

static void uring_destroy(void *backend)
{
        struct uring_backend *b = backend;

        io_uring_queue_exit(&b->ring);
        free(b);
}

static int get_sqe(struct uring_backend *b, struct io_uring_sqe **sqe)
{
        *sqe = io_uring_get_sqe(&b->ring);
        if (!*sqe) {
                int ret = io_uring_submit(&b->ring);

                if (ret < 0)
                        return ret;
                *sqe = io_uring_get_sqe(&b->ring);
        }
        return *sqe ? 0 : -EBUSY;
}

static int start_poll(struct uring_backend *b, struct loop_watch *w)
{
        struct io_uring_sqe *sqe;
        int ret = get_sqe(b, &sqe);

        if (ret)
                return ret;
        io_uring_prep_poll_add(sqe, w->fd, w->events);
        io_uring_sqe_set_data(sqe, w);
        w->in_flight = true;
        return 0;
}

static int cancel_poll(struct uring_backend *b, struct loop_watch *w)
{
        struct io_uring_sqe *sqe;
        int ret;

        if (w->cancelling)
                return 0;
        ret = get_sqe(b, &sqe);
        if (ret)
                return ret;
        io_uring_prep_poll_remove(sqe, (uintptr_t)w);
        io_uring_sqe_set_data(sqe, NULL);
        w->cancelling = true;
        return 0;
}

static int uring_add(void *backend, struct loop_watch *w)
{
        return start_poll(backend, w);
}

static int uring_modify(void *backend, struct loop_watch *w)
{
        /* Not in flight: its callback is about to run or running, and rearm follows. */
        return w->in_flight ? cancel_poll(backend, w) : 0;
}

static bool uring_remove(void *backend, struct loop_watch *w)
{
        struct uring_backend *b = backend;

        if (!w->in_flight)
                return true;
        /* Should either fail, the watch stays until its event or the loop's end: late, not wrong.
         */
        if (cancel_poll(b, w) == 0)
                (void)io_uring_submit(&b->ring);
        return false;
}

static int uring_rearm(void *backend, struct loop_watch *w)
{
        return w->in_flight || w->failed ? 0 : start_poll(backend, w);
}

static int complete(struct uring_backend *b, const struct io_uring_cqe *cqe)
{
        struct loop_watch *w = io_uring_cqe_get_data(cqe);

        if (!w)
                return 0;
        w->in_flight = false;
        w->cancelling = false;
        if (w->dead) {
                loop_watch_released(w);
                return 0;
        }
        if (cqe->res == -ECANCELED)
                return start_poll(b, w);
        /* Seen with Linux 6.18: a poll of a terminal that is under way when somebody sets the
         * terminal's mode ends with EINVAL, and the next one works. */
        if (cqe->res == -EINVAL && w->again < AGAIN_MAX) {
                w->again++;
                return start_poll(b, w);
        }
        if (cqe->res < 0) { /* not pollable, or no memory: told once, and not tried again */
                w->failed = true;
                loop_watch_ready(w, POLLNVAL);
                return 0;
        }
        w->again = 0;
        loop_watch_ready(w, (unsigned)cqe->res);
        return 0;
}

static int uring_wait(void *backend, uint64_t timeout_ns)
{
        struct uring_backend *b = backend;
        struct __kernel_timespec ts = {
                .tv_sec = (long long)(timeout_ns / 1000000000u),
                .tv_nsec = (long long)(timeout_ns % 1000000000u),
        };
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        int ret;

        ret = io_uring_submit_and_wait_timeout(&b->ring, &cqe, 1,
                                               timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
        if (ret < 0 && ret != -ETIME && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
                return ret;
        ret = 0;
        io_uring_for_each_cqe(&b->ring, head, cqe)
        {
                int err = complete(b, cqe);

                if (err)
                        ret = err;
                seen++;
        }
        io_uring_cq_advance(&b->ring, seen);
        return ret;
}

const struct loop_backend loop_backend_uring = {
        .name = "io_uring",
        .create = uring_create,
        .destroy = uring_destroy,
        .add = uring_add,
        .modify = uring_modify,
        .remove = uring_remove,
        .rearm = uring_rearm,
        .wait = uring_wait,
};
