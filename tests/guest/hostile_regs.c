// SPDX-License-Identifier: Apache-2.0
/*
 * Registers against the rules (virtio 1.2, sections 2.1, 3.1 and 4.2): how a device is set up, what
 * is written when, and accesses of every width and place.
 */
#include "hostile.h"

#define D(dev) (1u << (dev))
#define VDEVS  (D(DISK) | D(RNG) | D(TX))
#define SETUPS (D(DISK) | D(RNG))
#define ACK    VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define OK     VIRTIO_CONFIG_S_FEATURES_OK
#define GO     VIRTIO_CONFIG_S_DRIVER_OK
#define REG(r) VIRTIO_MMIO_##r
#define OPENED 0x1000 /* bytes of a device's window */

/* --- setting up --- */

static void finish(struct ctx *c) /* the chain, after whatever was done to the queue */
{
        chain(c, 0);
        shoot(c, 0);
}

/* The queue as it should be, but for its size. */
static void size(struct ctx *c, uint64_t entries, uint64_t b)
{
        unsigned index = c->kind == TX;

        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, index, 0, c->mem))
                return;
        vreg_write(&c->dev, REG(QUEUE_READY), 0);
        vq_place(&c->dev, index, (uint32_t)entries, (uint64_t)c->mem->desc,
                 (uint64_t)&c->mem->avail, (uint64_t)&c->mem->used);
        virtio_go(&c->dev);
        finish(c);
}

/* One of the three areas is elsewhere: by an offset, or at an address. */
static void area(struct ctx *c, uint64_t which, uint64_t to)
{
        uint64_t at[3];
        unsigned index = c->kind == TX;

        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, index, 0, c->mem))
                return;
        at[0] = (uint64_t)c->mem->desc;
        at[1] = (uint64_t)&c->mem->avail;
        at[2] = (uint64_t)&c->mem->used;
        if (to == 1) /* behind all RAM */
                at[which] = high_end ? high_end : low_end;
        else if (to == 2) /* over its end */
                at[which] = (high_end ? high_end : low_end) - 32;
        else if (to == 3) /* over the end of low RAM */
                at[which] = low_end - 32;
        else
                at[which] = to < 16 ? at[which] + to - 3 : to;
        vreg_write(&c->dev, REG(QUEUE_READY), 0);
        vq_place(&c->dev, index, c->q.size, at[0], at[1], at[2]);
        virtio_go(&c->dev);
        finish(c);
}

/* All three are one. */
static void overlapping(struct ctx *c, uint64_t a, uint64_t b)
{
        uint64_t at = (uint64_t)c->mem->desc;

        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, 0, 0, c->mem))
                return;
        c->nocheck = 2;
        vreg_write(&c->dev, REG(QUEUE_READY), 0);
        vq_place(&c->dev, 0, c->q.size, at, at, at);
        virtio_go(&c->dev);
        for (unsigned i = 0; i < 64; i++) {
                desc(c->mem->desc + i % 3, c->mem->desc + i, 512, i & 3, i);
                vq_notify(&c->q);
        }
        sleep_ms(5);
        c->got = HARMLESS;
}

static void still_works(struct ctx *c)
{
        if (!good(c, 0))
                c->got = WORKS;
}

/* DRIVER_OK, and no queue is ready; nothing comes of notifications, and setting up works later. */
static void no_queue(struct ctx *c, uint64_t a, uint64_t b)
{
        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, c->kind == TX, 0, c->mem))
                return;
        vreg_write(&c->dev, REG(QUEUE_READY), 0);
        virtio_go(&c->dev);
        chain(c, 0);
        offer(c, 0);
        publish(c, 1);
        sleep_ms(5);
        c->got = WORKS;
        if (c->mem->used.idx)
                wrong(c, "a queue that is not ready was used");
        else if (vdev_status(&c->dev) & VIRTIO_CONFIG_S_NEEDS_RESET)
                c->got = REFUSED;
}

/* Queue registers after QueueReady (@a 0) or after DRIVER_OK (1) change nothing. */
static void moved(struct ctx *c, uint64_t a, uint64_t ready)
{
        unsigned index = c->kind == TX;

        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, index, 0, c->mem))
                return;
        if (a)
                virtio_go(&c->dev);
        if (ready)
                vreg_write(&c->dev, REG(QUEUE_READY), 0);
        vq_place(&c->dev, index, 4, 0xfffffffffffffff1, 3, 0xd0000000);
        if (!a)
                virtio_go(&c->dev);
        still_works(c);
}

static void toggled(struct ctx *c, uint64_t a, uint64_t b)
{
        vreg_write(&c->dev, REG(QUEUE_SEL), c->kind == TX);
        for (unsigned i = 0; i < 20; i++) {
                chain(c, 0);
                offer(c, 0);
                publish(c, c->q.avail_idx);
                vreg_write(&c->dev, REG(QUEUE_READY), i & 1);
                settle(c);
                if (c->got != COMPLETED)
                        return;
        }
        still_works(c);
}

/* --- features and status --- */

static void features(struct ctx *c, uint64_t set, uint64_t clear)
{
        uint64_t f;

        vreg_write(&c->dev, REG(STATUS), ACK);
        vreg_write(&c->dev, REG(STATUS), ACK | DRIVER);
        f = (virtio_offered(&c->dev) | set) & ~clear;
        vreg_write(&c->dev, REG(DRIVER_FEATURES_SEL), 0);
        vreg_write(&c->dev, REG(DRIVER_FEATURES), (uint32_t)f);
        vreg_write(&c->dev, REG(DRIVER_FEATURES_SEL), 1);
        vreg_write(&c->dev, REG(DRIVER_FEATURES), (uint32_t)(f >> 32));
        vreg_write(&c->dev, REG(STATUS), ACK | DRIVER | OK);
        c->got = vdev_status(&c->dev) & OK ? WORKS : DISAGREED;
}

/* Selectors that mean nothing: their features are none, and cannot be had. */
static void selectors(struct ctx *c, uint64_t sel, uint64_t b)
{
        uint32_t offered;

        vreg_write(&c->dev, REG(STATUS), ACK);
        vreg_write(&c->dev, REG(STATUS), ACK | DRIVER);
        vreg_write(&c->dev, REG(DEVICE_FEATURES_SEL), (uint32_t)sel);
        offered = vreg(&c->dev, REG(DEVICE_FEATURES));
        vreg_write(&c->dev, REG(DRIVER_FEATURES_SEL), (uint32_t)sel);
        vreg_write(&c->dev, REG(DRIVER_FEATURES), 0xffffffff);
        c->got = WORKS;
        if (offered)
                wrong(c, "features that nobody knows are offered");
}

static void write_features(struct ctx *c, uint64_t value)
{
        for (uint32_t sel = 0; sel < 3; sel++) {
                vreg_write(&c->dev, REG(DRIVER_FEATURES_SEL), sel);
                vreg_write(&c->dev, REG(DRIVER_FEATURES), (uint32_t)value);
        }
}

/* What was agreed upon cannot be taken back, before DRIVER_OK (@early) or after it: indirect tables
 * still work. */
static void features_later(struct ctx *c, uint64_t value, uint64_t early)
{
        unsigned n;

        if (early) {
                if (virtio_begin(&c->dev, ~0ull) ||
                    vq_setup(&c->q, &c->dev, c->kind == TX, 0, c->mem))
                        return;
                write_features(c, value);
                virtio_go(&c->dev);
        } else {
                write_features(c, value);
                vreg_write(&c->dev, REG(STATUS), ACK | DRIVER | OK | GO);
        }
        n = chain_in(c, indirect);
        desc(c->q.mem->desc, indirect, n * 16, VRING_DESC_F_INDIRECT, 0);
        shoot(c, 0);
}

/* Status bytes written one after the other, the lowest byte of @list first. Must the device have
 * begun then? */
static void statuses(struct ctx *c, uint64_t list, uint64_t begun)
{
        uint64_t f = virtio_offered(&c->dev);

        c->dev.features = 0;
        vreg_write(&c->dev, REG(DRIVER_FEATURES_SEL), 0);
        vreg_write(&c->dev, REG(DRIVER_FEATURES), (uint32_t)f);
        vreg_write(&c->dev, REG(DRIVER_FEATURES_SEL), 1);
        vreg_write(&c->dev, REG(DRIVER_FEATURES), (uint32_t)(f >> 32));
        vq_setup(&c->q, &c->dev, c->kind == TX, 0, c->mem);
        for (; list; list >>= 8)
                vreg_write(&c->dev, REG(STATUS), list & 0xff);
        chain(c, 0);
        offer(c, 0);
        publish(c, 1);
        for (unsigned ms = 0; ms < (begun ? 5000 : 10) && !c->mem->used.idx; ms++)
                sleep_ms(1);
        c->got = WORKS;
        if (!!c->mem->used.idx != !!begun)
                wrong(c, begun ? "it did not begin" : "it began too early");
}

/* Bits that a driver adds or takes away while the device works. */
static void status_later(struct ctx *c, uint64_t status, uint64_t b)
{
        vreg_write(&c->dev, REG(STATUS), (uint32_t)status);
        still_works(c);
}

/* --- reset --- */

static void reset_twice(struct ctx *c, uint64_t n, uint64_t b)
{
        for (unsigned i = 0; i < n; i++) {
                vreg_write(&c->dev, REG(STATUS), 0);
                if (vdev_status(&c->dev) || vreg(&c->dev, REG(INTERRUPT_STATUS))) {
                        wrong(c, "status or interrupts after a reset");
                        return;
                }
                vreg_write(&c->dev, REG(QUEUE_SEL), 0);
                if (vreg(&c->dev, REG(QUEUE_READY))) {
                        wrong(c, "a queue is ready after a reset");
                        return;
                }
        }
        c->got = WORKS;
}

static struct virtio_blk_outhdr hdrs[32];

/* With requests under way; afterwards nothing may be written. */
static void reset_amidst(struct ctx *c, uint64_t rounds, uint64_t b)
{
        for (unsigned round = 0; round < rounds; round++) {
                unsigned n = c->q.size / 4 < 32 ? c->q.size / 4 : 32,
                         step = c->kind == DISK ? 3 : 1;

                if (life(c, 0)) {
                        wrong(c, "it could not be set up");
                        return;
                }
                for (unsigned i = 0; i < n; i++) {
                        unsigned p = chain(c, i * step);

                        c->q.mem->desc[p].addr = (uint64_t)buf + i * 4096;
                        c->q.mem->desc[p].len = c->kind == TX ? 64 : 4096;
                        if (p != i) { /* a header each, and data that were not read before */
                                hdrs[i] = hdr;
                                hdrs[i].sector = (round * 32 + i) * 48;
                                c->q.mem->desc[i * step].addr = (uint64_t)&hdrs[i];
                        }
                        offer(c, i * step);
                }
                publish(c, c->q.avail_idx);
                for (unsigned i = 0; i < round % 8 * 100; i++)
                        cpu_relax();
                virtio_reset(&c->dev);
                __builtin_memset(buf, c->kind == TX ? 0 : 0x5a, BUF_BYTES);
                c->mem->used.idx = 0x1234;
                c->may_write = 0;
                status_byte = 0x77;
                sleep_ms(2);
                if (c->mem->used.idx != 0x1234 || status_byte != 0x77) {
                        wrong(c, "the used ring or status was written after the reset");
                        return;
                }
                for (unsigned i = 0; i < n * 4096 && c->kind != TX; i++)
                        if (buf[i] != 0x5a) {
                                wrong(c, "a buffer was written after the reset");
                                return;
                        }
        }
        c->got = WORKS;
}

/* --- notifications, interrupts --- */

static void notify(struct ctx *c, uint64_t value, uint64_t times)
{
        for (unsigned i = 0; i <= times; i++)
                vreg_write(&c->dev, REG(QUEUE_NOTIFY), (uint32_t)value);
        still_works(c);
}

static void notify_width(struct ctx *c, uint64_t width, uint64_t offset)
{
        uint64_t at = c->dev.base + REG(QUEUE_NOTIFY) + offset;

        if (width == 1)
                *(volatile uint8_t *)at = 0;
        else if (width == 2)
                *(volatile uint16_t *)at = 0;
        else if (width == 4)
                *(volatile uint32_t *)at = 0;
        else
                *(volatile uint64_t *)at = 0;
        still_works(c);
}

static void notify_early(struct ctx *c, uint64_t a, uint64_t b)
{
        for (unsigned i = 0; i < 10; i++)
                vreg_write(&c->dev, REG(QUEUE_NOTIFY), i);
        c->got = life(c, 0) || good(c, 0) ? STUCK : WORKS;
}

static void acks(struct ctx *c, uint64_t value, uint64_t b)
{
        vreg_write(&c->dev, REG(INTERRUPT_ACK), (uint32_t)value);
        if (vreg(&c->dev, REG(INTERRUPT_STATUS)) & value)
                wrong(c, "bits that were acknowledged are set");
        else
                still_works(c);
}

/* --- accesses of every width and place, at CPL 0, where they are cheaper --- */

struct sweep {
        uint64_t base, from, to, value;
        unsigned width, write, leave_status;
};

static uint64_t sweep_at_0(void *arg)
{
        const struct sweep *s = arg;

        for (uint64_t at = s->base + s->from; at < s->base + s->to; at++) {
                uint64_t offset = at - s->base;

                if (s->write && s->leave_status && s->width == 4 && offset == REG(STATUS))
                        continue;
                if (s->width == 1)
                        s->write ? (void)(*(volatile uint8_t *)at = (uint8_t)s->value)
                                 : (void)*(volatile uint8_t *)at;
                else if (s->width == 2)
                        s->write ? (void)(*(volatile uint16_t *)at = (uint16_t)s->value)
                                 : (void)*(volatile uint16_t *)at;
                else if (s->width == 4)
                        s->write ? (void)(*(volatile uint32_t *)at = (uint32_t)s->value)
                                 : (void)*(volatile uint32_t *)at;
                else
                        s->write ? (void)(*(volatile uint64_t *)at = s->value)
                                 : (void)*(volatile uint64_t *)at;
        }
        return 0;
}

static void sweep(struct ctx *c, uint64_t width, uint64_t write)
{
        struct sweep s = {c->dev.base,     0,          0x200, write == 2 ? ~0ull : 0,
                          (unsigned)width, write != 0, 1};

        call_kernel(sweep_at_0, &s);
        s.from = OPENED - 16; /* up to the end of the window, but not beyond */
        s.to = OPENED - width + 1;
        call_kernel(sweep_at_0, &s);
        still_works(c);
}

/* Over the end of the window, into the next device's. */
static void straddle(struct ctx *c, uint64_t width, uint64_t write)
{
        struct sweep s = {c->dev.base,     OPENED - width + 1, OPENED, 0,
                          (unsigned)width, write != 0,         1};

        call_kernel(sweep_at_0, &s);
        still_works(c);
}

/* Registers for writing read as 0, and those for reading are not changed by being written. */
static void identity(struct ctx *c, uint64_t a, uint64_t b)
{
        static const unsigned fixed[] = {REG(MAGIC_VALUE),   REG(VERSION),
                                         REG(DEVICE_ID),     REG(VENDOR_ID),
                                         REG(QUEUE_NUM_MAX), REG(CONFIG_GENERATION)};

        for (unsigned i = 0; i < sizeof fixed / sizeof *fixed; i++) {
                uint32_t before = vreg(&c->dev, fixed[i]);

                vreg_write(&c->dev, fixed[i], ~before);
                if (vreg(&c->dev, fixed[i]) != before)
                        wrong(c, "a register for reading was changed");
        }
        if (c->got != WRONG)
                still_works(c);
}

#define SWEEPS(w)                                                                                  \
        {"reads of " #w " bytes everywhere", VDEVS, sweep, w, 0, WORKS},                           \
                {"writes of " #w " bytes of 0 everywhere", VDEVS, sweep, w, 1, WORKS},             \
        {                                                                                          \
                "writes of " #w " bytes of ones everywhere", VDEVS, sweep, w, 2, WORKS             \
        }

const struct hostile_case register_cases[] = {
        {"queue of no entries", SETUPS, size, 0, 0, REFUSED, 0, 0, 1},
        {"queue of 3 entries", SETUPS, size, 3, 0, REFUSED, 0, 0, 1},
        {"queue of 257 entries", SETUPS, size, 257, 0, REFUSED, 0, 0, 1},
        {"queue of 512 entries", SETUPS, size, 512, 0, REFUSED, 0, 0, 1},
        {"queue of 65535 entries", SETUPS, size, 65535, 0, REFUSED, 0, 0, 1},
        {"queue of 65536 entries", SETUPS, size, 65536, 0, REFUSED, 0, 0, 1},
        {"queue of 2^32 - 1 entries", SETUPS, size, 0xffffffff, 0, REFUSED, 0, 0, 1},
        {"table misaligned by 8", SETUPS, area, 0, 11, REFUSED, 0, 0, 1},
        {"available ring misaligned by 1", SETUPS, area, 1, 4, REFUSED, 0, 0, 1},
        {"used ring misaligned by 2", SETUPS, area, 2, 5, REFUSED, 0, 0, 1},
        {"table behind RAM", SETUPS, area, 0, 1, REFUSED, 0, 0, 1},
        {"available ring behind RAM", SETUPS, area, 1, 1, REFUSED, 0, 0, 1},
        {"used ring behind RAM", SETUPS, area, 2, 1, REFUSED, 0, 0, 1},
        {"table over the end of RAM", SETUPS, area, 0, 2, REFUSED, 0, 0, 1},
        {"available ring over the end of RAM", SETUPS, area, 1, 2, REFUSED, 0, 0, 1},
        {"used ring over the end of RAM", SETUPS, area, 2, 2, REFUSED, 0, 0, 1},
        {"used ring over the end of low RAM", SETUPS, area, 2, 3, REFUSED, 0, 0, 1},
        {"table on the doorbell", SETUPS, area, 0, LAYOUT_DOORBELL, REFUSED, 0, 0, 1},
        {"used ring on the doorbell", SETUPS, area, 2, LAYOUT_DOORBELL, REFUSED, 0, 0, 1},
        {"table that wraps", SETUPS, area, 0, -32ull, REFUSED, 0, 0, 1},
        {"available ring that wraps", SETUPS, area, 1, -32ull, REFUSED, 0, 0, 1},
        {"used ring that wraps", SETUPS, area, 2, -32ull, REFUSED, 0, 0, 1},
        {"table and rings in one place", SETUPS, overlapping, 0, 0, HARMLESS, 0, 0, 1},
        {"no queue is ready", VDEVS, no_queue, 0, 0, WORKS, 0, 0, 1},
        {"queue moved after QueueReady", VDEVS, moved, 0, 0, WORKS, 0, 0, 1},
        {"queue moved after DRIVER_OK", VDEVS, moved, 1, 0, WORKS, 0, 0, 1},
        {"queue taken back and moved after DRIVER_OK", VDEVS, moved, 1, 1, WORKS, 0, 0, 1},
        {"QueueReady to and fro during I/O", VDEVS, toggled, 0, 0, WORKS},
        {"a feature that is not offered", VDEVS, features, 1ull << 50, 0, DISAGREED, 0, 0, 1},
        {"all features there are", VDEVS, features, ~0ull, 0, DISAGREED, 0, 0, 1},
        {"no VERSION_1", VDEVS, features, 0, 1ull << 32, DISAGREED, 0, 0, 1},
        {"no features", VDEVS, features, 0, ~0ull, DISAGREED, 0, 0, 1},
        {"feature selector 2", SETUPS, selectors, 2, 0, WORKS, 0, 0, 1},
        {"feature selector 2^32 - 1", SETUPS, selectors, 0xffffffff, 0, WORKS, 0, 0, 1},
        {"features taken back after FEATURES_OK", VDEVS, features_later, 0, 1, STATUS(OK), 0, 1},
        {"features added after FEATURES_OK", VDEVS, features_later, ~0ull, 1, STATUS(OK), 0, 1},
        {"features taken back after DRIVER_OK", VDEVS, features_later, 0, 0, STATUS(OK)},
        {"features added after DRIVER_OK", VDEVS, features_later, ~0ull, 0, STATUS(OK)},
        {"DRIVER_OK alone", VDEVS, statuses, GO, 0, WORKS, 0, 0, 1},
        {"DRIVER_OK without FEATURES_OK", VDEVS, statuses, 0x070301, 0, WORKS, 0, 0, 1},
        {"FEATURES_OK alone", VDEVS, statuses, OK, 0, WORKS, 0, 0, 1},
        {"all status bits at once", VDEVS, statuses, 0x0f, 1, WORKS, 0, 0, 1},
        {"NEEDS_RESET set by the driver", VDEVS, status_later, 0x4f, 0, WORKS},
        {"unknown status bits", VDEVS, status_later, 0xffffff3f, 0, WORKS},
        {"status bits taken away", VDEVS, status_later, ACK, 0, WORKS},
        {"reset many times", VDEVS, reset_twice, 20, 0, WORKS},
        {"reset during I/O, 40 times", D(DISK) | D(RNG) | D(TX), reset_amidst, 40, 0, WORKS},
        {"notify of queue 1", SETUPS, notify, 1, 0, WORKS},
        {"notify of queue 2", VDEVS, notify, 2, 0, WORKS},
        {"notify of queue 8", VDEVS, notify, 8, 0, WORKS},
        {"notify of queue 65535", VDEVS, notify, 65535, 0, WORKS},
        {"notify of queue 2^32 - 1", VDEVS, notify, 0xffffffff, 0, WORKS},
        {"notify of the queue, empty, 300 times", VDEVS, notify, 0, 300, WORKS},
        {"notify by 1 byte", VDEVS, notify_width, 1, 0, WORKS},
        {"notify by 2 bytes", VDEVS, notify_width, 2, 0, WORKS},
        {"notify by 8 bytes", VDEVS, notify_width, 8, 0, WORKS},
        {"notify by 4 bytes, misaligned", VDEVS, notify_width, 4, 2, WORKS},
        {"notify before DRIVER_OK", VDEVS, notify_early, 0, 0, WORKS, 0, 0, 1},
        {"acknowledge what is not set", VDEVS, acks, 3, 0, WORKS},
        {"acknowledge all bits", VDEVS, acks, 0xffffffff, 0, WORKS},
        SWEEPS(1),
        SWEEPS(2),
        SWEEPS(4),
        SWEEPS(8),
        {"reads over the end of the window", VDEVS, straddle, 8, 0, WORKS},
        {"writes over the end of the window", VDEVS, straddle, 8, 1, WORKS},
        {"registers for reading are written", VDEVS, identity, 0, 0, WORKS},
        {0},
};
