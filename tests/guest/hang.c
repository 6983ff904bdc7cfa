// SPDX-License-Identifier: Apache-2.0
/*
 * Says "hang: now" and never does anything more: hang=hlt halts all processors with interrupts off,
 * hang=spin (the default) keeps them all busy in CPL 3.
 */
#include "rt/rt.h"

static uint64_t spin(void *arg)
{
        for (;;)
                cpu_relax();
        return 0;
}

static void work(unsigned cpu)
{
        if (cpu == 0)
                printf("hang: now\n");
        if (cmd_is("hang", "hlt"))
                halt();
        run_user(spin, NULL);
}

void guest_main(void)
{
        smp_run(work);
}
