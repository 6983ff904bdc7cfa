# SPDX-License-Identifier: Apache-2.0
"""The harness of the integration tests: what a case leaves behind is found, and removed."""

import os
import subprocess
import sys
from pathlib import Path

INTEGRATION = Path(__file__).resolve().parent.parent / 'integration'
sys.path.insert(0, str(INTEGRATION))

from tap import case, expect, expect_equal, expect_in, main, tmp


def run(body, command='exit 0'):
    """A test program with one case, whose `ramet` is a shell script; its status and output."""
    script = tmp() / 'ramet'
    script.write_text('#!/bin/sh\n' + command + '\n')
    script.chmod(0o755)
    program = tmp() / 'test_x.py'
    program.write_text('from tap import *\n@case(timeout=1.5)\ndef it():\n'
                       + ''.join(f'    {line}\n' for line in body.splitlines()) + 'main()\n')
    environment = {'RAMET': str(script), 'TAP_GRACE': '0.5', 'PYTHONPATH': str(INTEGRATION)}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True,
                          check=False, env=os.environ | environment)
    return done.returncode, done.stdout + done.stderr


@case
def passes_with_its_time():
    status, text = run('expect_equal(ramet("a", "b c").stdout, "a.b c\\n")', 'echo "$1.$2"')
    expect_equal(status, 0, text)
    expect_in('1..1\nok 1 - it # ', text)


@case
def a_failure_shows_the_command():
    status, text = run('expect_equal(ramet("run").status, 0, "status")', 'echo oops >&2; exit 3')
    expect_equal(status, 1, text)
    for part in ('not ok 1 - it', '# Failure: status: got 3, want 0', '# status 3',
                 '# stderr: oops'):
        expect_in(part, text)


@case
def skips_with_a_reason():
    status, text = run('skip("no moon")')
    expect_equal((status, text), (0, '1..1\nok 1 - it # SKIP no moon\n'))


@case
def an_orphan_is_found_and_killed():
    status, text = run('ramet()', 'setsid sleep 987 >/dev/null 2>&1 </dev/null &\n'
                                  f'echo $! >{tmp()}/pid')
    expect_equal(status, 1, text)
    expect_in('# left a process behind: ', text)
    pid = int((tmp() / 'pid').read_text())
    expect(not Path('/proc', str(pid)).exists(), 'the orphan is still running')


@case
def a_file_in_the_runtime_directory_is_found():
    status, text = run('ramet()', 'cd $XDG_RUNTIME_DIR && mkdir ramet && : >ramet/web.sock')
    expect_equal(status, 1, text)
    expect_in('# left a file behind: $RUN/ramet/web.sock', text)


@case
def own_files_and_output_are_fine():
    status, text = run('p = start()\np.wait_output("ready", count=2)\np.send("x\\n")\n'
                       'expect_equal(p.wait().stdout, "ready\\nready\\nx\\n")\n'
                       'expect((tmp() / "mine").exists(), "no file")',
                       'echo ready; echo ready; read a; echo $a; : >mine')
    expect_equal(status, 0, text)


@case
def timeouts_kill_the_command():
    status, text = run('ramet(timeout=0.3)', 'sleep 987')
    expect_equal(status, 1, text)
    expect_in('still running after 0.3 s, killed', text)
    status, text = run('while True: pass')
    expect_in('CaseTimeout', text)


@case
def waiting_for_output_ends_with_the_command():
    status, text = run('start().wait_output("never", timeout=60)', 'echo other')
    expect_equal(status, 1, text)
    expect_in("waited for 1 x 'never' on stdout, but it ended", text)


@case
def a_command_left_running_is_a_failure():
    status, text = run('start()', 'sleep 987')
    expect_equal(status, 1, text)
    expect_in('the case ended while its command was running', text)


main()
