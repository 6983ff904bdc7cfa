/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks in the launcher's process: which images are refused and how, how long they are locked, what
 * descriptors a machine gets, and which overlay files there are after what. Machines are fakes that
 * look at what they are given; a fork of theirs begins the overlays whose bit its count has.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "proc/launcher.h"

#define IMAGE_BYTES 4096

/* --- machines --- */

static void tell(int channel, enum message_type type, struct message_event m, const int *fds,
                 unsigned nfds)
{
        m.head.type = type;
        m.t_ns = clock_now_ns();
        if (message_send(channel, &m, sizeof m, fds, nfds, 0))
                _exit(1);
}

static int end(int channel, int status)
{
        tell(channel, MESSAGE_EXIT,
             (struct message_event){.exit = {.reason = RAMET_EXIT_DEBUG, .status = status}}, NULL,
             0);
        return 0;
}

static int mode(int fd)
{
        return fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK);
}

static bool same(int a, int b)
{
        struct stat s, t;

        return !fstat(a, &s) && !fstat(b, &t) && s.st_dev == t.st_dev && s.st_ino == t.st_ino;
}

/* A fork that was asked for: overlay number i is begun if bit i of the count is set. */
static void serve_fork(int channel, const struct message_command *c, const int *fds)
{
        struct message_event point = {
                .fork_point = {.cause = RAMET_FORK_REQUEST, .count = c->count}};
        int give[4] = {memfd_create("state", 0), memfd_create("layer", 0), memfd_create("f", 0),
                       memfd_create("g", 0)};

        for (unsigned i = 0, n = 0; i < 8; i++)
                if (c->overlays >> i & 1 && ftruncate(fds[2 * n++], c->count >> i & 1 ? 9999 : 0))
                        _exit(1);
        tell(channel, MESSAGE_FORK_POINT, point, NULL, 0);
        if (c->count == 256)
                tell(channel, MESSAGE_FORK_FAILED, (struct message_event){0}, NULL, 0);
        else
                tell(channel, MESSAGE_FROZEN,
                     (struct message_event){
                             .frozen = {.count = c->count, .nlayers = 1, .nfiles = 2}},
                     give, 4);
        for (unsigned i = 0; i < 4; i++)
                close(give[i]);
}

static union {
        struct message_head head;
        struct message_boot boot;
        struct message_clone clone;
        struct message_command command;
} first;

static _Noreturn void obey(int channel)
{
        struct message_fds fds;
        const char *why;

        while (message_receive(channel, MESSAGE_LAUNCHER_TO_MACHINE, &first, sizeof first, &fds, 0,
                               &why) > 0) {
                if (first.head.type == MESSAGE_FORK)
                        serve_fork(channel, &first.command, fds.fd);
                message_close_fds(&fds);
        }
        _exit(1);
}

/* Bits of what is not as it should be: a writable disk and a read-only one. */
static int look(const struct message_boot *b, const struct message_fds *fds)
{
        const int *fd = fds->fd + 1, armed = b->overlays ? 2 : 0;
        const struct message_disk *d = b->disks;
        char letter[2] = "";
        int bad = (b->shape.ndisks != 2) | (fds->n != (armed ? 7 : 5)) << 1;

        if (bad)
                return bad;
        bad |= (mode(fd[0]) != O_RDWR || mode(fd[1]) != O_RDONLY || !same(fd[0], fd[1])) << 2;
        fd += 2;
        bad |= (armed && (mode(fd[0]) != O_RDWR || mode(fd[1]) != O_RDONLY || !same(fd[0], fd[1])))
               << 3;
        fd += armed;
        bad |= (mode(fd[0]) != O_RDONLY || mode(fd[1]) != O_RDONLY || !same(fd[0], fd[1])) << 4;
        bad |= (strcmp(d[0].serial, "abc") || strcmp(d[0].name, "a.img") || d[0].iops_max != 7 ||
                d[0].bandwidth_max != 8 || d[0].readonly || !d[1].readonly || *d[1].serial ||
                strcmp(d[1].name, "disk"))
               << 5;
        bad |= (pread(fd[0], letter, 1, 0) != 1 || *letter != 'b') << 6;
        return bad;
}

static int machine(void *shared, int channel)
{
        struct message_fds fds;
        const char *why;

        if (message_receive(channel, MESSAGE_LAUNCHER_TO_MACHINE, &first, sizeof first, &fds, 0,
                            &why) <= 0)
                return 1;
        switch (first.head.type) {
        case MESSAGE_SHELL:
                tell(channel, MESSAGE_WARM, (struct message_event){0}, NULL, 0);
                pause();
                break;
        case MESSAGE_CLONE: /* the number says whether it becomes ready */
                if (first.clone.nfiles != 2)
                        return end(channel, 77);
                if (first.clone.index == 2)
                        return end(channel, 0);
                tell(channel, MESSAGE_READY, (struct message_event){0}, NULL, 0);
                obey(channel);
        case MESSAGE_BOOT:
                if (!strcmp(first.boot.kernel_name, "look"))
                        return end(channel, look(&first.boot, &fds));
                message_close_fds(&fds);
                tell(channel, MESSAGE_STARTED, (struct message_event){0}, NULL, 0);
                obey(channel);
        }
        return 1;
}

/* --- helpers --- */

static const struct spawner_ops ops = {.machine = machine};
static struct ramet_ctx *ctx;
static struct ramet_spawner *sp;
static char dir[] = "/tmp/ramet-test-disks-XXXXXX";
static int a, b; /* images */
static struct ramet_disk disk[9];

static int image(const char *name, char content)
{
        char path[64];
        int fd;

        snprintf(path, sizeof path, "%s/%s", dir, name);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0600);
        if (fd < 0 || write(fd, &content, 1) != 1 || ftruncate(fd, IMAGE_BYTES))
                return -1;
        return fd;
}

static int setup(void **state)
{
        strcpy(strrchr(dir, '-'), "-XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        a = image("a.img", 'a');
        b = image("b.img", 'b');
        for (unsigned i = 0; i < 9; i++)
                disk[i] = (struct ramet_disk){.size = sizeof disk[0], .fd = -1, .readonly = true};
        disk[0] = (struct ramet_disk){.size = sizeof disk[0],
                                      .fd = a,
                                      .path = "a.img",
                                      .serial = "abc",
                                      .iops_max = 7,
                                      .bandwidth_max = 8};
        disk[1].fd = b;
        return a < 0 || b < 0 || ramet_ctx_create(&ctx) || spawner_open(ctx, &ops, NULL, &sp);
}

static int teardown(void **state)
{
        char command[64];

        ramet_spawner_destroy(sp);
        ramet_ctx_destroy(ctx);
        close(a);
        close(b);
        snprintf(command, sizeof command, "rm -r %s", dir);
        return system(command);
}

static struct ramet_vm_options options(unsigned ndisks)
{
        return (struct ramet_vm_options){.size = sizeof(struct ramet_vm_options),
                                         .kernel_fd = b,
                                         .kernel_name = "obey",
                                         .initramfs_fd = -1,
                                         .memory_bytes = 1 << 20,
                                         .vcpus = 1,
                                         .console_in_fd = -1,
                                         .console_out_fd = -1,
                                         .disks = disk,
                                         .ndisks = ndisks,
                                         .name = "web"};
}

static struct ramet_event next(void)
{
        struct ramet_event e = {0};

        for (;;) {
                struct pollfd pfd = {.fd = ramet_spawner_fd(sp), .events = POLLIN};
                int ret = ramet_spawner_next(sp, &e);

                if (ret < 0)
                        fail_msg("%s", ramet_last_error(ctx));
                if (ret)
                        return e;
                if (poll(&pfd, 1, 10000) != 1)
                        fail_msg("no event came");
        }
}

static struct ramet_event wait_for(enum ramet_event_type type)
{
        struct ramet_event e;

        do
                e = next();
        while (e.type != type);
        return e;
}

static struct ramet_process *start(const struct ramet_vm_options *o)
{
        struct ramet_process *p;

        if (ramet_process_start(sp, o, &p))
                fail_msg("%s", ramet_last_error(ctx));
        wait_for(RAMET_EVENT_STARTED);
        return p;
}

static void finish(struct ramet_process *p)
{
        ramet_process_kill(p);
        wait_for(RAMET_EVENT_GONE);
        ramet_process_release(p);
}

static struct ramet_frozen *fork_it(struct ramet_process *p, unsigned count)
{
        if (ramet_process_fork(p, count))
                fail_msg("%s", ramet_last_error(ctx));
        return wait_for(RAMET_EVENT_FROZEN).frozen.frozen;
}

static struct ramet_process *clone_it(struct ramet_frozen *f, unsigned index, const char *name)
{
        struct ramet_clone_options o = {.size = sizeof o,
                                        .index = index,
                                        .count = 2,
                                        .console_in_fd = -1,
                                        .console_out_fd = -1,
                                        .name = name};
        struct ramet_process *p;

        if (ramet_process_clone(sp, f, &o, &p))
                fail_msg("%s", ramet_last_error(ctx));
        return p;
}

static void refuse(const struct ramet_vm_options *o, const char *says)
{
        struct ramet_process *p = NULL;

        assert_true(ramet_process_start(sp, o, &p) < 0);
        assert_null(p);
        assert_true(ramet_last_error_is_input(ctx));
        if (!strstr(ramet_last_error(ctx), says))
                fail_msg("\"%s\" does not say \"%s\"", ramet_last_error(ctx), says);
}

static unsigned open_fds(void)
{
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

/* The overlays that there are: their names, without ".overlay", in order and with blanks. */
static const char *overlays(void)
{
        static char all[512];
        struct dirent **names;
        int n = scandir(dir, &names, NULL, alphasort);

        *all = '\0';
        for (int i = 0; i < n; i++) {
                char *suffix = strstr(names[i]->d_name, ".overlay");

                if (suffix)
                        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%.*s",
                                 *all ? " " : "", (int)(suffix - names[i]->d_name),
                                 names[i]->d_name);
                free(names[i]);
        }
        free(names);
        return all;
}

static void expect_path(struct ramet_process *p, unsigned i, const char *name)
{
        const char *path = ramet_process_overlay(p, i);

        if (!name) {
                assert_null(path);
                return;
        }
        assert_non_null(path);
        assert_string_equal(strrchr(path, '/') + 1, name);
}

/* --- tests --- */

static void wrong_images_are_refused(void **state)
{
        struct ramet_vm_options o = options(1);
        unsigned before = open_fds();
        int fds[2], fd;

        disk[0].fd = 999;
        refuse(&o, "a.img: is not open");
        fd = disk[0].fd = open(dir, O_RDONLY);
        refuse(&o, "a.img: is a directory");
        close(fd);
        assert_int_equal(pipe(fds), 0);
        disk[0].fd = fds[0];
        refuse(&o, "neither a file nor a block device");
        close(fds[0]);
        close(fds[1]);
        fd = disk[0].fd = open(dir, O_PATH);
        refuse(&o, "is a directory");
        close(fd);
        disk[0].fd = a;
        assert_int_equal(ftruncate(a, 1000), 0);
        refuse(&o, "a.img: is 1000 bytes long, a multiple of 512 is expected");
        assert_int_equal(ftruncate(a, 0), 0);
        refuse(&o, "a.img: is 0 bytes long");
        assert_int_equal(ftruncate(a, IMAGE_BYTES), 0);
        disk[0].serial = "123456789012345678901";
        refuse(&o, "a.img: its serial is 21 bytes long, at most 20 fit");
        disk[0].serial = NULL;
        disk[0].path = NULL;
        fd = disk[0].fd = open("/proc/self/exe", O_RDONLY);
        refuse(&o, "disk: is open for reading only, which needs readonly=on");
        close(fd);
        disk[0].fd = a;
        o.ndisks = 9;
        refuse(&o, "disks: 9 given, at most 8 expected");
        o.ndisks = 1;
        disk[0].size = 8;
        refuse(&o, "disk options: size is 8");
        o.ndisks = 2;
        disk[0].size = sizeof disk[0];
        disk[1].size = sizeof disk[0] + 8;
        refuse(&o, "their sizes differ");
        disk[1].size = sizeof disk[0];
        disk[1].fd = a;
        disk[1].path = "A.img";
        refuse(&o, "A.img: the machine has this image twice");
        disk[0].readonly = true;
        disk[1].readonly = false;
        refuse(&o, "A.img: the machine has this image twice");
        assert_int_equal(open_fds(), before);
        disk[1].readonly = true;
        finish(start(&o));
        assert_int_equal(open_fds(), before);
}

static void images_are_locked_while_they_may_be_used(void **state)
{
        struct ramet_vm_options o = options(1), other = o;
        struct ramet_disk ro = disk[0];
        struct ramet_process *p, *c;
        struct ramet_frozen *f;

        ro.readonly = true;
        other.disks = &ro;
        p = start(&o);
        assert_int_equal(flock(a, LOCK_EX | LOCK_NB), -1); /* another description than ours */
        assert_int_equal(flock(a, LOCK_UN), 0);
        refuse(&o, "a.img: another machine is using it");
        refuse(&other, "a.img: another machine is using it");
        f = fork_it(p, 1);
        finish(p);
        refuse(&o, "another machine"); /* there is a template */
        c = clone_it(f, 1, NULL);
        wait_for(RAMET_EVENT_READY);
        ramet_frozen_release(f);
        refuse(&o, "another machine"); /* there is a clone */
        finish(c);
        p = start(&other);
        refuse(&o, "another machine");
        c = start(&other); /* both only read it */
        finish(p);
        refuse(&o, "another machine");
        finish(c);
        p = start(&o);
        ramet_process_kill(p);
        wait_for(RAMET_EVENT_GONE); /* it is gone, though nobody has released it yet */
        finish(start(&o));
        ramet_process_release(p);
}

static void machines_get_what_they_need(void **state)
{
        struct ramet_vm_options o = options(2);
        unsigned before = open_fds();
        struct ramet_process *p;

        o.kernel_name = "look";
        for (unsigned armed = 0; armed < 2; armed++) {
                o.overlay_dir = armed ? dir : NULL;
                o.fork_count = armed;
                o.fork_at_doorbell = true;
                assert_int_equal(ramet_process_start(sp, &o, &p), 0);
                assert_int_equal(wait_for(RAMET_EVENT_EXIT).exit.status, 0);
                wait_for(RAMET_EVENT_GONE);
                ramet_process_release(p);
                assert_string_equal(overlays(), ""); /* it was never used */
        }
        assert_int_equal(open_fds(), before);
}

static void overlays_come_and_go(void **state)
{
        struct ramet_vm_options o = options(2);
        struct ramet_process *p, *c, *stillborn;
        struct ramet_frozen *f;
        struct stat st;
        int big = image("c.img", 'c');

        disk[1].fd = big; /* a third one, so that the second is in the middle and read-only */
        disk[2] = (struct ramet_disk){.size = sizeof disk[2], .fd = b};
        o.ndisks = 3;
        o.overlay_dir = dir;
        p = start(&o);
        assert_string_equal(overlays(), ""); /* no fork is armed */
        expect_path(p, 0, NULL);
        f = fork_it(p, 1 << 0 | 1 << 2);
        assert_string_equal(overlays(), "web.vda.1 web.vdc.1");
        expect_path(p, 0, "web.vda.1.overlay");
        expect_path(p, 1, NULL);
        expect_path(p, 2, "web.vdc.1.overlay");
        expect_path(p, 99, NULL);
        assert_int_equal(stat(ramet_process_overlay(p, 0), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        ramet_frozen_release(f);

        f = fork_it(p, 1 << 2); /* the first disk has not been written since */
        assert_string_equal(overlays(), "web.vda.1 web.vdc.1 web.vdc.2");
        expect_path(p, 0, "web.vda.1.overlay");
        expect_path(p, 2, "web.vdc.2.overlay");

        c = clone_it(f, 1, "web.1");
        wait_for(RAMET_EVENT_READY);
        expect_path(c, 0, "web.1.vda.1.overlay");
        stillborn = clone_it(f, 2, "web.2");
        wait_for(RAMET_EVENT_GONE);
        ramet_process_release(stillborn);
        ramet_frozen_release(f);
        ramet_frozen_release(fork_it(c, 1)); /* of a clone */
        assert_string_equal(overlays(), "web.1.vda.1 web.1.vda.2 web.1.vdc.1 web.vda.1 web.vdc.1 "
                                        "web.vdc.2");
        expect_path(c, 0, "web.1.vda.2.overlay");
        expect_path(c, 2, "web.1.vdc.1.overlay");

        assert_int_equal(ramet_process_fork(p, 256), 0); /* begins nothing, and fails */
        wait_for(RAMET_EVENT_FORK_FAILED);
        finish(c);
        finish(p);
        assert_string_equal(overlays(), "web.1.vda.1 web.1.vda.2 web.1.vdc.1 web.vda.1 web.vdc.1 "
                                        "web.vdc.2");
        close(big);
}

static void a_file_in_the_way_is_named(void **state)
{
        struct ramet_vm_options o = options(1);
        struct ramet_clone_options co = {.size = sizeof co,
                                         .index = 1,
                                         .count = 1,
                                         .console_in_fd = -1,
                                         .console_out_fd = -1,
                                         .name = "web.1"};
        unsigned before = open_fds();
        struct ramet_process *p, *c;
        struct ramet_frozen *f;
        char path[64];
        int way;

        disk[1].readonly = false;
        o.ndisks = 2;
        o.overlay_dir = dir;
        o.fork_count = 1;
        o.fork_at_doorbell = true;
        way = image("web.vdb.1.overlay", 'x');
        refuse(&o, "web.vdb.1.overlay: File exists");
        assert_string_equal(overlays(), "web.vdb.1"); /* the first one is gone again */
        o.fork_count = 0;
        p = start(&o);
        assert_int_equal(ramet_process_fork(p, 1), -EEXIST);
        assert_non_null(strstr(ramet_last_error(ctx), "web.vdb.1.overlay: File exists"));
        assert_true(ramet_last_error_is_input(ctx));
        assert_string_equal(overlays(), "web.vdb.1");
        snprintf(path, sizeof path, "%s/web.vdb.1.overlay", dir);
        assert_int_equal(unlink(path), 0);
        close(way);
        way = image("web.1.vda.1.overlay", 'x');
        f = fork_it(p, 1);
        assert_int_equal(ramet_process_clone(sp, f, &co, &c), -EEXIST);
        assert_non_null(strstr(ramet_last_error(ctx), "web.1.vda.1.overlay: File exists"));
        ramet_frozen_release(f);
        finish(p);
        assert_string_equal(overlays(), "web.1.vda.1 web.vda.1");
        close(way);
        assert_int_equal(open_fds(), before);
}

static void overlay_names_are_checked(void **state)
{
        static const char *const bad[] = {NULL, "", "../x", "a/b", ".", ".."};
        struct ramet_vm_options o = options(1);

        o.overlay_dir = dir;
        for (unsigned i = 0; i < 6; i++) {
                o.name = bad[i];
                refuse(&o, "overlay files need the name of the machine");
        }
        o.name = "web";
        o.overlay_dir = "/nowhere";
        refuse(&o, "/nowhere: No such file or directory");
        o.overlay_dir = "/proc/version";
        refuse(&o, "/proc/version: is not a directory");
        o.ndisks = 0; /* not even looked at */
        finish(start(&o));
}

/* A shell of another shape is left alone. */
static void shells_fit_or_are_left(void **state)
{
        struct ramet_vm_options o = options(2);
        struct ramet_process *p, *c;
        struct ramet_frozen *f;
        struct message_shape like;

        p = start(&o);
        f = fork_it(p, 1);
        like = f->shape;
        assert_int_equal(ramet_process_prewarm(p, 1), 0);
        for (unsigned i = 0; i < 8; i++) {
                f->shape = like;
                ((uint32_t *)&f->shape)[2 + i]++;
                c = clone_it(f, 1, NULL);
                assert_int_equal(ramet_spawner_shells(sp), 1);
                wait_for(RAMET_EVENT_READY);
                finish(c);
        }
        f->shape = like;
        c = clone_it(f, 1, NULL);
        assert_int_equal(ramet_spawner_shells(sp), 0);
        ramet_process_release(c);
        ramet_frozen_release(f);
        finish(p);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(wrong_images_are_refused),    TEST(images_are_locked_while_they_may_be_used),
                TEST(machines_get_what_they_need), TEST(overlays_come_and_go),
                TEST(a_file_in_the_way_is_named),  TEST(overlay_names_are_checked),
                TEST(shells_fit_or_are_left),
        };

        return cmocka_run_group_tests_name("proc_disks", tests, NULL, NULL);
}
