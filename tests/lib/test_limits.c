/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine may use, and what it has used. */
#include "api.h"
#include "cpu_guest.h"

static struct ramet_vm_stats stats_of(struct ramet_vm *vm)
{
        struct ramet_vm_stats stats = {.size = sizeof stats};

        api_ok(ramet_vm_stats(vm, &stats));
        return stats;
}

static void limit(struct ramet_vm *vm, struct ramet_limits limits)
{
        assert_int_equal(ramet_vm_set_limits(vm, &limits), 0);
}

static void expect_limit(struct ramet_vm *vm, const char *word)
{
        const struct ramet_vm_event e = api_until(vm, RAMET_VM_EXIT);

        assert_int_equal(e.exit.reason, RAMET_EXIT_LIMIT);
        if (!strstr(e.exit.text, word))
                fail_msg("\"%s\", expected \"%s\" in it", e.exit.text, word);
}

/* --- exits --- */

static void vm_set_limits(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, NULL);
        uint64_t before;

        CPU_PUT(vm, value, 100);
        cpu_do(vm, CPU_OUT);
        before = stats_of(vm).exits;
        limit(vm, (struct ramet_limits){.exits = 50});
        expect_limit(vm, "50 exits");
        assert_int_equal(stats_of(vm).exits, before + 51);
        api_fails(ramet_vm_set_limits(vm, NULL), -EINVAL, "limits");
        api_fails(ramet_vm_set_limits(NULL, &(struct ramet_limits){0}), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

/* A program that was made for a newer library asks for what this one cannot keep. */
static void a_limit_of_another_version_is_refused(void **state)
{
        const struct ramet_limits newer = {.reserved[4] = 1};
        struct ramet_spawn_options options = {.size = sizeof options, .limits = newer};
        struct ramet_vm_config config = api_config();
        struct ramet_template *tmpl = api_template(1);
        struct ramet_vm *vm = api_spawn(tmpl), *none;

        config.limits = newer;
        api_fails(ramet_vm_set_limits(vm, &newer), -EINVAL, "limits");
        api_fails(ramet_template_spawn(tmpl, &options, &none), -EINVAL, "limits");
        api_fails(ramet_vm_create(api_ctx, &config, &none), -EINVAL, "limits");
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* 100 writes, and the ring: as many as there may be. A reset counts anew, and so does setting. */
static void exits_are_counted_anew(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, NULL);
        struct ramet_template *tmpl;

        CPU_PUT(vm, value, 100);
        cpu_do(vm, CPU_OUT);
        api_ok(ramet_vm_freeze(vm, "t", &tmpl));
        limit(vm, (struct ramet_limits){.exits = 101});
        for (unsigned i = 0; i < 3; i++) {
                cpu_until_done(vm, CPU_OUT);
                api_ok(ramet_vm_reset(vm));
        }
        cpu_until_done(vm, CPU_OUT);
        expect_limit(vm, "101 exits");
        api_ok(ramet_vm_reset(vm));
        limit(vm, (struct ramet_limits){.exits = 100});
        expect_limit(vm, "100 exits");
        api_ok(ramet_vm_reset(vm));
        limit(vm, (struct ramet_limits){0});
        cpu_until_done(vm, CPU_OUT);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* --- time --- */

/* Long, since the short wait below must end before it on a busy host. */
#define TIME_MS 400u

static void time_that_it_runs(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, NULL);
        struct ramet_template *tmpl;
        struct ramet_vm_event e;
        uint64_t run;

        cpu_do(vm, CPU_SPIN);
        api_ok(ramet_vm_freeze(vm, "t", &tmpl));
        limit(vm, (struct ramet_limits){.run_ns = TIME_MS * RAMET_MILLISECOND});
        for (unsigned life = 0; life < 2; life++) {
                api_ok(ramet_vm_pause(vm)); /* which does not count */
                run = stats_of(vm).run_ns;
                assert_int_equal(ramet_vm_next(vm, (TIME_MS + 50) * RAMET_MILLISECOND, &e), 0);
                assert_int_equal(stats_of(vm).run_ns, run);
                assert_int_equal(ramet_vm_run_until(vm, 0, TIME_MS / 8 * RAMET_MILLISECOND, &e), 0);
                expect_limit(vm, "400.000 ms");
                assert_true(stats_of(vm).run_ns - (life ? 0 : run) >= TIME_MS * RAMET_MILLISECOND);
                api_ok(ramet_vm_reset(vm));
                assert_int_equal(stats_of(vm).run_ns, 0);
        }
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* --- memory --- */

static void pages(enum ramet_cow cow)
{
        struct ramet_vm_config config = cpu_config();
        struct ramet_spawn_options options = {.size = sizeof options, .limits.own_pages = 600};
        struct ramet_vm *vm, *clone = NULL;
        struct ramet_template *tmpl;

        config.cow = cow;
        if (ramet_vm_create(api_ctx, &config, &vm) == -ENOTSUP) {
                print_message("# SKIP %s\n", ramet_last_error(api_ctx));
                skip();
        }
        api_until(vm, RAMET_VM_DOORBELL);
        CPU_PUT(vm, value, 400);
        cpu_do(vm, CPU_DIRTY);
        api_ok(ramet_vm_freeze(vm, "t", &tmpl));
        ramet_vm_destroy(vm);
        api_ok(ramet_template_spawn(tmpl, &options, &clone));
        for (unsigned i = 0; i < 3; i++) {
                cpu_until_done(clone, CPU_DIRTY);
                api_ok(ramet_vm_reset(clone)); /* gives them back */
        }
        CPU_PUT(clone, value, 1000); /* again and again: somebody will look */
        cpu_do(clone, CPU_DIRTY);
        expect_limit(clone, "600 pages");
        if (cow == RAMET_COW_TRAP)
                assert_in_range(stats_of(clone).private_bytes / 4096, 600, 604);
        ramet_vm_destroy(clone);
        ramet_template_release(tmpl);
}

static void pages_of_its_own(void **state)
{
        pages(RAMET_COW_PRIVATE);
}

static void pages_of_its_own_with_trap(void **state)
{
        pages(RAMET_COW_TRAP);
}

/* --- statistics --- */

static void vm_stats(void **state)
{
        struct ramet_vm *vm = cpu_ready(1, NULL), *clone;
        struct ramet_vm_stats a = stats_of(vm), b = {.size = sizeof b};
        struct ramet_template *tmpl;

        assert_int_equal(a.size, sizeof a);
        assert_int_equal(a.freezes + a.resets, 0);
        CPU_PUT(vm, value, 100);
        cpu_do(vm, CPU_OUT);
        cpu_until_done(vm, CPU_OUT);
        assert_int_equal(ramet_vm_stats(vm, &b), 0);
        assert_int_equal(b.pio_exits, a.pio_exits + 100);
        assert_int_equal(b.mmio_exits, a.mmio_exits + 1);
        assert_int_equal(b.exits, a.exits + 101);
        assert_true(b.run_ns > a.run_ns);
        api_ok(ramet_vm_freeze(vm, "t", &tmpl));
        api_ok(ramet_vm_reset(vm));
        b = stats_of(vm);
        assert_int_equal(b.freezes, 1);
        assert_int_equal(b.resets, 1);
        assert_true(b.stops > a.stops);
        assert_true(b.last_pause_ns > 0 && b.last_reset_ns > 0);
        clone = api_spawn(tmpl);
        assert_int_equal(stats_of(clone).exits, 0);
        CPU_PUT(clone, value, 300);
        cpu_do(clone, CPU_DIRTY);
        a = stats_of(clone);
        cpu_until_done(clone, CPU_DIRTY);
        b = stats_of(clone);
        assert_in_range(b.private_bytes - a.private_bytes, 300 * 4096, 340 * 4096);
        assert_true(b.shared_bytes > 0);
        a.size = 8;
        api_fails(ramet_vm_stats(clone, &a), -EINVAL, "size is 8");
        api_fails(ramet_vm_stats(clone, NULL), -EINVAL, "stats");
        api_fails(ramet_vm_stats(NULL, &b), -EINVAL, "machine");
        ramet_vm_destroy(clone);
        ramet_vm_destroy(vm);
        ramet_template_release(tmpl);
}

/* Whatever is missing here, it ends, and each is a line. */
static void vm_missing(void **state)
{
        struct ramet_vm *vm = api_vm();
        const char *text = "before";
        unsigned at = 0, n = 0;
        int r;

        while ((r = ramet_vm_missing(vm, &at, &text)) == 1) {
                assert_true(++n < 100);
                assert_true(strlen(text) > 10 && !strchr(text, '\n') && strchr(text, ':'));
                text = "before";
        }
        assert_int_equal(r, 0);
        assert_string_equal(text, "before");
        assert_true(at > 0);
        at = 0;
        api_fails(ramet_vm_missing(vm, NULL, &text), -EINVAL, "at");
        api_fails(ramet_vm_missing(vm, &at, NULL), -EINVAL, "text");
        api_fails(ramet_vm_missing(NULL, &at, &text), -EINVAL, "machine");
        ramet_vm_destroy(vm);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_set_limits", vm_set_limits},
                {"ramet_vm_stats", vm_stats},
                {"ramet_vm_missing", vm_missing},
                cmocka_unit_test(a_limit_of_another_version_is_refused),
                cmocka_unit_test(exits_are_counted_anew),
                cmocka_unit_test(time_that_it_runs),
                cmocka_unit_test(pages_of_its_own),
                cmocka_unit_test(pages_of_its_own_with_trap),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_limits", tests, NULL, NULL);
}
