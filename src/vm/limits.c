/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine has used, and may use.
 *
 *   time    from vm_run() to vm_pause(), summed up. A timer of the loop is due when the rest of it
 *           is, so that it ends a machine only while somebody serves the loop.
 *   exits   counted by the vCPUs where they deal with them; it needs nobody.
 *   pages   with the engine `trap` every one is seen before it is written; with the others a timer
 *           looks every 10 ms. Only of memory that is a template's otherwise.
 *
 * Counters that are shown are each vCPU's own (struct vcpu), so that counting costs no cache line
 * that others write; only with a limit of exits there is one for all.
 *
 * A reset is a new life, with counts from zero, and so is setting limits. What a count may be is
 * said, and the machine ends with the first thing beyond it.
 */
#include <errno.h>

#include "vm/machine.h"

#define LOOK_NS    10000000ull
#define PAGE_BYTES 4096u

static uint64_t run_ns(const struct vm_meter *m)
{
        return m->run_before + (m->run_since ? vm_now_ns() - m->run_since : 0);
}

/* --- ends --- */

static void check_time(struct vm *vm)
{
        const struct vm_meter *m = &vm->meter;

        if (m->limits.run_ns && run_ns(m) - m->run_base >= m->limits.run_ns)
                vm_exit_with(vm, RAMET_EXIT_LIMIT, 0, "it may run for %.3f ms, and did",
                             (double)m->limits.run_ns / 1e6);
}

static void too_many_pages(struct vm *vm, uint64_t max)
{
        vm_exit_with(vm, RAMET_EXIT_LIMIT, 0,
                     "it may have %llu pages of memory of its own, and wrote to one more",
                     (unsigned long long)max);
}

/* The page is the writer's all the same, and so is one for each other vCPU, until they are out.
 * event_lock is never held by a thread that touches guest memory. */
void meter_own_page(void *machine, uint64_t offset, uint64_t own_pages)
{
        struct vm *vm = machine;
        uint64_t max = atomic_load(&vm->meter.own_pages_max);

        if (max && own_pages > max)
                too_many_pages(vm, max);
}

static bool looks_at_pages(const struct vm *vm)
{
        return vm->meter.limits.own_pages && vm->options.cow != RAMET_COW_TRAP;
}

static void check_pages(struct vm *vm)
{
        const uint64_t max = vm->meter.limits.own_pages;
        uint64_t shared, own;

        /* What the last reset has kept is not of this life. */
        if (looks_at_pages(vm) && vm->tmpl && vm_memory_usage(vm, &shared, &own) == 0 &&
            own > vm->backing.kept_bytes && (own - vm->backing.kept_bytes) / PAGE_BYTES > max)
                too_many_pages(vm, max);
}

bool meter_exit(struct vm *vm)
{
        struct vm_meter *m = &vm->meter;
        uint64_t max = atomic_load_explicit(&m->exits_max, memory_order_relaxed);

        if (!max || atomic_fetch_add(&m->exits, 1) < max)
                return true;
        vm_exit_with(vm, RAMET_EXIT_LIMIT, 0, "it may make %llu exits, and made one more",
                     (unsigned long long)max);
        return false;
}

/* --- the timer --- */

static void on_time(void *data);

static void arm(struct vm *vm)
{
        struct vm_meter *m = &vm->meter;
        uint64_t delay = UINT64_MAX;

        if (!m->run_since)
                return;
        if (m->limits.run_ns) {
                uint64_t used = run_ns(m) - m->run_base;

                delay = used < m->limits.run_ns ? m->limits.run_ns - used : 0;
        }
        if (looks_at_pages(vm) && delay > LOOK_NS)
                delay = LOOK_NS;
        if (delay == UINT64_MAX)
                return;
        if (m->timer)
                loop_rearm_timer(m->timer, delay);
        else
                loop_add_timer(vm->options.loop, delay, on_time, vm, &m->timer);
}

static void on_time(void *data)
{
        struct vm *vm = data;

        if (!vm->meter.run_since || vm_has_ended(vm))
                return; /* meter_run() arms it again */
        check_time(vm);
        check_pages(vm);
        arm(vm);
}

/* --- life --- */

static void begin(struct vm *vm, const struct ramet_limits *limits)
{
        struct vm_meter *m = &vm->meter;

        m->limits = *limits;
        m->run_base = run_ns(m);
        atomic_store(&m->exits, 0);
        atomic_store(&m->exits_max, limits->exits);
        atomic_store(&m->own_pages_max, limits->own_pages);
}

void meter_init(struct vm *vm)
{
        begin(vm, &vm->options.limits);
}

void meter_run(struct vm *vm)
{
        vm->meter.run_since = vm_now_ns();
        arm(vm);
}

void meter_pause(struct vm *vm)
{
        struct vm_meter *m = &vm->meter;

        m->run_before = run_ns(m);
        m->run_since = 0;
        m->stops += vm->started; /* before that there is nothing to stop */
        if (!vm_has_ended(vm))
                check_time(vm);
}

void meter_reset(struct vm *vm)
{
        struct vm_meter *m = &vm->meter;
        const struct ramet_limits limits = m->limits;

        m->run_before = 0;
        m->resets++;
        begin(vm, &limits);
}

/* --- the owner --- */

int vm_set_limits(struct vm *vm, const struct ramet_limits *limits, struct err *err)
{
        begin(vm, limits);
        arm(vm);
        return 0;
}

void vm_stats(struct vm *vm, struct vm_stats *stats)
{
        const struct vm_meter *m = &vm->meter;

        *stats = (struct vm_stats){
                .freezes = vm->generation,
                .resets = m->resets,
                .stops = m->stops + atomic_load(&vm->cow_stops),
                .run_ns = run_ns(m),
                .last_pause_ns = m->last_pause,
                .last_reset_ns = m->last_reset,
        };
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                const struct vcpu *v = &vm->vcpus[i];

                stats->exits += atomic_load_explicit(&v->exits, memory_order_relaxed);
                stats->pio_exits += atomic_load_explicit(&v->pio_exits, memory_order_relaxed);
                stats->mmio_exits += atomic_load_explicit(&v->mmio_exits, memory_order_relaxed);
        }
}
