/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter: each probe runs in a child that installs it first. What a machine needs must work;
 * what it must not do must kill it with SIGSYS.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/loop.h"
#include "jail/seccomp.h"

/* The wait status of a child that runs @probe under @filter. */
static int confined(const struct jail_filter *filter, int (*probe)(void))
{
        pid_t pid = fork();
        int status = -1;

        if (pid == 0) {
                struct err err;

                if (jail_filter_install(filter, &err))
                        _exit(99);
                _exit(probe());
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        return status;
}

static struct jail_filter build(bool log)
{
        static const char *const extra[] = {"epoll_wait", NULL};
        const char *const *lists[] = {NULL, extra};
        struct jail_filter f;
        struct err err = {0};

        if (jail_filter_build(log, lists, 2, &f, &err))
                fail_msg("%s", err.text);
        assert_true(f.len > 10);
        return f;
}

/* --- what must work --- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;

static int probe_memory(void)
{
        char *p[200], text[64];
        void *big;

        for (int i = 0; i < 200; i++) {
                p[i] = malloc((size_t)1 << (i % 22));
                if (!p[i])
                        return 1;
                *p[i] = (char)i;
        }
        for (int i = 0; i < 200; i++)
                free(p[i]);
        big = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (big == MAP_FAILED || mprotect(big, 1 << 20, PROT_READ) ||
            madvise(big, 8192, MADV_DONTNEED))
                return 2;
        big = mremap(big, 1 << 20, 1 << 21, MREMAP_MAYMOVE);
        if (big == MAP_FAILED || munmap(big, 1 << 21))
                return 3;
        return snprintf(text, sizeof text, "%d %s", 42, strerror(EIO)) > 0 ? 0 : 4;
}

static int probe_freeze(void)
{
        char text[8] = "frozen";
        int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING), copy;

        if (fd < 0 || ftruncate(fd, 8192) || pwrite(fd, text, 8, 4096) != 8)
                return 1;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW))
                return 2;
        copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (copy < 0 || pread(copy, text, 8, 4096) != 8 || lseek(copy, 0, SEEK_DATA) != 4096)
                return 3;
        return pwrite(fd, text, 8, 0) < 0 && errno == EPERM ? 0 : 4;
}

static void nothing(int sig)
{
}

static int probe_time_and_signals(void)
{
        struct timespec soon = {.tv_nsec = 1000000};
        struct timespec t;
        struct epoll_event ev;

        clock_gettime(CLOCK_REALTIME, &t);
        signal(SIGRTMIN, nothing);
        if (pthread_kill(pthread_self(), SIGRTMIN))
                return 1;
        nanosleep(&soon, NULL);
        pthread_mutex_lock(&lock);
        clock_gettime(CLOCK_REALTIME, &t);
        if (pthread_cond_timedwait(&cond, &lock, &t) != ETIMEDOUT)
                return 2;
        pthread_mutex_unlock(&lock);
        if (epoll_wait(-1, &ev, 1, 0) == 0) /* of the list that was handed in */
                return 3;
        if (ioctl(-1, KVM_RUN, 0) == 0 || errno != EBADF)
                return 4;
        return prctl(PR_SET_NAME, "vcpu0") ? 5 : 0;
}

static void permitted_calls_work(void **state)
{
        struct jail_filter f = build(false);

        assert_int_equal(confined(&f, probe_memory), 0);
        assert_int_equal(confined(&f, probe_freeze), 0);
        assert_int_equal(confined(&f, probe_time_and_signals), 0);
        jail_filter_fini(&f);
}

/* --- what must not --- */

static int probe_execve(void)
{
        char *argv[] = {"true", NULL};

        execv("/bin/true", argv);
        return 1;
}

static int probe_socket(void)
{
        return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}

static int probe_openat(void)
{
        return (int)syscall(SYS_openat, AT_FDCWD, "/tmp", O_TMPFILE | O_WRONLY, 0600) < 0;
}

static int probe_fork(void)
{
        return (int)syscall(SYS_fork) < 0;
}

static int probe_kill(void)
{
        return kill(getppid(), 0);
}

/* A thread of another process. */
static int probe_tgkill(void)
{
        return (int)syscall(SYS_tgkill, 1, 1, 0);
}

/* Flags of a file that others read, too. */
static int probe_setfl(void)
{
        return fcntl(0, F_SETFL, O_RDONLY | O_DIRECT);
}

static int probe_exec_memory(void)
{
        return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
               MAP_FAILED;
}

static int probe_mprotect_exec(void)
{
        static char page[8192] __attribute__((aligned(4096)));

        return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static int probe_create_vm(void)
{
        return ioctl(-1, KVM_CREATE_VM, 0);
}

/* The kernel looks at 32 bits of the request; so must the filter. */
static int probe_tiocsti(void)
{
        return (int)syscall(SYS_ioctl, 0, 0xffffffff00005412ul, "x");
}

static int probe_dumpable(void)
{
        return prctl(PR_SET_DUMPABLE, 1);
}

static int probe_ptrace(void)
{
        return (int)syscall(SYS_ptrace, 16, 1, 0, 0);
}

static const struct {
        const char *name;
        int (*probe)(void);
        bool sanitizers_need_it;
} forbidden[] = {
        {"execve", probe_execve, false},
        {"socket", probe_socket, false},
        {"openat", probe_openat, true},
        {"fork", probe_fork, false},
        {"kill", probe_kill, true},
        {"tgkill of another process", probe_tgkill, false},
        {"flags of a shared file", probe_setfl, false},
        {"mmap of executable memory", probe_exec_memory, false},
        {"mprotect to executable", probe_mprotect_exec, false},
        {"KVM_CREATE_VM", probe_create_vm, false},
        {"TIOCSTI in the low half", probe_tiocsti, false},
        {"prctl", probe_dumpable, true},
        {"ptrace", probe_ptrace, false},
};

static void forbidden_calls_kill(void **state)
{
        struct jail_filter f = build(false);

        for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++) {
                int status;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
                if (forbidden[i].sanitizers_need_it)
                        continue;
#endif
                status = confined(&f, forbidden[i].probe);
                if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
                        fail_msg("%s: wait status %#x, death by SIGSYS expected", forbidden[i].name,
                                 status);
        }
        jail_filter_fini(&f);
}

/* --- threads --- */

static void *other_thread(void *arg)
{
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
        socket(AF_UNIX, SOCK_STREAM, 0);
        return NULL;
}

static void threads_that_exist_are_confined_too(void **state)
{
        struct jail_filter f = build(false);
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                pthread_t t;
                struct err err;

                pthread_mutex_lock(&lock);
                pthread_create(&t, NULL, other_thread, NULL);
                if (jail_filter_install(&f, &err))
                        _exit(99);
                pthread_mutex_unlock(&lock);
                pthread_join(t, NULL);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
        jail_filter_fini(&f);
}

static void log_lets_through(void **state)
{
        struct jail_filter f = build(true);

        assert_int_equal(confined(&f, probe_socket), 0);
        jail_filter_fini(&f);
}

static void lists_are_checked(void **state)
{
        static const char *const unknown[] = {"no_such_call", NULL};
        static const char *const whole[] = {"ioctl", NULL};
        const char *const *lists[] = {unknown};
        struct jail_filter f;
        struct err err = {0};

        assert_int_equal(jail_filter_build(false, lists, 1, &f, &err), -EINVAL);
        assert_non_null(strstr(err.text, "no_such_call"));
        lists[0] = whole;
        assert_int_equal(jail_filter_build(false, lists, 1, &f, &err), -EINVAL);
        assert_non_null(strstr(err.text, "ioctl"));
        f = (struct jail_filter){0};
        assert_int_equal(jail_filter_install(&f, &err), -EINVAL);
}

/* --- loops --- */

/* A loop that was made and prepared before can do I/O and serve watches in confinement. */
static int confined_io(const struct jail_filter *f, bool uring)
{
        static char buf[8192];
        struct iovec iov[2] = {{buf, 4096}, {buf + 4096, 4096}};
        struct loop_io ops[4] = {
                {.op = LOOP_IO_WRITE, .iov = iov, .niov = 2},
                {.op = LOOP_IO_READ, .iov = iov, .niov = 1},
                {.op = LOOP_IO_SYNC},
                {.op = LOOP_IO_FALLOCATE, .len = 4096},
        };
        int fd = memfd_create("disk", MFD_CLOEXEC);
        struct loop *loop;
        struct err err;

        /* All four may be in flight at once, so a read may come before the write: it has its bytes
         * from the beginning. */
        if (fd < 0 || ftruncate(fd, sizeof buf) || loop_create(uring, &loop) ||
            loop_io_prepare(loop))
                return 1;
        if (jail_filter_install(f, &err))
                return 2;
        for (int way = 0; way < 3; way++) {
                for (int i = 0; i < 4; i++) {
                        ops[i].fd = fd;
                        ops[i].result = -1;
                        loop_io_start(loop, &ops[i]);
                        if (way == 1)
                                loop_io_settle(loop);
                        for (int step = 0; way == 2 && step < 100 && ops[i].result < 0; step++)
                                if (loop_step(loop, 50000000))
                                        return 3;
                }
                loop_io_drain(loop);
                for (int i = 0; i < 4; i++)
                        if (ops[i].result != (i == 0 ? 8192 : i == 1 ? 4096 : 0))
                                return 10 + i;
        }
        loop_destroy(loop);
        return 0;
}

static void a_confined_loop_does_io(void **state)
{
        const char *const *lists[] = {loop_syscalls};
        struct jail_filter f;
        struct err err = {0};

        assert_int_equal(jail_filter_build(false, lists, 1, &f, &err), 0);
        for (int uring = 0; uring < 2; uring++) {
                pid_t pid = fork();
                int status = -1;

                if (pid == 0)
                        _exit(confined_io(&f, uring));
                assert_true(pid > 0);
                assert_int_equal(waitpid(pid, &status, 0), pid);
                assert_int_equal(status, 0);
        }
        jail_filter_fini(&f);
}

/* The descriptor of the only io_uring of this process, or -1. */
static int ring_fd(void)
{
        for (int fd = 3; fd < 100; fd++) {
                char path[32], name[64] = "";

                snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
                if (readlink(path, name, sizeof name - 1) > 0 && strstr(name, "io_uring"))
                        return fd;
        }
        return -1;
}

/* What a ring does is no system call. A restricted one refuses to register anything, to begin with.
 */
static void the_ring_of_a_loop_is_restricted(void **state)
{
        struct loop *loop;

        assert_int_equal(loop_create(true, &loop), 0);
        if (strcmp(loop_backend(loop), "io_uring")) {
                loop_destroy(loop);
                skip();
        }
        assert_true(ring_fd() >= 0);
        assert_int_equal(
                syscall(SYS_io_uring_register, ring_fd(), IORING_UNREGISTER_FILES, NULL, 0), -1);
        assert_int_equal(errno, EACCES);
        loop_destroy(loop);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(permitted_calls_work),
                cmocka_unit_test(forbidden_calls_kill),
                cmocka_unit_test(threads_that_exist_are_confined_too),
                cmocka_unit_test(log_lets_through),
                cmocka_unit_test(lists_are_checked),
                cmocka_unit_test(a_confined_loop_does_io),
                cmocka_unit_test(the_ring_of_a_loop_is_restricted),
        };

        return cmocka_run_group_tests_name("jail", tests, NULL, NULL);
}
