# SPDX-License-Identifier: Apache-2.0
"""Copy-on-write, shootdown and freeze, of machines in one process: machine/machine.c."""
import os

from forks import HERE, Figure, run

MACHINE = os.path.join(HERE, 'machine', 'machine')
FLOOR = os.path.join(HERE, 'floor', 'engines')
GUEST = {'BENCH_GUEST': os.path.join(HERE, 'machine', 'guest.elf')}


def machine(*args):
    return run([MACHINE, *map(str, args)], GUEST)


def floor(*args):
    return run([FLOOR, *map(str, args)])


def figure(name, what, rounds, mine, bare):
    """@mine and @bare are argument lists of the two programs."""
    return Figure([name], what, rounds, lambda: {name: (machine(*mine), floor(*bare))})


def cow_break(engine, pages):
    return figure(f'cow-break-{engine}', f'a store at CPL 3 into a page that a clone shares with its '
                  f'template; engine {engine}'
                  + (', the first store into each 16 KiB' if engine == 'rom' else '') +
                  f'. Floor: engines break {engine}, page by page', 5,
                  ['break', engine, pages], ['break', engine, pages])


def shootdown(vcpus):
    n = 500 if vcpus <= 2 else 100  # more than this host has processors: each takes turns of them
    return figure(f'shootdown-{vcpus}vcpu', f'a flush while {vcpus} vCPU(s) run at CPL 3. Floor: tgkill '
                  'to as many, until each has been out of KVM_RUN', 3,
                  ['shootdown', vcpus, n], ['shootdown', vcpus, n])


def freeze(mib, pages):
    name = f'freeze-pause-{mib}' + ('' if pages == 'huge' else '-small')
    return figure(name, f'how long 2 running vCPUs are stopped by a freeze with {mib} MiB written, on '
                  f'{pages} pages. Floor: the remap alone, nothing stopped and no state saved',
                  9 if mib < 1024 else 5,
                  ['freeze', mib, pages], ['freeze', mib, pages])


def freeze_clone(pages):
    return figure(f'freeze-clone-{pages}', f'how long a vCPU is stopped by the freeze of a clone with {pages} '
                  'pages of its own, one in each 64 KiB. Floor: PAGEMAP_SCAN and a pwrite for each', 3,
                  ['freeze-clone', pages, 5], ['freeze-clone', pages])


def depths(n):
    def measure():
        return {f'spawn-depth-{n}': (machine('spawn-depth', n, 20), machine('spawn-depth', 1, 20))}

    return Figure([f'spawn-depth-{n}'], f'an empty machine takes a template that is {n} freezes deep, 64 '
                  'scattered pages each. Floor: the same at depth 1', 3, measure)


REWRITE_PAGES = 64 * 256

FIGURES = [
    *(cow_break(engine, pages) for engine, pages in (('private', 4096), ('trap', 4096), ('rom', 1024))),
    *(shootdown(n) for n in (1, 2, 4, 8)),
    *(freeze(mib, 'huge') for mib in (128, 1024, 4096)),
    *(freeze(mib, 'small') for mib in (128, 1024, 4096)),
    *(freeze_clone(n) for n in (64, 4096)),
    *(depths(n) for n in (1, 4, 16)),
    figure('rewrite-after-fork', 'a parent stores once into each page of 64 MiB right after its freeze; the sum. '
           'Floor: the same stores of a bare guest that was not frozen', 5,
           ['rewrite', REWRITE_PAGES], ['rewrite', 64]),
]
