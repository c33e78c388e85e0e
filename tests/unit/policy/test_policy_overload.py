"""A review queue over its capacity: what the policy does with images, and that it is never more lenient."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from schemas import ImageEvent, Route, RouteOverload, Scores, Verdict
from worker.judging.overload_watch import OverloadWatch, RecordedOverload
from worker.judging.router import PolicyRouter
from worker.policy import Policy, PolicyError, parse_policy
from worker.policy.overload import QueueLoad, ReviewLoad, is_drawn, overloaded_queues
from worker.policy.replay import replay
from worker.policy.review_load import EXPIRES_SECONDS, KEY, FileLoad, RedisLoad, ReviewLoadWatch
from worker.policy.watch import ActivePolicies
from worker.telemetry.metrics import Metrics

NOW = datetime(2026, 12, 1, tzinfo=UTC)
STRICTNESS = {"pass": 0, "review": 1, "reject": 2}
SAMPLE = "{mode: sample, share: 0.25, route: {action: reject, labels: [not-reviewed]}}"
WIDEN = "{mode: widen, when: scores.quality < constants.sure, route: {action: reject}}"
OTHER = "{mode: sample, share: 0.5, route: {action: review, queue: night, priority: 5}}"
MODES = ["{mode: delay}", SAMPLE, WIDEN, OTHER]


def text(overload: str = SAMPLE, capacity: str = "{open: 100, oldest_minutes: 60}", queue: str = "quality") -> str:
    return f"""
schema: sluice.policy/1
version: "1"
constants: {{poor: 2.5, sure: 1.5}}
rules:
  - name: bad
    when: scores.quality < 1.2
    route: {{action: reject}}
  - name: poor
    when: scores.quality < constants.poor
    route: {{action: review, queue: quality, priority: 60, labels: [poor]}}
  - name: default
    route: {{action: pass}}
tenants:
  acme: {{constants: {{sure: 2.2}}}}
queues:
  {queue}: {{capacity: {capacity}, overload: {overload}}}
"""


def policy(*arguments: str) -> Policy:
    return parse_policy(text(*arguments).encode(), "policy.yaml")


POLICIES = {mode: policy(mode) for mode in MODES}
AGAIN = {mode: policy(mode) for mode in MODES}


def event(number: int = 0, **fields: Any) -> ImageEvent:
    base = {"id": f"event-{number}", "occurred_at": NOW, "image": {"kind": "s3", "bucket": "b", "key": "k"}}
    return ImageEvent.model_validate({**base, **fields})


def route(found: Policy, number: int = 0, quality: float = 2.0, **fields: Any) -> Route:
    return found.route(event(number, **fields), Scores(quality=quality), overloaded=("quality",))


def test_delay_sends_every_image_to_its_queue_and_says_that_it_is_overloaded() -> None:
    found = route(policy("{mode: delay}"))
    assert (found.action, found.queue, found.priority) == ("review", "quality", 60)
    assert found.overload == RouteOverload(queue="quality", mode="delay")


def test_sample_reviews_the_share_and_the_rest_takes_the_leads_route_with_its_labels_added() -> None:
    routes = [route(policy(), number) for number in range(2000)]
    reviewed = [each for each in routes if each.action == "review"]
    others = [each for each in routes if each.action != "review"]
    assert 400 < len(reviewed) < 600, "about a quarter"
    assert {(each.queue, each.labels) for each in reviewed} == {("quality", ("poor",))}
    assert {(each.action, each.queue, each.labels, each.priority, each.rule) for each in others} == {
        ("reject", None, ("poor", "not-reviewed"), 60, "poor")
    }
    assert {each.overload for each in routes} == {RouteOverload(queue="quality", mode="sample")}


def test_widen_rejects_what_meets_the_condition_by_the_constants_of_the_tenant() -> None:
    found = policy(WIDEN)
    assert [route(found, quality=quality).action for quality in (1.4, 1.6)] == ["reject", "review"]
    assert route(found, quality=2.0, tenant="acme").action == "reject"


def test_the_rest_may_go_to_another_queue_with_a_priority_of_its_own() -> None:
    routes = {(each.queue, each.priority) for each in (route(policy(OTHER), number) for number in range(50))}
    assert routes == {("quality", 60), ("night", 5)}


@given(
    mode=st.sampled_from(MODES),
    number=st.integers(0, 10_000),
    quality=st.floats(1, 5),
    tenant=st.sampled_from(["default", "acme"]),
)
def test_an_overload_rule_is_deterministic_and_never_more_lenient(
    mode: str, number: int, quality: float, tenant: str
) -> None:
    usual = POLICIES[mode].route(event(number, tenant=tenant), Scores(quality=quality))
    found = route(POLICIES[mode], number, quality, tenant=tenant)
    assert STRICTNESS[found.action] >= STRICTNESS[usual.action]
    assert found == route(AGAIN[mode], number, quality, tenant=tenant), "another worker says the same"
    if usual.action != "review":
        assert found == usual, "only images for the overloaded queue are touched"


@given(number=st.integers(0, 10_000), share=st.floats(0.01, 0.98))
def test_who_is_drawn_for_a_share_is_drawn_for_every_larger_one(number: int, share: float) -> None:
    assert is_drawn(f"e-{number}", "q", share) <= is_drawn(f"e-{number}", "q", share + 0.01)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("{mode: sample, share: 0.2, route: {action: pass}}",),
            "pass would let images through that nobody has looked",
        ),
        (("{mode: sample, route: {action: reject}}",), "mode sample needs share and route; share is missing"),
        (("{mode: widen, share: 0.2, when: scores.quality < 2, route: {action: reject}}",), "widen takes no share"),
        (("{mode: delay, route: {action: reject}}",), "mode delay takes no route"),
        (("{mode: sample, share: 1, route: {action: reject}}",), "share: should be less than 1"),
        (("{mode: sample, share: 0.2, route: {action: review, queue: quality}}",), "this is the queue that is over"),
        (("{mode: sample, share: 0.2, route: {action: review}}",), "action review needs a queue"),
        (("{mode: widen, when: scores.qualty < 2, route: {action: reject}}",), "qualty: no such field"),
        ((SAMPLE, "{}"), "capacity: needs open, oldest_minutes or both"),
        ((SAMPLE, "{open: 0}"), "capacity.open: should be greater than 0"),
        ((SAMPLE, "{open: 9}", "qualty"), "no rule sends images to this queue; did you mean 'quality'?"),
        ((SAMPLE, "{open: 9}", "failures"), "images that could not be judged go there, and they always wait"),
    ],
)
def test_an_unusable_overload_rule_is_refused_with_its_line(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(PolicyError) as refused:
        policy(*arguments)
    assert says in str(refused.value)
    assert str(refused.value).startswith("policy.yaml:17: queues."), str(refused.value)


def test_a_policy_without_capacities_keeps_the_digest_that_it_had_before_there_were_any() -> None:
    plain = text().partition("queues:")[0]
    assert parse_policy(plain.encode(), "p").digest == parse_policy((plain + "queues: {}\n").encode(), "p").digest
    assert policy().digest != policy(WIDEN).digest


def load(open_: int, minutes: float = 0.0) -> ReviewLoad:
    return {"quality": QueueLoad(open_, 60 * minutes)}


@pytest.mark.parametrize(
    ("found", "before", "after"),
    [
        (load(99, 59), (), ()),
        (load(100, 0), (), ("quality",)),
        (load(0, 60), (), ("quality",)),
        (load(80, 0), ("quality",), ("quality",)),
        (load(79, 47), ("quality",), ()),
        (load(90, 0), (), ()),
        ({}, ("quality",), ()),
        (None, ("quality",), ()),
    ],
)
def test_an_overload_begins_at_the_capacity_ends_at_four_fifths_of_it_and_needs_a_known_load(
    found: ReviewLoad | None, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert overloaded_queues(policy().capacities, found, before) == after


class Bench:
    def __init__(self, live: Policy) -> None:
        self.load: ReviewLoad | None = None
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.active = ActivePolicies(live, {"tight": policy(SAMPLE, "{open: 10}")})
        self.router = PolicyRouter(lambda: self.active, metrics, OverloadWatch(lambda: self.load, metrics))

    def judge(self, load_: ReviewLoad | None) -> Any:
        self.load = load_
        self.router.refresh()
        return self.router.judge(event(), Scores(quality=1.3), cached=False)

    def gauge(self) -> float | None:
        return self.registry.get_sample_value("sluice_review_queue_overloaded", {"queue": "quality"})


def test_a_worker_applies_the_rule_while_the_load_says_so_and_tells_when_it_begins_and_ends() -> None:
    bench = Bench(policy(WIDEN))
    with capture_logs() as logs:
        routes = [bench.judge(each).route.action for each in (None, load(100), load(90), None, load(79))]
    assert routes == ["review", "reject", "reject", "review", "review"]
    assert bench.gauge() == 0
    assert [entry["event"] for entry in logs] == ["review_overload_began", "review_overload_ended"]
    assert (logs[0]["queue"], logs[0]["open"], logs[1]["load_known"]) == ("quality", 100, False)


def test_each_shadow_policy_is_asked_by_the_capacity_that_it_states() -> None:
    bench = Bench(policy(WIDEN))
    judged = bench.judge(load(50))
    assert (judged.route.action, judged.overloaded) == ("review", ())
    (shadow,) = judged.shadow
    assert shadow.route == route(policy(SAMPLE, "{open: 10}"), quality=1.3)
    assert shadow.route.action == "reject"
    assert bench.judge(load(100)).overloaded == ("quality",)


def test_a_policy_without_capacities_ends_the_series_of_the_queue() -> None:
    bench = Bench(policy(WIDEN))
    bench.judge(load(100))
    assert bench.gauge() == 1
    bench.active = ActivePolicies(parse_policy(text().partition("queues:")[0].encode(), "p"))
    bench.judge(load(100))
    assert bench.gauge() is None


def verdict_of(found: Route, number: int, quality: float, overloaded: tuple[str, ...]) -> Verdict:
    return Verdict.model_validate(
        {
            "verdict_id": f"v-{number}",
            "event_id": f"event-{number}",
            "tenant": "default",
            "occurred_at": NOW,
            "judged_at": NOW,
            "content_hash": None,
            "status": "scored",
            "scores": {"quality": quality},
            "route": found.model_dump(),
            "overloaded": overloaded,
            "model": "sha256:" + "0" * 64,
            "policy": "sha256:" + "0" * 64,
            "source": {"topic": "images.in", "partition": 0, "offset": number},
        }
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_of_the_same_policy_gives_the_same_routes(mode: str) -> None:
    """`sluice policy replay` from the verdicts, `sluice replay` from the events."""
    qualities = [1.1 + number / 50 for number in range(100)]
    overloads = [("quality",) if number % 2 else () for number in range(100)]
    found = [
        POLICIES[mode].route(event(number), Scores(quality=quality), overloaded=overloaded)
        for number, (quality, overloaded) in enumerate(zip(qualities, overloads, strict=True))
    ]
    verdicts = [verdict_of(each, number, qualities[number], overloads[number]) for number, each in enumerate(found)]
    result = replay(POLICIES[mode], verdicts)
    assert (result.replayed, result.flips.total(), result.undecided.total()) == (100, 0, 0)
    recorded = RecordedOverload({each.event_id: each.overloaded for each in verdicts if each.overloaded})
    active = ActivePolicies(POLICIES[mode])
    router = PolicyRouter(lambda: active, Metrics(CollectorRegistry()), recorded)
    router.refresh()
    again = [
        router.judge(event(number), Scores(quality=quality), cached=False) for number, quality in enumerate(qualities)
    ]
    assert [each.route for each in again] == found
    assert [each.overloaded for each in again] == overloads


def client() -> redis.Redis:
    return fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)


@pytest.mark.parametrize("kind", ["redis", "file"])
def test_a_load_is_read_as_it_was_published_and_expires(kind: str, tmp_path: Path) -> None:
    server = client()
    store = RedisLoad(server) if kind == "redis" else FileLoad(tmp_path)
    assert store.read() is None
    store.write(load(7, 3))
    assert store.read() == load(7, 3)
    if kind == "redis":
        assert 0 < int(server.ttl(KEY)) <= EXPIRES_SECONDS
    else:
        os.utime(tmp_path / "review-load.json", (0, 0))
        assert store.read() is None


@pytest.mark.parametrize("junk", [b"", b"[]", b'{"queues": {"quality": {"open": -1, "oldest_seconds": 0}}}', b"\xff"])
def test_junk_in_the_key_is_an_unknown_load(junk: bytes) -> None:
    server = client()
    server.set(KEY, junk)
    watch = ReviewLoadWatch(RedisLoad(server), lambda: True)
    with capture_logs() as logs:
        watch.look()
        watch.look()
    assert watch.current is None
    assert [entry["event"] for entry in logs] == ["review_load_unknown"], "said once"


def test_the_last_load_is_used_while_redis_is_away_for_a_moment_and_not_for_long() -> None:
    server, now = client(), [100.0]
    watch = ReviewLoadWatch(RedisLoad(server), lambda: True, lambda: now[0])
    RedisLoad(server).write(load(7))
    watch.look()
    found = watch.current
    watch.look()
    assert watch.current is found, "the same object while nothing changes"
    server.get = _refuses  # type: ignore[method-assign, assignment]
    watch.look()
    assert watch.current == load(7)
    now[0] += EXPIRES_SECONDS
    assert watch.current is None


def _refuses(_key: str) -> Any:
    raise redis.ConnectionError("away")


def test_nothing_is_read_for_policies_without_capacities() -> None:
    server = client()
    server.get = _refuses  # type: ignore[method-assign, assignment]
    with capture_logs() as logs:
        watch = ReviewLoadWatch(RedisLoad(server), lambda: False)
        watch.look()
    assert (watch.current, logs) == (None, [])
