/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A split virtqueue (virtio 1.2, section 2.7), as the device sees it. The guest's driver puts
 * chains of descriptors into it, the device takes them, uses them and gives them back:
 *
 *      driver:  descriptor table, available ring  -->  virtq_pop()   a chain, copied and checked
 *      device:  virtq_push()  -->  used ring      -->  virtq_notify_wanted()  -->  interrupt
 *
 * All three areas are the guest's memory and may change at any moment: each field is read once, and
 * what it said is checked before it is used. What breaks the rules makes the queue broken, which it
 * stays until it is set up anew; the device then says NEEDS_RESET.
 *
 * Threads: the loop's, inside a section of the machine's guest_access (access.h).
 */
#ifndef RAMET_DEVICES_VIRTIO_QUEUE_H
#define RAMET_DEVICES_VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/err.h"
#include "mem/access.h"

#define VIRTQ_SIZE_MAX 256u /* entries of a queue, and descriptors of a chain */

/* Where a queue is, as the driver set it up; fixed once it is in use. */
struct virtq_layout {
        uint64_t desc, driver, device; /* descriptor table, available ring, used ring: GPAs */
        uint16_t size;                 /* a power of two, 1 to VIRTQ_SIZE_MAX */
};

struct virtq {
        struct virtq_layout at;
        bool ready;     /* it was set up, and works */
        bool event_idx; /* VIRTIO_F_EVENT_IDX was negotiated */
        bool indirect;  /* VIRTIO_F_INDIRECT_DESC was */
        uint16_t
                next_avail; /* the next entry of the available ring to be looked at, free-running */
        uint16_t next_used; /* the next entry of the used ring, free-running */
        uint16_t seen;      /* the available index, when it was last read */
        uint16_t signalled; /* next_used when virtq_interrupt_wanted() was last asked */
        bool signalled_valid;  /* false: 65536 pushes or more ago */
        uint32_t outstanding;  /* chains popped and not pushed */
        uint64_t pops, pushes; /* statistics */
};

/* A piece of guest memory. */
struct virtq_segment {
        uint64_t gpa;
        uint32_t len;  /* at least 1 */
        bool writable; /* by the device */
};

/* What one entry of the available ring asks for: first what the device reads, then what it
 * writes. */
struct virtq_chain {
        uint16_t head;
        uint16_t nout, nin;       /* segments of each kind: seg[0 .. nout - 1], seg[nout ..] */
        uint64_t out_len, in_len; /* bytes of each kind; the sum is below 4 GiB */
        struct virtq_segment seg[VIRTQ_SIZE_MAX];
};

/* Set up. 0; -EINVAL with err (size, alignment: 16, 2 and 4 bytes, or an area that is not RAM of
 * one region). The queue is zeroed otherwise. */
int virtq_init(struct virtq *q, struct guest_access *a, const struct virtq_layout *at,
               bool event_idx, bool indirect, struct err *err);

/* Is there something to take, or an index so wrong that pop() would say so? */
bool virtq_available(struct virtq *q, struct guest_access *a);
/* Take the next chain. 1; 0 when there is none; -EPROTO when the driver broke the rules (err says
 * how), and ever after, as all other calls then do nothing. Bounded by the queue's size, whatever
 * the guest does; no more than that many chains are ever out at a time. */
int virtq_pop(struct virtq *q, struct guest_access *a, struct virtq_chain *chain, struct err *err);
/* The last chain popped was not used, and none was after it: it will be popped again. */
void virtq_unpop(struct virtq *q);
/* Give back the chain that began at @head, of which @written bytes were written. 0, or -EPROTO. */
int virtq_push(struct virtq *q, struct guest_access *a, uint16_t head, uint32_t written,
               struct err *err);
/* After pushes: does the driver want an interrupt for them? Asks once for each group of pushes:
 * false when there were none since. */
bool virtq_interrupt_wanted(struct virtq *q, struct guest_access *a);
/* The device wants (or does not want) to be notified of what is made available from now on. After
 * asking for it, look once more: true when something is there already. */
bool virtq_ask_notify(struct virtq *q, struct guest_access *a, bool wanted);

/* Where bytes [@from, @from + @len) of the chain's out part (@in false) or in part are, as an iovec
 * for the kernel; neighbours are joined. Returns the number of entries; -E2BIG for more than @max,
 * -EFAULT when some of it is not RAM, -EINVAL when the part is shorter. Spans: good until the
 * section or its loan ends. */
int virtq_iov(struct guest_access *a, const struct virtq_chain *chain, bool in, uint64_t from,
              uint64_t len, struct iovec *iov, unsigned max);
/* Copy from the out part, or to the in part, beginning at byte @from of it. 0, -EFAULT (not RAM),
 * -EINVAL (the part is shorter). */
int virtq_read(struct guest_access *a, const struct virtq_chain *chain, uint64_t from, void *buf,
               uint64_t len);
int virtq_write(struct guest_access *a, const struct virtq_chain *chain, uint64_t from,
                const void *buf, uint64_t len);
/* [@from, @from + @len) of the in part was written through virtq_iov()'s pointers: see
 * guest_access_wrote(). */
void virtq_wrote(struct guest_access *a, const struct virtq_chain *chain, uint64_t from,
                 uint64_t len);

/* Saved state of a queue. */
struct virtq_record {
        uint64_t desc, driver, device;
        uint16_t size;
        uint16_t next_avail, next_used, signalled;
        uint8_t ready, event_idx, indirect, signalled_valid;
        uint32_t enabled; /* the transport's: QueueReady was set */
};

#endif
