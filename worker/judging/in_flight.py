"""Which jobs are being prepared or scored."""

from typing import Generic, Protocol, TypeVar

from worker.judging.job import Job

J = TypeVar("J", bound=Job)
J_contra = TypeVar("J_contra", bound=Job, contravariant=True)


class JobWatch(Protocol[J_contra]):
    """Is told of each job when it starts and when it ends."""

    def started(self, job: J_contra) -> None:
        """The job is about to be prepared."""

    def ended(self, job: J_contra) -> None:
        """The job is judged, dropped, or waits for another attempt."""


class InFlight(Generic[J]):
    """The jobs between fetch and scores. A job that must be alone goes when there is none, and none goes beside it."""

    def __init__(self, watch: JobWatch[J] | None) -> None:
        self._watch = watch
        self._jobs: set[J] = set()
        self._alone: J | None = None

    def has_room_for(self, job: J) -> bool:
        return not self._jobs or (self._alone is None and not job.is_alone)

    def add(self, job: J) -> None:
        self._jobs.add(job)
        self._alone = job if job.is_alone else None
        if self._watch is not None:
            self._watch.started(job)

    def remove(self, job: J) -> None:
        """No effect for a job that is not in flight."""
        if job in self._jobs:
            self._jobs.discard(job)
            self._alone = None
            if self._watch is not None:
                self._watch.ended(job)
