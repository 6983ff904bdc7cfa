// SPDX-License-Identifier: Apache-2.0
/*
 * What a fork costs the devices that have no files: virtio-rng and virtio-console, with a driver
 * that has set them up and left them idle. Prints nanoseconds, one sample a line, each the mean of
 * BATCH. The floor is a copy of as many bytes as the saved state has (../floor/block.c).
 *
 * others quiesce rng|console N: N times, quiesce() and resume().
 * others restore rng|console N: N times, restore(), what is made anew, and resume() in a clone.
 * others bytes   rng|console: how long the saved state is.
 */
#include "../../unit/no_cmocka.h"

#include <inttypes.h>

#include "../../unit/virtio_fake.h"

#define BATCH 100

static uint64_t now_ns(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void boot(struct vfake *v, const struct device_ops *ops)
{
        vfake_machine(v);
        v->f.params.rng = v->f.params.virtio_console = true;
        fake_create(&v->f, ops);
        vfake_start(v, VFAKE_ALL, 64);
        vfake_run(v);
}

static void quiesce(struct vfake *v, const struct device_ops *ops)
{
        ops->quiesce(v->f.dev);
        ops->resume(v->f.dev);
}

static void restore(struct vfake *v, const struct device_ops *ops, const uint8_t *record)
{
        struct err err = {0};

        assert_int_equal(ops->restore(v->f.dev, record, ops->record_version, &err), 0);
        if (ops->renew)
                ops->renew(v->f.dev);
        ops->resume(v->f.dev);
}

int main(int argc, char **argv)
{
        static struct vfake parent, clone;
        const struct device_ops *ops =
                argc > 2 && !strcmp(argv[2], "rng") ? &rng_ops : &virtio_console_ops;
        uint64_t n = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;
        bool quiescing = argc > 3 && !strcmp(argv[1], "quiesce");
        uint8_t *record = calloc(1, ops->record_length);

        if (argc == 3 && !strcmp(argv[1], "bytes"))
                return printf("%u\n", ops->record_length), 0;
        if (argc != 4 || (!quiescing && strcmp(argv[1], "restore") != 0))
                return fprintf(stderr, "others: see the comment in others.c\n"), 2;
        boot(&parent, ops);
        boot(&clone, ops);
        /* Restored over the same addresses, which are RAM in both. */
        ops->quiesce(parent.f.dev);
        ops->save(parent.f.dev, record);
        while (n-- > 0) {
                uint64_t start = now_ns();

                for (unsigned i = 0; i < BATCH; i++) {
                        if (quiescing)
                                quiesce(&clone, ops);
                        else
                                restore(&clone, ops, record);
                }
                printf("%" PRIu64 "\n", (now_ns() - start) / BATCH);
        }
        vfake_fini(&parent);
        vfake_fini(&clone);
        free(record);
        return 0;
}
