"""The projector among others, and topics that change under it."""

import time
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from tests.unit.review.review_bench import ReviewBench, review_item
from worker.intake.log import LogError
from worker.review.index import keys
from worker.review.index.entry import Entry
from worker.settings import QueueSettings, ReviewSettings, WebhookSettings
from worker.supervision import RestartPolicy, Supervisor


def test_one_projector_works_and_another_takes_over_when_it_is_gone() -> None:
    bench = ReviewBench()
    other = bench.new_projector()
    bench.publish("images.review", review_item("a"))
    assert not other.step()
    assert bench.desk.queues() == []
    bench.projector.yield_to_others()
    assert other.step()
    assert bench.desk.queues()[0].open == 1
    assert not bench.projector.step()


def test_what_was_read_is_not_read_again_by_the_next_projector() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.projector.yield_to_others()
    bench.redis.delete(keys.item("a"))
    bench.new_projector().step()
    assert bench.redis.exists(keys.item("a")) == 0


def test_a_topic_that_gets_more_partitions_is_followed() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.topics._partitions = 16
    bench.items(*(review_item(f"b{number}") for number in range(20)))
    bench.sleep(61)
    bench.projector.step()
    assert bench.desk.queues()[0].open == 21


def test_a_projector_that_was_too_slow_writes_no_position_into_a_newer_index() -> None:
    bench = ReviewBench()
    bench.publish("images.review", review_item("a"))
    original = bench.catalogue.entries

    def flushed_meanwhile(item_ids: Sequence[str]) -> dict[str, Entry]:
        found = original(item_ids)
        bench.redis.flushall()
        return found

    bench.catalogue.entries = flushed_meanwhile  # type: ignore[method-assign]
    bench.projector.step()
    bench.catalogue.entries = original  # type: ignore[method-assign]
    assert not bench.redis.exists(keys.READY)
    assert not bench.redis.exists(keys.POSITIONS)
    bench.projector.catch_up()
    assert bench.one("ann").item_id == "a"


def test_neither_a_log_that_is_away_nor_an_unknown_error_ends_the_projector() -> None:
    bench = ReviewBench()
    faults = iter([LogError("away"), KeyError("a bug"), LogError("away")])
    original = bench.topics.read

    def read(*arguments: object) -> object:
        if (fault := next(faults, None)) is not None:
            raise fault
        return original(*arguments)  # type: ignore[arg-type]

    bench.topics.read = read  # type: ignore[method-assign, assignment]
    bench.publish("images.review", review_item("a"))
    supervisor = Supervisor(policy=RestartPolicy(first_pause=0.01))
    supervisor.start("projector", bench.projector.run, expected=(LogError,))
    try:
        deadline = time.monotonic() + 30
        while not bench.desk.queues() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert bench.desk.queues()[0].open == 1
    finally:
        assert supervisor.close()


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        (QueueSettings, {"agree": 3, "votes": 2}, "no item could be settled"),
        (QueueSettings, {"gold_share": 0.9}, "gold_share"),
        (ReviewSettings, {"audit_share": 2}, "audit_share"),
        (ReviewSettings, {"duplicate_cosine": 0}, "duplicate_cosine"),
        (ReviewSettings, {"tenant_weights": {"a": 0}}, "tenant_weights"),
        (WebhookSettings, {"url": "ftp://x", "secret": "s" * 16}, "http"),
        (WebhookSettings, {"url": "https://me:pw@x/", "secret": "s" * 16}, "without credentials"),
        (WebhookSettings, {"url": "https://x/", "secret": "short"}, "secret"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind: type, fields: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        kind(**fields)
