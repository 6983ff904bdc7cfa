/* SPDX-License-Identifier: Apache-2.0 */
/* What a machine is made of, compared record by record. */
#ifndef RAMET_TESTS_STATE_H
#define RAMET_TESTS_STATE_H

#include "vm/vm.h"

/* Fails the test unless @vm, which is stopped, is as @tmpl says in everything but its memory, the
 * clocks, its number and its generation id with that one's interrupt. */
void state_expect_template(struct vm *vm, const struct template *tmpl);

#endif
