/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine may say, and when. Its process may be in the hands of its guest by now, so each
 * message must be one that is due: a beginning once, an answer for each question, one fork point
 * for each fork that somebody asked for, with the number of clones that was asked for, a bounded
 * number of notes, one end. That also bounds how many events a machine can make, and how many
 * processes it can have the caller start.
 *
 *      beginning (STARTED or READY) --> RUNNING? --> { FORK_POINT --> FROZEN or FORK_FAILED } -->
 * EXIT { FORK_FAILED, PAUSED, RESUMED, NOTE }
 *
 * Times are the machine's word; they are cut to those that are possible. Texts may end up on a
 * terminal: what is no printable character is replaced.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc/launcher.h"

_Static_assert(sizeof((struct ramet_event){0}.text) == MESSAGE_TEXT_MAX, "texts fit");

static void take_text(struct ramet_event *e, const struct message_event *m)
{
        unsigned char before = 0;

        for (size_t i = 0; m->text[i]; i++) {
                unsigned char c = (unsigned char)m->text[i];
                bool control = c < ' ' || c == 0x7f || (before == 0xc2 && c < 0xa0);

                e->text[i] = control ? '?' : (char)c;
                before = c;
        }
        e->text_is_input = m->text_is_input;
}

void ramet_frozen_release(struct ramet_frozen *f)
{
        if (!f || --f->refs)
                return;
        for (unsigned i = 0; i < f->nfds; i++)
                close(f->fds[i]);
        disks_unref(f->disks);
        free(f);
}

static struct ramet_frozen *frozen_new(struct ramet_process *p, const struct message_event *m,
                                       struct message_fds *fds)
{
        struct ramet_frozen *f = malloc(sizeof *f + fds->n * sizeof *f->fds);

        if (!f)
                return NULL;
        *f = (struct ramet_frozen){
                .refs = 1,
                .shape = p->shape,
                .seccomp = p->seccomp,
                .hugepages = p->hugepages,
                .disks = disks_ref(p->disks),
                .generation = m->frozen.generation,
                .pause_ns = m->frozen.pause_ns,
                .copied_bytes = m->frozen.copied_bytes,
                .nfiles = m->frozen.nfiles,
                .nfds = fds->n,
        };
        f->fork_point_ns = m->frozen.fork_point_ns;
        memcpy(f->fds, fds->fd, fds->n * sizeof *f->fds);
        fds->n = 0;
        return f;
}

/* The fork for which @cause stands is over: so is the wait for its overlay files. */
static void settle_overlays(struct ramet_process *p, enum ramet_fork_cause cause)
{
        unsigned *number;

        if (!p->overlays)
                return;
        number = cause == RAMET_FORK_REQUEST ? &p->overlays->requested : &p->overlays->armed;
        overlays_settle(p->overlays, *number);
        *number = 0;
}

/* @m: where the text is; NULL: it is @text. */
static const char *fork_failed(struct ramet_process *p, uint64_t t_ns,
                               const struct message_event *m, const char *text)
{
        struct ramet_event *e;

        if (!p->forking && !p->requested)
                return "a fork failed that nobody wanted";
        settle_overlays(p, p->forking ? p->cause : RAMET_FORK_REQUEST);
        if (p->forking)
                p->forking = 0;
        else
                p->requested = 0;
        e = spawner_queue(p, RAMET_EVENT_FORK_FAILED, t_ns);
        if (e && m)
                take_text(e, m);
        else if (e)
                snprintf(e->text, sizeof e->text, "%s", text);
        return NULL;
}

const char *events_lost_fds(struct ramet_process *p)
{
        return fork_failed(p, clock_now_ns(), NULL,
                           "the template cannot be received: too many open files");
}

static const char *fork_point(struct ramet_process *p, const struct message_event *m, uint64_t t_ns)
{
        unsigned *wanted = m->fork_point.cause == RAMET_FORK_REQUEST ? &p->requested : &p->armed;
        struct ramet_event *e;

        if (!p->started || p->forking || !*wanted || m->fork_point.count != *wanted)
                return "a fork point that nobody wanted";
        p->forking = *wanted;
        p->cause = m->fork_point.cause;
        *wanted = 0;
        e = spawner_queue(p, RAMET_EVENT_FORK_POINT, t_ns);
        if (e) {
                e->fork_point.cause = m->fork_point.cause;
                e->fork_point.count = p->forking;
        }
        return NULL;
}

static const char *frozen(struct ramet_process *p, const struct message_event *m, uint64_t t_ns,
                          struct message_fds *fds)
{
        struct ramet_frozen *f;
        struct ramet_event *e;

        if (!p->forking || m->frozen.count != p->forking)
                return "a template that nobody wanted";
        settle_overlays(p, p->cause);
        f = frozen_new(p, m, fds);
        if (!f)
                return fork_failed(p, t_ns, NULL, "no memory for a template");
        if (f->fork_point_ns > t_ns)
                f->fork_point_ns = t_ns;
        e = spawner_queue(p, RAMET_EVENT_FROZEN, t_ns);
        if (!e) {
                ramet_frozen_release(f);
                return NULL;
        }
        e->frozen.frozen = f;
        e->frozen.count = p->forking;
        e->frozen.stop_ns = m->frozen.stop_ns;
        e->frozen.pause_ns = m->frozen.pause_ns;
        e->frozen.freeze_ns = m->frozen.freeze_ns;
        e->frozen.publish_ns = m->frozen.publish_ns;
        e->frozen.memory_bytes = p->shape.memory_bytes;
        e->frozen.copied_bytes = m->frozen.copied_bytes;
        e->frozen.generation = m->frozen.generation;
        e->frozen.vcpus = p->shape.vcpus;
        p->forking = 0;
        return NULL;
}

static const char *ready(struct ramet_process *p, uint64_t t_ns)
{
        struct ramet_event *e;

        if (!p->clone || p->started)
                return "ready, out of turn";
        p->started = true;
        overlays_started(p->overlays);
        e = spawner_queue(p, RAMET_EVENT_READY, t_ns);
        if (e)
                e->ready.spawn_ns = t_ns - p->requested_ns;
        return NULL;
}

static const char *running(struct ramet_process *p, const struct message_event *m, uint64_t t_ns)
{
        static const char *const how[] = {
                [MESSAGE_HOW_DOORBELL] = "doorbell",
                [MESSAGE_HOW_EXIT] = "exit",
                [MESSAGE_HOW_KICK] = "kick",
        };
        struct ramet_event *e;

        if (!p->clone || !p->started || p->running)
                return "running, out of turn";
        p->running = true;
        e = spawner_queue(p, RAMET_EVENT_RUNNING, t_ns);
        if (e) {
                e->running.first_exit_ns = t_ns - p->fork_point_ns;
                e->running.how = how[m->running.how];
        }
        return NULL;
}

static const char *ended(struct ramet_process *p, const struct message_event *m, uint64_t t_ns)
{
        struct ramet_event *e = spawner_queue(p, RAMET_EVENT_EXIT, t_ns);

        p->exited = true;
        if (!e)
                return NULL;
        e->exit.reason = m->exit.reason;
        e->exit.status = m->exit.status;
        e->exit.shared_bytes = m->exit.shared_bytes;
        e->exit.private_bytes = m->exit.private_bytes;
        e->exit.assists = m->exit.assists;
        take_text(e, m);
        return NULL;
}

/* A plain event, if one is due; takes it off the account. */
static const char *plain(struct ramet_process *p, enum ramet_event_type type, uint64_t t_ns,
                         unsigned *due, const struct message_event *m)
{
        struct ramet_event *e;

        if (!*due)
                return "an answer without a question";
        --*due;
        e = spawner_queue(p, type, t_ns);
        if (e)
                take_text(e, m);
        return NULL;
}

static const char *was_reset(struct ramet_process *p, const struct message_event *m, uint64_t t_ns)
{
        struct ramet_event *e;

        if (!p->resets)
                return "a reset that nobody wanted";
        p->resets--;
        e = spawner_queue(p, RAMET_EVENT_RESET, t_ns);
        if (e)
                e->reset.reset_ns = m->reset.reset_ns;
        return NULL;
}

static const char *warm(struct ramet_process *p)
{
        if (!p->was_shell || p->warm || p->started)
                return "warm, out of turn";
        p->warm = true;
        return NULL;
}

/* A shell says that it is ready, or that it could not be made; clones are then made without. */
static const char *shell_says(struct ramet_process *p, const struct message_event *m)
{
        if (m->head.type == MESSAGE_WARM)
                return warm(p);
        if (m->head.type != MESSAGE_EXIT)
                return "a shell that speaks out of turn";
        p->exited = true;
        return NULL;
}

static const char *take(struct ramet_process *p, const struct message_event *m, uint64_t t_ns,
                        struct message_fds *fds)
{
        unsigned starts = !p->clone && !p->started;
        unsigned notes = NOTES_MAX - p->notes;

        if (p->exited)
                return "words after its end";
        if (p->shell)
                return shell_says(p, m);
        switch (m->head.type) {
        case MESSAGE_STARTED:
                p->started = true;
                return plain(p, RAMET_EVENT_STARTED, t_ns, &starts, m);
        case MESSAGE_READY:
                return ready(p, t_ns);
        case MESSAGE_RUNNING:
                return running(p, m, t_ns);
        case MESSAGE_FORK_POINT:
                return fork_point(p, m, t_ns);
        case MESSAGE_FROZEN:
                return frozen(p, m, t_ns, fds);
        case MESSAGE_FORK_FAILED:
                return fork_failed(p, t_ns, m, NULL);
        case MESSAGE_PAUSED:
                return plain(p, RAMET_EVENT_PAUSED, t_ns, &p->pauses, m);
        case MESSAGE_RESUMED:
                return plain(p, RAMET_EVENT_RESUMED, t_ns, &p->resumes, m);
        case MESSAGE_RESET_DONE:
                return was_reset(p, m, t_ns);
        case MESSAGE_RESET_FAILED:
                return plain(p, RAMET_EVENT_RESET_FAILED, t_ns, &p->resets, m);
        case MESSAGE_NOTE:
                p->notes++;
                return plain(p, RAMET_EVENT_NOTE, t_ns, &notes, m);
        case MESSAGE_EXIT:
                return ended(p, m, t_ns);
        case MESSAGE_WARM:
                return warm(p);
        }
        return "an unknown message";
}

const char *events_take(struct ramet_process *p, const struct message_event *m,
                        struct message_fds *fds)
{
        uint64_t now = clock_now_ns(), t_ns = m->t_ns;
        const char *why;

        if (t_ns > now)
                t_ns = now;
        if (t_ns < p->requested_ns)
                t_ns = p->requested_ns;
        why = take(p, m, t_ns, fds);
        message_close_fds(fds);
        return why;
}

static void __attribute__((format(printf, 4, 5)))
exit_event(struct ramet_process *p, enum ramet_exit reason, int status, const char *fmt, ...)
{
        struct ramet_event *e = spawner_queue(p, RAMET_EVENT_EXIT, clock_now_ns());
        va_list ap;

        if (!e)
                return;
        e->exit.reason = reason;
        e->exit.status = status;
        va_start(ap, fmt);
        vsnprintf(e->text, sizeof e->text, fmt, ap);
        va_end(ap);
}

static void gone_event(struct ramet_process *p, int wait_status)
{
        struct ramet_event *e = spawner_queue(p, RAMET_EVENT_GONE, clock_now_ns());

        if (!e)
                return;
        e->gone.wait_status = wait_status;
        e->gone.had_exit = p->exited;
}

void events_never(struct ramet_process *p, const char *text)
{
        exit_event(p, RAMET_EXIT_HOST, 0, "%s", text);
        gone_event(p, 0);
}

/* The launcher's account of a process that ended without one of its own. */
static void silent_end(struct ramet_process *p, int wait_status)
{
        int sig = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;

        if (p->broken)
                exit_event(p, RAMET_EXIT_KILLED, SIGKILL,
                           "its process misbehaved and was killed: %s", p->broken);
        else if (sig == SIGSYS)
                exit_event(
                        p, RAMET_EXIT_KILLED, sig,
                        "a system call outside its allow-list; run with seccomp log to see which");
        else if (sig)
                exit_event(p, RAMET_EXIT_KILLED, sig, "its process was ended by signal %d (%s)",
                           sig, sigdescr_np(sig) ?: "unknown");
        else
                exit_event(p, RAMET_EXIT_KILLED, 0, "its process ended without a word, status %d",
                           WEXITSTATUS(wait_status));
}

void events_gone(struct ramet_process *p, int wait_status)
{
        if (!p->exited)
                silent_end(p, wait_status);
        gone_event(p, wait_status);
}
