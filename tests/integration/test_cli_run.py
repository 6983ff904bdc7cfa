# SPDX-License-Identifier: Apache-2.0
"""ramet run with real machines: fork triggers, consoles, statuses, and every way out."""

import os
import re
import signal
import subprocess
import time

from tap import (case, cases_for, events, expect, expect_equal, expect_in, guest, main, need_kvm, ramet, runtime_dir,
                 start, tmp)

KILLED = 14


def run(kernel, *args, **how):
    need_kvm()
    return ramet('run', '--kernel', guest(kernel), *args, **how)


def run_on(kernel, *args, **how):
    """Start it and go on when the guest says that it runs."""
    need_kvm()
    p = start('run', '--kernel', guest(kernel), '--name', 'web', *args, **how)
    p.wait_output('hang: now' if kernel == 'hang.elf' else 'writer: running')
    return p


def by_event(path='ev'):
    found = {}
    for e in events(tmp() / path):
        found.setdefault(e['event'], []).append(e)
    return found


def wait_for(what, timeout=20):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (FileNotFoundError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError('waited in vain')


def wait_clones(count):
    """{name: pid} when so many clones run."""
    wait_for(lambda: len(by_event().get('clone-running', [])) >= count)
    return {c['name']: c['pid'] for c in by_event()['clone-start']}


# --- forks ---

@case
def fork_by_the_guest():
    r = run('fork_pio.elf', '--name', 'web', '--fork', '4', '--events', 'ev')
    expect_equal(r.status, 0, 'status')
    expect_equal(sorted(r.stdout.splitlines()),
                 ['[web.%d] fork_pio: ring=1 result=%d count=4' % (n, n) for n in range(1, 5)] +
                 ['[web] fork_pio: ring=1 result=0 count=4'], 'output')
    e = by_event()
    expect_equal(sorted(c['name'] for c in e['clone-running']), [f'web.{n}' for n in range(1, 5)], 'clones')
    expect_equal({c['how'] for c in e['clone-running']}, {'doorbell'}, 'how')
    expect_equal(e['fork-point'][0]['cause'], 'doorbell', 'cause')
    root = e['vm-start'][0]['vm']
    for c in e['clone-start'] + e['clone-running']:
        expect_equal(c['parent'], root, 'parent')
        expect_equal(c['name'], f'web.{c["index"]}', 'name')
    expect_equal(len({x['vm'] for x in e['exit']}), 5, 'ids')
    for x in e['exit']:
        expect_equal((x['reason'], x['status']), ('poweroff', 0), 'exit')
    expect(0 < e['freeze'][0]['pause_ns'] < 5e9, 'pause_ns')
    expect_equal(e['freeze'][0]['copied_bytes'], 0, 'copied_bytes')


@case
def the_table_at_the_end():
    r = run('fork_pio.elf', '--name', 'web', '--fork', '2')
    lines = r.stderr.splitlines()
    head = lines.index('')
    expect_equal(re.split(r'  +', lines[head + 1]),
                 ['clone', 'pid', 'spawn', 'first exit', 'shared', 'private', 'status'], 'columns')
    rows = [re.split(r'  +', line) for line in lines[head + 2:]]
    expect_equal([row[0] for row in rows], ['web', 'web.1', 'web.2'], 'rows')
    for row in rows[1:]:
        expect(re.fullmatch(r'\d+\.\d+ ms|\d+ ms', row[2]), f'spawn: {row[2]}')
        expect_equal(row[-1], '0', 'status')
    expect('\033' not in r.stderr, 'colours without a terminal')


@case
def fork_at_console_text():
    r = run('smp_hello.elf', '--name', 'web', '--fork', '2', '--fork-at', 'console=cpu=', '--events', 'ev')
    expect_equal(r.status, 0, 'status')
    e = by_event()
    expect_equal(e['fork-point'][0]['cause'], 'console', 'cause')
    expect_equal(len(e['clone-running']), 2, 'clones')


@case
def fork_after_a_time():
    r = run('writer.elf', '--cmdline', 'ms=600', '--name', 'web', '--fork', '2', '--fork-at', 'after=0.1',
            '--events', 'ev')
    expect_equal(r.status, 0, 'status')
    e = by_event()
    expect_equal(e['fork-point'][0]['cause'], 'request', 'cause')
    expect(e['fork-point'][0]['t_ns'] - e['vm-start'][0]['t_ns'] >= 100e6, 'it came too early')
    expect_equal(len(e['clone-running']), 2, 'clones')
    expect_equal(r.stdout.count('errors=0'), 3, 'machines without errors')


@case
def fork_by_a_signal():
    p = run_on('writer.elf', '--cmdline', 'ms=2000', '--fork', '2', '--fork-at', 'signal', '--events', 'ev')
    p.signal(signal.SIGUSR1)
    expect_equal(p.wait().status, 0, 'status')
    expect_equal(len(by_event()['clone-running']), 2, 'clones')


@case
def a_killed_clone_harms_nobody():
    p = run_on('hang.elf', '--fork', '3', '--fork-at', 'after=0.05', '--events', 'ev')
    names = wait_clones(3)
    os.kill(names['web.2'], signal.SIGKILL)
    wait_for(lambda: [x for x in by_event().get('exit', []) if x['name'] == 'web.2'])
    listed = ramet('list', '--json').stdout
    for name in ('"web"', '"web.1"', '"web.3"'):
        expect_in(name, listed, 'list')
    for name in ('web', 'web.1', 'web.3'):
        expect_equal(ramet('kill', name).status, 0, f'kill {name}')
    p.wait()
    expect_equal(p.status, KILLED, 'status')
    expect_in('SIGKILL', p.stderr, 'stderr')


# --- consoles ---

@case
def console_files():
    r = run('fork_pio.elf', '--name', 'web', '--fork', '2', '--console', 'file=run-%c-%%.log')
    expect_equal((r.status, r.stdout), (0, ''), 'result')
    for name, number in (('web', 0), ('web.1', 1), ('web.2', 2)):
        expect_in(f'result={number} count=2', (tmp() / f'run-{name}-%.log').read_text(), name)


@case
def console_off():
    r = run('smp_hello.elf', '--console', 'off')
    expect_equal((r.status, r.stdout, r.stderr), (0, '', ''), 'result')


@case
def a_lone_machine_has_no_prefix():
    r = run('smp_hello.elf')
    expect('[' not in r.stdout, r.stdout)


@case
def input_from_a_file():
    (tmp() / 'in').write_text('x')
    with open(tmp() / 'in', 'rb') as f:
        r = run('writer.elf', stdin=f)
    expect_equal(r.status, 0, 'status')


@case
def input_from_a_pipe():
    p = run_on('writer.elf')
    p.send('x')
    expect_equal(p.wait().status, 0, 'status')


@case
def a_closed_standard_output_ends_it():
    need_kvm()
    done = subprocess.run(['sh', '-c', '"$0" run --kernel "$1" --name web 2>err | head -n 1; cat err',
                           os.environ['RAMET'], str(guest('fork_pio.elf'))], capture_output=True, text=True,
                          cwd=tmp(), timeout=30, check=False, stdin=subprocess.DEVNULL,
                          env=os.environ | {'XDG_RUNTIME_DIR': str(runtime_dir())})
    expect_equal(len(done.stdout.splitlines()), 1, 'lines')


@case
def a_reader_that_stops_stops_nothing_else():
    """Standard output is full; the control socket still answers, and so does SIGTERM."""
    need_kvm()
    r, w = os.pipe()
    os.set_blocking(w, False)
    try:
        while True:
            os.write(w, b'x' * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(w, True)
    p = subprocess.Popen([os.environ['RAMET'], 'run', '--kernel', str(guest('hang.elf')), '--name', 'web'], stdout=w,
                         stdin=subprocess.DEVNULL, env=os.environ | {'XDG_RUNTIME_DIR': str(runtime_dir())})
    os.close(w)
    wait_for(lambda: 'web' in ramet('list').stdout)
    p.send_signal(signal.SIGTERM)
    expect_equal(p.wait(10), 143, 'status')
    os.close(r)


# --- ways out ---

@cases_for([('INT', 130), ('TERM', 143), ('HUP', 129), ('QUIT', 131)])
def signals_end_it(pair):
    name, status = pair
    p = run_on('hang.elf', '--events', 'ev')
    p.signal(getattr(signal, 'SIG' + name))
    p.wait(5)
    expect_equal((p.status, p.stderr), (status, ''), 'result')
    expect_equal(by_event()['exit'][0]['reason'], 'killed', 'reason')


@case
def a_killed_launcher_leaves_nothing():
    """Not even its socket; the harness looks for processes and files."""
    p = run_on('hang.elf', '--fork', '2', '--fork-at', 'after=0.05', '--events', 'ev')
    wait_clones(2)
    p.signal(signal.SIGKILL)
    p.wait(5)
    wait_for(lambda: not (runtime_dir() / 'ramet' / 'web.sock').exists(), 5)


@case
def a_killed_machine_is_told():
    p = run_on('hang.elf', '--events', 'ev')
    os.kill(by_event()['vm-start'][0]['pid'], signal.SIGKILL)
    p.wait(5)
    expect_equal(p.status, KILLED, 'status')
    expect_in("ramet: 'web'", p.stderr, 'stderr')
    expect_equal(by_event()['exit'][0]['signal'], 9, 'signal')


@case
def standard_descriptors_may_be_closed():
    need_kvm()
    done = subprocess.run(['sh', '-c', 'exec "$0" run --kernel "$1" <&- >&- 2>&-', os.environ['RAMET'],
                           str(guest('smp_hello.elf'))], timeout=30, check=False,
                          env=os.environ | {'XDG_RUNTIME_DIR': str(runtime_dir())})
    expect_equal(done.returncode, 0, 'status')


@case
def many_clones():
    r = run('fork_pio.elf', '--name', 'web', '--fork', '100', '--memory', '16M', '--events', 'ev', timeout=100)
    expect_equal(r.status, 0, 'status')
    expect_equal(len(by_event()['clone-running']), 100, 'clones')
    expect_in('more, which ended with status 0', r.stderr, 'the table')


main()
