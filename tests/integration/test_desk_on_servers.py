"""The desk's HTTP API on real Kafka and Redis: from a review item to a decision in the topic, by HTTP alone."""

import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from schemas import Decision, FileReference, ReviewItem, Scores, Source
from worker.intake.log import Output
from worker.intake.packs import pack
from worker.review.http.serving import open_and_serve_desk
from worker.samples.sample import SAMPLE_IMAGES
from worker.settings import FileSettings, KafkaSettings, RedisSettings, Settings, TopicSettings, WebSettings

PASSWORD = "correct horse battery"
PATIENCE = 30.0


def item(item_id: str) -> ReviewItem:
    return ReviewItem(
        item_id=item_id,
        verdict_id=item_id,
        event_id=item_id,
        tenant="acme",
        queue="quality",
        priority=50,
        created_at=datetime.now(UTC),
        image=FileReference(path=str(sorted(SAMPLE_IMAGES.glob("*.jpg"))[0])),
        content_hash=None,
        scores=Scores(quality=2.0),
        rule="poor",
        model="sha256:" + "a" * 64,
        policy="sha256:" + "b" * 64,
        source=Source(topic="images.in", partition=0, offset=0),
    )


def test_an_item_is_leased_seen_and_decided_on_real_servers(
    kafka_server: Any, redis_server: Any, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topics = TopicSettings(**{name: new_topic(partitions=2) for name in TopicSettings.model_fields})
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topics=topics),
        redis=RedisSettings(url=redis_server.url),
        files=FileSettings(roots=(SAMPLE_IMAGES,)),
        web=WebSettings(port=0),
    )
    with closing(KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers)) as producer:
        item_id = uuid.uuid4().hex
        producer.send(topics.review, key=item_id.encode(), value=item(item_id).model_dump_json().encode()).get(10)
        for _ in range(3):
            producer.send(topics.images, value=b"{}").get(10)
        producer.send(topics.retry_1, value=b"{}").get(10)
        (packed,) = pack([Output(topics.surplus, b"{}")] * 10, topics.surplus_topics).outputs
        producer.send(packed.topic, value=packed.value, headers=list(packed.headers)).get(10)
        with (
            open_and_serve_desk(settings, None, tmp_path) as served,
            httpx.Client(base_url=served.address, timeout=10) as web,
        ):
            sign_up(web, str(served.first_link).partition("=")[2])
            lease = leased(web)
            assert lease["item_id"] == item_id
            seen = web.get(lease["items"][0]["image"]["screen"])
            assert seen.headers["content-type"] == "image/jpeg"
            answer = web.post(
                "/v1/decisions",
                json={
                    "decision_id": uuid.uuid4().hex,
                    "item_id": item_id,
                    "token": lease["token"],
                    "outcome": "reject",
                },
            )
            assert answer.json()["resolution"] == "reject"
            intake = intake_numbers(web)
            assert intake["behind"] == 3 + 1 + 10  # no worker runs here
            assert sum(hour["events"] for hour in intake["hours"]) == 3
    decision = the_decision(kafka_server.bootstrap_servers, topics.decisions)
    assert (decision.item_id, decision.reviewer, decision.outcome) == (item_id, "ana", "reject")


def sign_up(web: httpx.Client, token: str) -> None:
    csrf = web.get("/v1/sign-in").json()["csrf"]
    body = {"token": token, "name": "ana", "password": PASSWORD}
    me = web.post("/v1/invitations/accept", json=body, headers={"x-csrf-token": csrf}).json()
    web.headers["x-csrf-token"] = me["csrf"]


def leased(web: httpx.Client) -> dict[str, Any]:
    """The first lease, once the desk has read the topics."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = web.post("/v1/queues/quality/leases", json={})
        if answer.status_code == 200 and answer.json():
            lease: dict[str, Any] = answer.json()[0]
            return lease
        assert answer.status_code in {200, 503}, answer.text
        time.sleep(0.2)
    raise AssertionError("nothing to lease")


def intake_numbers(web: httpx.Client) -> dict[str, Any]:
    """A broker that was never asked for a group makes its coordinator first; until then the desk says: try again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = web.get("/v1/intake?hours=3")
        if answer.status_code == 200:
            numbers: dict[str, Any] = answer.json()
            return numbers
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < deadline, answer.text
        time.sleep(float(answer.headers["retry-after"]))


def the_decision(servers: str, topic: str) -> Decision:
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=None, isolation_level="read_committed")
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=500).values():
            consumer.close()
            return Decision.model_validate_json(records[0].value)
    raise AssertionError("no decision in the topic")
