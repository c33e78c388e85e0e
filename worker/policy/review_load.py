"""What waits in the review queues, published by the desk and read by workers.

The desk writes it every few seconds, to a Redis key that expires or, in embedded mode, to a file whose age counts. When
no desk writes, the load is unknown, and workers route as if no queue were over its capacity.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import redis
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas import Name
from worker.atomic_files import write_atomically
from worker.policy.overload import QueueLoad, ReviewLoad
from worker.supervision import Supervisor

log = structlog.get_logger(__name__)

KEY: Final = "sluice:{desk}:load"
FILE: Final = "review-load.json"
PUBLISH_SECONDS: Final = 3.0
EXPIRES_SECONDS: Final = 15
"""How long a published load is used when no newer one follows."""
READ_SECONDS: Final = 1.0


class _Queue(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    open: Annotated[int, Field(ge=0)]
    oldest_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    queues: dict[Name, _Queue]


class LoadStore(Protocol):
    """Where the load is published. Both methods raise redis.RedisError or OSError."""

    def write(self, load: ReviewLoad) -> None: ...

    def read(self) -> ReviewLoad | None:
        """The load; None when none was published of late. Raises ValueError when what is there is no load."""
        ...


class _KeyValue(Protocol):
    """What a `RedisLoad` uses of a client."""

    def get(self, key: str) -> Any: ...

    def set(self, key: str, value: bytes, ex: int) -> Any: ...


class RedisLoad:
    """The load in a Redis key, which expires."""

    def __init__(self, client: Any) -> None:
        self._client: _KeyValue = client

    def write(self, load: ReviewLoad) -> None:
        self._client.set(KEY, _encoded(load), ex=EXPIRES_SECONDS)

    def read(self) -> ReviewLoad | None:
        found = self._client.get(KEY)
        return None if found is None else _decoded(found)


class FileLoad:
    """The load in a file of the embedded mode's folder, where worker and desk have no Redis in common."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.time) -> None:
        self._path = folder / FILE
        self._now = now

    def write(self, load: ReviewLoad) -> None:
        write_atomically(self._path, _encoded(load))

    def read(self) -> ReviewLoad | None:
        try:
            age = self._now() - self._path.stat().st_mtime
            return _decoded(self._path.read_bytes()) if age < EXPIRES_SECONDS else None
        except FileNotFoundError:
            return None


class ReviewLoadWatch:
    """Keeps the latest load at hand, so that judging never waits for Redis."""

    def __init__(
        self, store: LoadStore, is_wanted: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`is_wanted`: whether anybody asks for the load; it is not read otherwise."""
        self._store = store
        self._is_wanted = is_wanted
        self._clock = clock
        self._found: ReviewLoad | None = None
        self._found_at = 0.0
        self._problem = ""

    @property
    def current(self) -> ReviewLoad | None:
        """The latest load; the same object until there is another. None when unknown. From any thread."""
        return self._found if self._clock() - self._found_at < EXPIRES_SECONDS else None

    def start(self, supervisor: Supervisor) -> None:
        supervisor.start("review-load", self._run)

    def look(self) -> None:
        """Reads the load. When that fails, the last one is used until it is too old. Raises nothing."""
        if not self._is_wanted():
            self._found = None
            return
        try:
            found = self._store.read()
        except (redis.RedisError, OSError, ValueError) as error:
            self._tell(f"{type(error).__name__}: {error}")
            return
        self._tell("")
        self._found_at = self._clock()
        if found != self._found:
            self._found = found

    def _run(self, stop: threading.Event) -> None:
        while True:
            self.look()
            if stop.wait(READ_SECONDS):
                return

    def _tell(self, problem: str) -> None:
        if problem and not self._problem:
            log.warning("review_load_unknown", error=problem[:300])
        self._problem = problem


def _encoded(load: ReviewLoad) -> bytes:
    queues = {name: _Queue(open=each.open, oldest_seconds=each.oldest_seconds) for name, each in load.items()}
    return _Document(queues=queues).model_dump_json().encode()


def _decoded(content: bytes | str) -> ReviewLoad:
    try:
        document = _Document.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"what is published is no load of review queues: {error.error_count()} problems") from None
    return {name: QueueLoad(each.open, each.oldest_seconds) for name, each in document.queues.items()}
