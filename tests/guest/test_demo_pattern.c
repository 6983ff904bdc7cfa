// SPDX-License-Identifier: Apache-2.0
/*
 * The host's side of the demo: demo_expected() against a plain re-enactment of what machines do
 * with their memory, and fixed values, so that guest and host cannot change together unnoticed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "examples/guest/demo/demo_pattern.h"

#define FILL  2u /* MiB */
#define PAGES (FILL * DEMO_PAGES_MIB)
#define WORDS (PAGES * DEMO_PAGE_WORDS)

static int tests, failures;

static void check(int ok, const char *what)
{
        tests++;
        failures += !ok;
        printf("%sok %d - %s\n", ok ? "" : "not ", tests, what);
}

/* Fill, become machine @number, write own pages, hash, as demo.c does it. */
static struct demo_hashes enact(uint64_t *area, uint64_t seed, uint64_t every, uint32_t number)
{
        struct demo_hashes h = {0, 0, 0};

        for (uint64_t i = 0; i < WORDS; i++)
                area[i] = demo_word(seed, i);
        for (uint64_t page = 0; page < PAGES; page++)
                h.sees += demo_hash_page(area + page * DEMO_PAGE_WORDS, page);
        for (uint64_t i = 0; i < WORDS; i++)
                if (demo_page_is_own(i / DEMO_PAGE_WORDS, number, every))
                        area[i] = demo_word(demo_own_seed(seed, number), i);
        for (uint64_t page = 0; page < PAGES; page++) {
                uint64_t hash = demo_hash_page(area + page * DEMO_PAGE_WORDS, page);

                if (demo_page_is_own(page, number, every))
                        h.own += hash;
                else
                        h.rest += hash;
        }
        return h;
}

static int same(struct demo_hashes a, struct demo_hashes b)
{
        return a.sees == b.sees && a.own == b.own && a.rest == b.rest;
}

int main(void)
{
        static const uint64_t every[] = {1, 2, 64, 100000};
        struct demo_hashes fixed = {0xa16364f1519fddbb, 0xc5815b4b6b05da4e, 0xc16367890439e332};
        uint64_t *area = calloc(WORDS, sizeof *area);
        struct demo_hashes h;

        if (!area)
                return 1;
        for (unsigned e = 0; e < sizeof every / sizeof *every; e++) {
                int ok = 1;

                for (uint32_t number = 0; number < 3; number++)
                        ok &= same(enact(area, 0x1234567890abcdefu, every[e], number),
                                   demo_expected(0x1234567890abcdefu, FILL, every[e], number));
                check(ok, "demo_expected() is what the machines do");
        }

        check(same(demo_expected(0xdeadbeef, 8, 64, 3), fixed),
              "fixed values (seed deadbeef, 8 MiB)");
        check(!same(demo_expected(1, 1, 64, 1), demo_expected(1, 1, 64, 2)), "numbers matter");
        check(!same(demo_expected(1, 1, 64, 1), demo_expected(2, 1, 64, 1)), "seeds matter");

        h = enact(area, 7, 64, 0);
        area[5] ^= 1;
        check(demo_hash_page(area, 0) != demo_hash_filled(demo_own_seed(7, 0), 0), "a bit matters");
        area[5] ^= 1;
        check(demo_hash_page(area, 1) != demo_hash_page(area, 0), "a page's place matters");
        check(h.sees == demo_expected(7, FILL, 64, 9).sees, "all machines see the same");
        free(area);
        printf("1..%d\n", tests);
        return failures != 0;
}
