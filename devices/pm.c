/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Power management of a hardware-reduced ACPI machine: the sleep control and sleep status registers
 * (ACPI 6.5, section 4.8.3.7) and the reset register (4.8.3.6), one port each.
 *
 *      +0  sleep control  SLP_TYP in bits 2-4, SLP_EN (bit 5, reads as 0) enters that state
 *      +1  sleep status   WAK_STS in bit 7, cleared by writing 1 to it
 *      +2  reset          writing 1 (the FADT's RESET_VALUE) resets
 *      +3  reads 0
 *
 * \_S5 in the DSDT gives SLP_TYP 5. No other sleeping state is offered; a guest that enters one all
 * the same finds itself woken at once, since an OS waits for WAK_STS after it has set SLP_EN
 * (16.1).
 *
 * A wider access is the bytes one after another.
 */
#include "devices/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "x86/layout.h"

#define PORTS 4

enum {
        SLEEP_CONTROL = 0,
        SLEEP_STATUS = 1,
        RESET = 2,
};

#define SLP_TYP       0x1cu
#define SLP_TYP_SHIFT 2
#define SLP_EN        0x20u
#define WAK_STS       0x80u
#define SLP_TYP_S5    5u
#define RESET_VALUE   1u

struct pm {
        const struct device_env *env; /* [I] */
        pthread_mutex_t lock;
        uint8_t control; /* [m] SLP_TYP as last written */
        uint8_t status;  /* [m] WAK_STS */
};

struct pm_record {
        uint8_t control;
        uint8_t status;
        uint8_t reserved[6];
};

static int pm_create(const struct device_env *env, const struct device_params *params,
                     unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                     unsigned *nwindows, struct err *err)
{
        struct pm *pm = calloc(1, sizeof *pm);

        if (!pm)
                return err_host(err, ENOMEM, "pm: out of memory");
        pm->env = env;
        pthread_mutex_init(&pm->lock, NULL);
        windows[0] = (struct device_window){DEVICE_PIO, LAYOUT_PORT_PM, PORTS};
        *nwindows = 1;
        *dev = pm;
        return 0;
}

static void pm_destroy(void *dev)
{
        struct pm *pm = dev;

        if (!pm)
                return;
        pthread_mutex_destroy(&pm->lock);
        free(pm);
}

static void pm_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        struct pm *pm = dev;

        memset(data, 0, len);
        pthread_mutex_lock(&pm->lock);
        for (unsigned i = 0; i < len; i++) {
                if (offset + i == SLEEP_CONTROL)
                        data[i] = pm->control;
                else if (offset + i == SLEEP_STATUS)
                        data[i] = pm->status;
        }
        pthread_mutex_unlock(&pm->lock);
}

/* Without the lock when it tells the machine, which may save this device. */
static void write_control(struct pm *pm, uint8_t value)
{
        bool off = (value & SLP_EN) && (value & SLP_TYP) >> SLP_TYP_SHIFT == SLP_TYP_S5;

        pthread_mutex_lock(&pm->lock);
        pm->control = value & SLP_TYP;
        if ((value & SLP_EN) && !off)
                pm->status |= WAK_STS;
        pthread_mutex_unlock(&pm->lock);
        if (off)
                pm->env->notify(pm->env->machine, DEVICE_POWEROFF, 0);
}

static void pm_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data, unsigned len)
{
        struct pm *pm = dev;

        for (unsigned i = 0; i < len; i++) {
                switch (offset + i) {
                case SLEEP_CONTROL:
                        write_control(pm, data[i]);
                        break;
                case SLEEP_STATUS:
                        pthread_mutex_lock(&pm->lock);
                        pm->status &= (uint8_t) ~(data[i] & WAK_STS);
                        pthread_mutex_unlock(&pm->lock);
                        break;
                case RESET:
                        if (data[i] == RESET_VALUE)
                                pm->env->notify(pm->env->machine, DEVICE_REBOOT, 0);
                        break;
                default:
                        break;
                }
        }
}

static void pm_save(void *dev, void *record)
{
        struct pm *pm = dev;
        struct pm_record r = {0};

        pthread_mutex_lock(&pm->lock);
        r.control = pm->control;
        r.status = pm->status;
        pthread_mutex_unlock(&pm->lock);
        memcpy(record, &r, sizeof r);
}

static int pm_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        static const uint8_t zero[sizeof((struct pm_record *)0)->reserved];
        struct pm *pm = dev;
        struct pm_record r;

        memcpy(&r, record, sizeof r);
        if (r.control & ~SLP_TYP)
                return err_input(err, "pm: reserved bits in sleep control 0x%x", r.control);
        if (r.status & ~WAK_STS)
                return err_input(err, "pm: reserved bits in sleep status 0x%x", r.status);
        if (memcmp(r.reserved, zero, sizeof zero))
                return err_input(err, "pm: reserved bytes are not zero");
        pthread_mutex_lock(&pm->lock);
        pm->control = r.control;
        pm->status = r.status;
        pthread_mutex_unlock(&pm->lock);
        return 0;
}

const struct device_ops pm_ops = {
        .name = "pm",
        .record_kind = RECORD_DEV_PM,
        .record_version = 1,
        .record_length = sizeof(struct pm_record),
        .create = pm_create,
        .destroy = pm_destroy,
        .read = pm_read,
        .write = pm_write,
        .save = pm_save,
        .restore = pm_restore,
};
