/* SPDX-License-Identifier: Apache-2.0 */
/* Several machines on one terminal: whole lines, open lines, carriage returns; the escape key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "cli/escape.h"
#include "cli/lines.h"

static char shown[16384];
static struct line_mux mux;
static struct lines web, web1;

static void out(void *data, const char *text, size_t len)
{
        strncat(shown, text, len);
}

static void line(void *data, struct lines *l, const char *text, size_t len)
{
        sprintf(shown + strlen(shown), "<%s|%.*s>", l->prefix, (int)len, text);
}

static int setup(void **state)
{
        shown[0] = '\0';
        mux = (struct line_mux){.out = out};
        lines_init(&web, "web");
        lines_init(&web1, "web.1");
        return 0;
}

static bool push(struct lines *l, const char *text)
{
        return lines_push(&mux, l, text, strlen(text));
}

static void lines_have_prefixes(void **state)
{
        assert_false(push(&web, "one\ntwo\n"));
        assert_false(push(&web1, "three\n\n"));
        assert_string_equal(shown, "[web] one\n[web] two\n[web.1] three\n[web.1] \n");
}

static void pieces_are_joined(void **state)
{
        assert_true(push(&web, "hel"));
        assert_true(push(&web1, "wor"));
        assert_string_equal(shown, "");
        assert_false(push(&web1, "ld\n"));
        assert_false(push(&web, "lo\n"));
        assert_string_equal(shown, "[web.1] world\n[web] hello\n");
}

static void crlf_is_a_newline(void **state)
{
        push(&web, "a\r\nb\r");
        push(&web, "\nc\r\r\nd\n");
        assert_string_equal(shown, "[web] a\n[web] b\n[web] c\n[web] d\n");
}

static void carriage_return_keeps_the_prefix(void **state)
{
        push(&web, "10%\r20%\r\n");
        assert_string_equal(shown, "[web] 10%\r[web] 20%\n");
}

static void carriage_return_at_the_start_is_nothing(void **state)
{
        push(&web, "\rx\n");
        assert_string_equal(shown, "[web] x\n");
}

static void prompts_are_shown_and_go_on(void **state)
{
        assert_true(push(&web, "# "));
        lines_flush(&mux, &web);
        assert_string_equal(shown, "[web] # ");
        assert_false(push(&web, "l")); /* at once: the line is open */
        assert_string_equal(shown, "[web] # l");
        push(&web, "s\nfile\n");
        assert_string_equal(shown, "[web] # ls\n[web] file\n");
}

static void others_end_an_open_line(void **state)
{
        push(&web, "# ");
        lines_flush(&mux, &web);
        push(&web1, "hello\n");
        push(&web, "ls\n");
        assert_string_equal(shown, "[web] # \n[web.1] hello\n[web] ls\n");
}

static void messages_end_an_open_line(void **state)
{
        push(&web, "# ");
        lines_flush(&mux, &web);
        lines_break(&mux);
        lines_break(&mux);
        assert_string_equal(shown, "[web] # \n");
}

static void the_last_line_is_ended(void **state)
{
        push(&web, "half");
        lines_close(&mux, &web);
        assert_string_equal(shown, "[web] half\n");
        push(&web1, "prompt");
        lines_flush(&mux, &web1);
        lines_close(&mux, &web1);
        assert_string_equal(shown, "[web] half\n[web.1] prompt\n");
        lines_close(&mux, &web1);
        assert_string_equal(shown, "[web] half\n[web.1] prompt\n");
}

static void long_lines_come_in_pieces(void **state)
{
        char text[LINES_MAX + 100];

        memset(text, 'x', sizeof text);
        lines_push(&mux, &web, text, sizeof text);
        push(&web, "\n");
        assert_int_equal(strlen(shown), sizeof text + strlen("[web] \n"));
        assert_null(strstr(shown + 1, "[web]"));
}

static void alone_bytes_pass_unchanged(void **state)
{
        mux.raw = true;
        assert_false(push(&web, "a\r\n\033[1mb"));
        assert_string_equal(shown, "a\r\n\033[1mb");
        /* ... until it gets company in the middle of a line */
        mux.raw = false;
        push(&web1, "hello\n");
        push(&web, "c\n");
        assert_string_equal(shown, "a\r\n\033[1mb\n[web.1] hello\n[web] c\n");
}

static void lines_can_be_taken_instead(void **state)
{
        mux.line = line;
        push(&web, "a\r\nb");
        lines_flush(&mux, &web);
        assert_string_equal(shown, "<[web] |a>");
        lines_close(&mux, &web);
        assert_string_equal(shown, "<[web] |a><[web] |b>");
}

static void long_paths_fit(void **state)
{
        char path[300];

        memset(path, '1', sizeof path);
        path[sizeof path - 1] = '\0';
        lines_init(&web, path);
        push(&web, "x\n");
        assert_int_equal(strlen(shown), LINES_PREFIX_MAX - 1 + 2);
}

static void escape_keys(void **state)
{
        struct escape e = {0};

        assert_int_equal(escape_key(&e, 'x'), ESCAPE_PASS);
        assert_int_equal(escape_key(&e, ESCAPE_KEY), ESCAPE_NONE);
        assert_int_equal(escape_key(&e, 'x'), ESCAPE_QUIT);
        assert_int_equal(escape_key(&e, ESCAPE_KEY), ESCAPE_NONE);
        assert_int_equal(escape_key(&e, ESCAPE_KEY), ESCAPE_PASS);
        assert_int_equal(escape_key(&e, 'n'), ESCAPE_PASS);
        assert_int_equal(escape_key(&e, ESCAPE_KEY), ESCAPE_NONE);
        assert_int_equal(escape_key(&e, 'n'), ESCAPE_NEXT);
        assert_int_equal(escape_key(&e, ESCAPE_KEY), ESCAPE_NONE);
        assert_int_equal(escape_key(&e, 'q'), ESCAPE_NONE);
        assert_int_equal(escape_key(&e, 'q'), ESCAPE_PASS);
}

#define CASE(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(lines_have_prefixes),
                CASE(pieces_are_joined),
                CASE(crlf_is_a_newline),
                CASE(carriage_return_keeps_the_prefix),
                CASE(carriage_return_at_the_start_is_nothing),
                CASE(prompts_are_shown_and_go_on),
                CASE(others_end_an_open_line),
                CASE(messages_end_an_open_line),
                CASE(the_last_line_is_ended),
                CASE(long_lines_come_in_pieces),
                CASE(alone_bytes_pass_unchanged),
                CASE(lines_can_be_taken_instead),
                CASE(long_paths_fit),
                CASE(escape_keys),
        };

        return cmocka_run_group_tests_name("cli_lines", tests, NULL, NULL);
}
