/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The map of memory slots: see slots.h. A sorted array, since a lookup by address is what all do;
 * numbers are given out again, since KVM has a table of them.
 */
#include "mem/slots.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void slots_init(struct slots *s, unsigned max,
                int (*set)(void *data, unsigned id, uint64_t gpa, uint64_t size, void *hva,
                           uint32_t flags, struct err *err),
                void *set_data)
{
        *s = (struct slots){.max = max, .set = set, .set_data = set_data};
}

void slots_fini(struct slots *s)
{
        free(s->items);
        free(s->free_ids);
        *s = (struct slots){0};
}

static uint64_t end_of(const struct slot *slot)
{
        return slot->gpa + slot->size;
}

/* The first slot that ends behind @gpa. */
static size_t first_from(const struct slots *s, uint64_t gpa)
{
        size_t low = 0, high = s->count;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (end_of(&s->items[mid]) <= gpa)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

const struct slot *slots_find(const struct slots *s, uint64_t gpa)
{
        size_t i = first_from(s, gpa);

        return i < s->count && s->items[i].gpa <= gpa ? &s->items[i] : NULL;
}

size_t slots_count(const struct slots *s, uint64_t gpa, uint64_t size)
{
        return size ? first_from(s, gpa + size - 1) - first_from(s, gpa) +
                               (slots_find(s, gpa + size - 1) != NULL)
                    : 0;
}

static int make_room(struct slots *s, size_t more, struct err *err)
{
        size_t cap = s->cap ? s->cap : 16;
        struct slot *items;
        unsigned *ids;

        while (cap < s->count + more)
                cap *= 2;
        if (cap == s->cap)
                return 0;
        items = realloc(s->items, cap * sizeof *items);
        if (items)
                s->items = items;
        ids = realloc(s->free_ids, cap * sizeof *ids);
        if (ids)
                s->free_ids = ids;
        if (!items || !ids)
                return err_host(err, ENOMEM, "no memory for a map of %zu memory slots", cap);
        s->cap = cap;
        return 0;
}

static int call(struct slots *s, const struct slot *slot, uint64_t size, struct err *err)
{
        s->calls++;
        return s->set(s->set_data, slot->id, slot->gpa, size, slot->hva, slot->flags, err);
}

/* Delete slots [from, to) and take them out of the map. */
static int drop(struct slots *s, size_t from, size_t to, struct err *err)
{
        size_t i = from;
        int r = 0;

        for (; i < to; i++) {
                if (s->deleting)
                        s->deleting(s->deleting_data, &s->items[i]);
                r = call(s, &s->items[i], 0, err);
                if (r < 0)
                        break;
                s->free_ids[s->nfree++] = s->items[i].id;
        }
        memmove(&s->items[from], &s->items[i], (s->count - i) * sizeof s->items[0]);
        s->count -= i - from;
        return r;
}

static void set_log(const struct slots *s, struct slot *slot)
{
        slot->flags &= ~(uint32_t)KVM_MEM_LOG_DIRTY_PAGES;
        if (s->log && !(slot->flags & KVM_MEM_READONLY))
                slot->flags |= KVM_MEM_LOG_DIRTY_PAGES;
}

/* Make @slot, at place @at of the map. There is room. */
static int add(struct slots *s, size_t at, struct slot slot, struct err *err)
{
        bool used = s->nfree > 0;
        int r;

        set_log(s, &slot);
        slot.id = used ? s->free_ids[s->nfree - 1] : s->next_id;
        r = call(s, &slot, slot.size, err);
        if (r < 0)
                return r;
        if (used)
                s->nfree--;
        else
                s->next_id++;
        memmove(&s->items[at + 1], &s->items[at], (s->count - at) * sizeof s->items[0]);
        s->items[at] = slot;
        s->count++;
        return 0;
}

/* Put @new (NULL: nothing) in the place of [gpa, gpa + size). */
static int replace(struct slots *s, uint64_t gpa, uint64_t size, const struct slot *new,
                   struct err *err)
{
        size_t from = first_from(s, gpa), to = from;
        struct slot parts[3];
        size_t n = 0;
        int r;

        while (to < s->count && s->items[to].gpa < gpa + size)
                to++;
        if (from < to && s->items[from].gpa < gpa) {
                parts[n] = s->items[from];
                parts[n++].size = gpa - s->items[from].gpa;
        }
        if (new)
                parts[n++] = *new;
        if (from < to && end_of(&s->items[to - 1]) > gpa + size) {
                const struct slot *last = &s->items[to - 1];
                uint64_t cut = gpa + size - last->gpa;

                parts[n] = *last;
                parts[n].gpa = gpa + size;
                parts[n].size = last->size - cut;
                parts[n++].hva = last->hva + cut;
        }
        if (s->count - (to - from) + n > s->max)
                return err_host(err, ENOSPC, "this host's KVM has %u memory slots", s->max);
        r = make_room(s, n, err);
        if (r == 0)
                r = drop(s, from, to, err);
        for (size_t i = 0; i < n && r == 0; i++)
                r = add(s, from + i, parts[i], err);
        return r;
}

int slots_map(struct slots *s, uint64_t gpa, uint64_t size, uint8_t *hva, uint32_t flags,
              struct err *err)
{
        const struct slot new = {.gpa = gpa, .size = size, .hva = hva, .flags = flags};

        return replace(s, gpa, size, &new, err);
}

int slots_unmap(struct slots *s, uint64_t gpa, uint64_t size, struct err *err)
{
        return replace(s, gpa, size, NULL, err);
}

/* The one thing of a slot that KVM lets be changed in place. */
int slots_log(struct slots *s, bool on, struct err *err)
{
        int r = 0;

        s->log = on;
        for (size_t i = 0; i < s->count && r == 0; i++) {
                uint32_t had = s->items[i].flags;

                set_log(s, &s->items[i]);
                if (s->items[i].flags != had)
                        r = call(s, &s->items[i], s->items[i].size, err);
        }
        return r;
}
