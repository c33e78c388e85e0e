"""Snapshots and the deletion of old records, on both logs."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fakeredis
import pytest

from ops.dev.servers import KafkaServer
from schemas import InlineReference
from tests.unit.review.review_bench import review_item
from worker.intake.log import LogError, Output
from worker.intake.topics import create_topics
from worker.review.answers import Choice, Status
from worker.review.catalogue.catalogue import Catalogue
from worker.review.desk import Desk
from worker.review.index.index import Index
from worker.review.open_topics import open_topics
from worker.review.projector import Projector, rebuild
from worker.settings import KafkaSettings, ReviewSettings, Settings, TopicSettings

DAYS = 7
STEPS = 14


@dataclass
class Clock:
    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Settings, Path | None]:
    review = ReviewSettings(keep_closed_days=2, audit_share=0)
    if request.param == "embedded":
        return Settings(review=review), tmp_path
    server: KafkaServer = request.getfixturevalue("kafka_server")
    name: str = request.getfixturevalue("unique_name")
    topics = TopicSettings(**{kind: f"{name}.{kind}" for kind in TopicSettings.model_fields})
    kafka = KafkaSettings(bootstrap_servers=server.bootstrap_servers, topics=topics)
    create_topics(kafka, partitions=2, replication_factor=1)
    return Settings(kafka=kafka, review=review), None


def test_old_records_leave_the_log_and_a_new_desk_starts_from_the_snapshot(
    place: tuple[Settings, Path | None], tmp_path: Path
) -> None:
    settings, data = place
    names, now = settings.kafka.topics, Clock()
    with ExitStack() as open_:
        topics = open_.enter_context(closing(open_topics(settings, data)))
        catalogue = open_.enter_context(closing(Catalogue(tmp_path / "one.sqlite", settings.review)))
        client = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
        inline = {"kind": "inline", "bytes": "aGVsbG8="}
        items = [review_item(f"i{n}", created_at=datetime.now(UTC), image=inline) for n in range(20)]
        topics.append([Output(names.review, i.model_dump_json().encode(), i.event_id.encode()) for i in items])
        projector = Projector(settings, topics, client, Index(client), catalogue, now)
        projector.catch_up()
        desk = Desk(settings, topics, client, catalogue, now=now)
        desk.hold("i0", "lead", note="ask legal")
        for number in range(1, 19):
            lease = desk.take(f"i{number}", "ann")
            desk.decide(Choice(lease.item_id, lease.token, f"d{number}", "reject"), "ann")
        for _ in range(2):
            now.ahead += timedelta(days=DAYS)
            projector.seize()
            for _ in range(STEPS):
                projector.step()
        assert set(catalogue.ids()) == {"i0", "i19"}
        assert topics.starts(names.decisions) == topics.ends(names.decisions)
        assert sum(topics.starts(names.review).values()) >= 20

        other = open_.enter_context(closing(Catalogue(tmp_path / "other.sqlite", settings.review)))
        assert rebuild(settings, topics, client, other, now) == 2
        desk = Desk(settings, topics, client, other, now=now)
        held = desk.item("i0")
        assert (held.status, held.history[0].note) == (Status.HELD, "ask legal")
        for item_id in ("i0", "i19"):
            assert desk.image(item_id) == (InlineReference(bytes=b"hello"), None)
        fresh = dict.fromkeys(topics.ends(names.decisions), 0)
        for _ in range(20):
            fresh = dict(topics.read(fresh, 0.05).positions)
        assert fresh == topics.ends(names.decisions), "who reads from the beginning gets past what is deleted"
        assert topics.record(next(iter(topics.ends(names.review))), 0) is None


@pytest.mark.integration
def test_a_compacted_topic_of_an_older_version_is_told_and_left_alone(
    kafka_server: KafkaServer, unique_name: str
) -> None:
    names = TopicSettings(**{kind: f"{unique_name}.{kind}" for kind in TopicSettings.model_fields})
    kafka = KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topics=names)
    create_topics(kafka, partitions=1, replication_factor=1)
    with closing(open_topics(Settings(kafka=kafka), None)) as topics:
        ((partition, _),) = topics.append([Output(names.dead_actions, b"x", b"k")])
        with pytest.raises(LogError, match=r"cleanup\.policy=delete"):
            topics.trim({partition: 1})
        ((partition, _),) = topics.append([Output(names.review, b"x", b"k")])
        topics.trim({partition: 1})
        assert topics.starts(names.review) == {partition: 1}
