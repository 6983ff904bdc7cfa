// SPDX-License-Identifier: Apache-2.0
/*
 * One processor: its TSS, the common IDT, traps and calls out of CPL 3, the local APIC's timer, and
 * the ways to end.
 */
#include "rt/rt.h"

#define LAPIC_EOI       0x0b0
#define LAPIC_SVR       0x0f0
#define LAPIC_LVT_TIMER 0x320
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_TIMER_ICR 0x380
#define LAPIC_TIMER_DCR 0x3e0

#define LVT_MASKED    0x10000u
#define LVT_PERIODIC  0x20000u
#define TIMER_PER_MS  1000000u /* KVM and QEMU: the bus clock is 1 GHz */
#define TIMER_MAX_MS  4000u
#define DEBUG_EXIT    0xf4
#define SLP_EN_S5     0x34 /* sleep control register: SLP_EN | 5 << 2 */
#define VEC_NMI       2u
#define EXIT_FATAL    0x7e /* debug-exit value after an unexpected trap */
#define BARRIER_SPINS 2000

_Static_assert(offsetof(struct cpu, user_rsp0) == CPU_USER_RSP0, "asm.h");
_Static_assert(offsetof(struct cpu, tss) == CPU_TSS, "asm.h");
_Static_assert(offsetof(struct frame, rip) == FRAME_RIP, "asm.h");

extern const uint8_t trap_stubs[64][16];
extern uint64_t gdt[];
uint64_t user_enter(uint64_t (*fn)(void *), void *arg, uint8_t *stack_top);
_Noreturn void user_leave(uint64_t rsp0, uint64_t value);
void trap_handle(struct frame *f);

_Alignas(RT_STACK_SIZE) uint8_t cpu_stacks[RT_MAX_CPUS][RT_STACK_SIZE];
static uint8_t user_stacks[RT_MAX_CPUS][RT_STACK_SIZE];
static struct {
        uint16_t offset0, selector, flags, offset1;
        uint32_t offset2, reserved;
} idt[64];

void (*irq_handlers[64])(void);

uint32_t lapic_read(unsigned reg)
{
        return mmio_read(LAYOUT_LAPIC + reg);
}

void lapic_write(unsigned reg, uint32_t value)
{
        mmio_write(LAYOUT_LAPIC + reg, value);
}

/* Redirection entry of the IOAPIC (82093AA datasheet, 3.2.4): edge, active high, fixed, physical.
 */
void ioapic_route(unsigned gsi, unsigned vector)
{
        mmio_write(LAYOUT_IOAPIC, 0x10 + 2 * gsi + 1);
        mmio_write(LAYOUT_IOAPIC + 0x10, this_cpu()->apic_id << 24);
        mmio_write(LAYOUT_IOAPIC, 0x10 + 2 * gsi);
        mmio_write(LAYOUT_IOAPIC + 0x10, vector);
}

static void tss_load(struct cpu *cpu)
{
        uint64_t base = (uint64_t)&cpu->tss, limit = sizeof cpu->tss - 1;
        unsigned sel = SEL_TSS + 16 * cpu->id;

        cpu->tss.iomap = sizeof cpu->tss;
        gdt[sel / 8] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
        gdt[sel / 8 + 1] = base >> 32;
        asm volatile("ltr %w0" : : "r"(sel));
}

static void idt_load(void)
{
        struct {
                uint16_t limit;
                void *base;
        } __attribute__((packed)) ptr = {sizeof idt - 1, idt};

        if (!idt[0].flags)
                for (unsigned i = 0; i < 64; i++) {
                        uint64_t stub = (uint64_t)trap_stubs[i];

                        idt[i].offset0 = (uint16_t)stub;
                        idt[i].offset1 = (uint16_t)(stub >> 16);
                        idt[i].selector = SEL_CODE64;
                        idt[i].flags = 0x8e00;
                }
        asm volatile("lidt %0" : : "m"(ptr));
}

void cpu_init(void)
{
        struct cpu *cpu = this_cpu();

        cpu->id = (unsigned)(((uint64_t)cpu - (uint64_t)cpu_stacks) / RT_STACK_SIZE);
        idt_load();
        tss_load(cpu);
        cpu->apic_id = lapic_read(0x20) >> 24;
        lapic_write(LAPIC_SVR, 0x100 | VEC_SPURIOUS);
        lapic_write(LAPIC_LVT_LINT0, LVT_MASKED);
        lapic_write(LAPIC_TIMER_DCR, 0xb); /* divide by 1 */
        cpu->online = 1;
}

static void timer_set(uint32_t mode, unsigned ms)
{
        lapic_write(LAPIC_LVT_TIMER, mode | VEC_TIMER);
        lapic_write(LAPIC_TIMER_ICR, ms * TIMER_PER_MS);
}

void timer_periodic(unsigned ms)
{
        this_cpu()->periodic = 1;
        timer_set(LVT_PERIODIC, ms);
}

static void sleep_halted(uint64_t ms)
{
        struct cpu *cpu = this_cpu();

        while (ms) {
                unsigned part = ms < TIMER_MAX_MS ? (unsigned)ms : TIMER_MAX_MS;
                uint64_t before = cpu->timer;

                if (!cpu->periodic)
                        timer_set(0, part);
                while (cpu->timer == before)
                        asm volatile("sti; hlt; cli" : : : "memory");
                ms -= part;
        }
}

void sleep_ms(unsigned ms)
{
        if (in_user())
                syscall(SYS_SLEEP, ms, 0);
        else
                sleep_halted(ms);
}

uint64_t run_user(uint64_t (*fn)(void *), void *arg)
{
        return user_enter(fn, arg, user_stacks[this_cpu()->id] + RT_STACK_SIZE);
}

void barrier_wait(struct barrier *b, unsigned n)
{
        unsigned generation = __atomic_load_n(&b->generation, __ATOMIC_ACQUIRE);

        if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == n) {
                __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
                __atomic_store_n(&b->generation, generation + 1, __ATOMIC_RELEASE);
                return;
        }
        for (int i = 0; __atomic_load_n(&b->generation, __ATOMIC_ACQUIRE) == generation; i++) {
                if (in_user() && i < BARRIER_SPINS)
                        cpu_relax();
                else
                        sleep_ms(1);
        }
}

void halt(void)
{
        for (;;)
                asm volatile("cli; hlt");
}

void guest_poweroff(void)
{
        if (in_user())
                syscall(SYS_OFF, 0, 0);
        outb(LAYOUT_PORT_PM, SLP_EN_S5);
        halt();
}

void guest_exit(unsigned value)
{
        if (in_user())
                syscall(SYS_EXIT, value, 0);
        outl(DEBUG_EXIT, value);
        guest_poweroff();
}

static void fatal(const struct frame *f)
{
        uint64_t cr2;

        asm volatile("mov %%cr2, %0" : "=r"(cr2));
        printf("guest: cpu %u: trap %lu error=%lx rip=%lx cs=%lx rsp=%lx cr2=%lx\n", this_cpu()->id,
               f->vector, f->error, f->rip, f->cs, f->rsp, cr2);
        guest_exit(EXIT_FATAL);
}

static void call_out(struct frame *f)
{
        f->rip += 2; /* past the ud2 */
        switch (f->rax) {
        case SYS_RETURN:
                user_leave(this_cpu()->user_rsp0, f->rdi);
        case SYS_WRITE:
                serial_write((const char *)f->rdi, f->rsi);
                break;
        case SYS_SLEEP:
                sleep_halted(f->rdi);
                break;
        case SYS_EXIT:
                guest_exit((unsigned)f->rdi);
        case SYS_OFF:
                guest_poweroff();
        case SYS_GETC:
                f->rax = (uint64_t)getc_nowait();
                break;
        case SYS_CALL:
                f->rax = ((uint64_t(*)(void *))f->rdi)((void *)f->rsi);
                break;
        default:
                fatal(f);
        }
}

void trap_handle(struct frame *f)
{
        const uint8_t *insn = (const uint8_t *)f->rip;

        if (f->vector == 6 && (f->cs & 3) && insn[0] == 0x0f && insn[1] == 0x0b) {
                call_out(f);
        } else if (f->vector == VEC_TIMER) {
                this_cpu()->timer++;
                lapic_write(LAPIC_EOI, 0);
        } else if (f->vector < VEC_NMI + 1 && irq_handlers[f->vector]) {
                irq_handlers[f->vector](); /* of no local APIC's */
        } else if (f->vector > VEC_TIMER && irq_handlers[f->vector]) {
                irq_handlers[f->vector]();
                lapic_write(LAPIC_EOI, 0);
        } else if (f->vector != VEC_SPURIOUS) {
                fatal(f);
        }
}
