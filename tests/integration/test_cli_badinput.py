# SPDX-License-Identifier: Apache-2.0
"""What the command says when it is given something that cannot work: one line, a status that says whose
fault it is, and nothing left behind (which the harness looks for)."""

import os
import socket
import stat

from tap import (Process, case, cases_for, events, expect, expect_equal, expect_error, expect_in, guest, main,
                 need_kvm, ramet, runtime_dir, skip, start, tmp)

INPUT, HOST, CRASH, TIMEOUT, CLONE = 2, 4, 6, 8, 12


def run(*args, **how):
    return ramet('run', *args, **how)


# --- values ---

BAD_VALUES = [
    ('--cpus', '0', 'from 1 to 64'), ('--cpus', '10000', 'from 1 to 64'), ('--cpus', 'two', 'from 1 to 64'),
    ('--cpus', '-1', 'from 1 to 64'), ('--cpus', '', 'from 1 to 64'),
    ('--memory', '1K', 'at least 1 MiB'), ('--memory', '0', 'at least 1 MiB'),
    ('--memory', '99999999999999999999G', 'at most 1 TiB'), ('--memory', 'lots', 'a size'),
    ('--fork', '0', 'from 1 to'), ('--fork', '10001', 'from 1 to'), ('--fork-at', 'dawn', 'console=TEXT'),
    ('--fork-at', 'console=', 'text'), ('--timeout', '0', 'seconds'), ('--timeout', 'soon', 'seconds'),
    ('--name', 'web.1', 'letters'), ('--name', '../x', 'letters'), ('--name', 'x' * 64, 'letters'),
    ('--console', 'tape', 'stdio'), ('--console', 'file=%d', '%c'), ('--log-level', 'loud', 'debug'),
    ('--debug-exit', '0', 'from 1 to 65535'), ('--debug-exit', '0x10000', 'from 1 to 65535'),
    ('--flat', 'here', 'address'), ('--flat', '0x1000,8', '16'), ('--seccomp', 'maybe', 'on, log or off'),
    ('--hugepages', 'big', 'auto, on or off'), ('--cow', 'foo', 'private, trap or rom'), ('--kernel', '', 'path'),
    ('--disk', 'disk.img', 'path=FILE'), ('--disk', 'serial=1', 'no path=FILE'), ('--disk', 'path=', 'a file'),
    ('--disk', 'path=a,path=b', 'twice'), ('--disk', 'path=a,format=raw', 'no such key'),
    ('--disk', 'path=a,readonly=yes', 'off or on'), ('--disk', 'path=a,serial=123456789012345678901', '1 to 20'),
    ('--disk', 'path=a,iops=0', 'from 1'), ('--disk', 'path=a,bandwidth=1K', 'at least 4 KiB'),
    ('--virtio', 'pci', 'acpi or cmdline'), ('--console', 'virtio:tape', 'after virtio:'), ('--overlay', '', 'path'),
]


@cases_for(BAD_VALUES)
def bad_value(value):
    option, text, word = value
    expect_error(run('--kernel', '/nonexistent', option, text), INPUT, option, word)


@cases_for([('--frobnicate',), ('--frok', '3'), ('-z',), ('--json',), ('--fork',), ('--kernel',)])
def bad_option(words):
    expect_error(run(*words), INPUT, words[0])


@case
def no_kernel():
    expect_error(run(), INPUT, '--kernel')


@case
def fork_at_without_fork():
    expect_error(run('--kernel', 'k', '--fork-at', 'signal'), INPUT, '--fork-at', '--fork N')


@case
def overlay_without_disk():
    expect_error(run('--kernel', 'k', '--overlay', '.'), INPUT, '--overlay', '--disk')


@case
def nine_disks():
    disks = [word for n in range(9) for word in ('--disk', f'path=d{n}')]
    expect_error(run('--kernel', 'k', *disks), INPUT, 'path=d8', 'at most 8 disks')


@case
def unexpected_argument():
    expect_error(run('vmlinux'), INPUT, 'vmlinux', '--kernel')


@case
def one_file_for_many_consoles():
    expect_error(run('--kernel', 'k', '--fork', '2', '--console', 'file=log'), INPUT, '%c')


@cases_for([('pause',), ('kill', 'a', 'b'), ('list', 'web'), ('fork', 'web', '-n', '0'), ('kill', 'web.x'),
            ('resume', '../web'), ('demo', '--fork', '0'), ('demo', '--fill', '500'), ('demo', '--seed', 'xyz'),
            ('demo', '--cow', 'milk'), ('demo', 'x')])
def other_commands(words):
    expect_error(ramet(*words), INPUT)


@cases_for(['pause', 'resume', 'kill', 'fork'])
def no_such_machine(command):
    expect_error(ramet(command, 'nobody.2'), INPUT, "'nobody'")


# --- configuration ---

@cases_for([('{"cpus": 0}', 'cpus'), ('{"kernle": "k"}', 'kernle'), ('{"cpus": "2"}', 'cpus'), ('[]', 'object'),
            ('{"disk": [{"path": "a", "size": 1}]}', 'size='), ('{"disk": "path=a"}', 'array'), ('{"rng": 1}', 'true'),
            ('{', ':1:'), ('{"cpus": 1, "cpus": 2}', 'JSON'), ('', 'JSON')])
def bad_config(pair):
    text, word = pair
    (tmp() / 'c.json').write_text(text)
    expect_error(run('--config', 'c.json'), INPUT, 'c.json', word)


@cases_for(['missing.json', '.'])
def no_config(path):
    expect_error(run('--config', path), INPUT, path)


# --- files. With /dev/kvm missing, that is what is told first: status 4 ---

def expect_bad_file(result, *words):
    need_kvm()
    expect_error(result, INPUT, *words)


@case
def kernel_is_missing():
    expect_bad_file(run('--kernel', 'nowhere'), 'nowhere', 'No such file')


@case
def kernel_is_a_directory():
    expect_bad_file(run('--kernel', '.'), 'directory')


@case
def kernel_is_a_fifo():
    os.mkfifo(tmp() / 'fifo')
    expect_bad_file(run('--kernel', 'fifo'), 'regular file')


@case
def kernel_may_not_be_read():
    need_kvm()
    (tmp() / 'secret').write_bytes(b'\x7fELF')
    (tmp() / 'secret').chmod(0)
    caps = '-dac_override,-dac_read_search'  # with which root reads everything
    drop = ['setpriv', '--bounding-set', caps, '--inh-caps', caps, '--'] if os.geteuid() == 0 else []
    done = Process([*drop, os.path.abspath(os.environ['RAMET']), 'run', '--kernel', 'secret']).wait()
    expect_error(done, INPUT, 'secret', 'Permission denied')


JUNK = {'empty': b'', 'two bytes': b'MZ', 'ELF, cut': b'\x7fELF', 'zeros': b'\0' * 100,
        'text': b'not a kernel\n' * 1000}


@cases_for(JUNK)
def kernel_is_junk(kind):
    (tmp() / 'junk.bin').write_bytes(JUNK[kind])
    expect_bad_file(run('--kernel', 'junk.bin'), 'junk.bin')


@case
def kernel_has_the_wrong_magic():
    need_kvm()
    image = bytearray(guest('pvh.elf').read_bytes())
    image[1:4] = b'XXX'
    (tmp() / 'bad.elf').write_bytes(image)
    expect_bad_file(run('--kernel', 'bad.elf'), 'bad.elf', 'not a kernel')


@cases_for([64, 200, 4096])
def kernel_is_cut_short(length):
    need_kvm()
    (tmp() / 'short.elf').write_bytes(guest('pvh.elf').read_bytes()[:length])
    expect_bad_file(run('--kernel', 'short.elf'), 'short.elf')


@case
def kernel_lies_outside_memory():
    need_kvm()
    expect_bad_file(run('--kernel', guest('pvh.elf'), '--memory', '1M'), 'pvh.elf')


@case
def initramfs_is_larger_than_memory():
    need_kvm()
    with open(tmp() / 'big.cpio', 'wb') as f:
        f.truncate(64 << 20)
    expect_bad_file(run('--kernel', guest('pvh.elf'), '--initramfs', 'big.cpio', '--memory', '32M'), 'big.cpio')


@case
def initramfs_is_missing():
    need_kvm()
    expect_bad_file(run('--kernel', guest('pvh.elf'), '--initramfs', 'nowhere'), '--initramfs', 'nowhere')


@case
def events_cannot_be_written():
    need_kvm()
    expect_bad_file(run('--kernel', guest('pvh.elf'), '--events', 'no/such/file'), '--events')


@case
def console_file_cannot_be_written():
    need_kvm()
    expect_bad_file(run('--kernel', guest('pvh.elf'), '--console', 'file=no/such/%c'), 'no/such/')


# --- the host ---

@case
def no_permission_on_kvm():
    """As nobody, who gets the command as a descriptor: its path may be closed to others."""
    if not os.path.exists('/dev/kvm'):
        skip('/dev/kvm: no such file')
    if os.geteuid() != 0:
        skip('needs root, to become nobody')
    if os.stat('/dev/kvm').st_mode & stat.S_IRWXO:
        skip('/dev/kvm is open to everybody here')
    script = ('exec setpriv --reuid 65534 --regid 65534 --clear-groups -- '
              '/proc/self/fd/9 run --kernel /etc/passwd 9< "$1"')
    done = Process(['sh', '-c', script, 'sh', os.environ.get('RAMET', 'ramet')], cwd='/').wait()
    expect_error(done, HOST, '/dev/kvm', 'permission denied', 'kvm group')


# --- guests that go wrong ---

@case
def a_triple_fault_is_told():
    need_kvm()
    r = run('--kernel', guest('triple.elf'))
    expect_error(r, CRASH, 'triple fault')


@case
def a_hanging_guest_times_out():
    need_kvm()
    r = run('--kernel', guest('hang.elf'), '--timeout', '0.5', '--name', 'web')
    expect_error(r, TIMEOUT, 'timed out after 0.5 s', "'web'")
    expect(r.seconds < 20, f'took {r.seconds} s')


@case
def a_fork_point_that_is_never_reached_times_out():
    need_kvm()
    r = run('--kernel', guest('hang.elf'), '--timeout', '0.5', '--fork', '2', '--name', 'web', '--events', 'ev')
    expect_error(r, TIMEOUT, "'web' never reached its fork point", '--fork-at guest')
    expect_equal([e['event'] for e in events(tmp() / 'ev')], ['vm-start', 'exit'], 'events')


@case
def a_guest_that_ends_before_its_fork_point():
    need_kvm()
    r = run('--kernel', guest('pvh.elf'), '--fork', '2', '--name', 'web')
    expect_error(r, CLONE, "'web' ended before it reached its fork point")


# --- names and sockets ---

@case
def a_name_that_is_taken():
    need_kvm()
    first = start('run', '--kernel', guest('hang.elf'), '--name', 'web')
    first.wait_output('hang: now')
    (tmp() / 'ev').write_text('precious')
    expect_error(run('--kernel', guest('pvh.elf'), '--name', 'web', '--events', 'ev'), INPUT, "'web'", 'running')
    expect_equal((tmp() / 'ev').read_text(), 'precious', 'the events file')
    expect_equal(ramet('kill', 'web').status, 0, 'kill')
    expect_equal(first.wait().status, 14, 'status')


@case
def a_stale_socket_is_replaced():
    need_kvm()
    directory = runtime_dir() / 'ramet'
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(directory / 'web.sock'))
    r = run('--kernel', guest('pvh.elf'), '--name', 'web')
    expect_equal((r.status, r.stderr), (0, ''), 'result')


@case
def list_removes_stale_sockets():
    directory = runtime_dir() / 'ramet'
    directory.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(directory / 'web.sock'))
    r = ramet('list')
    expect_equal((r.status, r.stdout), (0, 'no machines are running\n'), 'result')
    expect(not (directory / 'web.sock').exists(), 'the socket is still there')


@case
def a_directory_that_is_open_to_others_is_refused():
    directory = runtime_dir() / 'ramet'
    directory.mkdir()
    directory.chmod(0o777)
    expect_error(ramet('list'), HOST, str(directory))


@case
def a_link_instead_of_the_directory_is_refused():
    (tmp() / 'elsewhere').mkdir()
    (runtime_dir() / 'ramet').symlink_to(tmp() / 'elsewhere')
    expect_error(ramet('list'), HOST, str(runtime_dir() / 'ramet'))
    (runtime_dir() / 'ramet').unlink()


main()
