/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keyboard controller of a PC with nothing plugged in (IBM PS/2 Hardware Interface Technical
 * Reference, "Keyboard and Auxiliary Device Controller", 1988). It is there for one command, 0xfe,
 * which pulses the processor's reset line: the way in which a guest without ACPI reboots.
 *
 * The rest is what lets a driver that looks for it be done soon: every command that has an answer
 * gets it at once, since a driver would otherwise poll for half a second. Both interface tests
 * answer with an error ("clock line stuck low"), and bytes for a keyboard go nowhere. No
 * interrupts.
 *
 * Two windows: 0 is the data port (0x60), 1 the command and status port (0x64).
 */
#include "devices/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "x86/layout.h"

#define PORT_COMMAND (LAYOUT_PORT_I8042 + 4)

enum {
        WINDOW_DATA = 0,
        WINDOW_COMMAND = 1,
};

/* Status */
#define STATUS_OUTPUT   0x01u /* a byte waits at the data port */
#define STATUS_SYSTEM   0x04u /* self test passed; bit 2 of the command byte */
#define STATUS_COMMAND  0x08u /* the last write was a command */
#define STATUS_UNLOCKED 0x10u /* the keyboard lock is open */

/* Commands */
#define CMD_READ_BYTE     0x20u
#define CMD_WRITE_BYTE    0x60u
#define CMD_DISABLE_AUX   0xa7u
#define CMD_ENABLE_AUX    0xa8u
#define CMD_TEST_AUX      0xa9u
#define CMD_SELF_TEST     0xaau
#define CMD_TEST_KEYBOARD 0xabu
#define CMD_DISABLE_KBD   0xadu
#define CMD_ENABLE_KBD    0xaeu
#define CMD_READ_INPUT    0xc0u
#define CMD_READ_OUTPUT   0xd0u
#define CMD_WRITE_OUTPUT  0xd1u
#define CMD_WRITE_KBD_OUT 0xd2u /* the byte appears as if the keyboard had sent it */
#define CMD_WRITE_AUX_OUT 0xd3u
#define CMD_WRITE_AUX     0xd4u
#define CMD_PULSE         0xf0u /* 0xf0 - 0xff: lines whose bit is 0 pulse low; bit 0 is reset */

#define SELF_TEST_OK   0x55u
#define CLOCK_LOW      0x01u
#define BYTE_SYSTEM    0x04u
#define BYTE_KBD_OFF   0x10u
#define BYTE_AUX_OFF   0x20u
#define BYTE_RESERVED  0x80u
#define OUTPUT_NORMAL  0xdfu /* not reset, A20 open, lines high */
#define OUTPUT_NORESET 0x01u

struct i8042 {
        const struct device_env *env; /* [I] */
        pthread_mutex_t lock;
        uint8_t byte;    /* [m] the command byte */
        uint8_t output;  /* [m] what the data port gives next, and again when it is read on */
        bool full;       /* [m] it has not been read */
        bool command;    /* [m] STATUS_COMMAND */
        uint8_t pending; /* [m] the command whose data byte is awaited, or 0 */
};

struct i8042_record {
        uint8_t byte, output, full, command, pending;
        uint8_t reserved[3];
};

static int i8042_create(const struct device_env *env, const struct device_params *params,
                        unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                        unsigned *nwindows, struct err *err)
{
        struct i8042 *k = calloc(1, sizeof *k);

        if (!k)
                return err_host(err, ENOMEM, "i8042: out of memory");
        k->env = env;
        k->byte = BYTE_SYSTEM | BYTE_KBD_OFF | BYTE_AUX_OFF;
        pthread_mutex_init(&k->lock, NULL);
        windows[WINDOW_DATA] = (struct device_window){DEVICE_PIO, LAYOUT_PORT_I8042, 1};
        windows[WINDOW_COMMAND] = (struct device_window){DEVICE_PIO, PORT_COMMAND, 1};
        *nwindows = 2;
        *dev = k;
        return 0;
}

static void i8042_destroy(void *dev)
{
        struct i8042 *k = dev;

        if (!k)
                return;
        pthread_mutex_destroy(&k->lock);
        free(k);
}

static void answer(struct i8042 *k, uint8_t byte)
{
        k->output = byte;
        k->full = true;
}

static uint8_t status(const struct i8042 *k)
{
        return (uint8_t)((k->full ? STATUS_OUTPUT : 0) |
                         (k->byte & BYTE_SYSTEM ? STATUS_SYSTEM : 0) |
                         (k->command ? STATUS_COMMAND : 0) | STATUS_UNLOCKED);
}

static void i8042_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        struct i8042 *k = dev;

        memset(data, 0xff, len); /* a wider access: nobody answers at the next ports */
        pthread_mutex_lock(&k->lock);
        if (window == WINDOW_COMMAND) {
                data[0] = status(k);
        } else {
                data[0] = k->output;
                k->full = false;
        }
        pthread_mutex_unlock(&k->lock);
}

/* True: reset. */
static bool do_command(struct i8042 *k, uint8_t cmd)
{
        k->command = true;
        k->pending = 0;
        switch (cmd) {
        case CMD_READ_BYTE:
                answer(k, k->byte);
                break;
        case CMD_WRITE_BYTE:
        case CMD_WRITE_OUTPUT:
        case CMD_WRITE_KBD_OUT:
        case CMD_WRITE_AUX_OUT:
        case CMD_WRITE_AUX:
                k->pending = cmd;
                break;
        case CMD_DISABLE_AUX:
                k->byte |= BYTE_AUX_OFF;
                break;
        case CMD_ENABLE_AUX:
                k->byte &= (uint8_t)~BYTE_AUX_OFF;
                break;
        case CMD_DISABLE_KBD:
                k->byte |= BYTE_KBD_OFF;
                break;
        case CMD_ENABLE_KBD:
                k->byte &= (uint8_t)~BYTE_KBD_OFF;
                break;
        case CMD_TEST_AUX:
        case CMD_TEST_KEYBOARD:
                answer(k, CLOCK_LOW);
                break;
        case CMD_SELF_TEST:
                k->byte |= BYTE_SYSTEM;
                answer(k, SELF_TEST_OK);
                break;
        case CMD_READ_INPUT:
                answer(k, 0x80); /* keyboard not locked */
                break;
        case CMD_READ_OUTPUT:
                answer(k, OUTPUT_NORMAL);
                break;
        default:
                return cmd >= CMD_PULSE && !(cmd & OUTPUT_NORESET);
        }
        return false;
}

/* True: reset. */
static bool do_data(struct i8042 *k, uint8_t value)
{
        uint8_t cmd = k->pending;

        k->command = false;
        k->pending = 0;
        switch (cmd) {
        case CMD_WRITE_BYTE:
                k->byte = value & (uint8_t)~BYTE_RESERVED;
                break;
        case CMD_WRITE_OUTPUT:
                return !(value & OUTPUT_NORESET);
        case CMD_WRITE_KBD_OUT:
        case CMD_WRITE_AUX_OUT:
                answer(k, value);
                break;
        default: /* for a keyboard or mouse: there is none */
                break;
        }
        return false;
}

static void i8042_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                        unsigned len)
{
        struct i8042 *k = dev;
        bool reset;

        pthread_mutex_lock(&k->lock);
        reset = window == WINDOW_COMMAND ? do_command(k, data[0]) : do_data(k, data[0]);
        pthread_mutex_unlock(&k->lock);
        if (reset)
                k->env->notify(k->env->machine, DEVICE_REBOOT, 0);
}

static void i8042_save(void *dev, void *record)
{
        struct i8042 *k = dev;
        struct i8042_record r = {0};

        pthread_mutex_lock(&k->lock);
        r.byte = k->byte;
        r.output = k->output;
        r.full = k->full;
        r.command = k->command;
        r.pending = k->pending;
        pthread_mutex_unlock(&k->lock);
        memcpy(record, &r, sizeof r);
}

static bool takes_data(uint8_t cmd)
{
        return cmd == CMD_WRITE_BYTE || (cmd >= CMD_WRITE_OUTPUT && cmd <= CMD_WRITE_AUX);
}

static int i8042_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        struct i8042 *k = dev;
        struct i8042_record r;

        memcpy(&r, record, sizeof r);
        if (r.byte & BYTE_RESERVED)
                return err_input(err, "i8042: reserved bits in the command byte 0x%x", r.byte);
        if (r.full > 1)
                return err_input(err, "i8042: full is %u, not 0 or 1", r.full);
        if (r.command > 1)
                return err_input(err, "i8042: command is %u, not 0 or 1", r.command);
        if (r.pending && !takes_data(r.pending))
                return err_input(err, "i8042: pending command 0x%x takes no data", r.pending);
        if (r.reserved[0] || r.reserved[1] || r.reserved[2])
                return err_input(err, "i8042: reserved bytes are not zero");
        pthread_mutex_lock(&k->lock);
        k->byte = r.byte;
        k->output = r.output;
        k->full = r.full;
        k->command = r.command;
        k->pending = r.pending;
        pthread_mutex_unlock(&k->lock);
        return 0;
}

const struct device_ops i8042_ops = {
        .name = "i8042",
        .record_kind = RECORD_DEV_I8042,
        .record_version = 1,
        .record_length = sizeof(struct i8042_record),
        .create = i8042_create,
        .destroy = i8042_destroy,
        .read = i8042_read,
        .write = i8042_write,
        .save = i8042_save,
        .restore = i8042_restore,
};
