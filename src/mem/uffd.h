/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write-protection by userfaultfd(2): a range of addresses is protected, whoever writes to it waits
 * (user code, KVM on behalf of a guest, any system call), and a reader of the descriptor is told
 * the page and lets the writer go on.
 *
 * The descriptor needs no more than ioctl, poll and read once it is there, so that a process can be
 * confined afterwards; only uffd_open() needs privileges.
 */
#ifndef RAMET_MEM_UFFD_H
#define RAMET_MEM_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* A userfaultfd, non-blocking and close-on-exec, that sees the kernel's writes, too, and can
 * protect memory files that are mapped privately, and memory that nobody has touched. 0; -EPERM
 * (may not have one), -ENOTSUP (this kernel has none that can do so), another -errno. */
int uffd_open(int *fd, struct err *err);

/* Make [hva, hva + size) a range that can be protected. Again is fine. 0 or -errno; -EINVAL: what
 * is mapped there cannot be. */
int uffd_register(int fd, const uint8_t *hva, uint64_t size);
/* Forbid writes to [hva, hva + size), or allow them and wake who waits for it. 0 or -errno. */
int uffd_protect(int fd, const uint8_t *hva, uint64_t size, bool forbid);
/* Have whoever waits for a page of [hva, hva + size) try once more. */
void uffd_wake(int fd, const uint8_t *hva, uint64_t size);

/* Pages (their addresses) at which writers have begun to wait, at most @max. How many, 0 when there
 * is none now, or -errno. Several writers can wait for one page. */
int uffd_read(int fd, uint64_t *addresses, unsigned max);

#endif
