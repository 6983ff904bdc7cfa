/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three set-associative arrays, and tags that make forgetting cheap. A tag is a number that is
 * given out once: `root` for where guest-physical memory is, one for each address space. An entry
 * holds while its numbers are the current ones, so that
 *
 *      SYNC_CURRENT   is a new root number: guest-physical and combined entries are no more;
 *      SYNC_GUEST     is giving up the numbers of all spaces: linear and combined ones are no more;
 *      tlb_drop()     is both.
 *
 * None of these looks at an entry; only a range does. At a number a nanosecond 64 bits last 580
 * years, so that a number never comes back to an entry that was forgotten with it.
 */
#include "mem/tlb.h"

#include <string.h>

static uint64_t page_of(uint64_t address)
{
        return address & ~(uint64_t)(TLB_PAGE - 1);
}

static unsigned set_of(uint64_t address)
{
        return (unsigned)(address / TLB_PAGE % TLB_SETS);
}

void tlb_init(struct tlb *t)
{
        t->root = ++t->number;
}

/* --- forgetting --- */

static void drop_spaces(struct tlb *t)
{
        for (unsigned i = 0; i < TLB_SPACES; i++)
                t->spaces[i].number = 0;
        memset(t->walked, 0, sizeof t->walked);
        t->walked_any = false;
}

static void drop_root(struct tlb *t)
{
        t->combined_any = false;
        t->root = ++t->number;
}

void tlb_drop(struct tlb *t)
{
        drop_spaces(t);
        drop_root(t);
        t->stats.drops++;
}

void tlb_flush(struct tlb *t, uint32_t kinds)
{
        if (kinds & SYNC_CURRENT) {
                drop_root(t);
                t->stats.current++;
        }
        if (kinds & SYNC_GUEST) {
                drop_spaces(t);
                t->stats.guest++;
        }
}

/* Guest-physical entries are where their address says; combined ones may be anywhere, but most
 * threads have none. */
void tlb_flush_range(struct tlb *t, uint64_t gpa, uint64_t len)
{
        uint64_t first = page_of(gpa), last, sets;

        if (len == 0)
                return;
        last = len - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + len - 1;
        sets = (last - first) / TLB_PAGE + 1;
        for (uint64_t i = 0; i < sets && i < TLB_SETS; i++) {
                struct tlb_physical *set = t->physical[set_of(first + i * TLB_PAGE)];

                for (unsigned w = 0; w < TLB_WAYS; w++) {
                        if (set[w].gpa >= first && set[w].gpa <= last)
                                set[w].root = 0;
                }
        }
        for (unsigned s = 0; s < TLB_SETS && t->combined_any; s++) {
                for (unsigned w = 0; w < TLB_WAYS; w++) {
                        struct tlb_combined *c = &t->combined[s][w];

                        if (c->gpa >= first && c->gpa <= last)
                                c->root = 0;
                }
        }
        t->stats.ranges++;
}

void tlb_apply(struct tlb *t, const struct sync_taken *taken)
{
        tlb_flush(t, taken->kinds);
        for (unsigned i = 0; i < taken->nranges; i++)
                tlb_flush_range(t, taken->ranges[i].gpa, taken->ranges[i].len);
}

/* --- page tables that this thread itself changes --- */

static unsigned walked_bit(uint64_t gpa)
{
        return (unsigned)(gpa / TLB_PAGE * 0x9e3779b97f4a7c15u >>
                          55); /* Fibonacci hashing, 9 bits */
}

void tlb_walked(struct tlb *t, uint64_t gpa)
{
        unsigned bit = walked_bit(gpa);

        t->walked[bit / 64] |= 1ull << bit % 64;
        t->walked_any = true;
}

void tlb_writing(struct tlb *t, uint64_t gpa, uint64_t len)
{
        uint64_t pages = (gpa % TLB_PAGE + len + TLB_PAGE - 1) / TLB_PAGE;

        if (!t->walked_any)
                return;
        for (uint64_t i = 0; i < pages; i++) {
                unsigned bit = walked_bit(gpa + i * TLB_PAGE);

                if (t->walked[bit / 64] >> bit % 64 & 1) {
                        drop_spaces(t);
                        return;
                }
        }
}

/* --- storing and finding --- */

uint64_t tlb_space(struct tlb *t, const struct tlb_space *space)
{
        unsigned i = t->last_space;

        for (unsigned n = 0; n < TLB_SPACES; n++, i = (i + 1) % TLB_SPACES) {
                const struct tlb_space *is = &t->spaces[i].is;

                if (t->spaces[i].number && is->vcpu == space->vcpu && is->run == space->run &&
                    is->tables == space->tables && is->mode == space->mode) {
                        t->last_space = i;
                        return t->spaces[i].number;
                }
        }
        i = t->next_space++ % TLB_SPACES;
        t->last_space = i;
        t->spaces[i].is = *space;
        return t->spaces[i].number = ++t->number;
}

static bool count(struct tlb *t, enum tlb_category category, bool hit)
{
        if (hit)
                t->stats.hits[category]++;
        else
                t->stats.misses[category]++;
        return hit;
}

bool tlb_find_linear(struct tlb *t, uint64_t space, uint64_t gva, unsigned kind, uint64_t *gpa)
{
        const struct tlb_linear *set = t->linear[set_of(gva)];

        for (unsigned w = 0; w < TLB_WAYS; w++) {
                const struct tlb_linear *e = &set[w];

                if (e->gva == page_of(gva) && e->space == space && e->kinds >> kind & 1) {
                        *gpa = e->gpa;
                        return count(t, TLB_LINEAR, true);
                }
        }
        return count(t, TLB_LINEAR, false);
}

/* One entry a page and space: another kind of access is added to it, if that means the same. */
void tlb_add_linear(struct tlb *t, uint64_t space, uint64_t gva, unsigned kind, uint64_t gpa)
{
        struct tlb_linear *set = t->linear[set_of(gva)], *to = &set[t->next_way++ % TLB_WAYS];
        uint32_t kinds = 0;

        for (unsigned w = 0; w < TLB_WAYS; w++) {
                if (set[w].gva != page_of(gva) || set[w].space != space)
                        continue;
                to = &set[w];
                kinds = to->gpa == page_of(gpa) ? to->kinds : 0;
                break;
        }
        *to = (struct tlb_linear){space, page_of(gva), page_of(gpa), kinds | 1u << kind};
}

uint8_t *tlb_find_physical(struct tlb *t, uint64_t gpa)
{
        const struct tlb_physical *set = t->physical[set_of(gpa)];

        for (unsigned w = 0; w < TLB_WAYS; w++) {
                if (set[w].gpa == page_of(gpa) && set[w].root == t->root) {
                        count(t, TLB_PHYSICAL, true);
                        return set[w].hva;
                }
        }
        count(t, TLB_PHYSICAL, false);
        return NULL;
}

void tlb_add_physical(struct tlb *t, uint64_t gpa, uint8_t *hva)
{
        struct tlb_physical *set = t->physical[set_of(gpa)], *to = &set[t->next_way++ % TLB_WAYS];

        for (unsigned w = 0; w < TLB_WAYS; w++) {
                if (set[w].gpa == page_of(gpa))
                        to = &set[w];
        }
        *to = (struct tlb_physical){t->root, page_of(gpa), hva};
}

bool tlb_find_combined(struct tlb *t, uint64_t space, uint64_t gva, unsigned kind, uint64_t *gpa,
                       uint8_t **hva)
{
        const struct tlb_combined *set = t->combined[set_of(gva)];

        for (unsigned w = 0; w < TLB_WAYS; w++) {
                const struct tlb_combined *e = &set[w];

                if (e->gva == page_of(gva) && e->space == space && e->root == t->root &&
                    e->kinds >> kind & 1) {
                        *gpa = e->gpa;
                        *hva = e->hva;
                        return count(t, TLB_COMBINED, true);
                }
        }
        return count(t, TLB_COMBINED, false);
}

void tlb_add_combined(struct tlb *t, uint64_t space, uint64_t gva, unsigned kind, uint64_t gpa,
                      uint8_t *hva)
{
        struct tlb_combined *set = t->combined[set_of(gva)], *to = &set[t->next_way++ % TLB_WAYS];
        uint32_t kinds = 0;

        for (unsigned w = 0; w < TLB_WAYS; w++) {
                const struct tlb_combined *e = &set[w];

                if (e->gva != page_of(gva) || e->space != space)
                        continue;
                to = &set[w];
                kinds = e->root == t->root && e->gpa == page_of(gpa) && e->hva == hva ? e->kinds
                                                                                      : 0;
                break;
        }
        t->combined_any = true;
        *to = (struct tlb_combined){
                .space = space,
                .root = t->root,
                .gva = page_of(gva),
                .gpa = page_of(gpa),
                .hva = hva,
                .kinds = kinds | 1u << kind,
        };
}
