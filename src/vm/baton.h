/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baton: while a machine has read-only memory slots, at most one of its vCPUs is in guest mode,
 * namely the holder. KVM emulates a write into such a slot, a locked one in two steps (it reads and
 * computes, then exits with the result), and another vCPU between the two would lose an update.
 *
 * First come, first served. A holder keeps the baton over its exits until it is asked to yield: by
 * one who waits, when the holder's time is over, with a request that kicks it out of guest mode. A
 * halted vCPU sits in KVM_RUN too, and would waste its time and everybody's; it gets little.
 *
 * Waiting is done outside all read sections, by a vCPU whose I/O is completed, so that a stop needs
 * nothing from it. Threads: each vCPU for itself.
 */
#ifndef RAMET_VM_BATON_H
#define RAMET_VM_BATON_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct vcpu;

struct baton {
        pthread_mutex_t lock;
        struct vcpu *_Atomic holder; /* written under lock */
        struct vcpu *first, *last;   /* [lock] who waits, by vcpu->baton_next */
        bool begun;                  /* [lock] the holder is awake; its turn has begun ... */
        uint64_t since_ns;           /* [lock] ... then */
        bool asked;                  /* [lock] ... and it was asked to yield */
        unsigned busy_waiters;       /* [lock] of those who wait, the ones that were not halted */
        _Atomic uint64_t handovers;  /* [a] statistics */
        _Atomic uint64_t short_turns;
};

void baton_init(struct baton *baton);
void baton_fini(struct baton *baton);

/* Does @vcpu hold it? Own thread. */
bool baton_held(const struct baton *baton, const struct vcpu *vcpu);
/* Wait until it does, as long as @wanted(vcpu) says so; it is asked about every millisecond.
 * @yield: it has been asked to let others go first. Own thread, outside. */
void baton_take(struct baton *baton, struct vcpu *vcpu, bool yield, bool (*wanted)(struct vcpu *));
/* Give it away; nothing if it does not hold it. Own thread. */
void baton_drop(struct baton *baton, struct vcpu *vcpu);

#endif
