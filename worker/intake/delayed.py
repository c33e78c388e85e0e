"""Jobs that are not due yet. They hold nothing but memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from worker.intake.ledger import Ticket
from worker.intake.log import Partition
from worker.intake.work import RecordJob
from worker.judging.retries import DueHeap


class DelayedJobs:
    """Keeps jobs until they are due. For the member's thread.

    Records of a retry topic fall due in the order of their partition, so a partition that brought one that is not due
    need not be read on: `partitions` names those.
    """

    def __init__(self, is_wanted: Callable[[RecordJob], bool]) -> None:
        """`is_wanted`: whether a job is still the member's; others are forgotten."""
        self._is_wanted = is_wanted
        self._heap: DueHeap[RecordJob] = DueHeap()
        self._count: Counter[Partition] = Counter()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def bytes(self) -> int:
        """Of the records."""
        return self._bytes

    @property
    def partitions(self) -> frozenset[Partition]:
        """Where they come from."""
        return frozenset(self._count)

    def tickets(self) -> Iterator[Ticket]:
        return (job.work.ticket for job in self._heap)

    def push(self, due: float, jobs: Iterable[RecordJob]) -> None:
        for job in jobs:
            self._heap.push(due, job)
            self._count[job.work.ticket.partition] += 1
            self._bytes += _size(job)

    def pop_due(self, now: float) -> Sequence[RecordJob]:
        """Those whose time has come, in the order in which they fell due. What they take from now on counts for their
        timings, not what they have waited."""
        due = self._heap.pop_due(now)
        for job in due:
            partition = job.work.ticket.partition
            self._count[partition] -= 1
            if not self._count[partition]:
                del self._count[partition]
            self._bytes -= _size(job)
            job.started_at = now
        return [job for job in due if self._is_wanted(job)]

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forgets the jobs of partitions that are no longer the member's."""
        gone = frozenset(partitions)
        if not gone & self._count.keys():
            return
        kept = [(due, job) for due, job in self._heap.entries() if job.work.ticket.partition not in gone]
        self._heap, self._count, self._bytes = DueHeap(), Counter(), 0
        for due, job in kept:
            self.push(due, [job])


def _size(job: RecordJob) -> int:
    return len(job.work.record.value or b"")
