/* SPDX-License-Identifier: Apache-2.0 */
/* The --events file: a line of JSON for each thing that happens. docs/events.md describes them. */
#ifndef RAMET_CLI_EVENTS_H
#define RAMET_CLI_EVENTS_H

#include "base/err.h"
#include "cli/backend.h"
#include "cli/family.h"

struct events;

/* Empty or create @path (NULL: events go nowhere). @be tells of overlays. 0 or -errno with @err
 * set.
 */
int events_open(const char *path, const struct backend *be, struct events **events,
                struct err *err);
void events_close(struct events *events); /* NULL is fine */

/* Write what @event says about @m. Kinds that are no news for the file write nothing. */
void events_machine(struct events *events, const struct machine *m,
                    const struct ramet_event *event);
/* The end of a machine, from what its record says. @text: why, "" if there is nothing to say. */
void events_exit(struct events *events, const struct machine *m, uint64_t t_ns, const char *text);
void events_error(struct events *events, const struct machine *m, uint64_t t_ns, const char *text);

#endif
