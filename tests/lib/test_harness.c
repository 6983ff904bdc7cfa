/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each function of <ramet/harness.h>, one case each; most are called by cases of the harness, which
 * run in clones of the guest `subject`. What runs of many cases promise is in test_harness_run.c.
 */
#include <fcntl.h>
#include <unistd.h>

#include "api.h"

#include <ramet/harness.h>

#include "tests/guest/subject.h"

static struct ramet_booted *booted;

static struct ramet_guest subject(const char *ready)
{
        static char path[512];

        snprintf(path, sizeof path, "%s", api_guest("subject.elf"));
        return (struct ramet_guest){.size = sizeof(struct ramet_guest),
                                    .kernel = path,
                                    .memory_bytes = 16 << 20,
                                    .ready_console = ready};
}

/* What became of the last case that run() ran. */
static char why[8192];

static int run_data(void (*fn)(struct ramet_test *t), void *data)
{
        const struct ramet_case c = {.size = sizeof c,
                                     .name = "a_case",
                                     .run = fn,
                                     .timeout_ns = 3 * RAMET_SECOND,
                                     .data = data};

        return api_ok(ramet_run_case(booted, &c, why, sizeof why));
}

static void passes(void (*fn)(struct ramet_test *t))
{
        if (run_data(fn, NULL) != 0)
                fail_msg("the case did not pass: %s", why);
}

static void fails(void (*fn)(struct ramet_test *t), const char *word)
{
        if (run_data(fn, NULL) != 1)
                fail_msg("the case did not fail: %s", why);
        if (!strstr(why, word))
                fail_msg("\"%s\" is not in: %s", word, why);
}

static void order(struct ramet_test *t, enum subject_order what, uint64_t argument)
{
        uint32_t word = what;

        ramet_put(t, "order", &word, sizeof word);
        ramet_put(t, "argument", &argument, sizeof argument);
}

/* --- a guest of one's own loop --- */

static void boot_guest(void **state)
{
        struct ramet_guest guest = subject(NULL); /* it rings */
        struct ramet_booted *b = NULL;

        api_ok(ramet_boot_guest(api_ctx, &guest, &b));
        assert_non_null(ramet_booted_template(b));
        ramet_booted_free(b);
}

static void booted_template(void **state)
{
        struct ramet_template *tmpl = ramet_booted_template(booted);
        struct ramet_template_info info = {.size = sizeof info};

        assert_non_null(tmpl);
        api_ok(ramet_template_info(tmpl, &info));
        assert_int_equal(info.memory_bytes, 16 << 20);
        ramet_vm_destroy(api_spawn(tmpl));
}

/* An order to a clone that is nobody's case. */
static void order_clone(struct ramet_vm *vm, enum subject_order what, uint64_t argument)
{
        const uint32_t word = what;
        uint64_t address;

        api_ok(ramet_booted_symbol(booted, "order", &address, NULL));
        api_ok(ramet_vm_write(vm, address, &word, sizeof word));
        api_ok(ramet_booted_symbol(booted, "argument", &address, NULL));
        api_ok(ramet_vm_write(vm, address, &argument, sizeof argument));
}

/* What the guest's configuration says of its clones holds for them. */
static void booted_spawn(void **state)
{
        const struct ramet_vm_config config = {.size = sizeof config, .console_bytes = 64};
        struct ramet_vm_stats stats = {.size = sizeof stats};
        struct ramet_guest guest = subject(NULL);
        struct ramet_booted *b = NULL;
        struct ramet_vm *vm = NULL;
        struct ramet_vm_event e;

        guest.config = &config;
        api_ok(ramet_boot_guest(api_ctx, &guest, &b));
        api_ok(ramet_booted_spawn(b, &vm));
        order_clone(vm, SUBJECT_PRINT, 100);
        assert_int_equal(ramet_vm_console_write(vm, "ring 7\n", 7), 7);
        assert_int_equal(api_ok(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, ENDLESS, &e)), 1);
        api_ok(ramet_vm_stats(vm, &stats));
        assert_int_equal(stats.console_bytes, 100);
        assert_int_equal(stats.console_dropped, 36);
        api_fails(ramet_booted_spawn(NULL, &vm), -EINVAL, "booted");
        api_fails(ramet_booted_spawn(b, NULL), -EINVAL, "clone");
        ramet_vm_destroy(vm);
        ramet_booted_free(b);
}

static void booted_symbol(void **state)
{
        uint64_t address = 0, size = 0;

        api_ok(ramet_booted_symbol(booted, "message", &address, &size));
        assert_true(address > 0x100000 && address < 16 << 20);
        assert_int_equal(size, 256);
        api_ok(ramet_booted_symbol(booted, "guest_main", &address, NULL));
        api_fails(ramet_booted_symbol(booted, "no_such_thing", &address, NULL), -ENOENT,
                  "no_such_thing");
}

static void booted_free(void **state)
{
        struct ramet_guest guest = subject("subject: ready");
        struct ramet_booted *b = NULL;
        unsigned before = api_descriptors();

        api_ok(ramet_boot_guest(api_ctx, &guest, &b));
        assert_true(api_descriptors() > before); /* the template's memory */
        ramet_booted_free(b);
        assert_int_equal(api_descriptors(), before);
        ramet_booted_free(NULL);
}

static void say_nothing(struct ramet_test *t)
{
}

static void run_case(void **state)
{
        const struct ramet_case good = {.size = sizeof good, .name = "a", .run = say_nothing};
        const struct ramet_case skipped = {.size = sizeof good, .name = "a", .skip = "no\tdisk"};

        assert_int_equal(api_ok(ramet_run_case(booted, &good, why, sizeof why)), 0);
        assert_string_equal(why, "");
        assert_int_equal(api_ok(ramet_run_case(booted, &skipped, why, sizeof why)), 2);
        assert_string_equal(why, "no\\tdisk");
        assert_int_equal(api_ok(ramet_run_case(booted, &good, NULL, 0)), 0);
        api_fails(ramet_run_case(NULL, &good, why, sizeof why), -EINVAL, "booted");
        api_fails(ramet_run_case(booted, NULL, why, sizeof why), -EINVAL, "case");
}

/* --- the end of a case --- */

static void fail_at_once(struct ramet_test *t)
{
        ramet_fail(t, "broken %d\ntimes", 3);
}

static void fail_case(void **state)
{
        assert_int_equal(run_data(fail_at_once, NULL), 1);
        assert_string_equal(why, "broken 3\\ntimes");
}

static void skip_at_once(struct ramet_test *t)
{
        ramet_skip(t, "no %s", "disk");
}

static void skip_case(void **state)
{
        assert_int_equal(run_data(skip_at_once, NULL), 2);
        assert_string_equal(why, "no disk");
}

static void pass_then_fail(struct ramet_test *t)
{
        ramet_pass(t);
        ramet_fail(t, "it went on");
}

static void pass_case(void **state)
{
        passes(pass_then_fail);
}

static void note_and_fail(struct ramet_test *t)
{
        ramet_note(t, "seed %d", 42);
        ramet_note(t, "second");
        ramet_fail(t, "broken");
}

static void note(void **state)
{
        assert_int_equal(run_data(note_and_fail, NULL), 1);
        assert_string_equal(why, "broken\nseed 42\nsecond\n");
}

static char ended[8];

static void end_with(void *data)
{
        strcat(ended, data);
}

static void three_ends(struct ramet_test *t)
{
        ramet_on_end(t, end_with, "a");
        ramet_on_end(t, end_with, "b");
        ramet_on_end(t, end_with, "c");
        ramet_fail(t, "broken");
}

static void end_by_failing(void *data)
{
        ramet_fail(data, "the end failed");
}

static void failing_ends(struct ramet_test *t)
{
        ramet_on_end(t, end_with, "x");
        ramet_on_end(t, end_by_failing, t);
}

static void too_many_ends(struct ramet_test *t)
{
        for (int i = 0; i < 100; i++)
                ramet_on_end(t, end_with, "");
}

static void on_end(void **state)
{
        ended[0] = '\0';
        fails(three_ends, "broken");
        assert_string_equal(ended, "cba");
        ended[0] = '\0';
        fails(failing_ends, "the end failed");
        assert_string_equal(ended, "x");
        fails(too_many_ends, "16");
}

/* --- what a case has --- */

static void look_at_vm(struct ramet_test *t)
{
        struct ramet_vm_event e;

        order(t, SUBJECT_WRITE, 1);
        ramet_expect(t, ramet_test_vm(t) != NULL);
        ramet_expect(t, ramet_vm_run_until(ramet_test_vm(t), RAMET_VM_DOORBELL, RAMET_SECOND, &e) ==
                                1);
}

static void test_vm(void **state)
{
        passes(look_at_vm);
}

static void look_at_name(struct ramet_test *t)
{
        ramet_expect(t, strcmp(ramet_test_name(t), "a_case") == 0);
        ramet_fail(t, "right");
}

static void test_name(void **state)
{
        fails(look_at_name, "right");
}

static void look_at_data(struct ramet_test *t)
{
        *(int *)ramet_test_data(t) = 7;
}

static void test_data(void **state)
{
        int seven = 0;

        assert_int_equal(run_data(look_at_data, &seven), 0);
        assert_int_equal(seven, 7);
}

/* --- the console --- */

static void say_hello(struct ramet_test *t)
{
        ramet_console_send(t, "hello\n");
        ramet_expect_console(t, "you said: hello\n");
}

/* More than waits for a guest that does not read yet. */
static void say_much(struct ramet_test *t)
{
        char line[102];

        memset(line, 'x', 100);
        strcpy(line + 100, "\n");
        for (int i = 0; i < 60; i++)
                ramet_console_send(t, line);
        ramet_console_send(t, "done\n");
        ramet_expect_console(t, "you said: done");
}

static void console_send(void **state)
{
        passes(say_hello);
        passes(say_much);
}

static void expect_in_order(struct ramet_test *t)
{
        ramet_console_send(t, "one two\n");
        ramet_expect_console(t, "one");
        ramet_expect_console(t, " two");
        ramet_console_send(t, "abcd\n");
        ramet_expect_console(t, "you said: ab"); /* stops there ... */
        ramet_expect_console(t, "cd\n");         /* ... and goes on */
}

static void expect_used(struct ramet_test *t)
{
        ramet_console_send(t, "once\n");
        ramet_expect_console(t, "once");
        ramet_expect_console(t, "once");
}

/* The ring comes in the middle of the text that is waited for. */
static void expect_begun(struct ramet_test *t)
{
        ramet_console_send(t, "ring 5\n");
        ramet_expect(t, ramet_expect_doorbell(t) == 1); /* the guest's own, when it is ready */
        ramet_expect(t, ramet_expect_doorbell(t) == 5);
        ramet_expect_console(t, "\nanswer 0");
}

static void expect_console(void **state)
{
        passes(expect_in_order);
        passes(expect_begun);
        fails(expect_used, "\"once\"");
}

static void look_at_text(struct ramet_test *t)
{
        ramet_console_send(t, "what\n");
        ramet_expect_console(t, "what");
        ramet_expect(t, strstr(ramet_console_text(t), "you said: what") != NULL);
}

static void console_text(void **state)
{
        passes(look_at_text);
}

/* --- the end of the guest --- */

static void exit_with_3(struct ramet_test *t)
{
        ramet_console_send(t, "exit 3\n");
        ramet_expect_status(t, 3);
}

static void exit_with_4(struct ramet_test *t)
{
        ramet_console_send(t, "exit 4\n");
        ramet_expect_status(t, 3);
}

static void off_for_status(struct ramet_test *t)
{
        ramet_console_send(t, "off\n");
        ramet_expect_status(t, 0);
}

static void expect_status(void **state)
{
        passes(exit_with_3);
        fails(exit_with_4, "status 4");
        fails(off_for_status, "status 0");
}

static void expect_off(struct ramet_test *t)
{
        ramet_console_send(t, "off\n");
        ramet_expect_exit(t, RAMET_EXIT_POWEROFF);
}

static void expect_a_crash(struct ramet_test *t)
{
        order(t, SUBJECT_TRIPLE, 0);
        ramet_expect_exit(t, RAMET_EXIT_CRASH);
}

static void expect_no_exit(struct ramet_test *t)
{
        ramet_expect_exit(t, (enum ramet_exit)99);
}

static void expect_exit(void **state)
{
        passes(expect_off);
        passes(expect_a_crash);
        fails(expect_no_exit, "99");
}

static void expect_ring(struct ramet_test *t)
{
        ramet_expect(t, ramet_expect_doorbell(t) == 1);
        ramet_console_send(t, "ring 77\n");
        ramet_expect(t, ramet_expect_doorbell(t) == 77);
        ramet_expect_console(t, "answer 0\n");
}

static void ring_of_the_dead(struct ramet_test *t)
{
        ramet_expect_doorbell(t);
        ramet_console_send(t, "exit 9\n");
        ramet_expect_doorbell(t);
}

static void expect_doorbell(void **state)
{
        passes(expect_ring);
        fails(ring_of_the_dead, "status 9");
}

/* --- variables --- */

static void look_up(struct ramet_test *t)
{
        uint64_t size = 0, address = ramet_symbol(t, "area", &size);
        uint8_t byte = 1;

        ramet_expect(t, size == SUBJECT_PAGES * 4096);
        ramet_expect(t, address % 4096 == 0);
        ramet_expect(t, ramet_vm_read(ramet_test_vm(t), address, &byte, 1) == 0 && byte == 0);
        ramet_symbol(t, "no_such_thing", NULL);
}

static void symbol(void **state)
{
        fails(look_up, "no_such_thing");
}

static void get_and_put(struct ramet_test *t)
{
        const char text[] = "put there\n";
        char back[sizeof text] = "";
        uint32_t visits = 99;

        order(t, SUBJECT_PRINT, sizeof text - 1);
        ramet_put(t, "message", text, sizeof text);
        ramet_get(t, "visits", &visits, sizeof visits);
        ramet_expect_equal(t, visits, 0);
        ramet_expect_console(t, "put there\n");
        ramet_get(t, "message", back, sizeof back);
        ramet_expect(t, strcmp(back, text) == 0);
        ramet_get(t, "visits", &visits, sizeof visits);
        ramet_expect_equal(t, visits, 1);
}

static void get_too_much(struct ramet_test *t)
{
        char buf[300];

        ramet_get(t, "message", buf, sizeof buf);
}

static void put_too_much(struct ramet_test *t)
{
        ramet_put(t, "order", "12345", 5);
}

static void get(void **state)
{
        passes(get_and_put);
        fails(get_too_much, "256 bytes");
}

static void put(void **state)
{
        passes(get_and_put);
        fails(put_too_much, "4 bytes");
}

static void expect_equal(struct ramet_test *t)
{
        int four = 4;

        ramet_expect_equal(t, four, 4);
        ramet_expect_equal(t, four, 5);
}

static void ramet_expect_equal_tells_both(void **state)
{
        fails(expect_equal, "four: 4 (0x4), expected 5 (0x5)");
}

/* --- reports --- */

static void crash_report(void **state)
{
        struct ramet_vm *vm = api_spawn(ramet_booted_template(booted));
        struct ramet_vm_event e;
        char buf[4096];

        order_clone(vm, SUBJECT_FAULT, SUBJECT_NOWHERE);
        assert_int_equal(api_ok(ramet_vm_run_until(vm, 0, RAMET_SECOND, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_EXIT);
        api_ok(ramet_crash_report(vm, 0, api_guest("subject.elf"), buf, sizeof buf));
        assert_non_null(strstr(buf, "cr2  0000000140000000"));
        assert_non_null(strstr(buf, " parse_header\n"));
        assert_non_null(strstr(buf, " parse_message+0x"));
        api_ok(ramet_crash_report(vm, 0, NULL, buf, sizeof buf));
        assert_null(strstr(buf, "parse_header"));
        memset(buf, 'x', sizeof buf);
        api_ok(ramet_crash_report(vm, 0, NULL, buf, 10));
        assert_int_equal(strlen(buf), 9);
        api_fails(ramet_crash_report(vm, 1, NULL, buf, sizeof buf), -EINVAL, "1");
        api_fails(ramet_crash_report(vm, 0, "/nonexistent", buf, sizeof buf), -ENOENT,
                  "/nonexistent");
        api_fails(ramet_crash_report(NULL, 0, NULL, buf, sizeof buf), -EINVAL, "vm");
        api_fails(ramet_crash_report(vm, 0, NULL, NULL, 1), -EINVAL, "buf");
        ramet_vm_destroy(vm);
}

/* --- runs --- */

static void count_visit(struct ramet_test *t)
{
        __atomic_fetch_add((int *)ramet_test_data(t), 1, __ATOMIC_RELAXED);
}

static void run_cases(void **state)
{
        const struct ramet_guest guest = subject("subject: ready");
        int count = 0;
        const struct ramet_case a = {
                .size = sizeof a, .name = "a", .run = count_visit, .data = &count};
        const struct ramet_case b = {.size = sizeof b, .name = "b", .run = fail_at_once};
        const struct ramet_case *const cases[] = {&a, &b, &a};
        const struct ramet_run_options options = {.size = sizeof options, .tap_fd = -1};
        struct ramet_run_result result = {.size = sizeof result};

        assert_int_equal(api_ok(ramet_run_cases(api_ctx, &guest, cases, 3, &options, &result)), 1);
        assert_int_equal(count, 2);
        assert_int_equal(result.passed, 2);
        assert_int_equal(result.failed, 1);
        assert_int_equal(result.skipped, 0);
        assert_true(result.boot_ns > 0 && result.run_ns > 0);
        assert_int_equal(api_ok(ramet_run_cases(api_ctx, &guest, cases, 1, &options, NULL)), 0);
        api_fails(ramet_run_cases(NULL, &guest, cases, 1, &options, NULL), -EINVAL, "ctx");
        api_fails(ramet_run_cases(api_ctx, &guest, cases, 0, &options, NULL), -ENOENT, "no cases");
}

/* The output of ramet_harness_main() with @arg; its status. */
static int main_output(const char *arg, char *buf, size_t size)
{
        static const struct ramet_case a = {.size = sizeof a, .name = "first", .run = say_nothing};
        static const struct ramet_case *const cases[] = {&a};
        const struct ramet_guest guest = subject("subject: ready");
        char *argv[] = {"dir/program", (char *)arg, NULL};
        int saved = dup(STDOUT_FILENO), pipes[2], ret;
        ssize_t n;

        fflush(stdout);
        assert_int_equal(pipe(pipes), 0);
        dup2(pipes[1], STDOUT_FILENO);
        close(pipes[1]);
        ret = ramet_harness_main(2, argv, &guest, cases, cases + 1);
        dup2(saved, STDOUT_FILENO);
        close(saved);
        n = read(pipes[0], buf, size - 1);
        buf[n > 0 ? n : 0] = '\0';
        close(pipes[0]);
        return ret;
}

static void harness_main(void **state)
{
        char buf[4096];

        assert_int_equal(main_output("--list", buf, sizeof buf), 0);
        assert_string_equal(buf, "first\n");
        assert_int_equal(main_output("f*", buf, sizeof buf), 0);
        assert_non_null(strstr(buf, "1..1\nok 1 - first # "));
        assert_int_equal(main_output("no_match", buf, sizeof buf), 2);
        assert_int_equal(main_output("--help", buf, sizeof buf), 0);
        assert_non_null(strstr(buf, "usage: program "));
}

static int boot_once(void **state)
{
        const struct ramet_guest guest = subject("subject: ready");

        return ramet_boot_guest(api_ctx, &guest, &booted) < 0 ? -1 : 0;
}

static int free_once(void **state)
{
        ramet_booted_free(booted);
        return 0;
}

#define TEST(function, fn)                                                                         \
        {                                                                                          \
                .name = #function, .test_func = fn                                                 \
        }

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(ramet_boot_guest, boot_guest),
                TEST(ramet_booted_spawn, booted_spawn),
                TEST(ramet_booted_template, booted_template),
                TEST(ramet_booted_symbol, booted_symbol),
                TEST(ramet_booted_free, booted_free),
                TEST(ramet_run_case, run_case),
                TEST(ramet_run_cases, run_cases),
                TEST(ramet_harness_main, harness_main),
                TEST(ramet_fail, fail_case),
                TEST(ramet_skip, skip_case),
                TEST(ramet_pass, pass_case),
                TEST(ramet_note, note),
                TEST(ramet_on_end, on_end),
                TEST(ramet_test_vm, test_vm),
                TEST(ramet_test_name, test_name),
                TEST(ramet_test_data, test_data),
                TEST(ramet_console_send, console_send),
                TEST(ramet_expect_console, expect_console),
                TEST(ramet_console_text, console_text),
                TEST(ramet_expect_status, expect_status),
                TEST(ramet_expect_exit, expect_exit),
                TEST(ramet_expect_doorbell, expect_doorbell),
                TEST(ramet_symbol, symbol),
                TEST(ramet_get, get),
                TEST(ramet_put, put),
                TEST(ramet_crash_report, crash_report),
                cmocka_unit_test(ramet_expect_equal_tells_both),
        };
        int ret;

        if (!api_init())
                return 0;
        ret = cmocka_run_group_tests_name("lib_harness", tests, boot_once, free_once);
        ramet_ctx_destroy(api_ctx);
        return ret;
}
