/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine `rom`: memory that belongs to a template is in read-only memory slots, and a page that
 * the guest writes gets a new backing, at a new host address, in a slot that can be written:
 *
 *      guest    |   read-only   | w |     read-only      |  w  |  ...        memory slots
 *                      |          |          |              |
 *      base     [ layers, mapped privately ]-+--------------|----  b->hva
 *      own      [ nothing         # nothing                 #####  anonymous; own = hva + moved_by
 *
 * The write itself is an exit (KVM_EXIT_MMIO with its data, or an emulation failure), which src/vm
 * takes; it calls break_range() with the machine stopped at the barrier. A break copies the page
 * from base to own, sets its bit in guest_mem.moved, and replaces the slot. As the old backing
 * stays where it is with the bytes it had, every cached translation of the page is wrong from then
 * on, and wrong without a fault: the break posts the range, and everybody forgets it on entering.
 *
 * Ramet's own writes, a device's or those that KVM hands out as exits, go where the page is now. On
 * base the host kernel breaks them, as with `private`: KVM's read-only slot shows the result at
 * once, and a later break copies it. So no write is ever outstanding, and a machine may be frozen
 * between a write and the break that it asks for. What such a write leaves on base is dropped by
 * the break, unless it is all zeros, so that a page of the machine's own exists once.
 *
 * Slots. KVM's cost of making one grows with its size, 4 us a MiB here, so that cutting one slot
 * over all of memory would cost milliseconds a break. Memory is therefore laid out in chunks, each
 * of which starts as one slot and is cut on its own; neighbours are not merged, since the deletion
 * of a slot costs the guest the translations it has there. When KVM's slots run out, what is left
 * of the chunk in most pieces is broken at once and the chunk is one slot again: slower, never
 * wrong.
 *
 * What a break costs is its four slot calls, each of which waits for a grace period of the host's
 * kernel: 10 us, but milliseconds on a host that is busy. So a break takes a granule of 16 KiB, in
 * which the pages beside the written one cost a copy: on the test host writing all of memory took
 * 170 us a page with granules of 4 KiB, 95 with 16, 60 with 64 (`private`: 85).
 *
 * What the guest's page walks and KVM itself write is written without an exit that would tell, and
 * would be lost: src/vm/cow.c breaks those pages before the guest runs.
 *
 * In what this cannot be had: without KVM_CAP_READONLY_MEM there is no such slot; without
 * KVM_CAP_EXIT_ON_EMULATION_FAILURE the guest would get #UD for a store that KVM cannot emulate;
 * without an MSR filter nobody would say which pages KVM is to write from now on.
 */
#include "mem/cow_rom.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm/kvm.h"
#include "mem/backing.h"
#include "mem/guest_mem.h"
#include "mem/slots.h"
#include "sync/sync.h"

#define PAGE      4096ull
#define CHUNK     (2ull << 20)
#define GRANULE   (16ull << 10)
#define SLOTS_MIN 32u

struct rom {
        uint8_t *own;    /* [I] b->size bytes */
        uint64_t *moved; /* a bit a page; guest_mem looks at it, too */
        uint64_t npages; /* [I] */
        uint64_t chunk;  /* [I] bytes, a power of two */
        uint64_t granule;
        _Atomic uint64_t caught; /* [a] pages in read-only slots */
        _Atomic uint64_t breaks, compacted;
};

static unsigned limit_slots;
static uint64_t limit_granule;

void rom_limit(unsigned max_slots, uint64_t granule)
{
        limit_slots = max_slots;
        limit_granule = granule;
}

static struct rom *rom_of(const struct backing *b)
{
        return b->cow_state;
}

static bool has_moved(const struct rom *rom, uint64_t page)
{
        return rom->moved[page / 64] >> page % 64 & 1;
}

/* --- birth and death --- */

static int check_host(const struct backing *b, struct err *err)
{
        const struct cow_env *env = &b->cow_env;
        const char *missing = NULL;
        int r;

        if (!env->kvm || !env->sync || !env->mem || !env->slots)
                return err_input(err, "cow engine rom is for machines: use private");
        if (kvm_vm_has(env->kvm, KVM_CAP_READONLY_MEM) <= 0)
                missing = "READONLY_MEM";
        else if (kvm_vm_has(env->kvm, KVM_CAP_EXIT_ON_EMULATION_FAILURE) <= 0)
                missing = "EXIT_ON_EMULATION_FAILURE";
        if (missing)
                return err_host(err, ENOTSUP,
                                "cow engine rom: this host's KVM has no %s: use cow engine private",
                                missing);
        if (env->slots->max < SLOTS_MIN)
                return err_host(err, ENOTSUP,
                                "cow engine rom: this host's KVM has %u memory slots, "
                                "fewer than %u: use cow engine private",
                                env->slots->max, SLOTS_MIN);
        r = kvm_pv_msrs_exit(env->kvm);
        if (r == -ENOTSUP)
                return err_host(err, ENOTSUP,
                                "cow engine rom: this host's KVM has no X86_MSR_FILTER: "
                                "use cow engine private");
        if (r < 0)
                return err_host(err, -r, "cow engine rom: KVM_X86_SET_MSR_FILTER: %s",
                                strerror(-r));
        return 0;
}

static int create(struct backing *b, struct err *err)
{
        struct rom *rom;
        int r;

        if (limit_slots && b->cow_env.slots && limit_slots < b->cow_env.slots->max)
                b->cow_env.slots->max = limit_slots;
        r = check_host(b, err);
        if (r < 0)
                return r;
        rom = calloc(1, sizeof *rom);
        if (!rom)
                return err_host(err, ENOMEM, "no memory for cow engine rom");
        b->cow_state = rom;
        rom->npages = b->size / PAGE;
        rom->granule = limit_granule ? limit_granule : GRANULE;
        rom->chunk = CHUNK;
        while (b->size / rom->chunk > b->cow_env.slots->max / 2)
                rom->chunk *= 2;
        rom->moved = calloc(rom->npages / 64 + 1, sizeof *rom->moved);
        rom->own = mmap(NULL, b->size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (rom->own == MAP_FAILED)
                rom->own = NULL;
        if (!rom->moved || !rom->own)
                return err_host(err, ENOMEM, "no memory for cow engine rom");
        kvm_vm_zap_slots_only(b->cow_env.kvm); /* else a break costs more; it is as right */
        return 0;
}

static void destroy(struct backing *b)
{
        struct rom *rom = rom_of(b);

        if (!rom)
                return;
        if (b->cow_env.mem)
                b->cow_env.mem->moved = NULL;
        if (rom->own)
                munmap(rom->own, b->size);
        free(rom->moved);
        free(rom);
        b->cow_state = NULL;
}

/* --- slots --- */

/* The part of [offset, offset + len) that is in the region of @offset and in one chunk of it. */
static uint64_t part(const struct backing *b, uint64_t offset, uint64_t len,
                     const struct guest_region **region)
{
        const struct guest_mem *mem = b->cow_env.mem;
        uint64_t chunk = rom_of(b)->chunk, end = offset - offset % chunk + chunk;

        if (end > offset + len)
                end = offset + len;
        for (unsigned i = 0; i < mem->nregions; i++) {
                const struct guest_region *r = &mem->regions[i];

                if (offset < r->offset || offset - r->offset >= r->size)
                        continue;
                *region = r;
                if (end > r->offset + r->size)
                        end = r->offset + r->size;
        }
        return end - offset;
}

static uint64_t gpa_of(const struct guest_region *r, uint64_t offset)
{
        return r->gpa + (offset - r->offset);
}

/* Where these pages are has changed; everybody is stopped, and hears of it when entering. */
static void tell_moved(const struct backing *b, const struct sync_invalidation *inv)
{
        if (b->cow_env.sync)
                sync_post(b->cow_env.sync, inv);
}

/* Everything is as the template has it, and read-only. */
static int protect(struct backing *b, struct err *err)
{
        struct rom *rom = rom_of(b);
        struct guest_mem *mem = b->cow_env.mem;
        int r = 0;

        memset(rom->moved, 0, (rom->npages / 64 + 1) * sizeof *rom->moved);
        mem->moved = rom->moved;
        mem->moved_by = rom->own - b->hva;
        tell_moved(b, &(struct sync_invalidation){.kinds = SYNC_CURRENT});
        atomic_store(&rom->caught, rom->npages);
        for (unsigned i = 0; i < mem->nregions && r == 0; i++)
                r = slots_unmap(b->cow_env.slots, mem->regions[i].gpa, mem->regions[i].size, err);
        for (uint64_t at = 0, n; at < b->size && r == 0; at += n) {
                const struct guest_region *region = NULL;

                n = part(b, at, b->size - at, &region);
                r = slots_map(b->cow_env.slots, gpa_of(region, at), n, b->hva + at,
                              KVM_MEM_READONLY, err);
        }
        return r;
}

/* A root whose memory goes back to what it was needs its slots back, too. */
static int arm(struct backing *b, struct err *err)
{
        struct guest_mem *mem = b->cow_env.mem;
        int r = protect(b, err);

        if (r == 0)
                return 0;
        mem->moved = NULL;
        atomic_store(&rom_of(b)->caught, 0);
        for (unsigned i = 0; i < mem->nregions; i++) {
                const struct guest_region *g = &mem->regions[i];

                if (slots_unmap(b->cow_env.slots, g->gpa, g->size, NULL) < 0 ||
                    slots_map(b->cow_env.slots, g->gpa, g->size, g->hva, 0, NULL) < 0)
                        break; /* nothing more can be done; the guest will be told by KVM */
        }
        return r;
}

static bool is_zero(const uint8_t *page)
{
        return *(const uint64_t *)page == 0 && memcmp(page, page + 8, PAGE - 8) == 0;
}

static void drop_base(const struct backing *b, uint64_t from, uint64_t to)
{
        if (from < to)
                madvise(b->hva + from, to - from, MADV_DONTNEED);
}

/* Copy what has not moved yet. Own is zero where nothing was copied, and is left unallocated where
 * it shall be; base is then left, too, since zeros that were written there are the machine's own,
 * and nothing else would say so. */
static uint64_t move_pages(const struct backing *b, uint64_t offset, uint64_t len)
{
        struct rom *rom = rom_of(b);
        uint64_t n = 0, copied = offset; /* from there to here: all of it */

        for (uint64_t at = offset; at < offset + len; at += PAGE) {
                bool copy = !has_moved(rom, at / PAGE) && !is_zero(b->hva + at);

                n += !has_moved(rom, at / PAGE);
                rom->moved[at / PAGE / 64] |= 1ull << at / PAGE % 64;
                if (copy) {
                        memcpy(rom->own + at, b->hva + at, PAGE);
                        continue;
                }
                drop_base(b, copied, at);
                copied = at + PAGE;
        }
        drop_base(b, copied, offset + len);
        return n;
}

/* One slot over own, for a range within one chunk and one region. */
static int map_own(struct backing *b, uint64_t offset, uint64_t len,
                   const struct guest_region *region, struct err *err)
{
        struct rom *rom = rom_of(b);
        uint64_t n = move_pages(b, offset, len);
        const struct sync_range range = {.gpa = gpa_of(region, offset), .len = len};
        int r;

        tell_moved(b, &(struct sync_invalidation){.nranges = 1, .ranges = &range});
        r = slots_map(b->cow_env.slots, range.gpa, len, rom->own + offset, 0, err);
        if (r < 0)
                return r;
        atomic_fetch_sub(&rom->caught, n);
        atomic_fetch_add(&rom->breaks, 1);
        return 0;
}

/* The chunk in most slots becomes one, even if it is only to join them; @offset's own, when none is
 * in more than two. */
static int compact(struct backing *b, uint64_t offset, struct err *err)
{
        const struct slots *s = b->cow_env.slots;
        struct rom *rom = rom_of(b);
        const struct guest_region *region = NULL;
        uint64_t start = offset - offset % rom->chunk;
        size_t most = 2;
        uint64_t n;

        for (uint64_t at = 0; at < b->size; at += n) {
                size_t count;

                n = part(b, at, b->size - at, &region);
                count = slots_count(s, gpa_of(region, at), n);
                if (count > most) {
                        most = count;
                        start = at;
                }
        }
        n = part(b, start, b->size - start, &region);
        atomic_fetch_add(&rom->compacted, 1);
        return map_own(b, start, n, region, err);
}

static bool caught(const struct backing *b, uint64_t offset, uint64_t len)
{
        const struct rom *rom = rom_of(b);

        if (atomic_load(&rom->caught) == 0)
                return false;
        if (len == b->size)
                return true;
        for (uint64_t page = offset / PAGE; page * PAGE < offset + len; page++) {
                if (!has_moved(rom, page))
                        return true;
        }
        return false;
}

static int break_range(struct backing *b, uint64_t offset, uint64_t len, struct err *err)
{
        struct rom *rom = rom_of(b);
        uint64_t end = offset + len;

        if (!b->cow_env.mem->moved)
                return 0; /* memory is not a template's yet */
        offset -= offset % rom->granule;
        end += (rom->granule - end % rom->granule) % rom->granule;
        if (end > b->size)
                end = b->size;
        for (uint64_t n; offset < end; offset += n) {
                const struct guest_region *region = NULL;
                int r = 0;

                n = part(b, offset, end - offset, &region);
                if (!caught(b, offset, n))
                        continue;
                if (b->cow_env.slots->count + 2 > b->cow_env.slots->max)
                        r = compact(b, offset, err);
                if (r == 0 && caught(b, offset, n))
                        r = map_own(b, offset, n, region, err);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* --- what others ask --- */

static uint8_t *find(const struct backing *b, uint64_t offset, uint64_t len, uint64_t *piece)
{
        const struct rom *rom = rom_of(b);
        bool moved = has_moved(rom, offset / PAGE);
        uint64_t n = PAGE - offset % PAGE;

        while (n < len && has_moved(rom, (offset + n) / PAGE) == moved)
                n += PAGE;
        *piece = n < len ? n : len;
        return (moved ? rom->own : b->hva) + offset;
}

/* Base first: a page that moves meanwhile is then in both, and not in neither. */
static int list_own(const struct backing *b, uint32_t layer, struct extent_list *list)
{
        const struct rom *rom = rom_of(b);
        struct extent_list base = {0}, own = {0};
        int r = extent_scan_private(b->pagemap_fd, b->hva, b->size, layer, &base);

        if (r == 0)
                r = extent_scan_private(b->pagemap_fd, rom->own, b->size, layer, &own);
        if (r == 0)
                r = extent_overlay(&base, &own, list);
        extent_list_fini(&base);
        extent_list_fini(&own);
        return r;
}

static int reset(struct backing *b, struct err *err)
{
        int r;

        b->keep_bytes = 0; /* a page on base is not written again, but broken */
        r = cow_private.reset(b, err);
        if (r < 0)
                return r;
        if (madvise(rom_of(b)->own, b->size, MADV_DONTNEED) < 0)
                return err_host(err, errno, "dropping a clone's own pages: %s", strerror(errno));
        return protect(b, err);
}

void rom_stats(const struct backing *b, struct rom_stats *stats)
{
        const struct rom *rom = b->cow == &cow_rom ? rom_of(b) : NULL;

        *stats = (struct rom_stats){0};
        if (!rom)
                return;
        if (b->cow_env.mem->moved)
                stats->pages = rom->npages - atomic_load(&rom->caught);
        stats->breaks = atomic_load(&rom->breaks);
        stats->compacted = atomic_load(&rom->compacted);
        stats->slots = b->cow_env.slots->count;
}

const struct cow_engine cow_rom = {
        .name = "rom",
        .create = create,
        .destroy = destroy,
        .arm = arm,
        .break_range = break_range,
        .list_own = list_own,
        .find = find,
        .caught = caught,
        .reset = reset,
};
