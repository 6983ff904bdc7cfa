#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs of the documentation, as they are printed there: each builds, and does what the text says.

LIBRAMET is the directory of the library, EXAMPLES that of the examples, CC a compiler.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / 'tests/integration'))

from tap import case, expect, expect_equal, expect_in, main, need_kvm, tmp  # noqa: E402

LIBRARY = Path(os.environ['LIBRAMET'])
KERNEL = Path(os.environ['EXAMPLES']) / 'guest/kernel.elf'
FLAGS = ['-Wall', '-I', ROOT / 'include', '-L', LIBRARY, '-lramet', f'-Wl,-rpath,{LIBRARY}']


def blocks(page, language):
    found = re.findall(r'^```(\w*)\n(.*?)^```$', (ROOT / page).read_text(), re.M | re.S)
    return [text for word, text in found if word == language]


def shell(command, directory):
    return subprocess.run(['sh', '-ec', command], cwd=directory, text=True, check=False, timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def build(source, directory):
    """The program of @source, without a warning."""
    (directory / 'program.c').write_text(source)
    command = [*os.environ['CC'].split(), '-o', 'program', 'program.c', *FLAGS]
    r = shell(' '.join(map(str, command)), directory)
    expect_equal((r.returncode, r.stdout), (0, ''), 'compiler')
    return directory / 'program'


def cases(text):
    return re.findall(r'^(ok|not ok) \d+ - (\w+)', text, re.M)


@case
def program_of_the_readme():
    need_kvm()
    where = tmp()
    build(blocks('README.md', 'c')[0], where)
    shutil.copy(KERNEL, where / 'kernel.elf')
    r = shell('./program', where)
    expect_equal(r.returncode, 0, r.stdout)
    expect_equal(cases(r.stdout), [('ok', 'files_are_kept'), ('ok', 'double_free_is_noticed')],
                 'cases')


@case
def program_of_the_guide():
    need_kvm()
    where = tmp()
    build(blocks('docs/library.md', 'c')[0], where)
    r = shell(f'./program {KERNEL}', where)
    expect_equal(r.stdout, ''.join(f'{i}: debug exit, status 253\n' for i in range(3)), 'output')


@case
def steps_of_the_tutorial():
    """Its guest, two cases, then one after the other of those that the text adds."""
    need_kvm()
    where = tmp()
    guest, tests, *more = blocks('docs/tutorial.md', 'c')
    more = [m for m in more if m.startswith('RAMET_CASE')]
    (where / 'adder.c').write_text(guest)
    command = [b for b in blocks('docs/tutorial.md', '') if '-o adder.elf' in b]
    r = shell(command[0], where)
    expect_equal(r.returncode, 0, f'the guest: {r.stdout}')

    build(tests, where)
    r = shell('./program', where)
    expect_equal((r.returncode, cases(r.stdout)),
                 (0, [('ok', 'adds'), ('ok', 'begins_with_nothing')]), r.stdout)

    build(tests.replace('RAMET_MAIN()\n', ''.join(more) + 'RAMET_MAIN()\n'), where)
    r = shell('./program --junit results.xml', where)
    expect_equal((r.returncode, cases(r.stdout)),
                 (1, [('ok', 'adds'), ('ok', 'begins_with_nothing'),
                      ('not ok', 'average_of_nothing'), ('ok', 'sum_is_overwritten'),
                      ('not ok', 'waits_for_a_full_stop')]), r.stdout)
    for pattern in (r'guest triple fault, vCPU 0 at 0x\w+ average\+0x',
                    r'# +0x\w+ guest_main\+0x', r'timed out after 200.0 ms, vCPU 0 at 0x\w+ guest_main'):
        expect(re.search(pattern, r.stdout), f'{pattern}: {r.stdout}')
    expect_in('failures="2"', (where / 'results.xml').read_text())


main()
