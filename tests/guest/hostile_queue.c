// SPDX-License-Identifier: Apache-2.0
/*
 * Queues against the rules: chains, rings and indirect tables (virtio 1.2, section 2.7), and where
 * buffers may not be. The first table goes for every device; a disk's chain has a header before the
 * buffer and a status after it.
 */
#include "hostile.h"

#define D(dev)  (1u << (dev))
#define IN      (D(RNG) | D(RX))
#define VQS     (D(DISK) | D(RNG) | D(TX) | D(RX))
#define NEXT    VRING_DESC_F_NEXT
#define WRITE   VRING_DESC_F_WRITE
#define INDIR   VRING_DESC_F_INDIRECT
#define ENTRY   ((uint32_t)sizeof(struct vring_desc))
#define NOINDIR VIRTIO_F(VIRTIO_RING_F_INDIRECT_DESC)
#define NOEVENT VIRTIO_F(VIRTIO_RING_F_EVENT_IDX)

/* A table of @n descriptors, 0 of them the queue's: the queue's own is left alone then. */
static struct vring_desc *table(struct ctx *c, uint64_t in_indirect, uint64_t n)
{
        if (!in_indirect)
                return c->q.mem->desc;
        desc(c->q.mem->desc, indirect, (uint32_t)n * ENTRY, INDIR, 0);
        return indirect;
}

/* @n descriptors, the last of which goes on at the first. */
static void loop(struct ctx *c, uint64_t n, uint64_t in_indirect)
{
        struct vring_desc *t;

        if (n > c->q.size)
                n = c->q.size;
        t = table(c, in_indirect, n);
        for (unsigned i = 0; i < n; i++)
                desc(t + i, buf, 8, payload_flags(c) | NEXT, (i + 1) % (unsigned)n);
        shoot(c, 0);
}

/* A chain that ends, but has one descriptor more than the queue; the table is long enough. */
static void too_long(struct ctx *c, uint64_t a, uint64_t b)
{
        struct vring_desc *t = table(c, 1, c->q.size);

        for (unsigned i = 0; i < c->q.size; i++)
                desc(t + i, buf, 8, payload_flags(c) | (i + 1 < c->q.size ? NEXT : 0), i + 1);
        desc(c->q.mem->desc + 1, indirect, c->q.size * ENTRY, INDIR, 0);
        desc(c->q.mem->desc, buf, 8, payload_flags(c) | NEXT, 1);
        shoot(c, 0);
}

/* A queue of 64, behind the end of which there is a good chain: whoever looks there likes it. */
static int small(struct ctx *c)
{
        if (virtio_begin(&c->dev, ~0ull) || vq_setup(&c->q, &c->dev, c->kind == TX, 64, c->mem))
                return -1;
        virtio_go(&c->dev);
        chain(c, 64);
        return 0;
}

static void head(struct ctx *c, uint64_t n, uint64_t b)
{
        if (!small(c))
                shoot(c, (unsigned)n);
}

static void next(struct ctx *c, uint64_t n, uint64_t in_indirect)
{
        struct vring_desc *t;

        if (small(c))
                return;
        if (in_indirect) {
                unsigned entries = chain_in(c, indirect);

                t = table(c, 1, entries) + entries - 1;
                n += n < 0x100 ? entries : 0;
        } else {
                t = c->q.mem->desc;
                desc(t, buf, 16, payload_flags(c), 0);
                if (c->kind == DISK) /* the rest of a request is there */
                        *t = t[64];
                n += c->kind == DISK && n < 0x100;
        }
        t->flags |= NEXT;
        t->next = (uint16_t)n;
        shoot(c, 0);
}

/* The available index leaps to @to entries from where it should be; @good_ones before that. */
static void leap(struct ctx *c, uint64_t to, uint64_t good_ones)
{
        for (unsigned i = 0; i < good_ones; i++)
                if (good(c, 0))
                        return;
        chain(c, 0);
        for (unsigned i = 0; i < c->q.size; i++)
                c->q.mem->avail.ring[i] = 0;
        publish(c, c->q.avail_idx + (unsigned)to + (to == 1 ? c->q.size : 0));
        settle(c);
}

/* The same chain twice: twice served, or refused. */
static void twice(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 0);
        offer(c, 0);
        shoot(c, 0);
}

static void table_of(struct ctx *c, uint64_t bytes, uint64_t flags)
{
        chain_in(c, indirect);
        desc(c->q.mem->desc, indirect, (uint32_t)bytes, (unsigned)flags | INDIR, 1);
        desc(c->q.mem->desc + 1, buf, 8, payload_flags(c), 0);
        shoot(c, 0);
}

static void table_of_size(struct ctx *c, uint64_t more, uint64_t b)
{
        table_of(c, (c->q.size + more) * ENTRY, 0);
}

static void good_table(struct ctx *c, uint64_t flags, uint64_t b)
{
        unsigned n = chain_in(c, indirect);

        desc(c->q.mem->desc, indirect, n * ENTRY, INDIR | (unsigned)flags, 0);
        shoot(c, 0);
}

/* A table in a table; @at: which of its descriptors. */
static void nested(struct ctx *c, uint64_t at, uint64_t b)
{
        unsigned n = chain_in(c, indirect + 32);

        for (unsigned i = 0; i < at; i++)
                desc(indirect + i, buf, 16, NEXT, i + 1);
        desc(indirect + at, indirect + 32, n * ENTRY, INDIR, 0);
        desc(c->q.mem->desc, indirect, (uint32_t)(at + 1) * ENTRY, INDIR, 0);
        shoot(c, 0);
}

/* The table is the queue's own. */
static void own_table(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 1);
        desc(c->q.mem->desc, c->q.mem->desc + (a ? 0 : 1), 4 * ENTRY, INDIR, 0);
        shoot(c, 0);
}

static void payload_length(struct ctx *c, uint64_t len, uint64_t b)
{
        unsigned p = chain(c, 0);

        c->q.mem->desc[p].len = (uint32_t)len;
        shoot(c, 0);
}

/* All descriptors, each with @each bytes of the same buffer. */
static void many(struct ctx *c, uint64_t each, uint64_t less)
{
        unsigned n = c->q.size, p = chain(c, 0), last = n - 1;
        struct vring_desc *t = c->q.mem->desc, status = t[p + 1];

        for (unsigned i = p; i < n; i++)
                desc(t + i, buf, (uint32_t)each, payload_flags(c) | (i < last ? NEXT : 0), i + 1);
        t[p].len -= (uint32_t)less;
        if (p)
                t[last] = status;
        c->may_write = BUF_BYTES;
        shoot(c, 0);
}

static void four_gib(struct ctx *c, uint64_t less, uint64_t b)
{
        unsigned n = c->q.size - (c->kind == DISK ? 2 : 0);

        many(c, 0x100000000ull / n + (n < c->q.size), less);
}

/* A descriptor of the other direction after the one that was right. */
static void order(struct ctx *c, uint64_t a, uint64_t b)
{
        desc(c->q.mem->desc, buf, 16, WRITE | NEXT, 1);
        desc(c->q.mem->desc + 1, &hdr, 16, NEXT, 2);
        desc(c->q.mem->desc + 2, &status_byte, 1, WRITE, 0);
        c->may_write = 16;
        shoot(c, 0);
}

/* Only descriptors of the other direction. */
static void reversed(struct ctx *c, uint64_t a, uint64_t b)
{
        unsigned p = chain(c, 0);

        for (unsigned i = 0; i < (p ? 3 : 1); i++)
                c->q.mem->desc[i].flags ^= WRITE;
        shoot(c, 0);
}

/* Interrupt and notification suppression words of any value stop nothing but themselves. */
static void events(struct ctx *c, uint64_t value, uint64_t b)
{
        c->q.mem->avail.flags = (uint16_t)value;
        c->q.mem->avail.ring[c->q.size] = (uint16_t)value;
        c->q.mem->used.flags = (uint16_t)value;
        *(volatile uint16_t *)&c->q.mem->used.ring[c->q.size] = (uint16_t)value;
        chain(c, 0);
        shoot(c, 0);
}

/* The used ring is the device's; what a driver writes there is not believed. */
static void used_index(struct ctx *c, uint64_t value, uint64_t b)
{
        if (good(c, 0))
                return;
        c->q.mem->used.idx = (uint16_t)value;
        c->q.used_idx = (uint16_t)value;
        chain(c, 0);
        offer(c, 0);
        publish(c, c->q.avail_idx);
        for (unsigned i = 0; c->q.mem->used.idx != 2; i++) {
                if (i == ms_for(c)) {
                        wrong(c, "the used index is not the device's own");
                        return;
                }
                sleep_ms(1);
        }
        c->got = WORKS;
}

const struct hostile_case queue_cases[] = {
        {"loop of one", VQS, loop, 1, 0, REFUSED},
        {"loop of two", VQS, loop, 2, 0, REFUSED},
        {"loop of 100", VQS, loop, 100, 0, REFUSED},
        {"loop of the whole queue", VQS, loop, 0x10000, 0, REFUSED},
        {"loop of one in a table", VQS, loop, 1, 1, REFUSED},
        {"loop of two in a table", VQS, loop, 2, 1, REFUSED},
        {"loop of a whole table", VQS, loop, 0x10000, 1, REFUSED},
        {"chain longer than the queue", VQS, too_long, 0, 0, REFUSED},
        {"head just beyond the queue", VQS, head, 64, 0, REFUSED},
        {"head 65535", VQS, head, 65535, 0, REFUSED},
        {"head 32768", VQS, head, 32768, 0, REFUSED},
        {"next just beyond the table", VQS, next, 64, 0, REFUSED},
        {"next 65535", VQS, next, 65535, 0, REFUSED},
        {"next just beyond an indirect table", VQS, next, 0, 1, REFUSED},
        {"next 65535 in an indirect table", VQS, next, 65535, 1, REFUSED},
        {"index leaps by the size and one", VQS, leap, 1, 0, REFUSED},
        {"index leaps by 32768", VQS, leap, 32768, 0, REFUSED},
        {"index leaps by 65535", VQS, leap, 65535, 0, REFUSED},
        {"index goes back", VQS, leap, 65535, 3, REFUSED},
        {"index goes back behind the beginning", VQS, leap, 65535 - 4, 3, REFUSED},
        {"the same chain twice", VQS, twice, 0, 0, HARMLESS},
        {"indirect table of no bytes", VQS, table_of, 0, 0, REFUSED},
        {"indirect table of 1 byte", VQS, table_of, 1, 0, REFUSED},
        {"indirect table of 15 bytes", VQS, table_of, 15, 0, REFUSED},
        {"indirect table of 17 bytes", VQS, table_of, 17, 0, REFUSED},
        {"indirect table of one entry too many", VQS, table_of_size, 1, 0, REFUSED},
        {"indirect table of 64 KiB", VQS, table_of, 0x10000, 0, REFUSED},
        {"indirect table of 4 GiB", VQS, table_of, 0xfffffff0, 0, REFUSED},
        {"indirect table and a next descriptor", VQS, table_of, 48, NEXT, REFUSED},
        {"indirect table for writing", VQS, good_table, WRITE, 0, STATUS(OK)},
        {"indirect table, not negotiated", VQS, good_table, 0, 0, REFUSED, 0, NOINDIR},
        {"indirect table", VQS, good_table, 0, 0, STATUS(OK)},
        {"indirect table in an indirect table", VQS, nested, 0, 0, REFUSED},
        {"indirect table deeper in one", D(DISK) | D(TX), nested, 1, 0, REFUSED},
        {"indirect table that has itself in it", VQS, own_table, 1, 0, REFUSED},
        {"indirect table in the queue's own", VQS, own_table, 0, 0, STATUS(OK)},
        {"buffer of no bytes", VQS, payload_length, 0, 0, REFUSED},
        {"chain of 4 GiB", VQS, four_gib, 0, 0, REFUSED},
        {"chain of 512 GiB", VQS, many, 0xffffffff, 0, REFUSED},
        {"readable after writable", VQS, order, 0, 0, REFUSED},
        {"all in the other direction", D(DISK) | IN, reversed, 0, 0, REFUSED},
        {"all in the other direction", D(TX), reversed, 0, 0, STATUS(OK)}, /* nothing to print */
        {"event words 0xffff", VQS, events, 0xffff, 0, STATUS(OK)},
        {"event words 0xffff, no event index", VQS, events, 0xffff, 0, STATUS(OK), NOEVENT},
        {"used index 9", VQS, used_index, 9, 0, WORKS},
        {0},
};

/* --- where buffers, tables and rings may not be --- */

enum place {
        WRAPS,        /* begins below 2^64 and ends above 0 */
        ENDS_AT_WRAP, /* its end is 2^64 */
        BEYOND,       /* right behind all RAM */
        FAR,          /* no processor has that many address bits */
        OVER_LOW,     /* begins in RAM below the hole, ends in the hole */
        OVER_HIGH,    /* begins in RAM above 4 GiB, ends behind it */
        INTO_4G,      /* begins in the hole, ends in RAM above 4 GiB */
        HOLE,
        BELL,
        REGISTERS, /* the device's own */
        APIC,
        LAST_LOW, /* the last bytes that are RAM */
        LAST_HIGH,
        FIRST_HIGH,
        BOOT_PAGE, /* RAM like any other */
};

static uint64_t place(const struct ctx *c, uint64_t where, uint64_t len)
{
        uint64_t end = high_end ? high_end : low_end;

        switch (where) {
        case WRAPS:
                return -(len / 2 + 8) & ~15ull;
        case ENDS_AT_WRAP:
                return -len;
        case BEYOND:
                return end;
        case FAR:
                return 0x7fffffffff000000;
        case OVER_LOW:
                return low_end - len / 32 * 16;
        case OVER_HIGH:
                return end - len / 32 * 16;
        case INTO_4G:
                return LAYOUT_HIGH_RAM - len / 32 * 16;
        case HOLE:
                return LAYOUT_LOW_RAM_END + 0x8000000;
        case BELL:
                return LAYOUT_DOORBELL;
        case REGISTERS:
                return c->dev.base;
        case APIC:
                return LAYOUT_LAPIC;
        case LAST_LOW:
                return low_end - len;
        case LAST_HIGH:
                return end - len;
        case FIRST_HIGH:
                return high_end ? LAYOUT_HIGH_RAM : low_end - len;
        default:
                return 0x3000;
        }
}

static void buffer_at(struct ctx *c, uint64_t where, uint64_t b)
{
        unsigned p = chain(c, 0);

        c->q.mem->desc[p].addr = place(c, where, c->q.mem->desc[p].len);
        shoot(c, 0);
}

static void table_at(struct ctx *c, uint64_t where, uint64_t b)
{
        unsigned n = chain_in(c, indirect);

        if (n == 1) /* long enough to straddle */
                n = 2;
        desc(c->q.mem->desc, (void *)place(c, where, n * ENTRY), n * ENTRY, INDIR, 0);
        shoot(c, 0);
}

static void header_at(struct ctx *c, uint64_t where, uint64_t b)
{
        chain(c, 0);
        c->q.mem->desc[0].addr = place(c, where, 32);
        shoot(c, 0);
}

static void status_at(struct ctx *c, uint64_t where, uint64_t b)
{
        chain(c, 0);
        c->q.mem->desc[2].addr = place(c, where, 16) + (where == OVER_LOW ? 16 : 0);
        shoot(c, 0);
}

/* The device writes over what it works with. */
static void over(struct ctx *c, uint64_t what, uint64_t b)
{
        unsigned p = chain(c, 0);
        uint64_t to[] = {(uint64_t)c->q.mem->desc, (uint64_t)&c->q.mem->avail,
                         (uint64_t)&c->q.mem->used, (uint64_t)&hdr, (uint64_t)&status_byte};

        c->nocheck = 2;
        c->q.mem->desc[p].addr = to[what] & ~15ull;
        shoot(c, 0);
}

/* Firmware tables are RAM, and a guest may write what it likes there. They come back. */
static void firmware(struct ctx *c, uint64_t where, uint64_t b)
{
        static uint8_t saved[512];
        unsigned p = chain(c, 0);

        __builtin_memcpy(saved, (void *)where, sizeof saved);
        c->q.mem->desc[p].addr = where;
        shoot(c, 0);
        __builtin_memcpy((void *)where, saved, sizeof saved);
}

#define BAD_PLACES(X)                                                                              \
        X("that wraps", WRAPS)                                                                     \
        X("that ends at 2^64", ENDS_AT_WRAP)                                                       \
        X("beyond RAM", BEYOND)                                                                    \
        X("far beyond RAM", FAR)                                                                   \
        X("over the end of low RAM", OVER_LOW)                                                     \
        X("over the end of RAM", OVER_HIGH)                                                        \
        X("from the hole into RAM", INTO_4G)                                                       \
        X("in the hole", HOLE)                                                                     \
        X("on the doorbell", BELL)                                                                 \
        X("on the device's registers", REGISTERS)                                                  \
        X("on the local APIC", APIC)

#define BUFFER(name, where)                                                                        \
        {"buffer " name, D(DISK), buffer_at, where, 0, STATUS(IOERR)},                             \
                {"buffer " name, IN | D(TX), buffer_at, where, 0, REFUSED},
#define TABLE(name, where)   {"indirect table " name, D(DISK) | D(RNG), table_at, where, 0, REFUSED},
#define HEADER(name, where)  {"header " name, D(DISK), header_at, where, 0, STATUS(IOERR)},
#define STATUSB(name, where) {"status byte " name, D(DISK), status_at, where, 0, REFUSED},

const struct hostile_case place_cases[] = {
        BAD_PLACES(BUFFER) BAD_PLACES(TABLE){"buffer at the end of low RAM", VQS, buffer_at,
                                             LAST_LOW, 0, STATUS(OK)},
        {"buffer at the end of RAM", VQS, buffer_at, LAST_HIGH, 0, STATUS(OK)},
        {"buffer at 4 GiB", VQS, buffer_at, FIRST_HIGH, 0, STATUS(OK)},
        {"buffer in a boot page", VQS, buffer_at, BOOT_PAGE, 0, STATUS(OK)},
        HEADER("beyond RAM", BEYOND) HEADER("far beyond RAM", FAR) HEADER("in the hole", HOLE)
                HEADER("that ends at 2^64", ENDS_AT_WRAP) STATUSB("beyond RAM", BEYOND) STATUSB(
                        "far beyond RAM", FAR) STATUSB("at the end of low RAM", OVER_LOW)
                        STATUSB("on the doorbell", BELL){"buffer over the descriptor table",
                                                         D(DISK) | IN, over, 0, 0, HARMLESS},
        {"buffer over the available ring", D(DISK) | IN, over, 1, 0, HARMLESS},
        {"buffer over the used ring", D(DISK) | IN, over, 2, 0, HARMLESS},
        {"buffer over the header", D(DISK), over, 3, 0, HARMLESS},
        {"buffer over the status byte", D(DISK), over, 4, 0, HARMLESS},
        {"buffer over ACPI tables", VQS, firmware, LAYOUT_ACPI, 0, STATUS(OK)},
        {"buffer over the generation id", VQS, firmware, LAYOUT_VMGENID, 0, STATUS(OK)},
        {0},
};
