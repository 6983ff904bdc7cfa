/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reset: whatever a clone has lived through, afterwards it answers as one that has just been
 * spawned, and its state and memory are the template's.
 */
#include "rig.h"
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm/machine.h"
#include "x86/layout.h"

#define MIB    (1ull << 20)
#define MEMORY (32 * MIB)

static struct err err;

static struct template *freeze(struct rig *r, bool doorbell)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;

        if (vm_freeze(r->vm, 0, doorbell, &t, &stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        return t;
}

/* The damaging guest, at its first ring. The parent stays where it is. */
static struct template *at_ring(struct rig *r, const char *guest, unsigned vcpus)
{
        rig_boot(r, guest, "", vcpus, MEMORY, true);
        rig_until(r, rig_forked, 60);
        vm_pause(r->vm);
        return freeze(r, true);
}

static void reset(struct rig *r)
{
        if (vm_reset(r->vm, &err) < 0)
                fail_msg("reset: %s", err.text);
        r->exited = false;
        r->len = 0;
        r->text[0] = '\0';
}

static bool said(const struct rig *r)
{
        return strstr(r->text, "lives: end\n") && r->exited;
}

/* What the machine says of itself; it ends. */
static const char *ask(struct rig *r)
{
        rig_type(r, "c\n");
        vm_run(r->vm);
        rig_until(r, said, 60);
        return r->text;
}

static void expect_answer(const char *want, const char *got, const char *after)
{
        const char *line = want;

        if (!strcmp(want, got))
                return;
        for (const char *g = got; *line && *line == *g; line++, g++)
                ;
        while (line > want && line[-1] != '\n')
                line--;
        fail_msg("after \"%s\", expected: %.*s\n  and all of it is:\n%s", after,
                 (int)strcspn(line, "\n"), line, got);
}

static char *answer_of_a_fresh_clone(struct template *t, uint32_t index, uint32_t count)
{
        struct rig fresh;
        char *answer;

        rig_spawn(&fresh, t, index, count);
        answer = strdup(ask(&fresh));
        rig_free(&fresh);
        return answer;
}

/* Memory is the template's, byte by byte, but for the generation id. */
static void same_memory(struct rig *r, const struct template *t)
{
        uint8_t *now = malloc(MEMORY);
        uint8_t *then = mmap(NULL, MEMORY, PROT_READ, MAP_SHARED, t->layer_fds[0], 0);

        assert_ptr_not_equal(then, MAP_FAILED);
        assert_int_equal(t->nlayers, 1);
        assert_int_equal(guest_mem_read(vm_memory(r->vm), 0, now, MEMORY), 0);
        assert_memory_not_equal(now + LAYOUT_VMGENID, then + LAYOUT_VMGENID, 16);
        memcpy(now + LAYOUT_VMGENID, then + LAYOUT_VMGENID, 16);
        for (uint64_t at = 0; at < MEMORY; at += 4096)
                if (memcmp(now + at, then + at, 4096))
                        fail_msg("the page at %#llx is not the template's", (unsigned long long)at);
        munmap(then, MEMORY);
        free(now);
}

static uint64_t own_bytes(struct rig *r)
{
        uint64_t shared, own;

        assert_int_equal(vm_memory_usage(r->vm, &shared, &own), 0);
        return own;
}

/* --- damage --- */

struct life {
        const char *orders;
        bool ends; /* by itself; else it is taken from it in the middle */
        unsigned ms;
};

static const struct life lives[] = {
        {"e", true, 0},           {"mpre", true, 0}, {"rf", true, 0},    {"mpraitsf", true, 0},
        {"n", false, 20},         {"ah", false, 20}, {"ith", false, 30}, {"tih", false, 30},
        {"mo", true, 0},          {"sb", true, 0},   {"msh", false, 10}, {"x", false, 30},
        {"x", false, 3},          {"w", false, 20},  {"mprw", false, 5}, {"nf", true, 0},
        {"nmpraitsh", false, 50}, {"pppf", true, 0},
};

static void live(struct rig *r, const struct life *life)
{
        struct timespec ms = {.tv_nsec = (long)life->ms * 1000000};
        char line[32];

        snprintf(line, sizeof line, "%s\n", life->orders);
        rig_type(r, line);
        vm_run(r->vm);
        if (life->ends) {
                rig_until(r, rig_exited, 60);
                return;
        }
        for (unsigned i = 0; i < 8; i++) /* until it has read its orders */
                rig_step(&r, 1);
        nanosleep(&ms, NULL);
}

static void lives_end_in_reset(unsigned vcpus)
{
        struct rig parent, clone;
        struct template *t = at_ring(&parent, "lives.elf", vcpus);
        char *want = answer_of_a_fresh_clone(t, 2, 7);

        rig_spawn(&clone, t, 2, 7);
        for (size_t i = 0; i < sizeof lives / sizeof lives[0]; i++) {
                live(&clone, &lives[i]);
                vm_pause(clone.vm);
                reset(&clone);
                state_expect_template(clone.vm, t);
                same_memory(&clone, t);
                assert_true(own_bytes(&clone) <= 4096); /* the generation id's page */
                expect_answer(want, ask(&clone), lives[i].orders);
                reset(&clone); /* it has powered off */
                vm_pause(clone.vm);
        }
        assert_int_equal(clone.first_exits, 1);
        free(want);
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

static void lives_of_one_processor_end_in_reset(void **state)
{
        lives_end_in_reset(1);
}

static void lives_of_two_processors_end_in_reset(void **state)
{
        lives_end_in_reset(2);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(lives_of_one_processor_end_in_reset),
                cmocka_unit_test(lives_of_two_processors_end_in_reset),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("reset", tests, NULL, NULL);
}
