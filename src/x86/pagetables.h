/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of guest memory are page tables, or could be? The engine `rom` asks before it makes
 * memory read-only: there the processor's accessed and dirty bits would be lost, so every page that
 * a page walk may write has to be writable beforehand. Two answers, both too large rather than too
 * small: what can be reached from the registers of a vCPU now, and what has the looks of a table
 * and may be loaded into CR3 later.
 *
 * Pure functions; any thread, while the guest stands still (else the answer is of no moment).
 */
#ifndef RAMET_X86_PAGETABLES_H
#define RAMET_X86_PAGETABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/walk.h"

/* --- what can be reached --- */

/* Tables found so far, of one address space or of several. */
struct x86_tables {
        uint64_t npages; /* [I] guest pages 0 to npages - 1 are told apart; others are ignored */
        uint64_t count;  /* pages that are tables */
        uint64_t reads;  /* pages read to find that out */
        uint8_t *levels; /* by page number: bit n set when the page is a table of level n + 1 */
};

/* A set for guest-physical addresses below @npages pages. 0 or -ENOMEM. */
int x86_tables_init(struct x86_tables *tables, uint64_t npages);
void x86_tables_fini(struct x86_tables *tables);

/* True when the page at @gpa has been found to be a table. */
bool x86_tables_has(const struct x86_tables *tables, uint64_t gpa);

/* Add all tables that a walk with @paging's CR3 and mode could go through, whatever address it is
 * for. A table is read once for each level at which it stands, so tables that lead to each other
 * end. Entries with reserved bits set lead nowhere, as they do for the processor; so do tables
 * outside memory. Nothing is added when paging is off.
 *
 * 0, or -E2BIG when the set holds more than @max_reads reads: the set is then not complete, and the
 * caller must take every page for a table. */
int x86_tables_collect(struct x86_tables *tables, const struct x86_paging *paging,
                       const struct x86_mem_reader *reader, uint64_t max_reads);

/* --- what looks like one --- */

/* A rule that tells what cannot be a page table. */
struct x86_table_filter {
        uint64_t wide_impossible;   /* bits that no present entry of 8 bytes has */
        uint32_t narrow_impossible; /* and of 4 bytes */
        bool wide, narrow;          /* which of them to consider */
};

/* @limit: no table or page that a guest's entries point to lies at or above this guest-physical
 * address (devices included); it is rounded up to a power of two. @wide: entries of 8 bytes (PAE
 * and long mode); @narrow: of 4 (32-bit paging). */
struct x86_table_filter x86_table_filter(uint8_t maxphyaddr, uint64_t limit, bool wide,
                                         bool narrow);

/* Could the 4 KiB at @page (8-byte aligned) be a page table? True when, read as entries of one
 * of the formats, at least one is present and no present one is impossible. So a page table whose
 * entries are all well-formed is always found; other pages may be taken for one, which costs a
 * copy. It is not for the 32 bytes of PAE's top table: these have no accessed or dirty bits, and
 * share their page with other data. */
bool x86_table_likely(const struct x86_table_filter *filter, const void *page);

#endif
