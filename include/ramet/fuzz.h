/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshot fuzzing of what runs in a machine: the guest boots once to the point before its input is
 * looked at; each input is written into its memory, it runs until it is done, and it is reset.
 *
 * The guest is an ELF file with symbols. It has a buffer, and a number that takes the input's
 * length; it rings its doorbell when it is ready for the input, and again when it is done with it.
 * Ending is being done, too, by powering off or isa-debug-exit with 0. Anything else is a crash: a
 * triple fault, another value, a reboot, an access to where nothing is; or a time-out.
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
 * The fuzz must be created in the process that runs the inputs: after __AFL_INIT(), if that is
 * used.
 *
 * Coverage: the guest counts in an array of bytes, one for each of its edges (a compiler's
 * -fsanitize-coverage=trace-pc or inline-8bit-counters, or by hand). What an input has counted is
 * added to counters of the fuzzer's: an array in libFuzzer's section __libfuzzer_extra_counters, or
 * __afl_area_ptr.
 *
 * Speed: a guest that works in user mode, keeps its page tables as they are (fixed_page_tables in
 * its config), and touches few pages costs little more than the kernel's calls for it.
 */
#ifndef RAMET_FUZZ_H
#define RAMET_FUZZ_H

#include <ramet/harness.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ramet_fuzz; /* one thread at a time; several in a program */

struct ramet_fuzz_options {
        size_t size;                     /* sizeof this struct */
        const struct ramet_guest *guest; /* .ready_console NULL: it rings. Read during the call */
        const char *input;        /* symbol of the buffer; its size is the most it is given */
        const char *input_length; /* symbol of a number of 4 or 8 bytes; NULL: none */
        uint64_t input_max;       /* if less than the buffer; 0: all of it */
        const char *coverage;     /* symbol of the guest's counters; NULL: none */
        uint8_t *counters; /* the fuzzer's; the shorter of the two counts. They stop at 255. NULL:
                              none */
        size_t ncounters;
        struct ramet_limits limits; /* for each input; run_ns 0: 1 s */
        bool count_dirty; /* tell dirty_bytes, which costs a fault for each page of each input */
};

enum ramet_fuzz_outcome {
        RAMET_FUZZ_OK = 0,
        RAMET_FUZZ_CRASH = 1,
        RAMET_FUZZ_TIMEOUT = 2, /* a limit was reached */
};

struct ramet_fuzz_result {
        size_t size;            /* sizeof this struct, set by the caller */
        enum ramet_exit reason; /* how it ended; 0: it did not, it rang or was stopped */
        int status;             /* of that */
        uint32_t value;         /* that it rang with */
        uint64_t run_ns;        /* the input was looked at for so long ... */
        uint64_t reset_ns;      /* ... after a reset of so long; 0: it was fresh */
        uint64_t dirty_bytes;   /* in pages that were written to, the input's too; count_dirty */
        uint64_t new_counters;  /* counters of the fuzzer's that were 0 before */
};

/* Boot the guest and make the clone that runs the inputs. Symbols are linear addresses, as vCPU 0
 * means them when the guest is ready. Errors as ramet_boot_guest(); -ENOENT: no such symbol;
 * -EFAULT: it is not in memory there. */
RAMET_API int ramet_fuzz_create(struct ramet_ctx *ctx, const struct ramet_fuzz_options *options,
                                struct ramet_fuzz **fuzz);
RAMET_API void ramet_fuzz_destroy(struct ramet_fuzz *fuzz); /* NULL is fine */
/* Run one input; what is longer than the buffer is cut off. An enum ramet_fuzz_outcome, or -errno:
 * the host's failure, not the guest's. @result may be NULL. */
RAMET_API int ramet_fuzz_one(struct ramet_fuzz *fuzz, const uint8_t *data, size_t len,
                             struct ramet_fuzz_result *result);
/* The machine, as the last input left it until the next one; the fuzz's. NULL for NULL. */
RAMET_API struct ramet_vm *ramet_fuzz_vm(struct ramet_fuzz *fuzz);
/* What became of the last input, in words, and then as ramet_crash_report(). Into @buf, lines,
 * NUL-terminated, cut off where they do not fit. 0; -ENODATA: there was no input yet; or -errno. */
RAMET_API int ramet_fuzz_report(struct ramet_fuzz *fuzz, char *buf, size_t size);
/* Print that on standard error, and abort(3): how a fuzzer is told of a crash. */
RAMET_API void ramet_fuzz_abort(struct ramet_fuzz *fuzz) __attribute__((noreturn));

#ifdef __cplusplus
}
#endif

#endif
