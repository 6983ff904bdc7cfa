/* SPDX-License-Identifier: Apache-2.0 */
/* See bare.h. Page tables: one PML4, one PDPT, 16 page directories of 2 MiB pages: 16 GiB. */
#include "bare.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define CODE 0x100000ull

uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t tsc(void)
{
        return __builtin_ia32_rdtsc();
}

double tsc_per_ns(void)
{
        uint64_t t0 = now_ns(), c0 = tsc();

        usleep(20000);
        return (double)(tsc() - c0) / (double)(now_ns() - t0);
}

long check(long r, const char *what)
{
        if (r < 0) {
                perror(what);
                exit(1);
        }
        return r;
}

void *map(void *at, size_t size, int flags, int fd)
{
        void *p = mmap(at, size, PROT_READ | PROT_WRITE, flags, fd, 0);

        if (p == MAP_FAILED)
                check(-1, "mmap");
        return p;
}

int bare_memory(size_t size, int huge, uint8_t **at)
{
        int fd = (int)check(memfd_create("floor", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
        uint8_t *p;

        check(ftruncate(fd, (off_t)size), "ftruncate");
        p = map(NULL, size + 2 * MIB, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
        p += (2 * MIB - (uintptr_t)p % (2 * MIB)) % (2 * MIB);
        map(p, size, MAP_SHARED | MAP_FIXED, fd);
        if (huge) {
                for (size_t i = 0; i < size; i += 2 * MIB)
                        p[i] = 0;
                madvise(p, size, MADV_COLLAPSE);
        }
        memset(p, 0x5a, size);
        *at = p;
        return fd;
}

void bare_private(int fd, uint8_t *at, size_t size)
{
        munmap(at, size);
        check(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), "F_SEAL_WRITE");
        map(at, size, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd);
}

void bare_open(struct bare *b)
{
        b->kvm = (int)check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
        b->vm = (int)check(ioctl(b->kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
        b->run_bytes = (size_t)check(ioctl(b->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "vCPU size");
        check(ioctl(b->vm, KVM_SET_TSS_ADDR, 0xfffbd000ul), "KVM_SET_TSS_ADDR");
}

void bare_slot(struct bare *b, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
               uint32_t flags)
{
        struct kvm_userspace_memory_region r = {.slot = slot,
                                                .flags = flags,
                                                .guest_phys_addr = gpa,
                                                .memory_size = size,
                                                .userspace_addr = (uintptr_t)hva};

        check(ioctl(b->vm, KVM_SET_USER_MEMORY_REGION, &r), "KVM_SET_USER_MEMORY_REGION");
}

void bare_load(uint8_t *at, const void *code, size_t len)
{
        uint64_t *pml4 = (uint64_t *)(at + 0x1000), *pdpt = (uint64_t *)(at + 0x2000);
        uint64_t *pd = (uint64_t *)(at + 0x3000);

        memset(at, 0, 0x13000);
        pml4[0] = 0x2000 | 7;
        for (unsigned i = 0; i < 16; i++)
                pdpt[i] = (0x3000 + i * PAGE) | 7;
        for (uint64_t i = 0; i < 16 * 512; i++)
                pd[i] = i * 2 * MIB | 0xe7; /* present, writable, user, accessed, dirty, 2 MiB */
        memcpy(at + CODE, code, len);
}

void bare_vcpu(struct bare *b, unsigned id, uint64_t rdi, uint64_t rsi, uint64_t rdx,
               struct bare_vcpu *v)
{
        struct kvm_segment data = {.limit = 0xffffffff,
                                   .selector = 0x2b,
                                   .type = 3,
                                   .present = 1,
                                   .dpl = 3,
                                   .db = 1,
                                   .s = 1,
                                   .g = 1};
        struct kvm_segment code = {.limit = 0xffffffff,
                                   .selector = 0x33,
                                   .type = 11,
                                   .present = 1,
                                   .dpl = 3,
                                   .l = 1,
                                   .s = 1,
                                   .g = 1};
        struct {
                struct kvm_cpuid2 head;
                struct kvm_cpuid_entry2 entries[256];
        } cpuid = {.head.nent = 256};
        struct kvm_sregs s;

        v->fd = (int)check(ioctl(b->vm, KVM_CREATE_VCPU, id), "KVM_CREATE_VCPU");
        v->run = map(NULL, b->run_bytes, MAP_SHARED, v->fd);
        check(ioctl(b->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
        check(ioctl(v->fd, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
        check(ioctl(v->fd, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
        s.cs = code;
        s.ds = s.es = s.ss = s.fs = s.gs = data;
        s.cr0 = 0x80010033; /* PG WP NE ET MP PE */
        s.cr3 = 0x1000;
        s.cr4 = 0x620;  /* PAE, OSFXSR, OSXMMEXCPT */
        s.efer = 0x500; /* LME, LMA */
        check(ioctl(v->fd, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
        bare_again(v, rdi, rsi, rdx);
}

void bare_again(struct bare_vcpu *v, uint64_t rdi, uint64_t rsi, uint64_t rdx)
{
        struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rdi = rdi, .rsi = rsi, .rdx = rdx};

        check(ioctl(v->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

void bare_slots(struct bare *b, uint8_t *hva, uint64_t size)
{
        bare_slot(b, 0, 0, size < BARE_GAP ? size : BARE_GAP, hva, 0);
        if (size > BARE_GAP)
                bare_slot(b, 1, BARE_HIGH, size - BARE_GAP, hva + BARE_GAP, 0);
}

void bare_run(struct bare_vcpu *v)
{
        check(ioctl(v->fd, KVM_RUN, 0), "KVM_RUN");
        if (v->run->exit_reason != KVM_EXIT_MMIO) {
                fprintf(stderr, "floor: exit %u, expected MMIO\n", v->run->exit_reason);
                exit(1);
        }
        /* The instruction is done when KVM_RUN is called again. */
        v->run->immediate_exit = 1;
        ioctl(v->fd, KVM_RUN, 0);
        v->run->immediate_exit = 0;
}

asm(".pushsection .rodata\n"
    ".globl code_write_pages, code_write_pages_end, code_spin, code_spin_end\n"
    "code_write_pages:\n"
    "        mov %rdx, %r8\n"
    "1:      lfence; rdtsc\n"
    "        shl $32, %rdx; or %rax, %rdx; mov %rdx, %r9\n"
    "        movq $1, (%rdi)\n"
    "        lfence; rdtsc\n"
    "        shl $32, %rdx; or %rax, %rdx; sub %r9, %rdx\n"
    "        mov %rdx, (%r8)\n"
    "        add $8, %r8; add $4096, %rdi; dec %rsi; jnz 1b\n"
    "        movabs $0x300000000, %rax; mov (%rax), %eax\n"
    "2:      jmp 2b\n"
    "code_write_pages_end:\n"
    "code_spin:\n"
    "1:      pause; jmp 1b\n"
    "code_spin_end:\n"
    ".popsection\n");
