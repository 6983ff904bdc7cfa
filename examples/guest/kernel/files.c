// SPDX-License-Identifier: Apache-2.0
/* Files in memory: a table of names, each with a text from the heap. */
#include "kernel.h"

#define FILES    8
#define NAME_MAX 15

static struct file {
        char name[NAME_MAX + 1]; /* "": a free entry */
        char *text;
} files[FILES];

static struct file *find(const char *name)
{
        for (unsigned i = 0; i < FILES; i++)
                if (same(files[i].name, name))
                        return &files[i];
        return NULL;
}

static const char *bad_name(const char *name)
{
        return !*name ? "no name" : length(name) > NAME_MAX ? "name too long" : NULL;
}

/* @old's text (may be NULL) and then @text become @f's. */
static const char *set(struct file *f, const char *name, const char *old, const char *text)
{
        uint64_t before = old ? length(old) : 0, len = length(text) + 1;
        char *both = heap_alloc(before + len);

        if (!both)
                return "no memory";
        memcpy(both, old, before);
        memcpy(both + before, text, len);
        if (f->text)
                heap_free(f->text);
        f->text = both;
        memcpy(f->name, name, length(name) + 1);
        return NULL;
}

const char *file_write(const char *name, const char *text)
{
        const char *wrong = bad_name(name);
        struct file *f;

        if (wrong)
                return wrong;
        f = find(name);
        if (!f)
                f = find("");
        return f ? set(f, name, NULL, text) : "too many files";
}

const char *file_append(const char *name, const char *text)
{
        struct file *f = *name ? find(name) : NULL;

        return f ? set(f, name, f->text, text) : "no such file";
}

const char *file_rename(const char *name, const char *to)
{
        const char *wrong = bad_name(to);
        struct file *f = *name ? find(name) : NULL;

        if (!f || wrong)
                return f ? wrong : "no such file";
        if (find(to))
                return "file exists";
        memcpy(f->name, to, length(to) + 1);
        return NULL;
}

const char *file_remove(const char *name)
{
        struct file *f = *name ? find(name) : NULL;

        if (!f)
                return "no such file";
        heap_free(f->text);
        *f = (struct file){0};
        return NULL;
}

const char *file_print(const char *name)
{
        struct file *f = *name ? find(name) : NULL;

        if (!f)
                return "no such file";
        printf("%s\n", f->text);
        return NULL;
}

void file_list(void)
{
        for (unsigned i = 0; i < FILES; i++)
                if (files[i].name[0])
                        printf("%s %lu\n", files[i].name, length(files[i].text));
}
