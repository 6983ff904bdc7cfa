/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where descriptors run out: each call is made with room for none more, for one, for two, until it
 * succeeds. Up to there it fails in words, keeps nothing open, and changes nothing.
 */
#include "api.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define ROOM_MAX 200
#define CLONES   2

static struct rlimit usual;

/* For @n descriptors more. */
static void leave_room(unsigned n)
{
        struct rlimit l = usual;

        for (l.rlim_cur = 3; n > 0 || fcntl((int)l.rlim_cur, F_GETFD) >= 0; l.rlim_cur++)
                if (fcntl((int)l.rlim_cur, F_GETFD) < 0)
                        n--;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
}

struct attempt {
        struct ramet_vm *vm;
        struct ramet_template *tmpl;
        struct ramet_vm *made[CLONES];
        struct ramet_template *frozen;
};

static int create(struct attempt *a)
{
        const struct ramet_vm_config config = api_config();

        return ramet_vm_create(api_ctx, &config, &a->made[0]);
}

static int spawn(struct attempt *a)
{
        return ramet_template_spawn(a->tmpl, NULL, &a->made[0]);
}

static int freeze(struct attempt *a)
{
        return ramet_vm_freeze(a->vm, "scarce", &a->frozen);
}

static int fork_it(struct attempt *a)
{
        return ramet_vm_fork(a->vm, CLONES, a->made);
}

/* @kept: what a failure may leave open: a machine that was frozen has a layer more. */
static void until_it_succeeds(int (*call)(struct attempt *a), unsigned kept)
{
        struct attempt a = {.tmpl = api_template(1)};
        unsigned room = 0;
        int ret = -1;

        a.vm = api_spawn(a.tmpl);
        api_until(a.vm, RAMET_VM_DOORBELL);
        for (; ret < 0 && room < ROOM_MAX; room++) {
                const unsigned before = api_descriptors();

                leave_room(room);
                ret = call(&a);
                assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
                if (ret == 0)
                        break;
                assert_int_equal(ret, -EMFILE);
                assert_true(ramet_last_error(api_ctx)[0]);
                assert_false(ramet_last_error_is_input(api_ctx));
                assert_null(a.made[0]);
                assert_null(a.made[1]);
                assert_null(a.frozen);
                assert_true(api_descriptors() <= before + kept);
        }
        api_ok(ret);
        assert_true(room > 0);
        /* and nothing has become of the one that it was about, or of the new ones */
        api_until(a.vm, RAMET_VM_DOORBELL);
        api_do(a.vm, SERVANT_FILL, 1, SERVANT_AREA, 1);
        api_ok(ramet_vm_reset(a.vm));
        api_until(a.vm, RAMET_VM_DOORBELL);
        for (unsigned i = 0; i < CLONES && a.made[i]; i++)
                api_until(a.made[i], RAMET_VM_DOORBELL);
        for (unsigned i = 0; i < CLONES; i++)
                ramet_vm_destroy(a.made[i]);
        ramet_template_release(a.frozen);
        ramet_template_release(a.tmpl);
        ramet_vm_destroy(a.vm);
}

static void to_create(void **state)
{
        until_it_succeeds(create, 0);
}

static void to_spawn(void **state)
{
        until_it_succeeds(spawn, 0);
}

static void to_freeze(void **state)
{
        until_it_succeeds(freeze, 2);
}

static void to_fork(void **state)
{
        until_it_succeeds(fork_it, 2);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(to_create),
                cmocka_unit_test(to_spawn),
                cmocka_unit_test(to_freeze),
                cmocka_unit_test(to_fork),
        };

        if (api_init() <= 0 || getrlimit(RLIMIT_NOFILE, &usual))
                return 0;
        return cmocka_run_group_tests_name("lib_scarce", tests, NULL, NULL);
}
