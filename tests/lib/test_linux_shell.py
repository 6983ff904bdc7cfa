#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The example with Linux: one boot, 20 tests of its shell. EXAMPLES is the directory of the programs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'integration'))

from tap import case, expect, expect_equal, expect_in, main, need_linux, tmp  # noqa: E402

PROGRAM = Path(os.environ['EXAMPLES']) / 'linux_shell'


@case
def says_what_it_wants():
    r = subprocess.run([PROGRAM], capture_output=True, text=True, check=False, timeout=20)
    expect_equal((r.returncode, r.stderr),
                 (2, 'usage: linux_shell VMLINUX INITRAMFS [OPTION...]\n'), 'no guest')


@case(timeout=600)
def shell_tests_pass():
    kernel, initramfs = need_linux()
    junit = tmp() / 'junit.xml'
    r = subprocess.run([PROGRAM, kernel, initramfs, '--jobs', '2', '--timeout', '120', '--junit',
                        junit], capture_output=True, text=True, check=False, timeout=580)
    expect_equal(r.stderr, '', 'stderr')
    passed = set(re.findall(r'^ok \d+ - (\w+) # ', r.stdout, re.M))
    expect_equal((r.returncode, len(passed)), (0, 20), f'status, cases that passed:\n{r.stdout}')
    expect_in('# 20 passed, 0 failed, 0 skipped; boot ', r.stdout)
    expect_equal(set(re.findall(r'<testcase [^>]*\bname="(\w+)"', junit.read_text())), passed,
                 'the JUnit report')
    expect('1..20' in r.stdout.splitlines(), 'the plan')


main()
