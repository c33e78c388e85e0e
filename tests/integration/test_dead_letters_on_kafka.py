"""Redriving dead letters on a real broker: killed in the middle, and by several at once."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ops.dev.servers import KafkaServer
from schemas import DeadLetter, Failure, FailureReason, ImageEvent, S3Reference, Source
from tests.conftest import NewTopic
from worker.intake.log import Output
from worker.review.kafka_topics import KafkaTopics
from worker.settings import KafkaSettings, TopicSettings, load_settings

SLUICE = Path(sys.executable).parent / "sluice"
LETTERS = 240


@pytest.fixture
def config(kafka_server: KafkaServer, new_topic: NewTopic, unique_name: str, tmp_path: Path) -> Path:
    path = tmp_path / "sluice.yaml"
    topics = {name: new_topic(2) for name in TopicSettings.model_fields}
    kafka = {"bootstrap_servers": kafka_server.bootstrap_servers, "group_id": unique_name, "topics": topics}
    path.write_text(yaml.safe_dump({"kafka": kafka}))
    return path


@pytest.fixture
def settings(config: Path) -> KafkaSettings:
    return load_settings(config, {}).kafka


def publish_letters(settings: KafkaSettings) -> None:
    now = datetime.now(UTC)
    outputs = []
    for number in range(LETTERS):
        event = ImageEvent(id=f"e{number}", occurred_at=now, image=S3Reference(bucket="b", key=f"{number}.png"))
        payload = event.model_dump_json(by_alias=True).encode()
        letter = DeadLetter(
            event_id=event.id,
            verdict_id=f"v{number}",
            failed_at=now,
            failure=Failure(reason=FailureReason.ACCESS_DENIED, message="not allowed"),
            source=Source(topic=settings.topics.images, partition=0, offset=number),
            payload=payload,
            payload_size=len(payload),
        )
        outputs.append(Output(settings.topics.dead, letter.model_dump_json().encode(), event.id.encode()))
    with closing(KafkaTopics(settings)) as topics:
        topics.append(outputs)


def values(settings: KafkaSettings, topic: str) -> list[bytes]:
    """What is committed."""
    with closing(KafkaTopics(settings)) as topics:
        ends = topics.ends(topic)
        positions = dict.fromkeys(ends, 0)
        found: list[bytes] = []
        while any(positions[partition] < end for partition, end in ends.items()):
            batch = topics.read(positions, 0.2)
            positions = dict(batch.positions)
            found += [record.value or b"" for record in batch.records]
        return found


@contextmanager
def redriving(config: Path, rate: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [SLUICE, "dead", "redrive", "--all", "--yes", "--rate", str(rate), "--config", config]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for_actions(settings: KafkaSettings, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(values(settings, settings.topics.dead_actions)) < count:
        assert time.monotonic() < deadline, f"fewer than {count} letters were redriven in 60 s"
        time.sleep(0.2)


def test_no_event_is_submitted_twice_by_runs_that_are_killed_or_at_work_at_once(
    config: Path, settings: KafkaSettings
) -> None:
    publish_letters(settings)
    with redriving(config, rate=20) as killed:
        wait_for_actions(settings, 20)
        killed.kill()
    with redriving(config, rate=20) as first, redriving(config, rate=25) as second:
        wait_for_actions(settings, 100)
        first.kill()
        out, _ = second.communicate(timeout=120)
    assert second.returncode == 0, out.decode()

    events = Counter(ImageEvent.model_validate_json(value).id for value in values(settings, settings.topics.images))
    assert set(events.values()) == {1}
    assert len(events) == LETTERS
    assert len(values(settings, settings.topics.dead_actions)) == LETTERS

    again = subprocess.run(
        [SLUICE, "dead", "redrive", "--all", "--config", config], capture_output=True, text=True, check=True, timeout=60
    )
    assert "nothing was done" in again.stdout
    assert len(values(settings, settings.topics.images)) == LETTERS
