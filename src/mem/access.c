/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an access finds its bytes, cached and not:
 *
 *      GVA --combined--------------------------------> HVA
 *      GVA --linear--> GPA --guest-physical----------> HVA      and it becomes a combined entry
 *      GVA --walk----> GPA --regions, moved pages----> HVA      and becomes entries of all three
 *
 * The bypass takes the last row each time. Why the cached rows say the same: within a section pages
 * do not move (they do while everybody is out), and what had moved before it was taken and
 * forgotten when it began; page tables are the view's matter, see access.h; and the walk's verdict
 * depends on nothing but the page tables, the space and the kind, all of which are in the tag of
 * what is found.
 *
 * Why the section must have begun before anything is taken: what is posted later than sync_enter()
 * belongs to a change that waits for this section to end.
 *
 * Loans. A disk has many requests in flight, and few generations at a time: a flush or a stop makes
 * a new one, and waits for all older ones. So a loan is not one request but all those that were
 * started in sections of one generation:
 *
 *      free --- the first of its generation: sync_lend() ---> out, count 1
 *      out  --- another one, in a section of the same generation ---> out, count + 1
 *      out  --- the last one is returned: sync_exit() ---> free
 *
 * An initiator that waits for that generation waits for all of them, as it would for each. Nothing
 * is added to what it waits for, since the section that began a later one was there before it.
 */
#include "mem/access.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/tooth.h"

static uint64_t min64(uint64_t a, uint64_t b)
{
        return a < b ? a : b;
}

void guest_access_init(struct guest_access *a, const struct guest_mem *mem,
                       struct sync_participant *part, struct tlb *tlb)
{
        *a = (struct guest_access){.mem = mem, .part = part, .tlb = tlb};
        tlb_drop(tlb); /* what was posted to somebody else is not known here */
        tlb->served = (struct sync_served){0};
}

/* --- sections --- */

/* What was cached before this section, and is not true of this machine, now. */
static void forget(struct guest_access *a)
{
        struct sync_taken taken;

        if (!a->part) { /* no one would tell */
                a->tlb->served = (struct sync_served){0};
                tlb_drop(a->tlb);
                return;
        }
        if (sync_serve(&a->tlb->served, a->part->domain))
                tlb_drop(a->tlb);
        if (sync_take(a->part, &taken))
                tlb_apply(a->tlb, &taken);
}

/* Whoever keeps this thread out may be waiting for its loans. */
static void enter(struct guest_access *a)
{
        if (a->lent) {
                if (sync_try_enter(a->part))
                        return;
                a->settle(a->settle_data);
                assert(a->lent == 0);
        }
        sync_enter(a->part);
}

void guest_access_begin(struct guest_access *a)
{
        if (a->depth > 0) {
                a->depth++;
                return;
        }
        if (a->part && !a->exclusive)
                enter(a);
        a->depth = 1;
        forget(a);
}

void guest_access_end(struct guest_access *a)
{
        assert(a->depth > 0);
        if (--a->depth == 0 && a->part && !a->exclusive)
                sync_exit(a->part);
}

void guest_access_exclusive(struct guest_access *a, bool exclusive)
{
        assert(a->depth == 0 && a->lent == 0 && a->unlent == 0);
        a->exclusive = exclusive;
}

/* --- loans --- */

void guest_access_lending(struct guest_access *a, void (*settle)(void *data), void *data)
{
        a->settle = settle;
        a->settle_data = data;
        for (unsigned i = 0; a->part && i < GUEST_ACCESS_LOANS; i++)
                sync_join(a->part->domain, &a->loans[i].part, NULL, NULL);
}

void guest_access_lending_end(struct guest_access *a)
{
        assert(a->lent == 0);
        for (unsigned i = 0; i < GUEST_ACCESS_LOANS; i++)
                sync_leave(&a->loans[i].part);
}

/* One that is out in this section's generation, else one that is free, else none. */
static struct guest_loan *find_loan(struct guest_access *a)
{
        struct guest_loan *free = NULL;

        for (unsigned i = 0; i < GUEST_ACCESS_LOANS; i++) {
                struct guest_loan *loan = &a->loans[i];

                if (loan->count == 0)
                        free = loan;
                else if (sync_same_generation(&loan->part, a->part))
                        return loan;
        }
        return free;
}

unsigned guest_access_lend(struct guest_access *a)
{
        struct guest_loan *loan;

        if (!a->part || a->exclusive) {
                a->unlent++;
                return GUEST_ACCESS_NO_LOAN;
        }
        assert(a->depth > 0);
        loan = find_loan(a);
        if (!loan) {
                a->settle(a->settle_data);
                loan = find_loan(a);
                assert(loan);
        }
        if (loan->count++ == 0)
                sync_lend(a->part, &loan->part);
        a->lent++;
        return (unsigned)(loan - a->loans);
}

void guest_access_return(struct guest_access *a, unsigned loan)
{
        if (loan == GUEST_ACCESS_NO_LOAN) {
                assert(a->unlent > 0);
                a->unlent--;
                return;
        }
        assert(loan < GUEST_ACCESS_LOANS && a->loans[loan].count > 0);
        a->lent--;
        if (--a->loans[loan].count == 0)
                sync_exit(&a->loans[loan].part);
}

/* --- guest-physical --- */

/* The regions' answer. Every translation that is not from the cache is made here. */
static uint8_t *look_up(const struct guest_access *a, uint64_t gpa, uint64_t len, bool write,
                        uint64_t *piece)
{
        struct guest_mem unmoved;

        if (!write || !RAMET_TOOTH_NO_DEVICE_BREAK)
                return guest_mem_span(a->mem, gpa, len, piece);
        unmoved = *a->mem;
        unmoved.moved = NULL;
        return guest_mem_span(&unmoved, gpa, len, piece);
}

static bool cached(const struct guest_access *a, bool write)
{
        return !a->bypass && (!write || !RAMET_TOOTH_NO_DEVICE_BREAK);
}

/* The whole page of @gpa, NULL when it is not RAM. Regions are made of whole pages. */
static uint8_t *page_at(struct guest_access *a, uint64_t gpa)
{
        uint64_t page = gpa & ~(uint64_t)(TLB_PAGE - 1), piece;
        uint8_t *hva = tlb_find_physical(a->tlb, page);

        if (hva)
                return hva;
        hva = look_up(a, page, TLB_PAGE, false, &piece);
        if (hva)
                tlb_add_physical(a->tlb, page, hva);
        return hva;
}

/* Its page tables may have changed, and somebody may be asking what was written. */
void guest_access_wrote(struct guest_access *a, uint64_t gpa, uint64_t len)
{
        tlb_writing(a->tlb, gpa, len);
        guest_mem_mark_dirty(a->mem, gpa, len);
}

/* Where @gpa is, and how many bytes of @len (which are RAM of one region, or no page of them is)
 * are there in one piece. */
static uint8_t *locate(struct guest_access *a, uint64_t gpa, uint64_t len, bool write,
                       uint64_t *piece)
{
        uint8_t *p;

        if (!cached(a, write))
                return look_up(a, gpa, len, write, piece);
        p = page_at(a, gpa);
        *piece = min64(len, TLB_PAGE - gpa % TLB_PAGE);
        return p ? p + gpa % TLB_PAGE : NULL;
}

/* For what stays in its page the page's translation is the check. */
static bool check(const struct guest_access *a, uint64_t gpa, uint64_t len)
{
        if (len > 0 && len <= TLB_PAGE - gpa % TLB_PAGE)
                return true;
        return guest_mem_contains(a->mem, gpa, len);
}

/* Guests and devices share words: one that is aligned is never seen half. */
static void copy_from_guest(void *buf, const uint8_t *p, size_t len)
{
        uint64_t v8;
        uint32_t v4;
        uint16_t v2;

        if (len == 8 && (uintptr_t)p % 8 == 0) {
                v8 = __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED);
                memcpy(buf, &v8, 8);
        } else if (len == 4 && (uintptr_t)p % 4 == 0) {
                v4 = __atomic_load_n((const uint32_t *)p, __ATOMIC_RELAXED);
                memcpy(buf, &v4, 4);
        } else if (len == 2 && (uintptr_t)p % 2 == 0) {
                v2 = __atomic_load_n((const uint16_t *)p, __ATOMIC_RELAXED);
                memcpy(buf, &v2, 2);
        } else {
                memcpy(buf, p, len);
        }
}

static void copy_to_guest(uint8_t *p, const void *buf, size_t len)
{
        uint64_t v8;
        uint32_t v4;
        uint16_t v2;

        if (len == 8 && (uintptr_t)p % 8 == 0) {
                memcpy(&v8, buf, 8);
                __atomic_store_n((uint64_t *)p, v8, __ATOMIC_RELAXED);
        } else if (len == 4 && (uintptr_t)p % 4 == 0) {
                memcpy(&v4, buf, 4);
                __atomic_store_n((uint32_t *)p, v4, __ATOMIC_RELAXED);
        } else if (len == 2 && (uintptr_t)p % 2 == 0) {
                memcpy(&v2, buf, 2);
                __atomic_store_n((uint16_t *)p, v2, __ATOMIC_RELAXED);
        } else {
                memcpy(p, buf, len);
        }
}

int guest_access_read(struct guest_access *a, uint64_t gpa, void *buf, size_t len)
{
        uint8_t *to = buf;
        uint64_t n = 0;
        int r = 0;

        guest_access_begin(a);
        if (!check(a, gpa, len))
                r = -EFAULT;
        for (; len > 0 && r == 0; gpa += n, to += n, len -= n) {
                const uint8_t *p = locate(a, gpa, len, false, &n);

                if (!p) {
                        r = -EFAULT;
                        break;
                }
                copy_from_guest(to, p, n);
                if (a->walking)
                        tlb_walked(a->tlb, gpa);
        }
        guest_access_end(a);
        return r;
}

/* What writes have in common: @put puts one piece where it belongs, 0 or -errno. */
struct source {
        int (*put)(struct source *s, uint8_t *p, size_t len);
        const uint8_t *buf;
        int byte, fd;
        uint64_t file_offset;
};

static int put_bytes(struct source *s, uint8_t *p, size_t len)
{
        copy_to_guest(p, s->buf, len);
        s->buf += len;
        return 0;
}

static int put_same(struct source *s, uint8_t *p, size_t len)
{
        memset(p, s->byte, len);
        return 0;
}

static int put_file(struct source *s, uint8_t *p, size_t len)
{
        int r = guest_mem_pread(s->fd, p, len, s->file_offset);

        s->file_offset += len;
        return r;
}

static int put(struct guest_access *a, uint64_t gpa, size_t len, struct source *s)
{
        uint64_t n = 0;
        int r = 0;

        guest_access_begin(a);
        if (!check(a, gpa, len))
                r = -EFAULT;
        for (; len > 0 && r == 0; gpa += n, len -= n) {
                uint8_t *p = locate(a, gpa, len, true, &n);

                if (!p) {
                        r = -EFAULT;
                        break;
                }
                r = s->put(s, p, n);
                guest_access_wrote(a, gpa, n);
        }
        guest_access_end(a);
        return r;
}

int guest_access_write(struct guest_access *a, uint64_t gpa, const void *buf, size_t len)
{
        struct source s = {.put = put_bytes, .buf = buf};

        return put(a, gpa, len, &s);
}

int guest_access_set(struct guest_access *a, uint64_t gpa, int byte, size_t len)
{
        struct source s = {.put = put_same, .byte = byte};

        return put(a, gpa, len, &s);
}

int guest_access_load(struct guest_access *a, uint64_t gpa, int fd, uint64_t file_offset,
                      size_t len)
{
        struct source s = {.put = put_file, .fd = fd, .file_offset = file_offset};

        return put(a, gpa, len, &s);
}

/* Beyond a page, a long piece is worth more than what the cache saves. */
uint8_t *guest_access_span(struct guest_access *a, uint64_t gpa, uint64_t len, bool write,
                           uint64_t *piece)
{
        assert(a->depth > 0);
        if (len == 0)
                return NULL;
        if (len > TLB_PAGE - gpa % TLB_PAGE)
                return look_up(a, gpa, len, write, piece);
        return locate(a, gpa, len, write, piece);
}

/* --- linear --- */

int guest_access_translate(struct guest_access *a, const struct guest_view *view, unsigned kind,
                           uint64_t gva, uint64_t *gpa)
{
        uint64_t page;
        int r = 0;

        assert(kind < TLB_KINDS);
        guest_access_begin(a);
        if (a->bypass) {
                r = view->walk(view, a, gva, kind, &page);
        } else if (!tlb_find_linear(a->tlb, tlb_space(a->tlb, &view->space), gva, kind, &page)) {
                a->walking = true;
                r = view->walk(view, a, gva, kind, &page);
                a->walking = false;
                if (r == 0)
                        tlb_add_linear(a->tlb, tlb_space(a->tlb, &view->space), gva, kind, page);
        }
        if (r == 0)
                *gpa = (page & ~(uint64_t)(TLB_PAGE - 1)) | gva % TLB_PAGE;
        guest_access_end(a);
        return r;
}

/* Where the byte at @gva is; those that follow it in its page are there, too. */
static int locate_gva(struct guest_access *a, const struct guest_view *view, unsigned kind,
                      uint64_t gva, bool write, uint64_t *gpa, uint8_t **p)
{
        uint64_t piece;
        int r;

        if (cached(a, write) &&
            tlb_find_combined(a->tlb, tlb_space(a->tlb, &view->space), gva, kind, gpa, p)) {
                *gpa |= gva % TLB_PAGE;
                *p += gva % TLB_PAGE;
                return 0;
        }
        r = guest_access_translate(a, view, kind, gva, gpa);
        if (r != 0)
                return r;
        *p = locate(a, *gpa, 1, write, &piece);
        if (!*p)
                return -ENXIO;
        if (cached(a, write))
                tlb_add_combined(a->tlb, tlb_space(a->tlb, &view->space), gva, kind, *gpa,
                                 *p - gva % TLB_PAGE);
        return 0;
}

int guest_access_read_gva(struct guest_access *a, const struct guest_view *view, unsigned kind,
                          uint64_t gva, void *buf, size_t len, uint64_t *failed)
{
        uint8_t *to = buf, *p;
        uint64_t n, gpa;
        int r = 0;

        assert(kind < TLB_KINDS);
        guest_access_begin(a);
        for (; len > 0 && r == 0; gva += n, to += n, len -= n) {
                n = min64(len, TLB_PAGE - gva % TLB_PAGE);
                r = locate_gva(a, view, kind, gva, false, &gpa, &p);
                if (r != 0)
                        break;
                copy_from_guest(to, p, n);
        }
        guest_access_end(a);
        if (r != 0 && failed)
                *failed = gva;
        return r;
}

int guest_access_write_gva(struct guest_access *a, const struct guest_view *view, unsigned kind,
                           uint64_t gva, const void *buf, size_t len, uint64_t *failed)
{
        const uint8_t *from = buf;
        uint64_t n, gpa;
        uint8_t *p;
        int r = 0;

        assert(kind < TLB_KINDS);
        guest_access_begin(a);
        for (; len > 0 && r == 0; gva += n, from += n, len -= n) {
                n = min64(len, TLB_PAGE - gva % TLB_PAGE);
                r = locate_gva(a, view, kind, gva, true, &gpa, &p);
                if (r != 0)
                        break;
                copy_to_guest(p, from, n);
                guest_access_wrote(a, gpa, n);
        }
        guest_access_end(a);
        if (r != 0 && failed)
                *failed = gva;
        return r;
}
