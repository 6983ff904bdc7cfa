/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See nbfd.h. What is done for each kind of descriptor:
 *
 * - Pipes get O_NONBLOCK. That is a property of the open file description; the processes that use
 *   this hold pipe ends made for them alone.
 * - Sockets have a flag for each call and need nothing else.
 * - A terminal is opened once more through /proc/self/fd, which gives a description of its own. Not
 * so the master side of a pseudo-terminal: opening /dev/pts/ptmx makes a new terminal. Where this
 *   fails (no /proc, another owner) poll is asked first, and then only a little is written at once:
 *   poll promises room for something, not for how much.
 * - SIGPIPE would reach a program that links this as a library, and only sockets can do without it
 *   call by call. So it is blocked around the write, and taken back if the write raised it.
 */
#include "io/nbfd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define POLLED_CHUNK                                                                               \
        64 /* bytes: any terminal that polls as writable has this much, or drains it soon */

static int own_description(int fd, bool output)
{
        char path[32];
        int n;

        if (!isatty(fd) || ioctl(fd, TIOCGPTN, &n) == 0)
                return -1;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return open(path, (output ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

int nbfd_init(struct nbfd *n, int fd, bool output)
{
        struct stat st;
        int flags, own;

        *n = (struct nbfd){.fd = fd};
        if (fd < 0)
                return 0;
        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fstat(fd, &st))
                return -errno;
        if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)) {
                n->kind = NBFD_FILE;
        } else if (S_ISSOCK(st.st_mode)) {
                n->kind = NBFD_SOCKET;
        } else if (S_ISFIFO(st.st_mode)) {
                n->kind = NBFD_PIPE;
                if (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK))
                        return -errno;
        } else if (flags & O_NONBLOCK) {
                n->kind = NBFD_NONBLOCK;
        } else {
                n->kind = NBFD_POLLED;
                own = own_description(fd, output);
                if (own >= 0) {
                        n->fd = own;
                        n->kind = NBFD_NONBLOCK;
                }
        }
        return 0;
}

static int ready(const struct nbfd *n, short events)
{
        struct pollfd p = {.fd = n->fd, .events = events};
        int ret = poll(&p, 1, 0);

        if (ret < 0)
                return -errno;
        return ret ? 0 : -EAGAIN;
}

static ssize_t write_without_sigpipe(int fd, const void *buf, size_t len)
{
        const struct timespec now = {0};
        sigset_t pipe_set, old, pending;
        bool was_pending;
        ssize_t ret;

        sigemptyset(&pipe_set);
        sigaddset(&pipe_set, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe_set, &old);
        sigpending(&pending);
        was_pending = sigismember(&pending, SIGPIPE) == 1;
        ret = write(fd, buf, len);
        if (ret < 0)
                ret = -errno;
        if (ret == -EPIPE && !was_pending)
                while (sigtimedwait(&pipe_set, NULL, &now) < 0 && errno == EINTR)
                        ;
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return ret;
}

static ssize_t write_once(struct nbfd *n, const void *buf, size_t len)
{
        ssize_t ret;

        switch (n->kind) {
        case NBFD_NONE:
                return (ssize_t)len;
        case NBFD_SOCKET:
                ret = send(n->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL);
                break;
        case NBFD_PIPE:
                return write_without_sigpipe(n->fd, buf, len);
        case NBFD_POLLED:
                ret = ready(n, POLLOUT);
                if (ret)
                        return ret;
                ret = write(n->fd, buf, len < POLLED_CHUNK ? len : POLLED_CHUNK);
                break;
        default:
                ret = write(n->fd, buf, len);
                break;
        }
        return ret < 0 ? -errno : ret;
}

static ssize_t read_once(struct nbfd *n, void *buf, size_t len)
{
        ssize_t ret;

        switch (n->kind) {
        case NBFD_NONE:
                return 0;
        case NBFD_SOCKET:
                ret = recv(n->fd, buf, len, MSG_DONTWAIT);
                break;
        case NBFD_POLLED:
                ret = ready(n, POLLIN);
                if (ret)
                        return ret;
                ret = read(n->fd, buf, len);
                break;
        default:
                ret = read(n->fd, buf, len);
                break;
        }
        return ret < 0 ? -errno : ret;
}

ssize_t nbfd_write(struct nbfd *n, const void *buf, size_t len)
{
        ssize_t ret;

        do
                ret = write_once(n, buf, len);
        while (ret == -EINTR);
        return ret;
}

ssize_t nbfd_read(struct nbfd *n, void *buf, size_t len)
{
        ssize_t ret;

        do
                ret = read_once(n, buf, len);
        while (ret == -EINTR);
        return ret;
}

void nbfd_fini(struct nbfd *n)
{
        if (n->kind != NBFD_NONE)
                close(n->fd);
        *n = (struct nbfd){.fd = -1};
}
