"""A desk that dies between two steps, at any of them: what it had in hand is neither lost nor counted twice, and its
reviewer is told the truth."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.review.review_bench import DIGEST, ReviewBench, review_item
from worker.review.answers import Status
from worker.review.desk import Desk
from worker.review.errors import LeaseLost


class Killed(BaseException):
    """No code of the desk survives this."""


def kill(*_: Any, **__: Any) -> Any:
    raise Killed


def before_the_log(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk._topics, "append", kill)


def before_the_index(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk._index, "apply", kill)


def before_the_answer(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk, "_decided", kill)


def before_the_lease_is_shown(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(desk._dispatcher, "shown", kill)


MOMENTS = [before_the_log, before_the_index, before_the_answer]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("read_meanwhile", [True, False])
def test_a_decision_sent_again_after_a_crash_counts_once_and_is_acknowledged(
    moment: Callable[[Desk, pytest.MonkeyPatch], None], read_meanwhile: bool
) -> None:
    bench = ReviewBench()
    twins = [review_item(name, content_hash=DIGEST) for name in ("a", "b")]
    bench.items(*twins)
    lease = bench.one("ann")
    with pytest.MonkeyPatch.context() as patch:
        moment(bench.desk, patch)
        with pytest.raises(Killed):
            bench.decide(lease, "reject", "my-decision")
    bench.desk = bench.new_desk()
    if read_meanwhile:
        bench.projector.step()
    decided = bench.decide(lease, "reject", "my-decision")
    assert (decided.decision_id, decided.resolution) == ("my-decision", "reject")
    assert set(decided.item_ids) == {"a", "b"}
    bench.projector.step()
    for item_id in ("a", "b"):
        assert len(bench.desk.item(item_id).history) == 1
    assert bench.desk.statistics().hours[-1].rejected == 2
    back = bench.desk.undo("my-decision", "ann")
    assert {view.item.item_id for view in back.items} == {"a", "b"}
    assert bench.desk.item("a").status is Status.OPEN


@pytest.mark.parametrize("moment", [before_the_log, before_the_index, before_the_lease_is_shown])
@pytest.mark.parametrize("read_meanwhile", [True, False])
def test_an_undo_sent_again_after_a_crash_counts_once_and_gives_the_items_back(
    moment: Callable[[Desk, pytest.MonkeyPatch], None], read_meanwhile: bool
) -> None:
    bench = ReviewBench()
    bench.items(*(review_item(name, content_hash=DIGEST) for name in ("a", "b")))
    bench.decide(bench.one("ann"), "reject", "my-decision")
    with pytest.MonkeyPatch.context() as patch:
        moment(bench.desk, patch)
        with pytest.raises(Killed):
            bench.desk.undo("my-decision", "ann")
    bench.desk = bench.new_desk()
    if read_meanwhile:
        bench.projector.step()
    back = bench.desk.undo("my-decision", "ann")
    assert {view.item.item_id for view in back.items} == {"a", "b"}
    bench.projector.step()
    for item_id in ("a", "b"):
        assert [decision.outcome for decision in bench.desk.item(item_id).history] == ["reject", "reopen"]
    (ann,) = bench.desk.statistics().reviewers
    assert (ann.rejected, ann.undone) == (0, 2)
    assert bench.decide(back, "approve").resolution == "approve"


def test_a_decision_sent_again_to_an_index_built_anew_is_acknowledged() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.decide(lease, "reject", "my-decision")
    bench.redis.flushall()
    bench.projector.catch_up()
    assert bench.decide(lease, "reject", "my-decision").resolution == "reject"
    assert len(bench.decisions()) == 1


def test_a_decision_of_somebody_else_under_the_same_id_is_not_acknowledged() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.decide(lease, "reject", "my-decision")
    lease = type(lease)(lease.queue, "bob", lease.token, lease.expires_at, lease.items)
    with pytest.raises(LeaseLost):
        bench.decide(lease, "approve", "my-decision")
