/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merged answer, with a fake of KVM: slots that come and go, a log that is cleared by bits or
 * by reading, rings that fill up, writes of Ramet's own; always equal to the truth.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/dirty.h"

#define PAGE  4096ull
#define PAGES 300u /* 200 low ones, 100 above a hole */
#define LOW   200u
#define HIGH  0x100000000ull
#define IDS   64u

/* --- the fake --- */

static struct fake {
        struct slot slots[IDS]; /* by id; size 0: none */
        uint64_t log[IDS][(PAGES + 63) / 64];
        struct {
                unsigned slot;
                uint64_t page;
        } ring[64];
        unsigned nring;
        int fails;
} kvm;

static uint8_t *memory;
static struct guest_mem mem;
static struct slots slots;
static struct dirty dirty;
static bool truth[PAGES];

static int set(void *data, unsigned id, uint64_t gpa, uint64_t size, void *hva, uint32_t flags,
               struct err *err)
{
        assert_true(id < IDS);
        kvm.slots[id] = (struct slot){.gpa = gpa, .size = size, .flags = flags};
        if (size == 0)
                memset(kvm.log[id], 0, sizeof kvm.log[id]); /* what was not read is gone */
        return 0;
}

static int get(void *data, unsigned id, uint64_t *bitmap)
{
        memcpy(bitmap, kvm.log[id], (kvm.slots[id].size / PAGE + 63) / 64 * 8);
        if (data) /* no manual clearing */
                memset(kvm.log[id], 0, sizeof kvm.log[id]);
        return kvm.fails;
}

static int clear(void *data, unsigned id, uint64_t pages, const uint64_t *bitmap)
{
        assert_int_equal(pages, kvm.slots[id].size / PAGE);
        for (unsigned w = 0; w < (pages + 63) / 64; w++)
                kvm.log[id][w] &= ~bitmap[w];
        return 0;
}

static int reap(void *data, void (*page)(void *dirty, unsigned slot, uint64_t page), void *d)
{
        for (unsigned i = 0; i < kvm.nring; i++)
                page(d, kvm.ring[i].slot, kvm.ring[i].page);
        kvm.nring = 0;
        return 0;
}

static uint64_t gpa_of(unsigned page)
{
        return page < LOW ? page * PAGE : HIGH + (page - LOW) * PAGE;
}

/* A vCPU writes: KVM notes it if the slot is logged. */
static void vcpu_writes(unsigned page)
{
        const struct slot *s = slots_find(&slots, gpa_of(page));
        uint64_t n = (gpa_of(page) - s->gpa) / PAGE;

        truth[page] = true;
        if (!(kvm.slots[s->id].flags & KVM_MEM_LOG_DIRTY_PAGES))
                return;
        if (!dirty.kvm.reap) {
                kvm.log[s->id][n / 64] |= 1ull << n % 64;
                return;
        }
        if (kvm.nring == 64)
                assert_int_equal(dirty_harvest(&dirty), 0);
        kvm.ring[kvm.nring].slot = s->id;
        kvm.ring[kvm.nring++].page = n;
}

static void setup(const struct dirty_kvm *ops)
{
        struct err err;

        memset(&kvm, 0, sizeof kvm);
        memset(truth, 0, sizeof truth);
        memory = calloc(PAGES, PAGE);
        mem = (struct guest_mem){
                .nregions = 2,
                .regions = {{.gpa = 0, .size = LOW * PAGE, .hva = memory},
                            {.gpa = HIGH,
                             .size = (PAGES - LOW) * PAGE,
                             .offset = LOW * PAGE,
                             .hva = memory + LOW * PAGE}},
        };
        slots_init(&slots, IDS, set, NULL);
        for (unsigned i = 0; i < 2; i++) {
                const struct guest_region *r = &mem.regions[i];

                assert_int_equal(slots_map(&slots, r->gpa, r->size, r->hva, 0, &err), 0);
        }
        assert_int_equal(dirty_init(&dirty, &mem, &slots, ops), 0);
        assert_int_equal(dirty_start(&dirty, &err), 0);
}

static void teardown(void)
{
        dirty_fini(&dirty);
        slots_fini(&slots);
        free(memory);
}

/* --- */

static void compare(unsigned round)
{
        uint64_t bitmap[(PAGES + 63) / 64] = {0}, count, n = 0;
        struct err err;

        assert_int_equal(dirty_words(&dirty), (PAGES + 63) / 64);
        assert_int_equal(dirty_collect(&dirty, bitmap, &count, &err), 0);
        for (unsigned page = 0; page < PAGES; page++) {
                bool said = bitmap[page / 64] >> page % 64 & 1;

                if (said != truth[page])
                        fail_msg("round %u: page %u was %swritten", round, page,
                                 truth[page] ? "" : "not ");
                n += truth[page];
        }
        assert_int_equal(count, n);
        memset(truth, 0, sizeof truth);
}

/* As an engine does it: a part becomes read-only for a while, where nobody writes, and is writable
 * again in pieces. */
static void split(unsigned page)
{
        unsigned n = 1 + (unsigned)rand() % 3;
        struct err err;

        if ((page < LOW) != (page + n - 1 < LOW) || page + n > PAGES)
                n = 1;
        if (rand() % 4 == 0)
                slots_map(&slots, gpa_of(page), n * PAGE, memory, KVM_MEM_READONLY, &err);
        for (unsigned i = 0; i < n; i++)
                slots_map(&slots, gpa_of(page + i), PAGE, memory, 0, &err);
}

static void random_life(const struct dirty_kvm *ops)
{
        setup(ops);
        srand(4711);
        for (unsigned i = 0; i < 20000; i++) {
                unsigned page = (unsigned)rand() % PAGES;

                switch (rand() % 8) {
                case 0:
                        if (slots.count < IDS - 8)
                                split(page);
                        break;
                case 1:
                        if (page + 1 != LOW && page + 1 != PAGES) {
                                guest_mem_write(&mem, gpa_of(page) + PAGE - 2, "abcd", 4);
                                truth[page] = truth[page + 1] = true;
                        }
                        break;
                case 2:
                        guest_mem_set(&mem, gpa_of(page), 7, 8);
                        truth[page] = true;
                        break;
                case 3:
                        if (i % 5 == 0)
                                compare(i);
                        break;
                default:
                        vcpu_writes(page);
                }
        }
        compare(20000);
        teardown();
}

static void a_log_cleared_by_bits(void **state)
{
        random_life(&(struct dirty_kvm){.get = get, .clear = clear});
}

static void a_log_cleared_by_reading(void **state)
{
        random_life(&(struct dirty_kvm){.get = get, .data = &kvm});
}

static void rings(void **state)
{
        random_life(&(struct dirty_kvm){.reap = reap});
}

static void a_failure_loses_nothing(void **state)
{
        uint64_t bitmap[(PAGES + 63) / 64] = {0};
        struct err err;

        setup(&(struct dirty_kvm){.get = get, .clear = clear});
        vcpu_writes(3);
        guest_mem_write(&mem, gpa_of(250), "a", 1);
        kvm.fails = -EIO;
        truth[250] = true;
        assert_int_equal(dirty_collect(&dirty, bitmap, NULL, &err), -EIO);
        assert_int_equal(bitmap[0], 0);
        kvm.fails = 0;
        compare(0);
        teardown();
}

static void not_started_is_refused(void **state)
{
        uint64_t bitmap[(PAGES + 63) / 64] = {0};
        struct err err;

        setup(&(struct dirty_kvm){.get = get, .clear = clear});
        assert_int_equal(dirty_stop(&dirty, &err), 0);
        assert_int_equal(dirty_collect(&dirty, bitmap, NULL, &err), -EINVAL);
        assert_null(mem.dirty);
        for (size_t i = 0; i < slots.count; i++)
                assert_int_equal(slots.items[i].flags & KVM_MEM_LOG_DIRTY_PAGES, 0);
        teardown();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_log_cleared_by_bits),
                cmocka_unit_test(a_log_cleared_by_reading),
                cmocka_unit_test(rings),
                cmocka_unit_test(a_failure_loses_nothing),
                cmocka_unit_test(not_started_is_refused),
        };

        return cmocka_run_group_tests_name("dirty", tests, NULL, NULL);
}
