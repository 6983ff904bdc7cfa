# SPDX-License-Identifier: Apache-2.0
"""Guests boot by each protocol, and find the memory, processors, command line, module and console
that the options promised."""

import json
import re

from tap import (case, cases_for, expect, expect_equal, expect_error, expect_in, guest, main,
                 need_kvm, ramet, start, tmp)

from facts import said, table

EXIT = ('--debug-exit', '0xf4')
MODULE = bytes(range(40))
PROTOCOLS = {'mb_exit.elf': 'multiboot', 'pvh.elf': 'pvh', 'elf64.elf': 'linux64',
             'bzimage.bin': 'linux64'}


def report(stdout):
    """The lines of boot_report.c as a dict."""
    lines = stdout.splitlines()
    expect_equal(len(lines), 2, 'lines')
    expect(lines[0].startswith('boot: cmdline='), f'not a report: {lines[0]!r}')
    fields = dict(re.findall(r'(\w+)=(\S*)', lines[1]))
    return fields | {'cmdline': lines[0].removeprefix('boot: cmdline=')}


def added_in_front(kernel):
    """A regular expression for what stands in front of the command line that the user gave."""
    if PROTOCOLS[kernel] == 'multiboot':  # the image's name
        return re.escape(str(guest(kernel))) + ' ?'
    return r'tsc_early_khz=\d+ ?' if kernel == 'bzimage.bin' else ''  # for Linux


def boot(kernel, *args):
    r = ramet('run', '--kernel', kernel, *EXIT, *args)
    return r, report(r.stdout)


@cases_for(PROTOCOLS)
def boot_protocol(kernel):
    need_kvm()
    module = tmp() / 'module'
    module.write_bytes(MODULE)
    r, got = boot(guest(kernel), '--initramfs', module, '--cmdline', 'one two exit=0x15',
                  '--memory', '64M')
    expect_equal(r.status, 0x15 << 1 | 1, 'status')
    expect_equal(r.stderr, '', 'stderr')
    expect_equal(got['protocol'], PROTOCOLS[kernel], 'protocol')
    expect(re.fullmatch(added_in_front(kernel) + 'one two exit=0x15', got['cmdline']),
           f'command line: {got["cmdline"]!r}')
    expect_equal((got['module'], got['bytes']), (str(len(MODULE)), MODULE[:32].hex()), 'module')
    expect_equal(int(got['ram_end'], 16), 64 << 20, 'end of RAM')


@cases_for(PROTOCOLS)
def boot_without_extras(kernel):
    need_kvm()
    r, got = boot(guest(kernel))
    expect_equal(r.status, 0x2a << 1 | 1, 'status')
    expect_equal((got['module'], got['bytes']), ('0', ''), 'module')
    expect(re.fullmatch(added_in_front(kernel), got['cmdline']),
           f'command line: {got["cmdline"]!r}')


@cases_for([16, 32, 64])
def boot_flat(bits):
    need_kvm()
    image = guest(f'flat{bits}.bin')
    r = ramet('run', '--kernel', image, '--flat', f'0x7000,{bits}', *EXIT)
    expect_equal((r.stdout, r.stderr), (f'flat{bits}: ok\n', ''), 'output')
    expect_equal(r.status, bits // 16 * 0x20 | 1, 'status')


@case
def flat_is_64_bits_unless_said():
    need_kvm()
    r = ramet('run', '--kernel', guest('flat64.bin'), '--flat', '0x200000', *EXIT)
    expect_equal((r.stdout, r.status), ('flat64: ok\n', 0x81), 'output and status')


@cases_for([1, 2, 4])
def processors(count):
    need_kvm()
    r = ramet('run', '--kernel', guest('smp_hello.elf'), '--cpus', str(count))
    expect_equal((r.status, r.stderr), (0, ''), 'status')
    lines = r.stdout.splitlines()
    expect_equal(sorted(lines[:-1]), [f'smp_hello: cpu={i} apic={i}' for i in range(count)],
                 'processors')
    expect_equal(lines[-1], f'smp_hello: {count} cpus ok', 'the last word')


@cases_for(['16M', '256M', '3G', '5G'])
def memory(size):
    need_kvm()
    r, got = boot(guest('pvh.elf'), '--memory', size)
    expect_equal(r.status, 0x55, 'status')
    mib = int(size[:-1]) << (10 if size[-1] == 'G' else 0)
    expect_equal(int(got['ram_end'], 16), min(mib, 3072) << 20, 'end of the RAM below 4 GiB')


@case
def memory_above_4_gib():
    """It is where the address map has it, at both ends, and goes through a fork as all memory."""
    need_kvm()
    r = ramet('run', '--kernel', guest('high64.bin'), '--flat', '0x7000', '--memory', '5G', *EXIT,
              '--name', 'web', '--fork', '2')
    expect_equal(said(r.stdout), dict.fromkeys(['web', 'web.1', 'web.2'], 'high64: ok'), 'output')
    statuses = {name: row['status'] for name, row in table(r.stderr).items()}
    expect_equal(statuses, {'web': '1', 'web.1': '3', 'web.2': '5'}, 'numbers')


@cases_for([0, 1, 0x7f])
def debug_exit(value):
    need_kvm()
    r, _ = boot(guest('mb_exit.elf'), '--cmdline', f'exit={value}')
    expect_equal(r.status, value << 1 | 1, 'status')


@case
def no_debug_exit_unless_asked_for():
    need_kvm()
    r = ramet('run', '--kernel', guest('pvh.elf'))
    expect_equal((r.status, r.stderr), (0, ''), 'status')  # it powers off instead
    r = ramet('run', '--kernel', guest('pvh.elf'), '--debug-exit', '0xf5')
    expect_equal((r.status, r.stderr), (0, ''), 'status with another port')


@case
def console_off():
    need_kvm()
    r = ramet('run', '--kernel', guest('pvh.elf'), *EXIT, '--console', 'off')
    expect_equal((r.stdout, r.stderr, r.status), ('', '', 0x55), 'output and status')


@case
def console_file():
    need_kvm()
    r = ramet('run', '--kernel', guest('pvh.elf'), *EXIT, '--console', f'file={tmp()}/%c.log',
              '--name', 'web')
    expect_equal((r.stdout, r.stderr, r.status), ('', '', 0x55), 'output and status')
    expect_equal(report((tmp() / 'web.log').read_text())['protocol'], 'pvh', 'protocol')


@case
def console_output_is_whole():
    """A command line that fills the console's buffers comes out as it went in."""
    need_kvm()
    words = ' '.join(f'word{i}' for i in range(230))
    r, got = boot(guest('pvh.elf'), '--cmdline', words)
    expect_equal(got['cmdline'], words, 'command line')


@case
def console_input():
    need_kvm()
    vm = start('run', '--kernel', guest('writer.elf'))
    vm.wait_output('writer: running')
    vm.send('x')
    expect_equal(vm.wait().status, 0, 'status')
    expect_in('errors=0\n', vm.stdout)


@case
def end_of_input_ends_nothing():
    need_kvm()
    r = ramet('run', '--kernel', guest('writer.elf'), '--cmdline', 'ms=300')
    expect_equal(r.status, 0, 'status')
    expect(r.seconds > 0.3, f'it ended after {r.seconds} s')


@case
def config_file():
    need_kvm()
    config = tmp() / 'web.json'
    config.write_text(json.dumps({
        'kernel': str(guest('pvh.elf')), 'memory': '32M', 'cmdline': 'exit=9', 'cpus': 2,
        'debug-exit': '0xf4', 'console': 'stdio', 'name': 'web', 'timeout': 20.5,
        'events': str(tmp() / 'events')}))
    r = ramet('run', '--config', config)
    expect_equal((r.status, r.stderr), (9 << 1 | 1, ''), 'status')
    expect_equal(int(report(r.stdout)['ram_end'], 16), 32 << 20, 'end of RAM')
    first = json.loads((tmp() / 'events').read_text().splitlines()[0])
    expect_equal((first['name'], first['cpus']), ('web', 2), 'name and processors')

    r = ramet('run', '--config', config, '--cmdline', 'exit=10', '--memory', '48M')
    expect_equal(r.status, 10 << 1 | 1, 'status: the command line wins')
    expect_equal(int(report(r.stdout)['ram_end'], 16), 48 << 20, 'end of RAM')


@case
def not_a_kernel():
    need_kvm()
    junk = tmp() / 'junk.bin'
    junk.write_bytes(b'no kernel at all' * 4096)
    expect_error(ramet('run', '--kernel', junk), 2, 'junk.bin', 'not a kernel')


@case
def cut_kernel():
    need_kvm()
    short = tmp() / 'short.elf'
    short.write_bytes(guest('pvh.elf').read_bytes()[:1000])
    expect_error(ramet('run', '--kernel', short), 2, 'short.elf')


@case
def initramfs_larger_than_memory():
    need_kvm()
    big = tmp() / 'big.cpio'
    with open(big, 'wb') as f:
        f.truncate(48 << 20)
    expect_error(ramet('run', '--kernel', guest('pvh.elf'), '--initramfs', big, '--memory', '32M'),
                 2, 'big.cpio')


main()
