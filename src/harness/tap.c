/* SPDX-License-Identifier: Apache-2.0 */
/* TAP: a line for each case, and what else there is to say of it in comments. */
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "harness/internal.h"

#define COMMENT "#   "

void outcome_fini(struct outcome *o)
{
        text_fini(&o->reason);
        text_fini(&o->notes);
        text_fini(&o->report);
        text_fini(&o->console);
}

void tap_duration(struct text *out, uint64_t ns)
{
        if (ns < RAMET_MILLISECOND)
                text_add(out, "%.2f ms", (double)ns / 1e6);
        else if (ns < RAMET_SECOND)
                text_add(out, "%.1f ms", (double)ns / 1e6);
        else
                text_add(out, "%.*f s", ns % RAMET_SECOND ? 2 : 0, (double)ns / 1e9);
}

/* TAP 14: a # within a description is escaped, as a backslash is. */
static void add_name(struct text *out, const char *name)
{
        size_t n;

        for (; *name; name += n + (name[n] == '#')) {
                n = strcspn(name, "#");
                text_visible(out, name, n);
                if (name[n] == '#')
                        text_add(out, "\\#");
        }
}

/* A reason that begins with a directive would be taken for it. */
static void add_reason(struct text *out, const char *reason)
{
        if (strncasecmp(reason, "skip", 4) == 0 || strncasecmp(reason, "todo", 4) == 0)
                text_add(out, "failed: ");
        text_add(out, "%s", reason);
}

void tap_result(struct text *out, unsigned number, const struct ramet_case *c,
                const struct outcome *o)
{
        text_add(out, "%sok %u - ", o->kind == OUTCOME_FAILED ? "not " : "", number);
        add_name(out, c->name);
        text_add(out, " # ");
        if (o->kind == OUTCOME_FAILED) {
                add_reason(out, text_str(&o->reason));
        } else if (o->kind == OUTCOME_SKIPPED) {
                text_add(out, "SKIP %s", text_str(&o->reason));
        } else {
                tap_duration(out, o->ns);
                if (o->counted)
                        text_add(out, ", %llu page%s dirtied", (unsigned long long)o->dirty_pages,
                                 o->dirty_pages == 1 ? "" : "s");
        }
        text_add(out, "\n");
        text_prefixed(out, COMMENT, text_str(&o->notes));
        text_prefixed(out, COMMENT, text_str(&o->report));
}

int harness_write(int fd, const struct text *t)
{
        for (size_t done = 0; done < t->len;) {
                ssize_t n = write(fd, t->data + done, t->len - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                done += (size_t)n;
        }
        return 0;
}
