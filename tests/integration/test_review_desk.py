"""The review desk on real Kafka and Redis, and on the embedded parts."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
import yaml
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from ops.dev.servers import KafkaServer, RedisServer
from schemas import Contract, Decision, ImageEvent, ReviewItem, S3Reference, Scores
from tests.conftest import NewTopic
from worker.cli.main import app
from worker.intake.log import Output
from worker.judging.overload_watch import OverloadWatch
from worker.judging.router import PolicyRouter
from worker.policy import parse_policy
from worker.policy.review_load import FileLoad, RedisLoad, ReviewLoadWatch
from worker.policy.watch import ActivePolicies
from worker.review.answers import Choice, Lease, Status
from worker.review.catalogue.catalogue import Catalogue
from worker.review.desk import Desk
from worker.review.embedded_topics import EmbeddedTopics
from worker.review.errors import LeaseLost, NotReady, NotRecorded
from worker.review.open_topics import open_topics
from worker.review.projector import rebuild
from worker.review.running import RunningDesk
from worker.review.topics import Topics
from worker.settings import KafkaSettings, ReviewSettings, Settings, TopicSettings
from worker.telemetry.metrics import Metrics

DIGEST = "sha256:" + "0" * 64
OVERLOAD = """
schema: sluice.policy/1
version: "1"
rules: [{name: all, route: {action: review, queue: quality}}]
queues:
  quality: {capacity: {open: 3}, overload: {mode: widen, when: scores.quality < 2, route: {action: reject}}}
"""
PATIENCE_SECONDS = 30.0


def review_item(number: int, **more: Any) -> ReviewItem:
    fields: dict[str, Any] = {
        "item_id": f"item-{number}",
        "verdict_id": f"item-{number}",
        "event_id": f"event-{number}",
        "tenant": "default",
        "queue": "quality",
        "priority": number % 101,
        "created_at": datetime.now(UTC),
        "image": {"kind": "s3", "bucket": "images", "key": f"{number}.png"},
        "content_hash": None,
        "scores": {"quality": 2.0},
        "rule": "poor",
        "model": DIGEST,
        "policy": DIGEST,
        "source": {"topic": "images.in", "partition": 0, "offset": number},
    }
    return ReviewItem(**{**fields, **more})


class Place:
    """Topics and Redis, real or embedded, and as many desks on them as asked for."""

    def __init__(self, settings: Settings, data: Path | None, client: redis.Redis) -> None:
        self.settings = settings
        self.data = data
        self.redis = client
        self.desks: list[RunningDesk] = []
        self.topics: Topics = open_topics(settings, data)

    def desk(self) -> RunningDesk:
        desk = RunningDesk(self.settings, self.data, self.redis)
        self.desks.append(desk)
        return desk

    def publish(self, *items: Contract) -> None:
        """In transactions, as the worker does on Kafka."""
        name = self.settings.kafka.topics.review
        values = [(item.event_id.encode(), item.model_dump_json().encode()) for item in items]  # type: ignore[attr-defined]
        if self.data is not None:
            self.topics.append([Output(name, value, key) for key, value in values])
            return
        producer = KafkaProducer(
            bootstrap_servers=self.settings.kafka.bootstrap_servers, transactional_id=f"{name}-{time.time_ns()}"
        )
        producer.init_transactions()
        producer.begin_transaction()
        for key, value in values:
            producer.send(name, key=key, value=value)
        producer.commit_transaction()
        producer.close()

    def decisions(self) -> list[Decision]:
        name = self.settings.kafka.topics.decisions
        positions = dict.fromkeys(self.topics.ends(name), 0)
        ends, found = self.topics.ends(name), []
        while any(positions[p] < end for p, end in ends.items()):
            batch = self.topics.read(positions, 0.2)
            found += batch.records
            positions = dict(batch.positions)
        return [Decision.model_validate_json(record.value or b"") for record in found]

    def close(self) -> None:
        for desk in self.desks:
            desk.close()
        self.topics.close()


@contextmanager
def place_of(kind: str, request: pytest.FixtureRequest, folder: Path, **review: Any) -> Iterator[Place]:
    options = ReviewSettings(**review)
    if kind == "embedded":
        client: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
        place = Place(Settings(review=options), folder, client)
    else:
        kafka: KafkaServer = request.getfixturevalue("kafka_server")
        server: RedisServer = request.getfixturevalue("redis_server")
        new_topic: NewTopic = request.getfixturevalue("new_topic")
        topics = TopicSettings(**{name: new_topic() for name in TopicSettings.model_fields})
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, topics=topics)
        place = Place(Settings(kafka=settings, review=options), None, redis.Redis.from_url(server.url, protocol=2))
    try:
        yield place
    finally:
        place.close()
        place.redis.close()


@pytest.fixture(params=["embedded", pytest.param("servers", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with place_of(request.param, request, tmp_path) as opened:
        yield opened


def until(what: Any, seconds: float = PATIENCE_SECONDS) -> Any:
    """Waits until `what()` is true; a desk that is not ready yet counts as false."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := what():
                return answer
        except NotReady:
            pass
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def depth(desk: Desk) -> int:
    return sum(queue.open for queue in desk.queues())


def choice(lease: Lease, outcome: Any = "approve", **more: Any) -> Choice:
    return Choice(lease.item_id, lease.token, f"decision-{lease.token}", outcome, **more)


def test_what_the_worker_writes_reaches_reviewers_and_their_decisions_reach_the_topic(place: Place) -> None:
    place.publish(*(review_item(number) for number in range(10)))
    desk = place.desk()
    until(lambda: depth(desk) == 10)
    (lease,) = until(lambda: desk.lease("quality", "ann"))
    assert lease.item_id == "item-9"  # the highest priority
    decided = desk.decide(choice(lease, "reject", note="six fingers"), "ann")
    assert decided.resolution == "reject"
    (decision,) = place.decisions()
    assert (decision.item_id, decision.outcome, decision.resolution) == ("item-9", "reject", "reject")
    assert (decision.reviewer, decision.note, decision.fencing_token) == ("ann", "six fingers", lease.token)
    assert desk.decide(choice(lease, "reject", note="six fingers"), "ann") == decided
    assert len(place.decisions()) == 1


def test_what_waits_at_the_desk_makes_a_worker_apply_the_overload_rule(place: Place) -> None:
    policy = parse_policy(OVERLOAD.encode(), "policy.yaml")
    store = FileLoad(place.data) if place.data is not None else RedisLoad(place.redis)
    watch = ReviewLoadWatch(store, lambda: True)
    metrics = Metrics(CollectorRegistry())
    active = ActivePolicies(policy)
    router = PolicyRouter(lambda: active, metrics, OverloadWatch(lambda: watch.current, metrics))
    event = ImageEvent(id="e", occurred_at=datetime.now(UTC), image=S3Reference(bucket="b", key="k"))

    def judged() -> tuple[str, str | None]:
        watch.look()
        router.refresh()
        judgement = router.judge(event, Scores(quality=1.0), cached=False)
        return judgement.route.action, judgement.route.overload and judgement.route.overload.mode

    assert judged() == ("review", None), "no desk has published anything"
    place.publish(*(review_item(number) for number in range(3)))
    place.desk()
    assert until(lambda: judged() == ("reject", "widen"))


def test_a_redis_flushed_in_mid_work_is_filled_from_the_topics_and_nothing_decided_comes_again(place: Place) -> None:
    place.publish(*(review_item(number) for number in range(40)))
    desks = [place.desk(), place.desk()]
    until(lambda: depth(desks[0]) == 40)
    decided: list[str] = []
    for turn in range(10):
        (lease,) = until(lambda turn=turn: desks[turn % 2].lease("quality", f"reviewer-{turn % 2}"))
        desks[turn % 2].decide(choice(lease), lease.reviewer)
        decided.append(lease.item_id)
    (held,) = desks[0].lease("quality", "ann")
    desks[1].hold("item-0", "lead")
    place.redis.flushall()
    with pytest.raises(LeaseLost):
        desks[0].decide(choice(held), "ann")
    until(lambda: depth(desks[1]) == 29)
    left = []
    while leases := until(lambda: [*desks[1].lease("quality", "bob", count=5), None])[:-1]:
        for lease in leases:
            desks[1].decide(choice(lease), "bob")
            left.append(lease.item_id)
    assert sorted([*decided, *left, "item-0"]) == sorted(f"item-{number}" for number in range(40))
    assert desks[0].item("item-0").status is Status.HELD
    assert max(Counter(d.item_id for d in place.decisions()).values()) == 1


def test_a_rebuild_gives_the_same_index_while_desks_go_on(place: Place, tmp_path: Path) -> None:
    place.publish(*(review_item(number) for number in range(30)))
    desk = place.desk()
    until(lambda: depth(desk) == 30)
    for _ in range(5):
        (lease,) = until(lambda: desk.lease("quality", "ann"))
        desk.decide(choice(lease), "ann")
    place.publish(*(review_item(number) for number in range(30, 35)))
    until(lambda: depth(desk) == 30)
    with closing(Catalogue(tmp_path / "another.sqlite", place.settings.review)) as catalogue:
        assert rebuild(place.settings, place.topics, place.redis, catalogue, lambda: datetime.now(UTC)) == 35
    assert depth(desk) == 30
    assert desk.statistics(hours=2).reviewers[0].approved == 5


def test_a_decision_that_kafka_did_not_take_is_not_acknowledged_and_may_be_sent_again(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka_server: KafkaServer
) -> None:
    monkeypatch.setattr("worker.review.kafka_topics.ACK_SECONDS", 3.0)
    with place_of("servers", request, tmp_path) as place:
        place.publish(review_item(1))
        desk = place.desk()
        (lease,) = until(lambda: desk.lease("quality", "ann"))
        kafka_server.kill()
        try:
            with pytest.raises(NotRecorded, match="same decision id"):
                desk.decide(choice(lease), "ann")
            assert desk.item("item-1").status is Status.OPEN
        finally:
            kafka_server.start()
        assert until(lambda: _decided(desk, lease)).resolution == "approve"
        until(lambda: desk.item("item-1").status is Status.APPROVED)


def _decided(desk: Desk, lease: Lease) -> Any:
    try:
        return desk.decide(choice(lease), "ann")
    except NotRecorded:
        return None


def test_fifty_reviewers_at_a_decision_a_second_never_get_one_item_twice(
    request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through two desks at once; prints how long lease and decision took."""
    reviewers, seconds = 50, 20
    with place_of("servers", request, tmp_path, lease_seconds=60) as place:
        place.publish(*(review_item(number) for number in range(reviewers * (seconds + 10))))
        desks = [place.desk(), place.desk()]
        until(lambda: depth(desks[0]) == reviewers * (seconds + 10))
        until(lambda: place.redis.exists("sluice:{desk}:ready"))
        held: Counter[str] = Counter()
        doubled: list[str] = []
        lock = threading.Lock()
        times: dict[str, list[float]] = {"lease": [], "decide": []}
        errors: list[BaseException] = []

        def review(number: int) -> None:
            desk, name = desks[number % 2], f"reviewer-{number}"
            began = time.monotonic() + number / reviewers
            try:
                for turn in range(seconds):
                    time.sleep(max(0.0, began + turn - time.monotonic()))
                    start = time.monotonic()
                    (lease,) = desk.lease("quality", name)
                    leased = time.monotonic()
                    with lock:
                        held[lease.item_id] += 1
                        if held[lease.item_id] > 1:
                            doubled.append(lease.item_id)
                    before = time.monotonic()
                    desk.decide(choice(lease), name)
                    with lock:
                        times["lease"].append(leased - start)
                        times["decide"].append(time.monotonic() - before)
            except Exception as error:  # noqa: BLE001  # for the test to show
                errors.append(error)

        threads = [threading.Thread(target=review, args=(number,)) for number in range(reviewers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert doubled == []
        made = place.decisions()
        assert len(made) == len({d.item_id for d in made}) == reviewers * seconds
        with capsys.disabled():
            for name, taken in times.items():
                ordered = sorted(taken)
                p50, p95 = (1000 * ordered[int(len(ordered) * share)] for share in (0.5, 0.95))
                print(f"\n{name}: {len(ordered)} in {seconds} s, median {p50:.0f} ms, p95 {p95:.0f} ms", end="")
            print()


def test_the_command_rebuilds_the_index_of_real_servers(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with place_of("servers", request, tmp_path) as place:
        place.publish(*(review_item(number) for number in range(7)))
        desk = place.desk()
        until(lambda: depth(desk) == 7)
        (lease,) = until(lambda: desk.lease("quality", "ann"))
        desk.decide(choice(lease), "ann")
        server: RedisServer = request.getfixturevalue("redis_server")
        kafka = place.settings.kafka
        config = tmp_path / "sluice.yaml"
        options = {"bootstrap_servers": kafka.bootstrap_servers, "topics": kafka.topics.model_dump()}
        config.write_text(yaml.safe_dump({"kafka": options, "redis": {"url": server.url}}))
        result = CliRunner().invoke(app, ["desk", "rebuild", "--config", str(config)])
        assert (result.exit_code, result.stdout) == (0, "the index holds 7 items\n"), result.stderr
        until(lambda: depth(desk) == 6)
        result = CliRunner().invoke(app, ["desk", "export", "--config", str(config), "--status", "approved"])
        assert lease.item_id in result.stdout
        desk.close()
        place.redis.flushall()  # nobody is there to build the index again
        result = CliRunner().invoke(app, ["desk", "export", "--config", str(config)])
        assert result.stderr.endswith("7 items written\n")


def test_the_embedded_topics_survive_the_process(tmp_path: Path) -> None:
    settings = Settings()
    first = EmbeddedTopics(settings, tmp_path)
    (place,) = first.append([Output("images.decisions", b"1", b"k")])
    first.close()
    second = EmbeddedTopics(settings, tmp_path)
    found = second.record(*place)
    assert found is not None
    assert found.value == b"1"
    assert second.record(place[0], place[1] + 1) is None
    second.close()
