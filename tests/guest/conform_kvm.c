// SPDX-License-Identifier: Apache-2.0
/*
 * Memory that is written by no instruction of the guest, for the guest "conform": by KVM itself
 * (kvmclock, wall clock and steal time: Documentation/virt/kvm/x86/msr.rst), and by a device of the
 * machine (the generation id). KVM writes through host addresses and says nothing when it cannot,
 * so a write that was lost shows as a structure that stays as it was.
 *
 * "before" is a page whose MSR was set before the fork, and which KVM has to write again after it:
 * kvmclock when its vCPU is restored or told that it was paused, steal time whenever the vCPU gets
 * a processor. "after" is a page that nobody has written since the fork when the MSR is set to it.
 */
#include "conform.h"

#define MSR_WALL_CLOCK  0x4b564d00u
#define MSR_CLOCK       0x4b564d01u
#define MSR_STEAL_TIME  0x4b564d03u
#define ENABLE          1ull
#define STRUCT_BYTES    64u /* steal time, the largest */
#define CLOCK_VERSION   0
#define CLOCK_TIMESTAMP 8
#define CLOCK_TIME      16
#define CLOCK_MUL       24
#define WALL_SECONDS    4
#define STEAL_VERSION   8
#define PATIENCE_MS     300

int wrmsr_safe(uint32_t msr, uint64_t value);

struct page {
        const char *name;
        uint32_t msr;
        unsigned version; /* offset of that field */
        uint8_t *area;
        uint8_t image[AREA_BYTES];
        int absent; /* there is no such MSR */
};

static struct page clock_before = {
        .name = "kvmclock set before the fork", .msr = MSR_CLOCK, .version = CLOCK_VERSION};
static struct page clock_after = {
        .name = "kvmclock set after it", .msr = MSR_CLOCK, .version = CLOCK_VERSION};
static struct page wall_after = {
        .name = "wall clock set after it", .msr = MSR_WALL_CLOCK, .version = CLOCK_VERSION};
static struct page steal_before = {
        .name = "steal time set before the fork", .msr = MSR_STEAL_TIME, .version = STEAL_VERSION};
static struct page steal_after = {
        .name = "steal time set after it", .msr = MSR_STEAL_TIME, .version = STEAL_VERSION};
static uint8_t genid_image[PAGE];
static uint8_t *control;

static uint64_t field(const uint8_t *base, unsigned offset, unsigned len)
{
        const volatile uint8_t *p = base + OFFSET_IN + offset;

        return len == 8 ? *(const volatile uint64_t *)p : *(const volatile uint32_t *)p;
}

static uint64_t set_msr(void *data)
{
        struct page *p = data;

        p->absent = wrmsr_safe(p->msr, (uint64_t)(p->area + OFFSET_IN) |
                                               (p->msr == MSR_WALL_CLOCK ? 0 : ENABLE));
        return 0;
}

static uint64_t unset_msrs(void *unused)
{
        wrmsr_safe(MSR_CLOCK, 0);
        wrmsr_safe(MSR_STEAL_TIME, 0);
        return 0;
}

static void place(struct page *p)
{
        p->area = area_new();
}

void kvm_writers_places(void)
{
        place(&clock_before);
        place(&clock_after);
        place(&wall_after);
        place(&steal_before);
        place(&steal_after);
        control = area_new();
}

static void clear(struct page *p)
{
        __builtin_memset(p->area + OFFSET_IN, 0, STRUCT_BYTES);
}

uint64_t kvm_writers_prepare(void *unused)
{
        clear(&clock_before);
        clear(&clock_after);
        clear(&wall_after);
        clear(&steal_before);
        clear(&steal_after);
        set_msr(&clock_before);
        set_msr(&steal_before);
        return 0;
}

static void save(struct page *p)
{
        __builtin_memcpy(p->image, p->area, AREA_BYTES);
}

void kvm_writers_before_ring(void)
{
        sleep_ms(2);
        save(&clock_before);
        save(&clock_after);
        save(&wall_after);
        save(&steal_before);
        save(&steal_after);
        __builtin_memcpy(genid_image, (const void *)LAYOUT_VMGENID, PAGE);
}

static int wait_version(const struct page *p, uint32_t old)
{
        for (int ms = 0; ms < PATIENCE_MS; ms++) {
                uint32_t now = (uint32_t)field(p->area, p->version, 4);

                if (now != old && !(now & 1))
                        return 0;
                sleep_ms(1);
        }
        printf("conform: k: %s: BAD lost: version is still %u\n", p->name, old);
        return 1;
}

static int rest_differs(const struct page *p)
{
        for (unsigned i = 0; i < AREA_BYTES; i++) {
                if (i >= OFFSET_IN && i < OFFSET_IN + STRUCT_BYTES)
                        continue;
                if (p->area[i] == p->image[i])
                        continue;
                printf("conform: k: %s: BAD +%x saw %02x want %02x\n", p->name, i, p->area[i],
                       p->image[i]);
                return 1;
        }
        return 0;
}

static int check_clock(const struct page *p, const struct page *earlier)
{
        if (field(p->area, CLOCK_MUL, 4) &&
            field(p->area, CLOCK_TIME, 8) >= field(earlier->image, CLOCK_TIME, 8) &&
            field(p->area, CLOCK_TIMESTAMP, 8) >= field(earlier->image, CLOCK_TIMESTAMP, 8))
                return 0;
        printf("conform: k: %s: BAD time %lu after %lu\n", p->name, field(p->area, CLOCK_TIME, 8),
               field(earlier->image, CLOCK_TIME, 8));
        return 1;
}

static unsigned finish(const struct page *p, unsigned bad)
{
        bad = bad || rest_differs(p);
        bad |= watch_end(p->name, NULL);
        if (!bad)
                printf("conform: k: %s: ok\n", p->name);
        return bad;
}

static int none(const struct page *p)
{
        if (p->absent)
                printf("conform: k: %s: n/a this KVM has no such clock\n", p->name);
        return p->absent;
}

static unsigned before(struct page *p, uint32_t version)
{
        unsigned bad;

        if (none(p))
                return 0;
        watch_begin(p->area, p->image, OFFSET_IN, OFFSET_IN + STRUCT_BYTES, 0, 0);
        watch_pass();
        bad = (unsigned)wait_version(p, version);
        if (!bad && p == &clock_before)
                bad = (unsigned)check_clock(p, p);
        return finish(p, bad);
}

/* The same on memory that is in use: does this KVM write there at all? */
static int control_fails(struct page *p)
{
        struct page c = {.name = p->name, .msr = p->msr, .version = p->version, .area = control};

        __builtin_memset(control, 0, AREA_BYTES);
        call_kernel(set_msr, &c);
        p->absent = c.absent;
        if (none(p))
                return 1;
        for (int ms = 0; ms < PATIENCE_MS; ms++) {
                if (field(control, p->version, 4))
                        return 0;
                sleep_ms(1);
        }
        printf("conform: k: %s: n/a this KVM does not write it\n", p->name);
        return 1;
}

static unsigned after(struct page *p)
{
        unsigned bad;

        if (control_fails(p))
                return 0;
        watch_begin(p->area, p->image, OFFSET_IN, OFFSET_IN + STRUCT_BYTES, 0, 0);
        watch_pass();
        call_kernel(set_msr, p);
        bad = (unsigned)wait_version(p, 0);
        if (!bad && p == &clock_after)
                bad = (unsigned)check_clock(p, &clock_before);
        if (!bad && p == &wall_after && !field(p->area, WALL_SECONDS, 4)) {
                printf("conform: k: %s: BAD 0 seconds since 1970\n", p->name);
                bad = 1;
        }
        return finish(p, bad);
}

static unsigned generation_id(int is_clone)
{
        const uint8_t *page = (const uint8_t *)LAYOUT_VMGENID;
        const char *name = "generation id, by a device";
        unsigned same = 0;

        for (unsigned i = 0; i < 16; i++)
                same += page[i] == genid_image[i];
        if (is_clone ? same > 8 : same < 16) {
                printf("conform: k: %s: BAD %u of 16 bytes are as before the fork\n", name, same);
                return 1;
        }
        for (unsigned i = 16; i < PAGE; i++) {
                if (page[i] == genid_image[i])
                        continue;
                printf("conform: k: %s: BAD +%x saw %02x want %02x\n", name, i, page[i],
                       genid_image[i]);
                return 1;
        }
        printf("conform: k: %s: ok\n", name);
        return 0;
}

unsigned kvm_writers_check(int is_clone)
{
        uint32_t steal_now = (uint32_t)field(steal_before.area, STEAL_VERSION, 4);
        unsigned bad = generation_id(is_clone);

        bad += before(&clock_before, (uint32_t)field(clock_before.image, CLOCK_VERSION, 4));
        bad += before(&steal_before, steal_now);
        bad += after(&clock_after);
        bad += after(&wall_after);
        bad += after(&steal_after);
        call_kernel(unset_msrs, NULL);
        return bad;
}
