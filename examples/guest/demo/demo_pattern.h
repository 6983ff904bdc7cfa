/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the demo guest writes into its memory and how it hashes it; the host includes this file too,
 * to compute the same values without the guest.
 *
 * The fill area is @fill_mib MiB of 4 KiB pages, 512 little-endian words each; word i of the area
 * (counted over all pages) is demo_word(seed, i). After the fork machine @number (0 in the parent,
 * 1..N in the clones, 0 when there was no fork) writes every page p with
 *
 *      p % every == (number % 2) % every
 *
 * anew, with demo_word(demo_own_seed(seed, number), i). So machines of like parity write the same
 * pages with different bytes, and machines of unlike parity write pages that the others only read.
 *
 * A page's hash depends on the order of its words and on the page's index; the hash of a set of
 * pages is the sum of theirs, so that any number of processors can share the work.
 */
#ifndef DEMO_PATTERN_H
#define DEMO_PATTERN_H

#include <stdint.h>

#define DEMO_PAGE_WORDS   512
#define DEMO_PAGES_MIB    256  /* pages in a MiB */
#define DEMO_FILL_DEFAULT 64   /* MiB */
#define DEMO_FILL_MAX     2048 /* MiB */
#define DEMO_EVERY        64   /* one page in so many is written after the fork */
#define DEMO_WAIT_MS      200  /* for so long a machine keeps writing its pages */

static inline uint64_t
demo_mix64(uint64_t z) /* the finaliser of SplitMix64 (Steele et al., 2014) */
{
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static inline uint64_t demo_word(uint64_t seed, uint64_t i)
{
        return demo_mix64(seed + (i + 1) * 0x9e3779b97f4a7c15u);
}

static inline uint64_t demo_own_seed(uint64_t seed, uint32_t number)
{
        return demo_mix64(seed ^ demo_mix64(number + 1u));
}

/* Does machine @number write @page after the fork? @every is at least 1. */
static inline int demo_page_is_own(uint64_t page, uint32_t number, uint64_t every)
{
        return page % every == (number % 2) % every;
}

static inline uint64_t demo_hash_start(uint64_t page)
{
        return demo_mix64(page + 1);
}

static inline uint64_t demo_hash_step(uint64_t h, uint64_t word)
{
        h = (h ^ word) * 0x9ddfea08eb382d69u;
        return h << 29 | h >> 35;
}

static inline uint64_t demo_hash_end(uint64_t h)
{
        return demo_mix64(h);
}

/* The hash of a page in memory. */
static inline uint64_t demo_hash_page(const uint64_t *words, uint64_t page)
{
        uint64_t h = demo_hash_start(page);

        for (unsigned i = 0; i < DEMO_PAGE_WORDS; i++)
                h = demo_hash_step(h, words[i]);
        return demo_hash_end(h);
}

/* The hash that a page has when it was filled from @seed. */
static inline uint64_t demo_hash_filled(uint64_t seed, uint64_t page)
{
        uint64_t h = demo_hash_start(page);

        for (unsigned i = 0; i < DEMO_PAGE_WORDS; i++)
                h = demo_hash_step(h, demo_word(seed, page * DEMO_PAGE_WORDS + i));
        return demo_hash_end(h);
}

struct demo_hashes {
        uint64_t sees; /* the whole area, as the parent filled it */
        uint64_t own;  /* the pages that this machine wrote after the fork */
        uint64_t rest; /* all others: still the parent's */
};

/* What machine @number must print. The same @seed, @fill_mib and @every as the guest was given. */
static inline struct demo_hashes demo_expected(uint64_t seed, uint64_t fill_mib, uint64_t every,
                                               uint32_t number)
{
        struct demo_hashes e = {0, 0, 0};

        for (uint64_t page = 0; page < fill_mib * DEMO_PAGES_MIB; page++) {
                uint64_t filled = demo_hash_filled(seed, page);

                e.sees += filled;
                if (demo_page_is_own(page, number, every))
                        e.own += demo_hash_filled(demo_own_seed(seed, number), page);
                else
                        e.rest += filled;
        }
        return e;
}

#endif
