/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checked accessor: see guest_mem.h. guest_mem_span() is the only place where a guest-physical
 * address becomes a host one, and it never does so without a length.
 */
#include "mem/guest_mem.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096u

static const struct guest_region *find(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
        for (unsigned i = 0; i < mem->nregions; i++) {
                const struct guest_region *r = &mem->regions[i];
                uint64_t off = gpa - r->gpa;

                if (gpa >= r->gpa && off <= r->size && len <= r->size - off)
                        return r;
        }
        return NULL;
}

static bool is_moved(const struct guest_mem *mem, uint64_t offset)
{
        uint64_t page = offset / PAGE;

        return mem->moved[page / 64] >> page % 64 & 1;
}

uint8_t *guest_mem_span(const struct guest_mem *mem, uint64_t gpa, uint64_t len, uint64_t *piece)
{
        const struct guest_region *r = len ? find(mem, gpa, len) : NULL;
        uint64_t offset, n;
        bool moved;

        if (!r)
                return NULL;
        if (!mem->moved) {
                *piece = len;
                return r->hva + (gpa - r->gpa);
        }
        offset = r->offset + (gpa - r->gpa);
        moved = is_moved(mem, offset);
        n = PAGE - offset % PAGE;
        while (n < len && is_moved(mem, offset + n) == moved)
                n += PAGE;
        *piece = n < len ? n : len;
        return r->hva + (gpa - r->gpa) + (moved ? mem->moved_by : 0);
}

void guest_mem_mark_dirty(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
        const struct guest_region *r = mem->dirty && len ? find(mem, gpa, len) : NULL;
        uint64_t first, last;

        if (!r)
                return;
        first = (r->offset + (gpa - r->gpa)) / PAGE;
        last = (r->offset + (gpa - r->gpa) + len - 1) / PAGE;
        for (uint64_t page = first; page <= last; page++) {
                uint64_t *word = &mem->dirty[page / 64], bit = 1ull << page % 64;

                __atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
        }
}

int guest_mem_read(const struct guest_mem *mem, uint64_t gpa, void *buf, size_t len)
{
        uint8_t *to = buf;
        uint64_t n = 0;

        if (!find(mem, gpa, len))
                return -EFAULT;
        for (; len > 0; gpa += n, to += n, len -= n) {
                uint8_t *p = guest_mem_span(mem, gpa, len, &n);

                memcpy(to, p, n);
        }
        return 0;
}

int guest_mem_write(const struct guest_mem *mem, uint64_t gpa, const void *buf, size_t len)
{
        const uint8_t *from = buf;
        uint64_t n = 0;

        if (!find(mem, gpa, len))
                return -EFAULT;
        for (; len > 0; gpa += n, from += n, len -= n) {
                uint8_t *p = guest_mem_span(mem, gpa, len, &n);

                memcpy(p, from, n);
                guest_mem_mark_dirty(mem, gpa, n);
        }
        return 0;
}

int guest_mem_set(const struct guest_mem *mem, uint64_t gpa, int byte, size_t len)
{
        uint64_t n = 0;

        if (!find(mem, gpa, len))
                return -EFAULT;
        for (; len > 0; gpa += n, len -= n) {
                uint8_t *p = guest_mem_span(mem, gpa, len, &n);

                memset(p, byte, n);
                guest_mem_mark_dirty(mem, gpa, n);
        }
        return 0;
}

int guest_mem_pread(int fd, uint8_t *p, size_t len, uint64_t file_offset)
{
        while (len > 0) {
                ssize_t n = pread(fd, p, len, (off_t)file_offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -ENODATA;
                p += n;
                len -= (size_t)n;
                file_offset += (uint64_t)n;
        }
        return 0;
}

int guest_mem_load(const struct guest_mem *mem, uint64_t gpa, int fd, uint64_t file_offset,
                   size_t len)
{
        uint64_t n = 0;
        int r = 0;

        if (!find(mem, gpa, len))
                return -EFAULT;
        for (; len > 0 && r == 0; gpa += n, file_offset += n, len -= n) {
                uint8_t *p = guest_mem_span(mem, gpa, len, &n);

                r = guest_mem_pread(fd, p, n, file_offset);
                guest_mem_mark_dirty(mem, gpa, n);
        }
        return r;
}

int guest_mem_offset(const struct guest_mem *mem, uint64_t gpa, uint64_t len, uint64_t *offset)
{
        const struct guest_region *r = find(mem, gpa, len);

        if (!r)
                return -EFAULT;
        *offset = r->offset + (gpa - r->gpa);
        return 0;
}

int guest_mem_contains(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
        return find(mem, gpa, len) != NULL;
}

uint64_t guest_mem_low_end(const struct guest_mem *mem)
{
        uint64_t end = 0;

        for (unsigned i = 0; i < mem->nregions; i++) {
                const struct guest_region *r = &mem->regions[i];

                if (r->gpa < 0x100000000ull && r->gpa + r->size > end)
                        end = r->gpa + r->size;
        }
        return end;
}
