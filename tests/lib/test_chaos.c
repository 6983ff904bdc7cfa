/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chaos: short lives of one machine in which registers, memory, page tables and code are anything,
 * it is debugged, interrupted, asked and reported on meanwhile, and its program's device answers
 * anything. Nothing of it may harm this program, and after each reset registers and memory are the
 * template's.
 *
 * What happens is random by a seed; CHAOS_SEED and CHAOS_LIVES choose others, CHAOS_COW the engine.
 */
#include "api.h"
#include "cpu_guest.h"

#include <ramet/harness.h>

#define MEMORY  (8u << 20)
#define VCPUS   2u
#define GENID   0xff000u /* 16 bytes, each life's own */
#define DEVICE  0xd0200000ull
#define LIVES   60
#define EVENTS  8 /* of a life */
#define REGS_OF offsetof(struct ramet_regs, rax)

static uint64_t dice; /* Marsaglia's xorshift */
static unsigned life;
static uint64_t odd; /* a breakpoint anywhere */
static uint8_t *want, *now;
static struct ramet_regs want_regs[VCPUS];

static uint64_t roll(void)
{
        dice ^= dice << 13;
        dice ^= dice >> 7;
        return dice ^= dice << 17;
}

static unsigned upto(size_t n)
{
        return (unsigned)(roll() % n);
}

static bool one_in(unsigned n)
{
        return upto(n) == 0;
}

static uint64_t setting(const char *name, uint64_t fallback)
{
        const char *text = getenv(name);

        return text ? strtoull(text, NULL, 0) : fallback;
}

/* Where something begins or ends, and anywhere. */
static uint64_t any_address(void)
{
        static const uint64_t edges[] = {
                0,           MEMORY,     0xa0000,    0x9000,     0x100000,
                CPU_CONTROL, DEVICE,     0xd0000000, 0xfee00000, 0xfffbc000,
                1ull << 32,  1ull << 47, 1ull << 52, 1ull << 63, 0xffff800000000000,
        };

        if (one_in(3))
                return upto(MEMORY);
        if (one_in(8))
                return roll();
        return edges[upto(sizeof edges / sizeof *edges)] + upto(64) - 32;
}

static void any_bytes(uint8_t *bytes, size_t len)
{
        for (size_t i = 0; i < len; i++)
                bytes[i] = (uint8_t)roll();
}

/* --- what is done to it --- */

static uint64_t on_read(void *data, uint64_t offset, unsigned length)
{
        return offset * 0x9e3779b97f4a7c15;
}

static void on_write(void *data, uint64_t offset, unsigned length, uint64_t value)
{
        struct ramet_vm *vm = data;

        if (value % 3 == 0)
                ramet_vm_irq(vm, CPU_LINE, value & 1);
        else
                ramet_vm_read(vm, 0, &value, sizeof value); /* refused */
}

static const struct ramet_handler device = {
        .size = sizeof device, .read = on_read, .write = on_write};

static void disturb_memory(struct ramet_vm *vm)
{
        uint8_t bytes[64];

        for (unsigned i = upto(6); i > 0; i--) {
                const uint64_t at = one_in(2) ? upto(MEMORY) : any_address();
                const size_t len = upto(sizeof bytes);

                any_bytes(bytes, len);
                if (one_in(2))
                        ramet_vm_write(vm, at, bytes, len);
                else
                        ramet_vm_write_gva(vm, upto(VCPUS), at, bytes, len);
        }
}

static void disturb_tables(struct ramet_vm *vm)
{
        struct ramet_regs regs = {.size = sizeof regs};
        uint64_t entry = (any_address() & ~0xfffull) | upto(4096);

        api_ok(ramet_vm_get_regs(vm, 0, &regs));
        ramet_vm_write(vm, (regs.cr3 & ~0xfffull) + upto(6) * 4096 + upto(512) * 8, &entry, 8);
}

static void disturb_regs(struct ramet_vm *vm)
{
        struct ramet_regs regs = {.size = sizeof regs};
        const unsigned vcpu = upto(VCPUS);
        uint64_t *words = (uint64_t *)((uint8_t *)&regs + REGS_OF);

        api_ok(ramet_vm_get_regs(vm, vcpu, &regs));
        for (unsigned i = upto(4); i > 0; i--)
                words[upto(17)] = any_address();
        if (one_in(4))
                regs.cr3 = upto(MEMORY) & ~0xfffull;
        if (one_in(8))
                regs.rflags ^= 1ull << upto(22);
        if (one_in(8))
                words[upto(sizeof regs / 8 - 1)] = roll();
        ramet_vm_set_regs(vm, vcpu, &regs); /* or KVM refuses */
}

static void debug(struct ramet_vm *vm, const struct cpu_control *c)
{
        const uint64_t spots[] = {c->spot_kernel, c->spot_user, c->spot_port, c->spot_rep};

        for (unsigned i = upto(4); i > 0; i--)
                ramet_vm_breakpoint(vm, spots[upto(4)], one_in(2));
        if (one_in(3))
                api_ok(ramet_vm_step(vm, upto(VCPUS)));
        if (one_in(10) && !odd) {
                odd = any_address();
                ramet_vm_breakpoint(vm, odd, true); /* if there is room */
        }
}

static void interrupt(struct ramet_vm *vm)
{
        api_ok(ramet_vm_irq(vm, upto(24), one_in(2)));
        ramet_vm_nmi(vm, upto(VCPUS));
        ramet_vm_msi(vm, 0xfee00000 | upto(0x100000), (uint32_t)roll());
}

static void command(struct ramet_vm *vm)
{
        cpu_access(vm, one_in(2), any_address(), 1u << upto(4), one_in(2), upto(4096));
        CPU_PUT(vm, other, upto(2));
        CPU_PUT(vm, stop, 1);
        cpu_do(vm, 1 + upto(CPU_END - 1));
}

/* --- what is asked of it --- */

static void look(struct ramet_vm *vm, const char *symbols)
{
        static uint8_t buf[3 * 4096];
        const uint64_t at = any_address();
        uint64_t gpa;
        char text[8192];
        void *p;

        api_ok(ramet_crash_report(vm, upto(VCPUS), symbols, text, one_in(4) ? 100 : sizeof text));
        ramet_vm_read_gva(vm, upto(VCPUS), at, buf, upto(sizeof buf));
        ramet_vm_translate(vm, upto(VCPUS), at, &gpa);
        ramet_vm_console_read(vm, buf, upto(sizeof buf));
        ramet_vm_console_write(vm, buf, upto(64));
        api_ok(ramet_vm_begin(vm));
        if (ramet_vm_span(vm, at, upto(sizeof buf), one_in(2), &p) == 0)
                memcpy(buf, p, 1);
        api_ok(ramet_vm_end(vm));
}

static void live(struct ramet_vm *vm, const struct cpu_control *c, const char *symbols)
{
        struct ramet_vm_event e = {0};

        command(vm);
        if (one_in(2))
                disturb_memory(vm);
        if (one_in(3))
                disturb_tables(vm);
        if (one_in(3))
                disturb_regs(vm);
        if (one_in(2))
                debug(vm, c);
        if (one_in(3))
                interrupt(vm);
        for (unsigned i = 0; i < EVENTS && e.type != RAMET_VM_EXIT; i++) {
                if (api_ok(ramet_vm_run_until(vm, RAMET_VM_ANY, RAMET_MILLISECOND, &e)) == 0)
                        e.type = 0;
                if (one_in(3))
                        look(vm, symbols);
                if (e.type == RAMET_VM_DOORBELL)
                        command(vm);
                if (e.type != RAMET_VM_EXIT && one_in(4))
                        disturb_regs(vm);
                if (one_in(8))
                        interrupt(vm);
                if (e.type == RAMET_VM_EXIT && e.exit.reason == RAMET_EXIT_HOST)
                        fail_msg("life %u: %s", life, e.exit.text);
        }
}

/* --- around lives --- */

static void read_all(struct ramet_vm *vm, uint8_t *to)
{
        api_ok(ramet_vm_read(vm, 0, to, MEMORY));
        memset(to + GENID, 0, 16);
}

static void expect_template(struct ramet_vm *vm)
{
        read_all(vm, now);
        for (unsigned at = 0; at < MEMORY; at += 4096)
                if (memcmp(now + at, want + at, 4096))
                        fail_msg("life %u: the page at %#x is not the template's", life, at);
        for (unsigned i = 0; i < VCPUS; i++) {
                struct ramet_regs regs = {.size = sizeof regs};

                api_ok(ramet_vm_get_regs(vm, i, &regs));
                if (memcmp(&regs, &want_regs[i], sizeof regs))
                        fail_msg("life %u: registers of vCPU %u are not the template's", life, i);
        }
}

static void clone_it(struct ramet_vm *vm)
{
        uint8_t *then = malloc(MEMORY), *its = malloc(MEMORY);
        struct ramet_template *tmpl;
        struct ramet_vm *clone;

        api_ok(ramet_vm_pause(vm));
        if (ramet_vm_freeze(vm, "", &tmpl) == 0) { /* it may have ended */
                read_all(vm, then);
                clone = api_spawn(tmpl);
                read_all(clone, its);
                assert_memory_equal(then, its, MEMORY);
                ramet_vm_destroy(clone);
                ramet_template_release(tmpl);
        }
        free(then);
        free(its);
}

static void clear_breakpoints(struct ramet_vm *vm)
{
        const struct cpu_control c = cpu_control(vm);

        api_ok(ramet_vm_breakpoint(vm, c.spot_kernel, false));
        api_ok(ramet_vm_breakpoint(vm, c.spot_user, false));
        api_ok(ramet_vm_breakpoint(vm, c.spot_port, false));
        api_ok(ramet_vm_breakpoint(vm, c.spot_rep, false));
        api_ok(ramet_vm_breakpoint(vm, odd, false));
        odd = 0;
}

static void chaos(void **state)
{
        const struct ramet_spawn_options options = {.size = sizeof options,
                                                    .report_unhandled = true};
        const unsigned lives = (unsigned)setting("CHAOS_LIVES", LIVES);
        struct ramet_vm_config config = cpu_config();
        struct ramet_template *tmpl;
        struct ramet_vm *root, *vm;
        struct cpu_control c;
        char *symbols;

        symbols = strdup(api_guest("cpu.elf"));
        dice = setting("CHAOS_SEED", 42);
        want = malloc(MEMORY);
        now = malloc(MEMORY);
        config.memory_bytes = MEMORY;
        config.vcpus = VCPUS;
        config.cow = (enum ramet_cow)setting("CHAOS_COW", RAMET_COW_PRIVATE);
        root = api_vm_of(&config);
        assert_int_equal(api_until(root, RAMET_VM_DOORBELL).doorbell.value, CPU_READY);
        api_ok(ramet_vm_freeze(root, "chaos", &tmpl));
        c = cpu_control(root);
        api_ok(ramet_template_spawn(tmpl, &options, &vm));
        read_all(vm, want);
        for (unsigned i = 0; i < VCPUS; i++) {
                want_regs[i].size = sizeof want_regs[i];
                api_ok(ramet_vm_get_regs(vm, i, &want_regs[i]));
        }
        api_ok(ramet_vm_handle(vm, RAMET_MMIO, DEVICE, 4096, &device, vm));
        for (life = 0; life < lives; life++) {
                live(vm, &c, symbols);
                if (one_in(20))
                        clone_it(vm);
                api_ok(ramet_vm_reset(vm));
                clear_breakpoints(vm);
                expect_template(vm);
        }
        ramet_vm_destroy(vm);
        ramet_vm_destroy(root);
        ramet_template_release(tmpl);
        free(want);
        free(now);
        free(symbols);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"chaos", chaos},
        };
        int r = api_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("lib_chaos", tests, NULL, NULL);
}
