# SPDX-License-Identifier: Apache-2.0
"""ramet overlay: images of chains of files that are made here by what src/io/overlay.h says of the format,
and by none of its code."""

import json
import os
import pty
import random
import resource
import signal
import struct
import subprocess
import time
from pathlib import Path

from tap import case, cases_for, expect, expect_equal, expect_error, expect_in, main, ramet, start, tmp

INPUT = 2
SECTOR = 512
HEADER = struct.Struct('<8sIIQ16s16sQQQQQqII256s256s1024s')


def checksum(header):
    total = 0xcbf29ce484222325
    for (word,) in struct.iter_unpack('<Q', header):
        total = ((total ^ word) * 0x100000001b3) & 0xffffffffffffffff
    return total


def header(ident, parent, size, image, name, parent_name):
    bitmap = -(-size // SECTOR // (4096 * 8)) * 4096
    st = os.stat(image)
    fields = [b'RAMETOVL', 1, 4096, 0, ident, parent, size, 4096, bitmap, 4096 + bitmap, st.st_size,
              st.st_mtime_ns // 10**9, st.st_mtime_ns % 10**9, 1, name.encode(), parent_name.encode(),
              str(image).encode()]
    raw = HEADER.pack(*fields).ljust(4096, b'\0')
    fields[3] = checksum(raw)
    return HEADER.pack(*fields).ljust(4096, b'\0'), bitmap


class Overlay:
    def __init__(self, name, image, below=None, where=None):
        self.path = (where or tmp()) / name
        self.name, self.image, self.below = name, image, below
        self.id = os.urandom(16)
        self.size = os.stat(image).st_size
        self.bits = bytearray(-(-self.size // SECTOR // (4096 * 8)) * 4096)
        self.sectors = {}

    def put(self, sector, data):
        for i in range(0, len(data), SECTOR):
            n = sector + i // SECTOR
            self.bits[n // 8] |= 1 << n % 8
            self.sectors[n] = data[i:i + SECTOR]

    def write(self):
        head, bitmap = header(self.id, self.below.id if self.below else bytes(16), self.size, self.image,
                              self.name, self.below.name if self.below else '')
        with open(self.path, 'wb') as f:
            f.write(head)
            f.write(self.bits)
            for n, data in self.sectors.items():
                if any(data):  # zeros are a hole
                    f.seek(4096 + bitmap + n * SECTOR)
                    f.write(data)
            f.truncate(4096 + bitmap + self.size)
        return self

    def shows(self):
        seen = bytearray(self.below.shows() if self.below else Path(self.image).read_bytes())
        for n, data in self.sectors.items():
            seen[n * SECTOR:(n + 1) * SECTOR] = data
        return bytes(seen)


def make_image(size=40 * SECTOR, name='disk.img'):
    path = tmp() / name
    path.write_bytes(random.randbytes(size))
    return path


def make_chain(generations=3, image=None):
    image = image or make_image()
    sectors = os.stat(image).st_size // SECTOR
    top = None
    for i in range(generations):
        top = Overlay(f'web.vda.{i + 1}.overlay', image, top)
        for _ in range(6):
            at = random.randrange(sectors)
            n = random.randint(1, min(5, sectors - at))
            top.put(at, random.randbytes(n * SECTOR) if random.randrange(3) else bytes(n * SECTOR))
        top.write()
    return top


def files():
    return sorted(p.name for p in tmp().iterdir())


def export(top, *more, **how):
    return ramet('overlay', 'export', top.path, tmp() / 'out.img', *more, **how)


# --- export ---

@case
def images_are_right():
    random.seed(7)
    for generations in (1, 2, 3, 40):
        top = make_chain(generations)
        r = export(top, '--force')
        expect_equal((r.status, r.stdout, r.stderr), (0, '', ''), 'the command')
        expect((tmp() / 'out.img').read_bytes() == top.shows(), f'another image of {generations}')


@case
def image_is_sparse():
    image = tmp() / 'disk.img'
    with open(image, 'wb') as f:
        f.truncate(1 << 34)
    top = Overlay('web.vda.1.overlay', image)
    top.put(1000, random.randbytes(8 * SECTOR))
    top.put(2000, bytes(8 * SECTOR))
    top.put((1 << 34) // SECTOR - 1, random.randbytes(SECTOR))
    top.write()
    expect_equal(export(top).status, 0, 'status')
    st = os.stat(tmp() / 'out.img')
    expect_equal(st.st_size, 1 << 34, 'size')
    expect(st.st_blocks * 512 < 1 << 20, f'{st.st_blocks} blocks')


@case
def existing_image_stays():
    top = make_chain()
    (tmp() / 'out.img').write_text('precious')
    expect_error(export(top), INPUT, 'out.img', '--force')
    expect_equal((tmp() / 'out.img').read_text(), 'precious', 'the file')
    expect_equal(export(top, '--force').status, 0, 'status')
    expect((tmp() / 'out.img').read_bytes() == top.shows(), 'another image')


@case
def changed_image_is_noticed():
    top = make_chain()
    with open(top.image, 'r+b') as f:
        f.write(b'other')
    os.utime(top.image, ns=(1, 1))
    expect_error(export(top), INPUT, top.image.name, 'changed', '--force')
    expect('out.img' not in files(), 'an image was left')
    expect_equal(json.loads(ramet('overlay', 'info', top.path, '--json').stdout)['image']['state'], 'changed',
                 'state')
    expect_equal(export(top, '--force').status, 0, 'status')
    expect((tmp() / 'out.img').read_bytes() == top.shows(), 'another image')


@case
def missing_parts_are_named():
    top = make_chain()
    os.rename(top.below.path, tmp() / 'elsewhere')
    expect_equal(export(top).status, 0, 'found by its id')
    os.unlink(tmp() / 'elsewhere')
    expect_error(export(top, '--force'), INPUT, top.below.name, 'missing')
    top.below.write()
    os.unlink(top.image)
    expect_error(export(top, '--force'), INPUT, 'disk.img')
    expect_in('missing', ramet('overlay', 'info', top.path).stdout)


@case
def goes_round():
    top = make_chain(2)
    top.below.below = top
    top.below.write()
    expect_error(export(top), INPUT, 'more than')


@cases_for(['nothing', 'text', 'short', 'long', 'flipped', 'directory', 'fifo'])
def not_an_overlay(what):
    top = make_chain(1)
    raw = top.path.read_bytes()
    path = tmp() / 'x.overlay'
    if what == 'directory':
        path.mkdir()
    elif what == 'fifo':
        os.mkfifo(path)
    elif what != 'nothing':
        path.write_bytes({'text': b'hello', 'short': raw[:-SECTOR], 'long': raw + b'x',
                          'flipped': raw[:100] + b'\1' + raw[101:]}[what])
    for command in ('info', 'export'):
        words = [path] + ([tmp() / 'out.img'] if command == 'export' else [])
        expect_error(ramet('overlay', command, *words, timeout=10), INPUT, 'x.overlay')


@case
def no_space():
    top = make_chain(1, make_image(1 << 20))

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
    done = subprocess.run([os.environ['RAMET'], 'overlay', 'export', top.path, tmp() / 'out.img'],
                          preexec_fn=limit, capture_output=True, text=True, timeout=20, check=False)
    expect_equal(done.returncode, INPUT, 'status')
    expect_in('out.img', done.stderr)
    expect('out.img' not in files() and not [f for f in files() if 'part' in f], f'left: {files()}')


def slow_chain():
    """Nothing but holes, in two million runs: a few seconds of work."""
    image = tmp() / 'disk.img'
    with open(image, 'wb') as f:
        f.truncate(1 << 30)
    top = Overlay('web.vda.1.overlay', image)
    top.bits = bytearray(b'\x55' * len(top.bits))
    return top.write()


@case
def interrupted():
    top = slow_chain()
    before = files()
    for sig in (signal.SIGINT, signal.SIGKILL):
        command = start('overlay', 'export', top.path, tmp() / 'out.img')
        time.sleep(0.2)
        command.signal(sig)
        expect_equal(command.wait().status, -9 if sig == signal.SIGKILL else 128 + sig, f'status after {sig}')
        expect_equal(files(), before, 'files')


@case
def terminal_shows_progress():
    top = slow_chain()
    main_end, end = pty.openpty()
    began = time.monotonic()
    child = subprocess.Popen([os.environ['RAMET'], 'overlay', 'export', top.path, tmp() / 'out.img'],
                             stderr=end)
    os.close(end)
    text = b''
    while True:
        try:
            piece = os.read(main_end, 4096)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(main_end)
    expect_equal(child.wait(), 0, 'status')
    if time.monotonic() - began > 1.5:
        expect_in('% of 1 GiB', text.decode())
    expect(not text or text.endswith(b'\x1b[K'), f'left on the terminal: {text[-80:]}')


# --- info, and the command line ---

@case
def info_says_all():
    top = make_chain(2)
    text = ramet('overlay', 'info', top.path).stdout
    for word in (top.name, top.below.name, str(top.image), 'unchanged', '20 KiB'):
        expect_in(word, text)
    o = json.loads(ramet('overlay', 'info', '--json', top.path).stdout)
    expect_equal(o['disk_bytes'], top.size, 'size')
    expect_equal([(c['file'], c['id'], c['own_bytes']) for c in o['chain']],
                 [(v.name, v.id.hex(), SECTOR * len(v.sectors)) for v in (top, top.below)], 'chain')
    expect_equal(o['image'], {'path': str(top.image), 'state': 'unchanged'}, 'image')
    expect_equal(o['in_use'], False, 'in use')


@case
def a_name_cannot_steer_the_terminal():
    image = tmp() / 'im\x1b]0;title\x07\x9b31m.img'
    image.write_bytes(bytes(64 * SECTOR))
    top = Overlay('a.vda.1.overlay', image)
    top.write()
    for answer in (ramet('overlay', 'info', top.path), ramet('overlay', 'export', top.path, image)):
        text = answer.stdout + answer.stderr
        expect_in('im?]0;title?', text)
        expect(not any(c != '\n' and (ord(c) < 32 or 0x7f <= ord(c) < 0xa0) for c in text),
               f'control characters: {text!r}')


@cases_for([(), ('frob',), ('export',), ('export', 'a'), ('export', 'a', 'b', 'c'), ('info',),
            ('info', 'a', 'b'), ('info', 'a', '--frob')])
def wrong_usage(words):
    expect_error(ramet('overlay', *words), INPUT)


@case
def help_says_what_dies():
    text = ramet('overlay', '--help').stdout
    for word in ('export', 'info', '--force', '--json', 'in memory', 'gone with the machine'):
        expect_in(word, text)


main()
