// SPDX-License-Identifier: Apache-2.0
/*
 * Does what it is told, for tests of breakpoints, interrupts, accesses and limits. It rings the
 * doorbell with CPU_READY; while the ring holds it, the test writes a command into the control page
 * and lets it go on; it obeys, and rings with the command's number.
 */
#include "cpu.h"
#include "rt/rt.h"

#define CONTROL ((volatile struct cpu_control *)CPU_CONTROL)
#define PAGES   0x800000ull /* and up: pages to write */

void spot_kernel(void), spot_user(void), spot_other(void), spot_rep(void *buf, uint64_t count);
void spot_port(void);

asm(".text\n"
    "spot_kernel: nop; nop; nop; nop; nop; ret\n"
    "spot_user: nop; nop; nop; nop; nop; ret\n"
    "spot_other: nop; nop; nop; nop; nop; ret\n"
    "spot_rep: mov %rsi, %rcx; xor %eax, %eax; rep stosb; nop; ret\n"
    "spot_port: mov $0x5000, %edx; out %al, (%dx); nop; ret\n");

static void on_irq(void)
{
        CONTROL->irqs++;
}

static void on_msi(void)
{
        CONTROL->msis++;
}

static void on_nmi(void)
{
        CONTROL->nmis++;
}

static void on_trap(void)
{
        CONTROL->traps++;
}

static uint64_t user_spot(void *arg)
{
        spot_user();
        return 0;
}

_Noreturn static uint64_t user_spin(void *arg)
{
        for (;;)
                CONTROL->counter++;
}

static uint64_t user_loop(void *arg)
{
        for (uint64_t n = CONTROL->value; n > 0; n--)
                CONTROL->counter++;
        return 0;
}

static uint64_t user_dirty(void *arg)
{
        for (uint64_t i = 0; i < CONTROL->value; i++)
                *(volatile uint64_t *)(PAGES + i * 4096) = i + 1;
        return 0;
}

static uint64_t read_port(uint16_t port, uint64_t length)
{
        uint32_t v = 0;

        if (length == 1)
                asm volatile("inb %w1, %b0" : "+a"(v) : "d"(port));
        else if (length == 2)
                asm volatile("inw %w1, %w0" : "+a"(v) : "d"(port));
        else
                v = inl(port);
        return v;
}

static void write_port(uint16_t port, uint64_t length, uint64_t value)
{
        if (length == 1)
                outb(port, (uint8_t)value);
        else if (length == 2)
                asm volatile("outw %w0, %w1" : : "a"(value), "d"(port));
        else
                outl(port, (uint32_t)value);
}

static uint64_t read_memory(uint64_t a, uint64_t length)
{
        switch (length) {
        case 1:
                return *(volatile uint8_t *)a;
        case 2:
                return *(volatile uint16_t *)a;
        case 4:
                return *(volatile uint32_t *)a;
        default:
                return *(volatile uint64_t *)a;
        }
}

static void write_memory(uint64_t a, uint64_t length, uint64_t value)
{
        switch (length) {
        case 1:
                *(volatile uint8_t *)a = (uint8_t)value;
                break;
        case 2:
                *(volatile uint16_t *)a = (uint16_t)value;
                break;
        case 4:
                *(volatile uint32_t *)a = (uint32_t)value;
                break;
        default:
                *(volatile uint64_t *)a = value;
        }
}

static void access(void)
{
        if (CONTROL->port && CONTROL->write)
                write_port((uint16_t)CONTROL->address, CONTROL->length, CONTROL->value);
        else if (CONTROL->port)
                CONTROL->value = read_port((uint16_t)CONTROL->address, CONTROL->length);
        else if (CONTROL->write)
                write_memory(CONTROL->address, CONTROL->length, CONTROL->value);
        else
                CONTROL->value = read_memory(CONTROL->address, CONTROL->length);
}

static void on_other(void)
{
        CONTROL->other = 1;
        while (CONTROL->other)
                sleep_ms(1);
}

static void obey(uint64_t command)
{
        switch (command) {
        case CPU_KERNEL:
                spot_kernel();
                break;
        case CPU_USER:
                run_user(user_spot, 0);
                break;
        case CPU_OTHER:
                on_other();
                break;
        case CPU_REP:
                spot_rep((void *)PAGES, 8);
                break;
        case CPU_PORT:
                asm volatile("call spot_port" : : : "rdx", "memory");
                break;
        case CPU_ACCESS:
                access();
                break;
        case CPU_WAIT:
                while (!CONTROL->stop)
                        sleep_ms(1);
                break;
        case CPU_SPIN:
                run_user(user_spin, 0);
                break;
        case CPU_OUT:
                for (uint64_t n = CONTROL->value; n > 0; n--)
                        outb(0x80, (uint8_t)n);
                break;
        case CPU_DIRTY:
                run_user(user_dirty, 0);
                break;
        case CPU_LOOP:
                run_user(user_loop, 0);
                break;
        default:
                guest_exit((unsigned)command);
        }
}

static void serve(void)
{
        uint64_t done = CPU_READY;

        for (;;) {
                mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, (uint32_t)done);
                done = CONTROL->command;
                obey(done);
        }
}

static void work(unsigned cpu)
{
        if (cpu == 0)
                serve();
        for (;;) {
                while (!CONTROL->other)
                        sleep_ms(1);
                spot_other();
                CONTROL->other = 0;
        }
}

void guest_main(void)
{
        CONTROL->spot_kernel = (uint64_t)spot_kernel;
        CONTROL->spot_user = (uint64_t)spot_user;
        CONTROL->spot_other = (uint64_t)spot_other;
        CONTROL->spot_rep = (uint64_t)spot_rep;
        CONTROL->spot_port = (uint64_t)spot_port;
        irq_handlers[1] = on_trap;
        irq_handlers[2] = on_nmi;
        irq_handlers[VEC_FIRST] = on_irq;
        irq_handlers[CPU_MSI] = on_msi;
        ioapic_route(CPU_LINE, VEC_FIRST);
        smp_run(work);
}
