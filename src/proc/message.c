/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wire: see message.h. One table says for every type who may send it, how long it is and how
 * many descriptors come along; what a table cannot say, such as ranges of fields, is in one small
 * function for each struct. A message that fails any of it is never seen by the callers, and every
 * descriptor that came with it, asked for or not, has been closed.
 *
 * A socket whose peer died with unread messages reports ECONNRESET once, *before* what the peer had
 * still sent. So that is no end: the receiver goes on to read until there is one.
 */
#include "proc/message.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct message_rule {
        enum message_type type;
        enum message_link link;
        size_t min_length, max_length;
        unsigned min_fds, max_fds;
        const char *(*check)(const void *msg, size_t length, unsigned nfds);
};

static const char *check_boot(const void *msg, size_t length, unsigned nfds);
static const char *check_clone(const void *msg, size_t length, unsigned nfds);
static const char *check_shell(const void *msg, size_t length, unsigned nfds);
static const char *check_fork(const void *msg, size_t length, unsigned nfds);
static const char *check_event(const void *msg, size_t length, unsigned nfds);

#define FIXED(s) sizeof(struct s), sizeof(struct s)
#define EVENT(t)                                                                                   \
        {                                                                                          \
                (t), MESSAGE_MACHINE_TO_LAUNCHER, FIXED(message_event), 0, 0, check_event          \
        }

#define OVERLAY_FDS_MAX (2 * RAMET_DISKS_MAX)
#define BOOT_FDS_MAX    (4 + 2 * RAMET_DISKS_MAX + OVERLAY_FDS_MAX)
#define FROZEN_FDS_MAX  (1 + MESSAGE_LAYERS_MAX + MESSAGE_FILES_MAX)
#define CLONE_FDS_MAX   (FROZEN_FDS_MAX + OVERLAY_FDS_MAX + 2)
_Static_assert(CLONE_FDS_MAX <= MESSAGE_FDS_MAX, "a clone of the largest template can be told of");

static const struct message_rule rules[] = {
        {MESSAGE_SPAWN, MESSAGE_LAUNCHER_TO_SPAWNER, FIXED(message_spawn), 1, 1, NULL},
        {MESSAGE_KILL, MESSAGE_LAUNCHER_TO_SPAWNER, FIXED(message_spawn), 0, 0, NULL},
        {MESSAGE_LAUNCHED, MESSAGE_SPAWNER_TO_LAUNCHER, FIXED(message_spawn), 0, 0, NULL},
        {MESSAGE_REFUSED, MESSAGE_SPAWNER_TO_LAUNCHER, FIXED(message_spawn), 0, 0, NULL},
        {MESSAGE_REAPED, MESSAGE_SPAWNER_TO_LAUNCHER, FIXED(message_spawn), 0, 0, NULL},
        {MESSAGE_BOOT, MESSAGE_LAUNCHER_TO_MACHINE, offsetof(struct message_boot, cmdline) + 1,
         sizeof(struct message_boot), 1, BOOT_FDS_MAX, check_boot},
        {MESSAGE_CLONE, MESSAGE_LAUNCHER_TO_MACHINE, FIXED(message_clone), 2, CLONE_FDS_MAX,
         check_clone},
        {MESSAGE_SHELL, MESSAGE_LAUNCHER_TO_MACHINE, FIXED(message_shell), 0, 0, check_shell},
        {MESSAGE_FORK, MESSAGE_LAUNCHER_TO_MACHINE, FIXED(message_command), 0, OVERLAY_FDS_MAX,
         check_fork},
        {MESSAGE_PAUSE, MESSAGE_LAUNCHER_TO_MACHINE, FIXED(message_command), 0, 0, NULL},
        {MESSAGE_RESUME, MESSAGE_LAUNCHER_TO_MACHINE, FIXED(message_command), 0, 0, NULL},
        {MESSAGE_RESET, MESSAGE_LAUNCHER_TO_MACHINE, FIXED(message_command), 0, 0, NULL},
        EVENT(MESSAGE_STARTED),
        EVENT(MESSAGE_READY),
        EVENT(MESSAGE_RUNNING),
        EVENT(MESSAGE_FORK_POINT),
        {MESSAGE_FROZEN, MESSAGE_MACHINE_TO_LAUNCHER, FIXED(message_event), 2, FROZEN_FDS_MAX,
         check_event},
        EVENT(MESSAGE_FORK_FAILED),
        EVENT(MESSAGE_PAUSED),
        EVENT(MESSAGE_RESUMED),
        EVENT(MESSAGE_RESET_DONE),
        EVENT(MESSAGE_RESET_FAILED),
        EVENT(MESSAGE_NOTE),
        EVENT(MESSAGE_EXIT),
        EVENT(MESSAGE_WARM),
};

static bool ends(const char *s, size_t room)
{
        return memchr(s, 0, room) != NULL;
}

static unsigned bits(uint32_t set)
{
        return (unsigned)__builtin_popcount(set);
}

static const char *check_shape(const struct message_shape *s)
{
        if (s->cow > RAMET_COW_ROM || s->ndisks > RAMET_DISKS_MAX || s->rng > 1 ||
            s->virtio_console > 1 || s->virtio_cmdline > 1 || s->debug_exit_port > UINT16_MAX)
                return "a setting out of range";
        return NULL;
}

/* Those that the message says to have an overlay are some of @ndisks. */
static bool overlays_fit(uint32_t overlays, unsigned ndisks)
{
        return !(overlays & ~((1u << ndisks) - 1));
}

static const char *check_disks(const struct message_boot *b)
{
        for (unsigned i = 0; i < b->shape.ndisks; i++) {
                const struct message_disk *d = &b->disks[i];

                if (strnlen(d->serial, sizeof d->serial) > RAMET_SERIAL_MAX ||
                    !ends(d->name, sizeof d->name))
                        return "a text that does not end";
                if (d->readonly > 1 || (d->readonly && b->overlays >> i & 1))
                        return "a setting out of range";
        }
        return NULL;
}

static const char *check_boot(const void *msg, size_t length, unsigned nfds)
{
        const struct message_boot *b = msg;
        size_t cmdline = length - offsetof(struct message_boot, cmdline);
        const char *why = check_shape(&b->shape);

        if (why)
                return why;
        if (b->has & ~MESSAGE_HAS_ALL || !overlays_fit(b->overlays, b->shape.ndisks))
                return "unknown descriptors are announced";
        if (nfds != 1 + bits(b->has) + 2 * b->shape.ndisks + 2 * bits(b->overlays))
                return "another number of descriptors than announced";
        if (!ends(b->fork_text, sizeof b->fork_text) ||
            !ends(b->kernel_name, sizeof b->kernel_name) ||
            !ends(b->initramfs_name, sizeof b->initramfs_name) ||
            strnlen(b->cmdline, cmdline) != cmdline - 1)
                return "a text that does not end";
        if (b->seccomp > RAMET_SECCOMP_OFF || b->hugepages > RAMET_HUGEPAGES_OFF)
                return "a setting out of range";
        return check_disks(b);
}

static const char *check_clone(const void *msg, size_t length, unsigned nfds)
{
        const struct message_clone *c = msg;

        if (c->has & ~(MESSAGE_HAS_CONSOLE_IN | MESSAGE_HAS_CONSOLE_OUT) ||
            !overlays_fit(c->overlays, RAMET_DISKS_MAX))
                return "unknown descriptors are announced";
        if (c->nlayers < 1 || c->nlayers > MESSAGE_LAYERS_MAX || c->nfiles > MESSAGE_FILES_MAX ||
            nfds != 1 + c->nlayers + c->nfiles + 2 * bits(c->overlays) + bits(c->has))
                return "another number of descriptors than announced";
        if (c->seccomp > RAMET_SECCOMP_OFF || c->hugepages > RAMET_HUGEPAGES_OFF ||
            c->cow > RAMET_COW_ROM)
                return "a setting out of range";
        return NULL;
}

static const char *check_shell(const void *msg, size_t length, unsigned nfds)
{
        const struct message_shell *s = msg;

        return check_shape(&s->shape);
}

static const char *check_fork(const void *msg, size_t length, unsigned nfds)
{
        const struct message_command *c = msg;

        if (!overlays_fit(c->overlays, RAMET_DISKS_MAX))
                return "unknown descriptors are announced";
        if (nfds != 2 * bits(c->overlays))
                return "another number of descriptors than announced";
        return NULL;
}

static const char *check_event(const void *msg, size_t length, unsigned nfds)
{
        const struct message_event *e = msg;

        if (!ends(e->text, sizeof e->text))
                return "a text that does not end";
        switch (e->head.type) {
        case MESSAGE_RUNNING:
                if (e->running.how < MESSAGE_HOW_DOORBELL || e->running.how > MESSAGE_HOW_KICK)
                        return "an unknown kind of first exit";
                break;
        case MESSAGE_FORK_POINT:
                if (e->fork_point.cause < RAMET_FORK_DOORBELL ||
                    e->fork_point.cause > RAMET_FORK_REQUEST)
                        return "an unknown cause of a fork";
                break;
        case MESSAGE_FROZEN:
                if (e->frozen.nlayers < 1 || e->frozen.nlayers > MESSAGE_LAYERS_MAX ||
                    e->frozen.nfiles > MESSAGE_FILES_MAX ||
                    nfds != 1 + e->frozen.nlayers + e->frozen.nfiles)
                        return "another number of descriptors than announced";
                break;
        case MESSAGE_EXIT: /* KILLED is the launcher's word */
                if (e->exit.reason < RAMET_EXIT_POWEROFF || e->exit.reason > RAMET_EXIT_LIMIT ||
                    e->exit.reason == RAMET_EXIT_KILLED)
                        return "an unknown reason of an exit";
                break;
        }
        return NULL;
}

const char *message_check(enum message_link link, const void *msg, size_t length, unsigned nfds)
{
        const struct message_head *head = msg;

        if (length < sizeof *head)
                return "a message that is cut short";
        if (head->version != MESSAGE_VERSION)
                return "a message of another version";
        if (head->length != length || head->nfds != nfds)
                return "a message that is not as long as it says";
        for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
                const struct message_rule *r = &rules[i];

                if (r->type != head->type || r->link != link)
                        continue;
                if (length < r->min_length || length > r->max_length)
                        return "a message of the wrong length";
                if (nfds < r->min_fds || nfds > r->max_fds)
                        return "a message with the wrong number of descriptors";
                return r->check ? r->check(msg, length, nfds) : NULL;
        }
        return "an unknown message";
}

/* Room for the descriptors of one message, aligned as CMSG_FIRSTHDR wants it. */
union control {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX)];
};

int message_send(int sock, void *msg, size_t length, const int *fds, unsigned nfds, int flags)
{
        struct message_head *head = msg;
        struct iovec iov = {.iov_base = msg, .iov_len = length};
        struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
        union control control;

        if (nfds > MESSAGE_FDS_MAX)
                return -E2BIG;
        head->version = MESSAGE_VERSION;
        head->length = (uint32_t)length;
        head->nfds = nfds;
        if (nfds) {
                mh.msg_control = control.buf;
                mh.msg_controllen = CMSG_SPACE(sizeof(int) * nfds);

                struct cmsghdr *c = CMSG_FIRSTHDR(&mh);

                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int) * nfds);
                memcpy(CMSG_DATA(c), fds, sizeof(int) * nfds);
        }
        for (;;) {
                if (sendmsg(sock, &mh, flags | MSG_NOSIGNAL) >= 0)
                        return 0;
                if (errno != EINTR)
                        return -errno;
        }
}

/* Every descriptor that came, of however many headers, so that none is left behind. */
static void collect(struct msghdr *mh, struct message_fds *fds)
{
        for (struct cmsghdr *c = CMSG_FIRSTHDR(mh); c; c = CMSG_NXTHDR(mh, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t off = 0; off + sizeof(int) <= c->cmsg_len - CMSG_LEN(0);
                     off += sizeof(int)) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + off, sizeof fd);
                        if (fds->n < MESSAGE_FDS_MAX)
                                fds->fd[fds->n++] = fd;
                        else
                                close(fd);
                }
        }
}

void message_close_fds(struct message_fds *fds)
{
        while (fds->n)
                close(fds->fd[--fds->n]);
}

/* The control buffer has room for all that a message can carry, so if descriptors are missing it
 * was for want of room in this process: not the sender's fault. */
static int settle(enum message_link link, const void *msg, size_t length, int flags,
                  struct message_fds *fds, const char **why)
{
        bool lost = flags & MSG_CTRUNC;
        unsigned nfds = fds->n;

        if (lost && length >= sizeof(struct message_head))
                nfds = ((const struct message_head *)msg)->nfds;
        *why = flags & MSG_TRUNC ? "a message that is too long"
                                 : message_check(link, msg, length, nfds);
        if (!*why && !lost)
                return (int)length;
        message_close_fds(fds);
        return *why ? -EBADMSG : -EMFILE;
}

int message_receive(int sock, enum message_link link, void *msg, size_t size,
                    struct message_fds *fds, int flags, const char **why)
{
        struct iovec iov = {.iov_base = msg, .iov_len = size};
        union control control;
        struct msghdr mh;
        ssize_t n;

        fds->n = 0;
        for (;;) {
                mh = (struct msghdr){.msg_iov = &iov,
                                     .msg_iovlen = 1,
                                     .msg_control = control.buf,
                                     .msg_controllen = sizeof control.buf};
                n = recvmsg(sock, &mh, flags | MSG_CMSG_CLOEXEC);
                if (n >= 0)
                        break;
                if (errno != EINTR && errno != ECONNRESET)
                        return -errno;
        }
        collect(&mh, fds);
        /* An empty packet looks like the end. Who sends one is gone as far as anybody here cares.
         */
        if (n == 0 && !fds->n)
                return 0;
        return settle(link, msg, (size_t)n, mh.msg_flags, fds, why);
}
