/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instruction does to memory: see decode.h. Zydis decodes; it names the memory operands,
 * the hidden ones included, with their size, address parts and whether they are written. This is
 * left to do here:
 *
 * - addresses, from registers and segments, with the width of the address and of the stack
 * - operands that Zydis has not, or not the whole of: ENTER, CLZERO, ENQCMD, BTS and its kin with
 *   the bit offset in a register, the descriptors that a segment load marks as accessed
 * - lengths that it cannot know: repetition, the size of an XSAVE area
 * - refusals, where addresses are not in the registers: see is_opaque()
 *
 * The rule wherever there is doubt: a range too many or too large is a page copied for nothing, a
 * byte too few is a guest that loses a store. So a mask counts as all ones, a comparison as equal,
 * and what nobody here has thought of (an operand without a size) is refused.
 *
 * Sources: Intel SDM volume 1, 3.3.7 (address size), 6.2 (stack), volume 2 (each instruction),
 * volume 3A, 3.4 and 3.5 (descriptors), 7 (tasks); AMD APM volume 3 for CLZERO.
 */
#include "x86/decode.h"

#include <errno.h>
#include <Zydis/Zydis.h>

#define RFLAGS_DF (1ull << 10)
#define RFLAGS_NT (1ull << 14)
#define RFLAGS_VM (1ull << 17)

#define CACHE_LINE    64u
#define XSAVE_MIN     576u /* legacy region and header: SDM volume 1, 13.4 */
#define WRITE_ACTIONS ZYDIS_OPERAND_ACTION_MASK_WRITE
#define READ_ACTIONS  ZYDIS_OPERAND_ACTION_MASK_READ
#define DESCRIPTOR    8u /* bytes; a table smaller than one has none */

struct decode {
        const struct x86_state *state;
        struct x86_ranges *out;
        ZydisDecodedInstruction insn;
        ZydisDecodedOperand operand[ZYDIS_MAX_OPERAND_COUNT];
};

static uint64_t mask(unsigned bits)
{
        return bits >= 64 ? ~0ull : (1ull << bits) - 1;
}

/* --- ranges --- */

static int emit_one(struct decode *d, uint64_t linear, uint64_t bytes, bool write)
{
        if (d->out->n == X86_RANGES_MAX)
                return -ENOTSUP;
        d->out->range[d->out->n++] = (struct x86_range){linear, bytes, write};
        return 0;
}

/* A range of linear addresses, in two pieces where it passes the end of them. */
static int emit(struct decode *d, uint64_t linear, uint64_t bytes, bool write)
{
        uint64_t last = mask(d->state->bits == 64 ? 64 : 32), room;
        int r;

        linear &= last;
        room = last - linear; /* one less than there is: all of them is not a number */
        if (bytes - 1 <= room)
                return emit_one(d, linear, bytes, write);
        r = emit_one(d, linear, room + 1, write);
        return r < 0 ? r : emit_one(d, 0, bytes - 1 - room, write);
}

/* In 64-bit mode only FS and GS have a base. */
static uint64_t segment_base(const struct decode *d, ZydisRegister segment)
{
        switch (segment) {
        case ZYDIS_REGISTER_FS:
                return d->state->base[X86_FS];
        case ZYDIS_REGISTER_GS:
                return d->state->base[X86_GS];
        case ZYDIS_REGISTER_NONE:
                return 0;
        default:
                return d->state->bits == 64 ? 0 : d->state->base[segment - ZYDIS_REGISTER_ES];
        }
}

static int emit_at(struct decode *d, ZydisRegister segment, uint64_t offset, uint64_t bytes,
                   bool write)
{
        return emit(d, segment_base(d, segment) + offset, bytes, write);
}

/* --- addresses --- */

static uint64_t value(const struct decode *d, ZydisRegister reg)
{
        switch (ZydisRegisterGetClass(reg)) {
        case ZYDIS_REGCLASS_GPR16:
                return d->state->gpr[ZydisRegisterGetId(reg)] & mask(16);
        case ZYDIS_REGCLASS_GPR32:
                return d->state->gpr[ZydisRegisterGetId(reg)] & mask(32);
        case ZYDIS_REGCLASS_GPR64:
                return d->state->gpr[ZydisRegisterGetId(reg)];
        case ZYDIS_REGCLASS_IP:
                return d->state->rip + d->insn.length;
        default:
                return 0;
        }
}

static bool is_stack_pointer(ZydisRegister reg)
{
        return ZydisRegisterGetClass(reg) >= ZYDIS_REGCLASS_GPR16 &&
               ZydisRegisterGetClass(reg) <= ZYDIS_REGCLASS_GPR64 &&
               ZydisRegisterGetId(reg) == X86_RSP;
}

/* BTS and kin with the offset in a register: it is signed, and chooses a word first. */
static uint64_t bit_string(const struct decode *d)
{
        const ZydisDecodedOperand *by = &d->operand[1];
        unsigned size = d->insn.operand_width; /* 16, 32, 64 */
        int64_t offset;

        switch (d->insn.mnemonic) {
        case ZYDIS_MNEMONIC_BT:
        case ZYDIS_MNEMONIC_BTC:
        case ZYDIS_MNEMONIC_BTR:
        case ZYDIS_MNEMONIC_BTS:
                break;
        default:
                return 0;
        }
        if (by->type != ZYDIS_OPERAND_TYPE_REGISTER)
                return 0;
        offset = (int64_t)(value(d, by->reg.value) << (64 - size)) >> (64 - size);
        return (uint64_t)((offset & -(int64_t)size) >> 3);
}

/* The stack pointer, moved by @by: only as many bits of it as the stack is wide. */
static uint64_t moved_sp(const struct decode *d, uint64_t by)
{
        uint64_t sp = d->state->gpr[X86_RSP], wrap = mask(d->state->stack_bits);

        return (sp & ~wrap) | ((sp + by) & wrap);
}

/* The offset of a memory operand in its segment. */
static uint64_t offset_of(const struct decode *d, const ZydisDecodedOperand *op)
{
        uint64_t offset = value(d, op->mem.base);

        /* POP computes the address of its operand after it has moved the stack pointer. */
        if (d->insn.mnemonic == ZYDIS_MNEMONIC_POP && is_stack_pointer(op->mem.base) &&
            op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
                offset = moved_sp(d, op->size / 8);
        offset += value(d, op->mem.index) * op->mem.scale;
        if (op->mem.disp.has_displacement)
                offset += (uint64_t)op->mem.disp.value;
        return (offset + bit_string(d)) & mask(d->insn.address_width);
}

/* --- the stack --- */

/* @total bytes pushed in elements of @size, on a stack whose pointer may wrap in between. */
static int push(struct decode *d, uint64_t total, uint64_t size)
{
        uint64_t wrap = mask(d->state->stack_bits);
        uint64_t sp = d->state->gpr[X86_RSP] & wrap;
        int r;

        if (sp >= total || d->state->stack_bits == 64)
                return emit_at(d, ZYDIS_REGISTER_SS, sp - total, total, true);
        r = sp ? emit_at(d, ZYDIS_REGISTER_SS, 0, sp, true) : 0;
        if (r < 0)
                return r;
        /* An element that begins just below the end goes on behind it. */
        return emit_at(d, ZYDIS_REGISTER_SS, (sp - total) & wrap, total - sp + size - 1, true);
}

/* Frame pointers are pushed as many as the nesting level says, then the stack pointer moves, and
 * where it stops must be writable. */
static int enter(struct decode *d, uint64_t size)
{
        uint64_t allocated = d->operand[0].imm.value.u & mask(16);
        uint64_t level = d->operand[1].imm.value.u % 32;
        uint64_t total = size * (1 + level);
        uint64_t wrap = mask(d->state->stack_bits);
        uint64_t sp = d->state->gpr[X86_RSP], bp = d->state->gpr[X86_RBP];
        int r = push(d, total, size);

        if (r == 0)
                r = emit_at(d, ZYDIS_REGISTER_SS, (sp - total - allocated) & wrap, size, true);
        if (r == 0 && level > 1)
                r = emit_at(d, ZYDIS_REGISTER_SS, (bp - (level - 1) * size) & wrap,
                            (level - 1) * size, false);
        return r;
}

static int stack_operand(struct decode *d, const ZydisDecodedOperand *op)
{
        uint64_t bytes = op->size / 8, size = bytes;

        if (!(op->actions & WRITE_ACTIONS))
                return emit_at(d, ZYDIS_REGISTER_SS,
                               d->state->gpr[X86_RSP] & mask(d->state->stack_bits), bytes, false);
        switch (d->insn.mnemonic) {
        case ZYDIS_MNEMONIC_ENTER:
                return enter(d, size);
        case ZYDIS_MNEMONIC_PUSHA:
        case ZYDIS_MNEMONIC_PUSHAD:
                size = bytes / 8;
                break;
        case ZYDIS_MNEMONIC_CALL:
                if (d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
                        size = bytes / 2;
                /* AMD has 16-bit near calls here, and a call gate pushes 8 bytes twice. */
                if (d->state->bits == 64 && bytes < 16)
                        bytes = d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR ? 16 : 8;
                break;
        default:
                break;
        }
        return push(d, bytes, size);
}

/* --- strings --- */

static bool repeated(const struct decode *d)
{
        for (unsigned i = 0; i < d->insn.raw.prefix_count; i++)
                if (d->insn.raw.prefixes[i].value == 0xf2 || d->insn.raw.prefixes[i].value == 0xf3)
                        return true;
        return false;
}

static int string_operand(struct decode *d, const ZydisDecodedOperand *op, bool write)
{
        uint64_t size = op->size / 8, first = offset_of(d, op), count = 1, room;
        uint64_t wrap = mask(d->insn.address_width);

        if (repeated(d))
                count = d->state->gpr[X86_RCX] & wrap;
        if (count == 0)
                return 0;
        if (count > X86_REP_BYTES / size)
                count = X86_REP_BYTES / size;
        /* Elements behind the one that is next, until the index wraps: the others come later. */
        room = (d->state->rflags & RFLAGS_DF ? first : wrap - first) / size;
        if (count - 1 > room)
                count = room + 1;
        if (d->state->rflags & RFLAGS_DF)
                first -= (count - 1) * size;
        return emit_at(d, op->mem.segment, first, count * size, write);
}

/* --- operands in general --- */

static bool is_xsave_area(ZydisMnemonic mnemonic)
{
        switch (mnemonic) {
        case ZYDIS_MNEMONIC_XSAVE:
        case ZYDIS_MNEMONIC_XSAVE64:
        case ZYDIS_MNEMONIC_XSAVEC:
        case ZYDIS_MNEMONIC_XSAVEC64:
        case ZYDIS_MNEMONIC_XSAVEOPT:
        case ZYDIS_MNEMONIC_XSAVEOPT64:
        case ZYDIS_MNEMONIC_XSAVES:
        case ZYDIS_MNEMONIC_XSAVES64:
        case ZYDIS_MNEMONIC_XRSTOR:
        case ZYDIS_MNEMONIC_XRSTOR64:
        case ZYDIS_MNEMONIC_XRSTORS:
        case ZYDIS_MNEMONIC_XRSTORS64:
                return true;
        default:
                return false;
        }
}

static bool is_string(const struct decode *d, const ZydisDecodedOperand *op)
{
        return op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
               (d->insn.meta.category == ZYDIS_CATEGORY_STRINGOP ||
                d->insn.meta.category == ZYDIS_CATEGORY_IOSTRINGOP);
}

static int memory_operand(struct decode *d, const ZydisDecodedOperand *op)
{
        bool write = op->actions & WRITE_ACTIONS;
        uint64_t bytes = op->size / 8;

        if (!write && !(op->actions & READ_ACTIONS))
                return 0; /* an address only: LEA and kin */
        if (op->mem.type != ZYDIS_MEMOP_TYPE_MEM)
                return write ? -ENOTSUP : 0; /* scatter, gather */
        if (is_xsave_area(d->insn.mnemonic)) {
                bytes = d->state->xsave_bytes;
                if (bytes == 0 && write)
                        return -ENOTSUP;
                if (bytes < XSAVE_MIN)
                        bytes = XSAVE_MIN;
        }
        if (bytes == 0)
                return write ? -ENOTSUP : 0; /* AMX tiles */
        if (d->insn.mnemonic == ZYDIS_MNEMONIC_MOVDIR64B && write)
                return emit_at(d, ZYDIS_REGISTER_ES, offset_of(d, op), bytes, true);
        if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && is_stack_pointer(op->mem.base))
                return stack_operand(d, op);
        if (is_string(d, op))
                return string_operand(d, op, write);
        return emit_at(d, op->mem.segment, offset_of(d, op), bytes, write);
}

/* --- what has no operand --- */

/* The line at rAX; whether a segment prefix counts is not documented, so it may or may not. */
static int clzero(struct decode *d)
{
        uint64_t at = d->state->gpr[X86_RAX] & mask(d->insn.address_width) & -(uint64_t)CACHE_LINE;
        int r = emit_at(d, ZYDIS_REGISTER_DS, at, CACHE_LINE, true);

        for (unsigned i = 0; r == 0 && i < d->insn.raw.prefix_count; i++) {
                ZydisRegister segment;

                switch (d->insn.raw.prefixes[i].value) {
                case 0x26:
                        segment = ZYDIS_REGISTER_ES;
                        break;
                case 0x2e:
                        segment = ZYDIS_REGISTER_CS;
                        break;
                case 0x36:
                        segment = ZYDIS_REGISTER_SS;
                        break;
                case 0x64:
                        segment = ZYDIS_REGISTER_FS;
                        break;
                case 0x65:
                        segment = ZYDIS_REGISTER_GS;
                        break;
                default:
                        continue;
                }
                r = emit_at(d, segment, at, CACHE_LINE, true);
        }
        return r;
}

/* The destination is a register's value, in ES. */
static int enqcmd(struct decode *d)
{
        uint64_t at = value(d, d->operand[0].reg.value) & mask(d->insn.address_width);

        return emit_at(d, ZYDIS_REGISTER_ES, at, CACHE_LINE, true);
}

static bool is_protected(const struct decode *d)
{
        return !d->state->real_mode && !(d->state->rflags & RFLAGS_VM);
}

/* A segment register that is loaded in protected mode gets its descriptor marked as accessed, and
 * LTR marks a task as busy. Which descriptor is often in memory; so both tables, whole. */
static int descriptor_tables(struct decode *d)
{
        const struct x86_state *s = d->state;
        int r = 0;

        if (!is_protected(d))
                return 0;
        if (s->gdt_bytes >= DESCRIPTOR)
                r = emit(d, s->gdt, s->gdt_bytes, true);
        if (r == 0 && s->ldt_bytes >= DESCRIPTOR)
                r = emit(d, s->ldt, s->ldt_bytes, true);
        return r;
}

static bool loads_segment(const struct decode *d)
{
        switch (d->insn.mnemonic) {
        case ZYDIS_MNEMONIC_IRET:
        case ZYDIS_MNEMONIC_IRETD:
        case ZYDIS_MNEMONIC_IRETQ:
        case ZYDIS_MNEMONIC_LTR:
                return true;
        case ZYDIS_MNEMONIC_RSM: /* these fill CS and SS without descriptors */
        case ZYDIS_MNEMONIC_SYSCALL:
        case ZYDIS_MNEMONIC_SYSENTER:
        case ZYDIS_MNEMONIC_SYSEXIT:
        case ZYDIS_MNEMONIC_SYSRET:
                return false;
        default:
                break;
        }
        if (d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
                return true;
        if (d->insn.mnemonic == ZYDIS_MNEMONIC_RET && d->insn.opcode >= 0xca) /* CA, CB: far */
                return true;
        for (unsigned i = 0; i < d->insn.operand_count; i++)
                if (d->operand[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                    ZydisRegisterGetClass(d->operand[i].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
                    (d->operand[i].actions & WRITE_ACTIONS))
                        return true;
        return false;
}

/* --- refusals --- */

/* Instruction sets that write where memory operands do not say: nested guests' control blocks,
 * enclaves, metadata that only the firmware knows. */
static bool opaque_set(const ZydisDecodedInstruction *insn)
{
        switch (insn->meta.isa_ext) {
        case ZYDIS_ISA_EXT_VTX:
                return insn->mnemonic != ZYDIS_MNEMONIC_VMCALL;
        case ZYDIS_ISA_EXT_SVM:
                return insn->mnemonic != ZYDIS_MNEMONIC_VMMCALL;
        case ZYDIS_ISA_EXT_PADLOCK:
        case ZYDIS_ISA_EXT_PCONFIG:
        case ZYDIS_ISA_EXT_SGX:
        case ZYDIS_ISA_EXT_SGX_ENCLV:
        case ZYDIS_ISA_EXT_SMX:
        case ZYDIS_ISA_EXT_SNP:
        case ZYDIS_ISA_EXT_TDX:
                return true;
        default:
                return false;
        }
}

static bool opaque_mnemonic(ZydisMnemonic mnemonic)
{
        switch (mnemonic) {
        case ZYDIS_MNEMONIC_BNDSTX: /* a bound table in memory */
        case ZYDIS_MNEMONIC_CLRSSBSY:
        case ZYDIS_MNEMONIC_LLWPCB: /* profiling: a ring buffer in memory */
        case ZYDIS_MNEMONIC_LWPINS:
        case ZYDIS_MNEMONIC_LWPVAL:
        case ZYDIS_MNEMONIC_RSTORSSP:
        case ZYDIS_MNEMONIC_SAVEPREVSSP:
        case ZYDIS_MNEMONIC_SENDUIPI: /* a posted-interrupt descriptor */
        case ZYDIS_MNEMONIC_SETSSBSY:
        case ZYDIS_MNEMONIC_SLWPCB:
                return true;
        default:
                return false;
        }
}

/* Interrupts, far branches and IRET: may they do more than use the current stack? */
static bool opaque_transfer(const struct decode *d)
{
        const struct x86_state *s = d->state;
        bool far = d->insn.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;

        switch (d->insn.mnemonic) {
        case ZYDIS_MNEMONIC_INT:
        case ZYDIS_MNEMONIC_INT1:
        case ZYDIS_MNEMONIC_INT3:
        case ZYDIS_MNEMONIC_INTO: /* the stack may be another, named by the TSS */
                return !s->real_mode;
        case ZYDIS_MNEMONIC_CALL:
                if (s->shadow_stack)
                        return true;
                /* A gate changes stacks for a higher privilege; there is none above 0. */
                return far && is_protected(d) && (s->bits != 64 || s->cpl != 0);
        case ZYDIS_MNEMONIC_JMP: /* a task switch writes the old task's TSS */
                return far && is_protected(d) && (!s->long_mode || s->shadow_stack);
        case ZYDIS_MNEMONIC_IRET:
        case ZYDIS_MNEMONIC_IRETD:
        case ZYDIS_MNEMONIC_IRETQ:
                if (!is_protected(d))
                        return false;
                return s->shadow_stack || (!s->long_mode && (s->rflags & RFLAGS_NT));
        case ZYDIS_MNEMONIC_RET:
                return s->shadow_stack && d->insn.opcode >= 0xca;
        default:
                return false;
        }
}

static bool is_opaque(const struct decode *d)
{
        return opaque_set(&d->insn) || opaque_mnemonic(d->insn.mnemonic) || opaque_transfer(d);
}

/* --- all of it --- */

static int ranges(struct decode *d)
{
        int r = 0;

        if (d->insn.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX) /* of a processor that is gone */
                return -EILSEQ;
        if (is_opaque(d))
                return -ENOTSUP;
        for (unsigned i = 0; r == 0 && i < d->insn.operand_count; i++)
                if (d->operand[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
                        r = memory_operand(d, &d->operand[i]);
        if (r == 0 && loads_segment(d))
                r = descriptor_tables(d);
        if (r)
                return r;
        switch (d->insn.mnemonic) {
        case ZYDIS_MNEMONIC_CLZERO:
                return clzero(d);
        case ZYDIS_MNEMONIC_ENQCMD:
        case ZYDIS_MNEMONIC_ENQCMDS:
                return enqcmd(d);
        case ZYDIS_MNEMONIC_INT: /* in real mode: FLAGS, CS, IP */
        case ZYDIS_MNEMONIC_INT1:
        case ZYDIS_MNEMONIC_INT3:
        case ZYDIS_MNEMONIC_INTO:
                return push(d, 6, 2);
        default:
                return 0;
        }
}

static int disassemble(struct decode *d, const uint8_t *bytes, size_t n)
{
        ZydisMachineMode mode = ZYDIS_MACHINE_MODE_LONG_64;
        ZydisStackWidth stack = ZYDIS_STACK_WIDTH_64;
        ZydisDecoder decoder;
        ZyanStatus status;

        if (d->state->bits != 64) {
                mode = d->state->bits == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                            : ZYDIS_MACHINE_MODE_LEGACY_16;
                stack = d->state->stack_bits == 16 ? ZYDIS_STACK_WIDTH_16 : ZYDIS_STACK_WIDTH_32;
        }
        if (ZYAN_FAILED(ZydisDecoderInit(&decoder, mode, stack)))
                return -EILSEQ;
        if (n > X86_INSN_BYTES)
                n = X86_INSN_BYTES;
        status = ZydisDecoderDecodeFull(&decoder, bytes, n, &d->insn, d->operand);
        if (status == ZYDIS_STATUS_NO_MORE_DATA && n < X86_INSN_BYTES)
                return -ENODATA;
        return ZYAN_SUCCESS(status) ? 0 : -EILSEQ;
}

int x86_decode(const struct x86_state *state, const uint8_t *bytes, size_t n,
               struct x86_ranges *out)
{
        struct decode d = {.state = state, .out = out};
        int r;

        out->n = 0;
        r = disassemble(&d, bytes, n);
        if (r == 0)
                r = ranges(&d);
        if (r < 0)
                out->n = 0;
        else
                out->insn_bytes = d.insn.length;
        return r;
}
