/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program outside of the tree, for test_install.py: cc forks.c $(pkg-config --cflags --libs
 * ramet)
 *
 *      forks RESETS SPAWNS [fd | mapping | malloc | thread]
 *
 * boots a guest of 24 bytes, forks it, resets a clone RESETS times and makes SPAWNS clones, and
 * says what the process had after the first tenth of that and what it has at the end: descriptors,
 * threads, mappings, memory. Status 1 if that grew. The third argument leaks one of its kind
 * with each reset: does it notice?
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ramet/vm.h>

#ifdef OWN_NAMES
/* Functions of the inside of libramet have these names, too; libramet.a must not take ours. */
int loop_create(void)
{
        abort();
}
int vm_create(void)
{
        abort();
}
int err_input(void)
{
        abort();
}
int file_write_all = 77;
#endif

#define COUNTER 0x200000u /* the guest adds one to it between two rings */
#define NOTE    0x300000u /* written by this program only */

/* Rings with the counter, adds 1 to it, and again; 32-bit code, no paging. */
static const unsigned char guest[] = {
        0x66, 0xba, 0x08, 0x0f,             /*       mov $RAMET_DOORBELL_PORT + RING, %dx */
        0xa1, 0x00, 0x00, 0x20, 0x00,       /* next: mov COUNTER, %eax */
        0xef,                               /*       out %eax, %dx */
        0xff, 0x05, 0x00, 0x00, 0x20, 0x00, /*       incl COUNTER */
        0xff, 0x05, 0x00, 0x00, 0x28, 0x00, /*       incl another page */
        0xeb, 0xec,                         /*       jmp next */
};

static void check(int ok, const char *what)
{
        if (ok)
                return;
        printf("failed: %s: %s\n", what, ramet_last_error(NULL));
        exit(2);
}
#define CHECK(what) check((what) ? 1 : 0, #what)

/* --- what the process has --- */

enum { FDS, THREADS, MAPPINGS, SIZE_KIB, RSS_KIB, LOCKED_KIB, ALLOCATED, N };

/* How much more there may be at the end. A library that keeps something for each reset is beyond
 * all of them after a thousand. */
static const struct {
        const char *name;
        long slack;
} kinds[N] = {
        {"descriptors", 0},         {"threads", 0},    {"mappings", 4},
        {"size, KiB", 1024},        {"RSS, KiB", 512}, {"locked, KiB", 0},
        {"allocated, bytes", 4096},
};

static long entries(const char *path)
{
        DIR *dir = opendir(path);
        long n = 0;

        CHECK(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

static void look(long have[N])
{
        char line[512];
        FILE *f = fopen("/proc/self/maps", "re");

        have[MAPPINGS] = 0;
        CHECK(f);
        while (fgets(line, sizeof line, f))
                have[MAPPINGS] += strchr(line, '\n') != NULL;
        fclose(f);
        f = fopen("/proc/self/status", "re");
        CHECK(f);
        while (fgets(line, sizeof line, f)) {
                sscanf(line, "VmSize: %ld", &have[SIZE_KIB]);
                sscanf(line, "VmRSS: %ld", &have[RSS_KIB]);
                sscanf(line, "VmLck: %ld", &have[LOCKED_KIB]);
        }
        fclose(f);
        have[FDS] = entries("/proc/self/fd");
        have[THREADS] = entries("/proc/self/task");
        have[ALLOCATED] = (long)mallinfo2().uordblks;
}

static int grown(const char *what, const long before[N], const long after[N])
{
        int bad = 0;

        for (int i = 0; i < N; i++) {
                int more = after[i] - before[i] > kinds[i].slack;

                printf("%s: %s: %ld, then %ld%s\n", what, kinds[i].name, before[i], after[i],
                       more ? ": GROWN" : "");
                bad |= more;
        }
        return bad;
}

static void *idle(void *data)
{
        pause();
        return data;
}

static void leak(const char *kind)
{
        pthread_t thread;

        if (!strcmp(kind, "fd"))
                CHECK(dup(0) >= 0);
        else if (!strcmp(kind, "mapping"))
                CHECK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
                      MAP_FAILED);
        else if (!strcmp(kind, "malloc"))
                memset(malloc(1024), 1, 1024);
        else if (!strcmp(kind, "thread"))
                CHECK(pthread_create(&thread, NULL, idle, NULL) == 0);
}

/* --- machines --- */

/* One round of the guest from the template on: its counter was 0. */
static void round_of(struct ramet_vm *vm, uint32_t number)
{
        struct ramet_vm_event event;
        uint32_t value = 0;

        CHECK(ramet_vm_read(vm, NOTE, &value, sizeof value) == 0);
        CHECK(value == 0);
        CHECK(ramet_vm_write(vm, NOTE, &number, sizeof number) == 0);
        CHECK(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, 10 * RAMET_SECOND, &event) == 1);
        CHECK(event.type == RAMET_VM_DOORBELL && event.doorbell.value == 1);
        CHECK(ramet_vm_read(vm, COUNTER, &value, sizeof value) == 0);
        CHECK(value == 1);
}

static struct ramet_template *boot(struct ramet_ctx *ctx)
{
        struct ramet_vm_config config;
        struct ramet_vm_event event;
        struct ramet_template *tmpl;
        struct ramet_vm *vm, *clones[2];

        memset(&config, 0, sizeof config);
        config.size = sizeof config;
        config.kernel_data = guest;
        config.kernel_bytes = sizeof guest;
        config.flat = true;
        config.flat_address = 0x100000;
        config.flat_bits = 32;
        config.memory_bytes = 16 << 20;
        config.fixed_page_tables = true; /* it has none */
        CHECK(ramet_vm_create(ctx, &config, &vm) == 0);
        CHECK(ramet_vm_run_until(vm, RAMET_VM_DOORBELL, 10 * RAMET_SECOND, &event) == 1);
        CHECK(event.type == RAMET_VM_DOORBELL && event.doorbell.value == 0);
        CHECK(ramet_vm_freeze(vm, "booted", &tmpl) == 0);
        CHECK(ramet_vm_fork(vm, 2, clones) == 0);
        for (int i = 0; i < 2; i++) {
                round_of(clones[i], 1);
                ramet_vm_destroy(clones[i]);
        }
        ramet_vm_destroy(vm);
        return tmpl;
}

static int resets(struct ramet_template *tmpl, uint32_t count, const char *leaking)
{
        long before[N] = {0}, after[N] = {0};
        struct ramet_vm *vm;

        CHECK(ramet_template_spawn(tmpl, NULL, &vm) == 0);
        for (uint32_t i = 0; i < count; i++) {
                if (i == count / 10)
                        look(before);
                round_of(vm, i + 1);
                CHECK(ramet_vm_reset(vm) == 0);
                leak(leaking);
        }
        look(after);
        ramet_vm_destroy(vm);
        return grown("resets", before, after);
}

static int spawns(struct ramet_template *tmpl, uint32_t count)
{
        long before[N] = {0}, after[N] = {0};
        struct ramet_vm *vm;

        for (uint32_t i = 0; i < count; i++) {
                if (i == count / 10)
                        look(before);
                CHECK(ramet_template_spawn(tmpl, NULL, &vm) == 0);
                round_of(vm, i + 1);
                ramet_vm_destroy(vm);
        }
        look(after);
        return grown("spawns", before, after);
}

int main(int argc, char **argv)
{
        struct ramet_template *tmpl;
        struct ramet_ctx *ctx;
        int bad;

        if (argc < 3)
                return 2;
        CHECK(ramet_ctx_create(&ctx) == 0);
        tmpl = boot(ctx);
        bad = resets(tmpl, (uint32_t)atol(argv[1]), argc > 3 ? argv[3] : "");
        bad |= spawns(tmpl, (uint32_t)atol(argv[2]));
        ramet_template_release(tmpl);
        ramet_ctx_destroy(ctx);
        return bad;
}
