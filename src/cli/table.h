/* SPDX-License-Identifier: Apache-2.0 */
/* Tables for people: columns as wide as their widest cell. */
#ifndef RAMET_CLI_TABLE_H
#define RAMET_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12
#define TABLE_CELL_MAX    160 /* bytes; longer text is cut */

enum table_style {
        TABLE_PLAIN,
        TABLE_GOOD,
        TABLE_BAD,
};

struct table {
        size_t columns;
        size_t rows; /* the header is the first */
        size_t cap;
        struct table_cell *cells;
        size_t next; /* column of the next cell */
        bool failed; /* out of memory: nothing is printed but a word about it */
};

void table_init(struct table *t, size_t columns);
void table_fini(struct table *t);
/* The next cell, row by row from the header on. */
void table_cell(struct table *t, enum table_style style, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
void table_print(const struct table *t, FILE *out, bool colour);

/* Colour belongs on a terminal only, and not where NO_COLOR is set (https://no-color.org). */
bool table_colour(int fd);

#endif
