"""What a process does that parses hostile bytes: it closes itself in, and talks through one socket.

`sandbox_process.py` starts such a process and asks it.
"""

import resource
import socket
import struct
import time
from typing import Final

_LENGTH: Final = struct.Struct(">Q")


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


def close_in(*, memory_bytes: int, descriptors: int) -> None:
    """Limits a process against faults, not against code of an attacker's: that can close a descriptor and open another.

    Allows no core file, no write, no file descriptor from number `descriptors` on, and no more addresses than
    `memory_bytes`.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


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
