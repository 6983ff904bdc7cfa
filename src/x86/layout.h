/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's address map, in one place.
 *
 *      0000_0000 - 0009_fbff   RAM (boot data structures live in its first 64 KiB, see below)
 *      000a_0000 - 000d_ffff   nothing
 *      000e_0000 - 000f_ffff   RAM, reserved in e820: ACPI tables, RSDP, VM generation id
 *      0010_0000 - bfff_ffff   RAM, as much as there is
 *      d000_0000               fork doorbell, one page
 *      d000_1000 - d001_0fff   virtio-mmio devices: 16 slots of a page each
 *      fec0_0000, fee0_0000    IOAPIC, local APICs (in KVM)
 *      fffb_c000 - fffb_ffff   identity map page and TSS that KVM wants on VT-x
 *      1_0000_0000 -           RAM above 3 GiB continues here
 */
#ifndef RAMET_X86_LAYOUT_H
#define RAMET_X86_LAYOUT_H

#define LAYOUT_LOW_RAM_END 0xc0000000ull  /* RAM below 4 GiB ends here */
#define LAYOUT_HIGH_RAM    0x100000000ull /* and goes on here */
#define LAYOUT_EBDA        0x0009fc00ull  /* e820: reserved from here ... */
#define LAYOUT_BIOS        0x000e0000ull  /* (0xa0000..0xdffff: no RAM entry in e820) */
#define LAYOUT_BIOS_END    0x00100000ull  /* ... up to here */

#define LAYOUT_BOOT_GDT        0x00000500ull
#define LAYOUT_BOOT_INFO       0x00007000ull /* boot_params, hvm_start_info or multiboot info */
#define LAYOUT_BOOT_PAGETABLES 0x00009000ull /* identity map of the first 4 GiB: 6 pages */
#define LAYOUT_BOOT_STACK      0x00008ff0ull
#define LAYOUT_CMDLINE         0x00020000ull
#define LAYOUT_CMDLINE_MAX     0x00010000ull /* with the terminating NUL */

#define LAYOUT_ACPI     0x000e0000ull /* the RSDP stands first, the tables follow */
#define LAYOUT_ACPI_MAX 0x00010000ull
#define LAYOUT_VMGENID  0x000ff000ull /* 16 bytes of GUID at the start of this page */

#define LAYOUT_MMIO         0xd0000000ull /* .. LAYOUT_MMIO_END: nothing here is ever RAM */
#define LAYOUT_DOORBELL     0xd0000000ull
#define LAYOUT_VIRTIO       0xd0001000ull
#define LAYOUT_VIRTIO_SLOT  0x1000ull /* from one slot to the next */
#define LAYOUT_VIRTIO_SLOTS 16u
#define LAYOUT_MMIO_END     0xd0100000ull
#define LAYOUT_IOAPIC       0xfec00000ull
#define LAYOUT_LAPIC        0xfee00000ull
#define LAYOUT_IDENTITY_MAP 0xfffbc000ull
#define LAYOUT_TSS          0xfffbd000ull

/* I/O ports */
#define LAYOUT_PORT_RTC      0x70u
#define LAYOUT_PORT_I8042    0x60u /* data; 0x64 command */
#define LAYOUT_PORT_SERIAL   0x3f8u
#define LAYOUT_PORT_PM       0x600u /* ACPI sleep control, sleep status, reset: 4 ports */
#define LAYOUT_PORT_DOORBELL 0xf00u

/* Global system interrupts */
#define LAYOUT_GSI_SERIAL  4u
#define LAYOUT_GSI_RTC     8u
#define LAYOUT_GSI_VMGENID 10u /* raised through the ACPI generic event device */

/* One for each virtio slot. ISA lines that nobody else has come first, since a kernel that finds
 * the devices by its command line, without ACPI's help, can only use those; the rest have a pin of
 * the IOAPIC and none of the PICs. */
#define LAYOUT_VIRTIO_GSIS                                                                         \
        {                                                                                          \
                5, 6, 7, 9, 11, 14, 15, 3, 16, 17, 18, 19, 20, 21, 22, 23                          \
        }

#endif
