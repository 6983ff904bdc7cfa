# SPDX-License-Identifier: Apache-2.0
"""The public functions, as include/ramet declares them. The headers are ours and keep to one shape
(`RAMET_API type name(type name, ...) attributes;`), so a few patterns read them; what these cannot
read is an error, not a function that nobody tests.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INCLUDE = ROOT / 'include'
SYMBOLS = ROOT / 'src/libramet.syms'


@dataclass(frozen=True)
class Function:
    name: str
    returns: str    # 'int', 'const char *', ...
    params: tuple   # of (type, name); a pointer to a function is its whole declaration
    variadic: bool
    noreturn: bool
    header: str     # 'vm.h'
    doc: str        # the comment before it, or before those that it stands with

    @property
    def signature(self):
        """Its parameters, as in C."""
        each = [t if '(*' in t else f'{t}{"" if t.endswith("*") else " "}{n}' for t, n in self.params]
        return ', '.join(each + ['...'] * self.variadic) or 'void'


def _param(text, where):
    text = ' '.join(text.split())
    pointer = re.match(r'.*\(\*(\w+)\)\s*\(.*\)$', text)
    if pointer:
        return text, pointer[1]
    match = re.match(r'(.*?[\s*])(\w+)$', text)
    if not match:
        raise ValueError(f'{where}: cannot read the parameter {text!r}')
    return match[1].strip(), match[2]


def _split(params):
    """At commas that are not in parentheses."""
    parts, depth = [''], 0
    for c in params:
        depth += (c == '(') - (c == ')')
        if c == ',' and not depth:
            parts.append('')
        else:
            parts[-1] += c
    return parts


_PIECE = re.compile(
    r'(?P<comment>/\*.*?\*/)|(?P<line>^#(?:[^\n]*\\\n)*[^\n]*)|(?P<api>RAMET_API\s[^;]*;)'
    r'|(?P<other>[^\s])', re.S | re.M)
_API = re.compile(r'RAMET_API\s+(?P<returns>[\w\s]+?[\s*]+)(?P<name>ramet_\w+)\s*\((?P<rest>.*);', re.S)


def _function(text, header, doc):
    match = _API.match(text)
    if not match:
        raise ValueError(f'{header}: cannot read {text!r}')
    rest, depth = match['rest'], 1
    for at, c in enumerate(rest):
        depth += (c == '(') - (c == ')')
        if not depth:
            break
    params = [p for p in (p.strip() for p in _split(rest[:at])) if p != 'void']
    return Function(match['name'], ' '.join(match['returns'].split()),
                    tuple(_param(p, match['name']) for p in params if p != '...'),
                    '...' in params, 'noreturn' in rest[at:], header, doc)


def functions():
    """{name: Function} of all public headers."""
    found = {}
    for path in sorted((INCLUDE / 'ramet').glob('*.h')):
        text, doc, last = path.read_text(), '', None
        for piece in _PIECE.finditer(text):
            if piece['comment']:
                words = ' '.join(re.sub(r'^\s*\*|/\*|\*/', ' ', piece['comment'], flags=re.M).split())
                own_line = text[:piece.start()].endswith('\n')
                if own_line:
                    doc = '' if re.fullmatch(r'-.*-', words) else words
                elif last:  # at the end of a declaration's line
                    found[last] = replace(found[last], doc=f'{found[last].doc} {words}'.strip())
                    doc = ''
                last = None
            elif piece['api']:
                f = _function(piece['api'], path.name, doc)
                found[f.name] = f
                last = f.name
            elif not piece['line']:
                doc, last = '', None
    count = sum(len(re.findall(r'^RAMET_API\b', p.read_text(), re.M))
                for p in (INCLUDE / 'ramet').glob('*.h'))
    if count != len(found):
        raise ValueError(f'{count} declarations, {len(found)} were read')
    return found


def symbols():
    """The names of src/libramet.syms."""
    return SYMBOLS.read_text().split()
