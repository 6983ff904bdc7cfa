/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <ramet/fuzz.h> with the guest `fuzzed` (tests/guest/fuzzed.c): an input tells it what to do, so a
 * case says which outcome, counters and values it wants of which input.
 */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <ramet/fuzz.h>

#include "tests/lib/api.h"

#define COUNTERS 256

static uint8_t counters[COUNTERS];

static struct ramet_guest guest_of(const char *cmdline)
{
        static struct ramet_vm_config config;
        static char kernel[512];

        config = (struct ramet_vm_config){.size = sizeof config, .fixed_page_tables = true};
        snprintf(kernel, sizeof kernel, "%s", api_guest("fuzzed.elf"));
        return (struct ramet_guest){.size = sizeof(struct ramet_guest),
                                    .kernel = kernel,
                                    .cmdline = cmdline,
                                    .memory_bytes = 16 << 20,
                                    .config = &config};
}

static struct ramet_fuzz_options options_of(const struct ramet_guest *guest)
{
        memset(counters, 0, sizeof counters);
        return (struct ramet_fuzz_options){.size = sizeof(struct ramet_fuzz_options),
                                           .guest = guest,
                                           .input = "input",
                                           .input_length = "input_length",
                                           .coverage = "coverage",
                                           .counters = counters,
                                           .ncounters = sizeof counters};
}

static struct ramet_fuzz *create(void)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz *fuzz = NULL;

        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        assert_non_null(fuzz);
        return fuzz;
}

/* A text as an input, which must have this outcome. */
static struct ramet_fuzz_result one(struct ramet_fuzz *fuzz, const char *input, int outcome)
{
        struct ramet_fuzz_result result = {.size = sizeof result};
        int r = api_ok(ramet_fuzz_one(fuzz, (const uint8_t *)input, strlen(input), &result));

        if (r != outcome)
                print_error("input \"%s\"\n", input);
        assert_int_equal(r, outcome);
        return result;
}

static uint32_t sum(const uint8_t *p, size_t n)
{
        uint32_t v = 0;

        while (n--)
                v = v * 31 + *p++;
        return v;
}

/* --- create --- */

static void create_case(void **state)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz *fuzz = NULL;

        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        assert_int_equal(one(fuzz, "n", RAMET_FUZZ_OK).value, 1);
        ramet_fuzz_destroy(fuzz);
}

static void create_fails(void **state)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options good = options_of(&guest), options = good;
        struct ramet_fuzz *fuzz = (void *)&options;

        api_fails(ramet_fuzz_create(NULL, &options, &fuzz), -EINVAL, "ctx");
        api_fails(ramet_fuzz_create(api_ctx, NULL, &fuzz), -EINVAL, "options");
        api_fails(ramet_fuzz_create(api_ctx, &options, NULL), -EINVAL, "fuzz");
        options.size = 1;
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EINVAL, "options");
        options = good;
        options.guest = NULL;
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EINVAL, "guest");
        options = good;
        options.input = NULL;
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EINVAL, "input");
        options = good;
        options.coverage = NULL;
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EINVAL, "coverage");
        options = good;
        options.ncounters = 0;
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EINVAL, "ncounters");
        options = good;
        options.input = "no_such_thing";
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -ENOENT, "no_such_thing");
        options = good;
        options.input_length = "odd_length";
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EINVAL, "odd_length");
        options = good;
        options.input = "split_input"; /* not mapped */
        api_fails(ramet_fuzz_create(api_ctx, &options, &fuzz), -EFAULT, "split_input");
        assert_ptr_equal(fuzz, &options);
}

/* --- inputs --- */

static void one_case(void **state)
{
        struct ramet_fuzz *fuzz = create();
        struct ramet_fuzz_result result = one(fuzz, "xxn", RAMET_FUZZ_OK);

        assert_int_equal(result.value, 3);
        assert_int_equal(result.reset_ns, 0);
        assert_true(result.run_ns > 0);
        result = one(fuzz, "s xyo abg", RAMET_FUZZ_OK);
        assert_int_equal(result.value, sum((const uint8_t *)"s xyo abg", 9));
        assert_true(result.reset_ns > 0);
        ramet_fuzz_destroy(fuzz);
}

static void bad_arguments(void **state)
{
        struct ramet_fuzz *fuzz = create();
        struct ramet_fuzz_result result = {.size = 1};

        api_fails(ramet_fuzz_one(NULL, (const uint8_t *)"n", 1, NULL), -EINVAL, "fuzz");
        api_fails(ramet_fuzz_one(fuzz, NULL, 1, NULL), -EINVAL, "data");
        api_fails(ramet_fuzz_one(fuzz, (const uint8_t *)"n", 1, &result), -EINVAL, "result");
        ramet_fuzz_destroy(fuzz);
}

static void empty_input(void **state)
{
        struct ramet_fuzz *fuzz = create();

        one(fuzz, "n", RAMET_FUZZ_OK);
        assert_int_equal(ramet_fuzz_one(fuzz, NULL, 0, NULL), RAMET_FUZZ_OK);
        assert_int_equal(one(fuzz, "", RAMET_FUZZ_OK).value, 0);
        ramet_fuzz_destroy(fuzz);
}

static void outcomes(void **state)
{
        static const struct {
                const char *input;
                int outcome;
                enum ramet_exit reason;
                int status;
        } wants[] = {
                {"p", RAMET_FUZZ_OK, RAMET_EXIT_POWEROFF, 0},
                {"e", RAMET_FUZZ_OK, RAMET_EXIT_DEBUG, 1},
                {"e\5", RAMET_FUZZ_CRASH, RAMET_EXIT_DEBUG, 11},
                {"r", RAMET_FUZZ_CRASH, RAMET_EXIT_REBOOT, 0},
                {"t", RAMET_FUZZ_CRASH, RAMET_EXIT_CRASH, 0},
                {"u", RAMET_FUZZ_CRASH, 0, 0},
                {"f", RAMET_FUZZ_CRASH, RAMET_EXIT_DEBUG, 0x7e << 1 | 1},
        };
        struct ramet_fuzz *fuzz = create();

        for (int round = 0; round < 3; round++)
                for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
                        struct ramet_fuzz_result result =
                                one(fuzz, wants[i].input, wants[i].outcome);

                        assert_int_equal(result.reason, wants[i].reason);
                        assert_int_equal(result.status, wants[i].status);
                        assert_int_equal(one(fuzz, "n", RAMET_FUZZ_OK).value, 1);
                }
        ramet_fuzz_destroy(fuzz);
}

static void timeouts(void **state)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz_result result;
        struct ramet_fuzz *fuzz;

        options.limits.run_ns = 50 * RAMET_MILLISECOND;
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        for (int i = 0; i < 3; i++) {
                result = one(fuzz, "h", RAMET_FUZZ_TIMEOUT);
                assert_int_equal(result.reason, 0);
                assert_in_range(result.run_ns, 50 * RAMET_MILLISECOND, 5 * RAMET_SECOND);
                one(fuzz, "n", RAMET_FUZZ_OK);
        }
        ramet_fuzz_destroy(fuzz);

        /* An end by another limit is one, too. */
        options.limits = (struct ramet_limits){.exits = 50};
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        one(fuzz, "n", RAMET_FUZZ_OK);
        result = one(fuzz, "f", RAMET_FUZZ_TIMEOUT); /* what it prints are as many exits */
        assert_int_equal(result.reason, RAMET_EXIT_LIMIT);
        one(fuzz, "n", RAMET_FUZZ_OK);
        ramet_fuzz_destroy(fuzz);
}

static void long_input_is_cut(void **state)
{
        static uint8_t data[8192];
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz_result result = {.size = sizeof result};
        struct ramet_fuzz *fuzz = create();

        memset(data, 'n', sizeof data);
        api_ok(ramet_fuzz_one(fuzz, data, sizeof data, &result));
        assert_int_equal(result.value, 4096);
        ramet_fuzz_destroy(fuzz);

        options.input_max = 10;
        options.input_length = "long_length"; /* of 8 bytes */
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        api_ok(ramet_fuzz_one(fuzz, data, sizeof data, &result));
        assert_int_equal(result.value, 10);
        assert_int_equal(one(fuzz, "nn", RAMET_FUZZ_OK).value, 2);
        ramet_fuzz_destroy(fuzz);
}

/* A buffer whose pages lie apart in memory, and not in order. */
static void split_buffer(void **state)
{
        static uint8_t data[8192];
        struct ramet_guest guest = guest_of("split=1");
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz_result result = {.size = sizeof result};
        struct ramet_fuzz *fuzz;

        for (size_t i = 0; i < sizeof data; i++)
                data[i] = (uint8_t)("0123456789"[i % 10] + i / 4096);
        data[5000] = 's';
        options.input = "split_input";
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        api_ok(ramet_fuzz_one(fuzz, data, sizeof data, &result));
        assert_int_equal(result.value, sum(data, sizeof data));
        ramet_fuzz_destroy(fuzz);
}

/* --- what an input leaves --- */

static void nothing_is_left(void **state)
{
        struct ramet_fuzz *fuzz = create();

        for (int i = 0; i < 20; i++) {
                assert_int_equal(one(fuzz, "l", RAMET_FUZZ_OK).value, 0);
                /* what is longer than the next one is gone */
                assert_int_equal(one(fuzz, "slnslnsln", RAMET_FUZZ_OK).value, 9);
        }
        ramet_fuzz_destroy(fuzz);
}

/* A page that is a hole in the template is zero again. */
static void holes_stay_empty(void **state)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_vm_config config = *guest.config;
        struct ramet_fuzz *fuzz;

        config.hugepages = RAMET_HUGEPAGES_OFF;
        guest.config = &config;
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        for (int i = 0; i < 10; i++)
                assert_int_equal(one(fuzz, "z", RAMET_FUZZ_OK).value, 1);
        ramet_fuzz_destroy(fuzz);
}

static void coverage_is_added(void **state)
{
        struct ramet_fuzz *fuzz = create();
        uint8_t expected[COUNTERS] = {0};

        assert_int_equal(one(fuzz, "c\1c\2c\2", RAMET_FUZZ_OK).new_counters, 2);
        expected[1] = 1;
        expected[2] = 2;
        assert_memory_equal(counters, expected, sizeof expected);
        /* To what there is; what the guest had counted before it was ready is no one's. */
        assert_int_equal(one(fuzz, "c\2c\3c\7", RAMET_FUZZ_OK).new_counters, 2);
        expected[2] = 3;
        expected[3] = 1;
        expected[7] = 1;
        assert_memory_equal(counters, expected, sizeof expected);
        assert_int_equal(one(fuzz, "n", RAMET_FUZZ_OK).new_counters, 0);
        assert_memory_equal(counters, expected, sizeof expected);
        for (int i = 0; i < 300; i++)
                one(fuzz, "c\1", RAMET_FUZZ_OK);
        assert_int_equal(counters[1], 255);
        /* Of a crash, too. */
        assert_int_equal(one(fuzz, "c\5u", RAMET_FUZZ_CRASH).new_counters, 1);
        assert_int_equal(counters[5], 1);
        ramet_fuzz_destroy(fuzz);
}

static void the_shorter_counts(void **state)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz *fuzz;

        options.ncounters = 3;
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        one(fuzz, "c\1c\2c\3c\4", RAMET_FUZZ_OK);
        assert_int_equal(counters[2], 1);
        assert_int_equal(counters[3] | counters[4], 0);
        ramet_fuzz_destroy(fuzz);
        options.ncounters = sizeof counters;
        options.coverage = "input_length"; /* 4 bytes, of which one changes */
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        memset(counters, 0, sizeof counters);
        assert_int_equal(one(fuzz, "xxxx", RAMET_FUZZ_OK).new_counters, 1);
        assert_int_equal(counters[0], 4);
        ramet_fuzz_destroy(fuzz);
}

static void same_again(void **state)
{
        static const char *const inputs[] = {"c\1d\3c\2s", "d\40l", "n", "u", "d\2e\3"};
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz_result first[5];
        uint8_t seen[5][COUNTERS];
        struct ramet_fuzz *fuzz;

        options.count_dirty = true;
        api_ok(ramet_fuzz_create(api_ctx, &options, &fuzz));
        for (int i = 0; i < 40; i++) {
                struct ramet_fuzz_result result = {.size = sizeof result}, *want = &first[i % 5];
                const char *in = inputs[i % 5];
                int r;

                memset(counters, 0, sizeof counters);
                r = api_ok(ramet_fuzz_one(fuzz, (const uint8_t *)in, strlen(in), &result));
                assert_int_equal(r, i % 5 < 3 ? RAMET_FUZZ_OK : RAMET_FUZZ_CRASH);
                if (i < 5) {
                        *want = result;
                        memcpy(seen[i], counters, sizeof counters);
                }
                assert_int_equal(result.value, want->value);
                assert_int_equal(result.reason, want->reason);
                assert_int_equal(result.status, want->status);
                assert_int_equal(result.dirty_bytes, want->dirty_bytes);
                assert_memory_equal(counters, seen[i % 5], sizeof counters);
        }
        assert_int_equal(first[1].dirty_bytes - first[2].dirty_bytes, 32 * 4096);
        assert_true(first[2].dirty_bytes > 0);
        ramet_fuzz_destroy(fuzz);
}

/* --- the machine and its report --- */

static void vm_case(void **state)
{
        struct ramet_fuzz *fuzz = create();
        struct ramet_regs regs = {.size = sizeof regs};

        assert_null(ramet_fuzz_vm(NULL));
        one(fuzz, "u", RAMET_FUZZ_CRASH);
        api_ok(ramet_vm_get_regs(ramet_fuzz_vm(fuzz), 0, &regs));
        assert_int_equal(regs.cs.selector & 3, 3); /* as the input has left it */
        ramet_fuzz_destroy(fuzz);
}

static void report_case(void **state)
{
        static char text[16384];
        struct ramet_fuzz *fuzz = create();

        api_fails(ramet_fuzz_report(NULL, text, sizeof text), -EINVAL, "fuzz");
        api_fails(ramet_fuzz_report(fuzz, NULL, sizeof text), -EINVAL, "buf");
        api_fails(ramet_fuzz_report(fuzz, text, 0), -EINVAL, "size");
        api_fails(ramet_fuzz_report(fuzz, text, sizeof text), -ENODATA, "input");
        one(fuzz, "u", RAMET_FUZZ_CRASH);
        api_ok(ramet_fuzz_report(fuzz, text, sizeof text));
        assert_non_null(strstr(text, "0xd8000000"));
        assert_non_null(strstr(text, "serve"));
        one(fuzz, "f", RAMET_FUZZ_CRASH);
        api_ok(ramet_fuzz_report(fuzz, text, sizeof text));
        assert_non_null(strstr(text, "cr2=300000000")); /* what it has printed */
        assert_non_null(strstr(text, "serve"));         /* beyond the trap */
        memset(text, 'x', sizeof text);
        api_ok(ramet_fuzz_report(fuzz, text, 10));
        assert_int_equal(strlen(text), 9);
        assert_int_equal(text[10], 'x');
        ramet_fuzz_destroy(fuzz);
}

/* In a child, since it ends the program; which must not come back to cmocka. */
static _Noreturn void abort_in_child(int err_fd)
{
        struct ramet_guest guest = guest_of(NULL);
        struct ramet_fuzz_options options = options_of(&guest);
        struct ramet_fuzz *fuzz;

        signal(SIGABRT, SIG_DFL);
        dup2(err_fd, STDERR_FILENO);
        if (ramet_fuzz_create(api_ctx, &options, &fuzz) == 0 &&
            ramet_fuzz_one(fuzz, (const uint8_t *)"u", 1, NULL) == RAMET_FUZZ_CRASH)
                ramet_fuzz_abort(fuzz);
        _exit(1);
}

static void abort_case(void **state)
{
        static char text[16384];
        int out[2], status;
        size_t len = 0;
        ssize_t n;
        pid_t pid;

        assert_return_code(pipe(out), errno);
        pid = fork();
        assert_return_code(pid, errno);
        if (pid == 0)
                abort_in_child(out[1]);
        close(out[1]);
        while (len < sizeof text - 1 && (n = read(out[0], text + len, sizeof text - 1 - len)) > 0)
                len += (size_t)n;
        close(out[0]);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
        assert_non_null(strstr(text, "0xd8000000"));
}

/* --- many --- */

static void destroy_case(void **state)
{
        unsigned threads, fds;

        ramet_fuzz_destroy(NULL);
        ramet_fuzz_destroy(create());
        threads = api_threads();
        fds = api_descriptors();
        for (int i = 0; i < 3; i++)
                ramet_fuzz_destroy(create());
        assert_int_equal(api_threads(), threads);
        assert_int_equal(api_descriptors(), fds);
}

static unsigned lines(const char *file)
{
        FILE *f = fopen(file, "r");
        unsigned n = 0;
        int c;

        assert_non_null(f);
        while ((c = fgetc(f)) != EOF)
                n += c == '\n';
        fclose(f);
        return n;
}

/* Pages of memory that the process has. */
static unsigned long resident(void)
{
        FILE *f = fopen("/proc/self/statm", "r");
        unsigned long all, now;

        assert_non_null(f);
        assert_int_equal(fscanf(f, "%lu %lu", &all, &now), 2);
        fclose(f);
        return now;
}

static double now_s(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void thousands_without_growth(void **state)
{
        static const char *const inputs[] = {"n", "c\1s", "d\12", "u", "e\1", "ssssssss", "d\1l"};
        struct ramet_fuzz *fuzz = create();
        unsigned fds = 0, maps = 0, threads = 0, n;
        unsigned long memory __attribute__((unused)) = 0;
        double end = now_s() + 4;

        for (n = 0; n < 20000 && now_s() < end; n++) {
                if (n == 100) {
                        fds = api_descriptors();
                        threads = api_threads();
                        maps = lines("/proc/self/maps");
                        memory = resident();
                }
                (void)api_ok(ramet_fuzz_one(fuzz, (const uint8_t *)inputs[n % 7],
                                            strlen(inputs[n % 7]), NULL));
        }
        print_message("# %u inputs\n", n);
        assert_true(n > 500);
        assert_int_equal(api_descriptors(), fds);
        assert_int_equal(api_threads(), threads);
        assert_in_range(lines("/proc/self/maps"), maps - 8, maps + 8); /* malloc's, a page's */
#ifndef __SANITIZE_ADDRESS__ /* which keeps what has been freed, for a while and 256 MiB */
        assert_in_range(resident(), 0, memory + 64);
#endif
        ramet_fuzz_destroy(fuzz);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_fuzz_create", create_case},
                {"ramet_fuzz_create: what is wrong", create_fails},
                {"ramet_fuzz_destroy", destroy_case},
                {"ramet_fuzz_one", one_case},
                {"ramet_fuzz_one: bad arguments", bad_arguments},
                {"ramet_fuzz_one: an empty input", empty_input},
                {"ramet_fuzz_one: how it can end", outcomes},
                {"ramet_fuzz_one: time-outs and limits", timeouts},
                {"ramet_fuzz_one: long inputs are cut", long_input_is_cut},
                {"ramet_fuzz_one: a buffer in pieces", split_buffer},
                {"ramet_fuzz_one: nothing reaches the next", nothing_is_left},
                {"ramet_fuzz_one: holes of the template stay empty", holes_stay_empty},
                {"ramet_fuzz_one: coverage is added", coverage_is_added},
                {"ramet_fuzz_one: the shorter array counts", the_shorter_counts},
                {"ramet_fuzz_one: the same input again", same_again},
                {"ramet_fuzz_one: thousands", thousands_without_growth},
                {"ramet_fuzz_vm", vm_case},
                {"ramet_fuzz_report", report_case},
                {"ramet_fuzz_abort", abort_case},
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("fuzz", tests, NULL, NULL);
}
