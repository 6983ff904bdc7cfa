/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm shells: processes that hold an empty machine and wait to be told what it is to become.
 *
 *      prewarm --> SENT --> LAUNCHED --> WARM --.
 *                   |  |        |          |    +--> taken: a clone like any other
 *                   |  `--------`----------`----'
 *                   `---> gone: nobody hears of it, clones start cold
 *
 * A shell is a struct ramet_process of which no event tells, until a clone takes it. One that fails
 * is forgotten: it was only ever to save time.
 */
#include <errno.h>
#include <string.h>

#include "proc/launcher.h"

static bool fits(const struct ramet_process *p, const struct ramet_frozen *f)
{
        return !memcmp(&p->shape, &f->shape, sizeof p->shape);
}

/* How far it is: its channel takes the message in any case, and it is read when the shell is warm.
 */
static int progress(const struct ramet_process *p)
{
        if (p->exited || p->killed || p->channel < 0 || p->state == PROCESS_WAITING)
                return 0;
        return p->warm ? 3 : p->state == PROCESS_LAUNCHED ? 2 : 1;
}

struct ramet_process *shell_take(struct ramet_spawner *s, const struct ramet_frozen *frozen)
{
        struct ramet_process *best = NULL;

        for (struct ramet_process *p = s->shells; p; p = p->shell_next) {
                if (fits(p, frozen) && progress(p) >= (best ? progress(best) : 1)) /* the oldest */
                        best = p;
        }
        if (best)
                shell_forget(best);
        return best;
}

void shell_forget(struct ramet_process *p)
{
        struct ramet_process **at = &p->spawner->shells;

        while (*at && *at != p)
                at = &(*at)->shell_next;
        if (*at)
                *at = p->shell_next;
        p->shell = false;
        p->shell_next = NULL;
}

static int start_shell(struct ramet_process *like)
{
        struct ramet_spawner *s = like->spawner;
        struct ramet_process *p = process_new(s);
        struct message_shell m = {
                .head.type = MESSAGE_SHELL,
                .shape = like->shape,
        };
        struct start start = {.msg = &m, .length = sizeof m};
        struct err err;

        if (!p)
                return ctx_fail(s->ctx, err_host(&err, ENOMEM, "no memory for a shell"), &err);
        p->shape = like->shape;
        p->shell = p->was_shell = true;
        p->shell_next = s->shells;
        s->shells = p;
        return process_submit(p, &start);
}

int ramet_process_prewarm(struct ramet_process *like, unsigned count)
{
        struct err err;
        int ret = 0;

        if (!like)
                return ctx_null("like");
        if (count > RAMET_CLONES_MAX)
                return ctx_fail(like->spawner->ctx,
                                err_input(&err, "prewarm: %u given, at most %u expected", count,
                                          RAMET_CLONES_MAX),
                                &err);
        while (count-- > 0 && !ret)
                ret = start_shell(like);
        return ret;
}

unsigned ramet_spawner_shells(const struct ramet_spawner *s)
{
        unsigned n = 0;

        for (const struct ramet_process *p = s ? s->shells : NULL; p; p = p->shell_next)
                n++;
        return n;
}
