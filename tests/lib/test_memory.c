/* SPDX-License-Identifier: Apache-2.0 */
/* Guest memory: by address, by pointers, and which pages were written. */
#include "api.h"

#define PAGES (16u << 20 >> 12)
#define WORDS (PAGES / 64)

static void vm_read(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        uint8_t bytes[16] = {0};
        uint64_t v = 77;

        api_do(vm, SERVANT_FILL, 0x1122334455667788, SERVANT_AREA, 2);
        assert_int_equal(ramet_vm_read(vm, SERVANT_AREA + 4096, &v, sizeof v), 0);
        assert_true(v == 0x1122334455667788);
        assert_int_equal(ramet_vm_read(vm, SERVANT_AREA + 1, bytes, 3), 0);
        assert_int_equal(bytes[0], 0x77);
        assert_int_equal(bytes[2], 0x55);
        assert_int_equal(bytes[3], 0);
        api_fails(ramet_vm_read(vm, (16 << 20) - 4, &v, 8), -EFAULT, "0xfffffc");
        assert_true(v == 0x1122334455667788);
        api_fails(ramet_vm_read(vm, UINT64_MAX - 3, &v, 8), -EFAULT, "RAM");
        api_fails(ramet_vm_read(vm, 0, &v, SIZE_MAX), -EFAULT, "RAM");
        api_fails(ramet_vm_read(vm, 0, NULL, 8), -EINVAL, "buf");
        api_fails(ramet_vm_read(NULL, 0, &v, 8), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_write(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        const uint64_t v = 0xfeedfacecafef00d;
        struct servant_mail mail;

        assert_int_equal(ramet_vm_write(vm, SERVANT_AREA, &v, sizeof v), 0);
        api_do(vm, SERVANT_LOAD, 0, SERVANT_AREA, 8);
        api_get_mail(vm, 0, &mail);
        assert_true(mail.value == v);
        api_fails(ramet_vm_write(vm, (16 << 20) - 4, &v, 8), -EFAULT, "RAM");
        assert_true(api_word(vm, (16 << 20) - 8) == 0);
        api_fails(ramet_vm_write(vm, 0, NULL, 8), -EINVAL, "buf");
        api_fails(ramet_vm_write(NULL, 0, &v, 8), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

/* The guest's addresses are its linear ones, but where nothing is mapped. */
static void vm_read_gva(void **state)
{
        struct ramet_vm *vm = api_ready(2);
        uint64_t v = 0;

        api_do(vm, SERVANT_FILL, 4711, SERVANT_AREA, 1);
        assert_int_equal(ramet_vm_read_gva(vm, 1, SERVANT_AREA, &v, sizeof v), 0);
        assert_true(v == 4711);
        v = 0;
        api_ok(ramet_vm_pause(vm));
        assert_int_equal(ramet_vm_read_gva(vm, 0, SERVANT_AREA, &v, sizeof v), 0);
        assert_true(v == 4711);
        api_fails(ramet_vm_read_gva(vm, 0, 1ull << 46, &v, 8), -EFAULT, "0x400000000000");
        api_fails(ramet_vm_read_gva(vm, 0, 1ull << 63, &v, 8), -EFAULT, "canonical");
        api_fails(ramet_vm_read_gva(vm, 0, RAMET_DOORBELL_MMIO, &v, 8), -EFAULT, "not RAM");
        api_fails(ramet_vm_read_gva(vm, 2, SERVANT_AREA, &v, 8), -EINVAL, "vcpu: 2");
        api_fails(ramet_vm_read_gva(vm, 0, SERVANT_AREA, NULL, 8), -EINVAL, "buf");
        api_fails(ramet_vm_read_gva(NULL, 0, SERVANT_AREA, &v, 8), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_write_gva(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        const uint64_t v = 12345;

        assert_int_equal(ramet_vm_write_gva(vm, 0, SERVANT_AREA, &v, sizeof v), 0);
        assert_true(api_word(vm, SERVANT_AREA) == v);
        api_fails(ramet_vm_write_gva(vm, 0, 1ull << 46, &v, 8), -EFAULT, "0x400000000000");
        api_fails(ramet_vm_write_gva(vm, 9, SERVANT_AREA, &v, 8), -EINVAL, "vcpu: 9");
        api_fails(ramet_vm_write_gva(vm, 0, SERVANT_AREA, NULL, 8), -EINVAL, "buf");
        api_fails(ramet_vm_write_gva(NULL, 0, SERVANT_AREA, &v, 8), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void vm_translate(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        uint64_t gpa = 0;

        assert_int_equal(ramet_vm_translate(vm, 0, SERVANT_AREA + 7, &gpa), 0);
        assert_true(gpa == SERVANT_AREA + 7);
        api_ok(ramet_vm_pause(vm));
        assert_int_equal(ramet_vm_translate(vm, 0, RAMET_DOORBELL_MMIO, &gpa), 0);
        assert_true(gpa == RAMET_DOORBELL_MMIO);
        api_fails(ramet_vm_translate(vm, 0, 1ull << 46, &gpa), -EFAULT, "0x400000000000");
        api_fails(ramet_vm_translate(vm, 0, 1ull << 63, &gpa), -EFAULT, "canonical");
        api_fails(ramet_vm_translate(vm, 1, SERVANT_AREA, &gpa), -EINVAL, "vcpu: 1");
        api_fails(ramet_vm_translate(vm, 0, SERVANT_AREA, NULL), -EINVAL, "gpa");
        api_fails(ramet_vm_translate(NULL, 0, SERVANT_AREA, &gpa), -EINVAL, "machine");
        assert_true(gpa == RAMET_DOORBELL_MMIO);
        ramet_vm_destroy(vm);
}

static void linear_addresses_of_a_machine_that_runs(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        const uint64_t stop = 1;
        struct ramet_vm_event e;

        api_order(vm, 0, SERVANT_SPIN, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0);
        /* it is stopped meanwhile, and goes on: else this would not end it */
        api_ok(ramet_vm_write_gva(vm, 0, SERVANT_MAIL + offsetof(struct servant_mail, stop), &stop,
                                  sizeof stop));
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        ramet_vm_destroy(vm);
}

static void vm_begin(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        struct ramet_template *tmpl;
        struct ramet_vm_event e;
        void *p = &p;
        uint64_t v = 5;

        api_fails(ramet_vm_begin(NULL), -EINVAL, "machine");
        api_fails(ramet_vm_end(vm), -EINVAL, "begin");
        api_fails(ramet_vm_span(vm, 0, 8, false, &p), -EINVAL, "begin");
        assert_int_equal(ramet_vm_begin(vm), 0);
        api_fails(ramet_vm_begin(vm), -EBUSY, "begin");
        api_fails(ramet_vm_pause(vm), -EBUSY, "begin");
        api_fails(ramet_vm_next(vm, 0, &e), -EBUSY, "begin");
        api_fails(ramet_vm_freeze(vm, "", &tmpl), -EBUSY, "begin");
        api_ok(ramet_vm_write(vm, SERVANT_AREA, &v, sizeof v));
        assert_true(api_word(vm, SERVANT_AREA) == 5);
        assert_int_equal(ramet_vm_span(vm, SERVANT_AREA, 8, true, &p), 0);
        assert_int_equal(*(uint64_t *)p, 5);
        *(uint64_t *)p = 6;
        assert_true(api_word(vm, SERVANT_AREA) == 6);
        api_ok(ramet_vm_span(vm, 0, 16 << 20, false, &p)); /* all of it, in one piece */
        assert_int_equal(*(uint64_t *)((char *)p + SERVANT_AREA), 6);
        p = &p;
        api_fails(ramet_vm_span(vm, (16 << 20) - 8, 9, false, &p), -EFAULT, "RAM");
        api_fails(ramet_vm_span(vm, 0, 0, false, &p), -EINVAL, "len");
        api_fails(ramet_vm_span(vm, 0, 8, false, NULL), -EINVAL, "pointer");
        assert_ptr_equal(p, &p);
        assert_int_equal(ramet_vm_end(vm), 0);
        api_fails(ramet_vm_end(vm), -EINVAL, "begin");
        api_ok(ramet_vm_pause(vm));
        /* also while it is paused, and destroyed in it */
        api_ok(ramet_vm_begin(vm));
        api_ok(ramet_vm_span(vm, SERVANT_AREA, 8, false, &p));
        assert_int_equal(*(uint64_t *)p, 6);
        ramet_vm_destroy(vm);
}

static bool bit(const uint64_t *bitmap, uint64_t gpa)
{
        return bitmap[gpa >> 18] >> (gpa >> 12 & 63) & 1;
}

static void vm_dirty(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        uint64_t bitmap[WORDS] = {0}, count = 0;
        const uint64_t v = 1;

        api_fails(ramet_vm_dirty_collect(vm, bitmap, WORDS, &count), -EINVAL, "");
        assert_int_equal(ramet_vm_dirty_start(vm), 0);
        api_do(vm, SERVANT_FILL, 1, SERVANT_AREA, 3);
        assert_int_equal(ramet_vm_dirty_collect(vm, bitmap, WORDS, &count), 0);
        for (unsigned i = 0; i < 3; i++)
                assert_true(bit(bitmap, SERVANT_AREA + i * 4096));
        assert_true(bit(bitmap, SERVANT_MAIL));
        assert_false(bit(bitmap, SERVANT_AREA + 3 * 4096));
        assert_true(count >= 4 && count < 64);
        /* collecting begins anew; what this program writes counts, too */
        memset(bitmap, 0, sizeof bitmap);
        api_ok(ramet_vm_write(vm, SERVANT_AREA, &v, sizeof v));
        api_ok(ramet_vm_dirty_collect(vm, bitmap, WORDS, &count));
        assert_int_equal(count, 1);
        assert_true(bit(bitmap, SERVANT_AREA));
        assert_false(bit(bitmap, SERVANT_AREA + 4096));
        /* a bitmap of a part of it: all are counted */
        memset(bitmap, 0, sizeof bitmap);
        api_ok(ramet_vm_write(vm, SERVANT_AREA, &v, sizeof v));
        api_ok(ramet_vm_write(vm, 64 * 4096, &v, sizeof v));
        api_ok(ramet_vm_dirty_collect(vm, bitmap, 2, &count));
        assert_int_equal(count, 2);
        assert_true(bit(bitmap, 64 * 4096));
        assert_int_equal(bitmap[2], 0);
        assert_int_equal(ramet_vm_dirty_collect(vm, NULL, 0, NULL), 0);
        api_fails(ramet_vm_dirty_collect(vm, NULL, 1, NULL), -EINVAL, "bitmap");
        api_fails(ramet_vm_dirty_collect(NULL, bitmap, WORDS, NULL), -EINVAL, "machine");
        api_fails(ramet_vm_dirty_start(NULL), -EINVAL, "machine");
        api_fails(ramet_vm_dirty_stop(NULL), -EINVAL, "machine");
        assert_int_equal(ramet_vm_dirty_stop(vm), 0);
        api_fails(ramet_vm_dirty_collect(vm, bitmap, WORDS, &count), -EINVAL, "");
        ramet_vm_destroy(vm);
}

static void pages_written_through_pointers_are_dirty(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        uint64_t bitmap[WORDS] = {0}, count = 0;
        void *p;

        api_ok(ramet_vm_pause(vm));
        api_ok(ramet_vm_dirty_start(vm));
        api_ok(ramet_vm_begin(vm));
        api_ok(ramet_vm_span(vm, SERVANT_AREA, 8, false, &p));
        api_ok(ramet_vm_span(vm, SERVANT_AREA + 2 * 4096 - 1, 2, true, &p));
        memset(p, 9, 2);
        api_ok(ramet_vm_end(vm));
        api_ok(ramet_vm_dirty_collect(vm, bitmap, WORDS, &count));
        assert_int_equal(count, 2);
        assert_true(bit(bitmap, SERVANT_AREA + 4096));
        assert_true(bit(bitmap, SERVANT_AREA + 8192));
        ramet_vm_destroy(vm);
}

/* With `rom` what was written is elsewhere than its neighbours. (Odd words would look like page
 * tables, which are not shared at all.) */
static void a_span_is_in_one_piece(void **state)
{
        struct ramet_vm_config config = api_config();
        struct ramet_template *tmpl;
        struct ramet_vm *vm;
        uint64_t *p = NULL;
        void *q = &p;

        config.cow = RAMET_COW_ROM;
        vm = api_vm_of(&config);
        api_until(vm, RAMET_VM_DOORBELL);
        api_do(vm, SERVANT_FILL, 70, SERVANT_AREA, 2048);
        api_ok(ramet_vm_freeze(vm, "rom", &tmpl));
        ramet_vm_destroy(vm);
        vm = api_spawn(tmpl);
        ramet_template_release(tmpl);
        api_until(vm, RAMET_VM_DOORBELL);
        api_do(vm, SERVANT_FILL, 80, SERVANT_AREA + (1 << 20), 1);
        api_ok(ramet_vm_begin(vm));
        for (uint64_t at = SERVANT_AREA; at < SERVANT_AREA + (2 << 20); at += 4096) {
                api_ok(ramet_vm_span(vm, at, 4096, false, (void **)&p));
                assert_true(*p == (at == SERVANT_AREA + (1 << 20) ? 80 : 70));
        }
        api_fails(ramet_vm_span(vm, SERVANT_AREA, 2 << 20, false, &q), -EFAULT, "RAM");
        assert_ptr_equal(q, &p);
        api_ok(ramet_vm_end(vm));
        ramet_vm_destroy(vm);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_read", vm_read},
                {"ramet_vm_write", vm_write},
                {"ramet_vm_read_gva", vm_read_gva},
                {"ramet_vm_write_gva", vm_write_gva},
                {"ramet_vm_translate", vm_translate},
                {"ramet_vm_begin", vm_begin},
                {"ramet_vm_span", vm_begin},
                {"ramet_vm_end", vm_begin},
                {"ramet_vm_dirty_start", vm_dirty},
                {"ramet_vm_dirty_collect", vm_dirty},
                {"ramet_vm_dirty_stop", vm_dirty},
                cmocka_unit_test(linear_addresses_of_a_machine_that_runs),
                cmocka_unit_test(a_span_is_in_one_piece),
                cmocka_unit_test(pages_written_through_pointers_are_dirty),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_memory", tests, NULL, NULL);
}
