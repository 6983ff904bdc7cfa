/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device of the tests: a thread that reads and writes the guest's memory while the guest writes
 * the same pages. It stays in one read section as long as nobody wants it out, so that it holds its
 * translations across whatever happens.
 */
#ifndef RAMET_TESTS_LITMUS_DEVICE_H
#define RAMET_TESTS_LITMUS_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>

#include "vm/vm.h"
#include "mem/access.h"

struct litmus_device {
        struct vm *vm;
        struct sync_participant part;
        struct tlb tlb;
        struct guest_access access;
        pthread_t thread;
        _Atomic bool stop;
        _Atomic uint64_t round;   /* that it is in, or has done last */
        uint64_t freezes_wanted;  /* they are spread over the rounds ... */
        _Atomic uint64_t freezes; /* ... and it waits until there have been so many */
        uint64_t left;            /* how often it has left its section because it was asked to */
        char bad[256];            /* "", or what it has seen; after the thread has ended */
};

/* Before the guest is told to begin; it must run LITMUS_DEVICE. */
void litmus_device_start(struct litmus_device *d, struct vm *vm, uint64_t freezes_wanted);
/* When the guest has ended, or failed to. Before the machine is destroyed. */
void litmus_device_end(struct litmus_device *d);

#endif
