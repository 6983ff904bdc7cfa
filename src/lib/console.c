/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console of a machine in the program: what it prints waits here until it is read, and what is
 * typed waits until the guest takes it.
 *
 *      vCPU thread, or the loop          inside the gate
 *      output() ---> [ ring ] ---------> ramet_vm_console_read()
 *                       | first byte, first newline: news, and a wake-up
 *                       '--------------> lib_console_serve() ---> CONSOLE event
 *      input() <---- [ typed ] <-------- ramet_vm_console_write()
 *
 * The ring never fills: when there is no room the oldest bytes go, and are counted. So a guest that
 * prints for ever neither waits nor takes memory.
 *
 * A CONSOLE event is worth a wake-up, and a guest that prints through a serial port exits for each
 * byte. So the owner is woken at most twice before the output has been read: for the first byte,
 * which sets a timer, and for the first newline (or half a ring), which is told at once. A prompt
 * without a newline is told when the timer ends. Whatever else is told comes after the output that
 * was printed before it.
 *
 * The lock is a leaf: output() comes with the character backend's lock held.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "lib/lib.h"

#define BYTES_USUAL 65536u
#define LINGER_NS   1000000u /* what a line may take to be complete; 9600 baud are not waited for */

/* --- output: any thread --- */

/* Append; the oldest go. */
static void keep(struct lib_console *c, const uint8_t *bytes, size_t len)
{
        size_t tail, first, over;

        c->printed += len;
        if (len > c->size) {
                c->dropped += len - c->size;
                bytes += len - c->size;
                len = c->size;
        }
        over = len > c->size - c->len ? len - (c->size - c->len) : 0;
        c->dropped += over;
        c->head = (c->head + over) % c->size;
        c->len -= over;
        tail = (c->head + c->len) % c->size;
        first = len < c->size - tail ? len : c->size - tail;
        memcpy(c->ring + tail, bytes, first);
        memcpy(c->ring, bytes + first, len - first);
        c->len += len;
}

static void output(void *data, const void *bytes, size_t len)
{
        struct ramet_vm *vm = data;
        struct lib_console *c = &vm->console;
        bool news = false;

        if (len == 0)
                return;
        pthread_mutex_lock(&c->lock);
        if (c->len == 0) {
                c->since_ns = clock_now_ns();
                news = true;
        }
        keep(c, bytes, len);
        if (!c->whole && (c->len >= c->size / 2 || memchr(bytes, '\n', len))) {
                c->whole = true;
                news = true;
        }
        pthread_mutex_unlock(&c->lock);
        if (news) {
                atomic_store(&c->news, true);
                loop_wake(vm->loop);
        }
}

/* --- the event --- */

/* Tell of what is there, if it has not been: a whole line, what has been there for long, or, with
 * @now, anything. */
void lib_console_tell(struct ramet_vm *vm, bool now)
{
        struct ramet_vm_event event = {.type = RAMET_VM_CONSOLE};
        struct lib_console *c = &vm->console;
        uint64_t age;
        bool due;

        pthread_mutex_lock(&c->lock);
        due = c->len > 0 && !c->told;
        event.t_ns = c->since_ns;
        age = due ? clock_now_ns() - c->since_ns : 0;
        now = now || c->whole || age >= LINGER_NS;
        c->told = c->told || (due && now);
        pthread_mutex_unlock(&c->lock);
        if (!due)
                return;
        if (now)
                lib_event(vm, &event, false);
        loop_rearm_timer(c->timer, now ? UINT64_MAX : LINGER_NS - age);
}

static void on_timer(void *data)
{
        lib_console_tell(data, false);
}

void lib_console_serve(struct ramet_vm *vm)
{
        if (atomic_exchange(&vm->console.news, false))
                lib_console_tell(vm, false);
}

void lib_console_dropped(struct ramet_vm *vm)
{
        struct lib_console *c = &vm->console;

        pthread_mutex_lock(&c->lock);
        c->told = false;
        pthread_mutex_unlock(&c->lock);
}

bool lib_console_has_output(struct ramet_vm *vm)
{
        struct lib_console *c = &vm->console;
        bool has;

        pthread_mutex_lock(&c->lock);
        has = c->len > 0;
        pthread_mutex_unlock(&c->lock);
        return has;
}

/* --- input and reset: inside --- */

static size_t input(void *data, void *buf, size_t len)
{
        struct lib_console *c = &((struct ramet_vm *)data)->console;

        len = len < c->ntyped ? len : c->ntyped;
        memcpy(buf, c->typed, len);
        c->ntyped -= len;
        memmove(c->typed, c->typed + len, c->ntyped);
        return len;
}

static void empty_locked(struct lib_console *c)
{
        c->len = 0;
        c->told = c->whole = false;
}

static void discard(void *data)
{
        struct lib_console *c = &((struct ramet_vm *)data)->console;

        c->ntyped = 0;
        pthread_mutex_lock(&c->lock);
        empty_locked(c);
        pthread_mutex_unlock(&c->lock);
}

/* --- life --- */

int lib_console_init(struct ramet_vm *vm, size_t bytes, struct err *err)
{
        struct lib_console *c = &vm->console;
        int r;

        c->size = bytes ? bytes : BYTES_USUAL;
        c->ring = malloc(c->size);
        if (!c->ring)
                return err_host(err, ENOMEM, "no memory for %zu bytes of console output", c->size);
        r = loop_add_timer(vm->loop, UINT64_MAX, on_timer, vm, &c->timer);
        if (r < 0) {
                free(c->ring);
                c->ring = NULL;
                return err_host(err, -r, "console: %s", strerror(-r));
        }
        pthread_mutex_init(&c->lock, NULL);
        return 0;
}

struct chardev_sink lib_console_sink(struct ramet_vm *vm)
{
        return (struct chardev_sink){output, input, discard, vm};
}

void lib_console_fini(struct ramet_vm *vm)
{
        struct lib_console *c = &vm->console;

        if (!c->ring)
                return;
        loop_remove(c->timer);
        pthread_mutex_destroy(&c->lock);
        free(c->ring);
        c->ring = NULL;
}

void lib_console_stats(struct ramet_vm *vm, uint64_t *printed, uint64_t *dropped)
{
        struct lib_console *c = &vm->console;

        pthread_mutex_lock(&c->lock);
        *printed = c->printed;
        *dropped = c->dropped;
        pthread_mutex_unlock(&c->lock);
}

/* --- the program's calls --- */

static int read_output(struct lib_console *c, uint8_t *buf, size_t len)
{
        size_t first;

        len = len < INT_MAX ? len : INT_MAX;
        pthread_mutex_lock(&c->lock);
        len = len < c->len ? len : c->len;
        first = len < c->size - c->head ? len : c->size - c->head;
        memcpy(buf, c->ring + c->head, first);
        memcpy(buf + first, c->ring, len - first);
        c->head = (c->head + len) % c->size;
        c->len -= len;
        if (c->len == 0)
                empty_locked(c);
        pthread_mutex_unlock(&c->lock);
        return (int)len;
}

int ramet_vm_console_read(struct ramet_vm *vm, void *buf, size_t len)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                if (buf)
                        ret = read_output(&vm->console, buf, len);
                else if (len > 0)
                        ret = err_input(&err, "buf: NULL given, room for %zu bytes expected", len);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int type(struct ramet_vm *vm, const void *buf, size_t len)
{
        struct lib_console *c = &vm->console;
        const size_t room = sizeof c->typed - c->ntyped;

        len = len < room ? len : room;
        memcpy(c->typed + c->ntyped, buf, len);
        c->ntyped += len;
        vm_console_feed(vm->vm);
        return (int)len;
}

int ramet_vm_console_write(struct ramet_vm *vm, const void *buf, size_t len)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                if (buf)
                        ret = type(vm, buf, len);
                else if (len > 0)
                        ret = err_input(&err, "buf: NULL given, %zu bytes expected", len);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}

static int watch(struct ramet_vm *vm, const char *text, struct err *err)
{
        int r;

        if (text && !text[0])
                return err_input(err, "text: \"\" given, 1 to 255 bytes or NULL expected");
        r = vm_watch(vm->vm, text);
        return r == -EINVAL ? err_input(err, "text: more than 255 bytes given") : r;
}

int ramet_vm_console_watch(struct ramet_vm *vm, const char *text)
{
        struct err err = {0};
        int ret = lib_enter(vm, LIB_ANY, &err);

        if (ret == 0) {
                ret = watch(vm, text, &err);
                lib_leave(vm);
        }
        return lib_result(ret, &err);
}
