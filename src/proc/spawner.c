/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spawner: forked off the launcher before anything else happens, it does nothing but fork one
 * child for each machine and say when one has ended.
 *
 *      SPAWN{id}+channel --> fork --> LAUNCHED{id, pid} ... pidfd readable --> waitid -->
 * REAPED{id}
 *                               `---> REFUSED{id, errno}
 *
 * Why a process of its own: a fork copies the page tables and the descriptor table of the one who
 * forks, so the one who forks should have few of both; and a machine must inherit neither the
 * launcher's memory of other machines nor its terminal. What a machine is to become travels through
 * its channel from launcher to machine; the spawner never sees it.
 *
 * Invariants:
 *   - No machine outlives the launcher. The spawner ends when its socket hangs up or the pidfd of
 *     the launcher becomes readable (some other process may have inherited the socket), and takes
 * all children with it. Should the spawner itself be killed, each child gets PR_SET_PDEATHSIG.
 *   - Every child has a pidfd from its birth to its reaping. No SIGCHLD, no waiting for "any"
 * child.
 *   - It has a session of its own, so no signal from the launcher's terminal reaches it or a
 * machine, and a machine may read that terminal without being stopped for it.
 */
#include "proc/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc/message.h"

#define FIRST_FD 3 /* after standard input, output and error */

struct child {
        struct child *next;
        uint64_t id;
        pid_t pid;
        int pidfd;
};

struct spawner {
        const struct spawner_ops *ops;
        pid_t pid;
        int sock;
        int launcher; /* pidfd */
        int epoll;    /* data: a child, or NULL for the socket, or this struct for the launcher */
        struct child *children;
};

/* Everybody goes when the launcher has gone. */
static _Noreturn void spawner_end(struct spawner *s)
{
        for (struct child *c = s->children; c; c = c->next)
                pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
        for (struct child *c = s->children; c; c = c->next) {
                siginfo_t si;

                while (waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED) < 0 && errno == EINTR)
                        ;
        }
        _exit(0);
}

/* Tell the launcher. While it does not read, nothing is forked or reaped; if it dies, so do we. */
static void reply(struct spawner *s, struct message_spawn *m)
{
        for (;;) {
                struct pollfd p[2] = {{.fd = s->sock, .events = POLLOUT},
                                      {.fd = s->launcher, .events = POLLIN}};
                int ret = message_send(s->sock, m, sizeof *m, NULL, 0, MSG_DONTWAIT);

                if (!ret)
                        return;
                if (ret != -EAGAIN && ret != -ENOBUFS && ret != -ENOMEM)
                        spawner_end(s);
                if (poll(p, 2, ret == -EAGAIN ? -1 : 10) > 0 && p[1].revents)
                        spawner_end(s);
        }
}

static void refuse(struct spawner *s, uint64_t id, int error)
{
        struct message_spawn m = {.head.type = MESSAGE_REFUSED, .id = id, .error = error};

        reply(s, &m);
}

/* The child's first steps. The spawner's sockets and pidfds must not live on in it: a copy of the
 * channel of another machine would keep that one from seeing its launcher hang up. */
static _Noreturn void child_main(struct spawner *s, int channel)
{
        const struct spawner_ops *ops = s->ops;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != s->pid) /* it had died before it could send that signal */
                _exit(1);
        if (channel != FIRST_FD && dup3(channel, FIRST_FD, O_CLOEXEC) < 0)
                _exit(1);
        close_range(FIRST_FD + 1, ~0u, 0);
        _exit(ops->machine(ops->shared, FIRST_FD));
}

/* The pidfd is opened while the child cannot have been reaped, so its number is still its own. */
static int watch(struct spawner *s, struct child *c)
{
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

        c->pidfd = pidfd_open(c->pid, 0);
        if (c->pidfd < 0)
                return -errno;
        if (!epoll_ctl(s->epoll, EPOLL_CTL_ADD, c->pidfd, &ev))
                return 0;

        int ret = -errno;

        close(c->pidfd);
        return ret;
}

static void spawn(struct spawner *s, uint64_t id, int channel)
{
        struct message_spawn m = {.head.type = MESSAGE_LAUNCHED, .id = id};
        struct child *c = malloc(sizeof *c);
        int ret;

        if (!c) {
                refuse(s, id, ENOMEM);
                return;
        }
        c->id = id;
        c->pid = fork();
        if (c->pid == 0)
                child_main(s, channel);
        ret = c->pid < 0 ? -errno : watch(s, c);
        if (ret) {
                if (c->pid > 0) {
                        kill(c->pid, SIGKILL);
                        waitpid(c->pid, NULL, 0);
                }
                free(c);
                refuse(s, id, -ret);
                return;
        }
        c->next = s->children;
        s->children = c;
        m.pid = c->pid;
        reply(s, &m);
}

/* waitid() tells in fields what waitpid() tells in one number. */
static int wait_status(const siginfo_t *si)
{
        if (si->si_code == CLD_EXITED)
                return W_EXITCODE(si->si_status, 0);
        return W_EXITCODE(0, si->si_status) | (si->si_code == CLD_DUMPED ? WCOREFLAG : 0);
}

static void reap(struct spawner *s, struct child *c)
{
        struct message_spawn m = {.head.type = MESSAGE_REAPED, .id = c->id, .pid = c->pid};
        siginfo_t si = {0};

        if (waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG) < 0 || !si.si_pid)
                return;
        m.wait_status = wait_status(&si);
        for (struct child **p = &s->children; *p; p = &(*p)->next) {
                if (*p == c) {
                        *p = c->next;
                        break;
                }
        }
        /* Closing it would not do: a child that has just been forked may still have it open, and
         * then epoll would go on reporting it. */
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, c->pidfd, NULL);
        close(c->pidfd);
        free(c);
        reply(s, &m);
}

static void request(struct spawner *s)
{
        struct message_spawn m;
        struct message_fds fds;
        const char *why;
        int ret = message_receive(s->sock, MESSAGE_LAUNCHER_TO_SPAWNER, &m, sizeof m, &fds,
                                  MSG_DONTWAIT, &why);

        if (ret == -EAGAIN)
                return;
        if (ret == -EMFILE) {
                refuse(s, m.id, EMFILE);
                return;
        }
        if (ret <= 0) /* it hung up, or is not in its senses */
                spawner_end(s);
        if (m.head.type == MESSAGE_SPAWN) {
                spawn(s, m.id, fds.fd[0]);
        } else {
                for (struct child *c = s->children; c; c = c->next)
                        if (c->id == m.id)
                                pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
        }
        message_close_fds(&fds);
}

/* Leave behind what came from the launcher: signals, session, descriptors. Standard error stays,
 * for the last words of a process that aborts. */
static void become_spawner(struct spawner *s)
{
        struct rlimit files;
        int null;
        sigset_t none;

        prctl(PR_SET_NAME, "ramet-spawner");
        setsid();
        for (int sig = 1; sig <= SIGRTMAX; sig++)
                signal(sig, SIG_DFL);
        /* What they are about is an error of the call, too: a console's reader has gone away, a
         * file would be larger than the user's limit. */
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);

        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
                dup2(null, STDIN_FILENO);
                dup2(null, STDOUT_FILENO);
        }
        /* In two steps, since either may be where the other is to go. */
        s->sock = fcntl(s->sock, F_DUPFD_CLOEXEC, FIRST_FD + 2);
        s->launcher = fcntl(s->launcher, F_DUPFD_CLOEXEC, FIRST_FD + 2);
        s->sock = dup3(s->sock, FIRST_FD, O_CLOEXEC);
        s->launcher = dup3(s->launcher, FIRST_FD + 1, O_CLOEXEC);
        close_range(FIRST_FD + 2, ~0u, 0);

        /* One pidfd for each machine: as many as there may be. */
        if (!getrlimit(RLIMIT_NOFILE, &files)) {
                files.rlim_cur = files.rlim_max;
                setrlimit(RLIMIT_NOFILE, &files);
        }
}

_Noreturn void spawner_main(int sock, int launcher, const struct spawner_ops *ops)
{
        struct spawner s = {.ops = ops, .sock = sock, .launcher = launcher, .pid = getpid()};
        struct epoll_event ev[2] = {{.events = EPOLLIN, .data.ptr = NULL},
                                    {.events = EPOLLIN, .data.ptr = &s}};

        become_spawner(&s);
        s.epoll = epoll_create1(EPOLL_CLOEXEC);
        if (s.sock < 0 || s.launcher < 0 || s.epoll < 0 ||
            epoll_ctl(s.epoll, EPOLL_CTL_ADD, s.sock, &ev[0]) ||
            epoll_ctl(s.epoll, EPOLL_CTL_ADD, s.launcher, &ev[1]))
                _exit(1); /* the launcher sees its socket hang up */
        if (ops->prepare)
                ops->prepare(ops->shared);
        for (;;) {
                struct epoll_event e;

                if (epoll_wait(s.epoll, &e, 1, -1) != 1)
                        continue;
                if (e.data.ptr == &s)
                        spawner_end(&s);
                if (e.data.ptr)
                        reap(&s, e.data.ptr);
                else
                        request(&s);
        }
}
