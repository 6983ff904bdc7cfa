/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a machine whose caught writes are exits (engine `rom`): a guest's write into memory
 * of its template, from the exit to the re-entry.
 *
 *      KVM_RUN:  the write is emulated, or KVM cannot emulate it
 *         |
 *      exit:     do the write, if KVM has done the instruction; note the page
 *         |
 *      top:      complete I/O, leave the read section
 *         |      sync_stop:    kick, barrier: everybody is out
 *         |      break_range:  copy the page, post the range, replace the slot
 *         |      sync_resume
 *         |      enter the read section
 *      KVM_RUN:  go on, or run the instruction again
 *
 * KVM has committed the instruction when it exits with a write's data, so the write is done at
 * once, to where the page is now (cow_rom.c says why that is enough), and nothing is outstanding
 * when somebody else's stop comes first, for a freeze perhaps. A break that is noted is then only a
 * page that will cost another exit. Only an MSR that names a caught page has to wait for the break,
 * and so state is not saved before that is done (cow_finish_msrs).
 *
 * What is written without such an exit has to be found beforehand, or guessed:
 *
 *   Page tables. In read-only memory the accessed and dirty bits of software walks are lost, and of
 *   the processor's own walks each is an exit. A guest that trusts a dirty bit then loses data. So
 *   before the machine runs, all tables are broken that can be reached from a CR3, and every page
 * of the template that has the looks of one (x86/pagetables.h), for an address space that is not
 *   current now. Tables made later are pages that the guest has written.
 *
 *   What KVM writes by itself: the pages that certain MSRs name (kvm/x86_pv.c). They are broken
 *   before the machine runs; a later write of such an MSR is an exit, and its page is broken.
 *
 *   What the processor writes by itself: descriptors' bits, and the stack frame of an interrupt.
 *   On VT-x and SVM a frame that cannot be written makes KVM emulate the instruction at RIP, which
 *   may have nothing to do with it, and try again: newer KVMs exit instead, with older ones a vCPU
 *   gets nowhere, without an exit. The emulator itself does the same for a few instructions
 * (fxsave, sgdt) whose write it cannot turn into an exit. So the vCPUs are kicked now and then, and
 * one that comes out of guest mode has the stacks broken that an event would be pushed to, and, if
 *   its RIP has not moved since the last time, what the instruction there may write.
 *
 *   Instructions that write several times (pusha, a far call, an interrupt in real mode): the
 *   emulator reports the last write and loses the others. They belong to 16- and 32-bit code, but
 *   for the far call; so before a vCPU runs such code, or when it is seen to, everything is broken,
 *   and counted. A far call of 64-bit code onto a stack page that was never written is not caught.
 */
#include "vm/cow.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/machine.h"
#include "x86/cpuid.h"
#include "x86/layout.h"
#include "x86/operands.h"
#include "x86/pagetables.h"
#include "x86/system_pages.h"

#define PAGE       4096ull
#define LAPIC_ISR  0x100u      /* SDM vol. 3, table 11-1: 8 registers, 16 bytes apart */
#define WATCH_NS   20000000ull /* a vCPU that gets nowhere loses that much time for each page */
#define SCAN_BYTES (128u << 10)
#define EFER_LMA   (1ull << 10)
#define CR0_PG     (1ull << 31)

static bool any_caught(const struct vm *vm)
{
        const struct backing *b = &vm->backing;

        return b->cow->caught && b->cow->caught(b, 0, b->size);
}

/* --- registers and memory for src/x86 --- */

static int read_memory(void *data, uint64_t gpa, void *buf, size_t len)
{
        return guest_mem_read(data, gpa, buf, len);
}

static struct x86_mem_reader reader_of(struct vm *vm)
{
        return (struct x86_mem_reader){.read = read_memory, .data = &vm->mem};
}

/* The processor's own: what KVM was told is not what every KVM shows the guest. */
static size_t xsave_bytes(void)
{
        unsigned eax, ebx, ecx, edx;

        return __get_cpuid_count(0xd, 0, &eax, &ebx, &ecx, &edx) ? ecx : 0;
}

struct registers {
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct x86_paging paging;
        bool bits64;
};

static int get_registers(const struct vcpu *vcpu, struct registers *s)
{
        int r = kvm_ioctl(vcpu->kvm.fd, KVM_GET_REGS, &s->regs);

        if (r == 0)
                r = kvm_ioctl(vcpu->kvm.fd, KVM_GET_SREGS, &s->sregs);
        if (r < 0)
                return r;
        s->paging = x86_paging_of(&s->regs, &s->sregs, x86_cpuid_maxphyaddr(vcpu->vm->cpuid));
        s->bits64 = s->sregs.efer & EFER_LMA && s->sregs.cs.l;
        return 0;
}

/* --- noting --- */

/* The address may be any, as the guest wrote it, and its end beyond the last one. */
static uint64_t pages_of(uint64_t gpa, uint64_t len)
{
        return (gpa % PAGE + len + PAGE - 1) / PAGE;
}

/* True when a write there would be caught. More pages than there is room for are another exit's
 * business. */
static bool note(struct vcpu *vcpu, uint64_t gpa, uint64_t len)
{
        const struct backing *b = &vcpu->vm->backing;
        struct vcpu_cow *c = &vcpu->cow;
        bool found = false;

        for (uint64_t at = gpa - gpa % PAGE, n = pages_of(gpa, len), offset; n > 0;
             n--, at += PAGE) {
                unsigned i = 0;

                if (guest_mem_offset(&vcpu->vm->mem, at, PAGE, &offset) < 0 ||
                    !b->cow->caught(b, offset, PAGE))
                        continue;
                found = true;
                while (i < c->npages && c->pages[i] != offset)
                        i++;
                if (i == c->npages && i < VCPU_COW_PAGES)
                        c->pages[c->npages++] = offset;
        }
        return found;
}

static void note_everything(struct vcpu *vcpu)
{
        vcpu->cow.everything = true;
}

static bool note_system_pages(struct vcpu *vcpu, const struct registers *s)
{
        const struct x86_mem_reader reader = reader_of(vcpu->vm);
        uint64_t gpas[X86_SYSTEM_PAGES_MAX];
        unsigned n = x86_system_pages(&s->regs, &s->sregs, &s->paging, &reader, gpas);
        bool found = false;

        for (unsigned i = 0; i < n; i++)
                found |= note(vcpu, gpas[i], 1);
        return found;
}

/* The bytes at RIP, from memory; KVM gives only those that it has looked at. */
static size_t fetch(const struct registers *s, const struct x86_mem_reader *reader, uint8_t *bytes,
                    size_t max)
{
        uint64_t linear = s->regs.rip + (s->bits64 ? 0 : s->sregs.cs.base);
        size_t n = 0;

        while (n < max) {
                size_t piece = PAGE - (linear + n) % PAGE;
                struct x86_walk walk;

                if (piece > max - n)
                        piece = max - n;
                if (x86_walk(&s->paging, reader, linear + n, X86_DEBUG, &walk) < 0 ||
                    reader->read(reader->data, walk.gpa, bytes + n, piece) < 0)
                        break;
                n += piece;
        }
        return n;
}

/* What the instruction at RIP may write. True when some of it is caught. */
static bool note_instruction(struct vcpu *vcpu, const struct registers *s, const uint8_t *bytes,
                             size_t n)
{
        const struct x86_mem_reader reader = reader_of(vcpu->vm);
        uint64_t gpas[X86_WRITTEN_PAGES_MAX];
        unsigned ngpas = X86_WRITTEN_PAGES_MAX;
        uint8_t fetched[15];
        size_t nfetched = fetch(s, &reader, fetched, sizeof fetched);
        bool found = false;

        if (nfetched > n) {
                bytes = fetched;
                n = nfetched;
        }
        if (x86_written_pages(&s->regs, &s->sregs, bytes, n, xsave_bytes(), &reader, gpas, &ngpas) <
            0) {
                note_everything(vcpu);
                return true;
        }
        for (unsigned i = 0; i < ngpas; i++)
                found |= note(vcpu, gpas[i], 1);
        atomic_fetch_add(&vcpu->vm->cow_decoded, found);
        return found;
}

/* --- exits --- */

bool cow_exit_mmio(struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->kvm.run;
        uint64_t gpa = run->mmio.phys_addr;
        size_t len = run->mmio.len;
        struct registers s;

        if (!vcpu->vm->backing.cow->caught || !guest_mem_contains(&vcpu->vm->mem, gpa, len))
                return false;
        if (!run->mmio.is_write) { /* the slot is there, so KVM reads by itself */
                guest_access_read(&vcpu->access, gpa, run->mmio.data, len);
                return true;
        }
        guest_access_write(&vcpu->access, gpa, run->mmio.data, len);
        if (note(vcpu, gpa, len) && (get_registers(vcpu, &s) < 0 || !s.bits64))
                note_everything(vcpu);
        return true;
}

bool cow_exit_emulation(struct vcpu *vcpu, const uint8_t *bytes, size_t n)
{
        struct registers s;

        if (!any_caught(vcpu->vm) || get_registers(vcpu, &s) < 0)
                return false;
        if (!s.bits64)
                note_everything(vcpu);
        return vcpu->cow.everything || note_instruction(vcpu, &s, bytes, n);
}

bool cow_exit_delivery(struct vcpu *vcpu, uint64_t gpa)
{
        struct registers s;
        bool found;

        if (!any_caught(vcpu->vm) || get_registers(vcpu, &s) < 0)
                return false;
        found = gpa != UINT64_MAX && note(vcpu, gpa, 1);
        return note_system_pages(vcpu, &s) || found;
}

/* Without EPT or NPT KVM itself may write the frame of an event, and make a triple fault of a page
 * that it cannot write. The vCPU is still at the instruction then, so that an exception comes
 * again; an interrupt would not, so that with one in service this is left a triple fault. */
bool cow_exit_shutdown(struct vcpu *vcpu)
{
        struct kvm_lapic_state lapic;
        struct registers s;
        uint32_t in_service = 0;

        if (vcpu->vm->host.tdp || !any_caught(vcpu->vm) || get_registers(vcpu, &s) < 0 ||
            !s.bits64 || kvm_ioctl(vcpu->kvm.fd, KVM_GET_LAPIC, &lapic) < 0)
                return false;
        for (unsigned reg = LAPIC_ISR; reg < LAPIC_ISR + 8 * 16; reg += 16) {
                uint32_t bits;

                memcpy(&bits, lapic.regs + reg, sizeof bits);
                in_service |= bits;
        }
        return !in_service && note_system_pages(vcpu, &s);
}

/* Hyper-V's are 0x40000000 to 0x400000ff (its TLFS). Our CPUID never offers them, and a guest that
 * writes one takes #GP; KVM would let us set them. */
static bool is_offered(uint32_t msr)
{
        return msr >> 8 != 0x400000;
}

/* KVM may refuse a value now that it will take once the page is broken, so in that case the guest
 * is not told. */
void cow_exit_wrmsr(struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->kvm.run;
        uint64_t gpa, len;
        bool caught;
        int r;

        if (!is_offered(run->msr.index)) {
                run->msr.error = 1;
                return;
        }
        caught = kvm_pv_msr(run->msr.index, run->msr.data, &gpa, &len) && any_caught(vcpu->vm) &&
                 note(vcpu, gpa, len);
        r = kvm_msr_set_one(&vcpu->kvm, run->msr.index, run->msr.data);
        run->msr.error = r < 0 && !caught;
        if (!caught)
                return;
        vcpu->cow.msr = run->msr.index;
        vcpu->cow.msr_value = run->msr.data;
}

void cow_interrupted(struct vcpu *vcpu, int error)
{
        struct kvm_mp_state state = {0};
        struct registers s;

        if (!any_caught(vcpu->vm))
                return;
        kvm_ioctl(vcpu->kvm.fd, KVM_GET_MP_STATE, &state);
        vcpu->idle = state.mp_state != KVM_MP_STATE_RUNNABLE;
        if (vcpu->idle || get_registers(vcpu, &s) < 0)
                return;
        if (error == EAGAIN || !(s.sregs.efer & EFER_LMA)) { /* it has got its SIPI, perhaps */
                note_everything(vcpu);
                return;
        }
        note_system_pages(vcpu, &s);
        if (s.regs.rip == vcpu->cow.rip)
                note_instruction(vcpu, &s, NULL, 0);
        vcpu->cow.rip = s.regs.rip;
}

/* --- the top of the loop --- */

static bool wants_baton(const struct vm *vm)
{
        return vm->shape.vcpus > 1 && any_caught(vm);
}

static bool noted(const struct vcpu_cow *c)
{
        return c->npages || c->everything || c->msr;
}

bool cow_must_leave(struct vcpu *vcpu)
{
        const struct vm *vm = vcpu->vm;

        if (!vm->backing.cow->caught)
                return false;
        return noted(&vcpu->cow) || (wants_baton(vm) && !baton_held(&vm->baton, vcpu));
}

static int break_all(struct vm *vm, struct err *err)
{
        atomic_fetch_add(&vm->cow_everything, 1);
        return vm->backing.cow->break_range(&vm->backing, 0, vm->backing.size, err);
}

/* The machine is stopped. A failure ends it. */
static void break_noted(struct vcpu *vcpu)
{
        struct vm *vm = vcpu->vm;
        struct vcpu_cow *c = &vcpu->cow;
        struct err err = {0};
        int r = 0;

        for (unsigned i = 0; i < c->npages && !c->everything && r == 0; i++)
                r = vm->backing.cow->break_range(&vm->backing, c->pages[i], PAGE, &err);
        if (c->everything && any_caught(vm))
                r = break_all(vm, &err);
        if (c->msr && r == 0)
                kvm_msr_set_one(&vcpu->kvm, c->msr, c->msr_value);
        c->npages = 0;
        c->everything = false;
        c->msr = 0;
        if (r < 0)
                vm_exit_with(vm, RAMET_EXIT_HOST, 0, "cow engine rom: %s", err.text);
}

bool cow_has_noted(const struct vcpu *vcpu)
{
        return noted(&vcpu->cow);
}

/* Whoever stopped the machine before us may have reset it, which forgets what was noted. */
void cow_break_noted(struct vcpu *vcpu)
{
        struct vm *vm = vcpu->vm;

        sync_stop(&vm->sync);
        break_noted(vcpu);
        sync_resume(&vm->sync);
        atomic_fetch_add(&vm->cow_stops, 1);
}

void cow_finish_msrs(struct vm *vm)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                if (vm->vcpus[i].cow.msr)
                        break_noted(&vm->vcpus[i]);
        }
}

/* Requests other than the one to yield have to be honoured first. */
static bool may_wait(struct vcpu *vcpu)
{
        return wants_baton(vcpu->vm) &&
               !(atomic_load(&vcpu->part.requests) & ~(1ull << VCPU_REQUEST_YIELD));
}

void cow_wait_turn(struct vcpu *vcpu)
{
        bool yield = sync_test_clear(&vcpu->part, VCPU_REQUEST_YIELD);

        if (!may_wait(vcpu))
                return;
        baton_take(&vcpu->vm->baton, vcpu, yield, may_wait);
}

void cow_give_turn(struct vcpu *vcpu)
{
        baton_drop(&vcpu->vm->baton, vcpu);
}

/* --- the machine stopped --- */

/* Pages that are to be broken before the machine runs: a bit a page, by their place in memory. */
struct page_set {
        struct vm *vm;
        uint64_t *bits;
};

static void set_add(struct page_set *set, uint64_t gpa, uint64_t len)
{
        uint64_t offset;

        for (uint64_t at = gpa - gpa % PAGE, n = pages_of(gpa, len); n > 0; n--, at += PAGE) {
                if (guest_mem_offset(&set->vm->mem, at, PAGE, &offset) == 0)
                        set->bits[offset / PAGE / 64] |= 1ull << offset / PAGE % 64;
        }
}

static bool set_has(const struct page_set *set, uint64_t page)
{
        return set->bits[page / 64] >> page % 64 & 1;
}

static int set_init(struct page_set *set, struct vm *vm, struct err *err)
{
        set->vm = vm;
        set->bits = calloc(vm->backing.size / PAGE / 64 + 1, sizeof *set->bits);
        return set->bits ? 0
                         : err_host(err, ENOMEM, "cow engine rom: no memory for a set of pages");
}

static int set_break(const struct page_set *set, struct err *err)
{
        struct backing *b = &set->vm->backing;
        uint64_t npages = b->size / PAGE;
        int r = 0;

        for (uint64_t from = 0, to; from < npages && r == 0; from = to + 1) {
                if (from % 64 == 0 && set->bits[from / 64] == 0) {
                        to = from + 63;
                        continue;
                }
                to = from;
                while (to < npages && set_has(set, to))
                        to++;
                if (to > from)
                        r = b->cow->break_range(b, from * PAGE, (to - from) * PAGE, err);
        }
        return r;
}

/* What looks like a page table in [offset, offset + len), which is at @pages. */
static void find_likely_in(struct page_set *set, const struct x86_table_filter *filter,
                           const uint8_t *pages, uint64_t offset, uint64_t len)
{
        for (uint64_t at = 0; at < len; at += PAGE) {
                uint64_t page = (offset + at) / PAGE;

                if (x86_table_likely(filter, pages + at))
                        set->bits[page / 64] |= 1ull << page % 64;
        }
}

/* And in the template's memory, read from its layers: a private mapping, which is new, would cost a
 * fault for every few pages. A root in its first freeze has the old one still. */
static int find_likely_tables(struct page_set *set, struct err *err)
{
        const struct backing *b = &set->vm->backing;
        const struct guest_mem *mem = &set->vm->mem;
        const struct guest_region *last = &mem->regions[mem->nregions - 1];
        uint64_t limit = last->gpa + last->size;
        struct x86_table_filter filter;
        uint8_t *buf = aligned_alloc(PAGE, SCAN_BYTES);

        if (!buf)
                return err_host(err, ENOMEM, "cow engine rom: no memory to look for page tables");
        if (limit < LAYOUT_HIGH_RAM)
                limit = LAYOUT_HIGH_RAM;
        filter = x86_table_filter(x86_cpuid_maxphyaddr(set->vm->cpuid), limit, true, false);
        for (size_t i = 0; i < b->extents.count; i++) {
                const struct extent *e = &b->extents.items[i];
                uint64_t end = e->offset + e->length;
                ssize_t n;

                if (b->parked) {
                        find_likely_in(set, &filter, b->parked + e->offset, e->offset, e->length);
                        continue;
                }
                for (uint64_t at = e->offset; at < end; at += (uint64_t)n) {
                        n = pread(b->layers[e->layer], buf,
                                  end - at < SCAN_BYTES ? end - at : SCAN_BYTES, (off_t)at);
                        if (n <= 0 || n % (ssize_t)PAGE) {
                                free(buf);
                                return err_host(err, n < 0 ? errno : EIO,
                                                "cow engine rom: reading a memory layer: %s",
                                                n < 0 ? strerror(errno) : "it is too short");
                        }
                        find_likely_in(set, &filter, buf, at, (uint64_t)n);
                }
        }
        free(buf);
        return 0;
}

/* 0, 1 when everything has to be taken, -errno. */
static int find_tables(struct page_set *set, const struct registers *s, struct err *err)
{
        const struct guest_mem *mem = &set->vm->mem;
        const struct guest_region *last = &mem->regions[mem->nregions - 1];
        const struct x86_mem_reader reader = reader_of(set->vm);
        uint64_t npages = (last->gpa + last->size) / PAGE;
        struct x86_tables tables;
        int r = x86_tables_init(&tables, npages);

        if (r < 0)
                return err_host(err, -r, "cow engine rom: no memory for a set of page tables");
        r = x86_tables_collect(&tables, &s->paging, &reader, 4 * npages + 1024);
        for (uint64_t page = 0; page < npages && r == 0; page++) {
                if (tables.levels[page])
                        set_add(set, page * PAGE, PAGE);
        }
        x86_tables_fini(&tables);
        return r < 0;
}

/* The same for the state of one vCPU. */
static int find_of_vcpu(struct page_set *set, struct vcpu *vcpu, struct err *err)
{
        const struct x86_mem_reader reader = reader_of(set->vm);
        struct kvm_msr_entry msrs[KVM_PV_MSRS_MAX];
        unsigned n = kvm_pv_msrs_get(&vcpu->kvm, &set->vm->msrs, msrs);
        uint64_t gpas[X86_SYSTEM_PAGES_MAX], gpa, len;
        struct kvm_mp_state state = {0};
        struct registers s;
        int r = get_registers(vcpu, &s);

        if (r == 0)
                r = kvm_ioctl(vcpu->kvm.fd, KVM_GET_MP_STATE, &state);
        if (r < 0)
                return err_host(err, -r, "cow engine rom: registers of vCPU %u: %s", vcpu->kvm.id,
                                strerror(-r));
        for (unsigned i = 0; i < n; i++) {
                if (kvm_pv_msr(msrs[i].index, msrs[i].data, &gpa, &len))
                        set_add(set, gpa, len);
        }
        if (state.mp_state == KVM_MP_STATE_UNINITIALIZED ||
            state.mp_state == KVM_MP_STATE_INIT_RECEIVED)
                return 0; /* its registers mean nothing yet */
        if (!s.bits64)
                return 1;
        n = x86_system_pages(&s.regs, &s.sregs, &s.paging, &reader, gpas);
        for (unsigned i = 0; i < n; i++)
                set_add(set, gpas[i], PAGE);
        return find_tables(set, &s, err);
}

int cow_prepare(struct vm *vm, struct err *err)
{
        struct page_set set;
        int r;

        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                vm->vcpus[i].cow = (struct vcpu_cow){0};
        if (!any_caught(vm))
                return 0;
        r = set_init(&set, vm, err);
        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++)
                r = find_of_vcpu(&set, &vm->vcpus[i], err);
        if (r > 0)
                r = break_all(vm, err);
        else if (r == 0)
                r = find_likely_tables(&set, err) ?: set_break(&set, err);
        free(set.bits);
        return r;
}

int cow_prepare_msrs(struct vm *vm, const struct record_reader *reader, struct err *err)
{
        struct page_set set;
        int r;

        if (!any_caught(vm))
                return 0;
        r = set_init(&set, vm, err);
        for (unsigned i = 0; i < vm->shape.vcpus && r == 0; i++) {
                const struct record *rec = record_find(reader, RECORD_MSRS, i);
                const struct kvm_msr_entry *entry = rec ? rec->data : NULL;
                uint64_t gpa, len;

                for (size_t k = 0; rec && k < rec->length / sizeof *entry; k++) {
                        if (kvm_pv_msr(entry[k].index, entry[k].data, &gpa, &len))
                                set_add(&set, gpa, len);
                }
        }
        if (r == 0)
                r = set_break(&set, err);
        free(set.bits);
        return r;
}

static void look(void *data)
{
        struct vm *vm = data;

        if (!any_caught(vm))
                return; /* a freeze or a reset, which may change that, ends with cow_watch() */
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                sync_request(&vm->vcpus[i].part, VCPU_REQUEST_YIELD);
        loop_rearm_timer(vm->cow_timer, WATCH_NS);
}

void cow_watch(struct vm *vm)
{
        if (!any_caught(vm))
                return;
        if (vm->cow_timer)
                loop_rearm_timer(vm->cow_timer, WATCH_NS);
        else
                loop_add_timer(vm->options.loop, WATCH_NS, look, vm, &vm->cow_timer);
}

void vm_cow_stats(struct vm *vm, struct vm_cow_stats *stats)
{
        struct rom_stats rom;

        rom_stats(&vm->backing, &rom);
        *stats = (struct vm_cow_stats){
                .pages = rom.pages,
                .slots = rom.slots,
                .compacted = rom.compacted,
                .stops = atomic_load(&vm->cow_stops),
                .decoded = atomic_load(&vm->cow_decoded),
                .everything = atomic_load(&vm->cow_everything),
                .handovers = atomic_load(&vm->baton.handovers),
                .short_turns = atomic_load(&vm->baton.short_turns),
        };
}
