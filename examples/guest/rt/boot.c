// SPDX-License-Identifier: Apache-2.0
/*
 * What the boot protocol handed over: PVH (Xen's public/arch-x86/hvm/start_info.h), multiboot v1
 * (specification 0.6.96, section 3.3), Linux (Documentation/arch/x86/boot.rst and zero-page.rst).
 */
#include "rt/rt.h"

#define PVH_MAGIC 0x336ec578u

extern uint64_t boot_info;
extern uint32_t boot_magic;

struct boot boot;

static uint64_t get(const uint8_t *p, unsigned len) /* unaligned, little endian */
{
        uint64_t v = 0;

        while (len)
                v = v << 8 | p[--len];
        return v;
}

static void ram(uint64_t start, uint64_t len, uint32_t type)
{
        if (type == 1 && start <= 0x100000 && start + len > 0x100000)
                boot.ram_end = start + len;
}

static void from_pvh(const uint8_t *info)
{
        const uint8_t *e = (const uint8_t *)get(info + 40, 8);

        if (get(info, 4) != PVH_MAGIC)
                return;
        boot.kind = BOOT_PVH;
        if (get(info + 24, 8))
                boot.cmdline = (const char *)get(info + 24, 8);
        boot.rsdp = get(info + 32, 8);
        if (get(info + 12, 4)) {
                const uint8_t *module = (const uint8_t *)get(info + 16, 8);

                boot.module = get(module, 8);
                boot.module_len = get(module + 8, 8);
        }
        if (get(info + 4, 4) >= 1) /* the memory map came with version 1 */
                for (uint64_t n = get(info + 48, 4); n; n--, e += 24)
                        ram(get(e, 8), get(e + 8, 8), (uint32_t)get(e + 16, 4));
}

static void from_multiboot(const uint8_t *info)
{
        uint64_t flags = get(info, 4);

        boot.kind = BOOT_MULTIBOOT;
        if (flags & 1) {
                boot.mem_lower = (uint32_t)get(info + 4, 4);
                boot.mem_upper = (uint32_t)get(info + 8, 4);
                boot.ram_end = 0x100000 + 1024 * (uint64_t)boot.mem_upper;
        }
        if (flags & 4)
                boot.cmdline = (const char *)get(info + 16, 4);
        if (flags & 8 && get(info + 20, 4)) {
                const uint8_t *module = (const uint8_t *)get(info + 24, 4);

                boot.module = get(module, 4);
                boot.module_len = get(module + 4, 4) - boot.module;
        }
}

static void from_linux(const uint8_t *params)
{
        const uint8_t *e = params + 0x2d0;

        boot.kind = BOOT_LINUX64;
        if (get(params + 0x228, 4))
                boot.cmdline = (const char *)get(params + 0x228, 4);
        boot.rsdp = get(params + 0x70, 8);
        boot.module = get(params + 0x218, 4);
        boot.module_len = get(params + 0x21c, 4);
        for (unsigned n = params[0x1e8]; n; n--, e += 20)
                ram(get(e, 8), get(e + 8, 8), (uint32_t)get(e + 16, 4));
}

void rt_main(void)
{
        boot.cmdline = "";
        if (boot_magic == BOOT_MAGIC_MULTIBOOT)
                from_multiboot((const uint8_t *)boot_info);
        else if (boot_magic == BOOT_MAGIC_LINUX64)
                from_linux((const uint8_t *)boot_info);
        else
                from_pvh((const uint8_t *)boot_info);
        cpu_init();
        guest_main();
        guest_poweroff();
}

/* The value of the word "name=...", or NULL. */
static const char *word(const char *name)
{
        const char *p = boot.cmdline;

        while (*p) {
                const char *n = name;

                for (; *p == ' '; p++)
                        ;
                for (; *n && *n == *p; n++, p++)
                        ;
                if (!*n && *p == '=')
                        return p + 1;
                for (; *p && *p != ' '; p++)
                        ;
        }
        return NULL;
}

static uint64_t number(const char *s, unsigned base)
{
        uint64_t v = 0;

        if (s[0] == '0' && (s[1] | 0x20) == 'x') {
                base = 16;
                s += 2;
        }
        for (;; s++) {
                unsigned d = (unsigned char)*s;

                if (d >= '0' && d <= '9')
                        d -= '0';
                else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
                        d = (d | 0x20) - 'a' + 10;
                else
                        return v;
                if (d >= base)
                        return v;
                v = v * base + d;
        }
}

uint64_t cmd_u64(const char *name, uint64_t fallback)
{
        const char *s = word(name);

        return s ? number(s, 10) : fallback;
}

uint64_t cmd_hex(const char *name, uint64_t fallback)
{
        const char *s = word(name);

        return s ? number(s, 16) : fallback;
}

int cmd_is(const char *name, const char *value)
{
        const char *s = word(name);

        if (!s)
                return 0;
        for (; *value && *s == *value; s++, value++)
                ;
        return !*value && (!*s || *s == ' ');
}

/* ACPI 6.5, 5.2.5 (RSDP), 5.2.8 (XSDT). */
const uint8_t *acpi_find(const char signature[4])
{
        const uint8_t *xsdt;
        uint64_t len;

        if (!boot.rsdp || ((const uint8_t *)boot.rsdp)[15] < 2) /* revision 2 brought the XSDT */
                return NULL;
        xsdt = (const uint8_t *)get((const uint8_t *)boot.rsdp + 24, 8);
        if (!xsdt)
                return NULL;
        len = get(xsdt + 4, 4);
        for (uint64_t at = 36; at + 8 <= len; at += 8) {
                const uint8_t *table = (const uint8_t *)get(xsdt + at, 8);

                if (get(table, 4) == get((const uint8_t *)signature, 4))
                        return table;
        }
        return NULL;
}
