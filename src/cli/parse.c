/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values as people write them: see parse.h. By hand instead of strtoull(3), which takes signs,
 * white space and "010" as eight, and needs errno to tell an overflow.
 */
#include "cli/parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ramet/ramet.h>

#include "cli/human.h"

#define SECONDS_MAX 1000000000u /* 31 years; nanoseconds of it fit easily */

static int digit_value(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        if (c >= 'a' && c <= 'f')
                return c - 'a' + 10;
        if (c >= 'A' && c <= 'F')
                return c - 'A' + 10;
        return 16;
}

/* Digits of @base at *@text, which moves behind them. False: none, or more than 64 bits of them. */
static bool digits(const char **text, unsigned base, uint64_t *out)
{
        const char *p = *text;
        uint64_t n = 0;

        for (; digit_value(*p) < (int)base; p++)
                if (__builtin_mul_overflow(n, base, &n) ||
                    __builtin_add_overflow(n, (uint64_t)digit_value(*p), &n))
                        return false;
        if (p == *text)
                return false;
        *text = p;
        *out = n;
        return true;
}

static bool whole_number(const char *text, uint64_t *out)
{
        unsigned base = 10;

        if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
                base = 16;
                text += 2;
        }
        return digits(&text, base, out) && !*text;
}

int parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err)
{
        uint64_t n;

        if (!whole_number(text, &n) || n < min || n > max)
                return err_input(err, "expected a whole number from %" PRIu64 " to %" PRIu64, min,
                                 max);
        *out = n;
        return 0;
}

/* The power of two that a suffix stands for, or -1. */
static int suffix_shift(const char *s)
{
        static const char letters[] = "kmgt";
        const char *at;

        if (!*s || !strcmp(s, "B"))
                return 0;
        at = strchr(letters, *s | 0x20);
        if (!at || (s[1] && strcmp(s + 1, "iB") != 0))
                return -1;
        return 10 * (int)(at - letters + 1);
}

int parse_size(const char *text, uint64_t min, uint64_t max, uint64_t *out, struct err *err)
{
        char limit[HUMAN_MAX];
        const char *p = text;
        uint64_t n;
        int shift;

        /* Too many digits are too large a size, not a wrong one. */
        if (!digits(&p, 10, &n)) {
                p = text + strspn(text, "0123456789");
                n = UINT64_MAX;
        }
        shift = suffix_shift(p);
        if (p == text || shift < 0)
                return err_input(err, "expected a size such as 256M or 4GiB");
        if (n > UINT64_MAX >> shift || n << shift > max)
                return err_input(err, "expected at most %s", human_size(limit, max));
        n <<= shift;
        if (n < min)
                return err_input(err, "expected at least %s", human_size(limit, min));
        if (n % 4096)
                return err_input(err, "expected a multiple of 4 KiB");
        *out = n;
        return 0;
}

int parse_seconds(const char *text, uint64_t *out_ns, struct err *err)
{
        const char *p = text;
        uint64_t whole, ns = 0, unit = 100000000;

        if (!digits(&p, 10, &whole) || whole > SECONDS_MAX)
                goto refuse;
        if (*p == '.') {
                if (digit_value(p[1]) > 9)
                        goto refuse;
                for (p++; digit_value(*p) <= 9 && unit; p++, unit /= 10)
                        ns += (uint64_t)digit_value(*p) * unit;
        }
        ns += whole * 1000000000u;
        if (*p || !ns)
                goto refuse;
        *out_ns = ns;
        return 0;
refuse:
        return err_input(err, "expected a number of seconds greater than 0, such as 5 or 0.5");
}

int parse_hex64(const char *text, uint64_t *out, struct err *err)
{
        const char *p = text;
        uint64_t n;

        if (!digits(&p, 16, &n) || *p)
                return err_input(err, "expected 1 to 16 hexadecimal digits");
        *out = n;
        return 0;
}

static size_t name_length(const char *text)
{
        return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");
}

int parse_name(const char *text, struct err *err)
{
        size_t len = name_length(text);

        if (!len || len > RAMET_NAME_MAX || text[len])
                return err_input(err, "expected a name of 1 to %d letters, digits, '_' and '-'",
                                 RAMET_NAME_MAX);
        return 0;
}

int parse_path(const char *text, struct err *err)
{
        const char *p = text + name_length(text);
        uint64_t n;

        if (p == text || p - text > RAMET_NAME_MAX)
                goto refuse;
        while (*p) {
                if (*p++ != '.' || *p == '0' || !digits(&p, 10, &n))
                        goto refuse;
        }
        return 0;
refuse:
        return err_input(err, "expected the name of a machine, such as web, or of a clone, web.2");
}

int parse_choice(const char *text, const char *const *choices, unsigned *out, struct err *err)
{
        char list[128] = "";
        size_t n = 0;

        for (unsigned i = 0; choices[i]; i++) {
                if (!strcmp(text, choices[i])) {
                        *out = i;
                        return 0;
                }
                n += (size_t)snprintf(list + n, sizeof list - n, "%s%s",
                                      i == 0           ? ""
                                      : choices[i + 1] ? ", "
                                                       : " or ",
                                      choices[i]);
        }
        return err_input(err, "expected %s", list);
}

int parse_fork_at(const char *text, struct fork_at *out, struct err *err)
{
        struct fork_at at = {.as_given = text};

        if (!strcmp(text, "guest")) {
                at.trigger = FORK_AT_GUEST;
        } else if (!strcmp(text, "signal")) {
                at.trigger = FORK_AT_SIGNAL;
        } else if (!strncmp(text, "console=", 8)) {
                at.trigger = FORK_AT_CONSOLE;
                at.text = text + 8;
                if (!at.text[0] || strlen(at.text) > 255)
                        return err_input(err, "expected 1 to 255 bytes of text after console=");
        } else if (!strncmp(text, "after=", 6)) {
                at.trigger = FORK_AT_AFTER;
                if (parse_seconds(text + 6, &at.after_ns, err))
                        return -EINVAL;
        } else {
                return err_input(err, "expected guest, console=TEXT, after=SECONDS or signal");
        }
        *out = at;
        return 0;
}

int parse_console(const char *text, struct console_spec *out, struct err *err)
{
        struct console_spec spec = {.kind = CONSOLE_STDIO};

        if (!strcmp(text, "virtio")) {
                spec.virtio = true;
                text = "stdio";
        } else if (!strncmp(text, "virtio:", 7)) {
                spec.virtio = true;
                text += 7;
        }
        if (!strcmp(text, "off")) {
                spec.kind = CONSOLE_OFF;
        } else if (!strncmp(text, "file=", 5) && text[5]) {
                spec.kind = CONSOLE_FILE;
                spec.pattern = text + 5;
                for (const char *p = strchr(spec.pattern, '%'); p; p = strchr(p + 2, '%')) {
                        if (p[1] != 'c' && p[1] != '%')
                                return err_input(err, "expected %%c (the machine's name) or %%%% "
                                                      "after a percent sign");
                        spec.per_machine |= p[1] == 'c';
                }
        } else if (strcmp(text, "stdio") != 0) {
                return err_input(err, spec.virtio ? "expected stdio, file=PATH or off after virtio:"
                                                  : "expected stdio, file=PATH, off or virtio");
        }
        *out = spec;
        return 0;
}

int parse_flat(const char *text, struct flat_spec *out, struct err *err)
{
        struct flat_spec flat = {.set = true, .bits = 64};
        const char *comma = strchr(text, ',');
        char address[32];
        size_t len = comma ? (size_t)(comma - text) : strlen(text);
        uint64_t bits;

        if (len >= sizeof address)
                goto refuse;
        memcpy(address, text, len);
        address[len] = '\0';
        if (!whole_number(address, &flat.address))
                goto refuse;
        if (comma) {
                if (!whole_number(comma + 1, &bits) || (bits != 16 && bits != 32 && bits != 64))
                        goto refuse;
                flat.bits = (unsigned)bits;
        }
        *out = flat;
        return 0;
refuse:
        return err_input(err,
                         "expected an address and the mode to enter it in: 0x7c00,16 (16, 32 or "
                         "64, the default)");
}
