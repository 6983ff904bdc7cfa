/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the guest `servant` and the tests of the library agree on. Each processor has a mailbox. It
 * rings the doorbell with the number of its rounds so far, notes what it reads there, does what the
 * host has left in its mailbox meanwhile, and again.
 */
#ifndef SERVANT_H
#define SERVANT_H

#include <stdint.h>

#define SERVANT_CPUS 4
#define SERVANT_MAIL                                                                               \
        0x3f0000ull              /* guest-physical, and linear: SERVANT_CPUS of them, a page each  \
                                  */
#define SERVANT_AREA 0x400000ull /* for SERVANT_FILL */

enum servant_order {
        SERVANT_NOTHING = 0,
        SERVANT_FILL,  /* write `value` to the first word of `number` pages from `address` on */
        SERVANT_PRINT, /* print `text` */
        SERVANT_EXIT,  /* debug exit with `value` */
        SERVANT_POWEROFF,
        SERVANT_TRIPLE,   /* a triple fault */
        SERVANT_SPIN,     /* count in `spins`, in user mode, until `stop` is not 0 */
        SERVANT_HALT,     /* halt for ever, interrupts off */
        SERVANT_OUT,      /* write `value`, of `number` bytes, to port `address` */
        SERVANT_IN,       /* read `number` bytes from port `address` into `value` */
        SERVANT_STORE,    /* write `value`, of `number` bytes, to `address` */
        SERVANT_LOAD,     /* read `number` bytes at `address` into `value` */
        SERVANT_WAIT_IRQ, /* interrupts on, until vector `value` has come once more */
        SERVANT_ECHO,     /* print what is typed, up to a newline */
};

struct servant_mail {
        uint32_t order;         /* from the host; 0 again when it was done */
        uint32_t rounds;        /* from the guest: of this processor */
        uint32_t result, count; /* that it read at the doorbell after its last ring */
        uint64_t value, address, number;
        volatile uint64_t spins, stop;
        char text[256];
};

#endif
