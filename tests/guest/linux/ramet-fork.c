/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramet-fork: the fork doorbell (docs/fork-abi.md) for shell scripts inside a guest.
 *
 *      ramet-fork              ring; print "fork: result R of N"; R is 0 in the parent
 *      ramet-fork --number     do not ring; print "R N", N being 0 before any fork
 *      ramet-fork --hello [K]  do not ring; say hello by number, K times, 1 s apart
 *
 * Exit status 0, or 1 with the reason on standard error. It runs right after boot on machines
 * where starting a program is dear and where the C library could pick instructions that the
 * kernel has not enabled (AVX), so it has no C library: an entry point, five system calls, and
 * every line of output in one write.
 */
#include <stddef.h>
#include <stdint.h>

#include <ramet/fork_abi.h>

enum { SYS_WRITE = 1, SYS_OPEN = 2, SYS_MMAP = 9, SYS_NANOSLEEP = 35, SYS_EXIT = 60 };
enum { OPEN_RDWR_SYNC = 2 | 04010000, PROT_READ_WRITE = 3, SHARED = 1 };

static volatile uint32_t *bell;

static long call6(long nr, long a, long b, long c, long d, long e, long f)
{
        register long r10 __asm__("r10") = d;
        register long r8 __asm__("r8") = e;
        register long r9 __asm__("r9") = f;

        __asm__ volatile("syscall"
                         : "+a"(nr)
                         : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                         : "rcx", "r11", "memory");
        return nr;
}

static long call3(long nr, long a, long b, long c)
{
        return call6(nr, a, b, c, 0, 0, 0);
}

static void die(const char *why)
{
        size_t len = 0;

        while (why[len])
                len++;
        call3(SYS_WRITE, 2, (long)why, (long)len);
        call3(SYS_EXIT, 1, 0, 0);
        __builtin_unreachable();
}

/* In FORMAT each '%' stands for the next of the two numbers. */
static void print(const char *format, uint32_t first, uint32_t second)
{
        char line[96], digits[10];
        size_t len = 0, n;

        for (; *format; format++) {
                if (*format != '%') {
                        line[len++] = *format;
                        continue;
                }
                n = 0;
                do {
                        digits[n++] = (char)('0' + first % 10);
                        first /= 10;
                } while (first);
                while (n)
                        line[len++] = digits[--n];
                first = second;
        }
        call3(SYS_WRITE, 1, (long)line, (long)len);
}

static uint32_t reg(unsigned offset)
{
        return bell[offset / 4];
}

static void nap(long ms)
{
        long ts[2] = {ms / 1000, ms % 1000 * 1000000};

        call3(SYS_NANOSLEEP, (long)ts, 0, 0);
}

static void map(void)
{
        long fd = call3(SYS_OPEN, (long)"/dev/mem", OPEN_RDWR_SYNC, 0);
        long at;

        if (fd < 0)
                die("ramet-fork: cannot open /dev/mem\n");
        at = call6(SYS_MMAP, 0, 4096, PROT_READ_WRITE, SHARED, fd, RAMET_DOORBELL_MMIO);
        if (at < 0 && at > -4096)
                die("ramet-fork: cannot map the doorbell's page of /dev/mem\n");
        bell = (volatile uint32_t *)at;
        if (reg(RAMET_DOORBELL_MAGIC) != RAMET_DOORBELL_MAGIC_VALUE)
                die("ramet-fork: this machine has no fork doorbell\n");
        if (reg(RAMET_DOORBELL_VERSION) != RAMET_DOORBELL_VERSION_VALUE)
                die("ramet-fork: the fork doorbell is of another version\n");
}

static void ring(void)
{
        uint32_t result;

        bell[RAMET_DOORBELL_RING / 4] = 1;
        result = reg(RAMET_DOORBELL_RESULT);
        if (result == RAMET_DOORBELL_NOT_ARMED)
                die("ramet-fork: nobody asked for a fork (ramet run --fork N)\n");
        if (result >= RAMET_DOORBELL_ERROR)
                die("ramet-fork: the host could not fork this machine\n");
        print("fork: result % of %\n", result, reg(RAMET_DOORBELL_COUNT));
}

/*
 * A fork asked for by console text can come a little after the text, so a machine that is not
 * forked yet looks twice.
 */
static void hello(unsigned times)
{
        unsigned i;

        for (i = 0; i < times; i++) {
                if (i)
                        nap(1000);
                if (!reg(RAMET_DOORBELL_COUNT))
                        nap(200);
                if (reg(RAMET_DOORBELL_COUNT))
                        print("clone % of % says hello\n", reg(RAMET_DOORBELL_RESULT),
                              reg(RAMET_DOORBELL_COUNT));
                else
                        print("the only machine says hello, it has no clones\n", 0, 0);
        }
}

static int same(const char *a, const char *b)
{
        while (*a && *a == *b)
                a++, b++;
        return *a == *b;
}

/* The stack as the kernel leaves it: argc, then argv[] with a NULL at its end. */
__attribute__((used, noreturn)) static void start(char **stack)
{
        char **argv = stack + 1;
        unsigned times = 0;
        uint32_t result;

        if (!argv[0] || !argv[1]) {
                map();
                ring();
        } else if (same(argv[1], "--number") && !argv[2]) {
                map();
                result = reg(RAMET_DOORBELL_RESULT);
                print("% %\n", result < RAMET_DOORBELL_ERROR ? result : 0,
                      reg(RAMET_DOORBELL_COUNT));
        } else if (same(argv[1], "--hello")) {
                if (argv[2])
                        for (char *c = argv[2]; *c >= '0' && *c <= '9' && times < 100000; c++)
                                times = times * 10 + (unsigned)(*c - '0');
                map();
                hello(argv[2] ? times : 1);
        } else {
                die("usage: ramet-fork [--number | --hello [TIMES]]\n");
        }
        call3(SYS_EXIT, 0, 0, 0);
        __builtin_unreachable();
}

__asm__(".globl _start\n"
        "_start:\n"
        "        mov %rsp, %rdi\n"
        "        and $-16, %rsp\n"
        "        call start\n");
