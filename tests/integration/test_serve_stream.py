"""Engine and intake as Serve applications, on nodes of their own, with real Kafka and Redis."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka.admin import KafkaAdminClient
from ray import serve

from tests.conftest import NewTopic, Servers
from tests.integration.ray_nodes import RayNodes, application, ending_all_processes, wait_for
from tests.integration.streams import Reader, Stream, assert_each_event_has_one_verdict
from worker.scoring.manifest import load_manifest
from worker.scoring.model import SHIPPED_MODELS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ending_all_processes():
        nodes = RayNodes()
        try:
            nodes.add("engine-node", "engine")
            nodes.add("intake-node", "intake")
            yield nodes
        finally:
            nodes.close()


@pytest.fixture
def stream(servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path) -> Stream:
    return Stream(servers, new_topic, unique_name, tmp_path)


def engine_application(**options: Any) -> dict[str, Any]:
    return application("engine", "engine", {}, **options)


def intake_application(stream: Stream, **options: Any) -> dict[str, Any]:
    return application("intake", "intake", {"config": str(stream.config)}, **options)


def other_model(folder: Path) -> Path:
    """mst-lite under another version, and so with another digest."""
    copied = shutil.copytree(SHIPPED_MODELS / "mst-lite", folder / "other-model")
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"version": "other"}))
    return copied


def assert_none_failed(stream: Stream, verdicts: Reader) -> None:
    assert [value for value in verdicts.values if value.get("failure")] == []
    with stream.reader("dead") as dead:
        dead.read_rest()
        assert dead.values == []


def test_models_change_in_mid_stream_without_a_restart_and_each_event_has_one_verdict(
    nodes: RayNodes, stream: Stream, tmp_path: Path
) -> None:
    old, new = load_manifest(SHIPPED_MODELS / "mst-lite").digest, load_manifest(other_model(tmp_path)).digest
    hurry = threading.Event()
    publisher = threading.Thread(target=stream.publish, args=(300,), kwargs={"hurry": hurry})
    nodes.deploy(engine_application(), intake_application(stream))
    before = nodes.replicas("engine") | nodes.replicas("intake")
    assert set(nodes.replicas("engine").values()) == {nodes.id_of("engine-node")}
    assert set(nodes.replicas("intake").values()) == {nodes.id_of("intake-node")}

    publisher.start()
    with stream.reader("verdicts") as verdicts:
        verdicts.read_until(20, seconds=120)
        change = {"user_config": {"model": str(tmp_path / "other-model")}}
        # the intake first: it must wait for the engine, and work on meanwhile
        nodes.announce(engine_application(), intake_application(stream, **change))
        verdicts.read_until(verdicts.read() + 20, seconds=120)
        nodes.deploy(engine_application(**change), intake_application(stream, **change))
        wait_for(lambda: any(value["model"] == new for value in verdicts.values[verdicts.read() - 1 :]), nodes.tell)
        assert publisher.is_alive(), "the change should come in mid-stream"
        assert nodes.replicas("engine") | nodes.replicas("intake") == before
        hurry.set()
        verdicts.read_until(300, seconds=180)
        publisher.join()

        assert_each_event_has_one_verdict(stream, verdicts, 300)
        assert_none_failed(stream, verdicts)
        assert {value["model"] for value in verdicts.values} == {old, new}


def test_a_backlog_brings_replicas_up_to_the_partitions_and_stopping_them_leaves_nothing_half_done(
    nodes: RayNodes, stream: Stream, new_topic: NewTopic
) -> None:
    """Six replicas are allowed, but a third would find no partition to read."""
    stream.topics["images"] = new_topic(2)
    stream.change_kafka(topics=stream.topics, session_timeout_seconds=60)  # who dies would be a member till then
    slow = {"settings": {"intake": {"batch_size": 1, "batches_in_flight": 1, "max_records_in_flight": 20}}}
    scaling = {
        "min_replicas": 1,
        "max_replicas": 6,
        "upscale_delay_s": 0,
        "look_back_period_s": 11,
        "policy": {
            "policy_function": "worker.apps.autoscaling:LagPolicy",
            "policy_kwargs": {"records_per_replica": 10},
        },
    }
    intake = application("intake", "intake", {"config": str(stream.config)} | slow, autoscaling_config=scaling)
    nodes.deploy(engine_application(), intake)

    stream.publish(3000)
    wait_for(lambda: len(nodes.replicas("intake")) == 2, nodes.tell)
    with stream.reader("verdicts") as verdicts:
        verdicts.read_until(50, seconds=120)
        assert len(nodes.replicas("intake")) == 2
        serve.delete("intake")

        verdicts.read_rest()
        with KafkaAdminClient(bootstrap_servers=stream.bootstrap) as admin:
            (group,) = admin.describe_groups([stream.group]).values()
            assert group["members"] == []
            (offsets,) = admin.list_group_offsets({stream.group: None}).values()
        committed = sum(each.offset for partition, each in offsets.items())
        assert len({value["event_id"] for value in verdicts.values}) == len(verdicts.values) == committed
        assert 50 <= committed < 3000, "the replicas should stop in mid-stream"


def test_nodes_killed_in_mid_stream_lose_no_verdict_and_repeat_none(nodes: RayNodes, stream: Stream) -> None:
    """First the engine's node, then the intake's; a third node takes over from both."""
    count = 600
    settings = yaml.safe_load(stream.config.read_text())
    settings["kafka"]["transaction_timeout_seconds"] = 5
    stream.config.write_text(yaml.safe_dump(settings))
    nodes.deploy(engine_application(), intake_application(stream))
    nodes.add("spare-node", "engine", "intake")
    hurry = threading.Event()
    publisher = threading.Thread(target=stream.publish, args=(count,), kwargs={"hurry": hurry})
    publisher.start()

    with stream.reader("verdicts") as verdicts:
        verdicts.read_until(20, seconds=120)
        for application_name in ("engine", "intake"):
            nodes.kill(f"{application_name}-node")
            wait_for(
                lambda name=application_name: set(nodes.replicas(name).values()) == {nodes.id_of("spare-node")},
                nodes.tell,
            )
            verdicts.read_until(verdicts.read() + 20, seconds=120)
        assert publisher.is_alive(), "the nodes should die in mid-stream"
        hurry.set()
        verdicts.read_until(count, seconds=240)
        publisher.join()

        assert_each_event_has_one_verdict(stream, verdicts, count)
        assert_none_failed(stream, verdicts)
