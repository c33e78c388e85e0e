"""What Redis has given is answered from memory for a while, bounded in time and number."""

from worker.cache import recent
from worker.cache.recent import MOST, SECONDS, RecentValues


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def known(values: RecentValues[str], key: str) -> str | None:
    values.turn()
    return values.get(key)


def test_a_value_is_kept_for_half_a_minute_to_a_minute() -> None:
    clock = Clock()
    values: RecentValues[str] = RecentValues(clock)
    values.put("a", "1")
    clock.now += 2 * SECONDS - 1
    assert known(values, "a") == "1"
    clock.now += SECONDS
    assert known(values, "a") is None


def test_a_value_that_nobody_asked_for_in_a_long_time_is_not_answered() -> None:
    clock = Clock()
    values: RecentValues[str] = RecentValues(clock)
    values.put("a", "1")
    clock.now += 10 * SECONDS
    assert known(values, "a") is None


def test_no_more_than_twice_the_number_is_kept() -> None:
    values: RecentValues[str] = RecentValues(Clock())
    for i in range(5 * MOST):
        values.turn()
        values.put(str(i), "x")
    assert len(values._young) + len(values._old) <= 2 * recent.MOST
    assert known(values, str(5 * MOST - 1)) == "x"
    assert known(values, "0") is None
