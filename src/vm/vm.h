/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine: memory, vCPUs, devices, and its life from creation to the last exit.
 *
 *      vm_create + vm_boot --.
 *                            +--> vm_start --> vm_run --> events --> ... --> vm_destroy
 *      vm_spawn(template) ---'    threads,       ^           |
 *                                 parked         '-----------'
 *                                            vm_freeze, vm_pause, vm_reset
 *
 * One thread, the one that runs the loop given at creation, owns the machine: it makes all the
 * calls below and gets all its events, through the loop. vCPU threads only raise events.
 */
#ifndef RAMET_VM_VM_H
#define RAMET_VM_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ramet/vm.h>

#include "base/err.h"
#include "boot/boot.h"
#include "devices/device.h"
#include "io/chardev.h"
#include "io/loop.h"
#include "mem/tlb.h"
#include "vm/template.h"

struct vm;

enum vm_event {
        VM_EVENT_FORK_DOORBELL = 1, /* the guest rang; that vCPU waits for vm_fork_done() */
        /* The awaited text was printed; that vCPU waits, too, if the serial port did it. What a
         * virtio console prints goes out by the loop's thread, and the guest runs on meanwhile. */
        VM_EVENT_FORK_CONSOLE,
        VM_EVENT_FIRST_EXIT, /* a clone's first exit of its own; args: see struct */
        VM_EVENT_EXIT,       /* the machine ended: vm_exit_info(). Comes once */
        VM_EVENT_BREAKPOINT, /* vm_breakpoint() or vm_step(); that vCPU waits for vm_continue() */
        VM_EVENT_UNHANDLED,  /* with report_unhandled; that vCPU waits for vm_continue() */
};

enum vm_first_exit {
        VM_FIRST_EXIT_DOORBELL, /* the read of RESULT after a doorbell fork */
        VM_FIRST_EXIT_ANY,
        VM_FIRST_EXIT_KICK,
};

#define VM_NO_VCPU UINT32_MAX

struct vm_event_args {
        uint64_t t_ns; /* CLOCK_MONOTONIC, when it happened */
        uint32_t vcpu; /* whose thread raised it, which is held if the event says so; VM_NO_VCPU */
        union {
                enum vm_first_exit how; /* FIRST_EXIT */
                uint32_t ring;          /* FORK_DOORBELL: the value that was written */
                struct {
                        uint64_t address; /* linear, of the instruction that comes next */
                        bool step;        /* by vm_step() */
                } breakpoint;
                struct {
                        enum device_space space;
                        bool write;
                        unsigned length;
                        uint64_t address, value; /* the value of a write */
                } unhandled;
        };
};

/* Must not destroy the machine: there may be more events to deliver. */
typedef void vm_event_fn(void *data, enum vm_event event, const struct vm_event_args *args);

/* What the machine is. */
struct vm_shape {
        uint64_t memory_bytes;
        uint32_t vcpus;
        uint32_t debug_exit_port;     /* 0: none */
        uint32_t ndisks;              /* at most DEVICE_DISKS_MAX */
        uint32_t rng, virtio_console; /* 0 or 1 */
        uint32_t virtio_cmdline; /* 1: the guest finds virtio devices by its command line, not by
                                  * ACPI */
};

/* RECORD_VM, version 1: the machine, and the fork that this template was made for. */
struct vm_record {
        struct vm_shape shape;
        uint64_t fork_point_ns; /* CLOCK_MONOTONIC when the fork event happened */
        uint32_t by_doorbell;   /* 1: a clone's first exit of its own is the read of RESULT */
        uint32_t layers;        /* memory layers that belong to this state */
};

/* An entry of RECORD_FILES, version 1: the template's next @files files are this device's. */
struct vm_files {
        uint32_t kind, instance; /* of the device's record */
        uint32_t files;
        uint32_t reserved; /* 0 */
};

/* Where a disk's own writes go: an empty file, open for both and for reading only, or memory. */
struct vm_overlay {
        bool given; /* false: memory */
        int fd, ro_fd;
};

struct vm_options {
        struct vm_shape shape; /* vm_create; vm_spawn takes the template's */
        struct loop *loop;     /* borrowed; its wake function is the machine's from now on */
        int console_in_fd;     /* owned by the machine from now on, -1: none */
        int console_out_fd;
        struct chardev_sink console; /* with functions: it, and not the descriptors, which are -1 */
        /* vm_create: shape.ndisks of them; vm_spawn: overlays for the template's disks. Descriptors
         * are the machine's from now on, also on failure. */
        struct device_disk disks[DEVICE_DISKS_MAX];
        struct vm_overlay overlays[DEVICE_DISKS_MAX];
        /* What brings vCPU threads out of the guest; 0: SIGSTKFLT, which nothing else uses. It is
         * sent to them alone and never delivered; vcpu.c says what the program must not do with it.
         * vm_kick_signal_check() says which can be used. */
        int kick_signal;
        enum ramet_hugepages hugepages;
        enum ramet_cow cow;
        struct ramet_limits limits; /* as with vm_set_limits() */
        /* Entries of each vCPU's dirty ring, a power of two, for vm_dirty_start(). 0: KVM's dirty
         * log is used, which every host has. */
        uint32_t dirty_ring;
        /* Each ring, and each time that the awaited text is printed, is an event of its own with a
         * hold of its own, until vm_continue(); the doorbell is always armed. No FIRST_EXIT. */
        bool every_event;
        /* Accesses that no device, no handler and no RAM answers are events; the first one of an
         * instruction. */
        bool report_unhandled;
        /* The guest leaves its page tables alone, see ramet_vm_config: vm_reset() keeps KVM's
         * shadows of them then, unless it finds otherwise. */
        bool fixed_page_tables;
        bool no_eventfds;   /* for tests: do as on a KVM without KVM_IOEVENTFD and KVM_IRQFD */
        vm_event_fn *event; /* loop thread */
        void *event_data;
};

/* Can vCPUs be kicked with it? 0, or -EINVAL with err set: no signal; one that cannot be blocked,
 * or means an error of the thread itself; or a real-time one: sending those fails when the user has
 * too many of them queued, in whatever process, and a kick that fails is a stop that never ends. */
int vm_kick_signal_check(int signal, struct err *err);

/* A new machine with empty memory; its console descriptors are the machine's even on failure.
 * 0 or -errno with err set. */
int vm_create(const struct vm_options *options, struct vm **vm, struct err *err);
/* Load a kernel, and set the boot processor to enter it. Once, before vm_start. */
int vm_boot(struct vm *vm, const struct boot_source *source, struct err *err);

/* A machine in the state of @tmpl (which is kept by reference), as clone @index of @count.
 * @fork_point_ns: when the fork happened, for FIRST_EXIT. */
int vm_spawn(struct template *tmpl, const struct vm_options *options, uint32_t index,
             uint32_t count, struct vm **vm, struct err *err);

/* The same in two steps. A shell is a machine of @options->shape with all that needs no template:
 * KVM's side of it, addresses for its memory, and after vm_start() its threads. It has no console
 * yet. vm_adopt() makes it that clone; a shell of another shape is refused (-EINVAL), and a shell
 * that could not adopt is only good for vm_destroy(). All of @files are the machine's
 * from now on, even on failure; descriptors in @options are not looked at. */
int vm_shell(const struct vm_options *options, struct vm **vm, struct err *err);
struct vm_clone_files {
        int console_in_fd, console_out_fd;            /* -1: none */
        struct vm_overlay overlays[DEVICE_DISKS_MAX]; /* given: only for disks that there are */
};
int vm_adopt(struct vm *vm, struct template *tmpl, const struct vm_clone_files *files,
             uint32_t index, uint32_t count, struct err *err);

/* Files for the overlays that the disks write after the next freeze; the machine's from now on.
 * What a disk has been given and not used yet is closed. */
void vm_give_overlays(struct vm *vm, const struct vm_overlay overlays[DEVICE_DISKS_MAX]);

/* Create the vCPU threads; they wait. Afterwards the process can be confined. */
int vm_start(struct vm *vm, struct err *err);
/* Let the vCPUs go, for the first time or after vm_pause(). */
void vm_run(struct vm *vm);
/* Stop all vCPUs; returns when none can touch guest memory. Idempotent. */
void vm_pause(struct vm *vm);

/* Arm one fork: the next ring of the doorbell (or the console text, if not NULL) raises an event
 * and holds that vCPU. Unarmed, a ring answers NOT_ARMED by itself. 0 or -EINVAL (text too long).
 */
int vm_arm_fork(struct vm *vm, bool doorbell, const char *console_text);
/* With every_event: FORK_CONSOLE each time that @text is printed, in each life, until this is
 * called again; NULL: no more. vm_arm_fork() without a text leaves it as it is. 0, -EINVAL (too
 * long) or -ENOMEM; then nothing changed. */
int vm_watch(struct vm *vm, const char *text);
/* The sink of the console has input. */
void vm_console_feed(struct vm *vm);

struct vm_freeze_stats {
        uint64_t fork_point_ns; /* CLOCK_MONOTONIC when the vCPUs were asked to stop */
        uint64_t quiesce_ns;    /* devices ended their I/O before that; the guest ran */
        uint64_t stop_ns, pause_ns, freeze_ns, publish_ns;
        uint64_t copied_bytes;
        uint64_t generation;
};

/* Freeze: stop, save, seal, go on. The machine runs on afterwards unless it was paused before; a
 * vCPU that is held by a fork event stays held. On failure (EBUSY: something still has a writable
 * mapping of its memory; ESRCH: the machine has ended) there is no template and the machine is as
 * before.
 * @cause_ns: 0, or when the fork event happened: becomes the template's fork point. @by_doorbell:
 * what the clones' FIRST_EXIT means. */
int vm_freeze(struct vm *vm, uint64_t cause_ns, bool by_doorbell, struct template **tmpl,
              struct vm_freeze_stats *stats, struct err *err);

/* Back to its template, in place: memory, vCPUs, devices and clock as when it was spawned, with a
 * new generation id and the same number in its fork; input that nobody has read is dropped. It runs
 * on afterwards unless it was paused before, or had not run yet. A machine that has ended lives
 * again. What is armed stays armed, a fork that the owner has heard of is over, and events that it
 * has not heard of are dropped, but for FIRST_EXIT, which comes once in a machine's life.
 *
 * A clone goes back to what it was spawned from, however often it was frozen itself; a root to its
 * first freeze. -EINVAL (nothing has changed): a root that was never frozen, or whose first freeze
 * failed to seal (its memory is not that of any template). Another -errno: the template's state
 * cannot be read (nothing has changed either), or half of it could be set: then the machine has
 * ended, and EXIT says so. */
int vm_reset(struct vm *vm, struct err *err);

/* What became of KVM's shadows of the guest's page tables, where it keeps any: resets that dropped
 * them, and those that did not need to. */
struct vm_reset_stats {
        uint64_t dropped, kept;
};
void vm_reset_stats(const struct vm *vm, struct vm_reset_stats *stats);

/* The fork that the event asked for is over: RESULT and COUNT read this from now on (0 in the
 * parent, or RAMET_DOORBELL_FAILED), and the held vCPU goes on. */
void vm_fork_done(struct vm *vm, uint32_t result, uint32_t count);

/* A fork that the guest did not ask for is over: the parent reads 0 of @count from now on. Whoever
 * waits for an answer of its own keeps waiting. */
void vm_fork_told(struct vm *vm, uint32_t count);

/* With every_event: what RESULT and COUNT read from now on, and nothing else. */
void vm_answer(struct vm *vm, uint32_t result, uint32_t count);
/* Let go on what events hold for it, of vCPU n if bit n is set. */
void vm_continue(struct vm *vm, uint64_t vcpus);

/* Is this the thread of a vCPU, of whatever machine? Any thread. */
bool vm_in_vcpu_thread(void);

struct vm_exit_info {
        enum ramet_exit reason;
        int status;
        uint32_t vcpu;  /* whose thread ended it; VM_NO_VCPU */
        char text[256]; /* what happened, one line; a CRASH's ends with the linear address */
};
void vm_exit_info(struct vm *vm, struct vm_exit_info *info);
bool vm_has_ended(struct vm *vm); /* its EXIT event has come, or is under way. Any thread */

/* --- vCPUs: debug.c, cpu.c; the owner, while the machine is stopped (-EBUSY) --- */

/* -EINVAL with err set: there is no such vCPU. Whether the machine runs or not. */
int vm_check_vcpu(const struct vm *vm, unsigned vcpu, struct err *err);
/* -EINVAL (err: which vCPU there is not, or which registers are refused); -errno of KVM. */
int vm_get_regs(struct vm *vm, unsigned vcpu, struct ramet_regs *regs, struct err *err);
int vm_set_regs(struct vm *vm, unsigned vcpu, const struct ramet_regs *regs, struct err *err);
/* Hold a vCPU, any of them, before the instruction at a linear address. Setting one twice and
 * clearing one that is not set change nothing. -ENOSPC: KVM_BREAKPOINTS_MAX are set; -ENOTSUP:
 * this KVM cannot. */
int vm_breakpoint(struct vm *vm, uint64_t address, bool set, struct err *err);
/* When @vcpu goes on next: one instruction, then a BREAKPOINT event. -EINVAL, -ENOTSUP. */
int vm_step(struct vm *vm, unsigned vcpu, struct err *err);

/* Interrupts: any thread, handlers too, as long as the machine is there, since KVM's descriptors
 * are, and all of these are calls of theirs. 0; -EINVAL (an argument); -ENOTSUP: no KVM_SIGNAL_MSI;
 * -errno. */
int vm_irq(struct vm *vm, unsigned line, bool level, struct err *err);
int vm_nmi(struct vm *vm, unsigned vcpu, struct err *err);
int vm_msi(struct vm *vm, uint64_t address, uint32_t data, struct err *err);

/* A range of ports or addresses that the owner's functions answer, on vCPU threads: see struct
 * ramet_handler. While it is stopped; it stays over a reset. -EBUSY: it runs; -EINVAL: no such
 * range; -EEXIST: a device or RAM is there; -ENOSPC: VM_HANDLERS_MAX. */
#define VM_HANDLERS_MAX 16u
struct vm_handler {
        enum device_space space;
        uint64_t base, length;
        uint64_t (*read)(void *data, uint64_t offset, unsigned length);
        void (*write)(void *data, uint64_t offset, unsigned length, uint64_t value);
        void *data;
};
int vm_handle(struct vm *vm, const struct vm_handler *handler, struct err *err);

/* --- limits and statistics: limits.c; the owner --- */

/* Counted anew from here, and from each reset. Time and, but with RAMET_COW_TRAP, own pages are
 * looked at by the loop. The machine runs or not. 0 or -errno. */
int vm_set_limits(struct vm *vm, const struct ramet_limits *limits, struct err *err);

struct vm_stats {
        uint64_t exits, pio_exits, mmio_exits; /* of all vCPUs, dealt with */
        uint64_t freezes, resets, stops;
        uint64_t run_ns; /* let run, since create, spawn or reset */
        uint64_t last_pause_ns, last_reset_ns;
};
void vm_stats(struct vm *vm, struct vm_stats *stats);

/* Dirty pages: which were written since the last time, by vCPUs, KVM, devices or Ramet. Page n is
 * the one at n * 4096 of memory_bytes (RAM above the hole below 4 GiB goes on without it). Start
 * begins with none, as vm_reset() does; it costs the guest a fault for each page that it writes
 * between two answers. 0 or -errno; collect without start: -EINVAL. */
int vm_dirty_start(struct vm *vm, struct err *err);
int vm_dirty_stop(struct vm *vm, struct err *err);
size_t vm_dirty_words(const struct vm *vm); /* of a bitmap of all pages */
/* Adds to @bitmap; *count (NULL: not asked) is how many pages that were. vCPUs may run: look at
 * contents afterwards. */
int vm_dirty_collect(struct vm *vm, uint64_t *bitmap, uint64_t *count, struct err *err);

/* Guest memory: @shared bytes come from template layers, @private are the machine's own. */
int vm_memory_usage(struct vm *vm, uint64_t *shared_bytes, uint64_t *private_bytes);

/* What a machine with the engine `rom` has gone through; zeroes with another one. */
struct vm_cow_stats {
        uint64_t pages;       /* with a backing of their own now */
        uint64_t slots;       /* memory slots now */
        uint64_t stops;       /* of the whole machine, to break pages */
        uint64_t decoded;     /* instructions that KVM could not emulate, and were run again */
        uint64_t everything;  /* times that all of memory was broken, since it could not be told */
        uint64_t compacted;   /* parts broken whole, since slots ran out */
        uint64_t handovers;   /* of the baton */
        uint64_t short_turns; /* with it that were to be short ones, of halted vCPUs */
};
void vm_cow_stats(struct vm *vm, struct vm_cow_stats *stats);

/* KVM features that this machine does without, one a call: see kvm_host_missing(). vm_missing() has
 * those that only programs miss, too, each in one line. */
bool vm_kvm_missing(const struct vm *vm, unsigned *at, const char **name, const char **instead);
bool vm_missing(const struct vm *vm, unsigned *at, const char **line);

uint64_t vm_assists(struct vm *vm); /* instructions done for KVM's emulator */
const struct vm_shape *vm_shape(const struct vm *vm);
struct guest_mem *vm_memory(struct vm *vm); /* to be used while the vCPUs are paused */

/* Read and write guest memory by guest-physical address; the vCPUs may run. 0; -EFAULT (no byte
 * moved) when the range is not RAM; -ENODEV for a shell, which has no memory yet. */
int vm_read(struct vm *vm, uint64_t gpa, void *buf, size_t len);
int vm_write(struct vm *vm, uint64_t gpa, const void *buf, size_t len);
/* The same by linear address of a vCPU, as a debugger does: what is mapped may be read and written,
 * whatever its rights. What lies before *@failed (may be NULL) has been. 0, or
 *      -EBUSY    the vCPUs run: vm_pause() first
 *      -EFAULT   nothing is mapped at *@failed
 *      -EINVAL   no such vCPU (*@failed is not set), or *@failed is not canonical
 *      -EIO      the page tables for *@failed lie outside RAM
 *      -ENXIO    *@failed is mapped, to what is not RAM
 *      -ENODEV   a shell; or KVM's -errno */
int vm_read_gva(struct vm *vm, unsigned vcpu, uint64_t gva, void *buf, size_t len,
                uint64_t *failed);
int vm_write_gva(struct vm *vm, unsigned vcpu, uint64_t gva, const void *buf, size_t len,
                 uint64_t *failed);
/* Pointers, between begin and end: a read section of the owner's (mem/access.h), in which it must
 * not stop or run the machine, or wait for anything. Span: 0, -EFAULT when the range is not RAM, or
 * not in one piece here; -ENODEV. What is asked for to be written counts as written. */
void vm_access_begin(struct vm *vm);
void vm_access_end(struct vm *vm);
int vm_access_span(struct vm *vm, uint64_t gpa, size_t len, bool write, void **pointer);
/* Where @gva is, by guest-physical address, which need not be RAM; errors as theirs. */
int vm_translate(struct vm *vm, unsigned vcpu, uint64_t gva, uint64_t *gpa);
/* The translation cache behind these and the devices: do without it, and what it did so far. */
void vm_memory_bypass(struct vm *vm, bool bypass);
void vm_memory_stats(const struct vm *vm, struct tlb_stats *stats);

/* Ends and joins the vCPU threads, gives the console up to @linger_ms to drain, frees everything.
 */
void vm_destroy(struct vm *vm, unsigned linger_ms);

#endif
