"""What the desk does for its users, case by case."""

import threading
from datetime import timedelta
from typing import Any

import pytest
import redis

from schemas import InlineReference
from tests.unit.review.review_bench import DIGEST, START, ReviewBench, features, review_item, verdict
from worker.intake.log import LogError, Output
from worker.review.answers import Choice, DeskEvent, Query, Status
from worker.review.errors import LeaseLost, NotPossible, NotReady, NotRecorded, UnknownItem
from worker.review.projector import rebuild
from worker.settings import QueueSettings
from worker.trust.drawing import draw_point


def test_what_is_due_first_comes_first() -> None:
    bench = ReviewBench()
    bench.items(
        review_item("later", created_at=START + timedelta(seconds=1)),
        review_item("first"),
        review_item("urgent", priority=90, created_at=START + timedelta(hours=1)),
        review_item("old", priority=0, created_at=START - timedelta(days=1)),
    )
    leases = bench.desk.lease("quality", "ann", count=10)
    assert [lease.item_id for lease in leases] == ["old", "urgent", "first", "later"]


def test_before_the_index_is_built_nobody_gets_anything() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.redis.flushall()
    with pytest.raises(NotReady, match="being built"):
        bench.desk.lease("quality", "ann")
    bench.projector.catch_up()
    assert bench.one("ann").item_id == "a"


def test_an_item_is_one_reviewers_until_the_lease_ends() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    assert bench.desk.lease("quality", "bob") == []
    with pytest.raises(NotPossible, match="somebody else"):
        bench.desk.take("a", "bob")
    bench.lose_lease(lease)
    taken = bench.one("bob")
    assert taken.token > lease.token
    with pytest.raises(LeaseLost):
        bench.decide(lease, "approve")
    assert bench.decide(taken, "reject").resolution == "reject"
    assert [d.reviewer for d in bench.decisions()] == ["bob"]


def test_what_a_withdrawn_request_was_granted_goes_back_at_once() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"), review_item("b"))
    bench.desk.lease("quality", "ann", count=2, request_id="left before the answer")
    bench.desk.withdraw("left before the answer", "bob")
    assert bench.desk.lease("quality", "bob") == []
    bench.desk.withdraw("left before the answer", "ann")
    assert [lease.item_id for lease in bench.desk.lease("quality", "bob", count=5)] == ["a", "b"]
    bench.desk.withdraw("left before the answer", "ann")
    assert bench.desk.lease("quality", "ann") == []


def test_a_request_that_was_withdrawn_before_it_came_is_granted_nothing() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.desk.withdraw("overtaken", "ann")
    assert bench.desk.lease("quality", "ann", request_id="overtaken") == []
    assert bench.one("bob").item_id == "a"


def test_a_record_of_a_desk_that_slept_does_not_count_once_something_else_was_done() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.desk.hold("a", "lead")
    bench.desk.reopen("a", "lead")
    late = bench.desk._recorder.decision(bench.desk.item("a").item, "ann", "reject", lease.token, resolution="reject")
    bench.publish("images.decisions", late, key="item_id")
    bench.projector.step()
    assert bench.desk.item("a").status is Status.OPEN
    assert bench.decide(bench.one("bob"), "approve").resolution == "approve"


def test_decisions_are_read_before_items_so_that_nothing_decided_looks_open() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "approve")
    bench.redis.flushall()
    asked: list[set[str]] = []
    original = bench.topics.read

    def reading(positions: Any, wait_seconds: float) -> Any:
        asked.append({partition.topic for partition in positions})
        return original(positions, wait_seconds)

    bench.topics.read = reading  # type: ignore[method-assign]
    bench.new_projector(bench.new_catalogue()).catch_up()
    assert asked == [{"images.decisions"}, {"images.decisions", "images.review", "images.verdicts"}]


def test_a_lease_needs_its_own_reviewer_and_item() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"), review_item("b"))
    lease = bench.one("ann")
    with pytest.raises(LeaseLost):
        bench.desk.heartbeat(lease.item_id, lease.token, "bob")
    with pytest.raises(LeaseLost):
        bench.desk.heartbeat("b", lease.token, "ann")
    with pytest.raises(LeaseLost):
        bench.desk.decide(Choice("b", lease.token, "d", "approve"), "ann")
    bench.desk.release(lease.token, "bob")
    assert bench.desk.heartbeat(lease.item_id, lease.token, "ann") > lease.expires_at - timedelta(seconds=1)


def test_a_decision_is_acknowledged_only_when_the_log_has_it() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.topics.fail = "before"
    with pytest.raises(NotRecorded, match=r"disk is full.*same decision id"):
        bench.decide(lease, "approve")
    assert bench.desk.item("a").status is Status.OPEN
    bench.topics.fail = "after"  # it is stored, but nobody says so
    with pytest.raises(NotRecorded):
        bench.decide(lease, "approve")
    bench.topics.fail = None
    assert bench.decide(lease, "approve").resolution == "approve"
    bench.projector.step()
    assert [d.decision_id for d in bench.desk.item("a").history] == [f"d-{lease.token}"]
    assert bench.desk.statistics().hours[-1].approved == 1


def test_a_decision_that_the_log_has_counts_although_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")

    def away(*_args: Any, **_more: Any) -> Any:
        raise redis.ConnectionError("away")

    with monkeypatch.context() as patched:
        patched.setattr(bench.desk._index, "apply", away)
        assert bench.decide(lease, "approve").resolution == "approve"
    assert bench.desk.item("a").status is Status.OPEN
    bench.projector.step()
    assert bench.desk.item("a").status is Status.APPROVED


def test_without_a_log_no_lease_is_given_as_it_could_not_be_audited() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.topics.fail = "before"
    with pytest.raises(LogError):
        bench.desk.lease("quality", "ann")
    bench.topics.fail = None
    assert bench.one("bob").item_id == "a"


def test_a_decision_can_be_undone_for_ten_seconds_by_who_made_it() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.decide(lease, "reject", "d1")
    with pytest.raises(NotPossible, match="only who made"):
        bench.desk.undo("d1", "bob")
    bench.sleep(9)
    back = bench.desk.undo("d1", "ann")
    assert (back.item_id, back.reviewer, bench.desk.item("a").status) == ("a", "ann", Status.OPEN)
    bench.decide(back, "approve", "d2")
    with pytest.raises(NotPossible, match="taken back already"):
        bench.desk.undo("d1", "ann")
    bench.sleep(11)
    with pytest.raises(NotPossible, match="ask a lead to reopen"):
        bench.desk.undo("d2", "ann")
    assert [(d.outcome, d.undoes) for d in bench.decisions()] == [("reject", None), ("reopen", "d1"), ("approve", None)]
    (ann,) = bench.desk.statistics().reviewers
    assert (ann.approved, ann.rejected, ann.undone) == (1, 0, 1)


@pytest.mark.parametrize(
    ("outcome", "status"), [("skip", Status.OPEN), ("hold", Status.HELD), ("escalate", Status.ESCALATED)]
)
def test_a_skip_a_hold_and_an_escalation_keep_what_was_said_and_can_be_undone(outcome: str, status: Status) -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    done = bench.decide(bench.one("ann"), outcome, "d1", labels=("artefacts",), note="six fingers")
    assert (done.resolution, bench.desk.item("a").status) == (None, status)
    (made,) = bench.desk.item("a").history
    assert (made.outcome, made.labels, made.note) == (outcome, ("artefacts",), "six fingers")
    assert bench.desk.lease("quality", "ann") == []
    assert bench.desk.decide(Choice("a", 0, "d1", outcome), "ann") == done  # type: ignore[arg-type]
    back = bench.desk.undo("d1", "ann")
    assert bench.desk.item("a").status is Status.OPEN
    assert bench.decide(back, "approve", "d2").resolution == "approve"
    (ann,) = bench.desk.statistics().reviewers
    assert (ann.approved, ann.skipped, ann.escalated, ann.undone) == (1, 0, 0, 1)


@pytest.mark.parametrize("outcome", ["skip", "hold", "escalate"])
def test_a_test_item_can_be_passed_on_like_any_other_and_goes_on_testing(outcome: str) -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(gold_share=0.5)})
    bench.items(review_item("a"))
    bench.desk.mark_gold("a", "reject", "lead")
    bench.decide(bench.desk.take("a", "ann"), outcome, "d1")
    assert all(bench.desk.lease("quality", "ann") == [] for _ in range(20))
    bens = next(leases for _ in range(50) if (leases := bench.desk.lease("quality", "ben")))
    assert bens[0].item_id == "a"
    with pytest.raises(NotPossible, match="test item; reopen it first"):
        bench.desk.hold("a", "lead")


def test_a_skip_is_not_undone_while_somebody_else_has_the_item() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "skip", "d1")
    bens = bench.one("ben")
    with pytest.raises(NotPossible, match="somebody else has the item"):
        bench.desk.undo("d1", "ann")
    bench.desk.release(bens.token, "ben")
    assert bench.desk.undo("d1", "ann").item_id == "a"


def test_who_skipped_items_can_ask_for_those_that_still_wait() -> None:
    bench = ReviewBench()
    bench.items(*(review_item(name) for name in "abcd"))
    for name in "abc":
        bench.desk.skip(name, bench.desk.take(name, "ann").token, "ann", labels=("blur",), note="no idea")
    bench.decide(bench.desk.take("b", "ben"), "approve")
    assert [lease.item_id for lease in bench.desk.lease("quality", "ann", count=9)] == ["d"]
    assert bench.desk.lease("quality", "ben", count=9, skipped=True) == []
    leases = bench.desk.lease("quality", "ann", count=9, skipped=True)
    assert [lease.item_id for lease in leases] == ["a", "c"]
    assert bench.desk.item("a").history[-1].note == "no idea"
    bench.decide(leases[0], "reject")
    bench.desk.release(leases[1].token, "ann")
    assert [lease.item_id for lease in bench.desk.lease("quality", "ann", count=9, skipped=True)] == ["c"]


def test_an_undo_that_the_log_does_not_take_leaves_the_decision_as_it_was() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "reject", "d1")
    bench.topics.fail = "before"
    with pytest.raises(NotRecorded):
        bench.desk.undo("d1", "ann")
    bench.topics.fail = None
    assert bench.desk.item("a").status is Status.REJECTED
    bench.desk.undo("d1", "ann")


def test_an_undo_that_is_sent_again_has_the_same_answer_and_is_recorded_once() -> None:
    bench = ReviewBench()
    twins(bench)
    bench.decide(bench.one("ann"), "reject", "d1")
    back = bench.desk.undo("d1", "ann")
    bench.sleep(60)  # the first answer was lost, and the connection with it
    again = bench.desk.undo("d1", "ann")
    assert (again.token, [view.item.item_id for view in again.items]) == (
        back.token,
        [view.item.item_id for view in back.items],
    )
    with pytest.raises(NotPossible):
        bench.desk.undo("d1", "bob")
    assert [decision.outcome for decision in bench.decisions()].count("reopen") == 3
    assert [entry.action for entry in bench.audit()].count("undo") == 1
    assert bench.decide(again, "approve").resolution == "approve"


def test_an_undo_that_is_sent_again_after_its_lease_ran_out_leases_anew_unless_somebody_else_has_the_item() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "reject", "d1")
    bench.lose_lease(bench.desk.undo("d1", "ann"))
    anew = bench.desk.undo("d1", "ann")
    bench.lose_lease(anew)
    theirs = bench.one("bob")
    with pytest.raises(NotPossible, match="taken back; its lease has run out"):
        bench.desk.undo("d1", "ann")
    assert bench.decide(theirs, "approve").resolution == "approve"
    with pytest.raises(NotPossible, match="taken back already"):
        bench.desk.undo("d1", "ann")


def test_an_undo_that_the_log_took_without_saying_so_counts_once_when_it_is_sent_again() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "reject", "d1")
    bench.topics.fail = "after"
    with pytest.raises(NotRecorded):
        bench.desk.undo("d1", "ann")
    bench.topics.fail = None
    back = bench.desk.undo("d1", "ann")
    bench.projector.step()
    assert [decision.outcome for decision in bench.desk.item("a").history] == ["reject", "reopen"]
    (ann,) = bench.desk.statistics().reviewers
    assert (ann.rejected, ann.undone) == (0, 1)
    assert bench.desk.undo("d1", "ann").token == back.token
    assert bench.decide(back, "approve").resolution == "approve"


def test_who_takes_back_the_vote_that_tied_does_not_see_how_others_voted() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(agree=2, votes=2)})
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "approve")
    assert bench.decide(bench.one("bob"), "reject", "d1").resolution == "escalate"
    for _ in range(2):
        history = bench.desk.undo("d1", "bob").items[0].history
        assert {decision.reviewer for decision in history} == {"bob"}


def test_two_of_three_blind_votes_settle_and_nobody_votes_twice() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(agree=2, votes=3)})
    bench.items(review_item("a"))
    assert bench.decide(bench.one("ann"), "approve").resolution is None
    assert bench.desk.lease("quality", "ann") == []
    second = bench.one("bob")
    assert second.items[0].history == ()
    assert bench.desk.item("a", blind_to="bob").history == ()
    assert len(bench.desk.item("a").history) == 1
    assert bench.decide(second, "reject").resolution is None
    assert bench.decide(bench.one("cem"), "reject").resolution == "reject"
    assert len(bench.desk.item("a", blind_to="ann").history) == 3  # settled: no secret any more
    statistics = {one.reviewer: one.majority for one in bench.desk.statistics().reviewers}
    assert {name: (share.count, share.total) for name, share in statistics.items()} == {
        "ann": (0, 1),
        "bob": (1, 1),
        "cem": (1, 1),
    }


def test_a_tie_goes_to_a_lead_whose_word_settles_it() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(agree=2, votes=2)})
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "approve")
    assert bench.decide(bench.one("bob"), "reject").resolution == "escalate"
    assert bench.desk.lease("quality", "cem") == []
    lease = bench.one("lead", escalated=True)
    assert len(lease.items[0].history) == 2
    assert bench.decide(lease, "approve").resolution == "approve"


def test_gold_items_test_reviewers_and_look_like_all_others() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(gold_share=0.5)})
    bench.items(*(review_item(f"i{number}") for number in range(40)), review_item("gold"))
    bench.desk.mark_gold("gold", "reject", "lead")
    seen: list[str] = []
    for _ in range(20):
        lease = bench.one("ann")
        seen.append(lease.item_id)
        assert (lease.items[0].status, lease.items[0].history) == (Status.OPEN, ())
        bench.decide(lease, "approve")
    assert seen.count("gold") == 1
    assert bench.desk.item("gold").status is Status.GOLD
    assert [d.resolution for d in bench.decisions() if d.item_id == "gold" and d.outcome == "approve"] == [None]
    (ann,) = [one for one in bench.desk.statistics().reviewers if one.reviewer == "ann"]
    assert (ann.gold.count, ann.gold.total) == (0, 1)


def test_a_test_item_answers_as_an_ordinary_one_and_its_first_answer_counts() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(gold_share=0.0)})
    bench.items(review_item("ordinary"), review_item("test"))
    bench.desk.mark_gold("test", "approve", "lead")
    seen = []
    for item_id in ("ordinary", "test"):
        decided = bench.decide(bench.desk.take(item_id, "ann"), "reject", f"first-{item_id}")
        view = bench.desk.item(item_id, blind_to="ann")
        shown = [(made.outcome, made.resolution, made.reviewer) for made in view.history]
        seen.append((decided.resolution, view.status, view.closed_at, view.votes_cast, shown))
        back = bench.desk.undo(f"first-{item_id}", "ann")
        view = bench.desk.item(item_id, blind_to="ann")
        seen[-1] += (view.status, view.votes_cast, bench.decide(back, "approve").resolution)
    assert seen[0] == seen[1]
    assert seen[0][:2] == ("reject", Status.REJECTED)
    (ann,) = [one for one in bench.desk.statistics().reviewers if one.reviewer == "ann"]
    assert (ann.gold.count, ann.gold.total) == (0, 1)
    assert bench.desk.item("test").status is Status.GOLD


def test_a_lease_jumps_over_what_is_closed_to_the_reviewer() -> None:
    bench = ReviewBench()
    bench.items(*(review_item(f"i{n:03d}", priority=100 - n // 3) for n in range(240)))
    skipped = [f"i{n:03d}" for n in range(240) if n < 200 or n % 2]
    for item_id in skipped:
        bench.desk.skip(item_id, bench.desk.take(item_id, "ann").token, "ann")
    left = sorted({f"i{n:03d}" for n in range(240)} - set(skipped))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worker.review.index.leases.LOOKED_AT", 7)  # so that it takes several scripts
        assert [lease.item_id for lease in bench.desk.lease("quality", "ann", count=60)] == left
    assert bench.one("bob").item_id == "i000"
    bench.desk.assign("i001", "ann", "lead")
    assert bench.one("ann").item_id == "i001"  # it is not closed to its assignee any more


def test_an_item_goes_to_its_assignee_only() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"), review_item("b", priority=100))
    bench.desk.assign("a", "cem", "lead")
    assert bench.desk.queues()[0].assigned == 1
    with pytest.raises(NotPossible, match="assigned to cem"):
        bench.desk.take("a", "ann")
    assert [lease.item_id for lease in bench.desk.lease("quality", "ann", count=5)] == ["b"]
    assert bench.one("cem").item_id == "a"
    bench.desk.assign("a", None, "lead")
    assert bench.one("ann").item_id == "a"


def test_what_is_assigned_to_somebody_who_leaves_comes_back_to_its_queue() -> None:
    bench = ReviewBench()
    bench.items(*(review_item(name) for name in ("a", "b", "c", "d")), review_item("e", queue="prompt"))
    for item_id in ("a", "b", "e"):
        bench.desk.assign(item_id, "cem", "lead")
    bench.desk.assign("c", "dia", "lead")
    assert bench.desk.unassign("cem", "admin") == 3
    assert bench.desk.unassign("cem", "admin") == 0
    assert {lease.item_id for lease in bench.desk.lease("quality", "ann", count=9)} == {"a", "b", "d"}
    assert bench.one("ann", "prompt").item_id == "e"
    told = [entry for entry in bench.audit() if entry.action == "unassign"]
    assert sorted(entry.subjects for entry in told) == [("a",), ("b",), ("e",)]
    assert {(entry.actor, entry.detail["assignee"]) for entry in told} == {("admin", "cem")}
    assert bench.desk.item("a").history[-1].note == "cem may no longer decide here"
    assert {queue.name: queue.assigned for queue in bench.desk.queues()} == {"prompt": 0, "quality": 1}


def test_who_is_assigned_an_item_while_another_s_come_back_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.desk.assign("a", "cem", "lead")
    item, token, append = bench.desk.item("a").item, bench.desk._leases.token(), bench.topics.append

    def overtaken(outputs: Any) -> Any:
        monkeypatch.undo()
        assigned = bench.desk._recorder.decision(item, "lead", "assign", token, assignee="dia")
        bench.publish("images.decisions", assigned, key="item_id")
        return append(outputs)

    monkeypatch.setattr(bench.topics, "append", overtaken)
    bench.desk.unassign("cem", "admin")
    bench.projector.step()
    assert bench.desk.item("a").assignee == "dia"


def test_an_assignee_who_skips_leaves_the_item_to_all_others_and_can_be_assigned_it_again() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.desk.assign("a", "cem", "lead")
    lease = bench.one("cem")
    bench.desk.skip("a", lease.token, "cem")
    assert bench.desk.lease("quality", "cem") == []
    others = bench.one("ann")
    bench.desk.release(others.token, "ann")
    bench.desk.assign("a", "cem", "lead")
    assert bench.one("cem").item_id == "a"


def test_an_item_is_not_assigned_to_who_has_voted_on_it_and_could_not_have_it() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(agree=2, votes=3)})
    bench.items(review_item("a"))
    bench.decide(bench.one("cem"), "approve")
    with pytest.raises(NotPossible, match="cem has voted on the item already; assign it to somebody else"):
        bench.desk.assign("a", "cem", "lead")
    assert bench.one("ann").item_id == "a"


def test_hold_escalate_and_reopen_take_the_item_from_who_has_it() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.desk.hold("a", "lead", note="ask the customer")
    with pytest.raises(LeaseLost):
        bench.decide(lease, "approve")
    assert bench.desk.lease("quality", "bob") == []
    with pytest.raises(NotPossible, match="is held"):
        bench.desk.hold("a", "lead")
    bench.desk.escalate("a", "lead")
    assert bench.one("lead", escalated=True).item_id == "a"
    bench.desk.reopen("a", "lead")
    mine = bench.one("ann")
    bench.desk.escalate("a", "ann", token=mine.token)
    (queue,) = bench.desk.queues()
    assert (queue.open, queue.escalated, queue.held, queue.leased) == (0, 1, 0, 0)
    assert bench.desk.item("a").history[0].note == "ask the customer"


def test_unknown_items_are_named() -> None:
    bench = ReviewBench()
    for ask in (
        bench.desk.item,
        bench.desk.image,
        lambda i: bench.desk.hold(i, "lead"),
        lambda i: bench.desk.take(i, "x"),
    ):
        with pytest.raises(UnknownItem, match="no item nowhere"):
            ask("nowhere")


def twins(bench: ReviewBench) -> None:
    """Three copies of one picture, and another picture."""
    bench.items(
        review_item("one", features=features([1, 0, 0, 0.1])),
        review_item("two", features=features([1, 0.01, 0, 0.1])),
        review_item("three", features=features([1, 0, 0.02, 0.1])),
        review_item("other", features=features([0, 1, 0.5, 0])),
    )


def test_near_duplicates_share_one_job_and_the_decision_covers_them_all() -> None:
    bench = ReviewBench()
    twins(bench)
    lease = bench.one("ann")
    assert {view.item.item_id for view in lease.items} == {"one", "two", "three"}
    assert bench.one("bob").item_id == "other"
    assert bench.desk.queues()[0].leased == 4
    decided = bench.decide(lease, "reject", "d1")
    assert set(decided.item_ids) == {"one", "two", "three"}
    made = [d for d in bench.decisions() if d.outcome == "reject"]
    assert {d.item_id: d.decided_with for d in made} == {
        lease.item_id: None,
        **{view.item.item_id: lease.item_id for view in lease.items[1:]},
    }
    back = bench.desk.undo("d1", "ann")
    assert {view.item.item_id for view in back.items} == {"one", "two", "three"}
    assert bench.desk.lease("quality", "cem", count=9) == []


def test_a_cluster_can_be_split_under_the_lease() -> None:
    bench = ReviewBench()
    twins(bench)
    lease = bench.one("ann")
    apart = lease.items[1].item.item_id
    bench.desk.split([apart], "ann", token=lease.token)
    bench.desk.heartbeat(lease.item_id, lease.token, "ann")
    taken = bench.desk.take(apart, "bob")
    bench.desk.release(taken.token, "bob")
    assert apart not in bench.decide(lease, "reject").item_ids
    assert [other.item_id for other in bench.desk.lease("quality", "bob", count=9)] in (
        [apart, "other"],
        ["other", apart],
    )
    bench.redis.flushall()
    bench.new_projector().catch_up()
    assert bench.desk.item(apart).cluster == (apart,)


def test_who_parts_the_item_they_look_at_parts_all_others_from_it() -> None:
    bench = ReviewBench()
    twins(bench)
    lease = bench.one("ann")
    bench.desk.split([lease.item_id], "ann", token=lease.token)
    assert bench.decide(lease, "approve").item_ids == (lease.item_id,)
    assert len(bench.desk.lease("quality", "bob", count=9)) == 3


def test_a_copy_that_comes_while_the_others_are_looked_at_is_not_decided_unseen() -> None:
    bench = ReviewBench()
    bench.items(review_item("one", content_hash=DIGEST))
    lease = bench.one("ann")
    bench.items(review_item("two", content_hash=DIGEST))
    assert bench.desk.lease("quality", "bob") == []  # it waits for what ann says
    assert bench.decide(lease, "reject").item_ids == ("one",)
    assert bench.one("bob").item_id == "two"


def test_other_tenants_and_queues_are_never_judged_together() -> None:
    bench = ReviewBench()
    bench.items(
        review_item("a", content_hash=DIGEST),
        review_item("b", content_hash=DIGEST, tenant="acme"),
        review_item("c", content_hash=DIGEST, queue="prompt"),
    )
    assert [len(lease.items) for lease in bench.desk.lease("quality", "ann", count=9)] == [1, 1]


def test_bulk_decisions_have_an_outcome_each() -> None:
    bench = ReviewBench()
    bench.items(*(review_item(f"i{number}") for number in range(3)))
    leases = bench.desk.lease("quality", "ann", count=3)
    bench.lose_lease(leases[1])
    choices = [Choice(lease.item_id, lease.token, f"d{n}", "reject") for n, lease in enumerate(leases)]
    first, second, third = bench.desk.bulk_decide(choices, "ann")
    assert isinstance(second, LeaseLost)
    assert not isinstance(first, Exception)
    assert not isinstance(third, Exception)
    assert {d.item_id for d in bench.decisions()} == {leases[0].item_id, leases[2].item_id}


def test_the_audit_sample_tells_how_many_bad_images_passed() -> None:
    bench = ReviewBench(audit_share=0.5)
    events = [f"e{number}" for number in range(40)]
    bench.publish("images.verdicts", *(verdict(event) for event in events), verdict("r", "review"))
    bench.projector.step()
    sampled = [event for event in events if draw_point(event) < 0.5]
    leases = bench.desk.lease("audit", "ann", count=100)
    assert sorted(lease.items[0].item.event_id for lease in leases) == sorted(sampled)
    for lease in leases[:10]:
        bench.decide(lease, "reject" if lease is leases[0] else "approve")
    bench.projector.step()
    (misses,) = bench.desk.statistics().audit_misses
    assert (misses.drawn, misses.audited, misses.missed) == (len(sampled), 10, 1)
    assert misses.low < misses.share == 0.1 < misses.high
    bench.desk.reopen(leases[0].item_id, "lead")
    bench.projector.step()
    (misses,) = bench.desk.statistics().audit_misses
    assert (misses.audited, misses.missed) == (9, 0)


def test_only_what_the_policy_held_back_can_be_a_flip() -> None:
    bench = ReviewBench()
    bench.items(
        review_item("held"),
        review_item("passed", queue="audit"),
        review_item("known", queue="tests"),
        review_item("kept"),
    )
    bench.desk.mark_gold("known", "approve", "lead")
    for item_id in ("held", "passed", "known"):
        bench.decide(bench.desk.take(item_id, "ann"), "approve")
    bench.decide(bench.desk.take("kept", "ann"), "reject")
    hour = bench.desk.statistics().hours[-1]
    assert (hour.approved, hour.rejected, hour.held, hour.flips) == (3, 1, 2, 1)
    bench.desk.undo(bench.desk.item("held").history[-1].decision_id, "ann")
    hour = bench.desk.statistics().hours[-1]
    assert (hour.approved, hour.held, hour.flips) == (2, 1, 0)


def test_a_vote_that_was_taken_back_says_nothing_of_agreement() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(agree=2, votes=2)})
    bench.items(*(review_item(f"i{number}") for number in range(6)))
    for number in range(6):
        bench.decide(bench.desk.take(f"i{number}", "ann"), "approve" if number % 2 else "reject")
    for number in range(6):
        lease = bench.desk.take(f"i{number}", "bob")
        bench.decide(lease, "approve", f"slip-{number}")
        back = bench.desk.undo(f"slip-{number}", "bob")
        bench.decide(back, "approve" if number % 2 else "reject")
    statistics = bench.desk.statistics()
    assert statistics.cohen_kappa == {("ann", "bob"): 1.0}
    assert [person.majority.total for person in statistics.reviewers] == [6, 6]
    before = bench.dump()
    rebuild(bench.settings, bench.topics, bench.redis, bench.new_catalogue(), bench.clock)
    assert bench.dump() == before
    assert bench.desk.statistics() == statistics


def test_who_voted_before_an_item_became_a_test_was_not_tested() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"))
    bench.decide(bench.one("ann"), "reject")
    bench.desk.mark_gold("a", "approve", "lead")
    bench.decide(bench.desk.take("a", "bob"), "reject", "slip")
    bench.decide(bench.desk.undo("slip", "bob"), "approve")
    for _ in range(2):
        gold = {person.reviewer: person.gold for person in bench.desk.statistics().reviewers}
        assert (gold["ann"].total, gold["bob"].count, gold["bob"].total) == (0, 0, 1)  # bob's first answer counts
        rebuild(bench.settings, bench.topics, bench.redis, bench.new_catalogue(), bench.clock)


def test_records_that_are_none_of_ours_stop_nobody() -> None:
    bench = ReviewBench()
    bench.topics.append(
        [Output("images.review", b"{"), Output("images.decisions", b"[]", b"a"), Output("images.review", b"")]
    )
    bench.items(review_item("a"))
    assert bench.one("ann").item_id == "a"


def test_an_inline_image_is_read_from_the_log_and_not_kept_in_redis() -> None:
    bench = ReviewBench()
    bench.items(review_item("a", image={"kind": "inline", "bytes": "aGVsbG8="}, features=features([1, 2])))
    item = bench.one("ann").items[0].item
    assert bench.desk.image("a") == (InlineReference(bytes=b"hello"), item.content_hash)
    assert (item.image, item.features) == (InlineReference(bytes=b""), {})


def test_settled_items_leave_the_index_after_a_while_and_a_rebuild_does_not_bring_them_back() -> None:
    bench = ReviewBench(keep_closed_days=1)
    bench.items(review_item("a"), review_item("b"))
    bench.decide(bench.one("ann"), "approve")
    bench.sleep(49 * 3600)
    bench.projector.step()
    closed = {"a", "b"} - {bench.one("bob").item_id}
    with pytest.raises(UnknownItem, match="settled long ago"):
        bench.desk.item(closed.pop())
    assert rebuild(bench.settings, bench.topics, bench.redis, bench.new_catalogue(), bench.clock) in (1, 2)  # type: ignore[arg-type]
    bench.new_projector().catch_up()
    assert len(bench.desk.search(Query()).items) == 1


def test_search_finds_by_what_an_item_is_and_what_was_said() -> None:
    bench = ReviewBench()
    bench.items(
        *(
            review_item(f"i{number}", prompt=f"a cat number {number}", created_at=START + timedelta(seconds=number))
            for number in range(9)
        ),
        review_item("other", queue="prompt", tenant="acme", content_hash=DIGEST, labels=("odd",)),
    )
    lease = bench.one("ann")
    bench.decide(lease, "reject", labels=("anatomy",), note="Six Fingers")
    bench.projector.step()

    def found(**query: Any) -> list[str]:
        return [view.item.item_id for view in bench.desk.search(Query(**query)).items]

    assert found(text="number 7") == ["i7"]
    assert found(text="six fingers") == [lease.item_id]
    assert found(status=Status.REJECTED) == found(reviewer="ann") == found(label="anatomy") == [lease.item_id]
    assert (
        found(queue="prompt") == found(tenant="acme") == found(label="odd") == found(content_hash=DIGEST) == ["other"]
    )
    assert found(event_id="event-i3") == ["i3"]
    assert found(event_id="event-i3", queue="prompt") == []
    first = bench.desk.search(Query(), limit=4)
    second = bench.desk.search(Query(), limit=4, cursor=first.cursor)
    third = bench.desk.search(Query(), limit=4, cursor=second.cursor)
    ids = [view.item.item_id for page in (first, second, third) for view in page.items]
    assert ids[:2] == ["i8", "i7"]
    assert len(ids) == len(set(ids)) == 10
    assert third.cursor is None
    pages, cursor = [], None
    while not pages or cursor is not None:
        page = bench.desk.search(Query(oldest_first=True), limit=4, cursor=cursor)
        pages += [view.item.item_id for view in page.items]
        cursor = page.cursor
    assert pages == ids[::-1]
    for broken in ("nonsense", "nan|i1", "inf|i1", "|"):
        with pytest.raises(NotPossible, match="cursor"):
            bench.desk.search(Query(), cursor=broken)


def test_what_happens_is_told_to_whoever_listens() -> None:
    bench = ReviewBench()
    stop = threading.Event()
    events = bench.desk.events(stop)
    assert next(events) == []  # subscribed
    bench.items(review_item("a"))
    lease = bench.one("ann")
    bench.decide(lease, "reject")
    told: list[DeskEvent] = []
    while len(told) < 4:
        told += next(events)
    assert [(event.kind, event.actor) for event in told] == [
        ("arrive", None),
        ("lease", "ann"),
        ("reject", "ann"),
        ("settle", None),
    ]
    assert told[-1].status is Status.REJECTED
    stop.set()
    assert list(events) == []


def test_every_action_is_in_the_audit_topic() -> None:
    bench = ReviewBench()
    bench.items(review_item("a"), review_item("b"))
    bench.desk.record("ann", "sign-in", detail={"by": "oidc"})
    lease = bench.one("ann")
    bench.desk.release(lease.token, "ann")
    lease = bench.one("ann")
    bench.desk.skip(lease.item_id, lease.token, "ann")
    bench.decide(bench.one("ann"), "approve", "d1")
    bench.desk.undo("d1", "ann")
    bench.desk.assign("a", "bob", "lead")
    bench.desk.hold("b", "lead")
    bench.desk.reopen("b", "lead")
    bench.desk.split(["b"], "lead")
    bench.desk.mark_gold("b", "approve", "lead")
    actions = sorted((entry.actor, entry.action) for entry in bench.audit())
    assert actions == sorted(
        [("ann", name) for name in ("sign-in", "lease", "release", "lease", "skip", "lease", "approve", "undo")]
        + [("lead", name) for name in ("assign", "hold", "reopen", "split", "gold")]
    )


def test_a_queue_says_by_when_its_oldest_item_must_be_decided() -> None:
    bench = ReviewBench(queues={"quality": QueueSettings(decide_within_minutes=240)})
    assert [queue.decide_by for queue in bench.desk.queues()] == [None], "nothing waits"
    bench.items(review_item("a"))
    (queue,) = bench.desk.queues()
    assert queue.oldest_at is not None
    assert queue.decide_by == queue.oldest_at + timedelta(hours=4)
