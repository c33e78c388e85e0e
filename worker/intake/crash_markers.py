"""Markers of partitions, which outlive the process: see worker.intake.crash_guard."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import redis
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from worker.cache.client import CacheClient
from worker.cache.outage import Outage
from worker.intake.log import Partition

log = structlog.get_logger(__name__)

MARKER_SECONDS: Final = 7 * 24 * 3600
"""How long Redis keeps the marker of a partition that nobody holds any more."""


class EventPlace(NamedTuple):
    """Names an event within its partition: the record's offset, and its position among the record's events."""

    offset: int
    position: int


class FailedAttempts(BaseModel):
    """The failed fetches of an event that waits for another one."""

    model_config = ConfigDict(frozen=True)

    place: EventPlace
    attempts: int
    first_failed_ms: int
    """By the wall clock."""


class Marker(BaseModel):
    """What is known of a partition's holder."""

    model_config = ConfigDict(frozen=True)

    holder: str = ""
    """The process that holds the partition; empty when it was given up in order."""
    deaths: int = 0
    """Holders that died in a row."""
    in_flight: tuple[EventPlace, ...] = ()
    """Events that were being prepared or scored, as far as it was noted."""
    alone: EventPlace | None = None
    """The event that was being judged with nothing beside it."""
    accused: tuple[EventPlace, ...] = ()
    """Events that were judged alone when a holder died."""
    culprits: tuple[EventPlace, ...] = ()
    """Events that were judged alone when two holders died."""
    waiting: tuple[FailedAttempts, ...] = ()


class MarkerStore(Protocol):
    """Keeps one marker a partition. Raises nothing: without markers a crash loop is only not ended."""

    def read(self, partition: Partition) -> Marker | None: ...

    def write(self, partition: Partition, marker: Marker) -> None: ...

    def remove(self, partition: Partition) -> None: ...


class RedisMarkers:
    """Markers in Redis, for the members of one consumer group. While Redis is down, callers do not wait for it."""

    def __init__(self, client: CacheClient, group_id: str) -> None:
        self._client = client
        self._group_id = group_id
        self._outage = Outage("crash_markers", time.monotonic)

    def read(self, partition: Partition) -> Marker | None:
        value = self._ask(lambda: self._client.get(self._key(partition)))
        return _parsed(value) if isinstance(value, bytes) else None

    def write(self, partition: Partition, marker: Marker) -> None:
        self._ask(lambda: self._client.set(self._key(partition), marker.model_dump_json(), ex=MARKER_SECONDS))

    def remove(self, partition: Partition) -> None:
        self._ask(lambda: self._client.delete(self._key(partition)))

    def _ask(self, command: Callable[[], object]) -> object:
        """What Redis answers; None while it is down."""
        if not self._outage.lets_through():
            return None
        try:
            answer = command()
        except redis.RedisError as error:
            self._outage.failed(error)
            return None
        self._outage.succeeded()
        return answer

    def _key(self, partition: Partition) -> str:
        return f"sluice:in-flight:{json.dumps([self._group_id, *partition])}"


class FileMarkers:
    """Markers as files of one folder, for the embedded log. They outlive the process, not a loss of power."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, partition: Partition) -> Marker | None:
        try:
            return _parsed(self._path(partition).read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            _not_kept(error)
            return None

    def write(self, partition: Partition, marker: Marker) -> None:
        path = self._path(partition)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            written = path.with_suffix(".new")
            written.write_text(marker.model_dump_json())
            written.replace(path)
        except OSError as error:
            _not_kept(error)

    def remove(self, partition: Partition) -> None:
        try:
            self._path(partition).unlink(missing_ok=True)
        except OSError as error:
            _not_kept(error)

    def _path(self, partition: Partition) -> Path:
        return self._folder / f"{partition.topic}-{partition.number}.json"


def _parsed(value: bytes) -> Marker | None:
    try:
        return Marker.model_validate_json(value)
    except ValidationError as error:
        _not_kept(error)
        return None


def _not_kept(error: Exception) -> None:
    log.warning("crash_marker_not_kept", error=f"{type(error).__name__}: {error}")
