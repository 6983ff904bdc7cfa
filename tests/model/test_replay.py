#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Suite `model`: traces of src/sync are what the model can do, and corrupted ones are not.

TRACE_STRESS is the program that makes them. Each event is a transition of the model; the verifier is
built once and reads a trace when it runs.
"""

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import spin

SEEDS, EVENTS = (1, 2, 3, 4, 5), 4000
SOURCE = spin.HERE.parent.parent / 'src' / 'sync' / 'trace_events.h'
OPTIONS = ['REPLAY', 'NPART=3', 'NINIT=2', 'INIT0=1', 'INIT1=1', 'OWN=1', 'NPAGES=2', 'FIFO',
           'FIFO_SIZE=16', 'LEND', 'DEATH']
NUMBER = {n: int(v) for n, v in re.findall(r'#define EV_(\w+)\s+(\d+)', SOURCE.read_text())}
NAME = {v: n for n, v in NUMBER.items()}


class Failure(Exception):
    """A trace was not treated as it should be."""


def of(trace, *names):
    """Positions of these events, not among the first and the last ones."""
    numbers = {NUMBER[n] for n in names}
    found = [i for i in range(len(trace) // 10, len(trace) * 8 // 10) if trace[i][0] in numbers]
    if not found:
        raise Failure(f'no {names} in the trace')
    return found


# Events of participants, as such. The others are of those who initiate, whose numbers are others; but
# for LEFT_BUMP, which does not say whose it is.
USERS = {NUMBER[n] for n in (
    'JOIN', 'LEAVE', 'UNLIST', 'SET_ENTERED', 'ENTER_STOPPED', 'MARK_STOPPED', 'ENTER_GEN',
    'ENTER_STORE', 'ENTER_CHECK_STOPPED', 'ENTER_CHECK_GEN', 'TAKE_POSTED', 'TAKE', 'LEND_STORE',
    'LEND_STOPPED', 'LEND_GEN', 'LEND_COUNT', 'GUEST_BEGIN', 'GUEST_BACK', 'GUEST_END',
    'PENDING_REQUESTS', 'PENDING_STOPPED', 'PENDING_GEN', 'TEST_REQUEST', 'CLEAR_REQUEST',
    'TAKE_KICK', 'RUN', 'RUN_END', 'USE', 'LOOK_UP', 'USE_CACHED')}


def by(event):
    return None if event[0] == NUMBER['LEFT_BUMP'] else (event[0] in USERS, event[1])


def then(trace, at, *names):
    """Where the same one's next event is, of these if any are named; None: there is no more."""
    numbers = {NUMBER[n] for n in names}
    return next((i for i in range(at + 1, len(trace)) if by(trace[i]) == by(trace[at])
                 and (not numbers or trace[i][0] in numbers)), None)


# --- corruptions: each takes a trace and a source of randomness, and returns another trace ---
#
# Each must be illegal wherever it is made, since the threads may have met in any way: it leaves its
# thread with a next event that is not the next one of its program. So there has to be a next one.

def dropped(trace, rng):
    """An event without which its thread cannot have come to its next one. A death may come after
    any event, so the next one must not be that."""
    at = rng.choice([i for i in of(trace, 'ENTER_STORE', 'SET_ENTERED', 'BUMP', 'KICK_LOOK', 'SCAN',
                                   'READ_LEFT', 'GUEST_BEGIN', 'PENDING_GEN', 'TAKE', 'POST',
                                   'LEND_GEN', 'RESUME', 'KICK')
                     if needed(trace, i)])
    return trace[:at] + trace[at + 1:]


def needed(trace, at):
    """`left` is read before each look at everyone that may end in sleep; but before the first one
    there are other looks, any number of them. So it is needed where a sleep is prepared."""
    following = then(trace, at)
    if trace[at][0] == NUMBER['READ_LEFT']:
        while following is not None and trace[following][0] in (NUMBER['SCAN_LENT'], NUMBER['SCAN']):
            following = then(trace, following)
        return following is not None and trace[following][0] == NUMBER['AWAIT']
    return following is not None and trace[following][0] != NUMBER['LEAVE']


def swapped(trace, rng):
    """A participant looks at `stopped` before it stores `entered`."""
    at = rng.choice([i for i in of(trace, 'ENTER_STORE') if then(trace, i)])
    look = then(trace, at)
    trace = list(trace)
    trace[at], trace[look] = trace[look], trace[at]
    return trace


def kick_before_bump(trace, rng):
    at = rng.choice([i for i in of(trace, 'BUMP') if then(trace, i)])
    look = then(trace, at)
    return trace[:at] + trace[at + 1:look + 1] + [trace[at]] + trace[look + 1:]


def wrong_generation(trace, rng):
    at = rng.choice(of(trace, 'ENTER_GEN', 'ENTER_CHECK_GEN', 'BUMP', 'ENTER_STORE'))
    event = trace[at]
    return trace[:at] + [(*event[:3], event[3] - 1)] + trace[at + 1:]


def exit_missing(trace, rng):
    """All that one vCPU records from its exit until it is inside again: it takes what was posted
    without having entered. If there is one, an exit that nobody else's events tell of."""
    me, as_initiator, bump = (True, 0), (False, 2), None
    pieces = [(i, then(trace, i, 'TAKE_POSTED')) for i in of(trace, 'SET_ENTERED')
              if by(trace[i]) == me and trace[i][3] < 2]
    pieces = [(i, end) for i, end in pieces if end]
    alone = [(i, end) for i, end in pieces
             if not {as_initiator, bump} & {by(e) for e in trace[i:end]}]
    at, end = rng.choice(alone or pieces)
    return trace[:at] + [e for e in trace[at:end] if by(e) != me] + trace[end:]


def use_after_flush(trace, rng):
    """Of a page that a completed flush has freed."""
    at = rng.choice(of(trace, 'FREE'))
    _, _, page, version = trace[at]
    return trace[:at + 1] + [(NUMBER['USE_CACHED'], 0, page, version)] + trace[at + 1:]


CORRUPTIONS = (dropped, swapped, kick_before_bump, wrong_generation, exit_missing, use_after_flush)


# --- replaying ---

def record(seed):
    done = subprocess.run([os.environ['TRACE_STRESS'], str(seed), str(EVENTS)], timeout=60,
                          stdout=subprocess.PIPE, text=True, check=True)
    trace = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    if len(trace) != EVENTS:
        raise Failure(f'{len(trace)} events, not {EVENTS}')
    return trace


def replay(pan, trace):
    """(accepted, what the verifier said)"""
    path = pan.parent / 'trace'
    path.write_text(''.join(f'{" ".join(map(str, e))}\n' for e in trace))
    # -E: a trace that ends in the middle is no deadlock.
    done = subprocess.run([str(pan), '-E', f'-m{spin.DEPTH}'], cwd=pan.parent, timeout=120,
                          env=os.environ | {'RAMET_TRACE': str(path)}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, check=False)
    accepted = f'accepted: {len(trace)} events' in done.stdout
    refused = re.search(r'refused at event (\d+)', done.stdout)
    errors = re.search(r'errors: (\d+)', done.stdout)
    if accepted:
        return True, 'accepted'
    if not refused or not errors or int(errors[1]) or 'depth too small' in done.stdout:
        raise Failure(done.stdout[-1000:])
    at = int(refused[1])
    event = trace[at - 1] if at <= len(trace) else None
    return False, f'refused at event {at}: {NAME[event[0]] if event else "end"} {event}'


def main():
    if not shutil.which('spin') or not shutil.which('gcc'):
        print('1..0 # SKIP needs spin and gcc')
        return 0
    print(f'1..{len(SEEDS) + len(CORRUPTIONS)}', flush=True)
    number = failed = 0

    def result(name, passed, said):
        nonlocal number, failed
        number += 1
        failed += not passed
        print(f'{"ok" if passed else "not ok"} {number} - {name}')
        for line in said:
            print(f'# {line}', flush=True)

    with tempfile.TemporaryDirectory(prefix='ramet-replay-') as directory:
        shutil.copy(SOURCE, directory)
        pan = spin.build(Path(directory), OPTIONS, ['-O1', '-DSAFETY', '-DNOFAIR'])
        traces = []
        for seed in SEEDS:
            try:
                traces.append(record(seed))
                accepted, said = replay(pan, traces[-1])
            except (Failure, subprocess.SubprocessError) as error:
                accepted, said = False, str(error)
            result(f'a trace is accepted, seed {seed}', accepted, said.splitlines())
        for corrupt in CORRUPTIONS:
            rng, told, refused = random.Random(1), [], True
            for trace in traces:
                try:
                    accepted, said = replay(pan, corrupt(trace, rng))
                except (Failure, StopIteration, IndexError, subprocess.SubprocessError) as error:
                    accepted, said = True, str(error)
                refused = refused and not accepted
                told += said.splitlines()
            result(f'corrupted: {corrupt.__name__}', refused, told)
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
