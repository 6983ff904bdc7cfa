// SPDX-License-Identifier: Apache-2.0
/*
 * Proves that a freeze keeps every register, in the parent and in the clones: each processor puts
 * values of its own into the general, flag, x87, SSE and (when the host lets it) AVX registers,
 * into debug and control registers, MSRs and its local APIC. CPU 0 then rings the doorbell from CPL
 * 3 while the others wait in CPL 3 with all of them loaded, and each compares.
 *
 *      avx=0   leave AVX alone
 *
 *      fpu: cpu=1 xmm3 differs
 *      fpu: ok number=2 cpus=2 avx=1 msrs=11   number=none: no fork; msrs: how many were checked
 *
 * "fpu: bad ..." and debug-exit with 1 when something differs. An MSR that does not take its value
 * in the first place is left out.
 */
#include "rt/rt.h"
#include "fpu.h"

#define CR4_OSXSAVE    0x40000u
#define CPUID1_OSXSAVE (1u << 27)
#define CPUID1_XSAVE   (1u << 26)
#define CPUID1_AVX     (1u << 28)
#define FLAGS          0xcd5u /* OF DF SF ZF AF PF CF */

struct user_state {
        uint64_t gpr[16];
        uint64_t flags, avx;
        uint8_t fx[512];
        uint8_t ymmh[16][16];
} __attribute__((aligned(16)));

_Static_assert(sizeof(struct user_state) == STATE_SIZE, "fpu.h");
_Static_assert(offsetof(struct user_state, ymmh) == STATE_YMMH, "fpu.h");

static const uint32_t msr_index[] = {
        0x174,      0x175,      0x176,      0x277,      /* SYSENTER_CS, ESP, EIP; PAT */
        0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, /* STAR, LSTAR, CSTAR, FMASK */
        0xc0000100, 0xc0000101, 0xc0000102,             /* FS_BASE, GS_BASE, KERNEL_GS_BASE */
};

#define MSRS     (sizeof msr_index / sizeof *msr_index)
#define CONTROLS 12

static const char *const control_name[CONTROLS] = {"cr0", "cr2", "cr3", "cr4",  "dr0", "dr1",
                                                   "dr2", "dr3", "dr7", "efer", "tpr", "apic-svr"};

struct probe {
        struct user_state in, out;
        uint64_t msr[MSRS];
        uint64_t control[CONTROLS];
        unsigned msr_taken, bad;
};

void fpu_probe(struct user_state *in, struct user_state *out, int ring);

uint32_t fpu_go;
static struct probe probes[RT_MAX_CPUS];
static struct barrier barrier;
static uint32_t number;
static unsigned avx, msrs;

/* A value of its own for each register of each processor; canonical, as some must be. */
static uint64_t value(unsigned cpu, unsigned n)
{
        return (cpu + 1) * 0x0000010203050709ull + n * 0x0000000b0d111317ull;
}

static void differs(unsigned cpu, const char *name, int index)
{
        probes[cpu].bad++;
        if (index < 0)
                printf("fpu: cpu=%u %s differs\n", cpu, name);
        else
                printf("fpu: cpu=%u %s%d differs\n", cpu, name, index);
}

static void fill_user(unsigned cpu, struct user_state *s)
{
        for (unsigned i = 0; i < 16; i++)
                s->gpr[i] = value(cpu, i) << 20 | i;
        s->flags = cpu & 1 ? 0x442 : 0x895; /* DF PF, or OF SF AF PF CF, and the bit that is 1 */
        s->avx = avx;
        s->fx[0] = 0x7f; /* FCW: all masked, rounding to zero */
        s->fx[1] = 0x0f;
        s->fx[3] = (uint8_t)(0x08 * (cpu % 8)); /* FSW: the top of the stack */
        s->fx[4] = 0xff;                        /* FTW: all in use */
        s->fx[24] = 0xa1;                       /* MXCSR: all masked, rounding up, two flags */
        s->fx[25] = 0x5f;
        for (unsigned i = 0; i < 8; i++) {
                uint64_t mantissa = 1ull << 63 | value(cpu, 20 + i);

                __builtin_memcpy(s->fx + 32 + 16 * i, &mantissa, 8);
                s->fx[32 + 16 * i + 8] = (uint8_t)i;
                s->fx[32 + 16 * i + 9] = 0x40;
        }
        for (unsigned i = 0; i < 256; i++) {
                s->fx[160 + i] = (uint8_t)(value(cpu, 40 + i / 8) >> 8 * (i % 8) ^ i);
                s->ymmh[i / 16][i % 16] = (uint8_t)(value(cpu, 80 + i / 8) >> 8 * (i % 8) ^ i);
        }
}

static int same(const void *a, const void *b, unsigned len)
{
        const uint8_t *x = a, *y = b;

        while (len && x[len - 1] == y[len - 1])
                len--;
        return len == 0;
}

static void check_user(unsigned cpu, const struct user_state *in, const struct user_state *out)
{
        for (int i = 0; i < 16; i++)
                if (in->gpr[i] != out->gpr[i] && !(cpu && i == 1))
                        differs(cpu, "gpr", i);
        if ((in->flags & FLAGS) != (out->flags & FLAGS))
                differs(cpu, "rflags", -1);
        if (!same(in->fx, out->fx, 5))
                differs(cpu, "x87-control", -1);
        if (!same(in->fx + 24, out->fx + 24, 4))
                differs(cpu, "mxcsr", -1);
        for (int i = 0; i < 8; i++)
                if (!same(in->fx + 32 + 16 * i, out->fx + 32 + 16 * i, 10))
                        differs(cpu, "st", i);
        for (int i = 0; i < 16; i++)
                if (!same(in->fx + 160 + 16 * i, out->fx + 160 + 16 * i, 16))
                        differs(cpu, "xmm", i);
        for (int i = 0; i < 16 && avx; i++)
                if (!same(in->ymmh[i], out->ymmh[i], 16))
                        differs(cpu, "ymm", i);
}

#define READ(reg, out) asm volatile("mov %%" reg ", %0" : "=r"(out))
#define WRITE(reg, in) asm volatile("mov %0, %%" reg : : "r"((uint64_t)(in)))
#define LAPIC_TPR      0x080
#define LAPIC_SVR      0x0f0

static void read_controls(uint64_t v[CONTROLS])
{
        READ("cr0", v[0]);
        READ("cr2", v[1]);
        READ("cr3", v[2]);
        READ("cr4", v[3]);
        READ("dr0", v[4]);
        READ("dr1", v[5]);
        READ("dr2", v[6]);
        READ("dr3", v[7]);
        READ("dr7", v[8]);
        v[9] = rdmsr(0xc0000080);
        v[10] = lapic_read(LAPIC_TPR);
        v[11] = lapic_read(LAPIC_SVR);
}

static void set_controls(unsigned cpu)
{
        WRITE("cr2", value(cpu, 1));
        WRITE("dr0", value(cpu, 2));
        WRITE("dr1", value(cpu, 3));
        WRITE("dr2", value(cpu, 4));
        WRITE("dr3", value(cpu, 5));
        WRITE("dr7", cpu & 1 ? 0xdddd0400 : 0x11110400); /* conditions, but none enabled */
        lapic_write(LAPIC_TPR, 0x10 + cpu % 16);         /* below the timer's class */
}

static void set_msrs(unsigned cpu, struct probe *p)
{
        for (unsigned i = 0; i < MSRS; i++) {
                p->msr[i] = value(cpu, 200 + i);
                if (msr_index[i] == 0x174)
                        p->msr[i] &= 0xfff8;
                if (msr_index[i] == 0x277) /* the upper four are not in use */
                        p->msr[i] = 0x0607040100070406 ^ (uint64_t)(cpu & 1) << 32;
                if (msr_index[i] == 0xc0000084)
                        p->msr[i] &= 0x3ffdd5;
                wrmsr(msr_index[i], p->msr[i]);
                if (rdmsr(msr_index[i]) == p->msr[i])
                        p->msr_taken |= 1u << i;
        }
}

static uint64_t user_work(void *arg)
{
        struct probe *p = arg;
        unsigned cpu = (unsigned)(p - probes);

        barrier_wait(&barrier, cpu_count());
        fpu_probe(&p->in, &p->out, cpu == 0);
        if (cpu == 0) {
                number = mmio_read(RAMET_DOORBELL_MMIO + RAMET_DOORBELL_RESULT);
                __atomic_store_n(&fpu_go, 1, __ATOMIC_RELEASE);
        }
        check_user(cpu, &p->in, &p->out);
        return 0;
}

/* AVX needs XCR0; the processor says whether that is so. */
static unsigned avx_enable(void)
{
        uint32_t a = 1, b, c = 0, d;
        uint64_t cr4;

        asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        if (!(c & CPUID1_XSAVE) || !(c & CPUID1_AVX))
                return 0;
        READ("cr4", cr4);
        WRITE("cr4", cr4 | CR4_OSXSAVE);
        asm volatile("xsetbv" : : "c"(0), "a"(7), "d"(0));
        return 1;
}

static void cpu_work(unsigned cpu)
{
        struct probe *p = &probes[cpu];
        uint64_t now[CONTROLS];

        if (avx)
                avx_enable();
        set_controls(cpu);
        set_msrs(cpu, p);
        fill_user(cpu, &p->in);
        p->out.avx = avx;
        read_controls(p->control);
        run_user(user_work, p);

        read_controls(now);
        for (unsigned i = 0; i < CONTROLS; i++)
                if (now[i] != p->control[i])
                        differs(cpu, control_name[i], -1);
        for (unsigned i = 0; i < MSRS; i++)
                if (p->msr_taken >> i & 1 && rdmsr(msr_index[i]) != p->msr[i]) {
                        printf("fpu: cpu=%u msr %x differs\n", cpu, msr_index[i]);
                        p->bad++;
                }
        barrier_wait(&barrier, cpu_count());
}

void guest_main(void)
{
        unsigned bad = 0;

        if (cmd_u64("avx", 1))
                avx = avx_enable();
        smp_run(cpu_work);
        for (unsigned i = 0; i < cpu_count(); i++)
                bad += probes[i].bad;
        for (unsigned i = 0; i < MSRS; i++)
                msrs += probes[0].msr_taken >> i & 1;
        printf("fpu: %s number=%d cpus=%u avx=%u msrs=%u\n", bad ? "bad" : "ok", (int)number,
               cpu_count(), avx, msrs);
        if (bad)
                guest_exit(1);
}
