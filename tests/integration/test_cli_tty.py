# SPDX-License-Identifier: Apache-2.0
"""ramet run at a terminal: raw mode, the escape key, and a terminal that is put back on every way out."""

import os
import pty
import signal
import sys
import termios
import time
import tty

from tap import Process, case, cases_for, expect, expect_equal, expect_in, guest, main, need_kvm, ramet

# Becomes the session's foreground job on the terminal that is its standard input, then the command.
TAKE_TERMINAL = ('import fcntl, os, sys, termios\n'
                 'fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n'
                 'os.execv(sys.argv[1], sys.argv[1:])\n')


class Terminal:
    """The command on a terminal of its own. Its output is on pipes, as the harness has it."""

    def __init__(self, kernel, *args):
        need_kvm()
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.process = Process([sys.executable, '-c', TAKE_TERMINAL, os.environ['RAMET'], 'run', '--kernel',
                                guest(kernel), '--name', 'web', *args], stdin=self.slave)
        self.process.wait_output('hang: now' if kernel == 'hang.elf' else 'writer: running')
        self.wait_mode(raw=True)

    def mode(self):
        return termios.tcgetattr(self.slave)

    def is_raw(self):
        return not self.mode()[tty.LFLAG] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_mode(self, raw, timeout=5):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.is_raw() == raw:
                return
            time.sleep(0.01)
        raise AssertionError('the terminal is not raw' if raw else 'the terminal is still raw')

    def type(self, keys):
        os.write(self.master, keys)

    def end(self, status, timeout=10):
        self.process.wait(timeout)
        if status is not None:
            expect_equal(self.process.status, status, 'status')
        self.wait_mode(raw=False)
        expect_equal(self.mode(), self.before, 'the terminal afterwards')
        os.close(self.slave)
        os.close(self.master)


@case
def ctrl_a_x_quits():
    t = Terminal('hang.elf')
    t.type(b'abc\x01x')
    t.end(14)
    expect_equal(t.process.stderr, '', 'stderr')


@case
def keys_go_to_the_guest():
    t = Terminal('writer.elf')
    t.type(b'\x03')  # Ctrl-C is a key like any other
    t.end(0)


@case
def ctrl_a_twice_is_one():
    t = Terminal('writer.elf')
    t.type(b'\x01')
    time.sleep(0.2)
    expect_equal(t.process.status, None, 'status')
    t.type(b'\x01')
    t.end(0)


@case
def ctrl_a_h_helps():
    t = Terminal('hang.elf')
    t.type(b'\x01h')
    t.process.wait_output('Ctrl-A x', stream='stderr')
    t.type(b'\x01x')
    t.end(14)


@case
def quitting_works_when_the_guest_does_not_read():
    t = Terminal('hang.elf')
    for _ in range(300):
        t.type(b'x' * 1000)
        time.sleep(0.001)
    t.type(b'\x01x')
    t.end(14)


@case
def the_input_goes_round():
    t = Terminal('writer.elf')
    expect_equal(ramet('fork', 'web', '-n', '2').status, 0, 'fork')
    for name, count in (('web.1', 1), ('web.2', 1), ('web', 1), ('web.1', 2)):
        t.type(b'\x01n')
        t.process.wait_output(f'[{name}]', stream='stderr', count=count)
    t.type(b'x')
    t.process.wait_output('[web.1] writer: rounds')
    for name in ('web', 'web.2'):
        expect_equal(ramet('kill', name).status, 0, 'kill')
    t.end(14)


@cases_for([('TERM', 143), ('INT', 130), ('HUP', 129), ('QUIT', 131)])
def signals_put_it_back(pair):
    name, status = pair
    t = Terminal('hang.elf')
    t.process.signal(getattr(signal, 'SIG' + name))
    t.end(status)


@cases_for(['KILL', 'SEGV', 'ABRT'])
def so_does_the_death_of_the_launcher(name):
    t = Terminal('hang.elf')
    t.process.signal(getattr(signal, 'SIG' + name))
    t.end(None)  # a sanitizer makes a status of its own of some


@case
def so_does_the_death_of_the_machine():
    t = Terminal('hang.elf')
    pid = int(ramet('list').stdout.splitlines()[1].split()[1])
    os.kill(pid, signal.SIGKILL)
    t.end(14)


@case
def so_does_a_timeout():
    Terminal('hang.elf', '--timeout', '1').end(8)


@case
def so_does_a_stop():
    """SIGTSTP, as a job of a shell: the shell gets the terminal as it was."""
    t = Terminal('hang.elf')
    t.process.signal(signal.SIGTSTP)
    t.wait_mode(raw=False)
    expect_equal(t.mode(), t.before, 'the terminal while it is stopped')
    with open(f'/proc/{t.process.pid}/stat') as f:
        expect_in(') T ', f.read(), 'state')
    t.process.signal(signal.SIGCONT)
    t.wait_mode(raw=True)
    t.type(b'\x01x')
    t.end(14)


@case
def a_hang_up_of_the_terminal():
    t = Terminal('hang.elf')
    os.close(t.master)
    t.process.wait(10)
    expect(t.process.status in (129, 14), f'status {t.process.status}')
    os.close(t.slave)


main()
