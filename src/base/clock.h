/* SPDX-License-Identifier: Apache-2.0 */
/* CLOCK_MONOTONIC in nanoseconds, for time-outs and time stamps. Any thread. */
#ifndef RAMET_BASE_CLOCK_H
#define RAMET_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_now_ns(void)
{
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* A time, or a duration, as system calls want it. */
static inline struct timespec clock_timespec(uint64_t ns)
{
        return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                                 .tv_nsec = (long)(ns % 1000000000u)};
}

/* From now to a deadline; 0 when that has passed. UINT64_MAX is never, and for ever. */
static inline uint64_t clock_until_ns(uint64_t deadline_ns)
{
        uint64_t now;

        if (deadline_ns == 0 || deadline_ns == UINT64_MAX)
                return deadline_ns;
        now = clock_now_ns();
        return deadline_ns > now ? deadline_ns - now : 0;
}

/* The deadline @delay_ns from now, UINT64_MAX if that is beyond all time. */
static inline uint64_t clock_after_ns(uint64_t delay_ns)
{
        const uint64_t now = clock_now_ns();

        return delay_ns < UINT64_MAX - now ? now + delay_ns : UINT64_MAX;
}

#endif
