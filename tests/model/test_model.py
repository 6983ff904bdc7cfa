#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Suite `model`: spin proves the protocol of src/sync, and finds each of its weakenings.

A configuration that is right must be searched to its end without an error. A weakened one must give
an error of the kind that it is expected to give. README.md says what each of them is.
"""

import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import spin

FLUSH, STOP, REQUEST, FORGET = 1, 2, 4, 8
STALE, STUCK, LIVELOCK = 'assertion violated', 'invalid end state', 'acceptance cycle'


def config(participants, initiators, *options):
    """@initiators: what each of them does, once."""
    return [f'NPART={participants}', f'NINIT={len(initiators)}',
            *(f'INIT{i}={what}' for i, what in enumerate(initiators)), *options]


FIFO = ('FIFO', 'NPAGES=2', 'NO_GUEST')
LEND = ('LEND', 'NO_GUEST')

# name: options. Safety, and no lost wake-up or kick: whoever waits for one that never comes is
# found as an invalid end state. The biggest ones first, so that two processors end together.
RIGHT = {
    '2 participants, flush and stop': config(2, [FLUSH, STOP], 'NO_GUEST'),
    '2 participants, 2 stops': config(2, [STOP, STOP], 'NO_GUEST'),
    'I/O in flight, flush and stop': config(2, [FLUSH, STOP], *LEND),
    'a participant dies, flush and stop': config(1, [FLUSH, STOP], 'DEATH'),
    'invalidations, two ranges': config(1, [FLUSH, FLUSH], *FIFO),
    'invalidations, coarse and range': config(1, [FORGET, FLUSH], *FIFO),
    'a participant initiates, another stops': config(2, [STOP], 'OWN=1', 'NO_SPINNING'),
    '2 participants, flush': config(2, [FLUSH]),
    '2 participants, stop': config(2, [STOP]),
    '2 flushes': config(1, [FLUSH, FLUSH]),
    'flush and stop': config(1, [FLUSH, STOP]),
    '2 stops': config(1, [STOP, STOP]),
    'request and flush': config(1, [FLUSH, REQUEST]),
    'guest exits by itself, flush and request': config(1, [FLUSH, REQUEST], 'EXITS=1'),
    'guest exits by itself, stop': config(1, [STOP], 'EXITS=2'),
    'a participant stops, another flushes': config(1, [FLUSH], 'OWN=2'),
    'I/O in flight beside guest mode, stop': config(2, [STOP], 'LEND'),
    'a participant dies, request': config(1, [REQUEST], 'DEATH'),
}

# name: options. Every initiator comes to its end, if each thread runs on: LTL, weak fairness.
PROGRESS = {
    'flush and stop': config(1, [FLUSH, STOP], 'NO_SPINNING'),
    '2 participants, stop': config(2, [STOP], 'NO_SPINNING'),
    '2 participants, flush': config(2, [FLUSH], 'NO_SPINNING', 'NO_GUEST'),
    'request': config(1, [REQUEST], 'NO_SPINNING'),
}

# weakening: (the error, options)
WEAK = {
    # fences
    'NO_ENTER_FENCE': (STALE, config(1, [FLUSH])),
    'NO_ENTER_FENCE, stop': (STALE, config(1, [STOP])),
    'NO_BEGIN_FENCE': (STUCK, config(1, [FLUSH])),
    'NO_LEND_FENCE': (STUCK, config(2, [STOP], *LEND)),
    'EXIT_IN_TWO': (STUCK, config(1, [STOP])),
    # waits
    'NO_WAIT': (STALE, config(1, [FLUSH])),
    'NO_STOP_WAIT': (STALE, config(1, [STOP])),
    'BUMP_AFTER_WAIT': (STALE, config(1, [FLUSH])),
    'LEFT_AFTER_SCAN': (STUCK, config(1, [STOP])),
    'WAKE_BEFORE_BUMP': (STUCK, config(1, [STOP])),
    'NO_LEFT_WAKE': (STUCK, config(1, [STOP])),
    'NO_AWAITED': (STUCK, config(1, [STOP])),
    'NO_SLEEPER_MARK': (STUCK, config(1, [STOP])),
    'NO_RESUME_WAKE': (STUCK, config(1, [STOP])),
    'NO_TURN_WAKE': (STUCK, config(1, [STOP, STOP])),
    'NO_STOPPED_CHECK': (STALE, config(1, [STOP])),
    # kicks
    'KICK_BEFORE_REQUEST': (STUCK, config(1, [REQUEST])),
    'KICK_BEFORE_BUMP': (STUCK, config(1, [FLUSH])),
    'NOT_BLOCKED': (STUCK, config(1, [FLUSH])),
    'TAKE_AFTER_BEGIN': (STUCK, config(1, [FLUSH])),
    'NO_BEGIN_CHECK': (STUCK, config(1, [FLUSH])),
    # participants that leave
    'NEVER_LEFT': (STUCK, config(1, [FLUSH], 'DEATH')),
    'LEAVE_SILENTLY': (STUCK, config(1, [FLUSH], 'DEATH')),
    # I/O in flight
    'NO_LENT_RESCAN': (STALE, config(2, [STOP], *LEND)),
    'NO_LENT_RESCAN, flush': (STALE, config(2, [FLUSH], *LEND)),
    'NO_LEND_STOPPED': (STALE, config(2, [STOP], *LEND)),
    'NO_LEND_GEN': (STALE, config(2, [FLUSH], *LEND)),
    # invalidations
    'POST_AFTER_BUMP': (STALE, config(1, [FLUSH, FLUSH], *FIFO)),
    'TAKE_BEFORE_ENTER': (STALE, config(1, [FLUSH, FLUSH], *FIFO)),
    'NO_OVERFLOW': (STALE, config(1, [FLUSH, FLUSH], *FIFO)),
    'NO_PURGE': (STALE, config(1, [FLUSH, FORGET], *FIFO)),
}
WEAK_PROGRESS = {
    'IGNORE_PENDING': (LIVELOCK, config(1, [FLUSH], 'NO_SPINNING')),
}


class Case:
    def __init__(self, name, options, progress=False, expect=''):
        self.name, self.options, self.progress, self.expect = name, options, progress, expect

    def run(self):
        """(passed, lines of diagnosis)"""
        with tempfile.TemporaryDirectory(prefix='ramet-model-') as directory:
            try:
                v = spin.verify(Path(directory), self.options, self.progress, bool(self.expect))
            except spin.SpinError as error:
                return False, str(error).splitlines()[:20]
        told = [f'{v.states} states, {v.seconds:.1f} s']
        if self.expect:
            return v.kind == self.expect, told + [f'{v.kind or "no error"}, want: {self.expect}']
        if v.incomplete:
            return False, told + ['no proof: ' + v.incomplete] + v.output.splitlines()[-8:]
        return v.errors == 0, told + ([v.kind] if v.errors else [])


def cases():
    for name, options in RIGHT.items():
        yield Case(name, options)
    for name, options in PROGRESS.items():
        yield Case('every wait ends: ' + name, options, progress=True)
    for table, progress in ((WEAK, False), (WEAK_PROGRESS, True)):
        for name, (expect, options) in table.items():
            yield Case('weakened: ' + name, [*options, name.split(',')[0]], progress, expect)


def main(wanted):
    if not shutil.which('spin') or not shutil.which('gcc'):
        print('1..0 # SKIP needs spin and gcc')
        return 0
    every = [c for c in cases() if not wanted or any(w in c.name for w in wanted)]
    print(f'1..{len(every)}', flush=True)
    failed = 0
    # A search needs up to half a GB.
    with ThreadPoolExecutor(max(1, min(2, os.cpu_count() or 1))) as pool:
        for number, (case, (passed, told)) in enumerate(
                zip(every, pool.map(Case.run, every)), 1):
            failed += not passed
            print(f'{"ok" if passed else "not ok"} {number} - {case.name}')
            for line in told:
                print(f'# {line}', flush=True)
    return failed != 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
