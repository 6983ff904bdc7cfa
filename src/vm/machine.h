/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of a machine, for the files of src/vm only. Who may touch what:
 *   [I] immutable after vm_start   [o] owner (loop) thread   [v] the vCPU's own thread
 *   [a] atomic                     [m] under event_lock
 */
#ifndef RAMET_VM_MACHINE_H
#define RAMET_VM_MACHINE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/spin.h"
#include "devices/device.h"
#include "kvm/kvm.h"
#include "mem/access.h"
#include "mem/backing.h"
#include "mem/cow_rom.h"
#include "mem/dirty.h"
#include "mem/slots.h"
#include "sync/sync.h"
#include "vm/baton.h"
#include "vm/cow.h"
#include "vm/debug.h"
#include "vm/vm.h"
#include "x86/view.h"

#define VM_DEVICES_MAX 32 /* those that are always there, DEVICE_SLOTS_MAX, and some room */
#define VM_EVENTS_MAX  (RAMET_VCPUS_MAX + 8) /* one of each vCPU, which it holds, and the others */

/* Requests that a vCPU honours at the top of its loop. */
enum vcpu_request {
        VCPU_REQUEST_EXIT,  /* end the thread */
        VCPU_REQUEST_KICK,  /* come out of guest mode once, for nothing else */
        VCPU_REQUEST_HOLD,  /* look at `held` */
        VCPU_REQUEST_YIELD, /* come out; let others have the baton */
};

/* Why a vCPU waits at the top of its loop; a bit each. */
enum vcpu_hold {
        VCPU_HELD_FORK = 1,   /* for vm_fork_done() */
        VCPU_HELD_ENDED = 2,  /* the machine has ended: for vm_reset() */
        VCPU_HELD_DEVICE = 4, /* for a device's release() */
        VCPU_HELD_EVENT = 8,  /* for vm_continue() */
};

/* Pages that a vCPU asks to be broken at the next exit of its loop: see cow.c. The owner may clear
 * it while the machine is stopped. */
#define VCPU_COW_PAGES 160
struct vcpu_cow {
        unsigned npages;
        uint64_t pages[VCPU_COW_PAGES]; /* offsets into memory */
        bool everything;
        uint32_t msr; /* to be set once its page is broken; 0: none */
        uint64_t msr_value;
        uint64_t rip; /* when it last came out for no reason of its own */
};

struct vcpu {
        struct vm *vm;                /* [I] */
        struct kvm_vcpu kvm;          /* [I] descriptor and mapping; the run page is [v] */
        struct sync_participant part; /* the protocol's own rules */
        struct tlb tlb;               /* [v] */
        struct guest_access access;   /* [v] begun whenever the vCPU is not parked */
        pthread_t thread;             /* [o] */
        bool has_thread;              /* [o] */
        _Atomic bool kick_sent;       /* [a] set by the sender after, cleared by the taker before */
        unsigned foreign;             /* [v] rounds that another's kick signal has been pending */
        bool io_pending;              /* [v] the last exit is completed only by entering again */
        _Atomic uint32_t held;        /* [a] futex: bits of enum vcpu_hold; 0: it may run */
        _Atomic(bool) sleeps;         /* [a] on that futex, or about to */
        struct spin spin;             /* [v] */
        struct vcpu_cow cow;          /* [v] */
        struct vcpu_debug debug;      /* [v], or the owner's while it is stopped */
        /* [v] counted by its own thread alone, read by any */
        _Atomic uint64_t exits, pio_exits, mmio_exits;
        bool idle;               /* [v] it was halted, or not started, when it last came out */
        struct vcpu *baton_next; /* [baton's lock] */
        pthread_cond_t baton_turn;
};

struct vm_device {
        const struct device_ops *ops;
        void *dev;
        unsigned nwindows;
        struct device_window windows[DEVICE_WINDOWS];
};

/* What limits.c counts, and by when. */
struct vm_meter {
        struct ramet_limits limits;      /* [o] */
        _Atomic uint64_t exits_max;      /* [a] 0: no limit */
        _Atomic uint64_t exits;          /* [a] since then; only counted with a limit */
        _Atomic uint64_t own_pages_max;  /* [a] for the engine `trap` */
        uint64_t run_since;              /* [o] CLOCK_MONOTONIC; 0: it is stopped */
        uint64_t run_before;             /* [o] ns, in this life and before run_since */
        uint64_t run_base;               /* [o] of that, before the limits were set */
        struct loop_watch *timer;        /* [o] */
        uint64_t resets, stops;          /* [o] */
        uint64_t last_pause, last_reset; /* [o] ns */
};

struct vm_slots {
        unsigned made;  /* [I] as many as the shape's devices need */
        unsigned taken; /* [I] after the devices are made */
        struct device_slot slot[DEVICE_SLOTS_MAX];
};

/* What vm_arm_fork() was told. */
struct vm_armed {
        bool doorbell;
        char *text;  /* of the console; owned; NULL: none */
        bool always; /* by vm_watch() */
};

struct queued_event {
        enum vm_event event;
        struct vm_event_args args;
};

struct vm {
        struct vm_options options; /* [I] */
        struct vm_shape shape;     /* [I] */
        struct kvm_host host;      /* [I] */
        struct kvm_vm kvm;         /* [I] */
        struct kvm_cpuid2 *cpuid;  /* [I] room for KVM_HOST_CPUID_MAX; as KVM offers it */
        struct kvm_msr_set msrs;   /* [I] */
        struct backing backing;    /* [o] */
        struct guest_mem mem;      /* [I] */
        struct slots slots;        /* [o], or the initiator of a stop */
        struct dirty dirty;        /* its own rules; zeroed until vm_dirty_start() */
        struct sync_domain sync;
        struct baton baton;
        _Atomic uint64_t cow_stops, cow_decoded, cow_everything; /* [a] statistics */
        struct loop_watch *cow_timer;                            /* [o] */
        struct sync_participant owner_part; /* the protocol's own rules; never in guest mode */
        struct tlb owner_tlb;               /* [o] */
        struct guest_access access;         /* [o] the owner's and the devices' */
        uint64_t memory_epoch;              /* [o] vm_memory_changed() calls */
        struct x86_view view;               /* [o] of one vCPU, as of view_epoch */
        uint64_t view_epoch;                /* [o] */
        struct vcpu *vcpus;                 /* [I] shape.vcpus of them */
        struct chardev *console;            /* [I] */
        struct device_env env;              /* [I] */
        struct vm_device devices[VM_DEVICES_MAX]; /* [I] */
        unsigned ndevices;                        /* [I] */
        void *doorbell, *vmgenid;                 /* [I] the two devices with a machine's side */
        /* [o] written while the machine is stopped, read by vCPUs */
        struct vm_handler handlers[VM_HANDLERS_MAX];
        unsigned nhandlers;
        struct vm_debug debug;
        struct vm_meter meter;
        struct vm_slots device_slots;
        unsigned device_holds; /* [m] hold() calls that wait for their release() */
        bool booted, started;  /* [o] */
        uint64_t paused_ns;    /* [o] CLOCK_MONOTONIC, when it began */
        uint64_t quiesce_ns;   /* [o] what the devices took, the last time */
        bool paused;           /* [o] sync_stop() is in force */
        uint64_t generation;   /* [o] freezes so far */
        struct template *tmpl; /* [o] what vm_reset() goes back to, a reference; NULL: nothing */
        struct record_reader saved; /* [o] its state, read at the first reset; empty: not yet */
        struct fixed_tables *fixed_tables; /* [o] noted at the first reset; NULL: not yet */
        struct vm_reset_stats resets;      /* [o] */
        uint32_t index, count;             /* [o] a clone's number in its fork */
        _Atomic uint32_t lines;            /* [a] that vm_irq() has raised since the last reset */

        /* the fork that is awaited; a vCPU is also held under this lock */
        bool doorbell_armed;   /* [m] */
        bool fork_pending;     /* [m] an event was raised, vm_fork_done() has not come */
        struct vm_armed armed; /* [o] what the owner wants to hear of and has not yet heard */
        /* a clone's first exit of its own */
        _Atomic uint32_t first_exit;   /* [a] enum first_exit_state */
        bool doorbell_fork;            /* [I] it is the read of RESULT */
        struct loop_watch *kick_timer; /* [o] */

        pthread_mutex_t event_lock;
        struct queued_event events[VM_EVENTS_MAX]; /* [m] */
        unsigned nevents;                          /* [m] */
        bool exited;                               /* [m] exit is set; the first one wins */
        struct vm_exit_info exit;                  /* [m] */
        _Atomic uint64_t assists;                  /* [a] */
};

enum first_exit_state {
        FIRST_EXIT_NONE, /* not a clone, or it has been reported */
        FIRST_EXIT_AWAITED,
};

uint64_t vm_now_ns(void);

/* vm.c */
void vm_raise(struct vm *vm, enum vm_event event, const struct vm_event_args *args);
/* The machine ends, by the calling thread's vCPU if it is one's. The first one wins. */
void vm_exit_with(struct vm *vm, enum ramet_exit reason, int status, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
void vm_first_exit(struct vm *vm, enum vm_first_exit how);
int vm_map_memory(struct vm *vm, struct err *err);
int vm_new(const struct vm_options *options, const struct vm_shape *shape, struct vm **vm,
           struct err *err);
int vm_make_machine(struct vm *vm, struct err *err);
int vm_set_cpuid(struct vm *vm, struct err *err);
/* Console and devices, of memory that is there. All descriptors are taken, also on failure. @disks:
 * shape.ndisks of them. */
int vm_furnish(struct vm *vm, int console_in_fd, int console_out_fd, struct device_disk *disks,
               struct err *err);

/* forks.c */
/* A ring, or the awaited text, by the thread that did it. False: nobody waits for it. */
bool vm_fork_rung(struct vm *vm, enum vm_event event, uint64_t arg);
void vm_fork_heard(struct vm *vm, enum vm_event event); /* the owner is about to hear of it */
int vm_watch_armed(struct vm *vm); /* for its text, from the beginning. 0 or -EINVAL: too long */

/* vcpu.c */
void vcpu_kick(void *vcpu);
void vcpu_join(struct vcpu *vcpu); /* its vm is set; before it is started */
int vcpu_start(struct vcpu *vcpu, struct err *err);
void vcpu_hold_current(struct vm *vm, enum vcpu_hold why); /* the calling thread's vCPU parks */
void vcpu_hold_all(struct vm *vm, enum vcpu_hold why);
void vcpu_release(struct vcpu *vcpu, uint32_t why); /* bits of enum vcpu_hold */
void vcpu_release_all(struct vm *vm, uint32_t why);
/* While the machine is stopped: release, and let those that sleep do so until vcpu_wake_all(). */
void vcpu_release_quietly(struct vm *vm, uint32_t why);
void vcpu_wake_all(struct vm *vm);
/* The number of the calling thread's vCPU; VM_NO_VCPU: it is none of this machine's. */
uint32_t vcpu_calling(const struct vm *vm);
/* Hold it for an event of its own. False: an event holds it already, and covers this one, too. */
bool vcpu_hold_for_event(struct vm *vm, uint32_t *number);

/* cpu.c: all that vm_irq() has raised and not lowered. Owner, stopped. */
void vm_lower_lines(struct vm *vm);

/* memory.c */
/* Registers or page tables of vCPUs may be others from now on: the owner's linear translations are
 * not used any more. */
void vm_memory_changed(struct vm *vm);
/* Linear addresses as @vcpu means them now: by its own thread outside KVM_RUN, or the owner while
 * it is stopped. @run: see x86/view.h. 0 or -errno. */
int vcpu_view(struct vcpu *vcpu, uint64_t run, struct x86_view *view);

/* bus.c */
/* False: nobody answers; a read has given all ones. */
bool bus_access(struct vm *vm, enum device_space space, uint64_t address, uint8_t *data,
                unsigned len, bool write);
/* A new device's windows: where a user chooses a port, two devices can want the same. */
int bus_check_windows(const struct vm *vm, const struct vm_device *d, struct err *err);

/* limits.c */
void meter_init(struct vm *vm);
/* An exit is to be dealt with: count it. False: it is one too many, and the machine has ended. */
bool meter_exit(struct vm *vm);
void meter_run(struct vm *vm);   /* the vCPUs are about to be let go */
void meter_pause(struct vm *vm); /* they have been stopped */
void meter_reset(struct vm *vm); /* another life */
/* For the engine `trap`: see struct cow_env. */
void meter_own_page(void *machine, uint64_t offset, uint64_t own_pages);

/* devices.c */
unsigned machine_slots_needed(const struct vm *vm); /* for the devices of its shape */
/* They are born quiesced. @disks: shape.ndisks of them; what a device has taken becomes -1. */
int machine_devices_create(struct vm *vm, struct device_disk *disks, struct err *err);
void machine_devices_destroy(struct vm *vm);
void machine_devices_quiesce(struct vm *vm);
void machine_devices_resume(struct vm *vm);
/* A freeze: prepare, then either freeze and publish, or cancel. publish comes to all of them even
 * if one fails, or the caller has no use for it, and adds RECORD_FILES. */
int machine_devices_prepare(struct vm *vm, struct err *err);
void machine_devices_freeze(struct vm *vm);
int machine_devices_publish(struct vm *vm, struct record_writer *w, struct device_files *files,
                            struct err *err);
void machine_devices_cancel(struct vm *vm);
/* Which of them a saved state means: devices of one kind are told apart by their order. */
uint32_t machine_device_instance(const struct vm *vm, unsigned index);

/* device_slots.c: of device_env. With the interrupt controllers there, and no devices yet. */
int device_slots_create(struct vm *vm, struct err *err);
/* @cmdline after what tells a kernel of the slots (Linux, drivers/virtio/virtio_mmio.c); before it,
 * since it may have a "--" after which nothing is the kernel's. To be freed; NULL: no memory. */
char *device_slots_cmdline(const struct vm *vm, const char *cmdline);
int device_slots_take(void *machine, struct device_slot *slot);
void device_slots_destroy(struct vm *vm); /* after KVM's side of the machine */

/* devices.c: those that are given. */
void vm_overlays_close(const struct vm_overlay overlays[DEVICE_DISKS_MAX]);

/* spawn.c: what a clone must not share with its parent, its siblings, or its earlier lives. */
int machine_set_identity(struct vm *vm, struct err *err);

/* state.c. Restoring is of all but memory, CPUID and the generation id's change; of a new machine,
 * or (@again) of one that vm_reset() has prepared. */
int machine_save(struct vm *vm, struct record_writer *w, struct err *err);
int machine_restore(struct vm *vm, const struct template *tmpl, const struct record_reader *r,
                    bool again, struct err *err);

#endif
