/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as people write them. Every parser takes the whole text or nothing, and describes a
 * refusal as "expected ...", to which the caller puts the name of the option and the text. All
 * return 0 or -EINVAL and write their result only on success.
 */
#ifndef RAMET_CLI_PARSE_H
#define RAMET_CLI_PARSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* A whole number, decimal or 0x..., from @min to @max. */
int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err);
/* Bytes: 4096, 512K, 256M, 4GiB; from @min to @max, a multiple of 4 KiB. */
int parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err);
/* Seconds, greater than 0, with up to nine decimals: 5, 0.25. The result is in nanoseconds. */
int parse_seconds(const char *text, uint64_t *out_ns, struct err *err);
/* 1 to 16 hexadecimal digits. */
int parse_hex64(const char *text, uint64_t *out, struct err *err);
/* A machine's name: A-Z a-z 0-9 _ -, 1 to 63 of them. Dots make the paths of clones. */
int parse_name(const char *text, struct err *err);
/* A machine's path: a name, then numbers, with dots: web.2.1 */
int parse_path(const char *text, struct err *err);
/* One of @choices (ended by NULL); the result is its index. */
int parse_choice(const char *text, const char *const *choices, unsigned *out, struct err *err);

enum fork_trigger {
        FORK_AT_GUEST,
        FORK_AT_CONSOLE,
        FORK_AT_AFTER,
        FORK_AT_SIGNAL,
};

struct fork_at {
        enum fork_trigger trigger;
        const char *text;     /* CONSOLE; points into what was parsed */
        uint64_t after_ns;    /* AFTER */
        const char *as_given; /* the whole of it, for messages */
};

/* guest, console=TEXT, after=SECONDS, signal */
int parse_fork_at(const char *text, struct fork_at *out, struct err *err);

enum console_kind {
        CONSOLE_STDIO,
        CONSOLE_FILE,
        CONSOLE_OFF,
};

struct console_spec {
        enum console_kind kind;
        const char *pattern; /* FILE; %c is the machine's path, %% a percent sign */
        bool per_machine;    /* it has a %c */
        bool virtio;         /* the guest's is a virtio-console, beside the serial port */
};

/* stdio, file=PATH, off; virtio, or virtio: before one of them */
int parse_console(const char *text, struct console_spec *out, struct err *err);

struct flat_spec {
        bool set;
        uint64_t address;
        unsigned bits;
};

/* ADDRESS[,16|32|64] */
int parse_flat(const char *text, struct flat_spec *out, struct err *err);

#endif
