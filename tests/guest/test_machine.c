/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Freeze and spawn of real machines, all in this process: what a clone is made of is compared with
 * its template, not just run.
 */
#include "rig.h"
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <ramet/fork_abi.h>

#include "vm/machine.h"

#define MIB (1ull << 20)

static struct err err;

static struct template *freeze(struct rig *r, bool doorbell, struct vm_freeze_stats *stats)
{
        struct vm_freeze_stats s;
        struct template *t = NULL;
        int ret = vm_freeze(r->vm, 0, doorbell, &t, stats ? stats : &s, &err);

        if (ret < 0)
                fail_msg("freeze: %s", err.text);
        return t;
}

/* Boot to the doorbell, freeze there, let the parent go on as such. */
static struct template *at_doorbell(struct rig *r, const char *guest, const char *cmdline,
                                    unsigned vcpus, uint32_t count)
{
        struct template *t;

        rig_boot(r, guest, cmdline, vcpus, 64 * MIB, true);
        rig_until(r, rig_forked, 30);
        t = freeze(r, true, NULL);
        vm_fork_done(r->vm, 0, count);
        return t;
}

static void expect_end(struct rig *r, int status, const char *text)
{
        rig_until(r, rig_exited, 60);
        rig_free(r);
        if (!strstr(r->text, text))
                fail_msg("expected \"%s\" in: %s", text, r->text);
        assert_int_equal(r->exit.status, status);
}

static void doorbell_tells_parent_and_clones_apart(void **state)
{
        struct rig parent, clone[3];
        struct template *t = at_doorbell(&parent, "fork_pio.elf", "", 1, 3);
        char want[64];

        for (unsigned i = 0; i < 3; i++)
                rig_spawn(&clone[i], t, i + 1, 3);
        template_unref(t);
        for (unsigned i = 0; i < 3; i++)
                vm_run(clone[i].vm);
        expect_end(&parent, 1, "result=0 count=3");
        for (unsigned i = 0; i < 3; i++) {
                snprintf(want, sizeof want, "result=%u count=3", i + 1);
                expect_end(&clone[i], (int)(i + 1) << 1 | 1, want);
                assert_int_equal(clone[i].first_exits, 1);
                assert_int_equal(clone[i].first_exit.how, VM_FIRST_EXIT_DOORBELL);
        }
}

static void unarmed_doorbell_says_so(void **state)
{
        struct rig r;

        rig_boot(&r, "fork_pio.elf", "", 1, 64 * MIB, false);
        expect_end(&r, 0x7f << 1 | 1, "result=not-armed");
}

static void clones_of_clones(void **state)
{
        struct rig parent, child, grandchild;
        struct template *t = at_doorbell(&parent, "fork_pio.elf", "rings=3", 1, 1), *t2;

        rig_spawn(&child, t, 1, 1);
        template_unref(t);
        assert_int_equal(vm_arm_fork(child.vm, true, NULL), 0);
        vm_run(child.vm);
        rig_until(&child, rig_forked, 30);
        t2 = freeze(&child, true, NULL);
        vm_fork_done(child.vm, 0, 7);
        rig_spawn(&grandchild, t2, 5, 7);
        template_unref(t2);
        vm_run(grandchild.vm);
        rig_until(&grandchild, rig_exited, 30);
        rig_free(&grandchild);
        assert_non_null(strstr(grandchild.text, "ring=2 result=5 count=7"));
        rig_until(&child, rig_exited, 30);
        rig_free(&child);
        assert_non_null(strstr(child.text, "ring=2 result=0 count=7"));
        rig_free(&parent);
}

static void every_register_survives(void **state)
{
        struct rig parent, clone[2];
        struct template *t = at_doorbell(&parent, "fpu.elf", "", 2, 2);

        rig_spawn(&clone[0], t, 1, 2);
        rig_spawn(&clone[1], t, 2, 2);
        template_unref(t);
        vm_run(clone[0].vm);
        vm_run(clone[1].vm);
        expect_end(&parent, 0, "fpu: ok number=0 cpus=2");
        expect_end(&clone[0], 0, "fpu: ok number=1 cpus=2");
        expect_end(&clone[1], 0, "fpu: ok number=2 cpus=2");
}

static void generation_id_is_new_and_announced(void **state)
{
        struct rig parent, clone;
        struct template *t = at_doorbell(&parent, "vmgenid.elf", "", 1, 1);
        char before[33], after[33];
        unsigned irq, result;

        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        vm_run(clone.vm);
        expect_end(&parent, 0, "irq=0");
        expect_end(&clone, 0, "vmgenid: ");
        assert_int_equal(sscanf(strstr(clone.text, "vmgenid: "),
                                "vmgenid: result=%u before=%32s genid=%32s irq=%u", &result, before,
                                after, &irq),
                         4);
        assert_int_equal(result, 1);
        assert_string_not_equal(before, after);
        assert_int_equal(irq, 1);
        assert_non_null(strstr(parent.text, before));
}

/* --- in two steps --- */

static void a_shell_becomes_the_clone(void **state)
{
        const struct vm_clone_files no_files = {.console_in_fd = -1, .console_out_fd = -1};
        struct rig parent, shell, other;
        struct template *t;

        rig_shell(&shell, 2, 64 * MIB); /* made before there is a template */
        rig_shell(&other, 2, 32 * MIB);
        t = at_doorbell(&parent, "fpu.elf", "", 2, 2);
        assert_int_equal(vm_adopt(other.vm, t, &no_files, 1, 2, &err), -EINVAL);
        assert_non_null(strstr(err.text, "a shell of 2 vCPUs"));
        rig_adopt(&shell, t, 2, 2);
        assert_int_equal(vm_adopt(shell.vm, t, &no_files, 2, 2, &err), -EINVAL); /* once only */
        template_unref(t);
        vm_run(shell.vm);
        expect_end(&parent, 0, "fpu: ok number=0 cpus=2");
        expect_end(&shell, 0, "fpu: ok number=2 cpus=2");
        rig_free(&other);
}

/* --- the whole state, record by record --- */

static void a_clone_is_its_template_in_every_record(void **state)
{
        struct rig parent, clone;
        struct template *t = at_doorbell(&parent, "fpu.elf", "", 2, 1);

        rig_spawn(&clone, t, 1, 1); /* and never run */
        state_expect_template(clone.vm, t);
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

/* --- hostile and unlucky --- */

static int sealed_copy(const uint8_t *data, size_t len)
{
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_int_equal(write(fd, data, len), (ssize_t)len);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
        return fd;
}

/* Saved state can come from a process that its guest took over: any bytes must give a machine or an
 * error, and nothing else. */
static void damaged_state_is_refused_or_harmless(void **state)
{
        struct rig parent, clone;
        struct template *t = at_doorbell(&parent, "fork_pio.elf", "", 1, 1);
        unsigned refused = 0;
        struct stat st;
        uint8_t *data;

        assert_int_equal(fstat(t->state_fd, &st), 0);
        data = malloc((size_t)st.st_size);
        srand(11);
        for (unsigned round = 0; round < 400; round++) {
                int fd, layer = dup(t->layer_fds[0]);
                struct vm_options o;
                struct template *bad;

                assert_int_equal(pread(t->state_fd, data, (size_t)st.st_size, 0), st.st_size);
                for (unsigned i = 0; i < 1 + round % 8; i++)
                        data[(size_t)rand() % (size_t)st.st_size] ^= (uint8_t)(1 << rand() % 8);
                fd = sealed_copy(data, round % 5 ? (size_t)st.st_size
                                                 : (size_t)rand() % (size_t)st.st_size);
                assert_int_equal(template_import(fd, &layer, 1, NULL, 0, &bad, &err), 0);
                memset(&clone, 0, sizeof clone);
                assert_int_equal(loop_create(false, &clone.loop), 0);
                o = (struct vm_options){.loop = clone.loop,
                                        .console_in_fd = -1,
                                        .console_out_fd = -1,
                                        .event_data = &clone};
                err.text[0] = '\0';
                if (vm_spawn(bad, &o, 1, 1, &clone.vm, &err) < 0) {
                        refused++;
                        assert_true(err.text[0]);
                } else {
                        vm_destroy(clone.vm, 0);
                }
                loop_destroy(clone.loop);
                template_unref(bad);
        }
        assert_true(refused >= 80);
        free(data);
        template_unref(t);
        rig_free(&parent);
}

static void a_template_must_be_sealed(void **state)
{
        int state_fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        int layer = memfd_create("layer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct template *t;

        assert_int_equal(template_import(state_fd, &layer, 1, NULL, 0, &t, &err), -EINVAL);
        assert_non_null(strstr(err.text, "not sealed"));
}

static void a_seal_that_fails_leaves_the_parent_running(void **state)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;
        struct rig parent;
        void *other;

        rig_boot(&parent, "fork_pio.elf", "", 1, 64 * MIB, true);
        rig_until(&parent, rig_forked, 30);
        other = mmap(NULL, 4096, PROT_READ, MAP_SHARED, parent.vm->backing.shared_fd, 0);
        assert_int_equal(vm_freeze(parent.vm, 0, true, &t, &stats, &err), -EBUSY);
        assert_null(t);
        munmap(other, 4096);
        vm_fork_done(parent.vm, RAMET_DOORBELL_FAILED, 0);
        expect_end(&parent, 0x7f << 1 | 1, "result=failed");
}

/* Freeze again and again while every vCPU writes; the parent and a clone of each freeze must find
 * memory and registers of one and the same moment. */
static void freezes_in_a_write_storm(void **state)
{
        struct vm_freeze_stats stats;
        struct rig parent, clone;

        rig_boot(&parent, "writer.elf", "mib=2 ms=4000", 2, 64 * MIB, false);
        rig_until(&parent, rig_printed, 30);
        for (unsigned i = 0; i < 12 && !parent.exited; i++) {
                struct rig *p = &parent;
                struct template *t;
                int ret;

                for (unsigned k = 0; k < 1 + i * 3; k++)
                        rig_step(&p, 1);
                ret = vm_freeze(parent.vm, 0, false, &t, &stats, &err);
                if (ret == -ESRCH) /* it was faster */
                        break;
                assert_int_equal(ret, 0);
                if (i % 3 == 0) {
                        rig_spawn(&clone, t, 1, 1);
                        vm_run(clone.vm);
                        expect_end(&clone, 0, "errors=0");
                }
                template_unref(t);
        }
        expect_end(&parent, 0, "errors=0");
}

static void nothing_changes_while_paused(void **state)
{
        uint8_t *then = malloc(16 * MIB), *now = malloc(16 * MIB);
        struct rig r;
        struct rig *p = &r;

        rig_boot(&r, "writer.elf", "mib=1 ms=1500", 2, 16 * MIB, false);
        rig_until(&r, rig_printed, 30);
        assert_int_equal(guest_mem_read(vm_memory(r.vm), 0, then, 16 * MIB), 0);
        for (unsigned i = 0; i < 20; i++)
                rig_step(&p, 1);
        vm_pause(r.vm);
        vm_pause(r.vm);
        assert_int_equal(guest_mem_read(vm_memory(r.vm), 0, now, 16 * MIB), 0);
        assert_true(memcmp(then, now, 16 * MIB) != 0); /* it does write when it runs */
        for (unsigned i = 0; i < 20; i++)
                rig_step(&p, 1);
        assert_int_equal(guest_mem_read(vm_memory(r.vm), 0, then, 16 * MIB), 0);
        assert_memory_equal(then, now, 16 * MIB);
        vm_run(r.vm);
        expect_end(&r, 0, "errors=0");
        free(then);
        free(now);
}

static void a_port_that_is_taken_is_refused(void **state)
{
        static const struct {
                uint16_t port;
                const char *text;
        } taken[] = {{0x3f8, "serial"},
                     {0x70, "rtc"},
                     {0x40, "KVM"},
                     {0x5e, "KVM"},
                     {0xefd, "doorbell"}};

        for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
                struct vm_options o = {.shape = {.memory_bytes = 16 * MIB,
                                                 .vcpus = 1,
                                                 .debug_exit_port = taken[i].port},
                                       .console_in_fd = -1,
                                       .console_out_fd = -1,
                                       .hugepages = RAMET_HUGEPAGES_OFF};
                struct vm *vm = NULL;

                assert_int_equal(loop_create(false, &o.loop), 0);
                assert_int_equal(vm_create(&o, &vm, &err), -EINVAL);
                assert_non_null(strstr(err.text, "debug-exit"));
                assert_non_null(strstr(err.text, taken[i].text));
                assert_null(vm);
                loop_destroy(o.loop);
        }
}

static void a_triple_fault_is_a_crash(void **state)
{
        struct rig r;

        rig_boot(&r, "triple.elf", "", 1, 64 * MIB, false);
        rig_until(&r, rig_exited, 30);
        assert_int_equal(r.exit.reason, RAMET_EXIT_CRASH);
        assert_non_null(strstr(r.exit.text, "triple fault, vCPU 0"));
        rig_free(&r);
}

/* A ring that comes while another's fork ends is part of that fork, or refused; it must neither be
 * held for ever nor ask for a fork that nobody armed. */
static void rings_of_many_processors_all_come_back(void **state)
{
        struct rig r;
        struct rig *p = &r;
        unsigned armed = 1;

        rig_boot(&r, "ringers.elf", "rings=300000", 2, 64 * MIB, true);
        for (time_t end = time(NULL) + 60; !r.exited; rig_step(&p, 1)) {
                if (time(NULL) > end)
                        fail_msg("a ring never came back, after %u forks", armed);
                if (r.forks < armed)
                        continue;
                assert_int_equal(r.forks, armed);
                armed++;
                assert_int_equal(vm_arm_fork(r.vm, true, NULL), 0);
                vm_fork_done(r.vm, 0, 1);
        }
        rig_free(&r);
        assert_non_null(strstr(r.text, "ringers: ok cpus=2"));
        assert_true(armed > 10);
}

static void a_stopped_processor_has_no_io_pending(void **state)
{
        struct rig r;
        struct rig *p = &r;

        rig_boot(&r, "mmio_rep.elf", "rounds=200", 1, 64 * MIB, false);
        rig_until(&r, rig_printed, 30);
        for (unsigned i = 0; i < 20; i++) {
                vm_pause(r.vm);
                assert_false(r.vm->vcpus[0].io_pending);
                vm_run(r.vm);
                rig_step(&p, 1);
        }
        expect_end(&r, 1, "mmio_rep: ok");
}

/* What its last exit asked for was never finished, and clones would begin by ending. */
static void a_machine_that_ended_is_not_frozen(void **state)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;
        struct rig r;

        rig_boot(&r, "triple.elf", "", 1, 64 * MIB, false);
        rig_until(&r, rig_exited, 30);
        assert_int_equal(vm_freeze(r.vm, 0, false, &t, &stats, &err), -ESRCH);
        assert_non_null(strstr(err.text, "has ended"));
        rig_free(&r);
}

static void a_machine_may_be_paused_before_it_starts(void **state)
{
        struct rig parent, clone;
        struct template *t = at_doorbell(&parent, "fork_pio.elf", "", 1, 1);
        struct vm_options o;

        memset(&clone, 0, sizeof clone);
        assert_int_equal(loop_create(true, &clone.loop), 0);
        o = (struct vm_options){.loop = clone.loop,
                                .console_in_fd = -1,
                                .console_out_fd = -1,
                                .event_data = &clone};
        assert_int_equal(vm_spawn(t, &o, 1, 1, &clone.vm, &err), 0);
        vm_pause(clone.vm);
        assert_int_equal(vm_start(clone.vm, &err), 0);
        vm_destroy(clone.vm, 0);
        loop_destroy(clone.loop);
        template_unref(t);
        rig_free(&parent);
}

static void set_msr(struct rig *r, uint32_t index, uint64_t value)
{
        struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entry;
        } m = {.head.nmsrs = 1, .entry = {.index = index, .data = value}};

        assert_int_equal(kvm_ioctl(r->vm->vcpus[0].kvm.fd, KVM_SET_MSRS, &m), 1);
}

static uint64_t get_msr(struct rig *r, uint32_t index)
{
        struct {
                struct kvm_msrs head;
                struct kvm_msr_entry entry;
        } m = {.head.nmsrs = 1, .entry = {.index = index}};

        assert_int_equal(kvm_ioctl(r->vm->vcpus[0].kvm.fd, KVM_GET_MSRS, &m), 1);
        return m.entry.data;
}

/* KVM keeps the memory types but does not list their MSRs. */
static void memory_types_survive(void **state)
{
        struct rig parent, clone;
        struct template *t;

        rig_boot(&parent, "hang.elf", "", 1, 64 * MIB, false);
        vm_pause(parent.vm);
        set_msr(&parent, 0x2ff, 0xc06);               /* MTRRdefType */
        set_msr(&parent, 0x200, 0xc0000000 | 1);      /* PHYSBASE0 */
        set_msr(&parent, 0x201, 0xfc0000000 | 0x800); /* PHYSMASK0 */
        set_msr(&parent, 0x268, 0x0606060606060606);  /* FIX4K_C0000 */
        t = freeze(&parent, false, NULL);
        rig_spawn(&clone, t, 1, 1);
        assert_int_equal(get_msr(&clone, 0x2ff), 0xc06);
        assert_int_equal(get_msr(&clone, 0x200), 0xc0000000 | 1);
        assert_int_equal(get_msr(&clone, 0x201), 0xfc0000000 | 0x800);
        assert_int_equal(get_msr(&clone, 0x268), 0x0606060606060606);
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

#define PIT_VECTOR 0x30

/* Is the vector pending in the local APIC of the last vCPU? */
static bool pit_is_pending(struct rig *r)
{
        struct kvm_lapic_state apic;

        assert_int_equal(
                kvm_ioctl(r->vm->vcpus[r->vm->shape.vcpus - 1].kvm.fd, KVM_GET_LAPIC, &apic), 0);
        return apic.regs[0x200 + PIT_VECTOR / 32 * 16 + PIT_VECTOR % 32 / 8] >> PIT_VECTOR % 8 & 1;
}

/* Let the PIT tick as fast as KVM lets it, by the IOAPIC, to the last vCPU. */
static void route_pit(struct rig *r)
{
        struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};
        struct vcpu *last = &r->vm->vcpus[r->vm->shape.vcpus - 1];
        struct kvm_pit_state2 pit;
        struct kvm_lapic_state apic;

        assert_int_equal(kvm_ioctl(last->kvm.fd, KVM_GET_LAPIC, &apic), 0);
        apic.regs[0xf1] |= 1; /* enabled by software */
        assert_int_equal(kvm_ioctl(last->kvm.fd, KVM_SET_LAPIC, &apic), 0);
        assert_int_equal(kvm_ioctl(r->vm->kvm.fd, KVM_GET_IRQCHIP, &chip), 0);
        chip.chip.ioapic.redirtbl[0].bits = PIT_VECTOR | (uint64_t)(r->vm->shape.vcpus - 1)
                                                                 << 56; /* fixed, edge, physical */
        assert_int_equal(kvm_ioctl(r->vm->kvm.fd, KVM_SET_IRQCHIP, &chip), 0);
        assert_int_equal(kvm_ioctl(r->vm->kvm.fd, KVM_GET_PIT2, &pit), 0);
        pit.channels[0] =
                (struct kvm_pit_channel_state){.count = 238, .mode = 2, .gate = 1, .rw_mode = 3};
        assert_int_equal(kvm_ioctl(r->vm->kvm.fd, KVM_SET_PIT2, &pit), 0);
}

/* KVM's PIT waits for its last tick to be acknowledged before it gives the next. So a tick that a
 * clone's local APIC loses, because that is restored after the tick, is the last one there is. */
static void a_clones_pit_ticks(void **state)
{
        struct rig parent, clone;
        struct kvm_lapic_state apic;
        struct template *t;

        rig_boot(&parent, "hang.elf", "", 8, 64 * MIB, false);
        vm_pause(parent.vm);
        route_pit(&parent);
        usleep(20000);
        assert_true(pit_is_pending(&parent));
        /* Take it away: the parent's PIT waits from now on, and what is saved is without a tick. */
        assert_int_equal(kvm_ioctl(parent.vm->vcpus[7].kvm.fd, KVM_GET_LAPIC, &apic), 0);
        memset(apic.regs + 0x200, 0, 0x80);
        assert_int_equal(kvm_ioctl(parent.vm->vcpus[7].kvm.fd, KVM_SET_LAPIC, &apic), 0);
        usleep(5000);
        assert_false(pit_is_pending(&parent));
        t = freeze(&parent, false, NULL);
        rig_spawn(&clone, t, 1, 1);
        usleep(20000);
        assert_true(pit_is_pending(&clone));
        template_unref(t);
        rig_free(&clone);
        rig_free(&parent);
}

/* Whatever fails, a new machine's descriptors of the console are closed. */
static void a_console_that_cannot_be_used_is_closed(void **state)
{
        struct vm_options o = {.shape = {.memory_bytes = 64 * MIB, .vcpus = 1},
                               .console_out_fd = 1 << 19};
        struct vm *vm;
        int fds[2];

        assert_int_equal(pipe(fds), 0);
        assert_int_equal(loop_create(false, &o.loop), 0);
        o.console_in_fd = fds[0];
        assert_int_equal(vm_create(&o, &vm, &err), -EBADF);
        assert_int_equal(fcntl(fds[0], F_GETFD), -1);
        loop_destroy(o.loop);
        close(fds[1]);
}

/* Any process of the same user can fill the queue of real-time signals. */
static void a_full_signal_queue_loses_no_kick(void **state)
{
        struct rlimit old, none;
        struct rig r;

        assert_int_equal(vm_kick_signal_check(SIGRTMIN, &err), -EINVAL);
        assert_int_equal(vm_kick_signal_check(SIGUSR1, &err), 0);

        rig_boot(&r, "hang.elf", "", 1, 64 * MIB, false);
        assert_int_equal(getrlimit(RLIMIT_SIGPENDING, &old), 0);
        none = (struct rlimit){.rlim_cur = 0, .rlim_max = old.rlim_max};
        assert_int_equal(setrlimit(RLIMIT_SIGPENDING, &none), 0);
        usleep(20000); /* into the guest, which never comes out by itself */
        vm_pause(r.vm);
        assert_int_equal(setrlimit(RLIMIT_SIGPENDING, &old), 0);
        rig_free(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(doorbell_tells_parent_and_clones_apart),
                cmocka_unit_test(unarmed_doorbell_says_so),
                cmocka_unit_test(clones_of_clones),
                cmocka_unit_test(every_register_survives),
                cmocka_unit_test(generation_id_is_new_and_announced),
                cmocka_unit_test(a_shell_becomes_the_clone),
                cmocka_unit_test(a_clone_is_its_template_in_every_record),
                cmocka_unit_test(damaged_state_is_refused_or_harmless),
                cmocka_unit_test(a_template_must_be_sealed),
                cmocka_unit_test(a_seal_that_fails_leaves_the_parent_running),
                cmocka_unit_test(freezes_in_a_write_storm),
                cmocka_unit_test(nothing_changes_while_paused),
                cmocka_unit_test(a_port_that_is_taken_is_refused),
                cmocka_unit_test(a_triple_fault_is_a_crash),
                cmocka_unit_test(rings_of_many_processors_all_come_back),
                cmocka_unit_test(a_stopped_processor_has_no_io_pending),
                cmocka_unit_test(memory_types_survive),
                cmocka_unit_test(a_full_signal_queue_loses_no_kick),
                cmocka_unit_test(a_clones_pit_ticks),
                cmocka_unit_test(a_console_that_cannot_be_used_is_closed),
                cmocka_unit_test(a_machine_that_ended_is_not_frozen),
                cmocka_unit_test(a_machine_may_be_paused_before_it_starts),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
