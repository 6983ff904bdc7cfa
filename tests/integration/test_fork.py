# SPDX-License-Identifier: Apache-2.0
"""A running machine forks: at every kind of fork point, into one clone or many, and each clone is
what it must be: numbered, told apart, with a generation ID and a memory of its own."""

import re
import signal

from tap import (case, cases_for, expect, expect_equal, expect_error, expect_in, guest, main,
                 need_kvm, ramet, start, tmp)

from facts import (Events, by_machine, check_events, check_fork, children, descriptors, said, table,
                   wait_for)

EXIT = ('--debug-exit', '0xf4')


def fork(kernel, count, *args, timeout=60):
    """A run of machine web with an events file, to its end."""
    log = Events(tmp() / 'events')
    r = ramet('run', '--kernel', guest(kernel), '--name', 'web', '--fork', str(count), '--events',
              log.path, *args, timeout=timeout)
    return r, log


def check_writers(r, machines):
    """Every one of the writers ran to its end and found its memory in one piece."""
    texts = said(r.stdout)
    expect_equal(sorted(texts), sorted(machines), 'machines that printed')
    for name in machines:
        expect(re.search(r'writer: rounds=\d+ errors=0$', texts[name]), f'{name}: {texts[name]}')


# --- the doorbell ---

@cases_for([1, 4, 20])
def doorbell(count):
    """The parent reads 0, each clone its own number, and all N."""
    need_kvm()
    r, log = fork('fork_pio.elf', count, '--cpus', '2', *EXIT)
    names = ['web', *check_fork(log, 'web', count)]
    expect_equal(log.one('fork-point')['cause'], 'doorbell', 'cause')
    expect_equal(log.one('freeze')['vcpus'], 2, 'processors that were frozen')
    expect_equal({e['how'] for e in log.of('clone-running')}, {'doorbell'}, 'first exits')
    texts, rows = said(r.stdout), table(r.stderr)
    expect_equal((sorted(texts), sorted(rows)), (sorted(names), sorted(names)), 'machines')
    for number, name in enumerate(names):
        expect_equal(texts[name], f'fork_pio: ring=1 result={number} count={count}', name)
        expect_equal(rows[name]['status'], str(number << 1 | 1), f'status of {name}')
        expect_equal(rows[name]['pid'], str(log.pids()[name]), f'pid of {name}')
        expect_equal(log.one('exit', name)['status'], number << 1 | 1, f'exit event of {name}')
    expect_equal(r.status, 1, 'status: that of the first machine')


@case
def clones_share_the_parents_memory():
    need_kvm()
    r, log = fork('fork_pio.elf', 4, '--memory', '256M', *EXIT)
    check_fork(log, 'web', 4)
    rows = table(r.stderr)
    for name in ('web', 'web.1', 'web.2', 'web.3', 'web.4'):
        end = log.one('exit', name)
        expect(0 < end['private_bytes'] < 1 << 20, f'{name} made {end["private_bytes"]} bytes')
        expect(end['shared_bytes'] > 255 << 20, f'{name} shares {end["shared_bytes"]} bytes')
        for cell in ('shared', 'private'):
            expect(re.fullmatch(r'[\d.]+ [KMG]iB', rows[name][cell]), f'{rows[name]}')
        if name != 'web':
            for cell in ('spawn', 'first exit'):
                expect(re.fullmatch(r'[\d.]+ m?s', rows[name][cell]), f'{rows[name]}')
    expect_equal(log.one('freeze')['copied_bytes'], 0, 'bytes copied by the freeze')


@case
def registers_are_the_same_in_all():
    need_kvm()
    r, log = fork('fpu.elf', 3, '--cpus', '2')
    names = ['web', *check_fork(log, 'web', 3)]
    expect_equal(r.status, 0, 'status')
    for number, name in enumerate(names):
        text = said(r.stdout)[name]
        expect(re.fullmatch(rf'fpu: ok number={number} cpus=2 avx=[01] msrs=\d+', text), text)


@case
def generation_ids_differ():
    need_kvm()
    r, log = fork('vmgenid.elf', 6, '--cpus', '2')
    names = ['web', *check_fork(log, 'web', 6)]
    expect_equal(r.status, 0, 'status')
    before, ids = set(), set()
    for number, name in enumerate(names):
        fields = dict(re.findall(r'(\w+)=(\S+)', said(r.stdout)[name]))
        expect_equal(fields['result'], str(number), f'number of {name}')
        before.add(fields['before'])
        ids.add(fields['genid'])
        # Told before its first instruction after the fork, and once; the parent is not told.
        told = '1' if number else '0'
        expect_equal((fields['irq'], fields['later']), (told, told), f'interrupts of {name}')
        expect_equal(fields['genid'] == fields['before'], number == 0, f'{name} kept its id')
    expect_equal(len(before), 1, 'ids before the fork')
    expect_equal(len(ids), 7, 'ids after it')


@case
def ids_differ_between_runs():
    need_kvm()
    ids = set()
    for _ in range(2):
        r = ramet('run', '--kernel', guest('vmgenid.elf'))
        expect_equal(r.status, 0, 'status')
        fields = dict(re.findall(r'(\w+)=(\S+)', r.stdout))
        expect_equal(fields['genid'], fields['before'], 'id after a ring that forks nothing')
        expect(int(fields['genid'], 16), 'the id is 0')
        ids.add(fields['genid'])
    expect_equal(len(ids), 2, 'ids')


@case
def ring_without_a_fork():
    """The doorbell says that nobody asked, and the guest goes on."""
    need_kvm()
    r = ramet('run', '--kernel', guest('fork_pio.elf'), *EXIT)
    expect_equal((r.stdout, r.stderr), ('fork_pio: ring=1 result=not-armed count=0\n', ''),
                 'output')
    expect_equal(r.status, 0xff, 'status')


@case
def ring_again():
    """--fork is for one fork: the second ring finds the doorbell unarmed, in clones too."""
    need_kvm()
    r, log = fork('fork_pio.elf', 2, '--cmdline', 'rings=2', *EXIT)
    names = ['web', *check_fork(log, 'web', 2)]
    for number, name in enumerate(names):
        expect_equal(said(r.stdout)[name],
                     f'fork_pio: ring=1 result={number} count=2'
                     'fork_pio: ring=2 result=not-armed count=0', name)


@case
def ring_when_the_fork_is_for_something_else():
    need_kvm()
    r, log = fork('fork_pio.elf', 2, '--fork-at', 'console=result=', *EXIT)
    check_fork(log, 'web', 2)
    expect_equal(said(r.stdout), {'web': 'fork_pio: ring=1 result=not-armed count=0',
                                  'web.1': 'not-armed count=0', 'web.2': 'not-armed count=0'},
                 'output')


# --- other fork points ---

@case
def console_text():
    """An unmodified guest forks when it has printed something, in the middle of its work."""
    need_kvm()
    r, log = fork('writer.elf', 4, '--cpus', '2', '--cmdline', 'ms=1000 mib=2',
                  '--fork-at', 'console=writer: running')
    names = check_fork(log, 'web', 4)
    expect_equal((r.status, log.one('fork-point')['cause']), (0, 'console'), 'status and cause')
    check_writers(r, ['web', *names])
    rows = table(r.stderr)
    expect_equal({row['status'] for row in rows.values()}, {'0'}, 'statuses in the table')
    # What was printed up to the fork point is the parent's; the rest of the line is everybody's.
    expect(said(r.stdout)['web'].startswith('writer: running on 2 vCPUswriter: '), r.stdout)
    for name in names:
        expect(said(r.stdout)[name].startswith(' on 2 vCPUswriter: '), r.stdout)


@case
def after_seconds():
    need_kvm()
    r, log = fork('writer.elf', 2, '--cpus', '2', '--cmdline', 'ms=1500 mib=2',
                  '--fork-at', 'after=0.5')
    names = check_fork(log, 'web', 2)
    expect_equal((r.status, log.one('fork-point')['cause']), (0, 'request'), 'status and cause')
    check_writers(r, ['web', *names])
    since = log.one('fork-point')['t_ns'] - log.one('vm-start')['t_ns']
    expect(0.45e9 <= since < 1.4e9, f'the fork point was after {since / 1e9:.2f} s')


@case
def sigusr1():
    need_kvm()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('writer.elf'), '--cpus', '2', '--name', 'web',
               '--cmdline', 'ms=1500 mib=2', '--fork', '3', '--fork-at', 'signal',
               '--events', log.path)
    vm.wait_output('[web] writer: running')
    expect_equal(log.of('fork-point'), [], 'forks before the signal')
    vm.signal(signal.SIGUSR1)
    vm.wait()
    names = check_fork(log, 'web', 3)
    expect_equal((vm.status, log.one('fork-point')['cause']), (0, 'request'), 'status and cause')
    check_writers(vm, ['web', *names])


@case
def sigusr1_to_a_machine_that_is_busy_in_user_mode():
    """Processors that make no exits of their own are forked too; all of them hang on."""
    need_kvm()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('hang.elf'), '--cpus', '2', '--name', 'web', '--fork', '2',
               '--fork-at', 'signal', '--events', log.path)
    vm.wait_output('[web] hang: now')
    vm.signal(signal.SIGUSR1)
    log.wait('clone-running', 2)
    vm.signal(signal.SIGTERM)
    expect_equal(vm.wait().status, 128 + signal.SIGTERM, 'status')
    check_fork(log, 'web', 2)


@case
def sigusr1_without_a_fork():
    need_kvm()
    vm = start('run', '--kernel', guest('writer.elf'))
    vm.wait_output('writer: running')
    vm.signal(signal.SIGUSR1)
    wait_for(lambda: vm.stderr, 5, 'a word about it')
    vm.send('x')
    expect_equal(vm.wait().status, 0, 'status')
    expect_equal(len(vm.stderr.splitlines()), 1, 'lines')
    expect_in('SIGUSR1', vm.stderr)


# --- fork points that are missed ---

@cases_for(['guest', 'console=never said', 'signal', 'after=60'])
def fork_point_is_never_reached(fork_at):
    need_kvm()
    r, log = fork('hang.elf', 2, '--fork-at', fork_at, '--timeout', '0.7')
    expect_error(r, 8, 'timed out', '0.7 s', "'web'", 'never reached its fork point', fork_at)
    check_events(log, 'web')
    expect_equal([e['event'] for e in log.all()], ['vm-start', 'exit'], 'events')


@case
def guest_ends_before_its_fork_point():
    need_kvm()
    r, log = fork('smp_hello.elf', 2)
    expect_error(r, 12, "'web'", 'fork point', '--fork-at guest')
    check_events(log, 'web')


@case
def timeout_ends_the_clones_too():
    need_kvm()
    r, log = fork('hang.elf', 2, '--cpus', '2', '--fork-at', 'console=hang: now', '--timeout',
                  '4')
    expect_equal(r.status, 8, 'status')
    check_fork(log, 'web', 2)
    expect_in('timed out after 4 s', r.stderr)
    for name in ('web', 'web.1', 'web.2'):
        expect_in(f"'{name}'", r.stderr)
        expect_equal(log.one('exit', name)['reason'], 'killed', f'end of {name}')


# --- consoles ---

@case
def a_file_for_each_console():
    need_kvm()
    r, log = fork('fork_pio.elf', 3, '--console', 'file=run-%c.log', *EXIT)
    names = ['web', *check_fork(log, 'web', 3)]
    expect_equal(r.stdout, '', 'standard output')
    for number, name in enumerate(names):
        expect_equal((tmp() / f'run-{name}.log').read_text(),
                     f'fork_pio: ring=1 result={number} count=3\n', f'console of {name}')
    expect_equal(sorted(p.name for p in tmp().iterdir()),
                 sorted(['events', *(f'run-{n}.log' for n in names)]), 'files')


@case
def one_file_for_all_consoles_is_refused():
    need_kvm()
    r, _ = fork('fork_pio.elf', 3, '--console', 'file=run.log')
    expect_error(r, 2, '--console', '%c')


@case
def consoles_off():
    need_kvm()
    r, log = fork('fork_pio.elf', 2, '--console', 'off', *EXIT)
    check_fork(log, 'web', 2)
    expect_equal((r.status, r.stdout), (1, ''), 'status and output')


@case
def lines_of_many_machines_do_not_mix():
    """Eight machines print long lines at the same time; each line stays in one piece."""
    need_kvm()
    words = ' '.join(f'word{i}' for i in range(60))
    r, log = fork('pvh.elf', 8, '--cmdline', words, '--fork-at', 'console=boot:', *EXIT)
    names = ['web', *check_fork(log, 'web', 8)]
    lines = by_machine(r.stdout)
    for name in names:
        first = ('boot:' if name == 'web' else '') + f' cmdline={words}'
        expect_equal(lines[name][0], first, f'first line of {name}')
        expect(re.match(r'boot: protocol=pvh .* bytes=$', lines[name][1]), lines[name][1])
        expect_equal(len(lines[name]), 2, f'lines of {name}')


@case
def input_is_the_first_machines():
    """It ends the parent; the clones go on until the clock ends them."""
    need_kvm()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('writer.elf'), '--name', 'web', '--fork', '2', '--cmdline',
               'ms=2000 mib=1', '--fork-at', 'console=writer: running', '--events', log.path)
    log.wait('clone-running', 2)
    vm.send('x')
    vm.wait()
    names = check_fork(log, 'web', 2)
    expect_equal(vm.status, 0, 'status')
    check_writers(vm, ['web', *names])
    for name in names:
        expect(log.one('exit', name)['t_ns'] > log.one('exit', 'web')['t_ns'] + 500_000_000,
               f'{name} ended with its parent')


# --- nothing is left ---

@case
def descriptors_do_not_leak():
    """Fork after fork, with the clones killed, leaves each process with what it had open."""
    need_kvm()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('hang.elf'), '--cpus', '2', '--name', 'web', '--events',
               log.path)
    vm.wait_output('hang: now')
    had = None
    for turn in range(6):
        expect_equal(ramet('fork', 'web', '-n', '3').status, 0, 'status of fork')
        for clone in range(3):
            expect_equal(ramet('kill', f'web.{3 * turn + clone + 1}').status, 0, 'status of kill')
        pids = [vm.pid, log.pids()['web'], *children(vm.pid)]
        have = {pid: descriptors(pid) for pid in pids}
        if turn == 1:  # by now every kind of thing has happened once
            had = have
    expect_equal(have, had, 'descriptors')
    expect_equal(ramet('kill', 'web').status, 0, 'status of kill')
    expect_equal(vm.wait().status, 14, 'status')
    check_events(log, 'web')


main()
