# SPDX-License-Identifier: Apache-2.0
"""A test program made of RAMET_GUEST, RAMET_CASE and RAMET_MAIN: its TAP, options and JUnit."""

import os
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

from tap import case, expect, expect_equal, expect_in, main, need_kvm, tmp

PROGRAM = os.environ['HARNESS_PROGRAM']
NAMES = ['is_first', 'exits_with_5', 'crashes', 'hangs', 'prints_controls', 'is_skipped', 'is_last']


def run(*args, status, **env):
    r = subprocess.run([PROGRAM, *map(str, args)], stdin=subprocess.DEVNULL, timeout=60,
                       capture_output=True, text=True, env=os.environ | env, check=False)
    if r.returncode != status:
        raise AssertionError(f'status {r.returncode}, expected {status}\n{r.stdout}{r.stderr}')
    return r


def result_lines(text):
    return [line for line in text.splitlines() if re.match(r'(not )?ok ', line)]


@case
def tap_is_in_the_order_of_the_source():
    need_kvm()
    out = run('--jobs', 3, status=1).stdout
    expect_equal(out.splitlines()[0], '1..7', 'plan')
    lines = result_lines(out)
    expect_equal([line.split(' # ')[0].removeprefix('not ') for line in lines],
                 [f'ok {i} - {name}' for i, name in enumerate(NAMES, 1)], 'results')
    expect_equal([line.startswith('ok') for line in lines],
                 [True, True, False, False, False, True, True], 'outcomes')
    expect(re.search(r' # \d+\.\d+ ms, \d+ pages dirtied$', lines[0]), lines[0])
    expect(re.search(r' # guest triple fault, vCPU 0 at 0x[0-9a-f]+ parse_header$', lines[2]), lines[2])
    expect_in(' # timed out after 200.0 ms, vCPU 0 at 0x', lines[3])
    expect(re.search(r'harness_program\.c:\d+: 1 \+ 1 == 3$', lines[4]), lines[4])
    expect_in(' # SKIP not written', lines[5])
    for line in out.splitlines():
        expect(re.match(r'1\.\.7$|(not )?ok |#', line), f'not TAP: {line!r}')
    expect_in('#   seed <7> & \\x01\n', out)
    expect_in('#     ]]> <b>\\x1b[31m\\xff\n', out)
    expect(re.search(r'^# 3 passed, 3 failed, 1 skipped; boot .*, 3 at a time$', out, re.M), out)


@case
def junit_is_xml():
    need_kvm()
    path = tmp() / 'report.xml'
    run(f'--junit={path}', '--isolation', 'clone', status=1)
    suite = ET.parse(path).getroot().find('testsuite')
    expect_equal((suite.get('tests'), suite.get('failures'), suite.get('skipped')), ('7', '3', '1'),
                 'counts')
    expect_equal(suite.get('name'), os.path.basename(PROGRAM), 'name')
    cases = {c.get('name'): c for c in suite.findall('testcase')}
    expect_equal(list(cases), NAMES, 'cases')
    expect(cases['is_first'].find('failure') is None, 'a failure where there is none')
    expect(float(cases['hangs'].get('time')) >= 0.2, 'time')
    crash = cases['crashes'].find('failure')
    expect_in('guest triple fault', crash.get('message'))
    expect_in('seed <7> & \\x01', crash.text)
    expect_in('parse_message+0x', crash.text)
    expect_equal(cases['is_skipped'].find('skipped').get('message'), 'not written', 'skipped')
    expect_in(']]> <b>\\x1b[31m\\xff', cases['prints_controls'].find('system-out').text)
    expect_in('harness_program.c', cases['crashes'].get('file'))


@case
def list_prints_names():
    expect_equal(run('--list', status=0).stdout.splitlines(), NAMES, 'names')
    expect_equal(run('--list', 'is_*', status=0).stdout.splitlines(),
                 ['is_first', 'is_skipped', 'is_last'], 'names of a glob')
    expect_equal(run('--list', '-k', 'hangs', '-k', 'crash*', status=0).stdout.splitlines(),
                 ['crashes', 'hangs'], 'names of two globs')


@case
def globs_choose_cases():
    need_kvm()
    out = run('is_first', 'is_last', status=0).stdout
    expect_equal([line.split(' # ')[0] for line in result_lines(out)],
                 ['ok 1 - is_first', 'ok 2 - is_last'], 'results')
    expect_in('dirtied', out)
    expect('dirtied' not in run('is_first', '--no-dirty', status=0).stdout, 'pages were counted')
    expect_in(', 1 at a time', run('is_*', status=0, RAMET_JOBS='1').stdout)
    expect_in(', 2 at a time', run('is_*', '--jobs=2', status=0, RAMET_JOBS='1').stdout)


@case
def the_default_time_out_is_an_option():
    need_kvm()
    out = run('hangs', '--timeout', 7, status=1).stdout
    expect_in('timed out after 200.0 ms', out)  # its own goes first


@case
def help_and_version():
    text = run('--help', status=0).stdout
    for option in ('--list', '--jobs N', '--isolation HOW', '--timeout SECONDS', '--junit FILE', '-k GLOB'):
        expect_in(option, text)
    expect(max(map(len, text.splitlines())) <= 90, 'a line is too long')
    expect_in('libramet ', run('--version', status=0).stdout)


@case
def bad_options_are_one_line():
    for args, word in ((['--no-such'], '--no-such'), (['--jobs', 'x'], '--jobs x'), (['--jobs'], '--jobs'),
                       (['--jobs=0'], 'from 1 to 256'), (['--isolation', 'none'], 'reset or clone'),
                       (['--timeout', '-1'], '--timeout'), (['--list=x'], '--list'), (['-x'], '-x'),
                       (['no_such_case'], 'no case matches no_such_case')):
        r = run(*args, status=2)
        expect_equal(r.stdout, '', 'standard output')
        expect_equal(len(r.stderr.splitlines()), 1, r.stderr)
        expect(r.stderr.startswith(os.path.basename(PROGRAM) + ': '), r.stderr)
        expect_in(word, r.stderr)
    expect_in('RAMET_JOBS', run('--list', status=2, RAMET_JOBS='many').stderr)


@case
def a_guest_that_is_not_there_is_exit_2():
    need_kvm()
    copy = tmp() / 'program'
    with open(PROGRAM, 'rb') as f:
        copy.write_bytes(f.read().replace(b'subject.elf\0', b'missing.elf\0'))
    copy.chmod(0o755)
    r = subprocess.run([copy], capture_output=True, text=True, timeout=60, check=False,
                       env=os.environ | {'LD_LIBRARY_PATH': str(Path(PROGRAM).parents[2])})
    expect_equal(r.returncode, 2, r.stdout + r.stderr)
    expect_in('Bail out! ', r.stdout)
    expect_in('missing.elf', r.stderr)


main()
