/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an x86 machine has besides memory and vCPUs: the interrupt controllers and the PIT, which
 * live in the kernel, and the processor description. The kernel's
 * api.rst, 4.24-4.26, 4.37, 4.41, 4.71.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "kvm/kvm.h"

/* SDM vol. 3, 11.11: the destination's APIC id, which is its vCPU's number; delivery mode NMI. */
#define MSI_ADDRESS     0xfee00000ull
#define MSI_DESTINATION 12
#define MSI_NMI         (4u << 8)

void kvm_x86_vm_init(const struct kvm_vm *vm)
{
        /* VT-x without unrestricted guest keeps a TSS and a page table inside the guest's address
         * space. Elsewhere the call has no effect, so that its failure means nothing. */
        kvm_ioctl(vm->fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)KVM_X86_TSS_ADDR);
}

static bool says_yes(const char *path)
{
        char answer = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return false;
        if (read(fd, &answer, 1) != 1)
                answer = 0;
        close(fd);
        return answer == 'Y' || answer == '1';
}

/* There is no capability that tells, but the modules say it. Others than these (kvm_pvm) shadow. */
bool kvm_x86_has_tdp(void)
{
        return access("/sys/module/kvm_pvm", F_OK) != 0 &&
               (says_yes("/sys/module/kvm_intel/parameters/ept") ||
                says_yes("/sys/module/kvm_amd/parameters/npt"));
}

/* kvm_pvm runs user mode natively with the host's debug registers, and gives traps there to the
 * guest; its kernel mode is emulated by KVM, which looks after both. */
bool kvm_x86_debugs_user(void)
{
        return access("/sys/module/kvm_pvm", F_OK) != 0;
}

int kvm_vm_create_irqchip(const struct kvm_host *host, struct kvm_vm *vm, struct err *err)
{
        struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
        int r = kvm_ioctl(vm->fd, KVM_CREATE_IRQCHIP, NULL);

        if (r < 0)
                return err_host(err, -r, "KVM_CREATE_IRQCHIP: %s", strerror(-r));
        vm->irqchip = true;
        if (!host->pit2)
                return 0;
        r = kvm_ioctl(vm->fd, KVM_CREATE_PIT2, &pit);
        if (r < 0)
                return err_host(err, -r, "KVM_CREATE_PIT2: %s", strerror(-r));
        vm->pit = true;
        return 0;
}

int kvm_vm_irq_line(const struct kvm_vm *vm, unsigned gsi, bool level)
{
        struct kvm_irq_level irq = {.irq = gsi, .level = level};

        return kvm_ioctl(vm->fd, KVM_IRQ_LINE, &irq);
}

int kvm_vm_msi(const struct kvm_vm *vm, uint64_t address, uint32_t data)
{
        struct kvm_msi msi = {.address_lo = (uint32_t)address,
                              .address_hi = (uint32_t)(address >> 32),
                              .data = data};
        int r = kvm_ioctl(vm->fd, KVM_SIGNAL_MSI, &msi);

        return r < 0 ? r : 0;
}

int kvm_vm_nmi(const struct kvm_vm *vm, unsigned vcpu)
{
        return kvm_vm_msi(vm, MSI_ADDRESS | (uint64_t)vcpu << MSI_DESTINATION, MSI_NMI);
}

int kvm_host_cpuid(const struct kvm_host *host, struct kvm_cpuid2 *cpuid, struct err *err)
{
        int r;

        cpuid->nent = KVM_HOST_CPUID_MAX;
        r = kvm_ioctl(host->fd, KVM_GET_SUPPORTED_CPUID, cpuid);
        if (r < 0)
                return err_host(err, -r, "KVM_GET_SUPPORTED_CPUID: %s", strerror(-r));
        return 0;
}
