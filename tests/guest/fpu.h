/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets in struct user_state, for fpu.c and fpu_probe.S. */
#ifndef FPU_H
#define FPU_H

#define STATE_GPR   0   /* 16 registers in the order of their encoding: RAX RCX RDX RBX RSP ... */
#define STATE_FLAGS 128 /* RFLAGS */
#define STATE_AVX   136 /* may AVX be used? */
#define STATE_FX    144 /* as FXSAVE64 has it */
#define STATE_YMMH  656 /* upper halves of YMM0..15 */
#define STATE_SIZE  912

#endif
