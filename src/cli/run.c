/* SPDX-License-Identifier: Apache-2.0 */
/* ramet run: options in, a launcher's exit status out. */
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/host.h"
#include "cli/launcher.h"
#include "cli/options.h"

static void help(void)
{
        puts("usage: ramet run --kernel FILE [OPTION...]\n"
             "\n"
             "Boot a guest in a virtual machine. With --fork N, fork the running machine into N "
             "clones\n"
             "that share its memory until they write to it.\n");
        options_help(COMMAND_RUN);
        puts("\n"
             "At a terminal: Ctrl-A x ends the run, Ctrl-A n gives the input to the next machine,\n"
             "Ctrl-A h lists the keys. `man ramet` has examples and the exit statuses.");
}

/* What no single option can see. */
static int check(const struct options *o, struct err *err)
{
        if (o->nrest)
                return err_input(err,
                                 "run: unexpected argument '%s'; the kernel is given with --kernel",
                                 o->rest[0]);
        if (!o->kernel)
                return err_input(err, "run: no kernel: give one with --kernel FILE (see 'ramet run "
                                      "--help')");
        if (options_given(o, "fork-at") && !o->fork)
                return err_input(err, "--fork-at %s: says when, but not how many: add --fork N",
                                 o->fork_at.as_given);
        if (o->console.kind == CONSOLE_FILE && o->fork && !o->console.per_machine)
                return err_input(
                        err,
                        "--console file=%s: %u machines cannot share a file: put %%c, which "
                        "stands for the machine's name, into it",
                        o->console.pattern, (unsigned)o->fork + 1);
        if (o->overlay && !o->disks.n)
                return err_input(err, "--overlay %s: is for disks: add --disk path=FILE",
                                 o->overlay);
        return 0;
}

static void describe(const struct options *o, const struct ramet_disk *disks,
                     struct ramet_vm_options *vm)
{
        *vm = (struct ramet_vm_options){
                .size = sizeof *vm,
                .kernel_fd = -1,
                .kernel_name = o->kernel,
                .initramfs_fd = -1,
                .initramfs_name = o->initramfs,
                .cmdline = o->cmdline,
                .memory_bytes = o->memory,
                .vcpus = (unsigned)o->cpus,
                .flat = o->flat.set,
                .flat_address = o->flat.address,
                .flat_bits = o->flat.bits,
                .debug_exit_port = (uint16_t)o->debug_exit,
                .console_in_fd = -1,
                .console_out_fd = -1,
                .seccomp = (enum ramet_seccomp)o->seccomp,
                .hugepages = (enum ramet_hugepages)o->hugepages,
                .cow = (enum ramet_cow)o->cow,
                .disks = disks,
                .ndisks = o->disks.n,
                .rng = o->rng,
                .virtio_console = o->console.virtio,
                .virtio_cmdline = o->virtio == VIRTIO_FOUND_CMDLINE,
                .overlay_dir = o->overlay,
        };
}

static int open_and_run(struct launcher *l, const struct options *o, struct err *err)
{
        struct ramet_disk disks[RAMET_DISKS_MAX];
        struct ramet_vm_options vm;
        int ret, status = CLI_INPUT;

        describe(o, disks, &vm);
        ret = disk_list_open(&o->disks, disks, err);
        if (!ret)
                ret = host_open_input("--kernel", o->kernel, &vm.kernel_fd, err);
        if (!ret && o->initramfs)
                ret = host_open_input("--initramfs", o->initramfs, &vm.initramfs_fd, err);
        if (!ret)
                status = launcher_run(l, &vm);
        else
                message(MESSAGE_ERROR, "%s", err->text);
        disk_list_close(&o->disks, disks);
        if (vm.kernel_fd >= 0)
                close(vm.kernel_fd);
        if (vm.initramfs_fd >= 0)
                close(vm.initramfs_fd);
        return status;
}

static int launch(const struct options *o)
{
        char name[32];
        struct launcher_setup setup = {
                .backend = &backend_library,
                .name = o->name ? o->name : name,
                .fork_count = (unsigned)o->fork,
                .pool = options_pool(o),
                .fork_at = o->fork_at,
                .timeout_ns = o->timeout_ns,
                .console = o->console,
                .events_path = o->events,
                .control = true,
                .table = true,
        };
        struct launcher *l;
        struct err err = {0};
        int status;

        snprintf(name, sizeof name, "vm-%d", (int)getpid());
        if (host_check_kvm(&err) || launcher_create(&setup, &l, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
                return CLI_HOST;
        }
        status = open_and_run(l, o, &err);
        launcher_destroy(l);
        return status;
}

int cmd_run(int argc, char **argv)
{
        struct options o;
        struct err err = {0};
        int status = CLI_INPUT;

        if (options_read(&o, COMMAND_RUN, argc, argv, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
        } else if (o.help) {
                help();
                status = CLI_OK;
        } else if (check(&o, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
        } else {
                message_set_level((enum message_level)o.log_level);
                status = launch(&o);
        }
        options_fini(&o);
        return status;
}
