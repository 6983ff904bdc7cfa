/* SPDX-License-Identifier: Apache-2.0 */
/* Files read and written through the event loop: the same cases with io_uring, which is skipped
 * where the host forbids it, and with threads. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/loop.h"

#define MS    1000000ull
#define BLOCK 4096u
#define MANY  3000 /* more than the rings hold */

/* One I/O, and what has been seen of it. */
struct op {
        struct loop_io io;
        struct iovec iov;
        int landed, done; /* how often */
        int nth_landed, nth_done;
        struct op *then;       /* landed() starts it */
        struct op *after;      /* done() starts it */
        bool settles, drains;  /* done() does */
        unsigned char *expect; /* done() compares the buffer with it */
};

static struct fixture {
        bool uring;
        struct loop *loop;
        int file; /* a memfd of BLOCKS blocks; each byte says where it is */
        unsigned char *bytes;
        int landed, done; /* callbacks so far */
        bool starting;    /* within loop_io_start() */
} fx;

#define BLOCKS 64

static unsigned char byte_at(size_t at)
{
        return (unsigned char)(at / BLOCK * 7 + at);
}

static int setup(bool uring)
{
        fx = (struct fixture){.uring = uring};
        if (loop_create(uring, &fx.loop))
                return -1;
        fx.file = memfd_create("disk", MFD_CLOEXEC);
        fx.bytes = malloc(BLOCKS * BLOCK);
        if (fx.file < 0 || !fx.bytes)
                return -1;
        for (size_t i = 0; i < BLOCKS * BLOCK; i++)
                fx.bytes[i] = byte_at(i);
        return pwrite(fx.file, fx.bytes, BLOCKS * BLOCK, 0) == BLOCKS * BLOCK ? 0 : -1;
}

static int setup_uring(void **state)
{
        return setup(true);
}

static int setup_threads(void **state)
{
        return setup(false);
}

static int teardown(void **state)
{
        loop_destroy(fx.loop);
        close(fx.file);
        free(fx.bytes);
        return 0;
}

static void need_backend(void)
{
        if (fx.uring && strcmp(loop_backend(fx.loop), "io_uring") != 0)
                skip();
}

static void start(struct op *op)
{
        assert_false(fx.starting);
        fx.starting = true;
        loop_io_start(fx.loop, &op->io);
        fx.starting = false;
}

static void on_landed(struct loop_io *io)
{
        struct op *op = (struct op *)io;

        assert_false(fx.starting);
        op->landed++;
        op->nth_landed = ++fx.landed;
        if (op->then)
                start(op->then);
}

static void on_done(struct loop_io *io)
{
        struct op *op = (struct op *)io;

        assert_false(fx.starting);
        op->done++;
        if (io->landed)
                assert_int_equal(op->landed, op->done);
        op->nth_done = ++fx.done;
        if (op->expect)
                assert_memory_equal(op->iov.iov_base, op->expect, op->iov.iov_len);
        if (op->after)
                start(op->after);
        if (op->settles)
                loop_io_settle(fx.loop);
        if (op->drains)
                loop_io_drain(fx.loop);
}

static void make(struct op *op, enum loop_io_op what, uint64_t offset, void *buf, size_t len)
{
        *op = (struct op){
                .io = {.op = what,
                       .fd = fx.file,
                       .offset = offset,
                       .len = len,
                       .niov = 1,
                       .landed = on_landed,
                       .done = on_done},
                .iov = {.iov_base = buf, .iov_len = len},
        };
        op->io.iov = &op->iov;
}

/* Steps until @op is done; false when that takes more than ten seconds. */
static bool serve(const struct op *op)
{
        for (int i = 0; i < 1000 && !op->done; i++)
                assert_int_equal(loop_step(fx.loop, 10 * MS), 0);
        return op->done == 1;
}

static int result_of(struct op *op)
{
        start(op);
        assert_true(serve(op));
        return op->io.result;
}

/* ---- one at a time ---- */

static void reads_what_was_written(void **state)
{
        unsigned char a[3 * BLOCK], b[3 * BLOCK];
        struct iovec pieces[3] = {{b, 100}, {b + 100, BLOCK}, {b + 100 + BLOCK, 2 * BLOCK - 100}};
        struct op op;

        need_backend();
        for (size_t i = 0; i < sizeof a; i++)
                a[i] = (unsigned char)(i * 31);
        make(&op, LOOP_IO_WRITE, 5 * BLOCK + 1, a, sizeof a);
        assert_int_equal(result_of(&op), sizeof a);
        make(&op, LOOP_IO_READ, 5 * BLOCK + 1, b, sizeof b);
        assert_int_equal(result_of(&op), sizeof b);
        assert_memory_equal(a, b, sizeof a);

        memset(b, 0, sizeof b);
        make(&op, LOOP_IO_READ, 7 * BLOCK, NULL, 0);
        op.io.iov = pieces;
        op.io.niov = 3;
        assert_int_equal(result_of(&op), sizeof b);
        assert_memory_equal(b, a + 2 * BLOCK - 1, BLOCK + 1);
        assert_memory_equal(b + BLOCK + 1, fx.bytes + 8 * BLOCK + 1, 2 * BLOCK - 1);
        make(&op, LOOP_IO_WRITE, 0, NULL, 0);
        op.io.iov = pieces;
        op.io.niov = 3;
        assert_int_equal(result_of(&op), sizeof b);
        assert_int_equal(pread(fx.file, a, sizeof a, 0), sizeof a);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(lseek(fx.file, 0, SEEK_CUR), 0); /* not moved */
}

static void syncs_and_allocates(void **state)
{
        unsigned char b[BLOCK], zeros[BLOCK] = {0};
        struct op op;

        need_backend();
        make(&op, LOOP_IO_SYNC, 0, NULL, 0);
        assert_int_equal(result_of(&op), 0);
        make(&op, LOOP_IO_FALLOCATE, 2 * BLOCK, NULL, BLOCK);
        op.io.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        assert_int_equal(result_of(&op), 0);
        assert_int_equal(pread(fx.file, b, sizeof b, 2 * BLOCK), sizeof b);
        assert_memory_equal(b, zeros, sizeof b);
        assert_int_equal(pread(fx.file, b, sizeof b, 3 * BLOCK), sizeof b);
        assert_memory_equal(b, fx.bytes + 3 * BLOCK, sizeof b);
        assert_int_equal(pread(fx.file, b, sizeof b, BLOCK), sizeof b);
        assert_memory_equal(b, fx.bytes + BLOCK, sizeof b);
        make(&op, LOOP_IO_FALLOCATE, BLOCKS * BLOCK, NULL, BLOCK); /* grows it */
        assert_int_equal(result_of(&op), 0);
        assert_int_equal(lseek(fx.file, 0, SEEK_END), (BLOCKS + 1) * BLOCK);
        op.io.mode = 0x4000;
        op.landed = op.done = 0;
        assert_int_equal(result_of(&op), -EOPNOTSUPP);
}

static void nothing_is_an_io_too(void **state)
{
        struct op op[3];

        need_backend();
        for (int i = 0; i < 3; i++) {
                make(&op[i], LOOP_IO_NOP, 0, NULL, 0);
                op[i].then = i < 2 ? &op[i + 1] : NULL;
        }
        assert_int_equal(result_of(&op[0]), 0);
        loop_io_drain(fx.loop);
        assert_int_equal(op[2].io.result, 0);
        assert_int_equal(op[2].done, 1);
}

/* Without done() the struct is the caller's in landed(). */
static int again;

static void start_again(struct loop_io *io)
{
        if (++again < 300)
                loop_io_start(fx.loop, io);
        else
                free(io);
}

static void landed_may_use_the_struct_again(void **state)
{
        struct loop_io *io = calloc(1, sizeof *io);

        need_backend();
        again = 0;
        *io = (struct loop_io){.op = LOOP_IO_SYNC, .fd = fx.file, .landed = start_again};
        loop_io_start(fx.loop, io);
        loop_io_settle(fx.loop);
        assert_int_equal(again, 300);
}

static void an_end_of_file_gives_less(void **state)
{
        unsigned char b[2 * BLOCK];
        struct op op;

        need_backend();
        make(&op, LOOP_IO_READ, BLOCKS * BLOCK - 1000, b, sizeof b);
        assert_int_equal(result_of(&op), 1000);
        assert_memory_equal(b, fx.bytes + BLOCKS * BLOCK - 1000, 1000);
        make(&op, LOOP_IO_READ, BLOCKS * BLOCK, b, sizeof b);
        assert_int_equal(result_of(&op), 0);
}

static void failures_are_results(void **state)
{
        static struct iovec too_many[1025];
        unsigned char b[BLOCK] = {0};
        int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        int rdonly = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
        struct op op;

        need_backend();
        make(&op, LOOP_IO_READ, 0, b, sizeof b);
        op.io.fd = 9999;
        assert_int_equal(result_of(&op), -EBADF);
        make(&op, LOOP_IO_WRITE, 0, b, sizeof b);
        op.io.fd = rdonly;
        assert_int_equal(result_of(&op), -EBADF);
        make(&op, LOOP_IO_WRITE, 0, b, sizeof b);
        op.io.fd = full;
        assert_int_equal(result_of(&op), -ENOSPC);
        make(&op, LOOP_IO_READ, 0, (void *)16, sizeof b);
        assert_int_equal(result_of(&op), -EFAULT);
        make(&op, LOOP_IO_READ, 0, b, sizeof b);
        op.io.iov = too_many;
        op.io.niov = 1025;
        assert_int_equal(result_of(&op), -EINVAL);
        /* all ones would mean "where the file is at" to io_uring */
        make(&op, LOOP_IO_READ, UINT64_MAX, b, sizeof b);
        assert_int_equal(result_of(&op), -EINVAL);
        make(&op, LOOP_IO_WRITE, 1ull << 63, b, sizeof b);
        assert_int_equal(result_of(&op), -EINVAL);
        close(full);
        close(rdonly);
}

/* ---- landing, done ---- */

static void settling_lands_and_calls_no_done(void **state)
{
        unsigned char b[8][BLOCK];
        struct op op[8];
        uint64_t before;
        struct timespec ts;

        need_backend();
        loop_io_settle(fx.loop); /* nothing: nothing to wait for */
        for (int i = 0; i < 8; i++) {
                make(&op[i], LOOP_IO_READ, (unsigned)i * BLOCK, b[i], BLOCK);
                op[i].expect = fx.bytes + (unsigned)i * BLOCK;
                start(&op[i]);
        }
        loop_io_settle(fx.loop);
        for (int i = 0; i < 8; i++) {
                assert_int_equal(op[i].landed, 1);
                assert_int_equal(op[i].done, 0);
                assert_memory_equal(b[i], fx.bytes + (unsigned)i * BLOCK, BLOCK);
        }
        /* A step does not wait while somebody waits for done(). */
        clock_gettime(CLOCK_MONOTONIC, &ts);
        before = (uint64_t)ts.tv_sec;
        assert_int_equal(loop_step(fx.loop, 20000 * MS), 0);
        clock_gettime(CLOCK_MONOTONIC, &ts);
        assert_true((uint64_t)ts.tv_sec - before < 15);
        for (int i = 0; i < 8; i++) {
                assert_int_equal(op[i].done, 1);
                assert_int_equal(op[i].nth_done, op[i].nth_landed);
        }
        assert_int_equal(loop_step(fx.loop, 0), 0);
        assert_int_equal(fx.done, 8);
}

static void landed_may_start_more(void **state)
{
        unsigned char b[400][16];
        struct op op[400];

        need_backend();
        for (int i = 0; i < 400; i++) {
                make(&op[i], LOOP_IO_READ, (unsigned)i * 16, b[i], 16);
                op[i].then = i < 399 ? &op[i + 1] : NULL;
        }
        start(&op[0]);
        loop_io_settle(fx.loop);
        assert_int_equal(fx.landed, 400);
        assert_int_equal(fx.done, 0);
        loop_io_drain(fx.loop);
        for (int i = 0; i < 400; i++) {
                assert_int_equal(op[i].nth_landed, i + 1);
                assert_int_equal(op[i].nth_done, i + 1);
                assert_memory_equal(b[i], fx.bytes + i * 16, 16);
        }
}

static void callbacks_may_be_absent(void **state)
{
        unsigned char b[BLOCK];
        struct op op;

        need_backend();
        for (int i = 0; i < 4; i++) {
                make(&op, LOOP_IO_READ, 0, b, BLOCK);
                if (i & 1)
                        op.io.landed = NULL;
                if (i & 2)
                        op.io.done = NULL;
                start(&op);
                loop_io_drain(fx.loop);
                assert_int_equal(op.landed, !(i & 1));
                assert_int_equal(op.done, !(i & 2));
                assert_int_equal(op.io.result, BLOCK);
        }
}

static void done_may_start_settle_and_drain(void **state)
{
        unsigned char b[4][BLOCK];
        struct op op[4];

        need_backend();
        for (int i = 0; i < 4; i++)
                make(&op[i], LOOP_IO_READ, (unsigned)i * BLOCK, b[i], BLOCK);
        op[0].after = &op[1];
        op[0].settles = true;
        op[1].after = &op[2];
        op[1].drains = true;
        op[2].after = &op[3];
        start(&op[0]);
        assert_true(serve(&op[0]));
        assert_int_equal(op[1].landed, 1); /* settled in done() of the first */
        assert_true(serve(&op[1]));
        assert_int_equal(op[3].done, 1); /* drained in done() of the second */
        assert_int_equal(fx.done, 4);

        /* without help, a step after the other */
        for (int i = 0; i < 4; i++) {
                op[i].landed = op[i].done = 0;
                op[i].settles = op[i].drains = false;
        }
        start(&op[0]);
        loop_io_drain(fx.loop);
        assert_int_equal(fx.done, 8);
}

/* ---- with watches and timers ---- */

struct seen {
        int calls;
        struct op *start; /* and settle (or drain) within the callback */
        bool drain;
        int fd;
};

static void on_fd(void *data, int fd, unsigned events)
{
        struct seen *s = data;
        uint64_t count;

        s->calls++;
        assert_int_equal(read(fd, &count, sizeof count), sizeof count);
        if (!s->start)
                return;
        start(s->start);
        if (s->drain)
                loop_io_drain(fx.loop);
        else
                loop_io_settle(fx.loop);
        assert_int_equal(s->start->landed, 1);
        assert_int_equal(s->start->done, s->drain);
}

static void on_timer(void *data)
{
        ((struct seen *)data)->calls++;
}

static void ring(int fd)
{
        assert_int_equal(eventfd_write(fd, 1), 0);
}

static void settles_and_drains_within_a_callback(void **state)
{
        unsigned char b[BLOCK];
        struct op op, chained;
        struct seen s = {.start = &op};
        struct loop_watch *w;

        need_backend();
        s.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert_int_equal(loop_add_fd(fx.loop, s.fd, POLLIN, on_fd, &s, &w), 0);
        for (int i = 0; i < 20; i++) {
                make(&op, LOOP_IO_READ, 0, b, BLOCK);
                make(&chained, LOOP_IO_READ, 0, b, BLOCK);
                op.then = &chained;
                s.drain = i & 1;
                ring(s.fd);
                assert_true(serve(&chained));
                assert_int_equal(op.done, 1);
                assert_int_equal(s.calls, i + 1);
        }
        loop_remove(w);
        close(s.fd);
}

/* While a loop drains, nothing else is called; what happens meanwhile is called afterwards. */
static void draining_leaves_watches_and_timers_for_later(void **state)
{
        unsigned char b[64][BLOCK];
        struct seen s[3] = {0}, timer = {0};
        struct loop_watch *w[3], *t;
        struct op op[64];

        need_backend();
        assert_int_equal(loop_add_timer(fx.loop, 0, on_timer, &timer, &t), 0);
        assert_int_equal(loop_step(fx.loop, 0), 0);
        for (int i = 0; i < 3; i++) {
                s[i].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
                assert_int_equal(loop_add_fd(fx.loop, s[i].fd, POLLIN, on_fd, &s[i], &w[i]), 0);
        }
        for (int round = 1; round <= 20; round++) {
                timer.calls = 0;
                assert_int_equal(loop_rearm_timer(t, 0), 0);
                for (int i = 0; i < 64; i++) {
                        make(&op[i], LOOP_IO_READ, (unsigned)i * BLOCK, b[i], BLOCK);
                        start(&op[i]);
                        if (i % 16 == 0 && i < 48)
                                ring(s[i / 16].fd);
                }
                loop_io_drain(fx.loop);
                assert_int_equal(fx.done, 64 * round);
                assert_int_equal(timer.calls, 0);
                for (int i = 0; i < 3; i++)
                        assert_int_equal(s[i].calls, round - 1);
                for (int i = 0; i < 4; i++)
                        assert_int_equal(loop_step(fx.loop, 0), 0);
                assert_int_equal(timer.calls, 1);
                for (int i = 0; i < 3; i++)
                        assert_int_equal(s[i].calls, round);
        }
        /* Seen while draining, removed before the next step. */
        ring(s[0].fd);
        make(&op[0], LOOP_IO_READ, 0, b[0], BLOCK);
        start(&op[0]);
        loop_io_drain(fx.loop);
        for (int i = 0; i < 3; i++)
                loop_remove(w[i]);
        assert_int_equal(loop_step(fx.loop, 5 * MS), 0);
        assert_int_equal(s[0].calls, 20);
        for (int i = 0; i < 3; i++)
                close(s[i].fd);
        loop_remove(t);
}

/* An I/O whose done() starts the next one does not keep the loop from watches and timers. */
static void busy_files_starve_nobody(void **state)
{
        unsigned char b[2][BLOCK];
        struct seen s = {0}, timer = {0};
        struct loop_watch *w, *t;
        struct op op[2];

        need_backend();
        s.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert_int_equal(loop_add_fd(fx.loop, s.fd, POLLIN, on_fd, &s, &w), 0);
        assert_int_equal(loop_add_timer(fx.loop, MS, on_timer, &timer, &t), 0);
        make(&op[0], LOOP_IO_READ, 0, b[0], BLOCK);
        make(&op[1], LOOP_IO_READ, 0, b[1], BLOCK);
        op[0].after = &op[1];
        op[1].after = &op[0];
        op[0].settles = op[1].settles = true;
        ring(s.fd);
        start(&op[0]);
        for (int i = 0; i < 100000 && (!timer.calls || !s.calls); i++)
                assert_int_equal(loop_step(fx.loop, 100 * MS), 0);
        assert_int_equal(s.calls, 1);
        assert_int_equal(timer.calls, 1);
        op[0].after = op[1].after = NULL;
        loop_io_drain(fx.loop);
        loop_remove(w);
        loop_remove(t);
        close(s.fd);
}

/* ---- many ---- */

static struct op many[MANY];
static unsigned char many_bytes[MANY][64];

static void start_many(void)
{
        for (unsigned i = 0; i < MANY; i++) {
                size_t at = (size_t)i * 911 % (BLOCKS * BLOCK - 64);

                memset(many_bytes[i], 0, 64);
                make(&many[i], LOOP_IO_READ, at, many_bytes[i], 64);
                many[i].expect = fx.bytes + at;
                if (i % 10 == 3) /* goes to a thread of the kernel's */
                        many[i].io.op = LOOP_IO_SYNC;
                if (many[i].io.op == LOOP_IO_SYNC)
                        many[i].expect = NULL;
                start(&many[i]);
        }
}

static void many_are_in_flight(void **state)
{
        struct seen s = {0};
        struct loop_watch *w;

        need_backend();
        s.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        assert_int_equal(loop_add_fd(fx.loop, s.fd, POLLIN, on_fd, &s, &w), 0);
        for (int way = 0; way < 3; way++) {
                fx.landed = fx.done = s.calls = 0;
                start_many();
                ring(s.fd);
                if (way == 0)
                        loop_io_drain(fx.loop);
                if (way == 1)
                        loop_io_settle(fx.loop);
                for (int i = 0; i < 10000 && (fx.done < MANY || !s.calls); i++)
                        assert_int_equal(loop_step(fx.loop, 1000 * MS), 0);
                assert_int_equal(s.calls, 1);
                assert_int_equal(fx.landed, MANY);
                for (int i = 0; i < MANY; i++) {
                        assert_int_equal(many[i].done, 1);
                        assert_int_equal(many[i].nth_done, many[i].nth_landed);
                        assert_int_equal(many[i].io.result, many[i].io.op == LOOP_IO_READ ? 64 : 0);
                }
        }
        loop_remove(w);
        close(s.fd);
}

static void destroying_finishes_what_is_in_flight(void **state)
{
        need_backend();
        start_many();
        loop_destroy(fx.loop);
        fx.loop = NULL;
        assert_int_equal(fx.done, MANY);
}

static void no_signal(int sig)
{
}

/* Signals, for which waits end early, change nothing. */
static void signals_do_no_harm(void **state)
{
        struct sigaction sa = {.sa_handler = no_signal}; /* no SA_RESTART */
        struct itimerval often = {.it_interval.tv_usec = 50, .it_value.tv_usec = 50}, never = {0};

        need_backend();
        assert_int_equal(sigaction(SIGALRM, &sa, NULL), 0);
        assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
        for (int i = 0; i < 5; i++) {
                start_many();
                loop_io_drain(fx.loop);
        }
        assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
        assert_int_equal(fx.done, 5 * MANY);
}

static void preparing_twice_is_fine(void **state)
{
        unsigned char b[BLOCK];
        struct op op;

        need_backend();
        assert_int_equal(loop_io_prepare(fx.loop), 0);
        assert_int_equal(loop_io_prepare(fx.loop), 0);
        make(&op, LOOP_IO_READ, BLOCK, b, BLOCK);
        assert_int_equal(result_of(&op), BLOCK);
}

#define BOTH(f)                                                                                    \
        {#f " (io_uring)", f, setup_uring, teardown, NULL},                                        \
        {                                                                                          \
#f " (threads)", f, setup_threads, teardown, NULL                                  \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                BOTH(reads_what_was_written),
                BOTH(syncs_and_allocates),
                BOTH(nothing_is_an_io_too),
                BOTH(landed_may_use_the_struct_again),
                BOTH(an_end_of_file_gives_less),
                BOTH(failures_are_results),
                BOTH(settling_lands_and_calls_no_done),
                BOTH(landed_may_start_more),
                BOTH(callbacks_may_be_absent),
                BOTH(done_may_start_settle_and_drain),
                BOTH(settles_and_drains_within_a_callback),
                BOTH(draining_leaves_watches_and_timers_for_later),
                BOTH(busy_files_starve_nobody),
                BOTH(many_are_in_flight),
                BOTH(destroying_finishes_what_is_in_flight),
                BOTH(signals_do_no_harm),
                BOTH(preparing_twice_is_fine),
        };

        return cmocka_run_group_tests_name("loop_io", tests, NULL, NULL);
}
