/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flushes: what was written before is on the medium. Files that are written are the image, until
 * the first fork, and the overlay on top; the image stays to be synced once after a fork, in every
 * machine, since its guest may count on what was written before. Memory has no medium.
 *
 * The order makes an overlay safe against a crash of the host: data, then the bits that speak of
 * it. The bits are those of the moment before the data is synced; those that are set meanwhile wait
 * for the next flush.
 *
 *      image: SYNC;  each live overlay in a file: SYNC, WRITE of pages of the bitmap, SYNC
 *
 * One round at a time. Flushes that come during a round may count on writes that it does not cover,
 * so they wait for the next one, all of them together. All is driven by landed(), so that
 * loop_io_settle() sees it through.
 */
#include "io/disk_internal.h"

#include <errno.h>

enum step {
        DATA,
        PAGES,
        BITS,
};

static void round_go(struct flush *f);

static bool is_due(const struct overlay *o)
{
        return o->live && !o->memory && o->unsynced;
}

static void round_end(struct flush *f)
{
        struct job *job = f->now;

        f->now = NULL;
        while (job) {
                struct job *next = *job_next(job);

                job_end(job, f->result);
                job = next;
        }
}

/* Begin rounds while somebody wants one. */
static void rounds(struct disk *disk)
{
        struct flush *f = &disk->flush;

        while (!f->now && f->next) {
                f->now = f->next;
                f->next = NULL;
                f->image = disk->image_unsynced && disk->image_ro_fd >= 0;
                f->overlay = 0;
                f->step = DATA;
                f->result = 0;
                round_go(f);
        }
}

/* Something of the round has landed. */
static void landed(struct loop_io *io)
{
        struct flush *f = (struct flush *)((char *)io - offsetof(struct flush, io));
        struct overlay *o = f->disk->overlays[f->overlay];
        int ret = io->result;

        if (f->step == PAGES && ret >= 0) {
                size_t n = (size_t)ret;

                ret = 0;
                if (n == f->iov.iov_len)
                        f->page += n / OVERLAY_PAGE;
                else if (n < OVERLAY_PAGE) /* no progress */
                        ret = -EIO;
                else
                        f->page += n / OVERLAY_PAGE;
        }
        if (f->image) {
                f->image = false;
                if (ret)
                        f->disk->image_unsynced = true;
        } else if (ret || f->step == BITS) {
                overlay_pages_done(o, &f->pages, ret);
                o->unsynced |= ret != 0;
                f->step = DATA;
                f->overlay++;
        } else if (f->step == DATA) {
                f->step = PAGES;
        }
        if (ret && !f->result)
                f->result = ret;
        round_go(f);
        rounds(f->disk);
}

static void sync(struct flush *f, int fd)
{
        f->io = (struct loop_io){.op = LOOP_IO_SYNC, .fd = fd, .landed = landed};
        loop_io_start(f->disk->loop, &f->io);
}

/* The next pages of the bitmap that are neighbours, in one write. */
static void write_pages(struct flush *f, const struct overlay *o)
{
        size_t n = 1;

        while (f->page + n < f->pages.n && f->pages.page[f->page + n] == f->pages.page[f->page] + n)
                n++;
        f->iov = (struct iovec){f->pages.bytes + f->page * OVERLAY_PAGE, n * OVERLAY_PAGE};
        f->io = (struct loop_io){
                .op = LOOP_IO_WRITE,
                .fd = o->fd,
                .offset = OVERLAY_HEADER_BYTES + f->pages.page[f->page] * OVERLAY_PAGE,
                .len = n * OVERLAY_PAGE,
                .iov = &f->iov,
                .niov = 1,
                .landed = landed,
        };
        loop_io_start(f->disk->loop, &f->io);
}

/* Start the round's next I/O, or end it. */
static void round_go(struct flush *f)
{
        struct disk *disk = f->disk;
        struct overlay *o;
        int ret;

        if (f->image) {
                disk->image_unsynced = false;
                sync(f, disk->image_ro_fd);
                return;
        }
        while (f->step == DATA && f->overlay < disk->noverlays &&
               !is_due(disk->overlays[f->overlay]))
                f->overlay++;
        if (f->overlay == disk->noverlays) {
                round_end(f);
                return;
        }
        o = disk->overlays[f->overlay];
        if (f->step == DATA) {
                ret = overlay_take_pages(o, &f->pages);
                if (ret) {
                        f->result = ret;
                        f->overlay = disk->noverlays;
                        round_end(f);
                        return;
                }
                f->page = 0;
                o->unsynced = false;
                sync(f, o->fd);
                return;
        }
        if (f->page < f->pages.n) {
                write_pages(f, o);
                return;
        }
        f->step = BITS;
        sync(f, o->fd);
}

void disk_flush_start(struct disk *disk, struct job *job)
{
        *job_next(job) = disk->flush.next;
        disk->flush.next = job;
        rounds(disk);
}
