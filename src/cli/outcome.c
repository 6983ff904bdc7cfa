/* SPDX-License-Identifier: Apache-2.0 */
/* How a machine ended, in words and as an exit status: the table in ramet(1), as code. */
#include "cli/outcome.h"

#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

const char *outcome_word(enum ramet_exit reason)
{
        switch (reason) {
        case RAMET_EXIT_POWEROFF:
                return "poweroff";
        case RAMET_EXIT_REBOOT:
                return "reboot";
        case RAMET_EXIT_DEBUG:
                return "debug-exit";
        case RAMET_EXIT_CRASH:
                return "crash";
        case RAMET_EXIT_HOST:
                return "host-error";
        case RAMET_EXIT_INPUT:
                return "bad-input";
        case RAMET_EXIT_LIMIT: /* the command sets none */
                return "limit";
        case RAMET_EXIT_KILLED:
                break;
        }
        return "killed";
}

int outcome_status(const struct machine *m)
{
        switch (m->reason) {
        case RAMET_EXIT_POWEROFF:
                return CLI_OK;
        case RAMET_EXIT_REBOOT:
                return CLI_REBOOT;
        case RAMET_EXIT_DEBUG:
                return m->guest_status & 0xff; /* all that an exit status holds; odd, so never 0 */
        case RAMET_EXIT_CRASH:
                return CLI_CRASH;
        case RAMET_EXIT_HOST:
                return CLI_HOST;
        case RAMET_EXIT_INPUT:
                return CLI_INPUT;
        case RAMET_EXIT_LIMIT:
        case RAMET_EXIT_KILLED:
                break;
        }
        return CLI_KILLED;
}

const char *outcome_cell(const struct machine *m, char *buf, size_t size)
{
        int status = outcome_status(m);

        if (m->state != MACHINE_ENDED)
                snprintf(buf, size, "%s", machine_state_name(m));
        else if (m->reason == RAMET_EXIT_POWEROFF || m->reason == RAMET_EXIT_DEBUG)
                snprintf(buf, size, "%d", status);
        else if (m->reason == RAMET_EXIT_KILLED && m->guest_status > 0 && !m->kill_asked)
                snprintf(buf, size, "%d (killed by SIG%s)", status,
                         sigabbrev_np(m->guest_status) ?: "?");
        else
                snprintf(buf, size, "%d (%s)", status, outcome_word(m->reason));
        return buf;
}

static void killed_line(const struct machine *m, const char *text, char *buf, size_t size)
{
        const char *name = m->guest_status > 0 ? sigabbrev_np(m->guest_status) : NULL;

        if (m->kill_asked)
                snprintf(buf, size, "'%s' was killed", m->path);
        else if (*text)
                snprintf(buf, size, "'%s': %s", m->path, text);
        else if (name)
                snprintf(buf, size, "'%s' was killed by SIG%s", m->path, name);
        else
                snprintf(buf, size, "'%s' ended without a word: its process is gone", m->path);
}

const char *outcome_line(const struct machine *m, const char *text, char *buf, size_t size)
{
        const char *colon = *text ? ": " : "";

        buf[0] = '\0';
        switch (m->reason) {
        case RAMET_EXIT_POWEROFF:
        case RAMET_EXIT_DEBUG:
                break;
        case RAMET_EXIT_REBOOT:
                snprintf(buf, size, "'%s' asked for a reboot, which ends the run", m->path);
                break;
        case RAMET_EXIT_CRASH:
                snprintf(buf, size, "'%s' crashed%s%s", m->path, colon, text);
                break;
        case RAMET_EXIT_HOST:
                snprintf(buf, size, "'%s'%s%s", m->path, *text ? ": " : " failed on this host",
                         text);
                break;
        case RAMET_EXIT_INPUT: /* names the file itself */
                snprintf(buf, size, "%s", *text ? text : "the kernel cannot be used");
                break;
        case RAMET_EXIT_LIMIT:
                snprintf(buf, size, "'%s' was ended%s%s", m->path, colon, text);
                break;
        case RAMET_EXIT_KILLED:
                killed_line(m, text, buf, size);
                break;
        }
        return buf;
}
