/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conformance table of docs/engines.md: instruction x engine x number of vCPUs, between two
 * marker lines. A test fills a table with what it has seen, and compares or writes.
 *
 * What a host cannot run is no verdict: another host may be able to, and only cells with a verdict
 * on both sides are compared.
 */
#ifndef RAMET_TESTS_CONFORM_TABLE_H
#define RAMET_TESTS_CONFORM_TABLE_H

#include <stdbool.h>

#define CONFORM_ENGINES 3 /* in the order of enum ramet_cow */
#define CONFORM_VCPUS   2 /* 1 and 2 */
#define CONFORM_ROWS    200

enum conform_verdict {
        CONFORM_NOTHING, /* not run */
        CONFORM_OK,
        CONFORM_BAD,
        CONFORM_NA,      /* the host lacks the instruction */
        CONFORM_REFUSED, /* the machine cannot be had with this engine */
};

struct conform_row {
        char group; /* '3': at CPL 3, '0': at CPL 0, 'k': KVM and devices */
        char name[48];
        char note[96]; /* why not */
        enum conform_verdict cells[CONFORM_ENGINES][CONFORM_VCPUS];
};

struct conform_table {
        struct conform_row rows[CONFORM_ROWS];
        unsigned nrows;
        char refused[CONFORM_ENGINES][256]; /* why; "" when it is not */
};

extern const char *const conform_engine_name[CONFORM_ENGINES];

/* The row, a new one if need be; NULL when there are too many. */
struct conform_row *conform_row_get(struct conform_table *t, char group, const char *name);

/* Write the section of the file at @path anew. 0 or -errno; -EINVAL without markers. */
int conform_table_write(const struct conform_table *t, const char *path);

/* How many cells of the file at @path differ; each is printed. -errno; -EINVAL without markers. */
int conform_table_compare(const struct conform_table *t, const char *path);

#endif
