// SPDX-License-Identifier: Apache-2.0
/*
 * Floors under the figures of the block device: a bare io_uring loop, and the bare calls of what a
 * fork does to a disk. Prints nanoseconds, one sample a line. Shares no code with src/.
 *
 * block MODE FILE N: N requests to FILE, which is there; each is timed from the call that submits
 *     it until its completion has been seen. MODE:
 *
 *     rand-qd1     4 KiB reads at random places: one io_uring_submit_and_wait() for each
 *     rand-qd32    the same with 32 in flight: one io_uring_submit_and_wait(1) for as many as have
 *                  come to an end
 *     seq          128 KiB reads, one after the other
 *     seq-write    128 KiB writes, one after the other
 *
 * block drain FILE N DEPTH: N times, DEPTH 4 KiB reads at once, from their submission until all of
 *     them have come to an end.
 *
 * block layers FILE N: N times, what a clone cannot do without to have a disk of an image and one
 *     layer: dup of both, memfd_create, ftruncate, one pwrite of a page, open for reading.
 * block copy BYTES N: N times, a copy of BYTES bytes there and back; the mean of 100.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 32

static uint64_t now_ns(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static long check(long r, const char *what)
{
        if (r < 0) {
                fprintf(stderr, "block: %s: %s\n", what, strerror(r == -1 ? errno : (int)-r));
                exit(1);
        }
        return r;
}

/* xorshift64: the same places in each run */
static uint64_t next_random(void)
{
        static uint64_t x = 88172645463325252ull;

        x ^= x << 13;
        x ^= x >> 7;
        return x ^= x << 17;
}

struct bench {
        struct io_uring ring;
        int fd;
        uint64_t blocks, block, next;
        int sequential, write;
        uint8_t *buffers;
        uint64_t began[DEPTH_MAX];
};

static void prepare(struct bench *b, unsigned slot)
{
        struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);
        uint64_t at = (b->sequential ? b->next++ : next_random()) % b->blocks * b->block;
        uint8_t *buffer = b->buffers + slot * b->block;

        if (b->write)
                io_uring_prep_write(sqe, b->fd, buffer, (unsigned)b->block, at);
        else
                io_uring_prep_read(sqe, b->fd, buffer, (unsigned)b->block, at);
        io_uring_sqe_set_data64(sqe, slot);
}

static void bench_open(struct bench *b, const char *path, unsigned depth, uint64_t block)
{
        struct stat st;

        *b = (struct bench){.block = block};
        b->fd = (int)check(open(path, O_RDWR | O_CLOEXEC), path);
        check(fstat(b->fd, &st), "fstat");
        b->blocks = (uint64_t)st.st_size / block;
        b->buffers = mmap(NULL, depth * block, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        check(b->buffers == MAP_FAILED ? -1 : 0, "mmap");
        check(io_uring_queue_init(64, &b->ring,
                                  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN),
              "io_uring_queue_init");
}

static void requests(const char *path, uint64_t n, unsigned depth, uint64_t block, int sequential,
                     int write)
{
        static struct bench b;
        uint64_t *took = calloc(n, sizeof *took), left = n, seen = 0, start;
        unsigned idle[DEPTH_MAX], nidle = depth;
        struct io_uring_cqe *cqe;

        bench_open(&b, path, depth, block);
        b.sequential = sequential;
        b.write = write;
        for (unsigned i = 0; i < depth; i++)
                idle[i] = i;
        while (seen < n) {
                start = now_ns();
                for (; nidle > 0 && left > 0; left--) {
                        unsigned slot = idle[--nidle];

                        b.began[slot] = start;
                        prepare(&b, slot);
                }
                check(io_uring_submit_and_wait(&b.ring, 1), "io_uring_submit_and_wait");
                while (io_uring_peek_cqe(&b.ring, &cqe) == 0) {
                        unsigned slot = (unsigned)io_uring_cqe_get_data64(cqe);

                        check(cqe->res == (int)block ? 0 : cqe->res < 0 ? cqe->res : -EIO, "I/O");
                        took[seen++] = now_ns() - b.began[slot];
                        idle[nidle++] = slot;
                        io_uring_cqe_seen(&b.ring, cqe);
                }
        }
        for (uint64_t i = 0; i < n; i++)
                printf("%llu\n", (unsigned long long)took[i]);
        free(took);
}

/* As many as @depth at once, and then until the last of them has come to its end. */
static void drain(const char *path, uint64_t n, unsigned depth)
{
        static struct bench b;
        struct io_uring_cqe *cqe;

        bench_open(&b, path, depth, 4096);
        for (uint64_t i = 0; i < n; i++) {
                uint64_t start;

                for (unsigned slot = 0; slot < depth; slot++)
                        prepare(&b, slot);
                start = now_ns();
                for (unsigned left = depth; left > 0;) {
                        check(io_uring_submit_and_wait(&b.ring, 1), "io_uring_submit_and_wait");
                        for (; io_uring_peek_cqe(&b.ring, &cqe) == 0; left--)
                                io_uring_cqe_seen(&b.ring, cqe);
                }
                printf("%llu\n", (unsigned long long)(now_ns() - start));
        }
}

static void layers(const char *path, uint64_t n)
{
        int image = (int)check(open(path, O_RDONLY | O_CLOEXEC), path);
        int below = (int)check(memfd_create("floor", MFD_CLOEXEC), "memfd_create");
        uint8_t header[4096] = {0};

        for (uint64_t i = 0; i < n; i++) {
                uint64_t start = now_ns();
                int first = (int)check(dup(image), "dup"), second = (int)check(dup(below), "dup");
                int fd = (int)check(memfd_create("floor", MFD_CLOEXEC | MFD_ALLOW_SEALING),
                                    "memfd_create");
                char name[64];
                int ro;

                check(ftruncate(fd, 1 << 30), "ftruncate");
                check(pwrite(fd, header, sizeof header, 0), "pwrite");
                snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
                ro = (int)check(open(name, O_RDONLY | O_CLOEXEC), name);
                printf("%llu\n", (unsigned long long)(now_ns() - start));
                close(first);
                close(second);
                close(fd);
                close(ro);
        }
}

static void copy(size_t bytes, uint64_t n)
{
        uint8_t *a = calloc(1, bytes), *b = calloc(1, bytes);

        for (uint64_t i = 0; i < n; i++) {
                uint64_t start = now_ns();

                for (unsigned k = 0; k < 100; k++) {
                        memcpy(a, b, bytes);
                        __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
                        memcpy(b, a, bytes);
                        __asm__ volatile("" : : "r"(a), "r"(b) : "memory");
                }
                printf("%llu\n", (unsigned long long)((now_ns() - start) / 100));
        }
        free(a);
        free(b);
}

int main(int argc, char **argv)
{
        const char *mode = argc > 1 ? argv[1] : "";

        if (argc == 5 && !strcmp(mode, "drain"))
                drain(argv[2], strtoull(argv[3], NULL, 0),
                      (unsigned)atoi(argv[4]) % (DEPTH_MAX + 1));
        else if (argc == 4 && !strcmp(mode, "copy"))
                copy(strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0));
        else if (argc == 4 && !strcmp(mode, "layers"))
                layers(argv[2], strtoull(argv[3], NULL, 0));
        else if (argc == 4 && !strcmp(mode, "rand-qd1"))
                requests(argv[2], strtoull(argv[3], NULL, 0), 1, 4096, 0, 0);
        else if (argc == 4 && !strcmp(mode, "rand-qd32"))
                requests(argv[2], strtoull(argv[3], NULL, 0), 32, 4096, 0, 0);
        else if (argc == 4 && !strcmp(mode, "seq"))
                requests(argv[2], strtoull(argv[3], NULL, 0), 1, 131072, 1, 0);
        else if (argc == 4 && !strcmp(mode, "seq-write"))
                requests(argv[2], strtoull(argv[3], NULL, 0), 1, 131072, 1, 1);
        else
                return fprintf(stderr, "block: see the comment in block.c\n"), 2;
        return 0;
}
