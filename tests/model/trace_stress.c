/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes a trace of src/sync: two vCPUs on fake guests, an I/O in flight, two initiators, and vCPUs
 * that initiate, all at random. Prints the events, one a line, "event who participant value".
 *
 *     trace_stress SEED EVENTS
 *
 * Participants are numbered in the order in which they join; initiators are 0 and 1, and a vCPU
 * that initiates is 2 and its number. Two pages have versions, as in the model.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sync/sync.h"
#include "sync/trace.h"

#define VCPUS      2
#define IO         VCPUS
#define INITIATORS 2
#define PAGES      2
#define BIT        3

static struct event {
        int event, who, p;
        unsigned long long value;
} * events;
static unsigned nevents, events_max;

static pthread_mutex_t trace_mutex = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local int me;
static _Thread_local uint64_t random_state;
static uint64_t seed;

static struct sync_domain domain;
static struct sync_participant parts[VCPUS + 1];
static unsigned versions[PAGES] = {1, 1}; /* [trace_mutex] */
static unsigned caches[VCPUS + 1][PAGES]; /* its user's */
static _Atomic int kicked[VCPUS], quit, drained;
static _Atomic int busy; /* the I/O: 0 idle, 1 being lent, 2 in flight */

/* --- the recorder --- */

static unsigned one_in(unsigned n)
{
        random_state = random_state * 6364136223846793005u + 1442695040888963407u;
        return (random_state >> 33) % n == 0;
}

int sync_trace_id(const struct sync_participant *p)
{
        return (int)(p - parts);
}

int sync_trace_me(void)
{
        return me;
}

void sync_trace_lock(void)
{
        pthread_mutex_lock(&trace_mutex);
}

void sync_trace_unlock(int event, int who, int p, uint64_t value)
{
        if (nevents < events_max)
                events[nevents++] = (struct event){event, who, p, value};
        else
                atomic_store(&quit, 1);
        pthread_mutex_unlock(&trace_mutex);
        if (one_in(8)) /* or the threads hardly ever meet within a function */
                sched_yield();
}

/* --- what the threads do --- */

static void kick(void *data)
{
        int id = (int)((_Atomic int *)data - kicked);

        TRACED_DO(EV_SIGNAL, me, id, 0, atomic_store(&kicked[id], 1));
}

static void look(int id, int page)
{
        if (caches[id][page])
                TRACED_DO(EV_USE_CACHED, id, page, caches[id][page], (void)0);
        else
                TRACED_DO(EV_LOOK_UP, id, page, versions[page], caches[id][page] = versions[page]);
}

static void take(int id)
{
        struct sync_taken taken;

        if (!sync_take(&parts[id], &taken))
                return;
        for (int page = 0; page < PAGES; page++)
                if (taken.kinds)
                        caches[id][page] = 0;
        for (unsigned i = 0; i < taken.nranges; i++)
                caches[id][taken.ranges[i].gpa] = 0;
}

static void flush(int page, bool coarse)
{
        struct sync_range range = {.gpa = (uint64_t)page, .len = 1};
        struct sync_invalidation inv = {.nranges = 1, .ranges = &range};
        unsigned newest;

        if (coarse)
                inv = (struct sync_invalidation){.kinds = SYNC_CURRENT};
        TRACED_DO(EV_FLUSH, me, page, coarse, (void)0);
        TRACED_DO(EV_REPLACE, me, page, newest, newest = ++versions[page]);
        sync_flush(&domain, &inv);
        TRACED_DO(EV_FREE, me, page, newest - 1, (void)0);
}

static void stop(void)
{
        unsigned newest;

        sync_stop(&domain);
        TRACED_DO(EV_STOPPED, me, 0, 0, (void)0);
        TRACED_DO(EV_REPLACE, me, 0, newest, newest = ++versions[0]);
        sync_post(&domain, &(struct sync_invalidation){.kinds = SYNC_CURRENT});
        TRACED_DO(EV_FREE, me, 0, newest - 1, (void)0);
        sync_resume(&domain);
}

static void initiate(void)
{
        if (one_in(4))
                stop();
        else
                flush(one_in(2) ? 0 : 1, one_in(4));
}

static void take_kick(int id)
{
        if (!sync_kicked(&parts[id]))
                return;
        while (!atomic_load(&kicked[id]))
                sched_yield();
        TRACED_DO(EV_TAKE_KICK, id, id, 0, atomic_store(&kicked[id], 0));
}

static void run_guest(int id)
{
        if (!sync_guest_begin(&parts[id])) {
                take_kick(id);
                return;
        }
        if (!TRACED_AS(EV_RUN, id, id, v_, atomic_load(&kicked[id]))) {
                for (int i = 0; i < 20 && !atomic_load(&kicked[id]); i++)
                        sched_yield();
                TRACED_AS(EV_RUN_END, id, id, v_, atomic_load(&kicked[id]));
        }
        sync_guest_end(&parts[id]);
        take_kick(id);
}

static void *vcpu_main(void *data)
{
        int id = (int)(intptr_t)data;

        me = INITIATORS + id;
        random_state = seed << 8 | (uint64_t)me;
        while (!atomic_load(&quit)) {
                int idle = 0;

                sync_enter(&parts[id]);
                take(id);
                TRACED_DO(EV_USE, id, id, 0, (void)0);
                look(id, 0);
                if (one_in(2))
                        look(id, 1);
                if (one_in(2) && atomic_compare_exchange_strong(&busy, &idle, 1)) {
                        for (int page = 0; page < PAGES; page++)
                                caches[IO][page] = caches[id][page];
                        sync_lend(&parts[id], &parts[IO]);
                        atomic_store(&busy, 2);
                }
                if (!one_in(4))
                        run_guest(id);
                look(id, 0);
                if (one_in(2))
                        sync_test_clear(&parts[id], BIT);
                if (id == 1 && one_in(400))
                        return NULL; /* inside; it is left by who joins it */
                sync_exit(&parts[id]);
                if (one_in(8))
                        initiate();
                if (one_in(16))
                        usleep(2000);
        }
        return NULL;
}

static void *initiator_main(void *data)
{
        me = (int)(intptr_t)data;
        random_state = seed << 8 | (uint64_t)me;
        while (!atomic_load(&quit)) {
                if (one_in(4))
                        sync_request(&parts[one_in(2)], BIT);
                else
                        initiate();
                if (one_in(2))
                        usleep(50);
        }
        return NULL;
}

/* To the very end: the others may wait for the I/O. */
static void *completer_main(void *unused)
{
        while (!atomic_load(&drained) || atomic_load(&busy)) {
                if (atomic_load(&busy) != 2) {
                        sched_yield();
                        continue;
                }
                if (caches[IO][0])
                        look(IO, 0);
                sync_exit(&parts[IO]);
                atomic_store(&busy, 0);
        }
        return NULL;
}

int main(int argc, char **argv)
{
        pthread_t vcpus[VCPUS], initiators[INITIATORS], completer;

        if (argc != 3)
                return 2;
        seed = strtoull(argv[1], NULL, 0);
        events_max = (unsigned)strtoul(argv[2], NULL, 0);
        events = calloc(events_max, sizeof *events);
        if (!events)
                return 1;
        sync_domain_init(&domain);
        for (int i = 0; i <= VCPUS; i++)
                sync_join(&domain, &parts[i], i < VCPUS ? kick : NULL,
                          i < VCPUS ? &kicked[i] : NULL);
        for (intptr_t i = 0; i < VCPUS; i++)
                pthread_create(&vcpus[i], NULL, vcpu_main, (void *)i);
        for (intptr_t i = 0; i < INITIATORS; i++)
                pthread_create(&initiators[i], NULL, initiator_main, (void *)i);
        pthread_create(&completer, NULL, completer_main, NULL);
        for (int i = VCPUS - 1; i >= 0; i--) {
                pthread_join(vcpus[i], NULL);
                sync_leave(&parts[i]);
        }
        for (int i = 0; i < INITIATORS; i++)
                pthread_join(initiators[i], NULL);
        atomic_store(&drained, 1);
        pthread_join(completer, NULL);
        for (unsigned i = 0; i < nevents; i++)
                printf("%d %d %d %llu\n", events[i].event, events[i].who, events[i].p,
                       events[i].value);
        free(events);
        return 0;
}
