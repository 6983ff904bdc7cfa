/* SPDX-License-Identifier: Apache-2.0 */
/* What guest dirtier.c and its test agree on. */
#ifndef DIRTIER_H
#define DIRTIER_H

#include <stdint.h>

#define DIRTIER_AREA       0x1000000ull
#define DIRTIER_AREA_PAGES 2048ull

/* splitmix64 */
static inline uint64_t dirtier_next(uint64_t *state)
{
        uint64_t z = *state += 0x9e3779b97f4a7c15ull;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ z >> 27) * 0x94d049bb133111ebull;
        return z ^ z >> 31;
}

#endif
