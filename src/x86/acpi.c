/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables around the DSDT: see acpi.h. All are built in a private buffer and copied into guest
 * memory at once, so a failure leaves nothing half written.
 *
 *      LAYOUT_ACPI:  RSDP | XSDT | FADT | MADT | DSDT           each aligned to 16
 *
 * The machine is hardware-reduced (ACPI 6.5, section 4.1): no SCI, no PM timer, no fixed buttons.
 * Sleep and reset go through byte-wide registers at LAYOUT_PORT_PM:
 *
 *      +0  sleep control: SLP_EN bit 5, SLP_TYP bits 2-4 (section 4.8.3.7)
 *      +1  sleep status
 *      +2  reset: writing 1 resets
 *
 * Interrupts: KVM's default routing wires GSI n to pin n of the IOAPIC for every n, 0 included, so
 * there is no override of IRQ 0 to GSI 2 as on a PC. A machine that sets other routes says so here.
 */
#include "x86/acpi.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "x86/acpi_dsdt.h"
#include "x86/layout.h"

#define OEM_ID       "RAMET "
#define OEM_TABLE_ID "RAMETVM "
#define CREATOR_ID   "RMET"
#define TABLE_ALIGN  16u

/* ACPI 6.5, section 5.2.6 */
struct table_header {
        char signature[4];
        uint32_t length;
        uint8_t revision;
        uint8_t checksum;
        char oem_id[6];
        char oem_table_id[8];
        uint32_t oem_revision;
        char creator_id[4];
        uint32_t creator_revision;
} __attribute__((packed));

/* Section 5.2.5.3 */
struct rsdp {
        char signature[8];
        uint8_t checksum; /* of the first 20 bytes */
        char oem_id[6];
        uint8_t revision;
        uint32_t rsdt; /* none: revision 2 has the XSDT */
        uint32_t length;
        uint64_t xsdt;
        uint8_t extended_checksum;
        uint8_t reserved[3];
} __attribute__((packed));

/* Section 5.2.8 */
struct xsdt {
        struct table_header header;
        uint64_t entries[2];
} __attribute__((packed));

/* Section 5.2.3.2: generic address structure */
struct gas {
        uint8_t space; /* 1: system I/O */
        uint8_t bit_width;
        uint8_t bit_offset;
        uint8_t access_size; /* 1: byte */
        uint64_t address;
} __attribute__((packed));

/* Section 5.2.9. Fields that a hardware-reduced machine has no use for are one array each. */
struct fadt {
        struct table_header header;
        uint32_t firmware_ctrl;
        uint32_t dsdt;
        uint8_t no_pm_hardware[64]; /* offsets 44 to 107 */
        uint8_t century;            /* which byte of the CMOS has it */
        uint16_t iapc_boot_arch;
        uint8_t reserved;
        uint32_t flags;
        struct gas reset_reg;
        uint8_t reset_value;
        uint16_t arm_boot_arch;
        uint8_t minor_version;
        uint64_t x_firmware_ctrl;
        uint64_t x_dsdt;
        struct gas no_pm_registers[8]; /* offsets 148 to 243 */
        struct gas sleep_control;
        struct gas sleep_status;
        char hypervisor[8];
} __attribute__((packed));
_Static_assert(offsetof(struct fadt, iapc_boot_arch) == 109, "FADT");
_Static_assert(offsetof(struct fadt, sleep_control) == 244, "FADT");
_Static_assert(sizeof(struct fadt) == 276, "FADT");

#define IAPC_LEGACY_DEVICES (1u << 0)
#define IAPC_8042           (1u << 1)
#define IAPC_NO_VGA         (1u << 2)
#define FADT_WBINVD         (1u << 0)
#define FADT_PWR_BUTTON     (1u << 4) /* set: there is no fixed one */
#define FADT_SLP_BUTTON     (1u << 5)
#define FADT_RESET_REG      (1u << 10)
#define FADT_HW_REDUCED     (1u << 20)

/* Section 5.2.12 */
struct madt {
        struct table_header header;
        uint32_t lapic_address;
        uint32_t flags;
} __attribute__((packed));
#define MADT_PCAT_COMPAT (1u << 0) /* KVM's irqchip has the two 8259 */

struct madt_lapic { /* 5.2.12.2 */
        uint8_t type, length, uid, apic_id;
        uint32_t flags;
} __attribute__((packed));

struct madt_x2apic { /* 5.2.12.12: for APIC ids from 255 on */
        uint8_t type, length;
        uint16_t reserved;
        uint32_t apic_id, flags, uid;
} __attribute__((packed));
#define MADT_ENABLED (1u << 0)

struct madt_ioapic { /* 5.2.12.3 */
        uint8_t type, length, id, reserved;
        uint32_t address, gsi_base;
} __attribute__((packed));

/* What has been laid out so far. Offsets are from LAYOUT_ACPI. */
struct area {
        uint8_t *buf; /* LAYOUT_ACPI_MAX bytes, zeroed */
        size_t used;
};

/* Set aside @len bytes at the next aligned offset. NULL when they do not fit. */
static void *area_take(struct area *area, size_t len)
{
        size_t at = (area->used + TABLE_ALIGN - 1) & ~(size_t)(TABLE_ALIGN - 1);

        if (at > LAYOUT_ACPI_MAX || len > LAYOUT_ACPI_MAX - at)
                return NULL;
        area->used = at + len;
        return area->buf + at;
}

static uint64_t area_gpa(const struct area *area, const void *table)
{
        return LAYOUT_ACPI + (uint64_t)((const uint8_t *)table - area->buf);
}

/* What must be added for all bytes to sum up to zero. */
static uint8_t checksum(const void *bytes, size_t len)
{
        const uint8_t *p = bytes;
        uint8_t sum = 0;

        for (size_t i = 0; i < len; i++)
                sum = (uint8_t)(sum + p[i]);
        return (uint8_t)-sum;
}

/* Fill in the header of a table whose body is complete. */
static void table_seal(void *table, const char *signature, uint8_t revision, size_t length)
{
        struct table_header h = {
                .length = (uint32_t)length,
                .revision = revision,
                .oem_revision = 1,
                .creator_revision = 1,
        };

        memcpy(h.signature, signature, sizeof h.signature);
        memcpy(h.oem_id, OEM_ID, sizeof h.oem_id);
        memcpy(h.oem_table_id, OEM_TABLE_ID, sizeof h.oem_table_id);
        memcpy(h.creator_id, CREATOR_ID, sizeof h.creator_id);
        memcpy(table, &h, sizeof h);
        h.checksum = checksum(table, length);
        memcpy(table, &h, sizeof h);
}

static struct gas pm_register(unsigned offset)
{
        return (struct gas){
                .space = 1,
                .bit_width = 8,
                .access_size = 1,
                .address = LAYOUT_PORT_PM + offset,
        };
}

static void fill_fadt(struct fadt *f, uint64_t dsdt)
{
        f->dsdt = (uint32_t)dsdt;
        f->x_dsdt = dsdt;
        f->century = 0x32; /* as devices/rtc.c has it */
        f->iapc_boot_arch = IAPC_LEGACY_DEVICES | IAPC_8042 | IAPC_NO_VGA;
        f->flags =
                FADT_WBINVD | FADT_PWR_BUTTON | FADT_SLP_BUTTON | FADT_RESET_REG | FADT_HW_REDUCED;
        f->sleep_control = pm_register(0);
        f->sleep_status = pm_register(1);
        f->reset_reg = pm_register(2);
        f->reset_value = 1;
        f->minor_version = 3; /* nothing newer is used, and older tools know it */
        memcpy(f->hypervisor, "Ramet", 5);
        table_seal(f, "FACP", 6, sizeof *f);
}

static void append(uint8_t **p, const void *entry, size_t len)
{
        memcpy(*p, entry, len);
        *p += len;
}

static struct madt *build_madt(struct area *area, unsigned vcpus)
{
        struct madt_ioapic ioapic = {1, sizeof ioapic, 0, 0, LAYOUT_IOAPIC, 0};
        unsigned big = vcpus > 255 ? vcpus - 255 : 0;
        size_t len = sizeof(struct madt) + sizeof ioapic;
        struct madt *m;
        uint8_t *p;

        if (vcpus > LAYOUT_ACPI_MAX)
                return NULL;
        len += (vcpus - big) * sizeof(struct madt_lapic) + big * sizeof(struct madt_x2apic);
        m = area_take(area, len);
        if (!m)
                return NULL;
        m->lapic_address = LAYOUT_LAPIC;
        m->flags = MADT_PCAT_COMPAT;
        p = (uint8_t *)(m + 1);
        for (unsigned i = 0; i < vcpus; i++) {
                struct madt_lapic lapic = {0, sizeof lapic, (uint8_t)i, (uint8_t)i, MADT_ENABLED};
                struct madt_x2apic x2apic = {9, sizeof x2apic, 0, i, MADT_ENABLED, i};

                if (i < 255)
                        append(&p, &lapic, sizeof lapic);
                else
                        append(&p, &x2apic, sizeof x2apic);
        }
        append(&p, &ioapic, sizeof ioapic);
        table_seal(m, "APIC", 5, len);
        return m;
}

static struct table_header *build_dsdt(struct area *area, unsigned virtio_slots)
{
        struct table_header *h = area_take(area, sizeof *h);
        struct aml aml;

        if (!h)
                return NULL;
        aml = (struct aml){.buf = area->buf + area->used, .cap = LAYOUT_ACPI_MAX - area->used};
        acpi_dsdt(&aml, virtio_slots);
        if (aml.full)
                return NULL;
        area->used += aml.len;
        table_seal(h, "DSDT", 2, sizeof *h + aml.len);
        return h;
}

static void fill_rsdp(struct rsdp *r, uint64_t xsdt)
{
        memcpy(r->signature, "RSD PTR ", sizeof r->signature);
        memcpy(r->oem_id, OEM_ID, sizeof r->oem_id);
        r->revision = 2;
        r->length = sizeof *r;
        r->xsdt = xsdt;
        r->checksum = checksum(r, 20);
        r->extended_checksum = checksum(r, sizeof *r);
}

/* 0 or -ENOSPC */
static int build(struct area *area, unsigned vcpus, unsigned virtio_slots)
{
        struct rsdp *rsdp = area_take(area, sizeof *rsdp);
        struct xsdt *xsdt = area_take(area, sizeof *xsdt);
        struct fadt *fadt = area_take(area, sizeof *fadt);
        struct madt *madt = build_madt(area, vcpus);
        struct table_header *dsdt = build_dsdt(area, virtio_slots);

        if (!rsdp || !xsdt || !fadt || !madt || !dsdt)
                return -ENOSPC;
        fill_fadt(fadt, area_gpa(area, dsdt));
        xsdt->entries[0] = area_gpa(area, fadt);
        xsdt->entries[1] = area_gpa(area, madt);
        table_seal(xsdt, "XSDT", 1, sizeof *xsdt);
        fill_rsdp(rsdp, area_gpa(area, xsdt));
        return 0;
}

int acpi_write_tables(const struct guest_mem *mem, unsigned vcpus, unsigned virtio_slots,
                      struct err *err)
{
        struct area area = {.buf = calloc(1, LAYOUT_ACPI_MAX)};
        int ret;

        if (!area.buf)
                return err_host(err, ENOMEM, "no memory to build the ACPI tables in");
        ret = build(&area, vcpus, virtio_slots);
        if (ret < 0) {
                ret = err_host(err, ENOSPC, "the ACPI tables of %u CPUs do not fit into %llu KiB",
                               vcpus, LAYOUT_ACPI_MAX / 1024);
        } else if (guest_mem_write(mem, LAYOUT_ACPI, area.buf, area.used) < 0) {
                ret = err_host(err, EFAULT, "guest memory ends below the ACPI tables (0x%llx)",
                               LAYOUT_ACPI + area.used);
        }
        free(area.buf);
        return ret;
}
