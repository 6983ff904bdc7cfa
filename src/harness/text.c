/* SPDX-License-Identifier: Apache-2.0 */
/* Text that grows, and other people's text made fit to be shown: see text.h. */
#include "harness/text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES 200 /* of one line of a console, in reports */

void text_fini(struct text *t)
{
        free(t->data);
        *t = (struct text){0};
}

void text_clear(struct text *t)
{
        t->len = 0;
        t->failed = false;
        if (t->data)
                t->data[0] = '\0';
}

/* Room for @more bytes and a NUL. */
static bool grow(struct text *t, size_t more)
{
        size_t need = t->len + more + 1, size = t->size ? t->size : 256;
        char *data;

        if (need <= t->size)
                return true;
        while (size < need)
                size *= 2;
        data = realloc(t->data, size);
        if (!data) {
                t->failed = true;
                return false;
        }
        t->data = data;
        t->size = size;
        return true;
}

void text_bytes(struct text *t, const char *bytes, size_t len)
{
        if (!grow(t, len))
                return;
        memcpy(t->data + t->len, bytes, len);
        t->len += len;
        t->data[t->len] = '\0';
}

static void add_va(struct text *t, const char *fmt, va_list ap)
{
        va_list again;
        int n;

        va_copy(again, ap);
        n = vsnprintf(NULL, 0, fmt, again);
        va_end(again);
        if (n < 0 || !grow(t, (size_t)n))
                return;
        vsnprintf(t->data + t->len, (size_t)n + 1, fmt, ap);
        t->len += (size_t)n;
}

void text_add(struct text *t, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        add_va(t, fmt, ap);
        va_end(ap);
}

void text_drop(struct text *t, size_t len)
{
        if (len > t->len)
                len = t->len;
        if (!len)
                return;
        t->len -= len;
        memmove(t->data, t->data + len, t->len + 1);
}

void text_cut(const struct text *t, char *buf, size_t size)
{
        size_t len = t->len < size - 1 ? t->len : size - 1;

        memcpy(buf, text_str(t), len);
        buf[len] = '\0';
}

/* --- what is fit to be shown --- */

/* RFC 3629: the bytes that a character's first one announces, and the least that needs so many. */
static size_t announced(uint8_t first, uint32_t *least)
{
        if ((first & 0xe0) == 0xc0) {
                *least = 0x80;
                return 2;
        }
        if ((first & 0xf0) == 0xe0) {
                *least = 0x800;
                return 3;
        }
        if ((first & 0xf8) == 0xf0) {
                *least = 0x10000;
                return 4;
        }
        return 0;
}

/* Bytes of the valid character that begins here and can be shown as it is; 0: none does. */
static size_t character(const char *bytes, size_t len)
{
        const uint8_t *p = (const uint8_t *)bytes;
        uint32_t least = 0, c;
        size_t n;

        if (len == 0)
                return 0;
        if (p[0] < 0x80)
                return p[0] >= 0x20 && p[0] < 0x7f;
        n = announced(p[0], &least);
        if (n == 0 || n > len)
                return 0;
        c = p[0] & (0xffu >> (n + 1));
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (p[i] & 0x3f);
        }
        /* too long a form, C1 controls, surrogates, no characters (which XML has no room for), and
         * marks that change the direction of a line */
        if (c < least || c < 0xa0 || (c >= 0xd800 && c < 0xe000) || (c & 0xfffe) == 0xfffe ||
            c > 0x10ffff || (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
            (c >= 0x2066 && c <= 0x2069))
                return 0;
        return n;
}

void text_visible(struct text *t, const char *bytes, size_t len)
{
        for (size_t i = 0, n; i < len; i += n ? n : 1) {
                n = character(bytes + i, len - i);
                if (n > 0 && bytes[i] != '\\')
                        text_bytes(t, bytes + i, n);
                else if (bytes[i] == '\\')
                        text_add(t, "\\\\");
                else if (bytes[i] == '\n')
                        text_add(t, "\\n");
                else if (bytes[i] == '\t')
                        text_add(t, "\\t");
                else if (bytes[i] == '\r')
                        text_add(t, "\\r");
                else
                        text_add(t, "\\x%02x", (uint8_t)bytes[i]);
        }
}

void text_prefixed(struct text *t, const char *prefix, const char *lines)
{
        while (*lines) {
                size_t n = strcspn(lines, "\n"), len = n;

                while (len > 0 && lines[len - 1] == ' ')
                        len--;
                text_add(t, "%s%.*s\n", prefix, (int)len, lines);
                lines += n + (lines[n] == '\n');
        }
}

void text_last_lines(struct text *t, const char *prefix, const char *bytes, size_t len,
                     unsigned max)
{
        size_t from, lines = 0;

        while (len > 0 && (bytes[len - 1] == '\n' || bytes[len - 1] == '\r'))
                len--;
        for (from = len; from > 0; from--)
                if (bytes[from - 1] == '\n' && ++lines == max)
                        break;
        while (from < len) {
                const char *line = bytes + from, *end = memchr(line, '\n', len - from);
                size_t n = end ? (size_t)(end - line) : len - from, shown = n;

                while (shown > 0 && line[shown - 1] == '\r')
                        shown--;
                text_add(t, "%s", prefix);
                text_visible(t, line, shown < LINE_MAX_BYTES ? shown : LINE_MAX_BYTES);
                text_add(t, shown > LINE_MAX_BYTES ? " ...\n" : "\n");
                from += n + 1;
        }
}
