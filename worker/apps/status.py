"""The state of the Serve applications, with the reason of a failure before everything else."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

_FRAME: Final = re.compile(r'\s+File ".*", line \d+')
_MODULE: Final = re.compile(r"^(?:\w+\.)+(?=\w+(?::|$))")
RUNNING: Final = "RUNNING"
HEALTHY: Final = "HEALTHY"


class StatusError(Exception):
    """Ray's dashboard does not tell the state of the applications."""


@dataclass(frozen=True, slots=True)
class PartStatus:
    """An application, or one of its deployments. `reason` is empty where nothing failed."""

    name: str
    status: str
    reason: str

    @property
    def is_well(self) -> bool:
        return self.status in (RUNNING, HEALTHY)


def read_status(address: str) -> list[PartStatus]:
    """The applications and deployments of the cluster whose dashboard is at `address` (http://HOST:8265), with Ray's
    token where RAY_AUTH_MODE asks for it. Raises StatusError."""
    try:
        details = ServeSubmissionClient(address).get_serve_details()
    except (RuntimeError, ValueError, OSError) as error:
        raise StatusError(f"{address}: {reason_of(str(error))}") from error
    return list(parts(details))


def parts(details: Mapping[str, Any]) -> Iterator[PartStatus]:
    """Each application of Serve's answer and, below it, its deployments."""
    for name, application in sorted(details["applications"].items()):
        yield PartStatus(name, application["status"], reason_of(application["message"]))
        for below, deployment in sorted(application["deployments"].items()):
            yield PartStatus(f"{name}/{below}", deployment["status"], reason_of(deployment["message"]))


def reason_of(message: str) -> str:
    """What a message of Serve says without its tracebacks: the exception that was raised last in it.

    Ray wraps the replica's exception into the text of another, so the last traceback's exception is the replica's own.
    """
    lines = message.strip().splitlines()
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    if not frames:
        return message.strip()
    after = frames[-1] + 1
    while after < len(lines) - 1 and lines[after].startswith("    "):  # the frame's source
        after += 1
    return _MODULE.sub("", "\n".join(lines[after:]).strip())
