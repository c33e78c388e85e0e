"""What every drill works on, whichever log it runs on: a stream of events, workers, and the count of verdicts."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from ops.drills.publisher import Publisher
from ops.drills.verdict_counter import VerdictCounter
from ops.drills.worker_process import WorkerProcess

PATIENCE_SECONDS = 120.0


class DrillError(Exception):
    """A drill could not be carried out, or a worker did not do what the drill waits for."""


class DrillUnavailable(Exception):
    """This machine lacks what the drill needs; the message says what."""


class StreamBench(ABC):
    """One drill's stream and workers. Use it as a context manager: it starts the stream and ends everything."""

    publisher: Publisher
    counter: VerdictCounter
    images: Path
    """The folder that the workers may read."""

    def __init__(self, folder: Path) -> None:
        """`folder` must exist and be this drill's own."""
        self.folder = folder
        self.recoveries: list[float] = []
        self.notes: list[str] = []
        """What else the drill has measured, for the table."""
        self.worker_log = folder / "worker.log"
        self.images = folder / "images"
        self.images.mkdir()
        self._workers: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        self.counter.start()
        self.publisher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self.publisher.stop()
        self.counter.stop()

    @abstractmethod
    def start_worker(self, environment: Mapping[str, str] | None = None) -> WorkerProcess:
        """Starts a worker, and returns at once. `environment` is added to this process's own."""

    def ensure_workers(self, count: int) -> list[WorkerProcess]:
        """Starts workers, or tells the latest to stop, until `count` run; returns them when all are at work."""
        running = [worker for worker in self._workers if worker.running]
        for worker in running[count:]:
            worker.stop()
        running = running[:count]
        running += [self.start_worker() for _ in range(count - len(running))]
        if count:
            self.wait_until_at_work(count)
            self.wait_for_a_verdict()
        return running

    @abstractmethod
    def wait_until_at_work(self, count: int) -> None:
        """Waits until so many workers share the partitions."""

    def wait_for_a_verdict(self, after: float | None = None) -> float:
        """Waits for the verdict of an event that was published after `after` (by default: now); returns when it was
        seen. An older event may be in a transaction that a killed worker's producer is just committing."""
        moment = time.monotonic() if after is None else after

        def found() -> float | None:
            return self.counter.first_of({p for p, at in dict(self.publisher.published).items() if at > moment})

        return self.wait(found, "no further verdict came")

    def wait_for_events(self, count: int) -> None:
        """Waits until so many more events were published."""
        wanted = len(self.publisher.published) + count
        self.wait(
            lambda: time.monotonic() if len(self.publisher.published) >= wanted else None, "no further event came"
        )

    def recover(self) -> None:
        """Called at the end of a fault: waits until all that was published before has a verdict, and notes how long
        that took."""
        ended = time.monotonic()
        due = {place: at for place, at in dict(self.publisher.published).items() if at < ended}

        def recovered() -> float | None:
            for place in self.counter.judged_of(due):
                del due[place]
            return None if due else time.monotonic()

        self.recoveries.append(self.wait(recovered, "events lack their verdicts") - ended)

    def finish(self) -> None:
        """Ends the stream, and waits until each event has a verdict and repeats had time to show.

        Raises DrillError when the stream had ended by itself.
        """
        self.publisher.stop()
        if self.publisher.failure is not None:
            raise DrillError(f"the stream of events has stopped: {self.publisher.failure}")
        with contextlib.suppress(DrillError):
            self.wait(
                lambda: None if self.counter.missing(self.publisher.published) else time.monotonic(),
                "events lack their verdicts",
            )
        seen, quiet_since = self.counter.seen(), time.monotonic()
        while time.monotonic() - quiet_since < 1.5:
            time.sleep(0.1)
            if self.counter.seen() != seen:
                seen, quiet_since = self.counter.seen(), time.monotonic()

    def published_in(self, partition: int) -> bool:
        """Whether an event was published to the partition."""
        return any(place.partition == partition for place in dict(self.publisher.published))

    def wait(self, found: Callable[[], float | None], complaint: str, seconds: float = PATIENCE_SECONDS) -> float:
        """Waits until `found` returns a moment, and returns that. Raises DrillError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (moment := found()) is not None:
                return moment
            if self.publisher.failure is not None:
                raise DrillError(f"the stream of events has stopped: {self.publisher.failure}")
            if ended := [worker.status for worker in self._workers if worker.has_given_up]:
                raise DrillError(self._with_log(f"a worker has ended by itself with status {ended[0]}"))
            time.sleep(0.05)
        raise DrillError(self._with_log(f"{complaint} within {seconds:.0f} s"))

    def _with_log(self, complaint: str) -> str:
        end = self.worker_log.read_text(errors="replace").splitlines()[-20:] if self.worker_log.exists() else []
        return "\n".join([f"{complaint}; the end of {self.worker_log}:", *end])
