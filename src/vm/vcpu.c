/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vCPU's thread: honour what is pending, enter the guest, dispatch the exit, and again.
 *
 *      top:  pending? ---yes--> complete the I/O of the last exit, honour requests,
 *       ^      |no              leave the read section, wait while stopped or held, enter it again
 *       |      v
 *       |   sync_guest_begin; KVM_RUN; sync_guest_end; take the kick, if there was one
 *       '--- dispatch the exit
 *
 * The read section (of vcpu->access) covers guest mode and dispatch; it is left only at the top, so
 * that a stopped vCPU is one whose state can be saved.
 *
 * The kick is a signal that is never delivered. The thread blocks all signals; KVM_SET_SIGNAL_MASK
 * has KVM open its mask for that one from the beginning of KVM_RUN until its end, where KVM looks
 * for it before each entry. A pending one makes KVM_RUN return with EINTR, and goes on pending. So:
 *
 *  - None is lost. It is sent only to a thread that has announced guest mode, and stays pending
 *    until that thread has left KVM_RUN, whenever it came: before, while or after that ran.
 *  - None is left. Who leaves hears from src/sync whether it was kicked, and takes that one signal
 *    before it announces guest mode again. The kick may still be on its way then: `kick_sent` says
 *    when it is there.
 *  - No other is taken. A thread takes its own pending signals before those of the process, and
 *    takes only while its own is pending.
 *
 * The handlers of the program, and what it does with the signal elsewhere, do not come into it: but
 * for one thing, to set a signal to be ignored throws away those that are pending, so the program
 * must not do that with this one while machines run.
 *
 * immediate_exit is not for kicks: it makes KVM_RUN finish an instruction and do nothing else.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/spin.h"
#include "vm/machine.h"
#include "x86/assist.h"

/* A string instruction that reads MMIO exits for each element without being finished in between;
 * KVM goes back to the guest after 1024 of them, each of which may straddle two pages. More exits
 * than this is not a guest, it is a bug. */
#define COMPLETE_MAX 4096

static _Thread_local struct vcpu *current;

/* --- kick --- */

int vm_kick_signal_check(int signal, struct err *err)
{
        static const int no[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS,
                                 SIGFPE,  SIGILL,  SIGTRAP, SIGSYS};
        static const int job_control[] = {SIGCONT, SIGTSTP, SIGTTIN, SIGTTOU};

        if (signal < 1 || signal > SIGRTMAX)
                return err_input(err, "%d is no signal", signal);
        if (signal > 31)
                return err_input(err, "signal %d is a real-time one, whose queue can be full",
                                 signal);
        for (size_t i = 0; i < sizeof no / sizeof *no; i++)
                if (signal == no[i])
                        return err_input(err, "signal %d cannot be kept blocked", signal);
        for (size_t i = 0; i < sizeof job_control / sizeof *job_control; i++)
                if (signal == job_control[i])
                        return err_input(
                                err,
                                "signal %d is of job control: those that stop and continue "
                                "a process take each other back",
                                signal);
        return 0;
}

/* Kicks of one vCPU come one at a time, each after the one before was taken. */
void vcpu_kick(void *data)
{
        struct vcpu *vcpu = data;

        if (!vcpu->has_thread)
                return;
        pthread_kill(vcpu->thread, vcpu->vm->options.kick_signal);
        atomic_store(&vcpu->kick_sent, true);
}

/* The signal, if it is pending. */
static void take_signal(const struct vcpu *vcpu)
{
        const struct timespec now = {0};
        sigset_t kick;

        sigemptyset(&kick);
        sigaddset(&kick, vcpu->vm->options.kick_signal);
        while (sigtimedwait(&kick, NULL, &now) < 0 && errno == EINTR)
                ;
}

/* True when there was one. */
static bool take_kick(struct vcpu *vcpu)
{
        const struct timespec moment = {.tv_nsec = 50000};

        if (!sync_kicked(&vcpu->part))
                return false;
        for (unsigned i = 0; !atomic_load(&vcpu->kick_sent); i++) /* the sender is about to */
                if (i < 100)
                        sched_yield();
                else
                        nanosleep(&moment, NULL);
        atomic_store(&vcpu->kick_sent, false);
        take_signal(vcpu);
        return true;
}

/* KVM_RUN was interrupted, and nobody kicked. Somebody has sent that signal to the whole process,
 * and KVM_RUN was the first to be open for it; by now the kernel has passed it on to a thread that
 * does not block it. If there is none, it stays pending, and no vCPU can run: then the program has
 * so long to accept it (sigwait, signalfd), and after that it is gone. */
#define FOREIGN_MS 100

static bool is_pending(const struct vcpu *vcpu)
{
        sigset_t pending;

        sigemptyset(&pending);
        sigpending(&pending);
        return sigismember(&pending, vcpu->vm->options.kick_signal);
}

static void interrupted_by_another(struct vcpu *vcpu)
{
        const struct timespec moment = {.tv_nsec = 1000000};

        if (is_pending(vcpu) && vcpu->foreign++ < FOREIGN_MS) {
                nanosleep(&moment, NULL);
                if (is_pending(vcpu))
                        return; /* the same, it seems */
        } else if (vcpu->foreign > FOREIGN_MS) {
                take_signal(vcpu);
        }
        vcpu->foreign = 0;
}

/* --- hold: a vCPU waits for the end of the fork that it asked for, for a device, or for another
 * life --- */

void vcpu_hold_current(struct vm *vm, enum vcpu_hold why)
{
        if (current && current->vm == vm)
                atomic_fetch_or(&current->held, why);
}

void vcpu_hold_all(struct vm *vm, enum vcpu_hold why)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++) {
                atomic_fetch_or(&vm->vcpus[i].held, why);
                sync_request(&vm->vcpus[i].part, VCPU_REQUEST_HOLD);
        }
}

uint32_t vcpu_calling(const struct vm *vm)
{
        return current && current->vm == vm ? current->kvm.id : VM_NO_VCPU;
}

/* One instruction can ask for several (rep outs): the first one holds. */
bool vcpu_hold_for_event(struct vm *vm, uint32_t *number)
{
        *number = vcpu_calling(vm);
        return *number == VM_NO_VCPU ||
               !(atomic_fetch_or(&current->held, VCPU_HELD_EVENT) & VCPU_HELD_EVENT);
}

/* `held` has been changed. Pairs with wait_while_held(). */
static void wake(struct vcpu *vcpu)
{
        if (atomic_load(&vcpu->sleeps))
                syscall(SYS_futex, &vcpu->held, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static bool must_end(const struct vcpu *vcpu)
{
        return atomic_load(&vcpu->part.requests) & 1ull << VCPU_REQUEST_EXIT;
}

/* One that is to end leaves for good, whatever else holds it. */
void vcpu_release(struct vcpu *vcpu, uint32_t why)
{
        if ((atomic_fetch_and(&vcpu->held, ~why) & ~why) == 0 || must_end(vcpu))
                wake(vcpu);
}

void vcpu_release_quietly(struct vm *vm, uint32_t why)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                atomic_fetch_and(&vm->vcpus[i].held, ~why);
}

void vcpu_wake_all(struct vm *vm)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                if (!atomic_load(&vm->vcpus[i].held))
                        wake(&vm->vcpus[i]);
}

void vcpu_release_all(struct vm *vm, uint32_t why)
{
        for (unsigned i = 0; i < vm->shape.vcpus; i++)
                vcpu_release(&vm->vcpus[i], why);
}

bool vm_in_vcpu_thread(void)
{
        return current != NULL;
}

/* Who ends the threads requests that first, and then releases them. A hold that is set still later,
 * by another vCPU that ends the machine, is released by nobody.
 *
 * `sleeps` is written before `held` is read, by the kernel for the last time, and the other way
 * round by who releases: at least one of them sees the other, so a vCPU that is not asleep costs
 * its owner no system call. */
static void wait_while_held(struct vcpu *vcpu)
{
        uint32_t why;

        if (!atomic_load(&vcpu->held))
                return;
        atomic_store(&vcpu->sleeps, true);
        while ((why = atomic_load(&vcpu->held)) != 0 && !must_end(vcpu))
                syscall(SYS_futex, &vcpu->held, FUTEX_WAIT_PRIVATE, why, NULL, NULL, 0);
        atomic_store(&vcpu->sleeps, false);
}

/* A program that answers at once is quicker than a futex (base/spin.h), and than KVM_RUN, which
 * step_outside() needs to complete the exit. So the first look is from within the read section,
 * as long as nobody waits for its end. True: it has been released. */
static bool spin_while_held(struct vcpu *vcpu)
{
        uint64_t end;
        bool seen = false;

        if (!spin_worth(&vcpu->spin))
                return false;
        end = clock_now_ns() + SPIN_NS;
        do {
                for (int i = 0; i < 16 && !seen; i++) {
                        if (sync_pending(&vcpu->part))
                                return false; /* it says nothing about the spinning */
                        spin_pause();
                        seen = !atomic_load(&vcpu->held);
                }
        } while (!seen && clock_now_ns() < end);
        spin_done(&vcpu->spin, seen);
        return seen;
}

/* --- exits --- */

static void crash(struct vcpu *vcpu, const char *what)
{
        struct kvm_place at = {0};

        kvm_vcpu_place(&vcpu->kvm, &at);
        vm_exit_with(vcpu->vm, RAMET_EXIT_CRASH, 0, "%s, vCPU %u at %#llx", what, vcpu->kvm.id,
                     (unsigned long long)at.rip);
}

/* Of several accesses of one instruction it is held for the first. */
static void unhandled(struct vcpu *vcpu, enum device_space space, uint64_t address,
                      const uint8_t *data, unsigned len, bool write)
{
        struct vm_event_args args = {.unhandled = {.space = space,
                                                   .write = write,
                                                   .length = len,
                                                   .address = address,
                                                   .value = write ? device_get(data, len) : 0}};

        if (vcpu_hold_for_event(vcpu->vm, &args.vcpu))
                vm_raise(vcpu->vm, VM_EVENT_UNHANDLED, &args);
}

/* What a machine that has ended still asks for, to finish an instruction, reaches no device. */
static void access_bus(struct vcpu *vcpu, enum device_space space, uint64_t address, uint8_t *data,
                       unsigned len, bool write)
{
        if (atomic_load(&vcpu->held) & VCPU_HELD_ENDED) {
                if (!write)
                        memset(data, 0xff, len);
        } else if (!bus_access(vcpu->vm, space, address, data, len, write) &&
                   vcpu->vm->options.report_unhandled) {
                unhandled(vcpu, space, address, data, len, write);
        }
}

/* Counters of the own thread: no other writes them. */
static void count(_Atomic uint64_t *counter)
{
        atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                              memory_order_relaxed);
}

static void exit_io(struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->kvm.run;
        uint8_t *data = (uint8_t *)run + run->io.data_offset;

        count(&vcpu->pio_exits);
        for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size)
                access_bus(vcpu, DEVICE_PIO, run->io.port, data, run->io.size,
                           run->io.direction == KVM_EXIT_IO_OUT);
        vcpu->io_pending = true;
}

static void exit_mmio(struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->kvm.run;
        unsigned len = run->mmio.len;

        count(&vcpu->mmio_exits);
        if (len >= 1 && len <= sizeof run->mmio.data && cow_exit_mmio(vcpu)) {
                vcpu->io_pending = true;
                return;
        }
        if (len >= 1 && len <= sizeof run->mmio.data)
                access_bus(vcpu, DEVICE_MMIO, run->mmio.phys_addr, run->mmio.data, len,
                           run->mmio.is_write);
        vcpu->io_pending = true;
}

/* KVM (6.14) says why it could not deliver an event: the vectoring information, the exit reason and
 * qualification, and, if that was an access to memory that it had to emulate, the address. */
static bool exit_delivery(struct vcpu *vcpu)
{
        const struct kvm_run *run = vcpu->kvm.run;

        return cow_exit_delivery(vcpu,
                                 run->internal.ndata >= 5 ? run->internal.data[3] : UINT64_MAX);
}

static void exit_internal_error(struct vcpu *vcpu)
{
        const struct kvm_run *run = vcpu->kvm.run;
        char what[160];
        size_t n;
        int r;

        if (run->internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV && exit_delivery(vcpu))
                return;
        if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
                snprintf(what, sizeof what, "KVM internal error %u", run->internal.suberror);
                crash(vcpu, what);
                return;
        }
        n = 0;
        if (run->emulation_failure.ndata >= 3 &&
            (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES))
                n = run->emulation_failure.insn_size;
        if (n > sizeof run->emulation_failure.insn_bytes)
                n = sizeof run->emulation_failure.insn_bytes;
        if (cow_exit_emulation(vcpu, run->emulation_failure.insn_bytes, n))
                return;
        r = x86_assist(vcpu->kvm.fd, run->emulation_failure.insn_bytes, n);
        if (r > 0) {
                atomic_fetch_add(&vcpu->vm->assists, 1);
                return;
        }
        r = snprintf(what, sizeof what, "this host's KVM cannot emulate the instruction");
        for (size_t i = 0; i < n; i++)
                r += snprintf(what + r, sizeof what - (size_t)r, " %02x",
                              run->emulation_failure.insn_bytes[i]);
        crash(vcpu, what);
}

static void exit_ring_full(struct vcpu *vcpu)
{
        int r = dirty_harvest(&vcpu->vm->dirty);

        if (r < 0)
                vm_exit_with(vcpu->vm, RAMET_EXIT_HOST, 0, "emptying the dirty rings: %s",
                             strerror(-r));
}

static void dispatch(struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->kvm.run;
        char what[96];

        count(&vcpu->exits);
        meter_exit(vcpu->vm); /* one too many reaches no device: it has ended */
        switch (run->exit_reason) {
        case KVM_EXIT_IO:
                exit_io(vcpu);
                break;
        case KVM_EXIT_MMIO:
                exit_mmio(vcpu);
                break;
        case KVM_EXIT_INTERNAL_ERROR:
                exit_internal_error(vcpu);
                break;
        case KVM_EXIT_X86_WRMSR:
                cow_exit_wrmsr(vcpu);
                vcpu->io_pending = true;
                break;
        case KVM_EXIT_SHUTDOWN:
                if (cow_exit_shutdown(vcpu))
                        break;
                crash(vcpu, "guest triple fault");
                break;
        case KVM_EXIT_FAIL_ENTRY:
                snprintf(what, sizeof what, "KVM could not enter the guest, hardware reason %#llx",
                         (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
                crash(vcpu, what);
                break;
        case KVM_EXIT_SYSTEM_EVENT:
                snprintf(what, sizeof what, "system event %u", run->system_event.type);
                crash(vcpu, what);
                break;
        case KVM_EXIT_DIRTY_RING_FULL:
                exit_ring_full(vcpu);
                break;
        case KVM_EXIT_DEBUG: /* vcpu_debug_after() */
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN:
        case KVM_EXIT_HLT:
                break;
        default:
                snprintf(what, sizeof what, "unexpected KVM exit %u", run->exit_reason);
                crash(vcpu, what);
        }
}

/* --- the loop --- */

static void run_failed(struct vcpu *vcpu, int error)
{
        if (error == EINTR || error == EAGAIN) /* a kick, or an AP that has just got its SIPI */
                return;
        vm_exit_with(vcpu->vm, RAMET_EXIT_HOST, 0, "KVM_RUN: vCPU %u: %s", vcpu->kvm.id,
                     strerror(error));
}

static void note_first_exit(struct vcpu *vcpu, bool interrupted)
{
        struct vm *vm = vcpu->vm;

        if (vm->doorbell_fork || atomic_load(&vm->first_exit) != FIRST_EXIT_AWAITED)
                return;
        if (!interrupted)
                vm_first_exit(vm, VM_FIRST_EXIT_ANY);
        else if (sync_test_clear(&vcpu->part, VCPU_REQUEST_KICK))
                vm_first_exit(vm, VM_FIRST_EXIT_KICK);
}

/* KVM finishes an I/O instruction when the vCPU is entered again; with immediate_exit that is all
 * it does. An access that straddles two pages makes a second exit first. */
static void complete_io(struct vcpu *vcpu)
{
        struct kvm_run *run = vcpu->kvm.run;

        if (!vcpu->io_pending)
                return;
        for (unsigned i = 0; vcpu->io_pending && i < COMPLETE_MAX; i++) {
                vcpu->io_pending = false;
                run->immediate_exit = 1;
                if (ioctl(vcpu->kvm.fd, KVM_RUN, 0) == 0)
                        dispatch(vcpu);
                else if (errno != EINTR)
                        run_failed(vcpu, errno);
        }
        if (vcpu->debug.active)
                vcpu_debug_after(vcpu);
}

/* Breakpoints are found, and steps begun, between instructions. False: it is held. */
static bool enter_debugged(struct vcpu *vcpu)
{
        complete_io(vcpu);
        return vcpu_debug_enter(vcpu);
}

static void enter_guest(struct vcpu *vcpu)
{
        bool kicked;
        int error = 0;

        if (vcpu->debug.active && !enter_debugged(vcpu))
                return;
        vcpu->kvm.run->immediate_exit = 0;
        if (!sync_guest_begin(&vcpu->part)) {
                take_kick(vcpu);
                vcpu_debug_left(vcpu, true);
                return;
        }
        if (ioctl(vcpu->kvm.fd, KVM_RUN, 0) < 0)
                error = errno;
        sync_guest_end(&vcpu->part);
        kicked = take_kick(vcpu);
        if (error == EINTR && !kicked)
                interrupted_by_another(vcpu);
        vcpu_debug_left(vcpu, error != 0);
        vcpu->io_pending = false;
        if (atomic_load(&vcpu->vm->first_exit) != FIRST_EXIT_NONE)
                note_first_exit(vcpu, error != 0);
        if (error) {
                cow_interrupted(vcpu, error);
                run_failed(vcpu, error);
                return;
        }
        dispatch(vcpu);
        if (vcpu->debug.active && !vcpu->io_pending)
                vcpu_debug_after(vcpu);
}

/* The state can be saved between complete_io() and the re-entry. */
static void step_outside(struct vcpu *vcpu)
{
        vcpu->foreign = 0; /* it may be stopped for long */
        bool noted;

        complete_io(vcpu);
        sync_test_clear(&vcpu->part, VCPU_REQUEST_KICK);
        sync_test_clear(&vcpu->part, VCPU_REQUEST_HOLD);
        noted = cow_has_noted(vcpu);
        guest_access_end(&vcpu->access);
        if (noted)
                cow_break_noted(vcpu);
        if (atomic_load(&vcpu->held))
                cow_give_turn(vcpu);
        wait_while_held(vcpu);
        cow_wait_turn(vcpu);
        guest_access_begin(&vcpu->access);
}

static void *vcpu_main(void *data)
{
        struct vcpu *vcpu = data;
        char name[16];

        current = vcpu;
        snprintf(name, sizeof name, "vcpu%u", vcpu->kvm.id);
        pthread_setname_np(pthread_self(), name);
        guest_access_begin(&vcpu->access);
        while (!sync_test_clear(&vcpu->part, VCPU_REQUEST_EXIT)) {
                if (atomic_load(&vcpu->held) && spin_while_held(vcpu))
                        continue;
                if (atomic_load(&vcpu->held) || sync_pending(&vcpu->part) || cow_must_leave(vcpu)) {
                        step_outside(vcpu);
                        continue;
                }
                enter_guest(vcpu);
        }
        sync_leave(&vcpu->part);
        cow_give_turn(vcpu);
        return NULL;
}

void vcpu_join(struct vcpu *vcpu)
{
        sync_join(&vcpu->vm->sync, &vcpu->part, vcpu_kick, vcpu);
        tlb_init(&vcpu->tlb);
        guest_access_init(&vcpu->access, &vcpu->vm->mem, &vcpu->part, &vcpu->tlb);
}

int vcpu_start(struct vcpu *vcpu, struct err *err)
{
        sigset_t all, old;
        int r;

        sigfillset(&all); /* signals are for the program's own threads */
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r)
                return err_host(err, r, "a thread for vCPU %u: %s", vcpu->kvm.id, strerror(r));
        vcpu->has_thread = true;
        return 0;
}
