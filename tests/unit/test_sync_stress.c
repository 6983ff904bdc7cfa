/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generation barrier under stress: 64 participants and several initiators on four VMs that
 * exist only here.
 *
 * A VM is an array of slots, each of which points at a page. Participants keep private caches of
 * slots, as a TLB would, and look at the pages. Initiators point slots at other pages; when their
 * flush or stop has returned, they poison the old ones, which are plain memory. Whoever then looks
 * at a poisoned page, at a page of another slot or VM, or at anything while its VM is stopped, has
 * used a stale translation: the test prints the value that it saw, and fails. (ThreadSanitizer
 * sees the same as a race.) What waits for ever is seen, too: the test then says where everyone is.
 *
 *     vCPUs         enter, take, look, run in "guest mode" until kicked; initiate; leave and join
 *                   again; end their thread inside, and are left by who joined it
 *     workers       serve the four VMs in turn with one cache
 *     submitters    look up a page, lend their section to an I/O, and go on without waiting for it
 *     completers    end these I/Os, some after handing them on
 *     initiators    flush ranges, few or more than the FIFO holds, flush all, stop
 *
 * RAMET_STRESS_MS (5000) is how long it lasts, RAMET_STRESS_SEED where the random numbers start.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sched.h>
#include <semaphore.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "sync/sync.h"

#define VMS        4
#define SLOTS      48
#define PAGES      (3 * SLOTS)
#define VCPUS      48
#define WORKERS    8
#define SUBMITTERS 8
#define COMPLETERS 2
#define INITIATORS 4
#define IOS        4 /* in flight, per submitter; each may be handed on once */
#define PAGE_BYTES 4096
#define STEADY     4 /* vCPUs that stay joined, so that anybody may ask them for something */
#define STUCK_S    20

#define BIT_WORK 5

struct mix {
        unsigned ms, vcpus, workers, submitters, initiators;
        bool coarse;   /* initiators flush all or stop, too; else they flush ranges */
        bool restless; /* vCPUs initiate, leave, join, and die */
};

/* --- VMs and their pages --- */

struct page {
        uint64_t value; /* plain on purpose */
};

static struct vm {
        struct sync_domain sync;
        unsigned number;
        struct page *_Atomic slots[SLOTS];
        pthread_mutex_t slot_locks[SLOTS]; /* held through a remap; taken outside only */
        pthread_mutex_t lock;
        struct page pages[PAGES];
        struct page *spare[PAGES]; /* [lock] */
        unsigned nspare;           /* [lock] */
        uint64_t version;          /* [lock] */
        int stopped;               /* plain on purpose */
} vms[VMS];

static _Atomic int quit;
static _Atomic uint64_t looks, remaps, deaths, ios_done, served;
static pthread_mutex_t stale_lock = PTHREAD_MUTEX_INITIALIZER;
static char stale[160]; /* [stale_lock] the first one that was seen */
static uint64_t seed;

static uint64_t value_of(const struct vm *vm, unsigned slot, uint64_t version)
{
        return (uint64_t)vm->number << 60 | (uint64_t)slot << 48 | version;
}

#define POISON 0xdeadull /* instead of VM and slot */

static uint64_t poisoned(uint64_t value)
{
        return POISON << 48 | (value & 0xffffffffffff);
}

static void __attribute__((format(printf, 1, 2))) violation(const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        pthread_mutex_lock(&stale_lock);
        if (!stale[0])
                vsnprintf(stale, sizeof stale, fmt, ap);
        pthread_mutex_unlock(&stale_lock);
        va_end(ap);
        atomic_store(&quit, 1);
}

/* --- a private cache of translations --- */

struct entry {
        const struct page *page;
        uint64_t value;
};

struct cache {
        const char *owner;
        unsigned number;
        uint64_t random;
        struct sync_served served;
        struct entry entries[SLOTS];
};

static uint64_t next(struct cache *c)
{
        c->random ^= c->random << 13;
        c->random ^= c->random >> 7;
        c->random ^= c->random << 17;
        return c->random >> 11;
}

static bool one_in(struct cache *c, unsigned n)
{
        return next(c) % n == 0;
}

static void cache_init(struct cache *c, const char *owner, unsigned number)
{
        *c = (struct cache){.owner = owner, .number = number};
        c->random = (seed + 1) * 0x9e3779b97f4a7c15ull + (uint64_t)owner[0] * 1000003 + number;
        for (unsigned i = 0; i < 8; i++)
                next(c);
}

static void forget_all(struct cache *c)
{
        memset(c->entries, 0, sizeof c->entries);
}

static void forget(struct cache *c, const struct sync_taken *taken)
{
        if (taken->kinds & SYNC_CURRENT)
                forget_all(c);
        for (unsigned i = 0; i < taken->nranges; i++)
                for (uint64_t k = 0; k < taken->ranges[i].len / PAGE_BYTES; k++)
                        c->entries[taken->ranges[i].gpa / PAGE_BYTES + k].page = NULL;
}

/* Use a translation, from the cache if it is there. Inside @vm. */
static void look(struct cache *c, struct vm *vm, unsigned slot)
{
        struct entry *e = &c->entries[slot];
        uint64_t saw;

        if (!e->page) {
                e->page = atomic_load_explicit(&vm->slots[slot], memory_order_acquire);
                e->value = e->page->value;
        }
        saw = e->page->value;
        if (saw != e->value || saw >> 48 != value_of(vm, slot, 0) >> 48)
                violation("stale: %s %u saw %#llx in slot %u of VM %u, where it had seen %#llx",
                          c->owner, c->number, (unsigned long long)saw, slot, vm->number,
                          (unsigned long long)e->value);
        if (vm->stopped)
                violation("stale: %s %u is inside VM %u, which is stopped, and saw %#llx", c->owner,
                          c->number, vm->number, (unsigned long long)saw);
        atomic_fetch_add_explicit(&looks, 1, memory_order_relaxed);
}

static void enter(struct cache *c, struct vm *vm, struct sync_participant *p)
{
        struct sync_taken taken;

        sync_enter(p);
        if (sync_serve(&c->served, &vm->sync))
                forget_all(c);
        if (sync_take(p, &taken))
                forget(c, &taken);
}

/* --- remapping --- */

static struct page *new_page(struct vm *vm, unsigned slot)
{
        struct page *page = NULL;
        uint64_t version = 0;

        pthread_mutex_lock(&vm->lock);
        if (vm->nspare) {
                page = vm->spare[--vm->nspare];
                version = ++vm->version;
        }
        pthread_mutex_unlock(&vm->lock);
        if (page)
                page->value = value_of(vm, slot, version);
        return page;
}

static void poison(struct vm *vm, struct page *page)
{
        page->value = poisoned(page->value);
        pthread_mutex_lock(&vm->lock);
        vm->spare[vm->nspare++] = page;
        pthread_mutex_unlock(&vm->lock);
}

/* Remap some slots that nobody else remaps. By a thread that is outside. */
static void remap(struct cache *c, struct vm *vm, bool coarse)
{
        struct sync_range ranges[SYNC_FIFO + 8];
        struct sync_invalidation inv = {.ranges = ranges};
        struct page *old[SYNC_FIFO + 8];
        unsigned wanted = (unsigned)(one_in(c, 8) ? SYNC_FIFO + 1 + next(c) % 8 : 1 + next(c) % 3);
        unsigned slot = (unsigned)(next(c) % SLOTS), n = 0, how = coarse ? next(c) % 4 : 0;

        if (how == 3)
                sync_stop(&vm->sync);
        for (unsigned i = 0; i < SLOTS && n < wanted; i++, slot = (slot + 1) % SLOTS) {
                struct page *page;

                if (pthread_mutex_trylock(&vm->slot_locks[slot]) != 0)
                        continue;
                page = new_page(vm, slot);
                if (!page) {
                        pthread_mutex_unlock(&vm->slot_locks[slot]);
                        break;
                }
                old[n] = atomic_exchange(&vm->slots[slot], page);
                ranges[n++] = (struct sync_range){.gpa = slot * PAGE_BYTES, .len = PAGE_BYTES};
        }
        if (how < 2)
                inv.nranges = n;
        else
                inv.kinds = SYNC_CURRENT | (one_in(c, 2) ? SYNC_GUEST : 0);
        if (how == 3) {
                vm->stopped = 1;
                sync_post(&vm->sync, &inv);
        } else {
                sync_flush(&vm->sync, &inv);
        }
        for (unsigned i = 0; i < n; i++) {
                poison(vm, old[i]);
                pthread_mutex_unlock(&vm->slot_locks[ranges[i].gpa / PAGE_BYTES]);
        }
        if (how == 3) {
                vm->stopped = 0;
                sync_resume(&vm->sync);
        }
        atomic_fetch_add(&remaps, n);
}

static const struct mix *mix;

/* --- vCPUs, all of them of the first VM --- */

static struct vcpu {
        struct sync_participant part;
        struct cache cache;
        _Atomic int kicked, ended;
        sem_t signal; /* wakes it when it is kicked in guest mode */
        pthread_t thread;
        bool running; /* main thread */
} vcpus[VCPUS];

static void kick(void *data)
{
        struct vcpu *v = data;

        atomic_store(&v->kicked, 1);
        sem_post(&v->signal);
}

/* KVM_RUN: without a kick it lasts for ever, or nearly: now and then there is another exit. Some
 * guests are busy, most look at memory between long halts. */
static void run_guest(struct vcpu *v)
{
        struct cache *c = &v->cache;
        bool exits = one_in(c, 4), busy = one_in(c, 8);
        struct timespec until;

        do {
                for (unsigned i = 0; i < 4; i++)
                        look(c, &vms[0], (unsigned)(next(c) % SLOTS));
                if (atomic_load(&v->kicked))
                        return;
                if (busy) {
                        sched_yield();
                        continue;
                }
                clock_gettime(CLOCK_REALTIME, &until);
                until.tv_nsec += (long)(next(c) % 2000000);
                until.tv_sec += until.tv_nsec / 1000000000;
                until.tv_nsec %= 1000000000;
                sem_timedwait(&v->signal, &until);
                look(c, &vms[0], (unsigned)(next(c) % SLOTS)); /* kicked, but not out yet */
        } while (!(exits && one_in(c, 8)));
}

static void *vcpu_main(void *data)
{
        struct vcpu *v = data;
        struct cache *c = &v->cache;
        bool restless = mix->restless && c->number >= STEADY;

        enter(c, &vms[0], &v->part);
        while (!atomic_load(&quit)) {
                for (unsigned i = 0; i < 4; i++)
                        look(c, &vms[0], (unsigned)(next(c) % SLOTS));
                atomic_store(&v->kicked, 0);
                while (sem_trywait(&v->signal) == 0)
                        ;
                if (sync_guest_begin(&v->part)) {
                        run_guest(v);
                        if (restless && one_in(c, 200)) {
                                atomic_store(&v->ended, 1); /* inside, in guest mode */
                                return NULL;
                        }
                        sync_guest_end(&v->part);
                }
                if (sync_test_clear(&v->part, BIT_WORK))
                        atomic_fetch_add(&served, 1);
                sync_exit(&v->part);
                if (mix->restless && one_in(c, 16))
                        remap(c, &vms[0], mix->coarse);
                if (restless && one_in(c, 64)) {
                        sync_leave(&v->part);
                        forget_all(c); /* nobody posted anything to it meanwhile */
                        sync_join(&vms[0].sync, &v->part, kick, v);
                }
                enter(c, &vms[0], &v->part);
        }
        sync_exit(&v->part);
        atomic_store(&v->ended, 1);
        return NULL;
}

static void vcpu_start(struct vcpu *v)
{
        atomic_store(&v->ended, 0);
        v->running = true;
        sem_init(&v->signal, 0, 0);
        sync_join(&vms[0].sync, &v->part, kick, v);
        assert_int_equal(pthread_create(&v->thread, NULL, vcpu_main, v), 0);
}

static void *initiator_main(void *data)
{
        struct cache *c = data;

        while (!atomic_load(&quit)) {
                remap(c, &vms[one_in(c, 3) ? next(c) % VMS : 0], mix->coarse);
                if (mix->vcpus)
                        sync_request(&vcpus[next(c) % STEADY].part, BIT_WORK);
                if (one_in(c, 4))
                        usleep((unsigned)(next(c) % 200));
        }
        return NULL;
}

/* --- workers --- */

static struct worker {
        struct sync_participant parts[VMS];
        struct cache cache;
        pthread_t thread;
} workers[WORKERS];

static void *worker_main(void *data)
{
        struct worker *w = data;
        struct cache *c = &w->cache;

        while (!atomic_load(&quit)) {
                unsigned n = (unsigned)(next(c) % VMS);

                enter(c, &vms[n], &w->parts[n]);
                for (unsigned i = 0; i < 6; i++)
                        look(c, &vms[n], (unsigned)(next(c) % SLOTS));
                if (one_in(c, 4))
                        sched_yield();
                for (unsigned i = 0; i < 6; i++)
                        look(c, &vms[n], (unsigned)(next(c) % SLOTS));
                sync_exit(&w->parts[n]);
                if (one_in(c, 3))
                        usleep((unsigned)(next(c) % 200));
        }
        return NULL;
}

/* --- I/O in flight, in the second VM --- */

struct io {
        struct sync_participant part, onward;
        struct cache cache; /* of one entry */
        unsigned slot;
        _Atomic int busy;
        struct io *next;
};

static struct submitter {
        struct sync_participant part;
        struct cache cache;
        struct io ios[IOS];
        pthread_t thread;
} submitters[SUBMITTERS];

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;
static struct io *queue;  /* [queue_lock] */
static bool queue_closed; /* [queue_lock] */

static void submit(struct submitter *s, struct io *io)
{
        struct cache *c = &s->cache;

        io->slot = (unsigned)(next(c) % SLOTS);
        look(c, &vms[1], io->slot);
        io->cache.entries[io->slot] = c->entries[io->slot];
        atomic_store(&io->busy, 1);
        sync_lend(&s->part, &io->part);
        pthread_mutex_lock(&queue_lock);
        io->next = queue;
        queue = io;
        pthread_cond_signal(&queue_filled);
        pthread_mutex_unlock(&queue_lock);
}

static void *submitter_main(void *data)
{
        struct submitter *s = data;

        while (!atomic_load(&quit)) {
                enter(&s->cache, &vms[1], &s->part);
                for (unsigned i = 0; i < IOS; i++)
                        if (!atomic_load(&s->ios[i].busy))
                                submit(s, &s->ios[i]);
                sync_exit(&s->part);
                if (one_in(&s->cache, 2))
                        usleep((unsigned)(next(&s->cache) % 100));
        }
        return NULL;
}

static void complete(struct cache *c, struct io *io)
{
        struct sync_participant *p = &io->part;

        for (uint64_t i = next(c) % 8; i > 0; i--)
                sched_yield();
        look(&io->cache, &vms[1], io->slot);
        if (one_in(c, 3)) {
                sync_lend(p, &io->onward);
                sync_exit(p);
                p = &io->onward;
                sched_yield();
                look(&io->cache, &vms[1], io->slot);
        }
        sync_exit(p);
        atomic_store(&io->busy, 0);
        atomic_fetch_add(&ios_done, 1);
}

static void *completer_main(void *data)
{
        for (;;) {
                struct io *io;

                pthread_mutex_lock(&queue_lock);
                while (!queue && !queue_closed)
                        pthread_cond_wait(&queue_filled, &queue_lock);
                io = queue;
                if (io)
                        queue = io->next;
                pthread_mutex_unlock(&queue_lock);
                if (!io)
                        return NULL;
                complete(data, io);
        }
}

/* --- a run --- */

static struct {
        struct cache cache;
        pthread_t thread;
} initiators[INITIATORS], completers[COMPLETERS];

static void vm_init(struct vm *vm, unsigned number)
{
        memset(vm, 0, sizeof *vm);
        vm->number = number;
        sync_domain_init(&vm->sync);
        pthread_mutex_init(&vm->lock, NULL);
        for (unsigned i = 0; i < PAGES; i++)
                vm->spare[vm->nspare++] = &vm->pages[i];
        for (unsigned i = 0; i < SLOTS; i++) {
                pthread_mutex_init(&vm->slot_locks[i], NULL);
                atomic_store(&vm->slots[i], new_page(vm, i));
        }
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
        const char *value = getenv(name);

        return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

static void start(const struct mix *m)
{
        mix = m;
        seed = env_number("RAMET_STRESS_SEED", 1);
        stale[0] = '\0';
        queue_closed = false;
        atomic_store(&quit, 0);
        for (unsigned i = 0; i < VMS; i++)
                vm_init(&vms[i], i);
        for (unsigned i = 0; i < m->vcpus; i++) {
                cache_init(&vcpus[i].cache, "vCPU", i);
                vcpu_start(&vcpus[i]);
        }
        for (unsigned i = 0; i < m->workers; i++) {
                struct worker *w = &workers[i];

                cache_init(&w->cache, "worker", i);
                for (unsigned k = 0; k < VMS; k++)
                        sync_join(&vms[k].sync, &w->parts[k], NULL, NULL);
                pthread_create(&w->thread, NULL, worker_main, w);
        }
        for (unsigned i = 0; i < m->submitters; i++) {
                struct submitter *s = &submitters[i];

                cache_init(&s->cache, "submitter", i);
                sync_join(&vms[1].sync, &s->part, NULL, NULL);
                for (unsigned k = 0; k < IOS; k++) {
                        cache_init(&s->ios[k].cache, "I/O", i * IOS + k);
                        atomic_store(&s->ios[k].busy, 0);
                        sync_join(&vms[1].sync, &s->ios[k].part, NULL, NULL);
                        sync_join(&vms[1].sync, &s->ios[k].onward, NULL, NULL);
                }
                pthread_create(&s->thread, NULL, submitter_main, s);
        }
        for (unsigned i = 0; i < COMPLETERS; i++) {
                cache_init(&completers[i].cache, "completer", i);
                pthread_create(&completers[i].thread, NULL, completer_main, &completers[i].cache);
        }
        for (unsigned i = 0; i < m->initiators; i++) {
                cache_init(&initiators[i].cache, "initiator", i);
                pthread_create(&initiators[i].thread, NULL, initiator_main, &initiators[i].cache);
        }
}

/* Join the thread of a vCPU, if that has ended, and leave for it. */
static bool bury(struct vcpu *v)
{
        if (!v->running || !atomic_load(&v->ended))
                return false;
        pthread_join(v->thread, NULL);
        sync_leave(&v->part);
        v->running = false;
        return true;
}

static void replace_the_dead(void)
{
        for (unsigned i = 0; i < mix->vcpus; i++) {
                if (atomic_load(&quit) || !bury(&vcpus[i]))
                        continue;
                forget_all(&vcpus[i].cache);
                atomic_fetch_add(&deaths, 1);
                vcpu_start(&vcpus[i]);
        }
}

static void say_where_everyone_is(const struct vm *vm)
{
        print_error("VM %u: generation %llu, stopped %u, turn %u of %u\n", vm->number,
                    (unsigned long long)atomic_load(&vm->sync.generation),
                    atomic_load(&vm->sync.stopped), atomic_load(&vm->sync.turn),
                    atomic_load(&vm->sync.next_turn));
        for (const struct sync_participant *p = vm->sync.first; p; p = p->next)
                print_error("  entered %#llx mode %u requests %#llx owed %u\n",
                            (unsigned long long)atomic_load(&p->entered), atomic_load(&p->mode),
                            (unsigned long long)atomic_load(&p->requests), atomic_load(&p->owed));
}

static uint64_t now_ms(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Until the time is over or a violation is seen. Looks go on all the time, and so do remaps. */
static void watch(unsigned ms)
{
        uint64_t end = now_ms() + ms, moved = now_ms(), seen = 0;

        while (!atomic_load(&quit) && now_ms() < end) {
                usleep(2000);
                replace_the_dead();
                if (atomic_load(&remaps) != seen) {
                        seen = atomic_load(&remaps);
                        moved = now_ms();
                } else if (now_ms() - moved > STUCK_S * 1000) {
                        print_error("somebody waits for ever\n");
                        for (unsigned i = 0; i < VMS; i++)
                                say_where_everyone_is(&vms[i]);
                        abort();
                }
        }
        atomic_store(&quit, 1);
}

static void finish(void)
{
        unsigned running = mix->vcpus;

        while (running > 0) { /* one may wait for another: no order */
                usleep(1000);
                for (unsigned i = 0; i < mix->vcpus; i++) {
                        kick(&vcpus[i]);
                        running -= bury(&vcpus[i]);
                }
        }
        for (unsigned i = 0; i < mix->initiators; i++)
                pthread_join(initiators[i].thread, NULL);
        for (unsigned i = 0; i < mix->workers; i++) {
                pthread_join(workers[i].thread, NULL);
                for (unsigned k = 0; k < VMS; k++)
                        sync_leave(&workers[i].parts[k]);
        }
        for (unsigned i = 0; i < mix->submitters; i++)
                pthread_join(submitters[i].thread, NULL);
        pthread_mutex_lock(&queue_lock);
        queue_closed = true;
        pthread_cond_broadcast(&queue_filled);
        pthread_mutex_unlock(&queue_lock);
        for (unsigned i = 0; i < COMPLETERS; i++)
                pthread_join(completers[i].thread, NULL);
        for (unsigned i = 0; i < mix->submitters; i++) {
                sync_leave(&submitters[i].part);
                for (unsigned k = 0; k < IOS; k++) {
                        sync_leave(&submitters[i].ios[k].part);
                        sync_leave(&submitters[i].ios[k].onward);
                }
        }
}

static struct sync_counters run(const struct mix *m)
{
        struct sync_counters total = {0};

        looks = remaps = deaths = ios_done = served = 0;
        start(m);
        watch(m->ms);
        finish();
        for (unsigned i = 0; i < VMS; i++) {
                const struct sync_counters *c = &vms[i].sync.counters;

                assert_null(vms[i].sync.first);
                assert_int_equal(vms[i].sync.owed, 0);
                total.flushes += c->flushes;
                total.stops += c->stops;
                total.kicks += c->kicks;
                total.spins += c->spins;
                total.sleeps += c->sleeps;
                total.overflows += c->overflows;
                total.graces += c->graces;
                sync_domain_fini(&vms[i].sync);
        }
        print_message("# seed %llu: %llu looks, %llu remaps, %llu I/Os, %llu deaths, %llu served\n",
                      (unsigned long long)seed, (unsigned long long)looks,
                      (unsigned long long)remaps, (unsigned long long)ios_done,
                      (unsigned long long)deaths, (unsigned long long)served);
        print_message("# %llu flushes, %llu stops, %llu kicks, %llu spins, %llu sleeps, "
                      "%llu overflows, %llu graces\n",
                      (unsigned long long)total.flushes, (unsigned long long)total.stops,
                      (unsigned long long)total.kicks, (unsigned long long)total.spins,
                      (unsigned long long)total.sleeps, (unsigned long long)total.overflows,
                      (unsigned long long)total.graces);
        if (stale[0]) {
                print_message("# %s\n", stale);
                fail();
        }
        return total;
}

static void everything_at_once(void **state)
{
        unsigned ms = (unsigned)env_number("RAMET_STRESS_MS", 5000);
        struct sync_counters c = run(&(struct mix){ms, VCPUS, WORKERS, SUBMITTERS, INITIATORS,
                                                   .coarse = true, .restless = true});

        assert_true(looks > 0 && remaps > 0 && ios_done > 0 && c.kicks > 0);
}

/* Nothing but ranges, often more than the FIFO holds: no coarse flush makes up for a lost one. */
static void ranges_and_overflows(void **state)
{
        unsigned ms = (unsigned)env_number("RAMET_STRESS_MS", 5000);
        struct sync_counters c = run(&(struct mix){ms / 5, 6, 2, 2, 2});

        assert_true(c.overflows > 0);
}

/* Each turns from VM to VM with one cache, where the other VMs have other pages. */
static void workers_serve_several_vms(void **state)
{
        unsigned ms = (unsigned)env_number("RAMET_STRESS_MS", 5000);

        run(&(struct mix){ms / 10, 0, 4, 0, 1});
        assert_true(looks > 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(everything_at_once),
                cmocka_unit_test(ranges_and_overflows),
                cmocka_unit_test(workers_serve_several_vms),
        };

        return cmocka_run_group_tests_name("sync_stress", tests, NULL, NULL);
}
