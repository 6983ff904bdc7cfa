/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the test guest's own programs share. They have no C library: they run right after boot on
 * machines where starting a program is dear and where the C library could pick instructions that
 * the kernel has not enabled (AVX). So there is an entry point, system calls by number, and the
 * fork doorbell (docs/fork-abi.md). Include once; the program defines run().
 */
#ifndef RAMET_TESTS_LINUX_BARE_H
#define RAMET_TESTS_LINUX_BARE_H

#include <stddef.h>
#include <stdint.h>

#include <ramet/fork_abi.h>

enum { SYS_WRITE = 1, SYS_OPEN = 2, SYS_MMAP = 9, SYS_NANOSLEEP = 35, SYS_EXIT = 60 };
enum { OPEN_RDWR_SYNC = 2 | 04010000, PROT_READ_WRITE = 3, SHARED = 1 };

static volatile uint32_t *bell;
static const char *program; /* its name, for messages */

/* The program: argv[] ends with NULL, argv[0] may be NULL. Its result is the exit status. */
static int run(char **argv);

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

static inline long call3(long nr, long a, long b, long c)
{
        return call6(nr, a, b, c, 0, 0, 0);
}

static inline size_t length(const char *text)
{
        size_t len = 0;

        while (text[len])
                len++;
        return len;
}

static inline int same(const char *a, const char *b)
{
        while (*a && *a == *b)
                a++, b++;
        return *a == *b;
}

__attribute__((noreturn)) static inline void leave(int status)
{
        call3(SYS_EXIT, status, 0, 0);
        __builtin_unreachable();
}

/* "PROGRAM: WHY" in one write, and the end. */
__attribute__((noreturn)) static inline void die(const char *why)
{
        char line[160];
        size_t len = 0;

        for (const char *p = program; *p; p++)
                line[len++] = *p;
        line[len++] = ':';
        line[len++] = ' ';
        for (const char *p = why; *p && len < sizeof line - 1; p++)
                line[len++] = *p;
        line[len++] = '\n';
        call3(SYS_WRITE, 2, (long)line, (long)len);
        leave(1);
}

static inline void nap(long ms)
{
        long ts[2] = {ms / 1000, ms % 1000 * 1000000};

        call3(SYS_NANOSLEEP, (long)ts, 0, 0);
}

static inline uint32_t reg(unsigned offset)
{
        return bell[offset / 4];
}

static inline void map_bell(void)
{
        long fd, at;

        if (bell)
                return;
        fd = call3(SYS_OPEN, (long)"/dev/mem", OPEN_RDWR_SYNC, 0);
        if (fd < 0)
                die("cannot open /dev/mem");
        at = call6(SYS_MMAP, 0, 4096, PROT_READ_WRITE, SHARED, fd, RAMET_DOORBELL_MMIO);
        if (at < 0 && at > -4096)
                die("cannot map the doorbell's page of /dev/mem");
        bell = (volatile uint32_t *)at;
        if (reg(RAMET_DOORBELL_MAGIC) != RAMET_DOORBELL_MAGIC_VALUE)
                die("this machine has no fork doorbell");
        if (reg(RAMET_DOORBELL_VERSION) != RAMET_DOORBELL_VERSION_VALUE)
                die("the fork doorbell is of another version");
}

/* Fork. The number of this machine among its clones, 0 in the parent. */
static inline uint32_t ring(void)
{
        uint32_t result;

        bell[RAMET_DOORBELL_RING / 4] = 1;
        result = reg(RAMET_DOORBELL_RESULT);
        if (result == RAMET_DOORBELL_NOT_ARMED)
                die("nobody asked for a fork (ramet run --fork N)");
        if (result >= RAMET_DOORBELL_ERROR)
                die("the host could not fork this machine");
        return result;
}

/* The stack as the kernel leaves it: argc, then argv[] with a NULL at its end. */
__attribute__((used, noreturn)) static void start(char **stack)
{
        leave(run(stack + 1));
}

__asm__(".globl _start\n"
        "_start:\n"
        "        mov %rsp, %rdi\n"
        "        and $-16, %rsp\n"
        "        call start\n");

#endif
