# SPDX-License-Identifier: Apache-2.0
"""`ramet reset` takes a machine back to the fork that it comes from; and trees of machines: forks of
clones of clones, deeper than layers are stacked, with every machine's memory of its own moment."""

import json
import time

from tap import (case, expect, expect_equal, expect_error, guest, main, need_kvm, ramet, start,
                 tmp)

from facts import Events, check_events, said, wait_for


def run(kernel, cmdline, *args, cpus=1):
    log = Events(tmp() / 'events')
    vm = start('run', '--kernel', guest(kernel), '--cmdline', cmdline, '--cpus', str(cpus),
               '--memory', '64M', '--name', 'web', '--events', log.path, *args)
    return vm, log


def ok(*args):
    r = ramet(*args, timeout=60)
    expect_equal((r.status, r.stderr), (0, ''), f'ramet {" ".join(args)}')
    return r.stdout


def state(name):
    vms = json.loads(ok('list', '--json'))
    return next(vm['state'] for vm in vms if vm['name'] == name)


@case
def a_clone_lives_again():
    need_kvm()
    vm, log = run('fork_pio.elf', 'rings=3 wait=3000', '--fork', '2')
    wait_for(lambda: len(log.of('clone-running')) == 2, 60, 'the clones')
    vm.wait_output('result=2', timeout=20)
    ok('reset', 'web.2')
    ok('reset', 'web.2')
    vm.wait(timeout=60)
    texts = said(vm.stdout)
    expect_equal(texts['web.1'].count('ring=1 result=1'), 1, 'answers of the clone left alone')
    expect_equal(texts['web.2'].count('ring=1 result=2 count=2'), 3, 'answers of the other')
    expect_equal(texts['web.2'].count('ring=3 result=not-armed'), 1, 'ends of the other')
    resets = log.of('reset')
    expect_equal([e['name'] for e in resets], ['web.2', 'web.2'], 'reset events')
    expect(all(e['reset_ns'] > 0 for e in resets), f'no figures: {resets}')
    check_events(log, 'web')


@case
def a_paused_machine_stays_paused():
    need_kvm()
    vm, log = run('hang.elf', '')
    vm.wait_output('hang: now')
    ok('fork', 'web')
    ok('pause', 'web.1')
    ok('reset', 'web.1')
    expect_equal(state('web.1'), 'paused', 'state after the reset')
    ok('resume', 'web.1')
    ok('reset', 'web.1')
    expect_equal(state('web.1'), 'running', 'state after the other')
    ok('reset', 'web')  # to the fork
    for name in ('web.1', 'web'):
        ok('kill', name)
    vm.wait()
    expect_equal([e['name'] for e in log.of('reset')], ['web.1', 'web.1', 'web'], 'reset events')
    check_events(log, 'web')


@case
def what_cannot_be_reset_is_told():
    need_kvm()
    vm, log = run('hang.elf', '')
    vm.wait_output('hang: now')
    expect_error(ramet('reset', 'web'), 4, 'no template')
    expect_equal(state('web'), 'running', 'state of the machine that was refused')
    expect_error(ramet('reset', 'web.7'), 2, "'web.7'")
    expect_error(ramet('reset', 'nobody'), 2, "'nobody'")
    expect_error(ramet('reset'), 2)
    ok('fork', 'web')
    ok('kill', 'web.1')
    expect_error(ramet('reset', 'web.1'), 2, 'has ended')
    ok('kill', 'web')
    vm.wait()
    expect_equal(log.of('reset'), [], 'reset events')


@case(timeout=200)
def storms_survive_resets():
    need_kvm()
    vm, log = run('writer.elf', 'mib=2 ms=3000', cpus=2)
    vm.wait_output('running')
    ok('fork', 'web', '-n', '2')
    for _ in range(10):
        ok('reset', 'web.1')
        ok('reset', 'web')
        time.sleep(0.05)
    expect_equal(vm.wait(timeout=120).status, 0, 'status')
    expect_equal(vm.stdout.count('errors=0\n'), 3, f'machines without errors: {vm.stdout}')


@case(timeout=280)
def a_tree_of_machines():
    """One line of descent of 20, deeper than layers are stacked; two forks of each, some of whose
    clones are ended on the way, with their own clones living on."""
    need_kvm()
    vm, log = run('writer.elf', 'mib=1 ms=60000')
    vm.wait_output('running')
    name = 'web'
    names = [name]
    for depth in range(1, 21):
        ok('fork', name)
        names.append(f'{name}.1')
        if depth % 5 == 0:
            ok('fork', name)
            names.append(f'{name}.2')
        if depth % 3 == 0:
            ok('kill', name)  # its clones do not mind
            names.remove(name)
        name = f'{name}.1'
    alive = {m['name']: m for m in json.loads(ok('list', '--json'))}
    expect_equal(sorted(alive), sorted(names), 'machines that run')
    depths = sorted(n.count('.') for n in names)
    expect_equal((depths[0], depths[-1]), (0, 20), 'depths that live at once')
    copied = [e['copied_bytes'] for e in log.of('freeze') if e['name'] != 'web']
    expect(max(copied) <= 8 << 20, f'a freeze copied more than its machine wrote: {copied}')
    for n in names:
        ok('reset', n)
    for n in names:
        expect_equal(state(n), 'running', f'state of {n} after its reset')
        ok('kill', n)
    vm.wait()
    check_events(log, 'web')


main()
