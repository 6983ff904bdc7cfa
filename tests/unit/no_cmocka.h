/* SPDX-License-Identifier: Apache-2.0 */
/* The assertions that the fakes use, for programs without cmocka (fuzz targets, benchmarks): what
 * fails, aborts. Include instead of cmocka.h. */
#ifndef RAMET_TESTS_NO_CMOCKA_H
#define RAMET_TESTS_NO_CMOCKA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define assert_true(x)                                                                             \
        do {                                                                                       \
                if (!(x)) {                                                                        \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
                        abort();                                                                   \
                }                                                                                  \
        } while (0)

#define assert_false(x)            assert_true(!(x))
#define assert_null(x)             assert_true(!(x))
#define assert_non_null(x)         assert_true((x) != NULL)
#define assert_int_equal(a, b)     assert_true((uint64_t)(a) == (uint64_t)(b))
#define assert_int_not_equal(a, b) assert_true((uint64_t)(a) != (uint64_t)(b))
#define assert_in_range(x, min, max)                                                               \
        assert_true((uint64_t)(x) - (uint64_t)(min) <= (uint64_t)(max) - (uint64_t)(min))
#define assert_string_equal(a, b)    assert_true(!strcmp((a), (b)))
#define assert_memory_equal(a, b, n) assert_true(!memcmp((a), (b), (n)))
#define print_error(...)             fprintf(stderr, __VA_ARGS__)
#define fail_msg(...)                                                                              \
        do {                                                                                       \
                print_error(__VA_ARGS__);                                                          \
                abort();                                                                           \
        } while (0)

#endif
