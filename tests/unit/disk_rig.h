/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines with a disk each, without the machines: a disk, what it should contain, and forks as the
 * owner of a machine makes them. Images and overlays are files in a directory of their own, or
 * memfds.
 */
#ifndef DISK_RIG_H
#define DISK_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/disk_internal.h"

struct rig {
        struct loop *loop;
        bool files;    /* overlays are files */
        char dir[64];  /* of this test */
        unsigned made; /* files there */
        uint64_t seed;
};

/* A frozen disk, as a template has it. */
struct frozen {
        struct disk_record record;
        int fds[DISK_LAYERS_MAX];
        unsigned n;
        uint8_t *model;
};

struct machine {
        struct rig *rig;
        struct disk *disk;
        uint8_t *model;
        uint64_t bytes;
};

static inline uint64_t rig_random(struct rig *rig, uint64_t below)
{
        rig->seed ^= rig->seed << 13;
        rig->seed ^= rig->seed >> 7;
        rig->seed ^= rig->seed << 17;
        return below ? rig->seed % below : 0;
}

static inline void rig_init(struct rig *rig, bool uring, bool files, uint64_t seed)
{
        *rig = (struct rig){.files = files, .seed = seed};
        assert_int_equal(loop_create(uring, &rig->loop), 0);
        strcpy(rig->dir, "/var/tmp/ramet-disk-XXXXXX");
        assert_non_null(mkdtemp(rig->dir));
}

static inline void rig_fini(struct rig *rig)
{
        char command[128];

        loop_destroy(rig->loop);
        snprintf(command, sizeof command, "rm -rf '%s'", rig->dir);
        assert_int_equal(system(command), 0);
}

/* The path of a new file in the directory. */
static inline const char *rig_path(struct rig *rig, char path[128])
{
        snprintf(path, 128, "%s/m.0.%u.overlay", rig->dir, ++rig->made);
        return path;
}

static inline void rig_overlay(struct rig *rig, int *fd, int *ro_fd)
{
        char path[128];
        struct err err = {0};

        *fd = *ro_fd = -1;
        if (rig->files)
                assert_int_equal(overlay_create_file(rig_path(rig, path), fd, ro_fd, &err), 0);
}

static inline void check(int ret, const struct err *err)
{
        if (ret)
                fail_msg("%d: %s", ret, err->text);
}

/* A machine whose image is a new file of random contents. */
static inline void machine_init(struct machine *m, struct rig *rig, uint64_t bytes)
{
        struct disk_options options = {.name = "image"};
        struct err err = {0};
        char path[128];

        *m = (struct machine){.rig = rig, .bytes = bytes, .model = malloc(bytes)};
        assert_non_null(m->model);
        for (uint64_t i = 0; i < bytes; i++)
                m->model[i] = (uint8_t)rig_random(rig, 0x100);
        snprintf(path, sizeof path, "%s/image-%u", rig->dir, ++rig->made);
        options.name = path;
        options.image_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        options.image_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_int_equal(pwrite(options.image_fd, m->model, bytes, 0), bytes);
        rig_overlay(rig, &options.overlay_fd, &options.overlay_ro_fd);
        check(disk_open(rig->loop, &options, &m->disk, &err), &err);
        assert_int_equal(disk_bytes(m->disk), bytes);
}

static inline void machine_fini(struct machine *m)
{
        disk_close(m->disk);
        free(m->model);
        *m = (struct machine){0};
}

/* --- requests that are waited for --- */

struct waited {
        struct disk_request r;
        int landed, done;
};

static inline void waited_landed(struct disk_request *r)
{
        struct waited *w = (struct waited *)r;

        assert_int_equal(w->landed, 0);
        w->landed++;
}

static inline void waited_done(struct disk_request *r)
{
        struct waited *w = (struct waited *)r;

        assert_int_equal(w->landed, 1);
        assert_int_equal(w->done, 0);
        w->done++;
}

static inline struct waited waited(enum disk_op op, uint64_t offset, uint64_t len,
                                   const struct iovec *iov, unsigned niov)
{
        return (struct waited){{.op = op,
                                .offset = offset,
                                .len = len,
                                .iov = iov,
                                .niov = niov,
                                .landed = waited_landed,
                                .done = waited_done,
                                .result = 12345}};
}

static inline void submit(struct disk *disk, struct waited *w)
{
        disk_submit(disk, &w->r);
        assert_int_equal(w->done, 0);
}

static inline int request(struct machine *m, enum disk_op op, uint64_t offset, uint64_t len,
                          void *buf)
{
        struct iovec iov = {buf, len};
        struct waited w = waited(op, offset, len, &iov, 1);

        submit(m->disk, &w);
        loop_io_drain(m->rig->loop);
        assert_int_equal(w.landed, 1);
        assert_int_equal(w.done, 1);
        return w.r.result;
}

/* All of the disk is what it should be. */
static inline void machine_check(struct machine *m)
{
        uint8_t *now = malloc(m->bytes);

        assert_int_equal(request(m, DISK_READ, 0, m->bytes, now), 0);
        for (uint64_t i = 0; i < m->bytes; i++)
                if (now[i] != m->model[i])
                        fail_msg("byte %llu (sector %llu) is %#x, not %#x", (unsigned long long)i,
                                 (unsigned long long)i / 512, now[i], m->model[i]);
        free(now);
}

/* Write @byte to some sectors, in the model, too. */
static inline void machine_write(struct machine *m, uint64_t sector, uint64_t n, uint8_t byte)
{
        uint8_t *buf = malloc(n * DISK_SECTOR);

        memset(buf, byte, n * DISK_SECTOR);
        assert_int_equal(request(m, DISK_WRITE, sector * DISK_SECTOR, n * DISK_SECTOR, buf), 0);
        memset(m->model + sector * DISK_SECTOR, byte, n * DISK_SECTOR);
        free(buf);
}

/* --- forks --- */

static inline void frozen_fini(struct frozen *f)
{
        for (unsigned i = 0; i < f->n; i++)
                close(f->fds[i]);
        free(f->model);
        *f = (struct frozen){0};
}

/* A template of @m, which goes on. */
static inline void machine_freeze(struct machine *m, struct frozen *f)
{
        struct err err = {0};
        int fds[DISK_LAYERS_MAX];

        *f = (struct frozen){.model = malloc(m->bytes)};
        memcpy(f->model, m->model, m->bytes);
        check(disk_freeze_prepare(m->disk, &err), &err);
        disk_save(m->disk, &f->record);
        disk_freeze(m->disk);
        check(disk_freeze_publish(m->disk, &err), &err);
        f->n = disk_files(m->disk, fds);
        assert_int_equal(f->n, f->record.layers);
        assert_in_range(f->n, 1, DISK_LAYERS_MAX - 1);
        for (unsigned i = 0; i < f->n; i++) {
                f->fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0);
                assert_true(f->fds[i] >= 0);
        }
}

static inline void machine_spawn(struct machine *m, struct rig *rig, const struct frozen *f)
{
        struct disk_options options = {.image_fd = -1, .image_ro_fd = -1};
        struct err err = {0};

        *m = (struct machine){.rig = rig, .bytes = f->record.bytes};
        m->model = malloc(m->bytes);
        memcpy(m->model, f->model, m->bytes);
        rig_overlay(rig, &options.overlay_fd, &options.overlay_ro_fd);
        check(disk_open(rig->loop, &options, &m->disk, &err), &err);
        check(disk_restore(m->disk, &f->record, f->fds, f->n, &err), &err);
}

static inline void machine_reset(struct machine *m, const struct frozen *f)
{
        struct err err = {0};

        check(disk_restore(m->disk, &f->record, f->fds, f->n, &err), &err);
        memcpy(m->model, f->model, m->bytes);
}

#endif
