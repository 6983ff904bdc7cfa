/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor under harness-exec: a guest that is run again and again from the point where it first
 * rang its doorbell, each time with another input, in one thread.
 *
 *      exec GUEST how N INPUT...
 *
 * GUEST is an ELF file with a PVH note, whose symbols `input` and `input_length` are where an input
 * (hexadecimal, - is the empty one) goes. All inputs are run N times, after one round that is not
 * counted. Prints "NANOSECONDS VALUE" for each: VALUE is what the guest rang with.
 *
 * Before the first: KVM_CREATE_VM, KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2, a slot of 16 MiB on a
 * memfd, a vCPU, KVM_RUN to the ring; the memfd is then sealed and mapped privately. Calls for each
 * input, all of which are timed:
 *
 *      PAGEMAP_SCAN       which pages are no longer the memfd's; a copy of each from the memfd
 *                         (how = copy), or madvise(MADV_DONTNEED) of each run of them (how = drop)
 *      the state          KVM_SET_IRQCHIP three times, KVM_SET_PIT2, and of the vCPU
 *                         KVM_SET_MP_STATE, REGS, SREGS, XCRS, XSAVE, DEBUGREGS, LAPIC, MSRS (all
 *                         that KVM lists and can set), VCPU_EVENTS; KVM_SET_CLOCK
 *      two copies         the input and its length
 *      KVM_RUN            to the write of the doorbell, which comes as KVM_EXIT_MMIO
 *
 * KVM's shadows of page tables are left as they are: this guest does not change its page tables.
 */
#include "bare.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY      (16 * MIB)
#define DOORBELL    0xd0000008ull
#define START_INFO  0x7000u
#define PVH_MAGIC   0x336ec578u
#define PVH_ENTRY   18 /* XEN_ELFNOTE_PHYS32_ENTRY */
#define SERIAL_LSR  0x3fd
#define INPUTS_MAX  256
#define PAGES_MAX   1024
#define SCAN_RANGES 256

/* <linux/fs.h> of Linux 6.7 */
struct scan {
        uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
        uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct range {
        uint64_t start, end, categories;
};

#define PAGEMAP_SCAN_NR _IOWR('f', 16, struct scan)
#define IS_FILE         (1 << 2)
#define IS_PRESENT      (1 << 3)

static struct bare b;
static int vcpu, pagemap;
static struct kvm_run *run;
static uint8_t *ram;    /* the guest's, private */
static uint8_t *sealed; /* the memfd, as it was at the ring */
static uint64_t input_at, length_at, entry;

static struct {
        struct kvm_mp_state mp;
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct kvm_xcrs xcrs;
        struct kvm_xsave xsave[4]; /* more than KVM_SET_XSAVE reads */
        struct kvm_debugregs debug;
        struct kvm_lapic_state lapic;
        struct kvm_vcpu_events events;
        struct kvm_irqchip chips[3];
        struct kvm_pit_state2 pit;
        struct kvm_clock_data clock;
        struct kvm_msrs *msrs;
} state;

static _Noreturn void die(const char *what)
{
        fprintf(stderr, "exec: %s\n", what);
        exit(1);
}

/* --- the guest's file --- */

static void find_symbols(const uint8_t *file, const Elf64_Ehdr *eh)
{
        const Elf64_Shdr *sh = (const void *)(file + eh->e_shoff);

        for (unsigned i = 0; i < eh->e_shnum; i++) {
                const Elf64_Sym *sym = (const void *)(file + sh[i].sh_offset);
                const char *names;

                if (sh[i].sh_type != SHT_SYMTAB)
                        continue;
                names = (const char *)file + sh[sh[i].sh_link].sh_offset;
                for (unsigned n = 0; n < sh[i].sh_size / sizeof *sym; n++) {
                        if (!strcmp(names + sym[n].st_name, "input"))
                                input_at = sym[n].st_value;
                        if (!strcmp(names + sym[n].st_name, "input_length"))
                                length_at = sym[n].st_value;
                }
        }
}

static void load(const char *path)
{
        int fd = (int)check(open(path, O_RDONLY | O_CLOEXEC), path);
        off_t size = (off_t)check(lseek(fd, 0, SEEK_END), "lseek");
        uint8_t *file = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
        const Elf64_Ehdr *eh = (const void *)file;
        const Elf64_Phdr *ph;
        uint32_t info[14] = {PVH_MAGIC, 1};

        if (file == MAP_FAILED)
                die("mmap of the guest");
        ph = (const void *)(file + eh->e_phoff);
        for (unsigned i = 0; i < eh->e_phnum; i++) {
                const Elf64_Nhdr *note = (const void *)(file + ph[i].p_offset);

                if (ph[i].p_type == PT_LOAD)
                        memcpy(ram + ph[i].p_paddr, file + ph[i].p_offset, ph[i].p_filesz);
                if (ph[i].p_type == PT_NOTE && note->n_type == PVH_ENTRY)
                        memcpy(&entry, (const uint8_t *)(note + 1) + ((note->n_namesz + 3) & ~3u),
                               note->n_descsz < 8 ? note->n_descsz : 8);
        }
        find_symbols(file, eh);
        memcpy(ram + START_INFO, info, sizeof info);
        if (!entry || !input_at || !length_at)
                die("the guest has no PVH entry, or not the symbols");
}

/* --- the machine --- */

static void make_machine(void)
{
        struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
        struct {
                struct kvm_cpuid2 head;
                struct kvm_cpuid_entry2 entries[256];
        } cpuid = {.head.nent = 256};
        struct kvm_segment flat = {.limit = 0xffffffff,
                                   .type = 3,
                                   .present = 1,
                                   .db = 1,
                                   .s = 1,
                                   .g = 1,
                                   .selector = 0x10};
        struct kvm_sregs s;
        struct kvm_regs r = {.rip = entry, .rflags = 2, .rbx = START_INFO};

        bare_open(&b);
        check(ioctl(b.vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
        check(ioctl(b.vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
        bare_slot(&b, 0, 0, MEMORY, ram, 0);
        vcpu = (int)check(ioctl(b.vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
        run = map(NULL, b.run_bytes, MAP_SHARED, vcpu);
        check(ioctl(b.kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
        check(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
        check(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
        s.ds = s.es = s.fs = s.gs = s.ss = flat;
        s.cs = flat;
        s.cs.selector = 0x8;
        s.cs.type = 11;
        s.cr0 = 0x11; /* PE, ET */
        check(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
        check(ioctl(vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
}

/* Run to the ring; what it rang with. The serial port is always ready, other ports are not there.
 */
static uint32_t run_to_ring(void)
{
        uint32_t value;

        for (;;) {
                check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
                if (run->exit_reason == KVM_EXIT_MMIO) {
                        if (!run->mmio.is_write || run->mmio.phys_addr != DOORBELL)
                                die("an access to nothing");
                        memcpy(&value, run->mmio.data, sizeof value);
                        return value;
                }
                if (run->exit_reason != KVM_EXIT_IO)
                        die("an exit that is neither I/O nor MMIO");
                if (run->io.direction == KVM_EXIT_IO_IN)
                        memset((uint8_t *)run + run->io.data_offset,
                               run->io.port == SERIAL_LSR ? 0x60 : 0xff,
                               run->io.size * run->io.count);
        }
}

static void save_msrs(void)
{
        struct {
                uint32_t n;
                uint32_t index[1024];
        } list = {.n = 1024};
        uint32_t kept = 0;

        check(ioctl(b.kvm, KVM_GET_MSR_INDEX_LIST, &list), "KVM_GET_MSR_INDEX_LIST");
        state.msrs = calloc(1, sizeof *state.msrs + list.n * sizeof state.msrs->entries[0]);
        for (uint32_t i = 0; i < list.n; i++) {
                struct {
                        struct kvm_msrs head;
                        struct kvm_msr_entry entry;
                } one = {.head.nmsrs = 1, .entry.index = list.index[i]};

                if (ioctl(vcpu, KVM_GET_MSRS, &one) == 1 && ioctl(vcpu, KVM_SET_MSRS, &one) == 1)
                        state.msrs->entries[kept++] = one.entry;
        }
        state.msrs->nmsrs = kept;
}

/* The instruction that rang is finished first. */
static void save_state(void)
{
        run->immediate_exit = 1;
        ioctl(vcpu, KVM_RUN, 0);
        run->immediate_exit = 0;
        check(ioctl(vcpu, KVM_GET_MP_STATE, &state.mp), "KVM_GET_MP_STATE");
        check(ioctl(vcpu, KVM_GET_REGS, &state.regs), "KVM_GET_REGS");
        check(ioctl(vcpu, KVM_GET_SREGS, &state.sregs), "KVM_GET_SREGS");
        check(ioctl(vcpu, KVM_GET_XCRS, &state.xcrs), "KVM_GET_XCRS");
        check(ioctl(vcpu, KVM_GET_XSAVE, state.xsave), "KVM_GET_XSAVE");
        check(ioctl(vcpu, KVM_GET_DEBUGREGS, &state.debug), "KVM_GET_DEBUGREGS");
        check(ioctl(vcpu, KVM_GET_LAPIC, &state.lapic), "KVM_GET_LAPIC");
        check(ioctl(vcpu, KVM_GET_VCPU_EVENTS, &state.events), "KVM_GET_VCPU_EVENTS");
        save_msrs();
        for (unsigned i = 0; i < 3; i++) {
                state.chips[i].chip_id = i;
                check(ioctl(b.vm, KVM_GET_IRQCHIP, &state.chips[i]), "KVM_GET_IRQCHIP");
        }
        check(ioctl(b.vm, KVM_GET_PIT2, &state.pit), "KVM_GET_PIT2");
        check(ioctl(b.vm, KVM_GET_CLOCK, &state.clock), "KVM_GET_CLOCK");
        state.clock.flags = 0;
}

/* --- each input --- */

static void restore_memory(bool copy)
{
        static struct range ranges[SCAN_RANGES];
        struct scan s = {.size = sizeof s,
                         .start = (uintptr_t)ram,
                         .end = (uintptr_t)ram + MEMORY,
                         .vec = (uintptr_t)ranges,
                         .vec_len = SCAN_RANGES,
                         .category_inverted = IS_FILE,
                         .category_mask = IS_FILE | IS_PRESENT,
                         .return_mask = IS_FILE | IS_PRESENT};
        long n = check(ioctl(pagemap, PAGEMAP_SCAN_NR, &s), "PAGEMAP_SCAN");

        for (long i = 0; i < n; i++) {
                uint8_t *at = ram + (ranges[i].start - (uintptr_t)ram);
                size_t size = ranges[i].end - ranges[i].start;

                if (copy)
                        memcpy(at, sealed + (at - ram), size);
                else
                        check(madvise(at, size, MADV_DONTNEED), "MADV_DONTNEED");
        }
}

static void restore_state(void)
{
        for (unsigned i = 0; i < 3; i++)
                check(ioctl(b.vm, KVM_SET_IRQCHIP, &state.chips[i]), "KVM_SET_IRQCHIP");
        check(ioctl(vcpu, KVM_SET_MP_STATE, &state.mp), "KVM_SET_MP_STATE");
        check(ioctl(vcpu, KVM_SET_REGS, &state.regs), "KVM_SET_REGS");
        check(ioctl(vcpu, KVM_SET_SREGS, &state.sregs), "KVM_SET_SREGS");
        check(ioctl(vcpu, KVM_SET_XCRS, &state.xcrs), "KVM_SET_XCRS");
        check(ioctl(vcpu, KVM_SET_XSAVE, state.xsave), "KVM_SET_XSAVE");
        check(ioctl(vcpu, KVM_SET_DEBUGREGS, &state.debug), "KVM_SET_DEBUGREGS");
        check(ioctl(vcpu, KVM_SET_LAPIC, &state.lapic), "KVM_SET_LAPIC");
        check(ioctl(vcpu, KVM_SET_MSRS, state.msrs), "KVM_SET_MSRS");
        check(ioctl(vcpu, KVM_SET_VCPU_EVENTS, &state.events), "KVM_SET_VCPU_EVENTS");
        check(ioctl(b.vm, KVM_SET_PIT2, &state.pit), "KVM_SET_PIT2");
        check(ioctl(b.vm, KVM_SET_CLOCK, &state.clock), "KVM_SET_CLOCK");
}

struct input {
        uint32_t len;
        uint8_t data[2048];
};

static uint32_t run_input(const struct input *in, bool copy)
{
        restore_memory(copy);
        restore_state();
        memcpy(ram + input_at, in->data, in->len);
        memcpy(ram + length_at, &in->len, sizeof in->len);
        return run_to_ring();
}

static void parse(const char *hex, struct input *in)
{
        for (; *hex != '-' && sscanf(hex, "%2hhx", &in->data[in->len]) == 1; hex += 2)
                in->len++;
}

int main(int argc, char **argv)
{
        static struct input inputs[INPUTS_MAX];
        unsigned n = argc > 4 ? (unsigned)argc - 4 : 0,
                 rounds = argc > 4 ? (unsigned)atoi(argv[3]) : 0;
        bool copy = argc > 4 && !strcmp(argv[2], "copy");
        int fd;

        if (n == 0 || n > INPUTS_MAX) {
                fprintf(stderr, "usage: exec GUEST copy|drop N INPUT...\n");
                return 2;
        }
        for (unsigned i = 0; i < n; i++)
                parse(argv[4 + i], &inputs[i]);
        fd = bare_memory(MEMORY, 0, &ram);
        memset(ram, 0, MEMORY);
        load(argv[1]);
        make_machine();
        run_to_ring();
        save_state();
        bare_private(fd, ram, MEMORY);
        sealed = mmap(NULL, MEMORY, PROT_READ, MAP_SHARED, fd, 0);
        pagemap = (int)check(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), "pagemap");
        for (unsigned i = 0; i < n * (rounds + 1); i++) {
                uint64_t t0 = now_ns();
                uint32_t value = run_input(&inputs[i % n], copy);

                if (i >= n)
                        printf("%llu %u\n", (unsigned long long)(now_ns() - t0), value);
        }
        return 0;
}
