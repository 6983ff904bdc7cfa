/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the two files of the block device: blk.c has its life (configuration, forks, saved
 * state), blk_request.c what the guest asks of it.
 */
#ifndef RAMET_DEVICES_VIRTIO_BLK_H
#define RAMET_DEVICES_VIRTIO_BLK_H

#include <linux/virtio_blk.h>

#include "devices/virtio/virtio.h"
#include "io/disk.h"
#include "io/throttle.h"

/* What the configuration space says to the driver, and the limits that requests are held to. */
#define BLK_SEG_MAX     (VIRTQ_SIZE_MAX - 2) /* besides header and status */
#define BLK_SIZE_MAX    (256u << 10)         /* bytes of a segment */
#define BLK_DATA_MAX    ((uint64_t)BLK_SEG_MAX * BLK_SIZE_MAX)
#define BLK_RANGES_MAX  16u                          /* of a discard or write-zeroes request */
#define BLK_DISCARD_MAX ((256u << 20) / DISK_SECTOR) /* sectors of one of them */
#define BLK_ZEROES_MAX  ((16u << 20) / DISK_SECTOR)
#define BLK_ALIGN       8u /* sectors: what a discard had better keep to, and a physical block */

#define BLK_REQUESTS VIRTQ_SIZE_MAX

/* Bytes that are under way, at most, before the next request is left in the queue: what a quiesce
 * waits for has a limit, whatever the guest asks for. */
#define BLK_IN_FLIGHT_MAX (16ull << 20)
/* Bytes of one request that go to the disk at a time, and the pieces of memory that they may be in:
 * of VIRTQ_SIZE_MAX segments each can be cut in two by a page that lies elsewhere, and then some.
 * A sector always fits, so a request always goes on. */
#define BLK_CHUNK         (1u << 20)
#define BLK_PIECES        (2 * VIRTQ_SIZE_MAX)

struct blk;

/* One chain that was popped, until it is pushed. */
struct blk_request {
        struct disk_request disk; /* what is at the disk now */
        struct blk *blk;          /* [I] */
        struct blk_request *next; /* free, or complete */
        enum disk_op op;
        uint8_t status;     /* VIRTIO_BLK_S_ */
        bool sync;          /* a flush follows the last write */
        unsigned loan;      /* while READ or WRITE is at the disk */
        uint64_t offset;    /* of the disk, in bytes */
        uint64_t len, pos;  /* bytes of data, and how many of them are done */
        uint64_t data_from; /* WRITE: where in the chain's out part they begin */
        uint64_t charge;    /* what it counts for in bytes_in_flight */
        uint64_t filled;    /* bytes of the in part that were written, without the status */
        unsigned nranges, range;
        struct blk_range {
                uint64_t offset, len; /* bytes */
        } ranges[BLK_RANGES_MAX];     /* DISCARD, WRITE_ZEROES */
        struct virtq_chain chain;
        struct iovec iov[BLK_PIECES];
};

struct blk {
        struct virtio_device v; /* the first member */
        struct disk *disk;
        struct throttle throttle;
        bool limited;             /* it has a limit */
        struct loop_watch *timer; /* NULL before the first time that the throttle was empty */
        bool throttled;           /* it is armed: nothing is popped before it */
        bool starved;             /* requests were left in the queue: poke when one is complete */
        bool dying;               /* destroy(): guest memory is not touched any more */
        char serial[VIRTIO_BLK_ID_BYTES];
        uint64_t bytes_in_flight;
        unsigned in_flight;               /* requests popped and not pushed */
        unsigned landed;                  /* I/Os between landed() and done() */
        struct blk_request *free;         /* used before */
        struct blk_request *first, *last; /* complete, to be pushed */
        unsigned fresh;                   /* of pool[], used so far */
        int files[DISK_LAYERS_MAX];       /* given by restore_files, until restore */
        unsigned nfiles;
        struct blk_request *pool; /* BLK_REQUESTS of them; memory comes as it is used */
};

/* struct virtio_ops.process */
bool blk_process(struct virtio_device *v, unsigned q);
/* Forget what the throttle holds back. */
void blk_unthrottle(struct blk *b);

#endif
