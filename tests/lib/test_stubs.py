# SPDX-License-Identifier: Apache-2.0
"""Would a test notice if a public function did nothing? For each symbol that libramet exports, the
case of that name (a program of tests/lib) runs twice, alone: as it is, and with the function
replaced, in the program's eyes, by one that returns -ENOSYS (NULL for a pointer, nothing for void).
The first must pass, the second must not. A symbol without a case is a failure.

LIB_TESTS is a list of programs, ONE_CASE_SO the library made of one_case.c, CC a compiler.
"""

import functools
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'integration'))
import tap  # noqa: E402
import headers  # noqa: E402

PROGRAMS = os.environ['LIB_TESTS'].split(':')
ONE_CASE = os.environ['ONE_CASE_SO']
CC = os.environ.get('CC', 'cc').split()
TIMEOUT = 10  # seconds a case

functions = headers.functions()
found = {}  # symbol -> (what is wrong, or None; how it failed with the stub)


def stub(f, where):
    """A shared object with nothing but a stub of @f. The compiler is not told of noreturn, or it
    would leave out the return."""
    value = '' if f.returns == 'void' else f'return ({f.returns})-38;'
    if f.returns.endswith('*'):
        value = 'return 0;'
    names = sorted({h.header for h in functions.values()})
    text = ''.join(f'#include <ramet/{n}>\n' for n in names)
    text += f'{f.returns} {f.name}({f.signature}) {{ {value} }}\n'
    path = where / f'{f.name}.so'
    subprocess.run([*CC, '-shared', '-fPIC', '-w', '-Dnoreturn=', '-I', str(headers.INCLUDE), '-o',
                    str(path), '-x', 'c', '-'], input=text, text=True, check=True)
    return str(path)


def run(program, case, *preload):
    """(passed, how it ended in words, output)"""
    env = os.environ | {'LD_PRELOAD': ':'.join([*preload, ONE_CASE]), 'ONE_CASE': case,
                        'CMOCKA_MESSAGE_OUTPUT': 'TAP'}
    process = subprocess.Popen([program], env=env, stdin=subprocess.DEVNULL, text=True,
                               errors='replace', stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    timed_out = threading.Event()

    def stop():
        timed_out.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(TIMEOUT, stop)
    timer.start()
    output = process.communicate()[0]
    timer.cancel()
    status = process.returncode
    if timed_out.is_set():
        how = f'was stopped after {TIMEOUT} s'
    elif status < 0:
        how = f'crashed: {signal.Signals(-status).name}'
    else:
        how = f'failed, status {status}' if status else 'ran no case of that name'
    return status == 0 and re.search(rf'^ok \d+ - {case}\b', output, re.M), how, output


def cases_of(program):
    env = os.environ | {'LD_PRELOAD': ONE_CASE, 'ONE_CASE': ''}
    return subprocess.run([program], env=env, check=True, capture_output=True, text=True,
                          timeout=60).stdout.split()


def judge(f, program, where):
    if not program:
        return 'no case has its name', ''
    passed, how, output = run(program, f.name)
    if not passed:
        return f'the case alone {how}\n{output[-1500:]}', ''
    passed, how, output = run(program, f.name, stub(f, where))
    if passed:
        return 'the case passes without the function', ''
    return None, how


@tap.case(timeout=400)
def cases_run_with_stubs():
    tap.need_kvm()
    where, programs = tap.tmp(), {}
    for program in PROGRAMS:
        for name in cases_of(program):
            programs.setdefault(name, program)
    with ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda n: judge(functions[n], programs.get(n), where), functions)
        found.update(zip(functions, results))


def look(symbol):
    tap.need_kvm()
    wrong, how = found.get(symbol, ('it was not tried', ''))
    tap.expect(wrong is None, wrong)
    if not how.startswith('failed'):
        print(f'# {symbol}: with the stub, its case {how}')


for symbol in functions:
    tap.case(functools.partial(look, symbol), name=symbol, looks_only=True)

tap.main()
