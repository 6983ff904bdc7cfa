/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Golden files of saved state: tests/unit/golden/<kind>.bin is a whole state with one record of
 * that kind, byte for byte as it was when the format was fixed. A test makes the same record anew
 * and compares. RAMET_GOLDEN_UPDATE=1 writes the files instead; do that only for a change of format
 * that is meant, together with a new version of the record. Include after cmocka.h.
 */
#ifndef RAMET_TESTS_GOLDEN_H
#define RAMET_TESTS_GOLDEN_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/record.h"

static inline size_t golden_slurp(int fd, uint8_t **data)
{
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        *data = malloc((size_t)st.st_size + 1);
        assert_non_null(*data);
        assert_int_equal(pread(fd, *data, (size_t)st.st_size, 0), st.st_size);
        return (size_t)st.st_size;
}

static inline int golden_open(const char *name, int flags)
{
        const char *dir = getenv("GOLDEN_DIR");
        char path[512];
        int fd;

        snprintf(path, sizeof path, "%s/%s.bin", dir ? dir : "tests/unit/golden", name);
        fd = open(path, flags | O_CLOEXEC, 0644);
        if (fd < 0)
                print_error("%s: %s\n", path, strerror(errno));
        assert_true(fd >= 0);
        return fd;
}

/* Encode the payload as a state of one record; the file is to be equal, and to decode to the same.
 */
static inline void golden_check(const char *name, uint32_t kind, uint32_t instance,
                                uint32_t version, const void *payload, size_t length)
{
        struct record_writer w;
        struct record_reader r;
        const struct record *rec;
        struct err err = {0};
        uint8_t *made, *kept;
        size_t made_len, kept_len;
        int fd;

        record_writer_init(&w);
        record_add(&w, kind, instance, version, payload, length);
        assert_int_equal(record_finish(&w, &fd, &err), 0);
        made_len = golden_slurp(fd, &made);
        close(fd);
        if (getenv("RAMET_GOLDEN_UPDATE")) {
                fd = golden_open(name, O_WRONLY | O_CREAT | O_TRUNC);
                assert_int_equal(write(fd, made, made_len), (ssize_t)made_len);
                close(fd);
        }

        fd = golden_open(name, O_RDONLY);
        kept_len = golden_slurp(fd, &kept);
        assert_int_equal(made_len, kept_len);
        assert_memory_equal(made, kept, kept_len);
        if (record_reader_init_fd(&r, fd, record_rules, &err))
                fail_msg("%s", err.text);
        assert_int_equal(r.nrecords, 1);
        rec = record_find(&r, kind, instance);
        assert_non_null(rec);
        assert_int_equal(rec->version, version);
        assert_int_equal(rec->length, length);
        assert_memory_equal(rec->data, payload, length);
        record_reader_fini(&r);
        close(fd);
        free(made);
        free(kept);
}

#endif
