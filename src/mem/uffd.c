/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few calls of userfaultfd that write-protection needs: see uffd.h. The kernel's side is in
 * Documentation/admin-guide/mm/userfaultfd.rst.
 *
 * UFFD_USER_MODE_ONLY, which anybody may have, will not do. A write by KVM or by a system call
 * would then fail, and some of those that KVM makes (its clock pages) fail without a word.
 *
 * A page that is not there yet has no entry that could be protected. The kernel puts a marker in
 * its place: of a memory file since Linux 5.19, of anonymous memory (the holes of the layers) since
 * 6.4. Without the latter a first write into a hole would pass unseen.
 */
#include "mem/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than some headers that this must build with. */
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xaa, 0x00)
#endif

#define FEATURES                                                                                   \
        (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |                        \
         UFFD_FEATURE_WP_UNPOPULATED)

#define BATCH 16

/* The system call asks for a capability or the sysctl, the device for a file's permissions. */
static int obtain(void)
{
        int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), e = errno, dev;

        if (fd >= 0)
                return fd;
        dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
        if (dev >= 0) {
                fd = ioctl(dev, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
                close(dev);
        }
        return fd >= 0 ? fd : -e;
}

static int refuse(int fd, int e, struct err *err)
{
        if (fd >= 0)
                close(fd);
        switch (e) {
        case EPERM:
        case EACCES:
                return err_host(err, EPERM,
                                "userfaultfd: may not watch writes of the kernel (CAP_SYS_PTRACE, "
                                "/dev/userfaultfd or vm.unprivileged_userfaultfd would allow it)");
        case ENOSYS:
                return err_host(err, ENOTSUP, "userfaultfd: this kernel has none");
        case EINVAL:
                return err_host(err, ENOTSUP,
                                "userfaultfd: this kernel cannot write-protect memory files and "
                                "memory that nobody has touched (Linux 6.4 can)");
        }
        return err_host(err, e, "userfaultfd: %s", strerror(e));
}

int uffd_open(int *out, struct err *err)
{
        struct uffdio_api api = {.api = UFFD_API, .features = FEATURES};
        int fd = obtain();

        if (fd < 0)
                return refuse(-1, -fd, err);
        if (ioctl(fd, UFFDIO_API, &api) < 0)
                return refuse(fd, errno, err);
        *out = fd;
        return 0;
}

int uffd_register(int fd, const uint8_t *hva, uint64_t size)
{
        struct uffdio_register arg = {
                .range = {.start = (uintptr_t)hva, .len = size},
                .mode = UFFDIO_REGISTER_MODE_WP,
        };

        if (ioctl(fd, UFFDIO_REGISTER, &arg) < 0)
                return -errno;
        return arg.ioctls & 1ull << _UFFDIO_WRITEPROTECT ? 0 : -EINVAL;
}

int uffd_protect(int fd, const uint8_t *hva, uint64_t size, bool forbid)
{
        struct uffdio_writeprotect arg = {
                .range = {.start = (uintptr_t)hva, .len = size},
                .mode = forbid ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
        };

        while (ioctl(fd, UFFDIO_WRITEPROTECT, &arg) < 0) {
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
        }
        return 0;
}

void uffd_wake(int fd, const uint8_t *hva, uint64_t size)
{
        struct uffdio_range range = {.start = (uintptr_t)hva, .len = size};

        ioctl(fd, UFFDIO_WAKE, &range);
}

int uffd_read(int fd, uint64_t *addresses, unsigned max)
{
        struct uffd_msg messages[BATCH];
        ssize_t n = read(fd, messages, (max < BATCH ? max : BATCH) * sizeof messages[0]);
        int count = 0;

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        for (size_t i = 0; i < (size_t)n / sizeof messages[0]; i++) {
                if (messages[i].event == UFFD_EVENT_PAGEFAULT)
                        addresses[count++] = messages[i].arg.pagefault.address;
        }
        return count;
}
