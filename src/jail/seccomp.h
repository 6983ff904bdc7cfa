/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The system calls that a machine's process may make once its guest runs. A filter is compiled once
 * (a millisecond) and installed in each process (microseconds).
 */
#ifndef RAMET_JAIL_SECCOMP_H
#define RAMET_JAIL_SECCOMP_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct jail_filter {
        struct sock_filter *insns;
        unsigned len; /* 0: none */
        bool log;
};

/* Compile the base list and @lists, each a NULL-terminated array of names (NULL lists are skipped).
 * @log: what is not on them is logged by the kernel, not punished by death. 0, -EINVAL (a name that
 * does not exist, or one that the base list restricts), or another -errno. */
int jail_filter_build(bool log, const char *const *const *lists, size_t nlists,
                      struct jail_filter *filter, struct err *err);
void jail_filter_fini(struct jail_filter *filter); /* zeroed is fine */

/* Confine the process: all its threads, those to come and their children, for good; with
 * no_new_privs. 0 or -errno. */
int jail_filter_install(const struct jail_filter *filter, struct err *err);

#endif
