/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The report of a crash. Nothing that it reads is trusted to make sense: registers are numbers,
 * frames are walked with bounds (backtrace.c), and what was printed is made visible first.
 */
#include "harness/report.h"

#include <errno.h>
#include <string.h>

#include <ramet/harness.h>

#include "harness/backtrace.h"
#include "harness/internal.h"

/* Of a segment's attributes, as in struct ramet_segment. */
#define ATTRIBUTE_L  (1u << 9)
#define ATTRIBUTE_DB (1u << 10)
#define CR0_PE       1u

#define PROLOGUE_MAX 256u /* bytes of a function in which it makes its frame */
#define CONSOLE_KEPT 65536u

struct reader {
        struct ramet_vm *vm;
        unsigned vcpu;
};

static int read_guest(void *arg, uint64_t gva, void *buf, size_t len)
{
        const struct reader *r = arg;

        return ramet_vm_read_gva(r->vm, r->vcpu, gva, buf, len);
}

/* " parse_header+0x34", or nothing: the name of what lies @back bytes before @address. */
static void report_name(struct text *out, const struct symbols *symbols, uint64_t address,
                        unsigned back)
{
        const char *name;
        uint64_t offset;

        if (symbols_at(symbols, address - back, &name, &offset)) {
                text_bytes(out, " ", 1);
                text_visible(out, name, strlen(name));
                if (offset + back)
                        text_add(out, "+0x%llx", (unsigned long long)offset + back);
        }
}

/* "0x1012f4 parse_header+0x34", or the address alone. */
static void report_address(struct text *out, const struct symbols *symbols, uint64_t address)
{
        text_add(out, "0x%llx", (unsigned long long)address);
        report_name(out, symbols, address, 0);
}

/* Where a call returns to: that may lie behind the function which called, if nothing follows. */
static void report_return(struct text *out, const struct symbols *symbols, uint64_t address)
{
        text_add(out, "0x%llx", (unsigned long long)address);
        report_name(out, symbols, address, 1);
}

int report_where(struct text *out, struct ramet_vm *vm, unsigned vcpu,
                 const struct symbols *symbols)
{
        struct ramet_regs regs = {.size = sizeof regs};
        int ret = ramet_vm_get_regs(vm, vcpu, &regs);

        if (ret < 0)
                return ret;
        text_add(out, "vCPU %u at ", vcpu);
        report_address(out, symbols, regs.cs.base + regs.rip);
        return 0;
}

void report_end(struct text *out, struct ramet_vm *vm, const struct ramet_vm_event *e,
                const struct symbols *symbols)
{
        struct ramet_regs regs = {.size = sizeof regs};

        text_add(out, "%s", e->exit.text);
        if (e->exit.reason == RAMET_EXIT_CRASH && ramet_vm_get_regs(vm, e->vcpu, &regs) == 0)
                report_name(out, symbols, regs.cs.base + regs.rip, 0);
}

void report_unhandled(struct text *out, const struct ramet_vm_event *e)
{
        text_add(out, "%s of %u byte%s %s %s 0x%llx, where nothing is",
                 e->unhandled.write ? "write" : "read", e->unhandled.length,
                 e->unhandled.length == 1 ? "" : "s", e->unhandled.write ? "to" : "from",
                 e->unhandled.space == RAMET_PIO ? "port" : "address",
                 (unsigned long long)e->unhandled.address);
}

static void report_regs(struct text *out, const struct ramet_regs *r)
{
        const struct {
                const char *name;
                uint64_t value;
        } rows[] = {
                {"rax", r->rax}, {"rbx", r->rbx},   {"rcx", r->rcx}, {"rdx", r->rdx},
                {"rsi", r->rsi}, {"rdi", r->rdi},   {"rsp", r->rsp}, {"rbp", r->rbp},
                {"r8", r->r8},   {"r9", r->r9},     {"r10", r->r10}, {"r11", r->r11},
                {"r12", r->r12}, {"r13", r->r13},   {"r14", r->r14}, {"r15", r->r15},
                {"rip", r->rip}, {"cr0", r->cr0},   {"cr2", r->cr2}, {"cr3", r->cr3},
                {"cr4", r->cr4}, {"efer", r->efer},
        };
        const unsigned n = sizeof rows / sizeof rows[0];

        for (unsigned i = 0; i < n; i++)
                text_add(out, "  %-4s %016llx%s", rows[i].name, (unsigned long long)rows[i].value,
                         i % 4 == 3 || i == n - 1 ? "\n" : "");
        text_add(out, "  cs %04x  ss %04x  ds %04x  es %04x  fs %04x  gs %04x  rflags %llx\n",
                 r->cs.selector, r->ss.selector, r->ds.selector, r->es.selector, r->fs.selector,
                 r->gs.selector, (unsigned long long)r->rflags);
}

/* Bytes of a frame pointer, 0 in 16-bit code, where frames are not walked. */
static unsigned word_size(const struct ramet_regs *r)
{
        if (r->cs.attributes & ATTRIBUTE_L)
                return 8;
        return (r->cr0 & CR0_PE) && (r->cs.attributes & ATTRIBUTE_DB) ? 4 : 0;
}

/* Has the function that begins @offset bytes before RIP made its frame? Compilers do so late if
 * they can; whoever never does has none. */
static bool has_frame(const struct frames *frames, uint64_t pc, uint64_t offset)
{
        static const uint8_t push_mov64[] = {0x55, 0x48, 0x89, 0xe5},
                             push_mov32[] = {0x55, 0x89, 0xe5};
        uint8_t code[PROLOGUE_MAX];

        if (offset > sizeof code)
                return true;
        if (offset == 0 || frames->read(frames->arg, pc - offset, code, offset) != 0)
                return false;
        return frames->word == 8 ? memmem(code, offset, push_mov64, sizeof push_mov64) != NULL
                                 : memmem(code, offset, push_mov32, sizeof push_mov32) != NULL;
}

/* Without a frame, as in a call to nowhere, the caller is not in the list of frames; if nothing was
 * pushed, it is on top of the stack. Only told if something with a name lies there. */
static void report_caller(struct text *out, const struct frames *frames,
                          const struct symbols *symbols, const struct ramet_regs *r)
{
        uint64_t pc = 0, offset;
        const char *name;

        if (!symbols ||
            (symbols_at(symbols, r->rip, &name, &offset) && has_frame(frames, r->rip, offset)))
                return;
        if (frames->read(frames->arg, r->rsp, &pc, frames->word) != 0 ||
            !symbols_at(symbols, pc - 1, &name, &offset))
                return;
        text_add(out, "  ");
        report_return(out, symbols, pc);
        text_add(out, "  (on top of the stack)\n");
}

static void report_backtrace(struct text *out, struct reader *reader, const struct symbols *symbols,
                             const struct ramet_regs *r)
{
        const struct frames frames = {.read = read_guest, .arg = reader, .word = word_size(r)};
        uint64_t pcs[BACKTRACE_MAX];
        const char *why;
        unsigned n;

        text_add(out, "backtrace:\n  ");
        report_address(out, symbols, r->cs.base + r->rip);
        text_add(out, "\n");
        if (!frames.word)
                return;
        report_caller(out, &frames, symbols, r);
        n = backtrace_walk(&frames, r->rbp, pcs, BACKTRACE_MAX, &why);
        for (unsigned i = 0; i < n; i++) {
                text_add(out, "  ");
                report_return(out, symbols, pcs[i]);
                text_add(out, "\n");
        }
        if (why)
                text_add(out, "  (%s)\n", why);
}

int report_vcpu(struct text *out, struct ramet_vm *vm, unsigned vcpu, const struct symbols *symbols)
{
        struct ramet_regs regs = {.size = sizeof regs};
        struct reader reader = {.vm = vm, .vcpu = vcpu};
        int ret = ramet_vm_get_regs(vm, vcpu, &regs);

        if (ret < 0)
                return ret;
        text_add(out, "registers of vCPU %u%s:\n", vcpu,
                 (regs.cs.selector & 3) && (regs.cr0 & CR0_PE) ? ", in user mode" : "");
        report_regs(out, &regs);
        report_backtrace(out, &reader, symbols, &regs);
        return 0;
}

void report_console(struct text *out, const char *bytes, size_t len)
{
        struct text lines = {0};

        text_last_lines(&lines, "  ", bytes, len, REPORT_CONSOLE_LINES);
        if (lines.len)
                text_add(out, "last console lines:\n%s", lines.data);
        text_fini(&lines);
}

size_t report_take_console(struct text *console, struct ramet_vm *vm, size_t keep)
{
        size_t dropped = 0;
        char buf[4096];
        int n;

        for (int i = 0; i < 1024; i++) { /* it may run, and go on printing */
                n = ramet_vm_console_read(vm, buf, sizeof buf);
                if (n <= 0)
                        break;
                text_bytes(console, buf, (size_t)n);
                if (console->len > 2 * keep) {
                        size_t more = console->len - keep;

                        text_drop(console, more);
                        dropped += more;
                }
        }
        return dropped;
}

int report_crash(struct text *out, struct ramet_vm *vm, unsigned vcpu,
                 const struct symbols *symbols)
{
        struct text console = {0};
        int ret = report_vcpu(out, vm, vcpu, symbols);

        if (ret < 0)
                return ret;
        report_take_console(&console, vm, CONSOLE_KEPT);
        report_console(out, text_str(&console), console.len);
        text_fini(&console);
        return 0;
}

int ramet_crash_report(struct ramet_vm *vm, unsigned vcpu, const char *symbols, char *buf,
                       size_t size)
{
        struct text out = {0};
        struct symbols *table = NULL;
        struct err err = {0};
        int ret = 0;

        if (!vm || !buf)
                return harness_null(__func__, vm ? "buf" : "vm");
        if (size == 0)
                return harness_invalid("%s: size: 0, expected room for a report", __func__);
        if (symbols)
                ret = symbols_open(symbols, &table, &err);
        if (ret < 0)
                return harness_result(ret, &err);
        ret = report_crash(&out, vm, vcpu, table);
        if (ret == 0)
                text_cut(&out, buf, size);
        symbols_free(table);
        text_fini(&out);
        return ret;
}
