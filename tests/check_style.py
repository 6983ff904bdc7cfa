#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Formatting and style of every tracked file, and what the documentation says of the sources, as
TAP: `./dev lint`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import check_docs

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {'.c', '.h', '.S', '.ld', '.py', '.sh', '.pml'}
NAMED = {'meson.build', 'meson_options.txt', 'dev', 'run'}  # sources without a telling suffix
LINES_MAX = 800
# Paths of somebody's machine. Written so that this line does not match itself.
MACHINE_PATH = re.compile(r'(?<![\w.$}~])/(?:wor[k]/|hom[e]/[a-z]|tmp/(?:w[t]-|bas[h]_jobs))'
                          r'|\.\./share[d]\b')


def tracked():
    """Tracked and new files, or, in a tree that git does not know, everything but builds."""
    git = subprocess.run(['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
                         cwd=ROOT, capture_output=True, text=True, check=False)
    if git.returncode == 0:
        names = [n for n in git.stdout.split('\0') if n]
    else:
        names = [str(p.relative_to(ROOT)) for p in ROOT.rglob('*')]
        names = [n for n in names if not n.startswith(('build', '.git/'))]
    return sorted(n for n in set(names) if (ROOT / n).is_file() and not (ROOT / n).is_symlink())


def text_of(name):
    try:
        return (ROOT / name).read_text()
    except UnicodeDecodeError:
        return None  # a binary: a golden file


def is_source(name):
    return Path(name).suffix in SOURCES or Path(name).name in NAMED


def format_problems(names):
    tool = next((t for t in ('clang-format-14', 'clang-format') if shutil.which(t)), None)
    if not tool:
        return ['clang-format is not installed']
    files = [n for n in names if n.endswith(('.c', '.h'))]
    done = subprocess.run([tool, '--dry-run', '--Werror', *files], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    wrong = sorted(set(re.findall(r'^([^\s:]+):\d+', done.stderr, re.M)))
    if done.returncode and not wrong:
        wrong = done.stderr.splitlines()
    return [f'{w} (./dev fmt)' for w in wrong]


def spdx_problems(names):
    return [n for n in names if is_source(n)
            and not any('SPDX-License-Identifier: ' in line
                        for line in (text_of(n) or '').splitlines()[:3])]


def length_problems(names):
    lengths = ((n, (text_of(n) or '').count('\n')) for n in names if is_source(n))
    return [f'{n}: {length} lines' for n, length in lengths if length > LINES_MAX]


def path_problems(names):
    found = []
    for name in names:
        for number, line in enumerate((text_of(name) or '').splitlines(), 1):
            match = MACHINE_PATH.search(line)
            if match:
                found.append(f'{name}:{number}: {match[0]}')
    return found


def main():
    checks = [('clang-format', format_problems), ('one SPDX line a file', spdx_problems),
              (f'no file over {LINES_MAX} lines', length_problems),
              ('no paths of a machine', path_problems), *check_docs.CHECKS]
    names, bad = tracked(), 0

    print(f'1..{len(checks)}')
    for number, (title, check) in enumerate(checks, 1):
        problems = check(names)
        bad += bool(problems)
        print(f'{"not ok" if problems else "ok"} {number} - {title}')
        for problem in problems[:40]:
            print(f'# {problem}')
    return 1 if bad else 0


if __name__ == '__main__':
    sys.exit(main())
