# SPDX-License-Identifier: Apache-2.0
"""Fuzzers that use <ramet/fuzz.h>, and find the bug that is planted in the examples' parser: the
example's own, libFuzzer, and AFL++. The latter two are compiled here, as a user would.

LIBRAMET: the build directory. EXAMPLES: the directory of the built examples.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'integration'))
from tap import case, expect, expect_equal, expect_in, main, need_kvm, tmp  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LIB = os.environ['LIBRAMET']
EXAMPLES = Path(os.environ['EXAMPLES'])
GUEST = EXAMPLES / 'guest/parser.elf'
SEEDS = {'text': b'RM\1\1\5hello\2\1\7', 'repeat': b'RM\1\1\5hello\4\5\2\0\0\0\0', 'group': b'RM\1\3\2\1\7\5',
         'all': b'RM\1\1\1x\3\2\1\7\5\4\5\2\0\0\0\0'}


def run(*argv, env=None, timeout, stdin=subprocess.DEVNULL):
    environ = os.environ | {'TMPDIR': str(tmp())} | {k: str(v) for k, v in (env or {}).items()}
    return subprocess.run([str(a) for a in argv], env=environ, stdin=stdin, capture_output=True, cwd=tmp(),
                          errors='replace', text=True, timeout=timeout, check=False)


def seeds():
    where = tmp() / 'seeds'
    where.mkdir()
    for name, data in SEEDS.items():
        (where / name).write_bytes(data)
    return where


def compile_with(compiler, name, **env):
    """The example of that name, made by a fuzzer's compiler."""
    program = tmp() / name
    r = run(*compiler, '-O1', '-I', ROOT / 'include', ROOT / f'examples/{name}.c', '-o', program, '-L', LIB,
            '-lramet', f'-Wl,-rpath,{LIB}', env=env, timeout=60)
    expect_equal(r.returncode, 0, f'{compiler[0]}: {r.stderr[-1000:]}')
    return program


def expect_crash_report(text):
    """Where the guest was, by name, and who had called it."""
    for word in ('parse_repeat', 'parse_records', 'parse_packet', 'serve'):
        expect_in(word, text, 'the report')


@case
def the_example_finds_the_bug():
    need_kvm()
    r = run(EXAMPLES / 'fuzz_parser', timeout=100)
    expect_equal(r.returncode, 0, f'status; {r.stdout}{r.stderr}')
    expect(re.search(r'^ +[0-9.]+ s +[0-9]+ packets +[0-9]+/s', r.stdout, re.M), 'no rate')
    packet = re.search(r'^the guest crashed with ([0-9a-f]+)$', r.stdout, re.M)
    expect(packet, f'no packet: {r.stdout}')
    expect(packet[1].startswith('524d01') and '04' in packet[1], f'not such a packet: {packet[1]}')
    expect_crash_report(r.stdout)


@case
def the_example_says_what_is_wrong():
    need_kvm()
    r = run(EXAMPLES / 'fuzz_parser', tmp() / 'nothing', timeout=20)
    expect_equal(r.returncode, 2, 'status')
    expect_in('nothing', r.stderr)


@case
def libfuzzer_finds_the_bug():
    need_kvm()
    program = compile_with(['clang', '-fsanitize=fuzzer'], 'fuzz_libfuzzer')
    found = tmp() / 'found'
    r = run(program, '-seed=1', '-max_total_time=60', '-max_len=64', '-use_value_profile=0',
            f'-artifact_prefix={found}', '-print_final_stats=1', seeds(), env={'GUEST': GUEST}, timeout=100)
    expect(r.returncode != 0, f'it has found nothing: {r.stderr[-2000:]}')
    expect_crash_report(r.stderr)
    expect(list(tmp().glob('found*')), 'no input was kept')


@case
def afl_sees_coverage():
    need_kvm()
    program = afl_program()
    where, maps = seeds(), []
    for name in SEEDS:
        out = tmp() / f'map-{name}'
        r = run('afl-showmap', '-q', '-t', '20000', '-o', out, '--', program, stdin=(where / name).open('rb'),
                env=AFL | {'GUEST': GUEST}, timeout=60)
        expect_equal(r.returncode, 0, f'afl-showmap: {r.stdout[-500:]}{r.stderr[-500:]}')
        maps.append(set(out.read_text().split()))
    expect(all(len(m) > 10 for m in maps), f'{[len(m) for m in maps]} places')
    expect(len({frozenset(m) for m in maps}) == len(maps), 'inputs look the same')


@case
def afl_fuzzes():
    need_kvm()
    out = tmp() / 'out'
    r = run('afl-fuzz', '-V', '5', '-s', '1', '-t', '2000', '-i', seeds(), '-o', out, '--', afl_program(),
            env=AFL | {'GUEST': GUEST}, timeout=100)
    expect_equal(r.returncode, 0, f'afl-fuzz: {r.stdout[-2000:]}')
    stats = dict(re.split(r' *: ', line, maxsplit=1)
                 for line in (out / 'default/fuzzer_stats').read_text().splitlines())
    # Persistent: the guest boots once for many inputs. When each one boots it, there are less than 20 a second.
    expect_in('persistent', stats['target_mode'], 'the mode')
    expect(int(stats['execs_done']) > 500, f'{stats["execs_done"]} inputs')
    expect(int(stats['corpus_found']) + int(stats['saved_crashes']) > 0, 'it has found nothing new')
    expect(int(stats['edges_found']) > 20, f'{stats["edges_found"]} edges')
    expect(float(stats['stability'].rstrip('%')) > 95, f'stability {stats["stability"]}')


# What is set counts, whatever its value is. AFL_SKIP_BIN_CHECK would hide that the program is a persistent one.
AFL = {'AFL_SKIP_CPUFREQ': '1', 'AFL_I_DONT_CARE_ABOUT_MISSING_CRASHES': '1', 'AFL_NO_AFFINITY': '1',
       'AFL_NO_UI': '1', 'AFL_FORKSRV_INIT_TMOUT': '20000'}


def afl_program():
    expect(shutil.which('afl-clang-fast'), 'no afl-clang-fast: package afl++')
    return compile_with(['afl-clang-fast'], 'fuzz_afl', AFL_LLVM_INSTRUMENT='classic', AFL_QUIET='1')


main()
