/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On most hosts guests run natively and nothing of this file is ever used. Where a host runs guest
 * kernels by emulation (shadow paging without VT-x or SVM), KVM's emulator meets instructions it
 * does not have and gives up with KVM_EXIT_INTERNAL_ERROR, suberror EMULATION, with the bytes at
 * RIP. The few of them that an ordinary Linux kernel executes while it boots are done here:
 *
 *      int3            the kernel's self-test of breakpoints: #BP, RIP behind it (SDM vol. 3, 6.15)
 *      fwait           waits for x87 exceptions; none is pending in a kernel that keeps off the FPU
 *      clac, stac      RFLAGS.AC
 *
 * Each one done is counted by the caller and reported, so that nobody takes this path unknowingly.
 */
#include "x86/assist.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#define BP_VECTOR 3
#define RFLAGS_AC (1ull << 18)

static int advance(int fd, unsigned bytes, uint64_t flags_clear, uint64_t flags_set)
{
        struct kvm_regs regs;

        if (ioctl(fd, KVM_GET_REGS, &regs) < 0)
                return -errno;
        regs.rip += bytes;
        regs.rflags = (regs.rflags & ~flags_clear) | flags_set;
        if (ioctl(fd, KVM_SET_REGS, &regs) < 0)
                return -errno;
        return 1;
}

static int breakpoint(int fd)
{
        struct kvm_vcpu_events events;
        int r = advance(fd, 1, 0, 0);

        if (r < 0)
                return r;
        if (ioctl(fd, KVM_GET_VCPU_EVENTS, &events) < 0)
                return -errno;
        events.exception.injected = 1;
        events.exception.nr = BP_VECTOR;
        events.exception.has_error_code = 0;
        if (ioctl(fd, KVM_SET_VCPU_EVENTS, &events) < 0)
                return -errno;
        return 1;
}

int x86_assist(int vcpu_fd, const uint8_t *bytes, size_t len)
{
        if (len >= 1 && bytes[0] == 0xcc)
                return breakpoint(vcpu_fd);
        if (len >= 1 && bytes[0] == 0x9b)
                return advance(vcpu_fd, 1, 0, 0);
        if (len >= 3 && !memcmp(bytes, "\x0f\x01\xca", 3))
                return advance(vcpu_fd, 3, RFLAGS_AC, 0);
        if (len >= 3 && !memcmp(bytes, "\x0f\x01\xcb", 3))
                return advance(vcpu_fd, 3, 0, RFLAGS_AC);
        return 0;
}
