/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input files. A file is measured once, when it is opened, and everything is checked against that
 * size. It may still change afterwards: growth is not looked at, and a read that meets the new end
 * of a file that shrank is an error, so no check is undone by it.
 */
#include "boot/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int boot_file_init(struct boot_file *file, int fd, const char *name, struct err *err)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return err_host(err, errno, "%s: %s", name, strerror(errno));
        if (S_ISDIR(st.st_mode))
                return err_input(err, "%s: is a directory", name);
        if (!S_ISREG(st.st_mode))
                return err_input(err, "%s: not a regular file", name);
        if (st.st_size <= 0)
                return err_input(err, "%s: the file is empty", name);
        *file = (struct boot_file){.fd = fd, .name = name, .size = (uint64_t)st.st_size};
        return 0;
}

int boot_file_has(const struct boot_file *file, uint64_t offset, uint64_t len)
{
        return offset <= file->size && len <= file->size - offset;
}

int boot_file_read(const struct boot_file *file, uint64_t offset, void *buf, size_t len,
                   struct err *err)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = pread(file->fd, (char *)buf + done, len - done, (off_t)(offset + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return err_host(err, errno, "%s: %s", file->name, strerror(errno));
                if (n == 0)
                        return err_input(err, "%s: the file ends at %llu while it is being read",
                                         file->name, (unsigned long long)(offset + done));
                done += (size_t)n;
        }
        return 0;
}

struct boot_size_text boot_size(uint64_t bytes)
{
        static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
        struct boot_size_text s;
        uint64_t unit = 1024;
        unsigned u = 0;

        if (bytes < 1024) {
                snprintf(s.text, sizeof s.text, "%u byte%s", (unsigned)bytes,
                         bytes == 1 ? "" : "s");
                return s;
        }
        while (u < 3 && bytes / unit >= 1024) {
                unit *= 1024;
                u++;
        }
        if (bytes % unit == 0)
                snprintf(s.text, sizeof s.text, "%llu %s", (unsigned long long)(bytes / unit),
                         units[u]);
        else
                snprintf(s.text, sizeof s.text, "%.1f %s", (double)bytes / (double)unit, units[u]);
        return s;
}
