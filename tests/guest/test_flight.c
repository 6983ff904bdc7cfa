/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O in flight, all the time: forks, resets, pauses and ends in the midst of it. The guest
 * (flight.c) halts until an interrupt comes and counts what was answered, so a machine whose counts
 * go on has lost none; and it compares whatever it reads.
 */
#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "flight.h"
#include "vm/machine.h"

#define MIB    (1ull << 20)
#define MEMORY (16 * MIB)
#define CLONES 3

static struct err err;

/* A machine, and where its guest's report is. */
struct flyer {
        struct rig rig;
        uint64_t report;
};

static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static struct flight_report report_of(struct flyer *f)
{
        struct flight_report r;

        assert_int_equal(vm_read(f->rig.vm, f->report, &r, sizeof r), 0);
        assert_int_equal(r.magic, FLIGHT_MAGIC);
        if (r.error)
                fail_msg("flight.c:%llu: got %#llx, want %#llx (stale?)",
                         (unsigned long long)r.error, (unsigned long long)r.got,
                         (unsigned long long)r.want);
        if (f->rig.exited)
                fail_msg("ended: %s; console: %s", f->rig.exit.text, f->rig.text);
        return r;
}

/* Serve them for a while. A short wait each: they share this thread. */
static void serve(struct flyer **fs, unsigned n, uint64_t wait_ns)
{
        for (unsigned i = 0; i < n; i++)
                assert_int_equal(loop_step(fs[i]->rig.loop, wait_ns), 0);
}

static bool flies(struct flyer *f, const struct flight_report *since, uint64_t more)
{
        struct flight_report r = report_of(f);

        return (!f->rig.vm->shape.rng || r.rng >= since->rng + more) &&
               (!f->rig.vm->shape.ndisks || r.blk >= since->blk + more);
}

/* Each of them has @more answers of each device than now. */
static void let_fly(struct flyer **fs, unsigned n, uint64_t more)
{
        struct flight_report since[CLONES + 1];
        uint64_t end = now_ms() + 20000;
        unsigned done = 0;

        for (unsigned i = 0; i < n; i++)
                since[i] = report_of(fs[i]);
        while (done < n) {
                serve(fs, n, 200000);
                if (flies(fs[done], &since[done], more)) {
                        done++;
                } else if (now_ms() > end) {
                        struct flight_report r = report_of(fs[done]);

                        fail_msg("machine %u of %u: an interrupt or an answer was lost: rng %llu, "
                                 "blk %llu, interrupts %llu",
                                 done, n, (unsigned long long)r.rng, (unsigned long long)r.blk,
                                 (unsigned long long)r.interrupts);
                }
        }
}

static bool reported(const struct rig *r)
{
        const char *at = strstr(r->text, "report at ");

        return at && strchr(at, '\n');
}

static void boot(struct flyer *f, unsigned vcpus, const char *cmdline)
{
        rig_boot(&f->rig, "flight.elf", cmdline, vcpus, MEMORY, false);
        rig_until(&f->rig, reported, 30);
        f->report = strtoull(strstr(f->rig.text, "report at ") + 10, NULL, 16);
        let_fly(&f, 1, 8);
}

static struct template *freeze(struct flyer *f)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;

        if (vm_freeze(f->rig.vm, 0, false, &t, &stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        return t;
}

static void spawn(struct flyer *f, struct template *t, const struct flyer *parent, unsigned index)
{
        rig_spawn(&f->rig, t, index, CLONES);
        f->report = parent->report;
}

__attribute__((unused)) static void reset(struct flyer *f)
{
        if (vm_reset(f->rig.vm, &err) < 0)
                fail_msg("reset: %s", err.text);
}

/* Skips where this host does not give the engine. */
static void use(enum ramet_cow cow)
{
        struct vm_options o = {
                .shape = {.memory_bytes = MEMORY, .vcpus = 1}, .kick_signal = SIGUSR1, .cow = cow};
        struct vm *vm = NULL;
        int ret;

        assert_int_equal(loop_create(false, &o.loop), 0);
        ret = vm_shell(&o, &vm, &err);
        if (ret == 0)
                vm_destroy(vm, 0);
        loop_destroy(o.loop);
        if (ret < 0) {
                print_message("# SKIP %s\n", err.text);
                skip();
        }
        rig_cow = cow;
}

static int set_up(void **state)
{
        (void)state;
        rig_cow = RAMET_COW_PRIVATE;
        rig_rng = true;
        rig_ndisks = 0;
        rig_tune = NULL;
        srand(7);
        return 0;
}

/* --- what is there --- */

static void interrupts_come(void **state)
{
        struct flyer f;
        struct flyer *one = &f;
        struct flight_report r;

        (void)state;
        boot(&f, 1, "");
        let_fly(&one, 1, 200);
        r = report_of(&f);
        assert_true(r.interrupts > 0);
        assert_true(f.rig.vm->device_slots.slot[0].irq_fd >= 0);
        rig_free(&f.rig);
}

static void no_eventfds(struct vm_options *o)
{
        o->no_eventfds = true;
}

/* The same without KVM's eventfds: notifications are exits, interrupts ioctls. */
static void without_eventfds(void **state)
{
        struct flyer f, clone;
        struct flyer *both[] = {&f, &clone};
        struct template *t;

        (void)state;
        rig_tune = no_eventfds;
        boot(&f, 1, "");
        assert_int_equal(f.rig.vm->device_slots.slot[0].irq_fd, -1);
        t = freeze(&f);
        spawn(&clone, t, &f, 1);
        vm_run(clone.rig.vm);
        let_fly(both, 2, 100);
        template_unref(t);
        rig_free(&f.rig);
        rig_free(&clone.rig);
}

static void on_cmdline(struct vm_options *o)
{
        o->shape.virtio_cmdline = 1;
}

static void found_by_the_command_line(void **state)
{
        static struct rig r;

        (void)state;
        rig_tune = on_cmdline;
        rig_boot(&r, "pvh.elf", "the rest", 1, MEMORY, false);
        rig_until(&r, rig_exited, 30);
        rig_free(&r);
        assert_non_null(strstr(r.text, "virtio_mmio.device=4K@0xd0001000:5 the rest"));
}

/* --- forks --- */

static void forked_in_flight(enum ramet_cow cow, unsigned vcpus, unsigned forks)
{
        static struct flyer parent, clones[CLONES];
        struct flyer *all[CLONES + 1] = {&parent};

        use(cow);
        boot(&parent, vcpus, "");
        for (unsigned n = 0; n < forks; n++) {
                struct template *t;
                unsigned ms = (unsigned)rand() % 8;

                for (uint64_t end = now_ms() + ms; now_ms() < end;)
                        serve(all, 1, (uint64_t)rand() % 300000);
                t = freeze(&parent);
                for (unsigned i = 0; i < CLONES; i++) {
                        spawn(&clones[i], t, &parent, i + 1);
                        vm_run(clones[i].rig.vm);
                        all[i + 1] = &clones[i];
                }
                template_unref(t);
                let_fly(all, CLONES + 1, 6);
                for (unsigned i = 0; i < CLONES; i++) {
                        if (i == n % CLONES && n % 4 == 3) { /* a clone goes on as the parent */
                                struct flyer old = parent;

                                parent = clones[i];
                                clones[i] = old;
                                parent.rig.vm->options.event_data = &parent.rig;
                                old.rig.vm->options.event_data = &clones[i].rig;
                        }
                        rig_free(&clones[i].rig);
                }
        }
        rig_free(&parent.rig);
}

static void forks_private(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_PRIVATE, 1, 70);
}

static void forks_private_smp(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_PRIVATE, 2, 12);
}

static void forks_trap(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_TRAP, 1, 12);
}

static void forks_trap_smp(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_TRAP, 2, 12);
}

static void forks_rom(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_ROM, 1, 12);
}

static void forks_rom_smp(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_ROM, 2, 6);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(interrupts_come, set_up),
                cmocka_unit_test_setup(without_eventfds, set_up),
                cmocka_unit_test_setup(found_by_the_command_line, set_up),
                cmocka_unit_test_setup(forks_private, set_up),
                cmocka_unit_test_setup(forks_private_smp, set_up),
                cmocka_unit_test_setup(forks_trap, set_up),
                cmocka_unit_test_setup(forks_trap_smp, set_up),
                cmocka_unit_test_setup(forks_rom, set_up),
                cmocka_unit_test_setup(forks_rom_smp, set_up),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("flight", tests, NULL, NULL);
}
