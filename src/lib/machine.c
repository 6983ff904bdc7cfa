/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine of the library: made, let run and stopped, and gone. Its vCPU threads exist from the
 * first moment on and wait, so that starting it is only letting them go.
 *
 * Its kernel is opened here, by path, or is put into a memfd when it comes as bytes: what loads it
 * reads a file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "lib/lib.h"

#define CONFIG_MIN    SIZED_TO(struct ramet_vm_config, fixed_page_tables)
#define MEMORY_USUAL  (128ull << 20)
#define CMDLINE_LIMIT 65536 /* more than any kernel takes: those say so themselves */

/* --- a machine, as far as it is the library's --- */

int lib_new(struct ramet_ctx *ctx, const struct lib_kind *kind, size_t console_bytes,
            struct ramet_vm **out, struct err *err)
{
        struct ramet_vm *vm = calloc(1, sizeof *vm);
        int r;

        if (!vm)
                return err_host(err, ENOMEM, "no memory for a machine");
        vm->ctx = ctx;
        vm->kind = *kind;
        r = lib_gate_init(vm, err);
        if (r < 0) {
                free(vm);
                return r;
        }
        r = lib_console_init(vm, console_bytes, err);
        if (r < 0) {
                lib_gate_fini(vm);
                free(vm);
                return r;
        }
        *out = vm;
        return 0;
}

void lib_free(struct ramet_vm *vm)
{
        vm_destroy(vm->vm, 0);
        lib_console_fini(vm);
        lib_gate_fini(vm);
        lib_disks_close(vm->disks);
        free(vm->bitmap);
        free(vm);
}

struct vm_options lib_vm_options(struct ramet_vm *vm)
{
        return (struct vm_options){
                .loop = vm->loop,
                .console_in_fd = -1,
                .console_out_fd = -1,
                .console = lib_console_sink(vm),
                .kick_signal = atomic_load(&vm->ctx->kick_signal),
                .hugepages = vm->kind.hugepages,
                .cow = vm->kind.cow,
                .every_event = true,
                .fixed_page_tables = vm->kind.fixed_page_tables,
                .event = lib_on_event,
                .event_data = vm,
        };
}

bool lib_run(struct ramet_vm *vm, bool run)
{
        const bool did = vm->running;

        if (run && !did)
                vm_run(vm->vm);
        if (!run && did)
                vm_pause(vm->vm);
        vm->running = run;
        return did;
}

/* --- what it is to be --- */

static int check_config(struct ramet_vm_config *c, struct err *err)
{
        if (!c->kernel && !c->kernel_data)
                return err_input(err, "kernel: no path and no data given, one was expected");
        if (!c->kernel && !c->kernel_bytes)
                return err_input(err, "kernel_data: 0 bytes given");
        if (!c->memory_bytes)
                c->memory_bytes = MEMORY_USUAL;
        if (!c->vcpus)
                c->vcpus = 1;
        if (c->cmdline && strnlen(c->cmdline, CMDLINE_LIMIT) == CMDLINE_LIMIT)
                return err_input(err, "cmdline: %d bytes or more given", CMDLINE_LIMIT);
        if (c->flat && c->flat_bits != 16 && c->flat_bits != 32 && c->flat_bits != 64)
                return err_input(err, "flat binary: %u bits given, 16, 32 or 64 expected",
                                 c->flat_bits);
        if ((unsigned)c->hugepages > RAMET_HUGEPAGES_OFF)
                return err_input(err, "hugepages: unknown setting %u", (unsigned)c->hugepages);
        if ((unsigned)c->cow > RAMET_COW_ROM)
                return err_input(err, "cow: unknown engine %u", (unsigned)c->cow);
        return lib_check_limits(&c->limits, err);
}

static int open_file(const char *path, int *fd, struct err *err)
{
        *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        return *fd >= 0 ? 0
                        : err_prefix(err, err_host(err, errno, "%s", strerror(errno)), "%s", path);
}

static int put_in_file(const void *data, size_t len, int *fd, struct err *err)
{
        int r;

        *fd = memfd_create("kernel", MFD_CLOEXEC);
        if (*fd < 0)
                return err_host(err, errno, "kernel_data: memfd_create: %s", strerror(errno));
        r = file_write_at(*fd, data, len, 0);
        return r < 0 ? err_host(err, -r, "kernel_data: %s", strerror(-r)) : 0;
}

static int load(struct ramet_vm *vm, const struct ramet_vm_config *c, struct err *err)
{
        struct boot_source source = {
                .kernel_fd = -1,
                .kernel_name = c->kernel ?: "kernel",
                .initramfs_fd = -1,
                .initramfs_name = c->initramfs,
                .cmdline = c->cmdline ?: "",
                .flat = c->flat,
                .flat_address = c->flat_address,
                .flat_bits = c->flat_bits,
        };
        int r = c->kernel ? open_file(c->kernel, &source.kernel_fd, err)
                          : put_in_file(c->kernel_data, c->kernel_bytes, &source.kernel_fd, err);

        if (r == 0 && c->initramfs)
                r = open_file(c->initramfs, &source.initramfs_fd, err);
        if (r == 0)
                r = vm_boot(vm->vm, &source, err);
        if (source.kernel_fd >= 0)
                close(source.kernel_fd);
        if (source.initramfs_fd >= 0)
                close(source.initramfs_fd);
        return r;
}

/* --- from nothing --- */

static int make(struct ramet_vm *vm, const struct ramet_vm_config *c, struct err *err)
{
        struct vm_options o = lib_vm_options(vm);
        int r;

        o.shape = (struct vm_shape){
                .memory_bytes = c->memory_bytes,
                .vcpus = c->vcpus,
                .debug_exit_port = c->debug_exit_port,
                .rng = c->rng,
                .virtio_console = c->virtio_console,
                .virtio_cmdline = c->virtio_cmdline,
        };
        o.dirty_ring = c->dirty_ring;
        o.limits = c->limits;
        o.report_unhandled = c->report_unhandled;
        r = lib_disks_open(c, &vm->disks, err);
        if (r == 0)
                r = lib_disks_give(vm->disks, &o, err);
        if (r == 0)
                r = vm_create(&o, &vm->vm, err);
        if (r == 0)
                r = load(vm, c, err);
        return r < 0 ? r : vm_start(vm->vm, err);
}

static int create(struct ramet_ctx *ctx, const struct ramet_vm_config *config,
                  struct ramet_vm **out, struct err *err)
{
        struct ramet_vm_config c;
        struct lib_kind kind = {0};
        struct ramet_vm *vm;
        int r;

        if (!ctx)
                return err_input(err, "ctx: NULL given");
        if (!out)
                return err_input(err, "vm: NULL given, where to put one was expected");
        r = sized_copy_in("config", config, &c, sizeof c, CONFIG_MIN, err);
        if (r == 0)
                r = check_config(&c, err);
        if (r < 0)
                return r;
        kind.cow = c.cow;
        kind.hugepages = c.hugepages;
        kind.fixed_page_tables = c.fixed_page_tables;
        r = lib_new(ctx, &kind, c.console_bytes, &vm, err);
        if (r < 0)
                return r;
        r = make(vm, &c, err);
        if (r < 0) {
                lib_free(vm);
                return r;
        }
        *out = vm;
        return 0;
}

int ramet_vm_create(struct ramet_ctx *ctx, const struct ramet_vm_config *config,
                    struct ramet_vm **vm)
{
        struct err err = {0};
        int ret = lib_check_thread(&err);

        if (ret == 0)
                ret = create(ctx, config, vm, &err);
        return lib_result(ret, &err);
}

void ramet_vm_destroy(struct ramet_vm *vm)
{
        struct err err = {0};

        if (!vm)
                return;
        if (lib_enter(vm, LIB_SECTION, &err) < 0) {
                lib_result(-EDEADLK, &err);
                return;
        }
        if (vm->section)
                vm_access_end(vm->vm);
        lib_free(vm);
}

/* --- let run, and stopped --- */

static int start(struct ramet_vm *vm, struct err *err)
{
        if (vm_has_ended(vm->vm))
                return err_host(err, ESRCH, "the machine has ended");
        lib_run(vm, true);
        return 0;
}

int ramet_vm_start(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, start);
}

static int stop(struct ramet_vm *vm, struct err *err)
{
        lib_run(vm, false);
        return 0;
}

int ramet_vm_pause(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, stop);
}

/* --- the program's pointer: no gate, so that handlers can have it, too --- */

int ramet_vm_set_data(struct ramet_vm *vm, void *data)
{
        struct err err = {0};
        int ret = lib_check_machine(vm, &err);

        if (ret == 0)
                atomic_store(&vm->data, data);
        return lib_result(ret, &err);
}

void *ramet_vm_data(const struct ramet_vm *vm)
{
        return vm ? atomic_load(&vm->data) : NULL;
}
