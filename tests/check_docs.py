# SPDX-License-Identifier: Apache-2.0
"""Checks of the documentation that need no build; check_style.py runs them.

What a page says of the sources is looked up there: the names of public functions, the messages that
docs/troubleshooting.md explains, the files that links lead to.
"""

import errno
import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
API_PAGE = 'docs/ramet_api.3'
MESSAGES = 'docs/troubleshooting.md'
SYSTEM_WORDS = {os.strerror(n) for n in errno.errorcode}  # these are not in the sources


def api_problems(names):
    """Every name that the library exports is in ramet_api(3), and no other."""
    exported = set((ROOT / 'src/libramet.syms').read_text().split())
    listed = set(re.findall(r'Fn (ramet_\w+)', (ROOT / API_PAGE).read_text()))
    headers = ''.join(p.read_text() for p in (ROOT / 'include/ramet').glob('*.h'))
    return ([f'{API_PAGE}: {n} is missing' for n in sorted(exported - listed)]
            + [f'{API_PAGE}: there is no {n}' for n in sorted(listed - exported)
               if not re.search(rf'\b{n}\(', headers)])


def literals(text):
    """A C file whose strings that stand side by side are one, without escapes."""
    joined = re.sub(r'"\s*(?:PRI[a-z]64\s*)?"', '', text)
    return joined.replace('\\"', '"').replace('\\n', '')


def message_problems(names):
    """Each message that is explained can still come: its parts stand in one source file."""
    sources = [literals((ROOT / n).read_text()) for n in names
               if n.endswith(('.c', '.h')) and n.startswith(('src/', 'devices/'))]
    problems = []
    quoted = re.findall(r'^### `(.+)`$', (ROOT / MESSAGES).read_text(), re.M)
    for message in quoted:
        parts = [p.strip(' :') for p in message.split('...')]
        for words in SYSTEM_WORDS:
            parts = [p.removesuffix(words).strip(' :') for p in parts]
        if not any(all(p in source for p in parts) for source in sources):
            problems.append(f'{MESSAGES}: nobody says "{message}"')
    return problems + ([] if quoted else [f'{MESSAGES}: explains no message'])


def link_problems(names):
    """Links between the files lead somewhere."""
    found = []
    for name in (n for n in names if n.endswith('.md')):
        for target in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', (ROOT / name).read_text()):
            if '://' not in target and not (ROOT / name).parent.joinpath(target).exists():
                found.append(f'{name}: {target}')
    return found


CHECKS = [('ramet_api(3) has every public function', api_problems),
          ('messages that are explained exist', message_problems),
          ('links lead to files', link_problems)]
