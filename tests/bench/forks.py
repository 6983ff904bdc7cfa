#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a fork costs, each figure beside its floor (floor.c), in turn, in one run.

  freeze-pause-MIB          the parent's vCPUs stopped, of a guest that has written MIB; floor: the bare
                            remap of equally written memory behind a KVM slot
  spawn-cold-first-exit     fork point to a clone's read of its number, with no empty machine ready;
                            floor: fork and the bare ioctls, up to the first exit
  spawn-warm-first-exit     the same with one ready; floor: the bare state ioctls in a waiting process
  spawn-cold, spawn-warm    asking for a clone until its state is restored; the same floors

Medians and 99th percentiles. One vCPU and one clone, unless a name says otherwise.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
RAMET = os.path.join(HERE, '..', '..', 'ramet')
FLOOR = os.path.join(HERE, 'floor', 'floor')


def fork(mib, cpus, pool):
    """One demo; its events by name."""
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, 'events')
        subprocess.run([RAMET, 'demo', '--fork', '1', '--cpus', str(cpus), '--fill', str(mib),
                        '--memory', f'{mib + 64}M', '--pool', str(pool), '--events', path],
                       check=True, stdout=subprocess.DEVNULL)
        with open(path) as f:
            return {e['event']: e for e in map(json.loads, f) if e['event'] != 'exit'}


def floor(kind, mib):
    out = subprocess.run([FLOOR, kind, str(mib)], check=True, stdout=subprocess.PIPE, text=True)
    return int(out.stdout)


def p99(values):
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def row(name, values, floors):
    return {'name': name, 'unit': 'ns', 'n': len(values), 'median': statistics.median(values),
            'p99': p99(values), 'floor_median': statistics.median(floors), 'floor_p99': p99(floors)}


def progress(text):
    if sys.stderr.isatty():
        print(f'\r{text:60}\r', end='', file=sys.stderr, flush=True)


def measure(n, wanted):
    cases = [(64, 2, 1, 'freeze', ['freeze-pause-64-2vcpu']),
             (1024, 2, 1, 'freeze', ['freeze-pause-1024-2vcpu']),
             (64, 1, 0, 'cold', ['spawn-cold', 'spawn-cold-first-exit']),
             (64, 1, 1, 'warm', ['spawn-warm', 'spawn-warm-first-exit']),
             (1024, 1, 1, 'warm', ['spawn-warm-1024', 'spawn-warm-1024-first-exit'])]
    for mib, cpus, pool, kind, names in cases:
        if wanted and not any(name in wanted for name in names):
            continue
        values, floors = [[] for _ in names], []
        for i in range(n):
            progress(f'{names[0]}: {i + 1} of {n}')
            e = fork(mib, cpus, pool)
            if kind == 'freeze':
                values[0].append(e['freeze']['pause_ns'])
            else:
                values[0].append(e['clone-start']['spawn_ns'])
                values[1].append(e['clone-running']['first_exit_ns'])
            floors.append(floor(kind, mib))
        progress('')
        for name, v in zip(names, values):
            if not wanted or name in wanted:
                yield row(name, v, floors)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('-n', type=int, default=20, help='rounds (20)')
    p.add_argument('--only', action='append', help='only this figure; may be given again')
    p.add_argument('--json', help='write the figures to this file as well')
    args = p.parse_args()
    rows = []
    print(f'{"":28}{"median":>10}{"p99":>10}{"floor":>10}{"p99":>10}   ratio of medians')
    for r in measure(args.n, args.only):
        rows.append(r)
        ms = [f'{r[k] / 1e6:7.3f} ms' for k in ('median', 'p99', 'floor_median', 'floor_p99')]
        print(f'{r["name"]:28}' + ''.join(ms) + f'   {r["median"] / r["floor_median"]:.2f}',
              flush=True)
    if args.json:
        with open(args.json, 'w') as f:
            json.dump(rows, f, indent=1)


if __name__ == '__main__':
    main()
