"""What happens to an event whose image could not be fetched: it is tried again, deferred or given up."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Generic, TypeVar

from schemas import Failure, FailureReason, S3Reference
from worker.images.errors import DecoderUnavailableError, ImageError, StoreRefusedError, TransientFetchError
from worker.judging.job import Job
from worker.judging.retries import DueHeap, RetryPolicy
from worker.judging.stores import Store, Stores

J = TypeVar("J", bound=Job)

PROBES_TO_BLAME: Final = 5


class Admitted(Enum):
    """What `admit` says of a job that is not given up."""

    NOW = "now"
    LATER = "later"
    """It comes back from `due`."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Why a job is given up. `retriable`: the same event may be judged later."""

    failure: Failure
    retriable: bool


@dataclass(frozen=True, slots=True)
class Deferred:
    """The job would have to wait for too long: its owner moves it out of the way of others."""

    reason: str


class FetchRetries(Generic[J]):
    """Holds jobs that wait for another attempt; while they wait they hold nothing else. For the pipeline's thread.

    A store that is down is asked once each pause, and attempts do not count: not the image is to blame. An object that
    an S3 bucket denies is given up only once the bucket has given others, since a worker to which a bucket denies
    everything has lost its permissions. A denied HTTP address is its own fault: what permits access is part of it.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        stores: Stores,
        rng: random.Random,
        *,
        outage_seconds: float,
        waits_for_stores: bool = True,
        hold_seconds: float = float("inf"),
        deferred_deadline_seconds: float = float("inf"),
        is_halted: Callable[[], bool] = lambda: False,
        on_failure: Callable[[Store], None] = lambda _store: None,
    ) -> None:
        """`outage_seconds`: the longest that an S3 bucket may be down before what it does not give is given up.
        `waits_for_stores`: absent, a job whose store is down is given up at once. `hold_seconds`: a job that may be
        deferred is, when it would wait longer, or when its store has been down for longer. `deferred_deadline_seconds`
        takes the place of the policy's deadline for such a job. `is_halted`: whether nothing is judged at the moment;
        then nothing is deferred. `on_failure` is called when a store did not answer or denied an object."""
        self._policy = policy
        self._stores = stores
        self._rng = rng
        self._outage_seconds = outage_seconds
        self._waits = waits_for_stores
        self._hold_seconds = hold_seconds
        self._deferred_policy = replace(policy, deadline_seconds=deferred_deadline_seconds)
        self._is_halted = is_halted
        self._on_failure = on_failure
        self._waiting: DueHeap[J] = DueHeap()

    def due(self, now: float) -> list[J]:
        """The jobs whose time has come."""
        return self._waiting.pop_due(now)

    def next_due(self) -> float | None:
        """When the next job's time comes."""
        return self._waiting.next_due()

    def clear(self) -> None:
        """Forgets all jobs that wait."""
        self._waiting = DueHeap()

    def held(self) -> Iterator[J]:
        """The jobs that wait for a store that is down."""
        return (job for job in self._waiting if job.is_held)

    def stores_down(self) -> list[Store]:
        """From any thread."""
        return self._stores.down()

    def admit(self, job: J, now: float) -> Admitted | GivenUp | Deferred:
        """Whether the job may go to its store now."""
        job.is_held = False
        store = self._stores.of(job.event.image)
        if store is None or (store.refuses_all and _was_never_asked(job)) or store.allow(now):
            job.asked_at = now
            job.others_were_given = (
                store is not None
                and job.first_failed_at is not None
                and store.gave_what_was_asked_after(job.first_failed_at)
            )
            return Admitted.NOW
        if not self._waits:
            return _given_up(store.trouble(now), job)
        if not _is_in_bucket(job):
            if job.first_failed_at is None:
                job.first_failed_at = now
            if now - job.first_failed_at >= self._policy_of(job).deadline_seconds:
                return _given_up(store.trouble(now), job)
        return self._hold(job, store, now) or Admitted.LATER

    def without_decoder(self, job: J, error: DecoderUnavailableError, now: float) -> GivenUp | None:
        """No process can decode the image. The worker is at fault, so no attempt counts, and the job comes back from
        `due` until one can; the decoders' health check reports it. None, but where jobs do not wait."""
        if not self._waits:
            failure = Failure(reason=FailureReason.INTERNAL_ERROR, message=str(error)[:1000])
            return GivenUp(failure, retriable=True)
        self._waiting.push(now + self._policy.base_seconds * (1 + self._rng.random()), job)
        return None

    def answered(self, job: J, now: float) -> None:
        """The job's store gave the image, or said something definite about it."""
        store = self._stores.of(job.event.image)
        if store is not None:
            store.answered(now, job.asked_at)

    def failed(self, job: J, error: TransientFetchError, now: float) -> GivenUp | Deferred | None:
        """The job's store did not answer. Why the job is given up or deferred; None where it comes back from `due`."""
        store = self._stores.of(job.event.image)
        if store is not None:
            self._on_failure(store)
            if isinstance(error, StoreRefusedError):
                store.refused_credentials(error, now)
            else:
                store.failed(error, now)
            if store.is_down and self._waits and _is_in_bucket(job):
                return self._failed_in_an_outage(job, store, error, now)
        return self._try_again(job, error, FailureReason.FETCH_FAILED, now)

    def denied(self, job: J, error: ImageError, now: float) -> GivenUp | Deferred | None:
        """The job's store denied access to the image. Why the job is given up or deferred; None where it comes back
        from `due`."""
        image = job.event.image
        store = self._stores.of(image)
        if store is None or not isinstance(image, S3Reference):
            return _final(error, job.attempts + 1)
        self._on_failure(store)
        if job.first_failed_at is None:
            job.first_failed_at = now
        if job.others_were_given:
            return _final(error, job.attempts + 1)
        if self._waits:
            store.refused(image.key, error, now)
        if store.is_down and self._waits:
            return self._failed_in_an_outage(job, store, error, now)
        return self._try_again(job, error, FailureReason.ACCESS_DENIED, now)

    def _try_again(self, job: J, error: Exception, reason: FailureReason, now: float) -> GivenUp | Deferred | None:
        job.attempts += 1
        if job.first_failed_at is None:
            job.first_failed_at = now
        if self._policy_of(job).is_exhausted(job.attempts, job.first_failed_at, now):
            return _exhausted(error, reason, job.attempts, now - job.first_failed_at)
        due = now + self._policy.delay(job.attempts, self._rng)
        if self._is_too_long(job, due, None, now):
            return Deferred(f"{error}, {job.attempts} attempts")
        self._waiting.push(due, job)
        return None

    def _failed_in_an_outage(self, job: J, store: Store, error: Exception, now: float) -> GivenUp | Deferred | None:
        """The store is down, not this object: the attempt does not count.

        Unless it fails for longer than outages last: a few objects that are too slow to be fetched would keep the
        breaker open, and all others waiting, for ever.
        """
        denied = isinstance(error, ImageError)
        if not denied:
            job.first_failed_at = None
        job.probes += 1
        if job.probed_since is None:
            job.probed_since = now
        waited = now - job.probed_since
        if job.probes >= PROBES_TO_BLAME and waited >= self._outage_seconds and not store.surely_refuses_all:
            reason = FailureReason.ACCESS_DENIED if denied else FailureReason.FETCH_FAILED
            return _exhausted(error, reason, job.attempts + job.probes, waited)
        return self._hold(job, store, now)

    def _hold(self, job: J, store: Store, now: float) -> Deferred | None:
        due = store.retry_at() + self._rng.uniform(0.0, self._policy.base_seconds)
        if self._is_too_long(job, due, store.down_since, now):
            return Deferred(store.trouble(now))
        job.is_held = True
        self._waiting.push(due, job)
        return None

    def _policy_of(self, job: J) -> RetryPolicy:
        return self._deferred_policy if job.may_be_deferred else self._policy

    def _is_too_long(self, job: J, due: float, down_since: float | None, now: float) -> bool:
        """Whether the job, which can be tried at `due`, would block others for too long.

        Once its store has been down for `hold_seconds`, a job does not wait at all: one after the other would hold its
        partition for as long.
        """
        if job.waits_since is None:
            job.waits_since = now
        if not job.may_be_deferred or self._is_halted():
            return False
        since = job.waits_since if down_since is None else min(job.waits_since, down_since)
        return due - since > self._hold_seconds


def _was_never_asked(job: Job) -> bool:
    """An object that was not asked for yet goes to a bucket that refused others: if it is given, they were at fault. So
    a sender who names objects that are denied does not block other senders' events.
    """
    return not (job.attempts or job.probes)


def _is_in_bucket(job: Job) -> bool:
    return isinstance(job.event.image, S3Reference)


def _final(error: ImageError, attempts: int) -> GivenUp:
    return GivenUp(Failure(reason=error.reason, message=str(error), attempts=attempts), retriable=False)


def _given_up(message: str, job: Job) -> GivenUp:
    failure = Failure(reason=FailureReason.FETCH_FAILED, message=message, attempts=max(1, job.attempts))
    return GivenUp(failure, retriable=True)


def _exhausted(error: Exception, reason: FailureReason, attempts: int, seconds: float) -> GivenUp:
    message = str(error) if attempts == 1 else f"{error}; gave up after {attempts} attempts in {seconds:.1f} s"
    return GivenUp(
        Failure(reason=reason, message=message, attempts=attempts), retriable=reason is FailureReason.FETCH_FAILED
    )
