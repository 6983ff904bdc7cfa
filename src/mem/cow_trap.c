/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine `trap`: memory is a private mapping of the layers, as with `private`, and besides
 * every page of it is write-protected by userfaultfd. The first to write a page waits in the
 * kernel, whoever it is: a vCPU in guest mode, a page walk that sets a dirty bit, KVM that updates
 * a clock page, a system call, Ramet. A thread of the engine's own is told the page, writes it
 * down, and lifts its protection; then the kernel goes on and makes the copy.
 *
 *      writer                          the engine's thread
 *      write, protected: wait ------>  tell the machine (cow_env.own_page)
 *                                      lock; own |= page; lift the protection, wake; unlock
 *      again: the kernel copies  <---
 *
 * So the set of own pages is exact and known at once. list_own() and with it the freeze of a clone
 * need not look for them, and a policy can be told of each page before it is written.
 *
 * Why no page is written unseen:
 *   - arm() is called with no writer about, on mappings that are new and have no page yet; it
 *     protects every page before anybody may write.
 *   - The protection of a page is lifted in one place, together with its bit, under the lock.
 *     reset() drops pages, protects them and clears their bits under the same lock, so that a fault
 *     that is being served is before it or after it as a whole.
 *   - The protection lives in the page table entry, or in a marker where there is no page, and the
 *     kernel carries it along when it swaps or moves the page. Dropping a page (MADV_DONTNEED)
 *     loses the protection of one that was written, hence the order in reset().
 *
 * The other way round there is an exception. A vCPU that is kicked while it waits for its page, or
 * before it writes to it, leaves a page that is listed and not written yet. It will be, as a rule;
 * if a reset takes the vCPU elsewhere, that begins by letting the thread finish what it was told.
 *
 * Why nothing waits for ever: the thread takes the lock, never enters a read section, waits for no
 * vCPU, and does not touch guest memory. Who holds the lock does not touch guest memory either, nor
 * waits for who might. So the owner can stop all vCPUs while one of them waits for its page: it
 * gets it. Closing the descriptor, at the end, lets go whoever still waits.
 *
 * The granule is one page. Lifting the protection of 64 KiB at a time makes dense writes 4 times as
 * fast (test host), but what is then reported as written is only what may have been.
 *
 * What it costs beside the faults: the kernel maps protected files in small pages, so that a
 * clone's memory is on no huge page; arm() writes an entry for each page (2 to 3 ms and 2 MiB of
 * page tables for 1 GiB), in the pause of a root's first freeze and at the start of a clone; and
 * reads fault in one page at a time.
 */
#include "mem/cow_trap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mem/backing.h"
#include "mem/cow.h"
#include "mem/uffd.h"

#define PAGE  4096ull
#define BATCH 16

struct trap {
        const struct backing *backing; /* [I] */
        struct cow_env env;            /* [I] */
        int uffd;                      /* [I] */
        int end_fd;                    /* [I] eventfd: the thread is to end */
        pthread_t thread;
        bool has_thread;
        pthread_mutex_t lock;
        uint64_t *own;      /* [m] a bit for each page; 1: its protection is lifted */
        uint64_t own_pages; /* [m] bits set */
        uint64_t faults;    /* [m] */
        uint64_t begun;     /* [m] rounds of the thread: before it takes what it is told ... */
        uint64_t ended;     /* [m] ... and after it has served all of that */
        pthread_cond_t round_ended;
};

/* --- the set of own pages; under the lock --- */

static bool is_own(const struct trap *t, uint64_t page)
{
        return t->own[page / 64] >> page % 64 & 1;
}

static void set_own(struct trap *t, uint64_t page)
{
        t->own_pages += !is_own(t, page);
        t->own[page / 64] |= 1ull << page % 64;
}

static uint64_t words(const struct trap *t)
{
        return (t->backing->size / PAGE + 63) / 64;
}

/* The next run of own pages at or after *page: true, with its first page and the one after its
 * last. */
static bool next_run(const struct trap *t, uint64_t *page, uint64_t *end)
{
        uint64_t npages = t->backing->size / PAGE;

        while (*page < npages && !is_own(t, *page))
                *page = t->own[*page / 64] >> *page % 64 ? *page + 1 : (*page / 64 + 1) * 64;
        if (*page >= npages)
                return false;
        for (*end = *page + 1; *end < npages && is_own(t, *end);)
                ++*end;
        return true;
}

static void clear_own(struct trap *t)
{
        memset(t->own, 0, words(t) * sizeof *t->own);
        t->own_pages = 0;
}

/* --- the thread --- */

static void serve(struct trap *t, uint64_t address)
{
        uint64_t page = (address - (uintptr_t)t->backing->hva) / PAGE, count;
        const uint8_t *hva = t->backing->hva + page * PAGE;
        bool own;

        pthread_mutex_lock(&t->lock);
        t->faults++;
        own = is_own(t, page); /* two wrote it at once, and this is the second */
        count = t->own_pages + 1;
        pthread_mutex_unlock(&t->lock);
        if (!own && t->env.own_page)
                t->env.own_page(t->env.data, page * PAGE, count);
        pthread_mutex_lock(&t->lock);
        set_own(t, page);
        if (uffd_protect(t->uffd, hva, PAGE, false) < 0)
                uffd_wake(t->uffd, hva, PAGE); /* nothing protects it any more */
        pthread_mutex_unlock(&t->lock);
}

static void *trap_thread(void *arg)
{
        struct trap *t = arg;
        struct pollfd fds[] = {
                {.fd = t->uffd, .events = POLLIN},
                {.fd = t->end_fd, .events = POLLIN},
        };

        for (;;) {
                uint64_t addresses[BATCH];
                int n;

                if (poll(fds, 2, -1) < 0)
                        continue; /* EINTR */
                if (fds[1].revents)
                        return NULL;
                pthread_mutex_lock(&t->lock);
                t->begun++;
                n = uffd_read(t->uffd, addresses, BATCH);
                pthread_mutex_unlock(&t->lock);
                for (int i = 0; i < n; i++)
                        serve(t, addresses[i]);
                pthread_mutex_lock(&t->lock);
                t->ended++;
                pthread_cond_broadcast(&t->round_ended);
                pthread_mutex_unlock(&t->lock);
        }
}

/* Wait until the thread has nothing in hand that it took before; under the lock. A writer that was
 * interrupted no longer waits, but the thread may have been told of it. */
static void settle(struct trap *t)
{
        uint64_t begun = t->begun;

        while (t->ended < begun)
                pthread_cond_wait(&t->round_ended, &t->lock);
}

/* --- the engine --- */

/* Signals are for other threads, those of the host program among them. */
static int start_thread(struct trap *t, struct err *err)
{
        sigset_t all, before;
        int r;

        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&t->thread, NULL, trap_thread, t);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r)
                return err_host(err, r, "a thread for cow engine trap: %s", strerror(r));
        t->has_thread = true;
        return 0;
}

static int create(struct backing *b, struct err *err)
{
        struct trap *t = calloc(1, sizeof *t);
        struct err why = {0};
        int r;

        if (!t)
                return err_host(err, ENOMEM, "no memory for cow engine trap");
        b->cow_state = t;
        t->backing = b;
        t->env = b->cow_env;
        t->uffd = t->end_fd = -1;
        pthread_mutex_init(&t->lock, NULL);
        pthread_cond_init(&t->round_ended, NULL);
        t->own = calloc(words(t), sizeof *t->own);
        if (!t->own)
                return err_host(err, ENOMEM, "no memory for cow engine trap");
        r = uffd_open(&t->uffd, &why);
        if (r < 0)
                return err_host(err, -r, "cow engine trap: %s: use cow engine private", why.text);
        t->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (t->end_fd < 0)
                return err_host(err, errno, "eventfd: %s", strerror(errno));
        return start_thread(t, err);
}

static void destroy(struct backing *b)
{
        struct trap *t = b->cow_state;

        if (!t)
                return;
        if (t->has_thread) {
                eventfd_write(t->end_fd, 1);
                pthread_join(t->thread, NULL);
        }
        if (t->uffd >= 0)
                close(t->uffd);
        if (t->end_fd >= 0)
                close(t->end_fd);
        pthread_cond_destroy(&t->round_ended);
        pthread_mutex_destroy(&t->lock);
        free(t->own);
        free(t);
        b->cow_state = NULL;
}

static int arm(struct backing *b, struct err *err)
{
        struct trap *t = b->cow_state;
        int r;

        pthread_mutex_lock(&t->lock);
        clear_own(t);
        r = uffd_register(t->uffd, b->hva, b->size);
        if (r == 0)
                r = uffd_protect(t->uffd, b->hva, b->size, true);
        pthread_mutex_unlock(&t->lock);
        if (r == -EINVAL)
                return err_host(err, ENOTSUP,
                                "cow engine trap: this kernel cannot write-protect these memory "
                                "layers: use cow engine private");
        return r < 0 ? err_host(err, -r, "write-protecting guest memory: %s", strerror(-r)) : 0;
}

static int list_own(const struct backing *b, uint32_t layer, struct extent_list *list)
{
        struct trap *t = b->cow_state;
        uint64_t end;
        int r = 0;

        pthread_mutex_lock(&t->lock);
        for (uint64_t page = 0; r == 0 && next_run(t, &page, &end); page = end)
                r = extent_add(list, page * PAGE, (end - page) * PAGE, layer);
        pthread_mutex_unlock(&t->lock);
        return r;
}

static int reset(struct backing *b, struct err *err)
{
        struct trap *t = b->cow_state;
        uint64_t end;
        int r = 0;

        pthread_mutex_lock(&t->lock);
        settle(t);
        for (uint64_t page = 0; r == 0 && next_run(t, &page, &end); page = end) {
                uint8_t *hva = b->hva + page * PAGE;
                uint64_t length = (end - page) * PAGE;

                r = madvise(hva, length, MADV_DONTNEED) < 0
                            ? -errno
                            : uffd_protect(t->uffd, hva, length, true);
        }
        if (r == 0)
                clear_own(t);
        pthread_mutex_unlock(&t->lock);
        return r < 0 ? err_host(err, -r, "dropping a clone's own pages: %s", strerror(-r)) : 0;
}

const struct cow_engine cow_trap = {
        .name = "trap",
        .create = create,
        .destroy = destroy,
        .arm = arm,
        .list_own = list_own,
        .reset = reset,
};

void cow_trap_stats(const struct backing *b, struct cow_trap_stats *stats)
{
        struct trap *t = b->cow_state;

        pthread_mutex_lock(&t->lock);
        *stats = (struct cow_trap_stats){.faults = t->faults, .own_pages = t->own_pages};
        pthread_mutex_unlock(&t->lock);
}
