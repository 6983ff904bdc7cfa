/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Symbols of a guest: see symbols.h. libelf takes the file apart; here are two sorted arrays, and
 * what to do when a name or an address has several symbols.
 *
 * Names: a global symbol goes before a weak and a local one, and a local one only counts if it is
 * alone. Addresses: functions and objects have sizes, and are what is shown. Labels of assembler
 * code have neither type nor size: they count up to the next symbol, but not inside a function.
 *
 * A file is not trusted: what libelf returns is checked, names are cut at NAME_MAX_BYTES, and all
 * of them together at NAMES_MAX_BYTES, since many symbols may share one long name.
 */
#include "harness/symbols.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_MAX_BYTES  1024
#define NAMES_MAX_BYTES (256u << 20)

enum rank { RANK_GLOBAL, RANK_WEAK, RANK_LOCAL };

struct symbol {
        uint64_t address, size;
        uint64_t end;    /* of what it names, for addresses */
        size_t name_at;  /* in names */
        enum rank rank;  /* the lower, the better */
        bool typed;      /* a function or an object */
        bool in_section; /* it names a place, not a number */
};

struct symbols {
        struct symbol *by_name, *by_address;
        size_t nby_name, nby_address;
        char *names;
        size_t names_len, names_size;
};

void symbols_free(struct symbols *s)
{
        if (!s)
                return;
        free(s->by_name);
        free(s->by_address);
        free(s->names);
        free(s);
}

/* --- reading --- */

static bool keep_name(struct symbols *s, const char *name, size_t *at)
{
        size_t len = strnlen(name, NAME_MAX_BYTES);

        if (s->names_len + len + 1 > s->names_size) {
                size_t size = s->names_size ? 2 * s->names_size : 65536;
                char *names;

                if (size > NAMES_MAX_BYTES)
                        return false;
                names = realloc(s->names, size);
                if (!names)
                        return false;
                s->names = names;
                s->names_size = size;
        }
        *at = s->names_len;
        memcpy(s->names + s->names_len, name, len);
        s->names[s->names_len + len] = '\0';
        s->names_len += len + 1;
        return true;
}

/* Where the section ends that a symbol is in; 0: it is in none. */
static uint64_t section_end(Elf *elf, size_t index)
{
        Elf_Scn *scn = index && index < SHN_LORESERVE ? elf_getscn(elf, index) : NULL;
        GElf_Shdr shdr;

        return scn && gelf_getshdr(scn, &shdr) ? shdr.sh_addr + shdr.sh_size : 0;
}

/* Does it name something? Sections and source files have symbols, too. */
static bool wanted(const GElf_Sym *sym)
{
        unsigned type = GELF_ST_TYPE(sym->st_info);

        return sym->st_shndx != SHN_UNDEF && (type == STT_NOTYPE || type == STT_FUNC ||
                                              type == STT_OBJECT || type == STT_GNU_IFUNC);
}

static void read_symbol(Elf *elf, const GElf_Sym *sym, struct symbol *out)
{
        unsigned bind = GELF_ST_BIND(sym->st_info);
        uint64_t end = section_end(elf, sym->st_shndx);

        *out = (struct symbol){
                .address = sym->st_value,
                .size = sym->st_size,
                .end = sym->st_size ? sym->st_value + sym->st_size : end,
                .rank = bind == STB_GLOBAL ? RANK_GLOBAL
                        : bind == STB_WEAK ? RANK_WEAK
                                           : RANK_LOCAL,
                .typed = GELF_ST_TYPE(sym->st_info) != STT_NOTYPE,
                .in_section = end != 0,
        };
}

static int read_table(struct symbols *s, Elf *elf, Elf_Scn *scn, const GElf_Shdr *shdr,
                      struct err *err)
{
        size_t n = shdr->sh_entsize ? shdr->sh_size / shdr->sh_entsize : 0;
        Elf_Data *data = elf_getdata(scn, NULL);

        /* libelf gives the data that is in the file, and so bounds n */
        if (!data || !data->d_buf || n > data->d_size / 16 || n > INT32_MAX)
                return err_input(err, "its symbol table is damaged");
        s->by_name = calloc(n ? n : 1, sizeof *s->by_name);
        if (!s->by_name)
                return err_host(err, ENOMEM, "no memory for %zu symbols", n);
        for (size_t i = 0; i < n; i++) {
                struct symbol *symbol = &s->by_name[s->nby_name];
                const char *name;
                GElf_Sym sym;

                if (!gelf_getsym(data, (int)i, &sym))
                        return err_input(err, "its symbol table is damaged");
                name = wanted(&sym) ? elf_strptr(elf, shdr->sh_link, sym.st_name) : NULL;
                if (!name || !*name)
                        continue;
                read_symbol(elf, &sym, symbol);
                if (!keep_name(s, name, &symbol->name_at))
                        return err_host(err, E2BIG, "its symbols' names are too long");
                s->nby_name++;
        }
        return 0;
}

/* --- sorting --- */

static int compare_numbers(uint64_t a, uint64_t b)
{
        return (a > b) - (a < b);
}

static int compare_names(const void *a, const void *b, void *names)
{
        const struct symbol *x = a, *y = b;
        int ret = strcmp((char *)names + x->name_at, (char *)names + y->name_at);

        if (ret == 0)
                ret = (int)x->rank - (int)y->rank;
        return ret ? ret : compare_numbers(x->address, y->address);
}

/* Of those at one address the best one comes first. */
static int compare_addresses(const void *a, const void *b)
{
        const struct symbol *x = a, *y = b;
        int ret = compare_numbers(x->address, y->address);

        if (ret == 0)
                ret = (int)y->typed - (int)x->typed;
        if (ret == 0)
                ret = (x->size == 0) - (y->size == 0);
        if (ret == 0)
                ret = (int)x->rank - (int)y->rank;
        return ret ? ret : compare_numbers(x->name_at, y->name_at);
}

static int index_symbols(struct symbols *s, struct err *err)
{
        uint64_t typed_end = 0;
        size_t n = 0;

        s->by_address = malloc((s->nby_name ? s->nby_name : 1) * sizeof *s->by_address);
        if (!s->by_address)
                return err_host(err, ENOMEM, "no memory for %zu symbols", s->nby_name);
        for (size_t i = 0; i < s->nby_name; i++)
                if (s->by_name[i].in_section)
                        s->by_address[n++] = s->by_name[i];
        qsort(s->by_address, n, sizeof *s->by_address, compare_addresses);
        for (size_t i = 0; i < n; i++) {
                const struct symbol *symbol = &s->by_address[i];

                if (s->nby_address > 0 &&
                    s->by_address[s->nby_address - 1].address == symbol->address)
                        continue;
                if (!symbol->typed && symbol->address < typed_end)
                        continue;
                if (symbol->typed && symbol->size)
                        typed_end = symbol->end;
                s->by_address[s->nby_address++] = *symbol;
        }
        qsort_r(s->by_name, s->nby_name, sizeof *s->by_name, compare_names, s->names);
        return 0;
}

/* --- opening --- */

static int read_elf(struct symbols *s, Elf *elf, struct err *err)
{
        Elf_Scn *scn = NULL, *table = NULL;
        GElf_Shdr shdr, found = {0};

        if (elf_kind(elf) != ELF_K_ELF)
                return err_host(err, ENODATA, "not an ELF file");
        while ((scn = elf_nextscn(elf, scn)))
                if (gelf_getshdr(scn, &shdr) && shdr.sh_type == SHT_SYMTAB) {
                        table = scn;
                        found = shdr;
                }
        if (!table)
                return err_host(err, ENODATA, "it has no symbols");
        return read_table(s, elf, table, &found, err);
}

/* Takes @elf. */
static int open_elf(Elf *elf, struct symbols **symbols, struct err *err)
{
        struct symbols *s = calloc(1, sizeof *s);
        int ret;

        if (!elf)
                ret = err_input(err, "%s", elf_errmsg(-1));
        else if (!s)
                ret = err_host(err, ENOMEM, "no memory");
        else
                ret = read_elf(s, elf, err);
        if (ret == 0)
                ret = index_symbols(s, err);
        elf_end(elf);
        if (ret < 0)
                symbols_free(s);
        else
                *symbols = s;
        return ret;
}

int symbols_open(const char *path, struct symbols **symbols, struct err *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY), ret;

        if (fd < 0) {
                ret = -errno;
                return err_host(err, -ret, "%s: %s", path, strerror(-ret));
        }
        elf_version(EV_CURRENT);
        ret = open_elf(elf_begin(fd, ELF_C_READ, NULL), symbols, err);
        close(fd);
        return ret < 0 ? err_prefix(err, ret, "%s", path) : 0;
}

int symbols_open_memory(const void *data, size_t len, struct symbols **symbols, struct err *err)
{
        elf_version(EV_CURRENT);
        return open_elf(elf_memory((char *)data, len), symbols, err);
}

/* --- looking --- */

/* The first one, by name, that is not before @name. */
static size_t first_named(const struct symbols *s, const char *name)
{
        size_t low = 0, high = s->nby_name;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (strcmp(s->names + s->by_name[middle].name_at, name) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* Do all of the name of the one at @at, which come behind it, mean the same place? */
static bool alone(const struct symbols *s, size_t at)
{
        const struct symbol *first = &s->by_name[at];

        while (++at < s->nby_name &&
               strcmp(s->names + s->by_name[at].name_at, s->names + first->name_at) == 0)
                if (s->by_name[at].address != first->address)
                        return false;
        return true;
}

int symbols_find(const struct symbols *s, const char *name, uint64_t *address, uint64_t *size)
{
        const struct symbol *found;
        size_t at;

        if (!s)
                return -ENOENT;
        at = first_named(s, name);
        found = &s->by_name[at];
        if (at == s->nby_name || strcmp(s->names + found->name_at, name) != 0)
                return -ENOENT;
        if (found->rank == RANK_LOCAL && !alone(s, at))
                return -ENOTUNIQ;
        *address = found->address;
        if (size)
                *size = found->size;
        return 0;
}

bool symbols_at(const struct symbols *s, uint64_t address, const char **name, uint64_t *offset)
{
        size_t low = 0, high = s ? s->nby_address : 0;
        const struct symbol *symbol;

        while (low < high) { /* ends at the first one behind @address */
                size_t middle = low + (high - low) / 2;

                if (s->by_address[middle].address <= address)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low == 0)
                return false;
        symbol = &s->by_address[low - 1];
        if (address >= symbol->end)
                return false;
        *name = s->names + symbol->name_at;
        *offset = address - symbol->address;
        return true;
}
