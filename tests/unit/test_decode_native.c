/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder against the processor. A great part of the opcode space is executed for real, each
 * instruction with its registers pointing into a buffer: no byte outside the ranges that
 * x86_decode() calls written may change. Twice, over a pattern and over its complement, so that a
 * store of what was there already does not hide.
 *
 *      CODE | instruction, jump back | BUFFER ................................. |
 *                                             ^ rsi   ^ rbx, rdx, ...   ^ rsp
 *
 * All of it happens in a forked child, which instructions may kill; a fault comes back through a
 * signal handler on a stack of its own. Instructions that leave (branches, system calls), wait, or
 * change what the C library lives on (FS, GS, protection keys) are not executed.
 */
#include <cpuid.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <Zydis/Zydis.h>

#include "x86/decode.h"

#define CODE   0x20000000ull /* below 4 GiB, for 32-bit addresses */
#define BUFFER (CODE + 0x1000)
#define BYTES  0x4000u
#define MIDDLE (BUFFER + 0x1000) /* with room for an XSAVE area above it */
#define USER   0xe7u             /* XSAVE: x87, SSE, AVX, AVX-512 */

/* What native_run() loads, in the order of register numbers. */
uint64_t native_gpr[16] __attribute__((visibility("hidden")));
uint64_t native_flags __attribute__((visibility("hidden")));
uint64_t native_code __attribute__((visibility("hidden"))) = CODE;
uint64_t native_host_sp __attribute__((visibility("hidden")));
void native_run(void);
void native_back(void);

__asm__(".text\n"
        ".globl native_run, native_back\n"
        ".hidden native_run, native_back\n"
        "native_run:\n"
        "       push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "       mov %rsp, native_host_sp(%rip)\n"
        "       push native_flags(%rip)\n popfq\n"
        "       lea native_gpr(%rip), %rax\n"
        "       mov 8(%rax), %rcx\n mov 16(%rax), %rdx\n mov 24(%rax), %rbx\n"
        "       mov 32(%rax), %rsp\n mov 40(%rax), %rbp\n mov 48(%rax), %rsi\n"
        "       mov 56(%rax), %rdi\n mov 64(%rax), %r8\n mov 72(%rax), %r9\n"
        "       mov 80(%rax), %r10\n mov 88(%rax), %r11\n mov 96(%rax), %r12\n"
        "       mov 104(%rax), %r13\n mov 112(%rax), %r14\n mov 120(%rax), %r15\n"
        "       mov (%rax), %rax\n"
        "       jmp *native_code(%rip)\n"
        "native_back:\n"
        "       mov native_host_sp(%rip), %rsp\n"
        "       cld\n"
        "       pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
        "       ret\n");

/* Shared with the parent, so that it knows what a child died of. */
static struct {
        uint8_t insn[16];
        unsigned executed, faulted, wrote, wrong;
        char text[1024];
} * report;

static sigjmp_buf faulted;
static _Alignas(64) uint8_t fpu[16384];
static uint8_t pattern[2][BYTES];
static uint64_t fpu_mask;
static size_t xsave_bytes;

static void on_fault(int signal)
{
        siglongjmp(faulted, 1);
}

/* Vector and mask registers of all ones, so that masked stores store. */
static void make_fpu_state(void)
{
        unsigned a, b, c, d, low, high;

        if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
                return;
        __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        fpu_mask = low & USER;
        __cpuid_count(0xd, 0, a, b, c, d);
        xsave_bytes = b;
        __asm__ volatile("xsave (%0)" ::"r"(fpu), "a"((unsigned)fpu_mask), "d"(0) : "memory");
        memset(fpu + 32, 0xff, 512 - 32 - 96); /* x87 and SSE registers */
        memcpy(fpu + 24, &(uint32_t){0x1f80}, 4);
        memcpy(fpu + 512, &fpu_mask, 8);
        for (unsigned i = 2; i < 8; i++) {
                if (!(fpu_mask & 1u << i))
                        continue;
                __cpuid_count(0xd, i, a, b, c, d);
                if (b + a <= sizeof fpu)
                        memset(fpu + b, 0xff, a);
        }
}

static void load_fpu_state(void)
{
        if (fpu_mask)
                __asm__ volatile("xrstor (%0)" ::"r"(fpu), "a"((unsigned)fpu_mask), "d"(0));
}

/* --- one instruction --- */

static int must_not_run(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operand)
{
        switch (insn->meta.category) {
        case ZYDIS_CATEGORY_CALL:
                return insn->opcode != 0xe8;
        case ZYDIS_CATEGORY_COND_BR:
        case ZYDIS_CATEGORY_INTERRUPT:
        case ZYDIS_CATEGORY_IO:
        case ZYDIS_CATEGORY_RET:
        case ZYDIS_CATEGORY_SYSCALL:
        case ZYDIS_CATEGORY_SYSRET:
        case ZYDIS_CATEGORY_UINTR:
        case ZYDIS_CATEGORY_UNCOND_BR:
        case ZYDIS_CATEGORY_VTX:
        case ZYDIS_CATEGORY_WAITPKG:
                return 1;
        default:
                break;
        }
        switch (insn->mnemonic) {
        case ZYDIS_MNEMONIC_MWAIT:
        case ZYDIS_MNEMONIC_MWAITX:
        case ZYDIS_MNEMONIC_POPF:
        case ZYDIS_MNEMONIC_POPFD:
        case ZYDIS_MNEMONIC_POPFQ:
        case ZYDIS_MNEMONIC_SEAMCALL:
        case ZYDIS_MNEMONIC_TDCALL:
        case ZYDIS_MNEMONIC_VMMCALL:
        case ZYDIS_MNEMONIC_WRFSBASE:
        case ZYDIS_MNEMONIC_WRGSBASE:
        case ZYDIS_MNEMONIC_WRPKRU:
        case ZYDIS_MNEMONIC_XRSTOR:
        case ZYDIS_MNEMONIC_XRSTOR64:
                return 1;
        default:
                break;
        }
        for (unsigned i = 0; i < insn->operand_count; i++)
                if (operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                    ZydisRegisterGetClass(operand[i].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
                    (operand[i].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
                        return 1;
        return 0;
}

static int reported(const struct x86_ranges *out, uint64_t linear)
{
        for (unsigned i = 0; i < out->n; i++)
                if (out->range[i].write && linear - out->range[i].linear < out->range[i].bytes)
                        return 1;
        return 0;
}

static void complain(const struct x86_ranges *out, uint64_t linear)
{
        size_t at = strlen(report->text), room = sizeof report->text - at;

        if (report->wrong++ || room < 200)
                return;
        at += (size_t)snprintf(report->text + at, room, "%llx changed by",
                               (unsigned long long)linear);
        for (unsigned i = 0; i < out->insn_bytes; i++)
                at += (size_t)snprintf(report->text + at, sizeof report->text - at, " %02x",
                                       report->insn[i]);
}

/* A fault takes as long as 100 instructions. What does nothing else is left alone after a while:
 * the processor lacks it, or it is the kernel's. */
static struct {
        unsigned faults, done;
} tally[ZYDIS_MNEMONIC_MAX_VALUE + 1];

/* Execute what stands at CODE over the pattern that the buffer has, and compare. */
static int execute_once(const struct x86_ranges *out, const uint8_t *before, unsigned mnemonic)
{
        const uint8_t *buffer = (uint8_t *)BUFFER;

        load_fpu_state();
        if (sigsetjmp(faulted, 0) == 0) {
                native_run();
                report->executed++;
                tally[mnemonic].done++;
        } else {
                report->faulted++;
                tally[mnemonic].faults++;
        }
        if (!memcmp(buffer, before, BYTES))
                return 0;
        report->wrote++;
        for (unsigned i = 0; i < BYTES; i++) {
                if (buffer[i] == before[i] || reported(out, BUFFER + i))
                        continue;
                complain(out, BUFFER + i);
                break;
        }
        return 1;
}

/* What writes, or may, is executed over both patterns; the rest over one of them. */
static void execute(const struct x86_ranges *out, unsigned mnemonic)
{
        static unsigned now;
        int writes = 0;

        for (unsigned i = 0; i < out->n; i++)
                writes |= out->range[i].write;
        if (!execute_once(out, pattern[now], mnemonic) && !writes)
                return;
        now ^= 1;
        memcpy((void *)BUFFER, pattern[now], BYTES);
        if (execute_once(out, pattern[now], mnemonic))
                memcpy((void *)BUFFER, pattern[now], BYTES);
}

static void try(const struct x86_state *state, const ZydisDecoder *decoder, const uint8_t *bytes)
{
        static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *(%rip) */
        ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
        ZydisDecodedInstruction insn;
        void (*back)(void) = native_back;
        uint8_t *code = (uint8_t *)CODE;
        struct x86_ranges out;

        if (x86_decode(state, bytes, 15, &out) < 0 ||
            ZYAN_FAILED(ZydisDecoderDecodeFull(decoder, bytes, 15, &insn, operand)) ||
            must_not_run(&insn, operand) ||
            (tally[insn.mnemonic].faults >= 8 && !tally[insn.mnemonic].done))
                return;
        memcpy(report->insn, bytes, 15);
        memcpy(code, bytes, out.insn_bytes);
        memcpy(code + out.insn_bytes, jump, sizeof jump);
        memcpy(code + out.insn_bytes + sizeof jump, &back, sizeof back);
        execute(&out, insn.mnemonic);
}

/* --- many instructions --- */

struct run {
        struct x86_state state;
        ZydisDecoder decoder;
        uint8_t bytes[32];
        unsigned n;
};

static void put(struct run *r, unsigned byte)
{
        r->bytes[r->n++] = (uint8_t)byte;
}

/* Operands: [rbx], [rdi+0x10], [rsp], [rip+...] in the middle of the buffer, or registers. */
enum { SHAPES = 6 };

static void put_operand(struct run *r, unsigned shape, unsigned reg)
{
        static const uint8_t modrm[SHAPES] = {0x03, 0x47, 0x04, 0x05, 0xc3, 0xc7};
        /* Some bytes above it, but in one cache line: a locked access to two takes 10 ms. */
        uint32_t relative = (uint32_t)(MIDDLE + 32 - CODE);

        put(r, modrm[shape] | reg << 3);
        if (shape == 1)
                put(r, 0x10);
        else if (shape == 2)
                put(r, 0x24);
        else if (shape == 3)
                for (unsigned i = 0; i < 32; i += 8)
                        put(r, relative >> i & 0xff);
}

static void go(struct run *r)
{
        static const uint8_t rest[16] = {3, 1, 0, 0, 2, 0};

        memcpy(r->bytes + r->n, rest, sizeof rest);
        try(&r->state, &r->decoder, r->bytes);
        r->n = 0;
}

static void legacy_opcodes(struct run *r, unsigned first, unsigned last)
{
        static const struct {
                unsigned n;
                uint8_t bytes[3];
        } prefixes[] = {{0, {0}},          {1, {0x66}},       {1, {0xf2}},      {1, {0xf3}},
                        {1, {0x48}},       {1, {0x67}},       {1, {0xf0}},      {2, {0x66, 0x4c}},
                        {2, {0xf3, 0x48}}, {2, {0xf0, 0x4c}}, {2, {0x67, 0x4c}}};
        static const uint8_t maps[][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};

        for (unsigned p = 0; p < sizeof prefixes / sizeof *prefixes; p++)
                for (unsigned i = 0; i < 4 * 256 * 8 * SHAPES; i++) {
                        unsigned shape = i % SHAPES, reg = i / SHAPES % 8;
                        unsigned opcode = i / SHAPES / 8 % 256, map = i / SHAPES / 8 / 256;

                        if (map * 256 + opcode < first || map * 256 + opcode > last ||
                            (map == 0 && opcode >= 0xa0 && opcode <= 0xa3))
                                continue; /* the latter have an address from nowhere */
                        for (unsigned n = 0; n < prefixes[p].n; n++)
                                put(r, prefixes[p].bytes[n]);
                        for (unsigned n = 0; n < (map > 1 ? 2 : map); n++)
                                put(r, maps[map][n]);
                        put(r, opcode);
                        if (map == 0 && opcode == 0xe8)
                                for (unsigned n = 0; n < 4; n++)
                                        put(r, 0); /* CALL to what follows */
                        else
                                put_operand(r, shape, reg);
                        go(r);
                }
}

static void legacy(struct run *r)
{
        legacy_opcodes(r, 0, 4 * 256);
}

static void strings(struct run *r)
{
        legacy_opcodes(r, 0xa4, 0xaf);
}

static void vex(struct run *r)
{
        for (unsigned i = 0; i < 3 * 16 * 256 * 8 * 2; i++) {
                unsigned reg = i % 8, opcode = i / 8 % 256, vector = i / 8 / 256 % 16;
                unsigned map = 1 + i / 8 / 256 / 16 % 3, shape = i / 8 / 256 / 16 / 3 ? 4 : 1;

                for (unsigned vvvv = 0; vvvv < 2; vvvv++) { /* none, or register 3 */
                        put(r, 0xc4);
                        put(r, 0xe0 | map);
                        put(r, (vector & 7) | (vector & 8) << 4 | (vvvv ? 12u : 15u) << 3);
                        put(r, opcode);
                        put_operand(r, shape, reg);
                        go(r);
                }
        }
}

static void evex(struct run *r)
{
        static const uint8_t shapes[] = {0, 1, 4}; /* [rbx], [rdi+0x10] (scaled), a register */

        for (unsigned i = 0; i < 6 * 4 * 2 * 3 * 2 * 256; i++) {
                unsigned opcode = i % 256, masked = i / 256 % 2, length = i / 512 % 3;
                unsigned w = i / 512 / 3 % 2, pp = i / 1024 / 3 % 4, map = 1 + i / 4096 / 3;

                for (unsigned shape = 0; shape < 6; shape++) {
                        put(r, 0x62);
                        put(r, 0xf0 | map);
                        put(r, w << 7 | (shape % 2 ? 12u : 15u) << 3 | 4 | pp);
                        put(r, length << 5 | 8 | masked);
                        put(r, opcode);
                        put_operand(r, shapes[shape / 2], 1);
                        go(r);
                }
        }
}

static void prepare(struct run *r)
{
        static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
        static uint8_t stack[65536];
        struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK | SA_NODEFER};
        stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
        void *m = mmap((void *)CODE, 0x1000 + BYTES, PROT_READ | PROT_WRITE | PROT_EXEC,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

        if (m != (void *)CODE)
                _exit(77);
        sigaltstack(&other, NULL);
        for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
                sigaction(signals[i], &action, NULL);
        make_fpu_state();
        for (unsigned i = 0; i < BYTES; i++) {
                pattern[0][i] = (uint8_t)(i * 7 + 3 + i / 256);
                pattern[1][i] = (uint8_t)~pattern[0][i];
        }
        memcpy((void *)BUFFER, pattern[0], BYTES);
        for (unsigned i = 0; i < 16; i++)
                native_gpr[i] = MIDDLE + 0x100 * (i / 4);
        native_gpr[X86_RAX] = MIDDLE | USER; /* the components of an XSAVE */
        native_gpr[X86_RCX] = 3;             /* repetitions */
        native_gpr[X86_RSP] = MIDDLE + 0x1000;
        native_gpr[X86_RSI] = MIDDLE - 0x800;
        native_gpr[9] = 5; /* bit offsets */
        native_gpr[10] = (uint64_t)-3;
        native_gpr[11] = 1000;
        native_gpr[15] = (uint64_t)-70;
        r->state = (struct x86_state){.bits = 64,
                                      .stack_bits = 64,
                                      .cpl = 3,
                                      .long_mode = true,
                                      .rip = CODE,
                                      .rflags = native_flags,
                                      .xsave_bytes = xsave_bytes};
        memcpy(r->state.gpr, native_gpr, sizeof native_gpr);
        ZydisDecoderInit(&r->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
}

/* Run @what in a child; at least @writes executions have to change memory. */
static void in_a_child(void (*what)(struct run *), uint64_t flags, unsigned writes)
{
        struct run r = {0};
        int status;
        pid_t pid;

        report = mmap(NULL, sizeof *report, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                      0);
        assert_true(report != MAP_FAILED);
        native_flags = flags;
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                prepare(&r);
                alarm(170); /* an instruction that never ends */
                what(&r);
                _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
                print_message("no memory that can be executed at a fixed address\n");
                skip();
        }
        printf("# executed %u, faults %u, wrote %u\n", report->executed, report->faulted,
               report->wrote);
        if (status)
                fail_msg("status %x at %02x %02x %02x %02x %02x %02x %02x %02x", status,
                         report->insn[0], report->insn[1], report->insn[2], report->insn[3],
                         report->insn[4], report->insn[5], report->insn[6], report->insn[7]);
        if (report->wrong)
                fail_msg("%u wrong, the first: %s", report->wrong, report->text);
        assert_true(report->wrote >= writes);
        munmap(report, sizeof *report);
}

static void legacy_encodings(void **state)
{
        in_a_child(legacy, 0x202, 10000);
}

static void strings_backward(void **state)
{
        in_a_child(strings, 0x602, 500);
}

static void vex_encodings(void **state)
{
        in_a_child(vex, 0x202, __builtin_cpu_supports("avx2") ? 1000 : 0);
}

static void evex_encodings(void **state)
{
        in_a_child(evex, 0x202, __builtin_cpu_supports("avx512vl") ? 500 : 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(legacy_encodings),
                cmocka_unit_test(strings_backward),
                cmocka_unit_test(vex_encodings),
                cmocka_unit_test(evex_encodings),
        };

        return cmocka_run_group_tests_name("decode_native", tests, NULL, NULL);
}
