/* SPDX-License-Identifier: Apache-2.0 */
/* What only the engine `rom` can tell or be told: see cow.h and cow_rom.c. */
#ifndef RAMET_MEM_COW_ROM_H
#define RAMET_MEM_COW_ROM_H

#include <stdint.h>

struct backing;

struct rom_stats {
        uint64_t pages;     /* that have a backing of their own */
        uint64_t breaks;    /* replacements of a slot for that */
        uint64_t compacted; /* chunks that were broken whole since slots ran out */
        uint64_t slots;     /* memory slots now */
};

/* Zeroes for another engine. While every vCPU is stopped, or for a rough answer. */
void rom_stats(const struct backing *b, struct rom_stats *stats);

/* For tests, of the machines made from now on: use at most @max_slots memory slots, and break
 * @granule bytes (a power of two, 4 KiB to 2 MiB) at a time. 0: the default. */
void rom_limit(unsigned max_slots, uint64_t granule);

#endif
