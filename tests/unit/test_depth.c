/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of clones of clones, to a depth that no stack of layers would reach: what each of them
 * shows is compared with a model, page by page, while templates and clones of all depths come and
 * go in random order.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "mem/backing.h"

#define PAGES 2048u /* 8 MiB */
#define PAGE  4096u
#define DEPTH 300
#define LIVES 10

static struct err err;

/* A stamp for each page; 0: it is empty. */
struct model {
        uint32_t stamp[PAGES];
};

struct tmpl {
        int layers[BACKING_LAYERS_MAX];
        unsigned nlayers;
        struct extent_list extents;
        struct model model;
};

struct life {
        bool alive;
        struct backing b;
        struct model model;
};

static uint32_t next_stamp = 1;

static uint32_t *word(const struct backing *b, unsigned page, unsigned which)
{
        return (uint32_t *)(b->hva + (size_t)page * PAGE + (which ? PAGE - 4 : 0));
}

static void write_page(struct backing *b, struct model *m, unsigned page)
{
        m->stamp[page] = next_stamp++;
        *word(b, page, 0) = m->stamp[page];
        *word(b, page, 1) = ~m->stamp[page];
}

/* Some in a row, some here and there. */
static void write_some(struct backing *b, struct model *m)
{
        unsigned runs = 1 + (unsigned)rand() % 4;

        while (runs--) {
                unsigned page = (unsigned)rand() % PAGES, n = 1 + (unsigned)rand() % 30;

                for (; n > 0 && page < PAGES; n--, page++)
                        write_page(b, m, page);
        }
        for (unsigned i = 0; i < 20; i++)
                write_page(b, m, (unsigned)rand() % PAGES);
}

static void check(const struct backing *b, const struct model *m, const char *what)
{
        for (unsigned page = 0; page < PAGES; page++) {
                uint32_t want = m->stamp[page];

                if (*word(b, page, 0) != want || *word(b, page, 1) != (want ? ~want : 0))
                        fail_msg("%s: page %u has %x, not %x", what, page, *word(b, page, 0), want);
        }
}

static uint64_t freeze(struct backing *b, const struct model *m, struct tmpl *t)
{
        struct backing_freeze f;
        uint64_t flattened;
        int r = backing_freeze_prepare(b, &f, &err);

        if (r == 0)
                r = backing_freeze(b, &f, &err);
        if (r == 0)
                r = backing_freeze_publish(b, &f, t->layers, &t->nlayers, &t->extents, &err);
        if (r < 0)
                fail_msg("%s", err.text);
        for (unsigned i = 0; i < t->nlayers; i++)
                t->layers[i] = dup(t->layers[i]);
        flattened = f.flattened_bytes;
        backing_freeze_end(&f);
        t->model = *m;
        return flattened;
}

static void drop(struct tmpl *t)
{
        while (t->nlayers)
                close(t->layers[--t->nlayers]);
        extent_list_fini(&t->extents);
}

static void be_born(struct life *l, const struct tmpl *t)
{
        int r = backing_clone(&l->b, (uint64_t)PAGES * PAGE, t->layers, t->nlayers,
                              t->extents.items, t->extents.count, &err);

        if (r < 0)
                fail_msg("%s", err.text);
        l->model = t->model;
        l->alive = true;
}

static void die(struct life *l)
{
        if (l->alive)
                backing_destroy(&l->b);
        l->alive = false;
}

/* Descriptors of layers in this process. */
static unsigned layer_fds(void)
{
        DIR *dir = opendir("/proc/self/fd");
        char path[300], to[300];
        struct dirent *d;
        unsigned n = 0;

        assert_non_null(dir);
        while ((d = readdir(dir))) {
                ssize_t len;

                snprintf(path, sizeof path, "/proc/self/fd/%s", d->d_name);
                len = readlink(path, to, sizeof to - 1);
                to[len > 0 ? len : 0] = '\0';
                n += !strncmp(to, "/memfd:ramet-", 13);
        }
        closedir(dir);
        return n;
}

/* What the layers of a template take, those above the root's. */
static uint64_t bytes_above_root(const struct tmpl *t)
{
        uint64_t bytes = 0;
        struct stat st;

        for (unsigned i = 1; i < t->nlayers; i++) {
                assert_int_equal(fstat(t->layers[i], &st), 0);
                bytes += (uint64_t)st.st_blocks * 512;
        }
        return bytes;
}

static void root_of(struct life *l)
{
        bool huge;

        memset(l, 0, sizeof *l);
        assert_int_equal(backing_create(&l->b, (uint64_t)PAGES * PAGE, false, &huge, &err), 0);
        l->alive = true;
        for (unsigned i = 0; i < 5; i++)
                write_some(&l->b, &l->model);
}

/* One line of descent, and a few of each generation that live on beside it. */
static void every_depth_has_the_memory_of_its_moment(void **state)
{
        static struct life line, others[LIVES];
        static struct tmpl t[2];
        unsigned before = layer_fds(), flattened = 0;

        srand(1);
        root_of(&line);
        for (unsigned depth = 1; depth <= DEPTH; depth++) {
                struct tmpl *now = &t[depth % 2];
                struct life *other = &others[rand() % LIVES];

                flattened += freeze(&line.b, &line.model, now) > 0;
                assert_in_range(now->nlayers, 1, BACKING_LAYERS_DEEP);
                assert_true(bytes_above_root(now) <= BACKING_LAYERS_DEEP * (uint64_t)PAGES * PAGE);
                die(other);
                be_born(other, now);
                check(&other->b, &other->model, "newborn");
                /* The parent is nobody's concern any more, nor is what it came from. */
                write_some(&line.b, &line.model);
                die(&line);
                drop(&t[!(depth % 2)]);
                be_born(&line, now);
                write_some(&line.b, &line.model);
                for (unsigned i = 0; i < LIVES; i++) {
                        if (!others[i].alive || (i + depth) % 3)
                                continue;
                        write_some(&others[i].b, &others[i].model);
                        check(&others[i].b, &others[i].model, "one of the others");
                }
                check(&line.b, &line.model, "the line");
        }
        assert_in_range(flattened, DEPTH / BACKING_LAYERS_DEEP, DEPTH / 8);
        for (unsigned i = 0; i < LIVES; i++)
                die(&others[i]);
        die(&line);
        drop(&t[0]);
        drop(&t[1]);
        assert_int_equal(layer_fds(), before);
}

/* A tree that grows and dies at random places: machines are frozen again and again, cloned, reset,
 * and destroyed while others stand on what they froze. */
static void a_tree_grows_and_dies_at_random(void **state)
{
        static struct life lives[LIVES];
        static struct tmpl tmpls[LIVES];
        static struct model reset_to[LIVES];
        unsigned before = layer_fds();

        srand(2);
        root_of(&lives[0]);
        for (unsigned round = 0; round < 1500; round++) {
                unsigned a = (unsigned)rand() % LIVES, b = (unsigned)rand() % LIVES;

                switch (rand() % 6) {
                case 0:
                case 1:
                        if (lives[a].alive)
                                write_some(&lives[a].b, &lives[a].model);
                        break;
                case 2:
                        if (!lives[a].alive)
                                break;
                        if (lives[a].b.nlayers == 0) /* a root's first */
                                reset_to[a] = lives[a].model;
                        drop(&tmpls[b]);
                        freeze(&lives[a].b, &lives[a].model, &tmpls[b]);
                        assert_in_range(tmpls[b].nlayers, 1, BACKING_LAYERS_DEEP);
                        break;
                case 3:
                        if (!tmpls[b].nlayers)
                                break;
                        die(&lives[a]);
                        be_born(&lives[a], &tmpls[b]);
                        reset_to[a] = lives[a].model;
                        break;
                case 4:
                        if (lives[a].alive && lives[a].b.nlayers) {
                                assert_int_equal(backing_reset(&lives[a].b, &err), 0);
                                lives[a].model = reset_to[a];
                        }
                        break;
                case 5:
                        if (rand() % 4 == 0)
                                drop(&tmpls[b]);
                        break;
                }
                if (lives[a].alive)
                        check(&lives[a].b, &lives[a].model, "a machine");
        }
        for (unsigned i = 0; i < LIVES; i++) {
                if (lives[i].alive)
                        check(&lives[i].b, &lives[i].model, "a machine at the end");
                die(&lives[i]);
                drop(&tmpls[i]);
        }
        assert_int_equal(layer_fds(), before);
}

/* A machine that stands on as many layers as there may be can be frozen again and again, and those
 * templates show the same memory, made of two layers. */
static void flattening_shows_the_same_memory(void **state)
{
        static struct life line, clone;
        static struct tmpl t[2], flat;
        unsigned depth = 0;

        srand(3);
        root_of(&line);
        while (line.b.nlayers < BACKING_LAYERS_DEEP) {
                struct tmpl *now = &t[depth++ % 2];

                drop(now);
                freeze(&line.b, &line.model, now);
                die(&line);
                be_born(&line, now);
                write_some(&line.b, &line.model);
        }
        for (unsigned i = 0; i < 3; i++) {
                uint64_t flattened = freeze(&line.b, &line.model, &flat);

                assert_int_equal(flat.nlayers, 2);
                assert_in_range(flattened, PAGE, (uint64_t)PAGES * PAGE);
                assert_true(flat.extents.count < t[(depth - 1) % 2].extents.count);
                be_born(&clone, &flat);
                check(&clone.b, &clone.model, "a clone of it");
                die(&clone);
                check(&line.b, &line.model, "the machine itself");
                drop(&flat);
                write_some(&line.b, &line.model);
        }
        die(&line);
        drop(&t[0]);
        drop(&t[1]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_depth_has_the_memory_of_its_moment),
                cmocka_unit_test(a_tree_grows_and_dies_at_random),
                cmocka_unit_test(flattening_shows_the_same_memory),
        };

        return cmocka_run_group_tests_name("depth", tests, NULL, NULL);
}
