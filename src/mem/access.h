/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread's way to the memory of one machine: devices, vCPU threads and debuggers read and write
 * by it. It keeps the three rules that a translation must obey:
 *
 *   bounds      every check of guest_mem.h; a range outside RAM moves no byte;
 *   section     memory is touched inside a read section (sync.h) only, and what was posted is
 *               forgotten before the first translation of the section is used;
 *   cache       translations come from the thread's cache (tlb.h), or, with the bypass switch, from
 *               the regions and page tables each time. Both give the same results.
 *
 * Each call makes a section of its own unless the caller has begun one:
 *
 *      guest_access_begin(a);
 *      ... reads, writes, pointers from guest_access_span() ...
 *      guest_access_end(a);
 *
 * Inside it the thread must not stop or flush the machine, and should not wait for anything:
 * whoever stops the machine waits for it. A thread that has stopped the machine itself says so
 * (guest_access_exclusive) and then needs no section.
 *
 * Linear addresses. No one tells a VMM that a guest changed its page tables or executed INVLPG, and
 * a processor is free to use an old translation until then. So a linear translation is good only
 * while the guest has no way to have asked for another one: for a vCPU's own thread from one
 * KVM_RUN to the next, for the owner of a machine from a stop to the next resume. That is in the
 * tag (tlb_space.run): a number that the caller's view carries and that changes with each run, so
 * that nothing needs to be broadcast. What this thread itself writes into page tables through
 * these calls is seen at once.
 *
 * Threads: a struct guest_access and its cache belong to one thread. Several of one thread, for
 * several machines, may share one cache; their sections must not overlap then.
 */
#ifndef RAMET_MEM_ACCESS_H
#define RAMET_MEM_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mem/guest_mem.h"
#include "mem/tlb.h"
#include "sync/sync.h"

#define GUEST_ACCESS_LOANS   4
#define GUEST_ACCESS_NO_LOAN GUEST_ACCESS_LOANS /* the number of those that nobody waits for */

/* I/O in flight that uses translations of sections of one generation (sync.h). */
struct guest_loan {
        struct sync_participant part; /* joined; inside while count is not 0 */
        unsigned count;               /* [t] */
};

struct guest_access {
        const struct guest_mem *mem;   /* [I] */
        struct sync_participant *part; /* [I] joined; NULL: see guest_access_init */
        struct tlb *tlb;               /* [I] */
        unsigned depth;                /* [t] sections begun */
        bool exclusive;                /* [t] this thread has stopped the machine */
        bool bypass;                   /* [t] do not use the cache; may be set at any time */
        bool walking;                  /* [t] what is read now are page tables */
        struct guest_loan loans[GUEST_ACCESS_LOANS]; /* [t] */
        unsigned lent;                               /* [t] loans that are out */
        unsigned unlent;                             /* [t] the same, of GUEST_ACCESS_NO_LOAN */
        void (*settle)(void *data);                  /* [I] see guest_access_lending() */
        void *settle_data;                           /* [I] */
};

/* Linear addresses as one vCPU means them. The caller fills it from the vCPU's registers and may
 * use it until that vCPU, or with another thread's any vCPU, runs on. */
struct guest_view {
        struct tlb_space space;
        /* The guest-physical address of @gva for an access of @kind (a number below TLB_KINDS, of
         * the caller's choice: what is done and with which rights). Reads page tables by
         * guest_access_read(a) and by nothing else. 0, or negative: handed to the caller as it is.
         */
        int (*walk)(const struct guest_view *view, struct guest_access *a, uint64_t gva,
                    unsigned kind, uint64_t *gpa);
};

/* All pointers are borrowed; the cache is dropped. @part: the thread's own, joined to the machine's
 * domain. NULL for memory that nobody but this thread has to do with yet: sections then wait for
 * nobody, and nothing is cached from one to the next. */
void guest_access_init(struct guest_access *a, const struct guest_mem *mem,
                       struct sync_participant *part, struct tlb *tlb);

/* Begin and end a section; they nest. begin waits while the machine is stopped by another thread,
 * and may settle before (see below). */
void guest_access_begin(struct guest_access *a);
void guest_access_end(struct guest_access *a);
/* After this thread's sync_stop(), and before its sync_resume(). Outside all sections. */
void guest_access_exclusive(struct guest_access *a, bool exclusive);

/* --- by guest-physical address; 0, or -EFAULT (no byte moved) when the range is not RAM of one
 * region. 1, 2, 4 and 8 bytes that are aligned move at once. --- */

int guest_access_read(struct guest_access *a, uint64_t gpa, void *buf, size_t len);
int guest_access_write(struct guest_access *a, uint64_t gpa, const void *buf, size_t len);
int guest_access_set(struct guest_access *a, uint64_t gpa, int byte, size_t len);
/* From a file, as guest_mem_load(): -ENODATA and -errno, too, when some bytes may have moved. It
 * reads inside a section: for files that answer at once. */
int guest_access_load(struct guest_access *a, uint64_t gpa, int fd, uint64_t file_offset,
                      size_t len);

/* Where [gpa, gpa + len) is, and how many bytes of it (1 to len) lie there in one piece. NULL when
 * it is not RAM of one region, or len is 0. Inside a section; good until it ends. @write: it is
 * going to be written; the caller says what was, afterwards, by guest_access_wrote(). */
uint8_t *guest_access_span(struct guest_access *a, uint64_t gpa, uint64_t len, bool write,
                           uint64_t *piece);
/* [gpa, gpa + len), RAM of one region, has been written through a pointer, by this thread or by the
 * host kernel for it. Before the section ends, or that of the I/O in flight. */
void guest_access_wrote(struct guest_access *a, uint64_t gpa, uint64_t len);

/* --- I/O in flight ---
 *
 * A read or write of a file that the kernel does by itself outlives the section in which it was
 * started: the section is lent to it. Whoever stops the machine waits for it, too. So its thread
 * must never wait for a section while something is lent that only it can take back: begin() then
 * calls @settle first, which waits until every loan has been returned (loop_io_settle()). For the
 * same reason a thread that has lent something must not stop or flush the machine itself. */

/* Join the loans to the machine; before the first loan. guest_access_lending_end: leave again, with
 * nothing lent. Without a participant both do nothing. */
void guest_access_lending(struct guest_access *a, void (*settle)(void *data), void *data);
void guest_access_lending_end(struct guest_access *a);
/* Inside a section: spans may be used until the loan is returned. Its number, 0 to
 * GUEST_ACCESS_LOANS - 1. May settle, when loans of that many generations are out.
 *
 * While this thread has stopped the machine, and where there is no participant, nobody can change
 * anything that has to be waited for: the number is GUEST_ACCESS_NO_LOAN, to be returned like any
 * other, and before the machine is let go. */
unsigned guest_access_lend(struct guest_access *a);
/* From anywhere in the thread, section or not; guest_access_wrote() comes before. */
void guest_access_return(struct guest_access *a, unsigned loan);

/* --- by linear address. 0; -ENXIO when it means an address that is not RAM; what the view's walk
 * says. Then *@failed (may be NULL) is the first linear address that could not be accessed, and
 * what lies before it has been. --- */

int guest_access_read_gva(struct guest_access *a, const struct guest_view *view, unsigned kind,
                          uint64_t gva, void *buf, size_t len, uint64_t *failed);
int guest_access_write_gva(struct guest_access *a, const struct guest_view *view, unsigned kind,
                           uint64_t gva, const void *buf, size_t len, uint64_t *failed);
/* Only translate: what the walk says. */
int guest_access_translate(struct guest_access *a, const struct guest_view *view, unsigned kind,
                           uint64_t gva, uint64_t *gpa);

#endif
