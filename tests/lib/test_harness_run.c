/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What runs of cases promise, with the guest `subject`: cases do not see each other, whatever the
 * isolation and however many run at a time; what goes wrong is told so that one can act on it. TAP
 * and JUnit go to files, and are looked at there.
 */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

#include <ramet/harness.h>

#include "tests/guest/subject.h"

#define MANY 200

static char guest_path[512];

static struct ramet_guest subject(void)
{
        snprintf(guest_path, sizeof guest_path, "%s", api_guest("subject.elf"));
        return (struct ramet_guest){.size = sizeof(struct ramet_guest),
                                    .kernel = guest_path,
                                    .memory_bytes = 16 << 20,
                                    .ready_console = "subject: ready"};
}

static struct ramet_run_options defaults(void)
{
        return (struct ramet_run_options){.size = sizeof(struct ramet_run_options), .jobs = 1};
}

/* Results as TAP, and the counts, of the last run(). */
static char tap[262144];
static struct ramet_run_result result;

static int run_guest(const struct ramet_guest *guest, const struct ramet_case *cases, size_t n,
                     struct ramet_run_options options)
{
        const struct ramet_case *pointers[1000];
        FILE *file = tmpfile();
        ssize_t len;
        int ret;

        for (size_t i = 0; i < n; i++)
                pointers[i] = &cases[i];
        options.tap_fd = fileno(file);
        result = (struct ramet_run_result){.size = sizeof result};
        ret = ramet_run_cases(api_ctx, guest, pointers, n, &options, &result);
        len = pread(fileno(file), tap, sizeof tap - 1, 0);
        tap[len > 0 ? len : 0] = '\0';
        fclose(file);
        return ret;
}

static int run(const struct ramet_case *cases, size_t n, struct ramet_run_options options)
{
        const struct ramet_guest guest = subject();

        return api_ok(run_guest(&guest, cases, n, options));
}

/* One case, by its function. */
static int run_one(void (*fn)(struct ramet_test *t), uint64_t timeout_ns)
{
        const struct ramet_case c = {
                .size = sizeof c, .name = "a_case", .run = fn, .timeout_ns = timeout_ns};

        return run(&c, 1, defaults());
}

static void in_tap(const char *word)
{
        if (!strstr(tap, word))
                fail_msg("\"%s\" is not in:\n%s", word, tap);
}

static void not_in_tap(const char *word)
{
        if (strstr(tap, word))
                fail_msg("\"%s\" is in:\n%s", word, tap);
}

static void order(struct ramet_test *t, enum subject_order what, uint64_t argument)
{
        uint32_t word = what;

        ramet_put(t, "order", &word, sizeof word);
        ramet_put(t, "argument", &argument, sizeof argument);
}

/* --- isolation --- */

/* Writes memory and expects to be the first who does. */
static void visit(struct ramet_test *t)
{
        order(t, SUBJECT_WRITE, 8);
        ramet_expect_console(t, "first byte 1, visit 1\n");
        ramet_put(t, "message", "was here", 8);
        ramet_console_send(t, "more\n"); /* some of which stays unread */
}

/* The same, with its hands on the machine: what it leaves there is not the next one's either. */
static void visit_with_breakpoint(struct ramet_test *t)
{
        uint64_t obey = ramet_symbol(t, "obey", NULL);
        struct ramet_vm *vm = ramet_test_vm(t);
        struct ramet_limits limits = {.exits = 1};
        struct ramet_vm_event e;

        ramet_expect(t, ramet_vm_breakpoint(vm, obey, true) == 0);
        ramet_expect_equal(t, ramet_vm_run_until(vm, RAMET_VM_BREAKPOINT, RAMET_SECOND, &e), 1);
        ramet_expect_equal(t, e.type, RAMET_VM_BREAKPOINT);
        ramet_expect(t, ramet_vm_set_limits(vm, &limits) == 0);
}

static void look_for_traces(struct ramet_test *t)
{
        char text[8] = "?";

        ramet_get(t, "message", text, sizeof text);
        ramet_expect_equal(t, text[0], 0);
        ramet_expect(t, ramet_console_text(t)[0] == '\0');
        visit(t);
}

static void isolated(enum ramet_isolation isolation, unsigned jobs)
{
        struct ramet_run_options options = defaults();
        struct ramet_case cases[12];

        options.isolation = isolation;
        options.jobs = jobs;
        for (unsigned i = 0; i < 12; i++)
                cases[i] = (struct ramet_case){.size = sizeof cases[i],
                                               .name = "visit",
                                               .run = i % 3 == 1 ? visit_with_breakpoint
                                                                 : look_for_traces};
        if (run(cases, 12, options) != 0)
                fail_msg("isolation %d, %u jobs:\n%s", isolation, jobs, tap);
        assert_int_equal(result.passed, 12);
}

static void cases_do_not_see_each_other_by_reset(void **state)
{
        isolated(RAMET_BY_RESET, 1);
        isolated(RAMET_BY_RESET, 4);
}

static void cases_do_not_see_each_other_by_clone(void **state)
{
        isolated(RAMET_BY_CLONE, 1);
        isolated(RAMET_BY_CLONE, 4);
}

/* One that waits for a text and fails leaves the watch to nobody. */
static void fail_watching(struct ramet_test *t)
{
        ramet_expect_console(t, "you said: y");
        ramet_fail(t, "expected nothing else");
}

static void speak(struct ramet_test *t)
{
        struct ramet_vm_event e;
        int ret;

        ramet_console_send(t, "y\n");
        ret = ramet_vm_run_until(ramet_test_vm(t), RAMET_VM_MATCH, 200 * RAMET_MILLISECOND, &e);
        ramet_expect_equal(t, ret, 0);
}

static void a_watch_is_not_left_to_the_next_case(void **state)
{
        const struct ramet_case cases[] = {
                {.size = sizeof cases[0],
                 .name = "first",
                 .run = fail_watching,
                 .timeout_ns = 100 * RAMET_MILLISECOND},
                {.size = sizeof cases[0], .name = "second", .run = speak},
        };

        assert_int_equal(run(cases, 2, defaults()), 1);
        in_tap("not ok 1 - first");
        in_tap("\nok 2 - second");
}

/* --- time-outs --- */

static void wait_for_a_spinner(struct ramet_test *t)
{
        order(t, SUBJECT_SPIN, 0);
        ramet_expect_console(t, "never");
}

static void a_guest_that_loops_times_out(void **state)
{
        assert_int_equal(run_one(wait_for_a_spinner, 300 * RAMET_MILLISECOND), 1);
        in_tap("not ok 1 - a_case # timed out after 300.0 ms, vCPU 0 at 0x");
        in_tap(" spin");
        in_tap("waiting for \"never\"");
        in_tap("#   registers of vCPU 0, in user mode:\n");
        in_tap("#   backtrace:\n");
        assert_true(result.run_ns < 2 * RAMET_SECOND);
}

static void several_waits(struct ramet_test *t)
{
        for (int i = 0; i < 1000; i++) {
                ramet_console_send(t, "again\n");
                ramet_expect_console(t, "again\n");
                nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
}

static void a_time_out_is_of_all_waits_together(void **state)
{
        assert_int_equal(run_one(several_waits, 300 * RAMET_MILLISECOND), 1);
        in_tap("# timed out");
        assert_true(result.run_ns < 2 * RAMET_SECOND);
}

static void wait_by_itself(struct ramet_test *t)
{
        struct ramet_vm_event e;

        order(t, SUBJECT_SPIN, 0);
        ramet_expect_equal(
                t, ramet_vm_run_until(ramet_test_vm(t), RAMET_VM_EXIT, RAMET_FOREVER, &e), 1);
        ramet_expect_equal(t, e.exit.reason, RAMET_EXIT_LIMIT);
        ramet_note(t, "it ended: %s", e.exit.text);
}

static void what_a_case_itself_waits_for_ends(void **state)
{
        assert_int_equal(run_one(wait_by_itself, 200 * RAMET_MILLISECOND), 1);
        in_tap("# timed out: took");
        in_tap("#   it ended: ");
        assert_true(result.run_ns < 5 * RAMET_SECOND);
}

/* --- crashes --- */

static void crash_by_fault(struct ramet_test *t)
{
        ramet_note(t, "before");
        order(t, SUBJECT_FAULT, SUBJECT_NOWHERE);
        ramet_expect_console(t, "after");
}

static void a_page_fault_is_reported(void **state)
{
        assert_int_equal(run_one(crash_by_fault, 0), 1);
        in_tap("not ok 1 - a_case # guest triple fault, vCPU 0 at 0x");
        in_tap(" parse_header\n#   before\n#   it was waiting for \"after\"\n");
        in_tap("#   registers of vCPU 0:\n#     rax  ");
        in_tap("cr2  0000000140000000");
        in_tap("#   backtrace:\n#     0x");
        in_tap(" parse_header\n#     0x");
        in_tap(" parse_message+0x");
        in_tap(" obey+0x");
        in_tap(" guest_main+0x");
}

static void crash_by_triple(struct ramet_test *t)
{
        order(t, SUBJECT_TRIPLE, 0);
        ramet_expect_doorbell(t);
        ramet_expect_doorbell(t);
}

static void a_triple_fault_is_reported(void **state)
{
        assert_int_equal(run_one(crash_by_triple, 0), 1);
        in_tap("# guest triple fault, vCPU 0 at 0x");
        in_tap(" obey+0x");
        in_tap(" guest_main+0x");
        not_in_tap("parse_header");
}

static void crash_by_call(struct ramet_test *t)
{
        order(t, SUBJECT_CALL, SUBJECT_NOWHERE);
        ramet_expect_exit(t, RAMET_EXIT_POWEROFF);
}

static void a_call_to_nowhere_shows_who_called(void **state)
{
        assert_int_equal(run_one(crash_by_call, 0), 1);
        in_tap("# guest triple fault, vCPU 0 at 0x140000000\n");
        in_tap(" call_nowhere+0x");
        in_tap("(on top of the stack)\n");
}

static void crash_in_user_mode(struct ramet_test *t)
{
        order(t, SUBJECT_USER_FAULT, SUBJECT_NOWHERE);
        ramet_expect_status(t, 0);
}

static void user_mode_is_walked_too(void **state)
{
        assert_int_equal(run_one(crash_in_user_mode, 0), 1);
        in_tap("registers of vCPU 0, in user mode:\n");
        in_tap(" user_parse\n");
        in_tap(" user_work+0x");
}

static void print_and_fail(struct ramet_test *t)
{
        static const char text[] = "\x1b[31mred\x07\xff\n";

        order(t, SUBJECT_PRINT, sizeof text - 1);
        ramet_put(t, "message", text, sizeof text);
        ramet_expect_console(t, "\xff\n");
        ramet_fail(t, "broken");
}

static void console_lines_are_visible(void **state)
{
        assert_int_equal(run_one(print_and_fail, 0), 1);
        in_tap("# broken\n#   last console lines:\n");
        in_tap("#     \\x1b[31mred\\x07\\xff\n");
        assert_null(strchr(tap, '\x1b'));
}

static void read_a_port(struct ramet_test *t)
{
        order(t, SUBJECT_PORT, 0x2222);
        ramet_expect_console(t, "after");
}

static void an_access_to_nothing_is_reported(void **state)
{
        const struct ramet_vm_config config = {.size = sizeof config, .report_unhandled = true};
        const struct ramet_case c = {.size = sizeof c, .name = "a_case", .run = read_a_port};
        struct ramet_guest guest = subject();

        guest.config = &config;
        assert_int_equal(api_ok(run_guest(&guest, &c, 1, defaults())), 1);
        in_tap("# read of 1 byte from port 0x2222, where nothing is, vCPU 0 at 0x");
        in_tap(" obey+0x");
}

static void use_a_symbol(struct ramet_test *t)
{
        ramet_symbol(t, "absent", NULL);
}

static void an_unknown_symbol_is_named(void **state)
{
        assert_int_equal(run_one(use_a_symbol, 0), 1);
        in_tap("# the guest has no symbol absent\n");
}

/* --- lists, patterns, order --- */

static void pass(struct ramet_test *t)
{
        order(t, SUBJECT_WRITE, 16);
        ramet_expect_console(t, "visit 1");
}

static void skip_it(struct ramet_test *t)
{
        ramet_skip(t, "not here");
}

static const struct ramet_case few[] = {
        {.size = sizeof few[0], .name = "read_one", .run = pass},
        {.size = sizeof few[0], .name = "write_one", .run = skip_it},
        {.size = sizeof few[0], .name = "read_two", .run = pass, .skip = "not yet"},
};

static void patterns_choose_cases(void **state)
{
        const char *reads[] = {"read_*"}, *none[] = {"reads"}, *two[] = {"write_one", "*_two"};
        const struct ramet_guest guest = subject();
        struct ramet_run_options options = defaults();

        options.patterns = reads;
        options.npatterns = 1;
        assert_int_equal(run(few, 3, options), 0);
        in_tap("1..2\nok 1 - read_one # ");
        in_tap(" pages dirtied\nok 2 - read_two # SKIP not yet\n");
        options.patterns = two;
        options.npatterns = 2;
        assert_int_equal(run(few, 3, options), 0);
        in_tap("1..2\nok 1 - write_one # SKIP not here\nok 2 - read_two # SKIP not yet\n");
        assert_int_equal(result.skipped, 2);
        options.patterns = none;
        options.npatterns = 1;
        api_fails(run_guest(&guest, few, 3, options), -ENOENT, "no case matches reads");
}

static void list_runs_nothing(void **state)
{
        struct ramet_guest guest = subject();
        struct ramet_run_options options = defaults();

        options.list = true;
        guest.kernel = "/nonexistent";
        assert_int_equal(api_ok(run_guest(&guest, few, 3, options)), 0);
        assert_string_equal(tap, "read_one\nwrite_one\nread_two\n");
}

static void what_is_all_skipped_needs_no_guest(void **state)
{
        struct ramet_guest guest = subject();

        guest.kernel = "/nonexistent";
        assert_int_equal(api_ok(run_guest(&guest, &few[2], 1, defaults())), 0);
        in_tap("1..1\nok 1 - read_two # SKIP not yet\n");
}

static void sleep_by_name(struct ramet_test *t)
{
        nanosleep(&(struct timespec){.tv_nsec = *(int *)ramet_test_data(t)}, NULL);
        ramet_note(t, "note of %s", ramet_test_name(t));
}

static void results_come_in_the_order_of_the_list(void **state)
{
        int slow = 200000000, fast = 0;
        const struct ramet_case cases[] = {
                {.size = sizeof cases[0], .name = "slow", .run = sleep_by_name, .data = &slow},
                {.size = sizeof cases[0], .name = "fast", .run = sleep_by_name, .data = &fast},
                {.size = sizeof cases[0], .name = "last", .run = sleep_by_name, .data = &fast},
        };
        struct ramet_run_options options = defaults();
        const char *one, *two, *three;

        options.jobs = 3;
        options.no_dirty = true;
        assert_int_equal(run(cases, 3, options), 0);
        not_in_tap("dirtied");
        one = strstr(tap, "ok 1 - slow # ");
        two = strstr(tap, "#   note of slow\nok 2 - fast # ");
        three = strstr(tap, "#   note of fast\nok 3 - last # ");
        assert_true(one && two && three && one < two && two < three);
        in_tap("\n# 3 passed, 0 failed, 0 skipped; boot ");
        in_tap(", 3 at a time\n");
}

static void dirty_one(struct ramet_test *t)
{
        order(t, SUBJECT_WRITE, 1);
        ramet_expect_console(t, "visit 1");
}

static void dirty_many(struct ramet_test *t)
{
        order(t, SUBJECT_WRITE, 51);
        ramet_expect_console(t, "visit 1");
}

static unsigned long dirty_pages(const char *line)
{
        const char *at = strstr(tap, line);

        assert_non_null(at);
        at = strstr(at, "ms, ");
        assert_non_null(at);
        return strtoul(at + 4, NULL, 10);
}

static void dirty_pages_are_counted(void **state)
{
        const struct ramet_case cases[] = {
                {.size = sizeof cases[0], .name = "one", .run = dirty_one},
                {.size = sizeof cases[0], .name = "many", .run = dirty_many},
                {.size = sizeof cases[0], .name = "again", .run = dirty_one},
        };
        unsigned long one, many;

        /* the first one is in a clone that no reset has given a new VM generation ID */
        assert_int_equal(run(cases, 3, defaults()), 0);
        many = dirty_pages("ok 2 - many");
        one = dirty_pages("ok 3 - again");
        assert_true(one > 0 && one < 30);
        assert_int_equal(many - one, 50);
}

/* --- JUnit --- */

static void junit_has_every_case(void **state)
{
        char path[] = "/tmp/junit-XXXXXX", buf[16384];
        const struct ramet_case cases[] = {
                few[0],
                few[1],
                few[2],
                {.size = sizeof few[0],
                 .name = "crash",
                 .run = crash_by_fault,
                 .file = "a.c",
                 .line = 7},
        };
        struct ramet_run_options options = defaults();
        int fd = mkstemp(path);
        ssize_t n;

        options.junit = path;
        options.name = "suite";
        assert_int_equal(run(cases, 4, options), 1);
        n = read(fd, buf, sizeof buf - 1);
        buf[n > 0 ? n : 0] = '\0';
        close(fd);
        unlink(path);
        assert_non_null(strstr(buf, "<testsuite name=\"suite\" tests=\"4\" failures=\"1\" "
                                    "errors=\"0\" skipped=\"2\""));
        assert_non_null(strstr(buf, "<testcase name=\"crash\" classname=\"suite\" file=\"a.c\" "
                                    "line=\"7\""));
        assert_non_null(strstr(buf, "<failure message=\"guest triple fault, vCPU 0 at 0x"));
        assert_non_null(strstr(buf, "parse_message+0x"));
        assert_non_null(strstr(buf, "first byte 1, visit 1"));
}

/* That is told before any case has run, and before the guest has. */
static void junit_that_cannot_be_written_is_an_error(void **state)
{
        struct ramet_guest guest = subject();
        struct ramet_run_options options = defaults();

        guest.kernel = "/nonexistent/kernel";
        options.junit = "/nonexistent/x.xml";
        api_fails(run_guest(&guest, few, 3, options), -ENOENT, "/nonexistent/x.xml");
        assert_string_equal(tap, "");
        options.junit = "/dev/full";
        api_fails(run_guest(&guest, &few[2], 1, options), -ENOSPC, "/dev/full");
        in_tap("ok 1 - read_two # SKIP not yet\n");
}

/* An earlier run's report does not stay for one of a run that came to nothing. */
static void junit_of_an_earlier_run_is_gone(void **state)
{
        char path[] = "/tmp/junit-XXXXXX";
        struct ramet_guest guest = subject();
        struct ramet_run_options options = defaults();
        int fd = mkstemp(path);
        unsigned before = api_descriptors();
        struct stat st;

        assert_int_equal(write(fd, "earlier", 7), 7);
        guest.kernel = "/nonexistent/kernel";
        options.junit = path;
        api_fails(run_guest(&guest, few, 3, options), -ENOENT, "/nonexistent/kernel");
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, 0);
        assert_int_equal(api_descriptors(), before);
        close(fd);
        unlink(path);
}

/* --- a guest that does not get ready --- */

static void fails_to_boot(struct ramet_guest guest, int code, const char *word)
{
        guest.ready_timeout_ns = 500 * RAMET_MILLISECOND;
        api_fails(run_guest(&guest, few, 1, defaults()), code, word);
        in_tap("Bail out! ");
}

static void a_guest_that_is_not_ready_tells_why(void **state)
{
        struct ramet_guest guest = subject();

        guest.cmdline = "never=ready";
        fails_to_boot(guest, -ETIMEDOUT, "waited 500.0 ms until it has printed \"subject: ready\"");
        fails_to_boot(guest, -ETIMEDOUT, "subject: no root\\tdevice");
        fails_to_boot(guest, -ETIMEDOUT, " halt+0x");
        guest.ready_console = NULL;
        fails_to_boot(guest, -ETIMEDOUT, "it has rung its doorbell");
        guest.cmdline = "dies=early";
        fails_to_boot(guest, -ECHILD, "guest triple fault");
        fails_to_boot(guest, -ECHILD, "subject: booting");
        guest.kernel = "/nonexistent/kernel";
        fails_to_boot(guest, -ENOENT, "/nonexistent/kernel");
        guest = subject();
        guest.symbols = "/nonexistent/symbols";
        fails_to_boot(guest, -ENOENT, "/nonexistent/symbols");
}

/* --- many --- */

static void nothing(struct ramet_test *t)
{
}

static void many_cases_are_quick(void **state)
{
        static struct ramet_case cases[MANY];
        struct ramet_run_options options = defaults();
        char last[64];

        options.jobs = 2;
        for (unsigned i = 0; i < MANY; i++)
                cases[i] = (struct ramet_case){
                        .size = sizeof cases[i], .name = "visit", .run = i % 2 ? visit : nothing};
        assert_int_equal(run(cases, MANY, options), 0);
        snprintf(last, sizeof last, "ok %d - visit # ", MANY);
        in_tap(last);
        print_message("# %d cases in %.2f s\n", MANY, (double)result.run_ns / 1e9);
        assert_true(result.run_ns < 20 * RAMET_SECOND);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(cases_do_not_see_each_other_by_reset),
                cmocka_unit_test(cases_do_not_see_each_other_by_clone),
                cmocka_unit_test(a_watch_is_not_left_to_the_next_case),
                cmocka_unit_test(a_guest_that_loops_times_out),
                cmocka_unit_test(a_time_out_is_of_all_waits_together),
                cmocka_unit_test(what_a_case_itself_waits_for_ends),
                cmocka_unit_test(a_page_fault_is_reported),
                cmocka_unit_test(a_triple_fault_is_reported),
                cmocka_unit_test(a_call_to_nowhere_shows_who_called),
                cmocka_unit_test(user_mode_is_walked_too),
                cmocka_unit_test(console_lines_are_visible),
                cmocka_unit_test(an_access_to_nothing_is_reported),
                cmocka_unit_test(an_unknown_symbol_is_named),
                cmocka_unit_test(patterns_choose_cases),
                cmocka_unit_test(list_runs_nothing),
                cmocka_unit_test(what_is_all_skipped_needs_no_guest),
                cmocka_unit_test(results_come_in_the_order_of_the_list),
                cmocka_unit_test(dirty_pages_are_counted),
                cmocka_unit_test(junit_has_every_case),
                cmocka_unit_test(junit_that_cannot_be_written_is_an_error),
                cmocka_unit_test(junit_of_an_earlier_run_is_gone),
                cmocka_unit_test(a_guest_that_is_not_ready_tells_why),
                cmocka_unit_test(many_cases_are_quick),
        };
        int ret;

        if (!api_init())
                return 0;
        ret = cmocka_run_group_tests_name("lib_harness_run", tests, NULL, NULL);
        ramet_ctx_destroy(api_ctx);
        return ret;
}
