/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's side of a split virtqueue: see queue.h. Sections named below are those of virtio
 * 1.2.
 *
 * What the driver may do wrong, and what is made of it. A queue that it set up against the rules,
 * or whose descriptors break them, is broken: no entry of it can be believed. A buffer that is not
 * RAM breaks nothing here, since it is not touched: the device that wants to use it hears -EFAULT,
 * and decides. Three rules are decided here where the specification is silent or mild:
 *
 *   - a descriptor of length 0 breaks the queue. It carries nothing, no driver is known to make
 *     one on purpose, and other devices refuse it as well;
 *   - a chain has less than 4 GiB. The specification allows just 4 GiB (2.7.5.2), which the used
 *     ring, having 32 bits for a length, could not report;
 *   - an indirect table has no more entries than the queue, as the chain must not (2.7.5.3.1), so
 *     that it is read at once and then not looked at again.
 *
 * Loops need no rule: a chain that is longer than the queue has one, or breaks the rule of length.
 * An available index may not run ahead of what has been used by more than the queue has entries
 * either. So a device never has more chains in its hands than that, whatever the driver does.
 *
 * Memory order. Guest and device agree by indices; each is read before what it publishes is, and
 * written after (pairs with the driver's barriers, 2.7.13):
 *
 *      device                              driver
 *      read avail idx                      write descriptors, ring entry
 *      read ring entry, descriptors        write avail idx
 *
 *      write used element                  read used idx
 *      write used idx                      read used element
 *
 * and where both sides write one thing and then read another, neither may miss the other's write:
 *
 *      write used idx                      write used_event
 *      read used_event: interrupt?         read used idx: go to sleep?
 *
 *      write avail_event                   write avail idx
 *      read avail idx: anything new?       read avail_event: notify?
 *
 * The latter two need more than acquire and release, so indices, events and flags are read and
 * written sequentially consistent; on x86 that costs the writes an xchg, and the reads nothing.
 */
#include "devices/virtio/queue.h"

#include <assert.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

/* Offsets in the available and the used ring (2.7.6, 2.7.8). */
#define RING_FLAGS 0u
#define RING_IDX   2u
#define RING       4u

static uint64_t used_event(const struct virtq *q)
{
        return q->at.driver + RING + 2ull * q->at.size;
}

static uint64_t avail_event(const struct virtq *q)
{
        return q->at.device + RING + 8ull * q->at.size;
}

/* --- words that both sides use; the areas are RAM, so these do not fail --- */

static uint16_t load16(struct guest_access *a, uint64_t gpa)
{
        uint64_t piece;
        const uint8_t *p = guest_access_span(a, gpa, 2, false, &piece);

        return p ? __atomic_load_n((const uint16_t *)p, __ATOMIC_SEQ_CST) : 0;
}

static void store16(struct guest_access *a, uint64_t gpa, uint16_t value)
{
        uint64_t piece;
        uint8_t *p = guest_access_span(a, gpa, 2, true, &piece);

        if (!p)
                return;
        __atomic_store_n((uint16_t *)p, value, __ATOMIC_SEQ_CST);
        guest_access_wrote(a, gpa, 2);
}

/* --- set-up --- */

static int check_area(const struct guest_access *a, const char *name, uint64_t gpa, uint64_t len,
                      unsigned align, struct err *err)
{
        if (gpa % align)
                return err_input(err, "the %s at 0x%llx is not aligned to %u bytes", name,
                                 (unsigned long long)gpa, align);
        if (!guest_mem_contains(a->mem, gpa, len))
                return err_input(err, "the %s at 0x%llx, %llu bytes long, is not in RAM", name,
                                 (unsigned long long)gpa, (unsigned long long)len);
        return 0;
}

/* Table 2.7 has the alignments and lengths; the rings have room for an event index, whether it is
 * used or not. */
int virtq_init(struct virtq *q, struct guest_access *a, const struct virtq_layout *at,
               bool event_idx, bool indirect, struct err *err)
{
        int r = 0;

        *q = (struct virtq){0};
        if (at->size == 0 || at->size > VIRTQ_SIZE_MAX || (at->size & (at->size - 1)))
                return err_input(err, "a size of %u is not a power of two up to %u", at->size,
                                 VIRTQ_SIZE_MAX);
        r = check_area(a, "descriptor table", at->desc, 16ull * at->size, 16, err);
        if (r == 0)
                r = check_area(a, "available ring", at->driver, 6 + 2ull * at->size, 2, err);
        if (r == 0)
                r = check_area(a, "used ring", at->device, 6 + 8ull * at->size, 4, err);
        if (r < 0)
                return r;
        q->at = *at;
        q->event_idx = event_idx;
        q->indirect = indirect;
        q->signalled_valid = true;
        q->ready = true;
        return 0;
}

/* --- taking chains --- */

/* A chain being read: from the queue's own table, then perhaps from an indirect one. */
struct walk {
        struct virtq *q;
        struct guest_access *a;
        struct virtq_chain *chain;
        struct err *err;
        unsigned entries; /* of the table */
        bool in_indirect;
        struct vring_desc *indirect; /* room for a copy of it: VIRTQ_SIZE_MAX */
};

static int add_segment(struct walk *w, const struct vring_desc *d)
{
        struct virtq_chain *c = w->chain;
        bool writable = d->flags & VRING_DESC_F_WRITE;

        if (d->len == 0)
                return err_host(w->err, EPROTO, "a descriptor of length 0");
        if (c->nout + c->nin == w->q->at.size)
                return err_host(w->err, EPROTO, "a chain longer than the queue, or a loop");
        if (!writable && c->nin > 0)
                return err_host(w->err, EPROTO, "a readable descriptor after a writable one");
        if (c->out_len + c->in_len + d->len > UINT32_MAX)
                return err_host(w->err, EPROTO, "a chain of 4 GiB or more");
        c->seg[c->nout + c->nin] = (struct virtq_segment){d->addr, d->len, writable};
        if (writable) {
                c->nin++;
                c->in_len += d->len;
        } else {
                c->nout++;
                c->out_len += d->len;
        }
        return 0;
}

/* The descriptor means a table; go on at its beginning. The WRITE flag is to be ignored here
 * (2.7.5.3.2). */
static int enter_indirect(struct walk *w, const struct vring_desc *d)
{
        if (!w->q->indirect)
                return err_host(w->err, EPROTO, "an indirect descriptor, which was not negotiated");
        if (w->in_indirect)
                return err_host(w->err, EPROTO, "an indirect descriptor in an indirect table");
        if (d->flags & VRING_DESC_F_NEXT)
                return err_host(w->err, EPROTO, "an indirect descriptor with a next one");
        if (d->len == 0 || d->len % sizeof *d || d->len / sizeof *d > w->q->at.size)
                return err_host(w->err, EPROTO,
                                "an indirect table of %u bytes, in a queue of %u entries", d->len,
                                w->q->at.size);
        if (guest_access_read(w->a, d->addr, w->indirect, d->len))
                return err_host(w->err, EPROTO, "an indirect table at 0x%llx, which is not in RAM",
                                (unsigned long long)d->addr);
        w->entries = d->len / (unsigned)sizeof *d;
        w->in_indirect = true;
        return 0;
}

static int fetch(struct walk *w, unsigned index, struct vring_desc *d)
{
        if (index >= w->entries)
                return err_host(w->err, EPROTO, "descriptor %u of a table of %u", index,
                                w->entries);
        if (w->in_indirect) {
                *d = w->indirect[index];
                return 0;
        }
        if (guest_access_read(w->a, w->q->at.desc + sizeof *d * index, d, sizeof *d))
                return err_host(w->err, EPROTO, "the descriptor table is not in RAM");
        return 0;
}

/* Each step adds a segment, or enters the one indirect table: so there are at most size + 2. */
static int walk_chain(struct walk *w, unsigned index)
{
        struct vring_desc d;
        int r;

        for (;;) {
                r = fetch(w, index, &d);
                if (r < 0)
                        return r;
                if (d.flags & VRING_DESC_F_INDIRECT) {
                        r = enter_indirect(w, &d);
                        index = 0;
                } else {
                        r = add_segment(w, &d);
                        if (!(d.flags & VRING_DESC_F_NEXT))
                                return r;
                        index = d.next;
                }
                if (r < 0)
                        return r;
        }
}

/* How many entries of the available ring have not been looked at; -EPROTO. */
static int count_available(struct virtq *q, struct guest_access *a, struct err *err)
{
        uint16_t ahead;

        q->seen = load16(a, q->at.driver + RING_IDX);
        ahead = (uint16_t)(q->seen - q->next_avail);
        if (ahead + q->outstanding > q->at.size)
                return err_host(err, EPROTO,
                                "an available index of %u, with %u taken, %u of them unused, in a "
                                "queue of %u",
                                q->seen, q->next_avail, q->outstanding, q->at.size);
        return ahead;
}

bool virtq_available(struct virtq *q, struct guest_access *a)
{
        return q->ready && count_available(q, a, NULL) != 0;
}

static int pop(struct virtq *q, struct guest_access *a, struct virtq_chain *chain, struct err *err)
{
        struct vring_desc indirect[VIRTQ_SIZE_MAX];
        struct walk w = {q, a, chain, err, q->at.size, false, indirect};
        int r = count_available(q, a, err);

        if (r <= 0)
                return r;
        chain->nout = chain->nin = 0;
        chain->out_len = chain->in_len = 0;
        chain->head = load16(a, q->at.driver + RING + 2ull * (q->next_avail % q->at.size));
        r = walk_chain(&w, chain->head);
        if (r < 0)
                return r;
        q->next_avail++;
        q->outstanding++;
        q->pops++;
        return 1;
}

int virtq_pop(struct virtq *q, struct guest_access *a, struct virtq_chain *chain, struct err *err)
{
        int r;

        if (!q->ready)
                return err_host(err, EPROTO, "the queue is not ready");
        r = pop(q, a, chain, err);
        if (r < 0)
                q->ready = false;
        return r;
}

void virtq_unpop(struct virtq *q)
{
        if (!q->ready)
                return;
        assert(q->outstanding > 0);
        q->next_avail--;
        q->outstanding--;
        q->pops--;
}

/* --- giving them back --- */

int virtq_push(struct virtq *q, struct guest_access *a, uint16_t head, uint32_t written,
               struct err *err)
{
        const struct vring_used_elem elem = {.id = head, .len = written};

        if (!q->ready)
                return err_host(err, EPROTO, "the queue is not ready");
        assert(q->outstanding > 0);
        if (guest_access_write(a, q->at.device + RING + 8ull * (q->next_used % q->at.size), &elem,
                               sizeof elem))
                return err_host(err, EPROTO, "the used ring is not in RAM");
        q->next_used++;
        q->outstanding--;
        q->pushes++;
        store16(a, q->at.device + RING_IDX, q->next_used);
        /* Once around since the last question: then the difference says nothing any more. */
        if (q->next_used == q->signalled)
                q->signalled_valid = false;
        return 0;
}

bool virtq_interrupt_wanted(struct virtq *q, struct guest_access *a)
{
        uint16_t old = q->signalled;
        bool valid = q->signalled_valid;

        if (!q->ready || (valid && old == q->next_used))
                return false;
        q->signalled = q->next_used;
        q->signalled_valid = true;
        if (!q->event_idx)
                return !(load16(a, q->at.driver + RING_FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
        return !valid || vring_need_event(load16(a, used_event(q)), q->next_used, old);
}

/* With an event index the driver is asked to notify of the entry after those that it has made
 * available, whether they were taken or not. There is no saying "never": what was asked for last is
 * one entry, and comes once. */
bool virtq_ask_notify(struct virtq *q, struct guest_access *a, bool wanted)
{
        if (!q->ready)
                return false;
        if (q->event_idx && wanted)
                store16(a, avail_event(q), load16(a, q->at.driver + RING_IDX));
        else if (!q->event_idx)
                store16(a, q->at.device + RING_FLAGS, wanted ? 0 : VRING_USED_F_NO_NOTIFY);
        return wanted && virtq_available(q, a);
}

/* --- buffers --- */

/* The next piece of [from, from + len) of a part: the rest of a segment. */
struct cursor {
        const struct virtq_segment *seg, *end;
        uint64_t skip, len;
};

static bool cursor_begin(struct cursor *c, const struct virtq_chain *chain, bool in, uint64_t from,
                         uint64_t len)
{
        uint64_t have = in ? chain->in_len : chain->out_len;

        if (from > have || len > have - from)
                return false;
        c->seg = chain->seg + (in ? chain->nout : 0);
        c->end = c->seg + (in ? chain->nin : chain->nout);
        c->skip = from;
        c->len = len;
        return true;
}

static bool cursor_next(struct cursor *c, uint64_t *gpa, uint64_t *len)
{
        for (; c->len > 0 && c->seg < c->end; c->seg++) {
                if (c->skip >= c->seg->len) {
                        c->skip -= c->seg->len;
                        continue;
                }
                *gpa = c->seg->gpa + c->skip;
                *len = c->seg->len - c->skip;
                if (*len > c->len)
                        *len = c->len;
                c->len -= *len;
                c->skip = 0;
                c->seg++;
                return true;
        }
        return false;
}

/* Add a piece of host memory; -E2BIG. */
static int add_iov(struct iovec *iov, unsigned *n, unsigned max, uint8_t *p, uint64_t len)
{
        if (*n > 0 && (uint8_t *)iov[*n - 1].iov_base + iov[*n - 1].iov_len == p) {
                iov[*n - 1].iov_len += len;
                return 0;
        }
        if (*n == max)
                return -E2BIG;
        iov[(*n)++] = (struct iovec){p, len};
        return 0;
}

int virtq_iov(struct guest_access *a, const struct virtq_chain *chain, bool in, uint64_t from,
              uint64_t len, struct iovec *iov, unsigned max)
{
        uint64_t gpa, n, piece;
        struct cursor c;
        unsigned niov = 0;
        int r = 0;

        if (!cursor_begin(&c, chain, in, from, len))
                return -EINVAL;
        while (r == 0 && cursor_next(&c, &gpa, &n)) {
                for (; r == 0 && n > 0; gpa += piece, n -= piece) {
                        uint8_t *p = guest_access_span(a, gpa, n, in, &piece);

                        if (!p)
                                return -EFAULT;
                        r = add_iov(iov, &niov, max, p, piece);
                }
        }
        return r < 0 ? r : (int)niov;
}

int virtq_read(struct guest_access *a, const struct virtq_chain *chain, uint64_t from, void *buf,
               uint64_t len)
{
        uint8_t *to = buf;
        uint64_t gpa, n;
        struct cursor c;

        if (!cursor_begin(&c, chain, false, from, len))
                return -EINVAL;
        for (; cursor_next(&c, &gpa, &n); to += n) {
                if (guest_access_read(a, gpa, to, n))
                        return -EFAULT;
        }
        return 0;
}

int virtq_write(struct guest_access *a, const struct virtq_chain *chain, uint64_t from,
                const void *buf, uint64_t len)
{
        const uint8_t *p = buf;
        uint64_t gpa, n;
        struct cursor c;

        if (!cursor_begin(&c, chain, true, from, len))
                return -EINVAL;
        for (; cursor_next(&c, &gpa, &n); p += n) {
                if (guest_access_write(a, gpa, p, n))
                        return -EFAULT;
        }
        return 0;
}

void virtq_wrote(struct guest_access *a, const struct virtq_chain *chain, uint64_t from,
                 uint64_t len)
{
        uint64_t gpa, n;
        struct cursor c;

        if (!cursor_begin(&c, chain, true, from, len))
                return;
        while (cursor_next(&c, &gpa, &n))
                guest_access_wrote(a, gpa, n);
}
