/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols of a guest, from the symbol table of an ELF file: addresses by name, and names of what
 * lies at an address. Read once and never changed, so any number of threads may look.
 */
#ifndef RAMET_HARNESS_SYMBOLS_H
#define RAMET_HARNESS_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct symbols;

/* -ENODATA: not an ELF file, or one without symbols (err says which); -errno of reading it; -EINVAL
 * when it is damaged. The file is read by the call and not needed afterwards. */
int symbols_open(const char *path, struct symbols **symbols, struct err *err);
/* The same of a file in memory. */
int symbols_open_memory(const void *data, size_t len, struct symbols **symbols, struct err *err);
void symbols_free(struct symbols *symbols); /* NULL is fine */

/* The global symbol of that name, or the only local one. -ENOENT, also when @symbols is NULL;
 * -ENOTUNIQ: several files have a local one. @size may be NULL, and is 0 when the file has none. */
int symbols_find(const struct symbols *symbols, const char *name, uint64_t *address,
                 uint64_t *size);
/* What lies at @address: false when nothing with a name does, or @symbols is NULL. */
bool symbols_at(const struct symbols *symbols, uint64_t address, const char **name,
                uint64_t *offset);

#endif
