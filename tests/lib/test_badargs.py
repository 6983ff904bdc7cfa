# SPDX-License-Identifier: Apache-2.0
"""Bad arguments to every public function: each pointer NULL, each size that a struct begins with
too small, too large, or with something behind it that nobody knows, numbers and enums out of range,
machines in every state. No call may crash; each must say -EINVAL, or what its comment says, and why
in words. badargs_gen.py makes the calls; the tables in it say what is different, and why.

BADARGS is the program.
"""

import functools
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'integration'))
import tap  # noqa: E402
import badargs_gen  # noqa: E402
import headers  # noqa: E402

BADARGS = os.environ['BADARGS']
CHUNK = 50  # rows for one run of the program

wrong = {}  # function -> lines
tried = {}  # function -> how many rows


def run(first, last, rows):
    """Rows from @first up to @last, in as many processes as it takes: [(function, what is wrong)]"""
    found = []
    while first < last:
        done = subprocess.run([BADARGS, str(first), str(last)], capture_output=True, text=True,
                              errors='replace', stdin=subprocess.DEVNULL, check=False)
        reached = first - 1
        for line in done.stdout.splitlines():
            if re.match(r'\d+ ramet_', line):
                reached = int(line.split()[0])
            elif line.startswith('bad: '):
                found.append((rows[reached].name, f'{rows[reached].what}: {line[5:]}'))
        if done.returncode == 0:
            break
        if reached < first:
            raise tap.Failure(f'it did not start: {done.stderr[-1000:]}')
        if not found or not done.stdout.splitlines()[-1].startswith('bad: '):
            how = signal.Signals(-done.returncode).name if done.returncode < 0 else done.returncode
            if how == 'SIGALRM':
                how = 'it took too long'
            found.append((rows[reached].name, f'{rows[reached].what}: {how}\n{done.stderr[:2000]}'))
        first = reached + 1
    return found


class Row:
    def __init__(self, f, what):
        self.name, self.what = f.name, what


@tap.case(timeout=400)
def every_call_was_made():
    tap.need_kvm()
    rows = [Row(f, what) for f, what, *_ in badargs_gen.rows()]
    starts = range(0, len(rows), CHUNK)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda at: run(at, min(at + CHUNK, len(rows)), rows), starts):
            for name, what in found:
                wrong.setdefault(name, []).append(what)
    for row in rows:
        tried[row.name] = tried.get(row.name, 0) + 1
    print(f'# {len(rows)} calls')


def look(name):
    tap.need_kvm()
    tap.expect(not wrong.get(name), '\n'.join(wrong.get(name, [])))
    tap.expect(name in tried or not headers.functions()[name].params or
               name in badargs_gen.LEFT_OUT, 'no bad argument was tried')


for function in headers.functions():
    tap.case(functools.partial(look, function), name=function, looks_only=True)

tap.main()
