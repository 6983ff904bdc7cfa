/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ramet's side of the figures about memory: machines in this process. Prints nanoseconds, one
 * sample a line. The floors are in ../floor/engines.c, under the same names.
 *
 * machine break ENGINE PAGES: each store into a page that a clone has not written yet, by the
 *     guest's TSC; with `rom`, which takes 16 KiB at a time, the first store into each 16 KiB.
 * machine rewrite PAGES: the parent's stores into PAGES pages right after a freeze, in all.
 * machine shootdown VCPUS N: sync_flush() while VCPUS vCPUs run at CPL 3.
 * machine freeze MIB huge|small: the pause of a freeze; 2 vCPUs run, MIB written.
 * machine freeze-clone PAGES N: the pause of a clone's freeze; PAGES of its own, scattered.
 * machine spawn-depth DEPTH N: an empty machine adopts a template that is DEPTH freezes deep, each
 *     of 64 scattered pages.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mem/guest_mem.h"
#include "vm/machine.h"

#define MIB     (1ull << 20)
#define RESULTS 0x400000ull /* as guest.c has it */
#define SCATTER 64

struct machine {
        struct vm *vm;
        struct loop *loop;
        unsigned rung;
        bool ended;
};

static struct err err;
static const char *guest_path;

static void die(const char *what)
{
        fprintf(stderr, "machine: %s: %s\n", what, err.text);
        exit(1);
}

static void on_event(void *data, enum vm_event event, const struct vm_event_args *args)
{
        struct machine *m = data;

        m->rung += event == VM_EVENT_FORK_DOORBELL;
        if (event == VM_EVENT_EXIT) {
                struct vm_exit_info info;

                vm_exit_info(m->vm, &info);
                snprintf(err.text, sizeof err.text, "%s", info.text);
                m->ended = true;
        }
}

static struct vm_options options(struct machine *m, uint64_t bytes, unsigned vcpus)
{
        *m = (struct machine){0};
        if (loop_create(true, &m->loop) < 0)
                die("event loop");
        return (struct vm_options){
                .shape = {.memory_bytes = bytes, .vcpus = vcpus, .debug_exit_port = 0xf4},
                .loop = m->loop,
                .console_in_fd = -1,
                .console_out_fd = open("/dev/null", O_WRONLY | O_CLOEXEC),
                .hugepages = RAMET_HUGEPAGES_AUTO,
                .event = on_event,
                .event_data = m,
        };
}

static void until_rung(struct machine *m)
{
        while (!m->rung) {
                if (m->ended)
                        die("the machine ended");
                loop_step(m->loop, 1000000);
        }
        m->rung = 0;
}

static void boot(struct machine *m, const struct vm_options *o, const char *cmdline)
{
        struct boot_source source = {
                .kernel_name = "guest", .initramfs_fd = -1, .cmdline = cmdline};

        source.kernel_fd = open(guest_path, O_RDONLY | O_CLOEXEC);
        if (vm_create(o, &m->vm, &err) < 0 || vm_boot(m->vm, &source, &err) < 0 ||
            vm_arm_fork(m->vm, true, NULL) < 0 || vm_start(m->vm, &err) < 0)
                die("boot");
        close(source.kernel_fd);
        vm_run(m->vm);
}

static struct template *freeze(struct machine *m, uint64_t *pause_ns)
{
        struct vm_freeze_stats stats;
        struct template *t;

        if (vm_freeze(m->vm, 0, true, &t, &stats, &err) < 0)
                die("freeze");
        if (pause_ns)
                *pause_ns = stats.pause_ns;
        return t;
}

/* Run it to its next ring of the doorbell. */
static void go_on(struct machine *m, uint32_t result)
{
        vm_arm_fork(m->vm, true, NULL);
        vm_fork_done(m->vm, result, 1);
        vm_run(m->vm);
        until_rung(m);
}

static void finish(struct machine *m)
{
        vm_destroy(m->vm, 0);
        loop_destroy(m->loop);
}

static double tsc_per_ns(void)
{
        uint64_t t0 = vm_now_ns(), c0 = __builtin_ia32_rdtsc();

        usleep(20000);
        return (double)(__builtin_ia32_rdtsc() - c0) / (double)(vm_now_ns() - t0);
}

static void print_results(struct machine *m, uint64_t pages, bool sum)
{
        double per_ns = tsc_per_ns(), total = 0;

        vm_pause(m->vm);
        for (uint64_t i = 0; i < pages; i++) {
                uint64_t cycles;

                if (guest_mem_read(vm_memory(m->vm), RESULTS + i * 8, &cycles, 8) < 0)
                        die("results");
                total += (double)cycles;
                if (!sum)
                        printf("%.0f\n", (double)cycles / per_ns);
        }
        if (sum)
                printf("%.0f\n", total / per_ns);
}

static uint64_t break_bytes(uint64_t pages, unsigned step)
{
        return RESULTS + (pages * 8 + 2 * MIB - 1) / (2 * MIB) * 2 * MIB + pages * step * 4096 +
               2 * MIB;
}

/* `rom` takes this many pages at a time; only the first of them costs anything. */
#define ROM_GRANULE_PAGES 4

static void measure_break(const char *engine, uint64_t pages)
{
        unsigned step = strcmp(engine, "rom") ? 1 : ROM_GRANULE_PAGES;
        struct machine parent, clone;
        struct vm_options o = options(&parent, break_bytes(pages, step), 1);
        struct template *t;
        char cmdline[64];

        snprintf(cmdline, sizeof cmdline, "mode=break pages=%llu step=%u",
                 (unsigned long long)pages, step);
        boot(&parent, &o, cmdline);
        until_rung(&parent);
        t = freeze(&parent, NULL);
        o = options(&clone, 0, 0);
        for (o.cow = RAMET_COW_PRIVATE; cow_engine_get(o.cow); o.cow++) {
                if (!strcmp(cow_engine_get(o.cow)->name, engine))
                        break;
        }
        if (vm_spawn(t, &o, 1, 1, &clone.vm, &err) < 0 || vm_start(clone.vm, &err) < 0)
                die("clone");
        go_on(&clone, 1);
        print_results(&clone, pages, false);
        template_unref(t);
        finish(&clone);
        finish(&parent);
}

static void measure_rewrite(uint64_t pages)
{
        struct machine m;
        struct vm_options o = options(&m, break_bytes(pages, 1), 1);
        char cmdline[64];

        snprintf(cmdline, sizeof cmdline, "mode=break pages=%llu", (unsigned long long)pages);
        boot(&m, &o, cmdline);
        until_rung(&m);
        template_unref(freeze(&m, NULL));
        go_on(&m, 0);
        print_results(&m, pages, true);
        finish(&m);
}

static void measure_shootdown(unsigned vcpus, unsigned rounds)
{
        struct machine m;
        struct vm_options o = options(&m, 64 * MIB, vcpus);

        boot(&m, &o, "mode=spin");
        sleep(2); /* all processors are up */
        for (unsigned i = 0; i < rounds; i++) {
                uint64_t t0;

                usleep(200); /* until they are back inside */
                t0 = vm_now_ns();
                sync_flush(&m.vm->sync, NULL);
                printf("%llu\n", (unsigned long long)(vm_now_ns() - t0));
        }
        finish(&m);
}

static void measure_freeze(uint64_t mib, bool huge)
{
        struct machine m;
        struct vm_options o = options(&m, (mib + 64) * MIB, 2);
        uint64_t pause_ns;
        char cmdline[64];

        o.hugepages = huge ? RAMET_HUGEPAGES_ON : RAMET_HUGEPAGES_OFF;
        snprintf(cmdline, sizeof cmdline, "mode=fill mib=%llu", (unsigned long long)mib);
        boot(&m, &o, cmdline);
        until_rung(&m);
        vm_fork_done(m.vm, 0, 1);
        sleep(1); /* both processors are busy */
        template_unref(freeze(&m, &pause_ns));
        printf("%llu\n", (unsigned long long)pause_ns);
        finish(&m);
}

static void boot_scatter(struct machine *m, uint64_t pages)
{
        struct vm_options o = options(m, RESULTS + pages * 16 * 4096 + 64 * MIB, 1);
        char cmdline[64];

        snprintf(cmdline, sizeof cmdline, "mode=scatter pages=%llu", (unsigned long long)pages);
        boot(m, &o, cmdline);
        until_rung(m);
}

static void spawn(struct machine *m, struct template *t)
{
        struct vm_options o = options(m, 0, 0);

        if (vm_spawn(t, &o, 1, 1, &m->vm, &err) < 0 || vm_start(m->vm, &err) < 0)
                die("clone");
}

static void measure_freeze_clone(uint64_t pages, unsigned rounds)
{
        struct machine parent, clone;
        struct template *t;

        boot_scatter(&parent, pages);
        t = freeze(&parent, NULL);
        for (unsigned i = 0; i < rounds; i++) {
                uint64_t pause_ns;

                spawn(&clone, t);
                go_on(&clone, 1);
                template_unref(freeze(&clone, &pause_ns));
                printf("%llu\n", (unsigned long long)pause_ns);
                finish(&clone);
        }
        template_unref(t);
        finish(&parent);
}

static struct template *descend(struct template *t, unsigned depth)
{
        for (unsigned i = 1; i < depth; i++) {
                struct template *next;
                struct machine clone;

                spawn(&clone, t);
                go_on(&clone, 1);
                next = freeze(&clone, NULL);
                finish(&clone);
                template_unref(t);
                t = next;
        }
        return t;
}

static void measure_spawn_depth(unsigned depth, unsigned rounds)
{
        struct machine parent, clone;
        struct vm_clone_files files;
        struct template *t;
        struct vm_options o;

        boot_scatter(&parent, SCATTER);
        t = descend(freeze(&parent, NULL), depth);
        for (unsigned i = 0; i < rounds; i++) {
                uint64_t t0;

                o = options(&clone, parent.vm->shape.memory_bytes, 1);
                if (vm_shell(&o, &clone.vm, &err) < 0 || vm_start(clone.vm, &err) < 0)
                        die("shell");
                usleep(10000); /* KVM has settled */
                files = (struct vm_clone_files){.console_in_fd = -1,
                                                .console_out_fd = o.console_out_fd};
                t0 = vm_now_ns();
                if (vm_adopt(clone.vm, t, &files, 1, 1, &err) < 0)
                        die("adopt");
                printf("%llu\n", (unsigned long long)(vm_now_ns() - t0));
                finish(&clone);
        }
        template_unref(t);
        finish(&parent);
}

static uint64_t number(const char *s)
{
        return strtoull(s, NULL, 10);
}

int main(int argc, char **argv)
{
        const char *what = argc > 2 ? argv[1] : "";

        guest_path = getenv("BENCH_GUEST");
        if (!guest_path)
                return 2;
        if (!strcmp(what, "break") && argc == 4)
                measure_break(argv[2], number(argv[3]));
        else if (!strcmp(what, "rewrite"))
                measure_rewrite(number(argv[2]));
        else if (!strcmp(what, "shootdown") && argc == 4)
                measure_shootdown((unsigned)number(argv[2]), (unsigned)number(argv[3]));
        else if (!strcmp(what, "freeze") && argc == 4)
                measure_freeze(number(argv[2]), !strcmp(argv[3], "huge"));
        else if (!strcmp(what, "freeze-clone") && argc == 4)
                measure_freeze_clone(number(argv[2]), (unsigned)number(argv[3]));
        else if (!strcmp(what, "spawn-depth") && argc == 4)
                measure_spawn_depth((unsigned)number(argv[2]), (unsigned)number(argv[3]));
        else
                return 2;
        return 0;
}
