/* SPDX-License-Identifier: Apache-2.0 */
/* The clock of events and durations. */
#ifndef RAMET_CLI_CLOCK_H
#define RAMET_CLI_CLOCK_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC in nanoseconds. */
static inline uint64_t clock_now(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
