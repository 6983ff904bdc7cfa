/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who called whom, by frame pointers: each frame holds the caller's frame pointer and, above it,
 * the address to return to. All of that is what the guest wrote, possibly just before it crashed.
 */
#ifndef RAMET_HARNESS_BACKTRACE_H
#define RAMET_HARNESS_BACKTRACE_H

#include <stddef.h>
#include <stdint.h>

#define BACKTRACE_MAX 32u

struct frames {
        /* Reads the guest's memory by linear address: 0, or anything else when it cannot. */
        int (*read)(void *arg, uint64_t gva, void *buf, size_t len);
        void *arg;
        unsigned word; /* bytes of a frame pointer: 4 or 8 */
};

/* Return addresses, the innermost one first: at most @max and BACKTRACE_MAX. Ends where a frame
 * cannot be read, is no frame (address or frame 0, not aligned) or has been seen. *why, which may
 * be NULL: why it ended, NULL when at an outermost frame. */
unsigned backtrace_walk(const struct frames *frames, uint64_t frame, uint64_t *pcs, unsigned max,
                        const char **why);

#endif
