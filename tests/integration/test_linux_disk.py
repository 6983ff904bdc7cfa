# SPDX-License-Identifier: Apache-2.0
"""Linux with virtio devices, and its forks: ext4 on disks whose overlays are files or memory, what
was fsynced before a fork and what each machine wrote after it, random numbers that no two machines
have in common, a console that is typed into. The guest's side is ramet-work (tests/guest/linux)."""

import hashlib
import os
import re
import shutil
import struct
import subprocess

from tap import Failure, case, expect, expect_equal, main, need_linux, ramet, start, tmp

from facts import LINUX_TROUBLE, Events, check_events, said, wait_for

BOOT = 200  # seconds: 20 on a host that has nothing else to do
DISK = 32 << 20
KIB = 1024


# --- what the guest writes, as ramet-work makes it ---

def pattern(tag, size):
    """The first @size bytes of the pattern of @tag."""
    mask, seed = (1 << 64) - 1, 0xcbf29ce484222325
    for byte in tag.encode():
        seed = (seed ^ byte) * 0x100000001b3 & mask
    words = []
    for n in range(1, size // 8 + 1):
        z = seed + n * 0x9e3779b97f4a7c15 & mask
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & mask
        z = (z ^ z >> 27) * 0x94d049bb133111eb & mask
        words.append(z ^ z >> 31)
    return struct.pack(f'<{len(words)}Q', *words)


def work(*commands):
    return 'ramet.run="ramet-work ' + ' '.join(commands) + '"'


def lines_of(vm, name, word):
    """What ramet-work said in one machine, [[id, word, ...]], of lines that begin with @word."""
    prefix = rf'\[{re.escape(name)}\] ' if '.' in name else r'(?:\[web\] )?'
    found = re.findall(rf'^{prefix}work (\S+) ({word}.*?)\r?$', vm.stdout, re.M)
    return [[who, *rest.split()] for who, rest in found]


def no_failures(vm):
    for bad in re.findall(r'.*FAILED.*', vm.stdout):
        raise Failure(bad)


# --- images on the host ---

def tool(name, *args, ok=(0,)):
    path = shutil.which(name, path=os.environ['PATH'] + ':/usr/sbin:/sbin')
    expect(path, f'{name} is not installed')
    done = subprocess.run([path, *map(str, args)], capture_output=True, check=False)
    expect(done.returncode in ok, f'{name} {args}: {done.returncode}: {done.stdout[-500:]} '
                                  f'{done.stderr[-500:]}')
    return done.stdout


def ext4_image(name='ext4.img'):
    path = tmp() / name
    with path.open('wb') as f:
        f.truncate(DISK)
    tool('mkfs.ext4', '-q', '-b', '4096', '-O', '^metadata_csum,^64bit', '-E',
         'lazy_itable_init=0', path)
    return path


def raw_image():
    path = tmp() / 'raw.img'
    path.write_bytes(pattern('raw', 64 * KIB) + bytes((1 << 20) - 64 * KIB))
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def overlay(directory, name, disk):
    """The newest overlay of a machine's disk."""
    found = [(int(p.name.split('.')[-2]), p) for p in directory.glob(f'{name}.{disk}.*.overlay')]
    expect(found, f'{name} has no overlay for {disk} in {sorted(os.listdir(directory))}')
    return max(found)[1]


def export(directory, name, disk):
    image = tmp() / f'{name}.{disk}.img'
    done = ramet('overlay', 'export', overlay(directory, name, disk), image, timeout=60)
    expect_equal(done.status, 0, f'status of the export of {name}: {done.stderr}')
    return image


def check_ext4(image, files):
    """Clean, and with just these files, {name: tag}, of the right contents."""
    tool('e2fsck', '-fn', image)
    listing = tool('debugfs', '-R', 'ls -p /', image).decode()
    there = {line.split('/')[5]: int(line.split('/')[6] or 0)
             for line in listing.splitlines() if line.startswith('/')}
    there = {n: size for n, size in there.items() if n not in ('.', '..', 'lost+found')}
    expect_equal(sorted(there), sorted(files), f'files in {image.name}')
    for file, tag in files.items():
        expect(tool('debugfs', '-R', f'cat /{file}', image) == pattern(tag, there[file]),
               f'{image.name}: contents of {file}')


# --- a fork into three, and of one of those into two more ---

NAMES = {'0': 'web', '1': 'web.1', '2.0': 'web.2', '3': 'web.3', '2.1': 'web.2.1',
         '2.2': 'web.2.2'}


def check_unique(vm, kind):
    """No 16 bytes that one machine drew were drawn by another one."""
    seen = {}
    for who, name in NAMES.items():
        drawn = bytes.fromhex(''.join(l[3] for l in lines_of(vm, name, 'random') if l[2] == kind))
        expect(len(drawn) >= 1024, f'{name} drew {len(drawn)} bytes of {kind}')
        for i in range(len(drawn) - 15):
            other = seen.setdefault(drawn[i:i + 16], who)
            expect(other == who, f'{kind}: {who} and {other} both drew {drawn[i:i + 16].hex()}')


@case(timeout=500)
def ext4_and_random_numbers_over_forks():
    """Devices by ACPI, console hvc0, overlays in files. Everything that the issue asks of a fork
    with a disk, in one boot."""
    kernel, initramfs = need_linux()
    log, overlays = Events(tmp() / 'events'), tmp() / 'overlays'
    overlays.mkdir()
    ext4, raw = ext4_image(), raw_image()
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--name', 'web', '--fork', '3',
               '--disk', f'path={ext4},serial=files', '--disk', f'path={raw}', '--rng',
               '--console', 'virtio', '--overlay', overlays, '--events', log.path, '--timeout',
               '480', '--cmdline', 'console=hvc0 ' + work(
                   'mount /dev/vda /mnt check /dev/vdb raw 65536',
                   'write /mnt/before before 262144',
                   'random /dev/urandom 0 64 random /dev/hwrng 0 64 fork',
                   'random /dev/urandom 0 2048 random /dev/hwrng 0 2048',
                   'check /mnt/before before 262144 check /dev/vdb raw 65536',
                   'write /mnt/own.% own.% 131072 write /dev/vdb own.% 65536',
                   'if 2 await 2 random /dev/urandom 0 1024 random /dev/hwrng 0 1024',
                   'write /mnt/late.% late.% 65536 check /mnt/late.% late.% 65536',
                   'umount /mnt say done'))
    log.wait('freeze', 1, timeout=BOOT)
    at_fork = digest(ext4), digest(raw)
    wait_for(lambda: lines_of(vm, 'web.2', 'awaits') or 'FAILED' in vm.stdout, 200,
             'web.2 to await its fork')
    no_failures(vm)
    expect_equal(ramet('fork', 'web.2', '-n', '2').status, 0, 'ramet fork')
    vm.wait(300)
    no_failures(vm)
    check_events(log, 'web')
    expect_equal(vm.status, 0, 'status')
    for who, name in NAMES.items():
        expect_equal([l[0] for l in lines_of(vm, name, 'done')], [who], f'end of {name}')
        expect(not re.search(LINUX_TROUBLE, said(vm.stdout)[name]), said(vm.stdout)[name])
    expect_equal((digest(ext4), digest(raw)), at_fork, 'the images, as at the fork')
    for who, name in NAMES.items():
        mine = {'before': 'before', f'late.{who}': f'late.{who}'}
        mine[f'own.{who[0]}'] = f'own.{who[0]}'
        check_ext4(export(overlays, name, 'vda'), mine)
        other = export(overlays, name, 'vdb').read_bytes()
        expect(other[:64 * KIB] == pattern(f'own.{who[0]}', 64 * KIB), f'vdb of {name}')
        expect(not any(other[64 * KIB:]), f'vdb of {name}, what nobody wrote')
    for kind in ('/dev/urandom', '/dev/hwrng'):
        check_unique(vm, kind)


# --- a fork from outside, in the midst of writing ---

@case(timeout=400)
def fork_in_the_midst_of_writing():
    """The guest writes and fsyncs as fast as it can when it is forked from outside."""
    kernel, initramfs = need_linux()
    log, overlays = Events(tmp() / 'events'), tmp() / 'overlays'
    overlays.mkdir()
    ext4 = ext4_image()
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--name', 'web',
               '--disk', f'path={ext4}', '--rng', '--overlay', overlays, '--events', log.path,
               '--timeout', '380', '--cmdline', work(
                   'mount /dev/vda /mnt write /mnt/before before 65536',
                   'random /dev/hwrng 0 64',
                   'churn /mnt/churn churn 2 write /mnt/own.% own.% 65536',
                   'check /mnt/own.% own.% 65536 check /mnt/churn.0 churn 65536',
                   'umount /mnt say done'))
    wait_for(lambda: lines_of(vm, 'web', 'churns') or 'FAILED' in vm.stdout, BOOT, 'writing')
    no_failures(vm)
    expect_equal(ramet('fork', 'web', '-n', '2').status, 0, 'ramet fork')
    vm.wait(300)
    no_failures(vm)
    check_events(log, 'web')
    expect_equal(vm.status, 0, 'status')
    for who, name in (('0', 'web'), ('1', 'web.1'), ('2', 'web.2')):
        expect_equal([l[0] for l in lines_of(vm, name, 'done')], [who], f'end of {name}')
        files = {f'churn.{i}': 'churn' for i in range(int(lines_of(vm, name, 'churned')[0][2]))}
        check_ext4(export(overlays, name, 'vda'),
                   files | {'before': 'before', f'own.{who}': f'own.{who}'})


# --- overlays in memory, a console that is typed into, what it all costs ---

def private_bytes(pid):
    """Memory of a process that is no other's, and not the guest's."""
    total, guests = 0, False
    with open(f'/proc/{pid}/smaps', encoding='ascii', errors='replace') as smaps:
        for line in smaps:
            if re.match(r'[0-9a-f]+-[0-9a-f]+ ', line):
                guests = 'memfd:ramet-ram' in line
            elif line.startswith(('Private_Clean:', 'Private_Dirty:')) and not guests:
                total += int(line.split()[1]) << 10
    return total


@case(timeout=400)
def all_devices_at_a_prompt():
    """A shell on hvc0, overlays in memory: what each machine reads back from its disk, around the
    page cache. And what an idle machine with all devices weighs."""
    kernel, initramfs = need_linux()
    log, ext4, raw = Events(tmp() / 'events'), ext4_image(), raw_image()
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--name', 'web', '--fork', '3',
               '--disk', f'path={ext4}', '--disk', f'path={raw},readonly=on,serial=raw-1', '--rng',
               '--console', 'virtio', '--events', log.path, '--timeout', '380', '--cmdline',
               'console=hvc0')
    vm.wait_output('guest# ', timeout=BOOT)
    idle = private_bytes(log.pids()['web'])
    print(f'# idle-devices-private-bytes {idle}')
    expect(idle < 5 << 20, f'an idle machine with all devices has {idle} bytes of its own')
    # One line at a time: a tty takes 4 KiB, and echoes what it takes.
    for line in ('PS1=; cat /sys/block/vdb/serial /sys/block/vdb/ro /proc/consoles; echo',
                 'cat /sys/class/misc/hw_random/rng_current',
                 'ramet-work speed /dev/vdb 1048576 mount /dev/vda /mnt write /mnt/before before '
                 '65536 fork write /mnt/own.% own.% 65536 check /mnt/own.% own.% 65536 '
                 'check /mnt/before before 65536 check /dev/vdb raw 65536 umount /mnt say done; exit'):
        vm.send(line + '\n')
    vm.wait(300)
    no_failures(vm)
    check_events(log, 'web')
    expect_equal(vm.status, 0, 'status')
    text = vm.stdout
    for words in (r'raw-11', r'hvc0 .*', r'virtio_rng\.0'):
        expect(re.search(rf'^(\[web\] )?{words}\r?$', text, re.M), f'no {words} in {text}')
    for who, name in (('0', 'web'), ('1', 'web.1'), ('2', 'web.2'), ('3', 'web.3')):
        expect_equal([l[0] for l in lines_of(vm, name, 'done')], [who], f'end of {name}')
    expect(tool('debugfs', '-R', 'ls -p /', ext4).find(b'/own.') < 0, 'a file of after the fork')


# --- without ACPI ---

@case(timeout=400)
def devices_by_the_command_line():
    """--virtio cmdline, for kernels without ACPI. (Linux with ACPI takes interrupts only from ACPI's
    tables, on a machine of this kind.) Such a guest is not told of a fork by VMGENID, and ends by a
    reboot."""
    kernel, initramfs = need_linux()
    log, ext4 = Events(tmp() / 'events'), ext4_image()
    command = work('no-vmgenid mount /dev/vda /mnt write /mnt/before before 65536',
                   'random /dev/hwrng 0 64 fork write /mnt/own.% own.% 65536',
                   'check /mnt/own.% own.% 65536 check /mnt/before before 65536',
                   'umount /mnt say done')[:-1] + '; reboot -f"'
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--name', 'web', '--fork', '1',
               '--virtio', 'cmdline', '--disk', f'path={ext4}', '--rng', '--events', log.path,
               '--timeout', '380', '--cmdline', 'acpi=off ' + command)
    vm.wait(380)
    no_failures(vm)
    check_events(log, 'web')
    for who, name in (('0', 'web'), ('1', 'web.1')):
        expect_equal([l[0] for l in lines_of(vm, name, 'done')], [who], f'end of {name}')
        expect_equal(log.one('exit', name)['reason'], 'reboot', f'end of {name}')


main()
