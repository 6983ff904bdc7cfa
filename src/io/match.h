/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks for a text in a stream of bytes that comes in pieces. Knuth, Morris and Pratt: linear
 * however hostile the stream is, nothing kept of it but a number.
 */
#ifndef RAMET_IO_MATCH_H
#define RAMET_IO_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MATCH_MAX 255

struct match {
        uint8_t text[MATCH_MAX];
        uint8_t border[MATCH_MAX]; /* of text[0..i]: longest proper prefix that is also its suffix
                                    */
        uint8_t len;               /* 0: matches nothing */
        uint8_t at;                /* how much of the text the stream ends with */
};

/* NULL or "": matches nothing. 0, or -EINVAL when longer than MATCH_MAX; then nothing changed. */
int match_init(struct match *m, const char *text);

/* Feed @len bytes, up to and with the last one of the first match. Returns how many were taken;
 * *hit says whether the text ended there. */
size_t match_feed(struct match *m, const uint8_t *data, size_t len, bool *hit);

#endif
