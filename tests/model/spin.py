# SPDX-License-Identifier: Apache-2.0
"""Runs spin on the model: from options to a verdict."""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
MEMORY_MB = 1500
DEPTH = 500000
# What makes a search less than a proof, whatever it found.
INCOMPLETE = ('max search depth too small', 'Search not completed', 'out of memory', 'truncated',
              'memory limit', 'hash table full', 'Bit statespace')


class SpinError(Exception):
    """spin or the compiler refused; the message is what they said."""


@dataclass
class Verdict:
    errors: int
    kind: str        # 'assertion violated', 'invalid end state', 'acceptance cycle', or ''
    states: int
    seconds: float
    incomplete: str  # why this is no proof, or ''
    output: str


def run(command, directory, timeout=900):
    try:
        return subprocess.run([str(c) for c in command], cwd=directory, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SpinError(f'{command[0]}: no end after {timeout} s') from None


def build(directory, options, cflags=('-O1',)):
    """A verifier of the model with these -D options, in @directory."""
    for source in HERE.glob('*.pml'):
        shutil.copy(source, directory)
    done = run(['spin', '-a', *(f'-D{o}' for o in options), 'sync.pml'], directory)
    # spin prints its errors, leaves no verifier or half of one, and may exit with 0 all the same.
    if done.returncode or 'rror' in done.stdout or not (directory / 'pan.c').exists():
        raise SpinError(done.stdout)
    done = run(['gcc', '-w', *cflags, f'-DMEMLIM={MEMORY_MB}', '-o', 'pan', 'pan.c'], directory)
    if done.returncode:
        raise SpinError(done.stdout)
    return directory / 'pan'


def verify(directory, options, progress=False, quick=False):
    """Search all states. With @progress the LTL claim under weak fairness, else assertions and
    end states. @quick compiles faster and searches more slowly."""
    cflags = ['-O0' if quick else '-O2', '-DCOLLAPSE']
    cflags += ['-DNFAIR=3'] if progress else ['-DSAFETY', '-DNOFAIR']
    pan = build(directory, [*options, 'PROGRESS'] if progress else options, cflags)
    start = time.monotonic()
    done = run([pan, f'-m{DEPTH}', *(['-a', '-f'] if progress else [])], directory)
    return judge(done.stdout, time.monotonic() - start)


def judge(output, seconds=0.0):
    errors = re.search(r'errors: (\d+)', output)
    states = re.search(r'^\s*([\d.e+]+) states, stored', output, re.M)
    kind = re.search(r'^pan:\d+: (assertion violated|invalid end state|acceptance cycle)', output,
                     re.M)
    incomplete = next((w for w in INCOMPLETE if w in output), '')
    if not errors or not states:
        incomplete = 'it printed no result'
    return Verdict(int(errors[1]) if errors else -1, kind[1] if kind else '',
                   int(float(states[1])) if states else 0, seconds, incomplete, output)
