/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the guest "conform" share: see conform.c. */
#ifndef CONFORM_H
#define CONFORM_H

#define SRC_BYTES 1024 /* conform_src: what is stored, then masks and indices of lanes */
#define SRC_MASK  1024
#define SRC_INDEX 1088
#define SRC_SIZE  1152

#define REP_BYTES     600 /* of a repeated string instruction */
#define OVERLAP       24  /* bytes between source and destination that overlap */
#define SCATTER_STEP  17  /* dwords between two lanes */
#define SCATTER_LANES 0xbdf7
#define BYTE_LANES    0x9f0ff1e73c5aa5c3
#define ENTER_BYTES   16

#ifndef __ASSEMBLER__

#include "rt/rt.h"

#define PAGE       4096ull
#define AREA_PAGES 2
#define AREA_BYTES (AREA_PAGES * PAGE)
#define OFFSET_IN  0x140u /* of a write that stays in the middle of a page */

enum feature {
        ALWAYS,
        HAS_CX16,
        HAS_MOVBE,
        HAS_XSAVE,
        HAS_XSAVEOPT,
        HAS_XSAVEC,
        HAS_AVX,
        HAS_AVX512F,
        HAS_AVX512BW,
        HAS_MOVDIRI,
        HAS_MOVDIR64B,
        FEATURES,
};

#define OP_ATOMIC   1 /* aligned, at most 8 bytes: others see the old value or the new one */
#define OP_RING0    2 /* exists at CPL 0 only */
#define OP_PREPARED 4 /* has its own contents: pages of page tables */
#define OP_LAST     8 /* an engine may give up on it and break all pages; none is left to try then */
#define OP_NATIVE   8 /* writes what the processor knows; a KVM that emulates it may not */

/* A way to write. @at is the lowest byte that is written, of op->len. */
struct op {
        const char *name;
        void (*run)(uint8_t *at, const uint8_t *src);
        /* The bytes from @image on as they must be after a run at @at; NULL: as the control run
         * left them. Called after the run. */
        void (*want)(const struct op *op, uint8_t *image, const uint8_t *at);
        uint16_t len, align, bias; /* @at is a multiple of @align, plus @bias */
        uint8_t feature, flags;
        void (*prepare)(uint8_t *image, uint8_t *area); /* contents of area @area, into @image */
};

/* conform_ops.c */
extern const struct op ops[];
extern const unsigned nops;
extern uint8_t conform_src[SRC_SIZE];
void src_init(void);

/* conform_tables.c: accessed and dirty bits, exceptions. CPL 0. */
void tables_init(void);
void exceptions_init(void);
void tables_hook(uint8_t *area); /* a page of page tables stands at @area: let the walk find it */
void run_accessed(uint8_t *at, const uint8_t *src);
void run_dirty(uint8_t *at, const uint8_t *src);
void run_accessed_upper(uint8_t *at, const uint8_t *src);
void prepare_leaf(uint8_t *image, uint8_t *area);
void prepare_upper(uint8_t *image, uint8_t *area);
void want_accessed(const struct op *op, uint8_t *image, const uint8_t *at);
void want_dirty(const struct op *op, uint8_t *image, const uint8_t *at);
void run_exception(uint8_t *at, const uint8_t *src);
void want_exception(const struct op *op, uint8_t *image, const uint8_t *at);

/* conform_kvm.c: pages that KVM and the machine's devices write. CPL 3, but for the first. */
void kvm_writers_places(void);
uint64_t kvm_writers_prepare(void *unused); /* CPL 0, before the fork */
void kvm_writers_before_ring(void);
unsigned kvm_writers_check(int is_clone); /* how many are bad */

/* conform.c */
extern int ring_of_ops; /* 3 or 0: where run() is to execute its instruction */
uint8_t *area_new(void);
unsigned area_number(const uint8_t *area);
uint64_t pattern(const void *address); /* of the 8 bytes at @address before anybody writes them */
/* The second processor looks at @area until watch_end(): bytes outside [lo, hi) are as in @image;
 * @old and @new: the only values of the 8 bytes at lo, when @atomic. */
void watch_begin(const uint8_t *area, const uint8_t *image, unsigned lo, unsigned hi, int atomic,
                 uint64_t new_value);
void watch_pass(void); /* it has looked at everything at least once since the call */
/* The writes are over, and the area is as in @final (NULL: not known). 0, or 1 and a line has been
 * printed. */
unsigned watch_end(const char *what, const uint8_t *final);

#endif
#endif
