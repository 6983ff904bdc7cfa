/* SPDX-License-Identifier: Apache-2.0 */
/* What the guest `subject` and the tests of the harness agree on. */
#ifndef SUBJECT_H
#define SUBJECT_H

#define SUBJECT_PAGES 64

/* Nothing is mapped there, nor anywhere above 4 GiB. */
#define SUBJECT_NOWHERE 0x140000000ull

enum subject_order {
        SUBJECT_NOTHING = 0,
        SUBJECT_FAULT,      /* write to `argument`, with no handler, in parse_header() */
        SUBJECT_TRIPLE,     /* an invalid instruction with no handler, in obey() */
        SUBJECT_CALL,       /* call the function at `argument`, in call_nowhere() */
        SUBJECT_USER_FAULT, /* as FAULT in user mode, in user_parse() */
        SUBJECT_SPIN,       /* for ever, in user mode, in spin() */
        SUBJECT_WRITE,      /* add 1 to the first byte of `argument` pages of area[] */
        SUBJECT_PORT,       /* read from the port `argument` */
        SUBJECT_PRINT,      /* print `argument` bytes of message[] */
};

#endif
