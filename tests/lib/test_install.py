# SPDX-License-Identifier: Apache-2.0
"""libramet as others get it: `meson install` into a directory of its own, then programs that are
built outside of the tree with what pkg-config says, by gcc and clang, in C and C++, with
libramet.so and libramet.a. One of them forks a guest and resets it 10,000 times: nothing may grow.

BUILD is the build directory. It was configured for some prefix; the files go below a directory
(DESTDIR), which pkg-config is told of.
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'integration'))
from tap import case, expect, expect_equal, expect_in, main, need_kvm, tmp  # noqa: E402
import headers  # noqa: E402

RESETS, SPAWNS = 10000, 200
OUTSIDE = HERE / 'outside'
WARNINGS = ['-Wall', '-Wextra', '-Werror']
DEST = Path(tempfile.mkdtemp(prefix='ramet-install-'))
atexit.register(shutil.rmtree, DEST, ignore_errors=True)


def run(*command, status=0, timeout=120, env=None):
    """What the command said; the case fails when it ends otherwise."""
    done = subprocess.run([str(c) for c in command], env=os.environ | (env or {}), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, errors='replace',
                          stderr=subprocess.STDOUT, timeout=timeout, check=False)
    expect(done.returncode == status,
           f'{" ".join(map(str, command))}: status {done.returncode}\n{done.stdout[-3000:]}')
    return done.stdout


def installed():
    """{name: path} of all that is installed; installs it the first time."""
    if not any(DEST.iterdir()):
        run('meson', 'install', '-C', os.environ['BUILD'], '--no-rebuild', '--destdir', DEST)
    return {p.name: p for p in DEST.rglob('*') if not p.is_dir()}


def pkg_config(*args):
    """What it says about ramet, when nobody has told it of another one."""
    directory = installed()['ramet.pc'].parent
    system = run('pkg-config', '--variable', 'pc_path', 'pkg-config').strip()
    return run('pkg-config', *args, 'ramet', env={
        'PKG_CONFIG_LIBDIR': f'{directory}:{system}', 'PKG_CONFIG_PATH': '',
        'PKG_CONFIG_SYSROOT_DIR': str(DEST)}).split()


def build(compiler, source, *flags, libs=None):
    """The program, made in the case's directory."""
    program = tmp() / 'program'
    name, *options = compiler.split()
    run(name, *WARNINGS, *flags, *options, OUTSIDE / source, '-o', program,
        *pkg_config('--cflags'), *(pkg_config('--libs') if libs is None else libs))
    return program


def start(program, *args, **how):
    return run(program, *args, env={'LD_LIBRARY_PATH': str(installed()['libramet.so'].parent)},
               **how)


def static_libs():
    """As for --static, but of Ramet alone: not all of the rest can be had as archives."""
    libs = pkg_config('--static', '--libs')
    expect_in('-lramet', libs, 'pkg-config --static --libs')
    return ['-l:libramet.a' if l == '-lramet' else l for l in libs]


@case
def what_is_installed():
    version = re.search(r"version: '([\d.]+)'", (headers.ROOT / 'meson.build').read_text())[1]
    public = {p.name for p in (headers.INCLUDE / 'ramet').glob('*.h')}
    names = set(installed())
    manual = {p.name for p in (headers.ROOT / 'docs').glob('*.[1-8]')}
    expect_equal({n for n in names if n.endswith('.h')}, public, 'headers')
    expect_equal({n for n in names if re.search(r'\.[1-8]$', n)}, manual, 'manual pages')
    expect_equal(names - public - manual, {
        'ramet', 'ramet-spawner', 'ramet.pc', 'libramet.a', 'libramet.so', 'libramet.so.0',
        f'libramet.so.{version}'}, 'other files')
    expect_equal(pkg_config('--modversion'), [version], 'version')


@case
def static_linking_needs_more():
    plain, static = pkg_config('--libs'), pkg_config('--static', '--libs')
    expect_equal([l for l in plain if l.startswith('-l')], ['-lramet'], 'libraries')
    for name in ('-lZydis', '-luring', '-lseccomp', '-lelf'):
        expect_in(name, static, 'libraries of a static program')


@case(timeout=400)
def ten_thousand_resets_leave_nothing():
    need_kvm()
    print('#', *start(build('cc', 'forks.c', '-std=c11', '-Wpedantic'), RESETS, SPAWNS,
                      timeout=300).splitlines(), sep='\n# ')


@case
def program_of_clang():
    need_kvm()
    start(build('clang', 'forks.c', '-std=c11', '-Wpedantic'), 100, 10)


@case
def program_with_the_archive_and_names_of_its_own():
    need_kvm()
    program = build('cc', 'forks.c', '-std=c11', '-DOWN_NAMES', libs=static_libs())
    expect('libramet' not in run('ldd', program), 'it is linked with libramet.so')
    start(program, 100, 10)


def leak(kind):
    need_kvm()
    said = start(build('cc', 'forks.c'), 1200, 10, kind, status=1)
    expect_in('GROWN', said)


for a_kind in ('fd', 'mapping', 'malloc', 'thread'):
    case(lambda kind=a_kind: leak(kind), name=f'leak_is_noticed({a_kind})')


@case
def programs_in_cplusplus():
    for compiler in ('g++', 'clang++ -Wno-nested-anon-types'):
        for standard in ('c++17', 'c++20'):
            said = start(build(compiler, 'headers.cc', f'-std={standard}', '-Wpedantic'))
            expect_in('kernel', said)


@case
def harness_in_c_and_cplusplus():
    for compiler in ('cc -std=c11', 'clang -std=c17', 'g++ -std=c++20 -x c++',
                     'clang++ -std=c++17 -x c++'):
        program = build(compiler, 'cases.c', '-Wno-missing-field-initializers')
        expect_equal(start(program, '--list').split(), ['with_options', 'without_options'], 'cases')


main()
