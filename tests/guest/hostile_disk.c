// SPDX-License-Identifier: Apache-2.0
/* Requests that a disk must not serve, or not like this (virtio 1.2, section 5.2.6). */
#include "hostile.h"

#define D(dev) (1u << (dev))
#define NEXT   VRING_DESC_F_NEXT
#define WRITE  VRING_DESC_F_WRITE
#define SECTOR 512u

static uint64_t sectors(const struct ctx *c)
{
        return vreg(&c->dev, VIRTIO_MMIO_CONFIG) | (uint64_t)vreg(&c->dev, VIRTIO_MMIO_CONFIG + 4)
                                                           << 32;
}

/* A request with one buffer of @len bytes (0: none), to be read (@out) or written. */
static void request(struct ctx *c, uint32_t type, uint64_t sector, uint32_t len, int out)
{
        struct vring_desc *d = c->q.mem->desc;
        unsigned n = 1;

        chain(c, 0);
        hdr.type = type;
        hdr.sector = sector;
        desc(d, &hdr, sizeof hdr, NEXT, 1);
        if (len)
                desc(d + n++, buf, len, (out ? 0 : WRITE) | NEXT, 2);
        desc(d + n, &status_byte, 1, WRITE, 0);
        c->may_write = out ? 0 : len;
        shoot(c, 0);
}

/* Sector @a from the end of the disk, or from 2^64 when it is that large; @b: bytes. */
static void read_at(struct ctx *c, uint64_t a, uint64_t b)
{
        request(c, VIRTIO_BLK_T_IN, a < 1u << 20 ? sectors(c) + a - 0x1000 : a, (uint32_t)b, 0);
}

static void write_at(struct ctx *c, uint64_t a, uint64_t b)
{
        request(c, VIRTIO_BLK_T_OUT, a < 1u << 20 ? sectors(c) + a - 0x1000 : a, (uint32_t)b, 1);
}

#define END(n)                                                                                     \
        (0x1000 + (n)) /* for the two above: @n sectors from the end, 0 is just behind it          \
                        */

static void type(struct ctx *c, uint64_t a, uint64_t len)
{
        request(c, (uint32_t)a, 0, (uint32_t)len, 0);
}

static void type_out(struct ctx *c, uint64_t a, uint64_t len)
{
        request(c, (uint32_t)a, 0, (uint32_t)len, 1);
}

/* A header of @a bytes. */
static void header(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 0);
        c->q.mem->desc[0].len = (uint32_t)a;
        shoot(c, 0);
}

/* Header in pieces: of 1, 7 and 8 bytes. That is allowed. */
static void header_in_pieces(struct ctx *c, uint64_t a, uint64_t b)
{
        struct vring_desc *d = c->q.mem->desc;

        chain(c, 0);
        desc(d, &hdr, 1, NEXT, 1);
        desc(d + 1, (uint8_t *)&hdr + 1, 7, NEXT, 2);
        desc(d + 2, (uint8_t *)&hdr + 8, 8, NEXT, 3);
        desc(d + 3, buf, 100, NEXT | WRITE, 4);
        desc(d + 4, buf + 100, 412, NEXT | WRITE, 5);
        desc(d + 5, &status_byte, 1, WRITE, 0);
        shoot(c, 0);
}

/* One descriptor only: the header (@a 0), or something to be written (1). */
static void alone(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 0);
        if (a)
                desc(c->q.mem->desc, buf, 513, WRITE, 0);
        else
                desc(c->q.mem->desc, &hdr, sizeof hdr, 0, 0);
        c->may_write = 513;
        shoot(c, 0);
}

static void no_status(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 0);
        hdr.type = VIRTIO_BLK_T_OUT;
        c->q.mem->desc[1].flags = 0; /* header, data, and the end */
        shoot(c, 0);
}

static void status_readable(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 0);
        hdr.type = VIRTIO_BLK_T_OUT;
        c->q.mem->desc[1].flags = NEXT;
        c->q.mem->desc[2].flags = 0;
        shoot(c, 0);
}

/* The status is the last byte of what can be written, however long the last descriptor. */
static void long_status(struct ctx *c, uint64_t a, uint64_t b)
{
        chain(c, 0);
        desc(c->q.mem->desc + 1, buf, 513, WRITE, 0);
        c->may_write = 513;
        buf[512] = NO_STATUS;
        shoot(c, 0);
        c->status = buf[512];
}

/* --- discard and write zeroes: @a says what is wrong with the segments --- */

static void segments(struct ctx *c, uint32_t type, unsigned n, uint64_t sector, uint32_t count,
                     uint32_t flags)
{
        struct virtio_blk_discard_write_zeroes *s = (void *)buf;

        for (unsigned i = 0; i < n; i++)
                s[i] = (struct virtio_blk_discard_write_zeroes){sector, count, flags};
        request(c, type, 0, n * (uint32_t)sizeof *s, 1);
        __builtin_memset(buf, 0x5a, n * sizeof *s);
}

enum { PAST, LAST, OVERFLOW, MANY, ALL_OVER, FLAGS, UNMAP, EMPTY, HUGE, SAME };

static void segment_case(struct ctx *c, uint64_t what, uint64_t type)
{
        uint64_t end = sectors(c);
        uint32_t t = (uint32_t)type;

        switch (what) {
        case PAST:
                segments(c, t, 1, end, 1, 0);
                break;
        case LAST:
                segments(c, t, 1, end - 1, 2, 0);
                break;
        case OVERFLOW:
                segments(c, t, 1, ~0ull - 3, 8, 0);
                break;
        case MANY:
                segments(c, t, 17, 64, 8, 0);
                break;
        case ALL_OVER:
                segments(c, t, 16, 64, 8, 0);
                break;
        case FLAGS:
                segments(c, t, 1, 64, 8, 0xfffffffe);
                break;
        case UNMAP:
                segments(c, t, 1, 64, 8, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
                break;
        case EMPTY:
                segments(c, t, 1, 64, 0, 0);
                break;
        case HUGE:
                segments(c, t, 1, 0, 0xffffffff, 0);
                break;
        default: /* 512 times all the disk behind the first sectors: work without an end? */
                segments(c, t, 512, 64, (uint32_t)end - 64, 0);
        }
}

static void segment_bytes(struct ctx *c, uint64_t len, uint64_t type)
{
        request(c, (uint32_t)type, 0, (uint32_t)len, 1);
}

static void segment_in(struct ctx *c, uint64_t len, uint64_t type)
{
        request(c, (uint32_t)type, 0, (uint32_t)len, 0);
}

/* A full queue of the largest reads, all into one buffer, again and again. */
static void flood(struct ctx *c, uint64_t rounds, uint64_t b)
{
        chain(c, 0);
        c->may_write = BUF_BYTES;
        hdr.sector = 0;
        desc(c->q.mem->desc + 1, buf, BUF_BYTES, WRITE | NEXT, 2);
        for (unsigned round = 0; round < rounds; round++) {
                uint16_t until = (uint16_t)(c->q.avail_idx + c->q.size);

                for (unsigned i = 0; i < c->q.size; i++)
                        offer(c, 0);
                publish(c, c->q.avail_idx);
                for (unsigned ms = 0; c->q.mem->used.idx != until; ms++) {
                        if (ms == 10000) {
                                wrong(c, "not all were served");
                                return;
                        }
                        sleep_ms(1);
                }
                c->q.used_idx = until;
        }
        c->got = WORKS;
}

static void config_write(struct ctx *c, uint64_t value, uint64_t b)
{
        uint64_t before = sectors(c);

        for (unsigned at = 0; at < 0x60; at += 4)
                vreg_write(&c->dev, VIRTIO_MMIO_CONFIG + at, (uint32_t)value);
        if (sectors(c) != before)
                wrong(c, "the capacity was written");
        else if (!good(c, 0))
                c->got = WORKS;
}

/* Each width at each place says the same as single bytes do, and zeros behind the end. */
static void config_widths(struct ctx *c, uint64_t a, uint64_t b)
{
        uint8_t byte[0x80];

        for (unsigned i = 0; i < sizeof byte; i++)
                byte[i] = *(volatile uint8_t *)(c->dev.base + VIRTIO_MMIO_CONFIG + i);
        for (unsigned i = 0; i + 8 <= sizeof byte; i++) {
                uint64_t at = c->dev.base + VIRTIO_MMIO_CONFIG + i;

                if (*(volatile uint16_t *)at != *(uint16_t *)(byte + i) ||
                    *(volatile uint32_t *)at != *(uint32_t *)(byte + i) ||
                    *(volatile uint64_t *)at != *(uint64_t *)(byte + i)) {
                        wrong(c, "another width says otherwise");
                        return;
                }
        }
        for (unsigned i = sizeof(struct virtio_blk_config); i < sizeof byte; i++)
                if (byte[i]) {
                        wrong(c, "something behind the end");
                        return;
                }
        c->got = WORKS;
}

#define DISCARD VIRTIO_BLK_T_DISCARD
#define ZEROES  VIRTIO_BLK_T_WRITE_ZEROES
#define BOTH(name, what, ...)                                                                      \
        {"discard " name, D(DISK), segment_case, what, DISCARD, __VA_ARGS__},                      \
        {                                                                                          \
                "write zeroes " name, D(DISK), segment_case, what, ZEROES, __VA_ARGS__             \
        }
#define BOTH_BYTES(name, fn, len, ...)                                                             \
        {"discard " name, D(DISK), fn, len, DISCARD, __VA_ARGS__},                                 \
        {                                                                                          \
                "write zeroes " name, D(DISK), fn, len, ZEROES, __VA_ARGS__                        \
        }

const struct hostile_case disk_cases[] = {
        {"read of the last sector", D(DISK) | D(DISK_RO), read_at, END(-1), SECTOR, STATUS(OK)},
        {"read just past the end", D(DISK) | D(DISK_RO), read_at, END(0), SECTOR, STATUS(IOERR)},
        {"read over the end", D(DISK), read_at, END(-1), 2 * SECTOR, STATUS(IOERR)},
        {"read at sector 2^64 - 1", D(DISK), read_at, ~0ull, SECTOR, STATUS(IOERR)},
        {"read at sector 2^55", D(DISK), read_at, 1ull << 55, SECTOR, STATUS(IOERR)},
        {"read at sector 2^55 - 1", D(DISK), read_at, (1ull << 55) - 1, SECTOR, STATUS(IOERR)},
        {"read at sector 2^63", D(DISK), read_at, 1ull << 63, SECTOR, STATUS(IOERR)},
        {"write just past the end", D(DISK), write_at, END(0), SECTOR, STATUS(IOERR)},
        {"write over the end", D(DISK), write_at, END(-1), 2 * SECTOR, STATUS(IOERR)},
        {"write at sector 2^64 - 1", D(DISK), write_at, ~0ull, SECTOR, STATUS(IOERR)},
        {"write at sector 2^55", D(DISK), write_at, 1ull << 55, SECTOR, STATUS(IOERR)},
        {"write to a read-only disk", D(DISK_RO), write_at, END(-8), SECTOR, STATUS(IOERR)},
        {"read of 1 byte", D(DISK), read_at, END(-8), 1, STATUS(IOERR)},
        {"read of 511 bytes", D(DISK), read_at, END(-8), 511, STATUS(IOERR)},
        {"read of 513 bytes", D(DISK), read_at, END(-8), 513, STATUS(IOERR)},
        {"write of 1 byte", D(DISK), write_at, END(-8), 1, STATUS(IOERR)},
        {"write of 511 bytes", D(DISK), write_at, END(-8), 511, STATUS(IOERR)},
        {"write of 1000 bytes", D(DISK), write_at, END(-8), 1000, STATUS(IOERR)},
        {"read of nothing", D(DISK), read_at, END(-8), 0, STATUS(OK)},
        {"write of nothing", D(DISK), write_at, END(-8), 0, STATUS(OK)},
        {"read of nothing past the end", D(DISK), read_at, END(8), 0, STATUS(IOERR)},
        {"read of 4 GiB less 2 KiB", D(DISK), read_at, END(-8), 0xfffff800, STATUS(IOERR)},
        {"write of 4 GiB less 2 KiB", D(DISK), write_at, END(-8), 0xfffff800, STATUS(IOERR)},
        {"header of 15 bytes", D(DISK), header, 15, 0, REFUSED},
        {"header of 1 byte", D(DISK), header, 1, 0, REFUSED},
        {"header of 17 bytes", D(DISK), header, 17, 0, STATUS(OK)},
        {"header in three pieces", D(DISK), header_in_pieces, 0, 0, STATUS(OK)},
        {"only a header", D(DISK), alone, 0, 0, REFUSED},
        {"only a status byte", D(DISK), alone, 1, 0, REFUSED},
        {"no status byte", D(DISK), no_status, 0, 0, REFUSED},
        {"status byte that is to be read", D(DISK), status_readable, 0, 0, REFUSED},
        {"status byte behind data, one descriptor", D(DISK), long_status, 0, 0, STATUS(OK)},
        {"type 3", D(DISK), type, 3, SECTOR, STATUS(UNSUPP)},
        {"type 5", D(DISK), type, 5, SECTOR, STATUS(UNSUPP)},
        {"type 0xffffffff", D(DISK), type, 0xffffffff, SECTOR, STATUS(UNSUPP)},
        {"type 0x80000000", D(DISK), type, 0x80000000, SECTOR, STATUS(UNSUPP)},
        {"type 2 (SCSI)", D(DISK), type_out, 2, SECTOR, STATUS(UNSUPP)},
        {"secure erase", D(DISK), type_out, 14, 16, STATUS(UNSUPP)},
        {"flush with data to be read", D(DISK), type_out, VIRTIO_BLK_T_FLUSH, SECTOR, STATUS(OK)},
        {"flush with data to be written", D(DISK), type, VIRTIO_BLK_T_FLUSH, SECTOR, STATUS(OK)},
        {"flush of a read-only disk", D(DISK_RO), type, VIRTIO_BLK_T_FLUSH, 0, STATUS(OK)},
        {"id into 1 byte", D(DISK), type, VIRTIO_BLK_T_GET_ID, 1, STATUS(OK)},
        {"id into 19 bytes", D(DISK), type, VIRTIO_BLK_T_GET_ID, 19, STATUS(OK)},
        {"id into nothing", D(DISK), type, VIRTIO_BLK_T_GET_ID, 0, STATUS(OK)},
        {"id into 64 KiB", D(DISK), type, VIRTIO_BLK_T_GET_ID, 0x10000, STATUS(OK)},
        {"write into what is to be written", D(DISK), type, VIRTIO_BLK_T_OUT, SECTOR, STATUS(OK)},
        {"read from what is to be read", D(DISK), type_out, VIRTIO_BLK_T_IN, SECTOR, STATUS(OK)},
        BOTH("past the end", PAST, STATUS(IOERR)),
        BOTH("over the end", LAST, STATUS(IOERR)),
        BOTH("that overflows", OVERFLOW, STATUS(IOERR)),
        BOTH("of 17 segments", MANY, STATUS(IOERR)),
        BOTH("of one place 16 times", ALL_OVER, STATUS(OK)),
        BOTH("with unknown flags", FLAGS, STATUS(UNSUPP)),
        {"discard with UNMAP", D(DISK), segment_case, UNMAP, DISCARD, STATUS(UNSUPP)},
        {"write zeroes with UNMAP", D(DISK), segment_case, UNMAP, ZEROES, STATUS(OK)},
        BOTH("of no sectors", EMPTY, STATUS(OK)),
        BOTH("of 2^32 - 1 sectors", HUGE, STATUS(IOERR)),
        BOTH("of all the disk 512 times", SAME, STATUS(IOERR)),
        BOTH_BYTES("without a segment", segment_bytes, 0, STATUS(IOERR)),
        BOTH_BYTES("of 15 bytes", segment_bytes, 15, STATUS(IOERR)),
        BOTH_BYTES("of 17 bytes", segment_bytes, 17, STATUS(IOERR)),
        BOTH_BYTES("with segments to be written", segment_in, 16, STATUS(IOERR)),
        {"discard on a read-only disk", D(DISK_RO), segment_case, ALL_OVER, DISCARD, STATUS(IOERR)},
        {"the queue full of large reads, 4 times", D(DISK), flood, 4, 0, WORKS},
        {"configuration written with 0", D(DISK) | D(DISK_RO), config_write, 0, 0, WORKS},
        {"configuration written with ones", D(DISK) | D(DISK_RO), config_write, ~0ull, 0, WORKS},
        {"configuration in every width", D(DISK) | D(DISK_RO), config_widths, 0, 0, WORKS},
        {0},
};
