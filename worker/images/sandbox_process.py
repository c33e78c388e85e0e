"""A process of its own for code that parses hostile bytes. A thread cannot be stopped; a process can be killed."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from worker.images.sandbox import receive, send

_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")
"""Variables that the process gets. Credentials are not among them."""
KILL_SECONDS: Final = 5.0
ANSWER_BYTES: Final = 1024 * 1024


class SandboxError(Exception):
    """The process could not be started, or refuses its options. The message says why."""


class OptionsRefused(SandboxError):
    """The process runs, and takes no such options."""


class SandboxProcess:
    """Runs `module` as a program that serves one socket, whose number is its first argument. For one thread at a time.

    The process ends with this one, since the socket ends then.
    """

    def __init__(self, module: str, options: bytes, *, answer_seconds: float, descriptors: Sequence[int] = ()) -> None:
        """`descriptors` are inherited, under the same numbers, which are further arguments. Sends the options, and
        waits for the answer, which is empty or an error. Raises SandboxError."""
        self._socket, theirs = socket.socketpair()
        self._answer_seconds = answer_seconds
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with theirs:
            numbers = [theirs.fileno(), *descriptors]
            try:
                self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                    [sys.executable, "-m", module, *map(str, numbers)],
                    pass_fds=numbers,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=inherited | {"PYTHONPATH": os.pathsep.join(sys.path)},
                    start_new_session=True,  # so that the terminal's signals do not reach it
                )
            except OSError as error:
                self._socket.close()
                raise SandboxError(f"it cannot be started: {error}") from error
        self.pid = self._process.pid
        try:
            self.send(options)
            fault = self.receive().decode(errors="replace")
        except (OSError, EOFError, ValueError) as error:
            exit_code = self.kill()
            raise SandboxError(f"it did not start: {type(error).__name__}, exit code {exit_code}") from error
        if fault:
            self.kill()
            raise OptionsRefused(fault)

    def send(self, content: bytes) -> None:
        """Raises OSError when the process has ended, or does not take it in time."""
        self._socket.settimeout(self._answer_seconds)
        send(self._socket, content)

    def receive(self) -> bytes:
        """Raises TimeoutError when there is no whole answer in time, another OSError or EOFError when it has ended, and
        ValueError for an answer of more than ANSWER_BYTES."""
        return receive(self._socket, most=ANSWER_BYTES, seconds=self._answer_seconds)

    def kill(self) -> int | None:
        """Ends the process. Returns its exit code, negative for the signal that ended it; None where it does not end,
        which the kernel prevents."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):  # one that has died by itself says why
            return self._process.wait(0.05)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)
        return self._process.returncode
