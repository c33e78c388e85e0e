"""A process of its own for code that parses hostile bytes. A thread cannot be stopped; a process can be killed."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Final

import structlog

from worker.images import syscall_filter
from worker.images.sandbox import receive, send

log = structlog.get_logger(__name__)

_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")
"""Variables that the process gets. Credentials are not among them."""
_ADDED: Final = {
    # NumPy's threads are of no use to it, and take addresses.
    "OPENBLAS_NUM_THREADS": "1",
    # By default glibc returns an image's memory to the system after each image: 4,000 page faults for 4 megapixels.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024 * 1024),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 1024 * 1024),
}
KILL_SECONDS: Final = 5.0
ANSWER_BYTES: Final = 1024 * 1024


class SandboxError(Exception):
    """The process could not be started, or refuses its options. The message says why."""


class OptionsRefused(SandboxError):
    """The process runs, and takes no such options."""


class SandboxProcess:
    """Runs `module` as a program that serves one socket (`sandbox.run`). For one thread at a time.

    The process ends with this one: the kernel kills it.
    """

    def __init__(self, module: str, options: bytes, *, answer_seconds: float, descriptors: Sequence[int] = ()) -> None:
        """`descriptors` are inherited, under the same numbers. Sends the options, and waits for the answer, which is
        empty or an error. Raises SandboxError."""
        _warn_unless_filtered()
        self._socket, theirs = socket.socketpair()
        self._answer_seconds = answer_seconds
        with theirs:
            try:
                self._process = _start(module, [theirs.fileno(), *descriptors], answer_seconds)
            except (OSError, RuntimeError) as error:  # RuntimeError: this process is about to end
                self._socket.close()
                raise SandboxError(f"it cannot be started: {error}") from error
        self.pid = self._process.pid
        try:
            self.send(options)
            fault = self.receive().decode(errors="replace")
        except (OSError, EOFError, ValueError) as error:
            exit_code = self.close()
            raise SandboxError(f"it did not start: {type(error).__name__}, exit code {exit_code}") from error
        if fault:
            self.close()
            raise OptionsRefused(fault)

    def send(self, content: bytes) -> None:
        """Raises OSError when the process has ended, or does not take it in time."""
        self._socket.settimeout(self._answer_seconds)
        send(self._socket, content)

    def receive(self) -> bytes:
        """Raises TimeoutError when there is no whole answer in time, another OSError or EOFError when it has ended, and
        ValueError for an answer of more than ANSWER_BYTES."""
        return receive(self._socket, most=ANSWER_BYTES, seconds=self._answer_seconds)

    def close(self) -> int | None:
        """Ends the process. Returns its exit code, negative for the signal that ended it; None where it does not end,
        which the kernel prevents."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):  # one that has died by itself says why
            return self._process.wait(0.05)
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_SECONDS)
        return self._process.returncode


def _start(module: str, descriptors: Sequence[int], seconds: float) -> subprocess.Popen[bytes]:
    """Raises OSError, RuntimeError."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", module, *map(str, (os.getpid(), *descriptors))],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=inherited | _ADDED | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # so that the terminal's signals do not reach it
        )

    starting = _starter(os.getpid()).submit(start)
    try:
        return starting.result(seconds)
    finally:
        starting.cancel()


@cache
def _starter(_pid: int) -> ThreadPoolExecutor:
    """Starts all sandbox processes of this process. The kernel ends them with the thread that started them, which so
    has to live as long as this process."""
    return ThreadPoolExecutor(1, thread_name_prefix="sluice-sandbox-starter")


@cache
def _warn_unless_filtered() -> None:
    reason = syscall_filter.unavailable()
    if reason is not None:
        log.warning("sandbox_without_seccomp", reason=reason, limits="time, memory and file descriptors only")
