// SPDX-License-Identifier: Apache-2.0
/*
 * Proves that a clone has a new VM generation ID, and is told of it before its vCPU runs on: GSI 10
 * must have been taken when the instruction after the one that rings is executed. Powers off.
 *
 *      vmgenid: result=1 before=<32 hex digits> genid=<32> irq=1 later=1
 *
 * irq counts interrupts at that instruction, later counts them 20 ms on. Parent: irq=0, same ID.
 */
#include "rt/rt.h"

#define VEC_GENID VEC_FIRST

static volatile uint32_t interrupts;

static void on_interrupt(void)
{
        interrupts++;
}

static void print_id(const char *name, const uint8_t id[16])
{
        printf(" %s=", name);
        for (int i = 0; i < 16; i++)
                printf("%02x", id[i]);
}

void guest_main(void)
{
        uint8_t before[16], after[16];
        uint32_t at_ring;

        irq_handlers[VEC_GENID] = on_interrupt;
        ioapic_route(LAYOUT_GSI_VMGENID, VEC_GENID);
        __builtin_memcpy(before, (const void *)LAYOUT_VMGENID, 16);

        asm volatile("sti; nop; outl %%eax, %%dx; movl %1, %0; cli"
                     : "=&r"(at_ring)
                     : "m"(interrupts), "a"(1), "d"(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RING)
                     : "memory");
        __builtin_memcpy(after, (const void *)LAYOUT_VMGENID, 16);
        sleep_ms(20);

        printf("vmgenid: result=%d", (int)inl(RAMET_DOORBELL_PORT + RAMET_DOORBELL_RESULT));
        print_id("before", before);
        print_id("genid", after);
        printf(" irq=%u later=%u\n", at_ring, interrupts);
}
