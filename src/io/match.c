/* SPDX-License-Identifier: Apache-2.0 */
/* Knuth, Morris, Pratt, "Fast Pattern Matching in Strings", SIAM J. Comput. 6(2), 1977. See
 * match.h. */
#include "io/match.h"

#include <errno.h>
#include <string.h>

int match_init(struct match *m, const char *text)
{
        size_t len = text ? strlen(text) : 0;
        uint8_t k = 0;

        if (len > MATCH_MAX)
                return -EINVAL;
        *m = (struct match){.len = (uint8_t)len};
        if (len > 0)
                memcpy(m->text, text, len);
        for (size_t i = 1; i < len; i++) {
                while (k > 0 && m->text[i] != m->text[k])
                        k = m->border[k - 1];
                if (m->text[i] == m->text[k])
                        k++;
                m->border[i] = k;
        }
        return 0;
}

size_t match_feed(struct match *m, const uint8_t *data, size_t len, bool *hit)
{
        *hit = false;
        if (m->len == 0)
                return len;
        for (size_t i = 0; i < len; i++) {
                while (m->at > 0 && data[i] != m->text[m->at])
                        m->at = m->border[m->at - 1];
                if (data[i] == m->text[m->at])
                        m->at++;
                if (m->at == m->len) {
                        m->at = m->border[m->at - 1];
                        *hit = true;
                        return i + 1;
                }
        }
        return len;
}
