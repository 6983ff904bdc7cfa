/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher's side, shared by its files: options.c (what may be asked for),
 * disks.c (its disks), launcher.c (sockets and the queue of events), launch.c (the spawner's
 * process), start.c and process.c (one machine's process), events.c (what a machine may say, and
 * when). One thread; see <ramet/process.h>.
 */
#ifndef RAMET_PROC_LAUNCHER_H
#define RAMET_PROC_LAUNCHER_H

#include <ramet/process.h>

#include "base/clock.h"
#include "base/err.h"
#include "proc/ctx.h"
#include "proc/disks.h"
#include "proc/launch.h"
#include "proc/message.h"
#include "proc/spawner.h"

/* Machines that have been asked for, and have not yet said a word, at one time. It bounds the
 * descriptors that are under way in sockets (the kernel counts those against a user's
 * RLIMIT_NOFILE) and keeps a thousand clones from being restored all at once. Others wait in order.
 */
#define STARTING_MAX 64u
#define NOTES_MAX    64u
#define BUCKETS      256u

struct event_node {
        struct event_node *next;
        struct ramet_event event;
};

struct ramet_spawner {
        struct ramet_ctx *ctx;
        pid_t owner; /* who made it: the launcher, not a child that has a copy of this */
        struct launched process;
        int sock;
        int epoll; /* data.u64: 0 for the spawner's socket, else the id of a process */
        int lost;  /* -errno once the spawner is no more */
        uint64_t next_id;
        unsigned starting;
        bool wants_pollout;
        bool late_kills;                               /* some process has kill_late set */
        struct ramet_process *buckets[BUCKETS];        /* all, by id, until they are freed */
        struct ramet_process *waiting, **waiting_tail; /* not yet sent */
        struct event_node *events, **events_tail;
        struct ramet_process *shells; /* empty machines, warm or on their way */
};

/* A template as the launcher holds it: descriptors and what clones inherit. Counted by the receiver
 * of the FROZEN event and by clones that have not been sent yet. */
struct ramet_frozen {
        unsigned refs;
        uint64_t fork_point_ns;
        struct message_shape shape;
        enum ramet_seccomp seccomp;
        enum ramet_hugepages hugepages;
        struct disk_set *disks;                      /* a reference, or NULL */
        uint64_t generation, pause_ns, copied_bytes; /* as in its FROZEN event */
        unsigned nfiles;
        unsigned nfds; /* the state, then the layers, then the files */
        int fds[];
};

enum process_state {
        PROCESS_WAITING = 0, /* in the queue of the launcher */
        PROCESS_SENT,        /* the spawner has been asked */
        PROCESS_LAUNCHED,    /* it exists; its channel is being read */
        PROCESS_GONE,
};

/* A root's: kernel, initramfs, console in and out, disks. A clone's own are fewer. */
#define START_FDS (4 + 2 * RAMET_DISKS_MAX + OVERLAY_FDS_MAX)

/* What a machine is told first. While it waits, the descriptors are its own duplicates. */
struct start {
        void *msg;
        size_t length;
        struct ramet_frozen *frozen; /* a clone's: its descriptors go first */
        unsigned nfds;
        int fds[START_FDS];
};

struct ramet_process {
        struct ramet_spawner *spawner;
        struct ramet_process *hash_next;
        struct ramet_process *waiting_next;
        uint64_t id;
        enum process_state state;
        bool released;  /* by the caller: only its end is awaited */
        bool starting;  /* counted in the spawner's starting */
        bool killed;    /* asked to be */
        bool kill_late; /* the request could not be sent yet */
        int channel;    /* -1: none */
        pid_t pid;
        void *data;
        struct start start; /* while it waits */

        bool shell; /* nobody's yet: no event tells of it */
        bool was_shell;
        bool warm; /* it waits for its template, or did */
        struct ramet_process *shell_next;

        bool clone;
        uint64_t requested_ns;
        uint64_t fork_point_ns; /* a clone's: of its template */
        struct message_shape shape;
        enum ramet_seccomp seccomp;
        enum ramet_hugepages hugepages;
        struct disk_set *disks;         /* a reference while it lives, or NULL */
        struct overlay_files *overlays; /* its own; NULL: it has none */

        /* What it may say: */
        bool started;       /* STARTED or READY has come */
        bool running;       /* RUNNING has come */
        bool exited;        /* EXIT has come, nothing may follow */
        unsigned armed;     /* clones of the fork at the doorbell or console; 0: none, or it came */
        unsigned requested; /* clones of the fork asked for by ramet_process_fork(); 0: none */
        unsigned forking;   /* clones of the fork point that has come; 0: none */
        enum ramet_fork_cause cause;      /* of that one */
        unsigned pauses, resumes, resets; /* asked for, not answered */
        unsigned notes;
        const char *broken; /* how it broke the protocol, if it did */
};

/* options.c. 0 or -EINVAL with err set. */
int options_check(const struct ramet_vm_options *options, struct ramet_vm_options *checked,
                  struct err *err);
int options_check_clone(const struct ramet_clone_options *options,
                        struct ramet_clone_options *checked, struct err *err);

/* launcher.c */
/* @path: an executable (ops are not looked at), or NULL: forked, it does @ops. */
int spawner_open(struct ramet_ctx *ctx, const struct spawner_ops *ops, const char *path,
                 struct ramet_spawner **spawner);
struct ramet_process *spawner_find(struct ramet_spawner *s, uint64_t id);
/* A new event at the end of the queue, zeroed but for type, process and time; NULL: no memory, or
 * nobody wants to know of @p any more. */
struct ramet_event *spawner_queue(struct ramet_process *p, enum ramet_event_type type,
                                  uint64_t t_ns);
void spawner_forget_events(struct ramet_process *p);
/* Wait for room in the spawner's socket, or no longer. */
void spawner_want_pollout(struct ramet_spawner *s, bool want);

/* process.c */
void process_flush(struct ramet_spawner *s); /* send what waits, as far as it goes */
void process_launched(struct ramet_process *p, pid_t pid);
void process_refused(struct ramet_process *p, int error);
void process_reaped(struct ramet_process *p, int wait_status);
bool process_readable(struct ramet_process *p); /* one message; true when there was one */
void process_free(struct ramet_process *p);

struct ramet_process *process_new(struct ramet_spawner *s);
/* Send it, or have it wait behind the others. Takes @p: on failure it is freed. */
int process_submit(struct ramet_process *p, const struct start *start);

/* shells.c: a warm shell for a template, taken off the list; NULL: there is none. */
struct ramet_process *shell_take(struct ramet_spawner *s, const struct ramet_frozen *frozen);
void shell_forget(struct ramet_process *p);

/* events.c: turn a message that is right in form into an event, or tell why it may not come now.
 * The descriptors are taken. NULL or a text. */
const char *events_take(struct ramet_process *p, const struct message_event *m,
                        struct message_fds *fds);
/* A template came that could not be received for want of descriptors. */
const char *events_lost_fds(struct ramet_process *p);
/* EXIT, if it did not say so itself, and GONE. */
void events_gone(struct ramet_process *p, int wait_status);
/* The same for one that never came to be: EXIT says HOST and @text. */
void events_never(struct ramet_process *p, const char *text);

#endif
