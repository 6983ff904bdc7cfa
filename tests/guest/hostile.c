// SPDX-License-Identifier: Apache-2.0
/*
 * A driver that means harm. Each case sets a device up, does one thing that no driver should, and
 * looks at what becomes of it. Then, whatever it was: nothing outside the buffers of the case was
 * written, and after a reset the device serves a good request. A line for each:
 *
 *      hostile: rng/loop of one: want refused, got refused: ok
 *      hostile: disk/past the end: want status 1, got status 0: FAILED
 *      hostile: tx/loop of one: want refused, got wrong: FAILED: why
 *
 * The tables are in hostile_*.c. "list=1" only lists the cases; "fork=1" runs them in the clones of
 * a fork; "every=N" runs every Nth, "only=N" one; "devs=MASK" those of some devices; "high=BYTES"
 * says how much RAM is above 4 GiB. Before the first case it says "hostile: begin" and with
 * "wait=1" waits until somebody has written to sector 1 of the read-only disk's image; at the end
 * "hostile: end", and waits for sector 2: to be looked at from outside. All of it runs at CPL 3.
 */
#include "hostile.h"

#define WAIT_MS    5000
#define IGNORED_MS 20
#define SECTOR     512
#define GOOD       7 /* the sector that a good request reads */

struct arena arena;
struct virtio_blk_outhdr hdr;
volatile uint8_t status_byte;
struct vring_desc indirect[INDIRECTS];
struct vq_mem other_mem;
uint64_t low_end, high_end;

static struct vq_mem memory;
static uint8_t good_buf[4096];
static struct virtio_blk_outhdr good_hdr;
static volatile uint8_t good_status;
static unsigned total, failures;

static const char *const dev_names[] = {"disk", "ro-disk", "rng", "tx", "rx"};
static const char *const outcome_names[] = {
        "refused",  "completed", "ignored", "disagreed", "works",
        "harmless", "stuck",     "wrong",   "absent",
};
static const struct hostile_case *const tables[] = {
        queue_cases, place_cases, register_cases, disk_cases, other_cases, race_cases,
};

void wrong(struct ctx *c, const char *why)
{
        c->got = WRONG;
        c->why = why;
}

/* --- what nobody may write --- */

static uint64_t mix(uint64_t hash, const volatile void *at, uint64_t len)
{
        const volatile uint64_t *p = at;

        for (uint64_t i = 0; i < len / 8; i++)
                hash = (hash ^ p[i]) * 0x100000001b3ull;
        return hash;
}

/* The tables of ACPI and the generation id. */
static uint64_t firmware_sum(void)
{
        return mix(mix(1, (void *)LAYOUT_ACPI, LAYOUT_ACPI_MAX), (void *)LAYOUT_VMGENID, 4096);
}

/* What a device only reads. */
static uint64_t driver_sum(const struct ctx *c)
{
        uint64_t hash = mix(1, c->q.mem->desc, sizeof c->q.mem->desc);

        hash = mix(hash, &c->q.mem->avail, sizeof c->q.mem->avail - 8);
        return mix(mix(hash, indirect, sizeof indirect), &hdr, sizeof hdr);
}

static uint64_t fence_word(const uint64_t *at)
{
        return (uint64_t)at * 0x9e3779b97f4a7c15ull;
}

static void fence_fill(uint64_t *at)
{
        for (unsigned i = 0; i < FENCE_BYTES / 8; i++)
                at[i] = fence_word(at + i);
}

static int fence_broken(const uint64_t *at)
{
        for (unsigned i = 0; i < FENCE_BYTES / 8; i++)
                if (at[i] != fence_word(at + i))
                        return 1;
        return 0;
}

static uint8_t filler(const struct ctx *c)
{
        return c->kind == TX ? 0 : 0x5a; /* NULs can be told from what else is printed */
}

static void look_around(struct ctx *c, uint64_t firmware)
{
        uint64_t want = 0x0101010101010101ull * filler(c);
        const uint64_t *p = (const uint64_t *)buf;

        if (fence_broken(arena.before) || fence_broken(arena.after))
                wrong(c, "memory beside the buffer was written");
        for (unsigned i = (c->may_write + 7) / 8; i < BUF_BYTES / 8; i++)
                if (p[i] != want)
                        wrong(c, "the buffer was written beyond what was given");
        if (!(c->nocheck & 1) && firmware_sum() != firmware)
                wrong(c, "firmware tables were written");
}

/* --- lives of a device --- */

static unsigned queue_index(const struct ctx *c)
{
        return c->kind == TX ? 1 : 0;
}

int life(struct ctx *c, uint64_t drop)
{
        if (virtio_begin(&c->dev, ~drop))
                return -1;
        if (vq_setup(&c->q, &c->dev, queue_index(c), 0, c->mem))
                return -1;
        virtio_go(&c->dev);
        c->base = 0;
        return 0;
}

unsigned payload_flags(const struct ctx *c)
{
        return c->kind == TX ? 0 : VRING_DESC_F_WRITE;
}

uint32_t payload_len(const struct ctx *c)
{
        return c->kind == DISK || c->kind == DISK_RO ? SECTOR : 64;
}

static int has_header(const struct ctx *c)
{
        return c->kind == DISK || c->kind == DISK_RO;
}

static unsigned chain_at(struct ctx *c, struct vring_desc *table, unsigned at)
{
        unsigned payload = at + 1;

        hdr = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = GOOD};
        status_byte = NO_STATUS;
        c->may_write = payload_flags(c) ? payload_len(c) : 0;
        if (!has_header(c)) {
                desc(table + at, buf, payload_len(c), payload_flags(c), 0);
                return at;
        }
        desc(table + at, &hdr, sizeof hdr, VRING_DESC_F_NEXT, payload);
        desc(table + payload, buf, SECTOR, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, payload + 1);
        desc(table + payload + 1, &status_byte, 1, VRING_DESC_F_WRITE, 0);
        return payload;
}

unsigned chain(struct ctx *c, unsigned at)
{
        return chain_at(c, c->q.mem->desc, at);
}

unsigned chain_in(struct ctx *c, struct vring_desc *table)
{
        chain_at(c, table, 0);
        return has_header(c) ? 3 : 1;
}

void offer(struct ctx *c, unsigned head)
{
        c->q.mem->avail.ring[c->q.avail_idx++ % c->q.size] = (uint16_t)head;
}

void publish(struct ctx *c, unsigned avail_idx)
{
        virtio_mb();
        c->q.mem->avail.idx = (uint16_t)avail_idx;
        virtio_mb();
        c->sum = driver_sum(c);
        vq_notify(&c->q);
}

static int needs_reset(const struct ctx *c)
{
        return !!(vdev_status(&c->dev) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

unsigned ms_for(const struct ctx *c)
{
        return c->k->want == IGNORED ? IGNORED_MS : WAIT_MS;
}

/* A used element within @ms: 1; 0: NEEDS_RESET; -1: neither. */
static int used(struct ctx *c, unsigned ms)
{
        for (unsigned waited = 0;; waited++) {
                for (unsigned i = 0; i < 2000; i++) {
                        virtio_mb();
                        if (c->q.mem->used.idx != c->q.used_idx)
                                return 1;
                }
                if (needs_reset(c))
                        return c->q.mem->used.idx != c->q.used_idx;
                if (waited >= ms)
                        return -1;
                sleep_ms(1);
        }
}

static void take_used(struct ctx *c)
{
        unsigned at = c->q.used_idx++ % c->q.size;

        c->head = c->q.mem->used.ring[at].id;
        c->len = c->q.mem->used.ring[at].len;
}

void settle(struct ctx *c)
{
        switch (used(c, ms_for(c))) {
        case 1:
                take_used(c);
                c->got = COMPLETED;
                c->status = has_header(c) ? status_byte : 0;
                if (needs_reset(c) && c->k->want != HARMLESS)
                        wrong(c, "completed, but it needs a reset");
                break;
        case 0:
                c->got = REFUSED;
                break;
        default:
                c->got = good(c, 200) ? STUCK : IGNORED;
                return;
        }
        if (!(c->nocheck & 2) && driver_sum(c) != c->sum)
                wrong(c, "descriptors, available ring or header were written");
}

void shoot(struct ctx *c, unsigned head)
{
        offer(c, head);
        publish(c, c->q.avail_idx);
        settle(c);
}

static const char *judge_good(struct ctx *c)
{
        uint64_t first = *(uint64_t *)good_buf;

        if (c->len > 64 && !has_header(c))
                return "good request: too much was written";
        switch (c->kind) {
        case DISK:
        case DISK_RO:
                if (good_status != VIRTIO_BLK_S_OK || c->len != SECTOR + 1)
                        return "good request: status or length";
                for (unsigned i = 0; c->kind == DISK && i < SECTOR / 8; i++)
                        if (((uint64_t *)good_buf)[i] != GOOD * 1000 + i)
                                return "good request: other data";
                if (c->kind == DISK_RO && first)
                        return "good request: other data";
                return NULL;
        case RNG:
                return c->len && first == 0xa5a5a5a5a5a5a5a5ull ? "good request: no data" : NULL;
        case RX:
                return c->len ? NULL : "good request: no input";
        default:
                return c->len ? "good request: a length" : NULL;
        }
}

int good(struct ctx *c, unsigned at)
{
        struct vring_desc *d = c->q.mem->desc + at;
        const char *why;

        __builtin_memset(good_buf, c->kind == TX ? 0 : 0xa5, sizeof good_buf);
        good_hdr = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN, .sector = GOOD};
        good_status = NO_STATUS;
        if (has_header(c)) {
                desc(d, &good_hdr, sizeof good_hdr, VRING_DESC_F_NEXT, at + 1);
                desc(d + 1, good_buf, SECTOR, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, at + 2);
                desc(d + 2, &good_status, 1, VRING_DESC_F_WRITE, 0);
        } else {
                desc(d, good_buf, 64, payload_flags(c), 0);
        }
        offer(c, at);
        publish(c, c->q.avail_idx);
        switch (used(c, WAIT_MS)) {
        case 1:
                take_used(c);
                break;
        case 0:
                wrong(c, "good request: needs reset");
                return -1;
        default:
                wrong(c, "good request: no answer");
                return -1;
        }
        why = c->head == at ? judge_good(c) : "good request: another chain";
        if (why)
                wrong(c, why);
        return why ? -1 : 0;
}

/* --- cases --- */

static int device(struct ctx *c)
{
        static const struct {
                uint32_t id;
                unsigned nth;
        } where[] = {{VIRTIO_ID_BLOCK, 0},
                     {VIRTIO_ID_BLOCK, 1},
                     {VIRTIO_ID_RNG, 0},
                     {VIRTIO_ID_CONSOLE, 0},
                     {VIRTIO_ID_CONSOLE, 0}};

        return virtio_find(&c->dev, where[c->kind].id, where[c->kind].nth);
}

static void attempt(struct ctx *c)
{
        enum outcome got;
        uint64_t firmware = firmware_sum();

        __builtin_memset(buf, filler(c), BUF_BYTES);
        if (c->k->raw)
                virtio_reset(&c->dev);
        else if (life(c, c->k->drop)) {
                wrong(c, "it could not be set up");
                return;
        }
        c->k->fn(c, c->k->a, c->k->b);
        got = c->got;
        if (got == WRONG)
                return;
        if (life(c, 0)) {
                wrong(c, "it could not be set up again");
                return;
        }
        if (!good(c, 0))
                c->got = got;
        look_around(c, firmware);
}

static int as_wanted(const struct ctx *c)
{
        const struct hostile_case *k = c->k;

        if (k->want == HARMLESS)
                return c->got <= HARMLESS;
        if (k->want == COMPLETED && c->got == COMPLETED)
                return c->status == k->status;
        return c->got == k->want;
}

static void say_outcome(char *to, enum outcome o, unsigned status, int disk)
{
        const char *name = outcome_names[o];

        while (*name)
                *to++ = *name++;
        if (o == COMPLETED && disk) {
                *to++ = ' ';
                if (status >= 100)
                        *to++ = (char)('0' + status / 100);
                if (status >= 10)
                        *to++ = (char)('0' + status / 10 % 10);
                *to++ = (char)('0' + status % 10);
        }
        *to = 0;
}

static void run_case(const struct hostile_case *k, enum dev kind)
{
        struct ctx c = {.k = k, .kind = kind, .mem = &memory, .got = ABSENT, .why = ""};
        char want[32], got[32];
        int ok;

        if (device(&c))
                attempt(&c);
        ok = as_wanted(&c);
        failures += !ok;
        say_outcome(want, k->want, k->status, has_header(&c));
        say_outcome(got, c.got, c.status, has_header(&c));
        printf("hostile: %s/%s: want %s, got %s: %s%s\n", dev_names[kind], k->name, want, got,
               ok ? "ok" : "FAILED: ", ok ? "" : c.why);
}

static void all_cases(void)
{
        uint64_t every = cmd_u64("every", 1), only = cmd_u64("only", ~0ull);
        uint64_t devs = cmd_hex("devs", ~0ull);
        int list = (int)cmd_u64("list", 0);

        for (unsigned t = 0; t < sizeof tables / sizeof *tables; t++)
                for (const struct hostile_case *k = tables[t]; k->name; k++)
                        for (unsigned kind = 0; kind < NDEVS; kind++) {
                                if (!(k->devs & devs & 1u << kind))
                                        continue;
                                if (total++ % every || (only != ~0ull && total - 1 != only))
                                        continue;
                                if (list)
                                        printf("hostile: %s/%s\n", dev_names[kind], k->name);
                                else
                                        run_case(k, kind);
                        }
}

/* The sector that good requests read. */
static void prepare(void)
{
        struct ctx c = {.kind = DISK, .mem = &memory};

        if (!device(&c) || life(&c, 0))
                return;
        chain(&c, 0);
        hdr.type = VIRTIO_BLK_T_OUT;
        for (unsigned i = 0; i < SECTOR / 8; i++)
                ((uint64_t *)buf)[i] = GOOD * 1000 + i;
        c.q.mem->desc[1].flags = VRING_DESC_F_NEXT;
        offer(&c, 0);
        publish(&c, 1);
        if (used(&c, WAIT_MS) != 1 || status_byte)
                printf("hostile: the disk could not be written: FAILED\n");
}

/* Until somebody outside has written to @sector of the read-only disk's image. */
static void wait_for(unsigned sector)
{
        struct ctx c = {.kind = DISK_RO, .mem = &memory};

        for (unsigned i = 0; cmd_u64("wait", 0) && i < 300; i++) {
                if (!device(&c) || life(&c, 0))
                        return;
                chain(&c, 0);
                hdr.sector = sector;
                offer(&c, 0);
                publish(&c, 1);
                if (used(&c, WAIT_MS) != 1 || buf[0])
                        return;
                sleep_ms(200);
        }
}

static uint64_t work(void *arg)
{
        fence_fill(arena.before);
        fence_fill(arena.after);
        if (cmd_u64("list", 0)) {
                all_cases();
                printf("hostile: end: %u cases\n", total);
                return 0;
        }
        prepare();
        printf("hostile: begin\n");
        wait_for(1);
        if (cmd_u64("fork", 0)) {
                uint32_t number = doorbell_ring();

                if (!number || number >= RAMET_DOORBELL_ERROR) {
                        printf("hostile: fork: %d\n", (int)number);
                        return 0;
                }
        }
        all_cases();
        printf("hostile: end: %u cases, %u failed\n", total, failures);
        wait_for(2);
        return 0;
}

static void cpu_work(unsigned cpu)
{
        if (cpu)
                race_cpu();
        run_user(work, NULL);
}

void guest_main(void)
{
        low_end = boot.ram_end < LAYOUT_LOW_RAM_END ? boot.ram_end : LAYOUT_LOW_RAM_END;
        high_end = cmd_hex("high", 0) ? LAYOUT_HIGH_RAM + cmd_hex("high", 0) : 0;
        smp_run(cpu_work);
}
