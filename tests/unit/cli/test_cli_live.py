from prometheus_client import CollectorRegistry

from worker.cli.live import StatusLine, by_label
from worker.telemetry.metrics import Metrics


def test_the_line_tells_what_was_judged_how_fast_and_what_waits() -> None:
    now = 0.0
    metrics = Metrics(CollectorRegistry())
    line = StatusLine(metrics, tuple, clock=lambda: now)
    for outcome, number in (("scored", 70), ("cached", 20), ("failed", 10), ("ignored", 5)):
        metrics.events.labels(outcome).inc(number)
    metrics.routes.labels("pass", "").inc(60)
    metrics.routes.labels("review", "a").inc(30)
    metrics.routes.labels("review", "b").inc(10)
    metrics.set_lag({("images.in", 0): 1000, ("images.in", 1): 500})
    metrics.records_in_flight.set(34)  # they are part of what has no committed verdict
    now = 4.0

    assert line.__rich__().plain == (
        "100 judged, 25 a second; 20 from the cache; 60 pass 40 review 0 reject; 10 not judged; 1,500 waiting"
    )


def test_what_ails_the_worker_is_shown_below() -> None:
    line = StatusLine(Metrics(CollectorRegistry()), lambda: ("images.in/0 makes no progress",))

    assert line.__rich__().plain.splitlines()[1:] == ["images.in/0 makes no progress"]


def test_values_are_summed_by_label() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.routes.labels("review", "a").inc(2)
    metrics.routes.labels("review", "b").inc(3)

    assert by_label(metrics.routes, "action") == {"review": 5}
