/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a cmocka program, for test_stubs.py: with ONE_CASE=NAME it runs only the case of
 * that name, with ONE_CASE empty it prints the names of its cases and runs none.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef int run_group(const char *group, const struct CMUnitTest *tests, size_t n,
                      CMFixtureFunction setup, CMFixtureFunction teardown);

__attribute__((visibility("default"))) run_group _cmocka_run_group_tests;

int _cmocka_run_group_tests(const char *group, const struct CMUnitTest *tests, size_t n,
                            CMFixtureFunction setup, CMFixtureFunction teardown)
{
        run_group *real = (run_group *)dlsym(RTLD_NEXT, "_cmocka_run_group_tests");
        const char *name = getenv("ONE_CASE");

        if (!name)
                return real(group, tests, n, setup, teardown);
        for (size_t i = 0; i < n; i++)
                if (!*name)
                        puts(tests[i].name);
                else if (strcmp(name, tests[i].name) == 0)
                        return real(group, &tests[i], 1, setup, teardown);
        return *name ? 99 : 0;
}
