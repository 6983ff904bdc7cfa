/* SPDX-License-Identifier: Apache-2.0 */
/* The command line and the configuration file: defaults, who wins, and what is refused how. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "cli/options.h"

static struct options o;
static struct err err;

static int read_line(enum command_bit command, char *const *words)
{
        static char *argv[16] = {"ramet"};
        int argc = 1;

        for (; words[argc - 1]; argc++)
                argv[argc] = words[argc - 1];
        argv[argc] = NULL; /* static, since options keep pointing into it */
        options_fini(&o);  /* of the reading before */
        err.text[0] = '\0';
        return options_read(&o, command, argc, argv, &err);
}

#define READ(command, ...) read_line(command, (char *[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static int apply(const char *json)
{
        json_t *root = json_loads(json, JSON_DECODE_ANY, NULL);
        int ret;

        assert_non_null(root);
        json_decref(o.config_json);
        o.config_json = root; /* strings point into it */
        ret = config_apply(&o, COMMAND_RUN, root, "f.json", &err);
        return ret;
}

static int teardown(void **state)
{
        options_fini(&o);
        return 0;
}

static void defaults(void **state)
{
        assert_int_equal(READ(COMMAND_RUN), 0);
        assert_int_equal(o.cpus, 1);
        assert_int_equal(o.memory, 256 << 20);
        assert_string_equal(o.cmdline, "");
        assert_int_equal(o.fork, 0);
        assert_int_equal(o.fork_at.trigger, FORK_AT_GUEST);
        assert_int_equal(o.console.kind, CONSOLE_STDIO);
        assert_int_equal(o.log_level, MESSAGE_WARN);
        assert_int_equal(o.seccomp, RAMET_SECCOMP_ON);
        assert_int_equal(o.hugepages, RAMET_HUGEPAGES_AUTO);
        assert_int_equal(o.cow, RAMET_COW_PRIVATE);
        assert_false(options_given(&o, "cpus"));
        assert_int_equal(READ(COMMAND_DEMO), 0);
        assert_int_equal(o.fork, 4);
        assert_int_equal(o.cpus, 2);
        assert_int_equal(o.memory, 128 << 20);
}

static void the_command_line(void **state)
{
        assert_int_equal(READ(COMMAND_RUN, "--kernel", "k", "--cpus=2", "--fork", "3", "--fork-at",
                              "console=ready", "--debug-exit", "0xf4", "--seccomp", "log"),
                         0);
        assert_string_equal(o.kernel, "k");
        assert_int_equal(o.cpus, 2);
        assert_int_equal(o.fork, 3);
        assert_string_equal(o.fork_at.text, "ready");
        assert_int_equal(o.debug_exit, 0xf4);
        assert_int_equal(o.seccomp, RAMET_SECCOMP_LOG);
        assert_true(options_given(&o, "cpus"));
        assert_int_equal(READ(COMMAND_RUN, "--kernel", "k", "--cow", "trap"), 0);
        assert_int_equal(o.cow, RAMET_COW_TRAP);
        assert_int_equal(READ(COMMAND_DEMO, "--cow", "rom"), 0);
        assert_int_equal(o.cow, RAMET_COW_ROM);
        assert_int_equal(READ(COMMAND_FORK, "web", "-n", "7"), 0);
        assert_int_equal(o.clones, 7);
        assert_int_equal(o.nrest, 1);
        assert_string_equal(o.rest[0], "web");
}

static void help_stops_reading(void **state)
{
        assert_int_equal(READ(COMMAND_RUN, "--cpus", "2", "--help", "--cpus", "junk"), 0);
        assert_true(o.help);
}

static void refusals_name_the_option(void **state)
{
        assert_int_equal(READ(COMMAND_RUN, "--memory", "1K"), -EINVAL);
        assert_string_equal(err.text, "--memory 1K: expected at least 1 MiB");
        assert_int_equal(READ(COMMAND_RUN, "--cpus", "10000"), -EINVAL);
        assert_string_equal(err.text, "--cpus 10000: expected a whole number from 1 to 64");
        assert_int_equal(READ(COMMAND_RUN, "--frok", "3"), -EINVAL);
        assert_string_equal(err.text,
                            "unknown option --frok: did you mean --fork? See 'ramet run --help'");
        assert_int_equal(READ(COMMAND_RUN, "--frobnicate=3"), -EINVAL);
        assert_string_equal(err.text, "unknown option --frobnicate; see 'ramet run --help'");
        assert_int_equal(READ(COMMAND_RUN, "-z"), -EINVAL);
        assert_non_null(strstr(err.text, "unknown option -z"));
        assert_int_equal(READ(COMMAND_RUN, "--kernel"), -EINVAL);
        assert_non_null(strstr(err.text, "--kernel needs an argument, FILE"));
        assert_int_equal(READ(COMMAND_LIST, "--json=1"), -EINVAL);
        assert_non_null(strstr(err.text, "--json takes no argument"));
        assert_int_equal(READ(COMMAND_LIST, "--kernel", "k"), -EINVAL);
        assert_non_null(strstr(err.text, "unknown option --kernel"));
}

static void the_file_fills_in(void **state)
{
        assert_int_equal(READ(COMMAND_RUN, "--cpus", "3"), 0);
        assert_int_equal(apply("{\"kernel\": \"vmlinux\", \"cpus\": 2, \"memory\": \"64M\", "
                               "\"timeout\": 2.5, \"debug-exit\": \"0xf4\", \"fork\": 4}"),
                         0);
        assert_string_equal(o.kernel, "vmlinux");
        assert_int_equal(o.cpus, 3); /* the command line wins */
        assert_int_equal(o.memory, 64 << 20);
        assert_int_equal(o.timeout_ns, 2500000000);
        assert_int_equal(o.debug_exit, 0xf4);
        assert_int_equal(o.fork, 4);
        assert_true(options_given(&o, "memory"));
        assert_int_equal(READ(COMMAND_RUN), 0);
        assert_int_equal(apply("{\"memory\": 1048576, \"timeout\": 3}"), 0);
        assert_int_equal(o.memory, 1 << 20);
        assert_int_equal(o.timeout_ns, 3000000000);
}

static void the_file_is_checked(void **state)
{
        static const struct {
                const char *json, *says;
        } bad[] = {
                {"{\"kernle\": \"k\"}", "f.json: kernle: no such option"},
                {"{\"fill\": 3}", "f.json: fill: no such option"},
                {"{\"config\": \"f\"}", "f.json: config: no such option"},
                {"{\"help\": true}", "f.json: help: no such option"},
                {"{\"cpus\": \"2\"}", "f.json: cpus: expected an integer, got a string"},
                {"{\"cpus\": 2.0}",
                 "f.json: cpus: expected an integer, got a number with a fraction"},
                {"{\"cpus\": 0}", "f.json: cpus: 0: expected a whole number from 1 to 64"},
                {"{\"cpus\": -1}", "f.json: cpus: -1: expected a whole number from 1 to 64"},
                {"{\"kernel\": 3}", "f.json: kernel: expected a string, got an integer"},
                {"{\"kernel\": null}", "f.json: kernel: expected a string, got null"},
                {"{\"timeout\": \"3\"}", "f.json: timeout: expected a number, got a string"},
                {"{\"memory\": []}",
                 "f.json: memory: expected a string or an integer, got an array"},
                {"{\"memory\": \"1K\"}", "f.json: memory: 1K: expected at least 1 MiB"},
                {"{\"rng\": 1}", "f.json: rng: expected true or false, got an integer"},
                {"{\"disk\": \"path=a\"}", "f.json: disk: expected an array, got a string"},
                {"{\"disk\": [3]}",
                 "f.json: disk: expected strings or objects in it, got an integer"},
                {"{\"disk\": [{\"path\": \"a\", \"size\": 1}]}",
                 "f.json: disk: path=a,size=1: size=: no such key, expected path, readonly, "
                 "serial, "
                 "iops or bandwidth"},
                {"{\"disk\": [{\"path\": \"a\", \"serial\": null}]}",
                 "f.json: disk: path=a,serial=: serial=: is 0 bytes long, 1 to 20 expected"},
                {"{\"disk\": [{}]}", "f.json: disk: : '': expected KEY=VALUE, such as path=FILE"},
                {"[]", "f.json: expected a JSON object, got an array"},
                {"7", "f.json: expected a JSON object, got an integer"},
        };

        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                assert_int_equal(READ(COMMAND_RUN), 0);
                assert_int_equal(apply(bad[i].json), -EINVAL);
                assert_string_equal(err.text, bad[i].says);
        }
        /* also what the command line overrides */
        assert_int_equal(READ(COMMAND_RUN, "--cpus", "2"), 0);
        assert_int_equal(apply("{\"cpus\": 100}"), -EINVAL);
        assert_int_equal(o.cpus, 2);
}

static void names_are_unique_per_command(void **state)
{
        for (unsigned i = 0; i < option_count; i++)
                for (unsigned j = 0; j < i; j++)
                        if (!strcmp(option_table[i].name, option_table[j].name))
                                assert_int_equal(
                                        option_table[i].commands & option_table[j].commands, 0);
}

static void disks_are_added_up(void **state)
{
        assert_int_equal(READ(COMMAND_RUN, "--disk", "path=a.img", "--disk",
                              "readonly=on,path=b,,c=d.img,iops=500,bandwidth=20M,serial=x y",
                              "--rng", "--virtio", "cmdline", "--overlay", "dir"),
                         0);
        assert_int_equal(o.disks.n, 2);
        assert_string_equal(o.disks.disk[0].path, "a.img");
        assert_false(o.disks.disk[0].readonly);
        assert_null(o.disks.disk[0].serial);
        assert_string_equal(o.disks.disk[1].path, "b,c=d.img");
        assert_true(o.disks.disk[1].readonly);
        assert_string_equal(o.disks.disk[1].serial, "x y");
        assert_int_equal(o.disks.disk[1].iops_max, 500);
        assert_int_equal(o.disks.disk[1].bandwidth_max, 20 << 20);
        assert_true(o.rng);
        assert_int_equal(o.virtio, VIRTIO_FOUND_CMDLINE);
        assert_string_equal(o.overlay, "dir");
        assert_int_equal(READ(COMMAND_RUN), 0);
        assert_int_equal(o.disks.n, 0);
        assert_false(o.rng);
        assert_int_equal(o.virtio, VIRTIO_FOUND_ACPI);
}

static void wrong_disks_are_named(void **state)
{
        static const struct {
                char *text;
                const char *says;
        } bad[] = {
                {"", "'': expected KEY=VALUE, such as path=FILE"},
                {"a.img", "'a.img': expected KEY=VALUE, such as path=FILE"},
                {"path=a,", "'': expected KEY=VALUE, such as path=FILE"},
                {"path=", "path=: expected a file"},
                {"serial=1", "there is no path=FILE"},
                {"path=a,path=b", "path= is there twice"},
                {"path=a,iops=1,iops=1", "iops= is there twice"},
                {"path=a,size=3",
                 "size=: no such key, expected path, readonly, serial, iops or bandwidth"},
                {"path=a,readonly=yes", "readonly=yes: expected off or on"},
                {"path=a,serial=123456789012345678901",
                 "serial=123456789012345678901: is 21 bytes long, 1 to 20 expected"},
                {"path=a,serial=", "serial=: is 0 bytes long, 1 to 20 expected"},
                {"path=a,iops=0", "iops=0: expected a whole number from 1 to 1000000000"},
                {"path=a,bandwidth=lots", "bandwidth=lots: expected a size such as 256M or 4GiB"},
                {"path=a,bandwidth=1K", "bandwidth=1K: expected at least 4 KiB"},
        };

        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                assert_int_equal(READ(COMMAND_RUN, "--disk", "path=ok", "--disk", bad[i].text),
                                 -EINVAL);
                assert_int_equal(o.disks.n, 1);
                assert_int_equal(strncmp(err.text, "--disk ", 7), 0);
                assert_string_equal(err.text + 7 + strlen(bad[i].text) + 2, bad[i].says);
        }
        assert_int_equal(READ(COMMAND_RUN, "--disk=path=1", "--disk=path=2", "--disk=path=3",
                              "--disk=path=4", "--disk=path=5", "--disk=path=6", "--disk=path=7",
                              "--disk=path=8", "--disk=path=9"),
                         -EINVAL);
        assert_string_equal(err.text, "--disk path=9: a machine has at most 8 disks");
}

static void disks_in_the_file(void **state)
{
        static const char all[] =
                "{\"rng\": true, \"virtio\": \"acpi\", \"console\": \"virtio\", \"disk\": "
                "[\"path=a\", {\"path\": \"b,c\", \"readonly\": true, \"iops\": 7, "
                "\"bandwidth\": \"1M\"}, {\"path\": \"d\", \"readonly\": false}]}";

        assert_int_equal(READ(COMMAND_RUN), 0);
        assert_int_equal(apply(all), 0);
        assert_true(o.rng);
        assert_true(o.console.virtio);
        assert_int_equal(o.disks.n, 3);
        assert_string_equal(o.disks.disk[1].path, "b,c");
        assert_true(o.disks.disk[1].readonly);
        assert_int_equal(o.disks.disk[1].iops_max, 7);
        assert_int_equal(o.disks.disk[1].bandwidth_max, 1 << 20);
        assert_false(o.disks.disk[2].readonly);
        /* the command line wins, as a whole */
        assert_int_equal(READ(COMMAND_RUN, "--disk", "path=x"), 0);
        assert_int_equal(apply(all), 0);
        assert_int_equal(o.disks.n, 1);
        assert_string_equal(o.disks.disk[0].path, "x");
        assert_int_equal(READ(COMMAND_RUN), 0);
        assert_int_equal(apply("{\"rng\": false, \"disk\": []}"), 0);
        assert_false(o.rng);
        assert_int_equal(o.disks.n, 0);
}

#define CASE(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                CASE(defaults),           CASE(the_command_line),
                CASE(help_stops_reading), CASE(refusals_name_the_option),
                CASE(the_file_fills_in),  CASE(the_file_is_checked),
                CASE(disks_are_added_up), CASE(wrong_disks_are_named),
                CASE(disks_in_the_file),  CASE(names_are_unique_per_command),
        };

        return cmocka_run_group_tests_name("cli_options", tests, NULL, NULL);
}
