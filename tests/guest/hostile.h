/* SPDX-License-Identifier: Apache-2.0 */
/* A driver that means harm: what its parts share. hostile.c has the story. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "virtio_driver.h"

/* What a row of a table leaves out is 0, and meant to be. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

enum dev { DISK, DISK_RO, RNG, TX, RX, NDEVS }; /* TX, RX: the queues of a console */

/* What becomes of a case. The names are in hostile.c. */
enum outcome {
        REFUSED,   /* NEEDS_RESET, and no used element since */
        COMPLETED, /* a used element; a disk's with the status that stands with it */
        IGNORED,   /* nothing at all, and the device works on without a reset */
        DISAGREED, /* FEATURES_OK did not stay set */
        WORKS,     /* the case itself looked, and all was as it should be */
        HARMLESS,  /* whatever it is, a reset and a good request find the device in order */
        /* never wanted: */
        STUCK,  /* no answer, and none to a good request either */
        WRONG,  /* c->why */
        ABSENT, /* no such device */
};

#define STATUS(s) COMPLETED, VIRTIO_BLK_S_##s
#define NO_STATUS 0xff /* what the status byte is before a request */

#define BUF_BYTES   (512u * 1024)
#define FENCE_BYTES (512u * 1024)
#define INDIRECTS   1024

struct ctx;

struct hostile_case {
        const char *name;
        unsigned devs; /* 1 << enum dev: one case for each of them */
        void (*fn)(struct ctx *c, uint64_t a, uint64_t b);
        uint64_t a, b;
        enum outcome want;
        uint8_t status;
        uint64_t drop; /* features not to be negotiated */
        unsigned raw;  /* 1: the case begins at a device that was reset, without queues */
};

struct ctx {
        const struct hostile_case *k;
        enum dev kind;
        struct vdev dev;
        struct vq q;
        struct vq_mem *mem;
        enum outcome got;
        const char *why; /* of WRONG */
        uint8_t status;
        uint16_t base;      /* used.idx before the harm */
        uint32_t head, len; /* of the used element */
        uint32_t may_write; /* bytes of the buffer that may have changed */
        uint64_t sum;       /* of what the device only reads, when the harm began */
        unsigned nocheck;   /* the case lets the device write over what is watched */
};

/* What devices read and write, with a fence before and after it, which nobody writes. */
struct arena {
        uint64_t before[FENCE_BYTES / 8];
        _Alignas(4096) uint8_t payload[BUF_BYTES];
        uint64_t after[FENCE_BYTES / 8];
};

extern struct arena arena;
#define buf (arena.payload)
extern struct virtio_blk_outhdr hdr;
extern volatile uint8_t status_byte;
extern struct vring_desc indirect[INDIRECTS];
extern struct vq_mem other_mem;    /* for a second queue */
extern uint64_t low_end, high_end; /* where RAM ends, below 4 GiB and above (0: none there) */

extern const struct hostile_case queue_cases[], place_cases[], register_cases[], disk_cases[],
        other_cases[], race_cases[];

/* --- the parts of a life --- */

int life(struct ctx *c, uint64_t drop); /* reset, features, queues, DRIVER_OK; 0 or -1 */
/* A request that any device must serve, in this life; @at: its first descriptor. 0, or -1 with
 * c->why. */
int good(struct ctx *c, unsigned at);
void wrong(struct ctx *c, const char *why);

/* --- chains by hand --- */

static inline void desc(struct vring_desc *d, const volatile void *at, uint32_t len, unsigned flags,
                        unsigned next)
{
        *d = (struct vring_desc){(uint64_t)at, len, (uint16_t)flags, (uint16_t)next};
}

/* A chain as it should be, its first descriptor being number @at: returns that of the buffer. */
unsigned chain(struct ctx *c, unsigned at);
/* The same in a table; returns how many there are. */
unsigned chain_in(struct ctx *c, struct vring_desc *table);
unsigned payload_flags(const struct ctx *c); /* WRITE or 0 */
uint32_t payload_len(const struct ctx *c);
void offer(struct ctx *c, unsigned head);        /* one more in the available ring */
void publish(struct ctx *c, unsigned avail_idx); /* and notify */
void settle(struct ctx *c);                      /* wait for what becomes of it: c->got */
void shoot(struct ctx *c, unsigned head);        /* offer, publish, settle */
unsigned ms_for(const struct ctx *c);

/* --- the other processor (hostile_race.c) --- */

void race_cpu(void); /* its life */

#endif
