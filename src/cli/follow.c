/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the launcher does about each event of a machine: keep its record, write the events file,
 * tell people about ends that are no plain power-off, and pass the rest to forks.c and control.c.
 *
 * A machine has ended when its process is gone (GONE). How it ended is what it said itself (EXIT),
 * and if it said nothing, what the kernel says about its process.
 */
#include <string.h>
#include <sys/wait.h>

#include "cli/cli.h"
#include "base/clock.h"
#include "cli/console.h"
#include "cli/control.h"
#include "cli/events.h"
#include "cli/launcher.h"
#include "cli/message.h"
#include "cli/outcome.h"

static void after_over(void *data)
{
        struct launcher *l = data;
        struct machine *root = l->family.machines[0];
        struct err err = {0};

        if (root->state != MACHINE_ENDED && forks_ask(l, root, l->setup->fork_count, NULL, &err))
                message(MESSAGE_ERROR, "%s", err.text);
}

static void started(struct launcher *l, struct machine *m)
{
        const struct launcher_setup *setup = l->setup;
        bool after = setup->fork_count && setup->fork_at.trigger == FORK_AT_AFTER;

        if (m->state == MACHINE_STARTING)
                m->state = MACHINE_RUNNING;
        if (after && !l->after &&
            loop_add_timer(l->loop, setup->fork_at.after_ns, after_over, l, &l->after))
                message(MESSAGE_ERROR, "no timer for --fork-at %s", setup->fork_at.as_given);
        if (l->fork_wanted) {
                l->fork_wanted = false;
                after_over(l);
        }
        if (setup->pool && l->be->prewarm(m->process, setup->pool))
                message(MESSAGE_WARN, "no empty machines can be had ready: %s",
                        ramet_last_error(l->ctx));
}

static void ready(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        m->spawn_ns = event->ready.spawn_ns ? event->ready.spawn_ns : 1;
        /* One that was made paused has told so before, or will never run of itself. */
        if (m->state == MACHINE_STARTING)
                m->state = m->parent->state == MACHINE_PAUSED ? MACHINE_PAUSED : MACHINE_RUNNING;
        forks_clone_ready(l, m);
        if (m->state == MACHINE_PAUSED)
                forks_clone_settled(l, m, true);
}

static void running(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        m->first_exit_ns = event->running.first_exit_ns;
        m->how = event->running.how;
        forks_clone_settled(l, m, true);
}

/* The end of a machine is known: put it on record, in the events, and on the terminal. */
static void record_end(struct launcher *l, struct machine *m, uint64_t t_ns, const char *text)
{
        char line[768];

        m->reported = true;
        if (m->parent && outcome_status(m) != CLI_OK)
                l->clone_failed = true;
        events_exit(l->events, m, t_ns, text);
        outcome_line(m, text, line, sizeof line);
        if (*line && (!l->ending || m->reason != RAMET_EXIT_KILLED))
                message(MESSAGE_ERROR, "%s", line);
}

static void ended(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        if (m->reported)
                return;
        m->reason = event->exit.reason;
        m->guest_status = event->exit.status;
        m->shared_bytes = event->exit.shared_bytes;
        m->private_bytes = event->exit.private_bytes;
        m->assists = event->exit.assists;
        record_end(l, m, event->t_ns, event->text);
}

static void gone(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        int status = event->gone.wait_status;

        if (!m->reported) {
                m->reason = RAMET_EXIT_KILLED;
                m->guest_status = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
                record_end(l, m, event->t_ns, "");
        }
        m->state = MACHINE_ENDED;
        l->family.alive--;
        l->be->release(m->process);
        m->process = NULL;
        forks_parent_gone(l, m);
        forks_clone_settled(l, m, false);
        console_close(m->console);
        m->console = NULL;
}

static void follow(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        switch (event->type) {
        case RAMET_EVENT_LAUNCHED:
                m->pid = event->launched.pid;
                break;
        case RAMET_EVENT_STARTED:
                started(l, m);
                break;
        case RAMET_EVENT_READY:
                ready(l, m, event);
                break;
        case RAMET_EVENT_RUNNING:
                running(l, m, event);
                break;
        case RAMET_EVENT_FORK_POINT:
        case RAMET_EVENT_FROZEN:
        case RAMET_EVENT_FORK_FAILED:
                forks_event(l, m, event);
                break;
        case RAMET_EVENT_PAUSED:
                m->state = MACHINE_PAUSED;
                break;
        case RAMET_EVENT_RESUMED:
                m->state = MACHINE_RUNNING;
                break;
        case RAMET_EVENT_RESET:
        case RAMET_EVENT_RESET_FAILED: /* whoever asked is told */
                break;
        case RAMET_EVENT_NOTE:
                message(MESSAGE_INFO, "'%s': %s", m->path, event->text);
                break;
        case RAMET_EVENT_EXIT:
                ended(l, m, event);
                break;
        case RAMET_EVENT_GONE:
                gone(l, m, event);
                break;
        }
}

/* The file has an event before the things that follow from it. An end is written by record_end().
 */
static void take(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        const struct launcher_hooks *hooks = l->setup->hooks;

        if (event->type == RAMET_EVENT_LAUNCHED)
                m->pid = event->launched.pid;
        events_machine(l->events, m, event);
        follow(l, m, event);
        control_machine_event(l->control, m, event);
        if (hooks && hooks->event)
                hooks->event(l->setup->hook_data, m, event);
}

void follow_events(struct launcher *l)
{
        struct ramet_event event;
        int ret;

        while (ret = l->be->spawner_next(l->spawner, &event), ret > 0) {
                struct machine *m = l->be->data(event.process);

                if (m)
                        take(l, m, &event);
        }
        if (ret < 0) {
                message(MESSAGE_ERROR, "the process that starts machines is gone: %s",
                        strerror(-ret));
                launcher_end(l, CLI_HOST);
                loop_stop(l->loop);
        }
        launcher_check_done(l);
}
