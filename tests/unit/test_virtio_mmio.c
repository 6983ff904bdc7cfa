/* SPDX-License-Identifier: Apache-2.0 */
/* The virtio-mmio transport: what each register says and takes in which state, and the life of a
 * device from its first reset to the last. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "virtio_toy.h"

#define BIT(n)      (1ull << (n))
#define VERSION_1   BIT(VIRTIO_F_VERSION_1)
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define BEGUN       (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)

/* Before the driver's first word. */
static void begin_fresh(struct vfake *v)
{
        vfake_machine(v);
        fake_create(&v->f, &toy_ops);
}

static void begin(struct vfake *v)
{
        vfake_init(v, &toy_ops, VFAKE_ALL, TOY_SIZE);
}

/* --- registers --- */

static void a_device_says_what_it_is(void **state)
{
        static const struct {
                unsigned reg;
                uint32_t value;
        } rows[] = {
                {VIRTIO_MMIO_MAGIC_VALUE, 0x74726976},
                {VIRTIO_MMIO_VERSION, 2},
                {VIRTIO_MMIO_DEVICE_ID, 63},
                {VIRTIO_MMIO_VENDOR_ID, 0x54454d52},
                {VIRTIO_MMIO_DEVICE_FEATURES, 0x30000020},
                {VIRTIO_MMIO_QUEUE_NUM_MAX, TOY_SIZE},
                {VIRTIO_MMIO_QUEUE_READY, 0},
                {VIRTIO_MMIO_INTERRUPT_STATUS, 0},
                {VIRTIO_MMIO_STATUS, 0},
                {VIRTIO_MMIO_SHM_LEN_LOW, UINT32_MAX},
                {VIRTIO_MMIO_SHM_LEN_HIGH, UINT32_MAX},
                {VIRTIO_MMIO_SHM_BASE_LOW, UINT32_MAX},
                {VIRTIO_MMIO_SHM_BASE_HIGH, UINT32_MAX},
                {VIRTIO_MMIO_CONFIG_GENERATION, 0},
        };
        struct vfake v;

        begin_fresh(&v);
        assert_int_equal(v.f.nwindows, 1);
        assert_true(v.f.windows[0].space == DEVICE_MMIO &&
                    v.f.windows[0].base == v.f.slots[0].base && v.f.windows[0].len == 4096);
        for (unsigned reg = 0; reg < VIRTIO_MMIO_CONFIG; reg += 4) {
                uint32_t value = 0; /* those that cannot be read, or are not there */

                for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
                        if (rows[i].reg == reg)
                                value = rows[i].value;
                if (vfake_read(&v, reg) != value)
                        fail_msg("register 0x%x is 0x%x", reg, vfake_read(&v, reg));
        }
        vfake_fini(&v);
}

/* Anything but 4 aligned bytes reads 0, and changes nothing. */
static void registers_have_one_width(void **state)
{
        struct vfake v;

        begin_fresh(&v);
        for (unsigned len = 1; len <= 8; len++) {
                for (unsigned offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++) {
                        bool whole = len == 4 && offset % 4 == 0;

                        if (whole || offset + len > VIRTIO_MMIO_CONFIG)
                                continue;
                        assert_true(fake_read(&v.f, 0, offset, len) == 0);
                        fake_write(&v.f, 0, offset, len, UINT64_MAX);
                        fake_write(&v.f, 0, offset, len, 1);
                }
        }
        assert_int_equal(vfake_status(&v), 0);
        for (unsigned q = 0; q < TOY_QUEUES; q++) {
                static const struct virtio_setup zero;

                assert_memory_equal(&vfake_device(&v)->setup[q], &zero, sizeof zero);
        }
        /* over the edge: a register by half is none, and so is the configuration behind it */
        assert_true(fake_read(&v.f, 0, VIRTIO_MMIO_CONFIG - 4, 8) == 0);
        fake_write(&v.f, 0, VIRTIO_MMIO_CONFIG - 4, 8, UINT64_MAX);
        assert_int_equal(fake_read(&v.f, 0, VIRTIO_MMIO_CONFIG, 1), 0xa0);
        vfake_fini(&v);
}

static void the_configuration_has_any_width(void **state)
{
        struct vfake v;
        struct toy *t;

        begin_fresh(&v);
        t = toy_of(&v);
        for (unsigned len = 1; len <= 8; len++) {
                for (unsigned offset = 0; offset + len <= 4096 - VIRTIO_MMIO_CONFIG; offset++) {
                        uint64_t got = fake_read(&v.f, 0, VIRTIO_MMIO_CONFIG + offset, len);

                        for (unsigned i = 0; i < len; i++) {
                                unsigned at = offset + i;

                                assert_int_equal(got >> 8 * i & 0xff,
                                                 at < TOY_CONFIG ? 0xa0 + at : 0);
                        }
                }
        }
        /* what the device knows comes in one */
        t->config_reads = 0;
        fake_read(&v.f, 0, VIRTIO_MMIO_CONFIG + 3, 8);
        assert_true(t->config_reads == 1 && t->config_len == 8);
        fake_read(&v.f, 0, VIRTIO_MMIO_CONFIG + TOY_CONFIG - 2, 4);
        assert_true(t->config_reads == 3 && t->config_len == 1);

        fake_write(&v.f, 0, VIRTIO_MMIO_CONFIG + 1, 2, 0x1234);
        fake_write(&v.f, 0, VIRTIO_MMIO_CONFIG + 5, 3, 0x563412);
        fake_write(&v.f, 0, VIRTIO_MMIO_CONFIG + TOY_CONFIG - 1, 8, UINT64_MAX);
        fake_write(&v.f, 0, VIRTIO_MMIO_CONFIG + TOY_CONFIG, 8, 0);
        fake_write(&v.f, 0, 4096 - 8, 8, 0);
        assert_memory_equal(t->config, "\xa0\x34\x12\xa3\xa4\x12\x34\x56\xa8", 9);
        assert_int_equal(t->config[TOY_CONFIG - 2], 0xa0 + TOY_CONFIG - 2);
        assert_int_equal(t->config[TOY_CONFIG - 1], 0xff);
        vfake_fini(&v);
}

static void features_come_in_windows(void **state)
{
        struct vfake v;

        begin_fresh(&v);
        assert_true(vfake_offered(&v) ==
                    (TOY_FEATURES | VERSION_1 | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
                     BIT(VIRTIO_RING_F_EVENT_IDX)));
        for (unsigned sel = 2; sel != 0; sel <<= 1) {
                vfake_write(&v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, sel);
                assert_int_equal(vfake_read(&v, VIRTIO_MMIO_DEVICE_FEATURES), 0);
                vfake_write(&v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, sel);
                vfake_write(&v, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
        }
        assert_true(vfake_device(&v)->driver_features == 0);
        vfake_fini(&v);
}

static void features_are_agreed_upon(void **state)
{
        static const struct {
                uint64_t features;
                bool fine;
        } rows[] = {
                {VERSION_1, true},
                {VERSION_1 | TOY_FEATURES, true},
                {VERSION_1 | BIT(VIRTIO_RING_F_EVENT_IDX), true},
                {0, false},
                {TOY_FEATURES, false},
                {VERSION_1 | BIT(0), false},
                {VERSION_1 | BIT(VIRTIO_F_RING_PACKED), false},
                {VERSION_1 | BIT(VIRTIO_F_ACCESS_PLATFORM), false},
                {VERSION_1 | BIT(63), false},
                {UINT64_MAX, false},
        };
        struct vfake v;

        begin_fresh(&v);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                vfake_reset(&v);
                vfake_write(&v, VIRTIO_MMIO_STATUS, BEGUN);
                vfake_take_features(&v, rows[i].features);
                vfake_write(&v, VIRTIO_MMIO_STATUS, BEGUN | FEATURES_OK);
                assert_int_equal(vfake_status(&v), rows[i].fine ? BEGUN | FEATURES_OK : BEGUN);
                if (rows[i].fine) { /* from now on they are fixed */
                        vfake_take_features(&v, UINT64_MAX);
                        assert_true(vfake_device(&v)->driver_features == rows[i].features);
                        continue;
                }
                /* not agreed: not in use either; and another try may be better */
                vfake_write(&v, VIRTIO_MMIO_STATUS, BEGUN | FEATURES_OK | DRIVER_OK);
                assert_int_equal(vfake_status(&v), BEGUN);
                vfake_take_features(&v, VERSION_1);
                vfake_write(&v, VIRTIO_MMIO_STATUS, BEGUN | FEATURES_OK);
                assert_int_equal(vfake_status(&v), BEGUN | FEATURES_OK);
        }
        vfake_fini(&v);
}

static void status_bits_are_added(void **state)
{
        struct vfake v;

        begin_fresh(&v);
        vfake_write(&v, VIRTIO_MMIO_STATUS, BEGUN);
        vfake_write(&v, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
        assert_int_equal(vfake_status(&v), BEGUN);
        vfake_write(&v, VIRTIO_MMIO_STATUS, NEEDS_RESET | 0x30 | 0xffffff00u);
        assert_int_equal(vfake_status(&v), BEGUN);
        vfake_write(&v, VIRTIO_MMIO_STATUS, DRIVER_OK); /* features were not agreed upon */
        assert_int_equal(vfake_status(&v), BEGUN);
        vfake_run(&v);
        assert_int_equal(toy_of(&v)->activated, 0);
        vfake_write(&v, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FAILED);
        assert_int_equal(vfake_status(&v), BEGUN | VIRTIO_CONFIG_S_FAILED);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0); /* at once, since the loop knows nothing yet */
        assert_int_equal(vfake_status(&v), 0);
        assert_int_equal(atomic_load(&v.f.held), 0);
        vfake_fini(&v);
}

/* Writes all registers of a queue; are they as @at says afterwards? */
static void expect_setup(struct vfake *v, unsigned q, const struct virtq_layout *to,
                         const struct virtq_layout *at, bool enabled)
{
        const struct virtio_setup *s = &vfake_device(v)->setup[q];

        vfake_set_queue(v, q, to);
        assert_memory_equal(&s->at, at, sizeof *at);
        assert_int_equal(s->enabled, enabled);
        assert_int_equal(vfake_read(v, VIRTIO_MMIO_QUEUE_READY), enabled);
}

static void a_queue_is_fixed_when_it_is_ready(void **state)
{
        static const struct virtq_layout a = {0x123456789000, 0x23456789a000, 0x3456789ab000, 8};
        static const struct virtq_layout b = {0x9876543210, 0x8765432100, 0x7654321000, 4};
        struct vfake v;

        begin_fresh(&v);
        vfake_negotiate(&v, 0);
        expect_setup(&v, 1, &a, &a, true);
        expect_setup(&v, 1, &b, &a, true);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_READY, 0);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_READY), 0);
        expect_setup(&v, 1, &b, &b, true);
        /* the others are nobody's yet */
        for (unsigned q = 0; q < TOY_QUEUES; q += 2) {
                vfake_write(&v, VIRTIO_MMIO_QUEUE_SEL, q);
                assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_READY), 0);
                assert_int_equal(vfake_device(&v)->setup[q].at.size, 0);
        }
        /* and after a reset all are */
        vfake_reset(&v);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_SEL, 1);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_READY), 0);
        assert_true(vfake_device(&v)->setup[1].at.desc == 0);
        vfake_fini(&v);
}

static void a_queue_is_fixed_when_the_device_is_in_use(void **state)
{
        static const struct virtq_layout b = {0x4000, 0x5000, 0x6000, 4};
        struct virtq_layout at;
        struct vfake v;

        begin_fresh(&v);
        vfake_negotiate(&v, VFAKE_ALL);
        vfake_queue(&v, 1, 8);
        vfake_add_status(&v, DRIVER_OK); /* the loop has not seen it */
        at = v.q[1].at;
        for (unsigned i = 0; i < 2; i++) {
                expect_setup(&v, 1, &b, &at, true);
                expect_setup(&v, 2, &b, &(struct virtq_layout){0},
                             false); /* nor can one be added */
                vfake_write(&v, VIRTIO_MMIO_QUEUE_SEL, 1);
                vfake_write(&v, VIRTIO_MMIO_QUEUE_READY, 0);
                assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_READY), 1);
                vfake_take_features(&v, VERSION_1);
                vfake_run(&v);
        }
        v.features = vfake_device(&v)->driver_features;
        toy_check(&v, 1);
        vfake_fini(&v);
}

static void queues_that_are_not_there(void **state)
{
        static const uint32_t sel[] = {TOY_QUEUES, VIRTIO_QUEUES_MAX, 255, 0x10000, UINT32_MAX};
        static const struct virtq_layout at = {0x4000, 0x5000, 0x6000, 4};
        struct virtio_setup before[VIRTIO_QUEUES_MAX];
        struct vfake v;

        begin_fresh(&v);
        vfake_negotiate(&v, 0);
        memcpy(before, vfake_device(&v)->setup, sizeof before);
        for (size_t i = 0; i < sizeof sel / sizeof sel[0]; i++) {
                vfake_set_queue(&v, sel[i], &at);
                assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
                assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_READY), 0);
                assert_memory_equal(before, vfake_device(&v)->setup, sizeof before);
        }
        vfake_fini(&v);
}

/* --- work --- */

static void chains_are_served(void **state)
{
        const uint64_t one = 1;
        struct vfake v;
        uint64_t back;
        uint16_t head;

        for (int all = 0; all < 2; all++) {
                vfake_init(&v, &toy_ops, all ? VFAKE_ALL : 0, TOY_SIZE);
                assert_int_equal(toy_of(&v)->activated, 1);
                for (unsigned i = 0; i < 100; i++) {
                        toy_check(&v, i % TOY_QUEUES);
                        /* without an event index each one interrupts; with it, one was asked for */
                        assert_int_equal(vfake_irqs(&v), all ? i < TOY_QUEUES : 1);
                        assert_int_equal(vfake_ack(&v),
                                         !all || i < TOY_QUEUES ? VIRTIO_MMIO_INT_VRING : 0);
                }
                /* as KVM_IOEVENTFD notifies */
                head = toy_send(&v, 2, "by kvm", &back);
                assert_int_equal(write(v.f.slots[0].notify_fd, &one, 8), 8);
                vfake_run(&v);
                assert_int_equal(vfake_used(&v, 2, NULL), head);
                assert_int_equal(vfake_device(&v)->stats.errors, 0);
                vfake_fini(&v);
        }
}

static void queues_that_were_not_made_ready_are_left_alone(void **state)
{
        struct vfake v;

        begin_fresh(&v);
        vfake_negotiate(&v, 0);
        vfake_queue(&v, 1, 8);
        vfake_add_status(&v, DRIVER_OK);
        vfake_run(&v);
        for (uint32_t q = 0; q < 6; q++)
                vfake_kick(&v, q);
        vfake_kick(&v, UINT32_MAX);
        assert_int_equal(toy_of(&v)->processed[0] + toy_of(&v)->processed[2], 0);
        toy_check(&v, 1);
        assert_false(vfake_needs_reset(&v));
        vfake_fini(&v);
}

/* What was offered before DRIVER_OK, or notified before the loop saw it, is served. */
static void nothing_is_served_before_its_time(void **state)
{
        struct vfake v;
        uint16_t head;

        begin_fresh(&v);
        vfake_negotiate(&v, 0);
        vfake_queue(&v, 0, 8);
        head = toy_send(&v, 0, "early", NULL);
        vfake_kick(&v, 0);
        assert_int_equal(vfake_used(&v, 0, NULL), -1);
        vfake_add_status(&v, DRIVER_OK);
        assert_int_equal(vfake_used(&v, 0, NULL), -1);
        vfake_run(&v);
        assert_int_equal(vfake_used(&v, 0, NULL), head);
        vfake_fini(&v);
}

static void refill(struct toy *t, unsigned q)
{
        struct vfake *v = t->hook_data;

        while (vfake_used(v, q, NULL) >= 0)
                toy_send(v, q, "again", NULL);
        v->top = VFAKE_RAM_BEGIN + 0x10000;
}

static void count_call(void *data, int fd, unsigned events)
{
        (*(unsigned *)data)++;
}

/* A guest that fills its queue as fast as it is emptied: the others are served as well. */
static void a_full_queue_starves_nobody(void **state)
{
        struct loop_watch *watch;
        unsigned calls = 0, before;
        struct vfake v;
        int other = eventfd(1, EFD_CLOEXEC);

        begin(&v);
        toy_of(&v)->hook = refill;
        toy_of(&v)->hook_data = &v;
        assert_int_equal(loop_add_fd(v.f.env.loop, other, POLLIN, count_call, &calls, &watch), 0);
        for (unsigned i = 0; i < TOY_SIZE / 2; i++)
                toy_send(&v, 0, "first", NULL);
        vfake_kick(&v, 0);
        for (unsigned i = 0; i < 200; i++) {
                before = toy_of(&v)->processed[0];
                assert_int_equal(loop_step(v.f.env.loop, 0), 0);
                if (toy_of(&v)->processed[0] - before > 1)
                        fail_msg("stale: %u turns in one", toy_of(&v)->processed[0] - before);
        }
        assert_true(calls >= 100);
        assert_true(toy_of(&v)->processed[0] >= 50);
        loop_remove(watch);
        vfake_fini(&v);
        close(other);
}

/* Chains that a device leaves where they are make no work, and are served when it says so. */
static void what_is_left_is_not_looked_at_again_and_again(void **state)
{
        struct vfake v;
        struct toy *t;

        for (int event_idx = 0; event_idx < 2; event_idx++) {
                vfake_init(&v, &toy_ops, event_idx ? VFAKE_ALL : 0, TOY_SIZE);
                t = toy_of(&v);
                t->mode = TOY_LEAVE;
                for (unsigned i = 0; i < 5; i++) {
                        uint16_t old = v.q[0].avail;
                        unsigned before;

                        toy_send(&v, 0, "left", NULL);
                        assert_true(vfake_notify_wanted(&v, 0, old));
                        before = t->processed[0];
                        for (unsigned k = 0; k < 5; k++)
                                vfake_kick(&v, 0);
                        assert_in_range(t->processed[0] - before, 5, 6);
                }
                t->mode = TOY_ECHO;
                virtio_poke(&t->v, 0);
                vfake_run(&v);
                for (unsigned i = 0; i < 5; i++)
                        assert_true(vfake_used(&v, 0, NULL) >= 0);
                vfake_fini(&v);
        }
}

static void send_late(struct toy *t, unsigned q)
{
        struct vfake *v = t->hook_data;
        uint16_t old = v->q[q].avail;

        t->hook = NULL;
        toy_send(v, q, "late", NULL);
        assert_false(vfake_notify_wanted(v, q, old)); /* so the driver says nothing */
}

/* What comes after a device's last look, when notifications are still off. */
static void what_comes_late_is_seen(void **state)
{
        struct vfake v;

        for (int event_idx = 0; event_idx < 2; event_idx++) {
                vfake_init(&v, &toy_ops, event_idx ? VFAKE_ALL : 0, TOY_SIZE);
                for (unsigned i = 0; i < 20; i++) {
                        toy_of(&v)->hook = send_late;
                        toy_of(&v)->hook_data = &v;
                        toy_send(&v, 0, "first", NULL);
                        vfake_kick(&v, 0);
                        assert_true(vfake_used(&v, 0, NULL) >= 0);
                        if (vfake_used(&v, 0, NULL) < 0)
                                fail_msg("stale: the second of two was not seen, round %u", i);
                }
                vfake_fini(&v);
        }
}

static void an_interrupt_has_a_line_or_an_eventfd(void **state)
{
        struct vfake v;

        begin(&v);
        toy_check(&v, 0);
        assert_int_equal(vfake_irqs(&v), 1);
        assert_int_equal(atomic_load(&v.f.irqs), 0);
        vfake_start(&v, 0, TOY_SIZE);
        vfake_device(&v)->slot.irq_fd = -1;
        toy_check(&v, 0);
        assert_int_equal(vfake_irqs(&v), 0);
        assert_int_equal(atomic_load(&v.f.rises[v.f.slots[0].gsi]), 1);
        assert_false(atomic_load(&v.f.line[v.f.slots[0].gsi]));
        vfake_fini(&v);
}

static void a_change_of_configuration_is_told(void **state)
{
        struct vfake v;

        begin_fresh(&v);
        virtio_config_changed(vfake_device(&v)); /* to nobody yet */
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_CONFIG_GENERATION), 1);
        assert_int_equal(vfake_irqs(&v), 0);
        assert_int_equal(vfake_ack(&v), 0);
        vfake_start(&v, VFAKE_ALL, TOY_SIZE);
        virtio_config_changed(vfake_device(&v));
        toy_check(&v, 0);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_CONFIG_GENERATION), 2);
        assert_int_equal(vfake_irqs(&v), 2);
        /* one is acknowledged, the other stays */
        vfake_write(&v, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
        vfake_write(&v, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        vfake_fini(&v);
}

/* --- what breaks it --- */

static void expect_broken(struct vfake *v, const char *why)
{
        unsigned done = toy_of(v)->processed[0];

        assert_true(vfake_needs_reset(v));
        assert_string_equal(vfake_device(v)->why, why);
        assert_int_equal(vfake_irqs(v), 1);
        assert_int_equal(vfake_ack(v), VIRTIO_MMIO_INT_CONFIG);
        assert_int_equal(vfake_device(v)->stats.errors, 1);
        /* nothing more is done, and said once */
        for (unsigned i = 0; i < 3; i++)
                vfake_kick(v, i);
        virtio_break(vfake_device(v), "again");
        assert_string_equal(vfake_device(v)->why, why);
        assert_int_equal(toy_of(v)->processed[0], done);
        assert_int_equal(vfake_irqs(v), 0);
        vfake_recover(v, TOY_SIZE);
        for (unsigned q = 0; q < TOY_QUEUES; q++)
                toy_check(v, q);
}

static void queues_that_cannot_be_are_found(void **state)
{
        static const struct {
                struct virtq_layout at;
                const char *why;
        } rows[] = {
                {{0x1000, 0x2000, 0x3000, 0},
                 "queue 1: a size of 0 is not a power of two up to 256"},
                {{0x1000, 0x2000, 0x3000, 3},
                 "queue 1: a size of 3 is not a power of two up to 256"},
                {{0x1000, 0x2000, 0x3000, 2 * TOY_SIZE}, /* more than it was told */
                 "queue 1: a size of 0 is not a power of two up to 256"},
                {{0x1008, 0x2000, 0x3000, 8},
                 "queue 1: the descriptor table at 0x1008 is not aligned to 16 bytes"},
                {{0x1000, 0x500000, 0x3000, 8},
                 "queue 1: the available ring at 0x500000, 22 bytes long, is not in RAM"},
                {{0x1000, 0x2000, UINT64_MAX - 7, 8},
                 "queue 1: the used ring at 0xfffffffffffffff8, 70 bytes long, is not in RAM"},
        };

        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct vfake v;

                begin_fresh(&v);
                vfake_negotiate(&v, VFAKE_ALL);
                vfake_queue(&v, 0, 8);
                vfake_set_queue(&v, 1, &rows[i].at);
                vfake_queue(&v, 2, 8);
                toy_send(&v, 0, "never", NULL);
                vfake_add_status(&v, DRIVER_OK);
                vfake_run(&v);
                assert_int_equal(toy_of(&v)->activated, 0);
                expect_broken(&v, rows[i].why);
                vfake_fini(&v);
        }
}

static void a_broken_chain_breaks_the_device(void **state)
{
        static const struct vbuf bad = {0x500000, 16, true};
        struct vbuf b[2];
        struct vfake v;

        begin(&v);
        vfake_offer(&v, 1, TOY_SIZE);
        vfake_kick(&v, 1);
        expect_broken(&v, "descriptor 16 of a table of 16");
        vfake_fini(&v);

        begin(&v);
        b[0] = vfake_out(&v, "12345678", 8);
        b[1] = bad;
        vfake_add(&v, 0, b, 2);
        toy_send(&v, 1, "never", NULL); /* in the same turn, and after it */
        vfake_kick(&v, 0);
        assert_int_equal(vfake_used(&v, 1, NULL), -1);
        expect_broken(&v, "a buffer that is not in RAM");
        vfake_fini(&v);
}

static void break_behind(struct toy *t, unsigned q)
{
        struct virtq_chain c;

        vfake_offer(t->hook_data, q, 99);
        t->hook = NULL;
        virtq_pop(&t->v.queues[q], t->v.env->mem, &c, NULL);
}

/* A device that does not look at what it was told. */
static void a_broken_queue_breaks_the_device_anyway(void **state)
{
        struct vfake v;

        begin(&v);
        toy_of(&v)->hook = break_behind;
        toy_of(&v)->hook_data = &v;
        vfake_kick(&v, 0);
        expect_broken(&v, "a queue is broken");
        vfake_fini(&v);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_device_says_what_it_is),
                cmocka_unit_test(registers_have_one_width),
                cmocka_unit_test(the_configuration_has_any_width),
                cmocka_unit_test(features_come_in_windows),
                cmocka_unit_test(features_are_agreed_upon),
                cmocka_unit_test(status_bits_are_added),
                cmocka_unit_test(a_queue_is_fixed_when_it_is_ready),
                cmocka_unit_test(a_queue_is_fixed_when_the_device_is_in_use),
                cmocka_unit_test(queues_that_are_not_there),
                cmocka_unit_test(chains_are_served),
                cmocka_unit_test(queues_that_were_not_made_ready_are_left_alone),
                cmocka_unit_test(nothing_is_served_before_its_time),
                cmocka_unit_test(a_full_queue_starves_nobody),
                cmocka_unit_test(what_is_left_is_not_looked_at_again_and_again),
                cmocka_unit_test(what_comes_late_is_seen),
                cmocka_unit_test(an_interrupt_has_a_line_or_an_eventfd),
                cmocka_unit_test(a_change_of_configuration_is_told),
                cmocka_unit_test(queues_that_cannot_be_are_found),
                cmocka_unit_test(a_broken_chain_breaks_the_device),
                cmocka_unit_test(a_broken_queue_breaks_the_device_anyway),
        };

        return cmocka_run_group_tests_name("virtio_mmio", tests, NULL, NULL);
}
