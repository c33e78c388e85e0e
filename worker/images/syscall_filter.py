"""A seccomp filter for processes that parse hostile bytes: the kernel refuses all system calls but those that such a
process needs to compute and to answer.

Written as classic BPF here: libseccomp is not on every system, and no kept Python package brings it along.
"""

import ctypes
import os
import platform
import struct
import sys
from dataclasses import dataclass
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_GET_ACTION_AVAIL: Final = 2
_FILTER_FLAG_TSYNC: Final = 1
"""For all threads of the process, not only the one that asks."""

# What the filter answers (linux/seccomp.h); the lower 16 bits of _ERRNO are the error.
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_ALLOW: Final = 0x7FFF0000
_EPERM: Final = 1
_ENOSYS: Final = 38

# Instructions (linux/bpf_common.h): load a word of struct seccomp_data, compare it and jump, return.
_LOAD: Final = 0x20
_IF_EQUAL: Final = 0x15
_IF_AT_LEAST: Final = 0x35
_IF_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06

# Offsets in struct seccomp_data.
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

_X32: Final = 0x40000000
"""From here on x86-64 counts the calls of the x32 interface."""
_PROT_EXEC: Final = 4
_CLONE_THREAD: Final = 0x00010000
_THREAD_FLAGS: Final = 0x007D0F00
"""What glibc and musl start a thread with. A new process or a namespace needs other flags, or lacks _CLONE_THREAD."""

Instruction = tuple[int, int, int, int]
"""Operation, instructions to skip where the comparison holds and where it does not, operand."""


@dataclass(frozen=True, slots=True)
class Machine:
    """`architecture` as the kernel numbers it (linux/audit.h); `column` of the numbers in CALLS."""

    architecture: int
    column: int


MACHINES: Final = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}

CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # Descriptors that are open: the socket, and /dev/null. No call here opens another.
    "read": (0, 63),
    "write": (1, 64),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "poll": (7, None),
    "ppoll": (271, 73),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "close": (3, 57),
    # Memory.
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    # Threads and signals.
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # Clocks and random numbers.
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
}
"""What is allowed with any arguments. Numbers on x86-64 and aarch64; aarch64 has no `poll`."""

CHECKED_CALLS: Final[dict[str, tuple[int, int]]] = {
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "prlimit64": (302, 261),
    "clone": (56, 220),
    "clone3": (435, 435),
}
"""What is allowed with some arguments."""
SECCOMP: Final = (317, 277)


def unavailable() -> str | None:
    """Why no filter can be installed here; None where one can. Changes nothing."""
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or sys.byteorder != "little":
        return f"there is none for {platform.system()} on {platform.machine()}"
    action = ctypes.c_uint32(_ERRNO)
    try:
        _seccomp(machine, _SECCOMP_GET_ACTION_AVAIL, 0, ctypes.byref(action))
    except OSError as error:
        return f"the kernel has no seccomp filters, or forbids them: {error.strerror}"
    return None


def install() -> None:
    """Applies the filter to all threads of this process, for good. A refused call fails with EPERM.

    Everything must be open and loaded before: nothing can be opened, no library loaded, no process started. Raises
    OSError where `unavailable` says why.
    """
    machine = MACHINES[platform.machine()]
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program(machine))
    # struct sock_fprog: the number of instructions, and where they are.
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(buffer)))
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _seccomp(machine, _SECCOMP_SET_MODE_FILTER, _FILTER_FLAG_TSYNC, header)


def prctl(option: int, value: int) -> None:
    """The system call of this name (man 2 prctl). Raises OSError."""
    _check(_libc().prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3))


def program(machine: Machine) -> list[Instruction]:
    """The filter's instructions."""
    made = [
        _load(_ARCHITECTURE),
        (_IF_EQUAL, 1, 0, machine.architecture),
        _answer(_KILL_PROCESS),  # the numbers would mean other calls
        _load(_NUMBER),
    ]
    if machine is MACHINES["x86_64"]:
        made += [(_IF_AT_LEAST, 0, 1, _X32), _answer(_KILL_PROCESS)]
    for numbers in CALLS.values():
        number = numbers[machine.column]
        if number is not None:
            made += [(_IF_EQUAL, 0, 1, number), _answer(_ALLOW)]
    for name, checks in _CHECKS.items():
        made += [(_IF_EQUAL, 0, len(checks), CHECKED_CALLS[name][machine.column]), *checks]
    return [*made, _answer(_ERRNO | _EPERM)]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _argument(index: int) -> Instruction:
    """Its lower 32 bits; the kernel looks at no others of the arguments that are checked here."""
    return _load(_ARGUMENTS + 8 * index)


def _answer(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


_NOT_EXECUTABLE: Final = (
    _argument(2),
    (_IF_ANY_BIT, 0, 1, _PROT_EXEC),
    _answer(_ERRNO | _EPERM),
    _answer(_ALLOW),
)
_CHECKS: Final[dict[str, tuple[Instruction, ...]]] = {
    "mmap": _NOT_EXECUTABLE,
    "mprotect": _NOT_EXECUTABLE,
    # Its own limits, not those of its owner.
    "prlimit64": (_argument(0), (_IF_EQUAL, 0, 1, 0), _answer(_ALLOW), _answer(_ERRNO | _EPERM)),
    "clone": (
        _argument(0),
        (_IF_ANY_BIT, 0, 1, ~_THREAD_FLAGS & 0xFFFFFFFF),
        _answer(_ERRNO | _EPERM),
        (_IF_ANY_BIT, 0, 1, _CLONE_THREAD),
        _answer(_ALLOW),
        _answer(_ERRNO | _EPERM),
    ),
    # Its flags lie in memory, where a filter cannot look. The C library then uses clone.
    "clone3": (_answer(_ERRNO | _ENOSYS),),
}


def _seccomp(machine: Machine, operation: int, flags: int, argument: object) -> None:
    """The C library has no function for it."""
    number = SECCOMP[machine.column]
    _check(_libc().syscall(ctypes.c_long(number), ctypes.c_ulong(operation), ctypes.c_ulong(flags), argument))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
