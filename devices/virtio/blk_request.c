// SPDX-License-Identifier: Apache-2.0
/*
 * Requests of the block device (virtio 1.2, section 5.2.6), from the queue to the disk and back:
 *
 *      pop --> parse --> [ step --> disk ... landed --> done ] --> complete --> push, interrupt
 *                            ^                            |
 *                            '---- more of it, or a flush '
 *
 * A chain is a header of 16 bytes and data that the device reads, then data and one byte of status
 * that it writes; how they are cut into descriptors means nothing. Data go straight between guest
 * memory and the disk. For that time the section is lent (access.h), once for each step: landed()
 * gives it back and touches nothing else, since it may come while somebody waits for that alone.
 *
 * A request is done in steps of at most BLK_CHUNK bytes, or one range to be discarded or zeroed,
 * one after the other. So a request of any size needs an iovec of a fixed size, and one that is
 * large does not keep the disk, which works through submissions in their order, from all others.
 *
 * What is complete is pushed together, with one interrupt: when the last of the I/Os that the loop
 * found at an end in one turn has been looked at.
 *
 * A driver that gives no room for header or status, or a status byte that is not in RAM, cannot be
 * told that anything failed: the device breaks. Everything else that is wrong is answered.
 */
#include "devices/virtio/blk.h"

#include <errno.h>

#include "base/clock.h"

#define BATCH 64 /* chains that are popped before others have their turn */

static struct guest_access *mem_of(const struct blk *b)
{
        return b->v.env->mem;
}

/* --- the pool --- */

static struct blk_request *take(struct blk *b)
{
        struct blk_request *r = b->free;

        if (r) {
                b->free = r->next;
        } else if (b->fresh < BLK_REQUESTS) {
                r = &b->pool[b->fresh++];
                r->blk = b;
        }
        return r;
}

static void give(struct blk *b, struct blk_request *r)
{
        r->next = b->free;
        b->free = r;
}

/* --- the end of a request --- */

/* To be pushed by push_complete(). */
static void complete(struct blk_request *r, uint8_t status)
{
        struct blk *b = r->blk;

        r->status = status;
        r->next = NULL;
        if (b->first)
                b->last->next = r;
        else
                b->first = r;
        b->last = r;
}

/* How many bytes of the in part, from its beginning without a gap, were written (2.7.8.2): a driver
 * may take what lies beyond for its own old bytes. */
static uint32_t written(const struct blk_request *r)
{
        uint64_t status_at = r->chain.in_len - 1;

        return (uint32_t)(r->filled == status_at ? status_at + 1 : r->filled);
}

static void push(struct blk_request *r, struct err *err)
{
        struct blk *b = r->blk;

        if (virtq_write(mem_of(b), &r->chain, r->chain.in_len - 1, &r->status, 1) < 0)
                virtio_break(&b->v, "the status of a request is not in RAM");
        else if (virtq_push(&b->v.queues[0], mem_of(b), r->chain.head, written(r), err) < 0)
                virtio_break(&b->v, err->text);
}

/* Inside a section. */
static void push_complete(struct blk *b)
{
        struct err err;
        bool any = b->first;

        while (b->first) {
                struct blk_request *r = b->first;

                b->first = r->next;
                if (!b->v.broken)
                        push(r, &err);
                b->bytes_in_flight -= r->charge;
                b->in_flight--;
                give(b, r);
        }
        if (any && !b->v.broken)
                virtio_used(&b->v, 0);
        if (any && b->starved) {
                b->starved = false;
                virtio_poke(&b->v, 0);
        }
}

/* --- steps --- */

static bool moves_data(enum disk_op op)
{
        return op == DISK_READ || op == DISK_WRITE;
}

/* Loop thread, section or not: nothing but what has to do with the loan. What a read that failed
 * has written before is not known. */
static void landed(struct disk_request *d)
{
        struct blk_request *r = (struct blk_request *)d;
        struct guest_access *a = mem_of(r->blk);

        r->blk->landed++;
        if (!moves_data(d->op))
                return;
        if (d->op == DISK_READ)
                virtq_wrote(a, &r->chain, r->pos, d->len);
        guest_access_return(a, r->loan);
}

static void done(struct disk_request *d);

/* The next bytes of the data, as many as their pieces of memory fit in r->iov. */
static int map_chunk(struct blk_request *r, uint64_t *len, unsigned *niov)
{
        bool in = r->op == DISK_READ;
        uint64_t from = r->pos + (in ? 0 : r->data_from);
        int n;

        *len = r->len - r->pos < BLK_CHUNK ? r->len - r->pos : BLK_CHUNK;
        for (;;) {
                n = virtq_iov(mem_of(r->blk), &r->chain, in, from, *len, r->iov, BLK_PIECES);
                if (n != -E2BIG || *len <= DISK_SECTOR)
                        break;
                *len = *len / 2 / DISK_SECTOR * DISK_SECTOR;
        }
        if (n < 0)
                return n;
        *niov = (unsigned)n;
        return 0;
}

static bool is_over(const struct blk_request *r)
{
        return r->range == r->nranges && r->pos == r->len && !r->sync;
}

/* Start what comes next, or complete the request when there is nothing more; inside a section. */
static void step(struct blk_request *r)
{
        struct blk *b = r->blk;
        struct disk_request *d = &r->disk;

        if (is_over(r)) {
                complete(r, VIRTIO_BLK_S_OK);
                return;
        }
        *d = (struct disk_request){.op = r->op, .landed = landed, .done = done};
        if (r->range < r->nranges) {
                d->offset = r->ranges[r->range].offset;
                d->len = r->ranges[r->range].len;
        } else if (r->pos < r->len) {
                d->offset = r->offset + r->pos;
                if (map_chunk(r, &d->len, &d->niov) < 0) {
                        complete(r, VIRTIO_BLK_S_IOERR);
                        return;
                }
                d->iov = r->iov;
                r->loan = guest_access_lend(mem_of(b));
        } else {
                r->sync = false;
                d->op = DISK_FLUSH;
        }
        disk_submit(b->disk, d);
}

/* Sections of their own: most that are done need none, and are pushed by another. */
static void next_step(struct blk_request *r)
{
        struct guest_access *a = mem_of(r->blk);

        guest_access_begin(a);
        step(r);
        guest_access_end(a);
}

static void push_all(struct blk *b)
{
        struct guest_access *a = mem_of(b);

        guest_access_begin(a);
        push_complete(b);
        guest_access_end(a);
}

static void done(struct disk_request *d)
{
        struct blk_request *r = (struct blk_request *)d;
        struct blk *b = r->blk;

        b->landed--;
        if (b->dying)
                return;
        if (moves_data(d->op))
                r->pos += d->len;
        else if (r->range < r->nranges)
                r->range++;
        if (d->op == DISK_READ && d->result == 0)
                r->filled = r->pos;
        if (d->result < 0 || b->v.broken)
                complete(r, VIRTIO_BLK_S_IOERR);
        else if (is_over(r))
                complete(r, VIRTIO_BLK_S_OK);
        else
                next_step(r);
        if (b->landed == 0)
                push_all(b);
}

/* --- what the guest asks for --- */

/* [@sector, + @len bytes), as bytes. False: not on the disk. */
static bool on_disk(const struct blk *b, uint64_t sector, uint64_t len, uint64_t *offset)
{
        uint64_t bytes = disk_bytes(b->disk);

        if (sector > bytes / DISK_SECTOR || len > bytes - sector * DISK_SECTOR)
                return false;
        *offset = sector * DISK_SECTOR;
        return true;
}

static uint8_t parse_data(struct blk_request *r, uint64_t sector, uint64_t len)
{
        struct blk *b = r->blk;

        if (len % DISK_SECTOR || len > BLK_DATA_MAX || !on_disk(b, sector, len, &r->offset))
                return VIRTIO_BLK_S_IOERR;
        if (r->op == DISK_WRITE && disk_readonly(b->disk))
                return VIRTIO_BLK_S_IOERR;
        r->len = len;
        r->charge = len;
        return VIRTIO_BLK_S_OK;
}

static uint8_t parse_range(struct blk_request *r, const struct virtio_blk_discard_write_zeroes *in,
                           uint32_t sectors_max)
{
        struct blk_range *range = &r->ranges[r->nranges];
        uint32_t known = r->op == DISK_WRITE_ZEROES ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;

        if (in->flags & ~known)
                return VIRTIO_BLK_S_UNSUPP;
        range->len = (uint64_t)in->num_sectors * DISK_SECTOR;
        if (in->num_sectors > sectors_max ||
            !on_disk(r->blk, in->sector, range->len, &range->offset))
                return VIRTIO_BLK_S_IOERR;
        if (range->len == 0)
                return VIRTIO_BLK_S_OK;
        r->nranges++;
        if (r->op == DISK_WRITE_ZEROES) /* some files take as long as for a write */
                r->charge += range->len;
        return VIRTIO_BLK_S_OK;
}

static uint8_t parse_ranges(struct blk_request *r, uint32_t sectors_max)
{
        struct virtio_blk_discard_write_zeroes in[BLK_RANGES_MAX];
        uint64_t len = r->chain.out_len - r->data_from;
        uint8_t status = VIRTIO_BLK_S_OK;

        if (len == 0 || len % sizeof in[0] || len > sizeof in || disk_readonly(r->blk->disk))
                return VIRTIO_BLK_S_IOERR;
        if (virtq_read(mem_of(r->blk), &r->chain, r->data_from, in, len) < 0)
                return VIRTIO_BLK_S_IOERR;
        for (unsigned i = 0; i < len / sizeof in[0] && status == VIRTIO_BLK_S_OK; i++)
                status = parse_range(r, &in[i], sectors_max);
        return status;
}

static uint8_t get_id(struct blk_request *r)
{
        struct blk *b = r->blk;
        uint64_t room = r->chain.in_len - 1;
        uint64_t len = room < sizeof b->serial ? room : sizeof b->serial;

        if (virtq_write(mem_of(b), &r->chain, 0, b->serial, len) < 0)
                return VIRTIO_BLK_S_IOERR;
        r->filled = len;
        return VIRTIO_BLK_S_OK;
}

/* What the chain asks for, ready for the first step(): there may be nothing to do. A status other
 * than OK ends it at once. */
static uint8_t parse(struct blk_request *r, const struct virtio_blk_outhdr *header)
{
        const struct virtq_chain *c = &r->chain;
        bool write_through = !virtio_has(&r->blk->v, VIRTIO_BLK_F_FLUSH);

        switch (header->type) {
        case VIRTIO_BLK_T_IN:
                r->op = DISK_READ;
                return parse_data(r, header->sector, c->in_len - 1);
        case VIRTIO_BLK_T_OUT:
                r->op = DISK_WRITE;
                r->sync = write_through;
                return parse_data(r, header->sector, c->out_len - sizeof *header);
        case VIRTIO_BLK_T_FLUSH:
                r->sync = true;
                return VIRTIO_BLK_S_OK;
        case VIRTIO_BLK_T_DISCARD:
                r->op = DISK_DISCARD;
                return parse_ranges(r, BLK_DISCARD_MAX);
        case VIRTIO_BLK_T_WRITE_ZEROES:
                r->op = DISK_WRITE_ZEROES;
                r->sync = write_through;
                return parse_ranges(r, BLK_ZEROES_MAX);
        case VIRTIO_BLK_T_GET_ID:
                return get_id(r);
        default:
                return VIRTIO_BLK_S_UNSUPP;
        }
}

/* --- the throttle --- */

static void throttle_over(void *data)
{
        struct blk *b = data;

        b->throttled = false;
        virtio_poke(&b->v, 0);
}

void blk_unthrottle(struct blk *b)
{
        loop_remove(b->timer);
        b->timer = NULL;
        b->throttled = false;
}

/* True: nothing more is popped before the timer has fired. */
static bool hold_back(struct blk *b)
{
        uint64_t wait_ns;
        int r;

        if (!b->limited)
                return false;
        wait_ns = throttle_delay(&b->throttle, clock_now_ns());
        if (wait_ns == 0)
                return false;
        r = b->timer ? loop_rearm_timer(b->timer, wait_ns)
                     : loop_add_timer(b->v.env->loop, wait_ns, throttle_over, b, &b->timer);
        b->throttled = r == 0;
        return b->throttled; /* no memory for a timer: rather too fast than never */
}

/* --- the queue --- */

/* Begin what the chain in @r asks for. */
static void begin(struct blk *b, struct blk_request *r)
{
        struct virtio_blk_outhdr header;
        uint8_t status = VIRTIO_BLK_S_IOERR;

        r->op = DISK_FLUSH; /* which moves no data: nothing to do unless the header says so */
        r->sync = false;
        r->len = r->pos = r->charge = 0;
        r->nranges = r->range = 0;
        r->filled = 0;
        r->data_from = sizeof header;
        if (virtq_read(mem_of(b), &r->chain, 0, &header, sizeof header) == 0)
                status = parse(r, &header);
        b->in_flight++;
        b->bytes_in_flight += r->charge;
        if (b->limited)
                throttle_take(&b->throttle, r->len, clock_now_ns());
        if (status == VIRTIO_BLK_S_OK)
                step(r);
        else
                complete(r, status);
}

/* Take a chain into @r. False: there is none, or none any more. */
static bool pop(struct blk *b, struct blk_request *r)
{
        struct err err;
        int n = virtq_pop(&b->v.queues[0], mem_of(b), &r->chain, &err);

        if (n < 0) {
                virtio_break(&b->v, err.text);
        } else if (n > 0 &&
                   (r->chain.out_len < sizeof(struct virtio_blk_outhdr) || r->chain.in_len < 1)) {
                virtio_break(&b->v, "a request has no room for its header or its status");
                n = 0;
        }
        return n > 0;
}

bool blk_process(struct virtio_device *v, unsigned q)
{
        struct blk *b = (struct blk *)v;
        unsigned n;

        for (n = 0; n < BATCH && !b->throttled && !hold_back(b); n++) {
                struct blk_request *r = NULL;

                if (b->bytes_in_flight < BLK_IN_FLIGHT_MAX)
                        r = take(b);
                if (!r) {
                        b->starved = true;
                        break;
                }
                if (!pop(b, r)) {
                        give(b, r);
                        break;
                }
                begin(b, r);
        }
        push_complete(b);
        return n == BATCH;
}
