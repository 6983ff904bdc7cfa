/* SPDX-License-Identifier: Apache-2.0 */
/* The ramet command: finds the subcommand and lets it work. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include <ramet/ramet.h>

#include "cli/cli.h"
#include "cli/host.h"
#include "cli/message.h"

static const struct command {
        const char *name;
        int (*run)(int argc, char **argv);
        const char *what;
} commands[] = {
        {"run", cmd_run, "boot a guest, and fork it if asked to"},
        {"demo", cmd_demo, "watch a running machine fork, with a guest that is built in"},
        {"list", cmd_list, "list the machines that run"},
        {"pause", cmd_pause, "stop a machine's processors"},
        {"resume", cmd_resume, "let them go on"},
        {"reset", cmd_reset, "take a machine back to the fork that it comes from"},
        {"kill", cmd_kill, "end a machine"},
        {"fork", cmd_fork, "fork a machine that runs"},
        {"overlay", cmd_overlay, "what a machine wrote to a disk: export it, or look at it"},
};

#define COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *find(const char *name)
{
        for (unsigned i = 0; i < COMMANDS; i++)
                if (!strcmp(commands[i].name, name))
                        return &commands[i];
        return NULL;
}

static void help(FILE *out)
{
        fputs("usage: ramet COMMAND [OPTION...]\n"
              "\n"
              "fork(2) for virtual machines: freeze a running machine and clone it, as often as "
              "you like,\n"
              "without copying its memory.\n"
              "\n",
              out);
        for (unsigned i = 0; i < COMMANDS; i++)
                fprintf(out, "  %-10s%s\n", commands[i].name, commands[i].what);
        fputs("  version   print the version\n"
              "  help      this text, or with a COMMAND, the help of that\n"
              "\n"
              "'ramet COMMAND --help' lists a command's options. Try 'ramet demo' first.\n",
              out);
}

static int unknown(const char *word)
{
        message(MESSAGE_ERROR, "%s: no such %s; 'ramet --help' lists the commands", word,
                word[0] == '-' ? "option" : "command");
        return CLI_INPUT;
}

static int help_about(int argc, char **argv)
{
        const struct command *command = argc > 0 ? find(argv[0]) : NULL;
        char help_option[] = "--help";
        char *words[] = {argv[0], help_option, NULL};

        if (command)
                return command->run(2, words);
        if (argc > 0 && strcmp(argv[0], "version") != 0 && strcmp(argv[0], "help") != 0)
                return unknown(argv[0]);
        help(stdout);
        return CLI_OK;
}

int main(int argc, char **argv)
{
        const struct command *command;

        host_open_standard();
        signal(SIGXFSZ, SIG_IGN); /* a file at the user's limit is an error, as a full disk is */
        if (argc < 2) {
                help(stderr);
                return CLI_INPUT;
        }
        if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
                return help_about(0, argv + 2);
        if (!strcmp(argv[1], "help"))
                return help_about(argc - 2, argv + 2);
        if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
                printf("ramet %s\n", ramet_version());
                return CLI_OK;
        }
        command = find(argv[1]);
        return command ? command->run(argc - 1, argv + 1) : unknown(argv[1]);
}
