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
 * An I/O is one request. Those that find the submission queue full, or IO_MAX of them under way,
 * wait in a backlog, which goes in whenever the loop waits; so the completion queue, which has more
 * room than that, does not overflow (the kernel would keep what does not fit, while it has memory).
 * Requests are queued by loop_io_start() and submitted by the call that waits, as polls are: a
 * request that the page cache can serve has ended when that call returns, and costs no second one.
 *
 * A completion is taken off the queue before anything is done about it, since landed() may start
 * more, and may have to submit to do so.
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

#define ENTRIES     128
#define COMPLETIONS 1024
#define IO_MAX      512 /* the rest of COMPLETIONS is for watches, two each at most */
#define AGAIN_MAX   16
/* The kernel moves no more bytes in one request, and the length of a READ is 32 bits. */
#define ONE_IOV_MAX 0x7ffff000u

/* In user_data, next to the pointer: it is to a struct loop_io, not to a watch. */
#define IS_IO 1u

struct uring_backend {
        struct io_uring ring;    /* [t] */
        struct loop *loop;       /* [I] */
        unsigned ios;            /* [t] queued or submitted, and not completed */
        struct loop_ios backlog; /* [t] started, and not queued yet */
};

/* Operations of a ring are no system calls, so that no seccomp filter sees them: a process that is
 * confined could open files through a ring that lets it. This one can poll, and read and write what
 * is open, for good. Linux 5.10, which has all of these operations. */
static int restrict_ring(struct io_uring *ring)
{
        struct io_uring_restriction allowed[] = {
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_ADD},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_POLL_REMOVE},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READ},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_READV},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITE},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_WRITEV},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FSYNC},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_FALLOCATE},
                {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP},
        };

        /* liburing 2.3 declares functions for both, and lacks them */
        if (syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS, allowed,
                    sizeof allowed / sizeof *allowed) ||
            syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0))
                return -errno;
        return 0;
}

static int init_ring(struct io_uring *ring, unsigned flags)
{
        struct io_uring_params params = {
                .flags = IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE | flags,
                .cq_entries = COMPLETIONS,
        };

        return io_uring_queue_init_params(ENTRIES, ring, &params);
}

static int uring_create(struct loop *loop, void **out)
{
        struct uring_backend *b = calloc(1, sizeof *b);
        int ret;

        if (!b)
                return -ENOMEM;
        b->loop = loop;
        /* COOP_TASKRUN: completions wait until this thread enters the kernel, no interrupt */
        ret = init_ring(&b->ring, IORING_SETUP_COOP_TASKRUN);
        if (ret == -EINVAL) /* before Linux 5.19 */
                ret = init_ring(&b->ring, 0);
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

/* ---- I/O ---- */

static void prepare_io(struct io_uring_sqe *sqe, struct loop_io *io)
{
        const struct iovec *iov = io->iov;
        bool one = io->niov == 1 && iov->iov_len <= ONE_IOV_MAX;
        /* All ones would mean "where the file is at"; this is refused, as preadv() does. */
        uint64_t at = io->offset == UINT64_MAX ? UINT64_MAX - 1 : io->offset;

        switch (io->op) {
        case LOOP_IO_READ:
                if (one)
                        io_uring_prep_read(sqe, io->fd, iov->iov_base, (unsigned)iov->iov_len, at);
                else
                        io_uring_prep_readv(sqe, io->fd, iov, io->niov, at);
                break;
        case LOOP_IO_WRITE:
                if (one)
                        io_uring_prep_write(sqe, io->fd, iov->iov_base, (unsigned)iov->iov_len, at);
                else
                        io_uring_prep_writev(sqe, io->fd, iov, io->niov, at);
                break;
        case LOOP_IO_SYNC:
                io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
                break;
        case LOOP_IO_FALLOCATE:
                io_uring_prep_fallocate(sqe, io->fd, io->mode, (off_t)io->offset, (off_t)io->len);
                break;
        case LOOP_IO_NOP:
                io_uring_prep_nop(sqe);
                break;
        }
        sqe->user_data = (uintptr_t)io | IS_IO;
}

/* From the backlog into the queue, as far as there is room. */
static void feed(struct uring_backend *b)
{
        while (b->backlog.first && b->ios < IO_MAX) {
                struct io_uring_sqe *sqe;

                if (get_sqe(b, &sqe))
                        return; /* the kernel is short of something: when the loop waits */
                prepare_io(sqe, loop_ios_pop(&b->backlog));
                b->ios++;
        }
}

static void uring_io_start(void *backend, struct loop_io *io)
{
        struct uring_backend *b = backend;

        loop_ios_push(&b->backlog, io);
        feed(b);
}

static void complete_io(struct uring_backend *b, struct loop_io *io, int res)
{
        b->ios--;
        if ((res == -EINTR || res == -EAGAIN) && io->tries < AGAIN_MAX) {
                io->tries++;
                loop_ios_push(&b->backlog, io);
                return;
        }
        loop_io_landed(b->loop, io, res);
}

/* ---- waiting ---- */

struct completion {
        uint64_t user_data;
        int res;
};

static bool next_completion(struct io_uring *ring, struct completion *c)
{
        struct io_uring_cqe *cqe;
        unsigned head;

        io_uring_for_each_cqe(ring, head, cqe)
        {
                *c = (struct completion){cqe->user_data, cqe->res};
                io_uring_cq_advance(ring, 1);
                return true;
        }
        return false;
}

static int complete_poll(struct uring_backend *b, struct loop_watch *w, int res)
{
        if (!w)
                return 0;
        w->in_flight = false;
        w->cancelling = false;
        if (w->dead) {
                loop_watch_released(w);
                return 0;
        }
        if (res == -ECANCELED)
                return start_poll(b, w);
        /* Seen with Linux 6.18: a poll of a terminal that is under way when somebody sets the
         * terminal's mode ends with EINVAL, and the next one works. */
        if (res == -EINVAL && w->again < AGAIN_MAX) {
                w->again++;
                return start_poll(b, w);
        }
        if (res < 0) { /* not pollable, or no memory: told once, and not tried again */
                w->failed = true;
                loop_watch_ready(w, POLLNVAL);
                return 0;
        }
        w->again = 0;
        loop_watch_ready(w, (unsigned)res);
        return 0;
}

static int complete(struct uring_backend *b, const struct completion *c)
{
        void *what = (void *)(uintptr_t)(c->user_data & ~(uint64_t)IS_IO);

        if (!(c->user_data & IS_IO))
                return complete_poll(b, what, c->res);
        complete_io(b, what, c->res);
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
        struct completion c;
        int ret;

        feed(b);
        ret = io_uring_submit_and_wait_timeout(&b->ring, &cqe, 1,
                                               timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
        if (ret < 0 && ret != -ETIME && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
                return ret;
        ret = 0;
        for (unsigned n = io_uring_cq_ready(&b->ring); n && next_completion(&b->ring, &c); n--) {
                int err = complete(b, &c);

                if (err)
                        ret = err;
        }
        return ret;
}

static int uring_fd(void *backend)
{
        const struct uring_backend *b = backend;

        return b->ring.ring_fd;
}

static int uring_submit(void *backend)
{
        struct uring_backend *b = backend;
        int ret = 0;

        feed(b);
        if (io_uring_sq_ready(&b->ring))
                ret = io_uring_submit(&b->ring);
        return ret < 0 && ret != -EAGAIN && ret != -EBUSY && ret != -EINTR ? ret : 0;
}

static int uring_io_wait(void *backend)
{
        return uring_wait(backend, UINT64_MAX);
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
        .fd = uring_fd,
        .submit = uring_submit,
        .io_start = uring_io_start,
        .io_wait = uring_io_wait,
};
