/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks restored from files that may come from anywhere: overlays with headers, bitmaps and sizes
 * as the input says, over an image. One that is taken is read, written and forked, and must have
 * what the topmost layer has of each sector.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "input.h"
#include "io/disk.h"
#include "io/overlay.h"

#define SECTORS_MAX 64u
#define OVERLAYS    3u

static struct loop *loop;
static struct disk *disk;
static uint64_t bytes; /* of the disk */
static uint8_t model[SECTORS_MAX * DISK_SECTOR], data[sizeof model];
static unsigned done; /* requests */

/* --- files --- */

/* As the format says (overlay.h), independently. */
static uint64_t checksum(const struct overlay_header *h)
{
        uint64_t words[sizeof *h / 8], sum = 0xcbf29ce484222325u;

        memcpy(words, h, sizeof words);
        words[offsetof(struct overlay_header, checksum) / 8] = 0;
        for (size_t i = 0; i < sizeof *h / 8; i++)
                sum = (sum ^ words[i]) * 0x100000001b3u;
        return sum;
}

/* A memfd that nobody can write any more, unless @kind has a bit: then it must be refused. */
static int finish_file(int fd, bool writable)
{
        if (!writable)
                assert_int_equal(fcntl(fd, F_ADD_SEALS,
                                       F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
                                 0);
        return fd;
}

static int make_image(void)
{
        int fd = memfd_create("image", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        memset(model, 0x11, sizeof model);
        assert_int_equal(pwrite(fd, model, bytes, 0), bytes);
        return finish_file(fd, false);
}

static void change(struct input *in, void *where, size_t len)
{
        for (unsigned n = take8(in) % 4; n > 0; n--) {
                size_t at = take16(in) % len, some = 1u << (take8(in) & 3);

                take(in, (uint8_t *)where + at, some < len - at ? some : len - at);
        }
}

/* Overlay number @n, whose sectors are full of its number. The model follows. */
static int make_overlay(struct input *in, unsigned n, bool *writable)
{
        int fd = memfd_create("overlay", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        uint64_t bitmap_bytes = overlay_bitmap_bytes(bytes);
        uint8_t kind = take8(in), bitmap[SECTORS_MAX / 8];
        struct overlay_header h = {
                .magic = OVERLAY_MAGIC,
                .version = OVERLAY_VERSION,
                .header_bytes = sizeof h,
                .id = {(uint8_t)(n + 1)},
                .parent = {(uint8_t)n},
                .disk_bytes = bytes,
                .bitmap_offset = sizeof h,
                .bitmap_bytes = bitmap_bytes,
                .data_offset = sizeof h + bitmap_bytes,
                .image_bytes = bytes,
                .begun = 1,
        };
        off_t size = (off_t)(h.data_offset + bytes);

        take(in, bitmap, sizeof bitmap);
        if (kind & 1)
                change(in, &h, sizeof h);
        if (kind & 2)
                size += (int8_t)take8(in);
        if (!(kind & 4))
                h.checksum = checksum(&h);
        *writable |= (kind & 0x70) == 0x70;
        memset(data, (int)(n + 0x20), sizeof data);
        assert_int_equal(pwrite(fd, data, bytes, sizeof h + (off_t)bitmap_bytes), bytes);
        assert_int_equal(pwrite(fd, bitmap, sizeof bitmap, sizeof h), sizeof bitmap);
        assert_int_equal(pwrite(fd, &h, sizeof h, 0), sizeof h);
        assert_int_equal(ftruncate(fd, size > 0 ? size : 0), 0);
        for (unsigned i = 0; i < SECTORS_MAX; i++) {
                if (bitmap[i / 8] >> i % 8 & 1)
                        memset(model + i * DISK_SECTOR, (int)(n + 0x20), DISK_SECTOR);
        }
        return finish_file(fd, (kind & 0x70) == 0x70);
}

/* --- the disk --- */

static void on_done(struct disk_request *r)
{
        done++;
}

static int request(enum disk_op op, uint64_t offset, uint64_t len)
{
        struct iovec iov = {data, len};
        struct disk_request r = {
                .op = op, .offset = offset, .len = len, .iov = &iov, .niov = 1, .done = on_done};

        done = 0;
        disk_submit(disk, &r);
        loop_io_drain(loop);
        assert_int_equal(done, 1);
        return r.result;
}

static void check_contents(void)
{
        assert_int_equal(request(DISK_READ, 0, bytes), 0);
        assert_memory_equal(data, model, bytes);
}

static void freeze(void)
{
        struct disk_record record;
        int fds[DISK_LAYERS_MAX];
        struct err err = {0};

        assert_int_equal(disk_freeze_prepare(disk, &err), 0);
        disk_save(disk, &record);
        disk_freeze(disk);
        assert_int_equal(disk_freeze_publish(disk, &err), 0);
        assert_int_equal(disk_files(disk, fds), record.layers);
        /* and is what it was */
        if (disk_restore(disk, &record, fds, record.layers, &err))
                fail_msg("%s\n", err.text);
}

static void use(struct input *in)
{
        uint8_t op = take8(in);
        uint64_t sectors = bytes / DISK_SECTOR, first = take8(in) % (sectors + 1);
        uint64_t n = 1 + take8(in) % 16, at = first * DISK_SECTOR, len = n * DISK_SECTOR;
        bool fits = first + n <= sectors;
        int r = 0;

        memset(data, op, len);
        switch (op & 7) {
        case 0:
        case 1:
                r = request(DISK_WRITE, at, len);
                break;
        case 2:
                memset(data, 0, len);
                r = request(DISK_WRITE_ZEROES, at, len);
                break;
        case 3:
                memset(data, 0, len);
                r = request(DISK_DISCARD, at, len);
                /* zeros where the files can, which memfds can */
                break;
        case 4:
                assert_int_equal(request(DISK_FLUSH, 0, 0), 0);
                return;
        case 5:
                freeze();
                return;
        default:
                assert_int_equal(request(DISK_READ, at, len), fits ? 0 : -EINVAL);
                if (fits)
                        assert_memory_equal(data, model + at, len);
                return;
        }
        if (disk_readonly(disk)) {
                assert_true(r == -EROFS || r == -EINVAL);
                return;
        }
        assert_int_equal(r, fits ? 0 : -EINVAL);
        if (fits)
                memset(model + at, op & 2 ? 0 : op, len);
}

static int restore(struct input *in, const int *fds, unsigned n, bool readonly)
{
        const struct disk_options options = {
                .image_fd = -1,
                .image_ro_fd = -1,
                .overlay_fd = -1,
                .overlay_ro_fd = -1,
                .readonly = readonly,
                .name = "image",
        };
        struct disk_record record = {.bytes = bytes, .layers = n, .readonly = readonly};
        struct err err = {0};
        int r;

        assert_int_equal(disk_open(loop, &options, &disk, &err), 0);
        if (take8(in) >= 0xf0)
                change(in, &record, sizeof record);
        r = disk_restore(disk, &record, fds, n, &err);
        assert_true(r == 0 || (r < 0 && err.text[0]));
        return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
        struct input in = {input, len};
        int fds[1 + OVERLAYS];
        bool writable = false;
        unsigned n;

        if (!loop)
                assert_int_equal(loop_create(false, &loop), 0);
        bytes = (1 + take8(&in) % SECTORS_MAX) * (uint64_t)DISK_SECTOR;
        n = 1 + take8(&in) % (OVERLAYS + 1);
        fds[0] = make_image();
        for (unsigned i = 1; i < n; i++)
                fds[i] = make_overlay(&in, i - 1, &writable);
        if (restore(&in, fds, n, take8(&in) >= 0xf0) == 0) {
                assert_false(writable);
                assert_int_equal(disk_bytes(disk), bytes);
                check_contents();
                for (unsigned i = 0; i < 64 && in.left > 0; i++)
                        use(&in);
                check_contents();
        }
        disk_close(disk);
        for (unsigned i = 0; i < n; i++)
                close(fds[i]);
        return 0;
}
