/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest scribble.c and its test have to say to each other, in memory at SCRIBBLE_BOX. */
#ifndef RAMET_TESTS_SCRIBBLE_H
#define RAMET_TESTS_SCRIBBLE_H

#include <stdint.h>

#define SCRIBBLE_BOX     0x600000ull
#define SCRIBBLE_TABLES  0x610000ull /* page tables of the guest's own */
#define SCRIBBLE_DATA    0x680000ull /* pages that it writes to: */
#define SCRIBBLE_FILLED  64u         /* first these; then nothing, but for page SCRIBBLE_ALONE */
#define SCRIBBLE_ALONE   256u
#define SCRIBBLE_PAGES   320u
#define SCRIBBLE_WINDOW  0x100000000ull /* a linear address: */
#define SCRIBBLE_WINDOWS 16u            /* window i shows page i of the data, at first */

enum scribble_end {
        SCRIBBLE_RING,  /* the doorbell */
        SCRIBBLE_STORM, /* go on for ever, in user mode */
        SCRIBBLE_HALT,  /* for good */
        SCRIBBLE_FAULT, /* a triple fault */
        SCRIBBLE_ROOT,  /* its top page table is overwritten, and what it does next is not known */
};

struct scribble_box {
        uint64_t seed, writes;  /* from the host: so many, to random places */
        uint64_t window_writes; /* in user mode, through the windows */
        uint64_t entries;       /* so many entries of the page table first */
        uint64_t end;           /* enum scribble_end */
        uint64_t seen;          /* a sum of what the windows showed at the beginning */
};

#endif
