/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at memory that another thread is about to change, for a while, before sleeping. It pays
 * when the other one takes less time than waking up (10 to 50 us from one processor to another),
 * and runs meanwhile. It does harm when the other one waits for this very processor, as it does on
 * a busy host. Which of them it is shows by trying: each look in vain doubles the number of waits
 * before the next one, so that they cost little where they are of no use.
 */
#ifndef RAMET_BASE_SPIN_H
#define RAMET_BASE_SPIN_H

#include <sched.h>
#include <stdbool.h>

#define SPIN_NS       20000
#define SPIN_SKIP_MAX 256

struct spin {
        bool may;         /* there are processors for it: spin_has_processors() */
        unsigned skip;    /* waits to come without a look */
        unsigned penalty; /* what skip becomes after the next one in vain, but for the doubling */
};

/* Is this wait to begin with a look? Then spin_done() says how it ended. */
static inline bool spin_worth(struct spin *s)
{
        if (s->may && s->skip == 0)
                return true;
        if (s->skip > 0)
                s->skip--;
        return false;
}

static inline void spin_done(struct spin *s, bool seen)
{
        if (seen) {
                s->penalty /= 2;
                return;
        }
        s->penalty = s->penalty ? s->penalty * 2 : 2;
        if (s->penalty > SPIN_SKIP_MAX)
                s->penalty = SPIN_SKIP_MAX;
        s->skip = s->penalty;
}

/* More processors than @threads, for this one? Asked once: it is a system call. */
static inline bool spin_has_processors(unsigned threads)
{
        cpu_set_t set;

        return sched_getaffinity(0, sizeof set, &set) == 0 && (unsigned)CPU_COUNT(&set) > threads;
}

/* Between two looks. */
static inline void spin_pause(void)
{
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
}

#endif
