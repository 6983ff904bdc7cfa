/* SPDX-License-Identifier: Apache-2.0 */
/* IRETQ, for hosts whose KVM does it and says nothing, and goes on. */
#ifndef RAMET_X86_IRET_H
#define RAMET_X86_IRET_H

#include "x86/walk.h"

/* Does the instruction at RIP of a vCPU outside KVM_RUN, if that is an IRETQ from 64-bit code of
 * CPL 0 to such of CPL 0 or 3. 1: it is done; 0: it is something else, or would fault, and KVM is
 * to do it; *sti says if it is the one after which interrupts wait for another instruction; -errno.
 */
int x86_iretq(int vcpu_fd, uint8_t maxphyaddr, const struct x86_mem_reader *reader, bool *sti);

#endif
