/* SPDX-License-Identifier: Apache-2.0 */
/* The block device: requests of all kinds and framings against a small disk in memory, limits,
 * forks and resets to what was forked. */
#include <linux/virtio_blk.h>
#include <sys/mman.h>

#include "guest.h"

#define DISK_BYTES 0x10000u

/* What a freeze left, to be restored. */
static struct {
        uint8_t record[4096];
        int fds[DEVICE_FILES_MAX];
        unsigned n; /* 0: there is none */
} saved;

/* A header, and ranges as discard and write-zeroes have them. */
static unsigned request(struct input *in, uint8_t *header, unsigned max)
{
        static const uint8_t types[] = {VIRTIO_BLK_T_IN,      VIRTIO_BLK_T_OUT,
                                        VIRTIO_BLK_T_FLUSH,   VIRTIO_BLK_T_GET_ID,
                                        VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES};
        uint8_t kind = take8(in);
        struct virtio_blk_outhdr h = {.type = types[kind % sizeof types], .sector = take8(in)};
        unsigned len = sizeof h;

        if ((kind & 0xf0) == 0xf0)
                take(in, &h, sizeof h);
        memcpy(header, &h, sizeof h);
        for (unsigned n = kind >> 4 & 3; n > 0 && len + 16 <= max; n--, len += 16) {
                struct virtio_blk_discard_write_zeroes range = {
                        .sector = take8(in), .num_sectors = take8(in), .flags = kind >> 6 & 1};

                if (kind & 0x80)
                        take(in, &range, sizeof range);
                memcpy(header + len, &range, sizeof range);
        }
        return len;
}

static int reopen(int fd, int flags)
{
        char path[32];

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        return open(path, flags | O_CLOEXEC);
}

static bool limited; /* the disk is, or may be after a restore */

static void forget_saved(void)
{
        while (saved.n > 0)
                close(saved.fds[--saved.n]);
}

/* A disk, and a device that has it. */
static void begin(struct input *in)
{
        static struct device_disk disk;
        uint8_t kind = take8(in);

        disk = (struct device_disk){.image_fd = memfd_create("image", MFD_CLOEXEC),
                                    .overlay_fd = -1,
                                    .overlay_ro_fd = -1,
                                    .readonly = kind & 1,
                                    .serial = "serial",
                                    .name = "image"};
        assert_true(disk.image_fd >= 0);
        assert_int_equal(ftruncate(disk.image_fd, DISK_BYTES), 0);
        disk.image_ro_fd = reopen(disk.image_fd, O_RDONLY);
        assert_true(disk.image_ro_fd >= 0);
        if ((kind & 0xf0) == 0xf0) {
                disk.iops_max = take16(in);
                disk.bandwidth_max = take32(in);
        }
        guest_machine();
        g.v.f.params.ndisks = 1;
        g.v.f.params.disks = &disk;
        g.request = request;
        guest_begin(&virtio_blk_ops);
        limited = disk.iops_max || disk.bandwidth_max;
}

/* As the owner of a machine does it. */
static void fork_disk(bool cancel)
{
        const struct device_ops *ops = g.v.f.ops;
        struct device_files files = {0};
        struct err err = {0};
        void *dev = g.v.f.dev;

        assert_true(ops->record_length <= sizeof saved.record);
        assert_int_equal(ops->freeze_prepare(dev, &err), 0);
        guest_quiesce();
        if (cancel) {
                ops->freeze_cancel(dev);
                ops->resume(dev);
                return;
        }
        forget_saved();
        ops->save(dev, saved.record);
        ops->freeze(dev);
        ops->resume(dev);
        assert_int_equal(ops->freeze_publish(dev, &files, &err), 0);
        for (; saved.n < files.n; saved.n++) {
                saved.fds[saved.n] = fcntl(files.fds[saved.n], F_DUPFD_CLOEXEC, 0);
                assert_true(saved.fds[saved.n] >= 0);
        }
        guest_run();
}

/* By a record that is as it was, or (@changed) that is not, with files that are not all there. */
static void restore_disk(struct input *in, bool changed)
{
        static uint8_t record[sizeof saved.record];
        const struct device_ops *ops = g.v.f.ops;
        struct err err = {0};
        unsigned n = saved.n;

        if (!n)
                return;
        guest_quiesce();
        if (changed && take8(in) >= 0xf0)
                n = take8(in) % (n + 1);
        assert_int_equal(ops->restore_files(g.v.f.dev, saved.fds, n, &err), 0);
        memcpy(record, saved.record, sizeof record);
        if (changed)
                limited |= guest_restore_changed(in, record, false);
        else if (ops->restore(g.v.f.dev, record, ops->record_version, &err))
                fail_msg("%s\n", err.text);
        guest_resume();
}

static void check_that_it_works(void)
{
        const struct virtio_blk_outhdr read = {.type = VIRTIO_BLK_T_IN};

        guest_recover();
        assert_int_equal(guest_honest(0, &read, sizeof read, 513), 513);
        assert_int_equal(*(uint8_t *)vfake_ptr(&g.v, BUFFERS + BUFFER + 512), VIRTIO_BLK_S_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
        struct input in = {data, len};

        begin(&in);
        guest_start(&in);
        while (in.left > 0) {
                uint8_t op = take8(&in);

                if (op < 0xd8)
                        guest_act(&in, op & 7);
                else if (op < 0xe0)
                        guest_quiesce();
                else if (op < 0xe8)
                        guest_resume();
                else if (op < 0xf8)
                        fork_disk(op == 0xf7);
                else
                        restore_disk(&in, op & 1);
        }
        if (!limited)
                check_that_it_works();
        guest_end();
        forget_saved();
        return 0;
}
