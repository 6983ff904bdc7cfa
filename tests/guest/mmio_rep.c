// SPDX-License-Identifier: Apache-2.0
/*
 * One string instruction that reads MMIO 512 times, again and again: KVM goes from one read to the
 * next without finishing the instruction. For a machine that is stopped in the middle of it.
 *
 *      mmio_rep: begins
 *      mmio_rep: ok        after rounds=N (100) times
 */
#include "rt/rt.h"

#define READS 512

void guest_main(void)
{
        static uint8_t to[READS];

        printf("mmio_rep: begins\n");
        for (unsigned round = (unsigned)cmd_u64("rounds", 100); round > 0; round--) {
                uint64_t from = RAMET_DOORBELL_MMIO + 0x800, n = READS;
                void *at = to;

                asm volatile("rep movsb" : "+S"(from), "+D"(at), "+c"(n) : : "memory");
                for (unsigned i = 0; i < READS; i++) {
                        if (to[i] != 0xff || n != 0)
                                printf("mmio_rep: read %u is %x\n", i, to[i]);
                        to[i] = 0;
                }
        }
        printf("mmio_rep: ok\n");
        guest_exit(0);
}
