/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where guest memory is, and the one way in which Ramet itself touches it. Every access is checked
 * against the regions for overflow and bounds before a byte moves; a range may not leave its
 * region. What is behind the host addresses (layers, copy-on-write) is backing.h's business.
 *
 * Who may call: a thread that is an active participant of the VM (sync.h), or any thread while the
 * VM's vCPUs do not exist yet. access.h is a thread's way to do that, with a cache: devices, vCPUs
 * and debuggers use it; what fills memory before the machine runs uses this. Guest memory changes
 * under the reader's feet: copy once, check the copy.
 */
#ifndef RAMET_MEM_GUEST_MEM_H
#define RAMET_MEM_GUEST_MEM_H

#include <stddef.h>
#include <stdint.h>

#define GUEST_MEM_REGIONS 4

struct guest_region {
        uint64_t gpa;    /* [I] first guest-physical address */
        uint64_t size;   /* [I] bytes, a multiple of the page size */
        uint64_t offset; /* [I] where the region begins in the memory layers */
        uint8_t *hva;    /* [I] host address of its first byte; fixed for the life of the VM */
};

struct guest_mem {
        struct guest_region regions[GUEST_MEM_REGIONS]; /* [I] ascending by gpa, apart */
        unsigned nregions;                              /* [I] */
        /* With the engine `rom` a page that was written lies elsewhere: a bit per page of the
         * layers' offsets, and what is to be added to the region's address then. It changes only
         * while every participant is stopped. NULL: all pages are where the region says. */
        const uint64_t *moved; /* [o] */
        ptrdiff_t moved_by;    /* [I] */
        /* Who asks what Ramet itself wrote: a bit per page of the layers' offsets, set atomically
         * after each write. Changes while every participant is stopped. NULL: nobody asks. */
        uint64_t *dirty; /* [o], the bits [a] */
};

/* Where [gpa, gpa + len) is, and how many bytes of it (at least 1, at most len) lie there in one
 * piece. NULL when the range is not RAM of one region, or len is 0. Good until the caller leaves
 * its read section. */
uint8_t *guest_mem_span(const struct guest_mem *mem, uint64_t gpa, uint64_t len, uint64_t *piece);

/* Copy @len bytes from guest memory. 0, or -EFAULT (nothing copied) when the range is not RAM. */
int guest_mem_read(const struct guest_mem *mem, uint64_t gpa, void *buf, size_t len);

/* Copy @len bytes to guest memory. 0, or -EFAULT (nothing written) when the range is not RAM. */
int guest_mem_write(const struct guest_mem *mem, uint64_t gpa, const void *buf, size_t len);

/* Fill @len bytes with @byte. 0 or -EFAULT. */
int guest_mem_set(const struct guest_mem *mem, uint64_t gpa, int byte, size_t len);

/* Read @len bytes of @fd from @file_offset straight into guest memory (pread, retried until done).
 * 0, -EFAULT when the range is not RAM, -ENODATA when the file ends early, or -errno. */
int guest_mem_load(const struct guest_mem *mem, uint64_t gpa, int fd, uint64_t file_offset,
                   size_t len);

/* What was written through a pointer: mark its pages dirty; the range is RAM of one region. The
 * functions above do it themselves. Any thread. */
void guest_mem_mark_dirty(const struct guest_mem *mem, uint64_t gpa, uint64_t len);

/* Fill [p, p + len) from a file: pread, retried until done. 0, -ENODATA or -errno. */
int guest_mem_pread(int fd, uint8_t *p, size_t len, uint64_t file_offset);

/* Where [gpa, gpa + len) lies in the memory layers. 0, or -EFAULT when the range is not RAM of one
 * region. */
int guest_mem_offset(const struct guest_mem *mem, uint64_t gpa, uint64_t len, uint64_t *offset);

/* True when all of [gpa, gpa + len) is RAM of one region. len 0 is a range too. */
int guest_mem_contains(const struct guest_mem *mem, uint64_t gpa, uint64_t len);

/* One past the last byte of RAM below 4 GiB. */
uint64_t guest_mem_low_end(const struct guest_mem *mem);

#endif
