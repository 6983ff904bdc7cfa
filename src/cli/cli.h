/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all of the ramet command shares: exit statuses and the list of its subcommands. Each file
 * below src/cli/ is one idea; the command uses libramet as any other program would, through
 * <ramet/process.h>, and nothing here maps guest memory or opens /dev/kvm.
 */
#ifndef RAMET_CLI_CLI_H
#define RAMET_CLI_CLI_H

/* Exit statuses. Even, since those that a guest chooses by --debug-exit are odd. ramet(1) has the
 * table; statuses from 128 on say which signal ended the launcher. */
enum cli_status {
        CLI_OK = 0,       /* every guest powered off */
        CLI_INPUT = 2,    /* usage, or a file or value that cannot be used */
        CLI_HOST = 4,     /* the host lacks something or refused it */
        CLI_CRASH = 6,    /* a guest crashed */
        CLI_TIMEOUT = 8,  /* --timeout */
        CLI_REBOOT = 10,  /* the guest asked for a reboot */
        CLI_CLONE = 12,   /* the first machine ended well, a clone did not or was not made */
        CLI_KILLED = 14,  /* the machine was killed */
        CLI_SIGNAL = 128, /* + the number of the signal */
};

/* A subcommand gets argv from its own name on and returns an exit status. */
int cmd_run(int argc, char **argv);
int cmd_demo(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_kill(int argc, char **argv);
int cmd_fork(int argc, char **argv);
int cmd_overlay(int argc, char **argv);

#endif
