/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest remap.c and its test have to say to each other, in memory at REMAP_MAILBOX. */
#ifndef RAMET_TESTS_REMAP_H
#define RAMET_TESTS_REMAP_H

#include <stdint.h>

#define REMAP_MAILBOX 0x600000ull /* guest-physical, and linear: it is mapped one to one */
#define REMAP_TABLES  0x700000ull /* page tables */
#define REMAP_DATA    0x800000ull /* REMAP_PAGES pages that the window shows */
#define REMAP_PAGES   64
#define REMAP_WINDOW  0x100000000ull /* linear, as many pages, and one that is never mapped */

struct remap_word {
        uint64_t gva, mapped;
        uint64_t mine;  /* what the guest reads there */
        uint64_t host;  /* what the host read */
        uint64_t reply; /* what the host wrote there afterwards */
};

struct remap_mailbox {
        uint64_t round, errors;
        struct remap_word words[2]; /* 8 bytes each; the second follows the first */
        uint64_t root;              /* page tables in use */
        /* from the host to CPU 1, while CPU 0 is held: let entry @entry show page @page */
        uint64_t command, entry, page;
        uint64_t done; /* the last command that was */
};

#endif
