/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables for people. Cells are collected first, since a column is as wide as its widest cell; the
 * last column is not padded, so no line ends in blanks. Colour only repeats what the words say.
 *
 * Some texts are from files that a machine could write, or are names of files: a cell holds no
 * control characters, as messages do not (message.c).
 */
#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/message.h"

#define GAP 3

struct table_cell {
        enum table_style style;
        char text[TABLE_CELL_MAX];
};

void table_init(struct table *t, size_t columns)
{
        *t = (struct table){.columns = columns};
}

void table_fini(struct table *t)
{
        free(t->cells);
        *t = (struct table){0};
}

static struct table_cell *new_cell(struct table *t)
{
        if (t->next == 0) {
                if (t->rows == t->cap) {
                        size_t cap = t->cap ? 2 * t->cap : 16;
                        void *cells = reallocarray(t->cells, cap * t->columns, sizeof *t->cells);

                        if (!cells) {
                                t->failed = true;
                                return NULL;
                        }
                        t->cells = cells;
                        t->cap = cap;
                }
                memset(&t->cells[t->rows * t->columns], 0, t->columns * sizeof *t->cells);
                t->rows++;
        }
        return &t->cells[(t->rows - 1) * t->columns + t->next];
}

void table_cell(struct table *t, enum table_style style, const char *fmt, ...)
{
        struct table_cell *cell = t->failed ? NULL : new_cell(t);
        va_list ap;

        if (!cell)
                return;
        cell->style = style;
        va_start(ap, fmt);
        vsnprintf(cell->text, sizeof cell->text, fmt, ap);
        va_end(ap);
        message_hide_controls(cell->text);
        t->next = (t->next + 1) % t->columns;
}

static size_t width_of(const struct table *t, size_t column)
{
        size_t width = 0;

        for (size_t row = 0; row < t->rows; row++) {
                size_t n = strlen(t->cells[row * t->columns + column].text);

                width = n > width ? n : width;
        }
        return width;
}

void table_print(const struct table *t, FILE *out, bool colour)
{
        static const char *const start[] = {"", "\033[32m", "\033[1;31m"};
        size_t width[TABLE_COLUMNS_MAX];

        if (t->failed) {
                fputs("(no memory for the table)\n", out);
                return;
        }
        for (size_t c = 0; c < t->columns; c++)
                width[c] = width_of(t, c);
        for (size_t i = 0; i < t->rows * t->columns; i++) {
                const struct table_cell *cell = &t->cells[i];
                bool last = (i + 1) % t->columns == 0;
                bool styled = colour && cell->style != TABLE_PLAIN;
                int pad = (int)(width[i % t->columns] - strlen(cell->text) + GAP);

                fprintf(out, "%s%s%s", styled ? start[cell->style] : "", cell->text,
                        styled ? "\033[0m" : "");
                if (last)
                        fputc('\n', out);
                else
                        fprintf(out, "%*s", pad, "");
        }
}

bool table_colour(int fd)
{
        const char *no = getenv("NO_COLOR");
        const char *term = getenv("TERM");

        return isatty(fd) && !(no && *no) && !(term && !strcmp(term, "dumb"));
}
