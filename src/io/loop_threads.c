/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O on files where there is no io_uring: a few threads that call preadv(), pwritev(), fdatasync()
 * and fallocate(), and two queues between them and the loop's thread.
 *
 *      loop's thread    todo   ------>   threads
 *                       ended  <------
 *                       eventfd, written when `ended` was empty
 *
 * An I/O belongs to whoever took it off a queue; the lock is held to put and to take, never during
 * a call. The threads block every signal: those are for the program's own threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/loop_internal.h"

#define THREADS 4

struct loop_threads {
        pthread_mutex_t lock;
        pthread_cond_t work;       /* todo is not empty, or stop */
        pthread_cond_t news;       /* ended is not empty */
        struct loop_ios todo;      /* [lock] */
        struct loop_ios ended;     /* [lock] */
        bool stop;                 /* [lock] */
        int event_fd;              /* [I] */
        unsigned n;                /* [I] */
        pthread_t thread[THREADS]; /* [I] */
};

int loop_io_perform(const struct loop_io *io)
{
        ssize_t n = -1;

        do {
                switch (io->op) {
                case LOOP_IO_READ:
                        n = preadv(io->fd, io->iov, (int)io->niov, (off_t)io->offset);
                        break;
                case LOOP_IO_WRITE:
                        n = pwritev(io->fd, io->iov, (int)io->niov, (off_t)io->offset);
                        break;
                case LOOP_IO_SYNC:
                        n = fdatasync(io->fd);
                        break;
                case LOOP_IO_FALLOCATE:
                        n = fallocate(io->fd, io->mode, (off_t)io->offset, (off_t)io->len);
                        break;
                case LOOP_IO_NOP:
                        n = 0;
                        break;
                }
        } while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : (int)n; /* the kernel moves less than 2 GiB at a time */
}

static void *work(void *data)
{
        struct loop_threads *t = data;

        pthread_mutex_lock(&t->lock);
        for (;;) {
                const uint64_t one = 1;
                struct loop_io *io = loop_ios_pop(&t->todo);
                bool first;

                if (!io && t->stop)
                        break;
                if (!io) {
                        pthread_cond_wait(&t->work, &t->lock);
                        continue;
                }
                pthread_mutex_unlock(&t->lock);
                io->result = loop_io_perform(io);
                pthread_mutex_lock(&t->lock);
                first = !t->ended.first;
                loop_ios_push(&t->ended, io);
                if (first) {
                        pthread_cond_signal(&t->news);
                        if (write(t->event_fd, &one, sizeof one) < 0) {
                                /* EAGAIN: it is readable as it is */
                        }
                }
        }
        pthread_mutex_unlock(&t->lock);
        return NULL;
}

/* As many as there may be; none is an error. */
static int start_threads(struct loop_threads *t)
{
        sigset_t all, old;
        int ret = 0;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        while (!ret && t->n < THREADS) {
                ret = -pthread_create(&t->thread[t->n], NULL, work, t);
                if (!ret)
                        t->n++;
        }
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return t->n ? 0 : ret;
}

int loop_threads_create(struct loop_threads **out)
{
        struct loop_threads *t = calloc(1, sizeof *t);
        int ret;

        if (!t)
                return -ENOMEM;
        t->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (t->event_fd < 0) {
                ret = -errno;
                free(t);
                return ret;
        }
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->work, NULL);
        pthread_cond_init(&t->news, NULL);
        ret = start_threads(t);
        if (ret) {
                loop_threads_destroy(t);
                return ret;
        }
        *out = t;
        return 0;
}

void loop_threads_destroy(struct loop_threads *t)
{
        if (!t)
                return;
        pthread_mutex_lock(&t->lock);
        t->stop = true;
        pthread_cond_broadcast(&t->work);
        pthread_mutex_unlock(&t->lock);
        for (unsigned i = 0; i < t->n; i++)
                pthread_join(t->thread[i], NULL);
        pthread_cond_destroy(&t->news);
        pthread_cond_destroy(&t->work);
        pthread_mutex_destroy(&t->lock);
        close(t->event_fd);
        free(t);
}

int loop_threads_fd(const struct loop_threads *t)
{
        return t->event_fd;
}

void loop_threads_start(struct loop_threads *t, struct loop_io *io)
{
        pthread_mutex_lock(&t->lock);
        loop_ios_push(&t->todo, io);
        pthread_cond_signal(&t->work);
        pthread_mutex_unlock(&t->lock);
}

struct loop_ios loop_threads_take(struct loop_threads *t, bool wait)
{
        struct loop_ios ended;
        uint64_t count;

        pthread_mutex_lock(&t->lock);
        while (wait && !t->ended.first)
                pthread_cond_wait(&t->news, &t->lock);
        ended = t->ended;
        t->ended = (struct loop_ios){0};
        /* Under the lock: whoever ends next finds the queue empty and writes again. */
        if (ended.first && read(t->event_fd, &count, sizeof count) < 0) {
                /* EAGAIN: cannot be, and would not matter */
        }
        pthread_mutex_unlock(&t->lock);
        return ended;
}
