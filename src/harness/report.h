/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of a machine that crashed, or that hangs: see ramet_crash_report(). */
#ifndef RAMET_HARNESS_REPORT_H
#define RAMET_HARNESS_REPORT_H

#include <ramet/vm.h>

#include "harness/symbols.h"
#include "harness/text.h"

#define REPORT_CONSOLE_LINES 10u

/* "vCPU 1 at 0x1012f4 parse_header+0x34", or the address alone. 0 or -errno of its registers. */
int report_where(struct text *out, struct ramet_vm *vm, unsigned vcpu,
                 const struct symbols *symbols);
/* An EXIT event: "guest triple fault, vCPU 1 at 0x1012f4 parse_header+0x34". */
void report_end(struct text *out, struct ramet_vm *vm, const struct ramet_vm_event *event,
                const struct symbols *symbols);
/* An UNHANDLED event: "read of 1 byte from port 0x2222, where nothing is". */
void report_unhandled(struct text *out, const struct ramet_vm_event *event);
/* Registers and backtrace of a vCPU; 0 or -errno. @symbols: may be NULL. */
int report_vcpu(struct text *out, struct ramet_vm *vm, unsigned vcpu,
                const struct symbols *symbols);
/* That, and the last lines of its console, of what nobody has read yet. */
int report_crash(struct text *out, struct ramet_vm *vm, unsigned vcpu,
                 const struct symbols *symbols);
/* Read what it has printed and nobody has taken yet onto the end of @console, of which at least the
 * last @keep bytes stay. How many went from its beginning. */
size_t report_take_console(struct text *console, struct ramet_vm *vm, size_t keep);
/* The last lines that it printed; nothing if it printed nothing. */
void report_console(struct text *out, const char *bytes, size_t len);

#endif
