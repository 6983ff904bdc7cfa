/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A character backend between a guest's console and two descriptors, or a sink: functions of the
 * program that has the machine in it. Output for a descriptor goes into a bounded buffer, which the
 * loop thread writes out as the descriptor takes it; a full buffer is the device's to show to its
 * guest (a UART leaves its transmitter-empty bit clear), never a reason to block a vCPU. A sink
 * takes everything at once. Input is read only as fast as the device takes it.
 *
 * Two devices may share one: a serial port for the first messages, and a console that takes over.
 * What both write is one stream; input goes to one of them.
 *
 * Not part of saved state: bytes that wait here belong to the process that took them from its
 * guest, so that a clone never prints its parent's output again.
 *
 * Locking: chardev_write, chardev_space and chardev_input_ready may be called by any thread; the
 * rest by the loop's thread. The callbacks are called without the chardev's lock held.
 */
#ifndef RAMET_IO_CHARDEV_H
#define RAMET_IO_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>

#include "io/loop.h"

struct chardev;

struct chardev_ops {
        /* Room in the device for input, in bytes: how much of the next input it would take. NULL
         * (with input): the device takes none. Loop thread. */
        size_t (*input_room)(void *dev);
        /* Input, never more than input_room() said. Loop thread. */
        void (*input)(void *dev, const void *data, size_t len);
        /* The output buffer went from full to having room. Loop thread. */
        void (*output_ready)(void *dev);
};

/* @in_fd, @out_fd: owned by the chardev from now on (the caller's still when this fails), -1 for
 * none (output is then discarded); they may be the same. Pipes are made non-blocking, so their ends
 * must not be shared with other programs; a terminal's open file description is left as it is. A
 * regular file is written from the loop's thread, at its offset (or its end, with O_APPEND). 0 or
 * -errno. */
int chardev_create(struct loop *loop, int in_fd, int out_fd, struct chardev **cd);

/* Instead of descriptors. What is called must not wait, and calls nothing here. */
struct chardev_sink {
        /* Output, by the thread that writes, one at a time. */
        void (*output)(void *data, const void *bytes, size_t len);
        /* Take at most @len bytes of input; 0: there is none now, and chardev_feed() comes when
         * there is. Loop thread. */
        size_t (*input)(void *data, void *buf, size_t len);
        /* Drop what has not been taken, in both directions. Loop thread. */
        void (*discard)(void *data);
        void *data;
};
/* @sink is copied. 0 or -errno. */
int chardev_create_sink(struct loop *loop, const struct chardev_sink *sink, struct chardev **cd);
/* The sink has input: the device is given what it takes of it. Loop thread. */
void chardev_feed(struct chardev *cd);

/* Writes out what it can without blocking for longer than @linger_ms in all, then closes. */
void chardev_destroy(struct chardev *cd, unsigned linger_ms);

/* Attach a device, one of at most CHARDEV_DEVICES, of which at most one takes input; or take it off
 * again (one that is not attached: nothing happens). Both hear output_ready. */
#define CHARDEV_DEVICES 2
void chardev_attach(struct chardev *cd, const struct chardev_ops *ops, void *dev);
void chardev_detach(struct chardev *cd, void *dev);

/* Take up to @len bytes of output; returns how many were taken. Never blocks. */
size_t chardev_write(struct chardev *cd, const void *data, size_t len);
size_t chardev_space(struct chardev *cd);
/* The device has room for input again: look at the descriptor once more. */
void chardev_input_ready(struct chardev *cd);

/* Drop what can be read now; a regular file's input stays, and a sink drops all. Loop thread. */
void chardev_discard(struct chardev *cd);

enum chardev_watch {
        CHARDEV_ONCE,
        CHARDEV_ALWAYS, /* each time, also where two of them overlap */
};
/* Call @fn, in the thread that wrote the last byte of it, when the output contains @text (a
 * substring of the stream; at most 255 bytes). NULL or "" disarms. The bytes up to the match have
 * then been taken. @fn may already be on its way when this changes or disarms it. 0 or -EINVAL. */
int chardev_watch_output(struct chardev *cd, const char *text, enum chardev_watch how,
                         void (*fn)(void *data), void *data);

/* System calls made after chardev_create(), by name, NULL-terminated, besides those of the loop. */
extern const char *const chardev_syscalls[];

/* True when every byte of output has been handed to the descriptor. Any thread. */
bool chardev_drained(struct chardev *cd);

#endif
