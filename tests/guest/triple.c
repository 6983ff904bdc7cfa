// SPDX-License-Identifier: Apache-2.0
/* Says "triple: now" and ends in a triple fault: no IDT, then an invalid instruction. */
#include "rt/rt.h"

void guest_main(void)
{
        static const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) none = {0, 0};

        printf("triple: now\n");
        asm volatile("lidt %0; ud2" : : "m"(none));
}
