/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What examples/fuzz_parser.c fuzzes: a parser of packets, as a device or a protocol may have one.
 *
 *      packet   'R' 'M', version 1, records up to its end
 *      record   type (1 byte), and unless it is GROUP or END: length (1 byte), as many bytes
 *
 *      TEXT     bytes from ' ' to '~'
 *      NUMBER   1, 2, 4 or 8 bytes
 *      GROUP    the records up to END belong together; groups may be four deep
 *      REPEAT   length (1 byte), offset (4 bytes, little-endian): bytes that stand earlier in the
 *               packet, or in the group that this stands in, counted from its beginning
 *
 * It returns a sum of what it has read, or 0 for a packet that breaks the rules. One check is
 * wrong. It is compiled with -fsanitize-coverage=trace-pc; main.c counts.
 */
#include "parser/parser.h"

enum { TEXT = 1, NUMBER, GROUP, REPEAT, END };

#define MAGIC     3 /* bytes, with the version */
#define DEPTH_MAX 4

struct packet {
        const uint8_t *bytes;
        uint32_t at, length;
};

struct record {
        uint8_t type;
        uint32_t length;
        const uint8_t *body;
};

static uint32_t little(const uint8_t *p, unsigned n)
{
        uint32_t v = 0;

        while (n--)
                v = v << 8 | p[n];
        return v;
}

static uint32_t sum(const uint8_t *p, uint32_t length)
{
        uint32_t v = 5381;

        for (uint32_t i = 0; i < length; i++)
                v = v * 33 + p[i];
        return v;
}

static uint32_t parse_text(const struct record *r)
{
        for (uint32_t i = 0; i < r->length; i++)
                if (r->body[i] < ' ' || r->body[i] > '~')
                        return 0;
        return sum(r->body, r->length);
}

static uint32_t parse_number(const struct record *r)
{
        switch (r->length) {
        case 1:
        case 2:
        case 4:
                return little(r->body, r->length) + 1;
        case 8:
                return (little(r->body, 4) ^ little(r->body + 4, 4)) + 1;
        default:
                return 0;
        }
}

/* @base: where the packet's records begin, or the group's. */
static uint32_t parse_repeat(const struct record *r, const uint8_t *base, unsigned depth)
{
        uint32_t length, offset, before = (uint32_t)(r->body - 2 - base);

        if (r->length != 5)
                return 0;
        length = r->body[0];
        offset = little(r->body + 1, 4);
        if (depth == 0 && (length > before || offset > before - length))
                return 0;
        /* The planted bug: in a group, the difference is looked at before it is known that there
         * is one. */
        if (depth > 0 && offset > before - length)
                return 0;
        return sum(base + offset, length);
}

static int take_record(struct packet *p, struct record *r)
{
        if (p->at == p->length)
                return 0;
        r->length = p->bytes[p->at++];
        if (r->length > p->length - p->at)
                return 0;
        r->body = p->bytes + p->at;
        p->at += r->length;
        return 1;
}

static uint32_t parse_records(struct packet *p, unsigned depth)
{
        const uint8_t *base = p->bytes + p->at;
        uint32_t all = 1;

        while (p->at < p->length) {
                struct record r = {.type = p->bytes[p->at++]};
                uint32_t value;

                if (r.type == END)
                        return depth > 0 ? all : 0;
                if (r.type == GROUP)
                        value = depth < DEPTH_MAX ? parse_records(p, depth + 1) : 0;
                else if (!take_record(p, &r))
                        value = 0;
                else if (r.type == TEXT)
                        value = parse_text(&r);
                else if (r.type == NUMBER)
                        value = parse_number(&r);
                else if (r.type == REPEAT)
                        value = parse_repeat(&r, base, depth);
                else
                        value = 0;
                if (value == 0)
                        return 0;
                all = all * 31 + value;
        }
        return depth == 0 ? all : 0;
}

uint32_t parse_packet(const uint8_t *bytes, uint32_t length)
{
        struct packet p = {.bytes = bytes, .at = MAGIC, .length = length};

        if (length < MAGIC || bytes[0] != 'R')
                return 0;
        if (bytes[1] != 'M')
                return 0;
        if (bytes[2] != 1)
                return 0;
        return parse_records(&p, 0);
}
