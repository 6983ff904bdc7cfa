# SPDX-License-Identifier: Apache-2.0
"""What a guest, or a machine's process that was taken over, can do to others by its devices: it
cannot keep its machine from obeying, write what others read, or fill the host."""

import fcntl
import os
import time
from pathlib import Path

from tap import case, cases_for, expect, expect_equal, guest, main, need_kvm, ramet, start, tmp

from facts import Events, check_events, wait_for

F_GET_SEALS, F_SEAL_WRITE = 1034, 8
DISK_BYTES = 4 << 20
PROMPT_S = 8.0  # 0.1 s on a host that has nothing else to do; each is a process of its own
ACTIONS = (('list',), ('pause', 'web'), ('list',), ('resume', 'web'), ('fork', 'web'),
           ('fork', 'web.1'), ('pause', 'web.1.1'), ('reset', 'web.1'), ('fork', 'web'),
           ('kill', 'web.1.1'), ('kill', 'web.2'), ('kill', 'web.1'), ('kill', 'web'))


def image(name, bytes_=DISK_BYTES):
    path = tmp() / name
    with open(path, 'wb') as f:
        f.truncate(bytes_)
    return path


def storm(words, *options):
    """A machine whose processors do nothing but notify of full queues; its events."""
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest('storm.elf'), '--cmdline', words, '--cpus', '2', '--memory',
               '64M', '--name', 'web', '--disk', f'path={image("disk")}', '--disk',
               f'path={image("ro")},readonly=on', '--rng', '--events', log.path, *options)
    if '--console' in options:
        out = tmp() / 'web.console'
        wait_for(lambda: out.exists() and 'storm: on' in out.read_text(errors='replace'), 30,
                 'storm: on')
    else:
        vm.wait_output('storm: on', timeout=30)
    return vm, log


# --- a machine obeys, whatever its guest does ---

@cases_for(['console=0', 'console=0 write=1', 'console=0 reset=1', 'write=1'])
def control_gets_through(words):
    """Two processors in a tight loop: notifications, a reset with I/O in flight, or all of it with
    a console that prints without an end."""
    need_kvm()
    console = [] if 'console=0' in words else ['--console', f'virtio:file={tmp()}/%c.console']
    vm, log = storm(words, *console)
    for action in ACTIONS:
        begun = time.monotonic()
        r = ramet(*action, timeout=60)
        seconds = time.monotonic() - begun
        expect_equal((r.status, r.stderr), (0, ''), ' '.join(action))
        expect(seconds < PROMPT_S, f'{" ".join(action)} took {seconds:.1f} s')
    vm.wait(30)
    check_events(log, 'web')


@case
def a_storm_ends_like_any_run():
    need_kvm()
    vm, log = storm('ms=1000 console=0')
    expect_equal(vm.wait(60).status, 0, 'status')
    expect('storm: off' in vm.stdout, vm.stdout)
    check_events(log, 'web')


# --- what a process holds ---

def held(pid):
    """{(device, inode): [(path, writable, sealed)]} of the files that a process has open."""
    found = {}
    for fd in Path(f'/proc/{pid}/fd').iterdir():
        try:
            path, st = os.readlink(fd), os.stat(fd)
            info = Path(f'/proc/{pid}/fdinfo/{fd.name}').read_text()
        except OSError:
            continue
        if not path.startswith('/') or path.startswith('/dev/'):
            continue
        flags, sealed = int(info.split('flags:')[1].split()[0], 8), False
        if path.startswith('/memfd:'):
            own = os.open(fd, os.O_RDONLY)
            sealed = bool(fcntl.fcntl(own, F_GET_SEALS) & F_SEAL_WRITE)
            os.close(own)
        found.setdefault((st.st_dev, st.st_ino), []).append(
            (path, flags & os.O_ACCMODE != os.O_RDONLY, sealed))
    return found


@cases_for(['memory', 'files'])
def nobody_can_write_what_others_read(where):
    """After forks of forks, of all that two machines have open nothing can be written by anyone;
    and a disk's image by no machine at all."""
    need_kvm()
    (tmp() / 'overlays').mkdir()
    options = ['--overlay', tmp() / 'overlays'] if where == 'files' else []
    vm, log = storm('console=0 write=1', *options)
    for name in ('web', 'web.1', 'web', 'web.1.1'):
        expect_equal(ramet('fork', name, timeout=60).status, 0, f'fork {name}')
        time.sleep(0.2)
    machines = {name: held(pid) for name, pid in log.pids().items()}
    expect_equal(len(machines), 5, 'machines')
    overlays = 0
    for name, files in machines.items():
        for file, descriptors in files.items():
            shared = [n for n in machines if n != name and file in machines[n]]
            for path, writable, sealed in descriptors:
                base = os.path.basename(path)
                expect(not (writable and base in ('disk', 'ro')), f'{name} can write {path}')
                overlays += 'overlay' in base
                if shared:
                    expect(not writable or sealed, f'{name} can write {path}, as {shared} have it')
    expect(overlays >= 8, f'{overlays} overlays: where are they?')
    expect_equal(ramet('kill', 'web').status, 0, 'kill')
    for name in sorted(machines):
        ramet('kill', name)
    vm.wait(30)


@case
def image_is_not_written_after_the_fork():
    """While five machines write without an end."""
    need_kvm()
    vm, _ = storm('console=0 write=1')
    expect_equal(ramet('fork', 'web', timeout=60).status, 0, 'fork')
    before = (tmp() / 'disk').stat()
    content = (tmp() / 'disk').read_bytes()
    expect_equal(ramet('fork', 'web.1', timeout=60).status, 0, 'fork')
    time.sleep(1)
    after = (tmp() / 'disk').stat()
    expect_equal((after.st_mtime_ns, after.st_size), (before.st_mtime_ns, DISK_BYTES), 'the image')
    expect((tmp() / 'disk').read_bytes() == content, 'the image was written')
    for name in ('web.1.1', 'web.1', 'web'):
        expect_equal(ramet('kill', name).status, 0, 'kill')
    vm.wait(30)


# --- how much a guest can take ---

@case
def overlay_is_bounded_by_the_disk():
    """All of the disk is written, discarded and written again: an overlay has the disk's size, a bit
    for each sector and a header, and no more."""
    need_kvm()
    (tmp() / 'overlays').mkdir()
    sectors = DISK_BYTES // 512
    r = ramet('run', '--kernel', guest('disk.elf'), '--memory', '64M', '--name', 'web', '--fork', '1',
              '--disk', f'path={image("disk")}', '--overlay', tmp() / 'overlays', '--cmdline',
              f'do=Rwfdfwf0fwfwvf count={sectors} chunk=128', timeout=110)
    expect_equal(r.status, 0, 'status')
    expect_equal(r.stdout.count('disk: done: 0 failed'), 2, f'machines that were content: {r.stdout}')
    files = list((tmp() / 'overlays').iterdir())
    expect_equal(len(files), 2, f'overlays: {files}')
    for path in files:
        used = path.stat().st_blocks * 512
        expect(DISK_BYTES <= used <= DISK_BYTES + (64 << 10), f'{path.name}: {used} bytes')


main()
