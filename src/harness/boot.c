/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest to its ready point: it boots in a machine of its own, which ends once the template has
 * been made. When it does not get there, the error says what was waited for and what it printed
 * last, since that is what one wants to know.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/sized.h"
#include "harness/internal.h"
#include "harness/report.h"

#define READY_TIMEOUT_NS (60 * RAMET_SECOND)
#define DEBUG_EXIT_PORT  0xf4 /* where QEMU users put it */
#define LINES_TOLD       3
#define CONSOLE_KEPT     8192u

/* --- files --- */

/* @path, or the file of that name in the program's directory if there is one. */
static const char *find_file(const char *path, char *buf, size_t size)
{
        char exe[PATH_MAX];
        ssize_t n;
        char *slash;

        if (!path || path[0] == '/' || access(path, F_OK) == 0)
                return path;
        n = readlink("/proc/self/exe", exe, sizeof exe - 1);
        if (n <= 0)
                return path;
        exe[n] = '\0';
        slash = strrchr(exe, '/');
        if (!slash || snprintf(buf, size, "%.*s%s", (int)(slash + 1 - exe), exe, path) >= (int)size)
                return path;
        return access(buf, F_OK) == 0 ? buf : path;
}

struct paths {
        char kernel[PATH_MAX], initramfs[PATH_MAX], symbols[PATH_MAX];
};

/* The guest's own words go before those of its configuration. */
static int merge(const struct ramet_guest *guest, struct paths *paths, struct ramet_vm_config *out)
{
        *out = (struct ramet_vm_config){.size = sizeof *out};
        if (guest->config) {
                struct err err = {0};
                int ret = sized_copy_in("guest.config", guest->config, out, sizeof *out,
                                        SIZED_TO(struct ramet_vm_config, fixed_page_tables), &err);

                if (ret < 0)
                        return harness_result(ret, &err);
                out->size = sizeof *out;
        }
        if (guest->kernel)
                out->kernel = guest->kernel;
        if (guest->initramfs)
                out->initramfs = guest->initramfs;
        if (guest->cmdline)
                out->cmdline = guest->cmdline;
        if (guest->memory_bytes)
                out->memory_bytes = guest->memory_bytes;
        if (guest->vcpus)
                out->vcpus = guest->vcpus;
        if (!out->debug_exit_port)
                out->debug_exit_port = DEBUG_EXIT_PORT;
        if (!out->kernel && !out->kernel_data)
                return harness_invalid("guest.kernel: NULL, expected the path of a kernel");
        out->kernel = find_file(out->kernel, paths->kernel, sizeof paths->kernel);
        out->initramfs = find_file(out->initramfs, paths->initramfs, sizeof paths->initramfs);
        return 0;
}

/* A kernel need not have symbols; a file that is named for them must. */
static int load_symbols(struct ramet_booted *b, const struct ramet_guest *guest,
                        const struct ramet_vm_config *config, struct paths *paths)
{
        const char *path = guest->symbols ? guest->symbols : config->kernel;
        struct err err = {0};
        int ret;

        path = find_file(path, paths->symbols, sizeof paths->symbols);
        if (path)
                ret = symbols_open(path, &b->symbols, &err);
        else
                ret = symbols_open_memory(config->kernel_data, config->kernel_bytes, &b->symbols,
                                          &err);
        if (ret < 0 && guest->symbols)
                return harness_result(ret, &err);
        return 0;
}

/* --- getting ready --- */

static void tell_waited(struct text *out, const struct ramet_guest *guest)
{
        if (guest->ready_console) {
                text_add(out, "it has printed \"");
                text_visible(out, guest->ready_console, strlen(guest->ready_console));
                text_add(out, "\"");
        } else {
                text_add(out, "it has rung its doorbell");
        }
}

static void tell_last_lines(struct text *out, struct ramet_vm *vm)
{
        struct text lines = {0}, last = {0};

        report_take_console(&lines, vm, CONSOLE_KEPT);
        text_last_lines(&last, " | ", text_str(&lines), lines.len, LINES_TOLD);
        for (char *p = last.data; p && *p; p++)
                if (*p == '\n')
                        *p = ' ';
        if (!lines.len)
                text_add(out, "; it has printed nothing");
        else
                text_add(out, "; its last lines:%s", text_str(&last));
        text_fini(&last);
        text_fini(&lines);
}

/* Not ready: always an error. @ret: 0 after a time-out, 1 when it has ended. */
static int not_ready(struct ramet_booted *b, struct ramet_vm *vm, const struct ramet_guest *guest,
                     int ret, const struct ramet_vm_event *event, uint64_t timeout_ns)
{
        struct text out = {0};
        struct err err = {0};

        text_add(&out, "guest not ready: ");
        if (ret == 0) {
                text_add(&out, "waited ");
                tap_duration(&out, timeout_ns);
                text_add(&out, " until ");
                tell_waited(&out, guest);
        } else {
                text_add(&out, "%s, before ", event->exit.text);
                tell_waited(&out, guest);
        }
        ramet_vm_pause(vm);
        if (ret == 0 || event->exit.reason == RAMET_EXIT_CRASH) {
                text_add(&out, ", ");
                report_where(&out, vm, 0, b->symbols);
        }
        tell_last_lines(&out, vm);
        if (ret == 0)
                ret = err_host(&err, ETIMEDOUT, "%s", text_str(&out));
        else
                ret = err_host(&err, ECHILD, "%s", text_str(&out));
        text_fini(&out);
        return harness_result(ret, &err);
}

static int get_ready(struct ramet_booted *b, struct ramet_vm *vm, const struct ramet_guest *guest)
{
        uint64_t timeout_ns = guest->ready_timeout_ns ? guest->ready_timeout_ns : READY_TIMEOUT_NS;
        struct ramet_vm_event event;
        int ret = 0;

        if (guest->ready_console)
                ret = ramet_vm_console_watch(vm, guest->ready_console);
        if (ret < 0)
                return ret;
        ret = ramet_vm_run_until(vm, guest->ready_console ? RAMET_VM_MATCH : RAMET_VM_DOORBELL,
                                 timeout_ns, &event);
        if (ret < 0)
                return ret;
        if (ret == 0 || event.type == RAMET_VM_EXIT)
                return not_ready(b, vm, guest, ret, &event, timeout_ns);
        ret = ramet_vm_pause(vm);
        return ret < 0 ? ret : ramet_vm_freeze(vm, "ready", &b->tmpl);
}

/* --- a guest of one's own loop --- */

static int boot(struct ramet_booted *b, const struct ramet_guest *guest)
{
        struct paths *paths = malloc(sizeof *paths);
        uint64_t begin = clock_now_ns();
        struct ramet_vm_config config;
        struct ramet_vm *vm = NULL;
        int ret;

        if (!paths)
                return -ENOMEM;
        ret = merge(guest, paths, &config);
        if (ret == 0)
                ret = load_symbols(b, guest, &config, paths);
        if (ret == 0)
                ret = ramet_vm_create(b->ctx, &config, &vm);
        if (ret == 0)
                ret = get_ready(b, vm, guest);
        ramet_vm_destroy(vm);
        free(paths);
        b->options = (struct ramet_spawn_options){
                .size = sizeof b->options,
                .console_bytes = config.console_bytes,
                .limits = config.limits,
                .report_unhandled = config.report_unhandled,
                .dirty_ring = config.dirty_ring,
        };
        b->vcpus = config.vcpus ? config.vcpus : 1;
        b->boot_ns = clock_now_ns() - begin;
        return ret;
}

int ramet_boot_guest(struct ramet_ctx *ctx, const struct ramet_guest *guest,
                     struct ramet_booted **booted)
{
        struct ramet_guest copy = {0};
        struct ramet_booted *b;
        struct err err = {0};
        int ret;

        if (!ctx || !booted)
                return harness_null(__func__, ctx ? "booted" : "ctx");
        ret = sized_copy_in("guest", guest, &copy, sizeof copy,
                            SIZED_TO(struct ramet_guest, ready_timeout_ns), &err);
        if (ret < 0)
                return harness_result(ret, &err);
        if (copy.ready_console && !*copy.ready_console)
                return harness_invalid("guest.ready_console: \"\", expected some text");
        b = calloc(1, sizeof *b);
        if (!b)
                return harness_result(-ENOMEM, &err);
        b->ctx = ctx;
        ret = boot(b, &copy);
        if (ret < 0) {
                ramet_booted_free(b);
                return ret;
        }
        *booted = b;
        return 0;
}

void ramet_booted_free(struct ramet_booted *b)
{
        if (!b)
                return;
        ramet_template_release(b->tmpl);
        symbols_free(b->symbols);
        free(b);
}

struct ramet_template *ramet_booted_template(const struct ramet_booted *b)
{
        return b ? b->tmpl : NULL;
}

int ramet_booted_symbol(const struct ramet_booted *b, const char *name, uint64_t *address,
                        uint64_t *size)
{
        struct err err = {0};
        uint64_t where;
        int ret;

        if (!b || !name || !address)
                return harness_null(__func__, !b ? "booted" : !name ? "name" : "address");
        ret = symbols_find(b->symbols, name, &where, size);
        if (ret == 0)
                *address = where;
        else if (ret == -ENOTUNIQ)
                ret = err_host(&err, ENOTUNIQ, "several files of the guest have a symbol %s", name);
        else
                ret = err_host(&err, ENOENT, "the guest has no %s%s",
                               b->symbols ? "symbol " : "symbols: no ", name);
        return harness_result(ret, &err);
}

int ramet_booted_spawn(const struct ramet_booted *b, struct ramet_vm **clone)
{
        if (!b)
                return harness_null(__func__, "booted");
        return ramet_template_spawn(b->tmpl, &b->options, clone);
}
