/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checked accessor: see guest_mem.h. guest_mem_at() is the only place where a guest-physical
 * address becomes a host one, and it never does so without a length.
 */
#include "mem/guest_mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static uint8_t *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
        for (unsigned i = 0; i < mem->nregions; i++) {
                const struct guest_region *r = &mem->regions[i];
                uint64_t off = gpa - r->gpa;

                if (gpa >= r->gpa && off <= r->size && len <= r->size - off)
                        return r->hva + off;
        }
        return NULL;
}

int guest_mem_read(const struct guest_mem *mem, uint64_t gpa, void *buf, size_t len)
{
        const uint8_t *p = guest_mem_at(mem, gpa, len);

        if (!p)
                return -EFAULT;
        memcpy(buf, p, len);
        return 0;
}

int guest_mem_write(const struct guest_mem *mem, uint64_t gpa, const void *buf, size_t len)
{
        uint8_t *p = guest_mem_at(mem, gpa, len);

        if (!p)
                return -EFAULT;
        memcpy(p, buf, len);
        return 0;
}

int guest_mem_set(const struct guest_mem *mem, uint64_t gpa, int byte, size_t len)
{
        uint8_t *p = guest_mem_at(mem, gpa, len);

        if (!p)
                return -EFAULT;
        memset(p, byte, len);
        return 0;
}

int guest_mem_load(const struct guest_mem *mem, uint64_t gpa, int fd, uint64_t file_offset,
                   size_t len)
{
        uint8_t *p = guest_mem_at(mem, gpa, len);

        if (!p)
                return -EFAULT;
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

int guest_mem_contains(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
        return guest_mem_at(mem, gpa, len) != NULL;
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
