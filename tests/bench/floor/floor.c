/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor under Ramet's figures: the least that must be done with the kernel, by a program that
 * shares no code with src/. Prints nanoseconds, one number.
 *
 *   floor freeze MIB   a memfd of MIB + 64 MiB behind a KVM slot, MIB of it written, on huge pages
 * if they can be had: mremap aside, mmap privately, F_ADD_SEALS floor cold MIB     fork; in the
 * child KVM_CREATE_VM, mmap of the sealed memfd, slot, KVM_CREATE_IRQCHIP, KVM_CREATE_PIT2,
 * KVM_CREATE_VCPU, KVM_SET_CPUID2, the state (below), KVM_RUN up to the first I/O exit. Timed from
 * before the fork. floor warm MIB     the same child, told through a socket once the VM, slot and
 * vCPU are there: mmap, the state, KVM_RUN. Timed from before the send.
 *
 * The state: what KVM_GET_* gave of a vCPU at reset is set once: MP state, REGS, SREGS, XCRS,
 * XSAVE, DEBUGREGS, LAPIC, all MSRs, VCPU_EVENTS, three IRQCHIPs, PIT2, CLOCK.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB 1048576ull

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static long check(long r, const char *what)
{
        if (r < 0) {
                perror(what);
                exit(1);
        }
        return r;
}

static void *map(void *at, size_t size, int flags, int fd)
{
        void *p = mmap(at, size, PROT_READ | PROT_WRITE, flags, fd, 0);

        if (p == MAP_FAILED)
                check(-1, "mmap");
        return p;
}

/* --- a VM with everything at reset --- */

static struct {
        int kvm, vm, vcpu;
        struct kvm_run *run;
        struct kvm_cpuid2 *cpuid;
        struct kvm_msrs *msrs;
} m;

static struct {
        struct kvm_mp_state mp;
        struct kvm_regs regs;
        struct kvm_sregs sregs;
        struct kvm_xcrs xcrs;
        struct kvm_xsave xsave;
        struct kvm_debugregs debug;
        struct kvm_lapic_state lapic;
        struct kvm_vcpu_events events;
        struct kvm_irqchip chips[3];
        struct kvm_pit_state2 pit;
        struct kvm_clock_data clock;
} state;

static void set_slot(void *at, size_t size)
{
        struct kvm_userspace_memory_region r = {.memory_size = size,
                                                .userspace_addr = (uintptr_t)at};

        check(ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &r), "KVM_SET_USER_MEMORY_REGION");
}

static void open_kvm(void)
{
        m.kvm = (int)check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
        m.vm = (int)check(ioctl(m.kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
}

static void make_vcpu(void)
{
        struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
        size_t len = (size_t)check(ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "vCPU size");

        check(ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
        check(ioctl(m.vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
        m.vcpu = (int)check(ioctl(m.vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
        m.run = map(NULL, len, MAP_SHARED, m.vcpu);
        check(ioctl(m.vcpu, KVM_SET_CPUID2, m.cpuid), "KVM_SET_CPUID2");
}

/* In a VM of its own, before the clock runs: the values to set later. */
static void learn_state(void)
{
        struct {
                uint32_t n;
                uint32_t index[1024];
        } list = {.n = 1024};
        uint32_t kept = 0;

        open_kvm();
        m.cpuid = calloc(1, sizeof *m.cpuid + 256 * sizeof m.cpuid->entries[0]);
        m.cpuid->nent = 256;
        check(ioctl(m.kvm, KVM_GET_SUPPORTED_CPUID, m.cpuid), "KVM_GET_SUPPORTED_CPUID");
        make_vcpu();
        check(ioctl(m.kvm, KVM_GET_MSR_INDEX_LIST, &list), "KVM_GET_MSR_INDEX_LIST");
        m.msrs = calloc(1, sizeof *m.msrs + list.n * sizeof m.msrs->entries[0]);
        for (uint32_t i = 0; i < list.n; i++) {
                struct kvm_msr_entry *e = &m.msrs->entries[kept];

                e->index = list.index[i];
                struct {
                        struct kvm_msrs head;
                        struct kvm_msr_entry entry;
                } one = {.head.nmsrs = 1, .entry = *e};
                if (ioctl(m.vcpu, KVM_GET_MSRS, &one) == 1 &&
                    ioctl(m.vcpu, KVM_SET_MSRS, &one) == 1) {
                        *e = one.entry;
                        kept++;
                }
        }
        m.msrs->nmsrs = kept;
        ioctl(m.vcpu, KVM_GET_MP_STATE, &state.mp);
        ioctl(m.vcpu, KVM_GET_REGS, &state.regs);
        ioctl(m.vcpu, KVM_GET_SREGS, &state.sregs);
        ioctl(m.vcpu, KVM_GET_XCRS, &state.xcrs);
        ioctl(m.vcpu, KVM_GET_XSAVE, &state.xsave);
        ioctl(m.vcpu, KVM_GET_DEBUGREGS, &state.debug);
        ioctl(m.vcpu, KVM_GET_LAPIC, &state.lapic);
        ioctl(m.vcpu, KVM_GET_VCPU_EVENTS, &state.events);
        for (unsigned i = 0; i < 3; i++) {
                state.chips[i].chip_id = i;
                ioctl(m.vm, KVM_GET_IRQCHIP, &state.chips[i]);
        }
        ioctl(m.vm, KVM_GET_PIT2, &state.pit);
        ioctl(m.vm, KVM_GET_CLOCK, &state.clock);
        state.clock.flags = 0;
        state.sregs.cs.base = state.sregs.cs.selector = 0;
        state.regs.rip = 0x1000;
        close(m.vcpu);
        close(m.vm);
        close(m.kvm);
}

static void set_state(void)
{
        for (unsigned i = 0; i < 3; i++)
                check(ioctl(m.vm, KVM_SET_IRQCHIP, &state.chips[i]), "KVM_SET_IRQCHIP");
        check(ioctl(m.vm, KVM_SET_PIT2, &state.pit), "KVM_SET_PIT2");
        check(ioctl(m.vcpu, KVM_SET_MP_STATE, &state.mp), "KVM_SET_MP_STATE");
        check(ioctl(m.vcpu, KVM_SET_REGS, &state.regs), "KVM_SET_REGS");
        check(ioctl(m.vcpu, KVM_SET_SREGS, &state.sregs), "KVM_SET_SREGS");
        check(ioctl(m.vcpu, KVM_SET_XCRS, &state.xcrs), "KVM_SET_XCRS");
        check(ioctl(m.vcpu, KVM_SET_XSAVE, &state.xsave), "KVM_SET_XSAVE");
        check(ioctl(m.vcpu, KVM_SET_DEBUGREGS, &state.debug), "KVM_SET_DEBUGREGS");
        check(ioctl(m.vcpu, KVM_SET_LAPIC, &state.lapic), "KVM_SET_LAPIC");
        check(ioctl(m.vcpu, KVM_SET_MSRS, m.msrs), "KVM_SET_MSRS");
        check(ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &state.events), "KVM_SET_VCPU_EVENTS");
        check(ioctl(m.vm, KVM_SET_CLOCK, &state.clock), "KVM_SET_CLOCK");
}

static void run_to_exit(void)
{
        check(ioctl(m.vcpu, KVM_RUN, 0), "KVM_RUN");
        if (m.run->exit_reason != KVM_EXIT_IO) {
                fprintf(stderr, "floor: exit %u, expected an I/O exit\n", m.run->exit_reason);
                exit(1);
        }
}

/* --- the measurements --- */

static int memory(size_t size, size_t written, uint8_t **at)
{
        int fd = (int)check(memfd_create("floor", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
        uint8_t *p;

        check(ftruncate(fd, (off_t)size), "ftruncate");
        p = map(NULL, size + 2 * MIB, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
        p += (2 * MIB - (uintptr_t)p % (2 * MIB)) % (2 * MIB);
        map(p, size, MAP_SHARED | MAP_FIXED, fd);
        for (size_t i = 0; i < size; i += 2 * MIB)
                p[i] = 0;
        madvise(p, size, MADV_COLLAPSE);
        memset(p + 2 * MIB, 0x5a, written);
        memcpy(p + 0x1000, "\xe4\x80\xf4", 3); /* in al, 0x80; hlt */
        *at = p;
        return fd;
}

static void seal(int fd, uint8_t *p, size_t size)
{
        munmap(p, size);
        check(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), "F_SEAL_WRITE");
}

static uint64_t freeze(size_t size, size_t written)
{
        uint8_t *p, *aside;
        int fd = memory(size, written, &p);
        uint64_t t0;

        open_kvm();
        set_slot(p, size);
        aside = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        t0 = now_ns();
        if (mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, aside) == MAP_FAILED)
                check(-1, "mremap");
        map(p, size, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd);
        check(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), "seal");
        return now_ns() - t0;
}

static uint64_t spawn(size_t size, size_t written, int warm)
{
        uint8_t *p;
        int fd = memory(size, written, &p), sock[2];
        uint64_t t0 = 0, t1 = 0;
        char c = 0;

        seal(fd, p, size);
        learn_state();
        check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock), "socketpair");
        if (!warm)
                t0 = now_ns();
        if (check(fork(), "fork") == 0) {
                p = map(NULL, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
                open_kvm();
                if (!warm)
                        map(p, size, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd);
                set_slot(p, size);
                make_vcpu();
                if (warm) {
                        check(write(sock[1], &c, 1), "write");
                        check(read(sock[1], &c, 1), "read");
                        map(p, size, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd);
                }
                set_state();
                run_to_exit();
                t1 = now_ns();
                check(write(sock[1], &t1, sizeof t1), "write");
                _exit(0);
        }
        if (warm) {
                check(read(sock[0], &c, 1), "read");
                usleep(20000); /* until KVM has settled, as it has under a waiting machine */
                t0 = now_ns();
                check(write(sock[0], &c, 1), "write");
        }
        check(read(sock[0], &t1, sizeof t1), "read");
        wait(NULL);
        return t1 - t0;
}

int main(int argc, char **argv)
{
        size_t written = argc == 3 ? strtoul(argv[2], NULL, 10) * MIB : 0;
        size_t size = written + 64 * MIB;
        uint64_t ns;

        if (!written) {
                fprintf(stderr, "usage: floor freeze|cold|warm MIB\n");
                return 2;
        }
        if (!strcmp(argv[1], "freeze"))
                ns = freeze(size, written);
        else
                ns = spawn(size, written, !strcmp(argv[1], "warm"));
        printf("%llu\n", (unsigned long long)ns);
        return 0;
}
