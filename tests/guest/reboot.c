// SPDX-License-Identifier: Apache-2.0
/*
 * Asks for a reset: how=i8042 (the default: command 0xfe to port 0x64) or how=acpi (RESET_REG and
 * RESET_VALUE of the FADT, ACPI 6.5, 5.2.9). Says "reboot: now" before, "reboot: still here" after.
 */
#include "rt/rt.h"

#define FADT_RESET_REG   116 /* a generic address: space 1 is I/O ports; address 4 bytes in */
#define FADT_RESET_VALUE 128

static void acpi_reset(void)
{
        const uint8_t *fadt = acpi_find("FACP");

        if (!fadt || fadt[FADT_RESET_REG] != 1) {
                printf("reboot: the FADT has no reset port\n");
                guest_exit(1);
        }
        outb(*(const uint16_t *)(fadt + FADT_RESET_REG + 4), fadt[FADT_RESET_VALUE]);
}

void guest_main(void)
{
        printf("reboot: now\n");
        if (cmd_is("how", "acpi"))
                acpi_reset();
        else
                outb(LAYOUT_PORT_I8042 + 4, 0xfe);
        sleep_ms(1000);
        printf("reboot: still here\n");
        guest_exit(1);
}
