/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest to be fuzzed: it rings its doorbell when it is ready for an input, parses what is then in
 * `input`, and rings with the result. It does so in user mode, which is native on every host, and
 * rings by the doorbell's MMIO page, so nothing of it runs at CPL 0.
 *
 * `coverage` counts how often the parser came past each of its branches.
 */
#include "parser/parser.h"
#include "rt/rt.h"

#define PAGE 4096

/* Page-aligned, so that an input touches as few pages as can be. */
_Alignas(PAGE) uint8_t coverage[PAGE];
_Alignas(PAGE) uint8_t input[2048];
uint32_t input_length;

void __sanitizer_cov_trace_pc(void);

/* The compiler calls it where a branch begins. The parser is smaller than a page, so the last bits
 * of an address in it say where. */
void __sanitizer_cov_trace_pc(void)
{
        coverage[(uintptr_t)__builtin_return_address(0) % sizeof coverage]++;
}

static void ring(uint32_t value)
{
        mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, value);
}

static uint64_t serve(void *unused)
{
        uint32_t result = 0;

        for (;;) {
                ring(result);
                result = parse_packet(input, input_length);
        }
        return 0;
}

void guest_main(void)
{
        run_user(serve, NULL);
}
