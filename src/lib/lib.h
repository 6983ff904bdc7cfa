/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of <ramet/vm.h>, for the files of src/lib only. A struct ramet_vm is a machine of src/vm
 * with a loop of its own, and a gate: src/vm wants one owner thread, here it is whoever is inside.
 *
 * Every public function has the same shape:
 *
 *      struct err err = {0};
 *      int ret = lib_enter(vm, LIB_ANY, &err);
 *
 *      if (ret == 0) {
 *              ret = ...;                      src/vm's calls, as its owner
 *              lib_leave(vm);
 *      }
 *      return lib_result(ret, &err);           keeps the words for ramet_last_error()
 *
 * which is lib_call() where the machine is the only argument.
 *
 * Nothing of src/vm is called outside the gate, but for interrupts (cpu.c says why).
 *
 * The loop is made of epoll. A poll request of io_uring belongs to the thread that made it: its
 * completion waits until that thread enters the kernel, and it is cancelled when the thread ends.
 * Here any thread may be the next one inside, and the one before may be gone.
 */
#ifndef RAMET_LIB_LIB_H
#define RAMET_LIB_LIB_H

#include <pthread.h>

#include <ramet/vm.h>

#include "base/err.h"
#include "base/sized.h"
#include "proc/ctx.h"
#include "vm/vm.h"

/* One of each vCPU, which it holds; and EXIT, CONSOLE, and a MATCH that holds none, once each. */
#define LIB_EVENTS_MAX (RAMET_VCPUS_MAX + 4)

/* An event that waits to be taken. */
struct lib_event {
        struct ramet_vm_event event;
        bool holds; /* event.vcpu does not go on before it was taken, and ramet_vm_continue() */
};

struct lib_disks;

/* See console.c. */
struct lib_console {
        pthread_mutex_t lock;
        uint8_t *ring;             /* [I] */
        size_t size;               /* [I] of it */
        size_t head, len;          /* [lock] what has not been read */
        uint64_t since_ns;         /* [lock] CLOCK_MONOTONIC, when the ring became not empty */
        bool whole;                /* [lock] a newline was printed since, or it is half full */
        bool told;                 /* [lock] of what is there now, there was an event */
        uint64_t printed, dropped; /* [lock] bytes */
        _Atomic(bool) news;        /* [a] look whether to tell */
        struct loop_watch *timer;  /* [gate] */
        uint8_t typed[4096];       /* [gate] what the guest has not taken */
        size_t ntyped;             /* [gate] */
};

/* What a machine's clones, and their clones, have in common with it. [I] */
struct lib_kind {
        enum ramet_cow cow;
        enum ramet_hugepages hugepages;
        bool fixed_page_tables;
};

struct ramet_vm {
        struct ramet_ctx *ctx;   /* [I] */
        struct loop *loop;       /* [gate] */
        struct vm *vm;           /* [gate] the pointer is [I] after create */
        _Atomic(void *) data;    /* [a] the program's */
        struct lib_kind kind;    /* [I] */
        struct lib_disks *disks; /* [I] that it was created with; NULL: none */

        /* The gate: tickets, served in order. */
        pthread_mutex_t lock;
        pthread_cond_t turn;
        unsigned next_ticket;    /* [lock] */
        unsigned serving;        /* [lock] the ticket of who is inside; == next_ticket: nobody */
        unsigned resting;        /* [lock] of those who wait for it, who only want to wait on */
        pthread_t inside;        /* [lock] who, if somebody */
        bool waiting;            /* [lock] and waits for events: wake it to get in */
        _Atomic(bool) section;   /* [gate] between ramet_vm_begin and _end, by `inside` */
        bool running;            /* [gate] vm_run(), as opposed to vm_pause() */
        unsigned first, nevents; /* [gate] a ring */
        struct lib_event events[LIB_EVENTS_MAX]; /* [gate] */
        uint64_t held;  /* [gate] vCPUs that events hold which have been taken */
        uint64_t rings; /* [gate] of those, the ones that rang the doorbell */
        bool end_told;  /* [gate] EXIT was taken */
        struct lib_console console;
        bool polled;      /* [gate] ramet_vm_fd() was called */
        uint64_t *bitmap; /* [gate] room for all dirty pages; NULL: not needed yet */
};

struct ramet_template {
        _Atomic unsigned refs;
        struct ramet_ctx *ctx; /* [I] */
        struct template *tmpl; /* [I] a reference */
        struct lib_kind kind;  /* [I] */
        char name[RAMET_NAME_MAX + 1];
        struct ramet_template_info info;
};

/* --- gate.c --- */

/* Who may be where: a call that is also possible between begin and end, or not. */
enum lib_where {
        LIB_ANY,     /* not between begin and end */
        LIB_SECTION, /* there, too */
};

/* A machine nobody knows yet: its gate, and its loop. 0 or -errno with err set. */
int lib_gate_init(struct ramet_vm *vm, struct err *err);
void lib_gate_fini(struct ramet_vm *vm);

/* -EINVAL with err set: NULL. */
int lib_check_machine(const struct ramet_vm *vm, struct err *err);
/* -EDEADLK with err set: a handler of the program is calling. */
int lib_check_thread(struct err *err);
/* Get in: checks @vm (NULL), that no handler of the program is calling, and begin and end; waits
 * until the other callers are out. 0, or a failure with err set. */
int lib_enter(struct ramet_vm *vm, enum lib_where where, struct err *err);
/* Between begin and end it does nothing. */
void lib_leave(struct ramet_vm *vm);
/* Inside: let those in who want in, and come back after them; if there is none, serve the machine,
 * waiting until @deadline_ns at most (0: not at all; RAMET_FOREVER) for something to do, or for
 * somebody who wants in. Of several threads that wait like that, one is inside. 0 or -errno with
 * err set. */
int lib_serve(struct ramet_vm *vm, uint64_t deadline_ns, struct err *err);

/* @ret is the result; when it is negative, @err is what ramet_last_error() says in this thread; an
 * empty text becomes strerror(-ret). */
int lib_result(int ret, const struct err *err);
/* All of that: what @call returns, inside. */
int lib_call(struct ramet_vm *vm, enum lib_where where,
             int (*call)(struct ramet_vm *vm, struct err *err));

/* --- machine.c --- */

/* What every machine of the library wants of src/vm: loop, events, kicks, engine. */
struct vm_options lib_vm_options(struct ramet_vm *vm);
/* A machine without anything of src/vm. 0 or -errno with err set. */
int lib_new(struct ramet_ctx *ctx, const struct lib_kind *kind, size_t console_bytes,
            struct ramet_vm **vm, struct err *err);
/* Outside the gate, with nobody else there. */
void lib_free(struct ramet_vm *vm);
/* Stop or run it, inside; returns what it did before. Only when that is another. */
bool lib_run(struct ramet_vm *vm, bool run);
/* What is reserved in them must be 0. 0 or -EINVAL. */
int lib_check_limits(const struct ramet_limits *limits, struct err *err);

/* --- events.c --- */

/* Of src/vm. */
void lib_on_event(void *vm, enum vm_event event, const struct vm_event_args *args);
/* An event for the program, inside. @holds: event->vcpu is held (VCPU_HELD_EVENT); of those that
 * hold nobody there is one of a type at most. */
void lib_event(struct ramet_vm *vm, const struct ramet_vm_event *event, bool holds);
/* All that wait are gone, and what they and others held is not held any more. */
void lib_events_forget(struct ramet_vm *vm);
/* Those that rang go on: RESULT and COUNT have been set. */
void lib_rings_answered(struct ramet_vm *vm);

/* Is there one to take? */
bool lib_has_event(struct ramet_vm *vm);

/* --- fd.c --- */

/* Inside, at the end: the program may poll the machine's descriptor now. */
void lib_poll_begin(struct ramet_vm *vm);

/* --- console.c --- */

/* @bytes of output are kept, 0: the usual. 0 or -errno with err set. */
int lib_console_init(struct ramet_vm *vm, size_t bytes, struct err *err);
void lib_console_fini(struct ramet_vm *vm); /* nothing prints any more; before, it is fine */
struct chardev_sink lib_console_sink(struct ramet_vm *vm);
/* After each step of the loop: a CONSOLE event, if it is due. */
void lib_console_serve(struct ramet_vm *vm);
/* Another event is about to be told, or, without @now, somebody is about to wait: tell of output
 * that is there, at all or if it is due. */
void lib_console_tell(struct ramet_vm *vm, bool now);
/* A CONSOLE event was dropped: there will be another one, when somebody waits. */
void lib_console_dropped(struct ramet_vm *vm);
bool lib_console_has_output(struct ramet_vm *vm);
/* Bytes so far, and those of them that were dropped for want of room. */
void lib_console_stats(struct ramet_vm *vm, uint64_t *printed, uint64_t *dropped);

/* --- template.c --- */

/* A template of the library with one reference, out of one of src/vm, which it takes. 0 or -ENOMEM
 * with err set. */
int lib_template_new(struct ramet_ctx *ctx, struct template *tmpl, const struct lib_kind *kind,
                     const char *name, struct ramet_template **out, struct err *err);
int lib_check_name(const char *name, struct err *err);

/* --- disks.c: the images that a machine is created with --- */

/* Opens and locks what @config has; NULL when that is nothing. 0, -EINVAL, or -ENOMEM, with err
 * set. */
int lib_disks_open(const struct ramet_vm_config *config, struct lib_disks **disks, struct err *err);
void lib_disks_close(struct lib_disks *disks); /* after the machine; NULL is fine */
/* Into @options; the descriptors are duplicates, names are borrowed. NULL: none. 0 or -errno with
 * err set. */
int lib_disks_give(const struct lib_disks *disks, struct vm_options *options, struct err *err);

#endif
