/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the block device: each kind, each way to cut it into descriptors, each error, many at
 * a time, and with both backends of the loop. The disk is compared with a model of it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "blk_fake.h"

#define OK     VIRTIO_BLK_S_OK
#define IOERR  VIRTIO_BLK_S_IOERR
#define UNSUPP VIRTIO_BLK_S_UNSUPP

static const struct framing framings[] = {
        {"as Linux does", 0, 0, false},      {"indirect", 0, 0, true},
        {"header by bytes", 1, 0, false},    {"pieces of 7", 7, 7, false},
        {"pieces of 512", 16, 512, true},    {"header and data in one", 0, 0, true},
        {"across everything", 0, 33, false}, {"by bytes, indirect", 1, 3, true},
};
#define FRAMINGS (sizeof framings / sizeof framings[0])

/* One that separates header, data and status, as drivers do. */
static const struct framing three = {"three", 16, 0, false};

static uint64_t config(struct bfake *b, size_t offset, unsigned len)
{
        uint64_t value = 0;

        for (unsigned i = 0; i < len; i++)
                value |= fake_read(&b->v.f, 0, VIRTIO_MMIO_CONFIG + offset + i, 1) << (8 * i);
        return value;
}

#define CONFIG(b, field)                                                                           \
        config(b, offsetof(struct virtio_blk_config, field),                                       \
               sizeof((struct virtio_blk_config *)0)->field)

static void configuration(void **state)
{
        struct bfake b;

        bfake_init(&b);
        assert_int_equal(vfake_read(&b.v, VIRTIO_MMIO_DEVICE_ID), 2);
        assert_int_equal(vfake_offered(&b.v) & 0xffffff,
                         1u << VIRTIO_BLK_F_SIZE_MAX | 1u << VIRTIO_BLK_F_SEG_MAX |
                                 1u << VIRTIO_BLK_F_BLK_SIZE | 1u << VIRTIO_BLK_F_FLUSH |
                                 1u << VIRTIO_BLK_F_TOPOLOGY | 1u << VIRTIO_BLK_F_DISCARD |
                                 1u << VIRTIO_BLK_F_WRITE_ZEROES);
        assert_int_equal(CONFIG(&b, capacity), BLK_SECTORS);
        assert_int_equal(CONFIG(&b, seg_max), 254);
        assert_int_equal(CONFIG(&b, blk_size), 512);
        assert_int_equal(CONFIG(&b, physical_block_exp), 3);
        assert_int_equal(CONFIG(&b, max_discard_seg), 16);
        assert_int_equal(CONFIG(&b, max_write_zeroes_seg), 16);
        assert_int_equal(CONFIG(&b, write_zeroes_may_unmap), 1);
        assert_int_equal(config(&b, 60, 8), 0); /* beyond the end */
        assert_int_equal(fake_read(&b.v.f, 0, VIRTIO_MMIO_CONFIG, 8), BLK_SECTORS);
        assert_int_equal(fake_read(&b.v.f, 0, VIRTIO_MMIO_CONFIG + 0xef8, 8), 0);
        bfake_fini(&b);
}

static void reads_and_writes(void **state)
{
        uint8_t *data = bfake_contents(65536, 7), back[65536];
        struct bfake b;

        bfake_init(&b);
        bfake_check(&b);
        assert_int_equal(bfake_write(&b, 0, data, 512), OK);
        assert_int_equal(bfake_write(&b, 100, data, 65536), OK);
        assert_int_equal(bfake_write(&b, BLK_SECTORS - 1, data + 9, 512), OK);
        assert_int_equal(bfake_flush(&b), OK);
        assert_int_equal(bfake_read(&b, 99, back, 65536), OK);
        assert_memory_equal(back, b.model + 99 * 512, sizeof back);
        assert_int_equal(bfake_read(&b, 5, back, 0), OK);
        assert_int_equal(bfake_write(&b, 5, data, 0), OK);
        bfake_check(&b);
        bfake_fini(&b);
        free(data);
}

/* A request is its bytes, however they are cut. */
static void framing(void **state)
{
        uint8_t *data = bfake_contents(FRAMINGS * 512, 11), back[512];
        struct bfake b;
        uint32_t len;

        bfake_init(&b);
        for (unsigned i = 0; i < FRAMINGS; i++) {
                const struct framing *f = &framings[i];
                uint8_t *mine = data + i * 512;

                assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_OUT, i, mine, 512, NULL, 0, f, &len),
                                 OK);
                assert_int_equal(len, 1);
                memcpy(b.model + i * 512, mine, 512);
                assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_IN, i, NULL, 0, back, 512, f, &len), OK);
                assert_int_equal(len, 513);
                if (memcmp(back, mine, 512))
                        fail_msg("%s: not what was written", f->name);
        }
        bfake_check(&b);
        bfake_fini(&b);
        free(data);
}

static void identifies_itself(void **state)
{
        char id[64];
        struct bfake b;
        uint32_t len;

        bfake_init(&b);
        memset(id, 'x', sizeof id);
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, id, 20, &three, &len), OK);
        assert_int_equal(len, 21);
        assert_memory_equal(id, "ramet-0123\0\0\0\0\0\0\0\0\0", 20);
        /* room for more, for less, for none */
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, id, 30, &three, &len), OK);
        assert_int_equal(len, 20);
        assert_memory_equal(id + 20, "\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc", 10);
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, id, 4, &framings[2], &len),
                         OK);
        assert_int_equal(len, 5);
        assert_memory_equal(id, "rame", 4);
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, NULL, 0, &three, &len), OK);
        bfake_fini(&b);

        bfake_machine(&b, true);
        memset(b.disk.serial, 's', 20); /* no room for a NUL, and none needed */
        bfake_create(&b);
        vfake_start(&b.v, VFAKE_ALL, BLK_QUEUE);
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_GET_ID, 0, NULL, 0, id, 20, &three, NULL), OK);
        assert_memory_equal(id, "ssssssssssssssssssss", 20);
        bfake_fini(&b);
}

static void discards_and_zeroes(void **state)
{
        const struct virtio_blk_discard_write_zeroes many[] = {
                {8, 8, 0}, {64, 1, 1}, {1000, 0, 0}, {200, 300, 1}, {BLK_SECTORS, 0, 0}};
        struct bfake b;

        bfake_init(&b);
        assert_int_equal(bfake_zero(&b, VIRTIO_BLK_T_WRITE_ZEROES, 3, 2, 0), OK);
        assert_int_equal(bfake_zero(&b, VIRTIO_BLK_T_WRITE_ZEROES, 800, 77,
                                    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
                         OK);
        assert_int_equal(bfake_zero(&b, VIRTIO_BLK_T_DISCARD, 1024, 512, 0), OK);
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, many, sizeof many, NULL, 0,
                                  &framings[3], NULL),
                         OK);
        for (unsigned i = 0; i < 5; i++)
                memset(b.model + many[i].sector * 512, 0, many[i].num_sectors * 512ull);
        bfake_check(&b);
        bfake_fini(&b);
}

static void ranges_that_are_refused(void **state)
{
        struct virtio_blk_discard_write_zeroes r[17] = {{0, 1, 0}};
        static const struct {
                uint32_t type;
                struct virtio_blk_discard_write_zeroes range;
                uint8_t status;
        } cases[] = {
                {VIRTIO_BLK_T_DISCARD, {0, 8, 1}, UNSUPP}, /* the flag is for zeroes only */
                {VIRTIO_BLK_T_DISCARD, {0, 8, 2}, UNSUPP},
                {VIRTIO_BLK_T_WRITE_ZEROES, {0, 8, 2}, UNSUPP},
                {VIRTIO_BLK_T_WRITE_ZEROES, {0, 8, 0x80000001}, UNSUPP},
                {VIRTIO_BLK_T_WRITE_ZEROES, {BLK_SECTORS - 7, 8, 0}, IOERR},
                {VIRTIO_BLK_T_DISCARD, {BLK_SECTORS + 1, 0, 0}, IOERR},
                {VIRTIO_BLK_T_DISCARD, {UINT64_MAX, 8, 0}, IOERR},
                {VIRTIO_BLK_T_DISCARD, {1ull << 55, 8, 0}, IOERR}, /* times 512: 0 */
                {VIRTIO_BLK_T_DISCARD, {0, UINT32_MAX, 0}, IOERR},
                {VIRTIO_BLK_T_WRITE_ZEROES, {0, UINT32_MAX, 0}, IOERR},
        };
        struct bfake b;

        bfake_init(&b);
        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
                assert_int_equal(
                        bfake_do(&b, cases[i].type, 0, &cases[i].range, 16, NULL, 0, &three, NULL),
                        cases[i].status);
        for (uint32_t len = 0; len < 40; len++) /* not a number of whole ranges */
                if (len % 16 || len == 0)
                        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_DISCARD, 0, r, len, NULL, 0,
                                                  &three, NULL),
                                         IOERR);
        /* one too many; and when the last of several is wrong, none is done */
        assert_int_equal(
                bfake_do(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, sizeof r, NULL, 0, &three, NULL),
                IOERR);
        r[1].sector = BLK_SECTORS;
        r[1].num_sectors = 1;
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, r, 32, NULL, 0, &three, NULL),
                         IOERR);
        bfake_check(&b);
        bfake_fini(&b);
}

static void refused(void **state)
{
        static uint8_t data[1024];
        static const struct {
                uint32_t type;
                uint64_t sector;
                uint32_t out, in;
                uint8_t status;
        } cases[] = {
                {VIRTIO_BLK_T_IN, BLK_SECTORS, 0, 512, IOERR},
                {VIRTIO_BLK_T_IN, BLK_SECTORS - 1, 0, 1024, IOERR},
                {VIRTIO_BLK_T_IN, BLK_SECTORS + 1, 0, 0, IOERR},
                {VIRTIO_BLK_T_IN, UINT64_MAX, 0, 512, IOERR},
                {VIRTIO_BLK_T_IN, 1ull << 55, 0, 512, IOERR}, /* times 512: 0 */
                {VIRTIO_BLK_T_IN, (1ull << 55) - 1, 0, 1024, IOERR},
                {VIRTIO_BLK_T_IN, 0, 0, 511, IOERR},
                {VIRTIO_BLK_T_IN, 0, 0, 1, IOERR},
                {VIRTIO_BLK_T_IN, 0, 0, 513, IOERR},
                {VIRTIO_BLK_T_OUT, BLK_SECTORS, 512, 0, IOERR},
                {VIRTIO_BLK_T_OUT, BLK_SECTORS - 1, 1024, 0, IOERR},
                {VIRTIO_BLK_T_OUT, UINT64_MAX, 512, 0, IOERR},
                {VIRTIO_BLK_T_OUT, 1ull << 55, 512, 0, IOERR},
                {VIRTIO_BLK_T_OUT, 0, 100, 0, IOERR},
                {VIRTIO_BLK_T_OUT, 0, 513, 0, IOERR},
                {2, 0, 0, 0, UNSUPP},
                {3, 0, 512, 0, UNSUPP},
                {VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_BARRIER, 0, 512, 0, UNSUPP},
                {VIRTIO_BLK_T_SECURE_ERASE, 0, 16, 0, UNSUPP},
                {0x12345678, 0, 512, 512, UNSUPP},
                {UINT32_MAX, 0, 0, 512, UNSUPP},
        };
        struct bfake b;
        uint32_t len;

        bfake_init(&b);
        for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                uint8_t back[1024], same[1024];

                memset(same, 0xcc, sizeof same);
                assert_int_equal(bfake_do(&b, cases[i].type, cases[i].sector, data, cases[i].out,
                                          back, cases[i].in, &three, &len),
                                 cases[i].status);
                assert_memory_equal(back, same, cases[i].in); /* not touched */
                assert_int_equal(len, cases[i].in ? 0 : 1);
        }
        assert_false(vfake_needs_reset(&b.v));
        bfake_check(&b);
        bfake_fini(&b);
}

static void readonly(void **state)
{
        const struct virtio_blk_discard_write_zeroes range = {0, 8, 0};
        uint8_t data[512] = {0};
        struct bfake b;

        bfake_machine(&b, true);
        close(b.disk.image_fd);
        b.disk.image_fd = bfake_reopen(b.image, O_RDONLY);
        b.disk.readonly = true;
        bfake_create(&b);
        vfake_start(&b.v, VFAKE_ALL, BLK_QUEUE);
        assert_int_equal(b.v.features & (1u << VIRTIO_BLK_F_RO | 1u << VIRTIO_BLK_F_DISCARD),
                         1u << VIRTIO_BLK_F_RO);
        assert_int_equal(bfake_write(&b, 0, data, 512), IOERR);
        assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_DISCARD, 0, &range, 16, NULL, 0, &three, NULL),
                         IOERR);
        assert_int_equal(
                bfake_do(&b, VIRTIO_BLK_T_WRITE_ZEROES, 0, &range, 16, NULL, 0, &three, NULL),
                IOERR);
        assert_int_equal(bfake_flush(&b), OK);
        bfake_check(&b);
        bfake_fini(&b);
}

/* Where @len bytes are not all RAM: in the hole, across each edge, beyond everything, around the
 * end of 64 bits. */
static uint64_t not_ram(unsigned i, uint64_t len)
{
        const uint64_t at[] = {FAKE_MEMORY,    FAKE_MEMORY + 1 - len,
                               VFAKE_HIGH - 1, VFAKE_HIGH + VFAKE_HIGH_BYTES + 1 - len,
                               UINT64_MAX,     0 - len,
                               1ull << 52,     LAYOUT_VIRTIO};

        return at[i];
}
#define NOT_RAM 8

static void buffers_that_are_not_ram(void **state)
{
        struct bfake b;

        bfake_init(&b);
        for (unsigned i = 0; i < NOT_RAM; i++) {
                for (uint32_t type = VIRTIO_BLK_T_IN; type <= VIRTIO_BLK_T_GET_ID; type++) {
                        bool out = type == VIRTIO_BLK_T_OUT;
                        const struct virtio_blk_outhdr header = {.type = type};
                        uint32_t len = type == VIRTIO_BLK_T_GET_ID ? 20 : 512;
                        struct vbuf bufs[3];
                        int head;

                        if (type > VIRTIO_BLK_T_OUT && type < VIRTIO_BLK_T_GET_ID)
                                continue;
                        bufs[0] = vfake_out(&b.v, &header, sizeof header);
                        bufs[1] = (struct vbuf){not_ram(i, len), len, !out};
                        bufs[2] = vfake_in(&b.v, 1);
                        head = vfake_add(&b.v, 0, bufs, 3);
                        vfake_kick(&b.v, 0);
                        assert_int_equal(vfake_wait(&b.v, 0, NULL), head);
                        assert_int_equal(*(uint8_t *)vfake_ptr(&b.v, bufs[2].gpa), IOERR);
                }
        }
        assert_false(vfake_needs_reset(&b.v));
        bfake_check(&b);
        bfake_fini(&b);
}

/* The header cannot be read: that can be told. */
static void header_that_is_not_ram(void **state)
{
        struct vbuf bufs[2];
        struct bfake b;
        int head;

        bfake_init(&b);
        bufs[0] = (struct vbuf){0x500000, 16, false};
        bufs[1] = vfake_in(&b.v, 1);
        head = vfake_add(&b.v, 0, bufs, 2);
        vfake_kick(&b.v, 0);
        assert_int_equal(vfake_wait(&b.v, 0, NULL), head);
        assert_int_equal(*(uint8_t *)vfake_ptr(&b.v, bufs[1].gpa), IOERR);
        bfake_check(&b);
        bfake_fini(&b);
}

/* And what cannot be told. Each time the device works again after a reset. */
static void breaks(void **state)
{
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_FLUSH};
        struct bfake b;

        bfake_init(&b);
        for (unsigned i = 0; i < 4 + NOT_RAM; i++) {
                struct vbuf bufs[2];
                unsigned n = 2;

                bufs[0] = vfake_out(&b.v, &header, sizeof header);
                bufs[1] = vfake_in(&b.v, 1);
                if (i == 0)
                        bufs[0].len = 15; /* a header that is too short */
                else if (i == 1)
                        n = 1; /* no status */
                else if (i == 2)
                        bufs[0] = bufs[1], n = 1; /* no header */
                else if (i == 3)
                        bufs[0].len = 1, n = 1;
                else
                        bufs[1] = (struct vbuf){not_ram(i - 4, 1), 1, true};
                vfake_add(&b.v, 0, bufs, n);
                vfake_kick(&b.v, 0);
                for (int k = 0; k < 100 && !vfake_needs_reset(&b.v); k++)
                        loop_step(b.v.f.env.loop, 10000000);
                vfake_recover(&b.v, BLK_QUEUE);
                assert_int_equal(bfake_flush(&b), OK);
        }
        bfake_check(&b);
        bfake_fini(&b);
}

/* A break while others are under way: nothing is pushed any more, and nothing is lost by a reset.
 */
static void break_with_others_in_flight(void **state)
{
        struct breq r[20];
        struct vbuf bad;
        struct bfake b;

        bfake_init(&b);
        for (unsigned i = 0; i < 20; i++) {
                bfake_make(&b, &r[i], VIRTIO_BLK_T_IN, i * 8, NULL, 0, 4096);
                bfake_offer(&b, &r[i], &three);
        }
        bad = vfake_in(&b.v, 1);
        vfake_add(&b.v, 0, &bad, 1);
        vfake_kick(&b.v, 0);
        assert_true(vfake_needs_reset(&b.v));
        vfake_recover(&b.v, BLK_QUEUE);
        assert_int_equal(vfake_used(&b.v, 0, NULL), -1);
        bfake_check(&b);
        bfake_fini(&b);
}

/* Larger than what goes to the disk at a time, and in more pieces than an iovec is given: 250
 * segments, all of them of the same 8 KiB of guest memory for what is written. */
static void large(void **state)
{
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_OUT, .sector = 16};
        uint8_t *pattern = bfake_contents(8192, 3);
        struct vbuf bufs[254];
        struct bfake b;
        int head;

        bfake_init(&b);
        bufs[0] = vfake_out(&b.v, &header, sizeof header);
        bufs[1] = vfake_out(&b.v, pattern, 8192);
        bufs[126] = vfake_in(&b.v, 1);
        for (unsigned i = 2; i < 126; i++)
                bufs[i] = bufs[1];
        head = vfake_add(&b.v, 0, bufs, 127);
        vfake_kick(&b.v, 0);
        assert_int_equal(vfake_wait(&b.v, 0, NULL), head);
        assert_int_equal(*(uint8_t *)vfake_ptr(&b.v, bufs[126].gpa), OK);
        for (unsigned i = 0; i < 125; i++)
                memcpy(b.model + 16 * 512 + i * 8192, pattern, 8192);
        bfake_check(&b);

        /* all of the disk in one read; more than all of it */
        b.v.top = VFAKE_RAM_BEGIN + 0x20000;
        {
                uint8_t *all = malloc(BLK_SECTORS * 512 + 512);
                uint32_t len;

                assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_IN, 0, NULL, 0, all, BLK_SECTORS * 512,
                                          &three, &len),
                                 OK);
                assert_int_equal(len, BLK_SECTORS * 512 + 1);
                assert_memory_equal(all, b.model, BLK_SECTORS * 512);
                assert_int_equal(bfake_do(&b, VIRTIO_BLK_T_IN, 0, NULL, 0, all,
                                          BLK_SECTORS * 512 + 512, &three, &len),
                                 IOERR);
                free(all);
        }
        bfake_fini(&b);
        free(pattern);
}

/* Random requests, up to 80 at a time on sectors of their own, against the model. */
static void many(void **state)
{
        uint8_t *data = bfake_contents(80 * 4096, 99);
        uint64_t x = 0x123456789abcdef;
        unsigned irqs = 0, requests = 0;
        struct breq r[80];
        struct bfake b;

        bfake_init(&b);
        vfake_irqs(&b.v);
        for (unsigned round = 0; round < 40; round++) {
                unsigned n = 1 + round * 2, left = n;
                bool reads[80];

                b.v.top = VFAKE_RAM_BEGIN + 0x10000;
                for (unsigned i = 0; i < n; i++) {
                        uint64_t sector = i * 25 + (x >> 20) % 16;
                        uint32_t bytes = 512 * (1 + (uint32_t)(x >> 40) % 8);
                        const struct framing *f = &framings[(x >> 8) % 2];

                        x = x * 6364136223846793005u + 1442695040888963407u;
                        reads[i] = x >> 63;
                        if (reads[i]) {
                                bfake_make(&b, &r[i], VIRTIO_BLK_T_IN, sector, NULL, 0, bytes);
                        } else {
                                bfake_make(&b, &r[i], VIRTIO_BLK_T_OUT, sector, data + i * 4096,
                                           bytes, 0);
                                memcpy(b.model + sector * 512, data + i * 4096, bytes);
                        }
                        bfake_offer(&b, &r[i], f);
                }
                vfake_kick(&b.v, 0);
                for (; left > 0; left--)
                        assert_true(vfake_wait(&b.v, 0, NULL) >= 0);
                for (unsigned i = 0; i < n; i++) {
                        struct virtio_blk_outhdr *h = vfake_ptr(&b.v, r[i].out);

                        assert_int_equal(bfake_status(&b, &r[i]), OK);
                        if (reads[i])
                                assert_memory_equal(vfake_ptr(&b.v, r[i].in),
                                                    b.model + h->sector * 512, r[i].in_len - 1);
                }
                requests += n;
                irqs += vfake_irqs(&b.v);
                for (unsigned i = 0; i < 4096; i++)
                        data[(x + i * 77) % (80 * 4096)] ^= (uint8_t)(x >> (i % 32));
        }
        assert_true(irqs > 0);
        assert_true(irqs <= requests); /* and, where they are done together, fewer */
        bfake_check(&b);
        bfake_fini(&b);
        free(data);
}

/* Full queue, more than that cannot be: all are done, each once. */
static void full_queue(void **state)
{
        bool seen[BLK_QUEUE] = {false};
        struct breq r[BLK_QUEUE];
        struct bfake b;

        bfake_init(&b);
        for (unsigned i = 0; i < BLK_QUEUE; i++) {
                bfake_make(&b, &r[i], VIRTIO_BLK_T_IN, i, NULL, 0, 512);
                bfake_offer(&b, &r[i], &framings[1]);
        }
        vfake_kick(&b.v, 0);
        for (unsigned i = 0; i < BLK_QUEUE; i++) {
                int head = vfake_wait(&b.v, 0, NULL);

                assert_in_range(head, 0, BLK_QUEUE - 1);
                assert_false(seen[head]);
                seen[head] = true;
        }
        for (unsigned i = 0; i < BLK_QUEUE; i++) {
                assert_int_equal(bfake_status(&b, &r[i]), OK);
                assert_memory_equal(vfake_ptr(&b.v, r[i].in), b.model + i * 512, 512);
        }
        bfake_fini(&b);
}

/* What is under way is bounded in bytes, and what was left in the queue is not forgotten: 100
 * requests of 1 MiB each, all into the same memory, by threads, which take their time. */
static void more_bytes_than_are_taken_at_once(void **state)
{
        const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_IN};
        unsigned most = 0, done = 0;
        struct vbuf bufs[3];
        struct bfake b;

        blk_use_uring = false;
        bfake_init(&b);
        bufs[0] = vfake_out(&b.v, &header, sizeof header);
        bufs[1] = vfake_in(&b.v, BLK_SECTORS * 512);
        for (unsigned i = 0; i < 100; i++) {
                bufs[2] = vfake_in(&b.v, 1);
                vfake_add_indirect(&b.v, 0, bufs, 3);
        }
        vfake_write(&b.v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        for (unsigned i = 0; i < 10000 && done < 100; i++) {
                assert_int_equal(loop_step(b.v.f.env.loop, 1000000), 0);
                if (vfake_device(&b.v)->queues[0].outstanding > most)
                        most = vfake_device(&b.v)->queues[0].outstanding;
                while (vfake_used(&b.v, 0, NULL) >= 0)
                        done++;
        }
        assert_int_equal(done, 100);
        assert_in_range(most, 2, 16); /* MiB */
        assert_memory_equal(vfake_ptr(&b.v, bufs[1].gpa), b.model, BLK_SECTORS * 512);
        bfake_fini(&b);
        blk_use_uring = true;
}

/* A driver that does not take FLUSH has its writes on the medium when they are done; here that is
 * seen by the device working at all. */
static void without_flush(void **state)
{
        uint8_t *data = bfake_contents(4096, 5);
        struct bfake b;

        bfake_init(&b);
        vfake_start(&b.v, 0, BLK_QUEUE);
        assert_int_equal(bfake_write(&b, 9, data, 4096), OK);
        assert_int_equal(bfake_zero(&b, VIRTIO_BLK_T_WRITE_ZEROES, 11, 2, 0), OK);
        bfake_check(&b);
        bfake_fini(&b);
        free(data);
}

static void with_threads(void **state)
{
        blk_use_uring = false;
        reads_and_writes(state);
        framing(state);
        discards_and_zeroes(state);
        refused(state);
        breaks(state);
        break_with_others_in_flight(state);
        large(state);
        many(state);
        full_queue(state);
        blk_use_uring = true;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(configuration),
                cmocka_unit_test(reads_and_writes),
                cmocka_unit_test(framing),
                cmocka_unit_test(identifies_itself),
                cmocka_unit_test(discards_and_zeroes),
                cmocka_unit_test(ranges_that_are_refused),
                cmocka_unit_test(refused),
                cmocka_unit_test(readonly),
                cmocka_unit_test(buffers_that_are_not_ram),
                cmocka_unit_test(header_that_is_not_ram),
                cmocka_unit_test(breaks),
                cmocka_unit_test(break_with_others_in_flight),
                cmocka_unit_test(large),
                cmocka_unit_test(many),
                cmocka_unit_test(full_queue),
                cmocka_unit_test(more_bytes_than_are_taken_at_once),
                cmocka_unit_test(without_flush),
                cmocka_unit_test(with_threads),
        };

        return cmocka_run_group_tests_name("virtio_blk", tests, NULL, NULL);
}
