/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's side of an engine whose caught writes are exits (`rom`): what vcpu.c, freeze.c and
 * spawn.c call. With another engine all of it does nothing.
 */
#ifndef RAMET_VM_COW_H
#define RAMET_VM_COW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/record.h"

struct vcpu;
struct vm;

/* --- exits; own thread, inside its read section --- */

/* KVM_EXIT_MMIO at an address that is RAM: does the write and notes the page. False: not RAM. */
bool cow_exit_mmio(struct vcpu *vcpu);
/* KVM cannot emulate the instruction at RIP. True: that may be so because it writes to pages that
 * are caught; they are noted, and it is to be run again once they are broken. */
bool cow_exit_emulation(struct vcpu *vcpu, const uint8_t *bytes, size_t n);
/* KVM could not deliver an event, since that writes a page; @gpa: which, UINT64_MAX if KVM does not
 * say. True: noted, to be run again. */
bool cow_exit_delivery(struct vcpu *vcpu, uint64_t gpa);
/* A triple fault. True: KVM may have made it of an exception whose frame goes to pages that are
 * caught; they are noted, and the instruction that it is of is to be run again. */
bool cow_exit_shutdown(struct vcpu *vcpu);
/* The guest writes an MSR that may name memory for KVM to write. */
void cow_exit_wrmsr(struct vcpu *vcpu);
/* KVM_RUN returned with @error, EINTR or EAGAIN. */
void cow_interrupted(struct vcpu *vcpu, int error);

/* --- the top of the loop; own thread --- */

/* Inside: must it leave its read section, to break pages or to wait for the baton? */
bool cow_must_leave(struct vcpu *vcpu);
/* Inside, I/O completed: is there something noted? Outside, the owner may clear it. */
bool cow_has_noted(const struct vcpu *vcpu);
/* Outside, if there was: break it. */
void cow_break_noted(struct vcpu *vcpu);
/* Outside: wait for the baton if one is needed. */
void cow_wait_turn(struct vcpu *vcpu);
/* Outside: it will not run for a while. */
void cow_give_turn(struct vcpu *vcpu);

/* --- the machine stopped; owner --- */

/* Memory has just been armed, and the vCPUs have their state (again): break what must not be
 * caught. 0 or -errno; then the machine must not run. */
int cow_prepare(struct vm *vm, struct err *err);
/* State is about to be saved: set the MSRs that wait for their pages. A failure ends the machine.
 */
void cow_finish_msrs(struct vm *vm);
/* Before vCPUs are set from @reader: the pages that their MSRs name. 0 or -errno. */
int cow_prepare_msrs(struct vm *vm, const struct record_reader *reader, struct err *err);
/* The vCPUs are about to run: watch over those that get nowhere. Loop thread. */
void cow_watch(struct vm *vm);

#endif
