/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest "litmus" and its test share: the numbers of the tests, and where in guest memory
 * the host looks.
 *
 * The machine rings the doorbell once its memory is prepared; the number that it reads back, in a
 * clone as in the parent, says what it has to do: LITMUS_NUMBER(test, amount). So that one boot
 * serves all tests.
 */
#ifndef LITMUS_H
#define LITMUS_H

enum litmus_test {
        LITMUS_MESSAGE, /* message passing: data, then flag */
        LITMUS_WRITERS, /* several write one page */
        LITMUS_LOCKERS, /* several count in one page, with `lock` and under a lock */
        LITMUS_POLL,    /* one writes, one polls */
        LITMUS_STORES,  /* store buffering */
        LITMUS_STORM,   /* sequence numbers over many pages, until the time is over */
        LITMUS_DEVICE,  /* words to and from a thread of the host */
        LITMUS_CLOCK,   /* kvmclock, until the time is over */
        LITMUS_TESTS,
};

/* @amount: pages, or for what goes on for a time, units of LITMUS_TICK_MS. Below 2^20. */
#define LITMUS_NUMBER(test, amount) ((uint32_t)(amount) << 4 | (uint32_t)(test))
#define LITMUS_NUMBERS              (1u << 24) /* of clones, so that each number is one's */
#define LITMUS_TICK_MS              10

#define LITMUS_PAGE 4096ull
#define LITMUS_AREA 0x400000ull /* pages that nobody has written since they were prepared */
#define LITMUS_CPUS 4

/* What the 8 bytes at @gpa hold before and after they are written. */
#define LITMUS_OLD(gpa) ((uint64_t)(gpa)*0x9e3779b97f4a7c15ull)
#define LITMUS_NEW(gpa) (~LITMUS_OLD(gpa))

/* STORM: processor c's page i, and its page of published numbers. The words: */
#define STORM_PAGES          64
#define STORM_PAGE(c, i)     (LITMUS_AREA + ((c) * (STORM_PAGES + 1ull) + (i)) * LITMUS_PAGE)
#define STORM_PUBLISHED(c)   STORM_PAGE(c, STORM_PAGES)
#define STORM_WORD_SEQUENCE  0   /* the last number that went to this page, 0: none */
#define STORM_WORD_NEIGHBOUR 511 /* what the next processor had published when that was written */

/* DEVICE: a page of words for talking, and the pages talked about. A round is a page; numbers are
 * those of rounds, from 1. */
#define DEVICE_CONTROL       LITMUS_AREA
#define DEVICE_PAGE(n)       (LITMUS_AREA + (n)*LITMUS_PAGE)
#define DEVICE_LOOKED        0x000 /* host: has read the page, and so has its translation */
#define DEVICE_GUEST_WROTE   0x040 /* guest: its word is there */
#define DEVICE_HOST_WROTE    0x080 /* host: has seen that, and written its own */
#define DEVICE_GUEST_LOOKED  0x0c0 /* guest: so has it */
#define DEVICE_OVER          0x100 /* guest: the last round it will do */
#define DEVICE_WORD_GUEST    0x180 /* in the page */
#define DEVICE_WORD_HOST     0x808
#define DEVICE_HOST_FIRST(n) ((n) % 2 == 0) /* who breaks the page */

#endif
