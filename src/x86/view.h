/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear addresses of guest memory (mem/access.h), as a vCPU with given registers means them.
 *
 *      struct x86_view view;
 *
 *      x86_view_init(&view, &paging, vcpu, run);
 *      guest_access_read_gva(access, &view.view, X86_READ, gva, buf, len, NULL);
 *
 * The kinds of access are sets of enum x86_access; what a walk says is what x86_walk() says.
 */
#ifndef RAMET_X86_VIEW_H
#define RAMET_X86_VIEW_H

#include "mem/access.h"
#include "x86/walk.h"

struct x86_view {
        struct guest_view view;
        struct x86_paging paging;
};

/* @run: a number that is another one whenever the vCPU, or whoever else may change its page tables
 * on purpose, has run since; see access.h. */
void x86_view_init(struct x86_view *view, const struct x86_paging *paging, unsigned vcpu,
                   uint64_t run);

#endif
