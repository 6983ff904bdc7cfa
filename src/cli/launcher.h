/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher: starts the first machine, makes its clones, follows all of them until they end, and
 * says how it went. One thread, one loop. Its parts, all on the same struct launcher:
 *
 *      launcher.c  life, signals, time-out     forks.c   fork points and the making of clones
 *      follow.c    events of machines          report.c  the table and the exit status
 *      control.c   the control socket, console.c the consoles: with interfaces of their own
 */
#ifndef RAMET_CLI_LAUNCHER_H
#define RAMET_CLI_LAUNCHER_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "cli/backend.h"
#include "cli/family.h"
#include "cli/keeper.h"
#include "cli/parse.h"
#include "io/loop.h"

struct launcher;
struct control;
struct control_request;
struct console_hub;
struct events;

/* For commands that make something else of the run than `ramet run` does. All may be NULL. */
struct launcher_hooks {
        /* Each line of a console; it is not printed then. */
        void (*line)(void *data, struct machine *m, const char *text, size_t len);
        /* Each event, after the launcher has recorded it. */
        void (*event)(void *data, struct machine *m, const struct ramet_event *event);
};

/* What to do; borrowed for the life of the launcher. */
struct launcher_setup {
        const struct backend *backend;
        const char *name;
        bool name_is_free;   /* not the user's choice: another may be taken if it is in use */
        unsigned fork_count; /* 0: none is armed */
        unsigned pool;       /* empty machines to have ready for clones */
        struct fork_at fork_at;
        uint64_t timeout_ns; /* 0: none */
        struct console_spec console;
        const char *events_path; /* NULL: none */
        bool control;            /* offer a control socket */
        bool table;              /* print the table of clones at the end */
        const struct launcher_hooks *hooks;
        void *hook_data;
};

/* A fork from the wish to the last clone's first exit. Kept until the end, for the report. */
struct fork_job {
        struct fork_job *next;
        struct machine *parent;
        enum ramet_fork_cause cause;
        enum {
                FORK_ASKED,    /* the machine has been asked; it goes on meanwhile */
                FORK_STOPPED,  /* it is at the fork point */
                FORK_SPAWNING, /* there is a template, and clones are made of it */
                FORK_DONE,
                FORK_FAILED,
        } state;
        unsigned count;   /* clones that are wanted */
        unsigned made;    /* asked for so far */
        unsigned loading; /* of these, not ready yet */
        unsigned waited;  /* of these, not running or ended yet */
        unsigned failed;  /* ended before they ran, or could not be asked for */
        struct ramet_frozen *frozen;
        struct ramet_event figures;      /* its FROZEN event */
        uint64_t all_running_ns;         /* from the fork point to the last clone's first exit */
        struct control_request *request; /* who waits for it, NULL: nobody */
};

struct launcher {
        const struct launcher_setup *setup;
        const struct backend *be;
        struct ramet_ctx *ctx;
        struct ramet_spawner *spawner;
        struct loop *loop;
        struct family family;
        struct fork_job *forks;
        struct events *events;
        struct console_hub *hub;
        struct control *control;
        struct keeper keeper;
        char name[RAMET_NAME_MAX + 1];
        int signal_fd;
        sigset_t old_mask;
        struct loop_watch *spawner_watch, *signal_watch, *timeout, *after, *linger;

        unsigned window;   /* clones of a fork that may be loading at once */
        bool fork_wanted;  /* the signal came before the guest ran */
        bool fork_reached; /* the armed fork has happened */
        bool clone_failed; /* a clone ended badly or was not made */
        bool ending;       /* everything has been killed, for @status */
        int status;        /* -1: what the machines' ends say */
};

/* Fork the spawner, and make the loop. Call it before anything is opened. 0 or -errno. */
int launcher_create(const struct launcher_setup *setup, struct launcher **launcher,
                    struct err *err);
/* Run the machine that @options describes (its console descriptors are filled in here) and all that
 * comes of it. Returns the exit status, with everything said that has to be said. */
int launcher_run(struct launcher *l, const struct ramet_vm_options *options);
void launcher_destroy(struct launcher *l); /* NULL is fine. Nothing is left behind */

/* --- between the parts --- */

/* Kill everything, and end the run with @status when it is gone. */
void launcher_end(struct launcher *l, int status);
/* Is there anything left to wait for? If not, stop the loop. */
void launcher_check_done(struct launcher *l);
void launcher_kill_machine(struct launcher *l, struct machine *m);
/* What the library said about its last failure, or if nothing, what -errno @ret means. */
const char *launcher_why(const struct launcher *l, int ret);

/* forks.c. @request is answered when the fork is over. 0 or -errno with @err set. */
int forks_ask(struct launcher *l, struct machine *m, unsigned count,
              struct control_request *request, struct err *err);
void forks_event(struct launcher *l, struct machine *m, const struct ramet_event *event);
/* A clone that was waited for runs, or will never. */
void forks_clone_ready(struct launcher *l, struct machine *clone);
void forks_clone_settled(struct launcher *l, struct machine *clone, bool runs);
/* @parent is gone: what it had not frozen yet will never be. */
void forks_parent_gone(struct launcher *l, struct machine *parent);
void forks_fini(struct launcher *l);

/* follow.c: take all events that are there. */
void follow_events(struct launcher *l);

/* report.c. The freeze that a FROZEN event tells of, for people, into @buf; returns it. */
const char *report_freeze(const struct ramet_event *event, char *buf, size_t size);
int report_status(const struct launcher *l);
void report_print(const struct launcher *l, FILE *out, bool colour);
void report_timeout(const struct launcher *l);

#endif
