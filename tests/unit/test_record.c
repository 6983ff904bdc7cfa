/* SPDX-License-Identifier: Apache-2.0 */
/* Saved state: what is written is read back, everything unknown is refused by name, and bytes that
 * an enemy chose cost no more than their length. */
#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <cmocka.h>

#include "base/record.h"
#include "golden.h"

/* A state under construction, byte by byte, without the writer's manners. */
struct bytes {
        uint8_t *data;
        size_t len, cap;
};

static void put(struct bytes *b, const void *data, size_t len)
{
        while (b->len + len > b->cap) {
                b->cap = b->cap ? b->cap * 2 : 4096;
                b->data = realloc(b->data, b->cap);
                assert_non_null(b->data);
        }
        if (len > 0)
                memcpy(b->data + b->len, data, len);
        b->len += len;
}

static void begin(struct bytes *b)
{
        *b = (struct bytes){0};
        put(b, "RAMETST1", 8);
}

static void header(struct bytes *b, uint32_t kind, uint32_t instance, uint32_t version,
                   uint32_t length)
{
        const uint32_t h[4] = {kind, instance, version, length};

        put(b, h, sizeof h);
}

static void record(struct bytes *b, uint32_t kind, uint32_t instance, uint32_t version,
                   uint32_t length)
{
        uint8_t *payload = calloc(1, length + 8);

        assert_non_null(payload);
        memset(payload, 0xa5, length);
        header(b, kind, instance, version, length);
        put(b, payload, (length + 7) & ~7u);
        free(payload);
}

static void end(struct bytes *b)
{
        header(b, RECORD_END, 0, 1, 0);
}

static void expect_refused(struct bytes *b, const char *text)
{
        struct record_reader r;
        struct err err = {.class = ERR_HOST};

        assert_int_equal(record_reader_init(&r, b->data, b->len, record_rules, &err), -EINVAL);
        assert_string_equal(err.text, text);
        assert_int_equal(err.class, ERR_INPUT);
        assert_null(r.buf);
        assert_null(record_find(&r, RECORD_REGS, 0));
        record_reader_fini(&r);
        free(b->data);
}

/* ---- writing and reading back ---- */

static void what_is_written_is_read_back(void **state)
{
        struct record_writer w;
        struct record_reader r;
        struct err err = {0};
        struct kvm_regs regs = {.rax = 0x1122334455667788}, out;
        const struct record *rec;
        int fd;

        record_writer_init(&w);
        for (uint32_t i = 0; i < 1024; i++) {
                regs.rip = 1023 - i;
                record_add(&w, RECORD_REGS, 1023 - i, 1, &regs, sizeof regs);
        }
        record_add(&w, RECORD_VM, 0, 1, "0123456789a", 11);
        assert_int_equal(record_finish(&w, &fd, &err), 0);

        assert_int_equal(record_reader_init_fd(&r, fd, record_rules, &err), 0);
        assert_int_equal(r.nrecords, 1025);
        for (uint32_t i = 0; i < 1024; i++) {
                rec = record_find(&r, RECORD_REGS, i);
                assert_non_null(rec);
                assert_int_equal((uintptr_t)rec->data % 8, 0);
                assert_int_equal(record_get(&r, RECORD_REGS, i, &out, sizeof out, &err), 0);
                assert_int_equal(out.rip, i);
                assert_int_equal(out.rax, regs.rax);
        }
        rec = record_find(&r, RECORD_VM, 0);
        assert_int_equal(rec->length, 11);
        assert_memory_equal(rec->data, "0123456789a", 11);
        assert_null(record_find(&r, RECORD_REGS, 1024));
        record_reader_fini(&r);
        close(fd);
}

static void the_result_is_sealed(void **state)
{
        struct record_writer w;
        struct err err;
        int fd;

        record_writer_init(&w);
        record_add(&w, RECORD_DEV_PM, 0, 1, "01234567", 8);
        assert_int_equal(record_finish(&w, &fd, &err), 0);
        assert_int_equal(fcntl(fd, F_GET_SEALS),
                         F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        assert_int_equal(pwrite(fd, "x", 1, 0), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        close(fd);
        record_writer_fini(&w);
}

static void the_first_failure_of_a_writer_sticks(void **state)
{
        struct record_writer w;
        struct err err = {0};
        uint8_t *big = calloc(1, RECORD_STATE_MAX / 2);
        int fd = -7;

        record_writer_init(&w);
        record_add(&w, RECORD_XSAVE, 0, 1, big, RECORD_STATE_MAX / 2);
        record_add(&w, RECORD_XSAVE, 1, 1, big, RECORD_STATE_MAX / 2);
        record_add(&w, RECORD_DEV_PM, 0, 1, "01234567", 8);
        assert_int_equal(record_finish(&w, &fd, &err), -E2BIG);
        assert_string_equal(err.text, "saved state is larger than 64 MiB");
        assert_int_equal(fd, -7);
        assert_null(w.buf);
        free(big);
}

static void get_names_what_is_missing(void **state)
{
        struct record_reader r;
        struct err err;
        struct bytes b;
        uint8_t out[16];

        begin(&b);
        record(&b, RECORD_DEV_PM, 0, 1, 8);
        end(&b);
        assert_int_equal(record_reader_init(&r, b.data, b.len, record_rules, &err), 0);
        assert_int_equal(record_get(&r, RECORD_REGS, 3, out, 16, &err), -ENOENT);
        assert_string_equal(err.text, "saved state: record regs of vCPU 3 is missing");
        assert_int_equal(record_get(&r, RECORD_DEV_PM, 0, out, 16, &err), -EINVAL);
        assert_string_equal(err.text, "saved state: record pm has 8 bytes, not 16");
        assert_int_equal(record_get(&r, RECORD_DEV_PM, 0, out, 8, NULL), 0);
        record_reader_fini(&r);
        free(b.data);
}

/* ---- refusals ---- */

static void an_unknown_kind_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        record(&b, 0x999, 5, 1, 8);
        end(&b);
        expect_refused(&b, "saved state: record of unknown kind 0x999, instance 5");
}

static void an_instance_beyond_the_last_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        record(&b, RECORD_IRQCHIP, 3, 1, sizeof(struct kvm_irqchip));
        end(&b);
        expect_refused(&b, "saved state: record irqchip 3: at most 3 of this kind are allowed");
        begin(&b);
        record(&b, RECORD_CLOCK, UINT32_MAX, 1, sizeof(struct kvm_clock_data) + 8);
        end(&b);
        expect_refused(&b,
                       "saved state: record clock 4294967295: at most 1 of this kind are allowed");
}

static void a_short_record_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        record(&b, RECORD_REGS, 3, 1, 136);
        end(&b);
        expect_refused(&b, "saved state: record regs of vCPU 3 is too short: 136 bytes, not 144");
        begin(&b);
        header(&b, RECORD_REGS, 3, 1, 144);
        for (int i = 0; i < 25; i++)
                put(&b, "\0\0\0", 4);
        expect_refused(&b, "saved state: record regs of vCPU 3 is cut short: 100 of 144 bytes");
        begin(&b);
        record(&b, RECORD_VM, 0, 1, 13);
        b.len -= 2;
        expect_refused(&b, "saved state: record vm is cut short in its padding");
}

static void a_length_that_is_not_the_kinds_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        record(&b, RECORD_REGS, 0, 1, 152);
        end(&b);
        expect_refused(&b, "saved state: record regs of vCPU 0 has a length of 152 bytes, not 144 "
                           "to 144");
        begin(&b);
        record(&b, RECORD_MSRS, 0, 1, 24);
        end(&b);
        expect_refused(&b, "saved state: record msrs of vCPU 0 has 24 bytes, not a multiple of 16");
        begin(&b);
        header(&b, RECORD_XSAVE, 0, 1, UINT32_MAX);
        end(&b);
        expect_refused(&b, "saved state: record xsave of vCPU 0 has a length of 4294967295 bytes, "
                           "not 4096 to 1048576");
}

static void a_repeated_record_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        record(&b, RECORD_REGS, 7, 1, 144);
        record(&b, RECORD_REGS, 8, 1, 144);
        record(&b, RECORD_DEV_PM, 0, 1, 8);
        record(&b, RECORD_REGS, 7, 1, 144);
        end(&b);
        expect_refused(&b, "saved state: record regs of vCPU 7 is there twice");
}

static void a_newer_version_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        record(&b, RECORD_DEV_SERIAL, 0, 2, 32);
        end(&b);
        expect_refused(&b, "saved state: record serial has version 2, newer than 1, the newest "
                           "known");
        begin(&b);
        record(&b, RECORD_DEV_SERIAL, 0, 0, 32);
        end(&b);
        expect_refused(&b, "saved state: record serial has version 0, which does not exist");
}

static void an_end_is_required_and_is_the_end(void **state)
{
        struct bytes b;

        begin(&b);
        expect_refused(&b, "saved state ends after 0 records, without the record end");
        begin(&b);
        record(&b, RECORD_DEV_PM, 0, 1, 8);
        put(&b, "12345678", 8);
        expect_refused(&b, "saved state ends after 1 records, without the record end");
        begin(&b);
        end(&b);
        put(&b, "garbage", 7);
        expect_refused(&b, "saved state: 7 bytes follow the record end");
        begin(&b);
        header(&b, RECORD_END, 0, 1, 8);
        expect_refused(&b, "saved state: record end is malformed");
        begin(&b);
        b.data[7] = '2';
        end(&b);
        expect_refused(&b, "saved state does not begin with the magic \"RAMETST1\"");
        begin(&b);
        b.len = 0;
        expect_refused(&b, "saved state does not begin with the magic \"RAMETST1\"");
}

/* A writer that forgets to pad puts the next header where the padding should be. */
static void a_misaligned_record_is_refused(void **state)
{
        struct bytes b;

        begin(&b);
        header(&b, RECORD_VM, 0, 1, 12);
        put(&b, "0123456789ab", 12);
        record(&b, RECORD_DEV_PM, 0, 1, 8);
        end(&b);
        expect_refused(&b, "saved state: record vm has padding that is not zero");
}

/* The bytes may lie anywhere; what is handed out is aligned. */
static void a_misaligned_buffer_is_fine(void **state)
{
        struct record_reader r;
        struct err err;
        struct bytes b;
        uint8_t *odd;

        begin(&b);
        record(&b, RECORD_DEV_PM, 0, 1, 8);
        end(&b);
        odd = malloc(b.len + 1);
        memcpy(odd + 1, b.data, b.len);
        assert_int_equal(record_reader_init(&r, odd + 1, b.len, record_rules, &err), 0);
        free(odd);
        assert_int_equal((uintptr_t)record_find(&r, RECORD_DEV_PM, 0)->data % 8, 0);
        assert_int_equal(*(const uint8_t *)record_find(&r, RECORD_DEV_PM, 0)->data, 0xa5);
        record_reader_fini(&r);
        free(b.data);
}

static void a_file_that_is_too_large_is_refused(void **state)
{
        struct record_reader r;
        struct err err;
        int p[2], fd = memfd_create("test", MFD_CLOEXEC);

        assert_int_equal(ftruncate(fd, (off_t)RECORD_STATE_MAX + 1), 0);
        assert_int_equal(record_reader_init_fd(&r, fd, record_rules, &err), -EINVAL);
        assert_string_equal(err.text, "saved state has 67108865 bytes, more than the 67108864 "
                                      "allowed");
        close(fd);
        assert_int_equal(pipe(p), 0);
        assert_int_equal(record_reader_init_fd(&r, p[0], record_rules, &err), -EINVAL);
        assert_string_equal(err.text, "saved state is not in a file or memfd");
        close(p[0]);
        close(p[1]);
        assert_int_equal(record_reader_init_fd(&r, -1, record_rules, &err), -EBADF);
}

/* As many records as fit, all different but the last: a search for repetitions that compares each
 * with each would take hours. */
static void hostile_input_is_checked_in_linear_time(void **state)
{
        static const struct record_rule rules[] = {
                {0x700, "tiny", 1, 0, 8, 1, 4000000},
                {.kind = RECORD_END},
        };
        const uint32_t n = 2000000;
        struct record_reader r;
        struct err err;
        struct bytes b;
        clock_t start = clock();

        begin(&b);
        for (uint32_t i = 0; i < n; i++)
                header(&b, 0x700, n - 1 - i, 1, 0);
        header(&b, 0x700, 0, 1, 0);
        end(&b);
        assert_int_equal(record_reader_init(&r, b.data, b.len, rules, &err), -EINVAL);
        assert_string_equal(err.text, "saved state: record tiny 0 is there twice");
        b.len -= 32;
        end(&b);
        assert_int_equal(record_reader_init(&r, b.data, b.len, rules, &err), 0);
        assert_int_equal(record_find(&r, 0x700, 1234567)->instance, 1234567);
        record_reader_fini(&r);
        free(b.data);
        assert_true((clock() - start) / CLOCKS_PER_SEC < 20);
}

/* ---- mutations ---- */

static uint64_t rng = 0x9e3779b97f4a7c15;

static uint32_t rnd(uint32_t below)
{
        rng ^= rng << 13;
        rng ^= rng >> 7;
        rng ^= rng << 17;
        return (uint32_t)(rng >> 32) % below;
}

static void mutate(struct bytes *b)
{
        switch (rnd(5)) {
        case 0:
                b->data[rnd((uint32_t)b->len)] ^= (uint8_t)(1u << rnd(8));
                break;
        case 1:
                b->data[rnd((uint32_t)b->len)] = (uint8_t)rnd(256);
                break;
        case 2: /* a whole word, where lengths and kinds stand */
                memset(b->data + (rnd((uint32_t)b->len) & ~3u), rnd(2) ? 0xff : 0, 4);
                break;
        case 3:
                b->len = rnd((uint32_t)b->len) + 1;
                break;
        default: { /* one part over another */
                uint32_t len = rnd((uint32_t)b->len / 2 + 1),
                         from = rnd((uint32_t)b->len - len + 1),
                         to = rnd((uint32_t)b->len - len + 1);

                memmove(b->data + (to & ~7u), b->data + (from & ~7u), len);
                break;
        }
        }
}

/* Whatever is accepted keeps to the rules. */
static void check_accepted(const struct record_reader *r)
{
        for (size_t i = 0; i < r->nrecords; i++) {
                const struct record *rec = &r->records[i];
                const struct record_rule *rule = record_rules;
                uint8_t sum = 0;

                while (rule->kind != rec->kind)
                        rule++;
                assert_true(rec->instance < rule->instances);
                assert_in_range(rec->length, rule->min_length, rule->max_length);
                assert_ptr_equal(record_find(r, rec->kind, rec->instance), rec);
                for (uint32_t j = 0; j < rec->length; j++)
                        sum ^= ((const uint8_t *)rec->data)[j];
                (void)sum;
        }
}

static void mutations_are_refused_or_keep_to_the_rules(void **state)
{
        struct record_reader r;
        struct err err = {0};
        struct bytes b, m = {0};
        unsigned accepted = 0;

        begin(&b);
        record(&b, RECORD_VM, 0, 1, 13);
        record(&b, RECORD_LAYOUT, 0, 1, 64);
        for (uint32_t i = 0; i < 3; i++)
                record(&b, RECORD_REGS, i, 1, 144);
        record(&b, RECORD_MSRS, 0, 1, 32);
        record(&b, RECORD_DEV_SERIAL, 0, 1, 32);
        record(&b, RECORD_DEV_PM, 0, 1, 8);
        end(&b);
        for (int i = 0; i < 200000; i++) {
                int ret;

                m.len = 0;
                put(&m, b.data, b.len);
                for (uint32_t n = 1 + rnd(3); n > 0; n--)
                        mutate(&m);
                err.text[0] = 0;
                ret = record_reader_init(&r, m.data, m.len, record_rules, &err);
                if (ret == 0) {
                        accepted++;
                        check_accepted(&r);
                } else {
                        assert_int_equal(ret, -EINVAL);
                        assert_memory_equal(err.text, "saved state", 11);
                }
                record_reader_fini(&r);
        }
        assert_true(accepted > 1000); /* payload bytes are nobody's business here */
        free(b.data);
        free(m.data);
}

/* ---- golden files ---- */

static const struct {
        uint32_t kind;
        uint32_t instance;
        size_t length;
} golden[] = {
        {RECORD_VM, 0, 64},
        {RECORD_LAYOUT, 0, 3 * 32},
        {RECORD_CPUID, 0, 2 * sizeof(struct kvm_cpuid_entry2)},
        {RECORD_FILES, 0, 3 * 16},
        {RECORD_CLOCK, 0, sizeof(struct kvm_clock_data) + 8},
        {RECORD_IRQCHIP, 2, sizeof(struct kvm_irqchip)},
        {RECORD_PIT, 0, sizeof(struct kvm_pit_state2)},
        {RECORD_REGS, 3, sizeof(struct kvm_regs)},
        {RECORD_SREGS, 3, sizeof(struct kvm_sregs)},
        {RECORD_SREGS2, 3, sizeof(struct kvm_sregs2)},
        {RECORD_XSAVE, 3, sizeof(struct kvm_xsave)},
        {RECORD_XCRS, 3, sizeof(struct kvm_xcrs)},
        {RECORD_MSRS, 3, 2 * sizeof(struct kvm_msr_entry)},
        {RECORD_LAPIC, 3, sizeof(struct kvm_lapic_state)},
        {RECORD_EVENTS, 3, sizeof(struct kvm_vcpu_events)},
        {RECORD_MP_STATE, 3, sizeof(struct kvm_mp_state)},
        {RECORD_DEBUGREGS, 3, sizeof(struct kvm_debugregs)},
        {RECORD_TSC, 3, 16},
};

static const struct record_rule *rule_of(uint32_t kind)
{
        const struct record_rule *rule = record_rules;

        while (rule->kind != kind && rule->kind != RECORD_END)
                rule++;
        assert_int_equal(rule->kind, kind);
        return rule;
}

/* The machine's own kinds; those of devices are in the devices' tests. */
static void each_kind_is_encoded_as_it_was(void **state)
{
        for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
                uint8_t *payload = malloc(golden[i].length);

                for (size_t j = 0; j < golden[i].length; j++)
                        payload[j] = (uint8_t)(golden[i].kind + j * 7 + (j >> 8));
                golden_check(rule_of(golden[i].kind)->name, golden[i].kind, golden[i].instance, 1,
                             payload, golden[i].length);
                free(payload);
        }
}

static void each_kind_has_a_golden_file_that_decodes(void **state)
{
        for (const struct record_rule *rule = record_rules; rule->kind != RECORD_END; rule++) {
                struct record_reader r;
                struct err err;
                int fd = golden_open(rule->name, O_RDONLY);

                assert_int_equal(record_reader_init_fd(&r, fd, record_rules, &err), 0);
                assert_int_equal(r.nrecords, 1);
                assert_int_equal(r.records[0].kind, rule->kind);
                record_reader_fini(&r);
                close(fd);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_written_is_read_back),
                cmocka_unit_test(the_result_is_sealed),
                cmocka_unit_test(the_first_failure_of_a_writer_sticks),
                cmocka_unit_test(get_names_what_is_missing),
                cmocka_unit_test(an_unknown_kind_is_refused),
                cmocka_unit_test(an_instance_beyond_the_last_is_refused),
                cmocka_unit_test(a_short_record_is_refused),
                cmocka_unit_test(a_length_that_is_not_the_kinds_is_refused),
                cmocka_unit_test(a_repeated_record_is_refused),
                cmocka_unit_test(a_newer_version_is_refused),
                cmocka_unit_test(an_end_is_required_and_is_the_end),
                cmocka_unit_test(a_misaligned_record_is_refused),
                cmocka_unit_test(a_misaligned_buffer_is_fine),
                cmocka_unit_test(a_file_that_is_too_large_is_refused),
                cmocka_unit_test(hostile_input_is_checked_in_linear_time),
                cmocka_unit_test(mutations_are_refused_or_keep_to_the_rules),
                cmocka_unit_test(each_kind_is_encoded_as_it_was),
                cmocka_unit_test(each_kind_has_a_golden_file_that_decodes),
        };

        return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
