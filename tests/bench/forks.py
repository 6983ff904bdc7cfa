# SPDX-License-Identifier: Apache-2.0
"""What a fork costs as a user of the command has it: processes, events."""
import json
import os
import subprocess
import tempfile
from collections import namedtuple

HERE = os.path.dirname(os.path.abspath(__file__))
RAMET = os.path.join(HERE, '..', '..', 'ramet')
FLOOR = os.path.join(HERE, 'floor', 'floor')

# names, what they are, rounds, and a function that measures once: {name: ([ns], [floor's ns])}
Figure = namedtuple('Figure', 'names what rounds measure')


class Unavailable(Exception):
    """This host cannot do it; the text says why."""


def run(argv, env=None):
    """The numbers that a program prints, one a line."""
    r = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       env={**os.environ, **(env or {})})
    if r.returncode:
        raise Unavailable(r.stderr.strip().splitlines()[-1] if r.stderr.strip() else
                          f'{os.path.basename(argv[0])} ended with {r.returncode}')
    return [float(x) for x in r.stdout.split()]


def fork(mib, cpus, pool):
    """One demo; its events by name."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, 'events')
        subprocess.run([RAMET, 'demo', '--fork', '1', '--cpus', str(cpus), '--fill', str(mib),
                        '--memory', f'{mib + 64}M', '--pool', str(pool), '--events', path],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path) as f:
            return {e['event']: e for e in map(json.loads, f) if e['event'] != 'exit'}


def spawn(suffix, mib, kind):
    def measure():
        e = fork(mib, 1, 0 if kind == 'cold' else 1)
        floor = run([FLOOR, kind, str(mib)])
        return {f'spawn-{suffix}': ([e['clone-start']['spawn_ns']], floor),
                f'spawn-{suffix}-first-exit': ([e['clone-running']['first_exit_ns']], floor)}

    ready = 'no empty machine ready' if kind == 'cold' else 'one empty machine ready'
    return Figure([f'spawn-{suffix}', f'spawn-{suffix}-first-exit'],
                  f'{mib} MiB written, one vCPU, {ready}: from asking for a clone until its state is '
                  'restored; from the fork point to the read of its number. '
                  f'Floor: floor {kind}, up to the first exit', 20, measure)


FIGURES = [spawn('cold', 64, 'cold'), spawn('warm', 64, 'warm'), spawn('warm-1024', 1024, 'warm')]
