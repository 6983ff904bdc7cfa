/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fork doorbell as a guest sees it: five 32-bit little-endian registers, in I/O ports (for
 * CPL 0) and in a page of MMIO (which a kernel can map for user mode). Accesses are 4 bytes wide
 * and aligned; others read as all ones and write nothing. docs/fork-abi.md has the whole story.
 *
 *      write RING, then read RESULT: 0 in the parent, 1..N in the clones, an error >= 0xffffff00.
 */
#ifndef RAMET_FORK_ABI_H
#define RAMET_FORK_ABI_H

#define RAMET_DOORBELL_MMIO 0xd0000000u /* guest-physical address of the page */
#define RAMET_DOORBELL_PORT 0x0f00u     /* first I/O port; register offsets are the same */

#define RAMET_DOORBELL_MAGIC   0x00 /* read: RAMET_DOORBELL_MAGIC_VALUE */
#define RAMET_DOORBELL_VERSION 0x04 /* read: RAMET_DOORBELL_VERSION_VALUE */
#define RAMET_DOORBELL_RING    0x08 /* write any value: ask for the fork and wait until it is over */
#define RAMET_DOORBELL_RESULT  0x0c /* read: this machine's number in the last fork, or an error */
#define RAMET_DOORBELL_COUNT   0x10 /* read: N of the last fork, 0 if there was none */

#define RAMET_DOORBELL_MAGIC_VALUE   0x54454d52u /* "RMET" */
#define RAMET_DOORBELL_VERSION_VALUE 1u

#define RAMET_DOORBELL_ERROR     0xffffff00u /* RESULT at or above this is no number but: */
#define RAMET_DOORBELL_FAILED    0xfffffffeu /* the host could not freeze this machine */
#define RAMET_DOORBELL_NOT_ARMED 0xffffffffu /* nobody asked for a fork */

#endif
