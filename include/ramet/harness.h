/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of what runs in a machine. The guest boots once; each case runs in a machine that is a copy
 * of it at that point, several at a time, and what one does no other sees.
 *
 *      #include <ramet/harness.h>
 *
 *      RAMET_GUEST(.kernel = "kernel.elf", .ready_console = "init done");
 *
 *      RAMET_CASE(fork_bomb_is_contained, .timeout_ns = 2 * RAMET_SECOND)
 *      {
 *              ramet_console_send(t, "bomb\n");
 *              ramet_expect_console(t, "limit reached");
 *              ramet_expect_status(t, 0);
 *      }
 *
 *      RAMET_MAIN()
 *
 * prints TAP, and knows options (--help). A case fails at the first expectation that is not met; it
 * then ends there, without a return (longjmp), so it keeps no resources of its own but what
 * ramet_on_end() frees. Cases are found in a section of the program, so there is nothing to list.
 */
#ifndef RAMET_HARNESS_H
#define RAMET_HARNESS_H

#include <ramet/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ramet_test; /* a case that runs; its thread's own */

/* The guest that all cases start from. Zero means the default. */
struct ramet_guest {
        size_t size; /* sizeof this struct */

        /* As in struct ramet_vm_config. Files that are not in the current directory are looked for
         * in the program's. */
        const char *kernel, *initramfs, *cmdline;
        uint64_t memory_bytes;
        unsigned vcpus;
        const struct ramet_vm_config *config; /* the rest of it, and what is 0 above; or NULL.
                                               * isa-debug-exit is at 0xf4 if it says nothing */

        const char *symbols; /* ELF file with symbols; NULL: the kernel, if it has some */

        /* It is ready when it has printed this, or if NULL, when it rings its doorbell. */
        const char *ready_console;
        uint64_t ready_timeout_ns; /* 0: 60 s */
};

struct ramet_case {
        size_t size; /* sizeof this struct */
        const char *name;
        void (*run)(struct ramet_test *t);
        const char *file;
        int line;
        uint64_t timeout_ns; /* of the case as a whole; 0: that of the run, 10 s */
        const char *skip;    /* why it is not run; NULL: it is */
        void *data;          /* the program's own: ramet_test_data() */
};

/* How a case's machine comes to be. */
enum ramet_isolation {
        RAMET_BY_RESET = 0, /* each worker has one clone, which is reset before each case */
        RAMET_BY_CLONE,     /* each case has a clone of its own */
};

struct ramet_run_options {
        size_t size;   /* sizeof this struct */
        unsigned jobs; /* cases at a time; 0: as many as there are processors, at most 8 */
        enum ramet_isolation isolation;
        const char *const *patterns; /* names or globs (fnmatch) of cases to run; NULL: all */
        unsigned npatterns;
        const char *junit; /* file for a JUnit report; NULL: none */
        int tap_fd;        /* 0: standard output; -1: none */
        bool list;         /* only print the names */
        bool no_dirty;     /* do not count dirty pages */

        uint64_t timeout_ns; /* of cases that have none of their own; 0: 10 s */
        const char *name;    /* of the suite, in the JUnit report; NULL: "ramet" */
};

struct ramet_run_result {
        size_t size; /* sizeof this struct, set by the caller */
        unsigned passed, failed, skipped;
        uint64_t boot_ns, run_ns; /* until it was ready; all cases together, wall clock */
};

/* Boot the guest, run cases, tell about them. 0 when none failed, 1 when some did; -ENOENT: no case
 * is left to run; -errno of ramet_boot_guest(), or of writing what is told. */
RAMET_API int ramet_run_cases(struct ramet_ctx *ctx, const struct ramet_guest *guest,
                              const struct ramet_case *const *cases, size_t ncases,
                              const struct ramet_run_options *options,
                              struct ramet_run_result *result);
/* A whole main(): options from the command line. The exit status: 0, 1 (a case failed), 2 (usage,
 * or nothing could be run). @begin, @end: the section. RAMET_JOBS in the environment is --jobs. */
RAMET_API int ramet_harness_main(int argc, char **argv, const struct ramet_guest *guest,
                                 const struct ramet_case *const *begin,
                                 const struct ramet_case *const *end);

/* --- in a case. What returns int otherwise returns 0 or -errno; expectations do not return when
 * they are not met. --- */

/* Its machine, which is paused at the ready point when the case begins. What is set in a machine
 * (breakpoints, handlers, limits) stays over a reset, so one that a case has asked for is replaced
 * by a fresh clone before the next case: some milliseconds, which ramet_get(), ramet_put() and the
 * expectations do not cost. */
RAMET_API struct ramet_vm *ramet_test_vm(struct ramet_test *t);
RAMET_API const char *ramet_test_name(const struct ramet_test *t);
RAMET_API void *ramet_test_data(const struct ramet_test *t);

/* End the case here: failed, with a reason; skipped, with a reason; passed. A thread that the case
 * has made ends itself by them, and a failure counts; not for handlers (ramet_vm_handle). */
RAMET_API void ramet_fail(struct ramet_test *t, const char *format, ...)
        __attribute__((format(printf, 2, 3), noreturn));
RAMET_API void ramet_skip(struct ramet_test *t, const char *format, ...)
        __attribute__((format(printf, 2, 3), noreturn));
RAMET_API void ramet_pass(struct ramet_test *t) __attribute__((noreturn));
/* A line that goes with the result. */
RAMET_API void ramet_note(struct ramet_test *t, const char *format, ...)
        __attribute__((format(printf, 2, 3)));
/* Call @fn when the case ends, however it does; the last one first. At most 16. */
RAMET_API void ramet_on_end(struct ramet_test *t, void (*fn)(void *data), void *data);

#define ramet_expect(t, what)                                                                      \
        ((what) ? (void)0 : ramet_fail((t), "%s:%d: %s", __FILE__, __LINE__, #what))

/* The same of two numbers, which are told when they differ. */
#define ramet_expect_equal(t, actual, expected)                                                    \
        ramet_expect_equal_((t), __FILE__, __LINE__, #actual, (uint64_t)(actual),                  \
                            (uint64_t)(expected))
static inline void ramet_expect_equal_(struct ramet_test *t, const char *file, int line,
                                       const char *what, uint64_t actual, uint64_t expected)
{
        if (actual != expected)
                ramet_fail(t, "%s:%d: %s: %lld (0x%llx), expected %lld (0x%llx)", file, line, what,
                           (long long)actual, (unsigned long long)actual, (long long)expected,
                           (unsigned long long)expected);
}

/* Type. Waits for room while the guest runs. */
RAMET_API void ramet_console_send(struct ramet_test *t, const char *text);
/* Let it run until it prints @text, in what no earlier expectation has used; or fail. */
RAMET_API void ramet_expect_console(struct ramet_test *t, const char *text);
/* Let it run to its end, by isa-debug-exit with this value; or with this reason. */
RAMET_API void ramet_expect_status(struct ramet_test *t, int value);
RAMET_API void ramet_expect_exit(struct ramet_test *t, enum ramet_exit reason);
/* Let it run until it rings; returns the value it rang with. */
RAMET_API uint32_t ramet_expect_doorbell(struct ramet_test *t);
/* What it has printed so far, NUL-terminated; the library's, until the next call. */
RAMET_API const char *ramet_console_text(struct ramet_test *t);

/* A symbol of the guest: its address, and its size (may be NULL); or fail. */
RAMET_API uint64_t ramet_symbol(struct ramet_test *t, const char *name, uint64_t *size);
/* Read and write a variable of the guest; or fail. @len is at most the symbol's size, if it has
 * one.
 */
RAMET_API void ramet_get(struct ramet_test *t, const char *symbol, void *buf, size_t len);
RAMET_API void ramet_put(struct ramet_test *t, const char *symbol, const void *buf, size_t len);

/* What is told of a machine that crashed: registers, a backtrace by frame pointers with symbols,
 * the last lines of the console. Into @buf, lines, NUL-terminated, cut off where they do not fit.
 * @symbols: an ELF file, NULL: addresses only. 0 or -errno. */
RAMET_API int ramet_crash_report(struct ramet_vm *vm, unsigned vcpu, const char *symbols, char *buf,
                                 size_t size);

/* --- a guest of one's own loop: what the cmocka and fuzz adapters are made of --- */

struct ramet_booted; /* a guest at its ready point: a template, and its symbols */

/* Run the guest to its ready point. 0; -ETIMEDOUT (it never got there) or -ECHILD (it ended
 * before), and the last error has what it printed last; or -errno of ramet_vm_create() and of
 * reading symbols. */
RAMET_API int ramet_boot_guest(struct ramet_ctx *ctx, const struct ramet_guest *guest,
                               struct ramet_booted **booted);
RAMET_API void ramet_booted_free(struct ramet_booted *booted); /* NULL is fine */
/* A clone, paused at the ready point, with what is not the template's of the guest's configuration:
 * limits, report_unhandled, console_bytes, dirty_ring. As ramet_template_spawn(). */
RAMET_API int ramet_booted_spawn(const struct ramet_booted *booted, struct ramet_vm **clone);
/* To spawn other clones from; the guest's own, not to be released. NULL for NULL. */
RAMET_API struct ramet_template *ramet_booted_template(const struct ramet_booted *booted);
/* -ENOENT: no such symbol; -ENOTUNIQ: several files of the guest have one of their own. @size may
 * be NULL. */
RAMET_API int ramet_booted_symbol(const struct ramet_booted *booted, const char *name,
                                  uint64_t *address, uint64_t *size);
/* Run @c in a fresh clone and tell the outcome: 0 passed, 1 failed, 2 skipped, and why in @why; or
 * -errno. For other test frameworks. */
RAMET_API int ramet_run_case(struct ramet_booted *booted, const struct ramet_case *c, char *why,
                             size_t size);

/* --- what a test program is written with --- */

#define RAMET_GUEST(...)                                                                           \
        static const struct ramet_guest ramet_the_guest_ = {.size = sizeof(struct ramet_guest),    \
                                                            __VA_ARGS__}

#define RAMET_CASE(fn, ...)                                                                        \
        static void fn(struct ramet_test *t);                                                      \
        static const struct ramet_case ramet_case_##fn##_ = {.size = sizeof(struct ramet_case),    \
                                                             .name = #fn,                          \
                                                             .run = fn,                            \
                                                             .file = __FILE__,                     \
                                                             .line = __LINE__,                     \
                                                             ##__VA_ARGS__};                       \
        static const struct ramet_case *const ramet_case_entry_##fn##_                             \
                __attribute__((used, section("ramet_cases"))) = &ramet_case_##fn##_;               \
        static void fn(struct ramet_test *t __attribute__((unused)))

#define RAMET_MAIN()                                                                               \
        extern const struct ramet_case *const __start_ramet_cases[] __attribute__((weak));         \
        extern const struct ramet_case *const __stop_ramet_cases[] __attribute__((weak));          \
        int main(int argc, char **argv)                                                            \
        {                                                                                          \
                return ramet_harness_main(argc, argv, &ramet_the_guest_, __start_ramet_cases,      \
                                          __stop_ramet_cases);                                     \
        }

#ifdef __cplusplus
}
#endif

#endif
