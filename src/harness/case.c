/* SPDX-License-Identifier: Apache-2.0 */
/* One case in one machine, from its ready point to what became of it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/sized.h"
#include "harness/internal.h"
#include "harness/report.h"

uint64_t case_timeout(const struct ramet_case *c, uint64_t timeout_ns)
{
        if (c->timeout_ns)
                return c->timeout_ns;
        return timeout_ns ? timeout_ns : HARNESS_TIMEOUT_NS;
}

/* What it did took longer than it may, outside of what the harness waits for. */
static void check_time(struct ramet_test *t)
{
        struct outcome *o = t->outcome;

        if (o->kind != OUTCOME_PASSED || o->ns <= t->timeout_ns)
                return;
        o->kind = OUTCOME_FAILED;
        text_add(&o->reason, "timed out: took ");
        tap_duration(&o->reason, o->ns);
        text_add(&o->reason, " of ");
        tap_duration(&o->reason, t->timeout_ns);
}

static void count_pages(struct ramet_test *t)
{
        struct outcome *o = t->outcome;

        o->counted = ramet_vm_dirty_collect(t->vm, NULL, 0, &o->dirty_pages) == 0;
}

void case_run(const struct ramet_booted *booted, struct ramet_vm *vm, const struct ramet_case *c,
              uint64_t timeout_ns, bool dirty, struct outcome *outcome, bool *vm_taken)
{
        struct ramet_test t = {
                .booted = booted,
                .c = c,
                .vm = vm,
                .outcome = outcome,
                .timeout_ns = case_timeout(c, timeout_ns),
                .thread = pthread_self(),
                .lock = PTHREAD_MUTEX_INITIALIZER,
        };
        uint64_t begin = clock_now_ns();

        t.deadline_ns = begin + t.timeout_ns < begin ? UINT64_MAX : begin + t.timeout_ns;
        test_call(&t, c->run);
        test_end(&t);
        outcome->ns = clock_now_ns() - begin;
        check_time(&t);
        ramet_vm_pause(vm);
        if (dirty)
                count_pages(&t);
        test_drain(&t);
        if (t.watching)
                ramet_vm_console_watch(vm, NULL);
        if (outcome->kind == OUTCOME_FAILED)
                report_console(&outcome->report, text_str(&t.console), t.console.len);
        outcome->console = t.console;
        *vm_taken = t.vm_taken;
}

void case_skip(const struct ramet_case *c, struct outcome *outcome)
{
        outcome->kind = OUTCOME_SKIPPED;
        text_visible(&outcome->reason, c->skip, strlen(c->skip));
}

int case_copy(const struct ramet_case *from, struct ramet_case *to, struct err *err)
{
        int ret =
                sized_copy_in("case", from, to, sizeof *to, SIZED_TO(struct ramet_case, data), err);

        if (ret == 0 && !to->name)
                ret = err_input(err, "case.name: NULL, expected a name");
        if (ret == 0 && !to->run && !to->skip)
                ret = err_input(err, "case %s: run: NULL, expected a function", to->name);
        return ret;
}

/* The limit stops a machine that the case itself waits for; its own waits end a little before. */
int case_limits(struct ramet_vm *vm, const struct ramet_booted *booted, uint64_t timeout_ns)
{
        struct ramet_limits limits = booted->options.limits;
        uint64_t ns = timeout_ns + timeout_ns / 8 + 50 * RAMET_MILLISECOND;

        if (ns < timeout_ns)
                ns = 0;
        if (!limits.run_ns || (ns && ns < limits.run_ns))
                limits.run_ns = ns;
        return ramet_vm_set_limits(vm, &limits);
}

int ramet_run_case(struct ramet_booted *booted, const struct ramet_case *c, char *why, size_t size)
{
        struct outcome outcome = {0};
        struct ramet_case copy = {0};
        struct ramet_vm *vm = NULL;
        struct err err = {0};
        bool taken;
        int ret;

        if (!booted || (!why && size))
                return harness_null(__func__, booted ? "why" : "booted");
        ret = case_copy(c, &copy, &err);
        if (ret < 0)
                return harness_result(ret, &err);
        if (copy.skip) {
                case_skip(&copy, &outcome);
        } else {
                ret = ramet_booted_spawn(booted, &vm);
                if (ret == 0)
                        ret = case_limits(vm, booted, case_timeout(&copy, 0));
                if (ret == 0)
                        case_run(booted, vm, &copy, 0, false, &outcome, &taken);
                ramet_vm_destroy(vm);
        }
        if (ret == 0 && size) {
                if (outcome.notes.len || outcome.report.len)
                        text_add(&outcome.reason, "\n%s%s", text_str(&outcome.notes),
                                 text_str(&outcome.report));
                text_cut(&outcome.reason, why, size);
        }
        if (ret == 0)
                ret = outcome.kind == OUTCOME_FAILED ? 1 : outcome.kind == OUTCOME_SKIPPED ? 2 : 0;
        outcome_fini(&outcome);
        return ret;
}
