/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ramet overlay export, ramet overlay info: what a machine wrote to a disk, when it was kept in
 * files (--overlay DIR). Nothing here talks to machines that run.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "base/clock.h"
#include "cli/human.h"
#include "cli/options.h"
#include "cli/table.h"
#include "io/overlay_chain.h"

static const char usage[] = "usage: ramet overlay export OVERLAY IMAGE [--force]\n"
                            "       ramet overlay info OVERLAY [--json]\n";

static const char about[] =
        "\n"
        "Overlays are files of 'ramet run --overlay DIR', DIR/NAME.DISK.N.overlay: the N-th of\n"
        "machine NAME and its disk DISK (vda, vdb, ...). Each stands on the one below it and, at\n"
        "the bottom, the image; all of them must still be there. An overlay in memory, which is\n"
        "what a machine has without --overlay, is gone with the machine. When a machine was\n"
        "killed, its overlays have what its guest had flushed.\n"
        "\n"
        "  export   make a plain image of what the machine saw\n"
        "  info     say what an overlay is, what is below it, and whether the image has changed\n"
        "\n";

/* --- export --- */

static volatile sig_atomic_t interrupted; /* the signal */

static void on_signal(int sig)
{
        interrupted = sig;
}

/* The default of these would leave no half image either, where files without a name exist. */
static void catch_signals(void)
{
        static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
        struct sigaction action = {.sa_handler = on_signal}, old;

        for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++)
                if (!sigaction(signals[i], NULL, &old) && old.sa_handler != SIG_IGN)
                        sigaction(signals[i], &action, NULL);
}

struct progress {
        bool tty;
        uint64_t began_ns, shown_ns;
        bool shown;
};

#define AFTER_NS 1000000000u /* what is done by then needs no progress */
#define EACH_NS  100000000u

static bool show_progress(void *data, uint64_t done, uint64_t total)
{
        struct progress *p = data;
        char bytes[HUMAN_MAX];
        uint64_t now;

        if (interrupted)
                return true;
        if (!p->tty)
                return false;
        now = clock_now_ns();
        if (now - p->began_ns < AFTER_NS || now - p->shown_ns < EACH_NS)
                return false;
        p->shown_ns = now;
        p->shown = true;
        fprintf(stderr, "\r%3u%% of %s", (unsigned)((double)done * 100 / (double)total),
                human_size(bytes, total));
        fflush(stderr);
        return false;
}

static int export(const struct overlay_chain *chain, const char *path, bool force)
{
        struct progress p = {.tty = isatty(STDERR_FILENO), .began_ns = clock_now_ns()};
        struct err err = {0};
        int ret;

        catch_signals();
        ret = overlay_export(chain, path, force, show_progress, &p, &err);
        if (p.shown)
                fputs("\r\033[K", stderr);
        if (ret == -EINTR && interrupted)
                return CLI_SIGNAL + interrupted;
        if (!ret)
                return CLI_OK;
        message(MESSAGE_ERROR, "%s", err.text);
        return err.class == ERR_INPUT ? CLI_INPUT : CLI_HOST;
}

/* --- info --- */

static const char *image_state(const struct overlay_chain *c)
{
        return c->image == OVERLAY_IMAGE_SAME      ? "unchanged"
               : c->image == OVERLAY_IMAGE_CHANGED ? "changed"
                                                   : "missing";
}

static void id_text(const struct overlay_id *id, char text[33])
{
        for (unsigned i = 0; i < sizeof id->bytes; i++)
                snprintf(text + 2 * i, 3, "%02x", id->bytes[i]);
}

static void info_json(const struct overlay_chain *c)
{
        json_t *root = json_object(), *chain = json_array(), *image = json_object();

        for (unsigned i = c->n; i-- > 0;) {
                json_t *o = json_object();
                char id[33];

                id_text(&c->overlays[i]->info.id, id);
                json_object_set_new(o, "file", json_string(c->files[i]));
                json_object_set_new(o, "id", json_string(id));
                json_object_set_new(o, "own_bytes",
                                    json_integer((json_int_t)overlay_count_bytes(c->overlays[i])));
                json_array_append_new(chain, o);
        }
        json_object_set_new(image, "path", json_string(c->overlays[0]->info.image));
        json_object_set_new(image, "state", json_string(image_state(c)));
        json_object_set_new(root, "disk_bytes",
                            json_integer((json_int_t)c->overlays[0]->info.disk_bytes));
        json_object_set_new(root, "in_use", json_boolean(c->in_use));
        json_object_set_new(root, "chain", chain);
        json_object_set_new(root, "image", image);
        json_dumpf(root, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(root);
}

static void info_text(const struct overlay_chain *c)
{
        char bytes[HUMAN_MAX];
        struct table t;

        table_init(&t, 3);
        for (unsigned i = c->n; i-- > 0;) {
                table_cell(&t, TABLE_PLAIN, "%s", i + 1 == c->n ? "overlay" : "on");
                table_cell(&t, TABLE_PLAIN, "%s", c->files[i]);
                table_cell(&t, TABLE_PLAIN, "%s of its own%s",
                           human_bytes(bytes, overlay_count_bytes(c->overlays[i])),
                           i + 1 == c->n && c->in_use ? ", in use" : "");
        }
        table_cell(&t, TABLE_PLAIN, "on");
        table_cell(&t, TABLE_PLAIN, "%s", c->overlays[0]->info.image);
        table_cell(&t, TABLE_PLAIN, "the image, %s, %s",
                   human_size(bytes, c->overlays[0]->info.disk_bytes), image_state(c));
        table_print(&t, stdout, false);
        table_fini(&t);
}

/* --- the command --- */

static int work(const struct options *o, bool exports)
{
        struct overlay_chain chain;
        struct err err = {0};
        int ret = overlay_chain_open(o->rest[1], &chain, &err);

        if (ret) {
                message(MESSAGE_ERROR, "%s", err.text);
                return err.class == ERR_INPUT ? CLI_INPUT : CLI_HOST;
        }
        ret = CLI_OK;
        if (exports)
                ret = export(&chain, o->rest[2], o->force);
        else if (o->json)
                info_json(&chain);
        else
                info_text(&chain);
        overlay_chain_close(&chain);
        return ret;
}

int cmd_overlay(int argc, char **argv)
{
        struct options o;
        struct err err = {0};
        bool exports;

        if (options_read(&o, COMMAND_OVERLAY, argc, argv, &err)) {
                message(MESSAGE_ERROR, "%s", err.text);
                return CLI_INPUT;
        }
        if (o.help) {
                printf("%s%s", usage, about);
                options_help(COMMAND_OVERLAY);
                return CLI_OK;
        }
        exports = o.nrest && !strcmp(o.rest[0], "export");
        if (!o.nrest || (!exports && strcmp(o.rest[0], "info") != 0)) {
                message(MESSAGE_ERROR, "overlay: %s%s; 'ramet overlay --help' says more",
                        o.nrest ? o.rest[0] : "say what to do", o.nrest ? ": no such command" : "");
                return CLI_INPUT;
        }
        if (o.nrest != (exports ? 3 : 2)) {
                message(MESSAGE_ERROR, "overlay: usage: ramet overlay %s",
                        exports ? "export OVERLAY IMAGE" : "info OVERLAY");
                return CLI_INPUT;
        }
        return work(&o, exports);
}
