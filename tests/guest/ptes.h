/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest ptes.c and its test have to say to each other, in memory at PTES_MAILBOX. */
#ifndef RAMET_TESTS_PTES_H
#define RAMET_TESTS_PTES_H

#include <stdint.h>

#define PTES_MAILBOX  0x600000ull
#define PTES_TABLES   0x700000ull /* page tables */
#define PTES_DATA     0x800000ull /* pages; the first word of page n is PTES_VALUE(n) */
#define PTES_WINDOW   0x100000000ull
#define PTES_VALUE(n) (0x1111ull * ((n) + 1))

enum ptes_order {
        PTES_NOTHING = 0,
        PTES_WRITE,      /* write to the window's page, in user mode */
        PTES_ENTRY,      /* the window's entry shows page 1 */
        PTES_TABLE,      /* the window gets another last-level table, which shows page 2 */
        PTES_ROOT,       /* another CR3, whose window shows page 3 */
        PTES_ROOT_TWICE, /* and back again */
        PTES_CR0,        /* CR0.WP changes */
        PTES_CR4,        /* CR4.PGE changes */
        PTES_EFER,       /* EFER.NXE changes */
        PTES_HIGH,       /* the entry of a page above the window, which nobody uses */
};

struct ptes_mailbox {
        uint64_t order; /* from the host, while the guest is held; 0 again when it was done */
        uint64_t seen;  /* what user mode reads in the window after that */
};

#endif
