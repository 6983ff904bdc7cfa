/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Page tables that stay as they are: a reset without dropping KVM's shadows of them.
 *
 * Where there is no EPT or NPT, KVM keeps shadows of the guest's page tables and follows what the
 * guest writes to those. It does not follow a reset, which puts other bytes into a page without a
 * write: a shadow of a changed page table would show the former life's mapping. So a reset drops
 * all shadows (reset.c), which costs a memory slot's life, some 10 ms of grace periods. Whoever
 * promises that the guest leaves its page tables alone (vm_options.fixed_page_tables) is spared
 * that, as long as nothing is found against it:
 *
 *   - After the first reset, when registers and memory are the template's, all page tables that its
 *     vCPUs can reach are found and kept: a copy of each, and the registers that say how they are
 *     walked. More than TABLES_MAX, or tables of 4-byte entries, are never taken for fixed.
 *   - Before each later one every vCPU must have the same CR3, and the same bits of CR0, CR4 and
 *     EFER that paging knows, and each of these pages must read as its copy, but for accessed and
 *     dirty bits, which the processor sets. Else the shadows are dropped, as ever.
 *
 * So page tables that are in use when the machine is reset are right. What this does not see:
 *
 *   - Tables that were used in between and are not any more: another CR3 and back, an entry changed
 *     and changed back, which had led to a table elsewhere. What KVM may keep is a shadow of that
 *     other table, found by its address. It shows an old mapping to a guest that breaks its promise
 *     once more, by using a table at that address in a later life before it has written to it
 *     there.
 *   - Accessed and dirty bits go back to the template's, and KVM, which has seen them set, does not
 *     set them again. A guest that goes by them (swaps, for example) misses that pages were used.
 *
 * That is wrong for this guest, and for nobody else: whatever a shadow maps is a page of this
 * machine's memory slots, and pages that are replaced or go away are taken out of all shadows by
 * KVM's MMU notifier, promise or not. It is as if a processor's TLB had not been flushed.
 *
 * All of it by the owner, while everything is stopped. What the guest has there is copied, counted
 * and compared, and never followed without a bound.
 */
#include <stdlib.h>
#include <string.h>

#include "vm/fixed_tables.h"
#include "vm/machine.h"
#include "x86/cpuid.h"
#include "x86/operands.h"
#include "x86/pagetables.h"

#define PAGE           4096u
#define TABLES_MAX     512                       /* compared at each reset: some 100 us */
#define PAGES_MAX      (1ull << 24)              /* of guest memory: 64 GiB */
#define ACCESSED_DIRTY 0x60ull                   /* SDM vol. 3, 4.5: bits 5 and 6 of an entry */
#define CR0_PAGING     (1ull << 31 | 1ull << 16) /* PG, WP */
/* PSE, PAE, PGE, LA57, PCIDE, SMEP, SMAP, PKE, CET, PKS */
#define CR4_PAGING                                                                                 \
        (1ull << 4 | 1ull << 5 | 1ull << 7 | 1ull << 12 | 1ull << 17 | 1ull << 20 | 1ull << 21 |   \
         1ull << 22 | 1ull << 23 | 1ull << 24)
#define EFER_PAGING (1ull << 8 | 1ull << 10 | 1ull << 11) /* LME, LMA, NXE */

struct mode {
        uint64_t cr0, cr3, cr4, efer;
};

struct fixed_tables {
        bool too_many;      /* or of another kind: never */
        struct mode *modes; /* of each vCPU */
        unsigned count;
        uint64_t gpas[TABLES_MAX];
        uint64_t *copies; /* count pages, without accessed and dirty bits */
};

static int get_mode(const struct vcpu *vcpu, struct mode *mode, struct x86_paging *paging)
{
        static const struct kvm_regs none;
        struct kvm_sregs sregs;
        int r = kvm_ioctl(vcpu->kvm.fd, KVM_GET_SREGS, &sregs);

        if (r < 0)
                return r;
        *mode = (struct mode){
                .cr0 = sregs.cr0 & CR0_PAGING,
                .cr3 = sregs.cr3,
                .cr4 = sregs.cr4 & CR4_PAGING,
                .efer = sregs.efer & EFER_PAGING,
        };
        if (paging)
                *paging = x86_paging_of(&none, &sregs, x86_cpuid_maxphyaddr(vcpu->vm->cpuid));
        return 0;
}

static int read_memory(void *data, uint64_t gpa, void *buf, size_t len)
{
        return guest_mem_read(data, gpa, buf, len);
}

/* --- what they are --- */

/* All that can be reached. Also false: they are of a kind that is not looked at. */
static bool collect(struct vm *vm, struct fixed_tables *f, struct x86_tables *found)
{
        const struct x86_mem_reader reader = {.read = read_memory, .data = &vm->mem};

        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                struct x86_table_format format;
                struct x86_paging paging;

                if (get_mode(&vm->vcpus[i], &f->modes[i], &paging) < 0)
                        return false;
                format = x86_table_format(&paging);
                if (format.levels == 0)
                        continue;
                if (format.entry_bytes != 8 ||
                    x86_tables_collect(found, &paging, &reader, 4ull * TABLES_MAX) < 0)
                        return false;
        }
        return found->count <= TABLES_MAX;
}

static bool copy(struct vm *vm, struct fixed_tables *f, const struct x86_tables *found)
{
        f->copies = malloc((found->count ? found->count : 1) * PAGE);
        if (!f->copies)
                return false;
        for (uint64_t page = 0; page < found->npages && f->count < found->count; page++)
                if (found->levels[page]) {
                        f->gpas[f->count] = page * PAGE;
                        if (guest_mem_read(&vm->mem, page * PAGE,
                                           f->copies + f->count * PAGE / sizeof *f->copies, PAGE))
                                return false;
                        f->count++;
                }
        for (size_t i = 0; i < f->count * PAGE / sizeof *f->copies; i++)
                f->copies[i] &= ~ACCESSED_DIRTY;
        return true;
}

void fixed_tables_note(struct vm *vm)
{
        const struct guest_region *last = &vm->mem.regions[vm->mem.nregions - 1];
        const uint64_t npages = (last->gpa + last->size) / PAGE;
        struct fixed_tables *f = vm->fixed_tables;
        struct x86_tables found = {0};

        if (f || !vm->options.fixed_page_tables || vm->host.tdp)
                return;
        f = calloc(1, sizeof *f);
        if (!f)
                return; /* the next time */
        f->modes = calloc(vm->shape.vcpus, sizeof *f->modes);
        f->too_many = !f->modes || npages > PAGES_MAX || x86_tables_init(&found, npages) < 0 ||
                      !collect(vm, f, &found) || !copy(vm, f, &found);
        x86_tables_fini(&found);
        vm->fixed_tables = f;
}

void fixed_tables_free(struct vm *vm)
{
        if (!vm->fixed_tables)
                return;
        free(vm->fixed_tables->modes);
        free(vm->fixed_tables->copies);
        free(vm->fixed_tables);
}

/* --- whether they still are --- */

static bool same_page(const uint64_t *now, const uint64_t *then)
{
        uint64_t changed = 0;

        for (size_t i = 0; i < PAGE / sizeof *now; i++)
                changed |= (now[i] ^ then[i]) & ~ACCESSED_DIRTY;
        return !changed;
}

bool fixed_tables_hold(struct vm *vm)
{
        const struct fixed_tables *f = vm->fixed_tables;
        uint64_t now[PAGE / sizeof(uint64_t)];

        if (!f || f->too_many || vm->options.cow == RAMET_COW_ROM)
                return false;
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                struct mode mode;

                if (get_mode(&vm->vcpus[i], &mode, NULL) < 0 ||
                    memcmp(&mode, &f->modes[i], sizeof mode))
                        return false;
        }
        for (unsigned i = 0; i < f->count; i++)
                if (guest_mem_read(&vm->mem, f->gpas[i], now, PAGE) < 0 ||
                    !same_page(now, f->copies + i * PAGE / sizeof *now))
                        return false;
        return true;
}
