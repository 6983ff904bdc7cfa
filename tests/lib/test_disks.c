/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disks of machines in the program: overlays over freeze, spawn, reset and fork, and the lock of
 * the image, which is there as long as somebody may read it. The guest is tests/guest/disk.c; its
 * letters are explained there.
 */
#include "api.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#define IMAGE_BYTES (1u << 20)

static int make_image(void)
{
        int fd = memfd_create("image", MFD_CLOEXEC);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, IMAGE_BYTES), 0);
        return fd;
}

static uint64_t sum_of(int fd)
{
        static uint64_t words[IMAGE_BYTES / 8];
        uint64_t sum = 0;

        assert_int_equal(pread(fd, words, sizeof words, 0), sizeof words);
        for (unsigned i = 0; i < IMAGE_BYTES / 8; i++)
                sum = (sum ^ words[i]) * 0x100000001b3ull;
        return sum;
}

static bool is_locked(int fd)
{
        char path[64];
        bool locked;
        int other;

        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        other = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(other >= 0);
        locked = flock(other, LOCK_EX | LOCK_NB) != 0;
        close(other);
        return locked;
}

static int create(int fd, const char *cmdline, struct ramet_vm **vm)
{
        const struct ramet_disk disk = {.size = sizeof disk, .fd = fd, .path = "my.image"};
        struct ramet_vm_config config = api_config();

        config.kernel = api_guest("disk.elf");
        config.cmdline = cmdline;
        config.disks = &disk;
        config.ndisks = 1;
        return ramet_vm_create(api_ctx, &config, vm);
}

/* Runs to its end, and all that it checked was right. */
static void finish(struct ramet_vm *vm)
{
        static char text[65536];
        int n;

        api_until(vm, RAMET_VM_EXIT);
        n = api_ok(ramet_vm_console_read(vm, text, sizeof text - 1));
        text[n] = '\0';
        if (!strstr(text, "disk: done: 0 failed"))
                fail_msg("console: %s", text);
}

/* The pattern is on the image; what each machine writes after the freeze is its own. */
static void each_writes_to_its_own(void **state)
{
        struct ramet_vm *vm, *clone, *forked[2];
        struct ramet_template *tmpl;
        int fd = make_image();
        uint64_t sum;

        api_ok(create(fd, "do=wfROWfvV", &vm));
        api_until(vm, RAMET_VM_DOORBELL);
        sum = sum_of(fd);
        api_ok(ramet_vm_freeze(vm, "written", &tmpl));
        clone = api_spawn(tmpl);
        finish(clone);
        api_ok(ramet_vm_reset(clone)); /* its own range is zeros again: O */
        finish(clone);
        finish(vm);
        api_ok(ramet_vm_reset(vm));
        finish(vm);
        ramet_vm_destroy(vm);
        ramet_vm_destroy(clone);
        clone = api_spawn(tmpl);
        api_ok(ramet_vm_fork(clone, 2, forked)); /* of a clone that has not run */
        finish(forked[1]);
        finish(forked[0]);
        finish(clone);
        assert_true(sum_of(fd) == sum);
        ramet_vm_destroy(forked[0]);
        ramet_vm_destroy(forked[1]);
        ramet_vm_destroy(clone);
        ramet_template_release(tmpl);
        close(fd);
}

static void the_image_is_locked_until_the_last_is_gone(void **state)
{
        const unsigned before = api_descriptors();
        struct ramet_vm *vm, *clone, *other = NULL;
        struct ramet_template *tmpl;
        int fd = make_image();

        assert_false(is_locked(fd));
        api_ok(create(fd, "do=R", &vm));
        assert_true(is_locked(fd));
        api_fails(create(fd, "", &other), -EINVAL, "my.image");
        api_until(vm, RAMET_VM_DOORBELL);
        api_ok(ramet_vm_freeze(vm, "", &tmpl));
        ramet_vm_destroy(vm);
        assert_true(is_locked(fd));
        clone = api_spawn(tmpl);
        ramet_template_release(tmpl);
        assert_true(is_locked(fd));
        ramet_vm_destroy(clone);
        assert_false(is_locked(fd));
        close(fd);
        assert_int_equal(api_descriptors(), before);
}

static void disks_that_cannot_be(void **state)
{
        struct ramet_disk disks[RAMET_DISKS_MAX + 1] = {0};
        struct ramet_vm_config config = api_config();
        const unsigned before = api_descriptors();
        struct ramet_vm *vm = NULL;
        int fd = make_image();

        for (unsigned i = 0; i <= RAMET_DISKS_MAX; i++)
                disks[i] = (struct ramet_disk){.size = sizeof disks[0], .fd = fd};
        config.ndisks = 1;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "disks: NULL");
        config.disks = disks;
        config.ndisks = RAMET_DISKS_MAX + 1;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "9 given");
        config.ndisks = 2;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "twice");
        disks[1].fd = -1;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "not open");
        disks[0].size = 4;
        api_fails(ramet_vm_create(api_ctx, &config, &vm), -EINVAL, "size is 4");
        assert_null(vm);
        close(fd);
        assert_int_equal(api_descriptors(), before);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_writes_to_its_own),
                cmocka_unit_test(the_image_is_locked_until_the_last_is_gone),
                cmocka_unit_test(disks_that_cannot_be),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_disks", tests, NULL, NULL);
}
