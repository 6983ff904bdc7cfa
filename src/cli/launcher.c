/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The launcher's life.
 *
 * It forks the spawner before it opens or maps anything, so that nothing of it is inherited by the
 * machines. Then it is an event loop: events of machines, consoles, timers, the control socket, and
 * signals through a signalfd; no handler runs anywhere, and SIGCHLD is not used.
 *
 * Everything ends in one way: launcher_run() returns a status, and launcher_destroy() takes down
 * what there is. Whoever wants to end a run calls launcher_end(), which kills the machines; their
 * GONE events then lead to the ordinary end. If that takes longer than LINGER, it is not waited
 * for.
 */
#include "cli/launcher.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "cli/cli.h"
#include "base/clock.h"
#include "cli/console.h"
#include "cli/control.h"
#include "cli/events.h"
#include "cli/message.h"
#include "cli/table.h"

#define LINGER_NS 2000000000u

/* --- ending --- */

void launcher_check_done(struct launcher *l)
{
        if (l->family.count && !l->family.alive && console_hub_drained(l->hub))
                loop_stop(l->loop);
}

void launcher_kill_machine(struct launcher *l, struct machine *m)
{
        m->kill_asked = true;
        if (m->process)
                (void)l->be->kill(m->process);
}

const char *launcher_why(const struct launcher *l, int ret)
{
        const char *text = ramet_last_error(l->ctx);

        return *text ? text : strerror(-ret);
}

static void linger_over(void *data)
{
        struct launcher *l = data;

        loop_stop(l->loop);
}

void launcher_end(struct launcher *l, int status)
{
        if (l->ending)
                return;
        l->ending = true;
        l->status = status;
        console_hub_suspend(l->hub);
        for (size_t i = 0; i < l->family.count; i++)
                launcher_kill_machine(l, l->family.machines[i]);
        if (loop_add_timer(l->loop, LINGER_NS, linger_over, l, &l->linger))
                loop_stop(l->loop);
        launcher_check_done(l);
}

static void timeout_over(void *data)
{
        struct launcher *l = data;

        if (l->family.alive)
                report_timeout(l);
        launcher_end(l, CLI_TIMEOUT);
}

/* --- signals --- */

/* Stop as a job of a shell does; the terminal is the shell's meanwhile. */
static void suspend(struct launcher *l)
{
        console_hub_suspend(l->hub);
        raise(SIGSTOP);
        console_hub_resume(l->hub);
}

static void fork_by_signal(struct launcher *l)
{
        struct machine *root = l->family.count ? l->family.machines[0] : NULL;
        struct err err = {0};

        if (!l->setup->fork_count || l->setup->fork_at.trigger != FORK_AT_SIGNAL)
                message(MESSAGE_WARN, "SIGUSR1 does nothing without --fork N --fork-at signal");
        else if (!root || root->state == MACHINE_STARTING)
                l->fork_wanted = true;
        else if (forks_ask(l, root, l->setup->fork_count, NULL, &err))
                message(MESSAGE_WARN, "SIGUSR1: %s", err.text);
}

static void signal_ready(void *data, int fd, unsigned events)
{
        struct launcher *l = data;
        struct signalfd_siginfo info;

        if (read(l->signal_fd, &info, sizeof info) != (ssize_t)sizeof info)
                return;
        switch (info.ssi_signo) {
        case SIGUSR1:
                fork_by_signal(l);
                break;
        case SIGTSTP:
                suspend(l);
                break;
        case SIGCONT:
                if (!l->ending)
                        console_hub_resume(l->hub);
                break;
        default:
                if (l->ending)
                        loop_stop(l->loop); /* asked twice: now */
                launcher_end(l, CLI_SIGNAL + (int)info.ssi_signo);
        }
}

static int watch_signals(struct launcher *l)
{
        static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGTSTP, SIGCONT};
        sigset_t mask, blocked;

        sigemptyset(&mask);
        for (unsigned i = 0; i < sizeof watched / sizeof watched[0]; i++)
                sigaddset(&mask, watched[i]);
        blocked = mask;
        sigaddset(&blocked, SIGPIPE); /* a write then fails with EPIPE, and that is seen to */
        if (sigprocmask(SIG_BLOCK, &blocked, &l->old_mask))
                return -errno;
        l->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
        if (l->signal_fd < 0)
                return -errno;
        return loop_add_fd(l->loop, l->signal_fd, POLLIN, signal_ready, l, &l->signal_watch);
}

/* A SIGPIPE that is pending by now has been seen to, and must not end the program after all. */
static void unblock_signals(struct launcher *l)
{
        const struct timespec at_once = {0};
        sigset_t pipe;

        sigemptyset(&pipe);
        sigaddset(&pipe, SIGPIPE);
        if (!sigismember(&l->old_mask, SIGPIPE))
                (void)sigtimedwait(&pipe, NULL, &at_once);
        sigprocmask(SIG_SETMASK, &l->old_mask, NULL);
}

/* --- consoles --- */

static void console_quit(void *data)
{
        launcher_end(data, CLI_KILLED);
}

static void console_unread(void *data)
{
        launcher_end(data, CLI_SIGNAL + SIGPIPE);
}

static void console_drained(void *data)
{
        launcher_check_done(data);
}

static void console_line(void *data, void *owner, const char *text, size_t len)
{
        struct launcher *l = data;

        l->setup->hooks->line(l->setup->hook_data, owner, text, len);
}

static const struct console_hub_ops console_ops = {
        .quit = console_quit,
        .closed = console_unread,
        .drained = console_drained,
};
static const struct console_hub_ops captured_ops = {
        .quit = console_quit,
        .closed = console_unread,
        .drained = console_drained,
        .line = console_line,
};

/* --- life --- */

static void spawner_ready(void *data, int fd, unsigned events)
{
        follow_events(data);
}

/* Many clones need many descriptors. The spawner has its own limit: this comes after it. */
static void raise_descriptors(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit))
                return;
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int launcher_create(const struct launcher_setup *setup, struct launcher **out, struct err *err)
{
        struct launcher *l = calloc(1, sizeof *l);
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        int ret;

        if (!l || ramet_ctx_create(&l->ctx)) {
                free(l);
                return err_host(err, ENOMEM, "no memory for the launcher");
        }
        l->setup = setup;
        l->be = setup->backend;
        l->signal_fd = -1;
        l->status = -1;
        l->window = cpus > 2 ? (unsigned)cpus : 2;
        ret = l->be->spawner_create(l->ctx, &l->spawner);
        if (ret) {
                err_host(err, -ret, "the process that starts machines cannot be made: %s",
                         strerror(-ret));
                ramet_ctx_destroy(l->ctx);
                free(l);
                return ret;
        }
        raise_descriptors();
        ret = loop_create(true, &l->loop);
        if (ret) {
                err_host(err, -ret, "no event loop: %s", strerror(-ret));
                launcher_destroy(l);
                return ret;
        }
        *out = l;
        return 0;
}

static int take_name(struct launcher *l, struct err *err)
{
        int ret;

        snprintf(l->name, sizeof l->name, "%s", l->setup->name);
        if (!l->setup->control)
                return 0;
        ret = control_create(l, l->name, &l->control, err);
        if (ret != -EADDRINUSE || !l->setup->name_is_free)
                return ret;
        snprintf(l->name, sizeof l->name, "%.40s-%d", l->setup->name, (int)getpid());
        return control_create(l, l->name, &l->control, err);
}

/* Everything but the machine. The events file comes last: it is emptied, so nothing may fail then.
 */
static int prepare(struct launcher *l, struct err *err)
{
        const struct launcher_setup *setup = l->setup;
        bool captured = setup->hooks && setup->hooks->line;
        int ret;

        ret = watch_signals(l);
        if (!ret)
                ret = loop_add_fd(l->loop, l->be->spawner_fd(l->spawner), POLLIN, spawner_ready, l,
                                  &l->spawner_watch);
        if (!ret)
                ret = console_hub_create(l->loop, &setup->console, setup->fork_count > 0,
                                         captured ? &captured_ops : &console_ops, l, &l->hub);
        if (ret)
                return err_host(err, -ret, "the launcher cannot be set up: %s", strerror(-ret));
        ret = take_name(l, err);
        if (ret)
                return ret;
        ret = keeper_start(&l->keeper, console_hub_tty(l->hub),
                           l->control ? control_path(l->control) : NULL);
        if (ret)
                return err_host(err, -ret, "the process that tidies up cannot be made: %s",
                                strerror(-ret));
        return events_open(setup->events_path, l->be, &l->events, err);
}

static int start_root(struct launcher *l, const struct ramet_vm_options *options, struct err *err)
{
        const struct launcher_setup *setup = l->setup;
        struct ramet_vm_options o = *options;
        struct machine *m;
        int ret;

        ret = family_add(&l->family, NULL, l->name, 0, &m, err);
        if (ret)
                return ret;
        m->options = options;
        o.name = l->name;
        m->vcpus = o.vcpus;
        m->memory_bytes = o.memory_bytes;
        if (setup->fork_at.trigger == FORK_AT_GUEST || setup->fork_at.trigger == FORK_AT_CONSOLE)
                o.fork_count = setup->fork_count;
        o.fork_at_doorbell = o.fork_count && setup->fork_at.trigger == FORK_AT_GUEST;
        o.fork_at_console = o.fork_count ? setup->fork_at.text : NULL;
        ret = console_open(l->hub, m->path, m, &o.console_in_fd, &o.console_out_fd, &m->console,
                           err);
        if (ret)
                return ret;
        ret = l->be->start(l->spawner, &o, &m->process);
        if (ret) {
                err->class = ramet_last_error_is_input(l->ctx) ? ERR_INPUT : ERR_HOST;
                snprintf(err->text, sizeof err->text, "%s", launcher_why(l, ret));
        } else {
                l->be->set_data(m->process, m);
        }
        if (o.console_in_fd >= 0)
                close(o.console_in_fd);
        if (o.console_out_fd >= 0)
                close(o.console_out_fd);
        return ret;
}

int launcher_run(struct launcher *l, const struct ramet_vm_options *options)
{
        struct err err = {0};
        int ret = prepare(l, &err);

        if (!ret)
                ret = start_root(l, options, &err);
        if (!ret && l->setup->timeout_ns &&
            loop_add_timer(l->loop, l->setup->timeout_ns, timeout_over, l, &l->timeout))
                ret = err_host(&err, ENOMEM, "no timer for --timeout");
        if (ret) {
                message(MESSAGE_ERROR, "%s", err.text);
                return err.class == ERR_INPUT ? CLI_INPUT : CLI_HOST;
        }
        console_hub_resume(l->hub);
        ret = loop_run(l->loop);
        console_hub_suspend(l->hub);
        if (ret) {
                message(MESSAGE_ERROR, "the event loop failed: %s", strerror(-ret));
                return CLI_HOST;
        }
        if (l->setup->table && l->status < CLI_SIGNAL && l->family.count > 1)
                report_print(l, stderr, table_colour(STDERR_FILENO));
        return report_status(l);
}

void launcher_destroy(struct launcher *l)
{
        if (!l)
                return;
        console_hub_destroy(
                l->hub); /* the terminal first: nothing after this can fail to give it back */
        control_destroy(l->control);
        l->be->spawner_destroy(l->spawner);
        keeper_stop(&l->keeper);
        forks_fini(l);
        events_close(l->events);
        loop_remove(l->timeout);
        loop_remove(l->after);
        loop_remove(l->linger);
        loop_remove(l->spawner_watch);
        if (l->signal_fd >= 0) {
                loop_remove(l->signal_watch);
                close(l->signal_fd);
                unblock_signals(l);
        }
        loop_destroy(l->loop);
        family_fini(&l->family);
        ramet_ctx_destroy(l->ctx);
        free(l);
}
