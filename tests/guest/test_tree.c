/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of real machines: clones of clones, deeper than layers are stacked, siblings of all depths
 * at once, ends in random order, and freezes that fail in the midst of it. Every machine runs the
 * writer, which knows what each of its pages must hold at each moment; a byte that is typed ends
 * it, and it says how many were wrong.
 */
#include "rig.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "vm/machine.h"

#define MIB    (1ull << 20)
#define MEMORY (32 * MIB)
#define DEPTH  24
#define OTHERS 6

static struct err err;

static struct template *freeze(struct rig *r)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;

        if (vm_freeze(r->vm, 0, false, &t, &stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        assert_in_range(t->nlayers, 1, BACKING_LAYERS_DEEP);
        return t;
}

static void run_for(struct rig *r, unsigned us)
{
        const struct timespec t = {.tv_nsec = us * 1000};

        vm_run(r->vm);
        nanosleep(&t, NULL);
        rig_step(&r, 1);
}

/* It ends, having found nothing wrong. */
static void end(struct rig *r)
{
        if (!r->vm)
                return;
        vm_run(r->vm);
        rig_type(r, "q");
        rig_until(r, rig_exited, 60);
        rig_free(r);
        if (!strstr(r->text, " errors=0\n"))
                fail_msg("memory of another moment: %s", r->text);
}

static void boot_writer(struct rig *r, unsigned vcpus)
{
        rig_boot(r, "writer.elf", "mib=1", vcpus, MEMORY, false);
        rig_until(r, rig_printed, 30);
}

static unsigned open_fds(void)
{
        DIR *dir = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static void a_tree_of_any_depth(enum ramet_cow cow, unsigned depth, unsigned vcpus)
{
        static struct rig line, others[OTHERS];
        unsigned before;

        rig_use_engine(cow);
        before = open_fds();
        srand(5);
        boot_writer(&line, vcpus);
        for (unsigned d = 0; d < depth; d++) {
                struct rig *other = &others[rand() % OTHERS];
                struct template *t;

                run_for(&line, 1000 + (unsigned)rand() % 4000);
                t = freeze(&line);
                end(other);
                rig_spawn(other, t, 2, 2);
                run_for(other, 100);
                vm_pause(other->vm); /* or they all fight for the processors */
                /* Half of the parents end before their clones begin, half of them afterwards. */
                if (d % 2) {
                        end(&line);
                        rig_spawn(&line, t, 1, 2);
                } else {
                        struct rig *parent = malloc(sizeof *parent);

                        *parent = line;
                        parent->vm->options.event_data = parent;
                        rig_spawn(&line, t, 1, 2);
                        run_for(&line, 100);
                        end(parent);
                        free(parent);
                }
                template_unref(t);
                if (d % 7 == 6 &&
                    vm_reset(others[d % OTHERS].vm ? others[d % OTHERS].vm : line.vm, &err) < 0)
                        fail_msg("reset: %s", err.text);
        }
        for (unsigned i = 0; i < OTHERS; i++)
                end(&others[(i * 5 + 2) % OTHERS]);
        end(&line);
        assert_int_equal(open_fds(), before);
}

static void a_tree_with_private(void **state)
{
        a_tree_of_any_depth(RAMET_COW_PRIVATE, DEPTH, 2);
}

static void a_tree_with_trap(void **state)
{
        a_tree_of_any_depth(RAMET_COW_TRAP, 10, 2);
}

static void a_tree_with_rom(void **state)
{
        a_tree_of_any_depth(RAMET_COW_ROM, 10, 2);
}

/* Several fork points in one life, each frozen at another moment; their clones start when the life
 * is long over. */
static void every_fork_point_of_a_life_is_kept(void **state)
{
        struct template *t[8];
        struct rig root, clone;

        boot_writer(&root, 2);
        for (unsigned i = 0; i < 8; i++) {
                run_for(&root, 3000);
                t[i] = freeze(&root);
        }
        end(&root);
        for (unsigned i = 8; i-- > 0;) {
                rig_spawn(&clone, t[i], 1, 1);
                template_unref(t[i]);
                run_for(&clone, 3000);
                end(&clone);
        }
}

/* A freeze that finds no descriptor for its layer leaves the machine, its parent, its siblings and
 * its clones as they are. */
static void a_failing_freeze_harms_nobody(void **state)
{
        struct rig root, one, two, child;
        struct vm_freeze_stats stats;
        struct rlimit old, none;
        struct template *t, *t2 = NULL;

        boot_writer(&root, 2);
        t = freeze(&root);
        rig_spawn(&one, t, 1, 2);
        rig_spawn(&two, t, 2, 2);
        template_unref(t);
        run_for(&one, 2000);
        run_for(&two, 2000);
        t = freeze(&one);
        rig_spawn(&child, t, 1, 1);
        template_unref(t);
        run_for(&child, 2000);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
        none = (struct rlimit){.rlim_cur = 3, .rlim_max = old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        assert_int_equal(vm_freeze(one.vm, 0, false, &t2, &stats, &err), -EMFILE);
        assert_int_equal(vm_freeze(child.vm, 0, false, &t2, &stats, &err), -EMFILE);
        assert_int_equal(vm_freeze(root.vm, 0, false, &t2, &stats, &err), -EMFILE);
        assert_null(t2);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        run_for(&one, 2000);
        t = freeze(&one); /* and now it can */
        end(&one);
        rig_spawn(&one, t, 1, 1);
        template_unref(t);
        end(&root);
        end(&child);
        end(&one);
        end(&two);
}

/* The root's seal fails (something else maps its memory), later it is frozen all the same: that
 * template is of the later moment. */
static void a_seal_that_failed_is_made_up_for(void **state)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;
        struct rig root, clone, child;
        void *other;

        boot_writer(&root, 2);
        other = mmap(NULL, 4096, PROT_READ, MAP_SHARED, root.vm->backing.shared_fd, 0);
        assert_ptr_not_equal(other, MAP_FAILED);
        assert_int_equal(vm_freeze(root.vm, 0, false, &t, &stats, &err), -EBUSY);
        assert_null(t);
        run_for(&root, 3000);
        assert_int_equal(vm_freeze(root.vm, 0, false, &t, &stats, &err), -EBUSY);
        munmap(other, 4096);
        run_for(&root, 3000);
        t = freeze(&root);
        assert_int_equal(t->nlayers, 2);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        run_for(&clone, 3000);
        t = freeze(&clone);
        rig_spawn(&child, t, 1, 1);
        template_unref(t);
        end(&root);
        end(&clone);
        end(&child);
}

static int use_private(void **state)
{
        rig_cow = RAMET_COW_PRIVATE;
        return 0;
}

#define TEST(f) cmocka_unit_test_setup(f, use_private)

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                TEST(a_tree_with_private),
                TEST(a_tree_with_trap),
                TEST(a_tree_with_rom),
                TEST(every_fork_point_of_a_life_is_kept),
                TEST(a_failing_freeze_harms_nobody),
                TEST(a_seal_that_failed_is_made_up_for),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests_name("tree", tests, NULL, NULL);
}
