"""Commits on its own thread, so that a slow broker does not block the intake loop."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from queue import SimpleQueue

from worker.intake.ledger import Batch
from worker.intake.log import Fenced, Log, LogError, Output, OutputsTooLarge
from worker.intake.packs import pack


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    batch: Batch[Output]
    error: LogError | None
    seconds: float


class Committer:
    """The one thread that commits to a log. One batch at a time; outcomes go to `report`."""

    def __init__(
        self, log: Log, report: Callable[[CommitOutcome], None], *, packed_topics: Collection[str] = ()
    ) -> None:
        """Outputs for `packed_topics` are written in packs (worker.intake.packs)."""
        self._log = log
        self._report = report
        self._packed_topics = frozenset(packed_topics)
        self._batches: SimpleQueue[Batch[Output] | None] = SimpleQueue()
        # A daemon: when the broker never answers, the process must still be able to end.
        self._thread = threading.Thread(target=self._run, name="sluice-commit", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch[Output]) -> None:
        self._batches.put(batch)

    def close(self) -> None:
        """Ends the thread once it is idle; does not wait for a commit that hangs."""
        self._batches.put(None)
        self._thread.join(timeout=1.0)

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            started = time.perf_counter()
            error: LogError | None = None
            packed = pack(batch.outputs, self._packed_topics)
            try:
                self._log.commit(packed.outputs, batch.offsets)
            except OutputsTooLarge as failure:
                error = packed.unpacked_error(failure)
            except LogError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001  # whatever it was, whether the commit happened is unknown
                error = Fenced(f"unexpected {type(failure).__name__}: {failure}")
            self._report(CommitOutcome(batch, error, time.perf_counter() - started))
