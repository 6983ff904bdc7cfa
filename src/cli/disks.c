/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --disk, read key by key. The text is copied once, with its doubled commas made single, and cut
 * into items; so a file may have any name. What a file holds is the library's to check: here it is
 * only opened, with the rights that the disk will need.
 */
#include "cli/disks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/parse.h"

#define IOPS_MAX      1000000000u
#define BANDWIDTH_MAX (1ull << 50)

/* Which keys have been seen. */
struct seen {
        bool path, readonly, serial, iops, bandwidth;
};

static int once(bool *seen, const char *key, struct err *err)
{
        if (*seen)
                return err_input(err, "%s= is there twice", key);
        *seen = true;
        return 0;
}

static int own(char **to, const char *text, struct err *err)
{
        *to = strdup(text);
        return *to ? 0 : err_host(err, ENOMEM, "no memory");
}

static int set_path(struct disk_spec *d, const char *value, struct err *err)
{
        return *value ? own(&d->path, value, err) : err_input(err, "path=: expected a file");
}

static int set_serial(struct disk_spec *d, const char *value, struct err *err)
{
        size_t n = strlen(value);

        if (n < 1 || n > RAMET_SERIAL_MAX)
                return err_input(err, "serial=%s: is %zu bytes long, 1 to %u expected", value, n,
                                 RAMET_SERIAL_MAX);
        return own(&d->serial, value, err);
}

static int set_readonly(struct disk_spec *d, const char *value, struct err *err)
{
        static const char *const words[] = {"off", "on", NULL};
        unsigned which;

        if (parse_choice(value, words, &which, err))
                return err_prefix(err, -EINVAL, "readonly=%s", value);
        d->readonly = which;
        return 0;
}

static int set_iops(struct disk_spec *d, const char *value, struct err *err)
{
        if (parse_number(value, 1, IOPS_MAX, &d->iops_max, err))
                return err_prefix(err, -EINVAL, "iops=%s", value);
        return 0;
}

static int set_bandwidth(struct disk_spec *d, const char *value, struct err *err)
{
        if (parse_size(value, 4096, BANDWIDTH_MAX, &d->bandwidth_max, err))
                return err_prefix(err, -EINVAL, "bandwidth=%s", value);
        return 0;
}

static const struct key {
        const char *name;
        size_t seen;
        int (*set)(struct disk_spec *d, const char *value, struct err *err);
} keys[] = {
        {"path", offsetof(struct seen, path), set_path},
        {"readonly", offsetof(struct seen, readonly), set_readonly},
        {"serial", offsetof(struct seen, serial), set_serial},
        {"iops", offsetof(struct seen, iops), set_iops},
        {"bandwidth", offsetof(struct seen, bandwidth), set_bandwidth},
};

static int set_item(struct disk_spec *d, char *item, struct seen *seen, struct err *err)
{
        char *value = strchr(item, '=');

        if (!value)
                return err_input(err, "'%s': expected KEY=VALUE, such as path=FILE", item);
        *value++ = '\0';
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
                if (strcmp(item, keys[i].name) != 0)
                        continue;
                if (once((bool *)((char *)seen + keys[i].seen), item, err))
                        return -EINVAL;
                return keys[i].set(d, value, err);
        }
        return err_input(
                err, "%s=: no such key, expected path, readonly, serial, iops or bandwidth", item);
}

/* The item at *@text, up to a single comma, into @item; *@text goes on behind it, NULL at the end.
 */
static void next_item(const char **text, char *item)
{
        const char *p = *text;

        for (; *p; p++) {
                if (*p == ',' && *++p != ',') {
                        *item = '\0';
                        *text = p;
                        return;
                }
                *item++ = *p;
        }
        *item = '\0';
        *text = NULL;
}

static void spec_fini(struct disk_spec *d)
{
        free(d->path);
        free(d->serial);
}

int parse_disk(const char *text, struct disk_list *list, struct err *err)
{
        char *item = malloc(strlen(text) + 1);
        struct disk_spec d = {0};
        struct seen seen = {0};
        int ret = item ? 0 : err_host(err, ENOMEM, "no memory");

        if (!ret && list->n == RAMET_DISKS_MAX)
                ret = err_input(err, "a machine has at most %u disks", RAMET_DISKS_MAX);
        while (!ret && text) {
                next_item(&text, item);
                ret = set_item(&d, item, &seen, err);
        }
        if (!ret && !d.path)
                ret = err_input(err, "there is no path=FILE");
        free(item);
        if (ret) {
                spec_fini(&d);
                return -EINVAL;
        }
        list->disk[list->n++] = d;
        return 0;
}

void disk_list_fini(struct disk_list *list)
{
        while (list->n)
                spec_fini(&list->disk[--list->n]);
}

static int open_disk(const struct disk_spec *d, int *out, struct err *err)
{
        const int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
        int fd = open(d->path, flags | (d->readonly ? O_RDONLY : O_RDWR)), code = errno;

        *out = fd;
        if (fd >= 0)
                return 0;
        fd = d->readonly || code == EISDIR ? -1 : open(d->path, flags | O_RDONLY);
        if (fd < 0)
                return err_input(err, "--disk %s: %s", d->path, strerror(code));
        close(fd);
        return err_input(err, "--disk %s: cannot be written (%s); it can be used with readonly=on",
                         d->path, strerror(code));
}

int disk_list_open(const struct disk_list *list, struct ramet_disk disks[RAMET_DISKS_MAX],
                   struct err *err)
{
        for (unsigned i = 0; i < list->n; i++)
                disks[i] = (struct ramet_disk){
                        .size = sizeof disks[i],
                        .fd = -1,
                        .path = list->disk[i].path,
                        .readonly = list->disk[i].readonly,
                        .serial = list->disk[i].serial,
                        .iops_max = list->disk[i].iops_max,
                        .bandwidth_max = list->disk[i].bandwidth_max,
                };
        for (unsigned i = 0; i < list->n; i++)
                if (open_disk(&list->disk[i], &disks[i].fd, err))
                        return -EINVAL;
        return 0;
}

void disk_list_close(const struct disk_list *list, struct ramet_disk disks[RAMET_DISKS_MAX])
{
        for (unsigned i = 0; i < list->n; i++)
                if (disks[i].fd >= 0)
                        close(disks[i].fd);
}

const char *disk_name(unsigned i, char name[4])
{
        name[0] = 'v';
        name[1] = 'd';
        name[2] = (char)('a' + i);
        name[3] = '\0';
        return name;
}
