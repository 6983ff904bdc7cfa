/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a machine's process does: the operations that the spawner runs in its children.
 */
#ifndef RAMET_PROC_VM_PROCESS_H
#define RAMET_PROC_VM_PROCESS_H

#include "base/err.h"
#include "jail/seccomp.h"

/* Made once in the spawner, inherited by every machine. */
struct vm_process_shared {
        struct jail_filter filter; /* for RAMET_SECCOMP_ON */
        int error;                 /* -errno when there is none, and in words: */
        struct err err;
};

/* struct spawner_ops */
void vm_process_prepare(void *shared);
int vm_process_main(void *shared, int channel);

#endif
