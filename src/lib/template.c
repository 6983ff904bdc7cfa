/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Templates: freeze, spawn, and back. A template is immutable, so that any number of threads may
 * spawn from it at once, without a lock.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lib.h"

#define SPAWN_MIN SIZED_TO(struct ramet_spawn_options, dirty_ring)
#define INFO_MIN  SIZED_TO(struct ramet_template_info, copied_bytes)

int lib_check_name(const char *name, struct err *err)
{
        if (!name)
                return err_input(err, "name: NULL given");
        if (strnlen(name, RAMET_NAME_MAX + 1) > RAMET_NAME_MAX)
                return err_input(err, "name: at most %u bytes were expected, it has more",
                                 RAMET_NAME_MAX);
        return 0;
}

int lib_template_new(struct ramet_ctx *ctx, struct template *tmpl, const struct lib_kind *kind,
                     const char *name, struct ramet_template **out, struct err *err)
{
        struct ramet_template *t = calloc(1, sizeof *t);

        if (!t) {
                template_unref(tmpl);
                return err_host(err, ENOMEM, "no memory for a template");
        }
        t->refs = 1;
        t->ctx = ctx;
        t->tmpl = tmpl;
        t->kind = *kind;
        strcpy(t->name, name);
        t->info.layers = tmpl->nlayers;
        *out = t;
        return 0;
}

struct ramet_template *ramet_template_ref(struct ramet_template *tmpl)
{
        if (tmpl)
                atomic_fetch_add(&tmpl->refs, 1);
        return tmpl;
}

void ramet_template_release(struct ramet_template *tmpl)
{
        if (!tmpl || atomic_fetch_sub(&tmpl->refs, 1) > 1)
                return;
        template_unref(tmpl->tmpl);
        free(tmpl);
}

const char *ramet_template_name(const struct ramet_template *tmpl)
{
        return tmpl ? tmpl->name : "";
}

int ramet_template_info(const struct ramet_template *tmpl, struct ramet_template_info *info)
{
        struct err err = {0};
        int ret =
                tmpl ? sized_copy_out("info", &tmpl->info, sizeof tmpl->info, info, INFO_MIN, &err)
                     : err_input(&err, "template: NULL given");

        return lib_result(ret, &err);
}

/* --- freeze --- */

static int freeze(struct ramet_vm *vm, const char *name, struct ramet_template **out,
                  struct err *err)
{
        struct vm_freeze_stats stats;
        struct template *tmpl;
        int r = vm_freeze(vm->vm, 0, vm->rings != 0, &tmpl, &stats, err);

        if (r == 0)
                r = lib_template_new(vm->ctx, tmpl, &vm->kind, name, out, err);
        if (r < 0)
                return r;
        (*out)->info.memory_bytes = vm_shape(vm->vm)->memory_bytes;
        (*out)->info.vcpus = vm_shape(vm->vm)->vcpus;
        (*out)->info.generation = stats.generation;
        (*out)->info.pause_ns = stats.pause_ns;
        (*out)->info.copied_bytes = stats.copied_bytes;
        return 0;
}

int ramet_vm_freeze(struct ramet_vm *vm, const char *name, struct ramet_template **tmpl)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = lib_check_name(name, &err);
                if (ret == 0 && !tmpl)
                        ret = err_input(&err, "tmpl: NULL given, where to put one was expected");
                if (ret == 0)
                        ret = freeze(vm, name, tmpl, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

/* --- spawn --- */

static int check_options(const struct ramet_spawn_options *given, struct ramet_spawn_options *o,
                         struct err *err)
{
        *o = (struct ramet_spawn_options){0};
        if (given) {
                int r = sized_copy_in("spawn options", given, o, sizeof *o, SPAWN_MIN, err);

                if (r < 0)
                        return r;
        }
        if (!o->index && !o->count)
                o->index = o->count = 1;
        if (o->count < 1 || o->count > RAMET_CLONES_MAX)
                return err_input(err, "count: %u given, 1 to %u expected", o->count,
                                 RAMET_CLONES_MAX);
        if (o->index < 1 || o->index > o->count)
                return err_input(err, "index: %u given, 1 to %u expected", o->index, o->count);
        return lib_check_limits(&o->limits, err);
}

static int make(struct ramet_vm *vm, struct ramet_template *tmpl,
                const struct ramet_spawn_options *o, struct err *err)
{
        struct vm_options options = lib_vm_options(vm);
        int r;

        options.limits = o->limits;
        options.report_unhandled = o->report_unhandled;
        options.dirty_ring = o->dirty_ring;
        r = vm_spawn(tmpl->tmpl, &options, o->index, o->count, &vm->vm, err);
        return r < 0 ? r : vm_start(vm->vm, err);
}

static int spawn(struct ramet_template *tmpl, const struct ramet_spawn_options *options,
                 struct ramet_vm **out, struct err *err)
{
        struct ramet_spawn_options o;
        struct ramet_vm *vm;
        int r = check_options(options, &o, err);

        if (r == 0)
                r = lib_new(tmpl->ctx, &tmpl->kind, o.console_bytes, &vm, err);
        if (r < 0)
                return r;
        r = make(vm, tmpl, &o, err);
        if (r < 0) {
                lib_free(vm);
                return r;
        }
        *out = vm;
        return 0;
}

int ramet_template_spawn(struct ramet_template *tmpl, const struct ramet_spawn_options *options,
                         struct ramet_vm **clone)
{
        struct err err = {0};
        int ret = lib_check_thread(&err);

        if (ret == 0 && !tmpl)
                ret = err_input(&err, "template: NULL given");
        if (ret == 0 && !clone)
                ret = err_input(&err, "clone: NULL given, where to put one was expected");
        if (ret == 0)
                ret = spawn(tmpl, options, clone, &err);
        return lib_result(ret, &err);
}

/* --- reset --- */

static int reset(struct ramet_vm *vm, struct err *err)
{
        const bool ran = lib_run(vm, false);
        const bool had_ended = vm_has_ended(vm->vm);
        int r = vm_reset(vm->vm, err);

        if (r == 0 || (vm_has_ended(vm->vm) && !had_ended)) /* of that end it hears anew */
                lib_events_forget(vm);
        else
                lib_run(vm, ran); /* as it was */
        return r;
}

int ramet_vm_reset(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, reset);
}

/* --- fork --- */

static int spawn_all(struct ramet_template *tmpl, unsigned count, struct ramet_vm **clones,
                     struct err *err)
{
        struct ramet_spawn_options o = {.size = sizeof o, .count = count};
        int r = 0;

        for (o.index = 1; o.index <= count && r == 0; o.index++)
                r = spawn(tmpl, &o, &clones[o.index - 1], err);
        return r;
}

static int fork_machine(struct ramet_vm *vm, unsigned count, struct ramet_vm **clones,
                        struct err *err)
{
        struct ramet_template *tmpl;
        struct ramet_vm **made;
        int r;

        if (count < 1 || count > RAMET_CLONES_MAX)
                return err_input(err, "count: %u given, 1 to %u expected", count, RAMET_CLONES_MAX);
        if (!clones)
                return err_input(err, "clones: NULL given, an array was expected");
        made = calloc(count, sizeof *made);
        if (!made)
                return err_host(err, ENOMEM, "no memory for %u clones", count);
        r = freeze(vm, "", &tmpl, err);
        if (r == 0) {
                r = spawn_all(tmpl, count, made, err);
                ramet_template_release(tmpl);
        }
        if (r == 0) {
                memcpy(clones, made, count * sizeof *made);
                vm_fork_told(vm->vm, count);
                lib_rings_answered(vm);
        }
        for (unsigned i = 0; r < 0 && i < count; i++)
                if (made[i])
                        lib_free(made[i]);
        free(made);
        return r;
}

int ramet_vm_fork(struct ramet_vm *vm, unsigned count, struct ramet_vm **clones)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = fork_machine(vm, count, clones, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
