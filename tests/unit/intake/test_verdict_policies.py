"""Which policy judges: the one in force, event by event; shadows are asked and change nothing."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from schemas import Failure, FailureReason, ImageEvent, InlineReference, RouteOverload, Scores, Verdict
from worker.intake.ledger import Ticket
from worker.intake.log import Output, Partition, Record
from worker.intake.verdicts import VerdictWriter
from worker.intake.work import RecordJob, RecordWork
from worker.judging.overload_watch import OverloadSource, RecordedOverload
from worker.judging.router import PolicyRouter
from worker.outbox import Identity, Outbox
from worker.policy import Policy, parse_policy
from worker.policy.watch import ActivePolicies
from worker.settings import TopicSettings
from worker.telemetry.cells import CellCounts
from worker.telemetry.metrics import Metrics

MODEL = "sha256:" + "a" * 64
NOW = datetime(2026, 11, 24, tzinfo=UTC)
RECORD = Record(Partition("images.in", 0), 7, b"{}")


def policy(threshold: float, queue: str = "quality", when: str | None = None) -> Policy:
    condition = when or f"scores.quality < {threshold}"
    return parse_policy(
        f"""
schema: sluice.policy/1
version: "{threshold}"
rules:
  - name: poor
    when: '{condition}'
    route: {{action: review, queue: {queue}, priority: 60}}
  - name: default
    route: {{action: pass}}
failures: {{queue: failures-{queue}}}
""".encode(),
        "policy.yaml",
    )


class Bench:
    def __init__(
        self, live: Policy, shadows: Mapping[str, Policy] | None = None, overload: OverloadSource | None = None
    ) -> None:
        self.active = ActivePolicies(live, shadows or {})
        self.registry = CollectorRegistry()
        outbox = Outbox(TopicSettings(), Identity(MODEL, live.digest), max_message_bytes=1_000_000, now=lambda: NOW)
        metrics = Metrics(self.registry)
        self.router = PolicyRouter(lambda: self.active, metrics, overload)
        self.writer = VerdictWriter(
            self.router, outbox, metrics, lambda: 0.0, CellCounts(metrics, tenants=2, generators=2, clock=lambda: 0.0)
        )

    def scored(self, quality: float) -> Verdict:
        self.router.refresh()
        event_job = job()
        judgement = self.router.judge(event_job.event, Scores(quality=quality), cached=False, features={})
        return verdict(self.writer.write(event_job, judgement))

    def failed(self, failure: Failure) -> tuple[Output, ...]:
        event_job = job()
        return self.writer.write(event_job, self.router.fail(event_job.event, failure))

    def count(self, name: str, **labels: str) -> float:
        self.writer.flush()
        return self.registry.get_sample_value(f"sluice_{name}_total", labels) or 0.0


def job() -> RecordJob:
    event = ImageEvent(id="e", occurred_at=NOW, tenant="acme", image=InlineReference(bytes=b"x"))
    work = RecordWork(RECORD, Ticket(RECORD.partition, 0, 7), [()], 1)
    return RecordJob(event, 0.0, work, 0, content_hash="sha256:" + "c" * 64)


def verdict(outputs: tuple[Output, ...]) -> Verdict:
    return Verdict.model_validate_json(outputs[0].value)


def test_a_policy_that_comes_into_force_judges_the_next_event_under_its_own_digest() -> None:
    lax, strict = policy(2), policy(4)
    bench = Bench(lax)
    before = bench.scored(3)
    bench.active = ActivePolicies(strict)
    after = bench.scored(3)
    assert [(each.route.action, each.policy) for each in (before, after)] == [
        ("pass", lax.digest),
        ("review", strict.digest),
    ]
    assert before.verdict_id != after.verdict_id
    assert bench.count("policy_changes") == 1


def test_a_verdict_says_which_queues_were_overloaded_and_which_rule_applied() -> None:
    content = """
schema: sluice.policy/1
version: "1"
rules: [{name: all, route: {action: review, queue: quality}}]
queues:
  quality: {capacity: {open: 3}, overload: {mode: widen, when: scores.quality < 2, route: {action: reject}}}
"""
    bench = Bench(parse_policy(content.encode(), "policy.yaml"), overload=RecordedOverload({"e": ("quality",)}))
    rejected, reviewed = bench.scored(1.5), bench.scored(3)
    assert [each.route.action for each in (rejected, reviewed)] == ["reject", "review"]
    assert rejected.overloaded == ("quality",)
    assert rejected.route.overload == RouteOverload(queue="quality", mode="widen")
    assert bench.count("overload_routes", queue="quality", mode="widen", route="reject") == 1
    assert bench.count("overload_routes", queue="quality", mode="widen", route="review:quality") == 1


def test_a_shadow_that_would_do_otherwise_is_told_and_the_route_is_the_live_one() -> None:
    strict = policy(4)
    bench = Bench(policy(2), {"strict": strict})
    judged = bench.scored(3)
    assert judged.route.action == "pass"
    (shadow,) = judged.shadow
    assert (shadow.name, shadow.policy) == ("strict", strict.digest)
    assert shadow.route is not None
    assert (shadow.route.action, shadow.route.queue, shadow.route.rule) == ("review", "quality", "poor")
    assert bench.count("shadow_routes", shadow="strict", route="pass", wanted="review:quality") == 1


def test_a_shadow_that_agrees_says_no_more_than_that_it_was_asked() -> None:
    bench = Bench(policy(2), {"strict": policy(4)})
    (shadow,) = bench.scored(4.5).shadow
    assert shadow.route is None
    assert bench.count("shadow_routes", shadow="strict", route="pass", wanted="pass") == 1


def test_without_shadows_a_verdict_carries_none() -> None:
    assert Bench(policy(2)).scored(3).shadow == ()


@pytest.mark.parametrize("fail", ["failed", "malformed"])
def test_what_cannot_be_judged_goes_where_each_policy_has_its_failures(fail: str) -> None:
    bench = Bench(policy(2), {"strict": policy(4, queue="other")})
    failure = Failure(reason=FailureReason.IMAGE_NOT_FOUND, message="gone")
    outputs = bench.failed(failure) if fail == "failed" else bench.writer.malformed(job().work, failure)
    judged = verdict(outputs)
    assert judged.route.queue == "failures-quality"
    assert judged.shadow[0].route is not None
    assert judged.shadow[0].route.queue == "failures-other"


def test_a_live_rule_without_an_answer_fails_closed_while_the_shadow_still_tells_its_own() -> None:
    bench = Bench(policy(2, when="int(event.id) < 3"), {"able": policy(4)})
    judged = bench.scored(3)
    assert judged.failure is not None
    assert judged.failure.reason is FailureReason.POLICY_FAILED
    assert judged.shadow[0].route is not None
    assert judged.shadow[0].route.queue == "quality"


def test_a_shadow_rule_without_an_answer_counts_as_failed_closed_and_does_not_touch_the_verdict() -> None:
    bench = Bench(policy(2), {"unable": policy(2, when="int(event.id) < 3")})
    judged = bench.scored(3)
    assert (judged.status, judged.route.action) == ("scored", "pass")
    assert judged.shadow[0].route is not None
    assert judged.shadow[0].route.queue == "failures-quality"


def test_a_shadow_that_breaks_is_left_out_counted_and_hurts_nothing() -> None:
    class Broken(Policy):
        def route(self, *_: Any) -> Any:
            raise RuntimeError("a bug")

    template = policy(2)
    broken = Broken("broken", template.digest, template.chain("acme"), {})
    bench = Bench(policy(2), {"broken": broken, "strict": policy(4)})
    judged = bench.scored(3)
    assert judged.route.action == "pass"
    assert [each.name for each in judged.shadow] == ["strict"]
    assert bench.count("shadow_failures", shadow="broken") == 1


def test_a_verdict_that_cannot_be_written_fails_closed() -> None:
    class Unwritable(Outbox):
        def scored(self, *_: Any, **__: Any) -> Any:
            raise ValueError("a bug")

    bench = Bench(policy(2))
    outbox = Unwritable(TopicSettings(), Identity(MODEL, ""), max_message_bytes=1_000_000, now=lambda: NOW)
    metrics = Metrics(CollectorRegistry())
    cells = CellCounts(metrics, tenants=2, generators=2, clock=lambda: 0.0)
    bench.writer = VerdictWriter(bench.router, outbox, metrics, lambda: 0.0, cells)
    judged = bench.scored(3)
    assert judged.failure is not None
    assert judged.failure.reason is FailureReason.INTERNAL_ERROR
    assert judged.route.action == "review"
