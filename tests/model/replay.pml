/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With REPLAY, each transition of the model is possible only when it is the next event of a trace.
 * The verifier says whether the model can come to the end of the trace. RAMET_TRACE names a file of
 * lines "event who participant value"; of what was recorded nothing is skipped.
 */
#include "trace_events.h"

c_decl {
\#include <stdio.h>
\#include <stdlib.h>
\#include <unistd.h>
\#define EVENTS_MAX 200000
        static int ev_trace[EVENTS_MAX][4];
        static int ev_count, ev_furthest;

        static void ev_report(void)
        {
                printf("refused at event %d of %d\n", ev_furthest + 1, ev_count);
        }

        static void ev_load(void)
        {
                FILE *f = fopen(getenv("RAMET_TRACE"), "r");
                int *e = ev_trace[0];

                if (!f)
                        exit(2);
                while (ev_count < EVENTS_MAX - 1 &&
                       fscanf(f, "%d %d %d %d", e, e + 1, e + 2, e + 3) == 4)
                        e = ev_trace[++ev_count];
                fclose(f);
                atexit(ev_report);
        }

        static void ev_done(int position)
        {
                if (position > ev_furthest)
                        ev_furthest = position;
                if (position < ev_count)
                        return;
                printf("accepted: %d events\n", ev_count);
                fflush(stdout);
                _exit(0);
        }
};

int ev_position = -1, ev_op, ev_who, ev_p, ev_val;

#define NEXT                                                    \
        c_code {                                                \
                now.ev_position++;                              \
                ev_done(now.ev_position);                       \
                now.ev_op = ev_trace[now.ev_position][0];       \
                now.ev_who = ev_trace[now.ev_position][1];      \
                now.ev_p = ev_trace[now.ev_position][2];        \
                now.ev_val = ev_trace[now.ev_position][3];      \
        }

#define is_next(op, who, p, val) \
        (ev_op == EV_##op && ev_who == (who) && ev_p == (p) && ev_val == (val))

/* Event and its NEXT are one step, in a d_step or not. */
#define IF(op, who, p, val, cond)   atomic { ((cond) && is_next(op, who, p, val)); NEXT }
#define DO(op, who, p, val)         IF(op, who, p, val, true)
#define SAFE(op, who, p, val, cond) IF(op, who, p, val, cond)

/* Where the model may choose without a step of its own, the trace chooses. */
#define about_to(op, who)  (ev_op == EV_##op && ev_who == (who))
#define about_to_ask(a, k) (about_to(REQUEST, a) && ev_p == (k))
/* Whether a flush is a coarse one is recorded with its beginning. */
#define about_to_flush(a, page, coarse) \
        (about_to(FLUSH, a) && ev_p == (page) && ev_val == (coarse))
#define died(i)            about_to(LEAVE, i)

#define replaying 1
#define GEN       int
#define FOREVER   2000000000
