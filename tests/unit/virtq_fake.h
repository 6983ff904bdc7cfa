/* SPDX-License-Identifier: Apache-2.0 */
/* A queue without a device, for tests of queue.c. Include after cmocka.h. */
#ifndef RAMET_TESTS_VIRTQ_FAKE_H
#define RAMET_TESTS_VIRTQ_FAKE_H

#include "virtio_fake.h"

#define SIZE  8
#define NEXT  VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIR VRING_DESC_F_INDIRECT
#define BUF   0x10000ull /* memory that the driver's allocator does not give out */
#define TABLE 0x20000ull

struct state {
        struct vfake v;
        struct virtq q;
        struct virtq_chain chain;
        struct err err;
};

static uint64_t seed = 0x123456789abcdef;

static inline uint64_t rnd(void)
{
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed * 0x2545f4914f6cdd1d;
}

/* Memory, a queue in it, and a section that is open. */
static inline void begin_queue(struct state *s, uint16_t size, bool event_idx, bool indirect)
{
        vfake_machine(&s->v);
        vfake_make_queue(&s->v, 0, size);
        if (event_idx)
                s->v.features |= 1ull << VIRTIO_RING_F_EVENT_IDX;
        s->err.text[0] = 0;
        guest_access_begin(&s->v.f.access);
        assert_int_equal(
                virtq_init(&s->q, &s->v.f.access, &s->v.q[0].at, event_idx, indirect, &s->err), 0);
}

static inline void begin(struct state *s)
{
        begin_queue(s, SIZE, false, true);
}

static inline void end(struct state *s)
{
        guest_access_end(&s->v.f.access);
        vfake_fini(&s->v);
}

static inline int pop(struct state *s)
{
        return virtq_pop(&s->q, &s->v.f.access, &s->chain, &s->err);
}

static inline int push(struct state *s, uint16_t head, uint32_t len)
{
        return virtq_push(&s->q, &s->v.f.access, head, len, &s->err);
}

static inline void desc(struct state *s, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags,
                        uint16_t next)
{
        vfake_desc(&s->v, s->v.q[0].at.desc, i, gpa, len, flags, next);
}

static inline void entry(struct state *s, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags,
                         uint16_t next)
{
        vfake_desc(&s->v, TABLE, i, gpa, len, flags, next);
}

static inline void offer(struct state *s, uint16_t head)
{
        vfake_offer(&s->v, 0, head);
}

#endif
