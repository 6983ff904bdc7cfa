# SPDX-License-Identifier: Apache-2.0
"""Any process of a run may be killed at any time: a machine's end harms no other machine, and the
launcher's end leaves nothing running. Leftover processes, sockets and files fail each case."""

import os
import re
import signal
import time

from tap import (Process, case, cases_for, expect, expect_equal, expect_in, guest, main, need_kvm,
                 ramet, runtime_dir, start, tmp)

from facts import (Events, alive, check_fork, child_named, children, said, table, wait_dead,
                   wait_for)


def writers(clones, ms, *args):
    """A machine that was forked amidst a storm of writes, when all clones run; and its events."""
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('writer.elf'), '--cpus', '2', '--name', 'web', '--cmdline',
               f'ms={ms} mib=2', '--fork', str(clones), '--fork-at', 'console=writer: running',
               '--events', log.path, *args)
    log.wait('clone-running', clones)
    return vm, log


def hangers(clones):
    """The same with machines that never end of themselves."""
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('hang.elf'), '--cpus', '2', '--name', 'web', '--fork',
               str(clones), '--fork-at', 'console=hang: now', '--events', log.path)
    log.wait('clone-running', clones)
    return vm, log


def all_pids(vm, log):
    """The launcher, its helpers, and all machines."""
    return [vm.pid, child_named(vm.pid, 'ramet-spawner'), child_named(vm.pid, 'ramet-keeper'),
            *log.pids().values()]


def check_survivor(vm, log, name):
    text = said(vm.stdout)[name]
    expect(re.search(r'writer: rounds=\d+ errors=0$', text), f'{name}: {text!r}')
    end = log.one('exit', name)
    expect_equal((end['reason'], end['status']), ('poweroff', 0), f'end of {name}')


def check_killed_line(vm, name):
    """One line names the machine that was killed; no line names another."""
    lines = [line for line in vm.stderr.splitlines() if line.startswith('ramet: ')]
    expect_equal(len(lines), 1, f'lines in {lines}')
    expect(re.match(rf"ramet: '{name}'.*[kK]illed", lines[0]), lines[0])


# --- a machine is killed ---

@case
def clone_is_killed():
    need_kvm()
    vm, log = writers(4, 1500)
    os.kill(log.pids()['web.3'], signal.SIGKILL)
    vm.wait()
    check_fork(log, 'web', 4)
    for name in ('web', 'web.1', 'web.2', 'web.4'):
        check_survivor(vm, log, name)
    end = log.one('exit', 'web.3')
    expect_equal((end['reason'], end['status'], end['signal']), ('killed', 14, 9), 'exit event')
    expect_equal(vm.status, 12, 'status')
    check_killed_line(vm, 'web.3')
    statuses = {name: row['status'] for name, row in table(vm.stderr).items()}
    expect_equal(statuses, {'web': '0', 'web.1': '0', 'web.2': '0', 'web.4': '0',
                            'web.3': '14 (killed by SIGKILL)'}, 'table')


@case
def parent_is_killed():
    need_kvm()
    vm, log = writers(3, 1500)
    os.kill(log.pids()['web'], signal.SIGKILL)
    vm.wait()
    check_fork(log, 'web', 3)
    for name in ('web.1', 'web.2', 'web.3'):
        check_survivor(vm, log, name)
    expect_equal(vm.status, 14, 'status: that of the first machine')
    check_killed_line(vm, 'web')
    expect_equal(table(vm.stderr)['web']['status'], '14 (killed by SIGKILL)', 'table')


@case
def all_clones_are_killed():
    need_kvm()
    vm, log = writers(3, 1500)
    for name in ('web.1', 'web.2', 'web.3'):
        os.kill(log.pids()[name], signal.SIGKILL)
    vm.wait()
    check_survivor(vm, log, 'web')
    expect_equal(vm.status, 12, 'status')


@case
def empty_machines_are_killed():
    """Clones start from nothing where the empty machine that was to become one has died."""
    need_kvm()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('writer.elf'), '--name', 'web', '--cmdline',
               'ms=1500 mib=1', '--fork', '4', '--pool', '4', '--fork-at', 'signal', '--events',
               log.path)
    wait_for(lambda: log.of('vm-start'), 10, 'the start')
    spawner, parent = child_named(vm.pid, 'ramet-spawner'), log.pids()['web']
    wait_for(lambda: len(list(children(spawner))) == 5, 10, 'four empty machines')
    empty = [p for p in sorted(children(spawner)) if p != parent]
    os.kill(empty[0], signal.SIGKILL)
    os.kill(empty[2], signal.SIGKILL)
    wait_for(lambda: len(list(children(spawner))) == 3, 10, 'their end')
    vm.signal(signal.SIGUSR1)
    vm.wait()
    expect_equal(vm.status, 0, 'status')
    rows = table(vm.stderr)
    expect_equal(len(rows), 5, 'machines in the table')
    for name in rows:
        check_survivor(vm, log, name)
    pids = {int(row['pid']) for row in rows.values()}
    expect(set(empty) & pids, 'no clone started in an empty machine')
    expect(not pids & {empty[0], empty[2]}, 'a clone is said to be a process that had died')


@case
def clones_are_killed_as_they_start():
    """Whenever in its life a clone dies, its siblings and the parent come to their end."""
    need_kvm()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('writer.elf'), '--name', 'web', '--cmdline',
               'ms=1500 mib=1', '--fork', '12', '--pool', '0', '--fork-at',
               'console=writer: running', '--events', log.path)
    wait_for(lambda: log.of('fork-point'), 10, 'the fork point')
    spawner, parent = child_named(vm.pid, 'ramet-spawner'), log.pids()['web']
    killed = set()
    while len(log.of('clone-start')) < 11 and vm.popen.poll() is None:
        born = [p for p in sorted(children(spawner)) if p != parent and p not in killed]
        if born and len(killed) < 5:
            os.kill(born[-1], signal.SIGKILL)  # the youngest, most likely before it runs
            killed.add(born[-1])
        if len(log.of('exit')) + len(log.of('clone-running')) >= 12:
            break
    vm.wait()
    expect(killed, 'no clone was caught')
    expect_equal(vm.status, 12, 'status')
    rows = table(vm.stderr)
    expect_equal(len(rows), 13, 'machines in the table')
    dead = [row for row in rows.values() if row['status'] == '14 (killed by SIGKILL)']
    expect_equal(sorted(int(row['pid']) for row in dead), sorted(killed), 'the dead')
    for name, row in rows.items():
        if row not in dead:
            check_survivor(vm, log, name)


# --- the launcher ends ---

@case
def launcher_is_killed():
    """No machine, no helper, no socket survives it; not even a machine that is stopped and so does
    not see what happens."""
    need_kvm()
    vm, log = hangers(3)
    pids = all_pids(vm, log)
    os.kill(log.pids()['web.2'], signal.SIGSTOP)
    expect_equal(len(pids), 3 + 4, 'processes')
    expect(all(alive(p) for p in pids), 'not all of them live')
    expect((runtime_dir() / 'ramet' / 'web.sock').exists(), 'no control socket')
    os.kill(vm.pid, signal.SIGKILL)
    wait_dead(pids)
    expect_equal(vm.wait().status, -signal.SIGKILL, 'status')
    wait_for(lambda: not (runtime_dir() / 'ramet' / 'web.sock').exists(), 5, 'the socket to go')
    for e in log.all():
        expect(e['event'] != 'exit', f'an exit event of a killed launcher: {e}')


@case
def launcher_and_keeper_are_killed():
    """The socket is left, and the next launcher of that name takes its place."""
    need_kvm()
    vm, log = hangers(1)
    pids = all_pids(vm, log)
    os.kill(child_named(vm.pid, 'ramet-keeper'), signal.SIGKILL)
    os.kill(vm.pid, signal.SIGKILL)
    wait_dead(pids)
    vm.wait()
    r = ramet('list')
    expect_equal((r.status, r.stdout), (0, 'no machines are running\n'), 'list')
    r = ramet('run', '--kernel', guest('smp_hello.elf'), '--name', 'web')
    expect_equal((r.status, r.stderr), (0, ''), 'the next of that name')


@case
def spawner_is_killed():
    """The machines go with it, even while the launcher cannot see to them."""
    need_kvm()
    vm, log = hangers(2)
    pids = all_pids(vm, log)
    os.kill(vm.pid, signal.SIGSTOP)
    os.kill(child_named(vm.pid, 'ramet-spawner'), signal.SIGKILL)
    wait_dead(log.pids().values())
    os.kill(vm.pid, signal.SIGCONT)
    expect_equal(vm.wait().status, 4, 'status')
    wait_dead(pids)
    expect_in('ramet: the process that starts machines is gone', vm.stderr)


@case
def keeper_is_killed():
    """Nobody needs it as long as the launcher tidies up itself."""
    need_kvm()
    vm, log = writers(1, 500)
    os.kill(child_named(vm.pid, 'ramet-keeper'), signal.SIGKILL)
    vm.wait()
    expect_equal(vm.status, 0, 'status')
    check_survivor(vm, log, 'web.1')


@cases_for(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'])
def launcher_is_asked_to_end(name):
    need_kvm()
    vm, log = hangers(3)
    pids = all_pids(vm, log)
    number = signal.Signals[name]
    vm.signal(number)
    expect_equal(vm.wait(10).status, 128 + number, 'status')
    expect(not any(alive(p) for p in pids), 'it left processes behind')
    expect_equal(vm.stderr, '', 'stderr')
    check_fork(log, 'web', 3)
    for machine in ('web', 'web.1', 'web.2', 'web.3'):
        expect_equal(log.one('exit', machine)['reason'], 'killed', f'end of {machine}')


@case
def launcher_is_asked_to_end_at_any_moment():
    """SIGTERM after 0, 4, 8 ... ms: while it boots, freezes, spawns, runs. Nothing is left."""
    need_kvm()
    for step in range(24):
        vm = start('run', '--kernel', guest('fork_pio.elf'), '--cpus', '2', '--fork', '6',
                   '--cmdline', 'wait=20 spin=20')
        time.sleep(step * 0.004)
        vm.signal(signal.SIGTERM)
        vm.wait(10)
        # Before the signal is looked for it has its default action.
        expect(vm.status in (128 + signal.SIGTERM, -signal.SIGTERM), f'status {vm.status}')
        expect_equal(vm.stderr, '', f'stderr after {4 * step} ms')


@case
def standard_output_is_closed():
    """Nobody reads any more, as in `ramet run | head -n 1`: the run ends, quietly."""
    need_kvm()
    log = Events(tmp() / 'events')
    pipe = Process(['bash', '-c', '"$@" | head -n 1; exit ${PIPESTATUS[0]}', 'bash',
                    os.path.abspath(os.environ['RAMET']), 'run', '--kernel', guest('writer.elf'),
                    '--name', 'web', '--cmdline', 'ms=500 mib=2', '--fork', '2', '--fork-at',
                    'console=writer:', '--events', log.path])
    pipe.wait()
    expect_equal((pipe.status, pipe.stderr), (128 + signal.SIGPIPE, ''), 'status')
    expect_equal(len(pipe.stdout.splitlines()), 1, 'lines')
    wait_dead(log.pids().values())


main()
