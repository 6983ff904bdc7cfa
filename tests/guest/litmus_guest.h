/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the guest "litmus" share: see litmus.c. */
#ifndef LITMUS_GUEST_H
#define LITMUS_GUEST_H

#include "rt/rt.h"
#include "litmus.h"

extern uint32_t number; /* what the doorbell said */

/* Word @word of page @page of the area, what it held at first and is to hold. */
volatile uint64_t *word_at(uint64_t page, unsigned word);
uint64_t old_of(volatile const uint64_t *p);
uint64_t new_of(volatile const uint64_t *p);

/* @p was seen to hold @saw, and should have held @want. */
void report(volatile const uint64_t *p, uint64_t saw, uint64_t want);
void must_be(volatile const uint64_t *p, uint64_t want);
void count_rounds(uint64_t n);
void relax(unsigned *spins); /* in a loop that waits for another processor; *spins is 0 at first */

/* litmus_host.c: tests in which the host takes part */
void prepare_clock(unsigned cpu); /* at CPL 0, on each processor, before the fork */
void storm(unsigned cpu, unsigned ticks);
void device(unsigned cpu, unsigned pages);
void clock(unsigned cpu, unsigned ticks);

#endif
