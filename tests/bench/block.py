# SPDX-License-Identifier: Apache-2.0
"""The block device: block/block.c, and beside it a bare io_uring loop, floor/block.c."""
import atexit
import os
import tempfile

from forks import HERE, Figure, run

OTHERS = os.path.join(HERE, 'block', 'others')
BLOCK = os.path.join(HERE, 'block', 'block')
FLOOR = os.path.join(HERE, 'floor', 'block-floor')
MIB = 512

_image = None


def image():
    """A file with something in each block, on the file system of the build, not in /tmp, which may
    be memory."""
    global _image
    if not _image:
        f = tempfile.NamedTemporaryFile(dir=HERE, prefix='disk-', delete=False)
        atexit.register(os.unlink, f.name)
        with f:
            for _ in range(MIB):
                f.write(os.urandom(1 << 20))
            os.fsync(f.fileno())
        _image = f.name
    return _image


def forget():
    """Nothing of the file is in the page cache."""
    fd = os.open(image(), os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def remember():
    with open(image(), 'rb') as f:
        while f.read(1 << 20):
            pass


def figure(name, what, rounds, mine, floor, before):
    """@mine and @floor: mode and what follows the name of the file."""
    def measure():
        before()
        a = run([BLOCK, mine[0], image(), *map(str, mine[1:])])
        before()
        return {name: (a, run([FLOOR, floor[0], image(), *map(str, floor[1:])]))}

    return Figure([name], what, rounds, measure)


def requests(mode, what, n, suffix='', before=forget):
    return figure(f'blk-{mode}{suffix}', f'{what}, by a driver in the same thread: from building the '
                  'request until it is seen in the used ring. Floor: the same I/O by a bare io_uring '
                  'loop', 7, [mode, n], [mode, n], before)


def other(device, mode, what):
    def measure():
        size = run([OTHERS, 'bytes', device])[0]
        return {f'{device}-{mode}': (run([OTHERS, mode, device, '200']),
                                     run([FLOOR, 'copy', str(size), '200']))}

    return Figure([f'{device}-{mode}'], f'{what}. Floor: a copy of as many bytes as its saved state '
                  'has, there and back', 5, measure)


FIGURES = [
    requests('rand-qd1', 'a 4 KiB read of a block that is not in the page cache, one at a time', 2000),
    requests('rand-qd32', 'the same with 32 in the queue', 10000),
    requests('seq', '128 KiB reads in a row, nothing in the page cache, one at a time', 3000),
    requests('seq-write', '128 KiB writes in a row, into the page cache, one at a time', 1000),
    requests('rand-qd1', 'a 4 KiB read of a block that is in the page cache, one at a time', 20000,
             '-cached', remember),
    requests('rand-qd32', 'the same with 32 in the queue', 50000, '-cached', remember),
    requests('seq', '128 KiB reads in a row, all in the page cache, one at a time', 4000, '-cached',
             remember),
    figure('disk-quiesce', 'quiesce() of a disk with 32 reads of 4 KiB just begun, in the page cache. '
           'Floor: a bare io_uring loop waits for as many', 5, ['quiesce', 500, 32],
           ['drain', 500, 32], remember),
    figure('disk-restore', "a device without a disk takes the files and the state of a clone's disk: "
           'an image and an overlay. Floor: the calls that make descriptors and an empty memfd', 5,
           ['restore', 100], ['layers', 100], remember),
    other('rng', 'quiesce', 'quiesce() and resume() of an idle virtio-rng'),
    other('rng', 'restore', 'a virtio-rng in a clone takes its state, and goes on'),
    other('console', 'quiesce', 'quiesce() and resume() of an idle virtio-console'),
    other('console', 'restore', 'a virtio-console in a clone takes its state, and goes on'),
]
