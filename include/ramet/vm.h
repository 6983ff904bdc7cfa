/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines in the calling program: boot one, freeze it into a template, spawn clones of that, and
 * take each back to it as often as you like.
 *
 *      struct ramet_vm_config config = {.size = sizeof config, .kernel = "guest.elf"};
 *
 *      ramet_vm_create(ctx, &config, &vm);
 *      ramet_vm_run_until(vm, RAMET_VM_DOORBELL, 5 * RAMET_SECOND, &event);
 *      ramet_vm_freeze(vm, "booted", &booted);
 *      ramet_template_spawn(booted, NULL, &clone);
 *      for (;;) {
 *              ramet_vm_write(clone, input, data, len);
 *              ramet_vm_run_until(clone, RAMET_VM_DOORBELL, RAMET_SECOND, &event);
 *              ramet_vm_reset(clone);
 *      }
 *
 * Who runs what. Each vCPU has a thread of its own. Everything else of a machine (its console,
 * disks, limits, events) is served by whoever calls it: in ramet_vm_next(), ramet_vm_run_until(),
 * or ramet_vm_serve() when ramet_vm_fd() is readable. A machine that nobody calls runs on as far as
 * it comes without.
 *
 * Threads. Any thread may make any call. Calls on one machine are made one after the other; one
 * that waits lets the others in. From a handler (ramet_vm_handle) only ramet_vm_irq, ramet_vm_nmi,
 * ramet_vm_msi and those for the program's own pointer (ramet_vm_set_data) may be called; the rest
 * return -EDEADLK there. Nobody may use a machine or a template once it has been destroyed or
 * released. A child that the program forks must not use machines of its parent.
 *
 * Taken from the program: nothing. No signal handler, no mask of its threads, no child, no exit().
 * vCPU threads block all signals; one is sent to them and never delivered
 * (ramet_ctx_set_kick_signal).
 *
 * Errors: 0, a positive result where said, or -errno, and ramet_last_error() in words. Each call
 * can return -EINVAL (an argument is not what it should be), -EDEADLK (see above), -ENOMEM, and
 * -EBUSY between ramet_vm_begin() and ramet_vm_end() where that is not said to be possible.
 */
#ifndef RAMET_VM_H
#define RAMET_VM_H

#include <ramet/ramet.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ramet_vm;       /* a machine, from create or spawn to destroy */
struct ramet_template; /* an immutable frozen machine, counted */

/* Times are in nanoseconds. */
#define RAMET_MICROSECOND 1000ull
#define RAMET_MILLISECOND 1000000ull
#define RAMET_SECOND      1000000000ull
#define RAMET_FOREVER     UINT64_MAX

/* --- a machine --- */

/* What ends a machine, with RAMET_EXIT_LIMIT and a text that says which. 0: no limit. Counted anew
 * from each reset, and when they are set. */
struct ramet_limits {
        uint64_t run_ns; /* time that it was let run */
        uint64_t exits;  /* exits of its vCPUs from guest mode that Ramet handles */
        /* Pages of memory of its own: what it has written since it was frozen, or cloned. Exact
         * with RAMET_COW_TRAP, else looked at every 10 ms. */
        uint64_t own_pages;
        uint64_t reserved[5]; /* 0 */
};

/* Zero it, set .size, set what you need. Everything is copied or opened by the call. */
struct ramet_vm_config {
        size_t size; /* sizeof this struct */

        const char *kernel;      /* path of an ELF (PVH, multiboot), bzImage or flat binary ... */
        const void *kernel_data; /* ... or the same in memory, if kernel is NULL */
        size_t kernel_bytes;
        const char *initramfs; /* path; NULL: none */
        const char *cmdline;   /* NULL: "" */

        uint64_t memory_bytes; /* as in struct ramet_vm_options; 0: 128 MiB */
        unsigned vcpus;        /* 1 to RAMET_VCPUS_MAX; 0: 1 */

        bool flat;             /* the kernel is a flat binary ... */
        uint64_t flat_address; /* ... for this guest-physical address ... */
        unsigned flat_bits;    /* ... entered in this mode: 16, 32 or 64 */

        uint16_t debug_exit_port; /* 0: no isa-debug-exit device */
        enum ramet_hugepages hugepages;
        enum ramet_cow cow; /* from its first freeze on, and of its clones */

        const struct ramet_disk *disks;
        unsigned ndisks; /* at most RAMET_DISKS_MAX */
        bool rng, virtio_console, virtio_cmdline;

        size_t console_bytes; /* output that is kept until it is read; 0: 64 KiB. The oldest goes */
        struct ramet_limits limits;

        /* Accesses to ports and addresses where there is nothing: RAMET_VM_UNHANDLED. They read as
         * all ones in any case. */
        bool report_unhandled;

        /* Entries of each vCPU's dirty ring, a power of two; 0: KVM's dirty log. */
        uint32_t dirty_ring;

        /* A promise about the guest: between the template and a reset it uses no page tables but
         * those that it had at the template, and changes no entry of them (accessed and dirty bits
         * aside). Where KVM keeps shadows of page tables (no EPT or NPT) a reset then spares
         * dropping them, some 10 ms, but for a machine's first one. It is checked as far as that is
         * cheap, and a reset that sees it broken drops them. Of clones, too. */
        bool fixed_page_tables;
};

/* A machine with its kernel loaded, which does not run yet. 0, -EINVAL (config), -errno of opening
 * files and of KVM, -ENOTSUP (this host cannot have that engine; the text names one it can). */
RAMET_API int ramet_vm_create(struct ramet_ctx *ctx, const struct ramet_vm_config *config,
                              struct ramet_vm **vm);
/* Ends it, whatever it does, also between begin and end of the calling thread. NULL is fine. */
RAMET_API void ramet_vm_destroy(struct ramet_vm *vm);

/* Let the vCPUs run, but those that an event holds; idempotent. -ESRCH: it has ended. */
RAMET_API int ramet_vm_start(struct ramet_vm *vm);
/* Stop all vCPUs: on return none can touch memory. Idempotent. */
RAMET_API int ramet_vm_pause(struct ramet_vm *vm);

/* Some pointer of the program's own. From handlers, too. */
RAMET_API int ramet_vm_set_data(struct ramet_vm *vm, void *data);
RAMET_API void *ramet_vm_data(const struct ramet_vm *vm);

/* --- events --- */

/* Bits, for sets of them. */
enum ramet_vm_event_type {
        RAMET_VM_EXIT = 1 << 0,       /* it has ended; only reset, destroy and looking are left */
        RAMET_VM_DOORBELL = 1 << 1,   /* the guest rang (fork_abi.h); that vCPU is held */
        RAMET_VM_CONSOLE = 1 << 2,    /* there is output to read. Once until it has been read */
        RAMET_VM_MATCH = 1 << 3,      /* the watched text was printed; see console_watch */
        RAMET_VM_BREAKPOINT = 1 << 4, /* a breakpoint or a step; that vCPU is held */
        RAMET_VM_UNHANDLED = 1 << 5,  /* report_unhandled; that vCPU is held */
};
#define RAMET_VM_ANY 0x3fu

enum ramet_space {
        RAMET_PIO = 0, /* I/O ports */
        RAMET_MMIO,    /* guest-physical addresses */
};

struct ramet_vm_event {
        enum ramet_vm_event_type type;
        unsigned vcpu; /* where one did it; EXIT: that ended it, 0 when none did */
        uint64_t t_ns; /* CLOCK_MONOTONIC, when it happened */
        union {
                struct {
                        enum ramet_exit reason;
                        int status;     /* DEBUG: (value << 1) | 1 */
                        char text[256]; /* one line; CRASH: it ends with the linear address */
                } exit;
                struct {
                        uint32_t value; /* that was written to RING */
                } doorbell;
                struct {
                        uint64_t address; /* linear, of the instruction that comes next */
                        bool step;        /* by ramet_vm_step() */
                } breakpoint;
                struct {
                        enum ramet_space space;
                        bool write;
                        unsigned length;
                        uint64_t address, value; /* the value of a write */
                } unhandled;
                uint64_t reserved[40]; /* room for what other events will tell */
        };
};

/* Serve the machine until there is an event, and take it. It runs or not, as it did. Of several
 * threads that wait, one gets it, also when it is the machine's end. 1: *event; 0: @timeout_ns went
 * by; or -errno. */
RAMET_API int ramet_vm_next(struct ramet_vm *vm, uint64_t timeout_ns, struct ramet_vm_event *event);
/* Let it run (ramet_vm_continue, ramet_vm_start) until an event of @types (bits), or its end, which
 * is always reported; events of other types on the way are dropped, and what they held goes on. It
 * runs on afterwards, but for what that event holds. 1: *event; 0: time-out; -ESRCH: it has ended
 * before; or -errno. */
RAMET_API int ramet_vm_run_until(struct ramet_vm *vm, unsigned types, uint64_t timeout_ns,
                                 struct ramet_vm_event *event);
/* Let go on what the events held that have been taken; a vCPU whose event still waits keeps waiting
 * with it. After a ring, RESULT and COUNT read 0. */
RAMET_API int ramet_vm_continue(struct ramet_vm *vm);
/* The same, with an answer to the ring of the doorbell: what RESULT and COUNT read from now on.
 * -EINVAL: nobody waits for one; @count is RAMET_DOORBELL_ERROR or more, or @result more than
 * @count and no error of fork_abi.h. */
RAMET_API int ramet_vm_answer(struct ramet_vm *vm, uint32_t result, uint32_t count);

/* A descriptor, the machine's own, that is readable when ramet_vm_serve() has something to do. Poll
 * it for POLLIN. -errno. */
RAMET_API int ramet_vm_fd(struct ramet_vm *vm);
/* Serve it, without waiting. 1 when there is an event to take, else 0; or -errno. */
RAMET_API int ramet_vm_serve(struct ramet_vm *vm);

/* --- templates --- */

/* Freeze it: nothing is copied, it runs on if it did, and what an event holds stays held. @name:
 * for people, at most RAMET_NAME_MAX bytes, not NULL. 0; -ESRCH (it has ended), -EBUSY (something
 * else has a writable mapping of its memory), or -errno; then it is as before. */
RAMET_API int ramet_vm_freeze(struct ramet_vm *vm, const char *name, struct ramet_template **tmpl);
RAMET_API const char *ramet_template_name(const struct ramet_template *tmpl);

struct ramet_template_info {
        size_t size; /* sizeof this struct, set by the caller */
        uint64_t memory_bytes;
        unsigned vcpus;
        unsigned layers;       /* of memory, one on the other */
        uint64_t generation;   /* counts the freezes of its machine, from 1 */
        uint64_t pause_ns;     /* how long the machine stood still for it */
        uint64_t copied_bytes; /* 0 for the first freeze of a machine that is no clone */
};
/* What it is. 0, or -EINVAL. */
RAMET_API int ramet_template_info(const struct ramet_template *tmpl,
                                  struct ramet_template_info *info);
/* One more holder; and one less. Machines hold theirs. NULL is fine for release. */
RAMET_API struct ramet_template *ramet_template_ref(struct ramet_template *tmpl);
RAMET_API void ramet_template_release(struct ramet_template *tmpl);

struct ramet_spawn_options {
        size_t size;           /* sizeof this struct */
        unsigned index, count; /* what the guest reads at its doorbell; both 0: 1 of 1 */
        size_t console_bytes;  /* as in struct ramet_vm_config; 0: 64 KiB */
        struct ramet_limits limits;
        bool report_unhandled;
        uint32_t dirty_ring;
};
/* A clone, which does not run yet. @options NULL: the defaults. 0, -errno. */
RAMET_API int ramet_template_spawn(struct ramet_template *tmpl,
                                   const struct ramet_spawn_options *options,
                                   struct ramet_vm **clone);
/* Back to its template, in place: a clone to what it was spawned from, however often it was frozen
 * itself; another machine to its first freeze. One that has ended lives again. Events, output and
 * input that nobody has taken are dropped, lines that ramet_vm_irq() has raised are down again;
 * breakpoints, handlers, the watched text and limits stay.
 * It is paused afterwards. 0; -EINVAL: there is nothing to go back to, and nothing has changed;
 * another -errno: if something has changed, the machine has ended. */
RAMET_API int ramet_vm_reset(struct ramet_vm *vm);
/* Freeze it and spawn @count clones of it, numbered from 1; none of them runs yet. A ring that
 * waits (its event has been taken) is answered with 0 of @count and goes on, else the doorbell just
 * reads so from now on. 0; or -errno: then there are no clones, and it is as before. */
RAMET_API int ramet_vm_fork(struct ramet_vm *vm, unsigned count, struct ramet_vm **clones);

/* --- memory --- */

/* By guest-physical address; it may run. -EFAULT: the range is not RAM; no byte was moved. Also
 * between begin and end. */
RAMET_API int ramet_vm_read(struct ramet_vm *vm, uint64_t gpa, void *buf, size_t len);
RAMET_API int ramet_vm_write(struct ramet_vm *vm, uint64_t gpa, const void *buf, size_t len);
/* By linear address, as @vcpu means it now; the machine is stopped meanwhile if it runs. Rights
 * are not looked at. -EFAULT: not mapped, or not to RAM (the text says where); what lies before has
 * been moved. */
RAMET_API int ramet_vm_read_gva(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, void *buf,
                                size_t len);
RAMET_API int ramet_vm_write_gva(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, const void *buf,
                                 size_t len);
/* Where a linear address is, by guest-physical address, which need not be RAM; as @vcpu means it
 * now. Errors as theirs. */
RAMET_API int ramet_vm_translate(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, uint64_t *gpa);
/* The only way to pointers. Between the two, the calling thread is a participant: what stops the
 * machine waits for it, and other threads' calls do. Do not wait for anything in there. */
RAMET_API int ramet_vm_begin(struct ramet_vm *vm);
RAMET_API int ramet_vm_end(struct ramet_vm *vm); /* -EINVAL: this thread has not begun */
/* @len bytes of RAM at @gpa, to be read, or written if @write, until end. -EINVAL: not begun;
 * -EFAULT: the range is not RAM, or not in one piece here. */
RAMET_API int ramet_vm_span(struct ramet_vm *vm, uint64_t gpa, size_t len, bool write,
                            void **pointer);

/* Dirty pages: which were written since the last time, by the guest, devices or this program. Page
 * n is the one at n * 4096 of memory_bytes (RAM above the hole below 4 GiB goes on without it).
 * Start, a reset and collect begin anew. 0, or -errno of KVM. */
RAMET_API int ramet_vm_dirty_start(struct ramet_vm *vm);
RAMET_API int ramet_vm_dirty_stop(struct ramet_vm *vm);
/* Adds to @bitmap, of @words 64-bit words (0 or more: what lies behind is not told). *count may be
 * NULL. -EINVAL: not started. */
RAMET_API int ramet_vm_dirty_collect(struct ramet_vm *vm, uint64_t *bitmap, size_t words,
                                     uint64_t *count);

/* --- processors --- */

struct ramet_segment {
        uint64_t base;
        uint32_t limit;
        uint16_t selector;
        uint16_t attributes; /* type, S, DPL, P, AVL, L, D/B, G: bits 0-3, 4, 5-6, 7, 8, 9, 10, 11
                              */
};

/* x86-64. */
struct ramet_regs {
        size_t size; /* sizeof this struct, set by the caller */
        uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp;
        uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
        uint64_t rip, rflags;
        uint64_t cr0, cr2, cr3, cr4, cr8, efer;
        struct ramet_segment cs, ds, es, fs, gs, ss, tr, ldt;
        uint64_t gdt_base, idt_base;
        uint16_t gdt_limit, idt_limit;
};

/* The machine is stopped meanwhile if it runs. set takes all of them: get first. -EINVAL, too, when
 * KVM refuses the values. */
RAMET_API int ramet_vm_get_regs(struct ramet_vm *vm, unsigned vcpu, struct ramet_regs *regs);
RAMET_API int ramet_vm_set_regs(struct ramet_vm *vm, unsigned vcpu, const struct ramet_regs *regs);

#define RAMET_BREAKPOINTS_MAX 4u

/* Stop before the instruction at a linear address, on any vCPU: at most RAMET_BREAKPOINTS_MAX (the
 * processor's debug registers; the guest's own use of them is suspended meanwhile). Setting one
 * twice and clearing one that is not set change nothing. -ENOSPC; -ENOTSUP: this KVM cannot. */
RAMET_API int ramet_vm_breakpoint(struct ramet_vm *vm, uint64_t address, bool set);
/* When @vcpu goes on next: one instruction, then a BREAKPOINT event. Others run as they do.
 * -ENOTSUP, as above. */
RAMET_API int ramet_vm_step(struct ramet_vm *vm, unsigned vcpu);

/* Interrupts; any thread, handlers too. A line of the interrupt controllers (0 to 23) gets a level;
 * a non-maskable interrupt; a message, by address and data as in MSI. -ENOTSUP (the latter two):
 * this KVM cannot. */
RAMET_API int ramet_vm_irq(struct ramet_vm *vm, unsigned line, bool level);
RAMET_API int ramet_vm_nmi(struct ramet_vm *vm, unsigned vcpu);
RAMET_API int ramet_vm_msi(struct ramet_vm *vm, uint64_t address, uint32_t data);

/* --- devices of the program's own --- */

struct ramet_handler {
        size_t size; /* sizeof this struct */
        /* By vCPU threads, several at once; @offset in the range, @length 1, 2, 4 or 8. What read
         * returns beyond that is cut off. NULL: reads as all ones, swallows writes. The rest of the
         * machine may wait for it: do not wait for anything. */
        uint64_t (*read)(void *data, uint64_t offset, unsigned length);
        void (*write)(void *data, uint64_t offset, unsigned length, uint64_t value);
};

/* Answer a range of addresses or ports, in this machine only: a clone has none of its parent's.
 * While it is paused. At most RAMET_HANDLERS_MAX; an access that does not fit in whole goes
 * elsewhere. -EBUSY: it runs; -EEXIST: a device answers there, or RAM lies there; -ENOSPC. */
#define RAMET_HANDLERS_MAX 16u
RAMET_API int ramet_vm_handle(struct ramet_vm *vm, enum ramet_space space, uint64_t base,
                              uint64_t length, const struct ramet_handler *handler, void *data);

/* --- console --- */

/* Take output, as much as is there and fits: the number of bytes, 0 when there is none. Bytes of
 * which the oldest were lost (console_bytes) are counted in the statistics. */
RAMET_API int ramet_vm_console_read(struct ramet_vm *vm, void *buf, size_t len);
/* Type: the number of bytes that were taken, at most 4096 wait for the guest; 0: no room. */
RAMET_API int ramet_vm_console_write(struct ramet_vm *vm, const void *buf, size_t len);
/* A MATCH event each time the output has @text (1 to 255 bytes) in it. With the serial port the
 * vCPU that printed its last byte is held; with a virtio console the guest runs on meanwhile. NULL:
 * no more. */
RAMET_API int ramet_vm_console_watch(struct ramet_vm *vm, const char *text);

/* --- limits and statistics --- */

/* New limits, counted from now. 0, or -EINVAL. */
RAMET_API int ramet_vm_set_limits(struct ramet_vm *vm, const struct ramet_limits *limits);

struct ramet_vm_stats {
        size_t size;                             /* sizeof this struct, set by the caller */
        uint64_t shared_bytes;                   /* memory that is a template's */
        uint64_t private_bytes;                  /* and the machine's own */
        uint64_t exits, pio_exits, mmio_exits;   /* of all vCPUs, since create or spawn */
        uint64_t assists;                        /* instructions done for KVM's emulator */
        uint64_t freezes, resets, stops;         /* stops: of all vCPUs at once */
        uint64_t run_ns;                         /* let run, since create, spawn or reset */
        uint64_t last_pause_ns, last_reset_ns;   /* of the last freeze; of the last reset */
        uint64_t console_bytes, console_dropped; /* printed; never read, since there were too many
                                                  */
};
/* Counters as they are now; also of a machine that has ended. -errno: what memory is its own cannot
 * be looked up. */
RAMET_API int ramet_vm_stats(struct ramet_vm *vm, struct ramet_vm_stats *stats);

/* KVM features that this machine does without: call with *at = 0, and again as long as it returns
 * 1. *text is one line, the library's, good until the machine is destroyed. */
RAMET_API int ramet_vm_missing(struct ramet_vm *vm, unsigned *at, const char **text);

#ifdef __cplusplus
}
#endif

#endif
