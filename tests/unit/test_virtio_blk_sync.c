/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block device's I/O as a participant: threads stop the machine, as vCPUs under `rom` and the
 * owner of a machine do, while requests are in flight and the loop's thread wants section after
 * section. While it is stopped nothing is read into guest memory, and it always goes on. With the
 * loop's threads the I/O really is beside everybody; ThreadSanitizer sees what is not ordered.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "blk_fake.h"

#define STOPS    300
#define IN_QUEUE 24
#define BYTES    16384u

struct stopper {
        struct bfake *b;
        pthread_t thread;
        bool flushes;
        unsigned changed;       /* bytes that changed while it was stopped */
        _Atomic unsigned *done; /* stoppers that have come to their end */
};

static struct breq requests[IN_QUEUE];

/* While the machine is stopped the buffers of the reads are this thread's, to read and to write. */
static void *stop_and_look(void *data)
{
        struct stopper *s = data;
        struct bfake *b = s->b;

        for (unsigned n = 0; n < STOPS; n++) {
                if (s->flushes) {
                        sync_flush(&b->v.domain, NULL);
                        continue;
                }
                sync_stop(&b->v.domain);
                for (unsigned i = 0; i < IN_QUEUE; i++) {
                        uint8_t *p = vfake_ptr(&b->v, requests[i].in);

                        memset(p, (int)n, BYTES);
                        if (i % 8 == 7)
                                sched_yield();
                        for (uint32_t k = 0; k < BYTES; k += 64)
                                s->changed += p[k] != (uint8_t)n;
                }
                sync_resume(&b->v.domain);
        }
        atomic_fetch_add(s->done, 1);
        return NULL;
}

/* The same requests again and again, until the others are done. */
static unsigned keep_busy(struct bfake *b, unsigned nstoppers, _Atomic unsigned *done)
{
        unsigned in_flight = 0, total = 0;

        while (atomic_load(done) < nstoppers) {
                assert_int_equal(in_flight, 0);
                for (; in_flight < IN_QUEUE; in_flight++)
                        bfake_offer(b, &requests[in_flight], &as_linux);
                vfake_kick(&b->v, 0);
                for (; in_flight > 0; in_flight--, total++)
                        assert_true(vfake_wait(&b->v, 0, NULL) >= 0);
                for (unsigned i = 0; i < IN_QUEUE; i++)
                        assert_int_equal(bfake_status(b, &requests[i]), VIRTIO_BLK_S_OK);
        }
        return total;
}

static void stopped_by_others(unsigned nstoppers)
{
        struct stopper s[3];
        _Atomic unsigned done = 0;
        struct bfake b;

        bfake_init(&b);
        for (unsigned i = 0; i < IN_QUEUE; i++)
                bfake_make(&b, &requests[i], VIRTIO_BLK_T_IN, i * 32, NULL, 0, BYTES);
        for (unsigned i = 0; i < nstoppers; i++) {
                s[i] = (struct stopper){.b = &b, .flushes = i == 2, .done = &done};
                assert_int_equal(pthread_create(&s[i].thread, NULL, stop_and_look, &s[i]), 0);
        }
        assert_true(keep_busy(&b, nstoppers, &done) > 0);
        for (unsigned i = 0; i < nstoppers; i++) {
                pthread_join(s[i].thread, NULL);
                assert_int_equal(s[i].changed, 0);
        }
        assert_int_equal(b.v.f.access.lent, 0);
        bfake_fini(&b);
}

static void one_stops(void **state)
{
        blk_use_uring = false;
        stopped_by_others(1);
}

static void several_stop_and_flush(void **state)
{
        blk_use_uring = false;
        stopped_by_others(3);
}

static void with_io_uring(void **state)
{
        blk_use_uring = true;
        stopped_by_others(3);
}

/* The owner: quiesces, stops, looks, lets go; with nothing of the device's in flight. */
static void owner_stops(void **state)
{
        for (int uring = 0; uring < 2; uring++) {
                struct bfake b;

                blk_use_uring = uring;
                bfake_init(&b);
                for (unsigned i = 0; i < IN_QUEUE; i++)
                        bfake_make(&b, &requests[i], VIRTIO_BLK_T_IN, i * 32, NULL, 0, BYTES);
                for (unsigned n = 0; n < 50; n++) {
                        unsigned left = IN_QUEUE;

                        for (unsigned i = 0; i < IN_QUEUE; i++)
                                bfake_offer(&b, &requests[i], &as_linux);
                        vfake_write(&b.v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
                        loop_step(b.v.f.env.loop, 1000000);
                        b.v.f.ops->quiesce(b.v.f.dev);
                        assert_int_equal(b.v.f.access.lent, 0);
                        sync_stop(&b.v.domain);
                        guest_access_exclusive(&b.v.f.access, true);
                        for (unsigned i = 0; i < IN_QUEUE; i++)
                                memset(vfake_ptr(&b.v, requests[i].in), 0, BYTES);
                        guest_access_exclusive(&b.v.f.access, false);
                        sync_resume(&b.v.domain);
                        b.v.f.ops->resume(b.v.f.dev);
                        for (; left > 0; left--)
                                assert_true(vfake_wait(&b.v, 0, NULL) >= 0);
                }
                bfake_fini(&b);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(one_stops),
                cmocka_unit_test(several_stop_and_flush),
                cmocka_unit_test(with_io_uring),
                cmocka_unit_test(owner_stops),
        };

        return cmocka_run_group_tests_name("virtio_blk_sync", tests, NULL, NULL);
}
