# SPDX-License-Identifier: Apache-2.0
"""What libramet exports is what src/libramet.syms lists, and that is what the headers declare.

LIBRAMET is the directory of libramet.so and libramet.a.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'integration'))
from tap import case, expect, expect_equal, main  # noqa: E402
import headers  # noqa: E402

LIB = Path(os.environ['LIBRAMET'])


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def difference(got, want, what):
    """Nothing, or who has what the other lacks."""
    wrong = [f'{n} is not in {what}' for n in sorted(set(got) - set(want))]
    wrong += [f'{n} is only in {what}' for n in sorted(set(want) - set(got))]
    expect(not wrong, '; '.join(wrong))


@case
def list_is_sorted_and_without_doubles():
    expect_equal(headers.symbols(), sorted(set(headers.symbols())), 'src/libramet.syms')


@case
def headers_declare_the_list():
    difference(headers.functions(), headers.symbols(), 'src/libramet.syms')


@case
def shared_library_exports_the_list():
    lines = [l.split() for l in output('nm', '-D', '--defined-only', LIB / 'libramet.so').splitlines()]
    version = f'RAMET_{abi()}'
    difference([l[-1] for l in lines if l[-1] != version],
               [f'{n}@@{version}' for n in headers.symbols()], 'src/libramet.syms')


@case
def archive_exports_the_list():
    lines = output('nm', '-g', '--defined-only', LIB / 'libramet.a').splitlines()
    difference([l.split()[2] for l in lines if len(l.split()) == 3], headers.symbols(),
               'src/libramet.syms')


def abi():
    return re.search(r'^#define RAMET_ABI (\d+)', (headers.INCLUDE / 'ramet/ramet.h').read_text(),
                     re.M)[1]


@case
def soname_is_the_abi():
    dynamic = output('readelf', '-dW', LIB / 'libramet.so')
    expect_equal(re.search(r'SONAME.*\[(.*)\]', dynamic)[1], f'libramet.so.{abi()}', 'soname')


@case
def calls_within_the_library_stay_there():
    """A program may have functions of these names, or put others in their place (test_stubs.py)."""
    relocations = output('readelf', '-rW', LIB / 'libramet.so')
    expect_equal(re.findall(r'\bramet_\w+', relocations), [], 'public names in relocations')


@case
def every_function_has_a_comment():
    bare = [f.name for f in headers.functions().values() if not f.doc]
    expect_equal(bare, [], 'functions without a comment')


main()
