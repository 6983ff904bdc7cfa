/* SPDX-License-Identifier: Apache-2.0 */
/* The entropy device: what it fills, what it refuses, and that what a clone finds in its memory is
 * not what its siblings find. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "virtio_fake.h"

#define SIZE 64

static bool all_are(const uint8_t *p, uint64_t len, uint8_t byte)
{
        for (uint64_t i = 0; i < len; i++) {
                if (p[i] != byte)
                        return false;
        }
        return true;
}

/* Have @buf filled; checks that it is, as far as @len. */
static void fill(struct vfake *v, const struct vbuf *bufs, unsigned n, uint32_t want)
{
        uint16_t head;
        uint32_t len = 0;

        for (unsigned i = 0; i < n; i++)
                memset(vfake_ptr(v, bufs[i].gpa), 0, bufs[i].len);
        head = vfake_add(v, 0, bufs, n);
        vfake_kick(v, 0);
        assert_int_equal(vfake_used(v, 0, &len), head);
        assert_int_equal(len, want);
}

static void buffers_are_filled(void **state)
{
        struct vbuf a, many[3];
        struct vfake v;

        vfake_init(&v, &rng_ops, VFAKE_ALL, SIZE);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_DEVICE_ID), 4);
        a = vfake_in(&v, 64);
        fill(&v, &a, 1, 64);
        assert_false(all_are(vfake_ptr(&v, a.gpa), 64, 0));
        assert_int_equal(vfake_irqs(&v), 1);
        assert_int_equal(vfake_ack(&v), VIRTIO_MMIO_INT_VRING);

        many[0] = vfake_in(&v, 100);
        many[1] = vfake_in(&v, 1000);
        many[2] = vfake_in(&v, 17);
        fill(&v, many, 3, 1117);
        for (unsigned i = 0; i < 3; i++)
                assert_false(
                        all_are((uint8_t *)vfake_ptr(&v, many[i].gpa) + many[i].len - 16, 16, 0));
        vfake_fini(&v);
}

/* As the record was fixed: offsets of the device's own part, and what a buffer in it is. */
struct kept {
        uint64_t gpa;
        uint32_t len, reserved;
        uint8_t bytes[256];
};

struct state {
        struct virtio_record v;
        uint32_t next, reserved;
        struct kept kept[4];
};

static void save(struct vfake *v, struct state *r)
{
        assert_int_equal(v->f.ops->record_length, sizeof *r);
        v->f.ops->quiesce(v->f.dev);
        v->f.ops->save(v->f.dev, r);
        v->f.ops->resume(v->f.dev);
}

/* A clone of @v: memory, device, and what makes it one. */
static void spawn(struct vfake *v, const struct state *r, struct vfake *c)
{
        struct err err = {0};

        vfake_machine(c);
        for (unsigned i = 0; i < v->f.mem.nregions; i++)
                memcpy(c->f.mem.regions[i].hva, v->f.mem.regions[i].hva, v->f.mem.regions[i].size);
        fake_create(&c->f, &rng_ops);
        if (rng_ops.restore(c->f.dev, r, rng_ops.record_version, &err))
                fail_msg("%s", err.text);
        rng_ops.renew(c->f.dev);
        memcpy(c->q, v->q, sizeof c->q);
        c->features = v->features;
        c->top = v->top;
        rng_ops.resume(c->f.dev);
}

static void long_buffers_get_as_much_as_a_turn_gives(void **state)
{
        struct vfake v;
        struct vbuf a;

        vfake_init(&v, &rng_ops, VFAKE_ALL, SIZE);
        a = vfake_in(&v, 10000);
        fill(&v, &a, 1, 4096);
        assert_false(all_are((uint8_t *)vfake_ptr(&v, a.gpa) + 4080, 16, 0));
        assert_true(all_are((uint8_t *)vfake_ptr(&v, a.gpa) + 4096, 10000 - 4096, 0));
        vfake_fini(&v);
}

/* A full queue takes several turns, and others are served between them. */
static void a_turn_is_bounded(void **state)
{
        struct vfake v;
        struct vbuf a;
        unsigned used = 0, steps = 0;

        vfake_init(&v, &rng_ops, VFAKE_ALL, SIZE);
        a = vfake_in(&v, 64);
        for (unsigned i = 0; i < SIZE; i++)
                vfake_add(&v, 0, &a, 1);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        while (used < SIZE) {
                unsigned before = used;

                assert_int_equal(loop_step(v.f.env.loop, 0), 0);
                while (vfake_used(&v, 0, NULL) >= 0)
                        used++;
                assert_in_range(used - before, 0, 16);
                assert_true(++steps < 100);
        }
        vfake_fini(&v);
}

static void what_breaks_the_rules_breaks_the_device(void **state)
{
        static const struct {
                struct vbuf buf[2];
                unsigned n;
                const char *why;
        } rows[] = {
                {{{0x2000, 16, false}}, 1, "a buffer that cannot be written"},
                {{{0x2000, 16, false}, {0x3000, 16, true}}, 2, "a buffer that cannot be written"},
                {{{VFAKE_HIGH - 64, 32, true}}, 1, "a buffer that is not in RAM"},
                {{{VFAKE_HIGH - 64, 128, true}}, 1, "a buffer that is not in RAM"},
                {{{UINT64_MAX - 15, 32, true}}, 1, "a buffer that is not in RAM"},
                {{{0x2000, 16, true}, {FAKE_MEMORY, 16, true}}, 2, "a buffer that is not in RAM"},
        };
        struct vfake v;
        struct vbuf a;

        vfake_init(&v, &rng_ops, VFAKE_ALL, SIZE);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                vfake_add(&v, 0, rows[i].buf, rows[i].n);
                vfake_kick(&v, 0);
                assert_true(vfake_needs_reset(&v));
                assert_string_equal(vfake_device(&v)->why, rows[i].why);
                assert_int_equal(vfake_used(&v, 0, NULL), -1);
                vfake_recover(&v, SIZE);
                a = vfake_in(&v, 64);
                fill(&v, &a, 1, 64);
        }
        vfake_fini(&v);
}

/* --- clones --- */

static void unread_buffers_differ_in_clones(void **state)
{
        struct vfake v, c[2];
        struct state r;
        struct vbuf a[3];
        uint8_t before[3][64];

        vfake_init(&v, &rng_ops, VFAKE_ALL, SIZE);
        for (unsigned i = 0; i < 3; i++) {
                a[i] = vfake_in(&v, 64);
                vfake_alloc(&v, 64, 8);
                fill(&v, &a[i], 1, 64);
                memcpy(before[i], vfake_ptr(&v, a[i].gpa), 64);
        }
        /* the guest has used the second one for something else */
        ((uint8_t *)vfake_ptr(&v, a[1].gpa))[63] ^= 1;
        before[1][63] ^= 1;
        save(&v, &r);
        spawn(&v, &r, &c[0]);
        spawn(&v, &r, &c[1]);
        for (unsigned i = 0; i < 3; i++) {
                const uint8_t *in0 = vfake_ptr(&c[0], a[i].gpa), *in1 = vfake_ptr(&c[1], a[i].gpa);

                assert_memory_equal(vfake_ptr(&v, a[i].gpa), before[i], 64);
                if (i == 1) {
                        assert_memory_equal(in0, before[i], 64);
                        assert_memory_equal(in1, before[i], 64);
                } else if (!memcmp(in0, before[i], 64) || !memcmp(in1, before[i], 64) ||
                           !memcmp(in0, in1, 64)) {
                        fail_msg("stale: buffer %u begins with %02x in two machines", i, in0[0]);
                }
                /* and nothing around it */
                assert_memory_equal(in0 + 64, (uint8_t *)vfake_ptr(&v, a[i].gpa) + 64, 64);
        }

        /* what a clone found is its own, and a clone's clone does not have it either */
        save(&c[0], &r);
        vfake_fini(&c[1]);
        spawn(&c[0], &r, &c[1]);
        assert_true(memcmp(vfake_ptr(&c[0], a[2].gpa), vfake_ptr(&c[1], a[2].gpa), 64));
        /* it works on */
        fill(&c[1], &a[0], 1, 64);
        for (unsigned i = 0; i < 2; i++)
                vfake_fini(&c[i]);
        vfake_fini(&v);
}

/* Which buffers are remembered: the last four, by place, from 16 to 256 bytes, in one piece. */
static void some_buffers_are_remembered(void **state)
{
        static const struct {
                uint32_t len;
                unsigned pieces;
                bool kept;
        } rows[] = {
                {1, 1, false},   {15, 1, false},   {16, 1, true},  {256, 1, true},
                {257, 1, false}, {4096, 1, false}, {64, 2, false},
        };
        struct state r;
        struct vbuf a[6];
        struct vfake v;

        vfake_init(&v, &rng_ops, VFAKE_ALL, SIZE);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                vfake_start(&v, VFAKE_ALL, SIZE);
                a[0] = vfake_in(&v, rows[i].len);
                a[1] = vfake_in(&v, rows[i].len);
                fill(&v, a, rows[i].pieces, rows[i].len * rows[i].pieces);
                save(&v, &r);
                assert_int_equal(r.kept[0].len, rows[i].kept ? rows[i].len : 0);
                if (rows[i].kept)
                        assert_memory_equal(r.kept[0].bytes, vfake_ptr(&v, a[0].gpa), rows[i].len);
        }

        /* the same place again and again is one; the oldest is forgotten */
        vfake_start(&v, VFAKE_ALL, SIZE);
        for (unsigned i = 0; i < 6; i++)
                a[i] = vfake_in(&v, 32);
        for (unsigned i = 0; i < 9; i++)
                fill(&v, &a[0], 1, 32);
        for (unsigned i = 1; i < 5; i++)
                fill(&v, &a[i], 1, 32);
        save(&v, &r);
        assert_int_equal(r.next, 1);
        assert_int_equal(r.kept[0].gpa, a[4].gpa);
        for (unsigned i = 1; i < 4; i++)
                assert_int_equal(r.kept[i].gpa, a[i].gpa);
        /* a longer buffer at the place of one of them was written over it */
        a[2].len = 300;
        fill(&v, &a[2], 1, 300);
        save(&v, &r);
        assert_int_equal(r.kept[2].len, 0);
        /* and a reset forgets all */
        vfake_start(&v, VFAKE_ALL, SIZE);
        save(&v, &r);
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(r.kept[i].len, 0);
        vfake_fini(&v);
}

/* --- saved state --- */

static void make_record(struct vfake *v, struct state *r)
{
        struct vbuf a;

        vfake_init(v, &rng_ops, VFAKE_ALL, SIZE);
        a = vfake_in(v, 64);
        for (unsigned i = 0; i < 5; i++)
                fill(v, &a, 1, 64);
        save(v, r);
        r->next = 3;
        r->kept[1] = (struct kept){.gpa = 0x1234560, .len = 16};
        for (unsigned i = 0; i < 64; i++)
                r->kept[0].bytes[i] = (uint8_t)(i * 3 + 1);
        for (unsigned i = 0; i < 16; i++)
                r->kept[1].bytes[i] = (uint8_t)(i + 1);
}

static void the_record_is_as_it_was(void **state)
{
        struct err err = {0};
        struct state r;
        struct vfake v;

        make_record(&v, &r);
        if (rng_ops.restore(v.f.dev, &r, 1, &err))
                fail_msg("%s", err.text);
        fake_check_record(&v.f);
        vfake_fini(&v);
}

static void records_are_checked(void **state)
{
        const size_t own = offsetof(struct state, next), k0 = offsetof(struct state, kept);
        struct state r;
        struct vfake v;

        make_record(&v, &r);
        fake_expect_refused(&v.f, own, 4, "virtio-rng: buffer 4 of 4 is next");
        fake_expect_refused(&v.f, own + 4, 1, "virtio-rng: buffer 1 of 4 is next");
        fake_expect_refused(&v.f, k0 + 8, 15, "virtio-rng: buffer 0 has 15 bytes");
        fake_expect_refused(&v.f, k0 + 9, 2, "virtio-rng: buffer 0 has 576 bytes");
        fake_expect_refused(&v.f, k0 + 12, 1, "virtio-rng: buffer 0 has bytes beyond its end");
        fake_expect_refused(&v.f, k0 + 16 + 64, 1, "virtio-rng: buffer 0 has bytes beyond its end");
        fake_expect_refused(&v.f, k0 + 272, 1, "virtio-rng: buffer 1 has bytes beyond its end");
        vfake_fini(&v);
}

static void nobody_asked_for_one(void **state)
{
        struct device_params none = {0};
        struct device_window windows[DEVICE_WINDOWS];
        struct err err = {0};
        unsigned n = 0;
        void *dev = NULL;

        assert_int_equal(rng_ops.count(&none), 0);
        assert_int_equal(rng_ops.create(NULL, &none, 0, &dev, windows, &n, &err), 0);
        assert_null(dev);
        rng_ops.destroy(NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(buffers_are_filled),
                cmocka_unit_test(long_buffers_get_as_much_as_a_turn_gives),
                cmocka_unit_test(a_turn_is_bounded),
                cmocka_unit_test(what_breaks_the_rules_breaks_the_device),
                cmocka_unit_test(unread_buffers_differ_in_clones),
                cmocka_unit_test(some_buffers_are_remembered),
                cmocka_unit_test(the_record_is_as_it_was),
                cmocka_unit_test(records_are_checked),
                cmocka_unit_test(nobody_asked_for_one),
        };

        return cmocka_run_group_tests_name("virtio_rng", tests, NULL, NULL);
}
