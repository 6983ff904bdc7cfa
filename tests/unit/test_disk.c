/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks against a plain array of bytes: random requests, many in flight, buffers cut anywhere, over
 * stacks of any depth; machines fork, their clones diverge, fork again, and are reset. Each sees
 * what was before its fork and what it wrote, and never what another wrote. On both backends of the
 * loop, with overlays in memory and in files.
 */
#include "disk_rig.h"

#define BYTES    (600 * DISK_SECTOR)
#define MACHINES 5
#define BATCH    24
#define IOVS     12

/* Cut @len bytes at @buf into pieces, some of them empty. */
static unsigned cut(struct rig *rig, uint8_t *buf, uint64_t len, struct iovec *iov)
{
        unsigned n = 0;

        while (n < IOVS - 1 && len) {
                uint64_t piece = rig_random(rig, 3) ? rig_random(rig, len + 1) : 0;

                iov[n++] = (struct iovec){buf, piece};
                buf += piece;
                len -= piece;
        }
        iov[n++] = (struct iovec){buf, len};
        return n;
}

struct batch {
        struct waited w[BATCH];
        struct iovec iov[BATCH][IOVS];
        uint8_t *buf; /* BYTES + BATCH of them: at odd addresses */
};

static enum disk_op random_op(struct rig *rig)
{
        static const enum disk_op ops[] = {DISK_READ,  DISK_READ,    DISK_WRITE,        DISK_WRITE,
                                           DISK_FLUSH, DISK_DISCARD, DISK_WRITE_ZEROES, DISK_WRITE};

        return ops[rig_random(rig, sizeof ops / sizeof *ops)];
}

/* Requests at disjoint places, all in flight at once, some of them after a settle. */
static void random_batch(struct machine *m, struct batch *b)
{
        struct rig *rig = m->rig;
        uint64_t at = 0, sectors = m->bytes / DISK_SECTOR;
        uint64_t step = 1 + rig_random(rig, 60);
        unsigned n = 0;

        for (; n < BATCH && at < sectors; n++) {
                uint64_t left = sectors - at, len;
                uint8_t *buf = b->buf + at * DISK_SECTOR + n;
                enum disk_op op = random_op(rig);
                unsigned niov;

                len = 1 + rig_random(rig, step < left ? step : left);
                niov = cut(rig, buf, len * DISK_SECTOR, b->iov[n]);
                b->w[n] = waited(op, at * DISK_SECTOR, len * DISK_SECTOR, b->iov[n], niov);
                for (uint64_t i = 0; i < len * DISK_SECTOR; i++)
                        buf[i] = (uint8_t)rig_random(rig, 256);
                submit(m->disk, &b->w[n]);
                if (!rig_random(rig, 10))
                        loop_io_settle(rig->loop);
                at += len + rig_random(rig, 8);
        }
        loop_io_drain(rig->loop);
        for (unsigned i = 0; i < n; i++) {
                struct disk_request *r = &b->w[i].r;
                uint8_t *model = m->model + r->offset;
                uint8_t *buf = b->buf + r->offset + i;

                assert_int_equal(b->w[i].done, 1);
                assert_int_equal(r->result, 0);
                if (r->op == DISK_READ)
                        assert_memory_equal(buf, model, r->len);
                else if (r->op == DISK_WRITE)
                        memcpy(model, buf, r->len);
                else if (r->op != DISK_FLUSH)
                        memset(model, 0, r->len);
        }
}

static void family(bool uring, bool files, uint64_t seed)
{
        struct rig rig;
        struct machine m[MACHINES] = {0};
        struct frozen from[MACHINES] = {0}; /* which template it was made from, if any */
        struct batch *b = calloc(1, sizeof *b);
        unsigned depth = 0;

        rig_init(&rig, uring, files, seed);
        b->buf = malloc(BYTES + BATCH);
        machine_init(&m[0], &rig, BYTES);
        for (int round = 0; round < (files ? 120 : 400); round++) {
                unsigned who = (unsigned)rig_random(&rig, MACHINES), other;

                if (!m[who].disk)
                        continue;
                for (uint64_t i = rig_random(&rig, 3); i > 0; i--)
                        random_batch(&m[who], b);
                if (from[who].n && !rig_random(&rig, 5))
                        machine_reset(&m[who], &from[who]);
                other = (unsigned)rig_random(&rig, MACHINES);
                if (other != who && !rig_random(&rig, 2)) {
                        if (m[other].disk) {
                                machine_check(&m[other]);
                                machine_fini(&m[other]);
                                frozen_fini(&from[other]);
                        }
                        machine_freeze(&m[who], &from[other]);
                        machine_spawn(&m[other], &rig, &from[other]);
                        if (from[other].n > depth)
                                depth = from[other].n;
                }
                machine_check(&m[who]);
        }
        if (!files)                                           /* whose media are slow */
                assert_int_equal(depth, DISK_LAYERS_MAX - 1); /* so layers were merged, too */
        for (unsigned i = 0; i < MACHINES; i++) {
                if (m[i].disk) {
                        machine_check(&m[i]);
                        machine_fini(&m[i]);
                }
                frozen_fini(&from[i]);
        }
        free(b->buf);
        free(b);
        rig_fini(&rig);
}

static void memory_uring(void **state)
{
        family(true, false, 0x1234567);
}

static void memory_epoll(void **state)
{
        family(false, false, 0x7654321);
}

static void files_uring(void **state)
{
        family(true, true, 0xabcdef);
}

static void files_epoll(void **state)
{
        family(false, true, 0xfedcba);
}

/* One machine after another, each a clone of the one before, and all of them still right. */
static void deep(void **state)
{
        enum { DEPTH = DISK_LAYERS_MAX + 3 };
        struct rig rig;
        struct machine m[DEPTH + 1];
        struct frozen f[DEPTH];

        rig_init(&rig, true, false, 99);
        machine_init(&m[0], &rig, 64 * DISK_SECTOR);
        for (unsigned i = 0; i < DEPTH; i++) {
                machine_write(&m[i], i, 3, (uint8_t)(i + 1));
                machine_write(&m[i], 40, 1, (uint8_t)(i + 100));
                machine_freeze(&m[i], &f[i]);
                machine_write(&m[i], 60, 1, 0xee); /* nobody else's */
                machine_spawn(&m[i + 1], &rig, &f[i]);
                machine_check(&m[i + 1]);
        }
        for (unsigned i = 0; i <= DEPTH; i++) {
                machine_check(&m[i]);
                machine_fini(&m[i]);
        }
        for (unsigned i = 0; i < DEPTH; i++)
                frozen_fini(&f[i]);
        rig_fini(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(memory_uring), cmocka_unit_test(memory_epoll),
                cmocka_unit_test(files_uring),  cmocka_unit_test(files_epoll),
                cmocka_unit_test(deep),
        };

        return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
