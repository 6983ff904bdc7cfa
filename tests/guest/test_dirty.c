/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirty pages of real machines: the answer is compared with the truth, which the host knows, since
 * it runs the same generator as the guest (dirtier.h) and makes its own writes itself. Only the
 * pages of the areas count: what a guest does with its stacks and page tables is its own affair.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dirtier.h"
#include "kvm/dirty.h"
#include "vm/machine.h"

#define MIB        (1ull << 20)
#define MEMORY     (64 * MIB)
#define ROUNDS     20
#define WRITES     700
#define FIRST_PAGE (DIRTIER_AREA / 4096)
#define CPUS_MAX   2
#define PAGES      (DIRTIER_AREA_PAGES * CPUS_MAX)

static struct err err;

/* --- the truth --- */

struct truth {
        uint64_t guest[CPUS_MAX], host; /* states of the generators */
        bool dirty[PAGES];
};

static void guest_writes(struct truth *t, unsigned vcpus)
{
        for (unsigned cpu = 0; cpu < vcpus; cpu++) {
                for (unsigned i = 0; i < WRITES; i++)
                        t->dirty[cpu * DIRTIER_AREA_PAGES +
                                 dirtier_next(&t->guest[cpu]) % DIRTIER_AREA_PAGES] = true;
        }
}

/* Some of them cross into the next page. */
static void host_writes(struct truth *t, struct vm *vm, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                uint64_t page = dirtier_next(&t->host) % (PAGES - 1);
                uint64_t at = dirtier_next(&t->host) % 4096;

                assert_int_equal(vm_write(vm, DIRTIER_AREA + page * 4096 + at, "01234567", 8), 0);
                t->dirty[page] = true;
                if (at > 4096 - 8)
                        t->dirty[page + 1] = true;
        }
}

/* --- the answer --- */

static bool answered(const uint64_t *bitmap, unsigned page)
{
        unsigned bit = FIRST_PAGE + page;

        return bitmap[bit / 64] >> bit % 64 & 1;
}

static void compare(const struct truth *t, const uint64_t *bitmap, unsigned round)
{
        for (unsigned page = 0; page < PAGES; page++) {
                if (answered(bitmap, page) != t->dirty[page])
                        fail_msg("round %u: page %u was %swritten, the answer says otherwise",
                                 round, page, t->dirty[page] ? "" : "not ");
        }
}

static void collect(struct vm *vm, uint64_t *bitmap)
{
        if (vm_dirty_collect(vm, bitmap, NULL, &err) < 0)
                fail_msg("collect: %s", err.text);
}

static uint64_t *new_bitmap(const struct vm *vm)
{
        uint64_t *bitmap = calloc(vm_dirty_words(vm), 8);

        assert_non_null(bitmap);
        return bitmap;
}

static void start(struct vm *vm)
{
        if (vm_dirty_start(vm, &err) < 0)
                fail_msg("start: %s", err.text);
}

static void go_on(struct rig *r)
{
        r->forks = 0;
        assert_int_equal(vm_arm_fork(r->vm, true, NULL), 0);
        vm_fork_done(r->vm, 1, 1);
        vm_run(r->vm); /* a clone does not run yet */
}

/* At a ring: a round of the guest's is over, and none has begun. */
static void each_round_is_told(struct rig *r, unsigned vcpus, uint64_t seed)
{
        struct truth t = {.host = seed * 31};
        uint64_t *bitmap = new_bitmap(r->vm);

        for (unsigned cpu = 0; cpu < vcpus; cpu++)
                t.guest[cpu] = seed + cpu;
        guest_writes(&t, vcpus); /* before the first ring */
        start(r->vm);
        for (unsigned round = 2; round < ROUNDS; round++) {
                memset(t.dirty, 0, sizeof t.dirty);
                memset(bitmap, 0, vm_dirty_words(r->vm) * 8);
                host_writes(&t, r->vm, round % 3 * 50);
                go_on(r);
                rig_until(r, rig_forked, 60);
                guest_writes(&t, vcpus);
                host_writes(&t, r->vm, round % 2 * 50);
                collect(r->vm, bitmap);
                compare(&t, bitmap, round);
        }
        free(bitmap);
}

static void boot(struct rig *r, const char *more, unsigned vcpus, uint64_t seed, bool armed)
{
        char cmdline[96];

        snprintf(cmdline, sizeof cmdline, "seed=%llu writes=%u rounds=%u %s",
                 (unsigned long long)seed, WRITES, ROUNDS, more);
        rig_boot(r, "dirtier.elf", cmdline, vcpus, MEMORY, armed);
}

static void root_rounds(unsigned vcpus, uint64_t seed)
{
        struct rig r;

        boot(&r, "", vcpus, seed, true);
        rig_until(&r, rig_forked, 60);
        each_round_is_told(&r, vcpus, seed);
        rig_free(&r);
}

static void clone_rounds(enum ramet_cow cow, unsigned vcpus, uint64_t seed)
{
        struct vm_freeze_stats stats;
        struct rig parent, clone;
        struct template *t;
        int ret;

        boot(&parent, "", vcpus, seed, true);
        rig_until(&parent, rig_forked, 60);
        assert_int_equal(vm_freeze(parent.vm, 0, true, &t, &stats, &err), 0);
        rig_cow = cow;
        ret = rig_try_spawn(&clone, t, 1, 1, &err);
        rig_cow = RAMET_COW_PRIVATE;
        template_unref(t);
        rig_free(&parent);
        if (rig_refused(ret, &err)) {
                rig_free(&clone);
                print_message("%s\n", err.text);
                skip();
        }
        assert_int_equal(ret, 0);
        each_round_is_told(&clone, vcpus, seed);
        rig_free(&clone);
}

static void with_ring(void (*test)(unsigned vcpus, uint64_t seed), unsigned vcpus, uint64_t seed)
{
        struct kvm_host host;
        uint32_t max;

        assert_int_equal(kvm_host_open(&host, &err), 0);
        max = kvm_dirty_ring_max(&host);
        kvm_host_close(&host);
        if (max == 0) {
                print_message("this host's KVM has no dirty rings\n");
                skip();
        }
        rig_dirty_ring = 512; /* less than a round writes: they get full */
        test(vcpus, seed);
        rig_dirty_ring = 0;
}

/* --- cases --- */

static void log_1_vcpu(void **state)
{
        root_rounds(1, 7);
}

static void log_2_vcpus(void **state)
{
        root_rounds(2, 8);
}

static void ring_1_vcpu(void **state)
{
        with_ring(root_rounds, 1, 9);
}

static void ring_2_vcpus(void **state)
{
        with_ring(root_rounds, 2, 10);
}

static void private_clone(void **state)
{
        clone_rounds(RAMET_COW_PRIVATE, 2, 11);
}

static void trap_clone(void **state)
{
        clone_rounds(RAMET_COW_TRAP, 2, 12);
}

static void rom_clone(void **state)
{
        clone_rounds(RAMET_COW_ROM, 2, 13);
}

static void private_clone_rounds(unsigned vcpus, uint64_t seed)
{
        clone_rounds(RAMET_COW_PRIVATE, vcpus, seed);
}

static void ring_in_a_clone(void **state)
{
        with_ring(private_clone_rounds, 2, 14);
}

/* Nobody waits for anybody: answers are asked for while vCPUs and the owner write. Together they
 * are the truth. */
static void storm(unsigned vcpus, uint64_t seed)
{
        struct truth t = {.host = seed * 31};
        uint64_t *bitmap;
        struct rig r;

        boot(&r, "ring=no", vcpus, seed, false);
        bitmap = new_bitmap(r.vm);
        start(r.vm);
        rig_type(&r, "go");
        for (unsigned i = 0; !r.exited; i++) {
                struct rig *const rigs[] = {&r};

                rig_step(rigs, 1);
                if (!r.exited && i % 4 == 0)
                        collect(r.vm, bitmap);
                if (!r.exited && i < 200)
                        host_writes(&t, r.vm, 1);
        }
        collect(r.vm, bitmap);
        for (unsigned cpu = 0; cpu < vcpus; cpu++)
                t.guest[cpu] = seed + cpu;
        for (unsigned round = 0; round < ROUNDS; round++)
                guest_writes(&t, vcpus);
        compare(&t, bitmap, 0);
        assert_non_null(strstr(r.text, "dirtier: done"));
        free(bitmap);
        rig_free(&r);
}

static void storm_log(void **state)
{
        storm(2, 15);
}

static void storm_ring(void **state)
{
        with_ring(storm, 2, 16);
}

static void nothing_is_told_twice_or_after_the_end(void **state)
{
        uint64_t *bitmap, count = 1;
        struct rig r;

        boot(&r, "", 1, 17, true);
        rig_until(&r, rig_forked, 60);
        bitmap = new_bitmap(r.vm);
        assert_int_equal(vm_dirty_collect(r.vm, bitmap, NULL, &err), -EINVAL);
        start(r.vm);
        start(r.vm); /* twice is fine */
        go_on(&r);
        rig_until(&r, rig_forked, 60);
        vm_pause(r.vm);
        assert_int_equal(vm_dirty_collect(r.vm, bitmap, &count, &err), 0);
        assert_true(count > 100);
        assert_int_equal(vm_dirty_collect(r.vm, bitmap, &count, &err), 0);
        assert_int_equal(count, 0);
        assert_int_equal(vm_dirty_stop(r.vm, &err), 0);
        assert_int_equal(vm_dirty_collect(r.vm, bitmap, NULL, &err), -EINVAL);
        free(bitmap);
        rig_free(&r);
}

static void a_reset_leaves_nothing_dirty(void **state)
{
        struct vm_freeze_stats stats;
        struct truth t = {.guest = {18}};
        struct rig parent, clone;
        struct template *tmpl;
        uint64_t *bitmap;

        boot(&parent, "", 1, 18, true);
        rig_until(&parent, rig_forked, 60);
        assert_int_equal(vm_freeze(parent.vm, 0, true, &tmpl, &stats, &err), 0);
        rig_spawn(&clone, tmpl, 1, 1);
        template_unref(tmpl);
        rig_free(&parent);
        start(clone.vm);
        assert_int_equal(vm_arm_fork(clone.vm, true, NULL), 0);
        vm_run(clone.vm);
        rig_until(&clone, rig_forked, 60);
        vm_pause(clone.vm);
        assert_int_equal(vm_reset(clone.vm, &err), 0);
        assert_int_equal(vm_arm_fork(clone.vm, true, NULL), 0);
        bitmap = new_bitmap(clone.vm);
        clone.forks = 0;
        collect(clone.vm, bitmap);
        compare(&t, bitmap, 0); /* none */
        vm_run(clone.vm);
        rig_until(&clone, rig_forked, 60);
        guest_writes(&t, 1); /* before the template */
        memset(t.dirty, 0, sizeof t.dirty);
        guest_writes(&t, 1);
        vm_pause(clone.vm);
        collect(clone.vm, bitmap);
        compare(&t, bitmap, 1);
        free(bitmap);
        rig_free(&clone);
}

static void a_ring_of_a_wrong_size_is_refused(void **state)
{
        struct rig r;

        rig_dirty_ring = 500;
        assert_true(rig_try_boot(&r, "dirtier.elf", "", 1, MEMORY, false, &err) < 0);
        assert_non_null(strstr(err.text, "500"));
        rig_dirty_ring = 0;
        rig_free(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(log_1_vcpu),
                cmocka_unit_test(log_2_vcpus),
                cmocka_unit_test(ring_1_vcpu),
                cmocka_unit_test(ring_2_vcpus),
                cmocka_unit_test(private_clone),
                cmocka_unit_test(trap_clone),
                cmocka_unit_test(rom_clone),
                cmocka_unit_test(ring_in_a_clone),
                cmocka_unit_test(storm_log),
                cmocka_unit_test(storm_ring),
                cmocka_unit_test(nothing_is_told_twice_or_after_the_end),
                cmocka_unit_test(a_reset_leaves_nothing_dirty),
                cmocka_unit_test(a_ring_of_a_wrong_size_is_refused),
        };
        int r = rig_init();

        return r <= 0 ? r : cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}
