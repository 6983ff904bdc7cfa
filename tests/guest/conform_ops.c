// SPDX-License-Identifier: Apache-2.0
/* What the instructions of conform_ops.S must have written, in plain C: see conform.c. */
#include "conform.h"

uint8_t conform_src[SRC_SIZE] __attribute__((aligned(64)));

extern const uint8_t op_call_return[];

void src_init(void)
{
        uint32_t seed = 12345;

        for (unsigned i = 0; i < SRC_BYTES; i++) {
                seed = seed * 1103515245 + 12345;
                conform_src[i] = (uint8_t)(seed >> 16);
        }
        for (unsigned lane = 0; lane < 16; lane++) {
                uint32_t mask = 0x96b6u >> lane & 1 ? 0x80808080 : 0, index = lane * SCATTER_STEP;

                __builtin_memcpy(conform_src + SRC_MASK + 4 * lane, &mask, 4);
                __builtin_memcpy(conform_src + SRC_INDEX + 4 * lane, &index, 4);
        }
}

static uint64_t get64(const uint8_t *p)
{
        uint64_t v;

        __builtin_memcpy(&v, p, 8);
        return v;
}

static void put64(uint8_t *p, uint64_t v)
{
        __builtin_memcpy(p, &v, 8);
}

static void source(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                image[i] = conform_src[i];
}

static void source_reversed(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                image[i] = conform_src[op->len - 1 - i];
}

static void source_masked(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                if (conform_src[SRC_MASK + i])
                        image[i] = conform_src[i];
}

static void source_byte_lanes(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                if (BYTE_LANES >> i & 1)
                        image[i] = conform_src[i];
}

static void source_scattered(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < 16; i++)
                if (SCATTER_LANES >> i & 1)
                        __builtin_memcpy(image + 4 * i * SCATTER_STEP, conform_src + 4 * i, 4);
}

static void immediate(const struct op *op, uint8_t *image, const uint8_t *at)
{
        uint32_t v = 0x5a6b7c8d;

        __builtin_memcpy(image, &v, 4);
}

static void one(const struct op *op, uint8_t *image, const uint8_t *at)
{
        image[0] = 1;
}

static void sum(const struct op *op, uint8_t *image, const uint8_t *at)
{
        put64(image, get64(image) + get64(conform_src));
}

static void inverse(const struct op *op, uint8_t *image, const uint8_t *at)
{
        put64(image, ~get64(image));
}

static void shifted(const struct op *op, uint8_t *image, const uint8_t *at)
{
        put64(image, get64(image) << 12 | get64(conform_src) >> 52);
}

static void bit_3(const struct op *op, uint8_t *image, const uint8_t *at)
{
        image[0] |= 1 << 3;
}

static void increment(const struct op *op, uint8_t *image, const uint8_t *at)
{
        put64(image, get64(image) + 1);
}

static void all_ones(const struct op *op, uint8_t *image, const uint8_t *at)
{
        image[0] = 0xff;
}

static void nothing(const struct op *op, uint8_t *image, const uint8_t *at)
{
}

static void stored_bytes(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                image[i] = conform_src[0];
}

static void stored_words(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                image[i] = conform_src[i % 8];
}

static void moved_down(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = 0; i < op->len; i++)
                image[i] = image[i + OVERLAP];
}

static void moved_up(const struct op *op, uint8_t *image, const uint8_t *at)
{
        for (unsigned i = op->len; i-- > 0;)
                image[i] = image[(int)i - OVERLAP];
}

static void return_address(const struct op *op, uint8_t *image, const uint8_t *at)
{
        put64(image, (uint64_t)op_call_return);
}

static void two_frames(const struct op *op, uint8_t *image, const uint8_t *at)
{
        put64(image, (uint64_t)at + 8);
        put64(image + 8, get64(conform_src));
}

static void control_word(const struct op *op, uint8_t *image, const uint8_t *at)
{
        image[0] = 0x7f;
        image[1] = 0x03;
}

#define OPS(_)                                                                                     \
        _("mov 1", mov8, source, 1, 1, 0, ALWAYS, OP_ATOMIC)                                       \
        _("mov 2", mov16, source, 2, 1, 0, ALWAYS, OP_ATOMIC)                                      \
        _("mov 4", mov32, source, 4, 1, 0, ALWAYS, OP_ATOMIC)                                      \
        _("mov 8", mov64, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                                      \
        _("mov immediate", mov_imm, immediate, 4, 1, 0, ALWAYS, OP_ATOMIC)                         \
        _("mov segment", mov_seg, NULL, 2, 1, 0, ALWAYS, OP_NATIVE)                                \
        _("movbe", movbe, source_reversed, 8, 1, 0, HAS_MOVBE, OP_ATOMIC | OP_NATIVE)              \
        _("movnti", movnti, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                                    \
        _("movdiri", movdiri, source, 8, 1, 0, HAS_MOVDIRI, OP_ATOMIC)                             \
        _("movdir64b", movdir64b, source, 64, 64, 0, HAS_MOVDIR64B, 0)                             \
        _("setcc", setc, one, 1, 1, 0, ALWAYS, OP_ATOMIC)                                          \
        _("pop to memory", pop_mem, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                            \
        _("add", add, sum, 8, 1, 0, ALWAYS, OP_ATOMIC)                                             \
        _("not", not, inverse, 8, 1, 0, ALWAYS, OP_ATOMIC)                                         \
        _("bts by register", bts, bit_3, 8, 8, 0, ALWAYS, OP_ATOMIC)                               \
        _("shld", shld, shifted, 8, 1, 0, ALWAYS, OP_ATOMIC)                                       \
        _("xchg", xchg, source, 8, 8, 0, ALWAYS, OP_ATOMIC)                                        \
        _("lock inc", lock_inc, increment, 8, 8, 0, ALWAYS, OP_ATOMIC)                             \
        _("lock add", lock_add, sum, 8, 8, 0, ALWAYS, OP_ATOMIC)                                   \
        _("lock or 1", lock_or8, all_ones, 1, 1, 0, ALWAYS, OP_ATOMIC)                             \
        _("lock xadd", lock_xadd, sum, 8, 8, 0, ALWAYS, OP_ATOMIC)                                 \
        _("lock bts", lock_bts, bit_3, 8, 8, 0, ALWAYS, OP_ATOMIC)                                 \
        _("lock cmpxchg", lock_cmpxchg, source, 8, 8, 0, ALWAYS, OP_ATOMIC)                        \
        _("lock cmpxchg, unequal", lock_cmpxchg_fails, nothing, 8, 8, 0, ALWAYS, OP_ATOMIC)        \
        _("lock cmpxchg8b", cmpxchg8b, source, 8, 8, 0, ALWAYS, OP_ATOMIC)                         \
        _("lock cmpxchg16b", cmpxchg16b, source, 16, 16, 0, HAS_CX16, 0)                           \
        _("movsb", movsb, source, 1, 1, 0, ALWAYS, OP_ATOMIC)                                      \
        _("rep movsb", rep_movsb, source, REP_BYTES, 1, 0, ALWAYS, 0)                              \
        _("rep movsq", rep_movsq, source, REP_BYTES, 1, 0, ALWAYS, 0)                              \
        _("rep stosb", rep_stosb, stored_bytes, REP_BYTES, 1, 0, ALWAYS, 0)                        \
        _("rep stosq", rep_stosq, stored_words, REP_BYTES, 1, 0, ALWAYS, 0)                        \
        _("rep movsb, backwards", rep_movsb_back, source, REP_BYTES, 1, 0, ALWAYS, 0)              \
        _("rep movsq, backwards", rep_movsq_back, source, REP_BYTES, 1, 0, ALWAYS, 0)              \
        _("rep stosb, backwards", rep_stosb_back, stored_bytes, REP_BYTES, 1, 0, ALWAYS, 0)        \
        _("rep stosq, backwards", rep_stosq_back, stored_words, REP_BYTES, 1, 0, ALWAYS, 0)        \
        _("rep movsb, overlapping", rep_movsb_overlap, moved_down, REP_BYTES, 1, 0, ALWAYS, 0)     \
        _("rep movsq, overlapping", rep_movsq_overlap, moved_down, REP_BYTES, 1, 0, ALWAYS, 0)     \
        _("rep movsb, overlapping, backwards", rep_movsb_overlap_back, moved_up, REP_BYTES, 1, 0,  \
          ALWAYS, 0)                                                                               \
        _("push", push, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                                        \
        _("push from memory", push_mem, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                        \
        _("pushf", pushf, NULL, 8, 1, 0, ALWAYS, 0)                                                \
        _("call", call, return_address, 8, 1, 0, ALWAYS, OP_ATOMIC)                                \
        _("enter", enter, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                                      \
        _("enter, nested", enter_nested, two_frames, 16, 1, 0, ALWAYS, 0)                          \
        _("fistp", fistp, source, 8, 1, 0, ALWAYS, 0)                                              \
        _("fstp 10", fstpt, NULL, 10, 1, 0, ALWAYS, 0)                                             \
        _("fnstcw", fnstcw, control_word, 2, 1, 0, ALWAYS, 0)                                      \
        _("fnstenv", fnstenv, NULL, 28, 1, 0, ALWAYS, 0)                                           \
        _("stmxcsr", stmxcsr, NULL, 4, 1, 0, ALWAYS, 0)                                            \
        _("movq xmm", movq_xmm, source, 8, 1, 0, ALWAYS, OP_ATOMIC)                                \
        _("movups", movups, source, 16, 1, 0, ALWAYS, 0)                                           \
        _("movaps", movaps, source, 16, 16, 0, ALWAYS, 0)                                          \
        _("movntdq", movntdq, source, 16, 16, 0, ALWAYS, 0)                                        \
        _("maskmovdqu", maskmovdqu, source_masked, 16, 1, 0, ALWAYS, 0)                            \
        _("vmovups ymm", vmovups_ymm, source, 32, 1, 0, HAS_AVX, 0)                                \
        _("vmovntdq ymm", vmovntdq_ymm, source, 32, 32, 0, HAS_AVX, 0)                             \
        _("vmaskmovps ymm", vmaskmovps, source_masked, 32, 1, 0, HAS_AVX, 0)                       \
        _("vmovups zmm", vmovups_zmm, source, 64, 1, 0, HAS_AVX512F, 0)                            \
        _("vmovntdq zmm", vmovntdq_zmm, source, 64, 64, 0, HAS_AVX512F, 0)                         \
        _("vmovdqu8 zmm, masked", vmovdqu8_masked, source_byte_lanes, 64, 1, 0, HAS_AVX512BW, 0)   \
        _("vpscatterdd zmm", vpscatterdd, source_scattered, 15 * SCATTER_STEP * 4 + 4, 1, 0,       \
          HAS_AVX512F, OP_LAST)                                                                    \
        _("fxsave", fxsave, NULL, 512, 16, 0, ALWAYS, 0)                                           \
        _("xsave", xsave, NULL, 832, 64, 0, HAS_XSAVE, 0)                                          \
        _("xsaveopt", xsaveopt, NULL, 832, 64, 0, HAS_XSAVEOPT, 0)                                 \
        _("xsavec", xsavec, NULL, 832, 64, 0, HAS_XSAVEC, 0)                                       \
        _("sgdt", sgdt, NULL, 10, 1, 0, ALWAYS, OP_RING0)

#define DECLARE_OP(name, fn, ...) void op_##fn(uint8_t *at, const uint8_t *src);
#define ENTRY(name, fn, want, len, align, bias, feature, flags)                                    \
        {name, op_##fn, want, len, align, bias, feature, flags, NULL},

OPS(DECLARE_OP)

const struct op ops[] = {
        OPS(ENTRY) /* and what the processor writes by itself */
        {"accessed bit", run_accessed, want_accessed, 8, 8, 0, ALWAYS, OP_PREPARED, prepare_leaf},
        {"accessed and dirty bit", run_dirty, want_dirty, 8, 8, 0, ALWAYS, OP_PREPARED,
         prepare_leaf},
        {"accessed bit, upper level", run_accessed_upper, want_accessed, 8, 8, 0, ALWAYS,
         OP_PREPARED, prepare_upper},
        {"exception frame", run_exception, want_exception, 40, 16, 8, ALWAYS, 0, NULL},
};
const unsigned nops = sizeof ops / sizeof *ops;
