/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory: bytes by address, pointers between begin and end, and which pages were written. Reading
 * and writing by guest-physical address goes on beside the vCPUs; linear addresses need registers,
 * so the machine is stopped for them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/lib.h"

static int check_buffer(const void *buf, size_t len, struct err *err)
{
        return buf || !len ? 0 : err_input(err, "buf: NULL given, %zu bytes were expected", len);
}

static int not_ram(int r, uint64_t gpa, size_t len, struct err *err)
{
        if (r == -EFAULT)
                err_input(err, "%zu bytes at %#" PRIx64 " are not all RAM of this machine", len,
                          gpa);
        return r;
}

int ramet_vm_read(struct ramet_vm *vm, uint64_t gpa, void *buf, size_t len)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_SECTION, &err);

        if (ret == 0) {
                ret = check_buffer(buf, len, &err);
                if (ret == 0)
                        ret = not_ram(vm_read(vm->vm, gpa, buf, len), gpa, len, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

int ramet_vm_write(struct ramet_vm *vm, uint64_t gpa, const void *buf, size_t len)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_SECTION, &err);

        if (ret == 0) {
                ret = check_buffer(buf, len, &err);
                if (ret == 0)
                        ret = not_ram(vm_write(vm->vm, gpa, buf, len), gpa, len, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

/* --- by linear address --- */

/* src/vm's codes for what is wrong at @failed, as the public ones. */
static int gva_result(int r, unsigned vcpu, uint64_t failed, struct err *err)
{
        switch (r) {
        case -EFAULT:
                err_input(err, "nothing is mapped at %#" PRIx64 " of vCPU %u", failed, vcpu);
                return -EFAULT;
        case -EINVAL:
                err_input(err, "%#" PRIx64 " is not a canonical address", failed);
                return -EFAULT;
        case -EIO:
                err_input(err, "the page tables of vCPU %u for %#" PRIx64 " are not in RAM", vcpu,
                          failed);
                return -EFAULT;
        case -ENXIO:
                err_input(err, "%#" PRIx64 " of vCPU %u is mapped to what is not RAM", failed,
                          vcpu);
                return -EFAULT;
        default:
                return r;
        }
}

struct gva_access {
        unsigned vcpu;
        uint64_t gva;
        void *to;         /* one of the two */
        const void *from; /* is NULL */
        size_t len;
};

static int access_gva(struct ramet_vm *vm, const struct gva_access *a, struct err *err)
{
        uint64_t failed = a->gva;
        int r = vm_check_vcpu(vm->vm, a->vcpu, err);
        bool ran;

        if (r < 0 || !a->len)
                return r;
        ran = lib_run(vm, false);
        r = a->from ? vm_write_gva(vm->vm, a->vcpu, a->gva, a->from, a->len, &failed)
                    : vm_read_gva(vm->vm, a->vcpu, a->gva, a->to, a->len, &failed);
        lib_run(vm, ran);
        return gva_result(r, a->vcpu, failed, err);
}

int ramet_vm_read_gva(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, void *buf, size_t len)
{
        const struct gva_access a = {.vcpu = vcpu, .gva = gva, .to = buf, .len = len};
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = check_buffer(buf, len, &err);
                if (ret == 0)
                        ret = access_gva(vm, &a, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

int ramet_vm_write_gva(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, const void *buf,
                       size_t len)
{
        const struct gva_access a = {.vcpu = vcpu, .gva = gva, .from = buf, .len = len};
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = check_buffer(buf, len, &err);
                if (ret == 0)
                        ret = access_gva(vm, &a, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int translate(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, uint64_t *gpa,
                     struct err *err)
{
        uint64_t found;
        bool ran;
        int r;

        if (!gpa)
                return err_input(err, "gpa: NULL given, where to put one was expected");
        r = vm_check_vcpu(vm->vm, vcpu, err);
        if (r < 0)
                return r;
        ran = lib_run(vm, false);
        r = vm_translate(vm->vm, vcpu, gva, &found);
        lib_run(vm, ran);
        if (r == 0)
                *gpa = found;
        return gva_result(r, vcpu, gva, err);
}

int ramet_vm_translate(struct ramet_vm *vm, unsigned vcpu, uint64_t gva, uint64_t *gpa)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = translate(vm, vcpu, gva, gpa, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

/* --- pointers --- */

static int begin(struct ramet_vm *vm, struct err *err)
{
        vm_access_begin(vm->vm);
        vm->section = true; /* and stays inside */
        return 0;
}

int ramet_vm_begin(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, begin);
}

static int check_section(const struct ramet_vm *vm, struct err *err)
{
        return vm->section ? 0 : err_input(err, "this thread has not called ramet_vm_begin");
}

static int end(struct ramet_vm *vm, struct err *err)
{
        int r = check_section(vm, err);

        if (r < 0)
                return r;
        vm->section = false;
        vm_access_end(vm->vm);
        return 0;
}

int ramet_vm_end(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_SECTION, end);
}

static int span(struct ramet_vm *vm, uint64_t gpa, size_t len, bool write, void **pointer,
                struct err *err)
{
        int r = check_section(vm, err);

        if (r < 0)
                return r;
        if (!pointer)
                return err_input(err, "pointer: NULL given, where to put one was expected");
        if (!len)
                return err_input(err, "len: 0 given");
        return not_ram(vm_access_span(vm->vm, gpa, len, write, pointer), gpa, len, err);
}

int ramet_vm_span(struct ramet_vm *vm, uint64_t gpa, size_t len, bool write, void **pointer)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_SECTION, &err);

        if (ret == 0) {
                ret = span(vm, gpa, len, write, pointer, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

/* --- dirty pages --- */

static int dirty_start(struct ramet_vm *vm, struct err *err)
{
        return vm_dirty_start(vm->vm, err);
}

int ramet_vm_dirty_start(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, dirty_start);
}

static int dirty_stop(struct ramet_vm *vm, struct err *err)
{
        return vm_dirty_stop(vm->vm, err);
}

int ramet_vm_dirty_stop(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, dirty_stop);
}

/* src/vm wants room for all pages: a program that has less gets its part of ours. */
static int collect(struct ramet_vm *vm, uint64_t *bitmap, size_t words, uint64_t *count,
                   struct err *err)
{
        const size_t all = vm_dirty_words(vm->vm);
        int r;

        if (!bitmap && words)
                return err_input(err, "bitmap: NULL given, %zu words were expected", words);
        if (words >= all)
                return vm_dirty_collect(vm->vm, bitmap, count, err);
        if (!vm->bitmap)
                vm->bitmap = malloc(all * sizeof *vm->bitmap);
        if (!vm->bitmap)
                return err_host(err, ENOMEM, "no memory for a bitmap of %zu words", all);
        memset(vm->bitmap, 0, all * sizeof *vm->bitmap);
        r = vm_dirty_collect(vm->vm, vm->bitmap, count, err);
        for (size_t i = 0; r == 0 && i < words; i++)
                bitmap[i] |= vm->bitmap[i];
        return r;
}

int ramet_vm_dirty_collect(struct ramet_vm *vm, uint64_t *bitmap, size_t words, uint64_t *count)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = collect(vm, bitmap, words, count, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
