# SPDX-License-Identifier: Apache-2.0
"""A running Linux with two processors forks into four: from its shell by the doorbell, and by what
it printed, unmodified, at a terminal. Each clone is a Linux that goes on where it was."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios

from tap import Process, case, expect, expect_equal, main, need_linux, ramet, start, tmp

from facts import (LINUX_TROUBLE, Events, assists_are_plausible, check_fork, said, table,
                   wait_for)

BOOT = 200  # seconds: 20 on a host that has nothing else to do

_kept = {}


def once(function):
    """Boot once for several cases: keep what came out of it, or how it failed."""
    def wrapped():
        if function not in _kept:
            try:
                _kept[function] = function(), None
            except BaseException as error:
                _kept[function] = None, error
                raise
        result, error = _kept[function]
        if error:
            raise type(error)(f'as the boot that this needs: {error}')
        return result
    return wrapped


# --- by the doorbell, from the shell ---

# Typed into the shell. All after the ring is made of what the shell has built in, as starting
# programs is slow where ten processors share two; a clone's standard input never says anything.
BEFORE = [
    'PS1=; head -c 1 /dev/urandom | wc -c',
    'echo cpus=$(grep -c ^processor /proc/cpuinfo)',
    'cat /proc/interrupts',
    'dmesg',
    'echo 7 > /proc/sys/kernel/printk',
    'echo typed=all',
]
FORK = [
    'up() { read a b < /proc/uptime; echo "$1=$a"; }',
    'id() { read u < /proc/sys/kernel/random/uuid; echo "uuid=$u"; }',
    'run() { up t0; set -- $(ramet-fork); echo "R=$3 N=$5"; up t1; read -t 3 x; up t2; id; }',
    'run; exit',
]


@once
def shell_run():
    """The boot that the cases of this section look at: the launcher, its events, texts."""
    kernel, initramfs = need_linux()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--cpus', '2', '--name', 'web',
               '--fork', '4', '--events', log.path, '--timeout', '380')
    vm.wait_output('ramet-guest: ready', timeout=BOOT)
    wait_for(lambda: 'guest# ' in vm.stdout, 120, 'the prompt')
    for line in BEFORE:
        vm.send(line + '\n')
    wait_for(lambda: re.search(r'] typed=all', vm.stdout), 120, 'what was asked for')
    before = said(vm.stdout)['web']
    for line in FORK:
        vm.send(line + '\n')
    vm.wait(360)
    names = ['web', *check_fork(log, 'web', 4)]
    texts = said(vm.stdout)
    texts['web'] = texts['web'][len(before):]
    ends = {name: log.one('exit', name) for name in names}
    return vm, log.all(), names, before, texts, ends


@case(timeout=400)
def doorbell_from_the_shell():
    """All five machines end well, and each has its own number."""
    vm, events, names, _, texts, ends = shell_run()
    expect_equal(vm.status, 0, 'status')
    expect_equal({row['status'] for row in table(vm.stderr).values()}, {'0'}, 'table')
    for number, name in enumerate(names):
        expect(re.search(rf'R={number} N=4', texts[name]), f'{name}: {texts[name]!r}')
        expect_equal(len(re.findall(r'R=\d+ N=\d+', texts[name])), 1, f'numbers of {name}')
        expect_equal(ends[name]['reason'], 'poweroff', f'end of {name}')
        assists_are_plausible(ends[name])
    expect_equal({e['how'] for e in events if e['event'] == 'clone-running'}, {'doorbell'},
                 'first exits')


@case(timeout=400)
def two_processors_work():
    _, _, _, before, _, _ = shell_run()
    expect('cpus=2' in before, 'processors')
    for row in ('LOC', 'CAL'):  # timers and calls from one to the other
        counts = re.search(rf'{row}: +(\d+) +(\d+) ', before)
        expect(counts and int(counts[1]) > 0 and int(counts[2]) > 0, f'interrupts: {row} {counts}')
    expect(re.search(r'smp: Brought up 1 node, 2 CPUs', before), 'the log does not say so')


@case(timeout=400)
def kernel_log_is_clean():
    """Nothing to complain of in five machines, before the fork and after."""
    _, _, names, before, texts, _ = shell_run()
    log = re.findall(r'\[ +\d+\.\d+\] [^[]*', before)
    expect(len(log) > 30, f'the log has {len(log)} lines')
    for line in log:
        expect(not re.search(LINUX_TROUBLE, line), f'web, before the fork: {line!r}')
    for name in names:
        found = re.search(rf'.*({LINUX_TROUBLE}|clocksource).*', texts[name])
        expect(not found, f'{name}: {found and found[0]!r}')


@case(timeout=400)
def clones_get_entropy_of_their_own():
    """VMGENID: Linux says that it has noticed, in the clones alone; random numbers differ."""
    _, _, names, before, texts, _ = shell_run()
    expect('random: crng init done' in before, 'the parent had no random numbers yet')
    for number, name in enumerate(names):
        noticed = 'crng reseeded due to virtual machine fork' in texts[name]
        expect_equal(noticed, number > 0, f'{name} noticed the fork')
    uuids = {re.search(r'uuid=([0-9a-f-]{36})', texts[name])[1] for name in names}
    expect_equal(len(uuids), 5, 'different random numbers')


@case(timeout=400)
def monotonic_clock_does_not_jump():
    """t0 was read before the fork, t1 right after it, t2 three seconds later: all on one time line,
    which is also the host's."""
    _, events, names, _, texts, ends = shell_run()
    point = next(e['t_ns'] / 1e9 for e in events if e['event'] == 'fork-point')
    clocks = {name: {k: float(v) for k, v in re.findall(r'(t\d)=(\d+\.\d\d)', texts[name])}
              for name in names}
    offsets = {}
    for name in names:
        clock = clocks[name] | {'t0': clocks['web']['t0']}
        life = ends[name]['t_ns'] / 1e9 - point
        expect(clock['t0'] <= clock['t1'] <= clock['t0'] + life + 5, f'{name} jumped: {clock}')
        expect(2.9 <= clock['t2'] - clock['t1'] <= life + 0.1, f'{name} did not wait: {clock}')
        # The kernel's last line and the end of the process are close to each other.
        last = float(re.findall(r'\[ *(\d+\.\d+)\] reboot: Power down', texts[name])[-1])
        offsets[name] = ends[name]['t_ns'] / 1e9 - last
        expect(clock['t2'] <= last, f'{name} went back: {clock}, {last}')
    spread = max(offsets.values()) - min(offsets.values())
    expect(spread < 2, f'clocks of parent and clones are apart by {spread:.2f} s: {offsets}')


# --- by the console, at a terminal ---

# The launcher gets a terminal as its controlling one, as at a shell's prompt.
AT_TERMINAL = '''import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])'''


@case(timeout=400)
def console_text_at_a_terminal():
    """No word on the command line. Each clone says its number; then the keyboard goes from one to
    the next, and each one's shell answers; the parent reboots, and one clone is killed."""
    kernel, initramfs = need_linux()
    log = Events(tmp() / 'events')
    keys, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('4H', 40, 200, 0, 0))
    was = termios.tcgetattr(terminal)
    vm = Process([sys.executable, '-c', AT_TERMINAL, os.path.abspath(os.environ['RAMET']), 'run',
                  '--kernel', kernel, '--initramfs', initramfs, '--cpus', '2', '--name', 'web',
                  '--fork', '4', '--fork-at', 'console=ramet-guest: ready', '--events', log.path,
                  '--timeout', '380'], stdin=terminal)
    names = ['web', *(f'web.{i}' for i in range(1, 5))]
    log.wait('clone-running', 4, timeout=BOOT)
    modes = termios.tcgetattr(terminal)[3]
    expect(not modes & (termios.ICANON | termios.ECHO), 'the terminal is not raw')
    for number, name in enumerate(names):
        wait_for(lambda: f'clone {number} of 4 says hello' in said(vm.stdout).get(name, ''), 120,
                 f'the number of {name}')
        wait_for(lambda: 'guest# ' in said(vm.stdout)[name], 120, f'the prompt of {name}')

    def type_into(name, line):
        os.write(keys, line.encode() + b'\r')
        wait_for(lambda: f'I am {name}' in said(vm.stdout)[name], 120, f'an answer of {name}')

    for name in names:
        if name != 'web':
            os.write(keys, b'\x01n')  # Ctrl-A n
        type_into(name, f'echo "I"" am {name}"')  # whose echo does not look like its output
    texts = said(vm.stdout)
    for name in names:
        heard = re.findall(r'I am (web[.\d]*)', texts[name])
        expect_equal(heard, [name], f'answers of {name}')

    os.write(keys, b'exit\r')  # web.4; the keyboard goes on to the first machine
    wait_for(lambda: log.of('exit', 'web.4'), 120, 'the end of web.4')
    os.write(keys, b'reboot -f\r')
    wait_for(lambda: log.of('exit', 'web'), 120, 'the end of web')
    for name in ('web.1', 'web.2', 'web.3'):
        expect_equal(ramet('kill', name).status, 0, f'kill {name}')
    vm.wait(30)
    expect_equal(termios.tcgetattr(terminal), was, 'the terminal')
    check_fork(log, 'web', 4)
    expect_equal(vm.status, 10, 'status: the first machine asked for a reboot')
    statuses = {name: row['status'] for name, row in table(vm.stderr).items()}
    expect_equal(statuses, {'web': '10 (reboot)', 'web.4': '0',
                            **dict.fromkeys(['web.1', 'web.2', 'web.3'], '14 (killed)')},
                 'table')
    for name in names:
        expect(not re.search(LINUX_TROUBLE, said(vm.stdout)[name]), said(vm.stdout)[name])
    expect_equal(log.one('fork-point')['cause'], 'console', 'cause')
    os.close(keys)
    os.close(terminal)


main()
