/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that KVM's emulator lacks and that guests need: assist.c says which, and why. */
#ifndef RAMET_X86_ASSIST_H
#define RAMET_X86_ASSIST_H

#include <stddef.h>
#include <stdint.h>

/* Do the instruction that KVM could not. @vcpu_fd: a vCPU that has just returned from KVM_RUN, in
 * its own thread. @bytes: what stands at RIP, @len of them (0 to 15). 1: done, enter the guest
 * again; 0: not one that is known here; -errno of KVM. */
int x86_assist(int vcpu_fd, const uint8_t *bytes, size_t len);

#endif
