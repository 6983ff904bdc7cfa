/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One machine's process, as its launcher sees it.
 *
 *      WAITING --> SENT --> LAUNCHED --> GONE
 *         |          `-- REFUSED ----------^
 *         `-- could not be sent -----------^
 *
 * To start one is two messages: what it is to be, into a fresh channel, and the channel's other end
 * to the spawner. Both are sent or neither, so a socket that is full just leaves the process in the
 * line. One that waits holds duplicates of its descriptors, and a reference to its template. What
 * is sent is start.c's; here is how, and all of a process's life afterwards.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proc/launcher.h"

#define DRAIN_MAX 1024 /* more messages than fit into a socket */

static int fail(struct ramet_process *p, int ret, const char *what)
{
        struct err err;

        err_host(&err, -ret, "%s: %s", what, strerror(-ret));
        return ctx_fail(p->spawner->ctx, ret, &err);
}

/* --- the line --- */

/* Whether to try a failed start again later. There must be something that brings us back: room in
 * the socket, or another machine that takes its descriptors out of the sockets. */
static bool later(struct ramet_spawner *s, int ret)
{
        if (ret == -EAGAIN)
                spawner_want_pollout(s, true);
        return ret == -EAGAIN || (ret == -ETOOMANYREFS && s->starting > 0);
}

static int send_start(struct ramet_process *p, const struct start *start)
{
        struct message_spawn m = {.head.type = MESSAGE_SPAWN, .id = p->id};
        struct ramet_spawner *s = p->spawner;
        int fds[MESSAGE_FDS_MAX + START_FDS], pair[2], ret;
        unsigned n = 0;

        for (unsigned i = 0; start->frozen && i < start->frozen->nfds; i++)
                fds[n++] = start->frozen->fds[i];
        for (unsigned i = 0; i < start->nfds; i++)
                fds[n++] = start->fds[i];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
                return -errno;
        ret = message_send(pair[0], start->msg, start->length, fds, n, MSG_DONTWAIT);
        if (!ret)
                ret = message_send(s->sock, &m, sizeof m, &pair[1], 1, MSG_DONTWAIT);
        close(pair[1]);
        if (ret) {
                close(pair[0]);
                return ret;
        }
        p->channel = pair[0];
        p->state = PROCESS_SENT;
        p->starting = true;
        s->starting++;
        return 0;
}

static void start_fini(struct start *start)
{
        while (start->nfds)
                close(start->fds[--start->nfds]);
        ramet_frozen_release(start->frozen);
        free(start->msg);
        *start = (struct start){0};
}

/* Keep everything that the request needs: the caller's descriptors are its own again on return. */
static int wait_in_line(struct ramet_process *p, const struct start *start)
{
        struct ramet_spawner *s = p->spawner;
        struct start *w = &p->start;

        w->msg = malloc(start->length);
        if (!w->msg)
                return -ENOMEM;
        memcpy(w->msg, start->msg, start->length);
        w->length = start->length;
        while (w->nfds < start->nfds) {
                int fd = fcntl(start->fds[w->nfds], F_DUPFD_CLOEXEC, 0);

                if (fd < 0) {
                        int ret = -errno;

                        start_fini(w);
                        return ret;
                }
                w->fds[w->nfds++] = fd;
        }
        w->frozen = start->frozen;
        if (w->frozen)
                w->frozen->refs++;
        *s->waiting_tail = p;
        s->waiting_tail = &p->waiting_next;
        return 0;
}

static void leave_line(struct ramet_process *p)
{
        struct ramet_spawner *s = p->spawner;
        struct ramet_process **at = &s->waiting;

        while (*at != p)
                at = &(*at)->waiting_next;
        *at = p->waiting_next;
        if (!*at)
                s->waiting_tail = at;
        start_fini(&p->start);
}

static int fail_start(struct ramet_process *p, int ret)
{
        const bool lost = ret == -EPIPE || ret == -ECONNRESET;

        return fail(p, ret, lost ? "the spawner is lost" : "cannot start a machine's process");
}

int process_submit(struct ramet_process *p, const struct start *start)
{
        struct ramet_spawner *s = p->spawner;
        int ret = -EAGAIN;

        if (!s->waiting && s->starting < STARTING_MAX) {
                ret = send_start(p, start);
                if (!ret)
                        return 0;
                if (!later(s, ret))
                        goto failed;
        }
        ret = wait_in_line(p, start);
        if (!ret)
                return 0;
failed:
        fail_start(p, ret);
        process_free(p);
        return ret;
}

static void send_kill(struct ramet_process *p)
{
        struct message_spawn m = {.head.type = MESSAGE_KILL, .id = p->id};
        struct ramet_spawner *s = p->spawner;

        p->kill_late = message_send(s->sock, &m, sizeof m, NULL, 0, MSG_DONTWAIT) == -EAGAIN;
        if (p->kill_late) {
                s->late_kills = true;
                spawner_want_pollout(s, true);
        }
}

void process_flush(struct ramet_spawner *s)
{
        if (s->late_kills) {
                s->late_kills = false;
                for (unsigned i = 0; i < BUCKETS; i++)
                        for (struct ramet_process *p = s->buckets[i]; p; p = p->hash_next)
                                if (p->kill_late)
                                        send_kill(p);
        }
        while (s->waiting && s->starting < STARTING_MAX && !s->wants_pollout) {
                struct ramet_process *p = s->waiting;
                int ret = p->killed ? 0 : send_start(p, &p->start);

                if (ret && later(s, ret))
                        return;
                leave_line(p);
                if (ret) {
                        fail_start(p, ret);
                        events_never(p, ctx_last()->text);
                        p->state = PROCESS_GONE;
                } else if (p->killed) {
                        p->state = PROCESS_GONE;
                        events_gone(p, 0);
                }
        }
}

/* --- its life --- */

static void heard(struct ramet_process *p)
{
        if (p->starting)
                p->spawner->starting--;
        p->starting = false;
}

static void hang_up(struct ramet_process *p)
{
        if (p->channel >= 0)
                close(p->channel);
        p->channel = -1;
}

static void drop_disks(struct ramet_process *p)
{
        overlays_destroy(p->overlays, p->started);
        disks_unref(p->disks);
        p->overlays = NULL;
        p->disks = NULL;
}

static void gone(struct ramet_process *p)
{
        heard(p);
        hang_up(p);
        p->state = PROCESS_GONE;
        p->kill_late = false;
        drop_disks(p);
        if (p->released || p->shell)
                process_free(p);
}

void process_launched(struct ramet_process *p, pid_t pid)
{
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = p->id};
        struct ramet_event *e;

        if (p->state != PROCESS_SENT)
                return;
        p->state = PROCESS_LAUNCHED;
        p->pid = pid;
        e = spawner_queue(p, RAMET_EVENT_LAUNCHED, clock_now_ns());
        if (e)
                e->launched.pid = pid;
        if (p->channel >= 0 && epoll_ctl(p->spawner->epoll, EPOLL_CTL_ADD, p->channel, &ev)) {
                p->broken = "its channel cannot be watched";
                ramet_process_kill(p);
        }
}

void process_refused(struct ramet_process *p, int error)
{
        struct err err;

        if (p->state != PROCESS_SENT)
                return;
        err_host(&err, error, "cannot start a machine's process: %s%s", strerror(error),
                 error == EAGAIN ? " (is there a limit on the number of processes?)" : "");
        events_never(p, err.text);
        gone(p);
}

void process_reaped(struct ramet_process *p, int wait_status)
{
        if (p->state != PROCESS_LAUNCHED)
                return;
        for (unsigned i = 0; i < DRAIN_MAX && p->channel >= 0; i++)
                if (!process_readable(p))
                        break;
        events_gone(p, wait_status);
        gone(p);
}

bool process_readable(struct ramet_process *p)
{
        struct message_event m;
        struct message_fds fds;
        const char *why = NULL;
        int ret;

        if (p->channel < 0)
                return false;
        ret = message_receive(p->channel, MESSAGE_MACHINE_TO_LAUNCHER, &m, sizeof m, &fds,
                              MSG_DONTWAIT, &why);
        if (ret == -EAGAIN)
                return false;
        heard(p);
        if (ret > 0)
                why = events_take(p, &m, &fds);
        else if (ret == -EMFILE)
                why = events_lost_fds(p);
        else if (ret < 0 && !why)
                why = "its channel cannot be read";
        if (ret && !why)
                return true;
        /* Nothing can come any more, or nothing that deserves to be heard. */
        if (why)
                p->broken = why;
        hang_up(p);
        ramet_process_kill(p);
        return false;
}

/* --- what the caller sees --- */

struct ramet_process *process_new(struct ramet_spawner *s)
{
        struct ramet_process *p = calloc(1, sizeof *p);

        if (!p)
                return NULL;
        p->spawner = s;
        p->channel = -1;
        p->id = s->next_id++;
        p->requested_ns = clock_now_ns();
        p->hash_next = s->buckets[p->id % BUCKETS];
        s->buckets[p->id % BUCKETS] = p;
        return p;
}

/* From any state; forgets what it said. The process itself, if there is one, is not touched. */
void process_free(struct ramet_process *p)
{
        struct ramet_process **at = &p->spawner->buckets[p->id % BUCKETS];

        while (*at != p)
                at = &(*at)->hash_next;
        *at = p->hash_next;
        if (p->start.msg)
                leave_line(p);
        if (p->shell)
                shell_forget(p);
        spawner_forget_events(p);
        hang_up(p);
        drop_disks(p);
        free(p);
}

static int send_command(struct ramet_process *p, struct message_command *m, const int *fds,
                        unsigned nfds)
{
        int ret = message_send(p->channel, m, sizeof *m, fds, nfds, MSG_DONTWAIT);

        if (ret == -EPIPE || ret == -ECONNRESET)
                return fail(p, -ESRCH, "the machine is gone");
        return ret ? fail(p, ret, "cannot reach the machine") : 0;
}

static int check_alive(struct ramet_process *p)
{
        if (p->state == PROCESS_WAITING)
                return fail(p, -EAGAIN, "the machine has not been started yet");
        if (p->channel < 0 || p->exited || p->killed)
                return fail(p, -ESRCH, "the machine is gone");
        return 0;
}

static int command(struct ramet_process *p, enum message_type type)
{
        struct message_command m = {.head.type = type};
        int ret = p ? check_alive(p) : ctx_null("process");

        return ret ?: send_command(p, &m, NULL, 0);
}

/* Its disks are written to other files after the fork: they go with the request. */
static int command_fork(struct ramet_process *p, unsigned count)
{
        struct message_command m = {.head.type = MESSAGE_FORK, .count = count};
        int fds[OVERLAY_FDS_MAX], ret;
        unsigned nfds, number = 0;
        struct err err;

        ret = overlays_make(p->overlays, &number, fds, &nfds, &m.overlays, &err);
        if (ret)
                return ctx_fail(p->spawner->ctx, ret, &err);
        ret = send_command(p, &m, fds, nfds);
        while (nfds)
                close(fds[--nfds]);
        if (ret)
                overlays_settle(p->overlays, number);
        else if (p->overlays)
                p->overlays->requested = number;
        return ret;
}

int ramet_process_fork(struct ramet_process *p, unsigned count)
{
        struct err err;
        int ret;

        if (!p)
                return ctx_null("process");
        if (count < 1 || count > RAMET_CLONES_MAX)
                return ctx_fail(p->spawner->ctx,
                                err_input(&err, "fork: %u clones given, 1 to %u expected", count,
                                          RAMET_CLONES_MAX),
                                &err);
        if (p->requested)
                return fail(p, -EBUSY, "a fork of this machine is already under way");
        ret = check_alive(p) ?: command_fork(p, count);
        if (!ret)
                p->requested = count;
        return ret;
}

int ramet_process_pause(struct ramet_process *p)
{
        int ret = command(p, MESSAGE_PAUSE);

        if (!ret)
                p->pauses++;
        return ret;
}

int ramet_process_resume(struct ramet_process *p)
{
        int ret = command(p, MESSAGE_RESUME);

        if (!ret)
                p->resumes++;
        return ret;
}

int ramet_process_reset(struct ramet_process *p)
{
        int ret = command(p, MESSAGE_RESET);

        if (!ret)
                p->resets++;
        return ret;
}

int ramet_process_kill(struct ramet_process *p)
{
        if (!p)
                return ctx_null("process");
        if (p->killed || p->state == PROCESS_GONE)
                return 0;
        p->killed = true;
        if (p->state != PROCESS_WAITING) /* else process_flush() drops it when its turn comes */
                send_kill(p);
        return 0;
}

const char *ramet_process_overlay(struct ramet_process *p, unsigned disk)
{
        return p ? overlays_path(p->overlays, disk) : NULL;
}

pid_t ramet_process_pid(const struct ramet_process *p)
{
        return p ? p->pid : 0;
}

void ramet_process_set_data(struct ramet_process *p, void *data)
{
        if (p)
                p->data = data;
}

void *ramet_process_data(const struct ramet_process *p)
{
        return p ? p->data : NULL;
}

void ramet_process_release(struct ramet_process *p)
{
        if (!p)
                return;
        if (p->state == PROCESS_WAITING || p->state == PROCESS_GONE) {
                process_free(p);
                return;
        }
        spawner_forget_events(p);
        p->released = true;
        ramet_process_kill(p);
        hang_up(p);
}
