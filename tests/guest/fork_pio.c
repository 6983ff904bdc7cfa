// SPDX-License-Identifier: Apache-2.0
/*
 * Proves the doorbell by I/O port at CPL 0: the parent reads 0, each clone its number, all read N.
 * With rings=K the machine asks K times, and so does each clone after its own: a tree.
 *
 *      rings=K  how often (1)
 *      wait=MS  halt for so long before each ring (0)
 *      spin=MS  run in CPL 3 for so long before each ring (0)
 *
 *      fork_pio: ring=1 result=3 count=4       result=not-armed, result=failed: as the ABI has it
 *
 * Ends by the debug-exit port with the last number it got, 0x7f if it never got one.
 */
#include "rt/rt.h"

#define NO_NUMBER 0x7f

static uint64_t spin(void *arg)
{
        const struct cpu *cpu = arg;
        uint64_t end = cpu->timer + cmd_u64("spin", 0);

        while (cpu->timer < end)
                cpu_relax();
        return 0;
}

void guest_main(void)
{
        unsigned rings = (unsigned)cmd_u64("rings", 1), value = NO_NUMBER;

        for (unsigned ring = 1; ring <= rings; ring++) {
                uint32_t result, count;

                sleep_ms((unsigned)cmd_u64("wait", 0));
                if (cmd_u64("spin", 0)) {
                        timer_periodic(1);
                        run_user(spin, this_cpu());
                }
                outl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RING, 1);
                result = inl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RESULT);
                count = inl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_COUNT);
                if (result < RAMET_DOORBELL_ERROR) {
                        printf("fork_pio: ring=%u result=%u count=%u\n", ring, result, count);
                        value = result;
                } else {
                        printf("fork_pio: ring=%u result=%s count=%u\n", ring,
                               result == RAMET_DOORBELL_NOT_ARMED ? "not-armed" : "failed", count);
                }
        }
        guest_exit(value);
}
