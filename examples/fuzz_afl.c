/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of fuzz_parser.c under AFL++, in its persistent mode:
 *
 *      AFL_LLVM_INSTRUMENT=classic afl-clang-fast fuzz_afl.c $(pkg-config --cflags --libs ramet)
 *      GUEST=guest/parser.elf afl-fuzz -i INPUTS -o FOUND -- ./a.out
 *
 * The guest's counters are added to AFL++'s map. That is only as large as what the compiler has
 * instrumented here, unless it instruments in the classic way, for which it is 64 KiB. There is no
 * __AFL_INIT(): afl-fuzz forks before main(), and each child boots a guest of its own, once for
 * many thousand inputs.
 */
#include <limits.h>
#include <ramet/fuzz.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define COUNTERS 4096

/* AFL++'s map. Its compiler adds a declaration of the pointer, and cannot bear another one. */
static unsigned char *afl_map(void)
{
        unsigned char *map;

        __asm__("mov __afl_area_ptr(%%rip), %0" : "=r"(map));
        return map;
}

__AFL_FUZZ_INIT();

int main(void)
{
        struct ramet_vm_config config = {.size = sizeof config, .fixed_page_tables = true};
        struct ramet_guest guest = {.size = sizeof guest,
                                    .kernel = getenv("GUEST"),
                                    .memory_bytes = 16 << 20,
                                    .config = &config};
        struct ramet_fuzz_options options = {.size = sizeof options,
                                             .guest = &guest,
                                             .input = "input",
                                             .input_length = "input_length",
                                             .coverage = "coverage",
                                             .counters = afl_map(),
                                             .ncounters = COUNTERS};
        const unsigned char *input = __AFL_FUZZ_TESTCASE_BUF;
        struct ramet_fuzz *fuzz;
        struct ramet_ctx *ctx;

        if (ramet_ctx_create(&ctx) < 0 || ramet_fuzz_create(ctx, &options, &fuzz) < 0) {
                fprintf(stderr, "fuzz_afl: %s\n", ramet_last_error(NULL));
                return 1;
        }
        while (__AFL_LOOP(UINT_MAX))
                if (ramet_fuzz_one(fuzz, input, (size_t)__AFL_FUZZ_TESTCASE_LEN, NULL) ==
                    RAMET_FUZZ_CRASH)
                        ramet_fuzz_abort(fuzz);
        ramet_fuzz_destroy(fuzz);
        ramet_ctx_destroy(ctx);
        return 0;
}
