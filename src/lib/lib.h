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
 * Nothing of src/vm is called outside the gate, but for interrupts (lib_irq.c says why).
 */
#ifndef RAMET_LIB_LIB_H
#define RAMET_LIB_LIB_H

#include <pthread.h>

#include <ramet/vm.h>

#include "base/err.h"
#include "vm/vm.h"

struct ramet_ctx {
        _Atomic int kick_signal;
};

#define LIB_EVENTS_MAX 64 /* more are never waiting: each vCPU is held by its own */

struct ramet_vm {
        struct ramet_ctx *ctx; /* [I] */
        struct loop *loop;     /* [gate] */
        struct vm *vm;         /* [gate] the pointer is [I] after create */
        void *data;            /* [a] the program's */

        /* The gate. One thread is inside; one that waits for events leaves when others want in. */
        pthread_mutex_t lock;
        pthread_cond_t turn;
        bool busy;        /* [lock] */
        pthread_t inside; /* [lock] who, if busy */
        unsigned wanting; /* [lock] threads that want in */
        bool section;     /* [gate] between ramet_vm_begin and _end, by `inside` */

        bool started; /* [gate] vm_start() was called */
        bool running; /* [gate] vm_run(), as opposed to vm_pause() */

        unsigned nevents; /* [gate] */
        struct ramet_vm_event events[LIB_EVENTS_MAX];

        struct ramet_template *tmpl; /* [gate] what it was spawned from; a reference; or NULL */
};

struct ramet_template {
        _Atomic unsigned refs;
        struct ramet_ctx *ctx; /* [I] */
        struct template *tmpl; /* [I] */
        struct vm_shape shape; /* [I] */
        char name[RAMET_NAME_MAX + 1];
        struct ramet_template_info info;
};

/* Who may be where: a call that is also possible between begin and end, or not. */
enum lib_where {
        LIB_ANY,     /* not between begin and end */
        LIB_SECTION, /* there, too */
};

/* Get in: checks @vm (NULL), that no handler of the program is calling, and begin and end; waits
 * until the other callers are out. 0, or a failure with err set. */
int lib_enter(struct ramet_vm *vm, enum lib_where where, struct err *err);
void lib_leave(struct ramet_vm *vm);
/* True when a thread wants in: whoever waits inside gives way then (lib_give_way). Called by the
 * loop's wake, too. */
bool lib_wanted(struct ramet_vm *vm);
void lib_give_way(struct ramet_vm *vm);

/* @ret is the result; when it is negative, @err is what ramet_last_error() says in this thread; an
 * empty text becomes strerror(-ret). */
int lib_result(int ret, const struct err *err);
/* lib_result() of a bad argument, -EINVAL. */
int lib_invalid(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Option structs: copies one of a caller's version (its first member is its size), see options.c of
 * proc. @min: the first version's size. 0 or -EINVAL. */
int lib_copy(const char *what, const void *from, void *to, size_t to_size, size_t min,
             struct err *err);
/* And the other way round: as much of @from as the caller's struct has room for. */
int lib_copy_out(const char *what, const void *from, size_t from_size, void *to, size_t min,
                 struct err *err);

/* An event for the program; one that is there already is not added twice (CONSOLE). */
void lib_event(struct ramet_vm *vm, const struct ramet_vm_event *event);

#endif
