#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each example is under 150 lines, does what its opening comment says, and says so when it cannot.

EXAMPLES is the directory of the programs; the guests are in guest/ below it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'integration'))

from tap import case, expect, expect_equal, expect_in, main, need_kvm  # noqa: E402

EXAMPLES = Path(os.environ['EXAMPLES'])


def run(name, *args, timeout=100):
    return subprocess.run([EXAMPLES / name, *args], timeout=timeout, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def guest(name):
    return EXAMPLES / 'guest' / f'{name}.elf'


@case
def examples_are_short():
    for source in (HERE.parent.parent / 'examples').glob('*.c'):
        lines = source.read_text().splitlines()
        expect(len(lines) < 150, f'{source.name}: {len(lines)} lines')
        expect_equal(lines[1], '/*', f'{source.name}: what it shows stands at the top')


@case
def tree_search_finds_the_goal():
    need_kvm()
    r = run('tree_search', guest('choices'))
    expect_equal(r.stderr, '', 'stderr')
    expect_equal(r.returncode, 0, 'status')
    lines = r.stdout.splitlines()
    expect_in('squared, mod 1009: 700', r.stdout)
    expect_equal(len(lines), 62, 'the tree, and the last line')
    expect_equal(lines[-1], '61 machines; start, + 7, + 7, squared, mod 1009, * 2, squared, '
                            'mod 1009, + 7', 'the moves')
    expect_equal(sum('<-- the goal' in line for line in lines), 1, 'goals')


@case
def tree_search_says_what_is_wrong():
    r = run('tree_search')
    expect_equal((r.returncode, r.stderr), (2, 'usage: tree_search choices.elf\n'), 'no guest')
    need_kvm()
    r = run('tree_search', '/dev/null')
    expect_equal(r.returncode, 2, 'status')
    expect_in('/dev/null: ', r.stderr)


def results(text):
    """Names of the cases that have passed; the plan must hold."""
    plan = re.search(r'^1\.\.(\d+)$', text, re.M)
    expect(plan, f'no plan: {text}')
    passed = re.findall(r'^ok \d+ - (\w+) # [\d.]+ m?s, \d+ pages dirtied$', text, re.M)
    expect_equal(len(passed), int(plan[1]), f'cases that passed:\n{text}')
    return passed


@case
def kernel_tests_pass():
    need_kvm()
    for how in ('reset', 'clone'):
        r = run('kernel_tests', '--jobs', '2', '--isolation', how)
        expect_equal(r.stderr, '', 'stderr')
        passed = results(r.stdout)
        expect_equal((r.returncode, len(set(passed))), (0, 50), 'status, different cases')
        expect_in('# 50 passed, 0 failed, 0 skipped; boot ', r.stdout)


@case
def kernel_tests_boot_once():
    """All that a case does is forgotten: they pass in any order, and each alone."""
    need_kvm()
    ruin = ['heap_used_up', 'heap_sees_damage', 'hang_is_ended_by_a_limit', 'triple_fault']
    for name in ruin:
        r = run('kernel_tests', '--jobs', '1', name, 'file_is_read_back', 'heap_rounds_up')
        expect_equal(sorted(results(r.stdout)),
                     sorted([name, 'file_is_read_back', 'heap_rounds_up']), 'cases')


main()
