/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pages of a range are this process's own. The kernel tells in two ways: PAGEMAP_SCAN (Linux
 * 6.7), which walks the page tables and returns ranges, and, before that, the entries of
 * /proc/self/pagemap: bit 63 present, bit 62 swapped, bit 61 file page or shared anonymous
 * (Documentation/admin-guide/mm/pagemap.rst).
 *
 * A hole that was only read is mapped to the kernel's page of zeros: no page of anybody's, and only
 * PAGEMAP_SCAN can tell. The entries cannot, so that older kernels count and copy those.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "mem/extent.h"

#define PAGE 4096ull

/* From linux/fs.h of 6.7, which is newer than the headers this must build with. */
#ifndef PAGEMAP_SCAN
#define PAGE_IS_FILE    (1ull << 2)
#define PAGE_IS_PRESENT (1ull << 3)
#define PAGE_IS_SWAPPED (1ull << 4)
#define PAGE_IS_PFNZERO (1ull << 5)

struct page_region {
        uint64_t start;
        uint64_t end;
        uint64_t categories;
};

struct pm_scan_arg {
        uint64_t size;
        uint64_t flags;
        uint64_t start;
        uint64_t end;
        uint64_t walk_end;
        uint64_t vec;
        uint64_t vec_len;
        uint64_t max_pages;
        uint64_t category_inverted;
        uint64_t category_mask;
        uint64_t category_anyof_mask;
        uint64_t return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

static int scan_ioctl(int fd, uint64_t start, uint64_t end, uint32_t layer,
                      struct extent_list *list)
{
        struct page_region regions[256];
        struct pm_scan_arg arg = {
                .size = sizeof arg,
                .start = start,
                .end = end,
                .vec = (uintptr_t)regions,
                .vec_len = sizeof regions / sizeof regions[0],
                .category_inverted = PAGE_IS_FILE | PAGE_IS_PFNZERO,
                .category_mask = PAGE_IS_FILE | PAGE_IS_PFNZERO,
                .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        };

        while (arg.start < end) {
                int n = ioctl(fd, PAGEMAP_SCAN, &arg);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                for (int i = 0; i < n; i++) {
                        int r = extent_add(list, regions[i].start - start,
                                           regions[i].end - regions[i].start, layer);

                        if (r < 0)
                                return r;
                }
                if (arg.walk_end <= arg.start)
                        return -EIO; /* no progress: never loop on it */
                arg.start = arg.walk_end;
        }
        return 0;
}

static int scan_entries(int fd, uint64_t start, uint64_t size, uint32_t layer,
                        struct extent_list *list)
{
        uint64_t entries[512];
        uint64_t npages = size / PAGE;

        for (uint64_t at = 0; at < npages;) {
                uint64_t want = npages - at < 512 ? npages - at : 512;
                ssize_t n = pread(fd, entries, want * sizeof entries[0],
                                  (off_t)((start / PAGE + at) * sizeof entries[0]));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < (ssize_t)sizeof entries[0])
                        return n < 0 ? -errno : -EIO;
                for (size_t i = 0; i < (size_t)n / sizeof entries[0]; i++, at++) {
                        uint64_t e = entries[i];
                        int r = 0;

                        if ((e >> 62) != 0 && !(e >> 61 & 1))
                                r = extent_add(list, at * PAGE, PAGE, layer);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

int extent_scan_private(int pagemap_fd, const uint8_t *hva, uint64_t size, uint32_t layer,
                        struct extent_list *list)
{
        uint64_t start = (uintptr_t)hva;
        size_t before = list->count;
        int r = scan_ioctl(pagemap_fd, start, start + size, layer, list);

        if (r != -ENOTTY && r != -EINVAL)
                return r;
        list->count = before; /* an older kernel */
        return scan_entries(pagemap_fd, start, size, layer, list);
}
