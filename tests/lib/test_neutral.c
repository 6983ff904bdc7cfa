/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nothing is taken from the program: it has handlers, masks, threads, a timer and children of its
 * own, and all of that is as before when machines have lived in it, as threads and as processes;
 * and machines live although signals rain on the program.
 */
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ramet/process.h>

#include "tests/lib/api.h"

#define THREADS 3

static _Atomic unsigned long came[NSIG]; /* to the program's handlers */
static _Atomic bool over;

static void handler(int signal)
{
        came[signal]++;
}

static const int handled[] = {SIGUSR1, SIGUSR2, SIGCHLD, SIGALRM, SIGSTKFLT};
#define HANDLED (sizeof handled / sizeof *handled)

/* --- what a program has --- */

struct facts {
        struct sigaction actions[NSIG];
        char threads[4096]; /* SigBlk and SigCgt of each, in order of their numbers */
        unsigned nthreads, descriptors;
        size_t nmappings;
        char cwd[4096], environment[8192], locale[256];
        mode_t mask;
        struct rlimit limits[RLIMIT_NLIMITS];
};

static int by_number(const struct dirent **a, const struct dirent **b)
{
        return atoi((*a)->d_name) - atoi((*b)->d_name);
}

static void note_thread(struct facts *f, const char *tid)
{
        char path[300], line[256];
        size_t n = strlen(f->threads);
        FILE *file;

        snprintf(path, sizeof path, "/proc/self/task/%s/status", tid);
        file = fopen(path, "re");
        assert_non_null(file);
        n += (size_t)snprintf(f->threads + n, sizeof f->threads - n, "%s\n", tid);
        while (fgets(line, sizeof line, file))
                if (!strncmp(line, "SigBlk", 6) || !strncmp(line, "SigCgt", 6))
                        n += (size_t)snprintf(f->threads + n, sizeof f->threads - n, "%s", line);
        fclose(file);
}

static size_t count_lines(const char *path)
{
        FILE *file = fopen(path, "re");
        size_t n = 0;
        int c;

        assert_non_null(file);
        while ((c = fgetc(file)) != EOF)
                n += c == '\n';
        fclose(file);
        return n;
}

static void note(struct facts *f)
{
        extern char **environ;
        struct dirent **tasks;
        int n = scandir("/proc/self/task", &tasks, NULL, by_number);

        memset(f, 0, sizeof *f);
        for (int i = 0; i < n; free(tasks[i++]))
                if (tasks[i]->d_name[0] != '.') {
                        note_thread(f, tasks[i]->d_name);
                        f->nthreads++;
                }
        free(tasks);
        for (int s = 1; s < NSIG; s++)
                sigaction(s, NULL, &f->actions[s]);
        f->descriptors = api_descriptors();
        f->nmappings = count_lines("/proc/self/maps");
        assert_non_null(getcwd(f->cwd, sizeof f->cwd));
        for (char **e = environ; *e; e++)
                strncat(f->environment, *e, sizeof f->environment - strlen(f->environment) - 1);
        snprintf(f->locale, sizeof f->locale, "%s", setlocale(LC_ALL, NULL));
        f->mask = umask(0);
        umask(f->mask);
        for (int r = 0; r < RLIMIT_NLIMITS; r++)
                getrlimit(r, &f->limits[r]);
}

static void compare(const struct facts *a, const struct facts *b)
{
        for (int s = 1; s < NSIG; s++)
                if (a->actions[s].sa_handler != b->actions[s].sa_handler ||
                    a->actions[s].sa_flags != b->actions[s].sa_flags)
                        fail_msg("signal %d has another handler", s);
        assert_string_equal(a->threads, b->threads);
        assert_int_equal(a->nthreads, b->nthreads);
        assert_int_equal(a->descriptors, b->descriptors);
#ifndef __SANITIZE_ADDRESS__ /* which maps for itself */
        /* The C library keeps what it has mapped for its heaps and stacks. */
        assert_in_range(b->nmappings, 0, a->nmappings + 8);
#endif
        assert_string_equal(a->cwd, b->cwd);
        assert_string_equal(a->environment, b->environment);
        assert_string_equal(a->locale, b->locale);
        assert_int_equal(a->mask, b->mask);
        assert_memory_equal(a->limits, b->limits, sizeof a->limits);
}

/* --- the program --- */

static void *thread_main(void *data)
{
        sigset_t mine;

        sigemptyset(&mine);
        sigaddset(&mine, (int)(intptr_t)data);
        pthread_sigmask(SIG_BLOCK, &mine, NULL);
        while (!atomic_load(&over))
                usleep(10000);
        return NULL;
}

static pthread_t threads[THREADS];

static int begin(void **state)
{
        const struct itimerval tick = {{.tv_usec = 1000}, {.tv_usec = 1000}};
        static const int blocked[THREADS] = {SIGUSR1, SIGALRM, SIGSTKFLT};

        atomic_store(&over, false);
        for (size_t i = 0; i < HANDLED; i++) {
                struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};

                sigaction(handled[i], &sa, NULL);
                came[handled[i]] = 0;
        }
        for (intptr_t i = 0; i < THREADS; i++)
                if (pthread_create(&threads[i], NULL, thread_main, (void *)(intptr_t)blocked[i]))
                        return -1;
        usleep(20000); /* they set their masks */
        return setitimer(ITIMER_REAL, &tick, NULL);
}

static int end(void **state)
{
        const struct itimerval none = {0};

        setitimer(ITIMER_REAL, &none, NULL);
        atomic_store(&over, true);
        for (unsigned i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        for (size_t i = 0; i < HANDLED; i++)
                signal(handled[i], SIG_DFL);
        return 0;
}

/* --- machines --- */

/* A machine counts in user mode, is stopped from outside again and again, and counts on. */
static void stop_and_go(struct ramet_vm *vm, unsigned times)
{
        struct servant_mail before, after;

        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        for (unsigned i = 0; i < times; i++) {
                api_ok(ramet_vm_start(vm));
                api_ok(ramet_vm_pause(vm));
                api_get_mail(vm, 0, &before);
                for (unsigned ms = 0; ms < 10000; ms++) {
                        api_ok(ramet_vm_start(vm));
                        usleep(1000);
                        api_ok(ramet_vm_pause(vm));
                        api_get_mail(vm, 0, &after);
                        if (after.spins > before.spins)
                                break;
                }
                assert_true(after.spins > before.spins);
        }
}

static void in_the_program(void)
{
        struct ramet_vm *vm = api_ready(1), *forked[2] = {0}, *clone;
        struct ramet_template *tmpl = NULL;

        api_ok(ramet_vm_freeze(vm, "ready", &tmpl));
        clone = api_spawn(tmpl);
        api_until(clone, RAMET_VM_DOORBELL);
        stop_and_go(clone, 20);
        for (unsigned i = 0; i < 10; i++)
                api_ok(ramet_vm_reset(clone));
        api_until(clone, RAMET_VM_DOORBELL);
        api_ok(ramet_vm_fork(vm, 2, forked));
        for (unsigned i = 0; i < 2; i++) {
                api_until(forked[i], RAMET_VM_DOORBELL);
                ramet_vm_destroy(forked[i]);
        }
        ramet_vm_destroy(clone);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

static struct ramet_event next(struct ramet_spawner *sp, enum ramet_event_type type)
{
        for (;;) {
                struct pollfd fd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};
                struct ramet_event e;
                int ret = api_ok(ramet_spawner_next(sp, &e));

                if (ret && e.type == type)
                        return e;
                if (!ret && poll(&fd, 1, 10000) == 0)
                        fail_msg("no event %d came in 10 s", type);
        }
}

static void as_processes(void)
{
        struct ramet_vm *vm = api_ready(1);
        struct ramet_template *tmpl = NULL;
        struct ramet_spawner *sp = NULL;
        struct ramet_frozen *f = NULL;

        api_order(vm, 0, SERVANT_EXIT, 7, 0, 0);
        api_ok(ramet_vm_freeze(vm, "last", &tmpl));
        ramet_vm_destroy(vm);
        api_ok(ramet_template_export(tmpl, &f));
        ramet_template_release(tmpl);
        api_ok(ramet_spawner_execute(api_ctx, NULL, &sp));
        for (unsigned i = 1; i <= 3; i++) {
                const struct ramet_clone_options o = {.size = sizeof o,
                                                      .index = i,
                                                      .count = 3,
                                                      .console_in_fd = -1,
                                                      .console_out_fd = -1};
                struct ramet_process *p;

                api_ok(ramet_process_clone(sp, f, &o, &p));
        }
        ramet_frozen_release(f);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(next(sp, RAMET_EVENT_EXIT).exit.status, 7 << 1 | 1);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        ramet_spawner_destroy(sp);
}

/* --- cases --- */

static void nothing_is_taken(void **state)
{
        static struct facts before, after;

        in_the_program(); /* what the C library sets up once */
        note(&before);
        in_the_program();
        as_processes();
        note(&after);
        compare(&before, &after);
        assert_int_equal(came[SIGCHLD], 0);
        assert_int_equal(came[SIGSTKFLT], 0); /* a kick is never delivered */
        assert_true(came[SIGALRM] > 50);
        assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
}

static void a_forked_spawner_is_not_heard_of(void **state)
{
        struct ramet_spawner *sp = NULL;

        came[SIGCHLD] = 0;
        signal(SIGCHLD, handler);
        api_ok(ramet_spawner_create(api_ctx, &sp));
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        ramet_spawner_destroy(sp);
        assert_int_equal(came[SIGCHLD], 0);
        signal(SIGCHLD, SIG_DFL);
}

static void *rain(void *data)
{
        const int *signals = data;

        while (!atomic_load(&over)) {
                for (unsigned i = 0; signals[i]; i++)
                        kill(getpid(), signals[i]);
                usleep(200);
        }
        return NULL;
}

/* Whatever the signal is, one that is sent to the program comes to its handler, once. */
static void under_rain(int kick, const int *signals)
{
        struct ramet_vm *vm;
        pthread_t thread;

        api_ok(ramet_ctx_set_kick_signal(api_ctx, kick));
        assert_int_equal(pthread_create(&thread, NULL, rain, (void *)signals), 0);
        vm = api_ready(1);
        stop_and_go(vm, 50);
        ramet_vm_destroy(vm);
        atomic_store(&over, true);
        pthread_join(thread, NULL);
        api_ok(ramet_ctx_set_kick_signal(api_ctx, SIGSTKFLT));
}

static void machines_work_in_the_rain(void **state)
{
        static const int signals[] = {SIGUSR1, SIGUSR2, SIGSTKFLT, 0};

        under_rain(SIGSTKFLT, signals);
        for (unsigned i = 0; signals[i]; i++)
                assert_true(came[signals[i]] > 50);
}

static void and_with_another_signal(void **state)
{
        static const int signals[] = {SIGUSR1, SIGSTKFLT, 0};

        under_rain(SIGUSR1, signals);
        assert_true(came[SIGUSR1] > 50);
        assert_true(came[SIGSTKFLT] > 50);
}

/* All of the program's threads block it, and one accepts it now and then. vCPUs stand still while
 * it is pending; it is not theirs to take, and they run again. */
static void a_kick_signal_that_the_program_waits_for(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        const struct timespec second = {.tv_sec = 1};
        sigset_t set, old;

        end(NULL); /* the threads, which do not block it */
        sigemptyset(&set);
        sigaddset(&set, SIGSTKFLT);
        pthread_sigmask(SIG_BLOCK, &set, &old);
        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        for (unsigned i = 0; i < 20; i++) {
                siginfo_t info;

                api_ok(ramet_vm_start(vm));
                kill(getpid(), SIGSTKFLT);
                usleep(i * 500);
                api_ok(ramet_vm_pause(vm));
                assert_int_equal(sigtimedwait(&set, &info, &second), SIGSTKFLT);
        }
        stop_and_go(vm, 5);
        /* One that nobody wants is gone after a while. */
        api_ok(ramet_vm_start(vm));
        kill(getpid(), SIGSTKFLT);
        usleep(300000);
        stop_and_go(vm, 5);
        ramet_vm_destroy(vm);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        assert_int_equal(begin(NULL), 0);
}

static void ramet_ctx_set_kick_signal_(void **state)
{
        static const int bad[] = {0, -1, SIGKILL, SIGSTOP, SIGSEGV, 33, NSIG + 1};
        static const int taken_back[] = {SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU};
        struct ramet_vm *vm;

        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
                api_fails(ramet_ctx_set_kick_signal(api_ctx, bad[i]), -EINVAL, "signal");
        for (unsigned i = 0; i < sizeof taken_back / sizeof *taken_back; i++)
                api_fails(ramet_ctx_set_kick_signal(api_ctx, taken_back[i]), -EINVAL,
                          "job control");
        api_fails(ramet_ctx_set_kick_signal(api_ctx, SIGRTMIN), -EINVAL, "real-time");
        api_fails(ramet_ctx_set_kick_signal(NULL, SIGUSR1), -EINVAL, "ctx");
        api_ok(ramet_ctx_set_kick_signal(api_ctx, SIGUSR2));
        vm = api_ready(1);
        stop_and_go(vm, 3);
        ramet_vm_destroy(vm);
        assert_int_equal(came[SIGUSR2], 0);
        api_ok(ramet_ctx_set_kick_signal(api_ctx, SIGSTKFLT));
}

/* What the C library does in all threads by a signal of its own, it does in those of vCPUs. */
static void user_ids_can_be_set(void **state)
{
        struct ramet_vm *vm = api_ready(1);

        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        api_ok(ramet_vm_start(vm));
        usleep(10000);
        assert_int_equal(setuid(getuid()), 0);
        stop_and_go(vm, 2);
        ramet_vm_destroy(vm);
}

static void the_program_forks(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        pid_t pid;
        int status;

        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        api_ok(ramet_vm_start(vm));
        for (unsigned i = 0; i < 3; i++) {
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0) {
                        execl("/bin/true", "true", NULL);
                        _exit(1);
                }
                while (waitpid(pid, &status, 0) < 0)
                        assert_int_equal(errno, EINTR);
                assert_int_equal(status, 0);
                stop_and_go(vm, 2);
                api_ok(ramet_vm_start(vm));
        }
        assert_int_equal(came[SIGCHLD], 3); /* its own */
        ramet_vm_destroy(vm);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_ctx_set_kick_signal", ramet_ctx_set_kick_signal_, begin, end, NULL},
                cmocka_unit_test_setup_teardown(nothing_is_taken, begin, end),
                cmocka_unit_test_setup_teardown(a_forked_spawner_is_not_heard_of, NULL, NULL),
                cmocka_unit_test_setup_teardown(machines_work_in_the_rain, begin, end),
                cmocka_unit_test_setup_teardown(and_with_another_signal, begin, end),
                cmocka_unit_test_setup_teardown(a_kick_signal_that_the_program_waits_for, begin,
                                                end),
                cmocka_unit_test_setup_teardown(user_ids_can_be_set, begin, end),
                cmocka_unit_test_setup_teardown(the_program_forks, begin, end),
        };
        int ret = api_init();

        return ret <= 0 ? -ret : cmocka_run_group_tests_name("lib_neutral", tests, NULL, NULL);
}
