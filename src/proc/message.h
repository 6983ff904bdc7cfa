/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What launcher, spawner and machines say to each other: fixed binary structs, one to a packet of a
 * SOCK_SEQPACKET socket pair, with descriptors beside them in the order given here. All are forks
 * of one program, so there is one version and no byte order to agree on.
 *
 *      launcher -> spawner     SPAWN { channel }, KILL
 *      spawner  -> launcher    LAUNCHED or REFUSED, later REAPED
 *      launcher -> machine     first BOOT { kernel, initramfs?, console in?, console out?, disks }
 *                              or CLONE { state, layers, files, overlays, console in?, out? },
 *                              then FORK { overlays }, PAUSE, RESUME, RESET
 *      machine  -> launcher    STARTED or READY, and so on; EXIT is the last.
 *                              FROZEN { state, layers, files }
 *
 *      disks     for each: image, image for reading only, overlay?
 *      overlays  for each disk that has one: its file, open for both, and for reading only
 *      files     of devices, layers of disks: the state says whose they are
 *
 * A machine's process may have been taken over by its guest, so nothing that comes is believed:
 * message_receive() hands out only messages whose type may come from that peer, whose length and
 * number of descriptors are right, whose strings end and whose enums are in range. Whether it may
 * come *now* is the caller's to say.
 */
#ifndef RAMET_PROC_MESSAGE_H
#define RAMET_PROC_MESSAGE_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include <ramet/process.h>

#define MESSAGE_VERSION     1u
#define MESSAGE_FDS_MAX     253   /* SCM_MAX_FD: what one message can carry */
#define MESSAGE_LAYERS_MAX  80    /* TEMPLATE_LAYERS_MAX */
#define MESSAGE_FILES_MAX   128   /* TEMPLATE_FILES_MAX */
#define MESSAGE_CMDLINE_MAX 65536 /* with its NUL */
#define MESSAGE_TEXT_MAX    512
#define MESSAGE_WATCH_MAX   256 /* the console text that forks, with its NUL */

enum message_type {
        MESSAGE_SPAWN = 0x01,
        MESSAGE_KILL, /* one that is gone, or was never there, is ignored */

        MESSAGE_LAUNCHED = 0x10,
        MESSAGE_REFUSED, /* there was no process to be had */
        MESSAGE_REAPED,

        MESSAGE_BOOT = 0x20,
        MESSAGE_CLONE,
        MESSAGE_FORK,
        MESSAGE_PAUSE,
        MESSAGE_RESUME,
        MESSAGE_SHELL,
        MESSAGE_RESET,

        MESSAGE_STARTED = 0x40,
        MESSAGE_READY,
        MESSAGE_RUNNING,
        MESSAGE_FORK_POINT,
        MESSAGE_FROZEN,
        MESSAGE_FORK_FAILED,
        MESSAGE_PAUSED,
        MESSAGE_RESUMED,
        MESSAGE_NOTE,
        MESSAGE_EXIT,
        MESSAGE_RESET_DONE,
        MESSAGE_RESET_FAILED,
        MESSAGE_WARM, /* a shell is ready for its CLONE */
};

/* Whom a message comes from, and for whom it is. */
enum message_link {
        MESSAGE_LAUNCHER_TO_SPAWNER = 1,
        MESSAGE_SPAWNER_TO_LAUNCHER,
        MESSAGE_LAUNCHER_TO_MACHINE,
        MESSAGE_MACHINE_TO_LAUNCHER,
};

struct message_head {
        uint32_t type;
        uint32_t version;
        uint32_t length; /* of the whole message, this head included */
        uint32_t nfds;
};

/* SPAWN, KILL, LAUNCHED, REFUSED, REAPED */
struct message_spawn {
        struct message_head head;
        uint64_t id;         /* names the process; never used twice */
        int32_t pid;         /* LAUNCHED */
        int32_t wait_status; /* REAPED: as waitpid(2) gives it */
        int32_t error;       /* REFUSED: positive errno */
        uint32_t reserved;
};

#define MESSAGE_HAS_INITRAMFS   1u /* which of the optional descriptors are there */
#define MESSAGE_HAS_CONSOLE_IN  2u
#define MESSAGE_HAS_CONSOLE_OUT 4u
#define MESSAGE_HAS_ALL         7u

/* What a machine is, as far as an empty one must be the same to become it. No padding: two are the
 * same if their bytes are. */
struct message_shape {
        uint64_t memory_bytes;
        uint32_t vcpus;
        uint32_t debug_exit_port;
        uint32_t cow;
        uint32_t ndisks;
        uint32_t rng, virtio_console, virtio_cmdline; /* 0 or 1 */
        uint32_t reserved;
};

struct message_disk {
        uint64_t iops_max;
        uint64_t bandwidth_max;
        uint32_t readonly;
        char serial[RAMET_SERIAL_MAX + 4];
        char name[PATH_MAX];
};

struct message_boot {
        struct message_head head;
        struct message_shape shape;
        uint64_t flat_address;
        uint32_t flat_bits; /* 0: the kernel is not a flat binary */
        uint32_t has;
        uint32_t overlays; /* bit i: disk i has a file for after the fork that is armed */
        uint32_t fork_count;
        uint32_t fork_at_doorbell;
        uint32_t seccomp;
        uint32_t hugepages;
        uint32_t reserved;
        struct message_disk disks[RAMET_DISKS_MAX];
        char fork_text[MESSAGE_WATCH_MAX]; /* "": not by console */
        char kernel_name[PATH_MAX];
        char initramfs_name[PATH_MAX];
        char cmdline[MESSAGE_CMDLINE_MAX]; /* the packet ends after its NUL */
};

struct message_clone {
        struct message_head head;
        uint32_t nlayers;
        uint32_t nfiles;
        uint32_t overlays; /* bit i: disk i has a file to write to */
        uint32_t index;
        uint32_t count;
        uint32_t has;
        uint32_t paused;
        uint32_t seccomp;
        uint32_t hugepages;
        uint32_t cow;
        uint32_t reserved;
};

/* A machine without a template yet: once it said WARM, CLONE tells it what to become. */
struct message_shell {
        struct message_head head;
        struct message_shape shape;
};

/* FORK, PAUSE, RESUME, RESET */
struct message_command {
        struct message_head head;
        uint32_t count;    /* FORK */
        uint32_t overlays; /* FORK: bit i: disk i has a file for what it writes afterwards */
};

enum message_how {
        MESSAGE_HOW_DOORBELL = 1,
        MESSAGE_HOW_EXIT,
        MESSAGE_HOW_KICK,
};

/* Everything that a machine says. One size for all: they are few and rare. */
struct message_event {
        struct message_head head;
        uint64_t t_ns; /* CLOCK_MONOTONIC */
        union {
                struct {
                        uint32_t how;
                } running;
                struct {
                        uint64_t reset_ns;
                } reset;
                struct {
                        uint32_t cause;
                        uint32_t count;
                } fork_point;
                struct {
                        uint64_t fork_point_ns;
                        uint64_t stop_ns;
                        uint64_t pause_ns;
                        uint64_t freeze_ns;
                        uint64_t publish_ns;
                        uint64_t copied_bytes;
                        uint64_t generation;
                        uint32_t count;
                        uint32_t nlayers;
                        uint32_t nfiles;
                } frozen;
                struct {
                        uint64_t shared_bytes;
                        uint64_t private_bytes;
                        uint64_t assists;
                        uint32_t reason;
                        int32_t status;
                } exit;
        };
        uint32_t text_is_input;
        uint32_t reserved;
        char text[MESSAGE_TEXT_MAX]; /* FORK_FAILED, RESET_FAILED, NOTE, EXIT */
};

struct message_fds {
        unsigned n;
        int fd[MESSAGE_FDS_MAX];
};

/* Send @msg, which begins with a message_head with its type set and whose size is @length; the head
 * is completed here. @flags: MSG_DONTWAIT or 0. The descriptors remain the caller's.
 * 0, -EAGAIN, or another -errno (-EPIPE: the peer is gone). */
int message_send(int sock, void *msg, size_t length, const int *fds, unsigned nfds, int flags);

/* Receive one message of @link into @msg (@size bytes, room for the longest of that link). Its
 * descriptors, all close-on-exec, are the caller's. On any failure there are none.
 * The length, 0 at the end, -EAGAIN, -EBADMSG (*why tells in words), -EMFILE (the message is there
 * and is right, but this process has no room for its descriptors), or another -errno. */
int message_receive(int sock, enum message_link link, void *msg, size_t size,
                    struct message_fds *fds, int flags, const char **why);

/* The check that message_receive() makes of the bytes: NULL, or what is wrong with them. */
const char *message_check(enum message_link link, const void *msg, size_t length, unsigned nfds);

void message_close_fds(struct message_fds *fds);

#endif
