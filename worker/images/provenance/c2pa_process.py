"""C2PA manifests, verified in processes of their own.

The library is native code that parses hostile bytes, and a thread cannot be stopped. So a file that crashes it, hangs
it or makes it take memory ends a process that can be replaced.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import structlog
from pydantic import TypeAdapter

from schemas.provenance import C2paState
from worker.images.sandbox_pool import SandboxPool
from worker.images.sandbox_process import OptionsRefused, SandboxError, SandboxProcess

log = structlog.get_logger(__name__)

CPU_SECONDS: Final = 2
"""For one file. A 100 MB file takes 0.3 s."""
ANSWER_SECONDS: Final = 30.0
"""For one file, and for the start of a process, on a machine that is busy."""
MEMORY_BYTES: Final = 1536 * 1024 * 1024
"""Of addresses, the library's own included."""
_CHILD: Final = "worker.images.provenance.c2pa_child"


class ProvenanceError(Exception):
    """The settings ask for provenance that this installation cannot read. The message says what to do."""


@dataclass(frozen=True, slots=True)
class C2paReport:
    """What a manifest says, and whether it verifies. The texts are the manifest's, unchanged but for their length."""

    state: C2paState
    generator: str | None = None
    signer: str | None = None
    source_type: str | None = None


_REPORT: Final = TypeAdapter(C2paReport)


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
        self._processes = SandboxPool(self._start)
        self._processes.give_back(self._start())

    def verify(self, data: bytes, media_type: str) -> C2paReport:
        """The report on a file that has a manifest; `unverified` where the process exceeded a limit or died."""
        try:
            process = self._processes.take()
        except ProvenanceError as error:
            log.warning("c2pa_process_not_started", error=str(error))
            return C2paReport("unverified")
        try:
            report = _asked(process, media_type, data)
        except (OSError, EOFError, ValueError) as error:
            exit_code = process.close()
            log.warning("c2pa_not_verified", size=len(data), error=type(error).__name__, exit_code=exit_code)
            return C2paReport("unverified")
        self._processes.give_back(process)
        return report

    def close(self) -> None:
        self._processes.close()

    def _start(self) -> SandboxProcess:
        try:
            return SandboxProcess(_CHILD, json.dumps(self._options).encode(), answer_seconds=self._answer_seconds)
        except OptionsRefused as error:
            message = f"images.c2pa_trust: the C2PA library does not take these certificates: {error}"
            raise ProvenanceError(message) from error
        except SandboxError as error:
            raise ProvenanceError(f"the process that verifies C2PA manifests: {error}") from error


def _asked(process: SandboxProcess, media_type: str, data: bytes) -> C2paReport:
    """Raises OSError or EOFError when the process does not answer in time or has died, ValueError for nonsense."""
    process.send(media_type.encode())
    process.send(data)
    return _REPORT.validate_json(process.receive())
