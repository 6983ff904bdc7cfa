/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baton: see baton.h. All of it is under one lock, which is held for a few instructions; those
 * who wait have a condition each, so that a hand-over wakes one thread.
 *
 * Who waits also keeps the time, since the holder is in the guest and cannot. A turn is a
 * millisecond: an exit, a hand-over and the way back in take some 50 us, and a guest's spinlock
 * should not burn much more. One who was halted when it last came out gets a twentieth of that,
 * enough for KVM to notice an interrupt; if nobody else has anything to do it gets a full turn, or
 * an idle machine would keep the host busy with hand-overs.
 *
 * A turn begins when the thread that was given the baton is awake, which on a busy host may take
 * longer than a short turn. Asked before that, it would go back without having been in the guest;
 * or miss that it was asked, and stay for a full turn.
 */
#include "vm/baton.h"

#include <time.h>

#include "vm/machine.h"

#define TURN_NS     1000000ull
#define PEEK_NS     50000ull
#define PATIENCE_NS 30000000ull

void baton_init(struct baton *b)
{
        *b = (struct baton){0};
        pthread_mutex_init(&b->lock, NULL);
}

void baton_fini(struct baton *b)
{
        pthread_mutex_destroy(&b->lock);
}

bool baton_held(const struct baton *b, const struct vcpu *vcpu)
{
        return atomic_load(&b->holder) == vcpu;
}

static void give(struct baton *b, struct vcpu *vcpu)
{
        atomic_store(&b->holder, vcpu);
        b->begun = false;
}

/* The holder is awake. What it was asked before, by the watch of cow.c, was not of this turn. */
static void begin_turn(struct baton *b, struct vcpu *vcpu)
{
        b->since_ns = vm_now_ns();
        b->begun = true;
        b->asked = false;
        sync_test_clear(&vcpu->part, VCPU_REQUEST_YIELD);
}

static void enqueue(struct baton *b, struct vcpu *vcpu)
{
        vcpu->baton_next = NULL;
        if (b->last)
                b->last->baton_next = vcpu;
        else
                b->first = vcpu;
        b->last = vcpu;
        b->busy_waiters += !vcpu->idle;
}

static void dequeue(struct baton *b, struct vcpu *vcpu)
{
        struct vcpu *before = NULL;

        for (struct vcpu *v = b->first; v; before = v, v = v->baton_next) {
                if (v != vcpu)
                        continue;
                if (before)
                        before->baton_next = v->baton_next;
                else
                        b->first = v->baton_next;
                if (b->last == v)
                        b->last = before;
                b->busy_waiters -= !v->idle;
                return;
        }
}

/* Called by the holder. */
static void hand_over(struct baton *b)
{
        struct vcpu *next = b->first;

        if (next)
                dequeue(b, next);
        give(b, next);
        if (!next)
                return;
        atomic_fetch_add(&b->handovers, 1);
        pthread_cond_signal(&next->baton_turn);
}

/* When the holder's turn ends; or, if it has yet to wake up, when to look again. */
static uint64_t turn_end(const struct baton *b, uint64_t now)
{
        const struct vcpu *holder = atomic_load(&b->holder);

        return (b->begun ? b->since_ns : now) +
               (holder && holder->idle && b->busy_waiters ? PEEK_NS : TURN_NS);
}

/* Its turn, which ends at @end, is over. */
static void ask(struct baton *b, uint64_t end)
{
        if (!b->asked && end - b->since_ns < TURN_NS / 2)
                atomic_fetch_add(&b->short_turns, 1);
        b->asked = true;
        sync_request(&atomic_load(&b->holder)->part, VCPU_REQUEST_YIELD);
}

static void wait_until(struct baton *b, struct vcpu *vcpu, uint64_t when_ns)
{
        struct timespec ts = {.tv_sec = (time_t)(when_ns / 1000000000u),
                              .tv_nsec = (long)(when_ns % 1000000000u)};

        pthread_cond_clockwait(&vcpu->baton_turn, &b->lock, CLOCK_MONOTONIC, &ts);
}

void baton_take(struct baton *b, struct vcpu *vcpu, bool yield, bool (*wanted)(struct vcpu *))
{
        uint64_t patience = TURN_NS;

        pthread_mutex_lock(&b->lock);
        if (yield && baton_held(b, vcpu) && b->first)
                hand_over(b);
        if (!atomic_load(&b->holder))
                give(b, vcpu);
        if (!baton_held(b, vcpu))
                enqueue(b, vcpu);
        while (!baton_held(b, vcpu)) {
                uint64_t now = vm_now_ns(), end = turn_end(b, now);

                if (!wanted(vcpu)) {
                        dequeue(b, vcpu);
                        break;
                }
                if (now >= end) {
                        ask(b, end);
                        end = now + patience; /* it is on its way; or all are stopped */
                        if (patience < PATIENCE_NS)
                                patience *= 2;
                }
                wait_until(b, vcpu, end);
        }
        if (baton_held(b, vcpu) && !b->begun)
                begin_turn(b, vcpu);
        pthread_mutex_unlock(&b->lock);
}

void baton_drop(struct baton *b, struct vcpu *vcpu)
{
        pthread_mutex_lock(&b->lock);
        if (baton_held(b, vcpu))
                hand_over(b);
        pthread_mutex_unlock(&b->lock);
}
