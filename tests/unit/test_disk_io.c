/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of a disk one by one: what is refused, when landed() and done() come, what a failure
 * leaves, what a flush brings to a file, and what stands in where a file system lacks something.
 */
#include "disk_rig.h"

#define SECTORS 128
#define BYTES   (SECTORS * DISK_SECTOR)

struct fixture {
        struct rig rig;
        struct machine root, clone;
        struct frozen from;
};

/* A machine, and a clone of it; both have written something else than the other. */
static void setup(struct fixture *f, bool files)
{
        rig_init(&f->rig, true, files, 4711);
        machine_init(&f->root, &f->rig, BYTES);
        machine_write(&f->root, 10, 4, 0x11);
        machine_freeze(&f->root, &f->from);
        machine_spawn(&f->clone, &f->rig, &f->from);
}

static void teardown(struct fixture *f)
{
        machine_fini(&f->root);
        machine_fini(&f->clone);
        frozen_fini(&f->from);
        rig_fini(&f->rig);
}

static struct overlay *own(const struct machine *m)
{
        assert_true(m->disk->own);
        return m->disk->overlays[m->disk->noverlays - 1];
}

static void refused(void **state)
{
        static const struct {
                uint64_t offset, len, iov_len;
        } bad[] = {
                {BYTES, 512, 512},
                {BYTES - 512, 1024, 1024},
                {1, 512, 512},
                {0, 511, 511},
                {UINT64_MAX - 511, 512, 512},
                {512, UINT64_MAX - 511, 512},
                {0, 512, 1024}, /* would write what is behind */
                {0, 1024, 512},
                {0, 512, 0},
                {0, 0, 512},
        };
        struct fixture f;
        uint8_t buf[2048] = {0};

        setup(&f, false);
        for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
                for (enum disk_op op = DISK_READ; op <= DISK_WRITE_ZEROES; op++) {
                        struct iovec iov = {buf, bad[i].iov_len};
                        struct waited w = waited(op, bad[i].offset, bad[i].len, &iov, 1);
                        bool moves = op == DISK_READ || op == DISK_WRITE;

                        if (op == DISK_FLUSH || (!moves && i >= 6))
                                continue;
                        submit(f.clone.disk, &w);
                        loop_io_drain(f.rig.loop);
                        assert_int_equal(w.done, 1);
                        assert_int_equal(w.r.result, -EINVAL);
                }
        assert_int_equal(request(&f.clone, (enum disk_op)99, 0, 512, buf), -EINVAL);
        assert_int_equal(request(&f.clone, DISK_READ, BYTES, 0, NULL), 0);
        assert_int_equal(request(&f.clone, DISK_DISCARD, 512, 0, NULL), 0);
        machine_check(&f.clone);
        teardown(&f);
}

static void read_only(void **state)
{
        struct rig rig;
        struct machine m, c = {0};
        struct frozen from;
        uint8_t buf[512] = {0};

        rig_init(&rig, true, false, 1);
        machine_init(&m, &rig, BYTES);
        m.disk->readonly = true;
        assert_true(disk_readonly(m.disk));
        machine_freeze(&m, &from);
        assert_int_equal(from.n, 1);
        machine_spawn(&c, &rig, &from);
        assert_true(disk_readonly(c.disk));
        assert_false(c.disk->own);
        assert_int_equal(disk_own_bytes(c.disk), 0);
        for (enum disk_op op = DISK_WRITE; op <= DISK_WRITE_ZEROES; op++) {
                assert_int_equal(request(&m, op, 0, 512, buf), op == DISK_FLUSH ? 0 : -EROFS);
                assert_int_equal(request(&c, op, 0, 512, buf), op == DISK_FLUSH ? 0 : -EROFS);
        }
        machine_check(&c);
        machine_reset(&c, &from);
        machine_check(&c);
        machine_fini(&m);
        machine_fini(&c);
        frozen_fini(&from);
        rig_fini(&rig);
}

/* Each sector from another layer than the one before; far more parts than go at once. */
static void checker(struct fixture *f)
{
        for (unsigned i = 0; i < SECTORS; i += 2)
                machine_write(&f->clone, i, 1, (uint8_t)i);
}

/* Whoever settles gets back all that was lent, also what waited for its turn; done() comes later.
 */
static void settle_lands_everything(void **state)
{
        enum { N = 300 };
        struct fixture f;
        struct waited *w = calloc(N, sizeof *w);
        struct iovec iov;
        uint8_t *buf = malloc(BYTES);

        setup(&f, true);
        checker(&f);
        iov = (struct iovec){buf, BYTES};
        for (unsigned i = 0; i < N; i++) {
                w[i] = i % 16 == 9 ? waited(DISK_FLUSH, 0, 0, NULL, 0)
                                   : waited(DISK_READ, 0, BYTES, &iov, 1);
                submit(f.clone.disk, &w[i]);
        }
        loop_io_settle(f.rig.loop);
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(w[i].landed, 1);
                assert_int_equal(w[i].done, 0);
        }
        loop_io_drain(f.rig.loop);
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(w[i].done, 1);
                assert_int_equal(w[i].r.result, 0);
        }
        assert_memory_equal(buf, f.clone.model, BYTES);
        free(buf);
        free(w);
        teardown(&f);
}

static void more_than_the_pool(void **state)
{
        enum { N = 2 * DISK_REQUESTS_MAX + 7 };
        struct fixture f;
        struct waited *w = calloc(N, sizeof *w);
        struct iovec iov;
        uint8_t buf[1024];

        setup(&f, false);
        iov = (struct iovec){buf, sizeof buf};
        for (unsigned i = 0; i < N; i++) {
                w[i] = waited(DISK_READ, 10 * DISK_SECTOR, sizeof buf, &iov, 1);
                submit(f.clone.disk, &w[i]);
        }
        loop_io_drain(f.rig.loop);
        for (unsigned i = 0; i < N; i++) {
                assert_int_equal(w[i].done, 1);
                assert_int_equal(w[i].r.result, 0);
        }
        free(w);
        teardown(&f);
}

/* More buffers than the kernel takes at once. */
static void many_buffers(void **state)
{
        enum { N = 3000, SIZE = N / 512 * 512 + 512 };
        struct fixture f;
        struct iovec *iov = calloc(SIZE, sizeof *iov);
        uint8_t buf[SIZE], back[SIZE];
        struct waited w;

        setup(&f, false);
        for (unsigned i = 0; i < SIZE; i++) {
                buf[i] = (uint8_t)rig_random(&f.rig, 256);
                iov[i] = (struct iovec){&buf[i], 1};
        }
        w = waited(DISK_WRITE, 512, SIZE, iov, SIZE);
        submit(f.clone.disk, &w);
        loop_io_drain(f.rig.loop);
        assert_int_equal(w.r.result, 0);
        for (unsigned i = 0; i < SIZE; i++)
                iov[i].iov_base = &back[i];
        w = waited(DISK_READ, 512, SIZE, iov, SIZE);
        submit(f.clone.disk, &w);
        loop_io_drain(f.rig.loop);
        assert_int_equal(w.r.result, 0);
        assert_memory_equal(buf, back, SIZE);
        memcpy(f.clone.model + 512, buf, SIZE);
        machine_check(&f.clone);
        free(iov);
        teardown(&f);
}

static void image_cut_short(void **state)
{
        struct rig rig;
        struct machine m;
        uint8_t buf[BYTES];

        rig_init(&rig, true, false, 1);
        machine_init(&m, &rig, BYTES);
        assert_int_equal(ftruncate(m.disk->image_fd, BYTES / 2 + 100), 0);
        assert_int_equal(request(&m, DISK_READ, 0, BYTES / 2, buf), 0);
        assert_int_equal(request(&m, DISK_READ, BYTES / 2, 512, buf), -EIO);
        assert_int_equal(request(&m, DISK_READ, 0, BYTES, buf), -EIO);
        assert_int_equal(request(&m, DISK_READ, BYTES - 512, 512, buf), -EIO);
        machine_fini(&m);
        rig_fini(&rig);
}

/* A write that fails leaves what was there. */
static void failed_write_shows_nothing(void **state)
{
        struct fixture f;
        uint8_t buf[2048];

        setup(&f, false);
        machine_write(&f.clone, 20, 2, 0x55);
        assert_int_equal(fcntl(own(&f.clone)->fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
        memset(buf, 0xdd, sizeof buf);
        assert_int_equal(request(&f.clone, DISK_WRITE, 10 * 512, sizeof buf, buf), -EPERM);
        assert_int_equal(request(&f.clone, DISK_DISCARD, 10 * 512, sizeof buf, NULL), -EPERM);
        assert_int_equal(request(&f.clone, DISK_WRITE_ZEROES, 10 * 512, 512, NULL), -EPERM);
        machine_check(&f.clone);
        teardown(&f);
}

/* Whether the overlay's file says that it has @sector, and what it has there. */
static bool in_file(const struct machine *m, uint64_t sector, uint8_t *byte)
{
        const struct overlay *o = own(m);
        struct overlay *copy;
        struct err err = {0};
        uint64_t n;
        bool has;

        check(overlay_open(fcntl(o->ro_fd, F_DUPFD_CLOEXEC, 0), BYTES, &copy, &err), &err);
        has = overlay_has(copy, sector, 1, &n);
        assert_int_equal(pread(o->ro_fd, byte, 1, (off_t)(o->data_offset + sector * 512)), 1);
        overlay_close(copy);
        return has;
}

/* No bit is in the file before a flush; after it, bit and data are. Several at once end, too. */
static void flush_brings_bits(void **state)
{
        struct fixture f;
        struct waited w[5];
        uint8_t byte;

        setup(&f, true);
        machine_write(&f.clone, 30, 2, 0x77);
        assert_false(in_file(&f.clone, 30, &byte));
        for (unsigned i = 0; i < 5; i++) {
                w[i] = waited(DISK_FLUSH, 0, 0, NULL, 0);
                submit(f.clone.disk, &w[i]);
        }
        loop_io_drain(f.rig.loop);
        for (unsigned i = 0; i < 5; i++) {
                assert_int_equal(w[i].done, 1);
                assert_int_equal(w[i].r.result, 0);
        }
        assert_true(in_file(&f.clone, 30, &byte));
        assert_int_equal(byte, 0x77);
        assert_true(in_file(&f.clone, 31, &byte));
        assert_false(in_file(&f.clone, 32, &byte));
        teardown(&f);
}

/* Bits of writes that land while a flush is under way wait for the next one: their data may not be
 * on the medium. */
static void flush_takes_a_moment(void **state)
{
        struct fixture f;
        struct overlay_pages pages;
        struct overlay *o;

        setup(&f, true);
        o = own(&f.clone);
        machine_write(&f.clone, 3, 1, 1);
        assert_int_equal(overlay_take_pages(o, &pages), 0);
        machine_write(&f.clone, 4, 1, 2);
        assert_int_equal(pages.n, 1);
        assert_int_equal(pages.bytes[0], 1 << 3);
        assert_true(o->unsynced);
        assert_int_equal(o->news[0], 1); /* for the next one */
        overlay_pages_done(o, &pages, false);
        assert_int_equal(overlay_take_pages(o, &pages), 0);
        assert_int_equal(pages.bytes[0], 1 << 3 | 1 << 4);
        overlay_pages_done(o, &pages, true);
        assert_int_equal(overlay_take_pages(o, &pages), 0);
        assert_int_equal(pages.n, 1);
        overlay_pages_done(o, &pages, true);
        teardown(&f);
}

/* A flush that fails says so, and does not forget what it owes. */
static void failed_flush_is_told(void **state)
{
        struct fixture f;
        struct overlay *o;
        int fd, bad;
        uint8_t byte;

        setup(&f, true);
        o = own(&f.clone);
        machine_write(&f.clone, 3, 1, 0x31);
        fd = o->fd;
        bad = open("/proc/self/status", O_RDONLY | O_CLOEXEC); /* cannot be synced */
        o->fd = bad;
        assert_true(request(&f.clone, DISK_FLUSH, 0, 0, NULL) < 0);
        o->fd = fd;
        close(bad);
        assert_false(in_file(&f.clone, 3, &byte));
        assert_int_equal(request(&f.clone, DISK_FLUSH, 0, 0, NULL), 0);
        assert_true(in_file(&f.clone, 3, &byte));
        teardown(&f);
}

/* Closing writes what was not flushed; the file is complete then. */
static void close_leaves_a_whole_file(void **state)
{
        struct fixture f;
        struct overlay *o;
        struct err err = {0};
        uint64_t n;
        int fd;

        setup(&f, true);
        machine_write(&f.clone, 100, 1, 0x44);
        fd = fcntl(own(&f.clone)->ro_fd, F_DUPFD_CLOEXEC, 0);
        machine_fini(&f.clone);
        check(overlay_open(fd, BYTES, &o, &err), &err);
        assert_true(overlay_has(o, 100, 1, &n));
        overlay_close(o);
        machine_fini(&f.root);
        frozen_fini(&f.from);
        rig_fini(&f.rig);
}

/* Where neither holes nor ranges of zeros can be had, zeros are written; a discard is ignored. */
static void zeroes_without_holes(void **state)
{
        struct fixture f;

        for (unsigned i = 0; i < 2; i++) {
                struct machine *m;

                setup(&f, false);
                m = &f.clone;
                if (i) { /* a machine that writes its image */
                        machine_fini(&f.root);
                        machine_init(&f.root, &f.rig, BYTES);
                        m = &f.root;
                }
                m->disk->no_zero_range = m->disk->no_punch = m->disk->no_punch_top = true;
                machine_write(m, 50, 20, 0x99);
                assert_int_equal(request(m, DISK_WRITE_ZEROES, 55 * 512, 5 * 512, NULL), 0);
                memset(m->model + 55 * 512, 0, 5 * 512);
                machine_check(m);
                teardown(&f);
        }
}

static void whole_disk_of_zeroes(void **state)
{
        struct rig rig;
        struct machine m;
        struct frozen from;

        rig_init(&rig, true, false, 1);
        machine_init(&m, &rig, 3u << 20);
        for (unsigned i = 0; i < 4; i++) {
                machine_write(&m, 5, 3, 0x12);
                m.disk->no_zero_range = i & 1;
                m.disk->no_punch = i & 2;
                assert_int_equal(request(&m, DISK_WRITE_ZEROES, 0, 3u << 20, NULL), 0);
                memset(m.model, 0, 3u << 20);
                machine_check(&m);
        }
        machine_write(&m, 0, 6000, 0x12);
        machine_freeze(&m, &from);
        m.disk->no_punch_top = true;
        assert_int_equal(request(&m, DISK_WRITE_ZEROES, 0, 3u << 20, NULL), 0);
        memset(m.model, 0, 3u << 20);
        machine_check(&m);
        machine_fini(&m);
        frozen_fini(&from);
        rig_fini(&rig);
}

/* A disk of a terabyte, most of which is nowhere: bits far apart, and around the edges of pages of
 * the bitmap. */
static void huge(void **state)
{
        static const uint64_t at[] = {0, 32760, 65530, 100000, 1ull << 30, (1ull << 31) - 40};
        struct disk_options options = {.name = "huge", .overlay_fd = -1, .overlay_ro_fd = -1};
        struct rig rig;
        struct machine m = {0}, c;
        struct frozen from = {0}, full = {0};
        struct err err = {0};
        char path[128];
        uint8_t buf[8 * 512];

        rig_init(&rig, true, false, 5);
        m.rig = &rig;
        m.bytes = 1ull << 40;
        rig_path(&rig, path);
        options.image_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        options.image_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(ftruncate(options.image_fd, (off_t)m.bytes), 0);
        check(disk_open(rig.loop, &options, &m.disk, &err), &err);
        m.bytes = 0; /* the model has none of it */
        m.model = malloc(1);
        for (unsigned round = 1; round <= DISK_LAYERS_MAX + 1; round++) {
                for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
                        memset(buf, (int)(i * 8 + round), sizeof buf);
                        assert_int_equal(
                                request(&m, DISK_WRITE, (at[i] + round) * 512, sizeof buf, buf), 0);
                }
                if (from.n == DISK_LAYERS_MAX - 1)
                        full = from; /* what is merged next */
                else
                        frozen_fini(&from);
                machine_freeze(&m, &from);
        }
        c = (struct machine){.rig = &rig};
        options.image_fd = options.image_ro_fd = -1;
        check(disk_open(rig.loop, &options, &c.disk, &err), &err);
        check(disk_restore(c.disk, &from.record, from.fds, from.n, &err), &err);
        for (unsigned i = 0; i < sizeof at / sizeof *at; i++) {
                assert_int_equal(request(&c, DISK_READ, (at[i] + 1) * 512, sizeof buf, buf), 0);
                assert_int_equal(buf[0], i * 8 + 1);
                assert_int_equal(buf[512], i * 8 + 2);
                assert_int_equal(buf[1024], i * 8 + 3);
                assert_int_equal(buf[sizeof buf - 1], i * 8 + 8);
        }
        assert_true(disk_own_bytes(c.disk) < 65536);
        assert_in_range(from.n, 3, 5); /* layers were merged, and not grown by looking at them */
        assert_int_equal(full.n, DISK_LAYERS_MAX - 1);
        for (unsigned i = 1; i < full.n; i++) {
                struct stat st;

                assert_int_equal(fstat(full.fds[i], &st), 0);
                assert_true(st.st_blocks * 512 < 1 << 20);
        }
        machine_fini(&m);
        machine_fini(&c);
        frozen_fini(&from);
        frozen_fini(&full);
        rig_fini(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(refused),
                cmocka_unit_test(read_only),
                cmocka_unit_test(settle_lands_everything),
                cmocka_unit_test(more_than_the_pool),
                cmocka_unit_test(many_buffers),
                cmocka_unit_test(image_cut_short),
                cmocka_unit_test(failed_write_shows_nothing),
                cmocka_unit_test(flush_brings_bits),
                cmocka_unit_test(flush_takes_a_moment),
                cmocka_unit_test(failed_flush_is_told),
                cmocka_unit_test(close_leaves_a_whole_file),
                cmocka_unit_test(zeroes_without_holes),
                cmocka_unit_test(whole_disk_of_zeroes),
                cmocka_unit_test(huge),
        };

        return cmocka_run_group_tests_name("disk_io", tests, NULL, NULL);
}
