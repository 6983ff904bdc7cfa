/* SPDX-License-Identifier: Apache-2.0 */
/* Saved state: the sequence of records as it comes from another process, and the record of every
 * device, changed here and there. (Disks, which have files besides, are in fuzz_blk.) */
#include "guest.h"

static void read_records(const uint8_t *data, size_t len)
{
        struct record_reader r;
        struct err err = {0};

        if (record_reader_init(&r, data, len, record_rules, &err)) {
                assert_true(err.text[0]);
                return;
        }
        for (size_t i = 0; i < r.nrecords; i++) {
                const struct record *rec = &r.records[i];

                assert_true((const uint8_t *)rec->data >= r.buf);
                assert_true(rec->length <= r.len);
                assert_true(record_find(&r, rec->kind, rec->instance) == rec);
        }
        record_reader_fini(&r);
}

/* A well-formed one, but for what the input says. */
static void make_records(struct input *in)
{
        static uint8_t payload[4096];
        struct record_writer w;
        struct err err = {0};
        uint8_t *bytes;
        int fd;

        record_writer_init(&w);
        for (unsigned n = take8(in) % 8; n > 0; n--) {
                uint32_t kind = take16(in) & 0x2ff, instance = take8(in) & 7;
                uint32_t version = take8(in) & 3, len = take16(in) % sizeof payload;

                record_add(&w, kind, instance, version, payload, len);
        }
        if (record_finish(&w, &fd, &err))
                return;
        bytes = calloc(1, 65536);
        if (bytes) {
                ssize_t len = pread(fd, bytes, 65536, 0);

                for (unsigned n = take8(in) % 8; n > 0 && len > 0; n--)
                        bytes[take16(in) % len] = take8(in);
                if (len > 0)
                        read_records(bytes, (size_t)len);
        }
        free(bytes);
        close(fd);
}

/* A device that has been set up, or has not, is given another state. */
static void restore_virtio(struct input *in, const struct device_ops *ops)
{
        static uint8_t record[16384];

        guest_begin(ops);
        if (take8(in) & 1)
                guest_start(in);
        guest_quiesce();
        ops->save(g.v.f.dev, record);
        guest_restore_changed(in, record, true);
        guest_resume();
        while (in->left > 0)
                guest_act(in, take8(in) & 7);
        guest_recover();
        guest_end();
}

/* One without queues. */
static void restore_other(struct input *in, const struct device_ops *ops)
{
        static uint8_t record[16384];

        guest_begin(ops);
        ops->save(g.v.f.dev, record);
        guest_restore_changed(in, record, false);
        for (unsigned w = 0; w < g.v.f.nwindows; w++) {
                uint64_t len = g.v.f.windows[w].len;

                for (uint64_t at = 0; at < len && at < 16; at++)
                        fake_read(&g.v.f, w, at, 1);
                fake_write(&g.v.f, w, len > 0 ? take8(in) % len : 0, 1, take8(in));
        }
        assert_int_equal(loop_step(g.v.f.env.loop, 0), 0);
        guest_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
        static const struct device_ops *const others[] = {
                &serial_ops,   &rtc_ops,        &i8042_ops,  &pm_ops,
                &doorbell_ops, &debug_exit_ops, &vmgenid_ops};
        struct input in = {data, len};
        uint8_t kind = take8(&in);

        if (kind < 0x20)
                read_records(in.at, in.left);
        else if (kind < 0x40)
                make_records(&in);
        else if (kind < 0xc0)
                restore_virtio(&in, kind & 1 ? &rng_ops : &virtio_console_ops);
        else
                restore_other(&in, others[kind % (sizeof others / sizeof others[0])]);
        return 0;
}
