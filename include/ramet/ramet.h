/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libramet: virtual machines that fork. This header has what both ways of use share: options of a
 * machine, errors, exit reasons. <ramet/vm.h> runs machines in the calling program, for test
 * harnesses; <ramet/process.h> runs each in a process of its own, as the ramet command does;
 * <ramet/harness.h> and <ramet/fuzz.h> are made of the former.
 *
 * Conventions: functions return 0 or -errno, or a positive condition where said; after a failure
 * ramet_last_error() has one line in words. Option structs begin with their own size, so that they
 * can grow; zero them, set .size, set what you need. Nothing here exits, changes signal handlers or
 * uses global state.
 */
#ifndef RAMET_RAMET_H
#define RAMET_RAMET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RAMET_API __attribute__((visibility("default")))

#define RAMET_VCPUS_MAX  64u
#define RAMET_MEMORY_MIN (1ull << 20)
#define RAMET_MEMORY_MAX (1ull << 40)
#define RAMET_CLONES_MAX 10000u
#define RAMET_NAME_MAX   63 /* bytes of a name, without the NUL; clones' paths may be longer */

struct ramet_ctx; /* library settings; any thread. It must outlive what was made with it */

/* 0, -EINVAL or -ENOMEM. */
RAMET_API int ramet_ctx_create(struct ramet_ctx **ctx);
RAMET_API void ramet_ctx_destroy(struct ramet_ctx *ctx); /* NULL is fine */

/* The signal that is sent to vCPU threads, and to them alone, to bring them out of the guest; by
 * default SIGSTKFLT, which nothing else uses. It is never delivered (they take it where they wait
 * for it), so the program may have a handler for it and may block it; but while machines run it
 * must not begin to ignore it (SIG_IGN), since that throws away what is pending. The same signal
 * sent to the whole process goes to a thread that does not block it, as always. If all do, vCPUs
 * stand still until it is accepted (sigwait(3), signalfd(2)); after 100 ms of running on a vCPU
 * takes it. One that waits, blocked, for the very thread that resets a machine is taken by that.
 * For machines made afterwards. -EINVAL: no signal, one that cannot be kept blocked, one of job
 * control (SIGCONT takes SIGTSTP back while that is pending, and the other way round), or a
 * real-time one (their queues can be full). */
RAMET_API int ramet_ctx_set_kick_signal(struct ramet_ctx *ctx, int signal);

/* The calling thread's last failure, as errno is: one line without a newline, "" if there was none.
 * Valid until that thread's next call. @ctx may be NULL. */
RAMET_API const char *ramet_last_error(const struct ramet_ctx *ctx);
/* True when that failure lies in what the caller gave, false when the host refused something. */
RAMET_API bool ramet_last_error_is_input(const struct ramet_ctx *ctx);

/* "0.1.0" */
RAMET_API const char *ramet_version(void);
/* The soname's number: programs made for the same one go on working. */
#define RAMET_ABI 0
RAMET_API int ramet_abi(void);

enum ramet_seccomp {
        RAMET_SECCOMP_ON = 0, /* a forbidden system call kills the machine's process */
        RAMET_SECCOMP_LOG,    /* it is let through and logged by the kernel's audit */
        RAMET_SECCOMP_OFF,
};

enum ramet_hugepages {
        RAMET_HUGEPAGES_AUTO = 0, /* guest memory up to 2 GiB goes on huge pages if the host can */
        RAMET_HUGEPAGES_ON,
        RAMET_HUGEPAGES_OFF,
};

#define RAMET_DISKS_MAX  8u
#define RAMET_SERIAL_MAX 20u /* bytes of a disk's serial number, without a NUL */

/* A disk. The machine writes to the image until its first fork, and never again afterwards: from
 * then on it, as each clone, writes to an overlay of its own. */
struct ramet_disk {
        size_t size; /* sizeof this struct; the same for all of an array */

        /* A regular file or a block device of a multiple of 512 bytes, open for reading and, unless
         * the disk is read-only, for writing; borrowed for the call. It is opened once more, and
         * locked (flock(2)) until the machine and all clones of it are gone: exclusively, or if it
         * is read-only, together with others who only read it. */
        int fd;
        const char *path; /* for messages, and for the headers of overlays; NULL: "disk" */
        bool readonly;
        const char *serial;     /* at most RAMET_SERIAL_MAX bytes; NULL: "" */
        uint64_t iops_max;      /* requests a second; 0: no limit */
        uint64_t bandwidth_max; /* bytes a second; 0: no limit */
};

/* How a clone's write is kept from its template: docs/engines.md compares them. */
enum ramet_cow {
        RAMET_COW_PRIVATE = 0, /* the host kernel does it; the fastest */
        RAMET_COW_TRAP,        /* userfaultfd: Ramet sees each page before it is written */
        RAMET_COW_ROM,         /* read-only memslots: Ramet makes the page */
};

struct ramet_vm_options {
        size_t size; /* sizeof this struct */

        int kernel_fd;           /* readable; borrowed for the call */
        const char *kernel_name; /* for messages, and the first word of a multiboot command line */
        int initramfs_fd;        /* -1: none; borrowed for the call */
        const char *initramfs_name;
        const char *cmdline; /* NULL: "" */

        uint64_t memory_bytes; /* a multiple of 4 KiB, RAMET_MEMORY_MIN to RAMET_MEMORY_MAX */
        unsigned vcpus;        /* 1 to RAMET_VCPUS_MAX */

        bool flat;             /* the kernel is a flat binary ... */
        uint64_t flat_address; /* ... for this guest-physical address ... */
        unsigned flat_bits;    /* ... entered in this mode: 16, 32 or 64 */

        uint16_t debug_exit_port; /* 0: no isa-debug-exit device */

        int console_in_fd;  /* -1: none; borrowed for the call */
        int console_out_fd; /* -1: discarded; borrowed for the call */

        unsigned fork_count;         /* arms one fork into this many clones; 0: none */
        bool fork_at_doorbell;       /* it happens when the guest rings, ... */
        const char *fork_at_console; /* ... or its console has printed this; NULL: not so */

        enum ramet_seccomp seccomp;
        enum ramet_hugepages hugepages;

        /* From its first freeze on, and of all its clones. An engine that this host cannot have
         * ends the machine at its start, with RAMET_EXIT_HOST or RAMET_EXIT_INPUT and a text that
         * names one that it can. */
        enum ramet_cow cow;

        const struct ramet_disk *disks; /* borrowed for the call */
        unsigned ndisks;                /* at most RAMET_DISKS_MAX */
        bool rng;                       /* virtio-rng: random numbers of the host */
        bool virtio_console;            /* virtio-console; the console's input goes there */
        bool virtio_cmdline; /* the guest finds these devices by its command line, not by ACPI */

        /* A directory for overlays, NULL: they are in memory. Files are NAME.DISK.N.overlay: of
         * this machine, of its disk vda, vdb, ..., its N-th. They stay when the machine ends. */
        const char *overlay_dir;
        const char *name; /* of the machine, for these files; may be NULL without them */
};

/* How a machine ended. */
enum ramet_exit {
        RAMET_EXIT_POWEROFF = 1, /* the guest powered off */
        RAMET_EXIT_REBOOT,       /* the guest asked for a reset; the run ends there */
        RAMET_EXIT_DEBUG,        /* isa-debug-exit; status is (value << 1) | 1 */
        RAMET_EXIT_CRASH,  /* triple fault, or an exit that cannot be handled: text says which */
        RAMET_EXIT_HOST,   /* KVM or the host failed: text */
        RAMET_EXIT_INPUT,  /* the kernel or another input cannot be used: text */
        RAMET_EXIT_KILLED, /* the process ended without a word: status is the signal, or 0 */
        RAMET_EXIT_LIMIT,  /* it reached a limit that was set for it: text says which */
};

#ifdef __cplusplus
}
#endif

#endif
