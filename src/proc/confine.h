/* SPDX-License-Identifier: Apache-2.0 */
/* The filter of a machine's process: made in the spawner, put on in each machine. */
#ifndef RAMET_PROC_CONFINE_H
#define RAMET_PROC_CONFINE_H

#include <stdint.h>

#include "base/err.h"
#include "proc/vm_process.h"

/* Put it on, for good: when all threads exist, and none has run a guest instruction. @mode: enum
 * ramet_seccomp. 0 or -errno. */
int confine(const struct vm_process_shared *shared, uint32_t mode, struct err *err);

#endif
