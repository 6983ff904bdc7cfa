/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Token buckets without a count of tokens: all there is to know is when the bucket will be full
 * again. A price of n moves that moment by n / rate; the bucket is empty when the moment is a whole
 * second away. No timer fills it, and the rest of the division is kept, so that rates hold exactly.
 */
#include "io/throttle.h"

#define SECOND 1000000000u

static uint64_t add(uint64_t a, uint64_t b)
{
        return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t bucket_delay(const struct throttle_bucket *b, uint64_t now_ns)
{
        uint64_t level = add(now_ns, SECOND); /* it is empty when it is full no sooner than this */

        if (!b->rate || b->full_ns < level)
                return 0;
        return b->full_ns - level + 1;
}

static void bucket_take(struct throttle_bucket *b, uint64_t n, uint64_t now_ns)
{
        unsigned __int128 price;

        if (!b->rate)
                return;
        if (b->full_ns < now_ns) {
                b->full_ns = now_ns;
                b->rest = 0;
        }
        price = (unsigned __int128)n * SECOND + b->rest;
        b->rest = (uint64_t)(price % b->rate);
        price /= b->rate;
        b->full_ns = price > UINT64_MAX ? UINT64_MAX : add(b->full_ns, (uint64_t)price);
}

void throttle_init(struct throttle *t, uint64_t requests_max, uint64_t bytes_max)
{
        *t = (struct throttle){.requests.rate = requests_max, .bytes.rate = bytes_max};
}

uint64_t throttle_delay(const struct throttle *t, uint64_t now_ns)
{
        uint64_t a = bucket_delay(&t->requests, now_ns), b = bucket_delay(&t->bytes, now_ns);

        return a > b ? a : b;
}

void throttle_take(struct throttle *t, uint64_t bytes, uint64_t now_ns)
{
        bucket_take(&t->requests, 1, now_ns);
        bucket_take(&t->bytes, bytes, now_ns);
}
