/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serial port: a 16550A UART (National Semiconductor PC16550D data sheet, June 1995; the
 * sections named below are its own), wired as COM1 of a PC.
 *
 * There is no baud rate: a byte written is sent and a byte received is there, so that the four
 * character times after which a FIFO below its trigger level interrupts (FIFO Interrupt Mode
 * Operation) have always passed. Transmission ends at the console's buffer. As long as that is full
 * the transmitter holding register is not empty, and the guest waits as it would for a slow line.
 * Nothing of the transmitter is state but whether its interrupt is owed: bytes are in the console
 * or not written yet.
 *
 * The interrupt is a level, computed from the state after each change, under the lock, so that two
 * threads cannot set the line in the wrong order. (On a PC, OUT2 gates the line as well. Drivers
 * that forget to set it run on other VMMs, and run here.)
 *
 * Locking: everything is under ->lock, which is taken before the chardev's own. It is not held
 * across chardev_write(), since output may match the text that a fork waits for, and then the
 * machine saves this device before that call returns. So the state is already what it will be after
 * the byte is sent, and the line follows after it is.
 */
#include "devices/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "x86/layout.h"

#define PORTS     8
#define FIFO_SIZE 16

/* Register offsets (Summary of Registers) */
enum {
        RBR_THR_DLL = 0,
        IER_DLM = 1,
        IIR_FCR = 2,
        LCR = 3,
        MCR = 4,
        LSR = 5,
        MSR = 6,
        SCR = 7,
};

#define IER_RDA  0x01u
#define IER_THRE 0x02u
#define IER_RLS  0x04u
#define IER_MSI  0x08u
#define IER_ALL  0x0fu

/* Interrupt identification, most urgent first (Interrupt Control Functions) */
#define IIR_RLS   0x06u
#define IIR_RDA   0x04u
#define IIR_CTI   0x0cu /* character time-out */
#define IIR_THRE  0x02u
#define IIR_MSI   0x00u
#define IIR_NONE  0x01u
#define IIR_FIFOS 0xc0u

#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define FCR_DMA      0x08u
#define FCR_TRIGGER  0xc0u
#define FCR_KEPT     (FCR_ENABLE | FCR_DMA | FCR_TRIGGER)

#define LCR_DLAB 0x80u

#define MCR_DTR  0x01u
#define MCR_RTS  0x02u
#define MCR_OUT1 0x04u
#define MCR_OUT2 0x08u
#define MCR_LOOP 0x10u
#define MCR_ALL  0x1fu

#define LSR_DR   0x01u
#define LSR_OE   0x02u
#define LSR_THRE 0x20u
#define LSR_TEMT 0x40u

#define MSR_DELTAS 0x0fu
#define MSR_TERI   0x04u
#define MSR_CTS    0x10u
#define MSR_DSR    0x20u
#define MSR_RI     0x40u
#define MSR_DCD    0x80u

struct serial {
        const struct device_env *env; /* [I] */
        pthread_mutex_t lock;
        uint8_t ier;           /* [m] */
        uint8_t fcr;           /* [m] FCR_KEPT */
        uint8_t lcr;           /* [m] */
        uint8_t mcr;           /* [m] */
        uint8_t deltas;        /* [m] the MSR's low half */
        uint8_t scr;           /* [m] */
        uint8_t dll, dlm;      /* [m] */
        bool overrun;          /* [m] LSR_OE */
        bool thre_owed;        /* [m] a THRE interrupt has not been identified yet */
        bool line;             /* [m] what the interrupt line is set to */
        unsigned count;        /* [m] bytes in rx, oldest first */
        uint8_t rx[FIFO_SIZE]; /* [m] */
};

struct serial_record {
        uint8_t ier, fcr, lcr, mcr;
        uint8_t deltas, scr, dll, dlm;
        uint8_t overrun, thre_owed, count;
        uint8_t reserved[5];
        uint8_t rx[FIFO_SIZE]; /* zero from count on */
};

/* ---- state, under the lock ---- */

static unsigned capacity(const struct serial *s)
{
        return s->fcr & FCR_ENABLE ? FIFO_SIZE : 1;
}

static unsigned trigger(const struct serial *s)
{
        static const uint8_t levels[] = {1, 4, 8, 14};

        return s->fcr & FCR_ENABLE ? levels[s->fcr >> 6] : 1;
}

/* The most urgent pending interrupt that is enabled. */
static uint8_t pending(struct serial *s)
{
        if ((s->ier & IER_RLS) && s->overrun)
                return IIR_RLS;
        if ((s->ier & IER_RDA) && s->count > 0)
                return s->count >= trigger(s) ? IIR_RDA : IIR_CTI;
        /* Asking for the space also asks to be called when it is there again. */
        if ((s->ier & IER_THRE) && s->thre_owed && chardev_space(s->env->console) > 0)
                return IIR_THRE;
        if ((s->ier & IER_MSI) && s->deltas)
                return IIR_MSI;
        return IIR_NONE;
}

static void update_line(struct serial *s)
{
        bool line = pending(s) != IIR_NONE;

        if (line == s->line)
                return;
        s->line = line;
        s->env->irq(s->env->machine, LAYOUT_GSI_SERIAL, line);
}

/* Modem lines: in loopback the outputs come back as inputs (Modem Control Register), else somebody
 * is there. */
static uint8_t modem_lines(const struct serial *s)
{
        if (!(s->mcr & MCR_LOOP))
                return MSR_DCD | MSR_DSR | MSR_CTS;
        return (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                         (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void set_mcr(struct serial *s, uint8_t value)
{
        uint8_t before = modem_lines(s), after;

        s->mcr = value & MCR_ALL;
        after = modem_lines(s);
        /* a delta bit for each line that changed; for RI only its trailing edge (Modem Status
         * Register) */
        s->deltas |= (uint8_t)((before ^ after) >> 4 & MSR_DELTAS & ~MSR_TERI);
        if (before & ~after & MSR_RI)
                s->deltas |= MSR_TERI;
}

static void receive(struct serial *s, uint8_t byte)
{
        if (s->count == capacity(s)) {
                s->overrun = true;
                /* without FIFOs the new byte overwrites the old; with them it is lost (Line Status
                 * Register) */
                if (capacity(s) > 1)
                        return;
                s->count = 0;
        }
        s->rx[s->count++] = byte;
}

static uint8_t take_byte(struct serial *s)
{
        uint8_t byte = s->rx[0];

        if (s->count == 0)
                return 0;
        s->count--;
        memmove(s->rx, s->rx + 1, s->count);
        return byte;
}

static void set_fcr(struct serial *s, uint8_t value)
{
        /* Changing the enable bit empties the FIFOs, and the other bits count only with it (FIFO
         * Control Register).
         */
        if ((value ^ s->fcr) & FCR_ENABLE)
                s->count = 0;
        if (!(value & FCR_ENABLE))
                value = 0;
        if (value & FCR_CLEAR_RX)
                s->count = 0;
        s->fcr = value & FCR_KEPT;
}

/* ---- the guest's side ---- */

static uint8_t read_iir(struct serial *s)
{
        uint8_t iir = pending(s);

        if (iir == IIR_THRE)
                s->thre_owed = false;
        return iir | (s->fcr & FCR_ENABLE ? IIR_FIFOS : 0);
}

static uint8_t read_lsr(struct serial *s)
{
        uint8_t lsr = 0;

        if (s->count > 0)
                lsr |= LSR_DR;
        if (s->overrun)
                lsr |= LSR_OE;
        if ((s->mcr & MCR_LOOP) || chardev_space(s->env->console) > 0)
                lsr |= LSR_THRE | LSR_TEMT;
        s->overrun = false;
        return lsr;
}

static uint8_t read_reg(struct serial *s, uint64_t reg)
{
        uint8_t value;

        switch (reg) {
        case RBR_THR_DLL:
                return s->lcr & LCR_DLAB ? s->dll : take_byte(s);
        case IER_DLM:
                return s->lcr & LCR_DLAB ? s->dlm : s->ier;
        case IIR_FCR:
                return read_iir(s);
        case LCR:
                return s->lcr;
        case MCR:
                return s->mcr;
        case LSR:
                return read_lsr(s);
        case MSR:
                value = modem_lines(s) | s->deltas;
                s->deltas = 0;
                return value;
        case SCR:
                return s->scr;
        default:
                return 0xff;
        }
}

static void serial_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        struct serial *s = dev;
        bool had, emptied;

        pthread_mutex_lock(&s->lock);
        had = s->count > 0;
        for (unsigned i = 0; i < len; i++)
                data[i] = read_reg(s, offset + i);
        emptied = had && s->count == 0;
        update_line(s);
        pthread_mutex_unlock(&s->lock);
        if (emptied)
                chardev_input_ready(s->env->console);
}

/* A byte into the transmitter. Called with the lock, which it drops while the byte goes out. */
static void transmit(struct serial *s, uint8_t byte)
{
        /* Full, then empty again: the line falls and rises, which edge-triggered controllers need.
         */
        s->thre_owed = false;
        update_line(s);
        s->thre_owed = true;
        if (s->mcr & MCR_LOOP) {
                receive(s, byte);
                return;
        }
        /* A driver that does not wait for THRE loses what it writes, as on the line. */
        if (chardev_space(s->env->console) == 0)
                return;
        pthread_mutex_unlock(&s->lock);
        chardev_write(s->env->console, &byte, 1);
        pthread_mutex_lock(&s->lock);
}

static void write_ier(struct serial *s, uint8_t value)
{
        /* Enabling the interrupt of an empty transmitter raises it, which is how drivers begin. */
        if (value & ~s->ier & IER_THRE)
                s->thre_owed = true;
        s->ier = value & IER_ALL;
}

static void write_reg(struct serial *s, uint64_t reg, uint8_t value)
{
        switch (reg) {
        case RBR_THR_DLL:
                if (s->lcr & LCR_DLAB)
                        s->dll = value;
                else
                        transmit(s, value);
                break;
        case IER_DLM:
                if (s->lcr & LCR_DLAB)
                        s->dlm = value;
                else
                        write_ier(s, value);
                break;
        case IIR_FCR:
                set_fcr(s, value);
                break;
        case LCR:
                s->lcr = value;
                break;
        case MCR:
                set_mcr(s, value);
                break;
        case SCR:
                s->scr = value;
                break;
        default: /* LSR and MSR are the chip's */
                break;
        }
}

static void serial_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                         unsigned len)
{
        struct serial *s = dev;
        bool room;

        pthread_mutex_lock(&s->lock);
        for (unsigned i = 0; i < len; i++)
                write_reg(s, offset + i, data[i]);
        update_line(s);
        room = s->count == 0;
        pthread_mutex_unlock(&s->lock);
        /* FCR may have emptied the FIFO, MCR may have ended loopback */
        if (room && (offset == IIR_FCR || offset == MCR || len > 1))
                chardev_input_ready(s->env->console);
}

/* ---- the console's side: the loop's thread ---- */

static size_t serial_input_room(void *dev)
{
        struct serial *s = dev;
        size_t room;

        pthread_mutex_lock(&s->lock);
        room = s->mcr & MCR_LOOP ? 0 : capacity(s) - s->count;
        pthread_mutex_unlock(&s->lock);
        return room;
}

static void serial_input(void *dev, const void *data, size_t len)
{
        struct serial *s = dev;

        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < len; i++)
                receive(s, ((const uint8_t *)data)[i]);
        update_line(s);
        pthread_mutex_unlock(&s->lock);
}

static void serial_output_ready(void *dev)
{
        struct serial *s = dev;

        pthread_mutex_lock(&s->lock);
        update_line(s);
        pthread_mutex_unlock(&s->lock);
}

static const struct chardev_ops console_ops = {
        .input_room = serial_input_room,
        .input = serial_input,
        .output_ready = serial_output_ready,
};

/* What is typed goes to another device. */
static const struct chardev_ops output_ops = {
        .output_ready = serial_output_ready,
};

/* ---- life, and saved state ---- */

static int serial_create(const struct device_env *env, const struct device_params *params,
                         unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                         unsigned *nwindows, struct err *err)
{
        struct serial *s = calloc(1, sizeof *s);

        if (!s)
                return err_host(err, ENOMEM, "serial: out of memory");
        s->env = env;
        s->dll =
                12; /* 9600 baud, for those who read it back; the chip itself leaves it undefined */
        pthread_mutex_init(&s->lock, NULL);
        windows[0] = (struct device_window){DEVICE_PIO, LAYOUT_PORT_SERIAL, PORTS};
        *nwindows = 1;
        *dev = s;
        chardev_attach(env->console, params->virtio_console ? &output_ops : &console_ops, s);
        return 0;
}

static void serial_destroy(void *dev)
{
        struct serial *s = dev;

        if (!s)
                return;
        chardev_detach(s->env->console, s);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

static void serial_save(void *dev, void *record)
{
        struct serial *s = dev;
        struct serial_record r = {0};

        pthread_mutex_lock(&s->lock);
        r.ier = s->ier;
        r.fcr = s->fcr;
        r.lcr = s->lcr;
        r.mcr = s->mcr;
        r.deltas = s->deltas;
        r.scr = s->scr;
        r.dll = s->dll;
        r.dlm = s->dlm;
        r.overrun = s->overrun;
        r.thre_owed = s->thre_owed;
        r.count = (uint8_t)s->count;
        memcpy(r.rx, s->rx, s->count);
        pthread_mutex_unlock(&s->lock);
        memcpy(record, &r, sizeof r);
}

static int check_record(const struct serial_record *r, struct err *err)
{
        static const uint8_t zero[FIFO_SIZE];

        if (r->ier & ~IER_ALL)
                return err_input(err, "serial: reserved bits in ier 0x%x", r->ier);
        if (r->fcr & ~FCR_KEPT || (r->fcr && !(r->fcr & FCR_ENABLE)))
                return err_input(err, "serial: impossible bits in fcr 0x%x", r->fcr);
        if (r->mcr & ~MCR_ALL)
                return err_input(err, "serial: reserved bits in mcr 0x%x", r->mcr);
        if (r->deltas & ~MSR_DELTAS)
                return err_input(err, "serial: reserved bits in deltas 0x%x", r->deltas);
        if (r->overrun > 1)
                return err_input(err, "serial: overrun is %u, not 0 or 1", r->overrun);
        if (r->thre_owed > 1)
                return err_input(err, "serial: thre_owed is %u, not 0 or 1", r->thre_owed);
        if (r->count > (r->fcr & FCR_ENABLE ? FIFO_SIZE : 1))
                return err_input(err, "serial: count of received bytes %u is too large", r->count);
        if (memcmp(r->rx + r->count, zero, FIFO_SIZE - r->count))
                return err_input(err, "serial: received bytes beyond their count");
        if (memcmp(r->reserved, zero, sizeof r->reserved))
                return err_input(err, "serial: reserved bytes are not zero");
        return 0;
}

static int serial_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        struct serial *s = dev;
        struct serial_record r;
        int ret;

        memcpy(&r, record, sizeof r);
        ret = check_record(&r, err);
        if (ret)
                return ret;
        pthread_mutex_lock(&s->lock);
        s->ier = r.ier;
        s->fcr = r.fcr;
        s->lcr = r.lcr;
        s->mcr = r.mcr;
        s->deltas = r.deltas;
        s->scr = r.scr;
        s->dll = r.dll;
        s->dlm = r.dlm;
        s->overrun = r.overrun;
        s->thre_owed = r.thre_owed;
        s->count = r.count;
        memcpy(s->rx, r.rx, sizeof s->rx);
        /* Said even if it seems to be so already: the interrupt controller may be a new one. */
        s->line = pending(s) != IIR_NONE;
        s->env->irq(s->env->machine, LAYOUT_GSI_SERIAL, s->line);
        pthread_mutex_unlock(&s->lock);
        chardev_input_ready(s->env->console);
        return 0;
}

static const char *const serial_syscalls[] = {"futex", "write", NULL};

const struct device_ops serial_ops = {
        .name = "serial",
        .record_kind = RECORD_DEV_SERIAL,
        .record_version = 1,
        .record_length = sizeof(struct serial_record),
        .create = serial_create,
        .destroy = serial_destroy,
        .read = serial_read,
        .write = serial_write,
        .save = serial_save,
        .restore = serial_restore,
        .syscalls = serial_syscalls,
};
