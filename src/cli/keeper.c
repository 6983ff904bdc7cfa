/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper waits at a pipe. A byte means that the launcher has tidied up; end of file without one
 * means that the launcher is gone and has not.
 *
 * It is in a session of its own: keys at the terminal do not reach it, and the kernel lets it set
 * the terminal's mode without stopping it as a background job. It holds nothing open but the pipe
 * and the terminal. The machines are not its business: they end with the spawner.
 */
#include "cli/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void close_others(int a, int b)
{
        unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);

        if (low > 0)
                close_range(0, low - 1, 0);
        if (high > low + 1)
                close_range(low + 1, high - 1, 0);
        close_range(high + 1, ~0u, 0);
}

__attribute__((noreturn)) static void keep(int pipe_fd, const struct tty *tty,
                                           const char *socket_path, const struct stat *socket_was)
{
        struct stat now;
        char byte;
        ssize_t n;

        setsid();
        prctl(PR_SET_NAME, "ramet-keeper");
        /* The working directory must not be kept busy, and socket_path is absolute. */
        if (chdir("/"))
                _exit(0);
        close_others(pipe_fd, tty ? tty->fd : pipe_fd);
        do
                n = read(pipe_fd, &byte, 1);
        while (n < 0 && errno == EINTR);
        if (n == 0 && tty)
                tcsetattr(tty->fd, TCSANOW, &tty->saved);
        if (n == 0 && socket_path && !lstat(socket_path, &now) &&
            now.st_ino == socket_was->st_ino && now.st_dev == socket_was->st_dev)
                unlink(socket_path);
        _exit(0);
}

int keeper_start(struct keeper *k, const struct tty *tty, const char *socket_path)
{
        struct stat st = {0};
        int ends[2];
        pid_t pid;

        if (socket_path && lstat(socket_path, &st))
                return -errno;
        if (pipe2(ends, O_CLOEXEC))
                return -errno;
        pid = fork();
        if (pid < 0) {
                int ret = -errno;

                close(ends[0]);
                close(ends[1]);
                return ret;
        }
        if (pid == 0)
                keep(ends[0], tty, socket_path, &st);
        close(ends[0]);
        *k = (struct keeper){.pid = pid, .fd = ends[1]};
        return 0;
}

void keeper_stop(struct keeper *k)
{
        if (!k->pid)
                return;
        if (write(k->fd, "", 1) < 0)
                kill(k->pid, SIGKILL);
        close(k->fd);
        while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR)
                ;
        *k = (struct keeper){0};
}
