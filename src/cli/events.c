/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The --events file. A line is written by one write(2) when its event arrives, so that a reader who
 * follows the file never sees half of one, and the file is complete up to the moment at which the
 * launcher is killed. The time in a line is when the thing happened, in the process where it did,
 * so lines of different machines may stand in another order than their times.
 *
 * A file that cannot be written any more (a full disk) is given up with one message: the run is
 * worth more than its log.
 */
#include "cli/events.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/disks.h"
#include "cli/message.h"
#include "cli/outcome.h"

struct events {
        int fd; /* -1: given up */
        const struct backend *be;
};

int events_open(const char *path, const struct backend *be, struct events **out, struct err *err)
{
        struct events *events;
        int fd;

        if (!path) {
                *out = NULL;
                return 0;
        }
        /* O_NONBLOCK only for the opening: a FIFO that nobody reads is an error, not a wait. */
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0666);
        if (fd < 0 || fcntl(fd, F_SETFL, O_APPEND))
                return err_input(err, "--events %s: %s", path, strerror(errno));
        events = malloc(sizeof *events);
        if (!events) {
                close(fd);
                return err_host(err, ENOMEM, "no memory for --events");
        }
        events->fd = fd;
        events->be = be;
        *out = events;
        return 0;
}

void events_close(struct events *events)
{
        if (!events)
                return;
        if (events->fd >= 0)
                close(events->fd);
        free(events);
}

static void put_number(json_t *line, const char *key, uint64_t n)
{
        json_object_set_new(line, key, json_integer((json_int_t)n));
}

/* Texts come from file names and guests: whatever is not UTF-8 is shown as '?'. */
static void put_text(json_t *line, const char *key, const char *text)
{
        json_t *value = json_string(text);
        char *ascii;

        if (!value) {
                ascii = strdup(text);
                for (char *p = ascii; p && *p; p++)
                        if (*p & 0x80)
                                *p = '?';
                value = json_string(ascii ? ascii : "");
                free(ascii);
        }
        json_object_set_new(line, key, value);
}

/* The fields that every line has. */
static json_t *begin(const char *event, const struct machine *m, uint64_t t_ns)
{
        json_t *line = json_object();

        put_text(line, "event", event);
        put_number(line, "t_ns", t_ns);
        put_text(line, "vm", m->id);
        put_text(line, "name", m->path);
        json_object_set_new(line, "parent", m->parent ? json_string(m->parent->id) : json_null());
        put_number(line, "index", m->index);
        return line;
}

static void finish(struct events *events, json_t *line)
{
        char *text = json_dumps(line, JSON_COMPACT);
        size_t len = text ? strlen(text) : 0;

        json_decref(line);
        if (text)
                text[len] =
                        '\n'; /* in the place of the NUL: json_dumps() gives a string of its own */
        if (!text || write(events->fd, text, len + 1) != (ssize_t)(len + 1)) {
                message(MESSAGE_ERROR, "--events: %s; no more events are written",
                        text ? strerror(errno) : "no memory");
                close(events->fd);
                events->fd = -1;
        }
        free(text);
}

static const char *cause_word(enum ramet_fork_cause cause)
{
        switch (cause) {
        case RAMET_FORK_DOORBELL:
                return "doorbell";
        case RAMET_FORK_CONSOLE:
                return "console";
        case RAMET_FORK_REQUEST:
                break;
        }
        return "request";
}

static void add_device(json_t *devices, const char *type, json_t *device)
{
        json_object_set_new(device, "type", json_string(type));
        json_array_append_new(devices, device);
}

static json_t *disk_device(const struct ramet_disk *d, unsigned i)
{
        json_t *device = json_object();
        char name[4];
        off_t bytes = lseek(d->fd, 0, SEEK_END); /* of a block device, too */

        put_text(device, "name", disk_name(i, name));
        put_text(device, "path", d->path);
        if (bytes >= 0)
                put_number(device, "bytes", (uint64_t)bytes);
        json_object_set_new(device, "readonly", json_boolean(d->readonly));
        if (d->serial)
                put_text(device, "serial", d->serial);
        if (d->iops_max)
                put_number(device, "iops", d->iops_max);
        if (d->bandwidth_max)
                put_number(device, "bandwidth", d->bandwidth_max);
        return device;
}

/* Those that the user chose. */
static void put_devices(json_t *line, const struct ramet_vm_options *o)
{
        json_t *devices = json_array();

        for (unsigned i = 0; i < o->ndisks; i++)
                add_device(devices, "disk", disk_device(&o->disks[i], i));
        if (o->rng)
                add_device(devices, "rng", json_object());
        if (o->virtio_console)
                add_device(devices, "console", json_object());
        json_object_set_new(line, "devices", devices);
}

/* Where the disks of a machine that was forked, or is a clone, are written to. */
static void put_overlays(const struct events *events, json_t *line, const struct machine *m)
{
        json_t *overlays;
        char name[4];

        if (!m->options->ndisks)
                return;
        overlays = json_object();
        for (unsigned i = 0; i < m->options->ndisks; i++) {
                const char *path = events->be->overlay(m->process, i);

                if (m->options->disks[i].readonly)
                        continue;
                disk_name(i, name);
                if (path)
                        put_text(overlays, name, path);
                else
                        json_object_set_new(overlays, name, json_null());
        }
        json_object_set_new(line, "overlays", overlays);
}

static json_t *freeze_line(const struct machine *m, const struct ramet_event *event)
{
        json_t *line = begin("freeze", m, event->t_ns);

        put_number(line, "pause_ns", event->frozen.pause_ns);
        put_number(line, "generation", event->frozen.generation);
        put_number(line, "vcpus", event->frozen.vcpus);
        put_number(line, "stop_ns", event->frozen.stop_ns);
        put_number(line, "freeze_ns", event->frozen.freeze_ns);
        put_number(line, "publish_ns", event->frozen.publish_ns);
        put_number(line, "memory_bytes", event->frozen.memory_bytes);
        put_number(line, "copied_bytes", event->frozen.copied_bytes);
        return line;
}

void events_machine(struct events *events, const struct machine *m, const struct ramet_event *event)
{
        json_t *line = NULL;

        if (!events || events->fd < 0)
                return;
        switch (event->type) {
        case RAMET_EVENT_STARTED:
                line = begin("vm-start", m, event->t_ns);
                put_number(line, "pid", (uint64_t)m->pid);
                put_number(line, "cpus", m->vcpus);
                put_number(line, "memory_bytes", m->memory_bytes);
                put_devices(line, m->options);
                break;
        case RAMET_EVENT_FORK_POINT:
                line = begin("fork-point", m, event->t_ns);
                put_text(line, "cause", cause_word(event->fork_point.cause));
                put_number(line, "count", event->fork_point.count);
                break;
        case RAMET_EVENT_FROZEN:
                line = freeze_line(m, event);
                put_overlays(events, line, m);
                break;
        case RAMET_EVENT_READY:
                line = begin("clone-start", m, event->t_ns);
                put_number(line, "pid", (uint64_t)m->pid);
                put_number(line, "spawn_ns", event->ready.spawn_ns);
                put_overlays(events, line, m);
                break;
        case RAMET_EVENT_RUNNING:
                line = begin("clone-running", m, event->t_ns);
                put_number(line, "first_exit_ns", event->running.first_exit_ns);
                put_text(line, "how", event->running.how ? event->running.how : "exit");
                break;
        case RAMET_EVENT_RESET:
                line = begin("reset", m, event->t_ns);
                put_number(line, "reset_ns", event->reset.reset_ns);
                break;
        default: /* the others are told by events_exit() and events_error(), or to people only */
                return;
        }
        finish(events, line);
}

void events_exit(struct events *events, const struct machine *m, uint64_t t_ns, const char *text)
{
        json_t *line;

        if (!events || events->fd < 0)
                return;
        line = begin("exit", m, t_ns);
        put_text(line, "reason", outcome_word(m->reason));
        put_number(line, "status", (uint64_t)outcome_status(m));
        if (m->reason == RAMET_EXIT_KILLED)
                put_number(line, "signal", (uint64_t)m->guest_status);
        if (*text)
                put_text(line, "text", text);
        put_number(line, "assists", m->assists);
        put_number(line, "shared_bytes", m->shared_bytes);
        put_number(line, "private_bytes", m->private_bytes);
        finish(events, line);
}

void events_error(struct events *events, const struct machine *m, uint64_t t_ns, const char *text)
{
        json_t *line;

        if (!events || events->fd < 0)
                return;
        line = begin("error", m, t_ns);
        put_text(line, "text", text);
        finish(events, line);
}
