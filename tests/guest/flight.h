/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest flight.c and its tests know of each other. */
#ifndef RAMET_TESTS_FLIGHT_H
#define RAMET_TESTS_FLIGHT_H

#include <stdint.h>

#define FLIGHT_MAGIC 0x7468676c69663ull

/* In guest memory, at the address that the guest prints: "flight: report at HEX". */
struct flight_report {
        uint64_t magic;
        volatile uint64_t rng, blk;   /* requests that were answered, and right */
        volatile uint64_t interrupts; /* of all devices */
        volatile uint64_t touched;    /* pages written by the second processor */
        volatile uint64_t resets;     /* of the entropy device, by the guest */
        volatile uint64_t error;      /* 0, or which check failed (the line in flight.c) ... */
        volatile uint64_t got, want;  /* ... and what it saw */
        /* The host's: 1: reset the entropy device, and set it up again. The guest clears it. */
        volatile uint64_t reset;
};

#endif
