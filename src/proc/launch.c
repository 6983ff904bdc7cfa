/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the spawner's process comes to be, without the program noticing.
 *
 * Forked, it is a child that sends no signal when it ends (the exit signal of its clone is 0), and
 * so one that the program's own waitpid(-1) does not find either; who knows its pid waits for it
 * with __WALL. It goes on with a copy of the program's memory. The C library's fork() always asks
 * for SIGCHLD, so the call is made without it. What else fork() would do is for threads, of which
 * there are none here, but for one thing: the C library keeps the thread's id in memory, and the
 * kernel is told to write the new one there.
 *
 * Executed, it is a program of its own, which needs nothing of this one's memory, in which other
 * threads may hold any lock. So the child shares the memory until it executes (as with vfork(), no
 * page table is copied, and a failure is told by writing it down), and calls nothing but system
 * calls. What executes a program gets SIGCHLD for its exit signal, whatever it had; so this one is
 * a child's child, whose parent is gone at once: it belongs to init, as daemons do (and to a
 * program that is init, or a subreaper, which hears of every orphan). A pidfd tells of its end. No
 * handler of the program may run in it: all signals are blocked, with those that the C library
 * keeps for itself, and stay so until the spawner has made its own rules.
 */
#include "proc/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK_BYTES (64 << 10)
#define BARE        __attribute__((no_sanitize_address)) /* it does not know these stacks */

/* Where the C library keeps the id of the calling thread; NULL: this kernel does not say. */
static void *thread_id(void)
{
        void *address = NULL;

        return prctl(PR_GET_TID_ADDRESS, &address) == 0 ? address : NULL;
}

int launch_fork(int sock, int launcher, int other, const struct spawner_ops *ops,
                struct launched *launched)
{
        void *tid = thread_id();
        const unsigned long flags = tid ? CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID : 0;
        long pid = syscall(SYS_clone, flags, NULL, NULL, tid, NULL);

        if (pid == 0) {
                close(other);
                spawner_main(sock, launcher, ops);
        }
        if (pid < 0)
                return -errno;
        *launched = (struct launched){.pid = (pid_t)pid, .pidfd = -1};
        return 0;
}

struct execution {
        const char *path;
        char *const *argv;
        int sock, launcher;
        char *stack;        /* of the child's child */
        struct launched *l; /* of it */
        int error;          /* errno, if it came to that */
};

/* To their places, in two steps, since either may be where the other is to go. */
static int place_descriptors(const struct execution *x)
{
        int sock = fcntl(x->sock, F_DUPFD, LAUNCH_LAUNCHER_FD + 1);
        int launcher = fcntl(x->launcher, F_DUPFD, LAUNCH_LAUNCHER_FD + 1);

        if (sock < 0 || launcher < 0 || dup2(sock, LAUNCH_SOCKET_FD) < 0 ||
            dup2(launcher, LAUNCH_LAUNCHER_FD) < 0)
                return -1;
        return close_range(LAUNCH_LAUNCHER_FD + 1, ~0u, 0);
}

/* The child's child: the caller's memory, a stack and descriptors of its own. */
static BARE int execute(void *data)
{
        struct execution *x = data;

        if (place_descriptors(x) == 0)
                execve(x->path, x->argv, environ);
        x->error = errno;
        _exit(127);
}

/* The child: the caller's memory and descriptors. It is gone when the other has executed. */
static BARE int launch_orphan(void *data)
{
        struct execution *x = data;

        x->l->pid = clone(execute, x->stack + STACK_BYTES,
                          CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, x, &x->l->pidfd);
        if (x->l->pid < 0)
                x->error = errno;
        _exit(0);
}

int launch_execute(const char *path, int sock, int launcher, struct launched *launched)
{
        char *const argv[] = {"ramet-spawner", RAMET_VERSION, NULL};
        struct execution x = {
                .path = path, .argv = argv, .sock = sock, .launcher = launcher, .l = launched};
        char *stacks = mmap(NULL, 2 * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
        const uint64_t all = UINT64_MAX; /* the kernel's sigset_t */
        uint64_t old;
        int pid, error, cancel;

        if (stacks == MAP_FAILED)
                return -errno;
        *launched = (struct launched){.pidfd = -1};
        x.stack = stacks + STACK_BYTES;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof all);
        pid = clone(launch_orphan, stacks + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES, &x);
        error = pid < 0 ? errno : x.error;
        while (pid > 0 && waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
                ;
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof old);
        pthread_setcancelstate(cancel, NULL);
        munmap(stacks, 2 * STACK_BYTES);
        if (error)
                launch_wait(launched);
        return -error;
}

void launch_wait(struct launched *l)
{
        struct pollfd ended = {.fd = l->pidfd, .events = POLLIN};

        if (l->pid <= 0)
                return;
        while (l->pidfd >= 0 && poll(&ended, 1, -1) < 0 && errno == EINTR)
                ;
        /* An orphan that is ours again has ended by now; one that is not is nobody's to wait for.
         */
        while (waitpid(l->pid, NULL, __WALL) < 0 && errno == EINTR)
                ;
        if (l->pidfd >= 0)
                close(l->pidfd);
        *l = (struct launched){.pidfd = -1};
}
