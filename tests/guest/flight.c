// SPDX-License-Identifier: Apache-2.0
/*
 * A guest with I/O in flight at all times. It keeps "depth=N" (4) requests in the queue of its
 * entropy device and of its disk, whichever it has, and halts until an interrupt comes. It looks at
 * a queue only after that device's interrupt, and no timer helps it: one that is lost stops it. It
 * counts in a report in memory (flight.h) and prints nothing after "flight: report at".
 *
 * It knows what each piece of the disk must hold, and writes or reads and compares at random. What
 * it knows is in its memory, and so is forked with it. Between requests it writes pages, also those
 * that are being read into, so that a clone breaks copy-on-write while its I/O is in flight; a
 * second processor does nothing else.
 */
#include "virtio_driver.h"

#include "flight.h"

#define DEPTH_MAX 16
#define PIECE     4096u         /* bytes of a request to the disk */
#define PIECES    64            /* of each request's own part of it */
#define MARKS     (PIECE / 512) /* words of a piece that are looked at */
#define PAGES     96

static struct flight_report report;
static struct vq_mem rng_mem, blk_mem;
static struct vq rng_q;
static struct vdev rng_dev;
static struct vblk blk;
static unsigned depth;
static uint64_t seed = 1;
static uint8_t pages[2][PAGES][4096] __attribute__((aligned(4096)));

/* What is in flight; [head] says whose answer it is. */
static struct request {
        uint8_t rng[64];
        unsigned rng_len;
        struct vblk_slot slot;
        int write;
        unsigned piece;
        uint64_t data[PIECE / 8] __attribute__((aligned(4096)));
        uint32_t version[PIECES]; /* that the disk has; 0: zeros, it was never written */
} requests[DEPTH_MAX];

static uint8_t rng_owner[VQ_SIZE_MAX], blk_owner[VQ_SIZE_MAX];

static uint64_t draw(uint64_t n)
{
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        return (seed >> 33) % n;
}

/* The first one stays, and the guest stops. */
static void fails(unsigned line, uint64_t got, uint64_t want)
{
        if (!report.error) {
                report.got = got;
                report.want = want;
                report.error = line;
        }
        for (;;) {
                if (in_user())
                        cpu_relax();
                else
                        asm volatile("cli; hlt");
        }
}

#define EXPECT(got, want)                                                                          \
        do {                                                                                       \
                uint64_t got_ = (got), want_ = (want);                                             \
                                                                                                   \
                if (got_ != want_)                                                                 \
                        fails(__LINE__, got_, want_);                                              \
        } while (0)

/* --- entropy --- */

static void rng_ask(unsigned i)
{
        struct request *r = &requests[i];
        struct vbuf buf = {r->rng, r->rng_len = 16 + (unsigned)draw(48)};
        int head;

        __builtin_memset(r->rng, 0, sizeof r->rng);
        head = vq_add(&rng_q, &buf, 0, 1);
        EXPECT(head >= 0, 1);
        rng_owner[head] = (uint8_t)i;
}

/* 16 bytes of random numbers are not all zeros, and nothing is written beyond. */
static unsigned rng_take(void)
{
        uint32_t written;
        unsigned n = 0;
        int head;

        while ((head = vq_get(&rng_q, &written)) >= 0) {
                struct request *r = &requests[rng_owner[head]];
                uint8_t all = 0;

                EXPECT(written, r->rng_len);
                for (unsigned i = 0; i < 16; i++)
                        all |= r->rng[i];
                EXPECT(!all, 0);
                for (unsigned i = r->rng_len; i < sizeof r->rng; i++)
                        EXPECT(r->rng[i], 0);
                report.rng++;
                n++;
                rng_ask(rng_owner[head]);
        }
        return n;
}

static void rng_begin(void)
{
        EXPECT(virtio_begin(&rng_dev, ~0ull), 0);
        EXPECT(vq_setup(&rng_q, &rng_dev, 0, 0, &rng_mem), 0);
        virtio_go(&rng_dev);
        for (unsigned i = 0; i < depth; i++)
                rng_ask(i);
        vq_kick(&rng_q);
}

/* --- disk --- */

static uint64_t mark(unsigned i, unsigned piece, unsigned m, uint32_t version)
{
        return version ? ((uint64_t)version << 32 | i << 24 | piece << 8 | m) *
                                 0x9e3779b97f4a7c15ull
                       : 0;
}

static void blk_ask(unsigned i)
{
        struct request *r = &requests[i];
        struct vbuf bufs[3] = {
                {&r->slot.hdr, sizeof r->slot.hdr}, {r->data, PIECE}, {&r->slot.status, 1}};
        int head;

        r->piece = (unsigned)draw(PIECES);
        r->write = draw(2) != 0;
        r->slot.hdr = (struct virtio_blk_outhdr){
                .type = r->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN,
                .sector = (i * PIECES + r->piece) * (PIECE / 512),
        };
        r->slot.status = 0xff;
        for (unsigned m = 0; m < MARKS && r->write; m++)
                r->data[m * 64] = mark(i, r->piece, m, r->version[r->piece] + 1);
        head = vq_add(&blk.q, bufs, r->write ? 2 : 1, r->write ? 1 : 2);
        EXPECT(head >= 0, 1);
        blk_owner[head] = (uint8_t)i;
}

static unsigned blk_take(void)
{
        uint32_t written;
        unsigned n = 0;
        int head;

        while ((head = vq_get(&blk.q, &written)) >= 0) {
                unsigned i = blk_owner[head];
                struct request *r = &requests[i];

                EXPECT(r->slot.status, VIRTIO_BLK_S_OK);
                EXPECT(written, r->write ? 1 : PIECE + 1);
                r->version[r->piece] += r->write != 0;
                for (unsigned m = 0; m < MARKS && !r->write; m++)
                        EXPECT(r->data[m * 64], mark(i, r->piece, m, r->version[r->piece]));
                report.blk++;
                n++;
                blk_ask(i);
        }
        return n;
}

/* Write to the pages that are being read into: a clone's copy-on-write is broken under them. */
static void scribble(void)
{
        for (unsigned i = 0; i < depth; i++)
                requests[i].data[1]++;
}

/* --- both --- */

static void touch(unsigned cpu, uint64_t n)
{
        volatile uint64_t *word = (volatile uint64_t *)pages[cpu][n % PAGES];

        EXPECT(word[n / PAGES % 8], n / PAGES / 8);
        word[n / PAGES % 8]++;
}

static uint64_t touch_for_ever(void *arg)
{
        for (uint64_t n = 0;; n++) {
                touch(1, n);
                report.touched = n;
                for (unsigned i = 0; i < 2000; i++)
                        cpu_relax();
        }
        return 0;
}

/* Has this device interrupted since it was last looked at? */
static int interrupted(struct vdev *dev, unsigned *seen)
{
        unsigned now = dev->irqs;
        int changed = now != *seen;

        *seen = now;
        return changed;
}

static void fly(unsigned cpu)
{
        unsigned rng_seen = 0, blk_seen = 0;
        uint64_t rounds = 0;

        if (cpu)
                run_user(touch_for_ever, NULL);
        for (;;) {
                unsigned n = 0;

                if (interrupted(&rng_dev, &rng_seen)) {
                        n += rng_take();
                        vq_kick(&rng_q);
                }
                if (interrupted(&blk.dev, &blk_seen)) {
                        n += blk_take();
                        vq_kick(&blk.q);
                        scribble();
                }
                report.interrupts = rng_dev.irqs + blk.dev.irqs;
                if (report.reset && rng_dev.base) {
                        rng_begin();
                        report.resets++;
                        report.reset = 0;
                }
                if (n)
                        touch(0, rounds++);
                else
                        asm volatile("sti; hlt; cli" : : : "memory");
        }
}

void guest_main(void)
{
        depth = (unsigned)cmd_u64("depth", 4);
        if (depth > DEPTH_MAX)
                depth = DEPTH_MAX;
        report.magic = FLIGHT_MAGIC;
        if (virtio_find(&rng_dev, VIRTIO_ID_RNG, 0)) {
                virtio_irq(&rng_dev);
                rng_begin();
        }
        if (vblk_open(&blk, 0, &blk_mem) == 1) {
                virtio_irq(&blk.dev);
                for (unsigned i = 0; i < depth; i++)
                        blk_ask(i);
                vq_kick(&blk.q);
        }
        printf("flight: report at %lx\n", (uint64_t)&report);
        smp_run(fly);
}
