/* SPDX-License-Identifier: Apache-2.0 */
/* Machines that run the guest "litmus". */
#ifndef RAMET_TESTS_LITMUS_RIG_H
#define RAMET_TESTS_LITMUS_RIG_H

#include "litmus.h"
#include "rig.h"

extern uint64_t litmus_rounds; /* of all machines that have ended */

/* Boot to the doorbell and freeze there, with the engine of rig_cow. 0; -ENOTSUP with err set when
 * the engine was refused, and nothing is left; any other failure fails the test. */
int litmus_boot(struct rig *r, const char *cmdline, unsigned vcpus, uint64_t memory_bytes,
                struct template **tmpl, struct err *err);

/* Serve it until it ends, free it; fails the test when the guest has seen anything bad. */
void litmus_end(struct rig *r, unsigned seconds);

#endif
