# SPDX-License-Identifier: Apache-2.0
"""`ramet list`, `pause`, `resume`, `kill` and `fork` do what they say to a machine that runs, its
clones, and the clones of those."""

import json
import re
import socket
import time

from tap import (case, cases_for, expect, expect_equal, expect_error, guest, main, need_kvm,
                 ramet, runtime_dir, start, tmp)

from facts import Events, alive, check_events, cpu_seconds, said, wait_dead, wait_for


def run(kernel='hang.elf', *args, ready='hang: now'):
    """Machine web with two processors, and its events, when its guest is at work."""
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest(kernel), '--cpus', '2', '--memory', '64M', '--name', 'web',
               '--events', log.path, *args)
    vm.wait_output(ready)
    return vm, log


def ok(*args):
    """A command that must succeed without a complaint; its output."""
    r = ramet(*args)
    expect_equal((r.status, r.stderr), (0, ''), f'ramet {" ".join(args)}')
    return r.stdout


def listed():
    """{name: machine} as `ramet list --json` has it."""
    return {vm['name']: vm for vm in json.loads(ok('list', '--json'))}


def states():
    return {name: vm['state'] for name, vm in listed().items()}


def end(vm, log, status=14):
    """Kill what still runs; the launcher must end, and its events be right."""
    for name in listed():
        ok('kill', name)
    expect_equal(vm.wait().status, status, 'status of the launcher')
    check_events(log, 'web')
    expect_equal(listed(), {}, 'machines afterwards')


# --- list ---

@case
def nothing_runs():
    expect_equal(ok('list'), 'no machines are running\n', 'list')
    expect_equal(json.loads(ok('list', '--json')), [], 'list --json')


@case
def list_of_machines():
    need_kvm()
    vm, log = run()
    other = start('run', '--kernel', guest('hang.elf'), '--name', 'db')
    other.wait_output('hang: now')
    ok('fork', 'web', '-n', '2')

    lines = ok('list').splitlines()
    expect_equal(lines[0].split(), ['NAME', 'PID', 'STATE', 'CPUS', 'MEMORY', 'UPTIME'], 'head')
    rows = {line.split()[0]: re.split(r' {2,}', line)[1:] for line in lines[1:]}
    expect_equal(sorted(rows), ['db', 'web', 'web.1', 'web.2'], 'names')
    for name, pid in log.pids().items():
        expect_equal(rows[name][:4], [str(pid), 'running', '2', '64 MiB'], f'row of {name}')
    expect_equal(rows['db'][1:4], ['running', '1', '256 MiB'], 'row of db')

    machines, ids = listed(), {e['name']: e['vm'] for e in log.all()}
    for name, pid in log.pids().items():
        m = machines[name]
        expect_equal((m['pid'], m['vm'], m['cpus'], m['memory_bytes'], m['state']),
                     (pid, ids[name], 2, 64 << 20, 'running'), name)
        expect_equal((m['index'], m['parent']),
                     (int(name[4:] or 0), ids['web'] if name != 'web' else None), name)
    ok('kill', 'db')
    expect_equal(other.wait().status, 14, 'status of the other launcher')
    end(vm, log)


# --- pause, resume ---

@case
def pause_stops_the_guest():
    """It makes no progress while it is paused, however long, and then goes on where it was."""
    need_kvm()
    vm, log = run('writer.elf', '--cmdline', 'ms=800 mib=1', ready='writer: running')
    ok('pause', 'web')
    expect_equal(states(), {'web': 'paused'}, 'state')
    pid = log.pids()['web']
    used = cpu_seconds(pid)
    time.sleep(2)
    expect(cpu_seconds(pid) - used <= 0.05, f'it used {cpu_seconds(pid) - used:.2f} s of processor')
    expect_equal(vm.stdout, 'writer: running on 2 vCPUs\n', 'output while it is paused')
    ok('pause', 'web')  # idempotent
    expect_equal(states(), {'web': 'paused'}, 'state')
    ok('resume', 'web')
    expect_equal(vm.wait().status, 0, 'status')
    expect(re.search(r'writer: rounds=\d+ errors=0\n$', vm.stdout), vm.stdout)
    check_events(log, 'web')


@case
def resume_of_what_runs():
    need_kvm()
    vm, log = run()
    ok('resume', 'web')
    expect_equal(states(), {'web': 'running'}, 'state')
    end(vm, log)


@case
def pause_concerns_one_machine():
    need_kvm()
    vm, log = run()
    ok('fork', 'web', '-n', '2')
    ok('pause', 'web.1')
    expect_equal(states(), {'web': 'running', 'web.1': 'paused', 'web.2': 'running'}, 'states')
    pids = log.pids()
    used = {name: cpu_seconds(pid) for name, pid in pids.items()}
    # On a busy host the others get little, but not nothing.
    wait_for(lambda: all(cpu_seconds(pids[n]) > used[n] + 0.1 for n in ('web', 'web.2')), 20,
             'progress of the others')
    expect(cpu_seconds(pids['web.1']) - used['web.1'] <= 0.05, 'web.1 is at work')
    ok('resume', 'web.1')
    wait_for(lambda: cpu_seconds(pids['web.1']) > used['web.1'] + 0.1, 20, 'progress of web.1')
    end(vm, log)


@case
def clones_of_a_paused_machine_are_paused():
    need_kvm()
    vm, log = run()
    ok('pause', 'web')
    ok('fork', 'web', '-n', '2')
    expect_equal(states(), {'web': 'paused', 'web.1': 'paused', 'web.2': 'paused'}, 'states')
    expect_equal(log.of('clone-running'), [], 'clones that ran')
    ok('resume', 'web.2')
    log.wait('clone-running')
    expect_equal(states(), {'web': 'paused', 'web.1': 'paused', 'web.2': 'running'}, 'states')
    expect_equal(log.one('clone-running')['name'], 'web.2', 'the one that ran')
    end(vm, log)


@case
def paused_machine_can_be_killed():
    need_kvm()
    vm, log = run()
    ok('pause', 'web')
    end(vm, log)


@case
def timeout_and_signals_reach_paused_machines():
    need_kvm()
    vm, log = run('hang.elf', '--timeout', '5')
    ok('fork', 'web')
    ok('pause', 'web')
    ok('pause', 'web.1')
    expect_equal(vm.wait().status, 8, 'status')
    wait_dead(log.pids().values())


# --- kill ---

@case
def kill_ends_one_machine():
    need_kvm()
    vm, log = run()
    ok('fork', 'web', '-n', '3')
    pids = log.pids()
    ok('kill', 'web.2')
    expect(not alive(pids['web.2']), 'web.2 lives')
    expect_equal(sorted(listed()), ['web', 'web.1', 'web.3'], 'machines')
    end_event = log.one('exit', 'web.2')
    expect_equal((end_event['reason'], end_event['signal']), ('killed', 9), 'exit event')
    ok('kill', 'web')
    expect_equal(sorted(listed()), ['web.1', 'web.3'], 'machines: clones outlive their parent')
    expect(all(alive(pids[n]) for n in ('web.1', 'web.3')), 'they do not')
    end(vm, log)


# --- fork ---

@case
def fork_of_a_running_machine():
    need_kvm()
    vm, log = run()
    lines = ok('fork', 'web', '-n', '3').splitlines()
    expect(re.fullmatch(r'web was stopped for [\d.]+ m?s', lines[0]), lines[0])
    rows = [re.split(r' {2,}', line) for line in lines[1:]]
    expect_equal(rows[0], ['clone', 'pid', 'first exit', 'state'], 'head')
    for number, row in enumerate(rows[1:], 1):
        name = f'web.{number}'
        expect_equal((row[0], row[1], row[3]), (name, str(log.pids()[name]), 'running'), 'row')
        expect(re.fullmatch(r'[\d.]+ m?s', row[2]), f'first exit: {row}')
    expect_equal(len(rows), 4, 'rows')
    point = log.one('fork-point')
    expect_equal((point['cause'], point['count']), ('request', 3), 'fork-point event')
    expect(all(e['how'] in ('exit', 'kick') for e in log.of('clone-running')), 'how they ran')
    end(vm, log)


@case
def fork_again_and_fork_clones():
    """Names count on over all forks of a machine, and say who was cloned from whom."""
    need_kvm()
    vm, log = run()
    ok('fork', 'web', '-n', '2')
    ok('fork', 'web.2')
    ok('fork', 'web', '--clones', '2')
    ok('fork', 'web.2', '-n', '2')
    ok('fork', 'web.2.1', '-n', '1')
    want = {'web': 0, 'web.1': 1, 'web.2': 2, 'web.2.1': 1, 'web.3': 1, 'web.4': 2, 'web.2.2': 1,
            'web.2.3': 2, 'web.2.1.1': 1}
    expect_equal({name: m['index'] for name, m in listed().items()}, want, 'numbers')
    expect_equal([e['generation'] for e in log.of('freeze', 'web')], [1, 2], 'generations of web')
    expect_equal([e['copied_bytes'] for e in log.of('freeze', 'web')][0], 0, 'copied at first')
    expect_equal([e['generation'] for e in log.of('freeze', 'web.2')], [1, 2], 'and of web.2')
    end(vm, log)


@case
def fork_amidst_a_storm_of_writes():
    """A tree of four generations, made while two processors of each write: no page is torn."""
    need_kvm()
    vm, log = run('writer.elf', '--cmdline', 'ms=1200 mib=1', '--fork', '1', '--fork-at',
                  'after=0.1', ready='[web] writer: running')
    log.wait('clone-running')
    ok('fork', 'web.1')
    ok('fork', 'web')
    ok('fork', 'web.1.1')
    names = ['web', 'web.1', 'web.1.1', 'web.1.1.1', 'web.2']
    expect_equal(vm.wait(60).status, 0, 'status')
    check_events(log, 'web')
    texts = said(vm.stdout)
    expect_equal(sorted(texts), names, 'machines')
    for name in names:
        expect(re.search(r'writer: rounds=\d+ errors=0$', texts[name]), f'{name}: {texts[name]}')
    for e in log.of('freeze'):
        first = e['name'] == 'web' and e['generation'] == 1
        expect_equal(e['copied_bytes'] == 0, first, f'copied: {e}')


# --- what is refused ---

@cases_for(['pause', 'resume', 'kill', 'fork'])
def no_such_machine(command):
    need_kvm()
    expect_error(ramet(command, 'web'), 2, "'web'", 'ramet list')
    vm, log = run()
    expect_error(ramet(command, 'wab'), 2, "'wab'")
    expect_error(ramet(command, 'web.9'), 2, "'web.9'")
    expect_error(ramet(command, 'web.1.1'), 2, "'web.1.1'")
    expect_error(ramet(command, 'web..1'), 2, 'web..1')
    expect_error(ramet(command, '../web'), 2, '../web')
    expect_error(ramet(command), 2, command)
    expect_equal(states(), {'web': 'running'}, 'state')
    end(vm, log)


@case
def machine_that_has_ended():
    need_kvm()
    vm, log = run()
    ok('fork', 'web', '-n', '1')
    ok('kill', 'web.1')
    for command in ('pause', 'resume', 'kill', 'fork'):
        expect_error(ramet(command, 'web.1'), 2, "'web.1'", 'ended')
    end(vm, log)


@cases_for(['0', '-1', '10001', 'x', ''])
def wrong_number_of_clones(number):
    need_kvm()
    vm, log = run()
    expect_error(ramet('fork', 'web', '-n', number), 2, number)
    expect_equal(states(), {'web': 'running'}, 'state')
    end(vm, log)


@case
def name_that_is_taken():
    need_kvm()
    vm, log = run()
    expect_error(ramet('run', '--kernel', guest('pvh.elf'), '--name', 'web'), 2, "'web'", 'running')
    expect_equal(states(), {'web': 'running'}, 'state of the first')
    end(vm, log)


@case
def socket_speaks_only_its_protocol():
    """Whatever is sent to the socket is answered or the connection closed; the machine runs on."""
    need_kvm()
    vm, log = run()
    path = str(runtime_dir() / 'ramet' / 'web.sock')
    wrong = [b'\n', b'{}\n', b'[]\n', b'{"v":2,"op":"list"}\n', b'{"v":1}\n', b'\xff\xfe\x00\n',
             b'{"v":1,"op":"format"}\n', b'{"v":1,"op":"kill"}\n', b'{"v":1,"op":"kill","vm":7}\n',
             b'{"v":1,"op":"fork","vm":"web","n":"3"}\n', b'{"v":1,"op":"fork","vm":"web","n":0}\n',
             b'[' * 4000 + b'\n', b'x' * 5000 + b'\n']
    for request in wrong:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(path)
            s.sendall(request)
            reply = json.loads(s.makefile('rb').readline())
        expect_equal((reply['v'], reply['ok'], reply['status']), (1, False, 2),
                     f'to {request[:40]}')
        expect(reply['error'], f'no words to {request[:40]}')
    idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]  # more than it serves
    for s in idle:
        s.connect(path)
    for s in idle:
        s.close()
    expect_equal(states(), {'web': 'running'}, 'state')
    end(vm, log)


main()
