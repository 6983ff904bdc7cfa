/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the harness prints, without a machine: text that is made visible, TAP, JUnit (read back by
 * another program in tests/integration), and backtraces over stacks that lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "harness/backtrace.h"
#include "harness/internal.h"

static void expect_text(struct text *t, const char *expected)
{
        assert_string_equal(text_str(t), expected);
        text_fini(t);
}

static void visible(const char *bytes, size_t len, const char *expected)
{
        struct text t = {0};

        text_visible(&t, bytes, len);
        expect_text(&t, expected);
}

#define VISIBLE(s, expected) visible((s), sizeof(s) - 1, (expected))

static void control_characters_are_made_visible(void **state)
{
        VISIBLE("plain", "plain");
        VISIBLE("a\tb\r\n", "a\\tb\\r\\n");
        VISIBLE("\x1b[31mred\0\x7f", "\\x1b[31mred\\x00\\x7f");
        VISIBLE("back\\slash", "back\\\\slash");
        VISIBLE("", "");
}

static void what_is_no_utf8_is_made_visible(void **state)
{
        VISIBLE("caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe2\x82\xac "
                                                             "\xf0\x9f\x98\x80");
        VISIBLE("\xc3", "\\xc3");                            /* cut off */
        VISIBLE("\xc0\xaf", "\\xc0\\xaf");                   /* too long a form */
        VISIBLE("\xed\xa0\x80", "\\xed\\xa0\\x80");          /* a surrogate */
        VISIBLE("\xef\xbf\xbf", "\\xef\\xbf\\xbf");          /* no character */
        VISIBLE("\xc2\x9b", "\\xc2\\x9b");                   /* C1: as ESC [ */
        VISIBLE("\xe2\x80\xae", "\\xe2\\x80\\xae");          /* right to left */
        VISIBLE("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
        VISIBLE("\xff\x80x", "\\xff\\x80x");
}

static void last_lines_are_few_and_short(void **state)
{
        struct text t = {0}, many = {0};

        text_last_lines(&t, "> ", "one\ntwo\r\nthree\n", 15, 2);
        expect_text(&t, "> two\n> three\n");
        text_last_lines(&t, "> ", "one", 3, 10);
        expect_text(&t, "> one\n");
        text_last_lines(&t, "> ", "\n\n", 2, 10);
        expect_text(&t, "");
        text_last_lines(&t, "> ", "a\n\nb", 4, 2);
        expect_text(&t, "> \n> b\n");
        for (int i = 0; i < 1000; i++)
                text_add(&many, "x");
        text_last_lines(&t, "", many.data, many.len, 1);
        assert_int_equal(t.len, 205);
        assert_non_null(strstr(t.data, " ...\n"));
        text_fini(&t);
        text_fini(&many);
}

static void text_grows_and_is_cut(void **state)
{
        struct text t = {0};
        char buf[4];

        text_cut(&t, buf, sizeof buf);
        assert_string_equal(buf, "");
        for (int i = 0; i < 1000; i++)
                text_add(&t, "%03d", i);
        assert_int_equal(t.len, 3000);
        text_cut(&t, buf, sizeof buf);
        assert_string_equal(buf, "000");
        text_drop(&t, 2997);
        assert_string_equal(text_str(&t), "999");
        text_drop(&t, 10);
        assert_string_equal(text_str(&t), "");
        text_fini(&t);
        text_drop(&t, 1);
        assert_string_equal(text_str(&t), "");
}

/* --- TAP --- */

static void expect_tap(const char *name, enum outcome_kind kind, const char *reason,
                       const char *expected)
{
        const struct ramet_case c = {.size = sizeof c, .name = name};
        struct outcome o = {.kind = kind, .ns = 800000, .counted = true, .dirty_pages = 112};
        struct text t = {0};

        text_add(&o.reason, "%s", reason);
        tap_result(&t, 1, &c, &o);
        outcome_fini(&o);
        expect_text(&t, expected);
}

static void results_are_tap(void **state)
{
        expect_tap("a", OUTCOME_PASSED, "", "ok 1 - a # 0.80 ms, 112 pages dirtied\n");
        expect_tap("a", OUTCOME_FAILED, "broken", "not ok 1 - a # broken\n");
        expect_tap("a", OUTCOME_SKIPPED, "no disk", "ok 1 - a # SKIP no disk\n");
        expect_tap("a#1\n\\", OUTCOME_PASSED, "",
                   "ok 1 - a\\#1\\n\\\\ # 0.80 ms, 112 pages dirtied\n");
}

static void a_failure_is_not_taken_for_a_directive(void **state)
{
        expect_tap("a", OUTCOME_FAILED, "skip list is broken",
                   "not ok 1 - a # failed: skip list is broken\n");
        expect_tap("a", OUTCOME_FAILED, "TODO", "not ok 1 - a # failed: TODO\n");
}

static void notes_and_reports_are_comments(void **state)
{
        const struct ramet_case c = {.size = sizeof c, .name = "a"};
        struct outcome o = {.kind = OUTCOME_FAILED};
        struct text t = {0};

        text_add(&o.reason, "why");
        text_add(&o.notes, "a note\n");
        text_add(&o.report, "registers:\n  rax 0\n");
        tap_result(&t, 7, &c, &o);
        outcome_fini(&o);
        expect_text(&t, "not ok 7 - a # why\n#   a note\n#   registers:\n#     rax 0\n");
}

static void times_have_units(void **state)
{
        struct text t = {0};

        tap_duration(&t, 12345);
        text_add(&t, ", ");
        tap_duration(&t, 1500000);
        text_add(&t, ", ");
        tap_duration(&t, 2 * RAMET_SECOND);
        text_add(&t, ", ");
        tap_duration(&t, 1234567890);
        expect_text(&t, "0.01 ms, 1.5 ms, 2 s, 1.23 s");
}

/* --- JUnit --- */

static void junit_is_escaped(void **state)
{
        struct result r[2] = {
                {.c = {.name = "a<b>&\"c\x01", .file = "x.c", .line = 3},
                 .outcome = {.kind = OUTCOME_FAILED}},
                {.c = {.name = "later"}, .outcome = {.kind = OUTCOME_SKIPPED}},
        };
        struct text t = {0};

        text_add(&r[0].outcome.reason, "x < y");
        text_add(&r[0].outcome.report, "a & b\n");
        text_bytes(&r[0].outcome.console, "]]>\x1b\xff\n\0", 7);
        text_add(&r[1].outcome.reason, "no disk");
        junit_write(&t, "suite", r, 2, 1500000000);
        for (int i = 0; i < 2; i++)
                outcome_fini(&r[i].outcome);
        expect_text(&t, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n"
                        "  <testsuite name=\"suite\" tests=\"2\" failures=\"1\" errors=\"0\""
                        " skipped=\"1\" time=\"1.500000\">\n"
                        "    <testcase name=\"a&lt;b&gt;&amp;&quot;c\\x01\" classname=\"suite\""
                        " file=\"x.c\" line=\"3\" time=\"0.000000\">\n"
                        "      <failure message=\"x &lt; y\">a &amp; b\n</failure>\n"
                        "      <system-out>]]&gt;\\x1b\\xff\n\\x00</system-out>\n"
                        "    </testcase>\n"
                        "    <testcase name=\"later\" classname=\"suite\" time=\"0.000000\">\n"
                        "      <skipped message=\"no disk\"/>\n"
                        "    </testcase>\n"
                        "  </testsuite>\n</testsuites>\n");
}

/* --- backtraces --- */

#define STACK 0x7000ull

static uint64_t stack[64];
static unsigned reads;

static int read_stack(void *arg, uint64_t gva, void *buf, size_t len)
{
        reads++;
        if (gva < STACK || gva - STACK > sizeof stack - len)
                return -1;
        memcpy(buf, (uint8_t *)stack + (gva - STACK), len);
        return 0;
}

static const struct frames frames = {.read = read_stack, .word = 8};

static unsigned walk(uint64_t frame, uint64_t *pcs, const char **why)
{
        reads = 0;
        return backtrace_walk(&frames, frame, pcs, BACKTRACE_MAX, why);
}

static void put_frame(unsigned at, uint64_t next, uint64_t pc)
{
        stack[at] = next;
        stack[at + 1] = pc;
}

static void frames_lead_to_callers(void **state)
{
        uint64_t pcs[BACKTRACE_MAX];
        const char *why = "";

        put_frame(2, STACK + 10 * 8, 0x111);
        put_frame(10, STACK + 4 * 8, 0x222); /* another stack may lie lower */
        put_frame(4, 0, 0x333);
        assert_int_equal(walk(STACK + 2 * 8, pcs, &why), 3);
        assert_int_equal(pcs[0], 0x111);
        assert_int_equal(pcs[1], 0x222);
        assert_int_equal(pcs[2], 0x333);
        assert_null(why);
        assert_int_equal(walk(0, pcs, &why), 0);
        assert_null(why);
}

static void loops_of_frames_end(void **state)
{
        uint64_t pcs[BACKTRACE_MAX];
        const char *why = NULL;

        put_frame(2, STACK + 4 * 8, 0x111);
        put_frame(4, STACK + 2 * 8, 0x222);
        assert_int_equal(walk(STACK + 2 * 8, pcs, &why), 2);
        assert_string_equal(why, "a loop of frames");
        put_frame(2, STACK + 2 * 8, 0x111);
        assert_int_equal(walk(STACK + 2 * 8, pcs, &why), 1);
        assert_string_equal(why, "a loop of frames");
}

static void many_frames_are_cut_off(void **state)
{
        uint64_t pcs[BACKTRACE_MAX + 1];
        const char *why = NULL;

        for (unsigned i = 0; i < 63; i++)
                put_frame(i, STACK + (i + 1) * 8, STACK + (i + 2) * 8);
        pcs[BACKTRACE_MAX] = 0x1234;
        assert_int_equal(backtrace_walk(&frames, STACK, pcs, 1000, &why), BACKTRACE_MAX);
        assert_string_equal(why, "more frames");
        assert_int_equal(pcs[BACKTRACE_MAX], 0x1234);
        assert_int_equal(backtrace_walk(&frames, STACK, pcs, 2, &why), 2);
}

static void stacks_that_lie_end(void **state)
{
        uint64_t pcs[BACKTRACE_MAX];
        const char *why = NULL;

        assert_int_equal(walk(STACK + 1, pcs, &why), 0);
        assert_string_equal(why, "a frame pointer that is not aligned");
        assert_int_equal(reads, 0);
        assert_int_equal(walk(0xffffffffffffff00ull, pcs, &why), 0);
        assert_string_equal(why, "a frame that cannot be read");
        put_frame(2, 0xdead0000, 0x111);
        assert_int_equal(walk(STACK + 2 * 8, pcs, &why), 1);
        put_frame(2, STACK + 4 * 8, 0);
        assert_int_equal(walk(STACK + 2 * 8, pcs, &why), 0);
}

static void frames_of_32_bit_code(void **state)
{
        const struct frames narrow = {.read = read_stack, .word = 4};
        uint32_t *words = (uint32_t *)stack;
        uint64_t pcs[BACKTRACE_MAX];

        words[1] = STACK + 12;
        words[2] = 0x111;
        words[3] = 0;
        words[4] = 0x222;
        assert_int_equal(backtrace_walk(&narrow, STACK + 4, pcs, BACKTRACE_MAX, NULL), 2);
        assert_int_equal(pcs[0], 0x111);
        assert_int_equal(pcs[1], 0x222);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(control_characters_are_made_visible),
                cmocka_unit_test(what_is_no_utf8_is_made_visible),
                cmocka_unit_test(last_lines_are_few_and_short),
                cmocka_unit_test(text_grows_and_is_cut),
                cmocka_unit_test(results_are_tap),
                cmocka_unit_test(a_failure_is_not_taken_for_a_directive),
                cmocka_unit_test(notes_and_reports_are_comments),
                cmocka_unit_test(times_have_units),
                cmocka_unit_test(junit_is_escaped),
                cmocka_unit_test(frames_lead_to_callers),
                cmocka_unit_test(loops_of_frames_end),
                cmocka_unit_test(many_frames_are_cut_off),
                cmocka_unit_test(stacks_that_lie_end),
                cmocka_unit_test(frames_of_32_bit_code),
        };

        return cmocka_run_group_tests_name("harness_text", tests, NULL, NULL);
}
