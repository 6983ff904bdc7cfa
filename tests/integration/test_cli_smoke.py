# SPDX-License-Identifier: Apache-2.0
"""The command answers: version, help, and one clear line for what it does not understand."""

from tap import case, cases_for, expect, expect_equal, expect_error, expect_in, main, ramet


@case
def version_is_one_line():
    r = ramet('--version')
    expect_equal(r.status, 0, 'status')
    expect_equal(r.stderr, '', 'stderr')
    words = r.stdout.split()
    expect_equal(len(r.stdout.splitlines()), 1, 'lines')
    expect_equal(words[0], 'ramet', 'first word')
    expect(words[1][0].isdigit(), f'no version number: {r.stdout!r}')


@case
def help_names_the_commands():
    r = ramet('--help')
    expect_equal(r.status, 0, 'status')
    expect_equal(r.stderr, '', 'stderr')
    for command in ('run', 'demo', 'list', 'pause', 'resume', 'kill', 'fork'):
        expect_in(command, r.stdout, 'help')


@case
def run_help_names_the_options():
    r = ramet('run', '--help')
    expect_equal(r.status, 0, 'status')
    for option in ('--kernel', '--initramfs', '--cmdline', '--cpus', '--memory', '--name',
                   '--console', '--fork', '--fork-at', '--timeout', '--events', '--log-level',
                   '--config', '--debug-exit', '--seccomp'):
        expect_in(option, r.stdout, 'help')


@cases_for(['frobnicate', '--frobnicate'])
def unknown_word_is_one_line(word):
    expect_error(ramet(word), 2, 'frobnicate')


@case
def unknown_option_of_run_is_one_line():
    expect_error(ramet('run', '--frobnicate'), 2, '--frobnicate')


main()
