#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run one fuzz target: the kept inputs, then new ones for a while. Prints TAP.

    run.py TARGET PROGRAM OUT            the test: crashes go to OUT/TARGET/crashes
    run.py --keep TARGET PROGRAM OUT     and the inputs found that reach new code to corpus/TARGET

RAMET_FUZZ_SECONDS (60) is the time for new inputs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
INPUT_BYTES = 4096  # the longest input
# len_control: how slowly inputs grow. A guest has to do many things before anything happens.
LIMITS = [f'-max_len={INPUT_BYTES}', '-len_control=20', '-timeout=10', '-rss_limit_mb=1500', '-malloc_limit_mb=300']
RUNS_MIN = 200  # fewer in all that time is a target that does not work
KEPT_FILES, KEPT_BYTES = 60, 100 << 10
FRAME = re.compile(r'#\d+ 0x[0-9a-f]+ in (\w+) .*?([\w./-]+\.[ch]:\d+)')


class Target:
    def __init__(self, name, program, out):
        self.name, self.program = name, Path(program).resolve()
        self.kept = HERE / 'corpus' / name
        self.out = Path(out).resolve() / name
        self.found = self.out / 'found'
        self.crashes = self.out / 'crashes'
        shutil.rmtree(self.found, ignore_errors=True)
        for directory in (self.kept, self.found, self.crashes):
            directory.mkdir(parents=True, exist_ok=True)

    def fuzz(self, *args, seconds):
        """(exit status, what it said, paths of inputs that it stored because they failed)"""
        env = os.environ | {
            'ASAN_OPTIONS': 'detect_stack_use_after_return=1:strict_string_checks=1:'
                            'quarantine_size_mb=32',
            'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1'}
        command = [self.program, *LIMITS, f'-artifact_prefix={self.crashes}/', *args]
        try:
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  env=env, timeout=seconds + 120, check=False, cwd=self.out)
            status, said = done.returncode, done.stderr
        except subprocess.TimeoutExpired as late:
            status, said = 'no end', late.stderr or b''
        said = said.decode(errors='replace')
        return status, said, [Path(p) for p in re.findall(r'Test unit written to (.*)', said)]


def explain(status, said, stored):
    """Lines for whoever has to look into it, the most telling first."""
    telling = [l for l in said.splitlines()
               if re.search(r'ERROR: |SUMMARY: |runtime error|Assertion', l)
               or re.match(r'\S+\.[ch]:\d+: ', l)]
    frames = [f'  {m[1]} {m[2]}' for m in FRAME.finditer(said) if '/compiler-rt/' not in m[0]]
    lines = [f'exit status {status}', *telling[:3], *frames[:6]]
    for path in stored[:2]:
        data = path.read_bytes()
        lines += [f'input: {path}', f'input in hex, {len(data)} bytes: {data.hex()}']
    return lines if telling or stored else lines + said.splitlines()[-5:]


def report(number, name, result, notes=()):
    status, said, stored = result
    failed = status != 0 or stored
    print(f'{"not ok" if failed else "ok"} {number} - {name}')
    for line in explain(status, said, stored) if failed else notes:
        print(f'# {line}')
    sys.stdout.flush()
    return not failed


def statistics(said):
    runs = re.search(r'stat::number_of_executed_units:\s*(\d+)', said)
    covers = re.findall(r' cov: (\d+)', said)
    return int(runs[1]) if runs else 0, covers[-1] if covers else '?'


def keep(target):
    """The fewest inputs that reach all code that is reached."""
    with tempfile.TemporaryDirectory() as merged:
        # Without counters: which code is reached counts, not how often.
        result = target.fuzz('-set_cover_merge=1', '-use_counters=0', merged, target.kept, target.found,
                             seconds=300)
        if not report(1, 'merge', result):
            return 1
        files = sorted(Path(merged).iterdir(), key=lambda f: (-f.stat().st_size, f.name))
        for old in target.kept.iterdir():
            old.unlink()
        total = 0
        for file in files[:KEPT_FILES]:
            total += file.stat().st_size
            if total <= KEPT_BYTES:
                shutil.copyfile(file, target.kept / file.name)
    print(f'# {len(list(target.kept.iterdir()))} of {len(files)} inputs kept')
    return 0


def main(args):
    keeping = args[0] == '--keep'
    target = Target(*args[keeping:])
    seconds = int(os.environ.get('RAMET_FUZZ_SECONDS') or 60)

    print('1..1' if keeping else '1..2', flush=True)
    if not keeping:
        kept = sorted(target.kept.iterdir())
        report(1, 'kept inputs', target.fuzz('-runs=0', target.kept, seconds=60),
               [f'{len(kept)} inputs'])
    status, said, stored = target.fuzz(f'-max_total_time={seconds}', '-print_final_stats=1',
                                       target.found, target.kept, seconds=seconds)
    if keeping:
        return keep(target) if status == 0 else 1
    runs, cover = statistics(said)
    if status == 0 and runs < RUNS_MIN:
        status, said = 'right, but', f'ERROR: only {runs} inputs were tried'
    report(2, 'new inputs', (status, said, stored),
           [f'{runs} inputs in {seconds} s, {cover} edges of code reached'])
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
