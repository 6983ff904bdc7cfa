/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is true of every device: it keeps to the rules of its record, its windows apart from the
 * others', and no access, however strange, does more than be answered. The hostile test is
 * deterministic; run it under ASan and UBSan.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "device_fake.h"
#include "devices/virtio/virtio.h"

#define ACCESSES 1000000

static uint64_t rng;

static uint64_t rnd(void)
{
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        return rng * 0x2545f4914f6cdd1d;
}

static const struct record_rule *rule_of(uint32_t kind)
{
        const struct record_rule *rule = record_rules;

        while (rule->kind != kind && rule->kind != RECORD_END)
                rule++;
        assert_int_equal(rule->kind, kind);
        return rule;
}

static void records_are_what_the_rules_say(void **state)
{
        unsigned devices = 0, rules = 0;

        for (unsigned i = 0; device_registry[i]; i++, devices++) {
                const struct device_ops *ops = device_registry[i];
                const struct record_rule *rule = rule_of(ops->record_kind);

                assert_string_equal(rule->name, ops->name);
                assert_int_equal(rule->version, ops->record_version);
                assert_int_equal(rule->max_length, ops->record_length);
                assert_in_range(ops->record_length, rule->min_length, rule->max_length);
        }
        for (const struct record_rule *r = record_rules; r->kind != RECORD_END; r++)
                rules += r->kind >= 0x200;
        assert_int_equal(devices, rules);
}

/* Each has what it needs: a disk has an image. */
static int image = -1;

static void init(struct fake *f, const struct device_ops *ops)
{
        static struct device_disk disk;
        char path[64];

        if (image < 0) {
                image = memfd_create("image", MFD_CLOEXEC);
                assert_int_equal(ftruncate(image, 65536), 0);
        }
        fake_machine(f);
        disk = (struct device_disk){.image_fd = -1,
                                    .image_ro_fd = -1,
                                    .overlay_fd = -1,
                                    .overlay_ro_fd = -1,
                                    .name = "image"};
        f->params.disks = &disk;
        f->params.ndisks = 1;
        f->params.virtio_console = ops == &virtio_console_ops;
        if (ops == &virtio_blk_ops) {
                disk.image_fd = dup(image);
                snprintf(path, sizeof path, "/proc/self/fd/%d", image);
                disk.image_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
        }
        fake_create(f, ops);
}

/* The files of its state: of a disk that was never frozen, the image. */
static int restore(struct fake *f, const void *record, struct err *err)
{
        int r = f->ops->restore_files ? f->ops->restore_files(f->dev, &image, 1, err) : 0;

        return r < 0 ? r : f->ops->restore(f->dev, record, f->ops->record_version, err);
}

static void windows_are_apart(void **state)
{
        struct device_window all[64];
        unsigned n = 0;

        for (unsigned i = 0; device_registry[i]; i++) {
                struct fake f;

                if (device_registry[i]->slot)
                        continue; /* the machine says where */
                init(&f, device_registry[i]);
                for (unsigned w = 0; w < f.nwindows; w++) {
                        assert_true(f.windows[w].len > 0);
                        if (f.windows[w].space == DEVICE_PIO)
                                assert_true(f.windows[w].base + f.windows[w].len <= 0x10000);
                        if (f.nslots == 0) /* a slot is apart from the others, and the machine's */
                                all[n++] = f.windows[w];
                }
                fake_fini(&f);
        }
        for (unsigned i = 0; i < n; i++)
                for (unsigned j = 0; j < i; j++)
                        assert_true(all[i].space != all[j].space ||
                                    all[i].base + all[i].len <= all[j].base ||
                                    all[j].base + all[j].len <= all[i].base);
}

static void hostile_access(struct fake *f)
{
        static const unsigned widths[] = {1, 2, 4, 8};
        unsigned len = widths[rnd() % 4], window;
        uint64_t offset;
        uint8_t *data = malloc(len); /* of that size, so that ASan sees one byte too much */

        if (f->nwindows == 0)
                goto out;
        window = (unsigned)(rnd() % f->nwindows);
        offset = rnd() % f->windows[window].len;
        if (rnd() % 2 && f->windows[window].len > 32)
                offset = rnd() % 32;
        device_put(data, len, rnd() % 3 ? rnd() : rnd() % 256);
        if (rnd() % 2)
                f->ops->read(f->dev, window, offset, data, len);
        else
                f->ops->write(f->dev, window, offset, data, len);
out:
        free(data);
}

/* What is used up of a disk's limits comes back as time goes by. */
static void assert_same(const struct device_ops *ops, uint8_t *a, uint8_t *b)
{
        size_t levels = sizeof(struct virtio_record) + 24;

        if (ops == &virtio_blk_ops) {
                memset(a + levels, 0, 48);
                memset(b + levels, 0, 48);
        }
        assert_memory_equal(a, b, ops->record_length);
}

/* Save, restore into another device, save: equal. */
static void check_round_trip(struct fake *f, struct fake *twin)
{
        uint8_t *a = malloc(f->ops->record_length), *b = malloc(f->ops->record_length);
        struct err err = {0};

        f->ops->save(f->dev, a);
        if (restore(twin, a, &err))
                fail_msg("%s", err.text);
        twin->ops->save(twin->dev, b);
        assert_same(f->ops, a, b);
        free(a);
        free(b);
}

/* A record of random bytes, or with a few wrong ones: refused with a reason, or taken and kept. */
static void check_hostile_record(struct fake *f, struct fake *twin)
{
        size_t len = f->ops->record_length;
        uint8_t *a = malloc(len), *b = malloc(len);
        struct err err = {0};

        f->ops->save(f->dev, a);
        for (uint64_t n = rnd() % 4 + 1; n > 0; n--)
                a[rnd() % len] = (uint8_t)rnd();
        if (rnd() % 16 == 0)
                for (size_t i = 0; i < len; i++)
                        a[i] = (uint8_t)rnd();
        if (restore(twin, a, &err)) {
                assert_memory_equal(err.text, f->ops->name, strlen(f->ops->name));
        } else {
                twin->ops->save(twin->dev, b);
                assert_same(f->ops, a, b);
                hostile_access(twin);
        }
        free(a);
        free(b);
}

static void drain(struct fake *f)
{
        static char buf[65536];

        loop_step(f->env.loop, 0);
        while (read(f->out, buf, sizeof buf) > 0)
                ;
}

static void no_access_does_harm(void **state)
{
        for (unsigned i = 0; device_registry[i]; i++) {
                struct fake f, twin;
                int flags;

                rng = 0x1234567 + i;
                init(&f, device_registry[i]);
                init(&twin, device_registry[i]);
                flags = fcntl(f.in, F_GETFL);
                fcntl(f.in, F_SETFL, flags | O_NONBLOCK);
                for (unsigned n = 0; n < ACCESSES; n++) {
                        hostile_access(&f);
                        if (n % 64 == 0) {
                                check_round_trip(&f, &twin);
                                check_hostile_record(&f, &twin);
                        }
                        /* the console stalls from time to time, and somebody types */
                        if (n % 1024 == 0 && n / 200000 % 2 == 0) {
                                (void)!write(f.in, "typed text", 10);
                                drain(&f);
                        }
                }
                fake_fini(&f);
                fake_fini(&twin);
        }
}

static void get_and_put_are_little_endian(void **state)
{
        uint8_t data[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

        assert_int_equal(device_get(data, 1), 1);
        assert_int_equal(device_get(data, 2), 0x0201);
        assert_int_equal(device_get(data, 4), 0x04030201);
        assert_true(device_get(data, 8) == 0x0807060504030201);
        device_put(data, 4, 0x11223344aabbccdd);
        assert_memory_equal(data, "\xdd\xcc\xbb\xaa\x05", 5);
        device_put(data, 8, 0x11223344aabbccdd);
        assert_memory_equal(data, "\xdd\xcc\xbb\xaa\x44\x33\x22\x11\x09", 9);
}

static void destroying_nothing_is_fine(void **state)
{
        for (unsigned i = 0; device_registry[i]; i++)
                device_registry[i]->destroy(NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(records_are_what_the_rules_say),
                cmocka_unit_test(windows_are_apart),
                cmocka_unit_test(no_access_does_harm),
                cmocka_unit_test(get_and_put_are_little_endian),
                cmocka_unit_test(destroying_nothing_is_fine),
        };

        return cmocka_run_group_tests_name("devices", tests, NULL, NULL);
}
