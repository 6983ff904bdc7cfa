/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reset: whatever a clone has lived through, afterwards it answers as one that has just been
 * spawned, and its state and memory are the template's.
 */
#include "rig.h"
#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ramet/fork_abi.h>

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
                /* The generation id's page; with rom, page tables, too; private keeps a few. */
                assert_true(own_bytes(&clone) <= (rig_cow == RAMET_COW_ROM       ? 65536
                                                  : rig_cow == RAMET_COW_PRIVATE ? 64 * 4096
                                                                                 : 4096));
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

static int use_private(void **state)
{
        rig_cow = RAMET_COW_PRIVATE;
        return 0;
}

static void lives_of_one_processor_end_in_reset(void **state)
{
        lives_end_in_reset(1);
}

static void lives_of_two_processors_end_in_reset(void **state)
{
        lives_end_in_reset(2);
}

static void lives_end_in_reset_with_trap(void **state)
{
        rig_use_engine(RAMET_COW_TRAP);
        lives_end_in_reset(2);
}

static void lives_end_in_reset_with_rom(void **state)
{
        rig_use_engine(RAMET_COW_ROM);
        lives_end_in_reset(2);
}

/* On base, where none is kept. */
static void own_writes_are_dropped_with_rom(void **state)
{
        const uint64_t word = 1;
        struct rig parent, clone;
        struct template *t;
        uint64_t before;

        rig_use_engine(RAMET_COW_ROM);
        t = at_ring(&parent, "lives.elf", 1);
        rig_spawn(&clone, t, 1, 1);
        reset(&clone);
        before = own_bytes(&clone);
        assert_int_equal(vm_write(clone.vm, MEMORY - 4096, &word, sizeof word), 0);
        assert_int_equal(own_bytes(&clone), before + 4096);
        reset(&clone);
        same_memory(&clone, t);
        assert_int_equal(own_bytes(&clone), before);
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

/* --- what a life leaves behind besides state and memory --- */

/* A clone of the damaging guest, paused, and what it should say. */
struct scene {
        struct rig parent, clone;
        struct template *t;
        char *want;
};

static void open_scene(struct scene *s)
{
        s->t = at_ring(&s->parent, "lives.elf", 1);
        s->want = answer_of_a_fresh_clone(s->t, 1, 1);
        rig_spawn(&s->clone, s->t, 1, 1);
}

static void close_scene(struct scene *s)
{
        expect_answer(s->want, ask(&s->clone), "the scene");
        free(s->want);
        template_unref(s->t);
        rig_free(&s->clone);
        rig_free(&s->parent);
}

static void a_clone_that_has_not_run_can_be_reset(void **state)
{
        struct scene s;

        open_scene(&s);
        reset(&s.clone);
        assert_true(s.clone.vm->paused);
        state_expect_template(s.clone.vm, s.t);
        close_scene(&s);
}

static void who_is_held_by_a_fork_goes_on_without_it(void **state)
{
        struct scene s;

        open_scene(&s);
        assert_int_equal(vm_arm_fork(s.clone.vm, true, NULL), 0);
        rig_type(&s.clone, "mrd\n");
        vm_run(s.clone.vm);
        rig_until(&s.clone, rig_forked, 60);
        vm_pause(s.clone.vm);
        reset(&s.clone);
        state_expect_template(s.clone.vm, s.t);
        close_scene(&s);
        assert_int_equal(s.clone.forks, 1);
}

/* The owner has not heard of the ring; it is still waiting for one. */
static void a_ring_that_nobody_heard_is_awaited_again(void **state)
{
        const struct timespec ms = {.tv_nsec = 20000000};
        struct scene s;

        open_scene(&s);
        assert_int_equal(vm_arm_fork(s.clone.vm, true, "no such text"), 0);
        rig_type(&s.clone, "d\n");
        vm_run(s.clone.vm);
        for (unsigned i = 0; !atomic_load(&s.clone.vm->vcpus[0].held); i++) {
                struct rig *r = &s.clone;

                if (i > 2000)
                        fail_msg("it did not ring");
                if (i < 2) /* it reads its orders */
                        rig_step(&r, 1);
                nanosleep(&ms, NULL);
        }
        reset(&s.clone);
        for (unsigned i = 0; i < 10; i++) {
                struct rig *r = &s.clone;

                rig_step(&r, 1);
        }
        assert_int_equal(s.clone.forks, 0);
        rig_type(&s.clone, "d\n");
        rig_until(&s.clone, rig_forked, 60);
        reset(&s.clone);
        vm_pause(s.clone.vm);
        close_scene(&s);
}

/* The owner resets a machine before it hears that it had ended. */
static void an_end_that_nobody_heard_is_no_end(void **state)
{
        struct scene s;
        struct rig *r = &s.clone;

        open_scene(&s);
        rig_type(&s.clone, "e\n");
        vm_run(s.clone.vm);
        while (!atomic_load(&s.clone.vm->vcpus[0].held)) {
                rig_step(&r, 1);
                usleep(20000);
                assert_false(s.clone.exited && !atomic_load(&s.clone.vm->vcpus[0].held));
        }
        reset(&s.clone);
        for (unsigned i = 0; i < 10; i++)
                rig_step(&r, 1);
        assert_false(s.clone.exited);
        vm_pause(s.clone.vm);
        reset(&s.clone);
        close_scene(&s);
}

static void what_was_typed_and_not_read_is_gone(void **state)
{
        struct scene s;

        open_scene(&s);
        rig_type(&s.clone, "e\nffffffffffffffffffffffffffffffffffff");
        reset(&s.clone);
        close_scene(&s);
}

static void text_is_not_matched_across_lives(void **state)
{
        struct scene s;

        open_scene(&s);
        ask(&s.clone);
        vm_pause(s.clone.vm);
        assert_int_equal(vm_arm_fork(s.clone.vm, false, "end\nlives: number"), 0);
        vm_run(s.clone.vm);
        reset(&s.clone);
        vm_pause(s.clone.vm);
        ask(&s.clone);
        reset(&s.clone);
        vm_pause(s.clone.vm);
        close_scene(&s);
        assert_int_equal(s.clone.forks, 0);
}

/* The PIT ticks on that line, too: while somebody holds it up nothing is heard of it. */
static void lines_that_the_owner_raised_are_down(void **state)
{
        struct scene s;

        open_scene(&s);
        assert_int_equal(vm_irq(s.clone.vm, 0, true, &err), 0);
        reset(&s.clone);
        state_expect_template(s.clone.vm, s.t);
        close_scene(&s);
}

/* What KVM itself has noted for the next entry. */
static void requests_in_the_kernel_are_gone(void **state)
{
        struct kvm_vcpu_events events;
        struct scene s;
        int fd;

        open_scene(&s);
        fd = s.clone.vm->vcpus[0].kvm.fd;
        assert_int_equal(kvm_ioctl(fd, KVM_NMI, NULL), 0);
        reset(&s.clone);
        state_expect_template(s.clone.vm, s.t);
        assert_int_equal(kvm_ioctl(fd, KVM_GET_VCPU_EVENTS, &events), 0);
        events.exception.injected = 1;
        events.exception.nr = 13;
        events.exception.has_error_code = 1;
        events.nmi.masked = 1;
#ifdef KVM_VCPUEVENT_VALID_TRIPLE_FAULT
        if (events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
                events.triple_fault.pending = 1;
#endif
        assert_int_equal(kvm_ioctl(fd, KVM_SET_VCPU_EVENTS, &events), 0);
        reset(&s.clone);
        state_expect_template(s.clone.vm, s.t);
        close_scene(&s);
}

static void memory_is_not_the_freeze_of_the_clone_itself(void **state)
{
        struct scene s;
        struct template *t;

        open_scene(&s);
        rig_type(&s.clone, "mr");
        vm_run(s.clone.vm);
        for (unsigned i = 0; i < 10; i++) {
                struct rig *r = &s.clone;

                rig_step(&r, 1);
        }
        t = freeze(&s.clone, false);
        vm_pause(s.clone.vm);
        reset(&s.clone);
        same_memory(&s.clone, s.t);
        template_unref(t);
        close_scene(&s);
}

static void revive(void *data, enum vm_event event, const struct vm_event_args *args)
{
        struct rig *r = data;

        if (event != VM_EVENT_EXIT)
                return;
        if (++r->forks < 5) {
                reset(r);
                rig_type(r, "f\n");
        } else {
                r->exited = true;
        }
}

static void an_owner_may_reset_when_it_hears_of_the_end(void **state)
{
        struct scene s;

        open_scene(&s);
        s.clone.vm->options.event = revive;
        rig_type(&s.clone, "f\n");
        vm_run(s.clone.vm);
        rig_until(&s.clone, rig_exited, 60);
        assert_int_equal(s.clone.forks, 5);
        reset(&s.clone);
        vm_pause(s.clone.vm);
        s.clone.vm->options.event = s.parent.vm->options.event;
        close_scene(&s);
}

/* --- registers that C cannot touch --- */

static void scribble_on_registers(struct vm *vm, unsigned i)
{
        const struct kvm_vcpu *vcpu = &vm->vcpus[i].kvm;
        uint8_t *area = calloc(1, vm->kvm.xsave_bytes);
        struct kvm_debugregs debug = {.db = {1, 2, 3, 4}, .dr6 = 0xffff0ff0, .dr7 = 0x700};
        struct kvm_regs regs;

        assert_int_equal(
                kvm_ioctl(vcpu->fd, vm->host.xsave2 ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, area), 0);
        memset(area + 32, 0x3c + (int)i, 384); /* st and xmm */
        area[512] |= 3;                        /* both are in use */
        assert_int_equal(kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, area), 0);
        assert_int_equal(kvm_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug), 0);
        memset(&regs, 0x11, sizeof regs);
        regs.rflags = 2;
        assert_int_equal(kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs), 0);
        free(area);
}

static void every_register_comes_back(void **state)
{
        struct rig parent, clone;
        struct template *t = at_ring(&parent, "fpu.elf", 2);

        rig_spawn(&clone, t, 1, 1);
        for (unsigned round = 0; round < 3; round++) {
                vm_run(clone.vm);
                rig_until(&clone, rig_exited, 60);
                assert_non_null(strstr(clone.text, "fpu: ok number=1 cpus=2"));
                vm_pause(clone.vm);
                for (unsigned i = 0; i < 2; i++)
                        scribble_on_registers(clone.vm, i);
                reset(&clone);
                state_expect_template(clone.vm, t);
        }
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

/* --- roots --- */

static void a_root_goes_back_to_its_first_freeze(void **state)
{
        struct template *t, *t2;
        struct rig root;
        char *want;

        rig_boot(&root, "lives.elf", "", 1, MEMORY, true);
        assert_int_equal(vm_reset(root.vm, &err), -EINVAL);
        assert_non_null(strstr(err.text, "no template"));
        rig_until(&root, rig_forked, 60); /* it has run on undisturbed */
        t = freeze(&root, true);
        vm_fork_done(root.vm, 0, 9);
        want = answer_of_a_fresh_clone(t, 0, 9);
        rig_type(&root, "mpr");
        for (unsigned i = 0; i < 10; i++) {
                struct rig *r = &root;

                rig_step(&r, 1);
        }
        t2 = freeze(&root, false);
        vm_fork_told(root.vm, 3);
        template_unref(t2);
        vm_pause(root.vm);
        reset(&root);
        state_expect_template(root.vm, t);
        same_memory(&root, t);
        expect_answer(want, ask(&root), "a root's life");
        free(want);
        template_unref(t);
        rig_free(&root);
}

static void a_root_without_a_seal_stays_as_it_is(void **state)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;
        struct rig root;
        void *other;

        rig_boot(&root, "lives.elf", "", 1, MEMORY, true);
        rig_until(&root, rig_forked, 60);
        other = mmap(NULL, 4096, PROT_READ, MAP_SHARED, root.vm->backing.shared_fd, 0);
        assert_int_equal(vm_freeze(root.vm, 0, true, &t, &stats, &err), -EBUSY);
        munmap(other, 4096);
        assert_int_equal(vm_reset(root.vm, &err), -EINVAL);
        vm_fork_done(root.vm, RAMET_DOORBELL_FAILED, 0);
        vm_pause(root.vm);
        assert_non_null(strstr(ask(&root), "lives: end"));
        rig_free(&root);
}

/* --- failure --- */

/* The same state without one record. */
static struct template *without(const struct template *t, uint32_t kind)
{
        int fd, layer = dup(t->layer_fds[0]);
        struct record_reader reader;
        struct record_writer w;
        struct template *bad;

        assert_int_equal(record_reader_init_fd(&reader, t->state_fd, record_rules, &err), 0);
        record_writer_init(&w);
        for (size_t i = 0; i < reader.nrecords; i++) {
                const struct record *r = &reader.records[i];

                if (r->kind != kind)
                        record_add(&w, r->kind, r->instance, r->version, r->data, r->length);
        }
        assert_int_equal(record_finish(&w, &fd, &err), 0);
        record_writer_fini(&w);
        record_reader_fini(&reader);
        assert_int_equal(template_import(fd, &layer, 1, NULL, 0, &bad, &err), 0);
        return bad;
}

/* The machine has read the state of the one that it had. */
static void exchange_template(struct vm *vm, struct template *t)
{
        record_reader_fini(&vm->saved);
        template_unref(vm->tmpl);
        vm->tmpl = t;
}

static void what_can_be_set_in_part_only_has_ended(void **state)
{
        struct scene s;

        open_scene(&s);
        vm_run(s.clone.vm);
        exchange_template(s.clone.vm, without(s.t, RECORD_DEV_SERIAL));
        assert_int_equal(vm_reset(s.clone.vm, &err), -EINVAL);
        rig_until(&s.clone, rig_exited, 10);
        assert_int_equal(s.clone.exit.reason, RAMET_EXIT_HOST);
        assert_non_null(strstr(s.clone.exit.text, "reset: "));
        /* and can be helped */
        exchange_template(s.clone.vm, template_ref(s.t));
        reset(&s.clone);
        vm_pause(s.clone.vm);
        close_scene(&s);
}

/* --- again and again --- */

static unsigned entries(const char *path)
{
        DIR *dir = opendir(path);
        unsigned n = 0;

        assert_non_null(dir);
        while (readdir(dir))
                n++;
        closedir(dir);
        return n;
}

/* Of a file of lines: how many, or the number after @key. */
static unsigned long lines(const char *path, const char *key)
{
        FILE *f = fopen(path, "r");
        unsigned long n = 0;
        char line[512];

        assert_non_null(f);
        while (fgets(line, sizeof line, f)) {
                if (key && !strncmp(line, key, strlen(key)))
                        n = strtoul(line + strlen(key), NULL, 10);
                n += !key;
        }
        fclose(f);
        return n;
}

struct footprint {
        unsigned fds, threads;
        unsigned long mappings, kib;
};

static struct footprint footprint(void)
{
        return (struct footprint){
                .fds = entries("/proc/self/fd"),
                .threads = entries("/proc/self/task"),
                .mappings = lines("/proc/self/maps", NULL),
                .kib = lines("/proc/self/status", "RssAnon:"),
        };
}

#define RESETS 1000
#if defined(__SANITIZE_ADDRESS__)
#define SLACK_KIB (256ul << 10) /* it keeps what was freed for a while */
#else
#define SLACK_KIB 512ul
#endif

static void a_thousand_resets_leave_nothing(enum ramet_cow cow)
{
        struct template *t;
        struct rig parent, clone;
        struct footprint before, after;

        rig_use_engine(cow);
        t = at_ring(&parent, "fork_pio.elf", 1);
        rig_spawn(&clone, t, 3, 4);
        vm_run(clone.vm);
        for (unsigned i = 0; i < RESETS; i++) {
                rig_until(&clone, rig_exited, 30);
                assert_string_equal(clone.text, "fork_pio: ring=1 result=3 count=4\n");
                assert_int_equal(clone.exit.status, 3 << 1 | 1);
                if (i == 20)
                        before = footprint();
                reset(&clone);
        }
        rig_until(&clone, rig_exited, 30);
        after = footprint();
        assert_int_equal(after.fds, before.fds);
        assert_int_equal(after.threads, before.threads);
        assert_in_range(after.mappings, 0, before.mappings + 4);
        assert_in_range(after.kib, 0, before.kib + SLACK_KIB);
        assert_true(own_bytes(&clone) < MIB);
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

static void a_thousand_resets(void **state)
{
        a_thousand_resets_leave_nothing(RAMET_COW_PRIVATE);
}

/* Two processors write as fast as they can; each checks at each page that it is where it was. */
static void resets_in_a_write_storm(enum ramet_cow cow)
{
        struct rig parent, clone;
        struct template *t;
        struct rig *r = &clone;

        rig_use_engine(cow);
        rig_boot(&parent, "writer.elf", "mib=2 ms=500", 2, MEMORY, false);
        rig_until(&parent, rig_printed, 30);
        t = freeze(&parent, false);
        rig_spawn(&clone, t, 1, 1);
        srand(7);
        for (unsigned i = 0; i < 60; i++) {
                struct timespec pause = {.tv_nsec = rand() % 8000000};

                if (i % 3)
                        vm_run(clone.vm);
                nanosleep(&pause, NULL);
                rig_step(&r, 1);
                reset(&clone);
        }
        vm_run(clone.vm);
        rig_until(&clone, rig_exited, 60);
        assert_non_null(strstr(clone.text, "errors=0"));
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

static void resets_in_a_write_storm_private(void **state)
{
        resets_in_a_write_storm(RAMET_COW_PRIVATE);
}

static void resets_in_a_write_storm_trap(void **state)
{
        resets_in_a_write_storm(RAMET_COW_TRAP);
}

static void resets_in_a_write_storm_rom(void **state)
{
        resets_in_a_write_storm(RAMET_COW_ROM);
}

#define TEST(f) cmocka_unit_test_setup(f, use_private)

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                TEST(lives_of_one_processor_end_in_reset),
                TEST(lives_of_two_processors_end_in_reset),
                TEST(lives_end_in_reset_with_trap),
                TEST(lives_end_in_reset_with_rom),
                TEST(own_writes_are_dropped_with_rom),
                TEST(a_clone_that_has_not_run_can_be_reset),
                TEST(who_is_held_by_a_fork_goes_on_without_it),
                TEST(a_ring_that_nobody_heard_is_awaited_again),
                TEST(an_end_that_nobody_heard_is_no_end),
                TEST(what_was_typed_and_not_read_is_gone),
                TEST(text_is_not_matched_across_lives),
                TEST(lines_that_the_owner_raised_are_down),
                TEST(requests_in_the_kernel_are_gone),
                TEST(memory_is_not_the_freeze_of_the_clone_itself),
                TEST(an_owner_may_reset_when_it_hears_of_the_end),
                TEST(every_register_comes_back),
                TEST(a_root_goes_back_to_its_first_freeze),
                TEST(a_root_without_a_seal_stays_as_it_is),
                TEST(what_can_be_set_in_part_only_has_ended),
                TEST(a_thousand_resets),
                TEST(resets_in_a_write_storm_private),
                TEST(resets_in_a_write_storm_trap),
                TEST(resets_in_a_write_storm_rom),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        return cmocka_run_group_tests_name("reset", tests, NULL, NULL);
}
