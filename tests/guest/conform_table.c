/* SPDX-License-Identifier: Apache-2.0 */
/* The conformance table as text: see conform_table.h. */
#include "conform_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEGIN      "<!-- conformance: begin, written by tests/guest/test_conform.c -->\n"
#define END        "<!-- conformance: end -->\n"
#define TEXT_MAX   (1u << 20)
#define NAME_WIDTH 34

static const struct {
        char group;
        const char *title;
} groups[] = {
        {'3', "In user mode (CPL 3)"},
        {'0', "In kernel mode (CPL 0)"},
        {'k', "By KVM and by devices"},
};
#define GROUPS (sizeof groups / sizeof *groups)

const char *const conform_engine_name[CONFORM_ENGINES] = {"private", "trap", "rom"};

static const char *const verdict_text[] = {"", "ok", "BAD", "n/a", "-"};

struct conform_row *conform_row_get(struct conform_table *t, char group, const char *name)
{
        struct conform_row *row;

        for (unsigned i = 0; i < t->nrows; i++)
                if (t->rows[i].group == group && !strcmp(t->rows[i].name, name))
                        return &t->rows[i];
        if (t->nrows == CONFORM_ROWS)
                return NULL;
        row = &t->rows[t->nrows++];
        row->group = group;
        snprintf(row->name, sizeof row->name, "%s", name);
        return row;
}

/* The whole file, with a NUL behind; NULL with errno. */
static char *read_all(const char *path)
{
        FILE *f = fopen(path, "re");
        char *text = calloc(1, TEXT_MAX);

        if (f && text)
                text[fread(text, 1, TEXT_MAX - 1, f)] = '\0';
        if (f)
                fclose(f);
        if (f && text)
                return text;
        free(text);
        return NULL;
}

/* Between the markers. */
static int find_section(char *text, char **begin, char **end)
{
        *begin = strstr(text, BEGIN);
        *end = strstr(text, END);
        if (!*begin || !*end || *end < *begin)
                return -EINVAL;
        *begin += sizeof BEGIN - 1;
        return 0;
}

static void write_group(FILE *f, const struct conform_table *t, unsigned g)
{
        fprintf(f, "\n%s:\n\n| %-*s |", groups[g].title, NAME_WIDTH, "");
        for (unsigned e = 0; e < CONFORM_ENGINES; e++)
                for (unsigned v = 0; v < CONFORM_VCPUS; v++)
                        fprintf(f, " %s, %u |", conform_engine_name[e], v + 1);
        fprintf(f, " note |\n| --- |");
        for (unsigned i = 0; i < CONFORM_ENGINES * CONFORM_VCPUS; i++)
                fprintf(f, " --- |");
        fprintf(f, " --- |\n");
        for (unsigned i = 0; i < t->nrows; i++) {
                const struct conform_row *row = &t->rows[i];

                if (row->group != groups[g].group)
                        continue;
                fprintf(f, "| %-*s |", NAME_WIDTH, row->name);
                for (unsigned e = 0; e < CONFORM_ENGINES; e++)
                        for (unsigned v = 0; v < CONFORM_VCPUS; v++)
                                fprintf(f, " %s |", verdict_text[row->cells[e][v]]);
                fprintf(f, " %s |\n", row->note);
        }
}

static void write_section(FILE *f, const struct conform_table *t)
{
        for (unsigned g = 0; g < GROUPS; g++)
                write_group(f, t, g);
        for (unsigned e = 0; e < CONFORM_ENGINES; e++)
                if (t->refused[e][0])
                        fprintf(f, "\n`%s` was refused: %s\n", conform_engine_name[e],
                                t->refused[e]);
        fprintf(f, "\n");
}

int conform_table_write(const struct conform_table *t, const char *path)
{
        char *text = read_all(path), *begin, *end;
        int r;
        FILE *f;

        if (!text)
                return -errno;
        r = find_section(text, &begin, &end);
        if (r < 0) {
                free(text);
                return r;
        }
        f = fopen(path, "we");
        if (!f) {
                free(text);
                return -errno;
        }
        fwrite(text, 1, (size_t)(begin - text), f);
        write_section(f, t);
        fputs(end, f);
        free(text);
        return fclose(f) ? -errno : 0;
}

/* The text of column @column (0: the name) of the table's line @line, blanks around it left out. */
static void column(const char *line, unsigned n, char *out, size_t size)
{
        const char *end = line + strcspn(line, "\n"), *from = line, *to;

        out[0] = '\0';
        for (unsigned i = 0; i <= n; i++) {
                from = memchr(from, '|', (size_t)(end - from));
                if (!from)
                        return;
                from++;
        }
        to = memchr(from, '|', (size_t)(end - from));
        if (!to)
                return;
        for (; from < to && *from == ' '; from++)
                ;
        for (; to > from && to[-1] == ' '; to--)
                ;
        snprintf(out, size, "%.*s", (int)(to - from), from);
}

/* The line of @row, from the title of its group on; NULL. */
static const char *find_row(const char *section, const struct conform_row *row)
{
        const char *at = NULL;
        char name[64];

        for (unsigned g = 0; g < GROUPS; g++)
                if (groups[g].group == row->group)
                        at = strstr(section, groups[g].title);
        while (at && (at = strchr(at, '\n')) && *++at) {
                for (unsigned g = 0; g < GROUPS; g++)
                        if (!strncmp(at, groups[g].title, strlen(groups[g].title)))
                                return NULL;
                column(at, 0, name, sizeof name);
                if (!strcmp(name, row->name))
                        return at;
        }
        return NULL;
}

static bool is_verdict(const char *text)
{
        return !strcmp(text, "ok") || !strcmp(text, "BAD");
}

/* A cell that says nothing is no difference, but for an engine that ran and is said to be refused.
 */
static bool cell_differs(const struct conform_row *row, const char *line, unsigned e, unsigned v)
{
        const char *now = verdict_text[row->cells[e][v]];
        char then[16] = "";

        if (!is_verdict(now))
                return false;
        if (line)
                column(line, 1 + e * CONFORM_VCPUS + v, then, sizeof then);
        if (!strcmp(then, now) || !strcmp(then, "n/a"))
                return false;
        printf("# %c: %s, %s, %u vCPUs: \"%s\" in the table, \"%s\" now\n", row->group, row->name,
               conform_engine_name[e], v + 1, then, now);
        return true;
}

int conform_table_compare(const struct conform_table *t, const char *path)
{
        char *text = read_all(path), *begin, *end;
        int r, differ = 0;

        if (!text)
                return -errno;
        r = find_section(text, &begin, &end);
        if (r == 0)
                *end = '\0';
        for (unsigned i = 0; i < t->nrows && r == 0; i++) {
                const char *line = find_row(begin, &t->rows[i]);

                for (unsigned e = 0; e < CONFORM_ENGINES; e++)
                        for (unsigned v = 0; v < CONFORM_VCPUS; v++)
                                differ += cell_differs(&t->rows[i], line, e, v);
        }
        free(text);
        return r < 0 ? r : differ;
}
