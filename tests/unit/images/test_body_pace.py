import pytest

from tests.unit.clock import Clock
from worker.images.errors import TransientFetchError
from worker.images.fetch.pace import GRACE_SECONDS, BodyPace


def test_a_body_may_be_as_slow_as_it_likes_at_first_and_then_no_slower_than_the_limit() -> None:
    clock = Clock(100.0)
    pace = BodyPace("s3://bucket/key", 1000.0, clock)
    clock.now += GRACE_SECONDS - 0.001
    pace.check(0)
    clock.now += 5.0
    pace.check(5010)
    with pytest.raises(TransientFetchError, match=r"s3://bucket/key sent 4999 bytes in 7.0 s.*per_second = 1000"):
        pace.check(4999)


def test_what_has_come_gives_time_for_the_rest() -> None:
    pace = BodyPace("x", 1000.0, Clock(100.0))
    assert pace.due(3000) - pace.due(0) == 3.0
