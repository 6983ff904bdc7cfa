/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines that do as they are told, for test_proc.c: they speak the protocol of src/proc over
 * their channel, rightly or wrongly, and never touch KVM. The kernel command line says what they
 * are to do.
 */
#ifndef RAMET_TESTS_PROC_FAKES_H
#define RAMET_TESTS_PROC_FAKES_H

static struct message_event say(enum message_type type)
{
        return (struct message_event){.head.type = type, .t_ns = clock_now_ns()};
}

static int tell(int channel, struct message_event m)
{
        return message_send(channel, &m, sizeof m, NULL, 0, 0);
}

static struct message_command hear(int channel)
{
        union {
                struct message_command command;
                struct message_boot boot;
        } m = {0};
        struct message_fds fds;
        const char *why;

        if (message_receive(channel, MESSAGE_LAUNCHER_TO_MACHINE, &m, sizeof m, &fds, 0, &why) <= 0)
                _exit(77); /* hung up */
        message_close_fds(&fds);
        return m.command;
}

static int say_exit(int channel, int status)
{
        struct message_event m = say(MESSAGE_EXIT);

        m.exit.reason = RAMET_EXIT_DEBUG;
        m.exit.status = status;
        strcpy(m.text, "bye \x1b[31m\n");
        tell(channel, m);
        return status;
}

static void send_frozen(int channel, unsigned count)
{
        struct message_event m = say(MESSAGE_FROZEN);
        int fds[2] = {memfd_create("state", MFD_CLOEXEC), memfd_create("layer", MFD_CLOEXEC)};

        m.frozen.fork_point_ns = m.t_ns;
        m.frozen.count = count;
        m.frozen.nlayers = 1;
        m.frozen.generation = 1;
        message_send(channel, &m, sizeof m, fds, 2, 0);
        close(fds[0]);
        close(fds[1]);
}

static void freeze(int channel, unsigned count, enum ramet_fork_cause cause)
{
        struct message_event m = say(MESSAGE_FORK_POINT);

        m.fork_point.cause = cause;
        m.fork_point.count = count;
        tell(channel, m);
        send_frozen(channel, count);
}

static _Noreturn void obey(int channel)
{
        for (;;) {
                struct message_command c = hear(channel);

                if (c.head.type == MESSAGE_FORK)
                        freeze(channel, c.count, RAMET_FORK_REQUEST);
                else if (c.head.type == MESSAGE_RESET)
                        tell(channel, say(MESSAGE_RESET_DONE));
                else
                        tell(channel,
                             say(c.head.type == MESSAGE_PAUSE ? MESSAGE_PAUSED : MESSAGE_RESUMED));
        }
}

static int fake_clone(int channel, const struct message_clone *c, const struct message_fds *fds)
{
        struct message_event m = say(MESSAGE_READY);

        for (unsigned i = 0; i < fds->n; i++)
                if (fcntl(fds->fd[i], F_GETFD) < 0)
                        return 98;
        tell(channel, m);
        m = say(MESSAGE_RUNNING);
        m.running.how = MESSAGE_HOW_DOORBELL;
        tell(channel, m);
        say_exit(channel, (int)(c->index % 256));
        return (int)(c->index % 256);
}

static unsigned open_fds(void)
{
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        while (readdir(d))
                n++;
        closedir(d);
        return n - 3; /* ".", ".." and its own */
}

/* Say things that a machine may not say. */
static int misbehave(int channel, const char *how)
{
        struct message_event m;

        if (!strcmp(how, "junk")) {
                send(channel, "junk", 4, 0);
        } else if (!strcmp(how, "ready")) {
                tell(channel, say(MESSAGE_READY));
        } else if (!strcmp(how, "twice")) {
                tell(channel, say(MESSAGE_STARTED));
                tell(channel, say(MESSAGE_STARTED));
        } else if (!strcmp(how, "paused")) {
                tell(channel, say(MESSAGE_STARTED));
                tell(channel, say(MESSAGE_PAUSED));
        } else if (!strcmp(how, "reset")) {
                tell(channel, say(MESSAGE_STARTED));
                tell(channel, say(MESSAGE_RESET_DONE));
        } else if (!strcmp(how, "unreset")) {
                tell(channel, say(MESSAGE_STARTED));
                tell(channel, say(MESSAGE_RESET_FAILED));
        } else if (!strcmp(how, "fork")) {
                tell(channel, say(MESSAGE_STARTED));
                freeze(channel, 4, RAMET_FORK_DOORBELL);
        } else if (!strcmp(how, "failed")) {
                tell(channel, say(MESSAGE_FORK_FAILED));
        } else if (!strcmp(how, "frozen")) {
                tell(channel, say(MESSAGE_STARTED));
                send_frozen(channel, 4);
        } else if (!strcmp(how, "after")) {
                m = say(MESSAGE_EXIT);
                m.exit.reason = RAMET_EXIT_POWEROFF;
                tell(channel, m);
                tell(channel, say(MESSAGE_NOTE));
        } else if (!strcmp(how, "notes")) {
                while (!tell(channel, say(MESSAGE_NOTE)))
                        ;
        } else if (!strcmp(how, "mute")) {
                close(channel);
        }
        sleep(60);
        return 0;
}

static int fake_boot(int channel, const struct message_boot *b)
{
        const char *what = b->kernel_name;
        sigset_t mask;

        if (!strcmp(what, "environment")) { /* bits of what is not as it should be */
                struct message_event m = say(MESSAGE_EXIT);
                char name[16] = "";

                sigprocmask(SIG_BLOCK, NULL, &mask);
                prctl(PR_GET_NAME, name);
                m.exit.reason = RAMET_EXIT_DEBUG;
                m.exit.status =
                        (open_fds() != 4 + 4 ? 1 : 0) | /* 0, 1, 2, channel; what came */
                        (getsid(0) != getppid() ? 2 : 0) | (sigismember(&mask, SIGINT) ? 4 : 0) |
                        (channel != 3 ? 8 : 0) | (strcmp(name, "ramet-spawner") ? 16 : 0) |
                        (strcmp(b->cmdline, "a=b c") ? 32 : 0) | (b->shape.vcpus != 3 ? 64 : 0);
                tell(channel, m);
                return 0;
        }
        if (!strcmp(what, "clean"))
                return say_exit(channel, 7);
        if (!strcmp(what, "silent"))
                return 3;
        if (!strcmp(what, "sigsys"))
                return kill(getpid(), SIGSYS);
        if (!strcmp(what, "words")) { /* die with an unread message in our own queue */
                tell(channel, say(MESSAGE_STARTED));
                usleep(100000);
                return say_exit(channel, 9);
        }
        if (!strncmp(what, "bad ", 4))
                return misbehave(channel, what + 4);
        tell(channel, say(MESSAGE_STARTED));
        if (!strcmp(what, "doorbell"))
                freeze(channel, b->fork_count, RAMET_FORK_DOORBELL);
        if (!strcmp(what, "obey") || !strcmp(what, "doorbell"))
                obey(channel);
        pause();
        return 0;
}

static int fake_main(void *shared, int channel)
{
        static union {
                struct message_head head;
                struct message_boot boot;
                struct message_clone clone;
        } m;
        struct message_fds fds;
        const char *why;

        if (message_receive(channel, MESSAGE_LAUNCHER_TO_MACHINE, &m, sizeof m, &fds, 0, &why) <= 0)
                return 99;
        return m.head.type == MESSAGE_CLONE ? fake_clone(channel, &m.clone, &fds)
                                            : fake_boot(channel, &m.boot);
}

static const struct spawner_ops fakes = {.machine = fake_main};

#endif
