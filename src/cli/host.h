/* SPDX-License-Identifier: Apache-2.0 */
/* What the launcher looks at before it starts anything. */
#ifndef RAMET_CLI_HOST_H
#define RAMET_CLI_HOST_H

#include "base/err.h"

/* Standard input, output and error are open, if only to /dev/null, so that no file of ours gets
 * their numbers. */
void host_open_standard(void);
/* May this user use /dev/kvm? Looks, but does not open it. 0 or -errno with @err set. */
int host_check_kvm(struct err *err);
/* Open a file that a machine is to read: a regular file. @what: "--kernel". 0 or -EINVAL. */
int host_open_input(const char *what, const char *path, int *fd, struct err *err);

#endif
