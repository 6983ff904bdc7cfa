/* SPDX-License-Identifier: Apache-2.0 */
/* The console: chains both ways, typing, and output that nobody reads for a while. */
#include "guest.h"

static void read_output(void)
{
        char sink[4096];

        while (read(g.v.f.out, sink, sizeof sink) > 0)
                ;
}

/* What is left of the input in the pipe is somebody else's. */
static void type(struct input *in)
{
        uint8_t data[64];
        unsigned n = take8(in) % sizeof data;

        take(in, data, n);
        if (write(g.v.f.in, data, n) < 0)
                assert_int_equal(errno, EAGAIN);
        guest_run();
}

static void flush(void)
{
        do {
                read_output();
                guest_run();
        } while (!chardev_drained(g.v.f.env.console));
        read_output();
}

/* What is printed comes out, and what is typed comes in. */
static void check_that_it_works(void)
{
        char text[5] = "";

        flush();
        guest_recover();
        flush();
        chardev_discard(g.v.f.env.console);
        assert_int_equal(write(g.v.f.in, "typed", 5), 5);
        assert_int_equal(guest_honest(0, NULL, 0, 64), 5);
        assert_memory_equal(vfake_ptr(&g.v, BUFFERS + BUFFER), "typed", 5);
        assert_int_equal(guest_honest(1, "shown", 5, 1), 0);
        assert_int_equal(read(g.v.f.out, text, 5), 5);
        assert_memory_equal(text, "shown", 5);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
        struct input in = {data, len};

        guest_begin(&virtio_console_ops);
        guest_start(&in);
        while (in.left > 0) {
                uint8_t op = take8(&in);

                if (op < 0xd0)
                        guest_act(&in, op & 7);
                else if (op < 0xe0)
                        type(&in);
                else if (op < 0xe8)
                        read_output();
                else if (op < 0xf0)
                        guest_quiesce();
                else if (op < 0xf8)
                        guest_resume();
                else
                        guest_save_restore();
        }
        check_that_it_works();
        guest_end();
        return 0;
}
