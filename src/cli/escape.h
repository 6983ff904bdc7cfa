/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that are for the launcher and not for the guest: Ctrl-A, then a letter. */
#ifndef RAMET_CLI_ESCAPE_H
#define RAMET_CLI_ESCAPE_H

#include <stdbool.h>

#define ESCAPE_KEY 0x01 /* Ctrl-A, as in QEMU and screen */

enum escape_action {
        ESCAPE_PASS, /* the key is the guest's */
        ESCAPE_NONE, /* it was the first half of a command, or an unknown one */
        ESCAPE_QUIT,
        ESCAPE_NEXT,
        ESCAPE_HELP,
};

struct escape {
        bool armed; /* Ctrl-A was the last key */
};

static inline enum escape_action escape_key(struct escape *e, char key)
{
        bool armed = e->armed;

        e->armed = !armed && key == ESCAPE_KEY;
        if (!armed)
                return e->armed ? ESCAPE_NONE : ESCAPE_PASS;
        switch (key) {
        case ESCAPE_KEY:
                return ESCAPE_PASS; /* twice: the guest gets one */
        case 'x':
                return ESCAPE_QUIT;
        case 'n':
                return ESCAPE_NEXT;
        case 'h':
        case '?':
                return ESCAPE_HELP;
        default:
                return ESCAPE_NONE;
        }
}

#endif
