/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrappers of KVM's ioctls: see kvm.h. Nothing here keeps state beyond the descriptors; each
 * failure names the ioctl and, where a user can do something about it, what. Source for all of it:
 * the kernel's Documentation/virt/kvm/api.rst, whose section numbers stand at the calls.
 */
#include "kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int kvm_ioctl(int fd, unsigned long request, void *arg)
{
        int r;

        do {
                r = ioctl(fd, request, arg);
        } while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : r;
}

static int has(int fd, long cap)
{
        int r = ioctl(fd, KVM_CHECK_EXTENSION, cap);

        return r > 0 ? r : 0;
}

static int open_dev_kvm(struct err *err)
{
        int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);

        if (fd >= 0)
                return fd;
        switch (errno) {
        case ENOENT:
                return err_host(err, ENOENT,
                                "/dev/kvm: no such file: this host offers no KVM "
                                "(load kvm_intel or kvm_amd, or enable nested virtualization)");
        case EACCES:
        case EPERM:
                return err_host(err, errno,
                                "/dev/kvm: permission denied: add yourself to the kvm group");
        default:
                return err_host(err, errno, "/dev/kvm: %s", strerror(errno));
        }
}

/* What no machine of ours can do without. */
static const struct {
        long cap;
        const char *name;
} required[] = {
        {KVM_CAP_USER_MEMORY, "USER_MEMORY"},
        {KVM_CAP_IRQCHIP, "IRQCHIP"},
        {KVM_CAP_IMMEDIATE_EXIT, "IMMEDIATE_EXIT"},
        {KVM_CAP_MP_STATE, "MP_STATE"},
        {KVM_CAP_VCPU_EVENTS, "VCPU_EVENTS"},
        {KVM_CAP_EXT_CPUID, "EXT_CPUID"},
        {KVM_CAP_XSAVE, "XSAVE"},
};

int kvm_host_open(struct kvm_host *host, struct err *err)
{
        int fd = open_dev_kvm(err);
        int r;

        if (fd < 0)
                return fd;
        r = ioctl(fd, KVM_GET_API_VERSION, 0);
        if (r != KVM_API_VERSION) {
                close(fd);
                return err_host(err, ENOSYS, "/dev/kvm: API version %d, expected %d", r,
                                KVM_API_VERSION);
        }
        for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
                if (has(fd, required[i].cap))
                        continue;
                close(fd);
                return err_host(err, ENOSYS, "this host's KVM has no %s, which Ramet needs",
                                required[i].name);
        }
        r = ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0);
        if (r < (int)sizeof(struct kvm_run)) {
                close(fd);
                return err_host(err, EIO, "KVM_GET_VCPU_MMAP_SIZE: %d is too small", r);
        }
        *host = (struct kvm_host){
                .fd = fd,
                .vcpu_map_bytes = (size_t)r,
                .max_vcpus = (unsigned)has(fd, KVM_CAP_MAX_VCPUS),
#ifdef KVM_CAP_SREGS2
                .sregs2 = has(fd, KVM_CAP_SREGS2),
#endif
                .xsave2 = has(fd, KVM_CAP_XSAVE2),
                .xcrs = has(fd, KVM_CAP_XCRS),
                .debugregs = has(fd, KVM_CAP_DEBUGREGS),
                .adjust_clock = has(fd, KVM_CAP_ADJUST_CLOCK),
                .emulation_exit = has(fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE),
                .pit2 = has(fd, KVM_CAP_PIT2) && has(fd, KVM_CAP_PIT_STATE2),
                .ioeventfd = has(fd, KVM_CAP_IOEVENTFD),
                .irqfd = has(fd, KVM_CAP_IRQFD),
                .signal_msi = has(fd, KVM_CAP_SIGNAL_MSI),
                .guest_debug = has(fd, KVM_CAP_SET_GUEST_DEBUG),
                .debug_blockirq = has(fd, KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ,
                .debug_user = kvm_x86_debugs_user(),
                .tdp = kvm_x86_has_tdp(),
        };
        return 0;
}

void kvm_host_close(struct kvm_host *host)
{
        if (host->fd > 0)
                close(host->fd);
        host->fd = -1;
}

#define FEATURE(there, name, instead)                                                              \
        {                                                                                          \
                there,                                                                             \
                {                                                                                  \
                        name, instead, "no " name ": " instead, false                              \
                }                                                                                  \
        }
#define FOR_PROGRAMS(there, name, how)                                                             \
        {                                                                                          \
                there,                                                                             \
                {                                                                                  \
                        name, how, "no " name ": " how, true                                       \
                }                                                                                  \
        }

bool kvm_host_missing(const struct kvm_host *host, unsigned *at, struct kvm_missing *missing)
{
        const struct {
                bool there;
                struct kvm_missing missing;
        } features[] = {
                FEATURE(host->sregs2, "SREGS2", "system registers are saved by KVM_GET_SREGS"),
                FEATURE(host->xsave2, "XSAVE2",
                        "extended state is saved by KVM_GET_XSAVE, 4 KiB of it"),
                FEATURE(host->xcrs, "XCRS", "extended control registers are not saved"),
                FEATURE(host->debugregs, "DEBUGREGS", "debug registers are not saved"),
                FEATURE(host->adjust_clock, "ADJUST_CLOCK",
                        "a clone's clock goes on from the save"),
                FEATURE(host->emulation_exit, "EXIT_ON_EMULATION_FAILURE",
                        "what KVM cannot emulate is the guest's invalid opcode"),
                FEATURE(host->pit2, "PIT2 or PIT_STATE2", "there is no interval timer"),
                FEATURE(host->ioeventfd, "IOEVENTFD", "notifications of virtio devices are exits"),
                FEATURE(host->irqfd, "IRQFD",
                        "interrupts of virtio devices are raised by KVM_IRQ_LINE"),
                FOR_PROGRAMS(host->signal_msi, "SIGNAL_MSI", "a program sends no NMI and no MSI"),
                FOR_PROGRAMS(host->guest_debug, "SET_GUEST_DEBUG",
                             "there are no breakpoints and no steps"),
                FOR_PROGRAMS(
                        !host->guest_debug || host->debug_user, "debugging in user mode",
                        "with one in the lower half of the addresses, instructions go one by one"),
        };

        while (*at < sizeof features / sizeof features[0]) {
                unsigned i = (*at)++;

                if (features[i].there)
                        continue;
                *missing = features[i].missing;
                return true;
        }
        return false;
}

int kvm_vm_open(const struct kvm_host *host, struct kvm_vm *vm, struct err *err)
{
        int fd = kvm_ioctl(host->fd, KVM_CREATE_VM, NULL);
        int r;

        if (fd < 0)
                return err_host(err, -fd, "KVM_CREATE_VM: %s", strerror(-fd));
        *vm = (struct kvm_vm){.fd = fd, .xsave_bytes = sizeof(struct kvm_xsave)};
        if (host->xsave2) {
                r = has(fd, KVM_CAP_XSAVE2);
                if (r > (int)vm->xsave_bytes)
                        vm->xsave_bytes = (size_t)r;
        }
        if (host->emulation_exit) {
                struct kvm_enable_cap cap = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = {1}};

                kvm_ioctl(fd, KVM_ENABLE_CAP, &cap);
        }
#ifdef KVM_CAP_X86_TRIPLE_FAULT_EVENT
        /* A triple fault that waits is among the events that are saved. */
        kvm_ioctl(fd, KVM_ENABLE_CAP,
                  &(struct kvm_enable_cap){.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT, .args = {1}});
#endif
        kvm_x86_vm_init(vm);
        return 0;
}

void kvm_vm_close(struct kvm_vm *vm)
{
        if (vm->fd > 0)
                close(vm->fd);
        vm->fd = -1;
}

int kvm_vm_has(const struct kvm_vm *vm, long cap)
{
        return has(vm->fd, cap);
}

int kvm_vm_set_slot(const struct kvm_vm *vm, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
                    uint32_t flags, struct err *err)
{
        struct kvm_userspace_memory_region region = {
                .slot = slot,
                .flags = flags,
                .guest_phys_addr = gpa,
                .memory_size = size,
                .userspace_addr = (uintptr_t)hva,
        };
        int r = kvm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);

        if (r < 0)
                return err_host(err, -r, "KVM_SET_USER_MEMORY_REGION: slot %u, %llu bytes: %s",
                                slot, (unsigned long long)size, strerror(-r));
        return 0;
}

int kvm_vm_ioeventfd(const struct kvm_vm *vm, uint64_t gpa, unsigned len, int fd)
{
        struct kvm_ioeventfd e = {.addr = gpa, .len = len, .fd = fd};

        return kvm_ioctl(vm->fd, KVM_IOEVENTFD, &e);
}

int kvm_vm_irqfd(const struct kvm_vm *vm, unsigned gsi, int fd)
{
        struct kvm_irqfd e = {.fd = (uint32_t)fd, .gsi = gsi};

        return kvm_ioctl(vm->fd, KVM_IRQFD, &e);
}

int kvm_vcpu_open(const struct kvm_host *host, const struct kvm_vm *vm, unsigned id,
                  struct kvm_vcpu *vcpu, struct err *err)
{
        int fd = kvm_ioctl(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)id);
        struct kvm_dirty_gfn *ring = NULL;
        void *run;
        int khz;

        if (fd < 0)
                return err_host(err, -fd, "KVM_CREATE_VCPU: vCPU %u: %s", id, strerror(-fd));
        run = mmap(NULL, host->vcpu_map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (run == MAP_FAILED) {
                int e = errno;

                close(fd);
                return err_host(err, e, "mapping vCPU %u: %s", id, strerror(e));
        }
        if (vm->ring_entries) {
                ring = mmap(NULL, vm->ring_entries * sizeof *ring, PROT_READ | PROT_WRITE,
                            MAP_SHARED, fd, KVM_DIRTY_LOG_PAGE_OFFSET * 4096);
                if (ring == MAP_FAILED) {
                        int e = errno;

                        munmap(run, host->vcpu_map_bytes);
                        close(fd);
                        return err_host(err, e, "mapping the dirty ring of vCPU %u: %s", id,
                                        strerror(e));
                }
        }
        khz = kvm_ioctl(fd, KVM_GET_TSC_KHZ, NULL);
        *vcpu = (struct kvm_vcpu){
                .fd = fd,
                .id = id,
                .run = run,
                .map_bytes = host->vcpu_map_bytes,
                .ring = ring,
                .ring_entries = vm->ring_entries,
                .tsc_khz = khz > 0 ? (uint32_t)khz : 0,
        };
        return 0;
}

int kvm_vcpu_open_signal(const struct kvm_vcpu *vcpu, int signal, struct err *err)
{
        const uint64_t of_libc = 1ull << (32 - 1) | 1ull << (33 - 1);
        struct {
                struct kvm_signal_mask head;
                uint64_t blocked; /* the kernel's sigset_t, not the C library's */
        } __attribute__((packed)) mask = {
                .head.len = sizeof mask.blocked,
                .blocked = ~(1ull << (signal - 1) | of_libc),
        };
        int r = kvm_ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask);

        if (r < 0)
                return err_host(err, -r, "KVM_SET_SIGNAL_MASK: vCPU %u: %s", vcpu->id,
                                strerror(-r));
        return 0;
}

void kvm_vcpu_close(struct kvm_vcpu *vcpu)
{
        if (vcpu->ring)
                munmap(vcpu->ring, vcpu->ring_entries * sizeof *vcpu->ring);
        if (vcpu->run)
                munmap(vcpu->run, vcpu->map_bytes);
        if (vcpu->fd > 0)
                close(vcpu->fd);
        *vcpu = (struct kvm_vcpu){.fd = -1};
}
