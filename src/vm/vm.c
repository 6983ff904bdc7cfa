/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of a machine, from empty to gone, and its events. Freezing and spawning are in freeze.c and
 * spawn.c, what a vCPU thread does in vcpu.c.
 *
 * Order of birth, for a root and a clone alike: KVM's VM, memory, slots, interrupt controllers,
 * vCPUs, devices. The slots come before the interrupt controllers because a slot change after those
 * waits for a grace period in the kernel (7 ms on the test host, nothing the other way round).
 */
#include "vm/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ramet/fork_abi.h>

#include "base/clock.h"
#include "kvm/dirty.h"
#include "vm/fixed_tables.h"
#include "vm/machine.h"
#include "x86/acpi.h"
#include "x86/cpuid.h"
#include "x86/layout.h"

#define HUGE_AUTO_MAX (2ull << 30)  /* and a quarter of what is free: they are all taken at once */
#define LONG_PAUSE_NS 1000000000ull /* watchdogs in guests wait for tens of seconds */
#define KICK_AFTER_NS 100000000ull  /* a clone that has not left its guest by then is made to */

uint64_t vm_now_ns(void)
{
        return clock_now_ns();
}

/* --- events: raised by any thread, delivered by the owner's loop --- */

void vm_raise(struct vm *vm, enum vm_event event, const struct vm_event_args *args)
{
        pthread_mutex_lock(&vm->event_lock);
        if (vm->nevents < VM_EVENTS_MAX) {
                struct queued_event *q = &vm->events[vm->nevents++];

                *q = (struct queued_event){.event = event};
                q->args.vcpu = VM_NO_VCPU;
                if (args)
                        q->args = *args;
                if (!q->args.t_ns)
                        q->args.t_ns = vm_now_ns();
        }
        pthread_mutex_unlock(&vm->event_lock);
        loop_wake(vm->options.loop);
}

static bool take_event(struct vm *vm, struct queued_event *event)
{
        bool got;

        pthread_mutex_lock(&vm->event_lock);
        got = vm->nevents > 0;
        if (got) {
                *event = vm->events[0];
                memmove(vm->events, vm->events + 1, --vm->nevents * sizeof vm->events[0]);
        }
        pthread_mutex_unlock(&vm->event_lock);
        return got;
}

/* One after the other: what is called may reset the machine, which drops those that wait. */
static void deliver(void *data)
{
        struct vm *vm = data;
        struct queued_event e;

        for (unsigned i = 0; i < VM_EVENTS_MAX && take_event(vm, &e); i++) {
                vm_fork_heard(vm, e.event);
                vm->options.event(vm->options.event_data, e.event, &e.args);
        }
}

void vm_exit_with(struct vm *vm, enum ramet_exit reason, int status, const char *fmt, ...)
{
        bool first;
        va_list ap;

        pthread_mutex_lock(&vm->event_lock);
        first = !vm->exited;
        if (first) {
                vm->exited = true;
                vm->exit = (struct vm_exit_info){
                        .reason = reason, .status = status, .vcpu = vcpu_calling(vm)};
                va_start(ap, fmt);
                vsnprintf(vm->exit.text, sizeof vm->exit.text, fmt, ap);
                va_end(ap);
        }
        pthread_mutex_unlock(&vm->event_lock);
        if (!first)
                return;
        vcpu_hold_all(vm, VCPU_HELD_ENDED);
        vm_raise(vm, VM_EVENT_EXIT, NULL);
}

bool vm_has_ended(struct vm *vm)
{
        bool ended;

        pthread_mutex_lock(&vm->event_lock);
        ended = vm->exited;
        pthread_mutex_unlock(&vm->event_lock);
        return ended;
}

void vm_exit_info(struct vm *vm, struct vm_exit_info *info)
{
        pthread_mutex_lock(&vm->event_lock);
        *info = vm->exit;
        pthread_mutex_unlock(&vm->event_lock);
}

void vm_first_exit(struct vm *vm, enum vm_first_exit how)
{
        struct vm_event_args args = {.t_ns = vm_now_ns(), .how = how};
        uint32_t awaited = FIRST_EXIT_AWAITED;

        if (atomic_compare_exchange_strong(&vm->first_exit, &awaited, FIRST_EXIT_NONE))
                vm_raise(vm, VM_EVENT_FIRST_EXIT, &args);
}

/* --- what devices may do to the machine --- */

static void env_irq(void *machine, unsigned gsi, bool level)
{
        struct vm *vm = machine;

        kvm_vm_irq_line(&vm->kvm, gsi, level);
}

static void env_notify(void *machine, enum device_event event, uint64_t arg)
{
        struct vm *vm = machine;

        switch (event) {
        case DEVICE_POWEROFF:
                vm_exit_with(vm, RAMET_EXIT_POWEROFF, 0, "powered off");
                break;
        case DEVICE_REBOOT:
                vm_exit_with(vm, RAMET_EXIT_REBOOT, 0, "asked for a reboot");
                break;
        case DEVICE_EXIT:
                vm_exit_with(vm, RAMET_EXIT_DEBUG, (int)(arg & 0xff), "debug exit, status %u",
                             (unsigned)(arg & 0xff));
                break;
        case DEVICE_FORK_RING:
                if (!vm_fork_rung(vm, VM_EVENT_FORK_DOORBELL, arg))
                        doorbell_set_result(vm->doorbell, RAMET_DOORBELL_NOT_ARMED, 0);
                break;
        }
}

/* Counted for the machine as a whole: vCPUs that wait for different devices wait for all of them,
 * which is short. */
static void env_hold(void *machine)
{
        struct vm *vm = machine;

        pthread_mutex_lock(&vm->event_lock);
        vm->device_holds++;
        vcpu_hold_current(vm, VCPU_HELD_DEVICE);
        pthread_mutex_unlock(&vm->event_lock);
}

static void env_release(void *machine)
{
        struct vm *vm = machine;

        pthread_mutex_lock(&vm->event_lock);
        if (vm->device_holds > 0 && --vm->device_holds == 0)
                vcpu_release_all(vm, VCPU_HELD_DEVICE);
        pthread_mutex_unlock(&vm->event_lock);
}

/* --- birth --- */

static void describe_memory(struct vm *vm)
{
        uint64_t size = vm->shape.memory_bytes;
        uint64_t low = size < LAYOUT_LOW_RAM_END ? size : LAYOUT_LOW_RAM_END;

        vm->mem = (struct guest_mem){
                .regions[0] = {.gpa = 0, .size = low, .offset = 0, .hva = vm->backing.hva},
                .nregions = 1,
        };
        if (low == size)
                return;
        vm->mem.regions[vm->mem.nregions++] = (struct guest_region){
                .gpa = LAYOUT_HIGH_RAM,
                .size = size - low,
                .offset = low,
                .hva = vm->backing.hva + low,
        };
}

static int set_slot(void *data, unsigned id, uint64_t gpa, uint64_t size, void *hva, uint32_t flags,
                    struct err *err)
{
        const struct vm *vm = data;

        return kvm_vm_set_slot(&vm->kvm, id, gpa, size, hva, flags, err);
}

int vm_map_memory(struct vm *vm, struct err *err)
{
        const struct cow_engine *engine = cow_engine_get(vm->options.cow);
        const struct cow_env env = {
                .kvm = &vm->kvm,
                .sync = &vm->sync,
                .mem = &vm->mem,
                .slots = &vm->slots,
                .own_page = meter_own_page,
                .data = vm,
        };
        int r;

        if (!engine)
                return err_input(err, "no such copy-on-write engine");
        describe_memory(vm);
        slots_init(&vm->slots, (unsigned)kvm_vm_has(&vm->kvm, KVM_CAP_NR_MEMSLOTS), set_slot, vm);
        r = backing_set_cow(&vm->backing, engine, &env, err);
        for (unsigned i = 0; i < vm->mem.nregions && r == 0; i++) {
                const struct guest_region *g = &vm->mem.regions[i];

                r = slots_map(&vm->slots, g->gpa, g->size, g->hva, 0, err);
        }
        return r;
}

int vm_set_cpuid(struct vm *vm, struct err *err)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                int r;

                x86_cpuid_for_vcpu(vm->cpuid, i, vm->shape.vcpus);
                r = kvm_ioctl(vm->vcpus[i].kvm.fd, KVM_SET_CPUID2, vm->cpuid);
                if (r < 0)
                        return err_host(err, -r, "KVM_SET_CPUID2: vCPU %u: %s", i, strerror(-r));
        }
        return 0;
}

static int create_vcpus(struct vm *vm, struct err *err)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                struct kvm_vcpu *vcpu = &vm->vcpus[i].kvm;
                int r = kvm_vcpu_open(&vm->host, &vm->kvm, i, vcpu, err);

                if (r == 0)
                        r = kvm_vcpu_open_signal(vcpu, vm->options.kick_signal, err);
                if (r < 0)
                        return r;
        }
        return vm_set_cpuid(vm, err);
}

/* Everything with a KVM descriptor, over addresses that memory has or will have. */
int vm_make_machine(struct vm *vm, struct err *err)
{
        int r = vm_map_memory(vm, err);

        if (r == 0)
                r = kvm_vm_create_irqchip(&vm->host, &vm->kvm, err);
        if (r == 0)
                r = device_slots_create(vm, err);
        if (r == 0)
                r = create_vcpus(vm, err);
        return r;
}

static void close_fd(int fd)
{
        if (fd >= 0)
                close(fd);
}

static void close_disks(const struct device_disk *disks, unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                close_fd(disks[i].image_fd);
                close_fd(disks[i].image_ro_fd);
                close_fd(disks[i].overlay_fd);
                close_fd(disks[i].overlay_ro_fd);
        }
}

static void settle(void *loop)
{
        loop_io_settle(loop);
}

static int make_devices(struct vm *vm, int console_in_fd, int console_out_fd,
                        struct device_disk *disks, struct err *err)
{
        int r = vm->options.console.output
                        ? chardev_create_sink(vm->options.loop, &vm->options.console, &vm->console)
                        : chardev_create(vm->options.loop, console_in_fd, console_out_fd,
                                         &vm->console);

        if (r < 0) {
                close_fd(console_in_fd);
                close_fd(console_out_fd);
                return err_host(err, -r, "console: %s", strerror(-r));
        }
        vm->env = (struct device_env){
                .mem = &vm->access,
                .loop = vm->options.loop,
                .console = vm->console,
                .irq = env_irq,
                .notify = env_notify,
                .slot = device_slots_take,
                .hold = env_hold,
                .release = env_release,
                .machine = vm,
        };
        guest_access_lending(&vm->access, settle, vm->options.loop);
        return machine_devices_create(vm, disks, err);
}

/* Devices are made here, since they hold the console. */
int vm_furnish(struct vm *vm, int console_in_fd, int console_out_fd, struct device_disk *disks,
               struct err *err)
{
        int r = make_devices(vm, console_in_fd, console_out_fd, disks, err);

        close_disks(disks, vm->shape.ndisks); /* what no device has taken */
        return r;
}

static int check_shape(const struct vm *vm, struct err *err)
{
        const struct vm_shape *s = &vm->shape;

        if (s->vcpus < 1 || s->vcpus > RAMET_VCPUS_MAX || s->vcpus > vm->host.max_vcpus)
                return err_input(err, "%u vCPUs: expected 1 to %u", s->vcpus,
                                 vm->host.max_vcpus < RAMET_VCPUS_MAX ? vm->host.max_vcpus
                                                                      : RAMET_VCPUS_MAX);
        if (s->memory_bytes < RAMET_MEMORY_MIN || s->memory_bytes > RAMET_MEMORY_MAX ||
            s->memory_bytes % 4096)
                return err_input(err,
                                 "%llu bytes of memory: expected 1 MiB to 1 TiB, in whole pages",
                                 (unsigned long long)s->memory_bytes);
        if (s->debug_exit_port > 0xfffc)
                return err_input(err, "debug exit port %#x: expected at most 0xfffc",
                                 s->debug_exit_port);
        if (s->ndisks > DEVICE_DISKS_MAX)
                return err_input(err, "%u disks: expected at most %d", s->ndisks, DEVICE_DISKS_MAX);
        if (s->rng > 1 || s->virtio_console > 1 || s->virtio_cmdline > 1)
                return err_input(err, "a machine's switches are 0 or 1");
        return 0;
}

int vm_new(const struct vm_options *options, const struct vm_shape *shape, struct vm **out,
           struct err *err)
{
        struct vm *vm = calloc(1, sizeof *vm);
        int r;

        if (!vm)
                return err_host(err, ENOMEM, "no memory for a machine");
        vm->options = *options;
        if (vm->options.kick_signal == 0)
                vm->options.kick_signal = SIGSTKFLT;
        vm->shape = *shape;
        vm->host.fd = vm->kvm.fd = -1;
        vm->backing.shared_fd = vm->backing.shared_ro_fd = vm->backing.pagemap_fd = -1;
        pthread_mutex_init(&vm->event_lock, NULL);
        sync_domain_init(&vm->sync);
        baton_init(&vm->baton);
        sync_join(&vm->sync, &vm->owner_part, NULL, NULL);
        vm_memory_changed(vm); /* the view is of no time yet */
        meter_init(vm);
        tlb_init(&vm->owner_tlb);
        guest_access_init(&vm->access, &vm->mem, &vm->owner_part, &vm->owner_tlb);
        loop_set_wake(options->loop, deliver, vm);
        r = kvm_host_open(&vm->host, err);
        if (options->no_eventfds)
                vm->host.ioeventfd = vm->host.irqfd = false;
        if (r == 0)
                r = check_shape(vm, err);
        if (r == 0)
                r = vm_kick_signal_check(vm->options.kick_signal, err);
        if (r == 0)
                r = kvm_vm_open(&vm->host, &vm->kvm, err);
        if (r == 0)
                r = kvm_vm_dirty_init(&vm->host, &vm->kvm, options->dirty_ring, err);
        if (r == 0) {
                vm->cpuid = calloc(1, sizeof *vm->cpuid +
                                              KVM_HOST_CPUID_MAX * sizeof vm->cpuid->entries[0]);
                vm->vcpus = calloc(shape->vcpus, sizeof *vm->vcpus);
                if (!vm->cpuid || !vm->vcpus)
                        r = err_host(err, ENOMEM, "no memory for %u vCPUs", shape->vcpus);
        }
        if (r < 0) {
                vm_destroy(vm, 0);
                return r;
        }
        for (unsigned i = 0; i < shape->vcpus; i++) {
                vm->vcpus[i].vm = vm;
                vm->vcpus[i].spin.may = spin_has_processors(shape->vcpus);
                vm->vcpus[i].kvm.fd = -1;
                vcpu_join(&vm->vcpus[i]);
                pthread_cond_init(&vm->vcpus[i].baton_turn, NULL);
        }
        *out = vm;
        return 0;
}

static bool wants_huge(const struct vm_options *o)
{
        uint64_t free_bytes = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

        if (o->hugepages == RAMET_HUGEPAGES_AUTO)
                return o->shape.memory_bytes <= HUGE_AUTO_MAX &&
                       o->shape.memory_bytes <= free_bytes / 4;
        return o->hugepages == RAMET_HUGEPAGES_ON;
}

static int make_root(struct vm *vm, struct err *err)
{
        bool huge;
        int r = kvm_host_cpuid(&vm->host, vm->cpuid, err);

        if (r == 0)
                r = backing_create(&vm->backing, vm->shape.memory_bytes, wants_huge(&vm->options),
                                   &huge, err);
        if (r == 0 && vm->options.hugepages == RAMET_HUGEPAGES_ON && !huge)
                r = err_host(
                        err, ENOTSUP,
                        "this host gives guest memory no huge pages: use hugepages auto or off");
        if (r == 0)
                r = vm_make_machine(vm, err);
        if (r == 0)
                r = kvm_msr_set_probe(&vm->host, &vm->vcpus[0].kvm, &vm->msrs, err);
        return r;
}

int vm_create(const struct vm_options *options, struct vm **out, struct err *err)
{
        const unsigned ndisks =
                options->shape.ndisks < DEVICE_DISKS_MAX ? options->shape.ndisks : DEVICE_DISKS_MAX;
        struct device_disk disks[DEVICE_DISKS_MAX];
        struct vm *vm = NULL;
        int r = vm_new(options, &options->shape, &vm, err);

        memcpy(disks, options->disks, sizeof disks);
        if (r == 0)
                r = make_root(vm, err);
        if (r < 0) {
                close_fd(options->console_in_fd);
                close_fd(options->console_out_fd);
                close_disks(disks, ndisks);
        } else {
                r = vm_furnish(vm, options->console_in_fd, options->console_out_fd, disks, err);
        }
        if (r < 0) {
                vm_destroy(vm, 0);
                return r;
        }
        *out = vm;
        return 0;
}

/* Tables and kernel. The guest finds its virtio devices in one or the other. */
static int load(struct vm *vm, const struct boot_source *given, struct x86_entry *entry,
                struct err *err)
{
        const bool tables = !vm->shape.virtio_cmdline;
        struct boot_source source = *given;
        char *cmdline = NULL;
        int r = acpi_write_tables(&vm->mem, vm->shape.vcpus, tables ? vm->device_slots.made : 0,
                                  err);

        if (r < 0)
                return r;
        if (!tables) {
                cmdline = device_slots_cmdline(vm, given->cmdline);
                if (!cmdline)
                        return err_host(err, ENOMEM, "no memory for the command line");
                source.cmdline = cmdline;
        }
        source.tsc_khz = vm->vcpus[0].kvm.tsc_khz;
        r = boot_load(&source, &vm->mem, entry, err);
        free(cmdline);
        return r;
}

int vm_boot(struct vm *vm, const struct boot_source *source, struct err *err)
{
        int fd = vm->vcpus[0].kvm.fd;
        struct kvm_sregs sregs;
        struct kvm_regs regs;
        struct x86_entry entry;
        int r = load(vm, source, &entry, err);

        if (r < 0)
                return r;
        r = kvm_ioctl(fd, KVM_GET_SREGS, &sregs);
        if (r == 0)
                r = x86_entry_setup(&entry, &vm->mem, &regs, &sregs);
        if (r == 0)
                r = kvm_ioctl(fd, KVM_SET_SREGS, &sregs);
        if (r == 0)
                r = kvm_ioctl(fd, KVM_SET_REGS, &regs);
        if (r < 0)
                return err_host(err, -r, "setting up the boot processor: %s", strerror(-r));
        vm_memory_changed(vm);
        vm->booted = true;
        return 0;
}

/* --- running --- */

int vm_start(struct vm *vm, struct err *err)
{
        vm_pause(vm);
        vm->started = true;
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                int r = vcpu_start(&vm->vcpus[i], err);

                if (r < 0)
                        return r;
        }
        return 0;
}

static void resume(struct vm *vm)
{
        vm->paused = false;
        vm_memory_changed(vm);
        guest_access_exclusive(&vm->access, false);
        sync_resume(&vm->sync);
        vcpu_wake_all(vm); /* those that vm_reset() has released */
}

static void kick_for_first_exit(void *data)
{
        struct vm *vm = data;

        if (atomic_load(&vm->first_exit) != FIRST_EXIT_AWAITED)
                return;
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                sync_request(&vm->vcpus[i].part, VCPU_REQUEST_KICK);
        /* A vCPU that was just coming out for something else takes the kick for that. */
        loop_rearm_timer(vm->kick_timer, KICK_AFTER_NS);
}

void vm_run(struct vm *vm)
{
        if (!vm->paused)
                return;
        for (unsigned i = 0; vm_now_ns() - vm->paused_ns > LONG_PAUSE_NS && i < vm->shape.vcpus;
             i++)
                kvm_vcpu_was_paused(&vm->vcpus[i].kvm);
        cow_watch(vm);
        meter_run(vm);
        resume(vm);
        machine_devices_resume(vm);
        if (atomic_load(&vm->first_exit) == FIRST_EXIT_AWAITED && !vm->doorbell_fork &&
            !vm->kick_timer)
                loop_add_timer(vm->options.loop, KICK_AFTER_NS, kick_for_first_exit, vm,
                               &vm->kick_timer);
}

void vm_pause(struct vm *vm)
{
        uint64_t t0 = vm_now_ns();

        vm->quiesce_ns = 0;
        if (vm->paused)
                return;
        machine_devices_quiesce(vm);
        vm->paused_ns = vm_now_ns();
        vm->quiesce_ns = vm->paused_ns - t0;
        sync_stop(&vm->sync);
        guest_access_exclusive(&vm->access, true);
        vm->paused = true;
        meter_pause(vm);
}

int vm_memory_usage(struct vm *vm, uint64_t *shared_bytes, uint64_t *private_bytes)
{
        return backing_usage(&vm->backing, shared_bytes, private_bytes);
}

bool vm_kvm_missing(const struct vm *vm, unsigned *at, const char **name, const char **instead)
{
        struct kvm_missing missing;

        while (kvm_host_missing(&vm->host, at, &missing)) {
                if (missing.for_programs)
                        continue;
                *name = missing.name;
                *instead = missing.instead;
                return true;
        }
        return false;
}

bool vm_missing(const struct vm *vm, unsigned *at, const char **line)
{
        struct kvm_missing missing;
        bool is = kvm_host_missing(&vm->host, at, &missing);

        if (is)
                *line = missing.line;
        return is;
}

uint64_t vm_assists(struct vm *vm)
{
        return atomic_load(&vm->assists);
}

const struct vm_shape *vm_shape(const struct vm *vm)
{
        return &vm->shape;
}

struct guest_mem *vm_memory(struct vm *vm)
{
        return &vm->mem;
}

/* --- end --- */

static void end_vcpus(struct vm *vm)
{
        if (!vm->vcpus)
                return;
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                sync_request(&vm->vcpus[i].part, VCPU_REQUEST_EXIT);
        vcpu_release_all(vm, UINT32_MAX);
        if (vm->paused)
                resume(vm);
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                if (vm->vcpus[i].has_thread)
                        pthread_join(vm->vcpus[i].thread, NULL);
                sync_leave(&vm->vcpus[i].part);
        }
}

void vm_destroy(struct vm *vm, unsigned linger_ms)
{
        if (!vm)
                return;
        /* First, since a vCPU that stops the machine waits for I/O that only this thread ends. */
        machine_devices_quiesce(vm);
        loop_io_drain(vm->options.loop);
        end_vcpus(vm);
        loop_remove(vm->kick_timer);
        loop_remove(vm->cow_timer);
        loop_remove(vm->meter.timer);
        loop_set_wake(vm->options.loop, NULL, NULL);
        machine_devices_destroy(vm);
        guest_access_lending_end(&vm->access);
        if (vm->console)
                chardev_destroy(vm->console, linger_ms);
        for (unsigned i = 0; vm->vcpus && i < vm->shape.vcpus; i++)
                kvm_vcpu_close(&vm->vcpus[i].kvm);
        kvm_vm_close(&vm->kvm);
        device_slots_destroy(vm);
        kvm_host_close(&vm->host);
        dirty_fini(&vm->dirty);
        backing_destroy(&vm->backing);
        slots_fini(&vm->slots);
        baton_fini(&vm->baton);
        sync_leave(&vm->owner_part);
        sync_domain_fini(&vm->sync);
        pthread_mutex_destroy(&vm->event_lock);
        record_reader_fini(&vm->saved);
        template_unref(vm->tmpl);
        fixed_tables_free(vm);
        free(vm->armed.text);
        free(vm->vcpus);
        free(vm->cpuid);
        free(vm);
}
