// SPDX-License-Identifier: Apache-2.0
/*
 * The other processors. They are listed in the MADT (ACPI 6.5, 5.2.12: local APIC entries, flag
 * "enabled") and started one after another by INIT and SIPI through the local APIC (SDM vol. 3,
 * 9.4), since all come through the same trampoline and the same boot_rsp.
 */
#include "rt/rt.h"

#define LAPIC_ICR_LOW  0x300
#define LAPIC_ICR_HIGH 0x310
#define ICR_INIT       0x4500u
#define ICR_STARTUP    0x4600u
#define START_MS       5000

extern const uint8_t ap_start[], ap_end[];
extern uint64_t boot_rsp;
extern void (*boot_entry)(void);

static void (*ap_fn)(unsigned cpu);
static unsigned apic_ids[RT_MAX_CPUS]; /* [0] is the first processor */
static unsigned cpus;

static void from_madt(const uint8_t *madt)
{
        const uint8_t *end = madt + *(const uint32_t *)(madt + 4);

        for (const uint8_t *e = madt + 44; e + 2 <= end && e[1] >= 2; e += e[1]) {
                if (e[0] != 0 || !(e[4] & 1) || e[3] == this_cpu()->apic_id)
                        continue;
                if (cpus < RT_MAX_CPUS)
                        apic_ids[cpus++] = e[3];
        }
}

unsigned cpu_count(void)
{
        const uint8_t *madt = acpi_find("APIC");
        unsigned wanted = (unsigned)cmd_u64("cpus", 1);

        if (cpus)
                return cpus;
        apic_ids[cpus++] = this_cpu()->apic_id;
        if (madt)
                from_madt(madt);
        else
                for (; cpus < wanted && cpus < RT_MAX_CPUS; cpus++)
                        apic_ids[cpus] = cpus;
        return cpus;
}

static void ap_main(void)
{
        cpu_init();
        ap_fn(this_cpu()->id);
        halt();
}

static void start(unsigned id)
{
        struct cpu *cpu = (struct cpu *)cpu_stacks[id];

        boot_rsp = (uint64_t)(cpu_stacks[id] + RT_STACK_SIZE);
        lapic_write(LAPIC_ICR_HIGH, apic_ids[id] << 24);
        lapic_write(LAPIC_ICR_LOW, ICR_INIT);
        sleep_ms(1);
        lapic_write(LAPIC_ICR_HIGH, apic_ids[id] << 24);
        lapic_write(LAPIC_ICR_LOW, ICR_STARTUP | RT_TRAMPOLINE >> 12);
        for (int ms = 0; !cpu->online; ms++) {
                if (ms == START_MS) {
                        printf("guest: cpu %u (apic %u) did not start\n", id, apic_ids[id]);
                        guest_exit(0x7d);
                }
                sleep_ms(1);
        }
}

void smp_run(void (*fn)(unsigned cpu))
{
        unsigned n = cpu_count();

        ap_fn = fn;
        boot_entry = ap_main;
        __builtin_memcpy((void *)RT_TRAMPOLINE, ap_start, (size_t)(ap_end - ap_start));
        for (unsigned id = 1; id < n; id++)
                start(id);
        fn(0);
}
