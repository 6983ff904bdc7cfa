/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The DSDT: what hangs off this machine, one function a device, one line each in `devices`. A new
 * device adds both and nothing else; a virtio device adds nothing, since its slot is all that is to
 * be said here. (A hardware-reduced machine has no fixed events, so what
 * wants to interrupt the OS does it through the generic event device, ACPI 6.5 section 5.6.9.)
 */
#include "x86/acpi_dsdt.h"

#include "x86/layout.h"

/* 16550 (PNP0501: 16550A-compatible COM port). */
static void serial(struct aml *a)
{
        size_t dev = aml_device(a, "COM1");

        aml_name_eisa_id(a, "_HID", "PNP0501");
        aml_name_int(a, "_UID", 0);
        size_t crs = aml_crs(a);
        aml_crs_io(a, LAYOUT_PORT_SERIAL, 8);
        aml_crs_irq(a, LAYOUT_GSI_SERIAL, false);
        aml_crs_end(a, crs);
        aml_end(a, dev);
}

/* MC146818 (PNP0B00: AT real-time clock). */
static void rtc(struct aml *a)
{
        size_t dev = aml_device(a, "RTC0");

        aml_name_eisa_id(a, "_HID", "PNP0B00");
        size_t crs = aml_crs(a);
        aml_crs_io(a, LAYOUT_PORT_RTC, 2);
        aml_crs_irq(a, LAYOUT_GSI_RTC, false);
        aml_crs_end(a, crs);
        aml_end(a, dev);
}

/* VM generation ID: ADDR gives the guest-physical address of the 16 bytes, low half first
 * (Microsoft, "Virtual Machine Generation ID", 2012: the _CID, the _DDN and ADDR). Linux matches
 * the _CID. */
static void vm_generation_id(struct aml *a)
{
        size_t dev = aml_device(a, "VGEN");

        aml_name_string(a, "_HID", "RMET0001");
        aml_name_string(a, "_CID", "VM_Gen_Counter");
        aml_name_string(a, "_DDN", "VM_Gen_Counter");
        aml_name(a, "ADDR");
        size_t addr = aml_package(a, 2);
        aml_int(a, LAYOUT_VMGENID & 0xffffffff);
        aml_int(a, LAYOUT_VMGENID >> 32);
        aml_end(a, addr);
        aml_end(a, dev);
}

/* The generic event device: interrupt in, notification out. It must stand after what it notifies,
 * since names are looked up as the table is loaded. */
static void events(struct aml *a)
{
        size_t dev = aml_device(a, "GED0");

        aml_name_string(a, "_HID", "ACPI0013");
        aml_name_int(a, "_UID", 0);
        size_t crs = aml_crs(a);
        aml_crs_irq(a, LAYOUT_GSI_VMGENID, false);
        aml_crs_end(a, crs);
        size_t evt = aml_method(a, "_EVT", 1, true);
        size_t cond = aml_if(a);
        aml_equal(a);
        aml_arg(a, 0);
        aml_int(a, LAYOUT_GSI_VMGENID);
        aml_notify(a, "\\_SB.VGEN", 0x80);
        aml_end(a, cond);
        aml_end(a, evt);
        aml_end(a, dev);
}

/* virtio-mmio, as Linux knows it: LNRO0005. The window is the whole page of the slot. Its interrupt
 * is edge-triggered, since the device raises it anew for each reason (KVM_IRQFD). */
static void virtio(struct aml *a, unsigned slot)
{
        static const uint8_t gsis[LAYOUT_VIRTIO_SLOTS] = LAYOUT_VIRTIO_GSIS;
        const char name[] = {'V', 'R', (char)('0' + slot / 10), (char)('0' + slot % 10), '\0'};
        size_t dev = aml_device(a, name);

        aml_name_string(a, "_HID", "LNRO0005");
        aml_name_int(a, "_UID", slot);
        aml_name_int(a, "_CCA", 1); /* it sees the processor's caches */
        size_t crs = aml_crs(a);
        aml_crs_memory(a, (uint32_t)(LAYOUT_VIRTIO + slot * LAYOUT_VIRTIO_SLOT),
                       LAYOUT_VIRTIO_SLOT);
        aml_crs_irq(a, gsis[slot], false);
        aml_crs_end(a, crs);
        aml_end(a, dev);
}

static void (*const devices[])(struct aml *a) = {
        serial,
        rtc,
        vm_generation_id,
        events,
};

void acpi_dsdt(struct aml *a, unsigned virtio_slots)
{
        size_t scope = aml_scope(a, "\\_SB");

        for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
                devices[i](a);
        for (unsigned i = 0; i < virtio_slots; i++)
                virtio(a, i);
        aml_end(a, scope);

        /* Soft off. The first element is what goes into SLP_TYP of the sleep control register. */
        aml_name(a, "\\_S5");
        size_t s5 = aml_package(a, 2);
        aml_int(a, ACPI_S5_SLP_TYP);
        aml_int(a, 0);
        aml_end(a, s5);
}
