/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's side of LITMUS_DEVICE: see litmus.h for the words, and device_round() in litmus_host.c
 * for the guest's side. In each round a page that nobody has written is read by both sides, so that
 * both have a translation of it; then one breaks it by writing its word, the other is told so, must
 * see that word, and writes its own word to the page that is broken already.
 */
#include "litmus_device.h"

#include <stdio.h>
#include <string.h>

#include "litmus.h"
#include "vm/machine.h"

#define HELD 2000

static bool bad(struct litmus_device *d, uint64_t gpa, uint64_t saw, uint64_t want)
{
        snprintf(d->bad, sizeof d->bad,
                 "stale: round %llu: the device read %#llx at %#llx, expected %#llx; before the "
                 "round "
                 "there was %#llx",
                 (unsigned long long)atomic_load(&d->round), (unsigned long long)saw,
                 (unsigned long long)gpa, (unsigned long long)want,
                 (unsigned long long)LITMUS_OLD(gpa));
        return false;
}

static uint64_t get(struct litmus_device *d, uint64_t gpa)
{
        uint64_t v = 0;

        if (guest_access_read(&d->access, gpa, &v, sizeof v) < 0)
                bad(d, gpa, 0, 0);
        return v;
}

static void put(struct litmus_device *d, uint64_t gpa, uint64_t v)
{
        if (guest_access_write(&d->access, gpa, &v, sizeof v) < 0)
                bad(d, gpa, 0, 0);
}

static bool must_be(struct litmus_device *d, uint64_t gpa, uint64_t want)
{
        uint64_t saw = get(d, gpa);

        return saw == want || bad(d, gpa, saw, want);
}

/* Out of the section and in again, when somebody waits for that. */
static void honour(struct litmus_device *d)
{
        if (!sync_pending(&d->part))
                return;
        guest_access_end(&d->access);
        d->left++;
        guest_access_begin(&d->access);
}

/* Until the word at @gpa of the page of words is from @low to @high; false: the test is over. */
static bool await(struct litmus_device *d, unsigned offset, uint64_t low, uint64_t high)
{
        for (;;) {
                uint64_t v = get(d, DEVICE_CONTROL + offset);

                if (v >= low && v <= high)
                        return true;
                if (atomic_load(&d->stop))
                        return false;
                honour(d);
        }
}

static bool round_of(struct litmus_device *d, uint64_t n, uint64_t last)
{
        uint64_t guest = DEVICE_PAGE(n) + DEVICE_WORD_GUEST;
        uint64_t host = DEVICE_PAGE(n) + DEVICE_WORD_HOST;

        atomic_store(&d->round, n);
        if (!must_be(d, guest, LITMUS_OLD(guest)) || !must_be(d, host, LITMUS_OLD(host)))
                return false;
        put(d, DEVICE_CONTROL + DEVICE_LOOKED, n);
        if (DEVICE_HOST_FIRST(n) && !await(d, DEVICE_GUEST_LOOKED, n, last))
                return false;
        if (!DEVICE_HOST_FIRST(n) &&
            (!await(d, DEVICE_GUEST_WROTE, n, last) || !must_be(d, guest, n)))
                return false;
        put(d, host, n);
        put(d, DEVICE_CONTROL + DEVICE_HOST_WROTE, n);
        if (DEVICE_HOST_FIRST(n) &&
            (!await(d, DEVICE_GUEST_WROTE, n, last) || !must_be(d, guest, n)))
                return false;
        return must_be(d, host, n);
}

/* Between rounds, until it is time for the next: read and write the page of the round before. The
 * section is held for a while, as by a long copy; a freeze has to wait for it. */
static bool wait_for_freezes(struct litmus_device *d, uint64_t n, uint64_t last)
{
        uint64_t page = DEVICE_PAGE(n - 1);

        while (atomic_load(&d->freezes) < n * d->freezes_wanted / last) {
                for (unsigned i = 0; i < HELD; i++) {
                        put(d, page + DEVICE_WORD_HOST, n - 1);
                        if (!must_be(d, page + DEVICE_WORD_GUEST, n - 1) ||
                            !must_be(d, page + DEVICE_WORD_HOST, n - 1))
                                return false;
                }
                if (atomic_load(&d->stop))
                        return false;
                honour(d);
        }
        return true;
}

static void *serve(void *data)
{
        struct litmus_device *d = data;
        uint64_t last = 0;

        guest_access_begin(&d->access);
        if (await(d, DEVICE_OVER, 1, 1u << 20))
                last = get(d, DEVICE_CONTROL + DEVICE_OVER);
        for (uint64_t n = 1; n <= last && !d->bad[0]; n++) {
                if ((n > 1 && !wait_for_freezes(d, n, last)) || !round_of(d, n, last))
                        break;
                honour(d);
        }
        guest_access_end(&d->access);
        return NULL;
}

void litmus_device_start(struct litmus_device *d, struct vm *vm, uint64_t freezes_wanted)
{
        memset(d, 0, sizeof *d);
        d->vm = vm;
        d->freezes_wanted = freezes_wanted;
        sync_join(&vm->sync, &d->part, NULL, NULL);
        tlb_init(&d->tlb);
        guest_access_init(&d->access, &vm->mem, &d->part, &d->tlb);
        pthread_create(&d->thread, NULL, serve, d);
}

void litmus_device_end(struct litmus_device *d)
{
        atomic_store(&d->stop, true);
        pthread_join(d->thread, NULL);
        sync_leave(&d->part);
}
