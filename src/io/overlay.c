/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Overlays: making them, their bitmaps, freezing. overlay.h has the format and the rules,
 * overlay_header.c reads and writes headers.
 *
 *      overlay_make --> live: bits in memory --overlay_seal--> frozen: bits mapped from the file
 *                         ^     |  overlay_set, overlay_write_bits            ^
 *                         '-----'  overlay_empty                             overlay_open
 *
 * A sector's bit goes from 0 to 1 and never back, but by overlay_empty(). So a bitmap that lacks
 * the latest bits is the bitmap of a moment ago, and always good to have in a file.
 */
#include "io/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "io/overlay_internal.h"

#define PAGE_BITS (OVERLAY_PAGE * 8u)

int overlay_pass_fd(const struct overlay *o)
{
        return o->ro_fd >= 0 ? o->ro_fd : o->fd;
}

bool overlay_is_image(const struct overlay_id *id)
{
        static const struct overlay_id image;

        return !memcmp(id, &image, sizeof image);
}

uint64_t overlay_bitmap_bytes(uint64_t disk_bytes)
{
        uint64_t sectors = disk_bytes / OVERLAY_SECTOR;

        return (sectors + PAGE_BITS - 1) / PAGE_BITS * OVERLAY_PAGE;
}

static uint64_t bitmap_pages(const struct overlay *o)
{
        return overlay_bitmap_bytes(o->info.disk_bytes) / OVERLAY_PAGE;
}

/* --- create, open, close --- */

static struct overlay *alloc(int fd, int ro_fd, struct err *err)
{
        struct overlay *o = calloc(1, sizeof *o);

        if (o) {
                o->fd = fd;
                o->ro_fd = ro_fd;
                return o;
        }
        if (fd >= 0)
                close(fd);
        if (ro_fd >= 0)
                close(ro_fd);
        err_host(err, ENOMEM, "no memory for an overlay");
        return NULL;
}

static void destroy(struct overlay *o)
{
        if (o->bits)
                munmap(o->bits, overlay_bitmap_bytes(o->info.disk_bytes));
        if (o->fd >= 0)
                close(o->fd);
        if (o->ro_fd >= 0)
                close(o->ro_fd);
        free(o->news);
        free(o);
}

static int map_live(struct overlay *o, struct err *err)
{
        void *p = mmap(NULL, overlay_bitmap_bytes(o->info.disk_bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (p == MAP_FAILED)
                return err_host(err, errno, "map an overlay's bitmap: %s", strerror(errno));
        o->bits = p;
        o->news = calloc((bitmap_pages(o) + 63) / 64, sizeof *o->news);
        return o->news ? 0 : err_host(err, ENOMEM, "no memory for an overlay");
}

/* Private, though it is only read: a shared mapping of a descriptor that can write would keep a
 * memfd from being sealed, and a sealed one from being mapped, before Linux 6.7. */
static int map_frozen(const struct overlay *o, uint64_t **bits, struct err *err)
{
        void *p = mmap(NULL, overlay_bitmap_bytes(o->info.disk_bytes), PROT_READ, MAP_PRIVATE,
                       o->fd, OVERLAY_HEADER_BYTES);

        if (p == MAP_FAILED)
                return err_host(err, errno, "map an overlay's bitmap: %s", strerror(errno));
        *bits = p;
        return 0;
}

static int identify(struct overlay *o, struct err *err)
{
        struct stat st;

        if (fstat(o->fd, &st))
                return err_host(err, errno, "overlay: %s", strerror(errno));
        o->dev = st.st_dev;
        o->ino = st.st_ino;
        return 0;
}

static int make(struct overlay *o, const struct overlay_info *info, struct err *err)
{
        int ret;

        o->memory = o->fd < 0;
        if (!o->memory && o->ro_fd < 0)
                return err_input(err, "the file for an overlay is not open for reading only");
        if (!o->memory && flock(o->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
                return err_input(err, "the file for an overlay is in use");
        if (o->memory) {
                o->fd = memfd_create("ramet-overlay", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                if (o->fd < 0)
                        return err_host(err, errno, "memfd for an overlay: %s", strerror(errno));
        }
        o->live = true;
        ret = overlay_begin(o->fd, o->memory, info, &o->info, err);
        if (!ret)
                ret = map_live(o, err);
        if (!ret)
                ret = identify(o, err);
        o->data_offset = OVERLAY_HEADER_BYTES + overlay_bitmap_bytes(o->info.disk_bytes);
        o->unsynced = !o->memory;
        return ret;
}

int overlay_make(const struct overlay_info *info, int fd, int ro_fd, struct overlay **overlay,
                 struct err *err)
{
        struct overlay *o = alloc(fd, ro_fd, err);
        int ret;

        if (!o)
                return -ENOMEM;
        ret = make(o, info, err);
        if (ret)
                destroy(o);
        else
                *overlay = o;
        return ret;
}

/* Nobody can change it under us, or (a file) nobody who was given this descriptor. */
static int check_frozen(struct overlay *o, struct err *err)
{
        const int needed = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
        int seals = fcntl(o->fd, F_GET_SEALS), flags = fcntl(o->fd, F_GETFL);

        if (seals >= 0 && (seals & needed) == needed) {
                o->memory = true;
                return 0;
        }
        /* Files of a tmpfs come with F_SEAL_SEAL; what has less is a memfd. */
        if (seals >= 0 && !(seals & F_SEAL_SEAL))
                return err_input(err, "an overlay in memory is not sealed");
        if (flags < 0 || (flags & O_ACCMODE) != O_RDONLY)
                return err_input(err, "an overlay below the top is open for writing");
        return 0;
}

static int open_frozen(struct overlay *o, uint64_t disk_bytes, struct err *err)
{
        int ret = check_frozen(o, err);

        if (!ret)
                ret = overlay_read_info(o->fd, &o->info, err);
        if (ret)
                return ret;
        if (disk_bytes && o->info.disk_bytes != disk_bytes)
                return err_input(err, "an overlay of a disk of %llu bytes, not %llu",
                                 (unsigned long long)o->info.disk_bytes,
                                 (unsigned long long)disk_bytes);
        o->data_offset = OVERLAY_HEADER_BYTES + overlay_bitmap_bytes(o->info.disk_bytes);
        o->touched = true;
        ret = identify(o, err);
        return ret ? ret : map_frozen(o, &o->bits, err);
}

int overlay_open(int fd, uint64_t disk_bytes, struct overlay **overlay, struct err *err)
{
        struct overlay *o = alloc(fd, -1, err);
        int ret;

        if (!o)
                return -ENOMEM;
        ret = open_frozen(o, disk_bytes, err);
        if (ret)
                destroy(o);
        else
                *overlay = o;
        return ret;
}

void overlay_close(struct overlay *o)
{
        if (!o)
                return;
        if (o->live && !o->memory && o->touched)
                (void)overlay_write_bits(o, true, NULL);
        destroy(o);
}

void overlay_withdraw(struct overlay *o, int *fd, int *ro_fd)
{
        *fd = *ro_fd = -1;
        if (!o->memory && !overlay_unbegin(o->fd, o->info.name)) {
                (void)flock(o->fd, LOCK_UN);
                *fd = o->fd;
                *ro_fd = o->ro_fd;
                o->fd = o->ro_fd = -1;
        }
        destroy(o);
}

/* --- bits --- */

/* The first sector from @from on, before @end, whose bit is @set; else @end. A word at a time. */
static uint64_t scan(const uint64_t *bits, uint64_t from, uint64_t end, bool set)
{
        const uint64_t flip = set ? 0 : UINT64_MAX;

        while (from < end) {
                uint64_t word = (bits[from / 64] ^ flip) >> from % 64;

                if (word) {
                        from += (unsigned)__builtin_ctzll(word);
                        return from < end ? from : end;
                }
                from = (from / 64 + 1) * 64;
        }
        return end;
}

bool overlay_has(const struct overlay *o, uint64_t sector, uint64_t max, uint64_t *n)
{
        bool has;

        if (!o->touched) {
                *n = max;
                return false;
        }
        has = o->bits[sector / 64] >> sector % 64 & 1;
        *n = scan(o->bits, sector, sector + max, !has) - sector;
        return has;
}

int overlay_find(struct overlay *const *overlays, unsigned n, uint64_t sector, uint64_t max,
                 uint64_t *run)
{
        for (unsigned i = n; i-- > 0;)
                if (overlay_has(overlays[i], sector, max, &max)) {
                        *run = max;
                        return (int)i;
                }
        *run = max;
        return -1;
}

uint64_t overlay_next_page(const struct overlay *o, uint64_t sector)
{
        uint64_t sectors = o->info.disk_bytes / OVERLAY_SECTOR, page = sector / PAGE_BITS;
        off_t from = (off_t)(OVERLAY_HEADER_BYTES + page * OVERLAY_PAGE);
        off_t data = o->live ? from : lseek(o->fd, from, SEEK_DATA);

        if (data < 0)
                return errno == ENXIO ? sectors : sector;
        if (data <= from)
                return sector;
        page = ((uint64_t)data - OVERLAY_HEADER_BYTES) / OVERLAY_PAGE;
        return page < (sectors + PAGE_BITS - 1) / PAGE_BITS ? page * PAGE_BITS : sectors;
}

void overlay_set(struct overlay *o, uint64_t sector, uint64_t n)
{
        uint64_t end = sector + n;

        if (!n)
                return;
        for (uint64_t p = sector / PAGE_BITS; p <= (end - 1) / PAGE_BITS; p++)
                o->news[p / 64] |= 1ull << p % 64;
        o->touched = true;
        o->unsynced = !o->memory;
        while (sector < end) {
                uint64_t left = 64 - sector % 64, here = left < end - sector ? left : end - sector;

                o->bits[sector / 64] |= UINT64_MAX >> (64 - here) << sector % 64;
                sector += here;
        }
}

/* --- the file's bitmap --- */

static int write_news(struct overlay *o)
{
        uint64_t pages = bitmap_pages(o);

        for (uint64_t p = scan(o->news, 0, pages, true), end; p < pages;
             p = scan(o->news, end, pages, true)) {
                int ret;

                end = scan(o->news, p, pages, false);
                ret = file_write_at(o->fd, (uint8_t *)o->bits + p * OVERLAY_PAGE,
                                    (end - p) * OVERLAY_PAGE,
                                    OVERLAY_HEADER_BYTES + p * OVERLAY_PAGE);
                if (ret)
                        return ret;
                for (uint64_t q = p; q < end; q++)
                        o->news[q / 64] &= ~(1ull << q % 64);
        }
        return 0;
}

int overlay_write_bits(struct overlay *o, bool sync, struct err *err)
{
        int ret = 0;

        sync = sync && o->unsynced;
        if (sync && fdatasync(o->fd))
                ret = -errno;
        if (!ret)
                ret = write_news(o);
        if (!ret && sync && fdatasync(o->fd))
                ret = -errno;
        if (ret)
                return err_host(err, -ret, "write the overlay %s: %s", o->info.name,
                                strerror(-ret));
        if (sync)
                o->unsynced = false;
        return 0;
}

int overlay_take_pages(struct overlay *o, struct overlay_pages *pages)
{
        uint64_t total = bitmap_pages(o), n = 0;

        for (uint64_t i = 0; i < (total + 63) / 64; i++)
                n += (unsigned)__builtin_popcountll(o->news[i]);
        *pages = (struct overlay_pages){0};
        if (!n)
                return 0;
        pages->page = malloc(n * sizeof *pages->page);
        pages->bytes = malloc(n * OVERLAY_PAGE);
        if (!pages->page || !pages->bytes) {
                free(pages->page);
                free(pages->bytes);
                return -ENOMEM;
        }
        for (uint64_t p = scan(o->news, 0, total, true); p < total;
             p = scan(o->news, p + 1, total, true)) {
                o->news[p / 64] &= ~(1ull << p % 64);
                memcpy(pages->bytes + pages->n * OVERLAY_PAGE,
                       (uint8_t *)o->bits + p * OVERLAY_PAGE, OVERLAY_PAGE);
                pages->page[pages->n++] = p;
        }
        return 0;
}

void overlay_pages_done(struct overlay *o, struct overlay_pages *pages, bool again)
{
        for (size_t i = 0; again && o->news && i < pages->n; i++)
                o->news[pages->page[i] / 64] |= 1ull << pages->page[i] % 64;
        free(pages->page);
        free(pages->bytes);
        *pages = (struct overlay_pages){0};
}

/* --- life of a live one --- */

int overlay_empty(struct overlay *o, struct err *err)
{
        uint64_t all = OVERLAY_HEADER_BYTES, len = o->data_offset + o->info.disk_bytes - all;

        if (!o->touched)
                return 0;
        if (fallocate(o->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)all, (off_t)len) &&
            (ftruncate(o->fd, (off_t)all) || ftruncate(o->fd, (off_t)(all + len))))
                return err_host(err, errno, "empty an overlay: %s", strerror(errno));
        /* Anonymous pages read as zeros after this. */
        if (madvise(o->bits, overlay_bitmap_bytes(o->info.disk_bytes), MADV_DONTNEED))
                return err_host(err, errno, "empty an overlay: %s", strerror(errno));
        memset(o->news, 0, (bitmap_pages(o) + 63) / 64 * sizeof *o->news);
        o->touched = false;
        o->unsynced = !o->memory;
        return 0;
}

/* The kernel may hold a page for a moment by itself, which it takes for somebody's who writes. */
static int seal_memory(struct overlay *o, struct err *err)
{
        for (int i = 0;
             fcntl(o->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
             i++)
                if (errno != EBUSY || i == 3)
                        return err_host(err, errno, "seal an overlay: %s", strerror(errno));
        return 0;
}

/* A file cannot be sealed as memory can, but from now on this process cannot write it either: it is
 * in the disks of others. Reads under way are of the descriptor that stays. */
static void give_up_writing(struct overlay *o)
{
        (void)flock(o->fd, LOCK_UN);
        close(o->fd);
        o->fd = o->ro_fd;
        o->ro_fd = -1;
}

int overlay_seal(struct overlay *o, struct err *err)
{
        uint64_t *bits = NULL;
        int ret;

        if (!o->live)
                return 0;
        ret = overlay_write_bits(o, !o->memory, err);
        if (!ret && o->memory)
                ret = seal_memory(o, err);
        if (ret)
                return ret;
        if (!o->memory)
                give_up_writing(o);
        o->live = false;
        free(o->news);
        o->news = NULL;
        /* The private bitmap is as good, where the other cannot be had. */
        if (!map_frozen(o, &bits, NULL)) {
                munmap(o->bits, overlay_bitmap_bytes(o->info.disk_bytes));
                o->bits = bits;
        }
        return 0;
}
