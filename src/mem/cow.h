/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copy-on-write engines: how a write into memory that belongs to a template is caught, and who
 * makes the page that it goes to instead. One interface, so that the rest of Ramet does not know
 * which one a machine uses:
 *
 *      private   the host kernel, by a private mapping of the layers; nothing for Ramet to do
 *      trap      userfaultfd write-protection on that mapping; a thread sees each page first
 *      rom       KVM's read-only memslots; a write is an exit, and Ramet makes the page
 *
 *      create --> arm --> (break_range, list_own, reset)* --> destroy
 *
 * An engine that cannot keep its promise refuses in create() or arm(), with one line that says why
 * and names an engine that can; it never runs on wrongly. What it keeps is in backing->cow_state.
 *
 * Threads: the machine's owner, with every vCPU stopped or not there yet, unless said otherwise.
 */
#ifndef RAMET_MEM_COW_H
#define RAMET_MEM_COW_H

#include <stdbool.h>
#include <stdint.h>

#include <ramet/ramet.h>

#include "base/err.h"
#include "mem/extent.h"

struct backing;
struct guest_mem;
struct kvm_vm;
struct slots;
struct sync_domain;

/* The machine around the memory; all borrowed. For tests of memory alone the pointers are NULL,
 * which `rom` cannot do without. */
struct cow_env {
        const struct kvm_vm *kvm;
        struct sync_domain *sync;
        struct guest_mem *mem;
        struct slots *slots;

        /* `trap`: the page at @offset is about to be written for the first time, and will be the
         * @own_pages'th of the machine's own. It is too late to refuse: the writer is in the middle
         * of an instruction or a system call. On the engine's thread, which must not touch guest
         * memory, nor wait for anybody who might. NULL: nobody wants to know. */
        void (*own_page)(void *data, uint64_t offset, uint64_t own_pages);
        void *data;
};

struct cow_engine {
        const char *name; /* as users write it */

        /* The memory is reserved or shared, nothing is write-protected yet, and the process is not
         * confined yet: take descriptors, start threads. 0; -ENOTSUP when this host or this machine
         * cannot have the engine; -errno. */
        int (*create)(struct backing *b, struct err *err);
        /* After a failed create(), too. */
        void (*destroy)(struct backing *b);

        /* All memory has just become private over sealed layers: catch writes from now on. Again
         * after every freeze that re-maps. 0 or -errno, and then the memory goes back to what it
         * was, or away. */
        int (*arm)(struct backing *b, struct err *err);
        /* Make the pages of [offset, offset + len) the machine's own now, before anybody writes
         * them. NULL: there is no need to, ever. 0 or -errno. */
        int (*break_range)(struct backing *b, uint64_t offset, uint64_t len, struct err *err);
        /* The pages that are the machine's own, as ranges of layer @layer; ascending. vCPUs may
         * run, and then the answer is as of some time during the call. 0 or -errno. */
        int (*list_own)(const struct backing *b, uint32_t layer, struct extent_list *list);
        /* Where the byte at @offset is, and how many of the @len from there on lie in one piece
         * with it (at least 1). NULL: all of memory is in one piece at hva. */
        uint8_t *(*find)(const struct backing *b, uint64_t offset, uint64_t len, uint64_t *piece);
        /* Would a guest's write somewhere into [offset, offset + len) be an exit? Any thread. NULL:
         * never; a write that is caught goes on by itself. */
        bool (*caught)(const struct backing *b, uint64_t offset, uint64_t len);
        /* Give the machine's own pages back: memory is the template's again, writes are caught. 0
         * or -errno, and then memory is only good for destroy. */
        int (*reset)(struct backing *b, struct err *err);
};

extern const struct cow_engine cow_private, cow_trap, cow_rom;

/* NULL: no such engine. */
const struct cow_engine *cow_engine_get(enum ramet_cow cow);

#endif
