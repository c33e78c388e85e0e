"""Arbitrary histories of what the desk keeps and deletes: years pass, desks die at any call to the log."""

from contextlib import closing, suppress
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from schemas import Decision, InlineReference, ReviewItem
from tests.unit.review.retention_bench import KEEP_DAYS, Killed, MortalTopics, bench_of
from tests.unit.review.review_bench import review_item, verdict
from worker.cli.trust_records import settled_audits
from worker.review.answers import Choice, Status
from worker.review.catalogue.export import everything
from worker.review.errors import DeskError
from worker.review.item_state import CLOSED, fold
from worker.review.projector import fill
from worker.review.snapshot.store import SnapshotStore


class Retained(RuleBasedStateMachine):
    """The bench's topics keep what is deleted, where the desk cannot see it: the truth is the fold of all of it."""

    @initialize()
    def begin(self) -> None:
        self.bench = bench_of()
        self.ids: list[str] = []
        self.arrive(4, inline=True)

    @rule(count=st.integers(1, 3), inline=st.booleans())
    def arrive(self, count: int, inline: bool) -> None:
        for _ in range(count):
            item_id = f"i{len(self.ids)}"
            image = {"kind": "inline", "bytes": "aGVsbG8="} if inline else {"kind": "file", "path": "/a.png"}
            self.bench.publish("images.review", review_item(item_id, created_at=self.bench.now, image=image))
            self.ids.append(item_id)

    @rule()
    def pass_one(self) -> None:
        """An image that passes, and is audited."""
        event_id = f"e{len(self.ids)}"
        self.bench.publish("images.verdicts", verdict(event_id, judged_at=self.bench.now, occurred_at=self.bench.now))
        self.ids.append(f"verdict-{event_id}")

    @rule()
    def verdicts_expire(self) -> None:
        """As by the topic's own retention: of 90 days, so that they are in many snapshots by then."""
        taken = SnapshotStore(self.bench.settings.kafka, self.bench.topics).survey(self.bench.now).kept
        for partition in self.bench.topics.ends("images.verdicts"):
            self.bench.topics.trim({partition: min((each.positions.get(partition, 0) for each in taken), default=0)})

    @rule(number=st.integers(0, 20), act=st.sampled_from(["approve", "reject", "hold", "reopen", "gold", "escalate"]))
    def act(self, number: int, act: Any) -> None:
        item_id = self.ids[number % len(self.ids)]
        try:
            match act:
                case "hold":
                    self.bench.desk.hold(item_id, "lead")
                case "reopen":
                    self.bench.desk.reopen(item_id, "lead")
                case "gold":
                    self.bench.desk.mark_gold(item_id, "approve", "lead")
                case "escalate":
                    self.bench.desk.escalate(item_id, "lead")
                case _:
                    lease = self.bench.desk.take(item_id, f"r{number}")
                    self.bench.desk.decide(Choice(item_id, lease.token, f"d{lease.token}", act), f"r{number}")
        except DeskError:
            pass

    @rule(hours=st.sampled_from([1, 7, 30, 75]), steps=st.integers(0, 15))
    def time_goes_on(self, hours: int, steps: int) -> None:
        self.bench.sleep(hours * 3600)
        self.work(steps)

    @rule(steps=st.integers(1, 25))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.bench.projector.step()

    @rule(calls=st.integers(0, 40), hours=st.sampled_from([0, 7, 75]), with_catalogue=st.booleans())
    def the_desk_dies(self, calls: int, hours: int, with_catalogue: bool) -> None:
        self.bench.sleep(hours * 3600)
        assert isinstance(self.bench.topics, MortalTopics)
        self.bench.topics.calls_left = calls
        with suppress(Killed):
            self.work(25)
        self.bench.topics.calls_left = self.bench.topics.silent = None
        self.bench.projector.yield_to_others()
        if not with_catalogue:
            self.bench.catalogue = self.bench.new_catalogue()
        self.bench.desk = self.bench.new_desk()
        self.bench.projector = self.bench.new_projector()
        self.bench.projector.catch_up()

    @rule(topic=st.sampled_from([None, "images.review", "images.decisions"]))
    def a_topic_falls_silent(self, topic: str | None) -> None:
        """Until another one does, or none: what one topic tells comes before what another does."""
        assert isinstance(self.bench.topics, MortalTopics)
        self.bench.topics.silent = topic

    @rule(number=st.integers(0, 20))
    def another_desk_decides(self, number: int) -> None:
        """Of what this one need not have heard of yet."""
        item_id = self.ids[number % len(self.ids)]
        queue = "audit" if item_id.startswith("verdict-") else "quality"
        item = review_item(item_id, queue=queue).model_dump(
            include={"item_id", "verdict_id", "event_id", "tenant", "queue"}
        )
        made = Decision(
            **item,
            decision_id=f"other-{self.bench.now.timestamp()}-{number}",
            reviewer="zoe",
            outcome="reject",
            resolution="reject",
            fencing_token=self.bench.desk._leases.token(),
            decided_at=self.bench.now,
        )
        self.bench.publish("images.decisions", made, key="item_id")

    @rule()
    def redis_is_lost(self) -> None:
        assert isinstance(self.bench.topics, MortalTopics)
        self.bench.topics.silent = None
        self.bench.redis.flushall()
        self.bench.projector.catch_up()

    def teardown(self) -> None:
        if hasattr(self, "ids"):
            self.another_desk_finds_what_must_be_there()

    @rule()
    def another_desk_finds_what_must_be_there(self) -> None:
        assert isinstance(self.bench.topics, MortalTopics)
        silent, self.bench.topics.silent = self.bench.topics.silent, None
        self._find()
        self.bench.topics.silent = silent

    def _find(self) -> None:
        kept, desk = self.bench.redis, self.bench.desk
        with closing(self.bench.new_catalogue()) as catalogue:
            fill(self.bench.settings, self.bench.topics, catalogue, self.bench.clock)
            found = {view.item.item_id: view for view in everything(catalogue, self.bench.settings.review)}
            entries = catalogue.entries(self.ids)
        self.bench.redis, self.bench.desk = kept, desk
        made: dict[str, list[Decision]] = {item_id: [] for item_id in self.ids}
        for partition in self.bench.topics.ends("images.decisions"):
            for record in self.bench.topics._records.get(partition, ()):
                decision = Decision.model_validate_json(record.value or b"")
                made[decision.item_id].append(decision)
        long_ago = self.bench.now - timedelta(days=KEEP_DAYS)
        for item_id in self.ids:
            truth = fold(made[item_id])
            if truth.status not in CLOSED or (truth.closed_at is not None and truth.closed_at > long_ago):
                assert item_id in found, "an item is lost"
            if item_id in found:
                assert entries[item_id].state == truth
            if truth.status not in CLOSED and item_id in found:
                image = found[item_id].item.image
                if isinstance(image, InlineReference):
                    record = self.bench.topics.record(*entries[item_id].at)
                    assert record is not None
                    assert ReviewItem.model_validate_json(record.value or b"").item_id == item_id
        seen = settled_audits(Decision.model_validate_json(value) for value in self.bench.written("images.decisions"))
        for item_id in self.ids:
            truth = fold(made[item_id])
            if item_id.startswith("verdict-") and truth.closed_at is not None and truth.closed_at > long_ago:
                assert seen[item_id] == (truth.status is Status.REJECTED), "the trust report would lack an audit"


TestRetained = Retained.TestCase
TestRetained.settings = settings(
    max_examples=12, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
