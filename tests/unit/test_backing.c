/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freezing memory without a machine on it: each fact that freeze and spawn rest on has its case. A
 * template here is what a freeze publishes: layers and extents.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <cmocka.h>

#include "mem/backing.h"

#define MIB  (1ull << 20)
#define SIZE (32 * MIB)
#define PAGE 4096u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED 0
#endif

struct tmpl {
        int layers[BACKING_LAYERS_MAX];
        unsigned nlayers;
        struct extent_list extents;
};

static struct err err;

static void root(struct backing *b)
{
        bool huge;

        assert_int_equal(backing_create(b, SIZE, false, &huge, &err), 0);
}

/* All three steps; @between runs where the vCPUs would write between scan and stop. */
static int freeze(struct backing *b, struct tmpl *t, uint64_t *copied, uint8_t *between)
{
        struct backing_freeze f;
        int r = backing_freeze_prepare(b, &f, &err);

        assert_int_equal(r, 0);
        if (between)
                *between = 0x77;
        r = backing_freeze(b, &f, &err);
        assert_int_equal(r, 0);
        r = backing_freeze_publish(b, &f, t->layers, &t->nlayers, &t->extents, &err);
        if (r == 0) {
                for (unsigned i = 0; i < t->nlayers; i++)
                        t->layers[i] = dup(t->layers[i]);
                if (copied)
                        *copied = f.copied_bytes;
        }
        backing_freeze_end(&f);
        return r;
}

static void clone_of(struct backing *b, const struct tmpl *t)
{
        assert_int_equal(backing_clone(b, SIZE, t->layers, t->nlayers, t->extents.items,
                                       t->extents.count, &err),
                         0);
}

static void drop(struct tmpl *t)
{
        for (unsigned i = 0; i < t->nlayers; i++)
                close(t->layers[i]);
        extent_list_fini(&t->extents);
}

static void first_freeze_copies_nothing_and_isolates(void **state)
{
        struct backing parent, a, b;
        struct tmpl t = {0};
        uint64_t copied = 1;
        uint8_t *hva;

        root(&parent);
        memset(parent.hva, 0x11, 4 * MIB);
        hva = parent.hva;
        assert_int_equal(freeze(&parent, &t, &copied, NULL), 0);
        assert_int_equal(copied, 0);
        assert_ptr_equal(parent.hva, hva);
        assert_int_equal(t.nlayers, 1);
        clone_of(&a, &t);
        clone_of(&b, &t);
        parent.hva[0] = 1;
        a.hva[0] = 2;
        b.hva[0] = 3;
        assert_int_equal(parent.hva[0], 1);
        assert_int_equal(a.hva[0], 2);
        assert_int_equal(b.hva[0], 3);
        assert_int_equal(a.hva[4 * MIB - 1], 0x11);
        assert_int_equal(a.hva[4 * MIB], 0);
        drop(&t); /* clones keep what they need */
        assert_int_equal(b.hva[4 * MIB - PAGE], 0x11);
        backing_destroy(&parent);
        backing_destroy(&a);
        assert_int_equal(b.hva[MIB], 0x11);
        backing_destroy(&b);
}

static void nobody_can_write_a_layer(void **state)
{
        struct backing parent;
        struct tmpl t = {0};
        char path[64];
        int rw;

        root(&parent);
        memset(parent.hva, 0x22, MIB);
        rw = dup(parent.shared_fd); /* even with a descriptor from before */
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        assert_int_equal(pwrite(rw, "x", 1, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_ptr_equal(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, rw, 0), MAP_FAILED);
        assert_int_equal(ftruncate(rw, 0), -1);
        assert_int_equal(fcntl(t.layers[0], F_GETFL) & O_ACCMODE, O_RDONLY);
        snprintf(path, sizeof path, "/proc/self/fd/%d", t.layers[0]);
        parent.hva[0] = 9;
        assert_int_equal(pread(rw, path, 1, 0), 1);
        assert_int_equal(path[0], 0x22);
        close(rw);
        drop(&t);
        backing_destroy(&parent);
}

static void a_writer_elsewhere_means_no_template(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0};
        uint8_t *other;

        root(&parent);
        memset(parent.hva, 0x33, MIB);
        /* Readable only, but of a writable descriptor: it could become writable. */
        other = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, parent.shared_fd, 0);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), -EBUSY);
        assert_non_null(strstr(err.text, "sealing guest memory"));
        parent.hva[0] = 0x44; /* the parent runs on */
        assert_int_equal(parent.hva[PAGE], 0x33);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), -EBUSY);
        munmap(other, PAGE);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        clone_of(&clone, &t);
        assert_int_equal(clone.hva[0], 0x44);
        assert_int_equal(clone.hva[PAGE], 0x33);
        drop(&t);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

static long blocks(int fd)
{
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        return st.st_blocks;
}

static void holes_cost_the_layer_nothing(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0};
        unsigned sum = 0;
        long before;

        root(&parent);
        parent.hva[0] = 1;
        parent.hva[8 * MIB] = 2;
        parent.hva[SIZE - 1] = 3;
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        assert_int_equal(t.extents.count, 3);
        before = blocks(t.layers[0]);
        clone_of(&clone, &t);
        for (uint64_t at = 0; at < SIZE; at += PAGE)
                sum += clone.hva[at] + parent.hva[at];
        for (uint64_t at = 0; at < SIZE; at += PAGE)
                clone.hva[at + 1] = 1;
        assert_int_equal(sum, 2 * (1 + 2)); /* the 3 is at its page's end */
        assert_int_equal(blocks(t.layers[0]), before);
        drop(&t);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

static void data_written_after_the_scan_is_not_lost(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0};

        root(&parent);
        parent.hva[0] = 1;
        assert_int_equal(freeze(&parent, &t, NULL, parent.hva + 20 * MIB), 0);
        assert_int_equal(parent.hva[20 * MIB], 0x77);
        clone_of(&clone, &t);
        assert_int_equal(clone.hva[20 * MIB], 0x77);
        drop(&t);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

static void clones_of_clones_stack(void **state)
{
        struct backing chain[6];
        struct tmpl t[6] = {0};
        uint64_t copied, shared, own;

        root(&chain[0]);
        memset(chain[0].hva, 0xa0, 2 * MIB);
        for (unsigned i = 0; i < 5; i++) {
                assert_int_equal(freeze(&chain[i], &t[i], &copied, NULL), 0);
                assert_int_equal(t[i].nlayers, i + 1);
                if (i > 0)
                        assert_true(copied <= 128 * 1024);
                clone_of(&chain[i + 1], &t[i]);
                /* each generation overwrites one page of the base and one in a hole */
                memset(chain[i + 1].hva + i * 64 * PAGE, 0xb0 + (int)i, PAGE);
                memset(chain[i + 1].hva + 10 * MIB + i * MIB, 0xc0 + (int)i, PAGE);
        }
        for (unsigned i = 0; i < 5; i++) {
                assert_int_equal(chain[5].hva[i * 64 * PAGE], 0xb0 + i);
                assert_int_equal(chain[5].hva[10 * MIB + i * MIB], 0xc0 + i);
        }
        assert_int_equal(chain[1].hva[64 * PAGE], 0xa0); /* nothing flows upwards */
        assert_int_equal(backing_usage(&chain[5], &shared, &own), 0);
        assert_int_equal(own, 2 * PAGE);
        assert_true(shared >= 2 * MIB - PAGE);
        for (unsigned i = 0; i < 6; i++) {
                drop(&t[i]);
                backing_destroy(&chain[i]);
        }
}

static void a_second_freeze_of_one_parent_sees_its_writes(void **state)
{
        struct backing parent, one, two;
        struct tmpl t1 = {0}, t2 = {0};

        root(&parent);
        memset(parent.hva, 0x55, MIB);
        assert_int_equal(freeze(&parent, &t1, NULL, NULL), 0);
        parent.hva[5 * PAGE] = 0x66;
        parent.hva[12 * MIB] = 0x67;
        assert_int_equal(freeze(&parent, &t2, NULL, NULL), 0);
        parent.hva[5 * PAGE] = 0x68;
        clone_of(&one, &t1);
        clone_of(&two, &t2);
        assert_int_equal(one.hva[5 * PAGE], 0x55);
        assert_int_equal(one.hva[12 * MIB], 0);
        assert_int_equal(two.hva[5 * PAGE], 0x66);
        assert_int_equal(two.hva[12 * MIB], 0x67);
        drop(&t1);
        drop(&t2);
        backing_destroy(&one);
        backing_destroy(&two);
        backing_destroy(&parent);
}

/* Is [hva, hva + size) one mapping? */
static bool is_one_mapping(const uint8_t *hva, uint64_t size)
{
        FILE *maps = fopen("/proc/self/maps", "re");
        char line[512];
        bool found = false;

        assert_non_null(maps);
        while (!found && fgets(line, sizeof line, maps)) {
                unsigned long start, end;

                found = sscanf(line, "%lx-%lx", &start, &end) == 2 && start == (uintptr_t)hva &&
                        end == (uintptr_t)hva + size;
        }
        fclose(maps);
        return found;
}

static int failing_arm(struct backing *b, struct err *e)
{
        return err_host(e, ENOMEM, "no arms");
}

/* An engine that cannot catch writes keeps the freeze from happening, and nothing else. */
static void a_freeze_that_the_engine_refuses_changes_nothing(void **state)
{
        struct cow_engine failing = cow_private;
        struct backing_freeze f;
        struct backing b, clone;
        struct tmpl t = {0};
        uint8_t byte;

        root(&b);
        memset(b.hva, 0x11, MIB);
        failing.arm = failing_arm;
        assert_int_equal(backing_set_cow(&b, &failing, &(struct cow_env){0}, &err), 0);
        assert_int_equal(backing_freeze_prepare(&b, &f, &err), 0);
        assert_int_equal(backing_freeze(&b, &f, &err), -ENOMEM);
        backing_freeze_end(&f);
        assert_int_equal(b.nlayers, 0);
        b.hva[0] = 0x22; /* it runs on, on shared memory */
        b.hva[2 * MIB] = 0x33;
        assert_int_equal(pread(b.shared_fd, &byte, 1, 2 * MIB), 1);
        assert_int_equal(byte, 0x33);
        failing.arm = cow_private.arm; /* the next one goes well, and has what was written since */
        assert_int_equal(freeze(&b, &t, NULL, NULL), 0);
        clone_of(&clone, &t);
        assert_int_equal(clone.hva[0], 0x22);
        assert_int_equal(clone.hva[1], 0x11);
        assert_int_equal(clone.hva[2 * MIB], 0x33);
        backing_destroy(&clone);
        backing_destroy(&b);
        drop(&t);
}

/* Transparent huge pages cover whole multiples of 2 MiB; memory need not be one. It must be one
 * mapping all the same: before Linux 6.17 a freeze can move aside only one. */
static void memory_may_end_inside_a_huge_page(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0};
        uint64_t size = 4 * MIB + 3 * PAGE;
        bool huge;

        assert_int_equal(backing_create(&parent, size, true, &huge, &err), 0);
        assert_true(is_one_mapping(parent.hva, size));
        parent.hva[0] = 1;
        parent.hva[size - 1] = 2;
        if (freeze(&parent, &t, NULL, NULL))
                fail_msg("%s", err.text);
        assert_int_equal(
                backing_clone(&clone, size, t.layers, 1, t.extents.items, t.extents.count, &err),
                0);
        assert_int_equal(clone.hva[0], 1);
        assert_int_equal(clone.hva[size - 1], 2);
        drop(&t);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

static bool has_pagemap_scan(void)
{
        struct utsname u;
        int major = 0, minor = 0;

        uname(&u);
        sscanf(u.release, "%d.%d", &major, &minor);
        return major > 6 || (major == 6 && minor >= 7);
}

/* Pages of holes that were read, and never written, are the kernel's page of zeros. */
static void reading_holes_makes_nothing_private(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0}, t2 = {0};
        uint64_t copied, shared, own;
        unsigned sum = 0;

        root(&parent);
        parent.hva[0] = 1;
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        clone_of(&clone, &t);
        for (uint64_t at = 0; at < SIZE; at += PAGE)
                sum += clone.hva[at];
        assert_int_equal(sum, 1);
        clone.hva[20 * MIB] = 2;
        assert_int_equal(backing_usage(&clone, &shared, &own), 0);
        if (has_pagemap_scan())
                assert_int_equal(own, PAGE);
        assert_int_equal(freeze(&clone, &t2, &copied, NULL), 0);
        if (has_pagemap_scan())
                assert_int_equal(copied, PAGE);
        assert_true(copied >= PAGE && own >= PAGE);
        drop(&t);
        drop(&t2);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

/* "ShmemPmdMapped" of the mapping that begins at @hva: bytes of it that huge pages map. */
static uint64_t huge_bytes(const uint8_t *hva)
{
        FILE *smaps = fopen("/proc/self/smaps", "re");
        unsigned long start, end, kib = 0;
        char line[512];
        bool here = false;

        assert_non_null(smaps);
        while (fgets(line, sizeof line, smaps)) {
                if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
                        here = start == (uintptr_t)hva;
                else if (here && sscanf(line, "ShmemPmdMapped: %lu kB", &kib) == 1)
                        break;
        }
        fclose(smaps);
        return kib << 10;
}

static void huge_pages_are_huge_and_freeze_like_others(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0}, t2 = {0};
        bool huge;

        assert_int_equal(backing_create(&parent, SIZE, true, &huge, &err), 0);
        if (!huge) {
                backing_destroy(&parent);
                print_message("this host gives a memfd no huge pages\n");
                skip();
        }
        for (uint64_t at = 0; at < SIZE; at += BACKING_HUGE_PAGE / 2)
                parent.hva[at] = (uint8_t)(1 + at / MIB);
        assert_int_equal(huge_bytes(parent.hva), SIZE);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        assert_int_equal(t.extents.count, 1);
        clone_of(&clone, &t);
        for (uint64_t at = 0; at < SIZE; at += BACKING_HUGE_PAGE / 2) {
                assert_int_equal(parent.hva[at], (uint8_t)(1 + at / MIB));
                parent.hva[at] = 0xee; /* each breaks one page out of a huge one */
                assert_int_equal(clone.hva[at], (uint8_t)(1 + at / MIB));
                assert_int_equal(clone.hva[at + PAGE], 0);
        }
        clone.hva[3 * BACKING_HUGE_PAGE + PAGE] = 0x77;
        assert_int_equal(freeze(&clone, &t2, NULL, NULL), 0);
        backing_destroy(&clone);
        clone_of(&clone, &t2);
        assert_int_equal(clone.hva[3 * BACKING_HUGE_PAGE + PAGE], 0x77);
        assert_int_equal(clone.hva[3 * BACKING_HUGE_PAGE], 7);
        assert_int_equal(clone.hva[3 * BACKING_HUGE_PAGE + 2 * PAGE], 0);
        drop(&t);
        drop(&t2);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

/* A registered buffer stays writable by the kernel whatever happens to the mapping. */
static void pinned_memory_means_no_template(void **state)
{
        struct io_uring_params params = {0};
        int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
        struct backing parent, clone;
        struct tmpl t = {0};
        struct iovec buffer;

        if (ring < 0) {
                print_message("io_uring_setup: %s\n", strerror(errno));
                skip();
        }
        root(&parent);
        memset(parent.hva, 0x33, MIB);
        buffer = (struct iovec){.iov_base = parent.hva + PAGE, .iov_len = PAGE};
        if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1) < 0)
                fail_msg("registering a buffer: %s", strerror(errno));
        assert_int_equal(freeze(&parent, &t, NULL, NULL), -EBUSY);
        assert_non_null(strstr(err.text, "maps or pins"));
        parent.hva[PAGE] = 0x44; /* the parent runs on */
        assert_int_equal(parent.hva[PAGE], 0x44);
        assert_int_equal(parent.hva[0], 0x33);
        assert_int_equal(syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0),
                         0);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        clone_of(&clone, &t);
        assert_int_equal(clone.hva[PAGE], 0x44);
        assert_int_equal(clone.hva[2 * PAGE], 0x33);
        close(ring);
        drop(&t);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

static void expect_no_shared_writing(int fd, int error)
{
        uint8_t *p;

        errno = 0;
        assert_ptr_equal(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        assert_int_equal(errno, error);
        p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0); /* refused too before Linux 6.7 */
        if (p == MAP_FAILED)
                return;
        assert_int_equal(mprotect(p, PAGE, PROT_READ | PROT_WRITE), -1);
        munmap(p, PAGE);
}

/* The descriptor refuses by itself (EACCES), before the layer is sealed for good, too; opened anew
 * for writing, or of a copied layer, the seal refuses (EPERM). */
static void a_layer_cannot_be_mapped_for_shared_writing(void **state)
{
        struct backing parent, clone;
        struct tmpl t = {0}, t2 = {0};
        char path[64];
        int rw;

        root(&parent);
        parent.hva[0] = 1;
        expect_no_shared_writing(parent.shared_ro_fd, EACCES);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        expect_no_shared_writing(t.layers[0], EACCES);
        snprintf(path, sizeof path, "/proc/self/fd/%d", t.layers[0]);
        rw = open(path, O_RDWR | O_CLOEXEC);
        if (rw >= 0) {
                expect_no_shared_writing(rw, EPERM);
                close(rw);
        }
        clone_of(&clone, &t);
        clone.hva[PAGE] = 2;
        assert_int_equal(freeze(&clone, &t2, NULL, NULL), 0);
        assert_int_equal(t2.nlayers, 2);
        expect_no_shared_writing(t2.layers[0], EACCES);
        expect_no_shared_writing(t2.layers[1], EPERM);
        drop(&t);
        drop(&t2);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

/* A process may have 65,530 mappings (vm.max_map_count) and no more: when a freeze finds that out
 * half-way, memory must still be as it was. */
static void a_freeze_without_room_for_mappings_changes_nothing(void **state)
{
        struct backing parent, clone;
        struct backing_freeze f;
        struct tmpl t = {0};
        uint8_t *hva, *many;
        unsigned failed = 0;
        size_t n = 0;

        if (SANITIZED) {
                print_message("a sanitizer needs mappings of its own\n");
                skip();
        }
        root(&parent);
        hva = parent.hva;
        for (unsigned i = 0; i < 32; i++)
                hva[i * MIB] = (uint8_t)(i + 1);
        many = mmap(NULL, 70000ull * 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(many, MAP_FAILED);
        while (n < 70000 && mprotect(many + n * 2 * PAGE, PAGE, PROT_READ) == 0)
                n++;
        for (unsigned room = 0; n < 70000 && room < 40; room++) {
                assert_int_equal(backing_freeze_prepare(&parent, &f, &err), 0);
                if (backing_freeze(&parent, &f, &err) == 0)
                        break;
                failed++;
                backing_freeze_end(&f);
                assert_null(parent.parked);
                for (unsigned i = 0; i < 32; i++)
                        assert_int_equal(hva[i * MIB], i + 1);
                hva[failed] = 0x99; /* still shared with the memfd */
                assert_int_equal(pread(parent.shared_fd, &t, 1, (off_t)failed), 1);
                assert_int_equal(*(uint8_t *)&t, 0x99);
                t = (struct tmpl){0};
                n--;
                mprotect(many + n * 2 * PAGE, PAGE, PROT_NONE); /* two mappings fewer */
        }
        munmap(many, 70000ull * 2 * PAGE);
        if (n == 70000)
                skip(); /* this host allows more mappings */
        assert_true(failed > 1);
        backing_freeze_end(&f);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        clone_of(&clone, &t);
        assert_int_equal(clone.hva[31 * MIB], 32);
        assert_int_equal(clone.hva[1], 0x99);
        drop(&t);
        backing_destroy(&clone);
        backing_destroy(&parent);
}

/* Each generation of clones can break what it stands on into a thousand pieces more. Flattening
 * keeps them few. */
static void generations_in_pieces_stay_mappable(void **state)
{
        uint64_t size = 512 * MIB;
        struct backing b, next;
        struct tmpl t = {0};
        bool huge;

        assert_int_equal(backing_create(&b, size, false, &huge, &err), 0);
        for (uint64_t at = 0; at < size; at += MIB)
                memset(b.hva + at, 1, MIB);
        for (unsigned generation = 0; generation < 40; generation++) {
                if (freeze(&b, &t, NULL, NULL) ||
                    backing_clone(&next, size, t.layers, t.nlayers, t.extents.items,
                                  t.extents.count, &err))
                        fail_msg("generation %u, %zu pieces: %s", generation, t.extents.count,
                                 err.text);
                assert_true(t.extents.count <= 16384);
                drop(&t);
                t = (struct tmpl){0};
                backing_destroy(&b);
                b = next;
                for (unsigned i = 0; i < 512; i++)
                        b.hva[generation % 8 * 64 * MIB + i * 32 * PAGE +
                              generation / 8 * 2 * PAGE] = 2;
        }
        assert_int_equal(b.hva[0], 2);
        assert_int_equal(b.hva[PAGE], 1);
        backing_destroy(&b);
}

/* A template that somebody else made can be in more pieces than one of ours. What its clones could
 * not map any more is refused when they are frozen, and not when theirs start. */
static void too_many_pieces_are_refused_by_the_freeze(void **state)
{
        uint64_t size = 256 * MIB;
        struct extent_list pieces = {0};
        struct backing parent, b;
        struct tmpl t;
        bool huge;

        assert_int_equal(backing_create(&parent, size, false, &huge, &err), 0);
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        for (unsigned i = 0; i < 16000; i++)
                extent_add(&pieces, i * 2ull * PAGE, PAGE, 0);
        assert_int_equal(backing_clone(&b, size, t.layers, 1, pieces.items, pieces.count, &err), 0);
        drop(&t);
        extent_list_fini(&pieces);
        for (uint64_t i = 0; i < 500; i++)
                b.hva[128 * MIB + i * 32 * PAGE] = 2;
        assert_int_equal(freeze(&b, &t, NULL, NULL), -E2BIG);
        assert_int_equal(b.hva[128 * MIB], 2); /* it runs on */
        backing_destroy(&b);
        backing_destroy(&parent);
}

static void lying_layouts_are_refused(void **state)
{
        static const struct {
                struct extent e[2];
                unsigned n;
        } bad[] = {
                {{{.offset = 1, .length = PAGE}}, 1},
                {{{.offset = 0, .length = 0}}, 1},
                {{{.offset = 0, .length = PAGE + 1}}, 1},
                {{{.offset = SIZE, .length = PAGE}}, 1},
                {{{.offset = PAGE, .length = UINT64_MAX - PAGE + 1}}, 1},
                {{{.offset = 0, .length = PAGE, .layer = 1}}, 1},
                {{{.offset = PAGE, .length = PAGE}, {.offset = PAGE, .length = PAGE}}, 2},
                {{{.offset = 2 * PAGE, .length = PAGE}, {.offset = 0, .length = PAGE}}, 2},
        };
        struct backing parent, clone;
        struct tmpl t = {0};
        int open_fd = memfd_create("open", MFD_CLOEXEC);

        root(&parent);
        parent.hva[0] = 1;
        assert_int_equal(freeze(&parent, &t, NULL, NULL), 0);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
                assert_int_equal(backing_clone(&clone, SIZE, t.layers, 1, bad[i].e, bad[i].n, &err),
                                 -EINVAL);
        assert_int_equal(backing_clone(&clone, SIZE, &open_fd, 1, bad[0].e, 0, &err), -EINVAL);
        /* inside the machine, but past the layer's end */
        assert_int_equal(backing_clone(&clone, 2 * SIZE, t.layers, 1,
                                       (struct extent[]){{.offset = SIZE, .length = PAGE}}, 1,
                                       &err),
                         -EINVAL);
        close(open_fd);
        drop(&t);
        backing_destroy(&parent);
}

/* --- extents against a plain array of pages --- */

#define PAGES 96

static void paint(const struct extent_list *l, int *pages, bool with_layer)
{
        for (size_t i = 0; i < l->count; i++) {
                for (uint64_t p = 0; p < l->items[i].length / PAGE; p++)
                        pages[l->items[i].offset / PAGE + p] =
                                with_layer ? (int)l->items[i].layer : 1;
        }
}

static void random_list(struct extent_list *l, unsigned layers)
{
        for (unsigned p = 0; p < PAGES;) {
                unsigned n = 1 + (unsigned)rand() % 6;

                if (p + n > PAGES)
                        n = PAGES - p;
                if (rand() % 2)
                        assert_int_equal(
                                extent_add(l, p * PAGE, n * PAGE, (uint32_t)rand() % layers), 0);
                p += n;
        }
}

static void overlay_and_coarsen_equal_the_plain_answer(void **state)
{
        srand(7);
        for (unsigned round = 0; round < 20000; round++) {
                struct extent_list below = {0}, above = {0}, out = {0};
                int want[PAGES], got[PAGES], before[PAGES] = {0}, after[PAGES] = {0};

                random_list(&below, 3);
                random_list(&above, 1);
                memset(want, 0xff, sizeof want);
                memset(got, 0xff, sizeof got);
                paint(&below, want, true);
                for (size_t i = 0; i < above.count; i++)
                        above.items[i].layer = 3;
                paint(&above, want, true);
                assert_int_equal(extent_overlay(&below, &above, &out), 0);
                assert_int_equal(extent_check(out.items, out.count, PAGES * PAGE, 4, &err), 0);
                paint(&out, got, true);
                assert_memory_equal(got, want, sizeof got);

                paint(&above, before, false);
                extent_coarsen(&above, (unsigned)rand() % 3 * PAGE, 1 + (unsigned)rand() % 8);
                assert_int_equal(extent_check(above.items, above.count, PAGES * PAGE, 4, &err), 0);
                paint(&above, after, false);
                for (unsigned p = 0; p < PAGES; p++)
                        assert_true(after[p] >= before[p]);
                assert_true(above.count <= 8);
                extent_list_fini(&below);
                extent_list_fini(&above);
                extent_list_fini(&out);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(first_freeze_copies_nothing_and_isolates),
                cmocka_unit_test(nobody_can_write_a_layer),
                cmocka_unit_test(a_writer_elsewhere_means_no_template),
                cmocka_unit_test(holes_cost_the_layer_nothing),
                cmocka_unit_test(data_written_after_the_scan_is_not_lost),
                cmocka_unit_test(clones_of_clones_stack),
                cmocka_unit_test(a_second_freeze_of_one_parent_sees_its_writes),
                cmocka_unit_test(a_freeze_that_the_engine_refuses_changes_nothing),
                cmocka_unit_test(memory_may_end_inside_a_huge_page),
                cmocka_unit_test(reading_holes_makes_nothing_private),
                cmocka_unit_test(huge_pages_are_huge_and_freeze_like_others),
                cmocka_unit_test(pinned_memory_means_no_template),
                cmocka_unit_test(a_layer_cannot_be_mapped_for_shared_writing),
                cmocka_unit_test(a_freeze_without_room_for_mappings_changes_nothing),
                cmocka_unit_test(generations_in_pieces_stay_mappable),
                cmocka_unit_test(too_many_pieces_are_refused_by_the_freeze),
                cmocka_unit_test(lying_layouts_are_refused),
                cmocka_unit_test(overlay_and_coarsen_equal_the_plain_answer),
        };

        return cmocka_run_group_tests_name("backing", tests, NULL, NULL);
}
