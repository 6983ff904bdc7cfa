/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format of overlays: bits against an array of bools, what may be opened and what is refused,
 * headers with every field wrong in turn, and files that were cut.
 */
#include <sys/random.h>

#include "disk_rig.h"

#define SECTORS 70001 /* three pages of bitmap, the last one not full */
#define BYTES   ((uint64_t)SECTORS * DISK_SECTOR)

static const struct overlay_info info = {
        .disk_bytes = BYTES, .image_bytes = BYTES, .image_mtime_nsec = 7, .image = "the/image"};

static struct overlay *make(void)
{
        struct overlay *o;
        struct err err = {0};

        check(overlay_make(&info, -1, -1, &o, &err), &err);
        return o;
}

static void runs_are_right(const struct overlay *o, const bool *model)
{
        for (uint64_t s = 0; s < SECTORS;) {
                uint64_t n, end = s;
                bool has = overlay_has(o, s, SECTORS - s, &n);

                assert_int_equal(has, model[s]);
                while (end < SECTORS && model[end] == model[s])
                        end++;
                assert_int_equal(n, end - s);
                s = end;
        }
}

static void bits(void **state)
{
        struct rig rig = {.seed = 42};
        bool *model = calloc(SECTORS, 1);
        struct overlay *o = make(), *copy;
        struct err err = {0};
        uint64_t n;

        runs_are_right(o, model);
        for (unsigned i = 0; i < 300; i++) {
                uint64_t at = rig_random(&rig, SECTORS), max = SECTORS - at;
                uint64_t len = 1 + rig_random(&rig, rig_random(&rig, 20) ? 130 : max);

                len = len < max ? len : max;
                overlay_set(o, at, len);
                memset(model + at, 1, len);
                if (i % 30 == 0)
                        runs_are_right(o, model);
                at = rig_random(&rig, SECTORS);
                overlay_has(o, at, 1, &n);
                assert_int_equal(n, 1);
        }
        check(overlay_seal(o, &err), &err);
        runs_are_right(o, model);
        check(overlay_open(fcntl(o->fd, F_DUPFD_CLOEXEC, 0), BYTES, &copy, &err), &err);
        runs_are_right(copy, model);
        assert_memory_equal(&copy->info, &o->info, sizeof copy->info);
        overlay_close(copy);
        overlay_close(o);
        free(model);
}

static void emptied(void **state)
{
        struct overlay *o = make();
        struct err err = {0};
        struct stat before, after;
        uint64_t n;
        char byte = 1;

        fstat(o->fd, &before);
        overlay_set(o, 5, SECTORS - 10);
        for (unsigned i = 0; i < 100; i++)
                assert_int_equal(pwrite(o->fd, &byte, 1, (off_t)(o->data_offset + i * 4096)), 1);
        check(overlay_write_bits(o, true, &err), &err);
        fstat(o->fd, &after);
        assert_true(after.st_blocks > before.st_blocks + 100 * 8);
        check(overlay_empty(o, &err), &err);
        fstat(o->fd, &after);
        assert_int_equal(after.st_blocks, before.st_blocks);
        assert_int_equal(after.st_size, before.st_size);
        assert_false(o->touched);
        assert_false(overlay_has(o, 0, SECTORS, &n));
        assert_int_equal(n, SECTORS);
        overlay_set(o, 9, 1); /* the bits are gone, not only forgotten */
        assert_false(overlay_has(o, 0, SECTORS, &n));
        assert_int_equal(n, 9);
        overlay_close(o);
}

/* Nothing can write it after it was frozen, and it can be frozen although it was mapped. */
static void sealed(void **state)
{
        const int seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
        struct overlay *o = make();
        struct err err = {0};
        char byte = 0;

        overlay_set(o, 1, 1);
        check(overlay_seal(o, &err), &err);
        assert_int_equal(fcntl(o->fd, F_GET_SEALS) & seals, seals);
        assert_int_equal(pwrite(o->fd, &byte, 1, 0), -1);
        check(overlay_seal(o, &err), &err);
        overlay_close(o);
}

static void somebody_may_write(void **state)
{
        struct overlay *o = make();
        struct err err = {0};
        void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, o->fd, 0);
        uint64_t n;

        overlay_set(o, 77, 1);
        assert_int_equal(overlay_seal(o, &err), -EBUSY);
        assert_true(o->live);
        assert_true(overlay_has(o, 77, 1, &n));
        munmap(p, 4096);
        check(overlay_seal(o, &err), &err);
        assert_true(overlay_has(o, 77, 1, &n));
        overlay_close(o);
}

/* --- files --- */

static void names(void **state)
{
        struct rig rig;
        struct err err = {0};
        struct overlay *o;
        struct overlay_info read;
        char path[128];
        int fd, ro_fd, fd2, ro_fd2;

        rig_init(&rig, true, true, 1);
        rig_path(&rig, path);
        check(overlay_create_file(path, &fd, &ro_fd, &err), &err);
        assert_int_equal(overlay_create_file(path, &fd2, &ro_fd2, &err), -EEXIST);
        assert_non_null(strstr(err.text, path));
        assert_int_equal(overlay_read_info(ro_fd, &read, &err), -EINVAL);
        check(overlay_make(&info, fd, ro_fd, &o, &err), &err);
        assert_string_equal(o->info.name, "m.0.1.overlay");
        assert_string_equal(o->info.image, "the/image");
        assert_false(overlay_is_image(&o->info.id));
        check(overlay_read_info(ro_fd, &read, &err), &err);
        assert_memory_equal(&read, &o->info, sizeof read);

        /* not empty any more, and in use */
        fd2 = open(path, O_RDWR | O_CLOEXEC);
        ro_fd2 = open(path, O_RDONLY | O_CLOEXEC);
        {
                struct overlay *other;

                assert_int_equal(overlay_make(&info, fd2, ro_fd2, &other, &err), -EINVAL);
        }
        /* given back, it is as it was */
        overlay_withdraw(o, &fd, &ro_fd);
        assert_int_equal(lseek(fd, 0, SEEK_END), OVERLAY_HEADER_BYTES);
        check(overlay_make(&info, fd, ro_fd, &o, &err), &err);
        assert_string_equal(o->info.name, "m.0.1.overlay");
        overlay_close(o);
        rig_fini(&rig);
}

/* A header that was changed goes to the medium with the next flush, although no data did. */
static void changed_header_is_unsynced(void **state)
{
        struct overlay_info other = info;
        struct rig rig;
        struct err err = {0};
        struct overlay *o;
        char path[128];
        int fd, ro_fd;

        rig_init(&rig, true, true, 1);
        rig_path(&rig, path);
        check(overlay_create_file(path, &fd, &ro_fd, &err), &err);
        check(overlay_make(&info, fd, ro_fd, &o, &err), &err);
        check(overlay_write_bits(o, true, &err), &err);
        assert_false(o->unsynced);
        check(overlay_set_parent(o, &info, &err), &err);
        assert_false(o->unsynced);
        other.image_mtime_sec++;
        check(overlay_set_parent(o, &other, &err), &err);
        assert_true(o->unsynced);
        overlay_close(o);
        rig_fini(&rig);
}

/* A frozen file is in the disks of others: this process keeps no way to write it. */
static void frozen_file_is_not_writable(void **state)
{
        struct rig rig;
        struct err err = {0};
        struct overlay *o;
        char path[128], byte = 0;
        int fd, ro_fd;

        rig_init(&rig, true, true, 1);
        rig_path(&rig, path);
        check(overlay_create_file(path, &fd, &ro_fd, &err), &err);
        check(overlay_make(&info, fd, ro_fd, &o, &err), &err);
        assert_int_equal(overlay_pass_fd(o), ro_fd);
        check(overlay_seal(o, &err), &err);
        assert_int_equal(fcntl(o->fd, F_GETFL) & O_ACCMODE, O_RDONLY);
        assert_int_equal(overlay_pass_fd(o), ro_fd);
        assert_int_equal(pwrite(fd, &byte, 1, 0), -1);
        overlay_close(o);
        rig_fini(&rig);
}

static void what_is_no_place_for_one(void **state)
{
        struct rig rig;
        struct err err = {0};
        struct overlay *o;
        struct overlay_info bad = info;
        char path[128];
        int fd;

        rig_init(&rig, true, true, 1);
        fd = open(rig_path(&rig, path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_int_equal(overlay_make(&info, fd, -1, &o, &err), -EINVAL);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(write(fd, "data of somebody", 16), 16);
        assert_int_equal(overlay_make(&info, fd, open(path, O_RDONLY), &o, &err), -EINVAL);
        assert_non_null(strstr(err.text, "not empty"));
        fd = open(path, O_RDONLY);
        assert_int_equal(lseek(fd, 0, SEEK_END), 16);
        close(fd);
        for (unsigned i = 0; i < 3; i++) {
                static const uint64_t sizes[] = {0, 513, 1ull << 60};

                bad.disk_bytes = sizes[i];
                assert_int_equal(overlay_make(&bad, -1, -1, &o, &err), -EINVAL);
        }
        rig_fini(&rig);
}

/* --- what may come from anywhere --- */

static uint64_t sum_of(struct overlay_header *h)
{
        uint64_t sum = 0xcbf29ce484222325u, old = h->checksum, word;

        h->checksum = 0;
        for (size_t i = 0; i < sizeof *h; i += 8) {
                memcpy(&word, (uint8_t *)h + i, 8);
                sum = (sum ^ word) * 0x100000001b3u;
        }
        h->checksum = old;
        return sum;
}

/* A file with a good overlay, open for both; path to be opened again. */
static int good_file(struct rig *rig, char path[128], struct overlay_header *h)
{
        struct err err = {0};
        struct overlay *o;
        int fd, ro_fd;

        check(overlay_create_file(rig_path(rig, path), &fd, &ro_fd, &err), &err);
        check(overlay_make(&info, fd, ro_fd, &o, &err), &err);
        overlay_set(o, 3, 3);
        check(overlay_seal(o, &err), &err);
        overlay_close(o);
        fd = open(path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(fd, h, sizeof *h, 0), sizeof *h);
        assert_int_equal(h->checksum, sum_of(h));
        return fd;
}

static int try(const char *path, struct err *err)
{
        struct overlay *o;
        int ret;

        *err = (struct err){0};
        ret = overlay_open(open(path, O_RDONLY | O_CLOEXEC), BYTES, &o, err);
        if (!ret)
                overlay_close(o);
        else
                assert_true(err->text[0]);
        return ret;
}

static void damaged_headers(void **state)
{
        struct rig rig;
        struct err err;
        struct overlay_header h;
        char path[128];
        int fd;

        rig_init(&rig, true, true, 77);
        fd = good_file(&rig, path, &h);
        assert_int_equal(try(path, &err), 0);
        for (size_t i = 0; i < sizeof h; i++) {
                uint8_t byte = ((uint8_t *)&h)[i], bad = byte ^ (uint8_t)(1 << rig_random(&rig, 8));

                assert_int_equal(pwrite(fd, &bad, 1, (off_t)i), 1);
                assert_int_equal(try(path, &err), -EINVAL);
                assert_int_equal(pwrite(fd, &byte, 1, (off_t)i), 1);
        }
        assert_int_equal(try(path, &err), 0);
        close(fd);
        rig_fini(&rig);
}

/* The same by somebody who knows how to make a checksum. */
static void forged_headers(void **state)
{
#define FIELD(f)                                                                                   \
        {                                                                                          \
                offsetof(struct overlay_header, f), sizeof(((struct overlay_header *)0)->f)        \
        }
        static const struct {
                size_t offset, size;
        } fields[] = {FIELD(version),
                      FIELD(header_bytes),
                      FIELD(disk_bytes),
                      FIELD(bitmap_offset),
                      FIELD(bitmap_bytes),
                      FIELD(data_offset),
                      FIELD(begun),
                      FIELD(zero),
                      FIELD(image_mtime_nsec),
                      FIELD(id),
                      FIELD(name),
                      FIELD(parent_name),
                      FIELD(image)};
        struct rig rig;
        struct err err;
        struct overlay_header h, bad;
        char path[128];
        int fd;

        rig_init(&rig, true, true, 78);
        fd = good_file(&rig, path, &h);
        for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++)
                for (unsigned j = 0; j < 20; j++) {
                        bool id = fields[i].offset == offsetof(struct overlay_header, id);
                        static const uint64_t values[] = {
                                0,           1,          UINT64_MAX,   1ull << 63,
                                511,         4095,       512,          UINT64_MAX - 511,
                                1ull << 56,  0xffffffff, 4096 * 4 + 1, 4096 * 5,
                                BYTES + 512, BYTES - 512};
                        uint64_t value = j < 14 ? values[j] : rig_random(&rig, 0);
                        size_t n = fields[i].size;

                        bad = h;
                        if (n > 8) /* no end; or none at all for the id */
                                memset((uint8_t *)&bad + fields[i].offset, id ? 0 : 'x', n);
                        else
                                memcpy((uint8_t *)&bad + fields[i].offset, &value, n);
                        if (!memcmp((uint8_t *)&bad + fields[i].offset,
                                    (uint8_t *)&h + fields[i].offset, n) ||
                            (fields[i].offset ==
                                     offsetof(struct overlay_header, image_mtime_nsec) &&
                             (uint32_t)value < 1000000000))
                                continue;
                        bad.checksum = sum_of(&bad);
                        assert_int_equal(pwrite(fd, &bad, sizeof bad, 0), sizeof bad);
                        if (try(path, &err) != -EINVAL)
                                fail_msg("field at %zu, value %#llx", fields[i].offset,
                                         (unsigned long long)value);
                }
        for (unsigned i = 0; i < 4; i++) {
                static const char *const bad_names[] = {"../x", "a/b", ".", ".."};

                bad = h;
                strcpy(i & 1 ? bad.name : bad.parent_name, bad_names[i]);
                bad.checksum = sum_of(&bad);
                assert_int_equal(pwrite(fd, &bad, sizeof bad, 0), sizeof bad);
                assert_int_equal(try(path, &err), -EINVAL);
        }
        close(fd);
        rig_fini(&rig);
}

static void wrong_sizes(void **state)
{
        struct rig rig;
        struct err err;
        struct overlay_header h;
        char path[128];
        int fd;
        off_t end;

        rig_init(&rig, true, true, 79);
        fd = good_file(&rig, path, &h);
        end = lseek(fd, 0, SEEK_END);
        assert_int_equal(end, h.data_offset + BYTES);
        for (unsigned i = 0; i < 8; i++) {
                const off_t sizes[] = {0, 1, 4095, 4096, 8192, end - 512, end - 1, end + 1};

                assert_int_equal(ftruncate(fd, sizes[i]), 0);
                if (sizes[i] < 4096)
                        assert_int_equal(pwrite(fd, &h, (size_t)sizes[i], 0), sizes[i]);
                else
                        assert_int_equal(pwrite(fd, &h, sizeof h, 0), sizeof h);
                assert_int_equal(try(path, &err), -EINVAL);
        }
        assert_int_equal(ftruncate(fd, end), 0);
        assert_int_equal(try(path, &err), 0);
        /* data elsewhere, in a file that is as long as that needs */
        h.data_offset += 4096;
        h.checksum = sum_of(&h);
        assert_int_equal(pwrite(fd, &h, sizeof h, 0), sizeof h);
        assert_int_equal(ftruncate(fd, end + 4096), 0);
        assert_int_equal(try(path, &err), -EINVAL);
        close(fd);
        rig_fini(&rig);
}

static void wrong_descriptors(void **state)
{
        struct rig rig;
        struct err err = {0};
        struct overlay_header h;
        struct overlay *o, *other;
        char path[128];
        int fd, fds[2];

        rig_init(&rig, true, true, 80);
        fd = good_file(&rig, path, &h);
        assert_int_equal(overlay_open(fd, BYTES, &o, &err), -EINVAL); /* can write; closed */
        assert_non_null(strstr(err.text, "writing"));
        other = make();
        assert_int_equal(overlay_open(fcntl(other->fd, F_DUPFD_CLOEXEC, 0), BYTES, &o, &err),
                         -EINVAL);
        assert_non_null(strstr(err.text, "sealed"));
        check(overlay_seal(other, &err), &err);
        assert_int_equal(overlay_open(fcntl(other->fd, F_DUPFD_CLOEXEC, 0), BYTES + 512, &o, &err),
                         -EINVAL);
        overlay_close(other);
        assert_int_equal(pipe(fds), 0);
        assert_int_equal(overlay_open(fds[0], BYTES, &o, &err), -EINVAL);
        close(fds[1]);
        assert_int_equal(overlay_open(open("/proc/self", O_RDONLY), BYTES, &o, &err), -EINVAL);
        assert_int_equal(overlay_open(open("/dev/null", O_RDONLY), BYTES, &o, &err), -EINVAL);
        assert_true(overlay_open(-1, BYTES, &o, &err) < 0);
        rig_fini(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(bits),
                cmocka_unit_test(emptied),
                cmocka_unit_test(sealed),
                cmocka_unit_test(somebody_may_write),
                cmocka_unit_test(names),
                cmocka_unit_test(changed_header_is_unsynced),
                cmocka_unit_test(frozen_file_is_not_writable),
                cmocka_unit_test(what_is_no_place_for_one),
                cmocka_unit_test(damaged_headers),
                cmocka_unit_test(forged_headers),
                cmocka_unit_test(wrong_sizes),
                cmocka_unit_test(wrong_descriptors),
        };

        return cmocka_run_group_tests_name("overlay", tests, NULL, NULL);
}
