"""Which jobs are being prepared or scored."""

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from worker.judging.job import Job

J = TypeVar("J", bound=Job)
J_contra = TypeVar("J_contra", bound=Job, contravariant=True)


class JobWatch(Protocol[J_contra]):
    """Is told of jobs when they start and when they end."""

    def started(self, jobs: Sequence[J_contra], upcoming: Iterable[J_contra]) -> None:
        """The jobs are about to be prepared, and probably those that are `upcoming` soon after."""

    def ended(self, job: J_contra) -> None:
        """The job is judged, dropped, deferred, or waits for another attempt."""

    def waits(self, job: J_contra) -> None:
        """The job has ended, and will be tried again."""


class InFlight(Generic[J]):
    """The jobs between fetch and scores. A job that must be alone goes when there is none, and none goes beside it."""

    def __init__(self, watch: JobWatch[J] | None) -> None:
        self._watch = watch
        self._jobs: set[J] = set()
        self._alone: J | None = None

    @property
    def is_alone(self) -> bool:
        """The only job is one that must be."""
        return self._alone is not None

    def has_room_for(self, job: J) -> bool:
        return not self._jobs or (self._alone is None and not job.is_alone)

    def add(self, job: J) -> None:
        """Must be followed by `begin` before the job is prepared."""
        self._jobs.add(job)
        self._alone = job if job.is_alone else None

    def begin(self, jobs: Sequence[J], upcoming: Iterable[J]) -> None:
        """Tells the watch of all jobs that were added since the last time."""
        if self._watch is not None and jobs:
            self._watch.started(jobs, upcoming)

    def remove(self, job: J) -> None:
        """No effect for a job that is not in flight."""
        if job in self._jobs:
            self._jobs.discard(job)
            self._alone = None
            if self._watch is not None:
                self._watch.ended(job)

    def waits(self, job: J) -> None:
        """Tells the watch of a job that was removed and will be tried again."""
        if self._watch is not None:
            self._watch.waits(job)
