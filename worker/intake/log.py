"""A log as the intake sees it: one group member that reads records and commits outputs with offsets."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

# Named tuples, where there is one for each record: made in half the time of a frozen dataclass, and hashed in C.


class Partition(NamedTuple):
    topic: str
    number: int


class Record(NamedTuple):
    partition: Partition
    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = 0


class Output(NamedTuple):
    """A record to be written. Records of one key keep their order."""

    topic: str
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()


class Gap(NamedTuple):
    """Offsets `first` to `next` - 1 left the log before they were read, and reading goes on behind them."""

    partition: Partition
    first: int
    next: int


@dataclass(frozen=True, slots=True)
class Poll:
    """What happened since the last poll, in this order: lost, revoked, assigned, gaps, records.

    Revoked partitions stay the member's own until it calls `release`; lost ones are already somebody else's.
    """

    records: Sequence[Record] = ()
    assigned: frozenset[Partition] = frozenset()
    revoked: frozenset[Partition] = frozenset()
    lost: frozenset[Partition] = frozenset()
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True, slots=True)
class Lag:
    """How far each assigned partition is behind: records from the read position to the end in `by_partition`, the
    offset behind the last one in `ends`. Of those in `held` nothing can be read for the moment, because another
    producer's transaction is open."""

    by_partition: Mapping[Partition, int] = field(default_factory=dict)
    ends: Mapping[Partition, int] = field(default_factory=dict)
    held: frozenset[Partition] = frozenset()
    partitions: Mapping[str, int] = field(default_factory=dict)
    """How many partitions each topic has, those of other members among them."""


class LogError(Exception):
    """The log could not do what was asked; trying again may help."""


class TopicMissing(LogError):
    """The log has no such topic; somebody must make it."""


class LogRefused(LogError):
    """The log refuses for a reason that lasts until somebody changes a permission, a password, a topic or a setting.
    Trying again at once does not help."""


class CommitFailed(LogError):
    """Nothing of the commit happened; the same outputs may be committed again."""


class CommitRefused(CommitFailed):
    """Nothing of the commit happened, and nothing will until somebody gives back a permission or a topic."""


class OutputsTooLarge(CommitFailed):
    """Nothing of the commit happened: some outputs are larger than their topics take.

    `limits` has the bytes that each such output's value may have, by its position in the sequence that was to be
    committed. Where the topic's limit is not known, that is half of what was too much.
    """

    def __init__(self, message: str, limits: Mapping[int, int]) -> None:
        super().__init__(message, limits)  # both, so that pickle can make it again
        self.message = message
        self.limits = limits

    def __str__(self) -> str:
        return self.message


class Fenced(LogError):
    """This member is no longer one: another took its place. Its uncommitted work belongs to others now."""


class Log(Protocol):
    """One member of a consumer group, with exactly-once output.

    `poll`, `pause`, `release`, `lag` and `close` belong to the loop's thread; `commit` to one other thread.
    """

    def poll(self, timeout_seconds: float) -> Poll:
        """Waits at most so long for records or a change of the assignment. Raises LogError."""

    def pause(self, partitions: Set[Partition]) -> None:
        """Makes these the paused partitions: no more is read of them, but what was read ahead may still come."""

    def release(self, partitions: Set[Partition]) -> None:
        """Gives up revoked partitions; the member has committed what it could."""

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        """Appends the outputs and sets the group's offsets (the next to read), both or neither.

        Raises CommitFailed when nothing happened, Fenced when this member has been replaced.
        """

    def lag(self) -> Lag:
        """How far each assigned partition is behind. Does not wait for a server."""

    def health_problems(self) -> tuple[str, ...]:
        """Why the log does not give records that it should; empty when all is well. From any thread."""

    def notes(self) -> tuple[str, ...]:
        """What else keeps records back, which is no fault of this member's. From any thread."""

    def close(self) -> None:
        """Leaves the group."""
