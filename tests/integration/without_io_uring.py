# SPDX-License-Identifier: Apache-2.0
"""`without_io_uring.py COMMAND ARGUMENTS...`: runs a command where io_uring is forbidden, as it is in
many containers: io_uring_setup(2) says EPERM to it and to all of its children."""

import ctypes
import os
import struct
import sys

IO_URING_SETUP = 425
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
EPERM = 1
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # classic BPF: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ, BPF_RET
ALLOW, ERRNO = 0x7fff0000, 0x00050000


class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_char_p)]


def forbid():
    code = b''.join(struct.pack('<HBBI', *i) for i in (
        (LOAD, 0, 0, 0),  # seccomp_data.nr
        (IF_EQUAL, 0, 1, IO_URING_SETUP),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW)))
    program = Program(4, code)
    libc = ctypes.CDLL(None, use_errno=True)
    for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                 (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*call):
            raise OSError(ctypes.get_errno(), 'prctl')


if __name__ == '__main__':
    forbid()
    os.execvp(sys.argv[1], sys.argv[1:])
