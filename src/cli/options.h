/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of every subcommand: one table (options_table.c) says their names, arguments, help,
 * defaults and parsers; the command line, --help and --config are read from and written by it.
 */
#ifndef RAMET_CLI_OPTIONS_H
#define RAMET_CLI_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <ramet/ramet.h>

#include "base/err.h"
#include "cli/disks.h"
#include "cli/message.h"
#include "cli/parse.h"

enum command_bit {
        COMMAND_RUN = 1 << 0,
        COMMAND_DEMO = 1 << 1,
        COMMAND_LIST = 1 << 2,
        COMMAND_PAUSE = 1 << 3,
        COMMAND_RESUME = 1 << 4,
        COMMAND_KILL = 1 << 5,
        COMMAND_FORK = 1 << 6,
        COMMAND_RESET = 1 << 7,
        COMMAND_OVERLAY = 1 << 8,
};

/* How a guest finds its virtio devices. */
enum virtio_found {
        VIRTIO_FOUND_ACPI,
        VIRTIO_FOUND_CMDLINE,
};

/* Where the values go. Strings point into argv or into the configuration. */
struct options {
        const char *kernel, *initramfs, *cmdline, *name, *events, *config, *overlay;
        struct console_spec console;
        struct fork_at fork_at;
        struct flat_spec flat;
        struct disk_list disks;
        uint64_t cpus, memory, fork, timeout_ns, debug_exit, clones, fill_mib, seed, pool;
        /* enum message_level, ramet_seccomp, ramet_hugepages, ramet_cow */
        unsigned log_level, seccomp, hugepages, cow;
        unsigned virtio; /* enum virtio_found */
        bool json, help, force, rng;

        uint64_t given;    /* bit i: row i of the table was given by the user */
        char *const *rest; /* arguments that are not options ... */
        int nrest;         /* ... and their count */
        json_t *config_json;
};

/* Which types a value may have in a configuration file. */
enum option_json {
        OPTION_JSON_STRING = 1 << 0,
        OPTION_JSON_INTEGER = 1 << 1,
        OPTION_JSON_NUMBER = 1 << 2,  /* with a fraction, too */
        OPTION_JSON_BOOLEAN = 1 << 3, /* for an option without an argument */
        OPTION_JSON_LIST = 1 << 4,    /* an array of texts, or of objects of their keys */
};

struct option_row {
        const char *name;
        char letter;       /* a short form, 0: none */
        unsigned commands; /* enum command_bit */
        const char *arg;   /* name of the argument in the help, NULL: none */
        const char *deflt; /* as one would write it, NULL: none */
        const char *help;
        unsigned json; /* enum option_json, 0: not in a configuration */
        int (*parse)(const struct option_row *row, void *out, const char *text, struct err *err);
        size_t offset; /* of the value in struct options */
        uint64_t min, max;
};

extern const struct option_row option_table[];
extern const unsigned option_count;

/* Read argv[1..] of @command: defaults, then the configuration file, then the command line wins.
 * 0 with everything set (o->help: the user asks for help, nothing else was checked), -EINVAL or
 * -errno with @err set. options_fini() in any case. */
int options_read(struct options *o, enum command_bit command, int argc, char **argv,
                 struct err *err);
void options_fini(struct options *o);
/* True when the user gave the option in either place. */
bool options_given(const struct options *o, const char *name);

/* How many empty machines to have ready. */
unsigned options_pool(const struct options *o);

/* The lines about @command's options, for --help, to standard output. */
void options_help(enum command_bit command);

/* config.c: values of the JSON file at @path for the rows that are not in o->given. */
int config_read(struct options *o, enum command_bit command, const char *path, struct err *err);
int config_apply(struct options *o, enum command_bit command, json_t *root, const char *path,
                 struct err *err);

#endif
