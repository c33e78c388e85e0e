"""What the two Kafka logs share: a reading thread, and one queue of what it has read and what the group has decided."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

import structlog
from kafka import TopicPartition
from kafka.errors import CorruptRecordError, FencedInstanceIdError, KafkaError

from worker.intake.framed_records import FramedRecords
from worker.intake.kafka_faults import classify, open_error
from worker.intake.kafka_gaps import GapKeeper
from worker.intake.kafka_open_transactions import OpenTransactions, describe_transactions
from worker.intake.kafka_probe import require_login
from worker.intake.log import Gap, Lag, LogError, LogRefused, Output, Partition, Poll, Record
from worker.intake.lost_records import accepted_positions
from worker.intake.schema_registry import open_registry
from worker.settings import KafkaSettings, SettingsError

log = structlog.get_logger(__name__)

MAX_POLL_RECORDS: Final = 500
POLLS_AHEAD: Final = 4
POLL_SECONDS: Final = 0.05
LAG_SECONDS: Final = 0.1
CLOSE_SECONDS: Final = 10.0


class GroupEvent(NamedTuple):
    """A poll that the reader has made; `member_id` is set where partitions were assigned."""

    poll: Poll
    member_id: str | None = None


class CommitOutput(Protocol):
    """`KafkaOutput` or `LibrdkafkaOutput`."""

    member_id: str | None

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None: ...

    def close(self) -> None: ...


class KafkaLogBase(ABC):
    """Reads topics as a member of a consumer group, on a thread of its own (the reader).

    So the member can finish its work while partitions are being revoked. Events reach `poll` through one queue, in
    order. The reader is at most POLLS_AHEAD polls ahead.

    A subclass opens its client within `opening`, calls `_open_checks`, sets `_output`, and calls `_start` last.
    """

    _output: CommitOutput
    _positions: Any
    """kafka-python's consumer, or an object with its methods."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._events: SimpleQueue[GroupEvent | LogError] = SimpleQueue()
        self._free_polls = threading.Semaphore(POLLS_AHEAD)
        self._closing = threading.Event()
        self._wanted_paused: Set[Partition] = frozenset()
        self._lag = Lag()
        self._lag_due = 0.0
        self._reader = threading.Thread(target=self._run_reader, name="sluice-kafka-read", daemon=True)

    def poll(self, timeout_seconds: float) -> Poll:
        try:
            event = self._events.get(timeout=timeout_seconds) if timeout_seconds else self._events.get_nowait()
        except Empty:
            return Poll()
        if isinstance(event, LogError):
            raise event
        poll, member_id = event
        if poll.lost:
            self._output.member_id = None
        if member_id is not None:
            self._output.member_id = member_id
        if poll.records:
            self._free_polls.release()
        return poll

    def pause(self, partitions: Set[Partition]) -> None:
        self._wanted_paused = frozenset(partitions)

    @abstractmethod
    def release(self, partitions: Set[Partition]) -> None:
        """A revocation ends when the last of its partitions is released."""

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        self._output.commit(outputs, offsets)

    def health_problems(self) -> tuple[str, ...]:
        return (*self._gaps.health_problems(), *self._frames.problems())

    def notes(self) -> tuple[str, ...]:
        return self._transactions.notes()

    def lag(self) -> Lag:
        return self._lag

    def close(self) -> None:
        self._closing.set()
        self._free_polls.release()
        # An open transaction ends before the group hands the partitions to others.
        self._output.close()
        self._reader.join(CLOSE_SECONDS)
        self._frames.close()

    def _open_checks(self, positions: Any, opened: ExitStack) -> None:
        """Raises KafkaError and SettingsError."""
        self._positions = positions
        self._gaps = GapKeeper(positions, self._settings, accepted_positions)
        self._transactions = OpenTransactions(positions, describe_transactions(self._settings))
        self._frames = FramedRecords(open_registry(self._settings))
        opened.callback(self._frames.close)

    def _start(self, wait_for_producer: Callable[[], None]) -> None:
        self._reader.start()
        try:
            wait_for_producer()
        except BaseException:
            self.close()
            raise

    # -- the reader: the only thread that calls the consumer -------------------------------------------------------

    @abstractmethod
    def _poll_consumer(self) -> tuple[list[Record], tuple[Gap, ...]]:
        """What can be read now, and what was skipped; waits for POLL_SECONDS at most. Pauses `_paused_partitions`."""

    @abstractmethod
    def _close_consumer(self) -> None: ...

    @abstractmethod
    def _partition_counts(self) -> Mapping[str, int]:
        """How many partitions each topic has."""

    def _run_reader(self) -> None:
        try:
            while not self._closing.is_set():
                polled, gaps = self._poll_consumer()
                records = self._frames.read(polled)
                if (now := time.monotonic()) >= self._lag_due:
                    self._lag_due = now + LAG_SECONDS
                    self._lag = self._measure_lag()
                if gaps:
                    self._events.put(GroupEvent(Poll(gaps=gaps)))
                if records:
                    self._events.put(GroupEvent(Poll(records)))
                    self._free_polls.acquire()
        except Exception as error:  # noqa: BLE001  # `poll` raises it
            self._events.put(self._read_error(error))
        try:
            self._close_consumer()
        except Exception as error:  # noqa: BLE001
            log.warning("kafka_close_failed", error=f"{type(error).__name__}: {error}")

    def _read_error(self, error: Exception) -> LogError:
        if isinstance(error, LogError):
            return error
        if isinstance(error, CorruptRecordError):
            # The consumer never gets past it in this state; a new one fetches the bytes again.
            return LogError(f"a record failed its checksum: {error}")
        if isinstance(error, FencedInstanceIdError):
            return LogError(
                f"another worker of this group uses kafka.group_instance_id {self._settings.group_instance_id}; "
                "give each worker a name of its own"
            )
        if isinstance(error, KafkaError):
            return LogError(f"reading failed: {classify(error).message}")
        return LogError(f"reading failed: {type(error).__name__}: {error}")

    def _paused_partitions(self, assigned: Set[Partition]) -> Set[Partition]:
        """The assigned partitions of which nothing may be read: the member or a check of ours says so."""
        return (self._wanted_paused | self._gaps.stopped | self._frames.waiting) & assigned

    def _measure_lag(self) -> Lag:
        behind: dict[Partition, int] = {}
        ends: dict[Partition, int] = {}
        waiting: dict[TopicPartition, int] = {}
        assigned = self._positions.assignment()
        paused = self._paused_partitions(as_partitions(assigned))
        for theirs in assigned:
            end = self._positions.highwater(theirs)
            position = self._positions.position_if_known(theirs)
            if end is not None and position is not None:
                partition = Partition(*theirs)
                behind[partition] = max(0, end - position)
                ends[partition] = end
                if end > position and partition not in paused:
                    waiting[theirs] = position
        self._transactions.observe(waiting)
        held = self._transactions.held | self._frames.waiting
        return Lag(behind, ends, held, self._partition_counts())


@contextmanager
def opening(settings: KafkaSettings) -> Iterator[ExitStack]:
    """Closes what was opened when a later step fails. Raises LogError, which says what to do."""
    with ExitStack() as opened:
        require_login(settings)
        try:
            yield opened
        except KafkaError as error:
            raise open_error(error, settings) from error
        except SettingsError as error:
            raise LogRefused(str(error)) from error
        opened.pop_all()


def require_topics(existing: Callable[[], Iterable[str]], read: Sequence[str], settings: KafkaSettings) -> None:
    """Raises LogError when a topic is missing or hidden: a misspelt name must not make a worker wait forever."""
    topics = settings.topics
    needed = {*read, topics.verdicts, topics.review, topics.dead}
    deadline = time.monotonic() + 5.0
    while missing := needed - set(existing()):
        if time.monotonic() >= deadline:
            raise LogError(
                f"topics {', '.join(sorted(missing))} do not exist at {settings.bootstrap_servers}, or we have no "
                "permission to see them: `sluice doctor` says which; `sluice topics create` creates missing topics"
            )
        time.sleep(0.2)


def as_partitions(theirs: Iterable[Any]) -> frozenset[Partition]:
    """From kafka-python's or librdkafka's TopicPartition."""
    return frozenset(Partition(each.topic, each.partition) for each in theirs)
