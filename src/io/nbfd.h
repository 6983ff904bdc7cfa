/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A descriptor that is read and written without ever waiting, whatever it is: pipe, socket,
 * terminal, file. Terminals are the reason for this module: O_NONBLOCK belongs to the open file
 * description, which a terminal's descriptor shares with the shell that started us, so it is never
 * set there.
 *
 * One thread at a time.
 */
#ifndef RAMET_IO_NBFD_H
#define RAMET_IO_NBFD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum nbfd_kind {
        NBFD_NONE = 0, /* no descriptor */
        NBFD_FILE,     /* always ready; a disk is not waited for by poll either */
        NBFD_SOCKET,   /* MSG_DONTWAIT on each call */
        NBFD_PIPE,     /* O_NONBLOCK, and SIGPIPE kept from the program */
        NBFD_NONBLOCK, /* O_NONBLOCK as it came, or a description of our own */
        NBFD_POLLED,   /* blocking, and asked by poll before each call */
};

struct nbfd {
        int fd;
        enum nbfd_kind kind;
};

/* Take @fd (-1: none) for reading, or writing when @output. A terminal is opened anew where that is
 * possible, so n->fd may be another descriptor than @fd; nothing is closed. 0 or -errno. */
int nbfd_init(struct nbfd *n, int fd, bool output);

/* Bytes moved (read: 0 at the end), -EAGAIN when it is to be polled first, or -errno. */
ssize_t nbfd_read(struct nbfd *n, void *buf, size_t len);
ssize_t nbfd_write(struct nbfd *n, const void *buf, size_t len);

/* Close n->fd. A zeroed object is fine. */
void nbfd_fini(struct nbfd *n);

#endif
