/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests of a disk. Most are one I/O: all of a read lies in one layer, and a write always goes to
 * the top. That is the fast path: one loop_io with the caller's own buffers. Everything else goes
 * in parts: pieces of one layer each, up to DISK_PARTS in flight, the next one begun where another
 * landed.
 *
 *      fast    whole --landed--> request landed --done--> request done
 *                 \  short
 *      parts       '--> part, part, ... --all landed--> last: a NOP --landed, done--> the same
 *
 * A part is a loop_io without done(), so that its landed() may start it again, with what a short
 * transfer left or with the next piece. Nothing here waits for done(), which loop_io_settle() does
 * not call: whoever settles gets everything landed.
 *
 * A sector's bit in the overlay is set when its data has landed, and all of it: before that the
 * sector reads as it was.
 *
 * State comes from a pool, of which no page is touched before it is needed.
 */
#include "io/disk_internal.h"

#include <errno.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>

#define PART_IOV   8
#define IOV_MAX_IO 1024        /* of one loop_io */
#define ZEROES     (64u << 10) /* written at a time: PART_IOV times this */

/* A place in the request's buffers. */
struct cursor {
        unsigned index;
        size_t offset;
};

enum part_op {
        PART_READ,
        PART_WRITE,
        PART_ZEROES,     /* written, for want of better */
        PART_ZERO_RANGE, /* fallocate() */
        PART_PUNCH,
};

struct part {
        struct loop_io io;
        struct job *job;
        enum part_op op;
        bool busy;
        int layer;          /* of the disk's overlays, -1: the image */
        uint64_t at, end;   /* bytes of the disk: what is left to do */
        struct cursor data; /* where those of @at are */
        struct iovec iov[PART_IOV];
};

struct job {
        struct loop_io whole, last; /* see above */
        struct disk *disk;
        struct disk_request *request;
        struct job *next; /* of a flush, or free */
        unsigned ends;    /* done() to come of whole and last */
        unsigned busy;    /* parts in flight */
        bool ended;       /* last was started */
        int result;
        enum part_op op;
        uint64_t at, end;   /* what was not given to a part yet */
        struct cursor data; /* where those of @at are */
        struct part parts[DISK_PARTS];
};

static uint8_t zeroes[ZEROES]; /* never written */

/* --- the pool --- */

/* Not by calloc(): once a process has freed something large, that takes from the heap, and touches
 * all of it. */
int disk_io_init(struct disk *disk)
{
        void *jobs = mmap(NULL, DISK_REQUESTS_MAX * sizeof *disk->jobs, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        disk->flush.disk = disk;
        if (jobs == MAP_FAILED)
                return -ENOMEM;
        disk->jobs = jobs;
        return 0;
}

void disk_io_fini(struct disk *disk)
{
        if (disk->jobs)
                munmap(disk->jobs, DISK_REQUESTS_MAX * sizeof *disk->jobs);
}

/* Only the small part of it is cleared. */
static struct job *job_new(struct disk *disk, struct disk_request *r)
{
        struct job *job = disk->jobs_free;

        if (job)
                disk->jobs_free = job->next;
        else if (disk->jobs_used < DISK_REQUESTS_MAX)
                job = &disk->jobs[disk->jobs_used++];
        else
                return NULL;
        job->disk = disk;
        job->request = r;
        job->next = NULL;
        job->ends = job->busy = 0;
        job->ended = false;
        job->result = 0;
        job->data = (struct cursor){0};
        r->inner = job;
        return job;
}

struct job **job_next(struct job *job)
{
        return &job->next;
}

/* --- the end of a request --- */

static void start(struct job *job);

/* One of its loop_ios was done, and the last one gives the job back. */
static void one_done(struct job *job)
{
        struct disk *disk = job->disk;
        struct disk_request *r = job->request, *waiting = disk->waiting;

        if (--job->ends)
                return;
        job->next = disk->jobs_free;
        disk->jobs_free = job;
        if (waiting) {
                disk->waiting = waiting->inner;
                start(job_new(disk, waiting));
        }
        if (r->done)
                r->done(r);
}

static void request_landed(struct job *job, int result)
{
        job->request->result = result;
        if (job->request->landed)
                job->request->landed(job->request);
}

static void last_landed(struct loop_io *io)
{
        struct job *job = (struct job *)((char *)io - offsetof(struct job, last));

        request_landed(job, job->result);
}

static void last_done(struct loop_io *io)
{
        one_done((struct job *)((char *)io - offsetof(struct job, last)));
}

/* Nothing is in flight; what is left is to say so. */
void job_end(struct job *job, int result)
{
        job->result = result;
        job->last = (struct loop_io){
                .op = LOOP_IO_NOP, .fd = -1, .landed = last_landed, .done = last_done};
        loop_io_start(job->disk->loop, &job->last);
}

/* --- the request's buffers --- */

static void advance(const struct disk_request *r, struct cursor *c, uint64_t len)
{
        while (len) {
                uint64_t left = r->iov[c->index].iov_len - c->offset;

                if (len < left) {
                        c->offset += len;
                        return;
                }
                len -= left;
                c->index++;
                c->offset = 0;
        }
}

/* The buffers of up to @len bytes from @c on, as many as there is room for. */
static unsigned slice(const struct disk_request *r, struct cursor c, uint64_t len,
                      struct iovec out[PART_IOV])
{
        unsigned n = 0;

        while (len && n < PART_IOV) {
                const struct iovec *v = &r->iov[c.index++];
                uint64_t left = v->iov_len - c.offset, here = left < len ? left : len;

                if (here)
                        out[n++] = (struct iovec){(uint8_t *)v->iov_base + c.offset, here};
                len -= here;
                c.offset = 0;
        }
        return n;
}

static unsigned slice_zeroes(uint64_t len, struct iovec out[PART_IOV])
{
        unsigned n = 0;

        for (; len && n < PART_IOV; n++) {
                out[n] = (struct iovec){zeroes, len < ZEROES ? len : ZEROES};
                len -= out[n].iov_len;
        }
        return n;
}

/* --- layers --- */

/* Of the disk's overlays; -1: the image. */
static int top_layer(const struct disk *disk)
{
        return disk->own ? (int)disk->noverlays - 1 : -1;
}

/* Where byte @at of a layer is. */
static void locate(const struct disk *disk, int layer, uint64_t at, bool write, struct loop_io *io)
{
        if (layer < 0) {
                io->fd = write ? disk->image_fd : disk->image_ro_fd;
                io->offset = at;
                return;
        }
        io->fd = write ? disk->overlays[layer]->fd : overlay_pass_fd(disk->overlays[layer]);
        io->offset = disk->overlays[layer]->data_offset + at;
        if (write)
                disk->overlays[layer]->touched = true;
}

/* [from, to) of the top was written, from the beginning of its first sector on. */
static void wrote(struct disk *disk, uint64_t from, uint64_t to)
{
        uint64_t first = from / DISK_SECTOR, end = to / DISK_SECTOR;

        if (!disk->own)
                disk->image_unsynced = true;
        else
                overlay_set(disk->overlays[disk->noverlays - 1], first, end - first);
}

/* --- parts --- */

static void feed(struct job *job);
static void part_landed(struct loop_io *io);

static void part_go(struct part *p)
{
        struct job *job = p->job;
        struct loop_io *io = &p->io;

        *io = (struct loop_io){.landed = part_landed, .iov = p->iov, .len = p->end - p->at};
        locate(job->disk, p->layer, p->at, p->op != PART_READ, io);
        switch (p->op) {
        case PART_READ:
        case PART_WRITE:
                io->op = p->op == PART_READ ? LOOP_IO_READ : LOOP_IO_WRITE;
                io->niov = slice(job->request, p->data, io->len, p->iov);
                break;
        case PART_ZEROES:
                io->op = LOOP_IO_WRITE;
                io->niov = slice_zeroes(io->len, p->iov);
                break;
        case PART_ZERO_RANGE:
                io->op = LOOP_IO_FALLOCATE;
                io->mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
                break;
        case PART_PUNCH:
                io->op = LOOP_IO_FALLOCATE;
                io->mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
                break;
        }
        loop_io_start(job->disk->loop, io);
}

/* What comes after a fallocate() that cannot be had. The part's end for a discard: it may be
 * ignored. EINVAL is about this one request: a block device of larger sectors. */
static void part_second_best(struct part *p, int error)
{
        struct disk *disk = p->job->disk;
        bool never = error != -EINVAL;

        if (p->op == PART_ZERO_RANGE) {
                disk->no_zero_range |= never;
                p->op = PART_PUNCH;
                return;
        }
        if (p->layer < 0)
                disk->no_punch |= never;
        else
                disk->no_punch_top |= never;
        if (p->job->request->op == DISK_DISCARD)
                p->at = p->end;
        else
                p->op = PART_ZEROES;
}

static int part_fallocated(struct part *p, int result)
{
        if (result == -EOPNOTSUPP || result == -EINVAL || result == -ENOSYS || result == -ENODEV) {
                part_second_best(p, result);
                return 0;
        }
        if (result < 0)
                return result;
        wrote(p->job->disk, p->at, p->end);
        p->at = p->end;
        return 0;
}

static int part_moved(struct part *p, int result)
{
        if (result <= 0) /* the end of a file that has become shorter */
                return result < 0 ? result : -EIO;
        if (p->op != PART_READ)
                wrote(p->job->disk, p->at, p->at + (unsigned)result);
        p->at += (unsigned)result;
        if (p->op != PART_ZEROES)
                advance(p->job->request, &p->data, (unsigned)result);
        return 0;
}

static void part_landed(struct loop_io *io)
{
        struct part *p = (struct part *)((char *)io - offsetof(struct part, io));
        struct job *job = p->job;
        bool moves = io->op != LOOP_IO_FALLOCATE;
        int ret = moves ? part_moved(p, io->result) : part_fallocated(p, io->result);

        if (ret && !job->result)
                job->result = ret;
        if (p->at < p->end && !job->result) {
                part_go(p);
                return;
        }
        p->busy = false;
        job->busy--;
        feed(job);
}

static struct part *idle_part(struct job *job)
{
        for (unsigned i = 0; i < DISK_PARTS; i++)
                if (!job->parts[i].busy)
                        return &job->parts[i];
        return NULL;
}

/* Begin as many parts as there may be; end the request when there is no more. */
static void feed(struct job *job)
{
        struct disk *disk = job->disk;
        struct part *p;

        while (job->at < job->end && !job->result && (p = idle_part(job))) {
                uint64_t run = job->end - job->at;

                p->layer = top_layer(disk);
                if (job->op == PART_READ) {
                        p->layer = overlay_find(disk->overlays, disk->noverlays,
                                                job->at / DISK_SECTOR, run / DISK_SECTOR, &run);
                        run *= DISK_SECTOR;
                }
                p->job = job;
                p->op = job->op;
                p->busy = true;
                p->at = job->at;
                p->end = job->at + run;
                p->data = job->data;
                job->busy++;
                job->at += run;
                if (job->op == PART_READ)
                        advance(job->request, &job->data, run);
                part_go(p);
        }
        if (!job->busy && !job->ended) {
                job->ended = true;
                job_end(job, job->result);
        }
}

/* --- whole --- */

static void whole_landed(struct loop_io *io)
{
        struct job *job = (struct job *)((char *)io - offsetof(struct job, whole));
        struct disk_request *r = job->request;
        int n = io->result;

        if (n > 0 && r->op == DISK_WRITE)
                wrote(job->disk, r->offset, r->offset + (unsigned)n);
        if (n <= 0 || (uint64_t)n == r->len) {
                request_landed(job, n > 0 ? 0 : n < 0 ? n : -EIO);
                return;
        }
        /* Short. The rest of a write begins inside a sector, maybe, which has no bit yet. A read's
         * goes on where the layers are looked up again, by whole sectors. */
        if (r->op == DISK_READ)
                n -= n % (int)DISK_SECTOR;
        job->ends++;
        job->at = r->offset + (unsigned)n;
        job->end = r->offset + r->len;
        job->op = r->op == DISK_READ ? PART_READ : PART_WRITE;
        advance(r, &job->data, (unsigned)n);
        feed(job);
}

static void whole_done(struct loop_io *io)
{
        one_done((struct job *)((char *)io - offsetof(struct job, whole)));
}

/* In one I/O, where that is possible. */
static bool start_whole(struct job *job)
{
        struct disk *disk = job->disk;
        struct disk_request *r = job->request;
        int layer = top_layer(disk);
        uint64_t run;

        if (r->niov > IOV_MAX_IO)
                return false;
        if (r->op == DISK_READ) {
                layer = overlay_find(disk->overlays, disk->noverlays, r->offset / DISK_SECTOR,
                                     r->len / DISK_SECTOR, &run);
                if (run * DISK_SECTOR != r->len)
                        return false;
        }
        job->whole = (struct loop_io){
                .op = r->op == DISK_READ ? LOOP_IO_READ : LOOP_IO_WRITE,
                .len = r->len,
                .iov = r->iov,
                .niov = r->niov,
                .landed = whole_landed,
                .done = whole_done,
        };
        locate(disk, layer, r->offset, r->op == DISK_WRITE, &job->whole);
        loop_io_start(disk->loop, &job->whole);
        return true;
}

/* --- requests --- */

static int check(const struct disk *disk, const struct disk_request *r)
{
        uint64_t sum = 0;

        if (r->op == DISK_FLUSH)
                return 0;
        if (r->offset % DISK_SECTOR || r->len % DISK_SECTOR || r->offset > disk->bytes ||
            r->len > disk->bytes - r->offset)
                return -EINVAL;
        if (r->op != DISK_READ && disk->readonly)
                return -EROFS;
        if (r->op != DISK_READ && r->op != DISK_WRITE)
                return r->op == DISK_DISCARD || r->op == DISK_WRITE_ZEROES ? 0 : -EINVAL;
        for (unsigned i = 0; i < r->niov; i++) {
                if (r->iov[i].iov_len > r->len - sum)
                        return -EINVAL;
                sum += r->iov[i].iov_len;
        }
        return sum == r->len ? 0 : -EINVAL;
}

static enum part_op part_op(const struct job *job)
{
        const struct disk *disk = job->disk;
        bool punch = disk->own ? !disk->no_punch_top : !disk->no_punch;

        switch (job->request->op) {
        case DISK_READ:
                return PART_READ;
        case DISK_WRITE:
                return PART_WRITE;
        case DISK_DISCARD:
                return PART_PUNCH;
        default:
                if (!disk->own && !disk->no_zero_range)
                        return PART_ZERO_RANGE;
                return punch ? PART_PUNCH : PART_ZEROES;
        }
}

static void start(struct job *job)
{
        struct disk_request *r = job->request;
        int ret = check(job->disk, r);

        job->ends = 1;
        if (ret || (r->op != DISK_FLUSH && !r->len)) {
                job_end(job, ret);
                return;
        }
        if (r->op == DISK_FLUSH) {
                disk_flush_start(job->disk, job);
                return;
        }
        if ((r->op == DISK_READ || r->op == DISK_WRITE) && start_whole(job))
                return;
        job->op = part_op(job);
        job->at = r->offset;
        job->end = r->offset + r->len;
        feed(job);
}

void disk_submit(struct disk *disk, struct disk_request *r)
{
        struct job *job = disk->waiting ? NULL : job_new(disk, r);

        if (job) {
                start(job);
                return;
        }
        r->inner = NULL;
        if (disk->waiting)
                disk->waiting_last->inner = r;
        else
                disk->waiting = r;
        disk->waiting_last = r;
}
