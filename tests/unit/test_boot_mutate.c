/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Valid images with corrupted headers, tens of thousands of them, from a fixed seed. Whatever comes
 * of one, boot_load() returns, says why when it refuses, writes nothing outside guest memory (the
 * address sanitizer watches its ends) nor where no image may load, and when it accepts, the entry
 * is in RAM. MUTATE_SEED and MUTATE_ROUNDS in the environment choose others.
 */
#include "boot_images.h"

#define RAM_BYTES (4 * MIB)

static uint64_t rng;

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016) */
static uint64_t next(void)
{
        rng ^= rng >> 12;
        rng ^= rng << 25;
        rng ^= rng >> 27;
        return rng * 0x2545f4914f6cdd1dull;
}

static unsigned long setting(const char *name, unsigned long otherwise)
{
        const char *s = getenv(name);

        return s ? strtoul(s, NULL, 0) : otherwise;
}

/* Numbers at which checks break: around the borders of types, files, memory and structures. */
static uint64_t nasty(void)
{
        static const uint64_t borders[] = {
                0,
                1,
                8,
                0x10,
                0x20,
                0x34,
                0x40,
                0x500,
                0x1000,
                0x2000,
                0x2200,
                0x7000,
                0x8000,
                0x9000,
                0xf000,
                0x20000,
                0x9fc00,
                0xa0000,
                0xe0000,
                0xff000,
                0x100000,
                0x200000,
                RAM_BYTES,
                0x7fffffff,
                1ull << 31,
                0xfffff000,
                0xffffffff,
                1ull << 32,
                1ull << 63,
                INT64_MAX,
                UINT64_MAX,
                UINT64_MAX - 0xfff,
                UINT64_MAX - 0xff000,
                ELF_NOTE,
                0xffff,
        };
        uint64_t v = borders[next() % (sizeof borders / sizeof borders[0])];

        switch (next() % 4) {
        case 0:
                return v + next() % 17 - 8;
        case 1:
                return v - borders[next() % (sizeof borders / sizeof borders[0])];
        case 2:
                return next() >> next() % 64;
        default:
                return v;
        }
}

/* Change one to four fields of 1, 2, 4 or 8 bytes in [from, to). */
static void mutate(struct image *im, size_t from, size_t to)
{
        for (unsigned n = 1 + (unsigned)(next() % 4); n > 0; n--) {
                unsigned width = 1u << next() % 4;
                size_t at = from + next() % (to - from);
                uint64_t v = nasty();

                if (next() % 4)
                        at &= ~(size_t)(width - 1); /* mostly where fields are */
                memcpy(im->bytes + at, &v, width);
        }
        if (next() % 16 == 0)
                im->len = next() % (im->len + 1);
}

/* Nobody loads anything where there is no RAM for the guest, nor from the end of the boot page
 * tables to the command line unless as a segment; the former is checked here. */
static void check_untouched(const struct machine *m)
{
        for (uint64_t at = LAYOUT_EBDA; at < LAYOUT_BIOS_END; at += 8) {
                if (ram64(m, at) != 0xcccccccccccccccc)
                        fail_msg("0x%llx was written", (unsigned long long)at);
        }
}

static void check_outcome(struct machine *m, int ret)
{
        if (ret != 0) {
                assert_int_equal(ret, -EINVAL);
                assert_true(m->err.text[0]);
                assert_null(strchr(m->err.text, '\n'));
                return;
        }
        assert_true(guest_mem_contains(&m->mem, m->entry.rip, 1));
        assert_true(m->entry.rip < LAYOUT_EBDA || m->entry.rip >= LAYOUT_BIOS_END);
}

/* One machine and two files serve all rounds of an image. */
static void corrupt(void (*make)(struct image *), const size_t areas[][2], unsigned nareas)
{
        unsigned long rounds = setting("MUTATE_ROUNDS", 10000), accepted = 0;
        struct machine m;
        struct image im;

        rng = setting("MUTATE_SEED", 0x52414d4554);
        machine_init(&m, RAM_BYTES);
        make(&im);
        machine_kernel(&m, im.bytes, im.len);
        machine_initramfs(&m, "initramfs", 9);
        for (unsigned long i = 0; i < rounds; i++) {
                const size_t *area = areas[next() % nareas];
                int ret;

                make(&im);
                mutate(&im, area[0], area[1]);
                assert_int_equal(ftruncate(m.kernel_fd, (off_t)im.len), 0);
                assert_int_equal(pwrite(m.kernel_fd, im.bytes, im.len, 0), (ssize_t)im.len);
                m.err.text[0] = 0;
                ret = machine_boot(&m);
                check_outcome(&m, ret);
                accepted += ret == 0;
                if (i % 64 == 0)
                        check_untouched(&m);
        }
        check_untouched(&m);
        /* Both outcomes are common, or the test tests little. */
        assert_in_range(accepted, rounds / 50, rounds - rounds / 50);
        machine_fini(&m);
}

static void make_elf64(struct image *im)
{
        image_elf64(im);
}

static void make_pvh(struct image *im)
{
        image_pvh(im);
}

static void make_multiboot(struct image *im)
{
        image_multiboot(im, 3);
}

static void make_kludge(struct image *im)
{
        image_kludge(im);
}

static void make_bzimage(struct image *im)
{
        image_bzimage(im);
}

static void corrupt_elf64(void **state)
{
        static const size_t areas[][2] = {{0, 64}, {64, 64 + 2 * 56}, {64, 64 + 2 * 56}};

        corrupt(make_elf64, areas, 3);
}

static void corrupt_pvh(void **state)
{
        static const size_t areas[][2] = {
                {0, 64}, {64, 64 + 3 * 56}, {64, 64 + 3 * 56}, {ELF_NOTE, ELF_NOTE + 0x30}};

        corrupt(make_pvh, areas, 4);
}

static void corrupt_multiboot(void **state)
{
        static const size_t areas[][2] = {{0, 52}, {52, 52 + 2 * 32}, {MB_AT, MB_AT + 12}};

        corrupt(make_multiboot, areas, 3);
}

static void corrupt_kludge(void **state)
{
        static const size_t areas[][2] = {{KLUDGE_AT + 12, KLUDGE_AT + 32}};

        corrupt(make_kludge, areas, 1);
}

static void corrupt_bzimage(void **state)
{
        static const size_t areas[][2] = {{0x1f1, 0x268}};

        corrupt(make_bzimage, areas, 1);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(corrupt_elf64),     cmocka_unit_test(corrupt_pvh),
                cmocka_unit_test(corrupt_multiboot), cmocka_unit_test(corrupt_kludge),
                cmocka_unit_test(corrupt_bzimage),
        };

        return cmocka_run_group_tests_name("boot_mutate", tests, NULL, NULL);
}
