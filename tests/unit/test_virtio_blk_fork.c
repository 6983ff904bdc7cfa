/* SPDX-License-Identifier: Apache-2.0 */
/* The block device through quiesce, freeze, restore and reset: what is in flight is finished, what
 * is in the queue is done once by each, disks of clones diverge, limits go along. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "blk_fake.h"

#define OK    VIRTIO_BLK_S_OK
#define IOERR VIRTIO_BLK_S_IOERR

static const struct framing indirect = {"indirect", 0, 0, true};

/* --- forks --- */

struct frozen {
        uint8_t *record;
        struct device_files files; /* duplicates */
};

/* What a machine does for a freeze; the parent goes on. */
static void freeze(struct bfake *b, struct frozen *z)
{
        const struct device_ops *ops = b->v.f.ops;
        struct err err = {0};

        z->record = calloc(1, ops->record_length);
        z->files.n = 0;
        ops->quiesce(b->v.f.dev);
        assert_int_equal(ops->freeze_prepare(b->v.f.dev, &err), 0);
        ops->save(b->v.f.dev, z->record);
        ops->freeze(b->v.f.dev);
        assert_int_equal(ops->freeze_publish(b->v.f.dev, &z->files, &err), 0);
        for (unsigned i = 0; i < z->files.n; i++)
                z->files.fds[i] = dup(z->files.fds[i]);
}

static void thaw(struct bfake *b)
{
        b->v.f.ops->resume(b->v.f.dev);
}

static int try_restore(struct bfake *b, const struct frozen *z, struct err *err)
{
        const struct device_ops *ops = b->v.f.ops;
        int r = ops->restore_files(b->v.f.dev, z->files.fds, z->files.n, err);

        return r < 0 ? r : ops->restore(b->v.f.dev, z->record, ops->record_version, err);
}

/* The guest's memory and what its driver knows; the device comes from @z. */
static void become(struct bfake *clone, const struct bfake *parent, const struct frozen *z)
{
        struct err err = {0};

        for (unsigned i = 0; i < clone->v.f.mem.nregions; i++)
                memcpy(clone->v.f.mem.regions[i].hva, parent->v.f.mem.regions[i].hva,
                       clone->v.f.mem.regions[i].size);
        clone->v.features = parent->v.features;
        memcpy(clone->v.q, parent->v.q, sizeof clone->v.q);
        clone->v.top = parent->v.top;
        memcpy(clone->model, parent->model, BLK_SECTORS * 512);
        if (try_restore(clone, z, &err) < 0)
                fail_msg("%s", err.text);
}

static void spawn(struct bfake *clone, const struct bfake *parent, const struct frozen *z)
{
        bfake_machine(clone, false);
        bfake_create(clone);
        become(clone, parent, z);
}

static void frozen_fini(struct frozen *z)
{
        for (unsigned i = 0; i < z->files.n; i++)
                close(z->files.fds[i]);
        free(z->record);
}

static void scribble(struct bfake *b, uint32_t seed)
{
        uint8_t *data = bfake_contents(65536, seed);

        for (unsigned i = 0; i < 12; i++) {
                uint64_t sector = (seed * 31 + i * 167) % (BLK_SECTORS - 128);

                assert_int_equal(bfake_write(b, sector, data + i * 512, 512 * (1 + i * 9)), OK);
                assert_int_equal(
                        bfake_zero(b, i % 2 ? VIRTIO_BLK_T_DISCARD : VIRTIO_BLK_T_WRITE_ZEROES,
                                   (sector + 400) % (BLK_SECTORS - 64), 1 + i * 3, 0),
                        OK);
        }
        free(data);
}

/* Discards on an image may leave what was there: a discarded sector says nothing. Here all files
 * can forget, so the model is exact. */
static void clones_diverge(void **state)
{
        struct bfake parent, a, b, c;
        struct frozen z, y;
        uint8_t *image = malloc(BLK_SECTORS * 512), *now = malloc(BLK_SECTORS * 512);

        bfake_init(&parent);
        scribble(&parent, 1);
        freeze(&parent, &z);
        spawn(&a, &parent, &z);
        spawn(&b, &parent, &z);
        assert_int_equal(pread(parent.image, image, BLK_SECTORS * 512, 0), BLK_SECTORS * 512);
        assert_memory_equal(image, parent.model, BLK_SECTORS * 512); /* before the fork */
        thaw(&parent);
        thaw(&a);
        thaw(&b);
        bfake_check(&parent);
        bfake_check(&a);
        bfake_check(&b);
        scribble(&parent, 2);
        scribble(&a, 3);
        scribble(&b, 4);
        bfake_check(&parent);
        bfake_check(&a);
        bfake_check(&b);

        /* a clone of a clone, and the clone goes on */
        freeze(&a, &y);
        spawn(&c, &a, &y);
        thaw(&a);
        thaw(&c);
        scribble(&c, 5);
        scribble(&a, 6);
        bfake_check(&c);
        bfake_check(&a);
        bfake_check(&b);
        bfake_check(&parent);

        /* and the image is as it was at the fork */
        assert_int_equal(pread(parent.image, now, BLK_SECTORS * 512, 0), BLK_SECTORS * 512);
        assert_memory_equal(now, image, BLK_SECTORS * 512);
        bfake_fini(&a);
        bfake_fini(&b);
        bfake_fini(&c);
        bfake_fini(&parent);
        frozen_fini(&z);
        frozen_fini(&y);
        free(image);
        free(now);
}

/* Back to its template in place: with requests in the queue, and a disk that was written. */
static void reset_to_template(void **state)
{
        struct bfake parent, clone;
        struct frozen z;
        struct breq r[8];

        bfake_init(&parent);
        scribble(&parent, 1);
        freeze(&parent, &z);
        spawn(&clone, &parent, &z);
        thaw(&clone);
        for (unsigned round = 0; round < 3; round++) {
                scribble(&clone, 10 + round);
                bfake_check(&clone);
                for (unsigned i = 0; i < 8; i++) {
                        bfake_make(&clone, &r[i], VIRTIO_BLK_T_IN, i, NULL, 0, 512);
                        bfake_offer(&clone, &r[i], &indirect);
                }
                clone.v.f.ops->quiesce(clone.v.f.dev);
                become(&clone, &parent, &z);
                thaw(&clone);
                bfake_check(&clone);
        }
        bfake_fini(&clone);
        bfake_fini(&parent);
        frozen_fini(&z);
}

/* Requests that are offered while the device is quiet are in the queue of the parent and of the
 * clone, and done once by each. */
static void offered_at_the_barrier(void **state)
{
        uint8_t *data = bfake_contents(4096, 8);
        struct bfake parent, clone;
        struct breq r[16];
        struct frozen z;

        bfake_init(&parent);
        parent.v.f.ops->quiesce(parent.v.f.dev);
        for (unsigned i = 0; i < 16; i++) {
                bfake_make(&parent, &r[i], i % 2 ? VIRTIO_BLK_T_IN : VIRTIO_BLK_T_OUT,
                           100 + i / 2 * 8, data, i % 2 ? 0 : 4096, i % 2 ? 4096 : 0);
                bfake_offer(&parent, &r[i], &indirect);
        }
        vfake_kick(&parent.v, 0);
        assert_int_equal(vfake_used(&parent.v, 0, NULL), -1); /* quiet */
        freeze(&parent, &z);
        spawn(&clone, &parent, &z);
        thaw(&parent);
        thaw(&clone);
        for (struct bfake *b = &parent; b; b = b == &parent ? &clone : NULL) {
                for (unsigned i = 0; i < 16; i++)
                        assert_true(vfake_wait(&b->v, 0, NULL) >= 0);
                assert_int_equal(vfake_used(&b->v, 0, NULL), -1);
                for (unsigned i = 0; i < 16; i++)
                        assert_int_equal(bfake_status(b, &r[i]), OK);
                for (unsigned i = 0; i < 8; i++)
                        memcpy(b->model + (100 + i * 8) * 512, data, 4096);
                bfake_check(b);
        }
        bfake_fini(&clone);
        bfake_fini(&parent);
        frozen_fini(&z);
        free(data);
}

/* A clone's driver has been told that the disk is read-only before the clone had one. */
static void readonly_disk(void **state)
{
        uint8_t data[512] = {0};
        struct bfake parent, clone;
        struct err err = {0};
        struct frozen z;

        bfake_machine(&parent, true);
        parent.disk.readonly = true;
        bfake_create(&parent);
        vfake_start(&parent.v, VFAKE_ALL, BLK_QUEUE);
        assert_true(parent.v.features & 1u << VIRTIO_BLK_F_RO);
        freeze(&parent, &z);
        thaw(&parent);
        spawn(&clone, &parent, &z);
        thaw(&clone);
        assert_true(vfake_offered(&clone.v) & 1u << VIRTIO_BLK_F_RO);
        assert_int_equal(bfake_write(&clone, 0, data, 512), IOERR);
        bfake_check(&clone);
        bfake_fini(&clone);

        /* and it cannot have taken what such a disk does not offer */
        bfake_machine(&clone, false);
        bfake_create(&clone);
        ((struct virtio_record *)(void *)z.record)->driver_features |= 1u << VIRTIO_BLK_F_DISCARD;
        assert_int_equal(try_restore(&clone, &z, &err), -EINVAL);
        bfake_fini(&clone);
        bfake_fini(&parent);
        frozen_fini(&z);
}

static void cancelled(void **state)
{
        const struct device_ops *ops = &virtio_blk_ops;
        struct err err = {0};
        struct bfake b;
        struct frozen z;

        bfake_init(&b);
        scribble(&b, 1);
        ops->quiesce(b.v.f.dev);
        assert_int_equal(ops->freeze_prepare(b.v.f.dev, &err), 0);
        ops->freeze_cancel(b.v.f.dev);
        ops->resume(b.v.f.dev);
        scribble(&b, 2);
        bfake_check(&b);
        freeze(&b, &z); /* and another one does */
        thaw(&b);
        scribble(&b, 3);
        bfake_check(&b);
        bfake_fini(&b);
        frozen_fini(&z);
}

/* --- in flight --- */

static void start_some(struct bfake *b, struct breq *r, unsigned n)
{
        b->v.top = VFAKE_RAM_BEGIN + 0x10000;
        for (unsigned i = 0; i < n; i++) {
                bfake_make(b, &r[i], VIRTIO_BLK_T_IN, i * 8, NULL, 0, 4096);
                bfake_offer(b, &r[i], &indirect);
        }
        vfake_write(&b->v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        /* until some are taken, and not until all are done */
        while (vfake_device(&b->v)->queues[0].pops == vfake_device(&b->v)->queues[0].pushes)
                assert_int_equal(loop_step(b->v.f.env.loop, 1000000000), 0);
}

static void quiesce_in_flight(void **state)
{
        struct breq r[100];
        struct bfake b;

        bfake_init(&b);
        for (unsigned round = 0; round < 20; round++) {
                struct virtq *q = &vfake_device(&b.v)->queues[0];
                uint64_t taken;

                start_some(&b, r, 100);
                taken = q->pops;
                assert_true(q->outstanding > 0);
                b.v.f.ops->quiesce(b.v.f.dev);
                b.v.f.ops->quiesce(b.v.f.dev); /* idempotent */
                assert_int_equal(q->outstanding, 0);
                assert_int_equal(q->pushes, taken);
                assert_int_equal(q->pops, taken);
                assert_int_equal(b.v.f.access.lent, 0);
                vfake_run(&b.v);
                assert_int_equal(q->pops, taken); /* and nothing is begun */
                b.v.f.ops->resume(b.v.f.dev);
                for (unsigned i = 0; i < 100; i++)
                        assert_true(vfake_wait(&b.v, 0, NULL) >= 0);
                for (unsigned i = 0; i < 100; i++)
                        assert_memory_equal(vfake_ptr(&b.v, r[i].in), b.model + i * 4096, 4096);
        }
        bfake_fini(&b);
}

/* The driver's reset, and then its memory is its own: nothing is written there any more. */
static void reset_in_flight(void **state)
{
        struct breq r[100];
        struct bfake b;

        bfake_init(&b);
        for (unsigned round = 0; round < 20; round++) {
                uint64_t features = b.v.features;
                uint8_t *p;

                start_some(&b, r, 100);
                vfake_write(&b.v, VIRTIO_MMIO_STATUS, 0);
                assert_int_equal(atomic_load(&b.v.f.held), 1); /* until the loop has seen to it */
                vfake_run(&b.v);
                assert_int_equal(atomic_load(&b.v.f.held), 0);
                assert_int_equal(vfake_status(&b.v), 0);
                assert_int_equal(b.v.f.access.lent, 0);
                p = vfake_ptr(&b.v, VFAKE_RAM_BEGIN);
                memset(p, 0x77, VFAKE_RAM_END - VFAKE_RAM_BEGIN);
                for (int i = 0; i < 3; i++)
                        loop_step(b.v.f.env.loop, 1000000);
                for (uint64_t i = 0; i < VFAKE_RAM_END - VFAKE_RAM_BEGIN; i++)
                        assert_int_equal(p[i], 0x77);
                vfake_start(&b.v, features, BLK_QUEUE);
                assert_int_equal(vfake_used(&b.v, 0, NULL), -1);
                assert_int_equal(bfake_flush(&b), OK);
        }
        bfake_check(&b);
        bfake_fini(&b);
}

static void destroyed_in_flight(void **state)
{
        struct breq r[100];
        struct bfake b;

        bfake_init(&b);
        start_some(&b, r, 100);
        bfake_fini(&b);
}

static void with_threads(void **state)
{
        blk_use_uring = false;
        clones_diverge(state);
        reset_to_template(state);
        offered_at_the_barrier(state);
        quiesce_in_flight(state);
        reset_in_flight(state);
        destroyed_in_flight(state);
        blk_use_uring = true;
}

/* --- limits --- */

static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void reads(struct bfake *b, unsigned n, uint32_t bytes)
{
        uint8_t *data = malloc(bytes);

        for (unsigned i = 0; i < n; i++)
                assert_int_equal(bfake_read(b, 0, data, bytes), OK);
        free(data);
}

/* A busy host slows down what is within the limit, and the disk makes up for that later. So times
 * are those since the limit was untouched. */

static void limited(struct bfake *b, uint64_t iops, uint64_t bandwidth)
{
        bfake_machine(b, true);
        b->disk.iops_max = iops;
        b->disk.bandwidth_max = bandwidth;
        bfake_create(b);
        vfake_start(&b->v, VFAKE_ALL, BLK_QUEUE);
}

static void limit_of_requests(void **state)
{
        struct bfake b;
        uint64_t begin = now_ms();

        limited(&b, 50, 0);
        reads(&b, 62, 512); /* what a second brings is there */
        assert_true(now_ms() - begin >= 200);
        bfake_fini(&b);
}

static void limit_of_bytes(void **state)
{
        struct bfake b;
        uint64_t begin = now_ms();

        limited(&b, 0, 4 << 20);
        reads(&b, 7, 1 << 20); /* a second's, one that makes a debt, and two */
        assert_true(now_ms() - begin >= 400);
        bfake_fini(&b);
}

/* Held back, the requests stay in the queue: across a freeze, too. A clone has the limits of its
 * parent, and what is used up of them. */
static void limits_in_clones(void **state)
{
        struct bfake parent, clone;
        struct breq r[20], held;
        struct frozen z;
        uint64_t begin = now_ms();

        limited(&parent, 50, 0);
        reads(&parent, 50, 512);
        for (unsigned i = 0; i < 20; i++) {
                bfake_make(&parent, &r[i], VIRTIO_BLK_T_IN, i, NULL, 0, 512);
                bfake_offer(&parent, &r[i], &indirect);
        }
        vfake_kick(&parent.v, 0);
        freeze(&parent, &z);
        spawn(&clone, &parent, &z);
        for (struct bfake *b = &clone; b; b = b == &clone ? &parent : NULL) {
                unsigned left = 20;

                while (vfake_used(&b->v, 0, NULL) >= 0)
                        left--;
                assert_in_range(left, 1, 20);
                thaw(b);
                for (unsigned i = 0; i < left; i++)
                        assert_true(vfake_wait(&b->v, 0, NULL) >= 0);
                for (unsigned i = 0; i < 20; i++)
                        assert_memory_equal(vfake_ptr(&b->v, r[i].in), b->model + i * 512, 512);
                if (b == &parent)
                        break;
                /* 20 ms for each, but for the first, which may have been about to go */
                assert_true(now_ms() - begin >= 19 * 20 - 10);
                reads(&clone, 12, 512);
                assert_true(now_ms() - begin >= 31 * 20 - 10);
                /* a reset while it is held back */
                bfake_make(&clone, &held, VIRTIO_BLK_T_IN, 0, NULL, 0, 512);
                bfake_offer(&clone, &held, &indirect);
                vfake_kick(&clone.v, 0);
                vfake_start(&clone.v, VFAKE_ALL, BLK_QUEUE);
                assert_int_equal(bfake_flush(&clone), OK);
        }
        bfake_fini(&clone);
        bfake_fini(&parent);
        frozen_fini(&z);
}

/* --- the record --- */

static void golden(void **state)
{
        const struct device_ops *ops = &virtio_blk_ops;
        uint8_t *again = calloc(1, ops->record_length);
        struct bfake b, clone;
        struct frozen z;

        limited(&b, 1000, 1 << 20);
        freeze(&b, &z);
        golden_check(ops->name, ops->record_kind, 0, ops->record_version, z.record,
                     ops->record_length);
        spawn(&clone, &b, &z);
        clone.v.f.ops->save(clone.v.f.dev, again);
        assert_memory_equal(again, z.record, ops->record_length);
        thaw(&clone);
        {
                char id[20];

                assert_int_equal(
                        bfake_do(&clone, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, id, 20, &as_linux, NULL),
                        OK);
                assert_memory_equal(id, "ramet-0123\0\0\0\0\0\0\0\0\0", 20);
        }
        bfake_fini(&clone);
        bfake_fini(&b);
        frozen_fini(&z);
        free(again);
}

#define OWN (sizeof(struct virtio_record)) /* the device's part begins there */

static void records_that_are_refused(void **state)
{
        static const struct {
                size_t at;
                uint8_t value;
                const char *text;
        } cases[] = {
                {OWN + 20, 'x', "virtio-blk: the serial number is too long"},
                {OWN + 24 + 15, 0x80,
                 "virtio-blk: the level of the limit of requests is out of "
                 "range"},
                {OWN + 24 + 16, 0xff,
                 "virtio-blk: the level of the limit of requests is out of "
                 "range"},
                {OWN + 48 + 15, 0x01,
                 "virtio-blk: the level of the limit of bytes is out of "
                 "range"},
        };
        struct bfake b, clone;
        struct err err = {0};
        struct frozen z;

        limited(&b, 100, 0);
        freeze(&b, &z);
        spawn(&clone, &b, &z);
        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                uint8_t was = z.record[cases[i].at];

                z.record[cases[i].at] = cases[i].value;
                assert_int_equal(try_restore(&clone, &z, &err), -EINVAL);
                assert_string_equal(err.text, cases[i].text);
                z.record[cases[i].at] = was;
        }
        /* files: too few, too many, none were given; and the disk is as before */
        assert_true(z.files.n >= 1);
        z.files.n--;
        assert_int_equal(try_restore(&clone, &z, &err), -EINVAL);
        z.files.n++;
        assert_int_equal(clone.v.f.ops->restore(clone.v.f.dev, z.record, 1, &err), -EINVAL);
        assert_int_equal(clone.v.f.ops->restore_files(clone.v.f.dev, z.files.fds, 17, &err),
                         -EINVAL);
        thaw(&clone);
        bfake_check(&clone);
        bfake_fini(&clone);
        bfake_fini(&b);
        frozen_fini(&z);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(clones_diverge),
                cmocka_unit_test(reset_to_template),
                cmocka_unit_test(offered_at_the_barrier),
                cmocka_unit_test(cancelled),
                cmocka_unit_test(readonly_disk),
                cmocka_unit_test(quiesce_in_flight),
                cmocka_unit_test(reset_in_flight),
                cmocka_unit_test(destroyed_in_flight),
                cmocka_unit_test(with_threads),
                cmocka_unit_test(limit_of_requests),
                cmocka_unit_test(limit_of_bytes),
                cmocka_unit_test(limits_in_clones),
                cmocka_unit_test(golden),
                cmocka_unit_test(records_that_are_refused),
        };

        return cmocka_run_group_tests_name("virtio_blk_fork", tests, NULL, NULL);
}
