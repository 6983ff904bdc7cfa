/* SPDX-License-Identifier: Apache-2.0 */
/* Values as people write them: what is taken, what is refused, and in which words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cli/human.h"
#include "cli/parse.h"
#include "cli/table.h"

#define MIB 1048576ull

static void sizes(void **state)
{
        static const struct {
                const char *text;
                uint64_t bytes;
        } good[] = {
                {"1M", MIB},          {"256M", 256 * MIB},  {"256m", 256 * MIB},
                {"4GiB", 4096 * MIB}, {"1048576", MIB},     {"1048576B", MIB},
                {"1T", 1ull << 40},   {"2048KiB", 2 * MIB}, {"1028K", MIB + 4096},
        };
        uint64_t n;

        for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
                assert_int_equal(parse_size(good[i].text, MIB, 1ull << 40, &n, NULL), 0);
                assert_int_equal(n, good[i].bytes);
        }
}

static void sizes_refused(void **state)
{
        static const struct {
                const char *text, *says;
        } bad[] = {
                {"1K", "expected at least 1 MiB"},
                {"0", "expected at least 1 MiB"},
                {"2T", "expected at most 1 TiB"},
                {"99999999999999999999", "expected at most 1 TiB"},
                {"17592186044416M", "expected at most 1 TiB"}, /* 2^64 bytes: wraps to 0 */
                {"1048577", "expected a multiple of 4 KiB"},
                {"", "expected a size"},
                {"M", "expected a size"},
                {"-1M", "expected a size"},
                {" 1M", "expected a size"},
                {"1 M", "expected a size"},
                {"1MB", "expected a size"},
                {"1.5G", "expected a size"},
                {"1Mi", "expected a size"},
                {"0x100000", "expected a size"},
        };
        uint64_t n = 7;
        struct err err;

        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                assert_int_equal(parse_size(bad[i].text, MIB, 1ull << 40, &n, &err), -EINVAL);
                assert_non_null(strstr(err.text, bad[i].says));
                assert_int_equal(err.class, ERR_INPUT);
                assert_int_equal(n, 7);
        }
}

static void numbers(void **state)
{
        static const char *const bad[] = {"",   "0",  "65", "-1", "+1",   " 1",
                                          "1 ", "1x", "0x", "1.", "0x1g", "18446744073709551617"};
        uint64_t n;

        assert_int_equal(parse_number("64", 1, 64, &n, NULL), 0);
        assert_int_equal(n, 64);
        assert_int_equal(parse_number("0xf4", 1, 0xffff, &n, NULL), 0);
        assert_int_equal(n, 0xf4);
        assert_int_equal(parse_number("010", 1, 64, &n, NULL), 0);
        assert_int_equal(n, 10);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
                assert_int_equal(parse_number(bad[i], 1, 64, &n, NULL), -EINVAL);
}

static void seconds(void **state)
{
        static const char *const bad[] = {"",   "0",   "0.0", ".5",           "5.",
                                          "-1", "1e3", "1s",  "1.0000000001", "99999999999"};
        uint64_t ns;

        assert_int_equal(parse_seconds("5", &ns, NULL), 0);
        assert_int_equal(ns, 5000000000);
        assert_int_equal(parse_seconds("0.25", &ns, NULL), 0);
        assert_int_equal(ns, 250000000);
        assert_int_equal(parse_seconds("1.000000001", &ns, NULL), 0);
        assert_int_equal(ns, 1000000001);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
                assert_int_equal(parse_seconds(bad[i], &ns, NULL), -EINVAL);
}

static void names_and_paths(void **state)
{
        char longest[65];

        memset(longest, 'a', sizeof longest);
        longest[63] = '\0';
        assert_int_equal(parse_name("web_1-A", NULL), 0);
        assert_int_equal(parse_name(longest, NULL), 0);
        longest[63] = 'a';
        longest[64] = '\0';
        assert_int_equal(parse_name(longest, NULL), -EINVAL);
        assert_int_equal(parse_name("", NULL), -EINVAL);
        assert_int_equal(parse_name("web.1", NULL), -EINVAL);
        assert_int_equal(parse_name("../web", NULL), -EINVAL);
        assert_int_equal(parse_name("w\xc3\xa9"
                                    "b",
                                    NULL),
                         -EINVAL);
        assert_int_equal(parse_path("web", NULL), 0);
        assert_int_equal(parse_path("web.2.10", NULL), 0);
        assert_int_equal(parse_path("web.", NULL), -EINVAL);
        assert_int_equal(parse_path("web.02", NULL), -EINVAL);
        assert_int_equal(parse_path("web.x", NULL), -EINVAL);
        assert_int_equal(parse_path(".2", NULL), -EINVAL);
        assert_int_equal(parse_path("web/../a", NULL), -EINVAL);
}

static void fork_points(void **state)
{
        static const char *const bad[] = {"",      "guests",  "console",  "console=", "after=",
                                          "after", "after=x", "signal=9", "Guest"};
        struct fork_at at;

        assert_int_equal(parse_fork_at("guest", &at, NULL), 0);
        assert_int_equal(at.trigger, FORK_AT_GUEST);
        assert_int_equal(parse_fork_at("console=ready, set=go", &at, NULL), 0);
        assert_int_equal(at.trigger, FORK_AT_CONSOLE);
        assert_string_equal(at.text, "ready, set=go");
        assert_int_equal(parse_fork_at("after=0.5", &at, NULL), 0);
        assert_int_equal(at.trigger, FORK_AT_AFTER);
        assert_int_equal(at.after_ns, 500000000);
        assert_int_equal(parse_fork_at("signal", &at, NULL), 0);
        assert_int_equal(at.trigger, FORK_AT_SIGNAL);
        assert_string_equal(at.as_given, "signal");
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
                assert_int_equal(parse_fork_at(bad[i], &at, NULL), -EINVAL);
}

static void consoles(void **state)
{
        struct console_spec spec;

        assert_int_equal(parse_console("stdio", &spec, NULL), 0);
        assert_int_equal(spec.kind, CONSOLE_STDIO);
        assert_int_equal(parse_console("off", &spec, NULL), 0);
        assert_int_equal(spec.kind, CONSOLE_OFF);
        assert_int_equal(parse_console("file=run-%c.log", &spec, NULL), 0);
        assert_int_equal(spec.kind, CONSOLE_FILE);
        assert_true(spec.per_machine);
        assert_int_equal(parse_console("file=100%%.log", &spec, NULL), 0);
        assert_false(spec.per_machine);
        assert_int_equal(parse_console("file=%%c", &spec, NULL), 0);
        assert_false(spec.per_machine);
        assert_int_equal(parse_console("file=%d", &spec, NULL), -EINVAL);
        assert_int_equal(parse_console("file=x%", &spec, NULL), -EINVAL);
        assert_int_equal(parse_console("file=", &spec, NULL), -EINVAL);
        assert_int_equal(parse_console("stdout", &spec, NULL), -EINVAL);
        assert_false(spec.virtio);
        assert_int_equal(parse_console("virtio", &spec, NULL), 0);
        assert_true(spec.virtio && spec.kind == CONSOLE_STDIO);
        assert_int_equal(parse_console("virtio:file=run-%c.log", &spec, NULL), 0);
        assert_true(spec.virtio && spec.kind == CONSOLE_FILE && spec.per_machine);
        assert_string_equal(spec.pattern, "run-%c.log");
        assert_int_equal(parse_console("virtio:off", &spec, NULL), 0);
        assert_true(spec.virtio && spec.kind == CONSOLE_OFF);
        assert_int_equal(parse_console("virtio:virtio", &spec, NULL), -EINVAL);
        assert_int_equal(parse_console("virtio:", &spec, NULL), -EINVAL);
        assert_int_equal(parse_console("virtual", &spec, NULL), -EINVAL);
}

static void flat_binaries(void **state)
{
        struct flat_spec flat;

        assert_int_equal(parse_flat("0x7c00,16", &flat, NULL), 0);
        assert_true(flat.set);
        assert_int_equal(flat.address, 0x7c00);
        assert_int_equal(flat.bits, 16);
        assert_int_equal(parse_flat("1048576", &flat, NULL), 0);
        assert_int_equal(flat.bits, 64);
        assert_int_equal(parse_flat("0x1000,24", &flat, NULL), -EINVAL);
        assert_int_equal(parse_flat(",16", &flat, NULL), -EINVAL);
        assert_int_equal(parse_flat("0x1000,", &flat, NULL), -EINVAL);
        assert_int_equal(parse_flat("0x1000,16,32", &flat, NULL), -EINVAL);
}

static void choices(void **state)
{
        static const char *const list[] = {"on", "log", "off", NULL};
        struct err err;
        unsigned n;

        assert_int_equal(parse_choice("log", list, &n, NULL), 0);
        assert_int_equal(n, 1);
        assert_int_equal(parse_choice("yes", list, &n, &err), -EINVAL);
        assert_string_equal(err.text, "expected on, log or off");
}

static void figures(void **state)
{
        char b[HUMAN_MAX];

        assert_string_equal(human_time(b, 310000), "0.31 ms");
        assert_string_equal(human_time(b, 41200000), "41.2 ms");
        assert_string_equal(human_time(b, 412000000), "412 ms");
        assert_string_equal(human_time(b, 1250000000), "1.25 s");
        assert_string_equal(human_bytes(b, 120 * MIB), "120.0 MiB");
        assert_string_equal(human_bytes(b, 819200), "0.8 MiB");
        assert_string_equal(human_bytes(b, 8192), "8 KiB");
        assert_string_equal(human_bytes(b, 0), "0.0 MiB");
        assert_string_equal(human_size(b, 128 * MIB), "128 MiB");
        assert_string_equal(human_size(b, 1ull << 40), "1 TiB");
        assert_string_equal(human_size(b, 1028 * 1024), "1028 KiB");
        assert_string_equal(human_uptime(b, 7500ull * 1000000000), "2 h 05 min");
}

/* What table_print() writes for two rows, the second with a style. */
static void print_small_table(char *out, size_t size, bool colour)
{
        FILE *f = fmemopen(out, size, "w");
        struct table t;

        table_init(&t, 2);
        table_cell(&t, TABLE_PLAIN, "clone");
        table_cell(&t, TABLE_PLAIN, "status");
        table_cell(&t, TABLE_PLAIN, "web.1");
        table_cell(&t, TABLE_BAD, "%d (crash)", 6);
        table_cell(&t, TABLE_PLAIN, "longer.10");
        table_cell(&t, TABLE_PLAIN, "0");
        table_print(&t, f, colour);
        fclose(f);
        table_fini(&t);
}

static void tables(void **state)
{
        char out[512];

        print_small_table(out, sizeof out, false);
        assert_string_equal(out, "clone       status\n"
                                 "web.1       6 (crash)\n"
                                 "longer.10   0\n");
        print_small_table(out, sizeof out, true);
        assert_non_null(strstr(out, "web.1       \033[1;31m6 (crash)\033[0m\n"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sizes),       cmocka_unit_test(sizes_refused),
                cmocka_unit_test(numbers),     cmocka_unit_test(seconds),
                cmocka_unit_test(fork_points), cmocka_unit_test(names_and_paths),
                cmocka_unit_test(consoles),    cmocka_unit_test(flat_binaries),
                cmocka_unit_test(choices),     cmocka_unit_test(figures),
                cmocka_unit_test(tables),
        };

        return cmocka_run_group_tests_name("cli_parse", tests, NULL, NULL);
}
