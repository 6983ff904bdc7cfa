/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest of fuzz_parser.c under libFuzzer, which mutates and keeps inputs by itself:
 *
 *      clang -fsanitize=fuzzer fuzz_libfuzzer.c $(pkg-config --cflags --libs ramet)
 *      GUEST=guest/parser.elf ./a.out -max_total_time=60 CORPUS
 *
 * The guest's counters are added to an array in a section that libFuzzer looks at, and clears
 * before each input. A crash of the guest is one of this program: the report, then abort().
 */
#include <ramet/fuzz.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[4096];

static struct ramet_fuzz *fuzz;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
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
                                             .counters = counters,
                                             .ncounters = sizeof counters};
        struct ramet_ctx *ctx;

        if (ramet_ctx_create(&ctx) == 0 && ramet_fuzz_create(ctx, &options, &fuzz) == 0)
                return 0;
        fprintf(stderr, "fuzz_libfuzzer: %s\n", ramet_last_error(NULL));
        exit(1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (ramet_fuzz_one(fuzz, data, size, NULL) == RAMET_FUZZ_CRASH)
                ramet_fuzz_abort(fuzz);
        return 0;
}
