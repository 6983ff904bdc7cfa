/* SPDX-License-Identifier: Apache-2.0 */
/* The engine `trap`: not there yet. */
#include <errno.h>

#include "mem/backing.h"
#include "mem/cow.h"

static int create(struct backing *b, struct err *err)
{
        return err_input(err, "--cow trap is not there yet: use private");
}

static void destroy(struct backing *b)
{
}

const struct cow_engine cow_trap = {.name = "trap", .create = create, .destroy = destroy};
