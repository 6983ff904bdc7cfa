/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: connections and their buffers; what a request means is in requests.c.
 *
 * A client may be slow, broken or hostile within this user's rights. So: only this user (and root)
 * is served, which the kernel vouches for (SO_PEERCRED); a request has at most 4 KiB; one request
 * of a connection is worked on at a time, and nothing is read before its answer has been taken;
 * there are at most 32 connections, and one that is silent for ten seconds with nothing to wait for
 * is closed. Nothing here blocks.
 */
#include "cli/control.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/control_internal.h"
#include "cli/launcher.h"
#include "cli/message.h"

#define CONNECTIONS_MAX 32
#define SILENCE_NS      10000000000u
#define ACCEPT_AGAIN_NS 100000000u /* out of descriptors: look again after this */

static void serve(struct connection *c);

static void connection_close(struct connection *c)
{
        struct connection **link = &c->control->connections;

        while (*link != c)
                link = &(*link)->next;
        *link = c->next;
        c->control->nconnections--;
        request_abandon(c);
        loop_remove(c->watch);
        loop_remove(c->silence);
        close(c->fd);
        free(c->out);
        free(c);
}

static void silent_too_long(void *data)
{
        struct connection *c = data;

        if (c->request)
                (void)loop_rearm_timer(c->silence, SILENCE_NS); /* it waits for us */
        else
                connection_close(c);
}

/* Send what is there. False: the connection is lost. */
static bool send_out(struct connection *c)
{
        ssize_t n;

        while (c->sent < c->out_len) {
                n = send(c->fd, c->out + c->sent, c->out_len - c->sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN;
                c->sent += (size_t)n;
        }
        free(c->out);
        c->out = NULL;
        c->out_len = c->sent = 0;
        return true;
}

/* Requests that have arrived whole, as long as answers are taken. False: the connection is lost. */
static bool take_requests(struct connection *c)
{
        char *end;

        while (!c->request && !c->out && !c->closing &&
               (end = memchr(c->in, '\n', c->in_len), end)) {
                size_t len = (size_t)(end - c->in);

                request_take(c, c->in, len);
                c->in_len -= len + 1;
                memmove(c->in, end + 1, c->in_len);
                if (!send_out(c))
                        return false;
        }
        if (c->in_len == sizeof c->in && !c->request && !c->out && !c->closing) {
                c->closing = true;
                request_refuse(c, "the request is longer than 4 KiB");
                return send_out(c);
        }
        return true;
}

/* False: the connection is lost. An end of file leaves the answers to be given. */
static bool receive(struct connection *c)
{
        ssize_t n = recv(c->fd, c->in + c->in_len, sizeof c->in - c->in_len, MSG_DONTWAIT);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR;
        c->eof = n == 0;
        c->in_len += (size_t)n;
        return true;
}

static bool can_receive(const struct connection *c)
{
        return !c->eof && c->in_len < sizeof c->in;
}

static void connection_ready(void *data, int fd, unsigned events)
{
        struct connection *c = data;
        bool alive = !(events & POLLERR);

        if (events & POLLOUT)
                alive = alive && send_out(c);
        else if (can_receive(c))
                alive = alive && receive(c);
        else
                alive = alive && !(events & POLLHUP);
        if (!alive) {
                connection_close(c);
                return;
        }
        (void)loop_rearm_timer(c->silence, SILENCE_NS);
        serve(c);
}

/* Go on with a connection after anything has changed about it. May close it. */
static void serve(struct connection *c)
{
        unsigned events;

        if (!take_requests(c) || ((c->closing || (c->eof && !c->request)) && !c->out)) {
                connection_close(c);
                return;
        }
        events = can_receive(c) ? POLLIN : 0;
        if (c->out)
                events = POLLOUT;
        if (loop_modify_fd(c->watch, events))
                connection_close(c);
}

void connection_answered(struct connection *c)
{
        if (send_out(c))
                serve(c);
        else
                connection_close(c);
}

static bool peer_allowed(int fd)
{
        struct ucred peer;
        socklen_t len = sizeof peer;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
                return false;
        return peer.uid == geteuid() || peer.uid == 0;
}

static void connection_open(struct control *control, int fd)
{
        struct connection *c = NULL;

        if (peer_allowed(fd) && control->nconnections < CONNECTIONS_MAX)
                c = calloc(1, sizeof *c);
        if (!c) {
                close(fd);
                return;
        }
        c->control = control;
        c->fd = fd;
        if (loop_add_fd(control->l->loop, fd, POLLIN, connection_ready, c, &c->watch) ||
            loop_add_timer(control->l->loop, SILENCE_NS, silent_too_long, c, &c->silence)) {
                loop_remove(c->watch);
                close(fd);
                free(c);
                return;
        }
        c->next = control->connections;
        control->connections = c;
        control->nconnections++;
}

static void listen_ready(void *data, int fd, unsigned events);

static void listen_again(void *data)
{
        struct control *c = data;

        if (!c->watch)
                (void)loop_add_fd(c->l->loop, c->fd, POLLIN, listen_ready, c, &c->watch);
}

static void listen_ready(void *data, int listen_fd, unsigned events)
{
        struct control *c = data;
        int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
                connection_open(c, fd);
        } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                loop_remove(c->watch);
                c->watch = NULL;
                if (c->again)
                        (void)loop_rearm_timer(c->again, ACCEPT_AGAIN_NS);
                else
                        (void)loop_add_timer(c->l->loop, ACCEPT_AGAIN_NS, listen_again, c,
                                             &c->again);
        }
}

int control_create(struct launcher *l, const char *name, struct control **out, struct err *err)
{
        struct control *c = calloc(1, sizeof *c);
        int ret;

        if (!c)
                return err_host(err, ENOMEM, "no memory for the control socket");
        c->l = l;
        ret = rundir_open(&c->dir, err);
        if (ret)
                goto free_c;
        ret = rundir_listen(&c->dir, name, &c->fd, err);
        if (ret)
                goto close_dir;
        ret = loop_add_fd(l->loop, c->fd, POLLIN, listen_ready, c, &c->watch);
        if (ret) {
                err_host(err, -ret, "the control socket cannot be watched: %s", strerror(-ret));
                goto close_socket;
        }
        snprintf(c->name, sizeof c->name, "%s", name);
        snprintf(c->path, sizeof c->path, "%s/%s.sock", c->dir.path, name);
        *out = c;
        return 0;

close_socket:
        rundir_unlink(&c->dir, name);
        close(c->fd);
close_dir:
        rundir_close(&c->dir);
free_c:
        free(c);
        return ret;
}

void control_destroy(struct control *c)
{
        if (!c)
                return;
        rundir_unlink(&c->dir, c->name);
        while (c->connections)
                connection_close(c->connections);
        requests_fini(c);
        loop_remove(c->watch);
        loop_remove(c->again);
        close(c->fd);
        rundir_close(&c->dir);
        free(c);
}

const char *control_path(const struct control *c)
{
        return c->path;
}
