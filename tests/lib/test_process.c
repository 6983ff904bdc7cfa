/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines as processes, by the public interface: a case for each function of <ramet/process.h>.
 * All machines run the guests `servant`, which rings, or `hang`, which does not.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ramet/process.h>

#include "tests/lib/api.h"

static struct ramet_spawner *sp;

static int setup(void **state)
{
        sp = NULL;
        return ramet_spawner_create(api_ctx, &sp);
}

static int teardown(void **state)
{
        ramet_spawner_destroy(sp);
        return waitpid(-1, NULL, WNOHANG | __WALL) == -1 && errno == ECHILD ? 0 : -1;
}

static struct ramet_vm_options options(void)
{
        return (struct ramet_vm_options){
                .size = sizeof(struct ramet_vm_options),
                .kernel_name = "servant",
                .initramfs_fd = -1,
                .memory_bytes = 16 << 20,
                .vcpus = 1,
                .debug_exit_port = 0xf4,
                .console_in_fd = -1,
                .console_out_fd = -1,
                .hugepages = RAMET_HUGEPAGES_OFF,
        };
}

static int try_start(const char *guest, unsigned armed, struct ramet_process **p)
{
        struct ramet_vm_options o = options();
        int ret;

        o.kernel_fd = open(api_guest(guest), O_RDONLY | O_CLOEXEC);
        assert_true(o.kernel_fd >= 0);
        o.fork_count = armed;
        o.fork_at_doorbell = armed > 0;
        ret = ramet_process_start(sp, &o, p);
        close(o.kernel_fd);
        return ret;
}

static struct ramet_process *start(const char *guest, unsigned armed)
{
        struct ramet_process *p = NULL;

        api_ok(try_start(guest, armed, &p));
        assert_non_null(p);
        return p;
}

/* The next event of @type, of @p or of anybody. Others are skipped, and what they hold released. */
static struct ramet_event until(const struct ramet_process *p, enum ramet_event_type type)
{
        for (;;) {
                struct pollfd fd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};
                struct ramet_event e;
                int ret = api_ok(ramet_spawner_next(sp, &e));

                if (ret == 0 && poll(&fd, 1, 10000) != 1)
                        fail_msg("no event %d came in 10 s", type);
                if (ret == 0)
                        continue;
                if (e.type == type && (!p || e.process == p))
                        return e;
                if (e.type == RAMET_EVENT_FROZEN)
                        ramet_frozen_release(e.frozen.frozen);
                if ((e.type == RAMET_EVENT_GONE && e.process == p) ||
                    e.type == RAMET_EVENT_FORK_FAILED || e.type == RAMET_EVENT_RESET_FAILED)
                        fail_msg("event %d: %s", e.type, e.text);
        }
}

/* The template of a machine that was forked at the doorbell; the machine is released. */
static struct ramet_frozen *frozen(void)
{
        struct ramet_process *p = start("servant.elf", 1);
        struct ramet_event e = until(p, RAMET_EVENT_FROZEN);

        ramet_process_release(p);
        return e.frozen.frozen;
}

static struct ramet_process *clone_of(struct ramet_frozen *f, unsigned index, unsigned count)
{
        const struct ramet_clone_options o = {.size = sizeof o,
                                              .index = index,
                                              .count = count,
                                              .console_in_fd = -1,
                                              .console_out_fd = -1};
        struct ramet_process *p = NULL;

        api_ok(ramet_process_clone(sp, f, &o, &p));
        assert_non_null(p);
        return p;
}

/* --- the spawner --- */

static void case_ramet_spawner_create(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);

        assert_true(until(p, RAMET_EVENT_LAUNCHED).launched.pid > 0);
        until(p, RAMET_EVENT_STARTED);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* the program has no child */
        assert_int_equal(errno, ECHILD);
}

static void case_ramet_spawner_destroy(void **state)
{
        pid_t pid = until(start("hang.elf", 0), RAMET_EVENT_LAUNCHED).launched.pid;

        assert_int_equal(kill(pid, 0), 0);
        ramet_spawner_destroy(sp);
        sp = NULL;
        assert_int_equal(kill(pid, 0), -1);
        assert_int_equal(errno, ESRCH);
        assert_int_equal(waitpid(-1, NULL, WNOHANG | __WALL), -1);
        assert_int_equal(errno, ECHILD);
        ramet_spawner_destroy(NULL);
}

static void case_ramet_spawner_execute(void **state)
{
        struct ramet_spawner *other = NULL;
        char name[16] = "", path[64];
        struct ramet_process *p;
        int fd;

        api_fails(ramet_spawner_execute(api_ctx, "/nowhere/ramet-spawner", &other), -ENOENT,
                  "/nowhere/ramet-spawner: No such file");
        assert_null(other);
        api_fails(ramet_spawner_execute(api_ctx, "/dev/null", &other), -EACCES, "/dev/null");

        ramet_spawner_destroy(sp);
        sp = NULL;
        api_ok(ramet_spawner_execute(api_ctx, NULL, &sp)); /* $RAMET_SPAWNER */
        p = start("servant.elf", 1);
        until(p, RAMET_EVENT_LAUNCHED);
        ramet_frozen_release(until(p, RAMET_EVENT_FROZEN).frozen.frozen);
        snprintf(path, sizeof path, "/proc/%d/comm", ramet_process_pid(p));
        fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0 && read(fd, name, sizeof name - 1) > 0);
        close(fd);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* One that is no spawner is told of when it is used, and waited for. */
static void a_spawner_that_is_none_is_lost(void **state)
{
        struct ramet_process *p = NULL;
        struct ramet_event e;

        ramet_spawner_destroy(sp);
        sp = NULL;
        api_ok(ramet_spawner_execute(api_ctx, "/bin/true", &sp));
        for (unsigned i = 0; i < 1000; i++) {
                int ret = ramet_spawner_next(sp, &e);

                if (ret < 0) {
                        api_fails(ret, -EPIPE, "the spawner is lost");
                        api_fails(try_start("servant.elf", 0, &p), -EPIPE, "the spawner is lost");
                        return;
                }
                usleep(10000);
        }
        fail_msg("nobody noticed");
}

static void case_ramet_spawner_fd(void **state)
{
        struct pollfd fd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};

        assert_true(fd.fd >= 0);
        assert_int_equal(poll(&fd, 1, 0), 0);
        start("hang.elf", 0);
        assert_int_equal(poll(&fd, 1, 10000), 1);
}

static void case_ramet_spawner_next(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        struct ramet_event e = {0};
        int ret;

        while ((ret = ramet_spawner_next(sp, &e)) == 0)
                usleep(1000);
        assert_int_equal(ret, 1);
        assert_int_equal(e.type, RAMET_EVENT_LAUNCHED);
        assert_ptr_equal(e.process, p);
}

static void case_ramet_process_prewarm(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);

        until(p, RAMET_EVENT_STARTED);
        api_ok(ramet_process_prewarm(p, 2));
        assert_int_equal(ramet_spawner_shells(sp), 2);
}

static void case_ramet_spawner_shells(void **state)
{
        struct ramet_process *p = start("servant.elf", 1), *clone;
        struct ramet_frozen *f = until(p, RAMET_EVENT_FROZEN).frozen.frozen;

        assert_int_equal(ramet_spawner_shells(sp), 0);
        api_ok(ramet_process_prewarm(p, 1));
        assert_int_equal(ramet_spawner_shells(sp), 1);
        clone = clone_of(f, 1, 1);
        until(clone, RAMET_EVENT_READY);
        assert_int_equal(ramet_spawner_shells(sp), 0);
        ramet_frozen_release(f);
}

/* --- processes --- */

static void case_ramet_process_start(void **state)
{
        struct ramet_vm_options o = options();
        struct ramet_process *p = NULL;

        o.kernel_fd = 0;
        o.vcpus = 0;
        api_fails(ramet_process_start(sp, &o, &p), -EINVAL, "vcpus");
        assert_null(p);
        until(start("hang.elf", 0), RAMET_EVENT_STARTED);
}

static void case_ramet_process_clone(void **state)
{
        struct ramet_frozen *f = frozen();
        struct ramet_process *a = clone_of(f, 1, 2), *b = clone_of(f, 2, 2);

        assert_ptr_not_equal(until(NULL, RAMET_EVENT_READY).process,
                             until(NULL, RAMET_EVENT_READY).process);
        assert_int_not_equal(ramet_process_pid(a), ramet_process_pid(b));
        ramet_frozen_release(f);
}

static void case_ramet_process_fork(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        struct ramet_event e;

        until(p, RAMET_EVENT_STARTED);
        api_ok(ramet_process_fork(p, 3));
        e = until(p, RAMET_EVENT_FROZEN);
        assert_int_equal(e.frozen.count, 3);
        ramet_frozen_release(e.frozen.frozen);
}

static void case_ramet_process_pause(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);

        until(p, RAMET_EVENT_STARTED);
        api_ok(ramet_process_pause(p));
        until(p, RAMET_EVENT_PAUSED);
}

static void case_ramet_process_resume(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);

        until(p, RAMET_EVENT_STARTED);
        api_ok(ramet_process_pause(p));
        until(p, RAMET_EVENT_PAUSED);
        api_ok(ramet_process_resume(p));
        until(p, RAMET_EVENT_RESUMED);
}

static void case_ramet_process_reset(void **state)
{
        struct ramet_frozen *f = frozen();
        struct ramet_process *clone = clone_of(f, 1, 1);

        until(clone, RAMET_EVENT_READY);
        api_ok(ramet_process_reset(clone));
        assert_true(until(clone, RAMET_EVENT_RESET).reset.reset_ns > 0);
        ramet_frozen_release(f);
}

static void case_ramet_process_kill(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        struct ramet_event e;

        until(p, RAMET_EVENT_STARTED);
        api_ok(ramet_process_kill(p));
        e = until(p, RAMET_EVENT_EXIT);
        assert_int_equal(e.exit.reason, RAMET_EXIT_KILLED);
        assert_int_equal(e.exit.status, SIGKILL);
        until(p, RAMET_EVENT_GONE);
        api_ok(ramet_process_kill(p));
}

static void case_ramet_process_overlay(void **state)
{
        char image[] = "/tmp/ramet-test-image-XXXXXX", dir[] = "/tmp/ramet-test-overlay-XXXXXX";
        struct ramet_disk disk = {.size = sizeof disk, .fd = mkstemp(image), .path = image};
        struct ramet_vm_options o = options();
        struct ramet_process *p = NULL;
        const char *path;

        assert_true(disk.fd >= 0 && ftruncate(disk.fd, 1 << 20) == 0 && mkdtemp(dir));
        o.kernel_fd = open(api_guest("servant.elf"), O_RDONLY | O_CLOEXEC);
        o.fork_count = 1;
        o.fork_at_doorbell = true;
        o.disks = &disk;
        o.ndisks = 1;
        o.overlay_dir = dir;
        o.name = "one";
        api_ok(ramet_process_start(sp, &o, &p));
        close(o.kernel_fd);
        ramet_frozen_release(until(p, RAMET_EVENT_FROZEN).frozen.frozen);
        path = ramet_process_overlay(p, 0);
        assert_non_null(path);
        assert_non_null(strstr(path, "one.vda.1.overlay"));
        assert_null(ramet_process_overlay(p, 1));
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(dir) | unlink(image) | close(disk.fd), 0);
}

static void case_ramet_process_pid(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        pid_t pid;

        assert_int_equal(ramet_process_pid(p), 0);
        pid = until(p, RAMET_EVENT_LAUNCHED).launched.pid;
        assert_int_equal(ramet_process_pid(p), pid);
        assert_int_equal(kill(ramet_process_pid(p), 0), 0);
}

static void case_ramet_process_set_data(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        int mine;

        ramet_process_set_data(p, &mine);
        assert_ptr_equal(ramet_process_data(p), &mine);
}

static void case_ramet_process_data(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        int mine, other;

        assert_null(ramet_process_data(p));
        ramet_process_set_data(p, &other);
        ramet_process_set_data(p, &mine);
        assert_ptr_equal(ramet_process_data(p), &mine);
}

static void case_ramet_process_release(void **state)
{
        struct ramet_process *p = start("hang.elf", 0);
        pid_t pid = until(p, RAMET_EVENT_LAUNCHED).launched.pid;
        struct ramet_event e;

        ramet_process_release(p);
        for (unsigned i = 0; i < 1000 && kill(pid, 0) == 0; i++) {
                assert_int_equal(api_ok(ramet_spawner_next(sp, &e)), 0); /* nothing of it */
                usleep(10000);
        }
        assert_int_equal(kill(pid, 0), -1);
        ramet_process_release(NULL);
}

static void case_ramet_frozen_release(void **state)
{
        struct ramet_frozen *f = frozen();
        unsigned before = api_descriptors();

        ramet_frozen_release(f);
        assert_true(api_descriptors() <= before - 2); /* the state and a layer */
        ramet_frozen_release(NULL);
}

/* --- templates of machines in the program --- */

/* Three pages are written, and the next thing that it does is to exit with 7. */
static struct ramet_frozen *exported(void)
{
        struct ramet_vm *vm = api_ready(1);
        struct ramet_template *tmpl = NULL;
        struct ramet_frozen *f = NULL;

        api_do(vm, SERVANT_FILL, 0x1234, SERVANT_AREA, 3);
        api_order(vm, 0, SERVANT_EXIT, 7, 0, 0);
        api_ok(ramet_vm_freeze(vm, "filled", &tmpl));
        ramet_vm_destroy(vm);
        api_ok(ramet_template_export(tmpl, &f));
        assert_non_null(f);
        ramet_template_release(tmpl);
        return f;
}

static void case_ramet_template_export(void **state)
{
        struct ramet_frozen *f = exported();
        struct ramet_process *a = clone_of(f, 1, 2), *b = clone_of(f, 2, 2);
        struct ramet_event e;

        ramet_frozen_release(f);
        for (unsigned i = 0; i < 2; i++) {
                e = until(NULL, RAMET_EVENT_EXIT);
                assert_true(e.process == a || e.process == b);
                assert_int_equal(e.exit.reason, RAMET_EXIT_DEBUG);
                assert_int_equal(e.exit.status, 7 << 1 | 1);
        }
}

static void case_ramet_template_import(void **state)
{
        struct ramet_template_info info = {.size = sizeof info};
        struct ramet_frozen *f = frozen();
        struct ramet_template *tmpl = NULL;
        struct ramet_vm *vm;

        api_ok(ramet_template_import(api_ctx, f, "imported", &tmpl));
        ramet_frozen_release(f);
        assert_string_equal(ramet_template_name(tmpl), "imported");
        api_ok(ramet_template_info(tmpl, &info));
        assert_int_equal(info.memory_bytes, 16 << 20);
        assert_int_equal(info.vcpus, 1);
        assert_int_equal(info.layers, 1);
        assert_int_equal(info.generation, 1);
        vm = api_spawn(tmpl);
        ramet_template_release(tmpl);
        api_until(vm, RAMET_VM_DOORBELL);
        api_do(vm, SERVANT_FILL, 0x99, SERVANT_AREA, 1);
        assert_int_equal(api_word(vm, SERVANT_AREA), 0x99);
        api_ok(ramet_vm_reset(vm));
        assert_int_equal(api_word(vm, SERVANT_AREA), 0);
        ramet_vm_destroy(vm);
}

/* The template of a clone, a process that has not run, back in the program. */
static struct ramet_template *back(struct ramet_frozen *f)
{
        const struct ramet_clone_options o = {.size = sizeof o,
                                              .index = 1,
                                              .count = 1,
                                              .paused = true,
                                              .console_in_fd = -1,
                                              .console_out_fd = -1};
        struct ramet_template *tmpl = NULL;
        struct ramet_process *clone;
        struct ramet_event e;

        api_ok(ramet_process_clone(sp, f, &o, &clone));
        until(clone, RAMET_EVENT_READY);
        api_ok(ramet_process_fork(clone, 1));
        e = until(clone, RAMET_EVENT_FROZEN);
        ramet_process_release(clone);
        api_ok(ramet_template_import(api_ctx, e.frozen.frozen, "back", &tmpl));
        ramet_frozen_release(e.frozen.frozen);
        return tmpl;
}

static void a_template_goes_there_and_back(void **state)
{
        struct ramet_frozen *f = exported();
        struct ramet_template *tmpl = back(f);
        struct ramet_vm *vm = api_spawn(tmpl);

        for (unsigned page = 0; page < 3; page++)
                assert_int_equal(api_word(vm, SERVANT_AREA + page * 4096), 0x1234);
        assert_int_equal(api_until(vm, RAMET_VM_EXIT).exit.status, 7 << 1 | 1);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
        ramet_frozen_release(f);
}

/* The guest wrote to its disk before, and checks afterwards that all is there, and writes more. */
static void and_so_does_one_with_a_disk(void **state)
{
        struct ramet_disk disk = {.size = sizeof disk, .path = "my.image"};
        struct ramet_vm_config config = api_config();
        struct ramet_clone_options o = {.size = sizeof o, .index = 1, .count = 1};
        struct ramet_template *tmpl;
        struct ramet_frozen *f;
        struct ramet_process *p;
        char text[4096];
        struct ramet_vm *vm;
        int out[2], n;

        disk.fd = memfd_create("image", MFD_CLOEXEC);
        assert_true(disk.fd >= 0 && ftruncate(disk.fd, 1 << 20) == 0);
        config.kernel = api_guest("disk.elf");
        config.cmdline = "do=wfROWfvV";
        config.disks = &disk;
        config.ndisks = 1;
        vm = api_vm_of(&config);
        api_until(vm, RAMET_VM_DOORBELL);
        api_ok(ramet_vm_freeze(vm, "written", &tmpl));
        ramet_vm_destroy(vm);
        api_ok(ramet_template_export(tmpl, &f));
        ramet_template_release(tmpl);

        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        o.console_in_fd = -1;
        o.console_out_fd = out[1];
        api_ok(ramet_process_clone(sp, f, &o, &p));
        close(out[1]);
        until(p, RAMET_EVENT_EXIT);
        n = (int)read(out[0], text, sizeof text - 1);
        close(out[0]);
        text[n > 0 ? n : 0] = '\0';
        if (!strstr(text, "disk: done: 0 failed"))
                fail_msg("the process: %s", text);

        tmpl = back(f);
        ramet_frozen_release(f);
        vm = api_spawn(tmpl);
        ramet_template_release(tmpl);
        api_until(vm, RAMET_VM_EXIT);
        n = api_ok(ramet_vm_console_read(vm, text, sizeof text - 1));
        text[n] = '\0';
        if (!strstr(text, "disk: done: 0 failed"))
                fail_msg("the machine: %s", text);
        ramet_vm_destroy(vm);
        close(disk.fd);
}

#define CASE(name)                                                                                 \
        {                                                                                          \
#name, case_##name, setup, teardown, NULL                                          \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(ramet_spawner_create),
                CASE(ramet_spawner_destroy),
                CASE(ramet_spawner_execute),
                cmocka_unit_test_setup_teardown(a_spawner_that_is_none_is_lost, setup, teardown),
                CASE(ramet_spawner_fd),
                CASE(ramet_spawner_next),
                CASE(ramet_process_prewarm),
                CASE(ramet_spawner_shells),
                CASE(ramet_process_start),
                CASE(ramet_process_clone),
                CASE(ramet_process_fork),
                CASE(ramet_process_pause),
                CASE(ramet_process_resume),
                CASE(ramet_process_reset),
                CASE(ramet_process_kill),
                CASE(ramet_process_overlay),
                CASE(ramet_process_pid),
                CASE(ramet_process_set_data),
                CASE(ramet_process_data),
                CASE(ramet_process_release),
                CASE(ramet_frozen_release),
                CASE(ramet_template_export),
                CASE(ramet_template_import),
                cmocka_unit_test_setup_teardown(a_template_goes_there_and_back, setup, teardown),
                cmocka_unit_test_setup_teardown(and_so_does_one_with_a_disk, setup, teardown),
        };
        int ret = api_init();

        return ret <= 0 ? -ret : cmocka_run_group_tests_name("lib_process", tests, NULL, NULL);
}
