# SPDX-License-Identifier: Apache-2.0
"""What counts as a test that noticed a defect (tests/teeth.py), and that its table is right."""

import re
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / 'integration')]

import tap_results as results
from tap import case, expect, expect_equal, expect_in, main
from teeth import TEETH, Tooth, judge, stale_lines

TOOTH = Tooth('no-wait', 'prog', 'mine')


def verdict(stdout, result='FAIL', returncode=1, stderr=''):
    record = {'result': result, 'returncode': returncode, 'stdout': stdout, 'stderr': stderr,
              'duration': 3.0}
    return judge(TOOTH, results.program_cases('unit', 'prog', record, 'tap'), stdout)


@case
def a_failure_with_its_stale_value():
    for stdout in ('1..1\n# stale: saw 0xdead01 in slot 3\nnot ok 1 - mine\n# why\n',
                   '1..1\nnot ok 1 - mine\n# x.c:3: stale value 17 was read\n'):
        v = verdict(stdout)
        expect_equal(v.result, 'pass')
        expect_in('stale', v.detail[0])


@case
def a_pass_is_no_tooth():
    v = verdict('1..1\nok 1 - mine\n', 'OK', 0)
    expect_equal(v.result, 'fail')
    expect_in('does not notice', v.reason)


@case
def a_failure_for_another_reason():
    for stdout in ('1..1\nnot ok 1 - mine\n# 3 != 4\n',
                   '1..1\nnot ok 1 - mine\n# stale something\n',  # and what did it see?
                   '1..2\n# stale: saw 0x1\nnot ok 1 - other\nnot ok 2 - mine\n',
                   '1..2\nnot ok 1 - mine\n# stop\nnot ok 2 - other\n# stale 0x2\n'):
        v = verdict(stdout)
        expect_equal(v.result, 'fail')
        expect_in('no stale value', v.reason)


@case
def what_belongs_to_which_case():
    text = ('# stale 1\nok 1 - a\n# stale 2\n# stale 3\nnot ok 2 - b\n')
    expect_equal(stale_lines(text, 'a'), ['stale 1', 'stale 2', 'stale 3'])
    expect_equal(stale_lines(text, 'b'), ['stale 2', 'stale 3'])


@case
def a_crash_or_an_unknown_case():
    v = verdict('1..2\nok 1 - other\n', 'ERROR', -11)
    expect_equal(v.result, 'fail')
    expect_in('SIGSEGV', v.reason)
    v = verdict('1..1\nok 1 - other\n', 'OK', 0)
    expect_in('none of that name', v.reason)


@case
def a_skip_stays_one():
    v = verdict('1..1\nok 1 - mine # SKIP no KVM\n', 'OK', 0)
    expect_equal((v.result, v.reason), ('skip', 'no KVM'))


@case
def the_table_is_right():
    text = (TESTS.parent / 'meson_options.txt').read_text()
    choices = re.search(r"option\('tooth'.*?choices: \[(.*?)\]", text, re.S)[1]
    names = set(re.findall(r"'([^']+)'", choices)) - {'none'}
    expect_equal({t.name for t in TEETH}, names, 'teeth that are tried')
    header = (TESTS.parent / 'src/base/tooth.h').read_text()
    for name in names:
        expect('RAMET_TOOTH_' + name.upper().replace('-', '_') in header, name)


main()
