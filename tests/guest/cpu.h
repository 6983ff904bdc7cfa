/* SPDX-License-Identifier: Apache-2.0 */
/* What cpu.elf and the test that drives it say to each other: see cpu.c. */
#ifndef RAMET_TESTS_CPU_H
#define RAMET_TESTS_CPU_H

#include <stdint.h>

#define CPU_CONTROL 0x600000ull /* where the struct is, in the guest's memory */
#define CPU_READY   0xffu       /* its first ring */
#define CPU_LINE    5u          /* interrupt lines and vectors that it counts */
#define CPU_MSI     34u
#define CPU_NOBODY  0x5000u /* a port where nothing is */
#define CPU_SPOT    6u      /* one-byte instructions at a spot, the last of which returns */

enum cpu_command {
        CPU_KERNEL = 1, /* call spot_kernel at CPL 0 */
        CPU_USER,       /* spot_user at CPL 3 */
        CPU_OTHER,      /* spot_other on processor 1, at CPL 0 */
        CPU_REP,        /* spot_rep: its first instruction stores 8 bytes, one by one */
        CPU_PORT,       /* spot_port: after 5 bytes, a write to port CPU_NOBODY in one byte */
        CPU_ACCESS,     /* one access, as `port` ... say */
        CPU_WAIT,       /* count interrupts until `stop` */
        CPU_SPIN,       /* at CPL 3, for ever */
        CPU_OUT,        /* `value` exits: writes to port 0x80 */
        CPU_DIRTY,      /* write to `value` pages, at CPL 3 */
        CPU_LOOP,       /* count `value` down at CPL 3, one-byte instructions and a jump */
        CPU_END,
};

struct cpu_control {
        uint64_t command;
        uint64_t spot_kernel, spot_user, spot_other, spot_rep, spot_port;
        uint64_t port;    /* of an access: 1: a port, 0: memory */
        uint64_t address; /* where */
        uint64_t length;  /* 1, 2, 4 or 8 */
        uint64_t write;
        uint64_t value; /* to write; what was read */
        uint64_t stop, other;
        uint64_t irqs, nmis, msis, traps; /* so far; traps: #DB */
        uint64_t counter;                 /* of CPU_SPIN and CPU_LOOP */
};

#endif
