/* SPDX-License-Identifier: Apache-2.0 */
/* A test program as users write them: test_harness_program.py runs it, and looks at what it says.
 */
#include <stdlib.h>
#include <string.h>

#include <ramet/harness.h>

#include "tests/guest/subject.h"

RAMET_GUEST(.kernel = SUBJECT, .memory_bytes = 16 << 20, .ready_console = "subject: ready");

static void order(struct ramet_test *t, enum subject_order what, uint64_t argument)
{
        uint32_t word = what;

        ramet_put(t, "order", &word, sizeof word);
        ramet_put(t, "argument", &argument, sizeof argument);
}

RAMET_CASE(is_first)
{
        order(t, SUBJECT_WRITE, 3);
        ramet_expect_console(t, "visit 1");
}

RAMET_CASE(exits_with_5)
{
        ramet_console_send(t, "exit 5\n");
        ramet_expect_status(t, 5);
}

RAMET_CASE(crashes)
{
        ramet_note(t, "seed <7> & \x01");
        order(t, SUBJECT_FAULT, SUBJECT_NOWHERE);
        ramet_expect_console(t, "done");
}

RAMET_CASE(hangs, .timeout_ns = 200 * RAMET_MILLISECOND)
{
        order(t, SUBJECT_SPIN, 0);
        ramet_expect_doorbell(t);
        ramet_expect_doorbell(t);
}

RAMET_CASE(prints_controls)
{
        static const char text[] = "]]> <b>\x1b[31m\xff\n";

        order(t, SUBJECT_PRINT, sizeof text - 1);
        ramet_put(t, "message", text, sizeof text);
        ramet_expect_console(t, "\xff\n");
        ramet_expect(t, 1 + 1 == 3);
}

RAMET_CASE(is_skipped, .skip = "not written")
{
}

RAMET_CASE(is_last)
{
        ramet_expect(t, strcmp(ramet_test_name(t), "is_last") == 0);
}

RAMET_MAIN()
