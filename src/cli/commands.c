/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramet list, pause, resume, reset, kill, fork: requests to launchers that run. A machine's
 * launcher is found by the first part of its name: web.2.1 belongs to web.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/client.h"
#include "cli/control.h"
#include "cli/human.h"
#include "cli/options.h"
#include "cli/table.h"

#define LIST_TIMEOUT_MS                                                                            \
        3000 /* a launcher that is stopped must not hold up the list of the others */

static json_t *make_request(const char *op)
{
        json_t *request = json_object();

        json_object_set_new(request, "v", json_integer(CONTROL_VERSION));
        json_object_set_new(request, "op", json_string(op));
        return request;
}

static uint64_t number(const json_t *o, const char *key)
{
        return (uint64_t)json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
        const char *s = json_string_value(json_object_get(o, key));

        return s ? s : "?";
}

/* --- list --- */

struct listing {
        struct rundir *dir;
        json_t *vms; /* of all launchers */
};

static void list_one(void *data, const char *name)
{
        struct listing *listing = data;
        json_t *reply = NULL;
        struct err err = {0};
        int ret =
                client_ask(listing->dir, name, make_request("list"), LIST_TIMEOUT_MS, &reply, &err);

        if (!ret)
                json_array_extend(listing->vms, json_object_get(reply, "vms"));
        else if (ret != -ENOENT)
                message(MESSAGE_WARN, "%s", err.text);
        json_decref(reply);
}

static void print_list(const json_t *vms)
{
        struct table t;
        size_t i;
        json_t *vm;
        char memory[HUMAN_MAX], uptime[HUMAN_MAX];

        table_init(&t, 6);
        table_cell(&t, TABLE_PLAIN, "NAME");
        table_cell(&t, TABLE_PLAIN, "PID");
        table_cell(&t, TABLE_PLAIN, "STATE");
        table_cell(&t, TABLE_PLAIN, "CPUS");
        table_cell(&t, TABLE_PLAIN, "MEMORY");
        table_cell(&t, TABLE_PLAIN, "UPTIME");
        json_array_foreach(vms, i, vm)
        {
                table_cell(&t, TABLE_PLAIN, "%s", text(vm, "name"));
                table_cell(&t, TABLE_PLAIN, "%" PRIu64, number(vm, "pid"));
                table_cell(&t, TABLE_PLAIN, "%s", text(vm, "state"));
                table_cell(&t, TABLE_PLAIN, "%" PRIu64, number(vm, "cpus"));
                table_cell(&t, TABLE_PLAIN, "%s", human_size(memory, number(vm, "memory_bytes")));
                table_cell(&t, TABLE_PLAIN, "%s", human_uptime(uptime, number(vm, "uptime_ns")));
        }
        table_print(&t, stdout, false);
        table_fini(&t);
}

/* The options of a command that needs nothing but names. -1: go on, else an exit status. */
static int read_options(struct options *o, enum command_bit command, const char *synopsis, int argc,
                        char **argv, int names)
{
        struct err err = {0};

        if (options_read(o, command, argc, argv, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
                return CLI_INPUT;
        }
        if (o->help) {
                printf("usage: ramet %s\n\n", synopsis);
                options_help(command);
                return CLI_OK;
        }
        if (o->nrest != names) {
                message(MESSAGE_ERROR, "%s: %s; usage: ramet %s", argv[0],
                        o->nrest < names ? "no machine is named"
                        : names          ? "one machine at a time"
                                         : "takes no arguments",
                        synopsis);
                return CLI_INPUT;
        }
        return -1;
}

int cmd_list(int argc, char **argv)
{
        struct options o;
        struct rundir dir;
        struct err err = {0};
        struct listing listing = {.dir = &dir};
        int ret = read_options(&o, COMMAND_LIST, "list [--json]", argc, argv, 0);

        if (ret >= 0)
                return ret;
        if (rundir_open(&dir, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
                return CLI_HOST;
        }
        listing.vms = json_array();
        ret = rundir_each(&dir, list_one, &listing);
        if (ret)
                message(MESSAGE_ERROR, "%s: %s", dir.path, strerror(-ret));
        if (o.json) {
                json_dumpf(listing.vms, stdout, JSON_INDENT(2));
                putchar('\n');
        } else if (json_array_size(listing.vms)) {
                print_list(listing.vms);
        } else {
                puts("no machines are running");
        }
        json_decref(listing.vms);
        rundir_close(&dir);
        return ret ? CLI_HOST : CLI_OK;
}

/* --- one machine --- */

/* Ask @path's launcher. CLI_OK and the answer, or an exit status with everything said. */
static int ask(const char *path, json_t *request, json_t **reply)
{
        char root[RAMET_NAME_MAX + 1];
        struct rundir dir;
        struct err err = {0};
        int ret = parse_path(path, &err);

        if (ret) {
                message(MESSAGE_ERROR, "%s: %s", path, err.text);
                json_decref(request);
                return CLI_INPUT;
        }
        snprintf(root, sizeof root, "%.*s", (int)strcspn(path, "."), path);
        json_object_set_new(request, "vm", json_string(path));
        ret = rundir_open(&dir, &err);
        if (ret) {
                json_decref(request);
        } else {
                ret = client_ask(&dir, root, request, 0, reply, &err);
                rundir_close(&dir);
        }
        if (ret) {
                message(MESSAGE_ERROR, "%s", err.text);
                return err.class == ERR_INPUT ? CLI_INPUT : CLI_HOST;
        }
        if (!json_is_true(json_object_get(*reply, "ok"))) {
                message(MESSAGE_ERROR, "%s", text(*reply, "error"));
                ret = (int)number(*reply, "status");
                return ret > 0 && ret < CLI_SIGNAL ? ret : CLI_HOST;
        }
        return CLI_OK;
}

static int simple_command(enum command_bit command, const char *synopsis, int argc, char **argv)
{
        struct options o;
        json_t *reply = NULL;
        int ret = read_options(&o, command, synopsis, argc, argv, 1);

        if (ret >= 0)
                return ret;
        ret = ask(o.rest[0], make_request(argv[0]), &reply);
        json_decref(reply);
        return ret;
}

int cmd_pause(int argc, char **argv)
{
        return simple_command(COMMAND_PAUSE, "pause NAME", argc, argv);
}

int cmd_resume(int argc, char **argv)
{
        return simple_command(COMMAND_RESUME, "resume NAME", argc, argv);
}

int cmd_reset(int argc, char **argv)
{
        return simple_command(COMMAND_RESET, "reset NAME", argc, argv);
}

int cmd_kill(int argc, char **argv)
{
        return simple_command(COMMAND_KILL, "kill NAME", argc, argv);
}

static int print_fork(const char *name, const json_t *reply)
{
        json_t *clones = json_object_get(reply, "clones"), *clone;
        char time[HUMAN_MAX];
        struct table t;
        size_t i;

        printf("%s was stopped for %s\n", name, human_time(time, number(reply, "pause_ns")));
        table_init(&t, 4);
        table_cell(&t, TABLE_PLAIN, "clone");
        table_cell(&t, TABLE_PLAIN, "pid");
        table_cell(&t, TABLE_PLAIN, "first exit");
        table_cell(&t, TABLE_PLAIN, "state");
        json_array_foreach(clones, i, clone)
        {
                uint64_t first = number(clone, "first_exit_ns");

                table_cell(&t, TABLE_PLAIN, "%s", text(clone, "name"));
                table_cell(&t, TABLE_PLAIN, "%" PRIu64, number(clone, "pid"));
                table_cell(&t, TABLE_PLAIN, "%s", first ? human_time(time, first) : "-");
                table_cell(&t, TABLE_PLAIN, "%s", text(clone, "state"));
        }
        table_print(&t, stdout, false);
        table_fini(&t);
        if (!number(reply, "failed"))
                return CLI_OK;
        message(MESSAGE_ERROR, "%s: %" PRIu64 " clones did not come to run", name,
                number(reply, "failed"));
        return CLI_CLONE;
}

int cmd_fork(int argc, char **argv)
{
        struct options o;
        json_t *request, *reply = NULL;
        int ret = read_options(&o, COMMAND_FORK, "fork NAME [-n N]", argc, argv, 1);

        if (ret >= 0)
                return ret;
        request = make_request("fork");
        json_object_set_new(request, "n", json_integer((json_int_t)o.clones));
        ret = ask(o.rest[0], request, &reply);
        if (ret == CLI_OK)
                ret = print_fork(o.rest[0], reply);
        json_decref(reply);
        return ret;
}
