# SPDX-License-Identifier: Apache-2.0
"""Disks of a run and of its forks: what is in the image and in each overlay afterwards, by what the
guest (tests/guest/disk.c) wrote; which files there are and which locks; and what is refused."""

import array
import os
import re
import signal
import sys
from pathlib import Path

from tap import (Process, case, cases_for, expect, expect_equal, expect_error, expect_in, guest, main, need_kvm,
                 ramet, start, tmp)

from facts import (Events, alive, check_events, check_fork, child_named, children, said, wait_dead,
                   wait_for)

INPUT, HOST, CLONE, KILLED = 2, 4, 12, 14
SECTOR, BYTES = 512, 1 << 20
FIRST, COUNT = 16, 64  # the range that everybody knows; the machine's own range follows it
WORDS = f'start={FIRST} count={COUNT} seed=3'
SEED = 3


def image(name='disk.img', size=BYTES):
    path = tmp() / name
    with open(path, 'wb') as f:
        f.truncate(size)
    return path


def overlays_dir():
    path = tmp() / 'overlays'
    path.mkdir()
    return path


def pattern(first, count, salt=SEED, disk=0):
    """What disk.elf writes to sectors [first, first + count)."""
    top, mask = (salt << 40) ^ (disk << 60), (1 << 64) - 1
    return array.array('Q', ((n * 0x9e3779b97f4a7c15 & mask) ^ top
                             for n in range(first * 64 + 1, (first + count) * 64 + 1))).tobytes()


def contents(own_of=None, disk=0):
    """A whole disk: the range is written, and the own range by the machine of that number."""
    data = bytearray(BYTES)
    at = FIRST * SECTOR
    data[at:at + COUNT * SECTOR] = pattern(FIRST, COUNT, disk=disk)
    if own_of is not None:
        at += COUNT * SECTOR
        data[at:at + COUNT * SECTOR] = pattern(FIRST + COUNT, COUNT, SEED + 256 * (1 + own_of), disk)
    return bytes(data)


def expect_contents(path, want, what):
    """Equal, or the first sector that is not."""
    got = Path(path).read_bytes()
    expect_equal(len(got), len(want), f'bytes of {what}')
    bad = [n for n in range(len(want) // SECTOR)
           if got[n * SECTOR:(n + 1) * SECTOR] != want[n * SECTOR:(n + 1) * SECTOR]]
    expect(not bad, f'{what} is stale: sectors {bad[:8]} of {len(bad)}, the first is '
                    f'{got[bad[0] * SECTOR:bad[0] * SECTOR + 16].hex()}' if bad else '')


def arguments(do, *args, words=WORDS, disk=None):
    return ['run', '--kernel', guest('disk.elf'), '--memory', '32M', '--cmdline', f'do={do} {words}',
            '--name', 'web', '--events', tmp() / 'events', '--disk', f'path={disk or tmp() / "disk.img"}',
            *args]


def expect_no_failure(stdout):
    expect('FAILED' not in stdout, re.findall(r'.*FAILED.*', stdout))


def export(overlay):
    """The disk that the machine of an overlay saw."""
    out = Path(str(overlay) + '.img')
    r = ramet('overlay', 'export', overlay, out)
    expect_equal((r.status, r.stderr), (0, ''), f'export of {overlay}')
    return out


def files(directory):
    return sorted(p.name for p in directory.iterdir())


# --- what is refused ---

@cases_for([('nowhere', 'No such file'), ('.', 'directory'), ('fifo', 'neither a file nor a block device'),
            ('/dev/null', 'neither a file nor a block device'), ('odd', '1000 bytes long, a multiple of 512'),
            ('empty', '0 bytes long')])
def bad_image(pair):
    need_kvm()
    path, word = pair
    os.mkfifo(tmp() / 'fifo')
    image('odd', 1000)
    image('empty', 0)
    for readonly in ('on', 'off'):
        expect_error(ramet(*arguments('i', disk=f'{path},readonly={readonly}')), INPUT, path, word)


@case
def an_image_that_may_not_be_written():
    need_kvm()
    image().chmod(0o444)
    caps = '-dac_override'  # with which root writes everything
    drop = ['setpriv', '--bounding-set', caps, '--inh-caps', caps, '--'] if os.geteuid() == 0 else []
    command = [*drop, os.path.abspath(os.environ['RAMET'])]
    expect_error(Process([*command, *arguments('i')]).wait(), INPUT, 'disk.img', 'Permission denied',
                 'readonly=on')
    r = Process([*command, *arguments('i', disk='disk.img,readonly=on')]).wait()
    expect_equal((r.status, r.stderr), (0, ''), 'result')
    expect_in('readonly=1', r.stdout)


@case
def the_same_image_twice():
    need_kvm()
    image()
    (tmp() / 'link').symlink_to('disk.img')
    expect_error(ramet(*arguments('i', '--disk', 'path=link')), INPUT, 'link', 'twice', 'readonly=on')
    expect_error(ramet(*arguments('i', '--disk', 'path=link,readonly=on')), INPUT, 'link', 'twice')
    r = ramet(*arguments('i', '--disk', 'path=link,readonly=on', disk='disk.img,readonly=on',
                         words='disks=2'))
    expect_equal(r.status, 0, 'status')
    expect_no_failure(r.stdout)


@case
def overlay_directories_and_files():
    need_kvm()
    image()
    fork = ('--fork', '1', '--overlay')
    expect_error(ramet(*arguments('i', *fork, 'nowhere')), INPUT, 'nowhere', 'No such file')
    expect_error(ramet(*arguments('i', *fork, 'disk.img')), INPUT, 'disk.img', 'not a directory')
    directory = overlays_dir()
    (directory / 'web.vda.1.overlay').write_text('precious')
    expect_error(ramet(*arguments('i', *fork, 'overlays')), INPUT, 'web.vda.1.overlay', 'File exists')
    expect_equal((directory / 'web.vda.1.overlay').read_text(), 'precious', 'the file in the way')


@case
def an_overlay_file_in_a_clones_way():
    """That clone is not made, and says which file it is; the machine goes on, and so do the others."""
    need_kvm()
    image()
    directory = overlays_dir()
    (directory / 'web.2.vda.1.overlay').write_text('precious')
    r = ramet(*arguments('wRWV', '--fork', '2', '--overlay', 'overlays'))
    expect_equal(r.status, CLONE, 'status')
    expect_in('web.2.vda.1.overlay: File exists', r.stderr)
    expect_no_failure(r.stdout)
    expect_equal(files(directory), ['web.1.vda.1.overlay', 'web.2.vda.1.overlay', 'web.vda.1.overlay'],
                 'overlays')
    expect_equal((directory / 'web.2.vda.1.overlay').read_text(), 'precious', 'the file in the way')


@case
def an_overlay_file_in_the_way_of_ramet_fork():
    """The fork is not made, and who asked for it is told; once the file is gone it is."""
    need_kvm()
    image()
    directory = overlays_dir()
    (directory / 'web.vda.1.overlay').write_text('precious')
    vm = start(*arguments('wfvtl', '--overlay', 'overlays'))
    vm.wait_output('disk 0: v: ok', timeout=60)
    expect_error(ramet('fork', 'web'), HOST, "'web'", 'web.vda.1.overlay: File exists')
    (directory / 'web.vda.1.overlay').unlink()
    expect_equal(ramet('fork', 'web').status, 0, 'fork')
    expect_equal(files(directory), ['web.1.vda.1.overlay', 'web.vda.1.overlay'], 'overlays')
    vm.signal(signal.SIGTERM)
    vm.wait()
    expect_no_failure(vm.stdout)


# --- locks ---

@case
def an_image_in_use_is_refused():
    """While the first machine or any clone of it runs, and no longer; those that only read may share."""
    need_kvm()
    image()
    other = [a if a != 'web' else 'db' for a in arguments('i')]
    first = start(*arguments('wRlv', '--fork', '1'))
    first.wait_output('[web.1] disk 0: w: ok', timeout=60)
    expect_error(ramet(*other), INPUT, 'disk.img', 'another machine is using it')
    expect_error(ramet(*[f'{a},readonly=on' if str(a).startswith('path=') else a for a in other]),
                 INPUT, 'another machine is using it')
    expect_equal(ramet('kill', 'web').status, 0, 'kill')
    expect_error(ramet(*other), INPUT, 'another machine is using it')  # web.1 has it
    expect_equal(ramet('kill', 'web.1').status, 0, 'kill')
    expect_equal(first.wait().status, KILLED, 'status')
    expect_equal(ramet(*other).status, 0, 'status once it is free')

    shared = ['--disk', f'path={tmp() / "disk.img"},readonly=on']
    readers = [start('run', '--kernel', guest('hang.elf'), '--name', f'r{n}', *shared) for n in range(2)]
    for reader in readers:
        reader.wait_output('hang: now')
    expect_error(ramet(*other), INPUT, 'another machine is using it')
    for n, reader in enumerate(readers):
        expect_equal(ramet('kill', f'r{n}').status, 0, 'kill')
        reader.wait()


@case
def a_killed_launcher_leaves_no_lock():
    need_kvm()
    image()
    first = start(*arguments('wRlv', '--fork', '1'))
    first.wait_output('[web.1] disk 0: w: ok', timeout=60)
    pids = Events(tmp() / 'events').pids().values()
    first.signal(signal.SIGKILL)
    first.wait()
    wait_dead(pids)
    expect_equal(ramet(*arguments('i')).status, 0, 'status once it is free')


# --- forks ---

def command(args, io_uring=True):
    words = [os.path.abspath(os.environ.get('RAMET', 'ramet')), *args]
    return words if io_uring else [sys.executable, Path(__file__).parent / 'without_io_uring.py', *words]


def without_io_uring(args):
    return Process(command(args, io_uring=False))


@cases_for(['io_uring', 'epoll', 'rom', 'trap'])
def each_machine_has_its_own_disk(how):
    """A guest writes, flushes and forks into 3; each finds that, and writes its own. The image has what
    was written before the fork, each overlay what its machine wrote, and no other's."""
    need_kvm()
    image()
    directory = overlays_dir()
    log = Events(tmp() / 'events')
    args = arguments('iwfRvOWfvVtttV', '--fork', '3', '--overlay', 'overlays', '--log-level', 'info')
    if how in ('rom', 'trap'):
        args += ['--cow', how]
    vm = without_io_uring(args) if how == 'epoll' else start(*args)
    vm.wait(60)
    expect_equal(vm.status, 0, 'status')
    expect_no_failure(vm.stdout)
    expect_equal('epoll is used' in vm.stderr, how == 'epoll', 'a note about epoll')
    machines = said(vm.stdout)
    expect_equal(len(machines), 4, 'machines that printed')
    for name, text in machines.items():
        expect_equal(text.count('disk 0: V: ok'), 2, f'looks at the own range of {name}')
        expect_equal(text.count('disk 0: O: ok'), 1, f'looks at what is nobody\'s yet, of {name}')
    check_fork(log, 'web', 3)

    expect_contents(tmp() / 'disk.img', contents(), 'the image')
    expect_equal(files(directory), ['web.1.vda.1.overlay', 'web.2.vda.1.overlay', 'web.3.vda.1.overlay',
                                    'web.vda.1.overlay'], 'overlays')
    expect_in(f"'web': what is written to vda ({tmp() / 'disk.img'}) goes to "
              f"{directory / 'web.vda.1.overlay'} now", vm.stderr, 'standard error')
    expect_equal(log.one('freeze')['overlays'], {'vda': str(directory / 'web.vda.1.overlay')}, 'freeze')
    for e in [log.one('freeze'), *log.of('clone-start')]:
        path = Path(e['overlays']['vda'])
        expect_equal((path.parent, path.name), (directory, f'{e["name"]}.vda.1.overlay'), 'overlay')
        expect_equal(path.stat().st_mode & 0o777, 0o600, 'mode')
        expect_contents(export(path), contents(e['index']), f'disk of {e["name"]}')


@case
def overlays_in_memory():
    """The same without files: the image is written until the fork, and never again; events say so."""
    need_kvm()
    image()
    image('other.img')
    log = Events(tmp() / 'events')
    r = ramet(*arguments('wfRvOWfvV', '--fork', '2', '--log-level', 'info', '--disk',
                         'path=other.img,serial=O1,iops=10000,bandwidth=100M', '--rng',
                         words=f'disks=2 {WORDS}'), timeout=60)
    expect_equal(r.status, 0, 'status')
    expect_no_failure(r.stdout)
    check_fork(log, 'web', 2)
    expect_contents(tmp() / 'disk.img', contents(), 'the image')
    expect_contents(tmp() / 'other.img', contents(disk=1), 'the other image')
    expect_in('goes to an overlay in memory now', r.stderr, 'standard error')
    for e in [log.one('freeze'), *log.of('clone-start')]:
        expect_equal(e['overlays'], {'vda': None, 'vdb': None}, f'overlays of {e["name"]}')
    vda, vdb, rng = log.one('vm-start')['devices']
    expect_equal(vda, {'type': 'disk', 'name': 'vda', 'path': str(tmp() / 'disk.img'), 'bytes': BYTES,
                       'readonly': False}, 'first device')
    expect_equal((vdb['name'], vdb['serial'], vdb['iops'], vdb['bandwidth']),
                 ('vdb', 'O1', 10000, 100 << 20), 'second device')
    expect_equal(rng, {'type': 'rng'}, 'third device')


@case
def a_read_only_disk_has_no_overlay():
    need_kvm()
    image().write_bytes(contents())
    directory = overlays_dir()
    log = Events(tmp() / 'events')
    r = ramet(*arguments('ivRv', '--fork', '2', '--overlay', 'overlays', disk='disk.img,readonly=on'),
              timeout=60)
    expect_equal(r.status, 0, 'status')
    expect_no_failure(r.stdout)
    expect_equal(r.stdout.count('readonly=1'), 1, 'read-only disks')
    expect_equal(files(directory), [], 'overlays')
    expect_equal(log.one('freeze')['overlays'], {}, 'overlays')


@case
def overlays_of_a_fork_that_never_came():
    need_kvm()
    image()
    directory = overlays_dir()
    r = ramet(*arguments('wf', '--fork', '1', '--overlay', 'overlays'))
    expect_equal(r.status, CLONE, 'status')
    expect_equal(files(directory), [], 'overlays')


@case
def forks_of_forks():
    """Overlays stack: a machine that never stops writing is forked, a clone of it, and the first one
    again. Each exported disk has what was written; nothing is left of files that no fork used."""
    need_kvm()
    image()
    directory = overlays_dir()
    log = Events(tmp() / 'events')
    vm = start(*arguments('wfvtl', '--overlay', 'overlays'))
    vm.wait_output('disk 0: v: ok', timeout=60)
    expect_equal(files(directory), [], 'overlays before the fork')
    expect_equal(ramet('fork', 'web', '-n', '2').status, 0, 'fork')
    vm.wait_output('[web.1] disk 0: v: ok', timeout=60)
    expect_equal(ramet('fork', 'web.1', '-n', '2').status, 0, 'fork of a clone')
    expect_equal(ramet('fork', 'web').status, 0, 'second fork')
    for name in ('web', 'web.1', 'web.2', 'web.3', 'web.1.1', 'web.1.2'):
        vm.wait_output(f'[{name}] disk 0: v: ok', timeout=60, count=2)
    expect_equal(ramet('kill', 'web').status, 0, 'kill')  # its clones need it no more
    vm.wait_output('[web.1.1] disk 0: v: ok', timeout=60, count=vm.stdout.count('[web.1.1] disk 0: v') + 2)
    for name in ('web.1', 'web.2', 'web.3', 'web.1.1', 'web.1.2'):
        expect_equal(ramet('kill', name).status, 0, f'kill {name}')
    expect_equal(vm.wait().status, KILLED, 'status')
    expect_no_failure(vm.stdout)
    check_events(log, 'web')
    want = ['web.1.1.vda.1', 'web.1.2.vda.1', 'web.1.vda.1', 'web.1.vda.2', 'web.2.vda.1', 'web.3.vda.1',
            'web.vda.1', 'web.vda.2']
    expect_equal(files(directory), sorted(f'{name}.overlay' for name in want), 'overlays')
    for path in sorted(directory.glob('*.overlay')):
        expect_contents(export(path), contents(), f'disk of {path.name}')


@case
def shells_have_the_same_devices():
    """Clones of a machine with disks and a source of random numbers start in the shells that were made
    for them ahead of time."""
    need_kvm()
    image()
    directory = overlays_dir()
    log = Events(tmp() / 'events')
    vm = start(*arguments('wftttttttttttttttRveWV', '--fork', '2', '--pool', '2', '--rng', '--overlay',
                          'overlays', '--disk', f'path={image("ro.img")},readonly=on'))
    log.wait('vm-start')
    spawner = child_named(vm.pid, 'ramet-spawner')
    wait_for(lambda: len(children(spawner)) == 3, 5, 'two shells')
    shells = set(children(spawner)) - set(log.pids().values())
    vm.wait(60)
    expect_equal(vm.status, 0, 'status')
    expect_no_failure(vm.stdout)
    expect_equal({e['pid'] for e in log.of('clone-start')}, shells, 'processes of the clones')
    check_fork(log, 'web', 2)
    drawn = re.findall(r'entropy: 32 (\w{64})', vm.stdout)
    expect_equal((len(drawn), len(set(drawn))), (3, 3), f'what was drawn: {drawn}')
    for number in (1, 2):
        expect_contents(export(directory / f'web.{number}.vda.1.overlay'), contents(number),
                        f'disk of web.{number}')


@case
def a_machine_killed_while_it_writes():
    """Only that machine is lost: the others go on, and what was its own can be read."""
    need_kvm()
    image()
    directory = overlays_dir()
    vm = start(*arguments('wfl', '--fork', '3', '--fork-at', 'console=disk 0: f: ok', '--overlay',
                          'overlays', words=f'{WORDS} chunk=1'))
    log = Events(tmp() / 'events')
    log.wait('clone-running', 3)
    for name in ('web.2', 'web'):
        vm.wait_output(f'[{name}] disk 0: w: ok', timeout=60)
        pid = log.pids()[name]
        os.kill(pid, signal.SIGKILL)
        wait_dead([pid])
    counts = [vm.stdout.count(f'[{name}] disk 0: w: ok') for name in ('web.1', 'web.3')]
    for name, count in zip(('web.1', 'web.3'), counts):
        vm.wait_output(f'[{name}] disk 0: w: ok', timeout=60, count=count + 3)
    expect_no_failure(vm.stdout)
    vm.signal(signal.SIGTERM)
    vm.wait()
    for path in sorted(directory.glob('*.overlay')):
        expect_contents(export(path), contents(), f'disk of {path.name}')
    expect_contents(tmp() / 'disk.img', contents(), 'the image')


@case
def reset_takes_the_disk_back():
    """A clone that is reset finds its own range empty again, each time."""
    need_kvm()
    image()
    vm = start(*arguments('wfROWVttttttttt', '--fork', '1', '--console', 'file=%c.log'))
    out = tmp() / 'web.1.log'
    for times in range(1, 4):
        wait_for(lambda n=times: out.exists() and out.read_text().count('disk 0: V: ok') == n, 20,
                 f'{times} looks')
        expect_equal(ramet('reset', 'web.1').status, 0, 'reset')
    vm.wait(60)
    text = out.read_text()
    expect_no_failure(text)
    expect_equal(text.count('disk 0: O: ok'), 4, 'looks at an empty range')
    expect_equal(vm.status, 0, 'status')


@cases_for(['io_uring', 'epoll'])
def a_limit_of_file_sizes_ends_no_machine(how):
    """ulimit -f: the kernel sends SIGXFSZ along with the error. The guest hears that its write failed, a
    fork whose overlays would be too large fails, and the machine goes on."""
    need_kvm()
    limit = 40 << 20
    args = arguments('wWRvi', '--fork', '2', disk=image(size=64 << 20),
                     words=f'start={limit // SECTOR - 8} count=8 own={limit // SECTOR} seed={SEED}')
    vm = Process(['prlimit', f'--fsize={limit}', *command(args, how == 'io_uring')]).wait()
    expect_equal(vm.status, CLONE, 'status')
    for text in ('w: ok', 'W: FAILED status 1', 'v: ok', 'i: ok'):
        expect_in(f'disk 0: {text}', vm.stdout)
    expect_in('File too large', vm.stderr)


@cases_for(['acpi', 'cmdline'])
def devices_are_told_of(how):
    """With --virtio cmdline the kernel's command line says where they are, and nothing else does."""
    need_kvm()
    image()
    args = arguments('iwfv', '--virtio', how, '--rng')
    r = ramet(*args)
    expect_equal(r.status, 0, 'status')
    expect_no_failure(r.stdout)
    args[args.index('--kernel') + 1] = guest('pvh.elf')
    r = ramet(*args)
    found = re.findall(r'virtio_mmio\.device=(\S+)', r.stdout)
    expect_equal(len(found), 2 if how == 'cmdline' else 0, f'devices in {r.stdout!r}')
    expect(all(re.fullmatch(r'(512|4K|0x[0-9a-f]+)@0x[0-9a-f]+:\d+', d) for d in found), f'{found}')


# --- confinement ---

@cases_for(['io_uring', 'epoll'])
def machines_with_disks_are_confined(how):
    """Every thread of every machine has the filter, the first one's and the clones', and their disks work
    under it; what they hold of files of the host is what they were given."""
    need_kvm()
    image()
    directory = overlays_dir()
    log = Events(tmp() / 'events')
    args = arguments('wfvd0uwl', '--fork', '2', '--fork-at', 'console=disk 0: v: ok', '--overlay', 'overlays',
                     '--rng')
    vm = without_io_uring(args) if how == 'epoll' else start(*args)
    log.wait('clone-running', 2)
    for name, pid in log.pids().items():
        tasks = list(Path(f'/proc/{pid}/task').iterdir())
        for task in tasks:
            status = (task / 'status').read_text()
            expect(re.search(r'Seccomp:\t2', status) and re.search(r'NoNewPrivs:\t1', status),
                   f'{name}, thread {task.name}: {status}')
        vm.wait_output(f'[{name}] disk 0: u: ok', timeout=60, count=2)
        for fd in Path(f'/proc/{pid}/fd').iterdir():
            target = os.readlink(fd)
            flags = int(re.search(r'^flags:\t(\d+)', Path(f'/proc/{pid}/fdinfo/{fd.name}').read_text(), re.M)[1], 8)
            if target == str(tmp() / 'disk.img'):
                expect_equal(flags & os.O_ACCMODE, os.O_RDONLY, f'how {name} has the image')
            elif target.startswith(str(directory)) and f'/{name}.vda.' not in target:
                expect_equal(flags & os.O_ACCMODE, os.O_RDONLY, f'how {name} has {target}')
    expect_no_failure(vm.stdout)
    vm.signal(signal.SIGTERM)
    vm.wait()
    expect_equal([e['reason'] for e in log.of('exit')], ['killed'] * 3, 'ends')
    expect('seccomp' not in vm.stderr, vm.stderr)


main()
