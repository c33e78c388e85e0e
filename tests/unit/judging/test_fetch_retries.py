"""A store that is down costs no image an attempt, and no image that never comes holds up the others for ever."""

import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import (
    Failure,
    FailureReason,
    FileReference,
    HttpReference,
    ImageEvent,
    ImageReference,
    InlineReference,
    S3Reference,
)
from worker.images.errors import ImageError, StoreRefusedError, TransientFetchError
from worker.judging.fetch_retries import Admitted, Deferred, FetchRetries, GivenUp
from worker.judging.job import Job
from worker.judging.retries import RetryPolicy
from worker.judging.stores import Stores, store_name

SLOW = TransientFetchError("503 SlowDown")
DENIED = ImageError(FailureReason.ACCESS_DENIED, "AccessDenied")


def job_of(image: ImageReference) -> Job:
    event = ImageEvent(id="1", occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=image)
    return Job(event, 0.0)


def stored(key: int, bucket: str = "bucket") -> Job:
    return job_of(S3Reference(bucket=bucket, key=str(key)))


def linked(path: int, host: str = "images.example") -> Job:
    return job_of(HttpReference(url=f"https://{host}/{path}"))


def retries(
    *, max_attempts: int = 3, outage_seconds: float = 600.0, pause_seconds: float = 2.0, waits: bool = True
) -> FetchRetries[Job]:
    policy = RetryPolicy(max_attempts, base_seconds=1.0, max_seconds=8.0, deadline_seconds=100.0)
    stores = Stores(min_calls=4, pause_seconds=pause_seconds)
    return FetchRetries(policy, stores, random.Random(1), outage_seconds=outage_seconds, waits_for_stores=waits)


def bring_down(fetches: FetchRetries[Job], now: float, make: Callable[[int], Job] = stored) -> None:
    for key in range(100):
        if fetches.stores_down():
            return
        fetches.failed(make(key), SLOW, now)


def may_go(fetches: FetchRetries[Job], job: Job, now: float) -> bool:
    return fetches.admit(job, now) is Admitted.NOW


def test_an_image_is_given_up_after_the_attempts_that_are_allowed() -> None:
    fetches, job = retries(max_attempts=3), job_of(FileReference(path="/a.png"))

    outcomes = [fetches.failed(job, SLOW, now=float(i)) for i in range(3)]

    assert outcomes[:2] == [None, None]
    assert outcomes[2] is not None
    assert outcomes[2].retriable
    assert outcomes[2].failure == Failure(
        reason=FailureReason.FETCH_FAILED, message="503 SlowDown; gave up after 3 attempts in 2.0 s", attempts=3
    )


def test_a_failed_image_comes_back_once_and_not_before_its_time() -> None:
    fetches, job = retries(), stored(1)
    fetches.failed(job, SLOW, now=100.0)
    assert fetches.due(100.0 - 1e-9) == []
    assert fetches.due(108.0) == [job]
    assert fetches.due(1000.0) == []


def test_a_store_that_is_down_costs_no_attempts() -> None:
    fetches = retries(max_attempts=3)
    bring_down(fetches, now=0.0)
    job = stored(1000)

    outcomes = [fetches.failed(job, SLOW, now=float(i)) for i in range(20)]

    assert outcomes == [None] * 20
    assert job.attempts == 0


def test_while_the_store_is_down_one_image_goes_to_it_each_pause_and_the_others_wait() -> None:
    fetches = retries(pause_seconds=2.0)
    bring_down(fetches, now=0.0)
    jobs = [stored(1000 + i) for i in range(5)]

    assert [may_go(fetches, job, 1.0) for job in jobs] == [False] * 5
    assert [may_go(fetches, job, 2.5) for job in jobs] == [True, False, False, False, False]


def test_a_bucket_that_is_down_stops_no_other_store() -> None:
    fetches = retries()
    bring_down(fetches, now=0.0)
    others = [
        job_of(FileReference(path="/a.png")),
        job_of(InlineReference(bytes=b"x")),
        linked(1),
        stored(1, bucket="another"),
    ]
    assert [may_go(fetches, job, 0.0) for job in others] == [True] * 4
    assert not may_go(fetches, stored(1), 0.0)


def test_a_host_that_is_down_is_not_asked_and_its_images_are_given_up_at_their_deadline() -> None:
    fetches, job = retries(), linked(1000)
    bring_down(fetches, 0.0, linked)
    assert fetches.admit(job, 1.0) is Admitted.LATER
    assert list(fetches.held()) == [job]
    assert may_go(fetches, linked(1, host="other.example"), 1.0)
    may_go(fetches, linked(1), 101.0)  # the probe of this pause
    given_up = fetches.admit(job, 101.5)
    assert isinstance(given_up, GivenUp)
    assert "https://images.example has not answered" in given_up.failure.message


def test_whoever_does_not_wait_is_told_at_once_that_the_store_is_down() -> None:
    fetches = retries(waits=False)
    bring_down(fetches, 0.0)
    given_up = fetches.admit(stored(1), 0.5)
    assert isinstance(given_up, GivenUp)
    assert given_up.retriable
    assert "s3://bucket has not answered for 0 s: 503 SlowDown" in given_up.failure.message


def test_an_object_denied_by_a_bucket_that_gives_others_is_given_up() -> None:
    fetches, job = retries(), stored(1)
    assert fetches.denied(job, DENIED, 0.0) is None
    other = stored(2)
    assert may_go(fetches, other, 0.4)
    fetches.answered(other, 0.5)
    assert may_go(fetches, job, 0.6)
    given_up = fetches.denied(job, DENIED, 1.0)
    assert given_up is not None
    assert given_up.failure.reason is FailureReason.ACCESS_DENIED
    assert not fetches.stores_down()


def test_an_answer_from_before_a_bucket_denied_everything_blames_no_object_that_it_denies() -> None:
    """The bucket turns from giving to denying at 1.0, and back at 3.0."""
    fetches, before, denied, during = retries(), stored(1), stored(2), stored(3)
    assert may_go(fetches, before, 0.9)
    assert may_go(fetches, denied, 1.0)
    assert fetches.denied(denied, DENIED, 1.1) is None
    fetches.answered(before, 1.2)  # it was asked for while the bucket still gave
    assert may_go(fetches, denied, 2.9)
    assert may_go(fetches, during, 3.0)
    fetches.answered(during, 3.1)  # the bucket gives again, but the other request was sent before
    assert fetches.denied(denied, DENIED, 3.2) is None


def test_a_single_object_that_is_denied_while_nothing_else_is_asked_for_is_given_up_after_its_attempts() -> None:
    fetches, job = retries(max_attempts=3), stored(1)
    outcomes = [fetches.denied(job, DENIED, float(i)) for i in range(3)]
    assert outcomes[:2] == [None, None]
    assert outcomes[2] is not None
    assert outcomes[2].failure.reason is FailureReason.ACCESS_DENIED


def test_a_bucket_that_denies_everything_costs_no_image_and_is_named() -> None:
    fetches = retries(max_attempts=3, outage_seconds=60.0)
    jobs = [stored(i) for i in range(171)]
    now = 0.0
    outcomes = [fetches.denied(job, DENIED, now) for job in jobs]
    for _ in range(2000):
        now += 1.0
        outcomes += [fetches.denied(job, DENIED, now) for job in fetches.due(now) if may_go(fetches, job, now)]
    assert set(outcomes) == {None}
    (store,) = fetches.stores_down()
    assert store.refuses_all
    assert store.trouble(now).startswith("s3://bucket has refused everything for 2000 s: AccessDenied")

    fetches.answered(stored(1000), now)
    assert not fetches.stores_down()
    assert sum(may_go(fetches, job, now + 100.0) for job in fetches.due(now + 100.0)) > 160


def test_objects_that_are_denied_hold_up_no_other_of_their_bucket() -> None:
    """A sender names a hundred objects that do not exist, which S3 denies to whoever may not list the bucket."""
    fetches = retries()
    denied = [stored(i) for i in range(100)]
    for job in denied:
        fetches.denied(job, DENIED, 0.0)
    assert fetches.stores_down()
    good = stored(1000)
    assert may_go(fetches, good, 0.1), "it was not asked for yet"
    fetches.answered(good, 0.2)
    assert not fetches.stores_down()
    later = [job for job in fetches.due(100.0) if may_go(fetches, job, 100.0)]
    assert len(later) == 100
    assert all(fetches.denied(job, DENIED, 100.0) for job in later)


def test_whoever_does_not_wait_is_told_at_once_that_an_object_is_denied_and_hurts_nobody_else() -> None:
    fetches = retries(waits=False, max_attempts=1)
    outcomes = [fetches.denied(stored(i), DENIED, 0.0) for i in range(100)]
    assert {outcome and outcome.failure.reason for outcome in outcomes} == {FailureReason.ACCESS_DENIED}
    assert not fetches.stores_down()


def test_credentials_that_are_refused_open_the_breaker_at_once() -> None:
    fetches = retries(max_attempts=1, outage_seconds=60.0)
    job = stored(1)
    outcomes = [fetches.failed(job, StoreRefusedError("ExpiredToken"), 10.0 * i) for i in range(50)]
    assert set(outcomes) == {None}
    assert [store.refuses_all for store in fetches.stores_down()] == [True]


def test_a_denied_address_is_given_up_at_once() -> None:
    """What permits access, as the signature of a link, is part of the address."""
    fetches = retries()
    assert all(fetches.denied(linked(i), DENIED, 0.0) is not None for i in range(100))
    assert not fetches.stores_down()


def test_no_more_than_so_many_stores_are_remembered() -> None:
    stores = Stores(max_stores=10)
    down = stores.of(HttpReference(url="https://down.example/1"))
    assert down is not None
    down.refused_credentials(SLOW, 0.0)
    for i in range(1000):
        stores.of(HttpReference(url=f"https://host-{i}.example/1"))
    assert len(stores) == 10
    assert [store.name for store in stores.down()] == ["https://down.example"], "those that are down are kept longest"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://user:secret@Images.Example:8443/a?signature=secret", "https://images.example:8443"),
        ("http://images.example/a", "http://images.example"),
        ("https://[::1]:80/a", "https://[::1]:80"),
        ("https://[broken/a", None),
    ],
)
def test_a_stores_name_holds_no_secret(url: str, name: str | None) -> None:
    assert store_name(HttpReference(url=url)) == name


def test_the_first_image_that_comes_opens_the_way_for_all() -> None:
    fetches = retries()
    bring_down(fetches, now=0.0)
    fetches.answered(stored(1), 3.0)
    assert not fetches.stores_down()
    assert all(may_go(fetches, stored(i), 3.0) for i in range(10))


def test_an_image_that_never_comes_is_given_up_when_outages_end() -> None:
    fetches = retries(max_attempts=1000, outage_seconds=60.0)
    bring_down(fetches, now=0.0)
    job = stored(1000)

    outcomes = [fetches.failed(job, SLOW, now=20.0 * i) for i in range(5)]

    assert outcomes[:4] == [None] * 4
    assert outcomes[4] is not None
    assert outcomes[4].failure.message == "503 SlowDown; gave up after 5 attempts in 80.0 s"


@given(
    steps=st.lists(
        st.tuples(st.floats(0.0, 30.0), st.sampled_from(["given", "failed", "denied", "credentials"])), max_size=200
    )
)
def test_whatever_the_stores_do_every_image_is_fetched_given_up_or_waiting(steps: list[tuple[float, str]]) -> None:
    fetches = retries(max_attempts=4, outage_seconds=120.0)
    everything = [stored(i) for i in range(9)] + [linked(i) for i in range(4)] + [stored(i, "other") for i in range(3)]
    ready, ended, now = list(everything), [], 0.0
    for seconds, happens in steps:
        now += seconds
        ready += fetches.due(now)
        if not ready:
            continue
        job = ready.pop(0)
        admitted = fetches.admit(job, now)
        if isinstance(admitted, GivenUp):
            ended.append(job)
        if admitted is not Admitted.NOW:
            continue
        if happens == "given":
            fetches.answered(job, now)
            ended.append(job)
        elif happens == "denied":
            ended += [job] if fetches.denied(job, DENIED, now) else []
        else:
            error = SLOW if happens == "failed" else StoreRefusedError("ExpiredToken")
            ended += [job] if fetches.failed(job, error, now) else []
    waiting = fetches.due(float("inf"))
    assert sorted(map(id, [*ready, *ended, *waiting])) == sorted(map(id, everything))


def deferring(*, hold_seconds: float = 30.0, halted: bool = False) -> FetchRetries[Job]:
    return FetchRetries(
        RetryPolicy(6, base_seconds=1.0, max_seconds=8.0, deadline_seconds=100.0),
        Stores(min_calls=4, pause_seconds=2.0),
        random.Random(1),
        outage_seconds=600.0,
        hold_seconds=hold_seconds,
        deferred_deadline_seconds=10_000.0,
        is_halted=lambda: halted,
    )


def movable(job: Job) -> Job:
    job.may_be_deferred = True
    return job


def waits_until(fetches: FetchRetries[Job], job: Job, now: float) -> tuple[float, object]:
    """Asks for a job of a store that stays down; when, and as what, it ends."""
    while True:
        outcome = fetches.admit(job, now)
        if outcome is Admitted.NOW:  # it is the probe
            outcome = fetches.failed(job, SLOW, now)
        if outcome is not Admitted.LATER and outcome is not None:
            return now, outcome
        due = fetches.next_due()
        assert due is not None
        now = due
        assert job in fetches.due(now)


def test_an_event_whose_store_is_down_is_deferred_before_it_has_held_its_partition_for_too_long() -> None:
    fetches, job = deferring(), movable(stored(1000))
    bring_down(fetches, 0.0)
    fetches.clear()
    when, outcome = waits_until(fetches, job, 0.0)
    assert isinstance(outcome, Deferred)
    assert "s3://bucket has not answered for" in outcome.reason
    assert 25.0 < when <= 30.0
    assert job.attempts == 0
    assert list(fetches.held()) == []


def test_once_a_store_is_down_for_longer_further_events_for_it_do_not_wait_at_all() -> None:
    fetches = deferring()
    bring_down(fetches, 0.0)
    may_go(fetches, stored(1), 60.0)  # the probe of this pause
    assert isinstance(fetches.admit(movable(stored(1000)), 60.5), Deferred)
    assert fetches.admit(stored(1001), 60.5) is Admitted.LATER, "one that may not be deferred waits"
    assert may_go(fetches, movable(stored(1, bucket="another")), 60.5)


def test_a_single_event_that_fails_too_long_is_deferred_with_its_attempts() -> None:
    fetches, job = deferring(hold_seconds=5.0), movable(linked(1))
    now, outcome = 0.0, None
    while outcome is None:
        outcome = fetches.failed(job, SLOW, now)
        now = fetches.next_due() or now
        fetches.due(now)
    assert isinstance(outcome, Deferred)
    assert 1 <= job.attempts < 6
    assert outcome.reason == f"503 SlowDown, {job.attempts} attempts"


def test_while_nothing_is_judged_nothing_is_deferred() -> None:
    fetches = deferring(hold_seconds=5.0, halted=True)
    bring_down(fetches, 0.0)
    may_go(fetches, stored(1), 60.0)
    assert fetches.admit(movable(stored(1000)), 60.5) is Admitted.LATER


def test_an_event_that_was_deferred_has_a_deadline_of_its_own() -> None:
    """A host that is down: an event that waits in its partition is given up after 100 s."""
    fetches = deferring(hold_seconds=float("inf"))
    bring_down(fetches, 0.0, linked)
    patient, held = movable(linked(1000)), linked(1001)
    for job in (patient, held):
        job.first_failed_at = 0.0
    may_go(fetches, linked(1), 200.0)
    assert fetches.admit(patient, 200.5) is Admitted.LATER
    assert isinstance(fetches.admit(held, 200.5), GivenUp)
    may_go(fetches, linked(1), 10_000.0)
    assert isinstance(fetches.admit(patient, 10_000.5), GivenUp)
