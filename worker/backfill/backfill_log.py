"""A listing as a log: its images are the records of one partition, and verdicts are committed into a folder."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from schemas import ImageEvent, S3Reference
from worker.backfill.request import BackfillRequest
from worker.backfill.result_folder import ResultFolder
from worker.intake.log import CommitFailed, Lag, LogError, Output, Partition, Poll, Record
from worker.scoring.stores import RepositoryError

LISTING: Final = Partition("backfill", 0)
AT_ONCE: Final = 500
"""Images that one poll gives at most."""


class BackfillLog:
    """Implements `worker.intake.log.Log`. Offsets count the images that this process has listed."""

    def __init__(
        self,
        images: Iterator[S3Reference],
        request: BackfillRequest,
        results: ResultFolder,
        *,
        verdicts: str,
        per_second: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`verdicts`: the topic that verdicts are written for; all other outputs are dropped. `per_second`: the most
        images to begin in a second."""
        self._images = images
        self._request = request
        self._results = results
        self._verdicts = verdicts
        self._per_second = per_second
        self._clock = clock
        self._sleep = sleep
        self._next = 0
        self._committed = 0
        self._keys: deque[tuple[int, str]] = deque()  # appended by the loop's thread, taken by the committer's
        self._paused = False
        self._is_assigned = False
        self._is_listed = False
        self._allowed, self._allowed_at = 1.0, clock()

    @property
    def is_over(self) -> bool:
        """Everything that the listing has is judged and written. From any thread."""
        return self._is_listed and self._committed == self._next

    def poll(self, timeout_seconds: float) -> Poll:
        if not self._is_assigned:
            self._is_assigned = True
            return Poll(assigned=frozenset({LISTING}))
        most = 0 if self._paused or self._is_listed else self._room()
        found = list(islice(self._images, most))
        if most and len(found) < most:
            self._is_listed = True
        if not found:
            self._sleep(min(timeout_seconds, 0.05))
        return Poll([self._record(image) for image in found])

    def pause(self, partitions: Set[Partition]) -> None:
        self._paused = LISTING in partitions

    def release(self, partitions: Set[Partition]) -> None:
        """Nobody else takes it."""

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        frontier = offsets[LISTING]
        keys = [key for offset, key in list(self._keys) if offset < frontier]
        values = [output.value for output in outputs if output.topic == self._verdicts]
        if len(values) != len(keys):
            raise LogError(f"{len(values)} verdicts for {len(keys)} images")
        try:
            self._results.write(values, keys[-1])
        except RepositoryError as error:
            raise CommitFailed(str(error)) from error
        for _ in keys:
            self._keys.popleft()
        self._committed = frontier

    def lag(self) -> Lag:
        return Lag({LISTING: 0 if self._is_listed else 1}, {LISTING: self._next})

    def health_problems(self) -> tuple[str, ...]:
        return ()

    def notes(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        """The folder stays."""

    def _room(self) -> int:
        """How many images may be begun now."""
        if self._per_second is None:
            return AT_ONCE
        now = self._clock()
        self._allowed = min(max(1.0, self._per_second), self._allowed + (now - self._allowed_at) * self._per_second)
        self._allowed_at = now
        room = min(AT_ONCE, int(self._allowed))
        self._allowed -= room
        return room

    def _record(self, image: S3Reference) -> Record:
        event = ImageEvent(
            id=self._request.event_id(image), occurred_at=datetime.now(UTC), tenant=self._request.tenant, image=image
        )
        record = Record(LISTING, self._next, event.model_dump_json(exclude_none=True).encode())
        self._keys.append((self._next, image.key))
        self._next += 1
        return record
