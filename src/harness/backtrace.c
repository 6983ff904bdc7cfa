/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames: see backtrace.h. They need not lie in any order, since a trap leads from one stack to
 * another; so what bounds the walk is that no frame comes twice, and their number.
 */
#include "harness/backtrace.h"

#include <stdbool.h>
#include <string.h>

/* A frame: the caller's frame pointer, and where it goes on. */
static bool read_frame(const struct frames *frames, uint64_t at, uint64_t *next, uint64_t *pc)
{
        uint32_t words32[2];
        uint64_t words64[2];

        if (frames->word == 8) {
                if (frames->read(frames->arg, at, words64, sizeof words64) != 0)
                        return false;
                *next = words64[0];
                *pc = words64[1];
                return true;
        }
        if (frames->read(frames->arg, at, words32, sizeof words32) != 0)
                return false;
        *next = words32[0];
        *pc = words32[1];
        return true;
}

static bool seen(const uint64_t *frames, unsigned n, uint64_t frame)
{
        for (unsigned i = 0; i < n; i++)
                if (frames[i] == frame)
                        return true;
        return false;
}

unsigned backtrace_walk(const struct frames *frames, uint64_t frame, uint64_t *pcs, unsigned max,
                        const char **why)
{
        uint64_t been[BACKTRACE_MAX], next, pc;
        const char *end = NULL;
        unsigned n = 0;

        if (max > BACKTRACE_MAX)
                max = BACKTRACE_MAX;
        while (frame != 0) {
                if (n == max)
                        end = "more frames";
                else if (frame % frames->word)
                        end = "a frame pointer that is not aligned";
                else if (seen(been, n, frame))
                        end = "a loop of frames";
                else if (!read_frame(frames, frame, &next, &pc))
                        end = "a frame that cannot be read";
                if (end || pc == 0)
                        break;
                been[n] = frame;
                pcs[n++] = pc;
                frame = next;
        }
        if (why)
                *why = end;
        return n;
}
