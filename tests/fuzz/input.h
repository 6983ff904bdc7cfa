/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of an input, taken one after the other. When there are no more, they are zeros. */
#ifndef RAMET_TESTS_FUZZ_INPUT_H
#define RAMET_TESTS_FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "no_cmocka.h"

struct input {
        const uint8_t *at;
        size_t left;
};

static inline void take(struct input *in, void *to, size_t len)
{
        size_t n = len < in->left ? len : in->left;

        memset(to, 0, len);
        if (n == 0)
                return;
        memcpy(to, in->at, n);
        in->at += n;
        in->left -= n;
}

static inline uint8_t take8(struct input *in)
{
        uint8_t v;

        take(in, &v, sizeof v);
        return v;
}

static inline uint16_t take16(struct input *in)
{
        uint16_t v;

        take(in, &v, sizeof v);
        return v;
}

static inline uint32_t take32(struct input *in)
{
        uint32_t v;

        take(in, &v, sizeof v);
        return v;
}

static inline uint64_t take64(struct input *in)
{
        uint64_t v;

        take(in, &v, sizeof v);
        return v;
}

/* A length that is mostly small, sometimes a large multiple of 16, and sometimes anything. */
static inline uint32_t take_len(struct input *in)
{
        uint8_t n = take8(in);

        if (n < 0xe0)
                return n * 8u;
        if (n < 0xf0)
                return (n & 15) * 0x1000u + take8(in) * 16u;
        return n < 0xf8 ? take16(in) : take32(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#endif
