/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running cases: workers take them from a list in its order, each with a machine of its own, and
 * results are printed in that order, too, as soon as all before them are there.
 *
 *      worker:  take the next case -> machine (reset, or a clone) -> case_run() -> print
 *
 * By reset, a worker's machine goes on to its next case unless the last one has had its hands on
 * it (ramet_test_vm): breakpoints, handlers and limits stay over a reset, and nobody knows which
 * there are. Such a machine is replaced by a fresh clone.
 *
 * The calling thread is a worker; if no further thread can be had, it does all.
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sized.h"
#include "harness/internal.h"

#define JOBS_DEFAULT_MAX 8u
#define JOBS_MAX         256u

struct run {
        struct ramet_run_options options;
        struct ramet_booted *booted; /* NULL: nothing is to be run, or not yet */
        int junit_fd;                /* -1: none */
        struct result *results;
        size_t n;
        _Atomic size_t next; /* that no worker has taken */

        pthread_mutex_t lock;
        size_t told;   /* [lock] results that have been printed */
        int tap_error; /* [lock] of writing them */
        unsigned passed, failed, skipped;
};

struct worker {
        struct run *run;
        struct ramet_vm *vm; /* NULL: none yet */
        uint64_t limit_ns;   /* the time-out that its limits are for */
        bool taken;          /* it is not to be used again */
};

/* --- telling --- */

static void tell(struct run *run, struct text *line)
{
        int ret = 0;

        if (run->options.tap_fd >= 0 && run->tap_error == 0)
                ret = harness_write(run->options.tap_fd, line);
        if (ret < 0)
                run->tap_error = ret;
        text_clear(line);
}

/* What nobody needs any more goes: with many cases, consoles are most of the memory. */
static void forget_outcome(struct run *run, struct outcome *o)
{
        if (run->options.junit)
                return;
        outcome_fini(o);
        *o = (struct outcome){.kind = o->kind};
}

static void result_done(struct run *run, struct result *result)
{
        struct text line = {0};

        pthread_mutex_lock(&run->lock);
        result->done = true;
        for (; run->told < run->n && run->results[run->told].done; run->told++) {
                struct result *r = &run->results[run->told];

                tap_result(&line, (unsigned)run->told + 1, &r->c, &r->outcome);
                tell(run, &line);
                run->passed += r->outcome.kind == OUTCOME_PASSED;
                run->failed += r->outcome.kind == OUTCOME_FAILED;
                run->skipped += r->outcome.kind == OUTCOME_SKIPPED;
                forget_outcome(run, &r->outcome);
        }
        pthread_mutex_unlock(&run->lock);
        text_fini(&line);
}

/* --- workers --- */

/* A machine at the ready point: the one that is there, if it may be used again. */
static int get_machine(struct worker *w)
{
        const struct run *run = w->run;
        int ret;

        if (w->vm && !w->taken && run->options.isolation == RAMET_BY_RESET &&
            ramet_vm_reset(w->vm) == 0)
                return 0;
        ramet_vm_destroy(w->vm);
        w->vm = NULL;
        w->taken = false;
        w->limit_ns = 0;
        ret = ramet_booted_spawn(run->booted, &w->vm);
        if (ret == 0 && !run->options.no_dirty)
                ret = ramet_vm_dirty_start(w->vm); /* each reset begins anew */
        return ret;
}

static int prepare(struct worker *w, const struct ramet_case *c)
{
        uint64_t timeout_ns = case_timeout(c, w->run->options.timeout_ns);
        int ret = get_machine(w);

        if (ret == 0 && w->limit_ns != timeout_ns) {
                ret = case_limits(w->vm, w->run->booted, timeout_ns);
                w->limit_ns = timeout_ns;
        }
        return ret;
}

static void run_one(struct worker *w, struct result *r)
{
        struct outcome *o = &r->outcome;

        if (r->c.skip) {
                case_skip(&r->c, o);
        } else if (prepare(w, &r->c) < 0) {
                o->kind = OUTCOME_FAILED;
                text_add(&o->reason, "no machine for it: %s", ramet_last_error(NULL));
                w->taken = true;
        } else {
                case_run(w->run->booted, w->vm, &r->c, w->run->options.timeout_ns,
                         !w->run->options.no_dirty, o, &w->taken);
        }
}

static void *work(void *arg)
{
        struct worker w = {.run = arg};
        struct run *run = arg;
        size_t i;

        while ((i = atomic_fetch_add(&run->next, 1)) < run->n) {
                run_one(&w, &run->results[i]);
                result_done(run, &run->results[i]);
        }
        ramet_vm_destroy(w.vm);
        return NULL;
}

static unsigned processors(void)
{
        cpu_set_t set;

        if (sched_getaffinity(0, sizeof set, &set) < 0)
                return 1;
        return (unsigned)CPU_COUNT(&set);
}

static unsigned count_jobs(const struct run *run)
{
        unsigned jobs = run->options.jobs;

        if (jobs == 0) {
                jobs = processors();
                jobs = jobs < JOBS_DEFAULT_MAX ? jobs : JOBS_DEFAULT_MAX;
        }
        jobs = jobs < JOBS_MAX ? jobs : JOBS_MAX;
        return jobs < run->n ? jobs : (unsigned)run->n;
}

static unsigned run_all(struct run *run)
{
        unsigned jobs = count_jobs(run), n = 0;
        pthread_t threads[JOBS_MAX];

        while (n + 1 < jobs && pthread_create(&threads[n], NULL, work, run) == 0)
                n++;
        work(run);
        for (unsigned i = 0; i < n; i++)
                pthread_join(threads[i], NULL);
        return n + 1;
}

/* --- a run --- */

static bool matches(const struct ramet_run_options *options, const char *name)
{
        for (unsigned i = 0; i < options->npatterns; i++)
                if (fnmatch(options->patterns[i], name, 0) == 0)
                        return true;
        return options->npatterns == 0;
}

static int select_cases(struct run *run, const struct ramet_case *const *cases, size_t ncases,
                        struct err *err)
{
        run->results = calloc(ncases ? ncases : 1, sizeof *run->results);
        if (!run->results)
                return -ENOMEM;
        for (size_t i = 0; i < ncases; i++) {
                struct result *r = &run->results[run->n];
                int ret = case_copy(cases[i], &r->c, err);

                if (ret < 0)
                        return err_prefix(err, ret, "cases[%zu]", i);
                run->n += matches(&run->options, r->c.name);
        }
        if (run->n)
                return 0;
        if (!ncases)
                err_input(err, "there are no cases");
        else
                err_input(err, "no case matches %s%s", run->options.patterns[0],
                          run->options.npatterns > 1 ? ", or the other patterns" : "");
        return -ENOENT;
}

static bool all_skipped(const struct run *run)
{
        for (size_t i = 0; i < run->n; i++)
                if (!run->results[i].c.skip)
                        return false;
        return true;
}

static void tell_summary(struct run *run, uint64_t boot_ns, uint64_t run_ns, unsigned jobs)
{
        struct text line = {0};

        text_add(&line, "# %u passed, %u failed, %u skipped; boot ", run->passed, run->failed,
                 run->skipped);
        tap_duration(&line, boot_ns);
        text_add(&line, ", cases ");
        tap_duration(&line, run_ns);
        text_add(&line, ", %u at a time\n", jobs);
        tell(run, &line);
        text_fini(&line);
}

/* Before anything runs: whoever cannot have a report knows at once, and a report of an earlier run
 * is not taken for one of this. */
static int open_junit(struct run *run, struct err *err)
{
        const char *path = run->options.junit;

        if (!path)
                return 0;
        run->junit_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (run->junit_fd < 0)
                return err_host(err, errno, "%s: %s", path, strerror(errno));
        return 0;
}

static int write_junit(struct run *run, uint64_t run_ns, struct err *err)
{
        const char *path = run->options.junit;
        struct text out = {0};
        int ret;

        if (!path)
                return 0;
        junit_write(&out, run->options.name ? run->options.name : "ramet", run->results, run->n,
                    run_ns);
        ret = out.failed ? -ENOMEM : harness_write(run->junit_fd, &out);
        if (close(run->junit_fd) < 0 && ret == 0)
                ret = -errno;
        run->junit_fd = -1;
        text_fini(&out);
        return ret < 0 ? err_host(err, -ret, "%s: %s", path, strerror(-ret)) : 0;
}

/* The guest is ready, or nothing needs it. */
static int run_selected(struct run *run, struct ramet_run_result *result, struct err *err)
{
        uint64_t begin = clock_now_ns();
        struct text line = {0};
        unsigned jobs;
        int ret;

        text_add(&line, "1..%zu\n", run->n);
        tell(run, &line);
        text_fini(&line);
        jobs = run_all(run);
        result->run_ns = clock_now_ns() - begin;
        result->boot_ns = run->booted ? run->booted->boot_ns : 0;
        result->passed = run->passed;
        result->failed = run->failed;
        result->skipped = run->skipped;
        tell_summary(run, result->boot_ns, result->run_ns, jobs);
        ret = write_junit(run, result->run_ns, err);
        if (ret == 0 && run->tap_error < 0)
                ret = err_host(err, -run->tap_error, "writing results: %s",
                               strerror(-run->tap_error));
        return ret < 0 ? ret : run->failed > 0;
}

static void list(struct run *run)
{
        struct text line = {0};

        for (size_t i = 0; i < run->n; i++) {
                text_visible(&line, run->results[i].c.name, strlen(run->results[i].c.name));
                text_add(&line, "\n");
        }
        tell(run, &line);
        text_fini(&line);
}

/* Whoever reads the results must not take silence for success. */
static void bail_out(struct run *run)
{
        const char *why = ramet_last_error(NULL);
        struct text line = {0};

        text_add(&line, "Bail out! ");
        text_visible(&line, why, strlen(why));
        text_add(&line, "\n");
        tell(run, &line);
        text_fini(&line);
}

static int check_options(const struct ramet_run_options *options, struct run *run, struct err *err)
{
        struct ramet_run_options *o = &run->options;
        int ret = 0;

        o->size = sizeof *o;
        if (options)
                ret = sized_copy_in("options", options, o, sizeof *o,
                                    SIZED_TO(struct ramet_run_options, name), err);
        if (ret < 0)
                return ret;
        if (o->tap_fd == 0)
                o->tap_fd = STDOUT_FILENO;
        if (o->isolation != RAMET_BY_RESET && o->isolation != RAMET_BY_CLONE)
                return err_input(err, "options.isolation: %d, expected an enum ramet_isolation",
                                 (int)o->isolation);
        if (o->npatterns && !o->patterns)
                return err_input(err, "options.patterns: NULL, expected %u", o->npatterns);
        for (unsigned i = 0; i < o->npatterns; i++)
                if (!o->patterns[i])
                        return err_input(err, "options.patterns[%u]: NULL", i);
        return 0;
}

static int run_cases(struct run *run, struct ramet_ctx *ctx, const struct ramet_guest *guest,
                     struct ramet_run_result *result, struct err *err)
{
        int ret;

        if (run->options.list) {
                list(run);
                return 0;
        }
        ret = open_junit(run, err);
        if (ret < 0)
                return ret;
        if (!all_skipped(run)) {
                ret = ramet_boot_guest(ctx, guest, &run->booted);
                if (ret < 0) {
                        err_host(err, -ret, "%s", ramet_last_error(NULL));
                        err->class = ramet_last_error_is_input(NULL) ? ERR_INPUT : ERR_HOST;
                        bail_out(run);
                        return ret;
                }
        }
        return run_selected(run, result, err);
}

int ramet_run_cases(struct ramet_ctx *ctx, const struct ramet_guest *guest,
                    const struct ramet_case *const *cases, size_t ncases,
                    const struct ramet_run_options *options, struct ramet_run_result *result)
{
        struct run run = {.junit_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};
        struct ramet_run_result got = {.size = sizeof got};
        struct err err = {0};
        int ret, copied;

        if (!ctx || !guest || (ncases && !cases))
                return harness_null(__func__, !ctx ? "ctx" : !guest ? "guest" : "cases");
        ret = check_options(options, &run, &err);
        if (ret == 0 && result)
                ret = sized_copy_out("result", &got, sizeof got, result,
                                     SIZED_TO(struct ramet_run_result, run_ns), &err);
        if (ret == 0)
                ret = select_cases(&run, cases, ncases, &err);
        if (ret == 0)
                ret = run_cases(&run, ctx, guest, &got, &err);
        if (ret >= 0 && result) {
                copied = sized_copy_out("result", &got, sizeof got, result,
                                        SIZED_TO(struct ramet_run_result, run_ns), &err);
                ret = copied < 0 ? copied : ret;
        }
        for (size_t i = 0; i < run.n; i++)
                outcome_fini(&run.results[i].outcome);
        free(run.results);
        if (run.junit_fd >= 0)
                close(run.junit_fd);
        ramet_booted_free(run.booted);
        return harness_result(ret, &err);
}
