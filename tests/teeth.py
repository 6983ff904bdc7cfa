# SPDX-License-Identifier: Apache-2.0
"""Would the tests notice? Each tooth is a build with one deliberate defect (src/base/tooth.h,
`meson -Dtooth=NAME`); with it the case that is named here must fail, and print the stale value
that it saw, in a line that has the word `stale` and the value.

The tests are the same as ever: only `src/` is compiled with the defect. `./dev test teeth` runs this.
"""

import re
from dataclasses import dataclass

import tap_results as tap


@dataclass(frozen=True)
class Tooth:
    name: str     # -Dtooth=
    program: str  # the name of a meson test
    case: str     # one of its cases


TEETH = [
    Tooth('no-wait', 'sync_stress', 'everything_at_once'),
    Tooth('no-last-ran', 'sync_stress', 'workers_serve_several_vms'),
    Tooth('no-fifo-purge', 'sync_stress', 'ranges_and_overflows'),
    Tooth('no-wait', 'access_remap', 'same_with_and_without_the_cache'),
    Tooth('no-last-ran', 'access', 'another_machine_drops_the_cache'),
    Tooth('no-fifo-purge', 'access', 'ranges_after_a_coarse_flush_are_told'),
    Tooth('no-device-break', 'access', 'device_writes_go_where_the_page_is'),
    Tooth('no-last-ran', 'guest_access', 'worker_private'),
    Tooth('no-device-break', 'guest_access', 'clones_rom'),
]

_RESULT = re.compile(r'(?:not )?ok\b\s*(?:\d+\s*)?(?:- )?([^#]*)')
_STALE = re.compile(r'\bstale\b.*\b(?:0x[0-9a-fA-F]+|\d+)\b')


def stale_lines(stdout, case):
    """The lines about a stale value between the results before and after that of @case: cmocka
    prints messages as they come, and an assertion that failed after the result."""
    said, before = [], []
    current = None  # the case whose result was the last one
    for line in stdout.splitlines():
        result = _RESULT.match(line)
        if result:
            current = result[1].strip()
            if current == case:
                said += before
            before = []
        elif _STALE.search(line):
            before.append(line)
            if current == case:
                said.append(line)
    return [line.lstrip('# ').strip() for line in said]


def judge(tooth, cases, stdout):
    """One tap.Case from the @cases and the output of a program that ran with the defect."""
    name = f'{tooth.program}/{tooth.case}'
    found = [c for c in cases if c.case == tooth.case]
    lines = stale_lines(stdout, tooth.case)

    def verdict(result, reason='', detail=()):
        return tap.Case('teeth', tooth.name, name, result, reason, list(detail))

    if not found:
        what = '; '.join(f'{c.case}: {c.reason}' for c in cases if c.result == tap.FAIL)
        return verdict(tap.FAIL, f'the case did not run ({what or "there is none of that name"})')
    if found[0].result == tap.SKIP:
        return verdict(tap.SKIP, found[0].reason)
    if found[0].result == tap.PASS:
        return verdict(tap.FAIL, 'the case passed: it does not notice the defect')
    if not lines:
        return verdict(tap.FAIL, 'the case failed, and printed no stale value', found[0].detail)
    return verdict(tap.PASS, detail=lines)
