/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merged answer: see dirty.h. Everything that KVM tells goes first into `pages`, a bitmap by
 * offset, because slots come and go (engine `rom`) while pages stay where they are.
 *
 * Why no write is lost between two answers. KVM clears a bit and write-protects the page in one
 * step (KVM_CLEAR_DIRTY_LOG, only those bits that were read; or KVM_GET_DIRTY_LOG itself; or
 * KVM_RESET_DIRTY_RINGS, after the entry was read), so a later write sets it anew. Ramet's own
 * writes set their bit after the bytes, and collect() takes the bits with an exchange before the
 * caller looks at the bytes: a write whose bit comes too late for one answer is in the next.
 */
#include "mem/dirty.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096ull

int dirty_init(struct dirty *d, struct guest_mem *mem, struct slots *slots,
               const struct dirty_kvm *kvm)
{
        *d = (struct dirty){.kvm = *kvm, .mem = mem, .slots = slots};
        pthread_mutex_init(&d->lock, NULL);
        for (unsigned i = 0; i < mem->nregions; i++) {
                uint64_t end = mem->regions[i].offset + mem->regions[i].size;

                if (end / PAGE > d->npages)
                        d->npages = end / PAGE;
        }
        d->pages = calloc(dirty_words(d), 8);
        d->scratch = calloc(dirty_words(d), 8);
        d->vmm = calloc(dirty_words(d), 8);
        if (d->pages && d->scratch && d->vmm)
                return 0;
        dirty_fini(d);
        return -ENOMEM;
}

void dirty_fini(struct dirty *d)
{
        if (!d->mem)
                return;
        if (d->mem->dirty == d->vmm)
                d->mem->dirty = NULL;
        if (d->slots->deleting_data == d) {
                d->slots->deleting = NULL;
                d->slots->deleting_data = NULL;
        }
        free(d->pages);
        free(d->scratch);
        free(d->vmm);
        pthread_mutex_destroy(&d->lock);
        *d = (struct dirty){0};
}

size_t dirty_words(const struct dirty *d)
{
        return (d->npages + 63) / 64;
}

/* --- from a page of a slot to a bit --- */

static void mark(struct dirty *d, uint64_t gpa)
{
        for (unsigned i = 0; i < d->mem->nregions; i++) {
                const struct guest_region *r = &d->mem->regions[i];

                if (gpa >= r->gpa && gpa - r->gpa < r->size) {
                        uint64_t page = (r->offset + (gpa - r->gpa)) / PAGE;

                        d->pages[page / 64] |= 1ull << page % 64;
                        return;
                }
        }
}

static void mark_in_slot(void *data, unsigned id, uint64_t page)
{
        struct dirty *d = data;

        for (size_t i = 0; i < d->slots->count; i++) {
                const struct slot *s = &d->slots->items[i];

                if (s->id == id && page < s->size / PAGE) {
                        mark(d, s->gpa + page * PAGE);
                        return;
                }
        }
}

static int harvest_log(struct dirty *d, const struct slot *s)
{
        uint64_t pages = s->size / PAGE;
        size_t words = (pages + 63) / 64;
        bool any = false;
        int r;

        if (!(s->flags & KVM_MEM_LOG_DIRTY_PAGES))
                return 0;
        memset(d->scratch, 0, words * 8);
        r = d->kvm.get(d->kvm.data, s->id, d->scratch);
        if (r < 0)
                return r;
        for (size_t w = 0; w < words; w++) {
                for (uint64_t bits = d->scratch[w]; bits; bits &= bits - 1) {
                        uint64_t page = w * 64 + (unsigned)__builtin_ctzll(bits);

                        if (page < pages)
                                mark(d, s->gpa + page * PAGE);
                        any = true;
                }
        }
        return any && d->kvm.clear ? d->kvm.clear(d->kvm.data, s->id, pages, d->scratch) : 0;
}

static int harvest(struct dirty *d)
{
        int r = 0;

        d->harvests++;
        if (d->kvm.reap)
                return d->kvm.reap(d->kvm.data, mark_in_slot, d);
        for (size_t i = 0; i < d->slots->count && r == 0; i++)
                r = harvest_log(d, &d->slots->items[i]);
        return r;
}

static void slot_is_deleted(void *data, const struct slot *s)
{
        struct dirty *d = data;
        int r;

        pthread_mutex_lock(&d->lock);
        r = d->kvm.reap ? harvest(d) : harvest_log(d, s);
        if (r < 0)
                d->failed = r;
        pthread_mutex_unlock(&d->lock);
}

/* --- on and off --- */

int dirty_start(struct dirty *d, struct err *err)
{
        int r;

        if (d->on)
                return 0;
        r = slots_log(d->slots, true, err);
        if (r < 0)
                return r;
        d->slots->deleting = slot_is_deleted;
        d->slots->deleting_data = d;
        d->mem->dirty = d->vmm;
        d->on = true;
        return dirty_discard(d, err);
}

int dirty_stop(struct dirty *d, struct err *err)
{
        int r, discarded;

        if (!d->on)
                return 0;
        discarded = dirty_discard(d, err); /* nobody empties the rings from now on */
        d->on = false;
        d->mem->dirty = NULL;
        d->slots->deleting = NULL;
        d->slots->deleting_data = NULL;
        r = slots_log(d->slots, false, err);
        return r < 0 ? r : discarded;
}

/* --- the answer --- */

/* All sources into `pages`. */
static int gather(struct dirty *d)
{
        int r = harvest(d);

        for (size_t w = 0; w < dirty_words(d); w++)
                d->pages[w] |= __atomic_exchange_n(&d->vmm[w], 0, __ATOMIC_SEQ_CST);
        if (r == 0)
                r = d->failed;
        d->failed = 0;
        return r;
}

int dirty_collect(struct dirty *d, uint64_t *bitmap, uint64_t *count, struct err *err)
{
        uint64_t n = 0;
        int r;

        if (!d->on)
                return err_input(err, "dirty pages of this machine are not being tracked");
        pthread_mutex_lock(&d->lock);
        r = gather(d);
        for (size_t w = 0; w < dirty_words(d) && r == 0; w++) {
                bitmap[w] |= d->pages[w];
                n += (unsigned)__builtin_popcountll(d->pages[w]);
                d->pages[w] = 0;
        }
        pthread_mutex_unlock(&d->lock);
        if (r < 0)
                return err_host(err, -r, "asking KVM for dirty pages: %s", strerror(-r));
        if (count)
                *count = n;
        return 0;
}

int dirty_discard(struct dirty *d, struct err *err)
{
        int r;

        if (!d->on)
                return 0;
        pthread_mutex_lock(&d->lock);
        r = gather(d);
        memset(d->pages, 0, dirty_words(d) * 8);
        pthread_mutex_unlock(&d->lock);
        return r < 0 ? err_host(err, -r, "asking KVM for dirty pages: %s", strerror(-r)) : 0;
}

int dirty_harvest(struct dirty *d)
{
        int r;

        pthread_mutex_lock(&d->lock);
        r = harvest(d);
        pthread_mutex_unlock(&d->lock);
        return r;
}
