/* SPDX-License-Identifier: Apache-2.0 */
/* The demo's verdict: what a right machine prints passes, and every kind of wrong one does not. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cli/demo_verdict.h"
#include "examples/guest/demo/demo_pattern.h"

#define SEED 0x7f3a91c2
#define FILL 1 /* MiB */
#define OF   4

static struct demo_truth truth;

/* What machine @number prints when all is well, as the guest's own header computes it. */
static struct demo_report right(unsigned number)
{
        struct demo_hashes e = demo_expected(SEED, FILL, DEMO_EVERY, number);

        return (struct demo_report){true, number, OF, e.sees, e.own, e.rest};
}

static bool good(struct demo_report r, unsigned number)
{
        struct demo_verdict v = demo_judge(&truth, &r, number, OF);

        return v.sees_parent && v.own_writes && v.numbered;
}

static int setup(void **state)
{
        demo_truth_init(&truth, SEED, FILL);
        return 0;
}

static void right_machines_pass(void **state)
{
        for (unsigned number = 0; number <= OF; number++)
                assert_true(good(right(number), number));
}

static void wrong_machines_do_not(void **state)
{
        struct demo_report r = right(2);

        assert_false(good(r, 4)); /* the same pages, another's bytes */
        assert_false(good(r, 3));
        r.sees++;
        assert_false(good(r, 2));
        r = right(2);
        r.own++;
        assert_false(good(r, 2));
        r = right(2);
        r.rest++;
        assert_false(good(r, 2));
        r = right(2);
        r.of = 3;
        assert_false(good(r, 2));
        r = right(2);
        r.got = false;
        assert_false(good(r, 2));
}

static bool parses(const char *text, struct demo_report *r)
{
        return demo_parse_report(text, strlen(text), r);
}

static void reports(void **state)
{
        struct demo_report r = {0};
        char text[300];

        assert_true(parses("demo: number=3 of=4 sees=00000000000000ff own=0000000000000010 "
                           "rest=8000000000000000 self=ok",
                           &r));
        assert_true(r.got && r.number == 3 && r.of == 4);
        assert_true(r.sees == 0xff && r.own == 0x10 && r.rest == 1ull << 63);
        r.got = false;
        assert_false(parses("demo: filled 64 MiB with 2 vCPUs hash=00000000000000ff", &r));
        assert_false(parses("demo: number=none of=0 sees=ff own=10 rest=80 self=ok", &r));
        assert_false(parses("demo: number=3 of=4 sees=ff", &r));
        assert_false(parses("", &r));
        memset(text, 'x', sizeof text);
        assert_false(demo_parse_report(text, sizeof text, &r));
        assert_false(r.got);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(right_machines_pass),
                cmocka_unit_test(wrong_machines_do_not),
                cmocka_unit_test(reports),
        };

        return cmocka_run_group_tests_name("cli_demo", tests, setup, NULL);
}
