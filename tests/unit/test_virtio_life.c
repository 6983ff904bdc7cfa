/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a virtio device: resets at any time, quiet while the machine is stopped, saved and
 * restored, and registers that several vCPUs use at once. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "virtio_toy.h"

#define BIT(n)      (1ull << (n))
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK   VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

struct state {
        struct virtio_record v;
        uint64_t word;
};

static void begin(struct vfake *v)
{
        vfake_init(v, &toy_ops, VFAKE_ALL, TOY_SIZE);
}

static void save(struct vfake *v, struct state *s)
{
        assert_int_equal(toy_ops.record_length, sizeof *s);
        memset(s, 0x5a, sizeof *s);
        toy_ops.save(v->f.dev, s);
}

static void restore(struct vfake *v, const struct state *s)
{
        struct err err = {0};

        if (toy_ops.restore(v->f.dev, s, 1, &err))
                fail_msg("%s", err.text);
}

static int held(struct vfake *v)
{
        return atomic_load(&v->f.held);
}

/* --- resets --- */

static void a_reset_waits_for_the_loop(void **state)
{
        struct vfake v;

        begin(&v);
        toy_check(&v, 0);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
        assert_int_equal(held(&v), 1);
        assert_int_not_equal(vfake_status(&v), 0);
        assert_int_equal(toy_of(&v)->resets, 0);
        /* another vCPU, in the meantime: writes are nothing, and who resets, too, waits, too */
        vfake_add_status(&v, VIRTIO_CONFIG_S_FAILED);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_SEL, 2);
        vfake_write(&v, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
        fake_write(&v.f, 0, VIRTIO_MMIO_CONFIG, 4, 0);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
        assert_int_equal(held(&v), 2);
        assert_false(vfake_status(&v) & VIRTIO_CONFIG_S_FAILED);
        assert_int_equal(vfake_device(&v)->queue_sel, TOY_QUEUES - 1);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
        assert_int_equal(toy_of(&v)->config[0], 0xa0);

        vfake_run(&v);
        assert_int_equal(held(&v), 0);
        assert_int_equal(vfake_status(&v), 0);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        assert_int_equal(toy_of(&v)->resets, 1);
        /* what the old driver left in its queue is nobody's */
        toy_send(&v, 0, "old", NULL);
        vfake_kick(&v, 0);
        assert_int_equal(vfake_used(&v, 0, NULL), -1);
        vfake_start(&v, VFAKE_ALL, TOY_SIZE);
        toy_check(&v, 0);
        vfake_fini(&v);
}

static void *write_later(void *arg)
{
        struct timespec t = {.tv_nsec = 30000000};

        nanosleep(&t, NULL);
        assert_int_equal(write(*(int *)arg, "12345678", 8), 8);
        return NULL;
}

/* What is in flight ends first, and nothing new is begun meanwhile, however much is offered. */
static void a_reset_waits_for_what_is_in_flight(void **state)
{
        struct vfake v;
        pthread_t thread;
        unsigned before;
        struct toy *t;
        int fds[2];

        begin(&v);
        if (strcmp(loop_backend(v.f.env.loop), "io_uring")) { /* a thread cannot read a pipe so */
                vfake_fini(&v);
                skip();
        }
        t = toy_of(&v);
        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        t->mode = TOY_ASYNC;
        t->pipe = fds[0];
        for (unsigned i = 0; i < 6; i++)
                toy_send(&v, 0, "slow", NULL);
        vfake_kick(&v, 0);
        assert_int_equal(t->in_flight, 6);
        before = t->processed[1];
        toy_send(&v, 1, "too late", NULL);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
        assert_int_equal(pthread_create(&thread, NULL, write_later, &fds[1]), 0);
        vfake_run(&v);
        pthread_join(thread, NULL);
        assert_int_equal(held(&v), 0);
        assert_int_equal(vfake_status(&v), 0);
        assert_int_equal(t->resets, 1);
        assert_int_equal(t->done, 6);
        assert_int_equal(t->lost, 0); /* the guest was told of all, into memory it had given */
        assert_int_equal(t->processed[1], before);
        vfake_fini(&v);
        close(fds[0]);
        close(fds[1]);
}

/* A device that begins the next one as soon as one has ended is not asked to end them all. */
static void a_reset_ends_what_is_in_flight_only(void **state)
{
        struct state s;
        struct vfake v;
        struct toy *t;

        begin(&v);
        t = toy_of(&v);
        t->mode = TOY_EAGER;
        for (unsigned i = 0; i < TOY_SIZE / 2; i++)
                toy_send(&v, 0, "next", NULL);
        guest_access_begin(v.f.env.mem); /* as process() would, but for one chain */
        assert_int_equal(virtq_pop(&t->v.queues[0], v.f.env.mem, &t->chain, NULL), 1);
        toy_start(t, 0, t->chain.head);
        guest_access_end(v.f.env.mem);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
        save(&v, &s); /* which does what is pending, and no step of the loop before */
        assert_int_equal(held(&v), 0);
        assert_int_equal(t->done, 1);
        assert_int_equal(t->in_flight, 0);
        vfake_fini(&v);
}

/* A device that broke while something was in flight: that ends, and is given to nobody. */
static void a_break_leaves_nothing_behind(void **state)
{
        struct vfake v;
        struct toy *t;

        begin(&v);
        t = toy_of(&v);
        t->mode = TOY_ASYNC;
        for (unsigned i = 0; i < 3; i++)
                toy_send(&v, 0, "lost", NULL);
        vfake_offer(&v, 0, 99);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        vfake_run(&v);
        assert_true(vfake_needs_reset(&v));
        vfake_recover(&v, TOY_SIZE);
        assert_int_equal(t->done, 3);
        assert_int_equal(t->lost, 3);
        t->mode = TOY_ECHO;
        toy_check(&v, 0);
        vfake_fini(&v);
}

/* DRIVER_OK and its end, before the loop heard of the first. */
static void a_reset_overtakes_an_activation(void **state)
{
        struct vfake v;

        begin(&v);
        vfake_negotiate(&v, VFAKE_ALL);
        vfake_queue(&v, 0, TOY_SIZE);
        toy_send(&v, 0, "never", NULL);
        vfake_add_status(&v, DRIVER_OK);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
        assert_int_equal(held(&v), 1);
        vfake_run(&v);
        assert_int_equal(held(&v), 0);
        assert_int_equal(vfake_status(&v), 0);
        assert_int_equal(toy_of(&v)->activated, 1); /* by begin() */
        assert_int_equal(vfake_used(&v, 0, NULL), -1);
        vfake_start(&v, VFAKE_ALL, TOY_SIZE);
        toy_check(&v, 0);
        vfake_fini(&v);
}

/* --- quiet --- */

static void nothing_is_begun_while_quiesced(void **state)
{
        unsigned before;
        struct vfake v;
        struct toy *t;

        begin(&v);
        t = toy_of(&v);
        t->mode = TOY_ASYNC;
        for (unsigned i = 0; i < 3; i++)
                toy_send(&v, 0, "before", NULL);
        vfake_write(&v, VIRTIO_MMIO_QUEUE_NOTIFY, 0);
        assert_int_equal(loop_step(v.f.env.loop, 0), 0);
        for (unsigned i = 0; i < 2; i++) {
                toy_ops.quiesce(v.f.dev);
                assert_int_equal(t->in_flight, 0);
                assert_int_equal(t->done, 3);
        }
        /* asked for now, done later, also when the notification has been taken */
        t->mode = TOY_ECHO;
        before = t->processed[1];
        toy_send(&v, 1, "meanwhile", NULL);
        vfake_kick(&v, 1);
        assert_int_equal(vfake_used(&v, 1, NULL), -1);
        assert_int_equal(t->processed[1], before);
        toy_ops.resume(v.f.dev);
        assert_true(vfake_used(&v, 1, NULL) >= 0);
        vfake_fini(&v);
}

/* Life goes on in registers. */
static void a_quiesced_device_can_be_reset_and_activated(void **state)
{
        unsigned before;
        struct vfake v;

        begin(&v);
        before = toy_of(&v)->processed[0];
        toy_ops.quiesce(v.f.dev);
        vfake_start(&v, VFAKE_ALL, TOY_SIZE);
        assert_int_equal(toy_of(&v)->activated, 2);
        toy_send(&v, 0, "meanwhile", NULL);
        vfake_kick(&v, 0);
        assert_int_equal(toy_of(&v)->processed[0], before);
        toy_ops.resume(v.f.dev);
        assert_true(vfake_used(&v, 0, NULL) >= 0);
        vfake_fini(&v);
}

/* --- saved state --- */

/* A machine with the memory and the state of @v, which goes on with its queues. */
static void spawn(struct vfake *v, const struct state *s, struct vfake *c)
{
        vfake_machine(c);
        for (unsigned i = 0; i < v->f.mem.nregions; i++)
                memcpy(c->f.mem.regions[i].hva, v->f.mem.regions[i].hva, v->f.mem.regions[i].size);
        fake_create(&c->f, &toy_ops);
        restore(c, s);
        memcpy(c->q, v->q, sizeof c->q);
        c->features = v->features;
        c->top = v->top;
}

static void a_clone_goes_on(void **state)
{
        struct state s, again;
        struct vfake v, c;
        uint16_t head;

        for (int event_idx = 0; event_idx < 2; event_idx++) {
                vfake_init(&v, &toy_ops, event_idx ? VFAKE_ALL : 0, TOY_SIZE);
                for (unsigned i = 0; i < 50; i++)
                        toy_check(&v, i % 2);
                virtio_config_changed(vfake_device(&v));
                vfake_irqs(&v);
                toy_of(&v)->word = 77;
                toy_ops.quiesce(v.f.dev);
                head = toy_send(&v, 1, "at fork", NULL); /* and notified in the parent alone */
                vfake_write(&v, VIRTIO_MMIO_QUEUE_NOTIFY, 1);
                save(&v, &s);
                spawn(&v, &s, &c);
                toy_ops.save(c.f.dev, &again);
                assert_memory_equal(&s, &again, sizeof s);
                assert_int_equal(toy_of(&c)->word, 77);
                assert_int_equal(toy_of(&c)->restored, 1);
                /* the interrupt may have been lost on the way */
                assert_int_equal(vfake_irqs(&c), 1);
                assert_int_equal(vfake_ack(&c), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
                assert_int_equal(vfake_read(&c, VIRTIO_MMIO_CONFIG_GENERATION), 1);
                /* nothing before the machine runs */
                vfake_kick(&c, 1);
                assert_int_equal(vfake_used(&c, 1, NULL), -1);
                toy_ops.resume(c.f.dev);
                toy_ops.resume(v.f.dev);
                assert_int_equal(vfake_used(&c, 1, NULL), head);
                assert_int_equal(vfake_used(&v, 1, NULL), head);
                for (unsigned i = 0; i < 50; i++) {
                        toy_check(&v, i % TOY_QUEUES);
                        toy_check(&c, i % TOY_QUEUES);
                }
                vfake_fini(&v);
                vfake_fini(&c);
        }
}

/* No interrupt is made up. */
static void a_clone_without_an_interrupt(void **state)
{
        struct vfake v, c;
        struct state s;

        begin(&v);
        save(&v, &s);
        spawn(&v, &s, &c);
        assert_int_equal(vfake_irqs(&c), 0);
        vfake_fini(&v);
        vfake_fini(&c);
}

/* Each state that registers can be in, there and back. */
static void every_state_is_saved(void **state)
{
        struct state s, again;
        struct vfake v, c;

        begin(&v);
        for (unsigned step = 0; step < 7; step++) {
                switch (step) {
                case 0:
                        vfake_reset(&v);
                        break;
                case 1:
                        vfake_write(&v, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_DRIVER);
                        vfake_take_features(&v, UINT64_MAX); /* which will not be accepted */
                        vfake_write(&v, VIRTIO_MMIO_QUEUE_SEL, 0xfedcba98);
                        vfake_write(&v, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0x12345678);
                        break;
                case 2:
                        vfake_negotiate(&v, VFAKE_ALL);
                        break;
                case 3: /* nonsense, and nobody has looked at it */
                        vfake_set_queue(&v, 0, &(struct virtq_layout){UINT64_MAX, 1, 2, 3});
                        break;
                case 4: /* now somebody has */
                        vfake_add_status(&v, DRIVER_OK);
                        vfake_run(&v);
                        assert_true(vfake_needs_reset(&v));
                        break;
                case 5:
                        vfake_start(&v, VFAKE_ALL, TOY_SIZE);
                        break;
                default:
                        vfake_add_status(&v, VIRTIO_CONFIG_S_FAILED);
                        break;
                }
                save(&v, &s);
                spawn(&v, &s, &c);
                toy_ops.save(c.f.dev, &again);
                assert_memory_equal(&s, &again, sizeof s);
                assert_int_equal(vfake_status(&c), vfake_status(&v));
                assert_int_equal(vfake_needs_reset(&c), step == 4);
                toy_ops.resume(c.f.dev);
                vfake_start(&c, VFAKE_ALL, TOY_SIZE);
                toy_check(&c, 0);
                vfake_fini(&c);
        }
        vfake_fini(&v);
}

/* What vCPUs have asked for between the last look of the loop and the stop is done before. */
static void what_is_pending_is_saved_as_done(void **state)
{
        struct vfake v, c;
        struct state s;

        begin(&v);
        vfake_negotiate(&v, VFAKE_ALL);
        vfake_queue(&v, 0, TOY_SIZE);
        toy_ops.quiesce(v.f.dev);
        vfake_add_status(&v, DRIVER_OK);
        toy_send(&v, 0, "pending", NULL);
        save(&v, &s);
        assert_true(s.v.status & DRIVER_OK && s.v.queues[0].ready);
        spawn(&v, &s, &c);
        toy_ops.resume(c.f.dev);
        assert_true(vfake_used(&c, 0, NULL) >= 0);
        vfake_fini(&c);

        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
        assert_int_equal(held(&v), 1);
        save(&v, &s);
        assert_int_equal(held(&v), 0);
        assert_int_equal(s.v.status, 0);
        spawn(&v, &s, &c);
        assert_int_equal(vfake_status(&c), 0);
        vfake_fini(&c);
        vfake_fini(&v);
}

/* A machine that is reset: its device has gone on since, or is broken, or waits for the loop. */
static void a_device_in_use_is_restored(void **state)
{
        struct vfake v;
        struct state s, again;
        uint8_t *memory = malloc(VFAKE_RAM_END);
        struct vfake_queue q[VIRTIO_QUEUES_MAX];
        uint64_t top;

        for (unsigned how = 0; how < 5; how++) {
                begin(&v);
                toy_check(&v, 0);
                toy_ops.quiesce(v.f.dev);
                save(&v, &s);
                toy_ops.resume(v.f.dev);
                memcpy(memory, vfake_ptr(&v, 0), VFAKE_RAM_END);
                memcpy(q, v.q, sizeof q);
                top = v.top;
                for (unsigned i = 0; i < 100; i++)
                        toy_check(&v, i % TOY_QUEUES);
                if (how == 1) {
                        vfake_offer(&v, 0, 99);
                        vfake_kick(&v, 0);
                        assert_true(vfake_needs_reset(&v));
                } else if (how == 2) {
                        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
                        vfake_write(&v, VIRTIO_MMIO_STATUS, 0);
                        assert_int_equal(held(&v), 2);
                } else if (how == 3) {
                        vfake_reset(&v);
                } else if (how == 4) {
                        vfake_negotiate(&v, 0);
                        vfake_queue(&v, 1, 4);
                        vfake_add_status(&v, DRIVER_OK);
                }
                vfake_irqs(&v);
                toy_ops.quiesce(v.f.dev);
                memcpy(vfake_ptr(&v, 0), memory, VFAKE_RAM_END);
                restore(&v, &s);
                memcpy(v.q, q, sizeof q);
                v.top = top;
                v.features = s.v.driver_features;
                assert_int_equal(held(&v), 0);
                assert_int_equal(vfake_irqs(&v), 1);
                save(&v, &again);
                assert_memory_equal(&s, &again, sizeof s);
                toy_ops.resume(v.f.dev);
                vfake_run(&v);
                assert_int_equal(vfake_status(&v), s.v.status);
                for (unsigned i = 0; i < 20; i++)
                        toy_check(&v, i % TOY_QUEUES);
                vfake_fini(&v);
        }
        free(memory);
}

/* A copy of a good record with one thing changed is refused, and nothing of it is taken over. */
static void records_are_checked(void **state)
{
#define IN(field)       offsetof(struct state, v.field)
#define QUEUE(i, field) offsetof(struct state, v.queues[i].field)
        static const struct {
                size_t offset;
                uint8_t value;
                const char *text;
        } rows[] = {
                {IN(device_id), 2, "toy: a record of device id 2 with 3 queues"},
                {IN(nqueues), 4, "toy: a record of device id 63 with 4 queues"},
                {IN(status), 0x1f, "toy: reserved bits in status 0x1f"},
                {IN(status) + 1, 1, "toy: reserved bits in status 0x10f"},
                {IN(status), 0x07, "toy: status 0x7 cannot be"},
                {IN(status), 0x4b, "toy: status 0x4b cannot be"},
                {IN(isr), 4, "toy: reserved bits in interrupt status 0x4"},
                {IN(driver_features) + 4, 0, "toy: features 0x30000020 cannot have been accepted"},
                {IN(driver_features), 1, "toy: features 0x2130000001 cannot have been accepted"},
                {IN(driver_features) + 3, 0x10,
                 "toy: queue 0: its state is not that of its device"},
                {IN(driver_features) + 3, 0x20,
                 "toy: queue 0: its state is not that of its device"},
                {IN(status), 0x0b, "toy: queue 0: its state is not that of its device"},
                {IN(status), 0x4f, "toy: queue 0: its state is not that of its device"},
                {QUEUE(0, enabled), 2, "toy: queue 0: enabled is 2, not 0 or 1"},
                {QUEUE(0, enabled), 0, "toy: queue 0: its state is not that of its device"},
                {QUEUE(1, ready), 0, "toy: queue 1: its state is not that of its device"},
                {QUEUE(1, ready), 2, "toy: queue 1: its state is not that of its device"},
                {QUEUE(1, event_idx), 0, "toy: queue 1: its state is not that of its device"},
                {QUEUE(1, indirect), 0, "toy: queue 1: its state is not that of its device"},
                {QUEUE(1, signalled_valid), 2, "toy: queue 1: signalled_valid is 2, not 0 or 1"},
                {QUEUE(0, size), 12, "toy: queue 0: a size of 12 is not a power of two up to 256"},
                {QUEUE(0, size), 32, "toy: queue 0: size 32 is too large"},
                {QUEUE(0, size) + 1, 1, "toy: queue 0: size 272 is too large"},
                {QUEUE(0, desc), 1,
                 "toy: queue 0: the descriptor table at 0x100001 is not aligned to 16 bytes"},
                {QUEUE(0, desc) + 7, 0xff,
                 "toy: queue 0: the descriptor table at 0xff00000000100000, 256 bytes long, is not "
                 "in RAM"},
                {QUEUE(0, next_avail), 3, "toy: queue 0: 3 were taken and 2 used"},
                {QUEUE(0, next_used) + 1, 1, "toy: queue 0: 2 were taken and 258 used"},
                {QUEUE(3, desc), 1, "toy: queue 3: it is not there"},
                {QUEUE(7, enabled) + 3, 1, "toy: queue 7: it is not there"},
                {offsetof(struct state, word) + 4, 1, "toy: a large word"},
        };
        struct vfake v;

        begin(&v);
        toy_check(&v, 0);
        toy_check(&v, 0);
        vfake_write(&v, VIRTIO_MMIO_STATUS, 0x0f);
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                fake_expect_refused(&v.f, rows[i].offset, rows[i].value, rows[i].text);
                assert_int_equal(toy_of(&v)->restored, 0);
        }
        toy_check(&v, 0);
        /* a queue that is not in use has no indices */
        vfake_negotiate(&v, 0);
        fake_expect_refused(&v.f, QUEUE(2, next_avail), 1,
                            "toy: queue 2: it has indices, and is not in use");
        fake_expect_refused(&v.f, QUEUE(2, ready), 1,
                            "toy: queue 2: its state is not that of its device");
        vfake_fini(&v);
}

/* --- vCPUs at once --- */

#define VCPUS 3

struct vcpu {
        struct vfake *v;
        uint64_t seed;
        pthread_t thread;
        atomic_bool *stop;
};

static uint64_t rnd(uint64_t *seed)
{
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed * 0x2545f4914f6cdd1d;
}

/* Registers in no order, and now and then in the right one, with queues whose contents change while
 * they are used. What is read makes sense at any time. */
static void *vcpu_thread(void *arg)
{
        static const unsigned widths[] = {1, 2, 4, 8};
        struct vcpu *c = arg;
        struct vfake *v = c->v;
        struct vfake_queue *q;

        while (!atomic_load(c->stop)) {
                uint64_t what = rnd(&c->seed);

                q = &v->q[rnd(&c->seed) % TOY_QUEUES];
                switch (what % 16) {
                case 0:
                        vfake_write(v, VIRTIO_MMIO_STATUS, 0);
                        while (held(v) > 0 && !atomic_load(c->stop))
                                sched_yield();
                        break;
                case 1:
                case 2:
                        vfake_write(v, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
                        vfake_write(v, VIRTIO_MMIO_DRIVER_FEATURES, 1);
                        vfake_write(v, VIRTIO_MMIO_STATUS, 0x0b);
                        for (unsigned k = 0; k < TOY_QUEUES; k++)
                                vfake_set_queue(v, k, &v->q[k].at);
                        vfake_write(v, VIRTIO_MMIO_STATUS, 0x0f);
                        break;
                case 3:
                case 4:
                case 5:
                        vfake_put16(v, q->at.driver + 2, (uint16_t)(what >> 16 & 15));
                        vfake_write(v, VIRTIO_MMIO_QUEUE_NOTIFY, (uint32_t)(q - v->q));
                        break;
                case 6:
                        vfake_ack(v);
                        break;
                case 7:
                        vfake_write(v, (unsigned)(what >> 8 & 0xfc), (uint32_t)(what >> 32));
                        break;
                case 8:
                        fake_write(&v->f, 0, what >> 8 & 0x1ff, widths[what >> 20 & 3], what >> 24);
                        break;
                default:
                        fake_read(&v->f, 0, what >> 8 & 0x1ff, widths[what >> 20 & 3]);
                        assert_int_equal(vfake_read(v, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
                        break;
                }
        }
        return NULL;
}

static void registers_are_used_by_several(void **state)
{
        struct vcpu vcpus[VCPUS];
        atomic_bool stop = false;
        struct vfake v;
        struct toy *t;

        vfake_init(&v, &toy_ops, 0, TOY_SIZE);
        t = toy_of(&v);
        t->mode = TOY_ASYNC;
        for (unsigned q = 0; q < TOY_QUEUES; q++) {
                for (uint16_t i = 0; i < TOY_SIZE; i++) {
                        vfake_desc(&v, v.q[q].at.desc, i, 0x10000 + 64 * i, 8, VRING_DESC_F_WRITE,
                                   0);
                        vfake_put16(&v, v.q[q].at.driver + 4 + 2 * i, i);
                }
        }
        for (unsigned i = 0; i < VCPUS; i++) {
                vcpus[i] = (struct vcpu){
                        .v = &v, .seed = 0x9e3779b97f4a7c15u * (i + 1), .stop = &stop};
                assert_int_equal(pthread_create(&vcpus[i].thread, NULL, vcpu_thread, &vcpus[i]), 0);
        }
        for (time_t begin = time(NULL); t->activated < 300 || t->resets < 300 || t->done < 300;) {
                assert_int_equal(loop_step(v.f.env.loop, 1000000), 0);
                assert_true(time(NULL) - begin < 30);
        }
        atomic_store(&stop, true);
        for (unsigned i = 0; i < VCPUS; i++)
                pthread_join(vcpus[i].thread, NULL);
        vfake_run(&v);
        assert_int_equal(held(&v), 0);
        toy_of(&v)->mode = TOY_ECHO;
        vfake_start(&v, VFAKE_ALL, TOY_SIZE);
        toy_check(&v, 1);
        vfake_fini(&v);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_reset_waits_for_the_loop),
                cmocka_unit_test(a_reset_waits_for_what_is_in_flight),
                cmocka_unit_test(a_reset_ends_what_is_in_flight_only),
                cmocka_unit_test(a_break_leaves_nothing_behind),
                cmocka_unit_test(a_reset_overtakes_an_activation),
                cmocka_unit_test(nothing_is_begun_while_quiesced),
                cmocka_unit_test(a_quiesced_device_can_be_reset_and_activated),
                cmocka_unit_test(a_clone_goes_on),
                cmocka_unit_test(a_clone_without_an_interrupt),
                cmocka_unit_test(every_state_is_saved),
                cmocka_unit_test(what_is_pending_is_saved_as_done),
                cmocka_unit_test(a_device_in_use_is_restored),
                cmocka_unit_test(records_are_checked),
                cmocka_unit_test(registers_are_used_by_several),
        };

        return cmocka_run_group_tests_name("virtio_life", tests, NULL, NULL);
}
