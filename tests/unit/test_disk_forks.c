/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What forks do to a disk, beside what is read from it: which layers there are, what a reset costs
 * and undoes, what is refused, which files say what of each other, and images made of chains of
 * them.
 */
#include <dirent.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "disk_rig.h"
#include "io/overlay_chain.h"

#define SECTORS 256
#define BYTES   (SECTORS * DISK_SECTOR)

static struct overlay *own(const struct machine *m)
{
        assert_true(m->disk->own);
        return m->disk->overlays[m->disk->noverlays - 1];
}

static bool same_file(int a, int b)
{
        struct stat x, y;

        assert_int_equal(fstat(a, &x), 0);
        assert_int_equal(fstat(b, &y), 0);
        return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void nothing_written_no_layer(void **state)
{
        struct rig rig;
        struct machine m;
        struct frozen a, b, c;
        char path[128];
        struct stat st;
        int fd, ro_fd;
        struct err err = {0};

        rig_init(&rig, true, true, 1);
        machine_init(&m, &rig, BYTES);
        machine_freeze(&m, &a);
        assert_int_equal(a.n, 1);
        check(overlay_create_file(rig_path(&rig, path), &fd, &ro_fd, &err), &err);
        disk_give_overlay(m.disk, fd, ro_fd);
        machine_freeze(&m, &b);
        assert_int_equal(b.n, 1);
        assert_true(same_file(a.fds[0], b.fds[0]));
        /* the file that was given is not begun, and serves the next freeze */
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, OVERLAY_HEADER_BYTES);
        machine_write(&m, 1, 1, 1);
        machine_freeze(&m, &c);
        assert_int_equal(c.n, 2);
        assert_true(same_file(c.fds[0], a.fds[0]));
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size > OVERLAY_HEADER_BYTES);
        assert_string_equal(own(&m)->info.name, strrchr(path, '/') + 1);
        machine_check(&m);
        machine_fini(&m);
        frozen_fini(&a);
        frozen_fini(&b);
        frozen_fini(&c);
        rig_fini(&rig);
}

static void what_is_passed_on(void **state)
{
        for (unsigned files = 0; files < 2; files++) {
                struct rig rig;
                struct machine m;
                struct frozen f[3] = {0};
                int fd, ro_fd;

                rig_init(&rig, true, files, 1);
                machine_init(&m, &rig, BYTES);
                for (unsigned i = 0; i < 3; i++) {
                        if (i) {
                                rig_overlay(&rig, &fd, &ro_fd);
                                disk_give_overlay(m.disk, fd, ro_fd);
                        }
                        machine_write(&m, i, 1, 1);
                        machine_freeze(&m, &f[i]);
                }
                assert_int_equal(f[2].n, 3);
                for (unsigned i = 0; i < 3; i++) {
                        int seals = fcntl(f[2].fds[i], F_GET_SEALS);
                        bool writes = (fcntl(f[2].fds[i], F_GETFL) & O_ACCMODE) != O_RDONLY;

                        assert_true(!writes || (seals > 0 && seals & F_SEAL_WRITE));
                        assert_true(files ? !writes : true);
                }
                machine_fini(&m);
                for (unsigned i = 0; i < 3; i++)
                        frozen_fini(&f[i]);
                rig_fini(&rig);
        }
}

/* The image is not written after the fork, nor is anything that was frozen. */
static void frozen_stays(void **state)
{
        struct rig rig;
        struct machine m, c;
        struct frozen f;
        uint8_t before[BYTES], after[BYTES];

        rig_init(&rig, true, true, 1);
        machine_init(&m, &rig, BYTES);
        machine_write(&m, 3, 3, 3);
        machine_freeze(&m, &f);
        assert_int_equal(m.disk->image_fd, -1);
        machine_spawn(&c, &rig, &f);
        assert_int_equal(pread(f.fds[0], before, BYTES, 0), BYTES);
        assert_memory_equal(before, m.model, BYTES);
        machine_write(&m, 0, SECTORS, 9);
        machine_write(&c, 0, SECTORS, 8);
        assert_int_equal(request(&m, DISK_FLUSH, 0, 0, NULL), 0);
        assert_int_equal(request(&c, DISK_FLUSH, 0, 0, NULL), 0);
        assert_int_equal(pread(f.fds[0], after, BYTES, 0), BYTES);
        assert_memory_equal(before, after, BYTES);
        machine_check(&m);
        machine_check(&c);
        machine_fini(&m);
        machine_fini(&c);
        frozen_fini(&f);
        rig_fini(&rig);
}

static void cancelled(void **state)
{
        for (unsigned files = 0; files < 2; files++) {
                struct rig rig;
                struct machine m;
                struct frozen f[DISK_LAYERS_MAX];
                struct err err = {0};
                unsigned n;

                rig_init(&rig, true, files, 1);
                machine_init(&m, &rig, BYTES);
                check(disk_freeze_prepare(m.disk, &err), &err);
                disk_freeze_cancel(m.disk);
                machine_write(&m, 1, 2, 3); /* goes to the image still */
                assert_true(m.disk->image_fd >= 0);
                for (n = 0; n < DISK_LAYERS_MAX - 1; n++) {
                        machine_write(&m, n, 2, (uint8_t)n);
                        machine_freeze(&m, &f[n]);
                }
                machine_write(&m, 100, 2, 3);
                check(disk_freeze_prepare(m.disk, &err), &err); /* merges */
                assert_non_null(m.disk->merged);
                disk_freeze_cancel(m.disk);
                assert_null(m.disk->merged);
                assert_int_equal(m.disk->noverlays, DISK_LAYERS_MAX - 1);
                machine_check(&m);
                machine_fini(&m);
                while (n)
                        frozen_fini(&f[--n]);
                rig_fini(&rig);
        }
}

static void fork_often(struct machine *m, unsigned times)
{
        struct frozen f;
        int fd, ro_fd;

        for (unsigned i = 0; i < times; i++) {
                machine_write(m, 10 + i, 3, (uint8_t)(0x80 + i));
                rig_overlay(m->rig, &fd, &ro_fd);
                disk_give_overlay(m->disk, fd, ro_fd);
                machine_freeze(m, &f);
                frozen_fini(&f);
        }
        machine_write(m, 5, 20, 0xee);
}

/* A preparation that fails leaves the file that was given as it was: nobody takes it for one that
 * is written to. */
static void a_merge_that_fails(void **state)
{
        struct rlimit was, none;
        struct rig rig;
        struct machine m;
        struct frozen f;
        struct err err = {0};
        struct stat st;
        char path[128];
        int fd, ro_fd;

        rig_init(&rig, true, true, 1);
        machine_init(&m, &rig, BYTES);
        fork_often(&m, DISK_LAYERS_MAX - 1);
        check(overlay_create_file(rig_path(&rig, path), &fd, &ro_fd, &err), &err);
        disk_give_overlay(m.disk, fd, ro_fd);
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
        none = (struct rlimit){0, was.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
        assert_int_equal(disk_freeze_prepare(m.disk, &err), -EMFILE);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_size, OVERLAY_HEADER_BYTES);
        machine_freeze(&m, &f);
        assert_string_equal(own(&m)->info.name, strrchr(path, '/') + 1);
        machine_check(&m);
        machine_fini(&m);
        frozen_fini(&f);
        rig_fini(&rig);
}

/* A reset of a disk that wrote nothing touches nothing. */
static void reset_is_cheap(void **state)
{
        struct rig rig;
        struct machine m, c;
        struct frozen f;
        struct stat before, after;
        struct overlay *o;
        uint64_t bytes;

        rig_init(&rig, true, false, 1);
        machine_init(&m, &rig, BYTES);
        machine_write(&m, 5, 5, 5);
        machine_freeze(&m, &f);
        machine_spawn(&c, &rig, &f);
        o = own(&c);
        bytes = disk_own_bytes(c.disk);
        assert_int_equal(fstat(o->fd, &before), 0);
        usleep(20000); /* time stamps are coarse */
        machine_reset(&c, &f);
        assert_ptr_equal(own(&c), o);
        assert_int_equal(fstat(o->fd, &after), 0);
        assert_int_equal(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec);
        machine_write(&c, 7, 100, 0x77);
        assert_true(disk_own_bytes(c.disk) >= bytes + 100 * 512);
        machine_reset(&c, &f);
        assert_ptr_equal(own(&c), o);
        assert_int_equal(disk_own_bytes(c.disk), bytes);
        machine_check(&c);
        machine_fini(&m);
        machine_fini(&c);
        frozen_fini(&f);
        rig_fini(&rig);
}

/* Back over forks of its own: layers that are above the template's are left. */
static void reset_over_forks(void **state)
{
        for (unsigned files = 0; files < 2; files++) {
                struct rig rig;
                struct machine m, c, d;
                struct frozen f, g[3];
                int fd, ro_fd;

                rig_init(&rig, true, files, 1);
                machine_init(&m, &rig, BYTES);
                machine_write(&m, 5, 5, 5);
                machine_freeze(&m, &f);
                machine_spawn(&c, &rig, &f);
                for (unsigned i = 0; i < 3; i++) {
                        machine_write(&c, 6, 2, (uint8_t)(0x60 + i));
                        rig_overlay(&rig, &fd, &ro_fd);
                        disk_give_overlay(c.disk, fd, ro_fd);
                        machine_freeze(&c, &g[i]);
                }
                machine_spawn(&d, &rig, &g[2]);
                machine_reset(&c, &f);
                assert_int_equal(c.disk->noverlays, 1);
                assert_true(overlay_is_image(&own(&c)->info.parent));
                assert_string_equal(own(&c)->info.parent_name, "");
                machine_check(&c);
                machine_write(&c, 5, 1, 9);
                machine_check(&c);
                machine_check(&d);
                machine_reset(&c, &g[1]); /* and to one of another branch */
                machine_check(&c);
                machine_fini(&m);
                machine_fini(&c);
                machine_fini(&d);
                frozen_fini(&f);
                for (unsigned i = 0; i < 3; i++)
                        frozen_fini(&g[i]);
                rig_fini(&rig);
        }
}

/* Back when the template's layers have become one with later ones: they are opened again. The same
 * for a root, whose template is its image. */
static void reset_over_a_merge(void **state)
{
        for (unsigned files = 0; files < 2; files++) {
                struct frozen first, third;
                struct machine m, c;
                struct rig rig;

                rig_init(&rig, true, files, 8);
                machine_init(&m, &rig, BYTES);
                machine_write(&m, 1, 1, 1);
                machine_freeze(&m, &first);
                fork_often(&m, 2);
                machine_freeze(&m, &third);
                assert_in_range(third.n, 3, DISK_LAYERS_MAX);
                machine_spawn(&c, &rig, &third);
                for (unsigned i = 0; i < 3; i++) {
                        fork_often(&c, DISK_LAYERS_MAX);
                        fork_often(&m, DISK_LAYERS_MAX / (i + 1));
                        machine_reset(&c, &third);
                        machine_reset(&m, &first);
                        assert_int_equal(c.disk->noverlays, third.n);
                        assert_int_equal(m.disk->noverlays, 1);
                        assert_int_equal(request(&c, DISK_FLUSH, 0, 0, NULL), 0);
                        machine_check(&c);
                        machine_check(&m);
                }
                machine_fini(&m);
                machine_fini(&c);
                frozen_fini(&first);
                frozen_fini(&third);
                rig_fini(&rig);
        }
}

/* An overlay that cannot be sealed costs the template, and the disk a layer: what was written
 * before, meanwhile and since is there, and the next freeze gives all of it away. */
static void a_publish_that_fails(void **state)
{
        struct rig rig;
        struct machine m, c;
        struct frozen f, g;
        void *mapped;

        rig_init(&rig, true, false, 9);
        machine_init(&m, &rig, BYTES);
        machine_write(&m, 5, 5, 5);
        machine_freeze(&m, &f);
        machine_write(&m, 6, 5, 6);
        mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, own(&m)->fd, 0);
        assert_ptr_not_equal(mapped, MAP_FAILED);
        for (unsigned i = 0; i < DISK_LAYERS_MAX + 3; i++) {
                struct disk_record record;
                struct err err = {0};

                check(disk_freeze_prepare(m.disk, &err), &err);
                disk_save(m.disk, &record);
                disk_freeze(m.disk);
                machine_write(&m, 7 + i % 3, 2, (uint8_t)(0x70 + i)); /* it runs on by then */
                if (i < 3)
                        assert_int_equal(disk_freeze_publish(m.disk, &err), -EBUSY);
                else /* after a merge there is nothing of it to seal any more */
                        (void)disk_freeze_publish(m.disk, &err);
                machine_check(&m);
                assert_in_range(m.disk->noverlays, 1, DISK_LAYERS_MAX - 1);
        }
        munmap(mapped, 4096);
        machine_freeze(&m, &g);
        machine_write(&m, 8, 8, 8);
        machine_spawn(&c, &rig, &g);
        machine_check(&c);
        machine_check(&m);
        machine_reset(&m, &f);
        machine_check(&m);
        machine_check(&c);
        machine_fini(&m);
        machine_fini(&c);
        frozen_fini(&f);
        frozen_fini(&g);
        rig_fini(&rig);
}

static void restore_refuses(void **state)
{
        struct rig rig;
        struct machine m;
        struct frozen f, g;
        struct disk_options none = {.name = "x"};
        struct disk_record r;
        struct disk *disk;
        struct err err = {0};
        int fds[DISK_LAYERS_MAX], rw;
        char path[128];

        none.image_fd = none.image_ro_fd = none.overlay_fd = none.overlay_ro_fd = -1;
        rig_init(&rig, true, false, 1);
        machine_init(&m, &rig, BYTES);
        machine_write(&m, 1, 1, 1);
        machine_freeze(&m, &f);
        machine_write(&m, 1, 1, 2);
        machine_freeze(&m, &g);
        assert_int_equal(g.n, 2);
        check(disk_open(rig.loop, &none, &disk, &err), &err);
#define REFUSED(change, n)                                                                         \
        do {                                                                                       \
                memcpy(fds, g.fds, sizeof fds);                                                    \
                r = g.record;                                                                      \
                change;                                                                            \
                err = (struct err){0};                                                             \
                assert_int_equal(disk_restore(disk, &r, fds, n, &err), -EINVAL);                   \
                assert_true(err.text[0]);                                                          \
        } while (0)
        REFUSED(r.layers = 0, 0);
        REFUSED(r.layers = 1, 2);
        REFUSED(r.layers = 3, 2);
        REFUSED(r.layers = DISK_LAYERS_MAX, DISK_LAYERS_MAX);
        REFUSED(r.bytes = 0, 2);
        REFUSED(r.bytes = 100, 2);
        REFUSED(r.bytes -= 512, 2);
        REFUSED(r.bytes = UINT64_MAX - 511, 2);
        REFUSED(r.readonly = 2, 2);
        REFUSED(memset(r.name, 'x', sizeof r.name), 2);
        REFUSED(r.name[DISK_NAME_MAX - 1] = 1, 2);
        REFUSED(fds[1] = g.fds[0], 2); /* the image once more */
        REFUSED(fds[0] = g.fds[1], 2); /* an overlay for an image */
        snprintf(path, sizeof path, "/proc/self/fd/%d", g.fds[0]);
        rw = open(path, O_RDWR | O_CLOEXEC);
        REFUSED(fds[0] = rw, 2);
        close(rw);
        assert_int_equal(disk_bytes(disk), 0);
        check(disk_restore(disk, &g.record, g.fds, g.n, &err), &err);
        assert_int_equal(disk_bytes(disk), BYTES);
        REFUSED(r.bytes -= 512, 2); /* a disk in use does not change its size */
        disk_close(disk);
        machine_fini(&m);
        frozen_fini(&f);
        frozen_fini(&g);
        rig_fini(&rig);
}

/* A restore that fails leaves the disk as it was. */
static void failed_restore_changes_nothing(void **state)
{
        struct rig rig;
        struct machine m, c;
        struct frozen f, g;
        struct err err = {0};
        int fds[2];

        rig_init(&rig, true, false, 1);
        machine_init(&m, &rig, BYTES);
        machine_freeze(&m, &f);
        machine_spawn(&c, &rig, &f);
        machine_write(&c, 1, 4, 0x41);
        machine_freeze(&c, &g);
        machine_write(&c, 2, 4, 0x42);
        fds[0] = f.fds[0];
        fds[1] = f.fds[0];
        assert_int_equal(disk_restore(c.disk, &g.record, fds, 2, &err), -EINVAL);
        machine_check(&c);
        machine_reset(&c, &g);
        machine_check(&c);
        machine_fini(&m);
        machine_fini(&c);
        frozen_fini(&f);
        frozen_fini(&g);
        rig_fini(&rig);
}

static void images_that_are_none(void **state)
{
        struct disk_options options = {.name = "some.img", .overlay_fd = -1, .overlay_ro_fd = -1};
        struct rig rig;
        struct disk *disk;
        struct err err = {0};
        char path[128];
        int fd;

        rig_init(&rig, true, false, 1);
        fd = open(rig_path(&rig, path), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        for (unsigned i = 0; i < 2; i++) {
                assert_int_equal(ftruncate(fd, i ? 1000001 : 0), 0);
                options.image_fd = open(path, O_RDWR | O_CLOEXEC);
                options.image_ro_fd = open(path, O_RDONLY | O_CLOEXEC);
                assert_int_equal(disk_open(rig.loop, &options, &disk, &err), -EINVAL);
                assert_non_null(strstr(err.text, "some.img"));
        }
        assert_non_null(strstr(err.text, "1000001"));
        assert_non_null(strstr(err.text, "truncate -s 1000448"));
        close(fd);
        options.image_fd = open("/dev/null", O_RDWR);
        options.image_ro_fd = open("/dev/null", O_RDONLY);
        assert_int_equal(disk_open(rig.loop, &options, &disk, &err), -EINVAL);
        assert_non_null(strstr(err.text, "neither"));
        rig_fini(&rig);
}

/* --- chains of files, and images of them --- */

struct chain {
        struct rig rig;
        struct machine m[4]; /* each a clone of the one before */
        struct frozen f[3];
        char top[400];
        uint8_t model[BYTES];
};

/* Files of three generations, and what the last one had; all machines have ended. */
static void chain_init(struct chain *c)
{

        rig_init(&c->rig, true, true, 5);
        machine_init(&c->m[0], &c->rig, BYTES);
        for (unsigned i = 0; i < 4; i++) {
                machine_write(&c->m[i], 10 * i, 15, (uint8_t)(i + 1));
                assert_int_equal(request(&c->m[i], DISK_DISCARD, (100 + 2 * i) * 512, 512, NULL),
                                 0);
                memset(c->m[i].model + (100 + 2 * i) * 512, 0, 512);
                if (i == 3)
                        break;
                machine_freeze(&c->m[i], &c->f[i]);
                machine_spawn(&c->m[i + 1], &c->rig, &c->f[i]);
                machine_write(&c->m[i], 60, 1, 0xee); /* nobody else's */
        }
        snprintf(c->top, sizeof c->top, "%s/%s", c->rig.dir, own(&c->m[3])->info.name);
        memcpy(c->model, c->m[3].model, BYTES);
}

static void chain_end(struct chain *c)
{
        for (unsigned i = 0; i < 4; i++)
                if (c->m[i].disk)
                        machine_fini(&c->m[i]);
}

static void chain_fini(struct chain *c)
{
        chain_end(c);
        for (unsigned i = 0; i < 3; i++)
                frozen_fini(&c->f[i]);
        rig_fini(&c->rig);
}

static int export(const char *top, const char *image, bool force, struct err *err)
{
        struct overlay_chain chain;
        int ret;

        *err = (struct err){0};
        ret = overlay_chain_open(top, &chain, err);
        if (!ret) {
                ret = overlay_export(&chain, image, force, NULL, NULL, err);
                overlay_chain_close(&chain);
        }
        return ret;
}

static void expect_image(const char *path, const uint8_t *model)
{
        uint8_t *now = malloc(BYTES + 1);
        int fd = open(path, O_RDONLY);

        assert_true(fd >= 0);
        assert_int_equal(pread(fd, now, BYTES + 1, 0), BYTES);
        assert_memory_equal(now, model, BYTES);
        close(fd);
        free(now);
}

static unsigned count_files(const char *dir)
{
        DIR *d = opendir(dir);
        unsigned n = 0;

        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static void exported(void **state)
{
        struct chain *c = calloc(1, sizeof *c);
        struct err err;
        char image[160];
        unsigned before;

        chain_init(c);
        snprintf(image, sizeof image, "%s/out.img", c->rig.dir);
        assert_int_equal(export(c->top, image, false, &err), -EINVAL); /* it runs */
        assert_non_null(strstr(err.text, "runs"));
        chain_end(c);
        before = count_files(c->rig.dir);
        check(export(c->top, image, false, &err), &err);
        expect_image(image, c->model);
        assert_int_equal(export(c->top, image, false, &err), -EINVAL);
        assert_non_null(strstr(err.text, "--force"));
        assert_int_equal(truncate(image, 5), 0);
        check(export(c->top, image, true, &err), &err);
        expect_image(image, c->model);
        assert_int_equal(count_files(c->rig.dir), before + 1);
        assert_int_equal(export(c->top, c->top, true, &err), -EINVAL);
        assert_non_null(strstr(err.text, "part of"));
        chain_fini(c);
        free(c);
}

static bool give_up(void *data, uint64_t done, uint64_t total)
{
        assert_true(done <= total);
        return true;
}

static void export_given_up(void **state)
{
        struct chain *c = calloc(1, sizeof *c);
        struct overlay_chain chain;
        struct err err = {0};
        char image[160];
        unsigned before;

        chain_init(c);
        chain_end(c);
        before = count_files(c->rig.dir);
        snprintf(image, sizeof image, "%s/out.img", c->rig.dir);
        check(overlay_chain_open(c->top, &chain, &err), &err);
        assert_int_equal(chain.n, 3);
        assert_int_equal(chain.image, OVERLAY_IMAGE_SAME);
        assert_int_equal(overlay_count_bytes(chain.overlays[2]), 16 * 512);
        assert_int_equal(overlay_export(&chain, image, false, give_up, NULL, &err), -EINTR);
        overlay_chain_close(&chain);
        assert_int_equal(count_files(c->rig.dir), before);
        chain_fini(c);
        free(c);
}

static void chain_renamed_and_missing(void **state)
{
        struct chain *c = calloc(1, sizeof *c);
        struct err err;
        struct overlay_info info;
        char image[160], parent[512], elsewhere[160];
        int fd;

        chain_init(c);
        chain_end(c);
        snprintf(image, sizeof image, "%s/out.img", c->rig.dir);
        snprintf(elsewhere, sizeof elsewhere, "%s/renamed", c->rig.dir);
        fd = open(c->top, O_RDONLY);
        check(overlay_read_info(fd, &info, &err), &err);
        close(fd);
        snprintf(parent, sizeof parent, "%s/%s", c->rig.dir, info.parent_name);
        assert_int_equal(rename(parent, elsewhere), 0);
        check(export(c->top, image, false, &err), &err); /* found by its id */
        expect_image(image, c->model);
        unlink(elsewhere);
        unlink(image);
        assert_int_equal(export(c->top, image, false, &err), -EINVAL);
        assert_non_null(strstr(err.text, info.parent_name));
        assert_non_null(strstr(err.text, "missing"));
        /* another one by the same name */
        assert_int_equal(link(c->top, parent), 0);
        assert_int_equal(export(c->top, image, false, &err), -EINVAL);
        assert_non_null(strstr(err.text, info.parent_name));
        assert_int_equal(access(image, F_OK), -1);
        chain_fini(c);
        free(c);
}

static void image_changed(void **state)
{
        struct chain *c = calloc(1, sizeof *c);
        struct err err;
        struct overlay_chain chain;
        char image[160], base[160];
        int fd;

        chain_init(c);
        chain_end(c);
        snprintf(image, sizeof image, "%s/out.img", c->rig.dir);
        check(overlay_chain_open(c->top, &chain, &err), &err);
        strcpy(base, chain.overlays[0]->info.image);
        overlay_chain_close(&chain);
        fd = open(base, O_RDWR);
        usleep(20000);
        assert_int_equal(pwrite(fd, "X", 1, BYTES - 1), 1);
        close(fd);
        assert_int_equal(export(c->top, image, false, &err), -EINVAL);
        assert_non_null(strstr(err.text, base));
        assert_non_null(strstr(err.text, "--force"));
        check(export(c->top, image, true, &err), &err);
        c->model[BYTES - 1] = 'X';
        expect_image(image, c->model);
        unlink(image);
        assert_int_equal(truncate(base, BYTES - 4096), 0);
        check(export(c->top, image, true, &err), &err);
        memset(c->model + BYTES - 4096, 0, 4096);
        expect_image(image, c->model);
        unlink(base);
        unlink(image);
        assert_int_equal(export(c->top, image, true, &err), -EINVAL);
        assert_non_null(strstr(err.text, base));
        chain_fini(c);
        free(c);
}

/* Deeper than a stack may be: layers were merged in memory, and the files know nothing of it. */
static void deep_chain(void **state)
{
        enum { DEPTH = DISK_LAYERS_MAX + 3 };
        struct rig rig;
        struct machine m;
        struct frozen f;
        struct err err;
        char image[160], top[400];

        rig_init(&rig, true, true, 6);
        machine_init(&m, &rig, BYTES);
        for (unsigned i = 0; i < DEPTH; i++) {
                int fd, ro_fd;

                if (i) {
                        rig_overlay(&rig, &fd, &ro_fd);
                        disk_give_overlay(m.disk, fd, ro_fd);
                }
                machine_write(&m, i, 2, (uint8_t)(i + 1));
                machine_freeze(&m, &f);
                frozen_fini(&f);
        }
        machine_write(&m, 200, 1, 0xcc);
        assert_in_range(m.disk->noverlays, 2, DISK_LAYERS_MAX - 1);
        snprintf(top, sizeof top, "%s/%s", rig.dir, own(&m)->info.name);
        snprintf(image, sizeof image, "%s/out.img", rig.dir);
        disk_close(m.disk);
        check(export(top, image, false, &err), &err);
        expect_image(image, m.model);
        free(m.model);
        rig_fini(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(nothing_written_no_layer),
                cmocka_unit_test(what_is_passed_on),
                cmocka_unit_test(frozen_stays),
                cmocka_unit_test(cancelled),
                cmocka_unit_test(a_merge_that_fails),
                cmocka_unit_test(reset_is_cheap),
                cmocka_unit_test(reset_over_forks),
                cmocka_unit_test(reset_over_a_merge),
                cmocka_unit_test(a_publish_that_fails),
                cmocka_unit_test(restore_refuses),
                cmocka_unit_test(failed_restore_changes_nothing),
                cmocka_unit_test(images_that_are_none),
                cmocka_unit_test(exported),
                cmocka_unit_test(export_given_up),
                cmocka_unit_test(chain_renamed_and_missing),
                cmocka_unit_test(image_changed),
                cmocka_unit_test(deep_chain),
        };

        return cmocka_run_group_tests_name("disk_forks", tests, NULL, NULL);
}
