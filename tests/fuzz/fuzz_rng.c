/* SPDX-License-Identifier: Apache-2.0 */
/* The entropy device, and chains of all kinds. */
#include "guest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
        struct input in = {data, len};

        guest_begin(&rng_ops);
        guest_start(&in);
        while (in.left > 0) {
                uint8_t op = take8(&in);

                if (op < 0xe0)
                        guest_act(&in, op & 7);
                else if (op < 0xe8)
                        guest_quiesce();
                else if (op < 0xf0)
                        guest_resume();
                else
                        guest_save_restore();
        }
        guest_recover();
        assert_int_equal(guest_honest(0, NULL, 0, 64), 64);
        guest_end();
        return 0;
}
