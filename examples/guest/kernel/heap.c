// SPDX-License-Identifier: Apache-2.0
/*
 * First fit in one arena. Blocks lie one behind the other, each with a header; whoever walks them
 * finds out if one has been overwritten.
 */
#include "kernel.h"

#define ARENA_BYTES 65536u
#define MAGIC       0x6b636f6cu

struct block {
        uint32_t magic;
        uint32_t used;
        uint64_t bytes; /* behind this header, a multiple of 16 */
};

uint8_t heap[ARENA_BYTES] __attribute__((aligned(4096)));
uint64_t heap_used;

void heap_init(void)
{
        *(struct block *)heap = (struct block){MAGIC, 0, ARENA_BYTES - sizeof(struct block)};
}

static struct block *next(struct block *b)
{
        b = (struct block *)((uint8_t *)(b + 1) + b->bytes);
        if ((uint8_t *)b == heap + ARENA_BYTES)
                return NULL;
        if ((uint8_t *)b > heap + ARENA_BYTES || b->magic != MAGIC)
                panic("heap: a block was overwritten", (uint64_t)b);
        return b;
}

void *heap_alloc(uint64_t bytes)
{
        uint64_t want = (bytes + 15) & ~15ull;

        if (bytes == 0 || want < bytes)
                return NULL;
        for (struct block *b = (struct block *)heap; b; b = next(b)) {
                if (b->used || b->bytes < want)
                        continue;
                if (b->bytes > want + sizeof *b) { /* the rest stays free */
                        struct block *rest = (struct block *)((uint8_t *)(b + 1) + want);

                        *rest = (struct block){MAGIC, 0, b->bytes - want - sizeof *b};
                        b->bytes = want;
                }
                b->used = 1;
                heap_used += b->bytes;
                return b + 1;
        }
        return NULL;
}

static void merge_free(void)
{
        for (struct block *b = (struct block *)heap, *n; b; b = n) {
                n = next(b);
                if (n && !b->used && !n->used) {
                        b->bytes += sizeof *n + n->bytes;
                        n = b; /* once more: the one behind may be free, too */
                }
        }
}

void heap_free(void *block)
{
        struct block *b = (struct block *)heap;

        while (b && b + 1 != block)
                b = next(b);
        if (!b)
                panic("heap: no such block", (uint64_t)block);
        if (!b->used)
                panic("heap: freed twice", (uint64_t)block);
        b->used = 0;
        heap_used -= b->bytes;
        merge_free();
}

unsigned heap_free_blocks(void)
{
        unsigned n = 0;

        for (struct block *b = (struct block *)heap; b; b = next(b))
                n += !b->used;
        return n;
}
