/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramet-work: what a test wants a guest to do, one command after the other in one program, since
 * starting a program is dear on some hosts.
 *
 *      mount DEVICE DIR        ext4
 *      umount DIR
 *      write FILE TAG BYTES    the pattern of TAG from the start of the file, and fsync
 *      check FILE TAG BYTES    read it back around the page cache (O_DIRECT) and compare
 *      speed FILE BYTES        read so, and say how long it took
 *      random FILE SKIP BYTES  leave out the first SKIP bytes, print the next ones in hex
 *      fork                    ring the doorbell; in a clone, wait until the kernel has handled the
 *                              change of VMGENID, and say when that was: microseconds since the
 *                              ring began, and since it was over for this program
 *      await N                 wait for a fork into N that somebody else asks for; the same
 *      churn FILE TAG N        write FILE.0, FILE.1, ... (64 KiB, fsync) until such a fork, and
 * then two more; say how many they are say WORD nap MS if ID COMMAND ...       the next command
 * only where the id is this one
 *
 * A machine's id is 0 until it was forked, then its number in that fork, then with another one
 * behind it: "2.1" is the first clone of the second. A % in an argument stands for the id. Each
 * line begins with "work ID ". The first failure ends it, with status 1.
 *
 * BYTES are a multiple of 4096. The pattern is 64-bit words, the n-th of them being splitmix64 of
 * the tag's FNV-1a hash at step n: test_linux_disk.py makes the same one.
 */
#include "bare.h"

enum {
        SYS_READ = 0,
        SYS_CLOSE = 3,
        SYS_LSEEK = 8,
        SYS_FSYNC = 74,
        SYS_MOUNT = 165,
        SYS_UMOUNT = 166,
        SYS_CLOCK_GETTIME = 228,
};
enum { RDONLY = 0, WRONLY = 1, RDWR = 2, CREAT = 0100, NONBLOCK = 04000, DIRECT = 040000 };
enum { AT_END = 2, MONOTONIC = 1, EAGAIN_ = 11, EPIPE_ = 32 };

#define BUFFER 65536u

static uint64_t buffer[BUFFER / 8] __attribute__((aligned(4096)));
static char id[64] = "0";
static int forks, no_vmgenid;
static char line[256];
static size_t at;

/* ---- output: one write a line ---- */

static void put(const char *text)
{
        while (*text && at < sizeof line - 1)
                line[at++] = *text++;
}

static void put_number(long number)
{
        char digits[24];
        size_t n = sizeof digits - 1;

        digits[n] = 0;
        if (number < 0) {
                put("-");
                number = -number;
        }
        do {
                digits[--n] = (char)('0' + number % 10);
                number /= 10;
        } while (number);
        put(digits + n);
}

static void begin(const char *what)
{
        at = 0;
        put("work ");
        put(id);
        put(" ");
        put(what);
}

static void end(void)
{
        line[at++] = '\n';
        call3(SYS_WRITE, 1, (long)line, (long)at);
}

__attribute__((noreturn)) static void fail(const char *what, const char *about, long error)
{
        begin("FAILED ");
        put(what);
        put(" ");
        put(about);
        put(": ");
        put_number(error);
        end();
        leave(1);
}

static long number_of(const char *text)
{
        long number = 0;

        while (*text >= '0' && *text <= '9')
                number = number * 10 + (*text++ - '0');
        return number;
}

static long now_us(void)
{
        long ts[2];

        call3(SYS_CLOCK_GETTIME, MONOTONIC, (long)ts, 0);
        return ts[0] * 1000000 + ts[1] / 1000;
}

/* ---- files ---- */

static long open_file(const char *path, long flags)
{
        long fd = call3(SYS_OPEN, (long)path, flags, 0644);

        if (fd < 0)
                fail("open", path, fd);
        return fd;
}

static uint64_t seed_of(const char *tag)
{
        uint64_t seed = 0xcbf29ce484222325u;

        while (*tag)
                seed = (seed ^ (uint8_t)*tag++) * 0x100000001b3u;
        return seed;
}

static uint64_t pattern(uint64_t seed, uint64_t n)
{
        uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
}

static void write_file(const char *path, const char *tag, long bytes)
{
        long fd = open_file(path, WRONLY | CREAT), n;
        uint64_t seed = seed_of(tag);

        for (long done = 0; done < bytes; done += n) {
                n = bytes - done < (long)BUFFER ? bytes - done : (long)BUFFER;
                for (long i = 0; i < n / 8; i++)
                        buffer[i] = pattern(seed, (uint64_t)(done / 8 + i));
                n = call3(SYS_WRITE, fd, (long)buffer, n);
                if (n <= 0 || n % 8)
                        fail("write", path, n);
        }
        n = call3(SYS_FSYNC, fd, 0, 0);
        if (n < 0)
                fail("fsync", path, n);
        call3(SYS_CLOSE, fd, 0, 0);
}

/* Read around the page cache; with a tag, compare. */
static void read_file(const char *path, const char *tag, long bytes)
{
        long fd = open_file(path, RDONLY | DIRECT), n;
        uint64_t seed = tag ? seed_of(tag) : 0;

        for (long done = 0; done < bytes; done += n) {
                n = bytes - done < (long)BUFFER ? bytes - done : (long)BUFFER;
                n = call3(SYS_READ, fd, (long)buffer, n);
                if (n <= 0 || n % 8)
                        fail("read", path, n);
                for (long i = 0; tag && i < n / 8; i++)
                        if (buffer[i] != pattern(seed, (uint64_t)(done / 8 + i)))
                                fail("check", path, done + i * 8);
        }
        call3(SYS_CLOSE, fd, 0, 0);
}

static void do_mount(char **arg)
{
        long ret = call6(SYS_MOUNT, (long)arg[0], (long)arg[1], (long)"ext4", 0, 0, 0);

        if (ret < 0)
                fail("mount", arg[0], ret);
        begin("mounted ");
        put(arg[0]);
        end();
}

static void do_umount(char **arg)
{
        long ret = call3(SYS_UMOUNT, (long)arg[0], 0, 0);

        if (ret < 0)
                fail("umount", arg[0], ret);
        begin("unmounted ");
        put(arg[0]);
        end();
}

static void do_write(char **arg)
{
        write_file(arg[0], arg[1], number_of(arg[2]));
        begin("wrote ");
        put(arg[0]);
        end();
}

static void do_check(char **arg)
{
        read_file(arg[0], arg[1], number_of(arg[2]));
        begin("checked ");
        put(arg[0]);
        end();
}

static void do_speed(char **arg)
{
        long start = now_us();

        read_file(arg[0], NULL, number_of(arg[1]));
        begin("read ");
        put(arg[0]);
        put(" us ");
        put_number(now_us() - start);
        end();
}

static void do_random(char **arg)
{
        static const char hex[] = "0123456789abcdef";
        long fd = open_file(arg[0], RDONLY), skip = number_of(arg[1]), bytes = number_of(arg[2]), n;
        uint8_t part[64];

        for (long done = 0; done < skip + bytes; done += n) {
                n = done < skip ? skip - done : skip + bytes - done;
                n = call3(SYS_READ, fd, (long)part, n < (long)sizeof part ? n : (long)sizeof part);
                if (n <= 0)
                        fail("read", arg[0], n);
                if (done < skip)
                        continue;
                begin("random ");
                put(arg[0]);
                put(" ");
                for (long i = 0; i < n; i++) {
                        char two[3] = {hex[part[i] >> 4], hex[part[i] & 15], 0};

                        put(two);
                }
                end();
        }
        call3(SYS_CLOSE, fd, 0, 0);
}

/* ---- forks ---- */

static long kmsg;

static long open_kmsg(void)
{
        kmsg = open_file("/dev/kmsg", RDWR | NONBLOCK);
        return call3(SYS_LSEEK, kmsg, 0, AT_END);
}

/* The time, in microseconds of the kernel's log, of its next message that has @text in it. */
static long logged(const char *text)
{
        char *record = (char *)buffer;
        long start = now_us(), n;

        while (now_us() - start < 30000000) {
                n = call3(SYS_READ, kmsg, (long)record, 4096);
                if (n == -EAGAIN_ || n == -EPIPE_) {
                        nap(10);
                        continue;
                }
                if (n < 0)
                        fail("read", "/dev/kmsg", n);
                record[n] = 0;
                for (long i = 0; i < n; i++) {
                        long j = 0;

                        while (text[j] && record[i + j] == text[j])
                                j++;
                        if (text[j])
                                continue;
                        for (i = j = 0; j < 2 && i < n; i++) /* level,number,time,... */
                                j += record[i] == ',';
                        return number_of(record + i);
                }
        }
        fail("wait", text, 0);
}

/* The kernel's log and CLOCK_MONOTONIC have clocks of the same rate: a message of ours tells how
 * far apart they are. */
static void say_when(long ring_us, long since_us)
{
        static const char mark[] = "<7>ramet-work was here\n";
        long handled = logged("crng reseeded due to virtual machine fork"), now = now_us();

        call3(SYS_WRITE, kmsg, (long)mark, sizeof mark - 1);
        handled += now - logged("ramet-work was here");
        begin("vmgenid us ");
        put_number(handled - ring_us);
        put(" ");
        put_number(handled - since_us);
        end();
}

/* A new id; true in a clone that is told by VMGENID. */
static int forked(long number)
{
        char *p = id + length(id);

        if (forks++ == 0)
                p = id;
        else
                *p++ = '.';
        if (number > 9)
                *p++ = (char)('0' + number / 10 % 10);
        *p++ = (char)('0' + number % 10);
        *p = 0;
        begin("forked ");
        put_number((long)reg(RAMET_DOORBELL_COUNT));
        end();
        return number > 0 && !no_vmgenid;
}

static void do_fork(char **arg)
{
        long number, before, since;

        map_bell();
        open_kmsg();
        before = now_us();
        number = ring();
        since = now_us();
        if (forked(number))
                say_when(before, since);
        call3(SYS_CLOSE, kmsg, 0, 0);
}

/* Has somebody else forked it into @count? The clock is only read then, a little late. */
static int look(long count)
{
        long since;

        if (reg(RAMET_DOORBELL_COUNT) != (uint32_t)count)
                return 0;
        since = now_us();
        if (forked(reg(RAMET_DOORBELL_RESULT)))
                say_when(since, since);
        return 1;
}

static void do_await(char **arg)
{
        map_bell();
        open_kmsg();
        begin("awaits");
        end();
        while (!look(number_of(arg[0])))
                nap(5);
        call3(SYS_CLOSE, kmsg, 0, 0);
}

static void do_churn(char **arg)
{
        char path[96];
        size_t len = length(arg[0]);
        long files = 0, after = 0;

        map_bell();
        open_kmsg();
        for (size_t i = 0; i < len && i < 80; i++)
                path[i] = arg[0][i];
        while (after < 2) {
                size_t at_end = len;

                path[at_end++] = '.';
                if (files > 9)
                        path[at_end++] = (char)('0' + files / 10 % 10);
                path[at_end++] = (char)('0' + files % 10);
                path[at_end] = 0;
                write_file(path, arg[1], BUFFER);
                if (files++ == 0) {
                        begin("churns");
                        end();
                }
                after += after || look(number_of(arg[2]));
        }
        call3(SYS_CLOSE, kmsg, 0, 0);
        begin("churned ");
        put_number(files);
        end();
}

static void do_no_vmgenid(char **arg)
{
        no_vmgenid = 1;
}

static void do_say(char **arg)
{
        begin(arg[0]);
        end();
}

static void do_nap(char **arg)
{
        nap(number_of(arg[0]));
}

/* ---- the command line ---- */

static const struct command {
        const char *name;
        int args;
        void (*fn)(char **arg);
} commands[] = {
        {"mount", 2, do_mount}, {"umount", 1, do_umount},         {"write", 3, do_write},
        {"check", 3, do_check}, {"speed", 2, do_speed},           {"random", 3, do_random},
        {"fork", 0, do_fork},   {"await", 1, do_await},           {"churn", 3, do_churn},
        {"say", 1, do_say},     {"no-vmgenid", 0, do_no_vmgenid}, {"nap", 1, do_nap},
};

static const struct command *command_of(const char *name)
{
        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
                if (same(commands[i].name, name))
                        return &commands[i];
        fail("command", name, 0);
}

/* Copy with each % replaced by the id. */
static void expand(const char *from, char *to, size_t size)
{
        size_t n = 0;

        for (; *from && n < size - 1; from++) {
                if (*from == '%')
                        for (const char *p = id; *p && n < size - 1; p++)
                                to[n++] = *p;
                else
                        to[n++] = *from;
        }
        to[n] = 0;
}

static int run(char **argv)
{
        static char texts[3][96];
        char *args[3] = {texts[0], texts[1], texts[2]};

        program = "ramet-work";
        for (argv++; *argv;) {
                const struct command *c;
                int wanted = 1;

                while (same(argv[0], "if") && argv[1] && argv[2]) {
                        wanted = wanted && same(argv[1], id);
                        argv += 2;
                }
                c = command_of(*argv++);
                for (int i = 0; i < c->args; i++) {
                        if (!*argv)
                                fail("arguments of", c->name, c->args);
                        expand(*argv++, texts[i], sizeof texts[i]);
                }
                if (wanted)
                        c->fn(args);
        }
        return 0;
}
