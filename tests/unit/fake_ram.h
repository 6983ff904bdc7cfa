/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory for tests of page walks: pages from address 0 on, and setters for entries. */
#ifndef RAMET_TESTS_UNIT_FAKE_RAM_H
#define RAMET_TESTS_UNIT_FAKE_RAM_H

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "x86/walk.h"

#define FAKE_RAM_PAGES 64

static _Alignas(4096) uint8_t fake_ram[FAKE_RAM_PAGES * 4096];
static unsigned fake_ram_reads;

static int fake_ram_read(void *data, uint64_t gpa, void *buf, size_t len)
{
        fake_ram_reads++;
        if (len > sizeof fake_ram || gpa > sizeof fake_ram - len)
                return -EFAULT;
        if ((gpa & 4095) + len > 4096)
                return -EINVAL;
        memcpy(buf, fake_ram + gpa, len);
        return 0;
}

static const struct x86_mem_reader fake_reader = {.read = fake_ram_read};

/* Entry @index of the table at @gpa. */
static inline void put64(uint64_t gpa, unsigned index, uint64_t entry)
{
        memcpy(fake_ram + gpa + 8 * index, &entry, 8);
}

static inline void put32(uint64_t gpa, unsigned index, uint32_t entry)
{
        memcpy(fake_ram + gpa + 4 * index, &entry, 4);
}

static inline void fake_ram_clear(void)
{
        memset(fake_ram, 0, sizeof fake_ram);
        fake_ram_reads = 0;
}

#endif
