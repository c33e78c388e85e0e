"""What a process does that parses hostile bytes: it confines itself, and talks through one socket.

`sandbox_process.py` starts such a process and asks it.
"""

import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from worker.images import syscall_filter

_LENGTH: Final = struct.Struct(">Q")
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4


def run(serve: Callable[..., None]) -> None:
    """Calls `serve` with the socket and the other descriptors that the command line names. Returns when the owner has
    ended or closed the socket."""
    owner, number, *descriptors = map(int, sys.argv[1:])
    with socket.socket(fileno=number) as connection, suppress(EOFError, ConnectionError):
        end_with(owner)
        serve(connection, *descriptors)


def end_with(owner: int) -> None:
    """The kernel kills this process when its owner, the process `owner`, ends. Raises EOFError where it has ended.

    For the kernel, the owner is the thread that started this process: it has to live as long as the owner.
    """
    if sys.platform == "linux":
        syscall_filter.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != owner:
            raise EOFError


def receive(connection: socket.socket, *, most: int | None = None, seconds: float | None = None) -> bytes:
    """One message: its length, then so many bytes. `most` bytes and `seconds` limit a message of a process that is not
    trusted.

    Raises EOFError at the end, TimeoutError after `seconds`, ValueError for a longer message.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size, deadline))
    if most is not None and length > most:
        raise ValueError(f"a message of {length} bytes, where {most} are allowed")
    return bytes(_exactly(connection, length, deadline))


def send(connection: socket.socket, content: bytes) -> None:
    connection.sendall(_LENGTH.pack(len(content)))
    connection.sendall(content)


def confine(*, memory_bytes: int) -> None:
    """Limits this process for good: no core file, no write to files, no new file descriptor, no more addresses than
    `memory_bytes`; where the kernel has seccomp, only the system calls of `syscall_filter`.

    What it needs must be open and loaded before. Raises OSError.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    if sys.platform == "linux":
        syscall_filter.prctl(_PR_SET_DUMPABLE, 0)
    if syscall_filter.unavailable() is None:
        syscall_filter.install()


def limit_cpu(seconds: int) -> None:
    """The kernel kills the process when it has used so much more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _exactly(connection: socket.socket, length: int, deadline: float | None) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    done = 0
    while done < length:
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        received = connection.recv_into(view[done:])
        if received == 0:
            raise EOFError
        done += received
    return content
