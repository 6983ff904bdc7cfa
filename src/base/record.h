/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saved state: a sequence of tagged records, in a sealed memfd (a snapshot file will hold the same
 * bytes). Layout, little-endian, every record 8-byte aligned:
 *
 *      "RAMETST1"                                         8 bytes of magic
 *      { u32 kind, u32 instance, u32 version, u32 length, payload, zero padding to 8 } ...
 *      { RECORD_END, 0, 1, 0 }                            nothing may follow
 *
 * A reader opens the whole of it at once and refuses what it does not know: an unknown kind, a
 * version newer than its own, a length that is not the kind's, a record that is there twice, one
 * that is cut short. Every refusal names the record. What was saved is never trusted to be well
 * formed: it may come from another process whose guest took it over.
 */
#ifndef RAMET_BASE_RECORD_H
#define RAMET_BASE_RECORD_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Kinds are never renumbered or reused. The instance is a vCPU's number for 0x01xx, else as said.
 */
enum record_kind {
        RECORD_END = 0x0000,
        RECORD_VM = 0x0001,         /* what the machine is: struct vm_record */
        RECORD_LAYOUT = 0x0002,     /* which layer backs which pages: array of struct extent */
        RECORD_CPUID = 0x0003,      /* array of struct kvm_cpuid_entry2 */
        RECORD_FILES = 0x0004,      /* how many files which device has: array of struct vm_files */
        RECORD_CLOCK = 0x0010,      /* struct kvm_clock_data and the host's monotonic time of it */
        RECORD_IRQCHIP = 0x0011,    /* struct kvm_irqchip; instance: KVM_IRQCHIP_* */
        RECORD_PIT = 0x0012,        /* struct kvm_pit_state2 */
        RECORD_REGS = 0x0100,       /* struct kvm_regs */
        RECORD_SREGS = 0x0101,      /* struct kvm_sregs */
        RECORD_SREGS2 = 0x0102,     /* struct kvm_sregs2 */
        RECORD_XSAVE = 0x0103,      /* struct kvm_xsave, as long as KVM_CAP_XSAVE2 says */
        RECORD_XCRS = 0x0104,       /* struct kvm_xcrs */
        RECORD_MSRS = 0x0105,       /* array of struct kvm_msr_entry */
        RECORD_LAPIC = 0x0106,      /* struct kvm_lapic_state */
        RECORD_EVENTS = 0x0107,     /* struct kvm_vcpu_events */
        RECORD_MP_STATE = 0x0108,   /* struct kvm_mp_state */
        RECORD_DEBUGREGS = 0x0109,  /* struct kvm_debugregs */
        RECORD_TSC = 0x010a,        /* frequency and offset: struct vcpu_tsc */
        RECORD_DEV_SERIAL = 0x0200, /* devices: the instance counts devices of one kind */
        RECORD_DEV_RTC = 0x0201,
        RECORD_DEV_I8042 = 0x0202,
        RECORD_DEV_DEBUG_EXIT = 0x0203,
        RECORD_DEV_PM = 0x0204,
        RECORD_DEV_DOORBELL = 0x0205,
        RECORD_DEV_VMGENID = 0x0206,
        RECORD_DEV_VIRTIO_BLK = 0x0210, /* virtio: struct virtio_record, and the device's part */
        RECORD_DEV_VIRTIO_RNG = 0x0211, /* the same */
        RECORD_DEV_VIRTIO_CONSOLE = 0x0212, /* the same */
};

/* What a reader knows of a kind. */
struct record_rule {
        uint32_t kind;
        const char *name;
        uint32_t version;    /* the newest that is understood; 1 is the oldest */
        uint32_t min_length; /* payload bytes */
        uint32_t max_length;
        uint32_t unit;      /* the length is a multiple of this (1: anything between min and max) */
        uint32_t instances; /* 0 .. instances - 1 are allowed */
};

/* The rules for all kinds above, ended by RECORD_END. */
extern const struct record_rule record_rules[];

struct record {
        uint32_t kind;
        uint32_t instance;
        uint32_t version;
        uint32_t length;
        const void *data; /* points into the reader's own copy, 8-byte aligned */
};

/* Writing. Grows on the heap; the first failure sticks and is reported by finish. Not thread-safe.
 */
struct record_writer {
        uint8_t *buf;
        size_t len, cap;
        int error;
};

void record_writer_init(struct record_writer *w);
/* Have room for @length bytes more, and touch it: nothing is allocated or faulted in later, when
 * time counts. */
void record_writer_reserve(struct record_writer *w, size_t length);
void record_writer_fini(struct record_writer *w);
void record_add(struct record_writer *w, uint32_t kind, uint32_t instance, uint32_t version,
                const void *data, size_t length);
/* The same, to be filled in by the caller: the payload's place, zeroed, good until the next call;
 * NULL after a failure, which sticks. */
void *record_space(struct record_writer *w, uint32_t kind, uint32_t instance, uint32_t version,
                   size_t length);
/* Close the sequence and put it into a new memfd, sealed against every change. The writer is empty
 * afterwards, whatever happened. 0 or -errno. */
int record_finish(struct record_writer *w, int *fd, struct err *err);

/* Reading. The bytes are copied first and then checked, so nobody can change them afterwards. */
#define RECORD_STATE_MAX (64u << 20)
struct record_reader {
        uint8_t *buf;
        size_t len;
        struct record *records; /* by kind and instance */
        size_t nrecords;
        const struct record_rule *rules; /* borrowed; names the records in messages */
};

/* Check @len bytes at @data against @rules (which must outlive the reader) and index them. 0,
 * -EINVAL (err names the record) or -ENOMEM; the reader is empty after a failure. */
int record_reader_init(struct record_reader *r, const void *data, size_t len,
                       const struct record_rule *rules, struct err *err);
/* The same for the contents of @fd (a memfd or file; its offset is not used). */
int record_reader_init_fd(struct record_reader *r, int fd, const struct record_rule *rules,
                          struct err *err);
void record_reader_fini(struct record_reader *r);

/* The record, or NULL. */
const struct record *record_find(const struct record_reader *r, uint32_t kind, uint32_t instance);
/* Copy a fixed-size record into @out. 0, or -ENOENT / -EINVAL with err naming the record. */
int record_get(const struct record_reader *r, uint32_t kind, uint32_t instance, void *out,
               size_t length, struct err *err);

#endif
