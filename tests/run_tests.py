#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`./dev test`: builds what the tests need, runs them, and counts what happened, case by case.

A part is one configuration in one build directory and the suites that run there. Every part runs,
whatever happened before it. The Linux guest builds in the background meanwhile; its suite is last.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import tap_results as tap
from teeth import TEETH, judge

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / 'build-test'
KVM_GET_API_VERSION = 0xAE00
OWN_WAY = ('linux', 'devices', 'bench')  # suites that a plain `./dev test` runs later, or not
WITH_LINUX = ('linux', 'devices')  # those for which the Linux guest is built first
OTHERS = ('lint', 'teeth')  # what is no suite of a part


@dataclass
class Part:
    name: str
    options: list
    suites: list
    env: dict = field(default_factory=dict)
    prefix: list = field(default_factory=list)
    slower: int = 1  # multiplies every timeout

    @property
    def dir(self):
        return ROOT / f'build-{self.name}'


def make_parts():
    """The configurations. An empty list of suites means all that the build has, but OWN_WAY."""
    # ThreadSanitizer finds no room for its shadow where addresses are strongly randomised.
    still = ['setarch', '-R'] if subprocess.run(
        ['setarch', '-R', 'true'], capture_output=True, check=False).returncode == 0 else []
    return {p.name: p for p in (
        Part('gcc', ['-Dwerror=true', '-Dbench=true'], []),
        Part('clang', ['-Dwerror=true'], ['unit'], env={'CC': 'clang'}),
        Part('asan', ['-Db_sanitize=address,undefined'], ['unit', 'guest', 'lib'], slower=3, env={
            'ASAN_OPTIONS': 'detect_stack_use_after_return=1:strict_string_checks=1',
            'UBSAN_OPTIONS': 'halt_on_error=1:print_stacktrace=1'}),
        Part('tsan', ['-Db_sanitize=thread'], ['sync'], slower=5, prefix=still, env={
            'TSAN_OPTIONS': 'halt_on_error=1:second_deadlock_stack=1'}),
        Part('fuzz', ['-Dfuzz=true', '-Dtests=false', '-Db_sanitize=address,undefined',
                      '-Db_lundef=false', '-Dwerror=true'], ['fuzz'], env={'CC': 'clang'}),
    )}


class Screen:
    """One line a phase. On a terminal it appears when the phase starts and is completed later."""

    def __init__(self):
        self.tty = sys.stdout.isatty()
        self.colour = self.tty and 'NO_COLOR' not in os.environ
        self.start = 0.0
        self.head = ''

    def begin(self, part, what):
        self.start = time.monotonic()
        self.head = f'{part:<6} {what:<12}'
        if self.tty:
            print(self.head, '...', end='', flush=True)

    def end(self, text, failed=False):
        if self.colour:
            text = f'\033[{31 if failed else 32}m{text}\033[0m'
        back = '\r' if self.tty else ''
        print(f'{back}{self.head} {text}  {time.monotonic() - self.start:.1f} s', flush=True)


class Run:
    def __init__(self):
        self.screen = Screen()
        self.cases = []
        self.logs = {}  # id of a failed case -> (part, log)
        self.kvm = kvm_usable()
        self.allowed = tap.parse_allowed((ROOT / 'tests/skip-allowed.txt').read_text())

    def add(self, part, cases, log):
        if self.kvm:
            tap.refuse_skips(cases, self.allowed)
        for case in cases:
            self.logs[id(case)] = (part, log)
        self.cases += cases
        n = tap.count(cases)
        self.screen.end(tap.counts_line(cases), failed=n[tap.FAIL] > 0)

    def broken(self, part, test, reason, log, detail=()):
        """Something that is no test program failed, a build for example: one failed case."""
        case = tap.Case(part, test, '*', tap.FAIL, reason, list(detail))
        self.logs[id(case)] = (part, log)
        self.cases.append(case)
        self.screen.end(reason, failed=True)

    # --- a part: build, then its suites ---

    def build(self, part):
        """True when the part is built."""
        log = LOGS / f'{part.name}-build.log'
        self.screen.begin(part.name, 'build')
        with log.open('w') as out:
            def run(*command):
                return subprocess.run(command, cwd=ROOT, env=os.environ | part.env, stdout=out,
                                      stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                      check=False).returncode == 0

            ok = (part.dir / 'build.ninja').exists() or run(
                'meson', 'setup', '--wrap-mode=nodownload', *part.options, str(part.dir))
            ok = ok and run('ninja', '-C', str(part.dir), '-k', '10', 'all', 'meson-test-prereq')
        if ok:
            self.screen.end('ok')
        else:
            self.broken(part.name, 'build', 'the build failed', log, build_errors(log))
        return ok

    def tests_of(self, part):
        """{name: (first suite, protocol, all suites)} as meson knows them."""
        listing = json.loads(subprocess.run(
            ['meson', 'introspect', '--tests', str(part.dir)], stdout=subprocess.PIPE,
            cwd=ROOT, check=True).stdout)
        tests = {}
        for test in listing:
            suites = [s.split(':', 1)[-1] for s in test['suite']]
            tests[test['name']] = (suites[0], test['protocol'], suites)
        return tests

    def run_suite(self, part, suite, done, env=None):
        """Run the tests of @suite that are not in @done, a set of names that this adds to."""
        every = self.tests_of(part)
        tests = {n: t[:2] for n, t in every.items() if suite in t[2] and n not in done}
        log = part.dir / 'meson-logs' / f'{suite}.json'
        text = log.with_suffix('.txt')

        done.update(tests)
        if not tests and any(suite in t[2] for t in every.values()):
            return  # all of them ran as members of another suite
        self.screen.begin(part.name, suite)
        if not tests:
            self.add(part.name, [tap.Case(suite, '*', '*', tap.SKIP, 'it has no tests')], text)
            return
        log.unlink(missing_ok=True)
        screen = LOGS / f'{part.name}-{suite}.log'
        with screen.open('w') as out:
            subprocess.run(
                [*part.prefix, 'meson', 'test', '-C', str(part.dir), '--no-rebuild',
                 '--logbase', suite, '--timeout-multiplier', str(part.slower), *tests],
                cwd=ROOT, env=os.environ | part.env | (env or {}), stdout=out,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False)
        lines = log.read_text().splitlines() if log.exists() else []
        cases = tap.log_cases(tests, lines)
        for case in cases:
            if case.reason == tap.NO_RECORD:  # then it is meson that failed
                case.detail = screen.read_text(errors='replace').splitlines()[-5:]
        self.add(part.name, cases, text)

    def run_part(self, part, suites=None):
        if not self.build(part):
            return
        done = set()
        suites = suites or part.suites or self.suites_of(part)
        for suite in suites:
            self.run_suite(part, suite, done)

    def suites_of(self, part):
        """All that the build has, in the usual order; the usual ones even if they are empty."""
        usual = ['unit', 'integration', 'guest']
        found = {s for t in self.tests_of(part).values() for s in t[2]}
        return usual + sorted(found - set(usual) - set(OWN_WAY))

    # --- what is not a part ---

    def run_teeth(self):
        """Builds with a deliberate defect: the named test must fail (teeth.py)."""
        for tooth in TEETH:
            part = Part(f'tooth-{tooth.name}', [f'-Dtooth={tooth.name}', '-Doptimization=0',
                                                '-Ddebug=false'], [])
            log = LOGS / f'{part.name}.log'
            records = part.dir / 'meson-logs' / 'teeth.json'
            self.screen.begin('teeth', f'{tooth.name}, {tooth.program}')
            records.unlink(missing_ok=True)
            with log.open('w') as out:
                def run(*command):
                    return subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT,
                                          stdin=subprocess.DEVNULL, check=False).returncode == 0

                if not (part.dir / 'build.ninja').exists():
                    run('meson', 'setup', '--wrap-mode=nodownload', *part.options, str(part.dir))
                # It fails, as it should; and it builds only what this test needs.
                run('meson', 'test', '-C', str(part.dir), '--logbase', 'teeth', tooth.program)
            lines = records.read_text().splitlines() if records.exists() else []
            if not lines:
                self.broken('teeth', tooth.name, 'the build failed', log, build_errors(log))
                continue
            case = judge(tooth, tap.log_cases({tooth.program: ('teeth', 'tap')}, lines),
                         json.loads(lines[0]).get('stdout') or '')
            self.add('teeth', [case], log)
            if case.result == tap.PASS:
                print(f'       {case.detail[0]}', flush=True)

    def run_lint(self):
        log = LOGS / 'lint.log'
        self.screen.begin('lint', 'style')
        done = subprocess.run([sys.executable, str(ROOT / 'tests/check_style.py')], cwd=ROOT,
                              capture_output=True, text=True, check=False)
        log.write_text(done.stdout + done.stderr)
        self.add('lint', tap.program_cases('lint', 'style', {
            'result': 'OK' if done.returncode == 0 else 'FAIL', 'returncode': done.returncode,
            'stdout': done.stdout, 'stderr': done.stderr}, 'tap'), log)

    def run_linux(self, part, guest, built, suites, done):
        paths = None
        if built and not self.kvm:
            for suite in suites:
                self.run_suite(part, suite, done)
            return
        if guest:
            self.screen.begin('linux', 'guest build')
            paths = guest.wait()
            if paths:
                self.screen.end('ok')
            else:
                self.broken('linux', 'guest-linux', 'the Linux guest was not built', guest.log,
                            guest.log.read_text().splitlines()[-20:])
        for suite in suites if paths and built else ():
            self.run_suite(part, suite, done, env={
                'RAMET_TEST_VMLINUX': paths[0], 'RAMET_TEST_INITRAMFS': paths[1]})

    def summary(self):
        failed = [c for c in self.cases if c.result == tap.FAIL]
        skipped = [c for c in self.cases if c.result == tap.SKIP]

        if skipped:
            print('\nskipped:')
            for case in skipped:
                print(f'  {self.logs[id(case)][0]} {case.key}: {case.reason}')
        if failed:
            print('\nfailed:')
            for case in failed:
                part, log = self.logs[id(case)]
                print(f'  {part} {case.key}: {case.reason or "failed"}   [{relative(log)}]')
                for line in case.detail[:20]:
                    print(f'      {line}')
        print()
        print(tap.counts_line(self.cases), flush=True)
        return 1 if failed or not self.cases else 0


class LinuxGuest:
    """`./dev guest-linux`, out of the way of everything else."""

    def __init__(self):
        self.log = LOGS / 'guest-linux.log'
        self.out = LOGS / 'guest-linux.paths'
        with self.log.open('w') as log, self.out.open('w') as out:
            self.process = subprocess.Popen(
                ['nice', str(ROOT / 'dev'), 'guest-linux'], stdout=out, stderr=log,
                stdin=subprocess.DEVNULL, preexec_fn=os.setpgrp)

    def wait(self):
        """The paths of vmlinux and initramfs, or None."""
        if self.process.wait() != 0:
            return None
        lines = self.out.read_text().splitlines()[-2:]
        return lines if len(lines) == 2 and all(Path(p).is_file() for p in lines) else None

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()


def kvm_usable():
    """Does /dev/kvm open, and answer as KVM does?"""
    import fcntl
    try:
        with open('/dev/kvm', 'rb+', buffering=0) as kvm:
            return fcntl.ioctl(kvm, KVM_GET_API_VERSION, 0) == 12
    except OSError:
        return False


def relative(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def build_errors(log):
    lines = log.read_text(errors='replace').splitlines()
    telling = [l for l in lines if re.search(r'error:|ERROR:|undefined reference|^FAILED', l)]
    return (telling or lines[-20:])[:20]


def plan(wanted):
    """{part name: suites or None for its own}, which of OTHERS to run, and which of WITH_LINUX."""
    if not wanted:  # every test of the devices is in another suite, too
        return dict.fromkeys(('gcc', 'clang', 'asan', 'tsan', 'fuzz')), set(OTHERS), ['linux']
    parts, named = {}, {'clang': 'clang', 'asan': 'asan', 'sync': 'tsan', 'tsan': 'tsan',
                        'fuzz': 'fuzz'}
    for suite in wanted:
        if suite in named:
            parts[named[suite]] = None
        elif suite in WITH_LINUX:
            parts.setdefault('gcc', [])
            if suite == 'devices':
                parts['fuzz'] = None
        elif suite not in OTHERS:
            parts.setdefault('gcc', []).append(suite)
    return parts, set(wanted) & set(OTHERS), [s for s in WITH_LINUX if s in wanted]


def check_names(run, part, suites):
    """A suite that does not exist is the user's mistake, not a pass."""
    have = {s for t in run.tests_of(part).values() for s in t[2]}
    for suite in suites:
        if suite not in have and suite not in ('unit', 'integration', 'guest'):
            print(f'dev: no such suite: {suite} (there are: '
                  f'{" ".join(sorted(have | {"asan", "clang", "sync", "fuzz", *WITH_LINUX, *OTHERS}))})',
                  file=sys.stderr)
            raise SystemExit(2)


def main(wanted):
    LOGS.mkdir(exist_ok=True)
    run, all_parts = Run(), make_parts()
    parts, others, linux = plan(wanted)
    guest = None

    if not run.kvm:
        print('no usable /dev/kvm here: tests that need it are skipped', flush=True)
    try:
        if linux and run.kvm:
            guest = LinuxGuest()
        gcc_built, done = False, set()
        for name, suites in parts.items():
            part = all_parts[name]
            if name != 'gcc':
                run.run_part(part)
                continue
            gcc_built = run.build(part)
            if gcc_built:
                check_names(run, part, suites or [])
                for suite in run.suites_of(part) if suites is None else suites:
                    run.run_suite(part, suite, done)
        if 'teeth' in others:
            run.run_teeth()
        if 'lint' in others:
            run.run_lint()
        if linux:
            run.run_linux(all_parts['gcc'], guest, gcc_built, linux, done)
    finally:
        if guest:
            guest.stop()
    return run.summary()


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # nobody reads any more: `./dev test | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
