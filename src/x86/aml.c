/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AML: see aml.h.
 *
 * The one awkward thing about AML is that a package's length stands before its contents, counts
 * itself, and is one to four bytes long depending on its own value (ACPI 6.5, section 20.2.4). So
 * contents are written first, directly behind the opcode, and aml_end() moves them up to make room
 * for the length. Packages nest and the inner one is closed first, hence an outer mark is never
 * behind bytes that move.
 */
#include "x86/aml.h"

#include <string.h>

/* ACPI 6.5, table 20.2: AML byte stream byte values. */
enum {
        OP_NAME = 0x08,
        OP_BYTE = 0x0a,
        OP_WORD = 0x0b,
        OP_DWORD = 0x0c,
        OP_STRING = 0x0d,
        OP_QWORD = 0x0e,
        OP_SCOPE = 0x10,
        OP_BUFFER = 0x11,
        OP_PACKAGE = 0x12,
        OP_METHOD = 0x14,
        OP_DUAL_NAME = 0x2e,
        OP_MULTI_NAME = 0x2f,
        OP_EXT = 0x5b,
        OP_EXT_DEVICE = 0x82,
        OP_ARG0 = 0x68,
        OP_NOTIFY = 0x86,
        OP_LEQUAL = 0x93,
        OP_IF = 0xa0,
};

static void put(struct aml *a, const void *bytes, size_t n)
{
        if (a->full || n > a->cap - a->len) {
                a->full = true;
                return;
        }
        memcpy(a->buf + a->len, bytes, n);
        a->len += n;
}

static void byte(struct aml *a, uint8_t b)
{
        put(a, &b, 1);
}

/* The low @n bytes of @value, little-endian. */
static void le(struct aml *a, uint64_t value, unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                byte(a, (uint8_t)(value >> 8 * i));
}

/* --- packages --- */

/* PkgLength for @content bytes; returns how many bytes it takes. */
static size_t package_length(uint8_t out[4], size_t content)
{
        size_t n = 1, total;

        while (n < 4 && content + n >= (n == 1 ? 1ul << 6 : 1ul << (4 + 8 * (n - 1))))
                n++;
        total = content + n;
        if (n == 1) {
                out[0] = (uint8_t)total;
                return n;
        }
        out[0] = (uint8_t)((n - 1) << 6 | (total & 0xf));
        for (size_t i = 1; i < n; i++)
                out[i] = (uint8_t)(total >> (4 + 8 * (i - 1)));
        return n;
}

void aml_end(struct aml *a, size_t mark)
{
        size_t content = a->len - mark, n;
        uint8_t prefix[4];

        n = package_length(prefix, content);
        if (a->full || n > a->cap - a->len || content >= 1ul << 28) {
                a->full = true;
                return;
        }
        memmove(a->buf + mark + n, a->buf + mark, content);
        memcpy(a->buf + mark, prefix, n);
        a->len += n;
}

size_t aml_scope(struct aml *a, const char *path)
{
        byte(a, OP_SCOPE);
        size_t mark = a->len;
        aml_path(a, path);
        return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
        byte(a, OP_EXT);
        byte(a, OP_EXT_DEVICE);
        size_t mark = a->len;
        aml_path(a, name);
        return mark;
}

size_t aml_method(struct aml *a, const char *name, unsigned args, bool serialized)
{
        byte(a, OP_METHOD);
        size_t mark = a->len;
        aml_path(a, name);
        byte(a, (uint8_t)((args & 7) | (serialized ? 8 : 0)));
        return mark;
}

size_t aml_package(struct aml *a, uint8_t elements)
{
        byte(a, OP_PACKAGE);
        size_t mark = a->len;
        byte(a, elements);
        return mark;
}

size_t aml_if(struct aml *a)
{
        byte(a, OP_IF);
        return a->len;
}

/* --- data --- */

void aml_int(struct aml *a, uint64_t value)
{
        if (value <= 1) {
                byte(a, (uint8_t)value); /* ZeroOp, OneOp */
        } else if (value <= UINT8_MAX) {
                byte(a, OP_BYTE);
                le(a, value, 1);
        } else if (value <= UINT16_MAX) {
                byte(a, OP_WORD);
                le(a, value, 2);
        } else if (value <= UINT32_MAX) {
                byte(a, OP_DWORD);
                le(a, value, 4);
        } else {
                byte(a, OP_QWORD);
                le(a, value, 8);
        }
}

void aml_string(struct aml *a, const char *text)
{
        byte(a, OP_STRING);
        put(a, text, strlen(text) + 1);
}

/* Three letters of five bits, four hexadecimal digits, big-endian (ACPI 6.5, section 19.3.4). */
void aml_eisa_id(struct aml *a, const char *id)
{
        static const char hex[] = "0123456789ABCDEF";
        uint32_t v = 0;

        for (unsigned i = 0; i < 3; i++)
                v = v << 5 | (uint32_t)((id[i] - 0x40) & 0x1f);
        for (unsigned i = 3; i < 7; i++)
                v = v << 4 | (uint32_t)(strchr(hex, id[i]) - hex);
        byte(a, OP_DWORD);
        le(a, __builtin_bswap32(v), 4);
}

/* One segment of a name, padded to four characters; returns what follows it. */
static const char *name_segment(struct aml *a, const char *path)
{
        size_t n = strcspn(path, ".");

        for (size_t i = 0; i < 4; i++)
                byte(a, (uint8_t)(i < n ? path[i] : '_'));
        return path[n] ? path + n + 1 : path + n;
}

void aml_path(struct aml *a, const char *path)
{
        uint8_t segments = 1;

        if (*path == '\\')
                byte(a, (uint8_t)*path++);
        for (const char *p = path; *p; p++)
                segments = (uint8_t)(segments + (*p == '.'));
        if (segments == 2) {
                byte(a, OP_DUAL_NAME);
        } else if (segments > 2) {
                byte(a, OP_MULTI_NAME);
                byte(a, segments);
        }
        while (*path)
                path = name_segment(a, path);
}

void aml_equal(struct aml *a)
{
        byte(a, OP_LEQUAL);
}

void aml_arg(struct aml *a, unsigned number)
{
        byte(a, (uint8_t)(OP_ARG0 + number));
}

void aml_notify(struct aml *a, const char *path, uint64_t value)
{
        byte(a, OP_NOTIFY);
        aml_path(a, path);
        aml_int(a, value);
}

void aml_name(struct aml *a, const char *name)
{
        byte(a, OP_NAME);
        aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t value)
{
        aml_name(a, name);
        aml_int(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
        aml_name(a, name);
        aml_string(a, text);
}

void aml_name_eisa_id(struct aml *a, const char *name, const char *id)
{
        aml_name(a, name);
        aml_eisa_id(a, id);
}

/* --- resources (ACPI 6.5, section 6.4) --- */

/* Buffer (size) { ... }: the size is a word, filled in by aml_crs_end(). */
size_t aml_crs(struct aml *a)
{
        aml_name(a, "_CRS");
        byte(a, OP_BUFFER);
        size_t mark = a->len;
        byte(a, OP_WORD);
        le(a, 0, 2);
        return mark;
}

void aml_crs_io(struct aml *a, uint16_t port, uint8_t ports)
{
        byte(a, 0x47); /* I/O port descriptor, 7 bytes */
        byte(a, 1);    /* decodes 16 bits */
        le(a, port, 2);
        le(a, port, 2);
        byte(a, 1); /* alignment */
        byte(a, ports);
}

void aml_crs_memory(struct aml *a, uint32_t base, uint32_t len)
{
        byte(a, 0x86); /* 32-bit fixed memory range descriptor */
        le(a, 9, 2);
        byte(a, 1); /* writable */
        le(a, base, 4);
        le(a, len, 4);
}

void aml_crs_irq(struct aml *a, uint32_t gsi, bool level)
{
        byte(a, 0x89); /* extended interrupt descriptor */
        le(a, 6, 2);
        byte(a, level ? 1 : 3); /* bit 0 consumer, bit 1 edge; active high, exclusive */
        byte(a, 1);             /* one interrupt */
        le(a, gsi, 4);
}

void aml_crs_end(struct aml *a, size_t mark)
{
        size_t size;

        byte(a, 0x79); /* end tag, */
        byte(a, 0);    /* whose checksum 0 means: do not check */
        if (a->full)
                return;
        size = a->len - mark - 3;
        a->buf[mark + 1] = (uint8_t)size;
        a->buf[mark + 2] = (uint8_t)(size >> 8);
        aml_end(a, mark);
}
