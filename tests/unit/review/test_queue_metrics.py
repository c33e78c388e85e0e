"""What Prometheus sees of the review queues."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from worker.review.answers import QueueOverview
from worker.review.queue_metrics import QueueMetrics
from worker.settings.review import QueueSettings, ReviewSettings

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)


def queue(name: str, open_: int, oldest: timedelta | None, overdue: int = 0) -> QueueOverview:
    return QueueOverview(
        name=name,
        open=open_,
        leased=0,
        escalated=0,
        held=0,
        assigned=0,
        oldest_at=None if oldest is None else NOW - oldest,
        overdue=overdue,
        agree=1,
        votes=1,
    )


def series(metrics: QueueMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_each_queue_tells_how_much_waits_and_for_how_long_and_its_limit_where_it_has_one() -> None:
    settings = ReviewSettings(queues={"hands": QueueSettings(decide_within_minutes=240)})
    queues = [queue("hands", 7, timedelta(hours=5), overdue=2), queue("text", 0, None)]
    metrics = QueueMetrics(lambda: queues, settings, lambda: NOW)
    assert series(metrics) == {}, "nothing is known before the first look"
    metrics.refresh()
    assert series(metrics) == {
        'sluice_review_open_items{queue="hands"}': 7,
        'sluice_review_open_items{queue="text"}': 0,
        'sluice_review_overdue_items{queue="hands"}': 2,
        'sluice_review_overdue_items{queue="text"}': 0,
        'sluice_review_oldest_seconds{queue="hands"}': 18_000,
        'sluice_review_oldest_seconds{queue="text"}': 0,
        'sluice_review_decide_within_seconds{queue="hands"}': 14_400,
    }
    queues.pop()
    metrics.refresh()
    assert not any("text" in name for name in series(metrics)), "a queue that is gone has no series"


def test_a_clock_that_was_set_back_makes_no_age_below_zero() -> None:
    metrics = QueueMetrics(lambda: [queue("hands", 1, timedelta(hours=-1))], ReviewSettings(), lambda: NOW)
    metrics.refresh()
    assert series(metrics)['sluice_review_oldest_seconds{queue="hands"}'] == 0


def test_a_redis_that_is_away_ends_the_loop_for_the_supervisor_to_restart() -> None:
    def away() -> list[QueueOverview]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        QueueMetrics(away, ReviewSettings(), lambda: NOW).run(threading.Event())
