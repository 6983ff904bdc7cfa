/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small freestanding runtime for guests: long mode, traps, serial console, SMP, CPL 3.
 *
 * A guest defines guest_main(), which runs on the first processor at CPL 0 with interrupts off. Its
 * real work belongs in CPL 3 (run_user), which is fast on every host. Functions marked [any] work
 * at both levels; from CPL 3 they call out by ud2, because INT and SYSCALL do not work on every
 * host.
 */
#ifndef RT_RT_H
#define RT_RT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "ramet/fork_abi.h"
#include "rt/asm.h"
#include "x86/layout.h"

void guest_main(void);

/* --- what the boot protocol said (boot.c) --- */

enum boot_kind { BOOT_PVH, BOOT_MULTIBOOT, BOOT_LINUX64 };

struct boot {
        enum boot_kind kind;
        const char *cmdline; /* never NULL */
        uint64_t rsdp;       /* 0 when not told */
        uint64_t ram_end;    /* of the RAM that begins at or below 1 MiB; 0 when not told */
        uint64_t module;     /* first module or initramfs */
        uint64_t module_len; /* 0 when there is none */
        uint32_t mem_lower;  /* KiB; multiboot only */
        uint32_t mem_upper;
};

extern struct boot boot;

/* Words "name=value" of the command line, parted by blanks. */
uint64_t cmd_u64(const char *name, uint64_t fallback); /* decimal, or hexadecimal after 0x */
uint64_t cmd_hex(const char *name, uint64_t fallback);
int cmd_is(const char *name, const char *value); /* is the word "name=value" there? */

/* An ACPI table by its signature, or NULL. */
const uint8_t *acpi_find(const char signature[4]);

/* --- console (console.c) --- */

void printf(const char *fmt, ...)
        __attribute__((format(printf, 1, 2))); /* [any] %s %c %d %u %x, 0, width, l */
int getc_nowait(void);                         /* [any] -1: nothing there */
void serial_write(const char *s, size_t len);

/* --- processors (cpu.c, smp.c) --- */

struct tss {
        uint32_t reserved0;
        uint64_t rsp[3];
        uint64_t reserved1;
        uint64_t ist[7];
        uint64_t reserved2;
        uint16_t reserved3;
        uint16_t iomap;
} __attribute__((packed));

struct cpu { /* lies at the bottom of the processor's stack */
        uint64_t user_rsp0;
        struct tss tss;
        unsigned id;
        unsigned apic_id;
        volatile unsigned online;
        unsigned periodic;       /* timer_periodic() was called: sleep_ms() waits for one tick */
        volatile uint64_t timer; /* interrupts of the local APIC's timer so far */
};

struct frame { /* what a trap stub leaves on the stack */
        uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
        uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

#define VEC_TIMER    32
#define VEC_FIRST    33 /* for guests: irq_handlers[VEC_FIRST ..], and of 0 to 2, #DB and NMI */
#define VEC_SPURIOUS 63

extern void (*irq_handlers[64])(void);
extern uint8_t cpu_stacks[RT_MAX_CPUS][RT_STACK_SIZE];

static inline struct cpu *this_cpu(void) /* CPL 0 only */
{
        uint64_t rsp;

        asm volatile("mov %%rsp, %0" : "=r"(rsp));
        return (struct cpu *)(rsp & ~(uint64_t)(RT_STACK_SIZE - 1));
}

void cpu_init(void);
unsigned cpu_count(void);               /* from the MADT, else cpus=N, else 1 */
void smp_run(void (*fn)(unsigned cpu)); /* fn on all processors at CPL 0; back when CPU 0 is done */
uint64_t run_user(uint64_t (*fn)(void *), void *arg); /* fn(arg) at CPL 3 on this processor */
void sleep_ms(unsigned ms);                           /* [any] halts, so other VMs get the core */
void timer_periodic(unsigned ms);                     /* count in this_cpu()->timer from now on */
_Noreturn void guest_exit(unsigned value);            /* [any] debug-exit port; else powers off */
_Noreturn void guest_poweroff(void);                  /* [any] ACPI S5 */
_Noreturn void halt(void);

uint32_t lapic_read(unsigned reg);
void lapic_write(unsigned reg, uint32_t value);
void ioapic_route(unsigned gsi, unsigned vector); /* edge, to the first processor */

/* A barrier for CPL 3 that gives up its core when the wait is long. */
struct barrier {
        unsigned arrived;
        unsigned generation;
};

void barrier_wait(struct barrier *b, unsigned n); /* [any] */

/* --- instructions --- */

static inline int in_user(void)
{
        uint16_t cs;

        asm("mov %%cs, %0" : "=r"(cs));
        return cs & 3;
}

static inline uint64_t syscall(uint64_t nr, uint64_t a, uint64_t b)
{
        asm volatile("ud2" : "+a"(nr) : "D"(a), "S"(b) : "memory");
        return nr;
}

/* [any] fn(arg) at CPL 0, on this processor's kernel stack and with interrupts off */
static inline uint64_t call_kernel(uint64_t (*fn)(void *), void *arg)
{
        return in_user() ? syscall(SYS_CALL, (uint64_t)fn, (uint64_t)arg) : fn(arg);
}

static inline void outb(uint16_t port, uint8_t v)
{
        asm volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t v)
{
        asm volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
        uint8_t v;

        asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
        return v;
}

static inline uint32_t inl(uint16_t port)
{
        uint32_t v;

        asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
        return v;
}

static inline uint64_t rdmsr(uint32_t msr)
{
        uint32_t lo, hi;

        asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
        return (uint64_t)hi << 32 | lo;
}

static inline void wrmsr(uint32_t msr, uint64_t v)
{
        asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}

static inline void cpu_relax(void)
{
        asm volatile("pause" : : : "memory");
}

static inline uint32_t mmio_read(uint64_t gpa)
{
        return *(volatile uint32_t *)gpa;
}

static inline void mmio_write(uint64_t gpa, uint32_t v)
{
        *(volatile uint32_t *)gpa = v;
}

/* The doorbell, by its MMIO page: works in CPL 3 too. */
static inline int doorbell_present(void)
{
        return mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_MAGIC) == RAMET_DOORBELL_MAGIC_VALUE;
}

static inline uint32_t doorbell_ring(void)
{
        mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, 1);
        return mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RESULT);
}

static inline uint32_t doorbell_count(void)
{
        return mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_COUNT);
}

#endif
