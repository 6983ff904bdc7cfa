/* SPDX-License-Identifier: Apache-2.0 */
/* The console device: what goes out goes out once, also over a fork in the midst of a line; what
 * comes in waits for the guest's buffers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "virtio_fake.h"

#define SIZE      16
#define IN        0
#define OUT       1
#define FEATURES  (~(1ull << VIRTIO_RING_F_EVENT_IDX)) /* the fake does not set used_event */
#define EMERG     (VIRTIO_MMIO_CONFIG + 8)
#define RING_SIZE 65536 /* of the chardev */

static struct vfake v;

static void begin(struct vfake *to)
{
        vfake_machine(to);
        to->f.params.virtio_console = true;
        fake_create(&to->f, &virtio_console_ops);
}

static int setup(void **state)
{
        begin(&v);
        vfake_start(&v, FEATURES, SIZE);
        return 0;
}

static int teardown(void **state)
{
        vfake_fini(&v);
        return 0;
}

static uint16_t print(struct vfake *from, const char *text)
{
        struct vbuf b = vfake_out(from, text, (uint32_t)strlen(text));

        return vfake_add(from, OUT, &b, 1);
}

static void it_is_a_console_of_one_port(void **state)
{
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_DEVICE_ID), 3);
        assert_int_equal(vfake_offered(&v) & 7, 1 << 2); /* EMERG_WRITE; not SIZE, MULTIPORT */
        vfake_write(&v, VIRTIO_MMIO_QUEUE_SEL, 2);
        assert_int_equal(vfake_read(&v, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        for (unsigned i = 0; i < 12; i += 4)
                assert_int_equal(vfake_read(&v, VIRTIO_MMIO_CONFIG + i), 0);
}

static void chains_come_out_in_order(void **state)
{
        struct vbuf parts[4] = {
                vfake_out(&v, "of ", 3), vfake_out(&v, "three ", 6), vfake_out(&v, "pieces", 6),
                vfake_in(&v, 8), /* has no meaning here, and no harm */
        };
        uint16_t heads[3];
        uint32_t len = 77;

        heads[0] = print(&v, "a line, ");
        heads[1] = vfake_add_indirect(&v, OUT, parts, 4);
        heads[2] = print(&v, "\n");
        vfake_kick(&v, OUT);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(vfake_used(&v, OUT, &len), heads[i]);
                assert_int_equal(len, 0);
        }
        assert_int_equal(vfake_irqs(&v), 1);
        assert_string_equal(fake_output(&v.f), "a line, of three pieces\n");
        assert_false(vfake_needs_reset(&v));
}

static void an_emergency_write_needs_no_driver(void **state)
{
        vfake_reset(&v);
        fake_write(&v.f, 0, EMERG, 4, 'E');
        fake_write(&v.f, 0, EMERG, 1, '!');
        fake_write(&v.f, 0, EMERG + 1, 1, '?');
        fake_write(&v.f, 0, EMERG - 8, 4, '?');
        assert_string_equal(fake_output(&v.f), "E!");
}

/* ---- back-pressure ---- */

/* Fill the chardev, and the pipe behind it, until nothing more goes. Returns how much that is. */
static size_t stuff(struct vfake *c)
{
        static char fill[RING_SIZE];
        size_t n, all = 0;

        memset(fill, '.', sizeof fill);
        do {
                n = chardev_write(c->f.env.console, fill, sizeof fill);
                all += n;
                vfake_run(c);
        } while (n > 0);
        return all;
}

static size_t let_go(struct vfake *c, size_t n)
{
        char buf[4096];
        ssize_t ret = read(c->f.out, buf, n < sizeof buf ? n : sizeof buf);

        return ret > 0 ? (size_t)ret : 0;
}

/* Read until nothing comes any more; returns how much is not what stuff() wrote, as a string. */
static char *drain(struct vfake *c)
{
        static char buf[4 * RING_SIZE], text[4 * RING_SIZE];
        size_t len = 0;

        for (int quiet = 0; quiet < 3;) {
                ssize_t n = read(c->f.out, buf, sizeof buf);

                quiet = n > 0 ? 0 : quiet + 1;
                for (ssize_t i = 0; i < n; i++) {
                        if (buf[i] != '.')
                                text[len++] = buf[i];
                }
                vfake_run(c);
        }
        text[len] = 0;
        return text;
}

static void a_full_chardev_keeps_the_chain(void **state)
{
        uint16_t head;

        stuff(&v);
        head = print(&v, "later");
        vfake_kick(&v, OUT);
        assert_int_equal(vfake_used(&v, OUT, NULL), -1);
        vfake_kick(&v, OUT);
        assert_int_equal(vfake_used(&v, OUT, NULL), -1);
        assert_string_equal(drain(&v), "later");
        assert_int_equal(vfake_used(&v, OUT, NULL), head);
        assert_int_equal(vfake_irqs(&v), 1);
}

/* Letters of which no two neighbours are the same, so that one lost or repeated shows. */
static char *letters(size_t n)
{
        char *text = malloc(n + 1);

        for (size_t i = 0; i < n; i++)
                text[i] = (char)('a' + (i + i / 25) % 25);
        text[n] = 0;
        return text;
}

static void a_long_chain_goes_out_as_there_is_room(void **state)
{
        char *text = letters(3 * RING_SIZE);
        uint16_t head = print(&v, text);

        vfake_kick(&v, OUT);
        assert_int_equal(vfake_used(&v, OUT, NULL), -1); /* more than ring and pipe hold */
        assert_string_equal(drain(&v), text);
        assert_int_equal(vfake_used(&v, OUT, NULL), head);
        free(text);
}

/* A turn of the loop is for others, too, also when output goes nowhere. */
static void a_turn_is_bounded(void **state)
{
        char *text = letters(RING_SIZE);
        struct vbuf b = vfake_out(&v, text, RING_SIZE);
        struct virtio_device *d = vfake_device(&v);

        close(v.f.out);
        v.f.out = open("/dev/null", O_RDONLY | O_CLOEXEC);
        chardev_write(v.f.env.console, "x", 1);
        fake_settle(&v.f);
        for (int i = 0; i < 5; i++)
                vfake_add(&v, OUT, &b, 1);
        guest_access_begin(&v.f.access);
        for (unsigned i = 1; i <= 5; i++) {
                assert_true(d->ops->process(d, OUT));
                assert_int_equal(d->queues[OUT].pushes, i);
        }
        assert_false(d->ops->process(d, OUT));
        guest_access_end(&v.f.access);
        free(text);
}

/* ---- forks ---- */

static void *save(struct vfake *from)
{
        uint8_t *record = malloc(virtio_console_ops.record_length);

        virtio_console_ops.quiesce(from->f.dev);
        virtio_console_ops.save(from->f.dev, record);
        return record;
}

/* A machine with the same memory, in that state. */
static void become(struct vfake *to, struct vfake *from, const void *record)
{
        struct err err = {0};

        begin(to);
        for (unsigned i = 0; i < to->f.mem.nregions; i++)
                memcpy(to->f.mem.regions[i].hva, from->f.mem.regions[i].hva,
                       from->f.mem.regions[i].size);
        if (virtio_console_ops.restore(to->f.dev, record, virtio_console_ops.record_version, &err))
                fail_msg("%s", err.text);
        memcpy(to->q, from->q, sizeof to->q);
        to->features = from->features;
        to->top = from->top;
        virtio_console_ops.resume(to->f.dev);
}

/* The parent's output was stuck in the midst of a chain: parent and clone both go on behind it. */
static void half_a_chain_is_printed_once_over_a_fork(void **state)
{
        char *text = letters(RING_SIZE + 1000), *got;
        struct vfake clone;
        uint16_t head;
        uint8_t *record;
        size_t n;

        stuff(&v);
        assert_true(let_go(&v, 4096) == 4096); /* a little goes out */
        head = print(&v, text);
        vfake_kick(&v, OUT);
        vfake_run(&v);
        assert_int_equal(vfake_used(&v, OUT, NULL), -1);
        record = save(&v);
        become(&clone, &v, record);
        free(record);
        record = save(&clone); /* a clone of the clone would get the same */
        virtio_console_ops.resume(clone.f.dev);
        free(record);

        got = strdup(drain(&clone));
        n = strlen(got);
        assert_in_range(n, 1, strlen(text) - 1);
        assert_string_equal(got, text + strlen(text) - n);
        assert_int_equal(vfake_used(&clone, OUT, NULL), head);
        print(&clone, "next");
        vfake_kick(&clone, OUT);
        assert_string_equal(fake_output(&clone.f), "next");

        virtio_console_ops.resume(v.f.dev);
        assert_string_equal(drain(&v), text);
        assert_int_equal(vfake_used(&v, OUT, NULL), head);
        vfake_fini(&clone);
        free(text);
        free(got);
}

/* What the guest asked for while the device was quiet is done afterwards, and not before. */
static void nothing_begins_while_it_is_quiet(void **state)
{
        struct vbuf b = vfake_in(&v, 64);
        uint32_t len;

        vfake_add(&v, IN, &b, 1);
        vfake_kick(&v, IN);
        fake_settle(&v.f);
        virtio_console_ops.quiesce(v.f.dev);
        print(&v, "hush");
        vfake_kick(&v, OUT);
        fake_type(&v.f, "typed");
        assert_string_equal(fake_output(&v.f), "");
        assert_int_equal(vfake_used(&v, IN, NULL), -1);
        virtio_console_ops.resume(v.f.dev);
        assert_string_equal(fake_output(&v.f), "hush");
        assert_true(vfake_used(&v, IN, &len) >= 0);
        assert_int_equal(len, 5);
        assert_memory_equal(vfake_ptr(&v, b.gpa), "typed", 5);
}

/* A clone of a machine that waited for input, as all do, is typed into without a notification. */
static void a_clone_waits_for_input_as_its_parent_did(void **state)
{
        struct vbuf b = vfake_in(&v, 64);
        struct vfake clone;
        uint8_t *record;

        vfake_add(&v, IN, &b, 1);
        vfake_kick(&v, IN);
        record = save(&v);
        become(&clone, &v, record);
        fake_type(&clone.f, "hello");
        assert_true(vfake_used(&clone, IN, NULL) >= 0);
        assert_memory_equal(vfake_ptr(&clone, b.gpa), "hello", 5);
        assert_int_equal(vfake_irqs(&clone), 1);
        vfake_fini(&clone);
        free(record);
}

static void a_reset_forgets_half_a_chain(void **state)
{
        char *text = letters(2 * RING_SIZE);

        stuff(&v);
        print(&v, text);
        assert_true(let_go(&v, 4096) == 4096);
        vfake_kick(&v, OUT);
        vfake_start(&v, FEATURES, SIZE);
        drain(&v);
        print(&v, "anew");
        vfake_kick(&v, OUT);
        assert_string_equal(drain(&v), "anew");
        free(text);
}

static void state_is_encoded_as_it_was(void **state)
{
        struct err err = {0};
        uint8_t *a, *b = malloc(virtio_console_ops.record_length);
        struct vfake clone;
        char *text = letters(3 * RING_SIZE);

        print(&v, text);
        while (chardev_space(v.f.env.console) > 0)
                vfake_kick(&v, OUT);
        a = save(&v);
        /* how much of it is out depends on the pipe: the golden file has a figure of its own */
        memcpy(b, a, virtio_console_ops.record_length);
        assert_int_not_equal(device_get(b + sizeof(struct virtio_record), 8), 0);
        device_put(b + sizeof(struct virtio_record), 8, 12345);
        golden_check(virtio_console_ops.name, virtio_console_ops.record_kind, 0,
                     virtio_console_ops.record_version, b, virtio_console_ops.record_length);
        become(&clone, &v, a);
        virtio_console_ops.quiesce(clone.f.dev);
        free(b);
        b = a + sizeof(struct virtio_record);
        device_put(b, 8, 1ull << 32);
        assert_int_equal(virtio_console_ops.restore(clone.f.dev, a, 1, &err), -EINVAL);
        assert_string_equal(err.text, "virtio-console: 4294967296 bytes of one chain are out");
        vfake_fini(&clone);
        free(a);
        free(text);
}

/* ---- input ---- */

static void input_waits_for_buffers_and_fills_them(void **state)
{
        static const char typed[] = "0123456789";
        static const uint32_t size[] = {3, 2, 100}, at[] = {0, 3, 5}, got[] = {3, 2, 5};
        struct vbuf b[3];
        uint32_t len;

        fake_type(&v.f, typed);
        for (int i = 0; i < 3; i++) {
                b[i] = vfake_in(&v, size[i]);
                assert_int_equal(vfake_used(&v, IN, NULL), -1);
                vfake_add(&v, IN, &b[i], 1);
                vfake_kick(&v, IN);
                fake_settle(&v.f);
                assert_true(vfake_used(&v, IN, &len) >= 0);
                assert_int_equal(len, got[i]);
                assert_memory_equal(vfake_ptr(&v, b[i].gpa), typed + at[i], len);
                assert_int_equal(vfake_irqs(&v), 1);
        }
        for (int i = 0; i < 3; i++) /* all there before it is typed */
                vfake_add(&v, IN, &b[i], 1);
        vfake_kick(&v, IN);
        fake_type(&v.f, typed);
        for (int i = 0; i < 3; i++) {
                assert_true(vfake_used(&v, IN, &len) >= 0);
                assert_int_equal(len, got[i]);
                assert_memory_equal(vfake_ptr(&v, b[i].gpa), typed + at[i], len);
        }
}

/* ---- drivers that break the rules ---- */

static void expect_broken(const char *why)
{
        fake_settle(&v.f);
        assert_true(vfake_needs_reset(&v));
        assert_string_equal(vfake_device(&v)->why, why);
        assert_true(vfake_ack(&v) & VIRTIO_MMIO_INT_CONFIG);
        print(&v, "nobody hears this");
        vfake_kick(&v, OUT);
        assert_string_equal(fake_output(&v.f), "");
        vfake_recover(&v, SIZE);
        print(&v, "again");
        vfake_kick(&v, OUT);
        assert_string_equal(fake_output(&v.f), "again");
}

static void output_outside_ram_is_refused(void **state)
{
        const struct vbuf b = {VFAKE_HIGH - 16, 32, false};

        vfake_add(&v, OUT, &b, 1);
        vfake_kick(&v, OUT);
        expect_broken("console: output that is not in RAM");
}

static void buffers_that_cannot_be_written_are_refused(void **state)
{
        const struct vbuf bad[] = {{VFAKE_RAM_BEGIN, 32, false}, {VFAKE_HIGH - 16, 32, true}};

        for (int i = 0; i < 2; i++) {
                vfake_add(&v, IN, &bad[i], 1);
                vfake_kick(&v, IN);
                fake_type(&v.f, "0123456789012345678901234567890123456789");
                expect_broken("console: a buffer for input that cannot be written");
                drain(&v);
        }
}

static void a_broken_ring_is_refused(void **state)
{
        struct vbuf b = vfake_in(&v, 8);

        vfake_add(&v, IN, &b, 1);
        vfake_offer(&v, IN, SIZE);
        vfake_kick(&v, IN);
        fake_type(&v.f, "0123456789");
        fake_settle(&v.f);
        assert_true(vfake_needs_reset(&v));
        vfake_recover(&v, SIZE);
        vfake_offer(&v, OUT, SIZE);
        vfake_kick(&v, OUT);
        assert_true(vfake_needs_reset(&v));
        vfake_recover(&v, SIZE);
}

static void without_the_option_there_is_none(void **state)
{
        const struct device_params params = {0};

        assert_int_equal(virtio_console_ops.count(&params), 0);
        assert_int_equal(virtio_console_ops.count(&v.f.params), 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(it_is_a_console_of_one_port),
                CASE(chains_come_out_in_order),
                CASE(an_emergency_write_needs_no_driver),
                CASE(a_full_chardev_keeps_the_chain),
                CASE(a_long_chain_goes_out_as_there_is_room),
                CASE(a_turn_is_bounded),
                CASE(half_a_chain_is_printed_once_over_a_fork),
                CASE(nothing_begins_while_it_is_quiet),
                CASE(a_clone_waits_for_input_as_its_parent_did),
                CASE(a_reset_forgets_half_a_chain),
                CASE(state_is_encoded_as_it_was),
                CASE(input_waits_for_buffers_and_fills_them),
                CASE(output_outside_ram_is_refused),
                CASE(buffers_that_cannot_be_written_are_refused),
                CASE(a_broken_ring_is_refused),
                CASE(without_the_option_there_is_none),
        };

        return cmocka_run_group_tests_name("virtio_console", tests, NULL, NULL);
}
