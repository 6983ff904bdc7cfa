/* SPDX-License-Identifier: Apache-2.0 */
/* The console of a machine in the program. */
#include "api.h"

#include <time.h>

static uint64_t now_ns(void)
{
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* All that is there, as a string. */
static const char *output(struct ramet_vm *vm)
{
        static char text[8192];
        size_t at = 0;
        int n;

        while ((n = api_ok(ramet_vm_console_read(vm, text + at, sizeof text - 1 - at))) > 0)
                at += (size_t)n;
        text[at] = '\0';
        return text;
}

static void order_print(struct ramet_vm *vm, const char *text)
{
        struct servant_mail mail;

        api_order(vm, 0, SERVANT_PRINT, 0, 0, 0);
        api_get_mail(vm, 0, &mail);
        strcpy(mail.text, text);
        api_put_mail(vm, 0, &mail);
}

static void print(struct ramet_vm *vm, const char *text)
{
        order_print(vm, text);
        api_until(vm, RAMET_VM_DOORBELL);
}

/* It rings next, and there is no match before that. */
static void expect_no_match(struct ramet_vm *vm)
{
        struct ramet_vm_event e;

        assert_int_equal(
                api_ok(ramet_vm_run_until(vm, RAMET_VM_DOORBELL | RAMET_VM_MATCH, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
}

static struct ramet_vm *quiet(void)
{
        struct ramet_vm *vm = api_ready(1);

        output(vm);
        return vm;
}

/* What was printed comes once, in pieces as they are asked for. */
static void console_read(void **state)
{
        struct ramet_vm *vm = api_ready(1);
        char piece[4] = "---";

        assert_string_equal(output(vm), "servant: ready\n");
        assert_int_equal(ramet_vm_console_read(vm, piece, 3), 0);
        assert_string_equal(piece, "---");
        print(vm, "abcdefgh");
        assert_int_equal(ramet_vm_console_read(vm, piece, 3), 3);
        assert_string_equal(piece, "abc");
        assert_int_equal(ramet_vm_console_read(vm, piece, 0), 0);
        assert_int_equal(ramet_vm_console_read(vm, NULL, 0), 0);
        assert_string_equal(output(vm), "defgh");
        api_fails(ramet_vm_console_read(vm, NULL, 1), -EINVAL, "buf");
        ramet_vm_destroy(vm);
}

/* More than fits: the newest is kept. */
static void oldest_output_goes(void **state)
{
        struct ramet_vm_config config = api_config();
        struct ramet_vm *vm;

        config.console_bytes = 10;
        vm = api_vm_of(&config);
        api_until(vm, RAMET_VM_DOORBELL);
        assert_string_equal(output(vm), "nt: ready\n");
        print(vm, "0123456789");
        print(vm, "abc");
        assert_string_equal(output(vm), "3456789abc");
        print(vm, "0123456789abcdefghij");
        assert_string_equal(output(vm), "abcdefghij");
        ramet_vm_destroy(vm);
}

/* What is typed reaches the guest, which prints it. */
static void console_write(void **state)
{
        struct ramet_vm *vm = quiet();

        assert_int_equal(ramet_vm_console_write(vm, "hello\n", 6), 6);
        assert_int_equal(ramet_vm_console_write(vm, NULL, 0), 0);
        api_do(vm, SERVANT_ECHO, 0, 0, 0);
        assert_string_equal(output(vm), "hello\n");
        api_fails(ramet_vm_console_write(vm, NULL, 1), -EINVAL, "buf");
        ramet_vm_destroy(vm);
}

/* No more than 4096 bytes wait; all that were taken arrive, in their order, as the guest reads. */
static void input_waits(void **state)
{
        struct ramet_vm *vm = quiet();
        char text[4200];
        int n, total = 0;

        for (size_t i = 0; i < sizeof text; i++)
                text[i] = (char)('a' + i % 23);
        while ((n = api_ok(ramet_vm_console_write(vm, text + total, sizeof text - 200))) > 0)
                total += n;
        assert_in_range(total, 4096, sizeof text - 1); /* some are in the device's FIFO */
        text[total - 1] = '\n';
        /* the last one cannot be taken back: read them all, and then a newline */
        api_order(vm, 0, SERVANT_ECHO, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        for (uint64_t end = now_ns() + ENDLESS; (n = ramet_vm_console_write(vm, "\n", 1)) == 0;) {
                struct ramet_vm_event e;

                api_ok(ramet_vm_next(vm, RAMET_MILLISECOND, &e));
                assert_true(now_ns() < end);
        }
        assert_int_equal(n, 1);
        api_until(vm, RAMET_VM_DOORBELL);
        text[total - 1] = (char)('a' + (total - 1) % 23);
        text[total] = '\n';
        text[total + 1] = '\0';
        assert_string_equal(output(vm), text);
        ramet_vm_destroy(vm);
}

/* Each time, not only once; with the vCPU held that printed the last byte. */
static void console_watch(void **state)
{
        struct ramet_vm *vm = quiet();

        api_ok(ramet_vm_console_watch(vm, "aba"));
        order_print(vm, "xababa..");
        api_until(vm, RAMET_VM_MATCH);
        assert_string_equal(output(vm), "xaba");
        api_until(vm, RAMET_VM_MATCH);
        assert_string_equal(output(vm), "ba");
        api_until(vm, RAMET_VM_DOORBELL);
        assert_string_equal(output(vm), "..");
        print(vm, "ab");
        order_print(vm, "a");
        api_until(vm, RAMET_VM_MATCH);
        api_until(vm, RAMET_VM_DOORBELL);
        api_ok(ramet_vm_console_watch(vm, NULL));
        order_print(vm, "aba");
        expect_no_match(vm);
        ramet_vm_destroy(vm);
}

static void texts_to_watch_for(void **state)
{
        struct ramet_vm *vm = quiet();
        char text[257];

        memset(text, 'x', 256);
        text[256] = '\0';
        api_fails(ramet_vm_console_watch(vm, ""), -EINVAL, "text");
        api_fails(ramet_vm_console_watch(vm, text), -EINVAL, "text");
        api_ok(ramet_vm_console_watch(vm, text + 1));
        order_print(vm, text + 1);
        api_until(vm, RAMET_VM_MATCH);
        ramet_vm_destroy(vm);
}

/* Once until it was read: at the end of a line at once, else soon. */
static void output_is_an_event(void **state)
{
        struct ramet_vm *vm = quiet();
        struct ramet_vm_event e;

        assert_int_equal(api_ok(ramet_vm_next(vm, 0, &e)), 0);
        order_print(vm, "one\ntwo\nthree");
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_CONSOLE);
        assert_true(e.t_ns <= now_ns() && e.t_ns > now_ns() - ENDLESS);
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL); /* and not CONSOLE again */
        assert_string_equal(output(vm), "one\ntwo\nthree");

        order_print(vm, "prompt> ");
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_CONSOLE); /* before the ring, which came after it */
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_DOORBELL);
        ramet_vm_destroy(vm);
}

/* A prompt of a guest that does nothing more. */
static void prompt_is_told(void **state)
{
        struct ramet_vm *vm = quiet();
        struct ramet_vm_event e;

        api_ok(ramet_vm_console_write(vm, "x", 1)); /* echoed; then it waits for a newline */
        api_order(vm, 0, SERVANT_ECHO, 0, 0, 0);
        api_ok(ramet_vm_continue(vm));
        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_CONSOLE);
        assert_string_equal(output(vm), "x");
        assert_int_equal(api_ok(ramet_vm_next(vm, 20 * RAMET_MILLISECOND, &e)), 0);
        ramet_vm_destroy(vm);
}

/* An event that nobody wanted comes again when somebody does; one whose output has been read does
 * not come. */
static void output_that_was_not_read(void **state)
{
        struct ramet_vm *vm = quiet();
        struct ramet_vm_event e;

        print(vm, "line\n");
        assert_int_equal(api_ok(ramet_vm_run_until(vm, RAMET_VM_CONSOLE, ENDLESS, &e)), 1);
        assert_int_equal(e.type, RAMET_VM_CONSOLE);
        assert_string_equal(output(vm), "line\n");
        ramet_vm_destroy(vm);

        vm = quiet();
        order_print(vm, "line\n");
        api_ok(ramet_vm_continue(vm));
        while (strcmp(output(vm), "") == 0)
                api_ok(ramet_vm_serve(vm));
        api_ok(ramet_vm_pause(vm));
        while (api_ok(ramet_vm_serve(vm)) == 1 && api_ok(ramet_vm_next(vm, 0, &e)) == 1)
                if (e.type == RAMET_VM_CONSOLE)
                        assert_string_not_equal(output(vm), "");
        ramet_vm_destroy(vm);
}

/* A line is told as one, however many bytes (and exits) it is. */
static void few_events_for_many_bytes(void **state)
{
        struct ramet_vm *vm = quiet();
        struct ramet_vm_event e;
        unsigned events = 0;
        char line[201];

        memset(line, '.', 199);
        line[199] = '\n';
        line[200] = '\0';
        for (int i = 0; i < 5; i++) {
                order_print(vm, line);
                api_ok(ramet_vm_continue(vm));
                do {
                        assert_int_equal(api_ok(ramet_vm_next(vm, ENDLESS, &e)), 1);
                        if (e.type == RAMET_VM_CONSOLE) {
                                output(vm);
                                events++;
                        }
                } while (e.type != RAMET_VM_DOORBELL);
        }
        assert_in_range(events, 5, 100); /* of 1000 bytes; a busy host makes more than one a line */
        ramet_vm_destroy(vm);
}

/* A reset drops what was printed and typed; a clone begins with neither. */
static void lives_do_not_share_a_console(void **state)
{
        struct ramet_template *tmpl = NULL;
        struct ramet_vm *vm = api_ready(1), *clone;

        api_ok(ramet_vm_freeze(vm, "", &tmpl));
        assert_int_equal(api_ok(ramet_vm_console_write(vm, "old", 3)), 3);
        clone = api_spawn(tmpl);
        assert_string_equal(output(clone), "");
        assert_string_equal(output(vm), "servant: ready\n");
        print(vm, "old\n");
        api_ok(ramet_vm_reset(vm));
        assert_string_equal(output(vm), "");
        api_ok(ramet_vm_console_write(vm, "new\n", 4));
        api_ok(ramet_vm_console_write(clone, "clone\n", 6));
        api_until(vm, RAMET_VM_DOORBELL);
        api_do(vm, SERVANT_ECHO, 0, 0, 0);
        assert_string_equal(output(vm), "new\n");
        api_do(clone, SERVANT_ECHO, 0, 0, 0);
        assert_string_equal(output(clone), "clone\n");
        api_ok(ramet_vm_console_watch(vm, "xy"));
        print(vm, "x"); /* half of it; the other half in another life */
        api_ok(ramet_vm_reset(vm));
        order_print(vm, "y");
        expect_no_match(vm);
        ramet_vm_destroy(vm);
        ramet_vm_destroy(clone);
        ramet_template_release(tmpl);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                {"ramet_vm_console_read", console_read},
                {"ramet_vm_console_write", console_write},
                {"ramet_vm_console_watch", console_watch},
                cmocka_unit_test(oldest_output_goes),
                cmocka_unit_test(input_waits),
                cmocka_unit_test(texts_to_watch_for),
                cmocka_unit_test(output_is_an_event),
                cmocka_unit_test(prompt_is_told),
                cmocka_unit_test(output_that_was_not_read),
                cmocka_unit_test(few_events_for_many_bytes),
                cmocka_unit_test(lives_do_not_share_a_console),
        };

        if (api_init() <= 0)
                return 0;
        return cmocka_run_group_tests_name("lib_console", tests, NULL, NULL);
}
