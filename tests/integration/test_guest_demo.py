# SPDX-License-Identifier: Apache-2.0
"""`ramet demo` forks its built-in guest, proves what it says, and lets its exit status depend on
the proof."""

import re

from tap import case, cases_for, expect, expect_equal, expect_in, main, need_kvm, ramet, tmp

from facts import Events, check_fork

COLUMNS = ['clone', 'pid', 'first exit', 'shared', 'private', 'sees parent', 'own writes', 'status']


def demo(clones, *args):
    """A demo that must succeed: its rows by machine, its output, and its events."""
    log = Events(tmp() / 'events')
    r = ramet('demo', '--events', log.path, *args, timeout=100)
    expect_equal((r.status, r.stderr), (0, ''), 'status')
    names = ['demo', *check_fork(log, 'demo', clones)]
    lines = r.stdout.splitlines()
    head = [i for i, line in enumerate(lines) if line.startswith('clone ')]
    expect_equal(len(head), 1, 'tables')
    expect_equal(re.split(r' {2,}', lines[head[0]]), COLUMNS, 'columns')
    rows = [re.split(r' {2,}', line) for line in lines[head[0] + 1:head[0] + 2 + clones]]
    expect_equal([row[0] for row in rows], names, 'machines')
    for name, row in zip(names, rows):
        expect_equal(row[1], str(log.pids()[name]), f'pid of {name}')
        expect_equal(row[5:], ['-' if name == 'demo' else 'ok', 'ok', '0'], f'verdict on {name}')
    expect(lines[-1].startswith(f'ok: {clones} clone'), f'last line: {lines[-1]!r}')
    return rows, r.stdout, log


@case
def demo_with_four_clones():
    need_kvm()
    rows, text, log = demo(4, '--fork', '4')
    expect_in('2 vCPUs', text)
    expect_in('64 MiB', text)
    expect_in('nothing copied (generation 1)', text)
    expect_equal(len(log.of('clone-running')), 4, 'clone-running events')
    expect_equal({e['how'] for e in log.of('clone-running')}, {'doorbell'}, 'first exits')
    expect_equal(log.one('freeze')['vcpus'], 2, 'processors')


@case
def demo_as_it_comes():
    """What a newcomer types first."""
    need_kvm()
    demo(4)


@cases_for([1, 4])
def demo_on_processors(cpus):
    need_kvm()
    _, text, log = demo(2, '--cpus', str(cpus), '--fork', '2', '--fill', '16')
    expect_in('1 vCPU,' if cpus == 1 else f'{cpus} vCPUs', text)
    expect_equal(log.one('freeze')['vcpus'], cpus, 'processors')


@case
def demo_with_one_clone():
    need_kvm()
    _, text, _ = demo(1, '--fork', '1', '--fill', '16')
    expect_in('1 clone', text)


@case
def demo_with_twelve_clones():
    need_kvm()
    demo(12, '--fork', '12', '--fill', '8')


@case
def demo_fills_what_it_is_told():
    need_kvm()
    rows, text, log = demo(2, '--fork', '2', '--fill', '16', '--memory', '64M')
    expect_in('16 MiB', text)
    end = log.one('exit', 'demo.1')
    expect(end['private_bytes'] < 8 << 20, f'a clone made {end["private_bytes"]} bytes its own')
    expect(end['shared_bytes'] > 48 << 20, f'a clone shares {end["shared_bytes"]} bytes')


@case
def demo_is_repeated_by_its_seed():
    need_kvm()
    seeds = set()
    for _ in range(2):
        _, text, _ = demo(1, '--fork', '1', '--fill', '4')
        seeds.add(re.search(r'seed ([0-9a-f]+)$', text, re.M)[1])
    expect_equal(len(seeds), 2, 'seeds of two runs')
    _, text, _ = demo(1, '--fork', '1', '--fill', '4', '--seed', '5eed')
    expect_in('seed 5eed\n', text)


main()
