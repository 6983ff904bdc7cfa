/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest with bad intentions, or an unlucky moment, could do to a machine that is forked,
 * reset or ended: each was a defect once.
 */
#include "rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kvm/dirty.h"
#include "mem/cow_rom.h"
#include "vm/machine.h"

#define MIB        (1ull << 20)
#define PAGE       4096ull
#define MEMORY     (32 * MIB)
#define SPARE      (24 * MIB) /* guests leave it alone */
#define WALL_CLOCK 0x4b564d00u
#define PV_EOI     0x4b564d04u

static struct err err;

static void boot(struct rig *r, unsigned vcpus, enum ramet_cow cow)
{
        rig_cow = cow;
        rig_boot(r, "writer.elf", "mib=1 ms=60000", vcpus, MEMORY, false);
        rig_until(r, rig_printed, 30);
}

static struct template *freeze(struct rig *r)
{
        struct vm_freeze_stats stats;
        struct template *t = NULL;

        if (vm_freeze(r->vm, 0, false, &t, &stats, &err) < 0)
                fail_msg("freeze: %s", err.text);
        return t;
}

/* A guest may write any address into an MSR: here the last page that there could be. */
static void a_clock_at_the_end_of_the_address_space(void **state)
{
        struct rig r, clone;
        struct template *t;

        boot(&r, 1, RAMET_COW_ROM);
        vm_pause(r.vm);
        assert_int_equal(kvm_msr_set_one(&r.vm->vcpus[0].kvm, WALL_CLOCK, -PAGE), 0);
        t = freeze(&r);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        rig_free(&clone);
        rig_free(&r);
}

/* Zeros written over data are a clone's own, as other bytes are, also when the page is moved. */
static void zeros_over_data_reach_the_next_clone(void **state)
{
        static const uint8_t zeros[PAGE];
        uint64_t word = 0x1234;
        struct rig r, clone;
        struct template *t;
        struct backing *b;

        boot(&r, 1, RAMET_COW_ROM);
        vm_pause(r.vm);
        b = &r.vm->backing;
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(vm_write(r.vm, SPARE + i * PAGE, &word, sizeof word), 0);
        template_unref(freeze(&r));
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(vm_write(r.vm, SPARE + i * PAGE, zeros, PAGE), 0);
        assert_int_equal(b->cow->break_range(b, SPARE + PAGE, PAGE, &err), 0);
        assert_int_equal(b->cow->break_range(b, SPARE, 4 * PAGE, &err), 0);
        t = freeze(&r);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(vm_read(clone.vm, SPARE + i * PAGE, &word, sizeof word), 0);
                assert_int_equal(word, i < 3 ? 0 : 0x1234);
        }
        rig_free(&clone);
        rig_free(&r);
}

/* The guest has written an MSR that KVM takes only once its page is broken; a freeze comes first.
 */
static void an_msr_that_waits_for_its_page_is_frozen_as_written(void **state)
{
        struct kvm_msr_entry msrs[KVM_PV_MSRS_MAX];
        struct rig r, clone;
        struct template *t;
        struct vcpu *vcpu;
        unsigned n;

        boot(&r, 1, RAMET_COW_ROM);
        template_unref(freeze(&r));
        vm_pause(r.vm);
        vcpu = &r.vm->vcpus[0];
        vcpu->cow = (struct vcpu_cow){
                .npages = 1, .pages = {SPARE}, .msr = PV_EOI, .msr_value = SPARE | 1};
        t = freeze(&r);
        assert_int_equal(vcpu->cow.msr, 0);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        n = kvm_pv_msrs_get(&clone.vm->vcpus[0].kvm, &clone.vm->msrs, msrs);
        for (unsigned i = 0; i < n; i++) {
                if (msrs[i].index == PV_EOI)
                        assert_int_equal(msrs[i].data, SPARE | 1);
        }
        rig_free(&clone);
        rig_free(&r);
}

/* KVM gives a guest #GP for an MSR of Hyper-V's, since its CPUID offers none; so does Ramet, which
 * could set them. */
static void an_msr_that_is_not_offered_is_refused(void **state)
{
        static const uint32_t not_offered[] = {0x40000001, 0x40000021, 0x40000073, 0x40000082};
        struct kvm_run *run;
        struct rig r;

        boot(&r, 1, RAMET_COW_ROM);
        template_unref(freeze(&r));
        vm_pause(r.vm);
        run = r.vm->vcpus[0].kvm.run;
        for (unsigned i = 0; i < 4; i++) {
                run->msr.index = not_offered[i];
                run->msr.data = SPARE | 1;
                run->msr.error = 0;
                cow_exit_wrmsr(&r.vm->vcpus[0]);
                if (!run->msr.error)
                        fail_msg("MSR %#x is taken", not_offered[i]);
        }
        run->msr.index = WALL_CLOCK;
        run->msr.data = SPARE;
        cow_exit_wrmsr(&r.vm->vcpus[0]);
        assert_int_equal(run->msr.error, 0);
        rig_free(&r);
}

/* A vCPU that a fork holds is let go for the end of the machine, and at that moment something else
 * ends it: the hold that this brings is not waited for. */
static void a_machine_that_ends_while_it_is_destroyed(void **state)
{
        struct timespec until;
        struct vcpu *vcpu;
        struct rig r;

        boot(&r, 1, RAMET_COW_PRIVATE);
        vcpu = &r.vm->vcpus[0];
        vcpu_hold_all(r.vm, VCPU_HELD_FORK);
        usleep(100000);
        sync_request(&vcpu->part, VCPU_REQUEST_EXIT);
        atomic_fetch_or(&vcpu->held, VCPU_HELD_ENDED);
        vcpu_release_all(r.vm, VCPU_HELD_FORK);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 5;
        assert_int_equal(pthread_timedjoin_np(vcpu->thread, NULL, &until), 0);
        vcpu->has_thread = false;
        rig_free(&r);
}

/* A vCPU may come out with its dirty ring full, and then KVM does nothing else for it until that is
 * emptied. */
static void reset_with_a_full_ring(bool stopped)
{
        struct kvm_vcpu *vcpu;
        struct rig r, clone;
        struct template *t;
        struct kvm_host host;
        uint32_t max;

        assert_int_equal(kvm_host_open(&host, &err), 0);
        max = kvm_dirty_ring_max(&host);
        kvm_host_close(&host);
        if (max < 256) {
                print_message("this host's KVM has no dirty rings\n");
                skip();
        }
        rig_dirty_ring = 256;
        boot(&r, 1, RAMET_COW_PRIVATE);
        t = freeze(&r);
        rig_free(&r);
        rig_spawn(&clone, t, 1, 1);
        template_unref(t);
        if (vm_dirty_start(clone.vm, &err) < 0)
                fail_msg("%s", err.text);
        vm_pause(clone.vm); /* the thread is at its barrier: we are the vCPU's now */
        vcpu = &clone.vm->vcpus[0].kvm;
        vcpu->run->immediate_exit = 0;
        do {
                int ret = ioctl(vcpu->fd, KVM_RUN, 0);

                if (ret < 0 && errno != EINTR)
                        fail_msg("KVM_RUN: %s", strerror(errno));
                if (vcpu->run->exit_reason == KVM_EXIT_IO) /* nothing was typed, print on */
                        memset((uint8_t *)vcpu->run + vcpu->run->io.data_offset, 0x60,
                               vcpu->run->io.size);
        } while (vcpu->run->exit_reason != KVM_EXIT_DIRTY_RING_FULL);
        if (stopped)
                assert_int_equal(vm_dirty_stop(clone.vm, &err), 0);
        if (vm_reset(clone.vm, &err) < 0)
                fail_msg("reset: %s", err.text);
        rig_free(&clone);
        rig_dirty_ring = 0;
}

static void a_reset_with_a_ring_that_is_full(void **state)
{
        reset_with_a_full_ring(false);
        reset_with_a_full_ring(true);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_clock_at_the_end_of_the_address_space),
                cmocka_unit_test(zeros_over_data_reach_the_next_clone),
                cmocka_unit_test(an_msr_that_waits_for_its_page_is_frozen_as_written),
                cmocka_unit_test(an_msr_that_is_not_offered_is_refused),
                cmocka_unit_test(a_machine_that_ends_while_it_is_destroyed),
                cmocka_unit_test(a_reset_with_a_ring_that_is_full),
        };
        int r = rig_init();

        if (r <= 0)
                return r;
        return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
