/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fuzz loop: one clone, which is reset before each input but the first.
 *
 * What can be done once is done at the start. The symbols are linear addresses, and the guest's
 * page tables may map them anywhere; they are translated as the guest has them when it is ready,
 * page by page, and kept as pieces of guest-physical memory. Each input is then a reset, one visit
 * to the machine's memory that puts the input there, a run, and one visit that reads the counters.
 *
 * The reset comes before an input and not after it, so that the machine can be looked at as the
 * input left it, and a machine that could not be reset is told of where it matters.
 *
 * The time of an input is the time-out of the wait for it, which costs nothing; the other limits
 * are the machine's own.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ramet/fuzz.h>

#include "base/clock.h"
#include "base/sized.h"
#include "harness/internal.h"
#include "harness/report.h"

#define PAGE         4096u
#define TYPES        (RAMET_VM_DOORBELL | RAMET_VM_UNHANDLED)
#define REPORT_BYTES 16384

struct piece {
        uint64_t gpa;
        size_t len;
};

/* A variable of the guest. */
struct place {
        struct piece *pieces; /* in order */
        size_t n;
        size_t len; /* of all */
};

struct ramet_fuzz {
        struct ramet_fuzz_options options; /* [I] strings and guest: not after create */
        struct ramet_booted *booted;
        struct ramet_vm *vm;
        struct place input, length, coverage;
        uint8_t *before;             /* the guest's counters at its template */
        bool used;                   /* an input has run: it needs a reset */
        struct ramet_vm_event event; /* that ended the last one, unless time was up */
};

/* --- places --- */

static int add_piece(struct place *p, uint64_t gpa, size_t len)
{
        struct piece *more;

        if (p->n > 0 && p->pieces[p->n - 1].gpa + p->pieces[p->n - 1].len == gpa) {
                p->pieces[p->n - 1].len += len;
                return 0;
        }
        more = reallocarray(p->pieces, p->n + 1, sizeof *more);
        if (!more)
                return -ENOMEM;
        p->pieces = more;
        p->pieces[p->n++] = (struct piece){gpa, len};
        return 0;
}

/* Where @len bytes at @gva are. */
static int locate(struct ramet_vm *vm, uint64_t gva, size_t len, struct place *p)
{
        int r = 0;

        for (size_t at = 0; at < len && r == 0;) {
                size_t rest = PAGE - (gva + at) % PAGE, part = len - at < rest ? len - at : rest;
                uint64_t gpa;

                r = ramet_vm_translate(vm, 0, gva + at, &gpa);
                if (r == 0)
                        r = add_piece(p, gpa, part);
                at += part;
        }
        p->len = len;
        return r;
}

/* The variable @name, at most @max bytes of it. */
static int find(struct ramet_fuzz *f, const char *name, uint64_t max, struct place *p)
{
        struct ramet_template_info info = {.size = sizeof info};
        uint64_t address, size;
        struct err err = {0};
        int r = ramet_booted_symbol(f->booted, name, &address, &size);

        if (r == 0)
                r = ramet_template_info(ramet_booted_template(f->booted), &info);
        if (r < 0)
                return r;
        if (size == 0 || size > info.memory_bytes)
                return harness_invalid(
                        "the guest's symbol %s has %llu bytes: expected a variable's "
                        "size, at most that of its memory",
                        name, (unsigned long long)size);
        r = locate(f->vm, address, size < max ? size : max, p);
        return r < 0 ? harness_result(err_host(&err, -r, "the guest's symbol %s: %s", name,
                                               ramet_last_error(NULL)),
                                      &err)
                     : 0;
}

static int find_all(struct ramet_fuzz *f)
{
        const struct ramet_fuzz_options *o = &f->options;
        int r = find(f, o->input, o->input_max ? o->input_max : UINT64_MAX, &f->input);

        if (r == 0 && o->input_length)
                r = find(f, o->input_length, UINT64_MAX, &f->length);
        if (r == 0 && f->length.len != 0 && f->length.len != 4 && f->length.len != 8)
                r = harness_invalid(
                        "the guest's symbol %s has %zu bytes: expected a number of 4 or 8",
                        o->input_length, f->length.len);
        if (r == 0 && o->coverage && o->counters)
                r = find(f, o->coverage, o->ncounters, &f->coverage);
        return r;
}

/* --- the guest's memory, between begin and end --- */

static int put(struct ramet_vm *vm, const struct place *p, const void *data, size_t len)
{
        const uint8_t *from = data;
        int r = 0;

        for (size_t i = 0; i < p->n && len > 0 && r == 0; i++) {
                size_t part = len < p->pieces[i].len ? len : p->pieces[i].len;
                void *to;

                r = ramet_vm_span(vm, p->pieces[i].gpa, part, true, &to);
                if (r == 0)
                        memcpy(to, from, part);
                from += part;
                len -= part;
        }
        return r;
}

static int put_input(struct ramet_fuzz *f, const uint8_t *data, size_t len)
{
        const uint64_t length = len; /* little-endian: its first 4 bytes are the short one */
        int r = ramet_vm_begin(f->vm), end;

        if (r < 0)
                return r;
        r = put(f->vm, &f->input, data, len);
        if (r == 0)
                r = put(f->vm, &f->length, &length, f->length.len);
        end = ramet_vm_end(f->vm);
        return r < 0 ? r : end;
}

/* Adds what the guest has counted since its template; how many of the counters were 0. Most have
 * not changed, so eight are looked at at once. */
static uint64_t add_counters(uint8_t *counters, const uint8_t *now, const uint8_t *before,
                             size_t len)
{
        uint64_t fresh = 0;

        for (size_t at = 0; at < len; at += 8) {
                size_t n = len - at < 8 ? len - at : 8;

                if (n == 8 && memcmp(now + at, before + at, 8) == 0)
                        continue;
                for (size_t i = at; i < at + n; i++) {
                        uint8_t count = (uint8_t)(now[i] - before[i]);
                        unsigned sum = counters[i] + count;

                        fresh += count && !counters[i];
                        counters[i] = sum > UINT8_MAX ? UINT8_MAX : (uint8_t)sum;
                }
        }
        return fresh;
}

static int collect_coverage(struct ramet_fuzz *f, uint64_t *fresh)
{
        size_t at = 0;
        int r, end;

        *fresh = 0;
        if (f->coverage.n == 0)
                return 0;
        r = ramet_vm_begin(f->vm);
        if (r < 0)
                return r;
        for (size_t i = 0; i < f->coverage.n && r == 0; i++) {
                const struct piece *p = &f->coverage.pieces[i];
                void *now;

                r = ramet_vm_span(f->vm, p->gpa, p->len, false, &now);
                if (r == 0)
                        *fresh +=
                                add_counters(f->options.counters + at, now, f->before + at, p->len);
                at += p->len;
        }
        end = ramet_vm_end(f->vm);
        return r < 0 ? r : end;
}

static int keep_counters(struct ramet_fuzz *f)
{
        size_t at = 0;
        int r = 0;

        if (f->coverage.n == 0)
                return 0;
        f->before = malloc(f->coverage.len);
        if (!f->before)
                return -ENOMEM;
        for (size_t i = 0; i < f->coverage.n && r == 0; i++) {
                const struct piece *p = &f->coverage.pieces[i];

                r = ramet_vm_read(f->vm, p->gpa, f->before + at, p->len);
                at += p->len;
        }
        return r;
}

/* --- life --- */

static int check_options(const struct ramet_fuzz_options *o)
{
        if (!o->guest)
                return harness_invalid("options.guest: NULL, expected a guest");
        if (!o->input)
                return harness_invalid("options.input: NULL, expected the name of a symbol");
        if (o->counters && !o->coverage)
                return harness_invalid(
                        "options.counters without options.coverage: expected the name "
                        "of the guest's symbol");
        if (o->counters && !o->ncounters)
                return harness_invalid("options.ncounters: 0, expected how many there are");
        return 0;
}

static int spawn(struct ramet_fuzz *f)
{
        struct ramet_spawn_options so = f->booted->options;
        int r;

        so.report_unhandled = true;
        so.limits = f->options.limits;
        so.limits.run_ns = 0; /* see above */
        r = ramet_template_spawn(ramet_booted_template(f->booted), &so, &f->vm);
        if (r == 0 && f->options.count_dirty)
                r = ramet_vm_dirty_start(f->vm);
        return r;
}

int ramet_fuzz_create(struct ramet_ctx *ctx, const struct ramet_fuzz_options *options,
                      struct ramet_fuzz **fuzz)
{
        struct ramet_fuzz_options o = {0};
        struct ramet_fuzz *f;
        struct err err = {0};
        int r;

        if (!ctx || !options || !fuzz)
                return harness_null(__func__, !ctx ? "ctx" : !options ? "options" : "fuzz");
        r = sized_copy_in("options", options, &o, sizeof o,
                          SIZED_TO(struct ramet_fuzz_options, count_dirty), &err);
        if (r < 0)
                return harness_result(r, &err);
        r = check_options(&o);
        if (r < 0)
                return r;
        f = calloc(1, sizeof *f);
        if (!f)
                return harness_result(-ENOMEM, &err);
        f->options = o;
        if (o.limits.run_ns == 0)
                f->options.limits.run_ns = RAMET_SECOND;
        r = ramet_boot_guest(ctx, o.guest, &f->booted);
        if (r == 0)
                r = spawn(f);
        if (r == 0)
                r = find_all(f);
        if (r == 0)
                r = keep_counters(f);
        if (r < 0) {
                ramet_fuzz_destroy(f);
                return r;
        }
        *fuzz = f;
        return 0;
}

void ramet_fuzz_destroy(struct ramet_fuzz *fuzz)
{
        if (!fuzz)
                return;
        ramet_vm_destroy(fuzz->vm);
        ramet_booted_free(fuzz->booted);
        free(fuzz->input.pieces);
        free(fuzz->length.pieces);
        free(fuzz->coverage.pieces);
        free(fuzz->before);
        free(fuzz);
}

struct ramet_vm *ramet_fuzz_vm(struct ramet_fuzz *fuzz)
{
        return fuzz ? fuzz->vm : NULL;
}

/* --- an input --- */

static enum ramet_fuzz_outcome outcome_of(const struct ramet_vm_event *e)
{
        switch (e->type) {
        case RAMET_VM_DOORBELL:
                return RAMET_FUZZ_OK;
        case RAMET_VM_EXIT:
                if (e->exit.reason == RAMET_EXIT_LIMIT)
                        return RAMET_FUZZ_TIMEOUT;
                if (e->exit.reason == RAMET_EXIT_POWEROFF ||
                    (e->exit.reason == RAMET_EXIT_DEBUG && e->exit.status >> 1 == 0))
                        return RAMET_FUZZ_OK;
                return RAMET_FUZZ_CRASH;
        default:
                return RAMET_FUZZ_CRASH;
        }
}

/* The machine's own failures are not the guest's. */
static int host_failed(const struct ramet_vm_event *e)
{
        struct err err = {0};

        if (e->type != RAMET_VM_EXIT || e->exit.reason != RAMET_EXIT_HOST)
                return 0;
        return harness_result(err_host(&err, EIO, "the machine: %s", e->exit.text), &err);
}

static int run(struct ramet_fuzz *f)
{
        int r = ramet_vm_run_until(f->vm, TYPES, f->options.limits.run_ns, &f->event);

        if (r < 0)
                return r;
        if (r == 0) {
                f->event.type = 0;
                return RAMET_FUZZ_TIMEOUT;
        }
        r = host_failed(&f->event);
        return r < 0 ? r : (int)outcome_of(&f->event);
}

static void tell(const struct ramet_fuzz *f, struct ramet_fuzz_result *result)
{
        if (f->event.type == RAMET_VM_EXIT) {
                result->reason = f->event.exit.reason;
                result->status = f->event.exit.status;
        } else if (f->event.type == RAMET_VM_DOORBELL) {
                result->value = f->event.doorbell.value;
        }
}

/* Pages that were written since the last time. */
static int count_dirty(struct ramet_fuzz *f, uint64_t *bytes)
{
        uint64_t pages = 0;
        int r = f->options.count_dirty ? ramet_vm_dirty_collect(f->vm, NULL, 0, &pages) : 0;

        *bytes = pages * PAGE;
        return r;
}

static int one(struct ramet_fuzz *f, const uint8_t *data, size_t len,
               struct ramet_fuzz_result *result)
{
        uint64_t t0 = clock_now_ns(), t1 = t0;
        int r = 0, outcome;

        if (f->used) {
                r = ramet_vm_reset(f->vm);
                if (r == 0) /* what the reset itself has written, a new generation id */
                        r = count_dirty(f, &result->dirty_bytes);
                t1 = clock_now_ns();
                result->reset_ns = t1 - t0;
        }
        f->used = true;
        f->event = (struct ramet_vm_event){0};
        if (r == 0)
                r = put_input(f, data, len < f->input.len ? len : f->input.len);
        if (r < 0)
                return r;
        outcome = run(f);
        if (outcome < 0)
                return outcome;
        tell(f, result);
        r = collect_coverage(f, &result->new_counters);
        if (r == 0)
                r = count_dirty(f, &result->dirty_bytes);
        result->run_ns = clock_now_ns() - t1;
        return r < 0 ? r : outcome;
}

int ramet_fuzz_one(struct ramet_fuzz *fuzz, const uint8_t *data, size_t len,
                   struct ramet_fuzz_result *result)
{
        struct ramet_fuzz_result full = {.size = sizeof full};
        struct err err = {0};
        int r, outcome;

        if (!fuzz)
                return harness_null(__func__, "fuzz");
        if (!data && len > 0)
                return harness_invalid("%s: data: NULL, expected %zu bytes", __func__, len);
        outcome = one(fuzz, data, len, &full);
        if (!result || outcome < 0)
                return outcome;
        r = sized_copy_out("result", &full, sizeof full, result,
                           SIZED_TO(struct ramet_fuzz_result, new_counters), &err);
        return r < 0 ? harness_result(r, &err) : outcome;
}

/* --- a crash in words --- */

static void tell_outcome(struct text *out, const struct ramet_fuzz *f)
{
        const struct ramet_vm_event *e = &f->event;

        if (e->type == RAMET_VM_DOORBELL) {
                text_add(out, "no crash: it rang with %u", e->doorbell.value);
        } else if (e->type == RAMET_VM_UNHANDLED) {
                report_unhandled(out, e);
        } else if (e->type == RAMET_VM_EXIT) {
                text_add(out, "it ended: ");
                report_end(out, f->vm, e, f->booted->symbols);
        } else {
                text_add(out, "it was stopped after %llu ms",
                         (unsigned long long)(f->options.limits.run_ns / RAMET_MILLISECOND));
        }
        text_add(out, "\n");
}

int ramet_fuzz_report(struct ramet_fuzz *fuzz, char *buf, size_t size)
{
        struct text out = {0};
        struct err err = {0};
        int r;

        if (!fuzz || !buf)
                return harness_null(__func__, fuzz ? "buf" : "fuzz");
        if (size == 0)
                return harness_invalid("%s: size: 0, expected room for a report", __func__);
        if (!fuzz->used)
                return harness_result(err_host(&err, ENODATA, "no input has run yet"), &err);
        tell_outcome(&out, fuzz);
        r = report_crash(&out, fuzz->vm, fuzz->event.vcpu, fuzz->booted->symbols);
        if (r == 0)
                text_cut(&out, buf, size);
        text_fini(&out);
        return r;
}

void ramet_fuzz_abort(struct ramet_fuzz *fuzz)
{
        static const char none[] = "ramet: no report\n";
        char *text = malloc(REPORT_BYTES);
        ssize_t n;

        if (text && ramet_fuzz_report(fuzz, text, REPORT_BYTES) == 0)
                n = write(STDERR_FILENO, text, strlen(text));
        else
                n = write(STDERR_FILENO, none, sizeof none - 1);
        (void)n; /* whether or not it can be read: */
        abort();
}
