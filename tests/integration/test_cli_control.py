# SPDX-License-Identifier: Apache-2.0
"""ramet list, pause, resume, kill, fork, and the protocol of the control socket."""

import json
import os
import re
import signal
import socket
import time

from tap import (case, cases_for, events, expect, expect_equal, expect_error, expect_in, guest, main, need_kvm, ramet,
                 runtime_dir, start, tmp)

INPUT, KILLED = 2, 14


def launch(*args, name='web', kernel='hang.elf', said='hang: now'):
    need_kvm()
    p = start('run', '--kernel', guest(kernel), '--name', name, '--memory', '16M', *args)
    p.wait_output(said)
    return p


def ok(*args):
    r = ramet(*args)
    expect_equal((r.status, r.stderr), (0, ''), ' '.join(args))
    return r.stdout


def end(p, *names):
    for name in names:
        ok('kill', name)
    p.wait(10)
    expect_equal(p.status, KILLED, 'status')


def machines():
    return {m['name']: m for m in json.loads(ok('list', '--json'))}


class Client:
    def __init__(self, name='web'):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(runtime_dir() / 'ramet' / f'{name}.sock'))
        self.file = self.socket.makefile('rb')

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else json.dumps(data).encode() + b'\n')

    def answer(self):
        line = self.file.readline()
        return json.loads(line) if line else None

    def ask(self, **request):
        self.send({'v': 1} | request)
        return self.answer()

    def close(self):
        self.file.close()
        self.socket.close()


# --- the commands ---

@case
def list_shows_what_runs():
    expect_equal(ok('list'), 'no machines are running\n', 'empty list')
    expect_equal(json.loads(ok('list', '--json')), [], 'empty JSON list')
    a, b = launch(), launch(name='other')
    lines = ok('list').splitlines()
    expect_equal(lines[0].split(), ['NAME', 'PID', 'STATE', 'CPUS', 'MEMORY', 'UPTIME'], 'head')
    rows = {line.split()[0]: re.split('  +', line) for line in lines[1:]}
    expect_equal(sorted(rows), ['other', 'web'], 'names')
    expect_equal(rows['web'][2:5], ['running', '1', '16 MiB'], 'row')
    expect(os.path.exists('/proc/' + rows['web'][1]), 'no such process')
    end(a, 'web')
    end(b, 'other')


@case
def pause_and_resume():
    p = launch()
    for _ in range(2):
        ok('pause', 'web')
        expect_equal(machines()['web']['state'], 'paused', 'state')
        pid = machines()['web']['pid']
        before = cpu_time(pid)
        time.sleep(0.2)
        expect(cpu_time(pid) - before <= 2, 'it runs while it is paused')
        ok('pause', 'web')
        ok('resume', 'web')
        ok('resume', 'web')
        expect_equal(machines()['web']['state'], 'running', 'state')
    end(p, 'web')


def cpu_time(pid):
    """In clock ticks."""
    with open(f'/proc/{pid}/stat') as f:
        fields = f.read().rpartition(')')[2].split()
    return int(fields[11]) + int(fields[12])


@case
def a_tree_of_clones():
    p = launch('--events', 'ev')
    text = ok('fork', 'web', '-n', '2')
    expect_equal([line.split()[0] for line in text.splitlines()[2:]], ['web.1', 'web.2'], 'clones')
    expect_in('web was stopped for', text, 'output')
    ok('fork', 'web.2')
    ok('fork', 'web')
    ok('fork', 'web.2.1', '-n', '1')
    all_names = ['web', 'web.1', 'web.2', 'web.2.1', 'web.2.1.1', 'web.3']
    expect_equal(sorted(machines()), all_names, 'names')
    third = [e for e in events(tmp() / 'ev') if e['name'] == 'web.3'][0]
    expect_equal(third['index'], 1, 'the number of web.3 in its fork')
    end(p, *all_names)
    reported = [e['name'] for e in events(tmp() / 'ev') if e['event'] == 'exit']
    expect_equal(sorted(reported), all_names, 'exit events')


@case
def clones_outlive_their_parent():
    p = launch()
    ok('fork', 'web')
    ok('kill', 'web')
    expect_equal(list(machines()), ['web.1'], 'names')
    ok('fork', 'web.1')
    end(p, 'web.1', 'web.1.1')


@case
def clones_of_a_paused_machine_are_paused():
    p = launch()
    ok('pause', 'web')
    ok('fork', 'web')
    expect_equal({n: m['state'] for n, m in machines().items()}, {'web': 'paused', 'web.1': 'paused'}, 'states')
    ok('resume', 'web.1')
    expect_equal(machines()['web.1']['state'], 'running', 'state')
    end(p, 'web', 'web.1')


@case
def clones_of_a_busy_machine_are_whole():
    p = launch('--cpus', '2', '--cmdline', 'ms=3000', kernel='writer.elf', said='writer: running')
    for _ in range(3):
        ok('fork', 'web', '-n', '2')
    p.wait(60)
    expect_equal(p.status, 0, 'status')
    expect_equal(p.stdout.count('errors=0'), 7, 'machines without errors')


@case
def a_machine_that_is_not_there():
    p = launch()
    expect_error(ramet('pause', 'web.7'), INPUT, "'web.7'")
    expect_error(ramet('kill', 'wob'), INPUT, "'wob'")
    end(p, 'web')


# --- the protocol ---

@case
def requests_on_one_connection():
    p, c = launch(), Client()
    vm = c.ask(op='list')['vms'][0]
    expect_equal((vm['name'], vm['state'], vm['index'], vm['parent'], vm['cpus'], vm['memory_bytes']),
                 ('web', 'running', 0, None, 1, 16 << 20), 'list')
    c.send(b'{"v":1,"op":"pause","vm":"web"}\n{"v":1,"op":"resume","vm":"web"}\n{"v":1,"op":"list"}\n')
    expect_equal([c.answer()['ok'] for _ in range(3)], [True] * 3, 'answers')
    r = c.ask(op='fork', vm='web', n=2, unknown='field')
    expect_equal([k['name'] for k in r['clones']], ['web.1', 'web.2'], 'clones')
    expect(r['pause_ns'] > 0 and r['failed'] == 0 and r['generation'] == 1, r)
    for name in ('web.1', 'web.2', 'web'):
        expect_equal(c.ask(op='kill', vm=name), {'v': 1, 'ok': True}, 'kill')
    p.wait(10)
    c.close()


BAD_REQUESTS = {
    'no JSON': b'hello\n', 'an array': b'[1]\n', 'empty': b'\n', 'no version': b'{"op":"list"}\n',
    'version 2': b'{"v":2,"op":"list"}\n', 'no op': b'{"v":1}\n', 'unknown op': b'{"v":1,"op":"dance","vm":"web"}\n',
    'no vm': b'{"v":1,"op":"pause"}\n', 'vm a number': b'{"v":1,"op":"pause","vm":7}\n',
    'fork into 0': b'{"v":1,"op":"fork","vm":"web","n":0}\n', 'n a text': b'{"v":1,"op":"fork","vm":"web","n":"2"}\n',
    'n huge': b'{"v":1,"op":"fork","vm":"web","n":99999999999}\n', 'twice': b'{"v":1,"v":1,"op":"list"}\n',
    'no UTF-8': b'{"v":1,"op":"\xff"}\n', 'a NUL': b'{"v":1,"op":"li\0st"}\n', 'deep': b'[' * 4000 + b'\n',
}


@case
def bad_requests():
    p = launch()
    for name, request in BAD_REQUESTS.items():
        c = Client()
        c.send(request)
        answer = c.answer()
        expect(answer and answer['ok'] is False and answer['status'] == INPUT and answer['error'], f'{name}: {answer}')
        expect_equal(c.ask(op='list')['ok'], True, f'after {name}')
        c.close()
    end(p, 'web')


@case
def a_request_without_end():
    p = launch()
    c = Client()
    c.send(b'x' * 4096)
    expect_equal(c.answer()['ok'], False, 'ok')
    expect_equal(c.answer(), None, 'the connection')
    c.close()
    end(p, 'web')


@case
def clients_that_do_not_read_or_write():
    """Slow, greedy and silent clients; others are served meanwhile."""
    p = launch()
    silent = [Client() for _ in range(10)]
    half = Client()
    half.send(b'{"v":1,')
    greedy = Client()
    greedy.socket.setblocking(False)
    try:
        while True:
            greedy.socket.send(b'{"v":1,"op":"list"}\n' * 100)
    except BlockingIOError:
        pass
    begin = time.monotonic()
    expect_equal(machines()['web']['state'], 'running', 'state')
    expect(time.monotonic() - begin < 8, 'the list was slow')  # silence ends after 10 s
    for c in (*silent, half, greedy):
        c.close()
    end(p, 'web')


@case
def too_many_clients():
    p = launch()
    clients, answered = [], 0
    for _ in range(60):
        try:
            clients.append(Client())
        except BlockingIOError:  # the queue of those that wait to be accepted is full
            time.sleep(0.05)
    for c in clients:
        try:
            answered += c.ask(op='list') is not None
        except OSError:
            pass
    expect(0 < answered <= 32, f'{answered} were served')
    for c in clients:
        c.close()
    expect_equal(list(machines()), ['web'], 'names')
    end(p, 'web')


@case
def a_client_that_goes_away():
    p = launch()
    for request in ({'op': 'fork', 'n': 3}, {'op': 'pause'}, {'op': 'resume'}, {'op': 'list'}):
        c = Client()
        c.send({'v': 1, 'vm': 'web'} | request)
        c.close()
    deadline = time.monotonic() + 20
    while len(machines()) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    end(p, *machines())


@case
def a_client_that_only_stops_writing():
    p = launch()
    c = Client()
    c.send({'v': 1, 'op': 'fork', 'vm': 'web', 'n': 1})
    c.socket.shutdown(socket.SHUT_WR)
    expect_equal(c.answer()['clones'][0]['name'], 'web.1', 'clone')
    expect_equal(c.answer(), None, 'the connection')
    c.close()
    end(p, 'web', 'web.1')


@case
def a_long_directory():
    """Longer than a socket's address can be."""
    need_kvm()
    long = tmp() / ('d' * 120)
    long.mkdir(mode=0o700)
    env = {'XDG_RUNTIME_DIR': str(long)}
    p = start('run', '--kernel', guest('hang.elf'), '--name', 'web', env=env)
    p.wait_output('hang: now')
    expect_in('web', ramet('list', env=env).stdout, 'list')
    expect_equal(ramet('kill', 'web', env=env).status, 0, 'kill')
    p.wait(10)
    expect(not (long / 'ramet' / 'web.sock').exists(), 'the socket is still there')


@cases_for(['TERM', 'KILL'])
def the_socket_goes_with_the_launcher(name):
    p = launch()
    path = runtime_dir() / 'ramet' / 'web.sock'
    expect(path.is_socket(), 'no socket')
    expect_equal(path.parent.stat().st_mode & 0o777, 0o700, 'mode of the directory')
    p.signal(getattr(signal, 'SIG' + name))
    p.wait(10)
    deadline = time.monotonic() + 5
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    expect(not path.exists(), 'the socket is still there')


main()
