/* SPDX-License-Identifier: Apache-2.0 */
/* Watching the console's output for a text: found once, by the thread that wrote its last byte, and
 * at that byte. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/chardev.h"

#define SIZE 65536 /* of the output buffer */

static struct loop *loop;

static int setup(void **state)
{
        return loop_create(true, &loop);
}

static int teardown(void **state)
{
        loop_destroy(loop);
        return 0;
}

static struct chardev *to_pipe(int *end)
{
        struct chardev *cd;
        int p[2];

        assert_int_equal(pipe2(p, O_CLOEXEC | O_NONBLOCK), 0);
        assert_int_equal(chardev_create(loop, -1, p[1], &cd), 0);
        *end = p[0];
        return cd;
}

struct hits {
        struct chardev *cd;
        int calls;
        pthread_t thread;
        size_t space;
};

static void on_hit(void *data)
{
        struct hits *h = data;

        h->calls++;
        h->thread = pthread_self();
        h->space = chardev_space(h->cd); /* the lock is free */
}

static void a_text_is_found_once(void **state)
{
        char text[257];
        int end;
        struct chardev *cd = to_pipe(&end);
        struct hits h = {.cd = cd};

        assert_int_equal(chardev_watch_output(cd, "login:", CHARDEV_ONCE, on_hit, &h), 0);
        assert_int_equal(chardev_write(cd, "lologin", 7), 7);
        assert_int_equal(h.calls, 0);
        assert_int_equal(chardev_write(cd, ": and login:", 12), 12);
        assert_int_equal(h.calls, 1);
        assert_true(pthread_equal(h.thread, pthread_self()));
        /* the call came after "lologin:" had been taken, and before the rest */
        assert_int_equal(h.space, SIZE - 8);
        assert_int_equal(chardev_space(cd), SIZE - 19);

        /* overlaps with itself */
        h.calls = 0;
        assert_int_equal(chardev_watch_output(cd, "aabaaab", CHARDEV_ONCE, on_hit, &h), 0);
        for (const char *p = "aabaabaaa"; *p; p++)
                chardev_write(cd, p, 1);
        assert_int_equal(h.calls, 0);
        chardev_write(cd, "b", 1);
        assert_int_equal(h.calls, 1);

        assert_int_equal(chardev_watch_output(cd, "x", CHARDEV_ONCE, on_hit, &h), 0);
        assert_int_equal(chardev_watch_output(cd, NULL, CHARDEV_ONCE, NULL, NULL), 0);
        chardev_write(cd, "x", 1);
        assert_int_equal(chardev_watch_output(cd, "", CHARDEV_ONCE, on_hit, &h), 0);
        chardev_write(cd, "x", 1);
        assert_int_equal(h.calls, 1);

        memset(text, 'z', 256);
        text[256] = 0;
        assert_int_equal(chardev_watch_output(cd, text, CHARDEV_ONCE, on_hit, &h), -EINVAL);
        assert_int_equal(chardev_watch_output(cd, text + 1, CHARDEV_ONCE, on_hit, &h), 0);
        chardev_write(cd, text, 254);
        assert_int_equal(h.calls, 1);
        chardev_write(cd, text, 10);
        assert_int_equal(h.calls, 2);
        chardev_destroy(cd, 0);
        close(end);
}

static void bytes_that_were_not_taken_do_not_count(void **state)
{
        static char buf[SIZE];
        int end;
        struct chardev *cd = to_pipe(&end);
        struct hits h = {.cd = cd};

        assert_int_equal(chardev_write(cd, buf, SIZE - 1), SIZE - 1);
        assert_int_equal(chardev_watch_output(cd, "ab", CHARDEV_ONCE, on_hit, &h), 0);
        assert_int_equal(chardev_write(cd, "ab", 2), 1);
        assert_int_equal(h.calls, 0);
        assert_int_equal(loop_step(loop, 1000000000), 0);
        assert_int_equal(chardev_write(cd, "b", 1), 1);
        assert_int_equal(h.calls, 1);
        chardev_destroy(cd, 0);
        close(end);
}

/* Against the plain search, on a small alphabet where nearly everything nearly matches. */
static void matches_are_those_of_strstr(void **state)
{
        unsigned seed = 12345;
        struct chardev *cd;

        assert_int_equal(chardev_create(loop, -1, -1, &cd), 0);
        for (int round = 0; round < 20000; round++) {
                struct hits h = {.cd = cd};
                char text[8] = {0}, stream[64] = {0};
                size_t len = 1 + (seed >> 16) % 7, at = 0;
                const char *found;

                for (size_t i = 0; i < len; i++)
                        text[i] = (char)('a' + ((seed = seed * 1103515245 + 12345) >> 16) % 2);
                for (size_t i = 0; i < sizeof stream - 1; i++)
                        stream[i] = (char)('a' + ((seed = seed * 1103515245 + 12345) >> 16) % 2);
                assert_int_equal(chardev_watch_output(cd, text, CHARDEV_ONCE, on_hit, &h), 0);
                found = strstr(stream, text);
                while (at < sizeof stream - 1 && !h.calls)
                        at += chardev_write(cd, stream + at, 1);
                assert_int_equal(h.calls, found != NULL);
                if (found)
                        assert_int_equal(at, found - stream + (ptrdiff_t)len);
        }
        chardev_destroy(cd, 0);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(a_text_is_found_once),
                CASE(bytes_that_were_not_taken_do_not_count),
                CASE(matches_are_those_of_strstr),
        };

        return cmocka_run_group_tests_name("chardev_watch", tests, NULL, NULL);
}
