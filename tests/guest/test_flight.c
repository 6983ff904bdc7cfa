/* SPDX-License-Identifier: Apache-2.0 */
/*
 * I/O in flight, all the time: forks, resets, pauses and ends in the midst of it. The guest
 * (flight.c) halts until an interrupt comes and counts what was answered, so a machine whose counts
 * go on has lost none; and it compares whatever it reads.
 */
#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "flight.h"
#include "io/disk.h"
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

static void reset(struct flyer *f)
{
        if (vm_reset(f->rig.vm, &err) < 0)
                fail_msg("reset: %s", err.text);
}

static int set_up(void **state)
{
        (void)state;
        rig_cow = RAMET_COW_PRIVATE;
        rig_rng = true;
        rig_ndisks = 1;
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

/* The user is told what is missing, and what is done instead. */
static void expect_missing(const struct vm *vm, const char *feature)
{
        const char *name, *instead;
        unsigned at = 0;

        while (vm_kvm_missing(vm, &at, &name, &instead)) {
                if (strcmp(name, feature))
                        continue;
                assert_true(strlen(instead) > 0);
                return;
        }
        fail_msg("nobody says that there is no %s", feature);
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
        expect_missing(f.rig.vm, "IOEVENTFD");
        expect_missing(f.rig.vm, "IRQFD");
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
        assert_non_null(strstr(
                r.text,
                "virtio_mmio.device=4K@0xd0001000:5 virtio_mmio.device=4K@0xd0002000:6 the rest"));
}

/* An image past the page cache, so that reads take a while. */
static void direct_image(struct vm_options *o)
{
        static const int flags[2] = {O_RDWR | O_DIRECT, O_RDONLY | O_DIRECT};
        char name[] = "flight-XXXXXX";
        int fds[2], fd;

        if (o->shape.vcpus == 0) /* a clone has its template's */
                return;
        fd = mkstemp(name);
        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)rig_disk_bytes), 0);
        for (unsigned i = 0; i < 2; i++) {
                fds[i] = open(name, flags[i] | O_CLOEXEC);
                if (fds[i] < 0) /* not on this file system */
                        fds[i] = open(name, (flags[i] & ~O_DIRECT) | O_CLOEXEC);
                assert_true(fds[i] >= 0);
        }
        close(fd);
        unlink(name);
        o->disks[0] = (struct device_disk){.image_fd = fds[0],
                                           .image_ro_fd = fds[1],
                                           .overlay_fd = -1,
                                           .overlay_ro_fd = -1,
                                           .name = "image"};
}

/* --- forks --- */

static void forked_in_flight(enum ramet_cow cow, unsigned vcpus, unsigned forks)
{
        static struct flyer parent, clones[CLONES];
        struct flyer *all[CLONES + 1] = {&parent};

        rig_use_engine(cow);
        rig_tune = cow == RAMET_COW_PRIVATE ? NULL : direct_image;
        boot(&parent, vcpus, "depth=8");
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
        forked_in_flight(RAMET_COW_PRIVATE, 1, 30);
}

static void forks_private_smp(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_PRIVATE, 2, 6);
}

static void forks_trap(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_TRAP, 1, 6);
}

static void forks_trap_smp(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_TRAP, 2, 6);
}

static void forks_rom(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_ROM, 1, 6);
}

static void forks_rom_smp(void **state)
{
        (void)state;
        forked_in_flight(RAMET_COW_ROM, 2, 4);
}

/* --- resets --- */

struct held_things {
        unsigned fds, threads, mappings;
};

static unsigned entries(const char *path)
{
        DIR *dir = opendir(path);
        unsigned n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

/* io_uring's workers are the kernel's, and come and go. */
static unsigned own_threads(void)
{
        DIR *dir = opendir("/proc/self/task");
        char path[300], name[16];
        struct dirent *d;
        unsigned n = 0;

        assert_non_null(dir);
        while ((d = readdir(dir))) {
                FILE *comm;

                snprintf(path, sizeof path, "/proc/self/task/%s/comm", d->d_name);
                comm = fopen(path, "r");
                n += comm && fgets(name, sizeof name, comm) && strncmp(name, "iou-", 4) != 0;
                if (comm)
                        fclose(comm);
        }
        closedir(dir);
        return n;
}

static struct held_things things(void)
{
        struct held_things t = {entries("/proc/self/fd"), own_threads(), 0};
        FILE *maps = fopen("/proc/self/maps", "r");
        int c;

        assert_non_null(maps);
        while ((c = getc(maps)) != EOF)
                t.mappings += c == '\n';
        fclose(maps);
        return t;
}

static void expect_no_more(struct held_things now, struct held_things before)
{
        assert_int_equal(now.fds, before.fds);
        assert_int_equal(now.threads, before.threads);
        assert_in_range(now.mappings, 0, before.mappings + 8);
}

static void reset_in_flight(enum ramet_cow cow, unsigned vcpus, unsigned times)
{
        static struct flyer parent, clone;
        struct flyer *one = &clone;
        struct flight_report then, now;
        struct held_things before;
        struct template *t;

        rig_use_engine(cow);
        boot(&parent, vcpus, "");
        vm_pause(parent.rig.vm);
        t = freeze(&parent);
        spawn(&clone, t, &parent, 1);
        template_unref(t);
        then = report_of(&clone);
        for (unsigned n = 0; n < times; n++) {
                vm_run(clone.rig.vm);
                for (unsigned steps = (unsigned)rand() % 6; steps > 0; steps--)
                        serve(&one, 1, (uint64_t)rand() % 200000);
                if (n % 2)
                        vm_pause(clone.rig.vm);
                reset(&clone);
                vm_pause(clone.rig.vm);
                now = report_of(&clone);
                if (n % 2 && memcmp(&now, &then, sizeof now))
                        fail_msg("reset %u: something of the old life is left", n);
                if (n == 16)
                        before = things();
        }
        expect_no_more(things(), before);
        vm_run(clone.rig.vm);
        let_fly(&one, 1, 50);
        rig_free(&clone.rig);
        rig_free(&parent.rig);
}

static void resets_private(void **state)
{
        (void)state;
        reset_in_flight(RAMET_COW_PRIVATE, 1, 1000);
}

static void resets_trap_smp(void **state)
{
        (void)state;
        reset_in_flight(RAMET_COW_TRAP, 2, 100);
}

static void resets_rom_smp(void **state)
{
        (void)state;
        reset_in_flight(RAMET_COW_ROM, 2, 40);
}

/* --- a vCPU that a device holds --- */

/* The guest resets its entropy device, and nobody serves the loop that would let it go. */
static void hold(struct flyer *f)
{
        const uint64_t at = f->report + offsetof(struct flight_report, reset), one = 1;
        uint64_t end = now_ms() + 10000;

        while (!(atomic_load(&f->rig.vm->vcpus[0].held) & VCPU_HELD_DEVICE)) {
                if (!report_of(f).reset)
                        assert_int_equal(vm_write(f->rig.vm, at, &one, sizeof one), 0);
                serve(&f, 1, 0);
                usleep(400);
                if (now_ms() > end)
                        fail_msg("the guest's reset does not wait for the loop");
        }
}

static void holds(void **state)
{
        static struct flyer f, clone;
        struct flyer *both[] = {&clone, &f};
        struct template *t;

        (void)state;
        boot(&f, 1, "");

        /* It waits, and goes on with a device that works. */
        hold(&f);
        usleep(10000);
        assert_int_equal(atomic_load(&f.rig.vm->vcpus[0].held), VCPU_HELD_DEVICE);
        let_fly(&both[1], 1, 20);
        assert_in_range(report_of(&f).resets, 1, 1000);

        hold(&f);
        vm_pause(f.rig.vm);
        vm_run(f.rig.vm);
        let_fly(&both[1], 1, 20);

        /* The clone's is not held: its reset was done when it was saved. */
        hold(&f);
        t = freeze(&f);
        spawn(&clone, t, &f, 1);
        template_unref(t);
        assert_int_equal(atomic_load(&clone.rig.vm->vcpus[0].held), 0);
        vm_run(clone.rig.vm);
        let_fly(both, 2, 20);

        hold(&clone);
        reset(&clone);
        let_fly(both, 1, 20);

        /* Ended while it waits, and alive again. */
        hold(&clone);
        vm_exit_with(clone.rig.vm, RAMET_EXIT_HOST, 0, "for a test");
        rig_until(&clone.rig, rig_exited, 10);
        reset(&clone);
        clone.rig.exited = false;
        let_fly(both, 1, 20);

        hold(&clone);
        rig_free(&clone.rig);
        hold(&f);
        vm_pause(f.rig.vm);
        rig_free(&f.rig);
}

/* --- freezes that fail --- */

/* Without descriptors to spare one step after the other fails, those of the disk's among them. */
static void failed_freezes(void **state)
{
        static struct flyer f, clone;
        struct flyer *both[] = {&f, &clone};
        struct vm_freeze_stats stats;
        struct template *t = NULL;
        struct rlimit limit, small;
        unsigned failures = 0, before;
        int r = -1;

        (void)state;
        rig_ndisks = 2; /* the second fails when the first has prepared */
        boot(&f, 1, "");
        before = entries("/proc/self/fd");
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        for (unsigned spare = 0; r < 0 && spare < 40; spare++) {
                int next = dup(0); /* the lowest that is free */

                assert_true(next >= 0);
                close(next);
                small = limit;
                small.rlim_cur = (rlim_t)next + spare;
                assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
                r = vm_freeze(f.rig.vm, 0, false, &t, &stats, &err);
                assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
                if (r < 0)
                        assert_int_equal(r, -EMFILE);
                failures += r < 0;
                /* A disk keeps the overlay in memory that it made for the next freeze. */
                if (r < 0)
                        assert_in_range(entries("/proc/self/fd"), before, before + rig_ndisks);
                let_fly(both, 1, 20);
        }
        assert_int_equal(r, 0);
        assert_in_range(failures, 1, 40);
        spawn(&clone, t, &f, 1);
        template_unref(t);
        vm_run(clone.rig.vm);
        let_fly(both, 2, 50);
        rig_free(&clone.rig);
        rig_free(&f.rig);
}

/* Map what the machine writes of its disk, as somebody else who has it would: nothing seals it. */
static void *hinder_seals(void)
{
        DIR *dir = opendir("/proc/self/fd");
        void *mapped = NULL;
        struct dirent *d;

        assert_non_null(dir);
        while (!mapped && (d = readdir(dir))) {
                int fd = atoi(d->d_name);
                char what[64] = "";

                if (readlinkat(dirfd(dir), d->d_name, what, sizeof what - 1) < 0 ||
                    !strstr(what, "ramet-overlay") || fcntl(fd, F_GET_SEALS) & F_SEAL_WRITE)
                        continue;
                mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
                assert_ptr_not_equal(mapped, MAP_FAILED);
        }
        closedir(dir);
        assert_non_null(mapped);
        return mapped;
}

/* Everything has changed hands when the last step of a freeze fails: the machine goes on with what
 * it wrote before and since, and so do the clones of a later one. A reset goes back to the first.
 */
static void a_disk_that_cannot_be_sealed(void **state)
{
        static struct flyer f, clone;
        struct flyer *both[] = {&f, &clone};
        struct vm_freeze_stats stats;
        struct template *t = NULL;
        unsigned before;
        void *mapped;

        (void)state;
        boot(&f, 1, "");
        template_unref(freeze(&f));
        let_fly(both, 1, 20);
        mapped = hinder_seals();
        for (unsigned n = 0; n < 3; n++) {
                before = entries("/proc/self/fd");
                assert_int_equal(vm_freeze(f.rig.vm, 0, false, &t, &stats, &err), -EBUSY);
                assert_null(t);
                /* The overlay that is on top now. */
                assert_in_range(entries("/proc/self/fd"), before, before + 1);
                let_fly(both, 1, 20);
        }
        munmap(mapped, 4096);
        t = freeze(&f);
        let_fly(both, 1, 20);
        spawn(&clone, t, &f, 1);
        template_unref(t);
        vm_run(clone.rig.vm);
        let_fly(both, 2, 50);
        reset(&f);
        reset(&clone);
        let_fly(both, 2, 50);
        rig_free(&clone.rig);
        rig_free(&f.rig);
}

/* The disk cannot take its template's layers back, when memory is the template's again: the machine
 * has ended, with a queue that is of neither life. The next reset finds all that it needs. */
static void a_reset_that_fails_halfway(void **state)
{
        static struct flyer parent, clone;
        struct flyer *one = &clone;
        struct rlimit limit, small;
        struct template *t;

        (void)state;
        boot(&parent, 1, "");
        template_unref(freeze(&parent));
        one = &parent;
        let_fly(&one, 1, 20); /* so that there is a layer to take */
        t = freeze(&parent);
        spawn(&clone, t, &parent, 1);
        template_unref(t);
        one = &clone;
        vm_run(clone.rig.vm);
        for (unsigned n = 0; n < DISK_LAYERS_MAX; n++) { /* and it becomes one with others */
                let_fly(&one, 1, 10);
                template_unref(freeze(&clone));
        }
        let_fly(&one, 1, 20);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
        small = limit;
        small.rlim_cur = 3;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
        assert_int_equal(vm_reset(clone.rig.vm, &err), -EMFILE);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
        rig_until(&clone.rig, rig_exited, 10);
        assert_int_equal(clone.rig.exit.reason, RAMET_EXIT_HOST);
        serve(&one, 1, 200000);
        reset(&clone);
        clone.rig.exited = false;
        let_fly(&one, 1, 50);
        rig_free(&clone.rig);
        rig_free(&parent.rig);
}

/* --- shells --- */

static void shells_have_devices(void **state)
{
        static struct flyer parent, clones[CLONES];
        struct flyer *all[CLONES + 1] = {&parent};
        struct held_things before;
        struct template *t;

        (void)state;
        boot(&parent, 1, "");
        before = things();
        for (unsigned n = 0; n < 6; n++) {
                for (unsigned i = 0; i < CLONES; i++) {
                        rig_shell(&clones[i].rig, 1, MEMORY);
                        clones[i].report = parent.report;
                        all[i + 1] = &clones[i];
                }
                t = freeze(&parent);
                for (unsigned i = 0; i < CLONES; i++) {
                        rig_adopt(&clones[i].rig, t, i + 1, CLONES);
                        vm_run(clones[i].rig.vm);
                }
                template_unref(t);
                let_fly(all, CLONES + 1, 6);
                for (unsigned i = 0; i < CLONES; i++)
                        rig_free(&clones[i].rig);
                if (n == 2)
                        before = things();
        }
        /* Each freeze leaves the parent a layer. */
        assert_int_equal(things().threads, before.threads);
        rig_free(&parent.rig);
}

static void a_shell_without_them_is_refused(void **state)
{
        const struct vm_clone_files files = {.console_in_fd = -1, .console_out_fd = -1};
        static struct flyer parent, clone;
        struct template *t;

        (void)state;
        boot(&parent, 1, "");
        rig_rng = false;
        rig_ndisks = 0;
        rig_shell(&clone.rig, 1, MEMORY);
        t = freeze(&parent);
        assert_int_equal(vm_adopt(clone.rig.vm, t, &files, 1, 1, &err), -EINVAL);
        assert_string_equal(err.text,
                            "a shell of 1 vCPUs, 16777216 bytes of memory, 0 disks and 0 other "
                            "virtio devices cannot adopt a template of 1, 16777216, 1 and 1");
        template_unref(t);
        rig_free(&clone.rig);
        rig_free(&parent.rig);
}

/* By hand: a pattern of names. */
int main(int argc, char **argv)
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
                cmocka_unit_test_setup(resets_private, set_up),
                cmocka_unit_test_setup(resets_trap_smp, set_up),
                cmocka_unit_test_setup(resets_rom_smp, set_up),
                cmocka_unit_test_setup(holds, set_up),
                cmocka_unit_test_setup(failed_freezes, set_up),
                cmocka_unit_test_setup(a_disk_that_cannot_be_sealed, set_up),
                cmocka_unit_test_setup(a_reset_that_fails_halfway, set_up),
                cmocka_unit_test_setup(shells_have_devices, set_up),
                cmocka_unit_test_setup(a_shell_without_them_is_refused, set_up),
        };
        int r = rig_init();

        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("flight", tests, NULL, NULL);
}
