/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing saved state: see record.h for the format.
 *
 * The writer is a growing buffer. The reader makes one pass over a private copy and stops at the
 * first thing that it does not know, so what it hands out has been checked as a whole: a caller
 * never meets half of a state. Its work and memory are bounded by the rules and not by the input: a
 * bitmap has one bit for each (kind, instance) that the rules allow, a record whose bit is set
 * already is a repetition, and so no more records are ever indexed than there are bits. The index
 * is then sorted, and looked up by bisection.
 *
 * Byte order: the format is little-endian and so is every host that Ramet runs on (x86-64, arm64).
 */
#include "base/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are stored little-endian");

static const char magic[8] = {'R', 'A', 'M', 'E', 'T', 'S', 'T', '1'};

struct header {
        uint32_t kind;
        uint32_t instance;
        uint32_t version;
        uint32_t length;
};

static size_t padded(size_t length)
{
        return (length + 7) & ~(size_t)7;
}

/* ---- writing ---- */

void record_writer_init(struct record_writer *w)
{
        *w = (struct record_writer){0};
}

void record_writer_fini(struct record_writer *w)
{
        free(w->buf);
        *w = (struct record_writer){0};
}

/* Room for @more bytes at the end, zeroed; NULL after a failure. */
static uint8_t *extend(struct record_writer *w, size_t more)
{
        uint8_t *at;

        if (w->error)
                return NULL;
        if (more > RECORD_STATE_MAX - w->len) {
                w->error = -E2BIG;
                return NULL;
        }
        if (w->len + more > w->cap) {
                size_t cap = w->cap ? w->cap : 16384;

                while (cap < w->len + more)
                        cap *= 2;
                at = realloc(w->buf, cap);
                if (!at) {
                        w->error = -ENOMEM;
                        return NULL;
                }
                w->buf = at;
                w->cap = cap;
        }
        at = w->buf + w->len;
        memset(at, 0, more);
        w->len += more;
        return at;
}

void record_writer_reserve(struct record_writer *w, size_t length)
{
        size_t had = w->len;

        if (extend(w, length))
                w->len = had;
}

void *record_space(struct record_writer *w, uint32_t kind, uint32_t instance, uint32_t version,
                   size_t length)
{
        const struct header h = {kind, instance, version, (uint32_t)length};
        uint8_t *at;

        if (w->len == 0) {
                at = extend(w, sizeof magic);
                if (at)
                        memcpy(at, magic, sizeof magic);
        }
        if (length > RECORD_STATE_MAX && !w->error)
                w->error = -E2BIG;
        if (w->error)
                return NULL;
        at = extend(w, sizeof h + padded(length));
        if (!at)
                return NULL;
        memcpy(at, &h, sizeof h);
        return at + sizeof h;
}

void record_add(struct record_writer *w, uint32_t kind, uint32_t instance, uint32_t version,
                const void *data, size_t length)
{
        void *at = record_space(w, kind, instance, version, length);

        if (at && length > 0)
                memcpy(at, data, length);
}

static int write_all(int fd, const uint8_t *p, size_t len)
{
        while (len > 0) {
                ssize_t n = write(fd, p, len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                p += n;
                len -= (size_t)n;
        }
        return 0;
}

int record_finish(struct record_writer *w, int *fd, struct err *err)
{
        int ret, out = -1;

        record_add(w, RECORD_END, 0, 1, NULL, 0);
        ret = w->error;
        if (ret == -E2BIG)
                err_host(err, E2BIG, "saved state is larger than %u MiB", RECORD_STATE_MAX >> 20);
        else if (ret)
                err_host(err, -ret, "saved state: out of memory");
        if (ret)
                goto out;

        out = memfd_create("ramet-state", MFD_ALLOW_SEALING | MFD_CLOEXEC);
        if (out < 0) {
                ret = err_host(err, errno, "saved state: memfd_create: %m");
                goto out;
        }
        ret = write_all(out, w->buf, w->len);
        if (ret) {
                err_host(err, -ret, "saved state: cannot write: %s", strerror(-ret));
                goto out;
        }
        if (fcntl(out, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
                ret = err_host(err, errno, "saved state: cannot seal: %m");
                goto out;
        }
        *fd = out;
        out = -1;
out:
        if (out >= 0)
                close(out);
        record_writer_fini(w);
        return ret;
}

/* ---- reading ---- */

static const struct record_rule *rule_of(const struct record_rule *rules, uint32_t kind)
{
        for (; rules && rules->kind != RECORD_END; rules++)
                if (rules->kind == kind)
                        return rules;
        return NULL;
}

struct name {
        char text[64];
};

/* "regs of vCPU 3", "irqchip 1", "clock", "of unknown kind 0x999" */
static struct name name_of(const struct record_rule *rule, uint32_t kind, uint32_t instance)
{
        struct name n;

        if (kind == RECORD_END)
                snprintf(n.text, sizeof n.text, "end");
        else if (!rule)
                snprintf(n.text, sizeof n.text, "of unknown kind 0x%x, instance %u", kind,
                         instance);
        else if ((kind & 0xff00) == 0x0100)
                snprintf(n.text, sizeof n.text, "%s of vCPU %u", rule->name, instance);
        else if (rule->instances > 1 || instance > 0)
                snprintf(n.text, sizeof n.text, "%s %u", rule->name, instance);
        else
                snprintf(n.text, sizeof n.text, "%s", rule->name);
        return n;
}

/* What does not depend on the bytes that follow the header. */
static int check_header(const struct header *h, const struct record_rule *rule, const char *name,
                        struct err *err)
{
        if (!rule)
                return err_input(err, "saved state: record %s", name);
        if (h->instance >= rule->instances)
                return err_input(err, "saved state: record %s: at most %u of this kind are allowed",
                                 name, rule->instances);
        if (h->version == 0)
                return err_input(err, "saved state: record %s has version 0, which does not exist",
                                 name);
        if (h->version > rule->version)
                return err_input(err,
                                 "saved state: record %s has version %u, newer than %u, the newest "
                                 "known",
                                 name, h->version, rule->version);
        if (h->length < rule->min_length && rule->min_length == rule->max_length)
                return err_input(err, "saved state: record %s is too short: %u bytes, not %u", name,
                                 h->length, rule->min_length);
        if (h->length < rule->min_length || h->length > rule->max_length)
                return err_input(err,
                                 "saved state: record %s has a length of %u bytes, not %u to %u",
                                 name, h->length, rule->min_length, rule->max_length);
        if (rule->unit > 1 && h->length % rule->unit)
                return err_input(err, "saved state: record %s has %u bytes, not a multiple of %u",
                                 name, h->length, rule->unit);
        return 0;
}

/* One pass over a sequence. */
struct scan {
        const struct record_rule *rules;
        uint64_t *seen; /* a bit for each instance of each rule, in their order */
        size_t pos;
        size_t cap; /* of the reader's index */
};

/* Set the bit of (rule, instance) and say whether it was set before. */
static bool seen_before(struct scan *s, const struct record_rule *rule, uint32_t instance)
{
        uint64_t bit = instance;
        bool was;

        for (const struct record_rule *r = s->rules; r != rule; r++)
                bit += r->instances;
        was = s->seen[bit / 64] >> (bit % 64) & 1;
        s->seen[bit / 64] |= 1ull << (bit % 64);
        return was;
}

static int index_record(struct record_reader *r, struct scan *s, const struct header *h,
                        const uint8_t *data)
{
        if (r->nrecords == s->cap) {
                size_t cap = s->cap ? s->cap * 2 : 64;
                struct record *more = realloc(r->records, cap * sizeof *more);

                if (!more)
                        return -ENOMEM;
                r->records = more;
                s->cap = cap;
        }
        r->records[r->nrecords++] = (struct record){
                .kind = h->kind,
                .instance = h->instance,
                .version = h->version,
                .length = h->length,
                .data = data,
        };
        return 0;
}

static int check_end(const struct record_reader *r, const struct scan *s, const struct header *h,
                     struct err *err)
{
        if (h->instance != 0 || h->version != 1 || h->length != 0)
                return err_input(err, "saved state: record end is malformed");
        if (s->pos != r->len)
                return err_input(err, "saved state: %zu bytes follow the record end",
                                 r->len - s->pos);
        return 0;
}

/* Check and index the record at s->pos. 1: more may follow; 0: that was the end; -errno. */
static int scan_record(struct record_reader *r, struct scan *s, struct err *err)
{
        const uint8_t *data = r->buf + s->pos + sizeof(struct header);
        const struct record_rule *rule;
        size_t left = r->len - s->pos;
        struct header h;
        struct name name;
        int ret;

        if (left < sizeof h)
                return err_input(err, "saved state ends after %zu records, without the record end",
                                 r->nrecords);
        memcpy(&h, r->buf + s->pos, sizeof h);
        s->pos += sizeof h;
        left -= sizeof h;
        if (h.kind == RECORD_END)
                return check_end(r, s, &h, err);

        rule = rule_of(s->rules, h.kind);
        name = name_of(rule, h.kind, h.instance);
        ret = check_header(&h, rule, name.text, err);
        if (ret)
                return ret;
        if (left < h.length)
                return err_input(err, "saved state: record %s is cut short: %zu of %u bytes",
                                 name.text, left, h.length);
        if (left < padded(h.length))
                return err_input(err, "saved state: record %s is cut short in its padding",
                                 name.text);
        for (size_t i = h.length; i < padded(h.length); i++)
                if (data[i])
                        return err_input(err, "saved state: record %s has padding that is not zero",
                                         name.text);
        if (seen_before(s, rule, h.instance))
                return err_input(err, "saved state: record %s is there twice", name.text);
        if (index_record(r, s, &h, data))
                return err_host(err, ENOMEM, "saved state: out of memory");
        s->pos += padded(h.length);
        return 1;
}

static int compare(const void *a, const void *b)
{
        const struct record *x = a, *y = b;

        if (x->kind != y->kind)
                return x->kind < y->kind ? -1 : 1;
        if (x->instance != y->instance)
                return x->instance < y->instance ? -1 : 1;
        return 0;
}

/* Check and index r->buf, which the reader owns. On failure the reader is empty. */
static int reader_scan(struct record_reader *r, const struct record_rule *rules, struct err *err)
{
        struct scan s = {.rules = rules, .pos = sizeof magic};
        uint64_t bits = 0;
        int ret;

        r->rules = rules;
        if (r->len < sizeof magic || memcmp(r->buf, magic, sizeof magic)) {
                ret = err_input(err, "saved state does not begin with the magic \"%.8s\"", magic);
                goto out;
        }
        for (const struct record_rule *rule = rules; rule->kind != RECORD_END; rule++)
                bits += rule->instances;
        s.seen = calloc(bits / 64 + 1, sizeof *s.seen);
        if (!s.seen) {
                ret = err_host(err, ENOMEM, "saved state: out of memory");
                goto out;
        }
        do
                ret = scan_record(r, &s, err);
        while (ret > 0);
        if (ret == 0 && r->nrecords > 1)
                qsort(r->records, r->nrecords, sizeof *r->records, compare);
out:
        free(s.seen);
        if (ret)
                record_reader_fini(r);
        return ret;
}

static int reader_alloc(struct record_reader *r, uint64_t len, struct err *err)
{
        *r = (struct record_reader){0};
        if (len > RECORD_STATE_MAX)
                return err_input(err, "saved state has %llu bytes, more than the %u allowed",
                                 (unsigned long long)len, RECORD_STATE_MAX);
        r->buf = malloc(len ? len : 1); /* aligned for every type, so for 8 bytes */
        if (!r->buf)
                return err_host(err, ENOMEM, "saved state: out of memory");
        r->len = len;
        return 0;
}

int record_reader_init(struct record_reader *r, const void *data, size_t len,
                       const struct record_rule *rules, struct err *err)
{
        int ret = reader_alloc(r, len, err);

        if (ret)
                return ret;
        if (len > 0)
                memcpy(r->buf, data, len);
        return reader_scan(r, rules, err);
}

int record_reader_init_fd(struct record_reader *r, int fd, const struct record_rule *rules,
                          struct err *err)
{
        struct stat st;
        size_t at = 0;
        int ret;

        *r = (struct record_reader){0};
        if (fstat(fd, &st))
                return err_host(err, errno, "saved state: fstat: %m");
        if (!S_ISREG(st.st_mode))
                return err_input(err, "saved state is not in a file or memfd");
        ret = reader_alloc(r, (uint64_t)st.st_size, err);
        if (ret)
                return ret;
        while (at < r->len) {
                ssize_t n = pread(fd, r->buf + at, r->len - at, (off_t)at);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        ret = err_host(err, errno, "saved state: cannot read: %m");
                        record_reader_fini(r);
                        return ret;
                }
                if (n == 0)
                        break; /* it shrank meanwhile: the scan says what is missing */
                at += (size_t)n;
        }
        r->len = at;
        return reader_scan(r, rules, err);
}

void record_reader_fini(struct record_reader *r)
{
        free(r->records);
        free(r->buf);
        *r = (struct record_reader){0};
}

const struct record *record_find(const struct record_reader *r, uint32_t kind, uint32_t instance)
{
        const struct record key = {.kind = kind, .instance = instance};

        if (!r->nrecords)
                return NULL;
        return bsearch(&key, r->records, r->nrecords, sizeof key, compare);
}

int record_get(const struct record_reader *r, uint32_t kind, uint32_t instance, void *out,
               size_t length, struct err *err)
{
        const struct record *rec = record_find(r, kind, instance);
        struct name name = name_of(rule_of(r->rules, kind), kind, instance);

        if (!rec) {
                err_input(err, "saved state: record %s is missing", name.text);
                return -ENOENT;
        }
        if (rec->length != length)
                return err_input(err, "saved state: record %s has %u bytes, not %zu", name.text,
                                 rec->length, length);
        memcpy(out, rec->data, length);
        return 0;
}
