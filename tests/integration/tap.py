# SPDX-License-Identifier: Apache-2.0
"""A small test harness for tests of the `ramet` command, speaking TAP.

    from tap import case, main, ramet, expect_equal

    @case
    def version_is_one_line():
        r = ramet('--version')
        expect_equal(r.status, 0, 'status')

    main()

A case fails by any exception (the expect_* functions and plain assert), and skips by skip(reason)
or one of the need_* functions. Each case has fresh directories (tmp(), and TMPDIR, XDG_RUNTIME_DIR
and HOME of what it starts) and a time limit. When it ends, nothing may be left: processes that
descend from the case, even orphans, and files outside tmp() make it fail, and are removed.

Environment: RAMET (the command), TEST_GUESTS (directory of the built guests), RAMET_TEST_VMLINUX
and RAMET_TEST_INITRAMFS (the Linux guest). `test_x.py NAME...` runs only these cases.
"""

import ctypes
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

KVM_GET_API_VERSION = 0xAE00
PR_SET_CHILD_SUBREAPER = 36
CASE_TIMEOUT = 120.0
LEFTOVER_GRACE = float(os.environ.get('TAP_GRACE', '2'))  # seconds for processes to go away


class Skip(Exception):
    """The case cannot run here; says why."""


class Failure(AssertionError):
    """An expectation that did not hold."""


class CaseTimeout(Failure):
    """The case as a whole took too long."""


# --- registering cases ---

_cases = []


def case(function=None, *, timeout=CASE_TIMEOUT, name=None, looks_only=False):
    """Register a case: `@case`, or `@case(timeout=300)`. One of many that only look at what an
    earlier one has found (@looks_only) starts nothing, has no directories, and takes no time."""
    def register(f):
        _cases.append((name or f.__name__, f, None if looks_only else timeout))
        return f
    return register(function) if function else register


def cases_for(values, *, timeout=CASE_TIMEOUT):
    """Register one case for each value, named `function(value)`: `@cases_for([1, 2])`."""
    def register(f):
        for value in values:
            _cases.append((f'{f.__name__}({value})', functools.partial(f, value), timeout))
        return f
    return register


def skip(reason):
    raise Skip(reason)


def need_kvm():
    """Skip unless /dev/kvm can be used."""
    try:
        with open('/dev/kvm', 'rb+', buffering=0) as kvm:
            version = fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0)
    except OSError as error:
        skip(f'/dev/kvm: {error.strerror}')
    if version != 12:
        skip(f'/dev/kvm: API version {version}')


def need_linux():
    """The paths of the Linux guest's vmlinux and initramfs, or a skip."""
    need_kvm()
    paths = [os.environ.get(n) for n in ('RAMET_TEST_VMLINUX', 'RAMET_TEST_INITRAMFS')]
    if not all(paths):
        skip('the Linux guest is not built: ./dev guest-linux')
    return paths


def guest(name):
    """The path of a guest that tests/guest built."""
    path = Path(os.environ.get('TEST_GUESTS', '')) / name
    if not path.is_file():
        raise Failure(f'no guest {name} in TEST_GUESTS={os.environ.get("TEST_GUESTS", "")}')
    return path


# --- expectations ---

def expect(condition, what):
    if not condition:
        raise Failure(what)


def expect_equal(got, want, what='value'):
    if got != want:
        raise Failure(f'{what}: got {got!r}, want {want!r}')


def expect_in(needle, text, what='output'):
    if needle not in text:
        raise Failure(f'{what}: no {needle!r} in {text[-2000:]!r}')


def expect_error(result, status, *words):
    """The command failed as a command should: this status and one line that says @words."""
    lines = result.stderr.splitlines()
    expect_equal(result.status, status, 'status')
    expect_equal(len(lines), 1, 'lines on stderr')
    expect(lines[0].startswith('ramet: '), f'not "ramet: ...": {lines[0]!r}')
    for word in words:
        expect_in(word, lines[0], 'the error')


# --- running the command ---

class Process:
    """A running command. Its output is collected by threads, so it never blocks on a full pipe."""

    def __init__(self, args, env=None, cwd=None, stdin=subprocess.PIPE):
        self.args = [str(a) for a in args]
        self.started = time.monotonic()
        self.seconds = None
        self._text = {'stdout': b'', 'stderr': b''}
        self._news = threading.Condition()
        self.popen = subprocess.Popen(self.args, env=_environment() | (env or {}),
                                      cwd=cwd or _dirs['tmp'], stdin=stdin, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, start_new_session=True)
        self.pid = self.popen.pid
        self._readers = [threading.Thread(target=self._read, args=(n,), daemon=True)
                         for n in self._text]
        for reader in self._readers:
            reader.start()
        _processes.append(self)

    def _read(self, name):
        pipe = getattr(self.popen, name)
        while True:
            data = os.read(pipe.fileno(), 65536)
            with self._news:
                self._text[name] += data
                self._news.notify_all()
            if not data:
                return

    stdout = property(lambda self: self._text['stdout'].decode(errors='replace'))
    stderr = property(lambda self: self._text['stderr'].decode(errors='replace'))
    status = property(lambda self: self.popen.returncode)

    def send(self, text):
        """Type @text, a str, into its standard input."""
        self.popen.stdin.write(text.encode())
        self.popen.stdin.flush()

    def signal(self, number):
        self.popen.send_signal(number)

    def wait_output(self, text, timeout=30.0, count=1, stream='stdout'):
        """Wait until @text has come @count times; fails when it ends or @timeout passes first."""
        deadline = time.monotonic() + timeout
        with self._news:
            while self._text[stream].count(text.encode()) < count:
                left = deadline - time.monotonic()
                ended = not any(r.is_alive() for r in self._readers)
                if left <= 0 or ended:
                    why = 'it ended' if ended else f'{timeout:g} s passed'
                    raise Failure(f'waited for {count} x {text!r} on {stream}, but {why}')
                self._news.wait(min(left, 0.1))

    def wait(self, timeout=30.0):
        """Wait for the end, with all of its output; a timeout kills it and fails the case."""
        try:
            self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f'still running after {timeout:g} s, killed') from None
        self.seconds = time.monotonic() - self.started
        for reader in self._readers:
            reader.join(LEFTOVER_GRACE)  # a process left behind holds the pipe: found later
        return self

    def kill(self):
        if self.popen.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.popen.wait()

    def describe(self):
        yield '$ ' + ' '.join(self.args)
        yield 'status ' + ('none: still running' if self.status is None else str(self.status))
        for name in ('stdout', 'stderr'):
            lines = getattr(self, name).splitlines()
            if len(lines) > 30:
                yield f'{name}: {len(lines) - 30} lines, then'
            for line in lines[-30:]:
                yield f'{name}: {line}'


def start(*args, **how):
    """Start `ramet args...` and go on. Keywords are those of Process."""
    return Process([_command(), *args], **how)


def _command():
    name = os.environ.get('RAMET', 'ramet')
    return os.path.abspath(name) if '/' in name else name


def ramet(*args, timeout=30.0, **how):
    """Run `ramet args...` to its end, with nothing on standard input unless @stdin is given."""
    how.setdefault('stdin', subprocess.DEVNULL)
    return start(*args, **how).wait(timeout)


def events(path):
    """The lines of an --events file as dicts."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# --- a case's directories and leftovers ---

_dirs = {}
_processes = []


def tmp():
    """This case's own directory; what it leaves here is removed and no failure."""
    return Path(_dirs['tmp'])


def runtime_dir():
    """XDG_RUNTIME_DIR of what the case starts."""
    return Path(_dirs['run'])


def _environment():
    return os.environ | {'TMPDIR': _dirs['scratch'], 'XDG_RUNTIME_DIR': _dirs['run'],
                         'HOME': _dirs['home']}


def _make_dirs():
    top = tempfile.mkdtemp(prefix='rt-')  # short: socket paths end at 107 bytes
    for name in ('tmp', 'scratch', 'run', 'home'):
        _dirs[name] = os.path.join(top, name)
        os.mkdir(_dirs[name], 0o700)
    return top


def _descendants():
    """{pid: name} of all processes below this one that are not zombies."""
    parents, names = {}, {}
    for entry in os.listdir('/proc'):
        if not entry.isdigit():
            continue
        try:
            stat = Path('/proc', entry, 'stat').read_text()
        except OSError:
            continue
        state, parent = stat[stat.rindex(')') + 2:].split()[:2]
        parents[int(entry)] = int(parent)
        if state not in 'ZX':
            names[int(entry)] = stat[stat.index('(') + 1:stat.rindex(')')]
    found, frontier = set(), {os.getpid()}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return {pid: names[pid] for pid in found if pid in names}


def _leftovers():
    """What the case left behind, in words. Kills and forgets it all."""
    said, deadline = [], time.monotonic() + LEFTOVER_GRACE
    while (left := _descendants()) and time.monotonic() < deadline:
        _reap()
        time.sleep(0.02)
    said += [f'left a process behind: {pid} {name}' for pid, name in sorted(left.items())]
    while left:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
        _reap()
        left = _descendants()
    _reap()
    for name in ('scratch', 'run', 'home'):
        top = Path(_dirs[name])
        said += [f'left a file behind: ${name.upper()}/{path.relative_to(top)}'
                 for path in sorted(top.rglob('*')) if not path.is_dir() or path.is_symlink()]
    return said


def _reap():
    """Collect orphans that became this process's children."""
    for process in _processes:
        process.popen.poll()
    known = {p.pid for p in _processes if p.status is None}
    try:
        while True:
            # WNOWAIT first: a child of Popen's must be left for Popen.
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if info is None or info.si_pid in known:
                return
            os.waitpid(info.si_pid, 0)
    except ChildProcessError:
        pass


# --- the run ---

def _alarm(*_):
    raise CaseTimeout('the case took too long')


def _run_case(function, timeout):
    """(skip reason or None, lines of what went wrong)."""
    wrong, reason = [], None
    if timeout is None:
        try:
            function()
        except Skip as why:
            reason = str(why)
        except Exception as error:
            wrong += f'{type(error).__name__}: {error}'.splitlines()
        return reason, wrong
    top = _make_dirs()
    _processes.clear()
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        function()
    except Skip as why:
        reason = str(why)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        here = [f for f in frames if f.filename == sys.modules['__main__'].__file__] or frames
        wrong.append(f'{Path(here[-1].filename).name}:{here[-1].lineno}: {here[-1].line}')
        wrong += f'{type(error).__name__}: {error}'.splitlines()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    for process in _processes:
        if process.popen.poll() is None and not wrong:
            wrong.append(f'the case ended while its command was running: {process.pid}')
    if wrong:
        for process in _processes[-4:]:
            wrong += process.describe()
    for process in _processes:
        process.kill()
    wrong += _leftovers()
    for process in _processes:
        for pipe in (process.popen.stdin, process.popen.stdout, process.popen.stderr):
            if pipe and not (pipe is not process.popen.stdin and
                             any(r.is_alive() for r in process._readers)):
                try:
                    pipe.close()
                except OSError:
                    pass
    shutil.rmtree(top, ignore_errors=True)
    return reason, wrong


def main():
    """Run the registered cases, all or those named on the command line; ends the program."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGALRM, _alarm)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    chosen = [c for c in _cases if not sys.argv[1:] or c[0] in sys.argv[1:]]
    failed = 0

    print(f'1..{len(chosen)}', flush=True)
    for number, (name, function, timeout) in enumerate(chosen, 1):
        begin = time.monotonic()
        reason, wrong = _run_case(function, timeout)
        ms = (time.monotonic() - begin) * 1000
        if wrong:
            failed += 1
            print(f'not ok {number} - {name} # {ms:.0f} ms')
            for line in wrong:
                print('#', line)
        elif reason is not None:
            print(f'ok {number} - {name} # SKIP {reason}')
        else:
            print(f'ok {number} - {name} # {ms:.0f} ms')
        sys.stdout.flush()
    sys.exit(1 if failed else 0)
