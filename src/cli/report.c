/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said at the end of a run: the table of clones, the line about a time-out, and the exit
 * status. The first machine's status is the run's; a clone's only counts when that is 0, since the
 * first machine is what the user asked for.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/human.h"
#include "cli/launcher.h"
#include "cli/message.h"
#include "cli/outcome.h"
#include "cli/table.h"

#define ROWS_MAX  32 /* of machines that ended well: nobody reads a thousand lines */
#define NAMES_MAX 4

static bool fork_missed(const struct launcher *l)
{
        return l->setup->fork_count && !l->fork_reached;
}

int report_status(const struct launcher *l)
{
        const struct machine *root = l->family.count ? l->family.machines[0] : NULL;
        int status;

        if (l->status >= 0)
                return l->status;
        if (!root)
                return CLI_HOST;
        status = outcome_status(root);
        if (fork_missed(l) &&
            (root->reason == RAMET_EXIT_POWEROFF || root->reason == RAMET_EXIT_DEBUG ||
             root->reason == RAMET_EXIT_REBOOT))
                message(MESSAGE_ERROR,
                        "'%s' ended before it reached its fork point (--fork-at %s): no clones "
                        "were "
                        "made",
                        root->path, l->setup->fork_at.as_given);
        if (status == CLI_OK && (l->clone_failed || fork_missed(l)))
                status = CLI_CLONE;
        return status;
}

void report_timeout(const struct launcher *l)
{
        char time[64], names[512] = "";
        size_t n = 0, shown = 0;

        snprintf(time, sizeof time, "%g s", (double)l->setup->timeout_ns / 1e9);
        if (fork_missed(l)) {
                message(MESSAGE_ERROR,
                        "timed out after %s: '%s' never reached its fork point (--fork-at %s)",
                        time, l->family.machines[0]->path, l->setup->fork_at.as_given);
                return;
        }
        for (size_t i = 0; i < l->family.count && shown < NAMES_MAX && n < sizeof names; i++) {
                const struct machine *m = l->family.machines[i];

                if (m->state != MACHINE_ENDED)
                        n += (size_t)snprintf(names + n, sizeof names - n, "%s'%s'",
                                              shown++ ? ", " : "", m->path);
        }
        if (l->family.alive > shown)
                message(MESSAGE_ERROR, "timed out after %s: %s and %zu more had not ended", time,
                        names, l->family.alive - shown);
        else
                message(MESSAGE_ERROR, "timed out after %s: %s had not ended", time, names);
}

static bool ended_well(const struct machine *m)
{
        return m->state == MACHINE_ENDED && outcome_status(m) == CLI_OK;
}

static void add_row(struct table *t, const struct machine *m)
{
        char cell[64];

        table_cell(t, TABLE_PLAIN, "%s", m->path);
        if (m->pid)
                table_cell(t, TABLE_PLAIN, "%d", (int)m->pid);
        else
                table_cell(t, TABLE_PLAIN, "-");
        table_cell(t, TABLE_PLAIN, "%s", m->spawn_ns ? human_time(cell, m->spawn_ns) : "-");
        table_cell(t, TABLE_PLAIN, "%s",
                   m->first_exit_ns ? human_time(cell, m->first_exit_ns) : "-");
        if (m->shared_bytes || m->private_bytes) {
                table_cell(t, TABLE_PLAIN, "%s", human_bytes(cell, m->shared_bytes));
                table_cell(t, TABLE_PLAIN, "%s", human_bytes(cell, m->private_bytes));
        } else {
                table_cell(t, TABLE_PLAIN, "-");
                table_cell(t, TABLE_PLAIN, "-");
        }
        table_cell(t,
                   ended_well(m)   ? TABLE_GOOD
                   : m->kill_asked ? TABLE_PLAIN
                                   : TABLE_BAD,
                   "%s", outcome_cell(m, cell, sizeof cell));
}

const char *report_freeze(const struct ramet_event *event, char *buf, size_t size)
{
        char stop[HUMAN_MAX], freeze[HUMAN_MAX], memory[HUMAN_MAX], copied[HUMAN_MAX] = "nothing";

        if (event->frozen.copied_bytes)
                human_bytes(copied, event->frozen.copied_bytes);
        snprintf(buf, size,
                 "%u vCPU%s stopped in %s, %s frozen in %s, %s copied (generation %" PRIu64 ")",
                 event->frozen.vcpus, event->frozen.vcpus == 1 ? "" : "s",
                 human_time(stop, event->frozen.stop_ns),
                 human_size(memory, event->frozen.memory_bytes),
                 human_time(freeze, event->frozen.freeze_ns), copied, event->frozen.generation);
        return buf;
}

static void print_forks(const struct launcher *l, FILE *out)
{
        char text[256], time[HUMAN_MAX];
        unsigned shown = 0;

        for (const struct fork_job *job = l->forks; job && shown < ROWS_MAX; job = job->next) {
                unsigned n = job->count - job->failed;

                if (!job->figures.frozen.memory_bytes)
                        continue;
                shown++;
                fprintf(out, "fork    %s: %s\n", job->parent->path,
                        report_freeze(&job->figures, text, sizeof text));
                fprintf(out, "        %u clone%s running after %s\n", n, n == 1 ? "" : "s",
                        human_time(time, job->all_running_ns));
        }
}

void report_print(const struct launcher *l, FILE *out, bool colour)
{
        static const char *const head[] = {"clone",  "pid",     "spawn", "first exit",
                                           "shared", "private", "status"};
        struct table t;
        size_t shown = 0, hidden = 0;

        table_init(&t, sizeof head / sizeof head[0]);
        for (size_t i = 0; i < sizeof head / sizeof head[0]; i++)
                table_cell(&t, TABLE_PLAIN, "%s", head[i]);
        for (size_t i = 0; i < l->family.count; i++) {
                const struct machine *m = l->family.machines[i];

                if (shown >= ROWS_MAX && ended_well(m)) {
                        hidden++;
                        continue;
                }
                add_row(&t, m);
                shown++;
        }
        print_forks(l, out);
        fputc('\n', out);
        table_print(&t, out, colour);
        if (hidden)
                fprintf(out, "and %zu more, which ended with status 0\n", hidden);
        table_fini(&t);
        fflush(out);
}
