/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main() of a test program: its options, and its cases in the order in which they are written,
 * which is not that of their section.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/internal.h"

#define EXIT_USAGE 2

struct command {
        const char *program; /* its name, without directories */
        struct ramet_run_options options;
        const char **patterns;
        bool help, version;
};

/* --- options --- */

static int parse_number(const char *name, const char *value, uint64_t max, uint64_t *number,
                        struct err *err)
{
        char *end;

        errno = 0;
        *number = strtoull(value, &end, 10);
        if (errno || *end || end == value || value[0] < '0' || value[0] > '9' || *number == 0 ||
            *number > max)
                return err_input(err, "%s %s: expected a number from 1 to %llu", name, value,
                                 (unsigned long long)max);
        return 0;
}

static int parse_jobs(struct command *c, const char *name, const char *value, struct err *err)
{
        uint64_t jobs;
        int ret = parse_number(name, value, 256, &jobs, err);

        if (ret == 0)
                c->options.jobs = (unsigned)jobs;
        return ret;
}

static int parse_timeout(struct command *c, const char *name, const char *value, struct err *err)
{
        uint64_t seconds;
        int ret = parse_number(name, value, 1000000, &seconds, err);

        if (ret == 0)
                c->options.timeout_ns = seconds * RAMET_SECOND;
        return ret;
}

static int parse_isolation(struct command *c, const char *name, const char *value, struct err *err)
{
        if (strcmp(value, "reset") == 0)
                c->options.isolation = RAMET_BY_RESET;
        else if (strcmp(value, "clone") == 0)
                c->options.isolation = RAMET_BY_CLONE;
        else
                return err_input(err, "%s %s: expected reset or clone", name, value);
        return 0;
}

static int parse_junit(struct command *c, const char *name, const char *value, struct err *err)
{
        if (!*value)
                return err_input(err, "%s: expected a file", name);
        c->options.junit = value;
        return 0;
}

static int parse_pattern(struct command *c, const char *name, const char *value, struct err *err)
{
        c->patterns[c->options.npatterns++] = value;
        return 0;
}

static int set_list(struct command *c, const char *name, const char *value, struct err *err)
{
        c->options.list = true;
        return 0;
}

static int set_no_dirty(struct command *c, const char *name, const char *value, struct err *err)
{
        c->options.no_dirty = true;
        return 0;
}

static int set_help(struct command *c, const char *name, const char *value, struct err *err)
{
        c->help = true;
        return 0;
}

static int set_version(struct command *c, const char *name, const char *value, struct err *err)
{
        c->version = true;
        return 0;
}

static const struct option_row {
        const char *name, *argument, *help;
        int (*set)(struct command *c, const char *name, const char *value, struct err *err);
} rows[] = {
        {"--list", NULL, "print the names of the cases", set_list},
        {"--jobs", "N", "cases at a time (processors, at most 8; or RAMET_JOBS)", parse_jobs},
        {"--isolation", "HOW", "reset (each worker resets its machine) or clone (one a case)",
         parse_isolation},
        {"--timeout", "SECONDS", "of a case that has none of its own (10)", parse_timeout},
        {"--junit", "FILE", "write a JUnit report, too", parse_junit},
        {"--no-dirty", NULL, "do not count the pages that cases write", set_no_dirty},
        {"-k", "GLOB", "run these cases only; may be repeated", parse_pattern},
        {"--help", NULL, "this text", set_help},
        {"--version", NULL, "of the library", set_version},
};
#define NROWS (sizeof rows / sizeof rows[0])

/* --option VALUE and --option=VALUE. *at is the argument's index, and moves over its value. */
static int parse_option(struct command *c, int argc, char **argv, int *at, struct err *err)
{
        const char *given = argv[*at], *equals = strchr(given, '=');
        size_t len = equals ? (size_t)(equals - given) : strlen(given);

        for (unsigned i = 0; i < NROWS; i++) {
                const struct option_row *row = &rows[i];
                const char *value = equals ? equals + 1 : NULL;

                if (strlen(row->name) != len || strncmp(row->name, given, len) != 0)
                        continue;
                if (!row->argument && value)
                        return err_input(err, "%s: takes no value", row->name);
                if (row->argument && !value && *at + 1 < argc)
                        value = argv[++*at];
                if (row->argument && !value)
                        return err_input(err, "%s: expected %s", row->name, row->argument);
                return row->set(c, row->name, value, err);
        }
        return err_input(err, "%s: unknown option; --help lists them", given);
}

static int parse(struct command *c, int argc, char **argv, struct err *err)
{
        const char *jobs = getenv("RAMET_JOBS");
        bool options = true;
        int ret = 0;

        if (jobs && *jobs)
                ret = parse_jobs(c, "RAMET_JOBS", jobs, err);
        for (int i = 1; i < argc && ret == 0; i++) {
                if (options && strcmp(argv[i], "--") == 0)
                        options = false;
                else if (options && argv[i][0] == '-' && argv[i][1])
                        ret = parse_option(c, argc, argv, &i, err);
                else
                        ret = parse_pattern(c, NULL, argv[i], err);
        }
        c->options.patterns = c->patterns;
        return ret;
}

static void tell_help(const struct command *c, struct text *out)
{
        text_add(out, "usage: %s [OPTION...] [GLOB...]\n\n", c->program);
        text_add(out, "Boots a guest and runs the cases, or those whose name matches a GLOB, each\n"
                      "in a copy of it. Prints TAP. The exit status is 0, 1 when a case failed, 2\n"
                      "when nothing could be run.\n\n");
        for (unsigned i = 0; i < NROWS; i++)
                text_add(out, "  %s %-*s %s\n", rows[i].name, (int)(19 - strlen(rows[i].name)),
                         rows[i].argument ? rows[i].argument : "", rows[i].help);
}

/* --- cases --- */

struct placed {
        const struct ramet_case *c;
        size_t file; /* files as they first come */
        size_t at;
};

static int compare_places(const void *a, const void *b)
{
        const struct placed *x = a, *y = b;

        if (x->file != y->file)
                return x->file < y->file ? -1 : 1;
        if (x->c->line != y->c->line)
                return x->c->line < y->c->line ? -1 : 1;
        return (x->at > y->at) - (x->at < y->at);
}

static size_t file_of(const struct placed *places, size_t n, const struct ramet_case *c)
{
        for (size_t i = 0; i < n; i++)
                if (c->file && places[i].c->file && strcmp(places[i].c->file, c->file) == 0)
                        return places[i].file;
        return n;
}

/* The cases, file by file and line by line; the caller frees them. */
static int sort_cases(const struct ramet_case *const *begin, size_t n,
                      const struct ramet_case ***sorted)
{
        struct placed *places = calloc(n ? n : 1, sizeof *places);
        const struct ramet_case **cases = calloc(n ? n : 1, sizeof *cases);

        if (!places || !cases) {
                free(places);
                free(cases);
                return -ENOMEM;
        }
        for (size_t i = 0; i < n; i++)
                places[i] = (struct placed){begin[i], file_of(places, i, begin[i]), i};
        qsort(places, n, sizeof *places, compare_places);
        for (size_t i = 0; i < n; i++)
                cases[i] = places[i].c;
        free(places);
        *sorted = cases;
        return 0;
}

/* --- main --- */

static void print(int fd, struct text *text)
{
        (void)harness_write(fd, text);
        text_fini(text);
}

static int complain(const struct command *c, const char *why)
{
        struct text out = {0};

        text_add(&out, "%s: %s\n", c->program, why);
        print(STDERR_FILENO, &out);
        return EXIT_USAGE;
}

static int run(const struct command *c, const struct ramet_guest *guest,
               const struct ramet_case *const *cases, size_t n)
{
        struct ramet_ctx *ctx = NULL;
        int ret = ramet_ctx_create(&ctx);

        if (ret == 0)
                ret = ramet_run_cases(ctx, guest, cases, n, &c->options, NULL);
        if (ret < 0)
                complain(c, ramet_last_error(NULL));
        ramet_ctx_destroy(ctx);
        return ret < 0 ? EXIT_USAGE : ret;
}

int ramet_harness_main(int argc, char **argv, const struct ramet_guest *guest,
                       const struct ramet_case *const *begin, const struct ramet_case *const *end)
{
        struct command c = {.program = "ramet", .options = {.size = sizeof c.options}};
        const struct ramet_case **cases = NULL;
        struct text out = {0};
        struct err err = {0};
        int ret;

        if (argc < 0 || (argc && !argv) || !guest || (begin != end && (!begin || !end)) ||
            begin > end) {
                harness_invalid("%s: %s", __func__,
                                !guest ? "guest: NULL" : "argv or the section of cases");
                return EXIT_USAGE;
        }
        if (argc > 0) {
                const char *slash = strrchr(argv[0], '/');

                c.program = slash ? slash + 1 : argv[0];
        }
        c.options.name = c.program;
        c.patterns = calloc((size_t)argc + 1, sizeof *c.patterns);
        ret = c.patterns ? sort_cases(begin, (size_t)(end - begin), &cases) : -ENOMEM;
        if (ret < 0)
                err_host(&err, ENOMEM, "no memory");
        else
                ret = parse(&c, argc, argv, &err);
        if (ret < 0) {
                ret = complain(&c, err.text);
        } else if (c.help || c.version) {
                if (c.help)
                        tell_help(&c, &out);
                else
                        text_add(&out, "%s: libramet %s\n", c.program, ramet_version());
                print(STDOUT_FILENO, &out);
        } else {
                ret = run(&c, guest, cases, (size_t)(end - begin));
        }
        free(cases);
        free(c.patterns);
        return ret;
}
