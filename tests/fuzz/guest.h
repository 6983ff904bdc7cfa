/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One virtio device in a machine without a machine (tests/unit/virtio_fake.h), and a guest that
 * does with it what an input says: right things, so that an input gets far, and any other.
 *
 * The machine is made once, a device for each input. I/O is done by threads, so that the sanitizer
 * sees which bytes are read and written; it is waited for before the next step, so that an input
 * always does the same. Memory that an input wrote is zeroed after it.
 *
 * A device must survive whatever comes: after each input it is reset, and must be there again.
 */
#ifndef RAMET_TESTS_FUZZ_GUEST_H
#define RAMET_TESTS_FUZZ_GUEST_H

#include "input.h"

#define FAKE_URING false
#include "virtio_fake.h"

#define RINGS    0x100000u /* of queue 0; those of the next 0x4000 further on */
#define BUFFERS  0x140000u
#define NBUFFERS 256u
#define BUFFER   0x400u

static struct guest {
        struct vfake v;
        uint64_t dirty[(FAKE_MEMORY + VFAKE_HIGH_BYTES) / 4096 / 64];
        struct virtq_layout at[VIRTIO_QUEUES_MAX];
        uint16_t avail[VIRTIO_QUEUES_MAX];
        uint16_t next_desc[VIRTIO_QUEUES_MAX];
        bool ready; /* the machine is made */
        /* A request for this device: writes its header, returns its length; NULL: anything. */
        unsigned (*request)(struct input *in, uint8_t *header, unsigned max);
} g;

/* --- machine and memory --- */

/* Before anything else; f.params can be changed afterwards. */
static inline void guest_machine(void)
{
        if (g.ready)
                return;
        vfake_machine(&g.v);
        g.v.f.mem.dirty = g.dirty;
        g.v.f.params.virtio_console = true;
        fcntl(g.v.f.in, F_SETFL, O_NONBLOCK);
        g.ready = true;
}

static inline void guest_begin(const struct device_ops *ops)
{
        guest_machine();
        fake_create(&g.v.f, ops);
        memset(g.avail, 0, sizeof g.avail);
        memset(g.at, 0, sizeof g.at);
        memset(g.next_desc, 0, sizeof g.next_desc);
}

/* Do what there is to do, I/O included. */
static inline void guest_run(void)
{
        for (int i = 0; i < 3; i++) {
                assert_int_equal(loop_step(g.v.f.env.loop, 0), 0);
                loop_io_settle(g.v.f.env.loop);
        }
        assert_int_equal(loop_step(g.v.f.env.loop, 0), 0);
        assert_int_equal(atomic_load(&g.v.f.held), 0);
}

static inline void guest_end(void)
{
        struct fake *f = &g.v.f;
        char sink[4096];

        f->ops->destroy(f->dev);
        loop_io_drain(f->env.loop);
        assert_int_equal(atomic_load(&f->held), 0);
        assert_int_equal(g.v.f.access.depth, 0);
        assert_int_equal(g.v.f.access.lent + g.v.f.access.unlent, 0);
        while (f->nslots > 0) {
                f->nslots--;
                close(f->slots[f->nslots].notify_fd);
                close(f->slots[f->nslots].irq_fd);
        }
        for (int i = 0; i < 20 && read(f->out, sink, sizeof sink) > 0; i++)
                loop_step(f->env.loop, 0);
        chardev_discard(f->env.console);
        for (uint64_t i = 0; i < sizeof g.dirty * 8; i++) {
                uint64_t at = i * 4096;

                if (g.dirty[i / 64] >> i % 64 & 1)
                        memset(vfake_ptr(&g.v,
                                         at < FAKE_MEMORY ? at : at - FAKE_MEMORY + VFAKE_HIGH),
                               0, 4096);
        }
        memset(g.dirty, 0, sizeof g.dirty);
}

static inline void guest_put(uint64_t gpa, const void *data, size_t len)
{
        (void)guest_mem_write(&g.v.f.mem, gpa, data, len);
}

static inline void guest_put16(uint64_t gpa, uint16_t value)
{
        guest_put(gpa, &value, sizeof value);
}

/* A buffer, mostly. */
static inline uint64_t take_gpa(struct input *in)
{
        uint8_t kind = take8(in);

        switch (kind & 15) {
        case 15:
                return take64(in);
        case 14: /* around the hole, and the ends of memory */
                return (kind & 16   ? VFAKE_HIGH
                        : kind & 32 ? VFAKE_HIGH + VFAKE_HIGH_BYTES
                                    : FAKE_MEMORY) +
                       (uint64_t)(int8_t)take8(in) * 16;
        case 13:
                return RINGS + take16(in);
        default:
                return BUFFERS + take8(in) % NBUFFERS * BUFFER;
        }
}

/* --- the driver --- */

/* A write of a register by a vCPU, which goes on when it is released. */
static inline void guest_register(unsigned offset, unsigned len, uint64_t value)
{
        fake_write(&g.v.f, 0, offset, len, value);
        for (int i = 0; i < 4 && atomic_load(&g.v.f.held) > 0; i++)
                guest_run();
        assert_int_equal(atomic_load(&g.v.f.held), 0);
}

static inline unsigned guest_queues(void)
{
        return vfake_device(&g.v)->ops->nqueues;
}

static inline void guest_set_queue(struct input *in, unsigned q)
{
        uint8_t kind = take8(in);
        struct virtq_layout *at = &g.at[q];
        uint64_t base = RINGS + q * 0x4000ull;

        *at = (struct virtq_layout){base, base + 0x2000, base + 0x3000,
                                    (uint16_t)(64u >> (kind & 7))};
        if ((kind & 0xe0) == 0x60)
                at->desc = take_gpa(in);
        if ((kind & 0xe0) == 0x80)
                at->driver = take_gpa(in);
        if ((kind & 0xe0) == 0xa0)
                at->device = take_gpa(in);
        if ((kind & 0xe0) == 0xc0)
                at->size = take16(in);
        if ((kind & 0xe0) == 0xe0)
                return; /* not there */
        (void)guest_mem_set(&g.v.f.mem, base, 0, 0x4000);
        vfake_set_queue(&g.v, q, at);
}

/* From any state to DRIVER_OK, as a driver does it, but for what the input says. */
static inline void guest_start(struct input *in)
{
        uint8_t kind = take8(in);
        uint64_t wanted = VFAKE_ALL;

        if (kind & 1)
                wanted &= ~(1ull << VIRTIO_RING_F_EVENT_IDX);
        if (kind & 2)
                wanted &= ~(1ull << VIRTIO_RING_F_INDIRECT_DESC);
        if (kind & 4)
                wanted &= take64(in);
        vfake_negotiate(&g.v, wanted);
        for (unsigned q = 0; q < guest_queues(); q++) {
                guest_set_queue(in, q);
                g.avail[q] = g.next_desc[q] = 0;
        }
        vfake_add_status(&g.v, VIRTIO_CONFIG_S_DRIVER_OK);
        guest_run();
}

/* One piece of a chain: a descriptor at @where. The first one that the device reads has the
 * request's header. */
static inline void describe(struct input *in, uint64_t where, bool first, bool last, uint16_t next)
{
        uint8_t kind = take8(in), data[64];
        struct vring_desc d = {.addr = take_gpa(in), .len = take_len(in), .next = next};
        unsigned n = 0;

        if (kind & 1 && !(first && g.request))
                d.flags |= VRING_DESC_F_WRITE;
        if (!last)
                d.flags |= VRING_DESC_F_NEXT;
        if (first && g.request) {
                n = g.request(in, data, sizeof data);
                if ((kind & 6) != 6)
                        d.len = n;
        } else if (kind & 8) {
                n = take8(in) % sizeof data;
                take(in, data, n);
        }
        if ((kind & 0xf0) == 0xf0) {
                d.flags = take16(in);
                d.next = take16(in);
        }
        guest_put(d.addr, data, n);
        guest_put(where, &d, sizeof d);
}

static inline void guest_offer(struct input *in, unsigned q)
{
        uint8_t kind = take8(in);
        struct virtq_layout *at = &g.at[q];
        unsigned n = 1 + (kind & 7), size = at->size ? at->size : 1;
        uint16_t head = (uint16_t)(g.next_desc[q] % size);
        uint64_t table = at->desc;

        if (kind & 8) {
                const struct vring_desc d = {.addr = take_gpa(in) & ~15ull,
                                             .len = 16 * n,
                                             .flags = VRING_DESC_F_INDIRECT};

                table = d.addr;
                guest_put(at->desc + sizeof d * head, &d, sizeof d);
                g.next_desc[q]++;
        }
        for (unsigned i = 0; i < n; i++) {
                unsigned slot = kind & 8 ? i : g.next_desc[q]++ % size;
                unsigned next = kind & 8 ? i + 1 : g.next_desc[q] % size;

                describe(in, table + sizeof(struct vring_desc) * slot, i == 0, i + 1 == n,
                         (uint16_t)next);
        }
        guest_put16(at->driver + 4 + 2ull * (g.avail[q] % size), head);
        guest_put16(at->driver + 2, ++g.avail[q]);
}

static inline void guest_write_memory(struct input *in)
{
        uint8_t data[32];
        uint64_t gpa = take_gpa(in);
        unsigned n = take8(in) % sizeof data;

        take(in, data, n);
        guest_put(gpa, data, n);
}

/* Any register, or place in the configuration, with any width. */
static inline void guest_access_register(struct input *in)
{
        uint8_t kind = take8(in);
        unsigned offset = take8(in) * 4u, len = 4;

        if (kind & 1)
                offset = take16(in);
        if (kind & 2)
                len = 1u << (take8(in) & 3);
        if (kind & 4)
                fake_read(&g.v.f, 0, offset, len);
        else if (kind & 8)
                guest_register(offset, len, take64(in));
        else
                guest_register(offset, len, take8(in));
}

/* What every guest can do; @op below 8. */
static inline void guest_act(struct input *in, unsigned op)
{
        unsigned q = guest_queues() > 1 ? take8(in) % guest_queues() : 0;

        switch (op) {
        case 0:
        case 1:
                guest_offer(in, q);
                break;
        case 2:
                guest_register(VIRTIO_MMIO_QUEUE_NOTIFY, 4, q);
                guest_run();
                break;
        case 3:
                guest_run();
                break;
        case 4:
                guest_write_memory(in);
                break;
        case 5:
                guest_access_register(in);
                break;
        case 6:
                guest_start(in);
                break;
        default:
                guest_put16(g.at[q].driver + 2, g.avail[q] = take16(in));
                break;
        }
}

/* --- the machine's owner --- */

static inline void guest_quiesce(void)
{
        g.v.f.ops->quiesce(g.v.f.dev);
        assert_int_equal(g.v.f.access.lent + g.v.f.access.unlent, 0);
}

static inline void guest_resume(void)
{
        g.v.f.ops->resume(g.v.f.dev);
        guest_run();
}

/* Save and restore: the same again. For devices without files. */
static inline void guest_save_restore(void)
{
        static uint8_t a[16384], b[16384];
        struct err err = {0};

        assert_true(g.v.f.ops->record_length <= sizeof a);
        guest_quiesce();
        g.v.f.ops->save(g.v.f.dev, a);
        assert_int_equal(g.v.f.ops->restore(g.v.f.dev, a, g.v.f.ops->record_version, &err), 0);
        g.v.f.ops->save(g.v.f.dev, b);
        assert_memory_equal(a, b, g.v.f.ops->record_length);
        guest_resume();
}

/* Restore the record of @length bytes, changed here and there as the input says, into the device,
 * which is quiesced. When it is refused, nothing has happened to the device; when it is taken and
 * @exact, the device says the same when it is saved. Returns whether it was taken. */
static inline bool guest_restore_changed(struct input *in, uint8_t *record, bool exact)
{
        static uint8_t before[16384], after[sizeof before];
        const struct device_ops *ops = g.v.f.ops;
        uint32_t length = ops->record_length;
        struct err err = {0};
        int r;

        assert_true(length <= sizeof before);
        ops->save(g.v.f.dev, before);
        for (unsigned n = take8(in) % 16; n > 0; n--) {
                uint32_t at = take16(in) % length, len = 1u << (take8(in) & 3);

                take(in, record + at, len < length - at ? len : length - at);
        }
        r = ops->restore(g.v.f.dev, record, ops->record_version, &err);
        assert_true(r == 0 || (r < 0 && err.text[0]));
        ops->save(g.v.f.dev, after);
        if (exact)
                assert_memory_equal(after, r ? before : record, length);
        return r == 0;
}

/* Whatever has been done, a driver that resets the device finds it new. */
static inline void guest_recover(void)
{
        struct input none = {0};

        guest_resume();
        guest_start(&none);
        assert_int_equal(vfake_status(&g.v) &
                                 (VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_DRIVER_OK),
                         VIRTIO_CONFIG_S_DRIVER_OK);
}

/* An honest chain of one buffer to be written by the device, or of one with @len bytes of @out
 * before it. Returns how many bytes were written; it must be used. */
static inline uint32_t guest_honest(unsigned q, const void *out, uint32_t len, uint32_t in_len)
{
        struct virtq_layout *at = &g.at[q];
        struct vring_desc d[2] = {
                {BUFFERS, len, VRING_DESC_F_NEXT, 1},
                {BUFFERS + BUFFER, in_len, VRING_DESC_F_WRITE, 0},
        };
        struct vring_used_elem used;

        guest_put(BUFFERS, out, len);
        guest_put(at->desc, len ? d : d + 1, len ? sizeof d : sizeof d[0]);
        guest_put16(at->driver + 4 + 2ull * (g.avail[q] % at->size), 0);
        guest_put16(at->driver + 2, ++g.avail[q]);
        guest_register(VIRTIO_MMIO_QUEUE_NOTIFY, 4, q);
        guest_run();
        guest_run();
        assert_int_equal(vfake_get16(&g.v, at->device + 2), g.avail[q]);
        memcpy(&used, vfake_ptr(&g.v, at->device + 4 + 8ull * ((g.avail[q] - 1u) % at->size)),
               sizeof used);
        assert_int_equal(used.id, 0);
        return used.len;
}

#endif
