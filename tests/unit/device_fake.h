/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine for one device: memory, a loop, a console whose ends the test holds, and a log of what
 * the device said. Include after cmocka.h.
 */
#ifndef RAMET_TESTS_DEVICE_FAKE_H
#define RAMET_TESTS_DEVICE_FAKE_H

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "devices/registry.h"
#include "golden.h"
#include "ramet/fork_abi.h"
#include "x86/layout.h"

#ifndef FAKE_MEMORY /* bytes from address 0 on */
#define FAKE_MEMORY 0x100000u
#endif
#ifndef FAKE_URING /* the loop's backend: an expression */
#define FAKE_URING true
#endif

struct fake {
        struct guest_mem mem;
        struct tlb tlb;
        struct guest_access access;
        struct device_env env;
        struct device_params params;
        const struct device_ops *ops;
        void *dev;
        struct device_window windows[DEVICE_WINDOWS];
        unsigned nwindows;
        int in, out;           /* the test's ends of the console's pipes */
        atomic_bool line[24];  /* interrupt lines */
        atomic_uint rises[24]; /* how often each went from low to high */
        atomic_uint irqs;
        unsigned notified; /* how often, and the last one */
        enum device_event event;
        uint64_t arg;
        void (*on_notify)(struct fake *f, enum device_event event);
        unsigned nslots;
        struct device_slot slots[DEVICE_SLOTS_MAX];
        atomic_int held; /* hold() less release() */
};

static inline void fake_irq(void *machine, unsigned gsi, bool level)
{
        struct fake *f = machine;

        assert_in_range(gsi, 0, 23);
        atomic_fetch_add(&f->irqs, 1);
        if (!atomic_exchange(&f->line[gsi], level) && level)
                atomic_fetch_add(&f->rises[gsi], 1);
}

static inline void fake_notify(void *machine, enum device_event event, uint64_t arg)
{
        struct fake *f = machine;

        f->notified++;
        f->event = event;
        f->arg = arg;
        if (f->on_notify)
                f->on_notify(f, event);
}

static inline int fake_slot(void *machine, struct device_slot *slot)
{
        struct fake *f = machine;

        if (f->nslots == DEVICE_SLOTS_MAX)
                return -ENOSPC;
        *slot = (struct device_slot){
                .base = LAYOUT_VIRTIO + f->nslots * 0x1000ull,
                .gsi = 16 + f->nslots % 8,
                .notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                .irq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        };
        assert_true(slot->notify_fd >= 0 && slot->irq_fd >= 0);
        f->slots[f->nslots++] = *slot;
        return 0;
}

static inline void fake_hold(void *machine)
{
        struct fake *f = machine;

        atomic_fetch_add(&f->held, 1);
}

static inline void fake_release(void *machine)
{
        struct fake *f = machine;

        assert_true(atomic_fetch_sub(&f->held, 1) > 0);
}

/* More memory, above what there is. Whole pages. */
static inline void fake_add_memory(struct fake *f, uint64_t gpa, uint64_t size)
{
        struct guest_mem *mem = &f->mem;
        uint64_t offset = 0;
        void *hva = NULL;

        assert_int_equal(posix_memalign(&hva, 4096, size), 0);
        memset(hva, 0, size);
        for (unsigned i = 0; i < mem->nregions; i++)
                offset += mem->regions[i].size;
        mem->regions[mem->nregions++] =
                (struct guest_region){.gpa = gpa, .size = size, .offset = offset, .hva = hva};
}

/* Everything but the device. */
static inline void fake_machine(struct fake *f)
{
        int in[2], out[2];

        memset(f, 0, sizeof *f);
        fake_add_memory(f, 0, FAKE_MEMORY);
        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(out, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(loop_create(FAKE_URING, &f->env.loop), 0);
        assert_int_equal(chardev_create(f->env.loop, in[0], out[1], &f->env.console), 0);
        f->in = in[1];
        f->out = out[0];
        f->params.debug_exit_port = 0xf4;
        f->params.rng = true;
        tlb_init(&f->tlb);
        guest_access_init(&f->access, &f->mem, NULL, &f->tlb);
        f->env.mem = &f->access;
        f->env.irq = fake_irq;
        f->env.notify = fake_notify;
        f->env.slot = fake_slot;
        f->env.hold = fake_hold;
        f->env.release = fake_release;
        f->env.machine = f;
}

/* The device, as f->params say. */
static inline void fake_create(struct fake *f, const struct device_ops *ops)
{
        struct err err = {0};

        f->ops = ops;
        assert_int_equal(
                ops->create(&f->env, &f->params, 0, &f->dev, f->windows, &f->nwindows, &err), 0);
        assert_non_null(f->dev);
        assert_in_range(f->nwindows, 0, DEVICE_WINDOWS);
}

static inline void fake_init(struct fake *f, const struct device_ops *ops)
{
        fake_machine(f);
        f->params.virtio_console = ops == &virtio_console_ops; /* else input is the serial port's */
        fake_create(f, ops);
}

static inline void fake_fini(struct fake *f)
{
        if (f->ops)
                f->ops->destroy(f->dev);
        chardev_destroy(f->env.console, 0);
        loop_destroy(f->env.loop);
        for (unsigned i = 0; i < f->mem.nregions; i++)
                free(f->mem.regions[i].hva);
        for (unsigned i = 0; i < f->nslots; i++) {
                close(f->slots[i].notify_fd);
                close(f->slots[i].irq_fd);
        }
        close(f->in);
        close(f->out);
}

static inline void fake_write(struct fake *f, unsigned window, uint64_t offset, unsigned len,
                              uint64_t value)
{
        uint8_t data[8];

        device_put(data, len, value);
        f->ops->write(f->dev, window, offset, data, len);
}

static inline uint64_t fake_read(struct fake *f, unsigned window, uint64_t offset, unsigned len)
{
        uint8_t data[8];

        memset(data, 0x5a, sizeof data);
        f->ops->read(f->dev, window, offset, data, len);
        return device_get(data, len);
}

/* Let the loop do what there is to do. */
static inline void fake_settle(struct fake *f)
{
        for (int i = 0; i < 6; i++)
                assert_int_equal(loop_step(f->env.loop, 2000000), 0);
}

/* What came out of the console so far, as a string. */
static inline const char *fake_output(struct fake *f)
{
        static char buf[8192];
        ssize_t n;

        fake_settle(f);
        n = read(f->out, buf, sizeof buf - 1);
        buf[n > 0 ? n : 0] = 0;
        return buf;
}

static inline void fake_type(struct fake *f, const char *text)
{
        assert_int_equal(write(f->in, text, strlen(text)), (ssize_t)strlen(text));
        fake_settle(f);
}

/* Save, compare with the golden file, restore into a new device, save again: all three are equal.
 */
static inline void fake_check_record(struct fake *f)
{
        struct fake g;
        struct err err = {0};
        uint8_t *a = malloc(f->ops->record_length), *b = malloc(f->ops->record_length);

        memset(a, 0x5a, f->ops->record_length);
        memset(b, 0xa5, f->ops->record_length);
        f->ops->save(f->dev, a);
        golden_check(f->ops->name, f->ops->record_kind, 0, f->ops->record_version, a,
                     f->ops->record_length);
        fake_init(&g, f->ops);
        assert_int_equal(g.ops->restore(g.dev, a, g.ops->record_version, &err), 0);
        g.ops->save(g.dev, b);
        assert_memory_equal(a, b, g.ops->record_length);
        fake_fini(&g);
        free(a);
        free(b);
}

/* A saved state with the byte at @offset set to @value is refused with @text. */
static inline void fake_expect_refused(struct fake *f, size_t offset, uint8_t value,
                                       const char *text)
{
        uint8_t *a = malloc(f->ops->record_length), *b = malloc(f->ops->record_length);
        struct err err = {0};

        f->ops->save(f->dev, a);
        memcpy(b, a, f->ops->record_length);
        b[offset] = value;
        assert_int_equal(f->ops->restore(f->dev, b, f->ops->record_version, &err), -EINVAL);
        assert_string_equal(err.text, text);
        assert_int_equal(err.class, ERR_INPUT);
        /* and nothing of it was taken over */
        f->ops->save(f->dev, b);
        assert_memory_equal(a, b, f->ops->record_length);
        free(a);
        free(b);
}

#endif
