# SPDX-License-Identifier: Apache-2.0
"""A driver that means harm (tests/guest/hostile.c) against the real devices: each of its cases is one
here. Its machine is watched from outside as well: no process is lost, nothing is leaked, nothing
spins when the guest is idle, and the end is a clean one. In a root machine, in clones by every
engine, and without io_uring."""

import functools
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from tap import (Failure, Process, Skip, case, expect, expect_equal, guest, main, need_kvm, start,
                 tmp)

from facts import Events, cpu_seconds, descriptors

MEMORY_MIB = 3200  # some of it is above 4 GiB
HIGH = (MEMORY_MIB - 3072) << 20
DISK_BYTES = 32 << 20
ALL, NO_INPUT = 0x1f, 0x0f  # devices, as bits; a clone has no input
# How: more options, the guest's words, and how much of the table (every how many cases)
MODES = {
    'root': ((), '', 1),
    'private': (('--cow', 'private'), 'fork=1', 3),
    'trap': (('--cow', 'trap'), 'fork=1', 7),
    'rom': (('--cow', 'rom'), 'fork=1', 11),
    'epoll': ((), '', 5),
}


def words(mode):
    _, more, every = MODES[mode]
    devs = NO_INPUT if 'fork' in more else ALL
    return f'high={HIGH:#x} devs={devs:#x} every={every} {more}'


def kvm_works():
    try:
        need_kvm()
    except Skip:
        return False
    return True


def describe(vm, lines):
    """As any command that failed, but without what a console was asked to print."""
    for name, text in vm._text.items():
        vm._text[name] = re.sub(rb'[^\n -~]', b'', text)
    return lines()


class Machine:
    """The machine of a mode, while its guest works; and all that its guest said."""

    def __init__(self, mode):
        options, _, _ = MODES[mode]
        self.log = Events(tmp() / 'events')
        for name in ('disk', 'ro'):
            with open(tmp() / name, 'wb') as image:
                image.truncate(DISK_BYTES)
                if name == 'disk':  # on the medium, and nowhere else: reads take their time
                    image.write(b'data' * (DISK_BYTES // 4))
                    image.flush()
                    os.fsync(image.fileno())
                    os.posix_fadvise(image.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        args = ['run', '--kernel', guest('hostile.elf'), '--memory', f'{MEMORY_MIB}M', '--cpus', '2',
                '--disk', f'path={tmp() / "disk"},serial=hostile', '--disk',
                f'path={tmp() / "ro"},readonly=on', '--rng', '--console', 'virtio', '--name', 'web',
                '--events', self.log.path, '--cmdline', f'{words(mode)} wait=1', *options]
        if 'fork=1' in words(mode):
            args += ['--fork', '1']
        if mode == 'epoll':
            command = os.path.abspath(os.environ.get('RAMET', 'ramet'))
            self.vm = Process([sys.executable, Path(__file__).parent / 'without_io_uring.py', command,
                               *args])
        else:
            self.vm = start(*args)
        self.vm.describe = functools.partial(describe, self.vm, self.vm.describe)
        threading.Thread(target=self._type, daemon=True).start()

    def _type(self):
        """As much as anybody wants to read."""
        fd = os.dup(self.vm.popen.stdin.fileno())
        try:
            while True:
                os.write(fd, b'x' * 4096)
        except OSError:
            os.close(fd)

    def go_on(self, sector):
        """What the guest waits for: something in this sector of the read-only disk."""
        with open(tmp() / 'ro', 'r+b') as image:
            image.seek(512 * sector)
            image.write(b'x')

    def pid(self):
        return list(self.log.pids().values())[-1]

    def look(self):
        """What the machine's process has: descriptors, threads, resident bytes of its own."""
        status = Path(f'/proc/{self.pid()}/status').read_text()
        return (len(descriptors(self.pid())), int(re.search(r'Threads:\t(\d+)', status)[1]),
                int(re.search(r'RssAnon:\s+(\d+) kB', status)[1]) << 10)


def parse(text):
    """{case: its line} of what a guest printed."""
    found = {}
    for line in text.replace('\0', '').splitlines():
        match = re.search(r'hostile: ((?:disk|ro-disk|rng|tx|rx)/[^:]*): (want .*)', line)
        if match:
            expect(match[1] not in found, f'twice: {match[1]}')
            found[match[1]] = match[2]
    return found


results = {}


def run(mode):
    """The whole table in one machine. What it says is judged case by case; here, the machine."""
    need_kvm()
    results[mode] = {}
    m = Machine(mode)
    m.vm.wait_output('hostile: begin', 60)
    before = m.look()
    m.go_on(1)
    try:
        m.vm.wait_output('hostile: end: ', 250)
    finally:
        results[mode] = parse(m.vm.stdout)
    time.sleep(0.3)
    after, busy = m.look(), cpu_seconds(m.pid())
    time.sleep(1)
    busy = cpu_seconds(m.pid()) - busy
    m.go_on(2)
    m.vm.wait(60)
    expect_equal(m.vm.status, 0, 'status')
    if 'fork=1' not in words(mode):
        expect_equal(after[:2], before[:2], 'descriptors and threads')
        expect(after[2] - before[2] < 48 << 20, f'memory of its own: {before[2]}, then {after[2]}')
    expect(busy < 0.15, f'{busy:.2f} s of processor time in a second, with an idle guest')
    expect_equal(m.log.of('error'), [], 'errors')
    for name in ('disk', 'ro'):
        expect_equal((tmp() / name).stat().st_size, DISK_BYTES, f'size of {name}')
    expect_equal((tmp() / 'ro').read_bytes().replace(b'\0', b''), b'xx', 'what the read-only disk has')


def judge(mode, name):
    expect(name in results.get(mode, {}), 'the guest did not come to it')
    line = results[mode][name]
    expect(line.endswith(': ok'), line)


def names(mode):
    """What the guest would do."""
    command = os.environ.get('RAMET', 'ramet')
    r = subprocess.run([command, 'run', '--kernel', guest('hostile.elf'), '--memory', '64M', '--cmdline',
                        f'list=1 {words(mode).replace("fork=1", "")}'], stdin=subprocess.DEVNULL,
                       capture_output=True, text=True, timeout=100, check=False)
    found = re.findall(r'hostile: ((?:disk|ro-disk|rng|tx|rx)/.*)', r.stdout)
    if not found or 'hostile: end: ' not in r.stdout:
        raise Failure(f'no list of cases: {r.stdout[-300:]!r} {r.stderr[-300:]!r}')
    return found


def the_table_is_long(table):
    expect(len(table) >= 200, f'{len(table)} cases')
    expect_equal(len(set(table)), len(table), 'different names')


def register():
    if not kvm_works():
        case(need_kvm, name='the table')
        return
    table = names('root')
    case(functools.partial(the_table_is_long, table), name='the table is long')
    for mode, (_, _, every) in MODES.items():
        case(functools.partial(run, mode), name=f'{mode}: the machine', timeout=300)
        for name in table[::every] if 'fork=1' not in words(mode) else names(mode):
            case(functools.partial(judge, mode, name), name=f'{mode}: {name}', looks_only=True)


register()
main()
