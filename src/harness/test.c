/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a case calls. It ends by longjmp() to case.c, from its own thread; another thread of the
 * case's that fails it ends itself instead, and the case has failed when its own thread comes back.
 *
 * Console: what the guest prints is read into t->console, and what expectations have found there
 * is behind t->used. To wait for a text it is watched for, so that the guest stops right behind it;
 * but the watch only sees what is printed from now on. So it is set first, then what is there is
 * looked at, and a beginning of the text at its end makes each further output be looked at, too.
 */
#include "harness/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "harness/report.h"

#define CONSOLE_KEPT (1u << 20)
#define WATCHED_MAX  255      /* as ramet_vm_console_watch() says */
#define ROOM_WAIT_NS 1000000u /* between two looks for room in the console's input */
#define QUOTED_MAX   80       /* of a text that was waited for, in messages */

/* The case of this thread, for those who give NULL for theirs. */
static _Thread_local struct ramet_test *current;

/* --- the end of a case --- */

static void set_outcome(struct ramet_test *t, enum outcome_kind kind, const char *fmt, va_list ap)
{
        struct outcome *o = t->outcome;
        char line[1024];

        vsnprintf(line, sizeof line, fmt, ap);
        pthread_mutex_lock(&t->lock);
        if (o->kind != OUTCOME_FAILED) { /* the first failure stays */
                o->kind = kind;
                text_clear(&o->reason);
                text_visible(&o->reason, line, strlen(line));
        }
        pthread_mutex_unlock(&t->lock);
}

static _Noreturn void leave(struct ramet_test *t)
{
        if (t && pthread_equal(pthread_self(), t->thread))
                longjmp(t->jump, 1);
        pthread_exit(NULL);
}

static _Noreturn void fail(struct ramet_test *t, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));

static void fail(struct ramet_test *t, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        set_outcome(t, OUTCOME_FAILED, fmt, ap);
        va_end(ap);
        leave(t);
}

void ramet_fail(struct ramet_test *t, const char *format, ...)
{
        va_list ap;

        t = t ? t : current;
        if (t && !format)
                fail(t, "ramet_fail: format: NULL");
        if (t) {
                va_start(ap, format);
                set_outcome(t, OUTCOME_FAILED, format, ap);
                va_end(ap);
        }
        leave(t);
}

void ramet_skip(struct ramet_test *t, const char *format, ...)
{
        va_list ap;

        t = t ? t : current;
        if (t && !format)
                fail(t, "ramet_skip: format: NULL");
        if (t) {
                va_start(ap, format);
                set_outcome(t, OUTCOME_SKIPPED, format, ap);
                va_end(ap);
        }
        leave(t);
}

void ramet_pass(struct ramet_test *t)
{
        leave(t ? t : current);
}

void test_call(struct ramet_test *t, void (*fn)(struct ramet_test *t))
{
        current = t;
        if (setjmp(t->jump) == 0)
                fn(t);
        current = NULL;
}

static void call_last(struct ramet_test *t)
{
        unsigned i = --t->nends;

        t->ends[i].fn(t->ends[i].data);
}

void test_end(struct ramet_test *t)
{
        while (t->nends > 0)
                test_call(t, call_last);
}

/* True: @t is none, and the last error says so. A failure cannot be told otherwise. */
static bool no_case(struct ramet_test **t, const char *call)
{
        if (!*t)
                *t = current;
        if (!*t)
                harness_null(call, "t");
        return !*t;
}

void ramet_note(struct ramet_test *t, const char *format, ...)
{
        char line[1024];
        va_list ap;

        if (no_case(&t, __func__))
                return;
        if (!format)
                fail(t, "%s: format: NULL", __func__);
        va_start(ap, format);
        vsnprintf(line, sizeof line, format, ap);
        va_end(ap);
        pthread_mutex_lock(&t->lock);
        text_visible(&t->outcome->notes, line, strlen(line));
        text_add(&t->outcome->notes, "\n");
        pthread_mutex_unlock(&t->lock);
}

void ramet_on_end(struct ramet_test *t, void (*fn)(void *data), void *data)
{
        if (no_case(&t, __func__))
                return;
        if (!fn)
                fail(t, "%s: fn: NULL", __func__);
        if (t->nends == HARNESS_ENDS_MAX)
                fail(t, "%s: more than %d", __func__, HARNESS_ENDS_MAX);
        t->ends[t->nends].fn = fn;
        t->ends[t->nends++].data = data;
}

/* --- what it is --- */

struct ramet_vm *ramet_test_vm(struct ramet_test *t)
{
        if (no_case(&t, __func__))
                return NULL;
        t->vm_taken = true;
        return t->vm;
}

const char *ramet_test_name(const struct ramet_test *t)
{
        if (!t)
                t = current;
        return t ? t->c->name : NULL;
}

void *ramet_test_data(const struct ramet_test *t)
{
        if (!t)
                t = current;
        return t ? t->c->data : NULL;
}

/* --- waiting --- */

/* Where all vCPUs are, in the report: @vcpu with registers and a backtrace. */
static void report_vcpus(struct ramet_test *t, unsigned vcpu, bool others)
{
        const struct symbols *symbols = t->booted->symbols;
        struct text *out = &t->outcome->report;

        report_vcpu(out, t->vm, vcpu, symbols);
        for (unsigned i = 0; others && i < t->booted->vcpus; i++)
                if (i != vcpu && report_where(out, t->vm, i, symbols) == 0)
                        text_add(out, "\n");
}

static _Noreturn void timed_out(struct ramet_test *t, const char *what)
{
        struct text took = {0}, where = {0};
        char line[256];

        ramet_vm_pause(t->vm);
        report_where(&where, t->vm, 0, t->booted->symbols);
        report_vcpus(t, 0, true);
        tap_duration(&took, t->timeout_ns);
        snprintf(line, sizeof line, "%s, %s", text_str(&took), text_str(&where));
        text_fini(&took);
        text_fini(&where);
        fail(t, "timed out after %s, waiting for %s", line, what);
}

static _Noreturn void ended(struct ramet_test *t, const struct ramet_vm_event *e, const char *what)
{
        struct text text = {0};
        char line[512];

        switch (e->exit.reason) {
        case RAMET_EXIT_CRASH:
        case RAMET_EXIT_HOST:
                report_end(&text, t->vm, e, t->booted->symbols);
                snprintf(line, sizeof line, "%s", text_str(&text));
                text_fini(&text);
                report_vcpus(t, e->vcpu, false);
                ramet_note(t, "it was waiting for %s", what);
                fail(t, "%s", line);
        case RAMET_EXIT_LIMIT:
                report_vcpus(t, e->vcpu, true);
                fail(t, "timed out, or at another limit, waiting for %s: %s", what, e->exit.text);
        case RAMET_EXIT_DEBUG:
                fail(t, "the guest ended with status %d, waiting for %s", e->exit.status >> 1,
                     what);
        default:
                fail(t, "%s, waiting for %s", e->exit.text, what);
        }
}

static _Noreturn void unhandled(struct ramet_test *t, const struct ramet_vm_event *e)
{
        struct text what = {0};
        char line[256];

        report_unhandled(&what, e);
        text_add(&what, ", ");
        report_where(&what, t->vm, e->vcpu, t->booted->symbols);
        snprintf(line, sizeof line, "%s", text_str(&what));
        text_fini(&what);
        report_vcpus(t, e->vcpu, false);
        fail(t, "%s", line);
}

/* Let it run until an event of @types or its end, at most @slice_ns: false when that went by. */
static bool wait_slice(struct ramet_test *t, unsigned types, uint64_t slice_ns,
                       struct ramet_vm_event *event, const char *what)
{
        uint64_t now = clock_now_ns(), left = t->deadline_ns - now;
        int ret;

        if (now >= t->deadline_ns)
                timed_out(t, what);
        ret = ramet_vm_run_until(t->vm, types | RAMET_VM_UNHANDLED,
                                 left < slice_ns ? left : slice_ns, event);
        if (ret == -ESRCH)
                fail(t, "the guest has ended before, waiting for %s", what);
        if (ret < 0)
                fail(t, "%s, waiting for %s", ramet_last_error(NULL), what);
        test_drain(t);
        if (ret > 0 && event->type == RAMET_VM_UNHANDLED)
                unhandled(t, event);
        return ret > 0;
}

static void wait_event(struct ramet_test *t, unsigned types, struct ramet_vm_event *event,
                       const char *what)
{
        while (!wait_slice(t, types, RAMET_FOREVER, event, what))
                ;
}

/* --- console --- */

void test_drain(struct ramet_test *t)
{
        size_t dropped = report_take_console(&t->console, t->vm, CONSOLE_KEPT);

        t->used = t->used > dropped ? t->used - dropped : 0;
}

static void watch(struct ramet_test *t, const char *text)
{
        if (ramet_vm_console_watch(t->vm, text) < 0)
                fail(t, "%s", ramet_last_error(NULL));
        t->watching = text != NULL;
}

/* Is it there? Then it is used. */
static bool look_for(struct ramet_test *t, const char *text, size_t len)
{
        const char *from = text_str(&t->console) + t->used;
        const char *found = memmem(from, t->console.len - t->used, text, len);

        if (found)
                t->used = (size_t)(found - text_str(&t->console)) + len;
        return found != NULL;
}

/* Has it begun at the end of what is there? */
static bool begun(const struct ramet_test *t, const char *text, size_t len)
{
        size_t have = t->console.len - t->used, n = have < len - 1 ? have : len - 1;
        const char *end = text_str(&t->console) + t->console.len;

        for (; n > 0; n--)
                if (memcmp(end - n, text, n) == 0)
                        return true;
        return false;
}

static bool console_has(struct ramet_test *t, const char *text, size_t len)
{
        test_drain(t);
        return look_for(t, text, len);
}

void ramet_expect_console(struct ramet_test *t, const char *text)
{
        size_t len = text ? strlen(text) : 0;
        struct ramet_vm_event e = {0};
        char what[QUOTED_MAX + 16];
        unsigned types;

        if (no_case(&t, __func__))
                return;
        if (len == 0)
                fail(t, "%s: text: %s, expected some text", __func__, text ? "\"\"" : "NULL");
        snprintf(what, sizeof what, "\"%.*s%s\"", QUOTED_MAX, text, len > QUOTED_MAX ? "..." : "");
        if (len <= WATCHED_MAX)
                watch(t, text);
        while (!console_has(t, text, len)) {
                if (e.type == RAMET_VM_EXIT)
                        ended(t, &e, what);
                types = len > WATCHED_MAX || begun(t, text, len) ? RAMET_VM_CONSOLE : 0;
                wait_event(t, types | RAMET_VM_MATCH, &e, what);
        }
        if (t->watching)
                watch(t, NULL);
}

void ramet_console_send(struct ramet_test *t, const char *text)
{
        struct ramet_vm_event e;
        size_t left;

        if (no_case(&t, __func__))
                return;
        if (!text)
                fail(t, "%s: text: NULL", __func__);
        for (left = strlen(text); left > 0;) {
                int n = ramet_vm_console_write(t->vm, text, left);

                if (n < 0)
                        fail(t, "%s: %s", __func__, ramet_last_error(NULL));
                text += n;
                left -= (size_t)n;
                if (n == 0 && wait_slice(t, 0, ROOM_WAIT_NS, &e, "the guest to read its input") &&
                    e.type == RAMET_VM_EXIT)
                        ended(t, &e, "the guest to read its input");
        }
}

const char *ramet_console_text(struct ramet_test *t)
{
        if (no_case(&t, __func__))
                return NULL;
        test_drain(t);
        return text_str(&t->console);
}

/* --- the end of the guest, and its doorbell --- */

static const char *exit_name(enum ramet_exit reason)
{
        switch (reason) {
        case RAMET_EXIT_POWEROFF:
                return "its power-off";
        case RAMET_EXIT_REBOOT:
                return "its reboot";
        case RAMET_EXIT_DEBUG:
                return "its exit by isa-debug-exit";
        case RAMET_EXIT_CRASH:
                return "its crash";
        case RAMET_EXIT_LIMIT:
                return "its end at a limit";
        default:
                return NULL;
        }
}

void ramet_expect_status(struct ramet_test *t, int value)
{
        struct ramet_vm_event e;
        char what[64];

        if (no_case(&t, __func__))
                return;
        snprintf(what, sizeof what, "its exit with status %d", value);
        wait_event(t, RAMET_VM_EXIT, &e, what);
        if (e.exit.reason != RAMET_EXIT_DEBUG || e.exit.status >> 1 != value)
                ended(t, &e, what);
}

void ramet_expect_exit(struct ramet_test *t, enum ramet_exit reason)
{
        const char *what = exit_name(reason);
        struct ramet_vm_event e;

        if (no_case(&t, __func__))
                return;
        if (!what)
                fail(t, "%s: reason: %d, expected one that a guest can end with", __func__, reason);
        wait_event(t, RAMET_VM_EXIT, &e, what);
        if (e.exit.reason != reason)
                ended(t, &e, what);
}

uint32_t ramet_expect_doorbell(struct ramet_test *t)
{
        struct ramet_vm_event e;

        if (no_case(&t, __func__))
                return 0;
        wait_event(t, RAMET_VM_DOORBELL, &e, "a ring of its doorbell");
        if (e.type == RAMET_VM_EXIT)
                ended(t, &e, "a ring of its doorbell");
        return e.doorbell.value;
}

/* --- variables --- */

uint64_t ramet_symbol(struct ramet_test *t, const char *name, uint64_t *size)
{
        uint64_t address;

        if (no_case(&t, __func__))
                return 0;
        if (!name)
                fail(t, "%s: name: NULL", __func__);
        if (ramet_booted_symbol(t->booted, name, &address, size) < 0)
                fail(t, "%s", ramet_last_error(NULL));
        return address;
}

/* The address of @len bytes of a variable; else the case fails. */
static uint64_t variable(struct ramet_test *t, const char *call, const char *symbol,
                         const void *buf, size_t len)
{
        uint64_t size, address;

        if (!symbol || !buf)
                fail(t, "%s: %s: NULL", call, symbol ? "buf" : "symbol");
        address = ramet_symbol(t, symbol, &size);
        if (size && len > size)
                fail(t, "%s: %s has %llu bytes, and %zu were asked for", call, symbol,
                     (unsigned long long)size, len);
        return address;
}

void ramet_get(struct ramet_test *t, const char *symbol, void *buf, size_t len)
{
        uint64_t address;

        if (no_case(&t, __func__))
                return;
        address = variable(t, __func__, symbol, buf, len);
        if (ramet_vm_read_gva(t->vm, 0, address, buf, len) < 0)
                fail(t, "%s: %s: %s", __func__, symbol, ramet_last_error(NULL));
}

void ramet_put(struct ramet_test *t, const char *symbol, const void *buf, size_t len)
{
        uint64_t address;

        if (no_case(&t, __func__))
                return;
        address = variable(t, __func__, symbol, buf, len);
        if (ramet_vm_write_gva(t->vm, 0, address, buf, len) < 0)
                fail(t, "%s: %s: %s", __func__, symbol, ramet_last_error(NULL));
}
