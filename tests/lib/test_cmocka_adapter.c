/* SPDX-License-Identifier: Apache-2.0 */
/* <ramet/cmocka.h>: each test function has a fresh clone of the guest, whatever others did. */
#include "api.h"

#include <ramet/cmocka.h>

#include "tests/guest/subject.h"

static uint64_t address(const char *name)
{
        uint64_t where = 0;

        api_ok(ramet_booted_symbol(ramet_cmocka_booted, name, &where, NULL));
        return where;
}

/* Is the first to write there; then lets the guest end. */
static void write_and_end(struct ramet_vm *vm)
{
        uint32_t visits = 99, order = SUBJECT_TRIPLE;
        struct ramet_vm_event e;

        api_ok(ramet_vm_read(vm, address("visits"), &visits, sizeof visits));
        assert_int_equal(visits, 0);
        api_ok(ramet_vm_write(vm, address("order"), &order, sizeof order));
        assert_int_equal(api_ok(ramet_vm_run_until(vm, RAMET_VM_EXIT, ENDLESS, &e)), 1);
        assert_int_equal(e.exit.reason, RAMET_EXIT_CRASH);
        api_ok(ramet_vm_read(vm, address("visits"), &visits, sizeof visits));
        assert_int_equal(visits, 1);
}

static void has_a_machine(void **state)
{
        write_and_end(*state);
}

static void has_another_one(void **state)
{
        write_and_end(*state);
}

static int boot(void **state)
{
        const struct ramet_guest guest = {
                .size = sizeof guest,
                .kernel = api_guest("subject.elf"),
                .memory_bytes = 16 << 20,
        };

        return ramet_boot_guest(api_ctx, &guest, &ramet_cmocka_booted) < 0 ? -1 : 0;
}

static int end(void **state)
{
        ramet_booted_free(ramet_cmocka_booted);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                ramet_unit_test(has_a_machine),
                ramet_unit_test(has_another_one),
        };
        int ret;

        if (!api_init())
                return 0;
        ret = cmocka_run_group_tests_name("lib_cmocka_adapter", tests, boot, end);
        ramet_ctx_destroy(api_ctx);
        return ret;
}
