# SPDX-License-Identifier: Apache-2.0
"""The manual pages: well formed, and nothing that --help lists is missing from ramet(1).

What ramet_api(3) must have is checked by `./dev lint`.
"""

import re
import shutil
import subprocess
from pathlib import Path

from tap import case, expect, expect_in, main, ramet, skip

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / 'docs' / 'ramet.1'
PAGES = sorted((ROOT / 'docs').glob('*.[1-8]'))
COMMANDS = ('run', 'demo', 'list', 'pause', 'resume', 'kill', 'fork', 'overlay')


@case
def every_option_is_in_the_page():
    text = PAGE.read_text().replace('\\-', '-')
    named = {'--' + n for n in re.findall(r'\bFl -([a-z][a-z-]*)', text)}
    named |= {'--' + n for n in re.findall(r', -([a-z][a-z-]*)', text)}
    for command in COMMANDS:
        listed = set(re.findall(r'^ +(?:-\w, )?(--[a-z-]+)', ramet(command, '--help').stdout, re.M))
        expect('--help' in listed, f'{command} --help lists no options')
        expect(listed <= named, f'{command}: not in the page: {sorted(listed - named)}')


@case
def every_default_is_in_the_page():
    text = re.sub(r'^\.\w+ ?', '', PAGE.read_text().replace(' Ns Ar ', ''), flags=re.M)
    for command in ('run', 'demo'):
        words = ' '.join(ramet(command, '--help').stdout.split())
        for option, default in re.findall(r'(--[a-z-]+) [^()]*(?:\([^)]*\)[^()-]*)*\(default: (\S+)\)',
                                          words):
            expect_in(default, text, f'default of {command} {option}')


@case
def every_command_is_in_the_page():
    text = PAGE.read_text()
    for command in COMMANDS:
        expect_in(f'Cm {command}', text, 'the page')


@case
def pages_are_well_formed():
    expect(len(PAGES) >= 3, f'pages: {PAGES}')
    if shutil.which('mandoc'):
        done = subprocess.run(['mandoc', '-Tlint', '-Wwarning', *PAGES], capture_output=True,
                              text=True, check=False)
        expect(done.returncode == 0, done.stdout)
    elif shutil.which('man'):
        for page in PAGES:
            done = subprocess.run(['man', '--warnings', '-l', page], capture_output=True, text=True,
                                  check=False, env={'LC_ALL': 'C', 'MANPAGER': 'cat',
                                                    'PATH': '/usr/bin:/bin'})
            expect(done.stderr == '', done.stderr)
    else:
        skip('neither mandoc nor man is installed')


main()
