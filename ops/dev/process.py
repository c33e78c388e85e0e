"""A server as a child process: started, awaited, killed and stopped by its process id only."""

import atexit
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ops.dev.ports import is_free

_PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """A server could not be started, or does not answer; the message ends with its last log lines."""


def die_with_parent() -> Callable[[], None] | None:
    """What a child runs before its program, so that it ends if we crash. Does nothing except on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Server(ABC):
    """One server process on fixed loopback ports, with its data and its log below `directory`.

    It may be killed and started again: ports and data stay. Without `detached` it dies with this process. Linux ties a
    child to the thread that started it, so call `start` from a thread that lives as long as the server should.
    """

    name: str
    start_timeout_seconds = 60.0
    stop_timeout_seconds = 20.0

    def __init__(self, directory: Path, ports: Sequence[int], *, detached: bool = False) -> None:
        self.ports = tuple(ports)
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = self.directory / f"{self.name}.log"
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> Sequence[str]:
        """The program and its arguments; it runs with `data` as its working directory."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client is served now. May raise anything when not."""

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do here
        """Writes what the program reads at its start."""

    def environment(self) -> Mapping[str, str]:
        """The program's environment: nothing of the caller's credentials and options."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR", "JAVA_HOME")
        return {name: os.environ[name] for name in kept if name in os.environ}

    @property
    def pid(self) -> int | None:
        """The process id while the server runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def start(self) -> None:
        """Starts the server and returns when it answers. Raises ServerError."""
        if self.pid is not None:
            raise ServerError(f"{self.name} runs already, as process {self.pid}")
        for port in self.ports:
            if not is_free(port):
                raise ServerError(f"{self.name} needs the port {port}, but another program listens there: end that one")
        self.data.mkdir(parents=True, exist_ok=True)
        self.prepare()
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command(),
                    cwd=self.data,
                    env=dict(self.environment()),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=None if self._detached else die_with_parent(),
                )
        except OSError as error:
            raise ServerError(f"{self.name} could not be started: {error}") from error
        if not self._detached:
            atexit.register(self.kill)
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """Ends the server with SIGKILL, as a crash would. Does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        atexit.unregister(self.kill)

    def stop(self) -> None:
        """Asks the server to stop, and kills it when it takes too long."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_timeout_seconds)
        self.kill()

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.start_timeout_seconds
        reason = "no answer"
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise ServerError(f"{self.name} ended with status {self._process.returncode}.\n{self._last_words()}")
            try:
                if self.answers():
                    return
            except Exception as error:  # noqa: BLE001 - every client has its own ways to say "not yet"
                reason = f"{type(error).__name__}: {error}"
            time.sleep(0.05)
        raise ServerError(
            f"{self.name} did not answer within {self.start_timeout_seconds:.0f} s ({reason}).\n{self._last_words()}"
        )

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"The end of {self.log}:", *lines])
