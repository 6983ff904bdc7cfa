/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines whose memory is the engine `trap`'s: what guests, KVM and Ramet write is listed exactly,
 * freezes and ends may come at any moment of a fault, and a limit of own pages is kept. What each
 * instruction does is test_conform's business.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mem/cow_trap.h"
#include "vm/machine.h"

#define MIB    (1ull << 20)
#define PAGE   4096ull
#define MEMORY (64 * MIB)
#define NPAGES (MEMORY / PAGE)

static struct err err;

static struct template *freeze(struct rig *r, bool doorbell, struct vm_freeze_stats *stats)
{
        struct template *t = NULL;

        if (vm_freeze(r->vm, 0, doorbell, &t, stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        return t;
}

/* A machine in the middle of its storm of writes by 2 vCPUs, and a template of that moment. */
static struct template *in_a_storm(struct rig *r, const char *cmdline)
{
        struct vm_freeze_stats stats;

        rig_boot(r, "writer.elf", cmdline, 2, MEMORY, false);
        rig_until(r, rig_printed, 30);
        return freeze(r, false, &stats);
}

static void expect_end(struct rig *r, const char *text)
{
        rig_until(r, rig_exited, 60);
        rig_free(r);
        if (!strstr(r->text, text))
                fail_msg("expected \"%s\" in: %s", text, r->text);
        assert_int_equal(r->exit.reason, RAMET_EXIT_POWEROFF);
}

static void steps(struct rig *r, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                rig_step(&r, 1);
}

static uint64_t own_pages(struct rig *r)
{
        struct cow_trap_stats stats;

        cow_trap_stats(&r->vm->backing, &stats);
        return stats.own_pages;
}

static void map_own(struct rig *r, bool *map)
{
        struct extent_list list = {0};

        assert_int_equal(cow_trap.list_own(&r->vm->backing, 0, &list), 0);
        memset(map, 0, NPAGES * sizeof *map);
        for (size_t i = 0; i < list.count; i++)
                for (uint64_t at = 0; at < list.items[i].length; at += PAGE)
                        map[(list.items[i].offset + at) / PAGE] = true;
        extent_list_fini(&list);
}

/* The pages that are there, of no file, and not protected any more are those that are listed: see
 * test_cow_trap.c. A vCPU that was made to leave between being given its page and writing to it
 * has one that is listed only. */
static uint64_t check_own(struct rig *r)
{
        static uint64_t entries[NPAGES];
        static bool own[NPAGES];
        const struct backing *b = &r->vm->backing;
        uint64_t n = 0, awaited = 0;

        vm_pause(r->vm);
        /* In this order: KVM may still be at a fault that it took out of a vCPU's hands, and the
         * page is listed before it is private. */
        assert_int_equal(pread(b->pagemap_fd, entries, sizeof entries,
                               (off_t)((uintptr_t)b->hva / PAGE * sizeof *entries)),
                         sizeof entries);
        map_own(r, own);
        for (unsigned i = 0; i < NPAGES; i++) {
                bool private =
                        entries[i] >> 62 && !(entries[i] >> 61 & 1) && !(entries[i] >> 57 & 1);

                if (private && !own[i])
                        fail_msg("page %u is private, but not listed", i);
                awaited += own[i] && !private;
                n += own[i];
        }
        assert_in_range(awaited, 0, 2 * r->vm->shape.vcpus); /* and an interrupt's frame */
        assert_in_range(own_pages(r), n, n + r->vm->shape.vcpus);
        vm_run(r->vm);
        return n;
}

static bool written_all(const struct rig *r)
{
        struct cow_trap_stats stats;

        cow_trap_stats(&r->vm->backing, &stats);
        return stats.own_pages >= 1024;
}

static void what_two_vcpus_write_is_listed(void **state)
{
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=2 ms=2000");

        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        assert_in_range(own_pages(&clone), 0, 16); /* restored state, if anything */
        vm_run(clone.vm);
        for (unsigned i = 0; i < 10; i++) {
                steps(&clone, 10);
                steps(&parent, 10);
                check_own(&clone);
                check_own(&parent);
        }
        /* Two vCPUs with 2 MiB each, and a few pages of stacks and counters. */
        rig_until(&clone, written_all, 30);
        assert_in_range(check_own(&clone), 1024, 1024 + 100);
        expect_end(&clone, "errors=0");
        expect_end(&parent, "errors=0");
}

/* What Ramet itself and KVM write counts as well: here by the accessor, and a kvmclock update. */
static void other_writers_are_listed(void **state)
{
        static bool own[NPAGES];
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=1 rounds=1000000");
        struct kvm_msrs *msrs = calloc(1, sizeof *msrs + sizeof msrs->entries[0]);
        uint64_t byte = 1;
        int r;

        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        assert_int_equal(guest_mem_write(vm_memory(clone.vm), 0x3001ffc, &byte, 8), 0);
        msrs->nmsrs = 1;
        msrs->entries[0] = (struct kvm_msr_entry){.index = 0x4b564d01, .data = 0x3003000 | 1};
        r = kvm_ioctl(clone.vm->vcpus[0].kvm.fd, KVM_SET_MSRS, msrs);
        free(msrs);
        vm_run(clone.vm);
        /* KVM writes the clock when the vCPU comes to enter the guest, which a busy host delays. */
        for (unsigned i = 0; i < 100 && (i < 2 || (r == 1 && !(uint32_t)byte)); i++) {
                steps(&clone, 10);
                assert_int_equal(vm_read(clone.vm, 0x3003000, &byte, 8), 0);
        }
        vm_pause(clone.vm);
        map_own(&clone, own);
        assert_true(own[0x3001] && own[0x3002]);
        assert_false(own[0x3000] || own[0x3004]);
        if (r == 1) { /* this KVM has a kvmclock */
                assert_true(own[0x3003]);
                assert_int_equal(guest_mem_read(vm_memory(clone.vm), 0x3003000, &byte, 8), 0);
                assert_int_not_equal((uint32_t)byte, 0); /* its version */
        }
        rig_free(&clone);
        rig_free(&parent);
}

/* Each is frozen while it writes, and the next one is spawned from that; all of them are right. */
static void clones_of_clones_in_a_storm(void **state)
{
        struct vm_freeze_stats stats;
        struct rig chain[5];
        struct template *t = in_a_storm(&chain[0], "mib=1 ms=2500");

        for (unsigned depth = 1; depth < 5; depth++) {
                rig_spawn(&chain[depth], t, 1, 1);
                template_unref(t);
                vm_run(chain[depth].vm);
                steps(&chain[depth], depth * 7);
                t = freeze(&chain[depth], false, &stats);
                assert_in_range(stats.copied_bytes, 1, MEMORY);
        }
        template_unref(t);
        for (unsigned depth = 0; depth < 5; depth++)
                expect_end(&chain[depth], "errors=0");
}

static void frozen_again_and_again(void **state)
{
        struct vm_freeze_stats stats;
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=1 ms=1200");

        for (unsigned i = 0; i < 15; i++) {
                steps(&parent, i % 4);
                template_unref(t);
                t = freeze(&parent, false, &stats);
        }
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        vm_run(clone.vm);
        expect_end(&clone, "errors=0");
        expect_end(&parent, "errors=0");
}

/* Each life begins with what the restored state writes, and none of the pages of the one before. */
static void reset_in_a_storm(void **state)
{
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=1 ms=1000");

        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        for (unsigned i = 0; i < 12; i++) {
                vm_run(clone.vm);
                steps(&clone, 3 + i);
                assert_in_range(check_own(&clone), 1, 600);
                vm_pause(clone.vm);
                if (vm_reset(clone.vm, &err) < 0)
                        fail_msg("%s", err.text);
                assert_in_range(own_pages(&clone), 0, 16);
        }
        vm_run(clone.vm);
        expect_end(&clone, "errors=0");
        expect_end(&parent, "errors=0");
}

/* The end comes while vCPUs wait for their pages. */
static void ended_in_the_middle(void **state)
{
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=4 ms=60000");

        for (unsigned i = 0; i < 30; i++) {
                rig_spawn(&clone, t, 1, 1);
                vm_run(clone.vm);
                usleep(i * 200);
                rig_free(&clone);
        }
        template_unref(t);
        rig_free(&parent);
}

/* --- a limit --- */

static void expect_limit(struct rig *r, uint64_t max)
{
        char want[64];

        rig_until(r, rig_exited, 30);
        snprintf(want, sizeof want, "it may have %u pages of memory of its own", (unsigned)max);
        if (!strstr(r->exit.text, want))
                fail_msg("expected \"%s\" in: %s", want, r->exit.text);
        assert_int_equal(r->exit.reason, RAMET_EXIT_LIMIT);
        /* One more for each vCPU, and what is written on the way out. The first of these is written
         * down after the machine has been told. */
        assert_in_range(own_pages(r), max, max + 8);
}

static void a_limit_of_own_pages_ends_the_machine(void **state)
{
        struct rig parent, limited, other;
        struct template *t = in_a_storm(&parent, "mib=2 ms=1500");

        rig_own_pages_max = 300;
        rig_spawn(&limited, t, 1, 2);
        rig_own_pages_max = 100000;
        rig_spawn(&other, t, 2, 2);
        rig_own_pages_max = 0;
        template_unref(t);
        vm_run(limited.vm);
        vm_run(other.vm);
        expect_limit(&limited, 300);
        if (vm_reset(limited.vm, &err) < 0) /* a new life, and the same limit */
                fail_msg("%s", err.text);
        limited.exited = false;
        expect_limit(&limited, 300);
        rig_free(&limited);
        expect_end(&other, "errors=0"); /* nobody else noticed */
        expect_end(&parent, "errors=0");
}

/* A root's first freeze is when it begins to count. */
static void a_root_is_limited_from_its_freeze_on(void **state)
{
        struct vm_freeze_stats stats;
        struct rig r;

        rig_own_pages_max = 50;
        rig_boot(&r, "writer.elf", "mib=2 ms=60000", 1, MEMORY, false);
        rig_own_pages_max = 0;
        rig_until(&r, rig_printed, 30);
        steps(&r, 20);
        assert_false(r.exited);
        template_unref(freeze(&r, false, &stats));
        expect_limit(&r, 50);
        rig_free(&r);
}

/* With another engine somebody looks from time to time, and before the freeze nobody. */
static void other_engines_are_limited_by_a_look(void **state)
{
        struct vm_freeze_stats stats;
        struct rig r;

        rig_own_pages_max = 50;
        rig_cow = RAMET_COW_PRIVATE;
        rig_boot(&r, "writer.elf", "mib=2 ms=60000", 1, MEMORY, false);
        rig_cow = RAMET_COW_TRAP;
        rig_own_pages_max = 0;
        rig_until(&r, rig_printed, 30);
        steps(&r, 20);
        assert_false(r.exited);
        template_unref(freeze(&r, false, &stats));
        rig_until(&r, rig_exited, 30);
        assert_int_equal(r.exit.reason, RAMET_EXIT_LIMIT);
        assert_non_null(strstr(r.exit.text, "it may have 50 pages"));
        rig_free(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_two_vcpus_write_is_listed),
                cmocka_unit_test(other_writers_are_listed),
                cmocka_unit_test(clones_of_clones_in_a_storm),
                cmocka_unit_test(frozen_again_and_again),
                cmocka_unit_test(reset_in_a_storm),
                cmocka_unit_test(ended_in_the_middle),
                cmocka_unit_test(a_limit_of_own_pages_ends_the_machine),
                cmocka_unit_test(a_root_is_limited_from_its_freeze_on),
                cmocka_unit_test(other_engines_are_limited_by_a_look),
        };
        struct rig probe;
        int ret = rig_init();

        if (ret <= 0)
                return ret ? 1 : 0;
        rig_cow = RAMET_COW_TRAP;
        ret = rig_try_boot(&probe, "writer.elf", "", 1, MEMORY, false, &err);
        if (ret < 0 && ret != -EINVAL) {
                printf("1..0 # SKIP %s\n", err.text);
                return 0;
        }
        rig_free(&probe);
        return cmocka_run_group_tests_name("trap", tests, NULL, NULL);
}
