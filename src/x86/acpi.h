/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ACPI tables for a hardware-reduced machine: RSDP, XSDT, FADT, MADT, DSDT. Addresses and interrupt
 * numbers come from layout.h. Source: ACPI specification 6.5, sections 5.2 (tables), 19-20 (AML).
 */
#ifndef RAMET_X86_ACPI_H
#define RAMET_X86_ACPI_H

#include "base/err.h"
#include "mem/guest_mem.h"

/* Write all tables for @vcpus processors and devices in the first @virtio_slots slots (at most
 * LAYOUT_VIRTIO_SLOTS) into guest memory from LAYOUT_ACPI on; the RSDP stands first. 0, or -EFAULT
 * / -ENOSPC with err set. */
int acpi_write_tables(const struct guest_mem *mem, unsigned vcpus, unsigned virtio_slots,
                      struct err *err);

#endif
