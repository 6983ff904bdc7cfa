/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page walk. Everything is from the Intel SDM, volume 3A, chapter 4, Paging (chapter 5 in late
 * editions); sections are named below. The modes differ in three ways only, which struct
 * x86_table_format holds: how many levels, how wide an entry is, and which bits of it are reserved
 * or an address. So there is one loop.
 *
 *      mode      when                           levels  entry  index bits, top first   section
 *      32-bit    CR0.PG                            2      4    10, 10                   4.3
 *      PAE       + CR4.PAE                         3      8    2, 9, 9                  4.4
 *      4-level   + CR4.PAE, EFER.LMA               4      8    9, 9, 9, 9               4.5
 *      5-level   + CR4.PAE, EFER.LMA, CR4.LA57     5      8    9, 9, 9, 9, 9            4.5
 *
 * What a processor may have or lack is taken as present: 1 GiB pages, PSE-36 and PAT. A guest that
 * uses what its CPUID denies would fault and gets a translation here instead. PAE's four top
 * entries are read from memory at each walk, where a processor keeps what it loaded with CR3.
 *
 * Not handled: protection keys (CR4.PKE, CR4.PKS: an access that they forbid is translated),
 * linear-address masking (LAM: a tagged pointer is not canonical here), LASS, and the accesses of
 * shadow stacks, which have rules of their own. Accessed and dirty bits are neither set nor asked
 * for. A walk that wants only the address, whatever may be done to it, is X86_DEBUG.
 */
#include "x86/walk.h"

#include <errno.h>
#include <string.h>

/* SDM volume 3A, 2.5 and 2.2.1. */
#define CR0_WP    (1ull << 16)
#define CR0_PG    (1ull << 31)
#define CR4_PSE   (1ull << 4)
#define CR4_PAE   (1ull << 5)
#define CR4_LA57  (1ull << 12)
#define CR4_SMEP  (1ull << 20)
#define CR4_SMAP  (1ull << 21)
#define EFER_LMA  (1ull << 10)
#define EFER_NXE  (1ull << 11)
#define RFLAGS_AC (1ull << 18)

/* SDM volume 3A, tables 4-4 to 4-20. */
#define PTE_P  (1ull << 0)
#define PTE_RW (1ull << 1)
#define PTE_US (1ull << 2)
#define PTE_PS (1ull << 7)
#define PTE_XD (1ull << 63)

/* Bits @high to @low, both included; none when @high is below @low. */
static uint64_t bits(unsigned high, unsigned low)
{
        if (high < low)
                return 0;
        return (~0ull >> (63 - high)) & (~0ull << low);
}

struct x86_table_format x86_table_format(const struct x86_paging *p)
{
        unsigned m = p->maxphyaddr < 32 ? 32 : p->maxphyaddr > 52 ? 52 : p->maxphyaddr;
        struct x86_table_format f = {.maxphyaddr = (uint8_t)m, .entry_bytes = 8};

        if (!(p->cr0 & CR0_PG))
                return f;
        if (!(p->cr4 & CR4_PAE)) {
                f.levels = 2;
                f.entry_bytes = 4;
                f.root = p->cr3 & bits(31, 12);
                f.address = bits(31, 12);
                f.big4m = p->cr4 & CR4_PSE;
                return f;
        }
        f.address = bits(m - 1, 12);
        if (p->efer & EFER_LMA) {
                f.levels = p->cr4 & CR4_LA57 ? 5 : 4;
                f.root = p->cr3 & f.address;
                f.reserved = bits(51, m);
        } else {
                f.levels = 3;
                f.root = p->cr3 & bits(31, 5);
                f.reserved = bits(62, m);
        }
        if (!(p->efer & EFER_NXE))
                f.reserved |= PTE_XD;
        return f;
}

/* A 4 MiB page of 32-bit paging: bits 20:13 are bits 39:32 of its address (PSE-36, 4.3), of which
 * those above MAXPHYADDR, and bit 21, are reserved. */
static struct x86_table_entry page_4m(unsigned maxphyaddr, uint64_t entry)
{
        unsigned m = maxphyaddr < 40 ? maxphyaddr : 40;

        return (struct x86_table_entry){
                .kind = X86_ENTRY_PAGE,
                .reserved = entry & bits(21, m - 19),
                .gpa = (entry & bits(31, 22)) | (entry & bits(m - 20, 13)) << 19,
                .bytes = 4u << 20,
        };
}

struct x86_table_entry x86_table_entry(const struct x86_table_format *f, unsigned level,
                                       uint64_t entry)
{
        unsigned shift = 12 + (f->entry_bytes == 4 ? 10 : 9) * (level - 1);
        struct x86_table_entry e = {.bytes = 1ull << shift};
        uint64_t reserved = f->reserved;
        bool big = level > 1 && (entry & PTE_PS);

        if (!(entry & PTE_P))
                return e;
        if (f->levels == 2) {
                if (big && f->big4m)
                        return page_4m(f->maxphyaddr, entry);
                big = false;
        } else if (f->levels == 3 && level == 3) { /* PAE's top entries: table 4-8 */
                reserved |= bits(2, 1) | bits(8, 5) | PTE_XD;
                big = false;
        } else if (big && level > 3) { /* no page is larger than 1 GiB */
                reserved |= PTE_PS;
                big = false;
        } else if (big) {
                reserved |= bits(shift - 1, 13); /* bit 12 is PAT */
        }
        e.kind = level == 1 || big ? X86_ENTRY_PAGE : X86_ENTRY_TABLE;
        e.reserved = entry & reserved;
        e.gpa = entry & f->address;
        if (e.kind == X86_ENTRY_PAGE)
                e.gpa &= ~(e.bytes - 1);
        return e;
}

/* --- permissions: 4.6.1, and error codes: 4.7 --- */

static bool is_user(const struct x86_paging *p, unsigned access)
{
        return p->cpl == 3 && !(access & X86_IMPLICIT);
}

static uint32_t error_code(const struct x86_paging *p, unsigned access)
{
        bool nxe = (p->cr4 & CR4_PAE) && (p->efer & EFER_NXE);
        uint32_t code = 0;

        if (access & X86_WRITE)
                code |= X86_PF_WRITE;
        if (is_user(p, access))
                code |= X86_PF_USER;
        if ((access & X86_EXEC) && (nxe || (p->cr4 & CR4_SMEP)))
                code |= X86_PF_FETCH;
        return code;
}

static bool allowed(const struct x86_paging *p, unsigned access, const struct x86_walk *w)
{
        if (access & X86_DEBUG)
                return true;
        if ((access & X86_EXEC) && !w->executable)
                return false;
        if (is_user(p, access))
                return w->user && (w->writable || !(access & X86_WRITE));
        if (w->user && (access & X86_EXEC))
                return !(p->cr4 & CR4_SMEP);
        if (w->user && (p->cr4 & CR4_SMAP) && (!(p->rflags & RFLAGS_AC) || (access & X86_IMPLICIT)))
                return false;
        return !(access & X86_WRITE) || w->writable || !(p->cr0 & CR0_WP);
}

/* --- the walk --- */

static bool canonical(uint64_t linear, unsigned levels)
{
        unsigned unused = 64 - (12 + 9 * levels); /* high bits that must repeat the last one used */

        return (uint64_t)((int64_t)(linear << unused) >> unused) == linear;
}

static int fault(const struct x86_paging *p, unsigned access, uint32_t why, struct x86_walk *out)
{
        out->fault = why | error_code(p, access);
        return -EFAULT;
}

static int read_entry(const struct x86_table_format *f, const struct x86_mem_reader *reader,
                      uint64_t gpa, uint64_t *entry)
{
        uint32_t narrow;

        if (f->entry_bytes == 8)
                return reader->read(reader->data, gpa, entry, 8) < 0 ? -EIO : 0;
        if (reader->read(reader->data, gpa, &narrow, 4) < 0)
                return -EIO;
        *entry = narrow;
        return 0;
}

/* What the entries so far allow, with one more. */
static void restrict_to(const struct x86_paging *p, const struct x86_table_format *f,
                        unsigned level, uint64_t entry, struct x86_walk *w)
{
        if (f->levels == 3 && level == 3)
                return;
        w->writable = w->writable && (entry & PTE_RW);
        w->user = w->user && (entry & PTE_US);
        if (f->entry_bytes == 8 && (p->efer & EFER_NXE) && (entry & PTE_XD))
                w->executable = false;
}

int x86_walk(const struct x86_paging *paging, const struct x86_mem_reader *reader, uint64_t linear,
             unsigned access, struct x86_walk *out)
{
        struct x86_table_format f = x86_table_format(paging);
        unsigned index_bits = f.entry_bytes == 4 ? 10 : 9;
        struct x86_table_entry e = {.gpa = f.root};
        uint64_t entry, at;

        *out = (struct x86_walk){.writable = true, .user = true, .executable = true};
        if (!(paging->efer & EFER_LMA))
                linear &= 0xffffffff;
        if (f.levels == 0) {
                out->gpa = linear;
                out->page_bytes = X86_PAGE_BYTES;
                return 0;
        }
        if (f.levels >= 4 && !canonical(linear, f.levels))
                return -EINVAL;
        for (unsigned level = f.levels; e.kind != X86_ENTRY_PAGE; level--) {
                at = linear >> (12 + index_bits * (level - 1)) & ((1u << index_bits) - 1);
                at = e.gpa + at * f.entry_bytes;
                out->tables[out->ntables++] = at & ~(uint64_t)(X86_PAGE_BYTES - 1);
                if (read_entry(&f, reader, at, &entry) < 0)
                        return -EIO;
                e = x86_table_entry(&f, level, entry);
                if (e.kind == X86_ENTRY_ABSENT)
                        return fault(paging, access, 0, out);
                if (e.reserved && !(access & X86_DEBUG))
                        return fault(paging, access, X86_PF_PRESENT | X86_PF_RESERVED, out);
                restrict_to(paging, &f, level, entry, out);
        }
        if (!allowed(paging, access, out))
                return fault(paging, access, X86_PF_PRESENT, out);
        out->page_bytes = e.bytes;
        out->gpa = e.gpa | (linear & (e.bytes - 1));
        return 0;
}
