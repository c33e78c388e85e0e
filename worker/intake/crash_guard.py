"""Finds the event at which the process dies, by markers that outlive it, and keeps it from killing the next one.

A marker stands for each partition that a member holds. Whoever is assigned a partition whose marker was never taken
back knows that its last holder died, and acts by how often that has happened in a row:

1. After one death it notes which events are being prepared or scored, before each of them begins.
2. After two it judges the events noted by the last holder one at a time, with nothing beside them.
3. An event that was judged alone at two deaths is not tried again: it becomes a dead letter. One death is not enough,
   since a process may also be killed from outside.

A marker also notes the failed attempts of events that wait in their partition, so that they count on after a restart.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from schemas import Failure, FailureReason
from worker.intake.crash_markers import EventPlace, FailedAttempts, Marker, MarkerStore
from worker.intake.log import Partition
from worker.intake.notifications import MAX_NOTIFICATION_RECORDS
from worker.intake.work import RecordJob

log = structlog.get_logger(__name__)

DEATHS_TO_JUDGE_ALONE: Final = 2
NOTE_SECONDS: Final = 0.1
"""Failed attempts are noted at most so often for each partition."""
MOST_NOTED: Final = 500
"""Of so many events of a partition at most; of more, those that failed last."""
CALM_SECONDS: Final = 300.0
"""A process that has lived for so long is in no crash loop: deaths are counted from 0 again."""


class CrashGuard:
    """The markers of one member. Costs nothing for an event while no holder of the member's partitions has died."""

    def __init__(
        self,
        store: MarkerStore,
        process: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`process` names this process, and no other."""
        self._store = store
        self._process = process
        self._clock = clock
        self._wall_clock = wall_clock
        self._attempts: dict[Partition, dict[EventPlace, FailedAttempts]] = {}
        self._noted_at: dict[Partition, float] = {}
        self._unnoted: set[Partition] = set()
        """Partitions whose markers lack attempts."""
        self._markers: dict[Partition, Marker] = {}
        self._in_flight: dict[Partition, dict[EventPlace, None]] = {}
        self._suspects: dict[Partition, set[EventPlace]] = {}
        self._calm_at: dict[Partition, float] = {}
        self._noted: dict[Partition, set[EventPlace]] = {}
        """What the markers in the store hold."""
        self._begun: set[Partition] = set()
        """Partitions of which events were received."""

    def assigned(self, partitions: Iterable[Partition]) -> None:
        """Reads how the last holder of each partition ended, and marks it as held."""
        for partition in partitions:
            found = self._store.read(partition) or Marker()
            died = found.holder not in ("", self._process)
            deaths = found.deaths + died
            if died:
                name = f"{partition.topic}/{partition.number}"
                log.warning("last_holder_died", partition=name, deaths_in_a_row=deaths)
            accused, culprits = found.accused, found.culprits
            if died and found.alone is not None:
                if found.alone in accused:
                    culprits = (*culprits, found.alone)
                else:
                    accused = (*accused, found.alone)
            in_flight = tuple(place for place in found.in_flight if place not in culprits)
            self._suspects[partition] = set(in_flight) if deaths >= DEATHS_TO_JUDGE_ALONE else set()
            self._in_flight[partition] = {}
            self._noted[partition] = set()
            self._begun.discard(partition)
            self._calm_at[partition] = self._clock() + CALM_SECONDS
            self._attempts[partition] = {each.place: each for each in found.waiting}
            update = {"deaths": deaths, "in_flight": in_flight, "accused": accused, "culprits": culprits}
            self._write(partition, Marker(holder=self._process, waiting=found.waiting).model_copy(update=update))

    def released(self, partitions: Iterable[Partition]) -> None:
        """Takes the markers back of partitions that are given up in order."""
        for partition in partitions:
            marker = self._markers.pop(partition, None)
            if marker is None:
                continue
            waiting = self._waiting_in(partition)
            if marker.deaths or waiting:
                update = {"holder": "", "alone": None, "waiting": waiting}
                self._store.write(partition, marker.model_copy(update=update))
            else:
                self._store.remove(partition)

    def lost(self, partitions: Iterable[Partition]) -> None:
        """Forgets partitions that others hold by now: the markers are theirs."""
        for partition in partitions:
            self._markers.pop(partition, None)

    def released_all(self) -> None:
        """The member ends in order."""
        self.released(list(self._markers))

    @property
    def suspects_any(self) -> bool:
        """Whether there may be an event that `failure_of` or `must_be_alone` have something to say of."""
        return any(marker.deaths >= DEATHS_TO_JUDGE_ALONE for marker in self._markers.values())

    def failure_of(self, job: RecordJob) -> Failure | None:
        """Why the event must not be tried again; None for nearly all."""
        marker = self._markers.get(job.work.ticket.partition)
        if marker is None or not marker.culprits or _place(job) not in marker.culprits:
            return None
        return Failure(
            reason=FailureReason.CRASHED_WORKER,
            message="the worker's process died twice while it judged this image alone; look for a fault of its codec",
            attempts=DEATHS_TO_JUDGE_ALONE + 2,
        )

    def must_be_alone(self, job: RecordJob) -> bool:
        """Whether the event may have killed the last holders, so that nothing may be judged beside it. Asked of each
        event, in the order of its partition."""
        partition = job.work.ticket.partition
        suspects = self._suspects.get(partition)
        if not suspects:
            return False
        place = _place(job)
        if partition not in self._begun:  # what lies before was committed
            self._begun.add(partition)
            suspects = self._suspects[partition] = {suspect for suspect in suspects if suspect >= place}
        return place in suspects

    def started(self, jobs: Sequence[RecordJob], upcoming: Iterable[RecordJob]) -> None:
        """The jobs are about to be prepared. What is `upcoming` is noted with them, so that the marker of a partition
        is written once for many events."""
        unnoted: dict[Partition, EventPlace | None] = {}
        for job in jobs:
            partition, place = job.work.ticket.partition, _place(job)
            marker = self._markers.get(partition)
            if marker is None:
                continue
            self._in_flight[partition][place] = None
            if not marker.deaths:
                continue
            if job.is_alone or marker.alone is not None or place not in self._noted[partition]:
                unnoted[partition] = place if job.is_alone else None
        if unnoted:
            self._note(unnoted, upcoming)

    def ended(self, job: RecordJob) -> None:
        """The event is judged, or waits for another attempt."""
        partition, place = job.work.ticket.partition, _place(job)
        if partition in self._markers:
            self._in_flight[partition].pop(place, None)
            self._attempts[partition].pop(place, None)
            self._suspects[partition].discard(place)

    def waits(self, job: RecordJob) -> None:
        """The event failed and will be tried again in its partition."""
        partition = job.work.ticket.partition
        if partition not in self._markers or job.first_failed_at is None or not job.attempts:
            return
        now = self._clock()
        first_failed_ms = int((self._wall_clock() - (now - job.first_failed_at)) * 1000)
        place = _place(job)
        self._attempts[partition][place] = FailedAttempts(
            place=place, attempts=job.attempts, first_failed_ms=first_failed_ms
        )
        self._unnoted.add(partition)
        self.turn(now)

    def turn(self, now: float) -> None:
        """Writes the attempts that are not noted yet."""
        for partition in [p for p in self._unnoted if now - self._noted_at.get(p, -NOTE_SECONDS) >= NOTE_SECONDS]:
            self._unnoted.discard(partition)
            if partition in self._markers:
                self._noted_at[partition] = now
                waiting = self._waiting_in(partition)
                self._write(partition, self._markers[partition].model_copy(update={"waiting": waiting}))

    @property
    def has_attempts(self) -> bool:
        """Whether there may be an event that `restore_attempts` has something to give."""
        return any(self._attempts.values())

    def restore_attempts(self, job: RecordJob) -> None:
        """Gives an event the attempts that failed before a restart."""
        noted = self._attempts.get(job.work.ticket.partition)
        found = noted.get(_place(job)) if noted else None
        if found is not None:
            job.attempts = found.attempts
            job.first_failed_at = self._clock() - max(0.0, self._wall_clock() - found.first_failed_ms / 1000)

    def _waiting_in(self, partition: Partition) -> tuple[FailedAttempts, ...]:
        return tuple(self._attempts.get(partition, {}).values())[-MOST_NOTED:]

    def _note(self, partitions: Mapping[Partition, EventPlace | None], upcoming: Iterable[RecordJob]) -> None:
        """Writes the markers of `partitions`, each with the event that is alone, if one is."""
        following: dict[Partition, set[EventPlace]] = {}
        for job in upcoming:
            following.setdefault(job.work.ticket.partition, set()).add(_place(job))
        for partition, alone in partitions.items():
            if self._clock() >= self._calm_at[partition]:
                self._suspects[partition].clear()
                self._write(partition, Marker(holder=self._process, waiting=self._waiting_in(partition)))
                continue
            noted = self._suspects[partition] | following.get(partition, set()) | self._in_flight[partition].keys()
            self._noted[partition] = noted
            update = {"in_flight": tuple(sorted(noted)), "alone": alone}
            self._write(partition, self._markers[partition].model_copy(update=update))

    def _write(self, partition: Partition, marker: Marker) -> None:
        self._markers[partition] = marker
        self._store.write(partition, marker)


def _place(job: RecordJob) -> EventPlace:
    return EventPlace(job.work.ticket.offset, job.work.slot * MAX_NOTIFICATION_RECORDS + job.index)
