/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console device (virtio 1.2, section 5.3): one port, a queue each way, between the guest and
 * the machine's chardev.
 *
 * Output. A chain is given back when all of it is in the chardev. When that is full the chain stays
 * at the head of its queue, and how many of its bytes are out is remembered, also in the saved
 * state: they are in the parent's chardev, which a clone does not have, so that parent and clone
 * both go on behind them and every byte is printed once by each machine that is to print it.
 *
 * Input. No more is read than the guest has buffers for, and what a chain has no room for goes into
 * the next one. Nothing is kept here, so there is nothing to save.
 *
 * Not offered: VIRTIO_CONSOLE_F_MULTIPORT, since a machine has one console, and the control queue
 * would be one more thing that a guest can attack; VIRTIO_CONSOLE_F_SIZE, since the terminal
 * belongs to the launcher, which shares it out among many machines. Offered is
 * VIRTIO_CONSOLE_F_EMERG_WRITE: one character at a time, before the driver is set up or when it
 * cannot run any more. That one comes on a vCPU's thread; a character for which there is no room is
 * lost, as on a serial line.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "devices/registry.h"
#include "devices/virtio/virtio.h"

enum { RECEIVEQ, TRANSMITQ, QUEUES };

#define QUEUE_SIZE  128
#define CHUNK       4096u
#define CHUNKS_MAX  16 /* of a chain, or chains, before others have their turn */
#define EMERG_WRITE offsetof(struct virtio_console_config, emerg_wr)

struct console {
        struct virtio_device v; /* first */
        uint64_t out_done;      /* [loop] bytes of the transmitq's next chain that are out */
};

struct console_record {
        uint64_t out_done;
};

static struct console *console_of(struct virtio_device *v)
{
        return (struct console *)v;
}

static bool works(const struct virtio_device *v, unsigned q)
{
        return v->active && !v->broken && !v->quiesced && v->queues[q].ready;
}

/* ---- output ---- */

enum step {
        STEP_DONE, /* the chain is out */
        STEP_MORE, /* go on with it */
        STEP_FULL, /* the chardev is */
        STEP_BROKEN,
};

/* Some of the chain's bytes. */
static enum step put_some(struct console *c, const struct virtq_chain *chain)
{
        uint8_t buf[CHUNK];
        /* The guest may have changed the chain since the first part of it went out. */
        uint64_t left = c->out_done < chain->out_len ? chain->out_len - c->out_done : 0;
        size_t n = left < sizeof buf ? (size_t)left : sizeof buf, taken;

        if (n == 0)
                return STEP_DONE;
        if (virtq_read(c->v.env->mem, chain, c->out_done, buf, n))
                return STEP_BROKEN;
        taken = chardev_write(c->v.env->console, buf, n);
        c->out_done += taken;
        if (taken < n)
                return STEP_FULL;
        return taken == left ? STEP_DONE : STEP_MORE;
}

static bool give_back(struct console *c, unsigned q, uint16_t head, uint32_t written)
{
        struct err err;

        if (virtq_push(&c->v.queues[q], c->v.env->mem, head, written, &err)) {
                virtio_break(&c->v, err.text);
                return false;
        }
        return true;
}

/* The next chain, or false; a queue that is broken is told. */
static bool next_chain(struct console *c, unsigned q, struct virtq_chain *chain)
{
        struct err err;
        int ret = virtq_pop(&c->v.queues[q], c->v.env->mem, chain, &err);

        if (ret < 0)
                virtio_break(&c->v, err.text);
        return ret > 0;
}

static bool transmit(struct console *c)
{
        enum step step = STEP_DONE;
        struct virtq_chain chain;
        bool used = false;
        unsigned chunks = 0;

        while (step == STEP_DONE && chunks < CHUNKS_MAX && next_chain(c, TRANSMITQ, &chain)) {
                do
                        step = put_some(c, &chain);
                while (step == STEP_MORE && ++chunks < CHUNKS_MAX);
                chunks++;
                if (step == STEP_BROKEN) {
                        virtio_break(&c->v, "console: output that is not in RAM");
                } else if (step != STEP_DONE) {
                        virtq_unpop(&c->v.queues[TRANSMITQ]);
                } else {
                        c->out_done = 0;
                        if (!give_back(c, TRANSMITQ, chain.head, 0))
                                return false;
                        used = true;
                }
        }
        if (used && works(&c->v, TRANSMITQ))
                virtio_used(&c->v, TRANSMITQ);
        /* Full: output_ready() comes. */
        return works(&c->v, TRANSMITQ) && chunks >= CHUNKS_MAX && step != STEP_FULL;
}

static void output_ready(void *dev)
{
        struct console *c = dev;

        virtio_poke(&c->v, TRANSMITQ);
}

/* ---- input ---- */

static size_t input_room(void *dev)
{
        struct console *c = dev;
        struct virtq_chain chain;
        size_t room = 0;

        if (!works(&c->v, RECEIVEQ))
                return 0;
        guest_access_begin(c->v.env->mem);
        if (next_chain(c, RECEIVEQ, &chain)) {
                virtq_unpop(&c->v.queues[RECEIVEQ]);
                room = chain.in_len;
                if (room == 0)
                        virtio_break(&c->v, "console: a buffer for input that cannot be written");
        }
        guest_access_end(c->v.env->mem);
        return room;
}

/* input_room() has looked at the same chain, but the guest may have changed it since: then what has
 * no room any more is lost, to that guest. */
static void input(void *dev, const void *data, size_t len)
{
        struct console *c = dev;
        struct virtq_chain chain;
        size_t at = 0;

        guest_access_begin(c->v.env->mem);
        while (at < len && works(&c->v, RECEIVEQ) && next_chain(c, RECEIVEQ, &chain)) {
                size_t n = len - at < chain.in_len ? len - at : (size_t)chain.in_len;

                if (n == 0 || virtq_write(c->v.env->mem, &chain, 0, (const uint8_t *)data + at, n))
                        virtio_break(&c->v, "console: a buffer for input that cannot be written");
                else if (give_back(c, RECEIVEQ, chain.head, (uint32_t)n))
                        at += n;
        }
        if (at > 0 && works(&c->v, RECEIVEQ))
                virtio_used(&c->v, RECEIVEQ);
        guest_access_end(c->v.env->mem);
}

static const struct chardev_ops console_chardev_ops = {
        .input_room = input_room,
        .input = input,
        .output_ready = output_ready,
};

/* ---- what the transport asks for ---- */

static bool console_process(struct virtio_device *v, unsigned q)
{
        if (q == TRANSMITQ)
                return transmit(console_of(v));
        chardev_input_ready(v->env->console);
        return false;
}

static uint64_t console_features(struct virtio_device *v)
{
        return 1ull << VIRTIO_CONSOLE_F_EMERG_WRITE;
}

static void console_reset(struct virtio_device *v)
{
        console_of(v)->out_done = 0;
}

/* cols, rows and max_nr_ports count only with features that are not offered. */
static void console_read_config(struct virtio_device *v, uint32_t offset, uint8_t *data,
                                unsigned len)
{
        memset(data, 0, len);
}

static void console_write_config(struct virtio_device *v, uint32_t offset, const uint8_t *data,
                                 unsigned len)
{
        if (offset == EMERG_WRITE)
                chardev_write(v->env->console, data, 1);
}

static void console_save(struct virtio_device *v, void *record)
{
        struct console_record r = {.out_done = console_of(v)->out_done};

        memcpy(record, &r, sizeof r);
}

static int console_restore(struct virtio_device *v, const void *record, struct err *err)
{
        struct console_record r;

        memcpy(&r, record, sizeof r);
        if (r.out_done > UINT32_MAX)
                return err_input(err, "virtio-console: %llu bytes of one chain are out",
                                 (unsigned long long)r.out_done);
        console_of(v)->out_done = r.out_done;
        return 0;
}

static const struct virtio_ops console_virtio = {
        .name = "virtio-console",
        .device_id = VIRTIO_ID_CONSOLE,
        .nqueues = QUEUES,
        .queue_size_max = QUEUE_SIZE,
        .features = console_features,
        .config_bytes = sizeof(struct virtio_console_config),
        .read_config = console_read_config,
        .write_config = console_write_config,
        .process = console_process,
        .reset = console_reset,
        .record_bytes = sizeof(struct console_record),
        .save = console_save,
        .restore = console_restore,
};

/* ---- life ---- */

static unsigned console_count(const struct device_params *params)
{
        return params->virtio_console;
}

static int console_create(const struct device_env *env, const struct device_params *params,
                          unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                          unsigned *nwindows, struct err *err)
{
        struct console *c;
        int ret;

        if (index >= console_count(params))
                return 0;
        c = calloc(1, sizeof *c);
        if (!c)
                return err_host(err, ENOMEM, "virtio-console: out of memory");
        ret = virtio_init(&c->v, &console_virtio, env, windows, err);
        if (ret) {
                free(c);
                return ret;
        }
        *nwindows = 1;
        *dev = c;
        chardev_attach(env->console, &console_chardev_ops, c);
        return 0;
}

static void console_destroy(void *dev)
{
        struct console *c = dev;

        if (!c)
                return;
        chardev_detach(c->v.env->console, c);
        virtio_fini(&c->v);
        free(c);
}

static const char *const console_syscalls[] = {"futex", "read", "write", NULL};

const struct device_ops virtio_console_ops = {
        .name = "virtio-console",
        .record_kind = RECORD_DEV_VIRTIO_CONSOLE,
        .record_version = 1,
        .record_length = sizeof(struct virtio_record) + sizeof(struct console_record),
        .count = console_count,
        .create = console_create,
        .destroy = console_destroy,
        VIRTIO_DEVICE_OPS,
        .syscalls = console_syscalls,
};
