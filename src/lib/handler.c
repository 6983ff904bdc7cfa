/* SPDX-License-Identifier: Apache-2.0 */
/* The program's own devices: src/vm/bus.c calls them, on the threads of vCPUs. */
#include "lib/lib.h"

#define HANDLER_MIN SIZED_TO(struct ramet_handler, write)

_Static_assert((int)RAMET_PIO == (int)DEVICE_PIO && (int)RAMET_MMIO == (int)DEVICE_MMIO, "spaces");
_Static_assert(RAMET_HANDLERS_MAX == VM_HANDLERS_MAX, "as many as there is room for");

static int handle(struct ramet_vm *vm, struct vm_handler *h, const struct ramet_handler *given,
                  struct err *err)
{
        struct ramet_handler functions;
        int r = sized_copy_in("handler", given, &functions, sizeof functions, HANDLER_MIN, err);

        if (r < 0)
                return r;
        h->read = functions.read;
        h->write = functions.write;
        return vm_handle(vm->vm, h, err);
}

int ramet_vm_handle(struct ramet_vm *vm, enum ramet_space space, uint64_t base, uint64_t length,
                    const struct ramet_handler *handler, void *data)
{
        struct vm_handler h = {
                .space = (enum device_space)space, .base = base, .length = length, .data = data};
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = handle(vm, &h, handler, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
