/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machines of one launcher: see family.h. Paths are found by a walk over all records, which
 * only commands of people do.
 */
#include "cli/family.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

void family_fini(struct family *f)
{
        for (size_t i = 0; i < f->count; i++) {
                free(f->machines[i]->path);
                free(f->machines[i]);
        }
        free(f->machines);
        *f = (struct family){0};
}

/* 128 random bits: unique without asking anybody. */
static int make_id(char id[33])
{
        unsigned char raw[16];

        if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
                return -EIO;
        for (size_t i = 0; i < sizeof raw; i++)
                snprintf(id + 2 * i, 3, "%02x", raw[i]);
        return 0;
}

static int reserve(struct family *f)
{
        size_t cap = f->cap ? 2 * f->cap : 16;
        void *machines;

        if (f->count < f->cap)
                return 0;
        machines = reallocarray(f->machines, cap, sizeof(struct machine *));
        if (!machines)
                return -ENOMEM;
        f->machines = machines;
        f->cap = cap;
        return 0;
}

static char *make_path(const struct machine *parent, const char *name)
{
        char *path;

        if (!parent)
                return strdup(name);
        return asprintf(&path, "%s.%u", parent->path, parent->clones + 1) < 0 ? NULL : path;
}

int family_add(struct family *f, struct machine *parent, const char *name, unsigned index,
               struct machine **out, struct err *err)
{
        struct machine *m = calloc(1, sizeof *m);

        if (m && !reserve(f))
                m->path = make_path(parent, name);
        if (!m || !m->path) {
                free(m);
                return err_host(err, ENOMEM, "no memory for another machine");
        }
        if (make_id(m->id)) {
                free(m->path);
                free(m);
                return err_host(err, EIO, "the host has no random numbers");
        }
        m->parent = parent;
        m->index = index;
        m->start_ns = clock_now_ns();
        if (parent) {
                parent->clones++;
                m->options = parent->options;
                m->vcpus = parent->vcpus;
                m->memory_bytes = parent->memory_bytes;
        }
        f->machines[f->count++] = m;
        f->alive++;
        *out = m;
        return 0;
}

struct machine *family_find(const struct family *f, const char *path)
{
        for (size_t i = 0; i < f->count; i++)
                if (!strcmp(f->machines[i]->path, path))
                        return f->machines[i];
        return NULL;
}

const char *machine_state_name(const struct machine *m)
{
        if (m->forking && m->state != MACHINE_ENDED)
                return "forking";
        switch (m->state) {
        case MACHINE_STARTING:
                return "starting";
        case MACHINE_RUNNING:
                return "running";
        case MACHINE_PAUSED:
                return "paused";
        case MACHINE_ENDED:
                break;
        }
        return "ended";
}
