/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's side of the control socket: one request, one answer, with a plain blocking socket;
 * the command has nothing else to do meanwhile.
 */
#include "cli/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_MAX (64u << 20)

static int send_all(int fd, const char *text, size_t len)
{
        while (len) {
                ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                text += n;
                len -= (size_t)n;
        }
        return 0;
}

/* Everything up to the newline, in *@out, without it. 0 or -errno; -EPIPE: the other side closed.
 */
static int receive_line(int fd, char **out, size_t *out_len)
{
        char *buf = NULL;
        size_t len = 0, cap = 0;
        ssize_t n;
        int ret;

        for (;;) {
                if (len == cap) {
                        char *more =
                                cap < ANSWER_MAX ? realloc(buf, cap = cap ? 2 * cap : 4096) : NULL;

                        if (!more) {
                                ret = -ENOMEM;
                                break;
                        }
                        buf = more;
                }
                n = recv(fd, buf + len, cap - len, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        ret = n ? -errno : -EPIPE;
                        break;
                }
                len += (size_t)n;
                if (buf[len - 1] == '\n') {
                        *out = buf;
                        *out_len = len - 1;
                        return 0;
                }
        }
        free(buf);
        return ret;
}

static int exchange(int fd, json_t *request, json_t **reply)
{
        char *text = json_dumps(request, JSON_COMPACT), *line = NULL;
        size_t len = text ? strlen(text) : 0;
        int ret;

        if (!text)
                return -ENOMEM;
        text[len] = '\n';
        ret = send_all(fd, text, len + 1);
        free(text);
        if (!ret)
                ret = receive_line(fd, &line, &len);
        if (ret)
                return ret;
        *reply = json_loadb(line, len, 0, NULL);
        free(line);
        return json_is_object(*reply) ? 0 : -EPROTO;
}

int client_ask(struct rundir *dir, const char *name, json_t *request, int timeout_ms,
               json_t **reply, struct err *err)
{
        struct timeval limit = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
        int fd, ret = rundir_connect(dir, name, &fd);

        if (ret == -ENOENT) {
                json_decref(request);
                err_input(err,
                          "no machine named '%s' is running ('ramet list' shows those that are)",
                          name);
                return ret;
        }
        if (!ret) {
                setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
                setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
                ret = exchange(fd, request, reply);
                close(fd);
        }
        json_decref(request);
        if (ret)
                err_host(err, -ret, "the launcher of '%s' does not answer: %s", name,
                         ret == -EPIPE ? "it closed the connection" : strerror(-ret));
        return ret;
}
