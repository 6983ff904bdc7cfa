# SPDX-License-Identifier: Apache-2.0
"""--cow: every engine runs, forks and demonstrates what the default one does, from warm machines and
cold ones, over generations; and what a host cannot do is refused in one line."""

import functools
import os
import re
import shutil

from tap import (Process, case, cases_for, expect, expect_equal, expect_error, guest, main,
                 need_kvm, ramet, skip, start, tmp)

from facts import Events, check_events, check_fork, said

ENGINES = ['private', 'trap', 'rom']
HOST, INPUT = 4, 2


@functools.cache
def refusal(engine):
    """How this host refuses a machine with @engine: the command's result, or None."""
    r = ramet('run', '--cow', engine, '--kernel', guest('smp_hello.elf'))
    return r if r.status in (HOST, INPUT) else None


def need(engine):
    """Skip where the host refuses it, after looking at how it does so."""
    need_kvm()
    r = refusal(engine)
    if r:
        expect_error(r, r.status, f'--cow {engine}', 'use ')
        skip(r.stderr.strip())


@cases_for([(engine, pool) for engine in ENGINES for pool in ('0', '3')])
def clones_are_told_apart(how):
    """By the doorbell; in machines that wait ready, or that are made when asked for."""
    engine, pool = how
    need(engine)
    log = Events(tmp() / 'events')
    r = ramet('run', '--cow', engine, '--pool', pool, '--kernel', guest('fork_pio.elf'), '--name', 'web',
              '--fork', '3', '--cpus', '2', '--events', log.path, '--debug-exit', '0xf4', timeout=60)
    names = ['web', *check_fork(log, 'web', 3)]
    expect_equal(r.status, 1, 'status: that of the first machine')
    texts = said(r.stdout)
    for number, name in enumerate(names):
        expect_equal(texts[name], f'fork_pio: ring=1 result={number} count=3', name)


@cases_for(ENGINES)
def demo(engine):
    need(engine)
    r = ramet('demo', '--cow', engine, '--fork', '2', '--fill', '16', timeout=100)
    expect_equal((r.status, r.stderr), (0, ''), 'status')
    expect(r.stdout.splitlines()[-1].startswith('ok: 2 clones'), r.stdout)


@cases_for(ENGINES)
def generations_amidst_a_storm_of_writes(engine):
    """Clones of clones, made while two processors of each write: no page is torn. Warm machines
    are there for the first of them only."""
    need(engine)
    log = Events(tmp() / 'events')
    vm = start('run', '--cow', engine, '--kernel', guest('writer.elf'), '--cmdline', 'ms=2500 mib=1',
               '--name', 'web', '--cpus', '2', '--fork', '1', '--fork-at', 'after=0.1', '--events',
               log.path)
    log.wait('clone-running')
    for name in ('web.1', 'web', 'web.1.1'):
        expect_equal(ramet('fork', name, timeout=60).status, 0, f'status of fork {name}')
    expect_equal(vm.wait(100).status, 0, 'status')
    check_events(log, 'web')
    texts = said(vm.stdout)
    expect_equal(sorted(texts), ['web', 'web.1', 'web.1.1', 'web.1.1.1', 'web.2'], 'machines')
    for name, text in texts.items():
        expect(re.search(r'writer: rounds=\d+ errors=0$', text), f'{name}: {text}')


@case
def a_clone_has_the_engine_of_its_parent():
    """Seen from outside: a machine whose writes are trapped has a userfaultfd."""
    need('trap')
    for pool, engine in (('0', 'trap'), ('2', 'trap'), ('2', 'private')):
        log = Events(tmp() / f'events-{engine}-{pool}')
        vm = start('run', '--cow', engine, '--pool', pool, '--kernel', guest('hang.elf'), '--name', 'web',
                   '--fork', '2', '--fork-at', 'after=0.1', '--events', log.path)
        log.wait('clone-running', count=2)
        expect_equal(ramet('fork', 'web.2', timeout=60).status, 0, 'status of fork')
        log.wait('clone-running', count=3)
        pids = log.pids()
        expect_equal(sorted(pids), ['web', 'web.1', 'web.2', 'web.2.1'], 'machines')
        for name, pid in pids.items():
            names = [os.readlink(f'/proc/{pid}/fd/{fd}') for fd in os.listdir(f'/proc/{pid}/fd')]
            expect_equal(any('userfaultfd' in n for n in names), engine == 'trap', f'{name}: {names}')
        expect_equal(ramet('kill', 'web').status, 0, 'status of kill')
        for name in ('web.1', 'web.2', 'web.2.1'):
            ramet('kill', name)
        vm.wait(30)


@cases_for([('run', '--kernel', 'GUEST'), ('demo',)])
def no_userfaultfd(words):
    """As root, but without what a userfaultfd needs."""
    need_kvm()
    if os.geteuid() != 0 or not shutil.which('setpriv') or not shutil.which('unshare'):
        skip('needs root, setpriv and unshare')
    if open('/proc/sys/vm/unprivileged_userfaultfd', encoding='ascii').read().strip() == '1':
        skip('anybody may have a userfaultfd here')
    words = [guest('hang.elf') if word == 'GUEST' else word for word in words]
    hide = '[ ! -e /dev/userfaultfd ] || mount --bind /dev/null /dev/userfaultfd; '
    drop = 'exec setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace -- "$@"'
    command = os.path.abspath(os.environ.get('RAMET', 'ramet'))
    r = Process(['unshare', '-m', 'sh', '-c', hide + drop, 'sh', command, *words, '--cow', 'trap']).wait(30)
    expect_error(r, HOST, 'cow engine trap', 'CAP_SYS_PTRACE', 'use cow engine private')


main()
