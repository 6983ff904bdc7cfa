/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The character backend: see chardev.h.
 *
 *      vCPU threads                     |  loop's thread
 *      chardev_write -> [ ring buffer ] -> flush -> descriptor
 *                            | kick     |    ^ POLLOUT after EAGAIN
 *                            +--eventfd-+----+
 *      device <- ops->input <---------- | <- POLLIN, while the device has room
 *
 * A writer never touches the descriptor: it puts bytes into the ring and kicks the loop's thread
 * through an eventfd of the chardev's own (the loop has one wake function, which is not ours).
 * Kicks merge: only the first after the thread has last looked costs a system call. The thread
 * writes at once and asks for POLLOUT only when the descriptor has had enough; then the watch goes
 * away again, since a hang-up is reported whether asked for or not.
 *
 * Bytes [head, head + len) of the ring belong to the loop's thread, which writes them out without
 * the lock; the rest belongs to writers, under the lock. Only the loop's thread moves head.
 *
 * Both directions can stall, and a stall must end although the two sides do not wait for each
 * other:
 * - output: whoever is told "no room" sets full_seen under the lock, and the flush that makes room
 *   clears it and calls output_ready.
 * - input: the loop's thread finds no room in the device, sets input_waiting, and looks once more;
 * the device makes room and then looks at input_waiting. Each writes before it reads (both
 * sequentially consistent, or under the device's lock), so at least one of them sees the other:
 * Dekker's pattern.
 *
 * A sink stands in for both descriptors: output goes to it instead of the ring, under the lock,
 * which keeps what two devices write in order; input comes from it as from a file, until it has
 * none, and is asked for again when chardev_feed() says so. Nothing of it is written later, so no
 * output costs a kick.
 *
 * An output that fails (its reader has gone, the disk is full) swallows everything from then on: a
 * guest is not to hang on a console that nobody reads.
 */
#include "io/chardev.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "io/match.h"
#include "io/nbfd.h"

#define OUT_SIZE    65536 /* a power of two */
#define IN_CHUNK    4096
#define DISCARD_MAX (1u << 20) /* as much as a pipe holds */
#define MAX_ROUNDS  16         /* reads or writes in a row before other watches have their turn */

struct chardev {
        struct loop *loop;             /* [I] */
        int kick_fd;                   /* [I] eventfd */
        struct loop_watch *kick_watch; /* [I] */
        struct nbfd in;                /* [t] kind NBFD_NONE: none, or it has ended */
        struct nbfd out;               /* [t] */
        struct chardev_sink sink;      /* [I] its functions NULL: descriptors */
        struct loop_watch *in_watch;   /* [t] NULL while the device has no room */
        struct loop_watch *out_watch;  /* [t] only while the descriptor is full */
        struct chardev_user {
                const struct chardev_ops *ops; /* NULL: the place is free */
                void *dev;
        } users[CHARDEV_DEVICES];         /* [t] */
        const struct chardev_user *input; /* [t] the one that takes input, or NULL */
        atomic_bool kick_pending;         /* [a] as wake_pending in loop.c */
        atomic_bool input_waiting; /* [a] no room was seen; pairs with chardev_input_ready() */
        atomic_bool input_wanted;  /* [a] the kick is about input, too */
        pthread_mutex_t lock;
        size_t head;              /* [m] changed by the loop's thread only */
        size_t len;               /* [m] */
        bool full_seen;           /* [m] somebody waits for output_ready */
        bool discard;             /* [m] there is nothing to write to */
        struct match match;       /* [m] */
        void (*match_fn)(void *); /* [m] NULL: not armed */
        bool match_always;        /* [m] armed again after a match */
        void *match_data;         /* [m] */
        uint8_t ring[OUT_SIZE];   /* see above */
};

const char *const chardev_syscalls[] = {
        "read",           "write",         "sendto",          "recvfrom", "poll",          "close",
        "rt_sigprocmask", "rt_sigpending", "rt_sigtimedwait", "futex",    "clock_gettime", NULL,
};

/* ---- output: any thread ---- */

static void kick(struct chardev *cd)
{
        const uint64_t one = 1;

        if (atomic_exchange(&cd->kick_pending, true))
                return;
        if (write(cd->kick_fd, &one, sizeof one) < 0)
                return; /* the counter is full, so it is readable as it is */
}

/* Under the lock: take what fits, no further than a match. Returns the number of bytes; *fn is the
 * function to call for it, or NULL. */
static size_t take(struct chardev *cd, const uint8_t *data, size_t len, void (**fn)(void *),
                   void **fn_data)
{
        size_t room = cd->discard ? len : OUT_SIZE - cd->len, tail, first;
        bool hit = false;

        if (len > room) {
                cd->full_seen = true;
                len = room;
        }
        if (cd->match_fn)
                len = match_feed(&cd->match, data, len, &hit);
        if (hit) {
                *fn = cd->match_fn;
                *fn_data = cd->match_data;
                if (!cd->match_always)
                        cd->match_fn = NULL;
        }
        if (cd->sink.output)
                cd->sink.output(cd->sink.data, data, len);
        if (cd->discard)
                return len;
        tail = (cd->head + cd->len) % OUT_SIZE;
        first = len < OUT_SIZE - tail ? len : OUT_SIZE - tail;
        memcpy(cd->ring + tail, data, first);
        memcpy(cd->ring, data + first, len - first);
        cd->len += len;
        return len;
}

size_t chardev_write(struct chardev *cd, const void *data, size_t len)
{
        void (*fn)(void *);
        size_t done = 0;

        do {
                void *fn_data = NULL;
                size_t n;
                bool discarded;

                fn = NULL;
                pthread_mutex_lock(&cd->lock);
                n = take(cd, (const uint8_t *)data + done, len - done, &fn, &fn_data);
                discarded = cd->discard;
                pthread_mutex_unlock(&cd->lock);
                done += n;
                if (n > 0 && !discarded)
                        kick(cd);
                if (fn)
                        fn(fn_data);
        } while (fn && done < len);
        return done;
}

size_t chardev_space(struct chardev *cd)
{
        size_t room;

        pthread_mutex_lock(&cd->lock);
        room = OUT_SIZE - cd->len;
        if (room == 0)
                cd->full_seen = true;
        pthread_mutex_unlock(&cd->lock);
        return room;
}

bool chardev_drained(struct chardev *cd)
{
        bool drained;

        pthread_mutex_lock(&cd->lock);
        drained = cd->len == 0;
        pthread_mutex_unlock(&cd->lock);
        return drained;
}

int chardev_watch_output(struct chardev *cd, const char *text, enum chardev_watch how,
                         void (*fn)(void *data), void *data)
{
        int ret;

        pthread_mutex_lock(&cd->lock);
        ret = match_init(&cd->match, text);
        if (ret == 0) {
                cd->match_fn = cd->match.len ? fn : NULL;
                cd->match_data = data;
                cd->match_always = how == CHARDEV_ALWAYS;
        }
        pthread_mutex_unlock(&cd->lock);
        return ret;
}

/* ---- output: the loop's thread ---- */

/* @n bytes are out (or, with @discard, given up for good): their room is free again. */
static void consumed(struct chardev *cd, size_t n, bool discard)
{
        bool tell;

        pthread_mutex_lock(&cd->lock);
        if (discard) {
                cd->discard = true;
                n = cd->len;
        }
        cd->head = (cd->head + n) % OUT_SIZE;
        cd->len -= n;
        tell = cd->full_seen && n > 0;
        if (tell)
                cd->full_seen = false;
        pthread_mutex_unlock(&cd->lock);
        for (size_t i = 0; tell && i < CHARDEV_DEVICES; i++) {
                const struct chardev_user *u = &cd->users[i];

                if (u->ops && u->ops->output_ready)
                        u->ops->output_ready(u->dev);
        }
}

/* Write once. 0: nothing is left; 1: go on; -EAGAIN: the descriptor is full. */
static int write_some(struct chardev *cd)
{
        size_t n, head;
        ssize_t ret;

        pthread_mutex_lock(&cd->lock);
        head = cd->head;
        n = cd->len < OUT_SIZE - head ? cd->len : OUT_SIZE - head;
        pthread_mutex_unlock(&cd->lock);
        if (n == 0)
                return 0;
        ret = nbfd_write(&cd->out, cd->ring + head, n);
        if (ret == -EAGAIN)
                return -EAGAIN;
        if (ret < 0)
                consumed(cd, 0, true);
        else
                consumed(cd, (size_t)ret, false);
        return 1;
}

static void on_writable(void *data, int fd, unsigned events);

static void flush(struct chardev *cd)
{
        int ret = 1;

        for (int i = 0; i < MAX_ROUNDS && ret > 0; i++)
                ret = write_some(cd);
        if (ret == -EAGAIN) {
                if (!cd->out_watch &&
                    loop_add_fd(cd->loop, cd->out.fd, POLLOUT, on_writable, cd, &cd->out_watch))
                        consumed(cd, 0, true);
                return;
        }
        loop_remove(cd->out_watch);
        cd->out_watch = NULL;
        if (ret > 0)
                kick(cd);
}

static void on_writable(void *data, int fd, unsigned events)
{
        flush(data);
}

/* ---- input ---- */

static bool has_input(const struct chardev *cd)
{
        return cd->sink.input || cd->in.kind != NBFD_NONE;
}

static ssize_t read_input(struct chardev *cd, void *buf, size_t len)
{
        size_t n;

        if (!cd->sink.input)
                return nbfd_read(&cd->in, buf, len);
        n = cd->sink.input(cd->sink.data, buf, len);
        return n > 0 ? (ssize_t)n : -EAGAIN;
}

static void end_input(struct chardev *cd)
{
        loop_remove(cd->in_watch);
        cd->in_watch = NULL;
        nbfd_fini(&cd->in);
}

/* Room in the device. When there is none, input_waiting has been set, so that the device will call.
 */
static size_t room_or_wait(struct chardev *cd)
{
        const struct chardev_user *u = cd->input;
        size_t room = u->ops->input_room(u->dev);

        if (room > 0)
                return room;
        atomic_store(&cd->input_waiting, true); /* pairs with chardev_input_ready() */
        room = u->ops->input_room(u->dev);
        if (room > 0)
                atomic_store(&cd->input_waiting, false);
        return room;
}

/* Read once into the device. True: there may be more, and there may be room. */
static bool read_some(struct chardev *cd)
{
        uint8_t buf[IN_CHUNK];
        size_t room = room_or_wait(cd);
        ssize_t n;

        if (room == 0)
                return false;
        n = read_input(cd, buf, room < sizeof buf ? room : sizeof buf);
        if (n == -EAGAIN)
                return false;
        if (n <= 0) {
                end_input(cd);
                return false;
        }
        cd->input->ops->input(cd->input->dev, buf, (size_t)n);
        return true;
}

static void on_readable(void *data, int fd, unsigned events);

/* Read what there is for a file or a sink; otherwise watch as long as the device has room. */
static void pump_input(struct chardev *cd)
{
        bool more = true;

        if (!cd->input || !has_input(cd))
                return;
        if (cd->sink.input || cd->in.kind == NBFD_FILE) {
                for (int i = 0; i < MAX_ROUNDS && more; i++)
                        more = read_some(cd);
                if (more) {
                        atomic_store(&cd->input_wanted, true);
                        kick(cd);
                }
        } else if (room_or_wait(cd) == 0) {
                loop_remove(cd->in_watch);
                cd->in_watch = NULL;
        } else if (!cd->in_watch) {
                if (loop_add_fd(cd->loop, cd->in.fd, POLLIN, on_readable, cd, &cd->in_watch))
                        end_input(cd);
        }
}

static void on_readable(void *data, int fd, unsigned events)
{
        struct chardev *cd = data;

        read_some(cd);
        pump_input(cd);
}

void chardev_input_ready(struct chardev *cd)
{
        if (!atomic_exchange(&cd->input_waiting, false)) /* pairs with room_or_wait() */
                return;
        atomic_store(&cd->input_wanted, true);
        kick(cd);
}

void chardev_feed(struct chardev *cd)
{
        pump_input(cd);
}

/* Bounded: somebody may type faster than we throw away. */
void chardev_discard(struct chardev *cd)
{
        uint8_t buf[IN_CHUNK];

        if (cd->sink.discard)
                cd->sink.discard(cd->sink.data);
        if (cd->in.kind == NBFD_FILE)
                return;
        for (size_t n = 0; n < DISCARD_MAX && cd->in.kind != NBFD_NONE; n += sizeof buf) {
                ssize_t ret = nbfd_read(&cd->in, buf, sizeof buf);

                if (ret == -EAGAIN)
                        return;
                if (ret <= 0)
                        end_input(cd);
        }
}

/* ---- create, attach, destroy ---- */

static void on_kick(void *data, int fd, unsigned events)
{
        struct chardev *cd = data;
        uint64_t count;

        if (read(fd, &count, sizeof count) < 0)
                return;
        atomic_store(&cd->kick_pending, false); /* after the read: loop.c says why */
        flush(cd);
        if (atomic_exchange(&cd->input_wanted, false))
                pump_input(cd);
}

/* Close what nbfd_init() opened anew, or what was duplicated: all but the caller's own. */
static void drop(struct nbfd *n, int callers_fd)
{
        if (n->fd != callers_fd)
                nbfd_fini(n);
}

static int create_fds(struct chardev *cd, int in_fd, int out_fd)
{
        int ret, out = out_fd;

        /* one descriptor for both: two watches need two numbers */
        if (out_fd >= 0 && out_fd == in_fd) {
                out = fcntl(out_fd, F_DUPFD_CLOEXEC, 0);
                if (out < 0)
                        return -errno;
        }
        ret = nbfd_init(&cd->in, in_fd, false);
        if (ret == 0)
                ret = nbfd_init(&cd->out, out, true);
        if (out != out_fd && (ret || cd->out.fd != out))
                close(out);
        if (ret)
                drop(&cd->in, in_fd);
        cd->discard = cd->out.kind == NBFD_NONE;
        return ret;
}

/* Without anything to read or write yet. */
static int create(struct loop *loop, struct chardev **out)
{
        struct chardev *cd = calloc(1, sizeof *cd);
        int ret;

        if (!cd)
                return -ENOMEM;
        cd->loop = loop;
        pthread_mutex_init(&cd->lock, NULL);
        cd->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (cd->kick_fd < 0) {
                ret = -errno;
                goto free_cd;
        }
        cd->discard = true;
        ret = loop_add_fd(loop, cd->kick_fd, POLLIN, on_kick, cd, &cd->kick_watch);
        if (ret)
                goto close_kick;
        *out = cd;
        return 0;

close_kick:
        close(cd->kick_fd);
free_cd:
        pthread_mutex_destroy(&cd->lock);
        free(cd);
        return ret;
}

int chardev_create(struct loop *loop, int in_fd, int out_fd, struct chardev **out)
{
        struct chardev *cd;
        int ret = create(loop, &cd);

        if (ret)
                return ret;
        ret = create_fds(cd, in_fd, out_fd);
        if (ret) {
                cd->in = cd->out = (struct nbfd){0}; /* the caller's still */
                chardev_destroy(cd, 0);
                return ret;
        }
        /* It has succeeded, so the descriptors are ours: those that were opened anew go. */
        if (in_fd >= 0 && cd->in.fd != in_fd)
                close(in_fd);
        if (out_fd >= 0 && cd->out.fd != out_fd && out_fd != in_fd)
                close(out_fd);
        *out = cd;
        return 0;
}

int chardev_create_sink(struct loop *loop, const struct chardev_sink *sink, struct chardev **out)
{
        int ret = create(loop, out);

        if (ret == 0)
                (*out)->sink = *sink;
        return ret;
}

void chardev_attach(struct chardev *cd, const struct chardev_ops *ops, void *dev)
{
        struct chardev_user *u = cd->users;

        while (u->ops)
                u++;
        *u = (struct chardev_user){ops, dev};
        if (!ops->input)
                return;
        cd->input = u;
        atomic_store(&cd->input_wanted, true); /* from the loop: the device may still be restored */
        kick(cd);
}

void chardev_detach(struct chardev *cd, void *dev)
{
        for (size_t i = 0; i < CHARDEV_DEVICES; i++) {
                struct chardev_user *u = &cd->users[i];

                if (!u->ops || u->dev != dev)
                        continue;
                if (cd->input == u) {
                        cd->input = NULL;
                        loop_remove(cd->in_watch);
                        cd->in_watch = NULL;
                }
                *u = (struct chardev_user){0};
        }
}

static uint64_t now_ms(void)
{
        return clock_now_ns() / 1000000u;
}

static void linger(struct chardev *cd, unsigned linger_ms)
{
        uint64_t now = now_ms(), end = now + linger_ms;
        int ret;

        do {
                ret = write_some(cd);
                if (ret == -EAGAIN) {
                        struct pollfd p = {.fd = cd->out.fd, .events = POLLOUT};

                        now = now_ms();
                        if (now >= end || poll(&p, 1, (int)(end - now)) == 0)
                                return;
                }
        } while (ret != 0);
}

void chardev_destroy(struct chardev *cd, unsigned linger_ms)
{
        if (!cd)
                return;
        for (size_t i = 0; i < CHARDEV_DEVICES; i++)
                chardev_detach(cd, cd->users[i].dev);
        linger(cd, linger_ms < 60000 ? linger_ms : 60000);
        loop_remove(cd->out_watch);
        loop_remove(cd->kick_watch);
        nbfd_fini(&cd->in);
        nbfd_fini(&cd->out);
        close(cd->kick_fd);
        pthread_mutex_destroy(&cd->lock);
        free(cd);
}
