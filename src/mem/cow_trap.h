/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine `trap` can tell beyond what every engine can. */
#ifndef RAMET_MEM_COW_TRAP_H
#define RAMET_MEM_COW_TRAP_H

#include <stdint.h>

struct backing;

struct cow_trap_stats {
        uint64_t faults;    /* writers that had to wait, since the engine was made */
        uint64_t own_pages; /* pages written since memory became private, or the last reset */
};

/* Of memory whose engine is cow_trap. Any thread. */
void cow_trap_stats(const struct backing *b, struct cow_trap_stats *stats);

#endif
