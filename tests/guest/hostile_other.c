// SPDX-License-Identifier: Apache-2.0
/* What is particular to the entropy device and the console (virtio 1.2, sections 5.3 and 5.4). */
#include "hostile.h"

#define D(dev) (1u << (dev))
#define NEXT   VRING_DESC_F_NEXT
#define WRITE  VRING_DESC_F_WRITE

/* One buffer of @len bytes, which may be more than the arena has when it is to be read. */
static void huge(struct ctx *c, uint64_t len, uint64_t b)
{
        chain(c, 0);
        c->q.mem->desc[0].len = (uint32_t)len;
        c->may_write = c->kind == TX ? 0 : (uint32_t)len;
        shoot(c, 0);
        if (c->got == COMPLETED && c->len > c->may_write)
                wrong(c, "more was written than there was room");
}

/* So large that it leaves RAM. */
static void beyond(struct ctx *c, uint64_t len, uint64_t b)
{
        chain(c, 0);
        c->q.mem->desc[0].addr = low_end - 4096;
        c->q.mem->desc[0].len = (uint32_t)len;
        shoot(c, 0);
}

static void over_end(struct ctx *c, uint64_t len, uint64_t b)
{
        chain(c, 0);
        c->q.mem->desc[0].addr = (high_end ? high_end : low_end) - len / 2;
        c->q.mem->desc[0].len = (uint32_t)len;
        shoot(c, 0);
}

/* The right one after one of the wrong direction. */
static void mixed(struct ctx *c, uint64_t a, uint64_t b)
{
        desc(c->q.mem->desc, &hdr, 16, NEXT, 1);
        desc(c->q.mem->desc + 1, buf, 64, WRITE, 0);
        c->may_write = 64;
        shoot(c, 0);
}

/* In single bytes. */
static void in_bytes(struct ctx *c, uint64_t a, uint64_t b)
{
        unsigned n = c->q.size;

        for (unsigned i = 0; i < n; i++)
                desc(c->q.mem->desc + i, buf + i, 1, payload_flags(c) | (i + 1 < n ? NEXT : 0),
                     i + 1);
        c->may_write = payload_flags(c) ? n : 0;
        shoot(c, 0);
}

/* Far more requests than anybody needs; each is served, or waits. */
static void flood(struct ctx *c, uint64_t rounds, uint64_t len)
{
        chain(c, 0);
        c->q.mem->desc[0].len = (uint32_t)len;
        c->may_write = payload_flags(c) ? (uint32_t)len : 0;
        for (unsigned round = 0; round < rounds; round++) {
                uint16_t until = (uint16_t)(c->q.avail_idx + c->q.size);

                for (unsigned i = 0; i < c->q.size; i++)
                        offer(c, 0);
                publish(c, c->q.avail_idx);
                for (unsigned ms = 0; c->q.mem->used.idx != until; ms++) {
                        if (ms == 10000) {
                                wrong(c, "not all were served");
                                return;
                        }
                        sleep_ms(1);
                }
                c->q.used_idx = until;
        }
        c->got = WORKS;
}

/* The queue that is not the one of the case is broken: so is the device. */
static void other_queue(struct ctx *c, uint64_t index, uint64_t b)
{
        struct vq other;

        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, c->kind == TX, 0, c->mem) ||
            vq_setup(&other, &c->dev, (unsigned)index, 0, &other_mem))
                return;
        virtio_go(&c->dev);
        desc(other_mem.desc, buf, 16, (index ? 0 : WRITE) | NEXT, 0);
        other_mem.avail.idx = 1;
        vq_notify(&other);
        for (unsigned ms = 0; ms < (index ? ms_for(c) : 200); ms++) {
                if (vdev_status(&c->dev) & VIRTIO_CONFIG_S_NEEDS_RESET) {
                        c->got = c->q.mem->used.idx ? WRONG : REFUSED;
                        return;
                }
                sleep_ms(1);
        }
        c->got = index ? STUCK : IGNORED; /* nobody looks at it before there is input */
}

/* Characters that need no queue. */
static void emergency(struct ctx *c, uint64_t n, uint64_t b)
{
        for (unsigned i = 0; i < n; i++)
                vreg_write(&c->dev, VIRTIO_MMIO_CONFIG + 8, 0);
        if (!good(c, 0))
                c->got = WORKS;
}

const struct hostile_case other_cases[] = {
        {"buffer of 512 KiB", D(RNG) | D(RX) | D(TX), huge, BUF_BYTES, 0, STATUS(OK)},
        /* Their first 4 KiB are RAM; the entropy device never writes more than that. */
        {"buffer of 4 GiB less 1", D(TX), beyond, 0xffffffff, 0, REFUSED},
        {"buffer of 2 GiB", D(TX), beyond, 0x80000000, 0, REFUSED},
        {"buffer of 8 KiB over the end", D(TX), beyond, 8192, 0, REFUSED},
        {"buffer of 4 GiB less 1", D(RNG), beyond, 0xffffffff, 0, STATUS(OK)},
        {"buffer of 2 GiB", D(RNG), beyond, 0x80000000, 0, STATUS(OK)},
        {"buffer of 64 bytes over the end", D(RNG), over_end, 64, 0, REFUSED},
        {"buffer to be read before the right one", D(RNG) | D(RX), mixed, 0, 0, HARMLESS},
        {"buffer to be written behind the right one", D(TX), mixed, 0, 0, HARMLESS},
        {"buffer in single bytes", D(RNG) | D(TX) | D(RX), in_bytes, 0, 0, STATUS(OK)},
        {"full queue, 20 times", D(RNG), flood, 20, 4096, WORKS},
        {"full queue, 20 times", D(TX), flood, 20, 64, WORKS},
        {"full queue of 512 KiB buffers", D(TX), flood, 1, 65536, WORKS},
        {"loop in the other queue", D(TX), other_queue, 0, 0, HARMLESS, 0, 0, 1},
        {"loop in the other queue", D(RX), other_queue, 1, 0, REFUSED, 0, 0, 1},
        {"emergency writes, 100 of them", D(TX), emergency, 100, 0, WORKS},
        {0},
};
