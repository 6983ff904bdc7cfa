# SPDX-License-Identifier: Apache-2.0
"""The test runner's own counting: what each kind of ending of a test program is worth."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS / 'integration')]

import tap_results as results
from tap import case, expect_equal, expect_in, main


def program(stdout='', protocol='tap', result='OK', returncode=0, stderr=''):
    record = {'result': result, 'returncode': returncode, 'stdout': stdout, 'stderr': stderr,
              'duration': 3.0}
    return results.program_cases('guest', 'forks', record, protocol)


def outcome(cases):
    return [(c.case, c.result) for c in cases]


@case
def each_tap_line_is_a_case():
    cases = program('1..3\nok 1 - one # 12 ms\nnot ok 2 - two\n# why\n# more\n'
                    'ok 3 - three # SKIP no KVM\n', result='FAIL', returncode=1)
    expect_equal(outcome(cases), [('one', 'pass'), ('two', 'fail'), ('three', 'skip')])
    expect_equal(cases[1].detail, ['why', 'more'])
    expect_equal(cases[2].reason, 'no KVM')
    expect_equal(results.counts_line(cases), '1 passed, 1 failed, 1 skipped')


@case
def skip_as_cmocka_writes_it():
    cases = program('1..2\nok 1 - a\nnot ok 2 # SKIP b\n', result='FAIL')
    expect_equal(outcome(cases), [('a', 'pass'), ('b', 'skip')])


@case
def skipped_as_a_whole():
    cases = program('1..0 # SKIP /dev/kvm: Permission denied\n', result='SKIP')
    expect_equal(outcome(cases), [('*', 'skip')])
    expect_equal(cases[0].reason, '/dev/kvm: Permission denied')
    for cases in (program(returncode=77, result='ERROR', stderr='no KVM\n'),
                  program(protocol='exitcode', returncode=77, result='SKIP')):
        expect_equal(outcome(cases), [('*', 'skip')])


@case
def silence_is_a_failure():
    expect_equal(outcome(program('', result='SKIP')), [('(plan)', 'fail')])
    expect_equal(outcome(program('hello\n', result='SKIP')), [('(plan)', 'fail')])


@case
def dying_is_a_failure():
    cases = program('1..3\nok 1 - a\n', result='ERROR', returncode=-11, stderr='boom')
    expect_equal(outcome(cases), [('a', 'pass'), ('(exit)', 'fail')])
    expect_equal(cases[1].reason, 'killed by SIGSEGV')
    expect_equal(cases[1].detail, ['boom'])
    cases = program('1..1\nok 1 - a\n', result='ERROR', returncode=134)
    expect_equal(cases[1].reason, 'killed by SIGABRT')


@case
def dying_after_a_failed_case_is_one_more():
    cases = program('1..3\nnot ok 1 - a\n', result='ERROR', returncode=-6)
    expect_equal(outcome(cases), [('a', 'fail'), ('(exit)', 'fail')])


@case
def status_without_a_failed_case_is_a_failure():
    cases = program('1..1\nok 1 - a\n', result='ERROR', returncode=23, stderr='LeakSanitizer')
    expect_equal(outcome(cases), [('a', 'pass'), ('(exit)', 'fail')])


@case
def timeout_is_a_failure():
    cases = program('1..2\nok 1 - a\n', result='TIMEOUT', returncode=-15)
    expect_equal(outcome(cases), [('a', 'pass'), ('(timeout)', 'fail')])
    expect_equal(cases[1].reason, 'stopped after 3 s')
    expect_equal(outcome(program(protocol='exitcode', result='TIMEOUT', returncode=-9)),
                 [('(timeout)', 'fail')])


@case
def plan_must_be_kept():
    for text in ('1..3\nok 1 - a\nok 2 - b\n', '1..1\nok 1 - a\nok 2 - b\n', 'ok 1 - a\nok 2 - b\n',
                 '1..2\nok 1 - a\nok 3 - b\n', '1..2\n1..2\nok 1 - a\nok 2 - b\n'):
        expect_equal(outcome(program(text)), [('a', 'pass'), ('b', 'pass'), ('(plan)', 'fail')])
    expect_in('3 planned, 1 ran', program('1..3\nok 1 - a\n')[1].reason)
    expect_equal(outcome(program('1..1\nok 1 - a\nBail out! no disk\n'))[1], ('(plan)', 'fail'))


@case
def plan_may_come_last():
    expect_equal(outcome(program('ok 1 - a\n1..1\n')), [('a', 'pass')])


@case
def plain_programs_are_one_case():
    expect_equal(outcome(program(protocol='exitcode')), [('*', 'pass')])
    cases = program('x\nassertion failed\n', protocol='exitcode', result='FAIL', returncode=1)
    expect_equal(outcome(cases), [('*', 'fail')])
    expect_equal(cases[0].detail, ['x', 'assertion failed'])


@case
def a_test_without_a_record_failed():
    log = ['{"name": "ramet:unit / a", "result": "OK", "returncode": 0,'
           ' "stdout": "1..1\\nok 1 - x\\n"}']
    cases = results.log_cases({'a': ('unit', 'tap'), 'b': ('unit', 'tap')}, log)
    expect_equal([(c.key, c.result) for c in cases],
                 [('unit/a/x', 'pass'), ('unit/b/(exit)', 'fail')])


@case
def skips_must_be_on_the_list():
    text = ('# comment\n\nguest/forks/two words  the reason\n'
            'guest/clock/*  TSC writes have no effect\n')
    allowed = results.parse_allowed(text)
    expect_equal(allowed, ['guest/forks/two words', 'guest/clock/*'])
    cases = [results.Case('guest', test, name, 'skip', 'why') for test, name in
             (('forks', 'two words'), ('clock', 'any'), ('forks', 'other'))]
    results.refuse_skips(cases, allowed)
    expect_equal([c.result for c in cases], ['skip', 'skip', 'fail'])
    expect_in('why', cases[2].reason)


main()
