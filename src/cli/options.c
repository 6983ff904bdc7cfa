/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line, read by the table. Order of power: the command line, then the configuration
 * file, then the defaults. So the command line is parsed first and marks what it has set, the file
 * fills in what is not marked, and defaults have been there from the start.
 *
 * getopt_long() finds the options; its messages are replaced by ours, which are one line, name the
 * option, and say where to look.
 */
#include "cli/options.h"

#define POOL_AUTO 16 /* an empty machine costs a process and a few hundred KiB while it waits */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 24
#define HELP_WIDTH  80

static const char *command_name(enum command_bit command)
{
        switch (command) {
        case COMMAND_RUN:
                return "run";
        case COMMAND_DEMO:
                return "demo";
        case COMMAND_LIST:
                return "list";
        case COMMAND_PAUSE:
                return "pause";
        case COMMAND_RESUME:
                return "resume";
        case COMMAND_RESET:
                return "reset";
        case COMMAND_KILL:
                return "kill";
        case COMMAND_FORK:
                return "fork";
        case COMMAND_OVERLAY:
                return "overlay";
        }
        return "?";
}

static void *field(struct options *o, const struct option_row *row)
{
        return (char *)o + row->offset;
}

static int set_defaults(struct options *o, enum command_bit command, struct err *err)
{
        for (unsigned i = 0; i < option_count; i++) {
                const struct option_row *row = &option_table[i];

                if (row->commands & command && row->deflt &&
                    row->parse(row, field(o, row), row->deflt, err))
                        return err_prefix(err, -EINVAL, "default of --%s", row->name);
        }
        return 0;
}

/* What getopt wants: its value for row i is i + 256. */
static void getopt_tables(enum command_bit command, struct option *longs, char *shorts)
{
        *shorts++ = ':';
        for (unsigned i = 0; i < option_count; i++) {
                const struct option_row *row = &option_table[i];

                if (!(row->commands & command))
                        continue;
                *longs++ = (struct option){
                        .name = row->name,
                        .has_arg = row->arg ? required_argument : no_argument,
                        .val = (int)i + 256,
                };
                if (row->letter) {
                        *shorts++ = row->letter;
                        if (row->arg)
                                *shorts++ = ':';
                }
        }
        *longs = (struct option){0};
        *shorts = '\0';
}

static unsigned row_of(int value, enum command_bit command)
{
        if (value >= 256)
                return (unsigned)value - 256;
        for (unsigned i = 0; i < option_count; i++)
                if (option_table[i].commands & command && option_table[i].letter == value)
                        return i;
        return option_count;
}

/* How many single-character changes make @a into @b; both are short. */
static unsigned distance(const char *a, const char *b)
{
        unsigned row[32];
        size_t nb = strlen(b);

        if (nb >= 32)
                return 99;
        for (unsigned j = 0; j <= nb; j++)
                row[j] = j;
        for (unsigned i = 1; a[i - 1]; i++) {
                unsigned diagonal = row[0];

                row[0] = i;
                for (unsigned j = 1; j <= nb; j++) {
                        unsigned best = diagonal + (a[i - 1] != b[j - 1]);

                        best = row[j] + 1 < best ? row[j] + 1 : best;
                        best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
                        diagonal = row[j];
                        row[j] = best;
                }
        }
        return row[nb];
}

static int unknown_option(const char *given, enum command_bit command, struct err *err)
{
        const char *close = NULL;
        char name[32];
        unsigned best = 3;

        if (given[0] == '-' && given[1] == '-') {
                snprintf(name, sizeof name, "%.*s", (int)strcspn(given + 2, "="), given + 2);
                for (unsigned i = 0; i < option_count; i++) {
                        unsigned d = distance(name, option_table[i].name);

                        if (option_table[i].commands & command && d < best) {
                                best = d;
                                close = option_table[i].name;
                        }
                }
        }
        if (close)
                return err_input(err, "unknown option %s: did you mean --%s? See 'ramet %s --help'",
                                 given, close, command_name(command));
        return err_input(err, "unknown option %.*s; see 'ramet %s --help'",
                         (int)strcspn(given, "="), given, command_name(command));
}

static int set_row(struct options *o, unsigned i, const char *text, struct err *err)
{
        const struct option_row *row = &option_table[i];

        o->given |= 1ull << i;
        if (row->parse(row, field(o, row), text, err))
                return err_prefix(err, -EINVAL, "--%s %s", row->name, text);
        return 0;
}

static int read_command_line(struct options *o, enum command_bit command, int argc, char **argv,
                             struct err *err)
{
        struct option longs[64 + 1];
        char shorts[3 * 64 + 2];
        int c;

        getopt_tables(command, longs, shorts);
        opterr = 0;
        optind = 0; /* start anew, whoever used it before */
        while (c = getopt_long(argc, argv, shorts, longs, NULL), c != -1) {
                char letter[3] = {'-', (char)optopt, '\0'};

                if (c == '?' && optopt >= 256)
                        return err_input(err, "--%s takes no argument; see 'ramet %s --help'",
                                         option_table[optopt - 256].name, command_name(command));
                if (c == '?')
                        return unknown_option(optopt ? letter : argv[optind - 1], command, err);
                if (c == ':')
                        return err_input(err, "%s needs an argument, %s; see 'ramet %s --help'",
                                         argv[optind - 1],
                                         option_table[row_of(optopt, command)].arg,
                                         command_name(command));
                if (set_row(o, row_of(c, command), optarg ? optarg : "", err))
                        return -EINVAL;
                if (o->help)
                        return 0;
        }
        o->rest = argv + optind;
        o->nrest = argc - optind;
        return 0;
}

int options_read(struct options *o, enum command_bit command, int argc, char **argv,
                 struct err *err)
{
        int ret;

        *o = (struct options){0};
        ret = set_defaults(o, command, err);
        if (!ret)
                ret = read_command_line(o, command, argc, argv, err);
        if (!ret && !o->help && o->config)
                ret = config_read(o, command, o->config, err);
        return ret;
}

void options_fini(struct options *o)
{
        disk_list_fini(&o->disks);
        json_decref(o->config_json);
        o->config_json = NULL;
}

unsigned options_pool(const struct options *o)
{
        if (options_given(o, "pool"))
                return (unsigned)o->pool;
        return (unsigned)(o->fork < POOL_AUTO ? o->fork : POOL_AUTO);
}

bool options_given(const struct options *o, const char *name)
{
        for (unsigned i = 0; i < option_count; i++)
                if (o->given >> i & 1 && !strcmp(option_table[i].name, name))
                        return true;
        return false;
}

/* Print @text in the help column, broken at blanks; the cursor is at @at. */
static void help_text(const char *text, int at)
{
        int column = HELP_COLUMN;

        printf("%*s", at < HELP_COLUMN ? HELP_COLUMN - at : 0, "");
        if (at >= HELP_COLUMN)
                printf("\n%*s", HELP_COLUMN, "");
        while (*text) {
                int len = (int)strcspn(text, " ");

                if (column > HELP_COLUMN && column + 1 + len > HELP_WIDTH) {
                        printf("\n%*s", HELP_COLUMN, "");
                        column = HELP_COLUMN;
                }
                column += printf("%s%.*s", column > HELP_COLUMN ? " " : "", len, text);
                text += len;
                text += strspn(text, " ");
        }
        putchar('\n');
}

void options_help(enum command_bit command)
{
        char text[512];

        for (unsigned i = 0; i < option_count; i++) {
                const struct option_row *row = &option_table[i];
                int at;

                if (!(row->commands & command))
                        continue;
                at = row->letter ? printf("  -%c, --%s", row->letter, row->name)
                                 : printf("  --%s", row->name);
                if (row->arg)
                        at += printf(" %s", row->arg);
                snprintf(text, sizeof text, row->deflt && *row->deflt ? "%s (default: %s)" : "%s",
                         row->help, row->deflt);
                help_text(text, at);
        }
}
