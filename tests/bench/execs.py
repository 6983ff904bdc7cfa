# SPDX-License-Identifier: Apache-2.0
"""What an input of a fuzzer costs: machine/exec.c, and beside it a bare loop, floor/exec.c."""
import os

from forks import HERE, Figure, Unavailable, run

EXEC = os.path.join(HERE, 'machine', 'exec')
FLOOR = os.path.join(HERE, 'floor', 'exec-floor')
GUEST = os.path.join(HERE, '..', '..', 'examples', 'guest', 'parser.elf')
ROUNDS = 400

MAGIC = '524d01'
TEXT, NUMBER, REPEAT = '010568656c6c6f', '020107', '04050102000000'
INPUTS = [
    '-', '00', MAGIC, MAGIC + TEXT + NUMBER, MAGIC + TEXT + NUMBER + REPEAT,
    MAGIC + '03' + TEXT + NUMBER + '05' + REPEAT, MAGIC + '03' + TEXT + '03' + NUMBER + REPEAT + '0505',
    MAGIC + '03' * 5, MAGIC + TEXT + '0109ff', MAGIC + 200 * NUMBER, MAGIC + '01ff' + '20' * 255,
]


def values_of(argv):
    """([ns], [what the guest said]) of a program that prints both in turn."""
    numbers = run(argv)
    return numbers[::2], numbers[1::2]


def measure():
    mine, said = values_of([EXEC, GUEST, str(ROUNDS), *INPUTS])
    floor, expected = values_of([FLOOR, GUEST, 'copy', str(ROUNDS), *INPUTS])
    if said != expected or len(mine) != ROUNDS * len(INPUTS):
        raise Unavailable('the guest said something else than in the floor')
    return {'harness-exec': (mine, floor)}


FIGURES = [
    Figure(['harness-exec'], f'an input of a fuzzer, {len(INPUTS)} of them in turn: reset, put it into the '
           "guest's memory, run until it rings, which it does from user mode. Floor: the same ioctls and "
           'copies in one thread; both get the same answers', 9, measure),
]
