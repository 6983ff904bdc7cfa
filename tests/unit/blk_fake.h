/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine with one virtio disk, and a driver that makes requests of any shape: on top of
 * virtio_fake.h. A model of the disk's contents is kept beside it. Include after cmocka.h.
 */
#ifndef RAMET_TESTS_BLK_FAKE_H
#define RAMET_TESTS_BLK_FAKE_H

#include <stdbool.h>

static bool blk_use_uring = true;
#define FAKE_URING blk_use_uring

#include <linux/virtio_blk.h>

#include "virtio_fake.h"

#define BLK_SECTORS 2048u /* 1 MiB */
#define BLK_QUEUE   256
#define NO_STATUS   0xee /* what the driver leaves in the status byte */

struct bfake {
        struct vfake v;
        struct device_disk disk; /* what the device is made with */
        int image;               /* the test's own descriptor; -1: a clone's */
        uint8_t *model;          /* what the disk should have */
};

/* A file that has no name any more, with @bytes of no particular contents: these. */
static inline int bfake_image(const uint8_t *contents, size_t bytes)
{
        char path[] = "/tmp/ramet-blk-XXXXXX";
        int fd = mkostemp(path, O_CLOEXEC);

        assert_true(fd >= 0);
        unlink(path);
        assert_int_equal(pwrite(fd, contents, bytes, 0), (ssize_t)bytes);
        return fd;
}

static inline int bfake_reopen(int fd, int flags)
{
        char path[64];
        int again;

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        again = open(path, flags | O_CLOEXEC);
        assert_true(again >= 0);
        return again;
}

static inline uint8_t *bfake_contents(size_t bytes, uint32_t seed)
{
        uint8_t *p = malloc(bytes);

        for (size_t i = 0; i < bytes; i++) {
                seed = seed * 1664525 + 1013904223;
                p[i] = (uint8_t)(seed >> 24);
        }
        return p;
}

/* All but the device, whose parameters the test may still change. @image: none (a clone). */
static inline void bfake_machine(struct bfake *b, bool image)
{
        memset(b, 0, sizeof *b);
        vfake_machine(&b->v);
        b->disk = (struct device_disk){.image_fd = -1,
                                       .image_ro_fd = -1,
                                       .overlay_fd = -1,
                                       .overlay_ro_fd = -1,
                                       .name = "test.img"};
        b->image = -1;
        b->model = bfake_contents(BLK_SECTORS * 512, 1);
        if (image) {
                b->image = bfake_image(b->model, BLK_SECTORS * 512);
                b->disk.image_fd = bfake_reopen(b->image, O_RDWR);
                b->disk.image_ro_fd = bfake_reopen(b->image, O_RDONLY);
                strcpy(b->disk.serial, "ramet-0123");
        }
        b->v.f.params.ndisks = 1;
        b->v.f.params.disks = &b->disk;
}

static inline void bfake_create(struct bfake *b)
{
        fake_create(&b->v.f, &virtio_blk_ops);
        assert_int_equal(b->disk.image_fd, -1); /* taken */
        assert_int_equal(b->disk.image_ro_fd, -1);
}

static inline void bfake_init(struct bfake *b)
{
        bfake_machine(b, true);
        bfake_create(b);
        vfake_start(&b->v, VFAKE_ALL, BLK_QUEUE);
}

static inline void bfake_fini(struct bfake *b)
{
        vfake_fini(&b->v);
        if (b->image >= 0)
                close(b->image);
        free(b->model);
}

/* --- requests --- */

/* One in the queue. The two parts lie in one piece each: header and data, data and status. */
struct breq {
        int head;
        uint64_t out, in; /* GPAs */
        uint32_t out_len, in_len;
};

/* How a part is cut into descriptors: the first @edge bytes of the out part and the last of the in
 * part one by one, the rest in pieces of @piece bytes (0: in one). */
struct framing {
        const char *name;
        uint32_t edge, piece;
        bool indirect;
};

static const struct framing as_linux = {"as Linux does", 0, 0, false};

static inline unsigned bfake_cut(uint64_t gpa, uint32_t len, uint32_t piece, bool writable,
                                 struct vbuf *bufs)
{
        unsigned n = 0;

        while (len > 0) {
                uint32_t now = piece > 0 && piece < len ? piece : len;

                bufs[n++] = (struct vbuf){gpa, now, writable};
                gpa += now;
                len -= now;
        }
        return n;
}

static inline uint64_t bfake_status_at(const struct breq *r)
{
        return r->in + r->in_len - 1;
}

/* Offer a request with these parts; nobody is told. */
static inline void bfake_offer(struct bfake *b, struct breq *r, const struct framing *f)
{
        uint32_t header = r->out_len < 16 ? r->out_len : 16;
        uint32_t status = r->in_len > 0 ? 1 : 0;
        struct vbuf bufs[600];
        unsigned n = 0;

        if (f->edge > 0) {
                n += bfake_cut(r->out, header, f->edge, false, bufs + n);
                n += bfake_cut(r->out + header, r->out_len - header, f->piece, false, bufs + n);
                n += bfake_cut(r->in, r->in_len - status, f->piece, true, bufs + n);
                n += bfake_cut(r->in + r->in_len - status, status, f->edge, true, bufs + n);
        } else {
                n += bfake_cut(r->out, r->out_len, f->piece, false, bufs + n);
                n += bfake_cut(r->in, r->in_len, f->piece, true, bufs + n);
        }
        assert_true(n <= BLK_QUEUE);
        if (status)
                *(uint8_t *)vfake_ptr(&b->v, bfake_status_at(r)) = NO_STATUS;
        r->head =
                f->indirect ? vfake_add_indirect(&b->v, 0, bufs, n) : vfake_add(&b->v, 0, bufs, n);
}

/* A request in new guest memory: @out_data goes behind the header. */
static inline void bfake_make(struct bfake *b, struct breq *r, uint32_t type, uint64_t sector,
                              const void *out_data, uint32_t out_bytes, uint32_t in_bytes)
{
        const struct virtio_blk_outhdr header = {.type = type, .sector = sector};

        r->out_len = (uint32_t)sizeof header + out_bytes;
        r->in_len = in_bytes + 1;
        r->out = vfake_alloc(&b->v, r->out_len, 8);
        r->in = vfake_alloc(&b->v, r->in_len, 8);
        memcpy(vfake_ptr(&b->v, r->out), &header, sizeof header);
        if (out_bytes > 0)
                memcpy(vfake_ptr(&b->v, r->out + sizeof header), out_data, out_bytes);
        memset(vfake_ptr(&b->v, r->in), 0xcc, r->in_len);
}

static inline uint8_t bfake_status(struct bfake *b, const struct breq *r)
{
        return *(uint8_t *)vfake_ptr(&b->v, bfake_status_at(r));
}

/* Notify, wait for that one, and see its status; *len: the used length. */
static inline uint8_t bfake_finish(struct bfake *b, struct breq *r, uint32_t *len)
{
        vfake_kick(&b->v, 0);
        assert_int_equal(vfake_wait(&b->v, 0, len), r->head);
        return bfake_status(b, r);
}

/* --- one at a time, from beginning to end; guest memory is given back --- */

static inline uint8_t bfake_do(struct bfake *b, uint32_t type, uint64_t sector,
                               const void *out_data, uint32_t out_bytes, void *in_data,
                               uint32_t in_bytes, const struct framing *f, uint32_t *len)
{
        uint64_t top = b->v.top;
        struct breq r;
        uint8_t status;

        bfake_make(b, &r, type, sector, out_data, out_bytes, in_bytes);
        bfake_offer(b, &r, f);
        status = bfake_finish(b, &r, len);
        if (in_bytes > 0)
                memcpy(in_data, vfake_ptr(&b->v, r.in), in_bytes);
        b->v.top = top;
        return status;
}

static inline uint8_t bfake_read(struct bfake *b, uint64_t sector, void *data, uint32_t bytes)
{
        return bfake_do(b, VIRTIO_BLK_T_IN, sector, NULL, 0, data, bytes, &as_linux, NULL);
}

/* What was written is in the model, too. */
static inline uint8_t bfake_write(struct bfake *b, uint64_t sector, const void *data,
                                  uint32_t bytes)
{
        uint8_t status =
                bfake_do(b, VIRTIO_BLK_T_OUT, sector, data, bytes, NULL, 0, &as_linux, NULL);

        if (status == VIRTIO_BLK_S_OK)
                memcpy(b->model + sector * 512, data, bytes);
        return status;
}

static inline uint8_t bfake_flush(struct bfake *b)
{
        return bfake_do(b, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, NULL, 0, &as_linux, NULL);
}

/* Discard or write zeroes, and the model likewise. */
static inline uint8_t bfake_zero(struct bfake *b, uint32_t type, uint64_t sector, uint32_t sectors,
                                 uint32_t flags)
{
        const struct virtio_blk_discard_write_zeroes range = {sector, sectors, flags};
        uint8_t status = bfake_do(b, type, 0, &range, sizeof range, NULL, 0, &as_linux, NULL);

        if (status == VIRTIO_BLK_S_OK)
                memset(b->model + sector * 512, 0, sectors * 512ull);
        return status;
}

/* The whole disk is as in the model. */
static inline void bfake_check(struct bfake *b)
{
        uint8_t *data = malloc(BLK_SECTORS * 512);

        for (uint64_t s = 0; s < BLK_SECTORS; s += 512)
                assert_int_equal(bfake_read(b, s, data + s * 512, 512 * 512), VIRTIO_BLK_S_OK);
        assert_memory_equal(data, b->model, BLK_SECTORS * 512);
        free(data);
}

#endif
