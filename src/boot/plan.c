/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who lies where. Every range that a boot writes is claimed here first, so that "outside RAM" and
 * "over each other" are decided in one place for all protocols, and an image cannot smuggle itself
 * over the structures that it is started with.
 *
 * Claims are held against the memory map that the guest will be given, not only against what is
 * backed by memory: the firmware area below 1 MiB is backed (ACPI tables live there) but is
 * nobody's to load into.
 */
#include "boot/internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "x86/layout.h"

/* --- the memory map --- */

/* Add what is RAM of [start, end), region by region. */
static unsigned map_ram(const struct guest_mem *mem, struct boot_e820 *map, unsigned n,
                        uint64_t start, uint64_t end)
{
        for (unsigned i = 0; i < mem->nregions && n < BOOT_E820_MAX; i++) {
                uint64_t from = mem->regions[i].gpa, to = from + mem->regions[i].size;

                from = from < start ? start : from;
                to = to > end ? end : to;
                if (from < to)
                        map[n++] = (struct boot_e820){from, to - from, BOOT_E820_RAM};
        }
        return n;
}

unsigned boot_e820_map(const struct guest_mem *mem, struct boot_e820 map[BOOT_E820_MAX])
{
        static const struct boot_e820 reserved[] = {
                {LAYOUT_EBDA, 0xa0000 - LAYOUT_EBDA, BOOT_E820_RESERVED},
                {LAYOUT_BIOS, LAYOUT_BIOS_END - LAYOUT_BIOS, BOOT_E820_RESERVED},
        };
        unsigned n;

        /* At most one entry a region, one more for each of two seams, and two reserved ones: 8. */
        n = map_ram(mem, map, 0, 0, LAYOUT_EBDA);
        for (unsigned i = 0; i < 2 && n < BOOT_E820_MAX; i++)
                map[n++] = reserved[i];
        n = map_ram(mem, map, n, LAYOUT_BIOS_END, LAYOUT_LOW_RAM_END);
        return map_ram(mem, map, n, LAYOUT_HIGH_RAM, UINT64_MAX);
}

static uint64_t memory_bytes(const struct guest_mem *mem)
{
        uint64_t sum = 0;

        for (unsigned i = 0; i < mem->nregions; i++)
                sum += mem->regions[i].size;
        return sum;
}

/* --- claims --- */

/* True when the guest may use all of it. [start, start + len) does not wrap. */
static int is_usable(const struct guest_mem *mem, uint64_t start, uint64_t len)
{
        struct boot_e820 map[BOOT_E820_MAX];
        unsigned n = boot_e820_map(mem, map);

        for (unsigned i = 0; i < n; i++) {
                if (map[i].type == BOOT_E820_RAM && start >= map[i].addr &&
                    start + len <= map[i].addr + map[i].size)
                        return guest_mem_contains(mem, start, len);
        }
        return 0;
}

static const struct boot_range *find_clash(const struct boot_job *job, uint64_t start, uint64_t end)
{
        for (unsigned i = 0; i < job->ntaken; i++) {
                if (start < job->taken[i].end && job->taken[i].start < end)
                        return &job->taken[i];
        }
        return NULL;
}

/* "0x0-0x9fbff, 0x100000-0x7ffffff" */
static void print_ram(const struct guest_mem *mem, char *buf, size_t size)
{
        struct boot_e820 map[BOOT_E820_MAX];
        unsigned n = boot_e820_map(mem, map);
        size_t used = 0;

        buf[0] = 0;
        for (unsigned i = 0; i < n && used < size; i++) {
                if (map[i].type == BOOT_E820_RAM)
                        used += (size_t)snprintf(
                                buf + used, size - used, "%s0x%llx-0x%llx", used ? ", " : "",
                                (unsigned long long)map[i].addr,
                                (unsigned long long)(map[i].addr + map[i].size - 1));
        }
}

static int refuse_not_ram(struct boot_job *job, const struct boot_range *r)
{
        char ram[200];

        print_ram(job->mem, ram, sizeof ram);
        return err_input(job->err, "%s: %s (0x%llx-0x%llx) lies outside RAM (%s)", job->kernel.name,
                         r->what, (unsigned long long)r->start, (unsigned long long)(r->end - 1),
                         ram);
}

static int refuse_clash(struct boot_job *job, const struct boot_range *a,
                        const struct boot_range *b)
{
        return err_input(job->err, "%s: %s (0x%llx-0x%llx) overlaps %s (0x%llx-0x%llx)",
                         job->kernel.name, a->what, (unsigned long long)a->start,
                         (unsigned long long)(a->end - 1), b->what, (unsigned long long)b->start,
                         (unsigned long long)(b->end - 1));
}

int boot_claim(struct boot_job *job, uint64_t gpa, uint64_t len, const char *fmt, ...)
{
        struct boot_range r = {.start = gpa, .end = gpa + len};
        const struct boot_range *clash;
        va_list ap;

        if (len == 0)
                return 0;
        va_start(ap, fmt);
        vsnprintf(r.what, sizeof r.what, fmt, ap);
        va_end(ap);
        if (len > UINT64_MAX - gpa)
                return err_input(job->err, "%s: %s: 0x%llx + 0x%llx bytes wraps around",
                                 job->kernel.name, r.what, (unsigned long long)gpa,
                                 (unsigned long long)len);
        if (!is_usable(job->mem, gpa, len))
                return refuse_not_ram(job, &r);
        clash = find_clash(job, r.start, r.end);
        if (clash)
                return refuse_clash(job, &r, clash);
        if (job->ntaken == BOOT_RANGES)
                return err_input(job->err, "%s: more than %u pieces to load", job->kernel.name,
                                 BOOT_RANGES);
        job->taken[job->ntaken++] = r;
        return 0;
}

int boot_claim_tables(struct boot_job *job, enum x86_mode mode)
{
        int ret;

        ret = boot_claim(job, LAYOUT_BOOT_STACK + 0x10 - BOOT_PAGE, BOOT_PAGE, "the boot stack");
        if (ret == 0 && mode != X86_REAL16)
                ret = boot_claim(job, LAYOUT_BOOT_GDT, 6 * 8, "the boot GDT");
        if (ret == 0 && mode == X86_LONG64)
                ret = boot_claim(job, LAYOUT_BOOT_PAGETABLES, 6 * BOOT_PAGE, "the page tables");
        if (ret < 0 || job->src->flat)
                return ret;
        ret = boot_claim(job, LAYOUT_BOOT_INFO, BOOT_PAGE, "the boot information");
        if (ret == 0)
                ret = boot_claim(job, LAYOUT_CMDLINE, LAYOUT_CMDLINE_MAX, "the command line");
        return ret;
}

/* --- putting --- */

/* A range that was claimed is RAM, so this is only reached through a bug: still no abort. */
static int put_failed(struct boot_job *job, const struct boot_file *file, uint64_t gpa, int ret)
{
        if (ret == -ENODATA)
                return err_input(job->err, "%s: the file became shorter while it was being read",
                                 file->name);
        return err_host(job->err, -ret, "%s: cannot load it at 0x%llx: %s", file->name,
                        (unsigned long long)gpa, strerror(-ret));
}

int boot_put(struct boot_job *job, uint64_t gpa, const void *bytes, size_t len)
{
        int ret = guest_mem_write(job->mem, gpa, bytes, len);

        return ret < 0 ? put_failed(job, &job->kernel, gpa, ret) : 0;
}

int boot_zero(struct boot_job *job, uint64_t gpa, uint64_t len)
{
        int ret = guest_mem_set(job->mem, gpa, 0, len);

        return ret < 0 ? put_failed(job, &job->kernel, gpa, ret) : 0;
}

int boot_put_file(struct boot_job *job, const struct boot_file *file, uint64_t gpa, uint64_t offset,
                  uint64_t len)
{
        int ret = guest_mem_load(job->mem, gpa, file->fd, offset, len);

        return ret < 0 ? put_failed(job, file, gpa, ret) : 0;
}

/* --- what every protocol passes on --- */

/* The highest page-aligned start for @size bytes that ends below @end and meets no claim; 0 when
 * there is none. Each round ends lower than the last one began to clash, so there are at most as
 * many rounds as claims. */
static uint64_t find_room(const struct boot_job *job, uint64_t end, uint64_t size)
{
        const struct boot_range *clash;

        do {
                uint64_t start;

                if (end < size)
                        return 0;
                start = (end - size) & ~(uint64_t)(BOOT_PAGE - 1);
                if (start < LAYOUT_BIOS_END)
                        return 0;
                clash = find_clash(job, start, start + size);
                if (!clash)
                        return start;
                end = clash->start;
        } while (1);
}

int boot_put_initramfs(struct boot_job *job, uint64_t limit, uint64_t *gpa)
{
        const struct boot_file *file = &job->initramfs;
        uint64_t end = guest_mem_low_end(job->mem), memory = memory_bytes(job->mem);
        int ret;

        *gpa = 0;
        if (file->size == 0)
                return 0;
        if (file->size > memory)
                return err_input(job->err, "%s: larger than memory: %s, and the VM has %s",
                                 file->name, boot_size(file->size).text, boot_size(memory).text);
        end = end < limit ? end : limit;
        *gpa = find_room(job, end, file->size);
        if (*gpa == 0)
                return err_input(job->err,
                                 "%s: does not fit into memory beside the kernel: %s, and the VM "
                                 "has %s, of which %s can hold it",
                                 file->name, boot_size(file->size).text, boot_size(memory).text,
                                 boot_size(end > LAYOUT_BIOS_END ? end - LAYOUT_BIOS_END : 0).text);
        ret = boot_claim(job, *gpa, file->size, "the initramfs");
        if (ret < 0)
                return ret;
        return boot_put_file(job, file, *gpa, 0, file->size);
}

/* Linux with hardware-reduced ACPI has only the TSC to keep time by. Where no paravirtual clock
 * tells its frequency it measures it against the PIT, and on a busy host that fails and the boot
 * with it. Linux, Documentation/admin-guide/kernel-parameters.txt: tsc_early_khz. It goes before
 * what the user gave, which may have a "--" after which nothing is the kernel's. */
static void tell_tsc(const struct boot_job *job, char *text, size_t size)
{
        text[0] = '\0';
        if (job->linux_kernel && job->src->tsc_khz && !strstr(job->src->cmdline, "tsc_early_khz="))
                snprintf(text, size, "tsc_early_khz=%u%s", job->src->tsc_khz,
                         job->src->cmdline[0] ? " " : "");
}

int boot_put_cmdline(struct boot_job *job, uint64_t max)
{
        size_t len = strlen(job->src->cmdline), before;
        char tsc[40];
        int ret;

        if (max > LAYOUT_CMDLINE_MAX - 1)
                max = LAYOUT_CMDLINE_MAX - 1;
        if (len > max)
                return err_input(job->err, "%s: the command line has %zu bytes, it takes %llu",
                                 job->kernel.name, len, (unsigned long long)max);
        tell_tsc(job, tsc, sizeof tsc);
        before = strlen(tsc);
        if (len + before > max)
                before = 0; /* what the user gave goes first */
        ret = boot_put(job, LAYOUT_CMDLINE, tsc, before);
        return ret < 0 ? ret : boot_put(job, LAYOUT_CMDLINE + before, job->src->cmdline, len + 1);
}
