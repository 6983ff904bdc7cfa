/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: a small process that tidies up if the launcher is killed without a chance to do so
 * itself. It puts the terminal back and removes the control socket.
 */
#ifndef RAMET_CLI_KEEPER_H
#define RAMET_CLI_KEEPER_H

#include <sys/types.h>

#include "cli/tty.h"

struct keeper {
        pid_t pid; /* 0: none */
        int fd;    /* the keeper's other end; its closing is the launcher's death */
};

/* @tty: NULL, or the terminal as it was; @socket_path: NULL or what to remove, if it is still the
 * file that it is now. 0 or -errno. */
int keeper_start(struct keeper *k, const struct tty *tty, const char *socket_path);
/* All is tidied up already: let the keeper go. Does nothing if there is none. */
void keeper_stop(struct keeper *k);

#endif
