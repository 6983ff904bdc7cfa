/* SPDX-License-Identifier: Apache-2.0 */
/* Split queues: indices go around, and nobody is told too little: not the device of what is there
 * to be taken, nor the driver of what was used. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "virtq_fake.h"

/* --- notifications and interrupts --- */

/* @n chains, through the queue at once. */
static void pass(struct state *s, unsigned n)
{
        struct vbuf b = {BUF, 16, true};

        for (unsigned i = 0; i < n; i++)
                vfake_add(&s->v, 0, &b, 1);
        for (unsigned i = 0; i < n; i++) {
                assert_int_equal(pop(s), 1);
                assert_int_equal(push(s, s->chain.head, 16), 0);
                assert_int_equal(vfake_used(&s->v, 0, NULL), s->chain.head);
        }
}

static void set_used_event(struct state *s, uint16_t event)
{
        vfake_put16(&s->v, s->v.q[0].at.driver + 4 + 2 * SIZE, event);
}

/* Groups of pushes, for three times around. The driver wants to hear of one entry, anywhere near:
 * it does, when and only when the group has it. */
static void an_interrupt_is_for_one_entry(void **state)
{
        unsigned asked = 0, wanted = 0;
        struct state s;

        begin_queue(&s, SIZE, true, true);
        while (asked < 3 * 65536) {
                uint16_t old = s.q.next_used, event = (uint16_t)(old + rnd() % 20 - 6);
                unsigned n = (unsigned)(rnd() % (SIZE + 1));
                bool has = (uint16_t)(event - old) < n, got;

                set_used_event(&s, event);
                pass(&s, n);
                got = virtq_interrupt_wanted(&s.q, &s.v.f.access);
                if (got != has)
                        fail_msg("stale: %u to %u, event %u: %d", old, old + n, event, got);
                assert_false(virtq_interrupt_wanted(&s.q, &s.v.f.access));
                asked += n;
                wanted += has;
        }
        assert_true(wanted > 1000);
        end(&s);
}

/* At the place itself, to be seen in the source. */
static void an_index_goes_around(void **state)
{
        static const struct {
                uint16_t from, event;
                unsigned n;
                bool wanted;
        } rows[] = {
                {65534, 65534, 1, true}, {65534, 65535, 1, false}, {65534, 65535, 2, true},
                {65534, 0, 2, false},    {65534, 0, 3, true},      {65535, 65535, 1, true},
                {65535, 0, 1, false},    {0, 65535, 1, false},     {0, 0, 1, true},
                {65530, 1, 8, true},     {65530, 2, 8, false},     {65530, 65529, 8, false},
        };

        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                struct state s;

                begin_queue(&s, SIZE, true, true);
                s.q.next_avail = s.q.next_used = s.q.signalled = rows[i].from;
                s.v.q[0].avail = s.v.q[0].used = rows[i].from;
                vfake_put16(&s.v, s.v.q[0].at.driver + 2, rows[i].from);
                vfake_put16(&s.v, s.v.q[0].at.device + 2, rows[i].from);
                set_used_event(&s, rows[i].event);
                pass(&s, rows[i].n);
                assert_int_equal(virtq_interrupt_wanted(&s.q, &s.v.f.access), rows[i].wanted);
                end(&s);
        }
}

/* A device that has not asked for that long cannot tell, and interrupts. */
static void once_around_without_a_question(void **state)
{
        struct state s;

        begin_queue(&s, SIZE, true, true);
        set_used_event(&s, 20000);
        for (unsigned i = 0; i < 65536 / SIZE; i++)
                pass(&s, SIZE);
        assert_true(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        assert_false(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        end(&s);
}

static void an_interrupt_is_suppressed_by_a_flag(void **state)
{
        struct state s;

        begin(&s);
        assert_false(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        pass(&s, 3);
        assert_true(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        assert_false(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        vfake_put16(&s.v, s.v.q[0].at.driver, VRING_AVAIL_F_NO_INTERRUPT);
        pass(&s, 3);
        assert_false(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        vfake_put16(&s.v, s.v.q[0].at.driver, 0);
        assert_false(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        set_used_event(&s, 1000); /* is nothing without the feature */
        pass(&s, 1);
        assert_true(virtq_interrupt_wanted(&s.q, &s.v.f.access));
        end(&s);
}

/* With and without the feature, and with something left in the queue. */
static void notifications_are_asked_for(void **state)
{
        struct vbuf b = {BUF, 16, true};

        for (int event_idx = 0; event_idx < 2; event_idx++) {
                struct guest_access *a;
                struct state s;
                uint16_t old;

                begin_queue(&s, SIZE, event_idx, true);
                a = &s.v.f.access;
                for (unsigned round = 0; round < 70000; round++) {
                        assert_false(virtq_ask_notify(&s.q, a, true));
                        old = s.v.q[0].avail;
                        vfake_add(&s.v, 0, &b, 1);
                        assert_true(vfake_notify_wanted(&s.v, 0, old));
                        assert_false(virtq_ask_notify(&s.q, a, false));
                        /* the next one is not of interest any more, also with an event index */
                        old = s.v.q[0].avail;
                        vfake_add(&s.v, 0, &b, 1);
                        assert_false(vfake_notify_wanted(&s.v, 0, old));
                        /* something is there; from now on, again, whatever is left */
                        assert_true(virtq_ask_notify(&s.q, a, true));
                        old = s.v.q[0].avail;
                        vfake_add(&s.v, 0, &b, 1);
                        assert_true(vfake_notify_wanted(&s.v, 0, old));
                        for (unsigned i = 0; i < 3; i++) {
                                assert_int_equal(pop(&s), 1);
                                assert_int_equal(push(&s, s.chain.head, 0), 0);
                                vfake_used(&s.v, 0, NULL);
                        }
                }
                end(&s);
        }
}

/* --- two threads, each asleep when there is nothing to do, woken by nothing but the queue --- */

#define MESSAGES 20000u

struct pair {
        struct state s;
        int notify, irq; /* eventfds */
        atomic_uint lost;
};

static void wake(int fd)
{
        const uint64_t one = 1;

        assert_int_equal(write(fd, &one, sizeof one), sizeof one);
}

/* False after ten seconds. */
static bool sleep_on(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};
        uint64_t n;

        return poll(&p, 1, 10000) == 1 && read(fd, &n, sizeof n) == sizeof n;
}

static void *device_thread(void *arg)
{
        struct pair *p = arg;
        struct guest_access *a = &p->s.v.f.access;
        unsigned done = 0;

        while (done < MESSAGES) {
                unsigned n = 0;

                guest_access_begin(a);
                virtq_ask_notify(&p->s.q, a, false);
                while (n < 5 && pop(&p->s) == 1) {
                        uint32_t value;

                        virtq_read(a, &p->s.chain, 0, &value, sizeof value);
                        value = ~value;
                        virtq_write(a, &p->s.chain, 0, &value, sizeof value);
                        push(&p->s, p->s.chain.head, sizeof value);
                        n++;
                }
                done += n;
                if (virtq_interrupt_wanted(&p->s.q, a))
                        wake(p->irq);
                n = n == 5 || virtq_ask_notify(&p->s.q, a, true);
                guest_access_end(a);
                if (!n && done < MESSAGES && !sleep_on(p->notify)) {
                        atomic_fetch_add(&p->lost, 1);
                        break;
                }
        }
        return NULL;
}

/* The driver: keeps the queue as full as it likes, asks for an interrupt at the next used entry and
 * looks once more before it sleeps. */
static void drive(struct pair *p)
{
        struct vfake *v = &p->s.v;
        struct vfake_queue *d = &v->q[0];
        unsigned sent = 0, got = 0;

        while (got < MESSAGES && !atomic_load(&p->lost)) {
                uint16_t old = d->avail;

                while (sent < MESSAGES && sent - got < SIZE / 2 && rnd() % 8) {
                        uint64_t gpa = BUF + sent % SIZE * 64;
                        const struct vbuf b[2] = {{gpa, 4, false}, {gpa + 32, 4, true}};

                        memcpy(vfake_ptr(v, gpa), &sent, 4);
                        vfake_add(v, 0, b, 2);
                        sent++;
                }
                if (d->avail != old && vfake_notify_wanted(v, 0, old))
                        wake(p->notify);
                if (v->features)
                        set_used_event(&p->s, d->used);
                for (; vfake_used(v, 0, NULL) >= 0; got++) {
                        uint32_t value;

                        memcpy(&value, vfake_ptr(v, BUF + got % SIZE * 64 + 32), 4);
                        assert_int_equal(value, ~got);
                        if (v->features)
                                set_used_event(&p->s, d->used);
                }
                if (sent - got >= SIZE / 2 || (sent == MESSAGES && got < MESSAGES)) {
                        if (!sleep_on(p->irq)) {
                                atomic_fetch_add(&p->lost, 1);
                                break;
                        }
                }
        }
}

static void nobody_sleeps_for_ever(void **state)
{
        for (int event_idx = 0; event_idx < 2; event_idx++) {
                struct pair p = {0};
                pthread_t thread;

                begin_queue(&p.s, SIZE, event_idx, true);
                guest_access_end(&p.s.v.f.access);
                p.notify = eventfd(0, EFD_CLOEXEC);
                p.irq = eventfd(0, EFD_CLOEXEC);
                assert_int_equal(pthread_create(&thread, NULL, device_thread, &p), 0);
                drive(&p);
                pthread_join(thread, NULL);
                assert_int_equal(atomic_load(&p.lost), 0);
                assert_int_equal(p.s.q.pushes, MESSAGES);
                close(p.notify);
                close(p.irq);
                guest_access_begin(&p.s.v.f.access);
                end(&p.s);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(an_interrupt_is_for_one_entry),
                cmocka_unit_test(an_index_goes_around),
                cmocka_unit_test(once_around_without_a_question),
                cmocka_unit_test(an_interrupt_is_suppressed_by_a_flag),
                cmocka_unit_test(notifications_are_asked_for),
                cmocka_unit_test(nobody_sleeps_for_ever),
        };

        return cmocka_run_group_tests_name("virtq_events", tests, NULL, NULL);
}
