/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The virtual machine generation id (Microsoft, "Virtual Machine Generation ID", 2012): 16 random
 * bytes at LAYOUT_VMGENID, which the DSDT points to, and which change whenever the machine is
 * continued from a copy of its past. The guest learns of a change by an interrupt of the ACPI
 * generic event device, and draws new randomness.
 *
 * It answers in no window: the guest reads plain memory. So what it reads is right before the first
 * instruction after a fork, even with interrupts off. The guest can write there, too, and only
 * fools itself: the id kept here is what is saved.
 */
#include "devices/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "x86/layout.h"

struct vmgenid {
        const struct device_env *env; /* [I] */
        uint8_t guid[16];             /* changed while the vCPUs are stopped */
};

struct vmgenid_record {
        uint8_t guid[16];
};

static int draw(struct vmgenid *v)
{
        uint8_t guid[sizeof v->guid];
        ssize_t n;
        int ret;

        do
                n = getrandom(guid, sizeof guid, 0); /* up to 256 bytes come whole */
        while (n < 0 && errno == EINTR);
        if (n != sizeof guid)
                return n < 0 ? -errno : -EIO;
        ret = guest_access_write(v->env->mem, LAYOUT_VMGENID, guid, sizeof guid);
        if (ret == 0)
                memcpy(v->guid, guid, sizeof guid);
        return ret;
}

static int vmgenid_create(const struct device_env *env, const struct device_params *params,
                          unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                          unsigned *nwindows, struct err *err)
{
        struct vmgenid *v = calloc(1, sizeof *v);
        int ret;

        if (!v)
                return err_host(err, ENOMEM, "vmgenid: out of memory");
        v->env = env;
        ret = draw(v);
        if (ret) {
                free(v);
                if (ret == -EFAULT)
                        return err_input(err, "vmgenid: the machine has no memory at 0x%llx",
                                         LAYOUT_VMGENID);
                return err_host(err, -ret, "vmgenid: no random bytes: %s", strerror(-ret));
        }
        *nwindows = 0;
        *dev = v;
        return 0;
}

static void vmgenid_destroy(void *dev)
{
        free(dev);
}

int vmgenid_renew(void *vmgenid)
{
        struct vmgenid *v = vmgenid;
        int ret = draw(v);

        if (ret)
                return ret;
        v->env->irq(v->env->machine, LAYOUT_GSI_VMGENID, true);
        v->env->irq(v->env->machine, LAYOUT_GSI_VMGENID, false);
        return 0;
}

/* There is no window, so these are never called. */
static void vmgenid_read(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len)
{
        memset(data, 0xff, len);
}

static void vmgenid_write(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                          unsigned len)
{
}

static void vmgenid_save(void *dev, void *record)
{
        struct vmgenid *v = dev;

        memcpy(record, v->guid, sizeof v->guid);
}

/* Every value is an id. It is in guest memory already when memory was restored, and is put there
 * for the case that only devices were. */
static int vmgenid_restore(void *dev, const void *record, uint32_t version, struct err *err)
{
        struct vmgenid *v = dev;
        uint8_t guid[sizeof v->guid];

        memcpy(guid, record, sizeof guid);
        if (guest_access_write(v->env->mem, LAYOUT_VMGENID, guid, sizeof guid))
                return err_input(err, "vmgenid: the machine has no memory at 0x%llx",
                                 LAYOUT_VMGENID);
        memcpy(v->guid, guid, sizeof guid);
        return 0;
}

static const char *const vmgenid_syscalls[] = {"getrandom", NULL};

const struct device_ops vmgenid_ops = {
        .name = "vmgenid",
        .record_kind = RECORD_DEV_VMGENID,
        .record_version = 1,
        .record_length = sizeof(struct vmgenid_record),
        .create = vmgenid_create,
        .destroy = vmgenid_destroy,
        .read = vmgenid_read,
        .write = vmgenid_write,
        .save = vmgenid_save,
        .restore = vmgenid_restore,
        .syscalls = vmgenid_syscalls,
};
