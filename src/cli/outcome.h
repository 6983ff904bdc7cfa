/* SPDX-License-Identifier: Apache-2.0 */
/* How a machine ended, as a word, as a sentence and as an exit status. */
#ifndef RAMET_CLI_OUTCOME_H
#define RAMET_CLI_OUTCOME_H

#include <stddef.h>

#include "cli/family.h"

/* "poweroff", "crash", ...: the reason field of events. */
const char *outcome_word(enum ramet_exit reason);
/* The exit status that this machine stands for (enum cli_status, or the guest's own). */
int outcome_status(const struct machine *m);
/* For the last column of tables: "0", "6 (crash)". */
const char *outcome_cell(const struct machine *m, char *buf, size_t size);
/* One line about an end that is not a plain power-off, into @buf; "" when there is nothing to tell.
 * @text: what the machine's process said, "" if nothing. */
const char *outcome_line(const struct machine *m, const char *text, char *buf, size_t size);

#endif
