/* SPDX-License-Identifier: Apache-2.0 */
/* Machines in the test's own process: see rig.h. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvm/kvm.h"
#include "mem/cow_rom.h"

enum ramet_cow rig_cow = RAMET_COW_PRIVATE;
uint64_t rig_own_pages_max;
uint32_t rig_dirty_ring;
bool rig_rng;
unsigned rig_ndisks;
uint64_t rig_disk_bytes = 16 << 20;
void (*rig_tune)(struct vm_options *options);

int rig_init(void)
{
        struct kvm_host host;
        struct err err;

        if (kvm_host_open(&host, &err) < 0) {
                printf("1..0 # SKIP %s\n", err.text);
                return 0;
        }
        kvm_host_close(&host);
        rom_limit(0, 4096); /* every page is broken for itself, so that most is seen of it */
        return 1;
}

static void on_event(void *data, enum vm_event event, const struct vm_event_args *args)
{
        struct rig *r = data;

        switch (event) {
        case VM_EVENT_FORK_DOORBELL:
        case VM_EVENT_FORK_CONSOLE:
                r->forks++;
                break;
        case VM_EVENT_FIRST_EXIT:
                r->first_exits++;
                r->first_exit = *args;
                break;
        case VM_EVENT_EXIT:
                r->exited = true;
                vm_exit_info(r->vm, &r->exit);
                break;
        case VM_EVENT_BREAKPOINT:
        case VM_EVENT_UNHANDLED:
                r->holds++;
                r->hold = event;
                r->hold_args = *args;
                break;
        }
}

static void make_disk(struct device_disk *disk)
{
        char path[64];

        *disk = (struct device_disk){.overlay_fd = -1, .overlay_ro_fd = -1, .name = "image"};
        disk->image_fd = memfd_create("image", MFD_CLOEXEC);
        assert_true(disk->image_fd >= 0);
        assert_int_equal(ftruncate(disk->image_fd, (off_t)rig_disk_bytes), 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", disk->image_fd);
        disk->image_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(disk->image_ro_fd >= 0);
}

static struct vm_options options(struct rig *r, unsigned vcpus, uint64_t memory_bytes)
{
        int pipe_fds[2], input_fds[2];
        struct vm_options o;

        assert_int_equal(loop_create(true, &r->loop), 0);
        assert_int_equal(pipe2(input_fds, O_CLOEXEC | O_NONBLOCK), 0);
        r->input_fd = input_fds[1];
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
        r->console_fd = pipe_fds[0];
        o = (struct vm_options){
                .shape = {.memory_bytes = memory_bytes,
                          .vcpus = vcpus,
                          .debug_exit_port = 0xf4,
                          .ndisks = rig_ndisks,
                          .rng = rig_rng},
                .loop = r->loop,
                .console_in_fd = input_fds[0],
                .console_out_fd = pipe_fds[1],
                .hugepages = RAMET_HUGEPAGES_OFF,
                .cow = rig_cow,
                .limits.own_pages = rig_own_pages_max,
                .dirty_ring = rig_dirty_ring,
                .event = on_event,
                .event_data = r,
        };
        if (rig_tune)
                rig_tune(&o);
        return o;
}

int rig_try_boot(struct rig *r, const char *name, const char *cmdline, unsigned vcpus,
                 uint64_t memory_bytes, bool armed, struct err *err)
{
        struct boot_source source = {.kernel_name = name, .initramfs_fd = -1, .cmdline = cmdline};
        struct vm_options o;
        char path[4096];
        int ret;

        memset(r, 0, sizeof *r);
        o = options(r, vcpus, memory_bytes);
        for (unsigned i = 0; i < o.shape.ndisks; i++)
                if (o.disks[i].image_fd <= 0)
                        make_disk(&o.disks[i]);
        snprintf(path, sizeof path, "%s/%s", getenv("TEST_GUESTS"), name);
        source.kernel_fd = open(path, O_RDONLY | O_CLOEXEC);
        if (source.kernel_fd < 0)
                fail_msg("%s: %s", path, strerror(errno));
        ret = vm_create(&o, &r->vm, err);
        if (ret == 0)
                ret = vm_boot(r->vm, &source, err);
        if (ret == 0)
                ret = vm_arm_fork(r->vm, armed, NULL);
        if (ret == 0)
                ret = vm_start(r->vm, err);
        close(source.kernel_fd);
        if (ret == 0)
                vm_run(r->vm);
        return ret;
}

bool rig_refused(int ret, const struct err *err)
{
        return ret == -ENOTSUP && err->text[0];
}

void rig_boot(struct rig *r, const char *name, const char *cmdline, unsigned vcpus,
              uint64_t memory_bytes, bool armed)
{
        struct err err = {0};

        if (rig_try_boot(r, name, cmdline, vcpus, memory_bytes, armed, &err) < 0)
                fail_msg("%s: %s", name, err.text);
}

int rig_try_spawn(struct rig *r, struct template *tmpl, uint32_t index, uint32_t count,
                  struct err *err)
{
        struct vm_options o;
        int ret;

        memset(r, 0, sizeof *r);
        o = options(r, 0, 0);
        ret = vm_spawn(tmpl, &o, index, count, &r->vm, err);
        return ret < 0 ? ret : vm_start(r->vm, err);
}

void rig_spawn(struct rig *r, struct template *tmpl, uint32_t index, uint32_t count)
{
        struct err err = {0};

        if (rig_try_spawn(r, tmpl, index, count, &err) < 0)
                fail_msg("clone %u: %s", index, err.text);
}

void rig_shell(struct rig *r, unsigned vcpus, uint64_t memory_bytes)
{
        struct vm_options o;
        struct err err = {0};

        memset(r, 0, sizeof *r);
        o = options(r, vcpus, memory_bytes);
        r->console_in_fd = o.console_in_fd;
        r->console_out_fd = o.console_out_fd;
        if (vm_shell(&o, &r->vm, &err) < 0 || vm_start(r->vm, &err) < 0)
                fail_msg("shell: %s", err.text);
}

void rig_adopt(struct rig *r, struct template *tmpl, uint32_t index, uint32_t count)
{
        const struct vm_clone_files files = {.console_in_fd = r->console_in_fd,
                                             .console_out_fd = r->console_out_fd};
        struct err err = {0};

        if (vm_adopt(r->vm, tmpl, &files, index, count, &err) < 0)
                fail_msg("adopting a template: %s", err.text);
        r->console_in_fd = r->console_out_fd = -1;
}

static void drain(struct rig *r)
{
        ssize_t n;

        while ((n = read(r->console_fd, r->text + r->len, sizeof r->text - 1 - r->len)) > 0)
                r->len += (size_t)n;
        r->text[r->len] = '\0';
}

void rig_type(struct rig *r, const char *text)
{
        assert_int_equal(write(r->input_fd, text, strlen(text)), (ssize_t)strlen(text));
}

void rig_free(struct rig *r)
{
        vm_destroy(r->vm, 100);
        if (r->console_out_fd > 0) /* a shell's, which nothing has taken */
                close(r->console_out_fd);
        if (r->console_in_fd > 0)
                close(r->console_in_fd);
        drain(r);
        loop_destroy(r->loop);
        close(r->console_fd);
        close(r->input_fd);
        r->vm = NULL;
}

void rig_step(struct rig *const *rigs, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                assert_int_equal(loop_step(rigs[i]->loop, 2000000), 0);
                drain(rigs[i]);
        }
}

void rig_until(struct rig *r, bool (*until)(const struct rig *r), unsigned seconds)
{
        struct timespec now, start;

        clock_gettime(CLOCK_MONOTONIC, &start);
        while (!until(r)) {
                rig_step(&r, 1);
                clock_gettime(CLOCK_MONOTONIC, &now);
                if (now.tv_sec - start.tv_sec > (time_t)seconds)
                        fail_msg("timed out; console: %s", r->text);
                if (r->exited && !until(r))
                        fail_msg("ended early: %s; console: %s", r->exit.text, r->text);
        }
}

bool rig_forked(const struct rig *r)
{
        return r->forks > 0;
}

bool rig_exited(const struct rig *r)
{
        return r->exited;
}

bool rig_printed(const struct rig *r)
{
        return r->len > 0;
}

void rig_use_engine(enum ramet_cow cow)
{
        struct vm_options o = {.shape = {.memory_bytes = 16u << 20, .vcpus = 1}, .cow = cow};
        struct vm *vm = NULL;
        struct err err = {0};
        int ret;

        assert_int_equal(loop_create(false, &o.loop), 0);
        ret = vm_shell(&o, &vm, &err);
        if (ret == 0)
                vm_destroy(vm, 0);
        loop_destroy(o.loop);
        if (ret < 0) {
                print_message("# SKIP %s\n", err.text);
                skip();
        }
        rig_cow = cow;
}
