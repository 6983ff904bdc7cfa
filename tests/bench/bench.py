#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ramet's figures, each beside its floor: a bare program that makes the least calls for the same
thing, measured in turn with it, in the same run. Ratios carry over to other machines, times do not.

What each figure is stands in forks.py, memory.py, block.py and execs.py, the calls of a floor in floor/*.c.
"""
import argparse
import fnmatch
import json
import statistics
import sys

import block
import execs
import forks
import memory

MODULES = (forks, memory, block, execs)


def p99(values):
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def row(name, values, floors):
    return {'name': name, 'unit': 'ns', 'n': len(values), 'median': statistics.median(values),
            'p99': p99(values), 'floor_median': statistics.median(floors), 'floor_p99': p99(floors)}


def human(ns):
    return f'{ns / 1e3:9.2f} us' if ns < 1e6 else f'{ns / 1e6:9.2f} ms'


def progress(text):
    if sys.stderr.isatty():
        print(f'\r{text:60}\r', end='', file=sys.stderr, flush=True)


def measure(figure, rounds):
    """(values, floors) of each name of @figure, or the reason why there are none."""
    values = {name: [] for name in figure.names}
    floors = {name: [] for name in figure.names}
    for i in range(rounds or figure.rounds):
        progress(f'{figure.names[0]}: {i + 1} of {rounds or figure.rounds}')
        try:
            got = figure.measure()
        except forks.Unavailable as e:
            progress('')
            return str(e)
        for name, (v, f) in got.items():
            values[name] += v
            floors[name] += f
    progress('')
    return values, floors


def selected(patterns):
    figures = [f for m in MODULES for f in m.FIGURES]
    if not patterns:
        return [(f, f.names) for f in figures]
    chosen, known = [], set()
    for f in figures:
        names = [n for n in f.names if any(fnmatch.fnmatch(n, p) for p in patterns)]
        known.update(p for p in patterns if fnmatch.filter(f.names, p))
        if names:
            chosen.append((f, names))
    unknown = [p for p in patterns if p not in known]
    if unknown:
        sys.exit(f'bench: no such figure: {", ".join(unknown)}; --list names them')
    return chosen


def main():
    p = argparse.ArgumentParser(prog='./dev bench', description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('-n', type=int, help='rounds of each figure (default: its own)')
    p.add_argument('--only', action='append', metavar='NAME',
                   help='only this figure; * stands for anything; may be given again')
    p.add_argument('--json', metavar='FILE', help='write the figures to FILE as well')
    p.add_argument('--list', action='store_true', help='name the figures and say what they are')
    args = p.parse_args()
    if args.list:
        for f, names in selected(args.only):
            print(f'{", ".join(names)}\n    {f.what}')
        return 0
    rows, missing = [], 0
    print(f'{"":26}{"median":>12}{"p99":>12}{"floor":>12}{"p99":>12}   ratio   n')
    for f, names in selected(args.only):
        got = measure(f, args.n)
        for name in names:
            if isinstance(got, str):
                print(f'{name:26}  not measured: {got}', flush=True)
                missing += 1
                continue
            r = row(name, got[0][name], got[1][name])
            rows.append(r)
            cells = ''.join(human(r[k]) for k in ('median', 'p99', 'floor_median', 'floor_p99'))
            print(f'{name:26}{cells}   {r["median"] / r["floor_median"]:5.2f}   {r["n"]}',
                  flush=True)
    if args.json:
        with open(args.json, 'w') as f:
            json.dump(rows, f, indent=1)
            f.write('\n')
    return 1 if missing else 0


if __name__ == '__main__':
    sys.exit(main())
