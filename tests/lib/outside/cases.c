/* SPDX-License-Identifier: Apache-2.0 */
/* What <ramet/harness.h> makes of a test program, in C and in C++: for test_install.py. */
#include <ramet/harness.h>

RAMET_GUEST(.kernel = "no-such-guest.elf", .ready_console = "init done");

RAMET_CASE(with_options, .timeout_ns = 2 * RAMET_SECOND)
{
        ramet_console_send(t, "bomb\n");
        ramet_expect_console(t, "limit reached");
        ramet_expect(t, ramet_test_vm(t));
}

RAMET_CASE(without_options)
{
        ramet_expect_status(t, 0);
}

RAMET_MAIN()
