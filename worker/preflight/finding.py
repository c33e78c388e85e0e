"""The outcome of one check."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class CheckStatus(Enum):
    OK = "ok"
    UNKNOWN = "unknown"
    """It could not be checked; the worker can run."""
    WRONG = "wrong"
    """The worker runs, but not as it should: slower, or with part of its events failing."""
    BLOCKED = "blocked"
    """The worker cannot run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` names what was looked at, `detail` says what was found, `advice` what to do.

    `lasting`: only a person can mend it, so waiting does not help.
    """

    check: str
    status: CheckStatus
    detail: str
    advice: str = ""
    lasting: bool = True


def blocking(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings that keep the worker from working."""
    return tuple(finding for finding in findings if finding.status is CheckStatus.BLOCKED)


def explain(finding: Finding) -> str:
    """One line for logs, health checks and errors."""
    return f"{finding.check}: {finding.detail}" + (f"; {finding.advice}" if finding.advice else "")
