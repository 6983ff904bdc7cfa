/* SPDX-License-Identifier: Apache-2.0 */
/* Templates: freeze, spawn, reset, fork. */
#include "api.h"

/* What the guest read at the doorbell after its last ring. */
static void assert_number(struct ramet_vm *vm, uint32_t result, uint32_t count)
{
        struct servant_mail mail;

        api_get_mail(vm, 0, &mail);
        assert_int_equal(mail.result, result);
        assert_int_equal(mail.count, count);
}

static void vm_freeze(void **state)
{
        struct ramet_vm *vm = api_ready(1), *clone;
        char name[RAMET_NAME_MAX + 2];
        struct ramet_template *tmpl = NULL, *none = NULL;
        struct ramet_vm_event e;

        api_do(vm, SERVANT_FILL, 1, SERVANT_AREA, 4);
        assert_int_equal(ramet_vm_freeze(vm, "filled", &tmpl), 0);
        assert_non_null(tmpl);
        assert_string_equal(ramet_template_name(tmpl), "filled");
        assert_string_equal(ramet_template_name(NULL), "");
        /* the ring is still held; the machine runs on, and the template stays as it was */
        assert_int_equal(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e), 0);
        api_do(vm, SERVANT_FILL, 2, SERVANT_AREA, 4);
        clone = api_spawn(tmpl);
        assert_true(api_word(clone, SERVANT_AREA) == 1);
        assert_true(api_word(vm, SERVANT_AREA) == 2);
        memset(name, 'x', sizeof name);
        name[RAMET_NAME_MAX + 1] = '\0';
        api_fails(ramet_vm_freeze(vm, name, &none), -EINVAL, "63");
        api_fails(ramet_vm_freeze(vm, NULL, &none), -EINVAL, "name");
        api_fails(ramet_vm_freeze(vm, "", NULL), -EINVAL, "tmpl");
        api_fails(ramet_vm_freeze(NULL, "", &none), -EINVAL, "machine");
        assert_null(none);
        api_order(vm, 0, SERVANT_POWEROFF, 0, 0, 0);
        api_until(vm, RAMET_VM_EXIT);
        api_fails(ramet_vm_freeze(vm, "", &none), -ESRCH, "ended");
        ramet_vm_destroy(clone);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

static void template_info(void **state)
{
        struct ramet_vm *vm = api_ready(2);
        struct ramet_template_info info = {.size = sizeof info};
        struct ramet_template *tmpl[2];
        struct {
                struct ramet_template_info info;
                uint64_t more;
        } longer;

        api_ok(ramet_vm_freeze(vm, "first", &tmpl[0]));
        api_do(vm, SERVANT_FILL, 2, SERVANT_AREA, 100);
        api_ok(ramet_vm_freeze(vm, "second", &tmpl[1]));
        assert_int_equal(ramet_template_info(tmpl[0], &info), 0);
        assert_int_equal(info.size, sizeof info);
        assert_int_equal(info.memory_bytes, 16 << 20);
        assert_int_equal(info.vcpus, 2);
        assert_int_equal(info.layers, 1);
        assert_int_equal(info.generation, 1);
        assert_int_equal(info.copied_bytes, 0);
        assert_true(info.pause_ns > 0);
        api_ok(ramet_template_info(tmpl[1], &info));
        assert_int_equal(info.layers, 2);
        assert_int_equal(info.generation, 2);
        assert_true(info.copied_bytes >= 100 * 4096);
        info.size = 8;
        api_fails(ramet_template_info(tmpl[0], &info), -EINVAL, "size is 8");
        memset(&longer, 0xff, sizeof longer); /* of a program that is newer than the library */
        longer.info.size = sizeof longer;
        api_ok(ramet_template_info(tmpl[0], &longer.info));
        assert_int_equal(longer.info.size, sizeof longer);
        assert_int_equal(longer.info.vcpus, 2);
        assert_int_equal(longer.more, 0);
        api_fails(ramet_template_info(tmpl[0], NULL), -EINVAL, "info");
        info.size = sizeof info;
        api_fails(ramet_template_info(NULL, &info), -EINVAL, "template");
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl[0]);
        ramet_template_release(tmpl[1]);
}

static void template_ref(void **state)
{
        const unsigned before = api_descriptors();
        struct ramet_template *tmpl = api_template(1);
        struct ramet_vm *clone;

        assert_ptr_equal(ramet_template_ref(tmpl), tmpl);
        assert_null(ramet_template_ref(NULL));
        ramet_template_release(tmpl);
        assert_true(api_descriptors() > before);
        clone = api_spawn(tmpl); /* it is still there */
        ramet_template_release(tmpl);
        ramet_template_release(NULL);
        api_do(clone, SERVANT_FILL, 3, SERVANT_AREA, 1); /* and the clone holds what it needs */
        api_ok(ramet_vm_reset(clone));
        api_until(clone, RAMET_VM_DOORBELL);
        ramet_vm_destroy(clone);
        assert_int_equal(api_descriptors(), before);
}

static void template_spawn(void **state)
{
        struct ramet_template *tmpl = api_template(1);
        struct ramet_spawn_options o = {.size = sizeof o, .index = 3, .count = 4};
        struct ramet_vm *clone[2] = {0};
        struct ramet_vm_event e;

        assert_int_equal(ramet_template_spawn(tmpl, NULL, &clone[0]), 0);
        assert_int_equal(ramet_template_spawn(tmpl, &o, &clone[1]), 0);
        assert_int_equal(ramet_vm_next(clone[0], 20 * RAMET_MILLISECOND, &e), 0);
        for (unsigned i = 0; i < 2; i++) {
                e = api_until(clone[i], RAMET_VM_DOORBELL);
                assert_int_equal(e.doorbell.value, 2);
        }
        assert_number(clone[0], 1, 1);
        assert_number(clone[1], 3, 4);
        api_do(clone[0], SERVANT_FILL, 5, SERVANT_AREA, 1);
        assert_true(api_word(clone[1], SERVANT_AREA) == 0);
        ramet_vm_destroy(clone[0]);
        ramet_vm_destroy(clone[1]);
        o.index = 5;
        api_fails(ramet_template_spawn(tmpl, &o, &clone[0]), -EINVAL, "index: 5");
        o.count = RAMET_CLONES_MAX + 1;
        api_fails(ramet_template_spawn(tmpl, &o, &clone[0]), -EINVAL, "count: 10001");
        o.size = 3;
        api_fails(ramet_template_spawn(tmpl, &o, &clone[0]), -EINVAL, "size is 3");
        api_fails(ramet_template_spawn(tmpl, NULL, NULL), -EINVAL, "clone");
        api_fails(ramet_template_spawn(NULL, NULL, &clone[0]), -EINVAL, "template");
        ramet_template_release(tmpl);
}

static void vm_reset(void **state)
{
        struct ramet_template *tmpl = api_template(1);
        struct ramet_vm *clone = api_spawn(tmpl), *root = api_vm();
        struct ramet_vm_event e;

        api_fails(ramet_vm_reset(root), -EINVAL, "template");
        api_fails(ramet_vm_reset(NULL), -EINVAL, "machine");
        api_until(root, RAMET_VM_DOORBELL); /* nothing has changed */
        ramet_vm_destroy(root);
        for (unsigned i = 0; i < 3; i++) {
                e = api_until(clone, RAMET_VM_DOORBELL);
                assert_int_equal(e.doorbell.value, 2);
                assert_number(clone, 1, 1);
                api_do(clone, SERVANT_FILL, 4, SERVANT_AREA, 64);
                assert_true(api_word(clone, SERVANT_AREA + 63 * 4096) == 4);
                assert_int_equal(ramet_vm_reset(clone), 0);
                assert_true(api_word(clone, SERVANT_AREA) == 0);
                assert_true(api_word(clone, SERVANT_AREA + 63 * 4096) == 0);
                /* paused, and nothing is left of its events */
                assert_int_equal(ramet_vm_next(clone, 20 * RAMET_MILLISECOND, &e), 0);
        }
        /* one that has ended lives again; and one whose events nobody took */
        api_until(clone, RAMET_VM_DOORBELL);
        api_order(clone, 0, SERVANT_POWEROFF, 0, 0, 0);
        api_until(clone, RAMET_VM_EXIT);
        api_ok(ramet_vm_reset(clone));
        api_until(clone, RAMET_VM_DOORBELL);
        api_order(clone, 0, SERVANT_TRIPLE, 0, 0, 0);
        api_ok(ramet_vm_continue(clone));
        assert_int_equal(ramet_vm_next(clone, ENDLESS, &e), 1);
        api_ok(ramet_vm_reset(clone));
        assert_int_equal(ramet_vm_next(clone, 0, &e), 0);
        e = api_until(clone, RAMET_VM_DOORBELL);
        assert_int_equal(e.doorbell.value, 2);
        ramet_vm_destroy(clone);
        ramet_template_release(tmpl);
}

static void a_root_goes_back_to_its_first_freeze(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        struct ramet_template *tmpl[2];

        api_do(vm, SERVANT_FILL, 1, SERVANT_AREA, 1);
        api_ok(ramet_vm_freeze(vm, "1", &tmpl[0]));
        api_do(vm, SERVANT_FILL, 2, SERVANT_AREA, 1);
        api_ok(ramet_vm_freeze(vm, "2", &tmpl[1]));
        ramet_template_release(tmpl[0]);
        ramet_template_release(tmpl[1]);
        api_ok(ramet_vm_reset(vm));
        assert_true(api_word(vm, SERVANT_AREA) == 1);
        api_until(vm, RAMET_VM_DOORBELL);
        ramet_vm_destroy(vm);
}

static void vm_fork(void **state)
{
        struct ramet_vm *vm = api_ready(1), *clones[3] = {0};

        api_do(vm, SERVANT_FILL, 1, SERVANT_AREA, 1);
        assert_int_equal(ramet_vm_fork(vm, 3, clones), 0);
        for (unsigned i = 0; i < 3; i++) {
                assert_non_null(clones[i]);
                api_until(clones[i], RAMET_VM_DOORBELL);
                assert_number(clones[i], i + 1, 3);
                assert_true(api_word(clones[i], SERVANT_AREA) == 1);
        }
        api_until(vm, RAMET_VM_DOORBELL); /* its ring was answered by the fork */
        assert_number(vm, 0, 3);
        api_do(vm, SERVANT_FILL, 2, SERVANT_AREA, 1);
        assert_number(vm, 0, 0);
        assert_true(api_word(clones[1], SERVANT_AREA) == 1);
        for (unsigned i = 0; i < 3; i++)
                ramet_vm_destroy(clones[i]);
        api_fails(ramet_vm_fork(vm, 0, clones), -EINVAL, "count: 0");
        api_fails(ramet_vm_fork(vm, RAMET_CLONES_MAX + 1, clones), -EINVAL, "count");
        api_fails(ramet_vm_fork(vm, 1, NULL), -EINVAL, "clones");
        api_fails(ramet_vm_fork(NULL, 1, clones), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

static void a_tree(void **state)
{
        struct ramet_vm *a = api_ready(1), *b, *c;

        api_do(a, SERVANT_FILL, 1, SERVANT_AREA, 1);
        api_ok(ramet_vm_fork(a, 1, &b));
        api_until(b, RAMET_VM_DOORBELL);
        api_do(b, SERVANT_FILL, 2, SERVANT_AREA + 4096, 1);
        api_ok(ramet_vm_fork(b, 1, &c));
        ramet_vm_destroy(a);
        ramet_vm_destroy(b);
        api_until(c, RAMET_VM_DOORBELL);
        assert_true(api_word(c, SERVANT_AREA) == 1);
        assert_true(api_word(c, SERVANT_AREA + 4096) == 2);
        ramet_vm_destroy(c);
}

/* Of a machine of each engine: a clone's writes, a reset, and a clone of a clone. */
static void each_engine(void **state)
{
        for (enum ramet_cow cow = RAMET_COW_PRIVATE; cow <= RAMET_COW_ROM; cow++) {
                struct ramet_vm_config config = api_config();
                struct ramet_vm *vm = NULL, *clone, *child;
                struct ramet_template *tmpl;
                int ret;

                config.cow = cow;
                ret = ramet_vm_create(api_ctx, &config, &vm);
                if (ret == -ENOTSUP) {
                        print_message("# engine %d: %s\n", cow, ramet_last_error(api_ctx));
                        assert_true(ramet_last_error(api_ctx)[0]);
                        continue;
                }
                api_ok(ret);
                api_until(vm, RAMET_VM_DOORBELL);
                api_do(vm, SERVANT_FILL, 1, SERVANT_AREA, 4);
                api_ok(ramet_vm_freeze(vm, "engine", &tmpl));
                api_do(vm, SERVANT_FILL, 2, SERVANT_AREA, 4);
                clone = api_spawn(tmpl);
                ramet_template_release(tmpl);
                for (unsigned i = 0; i < 3; i++) {
                        assert_true(api_word(clone, SERVANT_AREA) == 1);
                        api_until(clone, RAMET_VM_DOORBELL);
                        api_do(clone, SERVANT_FILL, 3 + i, SERVANT_AREA, 4);
                        assert_true(api_word(clone, SERVANT_AREA + 3 * 4096) == 3 + i);
                        api_ok(ramet_vm_reset(clone));
                }
                api_until(clone, RAMET_VM_DOORBELL);
                api_do(clone, SERVANT_FILL, 9, SERVANT_AREA, 2);
                api_ok(ramet_vm_fork(clone, 1, &child));
                api_until(child, RAMET_VM_DOORBELL);
                assert_true(api_word(child, SERVANT_AREA + 4096) == 9);
                assert_true(api_word(child, SERVANT_AREA + 2 * 4096) == 1);
                assert_true(api_word(vm, SERVANT_AREA) == 2);
                ramet_vm_destroy(child);
                ramet_vm_destroy(clone);
                ramet_vm_destroy(vm);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_freeze", vm_freeze},
                {"ramet_template_name", vm_freeze},
                {"ramet_template_info", template_info},
                {"ramet_template_ref", template_ref},
                {"ramet_template_release", template_ref},
                {"ramet_template_spawn", template_spawn},
                {"ramet_vm_reset", vm_reset},
                {"ramet_vm_fork", vm_fork},
                cmocka_unit_test(a_root_goes_back_to_its_first_freeze),
                cmocka_unit_test(a_tree),
                cmocka_unit_test(each_engine),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_template", tests, NULL, NULL);
}
