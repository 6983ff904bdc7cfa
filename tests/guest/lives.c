// SPDX-License-Identifier: Apache-2.0
/*
 * A guest that does damage, and one that says in detail what it finds: for tests of reset. It sets
 * up every part of the machine, rings the doorbell, and then obeys the letters of a line that is
 * typed, in their order:
 *
 *      m memory        p page tables     r control and debug registers, MSRs, IDT (both processors)
 *      a local APICs   i interrupt controllers                 t a fast PIT
 *      s serial port, CMOS, keyboard controller                n NMI and INIT to the other
 *      w a storm of writes, for ever     x string instructions from MMIO, for ever
 *      f triple fault  h halt, deaf      o power off           b reboot
 *      e debug exit    d the doorbell    c say what is there, and end
 *
 * What it says is the same whenever the machine is the same:
 *
 *      lives: ready                      before the first ring, once
 *      lives: number=1 count=2 ...       several lines
 *      lives: end
 */
#include "rt/rt.h"

#define AREA       0x1800000ull /* filled; each word is known by its address */
#define AREA_BYTES 0x100000ull
#define PAGE_A     0x1000000ull /* what the two windows show */
#define PAGE_B     0x1200000ull
#define TABLE      0x1400000ull /* a page table of ours */
#define WINDOW_2M  0x80000000ull
#define WINDOW_4K  0x80200000ull
#define ICR_LOW    0x300
#define ICR_HIGH   0x310
#define VECTORS    64

static const uint32_t msr_index[] = {
        0x174,      0x175,      0x176,      0x277,      /* SYSENTER_CS, ESP, EIP; PAT */
        0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, /* STAR, LSTAR, CSTAR, FMASK */
        0xc0000100, 0xc0000101, 0xc0000102,             /* FS_BASE, GS_BASE, KERNEL_GS_BASE */
        0x2ff,      0x200,      0x201,      0x268,      /* MTRRs */
        0x402,      0x40e,                              /* machine check addresses */
};
#define MSRS (sizeof msr_index / sizeof *msr_index)

static const unsigned apic_regs[] = {0x80,  0xd0,  0xe0,  0xf0,  0x310, 0x320, 0x330, 0x340,
                                     0x350, 0x360, 0x370, 0x380, 0x3e0, 0x110, 0x120, 0x170};

static volatile unsigned taken[VECTORS]; /* interrupts */
static volatile int order;               /* for the other processor */
static volatile uint64_t answer;         /* of the other processor, 0: not yet */

#define READ(reg, out) asm volatile("mov %%" reg ", %0" : "=r"(out))
#define WRITE(reg, in) asm volatile("mov %0, %%" reg : : "r"((uint64_t)(in)) : "memory")

static uint64_t mix(uint64_t hash, uint64_t v)
{
        return (hash ^ v) * 0x100000001b3ull;
}

/* --- the machine as it should be --- */

static uint64_t fill(void *arg)
{
        for (uint64_t at = AREA; at < AREA + AREA_BYTES; at += 8)
                *(uint64_t *)at = at * 0x9e3779b97f4a7c15ull;
        *(uint64_t *)PAGE_A = 0xa1a1a1a1;
        *(uint64_t *)PAGE_B = 0xb2b2b2b2;
        return 0;
}

static uint64_t *pd_entry(uint64_t va)
{
        uint64_t *pml4, *pdpt, *pd;

        READ("cr3", pml4);
        pml4 = (uint64_t *)((uint64_t)pml4 & ~0xfffull);
        pdpt = (uint64_t *)(pml4[0] & ~0xfffull);
        pd = (uint64_t *)(pdpt[va >> 30] & ~0xfffull);
        return pd + (va >> 21 & 511);
}

static void flush(uint64_t va)
{
        asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static void set_windows(uint64_t page)
{
        *pd_entry(WINDOW_2M) = page | 0x87;
        *(uint64_t *)TABLE = page | 7;
        *pd_entry(WINDOW_4K) = TABLE | 7;
        flush(WINDOW_2M);
        flush(WINDOW_4K);
}

static uint64_t look(void *arg)
{
        return *(volatile uint64_t *)WINDOW_2M ^ *(volatile uint64_t *)WINDOW_4K << 32;
}

static void set_registers(uint64_t salt)
{
        uint64_t v = 0x123450 ^ salt << 8;

        WRITE("dr0", v);
        WRITE("dr1", v + 1);
        WRITE("dr2", v + 2);
        WRITE("dr3", v + 3);
        WRITE("dr7", 0x400 | (salt & 0xf) << 16);
        for (unsigned i = 0; i < 11; i++) {
                if (msr_index[i] == 0x277)
                        wrmsr(0x277, salt ? 0x0607040100070406 : 0x0007040600070401);
                else if (msr_index[i] == 0x174 || msr_index[i] == 0xc0000084)
                        wrmsr(msr_index[i], (v + i) & 0xff8);
                else
                        wrmsr(msr_index[i], v + i);
        }
        if (!salt)
                return;
        wrmsr(0x2ff, 0xc06);
        wrmsr(0x200, 0xc0000006);
        wrmsr(0x201, 0xfc0000800);
        wrmsr(0x268, 0x0606060606060606);
        wrmsr(0x402, 0x123000);
        wrmsr(0x40e, 0x456000);
}

static void on_interrupt_34(void)
{
        taken[34]++;
}
static void on_interrupt_35(void)
{
        taken[35]++;
}
static void on_interrupt_36(void)
{
        taken[36]++;
}
static void on_interrupt_40(void)
{
        taken[40]++;
}

static void pit(unsigned count)
{
        outb(0x43, 0x34); /* channel 0, both bytes, rate generator */
        outb(0x40, (uint8_t)count);
        outb(0x40, (uint8_t)(count >> 8));
}

static void set_up(void)
{
        run_user(fill, NULL);
        set_windows(PAGE_A);
        irq_handlers[34] = on_interrupt_34;
        irq_handlers[35] = on_interrupt_35;
        irq_handlers[36] = on_interrupt_36;
        irq_handlers[40] = on_interrupt_40;
        ioapic_route(0, 34); /* the PIT: 100 Hz, set by pit() below */
        ioapic_route(LAYOUT_GSI_VMGENID, 35);
        ioapic_route(4, 36);
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
        outb(LAYOUT_PORT_SERIAL + 7, 0x42);
        outb(LAYOUT_PORT_SERIAL + 2, 0x07); /* FIFOs: a line must fit */
        outb(0x70, 0x50);
        outb(0x71, 0x77);
        set_registers(0);
        pit(11932);
}

/* --- what is there --- */

static uint64_t area_hash(void *arg)
{
        uint64_t hash = 0;

        for (uint64_t at = AREA; at < AREA + AREA_BYTES; at += 8)
                hash = mix(hash, *(uint64_t *)at);
        return hash;
}

/* Of one processor: the sum of what follows, printed for the first. */
static uint64_t processor(int print)
{
        struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) idt;
        uint64_t r[10], hash = 0;

        READ("cr0", r[0]);
        READ("cr3", r[1]);
        READ("cr4", r[2]);
        READ("dr0", r[3]);
        READ("dr1", r[4]);
        READ("dr2", r[5]);
        READ("dr3", r[6]);
        READ("dr7", r[7]);
        r[8] = rdmsr(0xc0000080);
        asm volatile("sidt %0" : "=m"(idt));
        r[9] = idt.base ^ idt.limit;
        if (print)
                printf("lives: cr0=%lx cr3=%lx cr4=%lx dr=%lx/%lx/%lx/%lx/%lx efer=%lx idt=%lx\n",
                       r[0], r[1], r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9]);
        for (unsigned i = 0; i < 10; i++)
                hash = mix(hash, r[i]);
        for (unsigned i = 0; i < MSRS; i++) {
                uint64_t v = rdmsr(msr_index[i]);

                if (print)
                        printf("lives: msr %x=%lx\n", msr_index[i], v);
                hash = mix(hash, v);
        }
        for (unsigned i = 0; i < sizeof apic_regs / sizeof *apic_regs; i++) {
                uint32_t v = lapic_read(apic_regs[i]);

                if (print)
                        printf("lives: apic %x=%x\n", apic_regs[i], v);
                hash = mix(hash, v);
        }
        return hash | 1;
}

static void say_chips(void)
{
        uint64_t hash = 0;

        for (unsigned i = 0x10; i < 0x40; i++) {
                mmio_write(LAYOUT_IOAPIC, i);
                hash = mix(hash, mmio_read(LAYOUT_IOAPIC + 0x10));
        }
        printf("lives: ioapic=%lx pic=%x/%x elcr=%x/%x\n", hash, inb(0x21), inb(0xa1), inb(0x4d0),
               inb(0x4d1));
        outb(0x43, 0xe2); /* latch the status of channel 0 */
        printf("lives: pit=%x\n", inb(0x40) & 0x3f);
        outb(0x70, 0x50);
        printf("lives: serial=%x/%x/%x/%x/%x cmos=%x keyboard=%x pm=%x\n",
               inb(LAYOUT_PORT_SERIAL + 1), inb(LAYOUT_PORT_SERIAL + 3),
               inb(LAYOUT_PORT_SERIAL + 4), inb(LAYOUT_PORT_SERIAL + 5),
               inb(LAYOUT_PORT_SERIAL + 7), inb(0x71), inb(0x64), inb(LAYOUT_PORT_PM + 1));
}

static _Noreturn void say(void)
{
        unsigned early = 0;

        printf("lives: number=%d count=%d\n",
               (int)mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RESULT), (int)doorbell_count());
        printf("lives: area=%lx windows=%lx/%lx left=%d\n", run_user(area_hash, NULL), look(NULL),
               run_user(look, NULL), getc_nowait());
        processor(1);
        say_chips();
        if (cpu_count() > 1) {
                order = 'c';
                while (!answer)
                        sleep_ms(1);
                printf("lives: other=%lx\n", answer);
        }
        for (unsigned i = 0; i < VECTORS; i++)
                early += i != 34 ? taken[i] : 0;
        sleep_ms(20);
        for (unsigned i = 0; i < 500 && taken[34] < 2; i++) /* a busy host ticks late */
                sleep_ms(10);
        printf("lives: ticks=%s generation=%u serial=%u other=%u early=%u\n",
               taken[34] >= 2 ? "some" : "none", taken[35], taken[36], taken[40], early);
        printf("lives: end\n");
        guest_poweroff();
}

/* --- damage --- */

static uint64_t scribble(void *arg)
{
        for (uint64_t at = AREA; at < AREA + AREA_BYTES; at += 8)
                *(uint64_t *)at ^= ~at;
        for (uint64_t at = 0x1900000; at < 0x1980000; at += 4096) /* where nothing was */
                *(uint64_t *)at = at;
        *(uint64_t *)PAGE_A = 0xdead;
        return 0;
}

static uint64_t storm(void *arg)
{
        for (uint64_t n = (uint64_t)arg;; n++)
                for (uint64_t at = AREA; at < AREA + AREA_BYTES; at += 512)
                        *(volatile uint64_t *)at = n;
        return 0;
}

static void damage_registers(void)
{
        uint64_t v;

        set_registers(0x55);
        READ("cr4", v);
        WRITE("cr4", v | 0x8c);                       /* PGE, TSD, DE */
        wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x801); /* EFER: NXE, SCE */
        READ("cr0", v);
        WRITE("cr0", v ^ 0x10008); /* WP, TS */
}

static void damage_apic(void)
{
        for (unsigned reg = 0x330; reg <= 0x370; reg += 0x10)
                lapic_write(reg, 0x10000 | 61);
        lapic_write(0xd0, 0x04000000);
        lapic_write(0x80, 0x15);
        timer_periodic(1);
        lapic_write(0x320, 0x20000 | 40); /* a vector that nobody expects */
        asm volatile("sti");
        for (unsigned i = 0; i < 200000 && taken[40] < 3; i++)
                cpu_relax();
        asm volatile("cli");
        lapic_write(0x80, 0xf0); /* now they are kept waiting */
}

static void damage_chips(void)
{
        outb(0x20, 0x11); /* the PICs: initialized anew, unmasked, one level-triggered */
        outb(0x21, 0x28);
        outb(0x21, 4);
        outb(0x21, 1);
        outb(0xa0, 0x11);
        outb(0xa1, 0x38);
        outb(0xa1, 2);
        outb(0xa1, 1);
        outb(0x21, 0);
        outb(0xa1, 0);
        outb(0x4d0, 0x20);
        for (unsigned gsi = 0; gsi < 24; gsi++) { /* level, low, logical, masked here and there */
                mmio_write(LAYOUT_IOAPIC, 0x10 + 2 * gsi + 1);
                mmio_write(LAYOUT_IOAPIC + 0x10, 0x01000000);
                mmio_write(LAYOUT_IOAPIC, 0x10 + 2 * gsi);
                mmio_write(LAYOUT_IOAPIC + 0x10, 0x8828 + gsi + (gsi % 3 ? 0 : 0x10000));
        }
}

static void damage_devices(void)
{
        outb(LAYOUT_PORT_SERIAL + 1, 0x0f); /* all interrupts: the line goes up and stays there */
        outb(LAYOUT_PORT_SERIAL + 4, 0x1f); /* loopback */
        for (unsigned i = 0; i < 20; i++)
                outb(LAYOUT_PORT_SERIAL, (uint8_t)('a' + i));
        outb(LAYOUT_PORT_SERIAL + 7, 0x99);
        outb(LAYOUT_PORT_SERIAL + 3, 0x9b); /* the divisor's latch */
        outb(0x70, 0x50);
        outb(0x71, 0x11);
        outb(0x64, 0x60);           /* a command that waits for its byte */
        outb(LAYOUT_PORT_PM, 0x24); /* a sleeping state that there is not: woken at once */
}

static void ipi(uint32_t command)
{
        lapic_write(ICR_HIGH, 1u << 24);
        lapic_write(ICR_LOW, command);
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

static void string_reads(void)
{
        static uint8_t to[512];

        for (;;) {
                uint64_t from = RAMET_DOORBELL_MMIO + 0x800, n = sizeof to;
                void *at = to;

                asm volatile("rep movsb" : "+S"(from), "+D"(at), "+c"(n) : : "memory");
        }
}

static void obey(int letter)
{
        order = letter;
        switch (letter) {
        case 'm':
                run_user(scribble, NULL);
                break;
        case 'p':
                set_windows(PAGE_B);
                run_user(look, NULL);
                look(NULL);
                break;
        case 'r':
                damage_registers();
                break;
        case 'a':
                damage_apic();
                break;
        case 'i':
                damage_chips();
                break;
        case 't':
                pit(1193);
                break;
        case 's':
                damage_devices();
                break;
        case 'n':
                ipi(0x4400);
                ipi(0x4500);
                break;
        case 'w':
                run_user(storm, (void *)1);
                break;
        case 'x':
                string_reads();
                break;
        case 'f':
                triple_fault();
        case 'h':
                halt();
        case 'o':
                guest_poweroff();
        case 'b':
                outb(LAYOUT_PORT_PM + 2, 1);
                halt();
        case 'e':
                guest_exit(5);
        case 'd':
                doorbell_ring();
                break;
        case 'c':
                say();
        }
}

/* --- the other processor --- */

static uint64_t wait_for_order(void *arg)
{
        while (!order)
                cpu_relax();
        return (uint64_t)order;
}

static void other(void)
{
        for (;;) {
                int letter = (int)run_user(wait_for_order, NULL);

                if (letter == 'w')
                        run_user(storm, (void *)0x1000000);
                else if (letter == 'r')
                        damage_registers();
                else if (letter == 'a')
                        damage_apic();
                else if (letter == 'c')
                        answer = processor(0);
                while (order == letter)
                        sleep_ms(1);
        }
}

static void cpu_work(unsigned cpu)
{
        char line[16];
        unsigned n = 0;

        set_registers(0);
        if (cpu)
                other();
        set_up();
        printf("lives: ready\n");
        doorbell_ring();
        sleep_ms(1); /* at least once, so that the timer is always set */
        while (n < sizeof line && (n == 0 || line[n - 1] != '\n')) {
                int c = getc_nowait();

                if (c < 0)
                        sleep_ms(1);
                else
                        line[n++] = (char)c;
        }
        for (unsigned i = 0; i + 1 < n; i++)
                obey(line[i]);
        order = 0;
        for (;;)
                sleep_ms(1000);
}

void guest_main(void)
{
        smp_run(cpu_work);
}
