/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entropy device (virtio 1.2, section 5.4): a queue of buffers, which are filled with random
 * bytes from the host's kernel. A buffer longer than CHAIN_BYTES is filled as far as that, which
 * the specification allows, and a turn of the loop fills at most TURN_CHAINS of them.
 *
 * Machines of one past must not draw the same bytes. What is asked for after a fork comes from the
 * host for each clone by itself. What was asked for before is the trouble: Linux's driver always
 * has its next buffer of 64 bytes filled ahead, and when the machine is forked, that lies in guest
 * memory, unread, the same in all clones. So the device remembers the last few buffers that it
 * filled, and what with. A clone (and a machine that is reset to its template) looks at each: when
 * it still holds just these bytes it is filled anew, before the guest runs. The parent keeps what
 * it has.
 *
 * That the bytes are still there tells that the guest has not used the memory for something else,
 * with the certainty of a guess at them; so shorter buffers than KEPT_MIN are not remembered, and
 * are left as they are. The limits of this:
 *
 *   - A guest that uses the buffer in place, as a key say, sees it change in its clones. Drivers
 *     hand out copies; Linux does.
 *   - What the guest has copied already is out of reach: the hwrng core of Linux keeps what is left
 *     of a read, and its input pool is its own business, with the VM generation id to tell it of
 *     the fork (vmgenid.c).
 *   - Of more than KEPT buffers filled and unread the older ones are forgotten, as are those of
 *     several pieces, or longer than KEPT_MAX.
 */
#include <errno.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "devices/registry.h"
#include "devices/virtio/virtio.h"

#define QUEUE_SIZE  64u
#define CHAIN_BYTES 4096u
#define TURN_CHAINS 16u
#define KEPT        4u
#define KEPT_MIN    16u
#define KEPT_MAX    256u

/* A buffer that was filled; len 0: none. */
struct kept {
        uint64_t gpa;
        uint32_t len; /* KEPT_MIN to KEPT_MAX */
        uint32_t reserved;
        uint8_t bytes[KEPT_MAX]; /* zero from len on */
};

struct rng_record {
        uint32_t next;
        uint32_t reserved;
        struct kept kept[KEPT];
};

struct rng {
        struct virtio_device v;
        struct rng_record memory; /* [loop] what is kept, as it is saved */
};

/* 0 or -errno. */
static int draw(uint8_t *buf, size_t len)
{
        while (len > 0) {
                ssize_t n = getrandom(buf, len, 0);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0) {
                        buf += n;
                        len -= (size_t)n;
                }
        }
        return 0;
}

/* A buffer at the same place takes the place of the older one. */
static void keep(struct rng *d, uint64_t gpa, const uint8_t *bytes, uint32_t len)
{
        struct rng_record *m = &d->memory;
        struct kept *to = NULL;

        for (unsigned i = 0; i < KEPT; i++) {
                if (m->kept[i].len > 0 && m->kept[i].gpa == gpa)
                        to = &m->kept[i];
        }
        if (len < KEPT_MIN || len > KEPT_MAX) {
                if (to)
                        *to = (struct kept){0};
                return;
        }
        if (!to) {
                to = &m->kept[m->next];
                m->next = (m->next + 1) % KEPT;
        }
        *to = (struct kept){.gpa = gpa, .len = len};
        memcpy(to->bytes, bytes, len);
}

/* One buffer. 1; 0 when there is none (or the host gives no bytes: then at the next notification);
 * negative, with err, when the driver broke the rules. */
static int serve(struct rng *d, struct err *err)
{
        struct guest_access *mem = d->v.env->mem;
        struct virtq *q = &d->v.queues[0];
        struct virtq_chain chain;
        uint8_t bytes[CHAIN_BYTES];
        uint32_t len;
        int r = virtq_pop(q, mem, &chain, err);

        if (r <= 0)
                return r;
        if (chain.nout > 0)
                return err_host(err, EPROTO, "a buffer that cannot be written");
        len = chain.in_len < CHAIN_BYTES ? (uint32_t)chain.in_len : CHAIN_BYTES;
        if (draw(bytes, len)) {
                virtq_unpop(q);
                return 0;
        }
        if (virtq_write(mem, &chain, 0, bytes, len))
                return err_host(err, EFAULT, "a buffer that is not in RAM");
        if (chain.nin == 1)
                keep(d, chain.seg[0].gpa, bytes, len);
        r = virtq_push(q, mem, chain.head, len, err);
        return r < 0 ? r : 1;
}

static bool rng_process(struct virtio_device *v, unsigned q)
{
        struct err err = {0};
        int r = 1;

        for (unsigned n = 0; n < TURN_CHAINS && r == 1; n++)
                r = serve((struct rng *)v, &err);
        virtio_used(v, q);
        if (r < 0)
                virtio_break(v, err.text);
        return r == 1;
}

/* What the driver had is the guest's to use for something else. */
static void rng_reset(struct virtio_device *v)
{
        struct rng *d = (struct rng *)v;

        d->memory = (struct rng_record){0};
}

/* --- saved state --- */

static void rng_save(struct virtio_device *v, void *record)
{
        struct rng *d = (struct rng *)v;

        memcpy(record, &d->memory, sizeof d->memory);
}

static int check_kept(const struct kept *k, unsigned i, struct err *err)
{
        static const uint8_t zero[KEPT_MAX];

        if (k->len != 0 && (k->len < KEPT_MIN || k->len > KEPT_MAX))
                return err_input(err, "virtio-rng: buffer %u has %u bytes", i, k->len);
        if (k->reserved || (k->len == 0 && k->gpa) ||
            memcmp(k->bytes + k->len, zero, KEPT_MAX - k->len))
                return err_input(err, "virtio-rng: buffer %u has bytes beyond its end", i);
        return 0;
}

static int rng_restore(struct virtio_device *v, const void *record, struct err *err)
{
        struct rng *d = (struct rng *)v;
        struct rng_record r;
        int ret = 0;

        memcpy(&r, record, sizeof r);
        if (r.next >= KEPT || r.reserved)
                return err_input(err, "virtio-rng: buffer %u of %u is next", r.next, KEPT);
        for (unsigned i = 0; i < KEPT && ret == 0; i++)
                ret = check_kept(&r.kept[i], i, err);
        if (ret == 0)
                d->memory = r;
        return ret;
}

/* The buffers that nobody has read yet get other bytes. When the host has none, the guest must not
 * find those that its siblings have either: then it finds zeros. */
static void rng_renew(void *dev)
{
        struct rng *d = dev;

        for (unsigned i = 0; i < KEPT; i++) {
                struct kept *k = &d->memory.kept[i];
                uint8_t now[KEPT_MAX];

                if (k->len == 0 || guest_access_read(d->v.env->mem, k->gpa, now, k->len) ||
                    memcmp(now, k->bytes, k->len)) {
                        *k = (struct kept){0};
                        continue;
                }
                if (draw(k->bytes, k->len))
                        memset(k->bytes, 0, k->len);
                guest_access_write(d->v.env->mem, k->gpa, k->bytes, k->len);
        }
}

/* --- life --- */

static const struct virtio_ops rng_virtio = {
        .name = "virtio-rng",
        .device_id = VIRTIO_ID_RNG,
        .nqueues = 1,
        .queue_size_max = QUEUE_SIZE,
        .process = rng_process,
        .reset = rng_reset,
        .record_bytes = sizeof(struct rng_record),
        .save = rng_save,
        .restore = rng_restore,
};

static int rng_create(const struct device_env *env, const struct device_params *params,
                      unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                      unsigned *nwindows, struct err *err)
{
        struct rng *d;
        int r;

        if (!params->rng)
                return 0;
        d = calloc(1, sizeof *d);
        if (!d)
                return err_host(err, ENOMEM, "virtio-rng: out of memory");
        r = virtio_init(&d->v, &rng_virtio, env, &windows[0], err);
        if (r < 0) {
                free(d);
                return r;
        }
        *nwindows = 1;
        *dev = d;
        return 0;
}

static void rng_destroy(void *dev)
{
        struct rng *d = dev;

        if (!d)
                return;
        virtio_fini(&d->v);
        free(d);
}

static unsigned rng_count(const struct device_params *params)
{
        return params->rng;
}

static const char *const rng_syscalls[] = {"getrandom", NULL};

const struct device_ops rng_ops = {
        .name = "virtio-rng",
        .record_kind = RECORD_DEV_VIRTIO_RNG,
        .record_version = 1,
        .record_length = sizeof(struct virtio_record) + sizeof(struct rng_record),
        .count = rng_count,
        .create = rng_create,
        .destroy = rng_destroy,
        VIRTIO_DEVICE_OPS,
        .renew = rng_renew,
        .syscalls = rng_syscalls,
};
