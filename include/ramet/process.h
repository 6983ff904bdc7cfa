/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines as processes. The calling program (a launcher) never maps guest memory and never opens
 * /dev/kvm. A spawner, forked off early, starts one process for each machine, the first one too;
 * the launcher talks to each over a socket and hears of its end through a pidfd:
 *
 *      launcher --- spawner            start this, clone that; pids and exit statuses come back
 *         |  \
 *         |   `--- machine "web"       options in, events out; templates come as descriptors
 *         `------- machine "web.1"     started by the spawner from such a template
 *
 * If the launcher dies, so do the spawner and all machines. If a machine dies, nobody else notices.
 *
 * All calls on a spawner and its machines are made by one thread at a time. None blocks, but for
 * ramet_spawner_create and ramet_spawner_destroy. One descriptor tells of everything: poll
 * ramet_spawner_fd() for POLLIN, then call ramet_spawner_next() until it returns 0.
 */
#ifndef RAMET_PROCESS_H
#define RAMET_PROCESS_H

#include <sys/types.h>

#include <ramet/vm.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ramet_spawner;
struct ramet_process; /* one machine's process, from start until it is released */
struct ramet_frozen;  /* a template, held as descriptors: machines can be cloned from it */

/* Fork the spawner. Call it early: before the program has threads, and with no more memory mapped
 * or descriptors open than must be; it keeps none of them. No SIGCHLD comes when it ends, and a
 * waitpid(-1) of the program does not find it. 0, -EINVAL, or -errno of socketpair, clone,
 * epoll_create. */
RAMET_API int ramet_spawner_create(struct ramet_ctx *ctx, struct ramet_spawner **spawner);
/* The same for a program that has threads: the spawner is a program of its own, @path (NULL: the
 * $RAMET_SPAWNER, or else the one that was installed with the library, and must be of its version).
 * It is no child of the program, unless that is init or a subreaper, which any orphan comes to.
 * Also -errno of executing it, such as -ENOENT. */
RAMET_API int ramet_spawner_execute(struct ramet_ctx *ctx, const char *path,
                                    struct ramet_spawner **spawner);
/* Kill and reap every machine, then the spawner. NULL is fine. Processes must not be used after. In
 * a child that the program has forked it ends nothing and only frees the child's copy. */
RAMET_API void ramet_spawner_destroy(struct ramet_spawner *spawner);

/* Start a machine. Returns as soon as the request is sent; events tell the rest.
 * 0, -EINVAL (options out of range, last error says which), -ENOMEM, or -errno of the sockets or of
 * making overlay files. */
RAMET_API int ramet_process_start(struct ramet_spawner *spawner,
                                  const struct ramet_vm_options *options,
                                  struct ramet_process **process);

struct ramet_clone_options {
        size_t size;       /* sizeof this struct */
        unsigned index;    /* this clone's number in its fork, 1 .. count */
        unsigned count;    /* how many clones the fork makes */
        int console_in_fd; /* as in struct ramet_vm_options */
        int console_out_fd;
        bool paused;      /* do not run it before ramet_process_resume() */
        const char *name; /* of the clone, as in struct ramet_vm_options */
};

/* Start a clone of a template. Returns as soon as the request is sent. Errors as for start, and if
 * it has overlay files, of making them (the last error names the file). */
RAMET_API int ramet_process_clone(struct ramet_spawner *spawner, struct ramet_frozen *frozen,
                                  const struct ramet_clone_options *options,
                                  struct ramet_process **process);

/* Have @count empty machines of @like's shape (memory, vCPUs, devices) ready, processes and all,
 * for clones made of it and its clones. A clone that finds one starts in a fraction of a
 * millisecond, since all that makes KVM wait has been done. They are made in the background, are
 * used up, and end with the spawner. 0, -EINVAL (@count is at most RAMET_CLONES_MAX), -ENOMEM, or
 * -errno of the sockets. */
RAMET_API int ramet_process_prewarm(struct ramet_process *like, unsigned count);
/* How many of them are ready or on their way. */
RAMET_API unsigned ramet_spawner_shells(const struct ramet_spawner *spawner);

/* The next four: 0, -ESRCH (it has ended), -EAGAIN (before its LAUNCHED event, or it has not read
 * for long), or another -errno of the socket.
 *
 * Ask a machine to fork now, into @count clones: FORK_POINT and FROZEN events follow, or
 * FORK_FAILED. Also -EINVAL (count), -EBUSY (the one before has not been answered), -errno of
 * making overlay files. */
RAMET_API int ramet_process_fork(struct ramet_process *process, unsigned count);
/* Stop and let go a machine's vCPUs: a PAUSED or RESUMED event says when it is so. Idempotent. */
RAMET_API int ramet_process_pause(struct ramet_process *process);
RAMET_API int ramet_process_resume(struct ramet_process *process);
/* Take a machine back to its template, in place: a clone to what it was cloned from, the first
 * machine to its first fork. A RESET event says when it is so, or RESET_FAILED why it is not; one
 * that is paused stays paused. Input that it has not read is dropped. */
RAMET_API int ramet_process_reset(struct ramet_process *process);
/* SIGKILL. EXIT (if it has not come) and GONE follow. Killing one that is gone does nothing. */
RAMET_API int ramet_process_kill(struct ramet_process *process);
/* The file that disk number @disk is written to since the machine's last FROZEN event, or a clone's
 * READY; NULL: no file, but the image or memory. Valid until the next event of that machine. */
RAMET_API const char *ramet_process_overlay(struct ramet_process *process, unsigned disk);
/* 0 until the LAUNCHED event. */
RAMET_API pid_t ramet_process_pid(const struct ramet_process *process);
RAMET_API void ramet_process_set_data(struct ramet_process *process, void *data);
RAMET_API void *ramet_process_data(const struct ramet_process *process);
/* Forget a process; kills it if it still runs. No event names it afterwards. NULL is fine. */
RAMET_API void ramet_process_release(struct ramet_process *process);

/* A template of <ramet/vm.h> for processes, and the other way round: both hold the same memory. The
 * caller releases what it gets, and what it gave. 0, -EINVAL, -ENOMEM, or -errno. */
RAMET_API int ramet_template_export(struct ramet_template *tmpl, struct ramet_frozen **frozen);
RAMET_API int ramet_template_import(struct ramet_ctx *ctx, struct ramet_frozen *frozen,
                                    const char *name, struct ramet_template **tmpl);

/* Drop a template that came with a FROZEN event. Clones that run keep what they need. NULL is fine.
 */
RAMET_API void ramet_frozen_release(struct ramet_frozen *frozen);

enum ramet_event_type {
        RAMET_EVENT_LAUNCHED = 1, /* the process exists: pid */
        RAMET_EVENT_STARTED,      /* root machine: the kernel is loaded and about to run */
        RAMET_EVENT_READY,        /* clone: state restored, just before its first entry: ready */
        RAMET_EVENT_RUNNING,      /* clone: its first exit of its own: running */
        RAMET_EVENT_FORK_POINT,   /* fork_point */
        RAMET_EVENT_FROZEN,       /* frozen; the machine runs on */
        RAMET_EVENT_FORK_FAILED,  /* text; the machine runs on */
        RAMET_EVENT_PAUSED,
        RAMET_EVENT_RESUMED,
        RAMET_EVENT_RESET,        /* reset; the machine is what it was, and runs unless paused */
        RAMET_EVENT_RESET_FAILED, /* text; the machine runs on, or an EXIT event follows */
        RAMET_EVENT_NOTE,         /* text: something worth telling, such as a KVM feature missing */
        RAMET_EVENT_EXIT,         /* exit; the process is about to end, or has. Comes once */
        RAMET_EVENT_GONE,         /* the process has been reaped: the last event; gone */
};

enum ramet_fork_cause {
        RAMET_FORK_DOORBELL = 1,
        RAMET_FORK_CONSOLE,
        RAMET_FORK_REQUEST, /* ramet_process_fork() */
};

struct ramet_event {
        enum ramet_event_type type;
        struct ramet_process *process;
        uint64_t t_ns;      /* CLOCK_MONOTONIC, when it happened */
        char text[512];     /* one line, where the type says so */
        bool text_is_input; /* the text is about what the user gave, not about the host */
        union {
                struct {
                        pid_t pid;
                } launched;
                struct {
                        uint64_t spawn_ns; /* from ramet_process_clone() to state restored */
                } ready;
                struct {
                        uint64_t first_exit_ns; /* from the fork point (of the freeze) to that exit
                                                 */
                        const char *how; /* "doorbell": the read of its number; "exit"; "kick": it
                                          * ran 100 ms without one and was interrupted */
                } running;
                struct {
                        enum ramet_fork_cause cause;
                        unsigned count;
                } fork_point;
                struct {
                        struct ramet_frozen *frozen; /* the receiver's, to release */
                        unsigned count;              /* clones that are wanted */
                        uint64_t stop_ns;            /* asking the vCPUs to stop until all had */
                        uint64_t pause_ns;   /* asking them to stop until they were let go again */
                        uint64_t freeze_ns;  /* the part of it in which memory was frozen */
                        uint64_t publish_ns; /* after the pause, until the template was sealed */
                        uint64_t memory_bytes; /* guest memory under the template */
                        uint64_t copied_bytes; /* 0 for the first freeze of a root machine */
                        uint64_t generation;   /* counts this machine's freezes, from 1 */
                        unsigned vcpus;
                } frozen;
                struct {
                        uint64_t reset_ns; /* from stopping the vCPUs until they were let go */
                } reset;
                struct {
                        enum ramet_exit reason;
                        int status;             /* DEBUG: (value << 1) | 1; KILLED: the signal */
                        uint64_t shared_bytes;  /* guest memory shared with a template at the end */
                        uint64_t private_bytes; /* and the machine's own */
                        uint64_t assists;       /* instructions done for KVM's emulator */
                } exit;
                struct {
                        int wait_status; /* as waitpid(2) gives it */
                        bool had_exit;   /* the EXIT event was its own word; false: it was made up
                                          * here, with RAMET_EXIT_KILLED or RAMET_EXIT_HOST */
                } gone;
        };
};

/* The descriptor to poll, the spawner's own. */
RAMET_API int ramet_spawner_fd(const struct ramet_spawner *spawner);
/* 1 and an event, 0 when there is none now, or -errno when the spawner itself is lost. */
RAMET_API int ramet_spawner_next(struct ramet_spawner *spawner, struct ramet_event *event);

#ifdef __cplusplus
}
#endif

#endif
