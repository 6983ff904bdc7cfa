/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A limit for requests a second and one for bytes a second: two token buckets, each of which holds
 * what one second brings. So a disk that was idle may do a second's worth at once, and over any
 * longer time it does no more than its rate and that.
 *
 * A request may go as soon as there is any token left in both buckets, and takes its whole price:
 * one that costs more than there is leaves a debt, which those after it wait for. Otherwise a
 * request larger than a second's bytes could never go.
 *
 * Pure computation. Times are of one clock that does not go back (CLOCK_MONOTONIC), in ns. Any
 * values are fine.
 */
#ifndef RAMET_IO_THROTTLE_H
#define RAMET_IO_THROTTLE_H

#include <stdint.h>

struct throttle_bucket {
        uint64_t rate;    /* a second; 0: no limit */
        uint64_t full_ns; /* when it will be full again */
        uint64_t rest;    /* and this many rate-ths of a nanosecond later */
};

struct throttle {
        struct throttle_bucket requests, bytes;
};

/* 0: no limit. The buckets are full. */
void throttle_init(struct throttle *t, uint64_t requests_max, uint64_t bytes_max);

/* How long until the next request may go, in ns; 0: now. */
uint64_t throttle_delay(const struct throttle *t, uint64_t now_ns);
/* One request of @bytes (0 for those that move none) goes now. */
void throttle_take(struct throttle *t, uint64_t bytes, uint64_t now_ns);

#endif
