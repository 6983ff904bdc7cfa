/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine may use, what it has used, and what its host lacks. */
#include <string.h>

#include "lib/lib.h"

#define STATS_MIN SIZED_TO(struct ramet_vm_stats, console_dropped)

int lib_check_limits(const struct ramet_limits *limits, struct err *err)
{
        for (size_t i = 0; i < sizeof limits->reserved / sizeof limits->reserved[0]; i++)
                if (limits->reserved[i])
                        return err_input(err, "limits: has one that this library does not know");
        return 0;
}

int ramet_vm_set_limits(struct ramet_vm *vm, const struct ramet_limits *limits)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = limits ? lib_check_limits(limits, &err)
                             : err_input(&err, "limits: NULL given");
                if (ret == 0)
                        ret = vm_set_limits(vm->vm, limits, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int get_stats(struct ramet_vm *vm, struct ramet_vm_stats *out, struct err *err)
{
        struct ramet_vm_stats stats = {.assists = vm_assists(vm->vm)};
        struct vm_stats s;
        int r = vm_memory_usage(vm->vm, &stats.shared_bytes, &stats.private_bytes);

        if (r < 0)
                return err_host(err, -r, "what memory is the machine's own: %s", strerror(-r));
        vm_stats(vm->vm, &s);
        lib_console_stats(vm, &stats.console_bytes, &stats.console_dropped);
        stats.exits = s.exits;
        stats.pio_exits = s.pio_exits;
        stats.mmio_exits = s.mmio_exits;
        stats.freezes = s.freezes;
        stats.resets = s.resets;
        stats.stops = s.stops;
        stats.run_ns = s.run_ns;
        stats.last_pause_ns = s.last_pause_ns;
        stats.last_reset_ns = s.last_reset_ns;
        return sized_copy_out("stats", &stats, sizeof stats, out, STATS_MIN, err);
}

int ramet_vm_stats(struct ramet_vm *vm, struct ramet_vm_stats *stats)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = get_stats(vm, stats, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int missing(struct ramet_vm *vm, unsigned *at, const char **text, struct err *err)
{
        if (!at)
                return err_input(err, "at: NULL given, a number that is 0 at first was expected");
        if (!text)
                return err_input(err, "text: NULL given, where to put one was expected");
        return vm_missing(vm->vm, at, text);
}

int ramet_vm_missing(struct ramet_vm *vm, unsigned *at, const char **text)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = missing(vm, at, text, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
