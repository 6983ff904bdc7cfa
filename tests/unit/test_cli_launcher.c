/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher with machines that do as they are told: exit statuses, names and numbers of clones,
 * how many are loaded at once, the events file, and that a clone's failure stays its own.
 *
 * The fake has the shape of struct backend. Each machine follows a script when it is started or
 * cloned; events wait in a queue behind an eventfd.
 */
#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <cmocka.h>

#include "cli/cli.h"
#include "base/clock.h"
#include "cli/launcher.h"
#include "cli/message.h"

#define QUEUE_MAX    4096
#define MACHINES_MAX 256

struct fake_machine {
        void *data;
        unsigned index; /* of its fork, 0: the root */
        bool alive;
};

/* What the machines of a test do. */
static struct {
        enum ramet_exit root_ends;
        int root_status;
        unsigned fork;           /* the root rings for so many clones */
        bool fork_fails, hangs;  /* the root hangs */
        unsigned crashing_clone; /* this clone crashes, 0: none */
        unsigned stillborn;      /* this one dies before it is ready */
        unsigned refused;        /* this one cannot even be asked for */

        struct ramet_event queue[QUEUE_MAX];
        size_t head, tail;
        int fd;
        struct fake_machine machines[MACHINES_MAX];
        unsigned nmachines, loading, loading_max, frozen_out;
        bool root_waits; /* it ends when the clones have */
} fake;

static struct ramet_event *push(struct fake_machine *m, enum ramet_event_type type)
{
        struct ramet_event *event = &fake.queue[fake.tail++ % QUEUE_MAX];

        *event = (struct ramet_event){.type = type, .process = (void *)m, .t_ns = clock_now_ns()};
        eventfd_write(fake.fd, 1);
        return event;
}

static void push_end(struct fake_machine *m, enum ramet_exit reason, int status)
{
        struct ramet_event *event = push(m, RAMET_EVENT_EXIT);

        event->exit.reason = reason;
        event->exit.status = status;
        event->exit.shared_bytes = 4096;
        push(m, RAMET_EVENT_GONE)->gone.had_exit = true;
}

static int fake_create(struct ramet_ctx *ctx, struct ramet_spawner **spawner)
{
        fake.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        *spawner = (void *)&fake;
        return 0;
}

static void fake_destroy(struct ramet_spawner *spawner)
{
        close(fake.fd);
}

static int fake_fd(const struct ramet_spawner *spawner)
{
        return fake.fd;
}

static int fake_next(struct ramet_spawner *spawner, struct ramet_event *event)
{
        eventfd_t n;

        if (fake.head == fake.tail) {
                eventfd_read(fake.fd, &n);
                return 0;
        }
        *event = fake.queue[fake.head++ % QUEUE_MAX];
        if (event->type == RAMET_EVENT_READY || event->type == RAMET_EVENT_GONE)
                fake.loading -= ((struct fake_machine *)event->process)->index > 0 &&
                                (event->type == RAMET_EVENT_READY || !event->gone.had_exit);
        return 1;
}

static void push_fork(struct fake_machine *root, enum ramet_fork_cause cause, unsigned count)
{
        struct ramet_event *event = push(root, RAMET_EVENT_FORK_POINT);

        event->fork_point.cause = cause;
        event->fork_point.count = count;
        if (fake.fork_fails) {
                snprintf(push(root, RAMET_EVENT_FORK_FAILED)->text, 32, "no memory");
                return;
        }
        event = push(root, RAMET_EVENT_FROZEN);
        event->frozen.frozen = (void *)&fake;
        event->frozen.count = count;
        event->frozen.vcpus = 1;
        event->frozen.generation = 1;
        event->frozen.pause_ns = 1000;
        event->frozen.memory_bytes = 1 << 20;
        fake.frozen_out++;
}

static struct fake_machine *add(unsigned index, struct ramet_process **process)
{
        struct fake_machine *m = &fake.machines[fake.nmachines++];

        assert_true(fake.nmachines < MACHINES_MAX);
        *m = (struct fake_machine){.index = index, .alive = true};
        push(m, RAMET_EVENT_LAUNCHED)->launched.pid = 1000 + (pid_t)fake.nmachines;
        *process = (void *)m;
        return m;
}

static int fake_start(struct ramet_spawner *spawner, const struct ramet_vm_options *options,
                      struct ramet_process **process)
{
        struct fake_machine *m = add(0, process);

        push(m, RAMET_EVENT_STARTED);
        if (options->fork_count && fake.fork)
                push_fork(m, RAMET_FORK_DOORBELL, options->fork_count);
        if (!fake.hangs)
                push_end(m, fake.root_ends, fake.root_status);
        return 0;
}

static int fake_clone(struct ramet_spawner *spawner, struct ramet_frozen *frozen,
                      const struct ramet_clone_options *options, struct ramet_process **process)
{
        struct fake_machine *m;

        assert_ptr_equal(frozen, &fake);
        if (options->index == fake.refused)
                return -EMFILE;
        m = add(options->index, process);
        if (++fake.loading > fake.loading_max)
                fake.loading_max = fake.loading;
        if (options->index == fake.stillborn) {
                push(m, RAMET_EVENT_GONE)->gone.wait_status = SIGKILL;
                return 0;
        }
        push(m, RAMET_EVENT_READY)->ready.spawn_ns = 300000;
        push(m, RAMET_EVENT_RUNNING)->running.first_exit_ns = 400000 + options->index;
        push_end(m, options->index == fake.crashing_clone ? RAMET_EXIT_CRASH : RAMET_EXIT_POWEROFF,
                 0);
        return 0;
}

static int fake_fork(struct ramet_process *process, unsigned count)
{
        push_fork((void *)process, RAMET_FORK_REQUEST, count);
        return 0;
}

static int fake_nothing(struct ramet_process *process)
{
        return 0;
}

static int fake_kill(struct ramet_process *process)
{
        struct fake_machine *m = (void *)process;

        if (m->alive)
                push(m, RAMET_EVENT_GONE)->gone.wait_status = SIGKILL;
        m->alive = false;
        return 0;
}

static void fake_set_data(struct ramet_process *process, void *data)
{
        ((struct fake_machine *)process)->data = data;
}

static void *fake_data(const struct ramet_process *process)
{
        return ((const struct fake_machine *)process)->data;
}

static void fake_release(struct ramet_process *process)
{
        ((struct fake_machine *)process)->alive = false;
}

static void fake_frozen_release(struct ramet_frozen *frozen)
{
        if (frozen)
                fake.frozen_out--;
}

static const struct backend fake_backend = {
        .spawner_create = fake_create,
        .spawner_destroy = fake_destroy,
        .spawner_fd = fake_fd,
        .spawner_next = fake_next,
        .start = fake_start,
        .clone = fake_clone,
        .fork = fake_fork,
        .pause = fake_nothing,
        .reset = fake_nothing,
        .resume = fake_nothing,
        .kill = fake_kill,
        .set_data = fake_set_data,
        .data = fake_data,
        .release = fake_release,
        .frozen_release = fake_frozen_release,
};

/* --- the tests --- */

static struct launcher_setup plan;
static char events_path[] = "/tmp/ramet-test-events-XXXXXX";
static json_t *lines; /* of the events file */

static int setup(void **state)
{
        memset(&fake, 0, sizeof fake);
        fake.root_ends = RAMET_EXIT_POWEROFF;
        plan = (struct launcher_setup){
                .backend = &fake_backend,
                .name = "web",
                .fork_at = {.trigger = FORK_AT_GUEST, .as_given = "guest"},
                .console = {.kind = CONSOLE_OFF},
                .events_path = events_path,
        };
        return 0;
}

static int teardown(void **state)
{
        json_decref(lines);
        lines = NULL;
        return 0;
}

static void read_events(void)
{
        char line[4096];
        FILE *f = fopen(events_path, "r");

        assert_non_null(f);
        lines = json_array();
        while (fgets(line, sizeof line, f)) {
                json_t *o = json_loads(line, 0, NULL);

                assert_non_null(o);
                json_array_append_new(lines, o);
        }
        fclose(f);
}

static int run(void)
{
        struct ramet_vm_options vm = {.size = sizeof vm, .vcpus = 1, .memory_bytes = 1 << 20};
        struct launcher *l;
        int status;

        assert_int_equal(launcher_create(&plan, &l, NULL), 0);
        status = launcher_run(l, &vm);
        launcher_destroy(l);
        read_events();
        assert_int_equal(fake.frozen_out, 0);
        return status;
}

static const char *text(const json_t *o, const char *key)
{
        const char *s = json_string_value(json_object_get(o, key));

        return s ? s : "";
}

/* The number of lines of kind @event about @name (NULL: anybody); *@last: the last of them. */
static unsigned count(const char *event, const char *name, json_t **last)
{
        unsigned n = 0;
        size_t i;
        json_t *o;

        json_array_foreach(lines, i, o)
        {
                if (strcmp(text(o, "event"), event) != 0 || (name && strcmp(text(o, "name"), name)))
                        continue;
                n++;
                if (last)
                        *last = o;
        }
        return n;
}

static void statuses_of_one_machine(void **state)
{
        static const struct {
                enum ramet_exit reason;
                int status, want;
        } ends[] = {
                {RAMET_EXIT_POWEROFF, 0, CLI_OK}, {RAMET_EXIT_REBOOT, 0, CLI_REBOOT},
                {RAMET_EXIT_DEBUG, 0x55, 0x55},   {RAMET_EXIT_DEBUG, 0x201, 1},
                {RAMET_EXIT_CRASH, 0, CLI_CRASH}, {RAMET_EXIT_HOST, 0, CLI_HOST},
                {RAMET_EXIT_INPUT, 0, CLI_INPUT}, {RAMET_EXIT_KILLED, 9, CLI_KILLED},
        };

        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
                setup(state);
                fake.root_ends = ends[i].reason;
                fake.root_status = ends[i].status;
                assert_int_equal(run(), ends[i].want);
                teardown(state);
        }
}

static void clones_have_names_and_numbers(void **state)
{
        json_t *root, *clone;

        plan.fork_count = fake.fork = 3;
        assert_int_equal(run(), CLI_OK);
        assert_int_equal(count("vm-start", "web", &root), 1);
        assert_int_equal(count("fork-point", "web", NULL), 1);
        assert_int_equal(count("freeze", "web", NULL), 1);
        assert_int_equal(count("clone-start", NULL, NULL), 3);
        assert_int_equal(count("clone-running", NULL, NULL), 3);
        assert_int_equal(count("exit", NULL, NULL), 4);
        assert_int_equal(count("clone-running", "web.3", &clone), 1);
        assert_string_equal(text(clone, "parent"), text(root, "vm"));
        assert_int_equal(json_integer_value(json_object_get(clone, "index")), 3);
        assert_int_equal(json_integer_value(json_object_get(clone, "first_exit_ns")), 400003);
        assert_true(json_is_null(json_object_get(root, "parent")));
        assert_int_equal(strlen(text(root, "vm")), 32);
}

static void every_line_has_the_common_fields(void **state)
{
        size_t i;
        json_t *o;

        plan.fork_count = fake.fork = 2;
        run();
        json_array_foreach(lines, i, o)
        {
                assert_true(json_is_string(json_object_get(o, "event")));
                assert_true(json_is_integer(json_object_get(o, "t_ns")));
                assert_true(json_is_string(json_object_get(o, "vm")));
                assert_true(json_is_string(json_object_get(o, "name")));
                assert_true(json_is_integer(json_object_get(o, "index")));
                assert_non_null(json_object_get(o, "parent"));
        }
}

static void only_a_few_are_loaded_at_once(void **state)
{
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);

        plan.fork_count = fake.fork = 100;
        assert_int_equal(run(), CLI_OK);
        assert_int_equal(count("clone-running", NULL, NULL), 100);
        assert_in_range(fake.loading_max, 1, cpus > 2 ? cpus : 2);
}

static void a_crash_of_a_clone_is_told(void **state)
{
        json_t *end;

        plan.fork_count = fake.fork = 3;
        fake.crashing_clone = 2;
        assert_int_equal(run(), CLI_CLONE);
        assert_int_equal(count("exit", "web.2", &end), 1);
        assert_string_equal(text(end, "reason"), "crash");
        assert_int_equal(json_integer_value(json_object_get(end, "status")), CLI_CRASH);
}

static void the_roots_status_comes_first(void **state)
{
        plan.fork_count = fake.fork = 3;
        fake.crashing_clone = 2;
        fake.root_ends = RAMET_EXIT_DEBUG;
        fake.root_status = 33;
        assert_int_equal(run(), 33);
}

static void a_stillborn_clone_harms_nobody(void **state)
{
        plan.fork_count = fake.fork = 20;
        fake.stillborn = 2;
        assert_int_equal(run(), CLI_CLONE);
        assert_int_equal(count("clone-running", NULL, NULL), 19);
        assert_int_equal(count("exit", NULL, NULL), 21);
}

static void a_clone_that_cannot_be_asked_for(void **state)
{
        plan.fork_count = fake.fork = 4;
        fake.refused = 3;
        assert_int_equal(run(), CLI_CLONE);
        assert_int_equal(count("clone-running", NULL, NULL), 2);
        assert_int_equal(count("error", "web.3", NULL), 1);
}

static void a_fork_that_fails(void **state)
{
        json_t *error;

        plan.fork_count = fake.fork = 4;
        fake.fork_fails = true;
        assert_int_equal(run(), CLI_CLONE);
        assert_int_equal(count("error", "web", &error), 1);
        assert_string_equal(text(error, "text"), "no memory");
}

static void a_fork_point_that_is_never_reached(void **state)
{
        plan.fork_count = 4;
        assert_int_equal(run(), CLI_CLONE);
        assert_int_equal(count("clone-start", NULL, NULL), 0);
}

static void time_out(void **state)
{
        json_t *end;

        fake.hangs = true;
        plan.timeout_ns = 20000000;
        assert_int_equal(run(), CLI_TIMEOUT);
        assert_int_equal(count("exit", "web", &end), 1);
        assert_string_equal(text(end, "reason"), "killed");
}

static void fork_after_a_time(void **state)
{
        fake.hangs = true;
        plan.fork_count = 2;
        plan.fork_at = (struct fork_at){
                .trigger = FORK_AT_AFTER, .after_ns = 10000000, .as_given = "after=0.01"};
        plan.timeout_ns = 200000000;
        assert_int_equal(run(), CLI_TIMEOUT);
        assert_int_equal(count("clone-running", NULL, NULL), 2);
}

/* The signal comes through the signalfd, since the launcher blocks it: it can be sent before. */
static void fork_by_signal(void **state)
{
        sigset_t usr1, old;

        sigemptyset(&usr1);
        sigaddset(&usr1, SIGUSR1);
        sigprocmask(SIG_BLOCK, &usr1, &old);
        kill(getpid(), SIGUSR1);
        fake.hangs = true;
        plan.fork_count = 2;
        plan.fork_at = (struct fork_at){.trigger = FORK_AT_SIGNAL, .as_given = "signal"};
        plan.timeout_ns = 200000000;
        assert_int_equal(run(), CLI_TIMEOUT);
        assert_int_equal(count("clone-running", NULL, NULL), 2);
        sigprocmask(SIG_SETMASK, &old, NULL);
}

static void a_signal_ends_the_run(void **state)
{
        sigset_t term, old;

        sigemptyset(&term);
        sigaddset(&term, SIGTERM);
        sigprocmask(SIG_BLOCK, &term, &old);
        kill(getpid(), SIGTERM);
        fake.hangs = true;
        assert_int_equal(run(), CLI_SIGNAL + SIGTERM);
        assert_int_equal(count("exit", "web", NULL), 1);
        sigprocmask(SIG_SETMASK, &old, NULL);
}

static void events_that_cannot_be_written(void **state)
{
        plan.events_path = "/nonexistent/events";
        assert_int_equal(run(), CLI_INPUT);
        assert_int_equal(fake.nmachines, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(statuses_of_one_machine),
                CASE(clones_have_names_and_numbers),
                CASE(every_line_has_the_common_fields),
                CASE(only_a_few_are_loaded_at_once),
                CASE(a_crash_of_a_clone_is_told),
                CASE(the_roots_status_comes_first),
                CASE(a_stillborn_clone_harms_nobody),
                CASE(a_clone_that_cannot_be_asked_for),
                CASE(a_fork_that_fails),
                CASE(a_fork_point_that_is_never_reached),
                CASE(time_out),
                CASE(fork_after_a_time),
                CASE(fork_by_signal),
                CASE(a_signal_ends_the_run),
                CASE(events_that_cannot_be_written),
        };
        int fd = mkstemp(events_path), failed;

        if (fd < 0)
                return 1;
        close(fd);
        failed = cmocka_run_group_tests_name("cli_launcher", tests, NULL, NULL);
        unlink(events_path);
        return failed;
}
