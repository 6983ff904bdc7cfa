# SPDX-License-Identifier: Apache-2.0
"""What must hold of the events file, the table and the processes of any run; how to wait for it.

    log = Events(tmp() / 'events')      an --events file that is still being written
    log.wait('clone-running', 4)        until four such events are there
    check_events(log, root='web')       every rule that holds whatever the run was
    rows = table(r.stderr)              the table of clones: {'web.1': {'status': '0', ...}, ...}
"""

import json
import os
import re
import time
from pathlib import Path

from tap import Failure, expect, expect_equal

COMMON = {'event': str, 't_ns': int, 'vm': str, 'name': str, 'index': int}
OWN = {
    'vm-start': {'pid': int},
    'fork-point': {'cause': str, 'count': int},
    'freeze': {'pause_ns': int, 'generation': int, 'vcpus': int},
    'clone-start': {'pid': int, 'spawn_ns': int},
    'clone-running': {'first_exit_ns': int, 'how': str},
    'reset': {'reset_ns': int},
    'exit': {'reason': str, 'status': int, 'assists': int},
    'error': {'text': str},
}
HOW = {'doorbell', 'exit', 'kick'}  # what a first exit may be
# What a Linux guest has no reason to say.
LINUX_TROUBLE = (r'BUG|Oops|WARNING|Call Trace|stall|unstable|lockup|[Ww]atchdog|segfault|'
                 r'Kernel panic')
SLACK_NS = 5_000_000  # between two looks at the clock for one thing


# --- the events file ---

class Events:
    """An --events file. Reads what is there each time it is asked."""

    def __init__(self, path):
        self.path = Path(path)

    def all(self):
        """All events, as dicts. What follows the last newline is still being written."""
        text = self.path.read_text() if self.path.exists() else ''
        return [json.loads(line) for line in text[:text.rfind('\n') + 1].splitlines()]

    def of(self, kind, name=None):
        return [e for e in self.all() if e['event'] == kind and name in (None, e['name'])]

    def one(self, kind, name=None):
        found = self.of(kind, name)
        expect_equal(len(found), 1, f'{kind} events of {name or "all"}')
        return found[0]

    def wait(self, kind, count=1, timeout=30.0):
        """Wait until there are @count events of a kind; returns them."""
        return wait_for(lambda: len(found := self.of(kind)) >= count and found, timeout,
                        f'{count} {kind} events')

    def pids(self):
        """{name: pid} of all machines that have been started."""
        return {e['name']: e['pid'] for e in self.all()
                if e['event'] in ('vm-start', 'clone-start')}


def wait_for(condition, timeout, what):
    """Ask @condition until it is true, and return what it said."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise Failure(f'waited {timeout:g} s for {what}')
        time.sleep(0.01)
    return answer


def check_events(log, root):
    """Everything that docs/events.md promises of any run whose first machine is called @root."""
    text = log.path.read_text()
    expect(text.endswith('\n'), 'the events file does not end with a newline')
    all_events = [json.loads(line) for line in text.splitlines()]
    for e in all_events:
        _check_fields(e)
    ids = {e['name']: e['vm'] for e in all_events}
    for e in all_events:
        _check_identity(e, ids, root)
    expect_equal(len(set(ids.values())), len(ids), 'machines with an id of their own')
    pids = list(log.pids().values())
    expect_equal(len(set(pids)), len(pids), 'machines with a process of their own')
    for name in ids:
        _check_order([e for e in all_events if e['name'] == name], root)
    for e in log.of('clone-start'):
        _check_clone(e, log)


def _check_fields(e):
    wanted = COMMON | OWN.get(e.get('event'), {})
    expect(e.get('event') in OWN, f'unknown event: {e}')
    for key, kind in wanted.items():
        expect(type(e.get(key)) is kind, f'{key} is missing or no {kind.__name__}: {e}')
    expect('parent' in e and (e['parent'] is None or isinstance(e['parent'], str)),
           f'parent is neither null nor an id: {e}')
    for key, value in e.items():
        expect(not isinstance(value, (int, float)) or value >= 0, f'{key} is negative: {e}')
    if e['event'] == 'freeze':
        expect(e['pause_ns'] > 0 and e['generation'] > 0 and e['vcpus'] > 0, f'no figures: {e}')
    if e['event'] == 'clone-start':
        expect(e['spawn_ns'] > 0, f'no figures: {e}')
    if e['event'] == 'clone-running':
        expect(e['first_exit_ns'] > 0 and e['how'] in HOW, f'no first exit: {e}')


def _check_identity(e, ids, root):
    """One id for a name, index 0 and no parent in the root only, web.2.1 is a clone of web.2."""
    expect_equal(e['vm'], ids[e['name']], f'id of {e["name"]}')
    if e['name'] == root:
        expect_equal((e['parent'], e['index']), (None, 0), 'parent and index of the root')
    else:
        parent = e['name'].rpartition('.')[0]
        expect_equal(e['parent'], ids.get(parent), f'parent of {e["name"]}')
        expect(e['index'] >= 1, f'a clone without a number: {e}')


def _check_order(mine, root):
    """The events of one machine: in the order of their times, begun once, ended at most once."""
    times = [e['t_ns'] for e in mine]
    expect_equal(times, sorted(times), f'times of {mine[0]["name"]}')
    kinds = [e['event'] for e in mine]
    begin = 'vm-start' if mine[0]['name'] == root else 'clone-start'
    if kinds != ['exit'] and 'error' not in kinds:  # it could not be started
        expect_equal(kinds[0], begin, f'first event of {mine[0]["name"]}')
    for kind in ('vm-start', 'clone-start', 'clone-running', 'exit'):
        expect(kinds.count(kind) <= 1, f'{kind} twice: {mine}')
    expect('exit' not in kinds[:-1], f'something after the exit: {mine}')


def _check_clone(start, log):
    """fork-point <= freeze <= clone-start <= clone-running, in the fork that made this clone."""
    freezes = [e for e in log.of('freeze') if e['vm'] == start['parent']
               and e['t_ns'] <= start['t_ns']]
    expect(freezes, f'a clone, but no freeze: {start}')
    freeze = max(freezes, key=lambda e: e['t_ns'])
    points = [e for e in log.of('fork-point') if e['vm'] == start['parent']
              and e['t_ns'] <= freeze['t_ns']]
    expect(points, f'a freeze, but no fork point: {freeze}')
    point = max(points, key=lambda e: e['t_ns'])
    expect(1 <= start['index'] <= point['count'], f'not a number of the fork: {start}')
    expect(start['t_ns'] - start['spawn_ns'] >= point['t_ns'], f'spawned before the fork: {start}')
    for running in log.of('clone-running', start['name']):
        expect(running['t_ns'] >= start['t_ns'], f'ran before it was there: {running}')
        since = running['t_ns'] - point['t_ns']
        if point['cause'] == 'request':  # its clock starts when the vCPUs are asked to stop
            expect(running['first_exit_ns'] <= since + SLACK_NS, f'first exit: {running}')
        else:
            expect(abs(running['first_exit_ns'] - since) <= SLACK_NS,
                   f'first_exit_ns is not from the fork point, {since} ns ago: {running}')


def check_fork(log, root, count):
    """check_events, and: one fork of the root, into @count clones that all ran. Returns them."""
    check_events(log, root)
    log.one('fork-point', root)
    log.one('freeze', root)
    names = [f'{root}.{i}' for i in range(1, count + 1)]
    for kind in ('clone-start', 'clone-running'):
        expect_equal(sorted(e['name'] for e in log.of(kind)), sorted(names), f'{kind} events')
        expect_equal(sorted(e['index'] for e in log.of(kind)), list(range(1, count + 1)),
                     f'numbers in {kind} events')
    return names


# --- the table, the console ---

def table(stderr):
    """The table at the end of a run as {name: {column: cell}}; fails when there is none."""
    lines = stderr.splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith('clone ')]
    expect_equal(len(heads), 1, 'tables')
    columns = re.split(r' {2,}', lines[heads[0]])
    for wanted in ('clone', 'pid', 'spawn', 'first exit', 'shared', 'private', 'status'):
        expect(wanted in columns, f'no column {wanted!r} in {columns}')
    rows = {}
    for line in lines[heads[0] + 1:]:
        cells = re.split(r' {2,}', line)
        expect_equal(len(cells), len(columns), f'cells in {line!r}')
        rows[cells[0]] = dict(zip(columns, cells))
    return rows


def by_machine(stdout):
    """Console lines by machine, {name: [line]}; fails when one has no prefix."""
    machines = {}
    for line in stdout.splitlines():
        match = re.match(r'\[([\w.-]+)\] (.*)', line)
        expect(match, f'a line without its machine: {line!r}')
        machines.setdefault(match[1], []).append(match[2])
    return machines


def said(stdout):
    """What each machine printed, {name: text without line ends}. On a busy host a machine may stop
    for so long in a line that others are let in between: that is right, and no matter here."""
    return {name: ''.join(lines) for name, lines in by_machine(stdout).items()}


# --- processes ---

def alive(pid):
    """Does the process exist, not counting zombies?"""
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False
    return stat[stat.rindex(')') + 2] not in 'ZX'


def wait_dead(pids, timeout=5.0):
    wait_for(lambda: not any(alive(p) for p in pids), timeout, f'the end of {sorted(pids)}')


def children(pid):
    """{pid: name} of the children of a process."""
    found = {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            text = stat.read_text()
        except OSError:
            continue
        name, rest = text[text.index('(') + 1:text.rindex(')')], text[text.rindex(')') + 2:]
        if int(rest.split()[1]) == pid:
            found[int(text.split()[0])] = name
    return found


def child_named(pid, name):
    found = [p for p, n in children(pid).items() if n == name]
    expect_equal(len(found), 1, f'children of {pid} called {name}')
    return found[0]


def descriptors(pid):
    """What the descriptors of a process refer to, sorted, without numbers that differ by chance."""
    found = []
    for fd in Path(f'/proc/{pid}/fd').iterdir():
        try:
            found.append(re.sub(r':\[\d+\]', '', os.readlink(fd)))
        except OSError:
            continue  # closed meanwhile
    return sorted(found)


def cpu_seconds(pid):
    """Processor time that a process has used."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def assists_are_plausible(end):
    """An exit event counts the instructions that were done for KVM's emulator. Where the host's
    processor runs guest kernels itself there are none; elsewhere there are some."""
    emulated = Path('/sys/module/kvm_pvm').exists()
    expect(end['assists'] > 0 or not emulated, f'no assists on a host that needs them: {end}')
