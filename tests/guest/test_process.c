/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines as processes, with real guests behind the filter: forks by doorbell and by request,
 * forks of clones, pauses, killing, and what is left when the launcher dies.
 */
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <ramet/process.h>

static struct ramet_ctx *ctx;
static struct ramet_spawner *sp;
static int consoles[16]; /* read ends of the pipes that the machines print into */
static unsigned nconsoles;

static int setup(void **state)
{
        return ramet_ctx_create(&ctx) || ramet_spawner_create(ctx, &sp);
}

static int teardown(void **state)
{
        ramet_spawner_destroy(sp);
        ramet_ctx_destroy(ctx);
        while (nconsoles)
                close(consoles[--nconsoles]);
        return waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD ? 0 : -1;
}

/* The write end of a new one. */
static int new_console(void)
{
        int pipefd[2];

        assert_true(nconsoles < sizeof consoles / sizeof *consoles);
        assert_int_equal(pipe2(pipefd, O_CLOEXEC), 0);
        fcntl(pipefd[0], F_SETFL, O_NONBLOCK);
        consoles[nconsoles++] = pipefd[0];
        return pipefd[1];
}

/* @out: its console, taken over. */
static struct ramet_process *start_on(int out, const char *guest, const char *cmdline,
                                      unsigned vcpus, unsigned armed, enum ramet_seccomp seccomp)
{
        char path[4096];
        struct ramet_process *p;

        snprintf(path, sizeof path, "%s/%s.elf", getenv("TEST_GUESTS"), guest);

        int kernel = open(path, O_RDONLY | O_CLOEXEC);
        struct ramet_vm_options o = {
                .size = sizeof o,
                .kernel_fd = kernel,
                .kernel_name = guest,
                .initramfs_fd = -1,
                .cmdline = cmdline,
                .memory_bytes = 32 << 20,
                .vcpus = vcpus,
                .debug_exit_port = 0xf4,
                .console_in_fd = -1,
                .console_out_fd = out,
                .fork_count = armed,
                .fork_at_doorbell = armed > 0,
                .seccomp = seccomp,
        };

        assert_true(kernel >= 0);
        if (ramet_process_start(sp, &o, &p))
                fail_msg("%s", ramet_last_error(ctx));
        close(kernel);
        close(o.console_out_fd);
        return p;
}

static struct ramet_process *start(const char *guest, const char *cmdline, unsigned vcpus,
                                   unsigned armed, enum ramet_seccomp seccomp)
{
        return start_on(new_console(), guest, cmdline, vcpus, armed, seccomp);
}

static struct ramet_process *clone_of(struct ramet_frozen *frozen, unsigned index, unsigned count,
                                      bool paused)
{
        struct ramet_clone_options o = {
                .size = sizeof o,
                .index = index,
                .count = count,
                .console_in_fd = -1,
                .console_out_fd = new_console(),
                .paused = paused,
        };
        struct ramet_process *p;

        if (ramet_process_clone(sp, frozen, &o, &p))
                fail_msg("%s", ramet_last_error(ctx));
        close(o.console_out_fd);
        return p;
}

/* The next event within @ms; false: none. */
static bool next_within(struct ramet_event *e, int ms)
{
        for (;;) {
                struct pollfd pfd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};
                int ret = ramet_spawner_next(sp, e);

                if (ret < 0)
                        fail_msg("%s", ramet_last_error(ctx));
                if (ret)
                        return true;
                if (poll(&pfd, 1, ms) != 1)
                        return false;
        }
}

/* Wait for @type from @p (NULL: anybody), over what else comes; an unexpected end fails. */
static struct ramet_event await(struct ramet_process *p, enum ramet_event_type type)
{
        struct ramet_event e;

        for (;;) {
                if (!next_within(&e, 30000))
                        fail_msg("event %d has not come", (int)type);
                if (e.type == type && (!p || e.process == p))
                        return e;
                if (e.type == RAMET_EVENT_FORK_FAILED ||
                    (e.type == RAMET_EVENT_EXIT && e.exit.reason >= RAMET_EXIT_CRASH))
                        fail_msg("%s", e.text);
        }
}

/* How often @what is on the consoles by now. */
static unsigned printed(const char *what)
{
        static char text[65536];
        unsigned count = 0;

        for (unsigned i = 0; i < nconsoles; i++) {
                ssize_t n = read(consoles[i], text, sizeof text - 1);

                text[n > 0 ? n : 0] = 0;
                for (const char *at = text; (at = strstr(at, what)); at++)
                        count++;
        }
        return count;
}

static void fork_by_doorbell(enum ramet_seccomp seccomp)
{
        struct ramet_process *p = start("fork_pio", "", 1, 4, seccomp);
        bool seen[5] = {false};
        struct ramet_event e = await(p, RAMET_EVENT_FORK_POINT);

        assert_int_equal(e.fork_point.cause, RAMET_FORK_DOORBELL);
        e = await(p, RAMET_EVENT_FROZEN);
        assert_int_equal(e.frozen.count, 4);
        assert_int_equal(e.frozen.generation, 1);
        assert_int_equal(e.frozen.copied_bytes, 0);
        assert_true(e.frozen.pause_ns >= e.frozen.stop_ns);
        for (unsigned i = 1; i <= 4; i++)
                clone_of(e.frozen.frozen, i, 4, false);
        ramet_frozen_release(e.frozen.frozen);
        for (int gone = 0; gone < 5; gone++) {
                e = await(NULL, RAMET_EVENT_EXIT);
                assert_int_equal(e.exit.reason, RAMET_EXIT_DEBUG);
                assert_false(seen[e.exit.status / 2]);
                seen[e.exit.status / 2] = true;
                if (e.exit.status / 2)
                        assert_true(e.exit.shared_bytes > e.exit.private_bytes);
        }
        assert_int_equal(printed("count=4"), 5); /* all of it is here when EXIT is */
}

static void a_doorbell_forks(void **state)
{
        fork_by_doorbell(RAMET_SECCOMP_ON);
}

static void it_does_without_a_filter(void **state)
{
        fork_by_doorbell(RAMET_SECCOMP_OFF);
}

/* /proc/PID/status of a machine: its process is confined, and so is each thread. */
static int seccomp_mode(pid_t pid, const char *task)
{
        char path[64], line[256];
        int mode = -1;
        FILE *f;

        snprintf(path, sizeof path, "/proc/%d/task/%s/status", pid, task);
        f = fopen(path, "re");
        while (f && fgets(line, sizeof line, f))
                sscanf(line, "Seccomp: %d", &mode);
        if (f)
                fclose(f);
        return mode;
}

static void a_running_guest_is_confined(void **state)
{
        struct ramet_process *p = start("hang", "", 2, 0, RAMET_SECCOMP_ON);
        struct ramet_process *off = start("hang", "", 1, 0, RAMET_SECCOMP_OFF);
        char pid[16];

        await(p, RAMET_EVENT_STARTED);
        snprintf(pid, sizeof pid, "%d", ramet_process_pid(p));
        assert_int_equal(seccomp_mode(ramet_process_pid(p), pid), 2);
        for (int i = 1; i <= 2; i++) { /* its vCPU threads came next */
                snprintf(pid, sizeof pid, "%d", ramet_process_pid(p) + i);
                if (seccomp_mode(ramet_process_pid(p), pid) >= 0)
                        assert_int_equal(seccomp_mode(ramet_process_pid(p), pid), 2);
        }
        if (!ramet_process_pid(off))
                await(off, RAMET_EVENT_STARTED);
        snprintf(pid, sizeof pid, "%d", ramet_process_pid(off));
        assert_int_equal(seccomp_mode(ramet_process_pid(off), pid), 0);
}

/* Asked for, of a machine that knows nothing of it; then of its clone, and of the clone's. */
static void clones_can_be_forked(void **state)
{
        struct ramet_process *p = start("writer", "mib=2", 2, 0, RAMET_SECCOMP_ON);

        await(p, RAMET_EVENT_STARTED);
        usleep(200000);
        for (unsigned depth = 1; depth <= 3; depth++) {
                struct ramet_process *c;
                struct ramet_event e;

                assert_int_equal(ramet_process_fork(p, 1), 0);
                e = await(p, RAMET_EVENT_FORK_POINT);
                assert_int_equal(e.fork_point.cause, RAMET_FORK_REQUEST);
                e = await(p, RAMET_EVENT_FROZEN);
                assert_int_equal(e.frozen.copied_bytes > 0, depth > 1);
                assert_int_equal(e.frozen.generation, 1);
                c = clone_of(e.frozen.frozen, 1, 1, false);
                ramet_frozen_release(e.frozen.frozen);
                e = await(c, RAMET_EVENT_READY);
                assert_true(e.ready.spawn_ns > 0);
                e = await(c, RAMET_EVENT_RUNNING);
                assert_string_not_equal(e.running.how, "doorbell");
                assert_int_equal(ramet_process_kill(p), 0); /* its clone lives on */
                ramet_process_release(p);
                p = c;
                usleep(100000);
        }
        assert_int_equal(ramet_process_pause(p), 0);
        await(p, RAMET_EVENT_PAUSED);
}

static void a_clone_may_begin_paused(void **state)
{
        struct ramet_process *p = start("fork_pio", "", 1, 1, RAMET_SECCOMP_ON), *c;
        struct ramet_event e = await(p, RAMET_EVENT_FROZEN);

        await(p, RAMET_EVENT_GONE);
        c = clone_of(e.frozen.frozen, 1, 1, true); /* long after its parent's end */
        ramet_frozen_release(e.frozen.frozen);
        await(c, RAMET_EVENT_READY);
        assert_false(next_within(&e, 300));
        assert_int_equal(ramet_process_pause(c), 0);
        await(c, RAMET_EVENT_PAUSED);
        assert_false(next_within(&e, 100));
        assert_int_equal(ramet_process_resume(c), 0);
        await(c, RAMET_EVENT_RESUMED);
        await(c, RAMET_EVENT_RUNNING);
        assert_int_equal(await(c, RAMET_EVENT_EXIT).exit.status, 3);
}

/* Bad input and a bad host end in one EXIT with words, and whose fault it was. */
static void what_cannot_start_says_why(void **state)
{
        struct ramet_vm_options o = {
                .size = sizeof o,
                .kernel_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
                .kernel_name = "empty.bin",
                .initramfs_fd = -1,
                .memory_bytes = 32 << 20,
                .vcpus = 1,
                .console_in_fd = -1,
                .console_out_fd = -1,
        };
        struct ramet_process *p;
        struct ramet_event e;

        assert_int_equal(ramet_process_start(sp, &o, &p), 0);
        close(o.kernel_fd);
        do
                assert_true(next_within(&e, 10000));
        while (e.type != RAMET_EVENT_EXIT);
        assert_int_equal(e.exit.reason, RAMET_EXIT_INPUT);
        assert_true(e.text_is_input);
        assert_non_null(strstr(e.text, "empty.bin"));
        await(p, RAMET_EVENT_GONE);
}

static void killing_clones_harms_nobody(void **state)
{
        struct ramet_process *p = start("writer", "mib=2 ms=1500", 2, 0, RAMET_SECCOMP_ON), *c[6];
        struct ramet_event e;
        int ends = 0;

        await(p, RAMET_EVENT_STARTED);
        usleep(100000);
        assert_int_equal(ramet_process_fork(p, 6), 0);
        e = await(p, RAMET_EVENT_FROZEN);
        for (unsigned i = 0; i < 6; i++)
                c[i] = clone_of(e.frozen.frozen, i + 1, 6, false);
        ramet_frozen_release(e.frozen.frozen);
        await(c[5], RAMET_EVENT_RUNNING);
        for (unsigned i = 0; i < 6; i += 2)
                kill(ramet_process_pid(c[i]), SIGKILL);
        while (ends < 7) {
                assert_true(next_within(&e, 30000));
                if (e.type != RAMET_EVENT_EXIT)
                        continue;
                ends++;
                if (e.process == c[0] || e.process == c[2] || e.process == c[4])
                        assert_int_equal(e.exit.reason, RAMET_EXIT_KILLED);
                else
                        assert_int_equal(e.exit.reason, RAMET_EXIT_POWEROFF);
        }
        assert_int_equal(printed("errors=0"), 4);
}

/* A console that takes nothing for a while: EXIT waits for the last line. */
static void the_end_comes_after_the_last_line(void **state)
{
        struct ramet_process *p;
        struct ramet_event e;
        static char full[65536];
        int out = new_console();

        fcntl(out, F_SETFL, O_NONBLOCK);
        while (write(out, full, sizeof full) > 0)
                ;
        while (write(out, full, 1) > 0)
                ;
        fcntl(out, F_SETFL, 0);
        p = start_on(out, "fork_pio", "", 1, 0, RAMET_SECCOMP_ON);
        await(p, RAMET_EVENT_STARTED);
        assert_false(next_within(&e, 700));
        assert_int_equal(read(consoles[0], full, sizeof full), sizeof full);
        await(p, RAMET_EVENT_EXIT);
        assert_int_equal(printed("result=not-armed"), 1);
}

static bool vanishes(pid_t pid)
{
        for (int i = 0; i < 500 && kill(pid, 0) == 0; i++)
                usleep(10000);
        return kill(pid, 0) != 0;
}

static void a_dead_launcher_leaves_no_machine(void **state)
{
        int pipefd[2];
        pid_t launcher, pid;

        assert_int_equal(pipe(pipefd), 0);
        launcher = fork();
        if (launcher == 0) {
                struct ramet_process *p;

                setup(NULL);
                p = start("hang", "", 2, 0, RAMET_SECCOMP_ON);
                await(p, RAMET_EVENT_STARTED);
                pid = ramet_process_pid(p);
                if (write(pipefd[1], &pid, sizeof pid) != sizeof pid)
                        _exit(1);
                for (;;)
                        pause();
        }
        assert_int_equal(read(pipefd[0], &pid, sizeof pid), sizeof pid);
        assert_int_equal(kill(pid, 0), 0);
        kill(launcher, SIGKILL);
        waitpid(launcher, NULL, 0);
        assert_true(vanishes(pid));
        close(pipefd[0]);
        close(pipefd[1]);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(a_doorbell_forks),
                TEST(it_does_without_a_filter),
                TEST(a_running_guest_is_confined),
                TEST(clones_can_be_forked),
                TEST(a_clone_may_begin_paused),
                TEST(what_cannot_start_says_why),
                TEST(killing_clones_harms_nobody),
                TEST(the_end_comes_after_the_last_line),
                TEST(a_dead_launcher_leaves_no_machine),
        };

        if (access("/dev/kvm", R_OK | W_OK)) {
                printf("1..0 # SKIP /dev/kvm cannot be opened\n");
                return 0;
        }
        return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
