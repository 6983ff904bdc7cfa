// SPDX-License-Identifier: Apache-2.0
/*
 * Does what it is told, for tests of the library: see servant.h. Prints "servant: ready" and rings.
 * With rings=no the processors but the first never ring, and wait halted.
 */
#include "rt/rt.h"

#include "servant.h"

static volatile uint64_t taken[64]; /* interrupts, by vector */

static struct servant_mail *mail_of(unsigned cpu)
{
        return (struct servant_mail *)(SERVANT_MAIL + cpu * 4096);
}

static uint64_t spin(void *arg)
{
        struct servant_mail *m = arg;

        while (!m->stop)
                m->spins++;
        return 0;
}

static void fill(const struct servant_mail *m)
{
        for (uint64_t i = 0; i < m->number; i++)
                *(volatile uint64_t *)(m->address + i * 4096) = m->value;
}

static void access_port(struct servant_mail *m, int write)
{
        const uint16_t port = (uint16_t)m->address;
        uint32_t v = (uint32_t)m->value;

        if (write && m->number == 1)
                asm volatile("outb %b0, %1" : : "a"(v), "d"(port));
        else if (write && m->number == 2)
                asm volatile("outw %w0, %1" : : "a"(v), "d"(port));
        else if (write)
                asm volatile("outl %0, %1" : : "a"(v), "d"(port));
        else if (m->number == 1)
                asm volatile("inb %1, %b0" : "+a"(v) : "d"(port));
        else if (m->number == 2)
                asm volatile("inw %1, %w0" : "+a"(v) : "d"(port));
        else
                asm volatile("inl %1, %0" : "+a"(v) : "d"(port));
        m->value = v;
}

static void load(struct servant_mail *m)
{
        if (m->number == 1)
                m->value = *(volatile uint8_t *)m->address;
        else if (m->number == 2)
                m->value = *(volatile uint16_t *)m->address;
        else if (m->number == 4)
                m->value = *(volatile uint32_t *)m->address;
        else
                m->value = *(volatile uint64_t *)m->address;
}

static void store(const struct servant_mail *m)
{
        if (m->number == 1)
                *(volatile uint8_t *)m->address = (uint8_t)m->value;
        else if (m->number == 2)
                *(volatile uint16_t *)m->address = (uint16_t)m->value;
        else if (m->number == 4)
                *(volatile uint32_t *)m->address = (uint32_t)m->value;
        else
                *(volatile uint64_t *)m->address = m->value;
}

static void echo(void)
{
        int c;

        do {
                while ((c = getc_nowait()) < 0)
                        sleep_ms(1);
                printf("%c", c);
        } while (c != '\n');
}

static void wait_for_irq(uint64_t vector)
{
        uint64_t before = taken[vector & 63];

        while (taken[vector & 63] == before)
                asm volatile("sti; hlt; cli");
}

static _Noreturn void triple_fault(void)
{
        static const struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) none = {0, 0};

        asm volatile("lidt %0; ud2" : : "m"(none));
        __builtin_unreachable();
}

/* An order can come at any time. One that is not read here is for the next round, and is left. */
static void obey(struct servant_mail *m)
{
        const uint32_t order = *(volatile uint32_t *)&m->order;

        switch (order) {
        case SERVANT_NOTHING:
                return;
        case SERVANT_FILL:
                fill(m);
                break;
        case SERVANT_PRINT:
                printf("%s", m->text);
                break;
        case SERVANT_EXIT:
                guest_exit((unsigned)m->value);
        case SERVANT_POWEROFF:
                guest_poweroff();
        case SERVANT_TRIPLE:
                triple_fault();
        case SERVANT_SPIN:
                run_user(spin, m);
                break;
        case SERVANT_HALT:
                asm volatile("cli; hlt");
                break;
        case SERVANT_OUT:
                access_port(m, 1);
                break;
        case SERVANT_IN:
                access_port(m, 0);
                break;
        case SERVANT_STORE:
                store(m);
                break;
        case SERVANT_LOAD:
                load(m);
                break;
        case SERVANT_WAIT_IRQ:
                wait_for_irq(m->value);
                break;
        case SERVANT_ECHO:
                echo();
                break;
        }
        m->order = SERVANT_NOTHING;
}

static void on_40(void)
{
        taken[40]++;
}

static void on_41(void)
{
        taken[41]++;
}

static void work(unsigned cpu)
{
        struct servant_mail *m = mail_of(cpu);

        while (cpu > 0 && cmd_is("rings", "no"))
                sleep_ms(1000);
        for (;;) {
                mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, ++m->rounds);
                m->result = mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RESULT);
                m->count = mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_COUNT);
                obey(m);
        }
}

void guest_main(void)
{
        irq_handlers[40] = on_40;
        irq_handlers[41] = on_41;
        ioapic_route(10, 40); /* the line of ramet_vm_irq() */
        printf("servant: ready\n");
        smp_run(work);
}
