/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RAMET_X86_ACPI_DSDT_H
#define RAMET_X86_ACPI_DSDT_H

#include "x86/aml.h"

/* What the guest writes to SLP_TYP (bits 2-4 of LAYOUT_PORT_PM) to turn itself off. */
#define ACPI_S5_SLP_TYP 5

/* Append the body of the DSDT (what follows its header). @virtio_slots: so many virtio-mmio
 * devices, at the first slots of layout.h; at most LAYOUT_VIRTIO_SLOTS. */
void acpi_dsdt(struct aml *a, unsigned virtio_slots);

#endif
