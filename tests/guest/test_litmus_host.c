/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Litmus tests in which the host takes part, with every copy-on-write engine: the machine is frozen
 * at moments that nobody chose, again and again, while its vCPUs write, while a device of ours
 * reads and writes the same pages, while KVM writes its clock pages. What is looked at:
 *
 *      the guest       sees nothing it should not, in the parent and in each clone (litmus_host.c)
 *      the host        finds each clone's memory as it was at one moment, before the clone runs
 *      the template    has the same memory after all of that as when it was made
 */
#include "litmus_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "litmus_device.h"
#include "vm/machine.h"
#include "x86/layout.h"

#define MEMORY      (16ull << 20)
#define PAGES       512
#define SECONDS     120
#define TICKS       50 /* of LITMUS_TICK_MS: how long the guest goes on */
#define FREEZES     4
#define LIVES       3 /* of a machine with a device: each has one first freeze */
#define BLOCK       (1u << 20)
#define PAGE        4096u
#define PATIENCE_MS 20000

static const char *const engine_of[] = {"private", "trap", "rom"};

struct combination {
        unsigned engine, vcpus;
        char name[48];
};

struct snapshot {
        struct template *tmpl;
        struct rig clone;
        uint64_t hash; /* of the template's memory, when it was new */
};

static struct err err;

/* --- common --- */

/* Is there such an engine here? Asked once. */
static void need_engine(unsigned engine)
{
        static bool asked[3], refused[3];
        static struct err why[3];
        struct template *t;
        struct rig r;

        rig_cow = (enum ramet_cow)engine;
        if (!asked[engine]) {
                asked[engine] = true;
                if (litmus_boot(&r, "pages=16", 1, MEMORY, &t, &why[engine]) < 0) {
                        refused[engine] = true;
                } else {
                        template_unref(t);
                        rig_free(&r);
                }
        }
        if (refused[engine]) {
                print_message("%s\n", why[engine].text);
                skip();
        }
}

/* A machine that waits at the doorbell. Its memory is nobody's template yet: the first freeze, of
 * which everything that has a translation must know, is to come while it runs. */
static void boot(struct rig *r, const struct combination *c)
{
        char cmdline[32];

        need_engine(c->engine);
        snprintf(cmdline, sizeof cmdline, "pages=%u", PAGES);
        rig_boot(r, "litmus.elf", cmdline, c->vcpus, MEMORY, true);
        rig_until(r, rig_forked, SECONDS);
}

/* For the owner of the machine, whether it runs or not. */
static uint64_t word(struct rig *r, uint64_t gpa)
{
        uint64_t v = 0;

        assert_int_equal(guest_access_read(&r->vm->access, gpa, &v, sizeof v), 0);
        return v;
}

/* All of a machine's memory, but for the generation id, which is each clone's own. */
static uint64_t hash_memory(struct rig *r)
{
        uint64_t hash = 0xcbf29ce484222325u, *block = malloc(BLOCK);

        for (uint64_t at = 0; at < MEMORY; at += BLOCK) {
                assert_int_equal(guest_access_read(&r->vm->access, at, block, BLOCK), 0);
                if (at <= LAYOUT_VMGENID && LAYOUT_VMGENID < at + BLOCK)
                        memset((uint8_t *)block + (LAYOUT_VMGENID - at), 0, 16);
                for (unsigned i = 0; i < BLOCK / sizeof *block; i++)
                        hash = (hash ^ block[i]) * 0x100000001b3u;
        }
        free(block);
        return hash;
}

static uint64_t hash_template(struct template *t)
{
        struct rig clone;
        uint64_t hash;

        rig_spawn(&clone, t, 1, 1);
        hash = hash_memory(&clone);
        rig_free(&clone);
        return hash;
}

static void serve_for(struct rig *r, unsigned ms)
{
        struct timespec start, now;

        clock_gettime(CLOCK_MONOTONIC, &start);
        do {
                rig_step(&r, 1);
                clock_gettime(CLOCK_MONOTONIC, &now);
        } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < ms);
}

/* Freeze @r; 0, with a clone that does not run yet, or -ESRCH: it has ended. */
static int take_snapshot(struct rig *r, struct snapshot *s)
{
        struct vm_freeze_stats stats;
        int ret = vm_freeze(r->vm, 0, false, &s->tmpl, &stats, &err);

        if (ret == -ESRCH)
                return ret;
        if (ret < 0)
                fail_msg("freeze: %s", err.text);
        rig_spawn(&s->clone, s->tmpl, 1, 1);
        s->hash = hash_memory(&s->clone);
        return 0;
}

/* The clone runs to its end; what it was made of must be as it was. */
static void end_snapshot(struct snapshot *s)
{
        uint64_t hash;

        vm_run(s->clone.vm);
        litmus_end(&s->clone, SECONDS);
        hash = hash_template(s->tmpl);
        template_unref(s->tmpl);
        if (hash != s->hash)
                fail_msg("the template has changed: %#llx, and %#llx at first",
                         (unsigned long long)hash, (unsigned long long)s->hash);
}

/* --- freezes in a write storm --- */

static uint64_t published(struct rig *r, unsigned cpu)
{
        return word(r, STORM_PUBLISHED(cpu));
}

static void storm_until_all_run(struct rig *r, unsigned vcpus)
{
        for (unsigned ms = 0; ms < PATIENCE_MS; ms++) {
                unsigned running = 0;

                for (unsigned c = 0; c < vcpus; c++)
                        running += published(r, c) - 1 < 1ull << 40;
                if (running == vcpus)
                        return;
                serve_for(r, 1);
        }
        fail_msg("the storm did not begin: %s", r->text);
}

/* What processor @c must have written to its page @i, when @n was its last number. */
static uint64_t sequence_of(unsigned i, uint64_t n)
{
        uint64_t back = (n + STORM_PAGES - i) % STORM_PAGES;

        return n > back ? n - back : 0;
}

static void expect_one_moment(struct rig *r, unsigned vcpus)
{
        for (unsigned c = 0; c < vcpus; c++) {
                uint64_t n = published(r, c), neighbour = published(r, (c + 1) % vcpus);
                uint64_t next = word(r, STORM_PAGE(c, (n + 1) % STORM_PAGES));

                if (next == n + 1) /* written, but not published yet */
                        n++;
                for (unsigned i = 0; i < STORM_PAGES; i++) {
                        uint64_t page = STORM_PAGE(c, i), saw = word(r, page);
                        uint64_t knew = word(r, page + 8 * STORM_WORD_NEIGHBOUR);

                        if (saw != sequence_of(i, n))
                                fail_msg("vCPU %u has written number %llu, but its page %u has "
                                         "%llu, expected %llu",
                                         c, (unsigned long long)n, i, (unsigned long long)saw,
                                         (unsigned long long)sequence_of(i, n));
                        if (knew > neighbour)
                                fail_msg("vCPU %u knows of number %llu, its neighbour is at %llu",
                                         c, (unsigned long long)knew,
                                         (unsigned long long)neighbour);
                }
        }
}

static void freezes_in_a_storm(void **state)
{
        const struct combination *c = *state;
        static struct snapshot snapshots[FREEZES];
        struct rig parent;
        unsigned n = 0;

        boot(&parent, c);
        vm_fork_done(parent.vm, LITMUS_NUMBER(LITMUS_STORM, TICKS), LITMUS_NUMBERS);
        storm_until_all_run(&parent, c->vcpus);
        for (; n < FREEZES && take_snapshot(&parent, &snapshots[n]) == 0; n++) {
                expect_one_moment(&snapshots[n].clone, c->vcpus);
                serve_for(&parent, (unsigned)rand() % 30);
        }
        litmus_end(&parent, SECONDS);
        for (unsigned i = 0; i < n; i++)
                end_snapshot(&snapshots[i]);
        assert_true(n >= 2);
}

/* --- a seal that fails --- */

static void a_seal_that_fails_and_then_works(void **state)
{
        const struct combination *c = *state;
        struct vm_freeze_stats stats;
        static struct snapshot s;
        struct template *t = NULL;
        struct rig parent;
        uint64_t before;
        void *obstacle;

        boot(&parent, c);
        obstacle = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, parent.vm->backing.shared_fd, 0);
        assert_ptr_not_equal(obstacle, MAP_FAILED);
        assert_int_equal(vm_freeze(parent.vm, 0, true, &t, &stats, &err), -EBUSY);
        assert_null(t);
        vm_fork_done(parent.vm, LITMUS_NUMBER(LITMUS_STORM, TICKS), LITMUS_NUMBERS);
        storm_until_all_run(&parent, c->vcpus);
        before = published(&parent, 0);
        serve_for(&parent, 50);
        assert_true(published(&parent, 0) > before); /* it runs on */
        assert_int_equal(vm_freeze(parent.vm, 0, false, &t, &stats, &err), -EBUSY);
        assert_null(t);
        munmap(obstacle, PAGE);
        assert_int_equal(take_snapshot(&parent, &s), 0);
        expect_one_moment(&s.clone, c->vcpus);
        litmus_end(&parent, SECONDS);
        end_snapshot(&s);
}

/* --- a device that holds its translations --- */

/* Each side's word is in the pages up to the round that it has told, and no further than the next.
 */
static void expect_rounds(struct rig *r)
{
        uint64_t guest = word(r, DEVICE_CONTROL + DEVICE_GUEST_WROTE);
        uint64_t host = word(r, DEVICE_CONTROL + DEVICE_HOST_WROTE);
        uint64_t last = word(r, DEVICE_CONTROL + DEVICE_OVER);

        if (last == 0 || last >= PAGES) /* not begun */
                return;
        for (uint64_t n = 1; n <= last; n++) {
                uint64_t g = word(r, DEVICE_PAGE(n) + DEVICE_WORD_GUEST);
                uint64_t h = word(r, DEVICE_PAGE(n) + DEVICE_WORD_HOST);

                if (n <= guest ? g != n : n > guest + 1 && g == n)
                        fail_msg("the guest has told of round %llu; page %llu has %#llx",
                                 (unsigned long long)guest, (unsigned long long)n,
                                 (unsigned long long)g);
                if (n <= host ? h != n : n > host + 1 && h == n)
                        fail_msg("the device has told of round %llu; page %llu has %#llx",
                                 (unsigned long long)host, (unsigned long long)n,
                                 (unsigned long long)h);
        }
}

/* The device ends first, since it looks at the machine's memory. */
static void end_with_device(struct rig *r, struct litmus_device *d)
{
        rig_until(r, rig_exited, SECONDS);
        litmus_device_end(d);
        if (d->bad[0]) {
                print_message("%s\n%s\n", d->bad, r->text);
                fail_msg("the device read what was not there any more");
        }
        litmus_end(r, SECONDS);
}

static void a_life_with_a_device(const struct combination *c)
{
        static struct litmus_device d; /* its thread outlives a failed test */
        struct template *templates[FREEZES];
        uint64_t hashes[FREEZES];
        struct rig parent;
        unsigned n = 0;

        boot(&parent, c);
        litmus_device_start(&d, parent.vm, FREEZES);
        vm_fork_done(parent.vm, LITMUS_NUMBER(LITMUS_DEVICE, PAGES), LITMUS_NUMBERS);
        while (atomic_load(&d.round) == 0 && !parent.exited)
                serve_for(&parent, 1);
        for (; n < FREEZES && !parent.exited; n++) {
                static struct snapshot s;

                serve_for(&parent, 1 + (unsigned)rand() % 4);
                if (take_snapshot(&parent, &s) < 0)
                        break;
                atomic_store(&d.freezes, n + 1);
                expect_rounds(&s.clone);
                rig_free(&s.clone); /* it has no device */
                templates[n] = s.tmpl;
                hashes[n] = s.hash;
        }
        end_with_device(&parent, &d);
        for (unsigned i = 0; i < n; i++) {
                assert_true(hashes[i] == hash_template(templates[i]));
                template_unref(templates[i]);
        }
        assert_int_equal(n, FREEZES);
}

static void a_device_never_reads_what_was_before(void **state)
{
        for (unsigned i = 0; i < LIVES; i++)
                a_life_with_a_device(*state);
}

/* --- clocks, which KVM writes --- */

static void clocks_go_on(void **state)
{
        const struct combination *c = *state;
        static struct snapshot snapshots[FREEZES];
        struct rig parent;
        unsigned n = 0;

        boot(&parent, c);
        vm_fork_done(parent.vm, LITMUS_NUMBER(LITMUS_CLOCK, TICKS), LITMUS_NUMBERS);
        for (; n < FREEZES / 2; n++) {
                serve_for(&parent, 10 + (unsigned)rand() % 60);
                vm_pause(parent.vm);
                for (unsigned i = 0; i < c->vcpus; i++) /* so that KVM writes the parent's, too */
                        kvm_vcpu_was_paused(&parent.vm->vcpus[i].kvm);
                vm_run(parent.vm);
                if (take_snapshot(&parent, &snapshots[n]) < 0)
                        break;
        }
        litmus_end(&parent, SECONDS);
        for (unsigned i = 0; i < n; i++)
                end_snapshot(&snapshots[i]);
        assert_true(n >= 1);
}

/* --- all --- */

static const struct {
        const char *name;
        CMUnitTestFunction function;
        unsigned vcpus[3];
} all[] = {
        {"storm", freezes_in_a_storm, {1, 2, 4}},
        {"seal", a_seal_that_fails_and_then_works, {2}},
        {"device", a_device_never_reads_what_was_before, {1, 2}},
        {"clock", clocks_go_on, {1, 2}},
};

#define TESTS_MAX 32

int main(void)
{
        static struct combination combinations[TESTS_MAX];
        static struct CMUnitTest tests[TESTS_MAX];
        size_t n = 0;

        switch (rig_init()) {
        case 0:
                return 0;
        case 1:
                break;
        default:
                return 1;
        }
        for (unsigned e = 0; e < 3; e++)
                for (size_t t = 0; t < sizeof all / sizeof *all; t++)
                        for (unsigned v = 0; v < 3 && all[t].vcpus[v]; v++, n++) {
                                struct combination *c = &combinations[n];

                                *c = (struct combination){.engine = e, .vcpus = all[t].vcpus[v]};
                                snprintf(c->name, sizeof c->name, "%s_%u_%s", engine_of[e],
                                         c->vcpus, all[t].name);
                                tests[n].name = c->name;
                                tests[n].test_func = all[t].function;
                                tests[n].initial_state = c;
                        }
        return _cmocka_run_group_tests("litmus_host", tests, n, NULL, NULL);
}
