# SPDX-License-Identifier: Apache-2.0
"""A Linux kernel and its user space run: on one processor with a shell that is typed into, and by
the words of its command line."""

import re

from tap import case, expect, expect_equal, main, need_linux, start, tmp

from facts import Events, assists_are_plausible, by_machine, check_events, check_fork, said

BOOT = 200  # seconds: 20 on a host that has nothing else to do


@case(timeout=400)
def shell_on_one_processor():
    """Commands over standard input, the end by leaving the shell."""
    kernel, initramfs = need_linux()
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--memory', '192M', '--name',
               'web', '--events', log.path, '--timeout', '380')
    vm.wait_output('ramet-guest: ready', timeout=BOOT)
    vm.wait_output('the only machine says hello, it has no clones', timeout=120)
    vm.wait_output('guest# ', timeout=120)
    vm.send('uname -srm\n')
    vm.send('echo cpus=$(grep -c ^processor /proc/cpuinfo)\n')
    vm.send('grep MemTotal /proc/meminfo\n')
    vm.send('grep -e ttyS0 -e LOC /proc/interrupts\n')
    vm.send('echo sum=$((40+2)); exit\n')
    vm.wait(120)
    check_events(log, 'web')
    expect_equal((vm.status, vm.stderr), (0, ''), 'status')
    text = vm.stdout
    expect(re.search(r'^Linux 6\.1\.\S* x86_64\r?$', text, re.M), 'uname')
    expect(re.search(r'^cpus=1\r?$', text, re.M), 'processors')
    expect(re.search(r'^sum=42\r?$', text, re.M), 'arithmetic')
    total = int(re.search(r'^MemTotal: +(\d+) kB', text, re.M)[1])
    expect(170 << 10 < total < 192 << 10, f'{total} KiB of memory')
    serial = re.search(r'^ *\d+: +(\d+) .*ttyS0', text, re.M)
    expect(serial and int(serial[1]) > 0, 'no interrupts of the serial port')
    timer = re.search(r'^ *LOC: +(\d+) ', text, re.M)
    expect(timer and int(timer[1]) > 0, 'no interrupts of the timer')
    end = log.one('exit')
    expect_equal((end['reason'], end['status']), ('poweroff', 0), 'exit event')
    assists_are_plausible(end)


@case(timeout=400)
def fork_by_the_command_line():
    """Two processors; ramet.fork=doorbell forks at boot, then each machine runs ramet.run."""
    kernel, initramfs = need_linux()
    log = Events(tmp() / 'events')
    command = r'read u v < /proc/uptime; echo \0042I am $RAMET_CLONE/$RAMET_COUNT at $u\0042; ' \
              r'[ $RAMET_CLONE != 3 ]'
    vm = start('run', '--kernel', kernel, '--initramfs', initramfs, '--cpus', '2', '--name', 'web',
               '--cmdline', f'ramet.fork=doorbell ramet.run="{command}"', '--fork', '4',
               '--events', log.path, '--timeout', '380')
    vm.wait(380)
    expect_equal(vm.status, 0, 'status')
    names = ['web', *check_fork(log, 'web', 4)]
    expect_equal({e['how'] for e in log.of('clone-running')}, {'doorbell'}, 'first exits')
    expect_equal(log.one('freeze')['vcpus'], 2, 'processors that were frozen')
    expect_equal(sorted(by_machine(vm.stdout)), names, 'machines that printed')
    for number, name in enumerate(names):
        text = said(vm.stdout)[name]
        for words in (f'fork: result {number} of 4', f'clone {number} of 4 says hello',
                      f'clone {number} of 4: files ok',
                      f'ramet-guest: exit {1 if number == 3 else 0}'):
            expect(words in text, f'{name}: no {words!r} in {text!r}')
        expect(re.search(rf'I am {number}/4 at \d+\.\d\d', text), f'{name}: {text!r}')
        expect(('ramet-guest: ready' in text) == (number == 0), f'{name} booted: {text!r}')
        expect_equal(log.one('exit', name)['reason'], 'poweroff', f'end of {name}')
        assists_are_plausible(log.one('exit', name))


main()
