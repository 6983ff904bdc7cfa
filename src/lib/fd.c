/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A machine in a program that has an event loop of its own: the descriptor of the machine's loop is
 * one more in there.
 *
 *      poll: readable ---> ramet_vm_serve() ---> 1: ramet_vm_next(vm, 0, ...), as often as it likes
 *
 * It is level-triggered: readable while the loop has something to do, or an event waits to be
 * taken. Any call can change that, so whoever leaves the gate prepares the loop for being polled,
 * once somebody has asked for its descriptor.
 */
#include <errno.h>
#include <string.h>

#include "lib/lib.h"

void lib_poll_begin(struct ramet_vm *vm)
{
        if (!vm->polled)
                return;
        /* It fails only for want of the kernel's memory; then it shall be readable, and the next
         * one may do. */
        if (loop_poll_begin(vm->loop) < 0 || lib_has_event(vm))
                loop_wake(vm->loop);
}

static int descriptor(struct ramet_vm *vm, struct err *err)
{
        int r = loop_fd(vm->loop);

        if (r < 0)
                return err_host(err, -r, "descriptor: %s", strerror(-r));
        vm->polled = true;
        return r;
}

int ramet_vm_fd(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, descriptor);
}

static int serve(struct ramet_vm *vm, struct err *err)
{
        int r;

        lib_console_tell(vm, false);
        r = lib_serve(vm, 0, err);
        return r < 0 ? r : lib_has_event(vm);
}

int ramet_vm_serve(struct ramet_vm *vm)
{
        return lib_call(vm, LIB_ANY, serve);
}
