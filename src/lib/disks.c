/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images that a machine of the library is created with: checked, opened and locked by src/proc's
 * code. The lock is on the descriptor for reading, which the machine's templates carry on to their
 * clones: so it is there as long as one of the family can read the image.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/lib.h"
#include "proc/disks.h"

struct lib_disks {
        struct disk_set *set;
        struct ramet_disk setting[RAMET_DISKS_MAX]; /* path and serial are not used */
        char serial[RAMET_DISKS_MAX][RAMET_SERIAL_MAX + 1];
        char *name[RAMET_DISKS_MAX];
};

static int keep(struct lib_disks *disks, const struct ramet_vm_options *o, struct err *err)
{
        for (unsigned i = 0; i < o->ndisks; i++) {
                struct ramet_disk *d = &disks->setting[i];
                int r = disks_nth(o, i, d, err);

                if (r < 0)
                        return r;
                strcpy(disks->serial[i], d->serial ?: ""); /* its length has been checked */
                disks->name[i] = disks_name(d);
                if (!disks->name[i])
                        return err_host(err, ENOMEM, "no memory for the name of a disk");
        }
        return 0;
}

int lib_disks_open(const struct ramet_vm_config *config, struct lib_disks **out, struct err *err)
{
        const struct ramet_vm_options o = {
                .size = sizeof o,
                .disks = config->disks,
                .ndisks = config->ndisks,
        };
        struct lib_disks *disks;
        int r;

        *out = NULL;
        if (!config->ndisks)
                return 0;
        if (!config->disks)
                return err_input(err, "disks: NULL given, %u were expected", config->ndisks);
        disks = calloc(1, sizeof *disks);
        if (!disks)
                return err_host(err, ENOMEM, "no memory for disks");
        r = disks_open(&o, &disks->set, err);
        if (r == 0)
                r = keep(disks, &o, err);
        if (r < 0) {
                lib_disks_close(disks);
                return r;
        }
        *out = disks;
        return 0;
}

void lib_disks_close(struct lib_disks *disks)
{
        if (!disks)
                return;
        disks_unref(disks->set);
        for (unsigned i = 0; i < RAMET_DISKS_MAX; i++)
                free(disks->name[i]);
        free(disks);
}

static int duplicate(int fd, int *out, const char *name, struct err *err)
{
        *out = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        return *out >= 0 ? 0 : err_host(err, errno, "%s: %s", name, strerror(errno));
}

static int give_one(const struct lib_disks *disks, unsigned i, struct device_disk *d,
                    struct err *err)
{
        const struct ramet_disk *setting = &disks->setting[i];
        int r;

        *d = (struct device_disk){
                .image_fd = -1,
                .image_ro_fd = -1,
                .overlay_fd = -1,
                .overlay_ro_fd = -1,
                .readonly = setting->readonly,
                .iops_max = setting->iops_max,
                .bandwidth_max = setting->bandwidth_max,
                .name = disks->name[i],
        };
        strcpy(d->serial, disks->serial[i]);
        r = duplicate(disks->set->image[i].fd, &d->image_fd, d->name, err);
        return r < 0 ? r : duplicate(disks->set->image[i].ro_fd, &d->image_ro_fd, d->name, err);
}

int lib_disks_give(const struct lib_disks *disks, struct vm_options *options, struct err *err)
{
        int r = 0;

        for (unsigned i = 0; disks && i < disks->set->n && r == 0; i++) {
                options->shape.ndisks = i + 1;
                r = give_one(disks, i, &options->disks[i], err);
        }
        for (unsigned i = 0; r < 0 && i < options->shape.ndisks; i++) {
                if (options->disks[i].image_fd >= 0)
                        close(options->disks[i].image_fd);
                if (options->disks[i].image_ro_fd >= 0)
                        close(options->disks[i].image_ro_fd);
        }
        return r;
}
