/* SPDX-License-Identifier: Apache-2.0 */
/* The disks of --disk: as they are written, as the library wants them, as people are told of them.
 */
#ifndef RAMET_CLI_DISKS_H
#define RAMET_CLI_DISKS_H

#include <stdbool.h>
#include <stdint.h>

#include <ramet/ramet.h>

#include "base/err.h"

struct disk_spec {
        char *path; /* owned */
        char *serial;
        bool readonly;
        uint64_t iops_max, bandwidth_max;
};

struct disk_list {
        unsigned n;
        struct disk_spec disk[RAMET_DISKS_MAX];
};

/* path=FILE[,readonly=on|off][,serial=TEXT][,iops=N][,bandwidth=SIZE]; a comma in a value is
 * written twice. Adds it to @list. 0, or -EINVAL with what is wrong; then @list is as it was. */
int parse_disk(const char *text, struct disk_list *list, struct err *err);
void disk_list_fini(struct disk_list *list);

/* Open them all, for ramet_process_start(): @disks are @list->n, whose descriptors are to be closed
 * by disk_list_close() in any case. 0 or -EINVAL. */
int disk_list_open(const struct disk_list *list, struct ramet_disk disks[RAMET_DISKS_MAX],
                   struct err *err);
void disk_list_close(const struct disk_list *list, struct ramet_disk disks[RAMET_DISKS_MAX]);

/* What a guest's kernel would call disk number @i: "vda" and so on. */
const char *disk_name(unsigned i, char name[4]);

#endif
