# SPDX-License-Identifier: Apache-2.0
"""What the processes of a run may do and what they hold: machines are confined before their guest
runs, no KVM descriptor crosses a process, and the launcher and its spawner have no guest memory."""

import ctypes
import fcntl
import os
import re
import signal
from pathlib import Path

from tap import (Failure, case, cases_for, expect, expect_equal, expect_error, expect_in, guest,
                 main, need_kvm, ramet, start, tmp)

from facts import Events, check_events, child_named, children, descriptors, wait_for

GETUID = 102  # x86-64's number of a system call that no machine needs
SYSCALL_BYTES = b'\x0f\x05'


def forked(*args):
    """Machine web with two processors and two clones, all in a loop in CPL 3; and its events."""
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('hang.elf'), '--cpus', '2', '--memory', '64M', '--name',
               'web', '--fork', '2', '--fork-at', 'console=hang: now', '--events', log.path, *args)
    log.wait('clone-running', 2)
    return vm, log


def end(vm, log):
    vm.signal(signal.SIGTERM)
    expect_equal(vm.wait().status, 128 + signal.SIGTERM, 'status')
    check_events(log, 'web')


def thread_status(pid):
    """The fields of /proc/PID/task/*/status, for each thread."""
    return [dict(re.findall(r'(\w+):\t(.*)', (task / 'status').read_text()))
            for task in Path(f'/proc/{pid}/task').iterdir()]


# --- seccomp ---

@cases_for(['default', 'on', 'log', 'off'])
def seccomp(mode):
    """Every thread of every machine has the filter and no_new_privs, or none of them has."""
    need_kvm()
    vm, log = forked(*(() if mode == 'default' else ('--seccomp', mode)))
    want = ('0', '0') if mode == 'off' else ('2', '1')
    for name, pid in log.pids().items():
        threads = thread_status(pid)
        expect(len(threads) >= 3, f'{name} has {len(threads)} threads')  # an owner, two vCPUs
        for t in threads:
            expect_equal((t['Seccomp'], t['NoNewPrivs']), want, f'{name}, thread {t["Name"]}')
    end(vm, log)


@cases_for(['on', 'log', 'off'])
def forbidden_system_call(mode):
    """A clone is made to call getuid(): that kills it, and harms nobody else; or is let pass."""
    need_kvm()
    vm, log = forked('--seccomp', mode)
    pid = log.pids()['web.1']
    killed_by, result = call_in(pid, GETUID)
    if mode == 'on':
        expect_equal(killed_by, signal.SIGSYS, 'the signal that it got')
        wait_for(lambda: log.of('exit', 'web.1'), 5, 'its end')
        death = log.one('exit', 'web.1')
        expect_equal((death['reason'], death['signal']), ('killed', signal.SIGSYS), 'exit event')
        wait_for(lambda: vm.stderr.count('\n'), 5, 'a line about it')
        expect(re.match(r"ramet: 'web.1'.*seccomp", vm.stderr), vm.stderr)
    else:
        expect_equal((killed_by, result), (0, os.getuid()), 'signal, and user')
    for name in ('web', 'web.2'):
        expect_equal(ramet('pause', name).status, 0, f'pause {name}')
        expect_equal(ramet('resume', name).status, 0, f'resume {name}')
    end(vm, log)


class Registers(ctypes.Structure):
    """struct user_regs_struct of x86-64."""
    _fields_ = [(n, ctypes.c_ulonglong) for n in (
        'r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss '
        'fs_base gs_base ds es fs gs').split()]


PTRACE_SINGLESTEP, PTRACE_GETREGS, PTRACE_SETREGS = 9, 12, 13
PTRACE_ATTACH, PTRACE_DETACH = 16, 17


def call_in(pid, number):
    """Make a machine's owner thread, which waits for events in a system call, make another one.
    The signal that killed it, 0 if none did, and the call's result."""
    libc = ctypes.CDLL(None, use_errno=True)

    def ptrace(request, data=0):
        if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(0), data) < 0:
            raise OSError(ctypes.get_errno(), f'ptrace request {request}')

    def wait():
        _, status = os.waitpid(pid, getattr(os, '__WALL', 0x40000000))
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    before, after = Registers(), Registers()
    ptrace(PTRACE_ATTACH)
    expect_equal(wait(), 0, 'signal at the attachment')
    ptrace(PTRACE_GETREGS, ctypes.byref(before))
    with open(f'/proc/{pid}/mem', 'rb') as mem:
        mem.seek(before.rip - 2)
        expect_equal(mem.read(2), SYSCALL_BYTES, 'where it waits')
    call = Registers.from_buffer_copy(before)
    call.rip, call.rax, call.orig_rax = before.rip - 2, number, 2 ** 64 - 1
    ptrace(PTRACE_SETREGS, ctypes.byref(call))
    ptrace(PTRACE_SINGLESTEP)
    killed_by = wait()
    if killed_by:
        return killed_by, None
    ptrace(PTRACE_GETREGS, ctypes.byref(after))
    ptrace(PTRACE_SETREGS, ctypes.byref(before))
    ptrace(PTRACE_DETACH)
    return 0, after.rax


@case
def seccomp_word_that_is_none():
    expect_error(ramet('run', '--kernel', guest('pvh.elf'), '--seccomp', 'maybe'), 2, '--seccomp')


# --- what the processes hold ---

@case
def every_machine_has_a_process_of_its_own():
    need_kvm()
    vm, log = forked()
    spawner = child_named(vm.pid, 'ramet-spawner')
    expect_equal(sorted(children(vm.pid).values()), ['ramet-keeper', 'ramet-spawner'],
                 'children of the launcher')
    expect_equal(children(spawner), dict.fromkeys(log.pids().values(), 'ramet-vm'),
                 'children of the spawner')
    end(vm, log)


@case
def no_kvm_descriptor_crosses_a_process():
    need_kvm()
    vm, log = forked()
    for pid in (vm.pid, *children(vm.pid)):
        expect(not [d for d in descriptors(pid) if 'kvm' in d], f'KVM in {descriptors(pid)}')
    for name, pid in log.pids().items():
        kvm = sorted(d for d in descriptors(pid) if 'kvm-' in d)
        expect_equal(kvm, ['anon_inode:kvm-vcpu:0', 'anon_inode:kvm-vcpu:1', 'anon_inode:kvm-vm'],
                     f'KVM descriptors of {name}')
    end(vm, log)


@case
def guest_memory_is_in_machines_only():
    """The launcher and its helpers map none of it and hold no template once clones run."""
    need_kvm()
    vm, log = forked()
    for pid in (vm.pid, *children(vm.pid)):
        maps = Path(f'/proc/{pid}/maps').read_text()
        expect('memfd:' not in maps, f'a memfd is mapped in {pid}: {maps}')
        expect(not [d for d in descriptors(pid) if 'memfd' in d], f'{descriptors(pid)}')
    for name, pid in log.pids().items():
        expect_in('memfd:', Path(f'/proc/{pid}/maps').read_text(), f'memory of {name}')
    end(vm, log)


def memory_files(pid):
    """{name: [/proc entries]} of the memfds that a process has open."""
    files = {}
    for fd in Path(f'/proc/{pid}/fd').iterdir():
        found = re.match(r'/memfd:(\S+)', os.readlink(fd))
        if found:
            files.setdefault(found[1], []).append(fd)
    return files


def expect_sealed(fd, what):
    file = os.open(fd, os.O_RDWR)
    try:
        seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        wanted = (fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW |
                  fcntl.F_SEAL_SEAL)
        expect_equal(seals & wanted, wanted, f'seals of {what}')
        os.pwrite(file, b'x', 0)
        raise Failure(f'{what} can be written')
    except PermissionError:
        pass
    finally:
        os.close(file)


@case
def nobody_can_write_a_template():
    """After a fork nobody maps guest memory shared and writable, each descriptor of it is for
    reading, and its file is sealed against whoever opens it anew."""
    need_kvm()
    vm, log = forked()
    for name, pid in log.pids().items():
        maps = Path(f'/proc/{pid}/maps').read_text()
        expect_equal(re.findall(r'^\S+ .w.s .*memfd:.*', maps, re.M), [], f'mapped by {name}')
        memory = memory_files(pid)
        expect(memory['ramet-ram'], f'{name} has no memory')
        for fd in memory['ramet-ram']:
            flags = Path(f'/proc/{pid}/fdinfo/{fd.name}').read_text()
            expect(re.search(r'^flags:\t\d*0$', flags, re.M), f'{name} may write: {flags}')
        for kind, files in memory.items(): # the saved state is sealed, too
            for fd in files:
                expect_sealed(fd, f'{kind} of {name}')
    end(vm, log)


@case
def a_machine_holds_its_own_console_only():
    need_kvm()
    vm, log = forked()
    standard = {os.readlink(f'/proc/{vm.pid}/fd/{n}') for n in (0, 1)}
    pipes = {}
    for name, pid in log.pids().items():
        have = [os.readlink(fd) for fd in Path(f'/proc/{pid}/fd').iterdir() if fd.name != '2']
        expect(not set(have) & standard, f'{name} holds standard input or output: {have}')
        expect(not [h for h in have if h.startswith(str(tmp().parent))], f'files of {name}: {have}')
        expect_equal(have.count(str(guest('hang.elf'))), 0, f'kernel, open in {name}')
        pipes[name] = {h for h in have if h.startswith('pipe:')}
    for name, has in pipes.items():
        others = set().union(*(p for n, p in pipes.items() if n != name))
        expect(has and not has & others, f'{name} shares a pipe with another machine')
    end(vm, log)


main()
