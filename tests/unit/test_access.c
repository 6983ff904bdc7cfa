/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread's way to guest memory: bounds, sections, what is forgotten and when. Each rule has a
 * case that reads or writes an old place when it is broken, and says what it saw there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include "access_fake.h"

static struct fake f, g;
static struct tlb tlb;
static struct fake_user u, v; /* of f and g, with one cache */

static int set_up(void **state)
{
        fake_init(&f);
        fake_init(&g);
        memset(&tlb, 0, sizeof tlb);
        tlb_init(&tlb);
        fake_join(&f, &u, &tlb);
        fake_join(&g, &v, &tlb);
        return 0;
}

static int tear_down(void **state)
{
        sync_leave(&u.part);
        sync_leave(&v.part);
        fake_fini(&f);
        fake_fini(&g);
        return 0;
}

static uint64_t read8(struct fake_user *by, unsigned page)
{
        uint64_t value;

        assert_int_equal(guest_access_read(&by->a, fake_gpa(page), &value, 8), 0);
        return value;
}

static void write8(struct fake_user *by, unsigned page, uint64_t value)
{
        assert_int_equal(guest_access_write(&by->a, fake_gpa(page), &value, 8), 0);
}

static void expect_fresh(uint64_t got, uint64_t want, const char *where)
{
        if (got == want)
                return;
        printf("# stale value %#llx (%s), expected %#llx\n", (unsigned long long)got, where,
               (unsigned long long)want);
        fflush(stdout);
        fail();
}

/* --- bounds --- */

static void each_way(void (*fn)(void))
{
        for (unsigned i = 0; i < 4; i++) { /* cache empty, full, bypassed, full again */
                u.a.bypass = i == 2;
                fn();
        }
}

static void inside(void)
{
        const uint64_t end = FAKE_GPA + FAKE_PAGES / 2 * PAGE;
        uint8_t in[3 * PAGE], out[3 * PAGE];

        for (size_t i = 0; i < sizeof in; i++)
                in[i] = (uint8_t)(i * 7 + 1);
        for (size_t len = 0; len < sizeof in; len += len < 20 ? 1 : 1021) {
                uint64_t gpa = end - 2 * PAGE - len / 2;

                if (gpa + len > end)
                        gpa = end - len;
                assert_int_equal(guest_access_write(&u.a, gpa, in, len), 0);
                memset(out, 0, sizeof out);
                assert_int_equal(guest_access_read(&u.a, gpa, out, len), 0);
                assert_memory_equal(in, out, len);
                assert_int_equal(guest_access_set(&u.a, gpa, 0x5a, len), 0);
                assert_int_equal(guest_access_read(&u.a, gpa, out, len), 0);
                for (size_t i = 0; i < len; i++)
                        assert_int_equal(out[i], 0x5a);
        }
}

static void inside_is_allowed(void **state)
{
        fake_move(&f, FAKE_PAGES / 2 - 2);
        each_way(inside);
}

static void outside(void)
{
        const uint64_t end = FAKE_GPA + FAKE_PAGES / 2 * PAGE;
        const struct {
                uint64_t gpa, len;
        } bad[] = {{FAKE_GPA - 1, 1},
                   {FAKE_GPA - 1, 2},
                   {FAKE_GPA - 1, 0},
                   {0, 8},
                   {end, 1},
                   {end - 7, 8},
                   {end - PAGE, PAGE + 1},
                   {end - 2 * PAGE, 3 * PAGE},
                   {UINT64_MAX, 1},
                   {UINT64_MAX - 3, 8},
                   {UINT64_MAX - PAGE + 1, PAGE},
                   {FAKE_HIGH + FAKE_PAGES / 2 * PAGE, 8}};
        uint8_t buf[3 * PAGE];
        uint64_t n;

        memset(f.base, 0x11, 2 * FAKE_PAGES * PAGE);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                memset(buf, 0x99, sizeof buf);
                assert_int_equal(guest_access_read(&u.a, bad[i].gpa, buf, bad[i].len), -EFAULT);
                for (size_t k = 0; k < sizeof buf; k++)
                        assert_int_equal(buf[k], 0x99);
                assert_int_equal(guest_access_write(&u.a, bad[i].gpa, buf, bad[i].len), -EFAULT);
                assert_int_equal(guest_access_set(&u.a, bad[i].gpa, 1, bad[i].len), -EFAULT);
                assert_int_equal(guest_access_load(&u.a, bad[i].gpa, -1, 0, bad[i].len), -EFAULT);
                guest_access_begin(&u.a);
                assert_null(guest_access_span(&u.a, bad[i].gpa, bad[i].len, true, &n));
                guest_access_end(&u.a);
        }
        for (size_t i = 0; i < FAKE_PAGES * PAGE; i++)
                assert_int_equal(f.base[i], 0x11);
        assert_int_equal(guest_access_read(&u.a, end, buf, 0), 0);
        assert_int_equal(guest_access_read(&u.a, end - 8, buf, 8), 0);
}

static void outside_is_refused_whole(void **state)
{
        each_way(outside);
}

static void files_are_loaded(void **state)
{
        int fd = memfd_create("test", MFD_CLOEXEC);
        uint8_t out[2 * PAGE];

        assert_int_equal(pwrite(fd, "0123456789", 10, 2 * (off_t)PAGE), 10);
        fake_move(&f, 3);
        assert_int_equal(guest_access_load(&u.a, fake_gpa(3) - 4, fd, 2 * PAGE, 10), 0);
        assert_int_equal(guest_access_read(&u.a, fake_gpa(3) - 4, out, 10), 0);
        assert_memory_equal(out, "0123456789", 10);
        assert_memory_equal(fake_at(&f, 3), "456789", 6);
        assert_int_equal(guest_access_load(&u.a, fake_gpa(3), fd, 2 * PAGE, 11), -ENODATA);
        assert_int_equal(guest_access_load(&u.a, fake_gpa(3), -1, 0, 1), -EBADF);
        close(fd);
}

/* A span says where it is, whole when it lies in one piece; what was written there is marked. */
static void spans_are_in_one_piece(void **state)
{
        uint64_t n;

        fake_move(&f, 5);
        guest_access_begin(&u.a);
        for (unsigned i = 0; i < 2; i++) {
                u.a.bypass = i;
                assert_ptr_equal(guest_access_span(&u.a, fake_gpa(2) + 8, 100, false, &n),
                                 fake_at(&f, 2) + 8);
                assert_int_equal(n, 100);
                assert_ptr_equal(guest_access_span(&u.a, fake_gpa(2) + 8, 8 * PAGE, false, &n),
                                 fake_at(&f, 2) + 8);
                assert_int_equal(n, 3 * PAGE - 8);
                assert_ptr_equal(guest_access_span(&u.a, fake_gpa(5), 8 * PAGE, false, &n),
                                 fake_at(&f, 5));
                assert_int_equal(n, PAGE);
                assert_null(guest_access_span(&u.a, fake_gpa(5), 0, true, &n));
                assert_int_equal(f.dirty[0], 0);
        }
        assert_non_null(guest_access_span(&u.a, fake_gpa(2) + 8, 8 * PAGE, true, &n));
        guest_access_wrote(&u.a, fake_gpa(2) + 8, n);
        assert_int_equal(f.dirty[0], 7 << 2);
        guest_access_wrote(&u.a, fake_gpa(7) + 8, 8);
        assert_int_equal(f.dirty[0], 7 << 2 | 1 << 7);
        guest_access_end(&u.a);
}

/* Every way to write says which pages were. */
static void writes_are_marked(void **state)
{
        struct guest_view view = fake_view(0, 100);
        int fd = memfd_create("test", MFD_CLOEXEC);
        uint8_t buf[2 * PAGE] = {0};

        assert_int_equal(ftruncate(fd, PAGE), 0);
        *fake_word(&f, 100, 0) = fake_gpa(20) | 3;
        for (unsigned i = 0; i < 3; i++) {
                memset(f.dirty, 0, sizeof f.dirty);
                u.a.bypass = i == 2;
                assert_int_equal(guest_access_read(&u.a, fake_gpa(1), buf, 2 * PAGE), 0);
                assert_int_equal(f.dirty[0], 0);
                assert_int_equal(guest_access_write(&u.a, fake_gpa(2) - 1, buf, 2), 0);
                assert_int_equal(f.dirty[0], 1 << 1 | 1 << 2);
                assert_int_equal(guest_access_set(&u.a, fake_gpa(64), 0, PAGE), 0);
                assert_int_equal(f.dirty[1], 1);
                assert_int_equal(guest_access_load(&u.a, fake_gpa(4), fd, 0, PAGE), 0);
                assert_int_equal(f.dirty[0], 1 << 1 | 1 << 2 | 1 << 4);
                assert_int_equal(guest_access_write_gva(&u.a, &view, FAKE_WRITE, 8, buf, 8, NULL),
                                 0);
                assert_int_equal(f.dirty[0], 1 << 1 | 1 << 2 | 1 << 4 | 1 << 20);
        }
        close(fd);
}

/* --- sections --- */

static void sections_nest(void **state)
{
        assert_int_equal(u.part.entered, 0);
        guest_access_begin(&u.a);
        guest_access_begin(&u.a);
        assert_int_equal(u.part.entered, f.domain.generation);
        read8(&u, 1);
        guest_access_end(&u.a);
        assert_int_equal(u.part.entered, f.domain.generation);
        guest_access_end(&u.a);
        assert_int_equal(u.part.entered, 0);
        read8(&u, 1);
        assert_int_equal(u.part.entered, 0);
        assert_int_equal(guest_access_read(&u.a, 0, &(uint64_t){0}, 8), -EFAULT);
        assert_int_equal(u.part.entered, 0);
}

/* Who has stopped the machine goes on using its memory, sees its own changes, and waits for nobody.
 */
static void who_stopped_it_needs_no_section(void **state)
{
        const struct sync_range range = {.gpa = fake_gpa(1), .len = PAGE};

        *fake_word(&f, 1, 0) = 1;
        assert_int_equal(read8(&u, 1), 1);
        sync_stop(&f.domain);
        guest_access_exclusive(&u.a, true);
        assert_int_equal(read8(&u, 1), 1);
        assert_int_equal(u.part.entered, 0);
        fake_move(&f, 1);
        sync_post(&f.domain, &(struct sync_invalidation){.nranges = 1, .ranges = &range});
        expect_fresh(read8(&u, 1), 1, "by who stopped it");
        write8(&u, 1, 2);
        guest_access_exclusive(&u.a, false);
        sync_resume(&f.domain);
        assert_int_equal(read8(&u, 1), 2);
        assert_int_equal(*fake_word(&f, 1, 0), 2);
}

/* --- what is forgotten --- */

static void remapped_pages_are_found_again(void **state)
{
        for (unsigned page = 0; page < FAKE_PAGES; page++) {
                *fake_word(&f, page, 0) = page;
                assert_int_equal(read8(&u, page), page);
        }
        for (unsigned round = 0; round < 200; round++) {
                unsigned n = 1 + round % 20, first = round * 7 % (FAKE_PAGES - 20);

                /* 1 to 16 ranges, more than fit, or a coarse one */
                fake_remap(&f, first, n, round % 3 == 2 ? SYNC_CURRENT : 0);
                for (unsigned page = first; page < first + n; page++) {
                        expect_fresh(read8(&u, page), page, "remapped");
                        write8(&u, page, page);
                        expect_fresh(*fake_word(&f, page, 0), page, "written where it was");
                }
        }
        assert_true(tlb.stats.hits[TLB_PHYSICAL] > 0);
        assert_true(tlb.stats.ranges > 0);
}

/* After a coarse flush was taken, ranges are told again. */
static void ranges_after_a_coarse_flush_are_told(void **state)
{
        for (unsigned round = 0; round < 4; round++) {
                *fake_word(&f, 1, 0) = round;
                assert_int_equal(read8(&u, 1), round);
                if (round % 2)
                        fake_remap(&f, 20, 30, 0); /* more ranges than fit */
                else
                        fake_remap(&f, 20, 1, SYNC_CURRENT);
                assert_int_equal(read8(&u, 1), round);
                fake_remap(&f, 1, 1, 0);
                expect_fresh(read8(&u, 1), round, "its page was moved by a range flush");
        }
}

/* The same address in two machines, one cache, in turn: nothing of one is used for the other. */
static void another_machine_drops_the_cache(void **state)
{
        struct guest_view view = fake_view(0, 100);
        uint64_t value;

        *fake_word(&f, 1, 0) = 0xf;
        *fake_word(&g, 1, 0) = 0x9;
        *fake_word(&f, 100, 0) = fake_gpa(1) | 3;
        *fake_word(&g, 100, 0) = fake_gpa(2) | 3;
        *fake_word(&g, 2, 0) = 0x99;
        for (unsigned i = 0; i < 3; i++) {
                expect_fresh(read8(&u, 1), 0xf, "of the other machine");
                expect_fresh(read8(&v, 1), 0x9, "of the other machine");
                guest_access_read_gva(&u.a, &view, FAKE_READ, 0, &value, 8, NULL);
                expect_fresh(value, 0xf, "of the other machine, by GVA");
                guest_access_read_gva(&v.a, &view, FAKE_READ, 0, &value, 8, NULL);
                expect_fresh(value, 0x99, "of the other machine, by GVA");
                write8(&u, 1, 0xf);
                write8(&v, 1, 0x9);
                expect_fresh(*fake_word(&f, 1, 0), 0xf, "one machine's write in the other");
        }
        assert_true(tlb.stats.drops >= 12);
}

/* What was posted while the worker served another machine is not lost. */
static void posts_wait_for_the_worker(void **state)
{
        for (unsigned i = 0; i < 3; i++) {
                *fake_word(&f, 1, 0) = i;
                assert_int_equal(read8(&u, 1), i);
                read8(&v, 1);
                fake_remap(&f, 1, 1, 0);
                read8(&v, 1);
                expect_fresh(read8(&u, 1), i, "remapped while another machine was served");
        }
}

/* What a device writes is where the guest reads, though the page lies elsewhere by now. */
static void device_writes_go_where_the_page_is(void **state)
{
        struct guest_view view = fake_view(0, 100);
        uint64_t n, value = 1, *p;
        int fd = memfd_create("test", MFD_CLOEXEC);

        *fake_word(&f, 100, 0) = fake_gpa(1) | 3;
        assert_int_equal(pwrite(fd, &(uint64_t){4}, 8, 0), 8);
        for (unsigned round = 0; round < 4; round++) {
                u.a.bypass = round / 2;
                fake_remap(&f, 1, 1, 0);
                write8(&u, 1, value = 1);
                expect_fresh(*fake_word(&f, 1, 0), 1, "read by the guest after a write");
                guest_access_begin(&u.a);
                p = (uint64_t *)guest_access_span(&u.a, fake_gpa(1), 8, true, &n);
                *p = 2;
                guest_access_end(&u.a);
                expect_fresh(*fake_word(&f, 1, 0), 2, "read by the guest after a span");
                guest_access_set(&u.a, fake_gpa(1), 3, 8);
                expect_fresh(*fake_word(&f, 1, 0), 0x0303030303030303, "after a set");
                guest_access_load(&u.a, fake_gpa(1), fd, 0, 8);
                expect_fresh(*fake_word(&f, 1, 0), 4, "after a load");
                value = 5;
                guest_access_write_gva(&u.a, &view, FAKE_WRITE, 0, &value, 8, NULL);
                expect_fresh(*fake_word(&f, 1, 0), 5, "after a write by GVA");
        }
        close(fd);
}

/* --- linear addresses --- */

static uint64_t gva8(const struct guest_view *view, uint64_t gva)
{
        uint64_t value;

        assert_int_equal(guest_access_read_gva(&u.a, view, FAKE_READ, gva, &value, 8, NULL), 0);
        return value;
}

static void page_tables_are_read_anew_after_a_run(void **state)
{
        struct guest_view view = fake_view(0, 100), other = fake_view(0, 101);

        *fake_word(&f, 1, 0) = 1;
        *fake_word(&f, 2, 0) = 2;
        *fake_word(&f, 100, 7) = fake_gpa(1) | 1;
        *fake_word(&f, 101, 7) = fake_gpa(2) | 1;
        assert_int_equal(gva8(&view, 7 * PAGE), 1);
        *fake_word(&f, 100, 7) = fake_gpa(2) | 1; /* by the guest, as it runs */
        view.space.run++;
        expect_fresh(gva8(&view, 7 * PAGE), 2, "from before the guest ran");
        *fake_word(&f, 100, 7) = fake_gpa(1) | 1;
        sync_flush(&f.domain, &(struct sync_invalidation){.kinds = SYNC_GUEST});
        expect_fresh(gva8(&view, 7 * PAGE), 1, "from before SYNC_GUEST");
        expect_fresh(gva8(&other, 7 * PAGE), 2, "of other page tables");
        other = view;
        other.space.vcpu++;
        *fake_word(&f, 100, 7) = fake_gpa(2) | 1;
        expect_fresh(gva8(&other, 7 * PAGE), 2, "of another vCPU");
}

/* This thread's own writes into page tables count at once. */
static void own_writes_of_page_tables_are_seen(void **state)
{
        struct guest_view view = fake_view(0, 100);
        uint64_t entry, n, *p;

        *fake_word(&f, 100, 9) = fake_gpa(100) | 3; /* the table, mapped by itself */
        for (unsigned i = 0; i < 8; i++) {
                *fake_word(&f, 1 + i, 0) = i;
                entry = fake_gpa(1 + i) | 1;
                u.a.bypass = i == 5; /* and while the cache is not used */
                if (i % 3 == 0) {
                        guest_access_begin(&u.a);
                        p = (uint64_t *)guest_access_span(&u.a, fake_gpa(100) + 56, 8, true, &n);
                        *p = entry;
                        guest_access_wrote(&u.a, fake_gpa(100) + 56, 8);
                        guest_access_end(&u.a);
                } else if (i % 3 == 1) {
                        guest_access_write(&u.a, fake_gpa(100) + 56, &entry, 8);
                } else {
                        guest_access_write_gva(&u.a, &view, FAKE_WRITE, 9 * PAGE + 56, &entry, 8,
                                               NULL);
                }
                u.a.bypass = false;
                expect_fresh(gva8(&view, 7 * PAGE), i, "of the entry before");
        }
}

static void tables_and_pages_may_move(void **state)
{
        struct guest_view view = fake_view(0, 100);

        *fake_word(&f, 100, 7) = fake_gpa(1) | 3;
        for (unsigned i = 0; i < 8; i++) {
                *fake_word(&f, 1, 0) = i;
                assert_int_equal(gva8(&view, 7 * PAGE), i);
                fake_remap(&f, i & 1 ? 100 : 1, 1, i & 2 ? SYNC_CURRENT : 0);
                expect_fresh(gva8(&view, 7 * PAGE), i, "the page or its table has moved");
                view.space.run += i & 1;
                expect_fresh(gva8(&view, 7 * PAGE), i, "walked again");
        }
}

static void failures_say_where(void **state)
{
        struct guest_view view = fake_view(0, 100);
        uint8_t buf[3 * PAGE], out[3 * PAGE];
        uint64_t failed, gpa;

        *fake_word(&f, 100, 0) = fake_gpa(3) | 3;
        *fake_word(&f, 100, 1) = fake_gpa(1) | 1;
        *fake_word(&f, 100, 3) = 0x80000000 | 3; /* no RAM */
        memset(fake_at(&f, 3), 0x33, PAGE);
        memset(fake_at(&f, 1), 0x11, PAGE);
        memset(buf, 0x77, sizeof buf);
        for (unsigned i = 0; i < 3; i++) {
                u.a.bypass = i == 1;
                memset(out, 0, sizeof out);
                assert_int_equal(guest_access_read_gva(&u.a, &view, FAKE_READ, 0x10, out,
                                                       sizeof out, &failed),
                                 -EFAULT);
                assert_int_equal(failed, 2 * PAGE);
                assert_int_equal(out[PAGE - 0x11], 0x33);
                assert_int_equal(out[PAGE - 0x10], 0x11);
                assert_int_equal(out[2 * PAGE - 0x11], 0x11);
                assert_int_equal(out[2 * PAGE - 0x10], 0);
                assert_int_equal(
                        guest_access_write_gva(&u.a, &view, FAKE_WRITE, PAGE - 2, buf, 4, &failed),
                        -EFAULT);
                assert_int_equal(failed, PAGE);
                assert_int_equal(fake_at(&f, 1)[0], 0x11);
                assert_int_equal(fake_at(&f, 3)[PAGE - 1], 0x77);
                assert_int_equal(fake_at(&f, 3)[PAGE - 3], 0x33);
                memset(fake_at(&f, 3), 0x33, PAGE);
                assert_int_equal(
                        guest_access_read_gva(&u.a, &view, FAKE_READ, 3 * PAGE, out, 1, &failed),
                        -ENXIO);
                assert_int_equal(failed, 3 * PAGE);
                assert_int_equal(
                        guest_access_translate(&u.a, &view, FAKE_WRITE, 3 * PAGE + 5, &gpa), 0);
                assert_int_equal(gpa, 0x80000005);
                assert_int_equal(
                        guest_access_read_gva(&u.a, &view, FAKE_READ, 512 * PAGE, out, 1, &failed),
                        -EINVAL);
                assert_int_equal(
                        guest_access_read_gva(&u.a, &view, FAKE_READ, 99 * PAGE, out, 0, NULL), 0);
        }
        view.space.tables = 0x80000000;
        assert_int_equal(guest_access_read_gva(&u.a, &view, FAKE_READ, 0, out, 1, NULL), -EIO);
}

/* Memory of nobody else: nothing is kept from one section to the next. */
static void without_participants(void **state)
{
        struct fake_user lone = {0};

        guest_access_init(&lone.a, &f.mem, NULL, &tlb);
        *fake_word(&f, 1, 0) = 1;
        expect_fresh(read8(&lone, 1), 1, "first");
        fake_move(&f, 1);
        expect_fresh(read8(&lone, 1), 1, "moved");
        expect_fresh(read8(&v, 1), *fake_word(&g, 1, 0), "of memory without participants");
        guest_access_begin(&lone.a);
        read8(&lone, 1);
        tlb.stats = (struct tlb_stats){0};
        read8(&lone, 1);
        assert_int_equal(tlb.stats.hits[TLB_PHYSICAL], 1);
        lone.a.bypass = true;
        read8(&lone, 1);
        assert_int_equal(tlb.stats.hits[TLB_PHYSICAL], 1);
        assert_int_equal(tlb.stats.misses[TLB_PHYSICAL], 0);
        guest_access_end(&lone.a);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(inside_is_allowed),
                CASE(outside_is_refused_whole),
                CASE(files_are_loaded),
                CASE(spans_are_in_one_piece),
                CASE(writes_are_marked),
                CASE(sections_nest),
                CASE(who_stopped_it_needs_no_section),
                CASE(remapped_pages_are_found_again),
                CASE(ranges_after_a_coarse_flush_are_told),
                CASE(another_machine_drops_the_cache),
                CASE(posts_wait_for_the_worker),
                CASE(device_writes_go_where_the_page_is),
                CASE(page_tables_are_read_anew_after_a_run),
                CASE(own_writes_of_page_tables_are_seen),
                CASE(tables_and_pages_may_move),
                CASE(failures_say_where),
                CASE(without_participants),
        };

        return cmocka_run_group_tests_name("access", tests, NULL, NULL);
}
