/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page tables: those that can be reached, and those that could be one.
 *
 * Reaching. From the top table down, every table that a present entry without reserved bits leads
 * to. A guest may let its tables point at each other, or at themselves (a common way for a kernel
 * to see its own tables), so a page can be a table of several levels. What it leads to depends on
 * the level, hence a mark for each level: a page is read at most once for each. Tables of the last
 * level lead to no other, and are not read at all. Depth is bounded by the levels, work by the
 * caller.
 *
 * Guessing. A table holds entries that the processor could use, or absent ones. A present entry
 * whose address lies above everything that the guest has is one that it could not use. Only bits
 * are tested (entry & impossible), a cache line at a time, and the speed of memory is the limit.
 * Text, code, pointers and random data fail within a few entries; zero pages have no present entry;
 * what remains are tables and small odd integers.
 */
#include "x86/pagetables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- what can be reached --- */

int x86_tables_init(struct x86_tables *tables, uint64_t npages)
{
        *tables = (struct x86_tables){.npages = npages};
        tables->levels = calloc(npages ? npages : 1, 1);
        return tables->levels ? 0 : -ENOMEM;
}

void x86_tables_fini(struct x86_tables *tables)
{
        free(tables->levels);
        *tables = (struct x86_tables){0};
}

bool x86_tables_has(const struct x86_tables *tables, uint64_t gpa)
{
        return gpa / X86_PAGE_BYTES < tables->npages && tables->levels[gpa / X86_PAGE_BYTES];
}

/* True when the page was not yet known as a table of @level. */
static bool mark(struct x86_tables *t, uint64_t gpa, unsigned level)
{
        uint64_t page = gpa / X86_PAGE_BYTES;
        uint8_t bit = (uint8_t)(1u << (level - 1));

        if (page >= t->npages || (t->levels[page] & bit))
                return false;
        t->count += !t->levels[page];
        t->levels[page] |= bit;
        return true;
}

struct collect {
        struct x86_tables *tables;
        struct x86_table_format format;
        const struct x86_mem_reader *reader;
        uint64_t max_reads;
};

static uint64_t nth(const struct x86_table_format *f, const uint8_t *table, unsigned n)
{
        uint64_t wide;
        uint32_t narrow;

        if (f->entry_bytes == 8) {
                memcpy(&wide, table + 8 * n, 8);
                return wide;
        }
        memcpy(&narrow, table + 4 * n, 4);
        return narrow;
}

/* Calls itself once a level: five deep at most, 4 KiB of stack each. */
static int collect(struct collect *c, uint64_t gpa, unsigned level)
{
        bool pae_top = c->format.levels == 3 && level == 3; /* 32 bytes; a page may hold several */
        size_t bytes = pae_top ? 32 : X86_PAGE_BYTES;
        uint8_t copy[X86_PAGE_BYTES];
        int r;

        if ((!mark(c->tables, gpa, level) && !pae_top) || level == 1)
                return 0;
        if (c->tables->reads >= c->max_reads)
                return -E2BIG;
        c->tables->reads++;
        if (c->reader->read(c->reader->data, gpa, copy, bytes) < 0)
                return 0;
        for (unsigned i = 0; i < bytes / c->format.entry_bytes; i++) {
                struct x86_table_entry e =
                        x86_table_entry(&c->format, level, nth(&c->format, copy, i));

                if (e.kind != X86_ENTRY_TABLE || e.reserved)
                        continue;
                r = collect(c, e.gpa, level - 1);
                if (r < 0)
                        return r;
        }
        return 0;
}

int x86_tables_collect(struct x86_tables *tables, const struct x86_paging *paging,
                       const struct x86_mem_reader *reader, uint64_t max_reads)
{
        struct collect c = {tables, x86_table_format(paging), reader, max_reads};

        if (c.format.levels == 0)
                return 0;
        return collect(&c, c.format.root, c.format.levels);
}

/* --- what looks like one --- */

/* Guest memory has whatever type its reader likes. */
typedef uint64_t wide_entry __attribute__((may_alias));
typedef uint32_t narrow_entry __attribute__((may_alias));

#define PRESENT 1u
#define LINE    64 /* bytes looked at together; lines with nothing present are most, and cheapest */

struct x86_table_filter x86_table_filter(uint8_t maxphyaddr, uint64_t limit, bool wide, bool narrow)
{
        unsigned width = maxphyaddr < 32 ? 32 : maxphyaddr > 52 ? 52 : maxphyaddr;
        uint64_t mask; /* of addresses that are possible */

        while (width > 12 && 1ull << (width - 1) >= limit)
                width--;
        mask = (1ull << width) - 1;
        return (struct x86_table_filter){
                .wide = wide,
                .narrow = narrow,
                /* SDM volume 3A, tables 4-15 to 4-20: bits 51:12 are the address or reserved. */
                .wide_impossible = ~mask & 0x000ffffffffff000,
                /* Bits 21:12 may be the upper bits of a 4 MiB page's address: 4.3, table 4-4. */
                .narrow_impossible = (uint32_t)~mask & 0xffc00000,
        };
}

static bool wide_likely(uint64_t impossible, const wide_entry *e)
{
        bool found = false;

        for (const wide_entry *end = e + X86_PAGE_BYTES / 8; e < end; e += LINE / 8) {
                uint64_t any = 0, bad = 0;

                for (unsigned i = 0; i < LINE / 8; i++)
                        any |= e[i];
                if (!(any & PRESENT))
                        continue;
                for (unsigned i = 0; i < LINE / 8; i++)
                        bad |= e[i] & -(e[i] & PRESENT);
                if (bad & impossible)
                        return false;
                found = true;
        }
        return found;
}

static bool narrow_likely(uint32_t impossible, const narrow_entry *e)
{
        bool found = false;

        for (const narrow_entry *end = e + X86_PAGE_BYTES / 4; e < end; e += LINE / 4) {
                uint32_t any = 0, bad = 0;

                for (unsigned i = 0; i < LINE / 4; i++)
                        any |= e[i];
                if (!(any & PRESENT))
                        continue;
                for (unsigned i = 0; i < LINE / 4; i++)
                        bad |= e[i] & -(e[i] & PRESENT);
                if (bad & impossible)
                        return false;
                found = true;
        }
        return found;
}

bool x86_table_likely(const struct x86_table_filter *filter, const void *page)
{
        return (filter->wide && wide_likely(filter->wide_impossible, page)) ||
               (filter->narrow && narrow_likely(filter->narrow_impossible, page));
}
