/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many short lives of one machine, whose writes go anywhere: after each reset its memory is the
 * template's byte by byte, and so is its state, whether the reset has kept its pages or dropped
 * them. The machine is a clone's clone, so that its memory has layers and holes; it writes to its
 * page tables, too, and so do the host and its devices; it is frozen in between, and its dirty
 * pages are tracked for a while.
 *
 * Lives are random by a seed, which is printed when one goes wrong; KEPT_PAGES_SEED and
 * KEPT_PAGES_LIVES choose others.
 */
#include "rig.h"
#include "scribble.h"
#include "state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vm/machine.h"
#include "x86/layout.h"

#define PAGE   4096u
#define MEMORY (8u << 20)
#define PAGES  (MEMORY / PAGE)
#define LIVES  500
#define SEED   0x1234567u

static struct err err;
static struct rig parent, middle, child;
static struct template *first, *second;
static uint8_t *want; /* the memory that `second` is of */
static uint64_t seen; /* what the guest sees at the beginning of each life */
static uint64_t dice; /* xorshift's state */
static unsigned life;

static uint64_t roll(void)
{
        dice ^= dice << 13;
        dice ^= dice >> 7;
        return dice ^= dice << 17;
}

static uint64_t number(const char *name, uint64_t fallback)
{
        const char *text = getenv(name);

        return text ? strtoull(text, NULL, 0) : fallback;
}

static void promise(struct vm_options *options)
{
        options->fixed_page_tables = true;
}

static struct template *freeze(struct rig *r)
{
        struct vm_freeze_stats stats;
        struct template *t;

        if (vm_freeze(r->vm, 0, true, &t, &stats, &err) < 0)
                fail_msg("life %u: freeze: %s", life, err.text);
        return t;
}

static const uint8_t *memory(struct rig *r)
{
        uint64_t piece;
        const uint8_t *p = guest_mem_span(vm_memory(r->vm), 0, MEMORY, &piece);

        assert_int_equal(piece, MEMORY);
        return p;
}

/* But for the generation id, which is each life's own. */
static void same_memory(struct rig *r, const uint8_t *expected)
{
        const uint8_t *now = memory(r);

        for (uint64_t at = 0; at < MEMORY; at += PAGE) {
                unsigned skip = at == LAYOUT_VMGENID ? 16 : 0;

                if (memcmp(now + at + skip, expected + at + skip, PAGE - skip))
                        fail_msg("life %u: the page at %#llx is not the template's", life,
                                 (unsigned long long)at);
        }
}

/* --- a life --- */

static bool over(const struct rig *r)
{
        return r->forks > 0 || r->exited;
}

static void put_box(struct rig *r, struct scribble_box box)
{
        assert_int_equal(vm_write(r->vm, SCRIBBLE_BOX, &box, sizeof box), 0);
}

static void release(struct rig *r)
{
        r->forks = 0;
        assert_int_equal(vm_arm_fork(r->vm, true, NULL), 0);
        vm_fork_done(r->vm, 0, 1);
        vm_run(r->vm);
}

static void until_ring(struct rig *r, struct scribble_box box)
{
        put_box(r, box);
        release(r);
        rig_until(r, rig_forked, 60);
        vm_pause(r->vm);
}

/* Host and devices: at the data, or at a page table, whose entries stay what the guest can use. */
static void write_from_outside(struct rig *r)
{
        const uint64_t to = SCRIBBLE_DATA + roll() % (SCRIBBLE_PAGES * PAGE - 64);
        const uint64_t entry = (SCRIBBLE_DATA + roll() % SCRIBBLE_PAGES * PAGE) | 7;
        uint8_t bytes[64];
        void *span;

        for (unsigned i = 0; i < sizeof bytes; i++)
                bytes[i] = (uint8_t)roll();
        switch (roll() % 5) {
        case 0:
                assert_int_equal(vm_write(r->vm, to, bytes, sizeof bytes), 0);
                break;
        case 1:
                assert_int_equal(vm_write_gva(r->vm, 0, to, bytes, sizeof bytes, NULL), 0);
                break;
        case 2:
                vm_access_begin(r->vm);
                assert_int_equal(vm_access_span(r->vm, to, sizeof bytes, true, &span), 0);
                memcpy(span, bytes, sizeof bytes);
                vm_access_end(r->vm);
                break;
        case 3:
                assert_int_equal(guest_access_write(r->vm->env.mem, to, bytes, sizeof bytes), 0);
                break;
        case 4:
                assert_int_equal(
                        vm_write(r->vm, SCRIBBLE_TABLES + 3 * PAGE + roll() % SCRIBBLE_WINDOWS * 8,
                                 &entry, sizeof entry),
                        0);
                break;
        }
}

/* Few of the ends take time or what is kept of KVM's. */
static enum scribble_end choose_end(void)
{
        const unsigned n = roll() % 32;

        return n > SCRIBBLE_ROOT ? SCRIBBLE_RING : (enum scribble_end)n;
}

static void live(struct rig *r)
{
        const struct scribble_box box = {
                .seed = roll() | 1,
                .writes = roll() % 16 ? roll() % 40 : 300,
                .window_writes = roll() % 64,
                .entries = roll() % 8 ? 0 : roll() % 8,
                .end = choose_end(),
        };
        const struct timespec moment = {.tv_nsec = (long)(roll() % 2000000)};
        uint64_t saw;

        put_box(r, box);
        release(r);
        if (box.end == SCRIBBLE_RING || box.end == SCRIBBLE_FAULT)
                rig_until(r, over, 60);
        else
                nanosleep(&moment, NULL);
        vm_pause(r->vm);
        assert_int_equal(vm_read(r->vm, SCRIBBLE_BOX + offsetof(struct scribble_box, seen), &saw,
                                 sizeof saw),
                         0);
        if (saw != seen && (saw || r->forks))
                fail_msg("life %u: its windows showed another life's pages", life);
        if (box.end == SCRIBBLE_RING)
                for (unsigned i = roll() % 4; i > 0; i--)
                        write_from_outside(r);
}

/* --- around lives --- */

static void reset(struct rig *r)
{
        if (vm_reset(r->vm, &err) < 0)
                fail_msg("life %u: reset: %s", life, err.text);
        r->exited = false;
        r->forks = 0;
}

/* Every page that is not the template's has been written, and is told. */
static void expect_dirty(struct rig *r)
{
        uint64_t dirty[PAGES / 64] = {0};
        const uint8_t *now = memory(r);

        assert_int_equal(vm_dirty_words(r->vm), PAGES / 64);
        assert_int_equal(vm_dirty_collect(r->vm, dirty, NULL, &err), 0);
        for (unsigned page = 0; page < PAGES; page++)
                if (page != LAYOUT_VMGENID / PAGE &&
                    memcmp(now + page * PAGE, want + page * PAGE, PAGE) &&
                    !(dirty[page / 64] >> page % 64 & 1))
                        fail_msg("life %u: page %#x was written, and is not dirty", life, page);
}

/* Of a new life only the generation id is. */
static void expect_clean(struct rig *r)
{
        uint64_t dirty[PAGES / 64] = {0};

        assert_int_equal(vm_dirty_collect(r->vm, dirty, NULL, &err), 0);
        dirty[LAYOUT_VMGENID / PAGE / 64] &= ~(1ull << LAYOUT_VMGENID / PAGE % 64);
        for (unsigned i = 0; i < PAGES / 64; i++)
                if (dirty[i])
                        fail_msg("life %u: dirty from the beginning: %#llx of word %u", life,
                                 (unsigned long long)dirty[i], i);
}

/* A clone of the machine as it is now, at its ring. */
static void fork_it(struct rig *r)
{
        uint8_t *now = malloc(MEMORY);
        struct template *t;
        struct rig clone;

        memcpy(now, memory(r), MEMORY);
        t = freeze(r);
        rig_spawn(&clone, t, 1, 1);
        same_memory(&clone, now);
        state_expect_template(clone.vm, t);
        reset(&clone);
        same_memory(&clone, now);
        rig_free(&clone);
        template_unref(t);
        free(now);
}

static void begin(void)
{
        const struct scribble_box box = {.seed = 99, .writes = 8, .window_writes = 20};
        struct rig twin;

        rig_tune = promise;
        dice = number("KEPT_PAGES_SEED", SEED);
        rig_boot(&parent, "scribble.elf", "", 1, MEMORY, true);
        rig_until(&parent, rig_forked, 60);
        vm_pause(parent.vm);
        first = freeze(&parent);
        rig_spawn(&middle, first, 1, 1);
        until_ring(&middle, box);
        put_box(&middle, (struct scribble_box){0});
        want = malloc(MEMORY);
        memcpy(want, memory(&middle), MEMORY);
        second = freeze(&middle);
        rig_spawn(&twin, second, 1, 1);
        same_memory(&twin, want);
        until_ring(&twin, box);
        assert_int_equal(vm_read(twin.vm, SCRIBBLE_BOX + offsetof(struct scribble_box, seen), &seen,
                                 sizeof seen),
                         0);
        assert_true(seen != 0);
        rig_free(&twin);
        rig_spawn(&child, second, 1, 1);
}

static void end(void)
{
        rig_free(&child);
        rig_free(&middle);
        rig_free(&parent);
        template_unref(second);
        template_unref(first);
        free(want);
        rig_tune = NULL;
}

static void lives(void **state)
{
        const unsigned n = (unsigned)number("KEPT_PAGES_LIVES", LIVES);
        unsigned kept = 0, forks = 0;

        begin();
        for (life = 0; life < n; life++) {
                const bool tracked = child.vm->dirty.on;

                live(&child);
                if (tracked)
                        expect_dirty(&child);
                if (life % 50 == 49 && child.forks) {
                        fork_it(&child);
                        forks++;
                }
                reset(&child);
                same_memory(&child, want);
                state_expect_template(child.vm, second);
                if (tracked)
                        expect_clean(&child);
                kept += child.vm->backing.kept_bytes > 0;
                if (life % 100 == 60)
                        assert_int_equal(vm_dirty_start(child.vm, &err), 0);
                if (life % 100 == 90)
                        assert_int_equal(vm_dirty_stop(child.vm, &err), 0);
        }
        print_message("# %u lives, %u after which pages were kept, %u forks in between\n", n, kept,
                      forks);
        if (n >= LIVES)
                assert_true(kept > n / 2 && kept < n && forks > 5);
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(lives),
        };

        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("kept_pages", tests, NULL, NULL);
}
