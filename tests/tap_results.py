# SPDX-License-Identifier: Apache-2.0
"""What happened, case by case, in a run of `meson test`: its JSON log, and the TAP in it.

Meson counts test programs, and it is kind in ways that would hide a failure: a program that prints
no TAP at all is its SKIP. So the TAP of each program is read here. These count as failed cases:

    (timeout)  the program was stopped      (exit)   it died, or failed without a failed case
    (plan)     fewer or more cases than planned, or no plan     (tap)  anything else meson refused

No I/O happens here, so that tests/unit/test_tap_results.py can try everything.
"""

import fnmatch
import json
import re
import signal
from dataclasses import dataclass, field

PASS, FAIL, SKIP = 'pass', 'fail', 'skip'
NO_RECORD = 'meson has no result for it'

_TEST = re.compile(r'(not )?ok\b\s*(\d+)?\s*(?:- )?([^#]*)(?:#\s*(skip|todo)\b\S*\s*(.*))?', re.I)
_PLAN = re.compile(r'1\.\.(\d+)\s*(?:#\s*skip\S*\s*(.*))?$', re.I)


@dataclass
class Case:
    suite: str
    test: str
    case: str
    result: str
    reason: str = ''
    detail: list = field(default_factory=list)  # diagnostics that followed the result

    @property
    def key(self):
        return f'{self.suite}/{self.test}/{self.case}'


def parse_tap(text):
    """The (case, result, reason, detail) of each result line, the plan or None, and complaints."""
    cases, complaints, plan, skipped_whole = [], [], None, None
    for line in text.splitlines():
        if line.startswith('#'):
            if cases:
                cases[-1][3].append(line[1:].strip())
            continue
        match = _PLAN.match(line)
        if match:
            if plan is not None:
                complaints.append('more than one plan')
            plan = int(match[1])
            if plan == 0:
                skipped_whole = match[2] or 'no reason given'
            continue
        if line.lower().startswith('bail out!'):
            complaints.append(line)
            continue
        match = _TEST.match(line)
        if match:
            cases.append(_tap_case(match, len(cases) + 1, complaints))
    if skipped_whole is not None and not cases:
        cases.append(('*', SKIP, skipped_whole, []))
        plan = 1
    return cases, plan, complaints


def _tap_case(match, expected_number, complaints):
    failed, number, name = match[1], match[2], match[3].strip()
    directive, rest = (match[4] or '').lower(), (match[5] or '').strip()

    if number and int(number) != expected_number:
        complaints.append(f'case {number} came where {expected_number} was due')
    if directive == 'skip':
        # cmocka writes "not ok 2 # SKIP name", and has no reason to give.
        return (name or rest or str(expected_number), SKIP, rest if name else 'no reason given', [])
    if directive == 'todo':
        return (name, SKIP if failed else FAIL, 'TODO: ' + rest, [])
    return (name or str(expected_number), FAIL if failed else PASS, '', [])


def describe_status(returncode):
    """An exit status in words; meson gives a signal as a negative number, a shell as 128 + N."""
    number = -returncode if returncode < 0 else returncode - 128
    if returncode < 0 or 128 < returncode < 160:
        try:
            return f'killed by {signal.Signals(number).name}'
        except ValueError:
            return f'killed by signal {number}'
    return f'exit status {returncode}'


def program_cases(suite, test, record, protocol):
    """The cases of one test program, from its line in meson's testlog.json."""
    def case(name, result, reason='', detail=()):
        return Case(suite, test, name, result, reason, list(detail))

    status, returncode = record['result'], record.get('returncode') or 0
    tail = (record.get('stderr') or '').strip().splitlines()[-20:]
    cases = []

    if protocol == 'tap':
        tap, plan, complaints = parse_tap(record.get('stdout') or '')
        cases = [case(*one) for one in tap]
    else:
        plan, complaints = len(cases), []
        tail = tail or (record.get('stdout') or '').strip().splitlines()[-20:]

    if status in ('TIMEOUT', 'INTERRUPT'):
        seconds = record.get('duration') or 0
        cases.append(case('(timeout)', FAIL, f'stopped after {seconds:.0f} s', tail))
    elif returncode == 77 and not cases:
        cases.append(case('*', SKIP, tail[-1] if tail else 'exit status 77'))
    elif protocol != 'tap':
        ok = returncode == 0 and status in ('OK', 'EXPECTEDFAIL')
        cases.append(case('*', PASS) if ok else case('*', FAIL, describe_status(returncode), tail))
    else:
        failed = any(c.result == FAIL for c in cases)
        if plan is None or plan != len(cases):
            planned = 'no plan' if plan is None else f'{plan} planned'
            complaints.insert(0, f'{planned}, {len(cases)} ran')
        died = returncode < 0 or returncode > 127
        if died or (returncode and not failed):
            cases.append(case('(exit)', FAIL, describe_status(returncode), tail))
        elif complaints:
            cases.append(case('(plan)', FAIL, '; '.join(complaints), tail))
        elif not cases:
            cases.append(case('(plan)', FAIL, 'it ran no case', tail))
        elif status == 'ERROR' and not failed:
            cases.append(case('(tap)', FAIL, 'meson calls it an error', tail))
    return cases


def log_cases(tests, lines):
    """The cases of a whole log. @tests is {name: (suite, protocol)} of all that should have run."""
    cases, seen = [], set()
    for line in lines:
        record = json.loads(line)
        name = record['name'].rsplit(' / ', 1)[-1]
        if name not in tests:
            continue
        seen.add(name)
        suite, protocol = tests[name]
        cases += program_cases(suite, name, record, protocol)
    for name in sorted(set(tests) - seen):
        cases.append(Case(tests[name][0], name, '(exit)', FAIL, NO_RECORD))
    return cases


def parse_allowed(text):
    """tests/skip-allowed.txt: `suite/test/case  reason`, two spaces or more before the reason."""
    allowed = []
    for line in text.splitlines():
        if line.strip() and not line.startswith('#'):
            allowed.append(re.split(r'\s{2,}|\t', line.strip(), maxsplit=1)[0])
    return allowed


def refuse_skips(cases, allowed):
    """Where KVM works, a skip that is not on the list is a failure."""
    for case in cases:
        if case.result == SKIP and not any(fnmatch.fnmatchcase(case.key, a) for a in allowed):
            case.result = FAIL
            case.reason = f'skipped ({case.reason}), which tests/skip-allowed.txt does not list'


def count(cases):
    return {result: sum(c.result == result for c in cases) for result in (PASS, FAIL, SKIP)}


def counts_line(cases):
    n = count(cases)
    return f'{n[PASS]} passed, {n[FAIL]} failed, {n[SKIP]} skipped'
