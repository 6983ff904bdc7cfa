/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The output of several machines on one terminal. The rules:
 *
 *   - A line is put out as one piece, with its prefix, when its newline has come. CR LF is a
 *     newline; a CR alone goes back to the start of the line (progress bars), behind a new prefix.
 *   - The beginning of a line is held back for a moment, since the rest of it mostly follows at
 * once. If nothing follows it is shown, and from then on that line is "open": its machine's next
 * bytes are put out as they come, so that typing at a prompt is not delayed.
 *   - If another machine has something to say meanwhile, the open line is ended first, and its
 *     machine starts the next one with its prefix again.
 *
 * A line longer than the buffer is shown as an open line, piece by piece.
 */
#include "cli/lines.h"

#include <stdio.h>
#include <string.h>

void lines_init(struct lines *l, const char *path)
{
        *l = (struct lines){0};
        snprintf(l->prefix, sizeof l->prefix, "[%.*s] ", LINES_PREFIX_MAX - 4, path);
}

void lines_break(struct line_mux *mux)
{
        if (!mux->open)
                return;
        mux->open = NULL;
        mux->out(mux->data, "\n", 1);
}

/* Put out what is held, with a prefix unless it goes on with an open line, and @end. */
static void put(struct line_mux *mux, struct lines *l, const char *end)
{
        char text[LINES_PREFIX_MAX + LINES_MAX + 2];
        size_t n = 0, end_len = strlen(end);

        if (mux->open && mux->open != l)
                lines_break(mux);
        if (mux->open != l) {
                n = strlen(l->prefix);
                memcpy(text, l->prefix, n);
        }
        memcpy(text + n, l->buf, l->len);
        n += l->len;
        memcpy(text + n, end, end_len);
        mux->out(mux->data, text, n + end_len);
        l->len = 0;
        mux->open = end_len ? NULL : l;
}

static void end_line(struct line_mux *mux, struct lines *l)
{
        if (!mux->line) {
                put(mux, l, "\n");
                return;
        }
        mux->line(mux->data, l, l->buf, l->len);
        l->len = 0;
}

static void append(struct line_mux *mux, struct lines *l, const char *text, size_t len)
{
        if (l->len + len > sizeof l->buf) {
                if (mux->line)
                        end_line(mux, l);
                else
                        put(mux, l, "");
        }
        memcpy(l->buf + l->len, text, len);
        l->len += len;
}

static void push_byte(struct line_mux *mux, struct lines *l, char c)
{
        bool cr = l->cr;

        l->cr = c == '\r';
        if (c == '\n') {
                end_line(mux, l);
                return;
        }
        if (cr && c != '\r' && (l->len || mux->open == l)) {
                append(mux, l, "\r", 1);
                if (!mux->line)
                        append(mux, l, l->prefix, strlen(l->prefix));
        }
        if (c != '\r')
                append(mux, l, &c, 1);
}

static void push_raw(struct line_mux *mux, struct lines *l, const char *data, size_t len)
{
        if (mux->open && mux->open != l)
                lines_break(mux);
        mux->out(mux->data, data, len);
        mux->open = data[len - 1] == '\n' ? NULL : l;
}

bool lines_push(struct line_mux *mux, struct lines *l, const char *data, size_t len)
{
        if (!len)
                return l->len > 0;
        if (mux->raw && !mux->line) {
                push_raw(mux, l, data, len);
                return false;
        }
        for (size_t i = 0; i < len; i++)
                push_byte(mux, l, data[i]);
        if (l->len && mux->open == l)
                put(mux, l, "");
        return l->len > 0;
}

void lines_flush(struct line_mux *mux, struct lines *l)
{
        if (l->len && !mux->line)
                put(mux, l, "");
}

void lines_close(struct line_mux *mux, struct lines *l)
{
        if (l->len)
                end_line(mux, l);
        else if (mux->open == l && !mux->raw)
                lines_break(mux);
}
