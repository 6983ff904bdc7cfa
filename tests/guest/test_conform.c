/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every way to write, with every copy-on-write engine, with 1 and 2 vCPUs, in the parent and in a
 * clone: boots the guest "conform", which does the work and prints a line for each, and compares
 * what it has seen with the table in docs/engines.md (or writes that: RAMET_GOLDEN_UPDATE=1).
 *
 * Some hosts run kernel mode by emulation that lacks instructions, and then the machine ends. So
 * what can be run at CPL 0 is found out first, on ordinary memory: a clone tries one instruction
 * after the other, and if it ends early, the next clone goes on behind the one that it died of.
 */
#include "rig.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conform_table.h"
#include "vm/machine.h"

#define GUEST       "conform.elf"
#define MEMORY      (16ull << 20)
#define OPS_MAX     128
#define SECONDS     100
#define TRY         "conform: try "
#define CONTROL_END "conform: end"

static struct conform_table table;
static uint64_t cannot[2]; /* bits: what this host cannot run at CPL 0 */
static unsigned failures;

static int freeze(struct rig *parent, struct template **t, struct err *err)
{
        struct vm_freeze_stats stats;

        return vm_freeze(parent->vm, 0, true, t, &stats, err);
}

/* --- what the host can do --- */

static int last_tried(const char *text)
{
        int last = -1;

        for (const char *at = text; (at = strstr(at, TRY)); at++)
                last = atoi(at + strlen(TRY));
        return last;
}

static int find_what_cannot_be_run(void **state)
{
        struct err err = {0};
        struct rig parent;
        struct template *t;
        unsigned first = 0;

        rig_cow = RAMET_COW_PRIVATE;
        rig_boot(&parent, GUEST, "mode=control", 1, MEMORY, true);
        rig_until(&parent, rig_forked, SECONDS);
        if (freeze(&parent, &t, &err) < 0)
                fail_msg("%s", err.text);
        while (first < OPS_MAX) {
                struct rig clone;
                int last;

                rig_spawn(&clone, t, first + 1, OPS_MAX);
                vm_run(clone.vm);
                rig_until(&clone, rig_exited, SECONDS);
                rig_free(&clone);
                if (strstr(clone.text, CONTROL_END))
                        break;
                last = last_tried(clone.text);
                if (last < (int)first)
                        fail_msg("the control run from %u on: %s", first, clone.text);
                cannot[last / 64] |= 1ull << last % 64;
                first = (unsigned)last + 1;
        }
        template_unref(t);
        rig_free(&parent);
        return 0;
}

/* --- one machine --- */

struct combination {
        unsigned engine, vcpus;
};

static void take_line(char *line, unsigned engine, unsigned vcpus, const char *who)
{
        enum conform_verdict *cell, verdict;
        char group = line[0], *name = line + 3, *what;
        struct conform_row *row;

        what = strstr(name, ": ");
        if (!what)
                return;
        *what = '\0';
        what += 2;
        row = conform_row_get(&table, group, name);
        if (!row)
                fail_msg("more than %u rows", CONFORM_ROWS);
        if (!strncmp(what, "ok", 2))
                verdict = CONFORM_OK;
        else if (!strncmp(what, "n/a ", 4))
                verdict = CONFORM_NA;
        else
                verdict = CONFORM_BAD;
        cell = &row->cells[engine][vcpus - 1];
        if (*cell != CONFORM_BAD)
                *cell = verdict;
        if (verdict == CONFORM_NA && !row->note[0])
                snprintf(row->note, sizeof row->note, "%s",
                         strcmp(what, "n/a host") ? what + 4
                                                  : "not emulated by KVM on the test host");
        if (verdict != CONFORM_BAD)
                return;
        failures++;
        printf("# %s, %u vCPUs, %s: CPL %c: %s: %s\n", conform_engine_name[engine], vcpus, who,
               group, name, what);
}

static void take_output(struct rig *r, unsigned engine, unsigned vcpus, const char *who)
{
        char *save = NULL, *end = strstr(r->text, "conform: end bad=");

        if (!end)
                fail_msg("%s: no end (%s): %s", who, r->exit.text,
                         r->len > 600 ? r->text + r->len - 600 : r->text);
        for (char *line = strtok_r(r->text, "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save))
                if (!strncmp(line, "conform: ", 9) && line[9] && line[10] == ':')
                        take_line(line + 9, engine, vcpus, who);
}

static void refused(unsigned engine, unsigned vcpus, const struct err *err)
{
        snprintf(table.refused[engine], sizeof table.refused[engine], "%.255s", err->text);
        for (unsigned i = 0; i < table.nrows; i++)
                table.rows[i].cells[engine][vcpus - 1] = CONFORM_REFUSED;
        print_message("%s\n", err->text);
        skip();
}

/* How often the engine could not tell what was written, and broke all pages. */
static uint64_t run(struct rig *r, unsigned engine, unsigned vcpus, const char *who)
{
        struct vm_cow_stats stats;

        vm_run(r->vm);
        rig_until(r, rig_exited, SECONDS);
        vm_cow_stats(r->vm, &stats);
        rig_free(r);
        take_output(r, engine, vcpus, who);
        return stats.everything;
}

/* KVM has a reason now to write the clock page of a machine that runs on. */
static void tell_clocks(struct rig *r)
{
        vm_pause(r->vm);
        for (unsigned i = 0; i < r->vm->shape.vcpus; i++)
                kvm_vcpu_was_paused(&r->vm->vcpus[i].kvm);
        vm_run(r->vm);
}

/* A KVM that shows the guest the processor's own features, whatever it offers, and whose emulator
 * goes by what it offers: MOVBE to read-only memory is #UD. The selectors of such a guest's CPL 3
 * are not what it believes, either. Nobody but that KVM can do anything about it. */
static bool emulator_is_partial(void)
{
        struct kvm_cpuid2 *cpuid =
                calloc(1, sizeof *cpuid + KVM_HOST_CPUID_MAX * sizeof cpuid->entries[0]);
        unsigned eax, ebx, ecx, edx;
        struct kvm_host host;
        struct err err;
        bool offered = true;

        assert_non_null(cpuid);
        assert_int_equal(kvm_host_open(&host, &err), 0);
        assert_int_equal(kvm_host_cpuid(&host, cpuid, &err), 0);
        for (unsigned i = 0; i < cpuid->nent; i++)
                if (cpuid->entries[i].function == 1)
                        offered = cpuid->entries[i].ecx & bit_MOVBE;
        kvm_host_close(&host);
        free(cpuid);
        return !offered && __get_cpuid(1, &eax, &ebx, &ecx, &edx) && ecx & bit_MOVBE;
}

/* A clone to its end. The first one must find all of its pages untouched when it writes them. */
static void run_clone(struct template *t, uint32_t index, const struct combination *c)
{
        struct err err = {0};
        struct rig clone;
        uint64_t everything;

        if (rig_try_spawn(&clone, t, index, 2, &err) < 0)
                fail_msg("clone: %s", err.text);
        everything = run(&clone, c->engine, c->vcpus, "clone");
        if (index == 1 && everything)
                fail_msg("all pages were broken at once, %llu times",
                         (unsigned long long)everything);
}

static void every_way_to_write(void **state)
{
        const struct combination *c = *state;
        struct rig parent;
        struct err err = {0};
        struct template *t;
        char cmdline[128];
        int r;

        failures = 0;
        rig_cow = (enum ramet_cow)c->engine;
        snprintf(cmdline, sizeof cmdline, "skip0=%llx skip1=%llx emulated=%d",
                 (unsigned long long)cannot[0], (unsigned long long)cannot[1],
                 rig_cow == RAMET_COW_ROM && emulator_is_partial());
        r = rig_try_boot(&parent, GUEST, cmdline, c->vcpus, MEMORY, true, &err);
        if (rig_refused(r, &err)) {
                rig_free(&parent);
                refused(c->engine, c->vcpus, &err);
        }
        if (r < 0)
                fail_msg("%s", err.text);
        rig_until(&parent, rig_forked, SECONDS);
        r = freeze(&parent, &t, &err);
        if (rig_refused(r, &err)) {
                rig_free(&parent);
                refused(c->engine, c->vcpus, &err);
        }
        if (r < 0)
                fail_msg("freeze: %s", err.text);
        tell_clocks(&parent);
        vm_fork_done(parent.vm, 0, 2);
        run(&parent, c->engine, c->vcpus, "parent");
        run_clone(t, 1, c);
        run_clone(t, 2, c);
        template_unref(t);
        if (failures)
                fail_msg("%u kinds of writes went wrong", failures);
}

static void the_table_says_so(void **state)
{
        const char *path = getenv("ENGINES_DOC");
        int r;

        for (unsigned i = 0; i < table.nrows; i++)
                for (unsigned e = 0; e < CONFORM_ENGINES; e++)
                        for (unsigned v = 0; v < CONFORM_VCPUS; v++)
                                if (table.refused[e][0])
                                        table.rows[i].cells[e][v] = CONFORM_REFUSED;
        if (getenv("RAMET_GOLDEN_UPDATE")) {
                assert_int_equal(conform_table_write(&table, path), 0);
                return;
        }
        r = conform_table_compare(&table, path);
        if (r < 0)
                fail_msg("%s: %s", path, strerror(-r));
        if (r > 0)
                fail_msg("docs/engines.md differs in %d cells", r);
}

int main(void)
{
        static const struct combination combinations[] = {{0, 1}, {0, 2}, {1, 1},
                                                          {1, 2}, {2, 1}, {2, 2}};
        struct CMUnitTest tests[] = {
                cmocka_unit_test(every_way_to_write), cmocka_unit_test(every_way_to_write),
                cmocka_unit_test(every_way_to_write), cmocka_unit_test(every_way_to_write),
                cmocka_unit_test(every_way_to_write), cmocka_unit_test(every_way_to_write),
                cmocka_unit_test(the_table_says_so),
        };
        static const char *const names[] = {"private_1_vcpu", "private_2_vcpus", "trap_1_vcpu",
                                            "trap_2_vcpus",   "rom_1_vcpu",      "rom_2_vcpus"};

        switch (rig_init()) {
        case 0:
                return 0;
        case 1:
                break;
        default:
                return 1;
        }
        for (unsigned i = 0; i < 6; i++) {
                tests[i].name = names[i];
                tests[i].initial_state = (void *)&combinations[i];
        }
        return cmocka_run_group_tests_name("conform", tests, find_what_cannot_be_run, NULL);
}
