/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the launcher looks at before it starts anything, so that the commonest mistakes are told in
 * one line that says what to do. The machine's process finds the same out again when it opens
 * /dev/kvm; the launcher never holds a descriptor of it.
 */
#include "cli/host.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void host_open_standard(void)
{
        int fd;

        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        if (fd > STDERR_FILENO)
                close(fd);
}

int host_check_kvm(struct err *err)
{
        if (!faccessat(AT_FDCWD, "/dev/kvm", R_OK | W_OK, AT_EACCESS))
                return 0;
        if (errno == ENOENT)
                return err_host(
                        err, ENOENT,
                        "/dev/kvm: no such file: this host offers no KVM (load kvm_intel or "
                        "kvm_amd, or enable nested virtualization)");
        if (errno == EACCES)
                return err_host(err, EACCES,
                                "/dev/kvm: permission denied: add yourself to the kvm group "
                                "(usermod -aG kvm USER, then log in again)");
        return err_host(err, errno, "/dev/kvm: %s", strerror(errno));
}

int host_open_input(const char *what, const char *path, int *out, struct err *err)
{
        /* O_NONBLOCK: opening a FIFO must not wait for somebody to write to it. */
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;

        if (fd < 0)
                return err_input(err, "%s %s: %s", what, path, strerror(errno));
        if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
                close(fd);
                return err_input(err, "%s %s: %s", what, path,
                                 S_ISDIR(st.st_mode) ? "is a directory" : "is not a regular file");
        }
        *out = fd;
        return 0;
}
