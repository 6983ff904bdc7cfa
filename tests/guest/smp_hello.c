// SPDX-License-Identifier: Apache-2.0
/*
 * Proves that all processors of the MADT start, by INIT and SIPI, and run in CPL 3 at the same
 * time. Each says so, in any order; when all have, the machine powers off.
 *
 *      smp_hello: cpu=1 apic=1
 *      smp_hello: 2 cpus ok
 */
#include "rt/rt.h"

static struct barrier barrier;

static uint64_t hello(void *arg)
{
        const struct cpu *cpu = arg;

        printf("smp_hello: cpu=%u apic=%u\n", cpu->id, cpu->apic_id);
        barrier_wait(&barrier, cpu_count());
        return 0;
}

static void work(unsigned cpu)
{
        run_user(hello, this_cpu());
}

void guest_main(void)
{
        smp_run(work);
        printf("smp_hello: %u cpus ok\n", cpu_count());
}
