/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bare VM for floors: no interrupt controller, no devices, vCPUs that start in 64-bit mode at CPL
 * 3, where guests run natively on every host, with all memory mapped one to one by 2 MiB pages.
 * Shares no code with src/.
 */
#ifndef BENCH_BARE_H
#define BENCH_BARE_H

#include <linux/kvm.h>
#include <stdint.h>
#include <stddef.h>

#define MIB       1048576ull
#define PAGE      4096ull
#define BARE_LOW  (4 * MIB)    /* page tables and code lie below; [BARE_LOW, size) is the user's */
#define BARE_GAP  (3072 * MIB) /* memory beyond this lies at 4 GiB and up */
#define BARE_HIGH (4096 * MIB)
#define BARE_END  (12288 * MIB) /* a read here is an exit: the guest is done */

struct bare_vcpu {
        int fd;
        struct kvm_run *run;
};

struct bare {
        int kvm, vm;
        size_t run_bytes;
};

uint64_t now_ns(void);
uint64_t tsc(void);
double tsc_per_ns(void); /* takes 20 ms */
long check(long r, const char *what);
void *map(void *at, size_t size, int flags, int fd);

/* A memfd of @size bytes, written all over with something; mapped shared at *at, on huge pages
 * where they can be had and if @huge. */
int bare_memory(size_t size, int huge, uint8_t **at);
/* Seal it, its only mapping being at @at, which is replaced by a private one. */
void bare_private(int fd, uint8_t *at, size_t size);

void bare_open(struct bare *b);
void bare_slot(struct bare *b, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
               uint32_t flags);
/* Slots 0 and 1 over @size bytes at @hva. */
void bare_slots(struct bare *b, uint8_t *hva, uint64_t size);
/* Run to the exit at BARE_END. */
void bare_run(struct bare_vcpu *v);
/* Page tables, and @code at 1 MiB, into memory at @at. */
void bare_load(uint8_t *at, const void *code, size_t len);
/* A vCPU at the code's start, with rdi, rsi, rdx set; and set to it again. */
void bare_vcpu(struct bare *b, unsigned id, uint64_t rdi, uint64_t rsi, uint64_t rdx,
               struct bare_vcpu *v);
void bare_again(struct bare_vcpu *v, uint64_t rdi, uint64_t rsi, uint64_t rdx);

/* Code for guests. write_pages(rdi = first address, rsi = pages, rdx = where a 64-bit number of TSC
 * cycles is left for each): one store a page. spin(): for ever. */
extern const char code_write_pages[], code_write_pages_end[], code_spin[], code_spin_end[];

#endif
