/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small kernel to be tested: the guest of examples/kernel_tests.c. It boots, prints
 * "kernel: ready", and serves lines on the serial port until it is told to end; kernel.c lists
 * them. Its parts know nothing of tests.
 */
#ifndef KERNEL_H
#define KERNEL_H

#include "rt/rt.h"

#define EXIT_PANIC 3 /* value of isa-debug-exit */

/* The kernel found itself broken: say so, and end. */
_Noreturn void panic(const char *what, uint64_t where);

/* --- heap.c --- */

extern uint8_t heap[];
extern uint64_t heap_used; /* bytes in blocks that are allocated, without headers */

void heap_init(void);
void *heap_alloc(uint64_t bytes); /* NULL: no memory, or 0 bytes; aligned to 16 */
void heap_free(void *block);      /* panics if it is none */
unsigned heap_free_blocks(void);

/* --- files.c: each returns what is wrong, or NULL --- */

const char *file_write(const char *name, const char *text); /* makes it, or replaces its text */
const char *file_append(const char *name, const char *text);
const char *file_rename(const char *name, const char *to);
const char *file_remove(const char *name);
const char *file_print(const char *name);
void file_list(void);

/* --- calc.c --- */

const char *calc(const char *expression, int64_t *result); /* what is wrong, or NULL */

/* --- strings --- */

void *memcpy(void *to, const void *from, size_t len); /* the runtime's */

static inline uint64_t length(const char *s)
{
        uint64_t n = 0;

        while (s[n])
                n++;
        return n;
}

static inline int same(const char *a, const char *b)
{
        while (*a && *a == *b)
                a++, b++;
        return *a == *b;
}

#endif
