/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines with the engine `rom`: pages are broken under storms of writes by several vCPUs, through
 * freezes, resets and clones of clones; slots run out; a halted vCPU does not hold the others up.
 * The guests tell whether memory was right; how Ramet came to it is asked of vm_cow_stats(). What
 * each instruction does is test_conform's business, and test_litmus' what the vCPUs see of each
 * other.
 */
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem/cow_rom.h"
#include "vm/machine.h"

#define MIB    (1ull << 20)
#define PAGE   4096ull
#define MEMORY (32 * MIB)

static struct err err;

static struct template *freeze(struct rig *r)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;

        if (vm_freeze(r->vm, 0, false, &t, &stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        return t;
}

static bool over(const struct rig *r)
{
        return strstr(r->text, "errors=") && r->exited;
}

/* Let it end, and take its statistics first. */
static struct vm_cow_stats expect_no_errors(struct rig *r)
{
        struct vm_cow_stats stats;

        rig_until(r, over, 60);
        vm_cow_stats(r->vm, &stats);
        if (!strstr(r->text, "errors=0"))
                fail_msg("%s", r->text);
        assert_int_equal(r->exit.reason, RAMET_EXIT_POWEROFF);
        rig_free(r);
        return stats;
}

static void steps(struct rig *r, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                rig_step(&r, 1);
}

static struct template *in_a_storm(struct rig *r, const char *cmdline, unsigned vcpus)
{
        rig_boot(r, "writer.elf", cmdline, vcpus, MEMORY, false);
        rig_until(r, rig_printed, 30);
        steps(r, 3);
        return freeze(r);
}

/* Each processor's own pages, and one word to which all add with `lock`: no update is lost, by the
 * parent or by a clone. */
static void storm(unsigned vcpus)
{
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=1 ms=700", vcpus);
        struct vm_cow_stats stats;

        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        vm_run(clone.vm);
        stats = expect_no_errors(&parent);
        assert_true(stats.stops > 0 && stats.pages > 0);
        stats = expect_no_errors(&clone);
        assert_true(stats.stops > 0 && stats.pages > 100);
        assert_int_equal(stats.everything, 0);
        assert_int_equal(stats.compacted, 0);
        if (vcpus == 1)
                assert_int_equal(stats.handovers, 0);
        else
                assert_true(stats.handovers > 0);
}

static void a_storm_of_one_processor(void **state)
{
        storm(1);
}

static void a_storm_of_two_processors(void **state)
{
        storm(2);
}

static void a_storm_of_four_processors(void **state)
{
        storm(4);
}

/* Down to depth 5: each is frozen while it writes, mostly with breaks asked for, and runs on. */
static void clones_of_clones(void **state)
{
        struct rig r[6];
        struct template *t = in_a_storm(&r[0], "mib=1 ms=1500", 2);

        for (unsigned i = 1; i < 6; i++) {
                rig_spawn(&r[i], t, 1, 1);
                template_unref(t);
                vm_run(r[i].vm);
                steps(&r[i], 1 + i);
                t = freeze(&r[i]);
        }
        template_unref(t);
        for (unsigned i = 0; i < 6; i++)
                expect_no_errors(&r[i]);
}

/* The machine is stopped again and again by its owner, who wins against vCPUs that are about to
 * stop it themselves. Every template is of one moment: what its clone says when it goes on. */
static void freezes_while_pages_break(void **state)
{
        struct rig parent, first, clone;
        struct template *t = in_a_storm(&parent, "mib=2 ms=3000", 4);

        rig_spawn(&first, t, 1, 1);
        template_unref(t);
        rig_free(&parent);
        vm_run(first.vm);
        for (unsigned i = 0; i < 20 && !first.exited; i++) {
                struct vm_freeze_stats stats;
                int r;

                steps(&first, i % 4);
                r = vm_freeze(first.vm, 0, false, &t, &stats, &err);
                if (r == -ESRCH)
                        break;
                if (r < 0)
                        fail_msg("%s", err.text);
                if (i % 5 == 0) {
                        rig_spawn(&clone, t, 1, 1);
                        vm_run(clone.vm);
                        expect_no_errors(&clone);
                }
                template_unref(t);
        }
        expect_no_errors(&first);
}

/* With no more slots than one a chunk and some: pieces are joined again, and nothing is lost. */
static void slots_run_out(void **state)
{
        struct vm_cow_stats stats;
        struct rig parent, clone;
        struct template *t;

        rom_limit(40, PAGE);
        t = in_a_storm(&parent, "mib=3 ms=600", 2);
        rig_spawn(&clone, t, 1, 1);
        rom_limit(0, PAGE);
        template_unref(t);
        rig_free(&parent);
        vm_run(clone.vm);
        stats = expect_no_errors(&clone);
        assert_true(stats.compacted > 0);
        assert_true(stats.slots <= 40);
}

/* The chunk in most pieces may have no page left to break: then it is joined for its slots. */
static void broken_pieces_are_joined(void **state)
{
        uint8_t *then = malloc(MEMORY), *now = malloc(MEMORY);
        struct vm_cow_stats stats;
        struct rig parent, clone;
        struct template *t;
        struct backing *b;

        rom_limit(600, PAGE);
        t = in_a_storm(&parent, "mib=1 ms=400", 2);
        rig_spawn(&clone, t, 1, 1);
        rom_limit(0, PAGE);
        template_unref(t);
        rig_free(&parent);
        b = &clone.vm->backing;
        vm_pause(clone.vm);
        assert_int_equal(guest_mem_read(vm_memory(clone.vm), 0, then, MEMORY), 0);
        for (uint64_t at = 16 * MIB; at < 20 * MIB; at += PAGE)
                assert_int_equal(b->cow->break_range(b, at, PAGE, &err), 0);
        vm_cow_stats(clone.vm, &stats);
        assert_true(stats.compacted > 0);
        assert_true(stats.slots <= 600);
        assert_false(b->cow->caught(b, 16 * MIB, 4 * MIB));
        assert_int_equal(guest_mem_read(vm_memory(clone.vm), 0, now, MEMORY), 0);
        assert_memory_equal(now, then, MEMORY);
        vm_run(clone.vm);
        expect_no_errors(&clone);
        free(then);
        free(now);
}

static void larger_granules(void **state)
{
        static const uint64_t granules[] = {0, 64 << 10, 2 * MIB};

        for (unsigned i = 0; i < sizeof granules / sizeof granules[0]; i++) {
                struct vm_cow_stats stats;
                struct rig parent, clone;
                struct template *t;

                rom_limit(0, granules[i]);
                t = in_a_storm(&parent, "mib=1 ms=300", 2);
                rig_spawn(&clone, t, 1, 1);
                rom_limit(0, PAGE);
                template_unref(t);
                rig_free(&parent);
                vm_run(clone.vm);
                stats = expect_no_errors(&clone);
                assert_int_equal(stats.pages % ((granules[i] ? granules[i] : 16 << 10) / PAGE), 0);
        }
}

/* Its memory is the template's again, and it does it all once more. */
static void resets(void **state)
{
        struct rig parent, clone;
        struct template *t = in_a_storm(&parent, "mib=1 ms=300", 2);
        uint8_t *then = malloc(MEMORY), *now = malloc(MEMORY);
        struct vm_cow_stats fresh, stats;
        uint64_t shared, private;

        rig_free(&parent);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        vm_cow_stats(clone.vm, &fresh);
        assert_int_equal(guest_mem_read(vm_memory(clone.vm), 0, then, MEMORY), 0);
        for (unsigned i = 0; i < 4; i++) {
                vm_run(clone.vm);
                do {
                        if (i % 2)
                                steps(&clone, 1);
                        else
                                rig_until(&clone, over, 60);
                        vm_cow_stats(clone.vm, &stats);
                } while (stats.pages == fresh.pages);
                vm_pause(clone.vm);
                if (vm_reset(clone.vm, &err) < 0)
                        fail_msg("reset: %s", err.text);
                clone.exited = false;
                clone.len = 0;
                clone.text[0] = '\0';
                vm_cow_stats(clone.vm, &stats);
                assert_int_equal(stats.pages, fresh.pages);
                assert_int_equal(vm_memory_usage(clone.vm, &shared, &private), 0);
                assert_true(private <= (fresh.pages + 8) * PAGE);
                assert_int_equal(guest_mem_read(vm_memory(clone.vm), 0, now, MEMORY), 0);
                /* but for the generation id, and what KVM writes when it is set */
                memcpy(now + 0xff000, then + 0xff000, 16);
                assert_memory_equal(now, then, MEMORY);
        }
        vm_run(clone.vm);
        expect_no_errors(&clone);
        free(then);
        free(now);
}

/* A vCPU that is halted sits in KVM_RUN with the baton. It is to be out of there soon, while the
 * other one has full turns. What is counted is how long turns were to be; how long they are then
 * depends on the host, and is judged by test_baton, with a clock of its own. The watch (cow_watch)
 * ends some turns before that. */
static void a_halted_processor_costs_little(void **state)
{
        struct vm_freeze_stats freeze_stats;
        struct vm_cow_stats stats;
        struct rig parent, clone;
        struct template *t;
        uint64_t ms;

        rig_boot(&parent, "half.elf", "", 2, MEMORY, true);
        rig_until(&parent, rig_forked, 60);
        if (vm_freeze(parent.vm, 0, true, &t, &freeze_stats, &err) < 0)
                fail_msg("%s", err.text);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        rig_free(&parent);
        ms = vm_now_ns() / 1000000;
        vm_run(clone.vm);
        rig_until(&clone, rig_exited, 60);
        ms = vm_now_ns() / 1000000 - ms;
        vm_cow_stats(clone.vm, &stats);
        rig_free(&clone);
        assert_non_null(strstr(clone.text, "half: counted"));
        printf("# %lu hand-overs in %lu ms, %lu turns were to be short\n", stats.handovers, ms,
               stats.short_turns);
        assert_true(stats.handovers <= 2 * ms + ms / 2);
        assert_true(stats.short_turns > stats.handovers / 10);
}

static bool caught(struct rig *r, uint64_t gpa)
{
        const struct backing *b = &r->vm->backing;

        return b->cow->caught(b, gpa, PAGE); /* below 3 GiB an address is an offset */
}

/* Page tables are broken before the guest runs: what CR3 leads to, whatever else is in it, and what
 * looks like one. Other pages are not. */
static void page_tables_are_not_left_to_be_caught(void **state)
{
        const uint64_t likely = 30 * MIB, data = 31 * MIB, entry = 0x200007, bad = 1ull << 51 | 1;
        struct rig parent, clone;
        struct kvm_sregs sregs;
        struct template *t;
        uint64_t word;

        rig_boot(&parent, "writer.elf", "mib=1 ms=400", 1, MEMORY, false);
        rig_until(&parent, rig_printed, 30);
        vm_pause(parent.vm);
        assert_int_equal(kvm_ioctl(parent.vm->vcpus[0].kvm.fd, KVM_GET_SREGS, &sregs), 0);
        sregs.cr3 &= ~(PAGE - 1);
        guest_mem_write(vm_memory(parent.vm), likely + 16, &entry, 8);
        guest_mem_write(vm_memory(parent.vm), data + 16, &bad, 8);
        /* in the guest's own top table, for addresses that it does not use */
        assert_int_equal(guest_mem_read(vm_memory(parent.vm), sregs.cr3 + 300 * 8, &word, 8), 0);
        assert_int_equal(word, 0);
        guest_mem_write(vm_memory(parent.vm), sregs.cr3 + 300 * 8, &bad, 8);
        t = freeze(&parent);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        for (unsigned i = 0; i < 2; i++) {
                struct rig *r = i ? &clone : &parent;

                assert_true(caught(r, data));
                assert_false(caught(r, likely));
                assert_false(caught(r, sregs.cr3));
        }
        vm_run(parent.vm);
        vm_run(clone.vm);
        expect_no_errors(&parent);
        expect_no_errors(&clone);
}

static void too_few_slots_are_refused(void **state)
{
        struct rig r;
        int ret;

        rom_limit(31, 0);
        ret = rig_try_boot(&r, "writer.elf", "", 1, MEMORY, false, &err);
        rom_limit(0, PAGE);
        assert_int_equal(ret, -ENOTSUP);
        assert_non_null(strstr(err.text, "31 memory slots"));
        assert_non_null(strstr(err.text, "cow engine private"));
        rig_free(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_storm_of_one_processor),
                cmocka_unit_test(a_storm_of_two_processors),
                cmocka_unit_test(a_storm_of_four_processors),
                cmocka_unit_test(clones_of_clones),
                cmocka_unit_test(freezes_while_pages_break),
                cmocka_unit_test(slots_run_out),
                cmocka_unit_test(broken_pieces_are_joined),
                cmocka_unit_test(larger_granules),
                cmocka_unit_test(resets),
                cmocka_unit_test(a_halted_processor_costs_little),
                cmocka_unit_test(page_tables_are_not_left_to_be_caught),
                cmocka_unit_test(too_few_slots_are_refused),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        rig_cow = RAMET_COW_ROM;
        return cmocka_run_group_tests_name("rom", tests, NULL, NULL);
}
