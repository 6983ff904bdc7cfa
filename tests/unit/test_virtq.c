/* SPDX-License-Identifier: Apache-2.0 */
/* Split queues: chains of every shape are read as they were written, rules that a driver breaks are
 * named, a broken queue stays one, and buffers are where the guest said. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "virtq_fake.h"

/* --- set-up --- */

static void where_a_queue_may_be(void **state)
{
        static const struct {
                struct virtq_layout at;
                const char *text; /* NULL: fine */
        } rows[] = {
                {{0x1000, 0x2000, 0x3000, 1}, NULL},
                {{0x1000, 0x2000, 0x3000, 256}, NULL},
                {{0x1010, 0x2002, 0x3004, 8}, NULL},
                {{FAKE_MEMORY - 128, 0x2000, 0x3000, 8}, NULL},
                {{0x1000, FAKE_MEMORY - 22, 0x3000, 8}, NULL},
                {{0x1000, 0x2000, VFAKE_HIGH + VFAKE_HIGH_BYTES - 72, 8}, NULL},
                {{0x1000, 0x2000, 0x3000, 0}, "a size of 0 is not a power of two up to 256"},
                {{0x1000, 0x2000, 0x3000, 3}, "a size of 3 is not a power of two up to 256"},
                {{0x1000, 0x2000, 0x3000, 512}, "a size of 512 is not a power of two up to 256"},
                {{0x1000, 0x2000, 0x3000, 32768},
                 "a size of 32768 is not a power of two up to 256"},
                {{0x1008, 0x2000, 0x3000, 8},
                 "the descriptor table at 0x1008 is not aligned to 16 bytes"},
                {{0x1000, 0x2001, 0x3000, 8},
                 "the available ring at 0x2001 is not aligned to 2 bytes"},
                {{0x1000, 0x2000, 0x3002, 8}, "the used ring at 0x3002 is not aligned to 4 bytes"},
                {{FAKE_MEMORY - 112, 0x2000, 0x3000, 8},
                 "the descriptor table at 0x3fff90, 128 bytes long, is not in RAM"},
                {{0x1000, FAKE_MEMORY - 20, 0x3000, 8},
                 "the available ring at 0x3fffec, 22 bytes long, is not in RAM"},
                {{0x1000, 0x2000, FAKE_MEMORY - 68, 8},
                 "the used ring at 0x3fffbc, 70 bytes long, is not in RAM"},
                {{0x500000, 0x2000, 0x3000, 8},
                 "the descriptor table at 0x500000, 128 bytes long, is not in RAM"},
                {{UINT64_MAX - 15, 0x2000, 0x3000, 8},
                 "the descriptor table at 0xfffffffffffffff0, 128 bytes long, is not in RAM"},
                {{0x1000, 0x2000, UINT64_MAX - 3, 8},
                 "the used ring at 0xfffffffffffffffc, 70 bytes long, is not in RAM"},
        };
        struct state s;

        begin(&s);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct err err = {0};
                struct virtq q, zero = {0};
                int r;

                memset(&q, 0x5a, sizeof q);
                r = virtq_init(&q, &s.v.f.access, &rows[i].at, true, true, &err);
                assert_int_equal(r, rows[i].text ? -EINVAL : 0);
                assert_string_equal(err.text, rows[i].text ? rows[i].text : "");
                if (r < 0)
                        assert_memory_equal(&q, &zero, sizeof q);
                assert_int_equal(q.ready, r == 0);
        }
        end(&s);
}

/* --- chains as they should be --- */

static void check_segments(const struct state *s, const struct vbuf *bufs, unsigned n)
{
        uint64_t out = 0, in = 0;
        unsigned nout = 0;

        for (unsigned i = 0; i < n; i++) {
                const struct virtq_segment *seg = &s->chain.seg[i];

                assert_true(seg->gpa == bufs[i].gpa && seg->len == bufs[i].len &&
                            seg->writable == bufs[i].writable);
                *(bufs[i].writable ? &in : &out) += bufs[i].len;
                nout += !bufs[i].writable;
        }
        assert_int_equal(s->chain.nout, nout);
        assert_int_equal(s->chain.nin, n - nout);
        assert_true(s->chain.out_len == out && s->chain.in_len == in);
}

static void chains_are_read_as_they_were_written(void **state)
{
        struct vbuf bufs[SIZE];
        struct state s;

        begin(&s);
        assert_int_equal(pop(&s), 0);
        for (unsigned round = 0; round < 4000; round++) {
                unsigned n = 1 + (unsigned)(rnd() % SIZE), nout = (unsigned)(rnd() % (n + 1));
                uint32_t written = (uint32_t)rnd(), len;
                uint16_t head;

                s.v.top = VFAKE_RAM_BEGIN + 0x10000;
                for (unsigned i = 0; i < n; i++)
                        bufs[i] = (struct vbuf){rnd(), 1 + (uint32_t)(rnd() % 1000000), i >= nout};
                head = rnd() % 2 ? vfake_add(&s.v, 0, bufs, n)
                                 : vfake_add_indirect(&s.v, 0, bufs, n);
                assert_true(virtq_available(&s.q, &s.v.f.access));
                assert_int_equal(pop(&s), 1);
                assert_int_equal(s.chain.head, head);
                check_segments(&s, bufs, n);
                assert_int_equal(pop(&s), 0);
                assert_false(virtq_available(&s.q, &s.v.f.access));
                assert_int_equal(vfake_used(&s.v, 0, NULL), -1);
                assert_int_equal(push(&s, head, written), 0);
                assert_int_equal(vfake_used(&s.v, 0, &len), head);
                assert_int_equal(len, written);
        }
        assert_int_equal(s.q.pops, 4000);
        assert_int_equal(s.q.pushes, 4000);
        assert_int_equal(s.q.outstanding, 0);
        end(&s);
}

/* Several are out at a time, and come back in another order; one is put back. */
static void chains_are_out_together(void **state)
{
        struct vbuf b = {BUF, 16, true};
        uint16_t heads[SIZE];
        struct state s;

        begin(&s);
        for (unsigned i = 0; i < SIZE; i++)
                heads[i] = vfake_add(&s.v, 0, &b, 1);
        for (unsigned i = 0; i < SIZE; i++) {
                assert_int_equal(pop(&s), 1);
                assert_int_equal(s.chain.head, heads[i]);
                if (i == 5) {
                        virtq_unpop(&s.q);
                        assert_true(virtq_available(&s.q, &s.v.f.access));
                        assert_int_equal(pop(&s), 1);
                        assert_int_equal(s.chain.head, heads[i]);
                }
        }
        assert_int_equal(s.q.outstanding, SIZE);
        for (unsigned i = SIZE; i-- > 0;) {
                assert_int_equal(push(&s, heads[i], i), 0);
                assert_int_equal(vfake_used(&s.v, 0, NULL), heads[i]);
        }
        end(&s);
}

/* What was popped is a copy: what the guest does to its descriptors later is nothing to it. */
static void a_chain_is_a_copy(void **state)
{
        const struct vbuf bufs[2] = {{BUF, 16, false}, {BUF + 64, 32, true}};
        struct virtq_chain before;
        struct state s;

        begin(&s);
        for (unsigned indirect = 0; indirect < 2; indirect++) {
                if (indirect)
                        vfake_add_indirect(&s.v, 0, bufs, 2);
                else
                        vfake_add(&s.v, 0, bufs, 2);
                assert_int_equal(pop(&s), 1);
                before = s.chain;
                memset(vfake_ptr(&s.v, VFAKE_RAM_BEGIN), 0xff, s.v.top - VFAKE_RAM_BEGIN);
                assert_memory_equal(&before, &s.chain, sizeof before);
                check_segments(&s, bufs, 2);
                s.v.top = VFAKE_RAM_BEGIN;
                vfake_make_queue(&s.v, 0, SIZE);
                assert_int_equal(virtq_init(&s.q, &s.v.f.access, &s.v.q[0].at, false, true, NULL),
                                 0);
        }
        end(&s);
}

/* --- chains as they should not be --- */

static void loop_of_one(struct state *s)
{
        desc(s, 0, BUF, 16, NEXT, 0);
}

static void loop_of_three(struct state *s)
{
        for (uint16_t i = 0; i < 3; i++)
                desc(s, i, BUF, 16, NEXT, i < 2 ? i + 1 : 0);
}

static void loop_at_the_end(struct state *s)
{
        desc(s, 0, BUF, 16, NEXT, 1);
        desc(s, 1, BUF, 16, NEXT | WRITE, 1);
}

static void next_beyond(struct state *s)
{
        desc(s, 0, BUF, 16, NEXT, SIZE);
}

static void next_far_beyond(struct state *s)
{
        desc(s, 0, BUF, 16, NEXT, 0xffff);
}

static void readable_after_writable(struct state *s)
{
        desc(s, 0, BUF, 16, NEXT | WRITE, 1);
        desc(s, 1, BUF, 16, 0, 0);
}

static void zero_length(struct state *s)
{
        desc(s, 0, BUF, 0, 0, 0);
}

static void zero_length_in_the_middle(struct state *s)
{
        desc(s, 0, BUF, 16, NEXT, 1);
        desc(s, 1, BUF, 0, NEXT, 2);
        desc(s, 2, BUF, 16, 0, 0);
}

static void four_gib(struct state *s)
{
        desc(s, 0, 0, 0x80000000u, NEXT, 1);
        desc(s, 1, 0, 0x80000000u, 0, 0);
}

static void four_gib_of_both(struct state *s)
{
        desc(s, 0, 0, UINT32_MAX, NEXT, 1);
        desc(s, 1, 0, 1, WRITE, 0);
}

static void indirect_of(struct state *s, uint32_t len, uint16_t flags)
{
        for (uint16_t i = 0; i < 2 * SIZE; i++)
                entry(s, i, BUF, 16, i + 1 < (int)(len / 16) ? NEXT : 0, i + 1);
        desc(s, 0, TABLE, len, INDIR | flags, 1);
        desc(s, 1, BUF, 16, 0, 0);
}

static void indirect_empty(struct state *s)
{
        indirect_of(s, 0, 0);
}

static void indirect_odd(struct state *s)
{
        indirect_of(s, 40, 0);
}

static void indirect_too_long(struct state *s)
{
        indirect_of(s, 16 * (SIZE + 1), 0);
}

static void indirect_huge(struct state *s)
{
        indirect_of(s, 0, 0);
        desc(s, 0, TABLE, 0xfffffff0u, INDIR, 0);
}

static void indirect_with_next(struct state *s)
{
        indirect_of(s, 32, NEXT);
}

static void indirect_in_indirect(struct state *s)
{
        indirect_of(s, 32, 0);
        entry(s, 1, TABLE, 32, INDIR, 0);
}

static void indirect_in_itself(struct state *s)
{
        indirect_of(s, 32, 0);
        entry(s, 0, TABLE, 32, INDIR, 0);
}

static void indirect_loop(struct state *s)
{
        indirect_of(s, 32, 0);
        entry(s, 1, BUF, 16, NEXT, 0);
}

static void indirect_next_beyond(struct state *s)
{
        indirect_of(s, 32, 0);
        entry(s, 1, BUF, 16, NEXT, 2);
}

static void indirect_in_a_hole(struct state *s)
{
        indirect_of(s, 32, 0);
        desc(s, 0, VFAKE_HIGH - 16, 32, INDIR, 0);
}

static void indirect_over_the_end(struct state *s)
{
        indirect_of(s, 32, 0);
        desc(s, 0, FAKE_MEMORY - 16, 32, INDIR, 0);
}

static void indirect_that_wraps(struct state *s)
{
        indirect_of(s, 32, 0);
        desc(s, 0, UINT64_MAX - 15, 32, INDIR, 0);
}

static void chain_and_indirect_too_long(struct state *s)
{
        indirect_of(s, 16 * SIZE, 0);
        desc(s, 2, TABLE, 16 * SIZE, INDIR, 0);
        desc(s, 0, BUF, 16, NEXT, 2);
}

static void readable_indirect_after_writable(struct state *s)
{
        indirect_of(s, 32, 0);
        desc(s, 2, TABLE, 32, INDIR, 0);
        desc(s, 0, BUF, 16, NEXT | WRITE, 2);
}

static const struct {
        void (*make)(struct state *s); /* a chain that begins at 0 */
        const char *text;
} malformed[] = {
        {loop_of_one, "a chain longer than the queue, or a loop"},
        {loop_of_three, "a chain longer than the queue, or a loop"},
        {loop_at_the_end, "a chain longer than the queue, or a loop"},
        {next_beyond, "descriptor 8 of a table of 8"},
        {next_far_beyond, "descriptor 65535 of a table of 8"},
        {readable_after_writable, "a readable descriptor after a writable one"},
        {zero_length, "a descriptor of length 0"},
        {zero_length_in_the_middle, "a descriptor of length 0"},
        {four_gib, "a chain of 4 GiB or more"},
        {four_gib_of_both, "a chain of 4 GiB or more"},
        {indirect_empty, "an indirect table of 0 bytes, in a queue of 8 entries"},
        {indirect_odd, "an indirect table of 40 bytes, in a queue of 8 entries"},
        {indirect_too_long, "an indirect table of 144 bytes, in a queue of 8 entries"},
        {indirect_huge, "an indirect table of 4294967280 bytes, in a queue of 8 entries"},
        {indirect_with_next, "an indirect descriptor with a next one"},
        {indirect_in_indirect, "an indirect descriptor in an indirect table"},
        {indirect_in_itself, "an indirect descriptor in an indirect table"},
        {indirect_loop, "a chain longer than the queue, or a loop"},
        {indirect_next_beyond, "descriptor 2 of a table of 2"},
        {indirect_in_a_hole, "an indirect table at 0x7ffff0, which is not in RAM"},
        {indirect_over_the_end, "an indirect table at 0x3ffff0, which is not in RAM"},
        {indirect_that_wraps, "an indirect table at 0xfffffffffffffff0, which is not in RAM"},
        {chain_and_indirect_too_long, "a chain longer than the queue, or a loop"},
        {readable_indirect_after_writable, "a readable descriptor after a writable one"},
};

/* A queue that is broken does nothing more, whatever is asked of it. */
static void check_broken(struct state *s, const char *text)
{
        struct guest_access *a = &s->v.f.access;
        uint8_t before[6 + 8 * SIZE];

        assert_string_equal(s->err.text, text);
        assert_false(s->q.ready);
        assert_false(virtq_available(&s->q, a));
        memcpy(before, vfake_ptr(&s->v, s->v.q[0].at.device), sizeof before);
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(pop(s), -EPROTO);
                assert_string_equal(s->err.text, "the queue is not ready");
                assert_int_equal(push(s, 0, 1), -EPROTO);
                assert_false(virtq_interrupt_wanted(&s->q, a));
                assert_false(virtq_ask_notify(&s->q, a, true));
                assert_false(virtq_ask_notify(&s->q, a, false));
                virtq_unpop(&s->q);
        }
        assert_memory_equal(before, vfake_ptr(&s->v, s->v.q[0].at.device), sizeof before);
}

static void malformed_chains_are_refused(void **state)
{
        for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++) {
                struct state s;

                begin(&s);
                /* one before it is as it should be */
                desc(&s, 7, BUF, 16, WRITE, 0);
                offer(&s, 7);
                malformed[i].make(&s);
                offer(&s, 0);
                assert_int_equal(pop(&s), 1);
                assert_true(virtq_available(&s.q, &s.v.f.access));
                assert_int_equal(pop(&s), -EPROTO);
                check_broken(&s, malformed[i].text);
                end(&s);
        }
}

static void what_was_not_negotiated_is_refused(void **state)
{
        struct state s;

        begin_queue(&s, SIZE, false, false);
        indirect_of(&s, 32, 0);
        offer(&s, 0);
        assert_int_equal(pop(&s), -EPROTO);
        check_broken(&s, "an indirect descriptor, which was not negotiated");
        end(&s);
}

static void heads_and_indices_are_checked(void **state)
{
        static const uint16_t heads[] = {SIZE, SIZE + 1, 255, 256, 0x7fff, 0xffff};
        static const uint16_t leaps[] = {SIZE + 1, 100, 0x7fff, 0x8000, 0xffff};
        char text[160];
        struct state s;

        for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
                begin(&s);
                offer(&s, heads[i]);
                assert_int_equal(pop(&s), -EPROTO);
                snprintf(text, sizeof text, "descriptor %u of a table of 8", heads[i]);
                check_broken(&s, text);
                end(&s);
        }
        for (size_t i = 0; i < sizeof leaps / sizeof leaps[0]; i++) {
                begin(&s);
                vfake_put16(&s.v, s.v.q[0].at.driver + 2, leaps[i]);
                assert_true(virtq_available(&s.q, &s.v.f.access));
                assert_int_equal(pop(&s), -EPROTO);
                snprintf(
                        text, sizeof text,
                        "an available index of %u, with 0 taken, 0 of them unused, in a queue of 8",
                        leaps[i]);
                check_broken(&s, text);
                end(&s);
        }
}

/* However often a driver offers the same descriptors: no more are out than there are entries. */
static void no_more_are_out_than_entries(void **state)
{
        struct state s;

        begin(&s);
        desc(&s, 0, BUF, 16, WRITE, 0);
        for (unsigned i = 0; i < SIZE; i++)
                offer(&s, 0);
        for (unsigned i = 0; i < SIZE; i++)
                assert_int_equal(pop(&s), 1);
        assert_int_equal(pop(&s), 0);
        offer(&s, 0);
        assert_int_equal(pop(&s), -EPROTO);
        check_broken(&s,
                     "an available index of 9, with 8 taken, 8 of them unused, in a queue of 8");
        end(&s);
}

/* What looks like one of the above, and is right. */
static void odd_chains_that_are_right(void **state)
{
        struct state s;

        begin(&s);
        /* as long as the queue */
        for (uint16_t i = 0; i < SIZE; i++)
                desc(&s, i, BUF, 16, i + 1 < SIZE ? NEXT | WRITE : WRITE, i + 1);
        offer(&s, 0);
        assert_int_equal(pop(&s), 1);
        assert_int_equal(s.chain.nin, SIZE);
        assert_int_equal(push(&s, 0, 0), 0);
        /* an indirect table as long as the queue; WRITE is ignored, and so is where it lies */
        indirect_of(&s, 16 * SIZE, WRITE);
        offer(&s, 0);
        assert_int_equal(pop(&s), 1);
        assert_int_equal(s.chain.nout, SIZE);
        assert_int_equal(push(&s, 0, 0), 0);
        for (uint16_t i = 0; i < 2; i++)
                vfake_desc(&s.v, TABLE + 3, i, BUF, 16, i == 0 ? NEXT : WRITE, 1);
        desc(&s, 0, TABLE + 3, 32, INDIR, 0);
        offer(&s, 0);
        assert_int_equal(pop(&s), 1);
        assert_true(s.chain.nout == 1 && s.chain.nin == 1);
        assert_int_equal(push(&s, 0, 0), 0);
        /* some of its own, then the table, together as long as the queue */
        indirect_of(&s, 16 * (SIZE - 2), 0);
        desc(&s, 0, BUF, 1, NEXT, 1);
        desc(&s, 1, BUF, 2, NEXT, 5);
        desc(&s, 5, TABLE, 16 * (SIZE - 2), INDIR, 0);
        offer(&s, 0);
        assert_int_equal(pop(&s), 1);
        assert_int_equal(s.chain.nout, SIZE);
        assert_true(s.chain.seg[1].len == 2 && s.chain.seg[2].len == 16);
        assert_int_equal(push(&s, 0, 0), 0);
        /* one byte less than 4 GiB; where the buffers are is nobody's business yet */
        desc(&s, 0, UINT64_MAX - 4, 0x80000000u, NEXT, 1);
        desc(&s, 1, 0x500000, 0x7fffffffu, WRITE, 0);
        offer(&s, 0);
        assert_int_equal(pop(&s), 1);
        assert_true(s.chain.out_len + s.chain.in_len == UINT32_MAX);
        assert_int_equal(push(&s, 0, UINT32_MAX), 0);
        /* a queue of one entry */
        guest_access_end(&s.v.f.access);
        vfake_fini(&s.v);
        begin_queue(&s, 1, true, true);
        for (unsigned i = 0; i < 5; i++) {
                entry(&s, 0, BUF, 16, WRITE, 0);
                desc(&s, 0, TABLE, 16, INDIR, 0);
                offer(&s, 0);
                assert_int_equal(pop(&s), 1);
                assert_int_equal(push(&s, 0, i), 0);
                assert_int_equal(vfake_get16(&s.v, s.v.q[0].at.device + 2), i + 1);
        }
        end(&s);
}

/* --- buffers --- */

/* A chain of the test's own making, that is in no queue. */
static void chain_of(struct state *s, const struct vbuf *bufs, unsigned n)
{
        struct virtq_chain *c = &s->chain;

        *c = (struct virtq_chain){0};
        for (unsigned i = 0; i < n; i++) {
                c->seg[i] = (struct virtq_segment){bufs[i].gpa, bufs[i].len, bufs[i].writable};
                *(bufs[i].writable ? &c->nin : &c->nout) += 1;
                *(bufs[i].writable ? &c->in_len : &c->out_len) += bufs[i].len;
        }
}

static void buffers_are_found_byte_by_byte(void **state)
{
        enum { MAX = 64 };
        struct state s;

        begin(&s);
        for (unsigned round = 0; round < 3000; round++) {
                struct vbuf bufs[12];
                uint8_t *at[12 * 600];
                unsigned n = 1 + (unsigned)(rnd() % 12), nout = (unsigned)(rnd() % (n + 1)),
                         pos = 0;
                struct iovec iov[MAX];
                bool in = rnd() % 2;
                uint64_t have = 0, from, len, next = 0;
                uint8_t data[12 * 600], back[12 * 600];
                unsigned joins = 0;
                int niov;

                for (unsigned i = 0; i < n; i++) {
                        uint64_t gpa = rnd() % 2 ? VFAKE_HIGH + rnd() % 0x10000 : rnd() % 0x10000;

                        if (i > 0 && rnd() % 2) /* right behind the last one */
                                gpa = next;
                        bufs[i] = (struct vbuf){gpa, 1 + (uint32_t)(rnd() % 600), i >= nout};
                        next = gpa + bufs[i].len;
                        for (unsigned k = 0; k < bufs[i].len && bufs[i].writable == in; k++)
                                at[have++] = vfake_ptr(&s.v, gpa + k);
                }
                chain_of(&s, bufs, n);
                from = rnd() % (have + 1);
                len = rnd() % (have - from + 1);
                for (uint64_t i = 1; i < len; i++)
                        joins += at[from + i] != at[from + i - 1] + 1;
                niov = virtq_iov(&s.v.f.access, &s.chain, in, from, len, iov, MAX);
                assert_int_equal(niov, len > 0 ? joins + 1 : 0);
                for (int i = 0; i < niov; i++)
                        for (size_t k = 0; k < iov[i].iov_len; k++, pos++)
                                assert_true((uint8_t *)iov[i].iov_base + k == at[from + pos]);
                assert_int_equal(pos, len);
                if (niov > 0)
                        assert_int_equal(virtq_iov(&s.v.f.access, &s.chain, in, from, len, iov,
                                                   (unsigned)niov - 1),
                                         -E2BIG);

                for (uint64_t i = 0; i < len; i++)
                        data[i] = (uint8_t)rnd();
                if (in) {
                        assert_int_equal(virtq_write(&s.v.f.access, &s.chain, from, data, len), 0);
                        for (uint64_t i = len; i-- > 0;) /* one over another: the last counts */
                                data[i] = *at[from + i];
                } else {
                        for (uint64_t i = 0; i < len; i++)
                                *at[from + i] = data[i];
                        assert_int_equal(virtq_read(&s.v.f.access, &s.chain, from, back, len), 0);
                        for (uint64_t i = 0; i < len; i++)
                                assert_int_equal(back[i], *at[from + i]);
                }
                assert_int_equal(
                        virtq_iov(&s.v.f.access, &s.chain, in, from, have - from + 1, iov, MAX),
                        -EINVAL);
                assert_int_equal(virtq_iov(&s.v.f.access, &s.chain, in, have + 1, 0, iov, MAX),
                                 -EINVAL);
                assert_int_equal(virtq_iov(&s.v.f.access, &s.chain, in, 1, UINT64_MAX, iov, MAX),
                                 -EINVAL);
                if (in)
                        assert_int_equal(
                                virtq_write(&s.v.f.access, &s.chain, from, data, have - from + 1),
                                -EINVAL);
                else
                        assert_int_equal(
                                virtq_read(&s.v.f.access, &s.chain, from, back, have - from + 1),
                                -EINVAL);
        }
        end(&s);
}

/* What a device writes is what it said: order within a chain, each byte in its place. */
static void writes_go_where_they_should(void **state)
{
        const struct vbuf bufs[3] = {
                {BUF, 3, false}, {BUF + 100, 5, true}, {VFAKE_HIGH + 4094, 4, true}};
        struct state s;
        char back[4] = "";

        begin(&s);
        chain_of(&s, bufs, 3);
        memcpy(vfake_ptr(&s.v, BUF), "abc", 3);
        assert_int_equal(virtq_read(&s.v.f.access, &s.chain, 1, back, 2), 0);
        assert_string_equal(back, "bc");
        assert_int_equal(virtq_write(&s.v.f.access, &s.chain, 3, "wxyz!", 5), 0);
        assert_memory_equal(vfake_ptr(&s.v, BUF + 100), "\0\0\0wx\0", 6);
        assert_memory_equal(vfake_ptr(&s.v, VFAKE_HIGH + 4093), "\0yz!\0", 5);
        end(&s);
}

static void buffers_outside_ram_are_refused(void **state)
{
        static const struct vbuf rows[] = {
                {0x500000, 16, true},
                {FAKE_MEMORY - 8, 16, true},
                {VFAKE_HIGH - 8, 16, true},
                {VFAKE_HIGH + VFAKE_HIGH_BYTES - 8, 16, true},
                {FAKE_MEMORY - 4096, 8192, true},
                {UINT64_MAX, 1, true},
                {UINT64_MAX - 7, 16, true},
                {UINT64_MAX - 7, 8, true},
                {0x100000000ull, 1, true},
                {0, UINT32_MAX - 4096, true},
                {FAKE_MEMORY - 8, 16, false},
                {UINT64_MAX - 7, 16, false},
        };
        struct iovec iov[8];
        struct state s;
        uint8_t *buf = malloc(16384);

        begin(&s);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct vbuf bufs[2] = {{BUF, 8, rows[i].writable}, rows[i]};
                bool in = rows[i].writable;
                uint64_t len = rows[i].len < 16384 ? rows[i].len : 16384;

                chain_of(&s, bufs, 2);
                assert_int_equal(
                        virtq_iov(&s.v.f.access, &s.chain, in, 0, 8ull + rows[i].len, iov, 8),
                        -EFAULT);
                if (rows[i].len <= 16384 && in)
                        assert_int_equal(virtq_write(&s.v.f.access, &s.chain, 8, buf, len),
                                         -EFAULT);
                if (rows[i].len <= 16384 && !in)
                        assert_int_equal(virtq_read(&s.v.f.access, &s.chain, 8, buf, len), -EFAULT);
                /* the part that is RAM is no trouble */
                assert_int_equal(virtq_iov(&s.v.f.access, &s.chain, in, 0, 8, iov, 8), 1);
        }
        free(buf);
        end(&s);
}

/* Where pages have moved (the engine `rom`), a segment is in pieces; what was written is dirty. */
static void pages_that_moved_are_pieces(void **state)
{
        static uint64_t moved[(FAKE_MEMORY + VFAKE_HIGH_BYTES) / 4096 / 64],
                dirty[sizeof moved / 8];
        const struct vbuf bufs[2] = {{0x10800, 0x3000, true}, {0x13800, 0x1000, true}};
        uint8_t *other;
        struct iovec iov[8];
        struct state s;

        begin(&s);
        other = aligned_alloc(4096, FAKE_MEMORY);
        s.v.f.mem.moved = moved;
        s.v.f.mem.moved_by = other - s.v.f.mem.regions[0].hva;
        s.v.f.mem.dirty = dirty;
        moved[0] = 1ull << 0x11 | 1ull << 0x12 | 1ull << 0x14;
        tlb_drop(&s.v.f.tlb);
        chain_of(&s, bufs, 2);
        assert_int_equal(virtq_iov(&s.v.f.access, &s.chain, true, 0, 0x4000, iov, 8), 4);
        assert_true(iov[0].iov_len == 0x800 && iov[1].iov_len == 0x2000 &&
                    iov[2].iov_len == 0x1000 && iov[3].iov_len == 0x800);
        assert_true(iov[1].iov_base == other + 0x11000 && iov[3].iov_base == other + 0x14000);
        memset(dirty, 0, sizeof dirty);
        virtq_wrote(&s.v.f.access, &s.chain, 0x2000, 0x1801);
        assert_true(dirty[0] == (1ull << 0x12 | 1ull << 0x13 | 1ull << 0x14));
        memset(dirty, 0, sizeof dirty);
        virtq_wrote(&s.v.f.access, &s.chain, 0x3801, 0x1000); /* beyond the end: nothing */
        assert_int_equal(dirty[0], 0);
        s.v.f.mem.moved = NULL;
        s.v.f.mem.dirty = NULL;
        tlb_drop(&s.v.f.tlb);
        free(other);
        end(&s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(where_a_queue_may_be),
                cmocka_unit_test(chains_are_read_as_they_were_written),
                cmocka_unit_test(chains_are_out_together),
                cmocka_unit_test(a_chain_is_a_copy),
                cmocka_unit_test(malformed_chains_are_refused),
                cmocka_unit_test(what_was_not_negotiated_is_refused),
                cmocka_unit_test(heads_and_indices_are_checked),
                cmocka_unit_test(no_more_are_out_than_entries),
                cmocka_unit_test(odd_chains_that_are_right),
                cmocka_unit_test(buffers_are_found_byte_by_byte),
                cmocka_unit_test(writes_go_where_they_should),
                cmocka_unit_test(buffers_outside_ram_are_refused),
                cmocka_unit_test(pages_that_moved_are_pieces),
        };

        return cmocka_run_group_tests_name("virtq", tests, NULL, NULL);
}
