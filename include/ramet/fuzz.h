/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot fuzzing of what runs in a machine: the guest boots once to the point before its input is
 * looked at; each input is written into its memory, it runs until it is done, and it is reset.
 *
 * The guest is an ELF file with symbols. It has a buffer, and a number that takes the input's
 * length; it rings its doorbell when it is ready for the input, and again when it is done with it.
 * Anything else that happens after the input (a triple fault, an exit with a status that is not 0,
 * an access to nothing, a limit) is a crash or a time-out.
 *
 *      int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)    with libFuzzer
 *      {
 *              if (ramet_fuzz_one(fuzz, data, size, NULL) == RAMET_FUZZ_CRASH)
 *                      ramet_fuzz_abort(fuzz);
 *              return 0;
 *      }
 *
 *      while (__AFL_LOOP(UINT_MAX))                                    with AFL++
 *              if (ramet_fuzz_one(fuzz, __AFL_FUZZ_TESTCASE_BUF, __AFL_FUZZ_TESTCASE_LEN, NULL) ==
 *                  RAMET_FUZZ_CRASH)
 *                      ramet_fuzz_abort(fuzz);
 *
 * Coverage: the guest counts in an array of bytes, one for each of its edges (a compiler's
 * -fsanitize-coverage=trace-pc or inline-8bit-counters, or by hand); it is added to counters of the
 * fuzzer's after each input: to an array in libFuzzer's section __libfuzzer_extra_counters, or
 * __afl_area_ptr.
 */
#ifndef RAMET_FUZZ_H
#define RAMET_FUZZ_H

#include <ramet/harness.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ramet_fuzz; /* one thread at a time; several in a program */

struct ramet_fuzz_options {
        size_t size;              /* sizeof this struct */
        struct ramet_guest guest; /* .ready_console NULL: it rings */
        const char *input;        /* symbol of the buffer; its size is the most that is given */
        const char *input_length; /* symbol of a number of 4 or 8 bytes; NULL: none */
        uint64_t input_max;       /* if less than the buffer; 0: all of it */
        const char *coverage;     /* symbol of the guest's counters; NULL: none */
        uint8_t *counters;        /* the fuzzer's; the shorter of the two counts. NULL: none */
        size_t ncounters;
        struct ramet_limits limits; /* for each input; run_ns 0: 1 s */
};

enum ramet_fuzz_outcome {
        RAMET_FUZZ_OK = 0,
        RAMET_FUZZ_CRASH = 1,
        RAMET_FUZZ_TIMEOUT = 2, /* a limit was reached */
};

struct ramet_fuzz_result {
        size_t size; /* sizeof this struct, set by the caller */
        enum ramet_exit reason;
        int status;
        uint64_t run_ns, reset_ns;
        uint64_t dirty_bytes; /* of memory that it wrote to */
};

/* Boot the guest and make the clone that runs the inputs. Errors as ramet_boot_guest(); -ENOENT: no
 * such symbol. */
RAMET_API int ramet_fuzz_create(struct ramet_ctx *ctx, const struct ramet_fuzz_options *options,
                                struct ramet_fuzz **fuzz);
RAMET_API void ramet_fuzz_destroy(struct ramet_fuzz *fuzz); /* NULL is fine */
/* Run one input; what is longer than the buffer is cut off. An enum ramet_fuzz_outcome, or -errno.
 * @result may be NULL. */
RAMET_API int ramet_fuzz_one(struct ramet_fuzz *fuzz, const uint8_t *data, size_t len,
                             struct ramet_fuzz_result *result);
/* The machine, as the last input left it until the next one. */
RAMET_API struct ramet_vm *ramet_fuzz_vm(struct ramet_fuzz *fuzz);
/* What the last input did, when it crashed: as ramet_crash_report(). */
RAMET_API int ramet_fuzz_report(struct ramet_fuzz *fuzz, char *buf, size_t size);
/* Print that on standard error, and abort(3): how a fuzzer is told of a crash. */
RAMET_API void ramet_fuzz_abort(struct ramet_fuzz *fuzz) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
