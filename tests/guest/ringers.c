// SPDX-License-Identifier: Apache-2.0
/*
 * Rings the doorbell from all processors at once, rings=N (1000) times from each: every ring must
 * come back, whatever the machine is doing with the ring of another processor meanwhile.
 *
 *      ringers: ok cpus=2 rings=1000
 */
#include "rt/rt.h"

static unsigned done;

static void work(unsigned cpu)
{
        for (unsigned n = (unsigned)cmd_u64("rings", 1000); n > 0; n--)
                outl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RING, 1);
        __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
}

void guest_main(void)
{
        smp_run(work);
        while (__atomic_load_n(&done, __ATOMIC_SEQ_CST) < cpu_count())
                sleep_ms(1);
        printf("ringers: ok cpus=%u rings=%u\n", cpu_count(), (unsigned)cmd_u64("rings", 1000));
        guest_exit(0);
}
