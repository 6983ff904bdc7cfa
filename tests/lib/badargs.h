/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the rows of bad arguments have to do with: badargs_gen.py writes the rows (badargs_rows.c),
 * badargs.c runs them. A row is one call of one public function with one thing wrong about it.
 */
#ifndef BADARGS_H
#define BADARGS_H

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <ramet/fuzz.h>
#include <ramet/process.h>

/* The state of e->vm, and where the call is made. */
enum state {
        NOTHING,      /* there is no machine: the call needs none */
        NEW,          /* created, never started */
        PAUSED,       /* a clone that does not run; its first processor has rung */
        RUNNING,      /* a clone whose processor counts */
        ENDED,        /* it powered off */
        HELD,         /* a ring has been taken, and not answered */
        SECTION,      /* between begin and end */
        HANDLER,      /* in a handler of that machine */
        PROCESS,      /* e->process runs */
        PROCESS_GONE, /* e->process has been reaped */
        IN_CASE,      /* in a case of the harness: e->t */
};

/* What must come of it. That the process lives on goes without saying. */
enum want {
        REFUSED,      /* -EINVAL and a line */
        SOME_REFUSAL, /* a code that is documented, and a line */
        SOME,         /* negative: a code that is documented, and a line; or not negative */
        BUSY,         /* -EBUSY and a line */
        DEADLOCK,     /* -EDEADLK and a line */
        FAILS,        /* the case of the harness fails, with a reason */
        RETURNS,      /* nothing to be seen but that it comes back, or ends its thread */
        NOT_ZERO,     /* an exit status */
};

struct env {
        struct ramet_ctx *ctx;
        struct ramet_template *tmpl;
        struct ramet_vm *vm;
        struct ramet_spawner *spawner;
        struct ramet_process *process;
        struct ramet_frozen *frozen;
        struct ramet_booted *booted;
        struct ramet_fuzz *fuzz;
        struct ramet_test *t;

        /* for what comes out of a call; what is not NULL is destroyed after it */
        struct ramet_ctx *ctx_out;
        struct ramet_vm *vm_out, *clones[4];
        struct ramet_template *tmpl_out;
        struct ramet_spawner *spawner_out;
        struct ramet_process *process_out;
        struct ramet_frozen *frozen_out;
        struct ramet_booted *booted_out;
        struct ramet_fuzz *fuzz_out;

        struct ramet_vm_event event;
        struct ramet_event process_event;
        uint8_t buf[4096];
        uint64_t number, number2;
        unsigned at;
        void *pointer;
        const char *text;
};

struct row {
        const char *function, *what; /* "ramet_vm_read", "buf: NULL" */
        enum state state;
        enum want want;
        bool harness;      /* it needs e->booted, or e->fuzz */
        const char *codes; /* that its comment names, "EINVAL EFAULT"; "*": any */
        long (*call)(struct env *e);
};

extern const struct row rows[];
extern const unsigned nrows;

/* Good arguments; a copy each time, the library has no reason to keep it. */
const char *good_kernel(void);
struct ramet_vm_config *good_vm_config(void);
struct ramet_vm_options *good_vm_options(void);
struct ramet_spawn_options *good_spawn_options(void);
struct ramet_clone_options *good_clone_options(void);
struct ramet_template_info *good_template_info(void);
struct ramet_regs *good_regs(void);
struct ramet_handler *good_handler(void);
struct ramet_limits *good_limits(void);
struct ramet_vm_stats *good_vm_stats(void);
struct ramet_guest *good_guest(void);
struct ramet_case *good_case(void);
const struct ramet_case *const *good_cases(void);
struct ramet_run_options *good_run_options(void);
struct ramet_run_result *good_run_result(void);
struct ramet_fuzz_options *good_fuzz_options(void);
struct ramet_fuzz_result *good_fuzz_result(void);
char **good_argv(void);
void good_end(void *data);

/* A struct of @size bytes that says that it has @said bytes. What lies behind what there is of it
 * cannot be touched. */
void *sized(const void *good, size_t size, size_t said);
/* The same with @more bytes of 0xff behind it, which it counts as its own. */
void *tailed(const void *good, size_t size, size_t more);

#endif
