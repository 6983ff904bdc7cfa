/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JUnit report: what Jenkins, GitLab and others read. There is no standard for it; these are
 * the elements that all of them know. XML 1.0 has no way to write most control characters, so
 * text is made visible first (text.h), line by line.
 */
#include <string.h>

#include "harness/internal.h"

static void add_escaped(struct text *out, const char *s)
{
        for (; *s; s++) {
                switch (*s) {
                case '<':
                        text_add(out, "&lt;");
                        break;
                case '>':
                        text_add(out, "&gt;");
                        break;
                case '&':
                        text_add(out, "&amp;");
                        break;
                case '"':
                        text_add(out, "&quot;");
                        break;
                default:
                        text_bytes(out, s, 1);
                }
        }
}

/* Any bytes, as lines. */
static void add_lines(struct text *out, const char *bytes, size_t len)
{
        struct text line = {0};

        while (len > 0) {
                const char *end = memchr(bytes, '\n', len);
                size_t n = end ? (size_t)(end - bytes) : len, shown = n;

                if (shown > 0 && bytes[shown - 1] == '\r')
                        shown--;
                text_clear(&line);
                text_visible(&line, bytes, shown);
                add_escaped(out, text_str(&line));
                if (end)
                        text_bytes(out, "\n", 1);
                n += end != NULL;
                bytes += n;
                len -= n;
        }
        text_fini(&line);
}

static void add_attribute(struct text *out, const char *name, const char *value)
{
        text_add(out, " %s=\"", name);
        add_lines(out, value, strlen(value));
        text_add(out, "\"");
}

/* It is visible already. */
static void add_message(struct text *out, const char *element, const struct text *message)
{
        text_add(out, "      <%s message=\"", element);
        add_escaped(out, text_str(message));
        text_add(out, "\"");
}

static void add_case(struct text *out, const char *suite, const struct result *r)
{
        const struct outcome *o = &r->outcome;

        text_add(out, "    <testcase");
        add_attribute(out, "name", r->c.name);
        add_attribute(out, "classname", suite);
        if (r->c.file) {
                add_attribute(out, "file", r->c.file);
                text_add(out, " line=\"%d\"", r->c.line);
        }
        text_add(out, " time=\"%.6f\">\n", (double)o->ns / 1e9);
        if (o->kind == OUTCOME_SKIPPED) {
                add_message(out, "skipped", &o->reason);
                text_add(out, "/>\n");
        } else if (o->kind == OUTCOME_FAILED) {
                add_message(out, "failure", &o->reason);
                text_add(out, ">");
                add_escaped(out, text_str(&o->notes));
                add_escaped(out, text_str(&o->report));
                text_add(out, "</failure>\n");
        }
        if (o->console.len) {
                text_add(out, "      <system-out>");
                add_lines(out, o->console.data, o->console.len);
                text_add(out, "</system-out>\n");
        }
        text_add(out, "    </testcase>\n");
}

void junit_write(struct text *out, const char *suite, const struct result *results, size_t n,
                 uint64_t run_ns)
{
        size_t failed = 0, skipped = 0;

        for (size_t i = 0; i < n; i++) {
                failed += results[i].outcome.kind == OUTCOME_FAILED;
                skipped += results[i].outcome.kind == OUTCOME_SKIPPED;
        }
        text_add(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite");
        add_attribute(out, "name", suite);
        text_add(out,
                 " tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" time=\"%.6f\">\n", n,
                 failed, skipped, (double)run_ns / 1e9);
        for (size_t i = 0; i < n; i++)
                add_case(out, suite, &results[i]);
        text_add(out, "  </testsuite>\n</testsuites>\n");
}
