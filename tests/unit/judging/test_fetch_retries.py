"""A store that is down costs no image an attempt, and no image that never comes holds up the others for ever."""

import random
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from schemas import Failure, FailureReason, FileReference, ImageEvent, S3Reference
from worker.images.errors import TransientFetchError
from worker.judging.breaker import Breaker
from worker.judging.fetch_retries import FetchRetries
from worker.judging.job import Job
from worker.judging.retries import RetryPolicy

SLOW = TransientFetchError("503 SlowDown")


def job_of(image: S3Reference | FileReference) -> Job:
    event = ImageEvent(id="1", occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=image)
    return Job(event, 0.0)


def stored(key: int) -> Job:
    return job_of(S3Reference(bucket="bucket", key=str(key)))


def retries(*, max_attempts: int = 3, outage_seconds: float = 600.0, pause_seconds: float = 2.0) -> FetchRetries[Job]:
    policy = RetryPolicy(max_attempts, base_seconds=1.0, max_seconds=8.0, deadline_seconds=1000.0)
    breaker = Breaker(min_calls=4, window_seconds=60.0, pause_seconds=pause_seconds)
    return FetchRetries(policy, breaker, random.Random(1), outage_seconds=outage_seconds)


def bring_down(fetches: FetchRetries[Job], now: float) -> None:
    for key in range(100):
        if fetches.store_is_down:
            return
        fetches.failed(stored(key), SLOW, now)


def test_an_image_is_given_up_after_the_attempts_that_are_allowed() -> None:
    fetches, job = retries(max_attempts=3), job_of(FileReference(path="/a.png"))

    outcomes = [fetches.failed(job, SLOW, now=float(i)) for i in range(3)]

    assert outcomes[:2] == [None, None]
    assert outcomes[2] == Failure(
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

    assert [fetches.admit(job, 1.0) for job in jobs] == [False] * 5
    assert [fetches.admit(job, 2.5) for job in jobs] == [True, False, False, False, False]


def test_a_store_that_is_down_stops_no_file() -> None:
    fetches = retries()
    bring_down(fetches, now=0.0)
    assert fetches.admit(job_of(FileReference(path="/a.png")), 0.0)


def test_the_first_image_that_comes_opens_the_way_for_all() -> None:
    fetches = retries()
    bring_down(fetches, now=0.0)
    fetches.fetched(stored(1), 3.0)
    assert not fetches.store_is_down
    assert all(fetches.admit(stored(i), 3.0) for i in range(10))


def test_an_image_that_never_comes_is_given_up_when_outages_end() -> None:
    fetches = retries(max_attempts=1000, outage_seconds=60.0)
    bring_down(fetches, now=0.0)
    job = stored(1000)

    outcomes = [fetches.failed(job, SLOW, now=20.0 * i) for i in range(5)]

    assert outcomes[:4] == [None] * 4
    assert outcomes[4] is not None
    assert outcomes[4].message == "503 SlowDown; gave up after 5 attempts in 80.0 s"


@given(steps=st.lists(st.tuples(st.floats(0.0, 30.0), st.booleans()), max_size=200))
def test_whatever_the_store_does_every_image_is_fetched_given_up_or_waiting(steps: list[tuple[float, bool]]) -> None:
    fetches = retries(max_attempts=4, outage_seconds=120.0)
    everything = [stored(i) for i in range(12)]
    ready, ended, now = list(everything), [], 0.0
    for seconds, succeeds in steps:
        now += seconds
        ready += fetches.due(now)
        if not ready:
            continue
        job = ready.pop(0)
        if not fetches.admit(job, now):
            continue
        if succeeds:
            fetches.fetched(job, now)
            ended.append(job)
        elif fetches.failed(job, SLOW, now):
            ended.append(job)
    waiting = fetches.due(float("inf"))
    assert sorted(map(id, [*ready, *ended, *waiting])) == sorted(map(id, everything))
