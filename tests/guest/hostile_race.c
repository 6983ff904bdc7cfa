// SPDX-License-Identifier: Apache-2.0
/*
 * Contents that change while the device looks at them: the other processor flips a word between two
 * values as fast as it can, or resets the device, while the first one makes requests. Whatever
 * comes of it is no worse than refused: each time that happens, the device is reset and it goes on.
 */
#include "hostile.h"

#define D(dev)  (1u << (dev))
#define VQS     (D(DISK) | D(RNG) | D(TX))
#define RACE_MS 60
#define REG(r)  VIRTIO_MMIO_##r

/* What the other processor does. */
static struct {
        volatile int go;   /* the first one's */
        volatile int idle; /* the other one's answer */
        volatile uint64_t *word;
        uint64_t values[2];
        unsigned width; /* bytes; 4 and on a register when reset is set */
} race;

static _Noreturn void flip_forever(void)
{
        for (;;) {
                race.idle = 1;
                while (!race.go) /* seldom: when all is over, its machine is to be idle */
                        sleep_ms(10);
                race.idle = 0;
                for (unsigned i = 0; race.go; i++) {
                        uint64_t v = race.values[i & 1];

                        if (race.width == 2)
                                *(volatile uint16_t *)race.word = (uint16_t)v;
                        else if (race.width == 4)
                                *(volatile uint32_t *)race.word = (uint32_t)v;
                        else
                                *race.word = v;
                        for (unsigned n = i % 64; n; n--)
                                cpu_relax();
                }
        }
}

static uint64_t flip(void *arg)
{
        flip_forever();
}

void race_cpu(void)
{
        run_user(flip, NULL);
}

static void begin(volatile void *word, unsigned width, uint64_t a, uint64_t b)
{
        race.word = word;
        race.width = width;
        race.values[0] = a;
        race.values[1] = b;
        race.go = 1;
        while (race.idle)
                cpu_relax();
}

static void end(void)
{
        race.go = 0;
        while (!race.idle)
                sleep_ms(1);
}

enum {
        ADDR,
        LEN,
        FLAGS,
        NEXT_INDEX,
        TABLE_ADDR,
        TABLE_LEN,
        TABLE_FLAGS,
        AVAIL_IDX,
        RING_ENTRY,
        HEADER_TYPE,
        HEADER_SECTOR,
        USED_IDX,
        EVENTS,
        STATUS_REGISTER,
        READY_REGISTER,
        DESC_REGISTER,
        NOTIFY_REGISTER,
};

static void begin_flipping(struct ctx *c, uint64_t what)
{
        struct vring_desc *d = c->q.mem->desc;
        unsigned p = c->kind == DISK;

        switch (what) {
        case ADDR:
                begin(&d[p].addr, 8, (uint64_t)buf, -64ull);
                break;
        case LEN:
                begin(&d[p].len, 4, payload_len(c), 0xffffff00);
                break;
        case FLAGS:
                begin(&d[p].flags, 2, d[p].flags, d[p].flags ^ (VRING_DESC_F_INDIRECT | 3));
                break;
        case NEXT_INDEX:
                begin(&d[0].next, 2, d[0].next, 0xffff);
                break;
        case TABLE_ADDR:
                begin(&d[8].addr, 8, (uint64_t)indirect, low_end - 16);
                break;
        case TABLE_LEN:
                begin(&d[8].len, 4, d[8].len, 0xfffffff0);
                break;
        case TABLE_FLAGS:
                begin(&indirect[p].flags, 2, indirect[p].flags, 7);
                break;
        case AVAIL_IDX:
                begin((volatile void *)&c->q.mem->avail.idx, 2, 1, 0x4000);
                break;
        case RING_ENTRY:
                begin((volatile void *)&c->q.mem->avail.ring[1], 2, 0, 0xffff);
                break;
        case HEADER_TYPE:
                begin(&hdr.type, 4, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_GET_ID);
                break;
        case HEADER_SECTOR:
                begin(&hdr.sector, 8, 7, ~0ull);
                break;
        case USED_IDX:
                begin((volatile void *)&c->q.mem->used.idx, 2, 0x1111, 0x7777);
                break;
        case EVENTS:
                begin((volatile void *)&c->q.mem->avail.ring[c->q.size], 2, 0, 0xffff);
                break;
        case STATUS_REGISTER:
                begin((volatile void *)(c->dev.base + REG(STATUS)), 4, 0, 0xf);
                break;
        case READY_REGISTER:
                begin((volatile void *)(c->dev.base + REG(QUEUE_READY)), 4, 0, 1);
                break;
        case DESC_REGISTER:
                begin((volatile void *)(c->dev.base + REG(QUEUE_DESC_HIGH)), 4, 0, ~0ull);
                break;
        default:
                begin((volatile void *)(c->dev.base + REG(QUEUE_NOTIFY)), 4, c->kind == TX, 9);
        }
}

/* Requests, until the time is over. The queue is never more than full, as far as we know. */
static void flipped(struct ctx *c, uint64_t what, uint64_t b)
{
        unsigned lives = 0, ms = 0, n;

        c->nocheck = 2;
        while (ms < RACE_MS) {
                if (life(c, 0)) { /* it may be reset by the other processor */
                        if (what == STATUS_REGISTER && race.go)
                                goto next;
                        end();
                        wrong(c, "it could not be set up");
                        return;
                }
                lives++;
                chain(c, 0);
                n = chain_in(c, indirect);
                desc(c->q.mem->desc + 8, indirect, n * 16, VRING_DESC_F_INDIRECT, 0);
                if (!race.go)
                        begin_flipping(c, what);
                for (unsigned i = 0; i < 40; i++) {
                        offer(c, i & 1 ? 8 : 0);
                        virtio_mb();
                        if (what != AVAIL_IDX)
                                c->q.mem->avail.idx = c->q.avail_idx;
                        vq_notify(&c->q);
                        if (i % 8 == 7 && vdev_status(&c->dev) & VIRTIO_CONFIG_S_NEEDS_RESET)
                                break;
                }
        next:
                sleep_ms(1);
                ms += 3;
        }
        end();
        c->may_write = BUF_BYTES;
        c->got = HARMLESS;
}

#define RACE(name, what)                                                                           \
        {                                                                                          \
                name, VQS, flipped, what, 0, HARMLESS, 0, 0, 1                                     \
        }
#define RACE_D(name, what)                                                                         \
        {                                                                                          \
                name, D(DISK), flipped, what, 0, HARMLESS, 0, 0, 1                                 \
        }

const struct hostile_case race_cases[] = {
        RACE("address changes", ADDR),
        RACE("length changes", LEN),
        RACE("flags change", FLAGS),
        RACE_D("next changes", NEXT_INDEX),
        RACE("address of the table changes", TABLE_ADDR),
        RACE("length of the table changes", TABLE_LEN),
        RACE("flags in the table change", TABLE_FLAGS),
        RACE("available index changes", AVAIL_IDX),
        RACE("entry of the available ring changes", RING_ENTRY),
        RACE_D("type changes", HEADER_TYPE),
        RACE_D("sector changes", HEADER_SECTOR),
        RACE("used index changes", USED_IDX),
        RACE("event index changes", EVENTS),
        RACE("reset by the other processor", STATUS_REGISTER),
        RACE("QueueReady changes", READY_REGISTER),
        RACE("queue is moved", DESC_REGISTER),
        RACE("notifications from two processors", NOTIFY_REGISTER),
        {0},
};
