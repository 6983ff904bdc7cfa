# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, and say what they measured; not how fast anything is."""

import json
import os
import subprocess
import sys

from tap import case, expect, expect_equal, expect_in, main, need_kvm, tmp

BENCH = os.environ['TEST_BENCH']
FIELDS = {'name', 'unit', 'n', 'median', 'p99', 'floor_median', 'floor_p99'}


def bench(*args):
    return subprocess.run([sys.executable, '-B', BENCH, *map(str, args)], capture_output=True,
                          text=True, timeout=100)


@case
def the_list_names_every_figure():
    text = bench('--list').stdout
    for name in ('cow-break-private', 'cow-break-trap', 'cow-break-rom', 'shootdown-1vcpu',
                 'shootdown-8vcpu', 'freeze-pause-128', 'freeze-pause-4096-small',
                 'freeze-clone-64', 'spawn-depth-16', 'rewrite-after-fork',
                 'spawn-warm-first-exit'):
        expect_in(name, text)


@case
def an_unknown_figure_is_refused_by_name():
    r = bench('--only', 'cow-break-privat')
    expect_equal(r.returncode, 1, 'status')
    expect_in('cow-break-privat', r.stderr)


@case
def figures_and_floors_are_written_down():
    need_kvm()
    path = tmp() / 'figures'
    names = ['shootdown-1vcpu', 'freeze-pause-128', 'freeze-clone-64', 'spawn-depth-4',
             'rewrite-after-fork', 'cow-break-private', 'cow-break-trap']
    r = bench('-n', 1, '--json', path, *[a for n in names for a in ('--only', n)])
    expect_equal(r.returncode, 0, f'status ({r.stdout}{r.stderr})')
    rows = {x['name']: x for x in json.loads(path.read_text())}
    expect_equal(sorted(rows), sorted(names), 'figures')
    for x in rows.values():
        expect_equal(set(x), FIELDS, x['name'])
        expect(0 < x['median'] <= x['p99'], f'{x}')
        expect(0 < x['floor_median'] <= x['floor_p99'], f'{x}')


main()
