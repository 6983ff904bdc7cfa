/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests of the public interface share: a machine that runs the guest `servant`
 * (tests/guest/servant.h), orders for it, and a failure that says ramet_last_error().
 *
 * A case has the name of the public function that it is about, and fails when that does nothing but
 * return -ENOSYS. Cases do not depend on one another: each makes its own machines, and destroys
 * them.
 */
#ifndef RAMET_TESTS_API_H
#define RAMET_TESTS_API_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <ramet/fork_abi.h>
#include <ramet/vm.h>

#include "tests/guest/servant.h"

#define ENDLESS (10 * RAMET_SECOND) /* nothing that is waited for takes so long */

/* In main(), before anything else: 1 to go on; 0 after "SKIP" and the reason, where there is no
 * usable /dev/kvm. Makes `api_ctx`. */
int api_init(void);
extern struct ramet_ctx *api_ctx;

/* 0 or more; else the case fails and shows what the library says. Returns @ret. */
#define api_ok(call) api_check((call), #call, __FILE__, __LINE__)
int api_check(int ret, const char *call, const char *file, int line);
/* The call failed with @code, and there is a line about it that has @word in it. */
#define api_fails(call, code, word)                                                                \
        api_check_failure((call), (code), (word), #call, __FILE__, __LINE__)
void api_check_failure(int ret, int code, const char *word, const char *call, const char *file,
                       int line);

/* Path of a guest of tests/guest; good until the next call. */
const char *api_guest(const char *name);
/* The defaults of tests: `servant`, 16 MiB, 1 vCPU, debug exit at 0xf4, no huge pages. */
struct ramet_vm_config api_config(void);
/* A machine of api_config(), or of @config, that has not run. */
struct ramet_vm *api_vm(void);
struct ramet_vm *api_vm_of(const struct ramet_vm_config *config);
/* The same at its first ring (of all @vcpus), whose events have been taken. */
struct ramet_vm *api_ready(unsigned vcpus);
/* Its template, without the machine; a clone of that. */
struct ramet_template *api_template(unsigned vcpus);
struct ramet_vm *api_spawn(struct ramet_template *tmpl);

/* Run until the next event of @type, which is returned; the case fails if it does not come. */
struct ramet_vm_event api_until(struct ramet_vm *vm, enum ramet_vm_event_type type);

/* The mailbox of a processor. */
void api_get_mail(struct ramet_vm *vm, unsigned cpu, struct servant_mail *mail);
void api_put_mail(struct ramet_vm *vm, unsigned cpu, const struct servant_mail *mail);
/* Leave an order; the guest finds it when it goes on. */
void api_order(struct ramet_vm *vm, unsigned cpu, enum servant_order order, uint64_t value,
               uint64_t address, uint64_t number);
/* The same, and run until the first processor rings again: it has been done. */
void api_do(struct ramet_vm *vm, enum servant_order order, uint64_t value, uint64_t address,
            uint64_t number);

/* 8 bytes at a guest-physical address. */
uint64_t api_word(struct ramet_vm *vm, uint64_t gpa);

/* How many are open. */
unsigned api_descriptors(void);
/* How many this process has. */
unsigned api_threads(void);
void api_nap(unsigned ms);

#endif
