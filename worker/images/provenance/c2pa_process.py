"""C2PA manifests, verified in processes of their own.

The library is native code that parses hostile bytes, and a thread cannot be stopped. So a file that crashes it, hangs
it or makes it take memory ends a process that can be replaced.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import structlog

from schemas.provenance import C2paState
from worker.images.provenance.c2pa_child import receive, send

log = structlog.get_logger(__name__)

CPU_SECONDS: Final = 2
"""For one file. A 100 MB file takes 0.3 s."""
ANSWER_SECONDS: Final = 30.0
"""For one file, and for the start of a process, on a machine that is busy."""
MEMORY_BYTES: Final = 1536 * 1024 * 1024
"""Of addresses, the library's own included."""
_CHILD: Final = "worker.images.provenance.c2pa_child"
_INHERITED: Final = ("PATH", "LD_LIBRARY_PATH", "LANG", "TZ")
"""Variables that the process gets. Credentials are not among them."""


class ProvenanceError(Exception):
    """The settings ask for provenance that this installation cannot read. The message says what to do."""


@dataclass(frozen=True, slots=True)
class C2paReport:
    """What a manifest says, and whether it verifies. The texts are the manifest's, unchanged but for their length."""

    state: C2paState
    generator: str | None = None
    signer: str | None = None
    source_type: str | None = None


class C2paVerifier:
    """Verifies files in as many processes as threads ask at once. Safe for several threads."""

    def __init__(
        self,
        trust_pem: str | None = None,
        *,
        cpu_seconds: int = CPU_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        """`trust_pem`: certificates whose signatures are `trusted`. Starts a process, so that what is wrong with
        package or certificates shows at once. Raises ProvenanceError."""
        if find_spec("c2pa") is None:
            raise ProvenanceError(
                "images.provenance is c2pa, which needs a package that is not installed: pip install 'sluice[c2pa]', "
                "or set images.provenance to text"
            )
        self._options = {"trust_pem": trust_pem, "cpu_seconds": cpu_seconds, "memory_bytes": memory_bytes}
        self._answer_seconds = answer_seconds
        self._idle: list[_Process] = []
        self._lock = threading.Lock()
        self._closed = False
        self._give_back(self._start())

    def verify(self, data: bytes, media_type: str) -> C2paReport:
        """The report on a file that has a manifest; `unverified` where the process exceeded a limit or died."""
        try:
            process = self._take()
        except ProvenanceError as error:
            log.warning("c2pa_process_not_started", error=str(error))
            return C2paReport("unverified")
        try:
            report = process.ask(media_type, data)
        except (OSError, EOFError, ValueError) as error:
            exit_code = process.kill()
            log.warning("c2pa_not_verified", size=len(data), error=type(error).__name__, exit_code=exit_code)
            return C2paReport("unverified")
        self._give_back(process)
        return report

    def close(self) -> None:
        with self._lock:
            self._closed = True
            processes, self._idle = self._idle, []
        for process in processes:
            process.kill()

    def _take(self) -> "_Process":
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._start()

    def _give_back(self, process: "_Process") -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        process.kill()

    def _start(self) -> "_Process":
        return _Process(json.dumps(self._options).encode(), self._answer_seconds)


class _Process:
    """One process, for one thread at a time."""

    def __init__(self, options: bytes, answer_seconds: float) -> None:
        """Raises ProvenanceError when the library cannot be loaded, or takes no such options."""
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(answer_seconds)
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
                    [sys.executable, "-m", _CHILD, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=inherited | {"PYTHONPATH": os.pathsep.join(sys.path)},
                    start_new_session=True,  # so that the terminal's signals do not reach it
                )
            except OSError as error:
                self._socket.close()
                raise ProvenanceError(f"the process that verifies C2PA manifests cannot be started: {error}") from error
        try:
            send(self._socket, options)
            fault = receive(self._socket).decode(errors="replace")
        except (OSError, EOFError) as error:
            exit_code = self.kill()
            raise ProvenanceError(
                f"the process that verifies C2PA manifests did not start: {type(error).__name__}, exit code {exit_code}"
            ) from error
        if fault:
            self.kill()
            raise ProvenanceError(f"images.c2pa_trust: the C2PA library does not take these certificates: {fault}")

    def ask(self, media_type: str, data: bytes) -> C2paReport:
        """Raises OSError or EOFError when the process does not answer in time or has died, ValueError for nonsense."""
        send(self._socket, media_type.encode())
        send(self._socket, data)
        answer: dict[str, str | None] = json.loads(receive(self._socket))
        try:
            return C2paReport(**answer)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError("another answer than expected") from error

    def kill(self) -> int | None:
        """Ends the process. Returns its exit code; None where it does not end, which the kernel prevents."""
        self._socket.close()
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        return self._process.returncode
