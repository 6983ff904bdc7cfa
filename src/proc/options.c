/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may be asked of a machine. Everything is checked here, in the caller's process, before
 * anything is started, so that a mistake is one line and nothing else. Texts name what was given
 * and what was expected.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/sized.h"
#include "proc/launcher.h"

/* The sizes of the first version; no caller can have a shorter struct. */
#define VM_OPTIONS_MIN    offsetof(struct ramet_vm_options, cow)
#define CLONE_OPTIONS_MIN offsetof(struct ramet_clone_options, name)

static int check_text(const char *what, const char *text, size_t room, struct err *err)
{
        size_t n = text ? strlen(text) : 0;

        if (n >= room)
                return err_input(err, "%s: %zu bytes long, at most %zu fit", what, n, room - 1);
        return 0;
}

static int check_machine(const struct ramet_vm_options *o, struct err *err)
{
        if (o->vcpus < 1 || o->vcpus > RAMET_VCPUS_MAX)
                return err_input(err, "vcpus: %u given, 1 to %u expected", o->vcpus,
                                 RAMET_VCPUS_MAX);
        if (o->memory_bytes < RAMET_MEMORY_MIN || o->memory_bytes > RAMET_MEMORY_MAX)
                return err_input(err, "memory: %" PRIu64 " bytes given, %llu to %llu expected",
                                 o->memory_bytes, RAMET_MEMORY_MIN, RAMET_MEMORY_MAX);
        if (o->memory_bytes % 4096)
                return err_input(err,
                                 "memory: %" PRIu64 " bytes given, a multiple of 4096 expected",
                                 o->memory_bytes);
        if (o->fork_count > RAMET_CLONES_MAX)
                return err_input(err, "fork: %u clones given, at most %u expected", o->fork_count,
                                 RAMET_CLONES_MAX);
        if (o->flat && o->flat_bits != 16 && o->flat_bits != 32 && o->flat_bits != 64)
                return err_input(err, "flat binary: %u bits given, 16, 32 or 64 expected",
                                 o->flat_bits);
        if ((unsigned)o->seccomp > RAMET_SECCOMP_OFF)
                return err_input(err, "seccomp: unknown setting %u", (unsigned)o->seccomp);
        if ((unsigned)o->hugepages > RAMET_HUGEPAGES_OFF)
                return err_input(err, "hugepages: unknown setting %u", (unsigned)o->hugepages);
        if ((unsigned)o->cow > RAMET_COW_ROM)
                return err_input(err, "cow: unknown engine %u", (unsigned)o->cow);
        return 0;
}

int options_check(const struct ramet_vm_options *options, struct ramet_vm_options *o,
                  struct err *err)
{
        int ret = sized_copy_in("machine options", options, o, sizeof *o, VM_OPTIONS_MIN, err);

        ret = ret ?: check_machine(o, err);
        ret = ret ?: check_text("kernel name", o->kernel_name, PATH_MAX, err);
        ret = ret ?: check_text("initramfs name", o->initramfs_name, PATH_MAX, err);
        ret = ret ?: check_text("kernel command line", o->cmdline, MESSAGE_CMDLINE_MAX, err);
        ret = ret
                      ?: check_text("console text to fork at", o->fork_at_console,
                                    MESSAGE_WATCH_MAX, err);
        if (!ret && o->kernel_fd < 0)
                ret = err_input(err, "no kernel was given");
        return ret;
}

int options_check_clone(const struct ramet_clone_options *options, struct ramet_clone_options *o,
                        struct err *err)
{
        int ret = sized_copy_in("clone options", options, o, sizeof *o, CLONE_OPTIONS_MIN, err);

        if (ret)
                return ret;
        if (o->count < 1 || o->count > RAMET_CLONES_MAX)
                return err_input(err, "fork: %u clones given, 1 to %u expected", o->count,
                                 RAMET_CLONES_MAX);
        if (o->index < 1 || o->index > o->count)
                return err_input(err, "clone number: %u given, 1 to %u expected", o->index,
                                 o->count);
        return 0;
}
