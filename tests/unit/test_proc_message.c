/* SPDX-License-Identifier: Apache-2.0 */
/* The wire: what is sent arrives, what is hostile is refused, and no descriptor is left behind. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "proc/message.h"

static int a, b; /* a pair of sockets */

static int setup(void **state)
{
        int pair[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
                return -1;
        a = pair[0];
        b = pair[1];
        return 0;
}

static int teardown(void **state)
{
        close(a);
        close(b);
        return 0;
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

static struct message_event event(enum message_type type)
{
        return (struct message_event){
                .head = {.type = type,
                         .version = MESSAGE_VERSION,
                         .length = sizeof(struct message_event)},
        };
}

static const char *check(const struct message_event *m, unsigned nfds)
{
        return message_check(MESSAGE_MACHINE_TO_LAUNCHER, m, sizeof *m, nfds);
}

/* Send @length raw bytes with @nfds descriptors, and receive. */
static int pass(enum message_link link, const void *bytes, size_t length, unsigned nfds,
                struct message_fds *fds, const char **why)
{
        static struct message_boot room;
        union {
                struct cmsghdr align;
                char buf[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
        } control = {0};
        struct iovec iov = {.iov_base = (void *)bytes, .iov_len = length};
        struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

        if (nfds) {
                mh.msg_control = control.buf;
                mh.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);
                CMSG_FIRSTHDR(&mh)->cmsg_level = SOL_SOCKET;
                CMSG_FIRSTHDR(&mh)->cmsg_type = SCM_RIGHTS;
                CMSG_FIRSTHDR(&mh)->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
                for (unsigned i = 0; i < nfds; i++)
                        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)) + i * sizeof a, &a, sizeof a);
        }
        assert_int_equal(sendmsg(a, &mh, 0), length);
        *why = NULL;
        return message_receive(b, link, &room,
                               link == MESSAGE_MACHINE_TO_LAUNCHER ? sizeof(struct message_event)
                                                                   : sizeof room,
                               fds, MSG_DONTWAIT, why);
}

static void what_is_sent_arrives(void **state)
{
        struct message_event out = event(MESSAGE_FROZEN), in;
        struct message_fds fds;
        const char *why;
        int give[3] = {a, a, a};

        out.t_ns = 77;
        out.frozen.nlayers = 2;
        out.frozen.count = 5;
        assert_int_equal(message_send(a, &out, sizeof out, give, 3, 0), 0);
        assert_int_equal(
                message_receive(b, MESSAGE_MACHINE_TO_LAUNCHER, &in, sizeof in, &fds, 0, &why),
                sizeof in);
        assert_int_equal(fds.n, 3);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(fcntl(fds.fd[i], F_GETFD), FD_CLOEXEC);
        assert_int_equal(in.t_ns, 77);
        assert_int_equal(in.frozen.count, 5);
        message_close_fds(&fds);
        assert_int_equal(message_receive(b, MESSAGE_MACHINE_TO_LAUNCHER, &in, sizeof in, &fds,
                                         MSG_DONTWAIT, &why),
                         -EAGAIN);
}

static void a_command_line_may_be_long(void **state)
{
        struct message_boot *out = calloc(1, sizeof *out), *in = calloc(1, sizeof *in);
        size_t len = offsetof(struct message_boot, cmdline) + MESSAGE_CMDLINE_MAX;
        struct message_fds fds;
        const char *why;

        assert_non_null(out);
        assert_non_null(in);
        out->head.type = MESSAGE_BOOT;
        memset(out->cmdline, 'x', MESSAGE_CMDLINE_MAX - 1);
        assert_int_equal(message_send(a, out, len, &a, 1, MSG_DONTWAIT), 0);
        assert_int_equal(
                message_receive(b, MESSAGE_LAUNCHER_TO_MACHINE, in, sizeof *in, &fds, 0, &why),
                len);
        assert_string_equal(in->cmdline, out->cmdline);
        message_close_fds(&fds);
        free(out);
        free(in);
}

static void hostile_bytes_are_refused(void **state)
{
        struct message_event m = event(MESSAGE_NOTE);

        assert_null(check(&m, 0));
        assert_non_null(message_check(MESSAGE_MACHINE_TO_LAUNCHER, &m, 3, 0));
        assert_non_null(message_check(MESSAGE_MACHINE_TO_LAUNCHER, &m, sizeof m - 1, 0));
        assert_non_null(message_check(MESSAGE_LAUNCHER_TO_MACHINE, &m, sizeof m, 0));
        m.head.version++;
        assert_non_null(check(&m, 0));
        m = event(MESSAGE_NOTE);
        m.head.length--;
        assert_non_null(check(&m, 0));
        m = event(MESSAGE_NOTE);
        memset(m.text, 'x', sizeof m.text);
        assert_non_null(check(&m, 0));
        m = event(999);
        assert_non_null(check(&m, 0));
        m = event(MESSAGE_BOOT); /* the right type from the wrong side, and too short */
        assert_non_null(check(&m, 0));
}

static void fields_out_of_range_are_refused(void **state)
{
        struct message_event m = event(MESSAGE_EXIT);

        m.exit.reason = RAMET_EXIT_KILLED;
        assert_non_null(check(&m, 0));
        m.exit.reason = 0;
        assert_non_null(check(&m, 0));
        m.exit.reason = RAMET_EXIT_LIMIT + 1;
        assert_non_null(check(&m, 0));
        m.exit.reason = RAMET_EXIT_LIMIT;
        assert_null(check(&m, 0));
        m.exit.reason = RAMET_EXIT_CRASH;
        assert_null(check(&m, 0));
        m = event(MESSAGE_RUNNING);
        assert_non_null(check(&m, 0));
        m.running.how = 4;
        assert_non_null(check(&m, 0));
        m = event(MESSAGE_FORK_POINT);
        m.fork_point.cause = 4;
        assert_non_null(check(&m, 0));
}

/* What a launcher says is checked as well: the last engine there is, and the next. */
static void engines_out_of_range_are_refused(void **state)
{
        static struct message_boot boot = {.has = 0};
        struct message_clone clone = {.nlayers = 1};
        struct message_shell shell = {0};
        const size_t boot_length = offsetof(struct message_boot, cmdline) + 1;

        boot.head = (struct message_head){MESSAGE_BOOT, MESSAGE_VERSION, (uint32_t)boot_length, 1};
        clone.head = (struct message_head){MESSAGE_CLONE, MESSAGE_VERSION, sizeof clone, 2};
        shell.head = (struct message_head){MESSAGE_SHELL, MESSAGE_VERSION, sizeof shell, 0};
        for (unsigned cow = RAMET_COW_ROM; cow <= RAMET_COW_ROM + 1; cow++) {
                bool bad = cow > RAMET_COW_ROM;

                boot.shape.cow = clone.cow = shell.shape.cow = cow;
                assert_int_equal(
                        message_check(MESSAGE_LAUNCHER_TO_MACHINE, &boot, boot_length, 1) != NULL,
                        bad);
                assert_int_equal(
                        message_check(MESSAGE_LAUNCHER_TO_MACHINE, &clone, sizeof clone, 2) != NULL,
                        bad);
                assert_int_equal(
                        message_check(MESSAGE_LAUNCHER_TO_MACHINE, &shell, sizeof shell, 0) != NULL,
                        bad);
        }
}

static void descriptors_are_counted(void **state)
{
        struct message_event m = event(MESSAGE_FROZEN);

        m.head.nfds = 2;
        m.frozen.nlayers = 1;
        assert_null(check(&m, 2));
        m.frozen.nlayers = 2;
        assert_non_null(check(&m, 2));
        m.frozen.nlayers = UINT32_MAX; /* 1 + nlayers wraps to 0 */
        m.head.nfds = 0;
        assert_non_null(check(&m, 0));
        m.frozen.nlayers = 0;
        m.head.nfds = 1;
        assert_non_null(check(&m, 1));
        m = event(MESSAGE_FROZEN); /* all that there can be, and one more */
        m.frozen.nlayers = MESSAGE_LAYERS_MAX;
        m.frozen.nfiles = MESSAGE_FILES_MAX;
        m.head.nfds = 1 + MESSAGE_LAYERS_MAX + MESSAGE_FILES_MAX;
        assert_null(check(&m, m.head.nfds));
        m.frozen.nfiles++;
        m.head.nfds++;
        assert_non_null(check(&m, m.head.nfds));
        m.frozen.nfiles = UINT32_MAX; /* wraps to as many as there are */
        m.frozen.nlayers = 3;
        m.head.nfds = 3;
        assert_non_null(check(&m, 3));
        m = event(MESSAGE_NOTE);
        m.head.nfds = 1;
        assert_non_null(check(&m, 1));
}

/* Is the message, which is right with @nfds descriptors, refused with any other number? */
static void expect_exactly(struct message_head *m, size_t length, unsigned nfds)
{
        for (unsigned n = 0; n <= 40; n++) {
                m->nfds = n;
                assert_int_equal(message_check(MESSAGE_LAUNCHER_TO_MACHINE, m, length, n) == NULL,
                                 n == nfds);
        }
}

static void disks_and_overlays_are_counted(void **state)
{
        static struct message_boot boot;
        const size_t boot_length = offsetof(struct message_boot, cmdline) + 1;
        struct message_clone clone = {.nlayers = 1};
        struct message_command command = {.count = 1};

        boot.head = (struct message_head){MESSAGE_BOOT, MESSAGE_VERSION, (uint32_t)boot_length, 0};
        clone.head = (struct message_head){MESSAGE_CLONE, MESSAGE_VERSION, sizeof clone, 0};
        command.head = (struct message_head){MESSAGE_FORK, MESSAGE_VERSION, sizeof command, 0};

        boot.shape.ndisks = 3;
        expect_exactly(&boot.head, boot_length, 7);
        boot.overlays = 5;
        boot.has = MESSAGE_HAS_CONSOLE_IN;
        expect_exactly(&boot.head, boot_length, 12);
        boot.overlays = 8; /* of a disk that is not there */
        expect_exactly(&boot.head, boot_length, 999);
        boot.overlays = 0xff;
        boot.has = MESSAGE_HAS_ALL;
        boot.shape.ndisks = RAMET_DISKS_MAX;
        expect_exactly(&boot.head, boot_length, 4 + 32);
        boot.shape.ndisks++;
        expect_exactly(&boot.head, boot_length, 999);
        boot.shape.ndisks = UINT32_MAX;
        boot.overlays = UINT32_MAX;
        expect_exactly(&boot.head, boot_length, 999);

        clone.nfiles = 4;
        clone.overlays = 3;
        clone.has = MESSAGE_HAS_CONSOLE_OUT;
        expect_exactly(&clone.head, sizeof clone, 1 + 1 + 4 + 4 + 1);
        clone.overlays = 0x100;
        expect_exactly(&clone.head, sizeof clone, 999);
        clone.overlays = 0;
        clone.nlayers = 3;
        clone.nfiles = UINT32_MAX; /* wraps to as many as there are */
        expect_exactly(&clone.head, sizeof clone, 999);

        expect_exactly(&command.head, sizeof command, 0);
        command.overlays = 0x81;
        expect_exactly(&command.head, sizeof command, 4);
        command.overlays = 0x100;
        expect_exactly(&command.head, sizeof command, 999);
        command.overlays = 0;
        command.head.type = MESSAGE_PAUSE;
        expect_exactly(&command.head, sizeof command, 0);
}

static void hostile_shapes_and_disks_are_refused(void **state)
{
        static struct message_boot boot;
        const size_t length = offsetof(struct message_boot, cmdline) + 1;
        struct message_shell shell = {0};
        uint32_t *fields[] = {&shell.shape.rng, &shell.shape.virtio_console,
                              &shell.shape.virtio_cmdline};

        shell.head = (struct message_head){MESSAGE_SHELL, MESSAGE_VERSION, sizeof shell, 0};
        for (unsigned i = 0; i < 3; i++) {
                *fields[i] = 1;
                expect_exactly(&shell.head, sizeof shell, 0);
                *fields[i] = 2;
                expect_exactly(&shell.head, sizeof shell, 999);
                *fields[i] = 0;
        }
        shell.shape.ndisks = RAMET_DISKS_MAX;
        expect_exactly(&shell.head, sizeof shell, 0);
        shell.shape.ndisks++;
        expect_exactly(&shell.head, sizeof shell, 999);

        boot.head = (struct message_head){MESSAGE_BOOT, MESSAGE_VERSION, (uint32_t)length, 0};
        boot.shape.ndisks = 1;
        memset(boot.disks[0].serial, 's', RAMET_SERIAL_MAX);
        expect_exactly(&boot.head, length, 3);
        boot.disks[0].serial[RAMET_SERIAL_MAX] = 's'; /* it ends, and is too long */
        expect_exactly(&boot.head, length, 999);
        boot.disks[0].serial[0] = 0;
        memset(boot.disks[0].name, 'n', sizeof boot.disks[0].name);
        expect_exactly(&boot.head, length, 999);
        boot.disks[0].name[0] = 0;
        boot.disks[0].readonly = 1;
        expect_exactly(&boot.head, length, 3);
        boot.overlays = 1; /* for one that is never written */
        expect_exactly(&boot.head, length, 999);
        boot.overlays = 0;
        boot.disks[0].readonly = 2;
        expect_exactly(&boot.head, length, 999);
}

static void refused_messages_leave_no_descriptor(void **state)
{
        static char junk[sizeof(struct message_event) + 100];
        struct message_event m = event(MESSAGE_NOTE);
        struct message_fds fds;
        unsigned before = open_fds();
        const char *why;

        for (unsigned nfds = 1; nfds <= MESSAGE_FDS_MAX; nfds += 84) {
                m.head.nfds = nfds;
                assert_int_equal(pass(MESSAGE_MACHINE_TO_LAUNCHER, &m, sizeof m, nfds, &fds, &why),
                                 -EBADMSG);
                assert_non_null(why);
                assert_int_equal(fds.n, 0);
                assert_int_equal(
                        pass(MESSAGE_MACHINE_TO_LAUNCHER, junk, sizeof junk, nfds, &fds, &why),
                        -EBADMSG);
        }
        assert_int_equal(pass(MESSAGE_MACHINE_TO_LAUNCHER, "x", 1, 1, &fds, &why), -EBADMSG);
        assert_int_equal(open_fds(), before);
}

/* Random bytes behind a right head: whatever passes must hold what the check promises. */
static void noise_never_gets_through_broken(void **state)
{
        unsigned seed = 1;

        for (unsigned round = 0; round < 200000; round++) {
                struct message_event m;

                for (size_t i = 0; i < sizeof m; i++)
                        ((unsigned char *)&m)[i] = (unsigned char)(rand_r(&seed) % 7);
                m.head = (struct message_head){.type = MESSAGE_STARTED + round % 12,
                                               .version = MESSAGE_VERSION,
                                               .length = sizeof m,
                                               .nfds = (uint32_t)rand_r(&seed) % 4};
                if (check(&m, m.head.nfds))
                        continue;
                assert_non_null(memchr(m.text, 0, sizeof m.text));
                if (m.head.type == MESSAGE_FROZEN)
                        assert_int_equal(1 + m.frozen.nlayers + m.frozen.nfiles, m.head.nfds);
                else
                        assert_int_equal(m.head.nfds, 0);
        }
}

/* The peer dies with unread messages in its queue; what it had said is still read. */
static void last_words_survive_a_reset(void **state)
{
        struct message_event m = event(MESSAGE_NOTE), in;
        struct message_command c = {.head.type = MESSAGE_PAUSE};
        struct message_fds fds;
        const char *why;

        assert_int_equal(message_send(b, &c, sizeof c, NULL, 0, 0), 0);
        assert_int_equal(message_send(a, &m, sizeof m, NULL, 0, 0), 0);
        close(a);
        a = -1;
        assert_int_equal(message_receive(b, MESSAGE_MACHINE_TO_LAUNCHER, &in, sizeof in, &fds,
                                         MSG_DONTWAIT, &why),
                         sizeof in);
        assert_int_equal(message_receive(b, MESSAGE_MACHINE_TO_LAUNCHER, &in, sizeof in, &fds,
                                         MSG_DONTWAIT, &why),
                         0);
        assert_int_equal(message_send(b, &c, sizeof c, NULL, 0, 0), -EPIPE);
}

static void no_room_for_descriptors_is_told_apart(void **state)
{
        struct message_event m = event(MESSAGE_FROZEN), in;
        struct rlimit old, few;
        struct message_fds fds;
        const char *why;
        int give[3] = {a, a, a}, next = dup(a);

        close(next);
        m.frozen.nlayers = 2;
        assert_int_equal(message_send(a, &m, sizeof m, give, 3, 0), 0);
        getrlimit(RLIMIT_NOFILE, &old);
        few = (struct rlimit){.rlim_cur = (rlim_t)next + 1, .rlim_max = old.rlim_max};
        setrlimit(RLIMIT_NOFILE, &few);
        int ret = message_receive(b, MESSAGE_MACHINE_TO_LAUNCHER, &in, sizeof in, &fds, 0, &why);
        setrlimit(RLIMIT_NOFILE, &old);
        assert_int_equal(ret, -EMFILE);
        assert_int_equal(fds.n, 0);
        assert_int_equal(in.head.type, MESSAGE_FROZEN);
        assert_int_equal(fcntl(next, F_GETFD), -1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(what_is_sent_arrives),
                TEST(a_command_line_may_be_long),
                TEST(hostile_bytes_are_refused),
                TEST(fields_out_of_range_are_refused),
                TEST(engines_out_of_range_are_refused),
                TEST(descriptors_are_counted),
                TEST(disks_and_overlays_are_counted),
                TEST(hostile_shapes_and_disks_are_refused),
                TEST(refused_messages_leave_no_descriptor),
                TEST(noise_never_gets_through_broken),
                TEST(last_words_survive_a_reset),
                TEST(no_room_for_descriptors_is_told_apart),
        };

        return cmocka_run_group_tests_name("proc_message", tests, NULL, NULL);
}
