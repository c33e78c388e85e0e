"""Arbitrary histories of a desk: leases given, lost, judged late, undone, and Redis lost at any moment."""

import uuid
from dataclasses import replace
from typing import Any

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from schemas import Decision
from tests.unit.review.review_bench import ReviewBench, review_item
from worker.review.answers import Choice, Lease, Status
from worker.review.errors import DeskError, LeaseLost, NotPossible
from worker.settings import QueueSettings, ReviewSettings

PEOPLE = st.sampled_from(["ann", "bob", "cem", "dia"])
OUTCOMES = st.sampled_from(["approve", "reject"])
QUEUES = st.sampled_from(["quality", "votes"])
SELDOM = st.sampled_from([False, False, False, True])
ACTS = st.sampled_from(["hold", "escalate", "assign", "reopen", "split", "gold"])
RULES = ReviewSettings(queues={"votes": QueueSettings(agree=2, votes=3)}, audit_share=0)


class Histories(RuleBasedStateMachine):
    """What was acknowledged counts, whatever happens after; what was refused does not; nobody has what another has."""

    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.bench = ReviewBench(RULES)
        self.desk = self.bench.desk
        self.items: list[str] = []
        self.live: dict[int, Lease] = {}
        """Leases that nothing has ended yet."""
        self.settled: dict[str, tuple[str, str]] = {}
        """What each item came to by an acknowledged decision, and by which."""
        for queue in ("quality", "votes"):
            self.arrive(queue, 50, True)
            self.arrive(queue, 50, False)

    @rule(queue=QUEUES, who=PEOPLE, count=st.integers(1, 3), before=st.booleans())
    def ask_and_leave(self, queue: str, who: str, count: int, before: bool) -> None:
        """Nothing stays with somebody who never hears of it."""
        free = {item: self.desk.item(item).leased_by for item in self.items}
        request = uuid.uuid4().hex
        if before:
            self.desk.withdraw(request, who)
        given = self.desk.lease(queue, who, count=count, request_id=request)
        assert not (before and given)
        self.desk.withdraw(request, who)
        assert {item: self.desk.item(item).leased_by for item in self.items} == free

    @rule(queue=QUEUES, priority=st.integers(0, 100), twin=st.booleans())
    def arrive(self, queue: str, priority: int, twin: bool) -> None:
        """Two items, perhaps of one picture."""
        new = [f"i{len(self.items)}", f"i{len(self.items) + 1}"]
        content = f"sha256:{len(self.items):064x}" if twin else None
        self.bench.items(*(review_item(i, queue=queue, priority=priority, content_hash=content) for i in new))
        self.items += new

    @rule(target=leases, queue=QUEUES, who=PEOPLE, count=st.integers(1, 3), escalated=SELDOM)
    def lease(self, queue: str, who: str, count: int, escalated: bool) -> Any:
        given = self.desk.lease(queue, who, count=count, escalated=escalated)
        taken = {view.item.item_id for lease in self.live.values() for view in lease.items}
        for lease in given:
            for view in lease.items:
                assert view.item.item_id not in taken, "two have one item"
                taken.add(view.item.item_id)
                assert view.item.item_id not in self.settled
            self.live[lease.token] = lease
        return multiple(*given)

    @rule(lease=leases)
    def time_runs_out(self, lease: Lease) -> None:
        if self.live.pop(lease.token, None):
            self.bench.lose_lease(lease)

    @rule(lease=leases)
    def heartbeat(self, lease: Lease) -> None:
        if lease.token in self.live:
            assert self.desk.heartbeat(lease.item_id, lease.token, lease.reviewer) >= lease.expires_at
        else:
            with pytest.raises(LeaseLost):
                self.desk.heartbeat(lease.item_id, lease.token, lease.reviewer)

    @rule(lease=leases, outcome=OUTCOMES)
    def decide(self, lease: Lease, outcome: Any) -> None:
        """Under a live lease it counts; under one that has ended it is refused, or is the same decision again."""
        decision_id = f"d{lease.token}-{outcome}"
        choice = Choice(lease.item_id, lease.token, decision_id, outcome)
        recorded = len(self.bench.decisions())
        if self.live.pop(lease.token, None) is None:
            try:
                again = self.desk.decide(choice, lease.reviewer)
                assert again.decision_id == decision_id
            except (LeaseLost, NotPossible):
                pass
            assert len(self.bench.decisions()) == recorded
            return
        decided = self.desk.decide(choice, lease.reviewer)
        assert set(decided.item_ids) == {view.item.item_id for view in lease.items}
        for item_id in decided.item_ids:
            view = self.desk.item(item_id)
            if view.status in (Status.APPROVED, Status.REJECTED):
                self.settled[item_id] = (view.status, decision_id)
        assert self.desk.decide(choice, lease.reviewer) == decided

    @precondition(lambda self: self.live)
    @rule(number=st.integers(0, 30), outcome=OUTCOMES)
    def decide_at_once(self, number: int, outcome: Any) -> None:
        self.decide(self._some_live(number), outcome)

    @precondition(lambda self: self.live)
    @rule(number=st.integers(0, 30), outcome=OUTCOMES)
    def decide_and_regret(self, number: int, outcome: Any) -> None:
        lease = self._some_live(number)
        covered = [view.item.item_id for view in lease.items]
        before = {item_id: self.desk.item(item_id).votes_cast for item_id in covered}
        self.decide(lease, outcome)
        back = self._undone(lease, outcome)
        assert back is not None
        for item_id in covered:
            assert self.desk.item(item_id).votes_cast == before[item_id]

    @precondition(lambda self: self.live)
    @rule(number=st.integers(0, 30))
    def skip_at_once(self, number: int) -> None:
        self.skip(self._some_live(number))

    @precondition(lambda self: self.live)
    @rule(number=st.integers(0, 30))
    def split_under_the_lease(self, number: int) -> None:
        lease = self._some_live(number)
        others = [view.item.item_id for view in lease.items[1:]]
        self.desk.split(others, lease.reviewer, token=lease.token)
        kept = replace(lease, items=lease.items[:1])
        self.live[lease.token] = kept
        self.decide(kept, "approve")
        assert not set(others) & self.settled.keys()

    @rule(who=PEOPLE, queue=QUEUES)
    def only_the_assignee_gets_what_is_assigned(self, who: str, queue: str) -> None:
        for lease in self.desk.lease(queue, who, count=100):
            assert self.desk.item(lease.item_id).assignee in (None, who)
            self.desk.release(lease.token, who)

    def _some_live(self, number: int) -> Lease:
        return list(self.live.values())[number % len(self.live)]

    @rule(lease=leases)
    def skip(self, lease: Lease) -> None:
        if self.live.pop(lease.token, None) is None:
            with pytest.raises(LeaseLost):
                self.desk.skip(lease.item_id, lease.token, lease.reviewer)
            return
        self.desk.skip(lease.item_id, lease.token, lease.reviewer)
        again = self.desk.lease(lease.queue, lease.reviewer, count=100)
        assert not {v.item.item_id for v in lease.items} & {v.item.item_id for other in again for v in other.items}
        for other in again:
            self.desk.release(other.token, lease.reviewer)

    @rule(lease=consumes(leases))
    def release(self, lease: Lease) -> None:
        self.desk.release(lease.token, lease.reviewer)
        self.live.pop(lease.token, None)

    @rule(
        number=st.integers(0, 30),
        act=st.sampled_from(["hold", "escalate", "assign", "reopen", "split", "gold"]),
        who=PEOPLE,
    )
    def lead(self, number: int, act: str, who: str) -> None:
        """A lead's word ends the lease of whoever has the item; on what cannot be done it changes nothing."""
        if not self.items:
            return
        item_id = self.items[number % len(self.items)]
        try:
            match act:
                case "hold":
                    self.desk.hold(item_id, "lead")
                case "escalate":
                    self.desk.escalate(item_id, "lead")
                case "assign":
                    self.desk.assign(item_id, who, "lead")
                case "reopen":
                    self.desk.reopen(item_id, "lead")
                case "split":
                    self.desk.split([item_id], "lead")
                case "gold":
                    self.desk.mark_gold(item_id, "approve", "lead")
        except NotPossible:
            return
        if act in ("reopen", "gold"):
            self.settled.pop(item_id, None)
        ended = [lease for lease in self.live.values() if item_id in {view.item.item_id for view in lease.items}]
        for lease in ended:
            del self.live[lease.token]

    @rule(lease=leases, outcome=OUTCOMES)
    def a_desk_wakes_up_late(self, lease: Lease, outcome: Any) -> None:
        """Its record reaches the log when something else has been done to the item: it does not count."""
        before = self.desk.item(lease.item_id)
        if max((d.fencing_token for d in before.history), default=0) < lease.token:
            return
        fields = review_item(lease.item_id, queue=lease.queue).model_dump(
            include={"item_id", "verdict_id", "event_id", "tenant", "queue"}
        )
        late = Decision(
            **fields,
            decision_id=f"late-{lease.token}",
            reviewer=lease.reviewer,
            outcome=outcome,
            resolution=outcome,
            fencing_token=lease.token,
            decided_at=self.bench.now,
        )
        self.bench.publish("images.decisions", late, key="item_id")
        self.bench.projector.step()
        assert self.desk.item(lease.item_id).status == before.status
        assert self.desk.item(lease.item_id).history == before.history

    @rule(lease=leases, outcome=OUTCOMES)
    def undo(self, lease: Lease, outcome: str) -> None:
        self._undone(lease, outcome)

    def _undone(self, lease: Lease, outcome: str) -> Lease | None:
        try:
            back = self.desk.undo(f"d{lease.token}-{outcome}", lease.reviewer)
        except DeskError:
            return None
        for view in back.items:
            self.settled.pop(view.item.item_id, None)
            assert view.status not in (Status.APPROVED, Status.REJECTED)
            for other in [o for o in self.live.values() if view.cluster and o.item_id in view.cluster]:
                del self.live[other.token]  # who undoes has the cluster again, whoever had it
        again = self.desk.undo(f"d{lease.token}-{outcome}", lease.reviewer)
        assert (again.token, again.item_id, again.expires_at >= back.expires_at) == (back.token, back.item_id, True)
        self.desk.release(back.token, back.reviewer)
        return back

    @rule(who=PEOPLE)
    def somebody_leaves(self, who: str) -> None:
        """Nothing waits for them any more."""
        theirs = {item_id for item_id in self.items if self.desk.item(item_id).assignee == who}
        places = {item_id: self.desk.item(item_id).status for item_id in self.items}
        self.desk.unassign(who, "lead")
        assert {item_id: self.desk.item(item_id).status for item_id in self.items} == places
        assert all(self.desk.item(item_id).assignee is None for item_id in theirs if places[item_id] is Status.OPEN)

    @invariant()
    def what_is_assigned_can_be_had(self) -> None:
        if hasattr(self, "bench"):
            for name, members in self.bench.dump().items():
                if name.startswith("lane|assigned|"):
                    for member in members:
                        out = self.bench.redis.smembers(f"sluice:{{desk}}:out|{member.decode()}")
                        assert name.rsplit("|", 1)[1].encode() not in out

    @rule()
    def redis_is_lost(self) -> None:
        self.bench.redis.flushall()
        self.live.clear()
        self.bench.projector.catch_up()
        while self.bench.redis.get("sluice:{desk}:ready") is None:
            self.bench.projector.step()

    @rule(seconds=st.integers(1, 9))
    def time_goes_on(self, seconds: int) -> None:
        self.bench.sleep(seconds)

    @invariant()
    def what_was_acknowledged_counts(self) -> None:
        if hasattr(self, "desk"):
            for item_id, (status, _) in self.settled.items():
                assert self.desk.item(item_id).status == status

    @invariant()
    def every_item_is_in_one_place(self) -> None:
        if not hasattr(self, "bench"):
            return
        places: list[str] = []
        for name, members in self.bench.dump().items():
            if name.startswith("lane|"):
                places += [member.decode() for member in members]
        closed = [i for i in self.items if self.desk.item(i).status in (Status.APPROVED, Status.REJECTED)]
        assert sorted(places + closed) == sorted(self.items)

    @rule()
    def an_index_built_from_the_topics_is_the_same(self) -> None:
        self.bench.projector.step()  # reads again what the desk has brought in itself
        kept, before = self.bench.redis, self.bench.dump()
        try:
            self.bench.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
            self.bench.new_projector().catch_up()
            assert self.bench.dump() == before
        finally:
            self.bench.redis = kept


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
