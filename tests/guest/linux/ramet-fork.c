/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramet-fork: the fork doorbell (docs/fork-abi.md) for shell scripts inside a guest.
 *
 *      ramet-fork              ring; print "fork: result R of N"; R is 0 in the parent
 *      ramet-fork --number     do not ring; print "R N", N being 0 before any fork
 *      ramet-fork --hello [K]  do not ring; say hello by number, K times, 1 s apart
 *
 * Exit status 0, or 1 with the reason on standard error. Every line of output is one write.
 */
#include "bare.h"

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

static int run(char **argv)
{
        unsigned times = 0;
        uint32_t result;

        program = "ramet-fork";
        if (!argv[0] || !argv[1]) {
                map_bell();
                result = ring();
                print("fork: result % of %\n", result, reg(RAMET_DOORBELL_COUNT));
        } else if (same(argv[1], "--number") && !argv[2]) {
                map_bell();
                result = reg(RAMET_DOORBELL_RESULT);
                print("% %\n", result < RAMET_DOORBELL_ERROR ? result : 0,
                      reg(RAMET_DOORBELL_COUNT));
        } else if (same(argv[1], "--hello")) {
                if (argv[2])
                        for (char *c = argv[2]; *c >= '0' && *c <= '9' && times < 100000; c++)
                                times = times * 10 + (unsigned)(*c - '0');
                map_bell();
                hello(argv[2] ? times : 1);
        } else {
                die("usage: ramet-fork [--number | --hello [TIMES]]");
        }
        return 0;
}
