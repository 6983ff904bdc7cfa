/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the harness share. They use nothing of the library but its public headers, its
 * last error and what is in src/base: a harness could as well stand outside.
 *
 *      main.c    options, the section of cases          junit.c   the report in XML
 *      run.c     workers, machines, order of results    tap.c     the lines that are printed
 *      case.c    one case in one machine                report.c  crash reports
 *      test.c    what a case calls                      symbols.c, backtrace.c, text.c
 *      boot.c    a guest to its ready point
 */
#ifndef RAMET_HARNESS_INTERNAL_H
#define RAMET_HARNESS_INTERNAL_H

#include <pthread.h>
#include <setjmp.h>

#include <ramet/harness.h>

#include "base/err.h"
#include "harness/symbols.h"
#include "harness/text.h"

#define HARNESS_TIMEOUT_NS (10 * RAMET_SECOND) /* of a case */
#define HARNESS_ENDS_MAX   16

/* --- error.c --- */

/* @ret; when it is negative, @err is what ramet_last_error() says in this thread. An empty text
 * becomes strerror(-ret). */
int harness_result(int ret, struct err *err);
/* A bad argument: -EINVAL. */
int harness_invalid(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
int harness_null(const char *call, const char *argument);

/* --- boot.c --- */

struct ramet_booted {
        struct ramet_ctx *ctx;
        struct ramet_template *tmpl;
        struct symbols *symbols;            /* NULL: none */
        struct ramet_spawn_options options; /* of ramet_booted_spawn() */
        unsigned vcpus;
        uint64_t boot_ns;
};

/* --- case.c --- */

enum outcome_kind { OUTCOME_PASSED, OUTCOME_FAILED, OUTCOME_SKIPPED };

/* What became of a case. Zeroed: passed, with nothing to say. */
struct outcome {
        enum outcome_kind kind;
        struct text reason;  /* one line, visible */
        struct text notes;   /* lines */
        struct text report;  /* lines: of a crash; of the console, if it failed otherwise */
        struct text console; /* what it printed, as it is */
        uint64_t ns;
        bool counted; /* dirty_pages */
        uint64_t dirty_pages;
};

struct ramet_test {
        const struct ramet_booted *booted;
        const struct ramet_case *c;
        struct ramet_vm *vm;
        struct outcome *outcome;
        uint64_t timeout_ns, deadline_ns;

        pthread_t thread; /* whose stack jump is in */
        jmp_buf jump;
        pthread_mutex_t lock; /* of outcome: another thread of the case's may note and fail */

        struct text console; /* what it has printed: the last CONSOLE_KEPT bytes, at least */
        size_t used;         /* so much of it has been expected */
        bool watching;       /* a text is watched for */
        bool vm_taken;       /* ramet_test_vm(): what the case has set in it is not known */

        struct {
                void (*fn)(void *data);
                void *data;
        } ends[HARNESS_ENDS_MAX];
        unsigned nends;
};

/* Run @c in @vm, which is at the ready point and paused. @timeout_ns: if the case has none.
 * *vm_taken: @vm should not be used again by reset. */
void case_run(const struct ramet_booted *booted, struct ramet_vm *vm, const struct ramet_case *c,
              uint64_t timeout_ns, bool dirty, struct outcome *outcome, bool *vm_taken);
/* The outcome of one that is not run. */
void case_skip(const struct ramet_case *c, struct outcome *outcome);
/* The case's own time-out, or @timeout_ns, or the default. */
uint64_t case_timeout(const struct ramet_case *c, uint64_t timeout_ns);

/* The caller's, checked: 0 or -EINVAL with err set. */
int case_copy(const struct ramet_case *from, struct ramet_case *to, struct err *err);
/* The guest's limits, and that of a case of @timeout_ns. */
int case_limits(struct ramet_vm *vm, const struct ramet_booted *booted, uint64_t timeout_ns);

/* --- test.c --- */

/* Call @fn(@t) until it returns or ends the case. */
void test_call(struct ramet_test *t, void (*fn)(struct ramet_test *t));
/* Read what it has printed and nobody has taken yet. */
void test_drain(struct ramet_test *t);
/* Call what ramet_on_end() was given, the last one first. */
void test_end(struct ramet_test *t);

/* --- tap.c, junit.c --- */

void outcome_fini(struct outcome *o);
/* One result, with its comments. @number: from 1. */
void tap_result(struct text *out, unsigned number, const struct ramet_case *c,
                const struct outcome *o);
/* "0.8 ms", "1.2 s" */
void tap_duration(struct text *out, uint64_t ns);

struct result {
        struct ramet_case c;
        struct outcome outcome;
        bool done;
};

/* The whole report. */
void junit_write(struct text *out, const char *suite, const struct result *results, size_t n,
                 uint64_t run_ns);

/* Write all of it: 0 or -errno. */
int harness_write(int fd, const struct text *t);

#endif
