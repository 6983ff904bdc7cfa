/* SPDX-License-Identifier: Apache-2.0 */
/* Page walks for the translation cache: see view.h. */
#include "x86/view.h"

#include <stddef.h>

static int read_table(void *data, uint64_t gpa, void *buf, size_t len)
{
        return guest_access_read(data, gpa, buf, len);
}

static int walk(const struct guest_view *view, struct guest_access *a, uint64_t gva, unsigned kind,
                uint64_t *gpa)
{
        const struct x86_view *v =
                (const struct x86_view *)((const char *)view - offsetof(struct x86_view, view));
        const struct x86_mem_reader reader = {.read = read_table, .data = a};
        struct x86_walk out;
        int r = x86_walk(&v->paging, &reader, gva, kind, &out);

        if (r == 0)
                *gpa = out.gpa;
        return r;
}

/* All registers but CR3, in one number: two modes that differ never have the same. Of CR0 a walk
 * looks at PE, WP and PG, of RFLAGS at AC; bits of CR4 and EFER above those taken here have no part
 * in it. */
static uint64_t mode_of(const struct x86_paging *p)
{
        uint64_t cr0 = (p->cr0 & 1) | (p->cr0 >> 16 & 1) << 1 | (p->cr0 >> 31 & 1) << 2;

        return (p->cr4 & 0xffffffff) | (p->efer & 0xffff) << 32 | cr0 << 48 |
               (p->rflags >> 18 & 1) << 51 | (uint64_t)(p->cpl & 3) << 52 |
               (uint64_t)(p->maxphyaddr & 63) << 54;
}

void x86_view_init(struct x86_view *v, const struct x86_paging *paging, unsigned vcpu, uint64_t run)
{
        *v = (struct x86_view){
                .view = {.space = {.vcpu = vcpu,
                                   .run = run,
                                   .tables = paging->cr3,
                                   .mode = mode_of(paging)},
                         .walk = walk},
                .paging = *paging,
        };
}
