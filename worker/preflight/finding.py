"""The outcome of one check."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class CheckStatus(Enum):
    OK = "ok"
    UNKNOWN = "unknown"
    """The check could not be made. The worker can run."""
    WRONG = "wrong"
    """The worker runs, but slower or with some events failing."""
    BLOCKED = "blocked"
    """The worker cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`check`: what was checked. `detail`: what was found. `advice`: how to fix it. `lasting`: only a person can fix
    it, so waiting does not help.
    """

    check: str
    status: CheckStatus
    detail: str
    advice: str = ""
    lasting: bool = True


def blocking(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that prevent the worker from running."""
    return tuple(finding for finding in findings if finding.status is CheckStatus.BLOCKED)


def explain(finding: Finding) -> str:
    """The finding as one line, for logs, health checks and errors."""
    return f"{finding.check}: {finding.detail}" + (f"; {finding.advice}" if finding.advice else "")
