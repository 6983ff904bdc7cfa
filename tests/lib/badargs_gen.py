# SPDX-License-Identifier: Apache-2.0
"""Writes badargs_rows.c: calls of every public function with one thing wrong about each (badargs.h).
What can be wrong follows from the type of a parameter; the tables below say what is good, which
numbers are out of range, and what is different about a few, with the reason.

    badargs_gen.py OUTPUT
"""

import re
import sys

import headers

# A struct that begins with its size, and the last member of its first version. These never change.
FIRST = {
    'ramet_vm_config': 'fixed_page_tables', 'ramet_vm_options': 'hugepages',
    'ramet_spawn_options': 'dirty_ring', 'ramet_clone_options': 'paused',
    'ramet_template_info': 'copied_bytes', 'ramet_regs': 'idt_limit', 'ramet_handler': 'write',
    'ramet_vm_stats': 'console_dropped', 'ramet_guest': 'ready_timeout_ns', 'ramet_case': 'data',
    'ramet_run_options': 'name', 'ramet_run_result': 'run_ns', 'ramet_fuzz_options': 'count_dirty',
    'ramet_fuzz_result': 'new_counters',
}

# What is good, by type, ...
TYPES = {
    'struct ramet_ctx *': 'e->ctx', 'struct ramet_ctx **': '&e->ctx_out',
    'struct ramet_vm *': 'e->vm', 'struct ramet_vm **': '&e->vm_out',
    'struct ramet_template *': 'e->tmpl', 'struct ramet_template **': '&e->tmpl_out',
    'struct ramet_spawner *': 'e->spawner', 'struct ramet_spawner **': '&e->spawner_out',
    'struct ramet_process *': 'e->process', 'struct ramet_process **': '&e->process_out',
    'struct ramet_frozen *': 'e->frozen', 'struct ramet_frozen **': '&e->frozen_out',
    'struct ramet_booted *': 'e->booted', 'struct ramet_booted **': '&e->booted_out',
    'struct ramet_fuzz *': 'e->fuzz', 'struct ramet_fuzz **': '&e->fuzz_out',
    'struct ramet_test *': 'e->t',
    'struct ramet_vm_event *': '&e->event', 'struct ramet_event *': '&e->process_event',
    'struct ramet_limits *': 'good_limits()', 'struct ramet_case *const *': 'good_cases()',
    'void *': 'e->buf', 'uint8_t *': 'e->buf', 'uint64_t *': '&e->number', 'unsigned *': '&e->at',
    'void **': '&e->pointer', 'char **': '&e->text', 'char *': '(char *)e->buf',
    'enum ramet_space': 'RAMET_PIO', 'enum ramet_exit': 'RAMET_EXIT_DEBUG', 'bool': 'true',
}
# ... by name, ...
NAMES = {
    'gpa': 'SERVANT_AREA', 'gva': 'SERVANT_AREA', 'len': '8', 'words': '1', 'vcpu': '0',
    'timeout_ns': 'RAMET_MILLISECOND', 'types': 'RAMET_VM_ANY', 'count': '1', 'result': '0',
    'line': '4', 'base': '0x600', 'length': '4', 'signal': 'SIGUSR1', 'disk': '0', 'size': '256',
    'ncases': '1', 'value': '0', 'data': 'e->buf', 'text': '"text"', 'name': '"name"',
    'format': '"%s", "text"', 'symbol': '"kernel_stack"', 'symbols': 'good_kernel()', 'path': 'NULL',
    'fn': 'good_end', 'argc': '1',
}
# ... and of one function. None: it has no good one.
GOOD = {
    ('ramet_vm_fork', 'clones'): 'e->clones',
    ('ramet_vm_msi', 'address'): '0xfee00000', ('ramet_vm_msi', 'data'): '0x41',
    ('ramet_vm_breakpoint', 'address'): 'SERVANT_AREA',
    ('ramet_vm_dirty_collect', 'count'): '&e->number2',
    ('ramet_vm_dirty_collect', 'bitmap'): '(uint64_t *)e->buf',
    ('ramet_harness_main', 'argv'): 'good_argv()', ('ramet_harness_main', 'begin'): 'good_cases()',
    ('ramet_harness_main', 'end'): 'good_cases() + 1',
    ('ramet_booted_symbol', 'address'): '&e->number', ('ramet_booted_symbol', 'size'): '&e->number2',
    ('ramet_symbol', 'size'): '&e->number2', ('ramet_fuzz_one', 'data'): 'e->buf',
}

# Numbers that are no good, by name and of one function: {number: want}.
NUMBERS = {
    'gpa': {'0': 'SOME', '~0ull': 'REFUSED', '~0ull - 3': 'REFUSED', '16u << 20': 'REFUSED'},
    'gva': {'0': 'SOME', '~0ull': 'REFUSED', '~0ull - 3': 'REFUSED', '1ull << 63': 'REFUSED'},
    'len': {'0': 'SOME', 'SIZE_MAX': 'REFUSED', 'SIZE_MAX / 2': 'REFUSED'},
    'vcpu': {'1': 'REFUSED', '64': 'REFUSED', 'UINT_MAX': 'REFUSED'},
    'count': {'0': 'REFUSED', 'UINT_MAX': 'REFUSED'},
    'timeout_ns': {'0': 'SOME'},  # RAMET_FOREVER waits as long
    'types': {'0': 'SOME', '~0u': 'SOME', '1u << 31': 'SOME'},
    'line': {'24': 'REFUSED', 'UINT_MAX': 'REFUSED', '0': 'SOME'},
    'words': {'0': 'SOME'},  # more than there are is a lie that nobody can see
    'signal': {n: 'REFUSED' for n in ('0', '-1', 'SIGKILL', 'SIGSTOP', 'SIGRTMIN', '65', 'INT_MAX',
                                      'INT_MIN')},
    'length': {'0': 'REFUSED', '~0ull': 'REFUSED', '0x10000': 'REFUSED'},
    'base': {'0x10000': 'REFUSED', '~0ull': 'REFUSED', '0xfffe': 'REFUSED'},
    'space': {'-1': 'REFUSED', '2': 'REFUSED', 'INT_MAX': 'REFUSED'},
    'reason': {'-1': 'FAILS', '0': 'FAILS', '99': 'FAILS'},
    'result': {'UINT32_MAX': 'SOME'}, 'disk': {'UINT_MAX': 'RETURNS', '8': 'RETURNS'},
    'ncases': {'0': 'SOME_REFUSAL'}, 'size': {'0': 'SOME', '1': 'SOME'},
    'argc': {'-1': 'NOT_ZERO', 'INT_MIN': 'NOT_ZERO'},
    'value': {'-1': 'FAILS', 'INT_MAX': 'FAILS'},
}
OF_ONE = {
    # 0 bytes anywhere are no bytes
    ('ramet_vm_handle', 'base'): NUMBERS['base'],
    ('ramet_vm_answer', 'count'): {'UINT32_MAX': 'REFUSED', '0': 'SOME'},
    ('ramet_fuzz_one', 'len'): {'0': 'SOME'},  # what is too long is cut off; there is only so much
    ('ramet_vm_msi', 'address'): {'0': 'SOME', '~0ull': 'SOME'},
    ('ramet_vm_msi', 'data'): {'0': 'SOME', '~0u': 'SOME'},
    ('ramet_vm_breakpoint', 'address'): {'0': 'SOME', '~0ull': 'SOME', '1ull << 63': 'SOME'},
    ('ramet_vm_console_read', 'len'): {'0': 'SOME'},  # as long as it is said to be, who can tell
    ('ramet_vm_console_write', 'len'): {'0': 'SOME'},
    ('ramet_vm_read_gva', 'len'): {'0': 'SOME'},  # what is mapped is moved, before what is not
    ('ramet_vm_write_gva', 'len'): {'0': 'SOME'},
    ('ramet_process_prewarm', 'count'): {'0': 'SOME', 'UINT_MAX': 'REFUSED'},
    ('ramet_get', 'len'): {'SIZE_MAX': 'FAILS'}, ('ramet_put', 'len'): {'SIZE_MAX': 'FAILS'},
    ('ramet_run_case', 'size'): {'0': 'SOME', '1': 'SOME'},
}

# Where NULL is fine, or something else than usual, and why.
NULLS = {
    ('ramet_vm_console_watch', 'text'): ('SOME', 'no text is watched for any more'),
    ('ramet_vm_set_data', 'data'): ('SOME', 'the data is the program\'s'),
    ('ramet_vm_handle', 'data'): ('SOME', 'the data is the program\'s'),
    ('ramet_vm_freeze', 'name'): ('SOME', 'a template needs no name'),
    ('ramet_template_import', 'name'): ('SOME', 'a template needs no name'),
    ('ramet_template_spawn', 'options'): ('SOME', 'the defaults'),
    ('ramet_run_cases', 'options'): ('SOME', 'the defaults'),
    ('ramet_run_cases', 'result'): ('SOME', 'nobody wants to know'),
    ('ramet_vm_dirty_collect', 'count'): ('SOME', 'nobody wants to know'),
    ('ramet_booted_symbol', 'size'): ('SOME', 'nobody wants to know'),
    ('ramet_symbol', 'size'): ('SOME', 'nobody wants to know'),
    ('ramet_fuzz_one', 'result'): ('SOME', 'nobody wants to know'),
    ('ramet_crash_report', 'symbols'): ('SOME', 'addresses only'),
    ('ramet_spawner_execute', 'path'): ('SOME', 'the helper that was installed'),
    ('ramet_on_end', 'data'): (None, 'the data is the program\'s'),
}
NULL_CTX = ('ramet_last_error', 'ramet_last_error_is_input')  # documented: may be NULL

# Functions, or states of theirs, that are left out, and why.
LEFT_OUT = {
    'ramet_fuzz_abort': 'it ends the program, which is what it is for',
    ('ramet_vm_destroy', 'HANDLER'): 'nobody uses a machine that is destroyed, and its handler does',
}
# Codes of functions whose comment is about several.
CODES = {n: 'ESRCH EAGAIN EBUSY EINVAL' for n in (
    'ramet_process_fork', 'ramet_process_pause', 'ramet_process_resume', 'ramet_process_reset',
    'ramet_process_kill', 'ramet_process_prewarm')}
EVERYWHERE = 'EINVAL EDEADLK ENOMEM'  # vm.h: each call can return these

IN_SECTION = ('ramet_vm_read', 'ramet_vm_write', 'ramet_vm_span', 'ramet_vm_end', 'ramet_vm_irq',
              'ramet_vm_nmi', 'ramet_vm_msi', 'ramet_vm_set_data')
IN_HANDLER = ('ramet_vm_irq', 'ramet_vm_nmi', 'ramet_vm_msi', 'ramet_vm_set_data')
STATES = ('NEW', 'PAUSED', 'RUNNING', 'ENDED', 'HELD', 'SECTION', 'HANDLER')


def good(f, kind, name):
    if (f.name, name) in GOOD:
        return GOOD[f.name, name]
    bare = kind.removeprefix('const ')
    match = re.fullmatch(r'struct ramet_(\w+) \*', bare)
    if match and f'ramet_{match[1]}' in FIRST:
        return f'good_{match[1]}()'
    if bare in TYPES and not (name in NAMES and bare in ('void *', 'char *')):
        return TYPES[bare]
    if name in NAMES:
        return NAMES[name]
    raise ValueError(f'{f.name}: what is a good {name} ({kind})?')


def usual(f):
    """What a wrong argument of @f must lead to."""
    if f.params and f.params[0][0].endswith('ramet_test *'):
        return 'FAILS'
    if f.name == 'ramet_harness_main':
        return 'NOT_ZERO'  # an exit status
    return 'REFUSED' if f.returns == 'int' else 'RETURNS'


def variants(f, kind, name):
    """(what, argument, want) of one parameter."""
    want, bare = usual(f), kind.removeprefix('const ')
    if kind.endswith('*') or '(*' in kind:
        exception = NULLS.get((f.name, name), (want,))[0]
        if f.name in NULL_CTX:
            exception = 'RETURNS'
        if exception:
            yield f'{name}: NULL', 'NULL', exception
    struct = re.fullmatch(r'struct (ramet_\w+) \*', bare)
    if struct and struct[1] in FIRST:
        t, g = f'struct {struct[1]}', good(f, kind, name)
        first = f'offsetof({t}, {FIRST[struct[1]]}) + sizeof(({t} *)0)->{FIRST[struct[1]]}'
        for size in ('0', '1', f'{first} - 1', 'SIZE_MAX', 'SIZE_MAX / 2'):
            yield f'{name}.size: {size}', f'sized({g}, sizeof({t}), {size})', want
        tail = want if kind.startswith('const') else 'SOME'  # what comes out is cut off, or filled up
        yield f'{name}: has what nobody knows', f'tailed({g}, sizeof({t}), 64)', tail
    numbers = OF_ONE.get((f.name, name), NUMBERS.get(name, {}) if '*' not in kind else {})
    for number, w in numbers.items():
        if want == 'RETURNS' and w != 'FAILS':
            w = 'RETURNS'
        if name in ('gpa', 'gva') and w == 'REFUSED':
            w = 'FAULT'
        if name == 'len' and w == 'REFUSED':
            w = 'FAULT'
        yield f'{name}: {number}', number, w


def states_of(f):
    """Those in which a good call is made."""
    if not f.params:
        return []
    first = f.params[0][0].removeprefix('const ')
    if f.name == 'ramet_crash_report':
        return [(s, 'SOME') for s in STATES[:5]]
    if first == 'struct ramet_vm *':
        def want(state):
            if f.returns != 'int':
                return 'RETURNS'
            if state == 'SECTION' and f.name not in IN_SECTION:
                return 'BUSY'
            if state == 'HANDLER' and f.name not in IN_HANDLER:
                return 'DEADLOCK'
            return 'SOME'
        return [(s, want(s)) for s in STATES if (f.name, s) not in LEFT_OUT]
    if first == 'struct ramet_process *':
        return [(s, 'SOME' if f.returns == 'int' else 'RETURNS') for s in ('PROCESS', 'PROCESS_GONE')]
    return []


def base_state(f):
    types = [t.removeprefix('const ') for t, _ in f.params]
    if 'struct ramet_vm *' in types:
        return 'SECTION' if f.name in ('ramet_vm_span', 'ramet_vm_end') else 'PAUSED'
    if 'struct ramet_process *' in types or 'struct ramet_frozen *' in types:
        return 'PROCESS'
    return 'IN_CASE' if 'struct ramet_test *' in types else 'NOTHING'


def codes(f):
    if f.header in ('harness.h', 'fuzz.h') or '-errno' in f.doc or 'rrors' in f.doc:
        return '*'
    named = ' '.join(re.findall(r'-(E[A-Z]+)', f.doc))
    return ' '.join(filter(None, (EVERYWHERE, named, CODES.get(f.name))))


# A pointer whose object the call takes away, or gives: what is left to do.
AFTER = {
    'ramet_vm_destroy': 'e->vm = NULL;', 'ramet_process_release': 'e->process = NULL;',
    'ramet_vm_begin': 'if (!ret) ramet_vm_end(e->vm);',
}


def rows():
    """(Function, what, state, want, statements)"""
    for f in headers.functions().values():
        if f.name in LEFT_OUT:
            continue
        args = [good(f, t, n) for t, n in f.params]
        for i, (kind, name) in enumerate(f.params):
            for what, argument, want in variants(f, kind, name):
                state = base_state(f)
                if state == 'IN_CASE' and kind.endswith('ramet_test *'):
                    state, want = 'NOTHING', 'RETURNS'  # outside of a case, without one
                yield f, what, state, want, [*args[:i], argument, *args[i + 1:]], ''
        for state, want in states_of(f):
            yield f, f'state: {state.lower()}', state, want, args, AFTER.get(f.name, '')


def main(output):
    calls, table = [], []
    for number, (f, what, state, want, args, after) in enumerate(rows()):
        call = f'{f.name}({", ".join(args)})'
        if f.returns == 'int':
            body = f'long ret = {call}; {after} return ret;'
        else:
            body = f'(void){call}; {after} return 0;'
        known = codes(f)
        if want == 'FAULT':  # which of the two depends on what is looked at first
            want = 'SOME_REFUSAL'
        calls.append(f'static long row_{number}(struct env *e) {{ {body} }}')
        harness = str(f.header in ('harness.h', 'fuzz.h')).lower()
        table.append(f'        {{"{f.name}", "{what}", {state}, {want}, {harness}, "{known}", '
                     f'row_{number}}},')
    with open(output, 'w', encoding='utf-8') as out:
        out.write('/* Written by badargs_gen.py. */\n#include "badargs.h"\n\n#include <signal.h>\n\n'
                  '#include "tests/guest/servant.h"\n\n')
        out.write('\n'.join(calls) + '\n\nconst struct row rows[] = {\n' + '\n'.join(table))
        out.write('\n};\n\nconst unsigned nrows = sizeof rows / sizeof *rows;\n')


if __name__ == '__main__':
    main(sys.argv[1])
