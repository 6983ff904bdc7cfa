# SPDX-License-Identifier: Apache-2.0
"""However a guest ends, the run ends with the status that ramet(1) has for it, one line that says
why, and an exit event that agrees."""

from tap import (case, cases_for, expect, expect_equal, expect_error, expect_in, guest, main,
                 need_kvm, ramet, tmp)

from facts import Events, check_events


def run(kernel, *args, **how):
    """Run a guest to its end with an events file; its exit event is checked against the status."""
    log = Events(tmp() / 'events')
    r = ramet('run', '--kernel', guest(kernel), '--name', 'web', '--events', log.path, *args, **how)
    check_events(log, 'web')
    expect_equal([e['event'] for e in log.all()], ['vm-start', 'exit'], 'events')
    return r, log.one('exit')


@case
def poweroff():
    need_kvm()
    r, end = run('smp_hello.elf')
    expect_equal((r.status, r.stderr), (0, ''), 'status')
    expect_equal((end['reason'], end['status']), ('poweroff', 0), 'exit event')


@case
def debug_exit():
    need_kvm()
    r, end = run('pvh.elf', '--debug-exit', '0xf4')
    expect_equal((r.status, r.stderr), (0x55, ''), 'status')
    expect_equal((end['reason'], end['status']), ('debug-exit', 0x55), 'exit event')


@cases_for(['i8042', 'acpi'])
def reboot(how):
    need_kvm()
    r, end = run('reboot.elf', '--cmdline', f'how={how}')
    expect_equal(r.stdout, 'reboot: now\n', 'output')
    expect_error(r, 10, "'web'", 'reboot')
    expect_equal((end['reason'], end['status']), ('reboot', 10), 'exit event')


@case
def triple_fault():
    need_kvm()
    r, end = run('triple.elf')
    expect_equal(r.stdout, 'triple: now\n', 'output')
    expect_error(r, 6, "'web'", 'triple fault', 'vCPU 0', '0x')
    expect_equal((end['reason'], end['status']), ('crash', 6), 'exit event')
    expect_in('triple fault', end['text'], 'exit event')


@cases_for(['hlt', 'spin'])
def hang(how):
    """Processors that halt for ever, and some that never leave CPL 3, are stopped alike."""
    need_kvm()
    r, end = run('hang.elf', '--cmdline', f'hang={how}', '--cpus', '2', '--timeout', '2.5')
    expect_equal(r.stdout, 'hang: now\n', 'output')
    expect_error(r, 8, 'timed out', '2.5 s', "'web'")
    expect(2.5 <= r.seconds < 20, f'ended after {r.seconds:.1f} s')
    expect_equal((end['reason'], end['signal']), ('killed', 9), 'exit event')


@case
def timeout_that_is_not_needed():
    need_kvm()
    r, _ = run('smp_hello.elf', '--timeout', '60')
    expect_equal((r.status, r.stderr), (0, ''), 'status')
    expect(r.seconds < 25, f'ended after {r.seconds:.1f} s')


@case
def events_file_of_the_run_before_is_emptied():
    need_kvm()
    run('triple.elf')
    _, end = run('smp_hello.elf')
    expect_equal(end['reason'], 'poweroff', 'the one end in the file')


main()
