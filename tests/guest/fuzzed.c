/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A guest for the tests of ramet_fuzz_one(): rings its doorbell when it is ready, does what the
 * input says, and rings again, from CPL 3. Each byte of the input is an order:
 *
 *      n  the ring's value is the length of the input        l  how many inputs it has seen before
 *      s  a sum of all its bytes                             c  count in coverage[next byte]
 *      d  write to `next byte` pages                         e  end by debug exit with next byte
 *      p  power off              r  reboot                   t  triple fault
 *      u  read where nothing is  f  a page fault             h  run for ever
 *
 *      z  count in a page that nobody has touched; the ring's value
 *
 * Others do nothing. With split=1 the input is at `split_input`, whose two pages are not next to
 * one another in memory, and have changed places.
 */
#include "rt/rt.h"

#define PAGE      4096ull
#define RIGHTS    7           /* present, writable, user */
#define SPLIT     0x200000000 /* 8 GiB */
#define NOTHING   0xd8000000ull
#define UNTOUCHED 0xc00000ull
#define FAULT     0x300000000ull

asm(".globl split_input\n"
    ".type split_input, @object\n"
    ".set split_input, 0x200000000\n"
    ".size split_input, 8192\n");

_Alignas(PAGE) uint8_t coverage[256];
_Alignas(PAGE) uint8_t input[PAGE];
uint32_t input_length;
uint64_t long_length;
uint32_t odd_length[3];
static uint64_t lives;
_Alignas(PAGE) static volatile uint8_t pages[256][PAGE];
_Alignas(PAGE) static uint8_t behind[3 * PAGE];
_Alignas(PAGE) static uint64_t split_pd[512], split_pt[512];

static void map_split(void)
{
        uint64_t *pml4, *pdpt;

        asm volatile("mov %%cr3, %0" : "=r"(pml4));
        pdpt = (uint64_t *)(pml4[0] & ~(PAGE - 1));
        split_pt[0] = (uint64_t)(behind + 2 * PAGE) | RIGHTS;
        split_pt[1] = (uint64_t)behind | RIGHTS;
        split_pd[0] = (uint64_t)split_pt | RIGHTS;
        pdpt[SPLIT >> 30] = (uint64_t)split_pd | RIGHTS;
}

static uint64_t kernel_end(void *arg)
{
        struct {
                uint16_t limit;
                uint64_t base;
        } __attribute__((packed)) none = {0, 0};

        if (arg) {
                asm volatile("lidt %0; ud2" : : "m"(none));
        } else {
                outb(0x602, 1); /* reset register */
                halt();
        }
        return 0;
}

static uint32_t sum(const volatile uint8_t *p, uint64_t n)
{
        uint32_t v = 0;

        for (uint64_t i = 0; i < n; i++)
                v = v * 31 + p[i];
        return v;
}

static uint64_t serve(void *arg)
{
        const volatile uint8_t *in = arg;
        uint32_t value = 0;

        for (;;) {
                uint64_t n;

                mmio_write(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RING, value);
                value = 0;
                n = *(volatile uint64_t *)&long_length ? long_length
                                                       : *(volatile uint32_t *)&input_length;
                for (uint64_t i = 0; i < n; i++) {
                        uint8_t next = i + 1 < n ? in[i + 1] : 0;

                        switch (in[i]) {
                        case 'n':
                                value = (uint32_t)n;
                                break;
                        case 'l':
                                value = (uint32_t)lives;
                                break;
                        case 's':
                                value = sum(in, n);
                                break;
                        case 'c':
                                ((volatile uint8_t *)coverage)[next]++;
                                i++;
                                break;
                        case 'd':
                                for (unsigned k = 0; k < next; k++)
                                        pages[k][0]++;
                                i++;
                                break;
                        case 'z':
                                value = ++*(volatile uint8_t *)UNTOUCHED;
                                break;
                        case 'e':
                                guest_exit(next);
                        case 'p':
                                guest_poweroff();
                        case 'r':
                                syscall(SYS_CALL, (uint64_t)kernel_end, 0);
                                break;
                        case 't':
                                syscall(SYS_CALL, (uint64_t)kernel_end, 1);
                                break;
                        case 'u':
                                value = *(volatile uint8_t *)NOTHING;
                                break;
                        case 'f':
                                value = *(volatile uint8_t *)FAULT;
                                break;
                        case 'h':
                                for (;;)
                                        cpu_relax();
                        }
                }
                lives++;
        }
        return 0;
}

void guest_main(void)
{
        int split = cmd_u64("split", 0) != 0;

        if (split)
                map_split();
        coverage[7] = 3; /* at the template */
        run_user(serve, split ? (void *)SPLIT : input);
}
