/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small AML encoder: just the terms that Ramet's DSDT uses. Source: ACPI 6.5, chapter 20 (AML)
 * and section 6.4 (resource data types).
 *
 * Terms are appended to a caller's buffer. What encloses others is opened and closed:
 *
 *      size_t dev = aml_device(a, "COM1");
 *      aml_name_eisa_id(a, "_HID", "PNP0501");
 *      size_t crs = aml_crs(a);
 *      aml_crs_io(a, 0x3f8, 8);
 *      aml_crs_end(a, crs);
 *      aml_end(a, dev);
 *
 * Running out of room is remembered in ->full and asked for once, at the end; nothing is written
 * past the buffer, and all calls stay harmless. Names are literals of ours: never guest input.
 */
#ifndef RAMET_X86_AML_H
#define RAMET_X86_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
        uint8_t *buf;
        size_t cap;
        size_t len;
        bool full;
};

/* Things with a package length. Each returns a mark for aml_end(). */
size_t aml_scope(struct aml *a, const char *path);
size_t aml_device(struct aml *a, const char *name);
size_t aml_method(struct aml *a, const char *name, unsigned args, bool serialized);
size_t aml_package(struct aml *a, uint8_t elements);
size_t aml_if(struct aml *a); /* the predicate comes next, then the body */
void aml_end(struct aml *a, size_t mark);

/* Data and operators. */
void aml_int(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text); /* ASCII */
void aml_eisa_id(struct aml *a, const char *id);  /* "PNP0501" */
void aml_path(struct aml *a, const char *path);   /* "COM1", "\\_SB_.VGEN" */
void aml_equal(struct aml *a);                    /* two operands come next */
void aml_arg(struct aml *a, unsigned number);
void aml_notify(struct aml *a, const char *path, uint64_t value);

/* Name (...) with its value; aml_name() alone is followed by the value. */
void aml_name(struct aml *a, const char *name);
void aml_name_int(struct aml *a, const char *name, uint64_t value);
void aml_name_string(struct aml *a, const char *name, const char *text);
void aml_name_eisa_id(struct aml *a, const char *name, const char *id);

/* Name (_CRS, ResourceTemplate () { ... }) */
size_t aml_crs(struct aml *a);
void aml_crs_io(struct aml *a, uint16_t port, uint8_t ports);
void aml_crs_memory(struct aml *a, uint32_t base, uint32_t len);
void aml_crs_irq(struct aml *a, uint32_t gsi, bool level); /* active high, exclusive */
void aml_crs_end(struct aml *a, size_t mark);

#endif
