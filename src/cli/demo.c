/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramet demo: a machine forks while you watch, and the result is proved. The guest is built in: its
 * processors fill memory from a seed, ring for the fork, and then every machine hashes what it
 * sees, writes pages of its own while the others write theirs, and hashes again. The launcher knows
 * the seed, computes the same hashes, and compares.
 *
 * This is `ramet run` with other words around it: the launcher's hooks bring the console lines and
 * events here instead of to the terminal.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "cli/cli.h"
#include "base/clock.h"
#include "cli/demo_verdict.h"
#include "cli/host.h"
#include "cli/human.h"
#include "cli/launcher.h"
#include "cli/options.h"
#include "cli/outcome.h"
#include "cli/table.h"
#include "examples/guest/demo/embedded.h"

#define DOT_NS     100000000u
#define GUEST_MIB  8 /* the guest itself, below and around what it fills */
#define FAULTS_MAX 8 /* lines about machines that are wrong */

struct demo {
        const struct options *o;
        uint64_t seed;
        struct launcher *l;
        struct demo_report *reports; /* by number: the parent, then the clones */
        struct fork_job *fork;
        bool filling;  /* the guest is at it, and the line about that is not finished */
        bool mid_line; /* the cursor is in that line */
        bool progress; /* dots are worth something: a terminal */
        struct loop_watch *dot;
        uint64_t start_ns;
        unsigned running;
        bool complained; /* the guest said that it cannot work */
};

static void help(void)
{
        puts("usage: ramet demo [OPTION...]\n"
             "\n"
             "Fork a running virtual machine and prove that every clone has the parent's memory "
             "and that\n"
             "its writes stay its own. Needs no kernel: the guest is built in.\n");
        options_help(COMMAND_DEMO);
}

/* --- while it runs --- */

static void print_dot(void *data)
{
        struct demo *d = data;

        if (!d->mid_line)
                return;
        putchar('.');
        fflush(stdout);
        (void)loop_rearm_timer(d->dot, DOT_NS);
}

static void begin_filling(struct demo *d)
{
        d->start_ns = clock_now_ns();
        d->filling = d->mid_line = true;
        printf("run     %" PRIu64 " vCPU%s fill%s %" PRIu64 " MiB in user mode ", d->o->cpus,
               d->o->cpus > 1 ? "s" : "", d->o->cpus > 1 ? "" : "s", d->o->fill_mib);
        fflush(stdout);
        if (d->progress)
                (void)loop_add_timer(d->l->loop, DOT_NS, print_dot, d, &d->dot);
}

/* End the line that begin_filling() began. */
static void end_filling(struct demo *d, bool done)
{
        char time[HUMAN_MAX];

        if (!d->filling)
                return;
        if (!d->mid_line)
                printf("run     ");
        d->filling = d->mid_line = false;
        if (done)
                printf("... done in %s\n", human_time(time, clock_now_ns() - d->start_ns));
        else
                puts("... not done");
        fflush(stdout);
}

/* Somebody is about to write to standard error. */
static void before_message(void *data)
{
        struct demo *d = data;

        if (d->mid_line)
                putchar('\n');
        d->mid_line = false;
        fflush(stdout);
}

static void on_event(void *data, struct machine *m, const struct ramet_event *event)
{
        struct demo *d = data;
        char text[256], time[HUMAN_MAX];

        switch (event->type) {
        case RAMET_EVENT_STARTED:
                begin_filling(d);
                break;
        case RAMET_EVENT_FROZEN:
                end_filling(d, true);
                printf("fork    %s\n", report_freeze(event, text, sizeof text));
                fflush(stdout);
                break;
        case RAMET_EVENT_RUNNING:
                if (++d->running == d->o->fork && d->l->forks) {
                        printf("        %u clone%s running after %s, on the parent's memory\n",
                               d->running, d->running > 1 ? "s" : "",
                               human_time(time, d->l->forks->all_running_ns));
                        fflush(stdout);
                }
                break;
        case RAMET_EVENT_FORK_FAILED:
        case RAMET_EVENT_GONE:
                if (!m->parent)
                        end_filling(d, false);
                break;
        default:
                break;
        }
}

static void on_line(void *data, struct machine *m, const char *text, size_t len)
{
        static const char filled[] = "demo: filled", error[] = "demo: error: ";
        struct demo *d = data;
        struct demo_report report;

        message(MESSAGE_DEBUG, "[%s] %.*s", m->path, (int)len, text);
        if (len >= sizeof filled - 1 && !memcmp(text, filled, sizeof filled - 1)) {
                end_filling(d, true);
        } else if (len >= sizeof error - 1 && !memcmp(text, error, sizeof error - 1)) {
                message(MESSAGE_ERROR, "the guest: %.*s", (int)(len - sizeof error + 1),
                        text + sizeof error - 1);
                d->complained = true;
        } else if (m->index <= d->o->fork && demo_parse_report(text, len, &report)) {
                d->reports[m->index] = report;
        }
}

/* --- the verdict --- */

static void add_row(struct table *t, const struct machine *m, const struct demo_verdict *v)
{
        char cell[64];
        bool well = outcome_status(m) == CLI_OK && m->state == MACHINE_ENDED;

        table_cell(t, TABLE_PLAIN, "%s", m->path);
        table_cell(t, TABLE_PLAIN, "%d", (int)m->pid);
        table_cell(t, TABLE_PLAIN, "%s",
                   m->first_exit_ns ? human_time(cell, m->first_exit_ns) : "-");
        table_cell(t, TABLE_PLAIN, "%s", human_bytes(cell, m->shared_bytes));
        table_cell(t, TABLE_PLAIN, "%s", human_bytes(cell, m->private_bytes));
        if (m->parent)
                table_cell(t, v->sees_parent ? TABLE_GOOD : TABLE_BAD, "%s",
                           v->sees_parent ? "ok" : "NO");
        else
                table_cell(t, TABLE_PLAIN, "-");
        table_cell(t, v->own_writes ? TABLE_GOOD : TABLE_BAD, "%s", v->own_writes ? "ok" : "NO");
        table_cell(t, well ? TABLE_GOOD : TABLE_BAD, "%s", outcome_cell(m, cell, sizeof cell));
}

/* Say what is wrong about a machine, if anything is. True: nothing. */
static bool check_machine(const struct demo *d, const struct machine *m,
                          const struct demo_verdict *v, unsigned *faults)
{
        const struct demo_report *r = &d->reports[m->index];
        const char *what = NULL;

        if (!r->got)
                what = "ended without its report";
        else if (!v->numbered)
                what = "took itself for another clone";
        else if (!v->sees_parent)
                what = m->parent ? "did not see the parent's memory after the fork"
                                 : "did not find its own memory after the fork";
        else if (!v->own_writes)
                what = "did not find its own writes, and only those, at its end";
        if (what && ++*faults <= FAULTS_MAX)
                message(MESSAGE_ERROR, "%s %s", m->path, what);
        return !what;
}

/* The next machine of the demo's own after @i, NULL at the end. Others may be there: somebody may
 * have forked one over the control socket. */
static const struct machine *next_machine(const struct demo *d, size_t *i)
{
        const struct family *family = &d->l->family;

        while (*i < family->count) {
                const struct machine *m = family->machines[(*i)++];

                if (m->fork == (m->parent ? d->l->forks : NULL))
                        return m;
        }
        return NULL;
}

static void print_table(const struct demo *d, const struct demo_truth *truth)
{
        static const char *const head[] = {"clone",   "pid",         "first exit", "shared",
                                           "private", "sees parent", "own writes", "status"};
        const struct machine *m;
        struct table t;

        table_init(&t, sizeof head / sizeof head[0]);
        for (unsigned i = 0; i < sizeof head / sizeof head[0]; i++)
                table_cell(&t, TABLE_PLAIN, "%s", head[i]);
        for (size_t i = 0; m = next_machine(d, &i), m;) {
                struct demo_verdict v =
                        demo_judge(truth, &d->reports[m->index], m->index, (unsigned)d->o->fork);

                add_row(&t, m, &v);
        }
        putchar('\n');
        table_print(&t, stdout, table_colour(STDOUT_FILENO));
        putchar('\n');
        fflush(stdout);
        table_fini(&t);
}

/* Print the table and judge. Returns the exit status. */
static int conclude(struct demo *d)
{
        const struct machine *m;
        struct demo_truth truth;
        unsigned faults = 0, good = 0;

        demo_truth_init(&truth, d->seed, d->o->fill_mib);
        print_table(d, &truth);
        for (size_t i = 0; m = next_machine(d, &i), m;) {
                struct demo_verdict v =
                        demo_judge(&truth, &d->reports[m->index], m->index, (unsigned)d->o->fork);

                good += check_machine(d, m, &v, &faults) && m->parent;
        }
        if (faults || good != d->o->fork) {
                printf("FAILED: %u of %" PRIu64 " clones were as they must be\n", good, d->o->fork);
                return CLI_CRASH;
        }
        printf("sees parent: after the fork, all %" PRIu64 " MiB hash to what the parent wrote\n"
               "own writes:  at its end, its pages hold its own bytes, all others the parent's\n\n"
               "ok: %u clone%s, each saw the parent's %" PRIu64 " MiB, none saw another's writes\n",
               d->o->fill_mib, good, good > 1 ? "s" : "", d->o->fill_mib);
        return CLI_OK;
}

/* --- setting it up --- */

static int guest_fd(struct err *err)
{
        size_t len = (size_t)(ramet_demo_guest_end - ramet_demo_guest), done = 0;
        int fd = memfd_create("ramet-demo", MFD_CLOEXEC);

        while (fd >= 0 && done < len) {
                ssize_t n = write(fd, ramet_demo_guest + done, len - done);

                if (n <= 0) {
                        close(fd);
                        fd = -1;
                }
                done += (size_t)(n > 0 ? n : 0);
        }
        if (fd < 0)
                err_host(err, errno, "the built-in guest finds no memory: %s", strerror(errno));
        return fd;
}

static int check(struct options *o, struct err *err)
{
        char size[HUMAN_MAX];

        if (o->nrest)
                return err_input(err, "demo: unexpected argument '%s'; see 'ramet demo --help'",
                                 o->rest[0]);
        if ((o->fill_mib + GUEST_MIB) << 20 > o->memory)
                return err_input(err,
                                 "--fill %" PRIu64
                                 ": does not fit into %s of memory; give at least "
                                 "--memory %" PRIu64 "M",
                                 o->fill_mib, human_size(size, o->memory), o->fill_mib + GUEST_MIB);
        return 0;
}

static int run(struct demo *d, const struct launcher_setup *setup)
{
        const struct options *o = d->o;
        struct ramet_vm_options vm = {
                .size = sizeof vm,
                .kernel_name = "demo",
                .initramfs_fd = -1,
                .memory_bytes = o->memory,
                .vcpus = (unsigned)o->cpus,
                .console_in_fd = -1,
                .console_out_fd = -1,
                .seccomp = (enum ramet_seccomp)o->seccomp,
                .hugepages = (enum ramet_hugepages)o->hugepages,
                .cow = (enum ramet_cow)o->cow,
        };
        char cmdline[64], size[HUMAN_MAX];
        struct err err = {0};
        int status = CLI_HOST;

        if (host_check_kvm(&err) || launcher_create(setup, &d->l, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
                return CLI_HOST;
        }
        snprintf(cmdline, sizeof cmdline, "seed=%" PRIx64 " fill=%" PRIu64, d->seed, o->fill_mib);
        vm.cmdline = cmdline;
        message_set_before(before_message, d);
        vm.kernel_fd = guest_fd(&err);
        if (vm.kernel_fd >= 0) {
                printf("guest   built-in, %u vCPU%s, %s; seed %" PRIx64 "\n", vm.vcpus,
                       vm.vcpus > 1 ? "s" : "", human_size(size, vm.memory_bytes), d->seed);
                fflush(stdout);
                status = launcher_run(d->l, &vm);
                close(vm.kernel_fd);
        } else {
                message(MESSAGE_ERROR, "%s", err.text);
        }
        end_filling(d, false);
        message_set_before(NULL, NULL);
        if (status == CLI_OK || status == CLI_CLONE)
                status = d->complained ? CLI_CRASH : conclude(d) ?: status;
        loop_remove(d->dot);
        launcher_destroy(d->l);
        return status;
}

static int demo(const struct options *o)
{
        static const struct launcher_hooks hooks = {.line = on_line, .event = on_event};
        struct demo d = {.o = o, .seed = o->seed, .progress = isatty(STDOUT_FILENO)};
        struct launcher_setup setup = {
                .backend = &backend_library,
                .name = "demo",
                .name_is_free = true,
                .fork_count = (unsigned)o->fork,
                .pool = options_pool(o),
                .fork_at = {.trigger = FORK_AT_GUEST, .as_given = "guest"},
                .timeout_ns = o->timeout_ns,
                .events_path = o->events,
                .control = true,
                .hooks = &hooks,
                .hook_data = &d,
        };
        uint32_t random;
        int status;

        if (!options_given(o, "seed")) {
                if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
                        random = (uint32_t)clock_now_ns();
                d.seed = random;
        }
        d.reports = calloc(o->fork + 1, sizeof *d.reports);
        if (!d.reports) {
                message(MESSAGE_ERROR, "no memory for %" PRIu64 " clones", o->fork);
                return CLI_HOST;
        }
        status = run(&d, &setup);
        free(d.reports);
        return status;
}

int cmd_demo(int argc, char **argv)
{
        struct options o;
        struct err err = {0};
        int status = CLI_INPUT;

        if (options_read(&o, COMMAND_DEMO, argc, argv, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
        } else if (o.help) {
                help();
                status = CLI_OK;
        } else if (check(&o, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
        } else {
                message_set_level((enum message_level)o.log_level);
                status = demo(&o);
        }
        options_fini(&o);
        return status;
}
