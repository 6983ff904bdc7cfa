/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a device is, and what it can see. A device is one file: a struct device_ops, and one line in
 * registry.c. It sees memory, the loop, interrupts and a few ways to tell the machine something,
 * never the VM itself.
 *
 * Threads: read and write are called by vCPU threads, several at once; a device locks for itself.
 * save and restore are called while every vCPU is stopped and no loop callback runs. Guest input is
 * never trusted: any width (1, 2, 4, 8), any offset inside the window, any value.
 */
#ifndef RAMET_DEVICES_DEVICE_H
#define RAMET_DEVICES_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/record.h"
#include "io/chardev.h"
#include "io/loop.h"
#include "mem/access.h"

enum device_event {
        DEVICE_POWEROFF,  /* the guest turned itself off */
        DEVICE_REBOOT,    /* the guest asked for a reset */
        DEVICE_EXIT,      /* the guest ended the run with a status: the argument */
        DEVICE_FORK_RING, /* the fork doorbell was rung: the value */
};

#define DEVICE_SLOTS_MAX 16
#define DEVICE_DISKS_MAX 8
#define DEVICE_FILES_MAX 128 /* of all devices of a machine together */

#define DEVICE_NOTIFY 0x50u /* offset of QueueNotify in a slot's window (virtio 1.2, 4.2.2) */

/* A place on the bus for one virtio-mmio device, made by the machine (ahead of time, in a shell):
 * its window of a page, its interrupt, and two eventfds, which are the machine's. */
struct device_slot {
        uint64_t base;
        unsigned gsi;
        /* Non-blocking. Readable when the guest has written QueueNotify (KVM_IOEVENTFD on 4 bytes
         * at base + DEVICE_NOTIFY). Where the host has none, and when the write has another width,
         * it comes as an access, and the device writes 1 here itself. */
        int notify_fd;
        int irq_fd; /* writing 1 raises the interrupt, edge-triggered (KVM_IRQFD); -1: use irq() */
};

/* What a device may use; owned by the machine, outlives every device. */
struct device_env {
        /* Guest memory, for the loop's thread: callbacks of the loop, create, restore. A register
         * access, which comes on a vCPU's thread, leaves what needs memory to the loop. */
        struct guest_access *mem;
        struct loop *loop;
        struct chardev *console; /* never NULL */
        /* Set an interrupt line. Edge-triggered users raise and lower. Any thread. */
        void (*irq)(void *machine, unsigned gsi, bool level);
        /* Tell the machine. From read and write: the vCPU that made the access does not run on
         * before the machine has dealt with it. */
        void (*notify)(void *machine, enum device_event event, uint64_t arg);
        /* The next free slot. From create, once, by those whose ops say `slot`; 0 or -ENOSPC. Slots
         * go by the order of the calls, so a machine and its clones have the same. */
        int (*slot)(void *machine, struct device_slot *slot);
        /* From read and write: the vCPU that made the access leaves its read section and does not
         * run on before release() has been called as often as this, by the loop's thread. For what
         * the guest expects to be over when its instruction is, and only the loop can do. A device
         * that is restored or saved meanwhile releases; a machine that ends asks for nothing. */
        void (*hold)(void *machine);
        void (*release)(void *machine);
        void *machine;
};

/* One disk. Descriptors are the device's from create() on, also on failure. */
struct device_disk {
        /* A root machine's: the image. A clone's are -1: its layers come with the saved state. */
        int image_fd;    /* O_RDWR, or O_RDONLY with readonly */
        int image_ro_fd; /* the same file, O_RDONLY */
        /* An empty file for what is written from the next fork on (a root) or from the start (a
         * clone), open for both and for reading only. -1: in memory. */
        int overlay_fd, overlay_ro_fd;
        bool readonly;
        char serial[21];        /* NUL-terminated */
        uint64_t iops_max;      /* requests a second; 0: no limit */
        uint64_t bandwidth_max; /* bytes a second; 0: no limit */
        const char *name;       /* of the image, for messages and overlays; borrowed */
};

/* What the user chose, as far as devices care. */
struct device_params {
        uint16_t debug_exit_port; /* 0: none */
        bool rng;
        bool virtio_console; /* the console's input goes there instead of to the serial port */
        unsigned ndisks;
        struct device_disk *disks; /* the descriptors that create() has taken become -1 */
};

/* Descriptors that belong to saved state: layers of disks. */
struct device_files {
        unsigned n;
        int fds[DEVICE_FILES_MAX];
};

enum device_space {
        DEVICE_PIO,
        DEVICE_MMIO,
};

struct device_window {
        enum device_space space;
        uint64_t base;
        uint64_t len;
};

#define DEVICE_WINDOWS 4

struct device_ops {
        const char *name;
        uint32_t record_kind;    /* its saved state (base/record.h) */
        uint32_t record_version; /* what save writes */
        uint32_t record_length;  /* bytes, fixed for the version */

        bool slot; /* each takes one from device_env.slot */
        /* How many of them the parameters ask for, whose `disks` may be NULL. NULL: one. */
        unsigned (*count)(const struct device_params *params);
        /* Make number @index, or leave *dev NULL (and return 0) when the parameters do not ask for
         * it. Fills the windows it answers in, and their number. 0 or -errno with err set. */
        int (*create)(const struct device_env *env, const struct device_params *params,
                      unsigned index, void **dev, struct device_window windows[DEVICE_WINDOWS],
                      unsigned *nwindows, struct err *err);
        void (*destroy)(void *dev);

        /* An access of @len bytes at @offset in window number @window. @data holds or takes
         * little-endian bytes; read fills all of them. */
        void (*read)(void *dev, unsigned window, uint64_t offset, uint8_t *data, unsigned len);
        void (*write)(void *dev, unsigned window, uint64_t offset, const uint8_t *data,
                      unsigned len);

        /* Fill / take record_length bytes. restore checks what it is given: -EINVAL with err. It
         * may come to a device that has been used (a reset): nothing of before may stay, and the
         * device says how its interrupt line is, even if it seems to be so already. */
        void (*save)(void *dev, void *record);
        int (*restore)(void *dev, const void *record, uint32_t version, struct err *err);
        /* After all devices were restored, in a clone or by a reset to a template, while the vCPUs
         * are stopped: what machines of one past must not share is made anew. NULL: nothing. */
        void (*renew)(void *dev);

        /* --- for devices that do something by themselves, or have files. Loop thread. NULL: not
         * so. --- */

        /* Before the vCPUs are stopped: finish what is in flight and begin nothing new until
         * resume(), which comes after they were let go (and after a restore). What the guest asks
         * for meanwhile is not lost. Idempotent. */
        void (*quiesce)(void *dev);
        void (*resume)(void *dev);
        /* A freeze, in this order. prepare: outside the pause, do what takes time or can fail; 0 or
         * -errno, then nothing has changed. freeze, in the pause, after save, cannot fail: from now
         * on nothing that save wrote about is changed. publish: after the pause; adds to @files
         * the descriptors (borrowed from the device) that restore_files will need. cancel: instead
         * of freeze and publish. */
        int (*freeze_prepare)(void *dev, struct err *err);
        void (*freeze)(void *dev);
        int (*freeze_publish)(void *dev, struct device_files *files, struct err *err);
        void (*freeze_cancel)(void *dev);
        /* Right before restore: those files, borrowed until that has returned; it duplicates what
         * it keeps. */
        int (*restore_files)(void *dev, const int *fds, unsigned n, struct err *err);
        /* The file for the next overlay; taken. For disks only. */
        void (*give_overlay)(void *dev, int fd, int ro_fd);

        /* System calls that it makes while the guest runs, by name, NULL-terminated, or NULL. */
        const char *const *syscalls;
};

/* Every device there is, in the order in which they are created; NULL-terminated. */
extern const struct device_ops *const device_registry[];

/* Little-endian values of 1 to 8 bytes, for read and write. */
uint64_t device_get(const uint8_t *data, unsigned len);
void device_put(uint8_t *data, unsigned len, uint64_t value);

/* The doorbell and the generation id have a machine's side, too. */
extern const struct device_ops doorbell_ops;
extern const struct device_ops vmgenid_ops;

/* What RESULT and COUNT read from now on. While the vCPUs are stopped, or from notify(). */
void doorbell_set_result(void *doorbell, uint32_t result, uint32_t count);
/* Called (vCPU thread) at the first read of RESULT after doorbell_set_result(); NULL: nobody. */
void doorbell_on_result_read(void *doorbell, void (*fn)(void *data), void *data);
/* A new random generation id in guest memory, and the interrupt that tells the guest. While the
 * vCPUs are stopped and after interrupt controllers have been restored. 0 or -errno. */
int vmgenid_renew(void *vmgenid);

#endif
