/* SPDX-License-Identifier: Apache-2.0 */
/* The demo guest, an ELF file with a PVH note, as it is linked into `ramet` (see embedded.S). */
#ifndef DEMO_EMBEDDED_H
#define DEMO_EMBEDDED_H

extern const unsigned char ramet_demo_guest[];
extern const unsigned char ramet_demo_guest_end[];

#endif
