/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Litmus tests with every copy-on-write engine and 1, 2 and 4 vCPUs (which are more than most hosts
 * of these tests have processors): boots the guest "litmus", which says in its opening comment what
 * it tries. For each engine and number of vCPUs one machine is booted and frozen, and each test
 * runs in a clone of it, so that all of its memory is copy-on-write. The tests in which the host
 * takes part are in test_litmus_host.c.
 *
 * LITMUS_SCALE=N runs N clones instead of one.
 */
#include "litmus_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES   512
#define MEMORY  (16ull << 20)
#define SECONDS 120

static const unsigned vcpus_of[] = {1, 2, 4};
static const char *const engine_of[] = {"private", "trap", "rom"};
static const char *const test_of[] = {"message", "writers", "lockers", "poll", "stores"};
#define ENGINES 3
#define VCPUS   3
#define TESTS   5

/* A machine that waits at the doorbell, and its template: of one engine and number of vCPUs. */
static struct family {
        struct rig parent;
        struct template *tmpl;
        bool tried, refused;
        struct err err;
} families[ENGINES][VCPUS];

struct combination {
        unsigned engine, vcpus, test;
        char name[48];
};

static unsigned scale(void)
{
        const char *text = getenv("LITMUS_SCALE");

        return text && atoi(text) > 0 ? (unsigned)atoi(text) : 1;
}

static void family_make(struct family *f, unsigned vcpus)
{
        char cmdline[32];

        f->tried = true;
        snprintf(cmdline, sizeof cmdline, "pages=%u", PAGES);
        if (litmus_boot(&f->parent, cmdline, vcpus, MEMORY, &f->tmpl, &f->err) < 0)
                f->refused = true;
}

static void family_free(struct family *f)
{
        if (!f->tried || f->refused)
                return;
        template_unref(f->tmpl);
        rig_free(&f->parent);
}

/* Pages are broken one after the other, each by one or all of the vCPUs. More vCPUs than processors
 * wait for one another for whole time slices. */
static unsigned pages_for(unsigned vcpus)
{
        return vcpus > 2 ? PAGES / 4 : PAGES;
}

static void nobody_sees_what_is_not_so(void **state)
{
        const struct combination *c = *state;
        struct family *f = &families[c->engine][c->vcpus];
        unsigned vcpus = vcpus_of[c->vcpus];

        rig_cow = (enum ramet_cow)c->engine;
        if (!f->tried)
                family_make(f, vcpus);
        if (f->refused) {
                print_message("%s\n", f->err.text);
                skip();
        }
        for (unsigned i = 0; i < scale(); i++) {
                struct rig clone;

                rig_spawn(&clone, f->tmpl, LITMUS_NUMBER(c->test, pages_for(vcpus)),
                          LITMUS_NUMBERS);
                vm_run(clone.vm);
                litmus_end(&clone, SECONDS);
        }
}

/* The last test of a family: what its clones can do, the parent can do as well. */
static void the_parent_sees_no_less(void **state)
{
        const struct combination *c = *state;
        struct family *f = &families[c->engine][c->vcpus];
        unsigned vcpus = vcpus_of[c->vcpus];

        if (!f->tried || f->refused) {
                print_message("%s\n", f->err.text);
                skip();
        }
        f->refused = true; /* and gone */
        template_unref(f->tmpl);
        vm_fork_done(f->parent.vm, LITMUS_NUMBER(LITMUS_MESSAGE, pages_for(vcpus)), LITMUS_NUMBERS);
        litmus_end(&f->parent, SECONDS);
}

static int free_all(void **state)
{
        for (unsigned e = 0; e < ENGINES; e++)
                for (unsigned v = 0; v < VCPUS; v++)
                        family_free(&families[e][v]);
        print_message("# %llu rounds\n", (unsigned long long)litmus_rounds);
        return 0;
}

int main(void)
{
        static struct combination combinations[ENGINES * VCPUS * (TESTS + 1)];
        static struct CMUnitTest tests[ENGINES * VCPUS * (TESTS + 1)];
        unsigned n = 0;

        switch (rig_init()) {
        case 0:
                return 0;
        case 1:
                break;
        default:
                return 1;
        }
        for (unsigned e = 0; e < ENGINES; e++)
                for (unsigned v = 0; v < VCPUS; v++)
                        for (unsigned t = 0; t <= TESTS; t++, n++) {
                                struct combination *c = &combinations[n];

                                *c = (struct combination){.engine = e, .vcpus = v, .test = t};
                                snprintf(c->name, sizeof c->name, "%s_%u_%s", engine_of[e],
                                         vcpus_of[v], t < TESTS ? test_of[t] : "parent");
                                tests[n].name = c->name;
                                tests[n].test_func = t < TESTS ? nobody_sees_what_is_not_so
                                                               : the_parent_sees_no_less;
                                tests[n].initial_state = c;
                        }
        return cmocka_run_group_tests_name("litmus", tests, NULL, free_all);
}
