/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmocka tests that run in fresh clones of a guest. Include it after <cmocka.h>. libramet itself
 * does not need cmocka.
 *
 *      static void writes_are_forgotten(void **state)
 *      {
 *              struct ramet_vm *vm = *state;   a clone of its own, paused at the ready point
 *              ...
 *      }
 *
 *      int main(void)
 *      {
 *              const struct CMUnitTest tests[] = {ramet_unit_test(writes_are_forgotten)};
 *
 *              ...  ramet_boot_guest(ctx, &guest, &ramet_cmocka_booted);
 *              return cmocka_run_group_tests(tests, NULL, NULL);
 *      }
 */
#ifndef RAMET_CMOCKA_H
#define RAMET_CMOCKA_H

#include <ramet/harness.h>

/* What the tests of this file start from; the program boots and frees it. */
static struct ramet_booted *ramet_cmocka_booted;

static inline int ramet_cmocka_setup(void **state)
{
        struct ramet_vm *vm;

        if (ramet_booted_spawn(ramet_cmocka_booted, &vm) < 0) {
                print_error("%s\n", ramet_last_error(NULL));
                return -1;
        }
        *state = vm;
        return 0;
}

static inline int ramet_cmocka_teardown(void **state)
{
        ramet_vm_destroy((struct ramet_vm *)*state);
        return 0;
}

#define ramet_unit_test(fn)                                                                        \
        cmocka_unit_test_setup_teardown(fn, ramet_cmocka_setup, ramet_cmocka_teardown)

#endif
