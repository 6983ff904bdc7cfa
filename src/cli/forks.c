/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forks, as the launcher sees them:
 *
 *      forks_ask() -> ASKED --FORK_POINT--> STOPPED --FROZEN--> SPAWNING --> DONE
 *      (a guest's or console's fork begins at STOPPED)   any of them ----> FAILED
 *
 * A template arrives with FROZEN as a handle to descriptors, and is let go as soon as the last
 * clone has been asked for. Only so many clones are loaded at once: on a host with few processors
 * more would make each of them later, and none earlier.
 *
 * A clone that cannot be made is reported and counted; its siblings and its parent go on.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/console.h"
#include "cli/control.h"
#include "cli/disks.h"
#include "cli/events.h"
#include "cli/human.h"
#include "cli/launcher.h"
#include "cli/message.h"

static struct fork_job *add_job(struct launcher *l, struct machine *m, enum ramet_fork_cause cause,
                                unsigned count)
{
        struct fork_job **end = &l->forks, *job = calloc(1, sizeof *job);

        if (!job)
                return NULL;
        job->parent = m;
        job->cause = cause;
        job->count = count;
        while (*end)
                end = &(*end)->next;
        *end = job;
        return job;
}

static struct fork_job *find_job(struct launcher *l, const struct machine *m, int state)
{
        struct fork_job *job = l->forks;

        while (job && (job->parent != m || (int)job->state != state))
                job = job->next;
        return job;
}

static void let_go(struct launcher *l, struct fork_job *job)
{
        l->be->frozen_release(job->frozen);
        job->frozen = NULL;
}

static void finish(struct launcher *l, struct fork_job *job, bool done, const char *text)
{
        job->state = done ? FORK_DONE : FORK_FAILED;
        let_go(l, job);
        if (job->parent->forking == job)
                job->parent->forking = NULL;
        if (job->request)
                control_fork_over(l->control, job->request, job, text);
        job->request = NULL;
}

/* The clones that were asked for decide when a fork is over. */
static void check_over(struct launcher *l, struct fork_job *job)
{
        char time[HUMAN_MAX];

        if (job->state != FORK_SPAWNING || job->made < job->count || job->waited)
                return;
        message(MESSAGE_INFO, "'%s': %u clones running after %s", job->parent->path,
                job->count - job->failed, human_time(time, job->all_running_ns));
        finish(l, job, true, "");
}

int forks_ask(struct launcher *l, struct machine *m, unsigned count,
              struct control_request *request, struct err *err)
{
        struct fork_job *job;
        int ret;

        if (m->forking)
                return err_host(err, EBUSY, "'%s' is being forked already", m->path);
        if (!m->process || m->state == MACHINE_STARTING || m->state == MACHINE_ENDED)
                return err_host(err, EAGAIN, "'%s' is %s and cannot be forked", m->path,
                                machine_state_name(m));
        job = add_job(l, m, RAMET_FORK_REQUEST, count);
        if (!job)
                return err_host(err, ENOMEM, "no memory for a fork of '%s'", m->path);
        ret = l->be->fork(m->process, count);
        if (ret) {
                job->state = FORK_FAILED;
                return err_host(err, -ret, "'%s' cannot be asked to fork: %s", m->path,
                                launcher_why(l, ret));
        }
        m->forking = job;
        job->request = request;
        return 0;
}

/* Ask for the next clone. 0 or -errno with @err set. */
static int make_clone(struct launcher *l, struct fork_job *job, struct err *err)
{
        struct ramet_clone_options options = {
                .size = sizeof options,
                .index = job->made + 1,
                .count = job->count,
                .paused = job->parent->state == MACHINE_PAUSED,
        };
        struct machine *m;
        int ret;

        ret = family_add(&l->family, job->parent, NULL, options.index, &m, err);
        if (ret)
                return ret;
        options.name = m->path;
        ret = console_open(l->hub, m->path, m, &options.console_in_fd, &options.console_out_fd,
                           &m->console, err);
        if (!ret) {
                ret = l->be->clone(l->spawner, job->frozen, &options, &m->process);
                if (ret)
                        err_host(err, -ret, "%s", launcher_why(l, ret));
        }
        if (options.console_in_fd >= 0)
                close(options.console_in_fd);
        if (options.console_out_fd >= 0)
                close(options.console_out_fd);
        if (ret) {
                m->state = MACHINE_ENDED;
                m->reason = RAMET_EXIT_HOST;
                l->family.alive--;
                console_close(m->console);
                m->console = NULL;
                events_error(l->events, m, clock_now_ns(), err->text);
                return ret;
        }
        l->be->set_data(m->process, m);
        m->made_by = job;
        m->fork = job;
        return 0;
}

static void make_clones(struct launcher *l, struct fork_job *job)
{
        struct err err = {0};

        while (!l->ending && job->made < job->count && job->loading < l->window) {
                if (make_clone(l, job, &err)) {
                        message(MESSAGE_ERROR, "'%s': only %u of %u clones were made: %s",
                                job->parent->path, job->made, job->count, err.text);
                        l->clone_failed = true;
                        job->failed += job->count - job->made;
                        job->made = job->count;
                        break;
                }
                job->made++;
                job->loading++;
                job->waited++;
        }
        if (job->made == job->count)
                let_go(l, job);
        check_over(l, job);
}

static void at_fork_point(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        struct fork_job *job = NULL;

        if (event->fork_point.cause == RAMET_FORK_REQUEST)
                job = find_job(l, m, FORK_ASKED);
        if (!job)
                job = add_job(l, m, event->fork_point.cause, event->fork_point.count);
        if (!job)
                return; /* FROZEN will say so */
        job->state = FORK_STOPPED;
        if (!m->forking)
                m->forking = job;
}

/* The first fork of the first machine: its images are what they are from now on. */
static void tell_disks(struct launcher *l, const struct machine *m)
{
        const struct ramet_vm_options *o = m->options;
        char name[4];

        for (unsigned i = 0; i < o->ndisks; i++) {
                const char *path = l->be->overlay(m->process, i);

                if (!o->disks[i].readonly)
                        message(MESSAGE_INFO, "'%s': what is written to %s (%s) goes to %s now",
                                m->path, disk_name(i, name), o->disks[i].path,
                                path ? path : "an overlay in memory");
        }
}

static void frozen(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        struct fork_job *job = find_job(l, m, FORK_STOPPED);
        char text[256];

        if (!m->parent)
                l->fork_reached = true;
        if (!job || l->ending) {
                l->be->frozen_release(event->frozen.frozen);
                if (job)
                        finish(l, job, false, "the run is ending");
                return;
        }
        job->state = FORK_SPAWNING;
        job->frozen = event->frozen.frozen;
        job->count = event->frozen.count;
        job->figures = *event;
        message(MESSAGE_INFO, "'%s': %s", m->path, report_freeze(event, text, sizeof text));
        if (!m->parent && event->frozen.generation == 1)
                tell_disks(l, m);
        console_hub_prefix(l->hub);
        make_clones(l, job);
}

static void fork_failed(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        struct fork_job *job = find_job(l, m, FORK_STOPPED);

        if (!job)
                job = find_job(l, m, FORK_ASKED);
        if (!m->parent)
                l->fork_reached = true; /* and missed: one line about it is enough */
        message(MESSAGE_ERROR, "'%s' could not be forked: %s", m->path, event->text);
        events_error(l->events, m, event->t_ns, event->text);
        if (!job || !job->request)
                l->clone_failed = true; /* who asked over the socket is told there */
        if (job)
                finish(l, job, false, event->text);
}

void forks_event(struct launcher *l, struct machine *m, const struct ramet_event *event)
{
        if (event->type == RAMET_EVENT_FORK_POINT)
                at_fork_point(l, m, event);
        else if (event->type == RAMET_EVENT_FROZEN)
                frozen(l, m, event);
        else
                fork_failed(l, m, event);
}

void forks_clone_ready(struct launcher *l, struct machine *clone)
{
        struct fork_job *job = clone->made_by;

        if (!job)
                return;
        job->loading--;
        make_clones(l, job);
}

void forks_clone_settled(struct launcher *l, struct machine *clone, bool runs)
{
        struct fork_job *job = clone->made_by;

        if (!job)
                return;
        clone->made_by = NULL;
        job->waited--;
        job->failed += !runs;
        if (clone->first_exit_ns > job->all_running_ns)
                job->all_running_ns = clone->first_exit_ns;
        if (clone->state == MACHINE_ENDED && !clone->spawn_ns) {
                job->loading--; /* it never became ready */
                make_clones(l, job);
                return;
        }
        check_over(l, job);
}

void forks_parent_gone(struct launcher *l, struct machine *parent)
{
        for (struct fork_job *job = l->forks; job; job = job->next)
                if (job->parent == parent && job->state < FORK_SPAWNING)
                        finish(l, job, false, "the machine ended before it was frozen");
}

void forks_fini(struct launcher *l)
{
        while (l->forks) {
                struct fork_job *job = l->forks;

                l->forks = job->next;
                let_go(l, job);
                free(job);
        }
}
