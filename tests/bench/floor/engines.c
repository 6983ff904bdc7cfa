/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Floors under the figures of the copy-on-write engines and of the shootdown. Prints nanoseconds,
 * one sample a line. What each does, and the calls that are timed:
 *
 * engines break private PAGES: a guest at CPL 3 stores once into each of PAGES pages of a private
 *     mapping of a sealed memfd; the guest times each store.
 *
 * engines break trap PAGES: the same, the mapping write-protected by userfaultfd; a thread reads
 *     each fault and lifts the protection of the page.
 *
 * engines break rom PAGES: the same in a read-only slot; at KVM_EXIT_MMIO a copy of the page, the
 *     slot deleted, one set over the copies and one over what is left.
 *
 * engines shootdown VCPUS N: VCPUS vCPUs spin at CPL 3; N times tgkill to each, and a futex wait
 *     until each has been out of KVM_RUN.
 *
 * engines freeze MIB huge|small: MIB written by a guest; mremap aside, mmap privately, F_ADD_SEALS.
 *
 * engines freeze-clone PAGES: PAGES written pages of a private mapping, one in each 64 KiB;
 *     PAGEMAP_SCAN, and a pwrite of each into a new memfd.
 *
 * engines rewrite MIB: a guest stores once into each page of MIB that is mapped shared; the sum.
 */
#include "bare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void print_cycles(const uint64_t *cycles, uint64_t n)
{
        double per_ns = tsc_per_ns();

        for (uint64_t i = 0; i < n; i++)
                printf("%.0f\n", (double)cycles[i] / per_ns);
}

/* --- break --- */

static struct {
        struct bare b;
        uint8_t *at, *own;
        size_t size;
        uint64_t first, pages, results;
} g;

/* Results lie in the first MiBs above BARE_LOW, written pages after them. */
static void break_setup(uint64_t pages, int shared)
{
        uint64_t result_bytes = (pages * 8 + 2 * MIB - 1) / (2 * MIB) * 2 * MIB;
        int fd;

        g.pages = pages;
        g.results = BARE_LOW;
        g.first = BARE_LOW + result_bytes;
        g.size = g.first + pages * PAGE;
        fd = bare_memory(g.size, 1, &g.at);
        bare_load(g.at, code_write_pages, (size_t)(code_write_pages_end - code_write_pages));
        if (!shared)
                bare_private(fd, g.at, g.size);
        memset(g.at + g.results, 0, pages * 8); /* broken beforehand */
        g.at[0x1000] |= 0;                      /* page tables, too */
        bare_open(&g.b);
}

static void *trap_main(void *data)
{
        int fd = *(int *)data;

        for (;;) {
                struct uffd_msg msg;
                struct uffdio_writeprotect wp = {0};

                if (read(fd, &msg, sizeof msg) != sizeof msg)
                        continue;
                wp.range.start = msg.arg.pagefault.address & ~(PAGE - 1);
                wp.range.len = PAGE;
                ioctl(fd, UFFDIO_WRITEPROTECT, &wp);
        }
        return NULL;
}

static void break_trap(void)
{
        static int fd;
        struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
        struct uffdio_register reg = {.range = {(uintptr_t)g.at + g.first, g.pages * PAGE},
                                      .mode = UFFDIO_REGISTER_MODE_WP};
        struct uffdio_writeprotect wp = {.range = {(uintptr_t)g.at + g.first, g.pages * PAGE},
                                         .mode = UFFDIO_WRITEPROTECT_MODE_WP};
        pthread_t t;

        fd = (int)check(syscall(SYS_userfaultfd, O_CLOEXEC), "userfaultfd");
        check(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
        check(ioctl(fd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER");
        check(ioctl(fd, UFFDIO_WRITEPROTECT, &wp), "UFFDIO_WRITEPROTECT");
        pthread_create(&t, NULL, trap_main, &fd);
}

/* Pages are written in order, so that what was split off grows by one slot: [first, gpa) is
 * one read-write slot over the copies, [gpa, end) read-only. */
static void rom_break(uint64_t gpa)
{
        uint64_t end = g.size;

        bare_slot(&g.b, 1, g.first, 0, g.at + g.first, KVM_MEM_READONLY);
        memcpy(g.own + gpa, g.at + gpa, PAGE);
        if (gpa > g.first)
                bare_slot(&g.b, 2, g.first, 0, g.own + g.first, 0);
        bare_slot(&g.b, 2, g.first, gpa + PAGE - g.first, g.own + g.first, 0);
        if (gpa + PAGE < end)
                bare_slot(&g.b, 1, gpa + PAGE, end - gpa - PAGE, g.at + gpa + PAGE,
                          KVM_MEM_READONLY);
}

static void rom_run(struct bare_vcpu *v)
{
        uint64_t rest = g.first;

        bare_slot(&g.b, 0, 0, g.first, g.at, 0);
        bare_slot(&g.b, 1, g.first, g.size - g.first, g.at + g.first, KVM_MEM_READONLY);
        for (;;) {
                bare_run(v);
                if (v->run->mmio.phys_addr >= BARE_END)
                        return;
                rom_break(v->run->mmio.phys_addr & ~(PAGE - 1));
                memcpy(g.own + v->run->mmio.phys_addr, v->run->mmio.data, v->run->mmio.len);
                rest += PAGE;
        }
}

static void measure_break(const char *engine, uint64_t pages)
{
        struct bare_vcpu v;

        break_setup(pages, !strcmp(engine, "shared"));
        bare_vcpu(&g.b, 0, g.first, pages, g.results, &v);
        if (!strcmp(engine, "rom")) {
                g.own = map(NULL, g.size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
                rom_run(&v);
        } else {
                if (!strcmp(engine, "trap"))
                        break_trap();
                bare_slot(&g.b, 0, 0, g.size, g.at, 0);
                bare_run(&v);
        }
        if (!strcmp(engine, "shared")) {
                uint64_t sum = 0;

                for (uint64_t i = 0; i < pages; i++)
                        sum += ((uint64_t *)(g.at + g.results))[i];
                print_cycles(&sum, 1);
        } else {
                print_cycles((uint64_t *)(g.at + g.results), pages);
        }
}

/* --- shootdown --- */

struct runner {
        struct bare_vcpu v;
        pthread_t thread;
        _Atomic int tid;
        _Atomic uint32_t exits; /* futex */
};

static _Thread_local struct kvm_run *volatile own_run;

/* A signal between two KVM_RUNs must not be lost. */
static void on_signal(int signal)
{
        (void)signal;
        own_run->immediate_exit = 1;
}

static void *spin_main(void *data)
{
        struct runner *r = data;

        own_run = r->v.run;
        atomic_store(&r->tid, (int)syscall(SYS_gettid));
        for (;;) {
                if (ioctl(r->v.fd, KVM_RUN, 0) == 0 || errno != EINTR) {
                        fprintf(stderr, "engines: exit %u of a spinning guest\n",
                                r->v.run->exit_reason);
                        exit(1);
                }
                r->v.run->immediate_exit = 0;
                atomic_fetch_add(&r->exits, 1);
                syscall(SYS_futex, &r->exits, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
        }
        return NULL;
}

static void measure_shootdown(unsigned vcpus, unsigned rounds)
{
        struct sigaction sa = {.sa_handler = on_signal};
        static struct runner r[64];
        uint8_t *at;

        sigaction(SIGUSR1, &sa, NULL);
        bare_memory(BARE_LOW, 0, &at);
        bare_load(at, code_spin, (size_t)(code_spin_end - code_spin));
        bare_open(&g.b);
        bare_slot(&g.b, 0, 0, BARE_LOW, at, 0);
        for (unsigned i = 0; i < vcpus; i++) {
                bare_vcpu(&g.b, i, 0, 0, 0, &r[i].v);
                pthread_create(&r[i].thread, NULL, spin_main, &r[i]);
        }
        usleep(50000);
        for (unsigned k = 0; k < rounds; k++) {
                uint64_t t0;
                uint32_t before[64];

                usleep(200); /* until they are back inside */
                t0 = now_ns();
                for (unsigned i = 0; i < vcpus; i++) {
                        before[i] = atomic_load(&r[i].exits);
                        syscall(SYS_tgkill, getpid(), atomic_load(&r[i].tid), SIGUSR1);
                }
                for (unsigned i = 0; i < vcpus; i++) {
                        while (atomic_load(&r[i].exits) == before[i])
                                syscall(SYS_futex, &r[i].exits, FUTEX_WAIT_PRIVATE, before[i], NULL,
                                        NULL, 0);
                }
                printf("%llu\n", (unsigned long long)(now_ns() - t0));
        }
}

/* --- freeze --- */

static void measure_freeze(size_t written, int huge)
{
        size_t size = written + 64 * MIB;
        uint64_t first = 32 * MIB, low = (size < BARE_GAP ? size : BARE_GAP) - first;
        struct bare_vcpu v;
        uint8_t *p, *aside;
        int fd = bare_memory(size, huge, &p);
        uint64_t t0;

        bare_load(p, code_write_pages, (size_t)(code_write_pages_end - code_write_pages));
        bare_open(&g.b);
        bare_slots(&g.b, p, size);
        bare_vcpu(&g.b, 0, first, low / PAGE, BARE_LOW, &v);
        bare_run(&v);
        if (size > BARE_GAP) {
                bare_again(&v, BARE_HIGH, (size - BARE_GAP) / PAGE, BARE_LOW);
                bare_run(&v);
        }
        aside = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        t0 = now_ns();
        if (mremap(p, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, aside) == MAP_FAILED)
                check(-1, "mremap");
        map(p, size, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fd);
        check(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), "seal");
        printf("%llu\n", (unsigned long long)(now_ns() - t0));
}

/* --- freeze of a clone --- */

#ifndef PAGEMAP_SCAN
struct page_region {
        uint64_t start, end, categories;
};
struct pm_scan_arg {
        uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
        uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif

static void measure_freeze_clone(uint64_t pages)
{
        size_t size = pages * 16 * PAGE;
        uint8_t *p;
        int fd = bare_memory(size, 0, &p), layer, pagemap;
        struct page_region *regions = calloc(pages + 1, sizeof *regions);
        struct pm_scan_arg arg = {.size = sizeof arg,
                                  .vec = (uintptr_t)regions,
                                  .vec_len = pages + 1,
                                  .category_inverted = 4, /* of a file */
                                  .category_mask = 4 | 8, /* its own, and present */
                                  .return_mask = 8};
        uint64_t t0;
        long n;

        bare_private(fd, p, size);
        for (uint64_t i = 0; i < pages; i++)
                p[i * 16 * PAGE] = 1;
        pagemap = (int)check(open("/proc/self/pagemap", O_RDONLY), "/proc/self/pagemap");
        layer = (int)check(memfd_create("layer", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create");
        check(ftruncate(layer, (off_t)size), "ftruncate");
        arg.start = (uintptr_t)p;
        arg.end = arg.start + size;
        t0 = now_ns();
        n = check(ioctl(pagemap, PAGEMAP_SCAN, &arg), "PAGEMAP_SCAN");
        for (long i = 0; i < n; i++)
                check(pwrite(layer, (void *)regions[i].start,
                             (size_t)(regions[i].end - regions[i].start),
                             (off_t)(regions[i].start - arg.start)),
                      "pwrite");
        printf("%llu\n", (unsigned long long)(now_ns() - t0));
}

static uint64_t number(const char *s)
{
        return strtoull(s, NULL, 10);
}

int main(int argc, char **argv)
{
        const char *what = argc > 2 ? argv[1] : "";

        if (!strcmp(what, "break") && argc == 4)
                measure_break(argv[2], number(argv[3]));
        else if (!strcmp(what, "shootdown") && argc == 4)
                measure_shootdown((unsigned)number(argv[2]), (unsigned)number(argv[3]));
        else if (!strcmp(what, "freeze") && argc == 4)
                measure_freeze(number(argv[2]) * MIB, !strcmp(argv[3], "huge"));
        else if (!strcmp(what, "freeze-clone"))
                measure_freeze_clone(number(argv[2]));
        else if (!strcmp(what, "rewrite"))
                measure_break("shared", number(argv[2]) * MIB / PAGE);
        else {
                fprintf(stderr, "usage: engines break|shootdown|freeze|freeze-clone|rewrite ...\n");
                return 2;
        }
        fflush(stdout);
        _exit(0); /* threads may still run guests */
}
