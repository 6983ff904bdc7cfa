/* SPDX-License-Identifier: Apache-2.0 */
/* Files, where one system call is not always enough. */
#ifndef RAMET_BASE_FILE_H
#define RAMET_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* Write all @len bytes at @offset. 0, or -errno when some may have been written. Any thread. */
int file_write_at(int fd, const void *buf, size_t len, uint64_t offset);

#endif
