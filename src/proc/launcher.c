/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher: one epoll descriptor over the spawner's socket and the channel of every machine,
 * and a queue of events between them and the caller.
 *
 * Each call of ramet_spawner_next() reads a message from each descriptor that has one, at most a
 * few, and hands out the first event: so one chatty machine delays the others by a message. A
 * machine cannot send without end either, since events.c knows how often each message may come.
 *
 * Invariants:
 *   - A machine's channel is read only after its LAUNCHED came, so LAUNCHED is its first event.
 *   - When it has been reaped, everything it ever said is in the channel; that is read to the end
 *     before GONE is queued. So GONE is its last event, and EXIT precedes it.
 *   - What goes over a wire names a process by an id that is never used twice. Late words about
 *     one that the caller has released find nobody, and are dropped.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proc/launch.h"
#include "proc/launcher.h"

#define BATCH 16

struct ramet_process *spawner_find(struct ramet_spawner *s, uint64_t id)
{
        struct ramet_process *p = s->buckets[id % BUCKETS];

        while (p && p->id != id)
                p = p->hash_next;
        return p;
}

struct ramet_event *spawner_queue(struct ramet_process *p, enum ramet_event_type type,
                                  uint64_t t_ns)
{
        struct ramet_spawner *s = p->spawner;
        struct event_node *n;

        if (p->released || p->shell)
                return NULL;
        n = calloc(1, sizeof *n);
        if (!n) {
                s->lost = -ENOMEM; /* an event that never comes would be waited for, for ever */
                return NULL;
        }
        n->event.type = type;
        n->event.process = p;
        n->event.t_ns = t_ns;
        *s->events_tail = n;
        s->events_tail = &n->next;
        return &n->event;
}

static bool pop(struct ramet_spawner *s, struct ramet_event *event)
{
        struct event_node *n = s->events;

        if (!n)
                return false;
        *event = n->event;
        s->events = n->next;
        if (!s->events)
                s->events_tail = &s->events;
        free(n);
        return true;
}

void spawner_forget_events(struct ramet_process *p)
{
        struct ramet_spawner *s = p->spawner;
        struct event_node **at = &s->events;

        while (*at) {
                struct event_node *n = *at;

                if (n->event.process != p) {
                        at = &n->next;
                        continue;
                }
                if (n->event.type == RAMET_EVENT_FROZEN)
                        ramet_frozen_release(n->event.frozen.frozen);
                *at = n->next;
                free(n);
        }
        s->events_tail = at;
}

void spawner_want_pollout(struct ramet_spawner *s, bool want)
{
        struct epoll_event ev = {.events = EPOLLIN | (want ? EPOLLOUT : 0u), .data.u64 = 0};

        if (s->wants_pollout != want && !epoll_ctl(s->epoll, EPOLL_CTL_MOD, s->sock, &ev))
                s->wants_pollout = want;
}

/* The child's side of the socket pair and a pidfd are all that it is given. */
static int start_spawner(struct ramet_spawner *s, const struct spawner_ops *ops, const char *path,
                         struct err *err)
{
        int pair[2], self = pidfd_open(getpid(), 0), ret;

        if (self < 0)
                return err_host(err, errno, "cannot open a pidfd: %s", strerror(errno));
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
                ret = err_host(err, errno, "cannot make a socket pair: %s", strerror(errno));
                goto out;
        }
        ret = path ? launch_execute(path, pair[1], self, &s->process)
                   : launch_fork(pair[1], self, pair[0], ops, &s->process);
        close(pair[1]);
        s->sock = pair[0];
        if (ret)
                ret = err_host(err, -ret, "cannot start the spawner: %s%s%s", path ?: "",
                               path ? ": " : "", strerror(-ret));
out:
        close(self);
        return ret;
}

int spawner_open(struct ramet_ctx *ctx, const struct spawner_ops *ops, const char *path,
                 struct ramet_spawner **spawner)
{
        struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 0};
        struct ramet_spawner *s;
        struct err err;
        int ret;

        s = calloc(1, sizeof *s);
        if (!s)
                return ctx_fail(ctx, err_host(&err, ENOMEM, "no memory for a spawner"), &err);
        s->ctx = ctx;
        s->owner = getpid();
        s->sock = s->epoll = s->process.pidfd = -1;
        s->next_id = 1;
        s->waiting_tail = &s->waiting;
        s->events_tail = &s->events;
        ret = start_spawner(s, ops, path, &err);
        if (!ret) {
                s->epoll = epoll_create1(EPOLL_CLOEXEC);
                if (s->epoll < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->sock, &ev))
                        ret = err_host(&err, errno, "cannot wait for events: %s", strerror(errno));
        }
        if (ret) {
                ramet_spawner_destroy(s);
                return ctx_fail(ctx, ret, &err);
        }
        *spawner = s;
        return 0;
}

void ramet_spawner_destroy(struct ramet_spawner *s)
{
        if (!s)
                return;
        /* Shut down, since a child that the program has forked may still have it open, and closing
         * would then tell nobody anything. In such a child nothing is ended. */
        if (s->owner == getpid()) {
                if (s->sock >= 0)
                        shutdown(s->sock, SHUT_RDWR); /* tells it to kill and reap all */
                launch_wait(&s->process);
        } else if (s->process.pidfd >= 0) {
                close(s->process.pidfd);
        }
        if (s->sock >= 0)
                close(s->sock);
        for (unsigned i = 0; i < BUCKETS; i++) {
                while (s->buckets[i])
                        process_free(s->buckets[i]);
        }
        if (s->epoll >= 0)
                close(s->epoll);
        free(s);
}

static void spawner_readable(struct ramet_spawner *s)
{
        struct ramet_process *p;
        struct message_spawn m;
        struct message_fds fds;
        const char *why;
        int ret = message_receive(s->sock, MESSAGE_SPAWNER_TO_LAUNCHER, &m, sizeof m, &fds,
                                  MSG_DONTWAIT, &why);

        if (ret == -EAGAIN)
                return;
        if (ret <= 0) {
                s->lost = ret ?: -EPIPE;
                return;
        }
        p = spawner_find(s, m.id);
        if (!p)
                return;
        switch (m.head.type) {
        case MESSAGE_LAUNCHED:
                process_launched(p, m.pid);
                break;
        case MESSAGE_REFUSED:
                process_refused(p, m.error);
                break;
        case MESSAGE_REAPED:
                process_reaped(p, m.wait_status);
                break;
        }
}

static int serve(struct ramet_spawner *s)
{
        struct epoll_event ev[BATCH];
        int n = epoll_wait(s->epoll, ev, BATCH, 0);

        for (int i = 0; i < n; i++) {
                struct ramet_process *p;

                if (!ev[i].data.u64) {
                        if (ev[i].events & EPOLLOUT)
                                spawner_want_pollout(s, false);
                        if (ev[i].events & ~EPOLLOUT)
                                spawner_readable(s);
                        continue;
                }
                p = spawner_find(s, ev[i].data.u64);
                if (p)
                        process_readable(p);
        }
        process_flush(s);
        return n;
}

int ramet_spawner_fd(const struct ramet_spawner *s)
{
        return s ? s->epoll : ctx_null("spawner");
}

int ramet_spawner_next(struct ramet_spawner *s, struct ramet_event *event)
{
        if (!s || !event)
                return ctx_null(s ? "event" : "spawner");
        for (;;) {
                struct err err;

                if (pop(s, event))
                        return 1;
                if (s->lost) {
                        err_host(&err, -s->lost, "the spawner is lost: %s", strerror(-s->lost));
                        return ctx_fail(s->ctx, s->lost, &err);
                }
                if (serve(s) <= 0 && !s->events && !s->lost)
                        return 0;
        }
}
