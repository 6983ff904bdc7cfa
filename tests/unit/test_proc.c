/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spawner and launcher with machines that are fakes: what a child does is a function of the test,
 * chosen by the kernel's name in its BOOT message. No KVM.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "proc/launcher.h"

static struct ramet_ctx *ctx;
static struct ramet_spawner *sp;
static int null_fd;

#include "proc_fakes.h"

/* --- helpers --- */

static int setup(void **state)
{
        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        return ramet_ctx_create(&ctx) || spawner_open(ctx, &fakes, NULL, &sp);
}

static int teardown(void **state)
{
        ramet_spawner_destroy(sp);
        ramet_ctx_destroy(ctx);
        close(null_fd);
        /* Nobody is left to be waited for. */
        return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : -1;
}

static struct ramet_vm_options options(const char *what)
{
        return (struct ramet_vm_options){
                .size = sizeof(struct ramet_vm_options),
                .kernel_fd = null_fd,
                .kernel_name = what,
                .initramfs_fd = -1,
                .memory_bytes = 2 << 20,
                .vcpus = 1,
                .console_in_fd = -1,
                .console_out_fd = -1,
        };
}

static struct ramet_process *start(const char *what)
{
        struct ramet_vm_options o = options(what);
        struct ramet_process *p;

        if (ramet_process_start(sp, &o, &p))
                fail_msg("%s", ramet_last_error(ctx));
        return p;
}

/* The next event, within ten seconds. */
static struct ramet_event next(void)
{
        struct ramet_event e = {0};

        for (;;) {
                struct pollfd pfd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};
                int ret = ramet_spawner_next(sp, &e);

                if (ret < 0)
                        fail_msg("%s", ramet_last_error(ctx));
                assert_true(sp->starting <= STARTING_MAX);
                if (ret)
                        return e;
                if (poll(&pfd, 1, 10000) != 1)
                        fail_msg("no event came");
        }
}

static struct ramet_event expect(struct ramet_process *p, enum ramet_event_type type)
{
        struct ramet_event e = next();

        if (e.type != type || e.process != p)
                fail_msg("event %d (%s) where %d was expected", (int)e.type, e.text, (int)type);
        return e;
}

/* EXIT and GONE of a process that ends without a word. */
static struct ramet_event expect_killed(struct ramet_process *p, int sig)
{
        struct ramet_event exit = expect(p, RAMET_EVENT_EXIT), gone = expect(p, RAMET_EVENT_GONE);

        assert_int_equal(exit.exit.reason, RAMET_EXIT_KILLED);
        assert_int_equal(exit.exit.status, sig);
        assert_false(gone.gone.had_exit);
        return exit;
}

static bool exists(pid_t pid)
{
        return kill(pid, 0) == 0;
}

static bool vanishes(pid_t pid)
{
        for (int i = 0; i < 500 && exists(pid); i++)
                usleep(10000);
        return !exists(pid);
}

/* --- tests --- */

static void a_machine_gets_a_clean_process(void **state)
{
        struct ramet_vm_options o = options("environment");
        struct ramet_process *p;
        struct ramet_event e;

        o.initramfs_fd = o.console_in_fd = o.console_out_fd = null_fd;
        o.cmdline = "a=b c";
        o.vcpus = 3;
        assert_int_equal(ramet_process_start(sp, &o, &p), 0);
        assert_int_equal(ramet_process_pid(p), 0);
        e = expect(p, RAMET_EVENT_LAUNCHED);
        assert_true(e.launched.pid > 0 && e.launched.pid == ramet_process_pid(p));
        e = expect(p, RAMET_EVENT_EXIT);
        assert_int_equal(e.exit.status, 0);
        expect(p, RAMET_EVENT_GONE);
        ramet_process_release(p);
}

static void its_end_is_told(void **state)
{
        struct ramet_process *p = start("clean");
        struct ramet_event e;

        expect(p, RAMET_EVENT_LAUNCHED);
        e = expect(p, RAMET_EVENT_EXIT);
        assert_int_equal(e.exit.reason, RAMET_EXIT_DEBUG);
        assert_int_equal(e.exit.status, 7);
        assert_string_equal(e.text, "bye ?[31m?");
        e = expect(p, RAMET_EVENT_GONE);
        assert_true(e.gone.had_exit);
        assert_true(WIFEXITED(e.gone.wait_status) && WEXITSTATUS(e.gone.wait_status) == 7);
        assert_int_equal(ramet_process_pause(p), -ESRCH);
        ramet_process_release(p);

        p = start("silent");
        expect(p, RAMET_EVENT_LAUNCHED);
        e = expect_killed(p, 0);
        assert_non_null(strstr(e.text, "status 3"));
        ramet_process_release(p);

        p = start("sigsys");
        expect(p, RAMET_EVENT_LAUNCHED);
        e = expect_killed(p, SIGSYS);
        assert_non_null(strstr(e.text, "seccomp log"));
        ramet_process_release(p);
}

static void last_words_are_heard(void **state)
{
        struct ramet_process *p = start("words");

        expect(p, RAMET_EVENT_LAUNCHED);
        expect(p, RAMET_EVENT_STARTED);
        assert_int_equal(ramet_process_pause(p), 0); /* it will never read this */
        assert_int_equal(expect(p, RAMET_EVENT_EXIT).exit.status, 9);
        assert_true(expect(p, RAMET_EVENT_GONE).gone.had_exit);
        ramet_process_release(p);
}

static void killing_one_leaves_the_others(void **state)
{
        struct ramet_process *p[3];
        struct ramet_event e;

        for (int i = 0; i < 3; i++) {
                p[i] = start("obey");
                expect(p[i], RAMET_EVENT_LAUNCHED);
                expect(p[i], RAMET_EVENT_STARTED);
        }
        assert_int_equal(kill(ramet_process_pid(p[1]), SIGKILL), 0);
        e = expect_killed(p[1], SIGKILL);
        assert_non_null(strstr(e.text, "Killed"));
        assert_int_equal(ramet_process_pause(p[0]), 0);
        expect(p[0], RAMET_EVENT_PAUSED);
        assert_int_equal(ramet_process_resume(p[2]), 0);
        expect(p[2], RAMET_EVENT_RESUMED);
        assert_int_equal(ramet_process_reset(p[2]), 0);
        expect(p[2], RAMET_EVENT_RESET);
        assert_int_equal(ramet_process_kill(p[0]), 0);
        assert_int_equal(ramet_process_kill(p[0]), 0);
        expect_killed(p[0], SIGKILL);
        assert_int_equal(ramet_process_kill(p[0]), 0);
        for (int i = 0; i < 3; i++)
                ramet_process_release(p[i]);
}

static void misbehaviour_is_death(void **state)
{
        static const char *const how[] = {"bad junk", "bad ready",  "bad twice",  "bad paused",
                                          "bad fork", "bad failed", "bad frozen", "bad notes",
                                          "bad mute", "bad reset",  "bad unreset"};
        unsigned before = open_fds();

        for (size_t i = 0; i < sizeof how / sizeof *how; i++) {
                struct ramet_process *p = start(how[i]);
                struct ramet_event e;
                unsigned notes = 0;

                do {
                        e = next();
                        notes += e.type == RAMET_EVENT_NOTE;
                        assert_true(notes <= NOTES_MAX);
                        assert_int_not_equal(e.type, RAMET_EVENT_FORK_POINT);
                        assert_int_not_equal(e.type, RAMET_EVENT_PAUSED);
                        assert_int_not_equal(e.type, RAMET_EVENT_RESET);
                        assert_int_not_equal(e.type, RAMET_EVENT_RESET_FAILED);
                } while (e.type != RAMET_EVENT_EXIT);
                assert_int_equal(e.exit.reason, RAMET_EXIT_KILLED);
                assert_int_equal(e.exit.status, SIGKILL);
                if (strcmp(how[i], "bad mute") && !strstr(e.text, "misbehaved"))
                        fail_msg("%s: %s", how[i], e.text);
                e = expect(p, RAMET_EVENT_GONE);
                assert_true(WIFSIGNALED(e.gone.wait_status));
                ramet_process_release(p);
        }
        assert_int_equal(open_fds(), before);
}

static void nothing_is_heard_after_the_end(void **state)
{
        struct ramet_process *p = start("bad after");

        expect(p, RAMET_EVENT_LAUNCHED);
        assert_int_equal(expect(p, RAMET_EVENT_EXIT).exit.reason, RAMET_EXIT_POWEROFF);
        assert_true(expect(p, RAMET_EVENT_GONE).gone.had_exit);
        ramet_process_release(p);
}

/* Clones of a fake template; returns how many ended with their number. */
static unsigned clone_all(struct ramet_frozen *frozen, unsigned n)
{
        struct ramet_process **p = calloc(n, sizeof *p);
        unsigned right = 0, gone = 0;

        for (unsigned i = 0; i < n; i++) {
                struct ramet_clone_options o = {.size = sizeof o,
                                                .index = i + 1,
                                                .count = n,
                                                .console_in_fd = null_fd,
                                                .console_out_fd = null_fd};

                if (ramet_process_clone(sp, frozen, &o, &p[i]))
                        fail_msg("%s", ramet_last_error(ctx));
                ramet_process_set_data(p[i], (void *)(uintptr_t)(i + 1));
        }
        ramet_frozen_release(frozen); /* those that wait keep it */
        while (gone < n) {
                struct ramet_event e = next();
                uintptr_t index = (uintptr_t)ramet_process_data(e.process);

                if (e.type == RAMET_EVENT_EXIT)
                        right += e.exit.reason == RAMET_EXIT_DEBUG &&
                                 e.exit.status == (int)(index % 256);
                if (e.type == RAMET_EVENT_GONE) {
                        gone++;
                        ramet_process_release(e.process);
                }
        }
        free(p);
        return right;
}

static void a_fork_makes_clones(void **state)
{
        struct ramet_vm_options o = options("doorbell");
        struct ramet_process *p, *c;
        struct ramet_clone_options co = {.size = sizeof co,
                                         .index = 1,
                                         .count = 4,
                                         .console_in_fd = -1,
                                         .console_out_fd = -1};
        struct ramet_event e;

        o.fork_count = 4;
        o.fork_at_doorbell = true;
        assert_int_equal(ramet_process_start(sp, &o, &p), 0);
        expect(p, RAMET_EVENT_LAUNCHED);
        expect(p, RAMET_EVENT_STARTED);
        e = expect(p, RAMET_EVENT_FORK_POINT);
        assert_int_equal(e.fork_point.cause, RAMET_FORK_DOORBELL);
        assert_int_equal(e.fork_point.count, 4);
        e = expect(p, RAMET_EVENT_FROZEN);
        assert_int_equal(e.frozen.count, 4);
        assert_int_equal(e.frozen.memory_bytes, 2 << 20);
        assert_int_equal(e.frozen.vcpus, 1);
        assert_int_equal(ramet_process_clone(sp, e.frozen.frozen, &co, &c), 0);
        ramet_frozen_release(e.frozen.frozen);
        expect(c, RAMET_EVENT_LAUNCHED);
        e = expect(c, RAMET_EVENT_READY);
        assert_true(e.ready.spawn_ns > 0 && e.ready.spawn_ns < 5000000000u);
        e = expect(c, RAMET_EVENT_RUNNING);
        assert_string_equal(e.running.how, "doorbell");
        assert_true(e.running.first_exit_ns < 5000000000u);
        expect(c, RAMET_EVENT_EXIT);
        expect(c, RAMET_EVENT_GONE);
        /* and once more, asked for */
        assert_int_equal(ramet_process_fork(p, 0), -EINVAL);
        assert_int_equal(ramet_process_fork(p, 200), 0);
        assert_int_equal(ramet_process_fork(p, 1), -EBUSY);
        expect(p, RAMET_EVENT_FORK_POINT);
        e = expect(p, RAMET_EVENT_FROZEN);
        assert_int_equal(clone_all(e.frozen.frozen, 200), 200);
        ramet_process_release(c);
        ramet_process_release(p);
}

static void no_descriptor_is_left(void **state)
{
        struct rlimit old, few;
        struct ramet_process *p = start("obey");
        unsigned before;

        expect(p, RAMET_EVENT_LAUNCHED);
        expect(p, RAMET_EVENT_STARTED);
        before = open_fds();
        getrlimit(RLIMIT_NOFILE, &old);
        few = (struct rlimit){.rlim_cur = 1024, .rlim_max = old.rlim_max};
        setrlimit(RLIMIT_NOFILE, &few);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(ramet_process_fork(p, 300), 0);
                expect(p, RAMET_EVENT_FORK_POINT);
                assert_int_equal(clone_all(expect(p, RAMET_EVENT_FROZEN).frozen.frozen, 300), 300);
                assert_int_equal(open_fds(), before);
        }
        /* events that nobody reads, processes that nobody waits for */
        assert_int_equal(ramet_process_fork(p, 2), 0);
        usleep(50000);
        expect(p, RAMET_EVENT_FORK_POINT);
        ramet_process_release(p);
        ramet_process_release(start("obey"));
        for (int i = 0; i < 100; i++)
                ramet_process_release(start("clean"));
        p = start("clean");
        expect(p, RAMET_EVENT_LAUNCHED);
        expect(p, RAMET_EVENT_EXIT);
        expect(p, RAMET_EVENT_GONE);
        ramet_process_release(p);
        assert_int_equal(open_fds(), before - 1);
        setrlimit(RLIMIT_NOFILE, &old);
}

static void no_process_to_be_had(void **state)
{
        struct ramet_process *first = start("obey"), *p;
        struct ramet_event e;
        struct rlimit none = {.rlim_cur = 0, .rlim_max = 4096};

        expect(first, RAMET_EVENT_LAUNCHED);
        expect(first, RAMET_EVENT_STARTED);
        /* A spawner with no descriptor left: not even the channel can be received. */
        assert_int_equal(prlimit(sp->process.pid, RLIMIT_NOFILE, &none, NULL), 0);
        p = start("clean");
        e = expect(p, RAMET_EVENT_EXIT);
        assert_int_equal(e.exit.reason, RAMET_EXIT_HOST);
        assert_non_null(strstr(e.text, "open files"));
        assert_true(expect(p, RAMET_EVENT_GONE).gone.wait_status == 0);
        ramet_process_release(p);
        /* Nobody else is harmed, and it works again when there is room. */
        assert_int_equal(ramet_process_pause(first), 0);
        expect(first, RAMET_EVENT_PAUSED);
        none.rlim_cur = 1000;
        assert_int_equal(prlimit(sp->process.pid, RLIMIT_NOFILE, &none, NULL), 0);
        p = start("clean");
        expect(p, RAMET_EVENT_LAUNCHED);
        expect(p, RAMET_EVENT_EXIT);
        expect(p, RAMET_EVENT_GONE);
        ramet_process_release(p);
        ramet_process_release(first);
}

static void one_that_waits_can_be_killed(void **state)
{
        struct ramet_process *p[STARTING_MAX + 3];
        unsigned gone = 0;

        for (unsigned i = 0; i < STARTING_MAX + 3; i++)
                p[i] = start("clean");
        assert_int_equal(ramet_process_pause(p[STARTING_MAX + 1]), -EAGAIN);
        ramet_process_kill(p[STARTING_MAX]);
        ramet_process_release(p[STARTING_MAX + 1]);
        while (gone < STARTING_MAX + 2) {
                struct ramet_event e = next();

                assert_ptr_not_equal(e.process, p[STARTING_MAX + 1]);
                if (e.type == RAMET_EVENT_LAUNCHED)
                        assert_ptr_not_equal(e.process, p[STARTING_MAX]);
                if (e.type == RAMET_EVENT_EXIT && e.process == p[STARTING_MAX])
                        assert_int_equal(e.exit.reason, RAMET_EXIT_KILLED);
                gone += e.type == RAMET_EVENT_GONE;
        }
        for (unsigned i = 0; i < STARTING_MAX + 3; i++)
                if (i != STARTING_MAX + 1)
                        ramet_process_release(p[i]);
        assert_int_equal(sp->starting, 0);
}

static void nobody_speaks_after_release(void **state)
{
        struct ramet_process *a = start("clean"), *b, *last;

        expect(a, RAMET_EVENT_LAUNCHED);
        usleep(100000);
        expect(a, RAMET_EVENT_EXIT); /* GONE is in the queue by now */
        ramet_process_release(a);

        a = start("obey");
        expect(a, RAMET_EVENT_LAUNCHED);
        expect(a, RAMET_EVENT_STARTED);
        b = start("obey");
        expect(b, RAMET_EVENT_LAUNCHED);
        expect(b, RAMET_EVENT_STARTED);
        ramet_process_pause(a);
        ramet_process_pause(b);
        usleep(100000);
        last = next().process == a ? b : a; /* both were read, one is in the queue */
        ramet_process_release(last);
        ramet_process_release(last == a ? b : a);

        a = start("clean");
        expect(a, RAMET_EVENT_LAUNCHED);
        expect(a, RAMET_EVENT_EXIT);
        expect(a, RAMET_EVENT_GONE);
        ramet_process_release(a);
}

/* In a process of its own: start three, tell their pids, wait to be killed. */
static _Noreturn void sub_launcher(int out)
{
        struct ramet_ctx *c;
        pid_t pids[4];
        unsigned n = 0;

        if (ramet_ctx_create(&c) || spawner_open(c, &fakes, NULL, &sp))
                _exit(1);
        for (int i = 0; i < 3; i++) {
                struct ramet_vm_options o = options("pause");
                struct ramet_process *p;

                ramet_process_start(sp, &o, &p);
        }
        while (n < 3) {
                struct pollfd pfd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};
                struct ramet_event e;

                poll(&pfd, 1, 10000);
                while (ramet_spawner_next(sp, &e) == 1)
                        if (e.type == RAMET_EVENT_STARTED)
                                pids[n++] = ramet_process_pid(e.process);
        }
        pids[3] = sp->process.pid;
        if (write(out, pids, sizeof pids) != sizeof pids)
                _exit(1);
        for (;;)
                pause();
}

static void all_die(bool spawner_first)
{
        int pipefd[2];
        pid_t pids[4], launcher;

        assert_int_equal(pipe(pipefd), 0);
        launcher = fork();
        if (launcher == 0)
                sub_launcher(pipefd[1]);
        assert_int_equal(read(pipefd[0], pids, sizeof pids), sizeof pids);
        for (int i = 0; i < 4; i++)
                assert_true(exists(pids[i]));
        if (spawner_first) {
                kill(pids[3], SIGKILL);
                for (int i = 0; i < 3; i++)
                        assert_true(vanishes(pids[i]));
        }
        kill(launcher, SIGKILL);
        assert_int_equal(waitpid(launcher, NULL, 0), launcher);
        for (int i = 0; i < 4; i++)
                assert_true(vanishes(pids[i]));
        close(pipefd[0]);
        close(pipefd[1]);
}

static void a_dead_launcher_leaves_nothing(void **state)
{
        all_die(false);
}

static void a_dead_spawner_leaves_nothing(void **state)
{
        struct ramet_event e;

        all_die(true);
        /* and the launcher is told */
        kill(sp->process.pid, SIGKILL);
        usleep(100000);
        assert_int_equal(ramet_spawner_next(sp, &e), -EPIPE);
        assert_non_null(strstr(ramet_last_error(ctx), "spawner"));
}

/* A descriptor of the launcher's that lives on elsewhere must not keep the machines alive. */
static void a_leaked_socket_keeps_nobody_alive(void **state)
{
        int pipefd[2];
        pid_t pids[4], launcher, keeper;

        assert_int_equal(pipe(pipefd), 0);
        launcher = fork();
        if (launcher == 0) {
                int inner[2];

                if (pipe(inner))
                        _exit(1);
                pid_t l = fork();
                if (l == 0) {
                        /* the launcher: forks a keeper of all its descriptors, then dies */
                        int out = inner[1];
                        struct ramet_ctx *c;
                        struct ramet_vm_options o = options("pause");
                        struct ramet_process *p;
                        struct ramet_event e = {0};

                        if (ramet_ctx_create(&c) || spawner_open(c, &fakes, NULL, &sp) ||
                            ramet_process_start(sp, &o, &p))
                                _exit(1);
                        while (e.type != RAMET_EVENT_STARTED)
                                ramet_spawner_next(sp, &e);
                        keeper = fork();
                        if (keeper == 0) {
                                for (;;)
                                        pause();
                        }
                        pids[0] = ramet_process_pid(p);
                        pids[1] = sp->process.pid;
                        pids[2] = keeper;
                        pids[3] = 0;
                        if (write(out, pids, sizeof pids) != sizeof pids)
                                _exit(1);
                        _exit(0);
                }
                waitpid(l, NULL, 0);
                if (read(inner[0], pids, sizeof pids) != sizeof pids ||
                    write(pipefd[1], pids, sizeof pids) != sizeof pids)
                        _exit(1);
                _exit(0);
        }
        assert_int_equal(read(pipefd[0], pids, sizeof pids), sizeof pids);
        assert_int_equal(waitpid(launcher, NULL, 0), launcher);
        assert_true(vanishes(pids[0]));
        assert_true(vanishes(pids[1]));
        kill(pids[2], SIGKILL);
        close(pipefd[0]);
        close(pipefd[1]);
}

/* Neither a child's copy of the descriptors nor its clean-up has a say in the machines' lives. */
static void a_forked_child_does_not_matter(void **state)
{
        struct ramet_process *p = start("obey");
        pid_t keeper, cleaner;

        expect(p, RAMET_EVENT_LAUNCHED);
        expect(p, RAMET_EVENT_STARTED);
        keeper = fork();
        if (keeper == 0) {
                for (;;)
                        pause();
        }
        cleaner = fork();
        if (cleaner == 0) {
                ramet_spawner_destroy(sp);
                _exit(0);
        }
        assert_int_equal(waitpid(cleaner, NULL, 0), cleaner);
        assert_int_equal(ramet_process_pause(p), 0);
        expect(p, RAMET_EVENT_PAUSED);
        alarm(20); /* it would wait for ever, else */
        ramet_spawner_destroy(sp);
        alarm(0);
        sp = NULL;
        kill(keeper, SIGKILL);
        assert_int_equal(waitpid(keeper, NULL, 0), keeper);
}

static void refuse(struct ramet_vm_options o, const char *word)
{
        struct ramet_process *p = NULL;

        assert_int_equal(ramet_process_start(sp, &o, &p), -EINVAL);
        assert_null(p);
        assert_true(ramet_last_error_is_input(ctx));
        if (!strstr(ramet_last_error(ctx), word))
                fail_msg("\"%s\" does not say \"%s\"", ramet_last_error(ctx), word);
}

static void options_out_of_range_are_refused(void **state)
{
        struct ramet_vm_options ok = options("clean"), o = ok;
        char *text = malloc(70000);

        memset(text, 'x', 69999);
        text[69999] = 0;
        o.vcpus = 0;
        refuse(o, "0 given, 1 to 64");
        o.vcpus = 10000;
        refuse(o, "10000 given");
        o = ok;
        o.memory_bytes = 1024;
        refuse(o, "1024 bytes given");
        o.memory_bytes = (2 << 20) + 1;
        refuse(o, "multiple of 4096");
        o.memory_bytes = RAMET_MEMORY_MAX + 4096;
        refuse(o, "given");
        o = ok;
        o.fork_count = RAMET_CLONES_MAX + 1;
        refuse(o, "10001 clones");
        o = ok;
        o.cmdline = text;
        refuse(o, "69999 bytes long, at most 65535");
        o = ok;
        o.kernel_name = text;
        refuse(o, "kernel name");
        o = ok;
        o.fork_at_console = text;
        refuse(o, "console text");
        o = ok;
        o.kernel_fd = -1;
        refuse(o, "no kernel");
        o = ok;
        o.flat = true;
        o.flat_bits = 8;
        refuse(o, "8 bits");
        o = ok;
        o.cow = (enum ramet_cow)(RAMET_COW_ROM + 1);
        refuse(o, "unknown engine 3");
        o = ok;
        o.size = 8;
        refuse(o, "size is 8");
        o.size = offsetof(struct ramet_vm_options, cow) - 1;
        refuse(o, "at least");
        free(text);
}

/* Of the first version: what is behind its end counts as zero, whatever is there. */
static void shorter_options_are_taken(void **state)
{
        struct ramet_vm_options o = options("clean");
        struct ramet_process *p;

        o.size = offsetof(struct ramet_vm_options, cow);
        o.cow = (enum ramet_cow)77;
        assert_int_equal(ramet_process_start(sp, &o, &p), 0);
        ramet_process_release(p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_machine_gets_a_clean_process),
                TEST(its_end_is_told),
                TEST(last_words_are_heard),
                TEST(killing_one_leaves_the_others),
                TEST(misbehaviour_is_death),
                TEST(nothing_is_heard_after_the_end),
                TEST(a_fork_makes_clones),
                TEST(no_descriptor_is_left),
                TEST(no_process_to_be_had),
                TEST(one_that_waits_can_be_killed),
                TEST(nobody_speaks_after_release),
                TEST(a_dead_launcher_leaves_nothing),
                TEST(a_dead_spawner_leaves_nothing),
                TEST(a_leaked_socket_keeps_nobody_alive),
                TEST(a_forked_child_does_not_matter),
                TEST(options_out_of_range_are_refused),
                TEST(shorter_options_are_taken),
        };

        return cmocka_run_group_tests_name("proc", tests, NULL, NULL);
}
