/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines in the test's own process: what a test of src/vm needs around one. Each has a loop of
 * its own, its console in a pipe, and its events written down; rig_step() gives all of them a turn.
 */
#ifndef RAMET_TESTS_RIG_H
#define RAMET_TESTS_RIG_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "vm/vm.h"

struct rig {
        struct vm *vm;
        struct loop *loop;
        int console_fd;                    /* read end */
        int input_fd;                      /* write end */
        int console_in_fd, console_out_fd; /* a shell's: not given away yet; else 0 or -1 */
        char text[65536];
        size_t len;
        unsigned forks; /* fork events not dealt with yet */
        unsigned first_exits;
        struct vm_event_args first_exit;
        unsigned holds; /* BREAKPOINT and UNHANDLED so far, and the last one */
        enum vm_event hold;
        struct vm_event_args hold_args;
        bool exited;
        struct vm_exit_info exit;
};

/* Skips the test, saying why, where there is no usable /dev/kvm. In main(), first. */
int rig_init(void);

/* The copy-on-write engine of machines made from now on. */
extern enum ramet_cow rig_cow;
/* And how many pages of its own such a machine may have, 0: any number. */
extern uint64_t rig_own_pages_max;
/* And the entries of each vCPU's dirty ring, 0: none. */
extern uint32_t rig_dirty_ring;
/* And their virtio devices. Each disk of a root is a memfd of rig_disk_bytes of zeros. */
extern bool rig_rng;
extern unsigned rig_ndisks;
extern uint64_t rig_disk_bytes;
/* What else is to be different, before a machine or a shell is made; NULL: nothing. */
extern void (*rig_tune)(struct vm_options *options);

/* A root machine that runs guest @name with @cmdline; @armed: its doorbell forks. */
void rig_boot(struct rig *r, const char *name, const char *cmdline, unsigned vcpus,
              uint64_t memory_bytes, bool armed);
/* A clone that does not run yet. */
void rig_spawn(struct rig *r, struct template *tmpl, uint32_t index, uint32_t count);
/* The same, but a failure is the caller's to judge: -errno with err set, and only rig_free() is
 * left.
 */
int rig_try_boot(struct rig *r, const char *name, const char *cmdline, unsigned vcpus,
                 uint64_t memory_bytes, bool armed, struct err *err);
int rig_try_spawn(struct rig *r, struct template *tmpl, uint32_t index, uint32_t count,
                  struct err *err);
/* Machines made from now on have this engine. Skips the test, saying why, where this host does not
 * give it. */
void rig_use_engine(enum ramet_cow cow);
/* Was it the engine that said no: on this host, or of this machine? */
bool rig_refused(int ret, const struct err *err);
/* The same in two steps: an empty machine with its threads, and the template it becomes. */
void rig_shell(struct rig *r, unsigned vcpus, uint64_t memory_bytes);
void rig_adopt(struct rig *r, struct template *tmpl, uint32_t index, uint32_t count);
void rig_free(struct rig *r);
void rig_type(struct rig *r, const char *text);

void rig_step(struct rig *const *rigs, unsigned n);
/* Serve one machine until @until(r), or fail after @seconds. */
void rig_until(struct rig *r, bool (*until)(const struct rig *r), unsigned seconds);
bool rig_forked(const struct rig *r);
bool rig_exited(const struct rig *r);
bool rig_printed(const struct rig *r); /* anything */

#endif
