// SPDX-License-Identifier: Apache-2.0
/*
 * Proves that every way to write works on memory that is copy-on-write. The machine prepares pages,
 * rings the doorbell, and then, in the parent as in the clone, does each kind of write to pages
 * that nobody has written since; each byte of them must then be as it should, and a second
 * processor that looks at them all the time must see the old bytes or the new ones, never anything
 * else, and the new ones when it is told that they are there.
 *
 * Each instruction is first run on memory that is in use (the control run), and has to do there
 * what plain C says. Positions: "in" the middle of a page; across two pages of which none ("x00"),
 * the first ("x10") or the second ("x01") has been written since the fork.
 *
 * mode=control: only control runs at CPL 0, beginning with the instruction whose number is the
 * clone's, from 1, because some hosts cannot execute some, and the machine ends. skip0=, skip1=:
 * bits (hexadecimal), which of them to leave out later. emulated=1: this KVM's emulator has its own
 * idea of the processor; leave out what tells.
 *
 * After the fork the parent does everything, clone 1 all but what may make an engine break all
 * pages at once (OP_LAST), clone 2 just that.
 *
 *      conform: try 17                        mode=control: what is tried next
 *      conform: 3: mov 8: ok                  CPL: what: ok | BAD and what was seen | n/a and why
 *      conform: k: kvmclock set before the fork: ok     what KVM and devices write
 *      conform: end bad=0
 *
 * Debug-exit with 1 when anything was bad.
 */
#include "conform.h"

#define AREA_FIRST ((uint8_t *)0x400000)
#define OPS_MAX    96

/* Clones by their number: what they leave out. */
#define CLONE_OF_REST 1 /* OP_LAST */
#define CLONE_OF_LAST 2 /* everything else */
#define SPINS         100000

enum position { IN, CROSS_00, CROSS_10, CROSS_01, POSITIONS };

static const char *const position_name[POSITIONS] = {"in", "x00", "x10", "x01"};
static const char *const feature_name[FEATURES] = {
        [HAS_CX16] = "cx16",          [HAS_MOVBE] = "movbe",       [HAS_XSAVE] = "xsave",
        [HAS_XSAVEOPT] = "xsaveopt",  [HAS_XSAVEC] = "xsavec",     [HAS_AVX] = "avx",
        [HAS_AVX512F] = "avx512f",    [HAS_AVX512BW] = "avx512bw", [HAS_MOVDIRI] = "movdiri",
        [HAS_MOVDIR64B] = "movdir64b"};

int ring_of_ops;
static uint32_t has; /* bits: enum feature */
static uint64_t emulated;
static uint8_t *area_next = AREA_FIRST;
static uint8_t *areas[2][OPS_MAX][POSITIONS]; /* by ring (0: CPL 3) */
static uint8_t *control;
static uint8_t image[AREA_BYTES] __attribute__((aligned(64)));  /* an area before the write */
static uint8_t wanted[AREA_BYTES] __attribute__((aligned(64))); /* and after it */
static uint64_t skip[2];
static struct barrier barrier;

uint64_t pattern(const void *address)
{
        return (uint64_t)address * 0x9e3779b97f4a7c15ull ^ 0x5851f42d4c957f2dull;
}

uint8_t *area_new(void)
{
        uint8_t *area = area_next;

        area_next += AREA_BYTES;
        return area;
}

unsigned area_number(const uint8_t *area)
{
        return (unsigned)((uint64_t)(area - AREA_FIRST) / AREA_BYTES);
}

/* --- the second processor --- */

static struct {
        const uint8_t *area, *image;
        unsigned lo, hi;
        int atomic;
        uint64_t old_value, new_value;
        const uint8_t *final;
        int seen_new;

        int active;      /* writer's: what follows may be used */
        int busy;        /* watcher's: it does use it */
        uint32_t passes; /* watcher's */
        int stop;

        uint32_t bad;
        unsigned bad_at;
        uint64_t saw, want;
} watch;

static void report(unsigned at, uint64_t saw, uint64_t want)
{
        if (watch.bad++)
                return;
        watch.bad_at = at;
        watch.saw = saw;
        watch.want = want;
}

static void look_at_target(unsigned at, uint64_t saw)
{
        uint64_t before = *(const uint64_t *)(watch.image + at), differ = saw ^ before;

        if (watch.atomic && at == watch.lo) {
                if (saw == watch.new_value)
                        watch.seen_new = 1;
                else if (saw != watch.old_value || watch.seen_new)
                        report(at, saw, watch.new_value);
                return;
        }
        for (unsigned i = 0; i < 8; i++)
                if ((differ >> 8 * i & 0xff) && (at + i < watch.lo || at + i >= watch.hi))
                        report(at, saw, before);
}

static void look(void)
{
        const uint8_t *final = __atomic_load_n(&watch.final, __ATOMIC_ACQUIRE);

        for (unsigned at = 0; at < AREA_BYTES; at += 8) {
                uint64_t saw = *(const volatile uint64_t *)(watch.area + at);

                if (final) {
                        if (saw != *(const uint64_t *)(final + at))
                                report(at, saw, *(const uint64_t *)(final + at));
                } else if (at + 8 <= watch.lo || at >= watch.hi) {
                        if (saw != *(const uint64_t *)(watch.image + at))
                                report(at, saw, *(const uint64_t *)(watch.image + at));
                } else {
                        look_at_target(at, saw);
                }
        }
}

static void watcher(void)
{
        while (!__atomic_load_n(&watch.stop, __ATOMIC_ACQUIRE)) {
                __atomic_store_n(&watch.busy, 1, __ATOMIC_SEQ_CST);
                if (__atomic_load_n(&watch.active, __ATOMIC_SEQ_CST)) {
                        look();
                        __atomic_add_fetch(&watch.passes, 1, __ATOMIC_SEQ_CST);
                }
                __atomic_store_n(&watch.busy, 0, __ATOMIC_SEQ_CST);
                cpu_relax();
        }
}

static void relax(unsigned *spins)
{
        if (++*spins < SPINS) {
                cpu_relax();
                return;
        }
        sleep_ms(1);
}

void watch_pass(void)
{
        uint32_t passes = __atomic_load_n(&watch.passes, __ATOMIC_SEQ_CST);
        unsigned spins = 0;

        if (cpu_count() < 2)
                return;
        while (__atomic_load_n(&watch.passes, __ATOMIC_SEQ_CST) - passes < 2)
                relax(&spins);
}

void watch_begin(const uint8_t *area, const uint8_t *before, unsigned lo, unsigned hi, int atomic,
                 uint64_t new_value)
{
        if (cpu_count() < 2)
                return;
        watch.area = area;
        watch.image = before;
        watch.lo = lo;
        watch.hi = hi;
        watch.atomic = atomic;
        __builtin_memcpy(&watch.old_value, before + (lo & ~7u), 8);
        watch.new_value = new_value;
        watch.final = NULL;
        watch.seen_new = 0;
        watch.bad = 0;
        __atomic_store_n(&watch.active, 1, __ATOMIC_SEQ_CST);
}

unsigned watch_end(const char *what, const uint8_t *final)
{
        unsigned spins = 0;

        if (cpu_count() < 2)
                return 0;
        __atomic_store_n(&watch.final, final, __ATOMIC_SEQ_CST);
        watch_pass();
        __atomic_store_n(&watch.active, 0, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&watch.busy, __ATOMIC_SEQ_CST))
                relax(&spins);
        if (watch.bad)
                printf("conform: %c: %s: BAD seen by another vCPU: +%x saw %lx want %lx\n",
                       ring_of_ops ? '3' : '0', what, watch.bad_at, watch.saw, watch.want);
        return watch.bad != 0;
}

/* --- one write --- */

static uint64_t run_op(void *data)
{
        void **args = data;

        ((const struct op *)args[0])->run(args[1], conform_src);
        return 0;
}

static void run(const struct op *op, uint8_t *at)
{
        void *args[2] = {(void *)op, at};

        if (ring_of_ops)
                run_op(args);
        else
                call_kernel(run_op, args);
}

/* What an area holds before the write. */
static void contents(const struct op *op, uint8_t *to, uint8_t *area)
{
        for (unsigned i = 0; i < AREA_BYTES; i += 8)
                *(uint64_t *)(to + i) = pattern(area + i);
        if (op->flags & OP_PREPARED)
                op->prepare(to, area);
}

static int crosses(const struct op *op)
{
        return op->len > op->align;
}

static unsigned offset_of(const struct op *op, enum position position)
{
        unsigned half = (op->len / 2u + op->align - 1) / op->align * op->align;

        return (position == IN ? OFFSET_IN : (unsigned)PAGE - half) + op->bias;
}

static int differs(const uint8_t *a, const uint8_t *b, unsigned *at)
{
        for (*at = 0; *at < AREA_BYTES; (*at)++)
                if (a[*at] != b[*at])
                        return 1;
        return 0;
}

static int complain(const struct op *op, const char *how, const uint8_t *area,
                    enum position position)
{
        unsigned at;

        if (!differs(area, wanted, &at))
                return 0;
        printf("conform: %c: %s: %s %s +%x saw %02x want %02x was %02x\n", ring_of_ops ? '3' : '0',
               op->name, how, position_name[position], at, area[at], wanted[at], image[at]);
        return 1;
}

/* On memory that is in use: into `wanted` goes what the area must hold afterwards. Contents are the
 * target's, but for page tables: those must not have been walked yet, and get an area of their own.
 */
static int control_run(const struct op *op, uint8_t *const at[POSITIONS], enum position position)
{
        uint8_t *area = op->flags & OP_PREPARED ? at[CROSS_00] : control;
        unsigned offset = offset_of(op, position);

        contents(op, image, op->flags & OP_PREPARED ? area : at[position]);
        __builtin_memcpy(area, image, AREA_BYTES);
        if (op->flags & OP_PREPARED)
                tables_hook(area);
        run(op, area + offset);
        __builtin_memcpy(wanted, image, AREA_BYTES);
        if (op->want)
                op->want(op, wanted + offset, area + offset);
        else
                __builtin_memcpy(wanted + offset, area + offset, op->len);
        return complain(op, "CONTROL", area, position);
}

static void touch(uint8_t *page)
{
        *(volatile uint8_t *)(page + 8) = page[8];
}

static int target_run(const struct op *op, uint8_t *area, enum position position)
{
        unsigned offset = offset_of(op, position);
        uint64_t new_value;
        int bad;

        contents(op, image, area);
        __builtin_memcpy(wanted, image, AREA_BYTES);
        if (complain(op, "BAD before", area, position))
                return 1;
        if (op->want && op->flags & OP_ATOMIC)
                op->want(op, wanted + offset, area + offset);
        __builtin_memcpy(&new_value, wanted + (offset & ~7u), 8);
        if (position == CROSS_10)
                touch(area);
        if (position == CROSS_01)
                touch(area + PAGE);

        watch_begin(area, image, offset, offset + op->len, op->flags & OP_ATOMIC && position == IN,
                    new_value);
        watch_pass();
        run(op, area + offset);
        __builtin_memcpy(wanted, image, AREA_BYTES);
        if (op->want)
                op->want(op, wanted + offset, area + offset);
        else
                __builtin_memcpy(wanted + offset, control + offset, op->len);
        bad = complain(op, "BAD", area, position);
        bad |= (int)watch_end(op->name, wanted);
        return bad || complain(op, "BAD later", area, position);
}

/* --- all of them --- */

static const char *missing(const struct op *op)
{
        unsigned n = (unsigned)(op - ops);

        if (!(has >> op->feature & 1))
                return feature_name[op->feature];
        if (emulated && op->flags & OP_NATIVE)
                return "host";
        if (!ring_of_ops && skip[n / 64] >> n % 64 & 1)
                return "host";
        return NULL;
}

static unsigned check_op(unsigned n)
{
        const struct op *op = &ops[n];
        const char *why = missing(op);

        if (op->flags & OP_RING0 && ring_of_ops)
                return 0;
        if (why) {
                printf("conform: %c: %s: n/a %s\n", ring_of_ops ? '3' : '0', op->name, why);
                return 0;
        }
        for (enum position p = IN; p < (crosses(op) ? POSITIONS : CROSS_00); p++) {
                if (control_run(op, areas[ring_of_ops == 0][n], p))
                        return 1;
                if (target_run(op, areas[ring_of_ops == 0][n][p], p))
                        return 1;
        }
        printf("conform: %c: %s: ok\n", ring_of_ops ? '3' : '0', op->name);
        return 0;
}

/* Those with @last among their flags, or without. */
static unsigned check_ops(unsigned last)
{
        unsigned bad = 0;

        for (ring_of_ops = 3; ring_of_ops >= 0; ring_of_ops -= 3)
                for (unsigned n = 0; n < nops; n++)
                        if ((ops[n].flags & OP_LAST) == last)
                                bad += check_op(n);
        return bad;
}

static void control_only(unsigned first)
{
        ring_of_ops = 0;
        for (unsigned n = first; n < nops; n++) {
                if (missing(&ops[n]))
                        continue;
                printf("conform: try %u\n", n);
                for (enum position p = IN; p < (crosses(&ops[n]) ? POSITIONS : CROSS_00); p++)
                        control_run(&ops[n], areas[1][n], p);
        }
        printf("conform: end bad=0\n");
        guest_exit(0);
}

static void fill(void)
{
        for (uint8_t *p = AREA_FIRST; p < area_next; p += 8)
                *(uint64_t *)p = pattern(p);
        for (unsigned i = 0; i < 2 * nops * POSITIONS; i++) {
                const struct op *op = &ops[i / POSITIONS % nops];
                uint8_t *area = areas[i / POSITIONS / nops][i / POSITIONS % nops][i % POSITIONS];

                if (!(op->flags & OP_PREPARED) || i % POSITIONS != IN)
                        continue;
                op->prepare(area, area);
                tables_hook(area);
        }
}

static uint64_t work(void *unused)
{
        unsigned bad = 0;
        uint32_t result;

        fill();
        call_kernel(kvm_writers_prepare, NULL);
        barrier_wait(&barrier, cpu_count());
        kvm_writers_before_ring();
        result = doorbell_ring();
        if (cmd_is("mode", "control"))
                control_only(result ? result - 1 : nops);

        if (result != CLONE_OF_LAST) {
                bad += kvm_writers_check(result > 0 && result < RAMET_DOORBELL_ERROR);
                bad += check_ops(0);
        }
        if (result != CLONE_OF_REST)
                bad += check_ops(OP_LAST);
        __atomic_store_n(&watch.stop, 1, __ATOMIC_RELEASE);
        printf("conform: end bad=%u\n", bad);
        guest_exit(bad != 0);
        return 0;
}

static uint64_t other_work(void *unused)
{
        barrier_wait(&barrier, cpu_count());
        watcher();
        return 0;
}

static void cpu_work(unsigned cpu)
{
        run_user(cpu == 0 ? work : other_work, NULL);
}

static void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
        asm volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}

static void features_init(void)
{
        uint32_t one[4], seven[4] = {0}, save[4] = {0}, top[4];
        uint64_t cr4;

        cpuid(0, 0, top);
        cpuid(1, 0, one);
        if (top[0] >= 7)
                cpuid(7, 0, seven);
        if (top[0] >= 13)
                cpuid(13, 1, save);
        has = 1u << ALWAYS | (one[2] >> 13 & 1) << HAS_CX16 | (one[2] >> 22 & 1) << HAS_MOVBE |
              (seven[2] >> 27 & 1) << HAS_MOVDIRI | (seven[2] >> 28 & 1) << HAS_MOVDIR64B;
        if (!(one[2] >> 26 & 1) || !(one[2] >> 28 & 1))
                return;
        has |= 1u << HAS_XSAVE | 1u << HAS_AVX | (save[0] & 1) << HAS_XSAVEOPT |
               (save[0] >> 1 & 1) << HAS_XSAVEC | (seven[1] >> 16 & 1) << HAS_AVX512F |
               (seven[1] >> 16 & seven[1] >> 30 & 1) << HAS_AVX512BW;
        asm volatile("mov %%cr4, %0" : "=r"(cr4));
        asm volatile("mov %0, %%cr4" : : "r"(cr4 | 1u << 18)); /* OSXSAVE */
        asm volatile("xsetbv" : : "c"(0), "a"(seven[1] >> 16 & 1 ? 0xe7 : 7), "d"(0));
}

void guest_main(void)
{
        emulated = cmd_u64("emulated", 0);
        skip[0] = cmd_hex("skip0", 0);
        skip[1] = cmd_hex("skip1", 0);
        src_init();
        features_init();
        tables_init();
        exceptions_init();
        for (unsigned i = 0; i < 2 * nops * POSITIONS; i++)
                if (i % POSITIONS == IN || crosses(&ops[i / POSITIONS % nops]) ||
                    (i % POSITIONS == CROSS_00 && ops[i / POSITIONS % nops].flags & OP_PREPARED))
                        areas[i / POSITIONS / nops][i / POSITIONS % nops][i % POSITIONS] =
                                area_new();
        kvm_writers_places();
        control = area_new();
        smp_run(cpu_work);
}
