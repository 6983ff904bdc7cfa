/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The promise vm_options.fixed_page_tables, and as much of it as can be checked: see
 * fixed_tables.c. For reset.c; owner, everything stopped.
 */
#ifndef RAMET_VM_FIXED_TABLES_H
#define RAMET_VM_FIXED_TABLES_H

#include <stdbool.h>

struct vm;

/* Registers and memory are the template's: note its page tables, the first time that this is
 * called. Nothing happens without the promise, or where KVM keeps no shadows. */
void fixed_tables_note(struct vm *vm);
/* Before anything is reset: are they still those, as far as can be seen? False, too, when they have
 * not been noted. */
bool fixed_tables_hold(struct vm *vm);
void fixed_tables_free(struct vm *vm);

#endif
