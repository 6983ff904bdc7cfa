/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page walk in software: from a guest's linear address to a guest-physical one, as the
 * processor would do it. A pure function of registers and memory: no KVM descriptor, no machine.
 * Any thread; what the caller's reader may do decides.
 *
 * Guest page tables are the guest's to change meanwhile: each entry is read once and only the copy
 * is looked at, so a walk ends after at most five reads and its answer was true of some moment.
 */
#ifndef RAMET_X86_WALK_H
#define RAMET_X86_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define X86_PAGE_BYTES  4096u
#define X86_WALK_LEVELS 5

/* How guest memory is read: copy @len bytes at @gpa, which never cross a 4 KiB page. 0, or negative
 * when there is no memory. */
struct x86_mem_reader {
        int (*read)(void *data, uint64_t gpa, void *buf, size_t len);
        void *data;
};

/* The registers that a translation depends on. */
struct x86_paging {
        uint64_t cr0, cr3, cr4, efer;
        uint64_t rflags;    /* only AC (bit 18) is looked at */
        uint8_t cpl;        /* 0 to 3 */
        uint8_t maxphyaddr; /* bits of a physical address, CPUID 0x80000008 EAX[7:0]; 32 to 52 */
};

/* What is done to the address. A read is the absence of the others. */
enum x86_access {
        X86_READ = 0,
        X86_WRITE = 1 << 0,
        X86_EXEC = 1 << 1,     /* an instruction fetch; not together with X86_WRITE */
        X86_IMPLICIT = 1 << 2, /* by the processor itself (GDT, LDT, IDT, TSS): as supervisor,
                                * whatever the CPL, and RFLAGS.AC does not lift SMAP */
        X86_DEBUG = 1 << 3,    /* present is enough: permissions and reserved bits are ignored */
};

/* Bits of a page-fault error code (SDM vol. 3, 4.7). */
enum {
        X86_PF_PRESENT = 1 << 0,
        X86_PF_WRITE = 1 << 1,
        X86_PF_USER = 1 << 2,
        X86_PF_RESERVED = 1 << 3,
        X86_PF_FETCH = 1 << 4,
};

struct x86_walk {
        uint64_t gpa;                    /* what the linear address means */
        uint64_t page_bytes;             /* of the page that it lies in: 4 KiB, 2, 4 MiB, 1 GiB */
        bool writable, user, executable; /* what all entries together allow; not CR0.WP and so on */
        uint32_t fault;                  /* with -EFAULT: the error code of the page fault */
        unsigned ntables;                /* page-table pages looked at, */
        uint64_t tables[X86_WALK_LEVELS]; /* and their addresses, top first, 4 KiB aligned */
};

/* Translate @linear for @access (a set of enum x86_access). Outside long mode only its low 32 bits
 * count. With paging off the answer is the address itself, in a 4 KiB page that allows everything.
 *
 * 0, or with @out's tables filled in as far as the walk went:
 *      -EFAULT   the guest would take a page fault, with the error code @out->fault
 *      -EINVAL   the address is not canonical: a general-protection fault, and no walk
 *      -EIO      a page table lies where the reader finds no memory
 */
int x86_walk(const struct x86_paging *paging, const struct x86_mem_reader *reader, uint64_t linear,
             unsigned access, struct x86_walk *out);

/* --- for those who go through page tables themselves (pagetables.c) --- */

/* How the tables of one mode are built. */
struct x86_table_format {
        unsigned levels;      /* 0: paging is off; 2: 32-bit; 3: PAE; 4, 5 */
        unsigned entry_bytes; /* 4 or 8 */
        uint64_t root;        /* address of the top table: 32-byte aligned for PAE, else a page */
        uint64_t reserved;    /* bits that must be clear in every present entry */
        uint64_t address;     /* bits of an entry that are a page's address */
        bool big4m;           /* 32-bit paging with CR4.PSE */
        uint8_t maxphyaddr;
};

/* The format that @paging selects. */
struct x86_table_format x86_table_format(const struct x86_paging *paging);

enum x86_entry_kind {
        X86_ENTRY_ABSENT,
        X86_ENTRY_TABLE, /* leads to a table, one level down */
        X86_ENTRY_PAGE,
};

struct x86_table_entry {
        enum x86_entry_kind kind;
        bool reserved;  /* present, but with reserved bits set: using it is a page fault */
        uint64_t gpa;   /* of the table or page */
        uint64_t bytes; /* that the entry spans: the size of a page */
};

/* What @entry means in a table of @level (1 is the last). */
struct x86_table_entry x86_table_entry(const struct x86_table_format *format, unsigned level,
                                       uint64_t entry);

#endif
