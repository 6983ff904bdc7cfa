// SPDX-License-Identifier: Apache-2.0
/*
 * What the processor writes by itself, for the guest "conform": accessed and dirty bits in page
 * tables, and the frame of an exception.
 *
 *      leaf    VA LEAF_BASE + n * 2 MiB + 40 * 4 KiB:   pml4[0], pdpt[8], leaf_pd[n], area n's
 * first page as page table, entry 40: not accessed, not dirty, to a page that is in use upper   VA
 * (16 + n) GiB + 40 * 2 MiB:            pml4[0], pdpt[16 + n], area n's first page as page
 * directory, entry 40: not accessed, to a page table that is in use
 *
 * The entry is at OFFSET_IN of its page. All other entries of these pages are not present, and hold
 * the pattern of ordinary pages otherwise. Nobody has walked an area's addresses before its turn.
 */
#include "conform.h"

#define P_PRESENT  1ull
#define P_WRITE    2ull
#define P_USER     4ull
#define P_ACCESSED 0x20ull
#define P_DIRTY    0x40ull
#define P_TABLE    (P_PRESENT | P_WRITE | P_USER)
#define P_BITS     0xfffull

#define ENTRY       (OFFSET_IN / 8)
#define LEAF_SLOT   8
#define UPPER_SLOT  16
#define AREAS_MAX   (512 - UPPER_SLOT)
#define MEMORY_LEFT 0x3132333435363738ull

_Alignas(PAGE) static uint64_t leaf_pd[512], upper_pt[512], data_page[512];
static uint64_t *pdpt;

void tables_init(void)
{
        uint64_t cr3;

        asm volatile("mov %%cr3, %0" : "=r"(cr3));
        pdpt = (uint64_t *)(*(uint64_t *)(cr3 & ~P_BITS) & ~P_BITS);
        pdpt[LEAF_SLOT] = (uint64_t)leaf_pd | P_TABLE | P_ACCESSED;
        upper_pt[0] = (uint64_t)data_page | P_TABLE | P_ACCESSED | P_DIRTY;
        data_page[1] = MEMORY_LEFT;
}

void tables_hook(uint8_t *area)
{
        unsigned n = area_number(area);

        if (n >= AREAS_MAX) {
                printf("conform: too many areas\n");
                guest_exit(1);
        }
        leaf_pd[n] = (uint64_t)area | P_TABLE | P_ACCESSED;
        pdpt[UPPER_SLOT + n] = (uint64_t)area | P_TABLE | P_ACCESSED;
}

static void prepare(uint64_t *image, const uint8_t *area, const void *target)
{
        for (unsigned i = 0; i < PAGE / 8; i++)
                image[i] = pattern(area + 8 * i) << 1; /* not present */
        image[ENTRY] = (uint64_t)target | P_TABLE;
}

void prepare_leaf(uint8_t *image, uint8_t *area)
{
        prepare((uint64_t *)image, area, data_page);
}

void prepare_upper(uint8_t *image, uint8_t *area)
{
        prepare((uint64_t *)image, area, upper_pt);
}

static volatile uint64_t *leaf_address(const uint8_t *at)
{
        return (volatile uint64_t *)(((uint64_t)LEAF_SLOT << 30) +
                                     ((uint64_t)area_number(at) << 21) + ((uint64_t)ENTRY << 12));
}

static void must_be(uint64_t value)
{
        if (value != MEMORY_LEFT)
                printf("conform: read %lx through a fresh page table\n", value);
}

void run_accessed(uint8_t *at, const uint8_t *src)
{
        must_be(leaf_address(at)[1]);
}

void run_dirty(uint8_t *at, const uint8_t *src)
{
        data_page[2] = 0;
        leaf_address(at)[2] = MEMORY_LEFT;
        must_be(data_page[2]);
}

void run_accessed_upper(uint8_t *at, const uint8_t *src)
{
        uint64_t address =
                ((uint64_t)(UPPER_SLOT + area_number(at)) << 30) + ((uint64_t)ENTRY << 21);

        must_be(((volatile uint64_t *)address)[1]);
}

void want_accessed(const struct op *op, uint8_t *image, const uint8_t *at)
{
        image[0] |= P_ACCESSED;
}

void want_dirty(const struct op *op, uint8_t *image, const uint8_t *at)
{
        image[0] |= P_ACCESSED | P_DIRTY;
}

/* --- exceptions --- */

#define FRAME_BYTES 40
#define FLAG_RF     0x10000ull

extern uint64_t exc_rsp, exc_flags, *exc_restore, exc_restore_value, exc_old_gp;
extern const uint8_t exc_insn_user[], exc_insn_kernel[], exc_stub[], exc_stub_gp[];
void exc_user(uint8_t *top);
void exc_kernel(uint8_t *top);

static void gate_set(unsigned vector, const uint8_t *stub, uint64_t *old)
{
        struct {
                uint16_t limit;
                uint16_t *base;
        } __attribute__((packed)) idt;
        uint16_t *gate;
        uint64_t at = (uint64_t)stub;

        asm volatile("sidt %0" : "=m"(idt));
        gate = idt.base + 8 * vector;
        if (old)
                *old = gate[0] | (uint64_t)gate[3] << 16;
        gate[0] = (uint16_t)at;
        gate[3] = (uint16_t)(at >> 16);
}

void exceptions_init(void)
{
        gate_set(0, exc_stub, NULL);
        gate_set(13, exc_stub_gp, &exc_old_gp);
}

/* RSP0 is packed and not aligned: all accesses to it are those of the compiler and of exc_stub. */
static uint64_t set_rsp0(void *top)
{
        uint8_t *rsp0 = (uint8_t *)&this_cpu()->tss + offsetof(struct tss, rsp);

        exc_restore = (uint64_t *)rsp0;
        __builtin_memcpy(&exc_restore_value, rsp0, 8);
        __builtin_memcpy(rsp0, &top, 8);
        return 0;
}

static uint64_t unused, kernel_ss; /* null after an exception from CPL 3 */

void run_exception(uint8_t *at, const uint8_t *src)
{
        if (in_user()) {
                call_kernel(set_rsp0, at + FRAME_BYTES);
                exc_user(at + FRAME_BYTES);
        } else {
                exc_restore = &unused;
                asm volatile("mov %%ss, %0" : "=r"(kernel_ss));
                exc_kernel(at + FRAME_BYTES);
        }
}

void want_exception(const struct op *op, uint8_t *image, const uint8_t *at)
{
        const uint64_t *frame = (const uint64_t *)at;
        uint64_t want[5] = {(uint64_t)(ring_of_ops ? exc_insn_user : exc_insn_kernel),
                            ring_of_ops ? SEL_UCODE : SEL_CODE64,
                            exc_flags | (frame[2] & FLAG_RF), /* up to the processor */
                            exc_rsp, ring_of_ops ? SEL_UDATA : kernel_ss};

        __builtin_memcpy(image, want, sizeof want);
}
