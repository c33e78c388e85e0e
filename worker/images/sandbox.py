"""What a process does that parses hostile bytes: it closes itself in, and talks through one socket.

`sandbox_process.py` starts such a process and asks it.
"""

import resource
import socket
import struct
from typing import Final

_LENGTH: Final = struct.Struct(">Q")


def receive(connection: socket.socket) -> bytes:
    """One message: its length, then so many bytes. Raises EOFError at the end, TimeoutError by the socket's timeout."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return bytes(_exactly(connection, length))


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


def _exactly(connection: socket.socket, length: int) -> bytearray:
    content = bytearray(length)
    view = memoryview(content)
    done = 0
    while done < length:
        received = connection.recv_into(view[done:])
        if received == 0:
            raise EOFError
        done += received
    return content
