/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtio device for tests of the transport: three queues, each chain's out part is copied to its
 * in part, four chains a turn, or what the test says. Include after cmocka.h.
 */
#ifndef RAMET_TESTS_VIRTIO_TOY_H
#define RAMET_TESTS_VIRTIO_TOY_H

#include "virtio_fake.h"

#define TOY_QUEUES   3
#define TOY_SIZE     16
#define TOY_CONFIG   20
#define TOY_TURN     4
#define TOY_FEATURES (1ull << 5 | 1ull << 37)

enum toy_mode {
        TOY_ECHO,
        TOY_LEAVE, /* take nothing */
        TOY_ASYNC, /* give back when an I/O has ended */
        TOY_EAGER, /* the same, and then begin the next one at once */
};

struct toy {
        struct virtio_device v;
        enum toy_mode mode;
        uint8_t config[TOY_CONFIG];
        uint64_t word; /* its own part of the record */
        int pipe;      /* ASYNC: read a byte of it for each chain; -1: I/O that does nothing */
        unsigned in_flight, done, lost; /* ASYNC; lost: given back to a broken queue */
        unsigned processed[TOY_QUEUES], activated, resets, restored;
        unsigned config_reads, config_len;       /* and the length of the last one */
        void (*hook)(struct toy *t, unsigned q); /* at the end of process() */
        void *hook_data;
        struct virtq_chain chain;
};

struct toy_io {
        struct loop_io io;
        struct toy *t;
        unsigned q;
        uint16_t head;
        uint8_t byte;
        struct iovec iov;
};

static inline void toy_break(struct toy *t, const struct err *err)
{
        virtio_break(&t->v, err->text);
}

static inline void toy_start(struct toy *t, unsigned q, uint16_t head);

static inline void toy_io_done(struct loop_io *io)
{
        struct toy_io *i = (struct toy_io *)io;
        struct toy *t = i->t;
        struct guest_access *a = t->v.env->mem;
        struct err err = {0};

        t->in_flight--;
        t->done++;
        guest_access_begin(a);
        if (virtq_push(&t->v.queues[i->q], a, i->head, 1, &err))
                t->lost++;
        else
                virtio_used(&t->v, i->q);
        if (t->mode == TOY_EAGER && !t->v.quiesced &&
            virtq_pop(&t->v.queues[i->q], a, &t->chain, &err) == 1)
                toy_start(t, i->q, t->chain.head);
        guest_access_end(a);
        free(i);
}

static inline void toy_start(struct toy *t, unsigned q, uint16_t head)
{
        struct toy_io *i = calloc(1, sizeof *i);

        assert_non_null(i);
        *i = (struct toy_io){
                .io = {.op = t->pipe >= 0 ? LOOP_IO_READ : LOOP_IO_NOP,
                       .fd = t->pipe,
                       .iov = &i->iov,
                       .niov = 1,
                       .done = toy_io_done},
                .t = t,
                .q = q,
                .head = head,
                .iov = {&i->byte, 1},
        };
        t->in_flight++;
        loop_io_start(t->v.env->loop, &i->io);
}

static inline int toy_echo(struct toy *t, unsigned q, struct virtq_chain *c, struct err *err)
{
        struct guest_access *a = t->v.env->mem;
        uint64_t len = c->out_len < c->in_len ? c->out_len : c->in_len;
        uint8_t buf[256];

        len = len < sizeof buf ? len : sizeof buf;
        if (virtq_read(a, c, 0, buf, len) || virtq_write(a, c, 0, buf, len))
                return err_host(err, EFAULT, "a buffer that is not in RAM");
        return virtq_push(&t->v.queues[q], a, c->head, (uint32_t)len, err);
}

static inline bool toy_process(struct virtio_device *v, unsigned q)
{
        struct toy *t = (struct toy *)v;
        struct virtq_chain c;
        struct err err = {0};
        unsigned n = 0;
        int r = 1;

        assert_false(v->quiesced);
        assert_true(v->active && !v->broken);
        t->processed[q]++;
        while (t->mode != TOY_LEAVE && n < TOY_TURN && r == 1) {
                r = virtq_pop(&v->queues[q], v->env->mem, &c, &err);
                if (r != 1)
                        break;
                n++;
                if (t->mode != TOY_ECHO)
                        toy_start(t, q, c.head);
                else if (toy_echo(t, q, &c, &err))
                        r = -1;
        }
        virtio_used(v, q);
        if (r < 0)
                toy_break(t, &err);
        if (t->hook)
                t->hook(t, q);
        return n == TOY_TURN;
}

static inline uint64_t toy_features(struct virtio_device *v)
{
        return TOY_FEATURES;
}

static inline void toy_read_config(struct virtio_device *v, uint32_t offset, uint8_t *data,
                                   unsigned len)
{
        struct toy *t = (struct toy *)v;

        assert_true(len == 1 || len == 2 || len == 4 || len == 8);
        assert_true(offset < TOY_CONFIG && len <= TOY_CONFIG - offset);
        memcpy(data, t->config + offset, len);
        t->config_reads++;
        t->config_len = len;
}

static inline void toy_write_config(struct virtio_device *v, uint32_t offset, const uint8_t *data,
                                    unsigned len)
{
        struct toy *t = (struct toy *)v;

        assert_true(len == 1 || len == 2 || len == 4 || len == 8);
        assert_true(offset < TOY_CONFIG && len <= TOY_CONFIG - offset);
        memcpy(t->config + offset, data, len);
}

static inline void toy_activate(struct virtio_device *v)
{
        ((struct toy *)v)->activated++;
}

static inline void toy_reset(struct virtio_device *v)
{
        struct toy *t = (struct toy *)v;

        assert_int_equal(t->in_flight, 0);
        t->resets++;
}

static inline void toy_save(struct virtio_device *v, void *record)
{
        memcpy(record, &((struct toy *)v)->word, 8);
}

static inline int toy_restore(struct virtio_device *v, const void *record, struct err *err)
{
        uint64_t word;

        memcpy(&word, record, sizeof word);
        if (word > 1000)
                return err_input(err, "toy: a large word");
        ((struct toy *)v)->word = word;
        return 0;
}

static inline void toy_restored(struct virtio_device *v)
{
        ((struct toy *)v)->restored++;
}

static const struct virtio_ops toy_virtio = {
        .name = "toy",
        .device_id = 63,
        .nqueues = TOY_QUEUES,
        .queue_size_max = TOY_SIZE,
        .features = toy_features,
        .config_bytes = TOY_CONFIG,
        .read_config = toy_read_config,
        .write_config = toy_write_config,
        .activate = toy_activate,
        .process = toy_process,
        .reset = toy_reset,
        .record_bytes = 8,
        .save = toy_save,
        .restore = toy_restore,
        .restored = toy_restored,
};

static inline int toy_create(const struct device_env *env, const struct device_params *params,
                             unsigned index, void **dev,
                             struct device_window windows[DEVICE_WINDOWS], unsigned *nwindows,
                             struct err *err)
{
        struct toy *t = calloc(1, sizeof *t);

        assert_non_null(t);
        t->pipe = -1;
        for (unsigned i = 0; i < TOY_CONFIG; i++)
                t->config[i] = (uint8_t)(0xa0 + i);
        *nwindows = 1;
        *dev = t;
        return virtio_init(&t->v, &toy_virtio, env, windows, err);
}

static inline void toy_destroy(void *dev)
{
        struct toy *t = dev;

        loop_io_drain(t->v.env->loop);
        virtio_fini(&t->v);
        free(t);
}

static const struct device_ops toy_ops = {
        .name = "toy",
        .record_version = 1,
        .record_length = sizeof(struct virtio_record) + 8,
        .create = toy_create,
        .destroy = toy_destroy,
        VIRTIO_DEVICE_OPS,
};

static inline struct toy *toy_of(struct vfake *v)
{
        return v->f.dev;
}

/* A chain with these 8 bytes and room for as many; offered. What comes back is at *back. */
static inline uint16_t toy_send(struct vfake *v, unsigned q, const char *text, uint64_t *back)
{
        char data[9] = "";
        struct vbuf b[2];

        strncpy(data, text, 8);
        b[0] = vfake_out(v, data, 8);
        b[1] = vfake_in(v, 8);
        memset(vfake_ptr(v, b[1].gpa), 0, 8);
        if (back)
                *back = b[1].gpa;
        return vfake_add(v, q, b, 2);
}

/* Send, and have it back. */
static inline void toy_check(struct vfake *v, unsigned q)
{
        static unsigned count;
        char text[9];
        uint64_t back;
        uint32_t len = 0;
        uint16_t head;

        snprintf(text, sizeof text, "%08u", ++count % 100000000);
        head = toy_send(v, q, text, &back);
        vfake_kick(v, q);
        assert_int_equal(vfake_wait(v, q, &len), head);
        assert_int_equal(len, 8);
        assert_memory_equal(vfake_ptr(v, back), text, 8);
}

#endif
