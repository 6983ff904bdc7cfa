/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest memory of real machines through the translation cache: by linear address it is what the
 * guest sees, however it changes its page tables, across fork and reset; and a worker that serves
 * parent and clone with one cache never mixes them up.
 */
#include "rig.h"
#include "remap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vm/machine.h"

#define MIB    (1ull << 20)
#define MEMORY (32 * MIB)

static struct err err;

static void mailbox(struct rig *r, struct remap_mailbox *box)
{
        assert_int_equal(vm_read(r->vm, REMAP_MAILBOX, box, sizeof *box), 0);
}

static void put(struct rig *r, size_t offset, uint64_t value)
{
        assert_int_equal(vm_write(r->vm, REMAP_MAILBOX + offset, &value, 8), 0);
}

/* With the cache and without; they must agree. */
static int read_word(struct rig *r, uint64_t gva, uint64_t *value)
{
        uint64_t failed = 0, bypassed = 0;
        int ret, again;

        ret = vm_read_gva(r->vm, 0, gva, value, 8, &failed);
        if (ret < 0)
                assert_int_equal(failed, gva);
        vm_memory_bypass(r->vm, true);
        again = vm_read_gva(r->vm, 0, gva, &bypassed, 8, NULL);
        vm_memory_bypass(r->vm, false);
        assert_int_equal(ret, again);
        if (ret == 0 && *value != bypassed) {
                printf("# stale value %#llx at %#llx, %#llx without the cache\n",
                       (unsigned long long)*value, (unsigned long long)gva,
                       (unsigned long long)bypassed);
                fail();
        }
        return ret;
}

/* The guest has rung and its vCPUs are stopped: read what it looks at, and change it. */
static void answer(struct rig *r)
{
        struct remap_mailbox box;
        uint64_t both[2], failed;
        int ret;

        mailbox(r, &box);
        for (unsigned i = 0; i < 2; i++) {
                struct remap_word *w = &box.words[i];

                ret = read_word(r, w->gva, &w->host);
                assert_int_equal(ret, w->mapped ? 0 : -EFAULT);
                if (ret == 0 && w->host != w->mine) {
                        printf("# stale value %#llx at %#llx in round %llu; the guest sees %#llx\n",
                               (unsigned long long)w->host, (unsigned long long)w->gva,
                               (unsigned long long)box.round, (unsigned long long)w->mine);
                        fail();
                }
        }
        ret = vm_read_gva(r->vm, 0, box.words[0].gva, both, 16, &failed);
        assert_int_equal(ret, box.words[0].mapped && box.words[1].mapped ? 0 : -EFAULT);
        if (ret < 0)
                assert_int_equal(failed, box.words[box.words[0].mapped].gva);
        else
                assert_int_equal(both[1], box.words[1].mine);
        for (unsigned i = 0; i < 2; i++) {
                struct remap_word *w = &box.words[i];

                w->reply = box.round << 8 | i;
                ret = vm_write_gva(r->vm, 0, w->gva, &w->reply, 8, NULL);
                assert_int_equal(ret, w->mapped ? 0 : -EFAULT);
        }
        assert_int_equal(vm_write(r->vm, REMAP_MAILBOX + offsetof(struct remap_mailbox, words),
                                  box.words, sizeof box.words),
                         0);
}

static void go_on(struct rig *r)
{
        r->forks = 0;
        assert_int_equal(vm_arm_fork(r->vm, true, NULL), 0);
        vm_fork_done(r->vm, 0, 0);
        vm_run(r->vm);
}

static bool rang_or_ended(const struct rig *r)
{
        return r->forks > 0 || r->exited;
}

/* Serve rounds until the guest has ended, or @rounds of them; it is left stopped at a ring. */
static void serve(struct rig *r, unsigned rounds)
{
        for (unsigned i = 0; !r->exited; i++) {
                rig_until(r, rang_or_ended, 60);
                if (r->exited)
                        break;
                vm_pause(r->vm);
                answer(r);
                if (i + 1 == rounds)
                        return;
                go_on(r);
        }
}

/* What the guest says, as comments: it names stale values that the host has shown it. */
static void print_console(struct rig *r)
{
        for (char *line = strtok(r->text, "\n"); line; line = strtok(NULL, "\n"))
                printf("# %s\n", line);
        fflush(stdout);
}

static void expect_end(struct rig *r, unsigned rounds)
{
        char want[64];

        snprintf(want, sizeof want, "remap: rounds=%u errors=0\n", rounds);
        rig_until(r, rig_exited, 60);
        if (r->exit.reason == RAMET_EXIT_POWEROFF && strstr(r->text, want))
                return;
        print_console(r);
        fail_msg("%s", r->exit.text);
}

static void host_and_guest_see_the_same(void **state)
{
        struct tlb_stats stats;
        struct rig r;

        rig_boot(&r, "remap.elf", "rounds=4000", 1, MEMORY, true);
        serve(&r, 0);
        expect_end(&r, 4000);
        vm_memory_stats(r.vm, &stats);
        /* most are found at first sight; walks find the upper tables where they were */
        assert_true(stats.hits[TLB_COMBINED] > 4000);
        assert_true(stats.hits[TLB_PHYSICAL] > 4000);
        assert_true(stats.misses[TLB_LINEAR] > 4000);
        rig_free(&r);
}

static void refused(struct rig *r)
{
        print_message("%s\n", err.text);
        if (r)
                rig_free(r);
        skip();
}

/* What the clone, which stands in round 200, has in the first mapped page of the window. */
static uint64_t first_page(struct rig *c)
{
        struct remap_mailbox box;
        uint64_t gva = REMAP_WINDOW, value;

        mailbox(c, &box);
        assert_int_equal(box.round, 200);
        while (read_word(c, gva, &value) < 0)
                gva += 4096;
        return value;
}

/* Serve it until it uses other page tables, and look at some of its window with these. */
static void live_a_little(struct rig *c)
{
        struct remap_mailbox then, now;
        uint64_t value;

        mailbox(c, &then);
        vm_run(c->vm);
        do {
                serve(c, 1);
                mailbox(c, &now);
                if (now.root == then.root)
                        go_on(c);
        } while (now.root == then.root);
        for (uint64_t gva = REMAP_WINDOW; gva < REMAP_WINDOW + REMAP_PAGES * 4096; gva += 4096)
                read_word(c, gva, &value);
}

/* The same in a clone, and once more after it was reset to where it began. */
static void in_clones(void)
{
        struct vm_freeze_stats stats;
        struct template *t;
        struct rig r, c;
        uint64_t first;

        if (rig_try_boot(&r, "remap.elf", "rounds=400", 1, MEMORY, true, &err) < 0)
                refused(&r);
        serve(&r, 200);
        assert_int_equal(vm_freeze(r.vm, 0, true, &t, &stats, &err), 0);
        if (rig_try_spawn(&c, t, 1, 1, &err) < 0) {
                rig_free(&r);
                template_unref(t);
                refused(&c);
        }
        assert_int_equal(vm_arm_fork(c.vm, true, NULL), 0);
        first = first_page(&c);
        live_a_little(&c);
        assert_int_equal(vm_reset(c.vm, &err), 0);
        c.forks = 0;
        assert_int_equal(first_page(&c), first);
        assert_int_equal(vm_arm_fork(c.vm, true, NULL), 0);
        vm_run(c.vm);
        serve(&c, 0);
        expect_end(&c, 400);
        rig_free(&c);
        go_on(&r);
        serve(&r, 0);
        expect_end(&r, 400);
        rig_free(&r);
        template_unref(t);
}

static void clones_private(void **state)
{
        in_clones();
}

static void clones_trap(void **state)
{
        in_clones();
}

static void clones_rom(void **state)
{
        in_clones();
}

/* The vCPU that is looked through is held, while another one changes its page tables. */
static void another_vcpu_changes_the_tables(void **state)
{
        struct timespec us = {.tv_nsec = 20000};
        uint64_t value, done, gva;
        struct rig r;

        rig_boot(&r, "remap.elf", "rounds=1", 2, MEMORY, true);
        rig_until(&r, rig_forked, 60);
        for (uint64_t i = 0; i < REMAP_PAGES; i++) {
                value = 0xabc00 + i;
                assert_int_equal(vm_write(r.vm, REMAP_DATA + i * 4096 + 16, &value, 8), 0);
        }
        gva = REMAP_WINDOW + 5 * 4096 + 16;
        for (uint64_t n = 1; n <= 100; n++) {
                put(&r, offsetof(struct remap_mailbox, entry), 5);
                put(&r, offsetof(struct remap_mailbox, page), n * 7 % REMAP_PAGES);
                put(&r, offsetof(struct remap_mailbox, command), n);
                do {
                        nanosleep(&us, NULL);
                        assert_int_equal(
                                vm_read(r.vm, REMAP_MAILBOX + offsetof(struct remap_mailbox, done),
                                        &done, 8),
                                0);
                } while (done != n);
                assert_int_equal(vm_read_gva(r.vm, 0, gva, &value, 8, NULL), -EBUSY);
                vm_pause(r.vm);
                assert_int_equal(read_word(&r, gva, &value), 0);
                if (value != 0xabc00 + n * 7 % REMAP_PAGES) {
                        printf("# stale value %#llx, page %llu is shown\n",
                               (unsigned long long)value,
                               (unsigned long long)(n * 7 % REMAP_PAGES));
                        fail();
                }
                vm_run(r.vm);
        }
        rig_free(&r);
}

static void refusals(void **state)
{
        uint64_t value, failed = 1;
        struct rig r;

        rig_shell(&r, 1, MEMORY);
        assert_int_equal(vm_read(r.vm, 0, &value, 8), -ENODEV);
        assert_int_equal(vm_write(r.vm, 0, &value, 8), -ENODEV);
        assert_int_equal(vm_read_gva(r.vm, 0, 0, &value, 8, &failed), -ENODEV);
        assert_int_equal(vm_write_gva(r.vm, 0, 0, &value, 8, &failed), -ENODEV);
        rig_free(&r);

        rig_boot(&r, "remap.elf", "", 1, MEMORY, true);
        rig_until(&r, rig_forked, 60);
        assert_int_equal(vm_read_gva(r.vm, 0, 0, &value, 8, &failed), -EBUSY);
        assert_int_equal(vm_write_gva(r.vm, 0, 0, &value, 8, &failed), -EBUSY);
        guest_access_begin(&r.vm->access); /* in a section while they run, and only then */
        assert_true(r.vm->owner_part.entered != 0);
        guest_access_end(&r.vm->access);
        vm_pause(r.vm);
        guest_access_begin(&r.vm->access);
        assert_true(r.vm->owner_part.entered == 0);
        guest_access_end(&r.vm->access);
        assert_int_equal(failed, 1);
        assert_int_equal(vm_read(r.vm, MEMORY - 4, &value, 8), -EFAULT);
        assert_int_equal(vm_read_gva(r.vm, 1, 0, &value, 8, &failed), -EINVAL);
        assert_int_equal(failed, 1);
        assert_int_equal(vm_read_gva(r.vm, 0, 1ull << 47, &value, 8, &failed), -EINVAL);
        assert_int_equal(failed, 1ull << 47);
        assert_int_equal(vm_read_gva(r.vm, 0, 0xfee00000, &value, 4, &failed), -ENXIO);
        assert_int_equal(failed, 0xfee00000);
        assert_int_equal(vm_write_gva(r.vm, 0, MEMORY - 4, &value, 8, &failed), -ENXIO);
        assert_int_equal(failed, MEMORY);
        assert_int_equal(vm_read_gva(r.vm, 0, REMAP_MAILBOX, &value, 8, NULL), 0);
        rig_free(&r);
}

/* --- a worker for two machines --- */

struct worker {
        struct tlb tlb;
        struct sync_participant parts[2];
        struct guest_access access[2];
};

static void join(struct worker *w, struct rig *const *rigs)
{
        tlb_init(&w->tlb);
        for (unsigned i = 0; i < 2; i++) {
                struct vm *vm = rigs[i]->vm;

                sync_join(&vm->sync, &w->parts[i], NULL, NULL);
                guest_access_init(&w->access[i], &vm->mem, &w->parts[i], &w->tlb);
        }
}

static void serve_parent_and_clone(void)
{
        struct vm_freeze_stats stats;
        struct rig r, c, *rigs[2] = {&r, &c};
        struct worker *w = calloc(1, sizeof *w);
        uint64_t want[2][8] = {{0}};
        struct template *t;

        if (rig_try_boot(&r, "remap.elf", "", 1, MEMORY, true, &err) < 0)
                refused(&r);
        rig_until(&r, rig_forked, 60);
        assert_int_equal(vm_freeze(r.vm, 0, true, &t, &stats, &err), 0);
        rig_spawn(&c, t, 1, 1);
        assert_int_equal(vm_arm_fork(c.vm, true, NULL), 0);
        vm_run(c.vm);
        join(w, rigs);
        srand(2);
        for (unsigned n = 0; n < 20000; n++) {
                unsigned m = (unsigned)rand() % 2, page = (unsigned)rand() % 8;
                uint64_t gpa = REMAP_DATA + page * 4096 + 2048, value;

                assert_int_equal(guest_access_read(&w->access[m], gpa, &value, 8), 0);
                if (value != want[m][page]) {
                        printf("# stale value %#llx in machine %u, expected %#llx\n",
                               (unsigned long long)value, m, (unsigned long long)want[m][page]);
                        fail();
                }
                want[m][page] = value = (uint64_t)m << 32 | n;
                assert_int_equal(guest_access_write(&w->access[m], gpa, &value, 8), 0);
        }
        for (unsigned m = 0; m < 2; m++) {
                for (unsigned page = 0; page < 8; page++) {
                        uint64_t value;

                        assert_int_equal(
                                vm_read(rigs[m]->vm, REMAP_DATA + page * 4096 + 2048, &value, 8),
                                0);
                        assert_int_equal(value, want[m][page]);
                }
                sync_leave(&w->parts[m]);
        }
        rig_free(&c);
        rig_free(&r);
        template_unref(t);
        free(w);
}

static void worker_private(void **state)
{
        serve_parent_and_clone();
}

static void worker_rom(void **state)
{
        serve_parent_and_clone();
}

static int use_private(void **state)
{
        rig_cow = RAMET_COW_PRIVATE;
        return 0;
}

static int use_trap(void **state)
{
        rig_cow = RAMET_COW_TRAP;
        return 0;
}

static int use_rom(void **state)
{
        rig_cow = RAMET_COW_ROM;
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(host_and_guest_see_the_same, use_private),
                cmocka_unit_test_setup(clones_private, use_private),
                cmocka_unit_test_setup(clones_trap, use_trap),
                cmocka_unit_test_setup(clones_rom, use_rom),
                cmocka_unit_test_setup(another_vcpu_changes_the_tables, use_private),
                cmocka_unit_test_setup(refusals, use_private),
                cmocka_unit_test_setup(worker_private, use_private),
                cmocka_unit_test_setup(worker_rom, use_rom),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("guest_access", tests, NULL, NULL);
}
